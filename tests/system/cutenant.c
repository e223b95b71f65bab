/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A CUDA program that does as it is told: one command a line on stdin, one answer a line on stdout. It knows nothing of Penstock,
 * and opens the driver and NVML by name, as the runtime and monitoring programs do.
 *
 *   open [1]        cuInit, a context on the first device; 1: the primary one   -> CODE
 *   alloc BYTES     one block more                             -> CODE
 *   free            all of them                                -> 0
 *   memory          cuMemGetInfo                               -> FREE TOTAL
 *   nvml            nvmlDeviceGetMemoryInfo of the first one   -> FREE TOTAL USED, or -CODE
 *   spin N US       N kernels of one block, then awaited       -> CODE
 *   give N US       N kernels, not awaited                     -> CODE
 *   graph N US      N kernels, captured as a graph, run        -> CODE
 *   there BYTES     to the device and back                     -> bytes that differ, or -CODE
 *   wide            a kernel of many blocks, one on each multiprocessor   -> microseconds by events, or -CODE
 *   units           multiprocessors of the device              -> N
 *   load US         a thread that spins for ever               -> 0
 *   rounds          of that thread                             -> N
 *   exit
 */
#include "api/cuda_abi.h"
#include "api/nvml_abi.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCKS 4096

static struct {
#define PEN_CU(symbol, family, since, thread, class, types) CUresult (*symbol) types;
#include "api/cuda.def"
} cu;
static CUdevice device;
static CUcontext context;
static CUfunction spin, wide;
static CUdeviceptr block[BLOCKS];
static unsigned n_blocks;
static _Atomic uint64_t rounds;

static const char ptx[] =
	".version 6.0\n.target sm_50\n.address_size 64\n"
	"// simgpu: spin block_ns=arg0*1000\n"
	"// simgpu: wide block_ns=1000000 blocks_per_unit=1\n"
	".visible .entry spin(.param .u32 us)\n"
	"{\n"
	"	.reg .pred %p<2>;\n	.reg .b32 %r<2>;\n	.reg .b64 %rd<6>;\n"
	"	ld.param.u32 %r1, [us];\n	mul.wide.u32 %rd1, %r1, 1000;\n	mov.u64 %rd2, %globaltimer;\n"
	"again:\n	mov.u64 %rd3, %globaltimer;\n	sub.s64 %rd4, %rd3, %rd2;\n	setp.lt.u64 %p1, %rd4, %rd1;\n	@%p1 bra again;\n	ret;\n"
	"}\n"
	".visible .entry wide(.param .u32 unused)\n{\n	ret;\n}\n";

static int open_device(bool primary)
{
	void *lib = dlopen("libcuda.so.1", RTLD_NOW);
	CUmodule module;
	if (!lib)
		return -1;
#define PEN_CU(symbol, family, since, thread, class, types) cu.symbol = (CUresult(*) types)dlsym(lib, #symbol);
#include "api/cuda.def"
	CUresult r = cu.cuInit(0);
	if (!r)
		r = cu.cuDeviceGet(&device, 0);
	if (!r)
		r = primary ? cu.cuDevicePrimaryCtxRetain(&context, device) : cu.cuCtxCreate_v2(&context, 0, device);
	if (!r)
		r = cu.cuCtxSetCurrent(context);
	if (!r)
		r = cu.cuModuleLoadData(&module, ptx);
	if (!r)
		r = cu.cuModuleGetFunction(&spin, module, "spin");
	return r ? (int)r : (int)cu.cuModuleGetFunction(&wide, module, "wide");
}

static int alloc_one(unsigned long long bytes)
{
	CUresult r = n_blocks < BLOCKS ? cu.cuMemAlloc_v2(&block[n_blocks], bytes) : CUDA_ERROR_INVALID_VALUE;
	n_blocks += r == CUDA_SUCCESS;
	return (int)r;
}

static CUresult give(CUstream stream, unsigned n, unsigned us)
{
	void *args[] = { &us };
	CUresult r = CUDA_SUCCESS;
	while (!r && n--)
		r = cu.cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, stream, args, NULL);
	return r;
}

static int run(unsigned n, unsigned us)
{
	CUresult r = give(NULL, n, us);
	return r ? (int)r : (int)cu.cuCtxSynchronize();
}

static int run_graph(unsigned n, unsigned us)
{
	CUstream stream;
	CUgraph graph;
	CUgraphExec exec;
	CUresult r = cu.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
	if (!r)
		r = cu.cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
	if (!r)
		r = give(stream, n, us);
	if (!r)
		r = cu.cuStreamEndCapture(stream, &graph);
	if (!r)
		r = cu.cuGraphInstantiateWithFlags(&exec, graph, 0);
	if (!r)
		r = cu.cuGraphLaunch(exec, stream);
	if (!r)
		r = cu.cuStreamSynchronize(stream);
	if (!r) {
		cu.cuGraphExecDestroy(exec);
		cu.cuGraphDestroy(graph);
		cu.cuStreamDestroy_v2(stream);
	}
	return (int)r;
}

static long there_and_back(size_t bytes)
{
	unsigned char *out = NULL, *back = NULL;
	CUdeviceptr p;
	CUresult r = cu.cuMemAlloc_v2(&p, bytes);
	if (!r)
		r = cu.cuMemHostAlloc((void **)&out, bytes, 0);
	if (!r)
		r = cu.cuMemHostAlloc((void **)&back, bytes, 0);
	if (r)
		return -(long)r;
	for (size_t i = 0; i < bytes; i++)
		out[i] = (unsigned char)(i * 2654435761U >> 13);
	memset(back, 0, bytes);
	r = cu.cuMemcpyHtoDAsync_v2(p, out, bytes, NULL);
	if (!r)
		r = cu.cuMemcpyDtoHAsync_v2(back, p, bytes, NULL);
	if (!r)
		r = cu.cuStreamSynchronize(NULL);
	long wrong = 0;
	for (size_t i = 0; i < bytes; i++)
		wrong += out[i] != back[i];
	cu.cuMemFreeHost(out);
	cu.cuMemFreeHost(back);
	cu.cuMemFree_v2(p);
	return r ? -(long)r : wrong;
}

static long run_wide(void)
{
	unsigned unused = 0;
	void *args[] = { &unused };
	CUevent before, after;
	float ms = 0;
	CUresult r = cu.cuEventCreate(&before, 0);
	if (!r)
		r = cu.cuEventCreate(&after, 0);
	if (!r)
		r = cu.cuEventRecord(before, NULL);
	if (!r)
		r = cu.cuLaunchKernel(wide, 40, 1, 1, 32, 1, 1, 0, NULL, args, NULL);
	if (!r)
		r = cu.cuEventRecord(after, NULL);
	if (!r)
		r = cu.cuEventSynchronize(after);
	if (!r)
		r = cu.cuEventElapsedTime(&ms, before, after);
	return r ? -(long)r : (long)(ms * 1000);
}

static void *load(void *arg)
{
	cu.cuCtxSetCurrent(context);
	while (!run(1, (unsigned)(uintptr_t)arg))
		atomic_fetch_add(&rounds, 1);
	return NULL;
}

static void say_memory(void)
{
	size_t free_bytes = 0, total = 0;
	CUresult r = cu.cuMemGetInfo_v2(&free_bytes, &total);
	printf("%zu %zu\n", r ? 0 : free_bytes, r ? (size_t)r : total);
}

static void say_nvml(void)
{
	static void *lib;
	nvmlDevice_t d;
	nvmlMemory_t m = { 0 };
	if (!lib)
		lib = dlopen("libnvidia-ml.so.1", RTLD_NOW);
	if (!lib) {
		puts("-1");
		return;
	}
	nvmlReturn_t (*init)(void) = (nvmlReturn_t(*)(void))dlsym(lib, "nvmlInit_v2");
	nvmlReturn_t (*get)(unsigned, nvmlDevice_t *) = (nvmlReturn_t(*)(unsigned, nvmlDevice_t *))dlsym(lib, "nvmlDeviceGetHandleByIndex_v2");
	nvmlReturn_t (*info)(nvmlDevice_t, nvmlMemory_t *) = (nvmlReturn_t(*)(nvmlDevice_t, nvmlMemory_t *))dlsym(lib, "nvmlDeviceGetMemoryInfo");
	nvmlReturn_t r = init();
	if (!r)
		r = get(0, &d);
	if (!r)
		r = info(d, &m);
	if (r)
		printf("-%u\n", r);
	else
		printf("%llu %llu %llu\n", m.free, m.total, m.used);
}

static void obey(const char *line)
{
	unsigned long long a = 0, b = 0;
	char word[16] = "";
	pthread_t thread;
	sscanf(line, "%15s %llu %llu", word, &a, &b);
	if (!strcmp(word, "open")) {
		printf("%d\n", open_device(a));
	} else if (!strcmp(word, "alloc")) {
		printf("%d\n", alloc_one(a));
	} else if (!strcmp(word, "free")) {
		while (n_blocks)
			cu.cuMemFree_v2(block[--n_blocks]);
		puts("0");
	} else if (!strcmp(word, "memory")) {
		say_memory();
	} else if (!strcmp(word, "nvml")) {
		say_nvml();
	} else if (!strcmp(word, "spin")) {
		printf("%d\n", run((unsigned)a, (unsigned)b));
	} else if (!strcmp(word, "give")) {
		printf("%d\n", (int)give(NULL, (unsigned)a, (unsigned)b));
	} else if (!strcmp(word, "graph")) {
		printf("%d\n", run_graph((unsigned)a, (unsigned)b));
	} else if (!strcmp(word, "there")) {
		printf("%ld\n", there_and_back(a));
	} else if (!strcmp(word, "wide")) {
		printf("%ld\n", run_wide());
	} else if (!strcmp(word, "units")) {
		int n = -1;
		cu.cuDeviceGetAttribute(&n, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device);
		printf("%d\n", n);
	} else if (!strcmp(word, "load")) {
		printf("%d\n", pthread_create(&thread, NULL, load, (void *)(uintptr_t)a));
	} else if (!strcmp(word, "rounds")) {
		printf("%llu\n", (unsigned long long)atomic_load(&rounds));
	} else {
		puts("what?");
	}
	fflush(stdout);
}

int main(void)
{
	char line[256];
	printf("ready %d\n", (int)getpid());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "exit\n"))
			break;
		obey(line);
	}
	_exit(0);   /* what the load thread does to a driver that is being taken down is no part of a test */
}
