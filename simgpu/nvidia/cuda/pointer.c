/* SPDX-License-Identifier: Apache-2.0 */
/* Questions about an address. */
#include "simgpu/nvidia/cuda/mem.h"

#include <string.h>

bool sim_find(CUdeviceptr p, struct sim_range *ret)
{
	return sim_heap_find(p, ret) || sim_range_find(p, ret);
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr p)
{
	struct sim_range range;
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (r)
		return r;
	if (!sim_find(p, &range))
		return CUDA_ERROR_NOT_FOUND;
	if (base)
		*base = range.base;
	if (bytes)
		*bytes = range.bytes;
	return CUDA_SUCCESS;
}

static bool on_host(const struct sim_range *r)
{
	return r->kind == SIM_MEM_HOST || r->kind == SIM_MEM_REGISTERED;
}

static CUresult attribute(void *v, CUpointer_attribute a, CUdeviceptr p, const struct sim_range *r)
{
	switch (a) {
	case CU_POINTER_ATTRIBUTE_CONTEXT:
		*(CUcontext *)v = r->ctx;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
		*(CUmemorytype *)v = on_host(r) ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
		*(CUdeviceptr *)v = p;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_HOST_POINTER:
		if (!on_host(r) && r->kind != SIM_MEM_MANAGED)
			return CUDA_ERROR_INVALID_VALUE;
		*(void **)v = (void *)p;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
	case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
	case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
		*(unsigned int *)v = 0;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_BUFFER_ID:
	case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
		*(unsigned long long *)v = r->id;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_IS_MANAGED:
		*(unsigned int *)v = r->kind == SIM_MEM_MANAGED;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
		*(int *)v = r->device ? r->device->id : -1;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
		*(unsigned int *)v = r->kind == SIM_MEM_DEVICE;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
	case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
		*(CUdeviceptr *)v = r->base;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
	case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
		*(size_t *)v = r->bytes;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_MAPPED:
		*(unsigned int *)v = 1;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
		*(unsigned long long *)v =
			r->kind == SIM_MEM_MAPPED ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR : 0;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
		*(unsigned int *)v = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
		*(CUmemoryPool *)v = r->kind == SIM_MEM_POOL ? r->object : NULL;
		return CUDA_SUCCESS;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
}

CUresult cuPointerGetAttribute(void *v, CUpointer_attribute a, CUdeviceptr p)
{
	struct sim_range range;

	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!v || !p || !sim_find(p, &range))
		return CUDA_ERROR_INVALID_VALUE;
	return attribute(v, a, p, &range);
}

/* What does not apply, or an address that is nobody's, gives zero and no error. */
CUresult cuPointerGetAttributes(unsigned int n, CUpointer_attribute *a, void **v, CUdeviceptr p)
{
	struct sim_range range;

	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!a || !v || !n)
		return CUDA_ERROR_INVALID_VALUE;

	bool known = sim_find(p, &range);

	for (unsigned int i = 0; i < n; i++) {
		if (a[i] == 0 || a[i] > CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE)
			return CUDA_ERROR_INVALID_VALUE;
		if (known && !attribute(v[i], a[i], p, &range))
			continue;
		switch (a[i]) { /* by its size */
		case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
			*(int *)v[i] = -2;
			break;
		case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
		case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
		case CU_POINTER_ATTRIBUTE_IS_MANAGED:
		case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
		case CU_POINTER_ATTRIBUTE_MAPPED:
		case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
		case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
		case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
			*(unsigned int *)v[i] = 0;
			break;
		default:
			*(unsigned long long *)v[i] = 0;
		}
	}
	return CUDA_SUCCESS;
}

CUresult cuPointerSetAttribute(const void *v, CUpointer_attribute a, CUdeviceptr p)
{
	struct sim_range range;

	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!v || a != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS || !sim_find(p, &range))
		return CUDA_ERROR_INVALID_VALUE;
	return CUDA_SUCCESS;
}
