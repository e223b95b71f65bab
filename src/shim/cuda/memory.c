/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain device memory and what every kind of it has in common: charges that end with a handle, or with their context.
 *
 * The map of handles decides who gives a charge back: whoever takes the record out of it. A context that ends takes with it what
 * the application has not freed; its records are found by its list.
 */
#include "shim/cuda/memory.h"

#include "base/auto.h"

#include <errno.h>
#include <stdlib.h>

struct pen_map pen_cu_blocks;
static struct pen_map owners;

/* ---- owners -------------------------------------------------------------------------------------------------------- */

static struct pen_cu_owner *owner_new(CUcontext id)
{
	static struct pen_forklock making = PEN_FORKLOCK_INIT;
	struct pen_cu_owner *o = calloc(1, sizeof(*o));
	if (!o)
		return NULL;
	o->id = id;
	pen_forklock_take(&making);
	struct pen_cu_owner *there = pen_map_find(&owners, id);
	bool failed = !there && pen_map_put(&owners, id, o) < 0;
	pen_forklock_give(&making);
	if (!there && !failed)
		return o;
	free(o);
	return there;
}

struct pen_cu_owner *pen_cu_owner_current(void)
{
	CUcontext id = NULL;
	if (!REAL(cuCtxGetCurrent) || REAL(cuCtxGetCurrent)(&id) != CUDA_SUCCESS || !id)
		return NULL;
	struct pen_cu_owner *o = pen_map_find(&owners, id);
	return o ? o : owner_new(id);
}

static void link_block(struct pen_cu_block *b)
{
	static _Atomic uint64_t numbers;
	struct pen_cu_owner *o = b->owner;
	if (!o)
		return;
	b->number = atomic_fetch_add_explicit(&numbers, 1, memory_order_relaxed);
	pen_forklock_take(&o->lock);
	b->next = o->blocks;
	b->link = &o->blocks;
	if (b->next)
		b->next->link = &b->next;
	o->blocks = b;
	pen_forklock_give(&o->lock);
}

static void unlink_block(struct pen_cu_block *b)
{
	struct pen_cu_owner *o = b->owner;
	if (!o)
		return;
	pen_forklock_take(&o->lock);
	*b->link = b->next;
	if (b->next)
		b->next->link = b->link;
	pen_forklock_give(&o->lock);
}

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

struct pen_cu_block *pen_cu_block_new(uint64_t bytes, CUresult *ret)
{
	*ret = CUDA_SUCCESS;
	struct pen_cu_owner *o = pen_cu_owner_current();
	struct pen_cu_device *d = o ? pen_cu_device_current() : NULL;
	if (!d)
		return NULL;   /* no context: the driver says so */
	*ret = CUDA_ERROR_OUT_OF_MEMORY;
	struct pen_cu_block *b = calloc(1, sizeof(*b));
	if (!b)
		return NULL;
	b->device = d;
	b->bytes = bytes;
	b->owner = o;
	b->process = pen_forklock_process();
	if (pen_cu_charge(d, bytes) < 0) {
		free(b);
		return NULL;
	}
	*ret = CUDA_SUCCESS;
	return b;
}

/* The bytes become @bytes. */
static bool settle(struct pen_cu_block *b, uint64_t bytes)
{
	if (bytes != b->bytes && !pen_cu_recharge(b->device->gate, b->bytes, bytes, false))
		return false;
	b->bytes = bytes;
	return true;
}

bool pen_cu_block_keep(struct pen_cu_block *b, uint64_t bytes, struct pen_map *map, const void *key)
{
	if (!settle(b, bytes))
		return false;
	b->map = map;
	b->key = key;
	/* Into the list first: what is found by its handle may be freed at once. */
	link_block(b);
	if (pen_map_put(map, key, b) == 0)
		return true;
	unlink_block(b);
	return false;
}

static void give_back(struct pen_cu_block *b)
{
	if (b->pool)
		pen_cu_pool_freed(b->pool, b->bytes);
	else if (b->process == pen_forklock_process())
		pen_gate_mem_release(b->device->gate, b->bytes);
	if (b->held)
		pen_cu_held_drop(b->held);
	free(b);
}

void pen_cu_block_drop(struct pen_cu_block *b)
{
	if (b)
		give_back(b);
}

struct pen_cu_block *pen_cu_block_take(struct pen_map *map, const void *key)
{
	return pen_map_take(map, key);
}

CUresult pen_cu_block_ended(struct pen_cu_block *b, CUresult r)
{
	if (!b)
		return r;
	/* Not even memory for that: the charge stays with the context, too strict. */
	if (r != CUDA_SUCCESS) {
		pen_map_put(b->map, b->key, b);
		return r;
	}
	unlink_block(b);
	give_back(b);
	return r;
}

/* ---- the end of a context ------------------------------------------------------------------------------------------- */

#define ROUND 64

struct found {
	struct pen_cu_block *block;
	struct pen_map *map;
	const void *key;
	uint64_t number;
};

/* A block may be freed by another thread as soon as the lock is given: what is needed of it is copied. */
static unsigned look(struct pen_cu_owner *o, struct found *v, unsigned skip)
{
	unsigned n = 0;
	pen_forklock_take(&o->lock);
	for (struct pen_cu_block *b = o->blocks; b && n < ROUND; b = b->next) {
		if (skip) {
			skip--;
			continue;
		}
		v[n++] = (struct found){ b, b->map, b->key, b->number };
	}
	pen_forklock_give(&o->lock);
	return n;
}

/* True: it was still there and is given back. */
static bool end_found(const struct found *f)
{
	struct pen_cu_block *b = pen_map_take(f->map, f->key);
	if (!b)
		return false;   /* another thread frees it just now */
	if (b != f->block || b->number != f->number) {
		pen_map_put(f->map, f->key, b);   /* the address is in use again */
		return false;
	}
	unlink_block(b);
	give_back(b);
	return true;
}

static void limits_gone(struct pen_cu_owner *o)
{
	pen_forklock_take(&o->lock);
	uint64_t bytes = o->limit_process == pen_forklock_process() ? o->limit_bytes : 0;
	struct pen_cu_device *d = o->limit_device;
	o->limit_bytes = 0;
	pen_forklock_give(&o->lock);
	if (bytes)
		pen_gate_mem_refund(d->gate, bytes, true);
}

void pen_cu_mem_context_gone(CUcontext ctx)
{
	struct pen_cu_owner *o = ctx ? pen_map_find(&owners, ctx) : NULL;
	struct found v[ROUND];
	unsigned skip = 0, n;
	while (o && (n = look(o, v, skip)) != 0) {
		for (unsigned i = 0; i < n; i++)
			skip += !end_found(&v[i]);
	}
	if (o)
		limits_gone(o);
}

/* ---- limits of a context ----------------------------------------------------------------------------------------------- */

/*
 * Heap and print buffer of kernels are memory of the device: what a program makes them larger by is charged as it asks. Stacks are
 * not: what the driver sets aside for them depends on the kernels that run.
 */
CUresult pen_cuCtxSetLimit(CUlimit what, size_t value)
{
	if (pen_cu_thread.depth || (what != CU_LIMIT_MALLOC_HEAP_SIZE && what != CU_LIMIT_PRINTF_FIFO_SIZE) || !REAL(cuCtxGetLimit))
		return REAL(cuCtxSetLimit)(what, value);
	struct pen_cu_owner *o = pen_cu_owner_current();
	struct pen_cu_device *d = o ? pen_cu_device_current() : NULL;
	size_t old = 0, now = 0;
	if (!d || PEN_CU_INSIDE(REAL(cuCtxGetLimit)(&old, what)) != CUDA_SUCCESS)
		return PEN_CU_INSIDE(REAL(cuCtxSetLimit)(what, value));
	uint64_t more = value > old ? value - old : 0;
	if (more && pen_cu_charge(d, more) < 0)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult r = PEN_CU_INSIDE(REAL(cuCtxSetLimit)(what, value));
	if (PEN_CU_INSIDE(REAL(cuCtxGetLimit)(&now, what)) != CUDA_SUCCESS)
		now = r == CUDA_SUCCESS ? value : old;
	pen_forklock_take(&o->lock);
	if (o->limit_process != pen_forklock_process())
		o->limit_bytes = 0;
	o->limit_process = pen_forklock_process();
	o->limit_device = d;
	/* What was reserved counts until here; then what came of it. */
	uint64_t had = o->limit_bytes + more;
	o->limit_bytes = now >= old ? o->limit_bytes + (now - old) : o->limit_bytes - PEN_MIN(o->limit_bytes, (uint64_t)(old - now));
	uint64_t has = o->limit_bytes;
	pen_forklock_give(&o->lock);
	if (more)
		pen_gate_mem_refund(d->gate, 0, false);   /* bytes, but no object of their own */
	if (had > has)
		pen_gate_mem_refund(d->gate, had - has, true);
	else if (has > had)
		pen_gate_mem_force(d->gate, has - had);
	return r;
}
