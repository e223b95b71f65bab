/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks which a fork does not leave shut: a child may give objects back at its end, whatever other threads of
 * its parent were doing. The word holds the process that has the lock; a holder that is not this process is not here.
 *
 * Why not pen_lock and setting all to 0 in the child: with two threads in the child, one may hold such a lock by then.
 */
#include "board/forklock.h"

#include "base/lock.h"
#include "board/feature.h"

#include <errno.h>

#define WAITERS UINT32_C(0x80000000)

static struct pen_fork_flag process;

void pen_forklock_setup(void)
{
	if (!process.word && pen_fork_flag_create(&process) == 0)
		pen_fork_flag_set(&process);
}

/* As getpid(), without a system call; the same for a vfork child and its parent, who share the locks. */
uint32_t pen_forklock_process(void)
{
	if (!process.word)
		return 1;
	if (!pen_fork_flag_is_set(&process))
		pen_fork_flag_set(&process);
	return atomic_load_explicit(process.word, memory_order_relaxed);
}

void pen_forklock_take(struct pen_forklock *l)
{
	uint32_t me = pen_forklock_process(), was = 0;
	if (atomic_compare_exchange_strong_explicit(&l->word, &was, me, memory_order_acquire, memory_order_relaxed))
		return;
	for (;;) {
		if ((was & ~WAITERS) != me) {   /* free, or left shut by a fork */
			/* Whoever slept cannot know whether others do. */
			if (atomic_compare_exchange_weak_explicit(&l->word, &was, me | WAITERS, memory_order_acquire,
								  memory_order_relaxed))
				return;
			continue;
		}
		if (!(was & WAITERS) && !atomic_compare_exchange_weak_explicit(&l->word, &was, was | WAITERS,
									       memory_order_relaxed, memory_order_relaxed))
			continue;
		pen_futex_wait(&l->word, me | WAITERS, UINT64_C(1000000000));
		was = atomic_load_explicit(&l->word, memory_order_relaxed);
	}
}

void pen_forklock_give(struct pen_forklock *l)
{
	if (atomic_exchange_explicit(&l->word, 0, memory_order_release) & WAITERS)
		pen_futex_wake(&l->word, 1);
}
