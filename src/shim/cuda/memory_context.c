/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts as memory, and the devices on which a tenant may have one.
 *
 * What a context takes no call tells. The first of a process is the daemon's to charge: its audit learns what a process has beside its
 * allocations, and takes it off what the next one may have from the moment at which it attaches. Further ones are charged here, by
 * what the driver had less of on the device after it had made one: neighbours may move that figure too, so that of several
 * the least is taken. Until there is one, the first of them is measured after it was made, and undone if it is too much.
 */
#include "shim/cuda/memory.h"

#include "base/auto.h"

#include <stdlib.h>

struct pen_cu_made {
	struct pen_cu_device *device;
	struct pen_cu_block *block;      /* NULL: not charged */
};

static struct pen_map contexts;          /* handle -> struct pen_cu_made */

/* What the device has left, by the driver. 0: it does not say, or no context of the device is current. */
static uint64_t left_on(struct pen_cu_device *d)
{
	size_t left = 0, total = 0;
	if (pen_cu_device_current() != d || !REAL(cuMemGetInfo_v2) || PEN_CU_INSIDE(REAL(cuMemGetInfo_v2)(&left, &total)) != CUDA_SUCCESS)
		return 0;
	return left;
}

static void learn(struct pen_cu_device *d, uint64_t before, uint64_t after)
{
	uint64_t known = atomic_load(&d->context_bytes), took = before > after ? before - after : 0;
	/* Half of it is another figure altogether: a neighbour has freed something. */
	if (took && after && (!known || (took < known && took > known / 2)))
		atomic_store(&d->context_bytes, took);
}

struct attempt {
	struct pen_cu_made *made;
	bool measure;                    /* not known what one takes */
	uint64_t before;
};

/* CUDA_SUCCESS: to be made. A NULL device: the driver knows no such one. */
static CUresult begin(CUdevice id, struct attempt *a)
{
	struct pen_cu_device *d = pen_cu_device(id);
	*a = (struct attempt){ .made = NULL };
	if (!d)
		return CUDA_SUCCESS;
	if (!pen_cu_gate(d))
		return CUDA_ERROR_INVALID_DEVICE;
	a->made = calloc(1, sizeof(*a->made));
	if (!a->made)
		return CUDA_ERROR_OUT_OF_MEMORY;
	a->made->device = d;
	if (atomic_fetch_add(&d->contexts, 1) == 0)
		return CUDA_SUCCESS;
	uint64_t bytes = atomic_load(&d->context_bytes);
	a->before = left_on(d);
	a->measure = !bytes;
	if (!bytes)
		return CUDA_SUCCESS;
	a->made->block = pen_cu_block_new_on(d, bytes);
	if (a->made->block)
		return CUDA_SUCCESS;
	atomic_fetch_sub(&d->contexts, 1);
	free(a->made);
	return CUDA_ERROR_OUT_OF_MEMORY;
}

static void forget(struct pen_cu_made *m)
{
	atomic_fetch_sub(&m->device->contexts, 1);
	pen_cu_block_drop(m->block);
	free(m);
}

/* The driver has made it, or not. @is_current: and it is the thread's current one now. False: it must go again. */
static bool keep(struct attempt *a, CUcontext ctx)
{
	struct pen_cu_made *m = a->made;
	if (a->before)
		learn(m->device, a->before, left_on(m->device));
	if (a->measure && atomic_load(&m->device->context_bytes)) {
		m->block = pen_cu_block_new_on(m->device, atomic_load(&m->device->context_bytes));
		if (!m->block)
			return false;
	}
	return pen_map_put(&contexts, ctx, m) == 0;
}

static CUresult finish(struct attempt *a, CUcontext *ctx, CUresult r)
{
	if (!a->made)
		return r;
	if (r == CUDA_SUCCESS && keep(a, *ctx))
		return r;
	if (r == CUDA_SUCCESS) {
		(void)PEN_CU_INSIDE(REAL(cuCtxDestroy_v2) ? REAL(cuCtxDestroy_v2)(*ctx) : REAL(cuCtxDestroy)(*ctx));
		r = CUDA_ERROR_OUT_OF_MEMORY;
	}
	forget(a->made);
	return r;
}

struct pen_cu_made *pen_cu_made_take(CUcontext ctx)
{
	return pen_map_take(&contexts, ctx);
}

void pen_cu_made_put(CUcontext ctx, struct pen_cu_made *m)
{
	pen_map_put(&contexts, ctx, m);
}

bool pen_cu_made_known(CUcontext ctx)
{
	return pen_map_find(&contexts, ctx) != NULL;
}

void pen_cu_made_gone(struct pen_cu_made *m)
{
	if (m)
		forget(m);
}

CUresult pen_cuCtxCreate(CUcontext *ctx, unsigned int flags, CUdevice id)
{
	struct attempt a;
	PEN_CU_NESTED(cuCtxCreate, ctx, flags, id);
	CUresult r = begin(id, &a);
	return r != CUDA_SUCCESS ? r : finish(&a, ctx, PEN_CU_INSIDE(REAL(cuCtxCreate)(ctx, flags, id)));
}

CUresult pen_cuCtxCreate_v2(CUcontext *ctx, unsigned int flags, CUdevice id)
{
	struct attempt a;
	PEN_CU_NESTED(cuCtxCreate_v2, ctx, flags, id);
	CUresult r = begin(id, &a);
	return r != CUDA_SUCCESS ? r : finish(&a, ctx, PEN_CU_INSIDE(REAL(cuCtxCreate_v2)(ctx, flags, id)));
}

CUresult pen_cuCtxCreate_v3(CUcontext *ctx, CUexecAffinityParam *v, int n, unsigned int flags, CUdevice id)
{
	struct attempt a;
	PEN_CU_NESTED(cuCtxCreate_v3, ctx, v, n, flags, id);
	CUresult r = begin(id, &a);
	return r != CUDA_SUCCESS ? r : finish(&a, ctx, PEN_CU_INSIDE(REAL(cuCtxCreate_v3)(ctx, v, n, flags, id)));
}

CUresult pen_cuCtxCreate_v4(CUcontext *ctx, CUctxCreateParams *params, unsigned int flags, CUdevice id)
{
	struct attempt a;
	PEN_CU_NESTED(cuCtxCreate_v4, ctx, params, flags, id);
	CUresult r = begin(id, &a);
	return r != CUDA_SUCCESS ? r : finish(&a, ctx, PEN_CU_INSIDE(REAL(cuCtxCreate_v4)(ctx, params, flags, id)));
}

/* There is one primary context for each device; the first call to hold it makes it. */
static CUresult primary_begin(CUdevice id, struct attempt *a)
{
	unsigned int flags = 0;
	int active = 0;
	*a = (struct attempt){ .made = NULL };
	if (!REAL(cuDevicePrimaryCtxGetState) || PEN_CU_INSIDE(REAL(cuDevicePrimaryCtxGetState)(id, &flags, &active)) != CUDA_SUCCESS || active)
		return CUDA_SUCCESS;
	return begin(id, a);
}

/* CUDA_SUCCESS, or the call is to be undone. NULL: it has not come to one. */
static CUresult primary_made(struct attempt *a, CUcontext ctx)
{
	if (!a->made)
		return CUDA_SUCCESS;
	bool known = !ctx || pen_cu_made_known(ctx);   /* another thread has made it at the same time */
	if (!known && keep(a, ctx))
		return CUDA_SUCCESS;
	forget(a->made);
	return known ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static void primary_release(CUdevice id)
{
	(void)PEN_CU_INSIDE(REAL(cuDevicePrimaryCtxRelease_v2) ? REAL(cuDevicePrimaryCtxRelease_v2)(id) : REAL(cuDevicePrimaryCtxRelease)(id));
}

static CUresult retain_primary(CUcontext *ctx, CUdevice id)
{
	struct attempt a;
	CUresult r = primary_begin(id, &a);
	if (r != CUDA_SUCCESS)
		return r;
	r = PEN_CU_INSIDE(REAL(cuDevicePrimaryCtxRetain)(ctx, id));
	CUresult made = primary_made(&a, r == CUDA_SUCCESS ? *ctx : NULL);
	if (made == CUDA_SUCCESS)
		return r;
	primary_release(id);
	return made;
}

CUresult pen_cuDevicePrimaryCtxRetain(CUcontext *ctx, CUdevice id)
{
	PEN_CU_NESTED(cuDevicePrimaryCtxRetain, ctx, id);
	if (pen_cu_refused(id))
		return CUDA_ERROR_INVALID_DEVICE;
	CUresult r = retain_primary(ctx, id);
	if (r == CUDA_SUCCESS)
		pen_cu_units_retained(id, ctx);   /* units.c */
	return r;
}

/* A part of its device's primary context, which it holds. */
CUresult pen_cuGreenCtxCreate(CUgreenCtx *ctx, CUdevResourceDesc desc, CUdevice id, unsigned int flags)
{
	struct attempt a;
	CUcontext primary = NULL;
	PEN_CU_NESTED(cuGreenCtxCreate, ctx, desc, id, flags);
	if (pen_cu_refused(id))
		return CUDA_ERROR_INVALID_DEVICE;
	CUresult r = primary_begin(id, &a);
	if (r != CUDA_SUCCESS)
		return r;
	r = PEN_CU_INSIDE(REAL(cuGreenCtxCreate)(ctx, desc, id, flags));
	if (r == CUDA_SUCCESS && a.made && PEN_CU_INSIDE(REAL(cuDevicePrimaryCtxRetain)(&primary, id)) == CUDA_SUCCESS)
		primary_release(id);
	CUresult made = primary_made(&a, primary);
	if (made == CUDA_SUCCESS)
		return r;
	(void)PEN_CU_INSIDE(REAL(cuGreenCtxDestroy)(*ctx));
	return made;
}
