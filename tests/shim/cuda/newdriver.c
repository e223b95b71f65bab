/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver newer than cuda.def, laid over rowdriver.c: it has an ABI that the table does not know, answers one family with an
 * address that it does not export, and another with an entry point of another family.
 */
#include "api/cuda_abi.h"

#include <string.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT CUresult cuMemAlloc_v3(void);
EXPORT CUresult cuMemAlloc_v2(void);
EXPORT CUresult cuGraphInstantiate_v2(void);
EXPORT CUresult cuGraphInstantiateWithFlags(void);
EXPORT CUresult cuGetProcAddress_v2(const char *name, void **pfn, int version, uint64_t flags, CUdriverProcAddressQueryResult *status);

CUresult cuMemAlloc_v3(void)
{
	return 1;
}

static CUresult hidden(void)
{
	return 2;
}

CUresult cuGetProcAddress_v2(const char *name, void **pfn, int version, uint64_t flags, CUdriverProcAddressQueryResult *status)
{
	(void)flags;
	if (!name || !pfn)
		return CUDA_ERROR_INVALID_VALUE;
	*pfn = NULL;
	if (!strcmp(name, "cuMemAlloc"))
		*pfn = version >= 13010 ? (void *)cuMemAlloc_v3 : (void *)cuMemAlloc_v2;
	else if (!strcmp(name, "cuMemFree") || !strcmp(name, "cuMemFreeAsync") || !strcmp(name, "cuNewThing") ||
		 !strcmp(name, "cuMemFreeHost"))
		*pfn = (void *)hidden;
	else if (!strcmp(name, "cuGraphInstantiate"))
		*pfn = version >= 12000 ? (void *)cuGraphInstantiateWithFlags : (void *)cuGraphInstantiate_v2;
	if (status)
		*status = *pfn ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
	return CUDA_SUCCESS;
}
