/* SPDX-License-Identifier: Apache-2.0 */
/* Linked beside the shim under test: where its trampolines lead, told to a test program. */
#include "shim/cuda/table.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT void *peek_to(unsigned row);
EXPORT void *peek_hook(unsigned row);
EXPORT void *peek_real(unsigned row);
EXPORT void *peek_not_found(void);

EXPORT void *peek_to(unsigned row)
{
	return (void *)atomic_load(&pen_cu_to[row]);
}

EXPORT void *peek_hook(unsigned row)
{
	return (void *)pen_cu_rows[row].hook;
}

EXPORT void *peek_real(unsigned row)
{
	return (void *)pen_cu_real_row(row);
}

EXPORT void *peek_not_found(void)
{
	return (void *)pen_cu_not_found;
}
