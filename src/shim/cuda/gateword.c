/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device-side gate on CUDA: a word of pinned host memory in each context, and waits for it in front of batches
 * (cuStreamWaitValue32, greater or equal, wrapping around). The gate says what the word holds; here is only where it lies.
 *
 * What makes it dangerous is that the driver knows nothing of this order. So it is not used in a process that lets others wait for
 * its streams (events and semaphores that are exported), not inside a capture, and not without the watcher that opens it; and it
 * is opened before a context or the process ends, which would wait for what stands there.
 */
#include "shim/cuda/gating.h"
#include "shim/cuda/prop.h"

#include <errno.h>

enum { NOT_ASKED, MAKING, READY, AWAY, NEVER };   /* AWAY: its context may be going just now */

/* Beyond all that stand there, whether it is open or shut at this moment: numbers given out lie within half of that. */
#define BEYOND UINT32_C(0x20000000)
#define WORD_BYTES 4096

static _Atomic bool exported;   /* somebody else may wait for a stream of ours */
static struct pen_cu_gating *_Atomic gatings;   /* that ever had a word */
static _Atomic uint32_t props;   /* threads inside a call that may wait for what stands at the gate, and keep the driver to themselves */

/* Under its lock: what the words of its contexts hold. */
static uint32_t word_of(const struct pen_cu_gating *g)
{
	return atomic_load(&props) ? g->gate_number + BEYOND : g->gate_number;
}

static void write_words(struct pen_cu_gating *g)
{
	for (struct pen_cu_context *c = g->gated; c; c = c->gate_next)
		atomic_store(c->gate_word, word_of(g));
}

static bool can_wait(struct pen_cu_device *d)
{
	int yes = 0;
	if (REAL(cuStreamWaitValue32_v2))
		return true;
	/* Before 11.7 the driver's configuration decides. */
	return REAL(cuStreamWaitValue32) &&
	       REAL(cuDeviceGetAttribute)(&yes, CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_MEM_OPS_V1, d->id) == CUDA_SUCCESS && yes;
}

/* Under the lock of @g. */
static void list(struct pen_cu_gating *g, struct pen_cu_context *c)
{
	atomic_store(c->gate_word, word_of(g));
	c->gate_next = g->gated;
	c->gate_link = &g->gated;
	if (c->gate_next)
		c->gate_next->gate_link = &c->gate_next;
	g->gated = c;
}

static bool make_word(struct pen_cu_context *c)
{
	struct pen_cu_gating *g = pen_cu_gating(c->device);
	void *word = NULL;
	bool pushed, made = false;
	if (!g || !can_wait(c->device) || !pen_cu_context_push(c, &pushed))
		return false;
	CUstreamCaptureMode mode = pen_cu_relax();
	if (REAL(cuMemHostAlloc)(&word, WORD_BYTES, CU_MEMHOSTALLOC_DEVICEMAP) == CUDA_SUCCESS) {
		made = REAL(cuMemHostGetDevicePointer_v2)(&c->gate_address, word, 0) == CUDA_SUCCESS;
		if (!made)
			REAL(cuMemFreeHost)(word);
	}
	pen_cu_unrelax(mode);
	pen_cu_context_pop(pushed);
	if (!made)
		return false;
	c->gate_word = word;
	if (!atomic_exchange(&g->gate_listed, 1)) {
		struct pen_cu_gating *head = atomic_load(&gatings);
		do
			g->next_gated = head;
		while (!atomic_compare_exchange_weak(&gatings, &head, g));
	}
	pen_forklock_take(&g->gate_lock);
	list(g, c);
	pen_forklock_give(&g->gate_lock);
	return true;
}

bool pen_cu_gate_ready(struct pen_gate_queue *q)
{
	struct pen_cu_stream *s = q->native;
	struct pen_cu_context *c = s->ctx;
	if (atomic_load_explicit(&exported, memory_order_relaxed) || !pen_cu_watched())
		return false;
	uint32_t state = atomic_load_explicit(&c->gate_state, memory_order_acquire);
	if (state != NOT_ASKED)
		return state == READY;
	if (atomic_load(&pen_cu_captures) || !atomic_compare_exchange_strong(&c->gate_state, &state, MAKING))
		return false;   /* another time: pinned memory is not made beside a capture without need */
	pen_cu_thread.depth++;
	bool made = false;
	if (pen_cu_context_enter(c)) {
		made = make_word(c);
		atomic_store(&c->gate_state, made ? READY : NEVER);
		pen_cu_context_leave(c);   /* after: who ends the context finds all of it */
	} else {
		atomic_store(&c->gate_state, NOT_ASKED);
	}
	pen_cu_thread.depth--;
	return made;
}

bool pen_cu_gate_wait(struct pen_cu_stream *s, uint32_t number)
{
	struct pen_cu_context *c = s->ctx;
	if (atomic_load_explicit(&c->gate_state, memory_order_acquire) != READY || atomic_load(&c->life) != PEN_CU_ALIVE)
		return false;
	CUresult r = REAL(cuStreamWaitValue32_v2)
			     ? REAL(cuStreamWaitValue32_v2)(s->id, c->gate_address, number, CU_STREAM_WAIT_VALUE_GEQ)
			     : REAL(cuStreamWaitValue32)(s->id, c->gate_address, number, CU_STREAM_WAIT_VALUE_GEQ);
	if (r != CUDA_SUCCESS)   /* a device or stream that cannot: not asked again */
		atomic_store(&c->gate_state, NEVER);
	return r == CUDA_SUCCESS;
}

void pen_cu_gate_open(void *device, uint32_t number)
{
	struct pen_cu_gating *g = pen_cu_gating(device);
	if (!g)
		return;
	pen_forklock_take(&g->gate_lock);
	g->gate_number = number;
	write_words(g);
	pen_forklock_give(&g->gate_lock);
}

static void props_changed(void)
{
	for (struct pen_cu_gating *g = atomic_load(&gatings); g; g = g->next_gated) {
		pen_forklock_take(&g->gate_lock);
		write_words(g);
		pen_forklock_give(&g->gate_lock);
	}
}

bool pen_cu_gate_prop(void)
{
	if (!atomic_load_explicit(&gatings, memory_order_relaxed))
		return false;
	if (!atomic_fetch_add(&props, 1))
		props_changed();
	return true;
}

void pen_cu_gate_unprop(bool propped)
{
	if (propped && atomic_fetch_sub(&props, 1) == 1)
		props_changed();
}

void pen_cu_gate_end(struct pen_cu_context *c)
{
	struct pen_cu_gating *g = pen_cu_gating(c->device);
	if (!g || !c->gate_word)
		return;
	pen_forklock_take(&g->gate_lock);
	if (c->gate_link) {
		*c->gate_link = c->gate_next;
		if (c->gate_next)
			c->gate_next->gate_link = c->gate_link;
		c->gate_link = NULL;
		atomic_store(c->gate_word, g->gate_number + BEYOND);
	}
	uint32_t ready = READY;
	atomic_compare_exchange_strong(&c->gate_state, &ready, AWAY);
	pen_forklock_give(&g->gate_lock);
}

void pen_cu_gate_stays(struct pen_cu_context *c)
{
	struct pen_cu_gating *g = pen_cu_gating(c->device);
	uint32_t away = AWAY;
	if (!g || !c->gate_word)
		return;
	pen_forklock_take(&g->gate_lock);
	bool wanted = !atomic_load(&exported) && atomic_compare_exchange_strong(&c->gate_state, &away, READY);
	if (wanted)
		list(g, c);
	pen_forklock_give(&g->gate_lock);
}

void pen_cu_gate_end_all(void)
{
	atomic_store(&exported, true);
	for (struct pen_cu_gating *g = atomic_load(&gatings); g; g = g->next_gated) {
		pen_forklock_take(&g->gate_lock);
		struct pen_cu_context *c = g->gated;
		g->gated = NULL;
		for (; c; c = c->gate_next) {
			c->gate_link = NULL;
			atomic_store(&c->gate_state, NEVER);
			atomic_store(c->gate_word, g->gate_number + BEYOND);
		}
		pen_forklock_give(&g->gate_lock);
	}
}

/* ---- others wait for our streams --------------------------------------------------------------------------------- */

CUresult pen_cuIpcGetEventHandle(CUipcEventHandle_v1 *handle, CUevent e)
{
	if (!pen_cu_thread.depth && !atomic_exchange(&exported, true))
		pen_cu_gate_end_all();
	return REAL(cuIpcGetEventHandle)(handle, e);
}

#define SIGNAL(symbol)                                                                                                    \
	CUresult pen_##symbol(const CUexternalSemaphore *list, const CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS_v1 *params,    \
			      unsigned int n, CUstream stream)                                                            \
	{                                                                                                                 \
		if (!pen_cu_thread.depth && !atomic_exchange(&exported, true))                                            \
			pen_cu_gate_end_all();                                                                            \
		return REAL(symbol)(list, params, n, stream);                                                             \
	}
SIGNAL(cuSignalExternalSemaphoresAsync)
SIGNAL(cuSignalExternalSemaphoresAsync_ptsz)
