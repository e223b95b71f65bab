/* SPDX-License-Identifier: Apache-2.0 */
/* Device memory of this process: the tenant's account (board/mem.h) with this device's limits. */
#include "base/auto.h"
#include "base/log.h"
#include "base/units.h"
#include "board/mem.h"
#include "gate/internal.h"

#include <errno.h>

/* A denial is told once; a program that tries smaller and smaller sizes must not fill its log. */
static void tell_denial(struct pen_gate *g, uint64_t bytes, uint64_t cap, bool stopped)
{
	if (atomic_exchange(&g->denial_logged, 1))
		return;
	struct pen_mem_sum sum;
	char want[32], used[32], limit[32];
	pen_mem_read(g->dev->ledger, &sum);
	pen_format_bytes(want, sizeof(want), bytes);
	pen_format_bytes(used, sizeof(used), sum.used_bytes);
	pen_format_bytes(limit, sizeof(limit), cap);
	pen_log(PEN_LOG_WARN, "%s on %s denied: %s of %s in use%s; further denials are only counted", want, g->key,
		used, cap == UINT64_MAX ? "unlimited memory" : limit, stopped ? ", new allocations are stopped" : "");
}

int pen_gate_mem_reserve(struct pen_gate *g, uint64_t bytes)
{
	if (pen_gate_ready(g) < 0)
		return -ENOMEM;
	pen_gate_connection(g, pen_mono_coarse_ns());
	if (pen_gate_stale(g)) {
		pen_gate_lock(g);
		pen_gate_refresh(g);
		pen_gate_unlock(g);
	}
	const struct pen_terms *t = pen_gate_terms_(g);
	bool stopped = t->flags & (PEN_TERMS_STOP_ALLOC | PEN_TERMS_STOP);
	uint64_t cap = t->mem_cap_bytes;
	int r = pen_mem_charge(g->dev->ledger, g->client, bytes, cap, stopped ? PEN_MEM_STOPPED : 0);
	if (r < 0) {
		tell_denial(g, bytes, cap, stopped);
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

void pen_gate_mem_view(struct pen_gate *g, struct pen_mem_view *ret)
{
	*ret = (struct pen_mem_view){ .limit_bytes = g->mem_device_bytes };
	if (pen_gate_ready(g) < 0)
		return;
	pen_gate_connection(g, pen_mono_coarse_ns());   /* a program that only asks must see a restarted daemon's terms too */
	if (pen_gate_stale(g)) {
		pen_gate_lock(g);
		pen_gate_refresh(g);
		pen_gate_unlock(g);
	}
	struct pen_mem_sum sum;
	pen_mem_read(g->dev->ledger, &sum);
	ret->limit_bytes = PEN_MIN(pen_gate_terms_(g)->mem_cap_bytes, g->mem_device_bytes);
	ret->used_bytes = sum.used_bytes;
}
