/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One in-order queue, several threads: whose command comes first is open, but each is one command. A kernel that is cut
 * must not have another thread's command between its pieces. Run with a gate that cuts and pauses after each piece.
 */
#include "shim/ocl.h"

#include <pthread.h>

static const char source[] = "__kernel void twice(__global int *a) { a[get_global_id(0)] *= 2; }"
			     "__kernel void more(__global int *a) { a[get_global_id(0)] += 1; }";
static size_t global = 4096, local = 64;
static cl_command_queue queue;
static cl_kernel twice, more;
static cl_mem mem;
static int host[4096], snapshot[4096];

static void set(int value)
{
	MUST(clEnqueueFillBuffer(queue, mem, &value, sizeof(value), 0, sizeof(host), 0, NULL, NULL));
	MUST(clFinish(queue));
}

static void launch(cl_kernel k)
{
	MUST(clEnqueueNDRangeKernel(queue, k, 1, NULL, &global, &local, 0, NULL, NULL));
}

/* The first pieces of the other thread's kernel have run. */
static void wait_pieces(uint64_t from)
{
	for (int i = 0; i < 20000 && stats->pieces < from + 2; i++)
		usleep(100);
}

static uint64_t pieces_before;

static void *launch_more(void *arg)
{
	(void)arg;
	wait_pieces(pieces_before);
	launch(more);
	return NULL;
}

static void *read_it(void *arg)
{
	(void)arg;
	wait_pieces(pieces_before);
	MUST(clEnqueueReadBuffer(queue, mem, CL_TRUE, 0, sizeof(snapshot), snapshot, 0, NULL, NULL));
	return NULL;
}

static void *mark_it(void *arg)
{
	cl_event *e = arg;
	wait_pieces(pieces_before);
	MUST(clEnqueueMarkerWithWaitList(queue, 0, NULL, e));
	return NULL;
}

static unsigned unlike(const int *a)
{
	unsigned n = 0;
	for (size_t i = 1; i < global; i++)
		n += a[i] != a[0];
	return n;
}

static void beside(void *(*other)(void *), void *arg)
{
	pthread_t thread;
	set(1);
	pieces_before = stats->pieces;
	MUST(pthread_create(&thread, NULL, other, arg));
	launch(twice);
	pthread_join(thread, NULL);
	CHECK(stats->pieces > pieces_before + 2);   /* it was cut */
}

/* A blocking call of another thread that waits for what this thread does afterwards must not stop it. */
static cl_event go;

static void *read_when_told(void *arg)
{
	(void)arg;
	MUST(clEnqueueReadBuffer(queue, mem, CL_TRUE, 0, sizeof(snapshot), snapshot, 1, &go, NULL));
	return NULL;
}

static void blocked_reader(void)
{
	cl_int err;
	pthread_t thread;
	set(1);
	go = clCreateUserEvent(context, &err);
	MUST(err);
	uint64_t seen = stats->not_runnable;
	MUST(pthread_create(&thread, NULL, read_when_told, NULL));
	while (stats->not_runnable == seen)
		usleep(100);
	launch(more);
	MUST(clSetUserEventStatus(go, CL_COMPLETE));
	pthread_join(thread, NULL);
	CHECK_EQ(unlike(snapshot), 0);
	MUST(clFinish(queue));
	MUST(clReleaseEvent(go));
}

int main(void)
{
	cl_event e = NULL;
	setup();
	queue = new_queue(0);
	twice = new_kernel(source, "twice");
	more = new_kernel(source, "more");
	mem = new_buffer(sizeof(host));
	MUST(clSetKernelArg(twice, 0, sizeof(mem), &mem));
	MUST(clSetKernelArg(more, 0, sizeof(mem), &mem));

	beside(launch_more, NULL);
	MUST(clEnqueueReadBuffer(queue, mem, CL_TRUE, 0, sizeof(host), host, 0, NULL, NULL));
	CHECK_EQ(unlike(host), 0);
	CHECK(host[0] == 3 || host[0] == 4);

	beside(read_it, NULL);
	CHECK_EQ(unlike(snapshot), 0);

	beside(mark_it, &e);
	cl_int status = CL_QUEUED;
	MUST(clWaitForEvents(1, &e));
	MUST(clGetEventInfo(e, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof(status), &status, NULL));
	CHECK_EQ(status, CL_COMPLETE);
	MUST(clReleaseEvent(e));

	blocked_reader();
	MUST(clReleaseCommandQueue(queue));
	return finished("shared");
}
