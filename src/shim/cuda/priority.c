/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Priorities of streams and launches, from the tenant's place among the others. They decide whose blocks are dealt next among kernels
 * that run side by side, and nothing else; so they are moved only where tenants do run side by side: in mode corun, or with an MPS
 * server. There each class has a band of the driver's range, and what the application asks for moves within it. The
 * application is shown what it asked for.
 */
#include "shim/cuda/gating.h"

#include <string.h>

/* Parts of the range, in sixteenths from the least urgent end: where the class's band begins, and how wide it is. */
static const struct { int base, width; } bands[] = { { 10, 6 }, { 7, 4 }, { 0, 4 } };   /* urgent, normal, last */

static struct pen_cu_gating *range_of(struct pen_cu_context *c)
{
	struct pen_cu_gating *g = pen_cu_gating(c->device);
	if (!g || atomic_load_explicit(&g->range_known, memory_order_acquire))
		return g;
	int least = 0, greatest = 0, mps = 0;
	bool pushed;
	if (!pen_cu_context_push(c, &pushed))
		return NULL;
	if (!REAL(cuCtxGetStreamPriorityRange) || REAL(cuCtxGetStreamPriorityRange)(&least, &greatest) != CUDA_SUCCESS)
		least = greatest = 0;
	pen_cu_context_pop(pushed);
	if (REAL(cuDeviceGetAttribute)(&mps, CU_DEVICE_ATTRIBUTE_MPS_ENABLED, c->device->id) != CUDA_SUCCESS)   /* not asked before 12.0 */
		mps = 0;
	g->least = least;
	g->greatest = greatest;
	atomic_store_explicit(&g->mps, mps != 0, memory_order_relaxed);
	atomic_store_explicit(&g->range_known, 1, memory_order_release);
	return g;
}

static bool acts(struct pen_cu_context *c, const struct pen_cu_gating *g)
{
	return g && g->greatest < g->least &&
	       (atomic_load_explicit(&g->mps, memory_order_relaxed) || pen_gate_terms(c->gate)->mode == PEN_MODE_CORUN);
}

static int clamp(const struct pen_cu_gating *g, int asked)
{
	return asked > g->least ? g->least : asked < g->greatest ? g->greatest : asked;
}

/* Numbers fall as urgency rises. Downwards, so that the band of another class is not touched; the most urgent one upwards. */
static int banded(struct pen_cu_context *c, const struct pen_cu_gating *g, int asked)
{
	const struct pen_terms *t = pen_gate_terms(c->gate);
	unsigned level = t->own_flags & PEN_SEAT_LATENCY ? 0 : t->rank ? 2 : 1;
	int span = g->least - g->greatest, up = g->least - clamp(g, asked);
	int sixteenths = bands[level].base * span + bands[level].width * up;
	return g->least - (sixteenths + (level ? 0 : 15)) / 16;
}

int pen_cu_priority(struct pen_cu_context *c, int asked)
{
	struct pen_cu_gating *g = c ? range_of(c) : NULL;
	return acts(c, g) ? banded(c, g, asked) : asked;
}

bool pen_cu_priority_acts(struct pen_cu_context *c)
{
	return acts(c, range_of(c));
}

/* ---- streams ---------------------------------------------------------------------------------------------------- */

/* A default stream, or one that was made by a way that we do not see: that has the priority that was asked for. */
void pen_cu_priority_seen(struct pen_cu_stream *s)
{
	CUstreamAttrValue_v1 v;
	int asked = 0;
	if (s->legacy || s->per_thread) {
		/* A default stream's cannot be set; that of each launch can, since 11.6. */
		s->launch_priority = REAL(cuLaunchKernelEx) ? pen_cu_priority(s->ctx, 0) : 0;
		return;
	}
	if (s->has_priority || !REAL(cuStreamGetPriority) || !pen_cu_priority_acts(s->ctx) ||
	    REAL(cuStreamGetPriority)(s->id, &asked) != CUDA_SUCCESS)
		return;
	s->priority = asked;
	s->has_priority = true;
	memset(&v, 0, sizeof(v));
	v.priority = pen_cu_priority(s->ctx, asked);
	if (v.priority != asked && REAL(cuStreamSetAttribute))   /* a driver that cannot leaves it */
		(void)REAL(cuStreamSetAttribute)(s->id, CU_LAUNCH_ATTRIBUTE_PRIORITY, &v);
}

/* What the application is shown. False: what the driver says. */
static bool shown(struct pen_cu_stream *s, int *ret)
{
	if (!s || !s->has_priority)
		return false;
	const struct pen_cu_gating *g = range_of(s->ctx);
	if (!acts(s->ctx, g))
		return false;
	*ret = clamp(g, s->priority);
	return true;
}

static CUresult get_priority(CUresult r, CUstream stream, int *ret, bool per_thread)
{
	struct pen_cu_stream *s = r != CUDA_SUCCESS || pen_cu_thread.depth || !ret ? NULL : pen_cu_stream(stream, per_thread);
	pen_cu_thread.depth++;
	(void)shown(s, ret);
	pen_cu_thread.depth--;
	return r;
}

CUresult pen_cuStreamGetPriority(CUstream stream, int *priority)
{
	return get_priority(REAL(cuStreamGetPriority)(stream, priority), stream, priority, false);
}

CUresult pen_cuStreamGetPriority_ptsz(CUstream stream, int *priority)
{
	return get_priority(REAL(cuStreamGetPriority_ptsz)(stream, priority), stream, priority, true);
}

static CUresult get_attribute(CUresult r, CUstream stream, CUstreamAttrID id, CUstreamAttrValue_v1 *value, bool per_thread)
{
	return id == CU_LAUNCH_ATTRIBUTE_PRIORITY && value ? get_priority(r, stream, &value->priority, per_thread) : r;
}

CUresult pen_cuStreamGetAttribute(CUstream stream, CUstreamAttrID id, CUstreamAttrValue_v1 *value)
{
	return get_attribute(REAL(cuStreamGetAttribute)(stream, id, value), stream, id, value, false);
}

CUresult pen_cuStreamGetAttribute_ptsz(CUstream stream, CUstreamAttrID id, CUstreamAttrValue_v1 *value)
{
	return get_attribute(REAL(cuStreamGetAttribute_ptsz)(stream, id, value), stream, id, value, true);
}

static CUresult set_attribute(CUresult (*real)(CUstream, CUstreamAttrID, const CUstreamAttrValue_v1 *), CUstream stream,
			      CUstreamAttrID id, const CUstreamAttrValue_v1 *value, bool per_thread)
{
	bool ours = id == CU_LAUNCH_ATTRIBUTE_PRIORITY && value && !pen_cu_thread.depth;
	struct pen_cu_stream *s = ours ? pen_cu_stream(stream, per_thread) : NULL;
	if (!s)
		return real(stream, id, value);
	CUstreamAttrValue_v1 v = *value;
	pen_cu_thread.depth++;
	v.priority = pen_cu_priority(s->ctx, value->priority);
	CUresult r = real(stream, id, &v);
	if (r == CUDA_SUCCESS) {
		s->priority = value->priority;
		s->has_priority = true;
	}
	pen_cu_thread.depth--;
	return r;
}

CUresult pen_cuStreamSetAttribute(CUstream stream, CUstreamAttrID id, const CUstreamAttrValue_v1 *value)
{
	return set_attribute(REAL(cuStreamSetAttribute), stream, id, value, false);
}

CUresult pen_cuStreamSetAttribute_ptsz(CUstream stream, CUstreamAttrID id, const CUstreamAttrValue_v1 *value)
{
	return set_attribute(REAL(cuStreamSetAttribute_ptsz), stream, id, value, true);
}

static CUresult copied(CUresult r, CUstream dst, CUstream src, bool per_thread)
{
	if (r != CUDA_SUCCESS || pen_cu_thread.depth)
		return r;
	struct pen_cu_stream *from = pen_cu_stream(src, per_thread), *to = pen_cu_stream(dst, per_thread);
	if (from && to && from->has_priority) {
		to->priority = from->priority;
		to->has_priority = true;
	}
	return r;
}

CUresult pen_cuStreamCopyAttributes(CUstream dst, CUstream src)
{
	return copied(REAL(cuStreamCopyAttributes)(dst, src), dst, src, false);
}

CUresult pen_cuStreamCopyAttributes_ptsz(CUstream dst, CUstream src)
{
	return copied(REAL(cuStreamCopyAttributes_ptsz)(dst, src), dst, src, true);
}

/* ---- launches --------------------------------------------------------------------------------------------------- */

/* A priority among the attributes of a launch is moved into the band, in a copy. True: *@copy is to be used. */
bool pen_cu_priority_launch(struct pen_cu_stream *s, const CUlaunchConfig *c, CUlaunchConfig *copy, CUlaunchAttribute *room)
{
	unsigned int at = c->numAttrs;
	for (unsigned int i = 0; c->attrs && i < c->numAttrs; i++)
		if (c->attrs[i].id == CU_LAUNCH_ATTRIBUTE_PRIORITY)
			at = i;
	if (at == c->numAttrs || c->numAttrs > PEN_CU_ATTRIBUTES)
		return false;
	pen_cu_thread.depth++;
	int moved = pen_cu_priority(s->ctx, c->attrs[at].value.priority);
	pen_cu_thread.depth--;
	if (moved == c->attrs[at].value.priority)
		return false;
	*copy = *c;
	memcpy(room, c->attrs, c->numAttrs * sizeof(*room));
	room[at].value.priority = moved;
	copy->attrs = room;
	return true;
}
