/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BOARD_FORKLOCK_H
#define PEN_BOARD_FORKLOCK_H
/*
 * A shim's locks, which a fork does not leave shut: a child may give objects back at its end, whatever other threads of its
 * parent were doing. The word holds the process that has the lock; a holder that is not this process is not here.
 *
 * Threads: any. Never held across a call into a vendor library. Library: base, board/feature.h.
 */
#include <stdatomic.h>
#include <stdint.h>

struct pen_forklock {
	_Atomic uint32_t word;   /* 0 free; else the process that holds it, and a bit if somebody waits */
};

#define PEN_FORKLOCK_INIT { 0 }

void pen_forklock_setup(void);        /* once, before there are threads; without it every process is number 1 */
uint32_t pen_forklock_process(void);  /* number of this process; another one in a forked child */
void pen_forklock_take(struct pen_forklock *l);
void pen_forklock_give(struct pen_forklock *l);

#endif
