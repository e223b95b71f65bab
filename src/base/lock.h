/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BASE_LOCK_H
#define PEN_BASE_LOCK_H
/*
 * A process-local lock and futex calls that need nothing but the kernel.
 *
 * Why not pthread: a shim built on a current system must load on glibc 2.28, where pthread_once, rwlocks and keys live
 * in libpthread under other versions; and a lock that is one word can be re-initialised after fork by storing 0.
 * Threading: any. Async-signal-safe: no. Never held across a call into a vendor library.
 */
#include <stdatomic.h>
#include <stdint.h>

struct pen_lock {
	_Atomic uint32_t word;   /* 0 free, 1 held, 2 held and somebody waits */
};

#define PEN_LOCK_INIT { 0 }

void pen_lock_slow_(struct pen_lock *l);
void pen_lock_wake_(struct pen_lock *l);

static inline void pen_lock_init(struct pen_lock *l)
{
	atomic_store_explicit(&l->word, 0, memory_order_relaxed);
}

static inline int pen_trylock(struct pen_lock *l)   /* 1 = taken */
{
	uint32_t free_word = 0;
	return atomic_compare_exchange_strong_explicit(&l->word, &free_word, 1, memory_order_acquire,
						       memory_order_relaxed);
}

static inline void pen_lock(struct pen_lock *l)
{
	if (!pen_trylock(l))
		pen_lock_slow_(l);
}

static inline void pen_unlock(struct pen_lock *l)
{
	if (atomic_exchange_explicit(&l->word, 0, memory_order_release) == 2)
		pen_lock_wake_(l);
}

/*
 * Waits while *@word == @seen, at most @timeout_ns. Works on read-only mappings of another process's page.
 * Return: 0 woken (or the word had changed); -ETIMEDOUT; -EINTR.
 */
int pen_futex_wait(const _Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ns);
/* Wakes at most @n waiters in any process that maps the page. Return: number woken. */
int pen_futex_wake(_Atomic uint32_t *word, int n);
/*
 * The same for some of the waiters only: a waiter gives @bits, a waker wakes those whose bits meet its own. Many may so
 * sleep on one word and one of them be woken. Through read-only mappings too, in both directions.
 */
int pen_futex_wait_bits(const _Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ns, uint32_t bits);
int pen_futex_wake_bits(const _Atomic uint32_t *word, int n, uint32_t bits);

#define PEN_FUTEX_ANY_MAX 16
/*
 * Waits while *@word[i] == @seen[i] for all @n of them. On kernels before 5.16 for the first alone, and no longer than a
 * millisecond: the caller looks at the others then. Return: 0 woken (or a word had changed); -ETIMEDOUT; -EINTR.
 */
int pen_futex_wait_any(const _Atomic uint32_t *const *word, const uint32_t *seen, unsigned n, uint64_t timeout_ns);

#endif
