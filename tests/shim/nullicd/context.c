/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts and command queues. */
#include "nullicd.h"
#include <stdlib.h>
#include <string.h>

bool nl_context_has(cl_context c, cl_device_id d)
{
	for (cl_uint i = 0; i < c->ndevices; i++)
		for (cl_device_id p = d; p; p = p->parent)
			if (c->devices[i] == p)
				return true;
	return false;
}

static cl_int check_properties(const cl_context_properties *properties)
{
	for (const cl_context_properties *p = properties; p && *p; p += 2) {
		if (p[0] == CL_CONTEXT_PLATFORM && (cl_platform_id)p[1] != &nl_platform)
			return CL_INVALID_PLATFORM;
		if (p[0] != CL_CONTEXT_PLATFORM && p[0] != CL_CONTEXT_INTEROP_USER_SYNC)
			return CL_INVALID_PROPERTY;
	}
	return nl_list_length(properties) > 16 ? CL_INVALID_PROPERTY : CL_SUCCESS;
}

cl_context nl_clCreateContext(const cl_context_properties *properties, cl_uint n, const cl_device_id *devices,
			      void(CL_CALLBACK *notify)(const char *, const void *, size_t, void *),
			      void *user, cl_int *ret_err)
{
	cl_int r = check_properties(properties);
	cl_context c;

	NL_ENTER_PTR(clCreateContext, ret_err);
	if (r)
		return nl_fail(ret_err, r);
	if (n == 0 || !devices || n > 16 || (!notify && user))
		return nl_fail(ret_err, CL_INVALID_VALUE);
	for (cl_uint i = 0; i < n; i++)
		if (!NL_IS(devices[i], NL_MAGIC_DEVICE))
			return nl_fail(ret_err, CL_INVALID_DEVICE);
	c = nl_new(sizeof(*c), NL_MAGIC_CONTEXT);
	if (!c)
		return nl_fail(ret_err, CL_OUT_OF_HOST_MEMORY);
	c->ndevices = n;
	memcpy(c->devices, devices, n * sizeof(*devices));
	c->nproperties = nl_list_length(properties);
	if (c->nproperties)
		memcpy(c->properties, properties, c->nproperties * sizeof(*properties));
	for (cl_uint i = 0; i < n; i++)
		nl_clRetainDevice(devices[i]);
	nl_fail(ret_err, CL_SUCCESS);
	return c;
}

cl_context nl_clCreateContextFromType(const cl_context_properties *properties, cl_device_type type,
				      void(CL_CALLBACK *notify)(const char *, const void *, size_t, void *),
				      void *user, cl_int *ret_err)
{
	cl_device_id devices[8];
	cl_uint n = 0;
	cl_int r;

	NL_ENTER_PTR(clCreateContextFromType, ret_err);
	r = nl_clGetDeviceIDs(&nl_platform, type, 8, devices, &n);
	if (r)
		return nl_fail(ret_err, r);
	return nl_clCreateContext(properties, n, devices, notify, user, ret_err);
}

cl_int nl_clRetainContext(cl_context c)
{
	NL_ENTER(clRetainContext);
	if (!NL_IS(c, NL_MAGIC_CONTEXT))
		return CL_INVALID_CONTEXT;
	atomic_fetch_add(&c->o.refs, 1);
	return CL_SUCCESS;
}

void nl_context_unpin(cl_context c)
{
	if (atomic_fetch_sub(&c->o.life, 1) != 1)
		return;
	while (c->destructors) {
		struct nl_callback *cb = c->destructors;

		c->destructors = cb->next;
		((void(CL_CALLBACK *)(cl_context, void *))cb->fn)(c, cb->user);
		free(cb);
	}
	for (cl_uint i = 0; i < c->ndevices; i++)
		nl_clReleaseDevice(c->devices[i]);
	c->o.magic = NL_MAGIC_DEAD;
	free(c);
}

cl_int nl_clReleaseContext(cl_context c)
{
	NL_ENTER(clReleaseContext);
	if (!NL_IS(c, NL_MAGIC_CONTEXT))
		return CL_INVALID_CONTEXT;
	if (atomic_fetch_sub(&c->o.refs, 1) == 1)
		nl_context_unpin(c);
	return CL_SUCCESS;
}

cl_int nl_clSetContextDestructorCallback(cl_context c, void(CL_CALLBACK *fn)(cl_context, void *), void *user)
{
	struct nl_callback *cb;

	NL_ENTER(clSetContextDestructorCallback);
	if (!NL_IS(c, NL_MAGIC_CONTEXT))
		return CL_INVALID_CONTEXT;
	if (!fn)
		return CL_INVALID_VALUE;
	cb = malloc(sizeof(*cb));
	if (!cb)
		return CL_OUT_OF_HOST_MEMORY;
	*cb = (struct nl_callback){ .next = c->destructors, .fn = (void *)fn, .user = user };
	c->destructors = cb;
	return CL_SUCCESS;
}

cl_int nl_clGetContextInfo(cl_context c, cl_context_info name, size_t size, void *value, size_t *ret_size)
{
	NL_ENTER(clGetContextInfo);
	if (!NL_IS(c, NL_MAGIC_CONTEXT))
		return CL_INVALID_CONTEXT;
	switch (name) {
	case CL_CONTEXT_REFERENCE_COUNT:
		return NL_PUT(cl_uint, atomic_load(&c->o.refs));
	case CL_CONTEXT_NUM_DEVICES:
		return NL_PUT(cl_uint, c->ndevices);
	case CL_CONTEXT_DEVICES:
		return nl_put(c->devices, c->ndevices * sizeof(*c->devices), size, value, ret_size);
	case CL_CONTEXT_PROPERTIES:
		return nl_put(c->properties, c->nproperties * sizeof(*c->properties), size, value, ret_size);
	default:
		return CL_INVALID_VALUE;
	}
}

#define QUEUE_KNOWN (CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE | CL_QUEUE_PROFILING_ENABLE)
#define QUEUE_DEVICE (CL_QUEUE_ON_DEVICE | CL_QUEUE_ON_DEVICE_DEFAULT)

static cl_command_queue queue_new(cl_context c, cl_device_id d, cl_command_queue_properties properties,
				  cl_int *ret_err)
{
	cl_command_queue q;

	if (!NL_IS(c, NL_MAGIC_CONTEXT))
		return nl_fail(ret_err, CL_INVALID_CONTEXT);
	if (!NL_IS(d, NL_MAGIC_DEVICE) || !nl_context_has(c, d))
		return nl_fail(ret_err, CL_INVALID_DEVICE);
	if (properties & ~(cl_command_queue_properties)(QUEUE_KNOWN | QUEUE_DEVICE))
		return nl_fail(ret_err, CL_INVALID_VALUE);
	if (properties & QUEUE_DEVICE)
		return nl_fail(ret_err, CL_INVALID_QUEUE_PROPERTIES);
	q = nl_new(sizeof(*q), NL_MAGIC_QUEUE);
	if (!q)
		return nl_fail(ret_err, CL_OUT_OF_HOST_MEMORY);
	q->context = c;
	q->device = d;
	q->properties = properties;
	atomic_fetch_add(&c->o.life, 1);
	nl_clRetainDevice(d);
	nl_fail(ret_err, CL_SUCCESS);
	return q;
}

cl_command_queue nl_clCreateCommandQueue(cl_context c, cl_device_id d, cl_command_queue_properties properties,
					 cl_int *ret_err)
{
	NL_ENTER_PTR(clCreateCommandQueue, ret_err);
	return queue_new(c, d, properties, ret_err);
}

cl_command_queue nl_clCreateCommandQueueWithProperties(cl_context c, cl_device_id d,
						       const cl_queue_properties *properties, cl_int *ret_err)
{
	cl_command_queue_properties bits = 0;
	size_t n = nl_list_length((const intptr_t *)properties);
	cl_command_queue q;

	NL_ENTER_PTR(clCreateCommandQueueWithProperties, ret_err);
	if (n > 16)
		return nl_fail(ret_err, CL_INVALID_VALUE);
	for (const cl_queue_properties *p = properties; p && *p; p += 2) {
		if (p[0] != CL_QUEUE_PROPERTIES && p[0] != CL_QUEUE_SIZE)
			return nl_fail(ret_err, CL_INVALID_VALUE);
		if (p[0] == CL_QUEUE_PROPERTIES)
			bits = p[1];
	}
	q = queue_new(c, d, bits, ret_err);
	if (q && n) {
		q->narray = n;
		memcpy(q->array, properties, n * sizeof(*properties));
	}
	return q;
}

cl_int nl_clRetainCommandQueue(cl_command_queue q)
{
	NL_ENTER(clRetainCommandQueue);
	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	atomic_fetch_add(&q->o.refs, 1);
	return CL_SUCCESS;
}

void nl_queue_unpin(cl_command_queue q)
{
	if (atomic_fetch_sub(&q->o.life, 1) != 1)
		return;
	nl_clReleaseDevice(q->device);
	nl_context_unpin(q->context);
	q->o.magic = NL_MAGIC_DEAD;
	free(q);
}

cl_int nl_clReleaseCommandQueue(cl_command_queue q)
{
	NL_ENTER(clReleaseCommandQueue);
	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	if (atomic_fetch_sub(&q->o.refs, 1) == 1) {
		nl_clFlush(q); /* the specification's implicit flush */
		nl_queue_unpin(q);
	}
	return CL_SUCCESS;
}

cl_int nl_clSetCommandQueueProperty(cl_command_queue q, cl_command_queue_properties properties,
				    cl_bool enable, cl_command_queue_properties *ret_old)
{
	NL_ENTER(clSetCommandQueueProperty);
	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	if (nl_config.version > 10)
		return CL_INVALID_OPERATION;
	if (ret_old)
		*ret_old = q->properties;
	q->properties = enable ? q->properties | properties : q->properties & ~properties;
	return CL_SUCCESS;
}

cl_int nl_clSetDefaultDeviceCommandQueue(cl_context c, cl_device_id d, cl_command_queue q)
{
	NL_ENTER(clSetDefaultDeviceCommandQueue);
	if (!NL_IS(c, NL_MAGIC_CONTEXT))
		return CL_INVALID_CONTEXT;
	if (!NL_IS(d, NL_MAGIC_DEVICE))
		return CL_INVALID_DEVICE;
	(void)q;
	return CL_INVALID_OPERATION; /* no queue on the device, none can be the default */
}

cl_int nl_clGetCommandQueueInfo(cl_command_queue q, cl_command_queue_info name, size_t size, void *value,
				size_t *ret_size)
{
	NL_ENTER(clGetCommandQueueInfo);
	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	switch (name) {
	case CL_QUEUE_CONTEXT:
		return NL_PUT(cl_context, q->context);
	case CL_QUEUE_DEVICE:
		return NL_PUT(cl_device_id, q->device);
	case CL_QUEUE_REFERENCE_COUNT:
		return NL_PUT(cl_uint, atomic_load(&q->o.refs));
	case CL_QUEUE_PROPERTIES:
		return NL_PUT(cl_command_queue_properties, q->properties);
	case CL_QUEUE_PROPERTIES_ARRAY:
		return nl_put(q->array, q->narray * sizeof(*q->array), size, value, ret_size);
	case CL_QUEUE_DEVICE_DEFAULT:
		return NL_PUT(cl_command_queue, NULL);
	case CL_QUEUE_SIZE:
		return CL_INVALID_COMMAND_QUEUE;
	default:
		return CL_INVALID_VALUE;
	}
}
