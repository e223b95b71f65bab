/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which devices a program sees: those that its contract covers, in the driver's order, or none where it may use nothing; and in
 * an unmanaged process everything as the driver says it.
 *
 * test_view refused | covers N | all | unmanaged DRIVER
 */
#include "cutest.h"

static void refused(void)
{
	int n = 7;
	CUdevice d = 7;
	CUcontext c = NULL;
	CHECK_EQ(cu.cuInit(0), CUDA_ERROR_NO_DEVICE);
	CUresult r = cu.cuDeviceGetCount(&n);
	CHECK(r != CUDA_SUCCESS || n == 0);
	CHECK(cu.cuDeviceGet(&d, 0) != CUDA_SUCCESS);
	CHECK_EQ(d, 7);
	CHECK(cu.cuDevicePrimaryCtxRetain(&c, 0) != CUDA_SUCCESS);
	CHECK(cu.cuCtxCreate_v2(&c, 0, 0) != CUDA_SUCCESS);
	CHECK(!c);
}

/* Of three devices the contract covers the second and the third. */
static void covers(void)
{
	int n = 0;
	CUdevice d[2] = { 9, 9 }, other = 9;
	char address[2][32] = { "", "" };
	CUcontext c = NULL;
	OK(cu.cuInit(0));
	OK(cu.cuDeviceGetCount(&n));
	CHECK_EQ(n, 2);
	CHECK_EQ(cu.cuDeviceGetCount(NULL), CUDA_ERROR_INVALID_VALUE);
	for (int i = 0; i < 2; i++) {
		OK(cu.cuDeviceGet(&d[i], i));
		OK(cu.cuDeviceGetPCIBusId(address[i], sizeof(address[i]), d[i]));
	}
	CHECK(d[0] != d[1]);
	CHECK(strcmp(address[0], address[1]) < 0);
	CHECK_EQ(cu.cuDeviceGet(&other, 2), CUDA_ERROR_INVALID_DEVICE);
	CHECK_EQ(cu.cuDeviceGet(&other, -1), CUDA_ERROR_INVALID_DEVICE);
	CHECK_EQ(cu.cuDeviceGet(NULL, 0), CUDA_ERROR_INVALID_VALUE);
	OK(cu.cuDeviceGetByPCIBusId(&other, address[1]));
	CHECK_EQ(other, d[1]);
	CHECK_EQ(cu.cuDeviceGetByPCIBusId(&other, "0000:01:00.0"), CUDA_ERROR_INVALID_DEVICE);
	CHECK_EQ(cu.cuDeviceGetByPCIBusId(&other, "0000:77:00.0"), CUDA_ERROR_INVALID_DEVICE);
	CHECK_EQ(other, d[1]);
	/* Its number is known; it is not this tenant's all the same. */
	CHECK_EQ(cu.cuCtxCreate_v2(&c, 0, 0), CUDA_ERROR_INVALID_DEVICE);
	CHECK_EQ(cu.cuDevicePrimaryCtxRetain(&c, 0), CUDA_ERROR_INVALID_DEVICE);
	CHECK(!c);
	OK(cu.cuCtxCreate_v2(&c, 0, d[0]));
	OK(cu.cuCtxDestroy_v2(c));
}

static void all(void)
{
	int n = 0;
	CUdevice d;
	CHECK_EQ(cu.cuDeviceGetCount(&n), CUDA_ERROR_NOT_INITIALIZED);
	CHECK_EQ(cu.cuDeviceGet(&d, 0), CUDA_ERROR_NOT_INITIALIZED);
	CHECK_EQ(cu.cuInit(5), CUDA_ERROR_INVALID_VALUE);
	OK(cu.cuInit(0));
	OK(cu.cuInit(0));
	OK(cu.cuDeviceGetCount(&n));
	CHECK_EQ(n, 3);
	for (int i = 0; i < n; i++)
		OK(cu.cuDeviceGet(&d, i));
}

/* The addresses that a program gets are the driver's, and so are all answers. */
static void unmanaged(const char *file)
{
	struct cu_api real;
	size_t total = 0, want = 0, left = 0;
	void *pfn = NULL, *driver_pfn = NULL;
	CUcontext c;
	CUdeviceptr p;
	int n = 0, sms = 0, want_sms = 0;
	OK(cu.cuInit(0));
	void *driver = dlopen(file, RTLD_NOW | RTLD_NOLOAD);
	if (!driver)
		exit(1);
	api_of(driver, &real);
	OK(cu.cuDeviceGetCount(&n));
	CHECK_EQ(n, 3);
	OK(cu.cuDeviceTotalMem_v2(&total, 0));
	OK(real.cuDeviceTotalMem_v2(&want, 0));
	CHECK_EQ(total, want);
	OK(cu.cuDeviceGetAttribute(&sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0));
	OK(real.cuDeviceGetAttribute(&want_sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0));
	CHECK_EQ(sms, want_sms);
	OK(cu.cuGetProcAddress("cuMemAlloc", &pfn, 11000, 0));
	OK(real.cuGetProcAddress("cuMemAlloc", &driver_pfn, 11000, 0));
	CHECK(pfn == driver_pfn);
	OK(cu.cuCtxCreate_v2(&c, 0, 0));
	OK(cu.cuMemAlloc_v2(&p, 256u << 20));   /* more than FAKEGATE_LIMIT */
	OK(cu.cuMemGetInfo_v2(&left, &total));
	CHECK_EQ(total, want);
	OK(cu.cuMemFree_v2(p));
	OK(cu.cuCtxDestroy_v2(c));
	EXPECT(0, 0);
	CHECK_EQ(stats->queues, 0);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	open_shim(argv);
	if (!strcmp(argv[1], "refused"))
		refused();
	else if (!strcmp(argv[1], "covers"))
		covers();
	else if (!strcmp(argv[1], "all"))
		all();
	else
		unmanaged(argv[2]);
	return finished("view");
}
