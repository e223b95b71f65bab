/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Order of commands. A command runs when the events it waits for are complete, its predecessor in an in-order queue is complete
 * and, with NULLICD_LAZY, its queue was flushed. With a cost it then passes through its device's FIFO, one at a time, whatever
 * the queue; without, it runs in the thread that made it ready. One lock for everything that is not complete; a command that
 * nothing holds back never takes it.
 *
 * Stamps of a timed command are virtual: START = max(ready, end of the device's previous command), END = START + cost, so they are
 * exact although the thread that reports completion wakes a little late.
 */
#include "nullicd.h"
#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

struct nl_wait {
	struct nl_wait *next;
	cl_event waiter;
	bool order_only; /* a predecessor: its failure is not ours */
};

struct pump {
	cl_event head, tail; /* ready to run */
	struct nl_callback *fire; /* callbacks due */
	struct nl_callback **fire_tail;
	cl_event done; /* completed: drop the queue's reference after the callbacks */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_cond_t fed = PTHREAD_COND_INITIALIZER;

static void push(cl_event *head, cl_event *tail, cl_event e)
{
	e->next_ready = NULL;
	if (*head)
		(*tail)->next_ready = e;
	else
		*head = e;
	*tail = e;
}

static cl_event pop(cl_event *head)
{
	cl_event e = *head;

	*head = e->next_ready;
	return e;
}

uint64_t nl_copy_cost(size_t bytes)
{
	return nl_config.copy_ns_per_kb * ((bytes + 1023) / 1024);
}

static bool is_out_of_order(cl_command_queue q)
{
	return (q->properties & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE) != 0;
}

static bool is_done(cl_event e)
{
	return atomic_load(&e->status) <= CL_COMPLETE;
}

/* Caller holds the lock. */
static bool depend(cl_event e, cl_event on, bool order_only)
{
	struct nl_wait *w;

	if (is_done(on)) {
		if (!order_only && atomic_load(&on->status) < 0)
			e->failed = true;
		return true;
	}
	w = malloc(sizeof(*w));
	if (!w)
		return false;
	*w = (struct nl_wait){ .next = on->waiters, .waiter = e, .order_only = order_only };
	on->waiters = w;
	e->ndeps++;
	return true;
}

static void become_ready(struct pump *p, cl_event e)
{
	atomic_store(&e->status, CL_SUBMITTED);
	e->t_submit = nl_now();
	push(&p->head, &p->tail, e);
}

static void undepend(struct pump *p, cl_event e)
{
	if (--e->ndeps == 0)
		become_ready(p, e);
}

static void unlink_from_queue(cl_event e)
{
	cl_command_queue q = e->queue;

	if (e->prev)
		e->prev->next = e->next;
	else
		q->head = e->next;
	if (e->next)
		e->next->prev = e->prev;
	else
		q->tail = e->prev;
	/* the queue's own reference lasts until callbacks have run, so these cannot be the last ones */
	if (q->last == e) {
		q->last = NULL;
		atomic_fetch_sub(&e->o.life, 1);
	}
	if (q->barrier == e) {
		q->barrier = NULL;
		atomic_fetch_sub(&e->o.life, 1);
	}
	atomic_fetch_sub(&q->outstanding, 1);
	e->in_queue = false;
}

/* Caller holds the lock. Waiters become ready in the order in which they were enqueued. */
static void complete(struct pump *p, cl_event e, cl_int status)
{
	struct nl_wait *list = NULL;

	atomic_store(&e->status, status);
	while (e->waiters) {
		struct nl_wait *w = e->waiters;

		e->waiters = w->next;
		w->next = list;
		list = w;
	}
	while (list) {
		struct nl_wait *w = list;

		list = w->next;
		if (status < 0 && !w->order_only)
			w->waiter->failed = true;
		undepend(p, w->waiter);
		free(w);
	}
	while (e->callbacks) {
		struct nl_callback *c = e->callbacks;

		e->callbacks = c->next;
		c->next = NULL;
		*p->fire_tail = c;
		p->fire_tail = &c->next;
	}
	if (e->in_queue) {
		unlink_from_queue(e);
		e->next_ready = p->done;
		p->done = e;
	}
	pthread_cond_broadcast(&changed);
}

/* What a callback gets beside its own argument; kept in the record because the event may be gone by then. */
struct event_callback {
	struct nl_callback c;
	cl_event event;
};

static void fire(struct pump *p)
{
	struct nl_callback *c = p->fire;
	cl_event done = p->done;

	p->fire = NULL;
	p->fire_tail = &p->fire;
	p->done = NULL;
	while (c) {
		struct event_callback *ec = (struct event_callback *)c;
		cl_int status = atomic_load(&ec->event->status);

		c = c->next;
		((void(CL_CALLBACK *)(cl_event, cl_int, void *))ec->c.fn)(
			ec->event, status < 0 ? status : ec->c.type, ec->c.user);
		nl_event_unpin(ec->event);
		free(ec);
	}
	while (done) {
		cl_event e = done;

		done = e->next_ready;
		nl_event_unpin(e);
	}
}

static void run_op(cl_event e)
{
	if (e->op.run)
		e->op.run(&e->op);
	for (int i = 0; i < 2; i++)
		if (e->op.mem[i])
			nl_mem_unpin(e->op.mem[i]);
	free(e->op.heap);
	e->op.heap = NULL;
}

static void stamp(cl_event e, uint64_t start, uint64_t end)
{
	e->t_start = start;
	e->t_end = nl_config.resolution_ns ? end : start + 1;
}

static void *device_thread(void *arg);
static bool ending;   /* under the lock */

#ifdef __SANITIZE_ADDRESS__
/* The leak checker of gcc 12 falls over a thread of a driver that is there at exit: for its sake they end before. */
static pthread_t threads[16];
static unsigned nthreads;

static void keep_thread(pthread_t t)
{
	if (nthreads < sizeof(threads) / sizeof(threads[0]))
		threads[nthreads++] = t;
	else
		pthread_detach(t);
}

static void __attribute__((destructor)) end_threads(void)
{
	pthread_mutex_lock(&lock);
	ending = true;
	pthread_cond_broadcast(&fed);
	pthread_mutex_unlock(&lock);
	for (unsigned i = 0; i < nthreads; i++)
		pthread_join(threads[i], NULL);
}
#else
static void keep_thread(pthread_t t)
{
	pthread_detach(t);
}
#endif

/* Caller holds the lock. */
static bool feed(cl_event e)
{
	cl_device_id d = nl_root(e->queue->device);

	if (!d->has_thread) {
		pthread_t t;

		if (pthread_create(&t, NULL, device_thread, d) != 0)
			return false;
		keep_thread(t);
		d->has_thread = true;
	}
	push(&d->fifo_head, &d->fifo_tail, e);
	pthread_cond_broadcast(&fed);
	return true;
}

/* Runs what is ready until nothing is. Entered and left with the lock held; it is dropped around work and callbacks. */
static void run_ready(struct pump *p)
{
	while (p->head || p->fire || p->done) {
		if (p->fire || p->done) {
			pthread_mutex_unlock(&lock);
			fire(p);
			pthread_mutex_lock(&lock);
			continue;
		}
		cl_event e = pop(&p->head);

		if (!e->failed && e->op.cost_ns && feed(e))
			continue;
		pthread_mutex_unlock(&lock);
		uint64_t now = nl_now();

		if (e->failed)
			e->op.run = NULL;
		run_op(e);
		stamp(e, now, now + 1);
		pthread_mutex_lock(&lock);
		complete(p, e, e->failed ? CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST : CL_COMPLETE);
	}
}

static void pump_init(struct pump *p)
{
	*p = (struct pump){ 0 };
	p->fire_tail = &p->fire;
}

static void *device_thread(void *arg)
{
	cl_device_id d = arg;
	struct pump p;

	prctl(PR_SET_TIMERSLACK, 1);
	pump_init(&p);
	pthread_mutex_lock(&lock);
	for (;;) {
		while (!d->fifo_head && !ending)
			pthread_cond_wait(&fed, &lock);
		if (ending)
			break;
		cl_event e = pop(&d->fifo_head);
		uint64_t start = e->t_submit > d->free_at_ns ? e->t_submit : d->free_at_ns;
		uint64_t end = start + e->op.cost_ns;
		struct timespec ts = { .tv_sec = (time_t)(end / 1000000000u),
				       .tv_nsec = (long)(end % 1000000000u) };

		d->free_at_ns = end;
		atomic_store(&e->status, CL_RUNNING);
		pthread_mutex_unlock(&lock);
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) != 0)
			;
		run_op(e);
		stamp(e, start, end);
		pthread_mutex_lock(&lock);
		complete(&p, e, CL_COMPLETE);
		run_ready(&p);
	}
	pthread_mutex_unlock(&lock);
	return NULL;
}

static cl_int check_wait_list(cl_command_queue q, cl_uint n, const cl_event *wait, bool *ret_open)
{
	*ret_open = false;
	if ((n == 0) != (wait == NULL))
		return CL_INVALID_EVENT_WAIT_LIST;
	for (cl_uint i = 0; i < n; i++) {
		if (!NL_IS(wait[i], NL_MAGIC_EVENT))
			return CL_INVALID_EVENT_WAIT_LIST;
		if (wait[i]->context != q->context)
			return CL_INVALID_CONTEXT;
		if (atomic_load(&wait[i]->status) != CL_COMPLETE)
			*ret_open = true;
	}
	return CL_SUCCESS;
}

static cl_event event_new(cl_command_queue q, cl_command_type type)
{
	cl_event e = nl_new(sizeof(*e), NL_MAGIC_EVENT);

	if (!e)
		return NULL;
	e->context = q->context;
	e->queue = q;
	e->type = type;
	atomic_fetch_add(&q->o.life, 1);
	atomic_init(&e->status, CL_QUEUED);
	e->t_queued = e->t_submit = nl_now();
	return e;
}

/* The usual case: nothing to wait for and no cost. */
static cl_int submit_now(cl_command_queue q, cl_command_type type, const struct nl_op *op,
			 cl_event *ret_event)
{
	if (ret_event) {
		cl_event e = event_new(q, type);

		if (!e)
			return CL_OUT_OF_HOST_MEMORY;
		if (op->run)
			op->run(op);
		stamp(e, e->t_submit, nl_now() + 1);
		atomic_store(&e->status, CL_COMPLETE);
		*ret_event = e;
	} else if (op->run) {
		op->run(op);
	}
	free(op->heap);
	return CL_SUCCESS;
}

static void remember(cl_event *slot, cl_event e)
{
	if (*slot)
		nl_event_unpin(*slot);
	*slot = e;
	atomic_fetch_add(&e->o.life, 1);
}

/* Caller holds the lock. */
static bool link_order(cl_command_queue q, cl_event e, cl_uint nwait)
{
	bool is_barrier = e->type == CL_COMMAND_BARRIER, is_marker = e->type == CL_COMMAND_MARKER, ok = true;

	if (!is_out_of_order(q)) {
		ok = !q->last || depend(e, q->last, true);
		remember(&q->last, e);
		return ok;
	}
	if (q->barrier)
		ok = depend(e, q->barrier, true);
	if ((is_barrier || is_marker) && nwait == 0)
		for (cl_event other = q->head; other && ok; other = other->next)
			ok = other == e || depend(e, other, true);
	if (is_barrier)
		remember(&q->barrier, e);
	return ok;
}

static void link_to_queue(cl_command_queue q, cl_event e)
{
	e->prev = q->tail;
	if (q->tail)
		q->tail->next = e;
	else
		q->head = e;
	q->tail = e;
	e->in_queue = true;
	atomic_fetch_add(&q->outstanding, 1);
}

/* Caller holds the lock. */
static void flush_queue(struct pump *p, cl_command_queue q)
{
	for (cl_event e = q->head; e; e = e->next) {
		if (e->unflushed) {
			e->unflushed = false;
			undepend(p, e);
		}
	}
}

static cl_int wait_done(cl_event e)
{
	while (!is_done(e))
		pthread_cond_wait(&changed, &lock);
	return atomic_load(&e->status) < 0 ? CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST : CL_SUCCESS;
}

static cl_int submit_held(cl_command_queue q, cl_command_type type, const struct nl_op *op, bool blocking,
			  cl_uint nwait, const cl_event *wait, cl_event *ret_event)
{
	cl_event e = event_new(q, type);
	struct pump p;
	cl_int r = CL_SUCCESS;

	if (!e)
		return CL_OUT_OF_HOST_MEMORY;
	e->op = *op;
	for (int i = 0; i < 2; i++)
		if (op->mem[i])
			nl_mem_pin(op->mem[i]);
	pump_init(&p);
	pthread_mutex_lock(&lock);
	atomic_fetch_add(&e->o.life,
			 1); /* the queue's reference; the first one is the application's or ours */
	e->ndeps = 1; /* not before everything is linked */
	bool ok = link_order(q, e, nwait);

	for (cl_uint i = 0; i < nwait && ok; i++)
		ok = depend(e, wait[i], false);
	e->failed |= !ok; /* out of memory: the command fails instead of running out of order */
	link_to_queue(q, e);
	if (nl_config.lazy && !blocking) {
		e->unflushed = true;
		e->ndeps++;
	} else if (nl_config.lazy) {
		flush_queue(&p, q);
	}
	undepend(&p, e);
	run_ready(&p);
	if (blocking)
		r = wait_done(e);
	pthread_mutex_unlock(&lock);
	if (ret_event)
		*ret_event = e;
	else
		nl_clReleaseEvent(e);
	return r;
}

cl_int nl_submit(cl_command_queue q, cl_command_type type, const struct nl_op *op, bool blocking,
		 cl_uint nwait, const cl_event *wait, cl_event *ret_event)
{
	bool open;
	cl_int r = check_wait_list(q, nwait, wait, &open);

	if (r) {
		free(op->heap);
		return r;
	}
	if (!open && !op->cost_ns && !nl_config.lazy && atomic_load(&q->outstanding) == 0)
		return submit_now(q, type, op, ret_event);
	return submit_held(q, type, op, blocking, nwait, wait, ret_event);
}

/* Entry points about events and queue progress */

cl_int nl_clFlush(cl_command_queue q)
{
	struct pump p;

	NL_ENTER(clFlush);
	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	if (!nl_config.lazy)
		return CL_SUCCESS;
	pump_init(&p);
	pthread_mutex_lock(&lock);
	flush_queue(&p, q);
	run_ready(&p);
	pthread_mutex_unlock(&lock);
	return CL_SUCCESS;
}

cl_int nl_clFinish(cl_command_queue q)
{
	struct pump p;

	NL_ENTER(clFinish);
	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	if (atomic_load(&q->outstanding) == 0)
		return CL_SUCCESS;
	pump_init(&p);
	pthread_mutex_lock(&lock);
	flush_queue(&p, q);
	run_ready(&p);
	while (atomic_load(&q->outstanding) > 0)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	return CL_SUCCESS;
}

cl_int nl_clWaitForEvents(cl_uint n, const cl_event *events)
{
	struct pump p;
	cl_int r = CL_SUCCESS;

	NL_ENTER(clWaitForEvents);
	if (n == 0 || !events)
		return CL_INVALID_VALUE;
	for (cl_uint i = 0; i < n; i++) {
		if (!NL_IS(events[i], NL_MAGIC_EVENT))
			return CL_INVALID_EVENT;
		if (events[i]->context != events[0]->context)
			return CL_INVALID_CONTEXT;
	}
	pump_init(&p);
	pthread_mutex_lock(&lock);
	for (cl_uint i = 0; i < n; i++)
		if (events[i]->queue && !is_done(events[i]))
			flush_queue(&p, events[i]->queue);
	run_ready(&p);
	for (cl_uint i = 0; i < n; i++)
		if (wait_done(events[i]))
			r = CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST;
	pthread_mutex_unlock(&lock);
	return r;
}

cl_event nl_clCreateUserEvent(cl_context context, cl_int *ret_err)
{
	cl_event e;

	NL_ENTER_PTR(clCreateUserEvent, ret_err);
	if (!NL_IS(context, NL_MAGIC_CONTEXT))
		return nl_fail(ret_err, CL_INVALID_CONTEXT);
	e = nl_new(sizeof(*e), NL_MAGIC_EVENT);
	if (!e)
		return nl_fail(ret_err, CL_OUT_OF_HOST_MEMORY);
	e->context = context;
	e->type = CL_COMMAND_USER;
	atomic_init(&e->status, CL_SUBMITTED);
	nl_fail(ret_err, CL_SUCCESS);
	return e;
}

cl_int nl_clSetUserEventStatus(cl_event e, cl_int status)
{
	struct pump p;

	NL_ENTER(clSetUserEventStatus);
	if (!NL_IS(e, NL_MAGIC_EVENT) || e->type != CL_COMMAND_USER)
		return CL_INVALID_EVENT;
	if (status > CL_COMPLETE)
		return CL_INVALID_VALUE;
	pump_init(&p);
	pthread_mutex_lock(&lock);
	if (is_done(e)) {
		pthread_mutex_unlock(&lock);
		return CL_INVALID_OPERATION;
	}
	complete(&p, e, status);
	run_ready(&p);
	pthread_mutex_unlock(&lock);
	return CL_SUCCESS;
}

cl_int nl_clSetEventCallback(cl_event e, cl_int type, void(CL_CALLBACK *fn)(cl_event, cl_int, void *),
			     void *user)
{
	struct event_callback *ec;

	NL_ENTER(clSetEventCallback);
	if (!NL_IS(e, NL_MAGIC_EVENT))
		return CL_INVALID_EVENT;
	if (!fn || (type != CL_COMPLETE && type != CL_RUNNING && type != CL_SUBMITTED))
		return CL_INVALID_VALUE;
	ec = malloc(sizeof(*ec));
	if (!ec)
		return CL_OUT_OF_HOST_MEMORY;
	pthread_mutex_lock(&lock);
	if (is_done(e)) {
		cl_int status = atomic_load(&e->status);

		pthread_mutex_unlock(&lock);
		free(ec);
		fn(e, status < 0 ? status : type, user);
		return CL_SUCCESS;
	}
	*ec = (struct event_callback){
		.c = { .next = e->callbacks, .fn = (void *)fn, .user = user, .type = type }, .event = e
	};
	e->callbacks = &ec->c;
	atomic_fetch_add(&e->o.life, 1);
	pthread_mutex_unlock(&lock);
	return CL_SUCCESS;
}
