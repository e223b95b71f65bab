/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of rows and layers, between any of host, device and array. */
#include "simgpu/nvidia/cuda/array.h"
#include "simgpu/nvidia/cuda/graph.h"

#include <string.h>

struct operand {
	CUmemorytype type;
	const void *host;
	CUdeviceptr device;
	CUarray array;
	size_t x, y, z, pitch, height;
};

struct place {
	CUdeviceptr at;
	size_t pitch, layer;
	enum sim_place where;
};

/* Where the first byte lies, and the way to the next row and layer. */
static CUresult resolve(const struct operand *o, size_t width, size_t rows, size_t layers, struct place *ret)
{
	if (o->type == CU_MEMORYTYPE_ARRAY) {
		CUarray a = o->array;

		if (sim_array_check(a))
			return CUDA_ERROR_INVALID_HANDLE;
		if (!a->base)
			return CUDA_ERROR_NOT_SUPPORTED; /* sparse or deferred */
		if (o->x + width > a->row_bytes || o->y + rows > a->rows || o->z + layers > a->layers)
			return CUDA_ERROR_INVALID_VALUE;
		*ret = (struct place){ a->base, a->pitch, a->pitch * a->rows, SIM_AT_DEVICE };
	} else {
		CUdeviceptr base = o->type == CU_MEMORYTYPE_HOST ? (uintptr_t)o->host : o->device;
		size_t pitch = o->pitch ? o->pitch : o->x + width;

		if (o->type < CU_MEMORYTYPE_HOST || o->type > CU_MEMORYTYPE_UNIFIED || !base)
			return CUDA_ERROR_INVALID_VALUE;
		if ((rows > 1 || layers > 1) && pitch < o->x + width)
			return CUDA_ERROR_INVALID_VALUE;
		*ret = (struct place){ base, pitch, pitch * (o->height ? o->height : o->y + rows),
				       sim_place(base) };
		if (o->type == CU_MEMORYTYPE_DEVICE && ret->where == SIM_AT_PAGEABLE)
			return CUDA_ERROR_INVALID_VALUE;
	}
	ret->at += o->z * ret->layer + o->y * ret->pitch + o->x;
	return CUDA_SUCCESS;
}

CUresult sim_copy3d_cmd(const CUDA_MEMCPY3D_v2 *p, struct sim_cmd *cmd, enum sim_place *src_at,
			enum sim_place *dst_at)
{
	struct operand so = { p->srcMemoryType, p->srcHost, p->srcDevice, p->srcArray, p->srcXInBytes,
			      p->srcY,          p->srcZ,    p->srcPitch,  p->srcHeight };
	struct operand to = { p->dstMemoryType, p->dstHost, p->dstDevice, p->dstArray, p->dstXInBytes,
			      p->dstY,          p->dstZ,    p->dstPitch,  p->dstHeight };
	struct place src, dst;
	CUresult r;

	if (p->srcLOD || p->dstLOD)
		return CUDA_ERROR_INVALID_VALUE;
	r = resolve(&so, p->WidthInBytes, p->Height, p->Depth, &src);
	if (!r)
		r = resolve(&to, p->WidthInBytes, p->Height, p->Depth, &dst);
	if (r)
		return r;
	*cmd = (struct sim_cmd){ .kind = SIM_COPY,
				 .copy = { .dst = dst.at,
					   .src = src.at,
					   .width = p->WidthInBytes,
					   .rows = p->Height,
					   .layers = p->Depth,
					   .dst_pitch = dst.pitch,
					   .src_pitch = src.pitch,
					   .dst_layer = dst.layer,
					   .src_layer = src.layer } };
	*src_at = src.where;
	*dst_at = dst.where;
	return CUDA_SUCCESS;
}

static CUresult copy3d(const CUDA_MEMCPY3D_v2 *p, CUstream h, bool per_thread, bool sync)
{
	enum sim_place src, dst;
	struct sim_cmd cmd;
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r && sync)
		r = sim_unsafe();
	if (!r)
		r = sim_stream_get(ctx, h, per_thread, &s);
	if (r)
		return r;
	if (!p->WidthInBytes || !p->Height || !p->Depth)
		return CUDA_SUCCESS;
	r = sim_copy3d_cmd(p, &cmd, &src, &dst);
	if (r)
		return r;
	if (SIM_UNLIKELY(s->capture != NULL))
		return sim_capture_copy(s, p);
	return sim_copy(s, &cmd, src, dst, sync);
}

SIM_PAIR(cuMemcpy3D_v2, _ptds, (const CUDA_MEMCPY3D_v2 *p),
	 return p ? copy3d(p, NULL, per_thread, true) : CUDA_ERROR_INVALID_VALUE;)
SIM_PAIR(cuMemcpy3DAsync_v2, _ptsz, (const CUDA_MEMCPY3D_v2 *p, CUstream h),
	 return p ? copy3d(p, h, per_thread, false) : CUDA_ERROR_INVALID_VALUE;)

static CUresult copy2d(const CUDA_MEMCPY2D_v2 *p, CUstream h, bool per_thread, bool sync)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;

	CUDA_MEMCPY3D_v2 all = {
		.srcXInBytes = p->srcXInBytes,
		.srcY = p->srcY,
		.srcMemoryType = p->srcMemoryType,
		.srcHost = p->srcHost,
		.srcDevice = p->srcDevice,
		.srcArray = p->srcArray,
		.srcPitch = p->srcPitch,
		.dstXInBytes = p->dstXInBytes,
		.dstY = p->dstY,
		.dstMemoryType = p->dstMemoryType,
		.dstHost = p->dstHost,
		.dstDevice = p->dstDevice,
		.dstArray = p->dstArray,
		.dstPitch = p->dstPitch,
		.WidthInBytes = p->WidthInBytes,
		.Height = p->Height,
		.Depth = 1,
	};

	return copy3d(&all, h, per_thread, sync);
}

SIM_PAIR(cuMemcpy2D_v2, _ptds, (const CUDA_MEMCPY2D_v2 *p), return copy2d(p, NULL, per_thread, true);)
SIM_PAIR(cuMemcpy2DUnaligned_v2, _ptds, (const CUDA_MEMCPY2D_v2 *p),
	 return copy2d(p, NULL, per_thread, true);)
SIM_PAIR(cuMemcpy2DAsync_v2, _ptsz, (const CUDA_MEMCPY2D_v2 *p, CUstream h),
	 return copy2d(p, h, per_thread, false);)

static CUresult peer3d(const CUDA_MEMCPY3D_PEER_v1 *p, CUstream h, bool per_thread, bool sync)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;

	CUDA_MEMCPY3D_v2 all = {
		.srcXInBytes = p->srcXInBytes,
		.srcY = p->srcY,
		.srcZ = p->srcZ,
		.srcLOD = p->srcLOD,
		.srcMemoryType = p->srcMemoryType,
		.srcHost = p->srcHost,
		.srcDevice = p->srcDevice,
		.srcArray = p->srcArray,
		.srcPitch = p->srcPitch,
		.srcHeight = p->srcHeight,
		.dstXInBytes = p->dstXInBytes,
		.dstY = p->dstY,
		.dstZ = p->dstZ,
		.dstLOD = p->dstLOD,
		.dstMemoryType = p->dstMemoryType,
		.dstHost = p->dstHost,
		.dstDevice = p->dstDevice,
		.dstArray = p->dstArray,
		.dstPitch = p->dstPitch,
		.dstHeight = p->dstHeight,
		.WidthInBytes = p->WidthInBytes,
		.Height = p->Height,
		.Depth = p->Depth,
	};
	CUresult r = sim_context_check(p->srcContext);

	if (!r)
		r = sim_context_check(p->dstContext);
	return r ? r : copy3d(&all, h, per_thread, sync);
}

SIM_PAIR(cuMemcpy3DPeer, _ptds, (const CUDA_MEMCPY3D_PEER_v1 *p), return peer3d(p, NULL, per_thread, true);)
SIM_PAIR(cuMemcpy3DPeerAsync, _ptsz, (const CUDA_MEMCPY3D_PEER_v1 *p, CUstream h),
	 return peer3d(p, h, per_thread, false);)

/* ---- a run of bytes in an array: it may begin and end within rows ---- */

struct run {
	CUmemorytype type; /* ARRAY, or where linear memory lies */
	const void *host;
	CUdeviceptr device;
	CUarray array;
	size_t offset; /* in an array */
};

static void set_src(CUDA_MEMCPY3D_v2 *p, const struct run *o, size_t done)
{
	p->srcMemoryType = o->type;
	p->srcHost = (const char *)o->host + done;
	p->srcDevice = o->device + done;
	p->srcArray = o->array;
	if (o->type == CU_MEMORYTYPE_ARRAY) {
		p->srcXInBytes = (o->offset + done) % o->array->row_bytes;
		p->srcY = (o->offset + done) / o->array->row_bytes;
	}
}

static void set_dst(CUDA_MEMCPY3D_v2 *p, const struct run *o, size_t done)
{
	p->dstMemoryType = o->type;
	p->dstHost = (char *)(uintptr_t)o->host + done;
	p->dstDevice = o->device + done;
	p->dstArray = o->array;
	if (o->type == CU_MEMORYTYPE_ARRAY) {
		p->dstXInBytes = (o->offset + done) % o->array->row_bytes;
		p->dstY = (o->offset + done) / o->array->row_bytes;
	}
}

static size_t to_row_end(const struct run *o, size_t done)
{
	return o->type == CU_MEMORYTYPE_ARRAY ? o->array->row_bytes - (o->offset + done) % o->array->row_bytes
					      : SIZE_MAX;
}

static CUresult runs(const struct run *dst, const struct run *src, size_t bytes, CUstream h, bool per_thread,
		     bool sync)
{
	CUresult r = CUDA_SUCCESS;

	if ((dst->type == CU_MEMORYTYPE_ARRAY && sim_array_check(dst->array)) ||
	    (src->type == CU_MEMORYTYPE_ARRAY && sim_array_check(src->array)))
		return CUDA_ERROR_INVALID_HANDLE;
	for (size_t done = 0, n; done < bytes && !r; done += n) {
		CUDA_MEMCPY3D_v2 p = { .Height = 1, .Depth = 1 };

		n = bytes - done;
		if (n > to_row_end(dst, done))
			n = to_row_end(dst, done);
		if (n > to_row_end(src, done))
			n = to_row_end(src, done);
		set_src(&p, src, done);
		set_dst(&p, dst, done);
		p.WidthInBytes = n;
		r = copy3d(&p, h, per_thread, sync);
	}
	return r;
}

#define ARRAY(a, at) \
	&(struct run) \
	{ \
		.type = CU_MEMORYTYPE_ARRAY, .array = a, .offset = at \
	}
#define DEVICE(p) \
	&(struct run) \
	{ \
		.type = CU_MEMORYTYPE_DEVICE, .device = p \
	}
#define HOST(p) \
	&(struct run) \
	{ \
		.type = CU_MEMORYTYPE_HOST, .host = p \
	}

SIM_PAIR(cuMemcpyDtoA_v2, _ptds, (CUarray dst, size_t at, CUdeviceptr src, size_t n),
	 return runs(ARRAY(dst, at), DEVICE(src), n, NULL, per_thread, true);)
SIM_PAIR(cuMemcpyAtoD_v2, _ptds, (CUdeviceptr dst, CUarray src, size_t at, size_t n),
	 return runs(DEVICE(dst), ARRAY(src, at), n, NULL, per_thread, true);)
SIM_PAIR(cuMemcpyHtoA_v2, _ptds, (CUarray dst, size_t at, const void *src, size_t n),
	 return runs(ARRAY(dst, at), HOST(src), n, NULL, per_thread, true);)
SIM_PAIR(cuMemcpyAtoH_v2, _ptds, (void *dst, CUarray src, size_t at, size_t n),
	 return runs(HOST(dst), ARRAY(src, at), n, NULL, per_thread, true);)
SIM_PAIR(cuMemcpyAtoA_v2, _ptds, (CUarray dst, size_t at, CUarray src, size_t from, size_t n),
	 return runs(ARRAY(dst, at), ARRAY(src, from), n, NULL, per_thread, true);)
SIM_PAIR(cuMemcpyHtoAAsync_v2, _ptsz, (CUarray dst, size_t at, const void *src, size_t n, CUstream h),
	 return runs(ARRAY(dst, at), HOST(src), n, h, per_thread, false);)
SIM_PAIR(cuMemcpyAtoHAsync_v2, _ptsz, (void *dst, CUarray src, size_t at, size_t n, CUstream h),
	 return runs(HOST(dst), ARRAY(src, at), n, h, per_thread, false);)

/* ---- batches: copies without an order among them, done in the order of the list ---- */

static CUresult batch(CUdeviceptr *dst, CUdeviceptr *src, size_t *bytes, size_t n, size_t n_attrs,
		      size_t *ret_failed, CUstream h, bool per_thread)
{
	CUresult r = CUDA_SUCCESS;

	if (!dst || !src || !bytes || !n || !n_attrs || n_attrs > n || (!h && !per_thread) ||
	    h == CU_STREAM_LEGACY)
		r = CUDA_ERROR_INVALID_VALUE;
	if (ret_failed)
		*ret_failed = SIZE_MAX;
	for (size_t i = 0; i < n && !r; i++) {
		r = per_thread ? cuMemcpyAsync_ptsz(dst[i], src[i], bytes[i], h)
			       : cuMemcpyAsync(dst[i], src[i], bytes[i], h);
		if (r && ret_failed)
			*ret_failed = i;
	}
	return r;
}

SIM_PAIR(cuMemcpyBatchAsync, _ptsz,
	 (CUdeviceptr * dst, CUdeviceptr *src, size_t *bytes, size_t n, CUmemcpyAttributes_v1 *attrs,
	  size_t *attrs_at, size_t n_attrs, size_t *failed, CUstream h),
	 return attrs && attrs_at ? batch(dst, src, bytes, n, n_attrs, failed, h, per_thread)
				  : CUDA_ERROR_INVALID_VALUE;)
SIM_PAIR(cuMemcpyBatchAsync_v2, _ptsz,
	 (CUdeviceptr * dst, CUdeviceptr *src, size_t *bytes, size_t n, CUmemcpyAttributes_v1 *attrs,
	  size_t *attrs_at, size_t n_attrs, CUstream h),
	 return attrs && attrs_at ? batch(dst, src, bytes, n, n_attrs, NULL, h, per_thread)
				  : CUDA_ERROR_INVALID_VALUE;)

/*
 * One side of a copy of a 3D batch. Lengths are in texels of the array, or in bytes if both sides are
 * pointers.
 */
static bool side(const CUmemcpy3DOperand_v1 *o, uint32_t texel, CUmemorytype *type, CUdeviceptr *device,
		 CUarray *array, size_t at[3], size_t *pitch, size_t *height)
{
	enum { POINTER = 1, ARRAY_ = 2 };

	if (o->type == POINTER) {
		*type = CU_MEMORYTYPE_UNIFIED;
		*device = o->op.ptr.ptr;
		*pitch = o->op.ptr.rowLength * texel;
		*height = o->op.ptr.layerHeight;
	} else if (o->type == ARRAY_ && !sim_array_check(o->op.array.array)) {
		*type = CU_MEMORYTYPE_ARRAY;
		*array = o->op.array.array;
		at[0] = o->op.array.offset.x * texel;
		at[1] = o->op.array.offset.y;
		at[2] = o->op.array.offset.z;
	} else {
		return false;
	}
	return true;
}

static uint32_t texel_bytes(const CUmemcpy3DOperand_v1 *o)
{
	if (o->type == 2 && !sim_array_check(o->op.array.array))
		return (uint32_t)(o->op.array.array->row_bytes / o->op.array.array->desc.Width);
	return 0;
}

static CUresult batch3d(size_t n, CUDA_MEMCPY3D_BATCH_OP_v1 *list, size_t *ret_failed,
			unsigned long long flags, CUstream h, bool per_thread)
{
	CUresult r = !n || !list || flags || (!h && !per_thread) || h == CU_STREAM_LEGACY
			     ? CUDA_ERROR_INVALID_VALUE
			     : CUDA_SUCCESS;

	if (ret_failed)
		*ret_failed = SIZE_MAX;
	for (size_t i = 0; i < n && !r; i++) {
		const CUDA_MEMCPY3D_BATCH_OP_v1 *o = &list[i];
		uint32_t texel = texel_bytes(&o->src)   ? texel_bytes(&o->src)
				 : texel_bytes(&o->dst) ? texel_bytes(&o->dst)
							: 1;
		size_t from[3] = { 0 }, to[3] = { 0 };
		CUDA_MEMCPY3D_v2 p = { .WidthInBytes = o->extent.width * texel,
				       .Height = o->extent.height,
				       .Depth = o->extent.depth };

		if (!side(&o->src, texel, &p.srcMemoryType, &p.srcDevice, &p.srcArray, from, &p.srcPitch,
			  &p.srcHeight) ||
		    !side(&o->dst, texel, &p.dstMemoryType, &p.dstDevice, &p.dstArray, to, &p.dstPitch,
			  &p.dstHeight)) {
			r = CUDA_ERROR_INVALID_VALUE;
		} else {
			p.srcXInBytes = from[0], p.srcY = from[1], p.srcZ = from[2];
			p.dstXInBytes = to[0], p.dstY = to[1], p.dstZ = to[2];
			r = copy3d(&p, h, per_thread, false);
		}
		if (r && ret_failed)
			*ret_failed = i;
	}
	return r;
}

SIM_PAIR(cuMemcpy3DBatchAsync, _ptsz,
	 (size_t n, CUDA_MEMCPY3D_BATCH_OP_v1 *list, size_t *failed, unsigned long long flags, CUstream h),
	 return batch3d(n, list, failed, flags, h, per_thread);)
SIM_PAIR(cuMemcpy3DBatchAsync_v2, _ptsz,
	 (size_t n, CUDA_MEMCPY3D_BATCH_OP_v1 *list, unsigned long long flags, CUstream h),
	 return batch3d(n, list, NULL, flags, h, per_thread);)
