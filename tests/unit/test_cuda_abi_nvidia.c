/* SPDX-License-Identifier: Apache-2.0 */
/* The list under NVIDIA's headers: see test_cuda_abi.c. */
#define __CUDA_API_VERSION_INTERNAL   /* the old forms too */
#include <cuda.h>
#include <cudaProfiler.h>
#include <cudaTypedefs.h>

#include "cuda_abi.h"

/* The pointer's type is the row's, parameter by parameter. */
#define ROW(pointer, types) { "signature of " #pointer, __builtin_types_compatible_p(pointer, CUresult(*) types) },

const struct abi_line abi_nvidia[] = {
#include "cuda_abi_list.h"
};
const size_t abi_nvidia_lines = sizeof(abi_nvidia) / sizeof(*abi_nvidia);
