/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kernel that was cut gives what the whole one gives, byte for byte: one to three dimensions, with and without an offset,
 * in and out of order; what may not be cut is not; profiling spans the pieces.
 */
#include "shim/ocl.h"

static const char source[] =
	"__kernel void stir(__global uint *out, uint w, uint h)\n"
	"{\n"
	"	uint x = get_global_id(0), y = get_global_id(1), z = get_global_id(2);\n"
	"	uint v = x * 2654435761u ^ y * 40503u ^ z * 97u ^ get_local_id(0) * 7u ^ get_local_size(0);\n"
	"	for (int i = 0; i < 50; i++) v = v * 1664525u + 1013904223u;\n"
	"	out[(z * h + y) * w + x] = v;\n"
	"}\n"
	"__kernel __attribute__((reqd_work_group_size(16, 1, 1)))\n"
	"void by16(__global uint *out, uint w, uint h) { out[get_global_id(0)] = get_global_id(0) * 3 + get_local_id(0); }\n";

static const char groups[] =
	"__kernel void stir(__global uint *out, uint w, uint h) { out[get_global_id(0)] = get_group_id(0); }\n";

enum { WORDS = 512 * 1024 };
static uint32_t whole[WORDS], cut[WORDS];

struct launch {
	const char *what;
	cl_uint dim;
	size_t offset[3], global[3], local[3];
	bool has_offset, has_local, cuttable;
};

static const struct launch launches[] = {
	{ "1D", 1, { 0 }, { 4096 }, { 64 }, false, true, true },
	{ "1D offset", 1, { 128 }, { 4096 }, { 64 }, true, true, true },
	{ "2D", 2, { 0 }, { 64, 64 }, { 16, 4 }, false, true, true },
	{ "2D offset", 2, { 16, 8 }, { 64, 64 }, { 16, 4 }, true, true, true },
	{ "3D", 3, { 0 }, { 16, 16, 32 }, { 4, 4, 2 }, false, true, true },
	{ "3D flat", 3, { 0 }, { 64, 64, 1 }, { 16, 2, 1 }, false, true, true },
	{ "no local size", 1, { 0 }, { 4096 }, { 0 }, false, false, false },
	{ "one group", 1, { 0 }, { 64 }, { 64 }, false, true, false },
};

static void run(cl_command_queue q, cl_kernel k, cl_mem m, const struct launch *l, uint32_t *out, cl_event *e)
{
	uint32_t fill = 0xdeadbeef;
	cl_event written = NULL, done;
	cl_uint w = 128, h = 128;
	MUST(clEnqueueFillBuffer(q, m, &fill, sizeof(fill), 0, WORDS * sizeof(fill), 0, NULL, &written));
	MUST(clSetKernelArg(k, 0, sizeof(m), &m));
	MUST(clSetKernelArg(k, 1, sizeof(w), &w));
	MUST(clSetKernelArg(k, 2, sizeof(h), &h));
	MUST(clEnqueueNDRangeKernel(q, k, l->dim, l->has_offset ? l->offset : NULL, l->global, l->has_local ? l->local : NULL, 1,
				    &written, &done));
	MUST(clEnqueueReadBuffer(q, m, CL_TRUE, 0, WORDS * sizeof(fill), out, 1, &done, NULL));
	MUST(clReleaseEvent(written));
	if (e)
		*e = done;
	else
		MUST(clReleaseEvent(done));
}

static void compare(cl_kernel k, cl_mem m, const struct launch *l, cl_command_queue_properties props)
{
	cl_command_queue q = new_queue(props | CL_QUEUE_PROFILING_ENABLE);
	cl_event e;
	unsetenv("FAKEGATE_CUT");
	run(q, k, m, l, whole, NULL);
	setenv("FAKEGATE_CUT", getenv("FAKEGATE_PAUSE_MS") ? "8" : "3", 1);
	uint64_t before = stats->pieces;
	run(q, k, m, l, cut, &e);
	uint64_t pieces = stats->pieces - before - 2;
	if (memcmp(whole, cut, sizeof(whole)) || (pieces > 1) != l->cuttable) {
		fprintf(stderr, "%s: %s, %llu pieces\n", l->what, memcmp(whole, cut, sizeof(whole)) ? "differs" : "same",
			(unsigned long long)pieces);
		failures++;
	}
	/* One command to the application: its own event, from the first piece's start to the last one's end. */
	cl_ulong queued = 0, start = 0, end = 0;
	OK(clGetEventProfilingInfo(e, CL_PROFILING_COMMAND_QUEUED, sizeof(queued), &queued, NULL));
	OK(clGetEventProfilingInfo(e, CL_PROFILING_COMMAND_START, sizeof(start), &start, NULL));
	OK(clGetEventProfilingInfo(e, CL_PROFILING_COMMAND_END, sizeof(end), &end, NULL));
	CHECK(queued <= start && start < end);
	if (getenv("FAKEGATE_PAUSE_MS"))   /* the pauses between the pieces are inside */
		CHECK(end - start >= (pieces - 1) * strtoul(getenv("FAKEGATE_PAUSE_MS"), NULL, 10) * 1000000);
	MUST(clReleaseEvent(e));
	MUST(clReleaseCommandQueue(q));
	unsetenv("FAKEGATE_CUT");
}

int main(void)
{
	setup();
	cl_mem m = new_buffer(WORDS * 4);
	cl_kernel mix = new_kernel(source, "stir"), fixed = new_kernel(source, "by16"), never = new_kernel(groups, "stir");
	for (size_t i = 0; i < sizeof(launches) / sizeof(launches[0]); i++) {
		compare(mix, m, &launches[i], 0);
		compare(mix, m, &launches[i], CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE);
	}
	struct launch given = { "required local size", 1, { 0 }, { 4096 }, { 16 }, false, true, true };
	compare(fixed, m, &given, 0);
	struct launch not = { "group ids", 1, { 0 }, { 4096 }, { 64 }, false, true, false };
	compare(never, m, &not, 0);

	/* The driver's code for bad arguments does not depend on cutting. */
	cl_command_queue q = new_queue(0);
	setenv("FAKEGATE_CUT", "3", 1);
	size_t global = 4096, too_large = 1u << 20, odd = 60;
	CHECK_EQ(clEnqueueNDRangeKernel(q, mix, 1, NULL, &global, &too_large, 0, NULL, NULL), CL_INVALID_WORK_GROUP_SIZE);
	CHECK_EQ(clEnqueueNDRangeKernel(q, mix, 0, NULL, &global, NULL, 0, NULL, NULL), CL_INVALID_WORK_DIMENSION);
	CHECK_EQ(clEnqueueNDRangeKernel(q, mix, 4, NULL, &global, NULL, 0, NULL, NULL), CL_INVALID_WORK_DIMENSION);
	CHECK_EQ(clEnqueueNDRangeKernel(q, fixed, 1, NULL, &global, &odd, 0, NULL, NULL), CL_INVALID_WORK_GROUP_SIZE);
	OK(clFinish(q));
	OK(clReleaseCommandQueue(q));
	OK(clReleaseKernel(mix));
	OK(clReleaseKernel(fixed));
	OK(clReleaseKernel(never));
	OK(clReleaseMemObject(m));
	CHECK_EQ(stats->late, 0);
	return finished("cut");
}
