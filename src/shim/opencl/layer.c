/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the layer gets in: the four entry points that loaders look for, and our dispatch table.
 *
 * clInitLayer() runs inside the loader's once-only initialisation: no OpenCL call, no thread, no daemon; all of that
 * happens at the first wrapped call. An unmanaged process gets an empty table: the loader puts its own function into every
 * slot that we leave NULL, so that nothing of ours is ever called.
 */
#include "shim/opencl/cl.h"

#include <CL/cl_layer.h>
#include <string.h>

/* Newer than Debian 12's headers (Khronos loader of 2024 on, which skips a layer that has only clInitLayer). */
typedef intptr_t pen_cl_layer_properties;

#define EXPORT __attribute__((visibility("default")))

EXPORT cl_int CL_API_CALL clInitLayerWithProperties(cl_uint num_entries, const cl_icd_dispatch *target,
						    cl_uint *num_entries_ret, const cl_icd_dispatch **layer_dispatch,
						    const pen_cl_layer_properties *properties);
EXPORT cl_int CL_API_CALL clDeinitLayer(void);

cl_icd_dispatch pen_cl_below;
static cl_icd_dispatch ours;

#define SLOTS (sizeof(cl_icd_dispatch) / sizeof(void *))

#define PEN_CL(slot, name, class, since, why) \
	_Static_assert(offsetof(cl_icd_dispatch, name) == (slot) * sizeof(void *), "slot of " #name);
#include "api/opencl.def"

#define FILL_PASS(name)
#define FILL_ANY(name)                        \
	if (pen_cl_below.name)                \
		ours.name = pen_##name;
#define FILL_MEM(name) FILL_ANY(name)
#define FILL_ENQUEUE(name) FILL_ANY(name)
#define FILL_SYNC(name) FILL_ANY(name)
#define FILL_INFO(name) FILL_ANY(name)
#define FILL_QUEUE(name) FILL_ANY(name)
#define FILL_OBJECT(name) FILL_ANY(name)

/* Slots that the loader does not have are zero in the copy, so they stay empty in ours. */
static void fill(cl_uint num_entries, const cl_icd_dispatch *target)
{
	size_t n = num_entries < SLOTS ? num_entries : SLOTS;
	memcpy(&pen_cl_below, target, n * sizeof(void *));   /* cppcheck-suppress pointerSize ; a table of pointers */
#define PEN_CL(slot, name, class, since, why) FILL_##class(name)
#include "api/opencl.def"
}

EXPORT cl_int CL_API_CALL clGetLayerInfo(cl_layer_info what, size_t size, void *value, size_t *ret_size)
{
	cl_layer_api_version version = CL_LAYER_API_VERSION_100;
	static const char name[] = "penstock";
	switch (what) {
	case CL_LAYER_API_VERSION:
		return pen_cl_answer(&version, sizeof(version), size, value, ret_size);
	case CL_LAYER_NAME:
		return pen_cl_answer(name, sizeof(name), size, value, ret_size);
	default:
		return CL_INVALID_VALUE;
	}
}

EXPORT cl_int CL_API_CALL clInitLayer(cl_uint num_entries, const cl_icd_dispatch *target, cl_uint *num_entries_ret,
				      const cl_icd_dispatch **layer_dispatch)
{
	static const cl_icd_dispatch nothing;
	if (!target || !num_entries_ret || !layer_dispatch)
		return CL_INVALID_VALUE;
	if (num_entries && target->clGetPlatformIDs && target->clGetPlatformIDs == ours.clGetPlatformIDs) {
		/* Named twice in OPENCL_LAYERS, one run inside another: above ourselves we would call ourselves for ever. */
		*num_entries_ret = (cl_uint)SLOTS;
		*layer_dispatch = &nothing;
		return CL_SUCCESS;
	}
	pen_forklock_setup();
	if (pen_gate_managed() != PEN_UNMANAGED)
		fill(num_entries, target);
	*num_entries_ret = (cl_uint)SLOTS;
	*layer_dispatch = &ours;
	return CL_SUCCESS;
}

cl_int CL_API_CALL clInitLayerWithProperties(cl_uint num_entries, const cl_icd_dispatch *target, cl_uint *num_entries_ret,
					     const cl_icd_dispatch **layer_dispatch, const pen_cl_layer_properties *properties)
{
	(void)properties;   /* none is defined that a layer must understand */
	return clInitLayer(num_entries, target, num_entries_ret, layer_dispatch);
}

/* Queues and marks may outlive this call; the kernel takes the rest back when the process ends. */
cl_int CL_API_CALL clDeinitLayer(void)
{
	return CL_SUCCESS;
}
