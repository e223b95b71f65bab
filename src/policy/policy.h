/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_POLICY_POLICY_H
#define PEN_POLICY_POLICY_H
/*
 * Policies: from a snapshot of all tenants of one device to the next terms of each. One policy of each kind per device;
 * they run in the order ORDER, SHARE, RATE over the same output, each filling its own fields.
 *
 * Pure: no I/O, no clock, no globals, no allocation; the same snapshot gives the same terms. The daemon calls
 * pen_policy_run() every tick and writes to the board what changed; the simulator calls the same.
 * Terms do not move with load: ranks and weights follow from the contracts alone, so that a tick in which nothing was
 * attached or changed rewrites nothing. What moves is entitled_ppm and the set of stale seats.
 *
 * Units: ns of CLOCK_MONOTONIC or of device time, ppm of one device, bytes per second. Threads: any.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEN_POLICY_TENANTS 64      /* of one device: as many as the board has slots */
#define PEN_POLICY_SEATS 128       /* of one device: as many as the board has seats */
#define PEN_POLICY_NO_RATE UINT64_MAX

/*
 * Defaults, and why.
 * Window wide: two milliseconds in flight hide the submission cost of any API; more gains less than 1 % throughput. It is
 * two chunks, since the next one may follow when a window less a chunk is left.
 * Window narrow: what an urgent tenant may find in front of it: one chunk, and 150 us in which the next one is submitted
 * before the device runs dry (a timer and a submission take 60 us on a CPU device).
 * Chunk wide: half a wide window; between equals it bounds what a turn can run over.
 * Chunk narrow: the residual that an urgent tenant meets; smaller pieces cost a cuttable neighbour more than 5 %.
 * Quantum: long against a hand-over (tens of us), short against a frame (16 ms).
 * Burst: one quantum may be taken ahead of a cap, so that a cap does not break up a turn.
 * Floor: aging; even the last tenant gets this while it wants.
 * Weight least: keeps virtual time finite for tenants that the guarantees leave nothing.
 * Stale: longer than any wait of a client for its neighbour (20 ms) several times over.
 */
#define PEN_POLICY_WINDOW_WIDE_NS UINT64_C(2000000)
#define PEN_POLICY_WINDOW_NARROW_NS UINT64_C(400000)
#define PEN_POLICY_CHUNK_WIDE_NS UINT64_C(1000000)
#define PEN_POLICY_CHUNK_NARROW_NS UINT64_C(250000)
#define PEN_POLICY_QUANTUM_NS UINT64_C(4000000)
#define PEN_POLICY_TURN_NS UINT64_C(10000000)
#define PEN_POLICY_BURST_NS UINT64_C(4000000)
#define PEN_POLICY_FLOOR_PPM UINT32_C(10000)
#define PEN_POLICY_WEIGHT_LEAST_PPM UINT32_C(1000)
#define PEN_POLICY_STALE_NS UINT64_C(100000000)

/* The numbers of enum pen_class and of pen_terms.class_. */
enum pen_policy_class { PEN_POLICY_LATENCY = 0, PEN_POLICY_NORMAL = 1, PEN_POLICY_BESTEFFORT = 2 };

/* One live tenant of the device: its contract, and what was seen of it since the last tick. */
struct pen_policy_tenant {
	uint16_t slot;               /* on the device: names it in the output */
	uint8_t cls;                 /* enum pen_policy_class */
	int priority;                /* 0..100, higher first */
	uint32_t guaranteed_ppm;     /* 0 = none */
	uint32_t cap_ppm;            /* PPM = none */
	uint32_t weight_ppm;         /* pen_contract_weight(); 0 is taken as the least weight */
	uint64_t rate_guaranteed_bytes_s;   /* 0 = none */
	uint64_t rate_cap_bytes_s;   /* PEN_POLICY_NO_RATE = none */
	uint64_t target_ns;          /* 0 = none */
	bool exclusive;              /* has the device for itself: others hold */
	bool backlogged;             /* wants device time now: a seat is busy, or its own limits hold it */
	uint64_t used_ns;            /* device time charged since the last tick */
};

/* One occupied seat of any tenant. */
struct pen_policy_seat {
	uint16_t seat, slot;         /* slot: of its tenant */
	uint8_t busy;                /* enum pen_busy_state */
	uint64_t moved_ns;           /* when the caller last saw its busy word or progress change */
};

struct pen_policy_in {
	uint64_t now_ns;
	uint64_t tick_ns;            /* length of the span that used_ns covers; informative */
	uint64_t quantum_ns;         /* configured; 0 = the share policy's default */
	bool corun;
	uint16_t ntenants, nseats;
	struct pen_policy_tenant tenant[PEN_POLICY_TENANTS];
	struct pen_policy_seat seat[PEN_POLICY_SEATS];
};

/* Next terms of one tenant. Same index as in the input. */
struct pen_policy_terms {
	uint16_t slot;
	/* ORDER */
	uint16_t rank;               /* 0 = most urgent; equal numbers share */
	bool latency;                /* enters past lower ranks */
	bool exclusive, held;        /* has the device for itself; another has */
	uint64_t target_ns;
	uint64_t window_wide_ns, window_narrow_ns;
	uint64_t chunk_wide_ns, chunk_narrow_ns;   /* 0 = never cut */
	/* SHARE */
	uint32_t guaranteed_ppm, cap_ppm, floor_ppm;
	uint32_t weight_ppm;         /* > 0 */
	uint64_t quantum_ns, burst_ns;
	uint32_t entitled_ppm;       /* what is due to it now: 0 while it wants nothing. For display and audits */
	/* RATE */
	uint64_t rate_guaranteed_bytes_s, rate_cap_bytes_s;
};

struct pen_policy_out {
	uint16_t ntenants;
	struct pen_policy_terms tenant[PEN_POLICY_TENANTS];
	uint64_t stale[PEN_POLICY_SEATS / 64];     /* bit per seat: says busy but does not move */
};

enum pen_policy_kind { PEN_POLICY_ORDER, PEN_POLICY_SHARE, PEN_POLICY_RATE, PEN_POLICY_KIND_MAX_ };

struct pen_policy {
	const char *name;
	enum pen_policy_kind kind;
	void (*run)(const struct pen_policy_in *in, struct pen_policy_out *out);
};

/* NULL: no such policy of that kind. */
const struct pen_policy *pen_policy_find(enum pen_policy_kind kind, const char *name);
/* Iterates over all policies: i = 0, 1, ... until NULL. */
const struct pen_policy *pen_policy_at(size_t i);

/*
 * pen_policy_run - the next terms
 * @order, @share, @rate: from pen_policy_find(); NULL = the default (strict, fairshare, cap)
 * @out: overwritten whole. Tenants and seats past the input's counts are zero.
 */
void pen_policy_run(const struct pen_policy *order, const struct pen_policy *share, const struct pen_policy *rate,
		    const struct pen_policy_in *in, struct pen_policy_out *out);

/*
 * Weighted max-min with lower bounds: x[i] = clamp(level * weight[i], least[i], most[i]) with one level such that the sum
 * is @total, or every x at its most (total too large) or its least (too small). @n <= PEN_POLICY_TENANTS. Sums to @total
 * but for the rounding down of each.
 */
void pen_policy_maxmin(size_t n, uint64_t total, const uint32_t *weight, const uint32_t *least, const uint32_t *most,
		       uint32_t *ret_x);

#endif
