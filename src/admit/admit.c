/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One admission: size of the piece, window, tokens, then rank and turn (turn.c).
 */
#include "admit/internal.h"

#include <string.h>

/* Sibling processes fill a narrow window: look again so often while they drain. */
#define SIBLING_NS UINT64_C(100000)
/* Of the window: so much before the end of a long piece the next one may follow. */
#define LEAD_PART 8

uint64_t pen_admit_own_bound(const struct pen_admit_ask *a)
{
	const struct pen_admit_state *st = a->st;
	if (!st->inflight_ns)
		return 0;
	/* Sibling processes may have the device for as long as theirs takes. */
	uint64_t ahead = pen_admit_add(st->oldest_est_ns, a->view->own_inflight_ns);
	uint64_t wait = pen_admit_max(pen_admit_add(ahead, ahead), PEN_ADMIT_OWN_NS);
	uint64_t bound = pen_admit_add(st->last_progress_ns, wait);
	/* Not all that follow at once: on a slow device that would only lengthen the queue in which the progress is late. */
	if (st->debt_ns > st->last_progress_ns)
		bound = pen_admit_max(bound, pen_admit_add(st->debt_ns, wait / 4));
	return bound > a->now_ns ? bound : 0;
}

void pen_admit_wait_own(struct pen_admit_ask *a, uint8_t reason, uint64_t until_ns)
{
	struct pen_admit_decision *d = a->d;
	d->kind = PEN_ADMIT_WAIT_OWN;
	d->reason = reason;
	d->publish = BUSY_RUN;
	d->until_ns = pen_admit_min(pen_admit_min(until_ns, pen_admit_own_bound(a)),
				    pen_admit_add(a->now_ns, PEN_ADMIT_LOOK_NS));
}

static uint64_t est_of(const struct pen_admit_cmd *cmd, uint32_t slices)
{
	uint64_t ns = slices >= cmd->slices ? cmd->est_ns : pen_admit_scale(cmd->est_ns, slices, cmd->slices);
	return ns ? ns : 1;
}

/* Longest piece in device time; UINT64_MAX = no limit. */
static uint64_t piece_limit(const struct pen_admit_ask *a)
{
	const struct pen_admit_limits *lim = a->lim;
	uint64_t limit = UINT64_MAX;

	if (a->st->alone_until_ns > a->now_ns) {
		uint64_t chunk = a->hot ? lim->chunk_narrow_ns : lim->chunk_wide_ns;
		if (chunk)
			limit = chunk;
		limit = pen_admit_max(limit, a->due_ns);   /* against a rank it goes only now and then */
	}
	if (pen_admit_cap(lim, a->now_ns) < PEN_ADMIT_PPM && lim->burst_ns)
		limit = pen_admit_min(limit, lim->burst_ns);
	return limit;
}

/* The largest number of slices within both limits, made equal over the pieces that follow, in whole waves. */
static uint32_t piece_slices(const struct pen_admit_ask *a)
{
	const struct pen_admit_cmd *cmd = a->cmd;
	uint64_t limit = piece_limit(a), n = cmd->slices, wave = cmd->wave ? cmd->wave : 1;

	if (limit < cmd->est_ns)
		n = pen_admit_scale(limit, cmd->slices, cmd->est_ns);
	if (a->lim->rate_cap_bytes_s != UINT64_MAX && pen_admit_bytes_room(a->lim) < cmd->bytes)
		n = pen_admit_min(n, pen_admit_scale(pen_admit_bytes_room(a->lim), cmd->slices, cmd->bytes));
	if (n >= cmd->slices)
		return cmd->slices;
	n = pen_admit_max(n - n % wave, wave);
	if (n >= cmd->slices)
		return cmd->slices;
	uint64_t pieces = (cmd->slices + n - 1) / n;
	n = (cmd->slices + pieces - 1) / pieces;
	n = (n + wave - 1) / wave * wave;
	return n < cmd->slices ? (uint32_t)n : cmd->slices;
}

static void size_piece(struct pen_admit_ask *a)
{
	const struct pen_admit_cmd *cmd = a->cmd;
	a->slices = cmd->slices;
	if (cmd->slices > 1 && !a->lim->no_cut && !cmd->no_wait)
		a->slices = piece_slices(a);
	a->est_ns = est_of(cmd, a->slices);
	a->bytes = a->slices >= cmd->slices ? cmd->bytes : pen_admit_scale(cmd->bytes, a->slices, cmd->slices);
}

static uint64_t window_size(const struct pen_admit_ask *a)
{
	const struct pen_admit_state *st = a->st;
	bool stops = a->cmd->gated && st->waited_until_ns <= a->now_ns;   /* for all who are more urgent */
	if (a->hot && !stops)
		return pen_admit_max(a->lim->window_narrow_ns, a->due_ns);
	if (a->hot && !a->waited_for && st->below_until_ns <= a->now_ns)
		return pen_admit_scale(a->lim->window_wide_ns, PEN_ADMIT_DEEP, 1);
	return a->lim->window_wide_ns;
}

/*
 * A piece has room if the work in flight and it fill no more than the window. Where one piece is nearly as long as the
 * window that would let the device run dry after each. So a second piece may also follow when little is left of a first
 * that is alone in flight, by its estimate and the time since the last progress; with nobody to let in, when no more than half a
 * window is left. A neighbour that arrives then still meets hardly more than a window. A repayment goes against a rank, one at a
 * time: nothing is put behind it.
 *
 * Return: 0 there is room; else until when to wait for it, at the most.
 */
static uint64_t room_at(const struct pen_admit_ask *a)
{
	const struct pen_admit_state *st = a->st;
	uint64_t size = window_size(a);
	uint64_t chunk = a->hot ? a->lim->chunk_narrow_ns : a->lim->chunk_wide_ns;
	uint64_t all = pen_admit_add(st->inflight_ns, a->view->own_inflight_ns);

	if (pen_admit_add(all, a->est_ns) <= size)
		return 0;
	if (all != st->oldest_est_ns || a->due_ns)
		return UINT64_MAX;
	/* Ends are seen a little late, and the next piece takes a little time to arrive. */
	uint64_t lead = pen_admit_max(chunk ? pen_admit_sub(size, chunk) : size / 2, size / LEAD_PART);
	if (st->alone_until_ns <= a->now_ns)
		lead = pen_admit_max(lead, size / 2);
	uint64_t ends = pen_admit_add(st->last_progress_ns, st->oldest_est_ns);
	/* Twice its estimate without an end, and the estimate says nothing. */
	if (a->now_ns >= pen_admit_add(ends, st->oldest_est_ns))
		return UINT64_MAX;
	uint64_t at = pen_admit_sub(ends, lead);
	return at > a->now_ns ? at : 0;
}

/* True: held. Past the bound of own work without progress the piece goes on with a debt: it may be what unblocks it. */
static bool window(struct pen_admit_ask *a)
{
	const struct pen_admit_state *st = a->st;
	uint64_t room = room_at(a);
	bool full = room != 0;
	/* Where nobody is kept waiting by it, a start-up with hundreds of unknown kernels must not wait for each. */
	bool alone = (a->cmd->unknown || st->unknown_inflight) && !a->lim->no_cut && st->alone_until_ns > a->now_ns;

	if (st->inflight_ns) {
		if (!full && !alone)
			return false;
		uint64_t bound = pen_admit_own_bound(a);
		if (bound)
			pen_admit_wait_own(a, HOLD_WINDOW, alone ? bound : pen_admit_min(bound, room));
		else
			a->debt = true;
		return bound != 0;
	}
	/*
	 * Siblings fill it. Each process may have one piece in flight, so that none waits on another's marks, which it
	 * cannot see; but while somebody urgent is about, one that has just had its piece gives way for a while.
	 */
	uint64_t bound = pen_admit_add(st->last_progress_ns, PEN_ADMIT_OWN_NS);
	if (!a->hot || !a->view->own_inflight_ns || !full || !st->last_progress_ns || bound <= a->now_ns)
		return false;
	a->d->kind = PEN_ADMIT_HOLD;
	a->d->reason = HOLD_WINDOW;
	a->d->publish = BUSY_IDLE;
	a->d->until_ns = pen_admit_min(bound, a->now_ns + SIBLING_NS);
	return true;
}

static void go(struct pen_admit_ask *a)
{
	struct pen_admit_decision *d = a->d;
	struct pen_admit_state *st = a->st;

	d->kind = PEN_ADMIT_GO;
	d->publish = BUSY_RUN;
	d->debt = a->debt;
	d->repay = a->repay;
	d->taints = a->repay;   /* even if nobody runs at this moment */
	d->slices = a->slices;
	d->est_ns = a->est_ns;
	d->bytes = a->bytes;
	for (uint32_t i = 0; i < a->view->nseats && i < PEN_ADMIT_SEATS; i++) {
		const struct pen_admit_seat *s = &a->view->seat[i];
		if (s->tenant != a->lim->tenant && s->state == BUSY_RUN)
			d->taints = true;
	}
	pen_admit_book(a);
	st->turn_since_ns = st->polite_since_ns = 0;
	if (a->cmd->unknown)
		st->unknown_inflight = true;
	if (a->debt && st->inflight_ns && !a->cmd->no_wait)
		st->debt_ns = a->now_ns;
}

static void stop(struct pen_admit_ask *a)
{
	a->st->turn_since_ns = a->st->polite_since_ns = 0;
	a->d->kind = PEN_ADMIT_STOP;
	a->d->reason = HOLD_STOPPED;
	a->d->publish = a->st->inflight_ns ? BUSY_RUN : BUSY_IDLE;
}

/* True: held. */
static bool kept_out(struct pen_admit_ask *a)
{
	if (!pen_admit_is_held(a->lim, a->now_ns))
		return false;
	if (a->st->inflight_ns && !pen_admit_own_bound(a)) {   /* the command may be what the work in flight waits for */
		a->debt = true;
		return false;
	}
	a->st->turn_since_ns = a->st->polite_since_ns = 0;
	a->d->kind = PEN_ADMIT_HOLD;
	a->d->reason = HOLD_EXCLUSIVE;
	a->d->publish = a->st->inflight_ns ? BUSY_RUN : BUSY_IDLE;
	a->d->until_ns = pen_admit_min(pen_admit_add(a->lim->lease_until_ns, 1), a->now_ns + PEN_ADMIT_LOOK_NS);
	return true;
}

void pen_admit_step(struct pen_admit_state *st, const struct pen_admit_limits *lim, const struct pen_admit_view *view,
		    const struct pen_admit_cmd *cmd, struct pen_admit_decision *ret)
{
	struct pen_admit_ask a = {.st = st, .lim = lim, .view = view, .cmd = cmd, .d = ret, .now_ns = view->now_ns};

	memset(ret, 0, sizeof(*ret));
	if (lim->stop) {
		stop(&a);
		return;
	}
	pen_admit_observe(&a);
	if (!st->inflight_ns)
		st->unknown_inflight = false;
	size_piece(&a);
	if (cmd->no_wait) {
		a.debt = true;
		go(&a);
		return;
	}
	if (kept_out(&a) || window(&a) || pen_admit_tokens(&a) || pen_admit_turn(&a))
		return;
	go(&a);
}
