/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CUDA's table for the gate. A mark is a pair of events around a command, or one behind everything (an edge). Nothing notifies:
 * marks are polled.
 *
 * An event belongs to a context and goes with it, so each call on one is counted in there (context.c). Events are created once
 * and kept in a pool of their context.
 */
#include "shim/cuda/gating.h"

#include "base/clock.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* ---- events ----------------------------------------------------------------------------------------------------- */

static struct pen_cu_node *node_new(struct pen_cu_context *c)
{
	struct pen_cu_node *n = calloc(1, sizeof(*n));
	bool pushed;
	if (!n)
		return NULL;
	CUstreamCaptureMode mode = pen_cu_relax();
	if (pen_cu_context_push(c, &pushed)) {
		if (REAL(cuEventCreate)(&n->before, CU_EVENT_DEFAULT) == CUDA_SUCCESS &&
		    REAL(cuEventCreate)(&n->after, CU_EVENT_DEFAULT) != CUDA_SUCCESS) {
			(void)(REAL(cuEventDestroy_v2) ? REAL(cuEventDestroy_v2)(n->before) : REAL(cuEventDestroy)(n->before));
			n->before = NULL;
		}
		pen_cu_context_pop(pushed);
	}
	pen_cu_unrelax(mode);
	if (n->before)
		return n;
	free(n);
	return NULL;
}

/* Inside pen_cu_context_enter(). One reference. */
static struct pen_cu_node *node_get(struct pen_cu_context *c)
{
	pen_forklock_take(&c->lock);
	struct pen_cu_node *n = c->pool;
	if (n)
		c->pool = n->next;
	pen_forklock_give(&c->lock);
	if (!n)
		n = node_new(c);
	if (!n)
		return NULL;
	atomic_fetch_add(&c->refs, 1);
	n->ctx = c;
	n->has_before = false;
	atomic_store(&n->refs, 1);
	return n;
}

void pen_cu_node_put(struct pen_cu_node *n)
{
	if (atomic_fetch_sub_explicit(&n->refs, 1, memory_order_acq_rel) != 1)
		return;
	struct pen_cu_context *c = n->ctx;
	pen_forklock_take(&c->lock);
	bool gone = atomic_load(&c->life) == PEN_CU_GONE;   /* and its events with it */
	if (!gone) {
		n->next = c->pool;
		c->pool = n;
	}
	pen_forklock_give(&c->lock);
	if (gone)
		free(n);
	pen_cu_context_unref(c);
}

void pen_cu_pool_drop(struct pen_cu_context *c)
{
	pen_forklock_take(&c->lock);
	struct pen_cu_node *n = c->pool, *base = c->clock.base;
	c->pool = NULL;
	c->clock.base = NULL;
	pen_forklock_give(&c->lock);
	while (n) {
		struct pen_cu_node *next = n->next;
		free(n);
		n = next;
	}
	if (base)
		pen_cu_node_put(base);
}

/* Inside pen_cu_context_enter(). Streams have their names here, so that the context need be current for the default ones alone. */
static bool record(struct pen_cu_stream *s, CUevent e)
{
	bool pushed = false;
	if ((s->legacy || s->per_thread) && !pen_cu_context_push(s->ctx, &pushed))
		return false;
	CUresult r = REAL(cuEventRecord)(e, s->id);
	pen_cu_context_pop(pushed);
	return r == CUDA_SUCCESS;
}

struct pen_cu_node *pen_cu_node_record(struct pen_cu_stream *s)
{
	struct pen_cu_context *c = s->ctx;
	if (!pen_cu_context_enter(c))
		return NULL;
	struct pen_cu_node *n = node_get(c);
	if (n && !record(s, n->after)) {
		pen_cu_node_put(n);
		n = NULL;
	}
	pen_cu_context_leave(c);
	return n;
}

int pen_cu_node_poll(struct pen_cu_node *n)
{
	struct pen_cu_context *c = n->ctx;
	if (!pen_cu_context_enter(c))
		return atomic_load(&c->life) == PEN_CU_GONE ? 1 : 0;
	CUstreamCaptureMode mode = pen_cu_relax();
	pen_cu_thread.depth++;
	CUresult r = REAL(cuEventQuery)(n->after);
	pen_cu_thread.depth--;
	pen_cu_unrelax(mode);
	pen_cu_context_leave(c);
	return r == CUDA_SUCCESS ? 1 : r == CUDA_ERROR_NOT_READY ? 0 : -EIO;
}

/* ---- slots ------------------------------------------------------------------------------------------------------ */

static int submit(struct pen_gate_queue *q, void *native, const struct pen_piece *piece, struct pen_mark *mark)
{
	struct pen_cu_cmd *cmd = native;
	struct pen_cu_stream *s = cmd->stream;
	struct pen_cu_context *c = s->ctx;
	struct pen_cu_node *n = NULL;
	(void)q;
	pen_cu_thread.depth++;
	/* What is complete when the call returns is timed by the host: an event behind it would be late. */
	bool marked = mark && !cmd->blocking && pen_cu_context_enter(c);
	if (piece->gate)
		pen_cu_gate_wait(s, piece->gate);
	if (marked && (n = node_get(c)) != NULL)
		n->has_before = record(s, n->before);
	CUresult r = cmd->run(cmd, piece);
	if (n && r == CUDA_SUCCESS && record(s, n->after)) {
		mark->native = n;
		mark->timed = n->has_before;
	} else if (n) {
		pen_cu_node_put(n);
	}
	if (marked)
		pen_cu_context_leave(c);
	pen_cu_thread.depth--;
	return r;
}

/*
 * An edge, perhaps for a stream that another thread uses. Not where it would change what the application sees: in a per-thread
 * stream of another thread it cannot be put; in the legacy stream it would be a barrier for all that wait for that one.
 */
static bool may_record(const struct pen_cu_stream *s)
{
	if (s->per_thread)
		return s->owner == (const void *)&pen_cu_thread;
	return !s->legacy || !atomic_load(&s->ctx->blocking);
}

static int mark_record(struct pen_gate_queue *q, struct pen_mark *mark)
{
	struct pen_cu_stream *s = q->native;
	struct pen_cu_node *n = NULL;
	uint32_t state;
	atomic_fetch_add(&s->inside, 1);
	state = atomic_load(&s->state);
	if ((state == PEN_CU_ALIVE || (state == PEN_CU_CLOSING && s->owner == (const void *)&pen_cu_thread)) && may_record(s) &&
	    pen_cu_record_enter()) {
		pen_cu_thread.depth++;
		n = pen_cu_node_record(s);
		pen_cu_thread.depth--;
		pen_cu_record_leave();
	}
	pen_cu_stream_unpin(s);
	if (!n)
		return -EBUSY;
	mark->native = n;
	mark->timed = 1;
	return 0;
}

static int mark_poll(struct pen_mark *mark)
{
	return mark->native ? pen_cu_node_poll(mark->native) : 1;
}

static void mark_release(struct pen_mark *mark)
{
	struct pen_cu_node *n = mark->native;
	mark->native = NULL;
	if (n)
		pen_cu_node_put(n);
}

static bool capturing(struct pen_gate_queue *q)
{
	pen_cu_thread.depth++;
	bool r = pen_cu_capturing(q->native);
	pen_cu_thread.depth--;
	return r;
}

static bool in_callback(void)
{
	return pen_cu_thread.callbacks != 0;
}

static int oom_code(enum pen_denial why)
{
	return why == PEN_DENY_NO_DEVICE ? CUDA_ERROR_NO_DEVICE : CUDA_ERROR_OUT_OF_MEMORY;
}

/* ---- time ------------------------------------------------------------------------------------------------------- */

/* Milliseconds as a float: beyond about four seconds they are coarser than the device's own clock of half a microsecond. */
#define BASE_NS (4 * PEN_S)
/* Two clocks part by no more than this in a second; NVIDIA's and the kernel's are both a quartz. */
#define DRIFT_PPM 200

/* Device time from @a to @b. */
static bool elapsed(CUevent a, CUevent b, double *ret_ns)
{
	float ms = 0;
	if (REAL(cuEventElapsedTime)(&ms, a, b) != CUDA_SUCCESS || !isfinite(ms))
		return false;
	*ret_ns = (double)ms * 1e6;
	return true;
}

/* The base, with a reference of the caller's. @n becomes it if there is none. */
static struct pen_cu_node *base_get(struct pen_cu_context *c, struct pen_cu_node *n, uint64_t now, uint64_t *ret_ns)
{
	struct pen_cu_clock *k = &c->clock;
	pen_forklock_take(&c->lock);
	if (!k->base) {
		atomic_fetch_add(&n->refs, 1);
		k->base = n;
		k->base_ns = k->base_made_ns = now;   /* it ended before now, and often hardly earlier */
	}
	struct pen_cu_node *base = k->base;
	atomic_fetch_add(&base->refs, 1);
	*ret_ns = k->base_ns;
	pen_forklock_give(&c->lock);
	return base;
}

/*
 * @end_ns: end of @n by what is known of @base. An end cannot be later than the moment at which we look, so what is seen
 * soonest after its end says best where the base stands. A new base starts from there, and later by what the clocks may have
 * drifted, which is taken back by the next one that is seen soon.
 */
static uint64_t clock_learn(struct pen_cu_context *c, struct pen_cu_node *base, struct pen_cu_node *n, uint64_t end_ns, uint64_t now)
{
	struct pen_cu_clock *k = &c->clock;
	struct pen_cu_node *old = NULL;
	uint64_t late = end_ns > now ? end_ns - now : 0;
	pen_forklock_take(&c->lock);
	if (k->base == base && late)
		k->base_ns -= PEN_MIN(late, k->base_ns);
	end_ns -= late;
	if (k->base == base && n != base && now - k->base_made_ns > BASE_NS) {
		uint64_t drift = (now - k->base_made_ns) / 1000000 * DRIFT_PPM;
		old = k->base;
		atomic_fetch_add(&n->refs, 1);
		k->base = n;
		k->base_ns = PEN_MIN(now, end_ns + drift);
		k->base_made_ns = now;
	}
	pen_forklock_give(&c->lock);
	if (old)
		pen_cu_node_put(old);
	return end_ns;
}

static int node_time(struct pen_cu_context *c, struct pen_cu_node *a, struct pen_cu_node *b, uint64_t *ret_start, uint64_t *ret_end)
{
	uint64_t base_ns, now = pen_mono_ns();
	double length = 0, since = 0;
	if (a->has_before && !elapsed(a->before, b->after, &length))
		return -ENODATA;
	if (length < 0)
		return -ENODATA;
	struct pen_cu_node *base = base_get(c, b, now, &base_ns);
	int r = base == b || elapsed(base->after, b->after, &since) ? 0 : -ENODATA;
	if (!r) {
		double end = (double)(int64_t)base_ns + since;
		uint64_t end_ns = end > 0 ? (uint64_t)end : 0;
		end_ns = clock_learn(c, base, b, end_ns, now);
		*ret_end = end_ns;
		*ret_start = end_ns - PEN_MIN(end_ns, (uint64_t)length);
	}
	pen_cu_node_put(base);
	return r;
}

static int mark_time(struct pen_mark *first, struct pen_mark *last, uint64_t *ret_start_ns, uint64_t *ret_end_ns)
{
	struct pen_cu_node *a = first->native, *b = last->native;
	if (!a || !b || !pen_cu_context_enter(b->ctx))
		return -ENODATA;
	CUstreamCaptureMode mode = pen_cu_relax();
	pen_cu_thread.depth++;
	int r = node_time(b->ctx, a, b, ret_start_ns, ret_end_ns);
	pen_cu_thread.depth--;
	pen_cu_unrelax(mode);
	pen_cu_context_leave(b->ctx);
	return r;
}

/* ---- the device ------------------------------------------------------------------------------------------------- */

struct pen_cu_gating *pen_cu_gating(struct pen_cu_device *d)
{
	struct pen_cu_gating *g = atomic_load_explicit(&d->gating, memory_order_acquire);
	if (g)
		return g;
	struct pen_cu_gating *made = calloc(1, sizeof(*made));
	void *none = NULL;
	if (!made)
		return NULL;
	made->device = d;
	if (atomic_compare_exchange_strong(&d->gating, &none, made))
		return made;
	free(made);
	return none;
}

CUresult pen_cu_submit(struct pen_cu_cmd *cmd, struct pen_gate_cmd *g)
{
	struct pen_cu_stream *s = cmd->stream;
	g->native = cmd;
	if (!g->slices)
		g->slices = g->wave = 1;
	if (cmd->blocking)
		g->flags |= PEN_CMD_BLOCKING;
	if (atomic_load_explicit(&s->wall, memory_order_acquire) && pen_cu_stream_walled(s))
		g->flags |= PEN_CMD_NOT_RUNNABLE;
	pen_cu_stream_used(s);
	atomic_fetch_add_explicit(&s->slow, 1, memory_order_relaxed);
	return pen_gate_submit(s->queue, g);
}

const struct pen_adapter pen_cu_adapter = {
	.abi = PEN_ADAPTER_ABI,
	.size = sizeof(struct pen_adapter),
	.name = "cuda",
	.caps = PEN_ADAPTER_TIMESTAMPS | PEN_ADAPTER_IN_SUBMIT | PEN_ADAPTER_LOOSE_START,
	.marks_max = UINT32_MAX,
	.submit = submit,
	.mark_record = mark_record,
	.mark_poll = mark_poll,
	.mark_release = mark_release,
	.mark_time = mark_time,
	.capturing = capturing,
	.in_callback = in_callback,
	.set_units = pen_cu_set_units,
	.oom_code = oom_code,
	.watch = pen_cu_watch,
	.gate_ready = pen_cu_gate_ready,
	.gate_open = pen_cu_gate_open,
};
