/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does CUDA still do what it says? Small programs on the driver interface whose results can be checked. Run natively and under a
 * contract; both must pass, and the lines that begin with "code" must be the same in both.
 *
 *   cucheck [--memory BYTES] [--real PATH] [NAME...]     all checks, or some; --list prints their names
 *     --memory  the contract: what every view of the memory must show as the total
 *     --real    the driver's own library, to compare answers of cuGetProcAddress with
 * Lines: "ok NAME", "not ok NAME: why", "skip NAME: why", "code NAME: what the driver answered". Exit 1: something is not ok.
 */
#include "cudrv.h"
#include "cuptx.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define N 65536u   /* floats of a small array */
#define LINK 50u   /* kernels of a chain */

static CUdevice device;
static CUcontext context;
static CUfunction add, spin, empty;
static uint64_t memory_bytes;
static const char *real_path;
static const char *current = "";
static int bad;

__attribute__((format(printf, 1, 2))) static int not_ok(const char *format, ...)
{
	va_list ap;

	printf("not ok %s: ", current);
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	putchar('\n');
	bad = 1;
	return -1;
}

static int skip(const char *why)
{
	printf("skip %s: %s\n", current, why);
	return 1;
}

#define TRY(call) \
	do { \
		CUresult r_ = (call); \
		if (r_) \
			return not_ok("line %d: %s", __LINE__, cu_error(r_)); \
	} while (0)

static void *tried(const char *symbol)
{
	return cu_find(cu.library, symbol);
}

/* ---- results ---------------------------------------------------------------------------------------------------- */

struct arrays {
	CUdeviceptr a, b, c;
};

static int make_arrays(struct arrays *v, unsigned n)
{
	float *host = malloc(n * sizeof(float));
	CUresult r = host ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;

	for (unsigned i = 0; !r && i < n; i++)
		host[i] = (float)(i % 1000);
	r = r ? r : cu.cuMemAlloc_v2(&v->a, n * sizeof(float));
	r = r ? r : cu.cuMemAlloc_v2(&v->b, n * sizeof(float));
	r = r ? r : cu.cuMemAlloc_v2(&v->c, n * sizeof(float));
	r = r ? r : cu.cuMemcpyHtoD_v2(v->a, host, n * sizeof(float));
	r = r ? r : cu.cuMemsetD32_v2(v->b, 0x3f800000, n);   /* 1.0 */
	r = r ? r : cu.cuMemsetD32_v2(v->c, 0, n);
	r = r ? r : cu.cuCtxSynchronize();   /* fills return at once, and a non-blocking stream does not wait for them */
	free(host);
	TRY(r);
	return 0;
}

static void drop_arrays(struct arrays *v)
{
	cu.cuMemFree_v2(v->a);
	cu.cuMemFree_v2(v->b);
	cu.cuMemFree_v2(v->c);
}

/* @p must hold i % 1000 + @more. */
static int check_array(CUdeviceptr p, unsigned n, float more)
{
	float *host = malloc(n * sizeof(float));
	unsigned wrong = 0;
	CUresult r = host ? cu.cuMemcpyDtoH_v2(host, p, n * sizeof(float)) : CUDA_ERROR_OUT_OF_MEMORY;

	for (unsigned i = 0; !r && i < n; i++) {
		float want = (float)(i % 1000) + more;

		wrong += host[i] < want || host[i] > want;
	}
	free(host);
	TRY(r);
	return wrong ? not_ok("%u of %u results are wrong", wrong, n) : 0;
}

static CUresult launch_add(cu_fn_cuLaunchKernel *launch, CUstream s, CUdeviceptr a, CUdeviceptr b, CUdeviceptr c,
			   unsigned n)
{
	void *args[] = { &a, &b, &c, &n };

	return launch(add, (n + CU_BLOCK - 1) / CU_BLOCK, 1, 1, CU_BLOCK, 1, 1, 0, s, args, NULL);
}

static int check_launch(void)
{
	cu_fn_cuLaunchKernel *launch[] = { cu.cuLaunchKernel, cu.cuLaunchKernel_ptsz };
	struct arrays v;

	for (unsigned i = 0; i < 2; i++) {
		if (make_arrays(&v, N))
			return -1;
		TRY(launch_add(launch[i], NULL, v.a, v.b, v.c, N));
		TRY(i ? cu.cuStreamSynchronize_ptsz(NULL) : cu.cuStreamSynchronize(NULL));
		if (check_array(v.c, N, 1))
			return -1;
		drop_arrays(&v);
	}
	return 0;
}

static int check_launch_ex(void)
{
	CUlaunchConfig c = { .gridDimX = N / CU_BLOCK, .gridDimY = 1, .gridDimZ = 1, .blockDimX = CU_BLOCK, .blockDimY = 1,
			     .blockDimZ = 1 };
	struct arrays v;
	unsigned n = N;
	void *args[] = { &v.a, &v.b, &v.c, &n };

	if (!cu.cuLaunchKernelEx)
		return skip("this driver has no cuLaunchKernelEx");
	if (make_arrays(&v, N))
		return -1;
	TRY(cu.cuLaunchKernelEx(&c, add, args, NULL));
	TRY(cu.cuCtxSynchronize());
	if (check_array(v.c, N, 1))
		return -1;
	drop_arrays(&v);
	return 0;
}

/* Parameters packed by hand, as `extra`. */
static int check_launch_extra(void)
{
	struct arrays v;
	struct {
		CUdeviceptr a, b, c;
		unsigned n;
	} packed;
	size_t size = 3 * sizeof(CUdeviceptr) + sizeof(unsigned);
	void *extra[] = { CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &size, CU_LAUNCH_PARAM_END };

	if (make_arrays(&v, N))
		return -1;
	packed.a = v.a, packed.b = v.b, packed.c = v.c, packed.n = N;
	TRY(cu.cuLaunchKernel(add, N / CU_BLOCK, 1, 1, CU_BLOCK, 1, 1, 0, NULL, NULL, extra));
	TRY(cu.cuCtxSynchronize());
	if (check_array(v.c, N, 1))
		return -1;
	drop_arrays(&v);
	return 0;
}

static int check_cooperative(void)
{
	struct arrays v;
	unsigned n = 1024;   /* few enough blocks to be on any device together */
	void *args[] = { &v.a, &v.b, &v.c, &n };

	if (make_arrays(&v, N))
		return -1;
	CUresult r = cu.cuLaunchCooperativeKernel(add, n / CU_BLOCK, 1, 1, CU_BLOCK, 1, 1, 0, NULL, args);

	if (r == CUDA_ERROR_NOT_SUPPORTED)
		return skip("cooperative launches are not supported");
	TRY(r);
	TRY(cu.cuCtxSynchronize());
	if (check_array(v.c, n, 1))
		return -1;
	drop_arrays(&v);
	return 0;
}

/* Order in a stream, and each exactly once: a = a + 1, fifty times, forth and back between two arrays. */
static int check_order(void)
{
	struct arrays v;
	CUstream s;

	if (make_arrays(&v, N))
		return -1;
	TRY(cu.cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	for (unsigned i = 0; i < LINK; i++)
		TRY(i % 2 ? launch_add(cu.cuLaunchKernel, s, v.c, v.b, v.a, N) :
			    launch_add(cu.cuLaunchKernel, s, v.a, v.b, v.c, N));
	TRY(cu.cuStreamSynchronize(s));
	if (check_array(v.a, N, LINK))
		return -1;
	TRY(cu.cuStreamDestroy_v2(s));
	drop_arrays(&v);
	return 0;
}

/* The same between two streams, ordered by events alone. */
static int check_events(void)
{
	struct arrays v;
	CUstream s[2];
	CUevent e[LINK], first, last;
	float ms = -1;

	if (make_arrays(&v, N))
		return -1;
	TRY(cu.cuEventCreate(&first, CU_EVENT_DEFAULT));
	TRY(cu.cuEventCreate(&last, CU_EVENT_DEFAULT));
	for (unsigned i = 0; i < 2; i++)
		TRY(cu.cuStreamCreate(&s[i], CU_STREAM_NON_BLOCKING));
	TRY(cu.cuEventRecord(first, s[0]));
	for (unsigned i = 0; i < LINK; i++) {
		if (i)
			TRY(cu.cuStreamWaitEvent(s[i % 2], e[i - 1], 0));
		TRY(i % 2 ? launch_add(cu.cuLaunchKernel, s[1], v.c, v.b, v.a, N) :
			    launch_add(cu.cuLaunchKernel, s[0], v.a, v.b, v.c, N));
		TRY(cu.cuEventCreate(&e[i], CU_EVENT_DISABLE_TIMING));
		TRY(cu.cuEventRecord(e[i], s[i % 2]));
	}
	TRY(cu.cuEventRecord(last, s[(LINK - 1) % 2]));
	TRY(cu.cuEventSynchronize(last));
	TRY(cu.cuEventElapsedTime(&ms, first, last));
	if (check_array(v.a, N, LINK))
		return -1;
	if (!(ms > 0))
		return not_ok("%u kernels took %f ms", LINK, (double)ms);
	for (unsigned i = 0; i < LINK; i++)
		TRY(cu.cuEventDestroy_v2(e[i]));
	for (unsigned i = 0; i < 2; i++)
		TRY(cu.cuStreamDestroy_v2(s[i]));
	drop_arrays(&v);
	return 0;
}

/* ---- copies, callbacks, words ------------------------------------------------------------------------------------ */

/* Large enough to be cut; an odd length, so that the last piece is not like the others. */
static int check_copies(void)
{
	size_t bytes = 48 * MIB + 12345;
	unsigned char *pinned, *plain = malloc(bytes);
	CUdeviceptr p, q;
	CUstream s;
	size_t wrong = 0;

	if (!plain)
		return not_ok("no memory");
	TRY(cu.cuMemHostAlloc((void **)&pinned, bytes, 0));
	TRY(cu.cuMemAlloc_v2(&p, bytes));
	TRY(cu.cuMemAlloc_v2(&q, bytes));
	TRY(cu.cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	for (size_t i = 0; i < bytes; i++)
		pinned[i] = (unsigned char)(i * 2654435761u >> 13);
	memset(plain, 0, bytes);
	TRY(cu.cuMemcpyHtoDAsync_v2(p, pinned, bytes, s));
	TRY(cu.cuMemcpyDtoDAsync_v2(q, p, bytes, s));
	TRY(cu.cuMemsetD8Async(p, 0, bytes, s));
	TRY(cu.cuStreamSynchronize(s));
	TRY(cu.cuMemcpyDtoH_v2(plain, q, bytes));
	for (size_t i = 0; i < bytes; i++)
		wrong += plain[i] != pinned[i];
	TRY(cu.cuMemcpyHtoD_v2(p, plain, bytes));
	memset(pinned, 0, bytes);
	TRY(cu.cuMemcpyDtoHAsync_v2(pinned, p, bytes, s));
	TRY(cu.cuStreamSynchronize(s));
	for (size_t i = 0; i < bytes; i++)
		wrong += plain[i] != pinned[i];
	TRY(cu.cuMemFree_v2(p));
	TRY(cu.cuMemFree_v2(q));
	TRY(cu.cuMemFreeHost(pinned));
	TRY(cu.cuStreamDestroy_v2(s));
	free(plain);
	return wrong ? not_ok("%zu bytes are wrong", wrong) : 0;
}

static void count_one(void *arg)
{
	atomic_fetch_add((_Atomic unsigned *)arg, 1);
}

static void count_callback(CUstream s, CUresult r, void *arg)
{
	(void)s;
	if (!r)
		atomic_fetch_add((_Atomic unsigned *)arg, 1);
}

static int check_host_functions(void)
{
	_Atomic unsigned n = 0;
	struct arrays v;
	CUstream s;

	if (make_arrays(&v, N))
		return -1;
	TRY(cu.cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	for (unsigned i = 0; i < 20; i++) {
		TRY(launch_add(cu.cuLaunchKernel, s, v.a, v.b, v.c, N));
		TRY(cu.cuLaunchHostFunc(s, count_one, &n));
		TRY(cu.cuStreamAddCallback(s, count_callback, &n, 0));
	}
	TRY(cu.cuStreamSynchronize(s));
	TRY(cu.cuStreamDestroy_v2(s));
	drop_arrays(&v);
	return n == 40 ? 0 : not_ok("%u of 40 functions ran", n);
}

/* A stream that waits for a word of the host, and another that must not wait with it. */
static int check_wait_value(void)
{
	cu_fn_cuStreamWaitValue32_v2 *wait = cu.cuStreamWaitValue32_v2 ? cu.cuStreamWaitValue32_v2 : cu.cuStreamWaitValue32;
	volatile uint32_t *word;
	CUdeviceptr at;
	struct arrays v;
	CUstream s[2];

	TRY(cu.cuMemHostAlloc((void **)(uintptr_t)&word, 64, CU_MEMHOSTALLOC_DEVICEMAP));
	TRY(cu.cuMemHostGetDevicePointer_v2(&at, (void *)(uintptr_t)word, 0));
	*word = 0;
	if (make_arrays(&v, N))
		return -1;
	for (unsigned i = 0; i < 2; i++)
		TRY(cu.cuStreamCreate(&s[i], CU_STREAM_NON_BLOCKING));
	CUresult r = wait(s[0], at, 1, CU_STREAM_WAIT_VALUE_GEQ);

	if (r == CUDA_ERROR_NOT_SUPPORTED)
		return skip("waiting for words is not enabled on this driver");
	TRY(r);
	TRY(launch_add(cu.cuLaunchKernel, s[0], v.a, v.b, v.c, N));
	TRY(launch_add(cu.cuLaunchKernel, s[1], v.b, v.b, v.a, N));
	TRY(cu.cuStreamSynchronize(s[1]));
	r = cu.cuStreamQuery(s[0]);
	if (r != CUDA_ERROR_NOT_READY)
		return not_ok("a stream that waits for a word says %s", cu_error(r));
	*word = 1;
	TRY(cu.cuStreamSynchronize(s[0]));
	for (unsigned i = 0; i < 2; i++)
		TRY(cu.cuStreamDestroy_v2(s[i]));
	TRY(cu.cuMemFreeHost((void *)(uintptr_t)word));
	drop_arrays(&v);
	return 0;
}

/* ---- graphs and capture ------------------------------------------------------------------------------------------ */

static int check_graph(void)
{
	struct arrays v;
	unsigned n = N;
	void *there[] = { &v.a, &v.b, &v.c, &n }, *back[] = { &v.c, &v.b, &v.a, &n };
	CUDA_KERNEL_NODE_PARAMS_v1 p = { .func = add, .gridDimX = N / CU_BLOCK, .gridDimY = 1, .gridDimZ = 1,
					 .blockDimX = CU_BLOCK, .blockDimY = 1, .blockDimZ = 1, .kernelParams = there };
	CUgraphNode first, second;
	CUgraphExec exec;
	CUgraph graph;

	if (!cu.cuGraphInstantiateWithFlags)
		return skip("this driver has no cuGraphInstantiateWithFlags");
	if (make_arrays(&v, N))
		return -1;
	TRY(cu.cuGraphCreate(&graph, 0));
	TRY(cu.cuGraphAddKernelNode(&first, graph, NULL, 0, &p));
	p.kernelParams = back;
	TRY(cu.cuGraphAddKernelNode(&second, graph, &first, 1, &p));
	TRY(cu.cuGraphInstantiateWithFlags(&exec, graph, 0));
	for (unsigned i = 0; i < 10; i++)
		TRY(cu.cuGraphLaunch(exec, NULL));
	TRY(cu.cuCtxSynchronize());
	if (check_array(v.a, N, 20))
		return -1;
	TRY(cu.cuGraphExecDestroy(exec));
	TRY(cu.cuGraphDestroy(graph));
	drop_arrays(&v);
	return 0;
}

struct other {
	struct arrays v;
	CUstream stream;
	atomic_bool stop;
	_Atomic unsigned launched;
	CUresult r;
};

/* Launches, which are allowed whatever another thread records. */
static void *other_thread(void *arg)
{
	struct other *o = arg;

	o->r = cu.cuCtxSetCurrent(context);
	while (!o->r && !atomic_load(&o->stop)) {
		o->r = launch_add(cu.cuLaunchKernel, o->stream, o->v.a, o->v.b, o->v.c, N);
		atomic_fetch_add(&o->launched, 1);
		usleep(100);
	}
	return NULL;
}

static int record_round(CUstream s, const struct arrays *v, struct other *o)
{
	unsigned seen = atomic_load(&o->launched);
	CUgraphExec exec;
	CUgraph graph;

	TRY(cu.cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
	for (unsigned i = 0; i < LINK; i++)
		TRY(i % 2 ? launch_add(cu.cuLaunchKernel, s, v->c, v->b, v->a, N) :
			    launch_add(cu.cuLaunchKernel, s, v->a, v->b, v->c, N));
	while (atomic_load(&o->launched) < seen + 20 && !o->r)
		usleep(1000);
	TRY(cu.cuStreamEndCapture(s, &graph));
	TRY(cu.cuGraphInstantiateWithFlags(&exec, graph, 0));
	TRY(cu.cuGraphLaunch(exec, s));
	TRY(cu.cuStreamSynchronize(s));
	TRY(cu.cuGraphExecDestroy(exec));
	TRY(cu.cuGraphDestroy(graph));
	return 0;
}

/* Recording in the strictest mode while another thread works: nothing of ours may spoil it. */
static int check_capture(void)
{
	struct other o = { 0 };
	pthread_t t;
	struct arrays v;
	CUstream s;
	int failed = 0;

	if (!cu.cuGraphInstantiateWithFlags)
		return skip("this driver has no cuGraphInstantiateWithFlags");
	if (make_arrays(&v, N) || make_arrays(&o.v, N))
		return -1;
	TRY(cu.cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	TRY(cu.cuStreamCreate(&o.stream, CU_STREAM_NON_BLOCKING));
	/* the first launch of a kernel loads it, which is nothing to do while recording */
	TRY(launch_add(cu.cuLaunchKernel, s, v.b, v.b, v.c, N));
	TRY(cu.cuStreamSynchronize(s));
	if (pthread_create(&t, NULL, other_thread, &o))
		return not_ok("no thread");
	for (unsigned round = 0; round < 5 && !failed; round++)
		failed = record_round(s, &v, &o);
	atomic_store(&o.stop, true);
	pthread_join(t, NULL);
	if (failed)
		return -1;
	TRY(o.r);
	TRY(cu.cuCtxSynchronize());
	if (check_array(v.a, N, 5 * LINK))
		return -1;
	TRY(cu.cuStreamDestroy_v2(s));
	TRY(cu.cuStreamDestroy_v2(o.stream));
	drop_arrays(&v);
	drop_arrays(&o.v);
	return 0;
}

/* ---- views --------------------------------------------------------------------------------------------------------- */

struct nvml_memory {
	unsigned long long total, free, used;
};

/* What the management library says of the device that this program uses. 0, 1 there is none, -1 not ok. */
static int nvml_view(struct nvml_memory *ret)
{
	void *lib = dlopen("libnvidia-ml.so.1", RTLD_NOW), *handle;
	char pci[32];

	if (!lib)
		return 1;
	int (*init)(void) = (int (*)(void))dlsym(lib, "nvmlInit_v2");
	int (*by_pci)(const char *, void **) = (int (*)(const char *, void **))dlsym(lib, "nvmlDeviceGetHandleByPciBusId_v2");
	int (*info)(void *, struct nvml_memory *) =
		(int (*)(void *, struct nvml_memory *))dlsym(lib, "nvmlDeviceGetMemoryInfo");

	if (!init || !by_pci || !info)
		return not_ok("libnvidia-ml.so.1 lacks what every version has");
	TRY(cu.cuDeviceGetPCIBusId(pci, sizeof(pci), device));
	int r = init();

	r = r ? r : by_pci(pci, &handle);
	r = r ? r : info(handle, ret);
	return r ? not_ok("NVML error %d", r) : 0;
}

static int check_views(void)
{
	size_t free_bytes, total, whole, free_later, total_later;
	struct nvml_memory before = { 0 }, after = { 0 };
	CUdeviceptr p;
	int nvml;

	TRY(cu.cuDeviceTotalMem_v2(&whole, device));
	TRY(cu.cuMemGetInfo_v2(&free_bytes, &total));
	nvml = nvml_view(&before);
	if (nvml < 0)
		return -1;
	TRY(cu.cuMemAlloc_v2(&p, 64 * MIB));
	TRY(cu.cuMemGetInfo_v2(&free_later, &total_later));
	if (nvml == 0 && nvml_view(&after))
		return -1;
	TRY(cu.cuMemFree_v2(p));
	if (memory_bytes && (total != memory_bytes || whole != memory_bytes))
		return not_ok("the contract is %llu bytes, cuMemGetInfo says %zu, cuDeviceTotalMem %zu",
			      (unsigned long long)memory_bytes, total, whole);
	if (total_later != total || free_bytes > total || free_bytes - free_later != 64 * MIB)
		return not_ok("64 MiB more: free of cuMemGetInfo went from %zu to %zu", free_bytes, free_later);
	if (nvml)
		return skip("there is no libnvidia-ml.so.1");
	if (memory_bytes && before.total != memory_bytes)
		return not_ok("NVML says %llu bytes in all", before.total);
	if (memory_bytes && (after.used < before.used + 64 * MIB || after.total - after.used != free_later))
		return not_ok("64 MiB more: used of NVML went from %llu to %llu, cuMemGetInfo says %zu are free", before.used,
			      after.used, free_later);
	return 0;
}

/* ---- answers ------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *symbol, *family;
	int since;
	bool per_thread;
} rows[] = {
#define LEGACY false
#define THREAD true
#define PEN_CU(symbol, family, since, thread, class, types) { #symbol, #family, since, thread },
#include "api/cuda.def"
#undef PEN_CU
};

/* Asked for each entry point at its own version, below it and far above, what we have in the way must answer as the driver does. */
static int check_resolve(void)
{
	void *real = real_path ? dlopen(real_path, RTLD_NOW) : NULL;
	cu_fn_cuGetProcAddress_v2 *theirs, *ours = tried("cuGetProcAddress_v2");
	unsigned wrong = 0, asked = 0, other = 0;

	if (!real_path)
		return skip("no --real PATH to compare with");
	if (!real)
		return not_ok("%s", dlerror());
	theirs = (cu_fn_cuGetProcAddress_v2 *)dlsym(real, "cuGetProcAddress_v2");
	if (!ours || !theirs)
		return skip("the driver has no cuGetProcAddress_v2");
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int versions[] = { rows[i].since, rows[i].since - 10, cu.version, cu.version + 10, 0 };

		for (unsigned k = 0; k < 5; k++) {
			uint64_t flags = rows[i].per_thread ? CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM : 0;
			CUdriverProcAddressQueryResult s0 = 9, s1 = 9;
			void *p0 = (void *)1, *p1 = (void *)1;
			CUresult r0 = theirs(rows[i].family, &p0, versions[k], flags, &s0);
			CUresult r1 = ours(rows[i].family, &p1, versions[k], flags, &s1);

			asked++;
			other += p0 != p1;
			if (r0 == r1 && s0 == s1 && !p0 == !p1)
				continue;
			if (wrong++ < 5)
				printf("# %s at %d: %d, status %u, %s; the driver says %d, status %u, %s\n", rows[i].family,
				       versions[k], r1, s1, p1 ? "a pointer" : "NULL", r0, s0, p0 ? "a pointer" : "NULL");
		}
	}
	printf("# %u questions, %u answered with another pointer than the driver's\n", asked, other);
	return wrong ? not_ok("%u of %u answers differ", wrong, asked) : 0;
}

/* Exported names of the driver that we lack would stop a program at its start. */
static int check_exports(void)
{
	void *real = real_path ? dlopen(real_path, RTLD_NOW) : NULL;
	unsigned missing = 0;

	if (!real)
		return skip("no --real PATH to compare with");
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (!dlsym(real, rows[i].symbol) || dlsym(cu.library, rows[i].symbol))
			continue;
		if (missing++ < 5)
			printf("# %s is not exported\n", rows[i].symbol);
	}
	return missing ? not_ok("%u names of the driver are not exported", missing) : 0;
}

static void code(const char *what, CUresult r)
{
	printf("code %s: %d\n", what, r);
}

/* What wrong calls are answered: the caller compares these lines with those of a native run. */
static int check_codes(void)
{
	CUdeviceptr p = 0;
	size_t n;
	CUgraphExec exec = NULL;

	code("free of what was never taken", cu.cuMemFree_v2(0x1000));
	code("free of NULL", cu.cuMemFree_v2(0));
	code("no bytes", cu.cuMemAlloc_v2(&p, 0));
	code("nowhere to put it", cu.cuMemAlloc_v2(NULL, 4096));
	code("more than any device has", cu.cuMemAlloc_v2(&p, (size_t)1 << 47));
	code("no function", cu.cuLaunchKernel(NULL, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
	code("no blocks", cu.cuLaunchKernel(empty, 0, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
	code("too many threads", cu.cuLaunchKernel(empty, 1, 1, 1, 4096, 1, 1, 0, NULL, NULL, NULL));
	code("no graph", cu.cuGraphLaunch(exec, NULL));
	code("no module", cu.cuModuleLoadData(&(CUmodule){ NULL }, "this is no module"));
	code("no such device", cu.cuDeviceTotalMem_v2(&n, 4711));
	return 0;
}

static int check_threads_default_stream(void)
{
	CUresult r;
	struct arrays v;

	if (make_arrays(&v, N))
		return -1;
	r = launch_add(cu.cuLaunchKernel, CU_STREAM_PER_THREAD, v.a, v.b, v.c, N);
	TRY(r);
	TRY(cu.cuStreamSynchronize(CU_STREAM_PER_THREAD));
	TRY(launch_add(cu.cuLaunchKernel, CU_STREAM_LEGACY, v.c, v.b, v.a, N));
	TRY(cu.cuStreamSynchronize(CU_STREAM_LEGACY));
	if (check_array(v.a, N, 2))
		return -1;
	drop_arrays(&v);
	return 0;
}

/* A second context, its own memory and module, destroyed with both inside: what it held must be free again. */
static int check_contexts(void)
{
	size_t before, after, total;
	CUcontext other;
	CUdeviceptr p;
	CUmodule m;

	TRY(cu.cuMemGetInfo_v2(&before, &total));
	for (unsigned i = 0; i < 5; i++) {
		TRY(cu.cuCtxCreate_v2(&other, 0, device));
		TRY(cu.cuModuleLoadData(&m, cu_ptx));
		TRY(cu.cuMemAlloc_v2(&p, 32 * MIB));
		TRY(cu.cuMemsetD8_v2(p, 1, 32 * MIB));
		TRY(cu.cuCtxSynchronize());
		TRY(cu.cuCtxDestroy_v2(other));
		TRY(cu.cuCtxSetCurrent(context));
	}
	TRY(cu.cuMemGetInfo_v2(&after, &total));
	/* a driver keeps some memory of a context that was; five times 32 MiB it does not */
	return after + 100 * MIB < before ? not_ok("%zu MiB were not given back", (before - after) / MIB) : 0;
}

static const struct {
	const char *name;
	int (*run)(void);
} checks[] = {
	{ "launch", check_launch },
	{ "launch-ex", check_launch_ex },
	{ "launch-extra", check_launch_extra },
	{ "cooperative", check_cooperative },
	{ "default-streams", check_threads_default_stream },
	{ "order", check_order },
	{ "events", check_events },
	{ "copies", check_copies },
	{ "host-functions", check_host_functions },
	{ "wait-value", check_wait_value },
	{ "graph", check_graph },
	{ "capture", check_capture },
	{ "views", check_views },
	{ "contexts", check_contexts },
	{ "exports", check_exports },
	{ "resolve", check_resolve },
	{ "codes", check_codes },
};

static int start(void)
{
	CUmodule m;

	if (cu_load(NULL) || cu_start(0, &device, &context))
		return -1;
	TRY(cu.cuModuleLoadData(&m, cu_ptx));
	TRY(cu.cuModuleGetFunction(&add, m, "vectorAdd"));
	TRY(cu.cuModuleGetFunction(&spin, m, "spin"));
	TRY(cu.cuModuleGetFunction(&empty, m, "empty"));
	return 0;
}

static bool chosen(const char *name, int argc, char **argv)
{
	bool any = false;

	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "--", 2)) {
			i++;
			continue;
		}
		any = true;
		if (!strcmp(argv[i], name))
			return true;
	}
	return !any;
}

int main(int argc, char **argv)
{
	cu_program = "cucheck";
	for (unsigned i = 0; argc == 2 && !strcmp(argv[1], "--list") && i < sizeof(checks) / sizeof(checks[0]); i++)
		puts(checks[i].name);
	if (argc == 2 && !strcmp(argv[1], "--list"))
		return 0;
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i + 1 < argc; i++) {
		if (!strcmp(argv[i], "--memory"))
			memory_bytes = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--real"))
			real_path = argv[i + 1];
	}
	current = "start";
	if (start())
		return 1;
	for (unsigned i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		current = checks[i].name;
		if (chosen(current, argc, argv) && checks[i].run() == 0)
			printf("ok %s\n", current);
	}
	return bad;
}
