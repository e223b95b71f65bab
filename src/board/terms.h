/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BOARD_TERMS_H
#define PEN_BOARD_TERMS_H
/*
 * Writing and reading a tenant's terms. The daemon writes; the tenant's clients read, from any thread, and never wait:
 * there are two copies, and a reader that finds both of them half-written goes on with what it read last.
 *
 * Values are copied as they are. Bounds, contradictions and indices are the reader's to check.
 */
#include "board/layout.h"

/*
 * pen_terms_publish - make @terms the tenant's terms
 * @terms: epoch is ignored
 *
 * Order: the copy that is not current (begin, words, end), index, and the hot epoch last. One writer at a time. Killed
 * at any point, readers find the old terms or the new ones whole. Not called more often than once a microsecond on
 * average, so that a page made later starts above. Return: the new epoch.
 */
uint64_t pen_terms_publish(struct pen_terms_page *page, const struct pen_terms *terms);

/*
 * pen_terms_read - bring @last_good up to date
 * @last_good: zeroed at first; the caller sees to it that one thread at a time is here with it
 *
 * Return: 1 new terms were copied; 0 nothing new; -EAGAIN nothing whole was found (nothing published yet, or both copies
 * were overtaken while read): @last_good is as it was, try again at the next occasion.
 */
int pen_terms_read(const struct pen_terms_page *page, struct pen_terms *last_good);

/* The hot word: differs from last_good->epoch when there is something to read. */
static inline uint64_t pen_terms_epoch(const struct pen_terms_page *page)
{
	return atomic_load_explicit(&page->epoch, memory_order_acquire);
}

#endif
