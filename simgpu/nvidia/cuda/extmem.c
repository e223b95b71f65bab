/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of other interfaces, by descriptor. What cuMemCreate exported is a reference; any other file
 * stands for memory that a graphics interface has on the device, and takes as much there as it says.
 */
#include "simgpu/nvidia/cuda/array.h"
#include "simgpu/nvidia/cuda/mem.h"
#include "simgpu/nvidia/cuda/share.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct CUextMemory_st {
	enum sim_tag tag;
	CUcontext ctx;
	int fd;
	uint64_t bytes, taken, id; /* that it has; taken of the device, and by which number; 0 = nothing */
};

static CUresult check(CUexternalMemory m)
{
	return m && m->tag == SIM_TAG_EXTMEM ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuImportExternalMemory(CUexternalMemory *ret, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC_v1 *desc)
{
	struct sim_share share;
	CUexternalMemory m;
	struct stat st;
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_unsafe();
	if (r)
		return r;
	if (!ret || !desc || !desc->size || desc->flags & ~(unsigned)CUDA_EXTERNAL_MEMORY_DEDICATED)
		return CUDA_ERROR_INVALID_VALUE;
	if (desc->type != CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD)
		return CUDA_ERROR_NOT_SUPPORTED;
	if (fstat(desc->handle.fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size < desc->size)
		return CUDA_ERROR_INVALID_HANDLE;
	m = calloc(1, sizeof(*m));
	if (!m)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*m = (struct CUextMemory_st){ SIM_TAG_EXTMEM, ctx->root, desc->handle.fd, desc->size, 0, 0 };
	if (sim_share_read(desc->handle.fd, &share) < 0) {
		m->taken = (desc->size + SIM_PAGE_BYTES - 1) & ~(SIM_PAGE_BYTES - 1);
		r = sim_memory_take(ctx->device, m->taken, &m->id);
	}
	if (r) {
		free(m);
		return r;
	}
	*ret = m; /* the descriptor is ours from now on */
	return CUDA_SUCCESS;
}

CUresult cuDestroyExternalMemory(CUexternalMemory m)
{
	CUresult r = sim_ready();

	if (!r)
		r = check(m);
	if (r)
		return r;
	if (m->taken)
		sim_memory_give(m->ctx->device, m->taken, m->id);
	close(m->fd);
	m->tag = 0;
	free(m);
	return CUDA_SUCCESS;
}

static void *map(CUexternalMemory m, uint64_t offset, uint64_t bytes)
{
	if (!bytes || offset % 4096 || offset > m->bytes || bytes > m->bytes - offset)
		return NULL;

	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, (off_t)offset);

	return p == MAP_FAILED ? NULL : p;
}

CUresult cuExternalMemoryGetMappedBuffer(CUdeviceptr *ret, CUexternalMemory m,
					 const CUDA_EXTERNAL_MEMORY_BUFFER_DESC_v1 *desc)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = check(m);
	if (r)
		return r;
	if (!ret || !desc || desc->flags)
		return CUDA_ERROR_INVALID_VALUE;

	void *p = map(m, desc->offset, desc->size);
	struct sim_range range = {
		.base = (uintptr_t)p, .bytes = desc->size, .kind = SIM_MEM_EXTERNAL, .device = ctx->device
	};

	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	if (sim_range_add(&range) < 0) {
		munmap(p, desc->size);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*ret = range.base;
	return CUDA_SUCCESS;
}

/* cuMemFree of a mapped buffer: the mapping goes, the memory is the external one's. */
bool sim_external_free(CUdeviceptr p)
{
	struct sim_range range;

	if (!sim_range_find(p, &range) || range.kind != SIM_MEM_EXTERNAL || range.base != p ||
	    !sim_range_remove(p, &range))
		return false;
	munmap((void *)range.base, range.bytes);
	return true;
}

CUresult cuExternalMemoryGetMappedMipmappedArray(CUmipmappedArray *ret, CUexternalMemory m,
						 const CUDA_EXTERNAL_MEMORY_MIPMAPPED_ARRAY_DESC_v1 *desc)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = check(m);
	if (r)
		return r;
	if (!ret || !desc || !desc->numLevels)
		return CUDA_ERROR_INVALID_VALUE;

	size_t bytes = sim_mipmap_bytes(&desc->arrayDesc, desc->numLevels);
	void *p = map(m, desc->offset, bytes);

	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	r = sim_mipmap_make(ctx, &desc->arrayDesc, desc->numLevels, (uintptr_t)p, ret);
	if (r) {
		munmap(p, bytes);
		return r;
	}
	(*ret)->mapping = p;
	return CUDA_SUCCESS;
}
