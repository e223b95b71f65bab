/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stream capture. While a stream captures, what it is given becomes nodes of a graph. Streams join a
 * capture by waiting for an event that was recorded in it, and have to be joined back before it ends.
 *
 * Rules, as NVIDIA documents them: a call that conflicts with a capture fails and the capture is lost with
 * it (its end says 901). Which calls of which threads are unsafe follows from the modes of the captures
 * that are open and of the calling thread.
 *
 * One lock for all: captures are rare, and streams of several threads meet in them.
 */
#include "simgpu/nvidia/cuda/graph.h"

#include <stdlib.h>
#include <string.h>

struct sim_tips {
	struct sim_deps set;
};

struct sim_capture {
	uint64_t id;
	CUgraph graph;
	bool given; /* the program's graph, which stays its own */
	CUstreamCaptureMode mode;
	pthread_t thread;
	CUstream origin;
	bool lost;
	CUstream stream[64]; /* that are in it */
	uint32_t streams;
	CUgraphNode *told; /* what the last question for its nodes was answered with */
	CUgraphEdgeData *told_edges;
	struct sim_capture *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sim_capture *open_captures;
static uint64_t next_id = 1;

void sim_tips_free(struct sim_tips *t)
{
	if (t)
		sim_deps_clear(&t->set);
	free(t);
}

/* ---- all below with the lock held ---- */

static struct sim_tips *tips_of(struct sim_tips **at)
{
	if (!*at)
		*at = calloc(1, sizeof(**at));
	return *at;
}

static bool join(struct sim_capture *c, CUstream s)
{
	if (c->streams == sizeof(c->stream) / sizeof(*c->stream) || !tips_of(&s->tips))
		return false;
	s->tips->set.n = 0;
	c->stream[c->streams++] = s;
	atomic_store(&s->capture, c);
	return true;
}

static void leave(struct sim_capture *c)
{
	for (uint32_t i = 0; i < c->streams; i++) {
		atomic_store(&c->stream[i]->capture, NULL);
		c->stream[i]->tips->set.n = 0;
	}
	c->streams = 0;
}

static void close_capture(struct sim_capture *c)
{
	struct sim_capture **at = &open_captures;

	leave(c);
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	free(c->told);
	free(c->told_edges);
	free(c);
	if (atomic_fetch_sub(&sim_driver.captures, 1) == 1 && sim_driver.null)
		sim_driver.eager = true;
}

static CUresult lose(struct sim_capture *c, CUresult r)
{
	c->lost = true;
	return r;
}

static struct sim_capture *by_id(uint64_t id)
{
	struct sim_capture *c = open_captures;

	while (c && c->id != id)
		c = c->next;
	return c;
}

/* ---- calls that do not go together with a capture ---- */

CUresult sim_capture_unsafe(void)
{
	CUstreamCaptureMode mine = sim_self.capture_mode;
	pthread_t me = pthread_self();
	CUresult r = CUDA_SUCCESS;

	if (mine == CU_STREAM_CAPTURE_MODE_RELAXED)
		return CUDA_SUCCESS;
	pthread_mutex_lock(&lock);
	for (struct sim_capture *c = open_captures; c; c = c->next) {
		bool own = pthread_equal(c->thread, me) && c->mode != CU_STREAM_CAPTURE_MODE_RELAXED;
		bool others =
			c->mode == CU_STREAM_CAPTURE_MODE_GLOBAL && mine == CU_STREAM_CAPTURE_MODE_GLOBAL;

		if (own || others)
			r = lose(c, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
	}
	pthread_mutex_unlock(&lock);
	return r;
}

static bool blocking_in(const struct sim_capture *c, CUcontext ctx)
{
	for (uint32_t i = 0; i < c->streams; i++)
		if (c->stream[i]->ctx == ctx && !(c->stream[i]->flags & CU_STREAM_NON_BLOCKING))
			return true;
	return false;
}

static CUresult implicit(CUcontext ctx, bool spoil)
{
	CUresult r = CUDA_SUCCESS;

	pthread_mutex_lock(&lock);
	for (struct sim_capture *c = open_captures; c; c = c->next)
		if (blocking_in(c, ctx)) {
			r = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
			c->lost |= spoil;
		}
	pthread_mutex_unlock(&lock);
	return r;
}

CUresult sim_capture_legacy(CUcontext ctx)
{
	return implicit(ctx, true);
}

CUresult sim_capture_conflict(CUstream s)
{
	CUresult r = CUDA_SUCCESS;

	pthread_mutex_lock(&lock);
	if (s->capture)
		r = lose(s->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
	pthread_mutex_unlock(&lock);
	return r;
}

CUresult sim_capture_conflict_event(CUevent e)
{
	pthread_mutex_lock(&lock);
	struct sim_capture *c = by_id(e->capture);

	if (c)
		c->lost = true;
	pthread_mutex_unlock(&lock);
	return CUDA_ERROR_CAPTURED_EVENT;
}

CUresult sim_capture_conflict_context(CUcontext ctx)
{
	CUresult r = CUDA_SUCCESS;

	pthread_mutex_lock(&lock);
	for (struct sim_capture *c = open_captures; c; c = c->next)
		if (c->origin->ctx == ctx)
			r = lose(c, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
	pthread_mutex_unlock(&lock);
	return r;
}

/* A stream is destroyed while it captures: the capture is lost, and goes with the stream that began it. */
void sim_capture_drop(CUstream s)
{
	pthread_mutex_lock(&lock);
	struct sim_capture *c = s->capture;

	if (c && c->origin == s) {
		if (!c->given)
			sim_graph_unmake(c->graph);
		close_capture(c);
	} else if (c) {
		c->lost = true;
		for (uint32_t i = 0; i < c->streams; i++)
			if (c->stream[i] == s)
				c->stream[i--] = c->stream[--c->streams];
		atomic_store(&s->capture, NULL);
	}
	pthread_mutex_unlock(&lock);
}

void sim_capture_context_end(CUcontext ctx)
{
	pthread_mutex_lock(&lock);
	for (struct sim_capture *c = open_captures, *next; c; c = next) {
		next = c->next;
		if (c->origin->ctx == ctx) {
			if (!c->given)
				sim_graph_unmake(c->graph);
			close_capture(c);
		}
	}
	pthread_mutex_unlock(&lock);
}

/* ---- nodes ---- */

CUresult sim_capture_node(CUstream s, CUgraphNodeParams *p, CUgraphNode *ret)
{
	struct sim_capture *c;
	CUgraphNode node;
	CUresult r;

	pthread_mutex_lock(&lock);
	c = s->capture;
	if (!c || c->lost) {
		r = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	} else {
		r = sim_node_add(c->graph, s->tips->set.node, NULL, s->tips->set.n, p, &node);
		if (r)
			c->lost = true;
	}
	if (!r) {
		s->tips->set.n = 0;
		if (!sim_deps_add(&s->tips->set, node))
			r = lose(c, CUDA_ERROR_OUT_OF_MEMORY);
		else if (ret)
			*ret = node;
	}
	pthread_mutex_unlock(&lock);
	return r;
}

CUresult sim_capture_copy(CUstream s, const CUDA_MEMCPY3D_v2 *c)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_MEMCPY,
				.memcpy = { .copyCtx = s->ctx, .copyParams = *c } };

	return sim_capture_node(s, &p, NULL);
}

CUresult sim_capture_memops(CUstream s, const CUstreamBatchMemOpParams *list, unsigned int n)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_BATCH_MEM_OP,
				.memOp = { s->ctx, n, (CUstreamBatchMemOpParams *)(uintptr_t)list, 0 } };

	return sim_capture_node(s, &p, NULL);
}

CUresult sim_capture_launch(CUstream s, const struct sim_launch *l, unsigned char *params, size_t bytes)
{
	void *extra[] = { CU_LAUNCH_PARAM_BUFFER_POINTER, params, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes,
			  CU_LAUNCH_PARAM_END };
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_KERNEL,
				.kernel = { l->f, l->grid[0], l->grid[1], l->grid[2], l->block[0],
					    l->block[1], l->block[2], l->smem_bytes, NULL, extra, NULL,
					    s->ctx } };
	CUgraphNode node;
	CUresult r = sim_capture_node(s, &p, &node);

	if (r)
		return r;
	node->attr[CU_LAUNCH_ATTRIBUTE_PRIORITY].priority = s->priority + l->priority;
	node->attr[CU_LAUNCH_ATTRIBUTE_COOPERATIVE].cooperative = l->cooperative;
	node->attrs |= 1u << CU_LAUNCH_ATTRIBUTE_PRIORITY | 1u << CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
	return CUDA_SUCCESS;
}

/* ---- events ---- */

/* Nothing is put into the stream: the event stands for the nodes that the stream has come to. */
CUresult sim_capture_record(CUevent e, CUstream s)
{
	struct sim_capture *c;
	CUresult r = CUDA_SUCCESS;

	pthread_mutex_lock(&lock);
	c = s->capture;
	if (!c || c->lost)
		r = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	else if (!tips_of(&e->tips) || !sim_deps_copy(&e->tips->set, &s->tips->set))
		r = lose(c, CUDA_ERROR_OUT_OF_MEMORY);
	else
		e->capture = c->id;
	pthread_mutex_unlock(&lock);
	return r;
}

/* @s waits for an event of a capture: it joins, or takes its nodes to its own. */
static CUresult wait_captured(CUstream s, CUevent e)
{
	struct sim_capture *c = by_id(e->capture), *mine = s->capture;

	if (!c)
		return mine ? lose(mine, CUDA_ERROR_STREAM_CAPTURE_ISOLATION) : CUDA_ERROR_CAPTURED_EVENT;
	if (c->lost)
		return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	if (mine && mine != c) {
		mine->lost = true;
		return lose(c, CUDA_ERROR_STREAM_CAPTURE_MERGE);
	}
	if (s == s->ctx->legacy)
		return lose(c, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
	if (!mine && !join(c, s))
		return lose(c, CUDA_ERROR_OUT_OF_MEMORY);
	for (size_t i = 0; i < e->tips->set.n; i++)
		if (!sim_deps_add(&s->tips->set, e->tips->set.node[i]))
			return lose(c, CUDA_ERROR_OUT_OF_MEMORY);
	return CUDA_SUCCESS;
}

CUresult sim_capture_wait(CUstream s, CUevent e, bool external)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_WAIT_EVENT, .eventWait = { e } };
	CUresult r = CUDA_SUCCESS;

	if (external && s->capture)
		return sim_capture_node(s, &p, NULL);
	pthread_mutex_lock(&lock);
	if (e->capture)
		r = wait_captured(s, e);
	else if (s->capture && e->recorded)
		r = lose(s->capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
	pthread_mutex_unlock(&lock);
	return r;
}

/* ---- begin and end ---- */

static CUresult begin(CUstream h, bool per_thread, CUstreamCaptureMode mode, CUgraph into,
		      const CUgraphNode *deps, size_t n)
{
	struct sim_capture *c;
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r && mode > CU_STREAM_CAPTURE_MODE_RELAXED)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r && (h == CU_STREAM_LEGACY || (!h && !per_thread)))
		r = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	if (!r)
		r = sim_stream_get(ctx, h, per_thread, &s);
	if (!r && into)
		r = sim_graph_check(into);
	for (size_t i = 0; i < n && !r; i++)
		if (!deps || sim_node_check(deps[i], UINT32_MAX) || deps[i]->graph != into)
			r = CUDA_ERROR_INVALID_VALUE;
	if (r)
		return r;
	c = calloc(1, sizeof(*c));
	if (!c)
		return CUDA_ERROR_OUT_OF_MEMORY;
	c->mode = mode;
	c->thread = pthread_self();
	c->origin = s;
	c->given = into != NULL;
	c->graph = into;
	if (!into)
		r = sim_graph_make(&c->graph);
	pthread_mutex_lock(&lock);
	if (!r && s->capture)
		r = CUDA_ERROR_ILLEGAL_STATE;
	if (!r && !join(c, s))
		r = CUDA_ERROR_OUT_OF_MEMORY;
	for (size_t i = 0; i < n && !r; i++)
		if (!sim_deps_add(&s->tips->set, deps[i]))
			r = CUDA_ERROR_OUT_OF_MEMORY;
	if (!r) {
		sim_driver.eager = false;
		atomic_fetch_add(&sim_driver.captures, 1);
		c->id = next_id++;
		c->next = open_captures;
		open_captures = c;
	}
	pthread_mutex_unlock(&lock);
	if (r) {
		if (c->graph && !into)
			sim_graph_unmake(c->graph);
		free(c);
	}
	return r;
}

SIM_PAIR(cuStreamBeginCapture, _ptsz, (CUstream h),
	 return begin(h, per_thread, CU_STREAM_CAPTURE_MODE_GLOBAL, NULL, NULL, 0);)
SIM_PAIR(cuStreamBeginCapture_v2, _ptsz, (CUstream h, CUstreamCaptureMode mode),
	 return begin(h, per_thread, mode, NULL, NULL, 0);)
SIM_PAIR(cuStreamBeginCaptureToGraph, _ptsz,
	 (CUstream h, CUgraph g, const CUgraphNode *deps, const CUgraphEdgeData *edges, size_t n,
	  CUstreamCaptureMode mode),
	 (void)edges;
	 return g ? begin(h, per_thread, mode, g, deps, n) : CUDA_ERROR_INVALID_VALUE;)

static bool leads_to(CUgraphNode from, const struct sim_deps *tips)
{
	if (sim_deps_has(tips, from))
		return true;
	for (size_t i = 0; i < from->dependents.n; i++)
		if (leads_to(from->dependents.node[i], tips))
			return true;
	return false;
}

/* Every stream that has joined must have been waited for by the one in which the capture began. */
static bool joined_back(const struct sim_capture *c)
{
	for (uint32_t i = 0; i < c->streams; i++)
		for (size_t k = 0; c->stream[i] != c->origin && k < c->stream[i]->tips->set.n; k++)
			if (!leads_to(c->stream[i]->tips->set.node[k], &c->origin->tips->set))
				return false;
	return true;
}

static CUresult end(CUstream h, bool per_thread, CUgraph *ret)
{
	struct sim_capture *c;
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_stream_get(ctx, h, per_thread, &s);
	if (!r && !ret)
		r = CUDA_ERROR_INVALID_VALUE;
	if (r)
		return r;
	*ret = NULL;
	pthread_mutex_lock(&lock);
	c = s->capture;
	if (!c)
		r = CUDA_ERROR_ILLEGAL_STATE;
	else if (c->origin != s)
		r = lose(c, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
	else if (c->mode != CU_STREAM_CAPTURE_MODE_RELAXED && !pthread_equal(c->thread, pthread_self()))
		r = lose(c, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
	if (r) {
		pthread_mutex_unlock(&lock);
		return r;
	}
	r = c->lost          ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
	    : joined_back(c) ? CUDA_SUCCESS
			     : CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
	if (!r)
		*ret = c->graph;
	else if (!c->given)
		sim_graph_unmake(c->graph);
	close_capture(c);
	pthread_mutex_unlock(&lock);
	return r;
}

SIM_PAIR(cuStreamEndCapture, _ptsz, (CUstream h, CUgraph *ret), return end(h, per_thread, ret);)

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
	if (!mode || *mode > CU_STREAM_CAPTURE_MODE_RELAXED)
		return CUDA_ERROR_INVALID_VALUE;

	CUstreamCaptureMode was = sim_self.capture_mode;

	sim_self.capture_mode = *mode;
	*mode = was;
	return CUDA_SUCCESS;
}

/* ---- questions ---- */

static CUresult peek(CUstream h, bool per_thread, CUstream *ret)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (r)
		return r;
	if (h == CU_STREAM_LEGACY || (!h && !per_thread)) {
		*ret = ctx->legacy;
		return implicit(ctx, false);
	}
	return sim_stream_get(ctx, h, per_thread, ret);
}

static CUstreamCaptureStatus status_of(const struct sim_capture *c)
{
	return !c        ? CU_STREAM_CAPTURE_STATUS_NONE
	       : c->lost ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
			 : CU_STREAM_CAPTURE_STATUS_ACTIVE;
}

static CUresult is_capturing(CUstream h, bool per_thread, CUstreamCaptureStatus *ret)
{
	CUstream s;
	CUresult r = peek(h, per_thread, &s);

	if (r)
		return r;
	if (!ret)
		return CUDA_ERROR_INVALID_VALUE;
	*ret = CU_STREAM_CAPTURE_STATUS_NONE;
	if (SIM_LIKELY(!s->capture))
		return CUDA_SUCCESS;
	pthread_mutex_lock(&lock);
	*ret = status_of(s->capture);
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

SIM_PAIR(cuStreamIsCapturing, _ptsz, (CUstream h, CUstreamCaptureStatus *ret),
	 return is_capturing(h, per_thread, ret);)

/* The nodes are a copy that lasts until the next question or until the stream goes on. */
static bool tell(struct sim_capture *c, const struct sim_deps *tips, const CUgraphNode **ret,
		 const CUgraphEdgeData **ret_edges)
{
	CUgraphNode *copy = calloc(tips->n + 1, sizeof(CUgraphNode));
	CUgraphEdgeData *edges = calloc(tips->n + 1, sizeof(*edges));

	if (!copy || !edges) {
		free(copy);
		free(edges);
		return false;
	}
	if (tips->n)
		memcpy(copy, tips->node, tips->n * sizeof(CUgraphNode));
	free(c->told);
	free(c->told_edges);
	c->told = copy;
	c->told_edges = edges;
	if (ret)
		*ret = copy;
	if (ret_edges)
		*ret_edges = edges;
	return true;
}

static CUresult info(CUstream h, bool per_thread, CUstreamCaptureStatus *status, uint64_t *id, CUgraph *graph,
		     const CUgraphNode **nodes, const CUgraphEdgeData **edges, size_t *n)
{
	CUstream s;
	CUresult r = peek(h, per_thread, &s);

	if (r)
		return r;
	if (!status)
		return CUDA_ERROR_INVALID_VALUE;
	*status = CU_STREAM_CAPTURE_STATUS_NONE;
	if (SIM_LIKELY(!s->capture))
		return CUDA_SUCCESS;
	pthread_mutex_lock(&lock);
	struct sim_capture *c = s->capture;

	*status = status_of(c);
	if (c && !c->lost) {
		if (id)
			*id = c->id;
		if (graph)
			*graph = c->graph;
		if ((nodes || edges) && !tell(c, &s->tips->set, nodes, edges))
			r = CUDA_ERROR_OUT_OF_MEMORY;
		if (n)
			*n = s->tips->set.n;
	}
	pthread_mutex_unlock(&lock);
	return r;
}

SIM_PAIR(cuStreamGetCaptureInfo, _ptsz, (CUstream h, CUstreamCaptureStatus *status, uint64_t *id),
	 return info(h, per_thread, status, id, NULL, NULL, NULL, NULL);)
SIM_PAIR(cuStreamGetCaptureInfo_v2, _ptsz,
	 (CUstream h, CUstreamCaptureStatus *status, uint64_t *id, CUgraph *graph, const CUgraphNode **nodes,
	  size_t *n),
	 return info(h, per_thread, status, id, graph, nodes, NULL, n);)
SIM_PAIR(cuStreamGetCaptureInfo_v3, _ptsz,
	 (CUstream h, CUstreamCaptureStatus *status, uint64_t *id, CUgraph *graph, const CUgraphNode **nodes,
	  const CUgraphEdgeData **edges, size_t *n),
	 return info(h, per_thread, status, id, graph, nodes, edges, n);)

static CUresult update(CUstream h, bool per_thread, const CUgraphNode *nodes, size_t n, unsigned int flags)
{
	struct sim_capture *c;
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_stream_get(ctx, h, per_thread, &s);
	if (!r && (flags > CU_STREAM_SET_CAPTURE_DEPENDENCIES || (n && !nodes)))
		r = CUDA_ERROR_INVALID_VALUE;
	if (r)
		return r;
	pthread_mutex_lock(&lock);
	c = s->capture;
	if (!c)
		r = CUDA_ERROR_ILLEGAL_STATE;
	else if (c->lost)
		r = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	for (size_t i = 0; i < n && !r; i++)
		if (sim_node_check(nodes[i], UINT32_MAX) || nodes[i]->graph != c->graph)
			r = CUDA_ERROR_INVALID_VALUE;
	if (!r && flags == CU_STREAM_SET_CAPTURE_DEPENDENCIES)
		s->tips->set.n = 0;
	for (size_t i = 0; i < n && !r; i++)
		if (!sim_deps_add(&s->tips->set, nodes[i]))
			r = lose(c, CUDA_ERROR_OUT_OF_MEMORY);
	pthread_mutex_unlock(&lock);
	return r;
}

SIM_PAIR(cuStreamUpdateCaptureDependencies, _ptsz,
	 (CUstream h, CUgraphNode *nodes, size_t n, unsigned int flags),
	 return update(h, per_thread, nodes, n, flags);)
SIM_PAIR(cuStreamUpdateCaptureDependencies_v2, _ptsz,
	 (CUstream h, CUgraphNode *nodes, const CUgraphEdgeData *edges, size_t n, unsigned int flags),
	 (void)edges;
	 return update(h, per_thread, nodes, n, flags);)
