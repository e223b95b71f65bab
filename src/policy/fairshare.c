/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weighted max-min with borrowing. Each tenant gets its guarantee, and what others leave by weight up to its cap. Unused
 * time needs no act of the policy: who is not backlogged is not in the fair order, so the rest takes it at once.
 *
 * A fair order by weights keeps every guarantee if no weight is below its guarantee and the weights add up to at most
 * one device. So guarantees are taken as they are, and the weights of tenants without one are scaled down to what the
 * guarantees leave. They follow from contracts, not from load: virtual time then runs at a constant rate.
 */
#include "policy/internal.h"

static uint32_t min32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t cap_of(const struct pen_policy_tenant *t)
{
	return t->cap_ppm && t->cap_ppm < PEN_PPM ? t->cap_ppm : PEN_PPM;
}

static uint32_t asked_weight(const struct pen_policy_tenant *t)
{
	return t->weight_ppm > PEN_POLICY_WEIGHT_LEAST_PPM ? min32(t->weight_ppm, PEN_PPM) : PEN_POLICY_WEIGHT_LEAST_PPM;
}

static void weights(const struct pen_policy_in *in, struct pen_policy_out *out)
{
	uint64_t promised = 0, asked = 0;
	for (size_t i = 0; i < out->ntenants; i++) {
		const struct pen_policy_tenant *t = &in->tenant[i];
		promised += t->guaranteed_ppm;
		asked += t->guaranteed_ppm ? 0 : asked_weight(t);
	}
	uint64_t left = promised < PEN_PPM ? PEN_PPM - promised : 0;
	for (size_t i = 0; i < out->ntenants; i++) {
		const struct pen_policy_tenant *t = &in->tenant[i];
		uint64_t w = t->guaranteed_ppm ? t->guaranteed_ppm : asked_weight(t);
		if (!t->guaranteed_ppm && asked > left)
			w = w * left / asked;
		w = w < PEN_POLICY_WEIGHT_LEAST_PPM ? PEN_POLICY_WEIGHT_LEAST_PPM : w;
		out->tenant[i].weight_ppm = min32((uint32_t)w, PEN_PPM);
	}
	/* Floors come out of what the guarantees leave, so that aging breaks no promise. */
	uint64_t floor = out->ntenants ? left / out->ntenants : 0;
	floor = floor < PEN_POLICY_WEIGHT_LEAST_PPM ? PEN_POLICY_WEIGHT_LEAST_PPM : floor;
	for (size_t i = 0; i < out->ntenants; i++)
		out->tenant[i].floor_ppm = min32(min32((uint32_t)floor, PEN_POLICY_FLOOR_PPM), cap_of(&in->tenant[i]));
}

/* What the backlogged tenant @i gets in any case. */
static uint32_t least_of(const struct pen_policy_terms *p)
{
	uint32_t due = p->guaranteed_ppm > p->floor_ppm ? p->guaranteed_ppm : p->floor_ppm;
	return min32(due, p->cap_ppm);
}

/* Rank by rank: a rank divides what more urgent ones left, less what is due to lower ones in any case. */
static void entitle(const struct pen_policy_in *in, struct pen_policy_out *out)
{
	uint32_t weight[PEN_POLICY_TENANTS], least[PEN_POLICY_TENANTS], most[PEN_POLICY_TENANTS], x[PEN_POLICY_TENANTS];
	size_t who[PEN_POLICY_TENANTS];
	uint64_t left = PEN_PPM;

	for (uint32_t next = 0; next <= UINT16_MAX;) {
		uint32_t rank = UINT32_MAX;
		for (size_t i = 0; i < out->ntenants; i++)
			if (in->tenant[i].backlogged && out->tenant[i].rank >= next)
				rank = min32(rank, out->tenant[i].rank);
		if (rank == UINT32_MAX)
			return;
		size_t n = 0;
		uint64_t below = 0;
		for (size_t i = 0; i < out->ntenants; i++) {
			const struct pen_policy_terms *p = &out->tenant[i];
			if (!in->tenant[i].backlogged)
				continue;
			if (p->rank > rank)
				below += least_of(p);
			if (p->rank != rank)
				continue;
			weight[n] = p->weight_ppm;
			least[n] = least_of(p);
			most[n] = p->cap_ppm;
			who[n++] = i;
		}
		pen_policy_maxmin(n, left > below ? left - below : 0, weight, least, most, x);
		for (size_t i = 0; i < n; i++) {
			out->tenant[who[i]].entitled_ppm = x[i];
			left -= x[i] < left ? x[i] : left;
		}
		next = rank + 1;
	}
}

static void fill(const struct pen_policy_in *in, struct pen_policy_out *out, uint64_t quantum_ns)
{
	for (size_t i = 0; i < out->ntenants; i++) {
		const struct pen_policy_tenant *t = &in->tenant[i];
		struct pen_policy_terms *p = &out->tenant[i];
		p->cap_ppm = cap_of(t);
		p->guaranteed_ppm = min32(t->guaranteed_ppm, p->cap_ppm);
		p->quantum_ns = in->quantum_ns ? in->quantum_ns : quantum_ns;
		p->burst_ns = PEN_POLICY_BURST_NS;
	}
}

void pen_policy_fairshare(const struct pen_policy_in *in, struct pen_policy_out *out)
{
	fill(in, out, PEN_POLICY_QUANTUM_NS);
	weights(in, out);
	entitle(in, out);
}

/* Round robin: everybody's turn is equally long, whatever was promised; caps hold, guarantees hold against ranks. */
void pen_policy_turns(const struct pen_policy_in *in, struct pen_policy_out *out)
{
	fill(in, out, PEN_POLICY_TURN_NS);
	weights(in, out);   /* for the floors */
	for (size_t i = 0; i < out->ntenants; i++)
		out->tenant[i].weight_ppm = PEN_PPM / out->ntenants;
	entitle(in, out);
}
