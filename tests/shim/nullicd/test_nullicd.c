/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The null driver behind a real ICD loader. Argument = scenario; the environment that it needs is set here, before the loader
 * looks: plain | held | timed | lazy | fault | old.
 */
#define CL_TARGET_OPENCL_VERSION 300
#include <CL/cl.h>
#include <CL/cl_ext.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

#define CHECK(cond) \
	do { \
		if (!(cond)) { \
			printf("%s:%d: %s\n", __FILE__, __LINE__, #cond); \
			failures++; \
		} \
	} while (0)
#define OK(call) CHECK((call) == CL_SUCCESS)

static const char source[] =
	"// kernel void hidden(int a) {}\n"
	"__kernel __attribute__((reqd_work_group_size(64, 1, 1))) void fixed(__global float *x, int n) { }\n"
	"kernel void null_count(global uint *out, uint width, uint height) { }\n";

static cl_platform_id platform;
static cl_device_id device;
static cl_context context;
static cl_command_queue queue;
static cl_program program;

static void set_up(cl_command_queue_properties properties)
{
	cl_int err = CL_SUCCESS;

	OK(clGetPlatformIDs(1, &platform, NULL));
	OK(clGetDeviceIDs(platform, CL_DEVICE_TYPE_GPU, 1, &device, NULL));
	context = clCreateContext(NULL, 1, &device, NULL, NULL, &err);
	CHECK(context && !err);
	if (properties) {
		cl_queue_properties list[] = { CL_QUEUE_PROPERTIES, properties, 0 };

		queue = clCreateCommandQueueWithProperties(context, device, list, &err);
	} else {
		queue = clCreateCommandQueueWithProperties(context, device, NULL, &err);
	}
	CHECK(queue && !err);
	program = clCreateProgramWithSource(context, 1, &(const char *){ source }, NULL, &err);
	CHECK(program && !err);
	OK(clBuildProgram(program, 0, NULL, "", NULL, NULL));
}

static void tear_down(void)
{
	OK(clReleaseProgram(program));
	OK(clReleaseCommandQueue(queue));
	OK(clReleaseContext(context));
}

static cl_kernel count_kernel(cl_mem out)
{
	cl_uint width = 64, height = 4;
	cl_int err;
	cl_kernel k = clCreateKernel(program, "null_count", &err);

	CHECK(k && !err);
	OK(clSetKernelArg(k, 0, sizeof(out), &out));
	OK(clSetKernelArg(k, 1, sizeof(width), &width));
	OK(clSetKernelArg(k, 2, sizeof(height), &height));
	return k;
}

static void destroyed(cl_mem m, void *user)
{
	(void)m;
	atomic_fetch_add((atomic_int *)user, 1);
}

static void check_codes(cl_mem m, cl_kernel k)
{
	const size_t global = 64, local = 32;
	cl_int err = 0;
	cl_kernel fixed = clCreateKernel(program, "fixed", &err);

	CHECK(clCreateKernel(program, "hidden", &err) == NULL && err == CL_INVALID_KERNEL_NAME);
	CHECK(clEnqueueNDRangeKernel(queue, fixed, 1, NULL, &global, NULL, 0, NULL, NULL) ==
	      CL_INVALID_KERNEL_ARGS);
	OK(clSetKernelArg(fixed, 0, sizeof(m), &m));
	OK(clSetKernelArg(fixed, 1, sizeof(int), &(int){ 1 }));
	CHECK(clEnqueueNDRangeKernel(queue, fixed, 1, NULL, &global, &local, 0, NULL, NULL) ==
	      CL_INVALID_WORK_GROUP_SIZE);
	CHECK(clEnqueueNDRangeKernel(queue, k, 4, NULL, &global, NULL, 0, NULL, NULL) ==
	      CL_INVALID_WORK_DIMENSION);
	CHECK(clEnqueueNDRangeKernel(queue, k, 1, NULL, &global, NULL, 1, NULL, NULL) ==
	      CL_INVALID_EVENT_WAIT_LIST);
	CHECK(clSetKernelArg(fixed, 2, 4, &global) == CL_INVALID_ARG_INDEX);
	CHECK(clSetKernelArg(fixed, 0, 4, &global) == CL_INVALID_ARG_SIZE);
	CHECK(clEnqueueReadBuffer(queue, m, CL_TRUE, 0, 1 << 30, &err, 0, NULL, NULL) == CL_INVALID_VALUE);
	CHECK(clCreateBuffer(context, 0, 0, NULL, &err) == NULL && err == CL_INVALID_BUFFER_SIZE);
	CHECK(clCreateBuffer(context, CL_MEM_USE_HOST_PTR, 4, NULL, &err) == NULL &&
	      err == CL_INVALID_HOST_PTR);
	OK(clReleaseKernel(fixed));
}

static void check_capacity(void)
{
	cl_mem big[6];
	cl_int err;

	for (int i = 0; i < 6; i++) {
		big[i] = clCreateBuffer(context, CL_MEM_READ_WRITE, 3 << 20, NULL, &err);
		CHECK((big[i] != NULL) == (i < 5) && (i < 5 || err == CL_MEM_OBJECT_ALLOCATION_FAILURE));
	}
	for (int i = 0; i < 5; i++)
		OK(clReleaseMemObject(big[i]));
}

static void check_image(void)
{
	const cl_image_format format = { CL_RGBA, CL_UNORM_INT8 };
	const cl_image_desc desc = { .image_type = CL_MEM_OBJECT_IMAGE2D,
				     .image_width = 100,
				     .image_height = 50 };
	const size_t origin[3] = { 99, 49, 0 }, region[3] = { 1, 1, 1 };
	unsigned char in[4] = { 1, 2, 3, 4 }, out[4] = { 0 };
	size_t size = 0;
	cl_int err;
	cl_mem m = clCreateImage(context, CL_MEM_READ_WRITE, &format, &desc, NULL, &err);

	CHECK(m && !err);
	OK(clGetMemObjectInfo(m, CL_MEM_SIZE, sizeof(size), &size, NULL));
	CHECK(size == 20000);
	OK(clEnqueueWriteImage(queue, m, CL_TRUE, origin, region, 0, 0, in, 0, NULL, NULL));
	OK(clEnqueueReadImage(queue, m, CL_TRUE, origin, region, 0, 0, out, 0, NULL, NULL));
	CHECK(!memcmp(in, out, 4));
	OK(clReleaseMemObject(m));
}

static void plain(void)
{
	const size_t offset[2] = { 16, 1 }, global[2] = { 48, 3 };
	cl_uint zero = 0, out[256], units = 0;
	atomic_int gone = 0;
	cl_int err;

	set_up(0);
	OK(clGetDeviceInfo(device, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof(units), &units, NULL));
	CHECK(units == 16);
	check_capacity();
	cl_mem m = clCreateBuffer(context, CL_MEM_READ_WRITE, sizeof(out), NULL, &err);
	cl_kernel k = count_kernel(m);

	check_codes(m, k);
	check_image();
	OK(clSetMemObjectDestructorCallback(m, destroyed, &gone));
	OK(clEnqueueFillBuffer(queue, m, &zero, sizeof(zero), 0, sizeof(out), 0, NULL, NULL));
	OK(clEnqueueNDRangeKernel(queue, k, 2, offset, global, NULL, 0, NULL, NULL));
	OK(clEnqueueReadBuffer(queue, m, CL_TRUE, 0, sizeof(out), out, 0, NULL, NULL));
	for (cl_uint i = 0; i < 256; i++)
		CHECK(out[i] == (i % 64 >= 16 && i / 64 >= 1));
	cl_buffer_region region = { 128, 128 };
	cl_mem sub = clCreateSubBuffer(m, 0, CL_BUFFER_CREATE_TYPE_REGION, &region, &err);

	CHECK(sub && !err);
	OK(clReleaseMemObject(m));
	CHECK(gone == 0);
	OK(clReleaseMemObject(sub));
	CHECK(gone == 1);
	void *svm = clSVMAlloc(context, CL_MEM_READ_WRITE, 4096, 0);

	CHECK(svm != NULL);
	OK(clEnqueueSVMMemFill(queue, svm, &zero, sizeof(zero), 4096, 0, NULL, NULL));
	clSVMFree(context, svm);
	OK(clReleaseKernel(k));
	tear_down();
}

struct seen {
	atomic_int calls, status;
};

static void notified(cl_event e, cl_int status, void *user)
{
	struct seen *s = user;

	(void)e;
	atomic_store(&s->status, status);
	atomic_fetch_add(&s->calls, 1);
}

static cl_int status_of(cl_event e)
{
	cl_int s = 99;

	OK(clGetEventInfo(e, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof(s), &s, NULL));
	return s;
}

/* Commands behind a user event stay queued, in order, until it is set; a failed one fails what waits for it and nothing else. */
static void held(void)
{
	const size_t global = 64;
	cl_uint zero = 0, out[64] = { 0 };
	struct seen seen = { 0 };
	cl_event gate, e1, e2;
	cl_int err;

	set_up(CL_QUEUE_PROFILING_ENABLE);
	cl_mem m = clCreateBuffer(context, CL_MEM_READ_WRITE, 1024, NULL, &err);
	cl_kernel k = count_kernel(m);

	OK(clEnqueueFillBuffer(queue, m, &zero, sizeof(zero), 0, 1024, 0, NULL, NULL));
	gate = clCreateUserEvent(context, &err);
	OK(clEnqueueNDRangeKernel(queue, k, 1, NULL, &global, NULL, 1, &gate, &e1));
	OK(clSetEventCallback(e1, CL_COMPLETE, notified, &seen));
	OK(clEnqueueReadBuffer(queue, m, CL_FALSE, 0, sizeof(out), out, 0, NULL, &e2));
	CHECK(status_of(e1) == CL_QUEUED && status_of(e2) == CL_QUEUED && seen.calls == 0 && out[0] == 0);
	CHECK(clGetEventProfilingInfo(e1, CL_PROFILING_COMMAND_END, 8, &(cl_ulong){ 0 }, NULL) ==
	      CL_PROFILING_INFO_NOT_AVAILABLE);
	OK(clReleaseKernel(k));
	OK(clReleaseMemObject(m)); /* the queue still needs it */
	OK(clSetUserEventStatus(gate, CL_COMPLETE));
	CHECK(clSetUserEventStatus(gate, CL_COMPLETE) == CL_INVALID_OPERATION);
	CHECK(status_of(e1) == CL_COMPLETE && status_of(e2) == CL_COMPLETE && seen.calls == 1 &&
	      seen.status == CL_COMPLETE);
	CHECK(out[0] == 1 && out[63] == 1);
	OK(clReleaseEvent(e1));
	OK(clReleaseEvent(e2));
	OK(clReleaseEvent(gate));

	gate = clCreateUserEvent(context, &err);
	OK(clEnqueueMarkerWithWaitList(queue, 1, &gate, &e1));
	OK(clEnqueueMarkerWithWaitList(queue, 0, NULL, &e2));
	OK(clSetUserEventStatus(gate, -5));
	CHECK(status_of(e1) == CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST && status_of(e2) == CL_COMPLETE);
	CHECK(clWaitForEvents(1, &e1) == CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST);
	OK(clReleaseEvent(e1));
	OK(clReleaseEvent(e2));
	OK(clReleaseEvent(gate));
	tear_down();
}

/* Two queues share one device: ten kernels of 100 us take 1 ms of device time, one after the other. */
static void timed(void)
{
	const size_t global = 64, local = 64;
	cl_ulong start[10], end[10];
	cl_event events[10];
	struct seen seen = { 0 };
	cl_int err;

	set_up(CL_QUEUE_PROFILING_ENABLE);
	cl_queue_properties list[] = { CL_QUEUE_PROPERTIES, CL_QUEUE_PROFILING_ENABLE, 0 };
	cl_command_queue other = clCreateCommandQueueWithProperties(context, device, list, &err);
	cl_mem m = clCreateBuffer(context, CL_MEM_READ_WRITE, 1024, NULL, &err);
	cl_kernel k = count_kernel(m);

	for (int i = 0; i < 10; i++)
		OK(clEnqueueNDRangeKernel(i % 2 ? other : queue, k, 1, NULL, &global, &local, 0, NULL,
					  &events[i]));
	OK(clSetEventCallback(events[9], CL_COMPLETE, notified, &seen));
	OK(clFinish(queue));
	OK(clFinish(other));
	OK(clWaitForEvents(10, events));
	for (int i = 0; i < 10; i++) {
		OK(clGetEventProfilingInfo(events[i], CL_PROFILING_COMMAND_START, sizeof(start[i]), &start[i],
					   NULL));
		OK(clGetEventProfilingInfo(events[i], CL_PROFILING_COMMAND_END, sizeof(end[i]), &end[i],
					   NULL));
		CHECK(end[i] - start[i] == 100000);
		for (int j = 0; j < i; j++)
			CHECK(start[i] >= end[j] || start[j] >= end[i]);
	}
	for (int i = 0; i < 10; i++)
		OK(clReleaseEvent(events[i]));
	OK(clReleaseKernel(k));
	OK(clReleaseMemObject(m));
	OK(clReleaseCommandQueue(other));
	tear_down();
}

/* Nothing starts before a flush, a blocking call or a wait. */
static void lazy(void)
{
	cl_event e;
	cl_int err;
	cl_uint out;

	set_up(0);
	OK(clEnqueueMarkerWithWaitList(queue, 0, NULL, &e));
	CHECK(status_of(e) == CL_QUEUED);
	OK(clFlush(queue));
	CHECK(status_of(e) == CL_COMPLETE);
	OK(clReleaseEvent(e));
	cl_mem m = clCreateBuffer(context, CL_MEM_READ_WRITE, 1024, NULL, &err);

	OK(clEnqueueMarkerWithWaitList(queue, 0, NULL, &e));
	OK(clEnqueueReadBuffer(queue, m, CL_TRUE, 0, sizeof(out), &out, 0, NULL, NULL));
	CHECK(status_of(e) == CL_COMPLETE);
	OK(clReleaseEvent(e));
	OK(clReleaseMemObject(m));
	tear_down();
}

static void fault(void)
{
	cl_int err = 0;

	set_up(0);
	CHECK(clCreateBuffer(context, 0, 64, NULL, &err) == NULL && err == -5);
	CHECK(clFinish(queue) == CL_SUCCESS);
	CHECK(clFinish(queue) == -36); /* the second call only */
	CHECK(clFinish(queue) == CL_SUCCESS);
	tear_down();
}

static void old(void)
{
	char version[64] = "";
	cl_int err = 0;
	size_t resolution = 9;
	cl_uint n = 0;

	OK(clGetPlatformIDs(1, &platform, NULL));
	OK(clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 0, NULL, &n));
	CHECK(n == 2);
	OK(clGetDeviceIDs(platform, CL_DEVICE_TYPE_CPU, 1, &device, NULL));
	OK(clGetDeviceInfo(device, CL_DEVICE_VERSION, sizeof(version), version, NULL));
	CHECK(!strncmp(version, "OpenCL 1.2 ", 11));
	OK(clGetDeviceInfo(device, CL_DEVICE_PROFILING_TIMER_RESOLUTION, sizeof(resolution), &resolution,
			   NULL));
	CHECK(resolution == 0);
	context = clCreateContext(NULL, 1, &device, NULL, NULL, &err);
	CHECK(context && !err);
	OK(clReleaseContext(context));
}

static const struct {
	const char *name;
	void (*run)(void);
	const char *env[3][2];
} scenarios[] = {
	{ "plain", plain, { { "NULLICD_MEM_MB", "15" } } },
	{ "held", held, { { NULL } } },
	{ "timed", timed, { { "NULLICD_COST_NS", "100000" } } },
	{ "lazy", lazy, { { "NULLICD_LAZY", "1" } } },
	{ "fault", fault, { { "NULLICD_FAIL", "clCreateBuffer:-5,clFinish:-36@2" } } },
	{ "old",
	  old,
	  { { "NULLICD_VERSION", "1.2" }, { "NULLICD_RESOLUTION", "0" }, { "NULLICD_DEVICES", "2" } } },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof(scenarios) / sizeof(*scenarios); i++) {
		if (strcmp(argv[1], scenarios[i].name) != 0)
			continue;
		for (int j = 0; j < 3 && scenarios[i].env[j][0]; j++)
			setenv(scenarios[i].env[j][0], scenarios[i].env[j][1], 1);
		if (!strcmp(argv[1], "old"))
			setenv("NULLICD_TYPE", "cpu", 1);
		scenarios[i].run();
		return failures ? 1 : 0;
	}
	printf("scenario: plain, held, timed, lazy, fault or old\n");
	return 2;
}
