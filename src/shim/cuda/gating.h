/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_SHIM_CUDA_GATING_H
#define PEN_SHIM_CUDA_GATING_H
/*
 * Shared by the files that give work to a device: contexts, streams, marks, captures.
 *
 * Records of streams are recycled and never given back to the allocator: a thread may look at one that another is just
 * releasing. Records of contexts go with their last stream and mark. Nothing here is held across a call of the driver; what
 * must not go on beside one is counted in and waited for.
 */
#include "base/auto.h"
#include "base/units.h"
#include "shim/cuda/cu.h"

/* ---- context.c ------------------------------------------------------------------------------------------------- */

enum pen_cu_life { PEN_CU_ALIVE, PEN_CU_CLOSING, PEN_CU_GONE };   /* CLOSING: the driver may be taking it away just now */

struct pen_cu_node;

/* Where the device's clock stands. The base is an event of which it is known when it ended; under the context's lock. */
struct pen_cu_clock {
	struct pen_cu_node *base;        /* with a reference; NULL: none yet */
	uint64_t base_ns;                /* CLOCK_MONOTONIC of its end: never too early by more than drift */
	uint64_t base_made_ns;
};

struct pen_cu_context {
	CUcontext id;
	struct pen_cu_device *device;
	struct pen_gate *gate;
	_Atomic uint32_t life;           /* enum pen_cu_life */
	_Atomic uint32_t users;          /* calls that touch its events; futex word */
	_Atomic uint32_t refs;           /* the map, streams, marks */
	_Atomic uint32_t attached;       /* cuCtxAttach, not yet detached */
	_Atomic uint32_t blocking;       /* streams that wait for its legacy stream and are waited for by it */
	_Atomic uint32_t gate_state;     /* gateword.c: its word of the device-side gate */
	_Atomic uint32_t *gate_word;     /* host memory that the device sees at gate_address; goes with the context */
	CUdeviceptr gate_address;
	struct pen_cu_context *gate_next, **gate_link;
	struct pen_forklock lock;        /* what follows */
	struct pen_cu_node *pool;
	struct pen_cu_stream *streams;
	struct pen_cu_stream *_Atomic legacy;
	struct pen_cu_clock clock;
};

/* The record of the calling thread's context, or of @id, which need not be current. NULL: none, no gate, out of memory. */
struct pen_cu_context *pen_cu_context_current(void);
struct pen_cu_context *pen_cu_context(CUcontext id);
void pen_cu_context_unref(struct pen_cu_context *c);
/* Around calls on events of @c, which may go away with it. False: it has gone, or is about to. Short, may be nested. */
bool pen_cu_context_enter(struct pen_cu_context *c);
void pen_cu_context_leave(struct pen_cu_context *c);
/* Makes @c current in this thread if it is not: true if that worked. *@pushed: give it back. */
bool pen_cu_context_push(struct pen_cu_context *c, bool *pushed);
void pen_cu_context_pop(bool pushed);

/* ---- stream.c -------------------------------------------------------------------------------------------------- */

struct pen_cu_stream {
	struct pen_gate_queue *queue;    /* what the hot path reads comes first */
	struct pen_gate *gate;
	int launch_priority;             /* not 0: of launches in a default stream, which has none of its own */
	struct pen_cu_node *_Atomic wall; /* stands behind a wait that may never end: what follows is not in flight until it is done */
	CUstream id;                     /* never NULL: the default streams by their own names */
	struct pen_cu_context *ctx;
	bool legacy, per_thread, blocking;
	_Atomic uint32_t state;          /* enum pen_cu_life; CLOSING: for the thread that ends it alone */
	_Atomic uint32_t use;            /* number of lives that the record has had */
	_Atomic bool shared;             /* more than one thread has given it work */
	_Atomic bool capture_began;      /* by a call on it, and not ended */
	const void *owner;               /* the thread that made it, or that ends it, by address */
	int priority;                    /* as the application asked; of created streams */
	bool has_priority;
	_Atomic uint32_t slow;           /* commands that went the long way */
	_Atomic uint32_t inside;         /* pinned; futex word */
	struct pen_cu_stream *next, **link;   /* of the context, under its lock */
};

/* Rises whenever a stream or a context goes: what threads remember of handles is void then. */
extern _Atomic uint32_t pen_cu_version;

#define PEN_CU_COSTS 64   /* per thread; a power of two */
struct pen_cu_cost_slot {
	CUfunction function;
	struct pen_gate *gate;
	struct pen_cost *cost;
	uint32_t grid[3], block[3];
};

/* A per-thread stream of a thread: the record may go, with the context, while this stays. */
struct pen_cu_own {
	struct pen_cu_own *next;
	struct pen_cu_stream *rec;
	uint32_t use;
};

/* What a thread remembers. On the heap, since a library that comes by dlopen has little thread-local room. */
struct pen_cu_local {
	CUstream stream;                 /* created stream used last */
	struct pen_cu_stream *rec;
	uint32_t version;
	struct { CUcontext ctx; struct pen_cu_stream *rec; uint32_t version; } own[2];   /* default stream: legacy, per thread */
	struct pen_cu_own *mine;
	uint32_t process;
	struct pen_cu_cost_slot cost[PEN_CU_COSTS];
};
extern _Thread_local struct pen_cu_local *pen_cu_local_ __attribute__((tls_model("initial-exec")));
struct pen_cu_local *pen_cu_local_new(void);   /* NULL: out of memory */
static inline struct pen_cu_local *pen_cu_local(void)
{
	struct pen_cu_local *l = pen_cu_local_;
	return __builtin_expect(l != NULL, 1) ? l : pen_cu_local_new();
}

struct pen_cu_stream *pen_cu_stream_slow(CUstream id);   /* id: not NULL */

/* As pen_cu_stream(), for the launch path. */
static inline struct pen_cu_stream *pen_cu_stream_fast(struct pen_cu_local *l, CUstream stream, bool per_thread)
{
	if (__builtin_expect(!l, 0))
		return pen_cu_stream(stream, per_thread);
	uint32_t version = atomic_load_explicit(&pen_cu_version, memory_order_acquire);
	if (!stream)
		stream = per_thread ? CU_STREAM_PER_THREAD : CU_STREAM_LEGACY;
	if ((uintptr_t)stream > (uintptr_t)CU_STREAM_PER_THREAD) {
		if (l->stream == stream && l->version == version)
			return l->rec;
	} else {
		/* The driver alone knows the current context: it is changed by ways that we do not see. */
		CUcontext ctx = NULL;
		unsigned i = stream == CU_STREAM_PER_THREAD;
		if (REAL(cuCtxGetCurrent)(&ctx) != CUDA_SUCCESS || !ctx)
			return NULL;
		if (l->own[i].ctx == ctx && l->own[i].version == version)
			return l->own[i].rec;
	}
	return pen_cu_stream_slow(stream);
}

/* For who has no right to the stream by a call on it: it stays until he leaves. Short, no call that waits for the device. */
bool pen_cu_stream_pin(struct pen_cu_stream *s, uint32_t use);
void pen_cu_stream_unpin(struct pen_cu_stream *s);
/* A command stands behind what may never end without this process: user code, another device, another process. */
void pen_cu_stream_wall(struct pen_cu_stream *s);
bool pen_cu_stream_walled(struct pen_cu_stream *s);
/* The context goes: all of its streams do. */
void pen_cu_streams_gone(struct pen_cu_context *c);

/* The one-entry memory of a thread whose stream was used by another one tells nothing about "newest". */
static inline void pen_cu_stream_used(struct pen_cu_stream *s)
{
	if (s->owner != (const void *)&pen_cu_thread && !atomic_load_explicit(&s->shared, memory_order_relaxed))
		atomic_store_explicit(&s->shared, true, memory_order_relaxed);
}

/* ---- capture.c ------------------------------------------------------------------------------------------------- */

extern _Atomic uint32_t pen_cu_captures;   /* streams of this process on which a capture was begun and not ended */
/* May this thread put an event into a stream that it was not asked to use? Between the two no capture begins. */
bool pen_cu_record_enter(void);
void pen_cu_record_leave(void);
bool pen_cu_capturing(struct pen_cu_stream *s);
void pen_cu_capture_gone(struct pen_cu_stream *s);

/* Queries of events and the like would invalidate another thread's capture unless this thread says that it means it. */
static inline CUstreamCaptureMode pen_cu_relax(void)
{
	CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
	if (REAL(cuThreadExchangeStreamCaptureMode))
		REAL(cuThreadExchangeStreamCaptureMode)(&mode);
	return mode;
}
static inline void pen_cu_unrelax(CUstreamCaptureMode mode)
{
	if (REAL(cuThreadExchangeStreamCaptureMode))
		REAL(cuThreadExchangeStreamCaptureMode)(&mode);
}

/* ---- adapter.c ------------------------------------------------------------------------------------------------- */

extern const struct pen_adapter pen_cu_adapter;

/* Two events, or the second alone. */
struct pen_cu_node {
	struct pen_cu_node *next;        /* in the pool */
	struct pen_cu_context *ctx;      /* with a reference, while it is not in the pool */
	CUevent before, after;
	_Atomic uint32_t refs;
	bool has_before;                 /* was recorded */
};

/* A mark behind everything that is in @s now. NULL: there is none to be had. The caller has made sure that no capture is in the way. */
struct pen_cu_node *pen_cu_node_record(struct pen_cu_stream *s);
int pen_cu_node_poll(struct pen_cu_node *n);     /* 1, 0, negative errno: as pen_adapter.mark_poll */
void pen_cu_node_put(struct pen_cu_node *n);
void pen_cu_pool_drop(struct pen_cu_context *c); /* the context has gone, and its events with it */

/* A command on its way through the gate: pen_gate_cmd.native. */
struct pen_cu_cmd {
	CUresult (*run)(struct pen_cu_cmd *cmd, const struct pen_piece *piece);   /* makes the native call */
	struct pen_cu_stream *stream;
	bool blocking;                   /* complete when the call returns: needs no mark */
};

/* Through the gate, in this thread. Fills what the callers have in common. Return: the native code. */
CUresult pen_cu_submit(struct pen_cu_cmd *cmd, struct pen_gate_cmd *g);

/* Of this device: pen_cu_device.gating. */
struct pen_cu_gating {
	struct pen_cu_device *device;
	_Atomic uint32_t contexts;       /* records of living contexts */
	_Atomic uint32_t waiting;        /* threads inside a wait of the driver */
	_Atomic uint32_t watch, listed;  /* watch.c: its gate is to be looked at; it is in the list */
	struct pen_cu_gating *next_watched;
	_Atomic uint64_t units_known;    /* units.c: asked for, and below it granted */
	_Atomic uint32_t part_state;
	_Atomic uint32_t retained;       /* primary context, by the application */
	CUgreenCtx green;                /* made, and the context that stands for it */
	CUcontext part;
	_Atomic uint32_t range_known, mps;   /* priority.c */
	int least, greatest;
	_Atomic uint32_t gate_listed;
	struct pen_cu_gating *next_gated;
	struct pen_forklock gate_lock;   /* what follows */
	struct pen_cu_context *gated;    /* contexts with a word */
	uint32_t gate_number;            /* that it holds */
	_Atomic uint64_t wave_ns;        /* what a full device of threads of an unknown kernel takes, from those that are known; 0 = nothing known */
	_Atomic uint32_t threads;        /* that the device holds at once; 0 = not asked yet */
	struct pen_cost *_Atomic copy[8][64];   /* by direction and power of two */
};
struct pen_cu_gating *pen_cu_gating(struct pen_cu_device *d);   /* NULL: out of memory */

/* ---- watch.c --------------------------------------------------------------------------------------------------- */

void pen_cu_watch(void *device);   /* adapter slot: looks at the marks of this device until nothing is in flight */
bool pen_cu_watched(void);         /* the thread is there */

/* ---- units.c --------------------------------------------------------------------------------------------------- */

int pen_cu_set_units(void *device, uint32_t units);   /* adapter slot */
/* Before a release or reset: the context that goes with it, if any; pen_cu_units_end() then takes it away. */
CUcontext pen_cu_units_released(CUdevice dev, bool reset);
void pen_cu_units_end(CUdevice dev);

/* ---- priority.c ------------------------------------------------------------------------------------------------ */

#define PEN_CU_ATTRIBUTES 32   /* of a launch; with more it goes as it is */
int pen_cu_priority(struct pen_cu_context *c, int asked);   /* to be given to the driver in place of @asked */
bool pen_cu_priority_acts(struct pen_cu_context *c);
void pen_cu_priority_seen(struct pen_cu_stream *s);         /* a stream that no hook has made */
bool pen_cu_priority_launch(struct pen_cu_stream *s, const CUlaunchConfig *c, CUlaunchConfig *copy, CUlaunchAttribute *room);

/* ---- gateword.c ------------------------------------------------------------------------------------------------ */

bool pen_cu_gate_ready(struct pen_gate_queue *q);              /* adapter slots */
void pen_cu_gate_open(void *device, uint32_t number);
bool pen_cu_gate_wait(struct pen_cu_stream *s, uint32_t number);   /* puts the wait into the stream */
void pen_cu_gate_end(struct pen_cu_context *c);                /* the context goes: nothing stands at its gate any more */
void pen_cu_gate_stays(struct pen_cu_context *c);              /* ... it did not go */
void pen_cu_gate_end_all(void);                                /* the process does */

/* ---- event.c, launch.c: the context has gone --------------------------------------------------------------------- */

void pen_cu_events_gone(struct pen_cu_context *c);
void pen_cu_host_gone(struct pen_cu_context *c);

/* ---- copy.c ---------------------------------------------------------------------------------------------------- */

uint64_t pen_cu_mix(uint64_t a, uint64_t b);   /* hash of two words */

#endif
