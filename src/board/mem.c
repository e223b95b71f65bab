/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory order, once for the file. A step publishes with release and a reader takes with acquire, so that whoever sees the
 * effect of a step also sees the begun++ before it, and whoever sees a done++ sees the effects before that. Read-modify-
 * writes keep a release sequence going, so this holds across the threads of a client. Nothing needs a total order.
 */
#include "board/mem.h"
#include "board/testpoint.h"

#include <errno.h>
#include <string.h>

/* Attempts of one call to find a moment of rest. A step lasts tens of ns, the vendor's call between two steps microseconds. */
#define SQUARE_TRIES 64

static uint64_t load(const _Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_acquire);
}

static void add(_Atomic uint64_t *word, uint64_t n)
{
	atomic_fetch_add_explicit(word, n, memory_order_acq_rel);
}

/* @word -= min(@n, @word). Return: what was taken. */
static uint64_t take(_Atomic uint64_t *word, uint64_t n)
{
	uint64_t seen = load(word), part;
	do {
		part = n < seen ? n : seen;
	} while (part && !atomic_compare_exchange_weak_explicit(word, &seen, seen - part, memory_order_acq_rel,
								memory_order_acquire));
	return part;
}

static void raise_to(_Atomic uint64_t *peak, uint64_t value)
{
	uint64_t seen = atomic_load_explicit(peak, memory_order_relaxed);
	while (seen < value && !atomic_compare_exchange_weak_explicit(peak, &seen, value, memory_order_relaxed,
								      memory_order_relaxed))
		;
}

static int fits(uint64_t used, uint64_t bytes, uint64_t cap_bytes, unsigned flags)
{
	/* Forced or unlimited, the sum must still not wrap. */
	uint64_t cap = flags & PEN_MEM_FORCE ? UINT64_MAX : cap_bytes;
	return used <= cap && bytes <= cap - used;
}

static int deny(struct pen_ledger_page *ledger, struct pen_ledger_client *c, uint64_t used, uint64_t bytes, unsigned flags)
{
	if (!(flags & PEN_MEM_QUIET)) {
		raise_to(&ledger->denied_bytes, bytes < UINT64_MAX - used ? used + bytes : UINT64_MAX);
		atomic_fetch_add_explicit(&c->denials, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&ledger->denials, 1, memory_order_relaxed);
	}
	return -ENOMEM;
}

int pen_mem_charge(struct pen_ledger_page *ledger, uint32_t client, uint64_t bytes, uint64_t cap_bytes, unsigned flags)
{
	if (client >= PEN_LEDGER_CLIENTS)
		return -EINVAL;
	if (!bytes)
		return 0;
	struct pen_ledger_client *c = &ledger->client[client];
	uint64_t used = load(&ledger->mem_used_bytes);
	/* A sure denial takes no step: a client that tries again and again must not keep the daemon from squaring. */
	if (((flags & PEN_MEM_STOPPED) && !(flags & PEN_MEM_FORCE)) || !fits(used, bytes, cap_bytes, flags))
		return deny(ledger, c, used, bytes, flags);

	PEN_TEST_POINT("charge:start");
	add(&c->begun, 1);
	PEN_TEST_POINT("charge:begun");
	do {
		if (!fits(used, bytes, cap_bytes, flags)) {
			add(&c->done, 1);
			return deny(ledger, c, used, bytes, flags);
		}
		/* seq_cst: the other side of a lowered limit, see terms.c. */
	} while (!atomic_compare_exchange_weak_explicit(&ledger->mem_used_bytes, &used, used + bytes, memory_order_seq_cst,
							memory_order_acquire));
	PEN_TEST_POINT("charge:used");
	uint64_t charged = atomic_fetch_add_explicit(&c->charged_bytes, bytes, memory_order_acq_rel) + bytes;
	PEN_TEST_POINT("charge:charged");
	add(&c->done, 1);
	PEN_TEST_POINT("charge:done");
	raise_to(&c->peak_bytes, charged);
	raise_to(&ledger->mem_peak_bytes, used + bytes);
	return 0;
}

uint64_t pen_mem_uncharge(struct pen_ledger_page *ledger, uint32_t client, uint64_t bytes)
{
	if (client >= PEN_LEDGER_CLIENTS || !bytes)
		return 0;
	struct pen_ledger_client *c = &ledger->client[client];
	PEN_TEST_POINT("release:start");
	add(&c->begun, 1);
	PEN_TEST_POINT("release:begun");
	uint64_t part = take(&c->charged_bytes, bytes);
	PEN_TEST_POINT("release:charged");
	part = take(&ledger->mem_used_bytes, part);
	PEN_TEST_POINT("release:used");
	add(&c->done, 1);
	PEN_TEST_POINT("release:done");
	return part;
}

void pen_mem_read(const struct pen_ledger_page *ledger, struct pen_mem_sum *ret)
{
	ret->used_bytes = load(&ledger->mem_used_bytes);
	ret->peak_bytes = load(&ledger->mem_peak_bytes);
	ret->denials = load(&ledger->denials);
}

/* ---- the daemon's side ------------------------------------------------------------------------------------------ */

int pen_ledger_claim(struct pen_ledger_page *ledger, uint32_t seat, uint32_t generation)
{
	for (uint32_t i = 0; i < PEN_LEDGER_CLIENTS; i++) {
		struct pen_ledger_client *c = &ledger->client[i];
		if (load(&c->tag))
			continue;
		/* Nobody else writes here, but a dead client's words, and a hostile tenant's, are in it. */
		pen_ledger_drop(ledger, i);
		_Atomic uint64_t *words = (_Atomic uint64_t *)(void *)c;
		for (size_t w = 0; w < sizeof(*c) / sizeof(*words); w++)
			atomic_store_explicit(&words[w], 0, memory_order_relaxed);
		atomic_store_explicit(&c->hold_seat, PEN_SEAT_NONE, memory_order_relaxed);
		atomic_store_explicit(&c->tag, (uint64_t)seat << 32 | generation, memory_order_release);
		return (int)i;
	}
	return -ENOSPC;
}

uint64_t pen_ledger_drop(struct pen_ledger_page *ledger, uint32_t client)
{
	if (client >= PEN_LEDGER_CLIENTS)
		return 0;
	struct pen_ledger_client *c = &ledger->client[client];
	/* Taken once: whoever finds the words later finds 0. used >= charged held when it died, so all of it is in used. */
	uint64_t held = atomic_exchange_explicit(&c->charged_bytes, 0, memory_order_acq_rel);
	PEN_TEST_POINT("drop:charged");
	uint64_t freed = take(&ledger->mem_used_bytes, held);
	PEN_TEST_POINT("drop:used");
	atomic_store_explicit(&c->objects, 0, memory_order_relaxed);
	atomic_store_explicit(&c->hold_reason, 0, memory_order_relaxed);
	atomic_store_explicit(&c->tag, 0, memory_order_release);
	return freed;
}

/*
 * One look. done is read first and begun last: done <= begun always, so begun (later) == done (earlier) says that no step
 * was open from the first read to the last, and what was read in between is one state.
 * Return: 1 and the two sums; 0 somebody was between two steps; -EUCLEAN.
 */
static int look(const struct pen_ledger_page *ledger, pen_ledger_set live, uint64_t *ret_used, uint64_t *ret_charged)
{
	uint64_t done[PEN_LEDGER_CLIENTS], sum = 0;
	for (uint32_t i = 0; i < PEN_LEDGER_CLIENTS; i++)
		if (live & PEN_LEDGER_BIT(i))
			done[i] = load(&ledger->client[i].done);
	uint64_t used = load(&ledger->mem_used_bytes);
	for (uint32_t i = 0; i < PEN_LEDGER_CLIENTS; i++) {
		if (!(live & PEN_LEDGER_BIT(i)))
			continue;
		uint64_t n = load(&ledger->client[i].charged_bytes);
		if (n > UINT64_MAX - sum)
			return -EUCLEAN;
		sum += n;
	}
	for (uint32_t i = 0; i < PEN_LEDGER_CLIENTS; i++)
		if ((live & PEN_LEDGER_BIT(i)) && load(&ledger->client[i].begun) != done[i])
			return 0;
	*ret_used = used;
	*ret_charged = sum;
	return 1;
}

int pen_mem_square(struct pen_ledger_page *ledger, pen_ledger_set live, uint64_t *ret_freed_bytes)
{
	uint64_t freed = 0, used = 0, charged = 0;
	for (uint32_t i = 0; i < PEN_LEDGER_CLIENTS; i++)
		if (!(live & PEN_LEDGER_BIT(i)) && (load(&ledger->client[i].tag) || load(&ledger->client[i].charged_bytes)))
			freed += pen_ledger_drop(ledger, i);
	int r = 0;
	for (int tries = 0; !r && tries < SQUARE_TRIES; tries++)
		r = look(ledger, live, &used, &charged);
	if (r > 0) {
		/* A difference, not a value: charges and releases since the look move used and charged alike. */
		if (used > charged)
			freed += take(&ledger->mem_used_bytes, used - charged);
		else if (used < charged)
			add(&ledger->mem_used_bytes, charged - used);
	}
	if (r >= 0 && ret_freed_bytes)
		*ret_freed_bytes = freed;
	return r > 0 ? 0 : r == 0 ? -EAGAIN : r;
}
