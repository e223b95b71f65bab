/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_LIB_SLOTS_H
#define PEN_LIB_SLOTS_H
/*
 * Handles: a table of what is open in this process. A slot's word is the time at which it was opened, and
 * its low bits with its place the handle: so nothing is allocated, a handle that was closed is known by its
 * time, and opening and closing are one compare-and-swap each.
 *
 * The table lies on pages that the kernel wipes in a forked child: what was open is the parent's. A child's
 * clock is later than anything that its parent opened, so an inherited handle never names something of the
 * child's.
 *
 * Threads: any. No lock, no system call but for a process's first. A table is static and never freed.
 */
#include <stdatomic.h>
#include <stdint.h>

#define PEN_SLOT_BITS 8
#define PEN_SLOTS (1u << PEN_SLOT_BITS)

struct pen_slot {
	_Alignas(64) _Atomic uint64_t word;   /* 0 free; PEN_SLOT_HELD; else when it was opened */
	uint64_t last_ns;                     /* the one before: two of a coarse clock must not have one number */
	void *_Atomic user;                   /* of whoever opened it */
};
#define PEN_SLOT_HELD UINT64_C(1)             /* being opened, or closed and not free yet */

struct pen_slot_table {
	_Atomic uint32_t process;             /* whose it is, by getpid(); 0: wiped, or nobody's yet */
	struct pen_slot slot[PEN_SLOTS];
};

struct pen_slots {
	struct pen_slot_table *_Atomic table;
	_Atomic uint32_t not_wiped;           /* kernel before 4.14 */
};

/* Of this process. Return: NULL: no memory. */
struct pen_slot_table *pen_slots_table(struct pen_slots *s);
/* Whose the table is, by getpid(). After pen_slots_table(). */
static inline uint32_t pen_slots_process(struct pen_slots *s)
{
	return atomic_load_explicit(&atomic_load_explicit(&s->table, memory_order_relaxed)->process, memory_order_relaxed);
}

/* Return: the slot, and its handle, not 0; NULL: none is free. */
struct pen_slot *pen_slot_open(struct pen_slot_table *t, uint64_t now_ns, uint64_t *ret_handle);
/*
 * Ends what a handle names; the slot is then held, until pen_slot_free(). Return: the slot, and when it was
 * opened; NULL: not open.
 */
struct pen_slot *pen_slot_close(struct pen_slots *s, uint64_t handle, uint64_t *ret_opened_ns);

static inline void pen_slot_free(struct pen_slot *slot)
{
	atomic_store_explicit(&slot->word, 0, memory_order_release);
}

#endif
