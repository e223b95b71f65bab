/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The board as the admission core sees it. Rank, tenant, weight and target of a neighbour come from our own terms, which
 * only the daemon writes; its page gives only what it claims of itself: state, service, progress. Claims are bounded, so
 * that a lie wins a place among equals at most and never breaks arithmetic.
 */
#include "base/auto.h"
#include "gate/internal.h"

/* A deadline that is claimed to be older than this is not believed. */
#define BUSY_SINCE_MAX_NS UINT64_C(10000000000)
/* Bounds a claimed service so that the sum over the seats of a tenant cannot wrap. */
#define SERVICE_MAX (UINT64_MAX / PEN_SEATS)

static uint64_t relaxed(const _Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static uint64_t deadline(uint64_t since, uint64_t target, uint64_t now)
{
	if (!target)
		return UINT64_MAX;
	since = PEN_MIN(since, now);
	if (now > BUSY_SINCE_MAX_NS)
		since = PEN_MAX(since, now - BUSY_SINCE_MAX_NS);
	return target > UINT64_MAX - since ? UINT64_MAX : since + target;
}

static const struct pen_signal_page *page_of(struct pen_gate *g, const struct pen_terms *t, uint32_t i)
{
	const struct pen_signal_page *p = pen_attach_neighbour(g->dev, i, t->seat[i].generation);
	if (!p || atomic_load_explicit(&p->generation, memory_order_relaxed) != t->seat[i].generation)
		return NULL;
	return p;
}

static void seat_fill(struct pen_admit_seat *s, uint32_t i, const struct pen_seat_terms *t, const struct pen_signal_page *p,
		      uint64_t now)
{
	uint32_t word = atomic_load(&p->busy);   /* seq_cst: one side of the CLAIM protocol */
	s->seat = (uint16_t)i;
	s->tenant = t->tenant;
	s->rank = t->rank;
	s->state = (uint8_t)PEN_BUSY_STATE(word);
	s->latency = t->flags & PEN_SEAT_LATENCY;
	s->stale = t->flags & PEN_SEAT_STALE;
	s->busy_word = word;
	s->progress = relaxed(&p->progress);
	s->deadline_ns = s->state == PEN_BUSY_IDLE ? UINT64_MAX : deadline(relaxed(&p->busy_since_ns), t->target_ns, now);
	s->service_vns = 0;
	s->last_busy_ns = PEN_MIN(relaxed(&p->last_busy_ns), now);
}

void pen_gate_view(struct pen_gate *g, struct pen_admit_view *v)
{
	const struct pen_terms *t = pen_gate_terms_(g);
	const struct pen_ledger_page *l = g->dev->ledger;
	const struct pen_signal_page *own = g->dev->signal;
	v->now_ns = pen_gate_now(g);
	v->share_tat_ns = relaxed(&l->share_tat_ns);
	v->guar_tat_ns = relaxed(&l->guar_tat_ns);
	v->bytes_tat_ns = relaxed(&l->bytes_tat_ns);
	v->last_repay = atomic_load_explicit(&l->last_repay, memory_order_relaxed);
	v->own_service_vns = PEN_MIN(relaxed(&own->service_vns), SERVICE_MAX);
	v->own_deadline_ns = g->active ? deadline(relaxed(&own->busy_since_ns), g->lim.target_ns, v->now_ns)
				       : deadline(v->now_ns, g->lim.target_ns, v->now_ns);
	v->own_inflight_ns = 0;
	v->own_seat = (uint16_t)g->seat;
	v->nseats = 0;
	if (!g->nforeign)
		return;
	uint64_t service[PEN_TENANT_SLOTS] = { 0 };
	for (uint32_t k = 0; k < g->nforeign; k++) {
		uint32_t i = g->foreign[k];
		const struct pen_signal_page *p = page_of(g, t, i);
		if (!p)
			continue;
		uint64_t svc = PEN_MIN(relaxed(&p->service_vns), SERVICE_MAX);
		if (t->seat[i].tenant == g->lim.tenant) {
			v->own_service_vns += svc;
			if (PEN_BUSY_STATE(atomic_load(&p->busy)) == PEN_BUSY_RUN)
				v->own_inflight_ns += PEN_MIN(relaxed(&p->inflight_ns), PEN_GATE_EST_MAX_NS);
			continue;
		}
		service[t->seat[i].tenant % PEN_TENANT_SLOTS] += svc;
		seat_fill(&v->seat[v->nseats++], i, &t->seat[i], p, v->now_ns);
	}
	for (uint32_t k = 0; k < v->nseats; k++)
		v->seat[k].service_vns = service[v->seat[k].tenant % PEN_TENANT_SLOTS];
}

void pen_gate_runs(struct pen_gate *g, struct pen_gate_runs *r)
{
	const struct pen_terms *t = pen_gate_terms_(g);
	*r = (struct pen_gate_runs){ 0 };
	for (uint32_t k = 0; k < g->nforeign; k++) {
		uint32_t i = g->foreign[k];
		const struct pen_signal_page *p = page_of(g, t, i);
		if (!p)
			continue;
		uint32_t runs = atomic_load(&p->runs);
		bool now = PEN_BUSY_STATE(atomic_load(&p->busy)) == PEN_BUSY_RUN;
		r->all += runs;
		r->all_now |= now;
		if (t->seat[i].tenant == g->lim.tenant) {
			r->siblings_now += now;
			r->siblings_ns += now ? PEN_MIN(relaxed(&p->inflight_ns), PEN_GATE_EST_MAX_NS) : 0;
			continue;
		}
		r->foreign += runs;
		r->foreign_now |= now;
	}
}
