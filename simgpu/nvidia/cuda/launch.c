/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel launches in all their forms. */
#include "simgpu/nvidia/cuda/graph.h"

#include <string.h>

static uint64_t product(const uint32_t v[3])
{
	return (uint64_t)v[0] * v[1] * v[2];
}

CUresult sim_launch_check(const struct sim_launch *l)
{
	const struct sim_card *c = &l->f->module->ctx->device->card;
	uint64_t blocks, threads = product(l->block);

	if (!product(l->grid) || !threads)
		return CUDA_ERROR_INVALID_VALUE;
	if (threads > 1024 || l->block[2] > 64 || l->grid[0] > INT32_MAX || l->grid[1] > 65535 ||
	    l->grid[2] > 65535)
		return CUDA_ERROR_INVALID_VALUE;
	if (l->f->max_threads && threads > l->f->max_threads)
		return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
	if (l->smem_bytes > 49152 && l->smem_bytes > (uint32_t)l->f->max_dynamic_smem)
		return CUDA_ERROR_INVALID_VALUE;
	blocks = sim_occupancy(c, l->f, (uint32_t)threads, l->smem_bytes);
	if (!blocks)
		return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
	if (l->cooperative && product(l->grid) > blocks * c->units)
		return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
	return CUDA_SUCCESS;
}

CUresult sim_launch_params(CUfunction f, void *const *params, void *const *extra, unsigned char *ret,
			   size_t *ret_bytes)
{
	*ret_bytes = f->param_bytes;
	if (params && extra)
		return CUDA_ERROR_INVALID_VALUE;
	if (extra) {
		const void *buffer = NULL;
		size_t bytes = 0;

		for (; extra[0] != CU_LAUNCH_PARAM_END; extra += 2) {
			if (extra[0] == CU_LAUNCH_PARAM_BUFFER_POINTER)
				buffer = extra[1];
			else if (extra[0] == CU_LAUNCH_PARAM_BUFFER_SIZE)
				bytes = *(const size_t *)extra[1];
			else
				return CUDA_ERROR_INVALID_VALUE;
		}
		if ((bytes && !buffer) || bytes < f->param_bytes || bytes > SIM_PARAMS_MAX)
			return CUDA_ERROR_INVALID_VALUE;
		if (f->param_bytes)
			memcpy(ret, buffer, f->param_bytes);
		return CUDA_SUCCESS;
	}
	if (f->params && !params)
		return CUDA_ERROR_INVALID_VALUE;
	if (f->param_bytes > SIM_PARAMS_MAX)
		return CUDA_ERROR_INVALID_VALUE;
	for (uint32_t i = 0; i < f->params; i++)
		memcpy(ret + f->param[i].offset, params[i], f->param[i].bytes);
	return CUDA_SUCCESS;
}

CUresult sim_launch_push(CUstream s, const struct sim_launch *l, const unsigned char *params,
			 size_t param_bytes)
{
	const struct CUfunc_st *f = l->f;
	const struct sim_card *c = &s->ctx->device->card;
	uint32_t threads = (uint32_t)product(l->block);
	uint64_t block_ns = f->block_ns;

	if (f->arg_ns) {
		uint64_t v = 0;

		memcpy(&v, params + f->param[0].offset, f->param[0].bytes < 8 ? 4 : 8);
		block_ns = v * f->arg_ns;
	}

	struct sim_cmd cmd = {
		.kind = SIM_KERNEL,
		.priority = l->priority,
		.kernel = {
			.grid = { l->grid[0], l->grid[1], l->grid[2] },
			.block = { l->block[0], l->block[1], l->block[2] },
			.blocks_per_unit = f->blocks_per_unit ? f->blocks_per_unit : sim_occupancy(c, f, threads, l->smem_bytes),
			.block_ns = block_ns,
			.dram_bytes = f->dram_bytes * product(l->grid),
			.compute = f->compute,
		},
	};

	/* Only what computes looks at its parameters. */
	return sim_push(s, &cmd, f->compute && param_bytes ? params : NULL, param_bytes, NULL);
}

static CUresult launch(struct sim_launch *l, CUstream h, bool per_thread, void **params, void **extra)
{
	unsigned char packed[SIM_PARAMS_MAX];
	size_t bytes;
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_function_get(ctx, l->f, &l->f);
	if (!r)
		r = sim_stream_get(ctx, h, per_thread, &s);
	if (!r && l->f->module->ctx != s->ctx->root)
		r = CUDA_ERROR_INVALID_HANDLE;
	if (!r)
		r = sim_launch_check(l);
	if (!r)
		r = sim_launch_params(l->f, params, extra, packed, &bytes);
	if (r)
		return r;
	return SIM_UNLIKELY(s->capture != NULL) ? sim_capture_launch(s, l, packed, bytes)
						: sim_launch_push(s, l, packed, bytes);
}

/* What the zero-cost mode checks: as much as costs nothing. True: the launch is done. */
static inline bool eager(CUfunction f, uint64_t blocks, uint64_t threads)
{
	CUcontext ctx = sim_self.current;

	return SIM_LIKELY(sim_driver.eager && ctx && !ctx->broken && f && f->tag == SIM_TAG_FUNCTION &&
			  blocks && threads - 1 < 1024);
}

SIM_PAIR(cuLaunchKernel, _ptsz,
	 (CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by,
	  unsigned int bz, unsigned int smem, CUstream h, void **params, void **extra),
	 {
		 if (eager(f, (uint64_t)gx * gy * gz, (uint64_t)bx * by * bz))
			 return CUDA_SUCCESS;
		 struct sim_launch l = { f, { gx, gy, gz }, { bx, by, bz }, smem, 0, false };
		 return launch(&l, h, per_thread, params, extra);
	 })

SIM_PAIR(cuLaunchCooperativeKernel, _ptsz,
	 (CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by,
	  unsigned int bz, unsigned int smem, CUstream h, void **params),
	 {
		 struct sim_launch l = { f, { gx, gy, gz }, { bx, by, bz }, smem, 0, true };
		 return launch(&l, h, per_thread, params, NULL);
	 })

/*
 * Events that a launch attribute names are recorded behind the kernel: a time between its start and its end
 * is not modelled.
 */
static CUresult record_attrs(const CUlaunchConfig *c, bool per_thread)
{
	CUresult r = CUDA_SUCCESS;

	for (unsigned int i = 0; i < c->numAttrs && !r; i++) {
		const CUlaunchAttribute *a = &c->attrs[i];
		CUevent e = a->id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT ? a->value.programmaticEvent.event
			    : a->id == CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT
				    ? a->value.launchCompletionEvent.event
				    : NULL;

		if (e)
			r = per_thread ? cuEventRecord_ptsz(e, c->hStream) : cuEventRecord(e, c->hStream);
	}
	return r;
}

static CUresult launch_config(const CUlaunchConfig *c, CUfunction f, bool per_thread, void **params, void **extra)
{
	struct sim_launch l = {
		.f = f,
		.grid = { c->gridDimX, c->gridDimY, c->gridDimZ },
		.block = { c->blockDimX, c->blockDimY, c->blockDimZ },
		.smem_bytes = c->sharedMemBytes,
	};
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_stream_get(ctx, c->hStream, per_thread, &s);
	for (unsigned int i = 0; i < c->numAttrs && !r; i++) {
		if (c->attrs[i].id == CU_LAUNCH_ATTRIBUTE_PRIORITY)
			l.priority = c->attrs[i].value.priority - s->priority;
		else if (c->attrs[i].id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE)
			l.cooperative = c->attrs[i].value.cooperative != 0;
	}
	if (!r)
		r = launch(&l, c->hStream, per_thread, params, extra);
	return r ? r : record_attrs(c, per_thread);
}

SIM_PAIR(cuLaunchKernelEx, _ptsz, (const CUlaunchConfig *c, CUfunction f, void **params, void **extra), {
	if (!c || (c->numAttrs && !c->attrs))
		return CUDA_ERROR_INVALID_VALUE;
	if (!c->numAttrs && eager(f, (uint64_t)c->gridDimX * c->gridDimY * c->gridDimZ,
				  (uint64_t)c->blockDimX * c->blockDimY * c->blockDimZ))
		return CUDA_SUCCESS;
	return launch_config(c, f, per_thread, params, extra);
})

CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS_v1 *list, unsigned int n, unsigned int flags)
{
	CUresult r = CUDA_SUCCESS;

	if (!list || !n || flags > 3)
		return CUDA_ERROR_INVALID_VALUE;
	if (n > 1)
		/* deprecated, and the devices of a server do not share a grid */
		return CUDA_ERROR_NOT_SUPPORTED;
	r = cuLaunchCooperativeKernel(list->function, list->gridDimX, list->gridDimY, list->gridDimZ,
				      list->blockDimX, list->blockDimY, list->blockDimZ, list->sharedMemBytes,
				      list->hStream, list->kernelParams);
	return r;
}

/* ---- as CUDA 2 launched: shape and parameters are set on the function before ---- */

static CUresult old(CUfunction f, CUfunction *ret)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	return r ? r : sim_function_get(ctx, f, ret);
}

CUresult cuFuncSetBlockShape(CUfunction f, int x, int y, int z)
{
	CUresult r = old(f, &f);

	if (r)
		return r;
	if (x <= 0 || y <= 0 || z <= 0 || (int64_t)x * y * z > 1024)
		return CUDA_ERROR_INVALID_VALUE;
	f->block[0] = (uint32_t)x;
	f->block[1] = (uint32_t)y;
	f->block[2] = (uint32_t)z;
	return CUDA_SUCCESS;
}

CUresult cuFuncSetSharedSize(CUfunction f, unsigned int bytes)
{
	CUresult r = old(f, &f);

	if (!r)
		f->dynamic_smem = bytes;
	return r;
}

CUresult cuParamSetSize(CUfunction f, unsigned int bytes)
{
	CUresult r = old(f, &f);

	return r ? r : bytes > sizeof(f->old_params) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuParamSetv(CUfunction f, int offset, void *p, unsigned int bytes)
{
	CUresult r = old(f, &f);

	if (r)
		return r;
	if (!p || offset < 0 || (uint64_t)offset + bytes > sizeof(f->old_params))
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(f->old_params + offset, p, bytes);
	return CUDA_SUCCESS;
}

CUresult cuParamSeti(CUfunction f, int offset, unsigned int v)
{
	return cuParamSetv(f, offset, &v, sizeof(v));
}

CUresult cuParamSetf(CUfunction f, int offset, float v)
{
	return cuParamSetv(f, offset, &v, sizeof(v));
}

CUresult cuLaunchGridAsync(CUfunction f, int width, int height, CUstream h)
{
	CUresult r = old(f, &f);

	if (r)
		return r;
	if (width <= 0 || height <= 0)
		return CUDA_ERROR_INVALID_VALUE;

	size_t bytes = f->param_bytes > sizeof(f->old_params) ? sizeof(f->old_params) : f->param_bytes;
	void *extra[] = { CU_LAUNCH_PARAM_BUFFER_POINTER, f->old_params, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes,
			  CU_LAUNCH_PARAM_END };
	struct sim_launch l = { f,
				{ (uint32_t)width, (uint32_t)height, 1 },
				{ f->block[0], f->block[1], f->block[2] },
				f->dynamic_smem,
				0,
				false };

	return launch(&l, h, false, NULL, extra);
}

CUresult cuLaunchGrid(CUfunction f, int width, int height)
{
	return cuLaunchGridAsync(f, width, height, NULL);
}

CUresult cuLaunch(CUfunction f)
{
	return cuLaunchGridAsync(f, 1, 1, NULL);
}
