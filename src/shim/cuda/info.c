/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the application is told about devices: only those of its contract, with the contract's memory and units, the same on
 * every path. The driver judges the arguments first, and its errors are handed on as they are.
 */
#include "shim/cuda/memory.h"

#include "base/auto.h"

#include <stdlib.h>

bool pen_cu_refused(CUdevice id)
{
	struct pen_cu_device *d = pen_cu_device(id);
	return d && !pen_cu_gate(d);
}

/* The @n-th device that is this tenant's, in the driver's order; NULL: it has fewer. */
static struct pen_cu_device *nth_covered(int n)
{
	uint32_t count = pen_cu_device_count();
	for (uint32_t i = 0; i < count; i++) {
		struct pen_cu_device *d = pen_cu_device_nth(i);
		if (d && pen_cu_gate(d) && n-- == 0)
			return d;
	}
	return NULL;
}

/* Why is told by the gate, once. */
CUresult pen_cuInit(unsigned int flags)
{
	PEN_CU_NESTED(cuInit, flags);
	if (pen_gate_managed() == PEN_REFUSED)
		return CUDA_ERROR_NO_DEVICE;
	CUresult r = PEN_CU_INSIDE(REAL(cuInit)(flags));
	if (r != CUDA_SUCCESS)
		return r;
	return nth_covered(0) ? r : CUDA_ERROR_NO_DEVICE;
}

CUresult pen_cuDeviceGetCount(int *count)
{
	CUresult r = REAL(cuDeviceGetCount)(count);
	if (pen_cu_thread.depth || r != CUDA_SUCCESS || !count)
		return r;
	*count = 0;
	while (nth_covered(*count))
		++*count;
	return r;
}

CUresult pen_cuDeviceGet(CUdevice *device, int ordinal)
{
	CUdevice none;
	PEN_CU_NESTED(cuDeviceGet, device, ordinal);
	struct pen_cu_device *d = ordinal >= 0 ? nth_covered(ordinal) : NULL;
	if (d && device) {
		*device = d->id;
		return CUDA_SUCCESS;
	}
	/* Before cuInit, without a pointer, out of range: the driver's own code, with the number that it finds wrong, too. */
	CUresult r = REAL(cuDeviceGet)(device ? &none : NULL, d ? ordinal : -1);
	return r == CUDA_SUCCESS ? CUDA_ERROR_INVALID_DEVICE : r;
}

CUresult pen_cuDeviceGetByPCIBusId(CUdevice *device, const char *address)
{
	CUdevice found;
	PEN_CU_NESTED(cuDeviceGetByPCIBusId, device, address);
	CUresult r = REAL(cuDeviceGetByPCIBusId)(device ? &found : NULL, address);
	if (r != CUDA_SUCCESS || !device)
		return r;
	if (pen_cu_refused(found))
		return CUDA_ERROR_INVALID_DEVICE;
	*device = found;
	return r;
}

/* ---- memory -------------------------------------------------------------------------------------------------------- */

CUresult pen_cuDeviceTotalMem_v2(size_t *bytes, CUdevice id)
{
	CUresult r = REAL(cuDeviceTotalMem_v2)(bytes, id);
	struct pen_cu_device *d = r == CUDA_SUCCESS && bytes && !pen_cu_thread.depth ? pen_cu_device(id) : NULL;
	if (d)
		*bytes = (size_t)PEN_MIN((uint64_t)*bytes, pen_cu_mem_limit(d));
	return r;
}

/* The 32-bit form: what does not fit is the largest that does. */
CUresult pen_cuDeviceTotalMem(unsigned int *bytes, CUdevice id)
{
	CUresult r = REAL(cuDeviceTotalMem)(bytes, id);
	struct pen_cu_device *d = r == CUDA_SUCCESS && bytes && !pen_cu_thread.depth ? pen_cu_device(id) : NULL;
	if (d)
		*bytes = (unsigned int)PEN_MIN((uint64_t)*bytes, pen_cu_mem_limit(d));
	return r;
}

/* Of the current context's device. What is free for the tenant is what its contract leaves and the device has. */
static void bound_info(uint64_t *free_bytes, uint64_t *total_bytes)
{
	struct pen_cu_device *d = pen_cu_device_current();
	struct pen_gate *g = d ? pen_cu_gate(d) : NULL;
	struct pen_mem_view v = { 0 };
	if (!d)
		return;
	if (g) {
		pen_cu_mem_settle(d, false);
		pen_gate_mem_view(g, &v);
	}
	*total_bytes = PEN_MIN(*total_bytes, v.limit_bytes);
	uint64_t left = *total_bytes > v.used_bytes ? *total_bytes - v.used_bytes : 0;
	*free_bytes = PEN_MIN(*free_bytes, left);
}

CUresult pen_cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes)
{
	CUresult r = REAL(cuMemGetInfo_v2)(free_bytes, total_bytes);
	if (pen_cu_thread.depth || r != CUDA_SUCCESS)
		return r;
	uint64_t left = free_bytes ? *free_bytes : 0, total = total_bytes ? *total_bytes : UINT64_MAX;
	pen_cu_thread.depth++;
	bound_info(&left, &total);
	pen_cu_thread.depth--;
	if (free_bytes)
		*free_bytes = (size_t)left;
	if (total_bytes)
		*total_bytes = (size_t)total;
	return r;
}

CUresult pen_cuMemGetInfo(unsigned int *free_bytes, unsigned int *total_bytes)
{
	CUresult r = REAL(cuMemGetInfo)(free_bytes, total_bytes);
	if (pen_cu_thread.depth || r != CUDA_SUCCESS)
		return r;
	uint64_t left = free_bytes ? *free_bytes : 0, total = total_bytes ? *total_bytes : UINT64_MAX;
	pen_cu_thread.depth++;
	bound_info(&left, &total);
	pen_cu_thread.depth--;
	if (free_bytes)
		*free_bytes = (unsigned int)left;
	if (total_bytes)
		*total_bytes = (unsigned int)total;
	return r;
}

/* ---- units ----------------------------------------------------------------------------------------------------------- */

CUresult pen_cuDeviceGetAttribute(int *value, CUdevice_attribute what, CUdevice id)
{
	CUresult r = REAL(cuDeviceGetAttribute)(value, what, id);
	if (what != CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT || r != CUDA_SUCCESS || !value || pen_cu_thread.depth)
		return r;
	struct pen_cu_device *d = pen_cu_device(id);
	uint32_t units = d && pen_cu_gate(d) ? pen_cu_units(d) : 0;
	if (units && units < (uint32_t)*value)
		*value = (int)units;
	return r;
}
