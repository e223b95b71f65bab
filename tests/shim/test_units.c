/* SPDX-License-Identifier: Apache-2.0 */
/* A contract of one compute unit (FAKEGATE_UNITS=1): the device shows one, queues run there, and the root is what is seen. */
#include "shim/ocl.h"

static const char source[] = "__kernel void f(__global int *a) { a[get_global_id(0)] = 42; }";

int main(void)
{
	setup();
	cl_uint units = 0, parts = 0;
	MUST(clGetDeviceInfo(device, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof(units), &units, NULL));
	MUST(clGetDeviceInfo(device, CL_DEVICE_PARTITION_MAX_SUB_DEVICES, sizeof(parts), &parts, NULL));
	CHECK_EQ(units, 1);
	CHECK(parts <= 1);
	cl_command_queue q = new_queue(0);
	cl_device_id d = NULL, ctx_devices[4];
	size_t n = 0;
	OK(clGetCommandQueueInfo(q, CL_QUEUE_DEVICE, sizeof(d), &d, NULL));
	CHECK(d == device);
	OK(clGetContextInfo(context, CL_CONTEXT_DEVICES, sizeof(ctx_devices), ctx_devices, &n));
	CHECK_EQ(n, sizeof(d));
	CHECK(ctx_devices[0] == device);
	cl_kernel k = new_kernel(source, "f");
	cl_mem m = new_buffer(4096);
	size_t global = 1024;
	int out[1024] = { 0 };
	MUST(clSetKernelArg(k, 0, sizeof(m), &m));
	MUST(clEnqueueNDRangeKernel(q, k, 1, NULL, &global, NULL, 0, NULL, NULL));
	MUST(clEnqueueReadBuffer(q, m, CL_TRUE, 0, sizeof(out), out, 0, NULL, NULL));
	CHECK_EQ(out[1023], 42);
	/* The application cannot take more by dividing the device itself. */
	cl_device_partition_property two[] = { CL_DEVICE_PARTITION_BY_COUNTS, 2, CL_DEVICE_PARTITION_BY_COUNTS_LIST_END, 0 };
	cl_device_id sub;
	cl_uint made = 0;
	CHECK(clCreateSubDevices(device, two, 1, &sub, &made) < 0);
	OK(clReleaseCommandQueue(q));
	OK(clReleaseMemObject(m));
	return finished("units");
}
