/* SPDX-License-Identifier: Apache-2.0 */
/* The world of laws_world.h. */
#include "laws_world.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NEVER UINT64_MAX
#define PPM PEN_ADMIT_PPM

/* ---- chance and bookkeeping ----------------------------------------------------------------------------------- */

uint64_t w_rand(struct world *w)   /* splitmix64 */
{
	uint64_t z = w->rng += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

uint64_t w_range(struct world *w, uint64_t low, uint64_t high)
{
	return low + w_rand(w) % (high - low + 1);
}

bool w_one_in(struct world *w, uint32_t n)
{
	return n && w_rand(w) % n == 0;
}

void w_fail(struct world *w, const char *fmt, ...)
{
	va_list ap;
	if (w->broken[0])
		return;
	va_start(ap, fmt);
	vsnprintf(w->broken, sizeof(w->broken), fmt, ap);
	va_end(ap);
}

void w_init(struct world *w, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	w->seed = w->rng = seed;
	w->now_ns = 10 * S;   /* a machine is never booted just now: nothing may depend on small times */
	w->tick_ns = w->now_ns;
}

struct w_tenant *w_add_tenant(struct world *w, uint8_t cls, uint32_t guaranteed_ppm, uint32_t cap_ppm, uint32_t weight_ppm)
{
	struct w_tenant *t = &w->tenant[w->ntenants];
	t->contract = (struct pen_policy_tenant){
		.slot = (uint16_t)w->ntenants++,
		.cls = cls,
		.priority = 50,
		.guaranteed_ppm = guaranteed_ppm,
		.cap_ppm = cap_ppm,
		.weight_ppm = weight_ppm,
		.rate_cap_bytes_s = PEN_POLICY_NO_RATE,
		.backlogged = true,
	};
	return t;
}

struct w_proc *w_add_proc(struct world *w, struct w_tenant *t, enum w_load load)
{
	struct w_proc *p = &w->proc[w->nprocs++];
	p->tenant = t->contract.slot;
	p->load = load;
	p->batch = 1;
	p->cmd_min_ns = 100 * US;
	p->cmd_max_ns = 1 * MS;
	p->slices = 1;
	p->waiting_on = -1;
	p->retire_ns = NEVER;
	p->phase = W_WAIT_WORK;
	t->nprocs++;
	return p;
}

static uint16_t seat_of(const struct world *w, const struct w_proc *p)
{
	return (uint16_t)((p - w->proc) * 7 % PEN_ADMIT_SEATS + 3);   /* spread over both words of a set */
}

static struct w_tenant *tenant_of(struct world *w, const struct w_proc *p)
{
	return &w->tenant[p->tenant];
}

/* Most steps follow at once; some processes are put aside by their machine for a while. */
static uint64_t step_ns(struct world *w)
{
	if (w_one_in(w, w->pause_1_in))
		return w_range(w, 5 * MS, 90 * MS);
	if (w->faults && w_one_in(w, 400))
		return w_range(w, 10 * US, 1 * MS);
	return w_range(w, 50, 1500);
}

static void next(struct world *w, struct w_proc *p, enum w_phase phase)
{
	p->phase = phase;
	p->next_ns = w->now_ns + step_ns(w);
}

/* ---- daemon --------------------------------------------------------------------------------------------------- */

static void limits_of(struct world *w)
{
	static struct pen_policy_in in;   /* large, and one thread */
	static struct pen_policy_out out;
	memset(&in, 0, sizeof(in));
	in.now_ns = w->now_ns;
	in.corun = w->corun;
	in.ntenants = (uint16_t)w->ntenants;
	for (uint32_t i = 0; i < w->ntenants; i++)
		in.tenant[i] = w->tenant[i].contract;
	for (uint32_t i = 0; i < w->nprocs; i++) {
		const struct w_proc *p = &w->proc[i];
		if (p->phase == W_FREE)
			continue;
		in.seat[in.nseats++] = (struct pen_policy_seat){
			.seat = seat_of(w, p), .slot = p->tenant, .busy = (uint8_t)PEN_BUSY_STATE(p->word), .moved_ns = p->moved_ns,
		};
	}
	pen_policy_run(NULL, NULL, NULL, &in, &out);
	for (uint32_t i = 0; i < w->ntenants; i++) {
		const struct pen_policy_terms *t = &out.tenant[i];
		uint64_t lease = w->now_ns + 100 * MS;
		w->tenant[i].entitled_ppm = t->entitled_ppm;
		w->tenant[i].lim = (struct pen_admit_limits){
			.corun = w->corun, .latency = t->latency, .rank = t->rank, .tenant = t->slot,
			.guaranteed_ppm = t->guaranteed_ppm, .cap_ppm = t->cap_ppm, .floor_ppm = t->floor_ppm,
			.weight_ppm = t->weight_ppm, .rate_cap_bytes_s = t->rate_cap_bytes_s, .target_ns = t->target_ns,
			.window_wide_ns = t->window_wide_ns, .window_narrow_ns = t->window_narrow_ns,
			.chunk_wide_ns = t->chunk_wide_ns, .chunk_narrow_ns = t->chunk_narrow_ns,
			.quantum_ns = t->quantum_ns, .burst_ns = t->burst_ns, .lease_until_ns = lease,
		};
	}
	for (uint32_t i = 0; i < w->nprocs; i++) {
		uint32_t seat = seat_of(w, &w->proc[i]);
		w->proc[i].stale = out.stale[seat / 64] >> (seat % 64) & 1;
	}
}

static void span_end(struct world *w, struct w_proc *p)
{
	if (p->in_span)
		tenant_of(w, p)->active--;
	p->in_span = false;
}

static void tick(struct world *w)
{
	for (uint32_t i = 0; i < w->nprocs; i++) {
		struct w_proc *p = &w->proc[i];
		if (p->phase == W_DEAD && w->now_ns >= p->free_after_ns) {
			span_end(w, p);
			tenant_of(w, p)->departed_vns += p->service_vns;
			p->service_vns = p->inflight_ns = 0;
			p->phase = W_FREE;
			p->word = PEN_BUSY_NEXT(p->word, PEN_BUSY_IDLE);
		}
		if (p->seen_word != p->word || p->seen_progress != p->progress)
			p->moved_ns = w->now_ns;
		p->seen_word = p->word;
		p->seen_progress = p->progress;
	}
	limits_of(w);
	w->tick_ns = w->now_ns + (w->faults && w_one_in(w, 50) ? w_range(w, 50 * MS, 400 * MS) : 5 * MS);
}

/* ---- board ---------------------------------------------------------------------------------------------------- */

static uint64_t service_of(const struct world *w, uint16_t tenant)
{
	uint64_t sum = w->tenant[tenant].departed_vns;
	for (uint32_t i = 0; i < w->nprocs; i++)
		if (w->proc[i].tenant == tenant)
			sum += w->proc[i].service_vns;
	return sum;
}

static uint64_t deadline_of(const struct world *w, const struct w_proc *p)
{
	uint64_t target = w->tenant[p->tenant].lim.target_ns;
	return target ? p->busy_since_ns + target : NEVER;
}

static void read_seat(struct world *w, struct w_proc *p, const struct w_proc *q)
{
	struct pen_admit_view *v = &p->view;
	if (q == p || q->phase == W_FREE)
		return;
	if (q->tenant == p->tenant) {
		v->own_inflight_ns += q->inflight_ns;
		return;
	}
	const struct pen_admit_limits *lim = &w->tenant[q->tenant].lim;
	v->seat[v->nseats++] = (struct pen_admit_seat){
		.seat = seat_of(w, q), .tenant = q->tenant, .rank = lim->rank, .state = (uint8_t)PEN_BUSY_STATE(q->word),
		.latency = lim->latency, .stale = q->stale, .busy_word = q->word, .progress = q->progress,
		.deadline_ns = deadline_of(w, q),
		.service_vns = q->load == LOAD_HOSTILE ? q->service_vns : service_of(w, q->tenant),
		.last_busy_ns = q->last_busy_ns,
	};
}

static void begin_view(struct world *w, struct w_proc *p)
{
	const struct w_tenant *t = tenant_of(w, p);
	struct pen_admit_view *v = &p->view;
	v->now_ns = w->now_ns;
	v->share_tat_ns = t->share_tat_ns;
	v->guar_tat_ns = t->guar_tat_ns;
	v->bytes_tat_ns = t->bytes_tat_ns;
	v->last_repay = t->last_repay;
	v->own_service_vns = service_of(w, p->tenant);
	v->own_deadline_ns = deadline_of(w, p);
	v->own_inflight_ns = 0;
	v->own_seat = seat_of(w, p);
	v->nseats = 0;
	p->read_at = 0;
}

/* One by one now and then: what was read first may be old when the last has been read. */
static bool read_view(struct world *w, struct w_proc *p)
{
	bool slowly = w->faults && w_one_in(w, 2);
	while (p->read_at < w->nprocs) {
		read_seat(w, p, &w->proc[p->read_at++]);
		if (slowly && p->read_at < w->nprocs)
			return false;
	}
	return true;
}

static struct w_proc *by_seat(struct world *w, uint16_t seat)
{
	for (uint32_t i = 0; i < w->nprocs; i++)
		if (seat_of(w, &w->proc[i]) == seat)
			return &w->proc[i];
	return NULL;
}

static void wake_next(struct world *w, struct w_proc *p)
{
	static struct pen_admit_view saved;
	uint32_t at = p->read_at;
	saved = p->view;
	begin_view(w, p);
	for (uint32_t i = 0; i < w->nprocs; i++)
		read_seat(w, p, &w->proc[i]);
	int who = pen_admit_wake(&tenant_of(w, p)->lim, &p->view);
	int tenant = who < 0 ? -1 : p->view.seat[who].tenant;
	p->view = saved;
	p->read_at = at;
	/* Whatever word they sleep on: a wake goes through the mapping of that word's page. */
	for (uint32_t i = 0; i < w->nprocs; i++)
		if (w->proc[i].tenant == tenant && w->proc[i].phase == W_SEAT && !w_one_in(w, w->lost_wake_1_in))
			next(w, &w->proc[i], W_BEGIN);
}

static bool is_run(const struct w_proc *p)
{
	return PEN_BUSY_STATE(p->word) == PEN_BUSY_RUN;
}

static bool has_passed(const struct pen_admit_state *st, uint16_t seat)
{
	return st->passed[seat / 64] >> (seat % 64) & 1;
}

/* Law: nobody enters beside another tenant that runs, but where the rules say so. */
static void check_alone(struct world *w, const struct w_proc *p)
{
	const struct pen_admit_limits *lim = &w->tenant[p->tenant].lim;
	for (uint32_t i = 0; i < w->nprocs; i++) {
		const struct w_proc *q = &w->proc[i];
		if (q->tenant == p->tenant || !is_run(q) || q->load == LOAD_HOSTILE || q->phase == W_FREE)
			continue;
		const struct pen_admit_limits *other = &w->tenant[q->tenant].lim;
		bool may = w->corun || (lim->latency && other->rank > lim->rank) || (other->latency && lim->rank > other->rank);
		/* One of them stood still for so long in between that the other goes on without it. */
		bool passed = has_passed(&q->st, seat_of(w, p)) || has_passed(&p->st, seat_of(w, q));
		if (!may && !passed && !p->d.taints && !q->knowing && !p->stale && !q->stale && !p->d.debt)
			w_fail(w, "two run: proc %u (tenant %u) enters beside proc %u (tenant %u)", (unsigned)(p - w->proc),
			       p->tenant, i, q->tenant);
	}
}

static void publish(struct world *w, struct w_proc *p, enum pen_busy_state state)
{
	enum pen_busy_state was = PEN_BUSY_STATE(p->word);
	p->st.busy = (uint8_t)state;
	if (state == was)
		return;
	if (state == PEN_BUSY_RUN)
		check_alone(w, p);
	if (state == PEN_BUSY_WANT)
		p->want_ns = w->now_ns;
	if (state == PEN_BUSY_CLAIM)
		p->claim_ns = w->now_ns;
	p->knowing = state == PEN_BUSY_RUN && (p->d.taints || p->d.debt);
	p->word = PEN_BUSY_NEXT(p->word, state);
	p->last_busy_ns = w->now_ns;
	if (was > state)
		wake_next(w, p);
}

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
	tenant_of(w, p)->used_ns += e.actual;
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
	struct w_tenant *t = tenant_of(w, p);
	uint64_t actual = piece_ns(p), charge = p->d.taints ? p->d.est_ns : actual;
	uint64_t at = p->view.now_ns;   /* it may have been stopped since, which says nothing about the rate */

	t->longest_actual_ns = actual > t->longest_actual_ns ? actual : t->longest_actual_ns;
	t->worst_error = p->est_error > t->worst_error ? p->est_error : t->worst_error;
	if (t->lim.cap_ppm == PPM || p->no_wait_1_in)
		return;
	/* Estimates of what is in flight may be wrong both ways: too low is over now, too high was kept back before. */
	double unsettled = 2.0 * (double)t->lim.window_wide_ns * t->worst_error + (double)t->longest_actual_ns * t->nprocs;
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
	publish(w, p, PEN_BUSY_IDLE);
	span_end(w, p);
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
	struct w_tenant *t = tenant_of(w, p);
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
		next(w, p, W_BEGIN);
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
	struct w_tenant *t = tenant_of(w, p);
	if (!p->batch)
		p->batch = 1;
	p->left = p->load == LOAD_SATURATE ? UINT32_MAX : (uint32_t)w_range(w, p->load == LOAD_RANDOM ? 1 : p->batch, p->batch);
	p->busy_since_ns = w->now_ns;
	p->span_others_ns = 0;
	p->in_span = true;
	if (t->active++ == 0) {
		begin_view(w, p);
		while (p->read_at < w->nprocs)
			read_seat(w, p, &w->proc[p->read_at++]);
		p->service_vns += pen_admit_join_vns(&t->lim, &p->view);
		t->guar_tat_ns = pen_admit_join_guar(&t->lim, &p->view);
	}
	new_command(w, p);
	next(w, p, W_BEGIN);
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
	if (d->credit_ns < d->est_ns || d->credit_ns > d->est_ns + PEN_ADMIT_CREDIT_NS)
		w_fail(w, "proc %u: credit", id);
	uint64_t hold = w->now_ns - p->ready_ns;
	p->longest_hold_ns = hold > p->longest_hold_ns ? hold : p->longest_hold_ns;
	if (p->st.busy == PEN_BUSY_RUN || d->debt || d->repay || w->corun)
		return;
	p->entries++;
	const struct pen_admit_limits *lim = &w->tenant[p->tenant].lim;
	for (uint32_t i = 0; i < p->view.nseats; i++) {
		const struct pen_admit_seat *s = &p->view.seat[i];
		if (s->rank != lim->rank || s->stale || has_passed(&p->st, s->seat))
			continue;
		if (s->state == PEN_BUSY_RUN || s->state == PEN_BUSY_CLAIM)
			w_fail(w, "proc %u enters though seat %u was seen in state %u", id, s->seat, s->state);
		if (s->state == PEN_BUSY_WANT && s->deadline_ns < p->view.own_deadline_ns &&
		    by_seat(w, s->seat)->want_ns < p->claim_ns)
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
		next(w, p, W_BOOK);
		break;
	case PEN_ADMIT_CLAIM:
		next(w, p, W_BEGIN);
		break;
	case PEN_ADMIT_HOLD:
		p->phase = W_HOLD;
		p->next_ns = d->until_ns;
		break;
	case PEN_ADMIT_WAIT_OWN:
		p->phase = W_OWN;
		p->next_ns = d->until_ns;
		if (!p->st.inflight_ns)   /* done since it was asked */
			next(w, p, W_BEGIN);
		break;
	case PEN_ADMIT_WAIT_SEAT:
		p->waiting_on = d->seat;
		p->phase = W_SEAT;
		p->next_ns = d->until_ns;
		if (by_seat(w, d->seat)->word != d->seat_word)
			next(w, p, W_BEGIN);
		break;
	default:
		w_fail(w, "proc %u: kind %d", (unsigned)(p - w->proc), (int)d->kind);
	}
	if (p->next_ns <= w->now_ns)
		p->next_ns = w->now_ns + 1;
}

static void book(struct world *w, struct w_proc *p)
{
	struct w_tenant *t = tenant_of(w, p);
	if (t->share_tat_ns != p->view.share_tat_ns || t->guar_tat_ns != p->view.guar_tat_ns) {
		next(w, p, W_BEGIN);
		return;
	}
	t->share_tat_ns = p->d.share_tat_ns;
	t->guar_tat_ns = p->d.guar_tat_ns;
	t->last_repay = p->d.repay;
	check_cap(w, p);
	next(w, p, W_SUBMIT);
}

static void submitted(struct world *w, struct w_proc *p)
{
	submit(w, p);
	if (p->cmd.slices) {
		next(w, p, W_BEGIN);
		return;
	}
	p->commands++;
	if (--p->left) {
		new_command(w, p);
		next(w, p, W_BEGIN);
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
		begin_view(w, p);
		next(w, p, W_VIEW);
		break;
	case W_VIEW:
		next(w, p, read_view(w, p) ? W_DECIDE : W_VIEW);
		break;
	case W_DECIDE:
		pen_admit_step(&p->st, &tenant_of(w, p)->lim, &p->view, &p->cmd, &p->d);
		check_answer(w, p);
		next(w, p, W_PUBLISH);
		break;
	case W_PUBLISH:
		publish(w, p, p->d.publish);
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
	tick(w);
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
			tick(w);
	}
}
