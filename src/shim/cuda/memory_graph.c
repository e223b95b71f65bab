/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of graphs. Nodes that allocate take nothing when they are added or recorded; the driver finds memory for an executable graph
 * at the latest when it is launched, keeps it on the device for other graphs, and gives it back when it is told to trim.
 *
 * An executable graph is charged the sum of its nodes when it is made, which is the most that it can take. Once it has run, what
 * the driver says it holds for graphs stands for it; many graphs may share that. After a trim it is charged anew before it runs.
 * What two graphs that share memory take besides when they run at the same time, the driver says only afterwards: it is charged
 * then, also above the contract, and nothing more is to be had.
 */
#include "shim/cuda/memory.h"

#include "base/auto.h"

#include <stdlib.h>

#define NODE_BYTES UINT64_C(2097152)   /* what the driver maps for a node is whole pages of the device; an estimate */
#define DEPTH 8                        /* graphs inside of graphs */
#define PARTS 16                       /* devices of one graph */

struct part {
	struct pen_cu_device *device;
	uint64_t bytes;
	uint64_t trims;        /* of the device when it ran last; this and the rest under the device's lock */
	uint64_t waiting;      /* bytes that are charged by themselves, until the driver holds them */
	bool ran;              /* what the driver holds stands for it */
};

struct exec {
	uint32_t process;
	uint32_t n;
	struct part part[PARTS];
};

static struct pen_map execs;

/* ---- what a graph takes --------------------------------------------------------------------------------------------- */

static void add(struct exec *e, CUdevice id, uint64_t bytes)
{
	struct pen_cu_device *d = pen_cu_device(id);
	uint32_t i = 0;
	while (i < e->n && e->part[i].device != d)
		i++;
	if (!d || i == PARTS)
		return;
	if (i == e->n)
		e->part[e->n++] = (struct part){ .device = d };
	uint64_t whole = bytes > UINT64_MAX - NODE_BYTES ? UINT64_MAX : (bytes + NODE_BYTES - 1) / NODE_BYTES * NODE_BYTES;
	e->part[i].bytes = whole > UINT64_MAX - e->part[i].bytes ? UINT64_MAX : e->part[i].bytes + whole;
}

static void add_graph(struct exec *e, CUgraph graph, unsigned depth);

static void add_node(struct exec *e, CUgraphNode node, unsigned depth)
{
	CUgraphNodeType type;
	CUgraph child;
	CUDA_MEM_ALLOC_NODE_PARAMS params = { .bytesize = 0 };
	if (REAL(cuGraphNodeGetType)(node, &type) != CUDA_SUCCESS)
		return;
	if (type == CU_GRAPH_NODE_TYPE_MEM_ALLOC && REAL(cuGraphMemAllocNodeGetParams)(node, &params) == CUDA_SUCCESS)
		add(e, params.poolProps.location.id, params.bytesize);
	if (type == CU_GRAPH_NODE_TYPE_GRAPH && REAL(cuGraphChildGraphNodeGetGraph)(node, &child) == CUDA_SUCCESS)
		add_graph(e, child, depth + 1);
}

static void add_graph(struct exec *e, CUgraph graph, unsigned depth)
{
	size_t n = 0;
	if (depth == DEPTH || REAL(cuGraphGetNodes)(graph, NULL, &n) != CUDA_SUCCESS || !n)
		return;
	pen_auto_free CUgraphNode *nodes = calloc(n, sizeof(*nodes));
	if (!nodes || REAL(cuGraphGetNodes)(graph, nodes, &n) != CUDA_SUCCESS)
		return;
	for (size_t i = 0; i < n; i++)
		add_node(e, nodes[i], depth);
}

/* ---- the charge ------------------------------------------------------------------------------------------------------ */

/* Charged by itself, beside what the driver holds already. */
static bool wait_part(struct part *p, uint64_t bytes)
{
	struct pen_cu_graph_memory *m = &p->device->graph_memory;
	if (pen_cu_charge(p->device, bytes) < 0)
		return false;
	pen_forklock_take(&m->lock);
	p->waiting += bytes;
	m->waiting += bytes;
	m->charged += bytes;
	pen_forklock_give(&m->lock);
	atomic_store(&m->used, 1);
	return true;
}

/* No longer: it runs (@ran), or is no more. The charge itself is settled afterwards. */
static void unwait_part(struct part *p, bool ran)
{
	struct pen_cu_graph_memory *m = &p->device->graph_memory;
	pen_forklock_take(&m->lock);
	m->waiting -= PEN_MIN(p->waiting, m->waiting);
	p->waiting = 0;
	if (ran != p->ran)
		m->ran += ran ? p->bytes : -p->bytes;
	p->ran = ran;
	p->trims = m->trims;
	pen_forklock_give(&m->lock);
}

static uint64_t reserved_bytes(struct pen_cu_device *d)
{
	uint64_t v = 0;
	if (!REAL(cuDeviceGetGraphMemAttribute) ||
	    PEN_CU_INSIDE(REAL(cuDeviceGetGraphMemAttribute)(d->id, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &v)) != CUDA_SUCCESS)
		return 0;
	return v;
}

/* As for pools: answers that come out of order are told by their number. */
static void settle(struct pen_cu_device *d)
{
	struct pen_cu_graph_memory *m = &d->graph_memory;
	struct pen_gate *g = pen_cu_gate(d);
	if (!g)
		return;
	pen_forklock_take(&m->lock);
	uint64_t number = ++m->ticket;
	pen_forklock_give(&m->lock);
	uint64_t holds = reserved_bytes(d);
	pen_forklock_take(&m->lock);
	if (number > m->applied) {
		uint64_t target = holds + m->waiting;
		m->applied = number;
		pen_cu_recharge(g, m->charged, target, true);
		m->charged = target;
	}
	pen_forklock_give(&m->lock);
}

void pen_cu_graphs_settle(struct pen_cu_device *d, bool trim)
{
	settle(d);
	if (trim && d->graph_memory.charged > d->graph_memory.waiting && REAL(cuDeviceGraphMemTrim))
		(void)pen_cuDeviceGraphMemTrim(d->id);
}

CUresult pen_cuDeviceGraphMemTrim(CUdevice id)
{
	PEN_CU_NESTED(cuDeviceGraphMemTrim, id);
	struct pen_cu_device *d = pen_cu_device(id);
	if (d) {
		/* Before: who runs meanwhile looks whether it still has its memory. */
		pen_forklock_take(&d->graph_memory.lock);
		d->graph_memory.trims++;
		pen_forklock_give(&d->graph_memory.lock);
	}
	CUresult r = PEN_CU_INSIDE(REAL(cuDeviceGraphMemTrim)(id));
	if (d)
		settle(d);
	return r;
}

/* ---- executable graphs ------------------------------------------------------------------------------------------------ */

static void end_exec(struct exec *e)
{
	bool here = e->process == pen_forklock_process();
	for (uint32_t i = 0; i < e->n && here; i++) {
		unwait_part(&e->part[i], false);
		pen_gate_mem_refund(e->part[i].device->gate, 0, false);
		settle(e->part[i].device);
	}
	free(e);
}

/* The charge of a graph to be made executable. NULL and success: it takes nothing. */
static struct exec *begin_exec(CUgraph graph, CUresult *ret)
{
	*ret = CUDA_SUCCESS;
	if (!graph || !REAL(cuGraphMemAllocNodeGetParams) || !REAL(cuGraphGetNodes) || !REAL(cuGraphNodeGetType))
		return NULL;
	struct exec *e = calloc(1, sizeof(*e));
	*ret = CUDA_ERROR_OUT_OF_MEMORY;
	if (!e)
		return NULL;
	e->process = pen_forklock_process();
	pen_cu_thread.depth++;
	add_graph(e, graph, 0);
	pen_cu_thread.depth--;
	uint32_t all = e->n;
	for (e->n = 0; e->n < all && wait_part(&e->part[e->n], e->part[e->n].bytes); e->n++)
		;
	if (all && e->n == all) {
		*ret = CUDA_SUCCESS;
		return e;
	}
	if (!all)
		*ret = CUDA_SUCCESS;
	end_exec(e);
	return NULL;
}

/* It was made, or not. @uploaded: and has its memory. */
static CUresult made(struct exec *e, CUgraphExec *exec, CUgraph graph, CUresult r, bool uploaded)
{
	if (r == CUDA_SUCCESS && e && pen_map_put(&execs, *exec, e) < 0) {
		(void)PEN_CU_INSIDE(REAL(cuGraphExecDestroy)(*exec));
		r = CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (r != CUDA_SUCCESS) {
		if (e)
			end_exec(e);
		return r;
	}
	pen_cu_graph_made(*exec, graph);
	if (uploaded)
		pen_cu_mem_graph_ran(*exec);
	return r;
}

CUresult pen_cuGraphInstantiate(CUgraphExec *exec, CUgraph graph, CUgraphNode *node, char *log, size_t n)
{
	CUresult r;
	PEN_CU_NESTED(cuGraphInstantiate, exec, graph, node, log, n);
	struct exec *e = begin_exec(graph, &r);
	return r != CUDA_SUCCESS ? r : made(e, exec, graph, PEN_CU_INSIDE(REAL(cuGraphInstantiate)(exec, graph, node, log, n)), false);
}

CUresult pen_cuGraphInstantiate_v2(CUgraphExec *exec, CUgraph graph, CUgraphNode *node, char *log, size_t n)
{
	CUresult r;
	PEN_CU_NESTED(cuGraphInstantiate_v2, exec, graph, node, log, n);
	struct exec *e = begin_exec(graph, &r);
	return r != CUDA_SUCCESS ? r : made(e, exec, graph, PEN_CU_INSIDE(REAL(cuGraphInstantiate_v2)(exec, graph, node, log, n)), false);
}

CUresult pen_cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
	CUresult r;
	PEN_CU_NESTED(cuGraphInstantiateWithFlags, exec, graph, flags);
	struct exec *e = begin_exec(graph, &r);
	return r != CUDA_SUCCESS ? r : made(e, exec, graph, PEN_CU_INSIDE(REAL(cuGraphInstantiateWithFlags)(exec, graph, flags)), false);
}

CUresult pen_cuGraphInstantiateWithParams(CUgraphExec *exec, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
	CUresult r;
	PEN_CU_NESTED(cuGraphInstantiateWithParams, exec, graph, params);
	struct exec *e = begin_exec(graph, &r);
	bool upload = params && params->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD;
	return r != CUDA_SUCCESS ? r : made(e, exec, graph, PEN_CU_INSIDE(REAL(cuGraphInstantiateWithParams)(exec, graph, params)), upload);
}

CUresult pen_cuGraphInstantiateWithParams_ptsz(CUgraphExec *exec, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
	CUresult r;
	PEN_CU_NESTED(cuGraphInstantiateWithParams_ptsz, exec, graph, params);
	struct exec *e = begin_exec(graph, &r);
	bool upload = params && params->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD;
	return r != CUDA_SUCCESS ? r : made(e, exec, graph, PEN_CU_INSIDE(REAL(cuGraphInstantiateWithParams_ptsz)(exec, graph, params)), upload);
}

CUresult pen_cuGraphExecDestroy(CUgraphExec exec)
{
	PEN_CU_NESTED(cuGraphExecDestroy, exec);
	struct exec *e = exec && !pen_map_empty(&execs) ? pen_map_take(&execs, exec) : NULL;
	if (exec)
		pen_cu_graph_gone(exec);
	CUresult r = PEN_CU_INSIDE(REAL(cuGraphExecDestroy)(exec));
	if (e && r == CUDA_SUCCESS)
		end_exec(e);
	else if (e)
		pen_map_put(&execs, exec, e);
	return r;
}

/* ---- a run ------------------------------------------------------------------------------------------------------------ */

/* After a trim: what the driver does not hold any more of all that has run may have been this one's. */
static uint64_t missing(struct part *p)
{
	struct pen_cu_graph_memory *m = &p->device->graph_memory;
	pen_forklock_take(&m->lock);
	bool trimmed = p->ran && !p->waiting && p->trims != m->trims;
	uint64_t ran = m->ran;
	pen_forklock_give(&m->lock);
	uint64_t holds = trimmed ? reserved_bytes(p->device) : ran;
	return holds < ran ? PEN_MIN(ran - holds, p->bytes) : 0;
}

/* The application must not destroy it while it launches it; should it, the record stays until we have left. */
CUresult pen_cu_mem_graph_runs(CUgraphExec exec)
{
	if (pen_map_empty(&execs))
		return CUDA_SUCCESS;
	CUresult r = CUDA_SUCCESS;
	uint32_t in = pen_map_enter(&execs);
	struct exec *e = pen_map_find(&execs, exec);
	for (uint32_t i = 0; e && i < e->n && r == CUDA_SUCCESS; i++) {
		uint64_t bytes = missing(&e->part[i]);
		if (bytes && !wait_part(&e->part[i], bytes))
			r = CUDA_ERROR_OUT_OF_MEMORY;
		else if (bytes)
			pen_gate_mem_refund(e->part[i].device->gate, 0, false);   /* the same object */
	}
	pen_map_leave(&execs, in);
	return r;
}

void pen_cu_mem_graph_ran(CUgraphExec exec)
{
	if (pen_map_empty(&execs))
		return;
	uint32_t in = pen_map_enter(&execs);
	struct exec *e = pen_map_find(&execs, exec);
	for (uint32_t i = 0; e && i < e->n; i++) {
		unwait_part(&e->part[i], true);
		settle(e->part[i].device);
	}
	pen_map_leave(&execs, in);
}
