/* SPDX-License-Identifier: Apache-2.0 */
/* Linear device memory, managed memory, host memory: allocation and release. */
#include "simgpu/nvidia/cuda/graph.h"
#include "simgpu/nvidia/cuda/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PITCH_BYTES 512ul

CUresult sim_memory_info(struct sim_device *d, size_t *free_bytes, size_t *total_bytes)
{
	uint64_t f = 0, t = 0;

	if (sim_driver.null) {
		uint64_t used = d->used_bytes;

		*total_bytes = d->card.mem_bytes;
		*free_bytes = used < d->card.mem_bytes ? d->card.mem_bytes - used : 0;
		return CUDA_SUCCESS;
	}

	int e = sim_mem_info(sim_driver.server, (unsigned)d->id, &f, &t);

	if (e < 0)
		return sim_result(e);
	*free_bytes = f;
	*total_bytes = t;
	return CUDA_SUCCESS;
}

CUresult sim_memory_take(struct sim_device *d, size_t bytes, uint64_t *ret_id)
{
	*ret_id = 1;
	if (sim_driver.null)
		return bytes <= d->card.mem_bytes && sim_null_charge(d, bytes) ? CUDA_SUCCESS
									       : CUDA_ERROR_OUT_OF_MEMORY;

	int e = sim_mem_take(sim_driver.server, (unsigned)d->id, bytes, ret_id);

	return e < 0 ? sim_result(e) : CUDA_SUCCESS;
}

void sim_memory_give(struct sim_device *d, size_t bytes, uint64_t id)
{
	if (sim_driver.null)
		atomic_fetch_sub(&d->used_bytes, bytes);
	else
		sim_mem_give(sim_driver.server, (unsigned)d->id, id);
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes)
{
	size_t f = 0, t = 0;
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_memory_info(ctx->device, &f, &t);
	if (r)
		return r;
	if (free_bytes)
		*free_bytes = f;
	if (total_bytes)
		*total_bytes = t;
	return CUDA_SUCCESS;
}

/* 32 bits: what does not fit is the largest that does. */
CUresult cuMemGetInfo(unsigned int *free_bytes, unsigned int *total_bytes)
{
	size_t f = 0, t = 0;
	CUresult r = cuMemGetInfo_v2(&f, &t);

	if (r)
		return r;
	if (free_bytes)
		*free_bytes = f > UINT32_MAX ? UINT32_MAX : (unsigned int)f;
	if (total_bytes)
		*total_bytes = t > UINT32_MAX ? UINT32_MAX : (unsigned int)t;
	return CUDA_SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *ret, size_t bytes)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (SIM_UNLIKELY(r))
		return r;
	if (SIM_UNLIKELY(!ret || !bytes))
		return CUDA_ERROR_INVALID_VALUE;
	r = sim_unsafe();
	return SIM_UNLIKELY(r) ? r : sim_heap_alloc(ctx, bytes, ret);
}

CUresult cuMemFree_v2(CUdeviceptr p)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (SIM_UNLIKELY(r))
		return r;
	r = sim_unsafe();
	if (r || !p)
		return r;
	if (!sim_driver.null) {
		r = sim_context_sync(ctx); /* work in flight may use it */
		if (r)
			return r;
	}
	r = sim_heap_free(p);
	return SIM_LIKELY(!r) ? r : sim_memory_free_other(ctx, p);
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *ret, size_t *pitch, size_t width, size_t height,
			    unsigned int element)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_unsafe();
	if (r)
		return r;
	if (!ret || !pitch || !width || !height || (element != 4 && element != 8 && element != 16))
		return CUDA_ERROR_INVALID_VALUE;

	size_t row = (width + PITCH_BYTES - 1) & ~(PITCH_BYTES - 1), bytes;

	if (row < width || __builtin_mul_overflow(row, height, &bytes))
		return CUDA_ERROR_OUT_OF_MEMORY;
	r = sim_heap_alloc(ctx, bytes, ret);
	if (!r)
		*pitch = row;
	return r;
}

/*
 * Its bytes are the process's own in any case, so the host may use them; on the device it takes its whole
 * size.
 */
CUresult cuMemAllocManaged(CUdeviceptr *ret, size_t bytes, unsigned int flags)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_unsafe();
	if (r)
		return r;
	if (!ret || !bytes || (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST))
		return CUDA_ERROR_INVALID_VALUE;
	return sim_heap_alloc_as(ctx, bytes, SIM_MEM_MANAGED, flags, ret);
}

/* ---- host memory ---- */

static CUresult host_alloc(void **ret, size_t bytes, unsigned int flags)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_unsafe();
	if (r)
		return r;
	if (!ret || !bytes ||
	    flags & ~(unsigned)(CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP |
				CU_MEMHOSTALLOC_WRITECOMBINED))
		return CUDA_ERROR_INVALID_VALUE;

	size_t whole = (bytes + 4095) & ~4095ul;
	void *p = whole < bytes
			  ? MAP_FAILED
			  : mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return CUDA_ERROR_OUT_OF_MEMORY;

	struct sim_range range = { .base = (uintptr_t)p,
				   .bytes = whole,
				   .kind = SIM_MEM_HOST,
				   .device = ctx->device,
				   .ctx = ctx->root,
				   .flags = flags };

	if (sim_range_add(&range) < 0) {
		munmap(p, whole);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*ret = p;
	return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void **ret, size_t bytes, unsigned int flags)
{
	return host_alloc(ret, bytes, flags);
}

CUresult cuMemAllocHost_v2(void **ret, size_t bytes)
{
	return host_alloc(ret, bytes, CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP);
}

CUresult cuMemAllocHost(void **ret, unsigned int bytes)
{
	return cuMemAllocHost_v2(ret, bytes);
}

CUresult cuMemFreeHost(void *p)
{
	struct sim_range range;
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_unsafe();
	if (r)
		return r;
	if (!sim_range_find((uintptr_t)p, &range) || range.kind != SIM_MEM_HOST || range.base != (uintptr_t)p)
		return CUDA_ERROR_INVALID_VALUE;
	sim_context_sync(ctx); /* work in flight may read it */
	if (!sim_range_remove((uintptr_t)p, &range))
		return CUDA_ERROR_INVALID_VALUE;
	munmap(p, range.bytes);
	return CUDA_SUCCESS;
}

CUresult cuMemHostRegister_v2(void *p, size_t bytes, unsigned int flags)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_unsafe();
	if (r)
		return r;
	if (!p || !bytes ||
	    flags & ~(unsigned)(CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP |
				CU_MEMHOSTREGISTER_IOMEMORY | CU_MEMHOSTREGISTER_READ_ONLY))
		return CUDA_ERROR_INVALID_VALUE;
	if (flags & CU_MEMHOSTREGISTER_READ_ONLY)
		return CUDA_ERROR_NOT_SUPPORTED;

	struct sim_range range = { .base = (uintptr_t)p,
				   .bytes = bytes,
				   .kind = SIM_MEM_REGISTERED,
				   .device = ctx->device,
				   .ctx = ctx->root,
				   .flags = flags };
	int e = sim_range_add(&range);

	return e == -EEXIST ? CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED
	       : e          ? CUDA_ERROR_OUT_OF_MEMORY
			    : CUDA_SUCCESS;
}

CUresult cuMemHostRegister(void *p, size_t bytes, unsigned int flags)
{
	return cuMemHostRegister_v2(p, bytes, flags);
}

CUresult cuMemHostUnregister(void *p)
{
	struct sim_range range;
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_unsafe();
	if (r)
		return r;
	if (!sim_range_find((uintptr_t)p, &range) || range.kind != SIM_MEM_REGISTERED ||
	    range.base != (uintptr_t)p)
		return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
	sim_context_sync(ctx);
	sim_range_remove((uintptr_t)p, NULL);
	return CUDA_SUCCESS;
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *ret, void *p, unsigned int flags)
{
	struct sim_range range;
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (r)
		return r;
	if (!ret || !p || flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (!sim_find((uintptr_t)p, &range) ||
	    (range.kind != SIM_MEM_HOST && range.kind != SIM_MEM_REGISTERED))
		return CUDA_ERROR_INVALID_VALUE;
	*ret = (uintptr_t)p;
	return CUDA_SUCCESS;
}

CUresult cuMemHostGetFlags(unsigned int *flags, void *p)
{
	struct sim_range range;
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (r)
		return r;
	if (!flags || !sim_range_find((uintptr_t)p, &range) || range.kind != SIM_MEM_HOST)
		return CUDA_ERROR_INVALID_VALUE;
	*flags = range.flags | CU_MEMHOSTALLOC_DEVICEMAP;
	return CUDA_SUCCESS;
}

/* What cuMemFree takes as well: memory of a pool, of a graph, mapped buffers of external memory. */
CUresult sim_memory_free_other(CUcontext ctx, CUdeviceptr p)
{
	struct sim_range range;

	if (sim_graph_block_free(p) || sim_ipc_free(p) || sim_external_free(p) || sim_low_free(p))
		return CUDA_SUCCESS;
	if (!sim_find(p, &range) || range.kind != SIM_MEM_POOL || range.base != p)
		return CUDA_ERROR_INVALID_VALUE;

	CUresult r = sim_pool_free(ctx->legacy, p);

	return r ? r : sim_stream_sync(ctx->legacy);
}

/* ---- a context's end ---- */

void sim_memory_context_end(CUcontext ctx)
{
	struct sim_range *list;
	size_t n = sim_range_collect(ctx, NULL, &list);

	for (size_t i = 0; i < n; i++) {
		sim_range_remove(list[i].base, NULL);
		if (list[i].kind == SIM_MEM_HOST)
			munmap((void *)list[i].base, list[i].bytes);
		else if (list[i].kind == SIM_MEM_LOW)
			sim_low_release(&list[i]);
	}
	free(list);
	sim_heap_context_end(ctx);
}
