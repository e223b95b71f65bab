/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Order by class, then priority; tenants equal in both share a rank. Among equals a target makes a deadline, and the
 * earliest goes first (the admission core does that). Aging is the floor that the share policy gives everybody.
 */
#include "policy/internal.h"

#define PRIORITY_MOST 100

/* Depends on the tenant's own contract alone: nobody's rank moves when others come and go. */
static uint16_t rank_of(const struct pen_policy_tenant *t)
{
	unsigned cls = t->cls <= PEN_POLICY_BESTEFFORT ? t->cls : PEN_POLICY_BESTEFFORT;
	int priority = t->priority < 0 ? 0 : t->priority > PRIORITY_MOST ? PRIORITY_MOST : t->priority;
	return (uint16_t)(cls * (PRIORITY_MOST + 1) + (unsigned)(PRIORITY_MOST - priority));
}

void pen_policy_strict(const struct pen_policy_in *in, struct pen_policy_out *out)
{
	for (size_t i = 0; i < out->ntenants; i++) {
		const struct pen_policy_tenant *t = &in->tenant[i];
		struct pen_policy_terms *p = &out->tenant[i];
		p->rank = rank_of(t);
		p->latency = t->cls == PEN_POLICY_LATENCY;
		p->target_ns = t->target_ns;
		p->window_wide_ns = PEN_POLICY_WINDOW_WIDE_NS;
		p->window_narrow_ns = PEN_POLICY_WINDOW_NARROW_NS;
		p->chunk_wide_ns = PEN_POLICY_CHUNK_WIDE_NS;
		p->chunk_narrow_ns = PEN_POLICY_CHUNK_NARROW_NS;
	}
}
