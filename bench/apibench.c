/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cost of single API calls, for comparing the same program without, with an unmanaged and with a managed layer.
 *   apibench stream --threads T --count N --repeat R    N enqueues then clFinish, per thread its own queue: ns per enqueue
 *   apibench sync   --threads T --count N --repeat R    N times enqueue + clFinish: ns per pair
 *   apibench alloc  --live L    --count N --repeat R    N times create + release of a 256-byte buffer beside L live ones: ns per pair
 * Prints one line per repeat and thread: the mean over its calls. The caller takes medians over interleaved processes. Threads
 * start together and then run on by themselves, so that their repeats overlap; with more threads than cores a repeat in which a
 * thread was not running is an outlier that the median ignores.
 * clFinish is outside the timed part of `stream`: it measures the enqueue.
 */
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define THREADS_MAX 64

struct bench {
	cl_device_id device;
	cl_context context;
	cl_program program;
	unsigned threads, count, repeat, live;
	enum { STREAM, SYNC, ALLOC } kind;
	pthread_barrier_t barrier;
};

struct lane {
	struct bench *b;
	pthread_t thread;
	cl_command_queue queue;
	cl_kernel kernel;
	cl_mem buffer;
	double *ns_per_call; /* per repeat */
	int failed;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void *fail(const char *what, cl_int err)
{
	fprintf(stderr, "apibench: %s: OpenCL error %d\n", what, err);
	return NULL;
}

/* Return: ns spent in the calls under test, or 0 on failure. */
static uint64_t run_once(struct lane *l)
{
	const size_t global = 64, local = 64;
	unsigned n = l->b->count;
	uint64_t t0 = now_ns(), t1;
	cl_int err = CL_SUCCESS;

	if (l->b->kind == ALLOC) {
		for (unsigned i = 0; i < n && !err; i++) {
			cl_mem m = clCreateBuffer(l->b->context, CL_MEM_READ_WRITE, 256, NULL, &err);

			if (!err)
				err = clReleaseMemObject(m);
		}
		t1 = now_ns();
	} else {
		for (unsigned i = 0; i < n && !err; i++) {
			err = clEnqueueNDRangeKernel(l->queue, l->kernel, 1, NULL, &global, &local, 0, NULL,
						     NULL);
			if (l->b->kind == SYNC && !err)
				err = clFinish(l->queue);
		}
		t1 = now_ns();
		if (!err)
			err = clFinish(l->queue);
	}
	if (err)
		fail("call under test", err);
	return err ? 0 : t1 - t0;
}

static void *run_lane(void *arg)
{
	struct lane *l = arg;

	l->failed = run_once(l) == 0; /* warm-up */
	pthread_barrier_wait(&l->b->barrier);
	for (unsigned r = 0; r < l->b->repeat; r++) {
		uint64_t ns = l->failed ? 0 : run_once(l);

		l->failed |= ns == 0;
		l->ns_per_call[r] = (double)ns / l->b->count;
	}
	return NULL;
}

static int open_bench(struct bench *b)
{
	static const char *source = "__kernel void tiny(__global uint *x) { x[get_global_id(0)] += 1; }\n";
	cl_platform_id platform;
	cl_int err = clGetPlatformIDs(1, &platform, NULL);

	if (!err)
		err = clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &b->device, NULL);
	if (!err)
		b->context = clCreateContext(NULL, 1, &b->device, NULL, NULL, &err);
	if (!err)
		b->program = clCreateProgramWithSource(b->context, 1, &source, NULL, &err);
	if (!err)
		err = clBuildProgram(b->program, 1, &b->device, "", NULL, NULL);
	if (err)
		fail("set-up", err);
	return err;
}

static int open_lane(struct bench *b, struct lane *l)
{
	cl_int err;

	l->b = b;
	l->ns_per_call = calloc(b->repeat, sizeof(double));
	l->queue = clCreateCommandQueue(b->context, b->device, 0, &err);
	if (!err)
		l->buffer = clCreateBuffer(b->context, CL_MEM_READ_WRITE, 256, NULL, &err);
	if (!err)
		l->kernel = clCreateKernel(b->program, "tiny", &err);
	if (!err)
		err = clSetKernelArg(l->kernel, 0, sizeof(l->buffer), &l->buffer);
	if (err)
		fail("lane", err);
	return err || !l->ns_per_call;
}

static cl_mem *open_live(struct bench *b)
{
	cl_mem *live = calloc(b->live + 1, sizeof(*live));
	cl_int err = CL_SUCCESS;

	for (unsigned i = 0; live && i < b->live; i++) {
		live[i] = clCreateBuffer(b->context, CL_MEM_READ_WRITE, 256, NULL, &err);
		if (err)
			return fail("live object", err);
	}
	return live;
}

static int parse(struct bench *b, int argc, char **argv)
{
	static const char *const kinds[] = { "stream", "sync", "alloc" };
	int known = 0;

	for (unsigned k = 0; argc > 1 && k < 3; k++) {
		if (!strcmp(argv[1], kinds[k])) {
			b->kind = k;
			known = 1;
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
		else
			known = 0;
	}
	return known && b->threads >= 1 && b->threads <= THREADS_MAX && b->count && b->repeat ? 0 : -1;
}

int main(int argc, char **argv)
{
	struct bench b = { .threads = 1, .count = 20000, .repeat = 10 };
	struct lane lanes[THREADS_MAX] = { 0 };
	cl_mem *live;
	int failed = 0;

	if (parse(&b, argc, argv)) {
		fprintf(stderr,
			"apibench stream|sync|alloc [--threads N] [--count N] [--repeat N] [--live N]\n");
		return 2;
	}
	if (open_bench(&b) || !(live = open_live(&b)))
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
	}
	for (unsigned i = 0; i < b.threads; i++) {
		clReleaseKernel(lanes[i].kernel);
		clReleaseMemObject(lanes[i].buffer);
		clReleaseCommandQueue(lanes[i].queue);
		free(lanes[i].ns_per_call);
	}
	for (unsigned i = 0; i < b.live; i++)
		clReleaseMemObject(live[i]);
	free(live);
	clReleaseProgram(b.program);
	clReleaseContext(b.context);
	return failed;
}
