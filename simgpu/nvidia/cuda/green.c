/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Green contexts: a set of multiprocessors of a device, and streams whose kernels run on no more than so
 * many. A set is a number here: which ones they are makes no difference to the model, and sets may overlap
 * as NVIDIA's may.
 *
 * A green context is part of the device's primary context: memory, modules and events are shared with it.
 */
#include "simgpu/nvidia/cuda/mem.h"

#include <stdlib.h>
#include <string.h>

#define MAGIC 0x67726e31u

struct inside { /* of a resource, where NVIDIA keeps what is its own */
	uint32_t magic;
	int32_t device;
	uint32_t first; /* multiprocessor of the set */
};

struct CUdevResourceDesc_st {
	int device;
	uint32_t units;
	struct CUdevResourceDesc_st *next; /* none of them is ever freed: there is no call for it */
};

struct CUgreenCtx_st {
	enum sim_tag tag;
	CUcontext ctx; /* that stands for it */
	CUdevResource resource;
	CUdevice device;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct CUdevResourceDesc_st *descs;

/* Least number and step of a set, by compute capability. */
static uint32_t step_of(const struct sim_card *c, uint32_t *least)
{
	*least = c->cc_major >= 9 ? 8 : c->cc_major == 8 ? 4 : c->cc_major == 7 ? 2 : 1;
	return c->cc_major >= 9 ? 8 : c->cc_major >= 7 ? 2 : 1;
}

static void fill(CUdevResource *r, struct sim_device *d, uint32_t first, uint32_t units)
{
	struct inside in = { MAGIC, d->id, first };
	uint32_t least, step = step_of(&d->card, &least);

	memset(r, 0, sizeof(*r));
	r->type = CU_DEV_RESOURCE_TYPE_SM;
	memcpy(r->internal, &in, sizeof(in));
	r->sm.smCount = units;
	if (sim_cuda_version >= 13000) {
		r->sm.minSmPartitionSize = least;
		r->sm.smCoscheduledAlignment = step;
	}
}

static bool inside_of(const CUdevResource *r, struct inside *in)
{
	memcpy(in, r->internal, sizeof(*in));
	return r->type == CU_DEV_RESOURCE_TYPE_SM && in->magic == MAGIC && in->device >= 0 &&
	       in->device < sim_driver.devices;
}

/* ---- resources ---- */

CUresult cuDeviceGetDevResource(CUdevice device, CUdevResource *ret, CUdevResourceType type)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (!ret)
		return CUDA_ERROR_INVALID_VALUE;
	if (type != CU_DEV_RESOURCE_TYPE_SM)
		return CUDA_ERROR_INVALID_RESOURCE_TYPE;
	fill(ret, d, 0, d->card.units);
	return CUDA_SUCCESS;
}

CUresult cuDevSmResourceSplitByCount(CUdevResource *result, unsigned int *groups, const CUdevResource *input,
				     CUdevResource *remaining, unsigned int flags, unsigned int least)
{
	struct inside in;
	uint32_t floor, step, size, n;

	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!groups || !input || (result && !*groups) ||
	    flags & ~(unsigned)(CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING |
				CU_DEV_SM_RESOURCE_SPLIT_MAX_POTENTIAL_CLUSTER_SIZE))
		return CUDA_ERROR_INVALID_VALUE;
	if (!inside_of(input, &in))
		return CUDA_ERROR_INVALID_RESOURCE_TYPE;

	struct sim_device *d = &sim_driver.device[in.device];

	step = step_of(&d->card, &floor);
	if (flags & CU_DEV_SM_RESOURCE_SPLIT_MAX_POTENTIAL_CLUSTER_SIZE && d->card.cc_major < 9)
		return CUDA_ERROR_NOT_SUPPORTED;
	if (flags & CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING && d->card.cc_major >= 9)
		floor = step = 2;
	size = least < floor ? floor : (least + step - 1) / step * step;
	n = size > input->sm.smCount ? 0 : input->sm.smCount / size;
	if (!n)
		return CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION;
	if (result && *groups < n)
		n = *groups;
	for (uint32_t i = 0; result && i < n; i++)
		fill(&result[i], d, in.first + i * size, size);
	*groups = n;
	if (remaining) {
		uint32_t left = input->sm.smCount - n * size;

		fill(remaining, d, in.first + n * size, left);
		if (!left)
			remaining->type = CU_DEV_RESOURCE_TYPE_INVALID;
	}
	return CUDA_SUCCESS;
}

CUresult cuDevResourceGenerateDesc(CUdevResourceDesc *ret, CUdevResource *list, unsigned int n)
{
	struct CUdevResourceDesc_st *desc;
	struct inside in;
	uint32_t units = 0;

	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!ret || !list || !n)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned int i = 0; i < n; i++) {
		if (!inside_of(&list[i], &in))
			return CUDA_ERROR_INVALID_RESOURCE_TYPE;
		units += list[i].sm.smCount;
	}
	if (!units || units > sim_driver.device[in.device].card.units)
		return CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION;
	desc = malloc(sizeof(*desc));
	if (!desc)
		return CUDA_ERROR_OUT_OF_MEMORY;
	pthread_mutex_lock(&lock);
	*desc = (struct CUdevResourceDesc_st){ in.device, units, descs };
	descs = desc;
	pthread_mutex_unlock(&lock);
	*ret = desc;
	return CUDA_SUCCESS;
}

/* ---- contexts ---- */

CUresult cuGreenCtxCreate(CUgreenCtx *ret, CUdevResourceDesc desc, CUdevice device, unsigned int flags)
{
	struct sim_device *d;
	CUcontext root, ctx;
	CUgreenCtx g;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (!ret || !desc || desc->device != device || flags != CU_GREEN_CTX_DEFAULT_STREAM)
		return CUDA_ERROR_INVALID_VALUE;
	r = cuDevicePrimaryCtxRetain(&root, device);
	if (r)
		return r;
	g = calloc(1, sizeof(*g));
	r = g ? sim_context_make_part(root, desc->units, &ctx) : CUDA_ERROR_OUT_OF_MEMORY;
	if (r) {
		free(g);
		cuDevicePrimaryCtxRelease_v2(device);
		return r;
	}
	g->ctx = ctx;
	g->device = device;
	fill(&g->resource, d, 0, desc->units);
	g->tag = SIM_TAG_GREEN;
	ctx->green = g;
	*ret = g;
	return CUDA_SUCCESS;
}

static CUresult check(CUgreenCtx g)
{
	CUresult r = sim_ready();

	if (!r && (!g || g->tag != SIM_TAG_GREEN))
		r = CUDA_ERROR_INVALID_CONTEXT;
	return r ? r : sim_context_check(g->ctx);
}

CUresult cuGreenCtxDestroy(CUgreenCtx g)
{
	CUresult r = sim_ready();

	if (r)
		return r;
	if (!g || g->tag != SIM_TAG_GREEN)
		return CUDA_ERROR_INVALID_CONTEXT;
	g->tag = 0;
	sim_context_unmake_part(g->ctx);
	cuDevicePrimaryCtxRelease_v2(g->device);
	free(g);
	return CUDA_SUCCESS;
}

CUresult cuCtxFromGreenCtx(CUcontext *ret, CUgreenCtx g)
{
	CUresult r = check(g);

	if (!r && !ret)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*ret = g->ctx;
	return r;
}

CUresult cuGreenCtxGetDevResource(CUgreenCtx g, CUdevResource *ret, CUdevResourceType type)
{
	CUresult r = check(g);

	if (r)
		return r;
	if (!ret)
		return CUDA_ERROR_INVALID_VALUE;
	if (type != CU_DEV_RESOURCE_TYPE_SM)
		return CUDA_ERROR_INVALID_RESOURCE_TYPE;
	*ret = g->resource;
	return CUDA_SUCCESS;
}

CUresult cuCtxGetDevResource(CUcontext ctx, CUdevResource *ret, CUdevResourceType type)
{
	CUresult r = ctx ? sim_context_check(ctx) : sim_enter(&ctx);

	if (r)
		return r;
	return ctx->green ? cuGreenCtxGetDevResource(ctx->green, ret, type)
			  : cuDeviceGetDevResource(ctx->device->id, ret, type);
}

CUresult cuGreenCtxGetId(CUgreenCtx g, unsigned long long *id)
{
	CUresult r = check(g);

	return r ? r : cuCtxGetId(g->ctx, id);
}

CUresult cuGreenCtxStreamCreate(CUstream *ret, CUgreenCtx g, unsigned int flags, int priority)
{
	CUresult r = check(g);

	if (r)
		return r;
	/* Blocking ones do not exist here. */
	if (!ret || flags != CU_STREAM_NON_BLOCKING)
		return CUDA_ERROR_INVALID_VALUE;
	return sim_stream_create(g->ctx, flags, priority, ret);
}

static CUresult green_of(CUstream h, CUgreenCtx *ret)
{
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_stream_get(ctx, h, false, &s);
	if (!r && !ret)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*ret = s->ctx->green;
	return r;
}

CUresult cuStreamGetGreenCtx(CUstream h, CUgreenCtx *ret)
{
	return green_of(h, ret);
}

/* ---- events of everything that is in a context ---- */

/* The event comes behind all streams: a stream of ours waits for each of them and records it. */
static CUresult record_all(CUcontext ctx, CUevent e)
{
	struct sim_cmd wait = { .kind = SIM_WAIT_SEQ };
	CUstream s;
	CUresult r;

	if (!e || e->tag != SIM_TAG_EVENT)
		return CUDA_ERROR_INVALID_HANDLE;
	if (SIM_UNLIKELY(sim_driver.captures)) {
		r = sim_capture_conflict_context(ctx);
		if (r)
			return r;
	}
	r = sim_stream_make(ctx, CU_STREAM_NON_BLOCKING, 0, &s);
	if (r)
		return r;
	for (struct sim_lane *l = ctx->lanes; l && !r; l = l->next) {
		if (l == s->lane || l->last <= sim_done(l->channel))
			continue;
		wait.wait_seq.channel = l->channel;
		wait.wait_seq.seq = l->last;
		r = sim_push(s, &wait, NULL, 0, NULL);
	}
	if (!r)
		r = sim_event_record(e, s);
	sim_stream_drop(s);
	return r;
}

/* Everything that comes into the context from now on waits for the event. */
static CUresult wait_all(CUcontext ctx, CUevent e)
{
	CUresult r = CUDA_SUCCESS;

	if (!e || e->tag != SIM_TAG_EVENT)
		return CUDA_ERROR_INVALID_HANDLE;
	if (SIM_UNLIKELY(sim_driver.captures)) {
		r = sim_capture_conflict_context(ctx);
		if (r)
			return r;
	}
	pthread_mutex_lock(&ctx->lock);
	for (CUstream s = ctx->streams; s && !r; s = s->next)
		r = sim_event_wait(s, e);
	pthread_mutex_unlock(&ctx->lock);
	return r ? r : sim_event_wait(ctx->legacy, e);
}

CUresult cuGreenCtxRecordEvent(CUgreenCtx g, CUevent e)
{
	CUresult r = check(g);

	return r ? r : record_all(g->ctx, e);
}

CUresult cuGreenCtxWaitEvent(CUgreenCtx g, CUevent e)
{
	CUresult r = check(g);

	return r ? r : wait_all(g->ctx, e);
}

CUresult cuCtxRecordEvent(CUcontext ctx, CUevent e)
{
	CUresult r = ctx ? sim_context_check(ctx) : sim_enter(&ctx);

	return r ? r : record_all(ctx, e);
}

CUresult cuCtxWaitEvent(CUcontext ctx, CUevent e)
{
	CUresult r = ctx ? sim_context_check(ctx) : sim_enter(&ctx);

	return r ? r : wait_all(ctx, e);
}
