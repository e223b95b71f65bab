/* SPDX-License-Identifier: Apache-2.0 */
/* A driver whose functions do nothing but say which they are: 1000 and the number of their row in cuda.def. */
#include "api/cuda_abi.h"

enum {
#define PEN_CU(symbol, family, since, thread, class, types) ROW_##symbol,
#include "api/cuda.def"
};

#define PEN_CU(symbol, family, since, thread, class, types)                                    \
	__attribute__((visibility("default"), weak)) CUresult symbol(void);                    \
	CUresult symbol(void)                                                                  \
	{                                                                                      \
		return 1000 + ROW_##symbol;                                                    \
	}
#include "api/cuda.def"
