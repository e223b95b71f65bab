/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Captures: while a stream records a graph nothing of ours may block, synchronise or put an event into it, and no thread of ours
 * may invalidate it. A captured launch passes straight through; it costs when the graph is launched.
 *
 * A stream may join a capture by waiting for an event, so that only the driver knows which ones capture. That some stream does
 * is known from the calls that begin and end one; and while one does, no mark is put into a stream but by the call that uses it.
 */
#include "shim/cuda/gating.h"

_Atomic uint32_t pen_cu_captures;
static _Atomic uint32_t recording;   /* threads that put marks into streams unasked; futex word */

#define STEP_NS UINT64_C(1000000)

bool pen_cu_record_enter(void)
{
	atomic_fetch_add(&recording, 1);
	if (!atomic_load(&pen_cu_captures))
		return true;
	pen_cu_record_leave();
	return false;
}

void pen_cu_record_leave(void)
{
	if (atomic_fetch_sub(&recording, 1) == 1 && atomic_load(&pen_cu_captures))
		pen_futex_wake(&recording, INT32_MAX);
}

bool pen_cu_capturing(struct pen_cu_stream *s)
{
	CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
	if (!REAL(cuStreamIsCapturing))
		return false;
	CUresult r = REAL(cuStreamIsCapturing)(s->id, &status);
	/* IMPLICIT: the legacy stream while one that waits for it captures. The driver is the one to refuse what comes. */
	return r == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT || (r == CUDA_SUCCESS && status != CU_STREAM_CAPTURE_STATUS_NONE);
}

static void ended(struct pen_cu_stream *s)
{
	if (atomic_exchange(&s->capture_began, false))
		atomic_fetch_sub(&pen_cu_captures, 1);
}

void pen_cu_capture_gone(struct pen_cu_stream *s)
{
	ended(s);
}

/* Marks on their way into streams come before the capture. They do not wait for the device. */
static struct pen_cu_stream *begin(CUstream stream, bool per_thread)
{
	struct pen_cu_stream *s = pen_cu_stream(stream, per_thread);
	uint32_t n;
	if (!s)
		return NULL;
	if (!atomic_exchange(&s->capture_began, true))
		atomic_fetch_add(&pen_cu_captures, 1);
	while ((n = atomic_load(&recording)) != 0)
		pen_futex_wait(&recording, n, STEP_NS);
	return s;
}

/* A call that failed has begun nothing, or has found one that goes on. */
static CUresult begun(struct pen_cu_stream *s, CUresult r)
{
	if (s && r != CUDA_SUCCESS && !pen_cu_capturing(s))
		ended(s);
	return r;
}

#define BEGIN(symbol, thread, params, args)                                                                               \
	CUresult pen_##symbol params                                                                                      \
	{                                                                                                                 \
		if (pen_cu_thread.depth)                                                                                  \
			return REAL(symbol) args;                                                                         \
		struct pen_cu_stream *s = begin(stream, thread);                                                          \
		pen_cu_thread.depth++;                                                                                    \
		CUresult r = begun(s, REAL(symbol) args);                                                                 \
		pen_cu_thread.depth--;                                                                                    \
		return r;                                                                                                 \
	}
#define TO_GRAPH_PARAMS (CUstream stream, CUgraph graph, const CUgraphNode *after, const CUgraphEdgeData *edges, size_t n, CUstreamCaptureMode mode)
#define TO_GRAPH_ARGS (stream, graph, after, edges, n, mode)

BEGIN(cuStreamBeginCapture, false, (CUstream stream), (stream))
BEGIN(cuStreamBeginCapture_v2, false, (CUstream stream, CUstreamCaptureMode mode), (stream, mode))
BEGIN(cuStreamBeginCapture_ptsz, true, (CUstream stream), (stream))
BEGIN(cuStreamBeginCapture_v2_ptsz, true, (CUstream stream, CUstreamCaptureMode mode), (stream, mode))
BEGIN(cuStreamBeginCaptureToGraph, false, TO_GRAPH_PARAMS, TO_GRAPH_ARGS)
BEGIN(cuStreamBeginCaptureToGraph_ptsz, true, TO_GRAPH_PARAMS, TO_GRAPH_ARGS)

static CUresult end(CUresult (*real)(CUstream, CUgraph *), CUstream stream, CUgraph *graph, bool per_thread)
{
	if (pen_cu_thread.depth)
		return real(stream, graph);
	struct pen_cu_stream *s = pen_cu_stream(stream, per_thread);
	pen_cu_thread.depth++;
	CUresult r = real(stream, graph);
	if (s && (r == CUDA_SUCCESS || !pen_cu_capturing(s)))   /* an invalidated one ends with an error */
		ended(s);
	pen_cu_thread.depth--;
	return r;
}

CUresult pen_cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
	return end(REAL(cuStreamEndCapture), stream, graph, false);
}

CUresult pen_cuStreamEndCapture_ptsz(CUstream stream, CUgraph *graph)
{
	return end(REAL(cuStreamEndCapture_ptsz), stream, graph, true);
}
