/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exported names, one for each row of nvml.def: they hand their arguments on as they came, in registers. The list has types and no
 * names of arguments, and needs none: NVML takes integers and pointers only, at most as many as both calling conventions have
 * registers for, and a function that takes fewer does not look at the rest.
 */
#include "shim/nvml/nv.h"

_Static_assert(sizeof(uintptr_t) == 8, "registers of 64 bits");

_Atomic(pen_nv_raw_fn) pen_nv_to[PEN_NV_ROWS];

/* The note by which another copy of us knows that this file is not the driver's (base/driverfile.h). */
__asm__("	.pushsection .note.penstock, \"a\", %note\n"
	"	.balign 4\n"
	"	.long 9, 4, 1\n"
	"	.asciz \"Penstock\"\n"
	"	.balign 4\n"
	"	.long 1\n"
	"	.popsection\n");

/* Counts the arguments of a row; (void) counts as one. */
#define COUNT_(a, b, c, d, e, f, g, n, ...) n
#define COUNT(...) COUNT_(__VA_ARGS__, 7, 6, 5, 4, 3, 2, 1)
#define PEN_NV(symbol, since, class, types) _Static_assert(COUNT types <= 6, #symbol);
#include "api/nvml.def"

#define PARAMS (uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d, uintptr_t e, uintptr_t f)

#define PEN_NV(symbol, since, class, types)                                                          \
	__attribute__((visibility("default"))) uintptr_t symbol PARAMS;                              \
	uintptr_t symbol PARAMS                                                                      \
	{                                                                                            \
		pen_nv_raw_fn to = atomic_load_explicit(&pen_nv_to[PEN_NV_ROW_##symbol], memory_order_acquire); \
		if (!to)                                                                             \
			to = pen_nv_enter(PEN_NV_ROW_##symbol);                                      \
		return to(a, b, c, d, e, f);                                                         \
	}
#include "api/nvml.def"

bool pen_nv_is_ours(const void *address)
{
	static const pen_nv_raw_fn names[] = {
#define PEN_NV(symbol, since, class, types) symbol,
#include "api/nvml.def"
	};
	for (uint32_t i = 0; i < PEN_NV_ROWS; i++)
		if ((const void *)(uintptr_t)names[i] == address)
			return true;
	return false;
}
