/* SPDX-License-Identifier: Apache-2.0 */
/* Two devices: copies between them, order across them, memory that is counted where it lies. */
#include "cu.h"

static CUcontext ctx[2];

static int setup(void **state)
{
	int count;

	(void)state;
	OK(cuInit(0));
	OK(cuDeviceGetCount(&count));
	assert_int_equal(count, 2);
	for (int i = 0; i < 2; i++)
		OK(cuCtxCreate_v2(&ctx[i], 0, i));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++)
		OK(cuCtxDestroy_v2(ctx[i]));
	return 0;
}

static size_t free_on(int device)
{
	size_t n;

	OK(cuCtxSetCurrent(ctx[device]));
	n = cu_free_bytes();
	return n;
}

static void test_copy(void **state)
{
	size_t before[2] = { free_on(0), free_on(1) };
	unsigned char in[4096], out[4096];
	CUdeviceptr p[2];
	int can, device;

	(void)state;
	memset(in, 0x5a, sizeof(in));
	OK(cuDeviceCanAccessPeer(&can, 0, 1));
	assert_int_equal(can, 1);
	OK(cuDeviceCanAccessPeer(&can, 0, 0));
	assert_int_equal(can, 0);
	for (int i = 0; i < 2; i++) {
		OK(cuCtxSetCurrent(ctx[i]));
		OK(cuMemAlloc_v2(&p[i], 2 << 20));
		OK(cuPointerGetAttribute(&device, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, p[i]));
		assert_int_equal(device, i);
		assert_int_equal(before[i] - free_on(i), 2 << 20);
		assert_int_equal(before[!i] - free_on(!i), i ? 2 << 20 : 0);
	}
	OK(cuCtxSetCurrent(ctx[0]));
	OK(cuCtxEnablePeerAccess(ctx[1], 0));
	FAILS(CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED, cuCtxEnablePeerAccess(ctx[1], 0));
	OK(cuMemcpyHtoD_v2(p[0], in, sizeof(in)));
	OK(cuMemcpyPeer(p[1], ctx[1], p[0], ctx[0], sizeof(in)));
	OK(cuCtxSynchronize());
	OK(cuCtxSetCurrent(ctx[1]));
	OK(cuMemcpyDtoH_v2(out, p[1], sizeof(out)));
	assert_memory_equal(in, out, sizeof(in));
	FAILS(CUDA_ERROR_PEER_ACCESS_NOT_ENABLED, cuCtxDisablePeerAccess(ctx[0]));
	for (int i = 0; i < 2; i++)
		OK(cuMemFree_v2(p[i]));
	OK(cuCtxSetCurrent(ctx[0]));
	OK(cuCtxDisablePeerAccess(ctx[1]));
}

/* An event of one device holds a stream of the other. */
static void test_order(void **state)
{
	unsigned us = 3000;
	void *args[] = { &us };
	CUstream s[2];
	CUdeviceptr p;
	CUevent e;
	unsigned char v = 0;

	(void)state;
	for (int i = 0; i < 2; i++) {
		OK(cuCtxSetCurrent(ctx[i]));
		OK(cuStreamCreate(&s[i], CU_STREAM_NON_BLOCKING));
	}
	OK(cuMemAlloc_v2(&p, 64));        /* on the second */
	OK(cuMemsetD8_v2(p, 1, 64));
	OK(cuCtxSynchronize());
	OK(cuCtxSetCurrent(ctx[0]));
	OK(cuEventCreate(&e, 0));
	OK(cuLaunchKernel(cu_function(cu_module(), "spin"), 1, 1, 1, 32, 1, 1, 0, s[0], args, NULL));
	OK(cuMemsetD8Async(p, 2, 64, s[0]));
	OK(cuEventRecord(e, s[0]));
	FAILS(CUDA_ERROR_INVALID_HANDLE, cuEventRecord(e, s[1]));   /* of another device */
	OK(cuCtxSetCurrent(ctx[1]));
	OK(cuStreamWaitEvent(s[1], e, 0));
	OK(cuMemcpyDtoHAsync_v2(&v, p, 1, s[1]));
	OK(cuStreamSynchronize(s[1]));
	assert_int_equal(v, 2);
	OK(cuEventDestroy_v2(e));
	OK(cuMemFree_v2(p));
	for (int i = 0; i < 2; i++)
		OK(cuStreamDestroy_v2(s[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_copy), cmocka_unit_test(test_order) };

	cu_load();
	return cmocka_run_group_tests(tests, setup, teardown);
}
