/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device memory in server mode. A zone takes chunks of whole pages from the device (which refuses when
 * there are no more) and deals them out, first fit. A context's zone packs blocks of up to a megabyte into
 * 2 MiB pages and gives each larger one pages of its own, as NVIDIA's driver does; a pool's zone takes 32
 * MiB at a time and keeps them.
 */
#include "simgpu/nvidia/cuda/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PACKED_MAX 1048576ul /* above it a block has pages of its own */

struct gap {
	CUdeviceptr at;
	size_t bytes;
	struct gap *next; /* by address */
};

struct sim_chunk {
	uint64_t first, pages; /* of the arena */
	uint64_t id; /* by which the device knows it */
	bool apart;
	struct gap *gaps;
	size_t free_bytes;
	struct sim_chunk *next;
};

static pthread_mutex_t zones_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sim_zone *of_context[SIM_OWNER_POOL]; /* by slot */

void sim_zone_init(struct sim_zone *z, struct sim_device *d, size_t chunk_bytes, bool keeps)
{
	*z = (struct sim_zone){ .device = d, .chunk_bytes = chunk_bytes, .keeps = keeps };
	pthread_mutex_init(&z->lock, NULL);
}

static CUdeviceptr chunk_at(const struct sim_chunk *c)
{
	return sim_arena.base + c->first * SIM_PAGE_BYTES;
}

static int grow(struct sim_zone *z, size_t bytes, bool apart)
{
	struct sim_chunk *c = calloc(1, sizeof(*c));
	struct gap *g = calloc(1, sizeof(*g));
	int e = -ENOMEM;

	if (!c || !g || !sim_arena_open())
		goto fail;
	if (!apart && bytes < z->chunk_bytes)
		bytes = z->chunk_bytes;
	c->pages = (bytes + SIM_PAGE_BYTES - 1) / SIM_PAGE_BYTES;
	c->apart = apart;
	if (!sim_arena_take(c->pages, &c->first))
		goto fail;
	e = sim_mem_take(sim_driver.server, (unsigned)z->device->id, c->pages * SIM_PAGE_BYTES, &c->id);
	if (e < 0) {
		sim_arena_give(c->first, c->pages);
		goto fail;
	}
	c->free_bytes = c->pages * SIM_PAGE_BYTES;
	g->at = chunk_at(c);
	g->bytes = c->free_bytes;
	c->gaps = g;
	c->next = z->chunks;
	z->chunks = c;
	z->reserved_bytes += c->free_bytes;
	return 0;
fail:
	free(g);
	free(c);
	return e;
}

static void drop(struct sim_zone *z, struct sim_chunk **at)
{
	struct sim_chunk *c = *at;

	*at = c->next;
	z->reserved_bytes -= c->pages * SIM_PAGE_BYTES;
	sim_arena_give(c->first, c->pages);
	sim_mem_give(sim_driver.server, (unsigned)z->device->id, c->id);
	while (c->gaps) {
		struct gap *g = c->gaps;

		c->gaps = g->next;
		free(g);
	}
	free(c);
}

static bool take_from(struct sim_chunk *c, size_t bytes, CUdeviceptr *ret)
{
	for (struct gap **at = &c->gaps; *at; at = &(*at)->next) {
		struct gap *g = *at;

		if (g->bytes < bytes)
			continue;
		*ret = g->at;
		g->at += bytes;
		g->bytes -= bytes;
		c->free_bytes -= bytes;
		if (!g->bytes) {
			*at = g->next;
			free(g);
		}
		return true;
	}
	return false;
}

int sim_zone_take(struct sim_zone *z, size_t bytes, bool apart, bool may_grow, CUdeviceptr *ret)
{
	int e = -ENOMEM;

	bytes = (bytes + SIM_SMALL_BYTES - 1) & ~(SIM_SMALL_BYTES - 1);
	pthread_mutex_lock(&z->lock);
	for (struct sim_chunk *c = apart ? NULL : z->chunks; c && e; c = c->next)
		if (!c->apart && c->free_bytes >= bytes && take_from(c, bytes, ret))
			e = 0;
	if (e && may_grow) {
		e = grow(z, bytes, apart);
		if (!e && !take_from(z->chunks, bytes, ret))
			e = -ENOMEM;
	}
	if (!e)
		z->used_bytes += bytes;
	pthread_mutex_unlock(&z->lock);
	return e;
}

/* Puts a run back among the gaps and joins it with its neighbours. Without memory for a gap it stays taken. */
static void put_into(struct sim_chunk *c, CUdeviceptr p, size_t bytes)
{
	struct gap **at = &c->gaps, *before = NULL;

	while (*at && (*at)->at < p) {
		before = *at;
		at = &before->next;
	}
	struct gap *after = *at;
	if (before && before->at + before->bytes == p) {
		before->bytes += bytes;
		if (after && before->at + before->bytes == after->at) {
			before->bytes += after->bytes;
			before->next = after->next;
			free(after);
		}
	} else if (after && p + bytes == after->at) {
		after->at = p;
		after->bytes += bytes;
	} else {
		struct gap *g = calloc(1, sizeof(*g));

		if (!g)
			return;
		*g = (struct gap){ p, bytes, after };
		*at = g;
	}
	c->free_bytes += bytes;
}

void sim_zone_put(struct sim_zone *z, CUdeviceptr p, size_t bytes)
{
	uint64_t page = (p - sim_arena.base) / SIM_PAGE_BYTES;

	bytes = (bytes + SIM_SMALL_BYTES - 1) & ~(SIM_SMALL_BYTES - 1);
	pthread_mutex_lock(&z->lock);
	for (struct sim_chunk **at = &z->chunks; *at; at = &(*at)->next) {
		struct sim_chunk *c = *at;

		if (page < c->first || page >= c->first + c->pages)
			continue;
		put_into(c, p, bytes);
		z->used_bytes -= bytes;
		if (c->free_bytes == c->pages * SIM_PAGE_BYTES && !z->keeps)
			drop(z, at);
		break;
	}
	pthread_mutex_unlock(&z->lock);
}

void sim_zone_trim(struct sim_zone *z, uint64_t keep_bytes)
{
	pthread_mutex_lock(&z->lock);
	for (struct sim_chunk **at = &z->chunks; *at && z->reserved_bytes > keep_bytes;) {
		if ((*at)->free_bytes == (*at)->pages * SIM_PAGE_BYTES &&
		    z->reserved_bytes - (*at)->free_bytes >= keep_bytes)
			drop(z, at);
		else
			at = &(*at)->next;
	}
	pthread_mutex_unlock(&z->lock);
}

void sim_zone_finish(struct sim_zone *z)
{
	pthread_mutex_lock(&z->lock);
	while (z->chunks)
		drop(z, &z->chunks);
	pthread_mutex_unlock(&z->lock);
}

/* ---- a context's ---- */

static struct sim_zone *zone_of(CUcontext ctx)
{
	struct sim_zone *z;

	pthread_mutex_lock(&zones_lock);
	z = of_context[ctx->slot];
	if (!z) {
		z = malloc(sizeof(*z));
		if (z)
			sim_zone_init(z, ctx->device, SIM_PAGE_BYTES, false);
		of_context[ctx->slot] = z;
	}
	pthread_mutex_unlock(&zones_lock);
	return z;
}

CUresult sim_zone_context_alloc(CUcontext ctx, size_t bytes, enum sim_kind_of_memory kind, uint32_t flags,
				CUdeviceptr *ret)
{
	struct sim_zone *z = zone_of(ctx->root);
	CUdeviceptr p;

	if (!z || bytes > ctx->device->card.mem_bytes)
		return CUDA_ERROR_OUT_OF_MEMORY;

	int e = sim_zone_take(z, bytes, bytes > PACKED_MAX, true, &p);

	if (e)
		return sim_result(e);
	struct sim_range range = { .base = p,
				   .bytes = bytes,
				   .kind = kind,
				   .device = ctx->device,
				   .ctx = ctx->root,
				   .object = z,
				   .flags = flags };
	if (sim_range_add(&range) < 0) {
		sim_zone_put(z, p, bytes);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*ret = p;
	return CUDA_SUCCESS;
}

CUresult sim_zone_context_free(CUdeviceptr p)
{
	struct sim_range r;

	if (!sim_range_find(p, &r) || r.base != p ||
	    (r.kind != SIM_MEM_DEVICE && r.kind != SIM_MEM_MANAGED) || !sim_range_remove(p, &r))
		return CUDA_ERROR_INVALID_VALUE;
	sim_zone_put(r.object, p, r.bytes);
	return CUDA_SUCCESS;
}

void sim_zone_context_end(CUcontext ctx)
{
	struct sim_zone *z;

	pthread_mutex_lock(&zones_lock);
	z = of_context[ctx->slot];
	of_context[ctx->slot] = NULL;
	pthread_mutex_unlock(&zones_lock);
	if (!z)
		return;
	sim_zone_finish(z);
	pthread_mutex_destroy(&z->lock);
	free(z);
}
