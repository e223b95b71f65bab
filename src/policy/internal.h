/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_POLICY_INTERNAL_H
#define PEN_POLICY_INTERNAL_H
/* The policies of this folder: rows of the table in policy.c. Each finds out->ntenants set and its own fields zero. */
#include "base/units.h"
#include "policy/policy.h"

/* function, name, kind */
#define PEN_POLICIES(X)                  \
	X(strict, "strict", ORDER)       \
	X(fairshare, "fairshare", SHARE) \
	X(turns, "turns", SHARE)         \
	X(cap, "cap", RATE)

#define X(id, name, kind) void pen_policy_##id(const struct pen_policy_in *in, struct pen_policy_out *out);
PEN_POLICIES(X)
#undef X

#endif
