/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Launching graphs. The first lane is the launch's stream; the others begin behind what was in it and it
 * goes on behind them. Two launches of one executable graph never overlap.
 */
#include "simgpu/nvidia/cuda/exec.h"

static CUresult wait_for(CUstream s, struct sim_lane *lane, uint64_t seq)
{
	struct sim_cmd cmd = { .kind = SIM_WAIT_SEQ, .wait_seq = { lane->channel, seq } };

	if (!seq || lane == s->lane || seq <= sim_done(lane->channel))
		return CUDA_SUCCESS;
	return sim_push(s, &cmd, NULL, 0, NULL);
}

/* A stream for each lane but the first, in the context of the launch. */
static CUresult make_lanes(CUgraphExec e, CUcontext ctx)
{
	CUresult r = CUDA_SUCCESS;

	for (uint32_t i = 1; i < e->lanes && !r; i++) {
		if (e->lane[i] && e->ctx != ctx) {
			sim_stream_drop(e->lane[i]);
			e->lane[i] = NULL;
		}
		if (!e->lane[i])
			r = sim_stream_make(ctx, CU_STREAM_NON_BLOCKING, 0, &e->lane[i]);
	}
	if (e->ctx != ctx)
		e->last = NULL; /* its lane may have gone with its context */
	e->ctx = ctx;
	return r;
}

static CUresult memory(CUgraphExec e, bool launch)
{
	bool again = e->flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
	CUresult r = CUDA_SUCCESS;

	/*
	 * All or nothing: what is still allocated from the launch before is found before anything is
	 * allocated.
	 */
	for (uint32_t i = 0; i < e->steps && launch && !again; i++)
		if (e->step[i].node->block && sim_graph_block_is_live(e->step[i].node->block))
			return CUDA_ERROR_INVALID_VALUE;
	for (uint32_t i = 0; i < e->steps && !r; i++)
		if (e->step[i].node->block)
			r = launch ? sim_graph_block_launch(e->step[i].node->block, again)
				   : sim_graph_block_prepare(e->step[i].node->block);
	return r;
}

static CUresult push_step(CUgraphExec e, struct sim_step *step, CUstream s)
{
	CUresult r = CUDA_SUCCESS;

	for (uint32_t k = 0; k < step->deps && !r && s->lane; k++) {
		const struct sim_step *d = &e->step[step->dep[k]];

		if (d->lane != step->lane)
			r = wait_for(s, d->at, d->seq);
	}
	if (!r && !step->disabled)
		r = sim_node_push(step->node, s);
	if (s->lane) {
		step->at = s->lane;
		step->seq = s->lane->last;
	}
	return r;
}

static CUresult launch_lanes(CUgraphExec e, CUstream s)
{
	struct sim_cmd mark = { .kind = SIM_NOP };
	uint64_t start = 0;
	CUresult r = make_lanes(e, s->ctx);

	if (!r && e->last)
		r = wait_for(s, e->last, e->last_seq);
	if (!r && s->lane)
		r = sim_push(s, &mark, NULL, 0, &start);
	for (uint32_t i = 1; i < e->lanes && !r && s->lane; i++)
		r = wait_for(e->lane[i], s->lane, start);
	for (uint32_t i = 0; i < e->steps && !r; i++)
		r = push_step(e, &e->step[i], e->step[i].lane ? e->lane[e->step[i].lane] : s);
	for (uint32_t i = 1; i < e->lanes && !r && s->lane; i++)
		r = wait_for(s, e->lane[i]->lane, e->lane[i]->lane->last);
	e->last = s->lane;
	e->last_seq = s->lane ? s->lane->last : 0;
	return r;
}

static CUresult launch(CUgraphExec e, CUstream h, bool per_thread)
{
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_exec_check(e);
	if (r)
		return r;
	if (SIM_LIKELY(sim_driver.eager && !e->effects))
		return CUDA_SUCCESS;
	r = sim_stream_get(ctx, h, per_thread, &s);
	if (r)
		return r;
	if (s->capture) {
		CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_GRAPH, .graph = { .graph = e->graph } };

		return sim_capture_node(s, &p, NULL);
	}
	pthread_mutex_lock(&e->lock);
	r = memory(e, true);
	if (!r)
		r = launch_lanes(e, s);
	pthread_mutex_unlock(&e->lock);
	return r;
}

SIM_PAIR(cuGraphLaunch, _ptsz, (CUgraphExec e, CUstream h), return launch(e, h, per_thread);)

/* What is uploaded takes no time here; memory comes now instead of at the first launch. */
SIM_PAIR(cuGraphUpload, _ptsz, (CUgraphExec e, CUstream h), {
	struct sim_cmd mark = { .kind = SIM_NOP };
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);
	if (!r)
		r = sim_exec_check(e);
	if (!r)
		r = sim_stream_get(ctx, h, per_thread, &s);
	if (!r && s->capture)
		r = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	if (!r)
		r = memory(e, false);
	return r ? r : sim_push(s, &mark, NULL, 0, NULL);
})

static struct sim_step *step_of(CUgraphExec e, CUgraphNode node)
{
	if (sim_exec_check(e) || sim_node_check(node, UINT32_MAX))
		return NULL;
	if (node->p.type != CU_GRAPH_NODE_TYPE_KERNEL && node->p.type != CU_GRAPH_NODE_TYPE_MEMSET &&
	    node->p.type != CU_GRAPH_NODE_TYPE_MEMCPY)
		return NULL; /* only these can be left out */
	for (uint32_t i = 0; i < e->steps; i++)
		if (e->step[i].node->origin == node->id)
			return &e->step[i];
	return NULL;
}

CUresult cuGraphNodeSetEnabled(CUgraphExec e, CUgraphNode node, unsigned int enabled)
{
	struct sim_step *s = step_of(e, node);

	if (!s)
		return CUDA_ERROR_INVALID_VALUE;
	s->disabled = !enabled;
	return CUDA_SUCCESS;
}

CUresult cuGraphNodeGetEnabled(CUgraphExec e, CUgraphNode node, unsigned int *enabled)
{
	struct sim_step *s = step_of(e, node);

	if (!s || !enabled)
		return CUDA_ERROR_INVALID_VALUE;
	*enabled = !s->disabled;
	return CUDA_SUCCESS;
}
