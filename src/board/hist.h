/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BOARD_HIST_H
#define PEN_BOARD_HIST_H
/*
 * Logarithmic histograms of response times (layout.h: struct pen_hist). Clients add; the daemon takes snapshots, forms
 * differences between them and asks for quantiles. A quantile is exact to the width of a bucket: 6.25 %.
 *
 * Threads: pen_hist_add from any thread of any client. Snapshots are not a single instant: a value may be in a bucket
 * and not yet in the count, which is why quantiles count the buckets.
 */
#include "board/layout.h"

#include <stdint.h>

#define PEN_HIST_SHIFT 10   /* the first octave begins at 2^10 ns; smaller values count in the first bucket */

struct pen_hist_snap {
	uint64_t count, sum_ns, missed;
	uint32_t bucket[PEN_HIST_BUCKETS];
};

uint32_t pen_hist_bucket(uint64_t ns);         /* 0 .. PEN_HIST_BUCKETS-1; values beyond the last in the last */
uint64_t pen_hist_lower_ns(uint32_t bucket);   /* smallest value of a bucket; of PEN_HIST_BUCKETS: end of the range */

/* Adds one value; @target_ns 0 = none. Three or four relaxed additions. */
void pen_hist_add(struct pen_hist *hist, uint64_t ns, uint64_t target_ns);
void pen_hist_take(const struct pen_hist *hist, struct pen_hist_snap *ret);
/* @ret = @now - @before: what came in between. Right across a wrap of a bucket's 32 bits. @ret may be @now or @before. */
void pen_hist_delta(const struct pen_hist_snap *now, const struct pen_hist_snap *before, struct pen_hist_snap *ret);
/* @sum += @more, saturating: several devices or windows. */
void pen_hist_merge(struct pen_hist_snap *sum, const struct pen_hist_snap *more);
/*
 * Value (ns) below or at which @ppm millionths of the samples lie: 500000 = P50, 990000 = P99; interpolated within the
 * bucket. 0 when there are no samples. Any content is fine: a tenant may have written nonsense.
 */
uint64_t pen_hist_quantile(const struct pen_hist_snap *snap, uint32_t ppm);
uint64_t pen_hist_samples(const struct pen_hist_snap *snap);   /* sum of the buckets */

#endif
