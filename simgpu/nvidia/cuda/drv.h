/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_CUDA_DRV_H
#define SIM_CUDA_DRV_H
/*
 * What the files of the stand-in libcuda share: the process's state, the objects behind NVIDIA's handles,
 * and how work gets to the device.
 *
 * Two modes. Server: every command goes to penstock-simgpu, which owns time and capacity. Null
 * (PENSTOCK_SIMGPU=null): nothing takes time, a command is done when the call returns; it exists so that a
 * benchmark can subtract what a driver costs.
 *
 * Threads: every entry point in any thread. A handle's struct never goes back to malloc while a program
 * could still show the handle: contexts, streams and events live in pools, and a stale handle is seen by
 * its tag. After fork the child's calls fail as NVIDIA's do (not initialized). Sizes are bytes, times
 * nanoseconds.
 */
#include "api/cuda_abi.h"
#include "simgpu/client.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The entry points: the only names that a version script lets out. */
#pragma GCC visibility push(default)
#define PEN_CU(symbol, family, since, thread, class, types) CUresult symbol types;
#include "api/cuda.def"
#pragma GCC visibility pop

#define SIM_LIKELY(x) __builtin_expect(!!(x), 1)
#define SIM_UNLIKELY(x) __builtin_expect(!!(x), 0)

/*
 * Both forms of an entry point: they differ in what a NULL stream means, and that is all that the body may
 * ask per_thread.
 */
#define SIM_PAIR(name, suffix, params, ...) \
	CUresult name params \
	{ \
		const bool per_thread = false; \
		__VA_ARGS__ \
	} \
	CUresult name##suffix params \
	{ \
		const bool per_thread = true; \
		__VA_ARGS__ \
	}

/* ---- version.c, init.c: the process ------------------------------------------------------------------ */

extern const int sim_cuda_version;              /* 11040, 12020, 13000 */
extern const char *const sim_driver_version;    /* "470.256.02" */

#define SIM_DEVICES 16

enum sim_tag {   /* first word of every object; 0 = freed */
	SIM_TAG_CONTEXT = 0x43544531, SIM_TAG_STREAM, SIM_TAG_EVENT, SIM_TAG_MODULE, SIM_TAG_FUNCTION,
	SIM_TAG_LIBRARY, SIM_TAG_KERNEL, SIM_TAG_GRAPH, SIM_TAG_NODE, SIM_TAG_EXEC, SIM_TAG_POOL, SIM_TAG_ARRAY,
	SIM_TAG_MIPMAP, SIM_TAG_GREEN, SIM_TAG_EXTMEM,
};

struct sim_device {
	int id;
	struct sim_card card;
	pthread_mutex_t lock;          /* of the primary context */
	/* made on first use, never freed: the handle is the same after a reset */
	CUcontext primary;
	uint32_t primary_refs, primary_flags;
	CUmemoryPool standard, current, graphs;   /* made on first use; guarded by the lock */
	_Atomic bool keeps;            /* some pool holds more than its threshold */
	_Alignas(64) _Atomic uint64_t used_bytes;   /* null mode: what is taken of card.mem_bytes */
};

enum sim_state { SIM_STATE_NEW, SIM_STATE_READY, SIM_STATE_FORKED };

struct sim_driver {
	_Atomic enum sim_state state;
	bool null;                     /* zero-cost mode */
	/* null mode, and no capture is open anywhere: a command needs no more than its arguments checked */
	_Atomic bool eager;
	_Atomic uint32_t captures;     /* that are open */
	struct sim *server;            /* NULL in null mode */
	int devices;
	struct sim_device device[SIM_DEVICES];
};
extern struct sim_driver sim_driver;

/* 0, or what a call returns that needs a device: not initialized, or invalid. */
CUresult sim_device_get(CUdevice id, struct sim_device **ret);
CUresult sim_ready(void);                       /* 0; CUDA_ERROR_NOT_INITIALIZED */
CUresult sim_result(int err);                   /* negative errno of client.h as an error of CUDA */

/* ---- context.c --------------------------------------------------------------------------------------- */

struct sim_thread {
	CUcontext current;
	CUcontext *below;              /* contexts under the current one, the deepest first */
	uint32_t depth, room;
	CUstreamCaptureMode capture_mode;
	/* the per-thread default stream that was asked for last; all are in its context's list */
	CUstream own;
	struct sim_cache *cache;       /* of heap.c */
	bool registered;               /* sim_thread_end() will be called */
};
extern _Thread_local struct sim_thread sim_self __attribute__((tls_model("initial-exec")));

struct CUctx_st {
	enum sim_tag tag;
	_Atomic CUresult broken;       /* what every call returns from now on: destroyed, or a sticky error */
	struct sim_device *device;
	struct sim_context *sim;       /* NULL in null mode */
	CUcontext root;                /* of a green context: the one it is part of; else itself */
	/* of this life: the primary one's handle comes back after a reset, with another */
	uint64_t id;
	uint32_t slot;                 /* small number by which memory knows its context */
	uint32_t flags, api, refs;
	CUgreenCtx green;              /* NULL: an ordinary context */
	uint32_t units;                /* largest number that its kernels run on, 0 = all */
	bool primary;
	size_t limit[10];
	CUfunc_cache cache_config;
	CUsharedconfig bank_config;
	uint32_t peers;                /* bit per device */
	pthread_mutex_t lock;          /* of the lists below */
	CUstream streams;              /* all that are alive but legacy */
	CUstream legacy;
	_Atomic(struct sim_lane *) lanes;   /* grows only, until the context ends */
	CUmodule modules;
	CUcontext parts, next_part;    /* green contexts of this one */
	CUcontext next;                /* in the list of the dead */
};

CUresult sim_no_context(void);
CUresult sim_context_broken(CUcontext ctx);

/* The calling thread's context, or the error to return. */
static inline CUresult sim_enter(CUcontext *ret)
{
	CUcontext ctx = *ret = sim_self.current;

	if (SIM_UNLIKELY(!ctx))
		return sim_no_context();
	if (SIM_UNLIKELY(atomic_load_explicit(&ctx->broken, memory_order_relaxed)))
		return ctx->broken;
	if (ctx->sim && SIM_UNLIKELY(sim_context_status(ctx->sim)))
		return sim_context_broken(ctx);
	return CUDA_SUCCESS;
}

CUresult sim_context_check(CUcontext ctx);      /* 0; invalid, destroyed, sticky */
CUcontext sim_context_by_slot(uint32_t slot);
CUresult sim_context_make(struct sim_device *d, uint32_t flags, uint32_t api, CUcontext *ret);
/* A green context's: shares the device's context with @root, and its streams have at most so many units. */
CUresult sim_context_make_part(CUcontext root, uint32_t units, CUcontext *ret);
void sim_context_unmake_part(CUcontext ctx);
void sim_context_unmake(CUcontext ctx);         /* everything in it goes; the struct stays */
void sim_thread_register(void);                 /* this thread's leavings are put away when it ends */

/* ---- stream.c, push.c: work -------------------------------------------------------------------------- */

struct sim_capture;

/*
 * A channel of the device with what the library has to know of it. Server mode only. It outlives the stream
 * that it was made for: work that is in flight when a stream is destroyed goes on, and others may wait for
 * it by number.
 */
struct sim_lane {
	struct sim_channel *channel;
	pthread_mutex_t lock;          /* one thread at a time submits */
	_Atomic uint64_t last;         /* number of the last command in the channel */
	uint64_t legacy_seen;          /* of the legacy stream's: what this one has been told to wait for */
	uint64_t seen_by_legacy;       /* the other way round; guarded by the legacy lane's lock */
	int priority;
	uint32_t units;
	_Atomic bool blocking;         /* ordered with the legacy stream */
	bool used;                     /* a stream has it; guarded by the context's lock */
	unsigned char *ring;           /* parameters and staged bytes of commands in flight */
	uint32_t ring_head, ring_tail;
	struct sim_lane *next;
};

struct CUstream_st {
	enum sim_tag tag;
	uint32_t flags;
	int priority;
	bool own;                      /* a thread's default stream */
	CUcontext ctx;
	struct sim_lane *lane;         /* NULL in null mode */
	_Atomic(struct sim_capture *) capture;
	struct sim_tips *tips;         /* of a capture: the nodes that the next one comes after */
	uint64_t id;
	pthread_t thread;              /* of an own one */
	/* access policy window, synchronization policy, memory domain: kept, without effect */
	CUlaunchAttributeValue attr[3];
	CUstream next;                 /* in the context's list, or in the pool */
};

/* @per_thread says what NULL means. Checks the handle; 0 or an error. */
CUresult sim_stream_get(CUcontext ctx, CUstream handle, bool per_thread, CUstream *ret);
CUresult sim_stream_own(CUcontext ctx, CUstream *ret);     /* the calling thread's default stream */
CUresult sim_stream_create(CUcontext ctx, uint32_t flags, int priority, CUstream *ret);   /* a program's */
CUresult sim_stream_make(CUcontext ctx, uint32_t flags, int priority, CUstream *ret);
void sim_stream_drop(CUstream s);                           /* one that was made and is in no list */
void sim_streams_end(CUcontext ctx);                        /* all of a context, with it */
void sim_thread_streams_end(void);                          /* of this thread, in every context */

/*
 * Gives a command to a stream, in its order: the legacy stream waits for all blocking ones of its context,
 * and they for it. Server mode: 0 and the command's number in the stream's lane. Null mode: it is done when
 * this returns; number 0.
 * @bytes: parameters (kernel) or source (copy) of @n bytes that must live until the command has ended: they
 * are copied; or NULL.
 */
CUresult sim_push(CUstream s, struct sim_cmd *cmd, const void *bytes, size_t n, uint64_t *ret_seq);
void sim_host_run(uint64_t token);                          /* host.c: what a program gave cuLaunchHostFunc */
extern _Atomic uint32_t sim_host_calls;                     /* that have returned */
CUresult sim_host_push(CUstream s, CUhostFn fn, void *data);
#define SIM_STAGE_MAX 65536u                                /* of @n */
CUresult sim_push_now(CUstream s, struct sim_cmd *cmd);     /* and waits for its end */
CUresult sim_lane_wait(CUcontext ctx, struct sim_lane *lane, uint64_t seq);
/* What is in a stream; for the legacy stream what is in all blocking ones. */
CUresult sim_stream_sync(CUstream s);
bool sim_stream_done(CUstream s);
CUresult sim_context_sync(CUcontext ctx);

struct CUevent_st {
	enum sim_tag tag;
	uint32_t flags;
	CUcontext ctx;
	uint64_t life;                 /* the context's id when it was made */
	pthread_mutex_t lock;          /* of what a record changes */
	struct sim_lane *lane;         /* where it was recorded last; NULL in null mode */
	uint64_t seq;                  /* number there */
	bool recorded;
	/* which stamp is of the last record: an earlier one may still be in flight */
	uint32_t turn;
	_Atomic uint64_t stamp_ns[4];  /* written by the device */
	uint64_t capture;              /* recorded in a capture of that number; 0 = in none */
	struct sim_tips *tips;         /* the nodes that it stands for */
	struct sim_shared_event *shared;   /* with other processes; NULL: with none */
	int fd;                        /* of that; -1: another's */
	CUevent next;                  /* in the pool */
};

/* ---- capture.c ---- */

CUresult sim_capture_unsafe(void);
/* the legacy stream of a context in which a blocking stream captures */
CUresult sim_capture_legacy(CUcontext ctx);
/* a call that a capturing stream does not stand; ends its capture */
CUresult sim_capture_conflict(CUstream s);
CUresult sim_capture_conflict_event(CUevent e);
CUresult sim_capture_record(CUevent e, CUstream s);
CUresult sim_capture_wait(CUstream s, CUevent e, bool external);
CUresult sim_capture_conflict_context(CUcontext ctx);
void sim_capture_drop(CUstream s);
void sim_capture_context_end(CUcontext ctx);
void sim_tips_free(struct sim_tips *t);

/* What must not be called while somebody captures, and would spoil the capture. */
static inline CUresult sim_unsafe(void)
{
	uint32_t captures = atomic_load_explicit(&sim_driver.captures, memory_order_relaxed);

	return SIM_UNLIKELY(captures) ? sim_capture_unsafe() : CUDA_SUCCESS;
}

/* ipc.c: events that processes share. Without device times. */
CUresult sim_event_share(CUevent e);
void sim_event_unshare(CUevent e);
CUresult sim_shared_record(CUevent e, CUstream s);
CUresult sim_shared_wait(CUevent e, CUstream s);
bool sim_shared_done(CUevent e);

CUresult sim_event_make(CUcontext ctx, uint32_t flags, CUevent *ret);
CUresult sim_event_record(CUevent e, CUstream s);
CUresult sim_event_wait(CUstream s, CUevent e);

/* ---- heap.c, memory.c -------------------------------------------------------------------------------- */

#define SIM_SMALL_BYTES 512ul   /* smallest block, and what sizes are rounded to */

enum sim_kind_of_memory {
	SIM_MEM_DEVICE = 1, SIM_MEM_MANAGED, SIM_MEM_HOST, SIM_MEM_REGISTERED, SIM_MEM_POOL, SIM_MEM_MAPPED,
	SIM_MEM_IPC, SIM_MEM_EXTERNAL, SIM_MEM_GRAPH, SIM_MEM_LOW,
};

struct sim_range {              /* what an address belongs to */
	CUdeviceptr base;
	size_t bytes;
	enum sim_kind_of_memory kind;
	struct sim_device *device;
	CUcontext ctx;              /* NULL: of no context */
	void *object;               /* pool, mapping ... */
	uint64_t id;                /* unique in the process */
	uint32_t flags;
};

/* heap.c: device memory of a context. Sizes are rounded up to SIM_SMALL_BYTES. */
CUresult sim_heap_alloc(CUcontext ctx, size_t bytes, CUdeviceptr *ret);
CUresult sim_heap_alloc_as(CUcontext ctx, size_t bytes, enum sim_kind_of_memory kind, uint32_t flags,
			   CUdeviceptr *ret);
/* CUDA_ERROR_INVALID_VALUE: not the start of a block */
CUresult sim_heap_free(CUdeviceptr p);
bool sim_heap_contains(CUdeviceptr p);                       /* is an address of the device: one comparison */
void sim_heap_thread_end(void);

bool sim_find(CUdeviceptr p, struct sim_range *ret);         /* of any kind */
CUresult sim_memory_info(struct sim_device *d, size_t *free_bytes, size_t *total_bytes);
void sim_memory_context_end(CUcontext ctx);                  /* all of a context's, of every kind */

/* ---- copy.c ------------------------------------------------------------------------------------------ */

enum sim_place { SIM_AT_DEVICE, SIM_AT_PINNED, SIM_AT_PAGEABLE };

enum sim_place sim_place(CUdeviceptr p);
/*
 * One copy in a stream, of which @cmd says all but direction and kind. @sync: the call ends when the copy
 * has, unless both sides are on the device. An asynchronous one returns once pageable memory may be used
 * again, as NVIDIA's does.
 */
CUresult sim_copy(CUstream s, struct sim_cmd *cmd, enum sim_place src, enum sim_place dst, bool sync);

/* ---- image.c, module.c ------------------------------------------------------------------------------- */

struct sim_param {
	uint32_t offset, bytes;
};

struct CUfunc_st {
	enum sim_tag tag;
	CUmodule module;
	char *name;
	uint32_t params, param_bytes;      /* number; packed size */
	struct sim_param *param;
	uint64_t block_ns, dram_bytes;     /* of one block */
	/* block time per unit of the first parameter; 0 = it is not an argument */
	uint64_t arg_ns;
	uint32_t blocks_per_unit, regs, smem_bytes, max_threads;   /* 0 = not said */
	uint32_t compute;                  /* built-in that works on memory; 0 = time only */
	int max_dynamic_smem, carveout;
	uint32_t block[3], dynamic_smem;   /* of the old launch calls */
	unsigned char old_params[4096];
};

struct sim_global {                        /* a variable of a module */
	char *name;
	size_t bytes;
	CUdeviceptr address;
};

struct CUmod_st {
	enum sim_tag tag;
	CUcontext ctx;
	CUlibrary library;
	CUfunction *function;
	uint32_t functions;
	struct sim_global *global;
	uint32_t globals;
	CUmodule next;
};

/*
 * Fills functions and globals of a module from PTX text, a cubin or a fat binary. The caller frees them
 * also on failure.
 */
CUresult sim_image_read(CUmodule m, const void *image, const struct sim_card *c);
CUfunction sim_module_function(CUmodule m, const char *name);
CUresult sim_module_load(CUcontext ctx, const void *image, CUmodule *ret);
void sim_module_unload(CUmodule m);
void sim_modules_end(CUcontext ctx);
/* a CUkernel may stand for a function; 0 or invalid handle */
CUresult sim_function_get(CUcontext ctx, CUfunction f, CUfunction *ret);

/* ---- launch.c, occupancy.c --------------------------------------------------------------------------- */

struct sim_launch {
	CUfunction f;
	uint32_t grid[3], block[3], smem_bytes;
	int priority;                      /* added to the stream's */
	bool cooperative;
};

/* Bytes of parameters of a kernel, since 12.1 on devices of 7.0 and later. */
#define SIM_PARAMS_MAX 32764u

/* Checks what a launch asks for against the device and the function. */
CUresult sim_launch_check(const struct sim_launch *l);
/* Puts the parameters together as the device takes them; @ret of SIM_PARAMS_MAX bytes. */
CUresult sim_launch_params(CUfunction f, void *const *params, void *const *extra, unsigned char *ret,
			   size_t *ret_bytes);
CUresult sim_launch_push(CUstream s, const struct sim_launch *l, const unsigned char *params,
			 size_t param_bytes);
CUresult sim_function_attribute(const struct sim_card *c, const struct CUfunc_st *f, CUfunction_attribute a,
				int *v);
CUresult sim_function_set_attribute(const struct sim_card *c, CUfunction f, CUfunction_attribute a, int v);
/* Blocks of a kernel that a unit holds at once. */
uint32_t sim_occupancy(const struct sim_card *c, const struct CUfunc_st *f, uint32_t threads,
		       size_t dynamic_smem);

#endif
