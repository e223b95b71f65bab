/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fills. None of them keeps the caller waiting: NVIDIA's synchronous forms return before a fill of device
 * memory has ended.
 */
#include "simgpu/nvidia/cuda/graph.h"

CUresult sim_fill_push(CUstream s, const CUDA_MEMSET_NODE_PARAMS_v1 *p)
{
	struct sim_cmd cmd = { .kind = SIM_FILL,
			       .fill = { p->dst, p->pitch, p->width, p->height, p->elementSize, p->value } };

	return sim_push(s, &cmd, NULL, 0, NULL);
}

static CUresult fill(CUdeviceptr dst, size_t pitch, uint32_t element, uint32_t value, size_t width,
		     size_t rows, CUstream h, bool per_thread, bool sync)
{
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r && sync)
		r = sim_unsafe();
	if (!r)
		r = sim_stream_get(ctx, h, per_thread, &s);
	if (r)
		return r;
	if (!width || !rows)
		return CUDA_SUCCESS;
	if (!dst || dst % element || (rows > 1 && (pitch < width * element || pitch % element)) ||
	    sim_place(dst) == SIM_AT_PAGEABLE)
		return CUDA_ERROR_INVALID_VALUE;

	CUDA_MEMSET_NODE_PARAMS_v1 p = { dst, pitch, value, element, width, rows };

	if (SIM_UNLIKELY(s->capture != NULL)) {
		CUgraphNodeParams node = { .type = CU_GRAPH_NODE_TYPE_MEMSET,
					   .memset = { dst, pitch, value, element, width, rows, s->ctx } };

		return sim_capture_node(s, &node, NULL);
	}
	return sim_fill_push(s, &p);
}

SIM_PAIR(cuMemsetD8_v2, _ptds, (CUdeviceptr dst, unsigned char v, size_t n),
	 return fill(dst, 0, 1, v, n, 1, NULL, per_thread, true);)
SIM_PAIR(cuMemsetD16_v2, _ptds, (CUdeviceptr dst, unsigned short v, size_t n),
	 return fill(dst, 0, 2, v, n, 1, NULL, per_thread, true);)
SIM_PAIR(cuMemsetD32_v2, _ptds, (CUdeviceptr dst, unsigned int v, size_t n),
	 return fill(dst, 0, 4, v, n, 1, NULL, per_thread, true);)
SIM_PAIR(cuMemsetD8Async, _ptsz, (CUdeviceptr dst, unsigned char v, size_t n, CUstream h),
	 return fill(dst, 0, 1, v, n, 1, h, per_thread, false);)
SIM_PAIR(cuMemsetD16Async, _ptsz, (CUdeviceptr dst, unsigned short v, size_t n, CUstream h),
	 return fill(dst, 0, 2, v, n, 1, h, per_thread, false);)
SIM_PAIR(cuMemsetD32Async, _ptsz, (CUdeviceptr dst, unsigned int v, size_t n, CUstream h),
	 return fill(dst, 0, 4, v, n, 1, h, per_thread, false);)
SIM_PAIR(cuMemsetD2D8_v2, _ptds, (CUdeviceptr dst, size_t pitch, unsigned char v, size_t w, size_t rows),
	 return fill(dst, pitch, 1, v, w, rows, NULL, per_thread, true);)
SIM_PAIR(cuMemsetD2D16_v2, _ptds, (CUdeviceptr dst, size_t pitch, unsigned short v, size_t w, size_t rows),
	 return fill(dst, pitch, 2, v, w, rows, NULL, per_thread, true);)
SIM_PAIR(cuMemsetD2D32_v2, _ptds, (CUdeviceptr dst, size_t pitch, unsigned int v, size_t w, size_t rows),
	 return fill(dst, pitch, 4, v, w, rows, NULL, per_thread, true);)
SIM_PAIR(cuMemsetD2D8Async, _ptsz,
	 (CUdeviceptr dst, size_t pitch, unsigned char v, size_t w, size_t rows, CUstream h),
	 return fill(dst, pitch, 1, v, w, rows, h, per_thread, false);)
SIM_PAIR(cuMemsetD2D16Async, _ptsz,
	 (CUdeviceptr dst, size_t pitch, unsigned short v, size_t w, size_t rows, CUstream h),
	 return fill(dst, pitch, 2, v, w, rows, h, per_thread, false);)
SIM_PAIR(cuMemsetD2D32Async, _ptsz,
	 (CUdeviceptr dst, size_t pitch, unsigned int v, size_t w, size_t rows, CUstream h),
	 return fill(dst, pitch, 4, v, w, rows, h, per_thread, false);)
