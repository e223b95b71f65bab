/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TEST_CUDA_ABI_H
#define PEN_TEST_CUDA_ABI_H
/* What the two translation units of test_cuda_abi compile from one list: each under its own headers, which cannot be in one. */
#include <stddef.h>

struct abi_line {
	const char *what;
	long long value;
};

#define SIZE(type) { "size of " #type, (long long)sizeof(type) },
#define OFFSET(type, field) { "offset of " #field " in " #type, (long long)offsetof(type, field) },
#define VALUE(name) { #name, (long long)(name) },
#define MISSING(pointer) { "NVIDIA has no " #pointer, 0 },
#define EXTRA(pointer) { "the list has no " #pointer, 0 },

extern const struct abi_line abi_nvidia[];
extern const size_t abi_nvidia_lines;

#endif
