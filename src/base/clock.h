/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BASE_CLOCK_H
#define PEN_BASE_CLOCK_H
/*
 * The clock is an object, so that tests and the simulator need no sleep. Scheduling uses the monotonic clock only;
 * wall-clock time is for display and is never compared.
 */
#include <stdint.h>
#include <time.h>

#define PEN_US UINT64_C(1000)
#define PEN_MS UINT64_C(1000000)
#define PEN_S UINT64_C(1000000000)
#define PEN_NEVER UINT64_MAX

struct pen_clock {
	uint64_t (*now_ns)(struct pen_clock *clk);   /* monotonic, ns */
	uint64_t manual_ns;                          /* read and moved only by the manual clock */
};

/* CLOCK_MONOTONIC of this machine, the same time line in every process: board words hold it. */
static inline uint64_t pen_mono_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * PEN_S + (uint64_t)ts.tv_nsec;
}

/* The same to a tick of the kernel (1 to 10 ms), never ahead of it, at a quarter of the price: for what is only done now and then. */
static inline uint64_t pen_mono_coarse_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (uint64_t)ts.tv_sec * PEN_S + (uint64_t)ts.tv_nsec;
}

static inline uint64_t pen_clock_now(struct pen_clock *clk)
{
	return clk->now_ns(clk);
}

void pen_clock_init_mono(struct pen_clock *clk);                       /* the machine's */
void pen_clock_init_manual(struct pen_clock *clk, uint64_t start_ns);  /* stands still until moved */
void pen_clock_set(struct pen_clock *clk, uint64_t now_ns);            /* manual only; never backwards */
void pen_clock_advance(struct pen_clock *clk, uint64_t delta_ns);      /* manual only */

#endif
