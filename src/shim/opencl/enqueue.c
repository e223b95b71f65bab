/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All enqueue-type calls but kernels: through the gate, in the caller's thread, in the caller's order. Nothing is put off
 * and nothing overtakes, so a map never shows stale data and arguments need not be captured.
 *
 * The calls of the common shape are made from the rows of api/opencl.def: a structure of the arguments, the native call,
 * and the wrapper. Maps, markers, barriers and the calls without event are written out below.
 */
#include "shim/opencl/cl.h"

#include <string.h>

uint64_t pen_cl_hash(uint64_t h, const void *data, size_t n)
{
	const unsigned char *p = data;   /* FNV-1a: names and sources, seldom */
	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return h;
}

uint64_t pen_cl_region(const size_t *region)
{
	return region ? (uint64_t)region[0] * region[1] * region[2] : 0;
}

uint64_t pen_cl_pixels(cl_mem image, const size_t *region)
{
	size_t element = 0;
	if (!image || !region || BELOW(clGetImageInfo)(image, CL_IMAGE_ELEMENT_SIZE, sizeof(element), &element, NULL) != CL_SUCCESS)
		return 0;
	return pen_cl_region(region) * element;
}

struct pen_cost *pen_cl_call_cost(struct pen_cl_queue *q, const char *name, uint64_t bytes)
{
	/* Powers of two: copies differ in size all the time, and a cost record is kept for ever. */
	uint64_t size = bytes ? UINT64_C(1) << (63 - __builtin_clzll(bytes)) : 0;
	return pen_gate_cost(q->device->gate, pen_cl_hash(PEN_CL_HASH_INIT, name, strlen(name)), size);
}

/*
 * To the other threads that use an in-order queue a launch is one command, also in pieces: nothing of theirs may come to
 * stand between two of them. They wait until the last is submitted; in front of a call of theirs that is under way already
 * (a blocking one may be for long) a kernel is left whole. The cutter never waits for them, so that it always ends.
 * A callback must not wait and goes on. So does a launch on the fast path, which has no credit while pieces are admitted.
 */
static void come_in(struct pen_cl_queue *q, struct pen_gate_cmd *g)
{
	const void *me = &pen_cl_thread, *by;
	for (;;) {
		uint32_t seen = atomic_load(&q->cuts);
		atomic_fetch_add(&q->inside, 1);
		by = atomic_load(&q->cutter);   /* after we came in: the cutter has seen us, or we see it */
		if (!by || by == me || pen_cl_thread.callbacks)
			break;
		atomic_fetch_sub(&q->inside, 1);
		atomic_fetch_add(&q->cut_waiters, 1);
		if (atomic_load(&q->cutter))
			pen_futex_wait(&q->cuts, seen, UINT64_C(20000000));
		atomic_fetch_sub(&q->cut_waiters, 1);
	}
	if (g->slices <= 1)
		return;
	by = NULL;
	if (atomic_load(&q->inside) == 1 && atomic_compare_exchange_strong(&q->cutter, &by, me)) {
		if (atomic_load(&q->inside) == 1)
			return;
		atomic_store(&q->cutter, NULL);
	}
	g->slices = g->wave = 1;
}

static void go_out(struct pen_cl_queue *q, bool cut)
{
	atomic_fetch_sub(&q->inside, 1);
	if (!cut)
		return;
	atomic_store(&q->cutter, NULL);
	atomic_fetch_add(&q->cuts, 1);
	if (atomic_load(&q->cut_waiters))
		pen_futex_wake(&q->cuts, INT32_MAX);
}

cl_int pen_cl_submit(struct pen_cl_cmd *cmd, struct pen_gate_cmd *g)
{
	struct pen_cl_queue *q = cmd->queue;
	if ((cmd->wait && cmd->nwait) || atomic_load_explicit(&q->blocked, memory_order_acquire)) {
		if (!pen_cl_runnable(q, cmd->nwait, cmd->wait, &cmd->blocked))
			g->flags |= PEN_CMD_NOT_RUNNABLE;
	}
	if (cmd->blocking)
		g->flags |= PEN_CMD_BLOCKING;
	g->native = cmd;
	if (!g->slices)
		g->slices = g->wave = 1;
	if (!q->out_of_order)
		come_in(q, g);
	cl_int r = pen_gate_submit(q->gate, g);
	if (!q->out_of_order)
		go_out(q, g->slices > 1);
	if (cmd->barrier && (cmd->blocked || atomic_load_explicit(&q->blocked, memory_order_relaxed)))
		atomic_store(&q->walled, true);
	if (cmd->first)
		BELOW(clReleaseEvent)(cmd->first);
	if (cmd->chain)
		BELOW(clReleaseEvent)(cmd->chain);
	return r;
}

/* A command of the common shape. */
static cl_int submit_call(struct pen_cl_cmd *cmd, const char *name, enum pen_cmd_kind kind, uint64_t bytes)
{
	struct pen_gate_cmd g = { .kind = kind, .bytes = bytes };
	if (kind == PEN_CMD_COUNT_ONLY)
		g.flags = PEN_CMD_NO_WAIT;
	else
		g.cost = pen_cl_call_cost(cmd->queue, name, bytes);
	if (!g.cost)
		g.est_ns = PEN_COST_FLOOR_NS;
	return pen_cl_submit(cmd, &g);
}

/* ---- the rows --------------------------------------------------------------------------------------------------- */

#define FIELD(type, name) type name;
#define PARAMETER(type, name) type name
#define TAKE(type, name) .name = name
#define GIVE(type, name) a->name
#define NOTHING()
#define COMMA() ,

#define PEN_CL_ENQ(fn, kind, bytes, blocks, ARGS)                                                                         \
	struct args_##fn { ARGS(FIELD, NOTHING) };                                                                        \
	static cl_int run_##fn(struct pen_cl_cmd *c, const struct pen_piece *p, cl_uint nwait, const cl_event *wait,      \
			       cl_event *event)                                                                           \
	{                                                                                                                 \
		const struct args_##fn *a = c->args;                                                                      \
		(void)p;                                                                                                  \
		return BELOW(fn)(c->queue->id, ARGS(GIVE, COMMA), nwait, wait, event);                                    \
	}                                                                                                                 \
	cl_int pen_##fn(cl_command_queue id, ARGS(PARAMETER, COMMA), cl_uint nwait, const cl_event *wait, cl_event *event)\
	{                                                                                                                 \
		struct pen_cl_queue *q = pen_cl_queue(id);                                                                \
		const struct args_##fn packed = { ARGS(TAKE, COMMA) }, *a = &packed;                                        \
		if (!q)                                                                                                   \
			return BELOW(fn)(id, ARGS(GIVE, COMMA), nwait, wait, event);                                      \
		struct pen_cl_cmd cmd = { .run = run_##fn, .args = a, .queue = q, .nwait = nwait, .wait = wait,           \
					  .event = event, .blocking = (blocks) != 0 };                                    \
		return submit_call(&cmd, #fn, PEN_CMD_##kind, bytes);                                                     \
	}
#include "api/opencl.def"

/* ---- maps: they return a pointer ---------------------------------------------------------------------------------- */

struct args_map {
	cl_mem mem;
	cl_bool blocking;
	cl_map_flags flags;
	size_t offset, size;                /* buffer */
	const size_t *origin, *region;      /* image */
	size_t *row, *slice;
};

static cl_int run_map_buffer(struct pen_cl_cmd *c, const struct pen_piece *p, cl_uint nwait, const cl_event *wait,
			     cl_event *event)
{
	const struct args_map *a = c->args;
	cl_int code = CL_SUCCESS;
	(void)p;
	c->result = BELOW(clEnqueueMapBuffer)(c->queue->id, a->mem, a->blocking, a->flags, a->offset, a->size, nwait, wait,
					      event, &code);
	return code;
}

static cl_int run_map_image(struct pen_cl_cmd *c, const struct pen_piece *p, cl_uint nwait, const cl_event *wait,
			    cl_event *event)
{
	const struct args_map *a = c->args;
	cl_int code = CL_SUCCESS;
	(void)p;
	c->result = BELOW(clEnqueueMapImage)(c->queue->id, a->mem, a->blocking, a->flags, a->origin, a->region, a->row,
					     a->slice, nwait, wait, event, &code);
	return code;
}

static void *map(struct pen_cl_cmd *cmd, const char *name, uint64_t bytes, cl_int *err)
{
	const struct args_map *a = cmd->args;
	/* Where host and device share memory nothing is moved. */
	if (cmd->queue->device->unified)
		bytes = 0;
	cmd->blocking = a->blocking != CL_FALSE;
	cl_int r = submit_call(cmd, name, bytes || cmd->blocking ? PEN_CMD_COPY : PEN_CMD_COUNT_ONLY, bytes);
	if (err)
		*err = r;
	return r == CL_SUCCESS ? cmd->result : NULL;
}

void *pen_clEnqueueMapBuffer(cl_command_queue id, cl_mem mem, cl_bool blocking, cl_map_flags flags, size_t offset, size_t size,
			     cl_uint nwait, const cl_event *wait, cl_event *event, cl_int *err)
{
	struct pen_cl_queue *q = pen_cl_queue(id);
	if (!q)
		return BELOW(clEnqueueMapBuffer)(id, mem, blocking, flags, offset, size, nwait, wait, event, err);
	struct args_map a = { .mem = mem, .blocking = blocking, .flags = flags, .offset = offset, .size = size };
	struct pen_cl_cmd cmd = { .run = run_map_buffer, .args = &a, .queue = q, .nwait = nwait, .wait = wait, .event = event };
	return map(&cmd, "clEnqueueMapBuffer", size, err);
}

void *pen_clEnqueueMapImage(cl_command_queue id, cl_mem image, cl_bool blocking, cl_map_flags flags, const size_t *origin,
			    const size_t *region, size_t *row, size_t *slice, cl_uint nwait, const cl_event *wait,
			    cl_event *event, cl_int *err)
{
	struct pen_cl_queue *q = pen_cl_queue(id);
	if (!q)
		return BELOW(clEnqueueMapImage)(id, image, blocking, flags, origin, region, row, slice, nwait, wait, event, err);
	struct args_map a = { .mem = image, .blocking = blocking, .flags = flags, .origin = origin, .region = region,
			      .row = row, .slice = slice };
	struct pen_cl_cmd cmd = { .run = run_map_image, .args = &a, .queue = q, .nwait = nwait, .wait = wait, .event = event };
	return map(&cmd, "clEnqueueMapImage", pen_cl_pixels(image, region), err);
}

/* ---- markers, barriers and the like: counted, never held -------------------------------------------------------- */

/*
 * A barrier, or a wait without event, that depends on something which may never happen blocks its queue even out of
 * order: finish_piece() keeps its event, as of any blocked command.
 */
#define PEN_CL_COUNTED(fn, is_barrier)                                                                                    \
	static cl_int run_##fn(struct pen_cl_cmd *c, const struct pen_piece *p, cl_uint nwait, const cl_event *wait,      \
			       cl_event *event)                                                                           \
	{                                                                                                                 \
		(void)p;                                                                                                  \
		return BELOW(fn)(c->queue->id, nwait, wait, event);                                                       \
	}                                                                                                                 \
	cl_int pen_##fn(cl_command_queue id, cl_uint nwait, const cl_event *wait, cl_event *event)                        \
	{                                                                                                                 \
		struct pen_cl_queue *q = pen_cl_queue(id);                                                                \
		if (!q)                                                                                                   \
			return BELOW(fn)(id, nwait, wait, event);                                                         \
		struct pen_cl_cmd cmd = { .run = run_##fn, .queue = q, .nwait = nwait, .wait = wait, .event = event,      \
					  .barrier = (is_barrier) };                                              \
		return submit_call(&cmd, #fn, PEN_CMD_COUNT_ONLY, 0);                                                     \
	}
PEN_CL_COUNTED(clEnqueueMarkerWithWaitList, false)
PEN_CL_COUNTED(clEnqueueBarrierWithWaitList, true)

static cl_int run_marker(struct pen_cl_cmd *c, const struct pen_piece *p, cl_uint nwait, const cl_event *wait, cl_event *event)
{
	cl_event own = NULL;   /* the old call insists on an event */
	(void)p, (void)nwait, (void)wait;
	cl_int r = BELOW(clEnqueueMarker)(c->queue->id, event ? event : &own);
	if (own)
		BELOW(clReleaseEvent)(own);
	return r;
}

cl_int pen_clEnqueueMarker(cl_command_queue id, cl_event *event)
{
	struct pen_cl_queue *q = pen_cl_queue(id);
	if (!q || !event)
		return BELOW(clEnqueueMarker)(id, event);
	struct pen_cl_cmd cmd = { .run = run_marker, .queue = q, .event = event };
	return submit_call(&cmd, "clEnqueueMarker", PEN_CMD_COUNT_ONLY, 0);
}

/* The event of a call that gives none: a marker right behind it. */
static cl_int marker_behind(struct pen_cl_queue *q, cl_event *event)
{
	return event ? BELOW(clEnqueueMarker)(q->id, event) : CL_SUCCESS;
}

static cl_int run_wait(struct pen_cl_cmd *c, const struct pen_piece *p, cl_uint nwait, const cl_event *wait, cl_event *event)
{
	(void)p;
	cl_int r = BELOW(clEnqueueWaitForEvents)(c->queue->id, nwait, wait);
	return r == CL_SUCCESS ? marker_behind(c->queue, event) : r;
}

cl_int pen_clEnqueueWaitForEvents(cl_command_queue id, cl_uint n, const cl_event *list)
{
	struct pen_cl_queue *q = pen_cl_queue(id);
	if (!q)
		return BELOW(clEnqueueWaitForEvents)(id, n, list);
	struct pen_cl_cmd cmd = { .run = run_wait, .queue = q, .nwait = n, .wait = list, .barrier = true };
	return submit_call(&cmd, "clEnqueueWaitForEvents", PEN_CMD_COUNT_ONLY, 0);
}

static cl_int run_barrier(struct pen_cl_cmd *c, const struct pen_piece *p, cl_uint nwait, const cl_event *wait, cl_event *event)
{
	(void)p, (void)nwait, (void)wait;
	cl_int r = BELOW(clEnqueueBarrier)(c->queue->id);
	return r == CL_SUCCESS ? marker_behind(c->queue, event) : r;
}

cl_int pen_clEnqueueBarrier(cl_command_queue id)
{
	struct pen_cl_queue *q = pen_cl_queue(id);
	if (!q)
		return BELOW(clEnqueueBarrier)(id);
	struct pen_cl_cmd cmd = { .run = run_barrier, .queue = q, .barrier = true };
	return submit_call(&cmd, "clEnqueueBarrier", PEN_CMD_COUNT_ONLY, 0);
}
