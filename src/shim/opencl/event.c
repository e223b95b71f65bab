/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events: what they say about a command that waits for them, the callbacks of the application, and what a cut kernel's
 * event shows.
 *
 * Only few events have a record: user events (a command that waits for one may never start without this thread) and the
 * last piece of a cut kernel (its profiling starts with the first piece). All others are the driver's own and unknown here.
 */
#include "shim/opencl/cl.h"

#include <stdlib.h>

struct event {
	_Atomic uint32_t refs;   /* of the application, and of a call of ours that is looking at it */
	bool user;
	_Atomic bool set;        /* no longer among the unset: set, or released without */
	cl_event first;          /* of a cut kernel: retained */
};

static struct pen_map events;
static _Atomic uint32_t unset_user_events;

struct pen_cl_queue *pen_cl_event_queue(cl_event e)
{
	cl_command_queue id = NULL;
	if (!e || BELOW(clGetEventInfo)(e, CL_EVENT_COMMAND_QUEUE, sizeof(id), &id, NULL) != CL_SUCCESS || !id)
		return NULL;
	return pen_cl_queue(id);
}

bool pen_cl_event_done(cl_event e)
{
	cl_int status = CL_COMPLETE;
	BELOW(clGetEventInfo)(e, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof(status), &status, NULL);
	return status <= CL_COMPLETE;
}

bool pen_cl_user_events(void)
{
	return atomic_load_explicit(&unset_user_events, memory_order_acquire) != 0;
}

/*
 * Does a command stand in @q that has not started and may never? Taken out while it is looked at: with the reference in the
 * record alone another thread could let go of the event meanwhile. Who looks in between sees none, and waits too long once.
 */
static bool is_blocked(struct pen_cl_queue *q)
{
	cl_event none = NULL, e = NULL;
	if (atomic_load_explicit(&q->blocked, memory_order_acquire))
		e = atomic_exchange(&q->blocked, NULL);
	if (!e)
		return false;
	cl_int status = CL_COMPLETE;
	BELOW(clGetEventInfo)(e, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof(status), &status, NULL);
	bool stands = status > CL_RUNNING;
	if (!stands && !atomic_load(&q->blocked))
		atomic_store(&q->walled, false);
	if (!stands || !atomic_compare_exchange_strong(&q->blocked, &none, e))   /* or a newer one stands there */
		BELOW(clReleaseEvent)(e);
	return stands;
}

static bool may_never_come(struct pen_cl_queue *q, cl_event e)
{
	/* The queue of the event may be released at this moment: the application holds the event alone. */
	uint32_t in = pen_map_enter(&pen_cl_queues);
	struct pen_cl_queue *other = pen_cl_event_queue(e);
	bool behind = other && other == q && !q->out_of_order;
	bool never = !behind && (!other || other->device != q->device || is_blocked(other) ||
				 (other->out_of_order && pen_cl_user_events()));
	pen_map_leave(&pen_cl_queues, in);
	return never;
}

/*
 * May a command with this wait list start by itself? A command of another queue of ours that can run will end. Everything
 * else - a user event, an event of another API or of a queue that is itself stuck - may need this very thread to go on.
 * In order the newest command that is stuck tells of all before it. Out of order it does not, so that while any user event
 * is unset an event of such a queue is taken for stuck: one that will never come is worse than one counted too carefully.
 */
bool pen_cl_runnable(struct pen_cl_queue *q, cl_uint nwait, const cl_event *wait, bool *ret_blocked)
{
	*ret_blocked = false;
	for (cl_uint i = 0; wait && i < nwait && !*ret_blocked; i++)
		*ret_blocked = wait[i] && !pen_cl_event_done(wait[i]) && may_never_come(q, wait[i]);
	if (*ret_blocked)
		return false;
	/* Behind a command that cannot start nothing of an in-order queue can; out of order only what is behind a barrier. */
	if (!is_blocked(q))
		return true;
	return q->out_of_order && !atomic_load(&q->walled);
}

/* ---- user events ----------------------------------------------------------------------------------------------- */

cl_event pen_clCreateUserEvent(cl_context ctx, cl_int *err)
{
	struct event *r = calloc(1, sizeof(*r));
	if (!r)
		return pen_cl_fail(err, CL_OUT_OF_HOST_MEMORY);
	cl_event e = BELOW(clCreateUserEvent)(ctx, err);
	if (!e) {
		free(r);
		return NULL;
	}
	atomic_init(&r->refs, 1);
	r->user = true;
	if (pen_map_put(&events, e, r)) {
		free(r);
		BELOW(clReleaseEvent)(e);
		return pen_cl_fail(err, CL_OUT_OF_HOST_MEMORY);
	}
	atomic_fetch_add(&unset_user_events, 1);
	return e;
}

/* Nobody waits for it any more. Both who sets and who releases come here, perhaps at once: it counts one time. */
static void now_set(struct event *rec)
{
	if (rec->user && !atomic_exchange(&rec->set, true))
		atomic_fetch_sub(&unset_user_events, 1);
}

static void put(cl_event e, struct event *rec)
{
	if (atomic_fetch_sub(&rec->refs, 1) != 1)
		return;
	pen_map_take(&events, e);
	now_set(rec);   /* released unset: nobody can set it any more, so nobody is going to */
	if (rec->first)
		BELOW(clReleaseEvent)(rec->first);
	free(rec);
}

cl_int pen_clSetUserEventStatus(cl_event e, cl_int status)
{
	/* Held, with the driver's event: as soon as that is set another thread may be past its wait and release both. */
	struct event *rec = pen_map_find(&events, e);
	if (rec && BELOW(clRetainEvent)(e) != CL_SUCCESS)
		rec = NULL;
	if (rec)
		atomic_fetch_add(&rec->refs, 1);
	cl_int r = BELOW(clSetUserEventStatus)(e, status);
	if (!rec)
		return r;
	if (r == CL_SUCCESS)
		now_set(rec);
	put(e, rec);
	BELOW(clReleaseEvent)(e);
	return r;
}

cl_int pen_clRetainEvent(cl_event e)
{
	cl_int r = BELOW(clRetainEvent)(e);
	if (r == CL_SUCCESS && !pen_map_empty(&events)) {
		struct event *rec = pen_map_find(&events, e);
		if (rec)
			atomic_fetch_add(&rec->refs, 1);
	}
	return r;
}

cl_int pen_clReleaseEvent(cl_event e)
{
	struct event *rec = pen_map_empty(&events) ? NULL : pen_map_find(&events, e);
	if (rec)
		put(e, rec);
	return BELOW(clReleaseEvent)(e);
}

/* ---- cut kernels ------------------------------------------------------------------------------------------------ */

void pen_cl_event_cut(cl_event last, cl_event first)
{
	struct event *r = calloc(1, sizeof(*r));
	if (!r)
		return;   /* its profiling will show the last piece only */
	atomic_init(&r->refs, 1);
	BELOW(clRetainEvent)(first);
	r->first = first;
	if (pen_map_put(&events, last, r)) {
		BELOW(clReleaseEvent)(first);
		free(r);
	}
}

cl_event pen_cl_event_first(cl_event last)
{
	struct event *r = pen_map_empty(&events) ? NULL : pen_map_find(&events, last);
	return r ? r->first : NULL;
}

cl_int pen_clGetEventProfilingInfo(cl_event e, cl_profiling_info what, size_t size, void *value, size_t *ret_size)
{
	uint32_t in = pen_map_enter(&pen_cl_queues);
	struct pen_cl_queue *q = pen_cl_event_queue(e);
	bool hide = q && q->stamped && !q->asked_profiling;
	pen_map_leave(&pen_cl_queues, in);
	if (hide)
		return CL_PROFILING_INFO_NOT_AVAILABLE;
	if (what == CL_PROFILING_COMMAND_QUEUED || what == CL_PROFILING_COMMAND_SUBMIT || what == CL_PROFILING_COMMAND_START) {
		cl_event first = pen_cl_event_first(e);
		/* Only after the last piece: until then there is no profiling of the whole. */
		if (first && pen_cl_event_done(e))
			e = first;
	}
	return BELOW(clGetEventProfilingInfo)(e, what, size, value, ret_size);
}

/* ---- callbacks -------------------------------------------------------------------------------------------------- */

struct callback {
	void (CL_CALLBACK *fn)(cl_event, cl_int, void *);
	void *user;
};

static void CL_CALLBACK call_application(cl_event e, cl_int status, void *user)
{
	struct callback *cb = user;
	struct callback copy = *cb;
	free(cb);
	pen_cl_thread.callbacks++;
	copy.fn(e, status, copy.user);
	pen_cl_thread.callbacks--;
}

cl_int pen_clSetEventCallback(cl_event e, cl_int type, void (CL_CALLBACK *fn)(cl_event, cl_int, void *), void *user)
{
	if (!fn)
		return BELOW(clSetEventCallback)(e, type, fn, user);
	struct callback *cb = malloc(sizeof(*cb));
	if (!cb)
		return CL_OUT_OF_HOST_MEMORY;
	cb->fn = fn;
	cb->user = user;
	cl_int r = BELOW(clSetEventCallback)(e, type, call_application, cb);
	if (r != CL_SUCCESS)
		free(cb);
	return r;
}

/* ---- waiting and asking ----------------------------------------------------------------------------------------- */

/*
 * Is @e the newest command of its in-order queue? Then its completion is that of the whole queue, and the gate may be told
 * without a mark of its own. Only for a queue that one thread uses: else "newest" is not known.
 */
static struct pen_cl_queue *whole_queue(cl_event e, struct pen_cl_queue *q)
{
	return q && !q->out_of_order && !atomic_load_explicit(&q->shared, memory_order_relaxed) && q->owner == &pen_cl_thread &&
	       atomic_load_explicit(&q->last_event, memory_order_relaxed) == e ? q : NULL;
}

#define WAIT_QUEUES 8   /* queues of one wait that are told; more only make the gate's knowledge later */

/* What is known of an event's queue while no record is held: the wait may outlast the queue. */
struct seen {
	cl_command_queue id;
	struct pen_cl_queue *q;      /* to compare with, not to be followed */
	uint64_t token;
	bool whole;
};

/* Inside pen_map_enter(). */
static struct seen look_before(cl_event e, struct pen_cl_queue *q, bool alone)
{
	struct seen s = { .id = q->id, .q = q, .whole = alone && whole_queue(e, q) };
	if (s.whole)
		s.token = pen_gate_sync_begin(q->gate);
	return s;
}

static void look_after(const struct seen *s, bool done)
{
	uint32_t in = pen_map_enter(&pen_cl_queues);
	struct pen_cl_queue *q = pen_cl_queue(s->id);
	if (q && q == s->q && s->whole && done)
		pen_gate_sync_end(q->gate, s->token);
	else if (q && q == s->q)
		pen_gate_poll(q->gate);
	pen_map_leave(&pen_cl_queues, in);
}

cl_int pen_clWaitForEvents(cl_uint n, const cl_event *list)
{
	struct seen seen[WAIT_QUEUES] = { { 0 } };
	uint32_t nseen = 0;
	for (cl_uint i = 0; list && i < n && nseen < WAIT_QUEUES; i++) {
		uint32_t at = 0, in = pen_map_enter(&pen_cl_queues);
		struct pen_cl_queue *q = pen_cl_event_queue(list[i]);
		while (at < nseen && seen[at].q != q)
			at++;
		if (q && at == nseen) {
			seen[nseen++] = look_before(list[i], q, n == 1);
			if (!seen[at].whole)
				pen_gate_edge(q->gate);
		}
		pen_map_leave(&pen_cl_queues, in);
	}
	cl_int r = BELOW(clWaitForEvents)(n, list);
	for (uint32_t i = 0; i < nseen; i++)
		look_after(&seen[i], r == CL_SUCCESS);
	return r;
}

cl_int pen_clGetEventInfo(cl_event e, cl_event_info what, size_t size, void *value, size_t *ret_size)
{
	if (what != CL_EVENT_COMMAND_EXECUTION_STATUS)
		return BELOW(clGetEventInfo)(e, what, size, value, ret_size);
	struct seen seen = { 0 };
	uint32_t in = pen_map_enter(&pen_cl_queues);
	struct pen_cl_queue *q = pen_cl_event_queue(e);
	if (q)
		seen = look_before(e, q, true);
	pen_map_leave(&pen_cl_queues, in);
	cl_int r = BELOW(clGetEventInfo)(e, what, size, value, ret_size);
	if (seen.q && r == CL_SUCCESS && value && *(cl_int *)value <= CL_COMPLETE)
		look_after(&seen, true);
	return r;
}

cl_int pen_clFlush(cl_command_queue id)
{
	struct pen_cl_queue *q = pen_cl_queue(id);
	if (q) {
		pen_gate_edge(q->gate);   /* before: its mark is flushed with the rest */
		atomic_store_explicit(&q->dirty, 0, memory_order_relaxed);
	}
	return BELOW(clFlush)(id);
}

cl_int pen_clFinish(cl_command_queue id)
{
	struct pen_cl_queue *q = pen_cl_queue(id);
	if (!q)
		return BELOW(clFinish)(id);
	uint64_t token = pen_gate_sync_begin(q->gate);
	atomic_store_explicit(&q->dirty, 0, memory_order_relaxed);
	cl_int r = BELOW(clFinish)(id);
	if (r == CL_SUCCESS)
		pen_gate_sync_end(q->gate, token);
	return r;
}
