/* SPDX-License-Identifier: Apache-2.0 */
/* Devices: identity, attributes, what peers can do with each other. Figures come from the card file. */
#include "simgpu/nvidia/cuda/drv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

CUresult sim_device_get(CUdevice id, struct sim_device **ret)
{
	if (SIM_UNLIKELY(sim_driver.state != SIM_STATE_READY))
		return CUDA_ERROR_NOT_INITIALIZED;
	if (id < 0 || id >= sim_driver.devices)
		return CUDA_ERROR_INVALID_DEVICE;
	*ret = &sim_driver.device[id];
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count)
{
	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!count)
		return CUDA_ERROR_INVALID_VALUE;
	*count = sim_driver.devices;
	return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
	struct sim_device *d;
	CUresult r = sim_device_get(ordinal, &d);

	if (!r && !device)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*device = d->id;
	return r;
}

CUresult cuDeviceGetName(char *name, int len, CUdevice device)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (!name || len <= 0)
		return CUDA_ERROR_INVALID_VALUE;
	snprintf(name, (size_t)len, "%s", d->card.name);
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (!uuid)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(uuid->bytes, d->card.uuid, sizeof(uuid->bytes));
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device)
{
	return cuDeviceGetUuid(uuid, device);
}

CUresult cuDeviceGetPCIBusId(char *text, int len, CUdevice device)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (!text || len < 13)   /* "0000:01:00.0" and its end */
		return CUDA_ERROR_INVALID_VALUE;
	snprintf(text, (size_t)len, "%04x:%02x:%02x.0", d->card.pci_domain, d->card.pci_bus,
		 d->card.pci_device);
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetByPCIBusId(CUdevice *device, const char *text)
{
	unsigned domain = 0, bus, slot, function = 0;

	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!device || !text)
		return CUDA_ERROR_INVALID_VALUE;
	if (sscanf(text, "%x:%x:%x.%x", &domain, &bus, &slot, &function) < 3) {
		domain = 0;
		if (sscanf(text, "%x:%x.%x", &bus, &slot, &function) < 2)
			return CUDA_ERROR_INVALID_VALUE;
	}
	for (int i = 0; i < sim_driver.devices; i++) {
		const struct sim_card *c = &sim_driver.device[i].card;

		if (c->pci_domain == domain && c->pci_bus == bus && c->pci_device == slot && function == 0) {
			*device = i;
			return CUDA_SUCCESS;
		}
	}
	return CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (!r && !bytes)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*bytes = d->card.mem_bytes;
	return r;
}

/* 32 bits: what does not fit is the largest that does. */
CUresult cuDeviceTotalMem(unsigned int *bytes, CUdevice device)
{
	size_t all;
	CUresult r = cuDeviceTotalMem_v2(&all, device);

	if (!r && !bytes)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*bytes = all > UINT32_MAX ? UINT32_MAX : (unsigned int)all;
	return r;
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (!major || !minor)
		return CUDA_ERROR_INVALID_VALUE;
	*major = (int)d->card.cc_major;
	*minor = (int)d->card.cc_minor;
	return CUDA_SUCCESS;
}

/* Values that do not depend on the card, as NVIDIA documents them for all or for most capabilities. */
static bool fixed_attribute(CUdevice_attribute a, int *v)
{
	static const int table[][2] = {
		{ CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024 },
		{ CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X, 1024 },
		{ CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y, 1024 },
		{ CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z, 64 },
		{ CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, INT32_MAX },
		{ CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y, 65535 },
		{ CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z, 65535 },
		{ CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 49152 },
		{ CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY, 65536 },
		{ CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32 },
		{ CU_DEVICE_ATTRIBUTE_MAX_PITCH, INT32_MAX },
		{ CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK, 65536 },
		{ CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT, 512 },
		{ CU_DEVICE_ATTRIBUTE_GPU_OVERLAP, 1 },
		{ CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 1 },
		{ CU_DEVICE_ATTRIBUTE_SURFACE_ALIGNMENT, 512 },
		{ CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS, 1 },
		{ CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1 },
		{ CU_DEVICE_ATTRIBUTE_TEXTURE_PITCH_ALIGNMENT, 32 },
		{ CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED, 1 },
		{ CU_DEVICE_ATTRIBUTE_GLOBAL_L1_CACHE_SUPPORTED, 1 },
		{ CU_DEVICE_ATTRIBUTE_LOCAL_L1_CACHE_SUPPORTED, 1 },
		{ CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 1 },
		{ CU_DEVICE_ATTRIBUTE_SINGLE_TO_DOUBLE_PRECISION_PERF_RATIO, 32 },
		{ CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS, 1 },
		{ CU_DEVICE_ATTRIBUTE_COMPUTE_PREEMPTION_SUPPORTED, 1 },
		{ CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, 1 },
		{ CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_MEM_OPS_V1, 1 },
		{ CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS_V1, 1 },
		{ CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR_V1, 1 },
		{ CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH, 1 },
		{ CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED, 1 },
		{ CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 1 },
		{ CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, 1 },
		{ CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK, 0 },
		{ CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED, 0 },
		{ CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1 },
		{ CU_DEVICE_ATTRIBUTE_MEMPOOL_SUPPORTED_HANDLE_TYPES, 1 },
		{ CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS, 1 },
		{ CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR, 1 },
		{ CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED, 1 },
		{ CU_DEVICE_ATTRIBUTE_MEM_SYNC_DOMAIN_COUNT, 1 },
		{ CU_DEVICE_ATTRIBUTE_UNIFIED_FUNCTION_POINTERS, 0 },
		{ CU_DEVICE_ATTRIBUTE_NUMA_ID, -1 },
		{ CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID, -1 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_WIDTH, 131072 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_WIDTH, 131072 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_HEIGHT, 65536 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_WIDTH, 16384 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_HEIGHT, 16384 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_DEPTH, 16384 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_WIDTH, 32768 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_HEIGHT, 32768 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_LAYERS, 2048 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LAYERED_WIDTH, 32768 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LAYERED_LAYERS, 2048 },
		{ CU_DEVICE_ATTRIBUTE_CAN_TEX2D_GATHER, 1 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_GATHER_WIDTH, 32768 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_GATHER_HEIGHT, 32768 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_WIDTH_ALTERNATE, 8192 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_HEIGHT_ALTERNATE, 8192 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_DEPTH_ALTERNATE, 32768 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_WIDTH, 32768 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_WIDTH, 32768 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_LAYERS, 2046 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE1D_WIDTH, 32768 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE2D_WIDTH, 131072 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE2D_HEIGHT, 65536 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE3D_WIDTH, 16384 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE3D_HEIGHT, 16384 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE3D_DEPTH, 16384 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE1D_LAYERED_WIDTH, 32768 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE1D_LAYERED_LAYERS, 2048 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE2D_LAYERED_WIDTH, 32768 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE2D_LAYERED_HEIGHT, 32768 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE2D_LAYERED_LAYERS, 2048 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACECUBEMAP_WIDTH, 32768 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACECUBEMAP_LAYERED_WIDTH, 32768 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACECUBEMAP_LAYERED_LAYERS, 2046 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LINEAR_WIDTH, 268435456 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LINEAR_WIDTH, 131072 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LINEAR_HEIGHT, 65000 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LINEAR_PITCH, 2097120 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_MIPMAPPED_WIDTH, 32768 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_MIPMAPPED_HEIGHT, 32768 },
		{ CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_MIPMAPPED_WIDTH, 32768 },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++)
		if (table[i][0] == (int)a) {
			*v = table[i][1];
			return true;
		}
	return false;
}

static bool card_attribute(CUdevice_attribute a, const struct sim_card *c, int *v)
{
	switch (a) {
	case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
		return *v = (int)c->clock_khz, true;
	case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
		return *v = (int)c->units, true;
	case CU_DEVICE_ATTRIBUTE_INTEGRATED:
	case CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES:
	case CU_DEVICE_ATTRIBUTE_HOST_NATIVE_ATOMIC_SUPPORTED:
		return *v = c->integrated, true;
	case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
		return *v = (int)c->pci_bus, true;
	case CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID:
		return *v = (int)c->pci_device, true;
	case CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID:
		return *v = (int)c->pci_domain, true;
	case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE:
		return *v = (int)c->mem_clock_khz, true;
	case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH:
		return *v = (int)c->mem_bus_bits, true;
	case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
		return *v = (int)c->l2_bytes, true;
	case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR:
		return *v = (int)c->threads_per_unit, true;
	case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT:
		return *v = (int)c->copy_engines, true;
	case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
		return *v = (int)c->cc_major, true;
	case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
		return *v = (int)c->cc_minor, true;
	case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
		return *v = (int)c->smem_per_unit, true;
	case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR:
		return *v = (int)c->regs_per_unit, true;
	case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
		return *v = (int)c->smem_per_block_optin, true;
	case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR:
		return *v = (int)c->blocks_per_unit, true;
	case CU_DEVICE_ATTRIBUTE_MAX_PERSISTING_L2_CACHE_SIZE:
		return *v = c->cc_major >= 8 ? (int)(c->l2_bytes / 4 * 3) : 0, true;
	case CU_DEVICE_ATTRIBUTE_MAX_ACCESS_POLICY_WINDOW_SIZE:
		return *v = c->cc_major >= 8 ? 134213632 : 0, true;
	case CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH:
		return *v = c->cc_major >= 9, true;
	case CU_DEVICE_ATTRIBUTE_MPS_ENABLED:
		return *v = strcmp(c->mode, "concurrent") == 0, true;
	default:
		return false;
	}
}

CUresult cuDeviceGetAttribute(int *v, CUdevice_attribute a, CUdevice device)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (!v || a == 0 || a > CU_DEVICE_ATTRIBUTE_ONLY_PARTIAL_HOST_NATIVE_ATOMIC_SUPPORTED)
		return CUDA_ERROR_INVALID_VALUE;
	/* Attributes that came after 12.2 are unknown to an older driver. */
	if (a > CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID && sim_cuda_version < 12030)
		return CUDA_ERROR_INVALID_VALUE;
	if (a > CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH && sim_cuda_version < 11070)
		return CUDA_ERROR_INVALID_VALUE;
	if (!fixed_attribute(a, v) && !card_attribute(a, &d->card, v))
		*v = 0;   /* what this device does not have */
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetProperties(CUdevprop_v1 *p, CUdevice device)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	*p = (CUdevprop_v1){
		.maxThreadsPerBlock = 1024, .maxThreadsDim = { 1024, 1024, 64 },
		.maxGridSize = { INT32_MAX, 65535, 65535 }, .sharedMemPerBlock = 49152, .totalConstantMemory = 65536,
		.SIMDWidth = 32, .memPitch = INT32_MAX, .regsPerBlock = 65536,
		.clockRate = (int)d->card.clock_khz, .textureAlign = 512,
	};
	return CUDA_SUCCESS;
}

CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer)
{
	struct sim_device *d, *p;
	CUresult r = sim_device_get(device, &d);

	if (!r)
		r = sim_device_get(peer, &p);
	if (!r && !can)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*can = d != p;
	return r;
}

CUresult cuDeviceGetP2PAttribute(int *v, CUdevice_P2PAttribute a, CUdevice device, CUdevice peer)
{
	struct sim_device *d, *p;
	CUresult r = sim_device_get(device, &d);

	if (!r)
		r = sim_device_get(peer, &p);
	if (r)
		return r;
	if (!v || d == p || a == 0 || a > CU_DEVICE_P2P_ATTRIBUTE_ONLY_PARTIAL_NATIVE_ATOMIC_SUPPORTED)
		return CUDA_ERROR_INVALID_VALUE;
	*v = a == CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED ||
	     a == CU_DEVICE_P2P_ATTRIBUTE_CUDA_ARRAY_ACCESS_SUPPORTED;
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetExecAffinitySupport(int *yes, CUexecAffinityType type, CUdevice device)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (!yes || type != CU_EXEC_AFFINITY_TYPE_SM_COUNT)
		return CUDA_ERROR_INVALID_VALUE;
	*yes = d->card.cc_major >= 7 && strcmp(d->card.mode, "concurrent") == 0;   /* an MPS client's alone */
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetTexture1DLinearMaxWidth(size_t *width, CUarray_format format, unsigned int channels,
					    CUdevice device)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	(void)format;
	if (r)
		return r;
	if (!width || channels == 0 || channels > 4)
		return CUDA_ERROR_INVALID_VALUE;
	*width = 268435456 / channels;
	return CUDA_SUCCESS;
}

/* No atomic operation of the device's is native on the host's memory, or a peer's, over PCIe. */
static CUresult no_atomics(unsigned int *capabilities, const CUatomicOperation *operations, unsigned int n)
{
	if (!capabilities || !operations || !n)
		return CUDA_ERROR_INVALID_VALUE;
	memset(capabilities, 0, n * sizeof(*capabilities));
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetHostAtomicCapabilities(unsigned int *capabilities, const CUatomicOperation *operations,
					   unsigned int n, CUdevice device)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	return r ? r : no_atomics(capabilities, operations, n);
}

CUresult cuDeviceGetP2PAtomicCapabilities(unsigned int *capabilities, const CUatomicOperation *operations,
					  unsigned int n, CUdevice device, CUdevice peer)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (!r)
		r = sim_device_get(peer, &d);
	return r ? r : no_atomics(capabilities, operations, n);
}

CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!mode)
		return CUDA_ERROR_INVALID_VALUE;
	*mode = CU_MODULE_LAZY_LOADING;
	return CUDA_SUCCESS;
}
