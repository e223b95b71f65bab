/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events: a number in a lane, and a time that the device writes. In null mode an event has happened when it
 * is recorded.
 */
#include "simgpu/nvidia/cuda/graph.h"

#include <stdlib.h>
#include <time.h>

#define STAMPS 4u
#define TICK_NS 500u /* resolution of the device's clock as events show it, as NVIDIA documents it */

/*
 * Events come in slabs, which stay: the device writes times into them, and a program may keep an event
 * longer than its context.
 */
#define SLAB 32u

struct slab {
	struct slab *next;
	struct CUevent_st event[SLAB];
};

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static struct slab *slabs;
static CUevent pool;

/* With the lock held. */
static void add_slab(void)
{
	struct slab *s = calloc(1, sizeof(*s));

	if (!s)
		return;
	s->next = slabs;
	slabs = s;
	for (uint32_t i = 0; i < SLAB; i++) {
		pthread_mutex_init(&s->event[i].lock, NULL);
		s->event[i].next = pool;
		pool = &s->event[i];
	}
}

static CUresult check(CUevent e)
{
	if (!e || e->tag != SIM_TAG_EVENT)
		return CUDA_ERROR_INVALID_HANDLE;
	return CUDA_SUCCESS;
}

/* Its context lives, and is the one that it was made in. */
static CUresult alive(CUevent e)
{
	CUresult r = sim_context_check(e->ctx);

	return r ? r : e->life == e->ctx->id ? CUDA_SUCCESS : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

CUresult sim_event_make(CUcontext ctx, uint32_t flags, CUevent *ret)
{
	CUevent e;

	pthread_mutex_lock(&pool_lock);
	if (!pool)
		add_slab();
	e = pool;
	if (e)
		pool = e->next;
	pthread_mutex_unlock(&pool_lock);
	if (!e)
		return CUDA_ERROR_OUT_OF_MEMORY;
	e->flags = flags;
	e->ctx = ctx;
	e->life = ctx->id;
	e->lane = NULL;
	e->seq = 0;
	e->recorded = false;
	e->capture = 0;
	e->shared = NULL;
	e->tag = SIM_TAG_EVENT;
	*ret = e;
	return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent *ret, unsigned int flags)
{
	CUcontext ctx;
	CUevent e;
	CUresult r = sim_enter(&ctx);

	if (r)
		return r;
	if (!ret ||
	    flags & ~(unsigned)(CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS))
		return CUDA_ERROR_INVALID_VALUE;
	if (flags & CU_EVENT_INTERPROCESS && !(flags & CU_EVENT_DISABLE_TIMING))
		return CUDA_ERROR_INVALID_VALUE;
	r = sim_event_make(ctx, flags, &e);
	if (!r && flags & CU_EVENT_INTERPROCESS) {
		r = sim_event_share(e);
		if (r)
			cuEventDestroy_v2(e);
	}
	if (!r)
		*ret = e;
	return r;
}

CUresult cuEventDestroy_v2(CUevent e)
{
	CUresult r = sim_ready();

	if (!r)
		r = check(e);
	if (r)
		return r;
	e->tag = 0;
	if (e->shared)
		sim_event_unshare(e);
	pthread_mutex_lock(&pool_lock);
	e->next = pool;
	pool = e;
	pthread_mutex_unlock(&pool_lock);
	return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent e)
{
	return cuEventDestroy_v2(e);
}

CUresult sim_event_record(CUevent e, CUstream s)
{
	struct sim_cmd cmd = { .kind = SIM_NOP };
	uint32_t turn = (e->turn + 1) % STAMPS;
	uint64_t seq;
	CUresult r;

	if (SIM_UNLIKELY(e->shared)) {
		e->recorded = true;
		return sim_shared_record(e, s);
	}
	if (!s->lane) {
		e->recorded = true;
		return CUDA_SUCCESS;
	}
	pthread_mutex_lock(&e->lock);
	if (!(e->flags & CU_EVENT_DISABLE_TIMING)) {
		cmd.kind = SIM_STAMP;
		cmd.stamp.address = (uintptr_t)&e->stamp_ns[turn];
	}
	r = sim_push(s, &cmd, NULL, 0, &seq);
	if (!r) {
		e->turn = turn;
		e->lane = s->lane;
		e->seq = seq;
		e->recorded = true;
	}
	pthread_mutex_unlock(&e->lock);
	return r;
}

static CUresult record(CUevent e, CUstream h, bool per_thread, unsigned int flags)
{
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = check(e);
	if (!r)
		r = sim_stream_get(ctx, h, per_thread, &s);
	if (r)
		return r;
	if (flags & ~(unsigned)CU_EVENT_RECORD_EXTERNAL)
		return CUDA_ERROR_INVALID_VALUE;
	if (e->ctx->root != s->ctx->root || e->life != e->ctx->id)
		return CUDA_ERROR_INVALID_HANDLE;
	if (SIM_UNLIKELY(s->capture != NULL)) {
		CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_EVENT_RECORD, .eventRecord = { e } };

		return flags & CU_EVENT_RECORD_EXTERNAL ? sim_capture_node(s, &p, NULL)
							: sim_capture_record(e, s);
	}
	e->capture = 0;
	return sim_event_record(e, s);
}

CUresult cuEventRecord(CUevent e, CUstream h)
{
	return record(e, h, false, 0);
}

CUresult cuEventRecord_ptsz(CUevent e, CUstream h)
{
	return record(e, h, true, 0);
}

CUresult cuEventRecordWithFlags(CUevent e, CUstream h, unsigned int flags)
{
	return record(e, h, false, flags);
}

CUresult cuEventRecordWithFlags_ptsz(CUevent e, CUstream h, unsigned int flags)
{
	return record(e, h, true, flags);
}

/* The lane and number of the last record; false: there is nothing to wait for. */
static bool last_record(CUevent e, struct sim_lane **lane, uint64_t *seq)
{
	pthread_mutex_lock(&e->lock);
	*lane = e->lane;
	*seq = e->seq;
	pthread_mutex_unlock(&e->lock);
	return *lane && *seq > sim_done((*lane)->channel);
}

static CUresult captured(CUevent e)
{
	return SIM_UNLIKELY(e->capture) ? sim_capture_conflict_event(e) : sim_unsafe();
}

CUresult cuEventQuery(CUevent e)
{
	struct sim_lane *lane;
	uint64_t seq;
	CUresult r = sim_ready();

	if (!r)
		r = check(e);
	if (!r)
		r = alive(e);
	if (!r)
		r = captured(e);
	if (r)
		return r;
	if (SIM_UNLIKELY(e->shared))
		return sim_shared_done(e) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
	return last_record(e, &lane, &seq) ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

CUresult cuEventSynchronize(CUevent e)
{
	struct sim_lane *lane;
	uint64_t seq;
	CUresult r = sim_ready();

	if (!r)
		r = check(e);
	if (!r)
		r = alive(e);
	if (!r)
		r = captured(e);
	if (r)
		return r;
	/* Whoever recorded it may be another process: there is nobody to wake this one. */
	while (SIM_UNLIKELY(e->shared) && !sim_shared_done(e) && !r) {
		nanosleep(&(struct timespec){ .tv_nsec = 50000 }, NULL);
		r = alive(e);
	}
	if (r || e->shared)
		return r;
	return last_record(e, &lane, &seq) ? sim_lane_wait(e->ctx, lane, seq) : CUDA_SUCCESS;
}

static CUresult elapsed(float *ms, CUevent a, CUevent b)
{
	struct sim_lane *lane;
	uint64_t seq;
	CUresult r = sim_ready();

	if (!r)
		r = check(a);
	if (!r)
		r = check(b);
	if (r)
		return r;
	if (!ms)
		return CUDA_ERROR_INVALID_VALUE;
	if (!a->recorded || !b->recorded || (a->flags | b->flags) & CU_EVENT_DISABLE_TIMING)
		return CUDA_ERROR_INVALID_HANDLE;
	r = alive(a);
	if (r)
		return r;
	if (last_record(a, &lane, &seq) || last_record(b, &lane, &seq))
		return CUDA_ERROR_NOT_READY;
	int64_t ticks = (int64_t)(b->stamp_ns[b->turn] / TICK_NS) - (int64_t)(a->stamp_ns[a->turn] / TICK_NS);
	*ms = (float)((double)ticks * TICK_NS / 1e6);
	return CUDA_SUCCESS;
}

CUresult cuEventElapsedTime(float *ms, CUevent a, CUevent b)
{
	return elapsed(ms, a, b);
}

CUresult cuEventElapsedTime_v2(float *ms, CUevent a, CUevent b)
{
	return elapsed(ms, a, b);
}

CUresult sim_event_wait(CUstream s, CUevent e)
{
	struct sim_lane *lane;
	uint64_t seq;
	CUresult r = alive(e);

	if (!r && SIM_UNLIKELY(e->shared))
		return sim_shared_wait(e, s);
	if (r || !last_record(e, &lane, &seq) || lane == s->lane)
		return r;

	struct sim_cmd cmd = { .kind = SIM_WAIT_SEQ, .wait_seq = { lane->channel, seq } };

	return sim_push(s, &cmd, NULL, 0, NULL);
}

static CUresult wait_event(CUstream h, bool per_thread, CUevent e, unsigned int flags)
{
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_stream_get(ctx, h, per_thread, &s);
	if (!r)
		r = check(e);
	if (r)
		return r;
	if (flags & ~(unsigned)CU_EVENT_WAIT_EXTERNAL)
		return CUDA_ERROR_INVALID_VALUE;
	if (SIM_UNLIKELY(s->capture || e->capture))
		return sim_capture_wait(s, e, flags & CU_EVENT_WAIT_EXTERNAL);
	return sim_event_wait(s, e);
}

CUresult cuStreamWaitEvent(CUstream h, CUevent e, unsigned int flags)
{
	return wait_event(h, false, e, flags);
}

CUresult cuStreamWaitEvent_ptsz(CUstream h, CUevent e, unsigned int flags)
{
	return wait_event(h, true, e, flags);
}
