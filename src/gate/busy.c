/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The own busy word, and whom a change of it wakes.
 *
 * A waiter sleeps on the busy word of the seat that stands in its way, with the bit of its own seat, and says in its page
 * on whom it waits; so whoever has finished can wake exactly the best of them, also when that one sleeps on a third
 * seat's word. No system call when nobody waits.
 */
#include "base/auto.h"
#include "board/hist.h"
#include "gate/internal.h"

#include <limits.h>

static const struct pen_signal_page *neighbour(struct pen_gate *g, uint32_t seat)
{
	if (seat >= PEN_SEATS)
		return NULL;
	return pen_attach_neighbour(g->dev, seat, pen_gate_terms_(g)->seat[seat].generation);
}

static bool anybody_waits(struct pen_gate *g, bool on_us)
{
	for (uint32_t k = 0; k < g->nforeign; k++) {
		const struct pen_signal_page *p = neighbour(g, g->foreign[k]);
		uint32_t on = p ? atomic_load(&p->waiting_on) : 0;
		if (on && (!on_us || on == g->seat + 1))
			return true;
	}
	return false;
}

static void wake_seat(struct pen_gate *g, uint32_t seat)
{
	const struct pen_signal_page *p = neighbour(g, seat);
	uint32_t on = p ? atomic_load(&p->waiting_on) : 0;
	if (!on)
		return;
	const struct pen_signal_page *word_of = on - 1 == g->seat ? g->dev->signal : neighbour(g, on - 1);
	if (word_of)
		pen_futex_wake_bits(&word_of->busy, INT_MAX, UINT32_C(1) << (seat % 32));
}

/* Wakes the waiter that may run next, and with it the other processes of its tenant: they share its turn. */
static void wake_best(struct pen_gate *g)
{
	if (!anybody_waits(g, false))
		return;
	PEN_GATE_POINT(WAKE);
	struct pen_admit_view v;
	pen_gate_view(g, &v);
	int best = pen_admit_wake(&g->lim, &v);
	if (best < 0 || best >= v.nseats)
		return;
	wake_seat(g, v.seat[best].seat);
	for (uint32_t i = 0; i < v.nseats; i++)
		if ((int)i != best && v.seat[i].tenant == v.seat[best].tenant && v.seat[i].state != PEN_BUSY_IDLE)
			wake_seat(g, v.seat[i].seat);
}

void pen_gate_publish(struct pen_gate *g, enum pen_busy_state state)
{
	struct pen_signal_page *own = g->dev->signal;
	enum pen_busy_state was = g->st.busy;
	if (was == state)
		return;
	if (state == PEN_BUSY_RUN)
		atomic_fetch_add(&own->runs, 1);
	atomic_store_explicit(&own->last_busy_ns, pen_gate_lately(g), memory_order_relaxed);
	uint32_t word = atomic_load_explicit(&own->busy, memory_order_relaxed);
	g->st.busy = (uint8_t)state;
	if (state == PEN_BUSY_IDLE)
		PEN_GATE_POINT(CLEAR);
	atomic_store(&own->busy, PEN_BUSY_NEXT(word, state));
	if (!g->nforeign)
		return;
	if (was == PEN_BUSY_IDLE || state == PEN_BUSY_IDLE)
		pen_gate_ring(g);
	if (state == PEN_BUSY_IDLE || (state == PEN_BUSY_WANT && was == PEN_BUSY_RUN))
		wake_best(g);
	else if (state == PEN_BUSY_WANT && was == PEN_BUSY_CLAIM && anybody_waits(g, true))
		/* Backed off from a claim: whoever claimed at the same moment is looking at this word. */
		pen_futex_wake(&own->busy, INT_MAX);
}

void pen_gate_enter(struct pen_gate *g, struct pen_admit_view *view)
{
	if (g->active)
		return;
	struct pen_signal_page *own = g->dev->signal;
	struct pen_ledger_page *l = g->dev->ledger;
	g->active = true;
	g->st.last_progress_ns = view->now_ns;
	atomic_store_explicit(&own->busy_since_ns, view->now_ns, memory_order_relaxed);
	PEN_GATE_POINT(JOIN);
	if (atomic_fetch_add(&l->active_clients, 1) != 0)
		return;
	uint64_t add = pen_admit_join_vns(&g->lim, view);
	if (add)
		atomic_fetch_add_explicit(&own->service_vns, add, memory_order_relaxed);
	view->own_service_vns += add;
	uint64_t to = pen_admit_join_guar(&g->lim, view);
	uint64_t was = view->guar_tat_ns;
	if (was == to || atomic_compare_exchange_strong_explicit(&l->guar_tat_ns, &was, to, memory_order_relaxed, memory_order_relaxed))
		view->guar_tat_ns = to;   /* else a sibling has moved it: the question will be asked again */
}

static void leave(struct pen_gate *g)
{
	struct pen_signal_page *own = g->dev->signal;
	struct pen_ledger_page *l = g->dev->ledger;
	uint64_t now = pen_gate_lately(g);
	uint64_t since = atomic_load_explicit(&own->busy_since_ns, memory_order_relaxed);
	g->active = false;
	/* Drivers compile at a kernel's first launch: seconds, once, that say nothing about what was promised. */
	if (!g->warm_up && !pen_gate_marks_())
		pen_hist_add(&l->response, now > since ? now - since : 0, g->lim.target_ns);
	g->warm_up = false;
	uint32_t n = atomic_load(&l->active_clients);
	while (n && !atomic_compare_exchange_weak(&l->active_clients, &n, n - 1))
		;
}

/*
 * What is in flight has ended before a thread that waits for room in the window could follow; it has been woken. The turn
 * goes on, or each piece would cost a hand-over; if it is over, the next tenant is not made to wait for that thread.
 */
static enum pen_busy_state between_pieces(struct pen_gate *g)
{
	struct pen_admit_view v;
	if (!g->nforeign)
		return PEN_BUSY_RUN;
	pen_gate_view(g, &v);
	return pen_admit_must_yield(&g->lim, &g->st, &v) ? PEN_BUSY_WANT : PEN_BUSY_RUN;
}

void pen_gate_settle(struct pen_gate *g)
{
	enum pen_busy_state state = PEN_BUSY_IDLE;
	if (!g->nflight)
		g->st.yielding = false;
	if (g->nflight)
		state = PEN_BUSY_RUN;
	else if (g->nwant)   /* CLAIM: and waits for another to back off */
		state = g->st.busy == PEN_BUSY_CLAIM ? PEN_BUSY_CLAIM : PEN_BUSY_WANT;
	else if (g->nmore && g->st.busy == PEN_BUSY_RUN)
		state = between_pieces(g);
	pen_gate_publish(g, state);
	if (g->active && !g->nflight && !g->nheld)
		leave(g);
	atomic_store_explicit(&g->dev->signal->inflight_ns, g->st.inflight_ns, memory_order_relaxed);
}
