/* SPDX-License-Identifier: Apache-2.0 */
/* Events, callbacks, user events, out-of-order queues, profiling, reference counts of queues, flush of other queues. */
#include "shim/ocl.h"

#include <pthread.h>
#include <sched.h>

static const char source[] = "__kernel void add(__global int *a, int n) { a[get_global_id(0)] += n; }";
static cl_kernel kernel;
static cl_mem mem;
static size_t global = 1024, local = 64;

static void launch(cl_command_queue q, cl_uint nwait, const cl_event *wait, cl_event *e)
{
	MUST(clEnqueueNDRangeKernel(q, kernel, 1, NULL, &global, &local, nwait, wait, e));
}

/* A thousand commands behind a user event that this thread sets afterwards: none may be waited for, all are flagged. */
static void user_event(void)
{
	cl_int err;
	cl_command_queue q = new_queue(0), other = new_queue(0);
	uint64_t before = stats->not_runnable;
	cl_event user = clCreateUserEvent(context, &err), e, ready;
	MUST(err);
	launch(q, 1, &user, &e);
	for (int i = 0; i < 998; i++)
		launch(q, 0, NULL, NULL);          /* behind it in order */
	launch(other, 1, &e, NULL);                /* by another queue */
	CHECK_EQ(stats->not_runnable - before, 1000);
	cl_command_queue free_queue = new_queue(0);
	launch(free_queue, 0, NULL, &ready);       /* and one that depends on nothing */
	CHECK_EQ(stats->not_runnable - before, 1000);
	MUST(clWaitForEvents(1, &ready));
	MUST(clSetUserEventStatus(user, CL_COMPLETE));
	MUST(clFinish(q));
	MUST(clFinish(other));
	launch(q, 1, &e, NULL);                    /* done long ago */
	launch(q, 0, NULL, NULL);
	CHECK_EQ(stats->not_runnable - before, 1000);
	/* Released without ever being set: must not make the rest of the program look stuck. */
	cl_event lost = clCreateUserEvent(context, &err), x;
	MUST(clReleaseEvent(lost));
	launch(other, 0, NULL, &x);
	launch(q, 1, &x, NULL);
	CHECK_EQ(stats->not_runnable - before, 1000);
	MUST(clFinish(q));
	MUST(clReleaseEvent(x));
	MUST(clReleaseEvent(ready));
	MUST(clReleaseEvent(user));
	MUST(clReleaseEvent(e));
	MUST(clReleaseCommandQueue(q));
	MUST(clReleaseCommandQueue(other));
	MUST(clReleaseCommandQueue(free_queue));
}

/*
 * Out of order a command that stands keeps nobody else from running, unless it is a barrier; and an unset user event says
 * nothing of queues that no command of theirs waits for.
 */
static void standing_alone(void)
{
	cl_int err;
	cl_queue_properties props[] = { CL_QUEUE_PROPERTIES, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE, 0 };
	cl_command_queue q = clCreateCommandQueueWithProperties(context, device, props, &err), a = new_queue(0), b = new_queue(0);
	MUST(err);
	cl_event user = clCreateUserEvent(context, &err), stands, x;
	MUST(err);
	uint64_t before = stats->not_runnable;
	launch(a, 0, NULL, &x);
	launch(b, 1, &x, NULL);
	CHECK_EQ(stats->not_runnable, before);       /* in order, and nothing stands in @a */
	MUST(clReleaseEvent(x));
	launch(q, 1, &user, &stands);
	CHECK_EQ(stats->not_runnable, before + 1);
	launch(q, 0, NULL, NULL);
	CHECK_EQ(stats->not_runnable, before + 1);   /* beside it */
	launch(q, 1, &stands, NULL);
	launch(b, 1, &stands, &x);
	CHECK_EQ(stats->not_runnable, before + 3);   /* behind it */
	launch(a, 1, &x, NULL);
	CHECK_EQ(stats->not_runnable, before + 4);
	MUST(clReleaseEvent(x));
	MUST(clEnqueueBarrierWithWaitList(q, 0, NULL, NULL));
	before = stats->not_runnable;
	launch(q, 0, NULL, NULL);
	CHECK_EQ(stats->not_runnable, before + 1);   /* behind a barrier that is behind it */
	MUST(clSetUserEventStatus(user, CL_COMPLETE));
	MUST(clFinish(q));
	MUST(clFinish(a));
	MUST(clFinish(b));
	launch(q, 0, NULL, NULL);
	CHECK_EQ(stats->not_runnable, before + 1);
	MUST(clFinish(q));
	MUST(clReleaseEvent(stands));
	MUST(clReleaseEvent(user));
	MUST(clReleaseCommandQueue(q));
	MUST(clReleaseCommandQueue(a));
	MUST(clReleaseCommandQueue(b));
}

/* The thread that waits releases the last reference while the one that sets is still in its call. */
#define RACES 1000
static cl_event _Atomic raced;

static void *wait_and_release(void *arg)
{
	(void)arg;
	for (int i = 0; i < RACES; i++) {
		cl_event e;
		while (!(e = raced))
			sched_yield();
		cl_int status = CL_SUBMITTED;
		while (status > CL_COMPLETE)
			OK(clGetEventInfo(e, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof(status), &status, NULL));
		OK(clReleaseEvent(e));
		raced = NULL;
	}
	return NULL;
}

static void released_while_set(void)
{
	pthread_t thread;
	cl_int err;
	MUST(pthread_create(&thread, NULL, wait_and_release, NULL));
	for (int i = 0; i < RACES; i++) {
		cl_event e = clCreateUserEvent(context, &err);
		MUST(err);
		raced = e;
		MUST(clSetUserEventStatus(e, CL_COMPLETE));
		while (raced)
			sched_yield();
	}
	pthread_join(thread, NULL);
	/* Were one counted twice or never, all that waits for another queue would look stuck from now on. */
	cl_command_queue q = new_queue(0), other = new_queue(0);
	uint64_t before = stats->not_runnable;
	cl_event e;
	launch(other, 0, NULL, &e);
	launch(q, 1, &e, NULL);
	CHECK_EQ(stats->not_runnable, before);
	MUST(clFinish(other));
	MUST(clFinish(q));
	MUST(clReleaseEvent(e));
	MUST(clReleaseCommandQueue(q));
	MUST(clReleaseCommandQueue(other));
}

/* The queue is released while another thread waits for its event, which is all that the application holds then. */
static void *wait_for_it(void *arg)
{
	cl_event *e = arg;
	OK(clWaitForEvents(1, e));
	OK(clReleaseEvent(*e));
	return NULL;
}

static void queue_released_while_waiting(void)
{
	pthread_t thread;
	cl_int err;
	cl_command_queue q = new_queue(0);
	cl_event user = clCreateUserEvent(context, &err), e;
	MUST(err);
	launch(q, 1, &user, &e);
	uint64_t edges = stats->edges;
	MUST(pthread_create(&thread, NULL, wait_for_it, &e));
	while (stats->edges == edges)   /* it has looked at the queue, and waits or is about to */
		usleep(100);
	MUST(clReleaseCommandQueue(q));
	MUST(clSetUserEventStatus(user, CL_COMPLETE));
	pthread_join(thread, NULL);
	MUST(clReleaseEvent(user));
}

static cl_command_queue callback_queue;
static _Atomic int called;

static void CL_CALLBACK from_callback(cl_event e, cl_int status, void *user)
{
	(void)e;
	if (status != CL_COMPLETE || user != &called)
		failures++;
	if (clEnqueueNDRangeKernel(callback_queue, kernel, 1, NULL, &global, &local, 0, NULL, NULL) != CL_SUCCESS)
		failures++;
	clFlush(callback_queue);
	called++;
}

static void callbacks(void)
{
	cl_command_queue q = new_queue(0);
	callback_queue = new_queue(0);
	cl_event e;
	launch(q, 0, NULL, &e);
	OK(clSetEventCallback(e, CL_COMPLETE, from_callback, &called));
	CHECK_EQ(clSetEventCallback(e, CL_COMPLETE, NULL, NULL), CL_INVALID_VALUE);
	OK(clFinish(q));
	for (int i = 0; i < 2000 && !called; i++)
		usleep(1000);
	CHECK_EQ(called, 1);
	if (!getenv("FAKEGATE_FAST"))
		CHECK_EQ(stats->in_callback, 1);
	OK(clFinish(callback_queue));
	OK(clReleaseEvent(e));
	OK(clReleaseCommandQueue(q));
	OK(clReleaseCommandQueue(callback_queue));
}

static void queues(void)
{
	cl_int err;
	cl_queue_properties props[] = { CL_QUEUE_PROPERTIES, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE, 0 }, got[8];
	cl_queue_properties on_device[] = { CL_QUEUE_PROPERTIES, CL_QUEUE_ON_DEVICE | CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE, 0 };
	size_t n = 0;
	uint64_t live = stats->queues;
	cl_command_queue q = clCreateCommandQueueWithProperties(context, device, props, &err);
	MUST(err);
	CHECK_EQ(stats->queues, live + 1);
	OK(clGetCommandQueueInfo(q, CL_QUEUE_PROPERTIES_ARRAY, sizeof(got), got, &n));
	CHECK_EQ(n, sizeof(props));
	CHECK(!memcmp(got, props, sizeof(props)));
	CHECK_EQ(clGetCommandQueueInfo(q, CL_QUEUE_PROPERTIES_ARRAY, 8, got, &n), CL_INVALID_VALUE);
	cl_command_queue_properties bits = 0;
	OK(clGetCommandQueueInfo(q, CL_QUEUE_PROPERTIES, sizeof(bits), &bits, NULL));
	CHECK_EQ(bits, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE);
	cl_device_id d = NULL;
	OK(clGetCommandQueueInfo(q, CL_QUEUE_DEVICE, sizeof(d), &d, NULL));
	CHECK(d == device);
	OK(clRetainCommandQueue(q));
	OK(clReleaseCommandQueue(q));
	CHECK_EQ(stats->queues, live + 1);
	cl_event a, b;
	launch(q, 0, NULL, &a);
	launch(q, 1, &a, &b);
	OK(clEnqueueBarrierWithWaitList(q, 0, NULL, NULL));
	OK(clWaitForEvents(1, &b));
	OK(clReleaseEvent(a));
	OK(clReleaseEvent(b));
	OK(clFinish(q));
	OK(clReleaseCommandQueue(q));
	CHECK_EQ(stats->queues, live);
	CHECK(!clCreateCommandQueueWithProperties(context, device, on_device, &err));
	CHECK_EQ(err, CL_INVALID_QUEUE_PROPERTIES);
	CHECK_EQ(stats->queues, live);
	q = clCreateCommandQueueWithProperties(context, device, NULL, &err);
	MUST(err);
	OK(clGetCommandQueueInfo(q, CL_QUEUE_PROPERTIES_ARRAY, sizeof(got), got, &n));
	CHECK_EQ(n, 0);
	OK(clReleaseCommandQueue(q));
}

/* What the gate learns of ends: a wait for the newest command of a queue is a synchronisation, any other one a look. */
static void sync_points(void)
{
	cl_command_queue q = new_queue(0);
	cl_event e, late;
	uint64_t begun = stats->sync_begin, ended = stats->sync_end, polls = stats->polls;
	launch(q, 0, NULL, &e);
	OK(clWaitForEvents(1, &e));
	CHECK_EQ(stats->sync_end, ended + 1);
	launch(q, 0, NULL, &late);
	OK(clWaitForEvents(1, &e));
	CHECK_EQ(stats->sync_end, ended + 1);
	CHECK_EQ(stats->polls, polls + 1);
	cl_int status = CL_QUEUED;
	OK(clFlush(q));
	for (int i = 0; i < 5000 && status != CL_COMPLETE; i++) {
		OK(clGetEventInfo(late, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof(status), &status, NULL));
		if (status != CL_COMPLETE)
			usleep(1000);
	}
	CHECK_EQ(stats->sync_end, ended + 2);
	CHECK(stats->edges > 0);
	CHECK(stats->sync_begin >= begun + 2);
	OK(clReleaseEvent(e));
	OK(clReleaseEvent(late));
	OK(clReleaseCommandQueue(q));
}

static void command_buffer(void)
{
	clCreateCommandBufferKHR_fn create = (clCreateCommandBufferKHR_fn)clGetExtensionFunctionAddressForPlatform(
		platform, "clCreateCommandBufferKHR");
	if (!create) {
		printf("no command buffers on this device\n");
		return;
	}
#define EXT(name) name##_fn name = (name##_fn)clGetExtensionFunctionAddressForPlatform(platform, #name); CHECK(name != NULL)
	EXT(clCommandNDRangeKernelKHR);
	EXT(clFinalizeCommandBufferKHR);
	EXT(clEnqueueCommandBufferKHR);
	EXT(clReleaseCommandBufferKHR);
	cl_int err;
	cl_command_queue q = new_queue(0);
	cl_command_buffer_khr cb = create(1, &q, NULL, &err);
	MUST(err);
	int zero = 0, first = -1;
	MUST(clEnqueueFillBuffer(q, mem, &zero, sizeof(zero), 0, global * sizeof(int), 0, NULL, NULL));
	uint64_t kernels = stats->kind[PEN_CMD_KERNEL], graphs = stats->kind[PEN_CMD_GRAPH];
	for (int i = 0; i < 5; i++)
		MUST(clCommandNDRangeKernelKHR(cb, NULL, NULL, kernel, 1, NULL, &global, &local, 0, NULL, NULL, NULL));
	MUST(clFinalizeCommandBufferKHR(cb));
	MUST(clEnqueueCommandBufferKHR(0, NULL, cb, 0, NULL, NULL));
	MUST(clEnqueueReadBuffer(q, mem, CL_TRUE, 0, sizeof(first), &first, 0, NULL, NULL));
	CHECK_EQ(first, 5);
	CHECK_EQ(stats->kind[PEN_CMD_GRAPH], graphs + 1);
	CHECK_EQ(stats->kind[PEN_CMD_KERNEL], kernels);
	OK(clReleaseCommandBufferKHR(cb));
	CHECK_EQ(clReleaseCommandBufferKHR(NULL), CL_INVALID_COMMAND_BUFFER_KHR);
	OK(clReleaseCommandQueue(q));
}

int main(void)
{
	setup();
	int one = 1;
	kernel = new_kernel(source, "add");
	mem = new_buffer(global * sizeof(int));
	MUST(clSetKernelArg(kernel, 0, sizeof(mem), &mem));
	MUST(clSetKernelArg(kernel, 1, sizeof(one), &one));
	sync_points();
	if (!getenv("FAKEGATE_FAST"))
		user_event();
	if (!getenv("FAKEGATE_FAST"))
		standing_alone();
	released_while_set();
	queue_released_while_waiting();
	callbacks();
	queues();
	command_buffer();
	CHECK(!clGetExtensionFunctionAddressForPlatform(platform, "clDeviceMemAllocINTEL"));
	for (int i = 0; i < 1000 && stats->marks; i++)
		usleep(1000);
	CHECK_EQ(stats->marks, 0);
	CHECK_EQ(stats->late, 0);
	CHECK_EQ(stats->queues, 0);
	return finished("event");
}
