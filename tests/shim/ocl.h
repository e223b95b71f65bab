/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TESTS_SHIM_OCL_H
#define PEN_TESTS_SHIM_OCL_H
/*
 * Common ground of the OpenCL test programs: the first device of the platform in use, short checks, and the counters of
 * the stand-in gate when the layer under test is fakelayer (FAKELAYER names its file), else NULL.
 */
#define CL_TARGET_OPENCL_VERSION 300
#define CL_ENABLE_BETA_EXTENSIONS   /* command buffers, in headers since 2023 */
#define CL_NO_NON_ICD_DISPATCH_EXTENSION_PROTOTYPES   /* they are found by address */
#define CL_USE_DEPRECATED_OPENCL_1_0_APIS
#define CL_USE_DEPRECATED_OPENCL_1_1_APIS
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#define CL_USE_DEPRECATED_OPENCL_2_0_APIS
#define CL_USE_DEPRECATED_OPENCL_2_1_APIS
#include <CL/cl.h>
#include <CL/cl_ext.h>

#include "shim/fakegate.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static cl_platform_id platform;
static cl_device_id device;
static cl_context context;
static struct fake_stats *stats;
static int failures;

#define CHECK(cond)                                                                       \
	do {                                                                              \
		if (!(cond)) {                                                            \
			fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #cond);\
			failures++;                                                       \
		}                                                                         \
	} while (0)
#define CHECK_EQ(a, b)                                                                                             \
	do {                                                                                                       \
		long long a_ = (long long)(a), b_ = (long long)(b);                                                \
		if (a_ != b_) {                                                                                    \
			fprintf(stderr, "%s:%d: %s is %lld, wanted %s = %lld\n", __FILE__, __LINE__, #a, a_, #b, b_); \
			failures++;                                                                                \
		}                                                                                                  \
	} while (0)
#define OK(call) CHECK_EQ(call, CL_SUCCESS)
#define MUST(call)                                                                                       \
	do {                                                                                             \
		cl_int must_ = (call);                                                                   \
		if (must_ != CL_SUCCESS) {                                                               \
			fprintf(stderr, "%s:%d: %s gave %d\n", __FILE__, __LINE__, #call, must_);        \
			exit(1);                                                                         \
		}                                                                                        \
	} while (0)

static inline void skip(const char *why)
{
	printf("skipped: %s\n", why);
	exit(77);
}

static inline void setup_device(void)
{
	cl_uint n = 0;
	if (clGetPlatformIDs(1, &platform, &n) != CL_SUCCESS || !n)
		skip("no OpenCL platform");
	MUST(clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, &n));
	const char *layer = getenv("FAKELAYER");
	void *handle = layer ? dlopen(layer, RTLD_NOLOAD | RTLD_LAZY) : NULL;
	stats = handle ? dlsym(handle, "fake_stats") : NULL;
	if (layer && !stats) {
		fprintf(stderr, "the layer %s was not loaded\n", layer);
		exit(1);
	}
}

static inline void setup(void)
{
	cl_int err;
	setup_device();
	context = clCreateContext(NULL, 1, &device, NULL, NULL, &err);
	MUST(err);
}

static inline cl_command_queue new_queue(cl_command_queue_properties props)
{
	cl_int err;
	cl_command_queue q = clCreateCommandQueue(context, device, props, &err);
	MUST(err);
	return q;
}

static inline cl_mem new_buffer(size_t size)
{
	cl_int err;
	cl_mem m = clCreateBuffer(context, CL_MEM_READ_WRITE, size, NULL, &err);
	MUST(err);
	return m;
}

static inline cl_kernel new_kernel(const char *source, const char *name)
{
	cl_int err;
	cl_program p = clCreateProgramWithSource(context, 1, &source, NULL, &err);
	MUST(err);
	MUST(clBuildProgram(p, 0, NULL, "", NULL, NULL));
	cl_kernel k = clCreateKernel(p, name, &err);
	MUST(err);
	MUST(clReleaseProgram(p));
	return k;
}

static inline int finished(const char *name)
{
	if (failures)
		fprintf(stderr, "%s: %d checks failed\n", name, failures);
	return failures ? 1 : 0;
}

#endif
