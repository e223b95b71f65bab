/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain device memory and what every kind of it has in common: charges that end with a handle, or with their context.
 *
 * The map of handles decides who gives a charge back: whoever takes the record out of it. A context that ends takes with it what
 * the application has not freed; its records are found by its list.
 */
#include "shim/cuda/memory.h"

#include "base/auto.h"

#include <errno.h>
#include <stdlib.h>

struct pen_map pen_cu_blocks;
static struct pen_map owners;

/* ---- owners -------------------------------------------------------------------------------------------------------- */

static struct pen_cu_owner *owner_new(CUcontext id)
{
	static struct pen_forklock making = PEN_FORKLOCK_INIT;
	struct pen_cu_owner *o = calloc(1, sizeof(*o));
	if (!o)
		return NULL;
	o->id = id;
	pen_forklock_take(&making);
	struct pen_cu_owner *there = pen_map_find(&owners, id);
	bool failed = !there && pen_map_put(&owners, id, o) < 0;
	pen_forklock_give(&making);
	if (!there && !failed)
		return o;
	free(o);
	return there;
}

struct pen_cu_owner *pen_cu_owner_current(void)
{
	CUcontext id = NULL;
	if (!REAL(cuCtxGetCurrent) || REAL(cuCtxGetCurrent)(&id) != CUDA_SUCCESS || !id)
		return NULL;
	struct pen_cu_owner *o = pen_map_find(&owners, id);
	return o ? o : owner_new(id);
}

static void link_block(struct pen_cu_block *b)
{
	static _Atomic uint64_t numbers;
	struct pen_cu_owner *o = b->owner;
	if (!o)
		return;
	b->number = atomic_fetch_add_explicit(&numbers, 1, memory_order_relaxed);
	pen_forklock_take(&o->lock);
	b->next = o->blocks;
	b->link = &o->blocks;
	if (b->next)
		b->next->link = &b->next;
	o->blocks = b;
	pen_forklock_give(&o->lock);
}

static void unlink_block(struct pen_cu_block *b)
{
	struct pen_cu_owner *o = b->owner;
	if (!o)
		return;
	pen_forklock_take(&o->lock);
	*b->link = b->next;
	if (b->next)
		b->next->link = b->link;
	pen_forklock_give(&o->lock);
}

/* ---- blocks -------------------------------------------------------------------------------------------------------- */

int pen_cu_charge(struct pen_cu_device *d, uint64_t bytes)
{
	struct pen_gate *g = pen_cu_gate(d);
	return g ? pen_gate_mem_reserve(g, bytes) : -ENOMEM;
}

struct pen_cu_block *pen_cu_block_new(uint64_t bytes, CUresult *ret)
{
	*ret = CUDA_SUCCESS;
	struct pen_cu_owner *o = pen_cu_owner_current();
	struct pen_cu_device *d = o ? pen_cu_device_current() : NULL;
	if (!d)
		return NULL;   /* no context: the driver says so */
	*ret = CUDA_ERROR_OUT_OF_MEMORY;
	struct pen_cu_block *b = calloc(1, sizeof(*b));
	if (!b)
		return NULL;
	b->device = d;
	b->bytes = bytes;
	b->owner = o;
	b->process = pen_forklock_process();
	if (pen_cu_charge(d, bytes) < 0) {
		free(b);
		return NULL;
	}
	*ret = CUDA_SUCCESS;
	return b;
}

/* The bytes become @bytes. */
static bool settle(struct pen_cu_block *b, uint64_t bytes)
{
	struct pen_gate *g = b->device->gate;
	if (bytes > b->bytes) {
		if (pen_cu_charge(b->device, bytes - b->bytes) < 0)
			return false;
		pen_gate_mem_refund(g, 0, false);   /* one object, reserved twice */
	} else if (bytes < b->bytes) {
		pen_gate_mem_refund(g, b->bytes - bytes, true);
	}
	b->bytes = bytes;
	return true;
}

bool pen_cu_block_keep(struct pen_cu_block *b, uint64_t bytes, struct pen_map *map, const void *key)
{
	if (!settle(b, bytes))
		return false;
	b->map = map;
	b->key = key;
	/* Into the list first: what is found by its handle may be freed at once. */
	link_block(b);
	if (pen_map_put(map, key, b) == 0)
		return true;
	unlink_block(b);
	return false;
}

static void give_back(struct pen_cu_block *b)
{
	if (b->process == pen_forklock_process())
		pen_gate_mem_release(b->device->gate, b->bytes);
	free(b);
}

void pen_cu_block_drop(struct pen_cu_block *b)
{
	if (!b)
		return;
	pen_gate_mem_refund(b->device->gate, b->bytes, false);
	free(b);
}

struct pen_cu_block *pen_cu_block_take(struct pen_map *map, const void *key)
{
	return pen_map_take(map, key);
}

CUresult pen_cu_block_ended(struct pen_cu_block *b, CUresult r)
{
	if (!b)
		return r;
	/* Not even memory for that: the charge stays with the context, too strict. */
	if (r != CUDA_SUCCESS) {
		pen_map_put(b->map, b->key, b);
		return r;
	}
	unlink_block(b);
	give_back(b);
	return r;
}

/* ---- the end of a context ------------------------------------------------------------------------------------------- */

#define ROUND 64

struct found {
	struct pen_cu_block *block;
	struct pen_map *map;
	const void *key;
	uint64_t number;
};

/* A block may be freed by another thread as soon as the lock is given: what is needed of it is copied. */
static unsigned look(struct pen_cu_owner *o, struct found *v, unsigned skip)
{
	unsigned n = 0;
	pen_forklock_take(&o->lock);
	for (struct pen_cu_block *b = o->blocks; b && n < ROUND; b = b->next) {
		if (skip) {
			skip--;
			continue;
		}
		v[n++] = (struct found){ b, b->map, b->key, b->number };
	}
	pen_forklock_give(&o->lock);
	return n;
}

/* True: it was still there and is given back. */
static bool end_found(const struct found *f)
{
	struct pen_cu_block *b = pen_map_take(f->map, f->key);
	if (!b)
		return false;   /* another thread frees it just now */
	if (b != f->block || b->number != f->number) {
		pen_map_put(f->map, f->key, b);   /* the address is in use again */
		return false;
	}
	unlink_block(b);
	give_back(b);
	return true;
}

void pen_cu_mem_context_gone(CUcontext ctx)
{
	struct pen_cu_owner *o = ctx ? pen_map_find(&owners, ctx) : NULL;
	struct found v[ROUND];
	unsigned skip = 0, n;
	while (o && (n = look(o, v, skip)) != 0) {
		for (unsigned i = 0; i < n; i++)
			skip += !end_found(&v[i]);
	}
}

/* ---- plain memory ---------------------------------------------------------------------------------------------------- */

CUresult pen_cuMemAlloc_v2(CUdeviceptr *dptr, size_t bytes)
{
	CUresult r;
	if (pen_cu_thread.depth || !dptr || !bytes)
		return REAL(cuMemAlloc_v2)(dptr, bytes);
	struct pen_cu_block *b = pen_cu_block_new(bytes, &r);
	if (r != CUDA_SUCCESS)
		return r;
	r = PEN_CU_INSIDE(REAL(cuMemAlloc_v2)(dptr, bytes));
	if (r == CUDA_SUCCESS && b) {
		if (pen_cu_block_keep(b, bytes, &pen_cu_blocks, pen_cu_key(*dptr)))
			return r;
		(void)PEN_CU_INSIDE(REAL(cuMemFree_v2)(*dptr));
		r = CUDA_ERROR_OUT_OF_MEMORY;
	}
	pen_cu_block_drop(b);
	return r;
}

CUresult pen_cuMemFree_v2(CUdeviceptr dptr)
{
	PEN_CU_NESTED(cuMemFree_v2, dptr);
	struct pen_cu_block *b = dptr ? pen_cu_block_take(&pen_cu_blocks, pen_cu_key(dptr)) : NULL;
	return pen_cu_block_ended(b, PEN_CU_INSIDE(REAL(cuMemFree_v2)(dptr)));
}
