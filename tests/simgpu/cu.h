/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_TEST_CU_H
#define SIM_TEST_CU_H
/*
 * For programs on the driver interface: every entry point by dlsym, since one program runs on drivers of several versions, and a
 * context on the first device. With PENSTOCK_SIMGPU=null nothing takes time and no kernel computes.
 */
#include "api/cuda_abi.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct cu_table {
#define PEN_CU(symbol, family, since, thread, class, types) CUresult (*symbol) types;
#include "api/cuda.def"
};
static struct cu_table cu;      /* NULL: this driver has no such entry point */
static int cu_version;
static CUdevice cu_device;
static CUcontext cu_context;

#define OK(call) assert_int_equal(cu.call, CUDA_SUCCESS)
#define FAILS(code, call) assert_int_equal(cu.call, code)

__attribute__((unused)) static bool cu_null(void)
{
	return strncmp(getenv("PENSTOCK_SIMGPU"), "null", 4) == 0;
}

/* 77: there is no library to run on. */
static void cu_load(void)
{
	void *lib = dlopen("libcuda.so.1", RTLD_NOW);

	if (!lib) {
		printf("skipped: %s\n", dlerror());
		exit(77);
	}
#define PEN_CU(symbol, family, since, thread, class, types) cu.symbol = (CUresult(*) types)dlsym(lib, #symbol);
#include "api/cuda.def"
	cu.cuDriverGetVersion(&cu_version);
}

__attribute__((unused)) static int cu_setup(void **state)
{
	(void)state;
	OK(cuInit(0));
	OK(cuDeviceGet(&cu_device, 0));
	OK(cuCtxCreate_v2(&cu_context, 0, cu_device));
	return 0;
}

__attribute__((unused)) static int cu_teardown(void **state)
{
	(void)state;
	OK(cuCtxDestroy_v2(cu_context));
	return 0;
}

/* Kernels of the tests: what they compute is built into the device server, and a real device compiles what stands here. */
__attribute__((unused)) static const char cu_ptx[] =
	".version 6.0\n.target sm_50\n.address_size 64\n"
	"// simgpu: vectorAdd block_ns=2000 dram=3072 regs=16\n"
	"// simgpu: spin block_ns=arg0*1000\n"
	"// simgpu: big block_ns=1000 smem=32768 regs=128\n"
	".visible .global .align 4 .b8 table[64];\n"
	".visible .entry vectorAdd(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n)\n"
	"{\n"
	"	.reg .pred %p<2>;\n	.reg .f32 %f<4>;\n	.reg .b32 %r<6>;\n	.reg .b64 %rd<11>;\n"
	"	ld.param.u64 %rd1, [a];\n	ld.param.u64 %rd2, [b];\n	ld.param.u64 %rd3, [c];\n	ld.param.u32 %r2, [n];\n"
	"	mov.u32 %r3, %ctaid.x;\n	mov.u32 %r4, %ntid.x;\n	mov.u32 %r5, %tid.x;\n	mad.lo.s32 %r1, %r3, %r4, %r5;\n"
	"	setp.ge.s32 %p1, %r1, %r2;\n	@%p1 bra done;\n"
	"	cvta.to.global.u64 %rd4, %rd1;\n	mul.wide.s32 %rd5, %r1, 4;\n	add.s64 %rd6, %rd4, %rd5;\n"
	"	cvta.to.global.u64 %rd7, %rd2;\n	add.s64 %rd8, %rd7, %rd5;\n"
	"	ld.global.f32 %f1, [%rd8];\n	ld.global.f32 %f2, [%rd6];\n	add.f32 %f3, %f2, %f1;\n"
	"	cvta.to.global.u64 %rd9, %rd3;\n	add.s64 %rd10, %rd9, %rd5;\n	st.global.f32 [%rd10], %f3;\n"
	"done:\n	ret;\n"
	"}\n"
	".visible .entry spin(.param .u32 us)\n"
	"{\n"
	"	.reg .pred %p<2>;\n	.reg .b32 %r<2>;\n	.reg .b64 %rd<6>;\n"
	"	ld.param.u32 %r1, [us];\n	mul.wide.u32 %rd1, %r1, 1000;\n	mov.u64 %rd2, %globaltimer;\n"
	"again:\n	mov.u64 %rd3, %globaltimer;\n	sub.s64 %rd4, %rd3, %rd2;\n	setp.lt.u64 %p1, %rd4, %rd1;\n	@%p1 bra again;\n	ret;\n"
	"}\n"
	".visible .entry big()\n{\n	ret;\n}\n";

__attribute__((unused)) static CUmodule cu_module(void)
{
	CUmodule m;

	OK(cuModuleLoadData(&m, cu_ptx));
	return m;
}

__attribute__((unused)) static CUfunction cu_function(CUmodule m, const char *name)
{
	CUfunction f;

	OK(cuModuleGetFunction(&f, m, name));
	return f;
}

/*
 * A gate that streams wait at, so that what a test measures in device time does not hang on how fast the host was to submit it:
 * hold the streams, give them their work, open.
 */
static CUdeviceptr cu_gate_word;
static uint32_t cu_gate_turn;

__attribute__((unused)) static void cu_hold(CUstream s)
{
	void *p;

	if (!cu_gate_word) {
		OK(cuMemHostAlloc(&p, 4096, CU_MEMHOSTALLOC_DEVICEMAP));
		OK(cuMemHostGetDevicePointer_v2(&cu_gate_word, p, 0));
	}
	OK(cuStreamWaitValue32(s, cu_gate_word, cu_gate_turn + 1, CU_STREAM_WAIT_VALUE_GEQ));
}

__attribute__((unused)) static void cu_open(void)
{
	__atomic_store_n((uint32_t *)(uintptr_t)cu_gate_word, ++cu_gate_turn, __ATOMIC_SEQ_CST);
}

__attribute__((unused)) static size_t cu_free_bytes(void)
{
	size_t f, t;

	OK(cuMemGetInfo_v2(&f, &t));
	return f;
}

#endif
