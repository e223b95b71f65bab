/* SPDX-License-Identifier: Apache-2.0 */
#include "camera.h"

#define CL_TARGET_OPENCL_VERSION 120
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>
#include <stdio.h>

static cl_command_queue queue;
static cl_kernel model;

static const char *source = "kernel void model(global float *v, int rounds)\n"
			    "{\n"
			    "	float x = v[get_global_id(0)];\n"
			    "	for (int i = 0; i < rounds; i++)\n"
			    "		x = x * 0.999f + 0.5f;\n"
			    "	v[get_global_id(0)] = x;\n"
			    "}\n";

static int failed(const char *what, cl_int code)
{
	fprintf(stderr, "camera: %s: OpenCL error %d\n", what, code);
	return -1;
}

int accelerator_open(void)
{
	cl_platform_id platform;
	cl_device_id device;
	cl_int r = clGetPlatformIDs(1, &platform, NULL);
	if (!r)
		r = clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, NULL);
	if (r)
		return failed("no device", r);
	cl_context context = clCreateContext(NULL, 1, &device, NULL, NULL, &r);
	if (!r)
		queue = clCreateCommandQueue(context, device, 0, &r);
	cl_program program = r ? NULL : clCreateProgramWithSource(context, 1, &source, NULL, &r);
	if (!r)
		r = clBuildProgram(program, 1, &device, "", NULL, NULL);
	if (!r)
		model = clCreateKernel(program, "model", &r);
	cl_mem buffer = r ? NULL : clCreateBuffer(context, CL_MEM_READ_WRITE, 4096 * sizeof(float), NULL, &r);
	cl_int rounds = 200;
	if (!r)
		r = clSetKernelArg(model, 0, sizeof(cl_mem), &buffer);
	if (!r)
		r = clSetKernelArg(model, 1, sizeof(rounds), &rounds);
	return r ? failed("cannot be set up", r) : 0;
}

int accelerator_run(void)
{
	size_t n = 4096;
	cl_int r = clEnqueueNDRangeKernel(queue, model, 1, NULL, &n, NULL, 0, NULL, NULL);
	if (!r)
		r = clFinish(queue);
	return r ? failed("a model", r) : 0;
}
