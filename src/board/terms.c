/* SPDX-License-Identifier: Apache-2.0 */
#include "board/terms.h"

#include <errno.h>
#include <string.h>

#define WORDS (sizeof(struct pen_terms) / sizeof(uint64_t))
_Static_assert(sizeof(struct pen_terms) % sizeof(uint64_t) == 0, "terms are copied in words");

/*
 * Each word is stored with release and loaded with acquire instead of relaxed accesses and a fence: plain moves on x86, stlr
 * and ldar on aarch64, a few hundred once per change of terms; and the thread sanitizer understands it. What it gives: a reader
 * that saw one word of a later writing also sees the begin that preceded it, so begin != the end it read first.
 */
static void store_copy(struct pen_terms_copy *copy, const struct pen_terms *terms, uint64_t gen)
{
	const unsigned char *from = (const unsigned char *)terms;
	_Atomic uint64_t *to = (_Atomic uint64_t *)(void *)&copy->terms;
	atomic_store_explicit(&copy->begin, gen, memory_order_relaxed);
	for (size_t i = 0; i < WORDS; i++) {
		uint64_t w;
		memcpy(&w, from + i * sizeof(w), sizeof(w));
		atomic_store_explicit(&to[i], w, memory_order_release);
	}
	atomic_store_explicit(&copy->end, gen, memory_order_release);
}

/* Return: 1 it was whole. */
static int load_copy(const struct pen_terms_copy *copy, struct pen_terms *ret)
{
	unsigned char *to = (unsigned char *)ret;
	const _Atomic uint64_t *from = (const _Atomic uint64_t *)(const void *)&copy->terms;
	uint64_t end = atomic_load_explicit(&copy->end, memory_order_acquire);
	if (!end)
		return 0;
	for (size_t i = 0; i < WORDS; i++) {
		uint64_t w = atomic_load_explicit(&from[i], memory_order_acquire);
		memcpy(to + i * sizeof(w), &w, sizeof(w));
	}
	return atomic_load_explicit(&copy->begin, memory_order_relaxed) == end;
}

uint64_t pen_terms_publish(struct pen_terms_page *page, const struct pen_terms *terms)
{
	struct pen_terms next = *terms;
	next.epoch = atomic_load_explicit(&page->epoch, memory_order_relaxed) + 1;
	if (!next.epoch)
		next.epoch = 1;   /* 0 says of a copy that there is none */
	uint32_t other = (atomic_load_explicit(&page->index, memory_order_relaxed) & 1) ^ 1;
	store_copy(&page->copy[other], &next, next.epoch);
	atomic_store_explicit(&page->index, other, memory_order_release);
	/* seq_cst: who lowers a limit and then reads what is used, and who charges and then reads the epoch, must not miss each other. */
	atomic_store(&page->epoch, next.epoch);
	return next.epoch;
}

int pen_terms_read(const struct pen_terms_page *page, struct pen_terms *last_good)
{
	if (last_good->epoch && pen_terms_epoch(page) == last_good->epoch)
		return 0;
	uint32_t first = atomic_load_explicit(&page->index, memory_order_acquire) & 1;
	struct pen_terms got;
	for (uint32_t i = 0; i < 2; i++) {
		/* The copy that is not current is worth having only if it became current while the other was read. */
		if (!load_copy(&page->copy[first ^ i], &got) || (i && got.epoch < last_good->epoch))
			continue;
		if (got.epoch == last_good->epoch)
			return 0;
		*last_good = got;
		return 1;
	}
	return -EAGAIN;
}
