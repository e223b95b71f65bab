/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that graphs allocate. Each allocation node has its address from the start; pages are taken from
 * the device when a graph that has it is launched or uploaded, and stay with it until all that refers to it
 * has gone and the device's graph memory is trimmed.
 */
#include "simgpu/nvidia/cuda/graph.h"
#include "simgpu/nvidia/cuda/mem.h"

#include <stdlib.h>

struct sim_graph_block {
	struct sim_device *device;
	CUdeviceptr address;
	uint64_t first, pages; /* of the arena */
	uint64_t bytes; /* that were asked for */
	uint64_t id; /* by which the device knows its pages; 0 = none yet */
	uint32_t refs; /* nodes, and one while it is allocated */
	bool live; /* allocated and not freed */
	struct sim_graph_block *next; /* among those that only hold pages */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sim_graph_block *idle; /* nobody refers to them; their pages are the device's to use again */
static struct count {
	uint64_t used, used_high, reserved, reserved_high;
} counts[SIM_DEVICES];

static void more(uint64_t *v, uint64_t *high, uint64_t bytes)
{
	*v += bytes;
	if (*v > *high)
		*high = *v;
}

static uint64_t size(const struct sim_graph_block *b)
{
	return b->pages * SIM_PAGE_BYTES;
}

CUresult sim_graph_block_make(struct sim_device *d, size_t bytes, struct sim_graph_block **ret,
			      CUdeviceptr *ret_address)
{
	struct sim_graph_block *b = calloc(1, sizeof(*b));

	if (!b)
		return CUDA_ERROR_OUT_OF_MEMORY;
	b->device = d;
	b->bytes = bytes;
	b->pages = (bytes + SIM_PAGE_BYTES - 1) / SIM_PAGE_BYTES;
	b->refs = 1;
	if (!sim_arena_open() || !sim_arena_take(b->pages, &b->first)) {
		free(b);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	b->address = sim_arena.base + b->first * SIM_PAGE_BYTES;

	struct sim_range range = {
		.base = b->address, .bytes = bytes, .kind = SIM_MEM_GRAPH, .device = d, .object = b
	};

	if (sim_range_add(&range) < 0) {
		sim_arena_give(b->first, b->pages);
		free(b);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*ret = b;
	*ret_address = b->address;
	return CUDA_SUCCESS;
}

void sim_graph_block_ref(struct sim_graph_block *b)
{
	pthread_mutex_lock(&lock);
	b->refs++;
	pthread_mutex_unlock(&lock);
}

static void unref(struct sim_graph_block *b)
{
	if (--b->refs)
		return;
	sim_range_remove(b->address, NULL);
	sim_arena_give(b->first, b->pages);
	if (b->id) {
		b->next = idle;
		idle = b;
	} else {
		free(b);
	}
}

void sim_graph_block_unref(struct sim_graph_block *b)
{
	pthread_mutex_lock(&lock);
	unref(b);
	pthread_mutex_unlock(&lock);
}

/* Pages of an idle block of the same size, or new ones. */
static CUresult prepare(struct sim_graph_block *b)
{
	struct count *c = &counts[b->device->id];

	if (b->id)
		return CUDA_SUCCESS;
	for (struct sim_graph_block **at = &idle; *at; at = &(*at)->next) {
		struct sim_graph_block *i = *at;

		if (i->device != b->device || i->pages != b->pages)
			continue;
		b->id = i->id;
		*at = i->next;
		free(i);
		return CUDA_SUCCESS;
	}
	CUresult r = sim_memory_take(b->device, size(b), &b->id);
	if (r)
		b->id = 0;
	else
		more(&c->reserved, &c->reserved_high, size(b));
	return r;
}

CUresult sim_graph_block_prepare(struct sim_graph_block *b)
{
	pthread_mutex_lock(&lock);
	CUresult r = prepare(b);

	pthread_mutex_unlock(&lock);
	return r;
}

static void set_free(struct sim_graph_block *b)
{
	b->live = false;
	counts[b->device->id].used -= size(b);
	unref(b);
}

/* What the launch before left allocated is an error, unless it was to be freed by itself. */
CUresult sim_graph_block_launch(struct sim_graph_block *b, bool again)
{
	struct count *c = &counts[b->device->id];
	CUresult r = CUDA_SUCCESS;

	pthread_mutex_lock(&lock);
	if (b->live && again)
		set_free(b);
	else if (b->live)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		r = prepare(b);
	if (!r) {
		b->live = true;
		b->refs++;
		more(&c->used, &c->used_high, size(b));
	}
	pthread_mutex_unlock(&lock);
	return r;
}

bool sim_graph_block_is_live(const struct sim_graph_block *b)
{
	pthread_mutex_lock(&lock);
	bool live = b->live;

	pthread_mutex_unlock(&lock);
	return live;
}

bool sim_graph_block_is(CUdeviceptr p)
{
	struct sim_range range;

	return sim_range_find(p, &range) && range.kind == SIM_MEM_GRAPH && range.base == p;
}

bool sim_graph_block_free(CUdeviceptr p)
{
	struct sim_range range;

	pthread_mutex_lock(&lock);
	bool ok = sim_range_find(p, &range) && range.kind == SIM_MEM_GRAPH && range.base == p &&
		  ((struct sim_graph_block *)range.object)->live;

	if (ok)
		set_free(range.object);
	pthread_mutex_unlock(&lock);
	return ok;
}

/* ---- the device's ---- */

CUresult cuDeviceGraphMemTrim(CUdevice device)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	pthread_mutex_lock(&lock);
	for (struct sim_graph_block **at = &idle; *at;) {
		struct sim_graph_block *b = *at;

		if (b->device != d) {
			at = &b->next;
			continue;
		}
		*at = b->next;
		counts[d->id].reserved -= size(b);
		sim_memory_give(d, size(b), b->id);
		free(b);
	}
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetGraphMemAttribute(CUdevice device, CUgraphMem_attribute a, void *v)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (!v || a > CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&lock);
	const struct count *c = &counts[d->id];
	*(uint64_t *)v = a == CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT       ? c->used
			 : a == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH        ? c->used_high
			 : a == CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT ? c->reserved
								       : c->reserved_high;
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

CUresult cuDeviceSetGraphMemAttribute(CUdevice device, CUgraphMem_attribute a, void *v)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (!v || *(uint64_t *)v ||
	    (a != CU_GRAPH_MEM_ATTR_USED_MEM_HIGH && a != CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH))
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&lock);
	struct count *c = &counts[d->id];
	if (a == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH)
		c->used_high = c->used;
	else
		c->reserved_high = c->reserved;
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}
