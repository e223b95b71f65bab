/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of policies, what all of them share, and the rate policy that hands each contract's figures on.
 */
#include "policy/internal.h"

#include <string.h>

enum { BUSY_IDLE, BUSY_WANT };   /* of enum pen_busy_state, board/layout.h */

static const struct pen_policy policies[] = {
#define X(id, name_, ...) {.name = #name_, .kind = PEN_POLICY_ORDER, .run = pen_policy_##name_},
	PEN_ORDERS(X)
#undef X
#define X(id, name_, ...) {.name = #name_, .kind = PEN_POLICY_SHARE, .run = pen_policy_##name_},
	PEN_SHARES(X)
#undef X
#define X(id, name_, ...) {.name = #name_, .kind = PEN_POLICY_RATE, .run = pen_policy_##name_},
	PEN_RATES(X)
#undef X
};

/* What the configuration shows as the default is what a policy does by default. */
#define X(id, name, quantum_ms) QUANTUM_##id = (quantum_ms) * 1000000,
enum { PEN_SHARES(X) };
#undef X
_Static_assert(QUANTUM_FAIRSHARE == PEN_POLICY_QUANTUM_NS && QUANTUM_TURNS == PEN_POLICY_TURN_NS, "quantum");

const struct pen_policy *pen_policy_at(size_t i)
{
	return i < sizeof(policies) / sizeof(policies[0]) ? &policies[i] : NULL;
}

const struct pen_policy *pen_policy_find(enum pen_policy_kind kind, const char *name)
{
	const struct pen_policy *p;
	for (size_t i = 0; (p = pen_policy_at(i)); i++)
		if (p->kind == kind && !strcmp(p->name, name))
			return p;
	return NULL;
}

void pen_policy_cap(const struct pen_policy_in *in, struct pen_policy_out *out)
{
	for (size_t i = 0; i < out->ntenants; i++) {
		out->tenant[i].rate_guaranteed_bytes_s = in->tenant[i].rate_guaranteed_bytes_s;
		out->tenant[i].rate_cap_bytes_s = in->tenant[i].rate_cap_bytes_s;
	}
}

static uint64_t sum_at(size_t n, uint64_t level, const uint32_t *weight, const uint32_t *least, const uint32_t *most,
		       uint32_t *ret_x)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < n; i++) {
		uint64_t x = level * weight[i] / PEN_PPM;
		x = x < least[i] ? least[i] : x;
		x = x > most[i] ? most[i] : x;
		ret_x[i] = (uint32_t)x;
		sum += x;
	}
	return sum;
}

/* By bisection of the level: the sum rises with it. At 2^43 even a weight of one ppm has reached 100 %. */
void pen_policy_maxmin(size_t n, uint64_t total, const uint32_t *weight, const uint32_t *least, const uint32_t *most,
		       uint32_t *ret_x)
{
	uint64_t low = 0, high = UINT64_C(1) << 43;
	while (low < high) {
		uint64_t mid = low + (high - low + 1) / 2;
		if (sum_at(n, mid, weight, least, most, ret_x) <= total)
			low = mid;
		else
			high = mid - 1;
	}
	sum_at(n, low, weight, least, most, ret_x);
}

/* Does another tenant's seat explain that @s stands still? It runs, or has just moved. */
static bool is_excused(const struct pen_policy_in *in, const struct pen_policy_seat *s)
{
	for (size_t i = 0; i < in->nseats && i < PEN_POLICY_SEATS; i++) {
		const struct pen_policy_seat *o = &in->seat[i];
		if (o->slot != s->slot && o->busy != BUSY_IDLE &&
		    (o->busy != BUSY_WANT || in->now_ns < o->moved_ns + PEN_POLICY_STALE_NS))
			return true;
	}
	return false;
}

/* Who waits for its turn stands still honestly while another runs; who says that it runs, or is about to, does not. */
static void stale(const struct pen_policy_in *in, struct pen_policy_out *out)
{
	for (size_t i = 0; i < in->nseats && i < PEN_POLICY_SEATS; i++) {
		const struct pen_policy_seat *s = &in->seat[i];
		if (s->seat >= PEN_POLICY_SEATS || s->busy == BUSY_IDLE || in->now_ns < s->moved_ns + PEN_POLICY_STALE_NS)
			continue;
		if (s->busy != BUSY_WANT || !is_excused(in, s))
			out->stale[s->seat / 64] |= UINT64_C(1) << (s->seat % 64);
	}
}

/*
 * One tenant has the device for itself: the others hold. Ranks and floors say the same to clients of before there was a word
 * for it, as well as ranks can. Should two be exclusive the first is.
 */
static void exclusive(const struct pen_policy_in *in, struct pen_policy_out *out)
{
	size_t one = 0;
	while (one < out->ntenants && !in->tenant[one].exclusive)
		one++;
	if (one == out->ntenants)
		return;
	for (size_t i = 0; i < out->ntenants; i++) {
		struct pen_policy_terms *p = &out->tenant[i];
		p->exclusive = i == one;
		p->held = i != one;
		p->rank = i == one ? 0 : p->rank < UINT16_MAX ? (uint16_t)(p->rank + 1) : p->rank;
		if (i == one) {
			p->entitled_ppm = in->tenant[i].backlogged ? p->cap_ppm : 0;
			continue;
		}
		p->guaranteed_ppm = p->floor_ppm = p->entitled_ppm = 0;
		p->latency = false;
	}
}

void pen_policy_run(const struct pen_policy *order, const struct pen_policy *share, const struct pen_policy *rate,
		    const struct pen_policy_in *in, struct pen_policy_out *out)
{
	memset(out, 0, sizeof(*out));
	out->ntenants = in->ntenants < PEN_POLICY_TENANTS ? in->ntenants : PEN_POLICY_TENANTS;
	for (size_t i = 0; i < out->ntenants; i++)
		out->tenant[i].slot = in->tenant[i].slot;
	(order ? order->run : pen_policy_strict)(in, out);
	(share ? share->run : pen_policy_fairshare)(in, out);
	(rate ? rate->run : pen_policy_cap)(in, out);
	exclusive(in, out);
	stale(in, out);
}
