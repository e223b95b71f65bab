/* SPDX-License-Identifier: Apache-2.0 */
/* What is not built answers that it is not supported: a weak function per row, whose place the strong one of the same name takes. */
#include "simgpu/nvidia/nvml/ml.h"

static nvmlReturn_t unsupported(const char *name)
{
	nvmlReturn_t r = sim_nv_enter(name);
	return r ? r : NVML_ERROR_NOT_SUPPORTED;
}

#define PEN_NV(symbol, since, class, types)             \
	__attribute__((weak)) nvmlReturn_t symbol types \
	{                                               \
		return unsupported(#symbol);            \
	}
#define PEN_NV_TEXT(symbol, since, class, types)
#include "api/nvml.def"
