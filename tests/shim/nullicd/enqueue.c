/* SPDX-License-Identifier: Apache-2.0 */
/* Commands: kernels, buffers, markers. Data is moved when the command runs, so a read that overtakes its producer shows. */
#include "nullicd.h"
#include "move.h"
#include <stdlib.h>
#include <string.h>

#define WAIT_PARAMS cl_uint nwait, const cl_event *wait, cl_event *ret_event

void nl_run_rect(const struct nl_op *op)
{
	const char *src = (const char *)op->ptr[0] + op->n[0];
	char *dst = (char *)op->ptr[1] + op->n[1];
	size_t width = op->n[2], height = op->n[3], depth = op->n[4];

	for (size_t z = 0; z < depth; z++)
		for (size_t y = 0; y < height; y++)
			memmove(dst + y * op->n[7] + z * op->n[8], src + y * op->n[5] + z * op->n[6], width);
}

void nl_run_fill(const struct nl_op *op)
{
	char *dst = (char *)op->ptr[0] + op->n[0];
	size_t bytes = op->n[1], pattern = op->n[2];

	for (size_t i = 0; i + pattern <= bytes; i += pattern)
		memcpy(dst + i, op->heap, pattern);
}

static struct nl_op linear(cl_mem a, cl_mem b, const void *src, size_t src_at, void *dst, size_t dst_at,
			   size_t bytes)
{
	return (struct nl_op){
		.run = nl_run_rect,
		.mem = { a, b },
		.ptr = { (void *)(uintptr_t)src, dst },
		.n = { src_at, dst_at, bytes, 1, 1 },
		.cost_ns = nl_copy_cost(bytes),
	};
}

cl_int nl_check_buffer(cl_command_queue q, cl_mem m, size_t offset, size_t bytes)
{
	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	if (!NL_IS(m, NL_MAGIC_MEM) || m->type != CL_MEM_OBJECT_BUFFER)
		return CL_INVALID_MEM_OBJECT;
	if (m->context != q->context)
		return CL_INVALID_CONTEXT;
	if (offset > m->size || bytes > m->size - offset)
		return CL_INVALID_VALUE;
	return CL_SUCCESS;
}

cl_int nl_clEnqueueNDRangeKernel(cl_command_queue q, cl_kernel k, cl_uint dim, const size_t *offset,
				 const size_t *global, const size_t *local, WAIT_PARAMS)
{
	struct nl_op op;
	cl_int r;

	/* the case that the overhead benchmark measures: nothing to wait for, nothing to do, nobody to tell */
	if (nl_instant && dim == 1 && global && local && local[0] - 1 < 1024 && !wait && !nwait &&
	    !ret_event && NL_IS(q, NL_MAGIC_QUEUE) && NL_IS(k, NL_MAGIC_KERNEL) && k->plain &&
	    k->program->context == q->context && atomic_load_explicit(&k->unset, memory_order_relaxed) == 0 &&
	    atomic_load_explicit(&q->outstanding, memory_order_acquire) == 0)
		return CL_SUCCESS;
	NL_ENTER(clEnqueueNDRangeKernel);
	r = nl_launch_check(q, k, dim, global, local);
	if (r)
		return r;
	if (__builtin_expect(nl_watched, 0) && global)
		nl_trace_range(k, dim, offset, global, local);
	nl_launch_op(&op, k, dim, offset, global, local);
	return nl_submit(q, CL_COMMAND_NDRANGE_KERNEL, &op, false, nwait, wait, ret_event);
}

cl_int nl_clEnqueueTask(cl_command_queue q, cl_kernel k, WAIT_PARAMS)
{
	const size_t one = 1;
	struct nl_op op;
	cl_int r;

	NL_ENTER(clEnqueueTask);
	r = nl_launch_check(q, k, 1, &one, &one);
	if (r)
		return r;
	nl_launch_op(&op, k, 1, NULL, &one, &one);
	return nl_submit(q, CL_COMMAND_TASK, &op, false, nwait, wait, ret_event);
}

static void run_native(const struct nl_op *op)
{
	((void(CL_CALLBACK *)(void *))op->ptr[0])(op->heap);
}

cl_int nl_clEnqueueNativeKernel(cl_command_queue q, void(CL_CALLBACK *fn)(void *), void *args, size_t size,
				cl_uint nmem, const cl_mem *list, const void **places, WAIT_PARAMS)
{
	struct nl_op op = { .run = run_native, .ptr = { (void *)fn } };

	NL_ENTER(clEnqueueNativeKernel);
	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	if (!fn || (args == NULL) != (size == 0) || (nmem == 0) != (list == NULL) || (nmem && !args))
		return CL_INVALID_VALUE;
	for (cl_uint i = 0; i < nmem; i++)
		if (!NL_IS(list[i], NL_MAGIC_MEM))
			return CL_INVALID_MEM_OBJECT;
	op.heap = size ? malloc(size) : NULL;
	if (size && !op.heap)
		return CL_OUT_OF_HOST_MEMORY;
	if (size)
		memcpy(op.heap, args, size);
	for (cl_uint i = 0; i < nmem; i++)
		memcpy((char *)op.heap + ((const char *)places[i] - (const char *)args), &list[i]->data,
		       sizeof(void *));
	op.cost_ns = nl_config.cost_ns;
	return nl_submit(q, CL_COMMAND_NATIVE_KERNEL, &op, false, nwait, wait, ret_event);
}

cl_int nl_clEnqueueReadBuffer(cl_command_queue q, cl_mem m, cl_bool blocking, size_t offset, size_t bytes,
			      void *ptr, WAIT_PARAMS)
{
	cl_int r;

	NL_ENTER(clEnqueueReadBuffer);
	r = nl_check_buffer(q, m, offset, bytes);
	if (r || !ptr)
		return r ? r : CL_INVALID_VALUE;
	struct nl_op op = linear(m, NULL, m->data, offset, ptr, 0, bytes);

	return nl_submit(q, CL_COMMAND_READ_BUFFER, &op, blocking, nwait, wait, ret_event);
}

cl_int nl_clEnqueueWriteBuffer(cl_command_queue q, cl_mem m, cl_bool blocking, size_t offset, size_t bytes,
			       const void *ptr, WAIT_PARAMS)
{
	cl_int r;

	NL_ENTER(clEnqueueWriteBuffer);
	r = nl_check_buffer(q, m, offset, bytes);
	if (r || !ptr)
		return r ? r : CL_INVALID_VALUE;
	struct nl_op op = linear(m, NULL, ptr, 0, m->data, offset, bytes);

	return nl_submit(q, CL_COMMAND_WRITE_BUFFER, &op, blocking, nwait, wait, ret_event);
}

cl_int nl_clEnqueueCopyBuffer(cl_command_queue q, cl_mem src, cl_mem dst, size_t src_at, size_t dst_at,
			      size_t bytes, WAIT_PARAMS)
{
	cl_int r;

	NL_ENTER(clEnqueueCopyBuffer);
	r = nl_check_buffer(q, src, src_at, bytes);
	if (!r)
		r = nl_check_buffer(q, dst, dst_at, bytes);
	if (r)
		return r;
	if (src == dst && src_at < dst_at + bytes && dst_at < src_at + bytes)
		return CL_MEM_COPY_OVERLAP;
	struct nl_op op = linear(src, dst, src->data, src_at, dst->data, dst_at, bytes);

	return nl_submit(q, CL_COMMAND_COPY_BUFFER, &op, false, nwait, wait, ret_event);
}

cl_int nl_clEnqueueFillBuffer(cl_command_queue q, cl_mem m, const void *pattern, size_t pattern_size,
			      size_t offset, size_t bytes, WAIT_PARAMS)
{
	cl_int r;

	NL_ENTER(clEnqueueFillBuffer);
	r = nl_check_buffer(q, m, offset, bytes);
	if (r)
		return r;
	if (!pattern || pattern_size == 0 || pattern_size > 128 || (pattern_size & (pattern_size - 1)) ||
	    offset % pattern_size || bytes % pattern_size)
		return CL_INVALID_VALUE;
	struct nl_op op = {
		.run = nl_run_fill, .mem = { m }, .ptr = { m->data }, .n = { offset, bytes, pattern_size }
	};

	op.heap = malloc(pattern_size);
	if (!op.heap)
		return CL_OUT_OF_HOST_MEMORY;
	memcpy(op.heap, pattern, pattern_size);
	op.cost_ns = nl_copy_cost(bytes);
	return nl_submit(q, CL_COMMAND_FILL_BUFFER, &op, false, nwait, wait, ret_event);
}

/* Pitches of 0 mean tightly packed. Return: false when they contradict the region. */
static bool set_rect(struct nl_op *op, const size_t *src_origin, const size_t *dst_origin,
		     const size_t *region, size_t src_row, size_t src_slice, size_t dst_row, size_t dst_slice)
{
	if (!src_origin || !dst_origin || !region || !region[0] || !region[1] || !region[2])
		return false;
	src_row = src_row ? src_row : region[0];
	dst_row = dst_row ? dst_row : region[0];
	src_slice = src_slice ? src_slice : src_row * region[1];
	dst_slice = dst_slice ? dst_slice : dst_row * region[1];
	if (src_row < region[0] || dst_row < region[0] || src_slice < region[1] * src_row ||
	    dst_slice < region[1] * dst_row)
		return false;
	const size_t n[9] = {
		src_origin[0] + src_origin[1] * src_row + src_origin[2] * src_slice,
		dst_origin[0] + dst_origin[1] * dst_row + dst_origin[2] * dst_slice,
		region[0],
		region[1],
		region[2],
		src_row,
		src_slice,
		dst_row,
		dst_slice,
	};

	op->run = nl_run_rect;
	memcpy(op->n, n, sizeof(n));
	op->cost_ns = nl_copy_cost(region[0] * region[1] * region[2]);
	return true;
}

static size_t rect_end(size_t start, const struct nl_op *op, size_t row, size_t slice)
{
	return start + (op->n[4] - 1) * slice + (op->n[3] - 1) * row + op->n[2];
}

cl_int nl_clEnqueueReadBufferRect(cl_command_queue q, cl_mem m, cl_bool blocking, const size_t *origin,
				  const size_t *host_origin, const size_t *region, size_t row, size_t slice,
				  size_t host_row, size_t host_slice, void *ptr, WAIT_PARAMS)
{
	struct nl_op op = { .mem = { m } };
	cl_int r;

	NL_ENTER(clEnqueueReadBufferRect);
	r = nl_check_buffer(q, m, 0, 0);
	if (r)
		return r;
	if (!ptr || !set_rect(&op, origin, host_origin, region, row, slice, host_row, host_slice) ||
	    rect_end(op.n[0], &op, op.n[5], op.n[6]) > m->size)
		return CL_INVALID_VALUE;
	op.ptr[0] = m->data;
	op.ptr[1] = ptr;
	return nl_submit(q, CL_COMMAND_READ_BUFFER_RECT, &op, blocking, nwait, wait, ret_event);
}

cl_int nl_clEnqueueWriteBufferRect(cl_command_queue q, cl_mem m, cl_bool blocking, const size_t *origin,
				   const size_t *host_origin, const size_t *region, size_t row, size_t slice,
				   size_t host_row, size_t host_slice, const void *ptr, WAIT_PARAMS)
{
	struct nl_op op = { .mem = { m } };
	cl_int r;

	NL_ENTER(clEnqueueWriteBufferRect);
	r = nl_check_buffer(q, m, 0, 0);
	if (r)
		return r;
	if (!ptr || !set_rect(&op, host_origin, origin, region, host_row, host_slice, row, slice) ||
	    rect_end(op.n[1], &op, op.n[7], op.n[8]) > m->size)
		return CL_INVALID_VALUE;
	op.ptr[0] = (void *)(uintptr_t)ptr;
	op.ptr[1] = m->data;
	return nl_submit(q, CL_COMMAND_WRITE_BUFFER_RECT, &op, blocking, nwait, wait, ret_event);
}

cl_int nl_clEnqueueCopyBufferRect(cl_command_queue q, cl_mem src, cl_mem dst, const size_t *src_origin,
				  const size_t *dst_origin, const size_t *region, size_t src_row,
				  size_t src_slice, size_t dst_row, size_t dst_slice, WAIT_PARAMS)
{
	struct nl_op op = { .mem = { src, dst } };
	cl_int r;

	NL_ENTER(clEnqueueCopyBufferRect);
	r = nl_check_buffer(q, src, 0, 0);
	if (!r)
		r = nl_check_buffer(q, dst, 0, 0);
	if (r)
		return r;
	if (!set_rect(&op, src_origin, dst_origin, region, src_row, src_slice, dst_row, dst_slice) ||
	    rect_end(op.n[0], &op, op.n[5], op.n[6]) > src->size ||
	    rect_end(op.n[1], &op, op.n[7], op.n[8]) > dst->size)
		return CL_INVALID_VALUE;
	op.ptr[0] = src->data;
	op.ptr[1] = dst->data;
	return nl_submit(q, CL_COMMAND_COPY_BUFFER_RECT, &op, false, nwait, wait, ret_event);
}

void *nl_clEnqueueMapBuffer(cl_command_queue q, cl_mem m, cl_bool blocking, cl_map_flags flags, size_t offset,
			    size_t bytes, cl_uint nwait, const cl_event *wait, cl_event *ret_event,
			    cl_int *ret_err)
{
	struct nl_op op = { .mem = { m }, .cost_ns = nl_copy_cost(bytes) };
	cl_int r;

	NL_ENTER_PTR(clEnqueueMapBuffer, ret_err);
	r = nl_check_buffer(q, m, offset, bytes);
	if (!r && flags == 0)
		r = CL_INVALID_VALUE;
	if (!r)
		r = nl_submit(q, CL_COMMAND_MAP_BUFFER, &op, blocking, nwait, wait, ret_event);
	if (r)
		return nl_fail(ret_err, r);
	atomic_fetch_add(&m->maps, 1);
	nl_fail(ret_err, CL_SUCCESS);
	return m->data + offset;
}

cl_int nl_clEnqueueUnmapMemObject(cl_command_queue q, cl_mem m, void *ptr, WAIT_PARAMS)
{
	struct nl_op op = { .mem = { m } };

	NL_ENTER(clEnqueueUnmapMemObject);
	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	if (!NL_IS(m, NL_MAGIC_MEM) || m->type == CL_MEM_OBJECT_PIPE)
		return CL_INVALID_MEM_OBJECT;
	if (!ptr || (char *)ptr < m->data || (char *)ptr > m->data + m->size || atomic_load(&m->maps) == 0)
		return CL_INVALID_VALUE;
	atomic_fetch_sub(&m->maps, 1);
	return nl_submit(q, CL_COMMAND_UNMAP_MEM_OBJECT, &op, false, nwait, wait, ret_event);
}

cl_int nl_clEnqueueMigrateMemObjects(cl_command_queue q, cl_uint n, const cl_mem *list,
				     cl_mem_migration_flags flags, WAIT_PARAMS)
{
	struct nl_op op = { 0 };

	NL_ENTER(clEnqueueMigrateMemObjects);
	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	if (n == 0 || !list || (flags & ~(cl_mem_migration_flags)3))
		return CL_INVALID_VALUE;
	for (cl_uint i = 0; i < n; i++) {
		if (!NL_IS(list[i], NL_MAGIC_MEM))
			return CL_INVALID_MEM_OBJECT;
		op.cost_ns += nl_copy_cost(list[i]->size);
	}
	return nl_submit(q, CL_COMMAND_MIGRATE_MEM_OBJECTS, &op, false, nwait, wait, ret_event);
}

static cl_int submit_empty(cl_command_queue q, cl_command_type type, bool blocking, WAIT_PARAMS)
{
	struct nl_op op = { 0 };

	return NL_IS(q, NL_MAGIC_QUEUE) ? nl_submit(q, type, &op, blocking, nwait, wait, ret_event)
					: CL_INVALID_COMMAND_QUEUE;
}

cl_int nl_clEnqueueMarkerWithWaitList(cl_command_queue q, WAIT_PARAMS)
{
	NL_ENTER(clEnqueueMarkerWithWaitList);
	return submit_empty(q, CL_COMMAND_MARKER, false, nwait, wait, ret_event);
}

cl_int nl_clEnqueueBarrierWithWaitList(cl_command_queue q, WAIT_PARAMS)
{
	NL_ENTER(clEnqueueBarrierWithWaitList);
	return submit_empty(q, CL_COMMAND_BARRIER, false, nwait, wait, ret_event);
}

cl_int nl_clEnqueueMarker(cl_command_queue q, cl_event *ret_event)
{
	NL_ENTER(clEnqueueMarker);
	return ret_event ? submit_empty(q, CL_COMMAND_MARKER, false, 0, NULL, ret_event) : CL_INVALID_VALUE;
}

cl_int nl_clEnqueueBarrier(cl_command_queue q)
{
	NL_ENTER(clEnqueueBarrier);
	return submit_empty(q, CL_COMMAND_BARRIER, false, 0, NULL, NULL);
}

cl_int nl_clEnqueueWaitForEvents(cl_command_queue q, cl_uint n, const cl_event *events)
{
	NL_ENTER(clEnqueueWaitForEvents);
	if (n == 0 || !events)
		return CL_INVALID_VALUE;
	return submit_empty(q, CL_COMMAND_BARRIER, false, n, events, NULL);
}
