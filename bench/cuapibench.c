/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cost of single calls of the CUDA driver interface, for comparing the same program on the bare driver and under the shim.
 *   launch   cuLaunchKernel of an empty kernel, per thread its own stream; the synchronisation is outside of the timed part
 *   sync     cuLaunchKernel + cuStreamSynchronize
 *   graph    cuGraphLaunch of one recorded kernel
 *   alloc    cuMemAlloc + cuMemFree of --bytes beside --live others
 *   async    cuMemAllocAsync + cuMemFreeAsync
 *   info     cuMemGetInfo
 *   copy     cuMemcpyHtoDAsync of 64 bytes
 *   event    cuEventRecord
 *   load     dlopen and the first look-up of the process, once: a library may put off its own loading until then
 *   lookups  the requests of a runtime's start, from the file --requests (name,version,flags): ns for all of them
 *   init     the first cuInit of the process, once; the library is loaded before
 *   total    prints the device memory that the program is shown, in bytes: whether a contract is in force
 * Prints one line per repeat and thread: ns per call, the mean over --count. The caller takes medians over interleaved processes.
 * Threads start together and run on by themselves, so that their repeats overlap; with more threads than cores a repeat in which a
 * thread was not running is an outlier that the median ignores.
 */
#include "cudrv.h"
#include "cuptx.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define THREADS_MAX 64
#define REQUESTS_MAX 1024
#define COPY_BYTES 64

enum kind { LAUNCH, SYNC, GRAPH, ALLOC, ASYNC, INFO, COPY, EVENT, LOOKUPS, LOAD, INIT, TOTAL, KIND_MAX_ };

static const char *const kind_names[KIND_MAX_] = { "launch", "sync", "graph", "alloc",	 "async",
						   "info",   "copy", "event", "lookups", "load",
						   "init",   "total" };

struct request {
	char name[64];
	int version;
	uint64_t flags;
};

struct bench {
	enum kind kind;
	unsigned threads, count, repeat, live;
	uint64_t bytes;
	const char *requests_file;
	struct request *requests;
	unsigned nrequests;
	CUcontext context;
	CUfunction function;
	cu_fn_cuGetProcAddress_v2 *lookup;
	cu_fn_cuGetProcAddress *lookup_v1;
	pthread_barrier_t barrier;
};

struct lane {
	struct bench *b;
	pthread_t thread;
	CUstream stream;
	CUevent event;
	CUgraphExec graph;
	CUdeviceptr buffer;
	void *host;
	double *ns_per_call;
	int failed;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static CUresult launch(const struct lane *l)
{
	return cu.cuLaunchKernel(l->b->function, 1, 1, 1, 32, 1, 1, 0, l->stream, NULL, NULL);
}

/* As the runtime does: what is not there is no error. */
static CUresult look_up_all(const struct bench *b)
{
	CUdriverProcAddressQueryResult status;
	void *p;

	for (unsigned i = 0; i < b->nrequests; i++) {
		const struct request *q = &b->requests[i];

		if (b->lookup)
			b->lookup(q->name, &p, q->version, q->flags, &status);
		else
			b->lookup_v1(q->name, &p, q->version, q->flags);
	}
	return CUDA_SUCCESS;
}

static CUresult call(const struct lane *l)
{
	const struct bench *b = l->b;
	CUdeviceptr p;
	size_t free_bytes, total_bytes;
	CUresult r;

	switch (b->kind) {
	case LAUNCH:
		return launch(l);
	case SYNC:
		r = launch(l);
		return r ? r : cu.cuStreamSynchronize(l->stream);
	case GRAPH:
		return cu.cuGraphLaunch(l->graph, l->stream);
	case ALLOC:
		r = cu.cuMemAlloc_v2(&p, b->bytes);
		return r ? r : cu.cuMemFree_v2(p);
	case ASYNC:
		r = cu.cuMemAllocAsync(&p, b->bytes, l->stream);
		return r ? r : cu.cuMemFreeAsync(p, l->stream);
	case INFO:
		return cu.cuMemGetInfo_v2(&free_bytes, &total_bytes);
	case COPY:
		return cu.cuMemcpyHtoDAsync_v2(l->buffer, l->host, COPY_BYTES, l->stream);
	case EVENT:
		return cu.cuEventRecord(l->event, l->stream);
	case LOOKUPS:
		return look_up_all(b);
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
}

/* Return: ns spent in the calls under test, or 0 on failure. */
static uint64_t run_once(struct lane *l)
{
	unsigned n = l->b->count;
	CUresult r = CUDA_SUCCESS;
	uint64_t t0 = now_ns(), t1;

	for (unsigned i = 0; i < n && !r; i++)
		r = call(l);
	t1 = now_ns();
	if (!r && l->stream)
		r = cu.cuStreamSynchronize(l->stream);
	if (r)
		cu_failed(kind_names[l->b->kind], r);
	return r ? 0 : t1 - t0;
}

static void *run_lane(void *arg)
{
	struct lane *l = arg;

	if (l->b->context)
		cu.cuCtxSetCurrent(l->b->context);
	/* the first look-up of a process is what a start pays, so there is no warm-up for it */
	l->failed = l->b->kind != LOOKUPS && run_once(l) == 0;
	pthread_barrier_wait(&l->b->barrier);
	for (unsigned r = 0; r < l->b->repeat; r++) {
		uint64_t ns = l->failed ? 0 : run_once(l);

		l->failed |= ns == 0;
		l->ns_per_call[r] = (double)ns / l->b->count;
	}
	return NULL;
}

static int record_graph(struct lane *l)
{
	CUgraph graph;

	CU_OR_FAIL("graphs", cu.cuGraphInstantiateWithFlags ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED);
	CU_OR_FAIL("capture", cu.cuStreamBeginCapture_v2(l->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
	CU_OR_FAIL("launch", launch(l));
	CU_OR_FAIL("capture", cu.cuStreamEndCapture(l->stream, &graph));
	CU_OR_FAIL("instantiate", cu.cuGraphInstantiateWithFlags(&l->graph, graph, 0));
	return 0;
}

static int open_lane(struct bench *b, struct lane *l)
{
	l->b = b;
	l->ns_per_call = calloc(b->repeat, sizeof(double));
	if (!l->ns_per_call)
		return -1;
	if (b->kind == LOOKUPS)
		return 0;
	CU_OR_FAIL("stream", cu.cuStreamCreate(&l->stream, CU_STREAM_NON_BLOCKING));
	CU_OR_FAIL("event", cu.cuEventCreate(&l->event, CU_EVENT_DISABLE_TIMING));
	CU_OR_FAIL("buffer", cu.cuMemAlloc_v2(&l->buffer, COPY_BYTES));
	CU_OR_FAIL("pinned memory", cu.cuMemHostAlloc(&l->host, COPY_BYTES, 0));
	if (b->kind == ASYNC && !cu.cuMemAllocAsync)
		return cu_failed("cuMemAllocAsync", CUDA_ERROR_NOT_SUPPORTED);
	return b->kind == GRAPH ? record_graph(l) : 0;
}

static int read_requests(struct bench *b)
{
	FILE *f = b->requests_file ? fopen(b->requests_file, "r") : NULL;
	char line[128];

	if (!f) {
		perror(b->requests_file ? b->requests_file : "--requests");
		return -1;
	}
	b->requests = calloc(REQUESTS_MAX, sizeof(*b->requests));
	b->nrequests = 1;   /* the runtime begins with an empty name at version 0 */
	while (b->requests && b->nrequests < REQUESTS_MAX && fgets(line, sizeof(line), f)) {
		struct request *q = &b->requests[b->nrequests];
		unsigned long flags;

		if (sscanf(line, "%63[^,],%d,%lu", q->name, &q->version, &flags) != 3)
			continue;
		q->flags = flags;
		b->nrequests++;
	}
	fclose(f);
	return b->requests && b->nrequests > 1 ? 0 : -1;
}

/* As the runtime begins: the library, the look-up function, a probe with an empty name. */
static int load(struct bench *b)
{
	CUdriverProcAddressQueryResult status;
	void *library = dlopen("libcuda.so.1", RTLD_NOW), *p;

	if (!library) {
		fprintf(stderr, "cuapibench: %s\n", dlerror());
		return -1;
	}
	b->lookup = (cu_fn_cuGetProcAddress_v2 *)dlsym(library, "cuGetProcAddress_v2");
	b->lookup_v1 = (cu_fn_cuGetProcAddress *)dlsym(library, "cuGetProcAddress");
	if (!b->lookup && !b->lookup_v1)
		return cu_failed("cuGetProcAddress", CUDA_ERROR_NOT_FOUND);
	if (b->lookup)
		b->lookup("", &p, 0, 0, &status);
	else
		b->lookup_v1("", &p, 0, 0);
	return 0;
}

static int time_load(struct bench *b)
{
	uint64_t t0 = now_ns();

	if (load(b))
		return 1;
	printf("%llu\n", (unsigned long long)(now_ns() - t0));
	return 0;
}

static int time_init(void)
{
	uint64_t t0, t1;
	CUresult r;

	if (cu_load(NULL))
		return 1;
	t0 = now_ns();
	r = cu.cuInit(0);
	t1 = now_ns();
	if (r)
		return cu_failed("cuInit", r) != 0;
	printf("%llu\n", (unsigned long long)(t1 - t0));
	return 0;
}

static int print_total(void)
{
	size_t free_bytes, total;
	CUdevice device;

	if (cu_load(NULL) || cu_start(0, &device, NULL))
		return 1;
	if (cu.cuMemGetInfo_v2(&free_bytes, &total))
		return 1;
	printf("%zu\n", total);
	return 0;
}

static int open_bench(struct bench *b)
{
	CUmodule module;
	CUdevice device;

	if (b->kind == LOOKUPS)
		return load(b) || read_requests(b) ? -1 : 0;
	if (cu_load(NULL) || cu_start(0, &device, &b->context))
		return -1;
	CU_OR_FAIL("module", cu.cuModuleLoadData(&module, cu_ptx));
	CU_OR_FAIL("function", cu.cuModuleGetFunction(&b->function, module, "empty"));
	for (unsigned i = 0; i < b->live; i++) {
		CUdeviceptr p;

		CU_OR_FAIL("live allocation", cu.cuMemAlloc_v2(&p, b->bytes));
	}
	return 0;
}

static int parse(struct bench *b, int argc, char **argv)
{
	bool known = false;

	for (unsigned k = 0; argc > 1 && k < KIND_MAX_; k++) {
		if (!strcmp(argv[1], kind_names[k])) {
			b->kind = k;
			known = true;
		}
	}
	for (int i = 2; i + 1 < argc; i += 2) {
		unsigned v = (unsigned)strtoul(argv[i + 1], NULL, 0);

		if (!strcmp(argv[i], "--threads"))
			b->threads = v;
		else if (!strcmp(argv[i], "--count"))
			b->count = v;
		else if (!strcmp(argv[i], "--repeat"))
			b->repeat = v;
		else if (!strcmp(argv[i], "--live"))
			b->live = v;
		else if (!strcmp(argv[i], "--bytes"))
			b->bytes = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--requests"))
			b->requests_file = argv[i + 1];
		else
			known = false;
	}
	if (b->kind == LOOKUPS)
		b->count = b->threads = 1;
	return known && b->threads >= 1 && b->threads <= THREADS_MAX && b->count && b->repeat && b->bytes ? 0 : -1;
}

int main(int argc, char **argv)
{
	struct bench b = { .threads = 1, .count = 20000, .repeat = 10, .bytes = 256 };
	struct lane lanes[THREADS_MAX] = { 0 };
	int failed = 0;

	cu_program = "cuapibench";
	if (parse(&b, argc, argv)) {
		fprintf(stderr, "cuapibench launch|sync|graph|alloc|async|info|copy|event|lookups|load|init|total\n"
				"  [--threads N] [--count N] [--repeat N] [--live N] [--bytes N] [--requests FILE]\n");
		return 2;
	}
	if (b.kind == INIT)
		return time_init();
	if (b.kind == LOAD)
		return time_load(&b);
	if (b.kind == TOTAL)
		return print_total();
	if (open_bench(&b))
		return 1;
	pthread_barrier_init(&b.barrier, NULL, b.threads);
	for (unsigned i = 0; i < b.threads; i++)
		if (open_lane(&b, &lanes[i]))
			return 1;
	for (unsigned i = 0; i < b.threads; i++)
		if (pthread_create(&lanes[i].thread, NULL, run_lane, &lanes[i]))
			return 1;
	for (unsigned i = 0; i < b.threads; i++)
		pthread_join(lanes[i].thread, NULL);
	for (unsigned i = 0; i < b.threads; i++) {
		for (unsigned r = 0; r < b.repeat; r++)
			printf("%.2f\n", lanes[i].ns_per_call[r]);
		failed |= lanes[i].failed;
		free(lanes[i].ns_per_call);
	}
	free(b.requests);
	return failed;
}
