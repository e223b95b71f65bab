/* SPDX-License-Identifier: Apache-2.0 */
/* Devices, contexts, modules, launches, copies and fills through the stand-in driver. */
#include "cu.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_devices(void **state)
{
	char name[64], bus[32];
	CUdevice again;
	CUuuid uuid;
	size_t bytes;
	int count, v;

	(void)state;
	OK(cuDeviceGetCount(&count));
	assert_true(count >= 1);
	FAILS(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet(&again, count));
	OK(cuDeviceGetName(name, sizeof(name), cu_device));
	assert_true(strlen(name) > 3);
	OK(cuDeviceGetUuid(&uuid, cu_device));
	OK(cuDeviceGetPCIBusId(bus, sizeof(bus), cu_device));
	assert_string_equal(bus + strlen(bus) - 2, ".0");
	OK(cuDeviceGetByPCIBusId(&again, bus));
	assert_int_equal(again, cu_device);
	OK(cuDeviceTotalMem_v2(&bytes, cu_device));
	assert_true(bytes >= (size_t)1 << 30);
	OK(cuDeviceGetAttribute(&v, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, cu_device));
	assert_true(v > 0);
	OK(cuDeviceGetAttribute(&v, CU_DEVICE_ATTRIBUTE_WARP_SIZE, cu_device));
	assert_int_equal(v, 32);
	FAILS(CUDA_ERROR_INVALID_VALUE, cuDeviceGetAttribute(&v, 0, cu_device));
}

static void test_names_of_errors(void **state)
{
	const char *s;

	(void)state;
	OK(cuGetErrorName(CUDA_ERROR_OUT_OF_MEMORY, &s));
	assert_string_equal(s, "CUDA_ERROR_OUT_OF_MEMORY");
	OK(cuGetErrorString(CUDA_ERROR_NOT_READY, &s));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuGetErrorName(12345, &s));
	assert_null(s);
}

static void test_context_stack(void **state)
{
	CUcontext a, b, now;
	CUdevice d;

	(void)state;
	OK(cuCtxCreate_v2(&a, 0, cu_device));
	OK(cuCtxCreate_v2(&b, CU_CTX_SCHED_BLOCKING_SYNC, cu_device));
	OK(cuCtxGetCurrent(&now));
	assert_ptr_equal(now, b);
	OK(cuCtxPopCurrent_v2(&now));
	assert_ptr_equal(now, b);
	OK(cuCtxGetCurrent(&now));
	assert_ptr_equal(now, a);
	OK(cuCtxGetDevice(&d));
	assert_int_equal(d, cu_device);
	/* Destroying the current one pops it. */
	OK(cuCtxDestroy_v2(a));
	OK(cuCtxGetCurrent(&now));
	assert_ptr_equal(now, cu_context);
	FAILS(CUDA_ERROR_CONTEXT_IS_DESTROYED, cuCtxSetCurrent(a));
	OK(cuCtxDestroy_v2(b));
	OK(cuCtxSetCurrent(NULL));
	FAILS(CUDA_ERROR_INVALID_CONTEXT, cuCtxSynchronize());
	OK(cuCtxSetCurrent(cu_context));
}

static void test_primary(void **state)
{
	CUcontext p, q, now;
	unsigned flags;
	int active;

	(void)state;
	OK(cuDevicePrimaryCtxGetState(cu_device, &flags, &active));
	assert_int_equal(active, 0);
	OK(cuDevicePrimaryCtxRetain(&p, cu_device));
	OK(cuDevicePrimaryCtxRetain(&q, cu_device));
	assert_ptr_equal(p, q);
	OK(cuDevicePrimaryCtxRelease_v2(cu_device));
	OK(cuDevicePrimaryCtxGetState(cu_device, &flags, &active));
	assert_int_equal(active, 1);
	OK(cuCtxPushCurrent_v2(p));
	CUevent e;
	OK(cuEventCreate(&e, 0));
	OK(cuEventRecord(e, NULL));
	OK(cuDevicePrimaryCtxReset_v2(cu_device));
	FAILS(CUDA_ERROR_CONTEXT_IS_DESTROYED, cuCtxSynchronize());
	OK(cuDevicePrimaryCtxRetain(&q, cu_device));
	assert_ptr_equal(p, q);   /* the handle is the same, and alive again */
	OK(cuCtxSynchronize());
	FAILS(CUDA_ERROR_CONTEXT_IS_DESTROYED, cuEventQuery(e));   /* what was in it before is not */
	OK(cuEventDestroy_v2(e));
	OK(cuCtxPopCurrent_v2(&now));
	OK(cuDevicePrimaryCtxRelease_v2(cu_device));
	FAILS(CUDA_ERROR_INVALID_CONTEXT, cuDevicePrimaryCtxRelease_v2(cu_device));
}

/* Memory, modules and streams of a context go with it. */
static void test_destroy_frees(void **state)
{
	size_t before = cu_free_bytes();
	CUdeviceptr p, q;
	CUstream s;
	CUcontext c;

	(void)state;
	OK(cuCtxCreate_v2(&c, 0, cu_device));
	OK(cuMemAlloc_v2(&p, 64 << 20));
	OK(cuMemAlloc_v2(&q, 100));
	OK(cuStreamCreate(&s, 0));
	cu_module();
	assert_true(cu_free_bytes() <= before - (64 << 20));
	OK(cuCtxDestroy_v2(c));
	assert_int_equal(cu_free_bytes(), before);
}

static void *no_context(void *unused)
{
	CUcontext now = cu_context;
	CUdeviceptr p;

	OK(cuCtxGetCurrent(&now));
	assert_null(now);
	FAILS(CUDA_ERROR_INVALID_CONTEXT, cuMemAlloc_v2(&p, 16));
	return unused;
}

static void test_current_is_of_the_thread(void **state)
{
	pthread_t t;

	(void)state;
	pthread_create(&t, NULL, no_context, NULL);
	pthread_join(t, NULL);
}

static void test_modules(void **state)
{
	CUmodule m = cu_module();
	CUfunction f;
	CUdeviceptr p;
	size_t bytes;
	int v, grid, block;

	(void)state;
	f = cu_function(m, "vectorAdd");
	FAILS(CUDA_ERROR_NOT_FOUND, cuModuleGetFunction(&f, m, "nothing"));
	OK(cuModuleGetGlobal_v2(&p, &bytes, m, "table"));
	assert_int_equal(bytes, 64);
	OK(cuFuncGetAttribute(&v, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, f));
	assert_int_equal(v, 1024);
	OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&v, f, 256, 0));
	assert_true(v >= 2);
	OK(cuOccupancyMaxPotentialBlockSize(&grid, &block, f, NULL, 0, 0));
	assert_true(block % 32 == 0 && grid > 0);
	/* Shared memory bounds it: 32 KiB of the 64 of a unit. */
	OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&v, cu_function(m, "big"), 128, 0));
	assert_true(v >= 1 && v <= 7);
	FAILS(CUDA_ERROR_INVALID_PTX, cuModuleLoadData(&m, "no ptx at all"));
	FAILS(CUDA_ERROR_INVALID_PTX, cuModuleLoadData(&m, ".version 6.0\n.target sm_50\n// simgpu: none block_ns=1\n"));
	OK(cuModuleUnload(m));
}

static void test_vector_add(void **state)
{
	enum { N = 10000 };
	float *a = malloc(N * sizeof(*a)), *b = malloc(N * sizeof(*b)), *c = calloc(N, sizeof(*c));
	CUfunction f = cu_function(cu_module(), "vectorAdd");
	CUdeviceptr da, db, dc;
	int n = N;

	(void)state;
	for (int i = 0; i < N; i++) {
		a[i] = (float)i;
		b[i] = 2.0f * (float)i;
	}
	OK(cuMemAlloc_v2(&da, N * sizeof(*a)));
	OK(cuMemAlloc_v2(&db, N * sizeof(*b)));
	OK(cuMemAlloc_v2(&dc, N * sizeof(*c)));
	OK(cuMemcpyHtoD_v2(da, a, N * sizeof(*a)));
	OK(cuMemcpyHtoD_v2(db, b, N * sizeof(*b)));
	void *args[] = { &da, &db, &dc, &n };
	OK(cuLaunchKernel(f, (N + 255) / 256, 1, 1, 256, 1, 1, 0, NULL, args, NULL));
	OK(cuMemcpyDtoH_v2(c, dc, N * sizeof(*c)));
	for (int i = 0; i < N && !cu_null(); i++)
		assert_true(c[i] == 3.0f * (float)i);

	/* The same with packed parameters, and with a launch as of CUDA 2. */
	struct {
		CUdeviceptr a, b, c;
		int n;
	} packed = { da, dc, db, N };
	size_t bytes = sizeof(packed);
	void *extra[] = { CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END };
	OK(cuLaunchKernel(f, (N + 255) / 256, 1, 1, 256, 1, 1, 0, NULL, NULL, extra));
	OK(cuMemcpyDtoH_v2(c, db, N * sizeof(*c)));
	for (int i = 0; i < N && !cu_null(); i++)
		assert_true(c[i] == 4.0f * (float)i);
	OK(cuFuncSetBlockShape(f, 256, 1, 1));
	OK(cuParamSetv(f, 0, &packed, sizeof(packed)));
	OK(cuParamSetSize(f, sizeof(packed)));
	OK(cuLaunchGrid(f, (N + 255) / 256, 1));
	OK(cuCtxSynchronize());
	FAILS(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(f, 1, 1, 1, 2000, 1, 1, 0, NULL, args, NULL));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(f, 0, 1, 1, 1, 1, 1, 0, NULL, args, NULL));
	OK(cuMemFree_v2(da));
	OK(cuMemFree_v2(db));
	OK(cuMemFree_v2(dc));
	free(a);
	free(b);
	free(c);
}

static void test_copies(void **state)
{
	unsigned char in[4096], out[4096];
	CUdeviceptr p, q;
	void *host;

	(void)state;
	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (unsigned char)(i * 7);
	OK(cuMemAlloc_v2(&p, sizeof(in)));
	OK(cuMemAlloc_v2(&q, sizeof(in)));
	OK(cuMemHostAlloc(&host, sizeof(in), 0));
	OK(cuMemcpyHtoDAsync_v2(p, in, sizeof(in), NULL));
	OK(cuMemcpyDtoD_v2(q, p, sizeof(in)));
	OK(cuMemcpyDtoHAsync_v2(host, q, sizeof(in), NULL));
	OK(cuStreamSynchronize(NULL));
	assert_memory_equal(host, in, sizeof(in));
	OK(cuMemsetD8_v2(p + 16, 0xab, 16));
	OK(cuMemsetD16_v2(p + 64, 0x1234, 8));
	OK(cuMemsetD32_v2(p + 128, 0xdeadbeef, 4));
	OK(cuMemcpy((CUdeviceptr)(uintptr_t)out, p, sizeof(out)));
	assert_int_equal(out[15], in[15]);
	assert_int_equal(out[16], 0xab);
	assert_int_equal(out[31], 0xab);
	assert_int_equal(out[32], in[32]);
	assert_int_equal(((unsigned short *)out)[32], 0x1234);
	assert_int_equal(((unsigned int *)out)[35], 0xdeadbeef);
	/* Rows of a pitch. */
	CUDA_MEMCPY2D_v2 c = { .srcMemoryType = CU_MEMORYTYPE_HOST, .srcHost = in, .srcPitch = 64, .srcXInBytes = 4, .srcY = 1,
			       .dstMemoryType = CU_MEMORYTYPE_DEVICE, .dstDevice = q, .dstPitch = 128, .WidthInBytes = 16, .Height = 8 };
	OK(cuMemsetD2D8_v2(q, 128, 0, 128, 32));
	OK(cuMemcpy2D_v2(&c));
	OK(cuMemcpyDtoH_v2(out, q, sizeof(out)));
	for (size_t y = 0; y < 8; y++) {
		assert_memory_equal(out + 128 * y, in + 64 * (y + 1) + 4, 16);
		assert_int_equal(out[128 * y + 16], 0);
	}
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD_v2(0x10, in, 16));
	c.dstPitch = 8;
	FAILS(CUDA_ERROR_INVALID_VALUE, cuMemcpy2D_v2(&c));
	OK(cuMemFreeHost(host));
	OK(cuMemFree_v2(p));
	OK(cuMemFree_v2(q));
}

/* A child of a process that used the device must not use it. */
static void test_fork(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		CUdeviceptr p;

		_exit(cu.cuInit(0) == CUDA_ERROR_NOT_INITIALIZED && cu.cuMemAlloc_v2(&p, 16) == CUDA_ERROR_NOT_INITIALIZED ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	OK(cuCtxSynchronize());
}

static void test_libraries(void **state)
{
	CUlibrary lib;
	CUkernel k;
	CUfunction f;
	CUdeviceptr p;
	size_t bytes;
	int v;

	(void)state;
	if (!cu.cuLibraryLoadData)
		return;
	OK(cuLibraryLoadData(&lib, cu_ptx, NULL, NULL, 0, NULL, NULL, 0));
	OK(cuLibraryGetKernel(&k, lib, "spin"));
	OK(cuKernelGetFunction(&f, k));
	OK(cuKernelGetAttribute(&v, CU_FUNC_ATTRIBUTE_NUM_REGS, k, cu_device));
	OK(cuLibraryGetGlobal(&p, &bytes, lib, "table"));
	assert_int_equal(bytes, 64);
	unsigned us = 3;
	void *args[] = { &us };
	OK(cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 0, NULL, args, NULL));
	OK(cuLaunchKernel((CUfunction)k, 1, 1, 1, 32, 1, 1, 0, NULL, args, NULL));   /* a kernel stands for a function */
	OK(cuCtxSynchronize());
	FAILS(CUDA_ERROR_NOT_FOUND, cuLibraryGetKernel(&k, lib, "nothing"));
	OK(cuLibraryUnload(lib));
}

static void test_linker(void **state)
{
	CUlinkState l;
	CUmodule m;
	size_t bytes;
	void *image;

	(void)state;
	OK(cuLinkCreate_v2(0, NULL, NULL, &l));
	OK(cuLinkAddData_v2(l, 1, (void *)(uintptr_t)cu_ptx, sizeof(cu_ptx), "a", 0, NULL, NULL));
	static const char more[] = ".version 6.0\n.target sm_50\n.visible .entry second()\n.maxntid 64, 2\n{\nret;\n}\n";
	OK(cuLinkAddData_v2(l, 1, (void *)(uintptr_t)more, sizeof(more), "b", 0, NULL, NULL));
	OK(cuLinkComplete(l, &image, &bytes));
	OK(cuModuleLoadData(&m, image));
	cu_function(m, "spin");
	int v;
	OK(cuFuncGetAttribute(&v, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, cu_function(m, "second")));
	assert_int_equal(v, 128);
	FAILS(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, cuLaunchCooperativeKernel(cu_function(m, "second"), 1, 1, 1, 256, 1, 1, 0, NULL, NULL));
	OK(cuLinkDestroy(l));
	OK(cuModuleUnload(m));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_devices), cmocka_unit_test(test_names_of_errors), cmocka_unit_test(test_context_stack),
		cmocka_unit_test(test_primary), cmocka_unit_test(test_destroy_frees), cmocka_unit_test(test_current_is_of_the_thread),
		cmocka_unit_test(test_modules), cmocka_unit_test(test_vector_add), cmocka_unit_test(test_copies), cmocka_unit_test(test_fork),
		cmocka_unit_test(test_libraries), cmocka_unit_test(test_linker),
	};

	cu_load();
	return cmocka_run_group_tests(tests, cu_setup, cu_teardown);
}
