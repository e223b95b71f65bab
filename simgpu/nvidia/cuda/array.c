/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays and mipmapped arrays: creation, description, release. */
#include "simgpu/nvidia/cuda/array.h"

#include <stdlib.h>
#include <sys/mman.h>

#define PITCH_BYTES 512ul

CUresult sim_array_check(CUarray a)
{
	return a && a->tag == SIM_TAG_ARRAY ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* Bytes of a texel of one channel; of block-compressed formats bytes of a block of 4 x 4. 0 = unknown. */
static uint32_t format_bytes(CUarray_format f, bool *blocks)
{
	*blocks = false;
	switch (f) {
	case CU_AD_FORMAT_UNSIGNED_INT8:
	case CU_AD_FORMAT_SIGNED_INT8:
	case CU_AD_FORMAT_UNORM_INT8X1:
	case CU_AD_FORMAT_SNORM_INT8X1:
	case CU_AD_FORMAT_NV12:
		return 1;
	case CU_AD_FORMAT_UNSIGNED_INT16:
	case CU_AD_FORMAT_SIGNED_INT16:
	case CU_AD_FORMAT_HALF:
	case CU_AD_FORMAT_UNORM_INT8X2:
	case CU_AD_FORMAT_SNORM_INT8X2:
	case CU_AD_FORMAT_UNORM_INT16X1:
	case CU_AD_FORMAT_SNORM_INT16X1:
	case CU_AD_FORMAT_P010:
	case CU_AD_FORMAT_P016:
		return 2;
	case CU_AD_FORMAT_UNSIGNED_INT32:
	case CU_AD_FORMAT_SIGNED_INT32:
	case CU_AD_FORMAT_FLOAT:
	case CU_AD_FORMAT_UNORM_INT8X4:
	case CU_AD_FORMAT_SNORM_INT8X4:
	case CU_AD_FORMAT_UNORM_INT16X2:
	case CU_AD_FORMAT_SNORM_INT16X2:
	case CU_AD_FORMAT_UNORM_INT_101010_2:
		return 4;
	case CU_AD_FORMAT_UNORM_INT16X4:
	case CU_AD_FORMAT_SNORM_INT16X4:
		return 8;
	case CU_AD_FORMAT_BC1_UNORM:
	case CU_AD_FORMAT_BC1_UNORM_SRGB:
	case CU_AD_FORMAT_BC4_UNORM:
	case CU_AD_FORMAT_BC4_SNORM:
		*blocks = true;
		return 8;
	default:
		*blocks = f >= CU_AD_FORMAT_BC1_UNORM && f <= CU_AD_FORMAT_BC7_UNORM_SRGB;
		return *blocks ? 16 : 0;
	}
}

CUresult sim_array_shape(CUarray a, const CUDA_ARRAY3D_DESCRIPTOR_v2 *d)
{
	bool blocks;
	uint32_t unit = format_bytes(d->Format, &blocks);
	size_t height = d->Height ? d->Height : 1;

	if (!unit || !d->Width || d->Width > 131072 || height > 65536 || d->Depth > 16384)
		return CUDA_ERROR_INVALID_VALUE;
	if (d->NumChannels != 1 && d->NumChannels != 2 && d->NumChannels != 4 && !blocks &&
	    d->NumChannels != 3)
		return CUDA_ERROR_INVALID_VALUE;
	if (d->Flags & CUDA_ARRAY3D_CUBEMAP && (d->Width != d->Height || d->Depth % 6))
		return CUDA_ERROR_INVALID_VALUE;
	a->desc = *d;
	if (blocks) {
		a->row_bytes = (d->Width + 3) / 4 * unit;
		a->rows = (height + 3) / 4;
	} else if (d->Format == CU_AD_FORMAT_NV12 || d->Format == CU_AD_FORMAT_P010 ||
		   d->Format == CU_AD_FORMAT_P016) {
		a->row_bytes = d->Width * unit;
		a->rows = height + (height + 1) / 2;
	} else {
		a->row_bytes = d->Width * unit * d->NumChannels;
		a->rows = height;
	}
	a->layers = d->Depth ? d->Depth : 1;
	a->pitch = (a->row_bytes + PITCH_BYTES - 1) & ~(PITCH_BYTES - 1);
	return CUDA_SUCCESS;
}

size_t sim_array_bytes(const struct CUarray_st *a)
{
	return a->pitch * a->rows * a->layers;
}

static CUresult create(CUarray *ret, const CUDA_ARRAY3D_DESCRIPTOR_v2 *desc)
{
	CUcontext ctx;
	CUarray a;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_unsafe();
	if (r)
		return r;
	if (!ret || !desc)
		return CUDA_ERROR_INVALID_VALUE;
	a = calloc(1, sizeof(*a));
	if (!a)
		return CUDA_ERROR_OUT_OF_MEMORY;
	r = sim_array_shape(a, desc);
	if (!r && !(desc->Flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING)))
		r = sim_heap_alloc(ctx, sim_array_bytes(a), &a->base);
	if (r) {
		free(a);
		return r;
	}
	a->ctx = ctx;
	a->life = ctx->id;
	a->tag = SIM_TAG_ARRAY;
	*ret = a;
	return CUDA_SUCCESS;
}

CUresult cuArray3DCreate_v2(CUarray *ret, const CUDA_ARRAY3D_DESCRIPTOR_v2 *desc)
{
	return create(ret, desc);
}

CUresult cuArray3DCreate(CUarray *ret, const CUDA_ARRAY3D_DESCRIPTOR_v1 *d)
{
	if (!d)
		return CUDA_ERROR_INVALID_VALUE;

	CUDA_ARRAY3D_DESCRIPTOR_v2 desc = {
		d->Width, d->Height, d->Depth, d->Format, d->NumChannels, d->Flags
	};

	return create(ret, &desc);
}

CUresult cuArrayCreate_v2(CUarray *ret, const CUDA_ARRAY_DESCRIPTOR_v2 *d)
{
	if (!d)
		return CUDA_ERROR_INVALID_VALUE;

	CUDA_ARRAY3D_DESCRIPTOR_v2 desc = { d->Width, d->Height, 0, d->Format, d->NumChannels, 0 };

	return create(ret, &desc);
}

CUresult cuArrayCreate(CUarray *ret, const CUDA_ARRAY_DESCRIPTOR_v1 *d)
{
	if (!d)
		return CUDA_ERROR_INVALID_VALUE;

	CUDA_ARRAY3D_DESCRIPTOR_v2 desc = { d->Width, d->Height, 0, d->Format, d->NumChannels, 0 };

	return create(ret, &desc);
}

/* The memory of a context that has ended went with it. */
static void release(CUcontext ctx, uint64_t life, CUdeviceptr base)
{
	if (base && ctx->id == life && ctx->broken != CUDA_ERROR_CONTEXT_IS_DESTROYED)
		sim_heap_free(base);
}

CUresult cuArrayDestroy(CUarray a)
{
	CUresult r = sim_ready();

	if (!r)
		r = sim_array_check(a);
	if (!r)
		r = sim_unsafe();
	if (r)
		return r;
	if (a->mipmap)
		return CUDA_ERROR_INVALID_VALUE;
	if (!a->ctx->broken)
		sim_context_sync(a->ctx);
	release(a->ctx, a->life, a->base);
	sim_phys_unmap_array(&a->mapped, NULL);
	a->tag = 0;
	free(a);
	return CUDA_SUCCESS;
}

/* ---- descriptions ---- */

CUresult cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR_v2 *ret, CUarray a)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_array_check(a);
	if (!r && !ret)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*ret = a->desc;
	return r;
}

CUresult cuArray3DGetDescriptor(CUDA_ARRAY3D_DESCRIPTOR_v1 *ret, CUarray a)
{
	CUDA_ARRAY3D_DESCRIPTOR_v2 d;
	CUresult r = cuArray3DGetDescriptor_v2(&d, a);

	if (!r && !ret)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*ret = (CUDA_ARRAY3D_DESCRIPTOR_v1){ (unsigned)d.Width, (unsigned)d.Height, (unsigned)d.Depth,
						     d.Format,          d.NumChannels,      d.Flags };
	return r;
}

CUresult cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR_v2 *ret, CUarray a)
{
	CUDA_ARRAY3D_DESCRIPTOR_v2 d;
	CUresult r = cuArray3DGetDescriptor_v2(&d, a);

	if (!r && !ret)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*ret = (CUDA_ARRAY_DESCRIPTOR_v2){ d.Width, d.Height, d.Format, d.NumChannels };
	return r;
}

CUresult cuArrayGetDescriptor(CUDA_ARRAY_DESCRIPTOR_v1 *ret, CUarray a)
{
	CUDA_ARRAY3D_DESCRIPTOR_v2 d;
	CUresult r = cuArray3DGetDescriptor_v2(&d, a);

	if (!r && !ret)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*ret = (CUDA_ARRAY_DESCRIPTOR_v1){ (unsigned)d.Width, (unsigned)d.Height, d.Format,
						   d.NumChannels };
	return r;
}

static CUresult requirements(CUDA_ARRAY_MEMORY_REQUIREMENTS_v1 *ret, const CUDA_ARRAY3D_DESCRIPTOR_v2 *desc,
			     size_t bytes, CUdevice device)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (!ret || !(desc->Flags & CUDA_ARRAY3D_DEFERRED_MAPPING))
		return CUDA_ERROR_INVALID_VALUE;
	*ret = (CUDA_ARRAY_MEMORY_REQUIREMENTS_v1){
		.size = (bytes + SIM_PAGE_BYTES - 1) & ~(SIM_PAGE_BYTES - 1), .alignment = SIM_PAGE_BYTES
	};
	return CUDA_SUCCESS;
}

CUresult cuArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS_v1 *ret, CUarray a, CUdevice device)
{
	CUresult r = sim_array_check(a);

	return r ? r : requirements(ret, &a->desc, sim_array_bytes(a), device);
}

/* Tiles of 64 KiB, as NVIDIA's hardware has them for 2D; none of the levels is packed into a tail. */
static CUresult sparse(CUDA_ARRAY_SPARSE_PROPERTIES_v1 *ret, const CUDA_ARRAY3D_DESCRIPTOR_v2 *desc,
		       unsigned int levels)
{
	bool blocks;
	uint32_t texel = format_bytes(desc->Format, &blocks) * (blocks ? 1 : desc->NumChannels);
	unsigned int width = 256, height = 256;

	if (!ret || !(desc->Flags & CUDA_ARRAY3D_SPARSE))
		return CUDA_ERROR_INVALID_VALUE;
	for (uint32_t b = texel; b > 1; b /= 2) {
		if (width >= height && b != texel)
			width /= 2;
		else
			height /= 2;
	}
	*ret = (CUDA_ARRAY_SPARSE_PROPERTIES_v1){ .tileExtent = { width, height, 1 },
						  .miptailFirstLevel = levels };
	return CUDA_SUCCESS;
}

CUresult cuArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES_v1 *ret, CUarray a)
{
	CUresult r = sim_array_check(a);

	return r ? r : sparse(ret, &a->desc, 1);
}

/* ---- mipmaps ---- */

static CUresult mipmap_check(CUmipmappedArray m)
{
	return m && m->tag == SIM_TAG_MIPMAP ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* Sides are halved from level to level, layers are not. */
static CUDA_ARRAY3D_DESCRIPTOR_v2 level_desc(const CUDA_ARRAY3D_DESCRIPTOR_v2 *d, unsigned int level)
{
	CUDA_ARRAY3D_DESCRIPTOR_v2 l = *d;
	bool layered = d->Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP);

	l.Width = d->Width >> level ? d->Width >> level : 1;
	if (d->Height)
		l.Height = d->Height >> level ? d->Height >> level : 1;
	if (d->Depth && !layered)
		l.Depth = d->Depth >> level ? d->Depth >> level : 1;
	return l;
}

static unsigned int most_levels(const CUDA_ARRAY3D_DESCRIPTOR_v2 *d)
{
	size_t side = d->Width > d->Height ? d->Width : d->Height;
	unsigned int n = 1;

	while (side >>= 1)
		n++;
	return n < 16 ? n : 16;
}

size_t sim_mipmap_bytes(const CUDA_ARRAY3D_DESCRIPTOR_v2 *desc, unsigned int levels)
{
	struct CUarray_st a;
	size_t bytes = 0;

	for (unsigned int i = 0; i < levels; i++) {
		CUDA_ARRAY3D_DESCRIPTOR_v2 d = level_desc(desc, i);

		if (sim_array_shape(&a, &d))
			return 0;
		bytes += sim_array_bytes(&a);
	}
	return bytes;
}

static void free_mipmap(CUmipmappedArray m)
{
	for (unsigned int i = 0; i < m->levels; i++)
		free(m->level[i]);
	m->tag = 0;
	free(m);
}

CUresult sim_mipmap_make(CUcontext ctx, const CUDA_ARRAY3D_DESCRIPTOR_v2 *desc, unsigned int levels,
			 CUdeviceptr base, CUmipmappedArray *ret)
{
	CUmipmappedArray m = calloc(1, sizeof(*m));
	bool none = desc->Flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING);
	CUresult r = CUDA_SUCCESS;
	bool own = !base;

	if (!m)
		return CUDA_ERROR_OUT_OF_MEMORY;
	m->ctx = ctx;
	m->life = ctx->id;
	m->desc = *desc;
	m->levels = levels > most_levels(desc) ? most_levels(desc) : levels;
	m->bytes = sim_mipmap_bytes(desc, m->levels);
	if (!m->levels || !m->bytes)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r && own && !none)
		r = sim_heap_alloc(ctx, m->bytes, &base);
	m->base = own ? base : 0;
	for (unsigned int i = 0; i < m->levels && !r; i++) {
		CUDA_ARRAY3D_DESCRIPTOR_v2 d = level_desc(desc, i);
		CUarray a = m->level[i] = calloc(1, sizeof(*a));

		if (!a) {
			r = CUDA_ERROR_OUT_OF_MEMORY;
			break;
		}
		r = sim_array_shape(a, &d);
		a->ctx = ctx;
		a->mipmap = m;
		a->base = base;
		a->tag = SIM_TAG_ARRAY;
		if (base)
			base += sim_array_bytes(a);
	}
	if (r) {
		release(ctx, m->life, m->base);
		free_mipmap(m);
		return r;
	}
	m->tag = SIM_TAG_MIPMAP;
	*ret = m;
	return CUDA_SUCCESS;
}

CUresult cuMipmappedArrayCreate(CUmipmappedArray *ret, const CUDA_ARRAY3D_DESCRIPTOR_v2 *desc,
				unsigned int levels)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_unsafe();
	if (r)
		return r;
	if (!ret || !desc)
		return CUDA_ERROR_INVALID_VALUE;
	return sim_mipmap_make(ctx, desc, levels, 0, ret);
}

CUresult cuMipmappedArrayGetLevel(CUarray *ret, CUmipmappedArray m, unsigned int level)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = mipmap_check(m);
	if (!r && (!ret || level >= m->levels))
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*ret = m->level[level];
	return r;
}

CUresult cuMipmappedArrayDestroy(CUmipmappedArray m)
{
	CUresult r = sim_ready();

	if (!r)
		r = mipmap_check(m);
	if (!r)
		r = sim_unsafe();
	if (r)
		return r;
	if (!m->ctx->broken)
		sim_context_sync(m->ctx);
	release(m->ctx, m->life, m->base);
	sim_phys_unmap_array(&m->mapped, NULL);
	if (m->mapping)
		munmap(m->mapping, m->bytes);
	free_mipmap(m);
	return CUDA_SUCCESS;
}

CUresult cuMipmappedArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS_v1 *ret, CUmipmappedArray m,
					       CUdevice device)
{
	CUresult r = mipmap_check(m);

	return r ? r : requirements(ret, &m->desc, m->bytes, device);
}

CUresult cuMipmappedArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES_v1 *ret, CUmipmappedArray m)
{
	CUresult r = mipmap_check(m);

	return r ? r : sparse(ret, &m->desc, m->levels);
}

/* ---- physical memory behind sparse and deferred arrays ---- */

static CUresult map_info(const CUarrayMapInfo_v1 *info)
{
	enum { ARRAY = 0, MIPMAP = 1 };
	struct sim_mapped **list;
	CUresult r;

	if (info->resourceType == ARRAY) {
		r = sim_array_check(info->resource.array);
		list = r ? NULL : &info->resource.array->mapped;
	} else {
		r = info->resourceType == MIPMAP ? mipmap_check(info->resource.mipmap)
						 : CUDA_ERROR_INVALID_VALUE;
		list = r ? NULL : &info->resource.mipmap->mapped;
	}
	if (r)
		return r;
	if (info->memHandleType != CU_MEM_HANDLE_TYPE_GENERIC || info->flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (info->memOperationType == CU_MEM_OPERATION_TYPE_MAP)
		return sim_phys_map_array(list, info);
	if (info->memOperationType == CU_MEM_OPERATION_TYPE_UNMAP)
		return sim_phys_unmap_array(list, info) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	return CUDA_ERROR_INVALID_VALUE;
}

/*
 * The bytes behind such an array cannot be copied here; what is kept is that the memory is in use. In the
 * stream's order.
 */
static CUresult map_list(CUarrayMapInfo_v1 *list, unsigned int n, CUstream h, bool per_thread)
{
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_stream_get(ctx, h, per_thread, &s);
	if (!r && s->capture)
		r = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	if (!r && (!list || !n))
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		r = sim_stream_sync(s);
	for (unsigned int i = 0; i < n && !r; i++)
		r = map_info(&list[i]);
	return r;
}

SIM_PAIR(cuMemMapArrayAsync, _ptsz, (CUarrayMapInfo_v1 *list, unsigned int n, CUstream h),
	 return map_list(list, n, h, per_thread);)
