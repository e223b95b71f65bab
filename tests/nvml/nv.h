/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TESTS_NVML_NV_H
#define PEN_TESTS_NVML_NV_H
/* A program's side of libnvidia-ml: every entry point of a library opened by path, NULL where it has none; and the state file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/nvml_abi.h"

struct nv {
#define PEN_NV(symbol, since, class, types) nvmlReturn_t (*symbol) types;
#define PEN_NV_TEXT(symbol, since, class, types) const char *(*symbol) types;
#include "api/nvml.def"
};

static const char *const nv_names[] = {
#define PEN_NV(symbol, since, class, types) #symbol,
#include "api/nvml.def"
};
static const unsigned nv_since[] = {
#define PEN_NV(symbol, since, class, types) since,
#include "api/nvml.def"
};
#define NV_ROWS (sizeof(nv_names) / sizeof(nv_names[0]))

static inline void *nv_open(const char *path, struct nv *ret)
{
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!lib) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	for (size_t i = 0; i < NV_ROWS; i++) {
		void *p = dlsym(lib, nv_names[i]);
		memcpy((char *)ret + i * sizeof(p), &p, sizeof(p));
	}
	return lib;
}

/* What happens on the made-up cards from now on (simgpu/nvidia/nvml/README.md). Replaced at once, so that no reader sees half of it. */
static inline void nv_state(const char *text)
{
	static char path[128];
	char next[160];
	if (!path[0]) {
		snprintf(path, sizeof(path), "/tmp/pen-nvml-%d", (int)getpid());
		setenv("SIM_NVML_STATE", path, 1);
	}
	snprintf(next, sizeof(next), "%s.next", path);
	FILE *f = fopen(next, "w");
	if (!f || fputs(text, f) < 0 || fclose(f) || rename(next, path)) {
		perror(next);
		exit(1);
	}
}

static inline void nv_state_end(void)
{
	const char *path = getenv("SIM_NVML_STATE");
	if (path)
		unlink(path);
}

#endif
