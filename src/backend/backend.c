/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/backend.h"

static const struct pen_backend *const backends[] = {
	&pen_backend_nvml,     /* first: of a card that both name it knows more */
	&pen_backend_opencl,
};

const struct pen_backend *pen_backend_get(size_t i)
{
	return i < sizeof(backends) / sizeof(backends[0]) ? backends[i] : NULL;
}
