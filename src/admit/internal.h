/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_ADMIT_INTERNAL_H
#define PEN_ADMIT_INTERNAL_H
/*
 * Shared inside this folder: one question with what was found out about it so far, and saturating arithmetic. Words of
 * neighbours are hostile, so nothing here may overflow whatever they say.
 */
#include "admit/admit.h"

/* Numbers of the board (board/layout.h), which this folder does not know; tests/unit/test_admit.c holds them together. */
enum { BUSY_IDLE, BUSY_WANT, BUSY_CLAIM, BUSY_RUN };
enum { HOLD_WINDOW, HOLD_SHARE, HOLD_BYTES, HOLD_RANK, HOLD_TURN, HOLD_STOPPED, HOLD_EXCLUSIVE };

struct pen_admit_ask {
	struct pen_admit_state *st;
	const struct pen_admit_limits *lim;
	const struct pen_admit_view *view;
	const struct pen_admit_cmd *cmd;
	struct pen_admit_decision *d;
	struct pen_admit_seat self;   /* own key */
	uint64_t now_ns;
	bool hot;                     /* somebody more urgent now or lately */
	bool waited_for;              /* somebody is there, if only idle, who would wait until our work in flight is done */
	bool crowded;                 /* somebody who must be let in wants now */
	bool debt, repay;
	uint64_t due_ns;              /* device time due by the guarantee while a rank stands in the way; else 0 */
	uint32_t slices;              /* of the piece */
	uint64_t est_ns, bytes;
};

static inline uint64_t pen_admit_add(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}
static inline uint64_t pen_admit_sub(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}
static inline bool pen_admit_is_held(const struct pen_admit_limits *lim, uint64_t now_ns)
{
	return lim->hold && now_ns <= lim->lease_until_ns;
}
static inline uint64_t pen_admit_min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}
static inline uint64_t pen_admit_max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* @x * @num / @den, saturating, rounded down; exact while @den < 2^30, else to 2^-29. @num < 2^32, @den > 0. */
uint64_t pen_admit_scale(uint64_t x, uint64_t num, uint64_t den);

/* tokens.c */
uint32_t pen_admit_cap(const struct pen_admit_limits *lim, uint64_t now_ns);
uint32_t pen_admit_due(const struct pen_admit_limits *lim);   /* ppm of the guarantee word; 0 = none is kept */
uint64_t pen_admit_bytes_room(const struct pen_admit_limits *lim);   /* bytes of one burst */
/* Guarantee word with its credit capped for a piece of @est_ns. */
uint64_t pen_admit_guar_base(const struct pen_admit_limits *lim, uint64_t guar_tat_ns, uint64_t now_ns, uint64_t est_ns);
bool pen_admit_tokens(struct pen_admit_ask *a);   /* true: held, the decision is made */
void pen_admit_book(struct pen_admit_ask *a);     /* GO: credit and new words */

/* turn.c */
void pen_admit_observe(struct pen_admit_ask *a);
bool pen_admit_turn(struct pen_admit_ask *a);     /* true: held or CLAIM, the decision is made */

/* admit.c */
/* Until when own work in flight is waited for; 0: none is, or it made no progress for so long that it does not count. */
uint64_t pen_admit_own_bound(const struct pen_admit_ask *a);
void pen_admit_wait_own(struct pen_admit_ask *a, uint8_t reason, uint64_t until_ns);

#endif
