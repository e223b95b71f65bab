/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every kind of memory has in common: charges that end with a handle, or with their context.
 *
 * The maps of handles decide who gives a charge back: whoever takes the record out. A context that ends takes with it what the
 * application has not freed: its records are looked for in all maps then, so that nothing need be kept in a list until then.
 */
#include "shim/cuda/memory.h"

#include "base/auto.h"

#include <errno.h>
#include <stdlib.h>

struct pen_map pen_cu_blocks, pen_cu_arrays, pen_cu_pinned, pen_cu_foreign;

/* ---- blocks -------------------------------------------------------------------------------------------------------- */

void pen_cu_mem_settle(struct pen_cu_device *d, bool trim)
{
	if (atomic_load_explicit(&d->pools, memory_order_relaxed))
		pen_cu_pools_settle(d, trim);
	if (atomic_load_explicit(&d->graph_memory.used, memory_order_relaxed))
		pen_cu_graphs_settle(d, trim);
}

static bool keeps_unused(struct pen_cu_device *d)
{
	return atomic_load_explicit(&d->pools, memory_order_relaxed) ||
	       atomic_load_explicit(&d->graph_memory.used, memory_order_relaxed);
}

static bool fits(struct pen_gate *g, uint64_t bytes)
{
	struct pen_mem_view v;
	pen_gate_mem_view(g, &v);
	return v.used_bytes <= v.limit_bytes && bytes <= v.limit_bytes - v.used_bytes;
}

/* Before a denial, since those are counted. */
bool pen_cu_make_room(struct pen_cu_device *d, uint64_t bytes)
{
	struct pen_gate *g = pen_cu_gate(d);
	if (!g || !bytes || !keeps_unused(d) || fits(g, bytes))
		return false;
	pen_cu_mem_settle(d, false);
	if (!fits(g, bytes))
		pen_cu_mem_settle(d, true);
	return true;
}

int pen_cu_charge(struct pen_cu_device *d, uint64_t bytes)
{
	struct pen_gate *g = pen_cu_gate(d);
	if (!g)
		return -ENOMEM;
	bool tried = pen_cu_make_room(d, bytes);
	int r = pen_gate_mem_reserve(g, bytes);
	if (r == 0 || tried || !keeps_unused(d))
		return r;
	pen_cu_mem_settle(d, true);   /* more was lent than there is just now */
	return pen_gate_mem_reserve(g, bytes);
}

bool pen_cu_recharge(struct pen_gate *g, uint64_t was, uint64_t now, bool must)
{
	if (now < was)
		pen_gate_mem_refund(g, was - now, true);
	if (now <= was)
		return true;
	if (pen_gate_mem_reserve(g, now - was) == 0)
		pen_gate_mem_refund(g, 0, false);   /* bytes, but no object of their own */
	else if (must)
		pen_gate_mem_force(g, now - was);
	else
		return false;
	return true;
}

void pen_cu_mem_synced(struct pen_cu_device *d)
{
	if (atomic_load_explicit(&d->pools, memory_order_relaxed))
		pen_cu_pools_settle(d, false);
}

uint64_t pen_cu_mem_limit(struct pen_cu_device *d)
{
	struct pen_gate *g = pen_cu_gate(d);
	struct pen_mem_view v = { 0 };
	if (g)
		pen_gate_mem_view(g, &v);
	return PEN_MIN(v.limit_bytes, d->mem_bytes ? d->mem_bytes : UINT64_MAX);
}

static _Atomic uint32_t time_now;   /* counts ends of primary contexts */

/* Not calloc(): it is slower by half the whole cost of a block. */
static struct pen_cu_block *block_on(struct pen_cu_device *d, CUcontext ctx)
{
	struct pen_cu_block *b = pen_cu_gate(d) ? malloc(sizeof(*b)) : NULL;
	if (b)
		*b = (struct pen_cu_block){ .device = d,
					    .ctx = ctx,
					    .process = pen_forklock_process(),
					    .time = atomic_load_explicit(&time_now, memory_order_relaxed) };
	return b;
}

/* Without a charge. NULL and success: there is no context, and the driver will say so. */
static struct pen_cu_block *block_new(CUresult *ret)
{
	CUcontext ctx = NULL;
	*ret = CUDA_SUCCESS;
	if (REAL(cuCtxGetCurrent)(&ctx) != CUDA_SUCCESS || !ctx)
		return NULL;
	struct pen_cu_device *d = pen_cu_device_current();
	struct pen_cu_block *b = d ? block_on(d, ctx) : NULL;
	if (d && !b)
		*ret = CUDA_ERROR_OUT_OF_MEMORY;
	return b;
}

static bool charge_block(struct pen_cu_block *b, uint64_t bytes)
{
	b->charged = pen_cu_charge(b->device, bytes) == 0;
	b->bytes = bytes;
	return b->charged;
}

struct pen_cu_block *pen_cu_block_new(uint64_t bytes, CUresult *ret)
{
	struct pen_cu_block *b = block_new(ret);
	if (!b || charge_block(b, bytes))
		return b;
	free(b);
	*ret = CUDA_ERROR_OUT_OF_MEMORY;
	return NULL;
}

struct pen_cu_block *pen_cu_block_new_on(struct pen_cu_device *d, uint64_t bytes)
{
	struct pen_cu_block *b = block_on(d, NULL);
	if (!b || charge_block(b, bytes))
		return b;
	free(b);
	return NULL;
}

/*
 * Whether a small block needs a page only its address tells. A refusal is not tried again before something was freed: else many
 * threads at the limit would each have a page for a moment.
 */
struct pen_cu_block *pen_cu_block_new_paged(uint64_t bytes, CUresult *ret)
{
	struct pen_cu_block *b = block_new(ret);
	if (!b)
		return NULL;
	bool small = pen_cu_is_small(b->device, bytes), tight = atomic_load_explicit(&b->device->tight, memory_order_relaxed);
	if (small && !tight)
		return b;
	if (charge_block(b, pen_cu_whole_pages(b->device, bytes)))
		return b;
	free(b);
	*ret = CUDA_ERROR_OUT_OF_MEMORY;
	return NULL;
}

/* The bytes become @bytes. */
static bool settle(struct pen_cu_block *b, uint64_t bytes)
{
	if (!b->charged)
		return charge_block(b, bytes);
	if (bytes != b->bytes && !pen_cu_recharge(b->device->gate, b->bytes, bytes, false))
		return false;
	b->bytes = bytes;
	return true;
}

/* Gives back what is charged for it, and the record. */
static void give_back(struct pen_cu_block *b)
{
	uint64_t bytes = b->small ? pen_cu_pages_leave(b->small, b->bytes) : b->bytes;
	if (b->pool)
		pen_cu_pool_freed(b->pool, b->bytes);
	else if (b->charged && b->process == pen_forklock_process())
		pen_gate_mem_release(b->device->gate, bytes);
	if (b->device && atomic_load_explicit(&b->device->tight, memory_order_relaxed))
		atomic_store_explicit(&b->device->tight, false, memory_order_relaxed);
	if (b->held)
		pen_cu_held_drop(b->held);
	free(b);
}

/* What has the same key has ended in a way that we have not seen. */
static bool publish(struct pen_cu_block *b, struct pen_map *map, const void *key)
{
	void *old;
	b->map = map;
	b->key = key;
	if (pen_map_swap(map, key, b, &old) < 0)
		return false;
	if (old)
		give_back(old);
	return true;
}

bool pen_cu_block_keep(struct pen_cu_block *b, uint64_t bytes, struct pen_map *map, const void *key)
{
	return (b->pool || settle(b, bytes)) && publish(b, map, key);
}

bool pen_cu_block_keep_paged(struct pen_cu_block *b, CUdeviceptr ptr, uint64_t bytes, struct pen_map *map, const void *key)
{
	uint64_t pages = 0;
	if (!pen_cu_is_small(b->device, bytes))
		return settle(b, pen_cu_whole_pages(b->device, bytes)) && publish(b, map, key);
	if (pen_cu_page_bytes(b->device) != PEN_CU_PAGE_BYTES)
		return settle(b, bytes) && publish(b, map, key);
	if (!pen_cu_pages_touch(ptr, bytes, &pages))
		return false;
	if (!settle(b, pages)) {
		pen_cu_pages_leave(ptr, bytes);
		atomic_store_explicit(&b->device->tight, true, memory_order_relaxed);
		return false;
	}
	b->small = ptr;
	b->bytes = bytes;
	return publish(b, map, key);
}

void pen_cu_block_drop(struct pen_cu_block *b)
{
	if (b && (b->charged || b->pool))
		give_back(b);
	else
		free(b);
}

struct pen_cu_block *pen_cu_block_take(struct pen_map *map, const void *key)
{
	return pen_map_take(map, key);
}

CUresult pen_cu_block_ended(struct pen_cu_block *b, CUresult r)
{
	if (!b)
		return r;
	if (r == CUDA_SUCCESS)
		give_back(b);
	else
		pen_map_put(b->map, b->key, b);   /* not even memory for that: the charge stays, too strict */
	return r;
}

/* ---- limits of a context ----------------------------------------------------------------------------------------------- */

struct pen_cu_limits {
	struct pen_cu_device *device;
	CUcontext ctx;
	uint64_t bytes;
	uint32_t process;
	uint32_t time;                   /* as of a block */
};

static struct pen_map limits;                              /* by context */
static struct pen_forklock limits_lock = PEN_FORKLOCK_INIT;   /* their fields */

static struct pen_cu_limits *limits_of(CUcontext ctx, struct pen_cu_device *d)
{
	pen_forklock_take(&limits_lock);
	struct pen_cu_limits *l = pen_map_find(&limits, ctx);
	if (!l) {
		l = calloc(1, sizeof(*l));
		if (l && pen_map_put(&limits, ctx, l) < 0) {
			free(l);
			l = NULL;
		}
	}
	if (l && l->process != pen_forklock_process())
		*l = (struct pen_cu_limits){ .device = d, .ctx = ctx, .process = pen_forklock_process(), .time = atomic_load(&time_now) };
	pen_forklock_give(&limits_lock);
	return l;
}

static void limits_gone(struct pen_cu_limits *l)
{
	if (l && l->bytes && l->process == pen_forklock_process())
		pen_gate_mem_refund(l->device->gate, l->bytes, true);
	free(l);
}

/*
 * Heap and print buffer of kernels are memory of the device: what a program makes them larger by is charged as it asks. Stacks are
 * not: what the driver sets aside for them depends on the kernels that run.
 */
CUresult pen_cuCtxSetLimit(CUlimit what, size_t value)
{
	if (pen_cu_thread.depth || (what != CU_LIMIT_MALLOC_HEAP_SIZE && what != CU_LIMIT_PRINTF_FIFO_SIZE) || !REAL(cuCtxGetLimit))
		return REAL(cuCtxSetLimit)(what, value);
	CUcontext ctx = NULL;
	size_t old = 0, now = 0;
	struct pen_cu_device *d = REAL(cuCtxGetCurrent)(&ctx) == CUDA_SUCCESS && ctx ? pen_cu_device_current() : NULL;
	struct pen_cu_limits *l = d ? limits_of(ctx, d) : NULL;
	if (!d || PEN_CU_INSIDE(REAL(cuCtxGetLimit)(&old, what)) != CUDA_SUCCESS)
		return PEN_CU_INSIDE(REAL(cuCtxSetLimit)(what, value));
	uint64_t more = value > old ? value - old : 0;
	if (!l || (more && pen_cu_charge(d, more) < 0))
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (more)
		pen_gate_mem_refund(d->gate, 0, false);   /* bytes, but no object of their own */
	CUresult r = PEN_CU_INSIDE(REAL(cuCtxSetLimit)(what, value));
	if (PEN_CU_INSIDE(REAL(cuCtxGetLimit)(&now, what)) != CUDA_SUCCESS)
		now = r == CUDA_SUCCESS ? value : old;
	/* What was reserved counts until here; then what came of it. */
	pen_forklock_take(&limits_lock);
	uint64_t was = l->bytes;
	l->bytes = now >= old ? was + (now - old) : was - PEN_MIN(was, (uint64_t)(old - now));
	pen_cu_recharge(d->gate, was + more, l->bytes, true);
	pen_forklock_give(&limits_lock);
	return r;
}

/* ---- the end of a context ------------------------------------------------------------------------------------------- */

static bool owns(const struct pen_cu_ending *e, CUcontext ctx, const struct pen_cu_device *d, uint32_t time)
{
	if (!e->device)
		return ctx == e->ctx;
	return d == e->device && ctx && (ctx == e->ctx || !pen_cu_made_known(ctx)) && (int32_t)(time - e->before) < 0;
}

static bool owns_block(const void *block, void *ending)
{
	const struct pen_cu_block *b = block;
	return owns(ending, b->ctx, b->device, b->time);
}

static bool owns_limits(const void *limits_, void *ending)
{
	const struct pen_cu_limits *l = limits_;
	return owns(ending, l->ctx, l->device, l->time);
}

/* Blocks that have been taken out of their maps, one behind the other. */
static struct pen_cu_block *take_all(struct pen_cu_ending *e)
{
	struct pen_map *const maps[] = { &pen_cu_blocks, &pen_cu_arrays, &pen_cu_pinned, &pen_cu_foreign };
	struct pen_cu_block *all = NULL;
	for (size_t i = 0; i < PEN_ARRAY_LEN(maps); i++) {
		void *few[64];
		size_t n, room = atomic_load(&maps[i]->live);
		pen_auto_free void **many = room > PEN_ARRAY_LEN(few) ? calloc(room, sizeof(*many)) : NULL;
		void **v = many ? many : few;
		room = many ? room : PEN_ARRAY_LEN(few);
		do {
			n = pen_map_take_some(maps[i], owns_block, e, v, room);
			for (size_t k = 0; k < n; k++) {
				struct pen_cu_block *b = v[k];
				b->next = all;
				all = b;
			}
		} while (n == room);
	}
	return all;
}

static void end_all(struct pen_cu_block *all)
{
	while (all) {
		struct pen_cu_block *b = all;
		all = b->next;
		give_back(b);
	}
}

/* Before: as soon as the driver has it back, the handle may be another context's, and have blocks. */
void pen_cu_mem_context_ends(CUcontext ctx, struct pen_cu_ending *ret)
{
	*ret = (struct pen_cu_ending){ .ctx = ctx };
	if (!ctx)
		return;
	ret->blocks = take_all(ret);
	ret->limits = pen_map_take(&limits, ctx);
	ret->made = pen_cu_made_take(ctx);
}

/*
 * Nearly always others hold it, and it does not end: so its blocks stay where they are, and may be freed meanwhile. Those that
 * come from now on are told apart by their time.
 */
void pen_cu_mem_primary_ends(struct pen_cu_device *d, CUcontext ctx, struct pen_cu_ending *ret)
{
	*ret = (struct pen_cu_ending){ .ctx = ctx };
	if (!d || !ctx)
		return;
	ret->device = d;
	ret->before = atomic_fetch_add(&time_now, 1) + 1;
	ret->made = pen_cu_made_take(ctx);
}

void pen_cu_mem_context_ended(struct pen_cu_ending *e, bool gone)
{
	void *l;
	if (gone && e->device) {
		e->blocks = take_all(e);
		while (pen_map_take_some(&limits, owns_limits, e, &l, 1))
			limits_gone(l);
	}
	if (gone) {
		end_all(e->blocks);
		limits_gone(e->limits);
		pen_cu_made_gone(e->made);
		return;
	}
	while (e->blocks) {
		struct pen_cu_block *b = e->blocks;
		e->blocks = b->next;
		pen_map_put(b->map, b->key, b);
	}
	if (e->limits)
		pen_map_put(&limits, e->ctx, e->limits);
	if (e->made)
		pen_cu_made_put(e->ctx, e->made);
}
