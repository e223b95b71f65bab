/* SPDX-License-Identifier: Apache-2.0 */
/* Fail closed: a managed process without a valid token, or without a daemon, sees no device and can make nothing. */
#include "shim/ocl.h"

int main(void)
{
	const char *mode = getenv("FAKEGATE");
	cl_uint n = 7;
	cl_int err, r = clGetPlatformIDs(1, &platform, &n);
	if (mode && !strcmp(mode, "refused")) {
		CHECK_EQ(r, CL_PLATFORM_NOT_FOUND_KHR);
		CHECK_EQ(n, 0);
		return finished("refused");
	}
	OK(r);
	n = 7;
	CHECK_EQ(clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, &n), CL_DEVICE_NOT_FOUND);
	CHECK_EQ(n, 0);
	CHECK(!device);
	cl_context c = clCreateContextFromType(NULL, CL_DEVICE_TYPE_ALL, NULL, NULL, &err);
	CHECK(!c);
	CHECK_EQ(err, CL_DEVICE_NOT_FOUND);
	return finished("refused");
}
