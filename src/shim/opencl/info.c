/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the application is told about platforms and devices: only the devices of its contract, with the contract's memory
 * and units, the same on every path, and without what would go past the gate.
 */
#include "shim/opencl/cl.h"

#include "base/auto.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

cl_int pen_cl_answer(const void *src, size_t n, size_t size, void *value, size_t *ret_size)
{
	if (value && size < n)
		return CL_INVALID_VALUE;
	if (value)
		memcpy(value, src, n);
	if (ret_size)
		*ret_size = n;
	return CL_SUCCESS;
}

/* Why is told by the gate, once. */
static bool refused(void)
{
	return pen_gate_managed() == PEN_REFUSED;
}

/* ---- which devices ---------------------------------------------------------------------------------------------- */

cl_int pen_clGetPlatformIDs(cl_uint n, cl_platform_id *platforms, cl_uint *ret_n)
{
	cl_int r = BELOW(clGetPlatformIDs)(n, platforms, ret_n);
	if (r != CL_SUCCESS || !refused())
		return r;
	if (ret_n)
		*ret_n = 0;
	return CL_PLATFORM_NOT_FOUND_KHR;
}

cl_int pen_clGetDeviceIDs(cl_platform_id platform, cl_device_type type, cl_uint n, cl_device_id *ids, cl_uint *ret_n)
{
	cl_uint total = 0, kept = 0;
	/* The driver judges the arguments first. */
	cl_int r = BELOW(clGetDeviceIDs)(platform, type, n, ids, &total);
	if (r != CL_SUCCESS || (!ids && !ret_n))
		return r == CL_SUCCESS ? BELOW(clGetDeviceIDs)(platform, type, n, ids, ret_n) : r;
	pen_auto_free cl_device_id *all = calloc(total + 1, sizeof(*all));
	if (!all)
		return CL_OUT_OF_HOST_MEMORY;
	r = BELOW(clGetDeviceIDs)(platform, type, total, all, &total);
	if (r != CL_SUCCESS)
		return r;
	for (cl_uint i = 0; !refused() && i < total; i++) {
		struct pen_cl_device *d = pen_cl_device(all[i]);
		if (!d || !pen_cl_gate(d))
			continue;
		if (ids && kept < n)
			ids[kept] = all[i];
		kept++;
	}
	for (cl_uint i = kept; ids && i < n && i < total; i++)
		ids[i] = NULL;
	if (ret_n)
		*ret_n = kept;
	return kept ? CL_SUCCESS : CL_DEVICE_NOT_FOUND;
}

cl_int pen_clCreateSubDevices(cl_device_id id, const cl_device_partition_property *props, cl_uint n, cl_device_id *out,
			      cl_uint *ret_n)
{
	struct pen_cl_device *d = pen_cl_device(id);
	if (d && !pen_cl_gate(d))
		return CL_OUT_OF_RESOURCES;
	/* A contract with fewer units: the application divides what is its own, and the driver checks its counts. */
	return BELOW(clCreateSubDevices)(d ? pen_cl_queue_device(d, id) : id, props, n, out, ret_n);
}

/* ---- extension lists ---------------------------------------------------------------------------------------------- */

static bool hidden(const char *name, size_t len)
{
	static const char *const names[] = {
#define PEN_CL_EXT_HIDE(extension) extension,
#include "api/opencl.def"
	};
	for (size_t i = 0; i < PEN_ARRAY_LEN(names); i++)
		if (strlen(names[i]) == len && !memcmp(names[i], name, len))
			return true;
	return false;
}

/* Removes hidden words from a list of words, in place; spacing of the others stays. */
static void filter_words(char *text)
{
	char *to = text;
	for (const char *at = text; *at;) {
		size_t len = strcspn(at, " ");
		size_t gap = strspn(at + len, " ");
		if (!len || !hidden(at, len)) {
			memmove(to, at, len + gap);
			to += len + gap;
		}
		at += len + gap;
	}
	*to = 0;
}

static size_t filter_versions(cl_name_version *v, size_t n)
{
	size_t kept = 0;
	for (size_t i = 0; i < n; i++)
		if (!hidden(v[i].name, strnlen(v[i].name, sizeof(v[i].name))))
			v[kept++] = v[i];
	return kept;
}

typedef cl_int (CL_API_CALL *info_fn)(void *, cl_uint, size_t, void *, size_t *);

/* A query whose answer is a list of extensions. @ask has the shape of both clGetPlatformInfo and clGetDeviceInfo. */
static cl_int answer_extensions(info_fn ask, void *object, cl_uint what, bool versions, size_t size, void *value,
				size_t *ret_size)
{
	size_t n = 0;
	cl_int r = ask(object, what, 0, NULL, &n);
	if (r != CL_SUCCESS)
		return ask(object, what, size, value, ret_size);
	pen_auto_free char *list = calloc(1, n + 1);
	if (!list)
		return CL_OUT_OF_HOST_MEMORY;
	r = ask(object, what, n, list, &n);
	if (r != CL_SUCCESS)
		return r;
	if (versions) {
		n = filter_versions((cl_name_version *)(void *)list, n / sizeof(cl_name_version)) * sizeof(cl_name_version);
	} else {
		filter_words(list);
		n = strlen(list) + 1;
	}
	return pen_cl_answer(list, n, size, value, ret_size);
}

cl_int pen_clGetPlatformInfo(cl_platform_id p, cl_platform_info what, size_t size, void *value, size_t *ret_size)
{
	if (what == CL_PLATFORM_EXTENSIONS || what == CL_PLATFORM_EXTENSIONS_WITH_VERSION)
		return answer_extensions((info_fn)(void *)BELOW(clGetPlatformInfo), p, what,
					 what != CL_PLATFORM_EXTENSIONS, size, value, ret_size);
	return BELOW(clGetPlatformInfo)(p, what, size, value, ret_size);
}

/* ---- device ------------------------------------------------------------------------------------------------------- */

#define CL_DEVICE_GLOBAL_FREE_MEMORY_AMD_ 0x4039   /* size_t[1 or 2], KiB: free, largest free block */

static cl_int answer_free(struct pen_cl_device *d, cl_device_id id, size_t size, void *value, size_t *ret_size)
{
	size_t kib[2] = { 0 }, n = 0;
	struct pen_mem_view v;
	cl_int r = BELOW(clGetDeviceInfo)(id, CL_DEVICE_GLOBAL_FREE_MEMORY_AMD_, sizeof(kib), kib, &n);
	if (r != CL_SUCCESS)
		return r;
	pen_gate_mem_view(d->gate, &v);
	uint64_t left = v.limit_bytes > v.used_bytes ? (v.limit_bytes - v.used_bytes) / 1024 : 0;
	for (size_t i = 0; i < 2; i++)
		kib[i] = PEN_MIN(kib[i], (size_t)left);
	return pen_cl_answer(kib, n, size, value, ret_size);
}

/* A number that the contract bounds, as wide as the driver has it (PoCL answers some bit fields with four bytes). */
static cl_int answer_bound(cl_device_id id, cl_device_info what, uint64_t bound, size_t size, void *value, size_t *ret_size)
{
	uint64_t real = 0;   /* little endian: the low bytes are the value of any width */
	size_t width = 0;
	cl_int r = BELOW(clGetDeviceInfo)(id, what, sizeof(real), &real, &width);
	if (r != CL_SUCCESS || width > sizeof(real))
		return r == CL_SUCCESS ? CL_INVALID_VALUE : r;
	real = PEN_MIN(real, bound);
	return pen_cl_answer(&real, width, size, value, ret_size);
}

static cl_int answer_parent(struct pen_cl_device *d, cl_device_id id, size_t size, void *value, size_t *ret_size)
{
	cl_device_id parent = NULL;
	cl_int r = BELOW(clGetDeviceInfo)(id, CL_DEVICE_PARENT_DEVICE, sizeof(parent), &parent, NULL);
	if (r != CL_SUCCESS)
		return r;
	if (parent && parent == atomic_load(&d->sub))
		parent = d->id;
	return pen_cl_answer(&parent, sizeof(parent), size, value, ret_size);
}

cl_int pen_clGetDeviceInfo(cl_device_id id, cl_device_info what, size_t size, void *value, size_t *ret_size)
{
	struct pen_cl_device *d = NULL;
	switch (what) {
	case CL_DEVICE_EXTENSIONS:
	case CL_DEVICE_EXTENSIONS_WITH_VERSION:
		return answer_extensions((info_fn)(void *)BELOW(clGetDeviceInfo), id, what, what != CL_DEVICE_EXTENSIONS, size,
					 value, ret_size);
	case CL_DEVICE_DEVICE_ENQUEUE_CAPABILITIES:
	case CL_DEVICE_QUEUE_ON_DEVICE_PROPERTIES:
		return answer_bound(id, what, 0, size, value, ret_size);
	case CL_DEVICE_QUEUE_ON_DEVICE_PREFERRED_SIZE:
	case CL_DEVICE_QUEUE_ON_DEVICE_MAX_SIZE:
	case CL_DEVICE_MAX_ON_DEVICE_QUEUES:
	case CL_DEVICE_MAX_ON_DEVICE_EVENTS:
		return answer_bound(id, what, 0, size, value, ret_size);
	case CL_DEVICE_GLOBAL_MEM_SIZE:
	case CL_DEVICE_MAX_MEM_ALLOC_SIZE:
	case CL_DEVICE_GLOBAL_FREE_MEMORY_AMD_:
	case CL_DEVICE_MAX_COMPUTE_UNITS:
	case CL_DEVICE_PARTITION_MAX_SUB_DEVICES:
	case CL_DEVICE_PARENT_DEVICE:
		d = pen_cl_device(id);
		break;
	default:
		break;
	}
	if (!d)
		return BELOW(clGetDeviceInfo)(id, what, size, value, ret_size);
	if (!pen_cl_gate(d))
		return CL_OUT_OF_RESOURCES;
	switch (what) {
	case CL_DEVICE_GLOBAL_MEM_SIZE:
	case CL_DEVICE_MAX_MEM_ALLOC_SIZE:
		return answer_bound(id, what, pen_cl_mem_limit(d), size, value, ret_size);
	case CL_DEVICE_GLOBAL_FREE_MEMORY_AMD_:
		return answer_free(d, id, size, value, ret_size);
	case CL_DEVICE_PARENT_DEVICE:
		return answer_parent(d, id, size, value, ret_size);
	default:
		return answer_bound(id, what, pen_cl_units(d), size, value, ret_size);
	}
}
