/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Marks of requests. An open request is one word of a table: the time at which it began, which is also its number. So nothing is
 * allocated, a handle that was ended is known by its time, and an end is one compare-and-swap.
 *
 * The table lies on pages that the kernel wipes in a forked child: what was open is the parent's. A child's clock is later than
 * anything that its parent began, so an inherited handle never names a request of the child's.
 */
#include "base/clock.h"
#include "lib/lib.h"

#include <penstock/request.h>

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLOT_BITS 8
#define SLOTS (1u << SLOT_BITS)
#define CLAIMED 1
_Static_assert(SLOTS == PENSTOCK_REQUESTS_MAX, "as the header says");

struct slot {
	_Alignas(64) _Atomic uint64_t began_ns;   /* 0 free; CLAIMED: being taken */
	uint64_t last_ns;                         /* of the request before: where the clock is coarse two must not have one number */
};

struct table {
	_Atomic uint32_t process;                 /* whose it is, by getpid(); 0: wiped, or nobody's yet */
	struct slot slot[SLOTS];
};

static struct table *_Atomic the_table;
static _Atomic uint32_t not_wiped;                /* kernel before 4.14 */

static struct table *table_make(void)
{
	int saved = errno;
	struct table *none = NULL, *t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (t == MAP_FAILED) {
		errno = saved;
		return NULL;
	}
	if (madvise(t, sizeof(*t), MADV_WIPEONFORK) < 0)
		atomic_store(&not_wiped, 1);
	if (!atomic_compare_exchange_strong(&the_table, &none, t)) {
		munmap(t, sizeof(*t));
		t = none;
	}
	errno = saved;
	return t;
}

static struct table *table_adopt(struct table *t, uint32_t was)
{
	uint32_t me = (uint32_t)getpid();
	if (was == me)
		return t;
	/* A second thread that is here at the same moment may lose a request that it just began: then its end says so. */
	if (atomic_compare_exchange_strong(&t->process, &was, me) && atomic_load(&not_wiped))
		for (unsigned i = 0; i < SLOTS; i++)
			atomic_store(&t->slot[i].began_ns, 0);
	return t;
}

static struct table *table(void)
{
	struct table *t = atomic_load_explicit(&the_table, memory_order_acquire);
	if (!t)
		t = table_make();
	if (!t)
		return NULL;
	uint32_t process = atomic_load_explicit(&t->process, memory_order_relaxed);
	if (process && !atomic_load_explicit(&not_wiped, memory_order_relaxed))
		return t;
	return table_adopt(t, process);
}

/* From now on nothing is guessed in this process. Again in each begin: a library may have come, or we are a child. */
static void tell_doors(uint32_t process)
{
	const struct pen_gate_door *door;
	for (unsigned i = 0; (door = pen_door(i)); i++)
		if (atomic_load_explicit(door->marker, memory_order_relaxed) != process)
			atomic_store(door->marker, process);
}

/* Threads begin their search at different places, so that each has a line of the cache to itself. */
static unsigned first_slot(void)
{
	uint64_t here = (uintptr_t)__builtin_frame_address(0) >> 16;
	return (unsigned)(here * UINT64_C(0x9e3779b97f4a7c15) >> (64 - SLOT_BITS));
}

static int open_slot(struct table *t, uint64_t now_ns, penstock_request_t *ret_request)
{
	unsigned first = first_slot();
	for (unsigned i = 0; i < SLOTS; i++) {
		unsigned at = (first + i) % SLOTS;
		struct slot *s = &t->slot[at];
		uint64_t none = 0;
		if (atomic_load_explicit(&s->began_ns, memory_order_relaxed) ||
		    !atomic_compare_exchange_strong_explicit(&s->began_ns, &none, CLAIMED, memory_order_acquire, memory_order_relaxed))
			continue;
		uint64_t began = now_ns > s->last_ns ? now_ns : s->last_ns + 1;
		s->last_ns = began;
		atomic_store_explicit(&s->began_ns, began, memory_order_release);
		*ret_request = began << SLOT_BITS | at;
		return PENSTOCK_OK;
	}
	return PENSTOCK_ERR_TOO_MANY;
}

static int managed(void)
{
	enum pen_managed m = pen_gate_managed();
	return m == PEN_MANAGED ? PENSTOCK_OK : m == PEN_REFUSED ? PENSTOCK_ERR_REFUSED : PENSTOCK_ERR_NO_CONTRACT;
}

PEN_EXPORT int penstock_request_begin(penstock_request_t *ret_request)
{
	if (!ret_request)
		return PENSTOCK_ERR_INVALID;
	*ret_request = 0;
	int r = managed();
	if (r)
		return r;
	struct table *t = table();
	if (!t)
		return PENSTOCK_ERR_FAILED;
	uint64_t now = pen_mono_ns();
	pen_doors_look_at(now);
	tell_doors(atomic_load_explicit(&t->process, memory_order_relaxed));
	return open_slot(t, now, ret_request);
}

/* Return: when it began; 0: it is not open. */
static uint64_t close_slot(penstock_request_t request)
{
	struct table *t = request ? table() : NULL;
	uint64_t began = request >> SLOT_BITS;
	if (!t || began <= CLAIMED)
		return 0;
	struct slot *s = &t->slot[request % SLOTS];
	uint64_t is = began;
	return atomic_compare_exchange_strong_explicit(&s->began_ns, &is, 0, memory_order_acq_rel, memory_order_relaxed) ? began : 0;
}

static bool count(struct pen_gate_request *r)
{
	const struct pen_gate_door *door;
	for (int any = 0; any < 2 && !r->n; any++) {
		r->any = any;
		for (unsigned i = 0; (door = pen_door(i)); i++)
			door->request(r);
	}
	return r->n;
}

PEN_EXPORT int penstock_request_end(penstock_request_t request)
{
	int m = managed();
	if (m)
		return m;
	struct pen_gate_request r;
	r.end_ns = pen_mono_ns();
	r.start_ns = close_slot(request);
	r.n = 0;
	if (!r.start_ns)
		return PENSTOCK_ERR_NOT_OPEN;
	if (r.end_ns < r.start_ns)   /* two requests of one reading of the clock: the second has the next number */
		r.end_ns = r.start_ns;
	if (count(&r))
		return PENSTOCK_OK;
	pen_doors_look();
	return count(&r) ? PENSTOCK_OK : PENSTOCK_ERR_NO_DEVICE;
}

PEN_EXPORT int penstock_request_cancel(penstock_request_t request)
{
	int m = managed();
	return m ? m : close_slot(request) ? PENSTOCK_OK : PENSTOCK_ERR_NOT_OPEN;
}
