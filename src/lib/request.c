/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Marks of requests: a handle is open in between, and at its end the gates enter the time in their ledgers.
 */
#include "base/clock.h"
#include "lib/lib.h"
#include "lib/slots.h"

#include <penstock/request.h>

_Static_assert(PEN_SLOTS == PENSTOCK_REQUESTS_MAX, "as the header says");

static struct pen_slots requests;

/*
 * From now on nothing is guessed in this process. Again in each begin: a library may have come, or we are a
 * child.
 */
static void tell_doors(uint32_t process)
{
	const struct pen_gate_door *door;
	for (unsigned i = 0; (door = pen_door(i)); i++)
		if (atomic_load_explicit(door->marker, memory_order_relaxed) != process)
			atomic_store(door->marker, process);
}

PEN_EXPORT int penstock_request_begin(penstock_request_t *ret_request)
{
	if (!ret_request)
		return PENSTOCK_ERR_INVALID;
	*ret_request = 0;
	int r = pen_lib_managed();
	if (r)
		return r;
	struct pen_slot_table *t = pen_slots_table(&requests);
	if (!t)
		return PENSTOCK_ERR_FAILED;
	uint64_t now = pen_mono_ns();
	pen_doors_look_at(now);
	tell_doors(pen_slots_process(&requests));
	return pen_slot_open(t, now, ret_request) ? PENSTOCK_OK : PENSTOCK_ERR_TOO_MANY;
}

static bool count(struct pen_gate_request *r, bool any)
{
	const struct pen_gate_door *door;
	r->any = any;
	for (unsigned i = 0; (door = pen_door(i)); i++)
		door->request(r);
	return r->n;
}

PEN_EXPORT int penstock_request_end(penstock_request_t request)
{
	int m = pen_lib_managed();
	if (m)
		return m;
	struct pen_gate_request r; /* its list of ledgers is only ever read as far as it was written */
	r.end_ns = pen_mono_ns();
	r.n = 0;
	struct pen_slot *s = pen_slot_close(&requests, request, &r.start_ns);
	if (!s)
		return PENSTOCK_ERR_NOT_OPEN;
	pen_slot_free(s);
	/* Two requests of one reading of the clock: the second has the next number. */
	if (r.end_ns < r.start_ns)
		r.end_ns = r.start_ns;
	if (count(&r, false))
		return PENSTOCK_OK;
	/* It gave no work to any device, or to one through a library that came since the last look. */
	pen_doors_look();
	tell_doors(pen_slots_process(&requests));
	return count(&r, false) || count(&r, true) ? PENSTOCK_OK : PENSTOCK_ERR_NO_DEVICE;
}

PEN_EXPORT int penstock_request_cancel(penstock_request_t request)
{
	int m = pen_lib_managed();
	if (m)
		return m;
	uint64_t began;
	struct pen_slot *s = pen_slot_close(&requests, request, &began);
	if (!s)
		return PENSTOCK_ERR_NOT_OPEN;
	pen_slot_free(s);
	return PENSTOCK_OK;
}
