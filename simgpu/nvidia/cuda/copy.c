/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of a run of bytes, and what all copies have in common: where memory lies and whom a call waits for. */
#include "simgpu/nvidia/cuda/graph.h"
#include "simgpu/nvidia/cuda/mem.h"

#include <string.h>

enum sim_place sim_place(CUdeviceptr p)
{
	struct sim_range range;

	if (sim_heap_contains(p))
		return SIM_AT_DEVICE;
	if (!sim_range_find(p, &range))
		return SIM_AT_PAGEABLE;
	return range.kind == SIM_MEM_HOST || range.kind == SIM_MEM_REGISTERED ? SIM_AT_PINNED : SIM_AT_DEVICE;
}

CUresult sim_copy(CUstream s, struct sim_cmd *cmd, enum sim_place src, enum sim_place dst, bool sync)
{
	bool pageable = src == SIM_AT_PAGEABLE || dst == SIM_AT_PAGEABLE;

	cmd->kind = SIM_COPY;
	cmd->copy.pageable = pageable;
	if (src == SIM_AT_DEVICE)
		cmd->copy.dir = dst == SIM_AT_DEVICE ? SIM_D2D : SIM_D2H;
	else
		cmd->copy.dir = dst == SIM_AT_DEVICE ? SIM_H2D : SIM_H2H;
	if (sync)
		return cmd->copy.dir == SIM_D2D ? sim_push(s, cmd, NULL, 0, NULL) : sim_push_now(s, cmd);
	if (!pageable)
		return sim_push(s, cmd, NULL, 0, NULL);
	/* A small run of pageable memory is taken over at once, all else keeps the caller until it is done. */
	if (dst != SIM_AT_PAGEABLE && cmd->copy.rows <= 1 && cmd->copy.layers <= 1 &&
	    cmd->copy.width <= SIM_STAGE_MAX)
		return sim_push(s, cmd, (const void *)cmd->copy.src, cmd->copy.width, NULL);
	return sim_push_now(s, cmd);
}

enum want { ANY, DEVICE, HOST }; /* what a call promises of an operand */

static bool wrong(enum want want, enum sim_place is)
{
	return want == DEVICE && is == SIM_AT_PAGEABLE;
}

static CUresult linear(CUdeviceptr dst, enum want want_dst, CUdeviceptr src, enum want want_src, size_t n,
		       CUstream h, bool per_thread, bool sync)
{
	enum sim_place at_dst, at_src;
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (SIM_UNLIKELY(r))
		return r;
	if (SIM_LIKELY(sim_driver.eager) && (sim_heap_contains(dst) || want_dst == HOST) &&
	    (sim_heap_contains(src) || want_src == HOST)) {
		memmove((void *)dst, (const void *)src, n);
		return CUDA_SUCCESS;
	}
	if (sync)
		r = sim_unsafe();
	if (!r)
		r = sim_stream_get(ctx, h, per_thread, &s);
	if (r)
		return r;
	if (!n)
		return CUDA_SUCCESS;
	at_dst = sim_place(dst);
	at_src = sim_place(src);
	if (!dst || !src || wrong(want_dst, at_dst) || wrong(want_src, at_src))
		return CUDA_ERROR_INVALID_VALUE;

	if (SIM_UNLIKELY(s->capture != NULL)) {
		CUDA_MEMCPY3D_v2 p = { .srcMemoryType = CU_MEMORYTYPE_UNIFIED,
				       .srcDevice = src,
				       .dstMemoryType = CU_MEMORYTYPE_UNIFIED,
				       .dstDevice = dst,
				       .srcPitch = n,
				       .dstPitch = n,
				       .WidthInBytes = n,
				       .Height = 1,
				       .Depth = 1 };

		return sim_capture_copy(s, &p);
	}

	struct sim_cmd cmd = { .copy = { .dst = dst, .src = src, .width = n, .rows = 1, .layers = 1 } };

	return sim_copy(s, &cmd, at_src, at_dst, sync);
}

SIM_PAIR(cuMemcpy, _ptds, (CUdeviceptr dst, CUdeviceptr src, size_t n),
	 return linear(dst, ANY, src, ANY, n, NULL, per_thread, true);)
SIM_PAIR(cuMemcpyHtoD_v2, _ptds, (CUdeviceptr dst, const void *src, size_t n),
	 return linear(dst, DEVICE, (uintptr_t)src, HOST, n, NULL, per_thread, true);)
SIM_PAIR(cuMemcpyDtoH_v2, _ptds, (void *dst, CUdeviceptr src, size_t n),
	 return linear((uintptr_t)dst, HOST, src, DEVICE, n, NULL, per_thread, true);)
SIM_PAIR(cuMemcpyDtoD_v2, _ptds, (CUdeviceptr dst, CUdeviceptr src, size_t n),
	 return linear(dst, DEVICE, src, DEVICE, n, NULL, per_thread, true);)
SIM_PAIR(cuMemcpyAsync, _ptsz, (CUdeviceptr dst, CUdeviceptr src, size_t n, CUstream h),
	 return linear(dst, ANY, src, ANY, n, h, per_thread, false);)
SIM_PAIR(cuMemcpyHtoDAsync_v2, _ptsz, (CUdeviceptr dst, const void *src, size_t n, CUstream h),
	 return linear(dst, DEVICE, (uintptr_t)src, HOST, n, h, per_thread, false);)
SIM_PAIR(cuMemcpyDtoHAsync_v2, _ptsz, (void *dst, CUdeviceptr src, size_t n, CUstream h),
	 return linear((uintptr_t)dst, HOST, src, DEVICE, n, h, per_thread, false);)
SIM_PAIR(cuMemcpyDtoDAsync_v2, _ptsz, (CUdeviceptr dst, CUdeviceptr src, size_t n, CUstream h),
	 return linear(dst, DEVICE, src, DEVICE, n, h, per_thread, false);)

/* Between two contexts: addresses are the process's, so the contexts are only checked. */
static CUresult peer(CUdeviceptr dst, CUcontext dst_ctx, CUdeviceptr src, CUcontext src_ctx, size_t n,
		     CUstream h, bool per_thread, bool sync)
{
	CUresult r = sim_context_check(dst_ctx);

	if (!r)
		r = sim_context_check(src_ctx);
	return r ? r : linear(dst, DEVICE, src, DEVICE, n, h, per_thread, sync);
}

SIM_PAIR(cuMemcpyPeer, _ptds,
	 (CUdeviceptr dst, CUcontext dst_ctx, CUdeviceptr src, CUcontext src_ctx, size_t n),
	 return peer(dst, dst_ctx, src, src_ctx, n, NULL, per_thread, true);)
SIM_PAIR(cuMemcpyPeerAsync, _ptsz,
	 (CUdeviceptr dst, CUcontext dst_ctx, CUdeviceptr src, CUcontext src_ctx, size_t n, CUstream h),
	 return peer(dst, dst_ctx, src, src_ctx, n, h, per_thread, false);)
