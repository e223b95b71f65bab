/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device memory of a context. Server mode: zone.c, which takes pages from the device. Here is the zero-cost
 * mode's: blocks of about a hundred sizes out of the arena, and a few of each size at hand in every thread,
 * so that a pair of alloc and free is two additions to the device's count and a push and a pop.
 *
 * The count is of bytes, rounded up to SIM_SMALL_BYTES; which addresses lie in one page has no meaning in
 * this mode.
 */
#include "simgpu/nvidia/cuda/drv.h"
#include "simgpu/nvidia/cuda/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SIZES 112u /* four steps to each power of two, from 1 to 2^29 units */
#define AT_HAND 32u /* blocks of one size in a thread */
#define UNITS_PER_PAGE (SIM_PAGE_BYTES / SIM_SMALL_BYTES)

/* What is known of a block, in a word per unit of the arena: of the block's first unit; 0 = not allocated. */
#define LIVE (UINT64_C(1) << 63)
#define MARKED (UINT64_C(1) << 62) /* ranges.c knows more of it */
#define WORD(units, size, slot) (LIVE | (uint64_t)(slot) << 40 | (uint64_t)(size) << 32 | (units))
#define WORD_UNITS(w) ((w)&0xffffffffu)
#define WORD_SIZE(w) ((w) >> 32 & 0xff)
#define WORD_SLOT(w) ((uint32_t)((w) >> 40 & 0xffff))

struct stack {
	uint32_t n, room;
	CUdeviceptr *block;
};

struct sim_cache {
	struct {
		uint32_t n;
		CUdeviceptr block[AT_HAND];
	} size[SIZES];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of shared and of carving */
static struct stack shared[SIZES];
/* Relaxed: a word is changed by who has the block, and others only pass by when they look through all of them. */
static _Atomic uint64_t *word;
/*
 * Per page of the arena, what begins there or covers it: size + 1 of small blocks; BIG + number of the
 * first page of a big one.
 */
#define BIG 0x80000000u
static _Atomic uint32_t *page;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint32_t size_of(uint64_t units)
{
	if (units <= 4)
		return (uint32_t)units - 1;

	uint64_t m = units - 1;
	uint32_t e = 63 - (uint32_t)__builtin_clzll(m);

	return 4 * (e - 1) + (uint32_t)(m >> (e - 2) & 3);
}

static uint64_t units_of(uint32_t size)
{
	return size < 4 ? size + 1 : (uint64_t)(5 + size % 4) << (size / 4 - 1);
}

static _Atomic uint64_t *word_of(CUdeviceptr p)
{
	uint64_t at = p - sim_arena.base;

	return SIM_LIKELY(word && at < sim_arena.pages * SIM_PAGE_BYTES) ? &word[at / SIM_SMALL_BYTES] : NULL;
}

static uint64_t get(const _Atomic uint64_t *at)
{
	return atomic_load_explicit(at, memory_order_relaxed);
}

static void set(_Atomic uint64_t *at, uint64_t v)
{
	atomic_store_explicit(at, v, memory_order_relaxed);
}

static uint32_t page_at(uint64_t i)
{
	return atomic_load_explicit(&page[i], memory_order_relaxed);
}

static void *sparse(size_t bytes)
{
	void *p =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	(void)madvise(p, bytes, MADV_DONTDUMP);
	return p;
}

static void open_once(void)
{
	if (!sim_arena_open())
		return;
	page = sparse(sim_arena.pages * sizeof(*page));
	word = sparse(sim_arena.pages * UNITS_PER_PAGE * sizeof(*word));
}

/* New blocks of a size for the stack: a page of small ones, or one big one. Caller holds the lock. */
static bool carve(uint32_t size)
{
	struct stack *s = &shared[size];
	uint64_t units = units_of(size), pages = (units + UNITS_PER_PAGE - 1) / UNITS_PER_PAGE;
	uint32_t n = units < UNITS_PER_PAGE ? (uint32_t)(UNITS_PER_PAGE / units) : 1;
	uint64_t at;

	if (s->n + n > s->room) {
		CUdeviceptr *more = realloc(s->block, (s->n + n) * 2 * sizeof(*more));

		if (!more)
			return false;
		s->block = more;
		s->room = (s->n + n) * 2;
	}
	if (!sim_arena_take(pages, &at))
		return false;
	for (uint64_t i = 0; i < pages; i++)
		atomic_store_explicit(&page[at + i], units < UNITS_PER_PAGE ? size + 1 : BIG | (uint32_t)at,
				      memory_order_relaxed);
	for (uint32_t i = n; i-- > 0;)
		s->block[s->n++] = sim_arena.base + at * SIM_PAGE_BYTES + i * units * SIM_SMALL_BYTES;
	return true;
}

/* Some blocks of a size for this thread; false: there is no room for any. */
static bool refill(struct sim_cache *c, uint32_t size)
{
	pthread_mutex_lock(&lock);
	struct stack *s = &shared[size];
	bool some = s->n > 0 || carve(size);

	while (some && s->n && c->size[size].n < AT_HAND / 2)
		c->size[size].block[c->size[size].n++] = s->block[--s->n];
	pthread_mutex_unlock(&lock);
	return some;
}

static void give_back(struct sim_cache *c, uint32_t size, uint32_t n)
{
	pthread_mutex_lock(&lock);
	struct stack *s = &shared[size];

	if (s->n + n > s->room) {
		CUdeviceptr *more = realloc(s->block, (s->n + n) * 2 * sizeof(*more));

		if (more) {
			s->block = more;
			s->room = (s->n + n) * 2;
		}
	}
	/* Without memory for the list addresses are lost: there are plenty. */
	for (; n > 0; n--) {
		CUdeviceptr p = c->size[size].block[--c->size[size].n];

		if (s->n < s->room)
			s->block[s->n++] = p;
	}
	pthread_mutex_unlock(&lock);
}

static struct sim_cache *cache(void)
{
	if (SIM_LIKELY(sim_self.cache != NULL))
		return sim_self.cache;
	pthread_once(&once, open_once);
	if (!word || !page)
		return NULL;
	sim_thread_register();
	return sim_self.cache = calloc(1, sizeof(struct sim_cache));
}

void sim_heap_thread_end(void)
{
	struct sim_cache *c = sim_self.cache;

	for (uint32_t i = 0; c && i < SIZES; i++)
		if (c->size[i].n)
			give_back(c, i, c->size[i].n);
	free(c);
	sim_self.cache = NULL;
}

bool sim_null_take(uint32_t owner, uint64_t units, CUdeviceptr *ret)
{
	struct sim_cache *c = cache();
	uint32_t size = size_of(units);

	if (SIM_UNLIKELY(!c || (!c->size[size].n && !refill(c, size))))
		return false;
	CUdeviceptr p = c->size[size].block[--c->size[size].n];

	set(&word[(p - sim_arena.base) / SIM_SMALL_BYTES], WORD(units, size, owner));
	*ret = p;
	return true;
}

bool sim_null_charge(struct sim_device *d, uint64_t bytes)
{
	if (SIM_LIKELY(atomic_fetch_add(&d->used_bytes, bytes) + bytes <= d->card.mem_bytes))
		return true;
	atomic_fetch_sub(&d->used_bytes, bytes);
	return false;
}

CUresult sim_heap_alloc(CUcontext ctx, size_t bytes, CUdeviceptr *ret)
{
	if (!sim_driver.null)
		return sim_zone_context_alloc(ctx, bytes, SIM_MEM_DEVICE, 0, ret);

	struct sim_device *d = ctx->device;
	uint64_t units = (bytes + SIM_SMALL_BYTES - 1) / SIM_SMALL_BYTES;

	if (SIM_UNLIKELY(bytes > d->card.mem_bytes || !sim_null_charge(d, units * SIM_SMALL_BYTES)))
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (SIM_LIKELY(sim_null_take(ctx->root->slot, units, ret)))
		return CUDA_SUCCESS;
	atomic_fetch_sub(&d->used_bytes, units * SIM_SMALL_BYTES);
	return CUDA_ERROR_OUT_OF_MEMORY;
}

/* One that is more than device memory: ranges.c has an entry for it, which goes with it. */
CUresult sim_heap_alloc_as(CUcontext ctx, size_t bytes, enum sim_kind_of_memory kind, uint32_t flags,
			   CUdeviceptr *ret)
{
	CUdeviceptr p;
	CUresult r;

	if (!sim_driver.null)
		return sim_zone_context_alloc(ctx, bytes, kind, flags, ret);
	r = sim_heap_alloc(ctx, bytes, &p);
	if (r)
		return r;
	struct sim_range range = { .base = p,
				   .bytes = bytes,
				   .kind = kind,
				   .device = ctx->device,
				   .ctx = ctx->root,
				   .flags = flags };
	if (sim_range_add(&range) < 0) {
		sim_heap_free(p);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	set(word_of(p), get(word_of(p)) | MARKED);
	*ret = p;
	return CUDA_SUCCESS;
}

bool sim_null_put(CUdeviceptr p, uint32_t owner_from, uint32_t owner_to, uint32_t *ret_owner,
		  uint64_t *ret_bytes)
{
	_Atomic uint64_t *at = word_of(p);
	uint64_t w = at && p % SIM_SMALL_BYTES == 0 ? get(at) : 0;
	struct sim_cache *c = cache();

	if (SIM_UNLIKELY(!w || !c || WORD_SLOT(w) < owner_from || WORD_SLOT(w) > owner_to))
		return false;
	set(at, 0);
	if (SIM_UNLIKELY(w & MARKED))
		sim_range_remove(p, NULL);
	*ret_owner = WORD_SLOT(w);
	*ret_bytes = WORD_UNITS(w) * SIM_SMALL_BYTES;

	uint32_t size = (uint32_t)WORD_SIZE(w);

	if (SIM_UNLIKELY(c->size[size].n == AT_HAND))
		give_back(c, size, AT_HAND / 2);
	c->size[size].block[c->size[size].n++] = p;
	return true;
}

CUresult sim_heap_free(CUdeviceptr p)
{
	uint32_t owner;
	uint64_t bytes;

	if (!sim_driver.null)
		return sim_zone_context_free(p);
	if (SIM_UNLIKELY(!sim_null_put(p, 1, SIM_OWNER_POOL - 1, &owner, &bytes)))
		return CUDA_ERROR_INVALID_VALUE;
	atomic_fetch_sub(&sim_context_by_slot(owner)->device->used_bytes, bytes);
	return CUDA_SUCCESS;
}

bool sim_heap_contains(CUdeviceptr p)
{
	return p - sim_arena.base < sim_arena.pages * SIM_PAGE_BYTES;
}

bool sim_heap_find(CUdeviceptr p, struct sim_range *ret)
{
	uint64_t at = p - sim_arena.base, start;

	if (!word || at >= sim_arena.pages * SIM_PAGE_BYTES)
		return false;

	uint32_t what = page_at(at / SIM_PAGE_BYTES);

	if (!what)
		return false;
	if (what & BIG) {
		start = (uint64_t)(what & ~BIG) * SIM_PAGE_BYTES;
	} else {
		uint64_t block = units_of(what - 1) * SIM_SMALL_BYTES, in = at % SIM_PAGE_BYTES;

		start = at - in + in / block * block;
	}
	uint64_t w = get(&word[start / SIM_SMALL_BYTES]);
	if (!w || at - start >= WORD_UNITS(w) * SIM_SMALL_BYTES)
		return false;
	if (w & MARKED)
		return sim_range_find(p, ret);
	*ret = (struct sim_range){ .base = sim_arena.base + start,
				   .bytes = WORD_UNITS(w) * SIM_SMALL_BYTES,
				   .kind = SIM_MEM_DEVICE,
				   .id = start / SIM_SMALL_BYTES + 1 };
	if (WORD_SLOT(w) >= SIM_OWNER_POOL) {
		CUmemoryPool pool = sim_pool_by_slot(WORD_SLOT(w));

		ret->kind = SIM_MEM_POOL;
		ret->object = pool;
		ret->device = pool->device;
	} else {
		ret->ctx = sim_context_by_slot(WORD_SLOT(w));
		ret->device = ret->ctx->device;
	}
	return true;
}

/* What an owner holds: every page that was ever used is looked through, since nothing else knows. */
void sim_null_put_all(uint32_t owner, uint64_t *ret_bytes)
{
	*ret_bytes = 0;
	if (!word)
		return;
	for (uint64_t i = 0; i < sim_arena.pages && i < sim_arena.next; i++) {
		uint32_t what = page_at(i);
		uint64_t units = !what        ? 0
				 : what & BIG ? ((what & ~BIG) == i ? UNITS_PER_PAGE : 0)
					      : units_of(what - 1);

		for (uint64_t u = 0; units && u + units <= UNITS_PER_PAGE; u += units) {
			uint64_t w = get(&word[i * UNITS_PER_PAGE + u]);

			uint64_t bytes;
			uint32_t whose;

			if (w && WORD_SLOT(w) == owner &&
			    sim_null_put(sim_arena.base + i * SIM_PAGE_BYTES + u * SIM_SMALL_BYTES, owner,
					 owner, &whose, &bytes))
				*ret_bytes += bytes;
		}
	}
}

void sim_heap_context_end(CUcontext ctx)
{
	uint64_t bytes;

	if (!sim_driver.null) {
		sim_zone_context_end(ctx);
		return;
	}
	sim_null_put_all(ctx->slot, &bytes);
	atomic_fetch_sub(&ctx->device->used_bytes, bytes);
}
