/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_SHIM_CUDA_TABLE_H
#define PEN_SHIM_CUDA_TABLE_H
/*
 * cuda.def as numbers: row i of the list, its trampoline's word, the real entry point and the hook. Between stubs.c, real.c and
 * resolve.c alone.
 */
#include "shim/cuda/cu.h"

typedef void (*pen_cu_any_fn)(void);   /* an entry point of whatever type: gcc casts to and from this one without a word */

enum pen_cu_row_number {
#define PEN_CU(symbol, family, since, thread, class, types) PEN_CU_ROW_##symbol,
#include "api/cuda.def"
	PEN_CU_ROWS,
};

enum { PEN_CU_THREAD_LEGACY, PEN_CU_THREAD_THREAD };

struct pen_cu_row {
	const char *symbol, *family;
	pen_cu_any_fn hook;   /* NULL: handed through */
	uint32_t since;
	uint32_t thread;      /* PEN_CU_THREAD_x */
};
extern const struct pen_cu_row pen_cu_rows[PEN_CU_ROWS];

/* Where each trampoline jumps to. */
extern _Atomic(pen_cu_any_fn) pen_cu_to[PEN_CU_ROWS] __attribute__((visibility("hidden")));
/* The real entry point of a row: NULL where the driver lacks it. */
static inline pen_cu_any_fn pen_cu_real_row(uint32_t row)
{
	return ((const pen_cu_any_fn *)(const void *)&pen_cu_real)[row];
}
_Static_assert(sizeof(struct pen_cu_table) == PEN_CU_ROWS * sizeof(pen_cu_any_fn), "a table of entry points");

/* First and last byte of the trampolines: an address in there is ours. */
extern const char pen_cu_stubs_begin[] __attribute__((visibility("hidden")));
extern const char pen_cu_stubs_end[] __attribute__((visibility("hidden")));

void pen_cu_resolve_prepare(void);              /* resolve.c: once, before any hook can run */
bool pen_cu_driver_has(const char *name);       /* exports a name, in the table or not */
CUresult pen_cu_not_found(void);   /* CUDA_ERROR_NOT_FOUND, for any arguments */
CUresult pen_cu_no_device(void);

#endif
