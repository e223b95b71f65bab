/* SPDX-License-Identifier: Apache-2.0 */
/* Device memory, pools, virtual memory management, arrays, managed and host memory: what is there, what is counted, what is full. */
#include "cu.h"

#include <sys/mman.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define PAGE (2 * MIB)

/* A card gives pages; in the zero-cost mode bytes are counted. */
static void taken(size_t before, size_t bytes, size_t pages)
{
	assert_int_equal(before - cu_free_bytes(), cu_null() ? bytes : pages * PAGE);
}

static void test_packing(void **state)
{
	size_t before = cu_free_bytes();
	CUdeviceptr p[100], base;
	size_t bytes;

	(void)state;
	for (int i = 0; i < 100; i++) {
		OK(cuMemAlloc_v2(&p[i], 1000));
		assert_int_equal(p[i] % 256, 0);
		for (int k = 0; k < i; k++)
			assert_true(p[i] >= p[k] + 1000 || p[k] >= p[i] + 1000);
	}
	taken(before, 100 * 1024, 1);   /* small blocks share a page */
	OK(cuMemGetAddressRange_v2(&base, &bytes, p[7] + 999));
	assert_int_equal(base, p[7]);
	assert_true(bytes >= 1000 && bytes <= 1024);
	for (int i = 0; i < 100; i++)
		OK(cuMemFree_v2(p[i]));
	assert_int_equal(cu_free_bytes(), before);
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMemFree_v2(p[0]));   /* twice */
	FAILS(CUDA_ERROR_NOT_FOUND, cuMemGetAddressRange_v2(&base, &bytes, p[7]));
	OK(cuMemAlloc_v2(&p[0], 3 * MIB));
	taken(before, 3 * MIB, 2);
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMemFree_v2(p[0] + 512));
	OK(cuMemFree_v2(p[0]));
	OK(cuMemFree_v2(0));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMemAlloc_v2(&p[0], 0));
}

static void test_pitch(void **state)
{
	size_t before = cu_free_bytes(), pitch;
	CUdeviceptr p;

	(void)state;
	OK(cuMemAllocPitch_v2(&p, &pitch, 1000, 5000, 4));
	assert_true(pitch >= 1000 && pitch % 512 == 0);
	taken(before, pitch * 5000, (pitch * 5000 + PAGE - 1) / PAGE);
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMemAllocPitch_v2(&p, &pitch, 1000, 1, 3));
	OK(cuMemFree_v2(p));
}

static void test_exhaustion(void **state)
{
	CUdeviceptr p[64];
	size_t before = cu_free_bytes();
	CUresult r = CUDA_SUCCESS;
	int n = 0;

	(void)state;
	while (n < 64 && !r) {
		r = cu.cuMemAlloc_v2(&p[n], 1024 * MIB);
		n += !r;
	}
	assert_int_equal(r, CUDA_ERROR_OUT_OF_MEMORY);
	assert_int_equal(n, before / (1024 * MIB));
	/* What is left can still be had, and it is an error of the call alone. */
	if (cu_free_bytes())
		OK(cuMemAlloc_v2(&p[n++], cu_free_bytes()));
	assert_int_equal(cu_free_bytes(), 0);
	FAILS(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc_v2(&p[63], 1));
	OK(cuCtxSynchronize());
	for (int i = 0; i < n; i++)
		OK(cuMemFree_v2(p[i]));
	assert_int_equal(cu_free_bytes(), before);
	FAILS(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc_v2(&p[0], SIZE_MAX / 2));
}

static uint64_t pool_get(CUmemoryPool pool, CUmemPool_attribute a)
{
	uint64_t v = 0;

	OK(cuMemPoolGetAttribute(pool, a, &v));
	return v;
}

static void test_pool(void **state)
{
	size_t before = cu_free_bytes();
	uint64_t keep = UINT64_MAX, zero = 0;
	CUmemoryPool pool;
	CUdeviceptr p, q;
	CUstream s;
	int in = 7, out = 0;

	(void)state;
	OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	OK(cuDeviceGetDefaultMemPool(&pool, cu_device));
	OK(cuMemAllocAsync(&p, 100 * MIB, s));
	OK(cuMemcpyHtoDAsync_v2(p, &in, 4, s));
	OK(cuMemcpyDtoHAsync_v2(&out, p, 4, s));
	assert_int_equal(pool_get(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 100 * MIB);
	uint64_t reserved = pool_get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT);
	assert_true(reserved >= 100 * MIB && reserved <= 128 * MIB);
	assert_int_equal(before - cu_free_bytes(), reserved);
	OK(cuMemFreeAsync(p, s));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMemFreeAsync(p, s));
	assert_int_equal(pool_get(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 0);
	/* It stays with the pool until a synchronization finds more than the threshold, which is 0. */
	assert_int_equal(pool_get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), reserved);
	OK(cuStreamSynchronize(s));
	assert_int_equal(out, 7);
	assert_int_equal(pool_get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), 0);
	assert_int_equal(cu_free_bytes(), before);
	OK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keep));
	OK(cuMemAllocAsync(&p, 10 * MIB, s));
	OK(cuMemFreeAsync(p, s));
	OK(cuStreamSynchronize(s));
	reserved = pool_get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT);
	assert_true(reserved >= 10 * MIB);
	OK(cuMemAllocAsync(&p, 10 * MIB, s));   /* the same again: nothing more is taken */
	assert_int_equal(pool_get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), reserved);
	OK(cuMemPoolTrimTo(pool, 0));
	assert_true(pool_get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) >= 10 * MIB);   /* it is in use */
	OK(cuMemFree_v2(p));
	OK(cuMemPoolTrimTo(pool, 0));
	assert_int_equal(pool_get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), 0);
	assert_true(pool_get(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH) >= 100 * MIB);
	OK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &zero));
	assert_int_equal(pool_get(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH), 0);
	OK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &zero));
	/* Memory of cuMemAlloc may go in a stream's order too. */
	OK(cuMemAlloc_v2(&q, 100));
	OK(cuMemFreeAsync(q, s));
	OK(cuStreamDestroy_v2(s));
	assert_int_equal(cu_free_bytes(), before);
}

static void test_own_pool(void **state)
{
	CUmemPoolProps_v1 props = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { CU_MEM_LOCATION_TYPE_DEVICE, cu_device } };
	size_t before = cu_free_bytes();
	CUmemoryPool pool, now, standard;
	CUdeviceptr p;

	(void)state;
	OK(cuMemPoolCreate(&pool, &props));
	OK(cuMemAllocFromPoolAsync(&p, MIB, pool, NULL));
	OK(cuPointerGetAttribute(&now, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, p));
	assert_ptr_equal(now, pool);
	OK(cuDeviceSetMemPool(cu_device, pool));
	OK(cuDeviceGetMemPool(&now, cu_device));
	assert_ptr_equal(now, pool);
	/* A pool that is destroyed lives on with its last block, and is no longer the device's. */
	OK(cuMemPoolDestroy(pool));
	OK(cuDeviceGetMemPool(&now, cu_device));
	OK(cuDeviceGetDefaultMemPool(&standard, cu_device));
	assert_ptr_equal(now, standard);
	OK(cuMemsetD8_v2(p, 1, 16));
	OK(cuMemFreeAsync(p, NULL));
	OK(cuCtxSynchronize());
	assert_int_equal(cu_free_bytes(), before);
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMemPoolDestroy(standard));
	FAILS(CUDA_ERROR_OUT_OF_MEMORY, cuMemAllocAsync(&p, 200000 * MIB, NULL));
	OK(cuCtxSynchronize());
}

/* What was freed in another stream is reused only behind the work that used it. */
static void test_pool_order(void **state)
{
	uint64_t keep = UINT64_MAX, zero = 0;
	CUfunction spin = cu_function(cu_module(), "spin");
	unsigned us = 2000;
	void *args[] = { &us };
	CUstream a, b;
	CUmemoryPool pool;
	CUdeviceptr p, q;
	unsigned char host[64];

	(void)state;
	OK(cuDeviceGetDefaultMemPool(&pool, cu_device));
	OK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keep));
	OK(cuStreamCreate(&a, CU_STREAM_NON_BLOCKING));
	OK(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING));
	OK(cuMemAllocAsync(&p, 30 * MIB, a));
	OK(cuLaunchKernel(spin, 1, 1, 1, 32, 1, 1, 0, a, args, NULL));
	OK(cuMemsetD8Async(p, 1, 64, a));
	OK(cuMemFreeAsync(p, a));
	OK(cuMemAllocAsync(&q, 30 * MIB, b));
	OK(cuMemsetD8Async(q, 2, 64, b));
	OK(cuStreamSynchronize(a));
	OK(cuStreamSynchronize(b));
	OK(cuMemcpyDtoH_v2(host, q, sizeof(host)));
	assert_int_equal(host[63], 2);
	OK(cuMemFreeAsync(q, b));
	OK(cuStreamDestroy_v2(a));
	OK(cuStreamDestroy_v2(b));
	OK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &zero));
	OK(cuCtxSynchronize());
}

static void test_vmm(void **state)
{
	CUmemAllocationProp_v1 prop = { .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { CU_MEM_LOCATION_TYPE_DEVICE, cu_device } };
	CUmemAccessDesc_v1 access = { prop.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUmemGenericAllocationHandle_v1 h[2], again;
	size_t before = cu_free_bytes(), grain;
	unsigned long long flags;
	CUdeviceptr va;
	unsigned char v = 0;

	(void)state;
	OK(cuMemGetAllocationGranularity(&grain, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
	assert_int_equal(grain, PAGE);
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMemCreate(&h[0], grain - 1, &prop, 0));
	for (int i = 0; i < 2; i++)
		OK(cuMemCreate(&h[i], 4 * grain, &prop, 0));
	assert_int_equal(before - cu_free_bytes(), 8 * grain);
	OK(cuMemAddressReserve(&va, 16 * grain, 0, 0, 0));
	OK(cuMemMap(va, 4 * grain, 0, h[0], 0));
	OK(cuMemMap(va + 4 * grain, 4 * grain, 0, h[1], 0));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMemMap(va, 4 * grain, 0, h[1], 0));            /* something is there */
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMemMap(va + 14 * grain, 4 * grain, 0, h[1], 0));   /* beyond the range */
	OK(cuMemGetAccess(&flags, &prop.location, va));
	assert_int_equal(flags, CU_MEM_ACCESS_FLAGS_PROT_NONE);
	OK(cuMemSetAccess(va, 8 * grain, &access, 1));
	OK(cuMemGetAccess(&flags, &prop.location, va + grain));
	assert_int_equal(flags, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
	OK(cuMemsetD8_v2(va, 5, 8 * grain));
	OK(cuMemcpyDtoH_v2(&v, va + 8 * grain - 1, 1));
	assert_int_equal(v, 5);
	/* Released while it is mapped, it stays, and can be had back from the mapping. */
	OK(cuMemRelease(h[0]));
	assert_int_equal(before - cu_free_bytes(), 8 * grain);
	OK(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)(va + 100)));
	assert_int_equal(again, h[0]);
	OK(cuMemRelease(again));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMemAddressFree(va, 16 * grain));   /* still mapped */
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMemUnmap(va, grain));              /* part of a mapping */
	OK(cuMemUnmap(va, 8 * grain));
	assert_int_equal(before - cu_free_bytes(), 4 * grain);
	/* The second is unmapped and still there; mapped elsewhere it has the same bytes. */
	OK(cuMemMap(va + 8 * grain, 4 * grain, 0, h[1], 0));
	OK(cuMemSetAccess(va + 8 * grain, 4 * grain, &access, 1));
	OK(cuMemcpyDtoH_v2(&v, va + 9 * grain, 1));
	assert_int_equal(v, 5);
	OK(cuMemUnmap(va + 8 * grain, 4 * grain));
	OK(cuMemRelease(h[1]));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMemRelease(h[1]));
	OK(cuMemAddressFree(va, 16 * grain));
	assert_int_equal(cu_free_bytes(), before);
	FAILS(CUDA_ERROR_OUT_OF_MEMORY, cuMemCreate(&h[0], (cu_free_bytes() + PAGE) & ~(PAGE - 1), &prop, 0));
}

static void test_arrays(void **state)
{
	CUDA_ARRAY3D_DESCRIPTOR_v2 d = { .Width = 100, .Height = 50, .Depth = 3, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 2 }, got;
	float in[3][50][100][2], out[3][50][100][2];
	size_t before = cu_free_bytes();
	CUarray a, level;
	CUmipmappedArray m;

	(void)state;
	for (size_t i = 0; i < sizeof(in) / sizeof(float); i++)
		((float *)in)[i] = (float)i;
	memset(out, 0, sizeof(out));
	OK(cuArray3DCreate_v2(&a, &d));
	assert_true(before - cu_free_bytes() >= sizeof(in) || !cu_null());
	OK(cuArray3DGetDescriptor_v2(&got, a));
	assert_memory_equal(&got, &d, sizeof(d));
	CUDA_MEMCPY3D_v2 c = { .srcMemoryType = CU_MEMORYTYPE_HOST, .srcHost = in, .srcPitch = 800, .srcHeight = 50,
			       .dstMemoryType = CU_MEMORYTYPE_ARRAY, .dstArray = a, .WidthInBytes = 800, .Height = 50, .Depth = 3 };
	OK(cuMemcpy3D_v2(&c));
	CUDA_MEMCPY3D_v2 back = { .srcMemoryType = CU_MEMORYTYPE_ARRAY, .srcArray = a, .dstMemoryType = CU_MEMORYTYPE_HOST, .dstHost = out,
				  .dstPitch = 800, .dstHeight = 50, .WidthInBytes = 800, .Height = 50, .Depth = 3 };
	OK(cuMemcpy3D_v2(&back));
	assert_memory_equal(in, out, sizeof(in));
	/* A run of bytes over the end of a row. */
	memset(out, 0, sizeof(out));
	OK(cuMemcpyAtoH_v2(out, a, 700, 300));
	assert_memory_equal(out, (char *)in + 700, 300);
	c.WidthInBytes = 801;
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMemcpy3D_v2(&c));
	OK(cuArrayDestroy(a));
	assert_int_equal(cu_free_bytes(), before);

	d = (CUDA_ARRAY3D_DESCRIPTOR_v2){ .Width = 64, .Height = 64, .Format = CU_AD_FORMAT_UNSIGNED_INT8, .NumChannels = 4 };
	OK(cuMipmappedArrayCreate(&m, &d, 3));
	OK(cuMipmappedArrayGetLevel(&level, m, 2));
	OK(cuArray3DGetDescriptor_v2(&got, level));
	assert_int_equal(got.Width, 16);
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMipmappedArrayGetLevel(&level, m, 3));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuArrayDestroy(level));   /* it is the mipmap's */
	OK(cuMipmappedArrayDestroy(m));
	d.Width = 0;
	FAILS(CUDA_ERROR_INVALID_VALUE, cuArray3DCreate_v2(&a, &d));
	assert_int_equal(cu_free_bytes(), before);
}

/* Objects for kernels that look at arrays: numbers, which know what they were made of. */
static void test_textures(void **state)
{
	/* CUDA_RESOURCE_DESC as far as it says "this array", and a texture description of zeros. */
	uint64_t resource[18] = { 0 }, back[18], texture[13] = { 0 };
	CUDA_ARRAY3D_DESCRIPTOR_v2 d = { .Width = 64, .Height = 64, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1 };
	CUtexObject_v1 t, s;
	CUarray a;

	(void)state;
	OK(cuArray3DCreate_v2(&a, &d));
	resource[1] = (uintptr_t)a;
	OK(cuTexObjectCreate(&t, (void *)resource, (void *)texture, NULL));
	OK(cuTexObjectGetResourceDesc((void *)back, t));
	assert_memory_equal(back, resource, sizeof(back));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuTexObjectGetResourceViewDesc((void *)back, t));
	OK(cuSurfObjectCreate(&s, (void *)resource));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuTexObjectDestroy(s));   /* it is a surface */
	OK(cuSurfObjectDestroy(s));
	OK(cuTexObjectDestroy(t));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuTexObjectDestroy(t));
	resource[0] = 2;   /* linear memory, and that is none */
	resource[1] = (uintptr_t)back;
	FAILS(CUDA_ERROR_INVALID_VALUE, cuTexObjectCreate(&t, (void *)resource, (void *)texture, NULL));
	OK(cuArrayDestroy(a));
}

/* Nothing at creation; the memory behind it is a handle's, which it keeps. */
static void test_sparse_array(void **state)
{
	CUDA_ARRAY3D_DESCRIPTOR_v2 d = { .Width = 4096, .Height = 4096, .Format = CU_AD_FORMAT_UNSIGNED_INT8, .NumChannels = 4,
					 .Flags = CUDA_ARRAY3D_SPARSE };
	CUmemAllocationProp_v1 prop = { .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { CU_MEM_LOCATION_TYPE_DEVICE, cu_device },
					.allocFlags = { .usage = CU_MEM_CREATE_USAGE_TILE_POOL } };
	CUDA_ARRAY_SPARSE_PROPERTIES_v1 tile;
	CUmemGenericAllocationHandle_v1 h;
	size_t before = cu_free_bytes();
	CUarray a;

	(void)state;
	OK(cuArray3DCreate_v2(&a, &d));
	assert_int_equal(cu_free_bytes(), before);
	OK(cuArrayGetSparseProperties(&tile, a));
	assert_int_equal(tile.tileExtent.width * tile.tileExtent.height * 4, 65536);
	OK(cuMemCreate(&h, PAGE, &prop, 0));
	CUarrayMapInfo_v1 map = { .resource.array = a, .subresource.sparseLevel = { .extentWidth = tile.tileExtent.width, .extentHeight = tile.tileExtent.height, .extentDepth = 1 },
				  .memOperationType = CU_MEM_OPERATION_TYPE_MAP, .memHandle.memHandle = h, .deviceBitMask = 1 };
	OK(cuMemMapArrayAsync(&map, 1, NULL));
	OK(cuMemRelease(h));
	assert_int_equal(before - cu_free_bytes(), PAGE);
	map.memOperationType = CU_MEM_OPERATION_TYPE_UNMAP;
	map.memHandle.memHandle = 0;
	OK(cuMemMapArrayAsync(&map, 1, NULL));
	assert_int_equal(cu_free_bytes(), before);
	OK(cuArrayDestroy(a));
}

static void test_managed_and_host(void **state)
{
	size_t before = cu_free_bytes();
	CUdeviceptr p;
	unsigned v, *m;
	void *host;
	CUmemorytype type;

	(void)state;
	OK(cuMemAllocManaged(&p, 4 * MIB, CU_MEM_ATTACH_GLOBAL));
	assert_int_equal(before - cu_free_bytes(), 4 * MIB);
	OK(cuMemsetD32_v2(p, 123, 16));
	OK(cuCtxSynchronize());
	m = (unsigned *)(uintptr_t)p;
	assert_int_equal(m[15], 123);
	m[3] = 9;
	OK(cuMemcpyDtoH_v2(&v, p + 12, 4));
	assert_int_equal(v, 9);
	OK(cuPointerGetAttribute(&v, CU_POINTER_ATTRIBUTE_IS_MANAGED, p));
	assert_int_equal(v, 1);
	OK(cuMemPrefetchAsync(p, 4 * MIB, cu_device, NULL));
	OK(cuMemAdvise(p, MIB, CU_MEM_ADVISE_SET_READ_MOSTLY, cu_device));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMemPrefetchAsync(p, 5 * MIB, cu_device, NULL));
	OK(cuMemFree_v2(p));
	assert_int_equal(cu_free_bytes(), before);

	OK(cuMemHostAlloc(&host, 10000, CU_MEMHOSTALLOC_DEVICEMAP));
	OK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (uintptr_t)host + 5000));
	assert_int_equal(type, CU_MEMORYTYPE_HOST);
	OK(cuMemFreeHost(host));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMemFreeHost(host));
	host = malloc(100000);
	OK(cuMemHostRegister_v2(host, 100000, CU_MEMHOSTREGISTER_DEVICEMAP));
	FAILS(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, cuMemHostRegister_v2((char *)host + 5000, 100, 0));
	OK(cuMemHostGetDevicePointer_v2(&p, host, 0));
	OK(cuMemHostUnregister(host));
	FAILS(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, cuMemHostUnregister(host));
	free(host);
	assert_int_equal(cu_free_bytes(), before);
}

static void test_pointers(void **state)
{
	CUpointer_attribute a[] = { CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, CU_POINTER_ATTRIBUTE_IS_MANAGED };
	unsigned type = 9, managed = 9;
	int ordinal = 9, local;
	void *v[] = { &type, &ordinal, &managed };
	CUcontext c;
	CUdeviceptr p;

	(void)state;
	OK(cuMemAlloc_v2(&p, 100));
	OK(cuPointerGetAttribute(&c, CU_POINTER_ATTRIBUTE_CONTEXT, p));
	assert_ptr_equal(c, cu_context);
	OK(cuPointerGetAttributes(3, a, v, p + 50));
	assert_int_equal(type, CU_MEMORYTYPE_DEVICE);
	assert_int_equal(ordinal, cu_device);
	assert_int_equal(managed, 0);
	/* An address that is nobody's: zeros, and no error. */
	OK(cuPointerGetAttributes(3, a, v, (uintptr_t)&local));
	assert_int_equal(type, 0);
	FAILS(CUDA_ERROR_INVALID_VALUE, cuPointerGetAttribute(&c, CU_POINTER_ATTRIBUTE_CONTEXT, (uintptr_t)&local));
	OK(cuMemFree_v2(p));
}

static void test_external(void **state)
{
	int fd = memfd_create("other interface", 0);
	CUDA_EXTERNAL_MEMORY_HANDLE_DESC_v1 d = { .type = CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD, .handle = { .fd = fd }, .size = 4 * MIB };
	CUDA_EXTERNAL_MEMORY_BUFFER_DESC_v1 b = { .offset = 4096, .size = 4096 };
	size_t before = cu_free_bytes();
	CUexternalMemory m;
	CUdeviceptr p;
	char bytes[8] = { 0 };

	(void)state;
	assert_int_equal(ftruncate(fd, 2 * MIB), 0);
	FAILS(CUDA_ERROR_INVALID_HANDLE, cuImportExternalMemory(&m, &d));
	assert_int_equal(ftruncate(fd, 4 * MIB), 0);
	assert_int_equal(pwrite(fd, "outside", 8, 4096), 8);
	OK(cuImportExternalMemory(&m, &d));
	assert_int_equal(before - cu_free_bytes(), 4 * MIB);
	OK(cuExternalMemoryGetMappedBuffer(&p, m, &b));
	OK(cuMemcpyDtoH_v2(bytes, p, 8));
	assert_string_equal(bytes, "outside");
	OK(cuMemFree_v2(p));
	b.size = 8 * MIB;
	FAILS(CUDA_ERROR_INVALID_VALUE, cuExternalMemoryGetMappedBuffer(&p, m, &b));
	OK(cuDestroyExternalMemory(m));
	assert_int_equal(cu_free_bytes(), before);
	d.type = CU_EXTERNAL_MEMORY_HANDLE_TYPE_D3D12_HEAP;
	FAILS(CUDA_ERROR_NOT_SUPPORTED, cuImportExternalMemory(&m, &d));
}

/* The entry points of CUDA 2: addresses of 32 bits. */
static void test_old_forms(void **state)
{
	unsigned char in[64], out[64] = { 0 };
	size_t before = cu_free_bytes();
	CUdeviceptr_v1 p, q, base;
	unsigned pitch, bytes;

	(void)state;
	memset(in, 3, sizeof(in));
	OK(cuMemAlloc(&p, 1000));
	assert_int_equal(before - cu_free_bytes(), PAGE);
	OK(cuMemcpyHtoD(p, in, sizeof(in)));
	OK(cuMemAllocPitch(&q, &pitch, 64, 4, 4));
	CUDA_MEMCPY2D_v1 c = { .srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = p, .srcPitch = 16, .dstMemoryType = CU_MEMORYTYPE_DEVICE,
			       .dstDevice = q, .dstPitch = pitch, .WidthInBytes = 16, .Height = 4 };
	OK(cuMemcpy2D(&c));
	OK(cuMemcpyDtoH(out, q + pitch, 16));
	assert_memory_equal(in, out, 16);
	OK(cuMemsetD32(p, 7, 4));
	OK(cuMemGetAddressRange(&base, &bytes, p + 10));
	assert_int_equal(base, p);
	assert_int_equal(bytes, 1000);
	OK(cuMemFree(p));
	OK(cuMemFree(q));
	assert_int_equal(cu_free_bytes(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_packing), cmocka_unit_test(test_pitch), cmocka_unit_test(test_exhaustion), cmocka_unit_test(test_pool),
		cmocka_unit_test(test_own_pool), cmocka_unit_test(test_pool_order), cmocka_unit_test(test_vmm), cmocka_unit_test(test_arrays),
		cmocka_unit_test(test_textures), cmocka_unit_test(test_sparse_array), cmocka_unit_test(test_managed_and_host), cmocka_unit_test(test_pointers),
		cmocka_unit_test(test_external), cmocka_unit_test(test_old_forms),
	};

	cu_load();
	return cmocka_run_group_tests(tests, cu_setup, cu_teardown);
}
