/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that uses CUDA and NVML as others do, by their names. Each line of standard input is a step, answered by one line:
 *   nvml         what NVML says of the first device, as JSON
 *   cuda BYTES   takes so much device memory (a context first), copies to it and waits; the driver's code
 *   total        cuDeviceTotalMem, and free and total of cuMemGetInfo
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/cuda_abi.h"
#include "api/nvml_abi.h"

static void *symbol(const char *library, const char *name)
{
	void *lib = dlopen(library, RTLD_NOW | RTLD_LOCAL), *p = lib ? dlsym(lib, name) : NULL;
	if (!p) {
		printf("{\"error\":\"%s\"}\n", lib ? name : dlerror());
		exit(1);
	}
	return p;
}

#define CALL(library, ret, name, ...) ((ret (*)(__VA_ARGS__))(uintptr_t)symbol(library, #name))
#define NV(name, ...) CALL("libnvidia-ml.so.1", nvmlReturn_t, name, __VA_ARGS__)
#define CU(name, ...) CALL("libcuda.so.1", CUresult, name, __VA_ARGS__)

static void nvml(void)
{
	static int started;
	unsigned int count = 0, n = 16;
	nvmlDevice_t d = NULL;
	nvmlMemory_t m = { 0 };
	nvmlUtilization_t u = { 0 };
	nvmlProcessInfo_v1_t v[16];
	nvmlReturn_t r = started++ ? NVML_SUCCESS : NV(nvmlInit_v2, void)();
	if (!r)
		r = NV(nvmlDeviceGetCount_v2, unsigned int *)(&count);
	if (r || !count) {
		printf("{\"code\":%u,\"count\":%u}\n", r, count);
		return;
	}
	r = NV(nvmlDeviceGetHandleByIndex_v2, unsigned int, nvmlDevice_t *)(0, &d);
	if (!r)
		r = NV(nvmlDeviceGetMemoryInfo, nvmlDevice_t, nvmlMemory_t *)(d, &m);
	if (!r)
		r = NV(nvmlDeviceGetUtilizationRates, nvmlDevice_t, nvmlUtilization_t *)(d, &u);
	if (!r)
		r = NV(nvmlDeviceGetComputeRunningProcesses, nvmlDevice_t, unsigned int *, nvmlProcessInfo_v1_t *)(d, &n, v);
	printf("{\"code\":%u,\"count\":%u,\"total\":%llu,\"used\":%llu,\"free\":%llu,\"util\":%u,\"processes\":[", r, count, m.total, m.used,
	       m.free, u.gpu);
	for (unsigned int i = 0; !r && i < n; i++)
		printf("%s[%u,%llu]", i ? "," : "", v[i].pid, v[i].usedGpuMemory);
	printf("]}\n");
}

static void cuda(size_t bytes)
{
	static CUcontext ctx;
	CUdeviceptr p;
	CUresult r = CUDA_SUCCESS;
	if (!ctx) {
		r = CU(cuInit, unsigned int)(0);
		if (!r)
			r = CU(cuCtxCreate_v2, CUcontext *, unsigned int, CUdevice)(&ctx, 0, 0);
	}
	if (!r)
		r = CU(cuMemAlloc_v2, CUdeviceptr *, size_t)(&p, bytes);
	if (!r)
		r = CU(cuMemcpyHtoD_v2, CUdeviceptr, const void *, size_t)(p, &p, sizeof(p));
	if (!r)
		r = CU(cuMemsetD8Async, CUdeviceptr, unsigned char, size_t, CUstream)(p, 1, 4096, NULL);
	if (!r)
		r = CU(cuCtxSynchronize, void)();
	printf("{\"code\":%d}\n", r);
}

static void total(void)
{
	size_t all = 0, room = 0, sum = 0;
	CUresult r = CU(cuDeviceTotalMem_v2, size_t *, CUdevice)(&all, 0);
	if (!r)
		r = CU(cuMemGetInfo_v2, size_t *, size_t *)(&room, &sum);
	printf("{\"code\":%d,\"device\":%zu,\"free\":%zu,\"total\":%zu}\n", r, all, room, sum);
}

int main(void)
{
	char line[64];
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		if (!strncmp(line, "nvml", 4))
			nvml();
		else if (!strncmp(line, "cuda ", 5))
			cuda(strtoul(line + 5, NULL, 10));
		else if (!strncmp(line, "total", 5))
			total();
	}
	return 0;
}
