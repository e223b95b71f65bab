/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_GATE_INTERNAL_H
#define PEN_GATE_INTERNAL_H
/*
 * What the files of the gate share. Nobody else includes this, but the gate's own tests: pen_gate_open_device() builds a
 * gate on board pages made by hand.
 *
 * Locking. One lock per gate, for short sections without a call into the adapter or anything that waits. Whatever needs
 * the adapter is prepared under the lock (a batch is pinned or taken as work), done without it, and its result is picked
 * up under it. A driver's thread only ever tries the lock: it leaves `pending` set, and whoever holds the lock looks at it
 * after unlocking. Store and load on both sides are sequentially consistent, so a completion is never forgotten.
 *
 * A batch is what one slow admission covers: its first command, which carries the mark, and the commands that the fast
 * path admits on its spare credit (the tail). The first part ends with the mark; the tail ends at the next mark of the
 * same in-order queue, or at a synchronisation.
 */
#include "admit/admit.h"
#include "base/clock.h"
#include "board/attach.h"
#include "board/testpoint.h"
#include "gate/gate.h"

#define PEN_GATE_CONNECTION_NS UINT64_C(100000000) /* a hang-up is noticed this late at most */
#define PEN_GATE_FETCH_NS UINT64_C(1000000)        /* missing pages of neighbours are looked for this often */
#define PEN_GATE_RESEND_NS UINT64_C(50000000)      /* ... and asked for again after this */
#define PEN_GATE_POLL_NS UINT64_C(20000)           /* without NOTIFY: marks are looked at this often on the way */
#define PEN_GATE_WATCH_NS UINT64_C(1000000)         /* ... and by a watcher this often if nobody waits for their end */
#define PEN_GATE_LINGER_NS UINT64_C(20000000)      /* a watcher stays on for so long: waking it costs each burst a system call */
#define PEN_GATE_TAIL_NS UINT64_C(100000)          /* a tail without a mark is given so much more than twice its estimate */
#define PEN_GATE_EST_MAX_NS UINT64_C(100000000000) /* 100 s: keeps the credit word in range */
#define PEN_GATE_WORK 16                           /* batches taken to the adapter at once */

/* Points at which a test kills the process: JOIN is "gate-JOIN" (board/testpoint.h). One that is not listed does not compile. */
#define PEN_GATE_POINTS(X)                                                                                            \
	X(JOIN) X(CLAIM) X(TOKENS) X(RUN) X(SUBMIT) X(SUBMITTED) X(HOLD) X(RETIRE) X(CHARGE) X(CLEAR) X(WAKE)
enum pen_gate_point {
#define X(id) PEN_GATE_POINT_##id,
	PEN_GATE_POINTS(X)
#undef X
};
#define PEN_GATE_POINT(id) ((void)PEN_GATE_POINT_##id, PEN_TEST_POINT("gate-" #id))

struct pen_gate_queue_full;

struct pen_gate_batch {
	struct pen_mark mark;        /* first: pen_gate_mark_done() finds the batch by it */
	_Atomic uint32_t submitting; /* submissions under way; 0 = all of it is with the device */
	char life[0];                /* what follows is cleared for each life of the record */
	struct pen_gate_batch *next;
	struct pen_gate_queue_full *q;
	struct pen_gate *gate;
	uint64_t seq;                /* of the gate: rises in the order of admission */

	uint64_t submit_ns;          /* host time */
	_Atomic uint64_t seen_ns;    /* host time at which the mark was seen complete */
	uint64_t start_ns, end_ns;   /* device time of the first command; written by the worker before timed = 1 */
	uint64_t sync_ns;            /* host time at which a synchronisation ended it */
	uint64_t est_ns;             /* first command */
	uint64_t tail_ns;            /* estimate of the tail as far as it is known */
	uint64_t booked_ns;          /* tokens taken */
	uint64_t inflight_ns;        /* its part of the state's inflight_ns, or what it will be when counted */
	struct pen_cost *cost;
	uint32_t tail_n;
	uint32_t slices, slices_all; /* of the first command: this piece, the whole */
	uint32_t pins;               /* threads in mark_poll or mark_wait */
	_Atomic uint32_t timed;      /* 1: times were looked for; start_ns 0 = there are none */

	uint64_t runs_foreign, runs_all, overlap;
	uint32_t gate_number;        /* of the device-side gate in front of it; 0 = none */
	bool has_mark, released, complete, synced, sealed, working;
	bool counted;                /* in flight: in nflight and inflight_ns */
	bool not_runnable, edge;
	bool tainted;                /* another tenant had work in flight at the start */
	bool dirty;                  /* anybody else, own tenant and own queues included */
	bool solo;                   /* nothing of this process was in flight at the start */
	bool exact, sync_exact;      /* seen_ns, sync_ns is the end and not merely some time after it */
};

struct pen_gate_queue_full {
	struct pen_gate_queue head;
	struct pen_gate_queue_full *next;
	struct pen_gate_batch *first, *last;
	uint64_t spare_ns;           /* credit given out with the last batch and not yet taken back */
	uint32_t nflight;            /* of its batches */
	uint32_t flags, fork_count;
	uint32_t nblocked;           /* not-runnable batches that are not done */
	_Atomic uint32_t marks;      /* that exist */
	_Atomic uint32_t refs;       /* calls inside */
	_Atomic uint32_t gate_coming; /* gated batches whose threads are on their way to the device */
	uint32_t gate_number, gate_same;   /* of the last of them; batches that have it */
	bool dead;
};

struct pen_gate_costs;

/* The device-side gate (devgate.c). Numbers of batches wrap around. */
struct pen_gate_dev {
	uint32_t last;                       /* given out */
	uint32_t word;                       /* what the adapter was told last */
	uint32_t standing;                   /* batches behind it that are in flight */
	bool shut;
	uint16_t blocker;                    /* seat + 1 that it is shut for; 0 = none */
	uint32_t blocker_word;
	uint64_t blocker_progress, blocked_since_ns;
	uint64_t pulse_ns;                   /* last time that one number was let through */
};

/* LINGERS: pen_gate_watch() is being called, but found nothing in flight: it may be a moment late for what comes now. */
enum pen_gate_watched { PEN_GATE_UNWATCHED, PEN_GATE_LINGERS, PEN_GATE_WATCHED };

struct pen_gate {
	struct pen_gate_hot *hot;            /* wiped in a forked child */
	const struct pen_adapter *_Atomic ad;   /* an observer's is replaced once, before there is a queue */
	struct pen_attach *attach;           /* NULL: pages made by hand */
	struct pen_attach_device *dev;
	int (*reattach)(struct pen_attach_device *d);
	void *native;
	char key[PEN_DEVKEY_MAX];
	uint64_t mem_device_bytes;
	struct pen_gate *next;               /* registry; never removed */
	struct pen_gate_costs *costs;

	struct pen_terms terms_copy[2];      /* last good and the one before it */
	_Atomic uint32_t terms_now;
	_Atomic uint64_t now_ns;             /* last reading of the clock by a slow path: good enough for what need not be exact */
	_Atomic uint64_t mem_bytes;          /* charged by this process, for a ledger that was replaced */
	_Atomic uint32_t denial_logged;
	_Atomic uint64_t connection_ns;      /* next look at the connection */
	_Atomic uint64_t missing_since_ns;   /* a neighbour's page is missing; 0 = none */
	_Atomic uint32_t refused;            /* for good */
	_Atomic uint32_t units_set;
	_Atomic uint64_t warm_ns;            /* last time that a kernel was asked for which had not run before */
	_Atomic uint32_t fork_count;         /* forks survived: a queue of an earlier count is empty */
	_Atomic uint32_t kick;               /* futex word: bumped when something was retired */
	_Atomic uint32_t kick_waiters;
	_Atomic uint32_t pending;            /* somebody must collect */

	struct pen_lock lock;                /* below: under it */
	struct pen_admit_limits lim;
	struct pen_admit_state st;
	struct pen_gate_queue_full *queues;
	struct pen_gate_batch *pool, *zombies, *blocks;
	struct pen_gate_batch *_Atomic freed; /* given back without the lock */
	uint64_t seq;
	uint64_t overlap;                    /* rises when work of a second queue joins */
	uint64_t end_ns;                     /* of the last device time charged */
	uint64_t polled_ns;
	uint32_t nflight;                    /* batches in flight */
	uint32_t nheld, nwant, nmore;        /* threads held; of those by rank or turn; by the window, with more to run */
	uint32_t nseatwait;                  /* threads asleep on a seat */
	uint32_t seat, client, attached;
	uint64_t ledger_instance;
	bool kick_due;                       /* somebody sleeps on `kick`, and it was bumped */
	bool active;                         /* backlogged: something in flight or somebody held */
	bool warm_up;                        /* ... and a kernel ran for the first time since that began */
	uint16_t foreign[PEN_SEATS];         /* taken seats, own tenant's included, from the terms */
	uint32_t nforeign;
	uint32_t nothers;                    /* of them, other tenants' */
	enum pen_gate_watched watched;
	struct pen_gate_dev devgate;
};

static inline struct pen_gate_queue_full *pen_gate_full(struct pen_gate_queue *q)
{
	return (struct pen_gate_queue_full *)(void *)q;
}
static inline const struct pen_terms *pen_gate_terms_(struct pen_gate *g)
{
	return &g->terms_copy[atomic_load_explicit(&g->terms_now, memory_order_acquire)];
}
static inline bool pen_gate_stale(struct pen_gate *g)
{
	return atomic_load_explicit(&g->dev->terms->epoch, memory_order_relaxed) !=
	       atomic_load_explicit(&g->hot->seen_epoch, memory_order_relaxed);
}
static inline struct pen_ledger_client *pen_gate_account(struct pen_gate *g)
{
	return &g->dev->ledger->client[g->client];
}
static inline uint64_t pen_clamp(uint64_t v, uint64_t low, uint64_t high)
{
	return v < low ? low : v > high ? high : v;
}
static inline void pen_count(_Atomic uint64_t *word, uint64_t n)
{
	atomic_fetch_add_explicit(word, n, memory_order_relaxed);
}

/* Reads the clock, for this section and for what asks pen_gate_lately(). */
static inline uint64_t pen_gate_now(struct pen_gate *g)
{
	uint64_t now = pen_mono_ns();
	atomic_store_explicit(&g->now_ns, now, memory_order_relaxed);
	return now;
}
static inline uint64_t pen_gate_lately(struct pen_gate *g)
{
	return atomic_load_explicit(&g->now_ns, memory_order_relaxed);
}

/* ---- lock (gate.c) ---- */
static inline int pen_gate_trylock_(struct pen_gate *g)
{
	uint32_t free_word = 0;
	return atomic_compare_exchange_strong(&g->lock.word, &free_word, 1);
}
static inline void pen_gate_lock(struct pen_gate *g)
{
	if (!pen_gate_trylock_(g))
		pen_lock_slow_(&g->lock);
}
static inline void pen_gate_unlock_only(struct pen_gate *g)
{
	bool kick = g->kick_due;
	g->kick_due = false;
	if (atomic_exchange(&g->lock.word, 0) == 2)
		pen_lock_wake_(&g->lock);
	if (kick)
		pen_futex_wake(&g->kick, INT32_MAX);
}
void pen_gate_drain(struct pen_gate *g);   /* without the lock: does what is pending, if the lock is free */
static inline void pen_gate_unlock(struct pen_gate *g)
{
	pen_gate_unlock_only(g);
	if (atomic_load(&g->pending))
		pen_gate_drain(g);
}

/* ---- process and connection (gate.c, connect.c) ---- */
bool pen_gate_forked_(void);
bool pen_gate_marks_(void);   /* this process marks its requests itself */
extern _Atomic uint32_t pen_gate_marker;
int pen_gate_ready_slow_(struct pen_gate *g);
/* Are there terms and pages that are this process's own? False in a forked child until its first use. */
static inline bool pen_gate_attached(const struct pen_gate *g)
{
	return atomic_load_explicit(&g->hot->seen_epoch, memory_order_acquire) && !pen_gate_forked_();
}
/* Before anything that touches the board. Attaches anew after a fork. Return: 0; -EAGAIN, -EACCES. */
static inline int pen_gate_ready(struct pen_gate *g)
{
	return pen_gate_attached(g) ? 0 : pen_gate_ready_slow_(g);
}
/* Waits for terms, fills the hot words; the device is live. */
int pen_gate_bind(struct pen_gate *g);
void pen_gate_connection(struct pen_gate *g, uint64_t now_ns);
/*
 * A gate on pages made by hand, without a connection. @d must outlive it. @reattach: gives a forked child its own pages;
 * NULL: the child is refused. For tests.
 */
int pen_gate_open_device(const struct pen_adapter *adapter, const struct pen_gate_device *dev,
			 struct pen_attach_device *d, int (*reattach)(struct pen_attach_device *d),
			 struct pen_gate **ret_gate);

/* ---- terms and view (terms.c, view.c); lock held ---- */
void pen_gate_refresh(struct pen_gate *g);   /* if the epoch moved or the seat changed */
void pen_gate_view(struct pen_gate *g, struct pen_admit_view *ret);
struct pen_gate_runs { uint64_t foreign, all; bool foreign_now, all_now; uint32_t siblings_now; uint64_t siblings_ns; };
void pen_gate_runs(struct pen_gate *g, struct pen_gate_runs *ret);   /* who has run, who does */

/* ---- busy word (busy.c); lock held ---- */
void pen_gate_publish(struct pen_gate *g, enum pen_busy_state state);
void pen_gate_enter(struct pen_gate *g, struct pen_admit_view *view);   /* something to do: joins the fair order; keeps @view true */
void pen_gate_settle(struct pen_gate *g);    /* after retirement or the end of a hold: what is published now? */

/* ---- device-side gate (devgate.c); lock held ---- */
bool pen_gate_dev_wanted(struct pen_gate *g);                          /* somebody is about for whom it is worth it */
void pen_gate_dev_put(struct pen_gate *g, struct pen_gate_batch *b);   /* @b gets a number, and passes unless it is shut */
void pen_gate_dev_come(struct pen_gate_batch *b);                      /* ... and is with the device; without the lock */
void pen_gate_dev_retired(struct pen_gate *g, const struct pen_gate_batch *b);
void pen_gate_dev_look(struct pen_gate *g, uint64_t now_ns);           /* shuts or opens it by what the outranking seats say */
/* Shut: a call of the driver's may stand behind one that waits for what stands at the gate, and who opens it must not. */
bool pen_gate_dev_leave_alone(struct pen_gate *g, uint64_t now_ns);
void pen_gate_ring(struct pen_gate *g);                                /* own busy word has left or reached IDLE */

/* ---- batches (batch.c, retire.c); lock held unless said ---- */
struct pen_gate_batch *pen_gate_batch_new(struct pen_gate_queue_full *q);
void pen_gate_batch_put(struct pen_gate *g, struct pen_gate_batch *b);   /* without the lock too */
void pen_gate_batch_append(struct pen_gate_queue_full *q, struct pen_gate_batch *b);
void pen_gate_close_credit(struct pen_gate_queue_full *q);
void pen_gate_give_up_tails(struct pen_gate_queue_full *q);
bool pen_gate_tail_alone(const struct pen_gate_queue_full *q);   /* only a tail is left, and nothing will show its end */
void pen_gate_count_in(struct pen_gate *g, struct pen_gate_batch *b);
void pen_gate_count_out(struct pen_gate *g, struct pen_gate_batch *b);
bool pen_gate_has_mark(const struct pen_mark *m);
void pen_gate_advance(struct pen_gate *g);
void pen_gate_retire(struct pen_gate *g, struct pen_gate_batch *b, const struct pen_gate_runs *runs, uint64_t now_ns);
void pen_gate_queue_reap(struct pen_gate *g);  /* frees queues that are dead and empty */
/* Without the lock; call the adapter. */
void pen_gate_look(struct pen_gate *g, uint64_t now_ns);       /* polls marks where nothing notifies */
void pen_gate_look_at(struct pen_gate *g, struct pen_gate_queue_full *q);   /* polls one queue while marks are done */
void pen_gate_edges(struct pen_gate *g, struct pen_gate_queue_full *only);  /* marks for tails; NULL = of all queues */
void pen_gate_wait_own(struct pen_gate *g, uint64_t bound_ns, uint32_t kick_seen);
bool pen_gate_needs_watch(struct pen_gate *g);   /* after an admission, lock held: adapter->watch is to be called */
/* Everything of @q up to @seq is complete. Lock held. */
void pen_gate_synced(struct pen_gate_queue_full *q, uint64_t seq, uint64_t now_ns, bool exact);

/* ---- costs (cost.c) ---- */
int pen_gate_costs_create(struct pen_gate_costs **ret);
struct pen_cost *pen_gate_costs_get(struct pen_gate_costs *t, uint64_t what, uint64_t size, uint64_t guess_ns);
void pen_gate_costs_after_fork(struct pen_gate_costs *t);
/*
 * A piece was measured, which would make @whole_ns for the whole. Cutting has a cost of its own, so once a whole one was seen
 * pieces only tell that it is wrong by half; a command that is always cut has nothing else to learn from.
 */
void pen_gate_cost_piece(struct pen_cost *c, uint64_t whole_ns);
/* Measured beside others, their part taken out as well as can be: counts until a clean sample comes, and is of the right size. */
void pen_gate_cost_beside(struct pen_cost *c, uint64_t whole_ns);

#endif
