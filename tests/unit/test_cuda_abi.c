/* SPDX-License-Identifier: Apache-2.0 */
/*
 * src/api/cuda_abi.h and cuda.def against NVIDIA's own headers, where a toolkit of CUDA 13 is installed: every size, offset and value, and
 * every row's signature. The list of what to compare is made from our two files (cuda_abi_list.py).
 */
#include <stdio.h>

#ifndef HAVE_CUDA_H
int main(void)
{
	printf("skipped: no cuda.h of 13.0 or later in /usr/local/cuda/include or $CUDA_HOME\n");
	return 77;
}
#else
#include "api/cuda_abi.h"
#include "cuda_abi.h"

#include <stdbool.h>
#include <string.h>

#define ROW(pointer, types) { "signature of " #pointer, 1 },

static const struct abi_line ours[] = {
#include "cuda_abi_list.h"
};

int main(void)
{
	size_t n = sizeof(ours) / sizeof(*ours), bad = n != abi_nvidia_lines;

	for (size_t i = 0; i < n && n == abi_nvidia_lines; i++) {
		bool absent = strncmp(ours[i].what, "NVIDIA has no ", 14) == 0 || strncmp(ours[i].what, "the list has no ", 16) == 0;

		if (!absent && ours[i].value == abi_nvidia[i].value)
			continue;
		printf("%s: %lld here, %lld there\n", ours[i].what, ours[i].value, abi_nvidia[i].value);
		bad++;
	}
	printf("%zu compared\n", n);
	return bad || n < 1000;
}
#endif
