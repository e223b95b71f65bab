/* SPDX-License-Identifier: Apache-2.0 */
/* Images. Rows are tightly packed, as PoCL's are, so that sizes in tests carry over. */
#include "move.h"
#include "nullicd.h"
#include <stdlib.h>
#include <string.h>

#define WAIT_PARAMS cl_uint nwait, const cl_event *wait, cl_event *ret_event

static cl_int describe(cl_context c, cl_mem_flags flags, const cl_image_format *format,
		       const cl_image_desc *desc, struct _cl_mem *ret)
{
	size_t height = 1, depth = 1;

	if (!NL_IS(c, NL_MAGIC_CONTEXT))
		return CL_INVALID_CONTEXT;
	if (!format)
		return CL_INVALID_IMAGE_FORMAT_DESCRIPTOR;
	ret->elem = nl_format_size(format);
	if (!ret->elem)
		return CL_IMAGE_FORMAT_NOT_SUPPORTED;
	if (!desc || desc->image_width == 0 || desc->image_width > 1u << 27)
		return desc && desc->image_width ? CL_INVALID_IMAGE_SIZE : CL_INVALID_IMAGE_DESCRIPTOR;
	switch (desc->image_type) {
	case CL_MEM_OBJECT_IMAGE1D:
	case CL_MEM_OBJECT_IMAGE1D_BUFFER:
		break;
	case CL_MEM_OBJECT_IMAGE1D_ARRAY:
		height = desc->image_array_size;
		break;
	case CL_MEM_OBJECT_IMAGE2D:
		height = desc->image_height;
		break;
	case CL_MEM_OBJECT_IMAGE2D_ARRAY:
		height = desc->image_height;
		depth = desc->image_array_size;
		break;
	case CL_MEM_OBJECT_IMAGE3D:
		height = desc->image_height;
		depth = desc->image_depth;
		break;
	default:
		return CL_INVALID_IMAGE_DESCRIPTOR;
	}
	if (height == 0 || depth == 0)
		return CL_INVALID_IMAGE_DESCRIPTOR;
	if (height > 16384 || depth > 2048)
		return CL_INVALID_IMAGE_SIZE;
	ret->format = *format;
	ret->desc = *desc;
	ret->flags = flags;
	ret->type = desc->image_type;
	ret->row_pitch = desc->mem_object && desc->image_row_pitch ? desc->image_row_pitch
								   : desc->image_width * ret->elem;
	ret->slice_pitch = ret->row_pitch * height;
	ret->size = ret->slice_pitch * depth;
	return CL_SUCCESS;
}

static cl_mem image_of_buffer(cl_mem buffer, const struct _cl_mem *shape, cl_int *ret_err)
{
	cl_mem m;

	if (!NL_IS(buffer, NL_MAGIC_MEM) || buffer->size < shape->size)
		return nl_fail(ret_err, NL_IS(buffer, NL_MAGIC_MEM) ? CL_INVALID_IMAGE_SIZE
								    : CL_INVALID_IMAGE_DESCRIPTOR);
	m = nl_new(sizeof(*m), NL_MAGIC_MEM);
	if (!m)
		return nl_fail(ret_err, CL_OUT_OF_HOST_MEMORY);
	m->context = buffer->context;
	m->parent = buffer;
	m->data = buffer->data;
	m->size = shape->size;
	atomic_fetch_add(&m->context->o.life, 1);
	nl_mem_pin(buffer);
	nl_fail(ret_err, CL_SUCCESS);
	return m;
}

static cl_mem image_new(cl_context c, cl_mem_flags flags, const cl_image_format *format,
			const cl_image_desc *desc, void *host_ptr, cl_int *ret_err)
{
	struct _cl_mem shape = { 0 };
	cl_int r = describe(c, flags, format, desc, &shape);
	cl_mem m;

	if (r)
		return nl_fail(ret_err, r);
	if (!desc->mem_object &&
	    (host_ptr != NULL) != ((flags & (CL_MEM_USE_HOST_PTR | CL_MEM_COPY_HOST_PTR)) != 0))
		return nl_fail(ret_err, CL_INVALID_HOST_PTR);
	m = desc->mem_object ? image_of_buffer(desc->mem_object, &shape, ret_err)
			     : nl_mem_new(c, shape.type, flags, shape.size, host_ptr, ret_err);
	if (!m)
		return NULL;
	m->type = shape.type;
	m->flags = flags ? flags : CL_MEM_READ_WRITE;
	m->format = shape.format;
	m->desc = shape.desc;
	m->elem = shape.elem;
	m->row_pitch = shape.row_pitch;
	m->slice_pitch = shape.slice_pitch;
	return m;
}

cl_mem nl_clCreateImage(cl_context c, cl_mem_flags flags, const cl_image_format *format,
			const cl_image_desc *desc, void *host_ptr, cl_int *ret_err)
{
	NL_ENTER_PTR(clCreateImage, ret_err);
	return image_new(c, flags, format, desc, host_ptr, ret_err);
}

cl_mem nl_clCreateImageWithProperties(cl_context c, const cl_mem_properties *properties, cl_mem_flags flags,
				      const cl_image_format *format, const cl_image_desc *desc,
				      void *host_ptr, cl_int *ret_err)
{
	NL_ENTER_PTR(clCreateImageWithProperties, ret_err);
	if (properties && *properties)
		return nl_fail(ret_err, CL_INVALID_PROPERTY);
	return image_new(c, flags, format, desc, host_ptr, ret_err);
}

cl_mem nl_clCreateImage2D(cl_context c, cl_mem_flags flags, const cl_image_format *format, size_t width,
			  size_t height, size_t row_pitch, void *host_ptr, cl_int *ret_err)
{
	const cl_image_desc desc = { .image_type = CL_MEM_OBJECT_IMAGE2D,
				     .image_width = width,
				     .image_height = height,
				     .image_row_pitch = row_pitch };

	NL_ENTER_PTR(clCreateImage2D, ret_err);
	return image_new(c, flags, format, &desc, host_ptr, ret_err);
}

cl_mem nl_clCreateImage3D(cl_context c, cl_mem_flags flags, const cl_image_format *format, size_t width,
			  size_t height, size_t depth, size_t row_pitch, size_t slice_pitch, void *host_ptr,
			  cl_int *ret_err)
{
	const cl_image_desc desc = { .image_type = CL_MEM_OBJECT_IMAGE3D,
				     .image_width = width,
				     .image_height = height,
				     .image_depth = depth,
				     .image_row_pitch = row_pitch,
				     .image_slice_pitch = slice_pitch };

	NL_ENTER_PTR(clCreateImage3D, ret_err);
	return image_new(c, flags, format, &desc, host_ptr, ret_err);
}

cl_int nl_clGetSupportedImageFormats(cl_context c, cl_mem_flags flags, cl_mem_object_type type, cl_uint n,
				     cl_image_format *formats, cl_uint *ret_n)
{
	static const cl_channel_order orders[] = { CL_R, CL_RG, CL_RGBA, CL_BGRA };
	static const cl_channel_type types[] = { CL_UNORM_INT8, CL_UNSIGNED_INT8, CL_UNSIGNED_INT32,
						 CL_FLOAT };
	cl_uint count = 0;

	NL_ENTER(clGetSupportedImageFormats);
	(void)flags, (void)type;
	if (!NL_IS(c, NL_MAGIC_CONTEXT))
		return CL_INVALID_CONTEXT;
	if (n == 0 && formats)
		return CL_INVALID_VALUE;
	for (size_t o = 0; o < sizeof(orders) / sizeof(*orders); o++) {
		for (size_t t = 0; t < sizeof(types) / sizeof(*types); t++, count++)
			if (formats && count < n)
				formats[count] = (cl_image_format){ orders[o], types[t] };
	}
	if (ret_n)
		*ret_n = count;
	return CL_SUCCESS;
}

cl_int nl_clGetImageInfo(cl_mem m, cl_image_info name, size_t size, void *value, size_t *ret_size)
{
	NL_ENTER(clGetImageInfo);
	if (!NL_IS(m, NL_MAGIC_MEM) || !m->elem)
		return CL_INVALID_MEM_OBJECT;
	switch (name) {
	case CL_IMAGE_FORMAT:
		return nl_put(&m->format, sizeof(m->format), size, value, ret_size);
	case CL_IMAGE_ELEMENT_SIZE:
		return NL_PUT(size_t, m->elem);
	case CL_IMAGE_ROW_PITCH:
		return NL_PUT(size_t, m->row_pitch);
	case CL_IMAGE_SLICE_PITCH:
		return NL_PUT(size_t, m->type == CL_MEM_OBJECT_IMAGE2D || m->type == CL_MEM_OBJECT_IMAGE1D
					      ? 0
					      : m->slice_pitch);
	case CL_IMAGE_WIDTH:
		return NL_PUT(size_t, m->desc.image_width);
	case CL_IMAGE_HEIGHT:
		return NL_PUT(size_t, m->desc.image_height);
	case CL_IMAGE_DEPTH:
		return NL_PUT(size_t, m->desc.image_depth);
	case CL_IMAGE_ARRAY_SIZE:
		return NL_PUT(size_t, m->desc.image_array_size);
	case CL_IMAGE_BUFFER:
		return NL_PUT(cl_mem, m->parent);
	case CL_IMAGE_NUM_MIP_LEVELS:
	case CL_IMAGE_NUM_SAMPLES:
		return NL_PUT(cl_uint, 0);
	default:
		return CL_INVALID_VALUE;
	}
}

/* The part of an image that a command touches, as a byte range of rows. */
struct view {
	size_t offset, width, row, slice;
};

static cl_int view_of(cl_command_queue q, cl_mem m, const size_t *origin, const size_t *region,
		      struct view *ret)
{
	size_t height, depth;

	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	if (!NL_IS(m, NL_MAGIC_MEM) || !m->elem)
		return CL_INVALID_MEM_OBJECT;
	if (m->context != q->context)
		return CL_INVALID_CONTEXT;
	if (!origin || !region || !region[0] || !region[1] || !region[2])
		return CL_INVALID_VALUE;
	height = m->slice_pitch / m->row_pitch;
	depth = m->size / m->slice_pitch;
	if (origin[0] + region[0] > m->desc.image_width || origin[1] + region[1] > height ||
	    origin[2] + region[2] > depth)
		return CL_INVALID_VALUE;
	*ret = (struct view){ .offset = origin[0] * m->elem + origin[1] * m->row_pitch +
					origin[2] * m->slice_pitch,
			      .width = region[0] * m->elem,
			      .row = m->row_pitch,
			      .slice = m->slice_pitch };
	return CL_SUCCESS;
}

static struct view packed(size_t offset, const struct view *like, const size_t *region, size_t row,
			  size_t slice)
{
	struct view v = { .offset = offset, .width = like->width };

	v.row = row ? row : like->width;
	v.slice = slice ? slice : v.row * region[1];
	return v;
}

static struct nl_op move(const void *src, const struct view *s, void *dst, const struct view *d,
			 const size_t *region)
{
	return (struct nl_op){
		.run = nl_run_rect,
		.ptr = { (void *)(uintptr_t)src, dst },
		.n = { s->offset, d->offset, s->width, region[1], region[2], s->row, s->slice, d->row,
		       d->slice },
		.cost_ns = nl_copy_cost(s->width * region[1] * region[2]),
	};
}

cl_int nl_clEnqueueReadImage(cl_command_queue q, cl_mem m, cl_bool blocking, const size_t *origin,
			     const size_t *region, size_t row, size_t slice, void *ptr, WAIT_PARAMS)
{
	struct view v;
	cl_int r;

	NL_ENTER(clEnqueueReadImage);
	r = view_of(q, m, origin, region, &v);
	if (r || !ptr)
		return r ? r : CL_INVALID_VALUE;
	struct view host = packed(0, &v, region, row, slice);
	struct nl_op op = move(m->data, &v, ptr, &host, region);

	op.mem[0] = m;
	return nl_submit(q, CL_COMMAND_READ_IMAGE, &op, blocking, nwait, wait, ret_event);
}

cl_int nl_clEnqueueWriteImage(cl_command_queue q, cl_mem m, cl_bool blocking, const size_t *origin,
			      const size_t *region, size_t row, size_t slice, const void *ptr, WAIT_PARAMS)
{
	struct view v;
	cl_int r;

	NL_ENTER(clEnqueueWriteImage);
	r = view_of(q, m, origin, region, &v);
	if (r || !ptr)
		return r ? r : CL_INVALID_VALUE;
	struct view host = packed(0, &v, region, row, slice);
	struct nl_op op = move(ptr, &host, m->data, &v, region);

	op.mem[0] = m;
	return nl_submit(q, CL_COMMAND_WRITE_IMAGE, &op, blocking, nwait, wait, ret_event);
}

cl_int nl_clEnqueueCopyImage(cl_command_queue q, cl_mem src, cl_mem dst, const size_t *src_origin,
			     const size_t *dst_origin, const size_t *region, WAIT_PARAMS)
{
	struct view s, d;
	cl_int r;

	NL_ENTER(clEnqueueCopyImage);
	r = view_of(q, src, src_origin, region, &s);
	if (!r)
		r = view_of(q, dst, dst_origin, region, &d);
	if (r)
		return r;
	if (src->format.image_channel_order != dst->format.image_channel_order ||
	    src->format.image_channel_data_type != dst->format.image_channel_data_type)
		return CL_IMAGE_FORMAT_MISMATCH;
	struct nl_op op = move(src->data, &s, dst->data, &d, region);

	op.mem[0] = src;
	op.mem[1] = dst;
	return nl_submit(q, CL_COMMAND_COPY_IMAGE, &op, false, nwait, wait, ret_event);
}

cl_int nl_clEnqueueCopyImageToBuffer(cl_command_queue q, cl_mem src, cl_mem dst, const size_t *origin,
				     const size_t *region, size_t offset, WAIT_PARAMS)
{
	struct view v;
	cl_int r;

	NL_ENTER(clEnqueueCopyImageToBuffer);
	r = view_of(q, src, origin, region, &v);
	if (!r)
		r = nl_check_buffer(q, dst, offset, v.width * region[1] * region[2]);
	if (r)
		return r;
	struct view d = packed(offset, &v, region, 0, 0);
	struct nl_op op = move(src->data, &v, dst->data, &d, region);

	op.mem[0] = src;
	op.mem[1] = dst;
	return nl_submit(q, CL_COMMAND_COPY_IMAGE_TO_BUFFER, &op, false, nwait, wait, ret_event);
}

cl_int nl_clEnqueueCopyBufferToImage(cl_command_queue q, cl_mem src, cl_mem dst, size_t offset,
				     const size_t *origin, const size_t *region, WAIT_PARAMS)
{
	struct view v;
	cl_int r;

	NL_ENTER(clEnqueueCopyBufferToImage);
	r = view_of(q, dst, origin, region, &v);
	if (!r)
		r = nl_check_buffer(q, src, offset, v.width * region[1] * region[2]);
	if (r)
		return r;
	struct view s = packed(offset, &v, region, 0, 0);
	struct nl_op op = move(src->data, &s, dst->data, &v, region);

	op.mem[0] = src;
	op.mem[1] = dst;
	return nl_submit(q, CL_COMMAND_COPY_BUFFER_TO_IMAGE, &op, false, nwait, wait, ret_event);
}

static void run_fill_image(const struct nl_op *op)
{
	for (size_t z = 0; z < op->n[3]; z++)
		for (size_t y = 0; y < op->n[2]; y++)
			for (size_t x = 0; x + op->n[4] <= op->n[1]; x += op->n[4])
				memcpy((char *)op->ptr[0] + op->n[0] + x + y * op->n[5] + z * op->n[6],
				       op->heap, op->n[4]);
}

/* Colours of the two usual 8-bit kinds are converted; for the others the first bytes of the colour are taken as they are. */
static void convert_color(const cl_mem m, const void *color, unsigned char *ret)
{
	for (size_t i = 0; i < m->elem && i < 16; i++) {
		if (m->format.image_channel_data_type == CL_UNORM_INT8)
			ret[i] = (unsigned char)(((const float *)color)[i & 3] * 255.0f + 0.5f);
		else if (m->format.image_channel_data_type == CL_UNSIGNED_INT8)
			ret[i] = (unsigned char)((const cl_uint *)color)[i & 3];
		else
			ret[i] = ((const unsigned char *)color)[i];
	}
}

cl_int nl_clEnqueueFillImage(cl_command_queue q, cl_mem m, const void *color, const size_t *origin,
			     const size_t *region, WAIT_PARAMS)
{
	struct view v;
	cl_int r;

	NL_ENTER(clEnqueueFillImage);
	r = view_of(q, m, origin, region, &v);
	if (r || !color)
		return r ? r : CL_INVALID_VALUE;
	struct nl_op op = { .run = run_fill_image,
			    .mem = { m },
			    .ptr = { m->data },
			    .n = { v.offset, v.width, region[1], region[2], m->elem, v.row, v.slice } };

	op.heap = calloc(1, 16);
	if (!op.heap)
		return CL_OUT_OF_HOST_MEMORY;
	convert_color(m, color, op.heap);
	op.cost_ns = nl_copy_cost(v.width * region[1] * region[2]);
	return nl_submit(q, CL_COMMAND_FILL_IMAGE, &op, false, nwait, wait, ret_event);
}

void *nl_clEnqueueMapImage(cl_command_queue q, cl_mem m, cl_bool blocking, cl_map_flags flags,
			   const size_t *origin, const size_t *region, size_t *ret_row, size_t *ret_slice,
			   cl_uint nwait, const cl_event *wait, cl_event *ret_event, cl_int *ret_err)
{
	struct nl_op op = { .mem = { m } };
	struct view v;
	cl_int r;

	NL_ENTER_PTR(clEnqueueMapImage, ret_err);
	r = view_of(q, m, origin, region, &v);
	if (!r && (flags == 0 || !ret_row || (m->type == CL_MEM_OBJECT_IMAGE3D && !ret_slice)))
		r = CL_INVALID_VALUE;
	if (!r) {
		op.cost_ns = nl_copy_cost(v.width * region[1] * region[2]);
		r = nl_submit(q, CL_COMMAND_MAP_IMAGE, &op, blocking, nwait, wait, ret_event);
	}
	if (r)
		return nl_fail(ret_err, r);
	*ret_row = v.row;
	if (ret_slice)
		*ret_slice = m->type == CL_MEM_OBJECT_IMAGE2D ? 0 : v.slice;
	atomic_fetch_add(&m->maps, 1);
	nl_fail(ret_err, CL_SUCCESS);
	return m->data + v.offset;
}
