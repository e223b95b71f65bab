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

/* As linux/futex.h has them since 5.16. */
struct waitv { uint64_t val, uaddr; uint32_t flags, reserved; };
#define WAITV_CALL 449   /* on all architectures */
#define WAITV_32 2
#define OLD_KERNEL_NS UINT64_C(1000000)

int pen_futex_wait_any(const _Atomic uint32_t *const *word, const uint32_t *seen, unsigned n, uint64_t timeout_ns)
{
	static _Atomic uint32_t absent;
	struct waitv v[PEN_FUTEX_ANY_MAX] = { { 0 } };
	if (n == 1)
		return pen_futex_wait(word[0], seen[0], timeout_ns);
	n = n < PEN_FUTEX_ANY_MAX ? n : PEN_FUTEX_ANY_MAX;
	for (unsigned i = 0; i < n; i++)
		v[i] = (struct waitv){ .val = seen[i], .uaddr = (uintptr_t)word[i], .flags = WAITV_32 };
	if (!atomic_load_explicit(&absent, memory_order_relaxed)) {
		int saved = errno;
		uint64_t now = pen_mono_ns();
		uint64_t end = timeout_ns > (uint64_t)INT64_MAX - now ? (uint64_t)INT64_MAX : now + timeout_ns;
		struct timespec ts = { .tv_sec = (time_t)(end / PEN_S), .tv_nsec = (long)(end % PEN_S) };
		long r = syscall(WAITV_CALL, v, n, 0, &ts, CLOCK_MONOTONIC);
		int code = r >= 0 || errno == EAGAIN ? 0 : -errno;
		errno = saved;
		if (code == 0 || code == -ETIMEDOUT || code == -EINTR)
			return code;
		atomic_store_explicit(&absent, 1, memory_order_relaxed);   /* or forbidden, as in some containers */
	}
	for (unsigned i = 1; i < n; i++)
		if (atomic_load(word[i]) != seen[i])
			return 0;
	return pen_futex_wait(word[0], seen[0], timeout_ns < OLD_KERNEL_NS ? timeout_ns : OLD_KERNEL_NS);
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
