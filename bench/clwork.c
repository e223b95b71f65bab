/* SPDX-License-Identifier: Apache-2.0 */
#define CL_TARGET_OPENCL_VERSION 120
#include "work.h"
#include <CL/cl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WARM_UPS 5
#define CALIBRATE_RUNS 20
#define QUEUES_MAX 16

struct work_config {
	size_t groups, local;    /* global size = groups * local */
	unsigned iters;
	unsigned queues;
	unsigned units;          /* compute units to use; 0: the whole device */
	bool uncuttable;         /* the kernel asks for its group id, which a cut launch would see changed */
	bool events;             /* keep device stamps of every launch */
	uint64_t memory_bytes;   /* extra buffer */
};

struct work {
	struct work_config config;
	cl_device_id device, part;
	cl_context context;
	cl_program program;
	cl_kernel kernel[QUEUES_MAX]; /* one per queue: arguments stay as they were set */
	cl_command_queue queue[QUEUES_MAX];
	cl_mem counter[QUEUES_MAX], extra;
	uint64_t launched[QUEUES_MAX];
	cl_event *pending;
	struct work_stamp *stamps;
	size_t npending, nstamps, room;
};

/* CUT_ID is the only difference between the two kernels. */
static const char source[] = "__kernel void load(__global uint *count, uint n, uint iters)\n"
			     "{\n"
			     "	size_t i = CUT_ID;\n"
			     "	if (i >= n)\n"
			     "		return;\n"
			     "	float x = (float)(i & 63) * 0.015625f;\n"
			     "	for (uint k = 0; k < iters; k++)\n"
			     "		x = x * 0.999f + 0.001f;\n"
			     "	count[i] += x == 12345.0f ? 2 : 1;\n"
			     "}\n";

enum { GROUPS = WORK_OPTION, LOCAL, ITERS, UNCUTTABLE, CU, QUEUES, MEMORY, EVENTS };

const char work_usage[] = "  [--groups N] [--local N] [--iters N] [--uncuttable] [--cu N] [--queues N] [--memory BYTES] [--events]\n";
const struct option work_options[] = {
	{ "groups", 1, NULL, GROUPS },
	{ "local", 1, NULL, LOCAL },
	{ "iters", 1, NULL, ITERS },
	{ "uncuttable", 0, NULL, UNCUTTABLE },
	{ "cu", 1, NULL, CU },
	{ "queues", 1, NULL, QUEUES },
	{ "memory", 1, NULL, MEMORY },
	{ "events", 0, NULL, EVENTS },
	{ 0 },
};

struct work_config *work_defaults(void)
{
	static struct work_config config = { .groups = 16, .local = 64, .iters = 1000, .queues = 1 };

	return &config;
}

bool work_option(struct work_config *c, int option, const char *arg)
{
	unsigned long long n = arg ? strtoull(arg, NULL, 0) : 0;

	switch (option) {
	case GROUPS:
		c->groups = n;
		break;
	case LOCAL:
		c->local = n;
		break;
	case ITERS:
		c->iters = (unsigned)n;
		break;
	case UNCUTTABLE:
		c->uncuttable = true;
		break;
	case CU:
		c->units = (unsigned)n;
		break;
	case QUEUES:
		c->queues = (unsigned)n;
		break;
	case MEMORY:
		c->memory_bytes = n;
		break;
	case EVENTS:
		c->events = true;
		break;
	default:
		return false;
	}
	return true;
}

bool work_makes_sense(const struct work_config *c)
{
	return c->groups && c->local && c->queues >= 1 && c->queues <= QUEUES_MAX;
}

unsigned work_units(const struct work_config *c)
{
	(void)c;
	return 8;
}

unsigned work_queues(const struct work_config *c)
{
	return c->queues;
}

bool work_has_stamps(const struct work_config *c)
{
	return c->events;
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void sleep_until_ns(uint64_t t)
{
	const struct timespec ts = { .tv_sec = (time_t)(t / 1000000000u),
				     .tv_nsec = (long)(t % 1000000000u) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static int failed(const char *what, cl_int err)
{
	fprintf(stderr, "clload: %s: OpenCL error %d\n", what, err);
	return -1;
}

static int open_device(struct work *w)
{
	cl_platform_id platform;
	cl_int err = clGetPlatformIDs(1, &platform, NULL);

	if (err)
		return failed("no platform", err);
	err = clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &w->device, NULL);
	if (err)
		return failed("no device", err);
	if (w->config.units) {
		const cl_device_partition_property by[] = { CL_DEVICE_PARTITION_BY_COUNTS,
							    (intptr_t)w->config.units,
							    CL_DEVICE_PARTITION_BY_COUNTS_LIST_END, 0 };

		err = clCreateSubDevices(w->device, by, 1, &w->part, NULL);
		if (err)
			return failed("sub-device", err);
	}
	w->context = clCreateContext(NULL, 1, w->part ? &w->part : &w->device, NULL, NULL, &err);
	return w->context ? 0 : failed("context", err);
}

static int open_kernels(struct work *w)
{
	const char *text = source;
	cl_device_id d = w->part ? w->part : w->device;
	char log[4096] = "";
	cl_int err;

	w->program = clCreateProgramWithSource(w->context, 1, &text, NULL, &err);
	if (!w->program)
		return failed("program", err);
	/* quoted by the option, not by the source: a layer sees options as well */
	err = clBuildProgram(w->program, 1, &d,
			     w->config.uncuttable
				     ? "-DCUT_ID=(get_group_id(0)*get_local_size(0)+get_local_id(0))"
				     : "-DCUT_ID=get_global_id(0)",
			     NULL, NULL);
	if (err) {
		clGetProgramBuildInfo(w->program, d, CL_PROGRAM_BUILD_LOG, sizeof(log) - 1, log, NULL);
		fprintf(stderr, "%s\n", log);
		return failed("build", err);
	}
	return 0;
}

static int open_queue(struct work *w, unsigned q)
{
	cl_uint n = (cl_uint)(w->config.groups * w->config.local), zero = 0, iters = w->config.iters;
	cl_int err;

	w->queue[q] = clCreateCommandQueue(w->context, w->part ? w->part : w->device,
					   w->config.events ? CL_QUEUE_PROFILING_ENABLE : 0, &err);
	if (!w->queue[q])
		return failed("queue", err);
	w->counter[q] = clCreateBuffer(w->context, CL_MEM_READ_WRITE, n * sizeof(cl_uint), NULL, &err);
	if (!w->counter[q])
		return failed("buffer", err);
	err = clEnqueueFillBuffer(w->queue[q], w->counter[q], &zero, sizeof(zero), 0, n * sizeof(cl_uint), 0,
				  NULL, NULL);
	if (err)
		return failed("fill", err);
	w->kernel[q] = clCreateKernel(w->program, "load", &err);
	if (!w->kernel[q])
		return failed("kernel", err);
	err = clSetKernelArg(w->kernel[q], 0, sizeof(cl_mem), &w->counter[q]);
	err |= clSetKernelArg(w->kernel[q], 1, sizeof(n), &n);
	err |= clSetKernelArg(w->kernel[q], 2, sizeof(iters), &iters);
	return err ? failed("arguments", err) : 0;
}

static int open_memory(struct work *w)
{
	cl_uint one = 1;
	cl_int err;

	if (!w->config.memory_bytes)
		return 0;
	w->extra = clCreateBuffer(w->context, CL_MEM_READ_WRITE, w->config.memory_bytes, NULL, &err);
	if (!w->extra)
		return failed("memory", err);
	err = clEnqueueFillBuffer(w->queue[0], w->extra, &one, sizeof(one), 0,
				  w->config.memory_bytes & ~(uint64_t)3, 0, NULL, NULL);
	return err ? failed("touch memory", err) : work_finish(w, 0);
}

static int warm_up(struct work *w)
{
	for (unsigned i = 0; i < WARM_UPS; i++)
		for (unsigned q = 0; q < w->config.queues; q++)
			if (work_launch(w, q, 0, NULL) || work_finish(w, q))
				return -1;
	return w->config.events ? work_stamps(w, &(const struct work_stamp *){ NULL }, &(size_t){ 0 }) : 0;
}

int work_open(const struct work_config *config, struct work **ret_work)
{
	struct work *w = calloc(1, sizeof(*w));

	if (!w)
		return failed("memory", CL_OUT_OF_HOST_MEMORY);
	w->config = *config;
	if (open_device(w) || open_kernels(w)) {
		work_close(w);
		return -1;
	}
	for (unsigned q = 0; q < w->config.queues; q++) {
		if (open_queue(w, q)) {
			work_close(w);
			return -1;
		}
	}
	if (open_memory(w) || warm_up(w)) {
		work_close(w);
		return -1;
	}
	*ret_work = w;
	return 0;
}

static int keep_event(struct work *w, cl_event e, uint64_t t)
{
	if (w->npending == w->room) {
		size_t room = w->room ? 2 * w->room : 1024;
		cl_event *events = realloc(w->pending, room * sizeof(*events));

		if (events)
			w->pending = events;
		struct work_stamp *stamps = realloc(w->stamps, room * sizeof(*stamps));

		if (stamps)
			w->stamps = stamps;
		if (!events || !stamps)
			return failed("event list", CL_OUT_OF_HOST_MEMORY);
		w->room = room;
	}
	w->stamps[w->npending].enqueued = t;
	w->pending[w->npending++] = e;
	return 0;
}

int work_launch(struct work *w, unsigned q, unsigned k, void **ret_mark)
{
	const size_t global = w->config.groups * w->config.local, local = w->config.local;
	bool wants = ret_mark || w->config.events;
	uint64_t t = w->config.events ? now_ns() : 0;
	cl_event e = NULL;

	(void)k;   /* all units are alike */
	cl_int err = clEnqueueNDRangeKernel(w->queue[q], w->kernel[q], 1, NULL, &global, &local, 0, NULL,
					    wants ? &e : NULL);

	if (err)
		return failed("launch", err);
	w->launched[q]++;
	if (w->config.events && ret_mark)
		clRetainEvent(e);
	if (ret_mark)
		*ret_mark = e;
	return w->config.events ? keep_event(w, e, t) : 0;
}

int work_flush(struct work *w, unsigned q)
{
	cl_int err = clFlush(w->queue[q]);

	return err ? failed("flush", err) : 0;
}

int work_finish(struct work *w, unsigned q)
{
	cl_int err = clFinish(w->queue[q]);

	return err ? failed("finish", err) : 0;
}

int work_wait(struct work *w, void *mark)
{
	cl_event e = mark;
	cl_int err = clWaitForEvents(1, &e);

	(void)w;
	clReleaseEvent(e);
	return err ? failed("wait", err) : 0;
}

int work_stamps(struct work *w, const struct work_stamp **ret_stamps, size_t *ret_n)
{
	for (size_t i = 0; i < w->npending; i++) {
		cl_ulong start = 0, end = 0;
		cl_int err = clGetEventProfilingInfo(w->pending[i], CL_PROFILING_COMMAND_START, sizeof(start),
						     &start, NULL);

		if (!err)
			err = clGetEventProfilingInfo(w->pending[i], CL_PROFILING_COMMAND_END, sizeof(end),
						      &end, NULL);
		clReleaseEvent(w->pending[i]);
		if (err)
			return failed("profiling", err);
		w->stamps[i].start = start;
		w->stamps[i].end = end;
	}
	*ret_stamps = w->stamps;
	*ret_n = w->npending;
	w->npending = 0;
	return 0;
}

/* CPU time of the driver's threads: all threads of the process but this one, which is the only one that we have. */
static double driver_cpu_ns(void)
{
	struct timespec all, mine;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &all);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mine);
	return (double)(all.tv_sec - mine.tv_sec) * 1e9 + (double)(all.tv_nsec - mine.tv_nsec);
}

/*
 * Device time of one launch with @iters when nobody disturbs it. On a CPU device that is the CPU time which its threads need, divided
 * by their number: other load on the machine lengthens a launch, but not that.
 */
static int time_launch(struct work *w, cl_uint iters, double *ret_ns)
{
	cl_uint units = 1;
	cl_int err = clSetKernelArg(w->kernel[0], 2, sizeof(iters), &iters);

	if (!err)
		err = clGetDeviceInfo(w->part ? w->part : w->device, CL_DEVICE_MAX_COMPUTE_UNITS,
				      sizeof(units), &units, NULL);
	if (err)
		return failed("arguments", err);
	double before = driver_cpu_ns();

	for (int i = 0; i < CALIBRATE_RUNS; i++)
		if (work_launch(w, 0, 0, NULL) || work_finish(w, 0))
			return -1;
	*ret_ns = (driver_cpu_ns() - before) / CALIBRATE_RUNS / units;
	return 0;
}

int work_calibrate(struct work *w, uint64_t want_ns, unsigned *ret_iters, double *ret_ns)
{
	cl_uint iters = 64;
	double t;

	/* work is proportional to iterations but for a small constant, so a few corrections by ratio reach the goal */
	for (int i = 0; i < 40; i++) {
		if (time_launch(w, iters, &t))
			return -1;
		double ratio = (double)want_ns / (t > 1 ? t : 1);

		if (ratio > 0.99 && ratio < 1.01)
			break;
		iters = (cl_uint)(iters * (ratio > 4 ? 4 : ratio) + 0.5);
		iters = iters ? iters : 1;
	}
	*ret_iters = iters;
	*ret_ns = t;
	return 0;
}

int work_verify(struct work *w)
{
	size_t n = w->config.groups * w->config.local;
	cl_uint *count = malloc(n * sizeof(*count));
	size_t wrong = 0;

	if (!count)
		return failed("memory", CL_OUT_OF_HOST_MEMORY);
	for (unsigned q = 0; q < w->config.queues; q++) {
		cl_int err = clEnqueueReadBuffer(w->queue[q], w->counter[q], CL_TRUE, 0, n * sizeof(*count),
						 count, 0, NULL, NULL);

		if (err) {
			free(count);
			return failed("read back", err);
		}
		for (size_t i = 0; i < n; i++)
			wrong += count[i] != (cl_uint)w->launched[q];
	}
	free(count);
	if (wrong)
		fprintf(stderr, "clload: %zu work-items did not run exactly once in each launch\n", wrong);
	return wrong ? -1 : 0;
}

void work_close(struct work *w)
{
	for (unsigned q = 0; q < QUEUES_MAX; q++) {
		if (w->kernel[q])
			clReleaseKernel(w->kernel[q]);
		if (w->counter[q])
			clReleaseMemObject(w->counter[q]);
		if (w->queue[q])
			clReleaseCommandQueue(w->queue[q]);
	}
	if (w->extra)
		clReleaseMemObject(w->extra);
	if (w->program)
		clReleaseProgram(w->program);
	if (w->context)
		clReleaseContext(w->context);
	if (w->part)
		clReleaseDevice(w->part);
	free(w->pending);
	free(w->stamps);
	free(w);
}
