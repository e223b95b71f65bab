/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a completed mark to the account.
 *
 * Charging. On a device that runs one tenant at a time, device time is the union of START..END of everything the tenant
 * had there: the ledger holds the end of what was charged so far, and each batch adds what lies beyond it. Whatever
 * overlapped with another tenant says nothing (a command's START..END on a shared device is residence, not use), and
 * is charged by estimate; so is everything where tenants overlap by design (corun).
 */
#include "base/auto.h"
#include "gate/internal.h"

#include <limits.h>

/* How far the next mark's start may lie behind the estimated end of a tail and still be taken for its end. */
#define TAIL_FACTOR 4
#define TAIL_SLACK_NS UINT64_C(20000)
/* What the host needs to bring a command to a device that has begun to wait for it (PEN_ADAPTER_LOOSE_START). */
#define BRING_NS UINT64_C(8000)
/* A synchronisation that returned this fast found everything done long ago. */
#define SYNC_BLOCKED_NS UINT64_C(20000)

/* ---- collecting: batches whose mark is done go to the adapter for their times, without the lock ------------------- */

struct work {
	struct pen_gate_batch *time[PEN_GATE_WORK];   /* read times, release */
	struct pen_gate_batch *free[PEN_GATE_WORK];   /* release, back to the pool */
	uint32_t ntime, nfree;
	bool more;
};

static bool notifies(const struct pen_gate *g)
{
	return g->ad->caps & PEN_ADAPTER_NOTIFY;
}

static void collect_queue(struct pen_gate_queue_full *q, struct work *w)
{
	for (struct pen_gate_batch *b = q->first; b; b = b->next) {
		bool with_device = !atomic_load(&b->submitting);
		if (with_device && b->has_mark && !b->complete && atomic_load(&b->mark.done)) {
			b->complete = true;
			b->exact = true;
		}
		if (!with_device || (b->has_mark && !b->complete)) {
			if (q->flags & PEN_QUEUE_OUT_OF_ORDER)
				continue;
			return;
		}
		if (!b->has_mark || b->working || b->pins || !b->complete)
			continue;
		if (w->ntime == PEN_GATE_WORK) {
			w->more = true;
			return;
		}
		b->working = true;
		w->time[w->ntime++] = b;
	}
}

static void collect(struct pen_gate *g, struct work *w)
{
	w->ntime = w->nfree = 0;
	w->more = false;
	for (struct pen_gate_queue_full *q = g->queues; q; q = q->next)
		collect_queue(q, w);
	for (struct pen_gate_batch **at = &g->zombies; *at;) {
		struct pen_gate_batch *b = *at;
		if ((notifies(g) && !atomic_load(&b->mark.done)) || b->pins) {
			at = &b->next;
			continue;
		}
		if (w->nfree == PEN_GATE_WORK) {
			w->more = true;
			break;
		}
		*at = b->next;
		w->free[w->nfree++] = b;
	}
}

static void mark_free(struct pen_gate_batch *b)
{
	b->gate->ad->mark_release(&b->mark);
	atomic_fetch_sub(&b->q->marks, 1);
}

/* Without the lock. Return: something was done that the account must see. */
static bool carry_out(struct pen_gate *g, struct work *w)
{
	for (uint32_t i = 0; i < w->ntime; i++) {
		struct pen_gate_batch *b = w->time[i];
		uint64_t start = 0, end = 0;
		bool timed = (g->ad->caps & PEN_ADAPTER_TIMESTAMPS) && b->mark.timed && g->ad->mark_time &&
			     g->ad->mark_time(&b->mark, &b->mark, &start, &end) == 0 && start && end >= start;
		b->start_ns = timed ? start : 0;
		b->end_ns = timed ? end : 0;
		if (!notifies(g) || atomic_load(&b->mark.done)) {
			mark_free(b);
			b->released = true;
		}
		atomic_store(&b->timed, 1);   /* from here the batch may be retired by whoever holds the lock */
	}
	for (uint32_t i = 0; i < w->nfree; i++) {
		mark_free(w->free[i]);
		pen_gate_batch_put(g, w->free[i]);
	}
	return w->ntime || w->more;
}

void pen_gate_drain(struct pen_gate *g)
{
	while (atomic_load(&g->pending) && pen_gate_trylock_(g)) {
		struct work w;
		atomic_store(&g->pending, 0);
		collect(g, &w);
		if (!w.ntime)   /* else when their times are known */
			pen_gate_advance(g);
		pen_gate_unlock_only(g);
		if (carry_out(g, &w))
			atomic_store(&g->pending, 1);
	}
}

/* ---- advancing: the heads of the queues that are known to be complete ------------------------------------------- */

static bool times_known(struct pen_gate_batch *b)
{
	return b->has_mark && b->complete && atomic_load(&b->timed);
}

/*
 * Alone on the device there is nobody to let in, so a queue that ran dry keeps its credit: a program whose kernels end
 * before it has launched the next would else pay a whole admission for each. Where response times are promised
 * the end of every burst must be seen.
 */
static bool lingers(const struct pen_gate *g)
{
	return !g->nforeign && !g->nheld && !g->lim.latency && !g->lim.target_ns;
}

/* Is @b, the head of an in-order queue, complete with its tail? */
static bool head_done(struct pen_gate_queue_full *q, struct pen_gate_batch *b)
{
	if (atomic_load(&b->submitting) || (b->has_mark && !times_known(b)))
		return false;
	if (b->synced)
		return true;
	if (b == q->last && q->spare_ns) {
		uint64_t word = atomic_load(&q->head.credit);
		if ((int64_t)word >> PEN_CREDIT_BITS > 0)
			return false;   /* the fast path is at work: leave it its credit */
		if (lingers(q->head.gate))
			return false;
		pen_gate_close_credit(q);
	}
	if (b->has_mark && !b->tail_n)
		return true;
	return b->next && times_known(b->next);
}

static void unlink_batch(struct pen_gate_queue_full *q, struct pen_gate_batch *prev, struct pen_gate_batch *b)
{
	if (prev)
		prev->next = b->next;
	else
		q->first = b->next;
	if (q->last == b)
		q->last = prev;
}

/* What stood behind a command that could not run is in flight now. */
static void unblock(struct pen_gate *g, struct pen_gate_queue_full *q)
{
	q->nblocked--;
	if (q->flags & PEN_QUEUE_OUT_OF_ORDER)
		return;
	for (struct pen_gate_batch *b = q->first; b && !b->not_runnable; b = b->next)
		pen_gate_count_in(g, b);
}

static void dispose(struct pen_gate *g, struct pen_gate_batch *b)
{
	if (b->has_mark && !b->released) {   /* the driver will still call back */
		b->next = g->zombies;
		g->zombies = b;
	} else {
		pen_gate_batch_put(g, b);
	}
}

static bool advance_queue(struct pen_gate *g, struct pen_gate_queue_full *q, const struct pen_gate_runs *runs, uint64_t *now)
{
	bool ooo = q->flags & PEN_QUEUE_OUT_OF_ORDER;
	bool any = false;
	struct pen_gate_batch *prev = NULL;
	for (struct pen_gate_batch *b = q->first, *next; b; b = next) {
		next = b->next;
		bool done = ooo ? !atomic_load(&b->submitting) && (b->has_mark ? times_known(b) : b->synced) : head_done(q, b);
		if (!done && !ooo)
			break;
		if (!done) {
			prev = b;
			continue;
		}
		if (!*now)   /* most looks find nothing, and the clock is not cheap */
			*now = pen_gate_now(g);
		pen_gate_retire(g, b, runs, *now);
		bool blocked = b->not_runnable;
		unlink_batch(q, prev, b);
		dispose(g, b);
		if (blocked)
			unblock(g, q);
		any = true;
	}
	return any;
}

static uint64_t oldest_est(struct pen_gate *g)
{
	const struct pen_gate_batch *best = NULL;
	for (struct pen_gate_queue_full *q = g->queues; q; q = q->next)
		for (struct pen_gate_batch *b = q->first; b; b = b->next) {
			if (!b->counted)
				continue;
			if (!best || b->seq < best->seq)
				best = b;
			break;
		}
	return best ? best->est_ns : 0;
}

void pen_gate_advance(struct pen_gate *g)
{
	bool any = false, work = false;
	for (struct pen_gate_queue_full *q = g->queues; q && !work; q = q->next)
		work = q->first || q->dead;
	if (!work && !g->active)
		return;
	struct pen_gate_runs runs;
	pen_gate_runs(g, &runs);
	uint64_t now = 0;
	for (struct pen_gate_queue_full *q = g->queues; q; q = q->next)
		any |= advance_queue(g, q, &runs, &now);
	if (!any && !g->nflight)
		(void)pen_gate_now(g);   /* it may have come to rest */
	if (any) {
		g->st.last_progress_ns = now;
		g->st.oldest_est_ns = oldest_est(g);
		atomic_fetch_add(&g->kick, 1);
		g->kick_due |= atomic_load(&g->kick_waiters) != 0;   /* woken when the lock is free: they want it */
	}
	pen_gate_settle(g);
	pen_gate_queue_reap(g);
}

/* ---- charging --------------------------------------------------------------------------------------------------- */

struct span { uint64_t start, end; };

/*
 * Is @b as long as was learned, but for what the host needed to bring it to an idle device? Then that is neither charged nor
 * learned: a program that waits for each of its short kernels would pay twice their time.
 */
static bool is_as_learned(const struct pen_gate *g, const struct pen_gate_batch *b)
{
	if (!(g->ad->caps & PEN_ADAPTER_LOOSE_START) || !b->solo || !b->cost || b->slices != b->slices_all || !pen_cost_known(b->cost))
		return false;
	uint64_t ns = b->end_ns - b->start_ns, est = pen_cost_est_ns(b->cost);
	return ns >= est && ns - est <= BRING_NS;
}

/* Device time of the first command, as well as it is known. */
static struct span first_span(const struct pen_gate *g, struct pen_gate_batch *b)
{
	if (b->start_ns)
		return (struct span){ is_as_learned(g, b) ? b->end_ns - pen_cost_est_ns(b->cost) : b->start_ns, b->end_ns };
	uint64_t start = PEN_MAX(b->submit_ns, g->end_ns);
	uint64_t seen = atomic_load_explicit(&b->seen_ns, memory_order_relaxed);
	bool exact = b->exact;
	if (!b->has_mark || !seen) {
		seen = b->sync_ns;
		exact = b->sync_exact && !b->tail_n;
	}
	if (!seen)   /* ended by a later mark: no time of its own */
		return (struct span){ start, start + b->est_ns };
	/* Seen late it may have ended any time before: by estimate then. */
	uint64_t end = exact ? seen : PEN_MIN(seen, start + b->est_ns);
	end = PEN_MAX(end, start);
	return (struct span){ start, end };
}

static uint64_t tail_end(struct pen_gate *g, struct pen_gate_batch *b, uint64_t from)
{
	if (!b->tail_n)
		return from;
	uint64_t est = from + b->tail_ns;
	uint64_t until = b->synced && b->sync_exact ? b->sync_ns : 0;
	if (!b->synced && b->next && times_known(b->next)) {
		struct span s = first_span(g, b->next);
		until = b->next->start_ns ? s.start : b->next->exact ? s.end - PEN_MIN(s.end, b->next->est_ns) : 0;
	}
	if (until < from || until - from > TAIL_FACTOR * b->tail_ns + TAIL_SLACK_NS)
		return est;
	return until;
}

/*
 * What @s adds to the union. A batch beside others of its own tenant may be retired before one that started earlier, whose
 * beginning would then be lost: it is charged from where the tenant's work began, for in between the device was never free.
 * But from no earlier than @reach_ns before it, as long as what is still in flight can have been there: a sibling that was
 * killed or stopped says for ever that it runs, and the tenant would pay for every moment since.
 */
static uint64_t charge_union(struct pen_ledger_page *l, struct span s, uint64_t reach_ns)
{
	uint64_t covered = atomic_load(&l->covered_until_ns);
	while (covered < s.end &&
	       !atomic_compare_exchange_weak(&l->covered_until_ns, &covered, s.end))
		;
	uint64_t earliest = s.start - PEN_MIN(s.start, reach_ns);
	uint64_t since = PEN_MAX(atomic_load(&l->flight_since_ns), earliest);
	uint64_t start = PEN_MIN(s.start, since);
	uint64_t from = PEN_MAX(start, covered);
	return s.end > from ? s.end - from : 0;
}

static void raise_to(_Atomic uint64_t *word, uint64_t v)
{
	uint64_t was = atomic_load_explicit(word, memory_order_relaxed);
	while (was < v && !atomic_compare_exchange_weak_explicit(word, &was, v, memory_order_relaxed, memory_order_relaxed))
		;
}

/* What a piece that took @ns makes for the whole command. */
static uint64_t whole_ns(const struct pen_gate_batch *b, uint64_t ns)
{
	return ns / PEN_MAX(b->slices, 1u) * b->slices_all;
}

/* Did another tenant have work in flight at any time of it? */
static bool was_tainted(const struct pen_gate_batch *b, const struct pen_gate_runs *runs)
{
	return b->tainted || runs->foreign_now || b->runs_foreign != runs->foreign;
}

static void learn(struct pen_gate *g, struct pen_gate_batch *b, const struct pen_gate_runs *runs)
{
	uint64_t seen = atomic_load_explicit(&b->seen_ns, memory_order_relaxed);
	bool alone = !b->dirty && !runs->all_now && b->runs_all == runs->all && b->overlap == g->overlap;
	uint64_t ns = 0;
	if (b->start_ns) {
		if (is_as_learned(g, b))
			return;
		ns = b->end_ns - b->start_ns;
	} else if (b->solo && !b->tail_n) {   /* no timestamps: host time, if nothing was before it and its end was really seen */
		uint64_t end = b->has_mark && seen ? (b->exact ? seen : 0) : b->sync_exact ? b->sync_ns : 0;
		ns = end - PEN_MIN(end, b->submit_ns);
	}
	/* Stamps that say 0 are an answer: a command too short for the device's clock. No stamps and no time are none. */
	if ((!ns && !b->start_ns) || b->edge)
		return;
	raise_to(&pen_gate_account(g)->max_command_ns, ns);
	if (b->cost && alone && b->slices == b->slices_all)
		pen_cost_learn(b->cost, ns);
	else if (b->cost && alone)
		pen_gate_cost_piece(b->cost, whole_ns(b, ns));
	/*
	 * Who is never alone would never learn, and run on a guess for ever: its part of the time that they had together is a
	 * poor value, but of the right size. With another tenant it counts as half, as on a device that shares its time.
	 */
	if (b->cost && !alone)
		pen_gate_cost_beside(b->cost, whole_ns(b, ns / (1 + runs->siblings_now + was_tainted(b, runs))));
}

/*
 * What overlapped with another tenant is charged by estimate. Its residence still bounds that: the device gave it no more, and hardly
 * less than a quarter, since few run at once. Else a command that differs from what was learned of it (it may be made to)
 * would be nearly free wherever it overlaps.
 */
static uint64_t charge_tainted(const struct pen_gate_batch *b)
{
	uint64_t residence = b->end_ns - b->start_ns;
	uint64_t first = b->start_ns && !b->edge ? pen_clamp(b->est_ns, residence / 4, PEN_MAX(residence, PEN_COST_FLOOR_NS)) : b->est_ns;
	return first + b->tail_ns;
}

void pen_gate_retire(struct pen_gate *g, struct pen_gate_batch *b, const struct pen_gate_runs *runs, uint64_t now_ns)
{
	struct pen_ledger_page *l = g->dev->ledger;
	struct pen_ledger_client *c = pen_gate_account(g);
	struct pen_signal_page *own = g->dev->signal;
	bool tainted = was_tainted(b, runs);
	uint64_t charge = b->est_ns + b->tail_ns;
	PEN_GATE_POINT(RETIRE);
	learn(g, b, runs);
	if (!g->lim.corun && !tainted) {
		struct span s = first_span(g, b);
		s.end = tail_end(g, b, s.end);
		g->end_ns = PEN_MAX(g->end_ns, s.end);
		uint64_t reach_ns = b->dirty ? 2 * (runs->siblings_ns + g->st.inflight_ns) : 0;   /* estimates may be low */
		charge = b->edge ? 0 : charge_union(l, s, reach_ns);
	} else if (!g->lim.corun && !b->edge) {
		charge = charge_tainted(b);
		pen_count(&c->tainted, 1);
	}
	PEN_GATE_POINT(CHARGE);
	int64_t diff = (int64_t)charge - (int64_t)b->booked_ns;
	if (diff) {
		/* Two's complement: adding a negative difference is subtracting. */
		atomic_fetch_add(&l->share_tat_ns, (uint64_t)pen_admit_settle_share(&g->lim, now_ns, diff));
		atomic_fetch_add(&l->guar_tat_ns, (uint64_t)pen_admit_settle_guar(&g->lim, diff));
	}
	pen_gate_count_out(g, b);
	if (b->gate_number)
		pen_gate_dev_retired(g, b);
	if (!b->edge) {
		pen_count(&c->device_ns, charge);
		pen_count(&c->batches, 1);
		atomic_fetch_add_explicit(&own->service_vns, pen_admit_vns(&g->lim, charge), memory_order_relaxed);
	}
	atomic_fetch_add(&own->progress, 1);
}

/* ---- the application synchronises ------------------------------------------------------------------------------- */

void pen_gate_synced(struct pen_gate_queue_full *q, uint64_t seq, uint64_t now_ns, bool exact)
{
	struct pen_gate_batch *last = NULL;
	for (struct pen_gate_batch *b = q->first; b && b->seq <= seq; b = b->next) {
		if (atomic_load(&b->submitting))
			break;
		if (!b->complete && b->has_mark && atomic_load(&b->mark.done))
			b->complete = b->exact = true;
		b->synced = true;
		if (b->complete && !b->tail_n && b->has_mark)
			continue;
		b->complete = true;
		b->sync_ns = now_ns;
		last = b;
	}
	/* Only the last of them ended when the call returned; those before it some time earlier, each by its estimate. */
	if (last)
		last->sync_exact = exact;
}

/* Newest batch of which, and of all before it, everything is with the device. */
static uint64_t token_of(struct pen_gate_queue_full *q, uint64_t token)
{
	pen_gate_close_credit(q);
	if (q->last)
		q->last->sealed = true;
	for (struct pen_gate_batch *b = q->first; b; b = b->next)
		if (atomic_load(&b->submitting))
			return PEN_MIN(token, b->seq - 1);
	return token;
}

/*
 * The token: sequence number, and below it the microsecond at which the wait began. A call that has blocked returned when the
 * last command ended; one that has not only tells that it had ended before.
 */
#define TOKEN_US_BITS 24
#define TOKEN_US_MASK ((UINT64_C(1) << TOKEN_US_BITS) - 1)

static uint64_t token_make(uint64_t seq)
{
	return seq << TOKEN_US_BITS | (pen_mono_ns() / PEN_US & TOKEN_US_MASK);
}

static bool token_blocked(uint64_t token, uint64_t now_ns)
{
	return ((now_ns / PEN_US - token) & TOKEN_US_MASK) * PEN_US >= SYNC_BLOCKED_NS;
}

static bool of_this_process(struct pen_gate *g, const struct pen_gate_queue_full *q)
{
	return q->fork_count == atomic_load(&g->fork_count);
}

uint64_t pen_gate_sync_begin(struct pen_gate_queue *head)
{
	struct pen_gate_queue_full *q = pen_gate_full(head);
	struct pen_gate *g = head->gate;
	if (!pen_gate_attached(g) || !of_this_process(g, q))
		return 0;
	/* Where host time is all there is: what is done by now did not end with the wait that comes. */
	if (!(g->ad->caps & (PEN_ADAPTER_NOTIFY | PEN_ADAPTER_TIMESTAMPS)))
		pen_gate_look_at(g, q);
	pen_gate_lock(g);
	uint64_t token = q->first ? token_make(token_of(q, g->seq)) : 0;
	pen_gate_unlock(g);
	return token;
}

void pen_gate_sync_end(struct pen_gate_queue *head, uint64_t token)
{
	struct pen_gate_queue_full *q = pen_gate_full(head);
	struct pen_gate *g = head->gate;
	if (!token || !pen_gate_attached(g) || !of_this_process(g, q))
		return;
	uint64_t now = pen_mono_ns();
	pen_gate_lock(g);
	pen_gate_synced(q, token >> TOKEN_US_BITS, now, token_blocked(token, now));
	atomic_store(&g->pending, 1);
	pen_gate_unlock(g);
}

uint64_t pen_gate_sync_all_begin(struct pen_gate *g)
{
	if (!pen_gate_attached(g))
		return 0;
	pen_gate_lock(g);
	uint64_t seq = g->seq;
	for (struct pen_gate_queue_full *q = g->queues; q; q = q->next)
		seq = token_of(q, seq);
	uint64_t token = seq ? token_make(seq) : 0;
	pen_gate_unlock(g);
	return token;
}

void pen_gate_sync_all_end(struct pen_gate *g, uint64_t token)
{
	if (!token || !pen_gate_attached(g))
		return;
	uint64_t now = pen_mono_ns();
	pen_gate_lock(g);
	for (struct pen_gate_queue_full *q = g->queues; q; q = q->next)
		pen_gate_synced(q, token >> TOKEN_US_BITS, now, token_blocked(token, now));
	atomic_store(&g->pending, 1);
	pen_gate_unlock(g);
}

void pen_gate_edge(struct pen_gate_queue *head)
{
	struct pen_gate_queue_full *q = pen_gate_full(head);
	struct pen_gate *g = head->gate;
	if (!pen_gate_attached(g) || !of_this_process(g, q) || (g->ad->capturing && g->ad->capturing(head)))
		return;
	pen_gate_edges(g, q);
}

void pen_gate_poll(struct pen_gate_queue *head)
{
	struct pen_gate_queue_full *q = pen_gate_full(head);
	struct pen_gate *g = head->gate;
	if (!pen_gate_attached(g) || !of_this_process(g, q))
		return;
	pen_gate_lock(g);
	bool any = q->first;
	bool tail = pen_gate_tail_alone(q);
	pen_gate_unlock(g);
	if (!any)
		return;
	pen_gate_look(g, pen_mono_ns());
	if (tail)
		pen_gate_edge(head);
	atomic_store(&g->pending, 1);
	pen_gate_drain(g);
}
