/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel launches: the hot path. An admitted launch is two table look-ups, one comparison with the kernel's last shape and
 * the gate's one locked operation; everything else is out of line.
 */
#include "shim/opencl/cl.h"

#include <stdlib.h>
#include <string.h>

struct launch {
	cl_kernel kernel;
	cl_uint dim;
	const size_t *offset, *global, *local;
	const struct pen_cl_shape *shape;
};

/* One piece: a range of groups along the slowest dimension, by offset. The rest of the launch is as it was. */
static cl_int run_piece(struct pen_cl_cmd *c, const struct pen_piece *p, cl_uint nwait, const cl_event *wait, cl_event *event)
{
	const struct launch *l = c->args;
	if (p->whole)
		return BELOW(clEnqueueNDRangeKernel)(c->queue->id, l->kernel, l->dim, l->offset, l->global, l->local, nwait,
						     wait, event);
	const struct pen_cl_shape *s = l->shape;
	size_t offset[3] = { 0 }, global[3];
	memcpy(global, s->global, sizeof(global));
	if (l->offset)
		memcpy(offset, l->offset, l->dim * sizeof(offset[0]));
	offset[s->cut_dim] += (size_t)p->first * s->local[s->cut_dim];
	global[s->cut_dim] = (size_t)p->count * s->local[s->cut_dim];
	return BELOW(clEnqueueNDRangeKernel)(c->queue->id, l->kernel, l->dim, offset, global, s->local, nwait, wait, event);
}

static bool same_shape(const struct pen_cl_shape *s, const struct pen_gate *gate, cl_uint dim, const size_t *global,
		       const size_t *local)
{
	if (s->gate != gate || s->dim != dim)
		return false;
	for (cl_uint i = 0; i < dim; i++)
		if (s->global[i] != global[i] || s->local[i] != (local ? local[i] : 0))
			return false;
	return true;
}

static struct pen_cl_shape *make_shape(struct pen_cl_kernel *k, struct pen_cl_queue *q, cl_uint dim, const size_t *global,
				       const size_t *local)
{
	struct pen_cl_shape *s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	uint64_t items = 1;
	for (cl_uint i = 0; i < dim; i++) {
		s->global[i] = global[i];
		s->local[i] = local ? local[i] : 0;
		items *= global[i];
	}
	s->dim = dim;
	s->gate = q->device->gate;
	s->cost = pen_gate_cost(s->gate, k->hash, items);
	pen_cl_cut_plan(k, q->device, s);
	return s;
}

/* The shape's record, made on first sight. NULL: out of memory, or more shapes than are kept: the caller makes do without. */
static struct pen_cl_shape *find_shape(struct pen_cl_kernel *k, struct pen_cl_queue *q, cl_uint dim, const size_t *global,
				       const size_t *local)
{
	struct pen_cl_shape *head = atomic_load_explicit(&k->last, memory_order_acquire);
	for (struct pen_cl_shape *s = head; s; s = s->next)
		if (same_shape(s, q->device->gate, dim, global, local))
			return s;
	if (atomic_fetch_add(&k->nshapes, 1) >= PEN_CL_SHAPES) {
		atomic_fetch_sub(&k->nshapes, 1);
		return NULL;
	}
	struct pen_cl_shape *s = make_shape(k, q, dim, global, local);
	if (!s)
		return NULL;
	do
		s->next = head;
	while (!atomic_compare_exchange_weak_explicit(&k->last, &head, s, memory_order_release, memory_order_acquire));
	return s;
}

static __attribute__((noinline)) cl_int launch(struct pen_cl_queue *q, struct pen_cl_kernel *k, const struct launch *l,
					       cl_uint nwait, const cl_event *wait, cl_event *event)
{
	struct launch with = *l;
	struct pen_cl_cmd cmd = { .run = run_piece, .args = &with, .queue = q, .nwait = nwait, .wait = wait, .event = event };
	struct pen_gate_cmd g = { .kind = PEN_CMD_KERNEL, .est_ns = PEN_COST_FLOOR_NS };
	bool readable = l->dim >= 1 && l->dim <= 3 && l->global;
	struct pen_cl_shape temporary, *s = readable ? find_shape(k, q, l->dim, l->global, l->local) : NULL;
	if (!s && readable) {
		uint64_t items = 1;
		for (cl_uint i = 0; i < l->dim; i++)
			items *= l->global[i];
		memset(&temporary, 0, sizeof(temporary));
		temporary.slices = temporary.wave = 1;
		temporary.cost = pen_gate_cost(q->device->gate, k->hash, items);
		s = &temporary;
	}
	if (s) {
		with.shape = s;
		g.cost = s->cost;
		g.slices = s->slices;
		g.wave = s->wave;
	}
	return pen_cl_submit(&cmd, &g);
}

cl_int pen_clEnqueueNDRangeKernel(cl_command_queue id, cl_kernel kernel, cl_uint dim, const size_t *offset,
				  const size_t *global, const size_t *local, cl_uint nwait, const cl_event *wait,
				  cl_event *event)
{
	struct pen_cl_queue *q = pen_cl_queue(id);
	struct pen_cl_kernel *k = pen_map_find(&pen_cl_kernels, kernel);
	if (!q)
		return BELOW(clEnqueueNDRangeKernel)(id, kernel, dim, offset, global, local, nwait, wait, event);
	if (__builtin_expect(!k, 0)) {
		k = pen_cl_kernel(kernel);
		if (!k)
			return kernel ? CL_OUT_OF_HOST_MEMORY
				      : BELOW(clEnqueueNDRangeKernel)(id, kernel, dim, offset, global, local, nwait, wait, event);
	}
	if (!nwait && !atomic_load_explicit(&q->blocked, memory_order_relaxed) && dim - 1 < 3 && global) {
		struct pen_cl_shape *s = atomic_load_explicit(&k->last, memory_order_acquire);
		while (s && !same_shape(s, q->device->gate, dim, global, local))
			s = s->next;
		if (s && pen_gate_fast(q->gate, pen_cost_est_ns(s->cost))) {
			cl_int r = BELOW(clEnqueueNDRangeKernel)(id, kernel, dim, offset, global, local, 0, wait, event);
			if (r == CL_SUCCESS)
				pen_cl_queue_ran(q, event ? *event : NULL);
			return r;
		}
	}
	struct launch l = { .kernel = kernel, .dim = dim, .offset = offset, .global = global, .local = local };
	return launch(q, k, &l, nwait, wait, event);
}

/* ---- a task is a launch of one work-item ------------------------------------------------------------------------ */

static cl_int run_task(struct pen_cl_cmd *c, const struct pen_piece *p, cl_uint nwait, const cl_event *wait, cl_event *event)
{
	const struct launch *l = c->args;
	(void)p;
	return BELOW(clEnqueueTask)(c->queue->id, l->kernel, nwait, wait, event);
}

cl_int pen_clEnqueueTask(cl_command_queue id, cl_kernel kernel, cl_uint nwait, const cl_event *wait, cl_event *event)
{
	struct pen_cl_queue *q = pen_cl_queue(id);
	struct pen_cl_kernel *k = q && kernel ? pen_cl_kernel(kernel) : NULL;
	if (!k)
		return BELOW(clEnqueueTask)(id, kernel, nwait, wait, event);
	struct launch l = { .kernel = kernel };
	struct pen_cl_cmd cmd = { .run = run_task, .args = &l, .queue = q, .nwait = nwait, .wait = wait, .event = event };
	struct pen_gate_cmd g = { .kind = PEN_CMD_KERNEL, .cost = pen_gate_cost(q->device->gate, k->hash, 1),
				  .est_ns = PEN_COST_FLOOR_NS };
	return pen_cl_submit(&cmd, &g);
}
