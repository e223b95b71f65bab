/* SPDX-License-Identifier: Apache-2.0 */
/* A layer of somebody else beside ours, above or below it: both see what the application does. Argument: its file. */
#include "shim/ocl.h"

static const char source[] = "__kernel void add(__global int *a, int n) { a[get_global_id(0)] += n; }";

static uint64_t other(void *layer, const char *counter)
{
	_Atomic uint64_t *c = dlsym(layer, counter);
	if (!c) {
		fprintf(stderr, "the other layer has no %s\n", counter);
		exit(1);
	}
	return *c;
}

int main(int argc, char **argv)
{
	setup();
	void *layer = argc > 1 ? dlopen(argv[1], RTLD_NOLOAD | RTLD_LAZY) : NULL;
	if (!layer) {
		fprintf(stderr, "the other layer was not loaded\n");
		return 1;
	}
	enum { N = 4096 };
	static int in[N], out[N];
	int seven = 7;
	size_t global = N, local = 64;
	cl_kernel k = new_kernel(source, "add");
	cl_command_queue q = new_queue(0);
	cl_mem m = new_buffer(sizeof(in));
	CHECK_EQ(stats->used, sizeof(in));
	CHECK_EQ(other(layer, "other_buffers"), 1);
	MUST(clEnqueueWriteBuffer(q, m, CL_TRUE, 0, sizeof(in), in, 0, NULL, NULL));
	MUST(clSetKernelArg(k, 0, sizeof(m), &m));
	MUST(clSetKernelArg(k, 1, sizeof(seven), &seven));
	cl_event e;
	for (int i = 0; i < 10; i++)
		MUST(clEnqueueNDRangeKernel(q, k, 1, NULL, &global, &local, 0, NULL, i == 9 ? &e : NULL));
	MUST(clEnqueueReadBuffer(q, m, CL_TRUE, 0, sizeof(out), out, 1, &e, NULL));
	MUST(clReleaseEvent(e));
	for (int i = 0; i < N && !failures; i++)
		CHECK_EQ(out[i], 70);
	MUST(clFinish(q));   /* the driver lets go of a command a little after its end */
	/* Below ours it sees the pieces of a kernel that was cut, above it the kernel. */
	CHECK_EQ(stats->kind[PEN_CMD_KERNEL], 10);
	CHECK(other(layer, "other_kernels") == 10 || other(layer, "other_kernels") == stats->pieces - 2);
	CHECK(other(layer, "other_events") >= 1);
	OK(clReleaseMemObject(m));
	OK(clReleaseKernel(k));
	OK(clReleaseCommandQueue(q));
	OK(clReleaseContext(context));
	CHECK_EQ(stats->used, 0);
	CHECK_EQ(stats->late, 0);
	return finished("layers");
}
