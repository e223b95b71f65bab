/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/slots.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

/* What a handle has of a slot's word. The clock outgrows it after 2.3 years. */
static uint64_t part(uint64_t opened)
{
	return opened & (UINT64_MAX >> PEN_SLOT_BITS);
}

static struct pen_slot_table *table_make(struct pen_slots *s)
{
	int saved = errno;
	struct pen_slot_table *none = NULL, *t;
	t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (t == MAP_FAILED) {
		errno = saved;
		return NULL;
	}
	if (madvise(t, sizeof(*t), MADV_WIPEONFORK) < 0)
		atomic_store(&s->not_wiped, 1);
	if (!atomic_compare_exchange_strong(&s->table, &none, t)) {
		munmap(t, sizeof(*t));
		t = none;
	}
	errno = saved;
	return t;
}

static void table_adopt(struct pen_slots *s, struct pen_slot_table *t, uint32_t was)
{
	uint32_t me = (uint32_t)getpid();
	if (was == me)
		return;
	/*
	 * A second thread that is here at the same moment may lose what it just opened: then its end says
	 * so.
	 */
	if (atomic_compare_exchange_strong(&t->process, &was, me) && atomic_load(&s->not_wiped))
		for (unsigned i = 0; i < PEN_SLOTS; i++)
			atomic_store(&t->slot[i].word, 0);
}

struct pen_slot_table *pen_slots_table(struct pen_slots *s)
{
	struct pen_slot_table *t = atomic_load_explicit(&s->table, memory_order_acquire);
	if (!t)
		t = table_make(s);
	if (!t)
		return NULL;
	uint32_t process = atomic_load_explicit(&t->process, memory_order_relaxed);
	if (!process || atomic_load_explicit(&s->not_wiped, memory_order_relaxed))
		table_adopt(s, t, process);
	return t;
}

/* Threads begin their search at different places, so that each has a line of the cache to itself. */
static unsigned first_slot(void)
{
	uint64_t here = (uintptr_t)__builtin_frame_address(0) >> 16;
	return (unsigned)(here * UINT64_C(0x9e3779b97f4a7c15) >> (64 - PEN_SLOT_BITS));
}

struct pen_slot *pen_slot_open(struct pen_slot_table *t, uint64_t now_ns, uint64_t *ret_handle)
{
	unsigned first = first_slot();
	for (unsigned i = 0; i < PEN_SLOTS; i++) {
		unsigned at = (first + i) % PEN_SLOTS;
		struct pen_slot *s = &t->slot[at];
		uint64_t none = 0;
		if (atomic_load_explicit(&s->word, memory_order_relaxed) ||
		    !atomic_compare_exchange_strong_explicit(&s->word, &none, PEN_SLOT_HELD,
							     memory_order_acquire, memory_order_relaxed))
			continue;
		uint64_t opened = now_ns > s->last_ns ? now_ns : s->last_ns + 1;
		if (part(opened) <= PEN_SLOT_HELD)
			opened += PEN_SLOT_HELD + 1;
		s->last_ns = opened;
		atomic_store_explicit(&s->user, NULL, memory_order_relaxed);
		atomic_store_explicit(&s->word, opened, memory_order_release);
		*ret_handle = opened << PEN_SLOT_BITS | at;
		return s;
	}
	return NULL;
}

struct pen_slot *pen_slot_close(struct pen_slots *s, uint64_t handle, uint64_t *ret_opened_ns)
{
	struct pen_slot_table *t = handle ? pen_slots_table(s) : NULL;
	if (!t)
		return NULL;
	struct pen_slot *slot = &t->slot[handle % PEN_SLOTS];
	uint64_t opened = atomic_load_explicit(&slot->word, memory_order_relaxed), is = opened;
	if (opened <= PEN_SLOT_HELD || part(opened) != handle >> PEN_SLOT_BITS)
		return NULL;
	if (!atomic_compare_exchange_strong_explicit(&slot->word, &is, PEN_SLOT_HELD, memory_order_acq_rel,
						     memory_order_relaxed))
		return NULL;
	*ret_opened_ns = opened;
	return slot;
}
