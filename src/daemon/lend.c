/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of one device: guarantees are set aside, and what nobody was promised is lent to those whose cap is above theirs.
 *
 * Each tenant has a limit at which its clients are refused (pen_terms.mem_cap_bytes). The law: the sum over all tenants of the largest
 * of guarantee, limit and use never exceeds the device less its reserve. So it does not matter how fast or with how many
 * processes a borrower allocates between two ticks: what it could take was taken out of what the others may take before.
 *
 * A limit is lowered first, in terms that are published; then use is read again; and only what is free then is given to others. A
 * client that charged under the old limit either sees the new epoch after its charge and takes it back (gate/memory.c), or its charge
 * is seen here: the words on both sides are sequentially consistent. What is above a lowered limit stays, and counts.
 *
 * Limits move only when a contract does, when a borrower comes, or when one asks for more than its limit
 * (ledger: mem_wanted_bytes): else no terms are written and no epoch rises. Rejected: every borrower's limit = all that is free. Two that
 * allocate within one tick then take it twice.
 *
 * After a restart those who are not back still have the limits of the daemon before. They take no more of what was lent to
 * them once that daemon's lease has lapsed (PEN_TERMS_LENT), and nothing is lent anew before (pen_table.lend_after_ns).
 *
 * Where nothing is guaranteed to anybody, or the size of the device is not known, limits are the contracts' caps.
 *
 * What the audit finds (audit.h) is taken off before: from the device what no tenant has and all overheads, from each
 * tenant's guarantee and cap its own overhead. So everything here is in the units of the ledgers, and the law holds for true bytes.
 */
#include "base/auto.h"
#include "daemon/daemon.h"

static uint64_t plus(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* Guarantee and cap, in the units of the ledger. */
static struct pen_range64 memory_of(const struct pen_table_tenant *t)
{
	const struct pen_range64 *m = &t->contract.memory;
	return (struct pen_range64){ .guaranteed = less(m->guaranteed, t->mem_overhead_bytes),
				     .cap = m->cap == PEN_UNLIMITED ? PEN_UNLIMITED : less(m->cap, t->mem_overhead_bytes) };
}

uint64_t pen_lend_shown(const struct pen_table_tenant *t)
{
	return PEN_MIN(plus(t->mem_most, t->mem_overhead_bytes), t->contract.memory.cap);
}

/* What a tenant counts at cannot be more than it once was allowed and has not given back, whatever it writes into its ledger. */
static void look_at_use(struct pen_table_tenant *t)
{
	struct pen_range64 m = memory_of(t);
	uint64_t used = t->ledger ? atomic_load(&t->ledger->mem_used_bytes) : t->mem_absent_bytes;
	if (!t->mem_known) {
		t->mem_known = true;
		t->mem_limit = PEN_MIN(m.guaranteed, m.cap);
		t->mem_ceiling = m.cap;
	}
	uint64_t bounded = PEN_MIN(used, t->mem_ceiling);
	t->mem_ceiling = PEN_MAX(t->mem_limit, bounded);
	t->mem_taken = PEN_MAX(m.guaranteed, bounded);
}

static bool borrows(const struct pen_table_tenant *t)
{
	return t->mem_may && t->mem_most > memory_of(t).guaranteed;
}

/* A new word in the ledger is a wish, and at most that: bounded by what contracts let the tenant have. */
static void look_at_wish(struct pen_table_tenant *t)
{
	t->mem_seen = t->ledger ? atomic_load_explicit(&t->ledger->mem_wanted_bytes, memory_order_acquire) : 0;
	t->mem_wish = t->mem_seen > t->mem_limit && t->mem_seen <= t->mem_most && borrows(t) && !t->stop_flags ? t->mem_seen : 0;
}

struct pot {
	struct pen_table_tenant *tenant[PEN_TENANT_SLOTS];
	unsigned n;
	uint64_t total, elsewhere;   /* elsewhere: guaranteed to those that have no place yet */
};

/* Sum of what must be kept for everybody, with or without what they are allowed beyond what they have. */
static uint64_t kept(const struct pot *pot, bool allowed)
{
	uint64_t sum = pot->elsewhere;
	for (unsigned i = 0; i < pot->n; i++)
		sum = plus(sum, allowed ? PEN_MAX(pot->tenant[i]->mem_taken, pot->tenant[i]->mem_limit) : pot->tenant[i]->mem_taken);
	return sum;
}

/* True if somebody's limit must move. */
static bool look(const struct pen_table_device *dev, struct pot *pot, uint64_t promised)
{
	bool must = false;
	for (unsigned i = 0; i < pot->n; i++) {
		struct pen_table_tenant *t = pot->tenant[i];
		struct pen_range64 m = memory_of(t);
		uint64_t others = promised - m.guaranteed;
		bool bound = dev->mem_bytes && promised;
		uint64_t rest = PEN_MAX(m.guaranteed, less(pot->total, others));
		t->mem_most = bound ? PEN_MIN(m.cap, rest) : m.cap;
		t->mem_bound = bound && m.cap > m.guaranteed;
		look_at_wish(t);
		if (!bound || m.cap <= m.guaranteed) {
			t->mem_limit = m.cap;
			continue;
		}
		if (!t->mem_may)
			t->mem_lent = false;
		must |= t->mem_limit > t->mem_most || t->mem_limit < m.guaranteed || (borrows(t) && !t->mem_lent);
	}
	return must || (dev->mem_bytes && promised && kept(pot, true) > pot->total);
}

/* Wishes first, from the tenant behind the last one that had one; each whole or not at all. Return: was one met? */
static bool meet_wishes(struct pen_table_device *dev, struct pot *pot, uint64_t *left)
{
	bool met = false;
	unsigned first = dev->mem_turn;
	for (unsigned k = 0; k < pot->n; k++) {
		unsigned i = (first + k) % pot->n;
		struct pen_table_tenant *t = pot->tenant[i];
		uint64_t more = less(t->mem_wish, t->mem_next);
		if (!t->mem_wish || more > *left)
			continue;
		*left -= more;
		t->mem_next += more;
		dev->mem_turn = i + 1;
		met = true;
	}
	return met;
}

/* Equal parts of what is left for all that borrow; what one may not have goes to the others. */
static void deal(struct pot *pot, uint64_t left)
{
	for (unsigned n = 1; left && n;) {
		uint64_t part;
		n = 0;
		for (unsigned i = 0; i < pot->n; i++)
			n += borrows(pot->tenant[i]) && pot->tenant[i]->mem_next < pot->tenant[i]->mem_most;
		part = n ? left / n : 0;
		if (!part)
			return;
		for (unsigned i = 0; i < pot->n; i++) {
			struct pen_table_tenant *t = pot->tenant[i];
			if (!borrows(t))
				continue;
			uint64_t more = PEN_MIN(part, less(t->mem_most, t->mem_next));
			t->mem_next += more;
			left -= more;
		}
	}
}

/* Lowers at once. Return: is there somebody to raise? */
static bool lower(struct pot *pot)
{
	bool raise = false;
	for (unsigned i = 0; i < pot->n; i++) {
		struct pen_table_tenant *t = pot->tenant[i];
		t->mem_limit = PEN_MIN(t->mem_limit, t->mem_next);
		raise |= t->mem_next > t->mem_limit;
		t->mem_lent = borrows(t);
	}
	return raise;
}

static void gather(struct pen_table_device *dev, struct pot *pot)
{
	*pot = (struct pot){ .total = less(dev->mem_bytes, plus(dev->policy.reserve, dev->mem_outside_bytes)), .elsewhere = dev->promised_bytes };
	for (unsigned i = 0; i < PEN_TENANT_SLOTS; i++) {
		if (!dev->tenant[i].used)
			continue;
		pot->tenant[pot->n++] = &dev->tenant[i];
		pot->total = less(pot->total, dev->tenant[i].mem_overhead_bytes);
	}
	for (unsigned i = 0; i < pot->n; i++) {
		look_at_use(pot->tenant[i]);
		pot->tenant[i]->mem_may = pot->tenant[i]->attached && dev->lends;
	}
}

bool pen_lend_lower(struct pen_table_device *dev)
{
	struct pot pot;
	gather(dev, &pot);
	uint64_t promised = pot.elsewhere, wishes = 0;
	for (unsigned i = 0; i < pot.n; i++)
		promised = plus(promised, memory_of(pot.tenant[i]).guaranteed);
	bool must = look(dev, &pot, promised);
	for (unsigned i = 0; i < pot.n; i++)
		wishes |= pot.tenant[i]->mem_wish;
	if (!must && !wishes)
		return false;
	for (unsigned i = 0; i < pot.n; i++) {
		struct pen_table_tenant *t = pot.tenant[i];
		struct pen_range64 m = memory_of(t);
		t->mem_next = m.cap <= m.guaranteed ? t->mem_limit : PEN_MIN(t->mem_taken, t->mem_most);
	}
	uint64_t left = less(pot.total, kept(&pot, false));
	if (!meet_wishes(dev, &pot, &left) && !must)
		return false;
	deal(&pot, left);
	return lower(&pot);
}

void pen_lend_raise(struct pen_table_device *dev)
{
	struct pot pot;
	gather(dev, &pot);
	uint64_t left = less(pot.total, kept(&pot, true));
	for (unsigned i = 0; i < pot.n; i++) {
		struct pen_table_tenant *t = pot.tenant[i];
		/* What it has above its limit counts already. */
		uint64_t has = PEN_MAX(t->mem_taken, t->mem_limit), more = less(t->mem_next, has);
		if (t->mem_next <= t->mem_limit)
			continue;
		more = PEN_MIN(more, left);
		left -= more;
		t->mem_limit = PEN_MIN(t->mem_next, has + more);
	}
}

void pen_lend_answer(struct pen_table_device *dev)
{
	if (!dev->lends)   /* who has asked waits until there is something to lend */
		return;
	for (unsigned i = 0; i < PEN_TENANT_SLOTS; i++) {
		struct pen_table_tenant *t = &dev->tenant[i];
		uint64_t seen = t->mem_seen;
		/* Not if somebody has asked for more since: that is the next tick's. */
		if (t->used && t->ledger && seen)
			atomic_compare_exchange_strong(&t->ledger->mem_wanted_bytes, &seen, 0);
	}
}
