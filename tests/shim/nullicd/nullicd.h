/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TEST_NULLICD_H
#define PEN_TEST_NULLICD_H
/*
 * A null OpenCL driver: every entry point of OpenCL 1.0-3.0 (without the GL, D3D and EGL sharing) with the semantics that a
 * layer above it relies on, and no work behind it. Tests of the layer and the overhead benchmark load it as an ICD.
 *
 * Why an own driver beside PoCL: a launch here costs a few nanoseconds, so that nanoseconds of a layer can be seen; commands
 * fail on request; time is declared, not measured; and a queue that was not flushed really does not start.
 *
 * Real: object life and reference counts, argument checks of the common kinds, order within a queue, wait lists, user events,
 * event callbacks, profiling stamps, data movement of copies, maps and fills, memory capacity. Not real: kernels do nothing,
 * except one called null_count (see kernel.c).
 *
 * Environment, read once when the library is loaded:
 *   NULLICD_COST_NS=n         device time of a kernel; 0 (default): complete inside the call
 *   NULLICD_COST_GROUP_NS=n   plus this for each work-group
 *   NULLICD_COPY_NS_PER_KB=n  device time of copies, fills, reads, writes
 *   NULLICD_LAZY=1            nothing starts before its queue is flushed
 *   NULLICD_DEVICES=n         1 (default) to 8
 *   NULLICD_UNITS=n           compute units of a device (16)
 *   NULLICD_MEM_MB=n          memory of a device (16384)
 *   NULLICD_UNIFIED=1         reports CL_DEVICE_HOST_UNIFIED_MEMORY
 *   NULLICD_TYPE=cpu|accelerator   instead of gpu
 *   NULLICD_VERSION=1.2       reports that version and has no entry point of a newer one
 *   NULLICD_RESOLUTION=n      profiling timer resolution in ns; 0: stamps cannot be trusted (END = START + 1)
 *   NULLICD_FAIL=NAME:CODE[@N],…   entry point NAME returns CODE (always, or at its N-th call only)
 *   NULLICD_TRACE=FILE        appends one line for each call; launches with their ranges
 *
 * Threads: all entry points from any thread. One thread per device exists while costs are not zero.
 */
#define CL_TARGET_OPENCL_VERSION 300
#define CL_ENABLE_BETA_EXTENSIONS   /* command buffers, in headers since 2023 */
#define CL_USE_DEPRECATED_OPENCL_1_0_APIS
#define CL_USE_DEPRECATED_OPENCL_1_1_APIS
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#define CL_USE_DEPRECATED_OPENCL_2_0_APIS
#define CL_USE_DEPRECATED_OPENCL_2_1_APIS
#define CL_USE_DEPRECATED_OPENCL_2_2_APIS
#include <CL/cl.h>
#include <CL/cl_ext.h>
#include <CL/cl_icd.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Entry point and the OpenCL version (times ten) that brought it. Dispatch table, declarations, faults and trace come from here. */
#define NL_FUNCTIONS(X) \
	X(clGetPlatformIDs, 10) \
	X(clGetPlatformInfo, 10) X(clGetDeviceIDs, 10) X(clGetDeviceInfo, 10) X(clCreateContext, 10) X( \
		clCreateContextFromType, \
		10) X(clRetainContext, 10) X(clReleaseContext, \
					     10) X(clGetContextInfo, \
						   10) X(clCreateCommandQueue, \
							 10) X(clRetainCommandQueue, \
							       10) X(clReleaseCommandQueue, \
								     10) X(clGetCommandQueueInfo, \
									   10) X(clSetCommandQueueProperty, \
										 10) X(clCreateBuffer, 10) \
		X(clCreateImage2D, 10) X(clCreateImage3D, 10) X(clRetainMemObject, 10) X( \
			clReleaseMemObject, \
			10) X(clGetSupportedImageFormats, \
			      10) X(clGetMemObjectInfo, \
				    10) X(clGetImageInfo, \
					  10) X(clCreateSampler, \
						10) X(clRetainSampler, \
						      10) X(clReleaseSampler, \
							    10) X(clGetSamplerInfo, \
								  10) X(clCreateProgramWithSource, \
									10) X(clCreateProgramWithBinary, \
									      10) X(clRetainProgram, 10) \
			X(clReleaseProgram, 10) X(clBuildProgram, 10) X(clUnloadCompiler, 10) X( \
				clGetProgramInfo, \
				10) X(clGetProgramBuildInfo, 10) X(clCreateKernel, \
								   10) X(clCreateKernelsInProgram, \
									 10) X(clRetainKernel, \
									       10) X(clReleaseKernel, 10) \
				X(clSetKernelArg, 10) X(clGetKernelInfo, 10) X(clGetKernelWorkGroupInfo, 10) X( \
					clWaitForEvents, \
					10) X(clGetEventInfo, \
					      10) X(clRetainEvent, 10) X(clReleaseEvent, \
									 10) X(clGetEventProfilingInfo, 10) \
					X(clFlush, 10) X(clFinish, 10) X(clEnqueueReadBuffer, 10) X(clEnqueueWriteBuffer, 10) X( \
						clEnqueueCopyBuffer, 10) X(clEnqueueReadImage, \
									   10) X(clEnqueueWriteImage, \
										 10) X(clEnqueueCopyImage, \
										       10) X(clEnqueueCopyImageToBuffer, \
											     10) X(clEnqueueCopyBufferToImage, \
												   10) X(clEnqueueMapBuffer, \
													 10) X(clEnqueueMapImage, \
													       10) \
						X(clEnqueueUnmapMemObject, 10) X(clEnqueueNDRangeKernel, 10) X(clEnqueueTask, 10) X( \
							clEnqueueNativeKernel, \
							10) X(clEnqueueMarker, 10) X(clEnqueueWaitForEvents, \
										     10) X(clEnqueueBarrier, \
											   10) X(clGetExtensionFunctionAddress, \
												 10) X(clSetEventCallback, 11) \
							X(clCreateSubBuffer, 11) X(clSetMemObjectDestructorCallback, 11) X( \
								clCreateUserEvent, 11) X(clSetUserEventStatus, \
											 11) X(clEnqueueReadBufferRect, \
											       11) X(clEnqueueWriteBufferRect, \
												     11) X(clEnqueueCopyBufferRect, \
													   11) X(clCreateSubDevices, 12) \
								X(clRetainDevice, 12) X(clReleaseDevice, 12) X(clCreateImage, 12) X( \
									clCreateProgramWithBuiltInKernels, \
									12) X(clCompileProgram, \
									      12) X(clLinkProgram, 12) X(clUnloadPlatformCompiler, \
													 12) X(clGetKernelArgInfo, \
													       12) X(clEnqueueFillBuffer, 12) \
									X(clEnqueueFillImage, 12) X(clEnqueueMigrateMemObjects, 12) X( \
										clEnqueueMarkerWithWaitList, \
										12) X(clEnqueueBarrierWithWaitList, \
										      12) X(clGetExtensionFunctionAddressForPlatform, \
											    12) X(clCreateCommandQueueWithProperties, 20) \
										X(clCreatePipe, 20) X(clGetPipeInfo, 20) X( \
											clSVMAlloc, \
											20) X(clSVMFree, \
											      20) X(clEnqueueSVMFree, \
												    20) X(clEnqueueSVMMemcpy, 20) \
											X(clEnqueueSVMMemFill, \
											  20) X(clEnqueueSVMMap, \
												20) X(clEnqueueSVMUnmap, \
												      20) X(clCreateSamplerWithProperties, \
													    20) X(clSetKernelArgSVMPointer, 20) \
												X(clSetKernelExecInfo, \
												  20) X(clCloneKernel, \
													21) X(clCreateProgramWithIL, \
													      21) X(clEnqueueSVMMigrateMem, \
														    21) \
													X(clGetDeviceAndHostTimer, \
													  21) X(clGetHostTimer, \
														21) X(clGetKernelSubGroupInfo, \
														      21) X(clSetDefaultDeviceCommandQueue, \
															    21) \
														X(clSetProgramReleaseCallback, \
														  22) X(clSetProgramSpecializationConstant, \
															22) X(clCreateBufferWithProperties, \
															      30) \
															X(clCreateImageWithProperties, \
															  30) X(clSetContextDestructorCallback, \
																30)

/* cl_khr_command_buffer: reached by address only. */
#define NL_EXTENSIONS(X) \
	X(clCreateCommandBufferKHR) \
	X(clRetainCommandBufferKHR) X(clReleaseCommandBufferKHR) X(clFinalizeCommandBufferKHR) \
		X(clEnqueueCommandBufferKHR) X(clCommandNDRangeKernelKHR) X(clCommandCopyBufferKHR) \
			X(clCommandFillBufferKHR) X(clCommandBarrierWithWaitListKHR) \
				X(clGetCommandBufferInfoKHR)

#define NL_DECLARE(fn, version) extern __typeof__(*((cl_icd_dispatch *)0)->fn) nl_##fn;
NL_FUNCTIONS(NL_DECLARE)
#undef NL_DECLARE
#define NL_DECLARE(fn) extern __typeof__(*(fn##_fn)0) nl_##fn;
NL_EXTENSIONS(NL_DECLARE)
#undef NL_DECLARE

enum nl_fn {
#define NL_ENUM(fn, version) NL_FN_##fn,
	NL_FUNCTIONS(NL_ENUM)
#undef NL_ENUM
#define NL_ENUM(fn) NL_FN_##fn,
		NL_EXTENSIONS(NL_ENUM)
#undef NL_ENUM
			NL_FN_MAX_
};

/* First member of every object: the loader reads the dispatch pointer, we read the magic. */
struct nl_obj {
	const cl_icd_dispatch *dispatch;
	uint32_t magic;
	_Atomic uint32_t refs; /* what CL_*_REFERENCE_COUNT reports */
	_Atomic uint32_t
		life; /* 1 while refs > 0, plus one for each queued command or child that still needs the object */
};

#define NL_MAGIC_PLATFORM 0x6e6c504cu
#define NL_MAGIC_DEVICE 0x6e6c4456u
#define NL_MAGIC_CONTEXT 0x6e6c4354u
#define NL_MAGIC_QUEUE 0x6e6c5155u
#define NL_MAGIC_MEM 0x6e6c4d45u
#define NL_MAGIC_PROGRAM 0x6e6c5052u
#define NL_MAGIC_KERNEL 0x6e6c4b45u
#define NL_MAGIC_EVENT 0x6e6c4556u
#define NL_MAGIC_SAMPLER 0x6e6c534du
#define NL_MAGIC_CMDBUF 0x6e6c4342u
#define NL_MAGIC_DEAD 0x6e6c4444u

#define NL_IS(p, MAGIC) ((p) != NULL && ((const struct nl_obj *)(const void *)(p))->magic == (MAGIC))

struct _cl_platform_id {
	struct nl_obj o;
};

struct _cl_device_id {
	struct nl_obj o;
	cl_device_id parent; /* NULL for a root device */
	unsigned index;
	cl_uint units;
	_Atomic uint64_t used_bytes; /* root device only */
	/* root device only, under the scheduler's lock */
	cl_event fifo_head, fifo_tail;
	uint64_t free_at_ns;
	bool has_thread;
};

struct nl_callback {
	struct nl_callback *next;
	void *fn;
	void *user;
	cl_int type;
};

struct _cl_context {
	struct nl_obj o;
	cl_uint ndevices;
	cl_device_id devices[16];
	cl_context_properties properties[16];
	size_t nproperties;
	struct nl_callback *destructors;
};

struct _cl_command_queue {
	struct nl_obj o;
	cl_context context;
	cl_device_id device;
	cl_command_queue_properties properties;
	cl_queue_properties array[16];
	size_t narray;
	_Atomic uint32_t outstanding; /* commands that are not complete */
	/* under the scheduler's lock */
	cl_event last; /* newest command, in order; a reference is held */
	cl_event barrier; /* newest barrier, out of order; a reference is held */
	cl_event head, tail;
};

struct _cl_mem {
	struct nl_obj o;
	cl_context context;
	cl_mem parent;
	cl_mem_object_type type;
	cl_mem_flags flags;
	size_t size, origin;
	char *data;
	void *host_ptr;
	bool mmapped, owned;
	uint64_t charged_bytes;
	_Atomic uint32_t maps;
	cl_image_format format;
	cl_image_desc desc;
	size_t elem, row_pitch, slice_pitch;
	cl_uint pipe_packet, pipe_max;
	cl_mem_properties array[8];
	size_t narray;
	struct nl_callback *destructors; /* newest first, which is also the order they run in */
};

struct _cl_sampler {
	struct nl_obj o;
	cl_context context;
	cl_bool normalized;
	cl_addressing_mode addressing;
	cl_filter_mode filter;
};

#define NL_KERNELS_MAX 64
#define NL_ARGS_MAX 32

struct nl_arg_info {
	char name[32], type[32];
	cl_kernel_arg_address_qualifier address;
	bool is_object; /* memory object or sampler: size must be that of a handle */
};

struct nl_kernel_info {
	char name[64];
	cl_uint nargs;
	size_t reqd[3];
	struct nl_arg_info args[NL_ARGS_MAX];
};

struct _cl_program {
	struct nl_obj o;
	cl_context context;
	char *source;
	char *options;
	bool built, failed;
	cl_uint nkernels;
	struct nl_kernel_info *kernels;
};

struct nl_arg {
	bool set;
	size_t size;
	unsigned char value[16]; /* enough for handles, pointers and the scalars that null_count reads */
};

struct _cl_kernel {
	struct nl_obj o;
	cl_program program;
	const struct nl_kernel_info *info;
	_Atomic uint32_t unset;
	bool counts; /* its name starts with null_count */
	bool plain; /* neither that nor of a required local size */
	struct nl_arg args[NL_ARGS_MAX];
};

/* What a command does when it runs. Objects in it are kept alive by the scheduler until then. */
struct nl_op {
	void (*run)(const struct nl_op *op);
	cl_mem mem[2];
	void *ptr[2];
	size_t n[14];
	void *heap; /* freed after the run */
	uint64_t cost_ns;
};

struct _cl_event {
	struct nl_obj o;
	cl_context context;
	cl_command_queue queue; /* NULL for a user event */
	cl_command_type type;
	_Atomic int status;
	uint64_t t_queued, t_submit, t_start, t_end; /* ns, CLOCK_MONOTONIC */
	/* under the scheduler's lock */
	unsigned ndeps;
	bool unflushed, failed, in_queue;
	struct nl_wait *waiters;
	struct nl_callback *callbacks;
	cl_event next_ready;
	cl_event prev, next; /* outstanding commands of the queue */
	struct nl_op op;
};

struct nl_config {
	uint64_t cost_ns, cost_group_ns, copy_ns_per_kb, mem_bytes, resolution_ns;
	unsigned ndevices, units, version; /* version: 30 for 3.0 */
	bool lazy, unified, timed; /* timed: some cost is not zero */
	cl_device_type type;
};

extern struct nl_config nl_config;
extern struct _cl_platform_id nl_platform;
extern struct _cl_device_id nl_devices[];
extern cl_icd_dispatch nl_dispatch;
extern bool nl_watched;
extern bool nl_instant; /* commands that wait for nothing complete at once, and nobody watches */

/* Fault and trace hook of an entry point. Return: the code that it has to fail with, 0 to go on. */
cl_int nl_watch(enum nl_fn fn);
void nl_trace_range(cl_kernel kernel, cl_uint dim, const size_t *offset, const size_t *global,
		    const size_t *local);

#define NL_ENTER(fn) \
	do { \
		if (__builtin_expect(nl_watched, 0)) { \
			cl_int nl_code_ = nl_watch(NL_FN_##fn); \
			if (nl_code_) \
				return nl_code_; \
		} \
	} while (0)
#define NL_ENTER_PTR(fn, ret_err) \
	do { \
		if (__builtin_expect(nl_watched, 0)) { \
			cl_int nl_code_ = nl_watch(NL_FN_##fn); \
			if (nl_code_) \
				return nl_fail(ret_err, nl_code_); \
		} \
	} while (0)

uint64_t nl_now(void);
void *nl_fail(cl_int *ret_err, cl_int code); /* stores @code, returns NULL */
void *nl_new(size_t bytes, uint32_t magic);
cl_int nl_put(const void *src, size_t bytes, size_t size, void *value,
	      size_t *ret_size); /* the size protocol of queries */
cl_int nl_put_string(const char *s, size_t size, void *value, size_t *ret_size);
#define NL_PUT(type, v) nl_put(&(type){ v }, sizeof(type), size, value, ret_size)
size_t nl_list_length(const intptr_t *properties); /* entries including the final 0; 0 for NULL */

cl_device_id nl_root(cl_device_id d);
bool nl_context_has(cl_context c, cl_device_id d);
void nl_context_unpin(cl_context c);
void nl_queue_unpin(cl_command_queue q);
void nl_mem_pin(cl_mem m);
void nl_mem_unpin(cl_mem m);
void nl_program_unpin(cl_program p);

/* mem.c: element size of a format, 0 when not supported; capacity */
size_t nl_format_size(const cl_image_format *f);
bool nl_take_bytes(cl_context c, uint64_t bytes);
void nl_give_bytes(cl_context c, uint64_t bytes);
cl_mem nl_mem_new(cl_context context, cl_mem_object_type type, cl_mem_flags flags, size_t size,
		  void *host_ptr, cl_int *ret_err);

/* kernel.c */
cl_int nl_launch_check(cl_command_queue q, cl_kernel k, cl_uint dim, const size_t *global,
		       const size_t *local);
void nl_launch_op(struct nl_op *op, cl_kernel k, cl_uint dim, const size_t *offset, const size_t *global,
		  const size_t *local);
struct nl_kernel_info *nl_parse_kernels(const char *source, cl_uint *ret_n);

/*
 * sched.c: hands a command to its queue. @op is copied. When nothing stands in the way it runs inside the call. A @blocking
 * command has completed on return. Return: 0, CL_INVALID_EVENT_WAIT_LIST, CL_INVALID_CONTEXT, CL_OUT_OF_HOST_MEMORY, or for a
 * blocking one CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST.
 */
cl_int nl_submit(cl_command_queue q, cl_command_type type, const struct nl_op *op, bool blocking,
		 cl_uint nwait, const cl_event *wait, cl_event *ret_event);
void nl_event_unpin(cl_event e);
uint64_t nl_copy_cost(size_t bytes);
#endif
