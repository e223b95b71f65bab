/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual memory management: physical memory by handle, address ranges, and mappings of the one into the
 * other.
 *
 * Physical memory lives as long as a handle or a mapping refers to it. Its bytes are pages of the arena, or
 * a file of their own if it may be exported. An address range is a mapping without access; a mapping lays
 * the bytes over it, and cuMemSetAccess opens them.
 */
#include "simgpu/nvidia/cuda/array.h"
#include "simgpu/nvidia/cuda/mem.h"
#include "simgpu/nvidia/cuda/share.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct phys {
	/* CUmemGenericAllocationHandle: a number, so that a stale or made-up one is only not found */
	uint64_t handle;
	uint32_t handles, mappings;
	CUmemAllocationProp_v1 prop;
	struct sim_device *device; /* NULL: on the host */
	size_t bytes;
	uint64_t id; /* by which the device knows it; 0 = nothing was taken */
	uint64_t first; /* page of the arena */
	int fd; /* of its own file; -1 = in the arena */
};

struct space { /* a reserved range */
	CUdeviceptr base;
	size_t bytes;
	struct space *next;
};

/* One for all: these are rare calls. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct space *spaces;
static void *by_handle;
static uint64_t next_handle = 1;

static CUresult check_prop(const CUmemAllocationProp_v1 *prop, struct sim_device **ret)
{
	*ret = NULL;
	if (!prop || prop->type != CU_MEM_ALLOCATION_TYPE_PINNED)
		return CUDA_ERROR_INVALID_VALUE;
	if (prop->requestedHandleTypes & ~(unsigned)CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
		return CUDA_ERROR_NOT_SUPPORTED;
	switch (prop->location.type) {
	case CU_MEM_LOCATION_TYPE_DEVICE:
		return sim_device_get(prop->location.id, ret);
	case CU_MEM_LOCATION_TYPE_HOST:
	case CU_MEM_LOCATION_TYPE_HOST_NUMA:
	case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
		return sim_cuda_version >= 12020 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
}

CUresult cuMemGetAllocationGranularity(size_t *ret, const CUmemAllocationProp_v1 *prop,
				       CUmemAllocationGranularity_flags option)
{
	struct sim_device *d;
	CUresult r = sim_ready();

	if (!r)
		r = check_prop(prop, &d);
	if (r)
		return r;
	if (!ret || option > CU_MEM_ALLOC_GRANULARITY_RECOMMENDED)
		return CUDA_ERROR_INVALID_VALUE;
	*ret = SIM_PAGE_BYTES;
	return CUDA_SUCCESS;
}

/* ---- physical memory; all with the lock held ---- */

static int compare(const void *x, const void *y)
{
	const struct phys *a = x, *b = y;

	return a->handle < b->handle ? -1 : a->handle > b->handle;
}

static void drop(struct phys *p)
{
	if (p->handles || p->mappings)
		return;
	if (p->fd >= 0)
		close(p->fd);
	else
		sim_arena_give(p->first, p->bytes / SIM_PAGE_BYTES);
	if (p->id)
		sim_memory_give(p->device, p->bytes, p->id);
	tdelete(p, &by_handle, compare);
	free(p);
}

/* The released but mapped are not found: their handle is stale. */
static struct phys *phys_of(CUmemGenericAllocationHandle h)
{
	struct phys key = { .handle = h }, **at = tfind(&key, &by_handle, compare);

	return at && (*at)->handles ? *at : NULL;
}

/* Gives it a handle; false: out of memory. */
static bool enter(struct phys *p)
{
	pthread_mutex_lock(&lock);
	p->handle = next_handle++;
	bool ok = tsearch(p, &by_handle, compare) != NULL;

	pthread_mutex_unlock(&lock);
	return ok;
}

static CUresult back(struct phys *p)
{
	if (p->prop.requestedHandleTypes) {
		struct sim_share share = { .kind = SIM_SHARE_PHYSICAL,
					   .device = p->device ? p->device->id : -1,
					   .bytes = p->bytes };

		memcpy(share.prop, &p->prop, sizeof(p->prop));
		p->fd = sim_share_create(&share);
		return p->fd < 0 ? CUDA_ERROR_OPERATING_SYSTEM : CUDA_SUCCESS;
	}
	p->fd = -1;
	return sim_arena_open() && sim_arena_take(p->bytes / SIM_PAGE_BYTES, &p->first)
		       ? CUDA_SUCCESS
		       : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle_v1 *ret, size_t bytes, const CUmemAllocationProp_v1 *prop,
		     unsigned long long flags)
{
	struct sim_device *d;
	struct phys *p;
	CUresult r = sim_ready();

	if (!r)
		r = check_prop(prop, &d);
	if (r)
		return r;
	if (!ret || !bytes || bytes % SIM_PAGE_BYTES || flags)
		return CUDA_ERROR_INVALID_VALUE;
	p = calloc(1, sizeof(*p));
	if (!p)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*p = (struct phys){ .handles = 1, .prop = *prop, .device = d, .bytes = bytes, .fd = -1 };
	if (d)
		r = sim_memory_take(d, bytes, &p->id);
	if (!r) {
		r = back(p);
		if (r && p->id)
			sim_memory_give(d, bytes, p->id);
	}
	if (r) {
		free(p);
		return r;
	}
	if (!enter(p)) {
		pthread_mutex_lock(&lock);
		p->handles = 0;
		drop(p);
		pthread_mutex_unlock(&lock);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*ret = p->handle;
	return CUDA_SUCCESS;
}

CUresult cuMemRelease(CUmemGenericAllocationHandle_v1 h)
{
	CUresult r = sim_ready();

	if (r)
		return r;
	pthread_mutex_lock(&lock);
	struct phys *p = phys_of(h);

	if (p) {
		p->handles--;
		drop(p);
	}
	pthread_mutex_unlock(&lock);
	return p ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp_v1 *ret,
						CUmemGenericAllocationHandle_v1 h)
{
	CUresult r = sim_ready();

	if (r)
		return r;
	pthread_mutex_lock(&lock);
	struct phys *p = phys_of(h);

	if (p && ret)
		*ret = p->prop;
	pthread_mutex_unlock(&lock);
	return p && ret ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle_v1 *ret, void *at)
{
	struct sim_range range;
	CUresult r = sim_ready();

	if (r)
		return r;
	if (!ret)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&lock);
	bool found = sim_range_find((uintptr_t)at, &range) && range.kind == SIM_MEM_MAPPED;

	if (found) {
		((struct phys *)range.object)->handles++;
		*ret = ((struct phys *)range.object)->handle;
	}
	pthread_mutex_unlock(&lock);
	return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- address ranges ---- */

CUresult cuMemAddressReserve(CUdeviceptr *ret, size_t bytes, size_t align, CUdeviceptr hint,
			     unsigned long long flags)
{
	CUresult r = sim_ready();

	if (r)
		return r;
	if (!ret || !bytes || bytes % SIM_PAGE_BYTES || flags || (align & (align - 1)))
		return CUDA_ERROR_INVALID_VALUE;
	if (align < SIM_PAGE_BYTES)
		align = SIM_PAGE_BYTES;

	struct space *s = malloc(sizeof(*s));
	char *p = s && bytes + align > bytes ? mmap((void *)hint, bytes + align, PROT_NONE,
						    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
					     : MAP_FAILED;

	if (p == MAP_FAILED) {
		free(s);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	/* What lies beside the aligned part goes back. */
	char *at = (char *)(((uintptr_t)p + align - 1) & ~(align - 1));
	if (at > p)
		munmap(p, (size_t)(at - p));
	if (at + bytes < p + bytes + align)
		munmap(at + bytes, (size_t)(p + align - at));
	*s = (struct space){ .base = (uintptr_t)at, .bytes = bytes };
	pthread_mutex_lock(&lock);
	s->next = spaces;
	spaces = s;
	pthread_mutex_unlock(&lock);
	*ret = s->base;
	return CUDA_SUCCESS;
}

static bool any_mapped(CUdeviceptr at, size_t bytes)
{
	struct sim_range range;

	for (size_t i = 0; i < bytes; i += SIM_PAGE_BYTES)
		if (sim_range_find(at + i, &range))
			return true;
	return false;
}

CUresult cuMemAddressFree(CUdeviceptr at, size_t bytes)
{
	CUresult r = sim_ready();

	if (r)
		return r;
	r = CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&lock);
	for (struct space **s = &spaces; *s; s = &(*s)->next) {
		struct space *found = *s;

		if (found->base != at || found->bytes != bytes || any_mapped(at, bytes))
			continue;
		*s = found->next;
		munmap((void *)at, bytes);
		free(found);
		r = CUDA_SUCCESS;
		break;
	}
	pthread_mutex_unlock(&lock);
	return r;
}

static bool reserved(CUdeviceptr at, size_t bytes)
{
	for (struct space *s = spaces; s; s = s->next)
		if (at >= s->base && bytes <= s->bytes && at - s->base <= s->bytes - bytes)
			return true;
	return false;
}

/* ---- mappings ---- */

static bool lay(CUdeviceptr at, const struct phys *p)
{
	int fd = p->fd >= 0 ? p->fd : sim_arena.fd;
	off_t offset = p->fd >= 0 ? 0 : (off_t)(p->first * SIM_PAGE_BYTES);

	return mmap((void *)at, p->bytes, PROT_NONE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, offset) !=
	       MAP_FAILED;
}

/* Back to a range without anything behind it. */
static void lift(CUdeviceptr at, size_t bytes)
{
	(void)mmap((void *)at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
}

static CUresult map(CUdeviceptr at, size_t bytes, struct phys *p)
{
	if (!p || bytes != p->bytes || at % SIM_PAGE_BYTES || !reserved(at, bytes) || any_mapped(at, bytes))
		return CUDA_ERROR_INVALID_VALUE;

	struct sim_range range = {
		.base = at, .bytes = bytes, .kind = SIM_MEM_MAPPED, .device = p->device, .object = p
	};

	if (!lay(at, p))
		return CUDA_ERROR_MAP_FAILED;
	if (sim_range_add(&range) < 0) {
		lift(at, bytes);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	p->mappings++;
	return CUDA_SUCCESS;
}

CUresult cuMemMap(CUdeviceptr at, size_t bytes, size_t offset, CUmemGenericAllocationHandle_v1 h,
		  unsigned long long flags)
{
	CUresult r = sim_ready();

	if (r)
		return r;
	if (!at || !bytes || offset || flags) /* an offset is reserved for later, as NVIDIA says */
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&lock);
	r = map(at, bytes, phys_of(h));
	pthread_mutex_unlock(&lock);
	return r;
}

/* Whole mappings that fill the range without a gap; NULL visits none. */
static bool each_mapping(CUdeviceptr at, size_t bytes, bool (*visit)(const struct sim_range *, void *),
			 void *arg)
{
	struct sim_range range;

	for (CUdeviceptr p = at; p < at + bytes; p = range.base + range.bytes) {
		if (!sim_range_find(p, &range) || range.kind != SIM_MEM_MAPPED || range.base != p ||
		    range.bytes > at + bytes - p)
			return false;
		if (visit && !visit(&range, arg))
			return false;
	}
	return true;
}

static bool unmap(const struct sim_range *range, void *unused)
{
	struct phys *p = range->object;

	(void)unused;
	lift(range->base, range->bytes);
	sim_range_remove(range->base, NULL);
	p->mappings--;
	drop(p);
	return true;
}

CUresult cuMemUnmap(CUdeviceptr at, size_t bytes)
{
	CUcontext ctx;
	CUresult r = sim_ready();

	if (r)
		return r;
	if (!at || !bytes)
		return CUDA_ERROR_INVALID_VALUE;
	if (!sim_driver.null && !sim_enter(&ctx))
		sim_context_sync(ctx); /* work in flight may use it */
	pthread_mutex_lock(&lock);
	bool ok = each_mapping(at, bytes, NULL, NULL) && each_mapping(at, bytes, unmap, NULL);

	pthread_mutex_unlock(&lock);
	return ok ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- access ---- */

static bool open_mapping(const struct sim_range *range, void *arg)
{
	const CUmemAccessDesc_v1 *desc = arg;
	int prot = desc->flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE ? PROT_READ | PROT_WRITE
		   : desc->flags == CU_MEM_ACCESS_FLAGS_PROT_READ    ? PROT_READ
								     : PROT_NONE;

	if (mprotect((void *)range->base, range->bytes, prot) < 0)
		return false;
	sim_range_set_flags(range->base, desc->flags);
	return true;
}

/* All devices see one mapping here: the last description that names one counts. */
CUresult cuMemSetAccess(CUdeviceptr at, size_t bytes, const CUmemAccessDesc_v1 *desc, size_t n)
{
	CUresult r = sim_ready();

	if (r)
		return r;
	if (!at || !bytes || !desc || !n)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < n; i++) {
		struct sim_device *d;

		if (desc[i].flags == 2 || desc[i].flags > CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
			return CUDA_ERROR_INVALID_VALUE;
		if (desc[i].location.type == CU_MEM_LOCATION_TYPE_DEVICE) {
			r = sim_device_get(desc[i].location.id, &d);
			if (r)
				return r;
		}
		CUmemAccessDesc_v1 one = desc[i];
		pthread_mutex_lock(&lock);
		bool ok = each_mapping(at, bytes, NULL, NULL) && each_mapping(at, bytes, open_mapping, &one);
		pthread_mutex_unlock(&lock);
		if (!ok)
			return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}

CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation_v1 *location, CUdeviceptr at)
{
	struct sim_range range;
	CUresult r = sim_ready();

	if (r)
		return r;
	if (!flags || !location || !sim_range_find(at, &range) || range.kind != SIM_MEM_MAPPED)
		return CUDA_ERROR_INVALID_VALUE;
	*flags = range.flags;
	return CUDA_SUCCESS;
}

/* ---- to other processes ---- */

CUresult cuMemExportToShareableHandle(void *ret, CUmemGenericAllocationHandle_v1 h,
				      CUmemAllocationHandleType type, unsigned long long flags)
{
	CUresult r = sim_ready();

	if (r)
		return r;
	if (!ret || flags || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&lock);
	struct phys *p = phys_of(h);
	int fd = p && p->fd >= 0 ? sim_dup(p->fd) : -1;

	pthread_mutex_unlock(&lock);
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	if (fd < 0)
		return p->fd >= 0 ? CUDA_ERROR_OPERATING_SYSTEM
				  : CUDA_ERROR_NOT_PERMITTED; /* it was not made to be exported */
	*(int *)ret = fd;
	return CUDA_SUCCESS;
}

/* The bytes are charged where they were made: an import is a reference. */
CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle_v1 *ret, void *handle,
					CUmemAllocationHandleType type)
{
	struct sim_share share;
	CUresult r = sim_ready();

	if (r)
		return r;
	if (!ret || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
		return CUDA_ERROR_INVALID_VALUE;

	int fd = (int)(intptr_t)handle;

	if (sim_share_read(fd, &share) < 0 || share.kind != SIM_SHARE_PHYSICAL ||
	    share.device >= sim_driver.devices)
		return CUDA_ERROR_INVALID_VALUE;
	fd = sim_dup(fd);
	struct phys *p = fd < 0 ? NULL : calloc(1, sizeof(*p));
	if (!p) {
		if (fd >= 0)
			close(fd);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*p = (struct phys){ .handles = 1,
			    .device = share.device < 0 ? NULL : &sim_driver.device[share.device],
			    .bytes = share.bytes,
			    .fd = fd };
	memcpy(&p->prop, share.prop, sizeof(p->prop));
	if (!enter(p)) {
		close(fd);
		free(p);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*ret = p->handle;
	return CUDA_SUCCESS;
}

/* ---- arrays ---- */

struct sim_mapped {
	struct phys *phys;
	CUarrayMapInfo_v1 info; /* the part of the array */
	struct sim_mapped *next;
};

CUresult sim_phys_map_array(struct sim_mapped **list, const CUarrayMapInfo_v1 *info)
{
	struct sim_mapped *m = malloc(sizeof(*m));
	struct phys *p;

	if (!m)
		return CUDA_ERROR_OUT_OF_MEMORY;
	pthread_mutex_lock(&lock);
	p = phys_of(info->memHandle.memHandle);
	if (p) {
		p->mappings++;
		*m = (struct sim_mapped){ p, *info, *list };
		*list = m;
	}
	pthread_mutex_unlock(&lock);
	if (!p)
		free(m);
	return p ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static bool same_part(const CUarrayMapInfo_v1 *a, const CUarrayMapInfo_v1 *b)
{
	if (a->subresourceType != b->subresourceType)
		return false;
	if (a->subresourceType == CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_MIPTAIL)
		return a->subresource.miptail.layer == b->subresource.miptail.layer &&
		       a->subresource.miptail.offset == b->subresource.miptail.offset;
	/* Numbers alone, without gaps between them. */
	return memcmp(&a->subresource.sparseLevel, &b->subresource.sparseLevel,
		      sizeof(a->subresource.sparseLevel)) == 0;
}

bool sim_phys_unmap_array(struct sim_mapped **list, const CUarrayMapInfo_v1 *info)
{
	bool any = false;

	pthread_mutex_lock(&lock);
	while (*list) {
		struct sim_mapped *m = *list;

		if (info && !same_part(&m->info, info)) {
			list = &m->next;
			continue;
		}
		*list = m->next;
		m->phys->mappings--;
		drop(m->phys);
		free(m);
		any = true;
	}
	pthread_mutex_unlock(&lock);
	return any;
}
