/* SPDX-License-Identifier: Apache-2.0 */
/* What a node does: its parameters, checked and copied, and how it is given to a stream. */
#include "simgpu/nvidia/cuda/graph.h"

#include <stdlib.h>
#include <string.h>

/* ---- setting, by type ---- */

static CUresult set_kernel(CUgraphNode n, const CUDA_KERNEL_NODE_PARAMS_v3 *k)
{
	unsigned char *packed = malloc(SIM_PARAMS_MAX);
	CUfunction f = k->func;
	void **pointers = NULL;
	CUcontext ctx = sim_self.current;
	size_t bytes = 0;
	CUresult r = packed ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;

	if (!r && !f && k->kern)
		f = (CUfunction)k->kern;
	if (!r)
		r = sim_function_get(k->ctx ? k->ctx : ctx, f, &f);
	if (!r) {
		struct sim_launch l = { f,
					{ k->gridDimX, k->gridDimY, k->gridDimZ },
					{ k->blockDimX, k->blockDimY, k->blockDimZ },
					k->sharedMemBytes,
					0,
					false };

		r = sim_launch_check(&l);
	}
	if (!r)
		r = sim_launch_params(f, k->kernelParams, k->extra, packed, &bytes);
	if (!r) {
		pointers = calloc(f->params + 1, sizeof(*pointers));
		r = pointers ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (r) {
		free(packed);
		return r;
	}
	for (uint32_t i = 0; i < f->params; i++)
		pointers[i] = packed + f->param[i].offset;
	if (n->packed)
		free(n->p.kernel.kernelParams);
	free(n->packed);
	n->packed = packed;
	n->packed_bytes = bytes;
	n->p.kernel = *k;
	n->p.kernel.func = f;
	n->p.kernel.extra = NULL;
	n->p.kernel.kernelParams = pointers;
	return CUDA_SUCCESS;
}

static CUresult set_copy(CUgraphNode n, const CUDA_MEMCPY_NODE_PARAMS *c)
{
	enum sim_place src, dst;
	struct sim_cmd cmd;
	CUresult r = c->copyCtx ? sim_context_check(c->copyCtx) : CUDA_SUCCESS;

	if (!r && (!c->copyParams.WidthInBytes || !c->copyParams.Height || !c->copyParams.Depth))
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		r = sim_copy3d_cmd(&c->copyParams, &cmd, &src, &dst);
	if (!r)
		n->p.memcpy = *c;
	return r;
}

static CUresult set_fill(CUgraphNode n, const CUDA_MEMSET_NODE_PARAMS_v2 *f)
{
	if ((f->elementSize != 1 && f->elementSize != 2 && f->elementSize != 4) || !f->dst ||
	    f->dst % f->elementSize || !f->width || !f->height ||
	    (f->height > 1 && f->pitch < f->width * f->elementSize))
		return CUDA_ERROR_INVALID_VALUE;
	n->p.memset = *f;
	return CUDA_SUCCESS;
}

static CUresult set_child(CUgraphNode n, const CUDA_CHILD_GRAPH_NODE_PARAMS *c)
{
	CUgraph copy;
	CUresult r = sim_graph_check(c->graph);

	if (!r)
		r = sim_graph_clone(c->graph, &copy);
	if (r)
		return r;
	if (n->p.graph.graph)
		sim_graph_unmake(n->p.graph.graph);
	copy->owner = n;
	n->p.graph = *c;
	n->p.graph.graph = copy;
	return CUDA_SUCCESS;
}

static CUresult set_alloc(CUgraphNode n, CUDA_MEM_ALLOC_NODE_PARAMS_v2 *a)
{
	struct sim_device *d;
	CUresult r;

	if (n->block)
		return CUDA_ERROR_NOT_SUPPORTED; /* an allocation stays what it was made as */
	if (!a->bytesize || (a->accessDescCount && !a->accessDescs) ||
	    a->poolProps.location.type != CU_MEM_LOCATION_TYPE_DEVICE)
		return CUDA_ERROR_INVALID_VALUE;
	r = sim_device_get(a->poolProps.location.id, &d);
	if (r)
		return r;
	if (a->accessDescCount) {
		n->access = calloc(a->accessDescCount, sizeof(*n->access));
		if (!n->access)
			return CUDA_ERROR_OUT_OF_MEMORY;
		memcpy(n->access, a->accessDescs, a->accessDescCount * sizeof(*n->access));
	}
	r = sim_graph_block_make(d, a->bytesize, &n->block, &a->dptr);
	n->p.alloc = *a;
	n->p.alloc.accessDescs = n->access;
	return r;
}

static CUresult set_ops(CUgraphNode n, const CUDA_BATCH_MEM_OP_NODE_PARAMS_v2 *m)
{
	CUstreamBatchMemOpParams *copy;
	CUresult r = sim_memops_check(m->paramArray, m->count);

	if (!r && m->flags)
		r = CUDA_ERROR_INVALID_VALUE;
	if (r)
		return r;
	copy = malloc(m->count * sizeof(*copy));
	if (!copy)
		return CUDA_ERROR_OUT_OF_MEMORY;
	memcpy(copy, m->paramArray, m->count * sizeof(*copy));
	free(n->ops);
	n->ops = copy;
	n->p.memOp = *m;
	n->p.memOp.paramArray = copy;
	return CUDA_SUCCESS;
}

CUresult sim_node_set(CUgraphNode n, CUgraphNodeParams *p)
{
	if (p->type != n->p.type)
		return CUDA_ERROR_INVALID_VALUE;
	switch (p->type) {
	case CU_GRAPH_NODE_TYPE_KERNEL:
		return set_kernel(n, &p->kernel);
	case CU_GRAPH_NODE_TYPE_MEMCPY:
		return set_copy(n, &p->memcpy);
	case CU_GRAPH_NODE_TYPE_MEMSET:
		return set_fill(n, &p->memset);
	case CU_GRAPH_NODE_TYPE_HOST:
		n->p.host = p->host;
		return p->host.fn ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	case CU_GRAPH_NODE_TYPE_GRAPH:
		return set_child(n, &p->graph);
	case CU_GRAPH_NODE_TYPE_EMPTY:
		return CUDA_SUCCESS;
	case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
	case CU_GRAPH_NODE_TYPE_EVENT_RECORD: /* the same layout */
		n->p.eventWait = p->eventWait;
		return p->eventWait.event && p->eventWait.event->tag == SIM_TAG_EVENT
			       ? CUDA_SUCCESS
			       : CUDA_ERROR_INVALID_VALUE;
	case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
		return set_alloc(n, &p->alloc);
	case CU_GRAPH_NODE_TYPE_MEM_FREE:
		n->p.free = p->free;
		return sim_graph_block_is(p->free.dptr) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
		return set_ops(n, &p->memOp);
	default:
		return CUDA_ERROR_NOT_SUPPORTED; /* external semaphores, conditionals */
	}
}

/* ---- doing ---- */

static CUresult push_kernel(CUgraphNode n, CUstream s)
{
	const CUDA_KERNEL_NODE_PARAMS_v3 *k = &n->p.kernel;
	struct sim_launch l = { k->func,
				{ k->gridDimX, k->gridDimY, k->gridDimZ },
				{ k->blockDimX, k->blockDimY, k->blockDimZ },
				k->sharedMemBytes,
				0,
				false };

	if (n->attrs & 1u << CU_LAUNCH_ATTRIBUTE_PRIORITY)
		l.priority = n->attr[CU_LAUNCH_ATTRIBUTE_PRIORITY].priority - s->priority;
	return sim_launch_push(s, &l, n->packed, n->packed_bytes);
}

CUresult sim_node_push(CUgraphNode n, CUstream s)
{
	enum sim_place src, dst;
	struct sim_cmd cmd;
	CUresult r;

	switch (n->p.type) {
	case CU_GRAPH_NODE_TYPE_KERNEL:
		return push_kernel(n, s);
	case CU_GRAPH_NODE_TYPE_MEMCPY:
		r = sim_copy3d_cmd(&n->p.memcpy.copyParams, &cmd, &src, &dst);
		/* In a graph pageable memory is read and written when the node's time has come. */
		if (!r)
			r = sim_copy(s, &cmd, src == SIM_AT_PAGEABLE ? SIM_AT_PINNED : src,
				     dst == SIM_AT_PAGEABLE ? SIM_AT_PINNED : dst, false);
		return r;
	case CU_GRAPH_NODE_TYPE_MEMSET:
		return sim_fill_push(
			s, &(CUDA_MEMSET_NODE_PARAMS_v1){ n->p.memset.dst, n->p.memset.pitch,
							  n->p.memset.value, n->p.memset.elementSize,
							  n->p.memset.width, n->p.memset.height });
	case CU_GRAPH_NODE_TYPE_HOST:
		return sim_host_push(s, n->p.host.fn, n->p.host.userData);
	case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
		return sim_event_wait(s, n->p.eventWait.event);
	case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
		return sim_event_record(n->p.eventRecord.event, s);
	case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
		return sim_memops_push(s, n->ops, n->p.memOp.count);
	case CU_GRAPH_NODE_TYPE_MEM_FREE:
		return sim_graph_block_free(n->p.free.dptr) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	default:
		return CUDA_SUCCESS;
	}
}
