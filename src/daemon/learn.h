/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_LEARN_H
#define PEN_DAEMON_LEARN_H
/*
 * A number of bytes learned from readings that come once a period and are a little wrong: two books are compared that were not
 * read at the same instant, so a reading in the middle of an allocation is too high or too low. It rises only with what several
 * readings in a row agree on, falls later, and moves in steps: each move is written to a tenant's terms.
 *
 * Pure. Bytes; the length of a period is the caller's.
 */
#include <stdbool.h>
#include <stdint.h>

#define PEN_LEARN_STEP (UINT64_C(16) << 20)   /* below what a context takes, above what two books differ by in between */
#define PEN_LEARN_RISE 3                      /* readings that agree that it is more */
#define PEN_LEARN_FALL 10                     /* ... less */

/* Zeroed = nothing is known. */
struct pen_learned {
	uint64_t bytes;                    /* a multiple of the step */
	uint64_t recent[PEN_LEARN_FALL];
	uint64_t n;                        /* readings so far */
	unsigned soon;                     /* something ended: after so many readings it may fall */
};

/* One reading more. */
void pen_learn(struct pen_learned *l, uint64_t bytes);
/* Something that was counted has ended: PEN_LEARN_RISE readings after this are enough to fall. */
void pen_learn_fewer(struct pen_learned *l);

#endif
