/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of the device small blocks lie in. Drivers pack blocks of up to a megabyte into pages of 2 MiB and give a page back when
 * nothing is in it any more; larger blocks have pages of their own. So a small block costs a page if it is the first one in it,
 * and nothing else; a program that frees all but one of each page still has all pages. Which page that is its address says.
 *
 * A count per page of the address space, in leaves that are made when they are first needed and never freed. That it is so on
 * hardware is not yet measured; where the driver says that its pages have another size, blocks are rounded up one by one.
 */
#include "shim/cuda/memory.h"

#include "base/auto.h"

#include <stdlib.h>

#define SHIFT 21
_Static_assert(PEN_CU_PAGE_BYTES == UINT64_C(1) << SHIFT, "pages of small blocks");
#define LEAF_BITS 14
#define TOP_BITS 13          /* 48 bits of address */

struct leaf {
	_Atomic uint32_t count[1u << LEAF_BITS];
};

static struct leaf *_Atomic top[1u << TOP_BITS];

uint64_t pen_cu_page_bytes(struct pen_cu_device *d)
{
	uint64_t bytes = atomic_load_explicit(&d->page_bytes, memory_order_relaxed);
	if (bytes)
		return bytes;
	CUmemAllocationProp_v1 prop = { .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { CU_MEM_LOCATION_TYPE_DEVICE, d->id } };
	size_t said = 0;
	if (!REAL(cuMemGetAllocationGranularity) ||
	    PEN_CU_INSIDE(REAL(cuMemGetAllocationGranularity)(&said, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM)) != CUDA_SUCCESS ||
	    said < 4096 || (said & (said - 1)))
		said = PEN_CU_PAGE_BYTES;
	atomic_store_explicit(&d->page_bytes, said, memory_order_relaxed);
	return said;
}

/* NULL: outside of the address space, or out of memory. */
static _Atomic uint32_t *count_of(uint64_t page)
{
	uint64_t at = page >> LEAF_BITS;
	if (at >= PEN_ARRAY_LEN(top))
		return NULL;
	struct leaf *l = atomic_load_explicit(&top[at], memory_order_acquire);
	if (!l) {
		struct leaf *fresh = calloc(1, sizeof(*fresh));
		if (!fresh)
			return NULL;
		if (atomic_compare_exchange_strong(&top[at], &l, fresh))
			l = fresh;
		else
			free(fresh);
	}
	return &l->count[page & ((1u << LEAF_BITS) - 1)];
}

bool pen_cu_pages_touch(CUdeviceptr ptr, uint64_t bytes, uint64_t *ret_bytes)
{
	uint64_t first = ptr >> SHIFT, last = (ptr + bytes - 1) >> SHIFT, n = 0;
	for (uint64_t page = first; page <= last; page++) {
		_Atomic uint32_t *count = count_of(page);
		if (!count) {
			if (page > first)
				pen_cu_pages_leave(ptr, (page << SHIFT) - ptr);
			return false;
		}
		n += atomic_fetch_add_explicit(count, 1, memory_order_acq_rel) == 0;
	}
	*ret_bytes = n << SHIFT;
	return true;
}

uint64_t pen_cu_pages_leave(CUdeviceptr ptr, uint64_t bytes)
{
	uint64_t first = ptr >> SHIFT, last = (ptr + bytes - 1) >> SHIFT, n = 0;
	for (uint64_t page = first; page <= last; page++) {
		_Atomic uint32_t *count = count_of(page);
		n += count && atomic_fetch_sub_explicit(count, 1, memory_order_acq_rel) == 1;
	}
	return n << SHIFT;
}
