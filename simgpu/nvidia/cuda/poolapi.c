/* SPDX-License-Identifier: Apache-2.0 */
/* The entry points of memory pools. */
#include "simgpu/nvidia/cuda/graph.h"
#include "simgpu/nvidia/cuda/mem.h"

static CUresult check(CUmemoryPool p)
{
	CUresult r = sim_ready();

	return r ? r : p && p->tag == SIM_TAG_POOL && !p->dead ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- a device's ---- */

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *ret, CUdevice device)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (!ret)
		return CUDA_ERROR_INVALID_VALUE;
	*ret = sim_pool_standard(d);
	return *ret ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuDeviceGetMemPool(CUmemoryPool *ret, CUdevice device)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (!ret)
		return CUDA_ERROR_INVALID_VALUE;
	*ret = sim_pool_current(d);
	return *ret ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuDeviceSetMemPool(CUdevice device, CUmemoryPool p)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (!r)
		r = check(p);
	if (!r && p->device != d)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		d->current = p;
	return r;
}

/* The same by location and kind, since 13.0: of pinned device memory, which is all there is here. */
static CUresult located(const CUmemLocation *at, CUmemAllocationType type, CUdevice *ret)
{
	if (!at)
		return CUDA_ERROR_INVALID_VALUE;
	if (at->type != CU_MEM_LOCATION_TYPE_DEVICE || type != CU_MEM_ALLOCATION_TYPE_PINNED)
		return CUDA_ERROR_NOT_SUPPORTED;
	*ret = at->id;
	return CUDA_SUCCESS;
}

CUresult cuMemGetDefaultMemPool(CUmemoryPool *ret, CUmemLocation *at, CUmemAllocationType type)
{
	CUdevice d;
	CUresult r = located(at, type, &d);

	return r ? r : cuDeviceGetDefaultMemPool(ret, d);
}

CUresult cuMemGetMemPool(CUmemoryPool *ret, CUmemLocation *at, CUmemAllocationType type)
{
	CUdevice d;
	CUresult r = located(at, type, &d);

	return r ? r : cuDeviceGetMemPool(ret, d);
}

CUresult cuMemSetMemPool(CUmemLocation *at, CUmemAllocationType type, CUmemoryPool p)
{
	CUdevice d;
	CUresult r = located(at, type, &d);

	return r ? r : cuDeviceSetMemPool(d, p);
}

/* ---- life ---- */

CUresult cuMemPoolCreate(CUmemoryPool *ret, const CUmemPoolProps_v1 *props)
{
	struct sim_device *d;

	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!ret || !props)
		return CUDA_ERROR_INVALID_VALUE;
	if (props->allocType != CU_MEM_ALLOCATION_TYPE_PINNED ||
	    props->location.type != CU_MEM_LOCATION_TYPE_DEVICE)
		return CUDA_ERROR_NOT_SUPPORTED;
	if (props->handleTypes & ~(unsigned)CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
		return CUDA_ERROR_NOT_SUPPORTED;

	CUresult r = sim_device_get(props->location.id, &d);

	return r ? r : sim_pool_create(d, props, ret);
}

CUresult cuMemPoolDestroy(CUmemoryPool p)
{
	CUresult r = check(p);

	if (!r && p->standard)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		sim_pool_destroy(p);
	return r;
}

CUresult cuMemPoolTrimTo(CUmemoryPool p, size_t keep)
{
	CUresult r = check(p);

	if (!r)
		sim_pool_trim(p, keep);
	return r;
}

/* ---- attributes ---- */

CUresult cuMemPoolSetAttribute(CUmemoryPool p, CUmemPool_attribute a, void *v)
{
	CUresult r = check(p);

	if (r)
		return r;
	if (!v)
		return CUDA_ERROR_INVALID_VALUE;
	switch (a) {
	case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
	case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
	case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
		p->reuse[a - CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES] = *(int *)v != 0;
		return CUDA_SUCCESS;
	case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
		p->threshold = *(uint64_t *)v;
		if (p->reserved > p->threshold)
			p->device->keeps = true;
		return CUDA_SUCCESS;
	case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
	case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
		if (*(uint64_t *)v != 0)
			return CUDA_ERROR_INVALID_VALUE;
		if (a == CU_MEMPOOL_ATTR_USED_MEM_HIGH)
			p->used_high = p->used;
		else
			p->reserved_high = p->reserved;
		return CUDA_SUCCESS;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
}

CUresult cuMemPoolGetAttribute(CUmemoryPool p, CUmemPool_attribute a, void *v)
{
	CUresult r = check(p);

	if (r)
		return r;
	if (!v)
		return CUDA_ERROR_INVALID_VALUE;
	switch (a) {
	case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
	case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
	case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
		*(int *)v = (int)p->reuse[a - CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES];
		return CUDA_SUCCESS;
	case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
		*(uint64_t *)v = p->threshold;
		return CUDA_SUCCESS;
	case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
		*(uint64_t *)v = p->reserved;
		return CUDA_SUCCESS;
	case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
		*(uint64_t *)v = p->reserved_high;
		return CUDA_SUCCESS;
	case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
		*(uint64_t *)v = p->used;
		return CUDA_SUCCESS;
	case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
		*(uint64_t *)v = p->used_high;
		return CUDA_SUCCESS;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
}

CUresult cuMemPoolSetAccess(CUmemoryPool p, const CUmemAccessDesc_v1 *map, size_t n)
{
	CUresult r = check(p);

	if (!r && n && !map)
		r = CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < n && !r; i++) {
		struct sim_device *d;

		if (map[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE)
			return CUDA_ERROR_INVALID_VALUE;
		r = sim_device_get(map[i].location.id, &d);
		if (r)
			break;
		if (map[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
			p->access |= 1u << d->id;
		else if (d == p->device)
			return CUDA_ERROR_INVALID_VALUE; /* not taken from the one that it lies on */
		else
			p->access &= ~(1u << d->id);
	}
	return r;
}

CUresult cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool p, CUmemLocation_v1 *at)
{
	struct sim_device *d;
	CUresult r = check(p);

	if (r)
		return r;
	if (!flags || !at || at->type != CU_MEM_LOCATION_TYPE_DEVICE)
		return CUDA_ERROR_INVALID_VALUE;
	r = sim_device_get(at->id, &d);
	if (!r)
		*flags = p->access & 1u << d->id ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
						 : CU_MEM_ACCESS_FLAGS_PROT_NONE;
	return r;
}

/* ---- allocation ---- */

static CUresult capture_alloc(CUstream s, CUmemoryPool pool, size_t bytes, CUdeviceptr *ret)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_MEM_ALLOC,
				.alloc = { .poolProps = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
							  .location = pool->location },
					   .bytesize = bytes } };
	CUresult r = sim_capture_node(s, &p, NULL);

	if (!r)
		*ret = p.alloc.dptr;
	return r;
}

static CUresult capture_free(CUstream s, CUdeviceptr at)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_MEM_FREE, .free = { at } };

	return sim_capture_node(s, &p, NULL);
}

static CUresult alloc(CUdeviceptr *ret, size_t bytes, CUmemoryPool p, bool from_pool, CUstream h,
		      bool per_thread)
{
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_stream_get(ctx, h, per_thread, &s);
	if (r)
		return r;
	if (!ret || !bytes)
		return CUDA_ERROR_INVALID_VALUE;
	if (!from_pool)
		p = sim_pool_current(s->ctx->device);
	r = check(p);
	if (!r && p->imported)
		r = CUDA_ERROR_NOT_PERMITTED;
	if (r)
		return r;
	return SIM_UNLIKELY(s->capture != NULL) ? capture_alloc(s, p, bytes, ret)
						: sim_pool_alloc(p, s, bytes, ret);
}

SIM_PAIR(cuMemAllocAsync, _ptsz, (CUdeviceptr * ret, size_t bytes, CUstream h),
	 return alloc(ret, bytes, NULL, false, h, per_thread);)
SIM_PAIR(cuMemAllocFromPoolAsync, _ptsz, (CUdeviceptr * ret, size_t bytes, CUmemoryPool p, CUstream h),
	 return alloc(ret, bytes, p, true, h, per_thread);)

/* Also for memory of cuMemAlloc: it goes as cuMemFree would let it go, but behind the stream. */
static CUresult free_async(CUdeviceptr p, CUstream h, bool per_thread)
{
	struct sim_range range;
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_stream_get(ctx, h, per_thread, &s);
	if (r)
		return r;
	if (SIM_UNLIKELY(s->capture != NULL))
		return capture_free(s, p);
	if (SIM_UNLIKELY(sim_graph_block_is(p)))
		return sim_graph_block_free(p) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	r = sim_pool_free(s, p);
	if (r != CUDA_ERROR_INVALID_VALUE)
		return r;
	if (!sim_find(p, &range) || range.base != p)
		return CUDA_ERROR_INVALID_VALUE;
	r = sim_stream_sync(s);
	return r ? r : sim_ipc_free(p) ? CUDA_SUCCESS : sim_heap_free(p);
}

SIM_PAIR(cuMemFreeAsync, _ptsz, (CUdeviceptr p, CUstream h), return free_async(p, h, per_thread);)
