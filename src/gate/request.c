/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For libpenstock, which finds the gate of each of our libraries in its process: requests that the
 * application itself marks, and which gates there are.
 *
 * What busy.c takes for a request ends when the device has nothing to do, be it between two steps of one
 * inference, and has nothing of what the host does before and behind. An application that says where its
 * requests begin and end is believed, and in a process that has once said so nothing is guessed any more.
 *
 * No lock is taken: a mark must not wait for a thread that is in the middle of a submission.
 */
#include "board/hist.h"
#include "gate/internal.h"

/*
 * Has it had work of ours since then? As of the last look at the clock: what went by on credit may have
 * left no trace.
 */
static bool had_work(const struct pen_gate *g, uint64_t since_ns)
{
	const struct pen_signal_page *s = g->dev->signal;
	return PEN_BUSY_STATE(atomic_load_explicit(&s->busy, memory_order_relaxed)) != PEN_BUSY_IDLE ||
	       atomic_load_explicit(&s->last_busy_ns, memory_order_relaxed) >= since_ns;
}

/* Several gates may have one ledger: OpenCL beside CUDA on one card. */
static bool is_new(struct pen_gate_request *r, uint64_t instance)
{
	for (uint32_t i = 0; i < r->n; i++)
		if (r->ledger[i] == instance)
			return false;
	if (r->n == PEN_REQUEST_LEDGERS)
		return false;
	r->ledger[r->n++] = instance;
	return true;
}

void pen_gate_request(struct pen_gate_request *r)
{
	for (struct pen_gate *g = pen_gate_next(NULL); g; g = pen_gate_next(g)) {
		if (!pen_gate_attached(g))
			continue;
		if (!r->any && !had_work(g, r->start_ns))
			continue;
		if (!is_new(r, g->dev->ledger->head.instance))
			continue;
		/* A kernel that ran for the first time was compiled: seconds, once, that say nothing of what was promised. */
		if (atomic_load_explicit(&g->warm_ns, memory_order_relaxed) >= r->start_ns)
			continue;
		struct pen_ledger_page *l = g->dev->ledger;
		pen_hist_add(&l->response, r->end_ns - r->start_ns, pen_gate_terms_(g)->target_ns);
		atomic_fetch_add_explicit(&l->marked, 1, memory_order_relaxed);
	}
}

void pen_gate_who(struct pen_gate *g, struct pen_gate_who *ret)
{
	*ret = (struct pen_gate_who){
		.key = g->key,
		.model = g->dev->model,
		.adapter = atomic_load(&g->ad)->name,
		.attached = pen_gate_attached(g),
		.refused = atomic_load(&g->refused),
	};
	if (!ret->attached)
		return;
	ret->lease_until_ns = atomic_load(&g->dev->terms->lease_until_ns);
	ret->denials = atomic_load_explicit(&g->dev->ledger->denials, memory_order_relaxed);
}
