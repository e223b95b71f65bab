/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints what the driver answers to wrong arguments and to every query, one line each: compare.py runs it with and without
 * the layer and compares. Nothing that a contract changes is printed (there is no limit in that run).
 */
#include "shim/ocl.h"

static const char source[] = "__kernel void f(__global int *a, int n) { a[get_global_id(0)] = n; }";

/* PoCL ends the process on some of these; a driver with checks of its own answers all (argument "all"). */
static bool all;
#define SAY_ALL(call) do { if (all) SAY(call); } while (0)

#define SAY(call) printf("%d %s\n", (int)(call), #call)
#define SAYP(call) do { err = 77; void *p_ = (void *)(call); printf("%s %d %s\n", p_ ? "made" : "none", err, #call); } while (0)

static void sizes(const char *what, cl_int (*ask)(cl_uint, size_t, void *, size_t *), cl_uint first, cl_uint last, bool content)
{
	static unsigned char buf[65536];
	for (cl_uint id = first; id <= last; id++) {
		size_t n = 0, m = 0;
		cl_int a = ask(id, 0, NULL, &n);
		cl_int b = a ? 0 : ask(id, n ? n - 1 : 0, buf, NULL);
		memset(buf, 0xaa, sizeof(buf));
		cl_int c = n < sizeof(buf) ? ask(id, sizeof(buf), buf, &m) : 0;
		unsigned sum = 0;
		for (size_t i = 0; content && i < m; i++)
			sum = sum * 31 + buf[i];
		printf("%s %#x: %d %zu / %d / %d %zu %#x\n", what, id, a, n, n ? b : 0, c, m, sum);
	}
}

static cl_command_queue queue;
static cl_event event;
static cl_int ask_platform(cl_uint id, size_t n, void *p, size_t *r) { return clGetPlatformInfo(platform, id, n, p, r); }
static cl_int ask_device(cl_uint id, size_t n, void *p, size_t *r) { return clGetDeviceInfo(device, id, n, p, r); }
static cl_int ask_context(cl_uint id, size_t n, void *p, size_t *r) { return clGetContextInfo(context, id, n, p, r); }
static cl_int ask_queue(cl_uint id, size_t n, void *p, size_t *r) { return clGetCommandQueueInfo(queue, id, n, p, r); }
static cl_int ask_event(cl_uint id, size_t n, void *p, size_t *r) { return clGetEventInfo(event, id, n, p, r); }
static cl_int ask_profile(cl_uint id, size_t n, void *p, size_t *r) { return clGetEventProfilingInfo(event, id, n, p, r); }

static void queries(void)
{
	sizes("platform", ask_platform, 0x0900, 0x0910, true);
	for (cl_uint id = 0x1000; id < 0x1080; id++)
		/* handles differ between runs; hidden on purpose: device-side queues, none here */
		sizes("device", ask_device, id, id, id != CL_DEVICE_PLATFORM && id != CL_DEVICE_PARENT_DEVICE);
	sizes("device", ask_device, 0x12A9, 0x12AA, true);
	sizes("context", ask_context, 0x1080, 0x1081, false);
	sizes("context", ask_context, all ? 0x1082 : 0x1083, 0x1085, false);
	sizes("queue", ask_queue, 0x1090, 0x1092, false);
	sizes("queue", ask_queue, 0x1093, 0x1095, true);
	sizes("queue", ask_queue, 0x1098, 0x1098, true);
	sizes("event", ask_event, 0x11D0, 0x11D5, false);
	sizes("profile", ask_profile, 0x1280, 0x1285, false);
}

static void wrong_arguments(cl_kernel k, cl_mem m)
{
	cl_int err;
	cl_uint n = 0;
	cl_event none = NULL;
	size_t g = 64, zero[3] = { 0 }, r3[3] = { 4, 4, 1 };
	char buf[256] = "";
	cl_device_id ids[4];
	SAY(clGetPlatformIDs(0, NULL, NULL));
	SAY(clGetPlatformIDs(0, &platform, NULL));
	SAY(clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 0, NULL, NULL));
	SAY(clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 0, ids, NULL));
	SAY(clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 0, NULL, &n));
	SAY(clGetDeviceIDs(platform, CL_DEVICE_TYPE_ACCELERATOR, 1, ids, &n));
	SAY(clGetDeviceIDs(platform, 1u << 20, 1, ids, &n));
	SAYP(clCreateContext(NULL, 0, NULL, NULL, NULL, &err));
	SAYP(clCreateContext(NULL, 1, NULL, NULL, NULL, &err));
	SAYP(clCreateContextFromType(NULL, 1u << 20, NULL, NULL, &err));
	SAYP(clCreateCommandQueue(NULL, device, 0, &err));
	SAYP(clCreateCommandQueue(context, NULL, 0, &err));
	SAYP(clCreateCommandQueue(context, device, 1u << 30, &err));
	SAY(clReleaseCommandQueue(NULL));
	SAY(clRetainCommandQueue(NULL));
	SAY(clFinish(NULL));
	SAY(clFlush(NULL));
	SAYP(clCreateBuffer(NULL, 0, 10, NULL, &err));
	SAYP(clCreateBuffer(context, 0, 0, NULL, &err));
	SAYP(clCreateBuffer(context, 0x7, 10, NULL, &err));
	SAYP(clCreateBuffer(context, CL_MEM_COPY_HOST_PTR, 10, NULL, &err));
	SAYP(clCreateBuffer(context, 0, 10, buf, &err));
	SAYP(clCreateImage(context, 0, NULL, NULL, NULL, &err));
	SAYP(clCreateImage2D(context, 0, &(cl_image_format){ CL_RGBA, CL_FLOAT }, 0, 5, 0, NULL, &err));
	SAY(clReleaseMemObject(NULL));
	SAY(clEnqueueReadBuffer(NULL, m, CL_TRUE, 0, 1, buf, 0, NULL, NULL));
	SAY(clEnqueueReadBuffer(queue, NULL, CL_TRUE, 0, 1, buf, 0, NULL, NULL));
	SAY(clEnqueueReadBuffer(queue, m, CL_TRUE, 0, 1, NULL, 0, NULL, NULL));
	SAY(clEnqueueReadBuffer(queue, m, CL_TRUE, 250, 100, buf, 0, NULL, NULL));
	SAY(clEnqueueReadBuffer(queue, m, CL_TRUE, 0, 1, buf, 1, NULL, NULL));
	SAY(clEnqueueReadBuffer(queue, m, CL_TRUE, 0, 1, buf, 1, &none, NULL));
	SAY(clEnqueueReadBuffer(queue, m, CL_TRUE, 0, 1, buf, 0, &event, NULL));
	SAY(clEnqueueWriteBuffer(queue, m, CL_TRUE, 257, 1, buf, 0, NULL, NULL));
	SAY(clEnqueueCopyBuffer(queue, m, m, 0, 10, 20, 0, NULL, NULL));
	SAY(clEnqueueFillBuffer(queue, m, buf, 3, 0, 9, 0, NULL, NULL));
	SAY(clEnqueueFillBuffer(queue, m, buf, 4, 0, 9, 0, NULL, NULL));
	SAY(clEnqueueReadBufferRect(queue, m, CL_TRUE, zero, zero, zero, 0, 0, 0, 0, buf, 0, NULL, NULL));
	SAY(clEnqueueReadBufferRect(queue, m, CL_TRUE, zero, zero, r3, 1, 0, 0, 0, buf, 0, NULL, NULL));
	SAYP(clEnqueueMapBuffer(queue, m, CL_TRUE, CL_MAP_READ, 250, 100, 0, NULL, NULL, &err));
	SAYP(clEnqueueMapBuffer(queue, NULL, CL_TRUE, CL_MAP_READ, 0, 1, 0, NULL, NULL, &err));
	SAY(clEnqueueUnmapMemObject(queue, m, buf, 0, NULL, NULL));
	SAY(clEnqueueNDRangeKernel(queue, k, 1, NULL, &g, NULL, 0, NULL, NULL));
	SAY(clEnqueueNDRangeKernel(NULL, k, 1, NULL, &g, NULL, 0, NULL, NULL));
	SAY_ALL(clEnqueueNDRangeKernel(queue, NULL, 1, NULL, &g, NULL, 0, NULL, NULL));
	SAY(clEnqueueNDRangeKernel(queue, k, 0, NULL, &g, NULL, 0, NULL, NULL));
	SAY(clEnqueueNDRangeKernel(queue, k, 4, NULL, &g, NULL, 0, NULL, NULL));
	SAY_ALL(clEnqueueTask(queue, NULL, 0, NULL, NULL));
	SAY(clEnqueueNativeKernel(queue, NULL, NULL, 0, 0, NULL, NULL, 0, NULL, NULL));
	SAY(clEnqueueMarker(queue, NULL));
	SAY(clEnqueueMarker(NULL, &none));
	SAY(clEnqueueBarrier(NULL));
	SAY_ALL(clEnqueueWaitForEvents(queue, 0, NULL));
	SAY_ALL(clEnqueueWaitForEvents(queue, 1, &none));
	SAY(clEnqueueMarkerWithWaitList(queue, 1, NULL, NULL));
	SAY(clEnqueueMigrateMemObjects(queue, 0, NULL, 0, 0, NULL, NULL));
	SAY(clEnqueueSVMMemcpy(queue, CL_TRUE, NULL, buf, 4, 0, NULL, NULL));
	SAY(clEnqueueSVMMap(queue, CL_TRUE, 0, NULL, 4, 0, NULL, NULL));
	SAY(clEnqueueSVMFree(queue, 0, NULL, NULL, NULL, 0, NULL, NULL));
	SAY(clWaitForEvents(0, NULL));
	SAY(clWaitForEvents(1, &none));
	SAY(clSetEventCallback(NULL, CL_COMPLETE, NULL, NULL));
	SAY(clSetEventCallback(event, 9, NULL, NULL));
	SAY(clSetUserEventStatus(event, CL_COMPLETE));
	SAY(clReleaseEvent(NULL));
	SAY(clRetainEvent(NULL));
	SAYP(clCreateUserEvent(NULL, &err));
	SAYP(clCreateKernel(NULL, "f", &err));
	SAYP(clCreateProgramWithSource(context, 0, NULL, NULL, &err));
	SAY(clBuildProgram(NULL, 0, NULL, NULL, NULL, NULL));
	SAY(clReleaseKernel(NULL));
	SAY(clReleaseProgram(NULL));
	SAY(clSetMemObjectDestructorCallback(m, NULL, NULL));
	SAY(clSetMemObjectDestructorCallback(NULL, NULL, NULL));
	SAY(clCreateSubDevices(device, NULL, 0, NULL, NULL));
	cl_device_partition_property parts[] = { CL_DEVICE_PARTITION_EQUALLY, 1, 0 };
	SAY(clCreateSubDevices(device, parts, 0, NULL, &n));
	SAYP(clGetExtensionFunctionAddressForPlatform(platform, "clNoSuchThing"));
	SAYP(clGetExtensionFunctionAddressForPlatform(NULL, "clNoSuchThing"));
	if (clSVMAlloc(context, 0, 0, 0))
		printf("SVM of no size\n");
}

int main(int argc, char **argv)
{
	all = argc > 1 && !strcmp(argv[1], "all");
	setvbuf(stdout, NULL, _IOLBF, 0);   /* a crash shows its place */
	setup();
	queue = new_queue(0);
	cl_kernel k = new_kernel(source, "f");
	cl_mem m = new_buffer(256);
	MUST(clEnqueueWriteBuffer(queue, m, CL_TRUE, 0, 5, "abcd", 0, NULL, &event));
	queries();
	wrong_arguments(k, m);
	/* A leak checker takes what the layer keeps for lost: nothing may be left. */
	SAY(clReleaseEvent(event));
	SAY(clReleaseMemObject(m));
	SAY(clReleaseKernel(k));
	SAY(clReleaseCommandQueue(queue));
	SAY(clReleaseContext(context));
	printf("end\n");
	return 0;
}
