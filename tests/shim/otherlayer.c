/* SPDX-License-Identifier: Apache-2.0 */
/* A layer that is not ours: it counts some calls, passes them on, and leaves every other slot empty. */
#define CL_TARGET_OPENCL_VERSION 300
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>
#include <CL/cl_icd.h>
#include <CL/cl_layer.h>

#include <stdatomic.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT _Atomic uint64_t other_kernels, other_buffers, other_events;
static const cl_icd_dispatch *below;

static cl_int CL_API_CALL enqueue(cl_command_queue q, cl_kernel k, cl_uint dim, const size_t *offset, const size_t *global,
				  const size_t *local, cl_uint n, const cl_event *wait, cl_event *event)
{
	atomic_fetch_add(&other_kernels, 1);
	return below->clEnqueueNDRangeKernel(q, k, dim, offset, global, local, n, wait, event);
}

static cl_mem CL_API_CALL create_buffer(cl_context c, cl_mem_flags flags, size_t size, void *host, cl_int *err)
{
	atomic_fetch_add(&other_buffers, 1);
	return below->clCreateBuffer(c, flags, size, host, err);
}

static cl_int CL_API_CALL release_event(cl_event e)
{
	atomic_fetch_add(&other_events, 1);
	return below->clReleaseEvent(e);
}

EXPORT cl_int CL_API_CALL clGetLayerInfo(cl_layer_info what, size_t size, void *value, size_t *ret_size)
{
	if (what != CL_LAYER_API_VERSION || (value && size < sizeof(cl_layer_api_version)))
		return CL_INVALID_VALUE;
	if (value)
		*(cl_layer_api_version *)value = CL_LAYER_API_VERSION_100;
	if (ret_size)
		*ret_size = sizeof(cl_layer_api_version);
	return CL_SUCCESS;
}

EXPORT cl_int CL_API_CALL clInitLayer(cl_uint entries, const cl_icd_dispatch *target, cl_uint *ret_entries,
				      const cl_icd_dispatch **ret_ours)
{
	static cl_icd_dispatch ours;
	(void)entries;
	below = target;
	ours.clEnqueueNDRangeKernel = enqueue;
	ours.clCreateBuffer = create_buffer;
	ours.clReleaseEvent = release_event;
	*ret_entries = sizeof(ours) / sizeof(void *);
	*ret_ours = &ours;
	return CL_SUCCESS;
}
