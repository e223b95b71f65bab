/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenCL's table for the gate. A mark is an event with a node of ours; the driver's completion callback tells the gate.
 *
 * A node has two owners, the gate's mark and the driver's callback, and goes when both have let go. The callback may come
 * late, after the gate has polled the event and re-used the mark's storage: the node's state decides who was first.
 */
#include "shim/opencl/cl.h"

#include "base/auto.h"
#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>

enum node_state { NODE_ARMED, NODE_NOTIFYING, NODE_AWAITED, NODE_TOLD, NODE_RELEASED };   /* AWAITED: NOTIFYING, and somebody sleeps */

struct node {
	_Atomic uint32_t state;      /* enum node_state; futex word */
	_Atomic uint32_t owners;
	struct pen_mark *mark;       /* valid until NODE_RELEASED */
	struct pen_cl_device *device;
	cl_event event;              /* retained */
};

static void drop(struct node *n)
{
	if (atomic_fetch_sub_explicit(&n->owners, 1, memory_order_acq_rel) != 1)
		return;
	BELOW(clReleaseEvent)(n->event);
	free(n);
}

static void CL_CALLBACK completed(cl_event e, cl_int status, void *user)
{
	struct node *n = user;
	uint32_t armed = NODE_ARMED;
	(void)e;
	if (atomic_compare_exchange_strong(&n->state, &armed, NODE_NOTIFYING)) {
		const void *outer = pen_cl_thread.notifying;
		pen_cl_thread.notifying = n;
		pen_cl_thread.callbacks++;
		pen_gate_mark_done(n->mark, status < 0);
		pen_cl_thread.callbacks--;
		pen_cl_thread.notifying = outer;
		uint32_t busy = NODE_NOTIFYING;
		if (!atomic_compare_exchange_strong(&n->state, &busy, NODE_TOLD) && busy == NODE_AWAITED) {
			atomic_store(&n->state, NODE_TOLD);
			pen_futex_wake(&n->state, 1);
		}
	}
	drop(n);
}

/*
 * Takes over the caller's reference of @e. The gate is told of completion by the callback, or at once for a command that
 * the call has waited for. On failure the mark stays empty, and the gate goes by the next one.
 */
static int make_mark(struct pen_cl_queue *q, struct pen_mark *mark, cl_event e, bool is_done)
{
	struct node *n = malloc(sizeof(*n));   /* one for each admission: calloc() goes past the allocator's quick lists */
	if (!n) {
		BELOW(clReleaseEvent)(e);
		return -ENOMEM;
	}
	n->mark = mark;
	n->device = q->device;
	n->event = e;
	atomic_init(&n->owners, is_done ? 1 : 2);
	atomic_init(&n->state, is_done ? NODE_TOLD : NODE_ARMED);
	mark->native = n;
	mark->timed = q->stamped && q->device->timed;
	if (is_done) {
		pen_gate_mark_done(mark, false);
		return 0;
	}
	if (BELOW(clSetEventCallback)(e, CL_COMPLETE, completed, n) == CL_SUCCESS)
		return 0;
	mark->native = NULL;
	mark->timed = 0;
	atomic_store(&n->owners, 1);
	drop(n);
	return -EIO;
}

/* The command cannot start by itself: the queue remembers it until it runs. Retains. */
static void remember_blocked(struct pen_cl_queue *q, cl_event e)
{
	BELOW(clRetainEvent)(e);
	cl_event old = atomic_exchange(&q->blocked, e);
	if (old)
		BELOW(clReleaseEvent)(old);
}

/* What a piece leaves for the next one and for the application. @e: its event, or NULL. */
static void finish_piece(struct pen_cl_cmd *c, const struct pen_piece *p, cl_event e)
{
	if (!p->whole && e) {
		if (!c->first) {
			BELOW(clRetainEvent)(e);
			c->first = e;
		}
		if (c->chain)
			BELOW(clReleaseEvent)(c->chain);
		c->chain = NULL;
		if (!p->last && c->queue->out_of_order) {
			BELOW(clRetainEvent)(e);
			c->chain = e;
		}
	}
	if (p->last || p->whole) {
		if (c->event) {
			*c->event = e;
			BELOW(clRetainEvent)(e);
			if (c->first && c->first != e && c->queue->asked_profiling)
				pen_cl_event_cut(e, c->first);
		}
		pen_cl_queue_ran(c->queue, c->event ? e : NULL);
	} else {
		pen_cl_queue_ran(c->queue, NULL);
	}
	if (c->blocked)
		remember_blocked(c->queue, e);
}

static int submit(struct pen_gate_queue *gq, void *native, const struct pen_piece *p, struct pen_mark *mark)
{
	struct pen_cl_cmd *c = native;
	(void)gq;
	bool for_application = c->event && (p->last || p->whole);
	bool need = mark || c->blocked || for_application || (!p->whole && (c->event || c->queue->out_of_order));
	cl_event e = NULL;
	/* In order the queue keeps the pieces in line; out of order each waits for the one before. */
	cl_uint nwait = c->chain ? 1 : p->whole || p->first == 0 ? c->nwait : 0;
	const cl_event *wait = c->chain ? &c->chain : nwait ? c->wait : NULL;
	if ((p->whole || p->first == 0) && !c->chain)
		wait = c->wait;   /* as the application wrote it, for the driver to judge */
	cl_int r = c->run(c, p, nwait, wait, need ? &e : NULL);
	if (r != CL_SUCCESS)
		return r;
	if (!need) {
		pen_cl_queue_ran(c->queue, NULL);
		return CL_SUCCESS;
	}
	finish_piece(c, p, e);
	if (!mark)
		BELOW(clReleaseEvent)(e);
	else
		make_mark(c->queue, mark, e, c->blocking);
	return CL_SUCCESS;
}

static int mark_record(struct pen_gate_queue *gq, struct pen_mark *mark)
{
	struct pen_cl_queue *q = gq->native;
	cl_event e = NULL;
	cl_int r = q->device->version >= 12 ? BELOW(clEnqueueMarkerWithWaitList)(q->id, 0, NULL, &e)
					    : BELOW(clEnqueueMarker)(q->id, &e);
	if (r != CL_SUCCESS)
		return -EIO;
	atomic_store_explicit(&q->dirty, 1, memory_order_relaxed);
	return make_mark(q, mark, e, false);
}

static int mark_poll(struct pen_mark *mark)
{
	struct node *n = mark->native;
	cl_int status = CL_COMPLETE;
	if (!n)
		return 1;
	if (BELOW(clGetEventInfo)(n->event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof(status), &status, NULL) != CL_SUCCESS)
		return -EIO;
	return status > CL_COMPLETE ? 0 : status == CL_COMPLETE ? 1 : -EIO;
}

static void mark_release(struct pen_mark *mark)
{
	struct node *n = mark->native;
	if (!n)
		return;
	mark->native = NULL;
	uint32_t armed = NODE_ARMED;
	if (!atomic_compare_exchange_strong(&n->state, &armed, NODE_RELEASED)) {
		if (pen_cl_thread.notifying == n)   /* the gate lets go from within its own notification */
			atomic_store(&n->state, NODE_RELEASED);
		/* Another thread is inside pen_gate_mark_done(), which never blocks. */
		uint32_t busy = NODE_NOTIFYING;
		atomic_compare_exchange_strong(&n->state, &busy, NODE_AWAITED);
		while (atomic_load(&n->state) == NODE_AWAITED)
			pen_futex_wait(&n->state, NODE_AWAITED, PEN_MS);
	}
	drop(n);
}

/*
 * Device clock -> CLOCK_MONOTONIC. The driver's own answer where OpenCL 2.1 has it, else the least distance seen between a
 * command's end and the moment at which we looked: an end cannot be later than that, and often is hardly earlier.
 * The offset is asked for again each second: the two clocks may drift (PoCL's is CLOCK_MONOTONIC_RAW on some systems).
 */
static int64_t clock_offset(struct pen_cl_device *d, uint64_t end)
{
	int64_t known = atomic_load_explicit(&d->clock_offset, memory_order_relaxed);
	int64_t seen_at = atomic_load_explicit(&d->clock_seen_ns, memory_order_relaxed);
	bool asks = d->version >= 21 && !d->no_timer;
	if (asks && known != INT64_MAX && (int64_t)pen_mono_coarse_ns() - seen_at <= (int64_t)PEN_S)
		return known;
	int64_t now = (int64_t)pen_mono_ns();
	bool old = known == INT64_MAX || now - seen_at > (int64_t)PEN_S;
	if (old && asks) {
		cl_ulong dev = 0, host = 0;
		if (BELOW(clGetDeviceAndHostTimer)(d->id, &dev, &host) == CL_SUCCESS && dev) {
			int64_t after = (int64_t)pen_mono_ns();
			known = now + (after - now) / 2 - (int64_t)dev;
			atomic_store_explicit(&d->clock_offset, known, memory_order_relaxed);
			atomic_store_explicit(&d->clock_seen_ns, now, memory_order_relaxed);
			return known;
		}
		d->no_timer = true;
	}
	int64_t bound = now - (int64_t)end;
	if (d->no_timer || d->version < 21) {
		if (old || bound < known) {
			/* A fresh second starts from what it sees first, but never moves ahead by more than a drift could. */
			int64_t drift = (int64_t)(PEN_S / 1000);
			int64_t next = known == INT64_MAX || bound < known ? bound : PEN_MIN(bound, known + drift);
			atomic_store_explicit(&d->clock_offset, next, memory_order_relaxed);
			atomic_store_explicit(&d->clock_seen_ns, now, memory_order_relaxed);
			return next;
		}
	}
	return known;
}

static int mark_time(struct pen_mark *first, struct pen_mark *last, uint64_t *ret_start_ns, uint64_t *ret_end_ns)
{
	struct node *a = first->native, *b = last->native;
	cl_ulong start = 0, end = 0;
	if (!a || !b || !a->device->timed)
		return -ENODATA;
	if (BELOW(clGetEventProfilingInfo)(a->event, CL_PROFILING_COMMAND_START, sizeof(start), &start, NULL) != CL_SUCCESS ||
	    BELOW(clGetEventProfilingInfo)(b->event, CL_PROFILING_COMMAND_END, sizeof(end), &end, NULL) != CL_SUCCESS ||
	    !start || end < start)
		return -ENODATA;
	int64_t offset = clock_offset(b->device, end);
	*ret_start_ns = (uint64_t)((int64_t)start + offset);
	*ret_end_ns = (uint64_t)((int64_t)end + offset);
	return 0;
}

static bool in_callback(void)
{
	return pen_cl_thread.callbacks != 0;
}

static int oom_code(enum pen_denial why)
{
	switch (why) {
	case PEN_DENY_TOO_LARGE:
		return CL_INVALID_BUFFER_SIZE;
	case PEN_DENY_NO_DEVICE:
		return CL_OUT_OF_RESOURCES;
	default:
		return CL_MEM_OBJECT_ALLOCATION_FAILURE;
	}
}

const struct pen_adapter pen_cl_adapter = {
	.abi = PEN_ADAPTER_ABI,
	.size = sizeof(struct pen_adapter),
	.name = "opencl",
	.caps = PEN_ADAPTER_TIMESTAMPS | PEN_ADAPTER_NOTIFY | PEN_ADAPTER_IN_SUBMIT,
	.marks_max = UINT32_MAX,
	.submit = submit,
	.mark_record = mark_record,
	.mark_poll = mark_poll,
	.mark_release = mark_release,
	.mark_time = mark_time,
	.flush_all = pen_cl_flush_all,
	.in_callback = in_callback,
	.set_units = pen_cl_set_units,
	.oom_code = oom_code,
};
