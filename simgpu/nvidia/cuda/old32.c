/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The entry points of CUDA 2, whose device addresses and sizes have 32 bits. What they allocate lies below
 * 4 GiB, each block in pages of its own; it is ordinary device memory for all other calls. An address that
 * does not fit is an error of the call.
 */
#include "simgpu/nvidia/cuda/mem.h"

#include <sys/mman.h>

#ifndef MAP_32BIT
#define MAP_32BIT 0 /* an architecture without: only what happens to lie low can be had */
#endif

static CUresult low_alloc(CUcontext ctx, size_t bytes, CUdeviceptr_v1 *ret)
{
	size_t whole = (bytes + SIM_PAGE_BYTES - 1) & ~(SIM_PAGE_BYTES - 1);
	struct sim_range range = {
		.bytes = bytes, .kind = SIM_MEM_LOW, .device = ctx->device, .ctx = ctx->root
	};
	uint64_t id;
	CUresult r = sim_memory_take(ctx->device, whole, &id);

	if (r)
		return r;
	void *p = mmap(NULL, whole, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_32BIT, -1, 0);
	range.base = (uintptr_t)p;
	range.object = (void *)(uintptr_t)id;
	if (p == MAP_FAILED || range.base > UINT32_MAX - whole || sim_range_add(&range) < 0) {
		if (p != MAP_FAILED)
			munmap(p, whole);
		sim_memory_give(ctx->device, whole, id);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*ret = (CUdeviceptr_v1)range.base;
	return CUDA_SUCCESS;
}

void sim_low_release(const struct sim_range *range)
{
	size_t whole = (range->bytes + SIM_PAGE_BYTES - 1) & ~(SIM_PAGE_BYTES - 1);

	munmap((void *)range->base, whole);
	sim_memory_give(range->device, whole, (uintptr_t)range->object);
}

bool sim_low_free(CUdeviceptr p)
{
	struct sim_range range;

	if (!sim_range_find(p, &range) || range.kind != SIM_MEM_LOW || range.base != p ||
	    !sim_range_remove(p, &range))
		return false;
	sim_low_release(&range);
	return true;
}

static CUresult fit(CUresult r, CUdeviceptr p, size_t n, CUdeviceptr_v1 *ret, unsigned int *ret_n)
{
	if (r)
		return r;
	if (p > UINT32_MAX || n > UINT32_MAX)
		return CUDA_ERROR_INVALID_VALUE;
	if (ret)
		*ret = (CUdeviceptr_v1)p;
	if (ret_n)
		*ret_n = (unsigned int)n;
	return CUDA_SUCCESS;
}

/* ---- memory ---- */

CUresult cuMemAlloc(CUdeviceptr_v1 *ret, unsigned int bytes)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_unsafe();
	if (!r && (!ret || !bytes))
		r = CUDA_ERROR_INVALID_VALUE;
	return r ? r : low_alloc(ctx, bytes, ret);
}

CUresult cuMemAllocPitch(CUdeviceptr_v1 *ret, unsigned int *pitch, unsigned int width, unsigned int height,
			 unsigned int element)
{
	uint64_t row = (width + 511ul) & ~511ul;
	CUresult r;

	if (!ret || !pitch || !width || !height || (element != 4 && element != 8 && element != 16))
		return CUDA_ERROR_INVALID_VALUE;
	if (row * height > UINT32_MAX)
		return CUDA_ERROR_OUT_OF_MEMORY;
	r = cuMemAlloc(ret, (unsigned int)(row * height));
	if (!r)
		*pitch = (unsigned int)row;
	return r;
}

CUresult cuMemFree(CUdeviceptr_v1 p)
{
	return cuMemFree_v2(p);
}

CUresult cuMemGetAddressRange(CUdeviceptr_v1 *base, unsigned int *bytes, CUdeviceptr_v1 p)
{
	CUdeviceptr b = 0;
	size_t n = 0;
	CUresult r = cuMemGetAddressRange_v2(&b, &n, p);

	return fit(r, b, n, base, bytes);
}

CUresult cuMemHostGetDevicePointer(CUdeviceptr_v1 *ret, void *p, unsigned int flags)
{
	CUdeviceptr at = 0;
	CUresult r = cuMemHostGetDevicePointer_v2(&at, p, flags);

	return fit(r, at, 0, ret, NULL);
}

CUresult cuModuleGetGlobal(CUdeviceptr_v1 *ret, unsigned int *bytes, CUmodule m, const char *name)
{
	CUdeviceptr at = 0;
	size_t n = 0;
	CUresult r = cuModuleGetGlobal_v2(&at, &n, m, name);

	return fit(r, at, n, ret, bytes);
}

/* ---- copies ---- */

CUresult cuMemcpyHtoD(CUdeviceptr_v1 dst, const void *src, unsigned int n)
{
	return cuMemcpyHtoD_v2(dst, src, n);
}

CUresult cuMemcpyDtoH(void *dst, CUdeviceptr_v1 src, unsigned int n)
{
	return cuMemcpyDtoH_v2(dst, src, n);
}

CUresult cuMemcpyDtoD(CUdeviceptr_v1 dst, CUdeviceptr_v1 src, unsigned int n)
{
	return cuMemcpyDtoD_v2(dst, src, n);
}

CUresult cuMemcpyDtoA(CUarray dst, unsigned int at, CUdeviceptr_v1 src, unsigned int n)
{
	return cuMemcpyDtoA_v2(dst, at, src, n);
}

CUresult cuMemcpyAtoD(CUdeviceptr_v1 dst, CUarray src, unsigned int at, unsigned int n)
{
	return cuMemcpyAtoD_v2(dst, src, at, n);
}

CUresult cuMemcpyHtoA(CUarray dst, unsigned int at, const void *src, unsigned int n)
{
	return cuMemcpyHtoA_v2(dst, at, src, n);
}

CUresult cuMemcpyAtoH(void *dst, CUarray src, unsigned int at, unsigned int n)
{
	return cuMemcpyAtoH_v2(dst, src, at, n);
}

CUresult cuMemcpyAtoA(CUarray dst, unsigned int at, CUarray src, unsigned int from, unsigned int n)
{
	return cuMemcpyAtoA_v2(dst, at, src, from, n);
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr_v1 dst, const void *src, unsigned int n, CUstream h)
{
	return cuMemcpyHtoDAsync_v2(dst, src, n, h);
}

CUresult cuMemcpyDtoHAsync(void *dst, CUdeviceptr_v1 src, unsigned int n, CUstream h)
{
	return cuMemcpyDtoHAsync_v2(dst, src, n, h);
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr_v1 dst, CUdeviceptr_v1 src, unsigned int n, CUstream h)
{
	return cuMemcpyDtoDAsync_v2(dst, src, n, h);
}

CUresult cuMemcpyHtoAAsync(CUarray dst, unsigned int at, const void *src, unsigned int n, CUstream h)
{
	return cuMemcpyHtoAAsync_v2(dst, at, src, n, h);
}

CUresult cuMemcpyAtoHAsync(void *dst, CUarray src, unsigned int at, unsigned int n, CUstream h)
{
	return cuMemcpyAtoHAsync_v2(dst, src, at, n, h);
}

static CUDA_MEMCPY2D_v2 wide2d(const CUDA_MEMCPY2D_v1 *p)
{
	return (CUDA_MEMCPY2D_v2){
		.srcXInBytes = p->srcXInBytes,
		.srcY = p->srcY,
		.srcMemoryType = p->srcMemoryType,
		.srcHost = p->srcHost,
		.srcDevice = p->srcDevice,
		.srcArray = p->srcArray,
		.srcPitch = p->srcPitch,
		.dstXInBytes = p->dstXInBytes,
		.dstY = p->dstY,
		.dstMemoryType = p->dstMemoryType,
		.dstHost = p->dstHost,
		.dstDevice = p->dstDevice,
		.dstArray = p->dstArray,
		.dstPitch = p->dstPitch,
		.WidthInBytes = p->WidthInBytes,
		.Height = p->Height,
	};
}

CUresult cuMemcpy2D(const CUDA_MEMCPY2D_v1 *p)
{
	CUDA_MEMCPY2D_v2 w = p ? wide2d(p) : (CUDA_MEMCPY2D_v2){ 0 };

	return p ? cuMemcpy2D_v2(&w) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemcpy2DUnaligned(const CUDA_MEMCPY2D_v1 *p)
{
	return cuMemcpy2D(p);
}

CUresult cuMemcpy2DAsync(const CUDA_MEMCPY2D_v1 *p, CUstream h)
{
	CUDA_MEMCPY2D_v2 w = p ? wide2d(p) : (CUDA_MEMCPY2D_v2){ 0 };

	return p ? cuMemcpy2DAsync_v2(&w, h) : CUDA_ERROR_INVALID_VALUE;
}

static CUDA_MEMCPY3D_v2 wide3d(const CUDA_MEMCPY3D_v1 *p)
{
	return (CUDA_MEMCPY3D_v2){
		.srcXInBytes = p->srcXInBytes,
		.srcY = p->srcY,
		.srcZ = p->srcZ,
		.srcLOD = p->srcLOD,
		.srcMemoryType = p->srcMemoryType,
		.srcHost = p->srcHost,
		.srcDevice = p->srcDevice,
		.srcArray = p->srcArray,
		.srcPitch = p->srcPitch,
		.srcHeight = p->srcHeight,
		.dstXInBytes = p->dstXInBytes,
		.dstY = p->dstY,
		.dstZ = p->dstZ,
		.dstLOD = p->dstLOD,
		.dstMemoryType = p->dstMemoryType,
		.dstHost = p->dstHost,
		.dstDevice = p->dstDevice,
		.dstArray = p->dstArray,
		.dstPitch = p->dstPitch,
		.dstHeight = p->dstHeight,
		.WidthInBytes = p->WidthInBytes,
		.Height = p->Height,
		.Depth = p->Depth,
	};
}

CUresult cuMemcpy3D(const CUDA_MEMCPY3D_v1 *p)
{
	CUDA_MEMCPY3D_v2 w = p ? wide3d(p) : (CUDA_MEMCPY3D_v2){ 0 };

	return p ? cuMemcpy3D_v2(&w) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemcpy3DAsync(const CUDA_MEMCPY3D_v1 *p, CUstream h)
{
	CUDA_MEMCPY3D_v2 w = p ? wide3d(p) : (CUDA_MEMCPY3D_v2){ 0 };

	return p ? cuMemcpy3DAsync_v2(&w, h) : CUDA_ERROR_INVALID_VALUE;
}

/* ---- fills ---- */

CUresult cuMemsetD8(CUdeviceptr_v1 dst, unsigned char v, unsigned int n)
{
	return cuMemsetD8_v2(dst, v, n);
}

CUresult cuMemsetD16(CUdeviceptr_v1 dst, unsigned short v, unsigned int n)
{
	return cuMemsetD16_v2(dst, v, n);
}

CUresult cuMemsetD32(CUdeviceptr_v1 dst, unsigned int v, unsigned int n)
{
	return cuMemsetD32_v2(dst, v, n);
}

CUresult cuMemsetD2D8(CUdeviceptr_v1 dst, unsigned int pitch, unsigned char v, unsigned int width,
		      unsigned int height)
{
	return cuMemsetD2D8_v2(dst, pitch, v, width, height);
}

CUresult cuMemsetD2D16(CUdeviceptr_v1 dst, unsigned int pitch, unsigned short v, unsigned int width,
		       unsigned int height)
{
	return cuMemsetD2D16_v2(dst, pitch, v, width, height);
}

CUresult cuMemsetD2D32(CUdeviceptr_v1 dst, unsigned int pitch, unsigned int v, unsigned int width,
		       unsigned int height)
{
	return cuMemsetD2D32_v2(dst, pitch, v, width, height);
}
