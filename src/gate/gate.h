/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_GATE_GATE_H
#define PEN_GATE_GATE_H
/*
 * The gate: the code in the tenant's process that carries out admissions. One per process and device. A shim calls it
 * around the vendor library's entry points:
 *
 *   create queue      pen_gate_queue_create(...)                      release queue   pen_gate_queue_destroy(...)
 *   kernel, copy      pen_gate_fast(q, est) ? native call             : pen_gate_submit(q, &cmd)  (calls adapter->submit)
 *   finish, wait      t = pen_gate_sync_begin(q); native; pen_gate_sync_end(q, t)
 *   allocate          pen_gate_mem_reserve -> native -> pen_gate_mem_refund on failure; pen_gate_mem_release at free
 *
 * Threads: every function from any thread at once. Nothing here exits, aborts, prints (but one rate-limited line through
 * pen_log where said), or blocks without a bound. After fork the child's gate is detached and attaches anew at first use.
 * Hot path: pen_gate_fast touches board words and one word of the queue; no clock, one locked operation, no call.
 */
#include "base/lock.h"
#include "board/layout.h"
#include "gate/adapter.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pen_gate;

enum pen_managed {
	PEN_UNMANAGED = 0,   /* no tenant directory: the shim must change nothing */
	PEN_MANAGED = 1,
	PEN_REFUSED = 2,     /* managed, but no or a wrong token, or the daemon refused: fail closed */
};

/*
 * Is this process managed? Looks for the tenant directory once per process (and once more after fork): the fixed place
 * PEN_TENANT_MOUNT if it exists, else the directory named by PENSTOCK_TENANT. Cheap afterwards. Never contacts the daemon.
 */
enum pen_managed pen_gate_managed(void);

/* What the shim knows about a device. Strings are borrowed during the call. */
struct pen_gate_device {
	const char *key;        /* base/devkey.h: the same string that the daemon's probe computes */
	const char *model;      /* for people */
	uint64_t mem_bytes;
	uint32_t units;
	void *native;           /* handed to adapter->flush_all and set_units */
};

/*
 * pen_gate_open - the gate of a device in this process; attaches to the daemon on first use
 * Return: 0 and *@ret_gate (one per key and process; never freed: queues may outlive everything at exit);
 *   -ENOTCONN not managed; -EACCES refused (fail closed; one line was logged); -EAGAIN daemon unreachable: managed tenants
 *   without terms fail closed on first attach, and go on with their last terms afterwards.
 */
int pen_gate_open(const struct pen_adapter *adapter, const struct pen_gate_device *dev, struct pen_gate **ret_gate);
const struct pen_terms *pen_gate_terms(struct pen_gate *g);   /* last good copy; refreshed in place by slow paths: read fields once */

/* ---- queues and commands -------------------------------------------------------------------------------------- */

#define PEN_QUEUE_OUT_OF_ORDER UINT32_C(1)

/*
 * Credit word of a queue, so that a fast command is one locked operation and still counted exactly: commands since the
 * last slow path in the high 24 bits, remaining credit (ns) + PEN_CREDIT_BIAS in the low 40.
 */
#define PEN_CREDIT_BITS 40
#define PEN_CREDIT_BIAS (UINT64_C(1) << (PEN_CREDIT_BITS - 1))
#define PEN_CREDIT_ONE (UINT64_C(1) << PEN_CREDIT_BITS)
#define PEN_CREDIT_MASK (PEN_CREDIT_ONE - 1)

/* Head of a queue record: what the inline fast path reads. The rest is gate-private behind it. */
struct pen_gate_queue {
	_Alignas(64) _Atomic uint64_t credit;
	struct pen_gate_hot *hot;
	void *native;                /* the shim's queue record */
	struct pen_gate *gate;
};

/*
 * Of a gate: what the inline fast path reads. Lies on a page that the kernel wipes in a forked child (MADV_WIPEONFORK):
 * seen_epoch 0 = detached, and nothing else is looked at, since the board is not mapped there.
 */
struct pen_gate_hot {
	const _Atomic uint64_t *epoch;                    /* terms page word */
	_Atomic uint64_t seen_epoch;                      /* value the slow path has digested; 0 = none */
	_Atomic uint32_t nwatch;                          /* seats that outrank us */
	const _Atomic uint32_t *_Atomic watch[PEN_SEATS]; /* their busy words; mapped for ever */
};

int pen_gate_queue_create(struct pen_gate *g, void *native, uint32_t flags, struct pen_gate_queue **ret_q);
/*
 * The application releases it: to be called before the native release, since a tail without a mark gets one now. Work
 * that is still in flight is retired when its marks are done. NULL is fine.
 */
void pen_gate_queue_destroy(struct pen_gate_queue *q);
/* False in a forked child for its parent's, whose commands are passed on and not asked for; and where there is no attachment. */
bool pen_gate_queue_is_own(struct pen_gate_queue *q);

/* True: admitted, call the native entry point now (no mark is needed). False: use pen_gate_submit. @est_ns > 0. */
static inline bool pen_gate_fast(struct pen_gate_queue *q, uint64_t est_ns)
{
	struct pen_gate_hot *h = q->hot;
	uint64_t seen = atomic_load_explicit(&h->seen_epoch, memory_order_acquire);
	if (!seen || atomic_load_explicit(h->epoch, memory_order_relaxed) != seen)
		return false;
	uint64_t word = atomic_load_explicit(&q->credit, memory_order_relaxed);
	if ((word & PEN_CREDIT_MASK) < PEN_CREDIT_BIAS + est_ns)
		return false;
	uint32_t n = atomic_load_explicit(&h->nwatch, memory_order_acquire);
	for (uint32_t i = 0; i < n; i++) {
		const _Atomic uint32_t *busy = atomic_load_explicit(&h->watch[i], memory_order_relaxed);
		if (PEN_BUSY_STATE(atomic_load_explicit(busy, memory_order_acquire)) != PEN_BUSY_IDLE)
			return false;
	}
	word = atomic_fetch_add_explicit(&q->credit, PEN_CREDIT_ONE - est_ns, memory_order_acq_rel);
	if (((word + PEN_CREDIT_ONE - est_ns) & PEN_CREDIT_MASK) >= PEN_CREDIT_BIAS)
		return true;
	atomic_fetch_sub_explicit(&q->credit, PEN_CREDIT_ONE - est_ns, memory_order_relaxed);
	return false;
}

/* A copy that pen_gate_fast() admitted: for the account. Where a rate is to be kept there is no credit, and all bytes go by cmd.bytes. */
void pen_gate_count_bytes(struct pen_gate_queue *q, uint64_t bytes);

enum pen_cmd_kind { PEN_CMD_KERNEL, PEN_CMD_COPY, PEN_CMD_FILL, PEN_CMD_GRAPH, PEN_CMD_COUNT_ONLY, PEN_CMD_KIND_MAX_ };

#define PEN_CMD_NO_WAIT UINT32_C(1)        /* the shim knows that it must not wait */
#define PEN_CMD_NOT_RUNNABLE UINT32_C(2)   /* depends on something that may never happen without this thread (unset user
                                              event, foreign event): not in flight until its mark starts; never waited for */
#define PEN_CMD_BLOCKING UINT32_C(4)       /* the native call returns when the command is complete */

struct pen_gate_cmd {
	void *native;            /* for adapter->submit */
	struct pen_cost *cost;   /* learned cost; NULL: est_ns counts */
	uint64_t est_ns;
	uint64_t bytes;
	uint32_t slices, wave;   /* 1, 1 = cannot be cut */
	enum pen_cmd_kind kind;
	uint32_t flags;
};

/*
 * pen_gate_submit - admit a command, piece by piece, and hand it to adapter->submit
 * Blocks as long as the contract says (every single wait bounded); order within the queue is that of the calls.
 * Return: the native code of the first failing piece, 0, or adapter->oom_code(PEN_DENY_NO_DEVICE) if the tenant is stopped.
 */
int pen_gate_submit(struct pen_gate_queue *q, const struct pen_gate_cmd *cmd);

/*
 * The application synchronises: begin before, end after the native call has returned success. Everything that was
 * submitted to @q before begin is then known to be complete. The _all pair is for device-wide synchronisation.
 */
uint64_t pen_gate_sync_begin(struct pen_gate_queue *q);
void pen_gate_sync_end(struct pen_gate_queue *q, uint64_t token);
uint64_t pen_gate_sync_all_begin(struct pen_gate *g);
void pen_gate_sync_all_end(struct pen_gate *g, uint64_t token);
/* Something completed (an event query said so): look at the marks. Cheap when nothing is in flight. */
void pen_gate_poll(struct pen_gate_queue *q);
/*
 * pen_gate_watch - for adapters that do not notify: look at all marks, in place of an application that makes no call
 * Puts marks behind tails; one that can get none has ended when its estimate has passed. From the thread that adapter->watch asked for.
 * Return: ns until it should be called again; 0: not before adapter->watch was called again.
 */
uint64_t pen_gate_watch(struct pen_gate *g);
/*
 * While a device-side gate stands in front of work: the word on which others tell this process that an outranking tenant has become
 * busy or idle. The watcher sleeps on it beside its own (its value is 1). NULL: none does.
 */
const _Atomic uint32_t *pen_gate_bell(struct pen_gate *g);
/* Submission edge, before the native clFlush: a tail without a mark gets one, so that its end is seen. */
void pen_gate_edge(struct pen_gate_queue *q);
/*
 * From the driver's completion callback of a mark (NOTIFY), once for each mark that was filled: trylock only, no vendor call
 * but mark_time and mark_release. May come before submit or mark_record has returned.
 */
void pen_gate_mark_done(struct pen_mark *mark, bool failed);

/* ---- cost learning -------------------------------------------------------------------------------------------- */

/*
 * Learned device time of (what, size). @what identifies the kernel (hash of program and name) or the copy kind; @size its
 * work (groups, bytes). Never freed, bounded: past the bound the nearest size of the same kernel scaled, else a shared entry.
 */
struct pen_cost *pen_gate_cost(struct pen_gate *g, uint64_t what, uint64_t size);   /* never NULL; lock-free when known */
/* The same, with the shim's guess for a command of which no size was ever seen. */
struct pen_cost *pen_gate_cost_guessed(struct pen_gate *g, uint64_t what, uint64_t size, uint64_t guess_ns);
/* The command has changed: what was learned stands until the next sample, which replaces it. */
void pen_gate_cost_renew(struct pen_cost *c);
/* One measured execution, alone on the device. */
void pen_cost_learn(struct pen_cost *c, uint64_t device_ns);
#define PEN_COST_FLOOR_NS UINT64_C(200)
#define PEN_COST_GUESS_NS UINT64_C(1000000)   /* nothing like it was ever seen */

struct pen_cost {
	_Atomic uint64_t est_ns;     /* >= PEN_COST_FLOOR_NS; a guess while unknown */
	_Atomic uint32_t samples;    /* measured executions; 0 = unknown */
};

static inline uint64_t pen_cost_est_ns(const struct pen_cost *c)
{
	return atomic_load_explicit(&c->est_ns, memory_order_relaxed);
}
static inline bool pen_cost_known(const struct pen_cost *c)
{
	return atomic_load_explicit(&c->samples, memory_order_relaxed) != 0;
}
/* ---- memory --------------------------------------------------------------------------------------------------- */

/*
 * 0 charged; -ENOMEM over the limit or allocations stopped (counted, logged once). Before the native call. Waits, 20 ms at most, only
 * above what is lent to the tenant and within what contracts allow it: the daemon may have more.
 */
int pen_gate_mem_reserve(struct pen_gate *g, uint64_t bytes);
/* The native call failed, or took less: give back. Also counts the object away unless @keep_object. */
void pen_gate_mem_refund(struct pen_gate *g, uint64_t bytes, bool keep_object);
/* After the native free. Callable from driver callbacks: never blocks. */
void pen_gate_mem_release(struct pen_gate *g, uint64_t bytes);
/* Taken already, by the driver's own doing: charged above the limit too, so that nothing more is to be had. No object. */
void pen_gate_mem_force(struct pen_gate *g, uint64_t bytes);
/* limit: by contracts and device, UINT64_MAX if neither says; used: whole tenant with its overhead, may be above the limit. */
struct pen_mem_view { uint64_t limit_bytes, used_bytes; };
void pen_gate_mem_view(struct pen_gate *g, struct pen_mem_view *ret);

/* ---- for management libraries --------------------------------------------------------------------------------- */

/* A process of the own tenant. What the tenant's own processes say of themselves: they deceive nobody but each other. */
struct pen_gate_client {
	uint32_t pid;              /* as it sees itself; 0 = not told */
	uint64_t charged_bytes;    /* device memory */
	uint64_t device_ns;        /* device time charged since it attached */
};
/* Those attached to the device now, at most @room (PEN_LEDGER_CLIENTS is enough). Return: their number; 0 also if there is no attachment. */
size_t pen_gate_clients(struct pen_gate *g, struct pen_gate_client *v, size_t room);

/* ---- for libpenstock ------------------------------------------------------------------------------------------------ */

#define PEN_REQUEST_LEDGERS 32

/* A request that the application has marked, at its end. */
struct pen_gate_request {
	uint64_t start_ns, end_ns;
	bool any;                  /* false: counts on devices that this process has given work to since its start; true: on all */
	uint32_t n;                /* ledgers that it was counted in so far; 0 at first */
	uint64_t ledger[PEN_REQUEST_LEDGERS];
};
void pen_gate_request(struct pen_gate_request *r);   /* never waits, makes no system call */

/* The gates of this library that submit, the newest first; NULL: begins, and the end. Never removed. */
struct pen_gate *pen_gate_next(struct pen_gate *g);

struct pen_gate_who {
	const char *key, *model, *adapter;   /* as long as the process */
	bool attached;                       /* has terms; false in a forked child until it uses the device */
	bool refused;
	uint64_t lease_until_ns;
	uint64_t denials;                    /* of memory, of the whole tenant */
};
void pen_gate_who(struct pen_gate *g, struct pen_gate_who *ret);

/*
 * A process has one connection to the daemon, and so one gate per device, however many libraries of ours are in it. One that does
 * not submit uses the gate that lies in another, through this table; the CUDA shim's is to be had by cuGetExportTable() under
 * this identifier.
 */
struct pen_gate_door {
	uint32_t abi, size;        /* PEN_GATE_DOOR_ABI, sizeof(struct pen_gate_door) */
	enum pen_managed (*managed)(void);
	int (*open)(const struct pen_adapter *adapter, const struct pen_gate_device *dev, struct pen_gate **ret_gate);
	const struct pen_terms *(*terms)(struct pen_gate *g);
	void (*mem_view)(struct pen_gate *g, struct pen_mem_view *ret);
	size_t (*clients)(struct pen_gate *g, struct pen_gate_client *v, size_t room);
	/* What follows is newer than the rest: whoever takes the table from another library looks at its size first. */
	_Atomic uint32_t *marker;  /* the process that marks its own requests, by getpid(); 0 = none */
	void (*request)(struct pen_gate_request *r);
	struct pen_gate *(*next)(struct pen_gate *g);
	void (*who)(struct pen_gate *g, struct pen_gate_who *ret);
};
#define PEN_GATE_DOOR_ABI 1
#define PEN_GATE_DOOR_ID "Penstock gate 1"   /* 16 bytes with its end */
extern const struct pen_gate_door pen_gate_door;
/*
 * An ELF note says where in a library the table lies: as an offset from itself, so that nothing is exported, looked up or called to find
 * it, and the names that a drop-in has stay the real library's (dl_iterate_phdr(3), src/lib/doors.c).
 */
#define PEN_GATE_NOTE_NAME "Penstock"
#define PEN_GATE_NOTE_DOOR 2   /* 1 is of base/driverfile.h */

#endif
