/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory, exactly: reserve before the native call, give back if it fails, release when the driver's own object ends.
 *
 * The end is told by clSetMemObjectDestructorCallback: it comes when the reference count is zero and no queued command uses
 * the object any more, so no table of ours has to follow. Callbacks run in reverse order of registration: ours, the first,
 * is the last. Sub-buffers and images over a buffer share their parent's bytes and cost nothing.
 *
 * An object of a context with several devices may exist on each of them, and which ones the driver alone knows: it is
 * charged on every device of the context. Too strict, never too lax.
 */
#include "shim/opencl/cl.h"

#include "base/auto.h"

#include <stdlib.h>

/* Bytes per pixel of the channel orders and types of OpenCL 3.0; what is not listed is taken as 16, the largest. */
static uint64_t pixel_bytes(const cl_image_format *f)
{
	uint64_t channels, bytes;
	switch (f->image_channel_data_type) {
	case CL_UNORM_SHORT_565:
	case CL_UNORM_SHORT_555:
		return 2;
	case CL_UNORM_INT_101010:
	case CL_UNORM_INT_101010_2:
	case CL_UNORM_INT24:
		return 4;
	case CL_SNORM_INT8:
	case CL_UNORM_INT8:
	case CL_SIGNED_INT8:
	case CL_UNSIGNED_INT8:
		bytes = 1;
		break;
	case CL_SNORM_INT16:
	case CL_UNORM_INT16:
	case CL_SIGNED_INT16:
	case CL_UNSIGNED_INT16:
	case CL_HALF_FLOAT:
		bytes = 2;
		break;
	default:
		bytes = 4;
	}
	switch (f->image_channel_order) {
	case CL_R:
	case CL_A:
	case CL_INTENSITY:
	case CL_LUMINANCE:
	case CL_DEPTH:
		channels = 1;
		break;
	case CL_RG:
	case CL_RA:
	case CL_Rx:
		channels = 2;
		break;
	case CL_RGB:
	case CL_RGx:
	case CL_sRGB:
		channels = 3;
		break;
	default:
		channels = 4;
	}
	return channels * bytes;
}

void *pen_cl_fail(cl_int *err, cl_int code)
{
	if (err)
		*err = code;
	return NULL;
}

uint64_t pen_cl_mem_limit(struct pen_cl_device *d)
{
	struct pen_mem_view v;
	pen_gate_mem_view(d->gate, &v);
	return PEN_MIN(v.limit_bytes, d->mem_bytes);
}

/* More than the device can make in one piece: what the contract says does not matter then. */
static bool beyond_device(const struct pen_cl_context *c, uint64_t bytes)
{
	for (uint32_t i = 0; i < c->ndevices; i++)
		if (bytes > c->device[i]->max_alloc_bytes)
			return true;
	return false;
}

cl_int pen_cl_charge(struct pen_cl_context *c, uint64_t bytes)
{
	if (bytes && beyond_device(c, bytes))
		return CL_INVALID_BUFFER_SIZE;
	for (uint32_t i = 0; bytes && i < c->ndevices; i++) {
		struct pen_cl_device *d = c->device[i];
		/* Above what clGetDeviceInfo reports as largest allocation: the code of the specification for that. */
		bool too_large = bytes > pen_cl_mem_limit(d);
		if (pen_gate_mem_reserve(d->gate, bytes) == 0)   /* asked also if it is too large: a denial is counted */
			continue;
		while (i-- > 0)
			pen_gate_mem_refund(c->device[i]->gate, bytes, false);
		return too_large ? CL_INVALID_BUFFER_SIZE : CL_MEM_OBJECT_ALLOCATION_FAILURE;
	}
	return CL_SUCCESS;
}

void pen_cl_refund(struct pen_cl_context *c, uint64_t bytes)
{
	for (uint32_t i = 0; bytes && i < c->ndevices; i++)
		pen_gate_mem_refund(c->device[i]->gate, bytes, false);
}

void pen_cl_credit(struct pen_cl_context *c, uint64_t bytes)
{
	for (uint32_t i = 0; bytes && i < c->ndevices; i++)
		pen_gate_mem_release(c->device[i]->gate, bytes);
}

struct charge {
	struct pen_cl_context *context;
	uint64_t bytes;
	uint32_t process;   /* that was charged: a child ends what it inherited, too, and has its own account */
};

static void CL_CALLBACK object_ended(cl_mem mem, void *user)
{
	struct charge *ch = user;
	(void)mem;
	if (ch->process == pen_forklock_process())
		pen_cl_credit(ch->context, ch->bytes);
	free(ch);
}

cl_mem pen_cl_tie(struct pen_cl_context *c, cl_mem mem, uint64_t bytes, cl_int *err)
{
	if (!bytes)
		return mem;
	struct charge *ch = malloc(sizeof(*ch));
	if (ch) {
		ch->context = c;
		ch->bytes = bytes;
		ch->process = pen_forklock_process();
		if (BELOW(clSetMemObjectDestructorCallback)(mem, object_ended, ch) == CL_SUCCESS)
			return mem;
		free(ch);
	}
	/* Rather no object than one whose end we shall not see. */
	BELOW(clReleaseMemObject)(mem);
	pen_cl_refund(c, bytes);
	return pen_cl_fail(err, CL_OUT_OF_HOST_MEMORY);
}

/* What the object really takes: reserved bytes become those of CL_MEM_SIZE. */
static cl_mem settle(struct pen_cl_context *c, cl_mem mem, uint64_t reserved, cl_int *err)
{
	size_t real = 0;
	if (BELOW(clGetMemObjectInfo)(mem, CL_MEM_SIZE, sizeof(real), &real, NULL) != CL_SUCCESS || !real)
		real = reserved;
	if (real > reserved) {
		/* Counted as one object: the second reservation's object is counted away again below. */
		cl_int code = pen_cl_charge(c, real - reserved);
		if (code != CL_SUCCESS) {
			BELOW(clReleaseMemObject)(mem);
			pen_cl_refund(c, reserved);
			return pen_cl_fail(err, CL_MEM_OBJECT_ALLOCATION_FAILURE);
		}
		for (uint32_t i = 0; reserved && i < c->ndevices; i++)
			pen_gate_mem_refund(c->device[i]->gate, 0, false);
	} else if (real < reserved) {
		for (uint32_t i = 0; i < c->ndevices; i++)
			pen_gate_mem_refund(c->device[i]->gate, reserved - real, true);
	}
	return pen_cl_tie(c, mem, real, err);
}

/* Host memory that the application lends: nothing on a device that works on it, a copy everywhere else. */
static bool takes_memory(const struct pen_cl_context *c, cl_mem_flags flags)
{
	if (!(flags & CL_MEM_USE_HOST_PTR))
		return true;
	for (uint32_t i = 0; i < c->ndevices; i++)
		if (!c->device[i]->unified)
			return true;
	return false;
}

/* Memory that another API has allocated and counted comes in through these properties. */
static bool is_import(const cl_mem_properties *props)
{
	for (; props && props[0]; props += 2)
		if ((props[0] >= 0x2060 && props[0] <= 0x2069) ||   /* CL_EXTERNAL_MEMORY_HANDLE_*_KHR */
		    props[0] == 0x40B2)                              /* CL_IMPORT_TYPE_ARM */
			return true;
	return false;
}

/* ---- buffers ------------------------------------------------------------------------------------------------------ */

/* The charge of a new buffer, reserved. */
static cl_int reserve_buffer(struct pen_cl_context *c, cl_mem_flags flags, size_t size, uint64_t *ret_bytes)
{
	*ret_bytes = takes_memory(c, flags) ? size : 0;
	return pen_cl_charge(c, *ret_bytes);
}

static cl_mem buffer_made(struct pen_cl_context *c, cl_mem mem, uint64_t bytes, cl_int *err)
{
	if (!mem) {
		pen_cl_refund(c, bytes);
		return NULL;
	}
	return pen_cl_tie(c, mem, bytes, err);
}

cl_mem pen_clCreateBuffer(cl_context ctx, cl_mem_flags flags, size_t size, void *host, cl_int *err)
{
	struct pen_cl_context *c = pen_cl_context(ctx);
	uint64_t bytes = 0;
	if (!c)
		return BELOW(clCreateBuffer)(ctx, flags, size, host, err);
	cl_int code = reserve_buffer(c, flags, size, &bytes);
	if (code != CL_SUCCESS)
		return pen_cl_fail(err, code);
	return buffer_made(c, BELOW(clCreateBuffer)(ctx, flags, size, host, err), bytes, err);
}

cl_mem pen_clCreateBufferWithProperties(cl_context ctx, const cl_mem_properties *props, cl_mem_flags flags, size_t size,
					void *host, cl_int *err)
{
	struct pen_cl_context *c = pen_cl_context(ctx);
	uint64_t bytes = 0;
	if (!c || is_import(props))
		return BELOW(clCreateBufferWithProperties)(ctx, props, flags, size, host, err);
	cl_int code = reserve_buffer(c, flags, size, &bytes);
	if (code != CL_SUCCESS)
		return pen_cl_fail(err, code);
	return buffer_made(c, BELOW(clCreateBufferWithProperties)(ctx, props, flags, size, host, err), bytes, err);
}

/* ---- images and pipes: the driver decides on the padding ----------------------------------------------------------- */

static cl_mem image_made(struct pen_cl_context *c, cl_mem mem, uint64_t reserved, cl_int *err)
{
	if (!mem) {
		pen_cl_refund(c, reserved);
		return NULL;
	}
	return settle(c, mem, reserved, err);
}

/* Bytes by the description alone. 0 for a description that the driver will refuse. */
static uint64_t image_bytes(const cl_image_format *f, const cl_image_desc *d)
{
	if (!f || !d)
		return 0;
	uint64_t n = d->image_width * pixel_bytes(f), bytes;
	switch (d->image_type) {
	case CL_MEM_OBJECT_IMAGE1D_ARRAY:
		n *= PEN_MAX(d->image_array_size, (size_t)1);
		break;
	case CL_MEM_OBJECT_IMAGE2D:
		n *= PEN_MAX(d->image_height, (size_t)1);
		break;
	case CL_MEM_OBJECT_IMAGE2D_ARRAY:
		n *= PEN_MAX(d->image_height, (size_t)1);
		if (__builtin_mul_overflow(n, PEN_MAX(d->image_array_size, (size_t)1), &bytes))
			return 0;
		return bytes;
	case CL_MEM_OBJECT_IMAGE3D:
		n *= PEN_MAX(d->image_height, (size_t)1);
		if (__builtin_mul_overflow(n, PEN_MAX(d->image_depth, (size_t)1), &bytes))
			return 0;
		return bytes;
	default:
		break;
	}
	return n;
}

/*
 * Reserves for an image. One that no device can make in one piece is left to the driver, which has its own code for that
 * (CL_INVALID_IMAGE_SIZE, or the error that it sees first); should it make the image nevertheless, settle() charges it.
 */
static cl_int reserve_image(struct pen_cl_context *c, cl_mem_flags flags, const cl_image_format *f, const cl_image_desc *d,
			    uint64_t *ret_bytes, bool *ret_free)
{
	*ret_free = (d && d->mem_object) || !takes_memory(c, flags);
	*ret_bytes = *ret_free ? 0 : image_bytes(f, d);
	if (beyond_device(c, *ret_bytes))
		*ret_bytes = 0;
	return pen_cl_charge(c, *ret_bytes) == CL_SUCCESS ? CL_SUCCESS : CL_MEM_OBJECT_ALLOCATION_FAILURE;
}

cl_mem pen_clCreateImage(cl_context ctx, cl_mem_flags flags, const cl_image_format *f, const cl_image_desc *d, void *host,
			 cl_int *err)
{
	struct pen_cl_context *c = pen_cl_context(ctx);
	uint64_t bytes = 0;
	bool shares = false;
	if (!c)
		return BELOW(clCreateImage)(ctx, flags, f, d, host, err);
	cl_int code = reserve_image(c, flags, f, d, &bytes, &shares);
	if (code != CL_SUCCESS)
		return pen_cl_fail(err, code);
	cl_mem mem = BELOW(clCreateImage)(ctx, flags, f, d, host, err);
	return shares ? mem : image_made(c, mem, bytes, err);
}

cl_mem pen_clCreateImageWithProperties(cl_context ctx, const cl_mem_properties *props, cl_mem_flags flags,
				       const cl_image_format *f, const cl_image_desc *d, void *host, cl_int *err)
{
	struct pen_cl_context *c = pen_cl_context(ctx);
	uint64_t bytes = 0;
	bool shares = false;
	if (!c || is_import(props))
		return BELOW(clCreateImageWithProperties)(ctx, props, flags, f, d, host, err);
	cl_int code = reserve_image(c, flags, f, d, &bytes, &shares);
	if (code != CL_SUCCESS)
		return pen_cl_fail(err, code);
	cl_mem mem = BELOW(clCreateImageWithProperties)(ctx, props, flags, f, d, host, err);
	return shares ? mem : image_made(c, mem, bytes, err);
}

cl_mem pen_clCreateImage2D(cl_context ctx, cl_mem_flags flags, const cl_image_format *f, size_t width, size_t height,
			   size_t row, void *host, cl_int *err)
{
	struct pen_cl_context *c = pen_cl_context(ctx);
	cl_image_desc d = { .image_type = CL_MEM_OBJECT_IMAGE2D, .image_width = width, .image_height = height };
	uint64_t bytes = 0;
	bool shares = false;
	if (!c)
		return BELOW(clCreateImage2D)(ctx, flags, f, width, height, row, host, err);
	cl_int code = reserve_image(c, flags, f, &d, &bytes, &shares);
	if (code != CL_SUCCESS)
		return pen_cl_fail(err, code);
	cl_mem mem = BELOW(clCreateImage2D)(ctx, flags, f, width, height, row, host, err);
	return shares ? mem : image_made(c, mem, bytes, err);
}

cl_mem pen_clCreateImage3D(cl_context ctx, cl_mem_flags flags, const cl_image_format *f, size_t width, size_t height,
			   size_t depth, size_t row, size_t slice, void *host, cl_int *err)
{
	struct pen_cl_context *c = pen_cl_context(ctx);
	cl_image_desc d = { .image_type = CL_MEM_OBJECT_IMAGE3D, .image_width = width, .image_height = height,
			    .image_depth = depth };
	uint64_t bytes = 0;
	bool shares = false;
	if (!c)
		return BELOW(clCreateImage3D)(ctx, flags, f, width, height, depth, row, slice, host, err);
	cl_int code = reserve_image(c, flags, f, &d, &bytes, &shares);
	if (code != CL_SUCCESS)
		return pen_cl_fail(err, code);
	cl_mem mem = BELOW(clCreateImage3D)(ctx, flags, f, width, height, depth, row, slice, host, err);
	return shares ? mem : image_made(c, mem, bytes, err);
}

cl_mem pen_clCreatePipe(cl_context ctx, cl_mem_flags flags, cl_uint packet, cl_uint packets, const cl_pipe_properties *props,
			cl_int *err)
{
	struct pen_cl_context *c = pen_cl_context(ctx);
	if (!c)
		return BELOW(clCreatePipe)(ctx, flags, packet, packets, props, err);
	uint64_t bytes = (uint64_t)packet * packets;
	if (pen_cl_charge(c, bytes) != CL_SUCCESS)
		return pen_cl_fail(err, CL_MEM_OBJECT_ALLOCATION_FAILURE);
	return image_made(c, BELOW(clCreatePipe)(ctx, flags, packet, packets, props, err), bytes, err);
}

/* ---- the application's own callback: it runs on a thread of the driver ---------------------------------------------- */

struct callback {
	void (CL_CALLBACK *fn)(cl_mem, void *);
	void *user;
};

static void CL_CALLBACK call_application(cl_mem mem, void *user)
{
	struct callback copy = *(struct callback *)user;
	free(user);
	pen_cl_thread.callbacks++;
	copy.fn(mem, copy.user);
	pen_cl_thread.callbacks--;
}

cl_int pen_clSetMemObjectDestructorCallback(cl_mem mem, void (CL_CALLBACK *fn)(cl_mem, void *), void *user)
{
	if (!fn)
		return BELOW(clSetMemObjectDestructorCallback)(mem, fn, user);
	struct callback *cb = malloc(sizeof(*cb));
	if (!cb)
		return CL_OUT_OF_HOST_MEMORY;
	cb->fn = fn;
	cb->user = user;
	cl_int r = BELOW(clSetMemObjectDestructorCallback)(mem, call_application, cb);
	if (r != CL_SUCCESS)
		free(cb);
	return r;
}
