/* SPDX-License-Identifier: Apache-2.0 */
/* Queues, and the life of a batch up to its retirement: credit, marks, looking and waiting for them. */
#include "base/auto.h"
#include "gate/internal.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>

/* ---- pool ------------------------------------------------------------------------------------------------------- */

static void pool_refill(struct pen_gate *g)
{
	struct pen_gate_batch *b = atomic_exchange_explicit(&g->freed, NULL, memory_order_acquire);
	if (b) {
		g->pool = b;
		return;
	}
	/*
	 * Never given back: a process that once had many in flight will again. The first of a block holds on to the block before it, for
	 * leak checkers: a forked child has lost what was in flight.
	 */
	enum { BLOCK = 32 };
	b = calloc(BLOCK, sizeof(*b));
	if (!b)
		return;
	b->next = g->blocks;
	g->blocks = b;
	for (unsigned i = 1; i < BLOCK; i++) {
		b[i].next = g->pool;
		g->pool = &b[i];
	}
}

struct pen_gate_batch *pen_gate_batch_new(struct pen_gate_queue_full *q)
{
	struct pen_gate *g = q->head.gate;
	if (!g->pool)
		pool_refill(g);
	struct pen_gate_batch *b = g->pool;
	if (!b)
		return NULL;
	g->pool = b->next;
	/* The words that a thread may still look at which knew the batch in an earlier life: one by one. */
	atomic_store_explicit(&b->mark.done, 0, memory_order_relaxed);
	atomic_store_explicit(&b->submitting, 0, memory_order_relaxed);
	b->mark.native = NULL;
	b->mark.extra = 0;
	b->mark.timed = 0;
	memset(&b->life, 0, sizeof(*b) - offsetof(struct pen_gate_batch, life));
	b->q = q;
	b->gate = g;
	b->seq = ++g->seq;
	b->slices = b->slices_all = 1;
	return b;
}

void pen_gate_batch_put(struct pen_gate *g, struct pen_gate_batch *b)
{
	struct pen_gate_batch *head = atomic_load_explicit(&g->freed, memory_order_relaxed);
	do
		b->next = head;
	while (!atomic_compare_exchange_weak_explicit(&g->freed, &head, b, memory_order_release, memory_order_relaxed));
}

void pen_gate_batch_append(struct pen_gate_queue_full *q, struct pen_gate_batch *b)
{
	if (q->last)
		q->last->next = b;
	else
		q->first = b;
	q->last = b;
}

/* ---- what is in flight ------------------------------------------------------------------------------------------ */

void pen_gate_count_in(struct pen_gate *g, struct pen_gate_batch *b)
{
	if (b->counted)
		return;
	b->counted = true;
	g->st.inflight_ns += b->inflight_ns;
	b->q->nflight++;
	if (!g->nflight++) {
		g->st.oldest_est_ns = b->est_ns;
		g->st.last_progress_ns = pen_gate_lately(g);
	}
}

void pen_gate_count_out(struct pen_gate *g, struct pen_gate_batch *b)
{
	if (!b->counted)
		return;
	b->counted = false;
	g->st.inflight_ns -= PEN_MIN(g->st.inflight_ns, b->inflight_ns);
	g->nflight--;
	b->q->nflight--;
}

void pen_gate_close_credit(struct pen_gate_queue_full *q)
{
	if (!q->spare_ns)
		return;
	struct pen_gate *g = q->head.gate;
	struct pen_gate_batch *b = q->last;
	/*
	 * A fast command that was just found too dear has added its count and is about to take it back: the sum of all that
	 * is read here is right in the end, one reading may be one command off. Hence signed.
	 */
	uint64_t word = atomic_exchange(&q->head.credit, PEN_CREDIT_BIAS);
	int64_t left = (int64_t)(word & PEN_CREDIT_MASK) - (int64_t)PEN_CREDIT_BIAS;
	int32_t n = (int32_t)((int64_t)word >> PEN_CREDIT_BITS);
	int64_t spent = PEN_MAX((int64_t)q->spare_ns - left, INT64_C(0));
	uint64_t unused = q->spare_ns - PEN_MIN((uint64_t)spent, q->spare_ns);
	q->spare_ns = 0;
	if (n > 0)
		pen_count(&pen_gate_account(g)->commands, (uint64_t)n);
	if (!b)
		return;
	b->tail_n += n > 0 ? (uint32_t)n : 0;
	b->tail_ns += (uint64_t)spent;
	unused = PEN_MIN(unused, b->inflight_ns);
	b->inflight_ns -= unused;
	if (b->counted)
		g->st.inflight_ns -= PEN_MIN(g->st.inflight_ns, unused);
}

bool pen_gate_has_mark(const struct pen_mark *m)
{
	return m->native || m->extra;
}

/* ---- queues ----------------------------------------------------------------------------------------------------- */

int pen_gate_queue_create(struct pen_gate *g, void *native, uint32_t flags, struct pen_gate_queue **ret_q)
{
	int r = pen_gate_ready(g);
	if (r < 0)
		return r;
	struct pen_gate_queue_full *q = aligned_alloc(64, (sizeof(*q) + 63) / 64 * 64);
	if (!q)
		return -ENOMEM;
	*q = (struct pen_gate_queue_full){
		.head = { .credit = PEN_CREDIT_BIAS, .hot = g->hot, .native = native, .gate = g },
		.flags = flags,
		.fork_count = atomic_load(&g->fork_count),
	};
	pen_gate_lock(g);
	q->next = g->queues;
	g->queues = q;
	unsigned level = g->lim.latency ? 0 : g->lim.rank ? 2 : 1;
	pen_gate_unlock(g);
	if (g->ad->urgent_hint)
		g->ad->urgent_hint(&q->head, level);
	*ret_q = &q->head;
	return 0;
}

/*
 * What has no mark behind it and gets none cannot be seen to end: it has, by its estimate, when what is before it has. Lock held.
 */
void pen_gate_give_up_tails(struct pen_gate_queue_full *q)
{
	for (struct pen_gate_batch *b = q->first; b; b = b->next)
		if ((!b->next || !b->next->has_mark) && !atomic_load(&b->submitting))
			b->synced = true;   /* one with a mark still waits for that */
}

bool pen_gate_queue_is_own(struct pen_gate_queue *q)
{
	return pen_gate_ready(q->gate) == 0 && pen_gate_full(q)->fork_count == atomic_load(&q->gate->fork_count);
}

void pen_gate_queue_destroy(struct pen_gate_queue *head)
{
	if (!head)
		return;
	struct pen_gate_queue_full *q = pen_gate_full(head);
	struct pen_gate *g = head->gate;
	/* A queue of the parent in a forked child: its batches are the parent's, and no reason to attach. */
	if (!pen_gate_attached(g) || q->fork_count != atomic_load(&g->fork_count))
		return;
	pen_gate_edges(g, q);
	pen_gate_lock(g);
	pen_gate_close_credit(q);
	q->dead = true;
	pen_gate_give_up_tails(q);
	atomic_store(&g->pending, 1);
	pen_gate_unlock(g);
}

void pen_gate_queue_reap(struct pen_gate *g)
{
	for (struct pen_gate_queue_full **at = &g->queues; *at;) {
		struct pen_gate_queue_full *q = *at;
		if (!q->dead || q->first || atomic_load(&q->refs) || atomic_load(&q->marks)) {
			at = &q->next;
			continue;
		}
		*at = q->next;
		free(q);
	}
}

/* ---- marks ------------------------------------------------------------------------------------------------------ */

/* The tail of @q has no mark and may get one: an empty batch at its end, or NULL. Lock held. */
static struct pen_gate_batch *edge_batch(struct pen_gate *g, struct pen_gate_queue_full *q)
{
	pen_gate_close_credit(q);
	struct pen_gate_batch *last = q->last;
	if (!last || q->dead || last->synced || (last->has_mark && !last->tail_n) || atomic_load(&last->submitting) ||
	    (q->flags & PEN_QUEUE_OUT_OF_ORDER) || atomic_load(&q->marks) >= g->ad->marks_max)
		return NULL;
	bool again = last->edge && !last->has_mark;   /* recording failed before */
	struct pen_gate_batch *b = again ? last : pen_gate_batch_new(q);
	if (!b)
		return NULL;
	b->edge = b->has_mark = true;
	b->inflight_ns = 1;   /* in flight, at no cost */
	b->submit_ns = pen_mono_ns();
	atomic_store_explicit(&b->submitting, 1, memory_order_relaxed);
	atomic_fetch_add(&q->marks, 1);
	atomic_fetch_add(&q->refs, 1);
	if (again)
		return b;
	if (!q->nblocked)
		pen_gate_count_in(g, b);
	pen_gate_batch_append(q, b);
	return b;
}

/* Return: there is a mark now. */
static bool edge_record(struct pen_gate *g, struct pen_gate_batch *b)
{
	struct pen_gate_queue_full *q = b->q;
	bool failed = g->ad->mark_record(&q->head, &b->mark) < 0 || !pen_gate_has_mark(&b->mark);
	pen_gate_lock(g);
	if (failed) {   /* stays as an empty batch without a mark: the next one ends it */
		b->has_mark = false;
		atomic_fetch_sub(&q->marks, 1);
	}
	atomic_store(&b->submitting, 0);
	atomic_fetch_sub(&q->refs, 1);
	atomic_store(&g->pending, 1);
	pen_gate_unlock(g);
	return !failed;
}

void pen_gate_edges(struct pen_gate *g, struct pen_gate_queue_full *only)
{
	if (g->ad->in_callback && g->ad->in_callback())
		return;
	for (;;) {
		struct pen_gate_batch *b = NULL;
		pen_gate_lock(g);
		for (struct pen_gate_queue_full *q = only ? only : g->queues; q && !b; q = only ? NULL : q->next)
			b = edge_batch(g, q);
		pen_gate_unlock(g);
		if (!b)
			return;
		/* A device that records no mark (lost, out of memory) would be asked for ever: waits are bounded without. */
		if (!edge_record(g, b) || only)
			return;
	}
}

/* The oldest batch with a mark that is not known to be done, pinned; NULL = none. Lock held. */
static struct pen_gate_batch *pin_oldest(struct pen_gate *g, struct pen_gate_queue_full *only, bool skip_blocked)
{
	struct pen_gate_batch *best = NULL;
	for (struct pen_gate_queue_full *q = only ? only : g->queues; q; q = only ? NULL : q->next) {
		for (struct pen_gate_batch *b = q->first; b; b = b->next) {
			if (atomic_load(&b->submitting))
				break;
			if (!b->has_mark || b->complete)
				continue;
			if (!(skip_blocked && !b->counted) && (!best || b->seq < best->seq))
				best = b;
			if (!(q->flags & PEN_QUEUE_OUT_OF_ORDER))
				break;
		}
	}
	if (best)
		best->pins++;
	return best;
}

static void unpin(struct pen_gate *g, struct pen_gate_batch *b, bool done, bool exact)
{
	b->pins--;
	if (done && !b->complete) {
		atomic_store_explicit(&b->seen_ns, pen_mono_ns(), memory_order_relaxed);
		b->complete = true;
		b->exact = exact;
	}
	/* Whoever collected meanwhile has left it where it is. */
	if (b->complete || atomic_load(&b->mark.done))
		atomic_store(&g->pending, 1);
}

void pen_gate_look_at(struct pen_gate *g, struct pen_gate_queue_full *q)
{
	for (;;) {
		pen_gate_lock(g);
		struct pen_gate_batch *b = pin_oldest(g, q, false);
		pen_gate_unlock(g);
		if (!b)
			return;
		bool done = g->ad->mark_poll(&b->mark) != 0;
		pen_gate_lock(g);
		unpin(g, b, done, false);
		pen_gate_unlock(g);
		if (!done)
			return;
	}
}

bool pen_gate_tail_alone(const struct pen_gate_queue_full *q)
{
	return q->last && !q->nblocked && q->last->complete && !q->last->synced;
}

/* Each queue, pinned by a count, since another thread may destroy it while the lock is free. @edges: marks for tails that are alone. */
static void look_at_all(struct pen_gate *g, bool edges)
{
	pen_gate_lock(g);
	struct pen_gate_queue_full *q = g->queues;
	while (q) {
		atomic_fetch_add(&q->refs, 1);
		pen_gate_unlock_only(g);
		pen_gate_look_at(g, q);
		pen_gate_lock(g);
		if (edges && pen_gate_tail_alone(q)) {
			pen_gate_unlock_only(g);
			pen_gate_edges(g, q);
			pen_gate_lock(g);
		}
		struct pen_gate_queue_full *next = q->next;
		atomic_fetch_sub(&q->refs, 1);
		q = next;
	}
	atomic_store(&g->pending, 1);
	pen_gate_unlock(g);
}

void pen_gate_look(struct pen_gate *g, uint64_t now_ns)
{
	if (g->ad->caps & PEN_ADAPTER_NOTIFY)
		return;
	pen_gate_lock(g);
	bool due = now_ns - g->polled_ns >= PEN_GATE_POLL_NS || now_ns < g->polled_ns;
	if (due)
		g->polled_ns = now_ns;
	pen_gate_unlock(g);
	if (due)
		look_at_all(g, false);
}

/* ---- in place of the application -------------------------------------------------------------------------------- */

/* What got no mark although one was asked for has ended, long after its estimate. Lock held. */
static void give_up_old_tails(struct pen_gate *g, uint64_t now)
{
	for (struct pen_gate_queue_full *q = g->queues; q; q = q->next) {
		uint64_t est = 0;
		for (struct pen_gate_batch *b = q->first; b; b = b->next)
			est += b->est_ns + b->tail_ns;
		const struct pen_gate_batch *last = q->last;
		if (last && last->edge && !last->has_mark && !q->nblocked && now - PEN_MIN(now, last->submit_ns) > 2 * est + PEN_GATE_TAIL_NS)
			pen_gate_give_up_tails(q);
	}
}

/* Does another tenant wait for the device? Their words; a lie costs us a few looks. Lock held. */
static bool somebody_wants(struct pen_gate *g)
{
	const struct pen_terms *t = pen_gate_terms_(g);
	for (uint32_t k = 0; k < g->nforeign; k++) {
		uint32_t i = g->foreign[k];
		const struct pen_signal_page *p = pen_attach_neighbour(g->dev, i, t->seat[i].generation);
		enum pen_busy_state s = p ? PEN_BUSY_STATE(atomic_load(&p->busy)) : PEN_BUSY_IDLE;
		if (p && t->seat[i].tenant != g->lim.tenant && (s == PEN_BUSY_WANT || s == PEN_BUSY_CLAIM || atomic_load(&p->waiting_on)))
			return true;
	}
	return false;
}

/* When the oldest work should end, and after that in proportion to how late it is. Lock held. */
static uint64_t next_look(struct pen_gate *g, uint64_t now)
{
	uint64_t ends = g->st.last_progress_ns + g->st.oldest_est_ns;
	uint64_t ns = now < ends ? ends - now : (now - ends) / 8;
	if (g->devgate.shut)   /* the bell tells */
		return PEN_GATE_WATCH_NS;
	return pen_clamp(ns, somebody_wants(g) ? PEN_GATE_POLL_NS : PEN_GATE_WATCH_NS, PEN_GATE_WATCH_NS);
}

/* Lock held, and free meanwhile. */
static void look_for_ends(struct pen_gate *g, uint64_t now)
{
	pen_gate_unlock_only(g);
	look_at_all(g, true);
	pen_gate_lock(g);
	give_up_old_tails(g, now);
	pen_gate_unlock_only(g);
	atomic_store(&g->pending, 1);
	pen_gate_drain(g);
	pen_gate_lock(g);
}

uint64_t pen_gate_watch(struct pen_gate *g)
{
	if (!pen_gate_attached(g))
		return 0;
	uint64_t now = pen_gate_now(g), next = 0;
	pen_gate_connection(g, now);
	pen_gate_lock(g);
	pen_gate_refresh(g);
	if (g->devgate.shut && !pen_gate_dev_leave_alone(g, now))
		look_for_ends(g, now);       /* what was let through last has ended? */
	pen_gate_dev_look(g, now);
	if (!g->devgate.shut)
		look_for_ends(g, now);
	g->watched = PEN_GATE_UNWATCHED;
	if (g->nothers && g->nflight) {
		g->watched = PEN_GATE_WATCHED;
		next = next_look(g, now);
	} else if (g->nothers && now - PEN_MIN(now, g->st.last_progress_ns) < PEN_GATE_LINGER_NS) {
		g->watched = PEN_GATE_LINGERS;
		next = PEN_GATE_WATCH_NS;
	}
	if (g->devgate.shut)
		pen_gate_unlock_only(g);
	else
		pen_gate_unlock(g);
	return next;
}

bool pen_gate_needs_watch(struct pen_gate *g)
{
	if (!g->ad->watch || !g->nothers || !g->nflight || g->watched == PEN_GATE_WATCHED ||
	    (g->watched == PEN_GATE_LINGERS && !somebody_wants(g)))
		return false;
	g->watched = PEN_GATE_WATCHED;
	return true;
}

/* Until something was retired, or @bound_ns. @kick_seen: value of g->kick before the last look. */
/*
 * A short wait is meant to end on time: the kernel's usual slack of 50 us would let the device run dry. The thread's own
 * setting is put back, since it is the application's thread.
 */
#define PUNCTUAL_NS PEN_MS

static void wait_kick(struct pen_gate *g, uint64_t bound_ns, uint32_t kick_seen)
{
	atomic_fetch_add(&g->kick_waiters, 1);
	if (atomic_load(&g->kick) == kick_seen) {
		int slack = bound_ns < PUNCTUAL_NS ? prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0) : 0;
		if (slack > 1)
			prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
		pen_futex_wait(&g->kick, kick_seen, bound_ns);
		if (slack > 1)
			prctl(PR_SET_TIMERSLACK, (unsigned long)slack, 0, 0, 0);
	}
	atomic_fetch_sub(&g->kick_waiters, 1);
}

void pen_gate_wait_own(struct pen_gate *g, uint64_t bound_ns, uint32_t kick_seen)
{
	if (g->ad->caps & PEN_ADAPTER_NOTIFY) {
		wait_kick(g, bound_ns, kick_seen);
		return;
	}
	pen_gate_lock(g);
	struct pen_gate_batch *b = pin_oldest(g, NULL, true);
	uint64_t ends = g->st.last_progress_ns + g->st.oldest_est_ns;
	pen_gate_unlock(g);
	if (!b) {
		wait_kick(g, PEN_MIN(bound_ns, PEN_MS), kick_seen);
		return;
	}
	bool done = false, exact = true;
	if (g->ad->mark_wait) {
		done = g->ad->mark_wait(&b->mark, bound_ns) != -ETIMEDOUT;
	} else {
		uint64_t began = pen_mono_ns(), now = began;
		while (!(done = g->ad->mark_poll(&b->mark) != 0) && now - began < bound_ns && atomic_load(&g->kick) == kick_seen) {
			/* Until it should end, and then in proportion to what was waited: seen late by an eighth of that. */
			uint64_t step = now < ends ? ends - now : (now - began) / 8;
			step = pen_clamp(step, PEN_GATE_POLL_NS, PEN_MS);
			wait_kick(g, PEN_MIN(step, began + bound_ns - now), kick_seen);
			now = pen_mono_ns();
		}
	}
	pen_gate_lock(g);
	unpin(g, b, done, exact);
	pen_gate_unlock(g);
}

void pen_gate_mark_done(struct pen_mark *mark, bool failed)
{
	struct pen_gate_batch *b = (struct pen_gate_batch *)(void *)mark;
	struct pen_gate *g = b->gate;   /* read before done is set: then the batch may be gone */
	atomic_store_explicit(&b->seen_ns, pen_mono_ns(), memory_order_relaxed);
	atomic_store(&mark->done, failed ? 2 : 1);
	atomic_store(&g->pending, 1);
	/*
	 * While a thread is still submitting nothing can be done yet: it looks at `done` when it has ended. (The record may
	 * serve another command by now; then this one was seen to.)
	 */
	if (!atomic_load(&b->submitting))
		pen_gate_drain(g);
}
