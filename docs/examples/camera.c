/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A camera: each frame is decoded on the host, goes through two models on the accelerator with host work
 * between, and is answered. For the accelerator's user that is one request; a gate alone sees two, and not
 * the host's part of either.
 *
 *   cc camera.c camera_opencl.c $(pkg-config --cflags --libs penstock) -lOpenCL -o camera
 *   penstock run --name cam --sla 40ms -- ./camera 200
 *   penstock ps -o json        # response: counts frames; P99 of frames
 *
 * Prints what it measured itself: the 50th and 99th percentile in microseconds; with a second argument
 * every frame, and stays.
 */
#include "camera.h"

#include <penstock/penstock.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define DECODE_NS 3000000L
#define BETWEEN_NS 3000000L
#define FRAMES_MAX 10000

static long long now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (long long)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void host_work(long ns) /* stands for a decoder, which waits for its device */
{
	struct timespec ts = { 0, ns };
	nanosleep(&ts, NULL);
}

static int frame(void)
{
	penstock_request_t request;
	penstock_request_begin(&request); /* not under a contract: does nothing */
	host_work(DECODE_NS);
	int r = accelerator_run(); /* detect */
	host_work(BETWEEN_NS);
	if (!r)
		r = accelerator_run(); /* classify */
	if (r)
		penstock_request_cancel(request);
	else
		penstock_request_end(request);
	return r;
}

static int by_size(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;
	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	static long long took[FRAMES_MAX], sorted[FRAMES_MAX];
	int n = argc > 1 ? atoi(argv[1]) : 100;
	if (n < 1 || n > FRAMES_MAX) {
		fprintf(stderr, "usage: camera FRAMES (1 to %d)\n", FRAMES_MAX);
		return 2;
	}
	if (accelerator_open() < 0)
		return 1;
	for (int i = 0; i < n; i++) {
		long long begin = now_ns();
		if (frame() < 0)
			return 1;
		sorted[i] = took[i] = now_ns() - begin;
	}
	qsort(sorted, (size_t)n, sizeof(sorted[0]), by_size);
	printf("frames %d p50_us %lld p99_us %lld\n", n, sorted[(n * 50 + 99) / 100 - 1] / 1000,
	       sorted[(n * 99 + 99) / 100 - 1] / 1000);
	if (argc > 2) {
		for (int i = 0; i < n; i++)
			printf("%lld ", took[i] / 1000);
		puts("");
		fflush(stdout);
		getchar();
	}
	return 0;
}
