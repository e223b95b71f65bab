/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is freed by its pointer, and memory of the context: what is charged, what comes back and when, what a limit
 * answers, and what a program is told about it. FAKEGATE_LIMIT = 64 MiB.
 */
#include "cutest.h"

#define MIB (UINT64_C(1) << 20)
#define LIMIT (64 * MIB)
#define PAGE (2 * MIB)   /* of the device; what is larger than half of one has pages of its own */
#define PAGES(bytes) (((bytes) + PAGE - 1) / PAGE * PAGE)

static void plain(void)
{
	CUdeviceptr p = 0, q = 0;
	OK(cu.cuMemAlloc_v2(&p, 1000));
	EXPECT(PAGE, 1);
	OK(cu.cuMemAlloc_v2(&q, 3 * MIB));
	EXPECT(PAGE + 4 * MIB, 2);
	OK(cu.cuMemFree_v2(p));
	EXPECT(4 * MIB, 1);
	/* A second free, and one of nothing: the driver's answers, and nothing is given back twice. */
	CHECK(cu.cuMemFree_v2(p) != CUDA_SUCCESS);
	OK(cu.cuMemFree_v2(0));
	CHECK(cu.cuMemFree_v2(q + 256) != CUDA_SUCCESS);
	EXPECT(4 * MIB, 1);
	OK(cu.cuMemFree_v2(q));
	EXPECT(0, 0);
	/* Mistakes are the driver's to judge. */
	CHECK_EQ(cu.cuMemAlloc_v2(NULL, 100), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(cu.cuMemAlloc_v2(&p, 0), CUDA_ERROR_INVALID_VALUE);
	EXPECT(0, 0);
}

static void old_forms(void)
{
	CUdeviceptr_v1 p = 0;
	unsigned int pitch = 0;
	CUresult r = cu.cuMemAlloc(&p, 4096);
	if (r != CUDA_SUCCESS) {   /* a driver whose memory has no 32-bit addresses */
		EXPECT(0, 0);
		return;
	}
	EXPECT(PAGE, 1);
	OK(cu.cuMemFree(p));
	EXPECT(0, 0);
	OK(cu.cuMemAllocPitch(&p, &pitch, 3000, 1000, 4));
	EXPECT(PAGES((uint64_t)pitch * 1000), 1);
	OK(cu.cuMemFree(p));
	EXPECT(0, 0);
}

static void pitched(void)
{
	CUdeviceptr p;
	size_t pitch = 0;
	OK(cu.cuMemAllocPitch_v2(&p, &pitch, 3000, 4000, 4));
	CHECK(pitch > 3000);
	EXPECT(PAGES(pitch * 4000), 1);
	OK(cu.cuMemFree_v2(p));
	EXPECT(0, 0);
	/* Rows as asked for fit, those that the driver makes of them do not: undone. */
	size_t rows = LIMIT / 101;
	uint64_t denials = stats->denials;
	CHECK_EQ(cu.cuMemAllocPitch_v2(&p, &pitch, 100, rows, 4), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK_EQ(stats->denials, denials + 1);
	EXPECT(0, 0);
	CHECK_EQ(cu.cuMemAllocPitch_v2(&p, &pitch, SIZE_MAX / 2, 8, 4), CUDA_ERROR_OUT_OF_MEMORY);
	EXPECT(0, 0);
}

static void managed_memory(void)
{
	CUdeviceptr p;
	int is_managed = 0;
	OK(cu.cuMemAllocManaged(&p, 5 * MIB, CU_MEM_ATTACH_GLOBAL));
	EXPECT(6 * MIB, 1);
	OK(cu.cuPointerGetAttribute(&is_managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, p));
	CHECK(is_managed);
	OK(cu.cuMemFree_v2(p));
	EXPECT(0, 0);
}

/* The host's memory is the host's. */
static void host_memory(void)
{
	void *p;
	static char page[8192] __attribute__((aligned(4096)));
	OK(cu.cuMemHostAlloc(&p, 80 * MIB, 0));
	EXPECT(0, 0);
	OK(cu.cuMemFreeHost(p));
	OK(cu.cuMemAllocHost_v2(&p, MIB));
	OK(cu.cuMemFreeHost(p));
	OK(cu.cuMemHostRegister_v2(page, sizeof(page), 0));
	OK(cu.cuMemHostUnregister(page));
	EXPECT(0, 0);
}

/* Small blocks share pages: charged is each page that has one, whatever else is in it. */
static void small(void)
{
	enum { N = 3000 };
	static CUdeviceptr p[N];
	uint64_t pages = 0;
	for (unsigned i = 0; i < N; i++) {
		OK(cu.cuMemAlloc_v2(&p[i], 4096));
		bool seen = false;
		for (unsigned k = 0; k < i && !seen; k++)
			seen = p[k] / PAGE == p[i] / PAGE;
		pages += !seen;
		if (stats->used != pages * PAGE) {
			EXPECT(pages * PAGE, i + 1);
			break;
		}
	}
	CHECK(pages >= N * 4096 / PAGE);
	CHECK(pages < 20);
	CHECK_EQ(stats->objects, N);
	/* One of each page stays: all pages do. */
	uint64_t kept = 0;
	for (unsigned i = 0; i < N; i++) {
		bool first = true;
		for (unsigned k = 0; k < i && first; k++)
			first = !p[k] || p[k] / PAGE != p[i] / PAGE;
		if (first) {
			kept++;
			continue;
		}
		OK(cu.cuMemFree_v2(p[i]));
		p[i] = 0;
	}
	EXPECT(pages * PAGE, kept);
	for (unsigned i = 0; i < N; i++)
		if (p[i])
			OK(cu.cuMemFree_v2(p[i]));
	EXPECT(0, 0);
}

static void limit(void)
{
	CUdeviceptr p[32], one, two;
	uint64_t denials = stats->denials;
	for (unsigned i = 0; i < 32; i++)
		OK(cu.cuMemAlloc_v2(&p[i], PAGE));
	EXPECT(LIMIT, 32);
	CHECK_EQ(cu.cuMemAlloc_v2(&one, 1), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK_EQ(cu.cuMemAllocManaged(&one, MIB, CU_MEM_ATTACH_GLOBAL), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK_EQ(cu.cuMemAlloc_v2(&one, MIB + 1), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK_EQ(stats->denials, denials + 3);
	/* A page for small ones: as many as the driver puts into it. */
	OK(cu.cuMemFree_v2(p[0]));
	OK(cu.cuMemAlloc_v2(&one, 4096));
	CUresult r = cu.cuMemAlloc_v2(&two, 4096);
	EXPECT(LIMIT, r == CUDA_SUCCESS ? 33 : 32);
	if (r == CUDA_SUCCESS) {
		CHECK_EQ(one / PAGE, two / PAGE);
		OK(cu.cuMemFree_v2(two));
	} else {
		CHECK_EQ(r, CUDA_ERROR_OUT_OF_MEMORY);   /* it would have had another page */
	}
	OK(cu.cuMemFree_v2(one));
	OK(cu.cuMemAlloc_v2(&p[0], PAGE));
	for (unsigned i = 0; i < 32; i++)
		OK(cu.cuMemFree_v2(p[i]));
	EXPECT(0, 0);
	CHECK_EQ(cu.cuMemAlloc_v2(&one, SIZE_MAX), CUDA_ERROR_OUT_OF_MEMORY);
	EXPECT(0, 0);
}

static void views(CUdevice d)
{
	size_t total = 0, left = 0;
	unsigned int total32 = 0, left32 = 0;
	CUdeviceptr p;
	OK(cu.cuDeviceTotalMem_v2(&total, d));
	CHECK_EQ(total, LIMIT);
	OK(cu.cuDeviceTotalMem(&total32, d));
	CHECK_EQ(total32, LIMIT);
	OK(cu.cuMemGetInfo_v2(&left, &total));
	CHECK_EQ(total, LIMIT);
	CHECK_EQ(left, LIMIT);
	OK(cu.cuMemAlloc_v2(&p, 10 * MIB));
	OK(cu.cuMemGetInfo_v2(&left, &total));
	CHECK_EQ(total, LIMIT);
	CHECK_EQ(left, LIMIT - 10 * MIB);
	OK(cu.cuMemGetInfo(&left32, &total32));
	CHECK_EQ(total32, LIMIT);
	CHECK_EQ(left32, LIMIT - 10 * MIB);
	OK(cu.cuMemFree_v2(p));
	cu.cuMemGetInfo_v2(NULL, NULL);   /* whatever the driver says to that */
}

/* A context takes along what was not freed. */
static void contexts(void)
{
	CUcontext first = NULL, second;
	CUdeviceptr p[200], kept, own;
	OK(cu.cuCtxGetCurrent(&first));
	OK(cu.cuMemAlloc_v2(&kept, PAGE));
	second = new_context();
	for (unsigned i = 0; i < 200; i++)
		OK(cu.cuMemAlloc_v2(&p[i], 4096));
	for (unsigned i = 0; i < 200; i += 2)
		OK(cu.cuMemFree_v2(p[i]));
	CHECK_EQ(stats->objects, 101);
	CHECK(stats->used > PAGE);
	OK(cu.cuCtxDestroy_v2(second));
	EXPECT(PAGE, 1);
	OK(cu.cuCtxSetCurrent(first));
	/* Its address may be used again. */
	second = new_context();
	OK(cu.cuMemAlloc_v2(&own, PAGE));
	EXPECT(2 * PAGE, 2);
	OK(cu.cuMemFree_v2(own));
	EXPECT(PAGE, 1);
	OK(cu.cuCtxDestroy_v2(second));
	OK(cu.cuCtxSetCurrent(first));
	OK(cu.cuMemFree_v2(kept));
	EXPECT(0, 0);
}

static void primary(CUdevice d)
{
	CUcontext before = NULL, ctx;
	CUdeviceptr p;
	OK(cu.cuCtxGetCurrent(&before));
	OK(cu.cuDevicePrimaryCtxRetain(&ctx, d));
	OK(cu.cuCtxSetCurrent(ctx));
	OK(cu.cuMemAlloc_v2(&p, PAGE));
	OK(cu.cuDevicePrimaryCtxRetain(&ctx, d));
	OK(cu.cuDevicePrimaryCtxRelease_v2(d));
	EXPECT(PAGE, 1);
	OK(cu.cuDevicePrimaryCtxReset_v2(d));
	EXPECT(0, 0);
	OK(cu.cuDevicePrimaryCtxRetain(&ctx, d));
	OK(cu.cuCtxSetCurrent(ctx));
	OK(cu.cuMemAlloc_v2(&p, PAGE));
	EXPECT(PAGE, 1);
	OK(cu.cuDevicePrimaryCtxRelease_v2(d));
	cu.cuDevicePrimaryCtxRelease_v2(d);
	EXPECT(0, 0);
	OK(cu.cuCtxSetCurrent(before));
}

static void limits_of_context(void)
{
	size_t heap = 0, now = 0;
	CUcontext first = NULL, ctx;
	OK(cu.cuCtxGetCurrent(&first));
	ctx = new_context();
	OK(cu.cuCtxGetLimit(&heap, CU_LIMIT_MALLOC_HEAP_SIZE));
	EXPECT(0, 0);
	OK(cu.cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, heap + 16 * MIB));
	OK(cu.cuCtxGetLimit(&now, CU_LIMIT_MALLOC_HEAP_SIZE));
	EXPECT(now - heap, 0);
	CHECK_EQ(cu.cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, heap + 2 * LIMIT), CUDA_ERROR_OUT_OF_MEMORY);
	EXPECT(now - heap, 0);
	OK(cu.cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, heap + 8 * MIB));
	OK(cu.cuCtxGetLimit(&now, CU_LIMIT_MALLOC_HEAP_SIZE));
	EXPECT(now - heap, 0);
	OK(cu.cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 4096));
	EXPECT(now - heap, 0);
	OK(cu.cuCtxDestroy_v2(ctx));
	OK(cu.cuCtxSetCurrent(first));
	EXPECT(0, 0);
}

/* Without a context, before cuInit: the driver's codes, and no charge. */
static void early(void)
{
	CUdeviceptr p = 0;
	CHECK_EQ(cu.cuMemAlloc_v2(&p, 100), CUDA_ERROR_NOT_INITIALIZED);
	CHECK_EQ(cu.cuMemFree_v2(100), CUDA_ERROR_NOT_INITIALIZED);
	OK(cu.cuInit(0));
	CHECK_EQ(cu.cuMemAlloc_v2(&p, 100), CUDA_ERROR_INVALID_CONTEXT);
	EXPECT(0, 0);
}

int main(int argc, char **argv)
{
	CUdevice d;
	(void)argc;
	open_shim(argv);
	early();
	OK(cu.cuDeviceGet(&d, 0));
	CUcontext ctx = new_context();
	plain();
	small();
	old_forms();
	pitched();
	managed_memory();
	host_memory();
	limit();
	views(d);
	contexts();
	primary(d);
	limits_of_context();
	CHECK(strstr(stats->key, "pci:") == stats->key);
	OK(cu.cuCtxDestroy_v2(ctx));
	EXPECT(0, 0);
	return finished("mem");
}
