/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arrays and mipmaps: charged what their descriptors say, and given back; sparse ones hold the memory that is put behind them.
 * FAKEGATE_LIMIT = 64 MiB.
 */
#include "cutest.h"

#define MIB (UINT64_C(1) << 20)
#define LIMIT (64 * MIB)

#define PAGE (2 * MIB)

/* Rows of whole 512 bytes; more than half a page in whole pages. */
static uint64_t padded(uint64_t row, uint64_t rows)
{
	uint64_t bytes = (row + 511) / 512 * 512 * rows;
	return bytes > PAGE / 2 ? (bytes + PAGE - 1) / PAGE * PAGE : bytes;
}

static CUdevice dev;

/* One array of a shape; @want bytes, if the driver makes it at all. */
static void shape(size_t w, size_t h, size_t d, CUarray_format format, unsigned channels, unsigned flags, uint64_t want)
{
	CUDA_ARRAY3D_DESCRIPTOR_v2 desc = { .Width = w, .Height = h, .Depth = d, .Format = format, .NumChannels = channels, .Flags = flags };
	CUarray a = NULL;
	CUresult r = cu.cuArray3DCreate_v2(&a, &desc);
	if (r != CUDA_SUCCESS) {
		EXPECT(0, 0);
		printf("%zu x %zu x %zu, format %u: the driver says %d\n", w, h, d, format, r);
		CHECK(r != CUDA_ERROR_OUT_OF_MEMORY);
		return;
	}
	if (stats->used != want) {
		fprintf(stderr, "%zu x %zu x %zu, format %u x %u, flags %u: %llu bytes charged, wanted %llu\n", w, h, d, format, channels,
			flags, (unsigned long long)stats->used, (unsigned long long)want);
		failures++;
	}
	CHECK_EQ(stats->objects, 1);
	OK(cu.cuArrayDestroy(a));
	EXPECT(0, 0);
}

static void shapes(void)
{
	shape(1000, 0, 0, CU_AD_FORMAT_UNSIGNED_INT8, 1, 0, padded(1000, 1));
	shape(1000, 10, 0, CU_AD_FORMAT_FLOAT, 4, 0, padded(16000, 10));
	shape(64, 64, 16, CU_AD_FORMAT_HALF, 2, 0, padded(64 * 4, 64 * 16));
	shape(64, 64, 12, CU_AD_FORMAT_SIGNED_INT16, 1, CUDA_ARRAY3D_LAYERED, padded(64 * 2, 64 * 12));
	shape(64, 64, 6, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_CUBEMAP, padded(64 * 4, 64 * 6));
	shape(64, 64, 0, CU_AD_FORMAT_BC1_UNORM, 4, 0, padded(16 * 8, 16));
	shape(61, 62, 0, CU_AD_FORMAT_BC7_UNORM, 4, 0, padded(16 * 16, 16));
	shape(64, 64, 0, CU_AD_FORMAT_UNORM_INT16X4, 4, 0, padded(64 * 8, 64));
	shape(640, 480, 0, CU_AD_FORMAT_NV12, 3, 0, padded(640, 720));
	shape(640, 480, 0, CU_AD_FORMAT_P010, 3, 0, padded(1280, 720));
}

static void forms(void)
{
	CUDA_ARRAY_DESCRIPTOR_v2 d2 = { .Width = 256, .Height = 256, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1 };
	CUDA_ARRAY_DESCRIPTOR_v1 d1 = { .Width = 256, .Height = 256, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1 };
	CUDA_ARRAY3D_DESCRIPTOR_v1 d3 = { .Width = 256, .Height = 256, .Depth = 2, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1 };
	CUarray a, b, c;
	OK(cu.cuArrayCreate_v2(&a, &d2));
	OK(cu.cuArrayCreate(&b, &d1));
	OK(cu.cuArray3DCreate(&c, &d3));
	EXPECT(4 * padded(1024, 256), 3);
	OK(cu.cuArrayDestroy(b));
	OK(cu.cuArrayDestroy(c));
	OK(cu.cuArrayDestroy(a));
	EXPECT(0, 0);
	CHECK(cu.cuArrayDestroy(NULL) != CUDA_SUCCESS);
	CHECK_EQ(cu.cuArrayCreate_v2(NULL, &d2), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(cu.cuArrayCreate_v2(&a, NULL), CUDA_ERROR_INVALID_VALUE);
	d2.Width = SIZE_MAX;   /* what no device can make: the driver's own code */
	CHECK_EQ(cu.cuArrayCreate_v2(&a, &d2), CUDA_ERROR_INVALID_VALUE);
	EXPECT(0, 0);
}

static void mipmaps(void)
{
	CUDA_ARRAY3D_DESCRIPTOR_v2 d = { .Width = 16, .Height = 8, .Depth = 0, .Format = CU_AD_FORMAT_UNSIGNED_INT8, .NumChannels = 1 };
	CUmipmappedArray m;
	CUarray level;
	OK(cu.cuMipmappedArrayCreate(&m, &d, 3));
	EXPECT((8 + 4 + 2) * 512, 1);
	OK(cu.cuMipmappedArrayGetLevel(&level, m, 1));
	CHECK(cu.cuArrayDestroy(level) != CUDA_SUCCESS);   /* it is not ours to destroy */
	EXPECT((8 + 4 + 2) * 512, 1);
	OK(cu.cuMipmappedArrayDestroy(m));
	EXPECT(0, 0);
	if (cu.cuMipmappedArrayCreate(&m, &d, 5) == CUDA_SUCCESS) {
		EXPECT((8 + 4 + 2 + 1 + 1) * 512, 1);
		OK(cu.cuMipmappedArrayDestroy(m));
	}
	/* Layers are not halved, a third dimension is. */
	d.Depth = 4;
	d.Flags = CUDA_ARRAY3D_LAYERED;
	OK(cu.cuMipmappedArrayCreate(&m, &d, 2));
	EXPECT(4 * (8 + 4) * 512, 1);
	OK(cu.cuMipmappedArrayDestroy(m));
	d.Flags = 0;
	OK(cu.cuMipmappedArrayCreate(&m, &d, 2));
	EXPECT((4 * 8 + 2 * 4) * 512, 1);
	OK(cu.cuMipmappedArrayDestroy(m));
	EXPECT(0, 0);
}

static void limit(void)
{
	CUDA_ARRAY_DESCRIPTOR_v2 d = { .Width = 1024, .Height = 2048, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4 };
	CUarray a, b, c;
	OK(cu.cuArrayCreate_v2(&a, &d));
	OK(cu.cuArrayCreate_v2(&b, &d));
	CHECK_EQ(cu.cuArrayCreate_v2(&c, &d), CUDA_ERROR_OUT_OF_MEMORY);
	EXPECT(LIMIT, 2);
	OK(cu.cuArrayDestroy(a));
	OK(cu.cuArrayDestroy(b));
	EXPECT(0, 0);
	/* They go with their context. */
	CUcontext first = NULL, ctx;
	OK(cu.cuCtxGetCurrent(&first));
	ctx = new_context();
	OK(cu.cuArrayCreate_v2(&a, &d));
	EXPECT(LIMIT / 2, 1);
	OK(cu.cuCtxDestroy_v2(ctx));
	OK(cu.cuCtxSetCurrent(first));
	EXPECT(0, 0);
	cu.cuArrayDestroy(a);   /* the stand-in keeps a few bytes for a handle until then */
	EXPECT(0, 0);
}

/* Nothing of itself; what is behind it stays for as long as the array, its handles released or not. */
static void sparse(void)
{
	CUDA_ARRAY3D_DESCRIPTOR_v2 d = { .Width = 4096, .Height = 4096, .Depth = 0, .Format = CU_AD_FORMAT_UNSIGNED_INT8, .NumChannels = 1,
					 .Flags = CUDA_ARRAY3D_SPARSE };
	CUmemAllocationProp_v1 prop = { .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { CU_MEM_LOCATION_TYPE_DEVICE, dev },
					.allocFlags = { .usage = CU_MEM_CREATE_USAGE_TILE_POOL } };
	CUmemGenericAllocationHandle h;
	CUarray a;
	CUresult r = cu.cuArray3DCreate_v2(&a, &d);
	if (r != CUDA_SUCCESS || !cu.cuMemMapArrayAsync) {
		printf("no sparse arrays on this driver (%d)\n", r);
		return;
	}
	EXPECT(0, 1);
	OK(cu.cuMemCreate(&h, 2 * MIB, &prop, 0));
	EXPECT(2 * MIB, 2);
	CUarrayMapInfo_v1 info = { .resourceType = 0, .resource = { .array = a }, .subresourceType = CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_SPARSE_LEVEL,
				   .subresource = { .sparseLevel = { .extentWidth = 256, .extentHeight = 256, .extentDepth = 1 } },
				   .memOperationType = CU_MEM_OPERATION_TYPE_MAP, .memHandleType = CU_MEM_HANDLE_TYPE_GENERIC,
				   .memHandle = { .memHandle = h }, .deviceBitMask = 1u << dev };
	r = cu.cuMemMapArrayAsync(&info, 1, NULL);
	if (r == CUDA_SUCCESS) {
		OK(cu.cuMemMapArrayAsync_ptsz(&info, 1, NULL));
		OK(cu.cuStreamSynchronize(NULL));
		OK(cu.cuMemRelease(h));
		EXPECT(2 * MIB, 2);
		OK(cu.cuArrayDestroy(a));
	} else {
		printf("no memory behind sparse arrays on this driver (%d)\n", r);
		OK(cu.cuMemRelease(h));
		OK(cu.cuArrayDestroy(a));
	}
	EXPECT(0, 0);
}

int main(int argc, char **argv)
{
	(void)argc;
	open_shim(argv);
	MUST(cu.cuInit(0));
	MUST(cu.cuDeviceGet(&dev, 0));
	new_context();
	shapes();
	forms();
	mipmaps();
	limit();
	sparse();
	return finished("array");
}
