/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stream-ordered memory. A pool keeps what is freed for its next request, so what it takes from the device is not the sum of its
 * blocks: it is charged max(live requests, what the driver says it holds), and that is read anew after each change.
 *
 * The driver is asked without a lock, so answers may come out of order: each asking has a number, taken after the change, and the
 * answer with the highest counts. In between the charge never falls below the live requests and what was reserved for others.
 * Where a request would go over the contract, pools first give back what nobody uses, as the driver itself lets them do when
 * the device is full. Records of pools are used again and never freed: blocks point to them.
 */
#include "shim/cuda/memory.h"

#include "base/auto.h"
#include "base/clock.h"
#include "shim/cuda/gating.h"

#include <stdlib.h>

struct pen_cu_pool {
	struct pen_cu_pool *next;         /* of all; never unlinked */
	struct pen_cu_device *_Atomic device;   /* NULL: not in use, or memory of the host, which costs nothing */
	struct pen_forklock lock;         /* what follows */
	CUmemoryPool id;                  /* NULL: destroyed, or not in use */
	_Atomic bool used;
	uint32_t process;
	uint32_t blocks;
	uint32_t growing;                 /* requests that are with the driver: what they make it grow by they settle themselves */
	uint64_t reserved;                /* for those, and not read from the driver yet */
	uint64_t unsure;                  /* bytes of those that may make it grow although it has as much */
	_Atomic uint32_t settled;         /* futex: rises when one of the unsure has come back */
	_Atomic uint32_t waiters;         /* ... and threads that wait for that */
	uint64_t live, charged;
	uint64_t held;                    /* by the driver, as last read */
	uint64_t step;                    /* it grows by so much at least; 0: not seen yet */
	uint64_t fresh;                   /* in one piece behind what it grew by last */
	uint64_t too_large;               /* a request of this size made it grow although it had as much; any free may change that */
	uint64_t ticket, read;
};

struct request {
	CUdeviceptr *dptr;
	size_t bytes;
	CUmemoryPool pool;       /* NULL: the device's current one */
	CUstream stream;
	bool per_thread;
	uint64_t reserved, unsure;   /* its part of the pool's counts */
};

static struct pen_map pools;
static struct pen_cu_pool *_Atomic all;
static struct pen_forklock making = PEN_FORKLOCK_INIT;

/* ---- records ------------------------------------------------------------------------------------------------------- */

static struct pen_cu_pool *pool_get(void)
{
	struct pen_cu_pool *p = atomic_load(&all);
	while (p && p->used)
		p = p->next;
	if (p)
		return p;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->next = atomic_load(&all);
	atomic_store(&all, p);
	return p;
}

static struct pen_cu_pool *pool_make(CUmemoryPool id, struct pen_cu_device *d)
{
	pen_forklock_take(&making);
	struct pen_cu_pool *p = pen_map_find(&pools, id);
	if (!p) {
		p = pool_get();
		if (p && pen_map_put(&pools, id, p) < 0)
			p = NULL;
		if (p) {
			pen_forklock_take(&p->lock);
			p->used = true;
			p->id = id;
			p->process = pen_forklock_process();
			p->held = p->step = p->fresh = p->reserved = p->unsure = 0;
			p->too_large = UINT64_MAX;
			atomic_store(&p->device, d);
			pen_forklock_give(&p->lock);
			if (d)
				atomic_fetch_add(&d->pools, 1);
		}
	}
	pen_forklock_give(&making);
	return p;
}

/* Neither the application nor a block needs it any more. Under its lock. */
static void pool_retire(struct pen_cu_pool *p)
{
	struct pen_cu_device *d = atomic_load(&p->device);
	if (p->id || p->blocks)
		return;
	if (d)
		atomic_fetch_sub(&d->pools, 1);
	atomic_store(&p->device, NULL);
	p->used = false;
}

/* ---- the charge ---------------------------------------------------------------------------------------------------- */

/* What the driver holds for it; 0 where it does not say. */
static uint64_t reserved_bytes(CUmemoryPool id)
{
	uint64_t v = 0;
	if (!id || !REAL(cuMemPoolGetAttribute) ||
	    PEN_CU_INSIDE(REAL(cuMemPoolGetAttribute)(id, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &v)) != CUDA_SUCCESS)
		return 0;
	return v;
}

/* What it holds unused goes back to the device. */
static void trim(CUmemoryPool id)
{
	if (!id || !REAL(cuMemPoolTrimTo))
		return;
	CUstreamCaptureMode mode = pen_cu_relax();   /* no capture of another thread is to be spoiled by it */
	(void)PEN_CU_INSIDE(REAL(cuMemPoolTrimTo)(id, 0));
	pen_cu_unrelax(mode);
}

/*
 * Reads what it holds and charges that. @must: more than the contract allows is taken all the same, for it is there already, unless a
 * request is with the driver that may be undone; else false says so, with the charge as it was. @q: a request that has come
 * back; what was reserved for others stays. NULL: none has.
 */
static bool settle_after(struct pen_cu_pool *p, struct request *q, bool must)
{
	struct pen_cu_device *d = atomic_load(&p->device);
	struct pen_gate *g = d ? pen_cu_gate(d) : NULL;
	bool fits = true;
	if (!g)
		return true;
	pen_forklock_take(&p->lock);
	uint64_t number = ++p->ticket;
	CUmemoryPool id = p->id;
	bool here = p->used && p->process == pen_forklock_process();
	pen_forklock_give(&p->lock);
	if (!here)
		return true;
	uint64_t holds = reserved_bytes(id);
	/* The gate may let us wait a little; it is no call of the driver. */
	pen_forklock_take(&p->lock);
	if (q) {
		p->reserved -= q->reserved;
		q->reserved = 0;
	}
	if (number > p->read) {
		p->read = number;
		p->held = holds;
	}
	uint64_t target = PEN_MAX(p->held, p->live), coming = PEN_MAX(p->held + p->reserved, p->live);
	if (target < p->charged)
		target = PEN_MIN(p->charged, coming);
	if (target != p->charged && !(must && p->growing && target > p->charged)) {
		fits = pen_cu_recharge(g, p->charged, target, must);
		p->charged = fits ? target : p->charged;
	}
	pen_forklock_give(&p->lock);
	return fits;
}

static bool pool_settle(struct pen_cu_pool *p, bool must)
{
	return settle_after(p, NULL, must);
}

/*
 * How much more the pool may take for a request: nothing if it has that much in one piece, as far as can be told; else what it grows
 * by. Under its lock.
 */
static uint64_t growth(const struct pen_cu_pool *p, uint64_t bytes)
{
	uint64_t least = p->live + bytes > p->charged ? p->live + bytes - p->charged : 0;
	/* Half as large as what did not fit: the holes that such blocks leave are not much smaller than they are. */
	if (!least && (bytes <= p->fresh || bytes <= p->too_large / 2))
		return 0;
	if (!p->step || bytes > UINT64_MAX - p->step)
		return least;
	return PEN_MAX(least, (bytes + p->step - 1) / p->step * p->step);
}

/* Requests that are unsure go one by one where the contract has no room for all of them to turn out wrong at once. */
static bool crowded(const struct pen_cu_pool *p, struct pen_gate *g, uint64_t bytes)
{
	struct pen_mem_view v;
	uint64_t may = p->unsure + (p->held > p->charged ? p->held - p->charged : 0);   /* as it has turned out, and not charged yet */
	if (!may || !g)
		return false;
	pen_gate_mem_view(g, &v);
	uint64_t room = v.limit_bytes > v.used_bytes ? v.limit_bytes - v.used_bytes : 0;
	return may > room || bytes > room - may;
}

enum outcome { REFUSED, BUSY, RESERVED };

static enum outcome reserve_once(struct pen_cu_pool *p, struct pen_gate *g, struct request *q, bool wait)
{
	enum outcome out = REFUSED;
	pen_forklock_take(&p->lock);
	uint64_t need = q->bytes <= UINT64_MAX - p->live ? growth(p, q->bytes) : UINT64_MAX;
	if (wait && need != UINT64_MAX && crowded(p, g, need ? need : q->bytes))
		out = BUSY;
	else if (need != UINT64_MAX && (!g || pen_gate_mem_reserve(g, need) == 0))
		out = RESERVED;
	if (out == RESERVED) {
		p->blocks++;
		p->growing++;
		p->live += q->bytes;
		p->charged += need;
		q->reserved = g ? need : 0;
		q->unsure = g && !need ? q->bytes : 0;
		p->reserved += q->reserved;
		p->unsure += q->unsure;
	}
	pen_forklock_give(&p->lock);
	return out;
}

/* A request may wait in the driver for as long as a kernel runs: nobody waits for that one. */
#define BUSY_NS (5 * PEN_MS)

static bool reserve(struct pen_cu_pool *p, struct pen_gate *g, struct request *q)
{
	uint32_t seen = atomic_load(&p->settled);
	enum outcome out = reserve_once(p, g, q, true);
	if (out != BUSY)
		return out == RESERVED;
	uint64_t until = pen_mono_ns() + BUSY_NS, now;
	atomic_fetch_add(&p->waiters, 1);
	while (out == BUSY && (now = pen_mono_ns()) < until) {
		pen_futex_wait(&p->settled, seen, until - now);
		seen = atomic_load(&p->settled);
		out = reserve_once(p, g, q, true);
	}
	atomic_fetch_sub(&p->waiters, 1);
	if (out == BUSY)
		out = reserve_once(p, g, q, false);
	return out == RESERVED;
}

/* The driver has made one of @bytes: what that tells of the pool. */
static void learn(struct pen_cu_pool *p, uint64_t bytes, uint64_t before)
{
	pen_forklock_take(&p->lock);
	uint64_t grew = p->held > before ? p->held - before : 0;
	if (!grew) {
		p->fresh -= PEN_MIN(p->fresh, bytes);
	} else if (p->growing == 1) {   /* by this request alone */
		if (bytes <= grew / 2)
			p->step = PEN_MAX(p->step, grew);
		if (p->live <= before)
			p->too_large = PEN_MIN(p->too_large, bytes);
		p->fresh = grew > bytes ? grew - bytes : 0;
	}
	pen_forklock_give(&p->lock);
}

static bool pool_reserve(struct pen_cu_pool *p, struct request *q)
{
	struct pen_cu_device *d = atomic_load(&p->device);
	struct pen_gate *g = d ? pen_cu_gate(d) : NULL;
	if (d && !g)
		return false;
	if (!g)
		return reserve(p, g, q);
	bool trimmed = pen_cu_make_room(d, q->bytes);
	if (reserve(p, g, q))
		return true;
	if (trimmed)
		return false;
	pen_cu_mem_settle(d, true);
	return reserve(p, g, q);
}

void pen_cu_pool_freed(struct pen_cu_pool *p, uint64_t bytes)
{
	struct pen_cu_device *d = atomic_load(&p->device);
	pen_forklock_take(&p->lock);
	bool here = p->process == pen_forklock_process();
	p->live -= PEN_MIN(bytes, p->live);
	p->blocks--;
	p->too_large = UINT64_MAX;
	pen_forklock_give(&p->lock);
	if (here && d) {
		pen_gate_mem_refund(d->gate, 0, false);   /* an object less; the bytes as the driver says */
		pool_settle(p, true);
	}
	pen_forklock_take(&p->lock);
	pool_retire(p);
	pen_forklock_give(&p->lock);
}

void pen_cu_pools_settle(struct pen_cu_device *d, bool give)
{
	for (struct pen_cu_pool *p = atomic_load(&all); p; p = p->next) {
		if (atomic_load(&p->device) != d)
			continue;
		pen_forklock_take(&p->lock);
		CUmemoryPool id = p->charged > p->live ? p->id : NULL;
		pen_forklock_give(&p->lock);
		if (!id)
			continue;
		pool_settle(p, true);
		if (!give)
			continue;
		trim(id);
		pool_settle(p, true);
	}
}

/* ---- requests ------------------------------------------------------------------------------------------------------ */

static CUresult run(const struct request *q)
{
	pen_cu_thread.depth++;
	CUresult r;
	if (q->pool)
		r = (q->per_thread ? REAL(cuMemAllocFromPoolAsync_ptsz) : REAL(cuMemAllocFromPoolAsync))(q->dptr, q->bytes, q->pool,
													 q->stream);
	else
		r = (q->per_thread ? REAL(cuMemAllocAsync_ptsz) : REAL(cuMemAllocAsync))(q->dptr, q->bytes, q->stream);
	pen_cu_thread.depth--;
	return r;
}

/* Recorded into a graph: nothing happens now (memory_graph.c). */
static bool recorded(CUstream stream, bool per_thread)
{
	CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
	if (!atomic_load_explicit(&pen_cu_captures, memory_order_relaxed))
		return false;
	CUresult (*ask)(CUstream, CUstreamCaptureStatus *) =
		per_thread && REAL(cuStreamIsCapturing_ptsz) ? REAL(cuStreamIsCapturing_ptsz) : REAL(cuStreamIsCapturing);
	return ask && PEN_CU_INSIDE(ask(stream, &status)) == CUDA_SUCCESS && status != CU_STREAM_CAPTURE_STATUS_NONE;
}

static struct pen_cu_device *device_of(CUstream stream, bool per_thread)
{
	struct pen_cu_stream *s = (uintptr_t)stream > (uintptr_t)CU_STREAM_PER_THREAD ? pen_cu_stream(stream, per_thread) : NULL;
	return s ? s->ctx->device : pen_cu_device_current();
}

static struct pen_cu_pool *pool_for(const struct request *q)
{
	CUmemoryPool id = q->pool;
	struct pen_cu_pool *p = id ? pen_map_find(&pools, id) : NULL;
	if (p)
		return p;
	struct pen_cu_device *d = device_of(q->stream, q->per_thread);
	if (!d)
		return NULL;
	if (!id)
		id = atomic_load_explicit(&d->pool, memory_order_acquire);
	if (!id) {
		if (!REAL(cuDeviceGetMemPool) || PEN_CU_INSIDE(REAL(cuDeviceGetMemPool)(&id, d->id)) != CUDA_SUCCESS || !id)
			return NULL;
		atomic_store_explicit(&d->pool, id, memory_order_release);
	}
	p = pen_map_find(&pools, id);
	return p ? p : pool_make(id, d);
}

/* A pool grows by more than the request: what the contract has no room for it gives back. */
static bool settle_grown(struct pen_cu_pool *p, struct request *q)
{
	if (settle_after(p, q, false))
		return true;
	trim(p->id);
	return pool_settle(p, false);
}

static uint64_t held(struct pen_cu_pool *p)
{
	pen_forklock_take(&p->lock);
	uint64_t bytes = p->held;
	pen_forklock_give(&p->lock);
	return bytes;
}

/* It has come back from the driver. @undone: too much, which is charged now as far as it has not gone yet. */
static void grown(struct pen_cu_pool *p, struct request *q, bool undone)
{
	pen_forklock_take(&p->lock);
	p->growing--;
	pen_forklock_give(&p->lock);
	if (undone)
		settle_after(p, q, true);
	if (!q->unsure)
		return;
	pen_forklock_take(&p->lock);
	p->unsure -= q->unsure;
	pen_forklock_give(&p->lock);
	atomic_fetch_add(&p->settled, 1);
	if (atomic_load(&p->waiters))
		pen_futex_wake(&p->settled, INT32_MAX);
}

static CUresult take(struct request *q)
{
	if (pen_cu_thread.depth || !q->dptr || !q->bytes || recorded(q->stream, q->per_thread))
		return run(q);
	struct pen_cu_pool *p = pool_for(q);
	if (!p)
		return run(q);   /* no such stream, pool or context: the driver says so */
	struct pen_cu_block *b = malloc(sizeof(*b));
	if (!b || !pool_reserve(p, q)) {
		free(b);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*b = (struct pen_cu_block){ .device = atomic_load(&p->device), .bytes = q->bytes, .pool = p, .process = pen_forklock_process() };
	uint64_t before = held(p);
	CUresult r = run(q);
	if (r == CUDA_SUCCESS && settle_grown(p, q) && pen_cu_block_keep(b, q->bytes, &pen_cu_blocks, pen_cu_key(*q->dptr))) {
		learn(p, q->bytes, before);
		grown(p, q, false);
		return r;
	}
	if (r == CUDA_SUCCESS) {
		(void)PEN_CU_INSIDE((q->per_thread ? REAL(cuMemFreeAsync_ptsz) : REAL(cuMemFreeAsync))(*q->dptr, q->stream));
		r = CUDA_ERROR_OUT_OF_MEMORY;
	}
	pen_cu_block_drop(b);
	if (r == CUDA_ERROR_OUT_OF_MEMORY)
		trim(p->id);
	grown(p, q, true);
	return r;
}

CUresult pen_cuMemAllocAsync(CUdeviceptr *dptr, size_t bytes, CUstream stream)
{
	return take(&(struct request){ dptr, bytes, NULL, stream, false });
}

CUresult pen_cuMemAllocAsync_ptsz(CUdeviceptr *dptr, size_t bytes, CUstream stream)
{
	return take(&(struct request){ dptr, bytes, NULL, stream, true });
}

CUresult pen_cuMemAllocFromPoolAsync(CUdeviceptr *dptr, size_t bytes, CUmemoryPool pool, CUstream stream)
{
	if (!pool)
		return REAL(cuMemAllocFromPoolAsync)(dptr, bytes, pool, stream);
	return take(&(struct request){ dptr, bytes, pool, stream, false });
}

CUresult pen_cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *dptr, size_t bytes, CUmemoryPool pool, CUstream stream)
{
	if (!pool)
		return REAL(cuMemAllocFromPoolAsync_ptsz)(dptr, bytes, pool, stream);
	return take(&(struct request){ dptr, bytes, pool, stream, true });
}

static CUresult free_async(CUresult (*real)(CUdeviceptr, CUstream), CUdeviceptr dptr, CUstream stream, bool per_thread)
{
	if (pen_cu_thread.depth)
		return real(dptr, stream);
	struct pen_cu_block *b = NULL;
	if (dptr && !recorded(stream, per_thread))
		b = pen_cu_block_take(&pen_cu_blocks, pen_cu_key(dptr));
	return pen_cu_block_ended(b, PEN_CU_INSIDE(real(dptr, stream)));
}

CUresult pen_cuMemFreeAsync(CUdeviceptr dptr, CUstream stream)
{
	return free_async(REAL(cuMemFreeAsync), dptr, stream, false);
}

CUresult pen_cuMemFreeAsync_ptsz(CUdeviceptr dptr, CUstream stream)
{
	return free_async(REAL(cuMemFreeAsync_ptsz), dptr, stream, true);
}

/* ---- pools --------------------------------------------------------------------------------------------------------- */

/* The device that a place is on. NULL: the host, whose memory costs only where there is no other. */
static struct pen_cu_device *device_at(const CUmemLocation *at)
{
	struct pen_cu_device *d = at->type == CU_MEM_LOCATION_TYPE_DEVICE ? pen_cu_device(at->id) : pen_cu_device_current();
	return d && (at->type == CU_MEM_LOCATION_TYPE_DEVICE || at->type == CU_MEM_LOCATION_TYPE_INVALID || d->integrated) ? d : NULL;
}

CUresult pen_cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *props)
{
	PEN_CU_NESTED(cuMemPoolCreate, pool, props);
	CUresult r = PEN_CU_INSIDE(REAL(cuMemPoolCreate)(pool, props));
	if (r == CUDA_SUCCESS && !pool_make(*pool, device_at(&props->location))) {
		(void)PEN_CU_INSIDE(REAL(cuMemPoolDestroy)(*pool));
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	return r;
}

/* Its live blocks stay; what it kept beside them goes. */
CUresult pen_cuMemPoolDestroy(CUmemoryPool pool)
{
	PEN_CU_NESTED(cuMemPoolDestroy, pool);
	struct pen_cu_pool *p = pool ? pen_map_take(&pools, pool) : NULL;
	CUresult r = PEN_CU_INSIDE(REAL(cuMemPoolDestroy)(pool));
	if (!p)
		return r;
	if (r != CUDA_SUCCESS) {
		pen_map_put(&pools, pool, p);
		return r;
	}
	/* The device's current pool may have been this one. */
	struct pen_cu_device *d = atomic_load(&p->device);
	if (d)
		atomic_store(&d->pool, NULL);
	pen_forklock_take(&p->lock);
	p->id = NULL;
	pen_forklock_give(&p->lock);
	pool_settle(p, true);
	pen_forklock_take(&p->lock);
	pool_retire(p);
	pen_forklock_give(&p->lock);
	return r;
}

static void settle_id(CUmemoryPool pool)
{
	struct pen_cu_pool *p = pool ? pen_map_find(&pools, pool) : NULL;
	if (p)
		pool_settle(p, true);
}

CUresult pen_cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
	PEN_CU_NESTED(cuMemPoolTrimTo, pool, keep);
	CUresult r = PEN_CU_INSIDE(REAL(cuMemPoolTrimTo)(pool, keep));
	settle_id(pool);
	return r;
}

CUresult pen_cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute what, void *value)
{
	PEN_CU_NESTED(cuMemPoolSetAttribute, pool, what, value);
	CUresult r = PEN_CU_INSIDE(REAL(cuMemPoolSetAttribute)(pool, what, value));
	settle_id(pool);
	return r;
}

CUresult pen_cuDeviceSetMemPool(CUdevice id, CUmemoryPool pool)
{
	PEN_CU_NESTED(cuDeviceSetMemPool, id, pool);
	struct pen_cu_device *d = pen_cu_device(id);
	CUresult r = PEN_CU_INSIDE(REAL(cuDeviceSetMemPool)(id, pool));
	if (d)
		atomic_store(&d->pool, NULL);
	return r;
}

CUresult pen_cuMemSetMemPool(CUmemLocation *at, CUmemAllocationType type, CUmemoryPool pool)
{
	PEN_CU_NESTED(cuMemSetMemPool, at, type, pool);
	CUresult r = PEN_CU_INSIDE(REAL(cuMemSetMemPool)(at, type, pool));
	struct pen_cu_device *d = at && at->type == CU_MEM_LOCATION_TYPE_DEVICE ? pen_cu_device(at->id) : NULL;
	if (d)
		atomic_store(&d->pool, NULL);
	return r;
}
