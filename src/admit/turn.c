/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rank and turn: who of several tenants may have commands in flight. The protocol and why it is safe: admit.h.
 */
#include "admit/internal.h"

#include <stddef.h>

#define FORCE_TURNS 8   /* own turns: a hold for turns longer than this, and than PEN_ADMIT_FORCE_NS, is nobody's turn */

static bool is_passed(const struct pen_admit_state *st, const struct pen_admit_seat *s)
{
	return (st->passed[s->seat / 64] >> (s->seat % 64) & 1) && st->passed_word[s->seat] == s->busy_word &&
	       st->passed_progress[s->seat] == s->progress;
}

/* Another tenant's seat. Its number is checked here, once, before it is an index. */
static bool is_other(const struct pen_admit_limits *lim, const struct pen_admit_seat *s)
{
	return s->tenant != lim->tenant && s->seat < PEN_ADMIT_SEATS;
}

/* ... that wants or runs, and is believed. */
static bool is_active(const struct pen_admit_limits *lim, const struct pen_admit_state *st, const struct pen_admit_seat *s)
{
	return is_other(lim, s) && s->state != BUSY_IDLE && !s->stale && !is_passed(st, s);
}

static uint64_t deadline_at(uint64_t deadline_ns, uint64_t now_ns)
{
	return pen_admit_add(deadline_ns, PEN_ADMIT_LAPSE_NS) < now_ns ? UINT64_MAX : deadline_ns;
}

static int cmp(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

int pen_admit_key_cmp(const struct pen_admit_seat *a, const struct pen_admit_seat *b)
{
	int r = cmp(a->rank, b->rank);
	if (!r)
		r = cmp(a->deadline_ns, b->deadline_ns);
	if (!r)
		r = cmp(a->service_vns, b->service_vns);
	return r ? r : cmp(a->seat, b->seat);
}

/* The same with deadlines that have lapsed taken out. */
static int key_cmp_at(const struct pen_admit_seat *a, const struct pen_admit_seat *b, uint64_t now_ns)
{
	struct pen_admit_seat ka = *a, kb = *b;
	ka.deadline_ns = deadline_at(ka.deadline_ns, now_ns);
	kb.deadline_ns = deadline_at(kb.deadline_ns, now_ns);
	return pen_admit_key_cmp(&ka, &kb);
}

static struct pen_admit_seat self_of(const struct pen_admit_limits *lim, const struct pen_admit_view *view)
{
	return (struct pen_admit_seat){
		.seat = view->own_seat,
		.tenant = lim->tenant,
		.rank = lim->rank,
		.latency = lim->latency,
		.deadline_ns = view->own_deadline_ns,
		.service_vns = view->own_service_vns,
	};
}

/* The outranking seat that stands first. */
static const struct pen_admit_seat *outranking(const struct pen_admit_limits *lim, const struct pen_admit_state *st,
					       const struct pen_admit_view *view)
{
	const struct pen_admit_seat *best = NULL;
	for (uint32_t i = 0; i < view->nseats && i < PEN_ADMIT_SEATS; i++) {
		const struct pen_admit_seat *s = &view->seat[i];
		if (s->rank < lim->rank && is_active(lim, st, s) && (!best || pen_admit_key_cmp(s, best) < 0))
			best = s;
	}
	return best;
}

/* Who must be let in: more urgent, or an equal. */
void pen_admit_observe(struct pen_admit_ask *a)
{
	struct pen_admit_state *st = a->st;
	const struct pen_admit_limits *lim = a->lim;
	uint64_t present[2] = {0, 0}, now = a->now_ns;

	a->self = self_of(lim, a->view);
	for (uint32_t i = 0; i < a->view->nseats && i < PEN_ADMIT_SEATS; i++) {
		const struct pen_admit_seat *s = &a->view->seat[i];
		if (!is_other(lim, s))
			continue;
		if (is_passed(st, s))
			present[s->seat / 64] |= UINT64_C(1) << (s->seat % 64);
		bool active = is_active(lim, st, s), more_urgent = s->rank < lim->rank || s->latency;
		uint64_t seen = active ? now : pen_admit_min(s->last_busy_ns, now);   /* 0 = was never busy */
		uint64_t until = seen ? pen_admit_add(seen, PEN_ADMIT_HOT_NS) : 0;
		if (s->rank > lim->rank) {
			st->below_until_ns = pen_admit_max(st->below_until_ns, until);
			continue;
		}
		if (s->rank < lim->rank) {
			uint64_t *which = s->latency ? &st->passed_until_ns : &st->waited_until_ns;
			*which = pen_admit_max(*which, until);
		}
		a->waited_for |= s->rank == lim->rank || !s->latency;
		st->alone_until_ns = pen_admit_max(st->alone_until_ns, until);
		if (more_urgent)
			st->hot_until_ns = pen_admit_max(st->hot_until_ns, until);
		if (active && (s->state != BUSY_RUN || s->rank < lim->rank))
			a->crowded = true;
	}
	/* Who moved or left is believed again. */
	st->passed[0] &= present[0];
	st->passed[1] &= present[1];
	a->hot = st->hot_until_ns > now;
	uint32_t due = pen_admit_due(lim);
	if (due && outranking(lim, st, a->view)) {
		uint64_t base = pen_admit_guar_base(lim, a->view->guar_tat_ns, now, 0);
		a->due_ns = pen_admit_scale(pen_admit_sub(now, base), due, PEN_ADMIT_PPM);
	}
}

/*
 * Is own turn over because of @s? Deadlines decide alone where they differ: service would hand the device to somebody
 * whom the deadline sends back at once.
 */
static bool ends_turn(const struct pen_admit_limits *lim, const struct pen_admit_state *st,
		      const struct pen_admit_view *view, const struct pen_admit_seat *s)
{
	if (s->rank != lim->rank || !is_active(lim, st, s) || s->state == BUSY_RUN)
		return false;
	uint64_t mine = deadline_at(view->own_deadline_ns, view->now_ns);
	uint64_t theirs = deadline_at(s->deadline_ns, view->now_ns);
	if (mine != theirs)
		return theirs < mine;
	uint64_t inflight = pen_admit_add(st->inflight_ns, view->own_inflight_ns);
	uint64_t ahead = pen_admit_add(view->own_service_vns, pen_admit_vns(lim, inflight));
	return ahead > pen_admit_add(s->service_vns, pen_admit_vns(lim, lim->quantum_ns / 2));
}

static bool turn_over(const struct pen_admit_limits *lim, const struct pen_admit_state *st,
		      const struct pen_admit_view *view)
{
	for (uint32_t i = 0; i < view->nseats && i < PEN_ADMIT_SEATS; i++)
		if (ends_turn(lim, st, view, &view->seat[i]))
			return true;
	return false;
}

bool pen_admit_must_yield(const struct pen_admit_limits *lim, const struct pen_admit_state *st,
			  const struct pen_admit_view *view)
{
	if (pen_admit_is_held(lim, view->now_ns) || outranking(lim, st, view))
		return true;
	return !lim->corun && (st->yielding || (st->busy == BUSY_RUN && turn_over(lim, st, view)));
}

int pen_admit_wake(const struct pen_admit_limits *lim, const struct pen_admit_view *view)
{
	int best = -1;
	for (uint32_t i = 0; i < view->nseats && i < PEN_ADMIT_SEATS; i++) {
		const struct pen_admit_seat *s = &view->seat[i];
		if (!is_other(lim, s) || s->stale || (s->state != BUSY_WANT && s->state != BUSY_CLAIM))
			continue;
		if (best < 0 || key_cmp_at(s, &view->seat[best], view->now_ns) < 0)
			best = (int)i;
	}
	return best;
}

/* False: @s has stood there for too long without moving; it is passed over from now on, and the caller looks again. */
static bool wait_seat(struct pen_admit_ask *a, const struct pen_admit_seat *s, uint8_t reason, uint8_t publish,
		      uint64_t until_ns)
{
	struct pen_admit_state *st = a->st;
	struct pen_admit_decision *d = a->d;

	if (st->blocker != s->seat + 1 || st->blocker_word != s->busy_word || st->blocker_progress != s->progress) {
		st->blocker = (uint16_t)(s->seat + 1);
		st->blocker_word = s->busy_word;
		st->blocker_progress = s->progress;
		st->blocked_since_ns = a->now_ns;
	}
	uint64_t stale = pen_admit_add(st->blocked_since_ns, PEN_ADMIT_STALE_NS);
	if (a->now_ns >= stale) {
		st->passed[s->seat / 64] |= UINT64_C(1) << (s->seat % 64);
		st->passed_word[s->seat] = s->busy_word;
		st->passed_progress[s->seat] = s->progress;
		st->blocker = 0;
		return false;
	}
	if (reason == HOLD_RANK)
		st->turn_since_ns = 0;
	else if (!st->turn_since_ns)
		st->turn_since_ns = a->now_ns;
	d->kind = PEN_ADMIT_WAIT_SEAT;
	d->reason = reason;
	d->publish = st->inflight_ns ? BUSY_RUN : publish;
	d->seat = s->seat;
	d->seat_word = s->busy_word;
	d->until_ns = pen_admit_min(pen_admit_min(until_ns, stale), pen_admit_add(a->now_ns, PEN_ADMIT_LOOK_NS));
	return true;
}

static void note_repay(struct pen_admit_ask *a, const struct pen_admit_seat *u)
{
	a->st->repay_seat = (uint16_t)(u->seat + 1);
	a->st->repay_word = u->busy_word;
	a->st->repay_progress = u->progress;
	a->st->repay_since_ns = a->now_ns;
}

/* Has the urgent one had some service since the last repayment? One look without news also counts, so nobody starves. */
static bool repay_turn(struct pen_admit_ask *a, const struct pen_admit_seat *u)
{
	const struct pen_admit_state *st = a->st;
	/* What fits into the window beside own work in flight belongs to the same repayment. */
	if (!a->view->last_repay || st->inflight_ns)
		return true;
	if (!st->repay_seat) {
		note_repay(a, u);
		return false;
	}
	if (a->now_ns >= pen_admit_add(st->repay_since_ns, PEN_ADMIT_LOOK_NS))
		return true;
	for (uint32_t i = 0; i < a->view->nseats && i < PEN_ADMIT_SEATS; i++) {
		const struct pen_admit_seat *s = &a->view->seat[i];
		if (s->seat + 1 == st->repay_seat)
			return s->busy_word != st->repay_word || s->progress != st->repay_progress;
	}
	return true;
}

/* May the piece go against @u's rank? *ret_until_ns: when at the latest to ask again. */
static bool may_repay(struct pen_admit_ask *a, const struct pen_admit_seat *u, uint64_t *ret_until_ns)
{
	uint32_t due = pen_admit_due(a->lim);
	*ret_until_ns = UINT64_MAX;
	if (!due)
		return false;
	uint64_t base = pen_admit_guar_base(a->lim, a->view->guar_tat_ns, a->now_ns, a->est_ns);
	uint64_t when = pen_admit_add(base, pen_admit_scale(a->est_ns, PEN_ADMIT_PPM, due));
	if (when > a->now_ns) {
		*ret_until_ns = when;
		return false;
	}
	if (repay_turn(a, u))
		return true;
	*ret_until_ns = pen_admit_add(a->st->repay_since_ns, PEN_ADMIT_LOOK_NS);
	return false;
}

/* What stands between a tenant that is not in its turn and its turn. */
struct contest {
	const struct pen_admit_seat *run;      /* its work must be done first */
	const struct pen_admit_seat *claim;    /* a better key is about to run */
	const struct pen_admit_seat *want;     /* a better key wants */
	const struct pen_admit_seat *behind;   /* a worse key claims, and will leave */
	bool rivals;                           /* somebody may claim at the same moment */
};

static void keep_best(const struct pen_admit_ask *a, const struct pen_admit_seat **best, const struct pen_admit_seat *s)
{
	if (!*best || key_cmp_at(s, *best, a->now_ns) < 0)
		*best = s;
}

static struct contest look(const struct pen_admit_ask *a)
{
	struct contest c = {0};
	for (uint32_t i = 0; i < a->view->nseats && i < PEN_ADMIT_SEATS; i++) {
		const struct pen_admit_seat *s = &a->view->seat[i];
		if (!is_other(a->lim, s))
			continue;
		bool above = s->rank < a->lim->rank, below = s->rank > a->lim->rank;
		/* Class latency passes lower ranks; what is above us is the rank check's, but must see us claim. */
		if ((below && a->lim->latency) || (above && s->latency))
			continue;
		c.rivals = true;
		if (above || !is_active(a->lim, a->st, s))
			continue;
		bool better = !below && key_cmp_at(s, &a->self, a->now_ns) < 0;
		if (s->state == BUSY_RUN)
			keep_best(a, &c.run, s);
		else if (s->state == BUSY_CLAIM)
			keep_best(a, better ? &c.claim : &c.behind, s);
		else if (better)
			keep_best(a, &c.want, s);
	}
	return c;
}

enum verdict { ENTER, HELD, AGAIN };

static enum verdict held_by(struct pen_admit_ask *a, const struct pen_admit_seat *s, uint8_t publish, uint64_t until_ns)
{
	return wait_seat(a, s, HOLD_TURN, publish, until_ns) ? HELD : AGAIN;
}

static enum verdict enter_turn(struct pen_admit_ask *a)
{
	struct pen_admit_state *st = a->st;
	struct contest c = look(a);

	if (c.run || c.claim) {
		st->polite_since_ns = 0;
		return held_by(a, c.run ? c.run : c.claim, BUSY_WANT, UINT64_MAX);
	}
	if (st->busy == BUSY_CLAIM)
		return c.behind ? held_by(a, c.behind, BUSY_CLAIM, UINT64_MAX) : ENTER;
	/* No head start for a better key where the own tenant has the turn already, and one more of its processes joins in. */
	bool joins = a->view->own_inflight_ns && !turn_over(a->lim, st, a->view);
	if (c.want && !joins) {
		/* It cannot claim before our siblings are done: until then its head start has not begun. */
		if (!st->polite_since_ns || a->view->own_inflight_ns)
			st->polite_since_ns = a->now_ns;
		uint64_t until = pen_admit_add(st->polite_since_ns, PEN_ADMIT_POLITE_NS);
		if (a->now_ns < until)
			return held_by(a, c.want, BUSY_WANT, until);
	}
	if (!c.rivals)
		return ENTER;
	a->d->kind = PEN_ADMIT_CLAIM;
	a->d->publish = BUSY_CLAIM;
	return HELD;
}

/* Held for turns longer than any turn lasts: somebody does not play by the rules, and does not stand still either. */
static bool is_forced(const struct pen_admit_ask *a)
{
	uint64_t turns = pen_admit_scale(pen_admit_vns(a->lim, a->lim->quantum_ns), FORCE_TURNS, 1);
	return a->st->turn_since_ns && a->now_ns - a->st->turn_since_ns >= pen_admit_max(PEN_ADMIT_FORCE_NS, turns);
}

static enum verdict turn(struct pen_admit_ask *a)
{
	struct pen_admit_state *st = a->st;

	if (st->busy == BUSY_RUN) {
		if (!st->yielding && !turn_over(a->lim, st, a->view))
			return ENTER;
		st->yielding = true;
		if (pen_admit_own_bound(a)) {
			pen_admit_wait_own(a, HOLD_TURN, UINT64_MAX);
			return HELD;
		}
		if (st->inflight_ns) {
			a->debt = true;   /* it may be what the work in flight waits for */
			return ENTER;
		}
	}
	st->yielding = false;
	if (is_forced(a)) {
		a->debt = true;
		return ENTER;
	}
	return enter_turn(a);
}

bool pen_admit_turn(struct pen_admit_ask *a)
{
	struct pen_admit_state *st = a->st;
	for (;;) {   /* ends: each round passes over one more seat */
		const struct pen_admit_seat *u = outranking(a->lim, st, a->view);
		uint64_t until;
		a->repay = u && may_repay(a, u, &until);
		if (u && !a->repay) {
			st->polite_since_ns = 0;
			if (!a->lim->corun && st->busy == BUSY_RUN && pen_admit_own_bound(a)) {
				pen_admit_wait_own(a, HOLD_RANK, UINT64_MAX);
				return true;
			}
			if (wait_seat(a, u, HOLD_RANK, BUSY_WANT, until))
				return true;
			continue;
		}
		/*
		 * A repayment takes no turn: the urgent one's work is in flight beside it anyway, and equals in the same case
		 * would wait for each other behind all that the urgent one has queued. It is no turn either: yielding.
		 */
		if (a->repay) {
			note_repay(a, u);
			st->yielding = !a->lim->corun;
			return false;
		}
		enum verdict v = a->lim->corun ? ENTER : turn(a);
		if (v != AGAIN)
			return v == HELD;
	}
}
