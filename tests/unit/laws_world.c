/* SPDX-License-Identifier: Apache-2.0 */
/* Chance, daemon and board of laws_world.h. */
#include "laws_inner.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

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

struct w_tenant *w_tenant_of(struct world *w, const struct w_proc *p)
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

void w_next(struct world *w, struct w_proc *p, enum w_phase phase)
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

void w_span_end(struct world *w, struct w_proc *p)
{
	if (p->in_span)
		w_tenant_of(w, p)->active--;
	p->in_span = false;
}

void w_tick(struct world *w)
{
	for (uint32_t i = 0; i < w->nprocs; i++) {
		struct w_proc *p = &w->proc[i];
		if (p->phase == W_DEAD && w->now_ns >= p->free_after_ns) {
			w_span_end(w, p);
			w_tenant_of(w, p)->departed_vns += p->service_vns;
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

void w_read_seat(struct world *w, struct w_proc *p, const struct w_proc *q)
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

void w_begin_view(struct world *w, struct w_proc *p)
{
	const struct w_tenant *t = w_tenant_of(w, p);
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
bool w_read_view(struct world *w, struct w_proc *p)
{
	bool slowly = w->faults && w_one_in(w, 2);
	while (p->read_at < w->nprocs) {
		w_read_seat(w, p, &w->proc[p->read_at++]);
		if (slowly && p->read_at < w->nprocs)
			return false;
	}
	return true;
}

struct w_proc *w_by_seat(struct world *w, uint16_t seat)
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
	w_begin_view(w, p);
	for (uint32_t i = 0; i < w->nprocs; i++)
		w_read_seat(w, p, &w->proc[i]);
	int who = pen_admit_wake(&w_tenant_of(w, p)->lim, &p->view);
	int tenant = who < 0 ? -1 : p->view.seat[who].tenant;
	p->view = saved;
	p->read_at = at;
	/* Whatever word they sleep on: a wake goes through the mapping of that word's page. */
	for (uint32_t i = 0; i < w->nprocs; i++)
		if (w->proc[i].tenant == tenant && w->proc[i].phase == W_SEAT && !w_one_in(w, w->lost_wake_1_in))
			w_next(w, &w->proc[i], W_BEGIN);
}

static bool is_run(const struct w_proc *p)
{
	return PEN_BUSY_STATE(p->word) == PEN_BUSY_RUN;
}

bool w_has_passed(const struct pen_admit_state *st, uint16_t seat)
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
		bool passed = w_has_passed(&q->st, seat_of(w, p)) || w_has_passed(&p->st, seat_of(w, q));
		if (!may && !passed && !p->d.taints && !q->knowing && !p->stale && !q->stale && !p->d.debt)
			w_fail(w, "two run: proc %u (tenant %u) enters beside proc %u (tenant %u)", (unsigned)(p - w->proc),
			       p->tenant, i, q->tenant);
	}
}

void w_publish(struct world *w, struct w_proc *p, enum pen_busy_state state)
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
