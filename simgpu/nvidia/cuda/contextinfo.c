/* SPDX-License-Identifier: Apache-2.0 */
/* What a context knows and lets be set: limits, flags, cache preferences, peers. */
#include "simgpu/nvidia/cuda/drv.h"

CUresult cuCtxGetId(CUcontext ctx, unsigned long long *id)
{
	CUresult r = ctx ? sim_context_check(ctx) : sim_enter(&ctx);

	if (!r && !id)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*id = ctx->id;
	return r;
}

CUresult cuCtxGetApiVersion(CUcontext ctx, unsigned int *version)
{
	CUresult r = ctx ? sim_context_check(ctx) : sim_enter(&ctx);

	if (!r && !version)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*version = ctx->api;
	return r;
}

CUresult cuCtxGetFlags(unsigned int *flags)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r && !flags)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*flags = ctx->flags;
	return r;
}

CUresult cuCtxSetFlags(unsigned int flags)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r && flags & ~(unsigned)CU_CTX_FLAGS_MASK)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		ctx->flags = flags;
	return r;
}

CUresult cuCtxSetLimit(CUlimit limit, size_t value)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (r)
		return r;
	if (limit > CU_LIMIT_PERSISTING_L2_CACHE_SIZE)
		return CUDA_ERROR_UNSUPPORTED_LIMIT;
	if (limit == CU_LIMIT_STACK_SIZE && value > 524288)
		value = 524288;
	ctx->limit[limit] = value;
	return CUDA_SUCCESS;
}

CUresult cuCtxGetLimit(size_t *value, CUlimit limit)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (r)
		return r;
	if (!value)
		return CUDA_ERROR_INVALID_VALUE;
	if (limit > CU_LIMIT_PERSISTING_L2_CACHE_SIZE)
		return CUDA_ERROR_UNSUPPORTED_LIMIT;
	*value = ctx->limit[limit];
	return CUDA_SUCCESS;
}

CUresult cuCtxGetCacheConfig(CUfunc_cache *config)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r && !config)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*config = ctx->cache_config;
	return r;
}

CUresult cuCtxSetCacheConfig(CUfunc_cache config)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r && config > CU_FUNC_CACHE_PREFER_EQUAL)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		ctx->cache_config = config;
	return r;
}

CUresult cuCtxGetSharedMemConfig(CUsharedconfig *config)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r && !config)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*config = ctx->bank_config;
	return r;
}

CUresult cuCtxSetSharedMemConfig(CUsharedconfig config)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r && config > CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE)
		r = CUDA_ERROR_INVALID_VALUE;
	return r; /* no device since Kepler has a choice */
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (r)
		return r;
	if (least)
		*least = 0;
	if (greatest)
		*greatest = -5;
	return CUDA_SUCCESS;
}

CUresult cuCtxResetPersistingL2Cache(void)
{
	CUcontext ctx;

	return sim_enter(&ctx);
}

CUresult cuCtxGetExecAffinity(CUexecAffinityParam *p, CUexecAffinityType type)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (r)
		return r;
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	if (type != CU_EXEC_AFFINITY_TYPE_SM_COUNT)
		return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
	p->type = type;
	p->param.smCount.val = ctx->units ? ctx->units : ctx->device->card.units;
	return CUDA_SUCCESS;
}

CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_context_check(peer);
	if (r)
		return r;
	if (flags || peer == ctx)
		return CUDA_ERROR_INVALID_VALUE;
	if (peer->device == ctx->device)
		return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
	if (ctx->peers & 1u << peer->device->id)
		return CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
	ctx->peers |= 1u << peer->device->id;
	return CUDA_SUCCESS;
}

CUresult cuCtxDisablePeerAccess(CUcontext peer)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_context_check(peer);
	if (r)
		return r;
	if (!(ctx->peers & 1u << peer->device->id))
		return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
	ctx->peers &= ~(1u << peer->device->id);
	return CUDA_SUCCESS;
}
