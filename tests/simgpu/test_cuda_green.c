/* SPDX-License-Identifier: Apache-2.0 */
/* Green contexts: splitting, streams that are held to a set of multiprocessors, what they share with the primary context. */
#include "cu.h"

static int total;

static int setup(void **state)
{
	if (!cu.cuGreenCtxCreate) {
		printf("skipped: this driver has no green contexts\n");
		exit(77);
	}
	OK(cuInit(0));
	OK(cuDeviceGet(&cu_device, 0));
	OK(cuDevicePrimaryCtxRetain(&cu_context, cu_device));
	OK(cuCtxSetCurrent(cu_context));
	OK(cuDeviceGetAttribute(&total, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, cu_device));
	(void)state;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	OK(cuDevicePrimaryCtxRelease_v2(cu_device));
	return 0;
}

static CUdevResource all(void)
{
	CUdevResource r;

	OK(cuDeviceGetDevResource(cu_device, &r, CU_DEV_RESOURCE_TYPE_SM));
	assert_int_equal(r.sm.smCount, total);
	return r;
}

static CUgreenCtx make(unsigned units)
{
	CUdevResource whole = all(), part;
	CUdevResourceDesc desc;
	unsigned n = 1;
	CUgreenCtx g;

	OK(cuDevSmResourceSplitByCount(&part, &n, &whole, NULL, 0, units));
	assert_int_equal(n, 1);
	OK(cuDevResourceGenerateDesc(&desc, &part, 1));
	OK(cuGreenCtxCreate(&g, desc, cu_device, CU_GREEN_CTX_DEFAULT_STREAM));
	return g;
}

static void test_split(void **state)
{
	CUdevResource whole = all(), part[64], rest;
	unsigned n = 0;

	(void)state;
	OK(cuDevSmResourceSplitByCount(NULL, &n, &whole, NULL, 0, 8));
	assert_int_equal(n, total / 8);
	n = 2;
	OK(cuDevSmResourceSplitByCount(part, &n, &whole, &rest, 0, 7));
	assert_int_equal(n, 2);
	assert_int_equal(part[0].sm.smCount, 8);   /* up to the step of the device */
	assert_int_equal(rest.sm.smCount, total - 16);
	n = 1;
	FAILS(CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION, cuDevSmResourceSplitByCount(part, &n, &whole, NULL, 0, (unsigned)total + 1));
	memset(&whole, 0, sizeof(whole));
	FAILS(CUDA_ERROR_INVALID_RESOURCE_TYPE, cuDevSmResourceSplitByCount(part, &n, &whole, NULL, 0, 8));
}

/* As many blocks as the device has room for take twice as long on half of it. */
static void test_units(void **state)
{
	CUgreenCtx g = make((unsigned)total / 2), of;
	CUfunction spin = cu_function(cu_module(), "spin");
	CUstream wide, narrow;
	CUevent e[4];
	CUcontext c;
	float whole, half;
	unsigned us = 2000;
	void *args[] = { &us };

	(void)state;
	OK(cuStreamCreate(&wide, CU_STREAM_NON_BLOCKING));
	OK(cuGreenCtxStreamCreate(&narrow, g, CU_STREAM_NON_BLOCKING, 0));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuGreenCtxStreamCreate(&narrow, g, 0, 0));
	for (int i = 0; i < 4; i++)
		OK(cuEventCreate(&e[i], 0));
	for (int i = 0; i < 2; i++) {
		CUstream s = i ? narrow : wide;

		cu_hold(s);
		OK(cuEventRecord(e[2 * i], s));
		OK(cuLaunchKernel(spin, (unsigned)total, 1, 1, 1024, 1, 1, 0, s, args, NULL));
		OK(cuEventRecord(e[2 * i + 1], s));
		cu_open();
		OK(cuStreamSynchronize(s));
	}
	OK(cuEventElapsedTime(&whole, e[0], e[1]));
	OK(cuEventElapsedTime(&half, e[2], e[3]));
	if (!cu_null())
		assert_true(half >= 1.8f * whole && half < 2.5f * whole);
	OK(cuStreamGetGreenCtx(narrow, &of));
	assert_ptr_equal(of, g);
	OK(cuStreamGetGreenCtx(wide, &of));
	assert_null(of);
	CUcontext stands;
	OK(cuCtxFromGreenCtx(&stands, g));
	OK(cuStreamGetCtx(narrow, &c));
	assert_ptr_equal(c, stands);
	OK(cuStreamGetCtx_v2(narrow, &c, &of));
	assert_ptr_equal(of, g);
	assert_ptr_equal(c, cu_context);
	OK(cuStreamDestroy_v2(wide));
	OK(cuStreamDestroy_v2(narrow));
	OK(cuGreenCtxDestroy(g));
}

/* It is the primary context: memory and modules are in both, and synchronizing that one waits for this one. */
static void test_shared(void **state)
{
	CUgreenCtx g = make(8);
	CUfunction spin = cu_function(cu_module(), "spin");
	CUdevResource r;
	CUdeviceptr p;
	CUevent e;
	CUcontext c;
	unsigned us = 3000;
	void *args[] = { &us };
	size_t before;

	(void)state;
	OK(cuCtxFromGreenCtx(&c, g));
	OK(cuCtxGetDevResource(c, &r, CU_DEV_RESOURCE_TYPE_SM));
	assert_int_equal(r.sm.smCount, 8);
	OK(cuCtxPushCurrent_v2(c));
	before = cu_free_bytes();
	OK(cuMemAlloc_v2(&p, 4 << 20));
	OK(cuMemsetD8_v2(p, 7, 64));
	OK(cuEventCreate(&e, 0));
	OK(cuLaunchKernel(spin, 1, 1, 1, 32, 1, 1, 0, NULL, args, NULL));
	OK(cuEventRecord(e, NULL));
	OK(cuCtxPopCurrent_v2(&c));
	OK(cuCtxSynchronize());
	OK(cuEventQuery(e));
	/* The green context goes, its memory was the primary's and stays. */
	OK(cuGreenCtxDestroy(g));
	FAILS(CUDA_ERROR_CONTEXT_IS_DESTROYED, cuCtxSetCurrent(c));
	unsigned char byte;
	OK(cuMemcpyDtoH_v2(&byte, p, 1));
	assert_int_equal(byte, 7);
	OK(cuMemFree_v2(p));
	assert_int_equal(cu_free_bytes(), before);
}

static void test_context_events(void **state)
{
	CUgreenCtx a = make(8), b = make(8);
	CUfunction spin = cu_function(cu_module(), "spin");
	CUevent end_a, all_a, end_b;
	CUstream in_a, in_b;
	unsigned us = 3000;
	void *args[] = { &us };
	float ms;

	(void)state;
	OK(cuEventCreate(&end_a, 0));
	OK(cuEventCreate(&all_a, 0));
	OK(cuEventCreate(&end_b, 0));
	OK(cuGreenCtxStreamCreate(&in_a, a, CU_STREAM_NON_BLOCKING, 0));
	OK(cuGreenCtxStreamCreate(&in_b, b, CU_STREAM_NON_BLOCKING, 0));
	OK(cuLaunchKernel(spin, 1, 1, 1, 32, 1, 1, 0, in_a, args, NULL));
	OK(cuEventRecord(end_a, in_a));
	OK(cuGreenCtxRecordEvent(a, all_a));
	OK(cuGreenCtxWaitEvent(b, all_a));
	OK(cuEventRecord(end_b, in_b));
	OK(cuCtxSynchronize());
	OK(cuEventElapsedTime(&ms, end_a, all_a));
	assert_true(ms >= 0);
	OK(cuEventElapsedTime(&ms, all_a, end_b));
	assert_true(ms >= 0);
	OK(cuGreenCtxDestroy(a));
	OK(cuGreenCtxDestroy(b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split), cmocka_unit_test(test_units), cmocka_unit_test(test_shared), cmocka_unit_test(test_context_events),
	};

	cu_load();
	return cmocka_run_group_tests(tests, setup, teardown);
}
