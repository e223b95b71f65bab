/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every call that takes device memory: what is charged, what comes back and when, what a limit answers. Under
 * FAKEGATE_LIMIT = 64 MiB, so that both a denied total and a too large single object can be seen.
 */
#include "shim/ocl.h"

#include <pthread.h>

#define LIMIT (64u << 20)

static cl_command_queue queue;

static size_t real_size(cl_mem m)
{
	size_t n = 0;
	MUST(clGetMemObjectInfo(m, CL_MEM_SIZE, sizeof(n), &n, NULL));
	return n;
}

static void expect(uint64_t bytes, uint64_t objects, int line)
{
	if (stats->used != bytes || stats->objects != objects) {
		fprintf(stderr, "test_mem.c:%d: charged %llu bytes in %llu objects, wanted %llu in %llu\n", line,
			(unsigned long long)stats->used, (unsigned long long)stats->objects, (unsigned long long)bytes,
			(unsigned long long)objects);
		failures++;
	}
}
#define EXPECT(bytes, objects) expect(bytes, objects, __LINE__)

static void buffers(void)
{
	cl_int err;
	cl_mem m = clCreateBuffer(context, 0, 1000, NULL, &err);
	MUST(err);
	EXPECT(1000, 1);
	cl_buffer_region half = { 0, 500 };
	cl_mem sub = clCreateSubBuffer(m, 0, CL_BUFFER_CREATE_TYPE_REGION, &half, &err);
	MUST(err);
	EXPECT(1000, 1);
	OK(clReleaseMemObject(m));
	EXPECT(1000, 1);   /* the sub-buffer holds it */
	OK(clReleaseMemObject(sub));
	EXPECT(0, 0);

	m = clCreateBufferWithProperties(context, NULL, 0, 2000, NULL, &err);
	MUST(err);
	EXPECT(2000, 1);
	OK(clRetainMemObject(m));
	OK(clReleaseMemObject(m));
	EXPECT(2000, 1);
	OK(clReleaseMemObject(m));
	EXPECT(0, 0);

	static char host[4096] __attribute__((aligned(4096)));
	cl_bool unified = CL_FALSE;
	MUST(clGetDeviceInfo(device, CL_DEVICE_HOST_UNIFIED_MEMORY, sizeof(unified), &unified, NULL));
	m = clCreateBuffer(context, CL_MEM_USE_HOST_PTR, sizeof(host), host, &err);
	MUST(err);
	EXPECT(unified ? 0 : sizeof(host), unified ? 0 : 1);
	OK(clReleaseMemObject(m));
	m = clCreateBuffer(context, CL_MEM_COPY_HOST_PTR, sizeof(host), host, &err);
	MUST(err);
	EXPECT(sizeof(host), 1);
	OK(clReleaseMemObject(m));
	EXPECT(0, 0);
}

/* The driver refuses: everything comes back, with the driver's code. */
static void refused(void)
{
	cl_int err = 0;
	CHECK(!clCreateBuffer(context, 0, 0, NULL, &err));
	CHECK_EQ(err, CL_INVALID_BUFFER_SIZE);
	CHECK(!clCreateBuffer(context, CL_MEM_READ_ONLY | CL_MEM_WRITE_ONLY, 100, NULL, &err));
	CHECK_EQ(err, CL_INVALID_VALUE);
	CHECK(!clCreateBuffer(context, CL_MEM_USE_HOST_PTR, 100, NULL, &err));
	CHECK_EQ(err, CL_INVALID_HOST_PTR);
	CHECK(!clCreateBuffer(NULL, 0, 100, NULL, &err));
	CHECK_EQ(err, CL_INVALID_CONTEXT);
	cl_image_format bad = { 0x7777, CL_FLOAT };
	cl_image_desc d = { .image_type = CL_MEM_OBJECT_IMAGE2D, .image_width = 16, .image_height = 16 };
	CHECK(!clCreateImage(context, 0, &bad, &d, NULL, &err));
	CHECK(err < 0);
	EXPECT(0, 0);
}

static void limits(void)
{
	cl_int err;
	cl_mem m[8];
	cl_ulong global = 0, largest = 0;
	OK(clGetDeviceInfo(device, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof(global), &global, NULL));
	OK(clGetDeviceInfo(device, CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof(largest), &largest, NULL));
	CHECK_EQ(global, LIMIT);
	CHECK(largest <= LIMIT);
	uint64_t denials = stats->denials;
	CHECK(!clCreateBuffer(context, 0, largest + 1, NULL, &err));
	CHECK_EQ(err, CL_INVALID_BUFFER_SIZE);
	CHECK_EQ(stats->denials, denials + 1);     /* by the contract */
	CHECK(!clCreateBuffer(context, 0, (size_t)1 << 46, NULL, &err));
	CHECK_EQ(err, CL_INVALID_BUFFER_SIZE);
	CHECK_EQ(stats->denials, denials + 1);     /* by the device */
	for (int i = 0; i < 8; i++) {
		m[i] = clCreateBuffer(context, 0, LIMIT / 8, NULL, &err);
		OK(err);
	}
	CHECK(!clCreateBuffer(context, 0, 1, NULL, &err));
	CHECK_EQ(err, CL_MEM_OBJECT_ALLOCATION_FAILURE);
	CHECK(!clSVMAlloc(context, CL_MEM_READ_WRITE, 16, 0));
	EXPECT(LIMIT, 8);
	for (int i = 0; i < 8; i++)
		OK(clReleaseMemObject(m[i]));
	EXPECT(0, 0);
}

static void images(void)
{
	cl_int err;
	cl_image_format rgba = { CL_RGBA, CL_UNORM_INT8 };
	cl_image_desc d = { .image_type = CL_MEM_OBJECT_IMAGE2D, .image_width = 100, .image_height = 50 };
	cl_mem m = clCreateImage(context, 0, &rgba, &d, NULL, &err);
	MUST(err);
	EXPECT(real_size(m), 1);
	OK(clReleaseMemObject(m));
	EXPECT(0, 0);
	m = clCreateImage2D(context, 0, &rgba, 33, 17, 0, NULL, &err);
	MUST(err);
	EXPECT(real_size(m), 1);
	OK(clReleaseMemObject(m));
	m = clCreateImage3D(context, 0, &rgba, 16, 8, 4, 0, 0, NULL, &err);
	MUST(err);
	EXPECT(real_size(m), 1);
	OK(clReleaseMemObject(m));
	m = clCreateImageWithProperties(context, NULL, 0, &rgba, &d, NULL, &err);
	MUST(err);
	EXPECT(real_size(m), 1);
	OK(clReleaseMemObject(m));
	EXPECT(0, 0);

	/* Over a buffer: the parent's bytes. */
	cl_mem b = new_buffer(64 * 64 * 4);
	cl_image_desc over = { .image_type = CL_MEM_OBJECT_IMAGE1D_BUFFER, .image_width = 64, .buffer = b };
	m = clCreateImage(context, 0, &rgba, &over, NULL, &err);
	EXPECT(64 * 64 * 4, 1);
	if (err == CL_SUCCESS)
		OK(clReleaseMemObject(m));
	OK(clReleaseMemObject(b));
	EXPECT(0, 0);

	uint64_t denials = stats->denials;
	cl_image_desc huge = { .image_type = CL_MEM_OBJECT_IMAGE2D, .image_width = 1u << 20, .image_height = 1u << 20 };
	CHECK(!clCreateImage(context, 0, &rgba, &huge, NULL, &err));   /* 4 TiB: no device could */
	CHECK(err < 0 && err != CL_MEM_OBJECT_ALLOCATION_FAILURE);
	CHECK_EQ(stats->denials, denials);
	d.image_width = 16384 / 2;
	d.image_height = 4096;   /* 128 MiB: the device could, the contract cannot */
	CHECK(!clCreateImage(context, 0, &rgba, &d, NULL, &err));
	CHECK_EQ(err, CL_MEM_OBJECT_ALLOCATION_FAILURE);
	cl_mem pipe = clCreatePipe(context, 0, 16, 32, NULL, &err);
	if (pipe) {
		EXPECT(real_size(pipe) ? real_size(pipe) : 16 * 32, 1);
		OK(clReleaseMemObject(pipe));
	}
	EXPECT(0, 0);
}

static _Atomic int freed_by_application;

static void CL_CALLBACK free_them(cl_command_queue q, cl_uint n, void **ptrs, void *user)
{
	(void)q, (void)user;
	for (cl_uint i = 0; i < n; i++)
		clSVMFree(context, ptrs[i]);
	freed_by_application++;
}

static void svm(void)
{
	void *a = clSVMAlloc(context, CL_MEM_READ_WRITE, 1000, 0);
	if (!a) {
		printf("no SVM on this device\n");
		return;
	}
	void *b = clSVMAlloc(context, CL_MEM_READ_WRITE, 2000, 0);
	EXPECT(3000, 2);
	clSVMFree(context, a);
	EXPECT(2000, 1);
	clSVMFree(context, NULL);
	OK(clEnqueueSVMFree(queue, 1, &b, NULL, NULL, 0, NULL, NULL));
	OK(clFinish(queue));
	for (int i = 0; i < 1000 && stats->used; i++)   /* the event's callback runs on a thread of the driver */
		usleep(1000);
	EXPECT(0, 0);
	b = clSVMAlloc(context, CL_MEM_READ_WRITE, 500, 0);
	OK(clEnqueueSVMFree(queue, 1, &b, free_them, NULL, 0, NULL, NULL));
	OK(clFinish(queue));
	for (int i = 0; i < 1000 && stats->used; i++)
		usleep(1000);
	EXPECT(0, 0);
	CHECK_EQ(freed_by_application, 1);
	/* A failed enqueue leaves the charge where it was. */
	b = clSVMAlloc(context, CL_MEM_READ_WRITE, 500, 0);
	cl_event none = NULL;
	CHECK(clEnqueueSVMFree(queue, 1, &b, NULL, NULL, 1, &none, NULL) < 0);
	EXPECT(500, 1);
	clSVMFree(context, b);
	EXPECT(0, 0);
}

/* An object that a queued command uses is charged until that command is done. */
static void queued(void)
{
	cl_int err;
	cl_mem m = new_buffer(4096);
	cl_event gate = clCreateUserEvent(context, &err), done;
	MUST(err);
	MUST(clEnqueueFillBuffer(queue, m, "x", 1, 0, 4096, 1, &gate, &done));
	OK(clReleaseMemObject(m));
	OK(clFlush(queue));
	EXPECT(4096, 1);
	OK(clSetUserEventStatus(gate, CL_COMPLETE));
	OK(clFinish(queue));
	OK(clReleaseEvent(done));
	OK(clReleaseEvent(gate));
	for (int i = 0; i < 1000 && stats->used; i++)
		usleep(1000);
	EXPECT(0, 0);
}

static _Atomic int ended;
static void CL_CALLBACK on_end(cl_mem m, void *user)
{
	(void)m, (void)user;
	ended++;
}

static void *race(void *arg)
{
	(void)arg;
	for (int i = 0; i < 300; i++) {
		cl_int err;
		cl_mem m = clCreateBuffer(context, 0, 1u << 20, NULL, &err);
		if (stats->used > LIMIT)
			failures++;
		if (m)
			clReleaseMemObject(m);
		else if (err != CL_MEM_OBJECT_ALLOCATION_FAILURE)
			failures++;
	}
	return NULL;
}

int main(void)
{
	setup();
	queue = new_queue(0);
	buffers();
	refused();
	limits();
	images();
	svm();
	queued();
	cl_mem m = new_buffer(10);
	OK(clSetMemObjectDestructorCallback(m, on_end, NULL));
	OK(clReleaseMemObject(m));
	CHECK_EQ(ended, 1);
	/* Three quarters taken: threads race for the rest. */
	cl_mem most = new_buffer(LIMIT - (8u << 20));
	pthread_t t[16];
	for (int i = 0; i < 16; i++)
		pthread_create(&t[i], NULL, race, NULL);
	for (int i = 0; i < 16; i++)
		pthread_join(t[i], NULL);
	OK(clReleaseMemObject(most));
	EXPECT(0, 0);
	OK(clReleaseCommandQueue(queue));
	OK(clReleaseContext(context));
	return finished("mem");
}
