/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TESTS_LAWS_WORLD_H
#define PEN_TESTS_LAWS_WORLD_H
/*
 * A device, a daemon and processes of several tenants on a virtual clock. Each process drives pen_admit_step() as a gate
 * does, in small steps between which any other process may move: read the neighbours (all at once or one by one),
 * decide, publish, book, submit, sleep. Faults: lost wakes, processes that are stopped or die anywhere, a daemon that ticks
 * late, wrong estimates, hostile words. The laws that can be checked at every step are checked here; what needs a whole
 * run is left in the figures below. One seed gives one run.
 */
#include "admit/admit.h"
#include "board/layout.h"
#include "policy/policy.h"

#include <stdbool.h>
#include <stdint.h>

#define W_PROCS 12
#define W_TENANTS 8
#define W_PIECES 1024           /* in flight per process */
#define W_FIFO 4096
#define US UINT64_C(1000)
#define MS UINT64_C(1000000)
#define S UINT64_C(1000000000)

enum w_load { LOAD_SATURATE, LOAD_PERIODIC, LOAD_RANDOM, LOAD_HOSTILE };

struct w_piece {
	uint64_t booked, est, actual, submit_ns;
	bool tainted, done;
};

enum w_phase { W_WAIT_WORK, W_BEGIN, W_VIEW, W_DECIDE, W_PUBLISH, W_BOOK, W_SUBMIT, W_HOLD, W_OWN, W_SEAT, W_SYNC, W_DEAD, W_FREE };

struct w_proc {
	/* set by the scenario */
	uint16_t tenant;
	enum w_load load;
	uint64_t period_ns;         /* PERIODIC: between requests; RANDOM: mean think time */
	uint32_t batch;             /* commands of a request */
	uint64_t cmd_min_ns, cmd_max_ns;
	uint32_t slices;            /* of a command; 1 = cannot be cut */
	double est_error;           /* estimates are true times within [1/(1+e), 1+e] */
	uint32_t unknown_1_in, no_wait_1_in;   /* 0 = never */
	uint64_t crash_ns;          /* 0 = never */
	uint64_t start_ns;
	/* board */
	uint32_t word;
	uint64_t busy_since_ns, last_busy_ns, service_vns, inflight_ns, progress;
	int waiting_on;
	/* daemon */
	bool stale;
	uint32_t seen_word;
	uint64_t seen_progress, moved_ns, died_ns, free_after_ns;
	/* process */
	enum w_phase phase;
	uint64_t next_ns, retire_ns, due_ns, asked_ns, ready_ns, want_ns, claim_ns;
	uint32_t left;              /* commands of the request */
	bool in_span;
	bool knowing;               /* entered beside others, as the rules say in some cases */
	struct pen_admit_state st;
	struct pen_admit_cmd cmd;
	uint64_t cmd_actual_ns;
	uint32_t read_at;
	struct pen_admit_view view;
	struct pen_admit_decision d;
	struct w_piece piece[W_PIECES];
	uint32_t head, tail;        /* oldest, next */
	/* figures */
	uint64_t requests, commands, longest_hold_ns, longest_span_ns, worst_others_ns, span_others_ns, entries, inversions;
};

struct w_tenant {
	struct pen_policy_tenant contract;
	struct pen_admit_limits lim;
	uint64_t share_tat_ns, guar_tat_ns, bytes_tat_ns, departed_vns;
	bool last_repay;
	uint32_t active;
	/* figures */
	uint64_t used_ns, shadow_tat_ns, longest_actual_ns;
	double worst_error;
	uint32_t nprocs;
	uint32_t entitled_ppm;
};

struct w_entry {
	uint16_t proc;
	uint32_t piece;
	uint64_t actual;
};

struct world {
	uint64_t seed, rng, now_ns, end_ns;
	bool corun, faults, hostile;
	uint32_t lost_wake_1_in, pause_1_in;
	uint32_t nprocs, ntenants;
	struct w_proc proc[W_PROCS];
	struct w_tenant tenant[W_TENANTS];
	struct w_entry fifo[W_FIFO];
	uint32_t head, tail;
	uint64_t device_free_ns;    /* end of the entry at head */
	bool device_busy;
	uint64_t tick_ns;
	uint64_t busy_ns;
	uint32_t events;
	char broken[256];           /* the first law that was broken; "" = none */
};

uint64_t w_rand(struct world *w);
uint64_t w_range(struct world *w, uint64_t low, uint64_t high);   /* inclusive */
bool w_one_in(struct world *w, uint32_t n);                       /* 0 = never */

void w_init(struct world *w, uint64_t seed);
struct w_tenant *w_add_tenant(struct world *w, uint8_t cls, uint32_t guaranteed_ppm, uint32_t cap_ppm, uint32_t weight_ppm);
struct w_proc *w_add_proc(struct world *w, struct w_tenant *t, enum w_load load);
void w_run(struct world *w, uint64_t span_ns);                    /* stops early when a law breaks */
void w_fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
