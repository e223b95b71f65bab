/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting and asking, and what depends on what. Of an event that was recorded it is known in which stream and whether anything
 * came behind it there: a wait for the newest is a wait for the whole stream, and the gate needs no mark of its own.
 *
 * A stream that waits for what may never come without this process (a word in memory, a semaphore, another process's event,
 * another device) gets a wall (stream.c): what stands behind it is not in flight, and no thread of ours waits for it.
 */
#include "shim/cuda/gating.h"

#include <stdlib.h>

static struct pen_map events;

/* One thread may record it while another waits for what was recorded before: each word for itself, and a mixture is not "newest". */
struct event {
	struct pen_cu_context *_Atomic ctx;     /* with which it goes */
	struct pen_cu_stream *_Atomic stream;   /* NULL: nowhere that is known */
	_Atomic uint32_t use;
	_Atomic uint32_t slow;                  /* the queue as it was behind the event */
	_Atomic uint64_t credit;
};

struct seen_event { struct pen_cu_stream *stream; uint32_t use, slow; uint64_t credit; };

static struct seen_event look(CUevent e)
{
	struct event *n = pen_map_empty(&events) ? NULL : pen_map_find(&events, e);
	struct seen_event s = { 0 };
	if (!n)
		return s;
	s.use = atomic_load_explicit(&n->use, memory_order_relaxed);
	s.slow = atomic_load_explicit(&n->slow, memory_order_relaxed);
	s.credit = atomic_load_explicit(&n->credit, memory_order_relaxed);
	s.stream = atomic_load_explicit(&n->stream, memory_order_acquire);
	return s;
}

/* ---- recording -------------------------------------------------------------------------------------------------- */

static void note(CUevent e, struct pen_cu_stream *s)
{
	struct event *n = pen_map_find(&events, e);
	if (!n) {
		if (!s)
			return;
		n = calloc(1, sizeof(*n));
		if (!n || pen_map_put(&events, e, n) < 0) {
			free(n);
			return;
		}
	}
	if (s) {
		pen_cu_stream_used(s);
		atomic_store_explicit(&n->ctx, s->ctx, memory_order_relaxed);
		atomic_store_explicit(&n->use, atomic_load_explicit(&s->use, memory_order_relaxed), memory_order_relaxed);
		atomic_store_explicit(&n->slow, atomic_load_explicit(&s->slow, memory_order_relaxed), memory_order_relaxed);
		atomic_store_explicit(&n->credit, atomic_load_explicit(&s->queue->credit, memory_order_relaxed), memory_order_relaxed);
	}
	atomic_store_explicit(&n->stream, s, memory_order_release);
}

static bool is_newest(const struct seen_event *n)
{
	return !atomic_load_explicit(&n->stream->shared, memory_order_relaxed) &&
	       n->slow == atomic_load_explicit(&n->stream->slow, memory_order_relaxed) &&
	       n->credit == atomic_load_explicit(&n->stream->queue->credit, memory_order_relaxed);
}

/* A recorded event of a captured stream is no point in time. */
static CUresult recorded(CUresult r, CUevent e, CUstream stream, bool per_thread)
{
	if (r != CUDA_SUCCESS)
		return r;
	struct pen_cu_stream *s = pen_cu_stream(stream, per_thread);
	pen_cu_thread.depth++;
	if (s && atomic_load(&pen_cu_captures) && pen_cu_capturing(s))
		s = NULL;
	note(e, s);
	pen_cu_thread.depth--;
	return r;
}

CUresult pen_cuEventRecord(CUevent e, CUstream stream)
{
	CUresult r = REAL(cuEventRecord)(e, stream);
	return pen_cu_thread.depth ? r : recorded(r, e, stream, false);
}

CUresult pen_cuEventRecord_ptsz(CUevent e, CUstream stream)
{
	CUresult r = REAL(cuEventRecord_ptsz)(e, stream);
	return pen_cu_thread.depth ? r : recorded(r, e, stream, true);
}

CUresult pen_cuEventRecordWithFlags(CUevent e, CUstream stream, unsigned int flags)
{
	CUresult r = REAL(cuEventRecordWithFlags)(e, stream, flags);
	return pen_cu_thread.depth ? r : recorded(r, e, stream, false);
}

CUresult pen_cuEventRecordWithFlags_ptsz(CUevent e, CUstream stream, unsigned int flags)
{
	CUresult r = REAL(cuEventRecordWithFlags_ptsz)(e, stream, flags);
	return pen_cu_thread.depth ? r : recorded(r, e, stream, true);
}

static CUresult destroy(CUresult (*real)(CUevent), CUevent e)
{
	if (!pen_cu_thread.depth && !pen_map_empty(&events))
		free(pen_map_take(&events, e));   /* before: the handle may be in use anew afterwards */
	return real(e);
}

CUresult pen_cuEventDestroy(CUevent e)
{
	return destroy(REAL(cuEventDestroy), e);
}

CUresult pen_cuEventDestroy_v2(CUevent e)
{
	return destroy(REAL(cuEventDestroy_v2), e);
}

static bool is_of(const void *event, void *ctx)
{
	return atomic_load_explicit(&((const struct event *)event)->ctx, memory_order_relaxed) == ctx;
}

/* Who ends a context need not destroy its events. */
void pen_cu_events_gone(struct pen_cu_context *c)
{
	pen_map_free_all(&events, is_of, c);
}

/* ---- waiting ---------------------------------------------------------------------------------------------------- */

static struct pen_cu_gating *waits(struct pen_cu_device *d)
{
	struct pen_cu_gating *g = d ? pen_cu_gating(d) : NULL;
	if (g)
		atomic_fetch_add(&g->waiting, 1);
	return g;
}

static void waited(struct pen_cu_gating *g)
{
	if (!g)
		return;
	atomic_fetch_sub(&g->waiting, 1);
	pen_cu_mem_synced(g->device);
}

CUresult pen_cuEventSynchronize(CUevent e)
{
	struct seen_event n = { 0 };
	if (!pen_cu_thread.depth)
		n = look(e);
	uint64_t token = 0;
	bool whole = false;
	struct pen_cu_gating *g = NULL;
	if (!n.stream || !pen_cu_stream_pin(n.stream, n.use))
		return REAL(cuEventSynchronize)(e);
	pen_cu_thread.depth++;
	whole = is_newest(&n);
	if (whole)
		token = pen_gate_sync_begin(n.stream->queue);
	else
		pen_gate_edge(n.stream->queue);
	g = waits(n.stream->ctx->device);
	pen_cu_stream_unpin(n.stream);
	CUresult r = REAL(cuEventSynchronize)(e);
	waited(g);
	if (r == CUDA_SUCCESS && pen_cu_stream_pin(n.stream, n.use)) {
		if (whole)
			pen_gate_sync_end(n.stream->queue, token);
		else
			pen_gate_poll(n.stream->queue);
		pen_cu_stream_unpin(n.stream);
	}
	pen_cu_thread.depth--;
	return r;
}

CUresult pen_cuEventQuery(CUevent e)
{
	CUresult r = REAL(cuEventQuery)(e);
	struct seen_event n = { 0 };
	if (!pen_cu_thread.depth)
		n = look(e);
	if (r != CUDA_SUCCESS || !n.stream || !pen_cu_stream_pin(n.stream, n.use))
		return r;
	pen_cu_thread.depth++;
	if (is_newest(&n))
		pen_gate_sync_end(n.stream->queue, pen_gate_sync_begin(n.stream->queue));
	else
		pen_gate_poll(n.stream->queue);
	pen_cu_stream_unpin(n.stream);
	pen_cu_thread.depth--;
	return r;
}

static CUresult synchronize(CUresult (*real)(CUstream), CUstream stream, bool per_thread)
{
	struct pen_cu_stream *s = pen_cu_thread.depth ? NULL : pen_cu_stream(stream, per_thread);
	if (!s)
		return real(stream);
	pen_cu_thread.depth++;
	uint64_t token = pen_gate_sync_begin(s->queue);
	struct pen_cu_gating *g = waits(s->ctx->device);
	CUresult r = real(stream);
	waited(g);
	if (r == CUDA_SUCCESS)
		pen_gate_sync_end(s->queue, token);
	pen_cu_thread.depth--;
	return r;
}

CUresult pen_cuStreamSynchronize(CUstream stream)
{
	return synchronize(REAL(cuStreamSynchronize), stream, false);
}

CUresult pen_cuStreamSynchronize_ptsz(CUstream stream)
{
	return synchronize(REAL(cuStreamSynchronize_ptsz), stream, true);
}

/* The token is from before the question: another thread may have submitted meanwhile. */
static CUresult query(CUresult (*real)(CUstream), CUstream stream, bool per_thread)
{
	struct pen_cu_stream *s = pen_cu_thread.depth ? NULL : pen_cu_stream(stream, per_thread);
	if (!s)
		return real(stream);
	pen_cu_thread.depth++;
	bool shared = atomic_load(&s->shared);
	uint64_t token = shared ? pen_gate_sync_begin(s->queue) : 0;
	CUresult r = real(stream);
	if (r == CUDA_SUCCESS)
		pen_gate_sync_end(s->queue, shared ? token : pen_gate_sync_begin(s->queue));
	pen_cu_thread.depth--;
	return r;
}

CUresult pen_cuStreamQuery(CUstream stream)
{
	return query(REAL(cuStreamQuery), stream, false);
}

CUresult pen_cuStreamQuery_ptsz(CUstream stream)
{
	return query(REAL(cuStreamQuery_ptsz), stream, true);
}

/* ---- the whole context ------------------------------------------------------------------------------------------ */

#define CONTEXT_STREAMS 64   /* of one of several contexts; more only make the gate's knowledge later */

struct seen { struct pen_cu_stream *s; uint32_t use; uint64_t token; };

static unsigned begin_streams(struct pen_cu_context *c, struct seen *v)
{
	unsigned n = 0;
	pen_forklock_take(&c->lock);
	for (struct pen_cu_stream *s = c->streams; s && n < CONTEXT_STREAMS; s = s->next)
		v[n++] = (struct seen){ .s = s, .use = atomic_load(&s->use) };
	pen_forklock_give(&c->lock);
	for (unsigned i = 0; i < n; i++) {
		if (!pen_cu_stream_pin(v[i].s, v[i].use)) {
			v[i].s = NULL;
			continue;
		}
		v[i].token = pen_gate_sync_begin(v[i].s->queue);
		pen_cu_stream_unpin(v[i].s);
	}
	return n;
}

static void end_streams(const struct seen *v, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (!v[i].s || !pen_cu_stream_pin(v[i].s, v[i].use))
			continue;
		pen_gate_sync_end(v[i].s->queue, v[i].token);
		pen_cu_stream_unpin(v[i].s);
	}
}

/* @v2: with the context as an argument. */
static CUresult synchronize_context(struct pen_cu_context *c, CUcontext id, bool v2)
{
	struct seen seen[CONTEXT_STREAMS];
	struct pen_cu_gating *g = waits(c->device);
	/* The gate's is the device: its work is the context's only if there is no other. */
	bool all = g && atomic_load(&g->contexts) == 1;
	uint64_t token = all ? pen_gate_sync_all_begin(c->gate) : 0;
	unsigned n = all ? 0 : begin_streams(c, seen);
	CUresult r = v2 ? REAL(cuCtxSynchronize_v2)(id) : REAL(cuCtxSynchronize)();
	waited(g);
	if (r == CUDA_SUCCESS && all)
		pen_gate_sync_all_end(c->gate, token);
	else if (r == CUDA_SUCCESS)
		end_streams(seen, n);
	return r;
}

CUresult pen_cuCtxSynchronize(void)
{
	struct pen_cu_context *c = pen_cu_thread.depth ? NULL : pen_cu_context_current();
	if (!c)
		return REAL(cuCtxSynchronize)();
	pen_cu_thread.depth++;
	CUresult r = synchronize_context(c, NULL, false);
	pen_cu_thread.depth--;
	return r;
}

CUresult pen_cuCtxSynchronize_v2(CUcontext id)
{
	struct pen_cu_context *c = pen_cu_thread.depth ? NULL : id ? pen_cu_context(id) : pen_cu_context_current();
	if (!c)
		return REAL(cuCtxSynchronize_v2)(id);
	pen_cu_thread.depth++;
	CUresult r = synchronize_context(c, id, true);
	pen_cu_thread.depth--;
	return r;
}

/* ---- dependencies ----------------------------------------------------------------------------------------------- */

/* May the event never come without this process? One that was recorded here is as good as its stream. */
static bool may_never_come(struct pen_cu_stream *s, CUevent e)
{
	struct seen_event n = look(e);
	if (n.stream == s && n.use == atomic_load(&s->use))
		return false;
	bool never = true;
	if (n.stream && pen_cu_stream_pin(n.stream, n.use)) {
		never = n.stream->ctx->device != s->ctx->device ||
			(atomic_load(&n.stream->wall) && pen_cu_stream_walled(n.stream));
		pen_cu_stream_unpin(n.stream);
	}
	if (!never)
		return false;
	CUstreamCaptureMode mode = pen_cu_relax();
	CUresult r = REAL(cuEventQuery)(e);
	pen_cu_unrelax(mode);
	return r == CUDA_ERROR_NOT_READY;
}

static void wall_unless_captured(struct pen_cu_stream *s)
{
	if (!atomic_load(&pen_cu_captures) || !pen_cu_capturing(s))
		pen_cu_stream_wall(s);
}

static CUresult wait_event(CUresult (*real)(CUstream, CUevent, unsigned int), CUstream stream, CUevent e, unsigned int flags,
			   bool per_thread)
{
	struct pen_cu_stream *s = pen_cu_thread.depth ? NULL : pen_cu_stream(stream, per_thread);
	if (!s)
		return real(stream, e, flags);
	pen_cu_thread.depth++;
	/* While something captures, the wait may be what takes the stream into it: nothing is asked of the event then. */
	bool wall = !atomic_load(&pen_cu_captures) && may_never_come(s, e);
	CUresult r = real(stream, e, flags);
	if (r == CUDA_SUCCESS && wall)
		wall_unless_captured(s);
	pen_cu_thread.depth--;
	return r;
}

CUresult pen_cuStreamWaitEvent(CUstream stream, CUevent e, unsigned int flags)
{
	return wait_event(REAL(cuStreamWaitEvent), stream, e, flags, false);
}

CUresult pen_cuStreamWaitEvent_ptsz(CUstream stream, CUevent e, unsigned int flags)
{
	return wait_event(REAL(cuStreamWaitEvent_ptsz), stream, e, flags, true);
}

static CUresult walled(CUresult r, CUstream stream, bool per_thread)
{
	struct pen_cu_stream *s = r == CUDA_SUCCESS && !pen_cu_thread.depth ? pen_cu_stream(stream, per_thread) : NULL;
	if (!s)
		return r;
	pen_cu_thread.depth++;
	wall_unless_captured(s);
	pen_cu_thread.depth--;
	return r;
}

#define WAIT_VALUE(symbol, type, thread)                                                                                  \
	CUresult pen_##symbol(CUstream stream, CUdeviceptr address, type value, unsigned int flags)                       \
	{                                                                                                                 \
		return walled(REAL(symbol)(stream, address, value, flags), stream, thread);                               \
	}
WAIT_VALUE(cuStreamWaitValue32, uint32_t, false)
WAIT_VALUE(cuStreamWaitValue32_v2, uint32_t, false)
WAIT_VALUE(cuStreamWaitValue32_ptsz, uint32_t, true)
WAIT_VALUE(cuStreamWaitValue32_v2_ptsz, uint32_t, true)
WAIT_VALUE(cuStreamWaitValue64, uint64_t, false)
WAIT_VALUE(cuStreamWaitValue64_v2, uint64_t, false)
WAIT_VALUE(cuStreamWaitValue64_ptsz, uint64_t, true)
WAIT_VALUE(cuStreamWaitValue64_v2_ptsz, uint64_t, true)

static bool has_wait(const CUstreamBatchMemOpParams_v1 *ops, unsigned int n)
{
	for (unsigned int i = 0; ops && i < n; i++)
		if (ops[i].operation == CU_STREAM_MEM_OP_WAIT_VALUE_32 || ops[i].operation == CU_STREAM_MEM_OP_WAIT_VALUE_64)
			return true;
	return false;
}

#define BATCH_MEM_OP(symbol, thread)                                                                                      \
	CUresult pen_##symbol(CUstream stream, unsigned int n, CUstreamBatchMemOpParams *ops, unsigned int flags)         \
	{                                                                                                                 \
		bool waits_for = has_wait(ops, n);                                                                        \
		CUresult r = REAL(symbol)(stream, n, ops, flags);                                                         \
		return waits_for ? walled(r, stream, thread) : r;                                                         \
	}
BATCH_MEM_OP(cuStreamBatchMemOp, false)
BATCH_MEM_OP(cuStreamBatchMemOp_v2, false)
BATCH_MEM_OP(cuStreamBatchMemOp_ptsz, true)
BATCH_MEM_OP(cuStreamBatchMemOp_v2_ptsz, true)

#define SEMAPHORES(symbol, thread)                                                                                        \
	CUresult pen_##symbol(const CUexternalSemaphore *list, const CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS_v1 *params,      \
			      unsigned int n, CUstream stream)                                                            \
	{                                                                                                                 \
		return walled(REAL(symbol)(list, params, n, stream), stream, thread);                                     \
	}
SEMAPHORES(cuWaitExternalSemaphoresAsync, false)
SEMAPHORES(cuWaitExternalSemaphoresAsync_ptsz, true)
