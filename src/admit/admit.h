/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_ADMIT_ADMIT_H
#define PEN_ADMIT_ADMIT_H
/*
 * The admission core: may this piece of a command be given to the device now?
 *
 * Pure: no I/O, no clock, no globals, no atomics. The gate (src/gate) reads the board into a view, asks, carries out
 * the answer and asks again after every wait; the simulator and the property tests do the same on a virtual clock. What
 * is proven of these functions there is therefore what a node runs.
 *
 * Order of one admission: window -> share tokens -> bytes -> rank and turn last, so that nothing sleeps between the rank
 * check and the submission. Tokens are taken only with a GO; a caller held by rank holds no tokens.
 *
 * How tenants take turns without a lock (mode exclusive). Every client publishes a state: IDLE, WANT, CLAIM, RUN.
 * To enter: publish CLAIM, look at all others again, then RUN or back to WANT. Of two that claim at once the one with
 * the better key stays and the other backs off. If both saw each other neither can enter before the other has left CLAIM,
 * so never both are in RUN (with sequentially consistent stores and loads). That holds even where the two see different
 * keys for a moment: then both stay or both back off, and look again.
 *   key: rank, then earliest deadline (a target makes one: busy_since + target), then least virtual service, then seat
 * A deadline missed by PEN_ADMIT_LAPSE_NS no longer counts: who is busy without end has no response time to keep, and
 * would keep equals without a target out for ever.
 * A turn is over when own virtual service is half a quantum ahead of an equal who waits: it starts half a quantum behind,
 * so that a turn of two equals is one quantum long.
 * Class latency does not wait for a lower rank's work in flight: that is bounded by the narrow window anyway, waiting
 * for it would add a hand-over; the batches that overlapped are tainted and charged by estimate.
 *
 * Guarantees outrank ranks, within bounds: the word guar_tat is a GCRA bucket at the guaranteed rate (or the floor, the
 * aging). All service advances it, to at most PEN_ADMIT_LEAD_NS past now, so that what was served long ago does not count
 * against the promise; becoming backlogged brings it up to now, so idleness earns nothing; its credit is capped at four
 * narrow windows or one command, whichever is longer. A tenant held by rank with credit for its piece is admitted in
 * alternation with the urgent one; such a piece may be as long as the credit. It takes no turn among equals, and
 * ends one.
 *
 * A tenant that has the device for itself (run --exclusive): the daemon tells all others to hold. That is its word and not
 * a neighbour's, so nothing is passed over; it ends with the lease. In flight without progress is still not waited for.
 *
 * Neighbours' words are claims. One that stands in the way without moving is passed over after PEN_ADMIT_STALE_NS; one that
 * keeps moving and keeps everybody out holds nobody longer than PEN_ADMIT_FORCE_NS (or eight of the waiter's own turns,
 * which for a small weight is longer).
 *
 * Units: ns of CLOCK_MONOTONIC or of estimated device time; ppm of one device. Threads: callers serialise per state.
 */
#include <stdbool.h>
#include <stdint.h>

#define PEN_ADMIT_SEATS 128
#define PEN_ADMIT_PPM UINT32_C(1000000)
/* No wait is longer than this before the caller must look again (a lost wake, a dead neighbour, new terms). */
#define PEN_ADMIT_LOOK_NS UINT64_C(20000000)
/* A neighbour that stands in the way this long without progress is passed over until it moves. */
#define PEN_ADMIT_STALE_NS UINT64_C(60000000)
/* Somebody more urgent seen within this time keeps the window narrow. */
#define PEN_ADMIT_HOT_NS UINT64_C(1000000000)
/* A better key that wants, while nobody runs, gets this head start before a worse one claims. */
#define PEN_ADMIT_POLITE_NS UINT64_C(2000000)
/* A deadline that was missed by so much is none. */
#define PEN_ADMIT_LAPSE_NS UINT64_C(200000000)
/* Service ahead of the guarantee is remembered for so long. */
#define PEN_ADMIT_LEAD_NS UINT64_C(50000000)
/*
 * Behind a gate on the device, which stops within one command, so many wide windows may be in flight, if nobody is there who would
 * wait until they are done: a thread that the system lets wait for some milliseconds does not let the device run dry.
 */
#define PEN_ADMIT_DEEP 4
/* Longest hold for turns in a row: see above. */
#define PEN_ADMIT_FORCE_NS UINT64_C(1000000000)
/* Own work in flight without progress is waited for so long, or twice its estimate; for each further command a quarter. */
#define PEN_ADMIT_OWN_NS UINT64_C(10000000)
/* The gate marks at least every so much estimated time, so that credit given without a mark stays small. */
#define PEN_ADMIT_CREDIT_NS UINT64_C(50000)

/* Limits of one tenant on one device: from the terms page. */
struct pen_admit_limits {
	bool corun;                     /* no turns between tenants */
	bool stop;                      /* no new command */
	bool latency;                   /* class latency */
	bool no_cut;                    /* run --exclusive: never cut, unknown kernels may run unhurried */
	bool hold;                      /* another tenant has the device for itself, until the lease ends */
	uint16_t rank;
	uint16_t tenant;                /* own slot */
	uint32_t guaranteed_ppm;        /* 0 = none */
	uint32_t cap_ppm;               /* PEN_ADMIT_PPM = none */
	uint32_t floor_ppm;
	uint32_t weight_ppm;            /* > 0 */
	uint64_t rate_cap_bytes_s;      /* UINT64_MAX = none */
	uint64_t target_ns;             /* 0 = none */
	uint64_t window_wide_ns, window_narrow_ns;
	uint64_t chunk_wide_ns, chunk_narrow_ns;   /* 0 = never cut */
	uint64_t quantum_ns, burst_ns;
	uint64_t lease_until_ns;        /* past: cap falls to the guarantee, if there is one */
};

/* One occupied seat of another tenant, as seen just now. */
struct pen_admit_seat {
	uint16_t seat, tenant, rank;
	uint8_t state;                  /* enum pen_busy_state */
	bool latency;
	bool stale;                     /* the daemon says so */
	uint32_t busy_word;             /* the whole word: for the wait, and as a sign of life */
	uint64_t progress;
	uint64_t deadline_ns;           /* busy_since + target; UINT64_MAX without a target */
	uint64_t service_vns;           /* of its whole tenant */
	uint64_t last_busy_ns;
};

struct pen_admit_view {
	uint64_t now_ns;
	uint64_t share_tat_ns, guar_tat_ns, bytes_tat_ns;   /* ledger words */
	bool last_repay;
	uint64_t own_service_vns;       /* of the whole own tenant */
	uint64_t own_deadline_ns;       /* UINT64_MAX without a target */
	uint64_t own_inflight_ns;       /* sum over the own tenant's other clients; their estimate */
	uint16_t own_seat;
	uint16_t nseats;                /* entries below; own tenant's seats are not listed */
	struct pen_admit_seat seat[PEN_ADMIT_SEATS];
};

/* Per process and device; the gate keeps it under its lock. Zeroed = fresh. */
struct pen_admit_state {
	uint8_t busy;                   /* enum pen_busy_state that is published */
	bool yielding;                  /* turn is over: admit nothing more until the work in flight is done */
	uint64_t inflight_ns;           /* estimate of what this process has in flight, credit included */
	uint64_t oldest_est_ns;         /* estimate of the oldest batch in flight */
	uint64_t last_progress_ns;      /* a batch was completed, or the first was submitted */
	uint64_t hot_until_ns;          /* somebody more urgent was seen */
	uint64_t passed_until_ns;       /* ... of class latency, who does not wait for what is in flight here */
	uint64_t waited_until_ns;       /* ... of another class, who does */
	uint64_t below_until_ns;        /* a lower rank was seen, whose guarantee would come behind it */
	uint64_t alone_until_ns;        /* tenants it must let in were seen on the device until then (+1 s): past it never cut */
	uint64_t debt_ns;               /* last admission with a debt because own work made no progress */
	bool unknown_inflight;          /* the command in flight has no known cost: nothing is put behind it */
	/* the neighbour that stands in the way, and since when without a change */
	uint16_t blocker;               /* seat + 1, 0 = none */
	uint32_t blocker_word;
	uint64_t blocker_progress;
	uint64_t blocked_since_ns;
	/* passed over until it moves: bit per seat, with the word and progress it had */
	uint64_t passed[2];
	uint32_t passed_word[PEN_ADMIT_SEATS];
	uint64_t passed_progress[PEN_ADMIT_SEATS];
	uint64_t polite_since_ns;       /* gives way to a better key while nobody runs, since; 0 = does not */
	uint64_t turn_since_ns;         /* held for a turn without a GO, since; 0 = is not */
	/* the outranking seat as it was at the last repayment: it must have moved before the next one */
	uint16_t repay_seat;            /* seat + 1, 0 = none noted */
	uint32_t repay_word;
	uint64_t repay_progress;
	uint64_t repay_since_ns;
};

/* One command, or what is left of it after some pieces. */
struct pen_admit_cmd {
	uint64_t est_ns;                /* of all that is left; > 0 */
	uint64_t bytes;                 /* moved by all that is left; 0 = unknown or none */
	uint32_t slices;                /* equal slices that are left and may be submitted separately; 1 = cannot be cut */
	uint32_t wave;                  /* slices that fill the device: pieces are whole multiples of it; >= 1 */
	bool unknown;                   /* est_ns is a guess: it runs alone in the window while somebody must be let in */
	bool gated;                     /* a gate on the device itself stands in front of it, for class latency: the window stays wide, see PEN_ADMIT_DEEP */
	bool no_wait;                   /* callback, capture, not runnable: admit at once and book the debt */
};

enum pen_admit_kind {
	PEN_ADMIT_GO,          /* submit .slices slices now; tokens and state as told */
	PEN_ADMIT_CLAIM,       /* publish CLAIM, read a new view, ask again */
	PEN_ADMIT_HOLD,        /* sleep until .until_ns: tokens */
	PEN_ADMIT_WAIT_OWN,    /* wait for the oldest own mark, at most until .until_ns */
	PEN_ADMIT_WAIT_SEAT,   /* wait on .seat's busy word while it is .seat_word, at most until .until_ns */
	PEN_ADMIT_STOP,        /* refuse with the API's own error */
	PEN_ADMIT_KIND_MAX_,
};

struct pen_admit_decision {
	enum pen_admit_kind kind;
	uint8_t publish;                /* enum pen_busy_state to publish before acting */
	uint8_t reason;                 /* enum pen_hold_reason when held (numbers of board/layout.h) */
	bool debt;                      /* admitted without having waited for what the rules ask */
	bool repay;                     /* admitted against a rank because the guarantee is in deficit */
	bool taints;                    /* another tenant's work is in flight: timestamps of this batch are void */
	uint16_t seat;
	uint32_t seat_word;
	uint64_t until_ns;
	/* GO */
	uint32_t slices;
	uint64_t est_ns;                /* of these slices */
	uint64_t credit_ns;             /* >= est_ns: the queue may spend the rest without asking */
	uint64_t bytes;
	uint64_t share_tat_ns, guar_tat_ns, bytes_tat_ns;   /* new ledger words: CAS from the view's; on failure ask again */
};

/*
 * Decides. May change @st (its bookkeeping and yielding; never busy, inflight_ns, oldest_est_ns or last_progress_ns, which the
 * caller sets when it has carried the answer out). Asking again after a GO that could not be carried out (a CAS failed) is fine.
 */
void pen_admit_step(struct pen_admit_state *st, const struct pen_admit_limits *lim, const struct pen_admit_view *view,
		    const struct pen_admit_cmd *cmd, struct pen_admit_decision *ret);

/* A tenant became backlogged (its first active client): virtual service to add so that idleness earned nothing. */
uint64_t pen_admit_join_vns(const struct pen_admit_limits *lim, const struct pen_admit_view *view);
/* ... and the new value of its guarantee word: idleness earns no deficit. */
uint64_t pen_admit_join_guar(const struct pen_admit_limits *lim, const struct pen_admit_view *view);

/*
 * Device time charged minus device time booked (may be negative; unused credit likewise), as the difference to add to
 * the word. 0 where the word is not kept (no cap, neither guarantee nor floor).
 */
int64_t pen_admit_settle_share(const struct pen_admit_limits *lim, uint64_t now_ns, int64_t diff_ns);
int64_t pen_admit_settle_guar(const struct pen_admit_limits *lim, int64_t diff_ns);
/* Device time to virtual time. */
uint64_t pen_admit_vns(const struct pen_admit_limits *lim, uint64_t device_ns);

/*
 * When the own work in flight is done and others want: whom to wake. Return: index into view->seat of the waiter with
 * the best key, or -1. Lower ranks are woken only if no better one wants. The caller wakes that seat, whatever word it
 * sleeps on, and those of the same tenant with it: they share the turn.
 */
int pen_admit_wake(const struct pen_admit_limits *lim, const struct pen_admit_view *view);

/* Key order of two seats. < 0: @a goes first. Total: never 0 for different seats. */
int pen_admit_key_cmp(const struct pen_admit_seat *a, const struct pen_admit_seat *b);

/* True if the process must not use the fast path any more: somebody outranks it now, or its turn is over. */
bool pen_admit_must_yield(const struct pen_admit_limits *lim, const struct pen_admit_state *st,
			  const struct pen_admit_view *view);

#endif
