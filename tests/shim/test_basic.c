/* SPDX-License-Identifier: Apache-2.0 */
/* The first steps of every program through the layer: context, queue, buffer, launch, read, events, profiling hidden. */
#include "shim/ocl.h"

static const char source[] = "__kernel void add(__global int *a, int n) { a[get_global_id(0)] += n; }";

int main(void)
{
	setup();
	enum { N = 4096 };
	int in[N], out[N], seven = 7;
	size_t global = N, local = 64;
	for (int i = 0; i < N; i++)
		in[i] = i;
	cl_kernel k = new_kernel(source, "add");
	cl_command_queue q = new_queue(0);
	cl_mem m = new_buffer(sizeof(in));
	CHECK_EQ(stats->used, sizeof(in));
	CHECK_EQ(stats->objects, 1);
	MUST(clEnqueueWriteBuffer(q, m, CL_TRUE, 0, sizeof(in), in, 0, NULL, NULL));
	MUST(clSetKernelArg(k, 0, sizeof(m), &m));
	MUST(clSetKernelArg(k, 1, sizeof(seven), &seven));
	cl_event e;
	for (int i = 0; i < 10; i++) {
		MUST(clEnqueueNDRangeKernel(q, k, 1, NULL, &global, &local, 0, NULL, i == 9 ? &e : NULL));
	}
	MUST(clEnqueueReadBuffer(q, m, CL_FALSE, 0, sizeof(out), out, 1, &e, NULL));
	MUST(clWaitForEvents(1, &e));
	MUST(clFinish(q));
	for (int i = 0; i < N; i++)
		if (out[i] != i + 70) {
			CHECK_EQ(out[i], i + 70);
			break;
		}

	/* What we added to the queue is not seen. */
	cl_command_queue_properties props = 77;
	cl_ulong t;
	OK(clGetCommandQueueInfo(q, CL_QUEUE_PROPERTIES, sizeof(props), &props, NULL));
	CHECK_EQ(props, 0);
	CHECK_EQ(clGetEventProfilingInfo(e, CL_PROFILING_COMMAND_START, sizeof(t), &t, NULL), CL_PROFILING_INFO_NOT_AVAILABLE);
	OK(clReleaseEvent(e));

	cl_command_queue prof = new_queue(CL_QUEUE_PROFILING_ENABLE);
	OK(clGetCommandQueueInfo(prof, CL_QUEUE_PROPERTIES, sizeof(props), &props, NULL));
	CHECK_EQ(props, CL_QUEUE_PROFILING_ENABLE);
	MUST(clEnqueueNDRangeKernel(prof, k, 1, NULL, &global, &local, 0, NULL, &e));
	OK(clFinish(prof));
	OK(clGetEventProfilingInfo(e, CL_PROFILING_COMMAND_START, sizeof(t), &t, NULL));
	OK(clReleaseEvent(e));

	CHECK_EQ(stats->queues, 2);
	OK(clReleaseCommandQueue(q));
	OK(clReleaseCommandQueue(prof));
	CHECK_EQ(stats->queues, 0);
	OK(clReleaseMemObject(m));
	OK(clReleaseKernel(k));
	OK(clReleaseContext(context));
	CHECK_EQ(stats->used, 0);
	CHECK_EQ(stats->objects, 0);
	CHECK_EQ(stats->late, 0);
	CHECK_EQ(stats->marks, 0);
	if (!getenv("FAKEGATE_FAST"))
		CHECK_EQ(stats->kind[PEN_CMD_KERNEL], 11);
	CHECK_EQ(stats->kind[PEN_CMD_COPY], 2);
	CHECK(strlen(stats->key) > 0);
	return finished("basic");
}
