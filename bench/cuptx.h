/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BENCH_CUPTX_H
#define PEN_BENCH_CUPTX_H
/*
 * Kernels of the CUDA benchmarks, as PTX: the driver of a GPU compiles them, the simulated accelerator reads the entries and the
 * lines that begin with "// simgpu:". A unit of 256 threads is one block.
 *
 *   empty()                       nothing
 *   spin(u64 ns, u64 count)       each block takes @ns by the GPU's own clock; adds one to the u32 at @count for the launch
 *   vectorAdd(a, b, c, u32 n)     c = a + b of floats: 12 bytes of memory an element, so it is the bandwidth kernel too
 *   stream(a, b, c, u32 n)        the same, of which the simulated accelerator keeps the time alone: its host need not add
 *   gemm(a, b, c, u32 n)          c = a x b of n x n floats, one element a thread, n a multiple of 256
 */
extern const char cu_ptx[];

#define CU_BLOCK 256   /* threads */
#endif
