/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts as memory, on the device server, where one takes what a real one does: the first of a process is the daemon's to charge,
 * further ones are charged here. And every small block's page, by the device's own count. FAKEGATE_LIMIT = 1 GiB.
 *
 * test_context DRIVER
 */
#include "cutest.h"

#define MIB (UINT64_C(1) << 20)
#define LIMIT (1024 * MIB)
#define PAGE (2 * MIB)

static struct cu_api real;
static CUdevice dev;
static uint64_t base;

static CUcontext first;

static uint64_t truth(void)
{
	size_t left = 0, total = 0;
	CUcontext now;
	MUST(real.cuCtxPushCurrent_v2(first));
	MUST(real.cuMemGetInfo_v2(&left, &total));
	MUST(real.cuCtxPopCurrent_v2(&now));
	return total - left - base;
}

static void contexts(void)
{
	enum { MOST = 64 };
	CUcontext c[MOST];
	unsigned n = 0;
	CUresult r = CUDA_SUCCESS;
	while (n < MOST && (r = cu.cuCtxCreate_v2(&c[n], 0, dev)) == CUDA_SUCCESS) {
		n++;
		CHECK_EQ(stats->used, truth());
	}
	CHECK_EQ(r, CUDA_ERROR_OUT_OF_MEMORY);
	CHECK(n > 2 && n < MOST);
	CHECK(stats->used <= LIMIT && stats->used > LIMIT - stats->used / n - 1);
	CHECK_EQ(stats->objects, n);
	for (unsigned i = 0; i < n; i++)
		OK(cu.cuCtxDestroy_v2(c[i]));
	EXPECT(0, 0);
	CHECK_EQ(truth(), 0);
	/* One more, the primary one: now it is known beforehand what it takes. */
	CUcontext primary;
	OK(cu.cuDevicePrimaryCtxRetain(&primary, dev));
	CHECK_EQ(stats->used, truth());
	OK(cu.cuDevicePrimaryCtxRetain(&primary, dev));
	CHECK_EQ(stats->used, truth());
	OK(cu.cuDevicePrimaryCtxRelease_v2(dev));
	CHECK_EQ(stats->used, truth());
	OK(cu.cuDevicePrimaryCtxRelease_v2(dev));
	EXPECT(0, 0);
	CHECK_EQ(truth(), 0);
}

/* CUDA 2's count of uses. */
static void counted(void)
{
	CUcontext c, same;
	CUdeviceptr p;
	OK(cu.cuCtxCreate_v2(&c, 0, dev));
	OK(cu.cuMemAlloc_v2(&p, 5 * MIB));
	OK(cu.cuCtxAttach(&same, 0));
	CHECK(same == c);
	OK(cu.cuCtxDetach(c));
	CHECK_EQ(stats->used, truth());
	CHECK(stats->used > 5 * MIB);
	OK(cu.cuCtxDetach(c));
	EXPECT(0, 0);
	CHECK_EQ(truth(), 0);
}

/* Parts of the primary context: who makes the first of them makes that, what they allocate is its, and goes with the last of them. */
static void green(void)
{
	enum { MOST = 64 };
	CUdevResource all, half;
	CUdevResourceDesc desc;
	CUgreenCtx g, h;
	CUcontext of_g, of_h, own[MOST];
	CUdeviceptr p;
	unsigned int n = 1;
	OK(cu.cuDeviceGetDevResource(dev, &all, CU_DEV_RESOURCE_TYPE_SM));
	OK(cu.cuDevSmResourceSplitByCount(&half, &n, &all, NULL, 0, all.sm.smCount / 2));
	OK(cu.cuDevResourceGenerateDesc(&desc, &half, 1));
	OK(cu.cuCtxSetCurrent(first));
	OK(cu.cuGreenCtxCreate(&g, desc, dev, CU_GREEN_CTX_DEFAULT_STREAM));
	EXPECT(truth(), 1);
	CHECK(stats->used > 0);
	OK(cu.cuGreenCtxCreate(&h, desc, dev, CU_GREEN_CTX_DEFAULT_STREAM));
	EXPECT(truth(), 1);
	OK(cu.cuCtxFromGreenCtx(&of_g, g));
	OK(cu.cuCtxFromGreenCtx(&of_h, h));
	OK(cu.cuCtxSetCurrent(of_g));
	OK(cu.cuMemAlloc_v2(&p, 5 * MIB));
	OK(cu.cuCtxSetCurrent(of_h));
	OK(cu.cuMemAlloc_v2(&p, 3 * MIB));
	OK(cu.cuMemAlloc_v2(&p, 1000));
	OK(cu.cuCtxCreate_v2(&own[0], 0, dev));
	OK(cu.cuMemAlloc_v2(&p, 7 * MIB));
	OK(cu.cuCtxSetCurrent(first));
	EXPECT(truth(), 6);
	OK(cu.cuGreenCtxDestroy(g));
	EXPECT(truth(), 6);
	OK(cu.cuGreenCtxDestroy(h));
	EXPECT(truth(), 2);
	CHECK(stats->used > 8 * MIB);
	OK(cu.cuCtxDestroy_v2(own[0]));
	EXPECT(0, 0);
	CHECK_EQ(truth(), 0);
	/* And it may be too much. */
	n = 0;
	while (n < MOST && cu.cuCtxCreate_v2(&own[n], 0, dev) == CUDA_SUCCESS)
		n++;
	CHECK(n > 2 && n < MOST);
	EXPECT(truth(), n);
	CHECK_EQ(cu.cuGreenCtxCreate(&g, desc, dev, CU_GREEN_CTX_DEFAULT_STREAM), CUDA_ERROR_OUT_OF_MEMORY);
	EXPECT(truth(), n);
	while (n--)
		OK(cu.cuCtxDestroy_v2(own[n]));
	EXPECT(0, 0);
}

/* Blocks of all sizes: what is charged is what the device has taken, to the byte, at every moment. */
static void blocks(void)
{
	static const size_t sizes[] = { 1, 256, 4096, 100000, MIB / 2, MIB, MIB + 1, PAGE, PAGE + 1, 5 * MIB };
	enum { N = 400 };
	static CUdeviceptr p[N];
	unsigned seed = 1;
	for (unsigned round = 0; round < 3000; round++) {
		seed = seed * 1103515245 + 12345;
		unsigned i = seed / 65536 % N;
		if (p[i]) {
			OK(cu.cuMemFree_v2(p[i]));
			p[i] = 0;
		} else {
			CUresult r = cu.cuMemAlloc_v2(&p[i], sizes[seed / 16 % (sizeof(sizes) / sizeof(sizes[0]))]);
			if (r != CUDA_SUCCESS)
				p[i] = 0;
		}
		if (stats->used != truth()) {
			CHECK_EQ(stats->used, truth());
			break;
		}
	}
	for (unsigned i = 0; i < N; i++)
		if (p[i])
			OK(cu.cuMemFree_v2(p[i]));
	EXPECT(0, 0);
	CHECK_EQ(truth(), 0);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	open_shim(argv);
	MUST(cu.cuInit(0));
	void *driver = dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD);
	if (!driver)
		return 1;
	api_of(driver, &real);
	MUST(cu.cuDeviceGet(&dev, 0));
	first = new_context();
	EXPECT(0, 0);
	base = truth();
	contexts();
	OK(cu.cuCtxSetCurrent(first));
	counted();
	green();
	OK(cu.cuCtxSetCurrent(first));
	blocks();
	return finished("context");
}
