/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The laws of admission over thousands of seeded runs (laws_world.h). PEN_LAWS_SEEDS=n runs n seeds of each scenario
 * instead of the default, PEN_LAWS_SEED=s only the one seed s, with its figures.
 */
#include "laws_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct world w;   /* large */
static bool verbose;

static const uint8_t classes[] = {PEN_POLICY_LATENCY, PEN_POLICY_NORMAL, PEN_POLICY_BESTEFFORT};

static double share(const struct w_tenant *t, uint64_t span_ns)
{
	return (double)t->used_ns / (double)span_ns;
}

static uint64_t longest_command(void)
{
	uint64_t ns = 0;
	for (uint32_t i = 0; i < w.nprocs; i++)
		ns = w.proc[i].cmd_max_ns > ns ? w.proc[i].cmd_max_ns : ns;
	return ns;
}

static void faults(uint64_t seed)
{
	w.faults = true;
	w.lost_wake_1_in = seed % 2 ? 10 : 0;
	w.pause_1_in = seed % 4 == 1 ? 3000 : 0;
}

/* ---- chaos: everything at once; the laws are those that the world checks at every step ------------------------- */

static void random_load(struct w_proc *p)
{
	p->period_ns = w_range(&w, 10 * US, 20 * MS);
	p->batch = (uint32_t)w_range(&w, 1, 12);
	p->cmd_min_ns = w_range(&w, 8 * US, 50 * US);
	p->cmd_max_ns = p->cmd_min_ns + (w_one_in(&w, 4) ? w_range(&w, 1 * MS, 20 * MS) : w_range(&w, 10 * US, 2 * MS));
	p->slices = w_one_in(&w, 2) ? 1 : (uint32_t)w_range(&w, 2, 300);
	p->est_error = w_one_in(&w, 2) ? 0 : (double)w_range(&w, 1, 20) / 10;
	p->unknown_1_in = w_one_in(&w, 3) ? 20 : 0;
	p->no_wait_1_in = w_one_in(&w, 6) ? 10 : 0;
	p->start_ns = w_range(&w, 0, 50 * MS);
	p->crash_ns = w_one_in(&w, 5) ? w_range(&w, 1, 250 * MS) : 0;
}

static void chaos(uint64_t seed)
{
	uint32_t n = (uint32_t)w_range(&w, 2, 6);
	bool same = w_one_in(&w, 2);   /* one class: equals contend */
	faults(seed);
	w.corun = w_one_in(&w, 6);
	for (uint32_t i = 0; i < n; i++) {
		uint8_t cls = same ? PEN_POLICY_NORMAL : classes[w_range(&w, 0, 2)];
		uint32_t g = w_one_in(&w, 3) ? (uint32_t)w_range(&w, 10000, 200000) : 0;
		uint32_t cap = w_one_in(&w, 3) ? g + (uint32_t)w_range(&w, 20000, 700000) : PEN_ADMIT_PPM;
		struct w_tenant *t = w_add_tenant(&w, cls, g, cap, g ? g : (uint32_t)w_range(&w, 1000, 300000));
		t->contract.target_ns = w_one_in(&w, 3) ? w_range(&w, 100 * US, 50 * MS) : 0;
		for (uint64_t k = w_range(&w, 1, 2); k; k--)
			random_load(w_add_proc(&w, t, w_one_in(&w, 3) ? LOAD_SATURATE : LOAD_RANDOM));
	}
	w_run(&w, 300 * MS);
}

/* ---- a hostile neighbour: nobody who plays by the rules waits for ever ----------------------------------------- */

static void hostile(uint64_t seed)
{
	uint32_t n = (uint32_t)w_range(&w, 1, 3);
	uint64_t bound = 0;
	faults(seed);
	w_add_proc(&w, w_add_tenant(&w, classes[w_range(&w, 0, 1)], 0, PEN_ADMIT_PPM, 100000), LOAD_HOSTILE);
	for (uint32_t i = 0; i < n; i++) {
		struct w_tenant *t = w_add_tenant(&w, PEN_POLICY_NORMAL, 0, PEN_ADMIT_PPM, 100000);
		struct w_proc *p = w_add_proc(&w, t, LOAD_SATURATE);
		p->cmd_max_ns = w_range(&w, 200 * US, 5 * MS);
	}
	w_run(&w, 4 * S);
	for (uint32_t i = 1; i < w.nprocs; i++) {
		const struct w_proc *p = &w.proc[i];
		const struct pen_admit_limits *lim = &w.tenant[p->tenant].lim;
		uint64_t turns = 8 * pen_admit_vns(lim, lim->quantum_ns);
		bound = (turns > PEN_ADMIT_FORCE_NS ? turns : PEN_ADMIT_FORCE_NS) + 8 * PEN_ADMIT_STALE_NS;
		uint64_t waits = w.now_ns - p->ready_ns;   /* the one that still waits at the end */
		waits = p->phase == W_SYNC || waits < p->longest_hold_ns ? p->longest_hold_ns : waits;
		if (waits > bound)
			w_fail(&w, "proc %u waited for %.1f ms", i, (double)waits / 1e6);
		if (p->commands < 2)
			w_fail(&w, "proc %u: %u commands in 4 s", i, (unsigned)p->commands);
	}
}

/* ---- equals: weights are respected, nothing is wasted --------------------------------------------------------- */

static void equals(uint64_t seed)
{
	const uint64_t span = 2 * S;
	uint32_t n = (uint32_t)w_range(&w, 2, 5);
	(void)seed;
	w.lost_wake_1_in = w_one_in(&w, 3) ? 300 : 0;
	for (uint32_t i = 0; i < n; i++) {
		struct w_tenant *t = w_add_tenant(&w, PEN_POLICY_NORMAL, 0, PEN_ADMIT_PPM, (uint32_t)w_range(&w, 1, 8) * 40000);
		if (w_one_in(&w, 5))
			t->contract.cap_ppm = (uint32_t)w_range(&w, 50000, 300000);
		uint32_t slices = w_one_in(&w, 2) ? 1 : 64;
		for (uint64_t k = w_one_in(&w, 4) ? 2 : 1; k; k--) {
			struct w_proc *p = w_add_proc(&w, t, LOAD_SATURATE);
			p->slices = slices;
			p->cmd_min_ns = 20 * US;
			p->cmd_max_ns = w_range(&w, 50 * US, slices > 1 ? 20 * MS : 4 * MS);
		}
	}
	w_run(&w, span);
	double least = 0.93;
	for (uint32_t i = 0, all_capped = 1; i < n; i++) {
		const struct w_tenant *t = &w.tenant[i];
		double due = t->entitled_ppm / 1e6, got = share(t, span);
		/* Turns at both ends, and one command that nobody could cut. */
		double slack = 0.01 + ((double)t->lim.quantum_ns + 2.0 * (double)longest_command()) / (double)span;
		if (verbose)
			printf("  tenant %u weight %u cap %u: due %.4f got %.4f\n", i, t->lim.weight_ppm, t->lim.cap_ppm, due, got);
		if (got < due * 0.95 - slack || got > due * 1.05 + slack)
			w_fail(&w, "tenant %u of %u: due %.3f, got %.3f", i, n, due, got);
		all_capped &= t->lim.cap_ppm < PEN_ADMIT_PPM;
		least = i + 1 == n && all_capped ? 0 : least;
	}
	if ((double)w.busy_ns / (double)span < least)
		w_fail(&w, "device busy only %.3f of the time", (double)w.busy_ns / (double)span);
}

/* ---- guarantees and floors against a rank that is always busy --------------------------------------------------- */

static void monopoly(uint64_t seed)
{
	const uint64_t span = 3 * S;
	uint32_t n = (uint32_t)w_range(&w, 1, 3);
	(void)seed;
	struct w_proc *u = w_add_proc(&w, w_add_tenant(&w, classes[w_range(&w, 0, 1)], 0, PEN_ADMIT_PPM, 100000), LOAD_SATURATE);
	u->cmd_min_ns = 50 * US;
	u->cmd_max_ns = w_range(&w, 60 * US, 1 * MS);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t g = w_one_in(&w, 3) ? 0 : (uint32_t)w_range(&w, 20000, 200000);
		struct w_proc *p = w_add_proc(&w, w_add_tenant(&w, PEN_POLICY_BESTEFFORT, g, PEN_ADMIT_PPM, 10000), LOAD_SATURATE);
		p->slices = w_one_in(&w, 2) ? 1 : 64;
		p->cmd_min_ns = 50 * US;
		p->cmd_max_ns = p->slices == 1 ? w_range(&w, 100 * US, 1500 * US) : 5 * MS;
		p->start_ns = w_range(&w, 0, 20 * MS);
	}
	w_run(&w, span);
	for (uint32_t i = 1; i <= n; i++) {
		const struct w_tenant *t = &w.tenant[i];
		uint32_t due = t->lim.guaranteed_ppm > t->lim.floor_ppm ? t->lim.guaranteed_ppm : t->lim.floor_ppm;
		double want = due / 1e6 * (double)(span - 20 * MS - PEN_ADMIT_LEAD_NS) -
			      (double)(longest_command() + t->lim.quantum_ns);
		if (verbose)
			printf("  tenant %u: due %.4f got %.4f\n", i, due / 1e6, share(t, span));
		if ((double)t->used_ns < want * 0.97)
			w_fail(&w, "tenant %u: promised %.3f, got %.3f", i, due / 1e6, share(t, span));
		if (share(t, span) > due / 1e6 * 1.1 + 0.01)
			w_fail(&w, "tenant %u: promised %.3f, took %.3f against a rank", i, due / 1e6, share(t, span));
	}
}

/* ---- an urgent tenant among others that come and go: it meets one residual piece ------------------------------- */

static void urgent(uint64_t seed)
{
	uint32_t n = (uint32_t)w_range(&w, 1, 3);
	uint64_t residual = 0;
	(void)seed;
	struct w_proc *u = w_add_proc(&w, w_add_tenant(&w, PEN_POLICY_LATENCY, 0, PEN_ADMIT_PPM, 100000), LOAD_PERIODIC);
	u->period_ns = 50 * MS;
	u->batch = 8;
	u->cmd_min_ns = u->cmd_max_ns = 1 * MS;
	u->start_ns = 1;
	for (uint32_t i = 0; i < n; i++) {
		struct w_tenant *t = w_add_tenant(&w, classes[w_range(&w, 1, 2)], 0, PEN_ADMIT_PPM, 10000);
		struct w_proc *p = w_add_proc(&w, t, w_one_in(&w, 2) ? LOAD_SATURATE : LOAD_RANDOM);
		p->period_ns = 7 * MS;   /* mean: it returns at any moment, often while the urgent one is busy */
		p->batch = 6;
		p->slices = w_one_in(&w, 2) ? 1 : 400;
		p->cmd_min_ns = 50 * US;
		p->cmd_max_ns = p->slices == 1 ? w_range(&w, 100 * US, 4 * MS) : 16 * MS;
		p->start_ns = 20 * MS;   /* by then they have seen it */
		uint64_t piece = p->slices == 1 ? p->cmd_max_ns : PEN_POLICY_CHUNK_NARROW_NS;
		residual = piece > residual ? piece : residual;
	}
	w_run(&w, 1500 * MS);
	/*
	 * What is in flight when it comes, at most a narrow window or one piece; one piece that was about to be submitted;
	 * and the floor of the others, who had to wait for each other as well and may be due now.
	 */
	uint64_t narrow = w.tenant[0].lim.window_narrow_ns, piece = residual;
	uint64_t bound = (narrow > piece ? narrow : piece) + piece + n * piece;
	if (verbose)
		printf("  worst others' time within a request %.3f ms, bound %.3f ms\n", (double)u->worst_others_ns / 1e6, (double)bound / 1e6);
	if (u->requests < 25 || u->worst_others_ns > bound)
		w_fail(&w, "%u requests, others ran %.3f ms inside one, bound %.3f", (unsigned)u->requests,
		       (double)u->worst_others_ns / 1e6, (double)bound / 1e6);
}

/* ---- equals with targets: earliest deadline first --------------------------------------------------------------- */

static void deadlines(uint64_t seed)
{
	static const uint64_t targets[] = {33 * MS, 50 * MS, 100 * MS, 20 * MS};
	uint32_t n = (uint32_t)w_range(&w, 2, 4);
	uint64_t entries = 0, inversions = 0;
	(void)seed;
	for (uint32_t i = 0; i < n; i++) {
		struct w_tenant *t = w_add_tenant(&w, PEN_POLICY_LATENCY, 0, PEN_ADMIT_PPM, 100000);
		t->contract.target_ns = targets[w_range(&w, 0, 3)];
		struct w_proc *p = w_add_proc(&w, t, LOAD_PERIODIC);
		p->period_ns = t->contract.target_ns + w_range(&w, 0, 5 * MS);
		p->batch = (uint32_t)w_range(&w, 2, 6);
		uint64_t work = p->period_ns * w_range(&w, 40, 80) / 100 / n / p->batch;
		p->cmd_min_ns = work * 9 / 10;
		p->cmd_max_ns = work;
		p->slices = 1;
		p->start_ns = w_range(&w, 0, p->period_ns);
	}
	w_run(&w, 3 * S);
	for (uint32_t i = 0; i < n; i++) {
		const struct w_proc *p = &w.proc[i];
		entries += p->entries;
		inversions += p->inversions;
		if (verbose)
			printf("  target %.0f ms: %u requests, longest %.1f ms\n", (double)w.tenant[i].contract.target_ns / 1e6,
			       (unsigned)p->requests, (double)p->longest_span_ns / 1e6);
		/* At most 80 % load: a deadline may be missed by what blocks it, and no more than that. */
		uint64_t block = 3 * longest_command();
		if (p->longest_span_ns > w.tenant[i].contract.target_ns + block)
			w_fail(&w, "tenant %u: %.1f ms, target %.1f ms", i, (double)p->longest_span_ns / 1e6,
			       (double)w.tenant[i].contract.target_ns / 1e6);
	}
	if (inversions)
		w_fail(&w, "%u of %u entries went before an earlier deadline", (unsigned)inversions, (unsigned)entries);
}

/* ---------------------------------------------------------------------------------------------------------------- */

static void over_seeds(const char *name, void (*scenario)(uint64_t seed), uint64_t first, uint32_t seeds)
{
	const char *n = getenv("PEN_LAWS_SEEDS"), *one = getenv("PEN_LAWS_SEED");
	uint64_t events = 0;
	if (n)
		seeds = (uint32_t)strtoul(n, NULL, 0);
	if (one) {
		first = strtoull(one, NULL, 0);
		seeds = 1;
		verbose = true;
	}
	for (uint64_t seed = first; seed < first + seeds; seed++) {
		w_init(&w, seed);
		scenario(seed);
		events += w.events;
		if (w.broken[0])
			fail_msg("%s, seed %llu, at %.6f s: %s", name, (unsigned long long)seed, (double)w.now_ns / 1e9, w.broken);
	}
	print_message("%s: %u seeds, %llu events\n", name, seeds, (unsigned long long)events);
}

#define SCENARIO(name, seeds)                                    \
	static void test_##name(void **state)                    \
	{                                                        \
		(void)state;                                     \
		over_seeds(#name, name, 1, seeds);               \
	}
SCENARIO(chaos, 4000)
SCENARIO(hostile, 200)
SCENARIO(equals, 150)
SCENARIO(monopoly, 40)
SCENARIO(urgent, 150)
SCENARIO(deadlines, 600)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chaos),    cmocka_unit_test(test_hostile), cmocka_unit_test(test_equals),
		cmocka_unit_test(test_monopoly), cmocka_unit_test(test_urgent),  cmocka_unit_test(test_deadlines),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
