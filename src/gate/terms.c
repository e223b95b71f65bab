/* SPDX-License-Identifier: Apache-2.0 */
/* Terms become limits of the admission core, the list of seats to look at, and what the fast path watches. */
#include "base/auto.h"
#include "board/mem.h"
#include "board/terms.h"
#include "gate/internal.h"

#include <unistd.h>

static void limits_fill(struct pen_gate *g, const struct pen_terms *t)
{
	struct pen_admit_limits *l = &g->lim;
	l->corun = t->mode == PEN_MODE_CORUN;
	l->stop = t->flags & PEN_TERMS_STOP;
	l->latency = t->own_flags & PEN_SEAT_LATENCY;
	l->no_cut = t->flags & PEN_TERMS_EXCLUSIVE;
	l->hold = t->flags & PEN_TERMS_HOLD;
	l->rank = t->rank;
	l->tenant = t->slot;
	l->guaranteed_ppm = t->share_guaranteed_ppm;
	l->cap_ppm = t->share_cap_ppm;
	l->floor_ppm = t->share_floor_ppm;
	l->weight_ppm = PEN_MAX(t->weight_ppm, 1u);
	l->rate_cap_bytes_s = t->rate_cap_bytes_s;
	l->target_ns = t->target_ns;
	l->window_wide_ns = t->window_wide_ns;
	l->window_narrow_ns = t->window_narrow_ns;
	l->chunk_wide_ns = t->chunk_wide_ns;
	l->chunk_narrow_ns = t->chunk_narrow_ns;
	l->quantum_ns = t->quantum_ns;
	l->burst_ns = t->burst_ns;
}

/*
 * Taken seats, and the busy words that the fast path watches: other tenants that outrank us. A stale one is not watched,
 * nor one whose page has not come: the slow path looks at both again.
 */
static void seats_fill(struct pen_gate *g, const struct pen_terms *t)
{
	uint32_t n = PEN_MIN(t->nseats, (uint32_t)PEN_SEATS);
	uint32_t taken = 0, watch = 0, others = 0;
	bool missing = false;
	for (uint32_t i = 0; i < n; i++) {
		const struct pen_seat_terms *s = &t->seat[i];
		if (!s->generation || i == g->seat)
			continue;
		g->foreign[taken++] = (uint16_t)i;
		others += s->tenant != t->slot;
		const struct pen_signal_page *p = pen_attach_neighbour(g->dev, i, s->generation);
		if (!p)
			missing = true;
		else if (s->tenant != t->slot && s->rank < t->rank && !(s->flags & PEN_SEAT_STALE) && !g->lim.corun)
			atomic_store_explicit(&g->hot->watch[watch++], &p->busy, memory_order_relaxed);
	}
	g->nforeign = taken;
	g->nothers = others;
	atomic_store_explicit(&g->hot->nwatch, watch, memory_order_release);
	if (!missing) {
		atomic_store(&g->missing_since_ns, 0);
	} else if (!atomic_load(&g->missing_since_ns)) {
		atomic_store(&g->missing_since_ns, pen_mono_ns());
		atomic_store(&g->connection_ns, 0);   /* its descriptor has been sent: fetch it now */
	}
}

/* A new seat, or the old one at a new daemon. A ledger that is not the one we had knows nothing of us. */
static void seat_moved(struct pen_gate *g, uint32_t attached)
{
	g->attached = attached;
	g->seat = g->dev->seat;
	g->client = PEN_MIN(g->dev->client, (uint32_t)PEN_LEDGER_CLIENTS - 1);
	atomic_store_explicit(&pen_gate_account(g)->pid, (uint32_t)getpid(), memory_order_relaxed);
	uint64_t instance = g->dev->ledger->head.instance;
	if (instance == g->ledger_instance)
		return;
	g->ledger_instance = instance;
	/* The daemon may have started the account with what we said that we held. */
	uint64_t held = atomic_load(&g->mem_bytes), known = atomic_load(&pen_gate_account(g)->charged_bytes);
	if (held > known)
		pen_mem_charge(g->dev->ledger, g->client, held - known, UINT64_MAX, PEN_MEM_FORCE);
	else if (known > held)
		pen_mem_uncharge(g->dev->ledger, g->client, known - held);
	if (g->active)
		atomic_fetch_add(&g->dev->ledger->active_clients, 1);
	if (g->st.busy != PEN_BUSY_IDLE) {   /* and a new signal page says idle */
		enum pen_busy_state s = g->st.busy;
		g->st.busy = PEN_BUSY_IDLE;
		pen_gate_publish(g, s);
	}
}

void pen_gate_refresh(struct pen_gate *g)
{
	uint32_t attached = atomic_load_explicit(&g->dev->attached, memory_order_acquire);
	uint64_t epoch = pen_terms_epoch(g->dev->terms);
	bool moved = attached != g->attached;
	g->lim.lease_until_ns = atomic_load_explicit(&g->dev->terms->lease_until_ns, memory_order_relaxed);
	if (!moved && !atomic_load(&g->missing_since_ns) &&
	    epoch == atomic_load_explicit(&g->hot->seen_epoch, memory_order_relaxed))
		return;
	if (moved)
		seat_moved(g, attached);
	uint32_t now = atomic_load_explicit(&g->terms_now, memory_order_relaxed);
	struct pen_terms *next = &g->terms_copy[now ^ 1];
	*next = g->terms_copy[now];
	if (moved)
		next->epoch = 0;   /* a page of another daemon: read it whatever its number */
	int r = pen_terms_read(g->dev->terms, next);
	if (r < 0)
		return;            /* go on with the last good ones; the epoch stays unlike, so the next command tries again */
	if (r > 0)
		atomic_store_explicit(&g->terms_now, now ^ 1, memory_order_release);
	const struct pen_terms *t = pen_gate_terms_(g);
	limits_fill(g, t);
	seats_fill(g, t);
	/* The seats have changed: somebody of our own tenant may have left. */
	uint64_t departed = atomic_exchange(&g->dev->ledger->departed_vns, 0);
	if (departed)
		atomic_fetch_add_explicit(&g->dev->signal->service_vns, departed, memory_order_relaxed);
	/* A terms page without an epoch is one that nothing was published on: stay on the slow path. */
	if (g->hot->epoch != &g->dev->terms->epoch)   /* once per process: its readers look at seen_epoch first */
		g->hot->epoch = &g->dev->terms->epoch;
	atomic_store_explicit(&g->hot->seen_epoch, t->epoch, memory_order_release);
}

const struct pen_terms *pen_gate_terms(struct pen_gate *g)
{
	return pen_gate_terms_(g);
}
