/* SPDX-License-Identifier: Apache-2.0 */
/* How many blocks of a kernel fit on a unit, and what a function says of itself. */
#include "simgpu/nvidia/cuda/drv.h"

#include <string.h>

uint32_t sim_occupancy(const struct sim_card *c, const struct CUfunc_st *f, uint32_t threads,
		       size_t dynamic_smem)
{
	uint32_t n = c->blocks_per_unit ? c->blocks_per_unit : 32;
	uint32_t warps = (threads + 31) / 32;
	size_t smem = f->smem_bytes + dynamic_smem;

	if (c->threads_per_unit && c->threads_per_unit / (warps * 32) < n)
		n = c->threads_per_unit / (warps * 32);
	if (f->regs && c->regs_per_unit) {
		/* Registers are dealt to warps, in units of 256. */
		uint32_t per_block = warps * ((f->regs * 32 + 255) / 256 * 256);

		if (c->regs_per_unit / per_block < n)
			n = c->regs_per_unit / per_block;
	}
	if (smem && c->smem_per_unit && c->smem_per_unit / smem < n)
		n = (uint32_t)(c->smem_per_unit / smem);
	return n;
}

static CUresult enter(CUfunction f, CUfunction *ret, CUcontext *ctx)
{
	CUresult r = sim_enter(ctx);

	return r ? r : sim_function_get(*ctx, f, ret);
}

CUresult sim_function_attribute(const struct sim_card *c, const struct CUfunc_st *f, CUfunction_attribute a,
				int *v)
{
	if (!v)
		return CUDA_ERROR_INVALID_VALUE;
	switch (a) {
	case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
		*v = f->max_threads ? (int)f->max_threads : 1024;
		break;
	case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
		*v = (int)f->smem_bytes;
		break;
	case CU_FUNC_ATTRIBUTE_NUM_REGS:
		*v = f->regs ? (int)f->regs : 32;
		break;
	case CU_FUNC_ATTRIBUTE_PTX_VERSION:
	case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
		*v = (int)(c->cc_major * 10 + c->cc_minor);
		break;
	case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
		*v = f->max_dynamic_smem ? f->max_dynamic_smem : (int)(49152 - f->smem_bytes);
		break;
	case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
		*v = f->carveout;
		break;
	default:
		if (a > CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE)
			return CUDA_ERROR_INVALID_VALUE;
		*v = 0;
	}
	return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int *v, CUfunction_attribute a, CUfunction f)
{
	CUcontext ctx;
	CUresult r = enter(f, &f, &ctx);

	return r ? r : sim_function_attribute(&ctx->device->card, f, a, v);
}

CUresult sim_function_set_attribute(const struct sim_card *c, CUfunction f, CUfunction_attribute a, int v)
{
	if (a == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
		if (v < 0 ||
		    (uint32_t)v + f->smem_bytes > (c->smem_per_block_optin ? c->smem_per_block_optin : 49152))
			return CUDA_ERROR_INVALID_VALUE;
		f->max_dynamic_smem = v;
	} else if (a == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) {
		if (v < -1 || v > 100)
			return CUDA_ERROR_INVALID_VALUE;
		f->carveout = v;
	} else if (a < CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES ||
		   a > CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE) {
		return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction f, CUfunction_attribute a, int v)
{
	CUcontext ctx;
	CUresult r = enter(f, &f, &ctx);

	return r ? r : sim_function_set_attribute(&ctx->device->card, f, a, v);
}

CUresult cuFuncSetCacheConfig(CUfunction f, CUfunc_cache config)
{
	CUcontext ctx;
	CUresult r = enter(f, &f, &ctx);

	return r ? r : config > CU_FUNC_CACHE_PREFER_EQUAL ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuFuncSetSharedMemConfig(CUfunction f, CUsharedconfig config)
{
	CUcontext ctx;
	CUresult r = enter(f, &f, &ctx);

	return r                                                    ? r
	       : config > CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE ? CUDA_ERROR_INVALID_VALUE
								    : CUDA_SUCCESS;
}

CUresult cuFuncGetModule(CUmodule *ret, CUfunction f)
{
	CUcontext ctx;
	CUresult r = enter(f, &f, &ctx);

	if (!r && !ret)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*ret = f->module;
	return r;
}

CUresult cuFuncGetName(const char **ret, CUfunction f)
{
	CUcontext ctx;
	CUresult r = enter(f, &f, &ctx);

	if (!r && !ret)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*ret = f->name;
	return r;
}

CUresult cuFuncGetParamInfo(CUfunction f, size_t i, size_t *offset, size_t *bytes)
{
	CUcontext ctx;
	CUresult r = enter(f, &f, &ctx);

	if (r)
		return r;
	if (!offset || i >= f->params)
		return CUDA_ERROR_INVALID_VALUE;
	*offset = f->param[i].offset;
	if (bytes)
		*bytes = f->param[i].bytes;
	return CUDA_SUCCESS;
}

CUresult cuFuncIsLoaded(CUfunctionLoadingState *state, CUfunction f)
{
	CUcontext ctx;
	CUresult r = enter(f, &f, &ctx);

	if (!r && !state)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*state = CU_FUNCTION_LOADING_STATE_LOADED;
	return r;
}

CUresult cuFuncLoad(CUfunction f)
{
	CUcontext ctx;

	return enter(f, &f, &ctx);
}

/* ---- occupancy ---- */

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *ret, CUfunction f, int threads,
							      size_t smem, unsigned int flags)
{
	CUcontext ctx;
	CUresult r = enter(f, &f, &ctx);

	if (r)
		return r;
	if (!ret || threads <= 0 || flags > CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE)
		return CUDA_ERROR_INVALID_VALUE;
	*ret = threads > 1024 ? 0 : (int)sim_occupancy(&ctx->device->card, f, (uint32_t)threads, smem);
	return CUDA_SUCCESS;
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *ret, CUfunction f, int threads, size_t smem)
{
	return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(ret, f, threads, smem, 0);
}

/* The largest number of resident threads, and of those the largest block. */
CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int *grid, int *block, CUfunction f,
						   CUoccupancyB2DSize smem_of, size_t smem, int limit,
						   unsigned int flags)
{
	CUcontext ctx;
	CUresult r = enter(f, &f, &ctx);
	uint32_t best = 0, best_blocks = 0;

	if (r)
		return r;
	if (!grid || !block || flags > CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE)
		return CUDA_ERROR_INVALID_VALUE;

	uint32_t most = f->max_threads ? f->max_threads : 1024;

	if (limit > 0 && (uint32_t)limit < most)
		most = (uint32_t)limit;
	for (uint32_t t = most < 32 ? most : most / 32 * 32; t >= 1; t = t > 32 ? t - 32 : 0) {
		uint32_t n = sim_occupancy(&ctx->device->card, f, t, smem_of ? smem_of((int)t) : smem);

		if (n * t > best * best_blocks) {
			best = t;
			best_blocks = n;
		}
	}
	*block = (int)best;
	*grid = (int)(best_blocks * ctx->device->card.units);
	return best ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuOccupancyMaxPotentialBlockSize(int *grid, int *block, CUfunction f, CUoccupancyB2DSize smem_of,
					  size_t smem, int limit)
{
	return cuOccupancyMaxPotentialBlockSizeWithFlags(grid, block, f, smem_of, smem, limit, 0);
}

/* Clusters came with 9.0. */
static CUresult clusters(int *ret, CUfunction f, const CUlaunchConfig *c, bool largest)
{
	uint64_t blocks, size = 1;
	CUcontext ctx;
	CUresult r = enter(f, &f, &ctx);

	if (r)
		return r;
	if (!ret || !c)
		return CUDA_ERROR_INVALID_VALUE;
	if (ctx->device->card.cc_major < 9)
		return CUDA_ERROR_NOT_SUPPORTED;
	for (unsigned int i = 0; c->attrs && i < c->numAttrs; i++)
		if (c->attrs[i].id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
			size = (uint64_t)c->attrs[i].value.clusterDim.x * c->attrs[i].value.clusterDim.y *
			       c->attrs[i].value.clusterDim.z;
	blocks = (uint64_t)ctx->device->card.units * sim_occupancy(&ctx->device->card, f,
								   c->blockDimX * c->blockDimY * c->blockDimZ,
								   c->sharedMemBytes);
	if (!size || !blocks)
		return CUDA_ERROR_INVALID_CLUSTER_SIZE;
	*ret = largest ? 8 : (int)(blocks / size);
	return CUDA_SUCCESS;
}

CUresult cuOccupancyMaxPotentialClusterSize(int *ret, CUfunction f, const CUlaunchConfig *c)
{
	return clusters(ret, f, c, true);
}

CUresult cuOccupancyMaxActiveClusters(int *ret, CUfunction f, const CUlaunchConfig *c)
{
	return clusters(ret, f, c, false);
}

CUresult cuOccupancyAvailableDynamicSMemPerBlock(size_t *ret, CUfunction f, int blocks, int threads)
{
	CUcontext ctx;
	CUresult r = enter(f, &f, &ctx);

	if (r)
		return r;
	if (!ret || blocks <= 0 || threads <= 0)
		return CUDA_ERROR_INVALID_VALUE;

	size_t share = ctx->device->card.smem_per_unit / (unsigned)blocks;

	*ret = share > f->smem_bytes ? share - f->smem_bytes : 0;
	return CUDA_SUCCESS;
}
