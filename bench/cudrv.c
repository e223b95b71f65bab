/* SPDX-License-Identifier: Apache-2.0 */
#include "cudrv.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

struct cu cu;
const char *cu_program = "cuda";

static const struct row {
	const char *symbol, *family;
	int since;
	bool per_thread;
} rows[] = {
#define LEGACY false
#define THREAD true
#define PEN_CU(symbol, family, since, thread, class, types) { #symbol, #family, since, thread },
#include "api/cuda.def"
#undef PEN_CU
};

static const struct {
	CUresult code;
	const char *text;
} errors[] = {
	{ CUDA_ERROR_INVALID_VALUE, "invalid value" },
	{ CUDA_ERROR_OUT_OF_MEMORY, "out of memory" },
	{ CUDA_ERROR_NOT_INITIALIZED, "not initialized" },
	{ CUDA_ERROR_NO_DEVICE, "no device" },
	{ CUDA_ERROR_INVALID_IMAGE, "invalid image" },
	{ CUDA_ERROR_INVALID_CONTEXT, "invalid context" },
	{ CUDA_ERROR_INVALID_PTX, "invalid PTX" },
	{ CUDA_ERROR_INVALID_HANDLE, "invalid handle" },
	{ CUDA_ERROR_NOT_FOUND, "not found" },
	{ CUDA_ERROR_NOT_READY, "not ready" },
	{ CUDA_ERROR_ILLEGAL_ADDRESS, "illegal address" },
	{ CUDA_ERROR_NOT_PERMITTED, "not permitted" },
	{ CUDA_ERROR_NOT_SUPPORTED, "not supported" },
};

const char *cu_error(CUresult r)
{
	static _Thread_local char text[64];
	const char *name = "error";

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (errors[i].code == r)
			name = errors[i].text;
	snprintf(text, sizeof(text), "%s (%d)", name, r);
	return text;
}

int cu_failed(const char *what, CUresult r)
{
	fprintf(stderr, "%s: %s: %s\n", cu_program, what, cu_error(r));
	return -1;
}

static const struct row *find_row(const char *symbol)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (!strcmp(rows[i].symbol, symbol))
			return &rows[i];
	return NULL;
}

void *cu_find(void *library, const char *symbol)
{
	cu_fn_cuGetProcAddress_v2 *v2 = (cu_fn_cuGetProcAddress_v2 *)dlsym(library, "cuGetProcAddress_v2");
	cu_fn_cuGetProcAddress *v1 = (cu_fn_cuGetProcAddress *)dlsym(library, "cuGetProcAddress");
	const struct row *row = find_row(symbol);
	void *p = NULL;

	if (!row)
		return NULL;
	uint64_t flags = row->per_thread ? CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM : CU_GET_PROC_ADDRESS_DEFAULT;

	if (v2)
		return v2(row->family, &p, row->since, flags, NULL) ? NULL : p;
	if (v1)
		return v1(row->family, &p, row->since, flags) ? NULL : p;
	return dlsym(library, symbol);
}

int cu_load(const char *path)
{
	const char *missing = NULL;

	cu.library = dlopen(path ? path : "libcuda.so.1", RTLD_NOW);
	if (!cu.library) {
		fprintf(stderr, "%s: %s\n", cu_program, dlerror());
		return -1;
	}
#define X(symbol) \
	cu.symbol = (cu_fn_##symbol *)cu_find(cu.library, #symbol); \
	if (!cu.symbol) \
		missing = #symbol;
	CU_BASE(X)
#undef X
#define X(symbol) cu.symbol = (cu_fn_##symbol *)cu_find(cu.library, #symbol);
	CU_LATER(X)
#undef X
	if (missing) {
		fprintf(stderr, "%s: the driver has no %s\n", cu_program, missing);
		return -1;
	}
	CU_OR_FAIL("version", cu.cuDriverGetVersion(&cu.version));
	return 0;
}

int cu_start(int ordinal, CUdevice *ret_device, CUcontext *ret_context)
{
	CUcontext context;
	CUdevice device;

	CU_OR_FAIL("cuInit", cu.cuInit(0));
	CU_OR_FAIL("device", cu.cuDeviceGet(&device, ordinal));
	CU_OR_FAIL("context", cu.cuDevicePrimaryCtxRetain(&context, device));
	CU_OR_FAIL("context", cu.cuCtxSetCurrent(context));
	*ret_device = device;
	if (ret_context)
		*ret_context = context;
	return 0;
}
