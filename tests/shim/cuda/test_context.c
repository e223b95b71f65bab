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
	blocks();
	return finished("context");
}
