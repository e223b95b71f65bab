/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Physical memory with handles of its own (cuMemCreate). It lives as long as something holds it: handles, mappings, multicast
 * objects that it is bound to, sparse arrays; so does its charge. Releasing the last handle while it is mapped frees nothing.
 *
 * What holds it is counted before a call that may add to it and after one that takes away, so that of two threads neither can
 * see it free while the other is just getting hold of it. An import is no charge: the exporter pays. What was exported lives for
 * as long as anybody anywhere holds the descriptor or an import of it, which no call tells: its charge ends with the process. It was
 * given back before, and a loop of create, export and release took a whole device so.
 * One lock for all of it, never held across a call of the driver: these calls are rare and slow.
 */
#include "shim/cuda/memory.h"

#include "base/auto.h"

#include <errno.h>
#include <stdlib.h>

struct pen_cu_physical {
	struct pen_cu_device *device;    /* NULL: not charged (an import, the host's memory, a multicast object) */
	uint64_t bytes;
	unsigned long long id;
	uint32_t process;
	uint32_t handles, uses;          /* uses: mappings, bindings, arrays */
	bool exported;
	bool idle;                       /* in the list of those that wait */
	struct pen_cu_physical *next;    /* of that list */
	struct binding *bindings;        /* of a multicast object: what is bound to it */
};

struct mapping {
	struct mapping *next;
	struct pen_cu_physical *mem;
	CUdeviceptr ptr;
	uint64_t bytes;
};

struct binding {
	struct binding *next;
	struct pen_cu_physical *mem;
	uint64_t offset, bytes;
};

static struct pen_forklock lock = PEN_FORKLOCK_INIT;   /* all of the following */
static struct pen_map handles;          /* handle -> pen_cu_physical */
static struct pen_map mappings;         /* address -> mapping */
static struct pen_cu_physical *idle;    /* held by nothing that we know, and not given back yet */
static uint32_t retaining;              /* threads inside cuMemRetainAllocationHandle */

/* ---- what holds it ---------------------------------------------------------------------------------------------------- */

static struct pen_cu_physical *find(unsigned long long id)
{
	return pen_map_find(&handles, pen_cu_key(id));
}

static bool may_go(const struct pen_cu_physical *m)
{
	return !m->handles && !m->uses && !m->exported && !retaining;
}

static void release(struct pen_cu_physical *m, struct pen_cu_physical **gone);

/* The multicast object goes: what was bound to it is not any more. */
static void unbind_all(struct pen_cu_physical *m, struct pen_cu_physical **gone)
{
	while (m->bindings) {
		struct binding *b = m->bindings;
		m->bindings = b->next;
		b->mem->uses--;
		release(b->mem, gone);
		free(b);
	}
}

/* Under the lock: if nothing holds it, it is put into @gone, whose bytes are given back without the lock. */
static void release(struct pen_cu_physical *m, struct pen_cu_physical **gone)
{
	if (m->handles || m->uses || m->idle)
		return;
	if (!may_go(m)) {
		m->idle = true;
		m->next = idle;
		idle = m;
		return;
	}
	if (find(m->id) == m)
		pen_map_take(&handles, pen_cu_key(m->id));
	m->next = *gone;
	*gone = m;
	unbind_all(m, gone);
}

/* What waited may be held again, or go. */
static void look_at_idle(struct pen_cu_physical **gone)
{
	struct pen_cu_physical *v = idle;
	idle = NULL;
	while (v) {
		struct pen_cu_physical *m = v;
		v = m->next;
		m->idle = false;
		release(m, gone);
	}
}

/* Gives the lock, and the bytes of what went. */
static void give_back(struct pen_cu_physical *gone)
{
	if (idle)
		look_at_idle(&gone);
	pen_forklock_give(&lock);
	while (gone) {
		struct pen_cu_physical *m = gone;
		gone = m->next;
		if (m->device && m->process == pen_forklock_process())
			pen_gate_mem_release(m->device->gate, m->bytes);
		free(m);
	}
}

struct pen_cu_physical *pen_cu_physical_use(unsigned long long id)
{
	pen_forklock_take(&lock);
	struct pen_cu_physical *m = find(id);
	if (m)
		m->uses++;
	pen_forklock_give(&lock);
	return m;
}

/* @handle: and one of its handles has gone. */
static void unuse(struct pen_cu_physical *m, bool handle)
{
	struct pen_cu_physical *gone = NULL;
	if (!m)
		return;
	pen_forklock_take(&lock);
	m->uses--;
	m->handles -= handle && m->handles;
	release(m, &gone);
	give_back(gone);
}

void pen_cu_physical_unuse(struct pen_cu_physical *m)
{
	unuse(m, false);
}

/* A handle that a call has given out: of new memory, or one more of what is known, perhaps. False: out of memory. */
static bool add_handle(unsigned long long id, struct pen_cu_physical *fresh, bool is_new)
{
	pen_forklock_take(&lock);
	struct pen_cu_physical *m = is_new ? NULL : find(id);
	if (m) {
		m->handles++;
	} else {
		fresh->id = id;
		fresh->handles = 1;
		if (pen_map_put(&handles, pen_cu_key(id), fresh) < 0) {
			pen_forklock_give(&lock);
			return false;
		}
	}
	pen_forklock_give(&lock);
	if (m)
		free(fresh);
	return true;
}

/* ---- handles ------------------------------------------------------------------------------------------------------------ */

static struct pen_cu_device *device_of(const CUmemAllocationProp_v1 *prop)
{
	if (prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE)
		return pen_cu_device(prop->location.id);
	/* The host's memory: it is the device's as well where there is no other. */
	struct pen_cu_device *d = pen_cu_device_current();
	return d && d->integrated ? d : NULL;
}

CUresult pen_cuMemCreate(CUmemGenericAllocationHandle_v1 *handle, size_t bytes, const CUmemAllocationProp_v1 *prop,
			 unsigned long long flags)
{
	if (pen_cu_thread.depth || !handle || !prop || !bytes)
		return REAL(cuMemCreate)(handle, bytes, prop, flags);
	struct pen_cu_device *d = device_of(prop);
	struct pen_cu_physical *m = calloc(1, sizeof(*m));
	if (!m || (d && pen_cu_charge(d, bytes) < 0)) {
		free(m);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	m->device = d;
	m->bytes = bytes;
	m->process = pen_forklock_process();
	CUresult r = PEN_CU_INSIDE(REAL(cuMemCreate)(handle, bytes, prop, flags));
	if (r == CUDA_SUCCESS && add_handle(*handle, m, true))
		return r;
	if (r == CUDA_SUCCESS) {
		(void)PEN_CU_INSIDE(REAL(cuMemRelease)(*handle));
		r = CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (d)
		pen_gate_mem_refund(d->gate, bytes, false);
	free(m);
	return r;
}

CUresult pen_cuMemRelease(CUmemGenericAllocationHandle_v1 handle)
{
	PEN_CU_NESTED(cuMemRelease, handle);
	/* A use of our own meanwhile: the handle's number may be another memory's as soon as the driver has it back. */
	struct pen_cu_physical *m = pen_cu_physical_use(handle);
	CUresult r = PEN_CU_INSIDE(REAL(cuMemRelease)(handle));
	unuse(m, r == CUDA_SUCCESS);
	return r;
}

CUresult pen_cuMemRetainAllocationHandle(CUmemGenericAllocationHandle_v1 *handle, void *address)
{
	PEN_CU_NESTED(cuMemRetainAllocationHandle, handle, address);
	struct pen_cu_physical *fresh = calloc(1, sizeof(*fresh));
	if (!fresh)
		return CUDA_ERROR_OUT_OF_MEMORY;
	pen_forklock_take(&lock);
	retaining++;
	pen_forklock_give(&lock);
	CUresult r = PEN_CU_INSIDE(REAL(cuMemRetainAllocationHandle)(handle, address));
	if (r != CUDA_SUCCESS) {
		free(fresh);
	} else if (!add_handle(*handle, fresh, false)) {
		(void)PEN_CU_INSIDE(REAL(cuMemRelease)(*handle));
		free(fresh);
		r = CUDA_ERROR_OUT_OF_MEMORY;
	}
	pen_forklock_take(&lock);
	retaining--;
	give_back(NULL);
	return r;
}

CUresult pen_cuMemExportToShareableHandle(void *shared, CUmemGenericAllocationHandle_v1 handle, CUmemAllocationHandleType type,
					  unsigned long long flags)
{
	PEN_CU_NESTED(cuMemExportToShareableHandle, shared, handle, type, flags);
	pen_forklock_take(&lock);
	struct pen_cu_physical *m = find(handle);
	if (m)
		m->exported = true;
	pen_forklock_give(&lock);
	return PEN_CU_INSIDE(REAL(cuMemExportToShareableHandle)(shared, handle, type, flags));
}

CUresult pen_cuMemImportFromShareableHandle(CUmemGenericAllocationHandle_v1 *handle, void *shared, CUmemAllocationHandleType type)
{
	PEN_CU_NESTED(cuMemImportFromShareableHandle, handle, shared, type);
	struct pen_cu_physical *fresh = calloc(1, sizeof(*fresh));
	if (!fresh)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult r = PEN_CU_INSIDE(REAL(cuMemImportFromShareableHandle)(handle, shared, type));
	if (r != CUDA_SUCCESS) {
		free(fresh);
	} else if (!add_handle(*handle, fresh, false)) {
		(void)PEN_CU_INSIDE(REAL(cuMemRelease)(*handle));
		free(fresh);
		r = CUDA_ERROR_OUT_OF_MEMORY;
	}
	return r;
}

/* ---- mappings ----------------------------------------------------------------------------------------------------------- */

CUresult pen_cuMemMap(CUdeviceptr ptr, size_t bytes, size_t offset, CUmemGenericAllocationHandle_v1 handle, unsigned long long flags)
{
	PEN_CU_NESTED(cuMemMap, ptr, bytes, offset, handle, flags);
	struct mapping *map = calloc(1, sizeof(*map));
	if (!map)
		return CUDA_ERROR_OUT_OF_MEMORY;
	map->ptr = ptr;
	map->bytes = bytes;
	map->mem = pen_cu_physical_use(handle);
	CUresult r = PEN_CU_INSIDE(REAL(cuMemMap)(ptr, bytes, offset, handle, flags));
	if (r == CUDA_SUCCESS && pen_map_put(&mappings, pen_cu_key(ptr), map) == 0)
		return r;
	if (r == CUDA_SUCCESS) {
		(void)PEN_CU_INSIDE(REAL(cuMemUnmap)(ptr, bytes));
		r = CUDA_ERROR_OUT_OF_MEMORY;
	}
	pen_cu_physical_unuse(map->mem);
	free(map);
	return r;
}

/* A range of whole mappings. Taken out before the call: afterwards another thread may map there. */
CUresult pen_cuMemUnmap(CUdeviceptr ptr, size_t bytes)
{
	PEN_CU_NESTED(cuMemUnmap, ptr, bytes);
	struct mapping *list = NULL, *map;
	for (CUdeviceptr at = ptr; at >= ptr && at - ptr < bytes; at += map->bytes) {
		map = pen_map_take(&mappings, pen_cu_key(at));
		if (!map)
			break;
		map->next = list;
		list = map;
	}
	CUresult r = PEN_CU_INSIDE(REAL(cuMemUnmap)(ptr, bytes));
	while (list) {
		map = list;
		list = map->next;
		if (r != CUDA_SUCCESS) {
			pen_map_put(&mappings, pen_cu_key(map->ptr), map);
			continue;
		}
		pen_cu_physical_unuse(map->mem);
		free(map);
	}
	return r;
}

/* ---- multicast ------------------------------------------------------------------------------------------------------------ */

CUresult pen_cuMulticastCreate(CUmemGenericAllocationHandle *handle, const CUmulticastObjectProp *prop)
{
	PEN_CU_NESTED(cuMulticastCreate, handle, prop);
	struct pen_cu_physical *fresh = calloc(1, sizeof(*fresh));
	if (!fresh)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult r = PEN_CU_INSIDE(REAL(cuMulticastCreate)(handle, prop));
	if (r == CUDA_SUCCESS && add_handle(*handle, fresh, true))
		return r;
	if (r == CUDA_SUCCESS) {
		(void)PEN_CU_INSIDE(REAL(cuMemRelease)(*handle));
		r = CUDA_ERROR_OUT_OF_MEMORY;
	}
	free(fresh);
	return r;
}

/* @mem, already in use, is bound to @object if the driver has done so. */
static CUresult bound(CUmemGenericAllocationHandle object, uint64_t offset, uint64_t bytes, struct pen_cu_physical *mem,
		      struct binding *b, CUresult r)
{
	if (r == CUDA_SUCCESS && mem && b) {
		pen_forklock_take(&lock);
		struct pen_cu_physical *o = find(object);
		if (o) {
			*b = (struct binding){ .next = o->bindings, .mem = mem, .offset = offset, .bytes = bytes };
			o->bindings = b;
		}
		pen_forklock_give(&lock);
		if (o)
			return r;
	}
	free(b);
	pen_cu_physical_unuse(mem);
	return r;
}

CUresult pen_cuMulticastBindMem(CUmemGenericAllocationHandle object, size_t offset, CUmemGenericAllocationHandle handle,
				size_t mem_offset, size_t bytes, unsigned long long flags)
{
	PEN_CU_NESTED(cuMulticastBindMem, object, offset, handle, mem_offset, bytes, flags);
	struct binding *b = calloc(1, sizeof(*b));
	if (!b)
		return CUDA_ERROR_OUT_OF_MEMORY;
	struct pen_cu_physical *mem = pen_cu_physical_use(handle);
	return bound(object, offset, bytes, mem, b,
		     PEN_CU_INSIDE(REAL(cuMulticastBindMem)(object, offset, handle, mem_offset, bytes, flags)));
}

/* The memory behind an address, with a use of it. */
static struct pen_cu_physical *use_behind(CUdeviceptr ptr)
{
	unsigned long long handle = 0;
	if (!REAL(cuMemRetainAllocationHandle) ||
	    PEN_CU_INSIDE(REAL(cuMemRetainAllocationHandle)(&handle, (void *)(uintptr_t)ptr)) != CUDA_SUCCESS)
		return NULL;
	struct pen_cu_physical *m = pen_cu_physical_use(handle);
	(void)PEN_CU_INSIDE(REAL(cuMemRelease)(handle));
	return m;
}

CUresult pen_cuMulticastBindAddr(CUmemGenericAllocationHandle object, size_t offset, CUdeviceptr ptr, size_t bytes,
				 unsigned long long flags)
{
	PEN_CU_NESTED(cuMulticastBindAddr, object, offset, ptr, bytes, flags);
	struct binding *b = calloc(1, sizeof(*b));
	if (!b)
		return CUDA_ERROR_OUT_OF_MEMORY;
	struct pen_cu_physical *mem = use_behind(ptr);
	return bound(object, offset, bytes, mem, b, PEN_CU_INSIDE(REAL(cuMulticastBindAddr)(object, offset, ptr, bytes, flags)));
}

CUresult pen_cuMulticastUnbind(CUmemGenericAllocationHandle object, CUdevice id, size_t offset, size_t bytes)
{
	PEN_CU_NESTED(cuMulticastUnbind, object, id, offset, bytes);
	CUresult r = PEN_CU_INSIDE(REAL(cuMulticastUnbind)(object, id, offset, bytes));
	struct pen_cu_physical *gone = NULL;
	if (r != CUDA_SUCCESS)
		return r;
	pen_forklock_take(&lock);
	struct pen_cu_physical *o = find(object);
	struct binding **at = o ? &o->bindings : NULL;
	while (at && *at) {
		struct binding *b = *at;
		bool meant = b->offset >= offset && b->offset - offset < bytes && (!b->mem->device || b->mem->device->id == id);
		if (!meant) {
			at = &b->next;
			continue;
		}
		*at = b->next;
		b->mem->uses--;
		release(b->mem, &gone);
		free(b);
	}
	give_back(gone);
	return r;
}
