/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A contract's compute units: the multiprocessors that a tenant's kernels may run on, by a green context (driver 12.4).
 *
 * The application that retains a device's primary context is given a green one in its place, which is a part of it: memory, modules
 * and events are shared with it, default streams and created ones lie in it, so that order stays what it was. A contract that
 * changes later acts on the next context. A context of cuCtxCreate, or one that the runtime makes by its private tables, cannot be
 * made a part: there the units are kept by the share of time alone, as on older drivers.
 *
 * Which multiprocessors: without MPS two processes never run at the same time and it makes no difference; with it tenants get
 * different ones as long as there are enough.
 */
#include "shim/cuda/gating.h"

#include "base/log.h"

#include <errno.h>

/* ---- how many, and which ----------------------------------------------------------------------------------------- */

static bool supported(void)
{
	return REAL(cuDeviceGetDevResource) && REAL(cuDevSmResourceSplitByCount) && REAL(cuDevResourceGenerateDesc) &&
	       REAL(cuGreenCtxCreate) && REAL(cuGreenCtxDestroy) && REAL(cuCtxFromGreenCtx) && pen_cu_driver_version() >= 12040;
}

#define GROUPS 16   /* that tenants are spread over */

/* The part of @all that has no more than @want of them, or the smallest there is. @which: tenants get different ones. */
static bool part_of(const CUdevResource *all, uint32_t want, uint32_t which, CUdevResource *ret)
{
	CUdevResource group[GROUPS];
	for (uint32_t least = want; least; least--) {
		unsigned int n = GROUPS;
		if (REAL(cuDevSmResourceSplitByCount)(group, &n, all, NULL, 0, least) != CUDA_SUCCESS || !n)
			continue;   /* more than there are */
		if (group[0].sm.smCount > want && least > 1)
			continue;   /* rounded up: a contract is a cap, too */
		*ret = group[which % n];
		return true;
	}
	return false;
}

/* What the contract grants of @d. False: all, or the driver cannot. Asked again when the contract has changed. */
static bool granted(struct pen_cu_device *d, CUdevResource *ret)
{
	struct pen_gate *g = pen_cu_gate(d);
	const struct pen_terms *t = g ? pen_gate_terms(g) : NULL;
	CUdevResource all;
	if (!t || !t->units || t->units >= d->units || !supported())
		return false;
	pen_cu_thread.depth++;
	bool found = REAL(cuDeviceGetDevResource)(d->id, &all, CU_DEV_RESOURCE_TYPE_SM) == CUDA_SUCCESS &&
		     part_of(&all, t->units, t->slot, ret) && ret->sm.smCount < all.sm.smCount;
	pen_cu_thread.depth--;
	return found;
}

uint32_t pen_cu_units(struct pen_cu_device *d)
{
	struct pen_cu_gating *g = pen_cu_gating(d);
	struct pen_gate *gate = pen_cu_gate(d);
	uint32_t asked = gate ? pen_gate_terms(gate)->units : 0;
	if (!g || !asked)
		return 0;
	/* The question is asked often, and before there is a context. */
	uint64_t known = atomic_load_explicit(&g->units_known, memory_order_relaxed);
	if (known >> 32 == asked)
		return (uint32_t)known;
	CUdevResource part;
	uint32_t units = granted(d, &part) ? part.sm.smCount : 0;
	atomic_store_explicit(&g->units_known, (uint64_t)asked << 32 | units, memory_order_relaxed);
	return units;
}

/* Adapter slot. */
int pen_cu_set_units(void *device, uint32_t units)
{
	static _Atomic bool told;
	(void)device;
	if (!units || supported())
		return 0;   /* the next context is made by the terms */
	if (!atomic_exchange(&told, true))
		pen_log(PEN_LOG_WARN, "units: this driver has no green contexts (12.4); the contract's units are kept by time alone");
	return -ENOTSUP;
}

/* ---- the context that the application gets ------------------------------------------------------------------------- */

enum { PART_NONE, PART_MAKING, PART_MADE, PART_NEVER };   /* NEVER: as long as this primary context lasts */

static bool make_part(struct pen_cu_device *d, struct pen_cu_gating *g)
{
	CUdevResource part;
	CUdevResourceDesc desc = NULL;
	CUgreenCtx green = NULL;
	CUcontext ctx = NULL;
	if (!granted(d, &part) || REAL(cuDevResourceGenerateDesc)(&desc, &part, 1) != CUDA_SUCCESS ||
	    REAL(cuGreenCtxCreate)(&green, desc, d->id, CU_GREEN_CTX_DEFAULT_STREAM) != CUDA_SUCCESS)
		return false;
	if (REAL(cuCtxFromGreenCtx)(&ctx, green) != CUDA_SUCCESS) {
		REAL(cuGreenCtxDestroy)(green);
		return false;
	}
	g->part = ctx;
	g->green = green;
	return true;
}

static void settle(struct pen_cu_gating *g, uint32_t state)
{
	atomic_store(&g->part_state, state);
	pen_futex_wake(&g->part_state, INT32_MAX);
}

#define MAKING_STEP_NS UINT64_C(10000000)

/* The application has retained the primary context, and gets the part of it that is its own. The first one makes that. */
void pen_cu_units_retained(CUdevice dev, CUcontext *ctx)
{
	struct pen_cu_device *d = pen_cu_device(dev);
	struct pen_cu_gating *g = d && pen_cu_gate(d) ? pen_cu_gating(d) : NULL;
	if (!g || !ctx)
		return;
	atomic_fetch_add(&g->retained, 1);
	uint32_t none = PART_NONE;
	if (atomic_compare_exchange_strong(&g->part_state, &none, PART_MAKING)) {
		pen_cu_thread.depth++;
		settle(g, make_part(d, g) ? PART_MADE : PART_NEVER);
		pen_cu_thread.depth--;
	}
	while (atomic_load(&g->part_state) == PART_MAKING)
		pen_futex_wait(&g->part_state, PART_MAKING, MAKING_STEP_NS);
	if (atomic_load(&g->part_state) == PART_MADE)
		*ctx = g->part;
}

/* Return: the context that goes with what the application is about to let go; NULL: none does. */
CUcontext pen_cu_units_released(CUdevice dev, bool reset)
{
	struct pen_cu_device *d = pen_cu_device(dev);
	struct pen_cu_gating *g = d ? atomic_load(&d->gating) : NULL;
	if (!g)
		return NULL;
	uint32_t n = atomic_load(&g->retained);
	while (!atomic_compare_exchange_weak(&g->retained, &n, reset || !n ? 0 : n - 1))
		;
	bool last = reset || n <= 1;
	return last && atomic_load(&g->part_state) == PART_MADE ? g->part : NULL;
}

void pen_cu_units_end(CUdevice dev)
{
	struct pen_cu_device *d = pen_cu_device(dev);
	struct pen_cu_gating *g = d ? atomic_load(&d->gating) : NULL;
	if (!g)
		return;
	uint32_t made = PART_MADE;
	if (!atomic_compare_exchange_strong(&g->part_state, &made, PART_MAKING)) {
		made = PART_NEVER;   /* the next primary context is asked for anew */
		atomic_compare_exchange_strong(&g->part_state, &made, PART_NONE);
		return;
	}
	g->part = NULL;
	REAL(cuGreenCtxDestroy)(g->green);
	settle(g, PART_NONE);
}

/* ---- what the application sees ----------------------------------------------------------------------------------- */

/* The whole device is what the contract grants. */
CUresult pen_cuDeviceGetDevResource(CUdevice dev, CUdevResource *ret, CUdevResourceType type)
{
	CUresult r = REAL(cuDeviceGetDevResource)(dev, ret, type);
	if (r != CUDA_SUCCESS || type != CU_DEV_RESOURCE_TYPE_SM || pen_cu_thread.depth)
		return r;
	struct pen_cu_device *d = pen_cu_device(dev);
	CUdevResource part;
	if (d && granted(d, &part))
		*ret = part;
	return r;
}

/* The first form knows no green contexts, and the application has not asked for one. */
static CUresult stream_context(CUresult r, CUstream stream, CUcontext *ctx, CUgreenCtx *green, bool per_thread)
{
	struct pen_cu_stream *s = pen_cu_thread.depth || !ctx ? NULL : pen_cu_stream(stream, per_thread);
	struct pen_cu_gating *g = s ? pen_cu_gating(s->ctx->device) : NULL;
	if (!g || atomic_load(&g->part_state) != PART_MADE || s->ctx->id != g->part || (r != CUDA_SUCCESS && r != CUDA_ERROR_NOT_SUPPORTED))
		return r;
	*ctx = g->part;
	if (green)
		*green = NULL;
	return CUDA_SUCCESS;
}

CUresult pen_cuStreamGetCtx(CUstream stream, CUcontext *ctx)
{
	return stream_context(REAL(cuStreamGetCtx)(stream, ctx), stream, ctx, NULL, false);
}

CUresult pen_cuStreamGetCtx_ptsz(CUstream stream, CUcontext *ctx)
{
	return stream_context(REAL(cuStreamGetCtx_ptsz)(stream, ctx), stream, ctx, NULL, true);
}

CUresult pen_cuStreamGetCtx_v2(CUstream stream, CUcontext *ctx, CUgreenCtx *green)
{
	return stream_context(REAL(cuStreamGetCtx_v2)(stream, ctx, green), stream, ctx, green, false);
}

CUresult pen_cuStreamGetCtx_v2_ptsz(CUstream stream, CUcontext *ctx, CUgreenCtx *green)
{
	return stream_context(REAL(cuStreamGetCtx_v2_ptsz)(stream, ctx, green), stream, ctx, green, true);
}
