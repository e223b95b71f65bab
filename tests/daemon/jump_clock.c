/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into penstockd by test_clock.py: somebody sets the wall clock. The first eight bytes of the file named by
 * PENSTOCK_CLOCK are the seconds by which it is wrong. Monotonic clocks are the kernel's, as they are when a clock is set.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static int64_t wrong_s(void)
{
	static _Atomic int64_t *_Atomic words;
	_Atomic int64_t *w = atomic_load(&words);
	if (!w) {
		const char *path = getenv("PENSTOCK_CLOCK");
		int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
		if (fd < 0)
			return 0;
		void *p = mmap(NULL, 8, PROT_READ, MAP_SHARED, fd, 0);
		close(fd);
		if (p == MAP_FAILED)
			return 0;
		w = p;
		atomic_store(&words, w);
	}
	return atomic_load(w);
}

static int real(clockid_t clock, struct timespec *ts)
{
	return (int)syscall(SYS_clock_gettime, clock, ts);
}

EXPORT int clock_gettime(clockid_t clock, struct timespec *ts)
{
	int r = real(clock, ts);
	if (r == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI))
		ts->tv_sec += wrong_s();
	return r;
}

EXPORT time_t time(time_t *ret)
{
	struct timespec ts = { 0 };
	clock_gettime(CLOCK_REALTIME, &ts);
	if (ret)
		*ret = ts.tv_sec;
	return ts.tv_sec;
}

EXPORT int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec ts = { 0 };
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &ts);
	*tv = (struct timeval){ .tv_sec = ts.tv_sec, .tv_usec = ts.tv_nsec / 1000 };
	return 0;
}
