/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices that the application drives itself. The gate's adapter for them has nothing below it: to submit
 * is to tell the caller that it may, and a mark is done when the caller says so.
 *
 * Work is an out-of-order queue's, since nobody says in which order it ends. A slot has two owners, the
 * caller until it ends the work and the gate's mark until that is released; `user` is the mark, taken by
 * whoever comes first.
 */
#include "base/clock.h"
#include "base/devkey.h"
#include "lib/lib.h"
#include "lib/slots.h"

#include <penstock/attach.h>

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(PEN_SLOTS == PENSTOCK_WORK_MAX, "as the header says");
_Static_assert(sizeof(struct penstock_device_want) == 40 && sizeof(struct penstock_work_want) == 40,
	       "append: the first sizes stay");

#define DEVICES 16 /* of one process: as many as can be attached */

struct penstock_device {
	struct pen_gate *gate;
	struct pen_gate_queue *_Atomic queue; /* a child needs one of its own */
};

static struct pen_slots works;
static struct penstock_device devices[DEVICES];
static struct pen_gate *_Atomic gates[DEVICES]; /* filled in order; devices[i] is of gates[i] */

/* ---- the adapter -------------------------------------------------------------------------------- */

static int submit(struct pen_gate_queue *q, void *native, const struct pen_piece *piece,
		  struct pen_mark *mark)
{
	struct pen_slot *s = native;
	(void)q, (void)piece;
	if (mark) {
		mark->native = s;
		atomic_store_explicit(&s->user, mark, memory_order_release);
	}
	return 0;
}

/* Asked for tails alone, and this queue has none. */
static int mark_record(struct pen_gate_queue *q, struct pen_mark *mark)
{
	(void)q, (void)mark;
	return -ENOTSUP;
}

static int mark_poll(struct pen_mark *mark)
{
	return atomic_load(&mark->done) != 0;
}

static void mark_release(struct pen_mark *mark)
{
	struct pen_slot *s = mark->native;
	void *is = mark;
	mark->native = NULL;
	if (s && !atomic_compare_exchange_strong(&s->user, &is, NULL))
		pen_slot_free(s); /* the caller has ended it */
}

static int refused_code(enum pen_denial why)
{
	return why == PEN_DENY_NO_DEVICE ? PENSTOCK_ERR_STOPPED : PENSTOCK_ERR_OUT_OF_MEMORY;
}

static const struct pen_adapter adapter = {
	.abi = PEN_ADAPTER_ABI,
	.size = sizeof(adapter),
	.name = "penstock",
	.caps = PEN_ADAPTER_NOTIFY | PEN_ADAPTER_IN_SUBMIT,
	.marks_max = UINT32_MAX,
	.submit = submit,
	.mark_record = mark_record,
	.mark_poll = mark_poll,
	.mark_release = mark_release,
	.oom_code = refused_code,
};

/* ---- devices ------------------------------------------------------------------------------------ */

static struct penstock_device *device_of(struct pen_gate *gate)
{
	for (unsigned i = 0; i < DEVICES; i++) {
		struct pen_gate *is = NULL;
		if (!atomic_compare_exchange_strong(&gates[i], &is, gate) && is != gate)
			continue;
		devices[i].gate = gate; /* by whoever comes, always the same */
		return &devices[i];
	}
	return NULL;
}

static int error_of(int r)
{
	switch (r) {
	case 0:
		return PENSTOCK_OK;
	case -EAGAIN:
		return PENSTOCK_ERR_UNREACHABLE;
	case -EACCES:
		return PENSTOCK_ERR_REFUSED;
	case -ENOTCONN:
		return PENSTOCK_ERR_NO_CONTRACT;
	default:
		return PENSTOCK_ERR_FAILED;
	}
}

PEN_EXPORT int penstock_attach(const struct penstock_device_want *want, penstock_device_t **ret_device)
{
	if (!want || want->size < sizeof(*want) || !ret_device || !want->device || !pen_devkey_is_valid(want->device))
		return PENSTOCK_ERR_INVALID;
	int r = pen_lib_managed();
	if (r)
		return r;
	const struct pen_gate_device dev = {
		.key = want->device,
		.model = want->model ? want->model : want->device,
		.mem_bytes = want->memory_bytes,
		.units = want->units,
	};
	struct pen_gate *gate;
	r = error_of(pen_gate_open(&adapter, &dev, &gate));
	if (r)
		return r;
	pen_doors_look();
	struct penstock_device *d = device_of(gate);
	if (!d)
		return PENSTOCK_ERR_TOO_MANY;
	*ret_device = d;
	return PENSTOCK_OK;
}

/* ---- memory ------------------------------------------------------------------------------------- */

/* Without a limit in the contract it is a driver that says no; here is none that we could ask. */
static bool device_has(struct pen_gate *g)
{
	struct pen_mem_view v;
	pen_gate_mem_view(g, &v);
	return v.used_bytes <= v.limit_bytes;
}

PEN_EXPORT int penstock_memory_reserve(penstock_device_t *device, uint64_t bytes)
{
	if (!device)
		return PENSTOCK_ERR_INVALID;
	if (pen_gate_mem_reserve(device->gate, bytes) == 0) {
		if (device_has(device->gate))
			return PENSTOCK_OK;
		pen_gate_mem_release(device->gate, bytes);
		return PENSTOCK_ERR_OUT_OF_MEMORY;
	}
	struct pen_gate_who who;
	pen_gate_who(device->gate, &who);
	return !who.attached || pen_gate_terms(device->gate)->flags & PEN_TERMS_STOP
		       ? PENSTOCK_ERR_STOPPED
		       : PENSTOCK_ERR_OUT_OF_MEMORY;
}

PEN_EXPORT int penstock_memory_release(penstock_device_t *device, uint64_t bytes)
{
	if (!device)
		return PENSTOCK_ERR_INVALID;
	pen_gate_mem_release(device->gate, bytes);
	return PENSTOCK_OK;
}

/* ---- work --------------------------------------------------------------------------------------- */

/* A child's first, and the very first: one that two threads make at once is left to the process's end. */
static struct pen_gate_queue *queue_of(struct penstock_device *d)
{
	struct pen_gate_queue *q = atomic_load(&d->queue);
	if (q && pen_gate_queue_is_own(q))
		return q;
	struct pen_gate_queue *made = NULL;
	if (pen_gate_queue_create(d->gate, NULL, PEN_QUEUE_OUT_OF_ORDER, &made) < 0)
		return NULL;
	if (atomic_compare_exchange_strong(&d->queue, &q, made))
		return made;
	pen_gate_queue_destroy(made);
	return q;
}

PEN_EXPORT int penstock_work_begin(penstock_device_t *device, const struct penstock_work_want *want,
				   penstock_work_t *ret_work)
{
	if (!device || !want || want->size < sizeof(*want) || want->flags || !ret_work)
		return PENSTOCK_ERR_INVALID;
	struct pen_slot_table *t = pen_slots_table(&works);
	if (!t)
		return PENSTOCK_ERR_FAILED;
	struct pen_gate_queue *q = queue_of(device);
	if (!q)
		return PENSTOCK_ERR_STOPPED;
	uint64_t handle;
	struct pen_slot *s = pen_slot_open(t, pen_mono_ns(), &handle);
	if (!s)
		return PENSTOCK_ERR_TOO_MANY;
	uint64_t guess = want->estimate_ns ? want->estimate_ns : PEN_COST_GUESS_NS;
	struct pen_gate_cmd cmd = {
		.native = s,
		.est_ns = guess,
		.bytes = want->bytes,
		.slices = 1,
		.wave = 1,
		.kind = PEN_CMD_KERNEL,
		.cost = want->kind ? pen_gate_cost_guessed(device->gate, want->kind, want->amount, guess)
				   : NULL,
	};
	int r = pen_gate_submit(q, &cmd);
	if (r) {
		pen_slot_free(s);
		return r;
	}
	*ret_work = handle;
	return PENSTOCK_OK;
}

PEN_EXPORT int penstock_work_end(penstock_work_t work)
{
	uint64_t began;
	struct pen_slot *s = pen_slot_close(&works, work, &began);
	if (!s)
		return PENSTOCK_ERR_NOT_OPEN;
	struct pen_mark *mark = atomic_exchange(&s->user, NULL);
	if (mark)
		pen_gate_mark_done(mark, false); /* the gate frees the slot when it lets go of the mark */
	else
		pen_slot_free(s);
	return PENSTOCK_OK;
}
