/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How commands get to the device and are waited for. Server mode: into the stream's lane, behind the waits
 * that order it with the legacy stream. Null mode: done on the spot.
 */
#include "simgpu/nvidia/cuda/mem.h"

#include <stdlib.h>
#include <string.h>

/* Per lane, made when first needed: a megabyte of parameters in flight is thousands of launches. */
#define RING_BYTES (1u << 20)

/* ---- null mode ---- */

static void copy_now(const struct sim_cmd *c)
{
	const char *src = (const char *)c->copy.src;
	char *dst = (char *)c->copy.dst;

	if (!c->copy.dst && !c->copy.src)
		return; /* one that only takes time */
	if (c->copy.rows <= 1 && c->copy.layers <= 1) {
		memmove(dst, src, c->copy.width);
		return;
	}
	for (uint64_t z = 0; z < c->copy.layers; z++)
		for (uint64_t y = 0; y < c->copy.rows; y++)
			memmove(dst + z * c->copy.dst_layer + y * c->copy.dst_pitch,
				src + z * c->copy.src_layer + y * c->copy.src_pitch, c->copy.width);
}

static void fill_now(const struct sim_cmd *c)
{
	for (uint64_t y = 0; y < c->fill.rows; y++) {
		char *row = (char *)c->fill.dst + y * c->fill.pitch;

		if (c->fill.element == 1) {
			memset(row, (int)c->fill.value, c->fill.width);
			continue;
		}
		for (uint64_t x = 0; x < c->fill.width; x++)
			memcpy(row + x * c->fill.element, &c->fill.value, c->fill.element);
	}
}

static void do_now(const struct sim_cmd *c)
{
	switch (c->kind) {
	case SIM_COPY:
		copy_now(c);
		break;
	case SIM_FILL:
		fill_now(c);
		break;
	case SIM_WRITE_WORD:
		memcpy((void *)c->word.address, &c->word.value, c->word.bytes);
		break;
	case SIM_HOST:
		sim_host_run(c->host.token);
		break;
	default: /* kernels take no time and compute nothing, waits are over */
		break;
	}
}

/* ---- staged bytes: [number of the command, size][bytes], one after another round the ring ---- */

struct slot {
	uint64_t seq;
	uint32_t bytes; /* with this head, a multiple of 16 */
	uint32_t unused;
};

static struct slot *slot_at(struct sim_lane *l, uint32_t at)
{
	return (struct slot *)(l->ring + at);
}

/*
 * Room for @n bytes that lie together; the oldest slots are waited for when there is none. Caller holds the
 * lane.
 */
static struct slot *stage(CUcontext ctx, struct sim_lane *l, const void *bytes, size_t n)
{
	uint32_t need = (uint32_t)((n + sizeof(struct slot) + 15) & ~15ul);
	uint32_t offset;

	if (!l->ring)
		l->ring = malloc(RING_BYTES);
	if (!l->ring)
		return NULL;
	for (;;) {
		while (l->ring_tail != l->ring_head) {
			struct slot *s = slot_at(l, l->ring_tail % RING_BYTES);

			if (s->seq > sim_done(l->channel))
				break;
			l->ring_tail += s->bytes;
		}
		offset = l->ring_head % RING_BYTES;
		uint32_t skip = offset + need > RING_BYTES ? RING_BYTES - offset : 0;
		if (l->ring_head - l->ring_tail + skip + need <= RING_BYTES) {
			if (skip) {
				*slot_at(l, offset) = (struct slot){ .bytes = skip };
				l->ring_head += skip;
				offset = 0;
			}
			break;
		}
		if (sim_lane_wait(ctx, l, slot_at(l, l->ring_tail % RING_BYTES)->seq))
			return NULL;
	}
	struct slot *s = slot_at(l, offset);
	s->seq = UINT64_MAX; /* until it has a number */
	s->bytes = need;
	memcpy(s + 1, bytes, n);
	l->ring_head += need;
	return s;
}

/* ---- order ---- */

static bool submit_wait(struct sim_lane *l, struct sim_lane *other, uint64_t seq)
{
	struct sim_cmd wait = { .kind = SIM_WAIT_SEQ, .wait_seq = { other->channel, seq } };
	uint64_t n = sim_submit(l->channel, &wait);

	if (n)
		atomic_store(&l->last, n);
	return n != 0;
}

/*
 * Before the next command of a lane: the waits that the legacy stream's rule asks for. Caller holds the
 * lane.
 */
static bool order(CUstream s)
{
	struct sim_lane *l = s->lane, *legacy = s->ctx->legacy ? s->ctx->legacy->lane : NULL;

	if (l == legacy) {
		for (struct sim_lane *o = s->ctx->lanes; o; o = o->next) {
			uint64_t n = o->last;

			if (o == l || !o->blocking || n <= o->seen_by_legacy)
				continue;
			if (n > sim_done(o->channel) && !submit_wait(l, o, n))
				return false;
			o->seen_by_legacy = n;
		}
	} else if (l->blocking && legacy) {
		uint64_t n = legacy->last;

		if (n > l->legacy_seen) {
			if (n > sim_done(legacy->channel) && !submit_wait(l, legacy, n))
				return false;
			l->legacy_seen = n;
		}
	}
	return true;
}

static CUresult failed(CUcontext ctx)
{
	CUresult r = sim_context_check(ctx);

	return r ? r : CUDA_ERROR_UNKNOWN;
}

CUresult sim_push(CUstream s, struct sim_cmd *cmd, const void *bytes, size_t n, uint64_t *ret_seq)
{
	struct sim_lane *l = s->lane;
	struct slot *slot = NULL;
	uint64_t seq = 0;

	if (!l) {
		if (bytes && cmd->kind == SIM_COPY)
			cmd->copy.src = (uintptr_t)bytes;
		do_now(cmd);
		if (ret_seq)
			*ret_seq = 0;
		return CUDA_SUCCESS;
	}
	pthread_mutex_lock(&l->lock);
	if (order(s)) {
		if (bytes)
			slot = stage(s->ctx, l, bytes, n);
		if (slot && cmd->kind == SIM_COPY) {
			cmd->copy.src = (uintptr_t)(slot + 1);
		} else if (slot) {
			cmd->kernel.args = (uintptr_t)(slot + 1);
			cmd->kernel.args_bytes = (uint32_t)n;
		}
		if (slot || !bytes)
			seq = sim_submit(l->channel, cmd);
		if (slot)
			slot->seq = seq ? seq : 0;
		if (seq)
			atomic_store(&l->last, seq);
	}
	pthread_mutex_unlock(&l->lock);
	if (!seq)
		return failed(s->ctx);
	if (ret_seq)
		*ret_seq = seq;
	return CUDA_SUCCESS;
}

/* ---- waiting ---- */

CUresult sim_lane_wait(CUcontext ctx, struct sim_lane *lane, uint64_t seq)
{
	bool spin = (ctx->flags & CU_CTX_SCHED_MASK) == CU_CTX_SCHED_SPIN;
	int e = sim_wait(lane->channel, seq, UINT64_MAX, spin);

	(void)atomic_load(&sim_host_calls);   /* what host functions wrote is seen by who waited for them */

	if (e < 0)
		return ctx->sim && sim_context_status(ctx->sim) ? sim_context_broken(ctx) : sim_result(e);
	return CUDA_SUCCESS;
}

CUresult sim_push_now(CUstream s, struct sim_cmd *cmd)
{
	uint64_t seq;
	CUresult r = sim_push(s, cmd, NULL, 0, &seq);

	return r || !s->lane ? r : sim_lane_wait(s->ctx, s->lane, seq);
}

/* The lanes of which @blocking_only says whether all count: each is waited for as far as it is now. */
static CUresult wait_lanes(CUcontext ctx, bool blocking_only)
{
	struct sim_lane *legacy = ctx->legacy ? ctx->legacy->lane : NULL;

	for (struct sim_lane *l = ctx->lanes; l; l = l->next) {
		uint64_t last = l->last;

		if ((blocking_only && l != legacy && !l->blocking) || last <= sim_done(l->channel))
			continue;
		CUresult r = sim_lane_wait(ctx, l, last);
		if (r)
			return r;
	}
	return ctx->sim && sim_context_status(ctx->sim) ? sim_context_broken(ctx) : CUDA_SUCCESS;
}

CUresult sim_stream_sync(CUstream s)
{
	CUresult r = CUDA_SUCCESS;

	/* A blocking stream's next command would wait for the legacy stream; what is in it already does. */
	if (s->lane && s == s->ctx->legacy)
		r = wait_lanes(s->ctx, true);
	else if (s->lane)
		r = sim_lane_wait(s->ctx, s->lane, s->lane->last);
	if (SIM_UNLIKELY(s->ctx->device->keeps))
		sim_pools_settle(s->ctx->device);
	return r;
}

bool sim_stream_done(CUstream s)
{
	if (!s->lane)
		return true;
	if (s == s->ctx->legacy)
		for (struct sim_lane *l = s->ctx->lanes; l; l = l->next)
			if (l->blocking && l->last > sim_done(l->channel))
				return false;
	return s->lane->last <= sim_done(s->lane->channel);
}

CUresult sim_context_sync(CUcontext ctx)
{
	CUresult r = sim_driver.null ? CUDA_SUCCESS : wait_lanes(ctx, false);

	for (CUcontext part = ctx->parts; part && !r && !sim_driver.null; part = part->next_part)
		r = wait_lanes(part, false);

	if (SIM_UNLIKELY(ctx->device->keeps))
		sim_pools_settle(ctx->device);
	return r;
}
