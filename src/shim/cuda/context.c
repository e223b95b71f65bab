/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts: which one calls go to, what belongs to it, and its end.
 *
 * Which is current is asked of the driver each time: the runtime changes it through private tables, past every hook. An end
 * takes events away that marks of ours are still on; so calls on them are counted in, and the end waits for those.
 */
#include "shim/cuda/gating.h"

#include <stdlib.h>

static struct pen_map contexts;
_Atomic uint32_t pen_cu_version = 1;

#define LEAVE_STEP_NS UINT64_C(1000000)

/* ---- records --------------------------------------------------------------------------------------------------- */

static struct pen_cu_context *context_new(CUcontext id)
{
	struct pen_cu_device *d = pen_cu_device_current();
	struct pen_gate *g = d ? pen_cu_gate(d) : NULL;
	struct pen_cu_gating *gating = g ? pen_cu_gating(d) : NULL;
	struct pen_cu_context *c = gating ? calloc(1, sizeof(*c)) : NULL;
	if (!c)
		return NULL;
	c->id = id;
	c->device = d;
	c->gate = g;
	atomic_init(&c->refs, 1);
	/* Of two threads that meet it at once the first one's is kept. */
	static struct pen_forklock making = PEN_FORKLOCK_INIT;
	pen_forklock_take(&making);
	struct pen_cu_context *there = pen_map_find(&contexts, id);
	bool failed = !there && pen_map_put(&contexts, id, c) < 0;
	pen_forklock_give(&making);
	if (there || failed) {
		free(c);
		return there;
	}
	atomic_fetch_add(&gating->contexts, 1);
	return c;
}

struct pen_cu_context *pen_cu_context_current(void)
{
	CUcontext id = NULL;
	if (REAL(cuCtxGetCurrent)(&id) != CUDA_SUCCESS || !id)
		return NULL;
	struct pen_cu_context *c = pen_map_find(&contexts, id);
	return c ? c : context_new(id);
}

struct pen_cu_context *pen_cu_context(CUcontext id)
{
	CUcontext now = NULL;
	if (!id)
		return NULL;
	struct pen_cu_context *c = pen_map_find(&contexts, id);
	if (c)
		return c;
	if (REAL(cuCtxGetCurrent)(&now) == CUDA_SUCCESS && now == id)
		return context_new(id);
	if (REAL(cuCtxPushCurrent_v2)(id) != CUDA_SUCCESS)
		return NULL;
	c = context_new(id);
	REAL(cuCtxPopCurrent_v2)(&now);
	return c;
}

void pen_cu_context_unref(struct pen_cu_context *c)
{
	if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1)
		free(c);
}

bool pen_cu_context_enter(struct pen_cu_context *c)
{
	atomic_fetch_add(&c->users, 1);
	if (atomic_load(&c->life) == PEN_CU_ALIVE)
		return true;
	pen_cu_context_leave(c);
	return false;
}

void pen_cu_context_leave(struct pen_cu_context *c)
{
	if (atomic_fetch_sub(&c->users, 1) == 1 && atomic_load(&c->life) != PEN_CU_ALIVE)
		pen_futex_wake(&c->users, INT32_MAX);
}

bool pen_cu_context_push(struct pen_cu_context *c, bool *pushed)
{
	CUcontext now = NULL;
	*pushed = false;
	if (REAL(cuCtxGetCurrent)(&now) == CUDA_SUCCESS && now == c->id)
		return true;
	*pushed = REAL(cuCtxPushCurrent_v2)(c->id) == CUDA_SUCCESS;
	return *pushed;
}

void pen_cu_context_pop(bool pushed)
{
	CUcontext gone;
	if (pushed)
		REAL(cuCtxPopCurrent_v2)(&gone);
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

/* Nobody is in a call on its events any more, and nobody comes in. Such calls never wait for the device. */
static struct pen_cu_context *close_context(CUcontext id)
{
	struct pen_cu_context *c = id ? pen_map_find(&contexts, id) : NULL;
	if (!c)
		return NULL;
	uint32_t alive = PEN_CU_ALIVE, users;
	if (!atomic_compare_exchange_strong(&c->life, &alive, PEN_CU_CLOSING))
		return NULL;   /* another thread is at it */
	pen_cu_gate_end(c);
	while ((users = atomic_load(&c->users)) != 0)
		pen_futex_wait(&c->users, users, LEAVE_STEP_NS);
	pen_cu_gate_end(c);   /* one of them may have made the word meanwhile */
	return c;
}

static void reopen(struct pen_cu_context *c)
{
	if (!c)
		return;
	atomic_store(&c->life, PEN_CU_ALIVE);
	pen_cu_gate_stays(c);
}

/* It has gone, and with it all that was in it. */
static void bury(struct pen_cu_context *c)
{
	if (!c)
		return;
	atomic_store(&c->life, PEN_CU_GONE);
	pen_map_take(&contexts, c->id);
	atomic_fetch_add(&pen_cu_version, 1);
	pen_cu_streams_gone(c);
	pen_cu_events_gone(c);
	pen_cu_host_gone(c);
	pen_cu_pool_drop(c);
	struct pen_cu_gating *g = pen_cu_gating(c->device);
	if (g)
		atomic_fetch_sub(&g->contexts, 1);
	pen_cu_context_unref(c);
}

static CUresult destroy(CUresult (*real)(CUcontext), CUcontext id)
{
	if (pen_cu_thread.depth)
		return real(id);
	struct pen_cu_context *c = close_context(id);
	struct pen_cu_ending ending;
	pen_cu_mem_context_ends(id, &ending);
	pen_cu_thread.depth++;
	CUresult r = real(id);
	pen_cu_thread.depth--;
	pen_cu_mem_context_ended(&ending, r == CUDA_SUCCESS);
	if (r == CUDA_SUCCESS)
		bury(c);
	else
		reopen(c);
	return r;
}

CUresult pen_cuCtxDestroy(CUcontext id)
{
	return destroy(REAL(cuCtxDestroy), id);
}

CUresult pen_cuCtxDestroy_v2(CUcontext id)
{
	return destroy(REAL(cuCtxDestroy_v2), id);
}

/* CUDA 2's count of uses: the last of them ends it. */
CUresult pen_cuCtxAttach(CUcontext *id, unsigned int flags)
{
	CUresult r = REAL(cuCtxAttach)(id, flags);
	struct pen_cu_context *c = r == CUDA_SUCCESS && !pen_cu_thread.depth && id ? pen_cu_context(*id) : NULL;
	if (c)
		atomic_fetch_add(&c->attached, 1);
	return r;
}

CUresult pen_cuCtxDetach(CUcontext id)
{
	struct pen_cu_context *c = pen_cu_thread.depth || !id ? NULL : pen_map_find(&contexts, id);
	uint32_t n = c ? atomic_load(&c->attached) : 0;
	if (!n)
		return destroy(REAL(cuCtxDetach), id);
	CUresult r = REAL(cuCtxDetach)(id);
	if (r == CUDA_SUCCESS)
		atomic_fetch_sub(&c->attached, 1);
	return r;
}

/*
 * The primary context of a device ends by a reset, or by the last of those who hold it, of whom there may be more than we have
 * seen. Its handle is learned by holding it for a moment.
 */
struct primary {
	CUdevice dev;
	struct pen_cu_context *c;
	struct pen_cu_ending ending;
};

static bool primary_is_there(CUdevice dev)
{
	unsigned int flags;
	int active = 0;
	return REAL(cuDevicePrimaryCtxGetState) && REAL(cuDevicePrimaryCtxGetState)(dev, &flags, &active) == CUDA_SUCCESS && active;
}

static void primary_ends(CUdevice dev, struct primary *ret)
{
	CUcontext id = NULL;
	if (primary_is_there(dev) && REAL(cuDevicePrimaryCtxRetain)(&id, dev) == CUDA_SUCCESS)
		(void)(REAL(cuDevicePrimaryCtxRelease_v2) ? REAL(cuDevicePrimaryCtxRelease_v2)(dev) :
							    REAL(cuDevicePrimaryCtxRelease)(dev));
	ret->dev = dev;
	ret->c = close_context(id);
	pen_cu_mem_primary_ends(pen_cu_device(dev), id, &ret->ending);
}

/* @reset: it has ended if @r says so. Return: it has. */
static bool primary_ended(struct primary *p, CUresult r, bool reset)
{
	bool gone = r == CUDA_SUCCESS && p->ending.ctx && (reset || !primary_is_there(p->dev));
	if (gone)
		bury(p->c);
	else
		reopen(p->c);
	pen_cu_mem_context_ended(&p->ending, gone);
	return gone;
}

/* The device of a context that need not be current. False: not one of ours. */
static bool device_of(CUcontext id, CUdevice *ret)
{
	CUcontext gone;
	if (!id || REAL(cuCtxPushCurrent_v2)(id) != CUDA_SUCCESS)
		return false;
	struct pen_cu_device *d = pen_cu_device_current();
	REAL(cuCtxPopCurrent_v2)(&gone);
	if (d)
		*ret = d->id;
	return d != NULL;
}

/* One of the application's own: its streams go with it. Memory is the primary context's, which it may have been the last to hold. */
CUresult pen_cuGreenCtxDestroy(CUgreenCtx green)
{
	CUcontext id = NULL;
	CUdevice dev;
	struct primary p;
	if (pen_cu_thread.depth || !green)
		return REAL(cuGreenCtxDestroy)(green);
	pen_cu_thread.depth++;
	if (!REAL(cuCtxFromGreenCtx) || REAL(cuCtxFromGreenCtx)(&id, green) != CUDA_SUCCESS)
		id = NULL;
	struct pen_cu_context *c = close_context(id);
	bool known = device_of(id, &dev);
	if (known)
		primary_ends(dev, &p);
	CUresult r = REAL(cuGreenCtxDestroy)(green);
	if (r == CUDA_SUCCESS)
		bury(c);
	else
		reopen(c);
	if (known)
		primary_ended(&p, r, false);
	pen_cu_thread.depth--;
	return r;
}

static CUresult end_primary(CUresult (*real)(CUdevice), CUdevice dev, bool reset)
{
	struct primary p;
	if (pen_cu_thread.depth)
		return real(dev);
	pen_cu_thread.depth++;
	/* The part of it that the application was given holds it: that goes first. */
	CUcontext part = pen_cu_units_released(dev, reset);
	struct pen_cu_context *c = close_context(part);
	if (part) {
		pen_cu_units_end(dev);
		bury(c);
	}
	primary_ends(dev, &p);
	CUresult r = real(dev);
	if (primary_ended(&p, r, reset) && !part)
		pen_cu_units_end(dev);
	pen_cu_thread.depth--;
	return r;
}

CUresult pen_cuDevicePrimaryCtxReset(CUdevice dev)
{
	return end_primary(REAL(cuDevicePrimaryCtxReset), dev, true);
}

CUresult pen_cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
	return end_primary(REAL(cuDevicePrimaryCtxReset_v2), dev, true);
}

CUresult pen_cuDevicePrimaryCtxRelease(CUdevice dev)
{
	return end_primary(REAL(cuDevicePrimaryCtxRelease), dev, false);
}

CUresult pen_cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
	return end_primary(REAL(cuDevicePrimaryCtxRelease_v2), dev, false);
}
