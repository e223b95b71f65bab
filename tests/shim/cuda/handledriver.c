/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver laid over rowdriver.c that uses its handles again at once: those of contexts, of which there is but one, and those of physical
 * memory, which are small numbers; and with multicast objects, which the stand-in has not. Memory lives as long as a handle, a
 * mapping, a binding or its context holds it; mc_live says how many bytes.
 */
#include "api/cuda_abi.h"

#include <stdatomic.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define OBJECTS 64

EXPORT _Atomic uint64_t mc_live;

struct object {
	int handles, mappings, bindings;
	uint64_t bytes;
	int multicast;
	struct { struct object *mem; size_t offset, bytes; } bound[8];
};
static struct object objects[OBJECTS];   /* handle = index + 1 */
static struct { CUdeviceptr at; size_t bytes; struct object *o; } mapped[OBJECTS];

static struct object *find(unsigned long long h)
{
	struct object *o = h && h <= OBJECTS ? &objects[h - 1] : NULL;
	return o && o->handles ? o : NULL;
}

static void look(struct object *o)
{
	if (o->handles || o->mappings || o->bindings)
		return;
	for (unsigned i = 0; i < 8; i++)
		if (o->bound[i].mem) {
			o->bound[i].mem->bindings--;
			look(o->bound[i].mem);
		}
	atomic_fetch_sub(&mc_live, o->bytes);
	memset(o, 0, sizeof(*o));
}

static CUresult make(unsigned long long *ret, uint64_t bytes, int multicast)
{
	for (unsigned i = 0; i < OBJECTS; i++) {
		struct object *o = &objects[i];
		if (o->handles || o->mappings || o->bindings)
			continue;
		*o = (struct object){ .handles = 1, .bytes = bytes, .multicast = multicast };
		atomic_fetch_add(&mc_live, bytes);
		*ret = i + 1;
		return CUDA_SUCCESS;
	}
	return CUDA_ERROR_OUT_OF_MEMORY;
}

#define FN(name, args) \
	EXPORT CUresult name args; \
	CUresult name args

FN(cuInit, (unsigned int flags))
{
	return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

FN(cuDeviceGetCount, (int *n))
{
	*n = 1;
	return CUDA_SUCCESS;
}

FN(cuDeviceGet, (CUdevice *d, int i))
{
	*d = i;
	return i ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

/* ---- the context -------------------------------------------------------------------------------------------------- */

EXPORT void (*mc_destroyed)(void);       /* called when the context has gone, before the call returns */
static _Thread_local CUcontext current;
static char context;
static struct { CUdeviceptr at; uint64_t bytes; } plain[OBJECTS];

FN(cuCtxCreate_v2, (CUcontext *ret, unsigned int flags, CUdevice d))
{
	(void)flags, (void)d;
	*ret = current = (CUcontext)(void *)&context;
	return CUDA_SUCCESS;
}

FN(cuCtxGetCurrent, (CUcontext *ret))
{
	*ret = current;
	return CUDA_SUCCESS;
}

FN(cuCtxGetDevice, (CUdevice *ret))
{
	*ret = 0;
	return current ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

FN(cuCtxSetCurrent, (CUcontext c))
{
	current = c;
	return CUDA_SUCCESS;
}

FN(cuCtxDestroy_v2, (CUcontext c))
{
	if (c != (CUcontext)(void *)&context)
		return CUDA_ERROR_INVALID_CONTEXT;
	current = NULL;
	for (unsigned i = 0; i < OBJECTS; i++) {
		atomic_fetch_sub(&mc_live, plain[i].bytes);
		plain[i].bytes = 0;
	}
	if (mc_destroyed)
		mc_destroyed();
	return CUDA_SUCCESS;
}

static int holders;   /* of the primary context, which is the same */

FN(cuDevicePrimaryCtxGetState, (CUdevice d, unsigned int *flags, int *active))
{
	*flags = 0;
	*active = holders > 0;
	return d ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

FN(cuDevicePrimaryCtxRetain, (CUcontext *ret, CUdevice d))
{
	if (d)
		return CUDA_ERROR_INVALID_DEVICE;
	*ret = (CUcontext)(void *)&context;
	holders++;
	return CUDA_SUCCESS;
}

FN(cuDevicePrimaryCtxRelease_v2, (CUdevice d))
{
	if (d || !holders)
		return CUDA_ERROR_INVALID_CONTEXT;
	return --holders ? CUDA_SUCCESS : cuCtxDestroy_v2((CUcontext)(void *)&context);
}

FN(cuDevicePrimaryCtxReset_v2, (CUdevice d))
{
	holders = 0;
	return d ? CUDA_ERROR_INVALID_DEVICE : cuCtxDestroy_v2((CUcontext)(void *)&context);
}

FN(cuMemAlloc_v2, (CUdeviceptr *ret, size_t bytes))
{
	for (unsigned i = 0; i < OBJECTS; i++)
		if (!plain[i].bytes) {
			plain[i].bytes = bytes;
			*ret = plain[i].at = (i + 1) * UINT64_C(0x40000000);
			atomic_fetch_add(&mc_live, bytes);
			return CUDA_SUCCESS;
		}
	return CUDA_ERROR_OUT_OF_MEMORY;
}

FN(cuMemFree_v2, (CUdeviceptr at))
{
	for (unsigned i = 0; i < OBJECTS; i++)
		if (plain[i].bytes && plain[i].at == at) {
			atomic_fetch_sub(&mc_live, plain[i].bytes);
			plain[i].bytes = 0;
			return CUDA_SUCCESS;
		}
	return CUDA_ERROR_INVALID_VALUE;
}

/* ---- physical memory ------------------------------------------------------------------------------------------------- */

FN(cuMemCreate, (unsigned long long *h, size_t bytes, const void *prop, unsigned long long flags))
{
	(void)prop, (void)flags;
	return make(h, bytes, 0);
}

FN(cuMemRelease, (unsigned long long h))
{
	struct object *o = find(h);
	if (!o)
		return CUDA_ERROR_INVALID_VALUE;
	o->handles--;
	look(o);
	return CUDA_SUCCESS;
}

FN(cuMemMap, (CUdeviceptr at, size_t bytes, size_t offset, unsigned long long h, unsigned long long flags))
{
	struct object *o = find(h);
	(void)offset, (void)flags;
	for (unsigned i = 0; o && i < OBJECTS; i++)
		if (!mapped[i].o) {
			mapped[i].at = at;
			mapped[i].bytes = bytes;
			mapped[i].o = o;
			o->mappings++;
			return CUDA_SUCCESS;
		}
	return CUDA_ERROR_INVALID_VALUE;
}

FN(cuMemUnmap, (CUdeviceptr at, size_t bytes))
{
	for (unsigned i = 0; i < OBJECTS; i++)
		if (mapped[i].o && mapped[i].at == at && mapped[i].bytes == bytes) {
			struct object *o = mapped[i].o;
			mapped[i].o = NULL;
			o->mappings--;
			look(o);
			return CUDA_SUCCESS;
		}
	return CUDA_ERROR_INVALID_VALUE;
}

FN(cuMemRetainAllocationHandle, (unsigned long long *h, void *at))
{
	for (unsigned i = 0; i < OBJECTS; i++)
		if (mapped[i].o && mapped[i].at == (uintptr_t)at) {
			mapped[i].o->handles++;
			*h = (unsigned long long)(mapped[i].o - objects) + 1;
			return CUDA_SUCCESS;
		}
	return CUDA_ERROR_INVALID_VALUE;
}

FN(cuMulticastCreate, (unsigned long long *h, const void *prop))
{
	return prop ? make(h, 0, 1) : CUDA_ERROR_INVALID_VALUE;
}

static CUresult bind(unsigned long long h, size_t offset, struct object *mem, size_t bytes)
{
	struct object *o = find(h);
	for (unsigned i = 0; o && o->multicast && mem && i < 8; i++)
		if (!o->bound[i].mem) {
			o->bound[i].mem = mem;
			o->bound[i].offset = offset;
			o->bound[i].bytes = bytes;
			mem->bindings++;
			return CUDA_SUCCESS;
		}
	return CUDA_ERROR_INVALID_VALUE;
}

FN(cuMulticastBindMem, (unsigned long long h, size_t offset, unsigned long long mem, size_t at, size_t bytes, unsigned long long flags))
{
	(void)at, (void)flags;
	return bind(h, offset, find(mem), bytes);
}

FN(cuMulticastBindAddr, (unsigned long long h, size_t offset, CUdeviceptr at, size_t bytes, unsigned long long flags))
{
	(void)flags;
	for (unsigned i = 0; i < OBJECTS; i++)
		if (mapped[i].o && mapped[i].at == at)
			return bind(h, offset, mapped[i].o, bytes);
	return CUDA_ERROR_INVALID_VALUE;
}

FN(cuMulticastUnbind, (unsigned long long h, CUdevice d, size_t offset, size_t bytes))
{
	struct object *o = find(h);
	(void)d;
	for (unsigned i = 0; o && i < 8; i++)
		if (o->bound[i].mem && o->bound[i].offset == offset && o->bound[i].bytes == bytes) {
			struct object *mem = o->bound[i].mem;
			o->bound[i].mem = NULL;
			mem->bindings--;
			look(mem);
			return CUDA_SUCCESS;
		}
	return CUDA_ERROR_INVALID_VALUE;
}
