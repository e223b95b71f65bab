/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gate without a daemon, linked below the OpenCL layer in place of src/gate: it admits everything at once, keeps exact
 * counts, and does what a test asks for by environment. Its counters are exported, so that a test program finds them in
 * the layer that the loader has loaded.
 *
 *   FAKEGATE=managed (default) | unmanaged | refused | noattach
 *   FAKEGATE_LIMIT=bytes     memory limit
 *   FAKEGATE_UNITS=n         units of the terms
 *   FAKEGATE_COVERS=keys     only devices whose keys are in this text; the contract does not cover the others
 *   FAKEGATE_USED=bytes      in use by others of the tenant
 *   FAKEGATE_CLIENTS=pid:bytes:device_ns,...   processes of the tenant
 *   FAKEGATE_FAST=1          pen_gate_fast() admits
 *   FAKEGATE_CUT=n           kernels are cut into pieces of about n slices (whole waves)
 *   FAKEGATE_MARKS=1         a mark for each piece; released, and its storage re-used, as often as not before it is done
 *   FAKEGATE_PAUSE_MS=n      with marks and cuts: waits for each piece, then this long before the next
 */
#include "shim/fakegate.h"

#include "base/devkey.h"
#include "gate/gate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pen_gate {
	const struct pen_adapter *adapter;
	char key[PEN_DEVKEY_MAX];
	void *native;
	uint64_t device_bytes, limit;
	_Atomic uint64_t used;
	struct pen_terms terms;
	struct pen_gate_hot hot;
	_Atomic uint64_t epoch;
};

struct fake_queue {
	struct pen_gate_queue head;
	uint32_t flags, alive;
};
__attribute__((visibility("default"))) struct fake_stats fake_stats;
static struct pen_gate gates[16];
static _Atomic uint32_t ngates;
static struct pen_lock open_lock;

#define ALIVE UINT32_C(0x51ee0e)

/* A record that was given back, or one that the layer had given back itself. */
static void check_alive(struct pen_gate_queue *q)
{
	if (((struct fake_queue *)(void *)q)->alive != ALIVE)
		atomic_fetch_add(&fake_stats.late, 1);
}

static uint64_t option(const char *name, uint64_t fallback)
{
	const char *s = getenv(name);
	return s ? strtoull(s, NULL, 10) : fallback;
}

static bool mode_is(const char *what)
{
	const char *s = getenv("FAKEGATE");
	return !strcmp(s ? s : "managed", what);
}

enum pen_managed pen_gate_managed(void)
{
	return mode_is("unmanaged") ? PEN_UNMANAGED : mode_is("refused") ? PEN_REFUSED : PEN_MANAGED;
}

int pen_gate_open(const struct pen_adapter *adapter, const struct pen_gate_device *dev, struct pen_gate **ret_gate)
{
	const char *covers = getenv("FAKEGATE_COVERS");
	if (mode_is("noattach"))
		return -EAGAIN;
	if (mode_is("refused") || (covers && !strstr(covers, dev->key)))
		return -EACCES;
	pen_lock(&open_lock);
	uint32_t n = atomic_load(&ngates), i = 0;
	while (i < n && strcmp(gates[i].key, dev->key))
		i++;
	if (i == n) {
		struct pen_gate *g = &gates[n];
		g->adapter = adapter;
		strncpy(g->key, dev->key, sizeof(g->key) - 1);
		strncpy(fake_stats.key, dev->key, sizeof(fake_stats.key) - 1);
		g->native = dev->native;
		g->device_bytes = dev->mem_bytes;
		g->limit = option("FAKEGATE_LIMIT", UINT64_MAX);
		g->terms.units = (uint32_t)option("FAKEGATE_UNITS", 0);
		g->terms.units_total = dev->units;
		atomic_store(&g->epoch, 1);
		atomic_store(&g->hot.seen_epoch, 1);
		g->hot.epoch = &g->epoch;
		atomic_store(&ngates, n + 1);
	}
	pen_unlock(&open_lock);
	*ret_gate = &gates[i];
	return 0;
}

const struct pen_terms *pen_gate_terms(struct pen_gate *g)
{
	return &g->terms;
}

int pen_gate_queue_create(struct pen_gate *g, void *native, uint32_t flags, struct pen_gate_queue **ret_q)
{
	struct fake_queue *q = aligned_alloc(64, (sizeof(*q) + 63) & ~(size_t)63);
	if (!q)
		return -ENOMEM;
	memset(q, 0, sizeof(*q));
	q->head.gate = g;
	q->head.native = native;
	q->head.hot = &g->hot;
	q->flags = flags;
	q->alive = ALIVE;
	bool fast = option("FAKEGATE_FAST", 0) != 0;
	atomic_store(&q->head.credit, fast ? PEN_CREDIT_BIAS + PEN_CREDIT_BIAS / 2 : 0);
	atomic_fetch_add(&fake_stats.queues, 1);
	*ret_q = &q->head;
	return 0;
}

void pen_gate_queue_destroy(struct pen_gate_queue *q)
{
	if (!q)
		return;
	atomic_fetch_sub(&fake_stats.queues, 1);
	((struct fake_queue *)(void *)q)->alive = 0;
	free(q);
}

/* ---- marks: each is told or polled, then released; the storage is poisoned afterwards ------------------------------- */

static void end_mark(const struct pen_adapter *a, struct pen_mark *m)
{
	uint64_t start = 0, end = 0;
	for (int i = 0; i < 200 && !atomic_load(&m->done); i++)
		if (a->mark_poll(m))
			break;
	if (m->timed && a->mark_poll(m) == 1) {
		if (a->mark_time(m, m, &start, &end) == 0 && end >= start)
			atomic_fetch_add(&fake_stats.timed, 1);
		atomic_store(&fake_stats.last_start_ns, start);
		atomic_store(&fake_stats.last_end_ns, end);
	}
	a->mark_release(m);
	memset(m, 0xee, sizeof(*m));
	free(m);
	atomic_fetch_sub(&fake_stats.marks, 1);
}

void pen_gate_mark_done(struct pen_mark *m, bool failed)
{
	if (m->timed == 0xeeeeeeee)
		atomic_fetch_add(&fake_stats.late, 1);
	atomic_store(&m->done, failed ? 2 : 1);
	atomic_fetch_add(&fake_stats.told, 1);
}

static int one_piece(struct pen_gate_queue *q, const struct pen_gate_cmd *cmd, const struct pen_piece *p)
{
	const struct pen_adapter *a = q->gate->adapter;
	struct pen_mark *m = NULL;
	if (option("FAKEGATE_MARKS", 0)) {
		m = calloc(1, sizeof(*m));
		atomic_fetch_add(&fake_stats.marks, 1);
	}
	int r = a->submit(q, cmd->native, p, m);
	atomic_fetch_add(&fake_stats.pieces, 1);
	uint64_t pause = option("FAKEGATE_PAUSE_MS", 0);
	if (m && r == 0 && pause && !p->whole) {
		a->flush_all(q->gate->native);
		while (a->mark_poll(m) == 0)
			pen_futex_wait(&m->done, 0, UINT64_C(1000000));
		if (!p->last)
			usleep((useconds_t)pause * 1000);
	}
	if (m && r == 0) {
		end_mark(a, m);
	} else if (m) {
		if (m->native)
			atomic_fetch_add(&fake_stats.late, 1);   /* a failed submit must leave no mark */
		free(m);
		atomic_fetch_sub(&fake_stats.marks, 1);
	}
	return r;
}

int pen_gate_submit(struct pen_gate_queue *q, const struct pen_gate_cmd *cmd)
{
	atomic_fetch_add(&fake_stats.kind[cmd->kind], 1);
	atomic_fetch_add(&fake_stats.bytes, cmd->bytes);
	if (cmd->flags & PEN_CMD_NOT_RUNNABLE)
		atomic_fetch_add(&fake_stats.not_runnable, 1);
	if (q->gate->adapter->in_callback())
		atomic_fetch_add(&fake_stats.in_callback, 1);
	uint32_t cut = (uint32_t)option("FAKEGATE_CUT", 0);
	if (cmd->slices > 1)
		atomic_fetch_add(&fake_stats.cuttable, 1);
	uint32_t step = cut ? (cut + cmd->wave - 1) / cmd->wave * cmd->wave : cmd->slices;
	if (step >= cmd->slices) {
		struct pen_piece whole = { .count = cmd->slices, .whole = true, .last = true };
		return one_piece(q, cmd, &whole);
	}
	for (uint32_t at = 0; at < cmd->slices; at += step) {
		struct pen_piece p = { .first = at, .count = step, .last = at + step >= cmd->slices };
		if (p.last)
			p.count = cmd->slices - at;
		int r = one_piece(q, cmd, &p);
		if (r)
			return r;
	}
	return 0;
}

uint64_t pen_gate_sync_begin(struct pen_gate_queue *q)
{
	atomic_fetch_add(&fake_stats.sync_begin, 1);
	return (uint64_t)(uintptr_t)q;
}

void pen_gate_sync_end(struct pen_gate_queue *q, uint64_t token)
{
	if (token != (uint64_t)(uintptr_t)q)
		atomic_fetch_add(&fake_stats.late, 1);
	atomic_fetch_add(&fake_stats.sync_end, 1);
}

uint64_t pen_gate_sync_all_begin(struct pen_gate *g)
{
	atomic_fetch_add(&fake_stats.sync_begin, 1);
	return (uint64_t)(uintptr_t)g;
}

void pen_gate_sync_all_end(struct pen_gate *g, uint64_t token)
{
	if (token != (uint64_t)(uintptr_t)g)
		atomic_fetch_add(&fake_stats.late, 1);
	atomic_fetch_add(&fake_stats.sync_end, 1);
}

uint64_t pen_gate_watch(struct pen_gate *g)
{
	(void)g;
	return 0;
}

const _Atomic uint32_t *pen_gate_bell(struct pen_gate *g)
{
	(void)g;
	return NULL;
}

void pen_gate_count_bytes(struct pen_gate_queue *q, uint64_t bytes)
{
	check_alive(q);
	atomic_fetch_add(&fake_stats.bytes, bytes);
}

void pen_gate_poll(struct pen_gate_queue *q)
{
	check_alive(q);
	atomic_fetch_add(&fake_stats.polls, 1);
}

void pen_gate_edge(struct pen_gate_queue *q)
{
	check_alive(q);
	atomic_fetch_add(&fake_stats.edges, 1);
}

/* ---- cost ------------------------------------------------------------------------------------------------------------ */

struct pen_cost *pen_gate_cost(struct pen_gate *g, uint64_t what, uint64_t size)
{
	static struct pen_cost one = { .est_ns = 1000 };
	(void)g, (void)size;
	atomic_store(&fake_stats.last_what, what);
	return &one;
}

struct pen_cost *pen_gate_cost_guessed(struct pen_gate *g, uint64_t what, uint64_t size, uint64_t guess_ns)
{
	(void)guess_ns;
	return pen_gate_cost(g, what, size);
}

void pen_gate_cost_renew(struct pen_cost *c)
{
	(void)c;
}

void pen_cost_learn(struct pen_cost *c, uint64_t device_ns)
{
	(void)c, (void)device_ns;
}

/* ---- memory ---------------------------------------------------------------------------------------------------------- */

static void note_peak(uint64_t used)
{
	uint64_t peak = atomic_load(&fake_stats.peak);
	while (peak < used && !atomic_compare_exchange_weak(&fake_stats.peak, &peak, used))
		;
}

int pen_gate_mem_reserve(struct pen_gate *g, uint64_t bytes)
{
	uint64_t used = atomic_load(&g->used);
	do {
		if (bytes > g->limit || used > g->limit - bytes) {
			atomic_fetch_add(&fake_stats.denials, 1);
			return -ENOMEM;
		}
	} while (!atomic_compare_exchange_weak(&g->used, &used, used + bytes));
	note_peak(used + bytes);
	atomic_fetch_add(&fake_stats.used, bytes);
	atomic_fetch_add(&fake_stats.objects, 1);
	return 0;
}

static void give(struct pen_gate *g, uint64_t bytes)
{
	atomic_fetch_sub(&g->used, bytes);
	atomic_fetch_sub(&fake_stats.used, bytes);
}

void pen_gate_mem_refund(struct pen_gate *g, uint64_t bytes, bool keep_object)
{
	give(g, bytes);
	if (!keep_object)
		atomic_fetch_sub(&fake_stats.objects, 1);
}

void pen_gate_mem_force(struct pen_gate *g, uint64_t bytes)
{
	note_peak(atomic_fetch_add(&g->used, bytes) + bytes);
	atomic_fetch_add(&fake_stats.used, bytes);
}

void pen_gate_mem_release(struct pen_gate *g, uint64_t bytes)
{
	give(g, bytes);
	atomic_fetch_sub(&fake_stats.objects, 1);
}

void pen_gate_mem_view(struct pen_gate *g, struct pen_mem_view *ret)
{
	ret->limit_bytes = g->limit < g->device_bytes ? g->limit : g->device_bytes;
	ret->used_bytes = atomic_load(&g->used) + option("FAKEGATE_USED", 0);
}

/* ---- for who only looks ---------------------------------------------------------------------------------------------- */

size_t pen_gate_clients(struct pen_gate *g, struct pen_gate_client *v, size_t room)
{
	size_t n = 0;
	(void)g;
	for (const char *s = getenv("FAKEGATE_CLIENTS"); s && *s && n < room; s += strcspn(s, ","), s += *s == ',') {
		char *end;
		v[n].pid = (uint32_t)strtoul(s, &end, 10);
		v[n].charged_bytes = strtoull(end + 1, &end, 10);
		v[n++].device_ns = strtoull(end + 1, &end, 10);
	}
	return n;
}

const struct pen_gate_door pen_gate_door = {
	.abi = PEN_GATE_DOOR_ABI, .size = sizeof(pen_gate_door), .managed = pen_gate_managed, .open = pen_gate_open,
	.terms = pen_gate_terms, .mem_view = pen_gate_mem_view, .clients = pen_gate_clients,
};
