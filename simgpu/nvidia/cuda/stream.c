/* SPDX-License-Identifier: Apache-2.0 */
/* Streams: handles, default streams, what a program may ask of one. What is in them is push.c's. */
#include "simgpu/nvidia/cuda/drv.h"

#include <stdlib.h>
#include <string.h>

#define PRIORITY_MOST (-5)

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static CUstream pool;
static _Atomic uint64_t next_id = 1;

/* ---- lanes ---- */

/* One that no stream has and that has run dry, or a new one. */
static CUresult take_lane(CUcontext ctx, int priority, bool blocking, struct sim_lane **ret)
{
	struct sim_lane *l;
	int e;

	pthread_mutex_lock(&ctx->lock);
	for (l = ctx->lanes; l; l = l->next)
		if (!l->used && l->priority == priority && l->units == ctx->units &&
		    sim_done(l->channel) >= l->last)
			break;
	if (l)
		l->used = true;
	pthread_mutex_unlock(&ctx->lock);
	if (!l) {
		l = calloc(1, sizeof(*l));
		if (!l)
			return CUDA_ERROR_OUT_OF_MEMORY;
		e = sim_channel_create(ctx->root->sim, priority, ctx->units, &l->channel);
		if (e < 0) {
			free(l);
			return sim_result(e);
		}
		pthread_mutex_init(&l->lock, NULL);
		l->priority = priority;
		l->units = ctx->units;
		l->used = true;
		pthread_mutex_lock(&ctx->lock);
		l->next = ctx->lanes;
		atomic_store(&ctx->lanes, l);
		pthread_mutex_unlock(&ctx->lock);
	}
	l->blocking = blocking;
	*ret = l;
	return CUDA_SUCCESS;
}

/*
 * The lanes of a context that has ended. Another thread may just be waiting in one, or ask an event that
 * was recorded in it; the channel has ended on the device, and our side of it goes when some more have
 * come.
 */
#define GRAVES 64u

static pthread_mutex_t graves_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sim_lane *grave[GRAVES];
static uint32_t graves;

static void bury(struct sim_lane *l)
{
	pthread_mutex_lock(&graves_lock);
	struct sim_lane *oldest = grave[graves % GRAVES];

	grave[graves++ % GRAVES] = l;
	pthread_mutex_unlock(&graves_lock);
	if (!oldest)
		return;
	sim_channel_destroy(oldest->channel);
	free(oldest->ring);
	free(oldest);
}

/* ---- life ---- */

CUresult sim_stream_make(CUcontext ctx, uint32_t flags, int priority, CUstream *ret)
{
	struct sim_lane *lane = NULL;
	CUstream s;

	/* The legacy stream's own lane is not one of those that it waits for. */
	bool blocking = !(flags & CU_STREAM_NON_BLOCKING) && ctx->legacy;
	CUresult r = sim_driver.null ? CUDA_SUCCESS : take_lane(ctx, priority, blocking, &lane);

	if (r)
		return r;
	pthread_mutex_lock(&pool_lock);
	s = pool;
	if (s)
		pool = s->next;
	pthread_mutex_unlock(&pool_lock);
	if (!s)
		s = calloc(1, sizeof(*s));
	if (!s) {
		if (lane)
			lane->used = false;
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	s->flags = flags;
	s->priority = priority;
	s->ctx = ctx;
	s->lane = lane;
	s->own = false;
	s->id = atomic_fetch_add(&next_id, 1);
	memset(s->attr, 0, sizeof(s->attr));
	atomic_store(&s->capture, NULL);
	s->tag = SIM_TAG_STREAM;
	*ret = s;
	return CUDA_SUCCESS;
}

static void list(CUstream s)
{
	pthread_mutex_lock(&s->ctx->lock);
	s->next = s->ctx->streams;
	s->ctx->streams = s;
	pthread_mutex_unlock(&s->ctx->lock);
}

/* What is in its lane goes on. */
void sim_stream_drop(CUstream s)
{
	if (s->capture)
		sim_capture_drop(s);
	s->tag = 0;
	if (s->lane) {
		pthread_mutex_lock(&s->ctx->lock);
		s->lane->used = false;
		pthread_mutex_unlock(&s->ctx->lock);
	}
	pthread_mutex_lock(&pool_lock);
	s->next = pool;
	pool = s;
	pthread_mutex_unlock(&pool_lock);
}

static bool unlist(CUstream s)
{
	CUcontext ctx = s->ctx;
	CUstream *at;

	pthread_mutex_lock(&ctx->lock);
	for (at = &ctx->streams; *at && *at != s; at = &(*at)->next)
		;
	bool found = *at != NULL;
	if (found)
		*at = s->next;
	pthread_mutex_unlock(&ctx->lock);
	return found;
}

void sim_streams_end(CUcontext ctx)
{
	while (ctx->streams) {
		CUstream s = ctx->streams;

		if (unlist(s))
			sim_stream_drop(s);
	}
	if (ctx->legacy)
		sim_stream_drop(ctx->legacy);
	ctx->legacy = NULL;

	struct sim_lane *l = atomic_exchange(&ctx->lanes, NULL);

	while (l) {
		struct sim_lane *next = l->next;

		bury(l);
		l = next;
	}
}

/* ---- handles ---- */

/* The list of a context is searched only when the thread changed its context since. */
CUresult sim_stream_own(CUcontext ctx, CUstream *ret)
{
	pthread_t me = pthread_self();
	CUstream s = sim_self.own;

	if (s && s->tag == SIM_TAG_STREAM && s->own && s->ctx == ctx && pthread_equal(s->thread, me)) {
		*ret = s;
		return CUDA_SUCCESS;
	}
	pthread_mutex_lock(&ctx->lock);
	for (s = ctx->streams; s && !(s->own && pthread_equal(s->thread, me)); s = s->next)
		;
	pthread_mutex_unlock(&ctx->lock);
	if (!s) {
		CUresult r = sim_stream_make(ctx, CU_STREAM_DEFAULT, 0, &s);

		if (r)
			return r;
		s->own = true;
		s->thread = me;
		list(s);
		sim_thread_register();
	}
	sim_self.own = s;
	*ret = s;
	return CUDA_SUCCESS;
}

/*
 * Only the last context's: others have theirs until the context ends, or until the thread's number comes
 * again.
 */
void sim_thread_streams_end(void)
{
	CUstream s = sim_self.own;

	if (s && s->tag == SIM_TAG_STREAM && s->own && pthread_equal(s->thread, pthread_self()) && unlist(s))
		sim_stream_drop(s);
	sim_self.own = NULL;
}

CUresult sim_stream_get(CUcontext ctx, CUstream h, bool per_thread, CUstream *ret)
{
	if (!h)
		h = per_thread ? CU_STREAM_PER_THREAD : CU_STREAM_LEGACY;
	if (h == CU_STREAM_LEGACY) {
		*ret = ctx->legacy;
		return SIM_UNLIKELY(sim_driver.captures) ? sim_capture_legacy(ctx) : CUDA_SUCCESS;
	}
	if (h == CU_STREAM_PER_THREAD)
		return sim_stream_own(ctx, ret);
	if (h->tag != SIM_TAG_STREAM)
		return CUDA_ERROR_INVALID_HANDLE;
	*ret = h;
	return CUDA_SUCCESS;
}

static CUresult enter(CUstream h, bool per_thread, CUstream *ret)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	return r ? r : sim_stream_get(ctx, h, per_thread, ret);
}

CUresult sim_stream_create(CUcontext ctx, uint32_t flags, int priority, CUstream *ret)
{
	CUresult r;

	if (!ret || flags & ~(unsigned)CU_STREAM_NON_BLOCKING)
		return CUDA_ERROR_INVALID_VALUE;
	priority = priority > 0 ? 0 : priority < PRIORITY_MOST ? PRIORITY_MOST : priority;
	r = sim_stream_make(ctx, flags, priority, ret);
	if (!r)
		list(*ret);
	return r;
}

CUresult cuStreamCreateWithPriority(CUstream *ret, unsigned int flags, int priority)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	return r ? r : sim_stream_create(ctx, flags, priority, ret);
}

CUresult cuStreamCreate(CUstream *ret, unsigned int flags)
{
	return cuStreamCreateWithPriority(ret, flags, 0);
}

CUresult cuStreamDestroy_v2(CUstream h)
{
	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!h || h == CU_STREAM_LEGACY || h == CU_STREAM_PER_THREAD || h->tag != SIM_TAG_STREAM || h->own)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!unlist(h))
		return CUDA_ERROR_INVALID_HANDLE;
	sim_stream_drop(h);
	return CUDA_SUCCESS;
}

CUresult cuStreamDestroy(CUstream h)
{
	return cuStreamDestroy_v2(h);
}

/* ---- questions ---- */

static CUresult get_id(CUstream h, bool per_thread, unsigned long long *id)
{
	CUstream s;
	CUresult r = enter(h, per_thread, &s);

	if (!r && !id)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*id = s->id;
	return r;
}

CUresult cuStreamGetId(CUstream h, unsigned long long *id)
{
	return get_id(h, false, id);
}

CUresult cuStreamGetId_ptsz(CUstream h, unsigned long long *id)
{
	return get_id(h, true, id);
}

static CUresult get_priority(CUstream h, bool per_thread, int *priority)
{
	CUstream s;
	CUresult r = enter(h, per_thread, &s);

	if (!r && !priority)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*priority = s->priority;
	return r;
}

CUresult cuStreamGetPriority(CUstream h, int *priority)
{
	return get_priority(h, false, priority);
}

CUresult cuStreamGetPriority_ptsz(CUstream h, int *priority)
{
	return get_priority(h, true, priority);
}

static CUresult get_flags(CUstream h, bool per_thread, unsigned int *flags)
{
	CUstream s;
	CUresult r = enter(h, per_thread, &s);

	if (!r && !flags)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*flags = s->flags;
	return r;
}

CUresult cuStreamGetFlags(CUstream h, unsigned int *flags)
{
	return get_flags(h, false, flags);
}

CUresult cuStreamGetFlags_ptsz(CUstream h, unsigned int *flags)
{
	return get_flags(h, true, flags);
}

static CUresult get_ctx(CUstream h, bool per_thread, CUcontext *ret, CUgreenCtx *ret_green)
{
	CUstream s;
	CUresult r = enter(h, per_thread, &s);

	if (r)
		return r;
	if (!ret)
		return CUDA_ERROR_INVALID_VALUE;
	/*
	 * The first form answers with the context that stands for a green one, the second with the primary
	 * one beside it.
	 */
	*ret = ret_green ? s->ctx->root : s->ctx;
	if (ret_green)
		*ret_green = s->ctx->green;
	return CUDA_SUCCESS;
}

CUresult cuStreamGetCtx(CUstream h, CUcontext *ret)
{
	return get_ctx(h, false, ret, NULL);
}

CUresult cuStreamGetCtx_ptsz(CUstream h, CUcontext *ret)
{
	return get_ctx(h, true, ret, NULL);
}

CUresult cuStreamGetCtx_v2(CUstream h, CUcontext *ret, CUgreenCtx *green)
{
	return green ? get_ctx(h, false, ret, green) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuStreamGetCtx_v2_ptsz(CUstream h, CUcontext *ret, CUgreenCtx *green)
{
	return green ? get_ctx(h, true, ret, green) : CUDA_ERROR_INVALID_VALUE;
}

static CUresult get_device(CUstream h, bool per_thread, CUdevice *device)
{
	CUstream s;
	CUresult r = enter(h, per_thread, &s);

	if (!r && !device)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*device = s->ctx->device->id;
	return r;
}

CUresult cuStreamGetDevice(CUstream h, CUdevice *device)
{
	return get_device(h, false, device);
}

CUresult cuStreamGetDevice_ptsz(CUstream h, CUdevice *device)
{
	return get_device(h, true, device);
}

/* ---- attributes ---- */

static int attr_slot(CUstreamAttrID id)
{
	switch (id) {
	case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
		return 0;
	case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
		return 1;
	case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
		return 2;
	default:
		return -1;
	}
}

static CUresult get_attr(CUstream h, bool per_thread, CUstreamAttrID id, CUstreamAttrValue_v1 *v)
{
	CUstream s;
	CUresult r = enter(h, per_thread, &s);

	if (r)
		return r;
	if (!v || (attr_slot(id) < 0 && id != CU_LAUNCH_ATTRIBUTE_PRIORITY))
		return CUDA_ERROR_INVALID_VALUE;
	if (id == CU_LAUNCH_ATTRIBUTE_PRIORITY)
		v->priority = s->priority;
	else
		*v = s->attr[attr_slot(id)];
	return CUDA_SUCCESS;
}

/*
 * A lane has its priority from the start, so a stream of a changed one goes on in another lane, after what
 * it has submitted.
 */
static CUresult set_priority(CUstream s, int priority)
{
	struct sim_lane *lane = NULL, *old = s->lane;
	CUresult r;

	priority = priority > 0 ? 0 : priority < PRIORITY_MOST ? PRIORITY_MOST : priority;
	if (old && priority != s->priority) {
		uint64_t last = old->last;

		r = take_lane(s->ctx, priority, old->blocking, &lane);
		if (r)
			return r;
		s->lane = lane;
		pthread_mutex_lock(&s->ctx->lock);
		old->used = false;
		pthread_mutex_unlock(&s->ctx->lock);
		struct sim_cmd wait = { .kind = SIM_WAIT_SEQ, .wait_seq = { old->channel, last } };
		r = last ? sim_push(s, &wait, NULL, 0, NULL) : CUDA_SUCCESS;
		if (r)
			return r;
	}
	s->priority = priority;
	return CUDA_SUCCESS;
}

static CUresult set_attr(CUstream h, bool per_thread, CUstreamAttrID id, const CUstreamAttrValue_v1 *v)
{
	CUstream s;
	CUresult r = enter(h, per_thread, &s);

	if (r)
		return r;
	if (!v || (attr_slot(id) < 0 && id != CU_LAUNCH_ATTRIBUTE_PRIORITY))
		return CUDA_ERROR_INVALID_VALUE;
	if (id == CU_LAUNCH_ATTRIBUTE_PRIORITY)
		return set_priority(s, v->priority);
	s->attr[attr_slot(id)] = *v;
	return CUDA_SUCCESS;
}

CUresult cuStreamGetAttribute(CUstream h, CUstreamAttrID id, CUstreamAttrValue_v1 *v)
{
	return get_attr(h, false, id, v);
}

CUresult cuStreamGetAttribute_ptsz(CUstream h, CUstreamAttrID id, CUstreamAttrValue_v1 *v)
{
	return get_attr(h, true, id, v);
}

CUresult cuStreamSetAttribute(CUstream h, CUstreamAttrID id, const CUstreamAttrValue_v1 *v)
{
	return set_attr(h, false, id, v);
}

CUresult cuStreamSetAttribute_ptsz(CUstream h, CUstreamAttrID id, const CUstreamAttrValue_v1 *v)
{
	return set_attr(h, true, id, v);
}

static CUresult copy_attrs(CUstream dst, CUstream src, bool per_thread)
{
	CUstream d, s;
	CUresult r = enter(dst, per_thread, &d);

	if (!r)
		r = enter(src, per_thread, &s);
	if (!r)
		memcpy(d->attr, s->attr, sizeof(d->attr));
	return r;
}

CUresult cuStreamCopyAttributes(CUstream dst, CUstream src)
{
	return copy_attrs(dst, src, false);
}

CUresult cuStreamCopyAttributes_ptsz(CUstream dst, CUstream src)
{
	return copy_attrs(dst, src, true);
}

/* ---- waiting ---- */

static CUresult query(CUstream h, bool per_thread)
{
	CUstream s;
	CUresult r = enter(h, per_thread, &s);

	if (!r && SIM_UNLIKELY(sim_driver.captures))
		r = s->capture ? sim_capture_conflict(s) : sim_unsafe();
	return r ? r : sim_stream_done(s) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult cuStreamQuery(CUstream h)
{
	return query(h, false);
}

CUresult cuStreamQuery_ptsz(CUstream h)
{
	return query(h, true);
}

static CUresult synchronize(CUstream h, bool per_thread)
{
	CUstream s;
	CUresult r = enter(h, per_thread, &s);

	if (!r && SIM_UNLIKELY(sim_driver.captures))
		r = s->capture ? sim_capture_conflict(s) : sim_unsafe();
	return r ? r : sim_stream_sync(s);
}

CUresult cuStreamSynchronize(CUstream h)
{
	return synchronize(h, false);
}

CUresult cuStreamSynchronize_ptsz(CUstream h)
{
	return synchronize(h, true);
}
