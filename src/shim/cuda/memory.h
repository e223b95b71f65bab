/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_SHIM_CUDA_MEMORY_H
#define PEN_SHIM_CUDA_MEMORY_H
/*
 * Shared by the files that charge memory. Every charge is made before the driver's call and given back if it fails; what the
 * driver says afterwards settles it, and if the contract does not allow that much, the call is undone. A release comes after the
 * driver's own. No lock is held across a call of the driver.
 *
 * Threads: any. Bytes are those of the device; a record remembers the process that was charged, since a forked child ends what
 * it inherited, too, and has its own account.
 */
#include "shim/cuda/cu.h"

/* ---- memory.c: charges that end with a handle ---------------------------------------------------------------------- */

struct pen_cu_pool;
struct pen_cu_held;

/* A charge that is given back with the object's handle. */
struct pen_cu_block {
	struct pen_cu_device *device;
	uint64_t bytes;                   /* charged for it; of a small one: its own, for which pages are charged (memory_page.c) */
	CUdeviceptr small;                /* its address, if it is a small one */
	bool charged;
	struct pen_cu_pool *pool;         /* that the bytes belong to; NULL: charged by itself */
	struct pen_cu_held *held;         /* physical memory that a sparse array holds (memory_array.c) */
	struct pen_map *map;              /* where it is found by the key */
	const void *key;
	CUcontext ctx;                    /* that it goes with; NULL: with none */
	struct pen_cu_block *next;        /* of those that go together */
	uint32_t process;
	uint32_t time;                    /* ends of primary contexts that had begun before */
};

/* Maps of blocks: whoever takes one out gives its charge back. All are looked at when a context ends. */
extern struct pen_map pen_cu_blocks;      /* by device pointer: what cuMemFree() may free */
extern struct pen_map pen_cu_arrays;      /* arrays and mipmaps */
extern struct pen_map pen_cu_pinned;      /* the host's memory, where it is the device's as well */
extern struct pen_map pen_cu_foreign;     /* external memory */

/* A key for a map: device pointers and handles are numbers, 0 and 1 among them. */
static inline const void *pen_cu_key(unsigned long long number)
{
	return (const void *)(uintptr_t)(number + 16);
}

/* Charges a device. What pools hold without need is counted back first. 0; -ENOMEM. */
int pen_cu_charge(struct pen_cu_device *d, uint64_t bytes);
/* Before a charge that seems not to fit: what pools and graphs keep unused is made to go. True: it was. */
bool pen_cu_make_room(struct pen_cu_device *d, uint64_t bytes);
/* A charge of @was bytes becomes one of @now, with the same objects. @must: also above the contract. False: it is not allowed. */
bool pen_cu_recharge(struct pen_gate *g, uint64_t was, uint64_t now, bool must);
/* The current context's device has the bytes and a record of them. NULL and success: nothing to charge it on, go on without. */
struct pen_cu_block *pen_cu_block_new(uint64_t bytes, CUresult *ret);
/* Of a device, for no context yet. NULL: the contract does not allow it, or out of memory. */
struct pen_cu_block *pen_cu_block_new_on(struct pen_cu_device *d, uint64_t bytes);
/* The same for memory of the device's own pages, of @bytes or a little more. Small blocks are charged when their address is known. */
struct pen_cu_block *pen_cu_block_new_paged(uint64_t bytes, CUresult *ret);
/* The driver has made it: settles at @bytes, and from now on it is found. False: the contract does not allow it; undo, then drop. */
bool pen_cu_block_keep(struct pen_cu_block *b, uint64_t bytes, struct pen_map *map, const void *key);
bool pen_cu_block_keep_paged(struct pen_cu_block *b, CUdeviceptr ptr, uint64_t bytes, struct pen_map *map, const void *key);
void pen_cu_block_drop(struct pen_cu_block *b);   /* the driver has not made it; NULL is fine */
/* Before the driver's free, since another thread may get the same handle afterwards. NULL: not ours. */
struct pen_cu_block *pen_cu_block_take(struct pen_map *map, const void *key);
/* After it: gives the bytes back, or, if it failed, puts the record back. */
CUresult pen_cu_block_ended(struct pen_cu_block *b, CUresult r);

/* ---- memory_page.c: pages of the device ------------------------------------------------------------------------------- */

#define PEN_CU_PAGE_BYTES UINT64_C(2097152)
uint64_t pen_cu_page_bytes(struct pen_cu_device *d);   /* a power of two */
/* Blocks up to half a page share pages, larger ones have their own. */
static inline bool pen_cu_is_small(struct pen_cu_device *d, uint64_t bytes)
{
	return bytes <= pen_cu_page_bytes(d) / 2;
}
static inline uint64_t pen_cu_whole_pages(struct pen_cu_device *d, uint64_t bytes)
{
	uint64_t page = pen_cu_page_bytes(d);
	return bytes > UINT64_MAX - page ? UINT64_MAX : (bytes + page - 1) & ~(page - 1);
}
/* A small block is there: bytes of the pages in which it is the first. False: out of memory. */
bool pen_cu_pages_touch(CUdeviceptr ptr, uint64_t bytes, uint64_t *ret_bytes);
uint64_t pen_cu_pages_leave(CUdeviceptr ptr, uint64_t bytes);   /* it has gone: bytes of the pages in which it was the last */

/* What the contract and the device allow in all. 0: not this tenant's. */
uint64_t pen_cu_mem_limit(struct pen_cu_device *d);

/* ---- memory_pool.c, memory_graph.c: what the driver keeps beyond the application's objects --------------------------- */

/*
 * Reads from the driver what its pools and graphs hold on the device, and charges exactly that. Cheap where there are none.
 * @trim: makes them give back what nobody uses.
 */
void pen_cu_mem_settle(struct pen_cu_device *d, bool trim);
void pen_cu_pools_settle(struct pen_cu_device *d, bool trim);
void pen_cu_graphs_settle(struct pen_cu_device *d, bool trim);
void pen_cu_pool_freed(struct pen_cu_pool *p, uint64_t bytes);   /* a block of it has gone */

/* ---- memory_vmm.c: physical memory with handles --------------------------------------------------------------------- */

struct pen_cu_physical;
struct pen_cu_physical *pen_cu_physical_use(unsigned long long handle);   /* it stays until it is used no more; NULL: unknown */
void pen_cu_physical_unuse(struct pen_cu_physical *m);                    /* NULL is fine */

/* ---- memory_context.c --------------------------------------------------------------------------------------------------- */

/* What is known of a context as memory, taken out and, if it has not ended, put back. NULL is fine. */
struct pen_cu_made *pen_cu_made_take(CUcontext ctx);
void pen_cu_made_put(CUcontext ctx, struct pen_cu_made *m);
void pen_cu_made_gone(struct pen_cu_made *m);
bool pen_cu_made_known(CUcontext ctx);   /* one of its own; else a primary context or a part of one */

/* ---- memory_array.c --------------------------------------------------------------------------------------------------- */

void pen_cu_held_drop(struct pen_cu_held *held);

/* What a hook begins with: calls that the driver makes of itself are counted already. */
#define PEN_CU_NESTED(symbol, ...)                                                                       \
	do {                                                                                             \
		if (pen_cu_thread.depth)                                                                 \
			return REAL(symbol)(__VA_ARGS__);                                                \
	} while (0)

/* A call of the driver from inside a hook. */
#define PEN_CU_INSIDE(call)                                                                              \
	({                                                                                               \
		pen_cu_thread.depth++;                                                                   \
		CUresult inside_ = (call);                                                               \
		pen_cu_thread.depth--;                                                                   \
		inside_;                                                                                 \
	})

#endif
