/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texture and surface objects: a program makes them, asks what it made them of, and passes their numbers to
 * kernels. No kernel looks at them here, so an object is what was said when it was made, as far as that can
 * be right.
 */
#include "simgpu/nvidia/cuda/array.h"
#include "simgpu/nvidia/cuda/mem.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

/*
 * Bytes of CUDA_RESOURCE_DESC, CUDA_TEXTURE_DESC and CUDA_RESOURCE_VIEW_DESC, which are opaque to the rest
 * of us.
 */
#define RESOURCE 144u
#define TEXTURE 104u
#define VIEW 112u

enum { OF_ARRAY, OF_MIPMAP, OF_LINEAR, OF_PITCH }; /* first word of a resource; what it is of lies at 8 */

struct object {
	uint64_t number;
	bool surface, viewed;
	unsigned char resource[RESOURCE], texture[TEXTURE], view[VIEW];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *objects;
static uint64_t next_number = 1;

static int compare(const void *x, const void *y)
{
	const struct object *a = x, *b = y;

	return a->number < b->number ? -1 : a->number > b->number;
}

static CUresult check_resource(const void *desc, bool surface)
{
	uint32_t type;
	uint64_t what;

	memcpy(&type, desc, sizeof(type));
	memcpy(&what, (const char *)desc + 8, sizeof(what));
	switch (type) {
	case OF_ARRAY:
		return sim_array_check((CUarray)(uintptr_t)what) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
	case OF_MIPMAP:
		return surface || !what ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
	case OF_LINEAR:
	case OF_PITCH:
		return surface || !what || sim_place(what) == SIM_AT_PAGEABLE ? CUDA_ERROR_INVALID_VALUE
									      : CUDA_SUCCESS;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
}

static CUresult make(unsigned long long *ret, const void *resource, const void *texture, const void *view,
		     bool surface)
{
	struct object *o;
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r && (!ret || !resource))
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		r = check_resource(resource, surface);
	if (r)
		return r;
	o = calloc(1, sizeof(*o));
	if (!o)
		return CUDA_ERROR_OUT_OF_MEMORY;
	o->surface = surface;
	o->viewed = view != NULL;
	memcpy(o->resource, resource, RESOURCE);
	if (texture)
		memcpy(o->texture, texture, TEXTURE);
	if (view)
		memcpy(o->view, view, VIEW);
	pthread_mutex_lock(&lock);
	o->number = next_number++;
	*ret = o->number;
	bool ok = tsearch(o, &objects, compare) != NULL;
	pthread_mutex_unlock(&lock);
	if (!ok)
		free(o);
	return ok ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult destroy(unsigned long long number, bool surface)
{
	struct object key = { .number = number }, **at, *found = NULL;

	pthread_mutex_lock(&lock);
	at = tfind(&key, &objects, compare);
	if (at && (*at)->surface == surface) {
		found = *at;
		tdelete(found, &objects, compare);
	}
	pthread_mutex_unlock(&lock);
	free(found);
	return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Copies a part of an object out; it has one or not. */
static CUresult tell(unsigned long long number, bool surface, size_t part, size_t bytes, void *ret)
{
	struct object key = { .number = number }, **at;
	bool ok;

	pthread_mutex_lock(&lock);
	at = tfind(&key, &objects, compare);
	ok = ret && at && (*at)->surface == surface &&
	     (part != offsetof(struct object, view) || (*at)->viewed);
	if (ok)
		memcpy(ret, (const char *)*at + part, bytes);
	pthread_mutex_unlock(&lock);
	return ok ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuTexObjectCreate(CUtexObject_v1 *ret, const CUDA_RESOURCE_DESC_v1 *resource,
			   const CUDA_TEXTURE_DESC_v1 *texture, const CUDA_RESOURCE_VIEW_DESC_v1 *view)
{
	return texture ? make(ret, resource, texture, view, false) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuTexObjectDestroy(CUtexObject_v1 t)
{
	return destroy(t, false);
}

CUresult cuTexObjectGetResourceDesc(CUDA_RESOURCE_DESC_v1 *ret, CUtexObject_v1 t)
{
	return tell(t, false, offsetof(struct object, resource), RESOURCE, ret);
}

CUresult cuTexObjectGetTextureDesc(CUDA_TEXTURE_DESC_v1 *ret, CUtexObject_v1 t)
{
	return tell(t, false, offsetof(struct object, texture), TEXTURE, ret);
}

CUresult cuTexObjectGetResourceViewDesc(CUDA_RESOURCE_VIEW_DESC_v1 *ret, CUtexObject_v1 t)
{
	return tell(t, false, offsetof(struct object, view), VIEW, ret);
}

CUresult cuSurfObjectCreate(CUsurfObject_v1 *ret, const CUDA_RESOURCE_DESC_v1 *resource)
{
	return make(ret, resource, NULL, NULL, true);
}

CUresult cuSurfObjectDestroy(CUsurfObject_v1 s)
{
	return destroy(s, true);
}

CUresult cuSurfObjectGetResourceDesc(CUDA_RESOURCE_DESC_v1 *ret, CUsurfObject_v1 s)
{
	return tell(s, true, offsetof(struct object, resource), RESOURCE, ret);
}
