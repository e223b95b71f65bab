/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No stale data: ten thousand random interleavings of every way to write and read a buffer, on one in-order queue, against
 * a model in host memory. A call that overtook another, or was put off, shows as a wrong byte. Argument: seed.
 */
#include "shim/ocl.h"

enum { SIZE = 1024, ROUNDS = 10000 };

static unsigned seed;
static unsigned dice(unsigned n)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % n;
}

static const char source[] =
	"__kernel void set(__global uchar *a, uint from, uchar v) { a[from + get_global_id(0)] = v; }\n"
	"__kernel void bump(__global uchar *a) { a[get_global_id(0)] += 1; }\n";

int main(int argc, char **argv)
{
	seed = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1;
	setup();
	cl_int err;
	cl_command_queue q = new_queue(0);
	cl_kernel set = new_kernel(source, "set"), bump = new_kernel(source, "bump");
	cl_mem a = new_buffer(SIZE), b = new_buffer(SIZE);
	unsigned char *svm = clSVMAlloc(context, CL_MEM_READ_WRITE, SIZE, 0);
	static unsigned char model[SIZE], model_b[SIZE], model_svm[SIZE], got[SIZE], tmp[ROUNDS][64];
	unsigned char zero = 0;
	MUST(clEnqueueFillBuffer(q, a, &zero, 1, 0, SIZE, 0, NULL, NULL));
	MUST(clEnqueueFillBuffer(q, b, &zero, 1, 0, SIZE, 0, NULL, NULL));
	if (svm)
		MUST(clEnqueueSVMMemFill(q, svm, &zero, 1, SIZE, 0, NULL, NULL));
	MUST(clSetKernelArg(set, 0, sizeof(a), &a));
	MUST(clSetKernelArg(bump, 0, sizeof(a), &a));
	for (int round = 0; round < ROUNDS && !failures; round++) {
		unsigned n = 1 + dice(64), from = dice(SIZE - n + 1);
		unsigned char v = (unsigned char)dice(256);
		size_t global = n, all = SIZE;
		switch (dice(svm ? 14 : 11)) {
		case 0: {
			cl_uint f = from;
			MUST(clSetKernelArg(set, 1, sizeof(f), &f));
			MUST(clSetKernelArg(set, 2, sizeof(v), &v));
			MUST(clEnqueueNDRangeKernel(q, set, 1, NULL, &global, NULL, 0, NULL, NULL));
			memset(model + from, v, n);
			break;
		}
		case 1:
			MUST(clEnqueueNDRangeKernel(q, bump, 1, NULL, &all, NULL, 0, NULL, NULL));
			for (int i = 0; i < SIZE; i++)
				model[i]++;
			break;
		case 2:
			memset(tmp[round], v, n);
			MUST(clEnqueueWriteBuffer(q, a, dice(2), from, n, tmp[round], 0, NULL, NULL));
			memcpy(model + from, tmp[round], n);
			break;
		case 3:
			MUST(clEnqueueFillBuffer(q, a, &v, 1, from, n, 0, NULL, NULL));
			memset(model + from, v, n);
			break;
		case 4:
			MUST(clEnqueueCopyBuffer(q, a, b, from, 0, n, 0, NULL, NULL));
			memcpy(model_b, model + from, n);
			break;
		case 5: {
			size_t so[3] = { 0, 0, 0 }, dst[3] = { dice(16), dice(16), 0 }, region[3] = { 8, 8, 1 };
			MUST(clEnqueueCopyBufferRect(q, b, a, so, dst, region, 32, 0, 32, 0, 0, NULL, NULL));
			for (int y = 0; y < 8; y++)
				memcpy(model + (dst[1] + (size_t)y) * 32 + dst[0], model_b + y * 32, 8);
			break;
		}
		case 6: {
			size_t at[3] = { dice(16), dice(16), 0 }, ho[3] = { 0 }, region[3] = { 8, 8, 1 };
			memset(tmp[round], v, 64);
			MUST(clEnqueueWriteBufferRect(q, a, dice(2), at, ho, region, 32, 0, 8, 0, tmp[round], 0, NULL, NULL));
			for (int y = 0; y < 8; y++)
				memset(model + (at[1] + (size_t)y) * 32 + at[0], v, 8);
			break;
		}
		case 7: {
			unsigned char *p = clEnqueueMapBuffer(q, a, CL_TRUE, CL_MAP_READ | CL_MAP_WRITE, from, n, 0, NULL, NULL,
							      &err);
			MUST(err);
			CHECK(!memcmp(p, model + from, n));
			memset(p, v, n);
			memset(model + from, v, n);
			MUST(clEnqueueUnmapMemObject(q, a, p, 0, NULL, NULL));
			break;
		}
		case 8: {
			cl_event e;
			MUST(clEnqueueMarkerWithWaitList(q, 0, NULL, &e));
			/* clEnqueueWaitForEvents is not there on PoCL: it ends the process. */
			MUST(clEnqueueBarrierWithWaitList(q, 1, &e, NULL));
			if (dice(2))
				MUST(clWaitForEvents(1, &e));
			MUST(clReleaseEvent(e));
			MUST(clEnqueueBarrier(q));
			break;
		}
		case 9:
			MUST(clEnqueueMigrateMemObjects(q, 1, &a, 0, 0, NULL, NULL));
			MUST(clFlush(q));
			break;
		case 10:
			MUST(clEnqueueReadBuffer(q, a, CL_TRUE, from, n, got, 0, NULL, NULL));
			CHECK(!memcmp(got, model + from, n));
			break;
		case 11:
			MUST(clEnqueueSVMMemFill(q, svm + from, &v, 1, n, 0, NULL, NULL));
			memset(model_svm + from, v, n);
			break;
		case 12:
			MUST(clEnqueueSVMMap(q, CL_TRUE, CL_MAP_READ | CL_MAP_WRITE, svm, SIZE, 0, NULL, NULL));
			CHECK(!memcmp(svm, model_svm, SIZE));
			memset(svm + from, v, n);
			memset(model_svm + from, v, n);
			MUST(clEnqueueSVMUnmap(q, svm, 0, NULL, NULL));
			break;
		case 13:
			MUST(clEnqueueSVMMemcpy(q, dice(2), svm, svm + SIZE - 64, 64, 0, NULL, NULL));
			memcpy(model_svm, model_svm + SIZE - 64, 64);
			break;
		}
		if (failures)
			fprintf(stderr, "stale data in round %d\n", round);
	}
	MUST(clEnqueueReadBuffer(q, a, CL_TRUE, 0, SIZE, got, 0, NULL, NULL));
	CHECK(!memcmp(got, model, SIZE));
	MUST(clFinish(q));
	if (svm)
		clSVMFree(context, svm);
	OK(clReleaseMemObject(a));
	OK(clReleaseMemObject(b));
	OK(clReleaseKernel(set));
	OK(clReleaseKernel(bump));
	OK(clReleaseCommandQueue(q));
	return finished("order");
}
