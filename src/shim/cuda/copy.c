/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies and fills: through the gate with their bytes, in the caller's thread. The list below has one row for each shape of call,
 * and the forms of it that the driver has; a form is a structure of the arguments, the native call and the wrapper.
 *
 * Plain runs of bytes may be cut: the gate asks for pieces only while another tenant is on the device, or where a rate is
 * to be kept. A piece is the same call with other addresses, so what arrives is the same to the bit.
 */
#include "shim/cuda/gating.h"

#include <string.h>

/* 1 MiB is 42 us at 25 GB/s: a copy of somebody urgent waits for one or two of these. */
#define PIECE_BYTES UINT64_C(1048576)
/* Up to here a copy that need not be counted piece by piece may go on the queue's credit. */
#define SMALL_BYTES UINT64_C(65536)

enum way { H2D, D2H, D2D, PEER, FILL, MOVED, ANY, WAYS };   /* MOVED: managed memory; ANY: by address, the driver finds out */
_Static_assert(WAYS <= 8, "pen_cu_gating.copy");

/* Bytes in a microsecond, before anything was measured. */
static const uint32_t speed[WAYS] = { [H2D] = 12000, [D2H] = 12000, [D2D] = 200000, [PEER] = 10000, [FILL] = 300000,
				      [MOVED] = 6000, [ANY] = 12000 };

/* ---- cost and submission ------------------------------------------------------------------------------------------ */

static struct pen_cost *cost_of(struct pen_cu_stream *s, enum way way, bool blocking, uint64_t bytes)
{
	struct pen_cu_gating *g = pen_cu_gating(s->ctx->device);
	unsigned power = bytes ? 63 - (unsigned)__builtin_clzll(bytes) : 0;
	/* A call that waits is timed by the host, with all that it does: another kind of command. */
	struct pen_cost *_Atomic *known = g && !blocking ? &g->copy[way][power] : NULL;
	struct pen_cost *c = known ? atomic_load_explicit(known, memory_order_acquire) : NULL;
	if (c)
		return c;
	uint64_t size = UINT64_C(1) << power, guess = PEN_COST_FLOOR_NS + size / speed[way] * 1000;
	c = pen_gate_cost_guessed(s->gate, pen_cu_mix(way, blocking ? 2 : 1), size, guess);
	if (known)
		atomic_store_explicit(known, c, memory_order_release);
	return c;
}

struct copy {
	struct pen_cu_cmd cmd;
	const void *args;
	uint64_t unit, units;        /* bytes of an element that is not cut, number of them; 0: cannot be cut */
};

static CUresult submit(struct copy *c, struct pen_cu_stream *s, enum way way, uint64_t bytes)
{
	struct pen_cost *cost = cost_of(s, way, c->cmd.blocking, bytes);
	c->cmd.stream = s;
	if (!c->cmd.blocking && bytes <= SMALL_BYTES && !atomic_load_explicit(&pen_cu_captures, memory_order_relaxed) &&
	    !atomic_load_explicit(&s->wall, memory_order_relaxed) && pen_gate_fast(s->queue, pen_cost_est_ns(cost))) {
		pen_gate_count_bytes(s->queue, bytes);
		pen_cu_stream_used(s);
		pen_cu_thread.depth++;
		CUresult r = c->cmd.run(&c->cmd, NULL);
		pen_cu_thread.depth--;
		return r;
	}
	struct pen_gate_cmd g = { .kind = way == FILL ? PEN_CMD_FILL : PEN_CMD_COPY, .cost = cost, .bytes = bytes };
	uint64_t slices = c->unit ? (bytes + PIECE_BYTES - 1) / PIECE_BYTES : 1;
	if (slices > 1 && slices <= UINT32_MAX) {
		g.slices = (uint32_t)slices;
		g.wave = 1;
	}
	return pen_cu_submit(&c->cmd, &g);
}

/* Elements [*ret_at, *ret_at + *ret_n) of a piece; false: the whole, as the application wrote it. */
static bool piece_of(const struct copy *c, const struct pen_piece *p, uint64_t *ret_at, uint64_t *ret_n)
{
	if (!p || p->whole)
		return false;
	uint64_t step = PIECE_BYTES / c->unit;
	*ret_at = p->first * step;
	*ret_n = p->last ? c->units - *ret_at : p->count * step;
	return true;
}

/* ---- what a call says of itself ------------------------------------------------------------------------------------ */

/* Is it memory of the host's, which a synchronous call waits for? What the driver has not seen is. */
static bool is_host(CUdeviceptr p)
{
	unsigned int type = 0;
	CUstreamCaptureMode mode = pen_cu_relax();
	CUresult r = REAL(cuPointerGetAttribute)(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p);
	pen_cu_unrelax(mode);
	return r != CUDA_SUCCESS || type == CU_MEMORYTYPE_HOST;
}

static bool either_host(CUdeviceptr a, CUdeviceptr b)
{
	return is_host(a) || is_host(b);
}

static bool end_is_host(CUmemorytype type, CUdeviceptr p)
{
	return type == CU_MEMORYTYPE_HOST || (type == CU_MEMORYTYPE_UNIFIED && is_host(p));
}

#define ENDS_HOST(c) ((c) && (end_is_host((c)->srcMemoryType, (c)->srcDevice) || end_is_host((c)->dstMemoryType, (c)->dstDevice)))
#define BYTES_2D(c) ((c) ? (uint64_t)(c)->WidthInBytes * (c)->Height : 0)
#define BYTES_3D(c) ((c) ? (uint64_t)(c)->WidthInBytes * (c)->Height * (c)->Depth : 0)

static enum way way_of(CUmemorytype src, CUmemorytype dst)
{
	if (src == CU_MEMORYTYPE_UNIFIED || dst == CU_MEMORYTYPE_UNIFIED)
		return ANY;
	return src == CU_MEMORYTYPE_HOST ? H2D : dst == CU_MEMORYTYPE_HOST ? D2H : D2D;
}
#define WAY(c) ((c) ? way_of((c)->srcMemoryType, (c)->dstMemoryType) : ANY)

static uint64_t sum(const size_t *sizes, size_t n)
{
	uint64_t all = 0;
	for (size_t i = 0; sizes && i < n; i++)
		all += sizes[i];
	return all;
}

static uint64_t sum_3d(const CUDA_MEMCPY3D_BATCH_OP_v1 *ops, size_t n)
{
	uint64_t all = 0;
	for (size_t i = 0; ops && i < n; i++)
		all += (uint64_t)ops[i].extent.width * PEN_MAX(ops[i].extent.height, (size_t)1) * PEN_MAX(ops[i].extent.depth, (size_t)1);
	return all;
}

/* ---- the forms ---------------------------------------------------------------------------------------------------- */

#define FIELD(type, name) type name;
#define PARAMETER(type, name) type name
#define TAKE(type, name) .name = name
#define GIVE(type, name) a->name
#define NOTHING()
#define COMMA() ,

/* Pieces: what is moved on by how many elements. CUT_x(elements from the start, elements). */
#define CUT_NO(at, n)
#define CUT_COPY(at, n)                                                                                                   \
	b.dst = (__typeof__(b.dst))((uintptr_t)b.dst + (uintptr_t)(at));                                                  \
	b.src = (__typeof__(b.src))((uintptr_t)b.src + (uintptr_t)(at));                                                  \
	b.size = (__typeof__(b.size))(n);
#define CUT_FILL(at, n)                                                                                                   \
	b.dst = (__typeof__(b.dst))((uintptr_t)b.dst + (uintptr_t)(at) * (uintptr_t)c->unit);                             \
	b.size = (__typeof__(b.size))(n);
#define UNITS_CUT_NO(a) 0
#define UNITS_CUT_COPY(a) (a)->size
#define UNITS_CUT_FILL(a) (a)->size

/*
 * FORM(symbol, thread, arguments, stream, way, bytes, blocks, unit, cut)
 *   stream  field of the arguments, or NULL: the default one. blocks: the call returns when it is done
 *   unit    bytes of an element. cut: how to make a piece of it, or NO
 */
#define FORM(symbol, thread, ARGS, stream_, way_, bytes_, blocks_, unit_, CUT)                                            \
	struct args_##symbol { ARGS(FIELD, NOTHING) };                                                                    \
	static CUresult run_##symbol(struct pen_cu_cmd *cmd, const struct pen_piece *p)                                   \
	{                                                                                                                 \
		const struct copy *c = (const struct copy *)(const void *)cmd;                                            \
		const struct args_##symbol *a = c->args;                                                                  \
		struct args_##symbol b;                                                                                   \
		uint64_t at, n;                                                                                           \
		if (piece_of(c, p, &at, &n)) {                                                                            \
			b = *a;                                                                                           \
			CUT(at, n)                                                                                        \
			a = &b;                                                                                           \
		}                                                                                                         \
		return REAL(symbol)(ARGS(GIVE, COMMA));                                                                   \
	}                                                                                                                 \
	CUresult pen_##symbol(ARGS(PARAMETER, COMMA))                                                                     \
	{                                                                                                                 \
		const struct args_##symbol packed = { ARGS(TAKE, COMMA) }, *a = &packed;                                  \
		struct pen_cu_stream *s = pen_cu_thread.depth ? NULL : pen_cu_stream(stream_, thread);                    \
		struct copy c = { .cmd = { .run = run_##symbol, .blocking = s && (blocks_) }, .args = a };                \
		if (!s)                                                                                                   \
			return run_##symbol(&c.cmd, NULL);                                                                \
		c.units = UNITS_##CUT(a);                                                                                 \
		c.unit = c.units ? (unit_) : 0;                                                                           \
		return submit(&c, s, way_, bytes_);                                                                       \
	}

/* All forms of a call that take the same arguments, or those of CUDA 2.0 with 32 bits. */
#define SYNC3(name, ARGS, ARGS_V1, way, bytes, blocks, unit, CUT)                                                         \
	FORM(name, false, ARGS_V1, NULL, way, bytes, blocks, unit, CUT)                                                   \
	FORM(name##_v2, false, ARGS, NULL, way, bytes, blocks, unit, CUT)                                                 \
	FORM(name##_v2_ptds, true, ARGS, NULL, way, bytes, blocks, unit, CUT)
#define SYNC2(name, ARGS, way, bytes, blocks, unit, CUT)                                                                  \
	FORM(name, false, ARGS, NULL, way, bytes, blocks, unit, CUT)                                                      \
	FORM(name##_ptds, true, ARGS, NULL, way, bytes, blocks, unit, CUT)
#define ASYNC3(name, ARGS, ARGS_V1, way, bytes, unit, CUT)                                                                \
	FORM(name, false, ARGS_V1, a->stream, way, bytes, false, unit, CUT)                                               \
	FORM(name##_v2, false, ARGS, a->stream, way, bytes, false, unit, CUT)                                             \
	FORM(name##_v2_ptsz, true, ARGS, a->stream, way, bytes, false, unit, CUT)
#define ASYNC2(name, ARGS, way, bytes, unit, CUT)                                                                         \
	FORM(name, false, ARGS, a->stream, way, bytes, false, unit, CUT)                                                  \
	FORM(name##_ptsz, true, ARGS, a->stream, way, bytes, false, unit, CUT)

#define A_ANY(F, S) F(CUdeviceptr, dst) S() F(CUdeviceptr, src) S() F(size_t, size)
#define A_H2D(F, S) F(CUdeviceptr, dst) S() F(const void *, src) S() F(size_t, size)
#define A_D2H(F, S) F(void *, dst) S() F(CUdeviceptr, src) S() F(size_t, size)
#define A_H2D_V1(F, S) F(CUdeviceptr_v1, dst) S() F(const void *, src) S() F(unsigned int, size)
#define A_D2H_V1(F, S) F(void *, dst) S() F(CUdeviceptr_v1, src) S() F(unsigned int, size)
#define A_D2D_V1(F, S) F(CUdeviceptr_v1, dst) S() F(CUdeviceptr_v1, src) S() F(unsigned int, size)
#define A_PEER(F, S) F(CUdeviceptr, dst) S() F(CUcontext, to) S() F(CUdeviceptr, src) S() F(CUcontext, from) S() F(size_t, size)
#define A_D2A(F, S) F(CUarray, dst) S() F(size_t, offset) S() F(CUdeviceptr, src) S() F(size_t, size)
#define A_A2D(F, S) F(CUdeviceptr, dst) S() F(CUarray, src) S() F(size_t, offset) S() F(size_t, size)
#define A_H2A(F, S) F(CUarray, dst) S() F(size_t, offset) S() F(const void *, src) S() F(size_t, size)
#define A_A2H(F, S) F(void *, dst) S() F(CUarray, src) S() F(size_t, offset) S() F(size_t, size)
#define A_A2A(F, S) F(CUarray, dst) S() F(size_t, to) S() F(CUarray, src) S() F(size_t, from) S() F(size_t, size)
#define A_D2A_V1(F, S) F(CUarray, dst) S() F(unsigned int, offset) S() F(CUdeviceptr_v1, src) S() F(unsigned int, size)
#define A_A2D_V1(F, S) F(CUdeviceptr_v1, dst) S() F(CUarray, src) S() F(unsigned int, offset) S() F(unsigned int, size)
#define A_H2A_V1(F, S) F(CUarray, dst) S() F(unsigned int, offset) S() F(const void *, src) S() F(unsigned int, size)
#define A_A2H_V1(F, S) F(void *, dst) S() F(CUarray, src) S() F(unsigned int, offset) S() F(unsigned int, size)
#define A_A2A_V1(F, S) F(CUarray, dst) S() F(unsigned int, to) S() F(CUarray, src) S() F(unsigned int, from) S() F(unsigned int, size)
#define A_2D(F, S) F(const CUDA_MEMCPY2D_v2 *, how)
#define A_2D_V1(F, S) F(const CUDA_MEMCPY2D_v1 *, how)
#define A_3D(F, S) F(const CUDA_MEMCPY3D_v2 *, how)
#define A_3D_V1(F, S) F(const CUDA_MEMCPY3D_v1 *, how)
#define A_3D_PEER(F, S) F(const CUDA_MEMCPY3D_PEER_v1 *, how)
#define A_STREAM(F, S) S() F(CUstream, stream)
#define A_ANY_S(F, S) A_ANY(F, S) A_STREAM(F, S)
#define A_H2D_S(F, S) A_H2D(F, S) A_STREAM(F, S)
#define A_D2H_S(F, S) A_D2H(F, S) A_STREAM(F, S)
#define A_H2D_V1_S(F, S) A_H2D_V1(F, S) A_STREAM(F, S)
#define A_D2H_V1_S(F, S) A_D2H_V1(F, S) A_STREAM(F, S)
#define A_D2D_V1_S(F, S) A_D2D_V1(F, S) A_STREAM(F, S)
#define A_PEER_S(F, S) A_PEER(F, S) A_STREAM(F, S)
#define A_H2A_S(F, S) A_H2A(F, S) A_STREAM(F, S)
#define A_A2H_S(F, S) A_A2H(F, S) A_STREAM(F, S)
#define A_H2A_V1_S(F, S) A_H2A_V1(F, S) A_STREAM(F, S)
#define A_A2H_V1_S(F, S) A_A2H_V1(F, S) A_STREAM(F, S)
#define A_2D_S(F, S) A_2D(F, S) A_STREAM(F, S)
#define A_2D_V1_S(F, S) A_2D_V1(F, S) A_STREAM(F, S)
#define A_3D_S(F, S) A_3D(F, S) A_STREAM(F, S)
#define A_3D_V1_S(F, S) A_3D_V1(F, S) A_STREAM(F, S)
#define A_3D_PEER_S(F, S) A_3D_PEER(F, S) A_STREAM(F, S)

SYNC2(cuMemcpy, A_ANY, ANY, a->size, either_host(a->dst, a->src), 1, CUT_COPY)
SYNC2(cuMemcpyPeer, A_PEER, PEER, a->size, false, 1, CUT_COPY)
SYNC3(cuMemcpyHtoD, A_H2D, A_H2D_V1, H2D, a->size, true, 1, CUT_COPY)
SYNC3(cuMemcpyDtoH, A_D2H, A_D2H_V1, D2H, a->size, true, 1, CUT_COPY)
SYNC3(cuMemcpyDtoD, A_ANY, A_D2D_V1, D2D, a->size, false, 1, CUT_COPY)
SYNC3(cuMemcpyDtoA, A_D2A, A_D2A_V1, D2D, a->size, false, 1, CUT_NO)
SYNC3(cuMemcpyAtoD, A_A2D, A_A2D_V1, D2D, a->size, false, 1, CUT_NO)
SYNC3(cuMemcpyHtoA, A_H2A, A_H2A_V1, H2D, a->size, true, 1, CUT_NO)
SYNC3(cuMemcpyAtoH, A_A2H, A_A2H_V1, D2H, a->size, true, 1, CUT_NO)
SYNC3(cuMemcpyAtoA, A_A2A, A_A2A_V1, D2D, a->size, false, 1, CUT_NO)
SYNC3(cuMemcpy2D, A_2D, A_2D_V1, WAY(a->how), BYTES_2D(a->how), ENDS_HOST(a->how), 1, CUT_NO)
SYNC3(cuMemcpy2DUnaligned, A_2D, A_2D_V1, WAY(a->how), BYTES_2D(a->how), ENDS_HOST(a->how), 1, CUT_NO)
SYNC3(cuMemcpy3D, A_3D, A_3D_V1, WAY(a->how), BYTES_3D(a->how), ENDS_HOST(a->how), 1, CUT_NO)
SYNC2(cuMemcpy3DPeer, A_3D_PEER, PEER, BYTES_3D(a->how), ENDS_HOST(a->how), 1, CUT_NO)

ASYNC2(cuMemcpyAsync, A_ANY_S, ANY, a->size, 1, CUT_COPY)
ASYNC2(cuMemcpyPeerAsync, A_PEER_S, PEER, a->size, 1, CUT_COPY)
ASYNC3(cuMemcpyHtoDAsync, A_H2D_S, A_H2D_V1_S, H2D, a->size, 1, CUT_COPY)
ASYNC3(cuMemcpyDtoHAsync, A_D2H_S, A_D2H_V1_S, D2H, a->size, 1, CUT_COPY)
ASYNC3(cuMemcpyDtoDAsync, A_ANY_S, A_D2D_V1_S, D2D, a->size, 1, CUT_COPY)
ASYNC3(cuMemcpyHtoAAsync, A_H2A_S, A_H2A_V1_S, H2D, a->size, 1, CUT_NO)
ASYNC3(cuMemcpyAtoHAsync, A_A2H_S, A_A2H_V1_S, D2H, a->size, 1, CUT_NO)
ASYNC3(cuMemcpy2DAsync, A_2D_S, A_2D_V1_S, WAY(a->how), BYTES_2D(a->how), 1, CUT_NO)
ASYNC3(cuMemcpy3DAsync, A_3D_S, A_3D_V1_S, WAY(a->how), BYTES_3D(a->how), 1, CUT_NO)
ASYNC2(cuMemcpy3DPeerAsync, A_3D_PEER_S, PEER, BYTES_3D(a->how), 1, CUT_NO)

/* ---- fills: asynchronous to the host, but for host memory that is pinned ------------------------------------------- */

#define A_FILL(type, F, S) F(CUdeviceptr, dst) S() F(type, value) S() F(size_t, size)
#define A_FILL_V1(type, F, S) F(CUdeviceptr_v1, dst) S() F(type, value) S() F(unsigned int, size)
#define A_RECT(type, F, S) F(CUdeviceptr, dst) S() F(size_t, pitch) S() F(type, value) S() F(size_t, width) S() F(size_t, height)
#define A_RECT_V1(type, F, S)                                                                                             \
	F(CUdeviceptr_v1, dst) S() F(unsigned int, pitch) S() F(type, value) S() F(unsigned int, width) S() F(unsigned int, height)
#define A_FILL8(F, S) A_FILL(unsigned char, F, S)
#define A_FILL16(F, S) A_FILL(unsigned short, F, S)
#define A_FILL32(F, S) A_FILL(unsigned int, F, S)
#define A_FILL8_V1(F, S) A_FILL_V1(unsigned char, F, S)
#define A_FILL16_V1(F, S) A_FILL_V1(unsigned short, F, S)
#define A_FILL32_V1(F, S) A_FILL_V1(unsigned int, F, S)
#define A_RECT8(F, S) A_RECT(unsigned char, F, S)
#define A_RECT16(F, S) A_RECT(unsigned short, F, S)
#define A_RECT32(F, S) A_RECT(unsigned int, F, S)
#define A_RECT8_V1(F, S) A_RECT_V1(unsigned char, F, S)
#define A_RECT16_V1(F, S) A_RECT_V1(unsigned short, F, S)
#define A_RECT32_V1(F, S) A_RECT_V1(unsigned int, F, S)
#define A_FILL8_S(F, S) A_FILL8(F, S) A_STREAM(F, S)
#define A_FILL16_S(F, S) A_FILL16(F, S) A_STREAM(F, S)
#define A_FILL32_S(F, S) A_FILL32(F, S) A_STREAM(F, S)
#define A_RECT8_S(F, S) A_RECT8(F, S) A_STREAM(F, S)
#define A_RECT16_S(F, S) A_RECT16(F, S) A_STREAM(F, S)
#define A_RECT32_S(F, S) A_RECT32(F, S) A_STREAM(F, S)

SYNC3(cuMemsetD8, A_FILL8, A_FILL8_V1, FILL, a->size, false, 1, CUT_FILL)
SYNC3(cuMemsetD16, A_FILL16, A_FILL16_V1, FILL, (uint64_t)a->size * 2, false, 2, CUT_FILL)
SYNC3(cuMemsetD32, A_FILL32, A_FILL32_V1, FILL, (uint64_t)a->size * 4, false, 4, CUT_FILL)
SYNC3(cuMemsetD2D8, A_RECT8, A_RECT8_V1, FILL, (uint64_t)a->width * a->height, false, 1, CUT_NO)
SYNC3(cuMemsetD2D16, A_RECT16, A_RECT16_V1, FILL, (uint64_t)a->width * a->height * 2, false, 2, CUT_NO)
SYNC3(cuMemsetD2D32, A_RECT32, A_RECT32_V1, FILL, (uint64_t)a->width * a->height * 4, false, 4, CUT_NO)
ASYNC2(cuMemsetD8Async, A_FILL8_S, FILL, a->size, 1, CUT_FILL)
ASYNC2(cuMemsetD16Async, A_FILL16_S, FILL, (uint64_t)a->size * 2, 2, CUT_FILL)
ASYNC2(cuMemsetD32Async, A_FILL32_S, FILL, (uint64_t)a->size * 4, 4, CUT_FILL)
ASYNC2(cuMemsetD2D8Async, A_RECT8_S, FILL, (uint64_t)a->width * a->height, 1, CUT_NO)
ASYNC2(cuMemsetD2D16Async, A_RECT16_S, FILL, (uint64_t)a->width * a->height * 2, 2, CUT_NO)
ASYNC2(cuMemsetD2D32Async, A_RECT32_S, FILL, (uint64_t)a->width * a->height * 4, 4, CUT_NO)

/* ---- batches, managed memory, decompression ------------------------------------------------------------------------ */

#define A_BATCH(F, S)                                                                                                     \
	F(CUdeviceptr *, dst) S() F(CUdeviceptr *, src) S() F(size_t *, sizes) S() F(size_t, count) S()                   \
	F(CUmemcpyAttributes_v1 *, attrs) S() F(size_t *, index) S() F(size_t, nattrs) S() F(CUstream, stream)
#define A_BATCH_V1(F, S)                                                                                                  \
	F(CUdeviceptr *, dst) S() F(CUdeviceptr *, src) S() F(size_t *, sizes) S() F(size_t, count) S()                   \
	F(CUmemcpyAttributes_v1 *, attrs) S() F(size_t *, index) S() F(size_t, nattrs) S() F(size_t *, failed) S() F(CUstream, stream)
#define A_BATCH3D(F, S)                                                                                                   \
	F(size_t, count) S() F(CUDA_MEMCPY3D_BATCH_OP_v1 *, ops) S() F(unsigned long long, flags) S() F(CUstream, stream)
#define A_BATCH3D_V1(F, S)                                                                                                \
	F(size_t, count) S() F(CUDA_MEMCPY3D_BATCH_OP_v1 *, ops) S() F(size_t *, failed) S() F(unsigned long long, flags) S()\
	F(CUstream, stream)
#define A_PREFETCH_V1(F, S) F(CUdeviceptr, what) S() F(size_t, size) S() F(CUdevice, to) S() F(CUstream, stream)
#define A_PREFETCH(F, S)                                                                                                  \
	F(CUdeviceptr, what) S() F(size_t, size) S() F(CUmemLocation_v1, to) S() F(unsigned int, flags) S() F(CUstream, stream)
#define A_PREFETCH_BATCH(F, S)                                                                                            \
	F(CUdeviceptr *, what) S() F(size_t *, sizes) S() F(size_t, count) S() F(CUmemLocation_v1 *, to) S()              \
	F(size_t *, index) S() F(size_t, nto) S() F(unsigned long long, flags) S() F(CUstream, stream)
#define A_DISCARD(F, S)                                                                                                   \
	F(CUdeviceptr *, what) S() F(size_t *, sizes) S() F(size_t, count) S() F(unsigned long long, flags) S() F(CUstream, stream)
#define A_DECOMPRESS(F, S)                                                                                                \
	F(CUmemDecompressParams *, what) S() F(size_t, count) S() F(unsigned int, flags) S() F(size_t *, failed) S() F(CUstream, stream)

/* Without a look into the parameters, whose layout is the driver's: a guess that is soon learned. */
#define DECOMPRESS_BYTES UINT64_C(1048576)

FORM(cuMemcpyBatchAsync, false, A_BATCH_V1, a->stream, ANY, sum(a->sizes, a->count), false, 1, CUT_NO)
FORM(cuMemcpyBatchAsync_ptsz, true, A_BATCH_V1, a->stream, ANY, sum(a->sizes, a->count), false, 1, CUT_NO)
FORM(cuMemcpyBatchAsync_v2, false, A_BATCH, a->stream, ANY, sum(a->sizes, a->count), false, 1, CUT_NO)
FORM(cuMemcpyBatchAsync_v2_ptsz, true, A_BATCH, a->stream, ANY, sum(a->sizes, a->count), false, 1, CUT_NO)
FORM(cuMemcpy3DBatchAsync, false, A_BATCH3D_V1, a->stream, ANY, sum_3d(a->ops, a->count), false, 1, CUT_NO)
FORM(cuMemcpy3DBatchAsync_ptsz, true, A_BATCH3D_V1, a->stream, ANY, sum_3d(a->ops, a->count), false, 1, CUT_NO)
FORM(cuMemcpy3DBatchAsync_v2, false, A_BATCH3D, a->stream, ANY, sum_3d(a->ops, a->count), false, 1, CUT_NO)
FORM(cuMemcpy3DBatchAsync_v2_ptsz, true, A_BATCH3D, a->stream, ANY, sum_3d(a->ops, a->count), false, 1, CUT_NO)
FORM(cuMemPrefetchAsync, false, A_PREFETCH_V1, a->stream, MOVED, a->size, false, 1, CUT_NO)
FORM(cuMemPrefetchAsync_ptsz, true, A_PREFETCH_V1, a->stream, MOVED, a->size, false, 1, CUT_NO)
FORM(cuMemPrefetchAsync_v2, false, A_PREFETCH, a->stream, MOVED, a->size, false, 1, CUT_NO)
FORM(cuMemPrefetchAsync_v2_ptsz, true, A_PREFETCH, a->stream, MOVED, a->size, false, 1, CUT_NO)
ASYNC2(cuMemPrefetchBatchAsync, A_PREFETCH_BATCH, MOVED, sum(a->sizes, a->count), 1, CUT_NO)
ASYNC2(cuMemDiscardBatchAsync, A_DISCARD, MOVED, 0, 1, CUT_NO)
ASYNC2(cuMemDiscardAndPrefetchBatchAsync, A_PREFETCH_BATCH, MOVED, sum(a->sizes, a->count), 1, CUT_NO)
ASYNC2(cuMemBatchDecompressAsync, A_DECOMPRESS, D2D, DECOMPRESS_BYTES, 1, CUT_NO)
