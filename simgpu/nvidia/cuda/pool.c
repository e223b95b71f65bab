/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory pools: allocation in a stream's order. What is freed stays with the pool, and goes back to the
 * device when a synchronization finds more than the release threshold, or when the pool is trimmed.
 *
 * Server mode: a block that was freed is pending until the work before its free has ended; only then may
 * others have it, but the same stream at once. Null mode: a pool is two numbers.
 */
#include "simgpu/nvidia/cuda/mem.h"

#include <stdlib.h>

#define GROW_BYTES (32ul << 20)

struct sim_pending {
	CUdeviceptr p;
	size_t bytes;
	CUcontext ctx; /* whose the lane is */
	struct sim_lane *lane;
	uint64_t seq;
	struct sim_pending *next;
};

#define POOLS (SIM_OWNER_MAX - SIM_OWNER_POOL + 1)

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static CUmemoryPool by_slot[POOLS];
static uint32_t slots;
static CUmemoryPool all;

CUmemoryPool sim_pool_by_slot(uint32_t slot)
{
	return by_slot[slot - SIM_OWNER_POOL];
}

/* ---- life ---- */

static CUmemoryPool make(struct sim_device *d, const CUmemPoolProps *props)
{
	CUmemoryPool p = calloc(1, sizeof(*p));
	uint32_t slot = 0;

	if (!p)
		return NULL;
	pthread_mutex_lock(&all_lock);
	while (slot < slots && by_slot[slot])
		slot++;
	if (slot < POOLS) {
		by_slot[slot] = p;
		if (slot == slots)
			slots++;
		p->next = all;
		all = p;
	}
	pthread_mutex_unlock(&all_lock);
	if (slot == POOLS) {
		free(p);
		return NULL;
	}
	p->slot = slot + SIM_OWNER_POOL;
	p->device = d;
	p->location = (CUmemLocation){ CU_MEM_LOCATION_TYPE_DEVICE, d->id };
	p->handle_types = props ? props->handleTypes : 0;
	p->max_bytes = props && props->maxSize ? (props->maxSize + SIM_PAGE_BYTES - 1) & ~(SIM_PAGE_BYTES - 1)
					       : UINT64_MAX;
	p->reuse[0] = p->reuse[1] = p->reuse[2] = 1;
	p->access = 1u << d->id;
	pthread_mutex_init(&p->lock, NULL);
	sim_zone_init(&p->zone, d, GROW_BYTES, true);
	p->tag = SIM_TAG_POOL;
	return p;
}

static void unmake(CUmemoryPool p)
{
	p->tag = 0;
	pthread_mutex_lock(&all_lock);
	for (CUmemoryPool *at = &all; *at; at = &(*at)->next)
		if (*at == p) {
			*at = p->next;
			break;
		}
	by_slot[p->slot - SIM_OWNER_POOL] = NULL;
	pthread_mutex_unlock(&all_lock);
	if (sim_driver.null)
		atomic_fetch_sub(&p->device->used_bytes, p->reserved);
	else
		sim_zone_finish(&p->zone);
	while (p->pending) {
		struct sim_pending *f = p->pending;

		p->pending = f->next;
		free(f);
	}
	free(p);
}

CUmemoryPool sim_pool_standard(struct sim_device *d)
{
	pthread_mutex_lock(&d->lock);
	if (!d->standard) {
		d->standard = make(d, NULL);
		if (d->standard)
			d->standard->standard = true;
	}
	CUmemoryPool p = d->standard;
	pthread_mutex_unlock(&d->lock);
	return p;
}

CUmemoryPool sim_pool_graphs(struct sim_device *d)
{
	pthread_mutex_lock(&d->lock);
	if (!d->graphs) {
		d->graphs = make(d, NULL);
		if (d->graphs) {
			d->graphs->graphs = true;
			d->graphs->threshold = UINT64_MAX;
		}
	}
	CUmemoryPool p = d->graphs;
	pthread_mutex_unlock(&d->lock);
	return p;
}

CUmemoryPool sim_pool_current(struct sim_device *d)
{
	CUmemoryPool p = d->current;

	return p ? p : sim_pool_standard(d);
}

/* ---- counts ---- */

static void high(_Atomic uint64_t *mark, uint64_t v)
{
	uint64_t was = *mark;

	while (was < v && !atomic_compare_exchange_weak(mark, &was, v))
		;
}

static void used(CUmemoryPool p, uint64_t bytes)
{
	uint64_t now = atomic_fetch_add(&p->used, bytes) + bytes;

	if (now > p->used_high)
		high(&p->used_high, now);
}

static void reserved(CUmemoryPool p, uint64_t bytes)
{
	p->reserved = bytes;
	if (bytes > p->reserved_high)
		high(&p->reserved_high, bytes);
	if (bytes > p->threshold)
		p->device->keeps = true;
}

/* ---- null mode ---- */

/* Room for what is in use: as much as the pool usually takes at once, or as little as is needed. */
static bool null_reserve(CUmemoryPool p)
{
	bool ok = true;

	pthread_mutex_lock(&p->lock);
	while (p->used > p->reserved && ok) {
		uint64_t need = p->used - p->reserved;
		uint64_t much = (need + GROW_BYTES - 1) & ~(GROW_BYTES - 1);
		uint64_t little = (need + SIM_PAGE_BYTES - 1) & ~(SIM_PAGE_BYTES - 1);

		if (p->reserved + little > p->max_bytes)
			ok = false;
		else if (p->reserved + much <= p->max_bytes && sim_null_charge(p->device, much))
			reserved(p, p->reserved + much);
		else if (sim_null_charge(p->device, little))
			reserved(p, p->reserved + little);
		else
			ok = false;
	}
	pthread_mutex_unlock(&p->lock);
	return ok;
}

static CUresult null_alloc(CUmemoryPool p, size_t bytes, CUdeviceptr *ret)
{
	uint64_t units = (bytes + SIM_SMALL_BYTES - 1) / SIM_SMALL_BYTES;

	if (bytes > p->device->card.mem_bytes)
		return CUDA_ERROR_OUT_OF_MEMORY;
	used(p, units * SIM_SMALL_BYTES);
	if ((SIM_LIKELY(p->used <= p->reserved) || null_reserve(p)) && sim_null_take(p->slot, units, ret))
		return CUDA_SUCCESS;
	atomic_fetch_sub(&p->used, units * SIM_SMALL_BYTES);
	return CUDA_ERROR_OUT_OF_MEMORY;
}

/* ---- server mode; the pool's lock is held ---- */

static void reap(CUmemoryPool p)
{
	for (struct sim_pending **at = &p->pending; *at;) {
		struct sim_pending *f = *at;

		if (f->seq > sim_done(f->lane->channel)) {
			at = &f->next;
			continue;
		}
		*at = f->next;
		sim_zone_put(&p->zone, f->p, f->bytes);
		free(f);
	}
}

/* A pending block of that lane, or of any; what is left over of it stays pending. */
static bool take_pending(CUmemoryPool p, struct sim_lane *lane, size_t bytes, CUdeviceptr *ret,
			 struct sim_lane **ret_lane, uint64_t *ret_seq)
{
	for (struct sim_pending **at = &p->pending; *at; at = &(*at)->next) {
		struct sim_pending *f = *at;

		if ((lane && f->lane != lane) || f->bytes < bytes)
			continue;
		*ret = f->p;
		*ret_lane = f->lane;
		*ret_seq = f->seq;
		f->p += bytes;
		f->bytes -= bytes;
		if (!f->bytes) {
			*at = f->next;
			free(f);
		}
		return true;
	}
	return false;
}

static CUresult server_alloc(CUmemoryPool p, CUstream s, size_t bytes, CUdeviceptr *ret)
{
	struct sim_lane *lane = NULL;
	uint64_t seq = 0;
	bool ok;

	bytes = (bytes + SIM_SMALL_BYTES - 1) & ~(SIM_SMALL_BYTES - 1);
	pthread_mutex_lock(&p->lock);
	reap(p);
	ok = !sim_zone_take(&p->zone, bytes, false, false, ret) ||
	     (s && take_pending(p, s->lane, bytes, ret, &lane, &seq));
	lane = NULL; /* its own lane is in order anyhow */
	if (!ok && p->zone.reserved_bytes + bytes <= p->max_bytes)
		ok = !sim_zone_take(&p->zone, bytes, false, true, ret) ||
		     !sim_zone_take(&p->zone, bytes, true, true, ret);
	if (!ok && s)
		ok = take_pending(p, NULL, bytes, ret, &lane, &seq);
	reserved(p, p->zone.reserved_bytes);
	pthread_mutex_unlock(&p->lock);
	if (!ok)
		return CUDA_ERROR_OUT_OF_MEMORY;
	used(p, bytes);
	if (lane && lane != s->lane) {
		struct sim_cmd wait = { .kind = SIM_WAIT_SEQ, .wait_seq = { lane->channel, seq } };

		return sim_push(s, &wait, NULL, 0, NULL);
	}
	return CUDA_SUCCESS;
}

static CUresult server_free(CUmemoryPool p, CUstream s, CUdeviceptr at, size_t bytes)
{
	struct sim_pending *f = malloc(sizeof(*f));
	struct sim_cmd mark = { .kind = SIM_NOP };

	if (!f)
		return CUDA_ERROR_OUT_OF_MEMORY;
	bytes = (bytes + SIM_SMALL_BYTES - 1) & ~(SIM_SMALL_BYTES - 1);
	*f = (struct sim_pending){ .p = at, .bytes = bytes, .ctx = s->ctx, .lane = s->lane };

	CUresult r = sim_push(s, &mark, NULL, 0, &f->seq);

	if (r) {
		free(f);
		return r;
	}
	pthread_mutex_lock(&p->lock);
	f->next = p->pending;
	p->pending = f;
	atomic_fetch_sub(&p->used, bytes);
	reap(p);
	pthread_mutex_unlock(&p->lock);
	return CUDA_SUCCESS;
}

/* ---- both ---- */

CUresult sim_pool_alloc(CUmemoryPool p, CUstream s, size_t bytes, CUdeviceptr *ret)
{
	CUdeviceptr at;
	CUresult r;

	if (sim_driver.null)
		return null_alloc(p, bytes, ret);
	if (bytes > p->device->card.mem_bytes)
		return CUDA_ERROR_OUT_OF_MEMORY;
	r = server_alloc(p, s, bytes, &at);
	if (r)
		return r;
	struct sim_range range = {
		.base = at, .bytes = bytes, .kind = SIM_MEM_POOL, .device = p->device, .object = p
	};
	if (sim_range_add(&range) < 0) {
		server_free(p, s, at, bytes);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*ret = at;
	return CUDA_SUCCESS;
}

/* Once it is destroyed and empty it goes. */
static void freed(CUmemoryPool p)
{
	if (SIM_UNLIKELY(p->dead) && p->used == 0)
		unmake(p);
}

CUresult sim_pool_free(CUstream s, CUdeviceptr at)
{
	struct sim_range range;
	CUmemoryPool p;
	uint32_t owner;
	uint64_t bytes;
	CUresult r;

	if (sim_driver.null) {
		if (!sim_null_put(at, SIM_OWNER_POOL, SIM_OWNER_MAX, &owner, &bytes))
			return CUDA_ERROR_INVALID_VALUE;
		p = sim_pool_by_slot(owner);
		atomic_fetch_sub(&p->used, bytes);
		freed(p);
		return CUDA_SUCCESS;
	}
	if (!sim_range_find(at, &range) || range.base != at || range.kind != SIM_MEM_POOL ||
	    !sim_range_remove(at, &range))
		return CUDA_ERROR_INVALID_VALUE;
	p = range.object;
	r = server_free(p, s, at, range.bytes);
	if (!r)
		freed(p);
	return r;
}

void sim_pool_trim(CUmemoryPool p, uint64_t keep)
{
	pthread_mutex_lock(&p->lock);
	if (sim_driver.null) {
		uint64_t need = (p->used + SIM_PAGE_BYTES - 1) & ~(SIM_PAGE_BYTES - 1);
		uint64_t left = keep > need ? keep : need;

		if (left < p->reserved) {
			atomic_fetch_sub(&p->device->used_bytes, p->reserved - left);
			p->reserved = left;
		}
	} else {
		reap(p);
		sim_zone_trim(&p->zone, keep);
		p->reserved = p->zone.reserved_bytes;
	}
	pthread_mutex_unlock(&p->lock);
}

void sim_pools_settle(struct sim_device *d)
{
	d->keeps = false;
	pthread_mutex_lock(&all_lock);
	for (CUmemoryPool p = all; p; p = p->next) {
		if (p->device != d || p->reserved <= p->threshold)
			continue;
		sim_pool_trim(p, p->threshold);
		if (p->reserved > p->threshold)
			d->keeps = true;
	}
	pthread_mutex_unlock(&all_lock);
}

void sim_pools_context_end(CUcontext ctx)
{
	pthread_mutex_lock(&all_lock);
	for (CUmemoryPool p = all; p; p = p->next) {
		pthread_mutex_lock(&p->lock);
		for (struct sim_pending **at = &p->pending; *at;) {
			struct sim_pending *f = *at;

			if (f->ctx != ctx) {
				at = &f->next;
				continue;
			}
			*at = f->next;
			sim_zone_put(&p->zone, f->p, f->bytes);
			free(f);
		}
		pthread_mutex_unlock(&p->lock);
	}
	pthread_mutex_unlock(&all_lock);
}

CUresult sim_pool_create(struct sim_device *d, const CUmemPoolProps *props, CUmemoryPool *ret)
{
	CUmemoryPool p = make(d, props);

	if (!p)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*ret = p;
	return CUDA_SUCCESS;
}

void sim_pool_destroy(CUmemoryPool p)
{
	struct sim_device *d = p->device;

	pthread_mutex_lock(&d->lock);
	if (d->current == p)
		d->current = NULL;
	pthread_mutex_unlock(&d->lock);
	p->dead = true;
	freed(p);
}
