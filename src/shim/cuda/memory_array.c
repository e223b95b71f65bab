/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arrays and mipmaps. What they take follows from the descriptor: no call of the driver tells it (cuArrayGetMemoryRequirements does
 * so for deferred mapping only), and what it pads besides is left to the audit. Large ones have pages of their own; where small ones
 * lie nothing tells, they are charged by their bytes. Sparse arrays and those with deferred mapping take nothing of themselves: the
 * memory that is put behind them was charged by its own creation, and is held by the array from then on, for which of its parts is
 * taken out again the calls do not say.
 */
#include "shim/cuda/memory.h"
#include "shim/cuda/prop.h"

#include "base/auto.h"

#include <stdlib.h>

struct pen_cu_held {
	struct pen_cu_held *next;
	struct pen_cu_physical *mem;
};
static struct pen_forklock held_lock = PEN_FORKLOCK_INIT;

/* ---- sizes --------------------------------------------------------------------------------------------------------------- */

/* How an element lies in memory. */
struct layout {
	uint64_t bits;           /* in its row */
	uint64_t rows2;          /* rows for two of the array's, all planes together */
	uint64_t block;          /* compressed: elements to a side of a block, which is what bits speaks of */
};

static struct layout layout_of(CUarray_format format, unsigned int channels)
{
	switch (format) {
	case CU_AD_FORMAT_UNSIGNED_INT8:
	case CU_AD_FORMAT_SIGNED_INT8:
		return (struct layout){ 8 * (uint64_t)channels, 2, 1 };
	case CU_AD_FORMAT_UNSIGNED_INT16:
	case CU_AD_FORMAT_SIGNED_INT16:
	case CU_AD_FORMAT_HALF:
		return (struct layout){ 16 * (uint64_t)channels, 2, 1 };
	case CU_AD_FORMAT_UNSIGNED_INT32:
	case CU_AD_FORMAT_SIGNED_INT32:
	case CU_AD_FORMAT_FLOAT:
		return (struct layout){ 32 * (uint64_t)channels, 2, 1 };
	case CU_AD_FORMAT_BC1_UNORM:
	case CU_AD_FORMAT_BC1_UNORM_SRGB:
	case CU_AD_FORMAT_BC4_UNORM:
	case CU_AD_FORMAT_BC4_SNORM:
		return (struct layout){ 64, 2, 4 };
	case CU_AD_FORMAT_UNORM_INT8X1:
	case CU_AD_FORMAT_SNORM_INT8X1:
		return (struct layout){ 8, 2, 1 };
	case CU_AD_FORMAT_UNORM_INT8X2:
	case CU_AD_FORMAT_SNORM_INT8X2:
	case CU_AD_FORMAT_UNORM_INT16X1:
	case CU_AD_FORMAT_SNORM_INT16X1:
	case CU_AD_FORMAT_YUY2:
		return (struct layout){ 16, 2, 1 };
	case CU_AD_FORMAT_UNORM_INT8X4:
	case CU_AD_FORMAT_SNORM_INT8X4:
	case CU_AD_FORMAT_UNORM_INT16X2:
	case CU_AD_FORMAT_SNORM_INT16X2:
	case CU_AD_FORMAT_Y210:
	case CU_AD_FORMAT_Y216:
	case CU_AD_FORMAT_AYUV:
	case CU_AD_FORMAT_Y410:
	case CU_AD_FORMAT_UNORM_INT_101010_2:
		return (struct layout){ 32, 2, 1 };
	case CU_AD_FORMAT_UNORM_INT16X4:
	case CU_AD_FORMAT_SNORM_INT16X4:
	case CU_AD_FORMAT_Y416:
		return (struct layout){ 64, 2, 1 };
	case CU_AD_FORMAT_NV12:
		return (struct layout){ 8, 3, 1 };
	case CU_AD_FORMAT_P010:
	case CU_AD_FORMAT_P016:
		return (struct layout){ 16, 3, 1 };
	case CU_AD_FORMAT_NV16:
		return (struct layout){ 8, 4, 1 };
	case CU_AD_FORMAT_P210:
	case CU_AD_FORMAT_P216:
		return (struct layout){ 16, 4, 1 };
	case CU_AD_FORMAT_Y444_PLANAR8:
	case CU_AD_FORMAT_YUV444_8bit_SemiPlanar:
		return (struct layout){ 8, 6, 1 };
	case CU_AD_FORMAT_Y444_PLANAR10:
	case CU_AD_FORMAT_YUV444_16bit_SemiPlanar:
		return (struct layout){ 16, 6, 1 };
	default:
		break;
	}
	if (format >= CU_AD_FORMAT_BC1_UNORM && format <= CU_AD_FORMAT_BC7_UNORM_SRGB)
		return (struct layout){ 128, 2, 4 };
	return (struct layout){ 128, 2, 1 };   /* a format of a newer driver: the largest that there is */
}

/* Rows are padded to what textures are aligned to on every device; how the driver lays them out it does not say. */
#define ROW_BYTES UINT64_C(512)

static uint64_t times(uint64_t a, uint64_t b)
{
	uint64_t v;
	return __builtin_mul_overflow(a, b, &v) ? UINT64_MAX : v;
}

static uint64_t part(uint64_t n, uint64_t of)
{
	return n / of + (n % of != 0);
}

static uint64_t level_bytes(const CUDA_ARRAY3D_DESCRIPTOR_v2 *d, unsigned int level)
{
	bool layers = d->Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP);
	struct layout l = layout_of(d->Format, d->NumChannels);
	uint64_t w = PEN_MAX((uint64_t)d->Width >> level, UINT64_C(1)), h = PEN_MAX((uint64_t)d->Height >> level, UINT64_C(1));
	uint64_t depth = PEN_MAX(layers ? (uint64_t)d->Depth : (uint64_t)d->Depth >> level, UINT64_C(1));
	uint64_t row = times(part(part(times(part(w, l.block), l.bits), 8), ROW_BYTES), ROW_BYTES);
	return times(times(row, part(times(part(h, l.block), l.rows2), 2)), depth);
}

/* All levels; the driver makes no more than halve the largest side down to 1. */
static uint64_t array_bytes(const CUDA_ARRAY3D_DESCRIPTOR_v2 *d, unsigned int levels)
{
	bool layers = d->Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP);
	uint64_t side = PEN_MAX((uint64_t)d->Width, (uint64_t)d->Height);
	uint64_t sum = 0;
	if (!layers)
		side = PEN_MAX(side, (uint64_t)d->Depth);
	if (d->Flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING))
		return 0;
	for (unsigned int i = 0; i < PEN_MAX(levels, 1u) && (!i || (i < 64 && side >> i)); i++) {
		uint64_t one = level_bytes(d, i);
		sum = one > UINT64_MAX - sum ? UINT64_MAX : sum + one;
	}
	return sum;
}

/* ---- making ---------------------------------------------------------------------------------------------------------------- */

/*
 * What no device can make is left to the driver, which has its own code for each mistake; should it make it nevertheless, the
 * charge is settled then.
 */
static struct pen_cu_block *begin(const CUDA_ARRAY3D_DESCRIPTOR_v2 *d, unsigned int levels, uint64_t *ret_bytes, CUresult *ret)
{
	*ret_bytes = array_bytes(d, levels);
	struct pen_cu_device *dev = pen_cu_device_current();
	if (dev && !pen_cu_is_small(dev, *ret_bytes))
		*ret_bytes = pen_cu_whole_pages(dev, *ret_bytes);
	bool absurd = dev && dev->mem_bytes && *ret_bytes > dev->mem_bytes;
	return pen_cu_block_new(absurd ? 0 : *ret_bytes, ret);
}

static bool keep(struct pen_cu_block *b, uint64_t bytes, const void *handle)
{
	return !b || pen_cu_block_keep(b, bytes, &pen_cu_arrays, handle);
}

static CUresult made_array(struct pen_cu_block *b, uint64_t bytes, CUarray *array, CUresult r)
{
	if (r == CUDA_SUCCESS && keep(b, bytes, *array))
		return r;
	if (r == CUDA_SUCCESS) {
		(void)PEN_CU_WAITING(REAL(cuArrayDestroy)(*array));
		r = CUDA_ERROR_OUT_OF_MEMORY;
	}
	pen_cu_block_drop(b);
	return r;
}

static CUDA_ARRAY3D_DESCRIPTOR_v2 wide(size_t width, size_t height, size_t depth, CUarray_format format, unsigned int channels,
				       unsigned int flags)
{
	return (CUDA_ARRAY3D_DESCRIPTOR_v2){ .Width = width, .Height = height, .Depth = depth, .Format = format,
					     .NumChannels = channels, .Flags = flags };
}

CUresult pen_cuArrayCreate(CUarray *array, const CUDA_ARRAY_DESCRIPTOR_v1 *d)
{
	uint64_t bytes;
	CUresult r;
	if (pen_cu_thread.depth || !array || !d)
		return REAL(cuArrayCreate)(array, d);
	CUDA_ARRAY3D_DESCRIPTOR_v2 w = wide(d->Width, d->Height, 0, d->Format, d->NumChannels, 0);
	struct pen_cu_block *b = begin(&w, 1, &bytes, &r);
	return r != CUDA_SUCCESS ? r : made_array(b, bytes, array, PEN_CU_INSIDE(REAL(cuArrayCreate)(array, d)));
}

CUresult pen_cuArrayCreate_v2(CUarray *array, const CUDA_ARRAY_DESCRIPTOR_v2 *d)
{
	uint64_t bytes;
	CUresult r;
	if (pen_cu_thread.depth || !array || !d)
		return REAL(cuArrayCreate_v2)(array, d);
	CUDA_ARRAY3D_DESCRIPTOR_v2 w = wide(d->Width, d->Height, 0, d->Format, d->NumChannels, 0);
	struct pen_cu_block *b = begin(&w, 1, &bytes, &r);
	return r != CUDA_SUCCESS ? r : made_array(b, bytes, array, PEN_CU_INSIDE(REAL(cuArrayCreate_v2)(array, d)));
}

CUresult pen_cuArray3DCreate(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR_v1 *d)
{
	uint64_t bytes;
	CUresult r;
	if (pen_cu_thread.depth || !array || !d)
		return REAL(cuArray3DCreate)(array, d);
	CUDA_ARRAY3D_DESCRIPTOR_v2 w = wide(d->Width, d->Height, d->Depth, d->Format, d->NumChannels, d->Flags);
	struct pen_cu_block *b = begin(&w, 1, &bytes, &r);
	return r != CUDA_SUCCESS ? r : made_array(b, bytes, array, PEN_CU_INSIDE(REAL(cuArray3DCreate)(array, d)));
}

CUresult pen_cuArray3DCreate_v2(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR_v2 *d)
{
	uint64_t bytes;
	CUresult r;
	if (pen_cu_thread.depth || !array || !d)
		return REAL(cuArray3DCreate_v2)(array, d);
	struct pen_cu_block *b = begin(d, 1, &bytes, &r);
	return r != CUDA_SUCCESS ? r : made_array(b, bytes, array, PEN_CU_INSIDE(REAL(cuArray3DCreate_v2)(array, d)));
}

CUresult pen_cuMipmappedArrayCreate(CUmipmappedArray *array, const CUDA_ARRAY3D_DESCRIPTOR_v2 *d, unsigned int levels)
{
	uint64_t bytes;
	CUresult r;
	if (pen_cu_thread.depth || !array || !d)
		return REAL(cuMipmappedArrayCreate)(array, d, levels);
	struct pen_cu_block *b = begin(d, levels, &bytes, &r);
	if (r != CUDA_SUCCESS)
		return r;
	r = PEN_CU_INSIDE(REAL(cuMipmappedArrayCreate)(array, d, levels));
	if (r == CUDA_SUCCESS && keep(b, bytes, *array))
		return r;
	if (r == CUDA_SUCCESS) {
		(void)PEN_CU_WAITING(REAL(cuMipmappedArrayDestroy)(*array));
		r = CUDA_ERROR_OUT_OF_MEMORY;
	}
	pen_cu_block_drop(b);
	return r;
}

CUresult pen_cuArrayDestroy(CUarray array)
{
	PEN_CU_NESTED(cuArrayDestroy, array);
	struct pen_cu_block *b = array ? pen_cu_block_take(&pen_cu_arrays, array) : NULL;
	return pen_cu_block_ended(b, PEN_CU_WAITING(REAL(cuArrayDestroy)(array)));
}

CUresult pen_cuMipmappedArrayDestroy(CUmipmappedArray array)
{
	PEN_CU_NESTED(cuMipmappedArrayDestroy, array);
	struct pen_cu_block *b = array ? pen_cu_block_take(&pen_cu_arrays, array) : NULL;
	return pen_cu_block_ended(b, PEN_CU_WAITING(REAL(cuMipmappedArrayDestroy)(array)));
}

/* ---- sparse arrays ----------------------------------------------------------------------------------------------------------- */

void pen_cu_held_drop(struct pen_cu_held *held)
{
	while (held) {
		struct pen_cu_held *h = held;
		held = h->next;
		pen_cu_physical_unuse(h->mem);
		free(h);
	}
}

/* The array has memory behind it, each once. */
static void hold(const void *array, struct pen_cu_held *h)
{
	uint32_t in = pen_map_enter(&pen_cu_arrays);
	struct pen_cu_block *b = pen_map_find(&pen_cu_arrays, array);
	bool has = !b;
	pen_forklock_take(&held_lock);
	for (struct pen_cu_held *v = b ? b->held : NULL; v && !has; v = v->next)
		has = v->mem == h->mem;
	if (!has) {
		h->next = b->held;
		b->held = h;
	}
	pen_forklock_give(&held_lock);
	pen_map_leave(&pen_cu_arrays, in);
	if (has) {
		h->next = NULL;
		pen_cu_held_drop(h);
	}
}

/* Of each part of a list: the memory that is put behind it, in use from now on. False: out of memory. */
static bool use_all(const CUarrayMapInfo_v1 *list, unsigned int n, struct pen_cu_held **held)
{
	for (unsigned int i = 0; i < n; i++) {
		struct pen_cu_physical *mem =
			list[i].memOperationType == CU_MEM_OPERATION_TYPE_MAP ? pen_cu_physical_use(list[i].memHandle.memHandle) : NULL;
		if (!mem)
			continue;
		held[i] = calloc(1, sizeof(**held));
		if (!held[i]) {
			pen_cu_physical_unuse(mem);
			return false;
		}
		held[i]->mem = mem;
	}
	return true;
}

/* In use before the call, and taken over by the arrays after it. */
static CUresult map_arrays(CUresult (*real)(CUarrayMapInfo_v1 *, unsigned int, CUstream), CUarrayMapInfo_v1 *list, unsigned int n,
			   CUstream stream)
{
	if (pen_cu_thread.depth || !list || !n)
		return real(list, n, stream);
	pen_auto_free struct pen_cu_held **held = calloc(n, sizeof(struct pen_cu_held *));
	if (!held)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult r = use_all(list, n, held) ? PEN_CU_INSIDE(real(list, n, stream)) : CUDA_ERROR_OUT_OF_MEMORY;
	for (unsigned int i = 0; i < n; i++) {
		if (held[i] && r == CUDA_SUCCESS)
			hold(list[i].resource.array, held[i]);   /* a mipmap lies in the same place */
		else if (held[i])
			pen_cu_held_drop(held[i]);
	}
	return r;
}

CUresult pen_cuMemMapArrayAsync(CUarrayMapInfo_v1 *list, unsigned int n, CUstream stream)
{
	return map_arrays(REAL(cuMemMapArrayAsync), list, n, stream);
}

CUresult pen_cuMemMapArrayAsync_ptsz(CUarrayMapInfo_v1 *list, unsigned int n, CUstream stream)
{
	return map_arrays(REAL(cuMemMapArrayAsync_ptsz), list, n, stream);
}
