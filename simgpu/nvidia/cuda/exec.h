/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_CUDA_EXEC_H
#define SIM_CUDA_EXEC_H
/*
 * Executable graphs: a private clone of a graph, its nodes in an order, child graphs unfolded, dealt to
 * lanes.
 */
#include "simgpu/nvidia/cuda/graph.h"

#define SIM_EXEC_LANES 8u        /* branches that run beside each other; more of them share a lane */

struct sim_step {
	CUgraphNode node;        /* of the clone */
	uint32_t *dep;           /* steps that come before it */
	uint32_t deps, lane;
	bool disabled;
	uint64_t seq;            /* of the launch that is being made: its number in its lane */
	struct sim_lane *at;     /* and the lane */
};

struct CUgraphExec_st {
	enum sim_tag tag;
	CUgraph graph;           /* the clone */
	unsigned long long flags;
	struct sim_step *step;
	uint32_t steps, lanes;
	bool effects;            /* some step does something in null mode */
	pthread_mutex_t lock;    /* one launch is made at a time */
	CUcontext ctx;           /* of the streams below */
	CUstream lane[SIM_EXEC_LANES];   /* [0] unused: it is the launch's stream */
	struct sim_lane *last;   /* end of the launch before */
	uint64_t last_seq;
};

CUresult sim_exec_check(CUgraphExec e);
CUresult sim_exec_make(CUgraph g, unsigned long long flags, CUgraphExec *ret, CUgraphNode *ret_bad);
/* Parameters of a node of the graph that it was made from, or of a clone of it. */
CUresult sim_exec_set(CUgraphExec e, CUgraphNode node, CUgraphNodeParams *p);

CUgraphNodeParams sim_kernel_params_v1(const CUDA_KERNEL_NODE_PARAMS_v1 *k);
CUgraphNodeParams sim_kernel_params_v2(const CUDA_KERNEL_NODE_PARAMS_v2 *k);

#endif
