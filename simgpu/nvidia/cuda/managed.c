/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where managed memory is, and advice about it. Its bytes are where both sides see them all the time; a
 * prefetch takes the time that they would need, unless the whole was prefetched there before, and advice
 * changes nothing.
 */
#include "simgpu/nvidia/cuda/mem.h"

#include <string.h>

static CUresult managed(CUdeviceptr p, size_t bytes)
{
	struct sim_range range;

	if (!bytes || !sim_find(p, &range) || range.kind != SIM_MEM_MANAGED ||
	    bytes > range.base + range.bytes - p)
		return CUDA_ERROR_INVALID_VALUE;
	return CUDA_SUCCESS;
}

static CUresult location(CUmemLocation at)
{
	struct sim_device *d;

	if (at.type == CU_MEM_LOCATION_TYPE_DEVICE)
		return sim_device_get(at.id, &d);
	return at.type <= CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT && at.type != CU_MEM_LOCATION_TYPE_INVALID
		       ? CUDA_SUCCESS
		       : CUDA_ERROR_INVALID_VALUE;
}

/* -1 was the host before there were locations. */
static CUmemLocation of_device(CUdevice d)
{
	return d == -1 ? (CUmemLocation){ CU_MEM_LOCATION_TYPE_HOST, 0 }
		       : (CUmemLocation){ CU_MEM_LOCATION_TYPE_DEVICE, d };
}

enum { STAYS, TO_HOST, TO_DEVICE };
#define ON_DEVICE 0x100u /* in a range's flags, beside how it was attached */

/* One run in a stream: a copy that moves nothing and takes its time, or an empty command. */
static CUresult move(CUstream s, CUdeviceptr p, size_t bytes, int where)
{
	struct sim_cmd cmd = { .kind = SIM_NOP };
	struct sim_range range;

	if (where != STAYS && sim_find(p, &range) && !(range.flags & ON_DEVICE) == (where == TO_DEVICE)) {
		cmd = (struct sim_cmd){ .kind = SIM_COPY,
					.copy = { .dir = where == TO_DEVICE ? SIM_H2D : SIM_D2H,
						  .width = bytes,
						  .rows = 1,
						  .layers = 1 } };
		if (bytes >= range.bytes)
			sim_range_set_flags(range.base, range.flags ^ ON_DEVICE);
	}
	return sim_push(s, &cmd, NULL, 0, NULL);
}

/* @n runs of managed memory. */
static CUresult touch(CUdeviceptr *p, size_t *bytes, size_t n, int where, CUstream h, bool per_thread)
{
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_stream_get(ctx, h, per_thread, &s);
	if (!r && s->capture)
		r = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	if (!r && (!p || !bytes || !n))
		r = CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < n && !r; i++)
		r = managed(p[i], bytes[i]);
	for (size_t i = 0; i < n && !r; i++)
		r = move(s, p[i], bytes[i], where);
	return r;
}

static CUresult prefetch(CUdeviceptr p, size_t bytes, CUmemLocation at, unsigned int flags, CUstream h,
			 bool per_thread)
{
	CUresult r = flags ? CUDA_ERROR_INVALID_VALUE : location(at);

	return r ? r
		 : touch(&p, &bytes, 1, at.type == CU_MEM_LOCATION_TYPE_DEVICE ? TO_DEVICE : TO_HOST, h,
			 per_thread);
}

SIM_PAIR(cuMemPrefetchAsync, _ptsz, (CUdeviceptr p, size_t bytes, CUdevice d, CUstream h),
	 return prefetch(p, bytes, of_device(d), 0, h, per_thread);)
SIM_PAIR(cuMemPrefetchAsync_v2, _ptsz,
	 (CUdeviceptr p, size_t bytes, CUmemLocation_v1 at, unsigned int flags, CUstream h),
	 return prefetch(p, bytes, at, flags, h, per_thread);)

static CUresult prefetch_batch(CUdeviceptr *p, size_t *bytes, size_t n, CUmemLocation_v1 *at, size_t n_at,
			       unsigned long long flags, CUstream h, bool per_thread)
{
	CUresult r = !at || !n_at || flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;

	for (size_t i = 0; i < n_at && !r; i++)
		r = location(at[i]);
	return r ? r
		 : touch(p, bytes, n, at[0].type == CU_MEM_LOCATION_TYPE_DEVICE ? TO_DEVICE : TO_HOST, h,
			 per_thread);
}

SIM_PAIR(cuMemPrefetchBatchAsync, _ptsz,
	 (CUdeviceptr * p, size_t *bytes, size_t n, CUmemLocation_v1 *at, size_t *at_index, size_t n_at,
	  unsigned long long flags, CUstream h),
	 return at_index ? prefetch_batch(p, bytes, n, at, n_at, flags, h, per_thread)
			 : CUDA_ERROR_INVALID_VALUE;)
SIM_PAIR(cuMemDiscardBatchAsync, _ptsz,
	 (CUdeviceptr * p, size_t *bytes, size_t n, unsigned long long flags, CUstream h),
	 return flags ? CUDA_ERROR_INVALID_VALUE : touch(p, bytes, n, STAYS, h, per_thread);)
SIM_PAIR(cuMemDiscardAndPrefetchBatchAsync, _ptsz,
	 (CUdeviceptr * p, size_t *bytes, size_t n, CUmemLocation_v1 *at, size_t *at_index, size_t n_at,
	  unsigned long long flags, CUstream h),
	 return at_index ? prefetch_batch(p, bytes, n, at, n_at, flags, h, per_thread)
			 : CUDA_ERROR_INVALID_VALUE;)

SIM_PAIR(cuStreamAttachMemAsync, _ptsz, (CUstream h, CUdeviceptr p, size_t bytes, unsigned int flags), {
	struct sim_range range;

	if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST && flags != CU_MEM_ATTACH_SINGLE)
		return CUDA_ERROR_INVALID_VALUE;
	if (!bytes && sim_find(p, &range))
		bytes = range.bytes; /* 0: all of it */
	return touch(&p, &bytes, 1, STAYS, h, per_thread);
})

CUresult cuMemAdvise_v2(CUdeviceptr p, size_t bytes, CUmem_advise advice, CUmemLocation_v1 at)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = managed(p, bytes);
	if (!r && (advice < CU_MEM_ADVISE_SET_READ_MOSTLY || advice > CU_MEM_ADVISE_UNSET_ACCESSED_BY))
		r = CUDA_ERROR_INVALID_VALUE;
	/* Read-mostly is of no place. */
	return r || advice == CU_MEM_ADVISE_SET_READ_MOSTLY || advice == CU_MEM_ADVISE_UNSET_READ_MOSTLY ||
			       advice == CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION
		       ? r
		       : location(at);
}

CUresult cuMemAdvise(CUdeviceptr p, size_t bytes, CUmem_advise advice, CUdevice d)
{
	return cuMemAdvise_v2(p, bytes, advice, of_device(d));
}

/* Nothing is kept of advice: each answer is what holds without any. */
CUresult cuMemRangeGetAttribute(void *ret, size_t room, CUmem_range_attribute a, CUdeviceptr p, size_t bytes)
{
	int32_t none = a == CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY ? 0 : -2; /* -2: no device, nor the host */
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = managed(p, bytes);
	if (r)
		return r;
	if (!ret || room < 4 || room % 4 || a < CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY ||
	    a > CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_ID)
		return CUDA_ERROR_INVALID_VALUE;
	if (a == CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_TYPE ||
	    a == CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_TYPE)
		none = CU_MEM_LOCATION_TYPE_INVALID;
	for (size_t i = 0; i < room / 4; i++)
		memcpy((char *)ret + 4 * i, &none, 4);
	return CUDA_SUCCESS;
}

CUresult cuMemRangeGetAttributes(void **ret, size_t *room, CUmem_range_attribute *a, size_t n, CUdeviceptr p,
				 size_t bytes)
{
	CUresult r = ret && room && a && n ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;

	for (size_t i = 0; i < n && !r; i++)
		r = cuMemRangeGetAttribute(ret[i], room[i], a[i], p, bytes);
	return r;
}
