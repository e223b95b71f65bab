/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/learn.h"
#include "base/auto.h"

static uint64_t rounded(uint64_t bytes)
{
	uint64_t top = UINT64_MAX / PEN_LEARN_STEP * PEN_LEARN_STEP;
	return bytes > top - PEN_LEARN_STEP ? top : (bytes + PEN_LEARN_STEP - 1) / PEN_LEARN_STEP * PEN_LEARN_STEP;
}

/* The least, or the highest, of the last @k readings. */
static uint64_t least(const struct pen_learned *l, unsigned k)
{
	uint64_t v = UINT64_MAX;
	for (unsigned i = 1; i <= k; i++)
		v = PEN_MIN(v, l->recent[(l->n - i) % PEN_LEARN_FALL]);
	return v;
}

static uint64_t highest(const struct pen_learned *l, unsigned k)
{
	uint64_t v = 0;
	for (unsigned i = 1; i <= k; i++)
		v = PEN_MAX(v, l->recent[(l->n - i) % PEN_LEARN_FALL]);
	return v;
}

/* By less than two steps it does not: a value on the border of a step would move for ever. */
static void maybe_fall(struct pen_learned *l, unsigned window)
{
	uint64_t v = highest(l, window), to = rounded(v);
	if (l->bytes && (!v || to < l->bytes - PEN_LEARN_STEP))
		l->bytes = to;
}

void pen_learn_fewer(struct pen_learned *l)
{
	l->soon = PEN_LEARN_RISE;
}

void pen_learn(struct pen_learned *l, uint64_t bytes)
{
	l->recent[l->n++ % PEN_LEARN_FALL] = bytes;
	bool now = l->soon && !--l->soon;
	if (l->n >= PEN_LEARN_RISE && least(l, PEN_LEARN_RISE) > l->bytes)
		l->bytes = rounded(least(l, PEN_LEARN_RISE));
	else if (now && l->n >= PEN_LEARN_RISE)
		maybe_fall(l, PEN_LEARN_RISE);
	else if (l->n >= PEN_LEARN_FALL)
		maybe_fall(l, PEN_LEARN_FALL);
}
