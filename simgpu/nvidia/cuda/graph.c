/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs and their shape: nodes, dependencies, clones. What nodes do is node.c's. */
#include "simgpu/nvidia/cuda/graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- sets of nodes ---- */

bool sim_deps_has(const struct sim_deps *d, CUgraphNode n)
{
	for (size_t i = 0; i < d->n; i++)
		if (d->node[i] == n)
			return true;
	return false;
}

bool sim_deps_add(struct sim_deps *d, CUgraphNode n)
{
	if (sim_deps_has(d, n))
		return true;
	if (d->n == d->room) {
		size_t room = d->room ? 2 * d->room : 4;
		CUgraphNode *more = realloc(d->node, room * sizeof(CUgraphNode));

		if (!more)
			return false;
		d->node = more;
		d->room = room;
	}
	d->node[d->n++] = n;
	return true;
}

void sim_deps_remove(struct sim_deps *d, CUgraphNode n)
{
	for (size_t i = 0; i < d->n; i++)
		if (d->node[i] == n) {
			memmove(&d->node[i], &d->node[i + 1], (--d->n - i) * sizeof(CUgraphNode));
			return;
		}
}

void sim_deps_clear(struct sim_deps *d)
{
	free(d->node);
	*d = (struct sim_deps){ 0 };
}

bool sim_deps_copy(struct sim_deps *to, const struct sim_deps *from)
{
	sim_deps_clear(to);
	for (size_t i = 0; i < from->n; i++)
		if (!sim_deps_add(to, from->node[i]))
			return false;
	return true;
}

/* ---- life ---- */

CUresult sim_graph_check(CUgraph g)
{
	return g && g->tag == SIM_TAG_GRAPH ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult sim_node_check(CUgraphNode n, CUgraphNodeType type)
{
	return n && n->tag == SIM_TAG_NODE && (type == UINT32_MAX || n->p.type == type)
		       ? CUDA_SUCCESS
		       : CUDA_ERROR_INVALID_VALUE;
}

CUresult sim_graph_make(CUgraph *ret)
{
	CUgraph g = calloc(1, sizeof(*g));

	if (!g)
		return CUDA_ERROR_OUT_OF_MEMORY;
	g->tag = SIM_TAG_GRAPH;
	*ret = g;
	return CUDA_SUCCESS;
}

void sim_graph_unmake(CUgraph g)
{
	while (g->nodes.n)
		sim_node_remove(g->nodes.node[g->nodes.n - 1]);
	sim_deps_clear(&g->nodes);
	sim_user_refs_drop(&g->user);
	g->tag = 0;
	free(g);
}

CUresult cuGraphCreate(CUgraph *ret, unsigned int flags)
{
	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	return ret && !flags ? sim_graph_make(ret) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGraphDestroy(CUgraph g)
{
	CUresult r = sim_graph_check(g);

	if (!r && g->owner)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		sim_graph_unmake(g);
	return r;
}

static CUgraphNode clone_of(CUgraph clone, CUgraphNode original)
{
	for (size_t i = 0; i < clone->nodes.n; i++)
		if (clone->nodes.node[i]->origin == original->id)
			return clone->nodes.node[i];
	return NULL;
}

/* A node's copy is made before its dependencies are drawn: those may come later in the list. */
static CUresult clone_node(CUgraph clone, CUgraphNode original)
{
	CUgraphNodeParams p = original->p;
	CUgraphNode n;
	CUresult r = sim_node_add(clone, NULL, NULL, 0, &p, &n);

	if (r)
		return r;
	n->origin = original->id;
	memcpy(n->attr, original->attr, sizeof(n->attr));
	n->attrs = original->attrs;
	/* The clone allocates the same memory, at the same address. */
	if (original->block) {
		sim_graph_block_unref(n->block);
		sim_graph_block_ref(original->block);
		n->block = original->block;
		n->p.alloc.dptr = original->p.alloc.dptr;
	}
	return CUDA_SUCCESS;
}

static bool link_nodes(CUgraphNode from, CUgraphNode to, const CUgraphEdgeData *edge)
{
	static const CUgraphEdgeData plain;

	if (sim_deps_has(&to->deps, from))
		return true;
	if (!sim_deps_add(&to->deps, from))
		return false;
	if (!sim_deps_add(&from->dependents, to)) {
		sim_deps_remove(&to->deps, from);
		return false;
	}
	CUgraphEdgeData *more = realloc(to->edge, to->deps.n * sizeof(*more));
	if (!more)
		return false;
	to->edge = more;
	to->edge[to->deps.n - 1] = edge ? *edge : plain;
	return true;
}

static void unlink_nodes(CUgraphNode from, CUgraphNode to)
{
	for (size_t i = 0; i < to->deps.n; i++)
		if (to->deps.node[i] == from)
			memmove(&to->edge[i], &to->edge[i + 1], (to->deps.n - 1 - i) * sizeof(*to->edge));
	sim_deps_remove(&to->deps, from);
	sim_deps_remove(&from->dependents, to);
}

CUresult sim_graph_clone(CUgraph g, CUgraph *ret)
{
	CUgraph clone;
	CUresult r = sim_graph_make(&clone);

	if (r)
		return r;
	for (size_t i = 0; i < g->nodes.n && !r; i++)
		r = clone_node(clone, g->nodes.node[i]);
	for (size_t i = 0; i < g->nodes.n && !r; i++) {
		CUgraphNode n = g->nodes.node[i];

		for (size_t k = 0; k < n->deps.n && !r; k++)
			if (!link_nodes(clone_of(clone, n->deps.node[k]), clone->nodes.node[i], &n->edge[k]))
				r = CUDA_ERROR_OUT_OF_MEMORY;
	}
	sim_user_refs_copy(&clone->user, g->user);
	if (r) {
		sim_graph_unmake(clone);
		return r;
	}
	*ret = clone;
	return CUDA_SUCCESS;
}

CUresult cuGraphClone(CUgraph *ret, CUgraph g)
{
	CUresult r = sim_graph_check(g);

	if (!r && !ret)
		r = CUDA_ERROR_INVALID_VALUE;
	return r ? r : sim_graph_clone(g, ret);
}

CUgraphNode sim_graph_find_origin(CUgraph g, uint64_t origin)
{
	for (size_t i = 0; i < g->nodes.n; i++) {
		CUgraphNode n = g->nodes.node[i], in;

		if (n->origin == origin)
			return n;
		in = n->p.type == CU_GRAPH_NODE_TYPE_GRAPH ? sim_graph_find_origin(n->p.graph.graph, origin)
							   : NULL;
		if (in)
			return in;
	}
	return NULL;
}

CUresult cuGraphNodeFindInClone(CUgraphNode *ret, CUgraphNode original, CUgraph clone)
{
	CUresult r = sim_graph_check(clone);

	if (!r)
		r = sim_node_check(original, UINT32_MAX);
	if (r || !ret)
		return CUDA_ERROR_INVALID_VALUE;
	*ret = clone_of(clone, original);
	return *ret ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- nodes ---- */

CUresult sim_node_add(CUgraph g, const CUgraphNode *deps, const CUgraphEdgeData *edges, size_t n,
		      CUgraphNodeParams *p, CUgraphNode *ret)
{
	static _Atomic uint64_t next_id = 1;
	CUgraphNode node;
	CUresult r = sim_graph_check(g);

	if (r)
		return r;
	if (!ret || !p || (n && !deps))
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < n; i++) {
		if (sim_node_check(deps[i], UINT32_MAX) || deps[i]->graph != g)
			return CUDA_ERROR_INVALID_VALUE;
		for (size_t k = 0; k < i; k++)
			if (deps[k] == deps[i])
				return CUDA_ERROR_INVALID_VALUE;
	}
	node = calloc(1, sizeof(*node));
	if (!node)
		return CUDA_ERROR_OUT_OF_MEMORY;
	node->tag = SIM_TAG_NODE;
	node->id = node->origin = atomic_fetch_add(&next_id, 1);
	node->graph = g;
	node->p.type = p->type;
	r = sim_node_set(node, p);
	if (!r && !sim_deps_add(&g->nodes, node))
		r = CUDA_ERROR_OUT_OF_MEMORY;
	for (size_t i = 0; i < n && !r; i++)
		if (!link_nodes(deps[i], node, edges ? &edges[i] : NULL))
			r = CUDA_ERROR_OUT_OF_MEMORY;
	if (r) {
		sim_node_remove(node);
		return r;
	}
	*ret = node;
	return CUDA_SUCCESS;
}

CUresult cuGraphDestroyNode(CUgraphNode n)
{
	CUresult r = sim_node_check(n, UINT32_MAX);

	/* Memory nodes cannot be taken out again. */
	if (!r && (n->p.type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || n->p.type == CU_GRAPH_NODE_TYPE_MEM_FREE))
		r = CUDA_ERROR_NOT_SUPPORTED;
	if (!r)
		sim_node_remove(n);
	return r;
}

CUresult cuGraphNodeGetType(CUgraphNode n, CUgraphNodeType *ret)
{
	CUresult r = sim_node_check(n, UINT32_MAX);

	if (!r && !ret)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*ret = n->p.type;
	return r;
}

/*
 * As all these calls answer: without a list the number there is; with one as many as fit, the rest of it
 * NULL, and how many were written.
 */
static CUresult give(const struct sim_deps *d, const CUgraphEdgeData *edges, CUgraphNode *list,
		     CUgraphEdgeData *ret_edges, size_t *n)
{
	if (!n)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; list && i < *n; i++) {
		list[i] = i < d->n ? d->node[i] : NULL;
		if (ret_edges)
			ret_edges[i] = i < d->n && edges ? edges[i] : (CUgraphEdgeData){ 0 };
	}
	if (!list || *n > d->n)
		*n = d->n;
	return CUDA_SUCCESS;
}

CUresult cuGraphGetNodes(CUgraph g, CUgraphNode *list, size_t *n)
{
	CUresult r = sim_graph_check(g);

	return r ? r : give(&g->nodes, NULL, list, NULL, n);
}

CUresult cuGraphGetRootNodes(CUgraph g, CUgraphNode *list, size_t *n)
{
	struct sim_deps roots = { 0 };
	CUresult r = sim_graph_check(g);

	for (size_t i = 0; !r && i < g->nodes.n; i++)
		if (!g->nodes.node[i]->deps.n && !sim_deps_add(&roots, g->nodes.node[i]))
			r = CUDA_ERROR_OUT_OF_MEMORY;
	if (!r)
		r = give(&roots, NULL, list, NULL, n);
	sim_deps_clear(&roots);
	return r;
}

CUresult cuGraphGetEdges_v2(CUgraph g, CUgraphNode *from, CUgraphNode *to, CUgraphEdgeData *edges, size_t *n)
{
	size_t count = 0;
	CUresult r = sim_graph_check(g);

	if (r || !n || !from != !to)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < g->nodes.n; i++) {
		CUgraphNode node = g->nodes.node[i];

		for (size_t k = 0; k < node->deps.n; k++, count++) {
			if (!from || count >= *n)
				continue;
			from[count] = node->deps.node[k];
			to[count] = node;
			if (edges)
				edges[count] = node->edge[k];
		}
	}
	for (size_t i = count; from && i < *n; i++)
		from[i] = to[i] = NULL;
	if (!from || *n > count)
		*n = count;
	return CUDA_SUCCESS;
}

CUresult cuGraphGetEdges(CUgraph g, CUgraphNode *from, CUgraphNode *to, size_t *n)
{
	return cuGraphGetEdges_v2(g, from, to, NULL, n);
}

CUresult cuGraphNodeGetDependencies_v2(CUgraphNode node, CUgraphNode *list, CUgraphEdgeData *edges, size_t *n)
{
	CUresult r = sim_node_check(node, UINT32_MAX);

	return r ? r : give(&node->deps, node->edge, list, edges, n);
}

CUresult cuGraphNodeGetDependencies(CUgraphNode node, CUgraphNode *list, size_t *n)
{
	return cuGraphNodeGetDependencies_v2(node, list, NULL, n);
}

CUresult cuGraphNodeGetDependentNodes_v2(CUgraphNode node, CUgraphNode *list, CUgraphEdgeData *edges,
					 size_t *n)
{
	CUresult r = sim_node_check(node, UINT32_MAX);

	return r ? r : give(&node->dependents, NULL, list, edges, n);
}

CUresult cuGraphNodeGetDependentNodes(CUgraphNode node, CUgraphNode *list, size_t *n)
{
	return cuGraphNodeGetDependentNodes_v2(node, list, NULL, n);
}

static bool reaches(CUgraphNode from, CUgraphNode to)
{
	if (from == to)
		return true;
	for (size_t i = 0; i < from->dependents.n; i++)
		if (reaches(from->dependents.node[i], to))
			return true;
	return false;
}

CUresult cuGraphAddDependencies_v2(CUgraph g, const CUgraphNode *from, const CUgraphNode *to,
				   const CUgraphEdgeData *edges, size_t n)
{
	CUresult r = sim_graph_check(g);

	if (r || (n && (!from || !to)))
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < n; i++) {
		if (sim_node_check(from[i], UINT32_MAX) || sim_node_check(to[i], UINT32_MAX) ||
		    from[i]->graph != g || to[i]->graph != g)
			return CUDA_ERROR_INVALID_VALUE;
		if (sim_deps_has(&to[i]->deps, from[i]) || reaches(to[i], from[i]))
			return CUDA_ERROR_INVALID_VALUE;
		if (!link_nodes(from[i], to[i], edges ? &edges[i] : NULL))
			return CUDA_ERROR_OUT_OF_MEMORY;
	}
	return CUDA_SUCCESS;
}

CUresult cuGraphAddDependencies(CUgraph g, const CUgraphNode *from, const CUgraphNode *to, size_t n)
{
	return cuGraphAddDependencies_v2(g, from, to, NULL, n);
}

CUresult cuGraphRemoveDependencies_v2(CUgraph g, const CUgraphNode *from, const CUgraphNode *to,
				      const CUgraphEdgeData *edges, size_t n)
{
	CUresult r = sim_graph_check(g);

	(void)edges;
	if (r || (n && (!from || !to)))
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < n; i++) {
		if (sim_node_check(from[i], UINT32_MAX) || sim_node_check(to[i], UINT32_MAX) ||
		    !sim_deps_has(&to[i]->deps, from[i]))
			return CUDA_ERROR_INVALID_VALUE;
		unlink_nodes(from[i], to[i]);
	}
	return CUDA_SUCCESS;
}

CUresult cuGraphRemoveDependencies(CUgraph g, const CUgraphNode *from, const CUgraphNode *to, size_t n)
{
	return cuGraphRemoveDependencies_v2(g, from, to, NULL, n);
}

CUresult cuGraphDebugDotPrint(CUgraph g, const char *path, unsigned int flags)
{
	CUresult r = sim_graph_check(g);
	FILE *f;

	(void)flags;
	if (r || !path)
		return CUDA_ERROR_INVALID_VALUE;
	f = fopen(path, "we");
	if (!f)
		return CUDA_ERROR_OPERATING_SYSTEM;
	fputs("digraph graph_1 {\n", f);
	for (size_t i = 0; i < g->nodes.n; i++) {
		CUgraphNode n = g->nodes.node[i];

		fprintf(f, "\tn%llu [label=\"%llu: type %u\"];\n", (unsigned long long)n->id,
			(unsigned long long)n->id, n->p.type);
		for (size_t k = 0; k < n->deps.n; k++)
			fprintf(f, "\tn%llu -> n%llu;\n", (unsigned long long)n->deps.node[k]->id,
				(unsigned long long)n->id);
	}
	fputs("}\n", f);
	return fclose(f) == 0 ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
}

/* Takes a node out, and with it its dependencies both ways. */
void sim_node_remove(CUgraphNode n)
{
	while (n->deps.n)
		unlink_nodes(n->deps.node[n->deps.n - 1], n);
	while (n->dependents.n)
		unlink_nodes(n, n->dependents.node[n->dependents.n - 1]);
	sim_deps_remove(&n->graph->nodes, n);
	if (n->p.type == CU_GRAPH_NODE_TYPE_GRAPH && n->p.graph.graph)
		sim_graph_unmake(n->p.graph.graph);
	if (n->block)
		sim_graph_block_unref(n->block);
	if (n->p.type == CU_GRAPH_NODE_TYPE_KERNEL)
		free(n->p.kernel.kernelParams);
	free(n->packed);
	free(n->ops);
	free(n->access);
	free(n->edge);
	sim_deps_clear(&n->deps);
	sim_deps_clear(&n->dependents);
	n->tag = 0;
	free(n);
}
