/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layer's table, by a loader of a few lines: every one of the 149 slots is wrapped or is PASS for a written reason; slots
 * that the target does not have stay empty; an unmanaged process gets an empty table; both ways in give the same.
 * What newer Khronos loaders ask of a layer is asked here as they do. Argument: file of the layer.
 */
#include "shim/ocl.h"

#include <CL/cl_icd.h>
#include <CL/cl_layer.h>

struct row {
	unsigned slot;
	const char *name, *class, *why;
	int since;
};

static const struct row rows[] = {
#define PEN_CL(slot, name, class, since, why) { slot, #name, #class, why, since },
#include "api/opencl.def"
};

enum { ROWS = sizeof(rows) / sizeof(rows[0]), SLOTS = sizeof(cl_icd_dispatch) / sizeof(void *) };

typedef cl_int (*info_fn)(cl_layer_info, size_t, void *, size_t *);
typedef cl_int (*init_fn)(cl_uint, const cl_icd_dispatch *, cl_uint *, const cl_icd_dispatch **);
typedef cl_int (*init_with_fn)(cl_uint, const cl_icd_dispatch *, cl_uint *, const cl_icd_dispatch **, const intptr_t *);

static void target(void)
{
	abort();   /* no OpenCL call may be made while the layer comes up */
}

static const void *const *load(void *layer, unsigned entries, bool with_properties, unsigned empty)
{
	static void *table[SLOTS];
	const cl_icd_dispatch *ours = NULL;
	cl_uint n = 0;
	for (unsigned i = 0; i < SLOTS; i++)
		table[i] = i == empty ? NULL : (void *)target;
	intptr_t none = 0;
	const cl_icd_dispatch *t = (const cl_icd_dispatch *)(void *)table;
	if (with_properties)
		OK(((init_with_fn)dlsym(layer, "clInitLayerWithProperties"))(entries, t, &n, &ours, &none));
	else
		OK(((init_fn)dlsym(layer, "clInitLayer"))(entries, t, &n, &ours));
	CHECK_EQ(n, SLOTS);
	return (const void *const *)(const void *)ours;
}

static void check_rows(void)
{
	CHECK_EQ(ROWS, SLOTS);
	for (unsigned i = 0; i < ROWS; i++) {
		CHECK_EQ(rows[i].slot, i);
		bool pass = !strcmp(rows[i].class, "PASS");
		if (pass != (rows[i].why[0] != 0)) {
			fprintf(stderr, "%s: PASS and a reason go together\n", rows[i].name);
			failures++;
		}
		/* What makes memory, enqueues or synchronises may not be passed by oversight. */
		bool risky = !strncmp(rows[i].name, "clEnqueue", 9) || !strncmp(rows[i].name, "clCreateBuffer", 14) ||
			     !strncmp(rows[i].name, "clCreateImage", 13) || !strcmp(rows[i].name, "clSVMAlloc");
		if (risky && pass && !strstr(rows[i].why, "Windows")) {
			fprintf(stderr, "%s must be wrapped\n", rows[i].name);
			failures++;
		}
	}
}

static void check_table(const void *const *ours, unsigned entries, unsigned empty)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		bool want = strcmp(rows[i].class, "PASS") && i < entries && i != empty;
		if (want != (ours[i] != NULL)) {
			fprintf(stderr, "slot %u (%s): %s\n", i, rows[i].name, want ? "not wrapped" : "filled");
			failures++;
		}
	}
}

static void check_info(void *layer)
{
	info_fn info = (info_fn)dlsym(layer, "clGetLayerInfo");
	cl_layer_api_version v = 0;
	size_t n = 0;
	char name[32] = "";
	OK(info(CL_LAYER_API_VERSION, sizeof(v), &v, &n));
	CHECK_EQ(v, 100);
	CHECK_EQ(n, sizeof(v));
	OK(info(CL_LAYER_NAME, 0, NULL, &n));
	CHECK_EQ(n, strlen("penstock") + 1);
	CHECK_EQ(info(CL_LAYER_NAME, 3, name, NULL), CL_INVALID_VALUE);
	OK(info(CL_LAYER_NAME, sizeof(name), name, NULL));
	CHECK(!strcmp(name, "penstock"));
	CHECK_EQ(info(0x1234, sizeof(name), name, NULL), CL_INVALID_VALUE);
}

int main(int argc, char **argv)
{
	void *layer = argc > 1 ? dlopen(argv[1], RTLD_LAZY | RTLD_LOCAL) : NULL;
	if (!layer) {
		fprintf(stderr, "cannot load: %s\n", argc > 1 ? dlerror() : "no layer given");
		return 1;
	}
	check_rows();
	check_info(layer);
	setenv("FAKEGATE", "unmanaged", 1);
	const void *const *ours = load(layer, SLOTS, false, SLOTS);
	for (unsigned i = 0; i < SLOTS; i++)
		CHECK(!ours[i]);
	setenv("FAKEGATE", "managed", 1);
	/* The table is static in the layer: what an older loader lacks must be tried first. */
	check_table(load(layer, 100, false, SLOTS), 100, SLOTS);
	check_table(load(layer, SLOTS, true, 77), SLOTS, 77);
	check_table(load(layer, SLOTS, false, SLOTS), SLOTS, SLOTS);
	/* A newer loader has entry points that we do not know; at its end it tells us, and lets go of us. */
	check_table(load(layer, SLOTS + 30, true, SLOTS), SLOTS, SLOTS);
	OK(((cl_int (*)(void))dlsym(layer, "clDeinitLayer"))());
	cl_uint n;
	const cl_icd_dispatch *out, *first;
	/* Named twice: above itself it is an empty table, and below stays what it was. */
	ours = load(layer, SLOTS, false, SLOTS);
	first = (const cl_icd_dispatch *)(const void *)ours;
	OK(((init_fn)dlsym(layer, "clInitLayer"))(SLOTS, first, &n, &out));
	CHECK_EQ(n, SLOTS);
	for (unsigned i = 0; i < SLOTS; i++)
		CHECK(!((const void *const *)(const void *)out)[i]);
	check_table(ours, SLOTS, SLOTS);
	CHECK_EQ(((init_fn)dlsym(layer, "clInitLayer"))(SLOTS, NULL, &n, &out), CL_INVALID_VALUE);
	return finished("table");
}
