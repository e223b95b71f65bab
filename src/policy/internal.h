/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_POLICY_INTERNAL_H
#define PEN_POLICY_INTERNAL_H
/* The policies: one for each name that a configuration may say. Each finds out->ntenants set and its own fields zero. */
#include "base/units.h"
#include "contract/config.h"
#include "policy/policy.h"

#define X(id, name, ...) void pen_policy_##name(const struct pen_policy_in *in, struct pen_policy_out *out);
PEN_ORDERS(X)
PEN_SHARES(X)
PEN_RATES(X)
#undef X

#endif
