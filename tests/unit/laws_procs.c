/* SPDX-License-Identifier: Apache-2.0 */
/* Device and processes of laws_world.h, and the loop that moves everything. */
#include "laws_inner.h"

/* ---- device --------------------------------------------------------------------------------------------------- */

static void start_device(struct world *w)
{
	w->device_busy = w->head != w->tail;
	if (w->device_busy)
		w->device_free_ns = w->now_ns + w->fifo[w->head % W_FIFO].actual;
}

static void complete(struct world *w)
{
	struct w_entry e = w->fifo[w->head++ % W_FIFO];
	struct w_proc *p = &w->proc[e.proc];
	p->piece[e.piece % W_PIECES].done = true;
	w_tenant_of(w, p)->used_ns += e.actual;
	w->busy_ns += e.actual;
	for (uint32_t i = 0; i < w->nprocs; i++)
		if (w->proc[i].tenant != p->tenant && w->proc[i].in_span)
			w->proc[i].span_others_ns += e.actual;
	if (p->retire_ns == NEVER && p->phase != W_DEAD && p->phase != W_FREE)
		p->retire_ns = w->now_ns + (w->faults ? w_range(w, 200, 30 * US) : w_range(w, 200, 3 * US));
	start_device(w);
}

/* True time of the piece that was admitted. */
static uint64_t piece_ns(const struct w_proc *p)
{
	uint64_t ns = p->d.slices >= p->cmd.slices ? p->cmd_actual_ns : p->cmd_actual_ns * p->d.slices / p->cmd.slices;
	return ns ? ns : 1;
}

/*
 * Law: never over a cap. What will really be used goes through a bucket of our own, in the order of bookings. Only where
 * another's work is beside it the estimate stands, because a node cannot know better.
 */
static void check_cap(struct world *w, struct w_proc *p)
{
	struct w_tenant *t = w_tenant_of(w, p);
	uint64_t actual = piece_ns(p), charge = p->d.taints ? p->d.est_ns : actual;
	uint64_t at = p->view.now_ns;   /* it may have been stopped since, which says nothing about the rate */

	t->longest_actual_ns = actual > t->longest_actual_ns ? actual : t->longest_actual_ns;
	t->worst_error = p->est_error > t->worst_error ? p->est_error : t->worst_error;
	if (t->lim.cap_ppm == PPM || p->no_wait_1_in)
		return;
	/* Estimates of what is in flight may be wrong both ways: too low is over now, too high was kept back before. */
	/* A window, and the piece that may follow shortly before the end of a long one. */
	double inflight = (double)(t->lim.window_wide_ns + t->longest_actual_ns);
	double unsettled = 2.0 * inflight * t->worst_error + (double)t->longest_actual_ns * t->nprocs;
	double excess = (unsettled + (double)(t->longest_actual_ns + t->lim.burst_ns)) * PPM / t->lim.cap_ppm;
	t->shadow_tat_ns = (t->shadow_tat_ns > at ? t->shadow_tat_ns : at) + charge * PPM / t->lim.cap_ppm;
	double over = (double)(t->shadow_tat_ns - at) - excess;
	if (over > 0)
		w_fail(w, "tenant %u over its cap by %.3f ms", p->tenant, over / 1e6);
}

static void submit(struct world *w, struct w_proc *p)
{
	bool whole = p->d.slices >= p->cmd.slices;
	uint64_t actual = piece_ns(p);

	if (p->tail - p->head >= W_PIECES || w->tail - w->head >= W_FIFO) {
		w_fail(w, "proc %u: more in flight than a window holds", (unsigned)(p - w->proc));
		return;
	}
	p->piece[p->tail % W_PIECES] = (struct w_piece){
		.booked = p->d.credit_ns, .est = p->d.est_ns, .actual = actual, .submit_ns = w->now_ns, .tainted = p->d.taints,
	};
	w->fifo[w->tail++ % W_FIFO] = (struct w_entry){.proc = (uint16_t)(p - w->proc), .piece = p->tail++, .actual = actual};
	if (!w->device_busy)
		start_device(w);
	if (!p->st.inflight_ns) {
		p->st.last_progress_ns = w->now_ns;
		p->st.oldest_est_ns = p->d.est_ns;
	}
	p->st.inflight_ns += p->d.credit_ns;
	p->inflight_ns = p->st.inflight_ns;

	p->cmd.slices -= whole ? p->cmd.slices : p->d.slices;
	p->cmd.est_ns -= p->d.est_ns < p->cmd.est_ns ? p->d.est_ns : p->cmd.est_ns - 1;
	p->cmd_actual_ns -= actual < p->cmd_actual_ns ? actual : p->cmd_actual_ns;
}

static void request_done(struct world *w, struct w_proc *p)
{
	uint64_t span = w->now_ns - p->busy_since_ns;
	w_publish(w, p, PEN_BUSY_IDLE);
	w_span_end(w, p);
	p->requests++;
	p->longest_span_ns = span > p->longest_span_ns ? span : p->longest_span_ns;
	p->worst_others_ns = p->span_others_ns > p->worst_others_ns ? p->span_others_ns : p->worst_others_ns;
	p->phase = W_WAIT_WORK;
	if (p->load == LOAD_PERIODIC)
		p->due_ns = p->due_ns + p->period_ns > w->now_ns ? p->due_ns + p->period_ns : w->now_ns + 1;
	else
		p->due_ns = w->now_ns + w_range(w, 1, 2 * p->period_ns + 1);
	p->next_ns = p->due_ns;
}

static void retire(struct world *w, struct w_proc *p)
{
	struct w_tenant *t = w_tenant_of(w, p);
	p->retire_ns = NEVER;
	while (p->head != p->tail && p->piece[p->head % W_PIECES].done) {
		const struct w_piece *x = &p->piece[p->head++ % W_PIECES];
		uint64_t charge = x->tainted ? x->est : x->actual;
		int64_t diff = (int64_t)charge - (int64_t)x->booked;
		t->share_tat_ns += (uint64_t)pen_admit_settle_share(&t->lim, w->now_ns, diff);
		t->guar_tat_ns += (uint64_t)pen_admit_settle_guar(&t->lim, diff);
		p->service_vns += pen_admit_vns(&t->lim, charge);
		p->st.inflight_ns -= x->booked;
		p->progress++;
		p->st.last_progress_ns = w->now_ns;
		p->st.oldest_est_ns = p->head != p->tail ? p->piece[p->head % W_PIECES].est : 0;
	}
	p->inflight_ns = p->st.inflight_ns;
	p->last_busy_ns = w->now_ns;
	if (p->phase == W_OWN || (p->phase == W_SEAT && !p->st.inflight_ns))
		w_next(w, p, W_BEGIN);
	else if (p->phase == W_SYNC && !p->st.inflight_ns)
		request_done(w, p);
}

/* ---- processes ------------------------------------------------------------------------------------------------ */

static void new_command(struct world *w, struct w_proc *p)
{
	uint64_t actual = w_range(w, p->cmd_min_ns, p->cmd_max_ns);
	double e = p->est_error, factor = 1;
	if (e > 0)
		factor = w_one_in(w, 2) ? 1 + e * (double)w_range(w, 0, 1000) / 1000 : 1 / (1 + e * (double)w_range(w, 0, 1000) / 1000);
	p->cmd = (struct pen_admit_cmd){
		.est_ns = (uint64_t)((double)actual * factor) + 1,
		.slices = p->slices,
		.wave = p->slices > 8 ? 4 : 1,
		.unknown = w_one_in(w, p->unknown_1_in),
		.no_wait = w_one_in(w, p->no_wait_1_in),
	};
	p->cmd_actual_ns = actual;
	p->ready_ns = w->now_ns;
}

static void start_request(struct world *w, struct w_proc *p)
{
	struct w_tenant *t = w_tenant_of(w, p);
	if (!p->batch)
		p->batch = 1;
	p->left = p->load == LOAD_SATURATE ? UINT32_MAX : (uint32_t)w_range(w, p->load == LOAD_RANDOM ? 1 : p->batch, p->batch);
	p->busy_since_ns = w->now_ns;
	p->span_others_ns = 0;
	p->in_span = true;
	if (t->active++ == 0) {
		w_begin_view(w, p);
		while (p->read_at < w->nprocs)
			w_read_seat(w, p, &w->proc[p->read_at++]);
		p->service_vns += pen_admit_join_vns(&t->lim, &p->view);
		t->guar_tat_ns = pen_admit_join_guar(&t->lim, &p->view);
	}
	new_command(w, p);
	w_next(w, p, W_BEGIN);
}

/* Laws of a single answer. */
static void check_answer(struct world *w, struct w_proc *p)
{
	const struct pen_admit_decision *d = &p->d;
	unsigned id = (unsigned)(p - w->proc);
	uint64_t now = p->view.now_ns;
	if (d->kind == PEN_ADMIT_HOLD || d->kind == PEN_ADMIT_WAIT_OWN || d->kind == PEN_ADMIT_WAIT_SEAT) {
		if (d->until_ns <= now || d->until_ns > now + PEN_ADMIT_LOOK_NS)
			w_fail(w, "proc %u: kind %d waits for %.3f ms", id, (int)d->kind, (double)(int64_t)(d->until_ns - now) / 1e6);
		if (p->cmd.no_wait)
			w_fail(w, "proc %u: waits though it must not", id);
		return;
	}
	if (d->kind != PEN_ADMIT_GO)
		return;
	bool whole = d->slices == p->cmd.slices;
	if (!d->slices || d->slices > p->cmd.slices || (!whole && d->slices % p->cmd.wave))
		w_fail(w, "proc %u: %u of %u slices, wave %u", id, d->slices, p->cmd.slices, p->cmd.wave);
	uint64_t most = p->view.nseats ? PEN_ADMIT_CREDIT_NS : w->tenant[p->tenant].lim.window_wide_ns;
	if (d->credit_ns < d->est_ns || d->credit_ns > d->est_ns + most)
		w_fail(w, "proc %u: credit", id);
	uint64_t hold = w->now_ns - p->ready_ns;
	p->longest_hold_ns = hold > p->longest_hold_ns ? hold : p->longest_hold_ns;
	if (p->st.busy == PEN_BUSY_RUN || d->debt || d->repay || w->corun)
		return;
	p->entries++;
	const struct pen_admit_limits *lim = &w->tenant[p->tenant].lim;
	for (uint32_t i = 0; i < p->view.nseats; i++) {
		const struct pen_admit_seat *s = &p->view.seat[i];
		if (s->rank != lim->rank || s->stale || w_has_passed(&p->st, s->seat))
			continue;
		if (s->state == PEN_BUSY_RUN || s->state == PEN_BUSY_CLAIM)
			w_fail(w, "proc %u enters though seat %u was seen in state %u", id, s->seat, s->state);
		if (s->state == PEN_BUSY_WANT && s->deadline_ns < p->view.own_deadline_ns &&
		    w_by_seat(w, s->seat)->want_ns < p->claim_ns)
			p->inversions++;
	}
}

/* A hostile one says what it likes and never uses the device. */
static void hostile(struct world *w, struct w_proc *p)
{
	static const enum pen_busy_state states[] = {PEN_BUSY_RUN, PEN_BUSY_RUN, PEN_BUSY_WANT, PEN_BUSY_CLAIM, PEN_BUSY_IDLE};
	bool still = w->seed % 3 == 0;    /* says RUN for ever */
	bool keeps = w->seed % 3 == 1;    /* moves all the time and never lets go */
	p->word = PEN_BUSY_NEXT(p->word, still || keeps ? PEN_BUSY_RUN : states[w_range(w, 0, 4)]);
	if (keeps || (!still && w_one_in(w, 2)))
		p->progress++;
	p->service_vns = w_one_in(w, 2) ? 0 : w_rand(w) >> w_range(w, 0, 60);
	p->busy_since_ns = w_one_in(w, 2) ? 0 : w_rand(w);
	p->last_busy_ns = w_rand(w);
	p->inflight_ns = w_rand(w);
	p->next_ns = still ? NEVER : w->now_ns + w_range(w, 1 * US, !keeps && w_one_in(w, 20) ? 100 * MS : 3 * MS);
}

static void act(struct world *w, struct w_proc *p)
{
	const struct pen_admit_decision *d = &p->d;
	switch (d->kind) {
	case PEN_ADMIT_GO:
		w_next(w, p, W_BOOK);
		break;
	case PEN_ADMIT_CLAIM:
		w_next(w, p, W_BEGIN);
		break;
	case PEN_ADMIT_HOLD:
		p->phase = W_HOLD;
		p->next_ns = d->until_ns;
		break;
	case PEN_ADMIT_WAIT_OWN:
		p->phase = W_OWN;
		p->next_ns = d->until_ns;
		if (!p->st.inflight_ns)   /* done since it was asked */
			w_next(w, p, W_BEGIN);
		break;
	case PEN_ADMIT_WAIT_SEAT:
		p->waiting_on = d->seat;
		p->phase = W_SEAT;
		p->next_ns = d->until_ns;
		if (w_by_seat(w, d->seat)->word != d->seat_word)
			w_next(w, p, W_BEGIN);
		break;
	default:
		w_fail(w, "proc %u: kind %d", (unsigned)(p - w->proc), (int)d->kind);
	}
	if (p->next_ns <= w->now_ns)
		p->next_ns = w->now_ns + 1;
}

static void book(struct world *w, struct w_proc *p)
{
	struct w_tenant *t = w_tenant_of(w, p);
	if (t->share_tat_ns != p->view.share_tat_ns || t->guar_tat_ns != p->view.guar_tat_ns) {
		w_next(w, p, W_BEGIN);
		return;
	}
	t->share_tat_ns = p->d.share_tat_ns;
	t->guar_tat_ns = p->d.guar_tat_ns;
	t->last_repay = p->d.repay;
	check_cap(w, p);
	w_next(w, p, W_SUBMIT);
}

static void submitted(struct world *w, struct w_proc *p)
{
	submit(w, p);
	if (p->cmd.slices) {
		w_next(w, p, W_BEGIN);
		return;
	}
	p->commands++;
	if (--p->left) {
		new_command(w, p);
		w_next(w, p, W_BEGIN);
	} else {
		p->phase = W_SYNC;
		p->next_ns = NEVER;
	}
}

static void step(struct world *w, struct w_proc *p)
{
	if (p->crash_ns && w->now_ns >= p->crash_ns) {
		p->phase = W_DEAD;
		p->next_ns = p->retire_ns = NEVER;
		p->free_after_ns = w->now_ns + (w_one_in(w, 4) ? w_range(w, 0, 600 * MS) : w_range(w, 0, 100 * MS));
		return;
	}
	p->next_ns = NEVER;
	p->waiting_on = -1;
	switch (p->phase) {
	case W_WAIT_WORK:
		if (p->load == LOAD_HOSTILE)
			hostile(w, p);
		else
			start_request(w, p);
		break;
	case W_HOLD:
	case W_OWN:
	case W_SEAT:
	case W_BEGIN:
		w_begin_view(w, p);
		w_next(w, p, W_VIEW);
		break;
	case W_VIEW:
		w_next(w, p, w_read_view(w, p) ? W_DECIDE : W_VIEW);
		break;
	case W_DECIDE:
		pen_admit_step(&p->st, &w_tenant_of(w, p)->lim, &p->view, &p->cmd, &p->d);
		check_answer(w, p);
		w_next(w, p, W_PUBLISH);
		break;
	case W_PUBLISH:
		w_publish(w, p, p->d.publish);
		act(w, p);
		break;
	case W_BOOK:
		book(w, p);
		break;
	case W_SUBMIT:
		submitted(w, p);
		break;
	default:
		break;
	}
	if (p->phase == W_SYNC && p->head == p->tail)
		request_done(w, p);
}

void w_run(struct world *w, uint64_t span_ns)
{
	w->end_ns = w->now_ns + span_ns;
	for (uint32_t i = 0; i < w->nprocs; i++) {
		w->proc[i].moved_ns = w->now_ns;
		w->proc[i].due_ns = w->proc[i].next_ns = w->now_ns + w->proc[i].start_ns + 1;
		if (w->proc[i].crash_ns)
			w->proc[i].crash_ns += w->now_ns;
	}
	w_tick(w);
	while (!w->broken[0]) {
		uint64_t when = w->tick_ns;
		struct w_proc *who = NULL;
		bool retires = false, device = false;
		if (w->device_busy && w->device_free_ns < when) {
			when = w->device_free_ns;
			device = true;
		}
		for (uint32_t i = 0; i < w->nprocs; i++) {
			struct w_proc *p = &w->proc[i];
			uint64_t t = p->next_ns < p->retire_ns ? p->next_ns : p->retire_ns;
			if (t < when) {
				when = t;
				who = p;
				retires = p->retire_ns < p->next_ns;
			}
		}
		if (when >= w->end_ns)
			return;
		w->now_ns = when > w->now_ns ? when : w->now_ns;
		w->events++;
		if (who && retires)
			retire(w, who);
		else if (who)
			step(w, who);
		else if (device)
			complete(w);
		else
			w_tick(w);
	}
}
