/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared virtual memory has no object and so no destructor callback: its charges are found by pointer.
 * clEnqueueSVMFree frees when its command completes; the bytes are credited then, not at the call.
 */
#include "shim/opencl/cl.h"

#include <stdlib.h>

struct svm {
	struct pen_cl_context *context;
	uint64_t bytes;
	uint32_t process;   /* that was charged */
};

static struct pen_map allocations;

void *pen_clSVMAlloc(cl_context ctx, cl_svm_mem_flags flags, size_t size, cl_uint align)
{
	struct pen_cl_context *c = pen_cl_context(ctx);
	if (!c)
		return BELOW(clSVMAlloc)(ctx, flags, size, align);
	if (c->version < 20)   /* Oclgrind (1.2) never returns from the call */
		return NULL;
	struct svm *s = malloc(sizeof(*s));
	if (!s)
		return NULL;
	if (pen_cl_charge(c, size) != CL_SUCCESS) {
		free(s);
		return NULL;
	}
	s->context = c;
	s->bytes = size;
	s->process = pen_forklock_process();
	void *ptr = BELOW(clSVMAlloc)(ctx, flags, size, align);
	if (ptr && pen_map_put(&allocations, ptr, s) == 0)
		return ptr;
	if (ptr)
		BELOW(clSVMFree)(ctx, ptr);
	pen_cl_refund(c, size);
	free(s);
	return NULL;
}

static void credit(struct svm *s)
{
	if (s && s->process == pen_forklock_process())
		pen_cl_credit(s->context, s->bytes);
	free(s);
}

void pen_clSVMFree(cl_context ctx, void *ptr)
{
	/* Out of the table before the native call: afterwards another thread may get the same address. */
	struct svm *s = ptr ? pen_map_take(&allocations, ptr) : NULL;
	BELOW(clSVMFree)(ctx, ptr);
	credit(s);
}

/* ---- clEnqueueSVMFree --------------------------------------------------------------------------------------------- */

struct freed {
	uint32_t n;
	struct svm *svm[];
};

static void CL_CALLBACK freed_now(cl_event e, cl_int status, void *user)
{
	struct freed *f = user;
	(void)e, (void)status;
	for (uint32_t i = 0; i < f->n; i++)
		credit(f->svm[i]);
	free(f);
}

struct args_free {
	cl_uint n;
	void **ptrs;
	void (CL_CALLBACK *fn)(cl_command_queue, cl_uint, void **, void *);
	void *user;
};

struct free_callback {
	void (CL_CALLBACK *fn)(cl_command_queue, cl_uint, void **, void *);
	void *user;
};

/* The application frees by itself in here, by clSVMFree, which is ours. */
static void CL_CALLBACK call_application(cl_command_queue id, cl_uint n, void **ptrs, void *user)
{
	struct free_callback copy = *(struct free_callback *)user;
	free(user);
	pen_cl_thread.callbacks++;
	copy.fn(id, n, ptrs, copy.user);
	pen_cl_thread.callbacks--;
}

static cl_int run_free(struct pen_cl_cmd *c, const struct pen_piece *p, cl_uint nwait, const cl_event *wait, cl_event *event)
{
	const struct args_free *a = c->args;
	(void)p;
	if (!a->fn) {
		/* Our credit hangs on the event; the driver's own freeing has been done when it completes. */
		struct freed *f = c->result;
		cl_event own = NULL, *e = event ? event : f ? &own : NULL;
		cl_int r = BELOW(clEnqueueSVMFree)(c->queue->id, a->n, a->ptrs, NULL, NULL, nwait, wait, e);
		if (r == CL_SUCCESS && f) {
			if (BELOW(clSetEventCallback)(*e, CL_COMPLETE, freed_now, f) != CL_SUCCESS)
				freed_now(NULL, CL_COMPLETE, f);
			c->result = NULL;
		}
		if (own)
			BELOW(clReleaseEvent)(own);
		return r;
	}
	struct free_callback *cb = malloc(sizeof(*cb));
	if (!cb)
		return CL_OUT_OF_HOST_MEMORY;
	cb->fn = a->fn;
	cb->user = a->user;
	cl_int r = BELOW(clEnqueueSVMFree)(c->queue->id, a->n, a->ptrs, call_application, cb, nwait, wait, event);
	if (r != CL_SUCCESS)
		free(cb);
	return r;
}

static void put_back(struct freed *f, void **ptrs, cl_uint n)
{
	for (cl_uint i = 0; i < n; i++)
		if (f->svm[i] && pen_map_put(&allocations, ptrs[i], f->svm[i]))
			free(f->svm[i]);   /* no memory even for that: the charge stays, too strict */
	free(f);
}

cl_int pen_clEnqueueSVMFree(cl_command_queue id, cl_uint n, void *ptrs[],
			    void (CL_CALLBACK *fn)(cl_command_queue, cl_uint, void **, void *), void *user, cl_uint nwait,
			    const cl_event *wait, cl_event *event)
{
	struct pen_cl_queue *q = pen_cl_queue(id);
	if (!q)
		return BELOW(clEnqueueSVMFree)(id, n, ptrs, fn, user, nwait, wait, event);
	struct args_free a = { .n = n, .ptrs = ptrs, .fn = fn, .user = user };
	struct pen_cl_cmd cmd = { .run = run_free, .args = &a, .queue = q, .nwait = nwait, .wait = wait, .event = event };
	struct pen_gate_cmd g = { .kind = PEN_CMD_COUNT_ONLY, .est_ns = PEN_COST_FLOOR_NS, .flags = PEN_CMD_NO_WAIT };
	struct freed *f = NULL;
	if (!fn && n && ptrs) {
		f = calloc(1, sizeof(*f) + n * sizeof(f->svm[0]));
		if (!f)
			return CL_OUT_OF_HOST_MEMORY;
		f->n = n;
		for (cl_uint i = 0; i < n; i++)
			f->svm[i] = ptrs[i] ? pen_map_take(&allocations, ptrs[i]) : NULL;
	}
	cmd.result = f;
	cl_int r = pen_cl_submit(&cmd, &g);
	if (f && cmd.result)
		put_back(f, ptrs, n);
	return r;
}
