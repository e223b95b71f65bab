/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Learned cost of commands: (what, size) -> device time when alone.
 *
 * A table of chains by `what`, so that all sizes of one kernel stand together: a new size starts from the nearest known
 * one. Entries are only ever added, each by one release store of the chain's head, so look-ups take no lock. Bounded:
 * an autotuner that tries ten thousand sizes must not eat its program's memory.
 */
#include "base/auto.h"
#include "gate/internal.h"

#include <errno.h>

#define BUCKETS 1024
#define ENTRIES 8192
#define SIZES_MAX 64    /* of one kernel; more share the nearest */
#define ODD_MAX 3       /* outliers in a row that are believed: the kernel has changed, not the machine hiccuped */

struct entry {
	struct pen_cost c;           /* first */
	uint64_t what, size;
	struct entry *_Atomic next;
	_Atomic uint32_t odd;
	_Atomic uint32_t whole;      /* a sample of the uncut command was seen */
	_Atomic uint32_t clean;      /* a sample was seen that nobody else's work stretched */
	_Atomic uint32_t stale;      /* the command is another one since then: the next sample replaces what was learned */
};

struct pen_gate_costs {
	struct pen_lock lock;        /* adding */
	struct entry *_Atomic bucket[BUCKETS];
	struct entry shared;         /* when the table is full */
	struct entry *block;         /* entries not yet used of the last block */
	uint32_t block_left, used;
};

int pen_gate_costs_create(struct pen_gate_costs **ret)
{
	struct pen_gate_costs *t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	atomic_init(&t->shared.c.est_ns, PEN_COST_GUESS_NS);
	*ret = t;
	return 0;
}

void pen_gate_costs_after_fork(struct pen_gate_costs *t)
{
	pen_lock_init(&t->lock);
}

static uint32_t bucket_of(uint64_t what)
{
	return (uint32_t)((what * UINT64_C(0x9e3779b97f4a7c15)) >> 54);
}
_Static_assert(BUCKETS == 1 << (64 - 54), "bucket_of");

static uint64_t distance(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

/* Exact entry, or NULL and the nearest known one, the nearest of all and the number of sizes of the same kernel. */
static struct entry *look(struct pen_gate_costs *t, uint64_t what, uint64_t size, struct entry **ret_known,
			  struct entry **ret_any, uint32_t *ret_sizes)
{
	struct entry *known = NULL, *any = NULL;
	uint32_t sizes = 0;
	for (struct entry *e = atomic_load_explicit(&t->bucket[bucket_of(what)], memory_order_acquire); e;
	     e = atomic_load_explicit(&e->next, memory_order_acquire)) {
		if (e->what != what)
			continue;
		if (e->size == size)
			return e;
		sizes++;
		if (!any || distance(e->size, size) < distance(any->size, size))
			any = e;
		if (pen_cost_known(&e->c) && (!known || distance(e->size, size) < distance(known->size, size)))
			known = e;
	}
	*ret_known = known;
	*ret_any = any;
	*ret_sizes = sizes;
	return NULL;
}

static struct entry *entry_new(struct pen_gate_costs *t)
{
	if (t->used >= ENTRIES)
		return NULL;
	if (!t->block_left) {
		struct entry *block = calloc(128, sizeof(*block));
		if (!block)
			return NULL;
		t->block = block;
		t->block_left = 128;
	}
	t->used++;
	t->block_left--;
	return t->block++;
}

/* Work grows with size, at least as long as sizes are of one order: scaled by at most a factor of 1024 either way. */
static uint64_t guess(const struct entry *known, uint64_t size, uint64_t guess_ns)
{
	if (!known)
		return pen_clamp(guess_ns, PEN_COST_FLOOR_NS, PEN_GATE_EST_MAX_NS);
	double f = (double)PEN_MAX(size, UINT64_C(1)) / (double)PEN_MAX(known->size, UINT64_C(1));
	f = f < 1.0 / 1024 ? 1.0 / 1024 : f > 1024 ? 1024 : f;
	return pen_clamp((uint64_t)((double)pen_cost_est_ns(&known->c) * f), PEN_COST_FLOOR_NS, PEN_GATE_EST_MAX_NS);
}

struct pen_cost *pen_gate_costs_get(struct pen_gate_costs *t, uint64_t what, uint64_t size, uint64_t guess_ns)
{
	struct entry *known, *any;
	uint32_t sizes;
	struct entry *e = look(t, what, size, &known, &any, &sizes);
	if (e)
		return &e->c;
	if (sizes >= SIZES_MAX)
		return known ? &known->c : &any->c;
	pen_lock(&t->lock);
	e = look(t, what, size, &known, &any, &sizes);
	if (!e && (e = entry_new(t))) {
		struct entry *_Atomic *head = &t->bucket[bucket_of(what)];
		e->what = what;
		e->size = size;
		atomic_store_explicit(&e->c.est_ns, guess(known, size, guess_ns), memory_order_relaxed);
		atomic_store_explicit(&e->next, atomic_load_explicit(head, memory_order_relaxed), memory_order_relaxed);
		atomic_store_explicit(head, e, memory_order_release);
	}
	pen_unlock(&t->lock);
	if (e)
		return &e->c;
	return known ? &known->c : any ? &any->c : &t->shared.c;
}

struct pen_cost *pen_gate_cost(struct pen_gate *g, uint64_t what, uint64_t size)
{
	return pen_gate_costs_get(g->costs, what, size, PEN_COST_GUESS_NS);
}

struct pen_cost *pen_gate_cost_guessed(struct pen_gate *g, uint64_t what, uint64_t size, uint64_t guess_ns)
{
	return pen_gate_costs_get(g->costs, what, size, guess_ns);
}

/* @factor: a sample that differs by more is an outlier until it has company. */
static void learn(struct entry *e, uint64_t device_ns, uint64_t factor)
{
	struct pen_cost *c = &e->c;
	uint64_t x = pen_clamp(device_ns, PEN_COST_FLOOR_NS, PEN_GATE_EST_MAX_NS);
	uint32_t n = atomic_load_explicit(&c->samples, memory_order_relaxed);
	uint64_t old = atomic_load_explicit(&c->est_ns, memory_order_relaxed);
	uint64_t est;
	if (atomic_load_explicit(&e->stale, memory_order_relaxed) && atomic_exchange_explicit(&e->stale, 0, memory_order_relaxed))
		n = 0;
	if (!n) {
		est = x;
	} else if (x / factor > old || x < old / factor) {
		if (atomic_fetch_add_explicit(&e->odd, 1, memory_order_relaxed) + 1 < ODD_MAX)
			return;
		est = x;
	} else {
		/* Plain mean of the first five, then an exponential one with weight 0.2. Two threads at once: one sample is lost. */
		uint64_t div = n < 4 ? n + 1 : 5;
		est = x > old ? old + (x - old) / div : old - (old - x) / div;
	}
	atomic_store_explicit(&e->odd, 0, memory_order_relaxed);
	atomic_store_explicit(&c->est_ns, PEN_MAX(est, PEN_COST_FLOOR_NS), memory_order_relaxed);
	if (n < UINT32_MAX)
		atomic_store_explicit(&c->samples, n + 1, memory_order_relaxed);
}

/* The first clean sample replaces what was learned beside others. */
static void set_clean(struct entry *e)
{
	if (!atomic_exchange_explicit(&e->clean, 1, memory_order_relaxed))
		atomic_store_explicit(&e->c.samples, 0, memory_order_relaxed);
}

void pen_cost_learn(struct pen_cost *c, uint64_t device_ns)
{
	struct entry *e = (struct entry *)(void *)c;
	set_clean(e);
	atomic_store_explicit(&e->whole, 1, memory_order_relaxed);
	learn(e, device_ns, 4);
}

void pen_gate_cost_renew(struct pen_cost *c)
{
	struct entry *e = (struct entry *)(void *)c;
	if (!pen_cost_known(c))
		return;
	atomic_store_explicit(&e->clean, 0, memory_order_relaxed);
	atomic_store_explicit(&e->whole, 0, memory_order_relaxed);
	atomic_store_explicit(&e->stale, 1, memory_order_relaxed);
}

void pen_gate_cost_beside(struct pen_cost *c, uint64_t whole_ns)
{
	struct entry *e = (struct entry *)(void *)c;
	if (!atomic_load_explicit(&e->clean, memory_order_relaxed))
		learn(e, whole_ns, 4);
}

void pen_gate_cost_piece(struct pen_cost *c, uint64_t whole_ns)
{
	struct entry *e = (struct entry *)(void *)c;
	uint64_t old = pen_cost_est_ns(c);
	set_clean(e);
	if (!atomic_load_explicit(&e->whole, memory_order_relaxed))
		learn(e, whole_ns, 4);
	else if (whole_ns / 2 > old || whole_ns < old / 2)
		learn(e, whole_ns, 2);
	else
		atomic_store_explicit(&e->odd, 0, memory_order_relaxed);
}
