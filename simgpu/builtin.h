/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_BUILTIN_H
#define SIM_BUILTIN_H
/*
 * Kernels that really compute. Parameters lie packed as CUDA packs them: each at its natural alignment. Threads are numbered through
 * the grid, thread i works on element i and there is none beyond n.
 * X(id, name, parameters)
 */
#define SIM_BUILTINS(X) \
	X(VECTOR_ADD, "vectorAdd", "const float *a, const float *b, float *c, int n: c = a + b") \
	X(SAXPY, "saxpy", "int n, float a, float *x, float *y: y = a x + y") \
	X(SGEMM, "sgemm", "const float *a, const float *b, float *c, int m, int n, int k: c = a b, row-major, a thread an element of c") \
	X(REDUCE, "reduce", "const float *in, float *out, int n: *out = sum; the grid need not cover n") \
	X(FILL32, "fill32", "uint32_t *p, uint32_t value, uint32_t n") \
	X(IOTA, "iota", "uint32_t *p, uint32_t first, uint32_t n: p[i] = first + i") \
	X(INCREMENT, "increment", "uint32_t *p, uint32_t n: p[i] += 1") \
	X(SCALE, "scale", "float *p, float a, int n: p = a p") \
	X(COPY32, "copy32", "uint32_t *to, const uint32_t *from, uint32_t n") \
	X(TRIAD, "triad", "float *a, const float *b, const float *c, float s, int n: a = b + s c")

enum sim_builtin {
	SIM_BUILTIN_NONE,
#define X(id, name, what) SIM_BUILTIN_##id,
	SIM_BUILTINS(X)
#undef X
	SIM_BUILTIN_MAX_,
};

#endif
