/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Token words. Each is a GCRA bucket in one 64-bit word: the theoretical arrival time, a moment of CLOCK_MONOTONIC up to
 * which everything taken so far is paid for at the bucket's rate. One word needs one CAS, and clients of a tenant that
 * share it need no lock. Rejected: tokens plus time of the last refill, which need two words or a lock.
 */
#include "admit/internal.h"

#define CREDIT_PART 4      /* of the window, for a queue of a tenant that has the device to itself */
#define NARROW_WINDOWS 4   /* credit of a guarantee; see admit.h */

uint64_t pen_admit_scale(uint64_t x, uint64_t num, uint64_t den)
{
	uint64_t q = x / den, r = x % den;
	if (num == 0)
		return 0;
	/* Here r >= 2^32, so each halving loses less than the stated precision, and den > r stays above 0. */
	while (r > UINT64_MAX / num) {
		r >>= 1;
		den >>= 1;
	}
	return q > UINT64_MAX / num ? UINT64_MAX : pen_admit_add(q * num, r * num / den);
}

uint64_t pen_admit_vns(const struct pen_admit_limits *lim, uint64_t device_ns)
{
	return pen_admit_scale(device_ns, PEN_ADMIT_PPM, lim->weight_ppm ? lim->weight_ppm : 1);
}

/* Cap that counts now: a lapsed lease ends borrowing where there is a guarantee to fall back to. Never 0. */
uint32_t pen_admit_cap(const struct pen_admit_limits *lim, uint64_t now_ns)
{
	uint32_t cap = lim->cap_ppm < PEN_ADMIT_PPM ? lim->cap_ppm : PEN_ADMIT_PPM;
	if (now_ns > lim->lease_until_ns && lim->guaranteed_ppm && lim->guaranteed_ppm < cap)
		cap = lim->guaranteed_ppm;
	return cap ? cap : 1;
}

uint32_t pen_admit_due(const struct pen_admit_limits *lim)
{
	return lim->guaranteed_ppm > lim->floor_ppm ? lim->guaranteed_ppm : lim->floor_ppm;
}

uint64_t pen_admit_bytes_room(const struct pen_admit_limits *lim)
{
	return pen_admit_scale(lim->burst_ns, lim->rate_cap_bytes_s >> 10, UINT64_C(1000000000) >> 10);
}

uint64_t pen_admit_guar_base(const struct pen_admit_limits *lim, uint64_t guar_tat_ns, uint64_t now_ns, uint64_t est_ns)
{
	uint32_t due = pen_admit_due(lim);
	uint64_t credit = pen_admit_max(pen_admit_scale(lim->window_narrow_ns, NARROW_WINDOWS, 1), est_ns);
	return pen_admit_max(guar_tat_ns, pen_admit_sub(now_ns, pen_admit_scale(credit, PEN_ADMIT_PPM, due)));
}

static bool hold(struct pen_admit_ask *a, uint8_t reason, uint64_t until)
{
	struct pen_admit_state *st = a->st;
	st->turn_since_ns = st->polite_since_ns = 0;   /* out of the contest for the turn by its own limits */
	/* While own work is in flight it says RUN, and must be back when that is done in order to stop saying so. */
	if (pen_admit_own_bound(a)) {
		pen_admit_wait_own(a, reason, until);
		return true;
	}
	a->d->kind = PEN_ADMIT_HOLD;
	a->d->reason = reason;
	a->d->publish = st->inflight_ns ? BUSY_RUN : BUSY_IDLE;
	a->d->until_ns = pen_admit_min(until, pen_admit_add(a->now_ns, PEN_ADMIT_LOOK_NS));
	return true;
}

/* The burst is device time: at the rate of the cap it is worth so much time. Of the contract's cap: a lapse must not
 * lengthen it, or each lapse would grant a burst more. */
static uint64_t share_burst(const struct pen_admit_limits *lim, uint32_t cap)
{
	return pen_admit_scale(lim->burst_ns, PEN_ADMIT_PPM, lim->cap_ppm && lim->cap_ppm < PEN_ADMIT_PPM ? lim->cap_ppm : cap);
}

bool pen_admit_tokens(struct pen_admit_ask *a)
{
	const struct pen_admit_limits *lim = a->lim;
	uint32_t cap = pen_admit_cap(lim, a->now_ns);
	uint64_t burst = share_burst(lim, cap);

	if (cap < PEN_ADMIT_PPM && a->view->share_tat_ns > pen_admit_add(a->now_ns, burst))
		return hold(a, HOLD_SHARE, a->view->share_tat_ns - burst);
	if (lim->rate_cap_bytes_s != UINT64_MAX && a->bytes &&
	    a->view->bytes_tat_ns > pen_admit_add(a->now_ns, lim->burst_ns))
		return hold(a, HOLD_BYTES, a->view->bytes_tat_ns - lim->burst_ns);
	return false;
}

/*
 * Spare credit lets the queue spend small commands without asking, so only where nobody is kept from anything by it. More of it
 * where a tenant without a cap is the only one that is attached: one that comes raises the epoch, and what is left counts no more.
 */
static uint64_t credit_of(const struct pen_admit_ask *a, uint32_t cap)
{
	uint64_t inflight = pen_admit_add(a->st->inflight_ns, a->view->own_inflight_ns);
	uint64_t window = a->hot ? a->lim->window_narrow_ns : a->lim->window_wide_ns;
	bool free = !a->view->nseats && cap == PEN_ADMIT_PPM;
	uint64_t most = free ? pen_admit_max(PEN_ADMIT_CREDIT_NS, window / CREDIT_PART) : PEN_ADMIT_CREDIT_NS;
	uint64_t room = pen_admit_min(most, pen_admit_sub(window, inflight));

	if (a->est_ns >= most || a->cmd->unknown || a->cmd->no_wait || a->debt || a->repay || a->crowded ||
	    a->lim->rate_cap_bytes_s != UINT64_MAX)   /* the fast path counts no bytes */
		return a->est_ns;
	if (cap < PEN_ADMIT_PPM) {
		uint64_t ahead = pen_admit_add(a->now_ns, share_burst(a->lim, cap));
		uint64_t tat = pen_admit_max(a->view->share_tat_ns, a->now_ns);
		room = pen_admit_min(room, pen_admit_scale(pen_admit_sub(ahead, tat), cap, PEN_ADMIT_PPM));
	}
	return pen_admit_max(a->est_ns, room);
}

void pen_admit_book(struct pen_admit_ask *a)
{
	const struct pen_admit_limits *lim = a->lim;
	const struct pen_admit_view *view = a->view;
	struct pen_admit_decision *d = a->d;
	uint32_t cap = pen_admit_cap(lim, a->now_ns), due = pen_admit_due(lim);

	d->credit_ns = credit_of(a, cap);
	d->share_tat_ns = view->share_tat_ns;
	if (cap < PEN_ADMIT_PPM)
		d->share_tat_ns = pen_admit_add(pen_admit_max(view->share_tat_ns, a->now_ns),
						pen_admit_scale(d->credit_ns, PEN_ADMIT_PPM, cap));
	d->guar_tat_ns = view->guar_tat_ns;
	if (due) {
		uint64_t base = pen_admit_guar_base(lim, view->guar_tat_ns, a->now_ns, a->est_ns);
		d->guar_tat_ns = pen_admit_min(pen_admit_add(base, pen_admit_scale(d->credit_ns, PEN_ADMIT_PPM, due)),
					       pen_admit_add(a->now_ns, PEN_ADMIT_LEAD_NS));
	}
	d->bytes_tat_ns = view->bytes_tat_ns;
	if (lim->rate_cap_bytes_s != UINT64_MAX && a->bytes) {
		uint64_t rate = lim->rate_cap_bytes_s ? lim->rate_cap_bytes_s : 1;
		d->bytes_tat_ns = pen_admit_add(pen_admit_max(view->bytes_tat_ns, a->now_ns),
						pen_admit_scale(a->bytes, UINT64_C(1000000000), rate));
	}
}

static int64_t settle(int64_t diff_ns, uint32_t rate_ppm)
{
	uint64_t size = diff_ns < 0 ? 0 - (uint64_t)diff_ns : (uint64_t)diff_ns;
	int64_t v = (int64_t)pen_admit_min(pen_admit_scale(size, PEN_ADMIT_PPM, rate_ppm), INT64_MAX);
	return diff_ns < 0 ? -v : v;
}

int64_t pen_admit_settle_share(const struct pen_admit_limits *lim, uint64_t now_ns, int64_t diff_ns)
{
	/* The lease may have lapsed in between: what is given back is never worth more than when it was booked. */
	uint32_t cap = pen_admit_cap(lim, diff_ns < 0 ? 0 : now_ns);
	return cap < PEN_ADMIT_PPM ? settle(diff_ns, cap) : 0;
}

int64_t pen_admit_settle_guar(const struct pen_admit_limits *lim, int64_t diff_ns)
{
	uint32_t due = pen_admit_due(lim);
	return due ? settle(diff_ns, due) : 0;
}

uint64_t pen_admit_join_guar(const struct pen_admit_limits *lim, const struct pen_admit_view *view)
{
	(void)lim;
	return pen_admit_min(pen_admit_max(view->guar_tat_ns, view->now_ns), pen_admit_add(view->now_ns, PEN_ADMIT_LEAD_NS));
}

/*
 * Own service is brought up to half a quantum behind the least of those who are backlogged now, which is where a turn starts: who
 * returns comes next, for a whole turn, and not after a round of all others for a short one. It gains nothing beyond what
 * was due to it and not used, so that leaving and returning does not pay. Only equal ranks: others do not contend by
 * service. A seat that claims more than half of the number range is not believed.
 */
uint64_t pen_admit_join_vns(const struct pen_admit_limits *lim, const struct pen_admit_view *view)
{
	uint64_t least = UINT64_MAX;
	for (uint32_t i = 0; i < view->nseats && i < PEN_ADMIT_SEATS; i++) {
		const struct pen_admit_seat *s = &view->seat[i];
		if (s->tenant == lim->tenant || s->state == BUSY_IDLE || s->stale || s->rank != lim->rank ||
		    s->service_vns > UINT64_MAX / 2)
			continue;
		least = pen_admit_min(least, s->service_vns);
	}
	if (least == UINT64_MAX)
		return 0;
	return pen_admit_sub(pen_admit_sub(least, pen_admit_vns(lim, lim->quantum_ns / 2)), view->own_service_vns);
}
