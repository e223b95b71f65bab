/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command queues: profiling forced on and hidden, the sub-device of a contract with fewer units, our count of references
 * (the API has no destructor callback for queues), and the flush of everything that this process has queued.
 */
#include "shim/opencl/cl.h"

#include "base/auto.h"

#include <stdlib.h>
#include <string.h>

struct pen_map pen_cl_queues;
_Thread_local struct pen_cl_thread pen_cl_thread __attribute__((tls_model("initial-exec")));

static void link_queue(struct pen_cl_queue *q)
{
	struct pen_cl_device *d = q->device;
	pen_forklock_take(&d->lock);
	q->next = d->queues;
	q->link = &d->queues;
	if (q->next)
		q->next->link = &q->next;
	d->queues = q;
	pen_forklock_give(&d->lock);
}

/* No flush_all() is in the queue afterwards: what one had pinned is let go first. A flush never blocks, so this is short. */
static void unlink_queue(struct pen_cl_queue *q)
{
	struct pen_cl_device *d = q->device;
	pen_forklock_take(&d->lock);
	*q->link = q->next;
	if (q->next)
		q->next->link = q->link;
	pen_forklock_give(&d->lock);
	uint32_t pins;
	while ((pins = atomic_load(&q->pins)) != 0)
		pen_futex_wait(&q->pins, pins, UINT64_C(1000000));
}

/* The loader has made @id. Return: @id, or NULL with a code and @id released. */
static cl_command_queue adopt(cl_command_queue id, struct pen_cl_device *d, struct pen_cl_queue *q, cl_int *err)
{
	uint32_t flags = q->out_of_order ? PEN_QUEUE_OUT_OF_ORDER : 0;
	q->id = id;
	q->device = d;
	q->owner = &pen_cl_thread;
	atomic_init(&q->refs, 1);
	if (pen_gate_queue_create(d->gate, q, flags, &q->gate) == 0) {
		if (pen_map_put(&pen_cl_queues, id, q) == 0) {
			link_queue(q);
			return id;
		}
		pen_gate_queue_destroy(q->gate);
	}
	BELOW(clReleaseCommandQueue)(id);
	free(q->properties);
	free(q);
	return pen_cl_fail(err, CL_OUT_OF_HOST_MEMORY);
}

cl_command_queue pen_clCreateCommandQueue(cl_context ctx, cl_device_id device, cl_command_queue_properties props, cl_int *err)
{
	struct pen_cl_device *d = pen_cl_device(device);
	if (!d)
		return BELOW(clCreateCommandQueue)(ctx, device, props, err);
	if (!pen_cl_gate(d))
		return pen_cl_fail(err, CL_OUT_OF_RESOURCES);
	struct pen_cl_queue *q = calloc(1, sizeof(*q));
	if (!q)
		return pen_cl_fail(err, CL_OUT_OF_HOST_MEMORY);
	cl_device_id on = pen_cl_queue_device(d, device);
	cl_command_queue_properties with = props | CL_QUEUE_PROFILING_ENABLE;
	cl_int code = CL_SUCCESS;
	cl_command_queue id = BELOW(clCreateCommandQueue)(ctx, on, with, &code);
	if (!id && on != device)    /* a strict driver: the sub-device is not in the context */
		id = BELOW(clCreateCommandQueue)(ctx, device, with, &code);
	q->stamped = id != NULL;
	if (!id)                    /* with the application's own words: its code, or a driver without profiling */
		id = BELOW(clCreateCommandQueue)(ctx, device, props, &code);
	if (!id) {
		free(q);
		return pen_cl_fail(err, code);
	}
	q->out_of_order = (props & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE) != 0;
	q->asked_profiling = (props & CL_QUEUE_PROFILING_ENABLE) != 0;
	if (err)
		*err = CL_SUCCESS;
	return adopt(id, d, q, err);
}

/* Copy of a property list with the profiling bit added. NULL: out of memory. */
static cl_queue_properties *with_profiling(const cl_queue_properties *props, size_t n, cl_command_queue_properties *ret_bits)
{
	cl_queue_properties *p = calloc(n + 3, sizeof(*p));
	size_t at = 0;
	bool found = false;
	if (!p)
		return NULL;
	for (; props && props[at]; at += 2) {
		p[at] = props[at];
		p[at + 1] = props[at + 1];
		if (props[at] == CL_QUEUE_PROPERTIES) {
			*ret_bits = props[at + 1];
			p[at + 1] |= CL_QUEUE_PROFILING_ENABLE;
			found = true;
		}
	}
	if (!found) {
		p[at] = CL_QUEUE_PROPERTIES;
		p[at + 1] = CL_QUEUE_PROFILING_ENABLE;
	}
	return p;
}

static size_t list_length(const cl_queue_properties *props)
{
	size_t n = 0;
	while (props && props[n])
		n += 2;
	return props ? n + 1 : 0;
}

cl_command_queue pen_cl_create_queue(pen_cl_create_fn create, cl_context ctx, cl_device_id device,
				     const cl_queue_properties *props, cl_int *err)
{
	struct pen_cl_device *d = pen_cl_device(device);
	if (!d)
		return create(ctx, device, props, err);
	if (!pen_cl_gate(d))
		return pen_cl_fail(err, CL_OUT_OF_RESOURCES);
	size_t n = list_length(props);
	cl_command_queue_properties bits = 0;
	pen_auto_free cl_queue_properties *with = with_profiling(props, n, &bits);
	pen_auto_free struct pen_cl_queue *q = calloc(1, sizeof(*q));
	pen_auto_free cl_queue_properties *own = n ? calloc(n, sizeof(*own)) : NULL;
	if (!with || !q || (n && !own))
		return pen_cl_fail(err, CL_OUT_OF_HOST_MEMORY);
	if (bits & CL_QUEUE_ON_DEVICE)      /* the device would enqueue past the gate; its capability is hidden, too */
		return pen_cl_fail(err, CL_INVALID_QUEUE_PROPERTIES);
	if (n)
		memcpy(own, props, n * sizeof(*own));
	cl_device_id on = pen_cl_queue_device(d, device);
	cl_int code = CL_SUCCESS;
	cl_command_queue id = create(ctx, on, with, &code);
	if (!id && on != device)
		id = create(ctx, device, with, &code);
	q->stamped = id != NULL;
	if (!id)
		id = create(ctx, device, props, &code);
	if (!id)
		return pen_cl_fail(err, code);
	q->out_of_order = (bits & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE) != 0;
	q->asked_profiling = (bits & CL_QUEUE_PROFILING_ENABLE) != 0;
	q->nproperties = n;
	q->properties = PEN_TAKE_PTR(own);
	if (err)
		*err = CL_SUCCESS;
	return adopt(id, d, PEN_TAKE_PTR(q), err);
}

cl_command_queue pen_clCreateCommandQueueWithProperties(cl_context ctx, cl_device_id device, const cl_queue_properties *props,
							cl_int *err)
{
	return pen_cl_create_queue(BELOW(clCreateCommandQueueWithProperties), ctx, device, props, err);
}

cl_int pen_clRetainCommandQueue(cl_command_queue id)
{
	cl_int r = BELOW(clRetainCommandQueue)(id);
	struct pen_cl_queue *q = r == CL_SUCCESS ? pen_cl_queue(id) : NULL;
	if (q)
		atomic_fetch_add(&q->refs, 1);
	return r;
}

cl_int pen_clReleaseCommandQueue(cl_command_queue id)
{
	struct pen_cl_queue *q = pen_cl_queue(id);
	if (!q || atomic_fetch_sub(&q->refs, 1) != 1)
		return BELOW(clReleaseCommandQueue)(id);
	/* The last one. Ours goes first, since the handle may be in use anew afterwards. */
	unlink_queue(q);
	pen_map_take(&pen_cl_queues, id);
	pen_gate_queue_destroy(q->gate);
	cl_int r = BELOW(clReleaseCommandQueue)(id);
	cl_event blocked = atomic_exchange(&q->blocked, NULL);
	if (blocked)
		BELOW(clReleaseEvent)(blocked);
	free(q->properties);
	free(q);
	return r;
}

cl_int pen_clSetCommandQueueProperty(cl_command_queue id, cl_command_queue_properties props, cl_bool enable,
				     cl_command_queue_properties *old)
{
	struct pen_cl_queue *q = pen_cl_queue(id);
	if (!q)
		return BELOW(clSetCommandQueueProperty)(id, props, enable, old);
	/* Profiling stays on below us, whatever the application turns off. */
	cl_command_queue_properties pass = enable ? props : props & ~(cl_command_queue_properties)CL_QUEUE_PROFILING_ENABLE;
	cl_int r = BELOW(clSetCommandQueueProperty)(id, pass, enable, old);
	if (r != CL_SUCCESS)
		return r;
	if (old && !q->asked_profiling)
		*old &= ~(cl_command_queue_properties)CL_QUEUE_PROFILING_ENABLE;
	if (props & CL_QUEUE_PROFILING_ENABLE)
		q->asked_profiling = enable != CL_FALSE;
	return r;
}

cl_int pen_clGetCommandQueueInfo(cl_command_queue id, cl_command_queue_info what, size_t size, void *value, size_t *ret_size)
{
	struct pen_cl_queue *q = pen_cl_queue(id);
	if (q && what == CL_QUEUE_PROPERTIES_ARRAY && q->properties)
		return pen_cl_answer(q->properties, q->nproperties * sizeof(*q->properties), size, value, ret_size);
	if (q && what == CL_QUEUE_PROPERTIES_ARRAY)
		return pen_cl_answer("", 0, size, value, ret_size);
	cl_int r = BELOW(clGetCommandQueueInfo)(id, what, size, value, ret_size);
	if (!q || r != CL_SUCCESS || !value)
		return r;
	if (what == CL_QUEUE_PROPERTIES && !q->asked_profiling)
		*(cl_command_queue_properties *)value &= ~(cl_command_queue_properties)CL_QUEUE_PROFILING_ENABLE;
	if (what == CL_QUEUE_DEVICE && *(cl_device_id *)value == atomic_load(&q->device->sub))
		*(cl_device_id *)value = q->device->id;
	return r;
}

void pen_cl_queue_ran(struct pen_cl_queue *q, cl_event event)
{
	atomic_store_explicit(&q->dirty, 1, memory_order_relaxed);
	if (q->owner != &pen_cl_thread && !atomic_load_explicit(&q->shared, memory_order_relaxed))
		atomic_store_explicit(&q->shared, true, memory_order_relaxed);
	if (atomic_load_explicit(&q->last_event, memory_order_relaxed) != event)
		atomic_store_explicit(&q->last_event, event, memory_order_relaxed);
}

/* Adapter slot. Queues are pinned under the lock and flushed outside of it: no lock is held across a vendor call. */
void pen_cl_flush_all(void *device)
{
	struct pen_cl_device *d = device;
	struct pen_cl_queue *batch[16];
	for (int round = 0; round < 64; round++) {
		uint32_t n = 0;
		pen_forklock_take(&d->lock);
		for (struct pen_cl_queue *q = d->queues; q && n < PEN_ARRAY_LEN(batch); q = q->next) {
			if (!atomic_exchange_explicit(&q->dirty, 0, memory_order_acq_rel))
				continue;
			atomic_fetch_add(&q->pins, 1);
			batch[n++] = q;
		}
		pen_forklock_give(&d->lock);
		for (uint32_t i = 0; i < n; i++) {
			BELOW(clFlush)(batch[i]->id);
			if (atomic_fetch_sub(&batch[i]->pins, 1) == 1)
				pen_futex_wake(&batch[i]->pins, 1);   /* the record may be gone: an address is all it takes */
		}
		if (n < PEN_ARRAY_LEN(batch))
			return;
	}
}
