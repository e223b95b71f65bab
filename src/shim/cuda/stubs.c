/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exported names: one trampoline for each row of cuda.def, which jumps through its word of pen_cu_to.
 *
 * Why not C functions that forward: they would have to be compiled with every signature, copy arguments on the stack for the long
 * ones, and appear in every stack trace of the driver. A jump costs a nanosecond and is invisible.
 * Before the driver is loaded a word leads to pen_cu_first, which keeps all registers that can hold arguments, asks
 * pen_cu_enter() where to go and goes there. There is no constructor: who never calls CUDA never looks for a driver.
 */
#include "shim/cuda/cu.h"
#include "shim/cuda/table.h"

#include <errno.h>

/* x86-64: r11 is nobody's argument. aarch64: x16 and x17 are the linker's own, for veneers like this one. */
#if defined(__x86_64__)
#define STUB                                                                                             \
	".macro PEN_CU_STUB name\n"                                                                      \
	"	.balign 16\n"                                                                            \
	"	.globl \\name\n"                                                                         \
	"	.type \\name, %function\n"                                                               \
	"\\name:\n"                                                                                      \
	"	.cfi_startproc\n"                                                                        \
	"	endbr64\n"                                                                               \
	"	jmp *(pen_cu_to + 8 * pen_cu_n)(%rip)\n"                                                 \
	"1:	endbr64\n"                                                                               \
	"	movl $pen_cu_n, %r11d\n"                                                                 \
	"	jmp pen_cu_first\n"                                                                      \
	"	.cfi_endproc\n"                                                                          \
	"	.size \\name, . - \\name\n"                                                              \
	"	.pushsection .data.pen_cu_to, \"aw\", %progbits\n"                                       \
	"	.quad 1b\n"                                                                              \
	"	.popsection\n"                                                                           \
	"	.set pen_cu_n, pen_cu_n + 1\n"                                                           \
	".endm\n"
#define FIRST                                                                                            \
	"pen_cu_first:\n"                                                                                \
	"	.cfi_startproc\n"                                                                        \
	"	pushq %rbp\n"                                                                            \
	"	.cfi_def_cfa_offset 16\n"                                                                \
	"	.cfi_offset %rbp, -16\n"                                                                 \
	"	movq %rsp, %rbp\n"                                                                       \
	"	.cfi_def_cfa_register %rbp\n"                                                            \
	"	subq $192, %rsp\n"                                                                       \
	"	movq %rdi, (%rsp)\n"                                                                     \
	"	movq %rsi, 8(%rsp)\n"                                                                    \
	"	movq %rdx, 16(%rsp)\n"                                                                   \
	"	movq %rcx, 24(%rsp)\n"                                                                   \
	"	movq %r8, 32(%rsp)\n"                                                                    \
	"	movq %r9, 40(%rsp)\n"                                                                    \
	"	movq %rax, 48(%rsp)\n"                                                                   \
	"	movq %r10, 56(%rsp)\n"                                                                   \
	"	movaps %xmm0, 64(%rsp)\n"                                                                \
	"	movaps %xmm1, 80(%rsp)\n"                                                                \
	"	movaps %xmm2, 96(%rsp)\n"                                                                \
	"	movaps %xmm3, 112(%rsp)\n"                                                               \
	"	movaps %xmm4, 128(%rsp)\n"                                                               \
	"	movaps %xmm5, 144(%rsp)\n"                                                               \
	"	movaps %xmm6, 160(%rsp)\n"                                                               \
	"	movaps %xmm7, 176(%rsp)\n"                                                               \
	"	movl %r11d, %edi\n"                                                                      \
	"	call pen_cu_enter\n"                                                                     \
	"	movq %rax, %r11\n"                                                                       \
	"	movq (%rsp), %rdi\n"                                                                     \
	"	movq 8(%rsp), %rsi\n"                                                                    \
	"	movq 16(%rsp), %rdx\n"                                                                   \
	"	movq 24(%rsp), %rcx\n"                                                                   \
	"	movq 32(%rsp), %r8\n"                                                                    \
	"	movq 40(%rsp), %r9\n"                                                                    \
	"	movq 48(%rsp), %rax\n"                                                                   \
	"	movq 56(%rsp), %r10\n"                                                                   \
	"	movaps 64(%rsp), %xmm0\n"                                                                \
	"	movaps 80(%rsp), %xmm1\n"                                                                \
	"	movaps 96(%rsp), %xmm2\n"                                                                \
	"	movaps 112(%rsp), %xmm3\n"                                                               \
	"	movaps 128(%rsp), %xmm4\n"                                                               \
	"	movaps 144(%rsp), %xmm5\n"                                                               \
	"	movaps 160(%rsp), %xmm6\n"                                                               \
	"	movaps 176(%rsp), %xmm7\n"                                                               \
	"	leave\n"                                                                                 \
	"	.cfi_def_cfa %rsp, 8\n"                                                                  \
	"	jmp *%r11\n"                                                                             \
	"	.cfi_endproc\n"
#elif defined(__aarch64__)
#define STUB                                                                                             \
	".macro PEN_CU_STUB name\n"                                                                      \
	"	.balign 16\n"                                                                            \
	"	.globl \\name\n"                                                                         \
	"	.type \\name, %function\n"                                                               \
	"\\name:\n"                                                                                      \
	"	.cfi_startproc\n"                                                                        \
	"	hint #34\n" /* bti c */                                                                  \
	"	adrp x16, pen_cu_to + 8 * pen_cu_n\n"                                                    \
	"	ldr x16, [x16, #:lo12:pen_cu_to + 8 * pen_cu_n]\n"                                       \
	"	br x16\n"                                                                                \
	"1:	hint #34\n"                                                                              \
	"	mov w17, #pen_cu_n\n"                                                                    \
	"	b pen_cu_first\n"                                                                        \
	"	.cfi_endproc\n"                                                                          \
	"	.size \\name, . - \\name\n"                                                              \
	"	.pushsection .data.pen_cu_to, \"aw\", %progbits\n"                                       \
	"	.xword 1b\n"                                                                             \
	"	.popsection\n"                                                                           \
	"	.set pen_cu_n, pen_cu_n + 1\n"                                                           \
	".endm\n"
#define FIRST                                                                                            \
	"pen_cu_first:\n"                                                                                \
	"	.cfi_startproc\n"                                                                        \
	"	stp x29, x30, [sp, #-224]!\n"                                                            \
	"	.cfi_def_cfa_offset 224\n"                                                               \
	"	.cfi_offset x29, -224\n"                                                                 \
	"	.cfi_offset x30, -216\n"                                                                 \
	"	mov x29, sp\n"                                                                           \
	"	stp x0, x1, [sp, #16]\n"                                                                 \
	"	stp x2, x3, [sp, #32]\n"                                                                 \
	"	stp x4, x5, [sp, #48]\n"                                                                 \
	"	stp x6, x7, [sp, #64]\n"                                                                 \
	"	str x8, [sp, #80]\n"                                                                     \
	"	stp q0, q1, [sp, #96]\n"                                                                 \
	"	stp q2, q3, [sp, #128]\n"                                                                \
	"	stp q4, q5, [sp, #160]\n"                                                                \
	"	stp q6, q7, [sp, #192]\n"                                                                \
	"	mov w0, w17\n"                                                                           \
	"	bl pen_cu_enter\n"                                                                       \
	"	mov x16, x0\n"                                                                           \
	"	ldp x0, x1, [sp, #16]\n"                                                                 \
	"	ldp x2, x3, [sp, #32]\n"                                                                 \
	"	ldp x4, x5, [sp, #48]\n"                                                                 \
	"	ldp x6, x7, [sp, #64]\n"                                                                 \
	"	ldr x8, [sp, #80]\n"                                                                     \
	"	ldp q0, q1, [sp, #96]\n"                                                                 \
	"	ldp q2, q3, [sp, #128]\n"                                                                \
	"	ldp q4, q5, [sp, #160]\n"                                                                \
	"	ldp q6, q7, [sp, #192]\n"                                                                \
	"	ldp x29, x30, [sp], #224\n"                                                              \
	"	.cfi_restore x29\n"                                                                      \
	"	.cfi_restore x30\n"                                                                      \
	"	.cfi_def_cfa_offset 0\n"                                                                 \
	"	br x16\n"                                                                                \
	"	.cfi_endproc\n"
#else
#define STUB ""
#define FIRST ""
_Static_assert(0, "no trampolines for this architecture");   /* no driver is known there either */
#endif

/* The note says to another copy of us that this file is not the driver (base/driverfile.h). */
#define NOTE                                                                                             \
	"	.pushsection .note.penstock, \"a\", %note\n"                                             \
	"	.balign 4\n"                                                                             \
	"	.long 9, 4, 1\n"                                                                         \
	"	.asciz \"Penstock\"\n"                                                                   \
	"	.balign 4\n"                                                                             \
	"	.long 1\n"                                                                               \
	"	.popsection\n"

__asm__(NOTE
	"	.pushsection .data.pen_cu_to, \"aw\", %progbits\n"
	"	.balign 64\n"
	"	.globl pen_cu_to\n"
	"	.hidden pen_cu_to\n"
	"pen_cu_to:\n"
	"	.popsection\n"
	"	.pushsection .text\n"
	"	.set pen_cu_n, 0\n"
	"	.type pen_cu_first, %function\n"
	FIRST
	"	.size pen_cu_first, . - pen_cu_first\n"
	STUB
	"	.globl pen_cu_stubs_begin, pen_cu_stubs_end\n"
	"	.hidden pen_cu_stubs_begin, pen_cu_stubs_end\n"
	"pen_cu_stubs_begin:\n"
#define PEN_CU(symbol, family, since, thread, class, types) "	PEN_CU_STUB " #symbol "\n"
#include "api/cuda.def"
	"pen_cu_stubs_end:\n"
	"	.popsection\n");

/* Not in code: the address of a hook that is not linked in is NULL, which a reference relative to the code cannot say. */
#define HOOK_PASS(symbol) NULL
#define HOOK_ANY(symbol) (pen_cu_any_fn)pen_##symbol
#define HOOK_RESOLVE(symbol) HOOK_ANY(symbol)
#define HOOK_MEM(symbol) HOOK_ANY(symbol)
#define HOOK_FREE(symbol) HOOK_ANY(symbol)
#define HOOK_LAUNCH(symbol) HOOK_ANY(symbol)
#define HOOK_COPY(symbol) HOOK_ANY(symbol)
#define HOOK_CAPTURE(symbol) HOOK_ANY(symbol)
#define HOOK_STREAM(symbol) HOOK_ANY(symbol)
#define HOOK_CONTEXT(symbol) HOOK_ANY(symbol)
#define HOOK_INFO(symbol) HOOK_ANY(symbol)

const struct pen_cu_row pen_cu_rows[PEN_CU_ROWS] = {
#define PEN_CU(symbol, family, since, thread, class, types) \
	{ #symbol, #family, HOOK_##class(symbol), since, PEN_CU_THREAD_##thread },
#include "api/cuda.def"
};

/* What a name does that the driver beside us lacks. */
CUresult pen_cu_not_found(void)
{
	return CUDA_ERROR_NOT_FOUND;
}

CUresult pen_cu_no_device(void)
{
	return CUDA_ERROR_NO_DEVICE;
}

/* The driver, while it is being loaded, calls a name that is ours. */
static CUresult not_initialized(void)
{
	return CUDA_ERROR_NOT_INITIALIZED;
}

__attribute__((used)) pen_cu_any_fn pen_cu_enter(uint32_t row);   /* called by pen_cu_first */
pen_cu_any_fn pen_cu_enter(uint32_t row)
{
	int saved = errno;
	bool ready = pen_cu_load() != -EBUSY;
	errno = saved;
	return ready ? atomic_load_explicit(&pen_cu_to[row], memory_order_acquire) : (pen_cu_any_fn)not_initialized;
}
