/* SPDX-License-Identifier: Apache-2.0 */
/* Memory objects: buffers, sub-buffers, images, pipes, samplers. */
#include "nullicd.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Above this, pages come from mmap and cost nothing before they are touched: a 4 GiB buffer is only a number. */
#define MMAP_FROM ((size_t)1 << 20)

size_t nl_format_size(const cl_image_format *f)
{
	size_t channels, bytes;

	switch (f->image_channel_order) {
	case CL_R:
	case CL_A:
	case CL_LUMINANCE:
	case CL_INTENSITY:
		channels = 1;
		break;
	case CL_RG:
	case CL_RA:
		channels = 2;
		break;
	case CL_RGBA:
	case CL_BGRA:
	case CL_ARGB:
		channels = 4;
		break;
	default:
		return 0;
	}
	switch (f->image_channel_data_type) {
	case CL_UNORM_INT8:
	case CL_SNORM_INT8:
	case CL_UNSIGNED_INT8:
	case CL_SIGNED_INT8:
		bytes = 1;
		break;
	case CL_UNORM_INT16:
	case CL_SNORM_INT16:
	case CL_UNSIGNED_INT16:
	case CL_SIGNED_INT16:
	case CL_HALF_FLOAT:
		bytes = 2;
		break;
	case CL_UNSIGNED_INT32:
	case CL_SIGNED_INT32:
	case CL_FLOAT:
		bytes = 4;
		break;
	default:
		return 0;
	}
	return channels * bytes;
}

/* The object counts on every device of its context: which of them will use it is not known yet. */
bool nl_take_bytes(cl_context c, uint64_t bytes)
{
	for (cl_uint i = 0; i < c->ndevices; i++) {
		_Atomic uint64_t *used = &nl_root(c->devices[i])->used_bytes;

		if (atomic_fetch_add(used, bytes) + bytes > nl_config.mem_bytes) {
			for (cl_uint j = 0; j <= i; j++)
				atomic_fetch_sub(&nl_root(c->devices[j])->used_bytes, bytes);
			return false;
		}
	}
	return true;
}

void nl_give_bytes(cl_context c, uint64_t bytes)
{
	for (cl_uint i = 0; i < c->ndevices; i++)
		atomic_fetch_sub(&nl_root(c->devices[i])->used_bytes, bytes);
}

static bool back_with_pages(cl_mem m, void *host_ptr)
{
	if ((m->flags & CL_MEM_USE_HOST_PTR) && host_ptr) {
		m->data = host_ptr;
		return true;
	}
	m->owned = true;
	if (m->size >= MMAP_FROM) {
		void *p = mmap(NULL, m->size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		m->mmapped = true;
		m->data = p == MAP_FAILED ? NULL : p;
	} else {
		m->data = malloc(m->size);
	}
	if (m->data && (m->flags & CL_MEM_COPY_HOST_PTR) && host_ptr)
		memcpy(m->data, host_ptr, m->size);
	return m->data != NULL;
}

cl_mem nl_mem_new(cl_context context, cl_mem_object_type type, cl_mem_flags flags, size_t size,
		  void *host_ptr, cl_int *ret_err)
{
	cl_mem m = nl_new(sizeof(*m), NL_MAGIC_MEM);
	uint64_t charged_bytes = (flags & CL_MEM_USE_HOST_PTR) && nl_config.unified ? 0 : size;

	if (!m)
		return nl_fail(ret_err, CL_OUT_OF_HOST_MEMORY);
	m->context = context;
	m->type = type;
	m->flags = flags & (CL_MEM_READ_WRITE | CL_MEM_READ_ONLY | CL_MEM_WRITE_ONLY)
			   ? flags
			   : flags | CL_MEM_READ_WRITE;
	m->size = size;
	m->host_ptr = (flags & CL_MEM_USE_HOST_PTR) ? host_ptr : NULL;
	if (!nl_take_bytes(context, charged_bytes)) {
		free(m);
		return nl_fail(ret_err, CL_MEM_OBJECT_ALLOCATION_FAILURE);
	}
	if (!back_with_pages(m, host_ptr)) {
		nl_give_bytes(context, charged_bytes);
		free(m);
		return nl_fail(ret_err, CL_OUT_OF_HOST_MEMORY);
	}
	m->charged_bytes = charged_bytes;
	atomic_fetch_add(&context->o.life, 1);
	nl_fail(ret_err, CL_SUCCESS);
	return m;
}

static cl_int check_flags(cl_mem_flags flags, const void *host_ptr)
{
	cl_mem_flags access = flags & (CL_MEM_READ_WRITE | CL_MEM_READ_ONLY | CL_MEM_WRITE_ONLY);

	if (access & (access - 1))
		return CL_INVALID_VALUE;
	if ((flags & CL_MEM_USE_HOST_PTR) && (flags & (CL_MEM_ALLOC_HOST_PTR | CL_MEM_COPY_HOST_PTR)))
		return CL_INVALID_VALUE;
	if ((host_ptr != NULL) != ((flags & (CL_MEM_USE_HOST_PTR | CL_MEM_COPY_HOST_PTR)) != 0))
		return CL_INVALID_HOST_PTR;
	return CL_SUCCESS;
}

static cl_mem buffer_new(cl_context c, cl_mem_flags flags, size_t size, void *host_ptr, cl_int *ret_err)
{
	cl_int r;

	if (!NL_IS(c, NL_MAGIC_CONTEXT))
		return nl_fail(ret_err, CL_INVALID_CONTEXT);
	if (size == 0 || size > nl_config.mem_bytes / 4)
		return nl_fail(ret_err, CL_INVALID_BUFFER_SIZE);
	r = check_flags(flags, host_ptr);
	if (r)
		return nl_fail(ret_err, r);
	return nl_mem_new(c, CL_MEM_OBJECT_BUFFER, flags, size, host_ptr, ret_err);
}

cl_mem nl_clCreateBuffer(cl_context c, cl_mem_flags flags, size_t size, void *host_ptr, cl_int *ret_err)
{
	NL_ENTER_PTR(clCreateBuffer, ret_err);
	return buffer_new(c, flags, size, host_ptr, ret_err);
}

static void keep_properties(cl_mem m, const cl_mem_properties *properties)
{
	m->narray = nl_list_length((const intptr_t *)properties);
	if (m->narray)
		memcpy(m->array, properties, m->narray * sizeof(*properties));
}

cl_mem nl_clCreateBufferWithProperties(cl_context c, const cl_mem_properties *properties, cl_mem_flags flags,
				       size_t size, void *host_ptr, cl_int *ret_err)
{
	cl_mem m;

	NL_ENTER_PTR(clCreateBufferWithProperties, ret_err);
	if (properties && *properties)
		return nl_fail(ret_err, CL_INVALID_PROPERTY);
	m = buffer_new(c, flags, size, host_ptr, ret_err);
	if (m)
		keep_properties(m, properties);
	return m;
}

cl_mem nl_clCreateSubBuffer(cl_mem parent, cl_mem_flags flags, cl_buffer_create_type type, const void *info,
			    cl_int *ret_err)
{
	const cl_buffer_region *region = info;
	cl_mem m;

	NL_ENTER_PTR(clCreateSubBuffer, ret_err);
	if (!NL_IS(parent, NL_MAGIC_MEM) || parent->type != CL_MEM_OBJECT_BUFFER || parent->parent)
		return nl_fail(ret_err, CL_INVALID_MEM_OBJECT);
	if (type != CL_BUFFER_CREATE_TYPE_REGION || !region || region->origin > parent->size ||
	    region->size > parent->size - region->origin)
		return nl_fail(ret_err, CL_INVALID_VALUE);
	if (region->size == 0)
		return nl_fail(ret_err, CL_INVALID_BUFFER_SIZE);
	if (region->origin % 128)
		return nl_fail(ret_err, CL_MISALIGNED_SUB_BUFFER_OFFSET);
	m = nl_new(sizeof(*m), NL_MAGIC_MEM);
	if (!m)
		return nl_fail(ret_err, CL_OUT_OF_HOST_MEMORY);
	m->context = parent->context;
	m->parent = parent;
	m->type = CL_MEM_OBJECT_BUFFER;
	m->flags = flags ? flags : parent->flags;
	m->size = region->size;
	m->origin = region->origin;
	m->data = parent->data + region->origin;
	m->host_ptr = parent->host_ptr ? (char *)parent->host_ptr + region->origin : NULL;
	atomic_fetch_add(&m->context->o.life, 1);
	nl_mem_pin(parent);
	nl_fail(ret_err, CL_SUCCESS);
	return m;
}

void nl_mem_pin(cl_mem m)
{
	atomic_fetch_add_explicit(&m->o.life, 1, memory_order_relaxed);
}

void nl_mem_unpin(cl_mem m)
{
	cl_mem parent = m->parent;

	if (atomic_fetch_sub(&m->o.life, 1) != 1)
		return;
	while (m->destructors) {
		struct nl_callback *cb = m->destructors;

		m->destructors = cb->next;
		((void(CL_CALLBACK *)(cl_mem, void *))cb->fn)(m, cb->user);
		free(cb);
	}
	nl_give_bytes(m->context, m->charged_bytes);
	if (m->owned && m->mmapped)
		munmap(m->data, m->size);
	else if (m->owned)
		free(m->data);
	nl_context_unpin(m->context);
	m->o.magic = NL_MAGIC_DEAD;
	free(m);
	if (parent)
		nl_mem_unpin(parent);
}

cl_int nl_clRetainMemObject(cl_mem m)
{
	NL_ENTER(clRetainMemObject);
	if (!NL_IS(m, NL_MAGIC_MEM))
		return CL_INVALID_MEM_OBJECT;
	atomic_fetch_add(&m->o.refs, 1);
	return CL_SUCCESS;
}

cl_int nl_clReleaseMemObject(cl_mem m)
{
	NL_ENTER(clReleaseMemObject);
	if (!NL_IS(m, NL_MAGIC_MEM))
		return CL_INVALID_MEM_OBJECT;
	if (atomic_fetch_sub(&m->o.refs, 1) == 1)
		nl_mem_unpin(m);
	return CL_SUCCESS;
}

cl_int nl_clSetMemObjectDestructorCallback(cl_mem m, void(CL_CALLBACK *fn)(cl_mem, void *), void *user)
{
	struct nl_callback *cb;

	NL_ENTER(clSetMemObjectDestructorCallback);
	if (!NL_IS(m, NL_MAGIC_MEM))
		return CL_INVALID_MEM_OBJECT;
	if (!fn)
		return CL_INVALID_VALUE;
	cb = malloc(sizeof(*cb));
	if (!cb)
		return CL_OUT_OF_HOST_MEMORY;
	*cb = (struct nl_callback){ .next = m->destructors, .fn = (void *)fn, .user = user };
	m->destructors = cb;
	return CL_SUCCESS;
}

cl_int nl_clGetMemObjectInfo(cl_mem m, cl_mem_info name, size_t size, void *value, size_t *ret_size)
{
	NL_ENTER(clGetMemObjectInfo);
	if (!NL_IS(m, NL_MAGIC_MEM))
		return CL_INVALID_MEM_OBJECT;
	switch (name) {
	case CL_MEM_TYPE:
		return NL_PUT(cl_mem_object_type, m->type);
	case CL_MEM_FLAGS:
		return NL_PUT(cl_mem_flags, m->flags);
	case CL_MEM_SIZE:
		return NL_PUT(size_t, m->size);
	case CL_MEM_HOST_PTR:
		return NL_PUT(void *, m->host_ptr);
	case CL_MEM_MAP_COUNT:
		return NL_PUT(cl_uint, atomic_load(&m->maps));
	case CL_MEM_REFERENCE_COUNT:
		return NL_PUT(cl_uint, atomic_load(&m->o.refs));
	case CL_MEM_CONTEXT:
		return NL_PUT(cl_context, m->context);
	case CL_MEM_ASSOCIATED_MEMOBJECT:
		return NL_PUT(cl_mem, m->parent);
	case CL_MEM_OFFSET:
		return NL_PUT(size_t, m->origin);
	case CL_MEM_USES_SVM_POINTER:
		return NL_PUT(cl_bool, CL_FALSE);
	case CL_MEM_PROPERTIES:
		return nl_put(m->array, m->narray * sizeof(*m->array), size, value, ret_size);
	default:
		return CL_INVALID_VALUE;
	}
}

cl_mem nl_clCreatePipe(cl_context c, cl_mem_flags flags, cl_uint packet, cl_uint max_packets,
		       const cl_pipe_properties *properties, cl_int *ret_err)
{
	cl_mem m;

	NL_ENTER_PTR(clCreatePipe, ret_err);
	if (!NL_IS(c, NL_MAGIC_CONTEXT))
		return nl_fail(ret_err, CL_INVALID_CONTEXT);
	if (properties || (flags & ~(cl_mem_flags)(CL_MEM_READ_WRITE | CL_MEM_HOST_NO_ACCESS)))
		return nl_fail(ret_err, CL_INVALID_VALUE);
	if (packet == 0 || packet > 1024 || max_packets == 0)
		return nl_fail(ret_err, CL_INVALID_PIPE_SIZE);
	m = nl_mem_new(c, CL_MEM_OBJECT_PIPE, flags, (size_t)packet * max_packets, NULL, ret_err);
	if (m) {
		m->pipe_packet = packet;
		m->pipe_max = max_packets;
	}
	return m;
}

cl_int nl_clGetPipeInfo(cl_mem m, cl_pipe_info name, size_t size, void *value, size_t *ret_size)
{
	NL_ENTER(clGetPipeInfo);
	if (!NL_IS(m, NL_MAGIC_MEM) || m->type != CL_MEM_OBJECT_PIPE)
		return CL_INVALID_MEM_OBJECT;
	switch (name) {
	case CL_PIPE_PACKET_SIZE:
		return NL_PUT(cl_uint, m->pipe_packet);
	case CL_PIPE_MAX_PACKETS:
		return NL_PUT(cl_uint, m->pipe_max);
	case CL_PIPE_PROPERTIES:
		return nl_put(NULL, 0, size, value, ret_size);
	default:
		return CL_INVALID_VALUE;
	}
}

static cl_sampler sampler_new(cl_context c, cl_bool normalized, cl_addressing_mode a, cl_filter_mode f,
			      cl_int *ret_err)
{
	cl_sampler s;

	if (!NL_IS(c, NL_MAGIC_CONTEXT))
		return nl_fail(ret_err, CL_INVALID_CONTEXT);
	s = nl_new(sizeof(*s), NL_MAGIC_SAMPLER);
	if (!s)
		return nl_fail(ret_err, CL_OUT_OF_HOST_MEMORY);
	s->context = c;
	s->normalized = normalized;
	s->addressing = a;
	s->filter = f;
	atomic_fetch_add(&c->o.life, 1);
	nl_fail(ret_err, CL_SUCCESS);
	return s;
}

cl_sampler nl_clCreateSampler(cl_context c, cl_bool normalized, cl_addressing_mode a, cl_filter_mode f,
			      cl_int *ret_err)
{
	NL_ENTER_PTR(clCreateSampler, ret_err);
	return sampler_new(c, normalized, a, f, ret_err);
}

cl_sampler nl_clCreateSamplerWithProperties(cl_context c, const cl_sampler_properties *properties,
					    cl_int *ret_err)
{
	cl_sampler_properties normalized = CL_TRUE, addressing = CL_ADDRESS_CLAMP, filter = CL_FILTER_NEAREST;

	NL_ENTER_PTR(clCreateSamplerWithProperties, ret_err);
	for (const cl_sampler_properties *p = properties; p && *p; p += 2) {
		switch (p[0]) {
		case CL_SAMPLER_NORMALIZED_COORDS:
			normalized = p[1];
			break;
		case CL_SAMPLER_ADDRESSING_MODE:
			addressing = p[1];
			break;
		case CL_SAMPLER_FILTER_MODE:
			filter = p[1];
			break;
		default:
			return nl_fail(ret_err, CL_INVALID_VALUE);
		}
	}
	return sampler_new(c, (cl_bool)normalized, (cl_addressing_mode)addressing, (cl_filter_mode)filter,
			   ret_err);
}

cl_int nl_clRetainSampler(cl_sampler s)
{
	NL_ENTER(clRetainSampler);
	if (!NL_IS(s, NL_MAGIC_SAMPLER))
		return CL_INVALID_SAMPLER;
	atomic_fetch_add(&s->o.refs, 1);
	return CL_SUCCESS;
}

cl_int nl_clReleaseSampler(cl_sampler s)
{
	NL_ENTER(clReleaseSampler);
	if (!NL_IS(s, NL_MAGIC_SAMPLER))
		return CL_INVALID_SAMPLER;
	if (atomic_fetch_sub(&s->o.refs, 1) == 1) {
		nl_context_unpin(s->context);
		s->o.magic = NL_MAGIC_DEAD;
		free(s);
	}
	return CL_SUCCESS;
}

cl_int nl_clGetSamplerInfo(cl_sampler s, cl_sampler_info name, size_t size, void *value, size_t *ret_size)
{
	NL_ENTER(clGetSamplerInfo);
	if (!NL_IS(s, NL_MAGIC_SAMPLER))
		return CL_INVALID_SAMPLER;
	switch (name) {
	case CL_SAMPLER_REFERENCE_COUNT:
		return NL_PUT(cl_uint, atomic_load(&s->o.refs));
	case CL_SAMPLER_CONTEXT:
		return NL_PUT(cl_context, s->context);
	case CL_SAMPLER_NORMALIZED_COORDS:
		return NL_PUT(cl_bool, s->normalized);
	case CL_SAMPLER_ADDRESSING_MODE:
		return NL_PUT(cl_addressing_mode, s->addressing);
	case CL_SAMPLER_FILTER_MODE:
		return NL_PUT(cl_filter_mode, s->filter);
	case CL_SAMPLER_PROPERTIES:
		return nl_put(NULL, 0, size, value, ret_size);
	default:
		return CL_INVALID_VALUE;
	}
}
