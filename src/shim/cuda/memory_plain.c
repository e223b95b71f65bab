/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is freed by its pointer: plain, with a pitch, managed; and pinned memory of the host, which costs nothing but on a
 * device that shares the host's. Managed memory counts in full: where it resides no call tells.
 */
#include "shim/cuda/memory.h"
#include "shim/cuda/prop.h"

#include "base/auto.h"

/* ---- linear ------------------------------------------------------------------------------------------------------------ */

static CUresult undo(CUdeviceptr ptr)
{
	(void)PEN_CU_WAITING(REAL(cuMemFree_v2) ? REAL(cuMemFree_v2)(ptr) : REAL(cuMemFree)((CUdeviceptr_v1)ptr));
	return CUDA_ERROR_OUT_OF_MEMORY;
}

/* The driver's answer @r, with @ptr and @bytes where it is success. */
static CUresult made(struct pen_cu_block *b, CUresult r, CUdeviceptr ptr, uint64_t bytes)
{
	if (!b || (r == CUDA_SUCCESS && pen_cu_block_keep_paged(b, ptr, bytes, &pen_cu_blocks, pen_cu_key(ptr))))
		return r;
	if (r == CUDA_SUCCESS)
		r = undo(ptr);
	pen_cu_block_drop(b);
	return r;
}

CUresult pen_cuMemAlloc_v2(CUdeviceptr *ptr, size_t bytes)
{
	CUresult r;
	if (pen_cu_thread.depth || !ptr || !bytes)
		return REAL(cuMemAlloc_v2)(ptr, bytes);
	struct pen_cu_block *b = pen_cu_block_new_paged(bytes, &r);
	if (r == CUDA_SUCCESS)
		r = PEN_CU_INSIDE(REAL(cuMemAlloc_v2)(ptr, bytes));
	return made(b, r, *ptr, bytes);
}

CUresult pen_cuMemAlloc(CUdeviceptr_v1 *ptr, unsigned int bytes)
{
	CUresult r;
	if (pen_cu_thread.depth || !ptr || !bytes)
		return REAL(cuMemAlloc)(ptr, bytes);
	struct pen_cu_block *b = pen_cu_block_new_paged(bytes, &r);
	if (r == CUDA_SUCCESS)
		r = PEN_CU_INSIDE(REAL(cuMemAlloc)(ptr, bytes));
	return made(b, r, *ptr, bytes);
}

CUresult pen_cuMemAllocManaged(CUdeviceptr *ptr, size_t bytes, unsigned int flags)
{
	CUresult r;
	if (pen_cu_thread.depth || !ptr || !bytes)
		return REAL(cuMemAllocManaged)(ptr, bytes, flags);
	struct pen_cu_block *b = pen_cu_block_new_paged(bytes, &r);
	if (r == CUDA_SUCCESS)
		r = PEN_CU_INSIDE(REAL(cuMemAllocManaged)(ptr, bytes, flags));
	return made(b, r, *ptr, bytes);
}

/* The pitch is the driver's secret until it has answered: rows as they are asked for are reserved, and settled then. */
static uint64_t rows(uint64_t width, uint64_t height)
{
	uint64_t v;
	return __builtin_mul_overflow(width, height, &v) ? UINT64_MAX : v;
}

CUresult pen_cuMemAllocPitch_v2(CUdeviceptr *ptr, size_t *pitch, size_t width, size_t height, unsigned int element)
{
	CUresult r;
	if (pen_cu_thread.depth || !ptr || !pitch || !width || !height)
		return REAL(cuMemAllocPitch_v2)(ptr, pitch, width, height, element);
	struct pen_cu_block *b = pen_cu_block_new_paged(rows(width, height), &r);
	if (r == CUDA_SUCCESS)
		r = PEN_CU_INSIDE(REAL(cuMemAllocPitch_v2)(ptr, pitch, width, height, element));
	return made(b, r, *ptr, r == CUDA_SUCCESS ? rows(*pitch, height) : 0);
}

CUresult pen_cuMemAllocPitch(CUdeviceptr_v1 *ptr, unsigned int *pitch, unsigned int width, unsigned int height, unsigned int element)
{
	CUresult r;
	if (pen_cu_thread.depth || !ptr || !pitch || !width || !height)
		return REAL(cuMemAllocPitch)(ptr, pitch, width, height, element);
	struct pen_cu_block *b = pen_cu_block_new_paged(rows(width, height), &r);
	if (r == CUDA_SUCCESS)
		r = PEN_CU_INSIDE(REAL(cuMemAllocPitch)(ptr, pitch, width, height, element));
	return made(b, r, *ptr, r == CUDA_SUCCESS ? rows(*pitch, height) : 0);
}

/* Memory of any origin is freed here: of pools, of graphs, and mapped from elsewhere. What is unknown costs nothing. */
CUresult pen_cuMemFree_v2(CUdeviceptr ptr)
{
	PEN_CU_NESTED(cuMemFree_v2, ptr);
	struct pen_cu_block *b = ptr ? pen_cu_block_take(&pen_cu_blocks, pen_cu_key(ptr)) : NULL;
	return pen_cu_block_ended(b, PEN_CU_WAITING(REAL(cuMemFree_v2)(ptr)));
}

CUresult pen_cuMemFree(CUdeviceptr_v1 ptr)
{
	PEN_CU_NESTED(cuMemFree, ptr);
	struct pen_cu_block *b = ptr ? pen_cu_block_take(&pen_cu_blocks, pen_cu_key(ptr)) : NULL;
	return pen_cu_block_ended(b, PEN_CU_WAITING(REAL(cuMemFree)(ptr)));
}

/* ---- pinned memory of the host ------------------------------------------------------------------------------------------- */

static struct pen_cu_block *host_new(uint64_t bytes, CUresult *ret)
{
	struct pen_cu_device *d = pen_cu_device_current();
	*ret = CUDA_SUCCESS;
	return d && d->integrated ? pen_cu_block_new(bytes, ret) : NULL;
}

static CUresult host_made(struct pen_cu_block *b, CUresult r, void *ptr)
{
	if (!b || (r == CUDA_SUCCESS && pen_cu_block_keep(b, b->bytes, &pen_cu_pinned, ptr)))
		return r;
	if (r == CUDA_SUCCESS) {
		(void)PEN_CU_WAITING(REAL(cuMemFreeHost)(ptr));
		r = CUDA_ERROR_OUT_OF_MEMORY;
	}
	pen_cu_block_drop(b);
	return r;
}

CUresult pen_cuMemHostAlloc(void **ptr, size_t bytes, unsigned int flags)
{
	CUresult r;
	if (pen_cu_thread.depth || !ptr || !bytes)
		return REAL(cuMemHostAlloc)(ptr, bytes, flags);
	struct pen_cu_block *b = host_new(bytes, &r);
	if (r == CUDA_SUCCESS)
		r = PEN_CU_INSIDE(REAL(cuMemHostAlloc)(ptr, bytes, flags));
	return host_made(b, r, *ptr);
}

CUresult pen_cuMemAllocHost_v2(void **ptr, size_t bytes)
{
	CUresult r;
	if (pen_cu_thread.depth || !ptr || !bytes)
		return REAL(cuMemAllocHost_v2)(ptr, bytes);
	struct pen_cu_block *b = host_new(bytes, &r);
	if (r == CUDA_SUCCESS)
		r = PEN_CU_INSIDE(REAL(cuMemAllocHost_v2)(ptr, bytes));
	return host_made(b, r, *ptr);
}

CUresult pen_cuMemAllocHost(void **ptr, unsigned int bytes)
{
	CUresult r;
	if (pen_cu_thread.depth || !ptr || !bytes)
		return REAL(cuMemAllocHost)(ptr, bytes);
	struct pen_cu_block *b = host_new(bytes, &r);
	if (r == CUDA_SUCCESS)
		r = PEN_CU_INSIDE(REAL(cuMemAllocHost)(ptr, bytes));
	return host_made(b, r, *ptr);
}

CUresult pen_cuMemFreeHost(void *ptr)
{
	PEN_CU_NESTED(cuMemFreeHost, ptr);
	struct pen_cu_block *b = ptr ? pen_cu_block_take(&pen_cu_pinned, ptr) : NULL;
	return pen_cu_block_ended(b, PEN_CU_WAITING(REAL(cuMemFreeHost)(ptr)));
}

/* ---- memory of another interface ------------------------------------------------------------------------------------------- */

/* Whether it is an export of ours no call tells: charged by its size. What is mapped of it costs nothing more. */
CUresult pen_cuImportExternalMemory(CUexternalMemory *mem, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC_v1 *desc)
{
	CUresult r;
	if (pen_cu_thread.depth || !mem || !desc)
		return REAL(cuImportExternalMemory)(mem, desc);
	struct pen_cu_block *b = pen_cu_block_new(desc->size, &r);
	if (r == CUDA_SUCCESS)
		r = PEN_CU_INSIDE(REAL(cuImportExternalMemory)(mem, desc));
	if (!b || (r == CUDA_SUCCESS && pen_cu_block_keep(b, b->bytes, &pen_cu_foreign, *mem)))
		return r;
	if (r == CUDA_SUCCESS) {
		(void)PEN_CU_INSIDE(REAL(cuDestroyExternalMemory)(*mem));
		r = CUDA_ERROR_OUT_OF_MEMORY;
	}
	pen_cu_block_drop(b);
	return r;
}

CUresult pen_cuDestroyExternalMemory(CUexternalMemory mem)
{
	PEN_CU_NESTED(cuDestroyExternalMemory, mem);
	struct pen_cu_block *b = mem ? pen_cu_block_take(&pen_cu_foreign, mem) : NULL;
	return pen_cu_block_ended(b, PEN_CU_INSIDE(REAL(cuDestroyExternalMemory)(mem)));
}
