/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TESTS_GATE_SUITE_H
#define PEN_TESTS_GATE_SUITE_H
/*
 * The one suite of the gate, run over every adapter: a test program defines SUITE_CAPS and SUITE_MARKS and includes this.
 * Real clock and real sleeping commands: what is asserted is order, counts, sums against what the device really did, and
 * that bounded things end; never how fast the machine was.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "gate/internal.h"
#include "fork_real.h"
#include "gate_device.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct rig {
	struct fake_board *board;
	struct fake_dev *dev;
	struct pen_attach_device seat;
	struct pen_gate *gate;
	struct fake_queue *fq;
	struct pen_gate_queue *q;
};

static int reattach_as_client_1(struct pen_attach_device *d)
{
	/* The child's own seat and place in the ledger, as the daemon would give it. */
	struct pen_signal_page *signals = (struct pen_signal_page *)(void *)(uintptr_t)d->neighbours;
	d->seat = 100;
	d->client = 1;
	d->signal = (struct pen_signal_page *)(void *)((unsigned char *)signals + (size_t)100 * PEN_PAGE_BYTES);
	return 0;
}

static void rig_open(struct rig *r, struct fake_board *b, uint32_t tenant, uint32_t client)
{
	memset(r, 0, sizeof(*r));
	r->board = b;
	r->dev = fake_dev_start(SUITE_CAPS, SUITE_MARKS);
	/* The gate outlives the rig in the registry: so must its device. */
	struct pen_attach_device *d = calloc(1, sizeof(*d));
	fake_board_device(b, tenant, client ? 50 + client : tenant, client, d);
	struct pen_gate_device want = { .key = "fake:0", .model = "fake", .mem_bytes = PEN_GIB, .units = 1, .native = r->dev };
	assert_int_equal(pen_gate_open_device(&r->dev->adapter, &want, d, reattach_as_client_1, &r->gate), 0);
	r->fq = fake_queue_new(r->dev);
	assert_int_equal(pen_gate_queue_create(r->gate, r->fq, 0, &r->q), 0);
}

static void finish_queue(struct pen_gate_queue *q)
{
	uint64_t token = pen_gate_sync_begin(q);
	fake_finish(q->native);
	pen_gate_sync_end(q, token);
}

/* A driver that finished still has its call-backs to make: until they came, or a bound. */
static void settle(struct rig *r)
{
	for (int i = 0; i < 5000; i++) {
		pthread_mutex_lock(&r->dev->lock);
		uint32_t marks = r->dev->marks;
		pthread_mutex_unlock(&r->dev->lock);
		pen_gate_lock(r->gate);
		bool quiet = !r->gate->nflight && !r->gate->zombies && !r->gate->st.inflight_ns;
		pen_gate_unlock(r->gate);
		if (quiet && !marks)
			return;
		usleep(1000);
		pen_gate_poll(r->q);
	}
	fail_msg("still in flight: %u batches, %llu ns, %u marks, zombies: %s", r->gate->nflight,
		 (unsigned long long)r->gate->st.inflight_ns, r->dev->marks, r->gate->zombies ? "yes" : "no");
}

/* Nothing is left: not in the state, not on the board, no mark. */
static void assert_quiet(struct rig *r)
{
	settle(r);
	pen_gate_lock(r->gate);
	struct pen_signal_page *s = r->gate->dev->signal;
	uint64_t inflight = r->gate->st.inflight_ns;
	uint32_t busy = atomic_load(&s->busy), active = atomic_load(&r->gate->dev->ledger->active_clients);
	uint64_t published = atomic_load(&s->inflight_ns);
	pen_gate_unlock(r->gate);
	assert_int_equal(inflight, 0);
	assert_int_equal(published, 0);
	assert_int_equal(PEN_BUSY_STATE(busy), PEN_BUSY_IDLE);
	assert_int_equal(active, 0);
	assert_int_equal(atomic_load(&s->waiting_on), 0);
	assert_in_range(r->dev->marks_max, 0, SUITE_MARKS);
}

static void rig_close(struct rig *r)
{
	finish_queue(r->q);
	assert_quiet(r);
	pen_gate_queue_destroy(r->q);
	fake_dev_stop(r->dev);
}

static struct fake_board *board_alone(void)
{
	static const uint16_t rank[] = { 0 };
	return fake_board_new(1, rank);
}

static struct pen_ledger_client *account(struct rig *r)
{
	return pen_gate_account(r->gate);
}

/* As a shim does it. */
static int enqueue(struct pen_gate_queue *q, struct fake_cmd *c, uint32_t flags)
{
	if (!flags && pen_gate_fast(q, c->dur_ns))
		return fake_submit(q->native, c);
	struct pen_gate_cmd cmd = {
		.native = c, .est_ns = c->dur_ns, .slices = c->slices ? c->slices : 1, .wave = 1, .flags = flags,
	};
	return pen_gate_submit(q, &cmd);
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static void test_memory(void **state)
{
	(void)state;
	struct rig r;
	struct fake_board *b = board_alone();
	b->base[0].mem_cap_bytes = 100 * PEN_MIB;
	fake_board_publish(b, 0);
	rig_open(&r, b, 0, 0);
	struct pen_mem_view v;
	assert_int_equal(pen_gate_mem_reserve(r.gate, 60 * PEN_MIB), 0);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 41 * PEN_MIB), -ENOMEM);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 40 * PEN_MIB), 0);
	pen_gate_mem_view(r.gate, &v);
	assert_int_equal(v.limit_bytes, 100 * PEN_MIB);
	assert_int_equal(v.used_bytes, 100 * PEN_MIB);
	assert_int_equal(atomic_load(&account(&r)->objects), 2);
	assert_int_equal(atomic_load(&account(&r)->denials), 1);
	pen_gate_mem_refund(r.gate, 10 * PEN_MIB, true);
	assert_int_equal(atomic_load(&account(&r)->objects), 2);
	pen_gate_mem_release(r.gate, 30 * PEN_MIB);
	pen_gate_mem_release(r.gate, 60 * PEN_MIB);
	assert_int_equal(atomic_load(&account(&r)->objects), 0);
	b->base[0].flags = PEN_TERMS_STOP_ALLOC;
	fake_board_publish(b, 0);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 1), -ENOMEM);
	b->base[0].flags = 0;
	b->base[0].mem_cap_bytes = 8;
	fake_board_publish(b, 0);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 9), -ENOMEM);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 8), 0);
	pen_gate_mem_release(r.gate, 8);
	pen_gate_mem_view(r.gate, &v);
	assert_int_equal(v.used_bytes, 0);
	rig_close(&r);
}

/* ---- order, fast path, window, cap ------------------------------------------------------------------------------- */

#define MANY 400

static void test_order_and_fast_path(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	static struct fake_cmd c[MANY];
	uint32_t fast = 0;
	for (uint32_t i = 0; i < MANY; i++) {
		c[i] = (struct fake_cmd){ .dur_ns = i % 7 ? 2000 : 120000, .tag = i };
		if (pen_gate_fast(r.q, c[i].dur_ns)) {
			fast++;
			assert_int_equal(fake_submit(r.fq, &c[i]), 0);
		} else {
			struct pen_gate_cmd cmd = { .native = &c[i], .est_ns = c[i].dur_ns, .slices = 1, .wave = 1 };
			assert_int_equal(pen_gate_submit(r.q, &cmd), 0);
		}
	}
	finish_queue(r.q);
	assert_int_equal(r.dev->nlog, MANY);
	for (uint32_t i = 0; i < MANY; i++)
		assert_int_equal(r.dev->log[i], i);
	assert_true(fast > 0);
	settle(&r);
	assert_int_equal(atomic_load(&account(&r)->commands), MANY);
	assert_true(atomic_load(&account(&r)->batches) < MANY);
	rig_close(&r);
}

static void test_window(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	static struct fake_cmd c[40];
	for (uint32_t i = 0; i < 40; i++) {
		c[i] = (struct fake_cmd){ .dur_ns = PEN_MS, .tag = i };
		assert_int_equal(enqueue(r.q, &c[i], 0), 0);
	}
	/* The last ones are certainly not done without somebody having looked. */
	if (!(SUITE_CAPS & PEN_ADAPTER_NOTIFY))
		assert_int_equal(PEN_BUSY_STATE(atomic_load(&r.gate->dev->signal->busy)), PEN_BUSY_RUN);
	assert_true(atomic_load(&r.gate->dev->signal->runs) > 0);
	finish_queue(r.q);
	assert_in_range(r.dev->outstanding_max_ns, 2 * PEN_MS, 4 * PEN_MS);
	assert_true(atomic_load(&account(&r)->held_ns[PEN_HOLD_WINDOW]) > 0);
	assert_int_equal(atomic_load(&account(&r)->debts), 0);
	assert_int_equal(atomic_load(&account(&r)->hold_reason), 0);
	rig_close(&r);
}

static void test_cap(void **state)
{
	(void)state;
	struct rig r;
	struct fake_board *b = board_alone();
	b->base[0].share_cap_ppm = PEN_PPM / 4;
	fake_board_publish(b, 0);
	rig_open(&r, b, 0, 0);
	static struct fake_cmd c[30];
	uint64_t start = pen_mono_ns();
	for (uint32_t i = 0; i < 30; i++) {
		c[i] = (struct fake_cmd){ .dur_ns = PEN_MS };
		assert_int_equal(enqueue(r.q, &c[i], 0), 0);
	}
	uint64_t wall = pen_mono_ns() - start;
	/* Up to the last admission 29 were paid for, less one burst and one command ahead. */
	assert_true(wall >= (29 - 3) * 4 * PEN_MS);
	assert_true(atomic_load(&account(&r)->held_ns[PEN_HOLD_SHARE]) > 0);
	rig_close(&r);
}

static void test_chunks(void **state)
{
	(void)state;
	static const uint16_t rank[] = { 0, 0 };
	struct rig r;
	struct fake_board *b = fake_board_new(2, rank);
	b->base[0].chunk_wide_ns = b->base[0].chunk_narrow_ns = PEN_MS;
	fake_board_publish(b, 0);
	atomic_store(&fake_board_signal(b, 1)->last_busy_ns, pen_mono_ns());   /* a neighbour was there just now */
	rig_open(&r, b, 0, 0);
	struct fake_cmd c = { .dur_ns = 8 * PEN_MS, .slices = 64 };
	assert_int_equal(enqueue(r.q, &c, 0), 0);
	finish_queue(r.q);
	assert_in_range(r.dev->executed, 8, 16);
	assert_int_equal(atomic_load(&account(&r)->commands), 1);
	assert_int_equal(atomic_load(&account(&r)->chunks), r.dev->executed);
	rig_close(&r);
}

/* ---- commands that must not wait --------------------------------------------------------------------------------- */

#define PARKED 1000

static void test_not_runnable(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	static struct fake_cmd c[PARKED];
	static _Atomic uint32_t event;
	atomic_store(&event, 0);
	/* This thread sets the event only after all of them: if one of them waited for the window, this would never end. */
	for (uint32_t i = 0; i < PARKED; i++) {
		c[i] = (struct fake_cmd){ .dur_ns = 20000, .tag = i, .until = i ? NULL : &event };
		assert_int_equal(enqueue(r.q, &c[i], i ? 0 : PEN_CMD_NOT_RUNNABLE), 0);
	}
	assert_int_equal(r.gate->nflight, 0);
	assert_int_equal(PEN_BUSY_STATE(atomic_load(&r.gate->dev->signal->busy)), PEN_BUSY_IDLE);
	assert_int_equal(atomic_load(&r.gate->dev->signal->inflight_ns), 0);
	assert_true(atomic_load(&account(&r)->debts) > 0);
	assert_int_equal(atomic_load(&account(&r)->holds), 0);
	atomic_store(&event, 1);
	finish_queue(r.q);
	assert_int_equal(r.dev->executed, PARKED);
	for (uint32_t i = 0; i < PARKED; i++)
		assert_int_equal(r.dev->log[i], i);
	rig_close(&r);
}

static void test_no_progress(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	struct fake_queue *fq2 = fake_queue_new(r.dev);
	struct pen_gate_queue *q2;
	static _Atomic uint32_t event;
	atomic_store(&event, 0);
	assert_int_equal(pen_gate_queue_create(r.gate, fq2, 0, &q2), 0);
	/* The first two wait for something that nobody told the gate of and that happens only after the third was admitted. */
	struct fake_cmd a = { .dur_ns = 4 * PEN_MS, .until = &event }, c = { .dur_ns = 3 * PEN_MS, .until = &event }, d = c;
	assert_int_equal(enqueue(r.q, &a, 0), 0);
	assert_int_equal(enqueue(q2, &c, 0), 0);   /* when the first should soon be done */
	assert_int_equal(enqueue(q2, &d, 0), 0);
	assert_true(atomic_load(&account(&r)->debts) >= 1);
	atomic_store(&event, 1);
	finish_queue(q2);
	finish_queue(r.q);
	pen_gate_queue_destroy(q2);
	rig_close(&r);
}

static void test_flush_before_wait(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	r.dev->lazy = true;
	struct fake_queue *fq2 = fake_queue_new(r.dev);
	struct pen_gate_queue *q2;
	assert_int_equal(pen_gate_queue_create(r.gate, fq2, 0, &q2), 0);
	struct fake_cmd a = { .dur_ns = 3 * PEN_MS }, c = { .dur_ns = 3 * PEN_MS };
	assert_int_equal(enqueue(r.q, &a, 0), 0);
	assert_int_equal(enqueue(q2, &c, 0), 0);   /* waits for the first, which nobody has flushed */
	assert_true(r.dev->flushes >= 1);
	assert_int_equal(atomic_load(&account(&r)->debts), 0);
	finish_queue(q2);
	finish_queue(r.q);
	pen_gate_queue_destroy(q2);
	rig_close(&r);
}

struct chain {
	struct rig *r;
	struct fake_cmd *next;
	_Atomic uint32_t entered, left;
	int code;
};

static void enqueue_from_callback(void *arg)
{
	struct chain *ch = arg;
	atomic_store(&ch->entered, 1);
	ch->code = enqueue(ch->r->q, ch->next, 0);
	atomic_store(&ch->left, 1);
}

static void test_callback(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	struct fake_cmd inner = { .dur_ns = 3 * PEN_MS, .tag = 2 };
	struct chain ch = { .r = &r, .next = &inner };
	/* While the device's own thread enqueues, nothing completes: it must not wait for the window, which is full. */
	struct fake_cmd a = { .dur_ns = 200000, .tag = 0, .then = enqueue_from_callback, .arg = &ch };
	struct fake_cmd c = { .dur_ns = 3 * PEN_MS + 700000, .tag = 1 };
	assert_int_equal(enqueue(r.q, &a, 0), 0);
	assert_int_equal(enqueue(r.q, &c, 0), 0);
	while (!atomic_load(&ch.left))
		usleep(200);
	assert_int_equal(ch.code, 0);
	assert_int_equal(atomic_load(&account(&r)->holds), 0);
	finish_queue(r.q);
	assert_true(atomic_load(&account(&r)->debts) >= 1);
	assert_int_equal(r.dev->nlog, 3);
	rig_close(&r);
}

static void test_capture(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	__atomic_store_n(&r.dev->capturing, 1, __ATOMIC_RELAXED);
	uint32_t marks = r.dev->marks_ever;
	struct fake_cmd c = { .dur_ns = 100000 };
	for (int i = 0; i < 5; i++)
		assert_int_equal(enqueue(r.q, &c, 0), 0);
	pen_gate_edge(r.q);
	assert_int_equal(r.dev->marks_ever, marks);
	assert_int_equal(atomic_load(&account(&r)->debts), 0);   /* recorded and not run */
	__atomic_store_n(&r.dev->capturing, 0, __ATOMIC_RELAXED);
	rig_close(&r);
}

static void test_refused_submit(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	struct fake_cmd bad = { .dur_ns = PEN_MS, .refuse = -7 };
	assert_int_equal(enqueue(r.q, &bad, 0), -7);
	settle(&r);
	assert_int_equal(atomic_load(&account(&r)->device_ns), 0);
	struct fake_cmd good = { .dur_ns = PEN_MS };
	assert_int_equal(enqueue(r.q, &good, 0), 0);
	assert_int_equal(enqueue(r.q, &bad, 0), -7);
	finish_queue(r.q);
	rig_close(&r);
}

static void test_stopped(void **state)
{
	(void)state;
	struct rig r;
	struct fake_board *b = board_alone();
	rig_open(&r, b, 0, 0);
	struct fake_cmd c = { .dur_ns = 10000 };
	assert_int_equal(enqueue(r.q, &c, 0), 0);
	b->base[0].flags = PEN_TERMS_STOP;
	fake_board_publish(b, 0);
	assert_int_equal(enqueue(r.q, &c, 0), r.dev->adapter.oom_code(PEN_DENY_NO_DEVICE));
	rig_close(&r);
}

/* ---- completion without a synchronisation ------------------------------------------------------------------------- */

static void test_edge_and_poll(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	static struct fake_cmd c[30];
	for (uint32_t i = 0; i < 30; i++) {
		c[i] = (struct fake_cmd){ .dur_ns = 3000 };
		assert_int_equal(enqueue(r.q, &c[i], 0), 0);
	}
	pen_gate_edge(r.q);   /* as at clFlush; then the program only asks how far it is */
	fake_idle(r.dev);
	assert_quiet(&r);
	rig_close(&r);
}

/* A device that records no mark any more (lost, out of memory): it is asked a few times for each command, not for ever. */
static _Atomic uint32_t refused_marks;

static int no_mark(struct pen_gate_queue *q, struct pen_mark *m)
{
	(void)q, (void)m;
	/* Without an end the test would have none either: after so many it is clear, and the device is well again. */
	return atomic_fetch_add(&refused_marks, 1) > 10000 ? 0 : -EIO;
}

static void test_no_marks(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	int (*record)(struct pen_gate_queue *, struct pen_mark *) = r.dev->adapter.mark_record;
	r.dev->adapter.mark_record = no_mark;
	atomic_store(&refused_marks, 0);
	struct fake_cmd tail[40], big[4];
	for (int i = 0; i < 40; i++) {
		tail[i] = (struct fake_cmd){ .dur_ns = 1000 };
		assert_int_equal(enqueue(r.q, &tail[i], 0), 0);
	}
	struct fake_queue *other = fake_queue_new(r.dev);
	struct pen_gate_queue *q;
	assert_int_equal(pen_gate_queue_create(r.gate, other, 0, &q), 0);
	for (int i = 0; i < 4; i++) {   /* held by the window, and marks the tail meanwhile */
		big[i] = (struct fake_cmd){ .dur_ns = 3 * PEN_MS };
		assert_int_equal(enqueue(q, &big[i], 0), 0);
	}
	assert_in_range(atomic_load(&refused_marks), 0, 1000);
	r.dev->adapter.mark_record = record;
	finish_queue(q);
	pen_gate_queue_destroy(q);
	rig_close(&r);
}

/* The queue goes with a tail that no mark can be put behind: it ends when what is before it has. */
static void test_destroy_without_mark(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	int (*record)(struct pen_gate_queue *, struct pen_mark *) = r.dev->adapter.mark_record;
	struct fake_queue *other = fake_queue_new(r.dev);
	struct pen_gate_queue *q;
	assert_int_equal(pen_gate_queue_create(r.gate, other, 0, &q), 0);
	struct fake_cmd first = { .dur_ns = 5000 }, tail = { .dur_ns = 1000 };
	assert_int_equal(enqueue(q, &first, 0), 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(enqueue(q, &tail, 0), 0);
	r.dev->adapter.mark_record = no_mark;
	pen_gate_queue_destroy(q);
	r.dev->adapter.mark_record = record;
	fake_finish(other);
	pen_gate_watch(r.gate);   /* nothing on the other queue would make anybody look */
	rig_close(&r);
}

static void test_pieces_add_up(void **state)
{
	(void)state;
	struct rig r;
	struct fake_board *b = board_alone();
	b->base[0].rate_cap_bytes_s = 10 * PEN_GIB;   /* pieces of one burst */
	b->base[0].burst_ns = 50 * PEN_US;
	fake_board_publish(b, 0);
	rig_open(&r, b, 0, 0);
	struct fake_cmd c = { .dur_ns = 100000, .slices = 7 };
	struct pen_gate_cmd cmd = { .native = &c, .est_ns = 100000, .bytes = 3000001, .slices = 7, .wave = 1, .kind = PEN_CMD_COPY };
	assert_int_equal(pen_gate_submit(r.q, &cmd), 0);
	finish_queue(r.q);
	assert_true(r.dev->executed > 1);
	assert_int_equal(atomic_load(&account(&r)->bytes), 3000001);
	rig_close(&r);
}

static _Atomic uint32_t watch_asked;

static void on_watch(void *native)
{
	(void)native;
	atomic_fetch_add(&watch_asked, 1);
}

/* Nothing notifies and the application makes no call: whoever watches sees the end, of a tail too, with a mark or without. */
static void test_watch(void **state)
{
	(void)state;
	static const uint16_t equal[] = { 0, 0 };
	if (SUITE_CAPS & PEN_ADAPTER_NOTIFY)
		return;
	struct rig r;
	rig_open(&r, fake_board_new(2, equal), 0, 0);
	int (*record)(struct pen_gate_queue *, struct pen_mark *) = r.dev->adapter.mark_record;
	r.dev->adapter.watch = on_watch;
	atomic_store(&watch_asked, 0);
	for (uint32_t round = 1; round <= 2; round++) {
		struct fake_cmd first = { .dur_ns = 10000 }, tail = { .dur_ns = 1000 };
		assert_int_equal(enqueue(r.q, &first, 0), 0);
		for (int i = 0; i < 8; i++)
			assert_int_equal(enqueue(r.q, &tail, 0), 0);
		assert_int_equal(atomic_load(&watch_asked), round);
		assert_int_equal(PEN_BUSY_STATE(atomic_load(&r.gate->dev->signal->busy)), PEN_BUSY_RUN);
		if (round == 2)
			r.dev->adapter.mark_record = no_mark;
		uint64_t ns;
		int i = 0;
		while ((ns = pen_gate_watch(r.gate)) != 0 && i++ < 5000) {
			assert_in_range(ns, 1000, PEN_GATE_WATCH_NS);
			usleep((useconds_t)(ns / 1000));
		}
		assert_int_equal(PEN_BUSY_STATE(atomic_load(&r.gate->dev->signal->busy)), PEN_BUSY_IDLE);
		assert_int_equal(ns, 0);
		fake_idle(r.dev);
	}
	r.dev->adapter.mark_record = record;
	r.dev->adapter.watch = NULL;
	rig_close(&r);
	/* Alone on the device nobody needs to know. */
	rig_open(&r, board_alone(), 0, 0);
	r.dev->adapter.watch = on_watch;
	struct fake_cmd one = { .dur_ns = 1000 };
	assert_int_equal(enqueue(r.q, &one, 0), 0);
	assert_int_equal(atomic_load(&watch_asked), 2);
	r.dev->adapter.watch = NULL;
	rig_close(&r);
}

static void test_blocking(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	struct fake_cmd a = { .dur_ns = PEN_MS }, read = { .blocking = true };
	for (int i = 0; i < 10; i++) {
		assert_int_equal(enqueue(r.q, &a, 0), 0);
		assert_int_equal(enqueue(r.q, &read, PEN_CMD_BLOCKING), 0);
	}
	assert_quiet(&r);
	rig_close(&r);
}

static void test_destroy_in_flight(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	static struct fake_cmd c[20];
	struct pen_gate_queue *q2;
	struct fake_queue *fq2 = fake_queue_new(r.dev);
	assert_int_equal(pen_gate_queue_create(r.gate, fq2, 0, &q2), 0);
	for (uint32_t i = 0; i < 20; i++) {
		c[i] = (struct fake_cmd){ .dur_ns = 5000 };
		assert_int_equal(enqueue(q2, &c[i], 0), 0);
	}
	pen_gate_queue_destroy(q2);
	pen_gate_queue_destroy(NULL);
	fake_idle(r.dev);
	for (int i = 0; i < 20; i++) {   /* the other queue goes on, and finds the dead one's work done on its way */
		assert_int_equal(enqueue(r.q, &c[0], 0), 0);
		finish_queue(r.q);
	}
	rig_close(&r);
}

static void test_out_of_order(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	struct pen_gate_queue *q2;
	struct fake_queue *fq2 = fake_queue_new(r.dev);
	assert_int_equal(pen_gate_queue_create(r.gate, fq2, PEN_QUEUE_OUT_OF_ORDER, &q2), 0);
	static struct fake_cmd c[20];
	for (uint32_t i = 0; i < 20; i++) {
		c[i] = (struct fake_cmd){ .dur_ns = 300000 };
		assert_false(pen_gate_fast(q2, 300000));
		assert_int_equal(enqueue(q2, &c[i], 0), 0);
	}
	finish_queue(q2);
	assert_quiet(&r);
	pen_gate_queue_destroy(q2);
	rig_close(&r);
}

/* Call-backs that come long after the wait that saw the commands' end, all at once, while a thread has the lock: no mark is left. */
static void test_late_callbacks(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	struct pen_gate_queue *q2;
	assert_int_equal(pen_gate_queue_create(r.gate, fake_queue_new(r.dev), PEN_QUEUE_OUT_OF_ORDER, &q2), 0);
	static struct fake_cmd c[3 * PEN_GATE_WORK];
	r.dev->holds_back = true;
	for (uint32_t i = 0; i < PEN_ARRAY_LEN(c); i++) {
		c[i] = (struct fake_cmd){ .dur_ns = 20000 };
		assert_int_equal(enqueue(q2, &c[i], 0), 0);
	}
	finish_queue(q2);
	pen_gate_lock(r.gate);
	for (uint32_t i = 0; i < r.dev->nlate; i++)
		pen_gate_mark_done(r.dev->late[i], false);
	pen_gate_unlock(r.gate);
	assert_int_equal(r.dev->marks, 0);
	pen_gate_queue_destroy(q2);
	rig_close(&r);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

struct worker {
	struct rig *r;
	struct pen_gate_queue *q;
	struct fake_queue *fq;
	struct fake_cmd c[3];
	pthread_t thread;
	int failures;
};

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	for (int round = 0; round < 40; round++) {
		for (int i = 0; i < 3; i++)
			w->failures += enqueue(w->q, &w->c[i], 0) != 0;
		if (round % 8 == 0) {
			uint64_t t = pen_gate_sync_all_begin(w->r->gate);
			fake_idle(w->r->dev);
			pen_gate_sync_all_end(w->r->gate, t);
		} else {
			finish_queue(w->q);
		}
		w->failures += pen_gate_mem_reserve(w->r->gate, 4096) != 0;
		pen_gate_mem_release(w->r->gate, 4096);
		pen_gate_poll(w->q);
	}
	return NULL;
}

static void test_threads(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	static struct worker w[5];
	for (uint32_t i = 0; i < 5; i++) {
		w[i] = (struct worker){ .r = &r, .q = r.q, .fq = r.fq };
		if (i > 1) {   /* the first two share a queue */
			w[i].fq = fake_queue_new(r.dev);
			assert_int_equal(pen_gate_queue_create(r.gate, w[i].fq, 0, &w[i].q), 0);
		}
		for (int k = 0; k < 3; k++)
			w[i].c[k] = (struct fake_cmd){ .dur_ns = 2000 + 30000 * (uint64_t)k };
	}
	for (uint32_t i = 0; i < 5; i++)
		pthread_create(&w[i].thread, NULL, worker_main, &w[i]);
	for (uint32_t i = 0; i < 5; i++) {
		pthread_join(w[i].thread, NULL);
		assert_int_equal(w[i].failures, 0);
	}
	finish_queue(r.q);
	for (uint32_t i = 2; i < 5; i++) {
		finish_queue(w[i].q);
		pen_gate_queue_destroy(w[i].q);
	}
	settle(&r);
	assert_int_equal(r.dev->executed, 5 * 40 * 3);
	assert_int_equal(atomic_load(&account(&r)->commands), 5 * 40 * 3);
	rig_close(&r);
}

#include "gate_suite_account.h"
#include "gate_suite_many.h"
#include "gate_suite_devgate.h"

#define SUITE_TESTS \
	cmocka_unit_test(test_memory), cmocka_unit_test(test_order_and_fast_path), \
	cmocka_unit_test(test_window), cmocka_unit_test(test_cap), cmocka_unit_test(test_chunks), \
	cmocka_unit_test(test_not_runnable), cmocka_unit_test(test_no_progress), \
	cmocka_unit_test(test_flush_before_wait), cmocka_unit_test(test_callback), \
	cmocka_unit_test(test_capture), cmocka_unit_test(test_refused_submit), \
	cmocka_unit_test(test_stopped), cmocka_unit_test(test_edge_and_poll), \
	cmocka_unit_test(test_no_marks), cmocka_unit_test(test_destroy_without_mark), cmocka_unit_test(test_watch), cmocka_unit_test(test_pieces_add_up), \
	cmocka_unit_test(test_blocking), cmocka_unit_test(test_destroy_in_flight), \
	cmocka_unit_test(test_out_of_order), cmocka_unit_test(test_late_callbacks), cmocka_unit_test(test_threads), \
	SUITE_TESTS_ACCOUNT, SUITE_TESTS_MANY, SUITE_TESTS_DEVGATE

#endif
