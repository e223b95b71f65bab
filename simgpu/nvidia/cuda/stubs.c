/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is not built answers that it is not supported: one weak function per row of the list, which the
 * strong one of the same name takes the place of when the library is linked.
 */
#include "simgpu/nvidia/cuda/drv.h"

#define PEN_CU(symbol, family, since, thread, class, types) \
	__attribute__((weak)) CUresult symbol types \
	{ \
		return CUDA_ERROR_NOT_SUPPORTED; \
	}
#include "api/cuda.def"
