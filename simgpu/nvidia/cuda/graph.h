/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_CUDA_GRAPH_H
#define SIM_CUDA_GRAPH_H
/*
 * Graphs, what is made from them, and captures.
 *
 * A node's parameters are CUgraphNodeParams whatever entry point they came through, with deep copies of
 * what they point to. Threads: graphs are a program's own to guard, as NVIDIA says; captures have one lock,
 * since several threads' streams join in one.
 */
#include "simgpu/nvidia/cuda/drv.h"

struct sim_deps {                    /* a set of nodes */
	CUgraphNode *node;
	size_t n, room;
};

#define SIM_NODE_ATTRS 17

struct CUgraphNode_st {
	enum sim_tag tag;
	uint64_t id, origin;         /* unique; that of the node it was cloned from, else its own */
	CUgraph graph;
	CUgraphNodeParams p;
	unsigned char *packed;       /* kernel: parameters; p.kernel.kernelParams points into it */
	size_t packed_bytes;
	CUlaunchAttributeValue attr[SIM_NODE_ATTRS];   /* kernel: launch attributes, by number */
	uint32_t attrs;              /* bit per one that was set */
	/* memory operations: what p.memOp.paramArray points to */
	CUstreamBatchMemOpParams *ops;
	CUmemAccessDesc *access;                       /* allocation: what p.alloc.accessDescs points to */
	struct sim_graph_block *block;                 /* allocation */
	struct sim_deps deps, dependents;
	uint32_t index;              /* for who walks over the graph */
	CUgraphEdgeData *edge;       /* of each dependency; NULL: all are plain */
};

struct CUgraph_st {
	enum sim_tag tag;
	CUgraphNode owner;           /* the child graph node that it is embedded in */
	struct sim_deps nodes;       /* in the order in which they were made */
	struct sim_user_ref *user;   /* user objects that go with it */
};

/* false: out of memory; one that is in it stays once */
bool sim_deps_add(struct sim_deps *d, CUgraphNode n);
void sim_deps_remove(struct sim_deps *d, CUgraphNode n);
bool sim_deps_has(const struct sim_deps *d, CUgraphNode n);
bool sim_deps_copy(struct sim_deps *to, const struct sim_deps *from);
void sim_deps_clear(struct sim_deps *d);

CUresult sim_graph_check(CUgraph g);
CUresult sim_node_check(CUgraphNode n, CUgraphNodeType type);  /* of that type; type UINT32_MAX: any */
CUresult sim_graph_make(CUgraph *ret);
void sim_graph_unmake(CUgraph g);
CUresult sim_graph_clone(CUgraph g, CUgraph *ret);
CUgraphNode sim_graph_find_origin(CUgraph g, uint64_t origin); /* also in child graphs */
/*
 * A node of @p behind @n dependencies. @p: parameters as a program gives them; an allocation's address is
 * written into it.
 */
CUresult sim_node_add(CUgraph g, const CUgraphNode *deps, const CUgraphEdgeData *edges, size_t n,
		      CUgraphNodeParams *p, CUgraphNode *ret);
CUresult sim_node_set(CUgraphNode node, CUgraphNodeParams *p); /* other parameters of the same type */
void sim_node_remove(CUgraphNode node);

/* A user object's references by a graph; graphs and what is made from them share them. */
void sim_user_refs_copy(struct sim_user_ref **to, const struct sim_user_ref *from);
void sim_user_refs_drop(struct sim_user_ref **list);

/*
 * ---- graphmem.c: memory that graphs allocate. Its address is known when the node is made, its pages come
 * at the first launch ----
 */

CUresult sim_graph_block_make(struct sim_device *d, size_t bytes, struct sim_graph_block **ret,
			      CUdeviceptr *ret_address);
void sim_graph_block_ref(struct sim_graph_block *b);
void sim_graph_block_unref(struct sim_graph_block *b);
/* @again: what was not freed since is freed now */
CUresult sim_graph_block_launch(struct sim_graph_block *b, bool again);
bool sim_graph_block_is_live(const struct sim_graph_block *b);
CUresult sim_graph_block_prepare(struct sim_graph_block *b);              /* pages; out of memory */
bool sim_graph_block_free(CUdeviceptr p);                                 /* false: no such allocation */
bool sim_graph_block_is(CUdeviceptr p);

/* ---- launching parts of it ---- */

/* one node that is not a child graph, in a stream */
CUresult sim_node_push(CUgraphNode node, CUstream s);
CUresult sim_fill_push(CUstream s, const CUDA_MEMSET_NODE_PARAMS_v1 *p);
CUresult sim_copy3d_cmd(const CUDA_MEMCPY3D_v2 *p, struct sim_cmd *cmd, enum sim_place *src_at,
			enum sim_place *dst_at);
CUresult sim_memops_check(const CUstreamBatchMemOpParams *list, unsigned int n);
CUresult sim_memops_push(CUstream s, const CUstreamBatchMemOpParams *list, unsigned int n);

/* ---- capture.c ---- */

CUresult sim_capture_node(CUstream s, CUgraphNodeParams *p, CUgraphNode *ret);
CUresult sim_capture_copy(CUstream s, const CUDA_MEMCPY3D_v2 *p);
CUresult sim_capture_memops(CUstream s, const CUstreamBatchMemOpParams *list, unsigned int n);
CUresult sim_capture_launch(CUstream s, const struct sim_launch *l, unsigned char *params, size_t bytes);

#endif
