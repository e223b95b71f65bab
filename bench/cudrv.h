/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BENCH_CUDRV_H
#define PEN_BENCH_CUDRV_H
/*
 * NVIDIA's driver interface as programs of CUDA 11.3 and later find it: libcuda.so.1 by dlopen, one look-up of cuGetProcAddress_v2
 * (or _v1) by name, everything else through that at the version of the entry point. Without either, by exported name.
 * What the driver lacks is NULL.
 *
 * Threads: open once, then read by any. Errors: a line on stderr.
 */
#include "api/cuda_abi.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEN_CU(symbol, family, since, thread, class, types) typedef CUresult cu_fn_##symbol types;
#include "api/cuda.def"
#undef PEN_CU

/* What every driver from 11.0 on has. */
#define CU_BASE(X) \
	X(cuInit) X(cuDriverGetVersion) X(cuDeviceGet) X(cuDeviceGetCount) X(cuDeviceGetName) X(cuDeviceTotalMem_v2) \
	X(cuDeviceGetAttribute) X(cuDeviceGetPCIBusId) X(cuDeviceGetUuid) X(cuDevicePrimaryCtxRetain) \
	X(cuDevicePrimaryCtxRelease_v2) X(cuDevicePrimaryCtxReset_v2) X(cuCtxCreate_v2) X(cuCtxDestroy_v2) X(cuCtxSetCurrent) \
	X(cuCtxGetCurrent) X(cuCtxSynchronize) X(cuCtxSetLimit) X(cuCtxGetStreamPriorityRange) X(cuModuleLoadData) \
	X(cuModuleUnload) X(cuModuleGetFunction) X(cuMemGetInfo_v2) X(cuMemAlloc_v2) X(cuMemAllocPitch_v2) X(cuMemFree_v2) \
	X(cuMemAllocManaged) X(cuMemHostAlloc) X(cuMemFreeHost) X(cuMemHostGetDevicePointer_v2) X(cuMemcpyHtoD_v2) \
	X(cuMemcpyDtoH_v2) X(cuMemcpyHtoDAsync_v2) X(cuMemcpyDtoHAsync_v2) X(cuMemcpyDtoDAsync_v2) X(cuMemsetD8_v2) \
	X(cuMemsetD32_v2) X(cuMemsetD8Async) X(cuMemsetD32Async) X(cuArrayCreate_v2) X(cuArray3DCreate_v2) X(cuArrayDestroy) \
	X(cuMipmappedArrayCreate) X(cuMipmappedArrayDestroy) X(cuIpcGetMemHandle) X(cuIpcOpenMemHandle_v2) X(cuIpcCloseMemHandle) \
	X(cuMemAddressReserve) X(cuMemAddressFree) X(cuMemCreate) X(cuMemRelease) X(cuMemMap) X(cuMemUnmap) X(cuMemSetAccess) \
	X(cuMemGetAllocationGranularity) X(cuMemExportToShareableHandle) X(cuMemImportFromShareableHandle) \
	X(cuMemRetainAllocationHandle) X(cuImportExternalMemory) X(cuExternalMemoryGetMappedBuffer) X(cuDestroyExternalMemory) \
	X(cuStreamCreate) X(cuStreamCreateWithPriority) X(cuStreamDestroy_v2) X(cuStreamSynchronize) X(cuStreamQuery) \
	X(cuStreamWaitEvent) X(cuStreamAddCallback) X(cuStreamBeginCapture_v2) X(cuStreamEndCapture) X(cuStreamIsCapturing) \
	X(cuStreamWaitValue32) X(cuStreamWriteValue32) X(cuEventCreate) X(cuEventRecord) X(cuEventQuery) X(cuEventSynchronize) \
	X(cuEventElapsedTime) X(cuEventDestroy_v2) X(cuLaunchKernel) X(cuLaunchCooperativeKernel) X(cuLaunchHostFunc) \
	X(cuGraphCreate) X(cuGraphAddKernelNode) X(cuGraphGetNodes) X(cuGraphDestroy) X(cuGraphExecDestroy) X(cuGraphLaunch) \
	X(cuLaunchKernel_ptsz) X(cuStreamSynchronize_ptsz)

/* What came later: NULL on the drivers before. */
#define CU_LATER(X) \
	X(cuMemAllocAsync) X(cuMemFreeAsync) X(cuMemPoolCreate) X(cuMemPoolDestroy) X(cuMemAllocFromPoolAsync) X(cuMemPoolTrimTo) \
	X(cuDeviceGetDefaultMemPool) X(cuGraphInstantiateWithFlags) X(cuGraphAddMemAllocNode) X(cuGraphAddMemFreeNode) \
	X(cuDeviceGraphMemTrim) X(cuStreamWaitValue32_v2) X(cuStreamWriteValue32_v2) X(cuLaunchKernelEx) X(cuDeviceGetDevResource) \
	X(cuDevSmResourceSplitByCount) X(cuDevResourceGenerateDesc) X(cuGreenCtxCreate) X(cuGreenCtxDestroy) \
	X(cuGreenCtxStreamCreate) X(cuCtxFromGreenCtx)

struct cu {
#define X(symbol) cu_fn_##symbol *symbol;
	CU_BASE(X) CU_LATER(X)
#undef X
	void *library;
	int version;   /* 11040, 13000 ... */
};
extern struct cu cu;

/* Loads @path (NULL: libcuda.so.1) and finds everything above. 0, or -1. Calls nothing else: cuInit is the caller's. */
int cu_load(const char *path);
/* cuInit, device @ordinal, its primary context made current. 0, or -1. */
int cu_start(int ordinal, CUdevice *ret_device, CUcontext *ret_context);
/* One entry point of any library opened, as above; NULL where there is none. */
void *cu_find(void *library, const char *symbol);
/* "out of memory (2)" and the like, for messages. */
const char *cu_error(CUresult r);

/* The program's name is in front of what is printed. Return: -1. */
extern const char *cu_program;
int cu_failed(const char *what, CUresult r);
/* Returns -1 from the calling function where a call fails. */
#define CU_OR_FAIL(what, call) \
	do { \
		CUresult cu_result_ = (call); \
		if (cu_result_) \
			return cu_failed((what), cu_result_); \
	} while (0)
#endif
