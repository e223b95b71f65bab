/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that uses libpenstock, and looks at each answer itself. Its first argument is what to do:
 *
 *   none CODE      marks, asks and attaches; each call must answer with that code
 *   unused         marks, though no device is used
 *   attach         all of it on a device of its own; then waits for a line on stdin
 *   nested         as the first process of a namespace, and then as the first of one in it
 *   beside LIB     as unused, with a library loaded that is somebody else's
 *   two            two devices: a request counts where its work was
 *   name           prints what the contract is called
 *   flags          for each line on stdin: a request with work, and what it has, as flags and bytes used
 *   turns N        after a line on stdin N pieces of work of a millisecond; prints when each began and ended, in ns
 *   stopped        works until it is told that its contract has ended
 *   cost N         nanoseconds of a pair of marks, with a device
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <penstock/penstock.h>

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KEY "test:platform/device#0"
#define MIB (UINT64_C(1) << 20)
#define MARKS 200
#define THREADS 8

#define IS(what, wanted) \
	do { \
		long long got_ = (long long)(what), want_ = (long long)(wanted); \
		if (got_ != want_) { \
			fprintf(stderr, "%s:%d: %s: %lld (%s) instead of %lld\n", __FILE__, __LINE__, #what, \
				got_, penstock_error_name((int)got_), want_); \
			_exit(1); \
		} \
	} while (0)

static penstock_device_t *device;

static uint64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int attach(void)
{
	struct penstock_device_want want = {
		.size = sizeof(want), .device = KEY, .model = "test", .memory_bytes = 1024 * MIB
	};
	return penstock_attach(&want, &device);
}

static void work(void)
{
	struct penstock_work_want want = { .size = sizeof(want), .estimate_ns = 20000 };
	penstock_work_t w;
	IS(penstock_work_begin(device, &want, &w), 0);
	IS(penstock_work_end(w), 0);
}

static void none(int code)
{
	penstock_request_t r = 7;
	struct penstock_info info = { .size = sizeof(info) };
	IS(penstock_request_begin(&r), code);
	IS(r, 0);
	IS(penstock_request_end(r), code);
	IS(penstock_request_end(12345), code);
	IS(penstock_request_cancel(r), code);
	IS(penstock_info_get(0, &info), code);
	IS(attach(), code);
}

static void unused(void)
{
	penstock_request_t r;
	struct penstock_info info = { .size = sizeof(info) };
	IS(penstock_request_begin(&r), 0);
	IS(penstock_request_end(r), PENSTOCK_ERR_NO_DEVICE);
	IS(penstock_request_end(r), PENSTOCK_ERR_NOT_OPEN);
	IS(penstock_request_end(0), PENSTOCK_ERR_NOT_OPEN);
	IS(penstock_request_end(UINT64_MAX), PENSTOCK_ERR_NOT_OPEN);
	IS(penstock_info_get(0, &info), PENSTOCK_ERR_NO_DEVICE);
	IS(penstock_request_begin(NULL), PENSTOCK_ERR_INVALID);
}

static void beside(const char *library)
{
	if (!dlopen(library, RTLD_NOW)) {
		fprintf(stderr, "%s\n", dlerror());
		_exit(1);
	}
	unused();
}

/* The child of a container's first process, in a namespace of its own, has its parent's number. */
static void nested(void)
{
	penstock_request_t r;
	IS(attach(), 0);
	IS(getpid(), 1);
	work();
	IS(penstock_request_begin(&r), 0);
	if (unshare(CLONE_NEWPID) < 0)
		_exit(77);
	pid_t pid = fork();
	if (!pid) {
		IS(getpid(), 1);
		for (int i = 0; i < 3; i++)
			work();
		IS(penstock_request_end(r), PENSTOCK_ERR_NOT_OPEN);
		printf("nested\n");
		fflush(stdout);
		getchar();
		_exit(0);
	}
	int status;
	waitpid(pid, &status, 0);
	IS(status, 0);
}

/* ---- on a device -------------------------------------------------------------------------------- */

static void arguments(void)
{
	struct penstock_device_want want = { .size = sizeof(want), .device = "with space" };
	struct penstock_work_want w = { .size = sizeof(w), .flags = 1 };
	penstock_device_t *d;
	penstock_work_t work;
	IS(penstock_attach(&want, &d), PENSTOCK_ERR_INVALID);
	want.device = NULL;
	IS(penstock_attach(&want, &d), PENSTOCK_ERR_INVALID);
	want.device = "";
	IS(penstock_attach(&want, &d), PENSTOCK_ERR_INVALID);
	want.device = "npu:\"7\""; /* what the daemon would hang up on, and the process have no device any more */
	IS(penstock_attach(&want, &d), PENSTOCK_ERR_INVALID);
	want.device = KEY;
	want.size = 8;
	IS(penstock_attach(&want, &d), PENSTOCK_ERR_INVALID);
	IS(penstock_work_begin(device, &w, &work), PENSTOCK_ERR_INVALID);
	IS(penstock_work_begin(NULL, &w, &work), PENSTOCK_ERR_INVALID);
	IS(penstock_work_end(0), PENSTOCK_ERR_NOT_OPEN);
	want.size = sizeof(want);
	IS(penstock_attach(&want, &d), 0);
	IS(d == device, 1);
}

static void memory(void)
{
	struct penstock_info info = { .size = sizeof(info) };
	IS(penstock_memory_reserve(device, 48 * MIB), 0);
	IS(penstock_memory_reserve(device, 32 * MIB), PENSTOCK_ERR_OUT_OF_MEMORY);
	IS(penstock_info_get(0, &info), 0);
	IS(info.size, sizeof(info));
	IS(info.flags, PENSTOCK_INFO_ATTACHED | PENSTOCK_INFO_DAEMON);
	IS(strcmp(info.contract, "lib"), 0);
	IS(strcmp(info.device, KEY), 0);
	IS(strcmp(info.api, "penstock"), 0);
	IS(info.memory_limit_bytes, 64 * MIB);
	IS(info.memory_used_bytes, 48 * MIB);
	IS(info.memory_guaranteed_bytes, 64 * MIB);
	IS(info.device_memory_bytes, 1024 * MIB);
	IS(info.compute_guaranteed_ppm, 300000);
	IS(info.target_ns, 40000000);
	IS(info.priority_class, PENSTOCK_CLASS_LATENCY);
	IS(info.denials, 1);
	IS(info.epoch > 0, 1);
	IS(penstock_memory_release(device, 48 * MIB), 0);
	IS(penstock_info_get(0, &info), 0);
	IS(info.memory_used_bytes, 0);
	IS(penstock_info_get(1, &info), PENSTOCK_ERR_NOT_FOUND);
	info.size = 16;
	IS(penstock_info_get(0, &info), PENSTOCK_ERR_INVALID);
	/* A program that was built with a newer header: what this version does not know is left alone. */
	struct {
		struct penstock_info info;
		uint64_t newer;
	} later = { .newer = 5 };
	later.info.size = sizeof(later);
	IS(penstock_info_get(0, &later.info), 0);
	IS(later.info.size, sizeof(info));
	IS(later.newer, 5);
}

static void handles(void)
{
	penstock_request_t r[PENSTOCK_REQUESTS_MAX], more = 1;
	for (unsigned i = 0; i < PENSTOCK_REQUESTS_MAX; i++)
		IS(penstock_request_begin(&r[i]), 0);
	IS(penstock_request_begin(&more), PENSTOCK_ERR_TOO_MANY);
	IS(more, 0);
	for (unsigned i = 0; i < PENSTOCK_REQUESTS_MAX; i++) {
		IS(penstock_request_cancel(r[i]), 0);
		IS(penstock_request_cancel(r[i]), PENSTOCK_ERR_NOT_OPEN);
		IS(penstock_request_end(r[i]), PENSTOCK_ERR_NOT_OPEN);
	}
	struct penstock_work_want want = { .size = sizeof(want), .estimate_ns = 1000 };
	penstock_work_t w, w2;
	IS(penstock_work_begin(device, &want, &w), 0);
	IS(penstock_work_begin(device, &want, &w2), 0);
	IS(penstock_work_end(w2), 0); /* in any order */
	IS(penstock_work_end(w2), PENSTOCK_ERR_NOT_OPEN);
	IS(penstock_work_end(w), 0);
	IS(penstock_work_end(w), PENSTOCK_ERR_NOT_OPEN);
}

static void *marks(void *arg)
{
	(void)arg;
	for (int i = 0; i < MARKS; i++) {
		penstock_request_t r;
		IS(penstock_request_begin(&r), 0);
		work();
		IS(penstock_request_end(r), 0);
	}
	return NULL;
}

/* What is open is the parent's; the child is a client of its own. */
static void forks(void)
{
	penstock_request_t open, own;
	penstock_work_t w;
	struct penstock_work_want want = { .size = sizeof(want), .estimate_ns = 1000 };
	struct penstock_info info = { .size = sizeof(info) };
	IS(penstock_request_begin(&open), 0);
	IS(penstock_work_begin(device, &want, &w), 0);
	pid_t pid = fork();
	if (!pid) {
		IS(penstock_request_end(open), PENSTOCK_ERR_NOT_OPEN);
		IS(penstock_work_end(w), PENSTOCK_ERR_NOT_OPEN);
		IS(penstock_info_get(0, &info), 0);
		IS(info.flags, 0); /* not attached yet */
		IS(penstock_request_begin(&own), 0);
		IS(penstock_request_end(own), PENSTOCK_ERR_NO_DEVICE);
		IS(penstock_memory_reserve(device, 8 * MIB), 0); /* attaches */
		IS(penstock_info_get(0, &info), 0);
		IS(info.memory_used_bytes, 8 * MIB);
		IS(penstock_request_begin(&own), 0);
		work();
		IS(penstock_request_end(open), PENSTOCK_ERR_NOT_OPEN);
		IS(penstock_request_end(own), 0); /* the one that the child is counted with */
		_exit(0);
	}
	int status;
	IS(waitpid(pid, &status, 0), pid);
	IS(status, 0);
	IS(penstock_work_end(w), 0);
	IS(penstock_request_cancel(open), 0);
}

static void on_device(void)
{
	pthread_t thread[THREADS];
	IS(attach(), 0);
	for (int i = 0; i < 5; i++)
		work(); /* before the first mark: guessed */
	printf("guessed\n");
	fflush(stdout);
	getchar();
	arguments();
	memory();
	handles();
	for (int i = 0; i < THREADS; i++)
		IS(pthread_create(&thread[i], NULL, marks, NULL), 0);
	for (int i = 0; i < THREADS; i++)
		IS(pthread_join(thread[i], NULL), 0);
	forks();
	for (int i = 0; i < 5; i++)
		work(); /* guessed no more */
	printf("marked %d\n", MARKS * THREADS + 1);
	fflush(stdout);
	getchar();
}

/*
 * Of three requests one gives work to the second device alone, one to both, and one to none, which counts
 * on both.
 */
static void two(void)
{
	struct penstock_device_want want = { .size = sizeof(want),
					     .device = "test:other",
					     .memory_bytes = 1024 * MIB };
	penstock_device_t *first, *second;
	penstock_request_t r;
	IS(attach(), 0);
	first = device;
	IS(penstock_attach(&want, &second), 0);
	for (int i = 0; i < 3; i++) {
		IS(penstock_request_begin(&r), 0);
		device = first;
		if (i == 1)
			work();
		device = second;
		if (i < 2)
			work();
		IS(penstock_request_end(r), 0);
	}
	/* Its contract has no limit; the device has. */
	IS(penstock_memory_reserve(device, UINT64_MAX), PENSTOCK_ERR_OUT_OF_MEMORY);
	IS(penstock_memory_reserve(device, 1024 * MIB + 1), PENSTOCK_ERR_OUT_OF_MEMORY);
	IS(penstock_memory_reserve(device, 1024 * MIB), 0);
	IS(penstock_memory_reserve(device, 1), PENSTOCK_ERR_OUT_OF_MEMORY);
	IS(penstock_memory_release(device, UINT64_MAX), 0);
	printf("two\n");
	fflush(stdout);
	getchar();
}

static void name(void)
{
	struct penstock_info info = { .size = sizeof(info) };
	IS(attach(), 0);
	IS(penstock_info_get(0, &info), 0);
	printf("%s\n", info.contract);
}

static void flags(void)
{
	IS(attach(), 0);
	IS(penstock_memory_reserve(device, 4 * MIB), 0);
	do {
		struct penstock_info info = { .size = sizeof(info) };
		penstock_request_t r;
		IS(penstock_request_begin(&r), 0);
		work();
		IS(penstock_request_end(r), 0);
		IS(penstock_info_get(0, &info), 0);
		printf("%u %llu\n", (unsigned)info.flags, (unsigned long long)info.memory_used_bytes);
		fflush(stdout);
	} while (getchar() != EOF);
}

static void turns(int n)
{
	struct penstock_work_want want = { .size = sizeof(want), .kind = 1, .amount = 1, .estimate_ns = 1000000 };
	uint64_t *at = calloc((size_t)n, 2 * sizeof(*at));
	IS(attach(), 0);
	printf("attached\n");
	fflush(stdout);
	getchar();
	for (int i = 0; i < n; i++) {
		penstock_work_t w;
		IS(penstock_work_begin(device, &want, &w), 0);
		at[2 * i] = now_ns();
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		at[2 * i + 1] = now_ns();
		IS(penstock_work_end(w), 0);
	}
	for (int i = 0; i < n; i++)
		printf("%llu %llu\n", (unsigned long long)at[2 * i], (unsigned long long)at[2 * i + 1]);
	free(at);
}

static void stopped(void)
{
	struct penstock_work_want want = { .size = sizeof(want), .estimate_ns = 1000 };
	penstock_work_t w;
	int r;
	IS(attach(), 0);
	printf("attached\n");
	fflush(stdout);
	while (!(r = penstock_work_begin(device, &want, &w)))
		IS(penstock_work_end(w), 0);
	IS(r, PENSTOCK_ERR_STOPPED);
	IS(penstock_memory_reserve(device, 1), PENSTOCK_ERR_STOPPED);
}

static void cost(int n)
{
	penstock_request_t r = 0;
	if (attach() == 0)
		work();
	for (int round = 0; round < 3; round++) {
		uint64_t began = now_ns();
		for (int i = 0; i < n; i++) {
			penstock_request_begin(&r);
			penstock_request_end(r);
		}
		printf("%.1f ns a pair\n", (double)(now_ns() - began) / n);
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	errno = 77;
	if (!strcmp(what, "none"))
		none(argc > 2 ? atoi(argv[2]) : 0);
	else if (!strcmp(what, "unused"))
		unused();
	else if (!strcmp(what, "attach"))
		on_device();
	else if (!strcmp(what, "two"))
		two();
	else if (!strcmp(what, "name"))
		name();
	else if (!strcmp(what, "flags"))
		flags();
	else if (!strcmp(what, "turns"))
		turns(argc > 2 ? atoi(argv[2]) : 100);
	else if (!strcmp(what, "nested"))
		nested();
	else if (!strcmp(what, "beside"))
		beside(argc > 2 ? argv[2] : "");
	else if (!strcmp(what, "stopped"))
		stopped();
	else if (!strcmp(what, "cost"))
		cost(argc > 2 ? atoi(argv[2]) : 1000000);
	else
		return 2;
	if (!strcmp(what, "none") || !strcmp(what, "unused")) /* others call the C library in between */
		IS(errno, 77);
	return 0;
}
