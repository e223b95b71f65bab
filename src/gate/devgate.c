/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device-side gate of a tenant that class latency outranks: in front of each of its batches the device waits for a number, and the
 * process's watcher stops letting numbers pass when one of those others becomes busy. So a queue may be deeper than the wide window
 * and still stops within one command, without a round trip of the host for each.
 *
 * How long it stays shut is bounded by the rules of admission: an outranking seat that does not move is passed over after
 * PEN_ADMIT_STALE_NS, and a guarantee (or the floor) that is due lets one batch through at a time. Whoever ends the process or the
 * context opens it (the adapter). What was admitted was paid for, shut or open.
 */
#include "base/auto.h"
#include "gate/internal.h"

/* Far ahead of every number that is given out, and not so far that it lies behind. */
#define AHEAD UINT32_C(0x40000000)
/* Between two batches that a guarantee lets through: the first one should have ended. */
#define PULSE_NS UINT64_C(1000000)
/* Batches of one queue that may have the same number. */
#define SAME_MAX 4

static void tell(struct pen_gate *g, uint32_t number)
{
	if (g->devgate.word == number)
		return;
	g->devgate.word = number;
	g->ad->gate_open(g->native, number);
}

bool pen_gate_dev_wanted(struct pen_gate *g)
{
	return g->st.passed_until_ns > pen_gate_lately(g);
}

static void publish(struct pen_gate *g)
{
	atomic_store(&g->dev->signal->watching, g->devgate.standing != 0);
}

/*
 * Threads that give work to one queue at once come to the device in an order that nobody knows. A number of its own might stand
 * there in front of a lower one, which would be let through and could not move: so they have the same one, as long as it has not
 * been let through, and not without end.
 */
static uint32_t number_of(struct pen_gate_dev *d, struct pen_gate_queue_full *q)
{
	if (atomic_fetch_add(&q->gate_coming, 1) && q->gate_same < SAME_MAX && (!d->shut || (int32_t)(q->gate_number - d->word) > 0)) {
		q->gate_same++;
		return q->gate_number;
	}
	if (!++d->last)
		++d->last;
	q->gate_number = d->last;
	q->gate_same = 1;
	return d->last;
}

void pen_gate_dev_put(struct pen_gate *g, struct pen_gate_batch *b)
{
	struct pen_gate_dev *d = &g->devgate;
	if (d->shut)   /* the admission has looked at the ranks a moment ago */
		pen_gate_dev_look(g, pen_gate_lately(g));
	b->gate_number = number_of(d, b->q);
	if (!d->standing++)
		publish(g);
	if (!d->shut && (int32_t)(d->word - d->last) < (int32_t)(AHEAD / 2))
		tell(g, d->last + AHEAD);
}

void pen_gate_dev_retired(struct pen_gate *g, const struct pen_gate_batch *b)
{
	struct pen_gate_dev *d = &g->devgate;
	(void)b;
	if (d->standing && !--d->standing)
		publish(g);
}

void pen_gate_dev_come(struct pen_gate_batch *b)
{
	atomic_fetch_sub(&b->q->gate_coming, 1);
}

/*
 * The number before the oldest batch that has not ended: what follows has not begun, or stands at the gate. *@ret_est_ns, if not
 * NULL: that one's estimate.
 */
static uint32_t ended(struct pen_gate *g, uint64_t *ret_est_ns)
{
	uint32_t oldest = g->devgate.last + 1;
	uint64_t est = 0;
	for (struct pen_gate_queue_full *q = g->queues; q; q = q->next)
		for (struct pen_gate_batch *b = q->first; b; b = b->next)
			if (b->gate_number && !b->complete && (int32_t)(b->gate_number - oldest) < 0) {
				oldest = b->gate_number;
				est = b->inflight_ns;
			}
	if (ret_est_ns)
		*ret_est_ns = est;
	return oldest - 1;
}

/*
 * The outranking seat of class latency that is busy and stands first; NULL: none. Words of neighbours: they win no more than a wait that
 * is bounded. Others that outrank us wait until what is in flight has ended: for them it must not stand.
 */
static const struct pen_signal_page *outranking(struct pen_gate *g, uint32_t *ret_seat, uint32_t *ret_word)
{
	const struct pen_terms *t = pen_gate_terms_(g);
	const struct pen_signal_page *best = NULL;
	uint16_t rank = g->lim.rank;
	for (uint32_t k = 0; k < g->nforeign && !g->lim.corun; k++) {
		uint32_t i = g->foreign[k];
		const struct pen_seat_terms *s = &t->seat[i];
		const struct pen_signal_page *p = pen_attach_neighbour(g->dev, i, s->generation);
		if (!p || s->tenant == g->lim.tenant || s->rank >= rank || !(s->flags & PEN_SEAT_LATENCY) ||
		    s->flags & PEN_SEAT_STALE)
			continue;
		uint32_t word = atomic_load(&p->busy);
		if (PEN_BUSY_STATE(word) == PEN_BUSY_IDLE)
			continue;
		rank = s->rank;
		best = p;
		*ret_seat = i;
		*ret_word = word;
	}
	return best;
}

/* Has it stood in the way for so long without a sign of life? */
static bool passed_over(struct pen_gate_dev *d, const struct pen_signal_page *p, uint32_t seat, uint32_t word, uint64_t now)
{
	uint64_t progress = atomic_load_explicit(&p->progress, memory_order_relaxed);
	if (d->blocker != seat + 1 || d->blocker_word != word || d->blocker_progress != progress) {
		d->blocker = (uint16_t)(seat + 1);
		d->blocker_word = word;
		d->blocker_progress = progress;
		d->blocked_since_ns = now;
	}
	return now - PEN_MIN(now, d->blocked_since_ns) >= PEN_ADMIT_STALE_NS;
}

/* All that was booked is due by the guarantee or the floor: one more batch may go against the rank. */
static bool is_due(struct pen_gate *g, uint64_t now)
{
	struct pen_gate_dev *d = &g->devgate;
	uint64_t due = atomic_load_explicit(&g->dev->ledger->guar_tat_ns, memory_order_relaxed);
	bool kept = g->lim.guaranteed_ppm || g->lim.floor_ppm;
	return kept && d->standing && now >= due && now - PEN_MIN(now, d->pulse_ns) >= PULSE_NS;
}

bool pen_gate_dev_leave_alone(struct pen_gate *g, uint64_t now)
{
	return g->devgate.shut && !is_due(g, now);
}

/*
 * One more. What was let through and does not end may stand behind a batch with a higher number, in its queue or by an event: that one
 * follows then, after the wait for own work that the rules of admission allow.
 */
static void pulse(struct pen_gate *g, uint64_t now)
{
	struct pen_gate_dev *d = &g->devgate;
	uint64_t est;
	if (!is_due(g, now))
		return;
	uint32_t next = ended(g, &est) + 1;
	if ((int32_t)(d->word - next) >= 0) {
		bool waits = now - d->pulse_ns < PEN_MAX(2 * est, PEN_ADMIT_OWN_NS);
		if (waits || (int32_t)(d->last - d->word) <= 0)
			return;
		next = d->word + 1;
	}
	d->pulse_ns = now;
	tell(g, next);
}

void pen_gate_dev_look(struct pen_gate *g, uint64_t now)
{
	struct pen_gate_dev *d = &g->devgate;
	uint32_t seat = 0, word = 0;
	if (!g->ad->gate_open || (!d->standing && !d->shut))
		return;
	const struct pen_signal_page *p = outranking(g, &seat, &word);
	if (!p)
		d->blocker = 0;
	if (!p || passed_over(d, p, seat, word, now)) {
		if (d->shut) {
			d->shut = false;
			g->st.last_progress_ns = now;   /* it stood because of us: nothing is late */
			tell(g, d->last + AHEAD);
		}
		return;
	}
	if (!d->shut) {
		d->shut = true;
		d->pulse_ns = now;
		tell(g, ended(g, NULL));
		return;
	}
	pulse(g, now);
}

void pen_gate_ring(struct pen_gate *g)
{
	const struct pen_terms *t = pen_gate_terms_(g);
	for (uint32_t k = 0; k < g->nforeign; k++) {
		uint32_t i = g->foreign[k];
		const struct pen_signal_page *p = pen_attach_neighbour(g->dev, i, t->seat[i].generation);
		if (p && t->seat[i].rank > g->lim.rank && atomic_load(&p->watching))
			pen_futex_wake_bits(&p->watching, 1, UINT32_MAX);
	}
}

const _Atomic uint32_t *pen_gate_bell(struct pen_gate *g)
{
	if (!pen_gate_attached(g))
		return NULL;
	pen_gate_lock(g);
	const _Atomic uint32_t *word = g->devgate.standing ? &g->dev->signal->watching : NULL;
	pen_gate_unlock(g);
	return word;
}
