/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What single mechanisms cost on the device at hand: numbers for docs and for the gate's constants. Run natively.
 *
 *   cumicro gate      a satisfied wait for a word in front of each kernel: host time of the call, device time per kernel
 *   cumicro start     host stores a word -> a kernel that waited for it starts (seen by the host in a second word)
 *   cumicro event     host time of cuEventRecord and cuEventQuery; smallest step of cuEventElapsedTime
 *   cumicro ladder    green contexts of 1/8 ... 8/8 of the multiprocessors: time to make, memory taken, bandwidth, time of a switch
 *   cumicro copies    throughput of a large copy in pieces of 64 KiB ... 16 MiB, each direction
 *   cumicro baseline  bandwidth of c = a + b; time of launch and synchronise
 * One line of JSON per measurement: {"name":..., "value":..., "unit":..., more}. What the driver does not have is {"name":...,"skipped":why}.
 */
#include "cudrv.h"
#include "cuptx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIB ((size_t)1 << 20)
#define ROUNDS 200
#define RUNGS 8
#define SWITCHES 15

static CUdevice device;
static CUcontext context;
static CUfunction add, empty, spin;
static CUdeviceptr count;
static CUstream stream;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void print_value(const char *name, double value, const char *unit)
{
	printf("{\"name\":\"%s\",\"value\":%.6g,\"unit\":\"%s\"}\n", name, value, unit);
}

/* Median, and the ends of a distribution. */
static void print_samples(const char *name, double *v, unsigned n, const char *unit)
{
	qsort(v, n, sizeof(*v), by_value);
	printf("{\"name\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"n\":%u,\"min\":%.6g,\"p90\":%.6g,\"p99\":%.6g,"
	       "\"max\":%.6g}\n", name, v[n / 2], unit, n, v[0], v[n * 9 / 10], v[n * 99 / 100], v[n - 1]);
}

static int skipped(const char *name, const char *why)
{
	printf("{\"name\":\"%s\",\"skipped\":\"%s\"}\n", name, why);
	return 0;
}

static CUresult launch_empty(CUstream s)
{
	return cu.cuLaunchKernel(empty, 1, 1, 1, 32, 1, 1, 0, s, NULL, NULL);
}

/* A word that host and device see. */
static int shared_word(volatile uint32_t **ret_word, CUdeviceptr *ret_at)
{
	CU_OR_FAIL("pinned memory", cu.cuMemHostAlloc((void **)(uintptr_t)ret_word, 64, CU_MEMHOSTALLOC_DEVICEMAP));
	CU_OR_FAIL("device pointer", cu.cuMemHostGetDevicePointer_v2(ret_at, (void *)(uintptr_t)*ret_word, 0));
	**ret_word = 0;
	return 0;
}

static cu_fn_cuStreamWaitValue32_v2 *wait_function(void)
{
	return cu.cuStreamWaitValue32_v2 ? cu.cuStreamWaitValue32_v2 : cu.cuStreamWaitValue32;
}

static cu_fn_cuStreamWriteValue32_v2 *write_function(void)
{
	return cu.cuStreamWriteValue32_v2 ? cu.cuStreamWriteValue32_v2 : cu.cuStreamWriteValue32;
}

/* Device time of @n empty kernels, each behind a satisfied wait or not; all are submitted while the stream is held. */
static int time_kernels(unsigned n, bool gated, CUdeviceptr word, volatile uint32_t *hold, CUdeviceptr hold_at,
			double *ret_device_ns, double *ret_host_ns)
{
	CUevent first, last;
	uint64_t t0, t1 = 0;
	float ms;

	CU_OR_FAIL("event", cu.cuEventCreate(&first, CU_EVENT_DEFAULT));
	CU_OR_FAIL("event", cu.cuEventCreate(&last, CU_EVENT_DEFAULT));
	*hold = 0;
	CU_OR_FAIL("wait", wait_function()(stream, hold_at, 1, CU_STREAM_WAIT_VALUE_GEQ));
	CU_OR_FAIL("event", cu.cuEventRecord(first, stream));
	for (unsigned i = 0; i < n; i++) {
		t0 = now_ns();
		if (gated)
			CU_OR_FAIL("wait", wait_function()(stream, word, 0, CU_STREAM_WAIT_VALUE_GEQ));
		t1 += now_ns() - t0;
		CU_OR_FAIL("launch", launch_empty(stream));
	}
	CU_OR_FAIL("event", cu.cuEventRecord(last, stream));
	*hold = 1;
	CU_OR_FAIL("finish", cu.cuStreamSynchronize(stream));
	CU_OR_FAIL("elapsed", cu.cuEventElapsedTime(&ms, first, last));
	CU_OR_FAIL("event", cu.cuEventDestroy_v2(first));
	CU_OR_FAIL("event", cu.cuEventDestroy_v2(last));
	*ret_device_ns = (double)ms * 1e6 / n;
	*ret_host_ns = (double)t1 / n;
	return 0;
}

static int measure_gate(void)
{
	volatile uint32_t *word, *hold;
	CUdeviceptr at, hold_at;
	double bare[ROUNDS], gated[ROUNDS], host[ROUNDS], host_bare;

	if (shared_word(&word, &at) || shared_word(&hold, &hold_at))
		return -1;
	CUresult r = wait_function()(stream, at, 0, CU_STREAM_WAIT_VALUE_GEQ);

	if (r)
		return skipped("gate", cu_error(r));
	for (unsigned i = 0; i < ROUNDS / 4; i++) {
		if (time_kernels(50, false, at, hold, hold_at, &bare[i], &host_bare) ||
		    time_kernels(50, true, at, hold, hold_at, &gated[i], &host[i]))
			return -1;
		host[i] -= host_bare;
	}
	print_samples("empty kernel, device time", bare, ROUNDS / 4, "ns");
	print_samples("empty kernel behind a gate, device time", gated, ROUNDS / 4, "ns");
	print_samples("cuStreamWaitValue32, host time", host, ROUNDS / 4, "ns");
	print_value("a gate, device time", gated[ROUNDS / 8] - bare[ROUNDS / 8], "ns");
	return 0;
}

/* The kernel's start is seen when the write behind it arrives, so a bare write is measured as well. */
static int measure_start(void)
{
	volatile uint32_t *go, *seen;
	CUdeviceptr go_at, seen_at;
	double with[ROUNDS], without[ROUNDS];

	if (shared_word(&go, &go_at) || shared_word(&seen, &seen_at))
		return -1;
	CUresult r = wait_function()(stream, go_at, 0, CU_STREAM_WAIT_VALUE_GEQ);

	if (r)
		return skipped("start", cu_error(r));
	for (unsigned i = 0; i < 2 * ROUNDS; i++) {
		bool kernel = i % 2;
		uint64_t t0;

		*go = *seen = 0;
		__sync_synchronize();
		CU_OR_FAIL("wait", wait_function()(stream, go_at, 1, CU_STREAM_WAIT_VALUE_GEQ));
		if (kernel)
			CU_OR_FAIL("launch", launch_empty(stream));
		CU_OR_FAIL("write", write_function()(stream, seen_at, 1, 0));
		for (t0 = now_ns(); now_ns() - t0 < 200000;)   /* until the device is surely waiting */
			;
		t0 = now_ns();
		*go = 1;
		while (!*seen && now_ns() - t0 < UINT64_C(1000000000))
			;
		(kernel ? with : without)[i / 2] = (double)(now_ns() - t0) / 1000;
		CU_OR_FAIL("finish", cu.cuStreamSynchronize(stream));
	}
	print_samples("host store -> device goes on -> seen by the host", without, ROUNDS, "us");
	print_samples("host store -> kernel has run -> seen by the host", with, ROUNDS, "us");
	return 0;
}

static int measure_event(void)
{
	double record[ROUNDS], query[ROUNDS], step[ROUNDS];
	CUevent e[2];
	unsigned steps = 0;

	for (unsigned i = 0; i < 2; i++)
		CU_OR_FAIL("event", cu.cuEventCreate(&e[i], CU_EVENT_DEFAULT));
	for (unsigned i = 0; i < ROUNDS; i++) {
		float ms;
		uint64_t t0 = now_ns(), t1;

		CU_OR_FAIL("record", cu.cuEventRecord(e[0], stream));
		t1 = now_ns();
		cu.cuEventQuery(e[0]);
		record[i] = (double)(t1 - t0);
		query[i] = (double)(now_ns() - t1);
		CU_OR_FAIL("record", cu.cuEventRecord(e[1], stream));
		CU_OR_FAIL("finish", cu.cuStreamSynchronize(stream));
		CU_OR_FAIL("elapsed", cu.cuEventElapsedTime(&ms, e[0], e[1]));
		if (ms > 0)
			step[steps++] = (double)ms * 1e6;
	}
	print_samples("cuEventRecord, host time", record, ROUNDS, "ns");
	print_samples("cuEventQuery, host time", query, ROUNDS, "ns");
	if (steps)
		print_samples("two events after each other, elapsed time", step, steps, "ns");
	return 0;
}

struct arrays {
	CUdeviceptr a, b, c;
	uint32_t n;
};

static int open_arrays(struct arrays *v, uint32_t n)
{
	v->n = n;
	CU_OR_FAIL("array", cu.cuMemAlloc_v2(&v->a, n * sizeof(float)));
	CU_OR_FAIL("array", cu.cuMemAlloc_v2(&v->b, n * sizeof(float)));
	CU_OR_FAIL("array", cu.cuMemAlloc_v2(&v->c, n * sizeof(float)));
	CU_OR_FAIL("fill", cu.cuMemsetD8_v2(v->a, 0, n * sizeof(float)));
	CU_OR_FAIL("fill", cu.cuMemsetD8_v2(v->b, 0, n * sizeof(float)));
	CU_OR_FAIL("fill", cu.cuCtxSynchronize());   /* fills return at once */
	return 0;
}

static void close_arrays(struct arrays *v)
{
	cu.cuMemFree_v2(v->a);
	cu.cuMemFree_v2(v->b);
	cu.cuMemFree_v2(v->c);
}

/* GB/s of c = a + b in a stream, best of ten. */
static int bandwidth(struct arrays *v, CUstream s, double *ret)
{
	void *args[] = { &v->a, &v->b, &v->c, &v->n };
	CUevent e[2];

	*ret = 0;
	for (unsigned i = 0; i < 2; i++)
		CU_OR_FAIL("event", cu.cuEventCreate(&e[i], CU_EVENT_DEFAULT));
	for (unsigned i = 0; i < 10; i++) {
		float ms;

		CU_OR_FAIL("event", cu.cuEventRecord(e[0], s));
		CU_OR_FAIL("launch", cu.cuLaunchKernel(add, v->n / CU_BLOCK, 1, 1, CU_BLOCK, 1, 1, 0, s, args, NULL));
		CU_OR_FAIL("event", cu.cuEventRecord(e[1], s));
		CU_OR_FAIL("finish", cu.cuStreamSynchronize(s));
		CU_OR_FAIL("elapsed", cu.cuEventElapsedTime(&ms, e[0], e[1]));
		double rate = (double)v->n * 12 / ((double)ms * 1e6);

		*ret = rate > *ret ? rate : *ret;
	}
	for (unsigned i = 0; i < 2; i++)
		CU_OR_FAIL("event", cu.cuEventDestroy_v2(e[i]));
	return 0;
}

struct rung {
	CUgreenCtx green;
	CUcontext own;
	CUstream stream;
	unsigned units;
};

static int open_rung(struct rung *g, const CUdevResource *all, unsigned eighths)
{
	CUdevResource part = *all, rest;
	CUdevResourceDesc desc;
	unsigned groups = 1, want = all->sm.smCount * eighths / RUNGS;

	if (eighths < RUNGS)
		CU_OR_FAIL("split", cu.cuDevSmResourceSplitByCount(&part, &groups, all, &rest, 0, want ? want : 1));
	g->units = part.sm.smCount;
	CU_OR_FAIL("description", cu.cuDevResourceGenerateDesc(&desc, &part, 1));
	CU_OR_FAIL("green context", cu.cuGreenCtxCreate(&g->green, desc, device, CU_GREEN_CTX_DEFAULT_STREAM));
	CU_OR_FAIL("green context", cu.cuCtxFromGreenCtx(&g->own, g->green));
	CU_OR_FAIL("stream", cu.cuGreenCtxStreamCreate(&g->stream, g->green, CU_STREAM_NON_BLOCKING, 0));
	return 0;
}

/* Two launches in turn on two rungs, order kept by events, against two on one. */
static int time_switch(struct rung *x, struct rung *y, double *ret_ns)
{
	CUevent e;
	uint64_t t0;

	CU_OR_FAIL("event", cu.cuEventCreate(&e, CU_EVENT_DISABLE_TIMING));
	t0 = now_ns();
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct rung *from = i % 2 ? x : y, *to = i % 2 ? y : x;

		CU_OR_FAIL("launch", launch_empty(from->stream));
		if (from != to) {
			CU_OR_FAIL("event", cu.cuEventRecord(e, from->stream));
			CU_OR_FAIL("wait", cu.cuStreamWaitEvent(to->stream, e, 0));
		}
	}
	CU_OR_FAIL("finish", cu.cuStreamSynchronize(x->stream));
	CU_OR_FAIL("finish", cu.cuStreamSynchronize(y->stream));
	*ret_ns = (double)(now_ns() - t0) / ROUNDS;
	return cu.cuEventDestroy_v2(e) ? -1 : 0;
}

static int measure_ladder(void)
{
	struct rung rung[RUNGS] = { 0 };
	CUdevResource all = { 0 };
	struct arrays v;
	double stay[SWITCHES], change[SWITCHES];

	if (!cu.cuGreenCtxCreate || !cu.cuGreenCtxStreamCreate || !cu.cuDevSmResourceSplitByCount)
		return skipped("ladder", "this driver has no green contexts (12.4 and later)");
	CUresult r = cu.cuDeviceGetDevResource(device, &all, CU_DEV_RESOURCE_TYPE_SM);

	if (r == CUDA_ERROR_NOT_SUPPORTED)
		return skipped("ladder", cu_error(r));
	CU_OR_FAIL("resource", r);
	if (open_arrays(&v, 32 * MIB))
		return -1;
	for (unsigned i = 0; i < RUNGS; i++) {
		size_t before, after, total;
		uint64_t t0 = now_ns();
		double rate;

		CU_OR_FAIL("memory", cu.cuMemGetInfo_v2(&before, &total));
		if (open_rung(&rung[i], &all, i + 1))
			return -1;
		double us = (double)(now_ns() - t0) / 1000;

		CU_OR_FAIL("memory", cu.cuMemGetInfo_v2(&after, &total));
		if (bandwidth(&v, rung[i].stream, &rate))
			return -1;
		printf("{\"name\":\"rung %u/8\",\"value\":%.6g,\"unit\":\"GB/s\",\"multiprocessors\":%u,\"made_in_us\":%.0f,"
		       "\"memory_mib\":%.1f}\n",
		       i + 1, rate, rung[i].units, us, before > after ? (double)(before - after) / (double)MIB : 0.0);
	}
	for (unsigned i = 0; i < SWITCHES; i++)   /* in turns, so that both see the same machine */
		if (time_switch(&rung[3], &rung[3], &stay[i]) || time_switch(&rung[3], &rung[4], &change[i]))
			return -1;
	print_samples("launch without a switch of rung", stay, SWITCHES, "ns");
	print_samples("launch with a switch of rung", change, SWITCHES, "ns");
	print_value("a switch of rung", change[SWITCHES / 2] - stay[SWITCHES / 2], "ns");
	for (unsigned i = 0; i < RUNGS; i++) {
		cu.cuStreamDestroy_v2(rung[i].stream);
		cu.cuGreenCtxDestroy(rung[i].green);
	}
	close_arrays(&v);
	return 0;
}

static int copy(CUdeviceptr p, unsigned char *host, size_t total, size_t piece, bool to_device)
{
	for (size_t at = 0; at < total; at += piece) {
		if (to_device)
			CU_OR_FAIL("copy", cu.cuMemcpyHtoDAsync_v2(p + at, host + at, piece, stream));
		else
			CU_OR_FAIL("copy", cu.cuMemcpyDtoHAsync_v2(host + at, p + at, piece, stream));
	}
	CU_OR_FAIL("finish", cu.cuStreamSynchronize(stream));
	return 0;
}

static int measure_copies(void)
{
	static const size_t pieces[] = { MIB / 16, MIB / 4, MIB, 4 * MIB, 16 * MIB, 128 * MIB };
	size_t total = 128 * MIB;
	unsigned char *host;
	CUdeviceptr p;

	CU_OR_FAIL("pinned memory", cu.cuMemHostAlloc((void **)&host, total, 0));
	CU_OR_FAIL("buffer", cu.cuMemAlloc_v2(&p, total));
	for (unsigned to = 0; to < 2; to++) {
		if (copy(p, host, total, total, to))   /* the first touches pages */
			return -1;
		for (unsigned i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
			double best = 0;
			char name[64];

			for (unsigned k = 0; k < 3; k++) {
				uint64_t t0 = now_ns();

				if (copy(p, host, total, pieces[i], to))
					return -1;
				double rate = (double)total / (double)(now_ns() - t0);

				best = rate > best ? rate : best;
			}
			snprintf(name, sizeof(name), "%s in pieces of %zu KiB", to ? "host to device" : "device to host",
				 pieces[i] / 1024);
			print_value(name, best, "GB/s");
		}
	}
	CU_OR_FAIL("buffer", cu.cuMemFree_v2(p));
	CU_OR_FAIL("pinned memory", cu.cuMemFreeHost(host));
	return 0;
}

static int measure_baseline(void)
{
	struct arrays v;
	double rate, t[ROUNDS];

	if (open_arrays(&v, 64 * MIB) || bandwidth(&v, stream, &rate))
		return -1;
	close_arrays(&v);
	print_value("bandwidth of c = a + b", rate, "GB/s");
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t t0 = now_ns();

		CU_OR_FAIL("launch", launch_empty(stream));
		CU_OR_FAIL("finish", cu.cuStreamSynchronize(stream));
		t[i] = (double)(now_ns() - t0) / 1000;
	}
	print_samples("launch and synchronise", t, ROUNDS, "us");
	return 0;
}

static const struct {
	const char *name;
	int (*run)(void);
} measures[] = {
	{ "baseline", measure_baseline }, { "gate", measure_gate },	  { "start", measure_start },
	{ "event", measure_event },	  { "ladder", measure_ladder }, { "copies", measure_copies },
};

static int start(void)
{
	CUmodule m;

	if (cu_load(NULL) || cu_start(0, &device, &context))
		return -1;
	CU_OR_FAIL("module", cu.cuModuleLoadData(&m, cu_ptx));
	CU_OR_FAIL("stream", cu.cuModuleGetFunction(&add, m, "stream"));
	CU_OR_FAIL("empty", cu.cuModuleGetFunction(&empty, m, "empty"));
	CU_OR_FAIL("spin", cu.cuModuleGetFunction(&spin, m, "spin"));
	CU_OR_FAIL("stream", cu.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CU_OR_FAIL("counter", cu.cuMemAlloc_v2(&count, sizeof(uint32_t)));
	for (unsigned i = 0; i < 10; i++)
		CU_OR_FAIL("warm-up", launch_empty(stream));
	CU_OR_FAIL("warm-up", cu.cuStreamSynchronize(stream));
	return 0;
}

int main(int argc, char **argv)
{
	cu_program = "cumicro";
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (unsigned i = 0; argc == 2 && i < sizeof(measures) / sizeof(measures[0]); i++)
		if (!strcmp(argv[1], measures[i].name))
			return start() || measures[i].run() ? 1 : 0;
	fprintf(stderr, "cumicro baseline|gate|start|event|ladder|copies\n");
	return 2;
}
