/* SPDX-License-Identifier: Apache-2.0 */
/* Faults, as a program sees them: test_cuda_fault SIMGPU_CTL. Each test has a context of its own, since a sticky error ends one. */
#include "cu.h"

static const char *ctl;

static void fault(const char *what)
{
	char command[512];

	snprintf(command, sizeof(command), "%s %s fault 0 %s", ctl, getenv("PENSTOCK_SIMGPU"), what);
	assert_int_equal(system(command), 0);
}

/* Every call that has to do with the context says the same, until it is destroyed; then the next one works. */
static void is_broken(CUresult code)
{
	CUdeviceptr p;
	CUstream s;
	CUevent e;

	FAILS(code, cuCtxSynchronize());
	FAILS(code, cuMemAlloc_v2(&p, 64));
	FAILS(code, cuStreamCreate(&s, 0));
	FAILS(code, cuEventCreate(&e, 0));
	FAILS(code, cuStreamSynchronize(NULL));
	FAILS(code, cuCtxSynchronize());
}

static void test_out_of_memory(void **state)
{
	CUdeviceptr p;

	(void)state;
	fault("oom=3");   /* a pool asks twice: for as much as it usually takes, and for as much as it needs */
	FAILS(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc_v2(&p, 4 << 20));
	FAILS(CUDA_ERROR_OUT_OF_MEMORY, cuMemAllocAsync(&p, 64 << 20, NULL));
	OK(cuMemAlloc_v2(&p, 4 << 20));
	OK(cuMemFree_v2(p));
	OK(cuCtxSynchronize());   /* that is no fault of the context */
}

/* A kernel that touches what is not there. */
static void test_illegal_address(void **state)
{
	CUfunction add = cu_function(cu_module(), "vectorAdd");
	CUdeviceptr nowhere = 0x1000;
	int n = 32;
	void *args[] = { &nowhere, &nowhere, &nowhere, &n };

	(void)state;
	OK(cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 0, NULL, args, NULL));
	FAILS(CUDA_ERROR_ILLEGAL_ADDRESS, cuCtxSynchronize());
	is_broken(CUDA_ERROR_ILLEGAL_ADDRESS);
}

static void test_works_again(void **state)
{
	CUdeviceptr p;
	int v = 5;

	(void)state;
	OK(cuMemAlloc_v2(&p, 64));
	OK(cuMemcpyHtoD_v2(p, &v, sizeof(v)));
	OK(cuMemFree_v2(p));
}

static void test_sticky_in_flight(void **state)
{
	CUfunction spin = cu_function(cu_module(), "spin");
	CUcontext other, was;
	unsigned us = 60000000;
	void *args[] = { &us };
	CUstream s;

	(void)state;
	OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	OK(cuLaunchKernel(spin, 1, 1, 1, 32, 1, 1, 0, s, args, NULL));
	fault("sticky");
	FAILS(CUDA_ERROR_ILLEGAL_ADDRESS, cuStreamSynchronize(s));   /* whoever waits is told */
	is_broken(CUDA_ERROR_ILLEGAL_ADDRESS);
	OK(cuCtxCreate_v2(&other, 0, cu_device));
	OK(cuCtxSynchronize());
	OK(cuCtxDestroy_v2(other));
	OK(cuCtxGetCurrent(&was));
	assert_ptr_equal(was, cu_context);
}

static void test_ecc(void **state)
{
	(void)state;
	fault("ecc");
	is_broken(CUDA_ERROR_ECC_UNCORRECTABLE);
}

/* The last: there is no way back. */
static void test_lost(void **state)
{
	CUcontext c;

	(void)state;
	fault("lost");
	is_broken(CUDA_ERROR_UNKNOWN);
	assert_int_not_equal(cu.cuCtxCreate_v2(&c, 0, cu_device), CUDA_SUCCESS);
}

int main(int argc, char **argv)
{
#define EACH(test) cmocka_unit_test_setup_teardown(test, cu_setup, cu_teardown)
	const struct CMUnitTest tests[] = { EACH(test_out_of_memory), EACH(test_illegal_address), EACH(test_works_again), EACH(test_sticky_in_flight),
					    EACH(test_works_again), EACH(test_ecc), EACH(test_works_again), EACH(test_lost) };

	if (argc < 2)
		return 2;
	ctl = argv[1];
	cu_load();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
