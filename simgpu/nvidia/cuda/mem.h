/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_CUDA_MEM_H
#define SIM_CUDA_MEM_H
/*
 * What the memory files share below the entry points. In server mode a zone takes chunks of whole pages
 * from the device and deals them out; in null mode everything is a number and an address.
 *
 * Threads: any; each has its own locks, and none is held across a call into another file.
 */
#include "simgpu/nvidia/cuda/arena.h"
#include "simgpu/nvidia/cuda/drv.h"

/* ---- heap.c, null mode ---- */

/* Owners of blocks: contexts by their slot, pools above. */
#define SIM_OWNER_POOL 32768u
#define SIM_OWNER_MAX 65535u

bool sim_null_charge(struct sim_device *d, uint64_t bytes);   /* false: the device is full */
/* A block of @units of SIM_SMALL_BYTES, charged to nobody. */
bool sim_null_take(uint32_t owner, uint64_t units, CUdeviceptr *ret);
/* Gives a block back if its owner is one of @owner_from .. @owner_to; whose it was and its size. */
bool sim_null_put(CUdeviceptr p, uint32_t owner_from, uint32_t owner_to, uint32_t *ret_owner,
		  uint64_t *ret_bytes);
void sim_null_put_all(uint32_t owner, uint64_t *ret_bytes);
bool sim_heap_find(CUdeviceptr p, struct sim_range *ret);
void sim_heap_context_end(CUcontext ctx);

/* ---- zone.c, server mode ---- */

struct sim_chunk;

/* Memory of one owner. Zero-filled is a valid zone but for its lock and device. */
struct sim_zone {
	pthread_mutex_t lock;
	struct sim_device *device;
	struct sim_chunk *chunks;
	uint64_t reserved_bytes, used_bytes;   /* taken from the device; dealt out */
	size_t chunk_bytes;                    /* least that is taken at once */
	bool keeps;                            /* empty chunks stay until sim_zone_trim() */
};

void sim_zone_init(struct sim_zone *z, struct sim_device *d, size_t chunk_bytes, bool keeps);
/* @apart: in a chunk of its own. @grow: more may be taken from the device. 0; -ENOMEM. */
int sim_zone_take(struct sim_zone *z, size_t bytes, bool apart, bool grow, CUdeviceptr *ret);
void sim_zone_put(struct sim_zone *z, CUdeviceptr p, size_t bytes);
void sim_zone_trim(struct sim_zone *z, uint64_t keep_bytes);
void sim_zone_finish(struct sim_zone *z);      /* all chunks go, whatever is in them */

CUresult sim_zone_context_alloc(CUcontext ctx, size_t bytes, enum sim_kind_of_memory kind, uint32_t flags,
				CUdeviceptr *ret);
CUresult sim_zone_context_free(CUdeviceptr p);
void sim_zone_context_end(CUcontext ctx);

/* ---- ranges.c: what lies at an address, for all that heap.c does not know by itself ---- */

int sim_range_add(const struct sim_range *r);                /* 0; -EEXIST overlaps; -ENOMEM */
bool sim_range_find(CUdeviceptr p, struct sim_range *ret);   /* that @p lies in */
bool sim_range_remove(CUdeviceptr base, struct sim_range *ret);
void sim_range_set_flags(CUdeviceptr base, uint32_t flags);
/* Copies of all of a context, or with that object; the caller frees them. */
size_t sim_range_collect(CUcontext ctx, void *object, struct sim_range **ret);

/* ---- pool.c ---- */

struct CUmemPoolHandle_st {
	enum sim_tag tag;
	uint32_t slot;                         /* null mode: owner of its blocks */
	struct sim_device *device;             /* NULL: host memory */
	CUmemLocation location;
	bool standard;                         /* the device's own: cannot be destroyed */
	bool imported;                         /* of another process: nothing can be allocated from it */
	bool dead;                             /* destroyed; goes when its last block does */
	bool graphs;                           /* of the device's graph memory: not a program's to see */
	uint32_t handle_types;
	uint64_t max_bytes;
	_Atomic uint64_t threshold;
	uint64_t reuse[3];                     /* of CU_MEMPOOL_ATTR_REUSE_... */
	_Atomic uint64_t used, used_high, reserved, reserved_high;
	pthread_mutex_t lock;                  /* of all below and of what is kept */
	struct sim_zone zone;                  /* server mode */
	struct sim_pending *pending;           /* freed, but not before work in flight has ended */
	uint32_t access;                       /* bit per device that may use it */
	struct CUmemPoolHandle_st *next;
};

CUmemoryPool sim_pool_by_slot(uint32_t slot);
CUresult sim_pool_alloc(CUmemoryPool pool, CUstream s, size_t bytes, CUdeviceptr *ret);
CUresult sim_pool_free(CUstream s, CUdeviceptr p);
CUmemoryPool sim_pool_standard(struct sim_device *d);   /* NULL: out of memory */
CUmemoryPool sim_pool_current(struct sim_device *d);
CUmemoryPool sim_pool_graphs(struct sim_device *d);
CUresult sim_pool_create(struct sim_device *d, const CUmemPoolProps *props, CUmemoryPool *ret);
void sim_pool_destroy(CUmemoryPool p);
void sim_pool_trim(CUmemoryPool p, uint64_t keep_bytes);
void sim_pools_context_end(CUcontext ctx);       /* its lanes go: nothing is pending on them any more */
/* after a synchronization: what is above the thresholds goes back */
void sim_pools_settle(struct sim_device *d);

/* ---- memory.c ---- */

/* Whole pages of the device, or, in null mode, of its count: for what is not in a zone. @ret_id is never 0. */
CUresult sim_memory_take(struct sim_device *d, size_t bytes, uint64_t *ret_id);
void sim_memory_give(struct sim_device *d, size_t bytes, uint64_t id);

CUresult sim_memory_free_other(CUcontext ctx, CUdeviceptr p);

/* ---- old32.c: memory that has 32-bit addresses ---- */

void sim_low_release(const struct sim_range *range);
bool sim_low_free(CUdeviceptr p);

/* ---- ipc.c, extmem.c: both true if the address was theirs ---- */

bool sim_ipc_free(CUdeviceptr p);           /* a pointer that came through an imported pool */
bool sim_external_free(CUdeviceptr p);

#endif
