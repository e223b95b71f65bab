/* SPDX-License-Identifier: Apache-2.0 */
/* Platform, devices, sub-devices. */
#include "nullicd.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct _cl_platform_id nl_platform = { .o = { .magic = NL_MAGIC_PLATFORM } };
struct _cl_device_id nl_devices[8];

#define MAX_GROUP_SIZE 1024

static const char *version_string(char *buf, size_t n, const char *before, const char *after)
{
	snprintf(buf, n, "%s%u.%u%s", before, nl_config.version / 10, nl_config.version % 10, after);
	return buf;
}

static const char *extensions(void)
{
	return nl_config.version >= 30 ? "cl_khr_icd cl_khr_global_int32_base_atomics cl_khr_command_buffer"
				       : "cl_khr_icd cl_khr_global_int32_base_atomics";
}

cl_int nl_clGetPlatformIDs(cl_uint n, cl_platform_id *platforms, cl_uint *ret_n)
{
	NL_ENTER(clGetPlatformIDs);
	if ((platforms && n == 0) || (!platforms && !ret_n))
		return CL_INVALID_VALUE;
	if (platforms)
		platforms[0] = &nl_platform;
	if (ret_n)
		*ret_n = 1;
	return CL_SUCCESS;
}

cl_int nl_clGetPlatformInfo(cl_platform_id platform, cl_platform_info name, size_t size, void *value,
			    size_t *ret_size)
{
	char buf[64];

	NL_ENTER(clGetPlatformInfo);
	if (platform && !NL_IS(platform, NL_MAGIC_PLATFORM))
		return CL_INVALID_PLATFORM;
	switch (name) {
	case CL_PLATFORM_PROFILE:
		return nl_put_string("FULL_PROFILE", size, value, ret_size);
	case CL_PLATFORM_VERSION:
		return nl_put_string(version_string(buf, sizeof(buf), "OpenCL ", " nullicd"), size, value,
				     ret_size);
	case CL_PLATFORM_NUMERIC_VERSION:
		return NL_PUT(cl_version, CL_MAKE_VERSION(nl_config.version / 10, nl_config.version % 10, 0));
	case CL_PLATFORM_NAME:
		return nl_put_string("Null OpenCL", size, value, ret_size);
	case CL_PLATFORM_VENDOR:
		return nl_put_string("Penstock tests", size, value, ret_size);
	case CL_PLATFORM_EXTENSIONS:
		return nl_put_string(extensions(), size, value, ret_size);
	case CL_PLATFORM_ICD_SUFFIX_KHR:
		return nl_put_string("NULL", size, value, ret_size);
	case CL_PLATFORM_HOST_TIMER_RESOLUTION:
		return NL_PUT(cl_ulong, 1);
	default:
		return CL_INVALID_VALUE;
	}
}

cl_int nl_clGetDeviceIDs(cl_platform_id platform, cl_device_type type, cl_uint n, cl_device_id *devices,
			 cl_uint *ret_n)
{
	NL_ENTER(clGetDeviceIDs);
	if (platform && !NL_IS(platform, NL_MAGIC_PLATFORM))
		return CL_INVALID_PLATFORM;
	if ((devices && n == 0) || (!devices && !ret_n))
		return CL_INVALID_VALUE;
	if (type != CL_DEVICE_TYPE_ALL &&
	    !(type & (CL_DEVICE_TYPE_DEFAULT | CL_DEVICE_TYPE_CPU | CL_DEVICE_TYPE_GPU |
		      CL_DEVICE_TYPE_ACCELERATOR | CL_DEVICE_TYPE_CUSTOM)))
		return CL_INVALID_DEVICE_TYPE;
	if (type != CL_DEVICE_TYPE_ALL && !(type & (CL_DEVICE_TYPE_DEFAULT | nl_config.type)))
		return CL_DEVICE_NOT_FOUND;
	cl_uint count = type == CL_DEVICE_TYPE_DEFAULT ? 1 : nl_config.ndevices;

	for (cl_uint i = 0; devices && i < n && i < count; i++)
		devices[i] = &nl_devices[i];
	if (ret_n)
		*ret_n = count;
	return CL_SUCCESS;
}

cl_device_id nl_root(cl_device_id d)
{
	while (d->parent)
		d = d->parent;
	return d;
}

static cl_int device_string(cl_device_id d, cl_device_info name, size_t size, void *value, size_t *ret_size)
{
	char buf[64];

	switch (name) {
	case CL_DEVICE_NAME:
		snprintf(buf, sizeof(buf), d->parent ? "Null device %u part" : "Null device %u",
			 nl_root(d)->index);
		return nl_put_string(buf, size, value, ret_size);
	case CL_DEVICE_VENDOR:
		return nl_put_string("Penstock tests", size, value, ret_size);
	case CL_DRIVER_VERSION:
		return nl_put_string("1.0", size, value, ret_size);
	case CL_DEVICE_PROFILE:
		return nl_put_string("FULL_PROFILE", size, value, ret_size);
	case CL_DEVICE_VERSION:
		return nl_put_string(version_string(buf, sizeof(buf), "OpenCL ", " nullicd"), size, value,
				     ret_size);
	case CL_DEVICE_OPENCL_C_VERSION:
		return nl_put_string(nl_config.version >= 30
					     ? "OpenCL C 1.2 nullicd"
					     : version_string(buf, sizeof(buf), "OpenCL C ", " nullicd"),
				     size, value, ret_size);
	case CL_DEVICE_EXTENSIONS:
		return nl_put_string(extensions(), size, value, ret_size);
	case CL_DEVICE_BUILT_IN_KERNELS:
	case CL_DEVICE_IL_VERSION:
	case CL_DEVICE_LATEST_CONFORMANCE_VERSION_PASSED:
		return nl_put_string("", size, value, ret_size);
	default:
		return CL_INVALID_VALUE;
	}
}

#define DEVICE_UINTS(X) \
	X(CL_DEVICE_VENDOR_ID, 0x6e6c) \
	X(CL_DEVICE_MAX_WORK_ITEM_DIMENSIONS, 3) X(CL_DEVICE_ADDRESS_BITS, 64) X( \
		CL_DEVICE_PREFERRED_VECTOR_WIDTH_CHAR, \
		1) X(CL_DEVICE_PREFERRED_VECTOR_WIDTH_SHORT, \
		     1) X(CL_DEVICE_PREFERRED_VECTOR_WIDTH_INT, \
			  1) X(CL_DEVICE_PREFERRED_VECTOR_WIDTH_LONG, \
			       1) X(CL_DEVICE_PREFERRED_VECTOR_WIDTH_FLOAT, \
				    1) X(CL_DEVICE_PREFERRED_VECTOR_WIDTH_DOUBLE, \
					 0) X(CL_DEVICE_PREFERRED_VECTOR_WIDTH_HALF, \
					      0) X(CL_DEVICE_NATIVE_VECTOR_WIDTH_CHAR, \
						   1) X(CL_DEVICE_NATIVE_VECTOR_WIDTH_SHORT, \
							1) X(CL_DEVICE_NATIVE_VECTOR_WIDTH_INT, \
							     1) X(CL_DEVICE_NATIVE_VECTOR_WIDTH_LONG, \
								  1) X(CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT, \
								       1) X(CL_DEVICE_NATIVE_VECTOR_WIDTH_DOUBLE, \
									    0) \
		X(CL_DEVICE_NATIVE_VECTOR_WIDTH_HALF, 0) X(CL_DEVICE_MAX_CLOCK_FREQUENCY, 1000) X( \
			CL_DEVICE_IMAGE_SUPPORT, \
			CL_TRUE) X(CL_DEVICE_MAX_READ_IMAGE_ARGS, \
				   128) X(CL_DEVICE_MAX_WRITE_IMAGE_ARGS, \
					  64) X(CL_DEVICE_MAX_READ_WRITE_IMAGE_ARGS, \
						64) X(CL_DEVICE_MAX_SAMPLERS, \
						      16) X(CL_DEVICE_MEM_BASE_ADDR_ALIGN, \
							    1024) X(CL_DEVICE_MIN_DATA_TYPE_ALIGN_SIZE, \
								    128) X(CL_DEVICE_GLOBAL_MEM_CACHE_TYPE, \
									   CL_READ_WRITE_CACHE) \
			X(CL_DEVICE_GLOBAL_MEM_CACHELINE_SIZE, 64) X(CL_DEVICE_MAX_CONSTANT_ARGS, 8) X( \
				CL_DEVICE_LOCAL_MEM_TYPE, \
				CL_LOCAL) X(CL_DEVICE_ERROR_CORRECTION_SUPPORT, \
					    CL_FALSE) X(CL_DEVICE_ENDIAN_LITTLE, \
							CL_TRUE) X(CL_DEVICE_AVAILABLE, \
								   CL_TRUE) X(CL_DEVICE_COMPILER_AVAILABLE, \
									      CL_TRUE) \
				X(CL_DEVICE_LINKER_AVAILABLE, CL_TRUE) X( \
					CL_DEVICE_PREFERRED_INTEROP_USER_SYNC, \
					CL_TRUE) X(CL_DEVICE_IMAGE_PITCH_ALIGNMENT, \
						   1) X(CL_DEVICE_IMAGE_BASE_ADDRESS_ALIGNMENT, \
							1) X(CL_DEVICE_MAX_PIPE_ARGS, \
							     16) X(CL_DEVICE_PIPE_MAX_ACTIVE_RESERVATIONS, \
								   1) X(CL_DEVICE_PIPE_MAX_PACKET_SIZE, \
									1024) \
					X(CL_DEVICE_QUEUE_ON_DEVICE_PREFERRED_SIZE, \
					  0) X(CL_DEVICE_QUEUE_ON_DEVICE_MAX_SIZE, \
					       0) X(CL_DEVICE_MAX_ON_DEVICE_QUEUES, \
						    0) X(CL_DEVICE_MAX_ON_DEVICE_EVENTS, \
							 0) X(CL_DEVICE_MAX_NUM_SUB_GROUPS, \
							      0) X(CL_DEVICE_SUB_GROUP_INDEPENDENT_FORWARD_PROGRESS, \
								   CL_FALSE) \
						X(CL_DEVICE_NON_UNIFORM_WORK_GROUP_SUPPORT, CL_TRUE) X( \
							CL_DEVICE_PREFERRED_PLATFORM_ATOMIC_ALIGNMENT, \
							0) X(CL_DEVICE_PREFERRED_GLOBAL_ATOMIC_ALIGNMENT, \
							     0) X(CL_DEVICE_PREFERRED_LOCAL_ATOMIC_ALIGNMENT, \
								  0) X(CL_DEVICE_PIPE_SUPPORT, CL_TRUE) \
							X(CL_DEVICE_WORK_GROUP_COLLECTIVE_FUNCTIONS_SUPPORT, \
							  CL_FALSE) \
								X(CL_DEVICE_GENERIC_ADDRESS_SPACE_SUPPORT, \
								  CL_FALSE)

#define DEVICE_SIZES(X) \
	X(CL_DEVICE_MAX_WORK_GROUP_SIZE, MAX_GROUP_SIZE) \
	X(CL_DEVICE_IMAGE2D_MAX_WIDTH, 16384) X(CL_DEVICE_IMAGE2D_MAX_HEIGHT, 16384) X( \
		CL_DEVICE_IMAGE3D_MAX_WIDTH, 2048) X(CL_DEVICE_IMAGE3D_MAX_HEIGHT, 2048) \
		X(CL_DEVICE_IMAGE3D_MAX_DEPTH, 2048) X(CL_DEVICE_IMAGE_MAX_BUFFER_SIZE, \
						       1u << 27) X(CL_DEVICE_IMAGE_MAX_ARRAY_SIZE, 2048) \
			X(CL_DEVICE_MAX_PARAMETER_SIZE, 4096) X(CL_DEVICE_PRINTF_BUFFER_SIZE, 1u << 20) \
				X(CL_DEVICE_PROFILING_TIMER_RESOLUTION, nl_config.resolution_ns) \
					X(CL_DEVICE_MAX_GLOBAL_VARIABLE_SIZE, 0) \
						X(CL_DEVICE_GLOBAL_VARIABLE_PREFERRED_TOTAL_SIZE, 0) \
							X(CL_DEVICE_PREFERRED_WORK_GROUP_SIZE_MULTIPLE, 32)

#define DEVICE_ULONGS(X) \
	X(CL_DEVICE_GLOBAL_MEM_SIZE, nl_config.mem_bytes) \
	X(CL_DEVICE_MAX_MEM_ALLOC_SIZE, nl_config.mem_bytes / 4) X( \
		CL_DEVICE_GLOBAL_MEM_CACHE_SIZE, \
		4u << 20) X(CL_DEVICE_LOCAL_MEM_SIZE, \
			    65536) X(CL_DEVICE_MAX_CONSTANT_BUFFER_SIZE, \
				     65536) X(CL_DEVICE_SINGLE_FP_CONFIG, \
					      CL_FP_ROUND_TO_NEAREST | \
						      CL_FP_INF_NAN) X(CL_DEVICE_DOUBLE_FP_CONFIG, \
								       0) X(CL_DEVICE_HALF_FP_CONFIG, 0) \
		X(CL_DEVICE_EXECUTION_CAPABILITIES, CL_EXEC_KERNEL | CL_EXEC_NATIVE_KERNEL) X( \
			CL_DEVICE_QUEUE_ON_HOST_PROPERTIES, \
			CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE | \
				CL_QUEUE_PROFILING_ENABLE) X(CL_DEVICE_QUEUE_ON_DEVICE_PROPERTIES, \
							     0) X(CL_DEVICE_SVM_CAPABILITIES, \
								  CL_DEVICE_SVM_COARSE_GRAIN_BUFFER) \
			X(CL_DEVICE_PARTITION_AFFINITY_DOMAIN, \
			  0) X(CL_DEVICE_DEVICE_ENQUEUE_CAPABILITIES, \
			       0) X(CL_DEVICE_ATOMIC_MEMORY_CAPABILITIES, \
				    CL_DEVICE_ATOMIC_ORDER_RELAXED | CL_DEVICE_ATOMIC_SCOPE_WORK_GROUP) \
				X(CL_DEVICE_ATOMIC_FENCE_CAPABILITIES, \
				  CL_DEVICE_ATOMIC_ORDER_RELAXED | CL_DEVICE_ATOMIC_SCOPE_WORK_GROUP) \
					X(CL_DEVICE_COMMAND_BUFFER_CAPABILITIES_KHR, \
					  CL_COMMAND_BUFFER_CAPABILITY_SIMULTANEOUS_USE_KHR) \
						X(CL_DEVICE_COMMAND_BUFFER_REQUIRED_QUEUE_PROPERTIES_KHR, 0)

static cl_int device_number(cl_device_info name, size_t size, void *value, size_t *ret_size)
{
	switch (name) {
#define NL_CASE(name, v) \
	case name: \
		return NL_PUT(cl_uint, v);
		DEVICE_UINTS(NL_CASE)
#undef NL_CASE
#define NL_CASE(name, v) \
	case name: \
		return NL_PUT(size_t, v);
		DEVICE_SIZES(NL_CASE)
#undef NL_CASE
#define NL_CASE(name, v) \
	case name: \
		return NL_PUT(cl_ulong, v);
		DEVICE_ULONGS(NL_CASE)
#undef NL_CASE
	default:
		return CL_INVALID_VALUE;
	}
}

cl_int nl_clGetDeviceInfo(cl_device_id d, cl_device_info name, size_t size, void *value, size_t *ret_size)
{
	static const size_t item_sizes[3] = { MAX_GROUP_SIZE, MAX_GROUP_SIZE, 64 };
	static const cl_device_partition_property ways[2] = { CL_DEVICE_PARTITION_EQUALLY,
							      CL_DEVICE_PARTITION_BY_COUNTS };

	NL_ENTER(clGetDeviceInfo);
	if (!NL_IS(d, NL_MAGIC_DEVICE))
		return CL_INVALID_DEVICE;
	switch (name) {
	case CL_DEVICE_TYPE:
		return NL_PUT(cl_device_type, nl_config.type);
	case CL_DEVICE_MAX_COMPUTE_UNITS:
		return NL_PUT(cl_uint, d->units);
	case CL_DEVICE_HOST_UNIFIED_MEMORY:
		return NL_PUT(cl_bool, nl_config.unified);
	case CL_DEVICE_PLATFORM:
		return NL_PUT(cl_platform_id, &nl_platform);
	case CL_DEVICE_MAX_WORK_ITEM_SIZES:
		return nl_put(item_sizes, sizeof(item_sizes), size, value, ret_size);
	case CL_DEVICE_PARENT_DEVICE:
		return NL_PUT(cl_device_id, d->parent);
	case CL_DEVICE_PARTITION_MAX_SUB_DEVICES:
		return NL_PUT(cl_uint, d->units > 1 ? d->units : 0);
	case CL_DEVICE_PARTITION_PROPERTIES:
		return nl_put(ways, sizeof(ways), size, value, ret_size);
	case CL_DEVICE_PARTITION_TYPE:
		return nl_put(NULL, 0, size, value, ret_size);
	case CL_DEVICE_REFERENCE_COUNT:
		return NL_PUT(cl_uint, d->parent ? atomic_load(&d->o.refs) : 1);
	case CL_DEVICE_NUMERIC_VERSION:
		return NL_PUT(cl_version, CL_MAKE_VERSION(nl_config.version / 10, nl_config.version % 10, 0));
	default:
		break;
	}
	cl_int r = device_number(name, size, value, ret_size);

	return r == CL_INVALID_VALUE ? device_string(d, name, size, value, ret_size) : r;
}

static cl_device_id part_new(cl_device_id parent, cl_uint units)
{
	cl_device_id d = nl_new(sizeof(*d), NL_MAGIC_DEVICE);

	if (d) {
		d->parent = parent;
		d->units = units;
		d->index = nl_root(parent)->index;
		if (parent->parent)
			atomic_fetch_add(&parent->o.refs, 1);
	}
	return d;
}

cl_int nl_clCreateSubDevices(cl_device_id in, const cl_device_partition_property *properties, cl_uint n,
			     cl_device_id *out, cl_uint *ret_n)
{
	cl_uint counts[64], nparts = 0, sum = 0;

	NL_ENTER(clCreateSubDevices);
	if (!NL_IS(in, NL_MAGIC_DEVICE))
		return CL_INVALID_DEVICE;
	if (!properties || (out && n == 0))
		return CL_INVALID_VALUE;
	if (properties[0] == CL_DEVICE_PARTITION_EQUALLY) {
		if (properties[1] <= 0 || properties[1] > in->units)
			return properties[1] <= 0 ? CL_INVALID_VALUE : CL_DEVICE_PARTITION_FAILED;
		nparts = in->units / (cl_uint)properties[1];
		for (cl_uint i = 0; i < nparts && i < 64; i++)
			counts[i] = (cl_uint)properties[1];
	} else if (properties[0] == CL_DEVICE_PARTITION_BY_COUNTS) {
		for (const cl_device_partition_property *p = properties + 1;
		     *p != CL_DEVICE_PARTITION_BY_COUNTS_LIST_END && nparts < 64; p++) {
			counts[nparts++] = (cl_uint)*p;
			sum += (cl_uint)*p;
		}
		if (nparts == 0 || sum > in->units)
			return CL_INVALID_DEVICE_PARTITION_COUNT;
	} else {
		return CL_INVALID_VALUE;
	}
	if (out && n < nparts)
		return CL_INVALID_VALUE;
	for (cl_uint i = 0; out && i < nparts && i < 64; i++) {
		out[i] = part_new(in, counts[i]);
		if (!out[i]) {
			while (i-- > 0)
				nl_clReleaseDevice(out[i]);
			return CL_OUT_OF_HOST_MEMORY;
		}
	}
	if (ret_n)
		*ret_n = nparts;
	return CL_SUCCESS;
}

cl_int nl_clRetainDevice(cl_device_id d)
{
	NL_ENTER(clRetainDevice);
	if (!NL_IS(d, NL_MAGIC_DEVICE))
		return CL_INVALID_DEVICE;
	if (d->parent)
		atomic_fetch_add(&d->o.refs, 1);
	return CL_SUCCESS;
}

cl_int nl_clReleaseDevice(cl_device_id d)
{
	NL_ENTER(clReleaseDevice);
	if (!NL_IS(d, NL_MAGIC_DEVICE))
		return CL_INVALID_DEVICE;
	if (d->parent && atomic_fetch_sub(&d->o.refs, 1) == 1) {
		cl_device_id parent = d->parent;

		d->o.magic = NL_MAGIC_DEAD;
		free(d);
		if (parent->parent)
			nl_clReleaseDevice(parent);
	}
	return CL_SUCCESS;
}

cl_int nl_clGetDeviceAndHostTimer(cl_device_id d, cl_ulong *ret_device, cl_ulong *ret_host)
{
	NL_ENTER(clGetDeviceAndHostTimer);
	if (!NL_IS(d, NL_MAGIC_DEVICE))
		return CL_INVALID_DEVICE;
	if (!ret_device || !ret_host)
		return CL_INVALID_VALUE;
	*ret_device = *ret_host = nl_now();
	return CL_SUCCESS;
}

cl_int nl_clGetHostTimer(cl_device_id d, cl_ulong *ret_host)
{
	cl_ulong ignored;

	NL_ENTER(clGetHostTimer);
	return nl_clGetDeviceAndHostTimer(d, &ignored, ret_host);
}
