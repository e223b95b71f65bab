/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_SHIM_CUDA_CU_H
#define PEN_SHIM_CUDA_CU_H
/*
 * What the files of the CUDA shim share: the real driver's entry points, the hooks, our records of the application's objects.
 *
 * Every exported name is a trampoline (stubs.c) that jumps through one word: to its hook in a managed process, where the real
 * driver has the entry point and we have a hook, else to the real driver; before the first call, to what loads it.
 * Threads: all hooks in any thread of the application at once, some in threads of the driver (host functions). No lock of ours
 * is held across a call of the real driver. Lifetime: device records live for ever, context and stream records as long as the
 * application's objects. Times are nanoseconds of CLOCK_MONOTONIC, sizes bytes.
 */
#include "api/cuda_abi.h"
#include "base/devkey.h"
#include "base/lock.h"
#include "board/map.h"
#include "gate/gate.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The real driver's entry points: NULL where it lacks one. Written once, before any hook can run. */
struct pen_cu_table {
#define PEN_CU(symbol, family, since, thread, class, types) CUresult (*symbol) types;
#include "api/cuda.def"
};
extern struct pen_cu_table pen_cu_real;
#define REAL(symbol) (pen_cu_real.symbol)

/*
 * A hook has the name of its symbol with this prefix. A row whose class is not PASS may have one; where none is linked in, the
 * trampoline goes to the real driver (tests/shim/cuda counts what is missing). A hook runs only if REAL(symbol) is there.
 */
#define PEN_CU_HOOK_PASS(symbol, types)
#define PEN_CU_HOOK_ANY(symbol, types) CUresult pen_##symbol types __attribute__((weak, visibility("hidden")));
#define PEN_CU_HOOK_RESOLVE(symbol, types) PEN_CU_HOOK_ANY(symbol, types)
#define PEN_CU_HOOK_MEM(symbol, types) PEN_CU_HOOK_ANY(symbol, types)
#define PEN_CU_HOOK_FREE(symbol, types) PEN_CU_HOOK_ANY(symbol, types)
#define PEN_CU_HOOK_LAUNCH(symbol, types) PEN_CU_HOOK_ANY(symbol, types)
#define PEN_CU_HOOK_COPY(symbol, types) PEN_CU_HOOK_ANY(symbol, types)
#define PEN_CU_HOOK_CAPTURE(symbol, types) PEN_CU_HOOK_ANY(symbol, types)
#define PEN_CU_HOOK_STREAM(symbol, types) PEN_CU_HOOK_ANY(symbol, types)
#define PEN_CU_HOOK_CONTEXT(symbol, types) PEN_CU_HOOK_ANY(symbol, types)
#define PEN_CU_HOOK_INFO(symbol, types) PEN_CU_HOOK_ANY(symbol, types)

#define PEN_CU(symbol, family, since, thread, class, types) PEN_CU_HOOK_##class(symbol, types)
#include "api/cuda.def"

/* Per thread. Initial-exec: the dynamic model would call the allocator inside somebody's callback. */
struct pen_cu_thread {
	uint32_t depth;        /* inside a hook: the driver calls its own exported names, which must not be counted again */
	uint32_t callbacks;    /* inside a host function of the driver: must not wait */
};
extern _Thread_local struct pen_cu_thread pen_cu_thread __attribute__((tls_model("initial-exec")));

/* ---- real.c, stubs.c, resolve.c ------------------------------------------------------------------------------- */

/* Loads the real driver and points the trampolines, once. 0; -ENOENT no driver; -EBUSY: from inside itself. Any thread, before cuInit. */
int pen_cu_load(void);
bool pen_cu_managed(void);                    /* this process has a tenant directory; false: nothing is hooked */
int pen_cu_driver_version(void);              /* 11040, 12020, 13000 ...; 0 unknown */

/* ---- device.c -------------------------------------------------------------------------------------------------- */

#define PEN_CU_DEVICES 64

struct pen_cu_device {
	CUdevice id;
	char key[PEN_DEVKEY_MAX];
	char model[96];
	uint64_t mem_bytes;
	uint32_t units;
	bool integrated;                      /* host and device share memory */
	_Atomic uint32_t state;               /* 0 gate not asked for yet, 1 open, 2 refused */
	struct pen_gate *gate;                /* valid in state 1 */
	struct pen_forklock lock;
	void *_Atomic gating;                 /* of adapter.c: clock, base event, helper thread */
	_Atomic uint64_t page_bytes;          /* of its memory; 0: not asked yet (memory_page.c) */
	_Atomic bool tight;                   /* a small block was refused, and nothing was freed since */
	_Atomic uint32_t contexts;            /* made by this process and not gone (memory_context.c) */
	_Atomic uint64_t context_bytes;       /* what one takes, as measured; 0: not known */
	CUmemoryPool _Atomic pool;            /* that cuMemAllocAsync takes from; NULL: not asked yet (memory_pool.c) */
	_Atomic uint32_t pools;               /* records of pools with memory on it */
	struct pen_cu_graph_memory {          /* memory_graph.c */
		struct pen_forklock lock;
		uint64_t waiting;             /* estimates of executable graphs that have not run yet */
		uint64_t ran;                 /* of those that have */
		uint64_t charged;             /* in all */
		uint64_t ticket, applied;
		uint64_t trims;
		_Atomic uint32_t used;        /* 1: a graph with memory nodes was seen */
	} graph_memory;
};

struct pen_cu_device *pen_cu_device(CUdevice id);     /* NULL: the driver does not know it */
struct pen_cu_device *pen_cu_device_current(void);    /* of the calling thread's context; NULL: there is none */
uint32_t pen_cu_device_count(void);                   /* as the driver counts, after cuInit */
struct pen_cu_device *pen_cu_device_nth(uint32_t ordinal);
/* The gate of a device, attaching on first use; NULL: this tenant may not use it (fail closed: CUDA_ERROR_NO_DEVICE at cuInit, OOM later). */
struct pen_gate *pen_cu_gate(struct pen_cu_device *d);

uint32_t pen_cu_units(struct pen_cu_device *d);   /* units.c: multiprocessors as shown to the program; 0 = all */
/* cuDevicePrimaryCtxRetain has given out *@ctx: it becomes the part that is the tenant's. */
void pen_cu_units_retained(CUdevice dev, CUcontext *ctx);

/* ---- info.c ---------------------------------------------------------------------------------------------------- */

bool pen_cu_refused(CUdevice id);   /* a device, and none of this tenant's; what is no device the driver knows best */

/*
 * ---- who hooks what --------------------------------------------------------------------------------------------
 * RESOLVE resolve.c, info.c; INFO info.c, units.c; MEM and FREE memory*.c, but: the end of contexts context.c;
 * graphs memory_graph.c (instantiate, destroy), which tells graph.c. All others the file of their class.
 */

/* ---- memory*.c ------------------------------------------------------------------------------------------------- */

/*
 * Everything that belongs to a context goes with it, and what was charged for it is released: in two steps around the driver's
 * call, since the handle may be another context's right after it.
 */
struct pen_cu_ending {
	CUcontext ctx;
	struct pen_cu_device *device;    /* NULL: not its primary context */
	uint32_t before;
	struct pen_cu_block *blocks;
	struct pen_cu_limits *limits;
	struct pen_cu_made *made;
};
void pen_cu_mem_context_ends(CUcontext ctx, struct pen_cu_ending *ret);
/* For the primary context of a device: what green contexts have allocated is its. NULL is fine for both. */
void pen_cu_mem_primary_ends(struct pen_cu_device *d, CUcontext ctx, struct pen_cu_ending *ret);
void pen_cu_mem_context_ended(struct pen_cu_ending *e, bool gone);
/* Before a launch or upload of @exec: may it have its memory? Else this is the call's code. Cheap for graphs without memory nodes. */
CUresult pen_cu_mem_graph_runs(CUgraphExec exec);
/* It was accepted: the driver has found the memory by now. Cheap as well. */
void pen_cu_mem_graph_ran(CUgraphExec exec);
/* The application has waited for the device: what pools held for blocks that were freed may have gone. Cheap without pools. */
void pen_cu_mem_synced(struct pen_cu_device *d);
/* Of graph.c, called by memory_graph.c: an executable graph was made of @graph; it is about to go. */
void pen_cu_graph_made(CUgraphExec exec, CUgraph graph);
void pen_cu_graph_gone(CUgraphExec exec);

/* ---- stream.c, context.c ---------------------------------------------------------------------------------------- */

/*
 * The queue of a stream in the calling thread's context: @per_thread says what NULL means. A record is made for a stream that
 * was never seen (made through a private table). NULL: out of memory or no gate: then the call goes to the driver unmanaged
 * only if the device is not this tenant's to use at all, which cuInit has refused before.
 */
struct pen_cu_stream;
struct pen_cu_stream *pen_cu_stream(CUstream stream, bool per_thread);

#endif
