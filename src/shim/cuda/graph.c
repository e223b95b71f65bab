/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Graphs: a launch is one command, with a cost of its own for each executable graph. Whatever changes one makes its cost stale: the
 * old one stands until the next launch was measured, and counts nothing after that.
 */
#include "shim/cuda/gating.h"

#include <stdlib.h>

/* A graph that was never launched: so much for each node; inference kernels take 2 to 113 us. */
#define NODE_GUESS_NS UINT64_C(10000)

struct exec {
	struct pen_gate *gate;           /* that the cost is of */
	struct pen_cost *cost;
	uint64_t guess_ns;
	_Atomic bool stale;
};

static struct pen_map execs;

/* ---- records ---------------------------------------------------------------------------------------------------- */

static struct exec *exec_new(CUgraphExec id, uint64_t guess_ns)
{
	struct exec *e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	e->guess_ns = guess_ns;
	atomic_init(&e->stale, true);    /* a handle is used again: what is known by its name is another graph's */
	if (pen_map_put(&execs, id, e) == 0)
		return e;
	free(e);
	return NULL;
}

void pen_cu_graph_made(CUgraphExec id, CUgraph graph)
{
	size_t nodes = 0;
	if (REAL(cuGraphGetNodes)(graph, NULL, &nodes) != CUDA_SUCCESS)
		nodes = 0;
	free(pen_map_take(&execs, id));
	exec_new(id, nodes ? nodes * NODE_GUESS_NS : PEN_COST_GUESS_NS);
}

void pen_cu_graph_gone(CUgraphExec id)
{
	free(pen_map_take(&execs, id));
}

/* One that came by an unknown way gets a record, too. NULL: out of memory. */
static struct exec *exec_of(CUgraphExec id)
{
	struct exec *e = pen_map_find(&execs, id);
	return e ? e : exec_new(id, PEN_COST_GUESS_NS);
}

static struct pen_cost *cost_of(struct pen_cu_stream *s, CUgraphExec id)
{
	struct exec *e = exec_of(id);
	if (!e)
		return NULL;
	if (e->gate != s->gate) {        /* the first launch, or on another device */
		e->cost = pen_gate_cost_guessed(s->gate, pen_cu_mix((uintptr_t)id, 3), 1, e->guess_ns);
		e->gate = s->gate;
	}
	if (atomic_exchange(&e->stale, false))
		pen_gate_cost_renew(e->cost);
	return e->cost;
}

/* ---- launching -------------------------------------------------------------------------------------------------- */

struct graph_cmd {
	struct pen_cu_cmd cmd;
	CUresult (*real)(CUgraphExec, CUstream);
	CUgraphExec exec;
	CUstream stream;
};

static CUresult run(struct pen_cu_cmd *cmd, const struct pen_piece *p)
{
	struct graph_cmd *g = (struct graph_cmd *)(void *)cmd;
	(void)p;
	return g->real(g->exec, g->stream);
}

/* @uploads: what the graph needs is brought to the device, and nothing of it runs. */
static CUresult submit(CUresult (*real)(CUgraphExec, CUstream), CUgraphExec exec, CUstream stream, bool per_thread, bool uploads)
{
	struct pen_cu_stream *s = pen_cu_thread.depth || !exec ? NULL : pen_cu_stream(stream, per_thread);
	if (!s)
		return real(exec, stream);
	CUresult r = pen_cu_mem_graph_runs(exec);
	if (r != CUDA_SUCCESS)
		return r;
	struct graph_cmd c = { .cmd = { .run = run, .stream = s }, .real = real, .exec = exec, .stream = stream };
	struct pen_gate_cmd g = { .kind = PEN_CMD_GRAPH, .est_ns = PEN_COST_FLOOR_NS };
	g.cost = uploads ? NULL : cost_of(s, exec);
	r = pen_cu_submit(&c.cmd, &g);
	if (r == CUDA_SUCCESS)
		pen_cu_mem_graph_ran(exec);
	return r;
}

CUresult pen_cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
	return submit(REAL(cuGraphLaunch), exec, stream, false, false);
}

CUresult pen_cuGraphLaunch_ptsz(CUgraphExec exec, CUstream stream)
{
	return submit(REAL(cuGraphLaunch_ptsz), exec, stream, true, false);
}

CUresult pen_cuGraphUpload(CUgraphExec exec, CUstream stream)
{
	return submit(REAL(cuGraphUpload), exec, stream, false, true);
}

CUresult pen_cuGraphUpload_ptsz(CUgraphExec exec, CUstream stream)
{
	return submit(REAL(cuGraphUpload_ptsz), exec, stream, true, true);
}

/* ---- changing --------------------------------------------------------------------------------------------------- */

static CUresult changed(CUresult r, CUgraphExec id)
{
	struct exec *e = r == CUDA_SUCCESS && !pen_cu_thread.depth ? pen_map_find(&execs, id) : NULL;
	if (e)
		atomic_store(&e->stale, true);
	return r;
}

CUresult pen_cuGraphExecUpdate(CUgraphExec exec, CUgraph graph, CUgraphNode *node, CUgraphExecUpdateResult *result)
{
	return changed(REAL(cuGraphExecUpdate)(exec, graph, node, result), exec);
}

CUresult pen_cuGraphExecUpdate_v2(CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo *info)
{
	return changed(REAL(cuGraphExecUpdate_v2)(exec, graph, info), exec);
}

CUresult pen_cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v1 *params)
{
	return changed(REAL(cuGraphExecKernelNodeSetParams)(exec, node, params), exec);
}

CUresult pen_cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v2 *params)
{
	return changed(REAL(cuGraphExecKernelNodeSetParams_v2)(exec, node, params), exec);
}

CUresult pen_cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_MEMCPY3D_v2 *params, CUcontext ctx)
{
	return changed(REAL(cuGraphExecMemcpyNodeSetParams)(exec, node, params, ctx), exec);
}

CUresult pen_cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS_v1 *params, CUcontext ctx)
{
	return changed(REAL(cuGraphExecMemsetNodeSetParams)(exec, node, params, ctx), exec);
}

CUresult pen_cuGraphExecChildGraphNodeSetParams(CUgraphExec exec, CUgraphNode node, CUgraph child)
{
	return changed(REAL(cuGraphExecChildGraphNodeSetParams)(exec, node, child), exec);
}

CUresult pen_cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode node, CUgraphNodeParams *params)
{
	return changed(REAL(cuGraphExecNodeSetParams)(exec, node, params), exec);
}

CUresult pen_cuGraphNodeSetEnabled(CUgraphExec exec, CUgraphNode node, unsigned int enabled)
{
	return changed(REAL(cuGraphNodeSetEnabled)(exec, node, enabled), exec);
}
