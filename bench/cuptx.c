/* SPDX-License-Identifier: Apache-2.0 */
#include "cuptx.h"

#define ADD(name) \
	".visible .entry " name "(\n" \
	"	.param .u64 add_a,\n" \
	"	.param .u64 add_b,\n" \
	"	.param .u64 add_c,\n" \
	"	.param .u32 add_n\n" \
	")\n" \
	"{\n" \
	"	.reg .pred %p<2>;\n" \
	"	.reg .b32 %r<6>;\n" \
	"	.reg .f32 %f<4>;\n" \
	"	.reg .b64 %d<8>;\n" \
	"	ld.param.u64 %d1, [add_a];\n" \
	"	ld.param.u64 %d2, [add_b];\n" \
	"	ld.param.u64 %d3, [add_c];\n" \
	"	ld.param.u32 %r1, [add_n];\n" \
	"	mov.u32 %r2, %ctaid.x;\n" \
	"	mov.u32 %r3, %ntid.x;\n" \
	"	mov.u32 %r4, %tid.x;\n" \
	"	mad.lo.u32 %r5, %r2, %r3, %r4;\n" \
	"	setp.ge.u32 %p1, %r5, %r1;\n" \
	"	@%p1 bra end_add;\n" \
	"	mul.wide.u32 %d4, %r5, 4;\n" \
	"	cvta.to.global.u64 %d1, %d1;\n" \
	"	cvta.to.global.u64 %d2, %d2;\n" \
	"	cvta.to.global.u64 %d3, %d3;\n" \
	"	add.s64 %d5, %d1, %d4;\n" \
	"	add.s64 %d6, %d2, %d4;\n" \
	"	add.s64 %d7, %d3, %d4;\n" \
	"	ld.global.f32 %f1, [%d5];\n" \
	"	ld.global.f32 %f2, [%d6];\n" \
	"	add.f32 %f3, %f1, %f2;\n" \
	"	st.global.f32 [%d7], %f3;\n" \
	"end_add:\n" \
	"	ret;\n" \
	"}\n"

/*
 * ISA 6.3 and sm_50: what drivers from 2018 on compile for whatever card they have. Costs on the simulated accelerator: a block of
 * vectorAdd moves 256 x 12 bytes and is bound by that; one of gemm does n multiply-adds in each thread, about 1 ns for each k.
 */
const char cu_ptx[] =
	".version 6.3\n"
	".target sm_50\n"
	".address_size 64\n"
	"// simgpu: empty block_ns=1000\n"
	"// simgpu: spin block_ns=arg0*1\n"
	"// simgpu: vectorAdd block_ns=1200 dram=3072 compute=vectorAdd\n"
	"// simgpu: stream block_ns=1200 dram=3072\n"
	"// simgpu: gemm block_ns=50000 dram=65536\n"
	".visible .entry empty()\n"
	"{\n"
	"	ret;\n"
	"}\n"
	".visible .entry spin(\n"
	"	.param .u64 spin_ns,\n"
	"	.param .u64 spin_count\n"
	")\n"
	"{\n"
	"	.reg .pred %p<3>;\n"
	"	.reg .b32 %r<4>;\n"
	"	.reg .b64 %d<7>;\n"
	"	ld.param.u64 %d1, [spin_ns];\n"
	"	ld.param.u64 %d2, [spin_count];\n"
	"	mov.u64 %d3, %globaltimer;\n"
	"	add.s64 %d4, %d3, %d1;\n"
	"again:\n"
	"	mov.u64 %d5, %globaltimer;\n"
	"	setp.lt.u64 %p1, %d5, %d4;\n"
	"	@%p1 bra again;\n"
	"	mov.u32 %r1, %ctaid.x;\n"
	"	mov.u32 %r2, %tid.x;\n"
	"	or.b32 %r3, %r1, %r2;\n"
	"	setp.ne.s32 %p2, %r3, 0;\n"
	"	@%p2 bra done;\n"
	"	cvta.to.global.u64 %d6, %d2;\n"
	"	red.global.add.u32 [%d6], 1;\n"
	"done:\n"
	"	ret;\n"
	"}\n"
	ADD("vectorAdd")
	ADD("stream")
	".visible .entry gemm(\n"
	"	.param .u64 gemm_a,\n"
	"	.param .u64 gemm_b,\n"
	"	.param .u64 gemm_c,\n"
	"	.param .u32 gemm_n\n"
	")\n"
	"{\n"
	"	.reg .pred %p<2>;\n"
	"	.reg .b32 %r<12>;\n"
	"	.reg .f32 %f<4>;\n"
	"	.reg .b64 %d<10>;\n"
	"	ld.param.u64 %d1, [gemm_a];\n"
	"	ld.param.u64 %d2, [gemm_b];\n"
	"	ld.param.u64 %d3, [gemm_c];\n"
	"	ld.param.u32 %r1, [gemm_n];\n"
	"	cvta.to.global.u64 %d1, %d1;\n"
	"	cvta.to.global.u64 %d2, %d2;\n"
	"	cvta.to.global.u64 %d3, %d3;\n"
	"	mov.u32 %r2, %ctaid.x;\n"
	"	mov.u32 %r3, %ntid.x;\n"
	"	mov.u32 %r4, %tid.x;\n"
	"	mad.lo.u32 %r5, %r2, %r3, %r4;\n"   /* element */
	"	div.u32 %r6, %r5, %r1;\n"           /* row */
	"	mul.lo.u32 %r7, %r6, %r1;\n"
	"	sub.u32 %r8, %r5, %r7;\n"           /* column */
	"	mul.wide.u32 %d4, %r7, 4;\n"
	"	add.s64 %d4, %d1, %d4;\n"           /* &a[row][0] */
	"	mul.wide.u32 %d5, %r8, 4;\n"
	"	add.s64 %d5, %d2, %d5;\n"           /* &b[0][column] */
	"	mul.wide.u32 %d6, %r1, 4;\n"
	"	mov.f32 %f1, 0f00000000;\n"
	"	mov.u32 %r9, 0;\n"
	"next:\n"
	"	ld.global.f32 %f2, [%d4];\n"
	"	ld.global.f32 %f3, [%d5];\n"
	"	fma.rn.f32 %f1, %f2, %f3, %f1;\n"
	"	add.s64 %d4, %d4, 4;\n"
	"	add.s64 %d5, %d5, %d6;\n"
	"	add.u32 %r9, %r9, 1;\n"
	"	setp.lt.u32 %p1, %r9, %r1;\n"
	"	@%p1 bra next;\n"
	"	mul.wide.u32 %d7, %r5, 4;\n"
	"	add.s64 %d7, %d3, %d7;\n"
	"	st.global.f32 [%d7], %f1;\n"
	"	ret;\n"
	"}\n";
