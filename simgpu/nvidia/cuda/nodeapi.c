/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The entry points that add a node, ask for its parameters and set them: one family for each type of node,
 * all of them a frame around sim_node_add() and sim_node_set().
 */
#include "simgpu/nvidia/cuda/exec.h"

#include <string.h>

CUresult cuGraphAddNode_v2(CUgraphNode *ret, CUgraph g, const CUgraphNode *deps, const CUgraphEdgeData *edges,
			   size_t n, CUgraphNodeParams *p)
{
	return sim_node_add(g, deps, edges, n, p, ret);
}

CUresult cuGraphAddNode(CUgraphNode *ret, CUgraph g, const CUgraphNode *deps, size_t n, CUgraphNodeParams *p)
{
	return sim_node_add(g, deps, NULL, n, p, ret);
}

CUresult cuGraphNodeSetParams(CUgraphNode node, CUgraphNodeParams *p)
{
	CUresult r = sim_node_check(node, UINT32_MAX);

	return r || !p ? CUDA_ERROR_INVALID_VALUE : sim_node_set(node, p);
}

/* ---- kernels ---- */

CUgraphNodeParams sim_kernel_params_v1(const CUDA_KERNEL_NODE_PARAMS_v1 *k)
{
	return (CUgraphNodeParams){ .type = CU_GRAPH_NODE_TYPE_KERNEL,
				    .kernel = { k->func, k->gridDimX, k->gridDimY, k->gridDimZ, k->blockDimX,
						k->blockDimY, k->blockDimZ, k->sharedMemBytes,
						k->kernelParams, k->extra, NULL, NULL } };
}

CUgraphNodeParams sim_kernel_params_v2(const CUDA_KERNEL_NODE_PARAMS_v2 *k)
{
	return (CUgraphNodeParams){ .type = CU_GRAPH_NODE_TYPE_KERNEL,
				    .kernel = { k->func, k->gridDimX, k->gridDimY, k->gridDimZ, k->blockDimX,
						k->blockDimY, k->blockDimZ, k->sharedMemBytes,
						k->kernelParams, k->extra, k->kern, k->ctx } };
}

CUresult cuGraphAddKernelNode(CUgraphNode *ret, CUgraph g, const CUgraphNode *deps, size_t n,
			      const CUDA_KERNEL_NODE_PARAMS_v1 *k)
{
	if (!k)
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = sim_kernel_params_v1(k);

	return sim_node_add(g, deps, NULL, n, &p, ret);
}

CUresult cuGraphAddKernelNode_v2(CUgraphNode *ret, CUgraph g, const CUgraphNode *deps, size_t n,
				 const CUDA_KERNEL_NODE_PARAMS_v2 *k)
{
	if (!k)
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = sim_kernel_params_v2(k);

	return sim_node_add(g, deps, NULL, n, &p, ret);
}

CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS_v2 *ret)
{
	CUresult r = sim_node_check(node, CU_GRAPH_NODE_TYPE_KERNEL);

	if (r || !ret)
		return CUDA_ERROR_INVALID_VALUE;
	const CUDA_KERNEL_NODE_PARAMS_v3 *k = &node->p.kernel;
	*ret = (CUDA_KERNEL_NODE_PARAMS_v2){ k->func,         k->gridDimX,  k->gridDimY,  k->gridDimZ,
					     k->blockDimX,    k->blockDimY, k->blockDimZ, k->sharedMemBytes,
					     k->kernelParams, NULL,         k->kern,      k->ctx };
	return CUDA_SUCCESS;
}

CUresult cuGraphKernelNodeGetParams(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS_v1 *ret)
{
	CUDA_KERNEL_NODE_PARAMS_v2 k;
	CUresult r = ret ? cuGraphKernelNodeGetParams_v2(node, &k) : CUDA_ERROR_INVALID_VALUE;

	if (!r)
		*ret = (CUDA_KERNEL_NODE_PARAMS_v1){ k.func,      k.gridDimX,       k.gridDimY,
						     k.gridDimZ,  k.blockDimX,      k.blockDimY,
						     k.blockDimZ, k.sharedMemBytes, k.kernelParams,
						     NULL };
	return r;
}

CUresult cuGraphKernelNodeSetParams(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v1 *k)
{
	if (!k || sim_node_check(node, CU_GRAPH_NODE_TYPE_KERNEL))
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = sim_kernel_params_v1(k);

	return sim_node_set(node, &p);
}

CUresult cuGraphKernelNodeSetParams_v2(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v2 *k)
{
	if (!k || sim_node_check(node, CU_GRAPH_NODE_TYPE_KERNEL))
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = sim_kernel_params_v2(k);

	return sim_node_set(node, &p);
}

CUresult cuGraphKernelNodeSetAttribute(CUgraphNode node, CUkernelNodeAttrID id,
				       const CUkernelNodeAttrValue_v1 *v)
{
	if (!v || id == 0 || id >= SIM_NODE_ATTRS || sim_node_check(node, CU_GRAPH_NODE_TYPE_KERNEL))
		return CUDA_ERROR_INVALID_VALUE;
	node->attr[id] = *v;
	node->attrs |= 1u << id;
	return CUDA_SUCCESS;
}

CUresult cuGraphKernelNodeGetAttribute(CUgraphNode node, CUkernelNodeAttrID id, CUkernelNodeAttrValue_v1 *v)
{
	if (!v || id == 0 || id >= SIM_NODE_ATTRS || sim_node_check(node, CU_GRAPH_NODE_TYPE_KERNEL))
		return CUDA_ERROR_INVALID_VALUE;
	*v = node->attr[id];
	return CUDA_SUCCESS;
}

/* NVIDIA's argument order: to, from. */
CUresult cuGraphKernelNodeCopyAttributes(CUgraphNode dst, CUgraphNode src)
{
	if (sim_node_check(dst, CU_GRAPH_NODE_TYPE_KERNEL) || sim_node_check(src, CU_GRAPH_NODE_TYPE_KERNEL))
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(dst->attr, src->attr, sizeof(dst->attr));
	dst->attrs = src->attrs;
	return CUDA_SUCCESS;
}

/* ---- copies, fills, host functions ---- */

CUresult cuGraphAddMemcpyNode(CUgraphNode *ret, CUgraph g, const CUgraphNode *deps, size_t n,
			      const CUDA_MEMCPY3D_v2 *c, CUcontext ctx)
{
	if (!c)
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_MEMCPY,
				.memcpy = { .copyCtx = ctx, .copyParams = *c } };

	return sim_node_add(g, deps, NULL, n, &p, ret);
}

CUresult cuGraphMemcpyNodeGetParams(CUgraphNode node, CUDA_MEMCPY3D_v2 *ret)
{
	if (!ret || sim_node_check(node, CU_GRAPH_NODE_TYPE_MEMCPY))
		return CUDA_ERROR_INVALID_VALUE;
	*ret = node->p.memcpy.copyParams;
	return CUDA_SUCCESS;
}

CUresult cuGraphMemcpyNodeSetParams(CUgraphNode node, const CUDA_MEMCPY3D_v2 *c)
{
	if (!c || sim_node_check(node, CU_GRAPH_NODE_TYPE_MEMCPY))
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_MEMCPY,
				.memcpy = { .copyCtx = node->p.memcpy.copyCtx, .copyParams = *c } };

	return sim_node_set(node, &p);
}

CUresult cuGraphAddMemsetNode(CUgraphNode *ret, CUgraph g, const CUgraphNode *deps, size_t n,
			      const CUDA_MEMSET_NODE_PARAMS_v1 *f, CUcontext ctx)
{
	if (!f)
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_MEMSET,
				.memset = { f->dst, f->pitch, f->value, f->elementSize, f->width, f->height,
					    ctx } };

	return sim_node_add(g, deps, NULL, n, &p, ret);
}

CUresult cuGraphMemsetNodeGetParams(CUgraphNode node, CUDA_MEMSET_NODE_PARAMS_v1 *ret)
{
	if (!ret || sim_node_check(node, CU_GRAPH_NODE_TYPE_MEMSET))
		return CUDA_ERROR_INVALID_VALUE;
	const CUDA_MEMSET_NODE_PARAMS_v2 *f = &node->p.memset;
	*ret = (CUDA_MEMSET_NODE_PARAMS_v1){
		f->dst, f->pitch, f->value, f->elementSize, f->width, f->height
	};
	return CUDA_SUCCESS;
}

CUresult cuGraphMemsetNodeSetParams(CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS_v1 *f)
{
	if (!f || sim_node_check(node, CU_GRAPH_NODE_TYPE_MEMSET))
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_MEMSET,
				.memset = { f->dst, f->pitch, f->value, f->elementSize, f->width, f->height,
					    node->p.memset.ctx } };

	return sim_node_set(node, &p);
}

CUresult cuGraphAddHostNode(CUgraphNode *ret, CUgraph g, const CUgraphNode *deps, size_t n,
			    const CUDA_HOST_NODE_PARAMS_v1 *h)
{
	if (!h)
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_HOST, .host = { h->fn, h->userData } };

	return sim_node_add(g, deps, NULL, n, &p, ret);
}

CUresult cuGraphHostNodeGetParams(CUgraphNode node, CUDA_HOST_NODE_PARAMS_v1 *ret)
{
	if (!ret || sim_node_check(node, CU_GRAPH_NODE_TYPE_HOST))
		return CUDA_ERROR_INVALID_VALUE;
	*ret = (CUDA_HOST_NODE_PARAMS_v1){ node->p.host.fn, node->p.host.userData };
	return CUDA_SUCCESS;
}

CUresult cuGraphHostNodeSetParams(CUgraphNode node, const CUDA_HOST_NODE_PARAMS_v1 *h)
{
	if (!h || sim_node_check(node, CU_GRAPH_NODE_TYPE_HOST))
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_HOST, .host = { h->fn, h->userData } };

	return sim_node_set(node, &p);
}

/* ---- structure: child graphs, empty nodes, events ---- */

CUresult cuGraphAddChildGraphNode(CUgraphNode *ret, CUgraph g, const CUgraphNode *deps, size_t n,
				  CUgraph child)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_GRAPH, .graph = { .graph = child } };

	return sim_node_add(g, deps, NULL, n, &p, ret);
}

CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph *ret)
{
	if (!ret || sim_node_check(node, CU_GRAPH_NODE_TYPE_GRAPH))
		return CUDA_ERROR_INVALID_VALUE;
	*ret = node->p.graph.graph;
	return CUDA_SUCCESS;
}

CUresult cuGraphAddEmptyNode(CUgraphNode *ret, CUgraph g, const CUgraphNode *deps, size_t n)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_EMPTY };

	return sim_node_add(g, deps, NULL, n, &p, ret);
}

static CUresult add_event(CUgraphNode *ret, CUgraph g, const CUgraphNode *deps, size_t n,
			  CUgraphNodeType type, CUevent e)
{
	CUgraphNodeParams p = { .type = type, .eventWait = { e } };

	return sim_node_add(g, deps, NULL, n, &p, ret);
}

static CUresult get_event(CUgraphNode node, CUgraphNodeType type, CUevent *ret)
{
	if (!ret || sim_node_check(node, type))
		return CUDA_ERROR_INVALID_VALUE;
	*ret = node->p.eventWait.event;
	return CUDA_SUCCESS;
}

static CUresult set_event(CUgraphNode node, CUgraphNodeType type, CUevent e)
{
	CUgraphNodeParams p = { .type = type, .eventWait = { e } };

	return sim_node_check(node, type) ? CUDA_ERROR_INVALID_VALUE : sim_node_set(node, &p);
}

CUresult cuGraphAddEventRecordNode(CUgraphNode *ret, CUgraph g, const CUgraphNode *deps, size_t n, CUevent e)
{
	return add_event(ret, g, deps, n, CU_GRAPH_NODE_TYPE_EVENT_RECORD, e);
}

CUresult cuGraphEventRecordNodeGetEvent(CUgraphNode node, CUevent *ret)
{
	return get_event(node, CU_GRAPH_NODE_TYPE_EVENT_RECORD, ret);
}

CUresult cuGraphEventRecordNodeSetEvent(CUgraphNode node, CUevent e)
{
	return set_event(node, CU_GRAPH_NODE_TYPE_EVENT_RECORD, e);
}

CUresult cuGraphAddEventWaitNode(CUgraphNode *ret, CUgraph g, const CUgraphNode *deps, size_t n, CUevent e)
{
	return add_event(ret, g, deps, n, CU_GRAPH_NODE_TYPE_WAIT_EVENT, e);
}

CUresult cuGraphEventWaitNodeGetEvent(CUgraphNode node, CUevent *ret)
{
	return get_event(node, CU_GRAPH_NODE_TYPE_WAIT_EVENT, ret);
}

CUresult cuGraphEventWaitNodeSetEvent(CUgraphNode node, CUevent e)
{
	return set_event(node, CU_GRAPH_NODE_TYPE_WAIT_EVENT, e);
}

/* ---- memory ---- */

CUresult cuGraphAddMemAllocNode(CUgraphNode *ret, CUgraph g, const CUgraphNode *deps, size_t n,
				CUDA_MEM_ALLOC_NODE_PARAMS *a)
{
	if (!a)
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_MEM_ALLOC,
				.alloc = { a->poolProps, a->accessDescs, a->accessDescCount, a->bytesize,
					   0 } };
	CUresult r = sim_node_add(g, deps, NULL, n, &p, ret);

	if (!r)
		a->dptr = p.alloc.dptr;
	return r;
}

CUresult cuGraphMemAllocNodeGetParams(CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS *ret)
{
	if (!ret || sim_node_check(node, CU_GRAPH_NODE_TYPE_MEM_ALLOC))
		return CUDA_ERROR_INVALID_VALUE;
	const CUDA_MEM_ALLOC_NODE_PARAMS_v2 *a = &node->p.alloc;
	*ret = (CUDA_MEM_ALLOC_NODE_PARAMS){ a->poolProps, a->accessDescs, a->accessDescCount, a->bytesize,
					     a->dptr };
	return CUDA_SUCCESS;
}

CUresult cuGraphAddMemFreeNode(CUgraphNode *ret, CUgraph g, const CUgraphNode *deps, size_t n,
			       CUdeviceptr address)
{
	CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_MEM_FREE, .free = { address } };

	return sim_node_add(g, deps, NULL, n, &p, ret);
}

CUresult cuGraphMemFreeNodeGetParams(CUgraphNode node, CUdeviceptr *ret)
{
	if (!ret || sim_node_check(node, CU_GRAPH_NODE_TYPE_MEM_FREE))
		return CUDA_ERROR_INVALID_VALUE;
	*ret = node->p.free.dptr;
	return CUDA_SUCCESS;
}

static CUgraphNodeParams memop_params(const CUDA_BATCH_MEM_OP_NODE_PARAMS *m)
{
	return (CUgraphNodeParams){ .type = CU_GRAPH_NODE_TYPE_BATCH_MEM_OP,
				    .memOp = { m->ctx, m->count, m->paramArray, m->flags } };
}

CUresult cuGraphAddBatchMemOpNode(CUgraphNode *ret, CUgraph g, const CUgraphNode *deps, size_t n,
				  const CUDA_BATCH_MEM_OP_NODE_PARAMS *m)
{
	if (!m)
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = memop_params(m);

	return sim_node_add(g, deps, NULL, n, &p, ret);
}

CUresult cuGraphBatchMemOpNodeGetParams(CUgraphNode node, CUDA_BATCH_MEM_OP_NODE_PARAMS *ret)
{
	if (!ret || sim_node_check(node, CU_GRAPH_NODE_TYPE_BATCH_MEM_OP))
		return CUDA_ERROR_INVALID_VALUE;
	const CUDA_BATCH_MEM_OP_NODE_PARAMS_v2 *m = &node->p.memOp;
	*ret = (CUDA_BATCH_MEM_OP_NODE_PARAMS){ m->ctx, m->count, m->paramArray, m->flags };
	return CUDA_SUCCESS;
}

CUresult cuGraphBatchMemOpNodeSetParams(CUgraphNode node, const CUDA_BATCH_MEM_OP_NODE_PARAMS *m)
{
	if (!m || sim_node_check(node, CU_GRAPH_NODE_TYPE_BATCH_MEM_OP))
		return CUDA_ERROR_INVALID_VALUE;

	CUgraphNodeParams p = memop_params(m);

	return sim_node_set(node, &p);
}
