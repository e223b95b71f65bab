/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TESTS_SHIM_CUDA_CUTEST_H
#define PEN_TESTS_SHIM_CUDA_CUTEST_H
/*
 * Common ground of the CUDA test programs: the shim under test, opened as programs open it (by the bare name, from
 * LD_LIBRARY_PATH), all its entry points by name, short checks, and the counters of the stand-in gate.
 */
#include "api/cuda_abi.h"

#include "shim/fakegate.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum cu_row {
#define PEN_CU(symbol, family, since, thread, class, types) ROW_##symbol,
#include "api/cuda.def"
	ROWS,
};

struct cu_api {
#define PEN_CU(symbol, family, since, thread, class, types) CUresult (*symbol) types;
#include "api/cuda.def"
};

static struct cu_api cu;            /* of the shim */
static void *shim;
static struct fake_stats *stats;    /* NULL: the shim does not run on the stand-in gate */
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
#define OK(call) CHECK_EQ(call, CUDA_SUCCESS)
#define MUST(call)                                                                                       \
	do {                                                                                             \
		CUresult must_ = (call);                                                                 \
		if (must_ != CUDA_SUCCESS) {                                                             \
			fprintf(stderr, "%s:%d: %s gave %d\n", __FILE__, __LINE__, #call, must_);        \
			exit(1);                                                                         \
		}                                                                                        \
	} while (0)

static inline void skip(const char *why)
{
	printf("skipped: %s\n", why);
	exit(77);
}

static inline void api_of(void *handle, struct cu_api *ret)
{
#define PEN_CU(symbol, family, since, thread, class, types) *(void **)(void *)&ret->symbol = dlsym(handle, #symbol);
#include "api/cuda.def"
}

/* CUTEST_PATH becomes LD_LIBRARY_PATH by starting anew: meson puts folders of its own before what a test sets. */
static inline void open_shim(char **argv)
{
	const char *path = getenv("CUTEST_PATH");
	if (path) {
		setenv("LD_LIBRARY_PATH", path, 1);
		unsetenv("CUTEST_PATH");
		execv("/proc/self/exe", argv);
		perror("exec");
		exit(1);
	}
	shim = dlopen("libcuda.so.1", RTLD_NOW);
	if (!shim) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	api_of(shim, &cu);
	stats = dlsym(shim, "fake_stats");
}

/* A context on the first device. */
static inline CUcontext new_context(void)
{
	CUdevice d;
	CUcontext c;
	MUST(cu.cuDeviceGet(&d, 0));
	MUST(cu.cuCtxCreate_v2(&c, 0, d));
	return c;
}

static inline void expect_(uint64_t bytes, uint64_t objects, const char *file, int line)
{
	if (stats->used == bytes && stats->objects == objects)
		return;
	fprintf(stderr, "%s:%d: charged %llu bytes in %llu objects, wanted %llu in %llu\n", file, line, (unsigned long long)stats->used,
		(unsigned long long)stats->objects, (unsigned long long)bytes, (unsigned long long)objects);
	failures++;
}
#define EXPECT(bytes, objects) expect_(bytes, objects, __FILE__, __LINE__)

static inline int finished(const char *name)
{
	if (failures)
		fprintf(stderr, "%s: %d checks failed\n", name, failures);
	return failures ? 1 : 0;
}

#endif
