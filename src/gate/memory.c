/* SPDX-License-Identifier: Apache-2.0 */
/* Device memory of this process: the tenant's account (board/mem.h) with this device's limits. */
#include "base/auto.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/units.h"
#include "board/mem.h"
#include "gate/internal.h"

#include <errno.h>
#include <time.h>

#define TRIES 16                            /* charges taken back because the limit was lowered meanwhile */
#define ASK_NS UINT64_C(20000000)           /* as long as any wait of the gate */
#define LOOK_NS 500000
#define ANSWER_NS PEN_S                       /* PEN_TERMS_LENDS_SOON: longer than any lease should be */

static uint64_t plus(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* In the units of the account: what the tenant has on the device without a charge is taken off. */
static uint64_t account_bytes(const struct pen_terms *t, uint64_t bytes)
{
	if (bytes == UINT64_MAX)
		return bytes;
	return bytes > t->mem_overhead_bytes ? bytes - t->mem_overhead_bytes : 0;
}

/* A denial is told once; a program that tries smaller and smaller sizes must not fill its log. */
static void tell_denial(struct pen_gate *g, uint64_t bytes, const struct pen_terms *t, bool stopped, bool lent)
{
	if (atomic_exchange(&g->denial_logged, 1))
		return;
	struct pen_mem_sum sum;
	char want[32], used[32], limit[32];
	uint64_t most = lent ? t->mem_contract_bytes : plus(t->mem_cap_bytes, t->mem_overhead_bytes);
	pen_mem_read(g->dev->ledger, &sum);
	pen_format_bytes(want, sizeof(want), bytes);
	pen_format_bytes(used, sizeof(used), plus(sum.used_bytes, t->mem_overhead_bytes));
	pen_format_bytes(limit, sizeof(limit), most);
	bool unlimited = most == UINT64_MAX;
	pen_log(PEN_LOG_WARN, "%s on %s denied: %s of %s in use%s; further denials are only counted", want, g->key, used,
		unlimited ? "unlimited memory" : limit,
		stopped ? ", new allocations are stopped" : lent ? ", the rest is promised to other tenants or in use by them" : "");
}

static void fresh(struct pen_gate *g)
{
	if (!pen_gate_stale(g))
		return;
	pen_gate_lock(g);
	pen_gate_refresh(g);
	pen_gate_unlock(g);
}

static bool stopped(const struct pen_terms *t)
{
	return t->flags & (PEN_TERMS_STOP_ALLOC | PEN_TERMS_STOP);
}

/* What may be charged in all. What is lent needs a daemon that lends: with its lease gone only the guarantee is left. */
static uint64_t limit_now(struct pen_gate *g, const struct pen_terms *t)
{
	if (!(t->flags & PEN_TERMS_LENT) || atomic_load(&g->dev->terms->lease_until_ns) >= pen_mono_coarse_ns())
		return t->mem_cap_bytes;
	return PEN_MIN(t->mem_cap_bytes, account_bytes(t, t->mem_guaranteed_bytes));
}

/*
 * The limit may be lowered between the look at it and the charge, and the memory be given to another tenant: so the epoch is
 * read again behind the charge. Both are seq_cst, as the daemon's store of the epoch and its read of what is used: either we
 * see the new limit or the daemon our charge.
 */
static int charge(struct pen_gate *g, uint64_t bytes, unsigned flags)
{
	for (int i = 0; i < TRIES; i++) {
		fresh(g);
		const struct pen_terms *t = pen_gate_terms_(g);
		uint64_t cap = limit_now(g, t);
		int r = pen_mem_charge(g->dev->ledger, g->client, bytes, cap, flags | (stopped(t) ? PEN_MEM_STOPPED : 0));
		if (r < 0 || (atomic_load(&g->dev->terms->epoch) == atomic_load(&g->hot->seen_epoch) && limit_now(g, t) >= cap))
			return r;
		fresh(g);
		if (!pen_gate_stale(g) && limit_now(g, pen_gate_terms_(g)) >= cap)
			return 0;
		pen_mem_uncharge(g->dev->ledger, g->client, bytes);
	}
	return -ENOMEM;
}

/* What the own contract and the device alone would allow. */
static bool is_lent(const struct pen_gate *g, const struct pen_terms *t, uint64_t bytes)
{
	uint64_t used = atomic_load_explicit(&g->dev->ledger->mem_used_bytes, memory_order_relaxed);
	uint64_t all = account_bytes(t, PEN_MIN(t->mem_contract_bytes, t->device_mem_bytes ? t->device_mem_bytes : UINT64_MAX));
	return !stopped(t) && used <= all && bytes <= all - used;
}

/*
 * Above the limit of this moment and within what contracts allow: memory that is lent to nobody, or that others were
 * allowed and do not use, is to be had within a tick or two. Return: worth another try.
 */
static bool ask(struct pen_gate *g, uint64_t bytes, uint64_t until_ns)
{
	struct pen_ledger_page *l = g->dev->ledger;
	const struct pen_terms *t = pen_gate_terms_(g);
	uint64_t used = atomic_load(&l->mem_used_bytes), cap = t->mem_cap_bytes, most = account_bytes(t, t->mem_limit_bytes);
	uint64_t now = pen_mono_ns();
	/* An older daemon does not say what the most is; one that is gone answers nothing. */
	if (cap >= most || stopped(t) || used > most || bytes > most - used || now >= until_ns ||
	    atomic_load(&g->dev->terms->lease_until_ns) < now)
		return false;
	uint64_t total = used + bytes, seen = atomic_load(&l->mem_wanted_bytes);
	while (seen < total && !atomic_compare_exchange_weak(&l->mem_wanted_bytes, &seen, total))
		;
	/* An answer comes within a tick; only a daemon that has just come back first lets its predecessor's lease lapse. */
	uint64_t answer_ns = t->flags & PEN_TERMS_LENDS_SOON ? now + ANSWER_NS : until_ns;
	while (atomic_load(&l->mem_wanted_bytes) >= total) {
		nanosleep(&(struct timespec){ .tv_nsec = LOOK_NS }, NULL);
		now = pen_mono_ns();
		if (now >= answer_ns || atomic_load(&g->dev->terms->lease_until_ns) < now)
			break;
	}
	fresh(g);
	/* Raised, or something was released meanwhile: who raced with siblings asks again. */
	used = atomic_load(&l->mem_used_bytes);
	t = pen_gate_terms_(g);
	return t->mem_cap_bytes > cap || (used <= t->mem_cap_bytes && bytes <= t->mem_cap_bytes - used);
}

int pen_gate_mem_reserve(struct pen_gate *g, uint64_t bytes)
{
	if (pen_gate_ready(g) < 0)
		return -ENOMEM;
	pen_gate_connection(g, pen_mono_coarse_ns());
	int r = charge(g, bytes, PEN_MEM_QUIET);
	uint64_t until = r < 0 ? pen_mono_ns() + ASK_NS : 0;
	while (r < 0 && ask(g, bytes, until))
		r = charge(g, bytes, PEN_MEM_QUIET);
	if (r < 0)
		r = charge(g, bytes, 0);   /* counts the denial */
	if (r < 0) {
		const struct pen_terms *t = pen_gate_terms_(g);
		bool lent = is_lent(g, t, bytes);
		if (lent)
			atomic_fetch_add_explicit(&g->dev->ledger->denials_lent, 1, memory_order_relaxed);
		tell_denial(g, bytes, t, stopped(t), lent);
		return -ENOMEM;
	}
	atomic_fetch_add_explicit(&g->mem_bytes, bytes, memory_order_relaxed);
	atomic_fetch_add_explicit(&pen_gate_account(g)->objects, 1, memory_order_relaxed);
	return 0;
}

static void object_gone(struct pen_gate *g)
{
	_Atomic uint32_t *n = &pen_gate_account(g)->objects;
	uint32_t was = atomic_load_explicit(n, memory_order_relaxed);
	while (was && !atomic_compare_exchange_weak_explicit(n, &was, was - 1, memory_order_relaxed, memory_order_relaxed))
		;
}

void pen_gate_mem_refund(struct pen_gate *g, uint64_t bytes, bool keep_object)
{
	/* A forked child that has not attached has charged nothing: what it frees was its parent's. */
	if (!pen_gate_attached(g))
		return;
	uint64_t freed = pen_mem_uncharge(g->dev->ledger, g->client, bytes);
	uint64_t was = atomic_load_explicit(&g->mem_bytes, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&g->mem_bytes, &was, was - PEN_MIN(was, freed), memory_order_relaxed,
						      memory_order_relaxed))
		;
	if (!keep_object)
		object_gone(g);
}

void pen_gate_mem_release(struct pen_gate *g, uint64_t bytes)
{
	pen_gate_mem_refund(g, bytes, false);
}

void pen_gate_mem_force(struct pen_gate *g, uint64_t bytes)
{
	if (pen_gate_ready(g) < 0 || pen_mem_charge(g->dev->ledger, g->client, bytes, UINT64_MAX, PEN_MEM_FORCE) < 0)
		return;
	atomic_fetch_add_explicit(&g->mem_bytes, bytes, memory_order_relaxed);
}

/* Device and contracts, and not what neighbours use: a program that sizes itself by it must get the same answer tomorrow. */
void pen_gate_mem_view(struct pen_gate *g, struct pen_mem_view *ret)
{
	uint64_t device = g->mem_device_bytes ? g->mem_device_bytes : UINT64_MAX;   /* 0: it does not tell */
	*ret = (struct pen_mem_view){ .limit_bytes = device };
	if (pen_gate_ready(g) < 0)
		return;
	pen_gate_connection(g, pen_mono_coarse_ns());   /* a program that only asks must see a restarted daemon's terms too */
	fresh(g);
	struct pen_mem_sum sum;
	const struct pen_terms *t = pen_gate_terms_(g);
	pen_mem_read(g->dev->ledger, &sum);
	ret->limit_bytes = PEN_MIN(t->mem_limit_bytes ? t->mem_limit_bytes : t->mem_cap_bytes, device);
	ret->used_bytes = plus(sum.used_bytes, t->mem_overhead_bytes);
}
