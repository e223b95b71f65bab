/* SPDX-License-Identifier: Apache-2.0 */
/* The slow path of a command: ask the admission core, do what it says, hand the piece to the device. */
#include "base/auto.h"
#include "gate/internal.h"

#include <errno.h>

/* One call of pen_gate_submit. */
struct call {
	struct pen_gate *g;
	struct pen_gate_queue_full *q;
	const struct pen_gate_cmd *cmd;
	uint64_t est_ns;             /* of the whole command */
	uint64_t bytes_left;         /* of what is not submitted */
	uint32_t slices, first;      /* all; those already submitted */
	bool no_wait;
	bool flushed;
	bool can_gate;               /* the adapter can put its device-side gate in front */
	struct pen_gate_batch *b;    /* of the piece admitted last; NULL: nothing tracks it */
	bool marked;                 /* b is new and shall get a mark */
	uint32_t count;              /* slices admitted */
};

/* ---- holding ---------------------------------------------------------------------------------------------------- */

static void hold_begin(struct pen_gate *g, const struct pen_admit_decision *d, uint64_t now)
{
	struct pen_ledger_client *c = pen_gate_account(g);
	bool by_others = d->reason == PEN_HOLD_RANK || d->reason == PEN_HOLD_TURN;
	g->nheld++;
	g->nwant += by_others;
	g->nmore += d->reason == PEN_HOLD_WINDOW;
	if (!g->nflight)   /* another thread's wish outlasts this one's own limits */
		pen_gate_publish(g, d->publish == PEN_BUSY_IDLE && g->nwant ? PEN_BUSY_WANT : (enum pen_busy_state)d->publish);
	pen_count(&c->holds, 1);
	atomic_store_explicit(&c->hold_seat, d->kind == PEN_ADMIT_WAIT_SEAT ? d->seat : PEN_SEAT_NONE, memory_order_relaxed);
	if (!atomic_load_explicit(&c->hold_reason, memory_order_relaxed))
		atomic_store_explicit(&c->hold_since_ns, now, memory_order_relaxed);
	atomic_store_explicit(&c->hold_reason, d->reason + 1u, memory_order_relaxed);
	if (d->kind == PEN_ADMIT_WAIT_SEAT) {
		g->nseatwait++;
		atomic_store(&g->dev->signal->waiting_on, d->seat + 1u);
	}
}

static void hold_end(struct pen_gate *g, const struct pen_admit_decision *d, uint64_t since)
{
	struct pen_ledger_client *c = pen_gate_account(g);
	g->nheld--;
	g->nwant -= d->reason == PEN_HOLD_RANK || d->reason == PEN_HOLD_TURN;
	g->nmore -= d->reason == PEN_HOLD_WINDOW;
	uint64_t now = pen_mono_ns();
	if (d->reason < PEN_HOLD_MAX_)
		pen_count(&c->held_ns[d->reason], now - PEN_MIN(since, now));
	if (d->kind == PEN_ADMIT_WAIT_SEAT && !--g->nseatwait)
		atomic_store(&g->dev->signal->waiting_on, 0);
	/* hold_reason stays until the command has got through or another reason comes: `why` reads it in between. */
}

static void hold_over(struct pen_gate *g)
{
	if (g->nheld)
		return;
	struct pen_ledger_client *c = pen_gate_account(g);
	if (!atomic_load_explicit(&c->hold_reason, memory_order_relaxed))
		return;
	atomic_store_explicit(&c->hold_reason, 0, memory_order_relaxed);
	atomic_store_explicit(&c->hold_seat, PEN_SEAT_NONE, memory_order_relaxed);
}

/* Lock held on entry and return, free meanwhile. */
static void hold(struct call *k, const struct pen_admit_decision *d, uint64_t now)
{
	struct pen_gate *g = k->g;
	uint64_t bound = d->until_ns > now ? PEN_MIN(d->until_ns - now, PEN_ADMIT_LOOK_NS) : 0;
	uint32_t kick = atomic_load(&g->kick);
	hold_begin(g, d, now);
	pen_gate_unlock(g);
	PEN_GATE_POINT(HOLD);
	if (!k->flushed && g->ad->flush_all)
		g->ad->flush_all(g->native);
	k->flushed = true;
	if (d->kind == PEN_ADMIT_WAIT_SEAT) {
		const struct pen_signal_page *p =
			(const struct pen_signal_page *)(const void *)(g->dev->neighbours + (size_t)d->seat * g->dev->stride);
		pen_futex_wait_bits(&p->busy, d->seat_word, bound, UINT32_C(1) << (g->seat % 32));
	} else {
		/* Own completions free the window, and give tokens back: both kinds wake up by them. */
		pen_gate_edges(g, NULL);
		pen_gate_wait_own(g, bound, kick);
	}
	atomic_store(&g->pending, 1);
	pen_gate_drain(g);
	uint64_t after = pen_gate_now(g);
	pen_gate_look(g, after);
	pen_gate_connection(g, after);
	pen_gate_lock(g);
	hold_end(g, d, now);
}

/* ---- taking tokens ---------------------------------------------------------------------------------------------- */

static bool cas(_Atomic uint64_t *word, uint64_t was, uint64_t to)
{
	return was == to || atomic_compare_exchange_strong(word, &was, to);
}

/* The ledger words are shared with the tenant's other processes: all three move, or none. */
static bool take_tokens(struct pen_gate *g, const struct pen_admit_view *v, const struct pen_admit_decision *d)
{
	struct pen_ledger_page *l = g->dev->ledger;
	if (!cas(&l->share_tat_ns, v->share_tat_ns, d->share_tat_ns))
		return false;
	PEN_GATE_POINT(TOKENS);
	if (!cas(&l->bytes_tat_ns, v->bytes_tat_ns, d->bytes_tat_ns)) {
		atomic_fetch_sub(&l->share_tat_ns, d->share_tat_ns - v->share_tat_ns);
		return false;
	}
	if (!cas(&l->guar_tat_ns, v->guar_tat_ns, d->guar_tat_ns)) {
		atomic_fetch_sub(&l->bytes_tat_ns, d->bytes_tat_ns - v->bytes_tat_ns);
		atomic_fetch_sub(&l->share_tat_ns, d->share_tat_ns - v->share_tat_ns);
		return false;
	}
	atomic_store_explicit(&l->last_repay, d->repay, memory_order_relaxed);
	return true;
}

/* ---- admitted --------------------------------------------------------------------------------------------------- */

static bool out_of_order(const struct pen_gate_queue_full *q)
{
	return q->flags & PEN_QUEUE_OUT_OF_ORDER;
}

/* No mark is to be had: the piece becomes part of the last batch's tail. */
static bool merge(struct call *k, const struct pen_admit_decision *d)
{
	struct pen_gate *g = k->g;
	struct pen_gate_batch *b = k->q->last;
	if (!b || b->sealed || b->synced || out_of_order(k->q) || (k->cmd->flags & PEN_CMD_NOT_RUNNABLE))
		return false;
	b->tail_n++;
	b->tail_ns += d->est_ns;
	b->booked_ns += d->credit_ns;
	b->inflight_ns += d->est_ns;
	if (b->counted)
		g->st.inflight_ns += d->est_ns;
	atomic_fetch_add(&b->submitting, 1);
	k->b = b;
	k->marked = false;
	return true;
}

static void batch_context(struct call *k, struct pen_gate_batch *b, const struct pen_admit_decision *d, uint64_t now)
{
	struct pen_gate *g = k->g;
	struct pen_gate_runs runs;
	pen_gate_runs(g, &runs);
	b->runs_foreign = runs.foreign;
	b->runs_all = runs.all;
	b->tainted = d->taints || runs.foreign_now;
	uint32_t beside = out_of_order(k->q) ? g->nflight : g->nflight - k->q->nflight;
	if (beside)
		g->overlap++;
	b->solo = !g->nflight;
	b->dirty = runs.all_now || beside;
	if (!g->nflight && !runs.siblings_now)
		atomic_store(&g->dev->ledger->flight_since_ns, now);
	b->overlap = g->overlap;
}

/* Opens the batch of a piece that was admitted and paid for. Lock held. */
static void open_batch(struct call *k, const struct pen_admit_decision *d, uint64_t now)
{
	struct pen_gate *g = k->g;
	struct pen_gate_queue_full *q = k->q;
	bool can_mark = atomic_load(&q->marks) < g->ad->marks_max;
	k->b = NULL;
	k->marked = false;
	if (!can_mark && merge(k, d))
		return;
	struct pen_gate_batch *b = pen_gate_batch_new(q);
	if (!b) {
		merge(k, d);   /* without memory: what no batch can hold stays charged by its booking */
		return;
	}
	batch_context(k, b, d, now);
	b->submit_ns = now;
	b->est_ns = d->est_ns;
	b->booked_ns = d->credit_ns;
	b->cost = k->cmd->cost;
	b->slices = d->slices;
	b->slices_all = k->slices;
	b->has_mark = can_mark;
	b->not_runnable = k->cmd->flags & PEN_CMD_NOT_RUNNABLE;
	bool parked = b->not_runnable || (q->nblocked && !out_of_order(q));
	bool spare = can_mark && !parked && !k->no_wait && !out_of_order(q) && d->credit_ns > d->est_ns;
	b->inflight_ns = spare ? d->credit_ns : d->est_ns;
	atomic_store_explicit(&b->submitting, 1, memory_order_relaxed);
	atomic_fetch_add(&q->marks, can_mark);
	q->nblocked += b->not_runnable;
	if (!parked)
		pen_gate_count_in(g, b);
	pen_gate_batch_append(q, b);
	/* What goes against a rank shall pass; and what a call waits for is over when it returns. */
	if (k->can_gate && can_mark && !parked && !d->repay && !d->debt && !(k->cmd->flags & PEN_CMD_BLOCKING) && pen_gate_dev_wanted(g))
		pen_gate_dev_put(g, b);
	if (spare) {
		q->spare_ns = d->credit_ns - d->est_ns;
		atomic_fetch_add(&q->head.credit, q->spare_ns);
	}
	k->b = b;
	k->marked = can_mark;
}

static void count_command(struct call *k, const struct pen_admit_decision *d)
{
	struct pen_ledger_client *c = pen_gate_account(k->g);
	k->bytes_left -= PEN_MIN(d->bytes, k->bytes_left);
	if (!k->first)
		pen_count(&c->commands, 1);
	if (d->slices < k->slices)
		pen_count(&c->chunks, 1);
	else if (k->g->lim.chunk_narrow_ns && d->est_ns > k->g->lim.chunk_narrow_ns)
		atomic_fetch_add_explicit(&c->uncut, 1, memory_order_relaxed);
	if (d->bytes)
		pen_count(&c->bytes, d->bytes);
	if (d->debt)
		pen_count(&c->debts, 1);
}

static bool parks(const struct call *k)
{
	return (k->cmd->flags & PEN_CMD_NOT_RUNNABLE) || (k->q->nblocked && !out_of_order(k->q));
}

static void ask(struct call *k, const struct pen_admit_view *v, struct pen_admit_decision *d)
{
	uint32_t left = k->slices - k->first;
	if (k->first && k->cmd->cost)   /* its first pieces may have told more than was known */
		k->est_ns = pen_clamp(pen_cost_est_ns(k->cmd->cost), PEN_COST_FLOOR_NS, PEN_GATE_EST_MAX_NS);
	uint64_t est = k->est_ns / k->slices * left;
	uint32_t wave = PEN_MAX(k->cmd->wave, 1u);
	struct pen_admit_cmd c = {
		.est_ns = est ? est : 1,
		.bytes = k->bytes_left,
		.slices = left,
		.wave = wave,
		.unknown = k->cmd->cost && !pen_cost_known(k->cmd->cost),
		/* Behind something that cannot run a command is not in flight, and must not keep its thread from what lets it run. */
		.no_wait = k->no_wait || parks(k),
		.gated = k->can_gate && !(k->cmd->flags & PEN_CMD_BLOCKING) && pen_gate_dev_wanted(k->g),
	};
	if (left == k->slices)
		c.est_ns = k->est_ns;
	if (c.unknown && k->cmd->kind == PEN_CMD_KERNEL) {
		k->g->warm_up = true;
		atomic_store_explicit(&k->g->warm_ns, v->now_ns, memory_order_relaxed);
	}
	pen_admit_step(&k->g->st, &k->g->lim, v, &c, d);
}

/* Return: 1 admitted; 0 ask again; -ESHUTDOWN. Lock held; may be free meanwhile. */
static int admit_once(struct call *k)
{
	struct pen_gate *g = k->g;
	struct pen_admit_view v;
	struct pen_admit_decision d;
	pen_gate_refresh(g);
	pen_gate_close_credit(k->q);
	pen_gate_view(g, &v);
	bool parked = parks(k);
	if (!parked)
		pen_gate_enter(g, &v);
	ask(k, &v, &d);
	switch (d.kind) {
	case PEN_ADMIT_GO:
		if (!take_tokens(g, &v, &d))
			return 0;
		if (!parked)
			pen_gate_publish(g, PEN_BUSY_RUN);
		PEN_GATE_POINT(RUN);
		k->count = (uint32_t)pen_clamp(d.slices, 1, k->slices - k->first);
		d.slices = k->count;
		d.credit_ns = PEN_MIN(d.credit_ns, PEN_GATE_EST_MAX_NS);
		open_batch(k, &d, v.now_ns);
		count_command(k, &d);
		return 1;
	case PEN_ADMIT_CLAIM:
		pen_gate_publish(g, PEN_BUSY_CLAIM);
		PEN_GATE_POINT(CLAIM);
		return 0;
	case PEN_ADMIT_STOP:
		return -ESHUTDOWN;
	default:
		if (g->devgate.standing)
			pen_gate_dev_look(g, v.now_ns);   /* held by a rank it is time to shut it */
		hold(k, &d, v.now_ns);
		return 0;
	}
}

static int admit(struct call *k)
{
	struct pen_gate *g = k->g;
	int r;
	uint64_t lately = pen_gate_lately(g);
	pen_gate_look(g, lately);
	pen_gate_connection(g, lately);
	pen_gate_lock(g);
	do
		r = admit_once(k);
	while (!r);
	hold_over(g);
	if (r < 0)
		pen_gate_settle(g);
	atomic_store_explicit(&g->dev->signal->inflight_ns, g->st.inflight_ns, memory_order_relaxed);
	bool watch = pen_gate_needs_watch(g);
	pen_gate_unlock(g);
	if (watch)
		g->ad->watch(g->native);
	return r;
}

/* ---- handing to the device ---------------------------------------------------------------------------------------- */

/* The piece was refused by the API: nothing of it is in flight. Lock held. */
static void cancel(struct call *k)
{
	struct pen_gate_batch *b = k->b;
	pen_gate_close_credit(k->q);
	if (k->marked && !b->tail_n) {
		b->complete = b->synced = true;
		b->est_ns = 0;
		b->cost = NULL;
		b->edge = true;   /* charges nothing, its booking is given back */
	}
}

static void after_submit(struct call *k, int code)
{
	struct pen_gate *g = k->g;
	struct pen_gate_batch *b = k->b;
	bool lost = k->marked && !pen_gate_has_mark(&b->mark);
	bool blocking = !code && (k->cmd->flags & PEN_CMD_BLOCKING);
	if (k->marked && b->gate_number)
		pen_gate_dev_come(b);
	if (!lost && !code && !blocking) {
		atomic_fetch_sub(&b->submitting, 1);
		if (atomic_load(&b->mark.done)) {   /* done before submit had returned: pen_gate_mark_done() left it to us */
			atomic_store(&g->pending, 1);
			pen_gate_drain(g);
		}
		return;
	}
	uint64_t now = pen_mono_ns();
	pen_gate_lock(g);
	if (lost) {
		b->has_mark = false;
		atomic_fetch_sub(&k->q->marks, 1);
	}
	if (code)
		cancel(k);
	atomic_fetch_sub(&b->submitting, 1);
	if (blocking) {   /* complete, and with it everything before it on an in-order queue */
		pen_gate_close_credit(k->q);
		if (!out_of_order(k->q)) {
			pen_gate_synced(k->q, b->seq, now, true);
		} else {
			b->complete = b->synced = b->sync_exact = true;
			b->sync_ns = now;
		}
	}
	atomic_store(&g->pending, 1);
	pen_gate_unlock(g);
}

static int hand_over(struct call *k)
{
	struct pen_gate *g = k->g;
	struct pen_gate_batch *b = k->b;
	struct pen_piece piece = {
		.first = k->first,
		.count = k->count,
		.whole = k->count == k->slices,
		.last = k->first + k->count == k->slices,
		.gate = b && k->marked ? b->gate_number : 0,
	};
	bool in_submit = g->ad->caps & PEN_ADAPTER_IN_SUBMIT;
	PEN_GATE_POINT(SUBMIT);
	int code = g->ad->submit(&k->q->head, k->cmd->native, &piece, k->marked && in_submit ? &b->mark : NULL);
	if (!code && k->marked && !in_submit && !(k->cmd->flags & PEN_CMD_BLOCKING))
		(void)g->ad->mark_record(&k->q->head, &b->mark);   /* without a mark the next one ends the batch */
	PEN_GATE_POINT(SUBMITTED);
	if (b)
		after_submit(k, code);
	return code;
}

static int plain(struct pen_gate_queue *q, const struct pen_gate_cmd *cmd)
{
	uint32_t n = PEN_MAX(cmd->slices, 1u);
	struct pen_piece whole = { .first = 0, .count = n, .whole = true, .last = true };
	return q->gate->ad->submit(q, cmd->native, &whole, NULL);
}

void pen_gate_count_bytes(struct pen_gate_queue *q, uint64_t bytes)
{
	if (pen_gate_attached(q->gate))
		pen_count(&pen_gate_account(q->gate)->bytes, bytes);
}

int pen_gate_submit(struct pen_gate_queue *q, const struct pen_gate_cmd *cmd)
{
	struct pen_gate *g = q->gate;
	if (pen_gate_ready(g) < 0)
		return g->ad->oom_code(PEN_DENY_NO_DEVICE);
	struct pen_gate_queue_full *full = pen_gate_full(q);
	if (cmd->kind == PEN_CMD_COUNT_ONLY)   /* takes no device time, and what is before it is tracked already */
		return plain(q, cmd);
	if (g->ad->capturing && g->ad->capturing(q))   /* recorded, not run: it costs when the graph is launched */
		return plain(q, cmd);
	if (full->fork_count != atomic_load(&g->fork_count)) {
		pen_count(&pen_gate_account(g)->debts, 1);
		return plain(q, cmd);
	}
	uint64_t est = cmd->cost ? pen_cost_est_ns(cmd->cost) : cmd->est_ns;
	uint32_t slices = PEN_MAX(cmd->slices, 1u);
	struct call k = {
		.g = g,
		.q = full,
		.cmd = cmd,
		.est_ns = pen_clamp(est, PEN_COST_FLOOR_NS, PEN_GATE_EST_MAX_NS),
		.bytes_left = cmd->bytes,
		.slices = slices,
		.no_wait = (cmd->flags & (PEN_CMD_NO_WAIT | PEN_CMD_NOT_RUNNABLE)) || (g->ad->in_callback && g->ad->in_callback()),
	};
	int code = 0;
	/* What somebody more urgent could be kept waiting by. Before the admission: it may take a while the first time. */
	k.can_gate = g->ad->gate_ready && atomic_load_explicit(&g->hot->nwatch, memory_order_relaxed) && !k.no_wait && g->ad->gate_ready(q);
	atomic_fetch_add(&full->refs, 1);
	while (!code && k.first < k.slices) {
		if (admit(&k) < 0) {
			code = g->ad->oom_code(PEN_DENY_NO_DEVICE);
			break;
		}
		code = hand_over(&k);
		k.first += k.count;
	}
	atomic_fetch_sub(&full->refs, 1);
	return code;
}
