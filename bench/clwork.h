/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BENCH_CLWORK_H
#define PEN_BENCH_CLWORK_H
/*
 * The OpenCL side of the load generator: one device, a few queues, one kernel whose work is fixed by its iteration count.
 *
 * The kernel is a chain of float multiply-adds. Each launch also adds one to a counter per work-item, so that the end of a run can
 * prove that every work-item of every launch ran exactly once, however a layer cut the launches.
 *
 * Threads: one. All times are ns of CLOCK_MONOTONIC; device stamps are whatever clock the driver uses.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct work_config {
	size_t groups, local; /* global size = groups * local */
	unsigned iters;
	unsigned queues;
	unsigned units; /* compute units to use; 0: the whole device */
	bool uncuttable; /* the kernel asks for its group id, which a cut launch would see changed */
	bool events; /* keep device stamps of every launch */
	uint64_t memory_bytes; /* extra buffer */
};

struct work_stamp {
	uint64_t enqueued, start, end; /* host clock; device clock; device clock */
};

struct work;

/* Builds the kernel and runs it five times. Return: 0, or -1 after a line on stderr. */
int work_open(const struct work_config *config, struct work **ret_work);
/* One launch on queue @q. With @ret_mark the launch's event is returned, to be given to work_wait(). */
int work_launch(struct work *w, unsigned q, void **ret_mark);
int work_flush(struct work *w, unsigned q);
int work_finish(struct work *w, unsigned q);
int work_wait(struct work *w, void *mark);
/* Stamps of the launches since the last call; needs config.events and finished queues. */
int work_stamps(struct work *w, const struct work_stamp **ret_stamps, size_t *ret_n);
/* Iterations that make one launch take @want_ns of device time when nothing else runs. */
int work_calibrate(struct work *w, uint64_t want_ns, unsigned *ret_iters, double *ret_ns);
/* Reads the counters back. Return: 0 when every work-item ran as often as launched. */
int work_verify(struct work *w);
void work_close(struct work *w);

uint64_t now_ns(void);
void sleep_until_ns(uint64_t t);
#endif
