/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_CUDA_ARRAY_H
#define SIM_CUDA_ARRAY_H
/* CUDA arrays: rows of a pitch in device memory, since nobody can tell here how texels lie in it. */
#include "simgpu/nvidia/cuda/drv.h"

struct CUarray_st {
	enum sim_tag tag;
	CUcontext ctx;
	uint64_t life;                 /* the context's id when it was made */
	CUDA_ARRAY3D_DESCRIPTOR_v2 desc;
	CUdeviceptr base;              /* 0: sparse or deferred, nothing is there to copy to */
	/* bytes of texels in a row; from row to row; rows of a layer; layers or slices */
	size_t row_bytes, pitch, rows, layers;
	CUmipmappedArray mipmap;       /* owner of a level; NULL: its own */
	struct sim_mapped *mapped;     /* sparse and deferred: physical memory behind it */
};

struct CUmipmappedArray_st {
	enum sim_tag tag;
	CUcontext ctx;
	uint64_t life;
	CUDA_ARRAY3D_DESCRIPTOR_v2 desc;
	unsigned int levels;
	CUdeviceptr base;
	size_t bytes;
	CUarray level[16];
	void *mapping;                 /* of external memory */
	struct sim_mapped *mapped;
};

CUresult sim_array_check(CUarray a);
/* Fills all but base and owner from a description; 0 or invalid value. */
CUresult sim_array_shape(CUarray a, const CUDA_ARRAY3D_DESCRIPTOR_v2 *desc);
size_t sim_array_bytes(const struct CUarray_st *a);
/* Levels at @base, or in memory of their own if that is 0. */
CUresult sim_mipmap_make(CUcontext ctx, const CUDA_ARRAY3D_DESCRIPTOR_v2 *desc, unsigned int levels,
			 CUdeviceptr base, CUmipmappedArray *ret);
size_t sim_mipmap_bytes(const CUDA_ARRAY3D_DESCRIPTOR_v2 *desc, unsigned int levels);

/* vmm.c: references from a part of an array to physical memory. @info NULL: all parts. */
CUresult sim_phys_map_array(struct sim_mapped **list, const CUarrayMapInfo_v1 *info);
bool sim_phys_unmap_array(struct sim_mapped **list, const CUarrayMapInfo_v1 *info);

#endif
