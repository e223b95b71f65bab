/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cl_khr_command_buffer, the part that tests of a layer need: record launches, copies and fills for one in-order queue, finalize,
 * enqueue. A command buffer runs as one command whose cost is the sum of its parts.
 */
#include "move.h"
#include "nullicd.h"
#include <stdlib.h>
#include <string.h>

#define SYNC_PARAMS \
	cl_uint nwait, const cl_sync_point_khr *wait, cl_sync_point_khr *ret_point, \
		cl_mutable_command_khr *ret_handle
#define PARTS_MAX 4096

struct _cl_command_buffer_khr {
	struct nl_obj o;
	cl_command_queue queue;
	bool final;
	cl_uint nparts;
	struct nl_op *parts;
};

cl_command_buffer_khr nl_clCreateCommandBufferKHR(cl_uint n, const cl_command_queue *queues,
						  const cl_command_buffer_properties_khr *properties,
						  cl_int *ret_err)
{
	cl_command_buffer_khr b;

	NL_ENTER_PTR(clCreateCommandBufferKHR, ret_err);
	(void)properties;
	if (n != 1 || !queues)
		return nl_fail(ret_err, CL_INVALID_VALUE);
	if (!NL_IS(queues[0], NL_MAGIC_QUEUE))
		return nl_fail(ret_err, CL_INVALID_COMMAND_QUEUE);
	b = nl_new(sizeof(*b), NL_MAGIC_CMDBUF);
	if (b)
		b->parts = calloc(PARTS_MAX, sizeof(*b->parts));
	if (!b || !b->parts) {
		free(b);
		return nl_fail(ret_err, CL_OUT_OF_HOST_MEMORY);
	}
	b->queue = queues[0];
	atomic_fetch_add(&b->queue->o.life, 1);
	nl_fail(ret_err, CL_SUCCESS);
	return b;
}

static void unpin(cl_command_buffer_khr b)
{
	if (atomic_fetch_sub(&b->o.life, 1) != 1)
		return;
	for (cl_uint i = 0; i < b->nparts; i++) {
		for (int j = 0; j < 2; j++)
			if (b->parts[i].mem[j])
				nl_mem_unpin(b->parts[i].mem[j]);
		free(b->parts[i].heap);
	}
	nl_queue_unpin(b->queue);
	free(b->parts);
	b->o.magic = NL_MAGIC_DEAD;
	free(b);
}

cl_int nl_clRetainCommandBufferKHR(cl_command_buffer_khr b)
{
	NL_ENTER(clRetainCommandBufferKHR);
	if (!NL_IS(b, NL_MAGIC_CMDBUF))
		return CL_INVALID_COMMAND_BUFFER_KHR;
	atomic_fetch_add(&b->o.refs, 1);
	return CL_SUCCESS;
}

cl_int nl_clReleaseCommandBufferKHR(cl_command_buffer_khr b)
{
	NL_ENTER(clReleaseCommandBufferKHR);
	if (!NL_IS(b, NL_MAGIC_CMDBUF))
		return CL_INVALID_COMMAND_BUFFER_KHR;
	if (atomic_fetch_sub(&b->o.refs, 1) == 1)
		unpin(b);
	return CL_SUCCESS;
}

cl_int nl_clFinalizeCommandBufferKHR(cl_command_buffer_khr b)
{
	NL_ENTER(clFinalizeCommandBufferKHR);
	if (!NL_IS(b, NL_MAGIC_CMDBUF))
		return CL_INVALID_COMMAND_BUFFER_KHR;
	if (b->final)
		return CL_INVALID_OPERATION;
	b->final = true;
	return CL_SUCCESS;
}

static void run_parts(const struct nl_op *op)
{
	cl_command_buffer_khr b = op->ptr[0];

	for (cl_uint i = 0; i < b->nparts; i++)
		if (b->parts[i].run)
			b->parts[i].run(&b->parts[i]);
	unpin(b);
}

cl_int nl_clEnqueueCommandBufferKHR(cl_uint n, cl_command_queue *queues, cl_command_buffer_khr b,
				    cl_uint nwait, const cl_event *wait, cl_event *ret_event)
{
	struct nl_op op = { .run = run_parts, .ptr = { b } };
	cl_command_queue q;
	cl_int r;

	NL_ENTER(clEnqueueCommandBufferKHR);
	if (!NL_IS(b, NL_MAGIC_CMDBUF))
		return CL_INVALID_COMMAND_BUFFER_KHR;
	if ((n == 0) != (queues == NULL) || n > 1)
		return CL_INVALID_VALUE;
	if (!b->final)
		return CL_INVALID_OPERATION;
	q = n ? queues[0] : b->queue;
	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	if (q->context != b->queue->context)
		return CL_INCOMPATIBLE_COMMAND_QUEUE_KHR;
	for (cl_uint i = 0; i < b->nparts; i++)
		op.cost_ns += b->parts[i].cost_ns;
	atomic_fetch_add(&b->o.life, 1);
	r = nl_submit(q, CL_COMMAND_COMMAND_BUFFER_KHR, &op, false, nwait, wait, ret_event);
	if (r)
		unpin(b);
	return r;
}

/* @op's heap is taken over. */
static cl_int record(cl_command_buffer_khr b, cl_command_queue q, const struct nl_op *op, SYNC_PARAMS)
{
	cl_int r = CL_SUCCESS;

	if (!NL_IS(b, NL_MAGIC_CMDBUF))
		r = CL_INVALID_COMMAND_BUFFER_KHR;
	else if (q && q != b->queue)
		r = CL_INVALID_COMMAND_QUEUE;
	else if (b->final)
		r = CL_INVALID_OPERATION;
	else if ((nwait == 0) != (wait == NULL))
		r = CL_INVALID_SYNC_POINT_WAIT_LIST_KHR;
	else if (ret_handle)
		r = CL_INVALID_VALUE;
	else if (b->nparts == PARTS_MAX)
		r = CL_OUT_OF_RESOURCES;
	if (r) {
		free(op->heap);
		return r;
	}
	for (int j = 0; j < 2; j++)
		if (op->mem[j])
			nl_mem_pin(op->mem[j]);
	b->parts[b->nparts++] = *op;
	if (ret_point)
		*ret_point = b->nparts;
	return CL_SUCCESS;
}

cl_int nl_clCommandNDRangeKernelKHR(cl_command_buffer_khr b, cl_command_queue q,
				    const cl_ndrange_kernel_command_properties_khr *properties, cl_kernel k,
				    cl_uint dim, const size_t *offset, const size_t *global,
				    const size_t *local, SYNC_PARAMS)
{
	struct nl_op op;
	cl_int r;

	NL_ENTER(clCommandNDRangeKernelKHR);
	if (properties && *properties)
		return CL_INVALID_VALUE;
	if (!NL_IS(b, NL_MAGIC_CMDBUF))
		return CL_INVALID_COMMAND_BUFFER_KHR;
	r = nl_launch_check(b->queue, k, dim, global, local);
	if (r)
		return r;
	nl_launch_op(&op, k, dim, offset, global, local);
	return record(b, q, &op, nwait, wait, ret_point, ret_handle);
}

cl_int nl_clCommandCopyBufferKHR(cl_command_buffer_khr b, cl_command_queue q, cl_mem src, cl_mem dst,
				 size_t src_at, size_t dst_at, size_t bytes, SYNC_PARAMS)
{
	cl_int r;

	NL_ENTER(clCommandCopyBufferKHR);
	if (!NL_IS(b, NL_MAGIC_CMDBUF))
		return CL_INVALID_COMMAND_BUFFER_KHR;
	r = nl_check_buffer(b->queue, src, src_at, bytes);
	if (!r)
		r = nl_check_buffer(b->queue, dst, dst_at, bytes);
	if (r)
		return r;
	const struct nl_op op = { .run = nl_run_rect,
				  .mem = { src, dst },
				  .ptr = { src->data, dst->data },
				  .n = { src_at, dst_at, bytes, 1, 1 },
				  .cost_ns = nl_copy_cost(bytes) };

	return record(b, q, &op, nwait, wait, ret_point, ret_handle);
}

cl_int nl_clCommandFillBufferKHR(cl_command_buffer_khr b, cl_command_queue q, cl_mem m, const void *pattern,
				 size_t pattern_size, size_t offset, size_t bytes, SYNC_PARAMS)
{
	cl_int r;

	NL_ENTER(clCommandFillBufferKHR);
	if (!NL_IS(b, NL_MAGIC_CMDBUF))
		return CL_INVALID_COMMAND_BUFFER_KHR;
	r = nl_check_buffer(b->queue, m, offset, bytes);
	if (r || !pattern || pattern_size == 0 || pattern_size > 128 || bytes % pattern_size)
		return r ? r : CL_INVALID_VALUE;
	struct nl_op op = { .run = nl_run_fill,
			    .mem = { m },
			    .ptr = { m->data },
			    .n = { offset, bytes, pattern_size },
			    .heap = malloc(pattern_size),
			    .cost_ns = nl_copy_cost(bytes) };

	if (!op.heap)
		return CL_OUT_OF_HOST_MEMORY;
	memcpy(op.heap, pattern, pattern_size);
	return record(b, q, &op, nwait, wait, ret_point, ret_handle);
}

cl_int nl_clCommandBarrierWithWaitListKHR(cl_command_buffer_khr b, cl_command_queue q, SYNC_PARAMS)
{
	const struct nl_op op = { 0 };

	NL_ENTER(clCommandBarrierWithWaitListKHR);
	return record(b, q, &op, nwait, wait, ret_point, ret_handle);
}

cl_int nl_clGetCommandBufferInfoKHR(cl_command_buffer_khr b, cl_command_buffer_info_khr name, size_t size,
				    void *value, size_t *ret_size)
{
	NL_ENTER(clGetCommandBufferInfoKHR);
	if (!NL_IS(b, NL_MAGIC_CMDBUF))
		return CL_INVALID_COMMAND_BUFFER_KHR;
	switch (name) {
	case CL_COMMAND_BUFFER_NUM_QUEUES_KHR:
		return NL_PUT(cl_uint, 1);
	case CL_COMMAND_BUFFER_QUEUES_KHR:
		return NL_PUT(cl_command_queue, b->queue);
	case CL_COMMAND_BUFFER_REFERENCE_COUNT_KHR:
		return NL_PUT(cl_uint, atomic_load(&b->o.refs));
	case CL_COMMAND_BUFFER_STATE_KHR:
		return NL_PUT(cl_command_buffer_state_khr, b->final ? CL_COMMAND_BUFFER_STATE_EXECUTABLE_KHR
								    : CL_COMMAND_BUFFER_STATE_RECORDING_KHR);
	case CL_COMMAND_BUFFER_PROPERTIES_ARRAY_KHR:
		return nl_put(NULL, 0, size, value, ret_size);
	default:
		return CL_INVALID_VALUE;
	}
}
