/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handle -> record. Looked up on every launch, changed when objects come and go.
 *
 * Why not a locked hash table: a lock is 15-20 ns, the whole budget of a launch. Open addressing; readers take no lock and
 * write nothing, writers exclude each other. A table that is too full is replaced by one twice as large and the old one is
 * kept, because a reader may still be in it: all old tables together are smaller than the current one.
 * A reader that looks for a handle that another thread is just releasing may get either answer. The application must not
 * do that; but it may wait for an event whose queue is being released, and so look up a queue that is not its own. Such a
 * reader says when he is inside, and who has removed a record waits for those that were. Two counters, used in turn, so
 * that readers that come later are not waited for.
 */
#include "board/map.h"

#include "base/lock.h"

#include <errno.h>
#include <stdlib.h>

struct slot {
	_Atomic uintptr_t key;   /* 0 never used, 1 was used, else a handle */
	void *_Atomic value;
};

/* Maps that this thread is inside of: it must not wait for itself. */
static _Thread_local uint32_t reading __attribute__((tls_model("initial-exec")));

struct pen_map_table {
	uint32_t mask;
	uint32_t used;           /* slots with key != 0, under the lock */
	struct slot slot[];
};

#define FIRST_SLOTS 64u
#define GONE ((uintptr_t)1)
#define WAIT_STEP_NS UINT64_C(50000)
#define WAIT_STEPS 20000   /* a second */

static inline uint32_t place(uintptr_t key)
{
	/* Handles are aligned to 16 and more: the low bits say nothing. */
	return (uint32_t)(((uint64_t)(key >> 4) * UINT64_C(0x9e3779b97f4a7c15)) >> 32);
}

void *pen_map_find(struct pen_map *m, const void *key)
{
	struct pen_map_table *t = atomic_load_explicit(&m->table, memory_order_acquire);
	if (!t)
		return NULL;
	for (uint32_t i = place((uintptr_t)key);; i++) {
		struct slot *s = &t->slot[i & t->mask];
		uintptr_t k = atomic_load_explicit(&s->key, memory_order_acquire);
		if (!k)   /* before the comparison: a NULL handle is nowhere */
			return NULL;
		if (k == (uintptr_t)key)
			return atomic_load_explicit(&s->value, memory_order_acquire);
	}
}

static struct pen_map_table *new_table(uint32_t slots)
{
	struct pen_map_table *t = calloc(1, sizeof(*t) + slots * sizeof(struct slot));
	if (t)
		t->mask = slots - 1;
	return t;
}

/* Into a table that has room; the key is not there. */
static void insert(struct pen_map_table *t, uintptr_t key, void *value)
{
	for (uint32_t i = place(key);; i++) {
		struct slot *s = &t->slot[i & t->mask];
		uintptr_t k = atomic_load_explicit(&s->key, memory_order_relaxed);
		if (k > GONE)
			continue;
		if (!k)
			t->used++;
		atomic_store_explicit(&s->value, value, memory_order_release);
		atomic_store_explicit(&s->key, key, memory_order_release);
		return;
	}
}

static struct slot *find_slot(struct pen_map_table *t, uintptr_t key)
{
	for (uint32_t i = place(key);; i++) {
		struct slot *s = &t->slot[i & t->mask];
		uintptr_t k = atomic_load_explicit(&s->key, memory_order_relaxed);
		if (!k)
			return NULL;
		if (k == key)
			return s;
	}
}

/* A table with room for one more, under the lock. */
static struct pen_map_table *roomy(struct pen_map *m)
{
	struct pen_map_table *t = atomic_load_explicit(&m->table, memory_order_relaxed);
	if (t && t->used < (t->mask + 1) / 2)
		return t;
	uint32_t slots = t ? (t->mask + 1) * 2 : FIRST_SLOTS;
	struct pen_map_table *n = new_table(slots);
	if (!n)
		return NULL;
	for (uint32_t i = 0; t && i <= t->mask; i++) {
		uintptr_t k = atomic_load_explicit(&t->slot[i].key, memory_order_relaxed);
		if (k > GONE)
			insert(n, k, atomic_load_explicit(&t->slot[i].value, memory_order_relaxed));
	}
	atomic_store_explicit(&m->table, n, memory_order_release);
	return n;
}

/*
 * A slot that is followed by an empty one can be empty itself, and so can the tombstones before it: what stays are only
 * those inside a run of live keys, so that churn at a constant number of objects never makes the table grow.
 */
static void drop(struct pen_map_table *t, uint32_t at)
{
	uint32_t after = (at + 1) & t->mask;
	atomic_store_explicit(&t->slot[at].key, GONE, memory_order_release);
	if (atomic_load_explicit(&t->slot[after].key, memory_order_relaxed))
		return;
	while (atomic_load_explicit(&t->slot[at].key, memory_order_relaxed) == GONE) {
		atomic_store_explicit(&t->slot[at].key, 0, memory_order_release);
		t->used--;
		at = (at - 1) & t->mask;
	}
}

uint32_t pen_map_enter(struct pen_map *m)
{
	reading++;
	for (;;) {
		uint32_t phase = atomic_load(&m->phase);
		atomic_fetch_add(&m->readers[phase & 1], 1);
		if (atomic_load(&m->phase) == phase)
			return phase & 1;
		atomic_fetch_sub(&m->readers[phase & 1], 1);
	}
}

void pen_map_leave(struct pen_map *m, uint32_t entered)
{
	reading--;
	atomic_fetch_sub(&m->readers[entered], 1);
}

/* Under the lock, so that each phase is empty before it comes again. The parent's readers will not leave in a forked child. */
static void wait_readers(struct pen_map *m)
{
	if (m->process != pen_forklock_process()) {
		if (m->process)
			m->readers[0] = m->readers[1] = 0;
		m->process = pen_forklock_process();
	}
	_Atomic uint32_t *readers = &m->readers[atomic_fetch_add(&m->phase, 1) & 1];
	uint32_t n;
	for (int i = 0; i < WAIT_STEPS && !reading && (n = atomic_load(readers)) != 0; i++)
		pen_futex_wait(readers, n, WAIT_STEP_NS);
}

static int put(struct pen_map *m, const void *key, void *value, void **ret_old)
{
	pen_forklock_take(&m->lock);
	struct pen_map_table *t = atomic_load_explicit(&m->table, memory_order_relaxed);
	struct slot *s = t ? find_slot(t, (uintptr_t)key) : NULL;
	if (s) {
		void *old = atomic_exchange_explicit(&s->value, value, memory_order_acq_rel);
		if (ret_old) {
			wait_readers(m);
			*ret_old = old;
		}
		pen_forklock_give(&m->lock);
		return 0;
	}
	t = roomy(m);
	if (t) {
		insert(t, (uintptr_t)key, value);
		atomic_fetch_add_explicit(&m->live, 1, memory_order_relaxed);
	}
	pen_forklock_give(&m->lock);
	return t ? 0 : -ENOMEM;
}

int pen_map_put(struct pen_map *m, const void *key, void *value)
{
	return put(m, key, value, NULL);
}

int pen_map_swap(struct pen_map *m, const void *key, void *value, void **ret_old)
{
	*ret_old = NULL;
	return put(m, key, value, ret_old);
}

void *pen_map_take(struct pen_map *m, const void *key)
{
	if (pen_map_empty(m))
		return NULL;
	pen_forklock_take(&m->lock);
	struct pen_map_table *t = atomic_load_explicit(&m->table, memory_order_relaxed);
	struct slot *s = t ? find_slot(t, (uintptr_t)key) : NULL;
	void *value = NULL;
	if (s) {
		value = atomic_load_explicit(&s->value, memory_order_relaxed);
		drop(t, (uint32_t)(s - t->slot));
		atomic_fetch_sub_explicit(&m->live, 1, memory_order_relaxed);
		wait_readers(m);
	}
	pen_forklock_give(&m->lock);
	return value;
}

size_t pen_map_take_some(struct pen_map *m, bool (*match)(const void *value, void *arg), void *arg, void **v, size_t room)
{
	size_t n = 0;
	if (pen_map_empty(m))
		return 0;
	pen_forklock_take(&m->lock);
	struct pen_map_table *t = atomic_load_explicit(&m->table, memory_order_relaxed);
	for (uint32_t i = 0; t && i <= t->mask && n < room; i++) {
		void *value = atomic_load_explicit(&t->slot[i].value, memory_order_relaxed);
		if (atomic_load_explicit(&t->slot[i].key, memory_order_relaxed) <= GONE || !match(value, arg))
			continue;
		drop(t, i);
		v[n++] = value;
	}
	atomic_fetch_sub_explicit(&m->live, (uint32_t)n, memory_order_relaxed);
	if (n)
		wait_readers(m);
	pen_forklock_give(&m->lock);
	return n;
}

void pen_map_free_all(struct pen_map *m, bool (*match)(const void *value, void *arg), void *arg)
{
	enum { SOME = 32 };
	void *some[SOME];
	size_t n;
	do {
		n = pen_map_take_some(m, match, arg, some, SOME);
		for (size_t i = 0; i < n; i++)
			free(some[i]);
	} while (n == SOME);
}
