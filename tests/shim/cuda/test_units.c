/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A contract with fewer multiprocessors than the device: what the program is shown, and where its primary context lies. FAKEGATE_UNITS
 * is what is granted.
 *
 * test_units DRIVER part|all     part: the driver can keep it; all: it cannot, and nothing is changed
 */
#include "cutest.h"

static CUdevice dev;

static int count_of(CUresult (*get)(int *, CUdevice_attribute, CUdevice))
{
	int n = 0;
	MUST(get(&n, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, dev));
	return n;
}

static void streams(CUcontext ctx)
{
	CUstream s;
	CUcontext of = NULL;
	CUgreenCtx green = (CUgreenCtx)&s;
	OK(cu.cuStreamCreate(&s, CU_STREAM_DEFAULT));
	OK(cu.cuStreamGetCtx(s, &of));
	CHECK(of == ctx);
	OK(cu.cuStreamGetCtx_v2(s, &of, &green));
	CHECK(of == ctx && !green);
	OK(cu.cuStreamGetCtx(NULL, &of));
	CHECK(of == ctx);
	OK(cu.cuStreamDestroy_v2(s));
}

static void part(const struct cu_api *real, int granted)
{
	int shown = count_of(cu.cuDeviceGetAttribute), all = count_of(real->cuDeviceGetAttribute);
	CHECK(shown > 0 && shown <= granted && shown < all);
	CUdevResource r;
	OK(cu.cuDeviceGetDevResource(dev, &r, CU_DEV_RESOURCE_TYPE_SM));
	CHECK_EQ(r.sm.smCount, shown);
	for (int round = 0; round < 2; round++) {
		CUcontext ctx, again, now = NULL, whole = NULL;
		OK(cu.cuDevicePrimaryCtxRetain(&ctx, dev));
		OK(cu.cuDevicePrimaryCtxRetain(&again, dev));
		CHECK(again == ctx);
		OK(real->cuDevicePrimaryCtxRetain(&whole, dev));
		CHECK(whole != ctx);
		OK(real->cuDevicePrimaryCtxRelease_v2(dev));
		OK(cu.cuCtxSetCurrent(ctx));
		OK(cu.cuCtxGetCurrent(&now));
		CHECK(now == ctx);
		OK(cu.cuCtxGetDevResource(ctx, &r, CU_DEV_RESOURCE_TYPE_SM));
		CHECK_EQ(r.sm.smCount, shown);
		streams(ctx);
		/* Memory is the primary context's, and goes with that. */
		CUdeviceptr p;
		OK(cu.cuMemAlloc_v2(&p, 1 << 20));
		CHECK(stats->used >= 1 << 20);
		OK(cu.cuMemsetD8_v2(p, 1, 1 << 20));
		OK(cu.cuCtxSynchronize());
		OK(cu.cuDevicePrimaryCtxRelease_v2(dev));
		CHECK(stats->used >= 1 << 20);
		OK(cu.cuDevicePrimaryCtxRelease_v2(dev));
		EXPECT(0, 0);
		unsigned int flags;
		int active = 1;
		OK(real->cuDevicePrimaryCtxGetState(dev, &flags, &active));
		CHECK_EQ(active, 0);
		OK(cu.cuCtxSetCurrent(NULL));
	}
	/* A reset takes all of it, too. */
	CUcontext ctx;
	CUdeviceptr p;
	OK(cu.cuDevicePrimaryCtxRetain(&ctx, dev));
	OK(cu.cuCtxSetCurrent(ctx));
	OK(cu.cuMemAlloc_v2(&p, 1 << 20));
	OK(cu.cuDevicePrimaryCtxReset_v2(dev));
	EXPECT(0, 0);
	OK(cu.cuCtxSetCurrent(NULL));
}

static void all(const struct cu_api *real)
{
	CUcontext ctx, whole;
	CHECK_EQ(count_of(cu.cuDeviceGetAttribute), count_of(real->cuDeviceGetAttribute));
	OK(cu.cuDevicePrimaryCtxRetain(&ctx, dev));
	OK(real->cuDevicePrimaryCtxRetain(&whole, dev));
	CHECK(whole == ctx);
	OK(real->cuDevicePrimaryCtxRelease_v2(dev));
	OK(cu.cuDevicePrimaryCtxRelease_v2(dev));
	EXPECT(0, 0);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	open_shim(argv);
	void *handle = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
	static struct cu_api real;
	if (!handle)
		return 1;
	api_of(handle, &real);
	MUST(cu.cuInit(0));
	MUST(cu.cuDeviceGet(&dev, 0));
	if (!strcmp(argv[2], "part"))
		part(&real, atoi(getenv("FAKEGATE_UNITS")));
	else
		all(&real);
	return finished("units");
}
