/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making executable graphs: unfolding, dealing steps to lanes, replacing parameters. Launching is
 * graphlaunch.c's.
 */
#include "simgpu/nvidia/cuda/exec.h"

#include <stdlib.h>
#include <string.h>

struct ints {
	uint32_t *v, n;
};

static bool add(struct ints *to, uint32_t v)
{
	for (uint32_t i = 0; i < to->n; i++)
		if (to->v[i] == v)
			return true;

	uint32_t *more = realloc(to->v, (to->n + 1) * sizeof(*more));

	if (!more)
		return false;
	to->v = more;
	to->v[to->n++] = v;
	return true;
}

static bool add_all(struct ints *to, const struct ints *from)
{
	for (uint32_t i = 0; i < from->n; i++)
		if (!add(to, from->v[i]))
			return false;
	return true;
}

static bool add_step(CUgraphExec e, CUgraphNode node, struct ints *deps, struct ints *ret_done)
{
	struct sim_step *more = realloc(e->step, (e->steps + 1) * sizeof(*more));

	if (!more)
		return false;
	e->step = more;
	e->step[e->steps] = (struct sim_step){ .node = node, .dep = deps->v, .deps = deps->n };
	*deps = (struct ints){ 0 };
	return add(ret_done, e->steps++);
}

static bool unfold(CUgraphExec e, CUgraph g, const struct ints *entry, struct ints *ret_leaves);

/* One node whose dependencies are done: a step, or the steps of a child graph. */
static bool unfold_node(CUgraphExec e, CUgraphNode n, const struct ints *done, const struct ints *entry,
			struct ints *ret_done)
{
	struct ints deps = { 0 };
	bool ok = true;

	for (size_t k = 0; k < n->deps.n && ok; k++)
		ok = add_all(&deps, &done[n->deps.node[k]->index]);
	if (ok && !n->deps.n)
		ok = add_all(&deps, entry);
	if (ok && n->p.type == CU_GRAPH_NODE_TYPE_GRAPH) {
		ok = unfold(e, n->p.graph.graph, &deps, ret_done);
		if (ok && !n->p.graph.graph->nodes.n)
			ok = add_all(ret_done, &deps);
	} else if (ok) {
		ok = add_step(e, n, &deps, ret_done);
	}
	free(deps.v);
	return ok;
}

/* Each node after those that it depends on, and else in the order in which they were made. */
static bool unfold(CUgraphExec e, CUgraph g, const struct ints *entry, struct ints *ret_leaves)
{
	size_t n = g->nodes.n, left = n;
	struct ints *done = calloc(n + 1, sizeof(*done));
	bool *gone = calloc(n + 1, sizeof(*gone));
	bool ok = done && gone;

	for (uint32_t i = 0; i < n; i++)
		g->nodes.node[i]->index = i;
	while (left && ok) {
		size_t before = left;

		for (size_t i = 0; i < n && ok; i++) {
			CUgraphNode node = g->nodes.node[i];
			bool ready = !gone[i];

			for (size_t k = 0; k < node->deps.n && ready; k++)
				ready = gone[node->deps.node[k]->index];
			if (!ready)
				continue;
			ok = unfold_node(e, node, done, entry, &done[i]);
			gone[i] = true;
			left--;
		}
		if (left == before)
			ok = false; /* a cycle, which nobody can make */
	}
	for (size_t i = 0; i < n && ok; i++)
		if (!g->nodes.node[i]->dependents.n)
			ok = add_all(ret_leaves, &done[i]);
	for (size_t i = 0; i < n && done; i++)
		free(done[i].v);
	free(done);
	free(gone);
	return ok;
}

/*
 * A step goes on in the lane of one that it depends on and that is last there; else it opens a lane, while
 * there are some.
 */
static void deal(CUgraphExec e)
{
	uint32_t tail[SIM_EXEC_LANES];

	memset(tail, 0xff, sizeof(tail));
	for (uint32_t i = 0; i < e->steps; i++) {
		struct sim_step *s = &e->step[i];
		uint32_t lane = UINT32_MAX;

		for (uint32_t k = 0; k < s->deps && lane == UINT32_MAX; k++)
			if (tail[e->step[s->dep[k]].lane] == s->dep[k])
				lane = e->step[s->dep[k]].lane;
		if (lane == UINT32_MAX)
			lane = e->lanes < SIM_EXEC_LANES ? e->lanes++ : i % SIM_EXEC_LANES;
		s->lane = lane;
		tail[lane] = i;
		if (s->node->p.type != CU_GRAPH_NODE_TYPE_KERNEL &&
		    s->node->p.type != CU_GRAPH_NODE_TYPE_EMPTY)
			e->effects = true;
	}
}

/* ---- life ---- */

CUresult sim_exec_check(CUgraphExec e)
{
	return e && e->tag == SIM_TAG_EXEC ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static void unmake(CUgraphExec e)
{
	for (uint32_t i = 0; i < e->steps; i++)
		free(e->step[i].dep);
	free(e->step);
	for (uint32_t i = 0; i < SIM_EXEC_LANES; i++)
		if (e->lane[i])
			sim_stream_drop(e->lane[i]);
	if (e->graph)
		sim_graph_unmake(e->graph);
	e->tag = 0;
	free(e);
}

CUresult sim_exec_make(CUgraph g, unsigned long long flags, CUgraphExec *ret, CUgraphNode *ret_bad)
{
	struct ints none = { 0 }, leaves = { 0 };
	CUgraphExec e;
	CUresult r = sim_graph_check(g);

	if (ret_bad)
		*ret_bad = NULL;
	if (r)
		return r;
	if (!ret || flags & ~(unsigned long long)(CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH |
						  CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD |
						  CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH |
						  CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY))
		return CUDA_ERROR_INVALID_VALUE;
	if (flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH)
		return CUDA_ERROR_NOT_SUPPORTED; /* kernels run no code here that could launch one */
	e = calloc(1, sizeof(*e));
	if (!e)
		return CUDA_ERROR_OUT_OF_MEMORY;
	pthread_mutex_init(&e->lock, NULL);
	e->flags = flags;
	r = sim_graph_clone(g, &e->graph);
	if (!r && !unfold(e, e->graph, &none, &leaves))
		r = CUDA_ERROR_OUT_OF_MEMORY;
	free(leaves.v);
	if (r) {
		unmake(e);
		return r;
	}
	deal(e);
	for (uint32_t i = 0; i < e->steps && !(flags & CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY); i++)
		e->step[i].node->attrs &= ~(1u << CU_LAUNCH_ATTRIBUTE_PRIORITY);
	e->tag = SIM_TAG_EXEC;
	*ret = e;
	return CUDA_SUCCESS;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *ret, CUgraph g, unsigned long long flags)
{
	return sim_exec_make(g, flags, ret, NULL);
}

CUresult cuGraphInstantiate_v2(CUgraphExec *ret, CUgraph g, CUgraphNode *bad, char *log, size_t room)
{
	if (log && room)
		log[0] = '\0';
	return sim_exec_make(g, 0, ret, bad);
}

CUresult cuGraphInstantiate(CUgraphExec *ret, CUgraph g, CUgraphNode *bad, char *log, size_t room)
{
	return cuGraphInstantiate_v2(ret, g, bad, log, room);
}

SIM_PAIR(cuGraphInstantiateWithParams, _ptsz,
	 (CUgraphExec * ret, CUgraph g, CUDA_GRAPH_INSTANTIATE_PARAMS *p), {
		 CUresult r =
			 p ? sim_exec_make(g, p->flags, ret, &p->hErrNode_out) : CUDA_ERROR_INVALID_VALUE;

		 if (p)
			 p->result_out = r ? CUDA_GRAPH_INSTANTIATE_ERROR : CUDA_GRAPH_INSTANTIATE_SUCCESS;
		 if (!r && p->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD)
			 r = per_thread ? cuGraphUpload_ptsz(*ret, p->hUploadStream)
					: cuGraphUpload(*ret, p->hUploadStream);
		 return r;
	 })

CUresult cuGraphExecDestroy(CUgraphExec e)
{
	CUresult r = sim_exec_check(e);

	if (!r)
		unmake(e);
	return r;
}

CUresult cuGraphExecGetFlags(CUgraphExec e, uint64_t *flags)
{
	CUresult r = sim_exec_check(e);

	if (!r && !flags)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*flags = e->flags;
	return r;
}

/* ---- other parameters ---- */

CUresult sim_exec_set(CUgraphExec e, CUgraphNode node, CUgraphNodeParams *p)
{
	CUgraphNode mine;
	CUresult r = sim_exec_check(e);

	if (!r)
		r = sim_node_check(node, p->type);
	if (r)
		return r;
	mine = sim_graph_find_origin(e->graph, node->id);
	if (!mine)
		mine = sim_graph_find_origin(e->graph, node->origin);
	if (!mine || mine->p.type == CU_GRAPH_NODE_TYPE_MEM_ALLOC ||
	    mine->p.type == CU_GRAPH_NODE_TYPE_MEM_FREE)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&e->lock);
	r = sim_node_set(mine, p);
	pthread_mutex_unlock(&e->lock);
	return r;
}

CUresult cuGraphExecNodeSetParams(CUgraphExec e, CUgraphNode node, CUgraphNodeParams *p)
{
	return p ? sim_exec_set(e, node, p) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGraphExecKernelNodeSetParams(CUgraphExec e, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v1 *k)
{
	if (!k)
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = sim_kernel_params_v1(k);

	return sim_exec_set(e, node, &p);
}

CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec e, CUgraphNode node,
					   const CUDA_KERNEL_NODE_PARAMS_v2 *k)
{
	if (!k)
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = sim_kernel_params_v2(k);

	return sim_exec_set(e, node, &p);
}

CUresult cuGraphExecMemcpyNodeSetParams(CUgraphExec e, CUgraphNode node, const CUDA_MEMCPY3D_v2 *c,
					CUcontext ctx)
{
	if (!c)
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_MEMCPY,
				.memcpy = { .copyCtx = ctx, .copyParams = *c } };

	return sim_exec_set(e, node, &p);
}

CUresult cuGraphExecMemsetNodeSetParams(CUgraphExec e, CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS_v1 *f,
					CUcontext ctx)
{
	if (!f)
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_MEMSET,
				.memset = { f->dst, f->pitch, f->value, f->elementSize, f->width, f->height,
					    ctx } };

	return sim_exec_set(e, node, &p);
}

CUresult cuGraphExecHostNodeSetParams(CUgraphExec e, CUgraphNode node, const CUDA_HOST_NODE_PARAMS_v1 *h)
{
	if (!h)
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_HOST, .host = { h->fn, h->userData } };

	return sim_exec_set(e, node, &p);
}

static CUresult set_event(CUgraphExec e, CUgraphNode node, CUgraphNodeType type, CUevent event)
{
	CUgraphNodeParams p = { .type = type, .eventWait = { event } };

	return sim_exec_set(e, node, &p);
}

CUresult cuGraphExecEventRecordNodeSetEvent(CUgraphExec e, CUgraphNode node, CUevent event)
{
	return set_event(e, node, CU_GRAPH_NODE_TYPE_EVENT_RECORD, event);
}

CUresult cuGraphExecEventWaitNodeSetEvent(CUgraphExec e, CUgraphNode node, CUevent event)
{
	return set_event(e, node, CU_GRAPH_NODE_TYPE_WAIT_EVENT, event);
}

CUresult cuGraphExecBatchMemOpNodeSetParams(CUgraphExec e, CUgraphNode node,
					    const CUDA_BATCH_MEM_OP_NODE_PARAMS *m)
{
	if (!m)
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_BATCH_MEM_OP,
				.memOp = { m->ctx, m->count, m->paramArray, m->flags } };

	return sim_exec_set(e, node, &p);
}

/* ---- a whole graph's parameters ---- */

struct update {
	CUgraphExecUpdateResult result;
	CUgraphNode node, from; /* of the new graph; that it should have come from */
};

static bool fail(struct update *u, CUgraphExecUpdateResult result, CUgraphNode node)
{
	u->result = result;
	u->node = node;
	return false;
}

/* Nodes are paired by the order in which they were made. */
static bool same_shape(CUgraph mine, CUgraph other, struct update *u)
{
	if (mine->nodes.n != other->nodes.n)
		return fail(u, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED, NULL);
	for (uint32_t i = 0; i < mine->nodes.n; i++)
		mine->nodes.node[i]->index = other->nodes.node[i]->index = i;
	for (size_t i = 0; i < mine->nodes.n; i++) {
		CUgraphNode a = mine->nodes.node[i], b = other->nodes.node[i];

		if (a->p.type != b->p.type)
			return fail(u, CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED, b);
		if (a->deps.n != b->deps.n)
			return fail(u, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED, b);
		for (size_t k = 0; k < a->deps.n; k++) {
			bool found = false;

			for (size_t m = 0; m < b->deps.n && !found; m++)
				found = b->deps.node[m]->index == a->deps.node[k]->index;
			if (!found) {
				u->from = b->deps.n ? b->deps.node[0] : NULL;
				return fail(u, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED, b);
			}
		}
		if (a->p.type == CU_GRAPH_NODE_TYPE_GRAPH &&
		    !same_shape(a->p.graph.graph, b->p.graph.graph, u))
			return false;
	}
	return true;
}

static bool take_params(CUgraph mine, CUgraph other, struct update *u)
{
	for (size_t i = 0; i < mine->nodes.n; i++) {
		CUgraphNode a = mine->nodes.node[i], b = other->nodes.node[i];
		CUgraphNodeParams p = b->p;

		if (a->p.type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || a->p.type == CU_GRAPH_NODE_TYPE_MEM_FREE) {
			if (a->p.type == CU_GRAPH_NODE_TYPE_MEM_ALLOC ? a->block != b->block
								      : a->p.free.dptr != b->p.free.dptr)
				return fail(u, CU_GRAPH_EXEC_UPDATE_ERROR_NOT_SUPPORTED, b);
		} else if (a->p.type == CU_GRAPH_NODE_TYPE_GRAPH) {
			if (!take_params(a->p.graph.graph, b->p.graph.graph, u))
				return false;
		} else if (sim_node_set(a, &p)) {
			return fail(u, CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED, b);
		}
	}
	return true;
}

static CUresult update(CUgraphExec e, CUgraph g, struct update *u)
{
	CUresult r = sim_exec_check(e);

	if (!r)
		r = sim_graph_check(g);
	if (r)
		return r;
	pthread_mutex_lock(&e->lock);
	bool ok = same_shape(e->graph, g, u) && take_params(e->graph, g, u);
	pthread_mutex_unlock(&e->lock);
	return ok ? CUDA_SUCCESS : CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
}

CUresult cuGraphExecUpdate_v2(CUgraphExec e, CUgraph g, CUgraphExecUpdateResultInfo *ret)
{
	struct update u = { 0 };
	CUresult r = ret ? update(e, g, &u) : CUDA_ERROR_INVALID_VALUE;

	if (ret)
		*ret = (CUgraphExecUpdateResultInfo){ u.result, u.node, u.from };
	return r;
}

CUresult cuGraphExecUpdate(CUgraphExec e, CUgraph g, CUgraphNode *ret_node, CUgraphExecUpdateResult *ret)
{
	struct update u = { 0 };
	CUresult r = ret ? update(e, g, &u) : CUDA_ERROR_INVALID_VALUE;

	if (ret)
		*ret = u.result;
	if (ret_node)
		*ret_node = u.node;
	return r;
}

CUresult cuGraphExecChildGraphNodeSetParams(CUgraphExec e, CUgraphNode node, CUgraph child)
{
	struct update u = { 0 };
	CUgraphNode mine;
	CUresult r = sim_exec_check(e);

	if (!r)
		r = sim_node_check(node, CU_GRAPH_NODE_TYPE_GRAPH);
	if (!r)
		r = sim_graph_check(child);
	mine = r ? NULL : sim_graph_find_origin(e->graph, node->id);
	if (!mine)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&e->lock);
	bool ok = same_shape(mine->p.graph.graph, child, &u) && take_params(mine->p.graph.graph, child, &u);
	pthread_mutex_unlock(&e->lock);
	return ok ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
