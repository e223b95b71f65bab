/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BENCH_WORK_H
#define PEN_BENCH_WORK_H
/*
 * The API's side of a load generator: clload = load.c + clwork.c, cuload = load.c + cuwork.c.
 *
 * A request is some units; a unit is what one launch is. Every side counts its units, so that the end of a run can prove that each
 * ran exactly once, however a layer cut or held them. Options of a side are parsed by the side.
 *
 * Threads: one. All times are ns of CLOCK_MONOTONIC; device stamps are whatever clock the driver uses.
 * Errors: 0, or -1 after a line on stderr.
 */
#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORK_OPTION 1000   /* values of a side's options in work_options[].val are from here on */
#define WORK_OPTIONS_MAX 24

struct work;
struct work_config;

struct work_stamp {
	uint64_t enqueued, start, end;   /* host clock; device clock; device clock */
};

extern const char work_usage[];
extern const struct option work_options[];   /* ends with a row of zeros */

struct work_config *work_defaults(void);   /* the one configuration of this process */
bool work_option(struct work_config *c, int option, const char *arg);
bool work_makes_sense(const struct work_config *c);
unsigned work_units(const struct work_config *c);    /* of one request, where the caller does not say */
unsigned work_queues(const struct work_config *c);
bool work_has_stamps(const struct work_config *c);

/* Builds what is launched and runs it a few times. Calls the API for the first time: fork before. */
int work_open(const struct work_config *config, struct work **ret_work);
/* Unit number @k of a request, on queue @q. With @ret_mark the end of it can be waited for: to be given to work_wait(), once. */
int work_launch(struct work *w, unsigned q, unsigned k, void **ret_mark);
int work_flush(struct work *w, unsigned q);
int work_finish(struct work *w, unsigned q);
int work_wait(struct work *w, void *mark);
/* Stamps of the launches since the last call; needs finished queues. */
int work_stamps(struct work *w, const struct work_stamp **ret_stamps, size_t *ret_n);
/* Iterations that make one launch take @want_ns of device time when nothing else runs. */
int work_calibrate(struct work *w, uint64_t want_ns, unsigned *ret_iters, double *ret_ns);
/* 0 when every unit ran as often as launched and computed what it should. */
int work_verify(struct work *w);
void work_close(struct work *w);

uint64_t now_ns(void);
void sleep_until_ns(uint64_t t);
#endif
