/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams: a queue of the gate for each. Created ones are known by their handle; the legacy default stream by its context,
 * the per-thread one by thread and context. A handle that was never seen (made through a private table) gets a record at first
 * sight. Order, also that between the legacy stream and those that wait for it, is the driver's own: nothing is put off here.
 */
#include "shim/cuda/gating.h"

#include <stdlib.h>

_Thread_local struct pen_cu_local *pen_cu_local_ __attribute__((tls_model("initial-exec")));

static struct pen_map created;
static struct { struct pen_forklock lock; struct pen_cu_stream *free; } records;

#define INSIDE_STEP_NS UINT64_C(1000000)

/* ---- what a thread remembers ----------------------------------------------------------------------------------- */

/* In the C library since 2.18. pthread keys are elsewhere in each version, and a library cannot ask for them before 2.34. */
extern int __cxa_thread_atexit_impl(void (*dtor)(void *), void *obj, void *dso);
extern void *__dso_handle __attribute__((visibility("hidden")));

static void stream_gone(struct pen_cu_stream *s, bool mark);

/* Its per-thread streams are the driver's to end; what is in flight in them is seen to by their marks. */
static void local_gone(void *p)
{
	struct pen_cu_local *l = p;
	if (pen_cu_local_ == l)
		pen_cu_local_ = NULL;
	while (l->mine) {
		struct pen_cu_own *o = l->mine;
		l->mine = o->next;
		if (atomic_load(&o->rec->use) == o->use)
			stream_gone(o->rec, false);   /* the driver may be ending the stream itself */
		free(o);
	}
	free(l);
}

struct pen_cu_local *pen_cu_local_new(void)
{
	struct pen_cu_local *l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->process = pen_forklock_process();
	if (__cxa_thread_atexit_impl(local_gone, l, &__dso_handle)) {
		free(l);
		return NULL;
	}
	pen_cu_local_ = l;
	return l;
}

/* ---- records --------------------------------------------------------------------------------------------------- */

/* In state GONE. */
static struct pen_cu_stream *record_new(void)
{
	pen_forklock_take(&records.lock);
	struct pen_cu_stream *s = records.free;
	if (s)
		records.free = s->next;
	pen_forklock_give(&records.lock);
	if (!s && (s = calloc(1, sizeof(*s))) != NULL)
		atomic_init(&s->state, PEN_CU_GONE);
	return s;
}

static void record_put(struct pen_cu_stream *s)
{
	pen_forklock_take(&records.lock);
	s->next = records.free;
	records.free = s;
	pen_forklock_give(&records.lock);
}

static bool is_blocking(CUstream id)
{
	unsigned int flags = 0;
	if (id == CU_STREAM_PER_THREAD || !REAL(cuStreamGetFlags))
		return true;
	return REAL(cuStreamGetFlags)(id, &flags) != CUDA_SUCCESS || !(flags & CU_STREAM_NON_BLOCKING);
}

/* Not yet to be found by anybody. NULL: no gate queue, out of memory. */
static struct pen_cu_stream *make(struct pen_cu_context *c, CUstream id)
{
	struct pen_cu_stream *s = record_new();
	if (!s)
		return NULL;
	s->id = id;
	s->ctx = c;
	s->gate = c->gate;
	s->legacy = id == CU_STREAM_LEGACY;
	s->per_thread = id == CU_STREAM_PER_THREAD;
	s->blocking = !s->legacy && is_blocking(id);
	s->owner = &pen_cu_thread;
	s->has_priority = false;
	s->launch_priority = 0;
	atomic_store(&s->shared, false);
	atomic_store(&s->capture_began, false);
	atomic_store(&s->slow, 0);
	if (pen_gate_queue_create(c->gate, s, 0, &s->queue) < 0) {
		record_put(s);
		return NULL;
	}
	atomic_fetch_add(&s->use, 1);
	atomic_store(&s->state, PEN_CU_ALIVE);
	atomic_fetch_add(&c->refs, 1);
	if (s->blocking)
		atomic_fetch_add(&c->blocking, 1);
	return s;
}

/* Under the context's lock. */
static void link_stream(struct pen_cu_stream *s)
{
	struct pen_cu_context *c = s->ctx;
	s->next = c->streams;
	s->link = &c->streams;
	if (s->next)
		s->next->link = &s->next;
	c->streams = s;
}

static void unlink_stream(struct pen_cu_stream *s)
{
	if (!s->link)
		return;
	*s->link = s->next;
	if (s->next)
		s->next->link = s->link;
	s->link = NULL;
}

bool pen_cu_stream_pin(struct pen_cu_stream *s, uint32_t use)
{
	atomic_fetch_add(&s->inside, 1);
	if (atomic_load(&s->state) == PEN_CU_ALIVE && atomic_load(&s->use) == use)
		return true;
	pen_cu_stream_unpin(s);
	return false;
}

void pen_cu_stream_unpin(struct pen_cu_stream *s)
{
	if (atomic_fetch_sub(&s->inside, 1) == 1 && atomic_load(&s->state) != PEN_CU_ALIVE)
		pen_futex_wake(&s->inside, INT32_MAX);
}

/*
 * The record is in no map any more. Before the native end, for its last mark, if this thread may put one in. Of two threads that
 * end it, one with its context, the first does.
 */
static void stream_end(struct pen_cu_stream *s, bool mark)
{
	struct pen_cu_context *c = s->ctx;
	uint32_t inside, alive = PEN_CU_ALIVE;
	if (!atomic_compare_exchange_strong(&s->state, &alive, PEN_CU_CLOSING))
		return;
	pen_forklock_take(&c->lock);
	unlink_stream(s);
	pen_forklock_give(&c->lock);
	s->owner = mark ? &pen_cu_thread : NULL;
	while ((inside = atomic_load(&s->inside)) != 0)
		pen_futex_wait(&s->inside, inside, INSIDE_STEP_NS);
	pen_cu_capture_gone(s);
	pen_gate_queue_destroy(s->queue);
	atomic_store(&s->state, PEN_CU_GONE);
	struct pen_cu_node *wall = atomic_exchange(&s->wall, NULL);
	if (wall)
		pen_cu_node_put(wall);
	if (s->blocking)
		atomic_fetch_sub(&c->blocking, 1);
	record_put(s);
	pen_cu_context_unref(c);
}

static void stream_gone(struct pen_cu_stream *s, bool mark)
{
	atomic_fetch_add(&pen_cu_version, 1);
	stream_end(s, mark);
}

void pen_cu_streams_gone(struct pen_cu_context *c)
{
	for (;;) {
		pen_forklock_take(&c->lock);
		struct pen_cu_stream *s = c->streams;
		if (s)
			unlink_stream(s);
		pen_forklock_give(&c->lock);
		if (!s)
			break;
		if (!s->legacy && !s->per_thread)
			pen_map_take(&created, s->id);
		stream_end(s, false);
	}
	atomic_store(&c->legacy, NULL);
}

/* ---- looking up ------------------------------------------------------------------------------------------------ */

static struct pen_cu_stream *make_created(struct pen_cu_context *c, CUstream id)
{
	struct pen_cu_stream *s = c ? make(c, id) : NULL;
	if (!s)
		return NULL;
	pen_forklock_take(&c->lock);
	struct pen_cu_stream *there = pen_map_find(&created, id);
	bool kept = !there && pen_map_put(&created, id, s) == 0;
	if (kept)
		link_stream(s);
	pen_forklock_give(&c->lock);
	if (kept)
		return s;
	stream_end(s, false);
	return there;
}

static struct pen_cu_stream *make_legacy(struct pen_cu_context *c)
{
	struct pen_cu_stream *s = make(c, CU_STREAM_LEGACY);
	if (!s)
		return NULL;
	pen_cu_priority_seen(s);
	pen_forklock_take(&c->lock);
	struct pen_cu_stream *there = atomic_load(&c->legacy);
	if (!there) {
		link_stream(s);
		atomic_store(&c->legacy, s);
	}
	pen_forklock_give(&c->lock);
	if (there)
		stream_end(s, false);
	return there ? there : s;
}

static struct pen_cu_stream *own_stream(struct pen_cu_local *l, struct pen_cu_context *c)
{
	for (struct pen_cu_own **at = &l->mine; *at;) {
		struct pen_cu_own *o = *at;
		bool lives = atomic_load(&o->rec->use) == o->use && atomic_load(&o->rec->state) == PEN_CU_ALIVE;
		if (lives && o->rec->ctx == c)
			return o->rec;
		if (lives) {
			at = &o->next;
			continue;
		}
		*at = o->next;
		free(o);
	}
	struct pen_cu_own *o = malloc(sizeof(*o));
	struct pen_cu_stream *s = o ? make(c, CU_STREAM_PER_THREAD) : NULL;
	if (!s) {
		free(o);
		return NULL;
	}
	pen_forklock_take(&c->lock);
	link_stream(s);
	pen_forklock_give(&c->lock);
	pen_cu_priority_seen(s);
	*o = (struct pen_cu_own){ .next = l->mine, .rec = s, .use = atomic_load(&s->use) };
	l->mine = o;
	return s;
}

/* The context that a stream belongs to: not always the current one. */
static struct pen_cu_context *context_of(CUstream id)
{
	CUcontext of = NULL;
	if (REAL(cuStreamGetCtx) && REAL(cuStreamGetCtx)(id, &of) == CUDA_SUCCESS && of) {
		struct pen_cu_context *c = pen_cu_context(of);
		if (c)
			return c;
	}
	return pen_cu_context_current();
}

struct pen_cu_stream *pen_cu_stream_slow(CUstream id)
{
	struct pen_cu_local *l = pen_cu_local();
	uint32_t version = atomic_load(&pen_cu_version);
	struct pen_cu_stream *s = NULL;
	pen_cu_thread.depth++;
	if ((uintptr_t)id > (uintptr_t)CU_STREAM_PER_THREAD) {
		s = pen_map_find(&created, id);
		if (!s && (s = make_created(context_of(id), id)) != NULL)
			pen_cu_priority_seen(s);
		if (s && l) {
			l->stream = id;
			l->rec = s;
			l->version = version;
		}
	} else {
		struct pen_cu_context *c = pen_cu_context_current();
		bool thread = id == CU_STREAM_PER_THREAD;
		if (c && thread)
			s = l ? own_stream(l, c) : NULL;
		else if (c && !(s = atomic_load(&c->legacy)))
			s = make_legacy(c);
		if (s && l) {
			l->own[thread].ctx = c->id;
			l->own[thread].rec = s;
			l->own[thread].version = version;
		}
	}
	pen_cu_thread.depth--;
	return s;
}

struct pen_cu_stream *pen_cu_stream(CUstream stream, bool per_thread)
{
	if (!stream)
		stream = per_thread ? CU_STREAM_PER_THREAD : CU_STREAM_LEGACY;
	struct pen_cu_local *l = pen_cu_local();
	return l ? pen_cu_stream_fast(l, stream, per_thread) : pen_cu_stream_slow(stream);
}

/* ---- walls ----------------------------------------------------------------------------------------------------- */

void pen_cu_stream_wall(struct pen_cu_stream *s)
{
	struct pen_cu_node *n = pen_cu_node_record(s);
	struct pen_cu_node *old = n ? atomic_exchange(&s->wall, n) : NULL;   /* in order: the newest tells of all */
	if (old)
		pen_cu_node_put(old);
}

/* Taken out while it is looked at, for another thread may be done with it meanwhile. Who looks in between sees none. */
bool pen_cu_stream_walled(struct pen_cu_stream *s)
{
	struct pen_cu_node *n = atomic_exchange(&s->wall, NULL), *none = NULL;
	if (!n)
		return false;
	bool stands = pen_cu_node_poll(n) == 0;
	if (!stands || !atomic_compare_exchange_strong(&s->wall, &none, n))
		pen_cu_node_put(n);
	return stands;
}

/* ---- making and ending ----------------------------------------------------------------------------------------- */

static void note_created_in(struct pen_cu_context *c, const CUstream *out, int priority)
{
	/* An old handle of that name went by a way that we do not see. */
	struct pen_cu_stream *s = pen_map_take(&created, *out);
	if (s)
		stream_gone(s, false);
	s = make_created(c, *out);
	if (s) {
		s->priority = priority;
		s->has_priority = true;
	}
}

static void note_created(const CUstream *out, int priority)
{
	note_created_in(pen_cu_context_current(), out, priority);
}

CUresult pen_cuStreamCreate(CUstream *out, unsigned int flags)
{
	if (pen_cu_thread.depth)
		return REAL(cuStreamCreate)(out, flags);
	pen_cu_thread.depth++;
	int priority = pen_cu_priority(pen_cu_context_current(), 0);
	CUresult r = priority && REAL(cuStreamCreateWithPriority) ? REAL(cuStreamCreateWithPriority)(out, flags, priority)
								  : REAL(cuStreamCreate)(out, flags);
	if (r == CUDA_SUCCESS)
		note_created(out, 0);
	pen_cu_thread.depth--;
	return r;
}

CUresult pen_cuStreamCreateWithPriority(CUstream *out, unsigned int flags, int priority)
{
	if (pen_cu_thread.depth)
		return REAL(cuStreamCreateWithPriority)(out, flags, priority);
	pen_cu_thread.depth++;
	CUresult r = REAL(cuStreamCreateWithPriority)(out, flags, pen_cu_priority(pen_cu_context_current(), priority));
	if (r == CUDA_SUCCESS)
		note_created(out, priority);
	pen_cu_thread.depth--;
	return r;
}

CUresult pen_cuGreenCtxStreamCreate(CUstream *out, CUgreenCtx green, unsigned int flags, int priority)
{
	if (pen_cu_thread.depth)
		return REAL(cuGreenCtxStreamCreate)(out, green, flags, priority);
	pen_cu_thread.depth++;
	CUcontext id = NULL;
	struct pen_cu_context *c = green && REAL(cuCtxFromGreenCtx)(&id, green) == CUDA_SUCCESS ? pen_cu_context(id) : NULL;
	CUresult r = REAL(cuGreenCtxStreamCreate)(out, green, flags, pen_cu_priority(c, priority));
	if (r == CUDA_SUCCESS)
		note_created_in(c, out, priority);
	pen_cu_thread.depth--;
	return r;
}

static CUresult destroy(CUresult (*real)(CUstream), CUstream id)
{
	if (pen_cu_thread.depth)
		return real(id);
	pen_cu_thread.depth++;
	/* Ours goes first, since the handle may be in use anew afterwards. */
	struct pen_cu_stream *s = (uintptr_t)id > (uintptr_t)CU_STREAM_PER_THREAD ? pen_map_take(&created, id) : NULL;
	if (s)
		stream_gone(s, true);
	CUresult r = real(id);
	pen_cu_thread.depth--;
	return r;
}

CUresult pen_cuStreamDestroy(CUstream id)
{
	return destroy(REAL(cuStreamDestroy), id);
}

CUresult pen_cuStreamDestroy_v2(CUstream id)
{
	return destroy(REAL(cuStreamDestroy_v2), id);
}
