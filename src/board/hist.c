/* SPDX-License-Identifier: Apache-2.0 */
#include "board/hist.h"

#define SUB_BITS 4
#define SUB (1u << SUB_BITS)
_Static_assert(PEN_HIST_BUCKETS % SUB == 0, "whole octaves");

uint32_t pen_hist_bucket(uint64_t ns)
{
	if (ns < UINT64_C(1) << PEN_HIST_SHIFT)
		return 0;
	uint32_t top = 63u - (uint32_t)__builtin_clzll(ns);
	uint32_t b = (top - PEN_HIST_SHIFT) * SUB + (uint32_t)(ns >> (top - SUB_BITS) & (SUB - 1));
	return b < PEN_HIST_BUCKETS ? b : PEN_HIST_BUCKETS - 1;
}

uint64_t pen_hist_lower_ns(uint32_t bucket)
{
	uint32_t octave = bucket / SUB, sub = bucket % SUB;
	return (uint64_t)(SUB + sub) << (octave + PEN_HIST_SHIFT - SUB_BITS);
}

void pen_hist_add(struct pen_hist *hist, uint64_t ns, uint64_t target_ns)
{
	atomic_fetch_add_explicit(&hist->bucket[pen_hist_bucket(ns)], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&hist->sum_ns, ns, memory_order_relaxed);
	atomic_fetch_add_explicit(&hist->count, 1, memory_order_relaxed);
	if (target_ns && ns > target_ns)
		atomic_fetch_add_explicit(&hist->missed, 1, memory_order_relaxed);
}

void pen_hist_take(const struct pen_hist *hist, struct pen_hist_snap *ret)
{
	ret->count = atomic_load_explicit(&hist->count, memory_order_relaxed);
	ret->sum_ns = atomic_load_explicit(&hist->sum_ns, memory_order_relaxed);
	ret->missed = atomic_load_explicit(&hist->missed, memory_order_relaxed);
	for (uint32_t i = 0; i < PEN_HIST_BUCKETS; i++)
		ret->bucket[i] = atomic_load_explicit(&hist->bucket[i], memory_order_relaxed);
}

void pen_hist_delta(const struct pen_hist_snap *now, const struct pen_hist_snap *before, struct pen_hist_snap *ret)
{
	ret->count = now->count - before->count;
	ret->sum_ns = now->sum_ns - before->sum_ns;
	ret->missed = now->missed - before->missed;
	for (uint32_t i = 0; i < PEN_HIST_BUCKETS; i++)
		ret->bucket[i] = now->bucket[i] - before->bucket[i];
}

static uint64_t add_sat(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

void pen_hist_merge(struct pen_hist_snap *sum, const struct pen_hist_snap *more)
{
	sum->count = add_sat(sum->count, more->count);
	sum->sum_ns = add_sat(sum->sum_ns, more->sum_ns);
	sum->missed = add_sat(sum->missed, more->missed);
	for (uint32_t i = 0; i < PEN_HIST_BUCKETS; i++) {
		uint64_t n = (uint64_t)sum->bucket[i] + more->bucket[i];
		sum->bucket[i] = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
	}
}

uint64_t pen_hist_samples(const struct pen_hist_snap *snap)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < PEN_HIST_BUCKETS; i++)
		n += snap->bucket[i];
	return n;
}

uint64_t pen_hist_quantile(const struct pen_hist_snap *snap, uint32_t ppm)
{
	uint64_t n = pen_hist_samples(snap);
	if (!n)
		return 0;
	if (ppm > 1000000)
		ppm = 1000000;
	/* n < 2^41 (432 buckets of 32 bits), so that the product stays below 2^61. Nearest rank: 1 .. n. */
	uint64_t rank = (n * ppm + 999999) / 1000000;
	if (!rank)
		rank = 1;
	uint64_t below = 0;
	uint32_t i = 0;
	while (below + snap->bucket[i] < rank)
		below += snap->bucket[i++];
	uint64_t lower = i ? pen_hist_lower_ns(i) : 0, width = pen_hist_lower_ns(i + 1) - lower;
	/* The k-th of m samples in a bucket is taken to lie at (k - 1/2) / m of its width; < 2^33 * 2^33. */
	uint64_t k2 = 2 * (rank - below) - 1, m2 = 2 * (uint64_t)snap->bucket[i];
	return lower + (uint64_t)((double)width * (double)k2 / (double)m2);
}
