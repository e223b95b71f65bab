/* SPDX-License-Identifier: Apache-2.0 */
#include "base/lock.h"
#include "base/clock.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

static long futex(const void *word, int op, uint32_t val, const struct timespec *timeout)
{
	return syscall(SYS_futex, word, op, val, timeout, NULL, 0);
}

int pen_futex_wait(const _Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ns)
{
	struct timespec ts = { .tv_sec = (time_t)(timeout_ns / PEN_S), .tv_nsec = (long)(timeout_ns % PEN_S) };
	int saved = errno;
	int r = 0;
	/* Shared, not FUTEX_PRIVATE: board words are waited on across processes. */
	if (futex(word, FUTEX_WAIT, seen, &ts) < 0 && errno != EAGAIN)
		r = -errno;
	errno = saved;
	return r;
}

int pen_futex_wake(_Atomic uint32_t *word, int n)
{
	int saved = errno;
	long r = futex(word, FUTEX_WAKE, (uint32_t)n, NULL);
	errno = saved;
	return r < 0 ? 0 : (int)r;
}

int pen_futex_wait_bits(const _Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ns, uint32_t bits)
{
	int saved = errno;
	int r = 0;
	/* Unlike FUTEX_WAIT's, this timeout is a point in time of CLOCK_MONOTONIC. */
	uint64_t now = pen_mono_ns();
	uint64_t end = timeout_ns > (uint64_t)INT64_MAX - now ? (uint64_t)INT64_MAX : now + timeout_ns;
	struct timespec ts = { .tv_sec = (time_t)(end / PEN_S), .tv_nsec = (long)(end % PEN_S) };
	if (syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen, &ts, NULL, bits) < 0 && errno != EAGAIN)
		r = -errno;
	errno = saved;
	return r;
}

int pen_futex_wake_bits(const _Atomic uint32_t *word, int n, uint32_t bits)
{
	int saved = errno;
	long r = syscall(SYS_futex, word, FUTEX_WAKE_BITSET, (uint32_t)n, NULL, NULL, bits);
	errno = saved;
	return r < 0 ? 0 : (int)r;
}

void pen_lock_slow_(struct pen_lock *l)
{
	int saved = errno;
	while (atomic_exchange_explicit(&l->word, 2, memory_order_acquire) != 0)
		futex(&l->word, FUTEX_WAIT_PRIVATE, 2, NULL);
	errno = saved;
}

void pen_lock_wake_(struct pen_lock *l)
{
	int saved = errno;
	futex(&l->word, FUTEX_WAKE_PRIVATE, 1, NULL);
	errno = saved;
}
