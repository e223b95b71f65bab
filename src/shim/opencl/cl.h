/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_SHIM_OPENCL_CL_H
#define PEN_SHIM_OPENCL_CL_H
/*
 * What the files of the OpenCL layer share: the table below us, our records of the application's objects, the wrappers.
 *
 * Threads: all wrappers run in any thread of the application at once, some in threads of the driver (callbacks).
 * Lifetime: device records live for ever; queue, kernel and program records live as long as the application holds a
 * reference, which we count beside the driver, since the API has no destructor callback for them. No lock of ours is held
 * across a call into the table below. Times are nanoseconds of CLOCK_MONOTONIC, sizes bytes.
 */
#define CL_TARGET_OPENCL_VERSION 300
#define CL_ENABLE_BETA_EXTENSIONS   /* command buffers, in headers since 2023 */
#define CL_USE_DEPRECATED_OPENCL_1_0_APIS
#define CL_USE_DEPRECATED_OPENCL_1_1_APIS
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#define CL_USE_DEPRECATED_OPENCL_2_0_APIS
#define CL_USE_DEPRECATED_OPENCL_2_1_APIS
#define CL_USE_DEPRECATED_OPENCL_2_2_APIS
#include <CL/cl.h>
#include <CL/cl_ext.h>
#include <CL/cl_icd.h>

#include "base/devkey.h"
#include "base/lock.h"
#include "board/map.h"
#include "gate/gate.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef void (CL_CALLBACK *pen_cl_native_fn)(void *);

/* The table below us: a copy, with zero in what the loader does not have. Written once, before any wrapper can run. */
extern cl_icd_dispatch pen_cl_below;
#define BELOW(fn) (pen_cl_below.fn)

/* Every wrapper has the name of its entry point with this prefix and the type of its slot in cl_icd.h. */
#define PEN_CL_WRAP_PASS(name)
#define PEN_CL_WRAP_ANY(name) extern __typeof__(*((cl_icd_dispatch *)0)->name) pen_##name;
#define PEN_CL_WRAP_MEM(name) PEN_CL_WRAP_ANY(name)
#define PEN_CL_WRAP_ENQUEUE(name) PEN_CL_WRAP_ANY(name)
#define PEN_CL_WRAP_SYNC(name) PEN_CL_WRAP_ANY(name)
#define PEN_CL_WRAP_INFO(name) PEN_CL_WRAP_ANY(name)
#define PEN_CL_WRAP_QUEUE(name) PEN_CL_WRAP_ANY(name)
#define PEN_CL_WRAP_OBJECT(name) PEN_CL_WRAP_ANY(name)
#define PEN_CL(slot, name, class, since, why) PEN_CL_WRAP_##class(name)
#define PEN_CL_EXT(name, extension) extern __typeof__(*(name##_fn)0) pen_##name;
#include "api/opencl.def"

/* ---- device.c ------------------------------------------------------------------------------------------------- */

#define PEN_CL_DEVICES 64       /* root devices in one process; more are refused */
#define PEN_CL_CTX_DEVICES 16   /* of one context that are charged */

struct pen_cl_queue;

struct pen_cl_device {
	cl_device_id id;
	cl_platform_id platform;
	unsigned version;            /* of the platform, x 10: 12, 30 */
	unsigned device_version;     /* of the device itself, never above the platform's */
	char key[PEN_DEVKEY_MAX];
	char model[64], platform_name[64];
	uint64_t mem_bytes, max_alloc_bytes;
	uint32_t units;
	bool unified;                /* host and device share memory: USE_HOST_PTR takes nothing */
	bool timed;                  /* profiling stamps may be trusted: the timer has a resolution */
	bool can_partition;          /* clCreateSubDevices by counts may be called */
	_Atomic int64_t clock_offset;/* device clock + this = CLOCK_MONOTONIC; INT64_MAX unknown */
	_Atomic int64_t clock_seen_ns;   /* when it was learned */
	_Atomic bool no_timer;       /* clGetDeviceAndHostTimer does not work */
	_Atomic uint32_t state;      /* 0 gate not asked for yet, 1 open, 2 refused */
	struct pen_gate *gate;       /* valid in state 1 */
	struct pen_forklock lock;     /* opening, queues */
	cl_device_id _Atomic sub;    /* what queues are made on while the contract names fewer units; NULL: the root */
	_Atomic uint32_t sub_units;
	struct pen_cl_queue *queues; /* under lock */
};

/* Record of a device handle, a sub-device's root included; NULL if the driver does not know the handle. */
struct pen_cl_device *pen_cl_device(cl_device_id id);
/* The gate of a device, attaching on first use; NULL: this tenant may not use it (fail closed). */
struct pen_gate *pen_cl_gate(struct pen_cl_device *d);
uint32_t pen_cl_units(struct pen_cl_device *d);          /* as shown to the application */
cl_device_id pen_cl_queue_device(struct pen_cl_device *d, cl_device_id asked);
int pen_cl_set_units(void *device, uint32_t units);
unsigned pen_cl_platform_version(cl_platform_id p);      /* x 10; 10 if it does not say */

struct pen_cl_context {
	uint32_t ndevices;
	struct pen_cl_device *device[PEN_CL_CTX_DEVICES];   /* each root once, all with open gates */
	unsigned version;                                    /* least of the devices' platforms */
};
/* NULL: no such context, or one of its devices may not be used. */
struct pen_cl_context *pen_cl_context(cl_context ctx);

/* ---- queue.c -------------------------------------------------------------------------------------------------- */

struct pen_cl_queue {
	struct pen_gate_queue *gate;
	cl_command_queue id;
	struct pen_cl_device *device;
	_Atomic uint8_t dirty;       /* something was given to it since the last flush */
	bool out_of_order;
	bool asked_profiling;        /* by the application; we always want it */
	bool stamped;                /* the driver's queue really has profiling on */
	const void *owner;           /* thread word of the creating thread; commands of others clear last_event for good */
	_Atomic bool shared;         /* used by several threads: the order of last_event is not known */
	cl_event _Atomic last_event; /* of the newest command if the application holds it, not retained; else NULL */
	cl_event _Atomic blocked;    /* retained: the newest command that cannot start by itself (user event, foreign) */
	_Atomic bool walled;         /* out of order: among them is a barrier, so that nothing behind it can start either */
	_Atomic uint32_t inside;     /* in order: calls that are giving it a command */
	const void *_Atomic cutter;  /* in order: thread word of the one whose command may be cut; nobody comes between */
	_Atomic uint32_t cuts, cut_waiters;  /* futex word: ends of such commands */
	_Atomic uint32_t refs, pins;
	cl_queue_properties *properties;   /* array that the application gave, or NULL */
	size_t nproperties;                /* with the final 0 */
	struct pen_cl_queue *next, **link; /* of the device, under its lock */
};

extern struct pen_map pen_cl_queues;
static inline struct pen_cl_queue *pen_cl_queue(cl_command_queue id)
{
	return pen_map_find(&pen_cl_queues, id);
}
typedef cl_command_queue (CL_API_CALL *pen_cl_create_fn)(cl_context, cl_device_id, const cl_queue_properties *, cl_int *);
/* clCreateCommandQueueWithProperties by the driver's @create. */
cl_command_queue pen_cl_create_queue(pen_cl_create_fn create, cl_context ctx, cl_device_id device,
				     const cl_queue_properties *props, cl_int *err);
void pen_cl_flush_all(void *device);
/* After a command was accepted. @event: what the application got, or NULL. */
void pen_cl_queue_ran(struct pen_cl_queue *q, cl_event event);

/* ---- per thread: initial-exec, because a layer may come by dlopen where no allocator may run ------------------- */

struct pen_cl_thread {
	uint32_t callbacks;          /* depth: inside a callback of the driver */
	const void *notifying;       /* mark node whose completion this thread is reporting */
};
extern _Thread_local struct pen_cl_thread pen_cl_thread __attribute__((tls_model("initial-exec")));

/* ---- adapter.c, enqueue.c ------------------------------------------------------------------------------------- */

extern const struct pen_adapter pen_cl_adapter;

/* A command on its way through the gate: pen_gate_cmd.native. */
struct pen_cl_cmd {
	/* Makes the native call with this wait list; *event is written if event is not NULL. */
	cl_int (*run)(struct pen_cl_cmd *cmd, const struct pen_piece *piece, cl_uint nwait, const cl_event *wait,
		      cl_event *event);
	const void *args;
	struct pen_cl_queue *queue;
	cl_uint nwait;
	const cl_event *wait;
	cl_event *event;             /* where the application wants it, or NULL */
	cl_event chain, first;       /* of the pieces so far: newest and first, retained */
	bool blocked;                /* by its own wait list */
	bool barrier;                /* nothing behind it starts before it, out of order too */
	bool blocking;               /* complete when the call returns */
	void *result;                /* pointer of a map */
};

/* Through the gate, in this thread. @est_ns counts if @cost is NULL. Return: the native code. */
cl_int pen_cl_submit(struct pen_cl_cmd *cmd, struct pen_gate_cmd *g);
/* True: the wait list holds nothing that is unknown to the gate or may never happen. Sets cmd->blocked otherwise. */
bool pen_cl_runnable(struct pen_cl_queue *q, cl_uint nwait, const cl_event *wait, bool *ret_blocked);
uint64_t pen_cl_region(const size_t *region);
uint64_t pen_cl_pixels(cl_mem image, const size_t *region);
uint64_t pen_cl_hash(uint64_t h, const void *data, size_t n);
#define PEN_CL_HASH_INIT UINT64_C(0xcbf29ce484222325)
/* Cost record of a call (by name) that moves about @bytes. */
struct pen_cost *pen_cl_call_cost(struct pen_cl_queue *q, const char *name, uint64_t bytes);

/* ---- mem.c: exact charge -------------------------------------------------------------------------------------- */

/* Charges @bytes on every device of the context. 0; CL_MEM_OBJECT_ALLOCATION_FAILURE; too large: CL_INVALID_BUFFER_SIZE. */
cl_int pen_cl_charge(struct pen_cl_context *c, uint64_t bytes);
void pen_cl_refund(struct pen_cl_context *c, uint64_t bytes);            /* the native call failed */
void pen_cl_credit(struct pen_cl_context *c, uint64_t bytes);            /* after the native free */
/* Ties a charge to the life of @mem: it is given back at its end by the process that it is tied in. On failure releases @mem, gives the bytes back and returns NULL. */
cl_mem pen_cl_tie(struct pen_cl_context *c, cl_mem mem, uint64_t bytes, cl_int *err);
uint64_t pen_cl_mem_limit(struct pen_cl_device *d);
void *pen_cl_fail(cl_int *err, cl_int code);

/* ---- program.c, cut.c ----------------------------------------------------------------------------------------- */

struct pen_cl_program {
	uint64_t hash;               /* of text or binary and of build options */
	bool cuttable;               /* source known and harmless */
	bool has_include;
	_Atomic uint32_t refs;
};

/* One way a kernel was launched: immutable once seen in the list. */
struct pen_cl_shape {
	struct pen_cl_shape *next;
	struct pen_gate *gate;
	struct pen_cost *cost;
	size_t global[3], local[3];  /* local 0: not given */
	cl_uint dim;
	cl_uint cut_dim;
	uint32_t slices, wave;       /* 1, 1: cannot be cut */
};

struct pen_cl_kernel {
	struct pen_cl_shape *_Atomic last;   /* list, newest first */
	_Atomic uint32_t nshapes;
	uint64_t hash;
	bool cuttable;
	_Atomic uint32_t refs;
};
#define PEN_CL_SHAPES 256        /* of one kernel; further shapes share the last record of their size */

extern struct pen_map pen_cl_kernels;
/* Record of a kernel that came by an unknown way too. NULL: out of memory. */
struct pen_cl_kernel *pen_cl_kernel(cl_kernel id);
bool pen_cl_source_cuttable(const char *text, size_t len, bool *ret_include);
/* Fills slices, wave, cut_dim. */
void pen_cl_cut_plan(const struct pen_cl_kernel *k, const struct pen_cl_device *d, struct pen_cl_shape *s);

/* ---- event.c -------------------------------------------------------------------------------------------------- */

struct pen_cl_queue *pen_cl_event_queue(cl_event e);   /* NULL: user event, foreign, or no event */
bool pen_cl_event_done(cl_event e);                     /* complete or failed */
void pen_cl_event_cut(cl_event last, cl_event first);   /* profiling of @last starts with @first; keeps both as needed */
cl_event pen_cl_event_first(cl_event last);             /* NULL: not cut */
bool pen_cl_user_events(void);                          /* some user event is not set yet */

/* ---- info.c --------------------------------------------------------------------------------------------------- */

/* The size protocol of every query: NULL value, too small a size, size wanted. */
cl_int pen_cl_answer(const void *src, size_t n, size_t size, void *value, size_t *ret_size);

#endif
