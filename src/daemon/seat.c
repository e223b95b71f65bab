/* SPDX-License-Identifier: Apache-2.0 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/log.h"
#include "board/mem.h"
#include "board/packet.h"
#include "board/page.h"
#include "daemon/daemon.h"
#include "daemon/store.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define GENERATIONS_AHEAD (UINT32_C(1) << 20)   /* seats that a daemon gives in its life, generously */

struct pen_seat *pen_seat_of(const struct pen_client *c, const struct pen_device *dev)
{
	for (struct pen_seat *s = c->seats; s; s = s->sibling)
		if (s->place->device == dev)
			return s;
	return NULL;
}

/* Lowest first; while old clients may still come back after a restart, highest first: theirs are then free. */
static int pick_seat(const struct pen_daemon *d, const struct pen_device *dev)
{
	bool from_top = d->adopt_until_ns > pen_mono_ns();
	for (int i = 0; i < PEN_SEATS; i++) {
		int n = from_top ? PEN_SEATS - 1 - i : i;
		if (!dev->seat[n] && !dev->absent[n])
			return n;
	}
	return -ENOSPC;
}

static void seat_into(struct pen_client *c, struct pen_place *p, struct pen_seat *s)
{
	s->client = c;
	s->place = p;
	s->sibling = c->seats;
	c->seats = s;
	p->device->seat[s->seat] = s;
	pen_place_accounts(p, PEN_LEDGER_BIT(s->index), 0);
	pen_audit_seat(p->tenant->daemon, p);
}

static void seat_finish(struct pen_seat *s)
{
	if (s->signal)
		pen_page_unmap(s->signal, PEN_PAGE_SIGNAL);
	if (s->signal_fd >= 0)
		close(s->signal_fd);
	if (s->signal_ro_fd >= 0)
		close(s->signal_ro_fd);
	free(s);
}

int pen_seat_give(struct pen_daemon *d, struct pen_client *c, struct pen_place *p, struct pen_seat **ret_seat)
{
	int n = pick_seat(d, p->device);
	if (n < 0)
		return n;
	struct pen_seat *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->seat = (uint32_t)n;
	s->signal_fd = s->signal_ro_fd = -1;
	s->generation = d->generation++;
	if (!d->generation)
		d->generation = 1;
	struct pen_page_id id = { .slot = s->seat, .device_id = p->device->id };
	memcpy(id.boot_id, d->boot, sizeof(id.boot_id));
	struct pen_err err = PEN_ERR_INIT;
	void *map;
	int r = pen_page_create(PEN_PAGE_SIGNAL, &id, &s->signal_fd, &map, &err);
	if (r < 0) {
		pen_log(PEN_LOG_ERROR, "%s", err.text);
		seat_finish(s);
		return r;
	}
	s->signal = map;
	s->signal_writable = true;
	atomic_store_explicit(&s->signal->generation, s->generation, memory_order_relaxed);
	mlock(map, PEN_SIGNAL_BYTES);
	r = pen_ledger_claim(p->ledger, s->seat, s->generation);
	if (r < 0) {
		seat_finish(s);
		return r;
	}
	s->index = (uint32_t)r;
	seat_into(c, p, s);
	*ret_seat = s;
	return 0;
}

int pen_account_find(struct pen_ledger_page *l, uint32_t seat, uint32_t generation, bool *ret_known)
{
	uint64_t tag = (uint64_t)seat << 32 | generation;
	for (int i = 0; i < PEN_LEDGER_CLIENTS; i++)
		if (atomic_load_explicit(&l->client[i].tag, memory_order_relaxed) == tag) {
			*ret_known = true;
			return i;
		}
	*ret_known = false;
	return pen_ledger_claim(l, seat, generation);
}

/*
 * A generation that this daemon has given, or is about to, is not one of before its start. What the client says moves our
 * own count by nothing.
 */
static bool is_ours(const struct pen_daemon *d, uint32_t generation)
{
	return generation - d->first_generation < d->generation - d->first_generation + GENERATIONS_AHEAD;
}

int pen_seat_adopt(struct pen_daemon *d, struct pen_client *c, struct pen_place *p, const struct pen_msg_adopt *m,
		   int *signal_fd, struct pen_seat **ret_seat)
{
	if (m->seat >= PEN_SEATS || !m->generation)
		return -EPROTO;
	if (is_ours(d, m->generation))
		return -ESTALE;
	struct pen_absent *a = pen_absent_of(c, p->device);
	if (a && (a->place != p || a->seat != m->seat || a->generation != m->generation)) {
		pen_absent_end(d, a, false);   /* it moved, and the store had not heard */
		a = NULL;
	}
	if (p->device->seat[m->seat] || (p->device->absent[m->seat] && p->device->absent[m->seat] != a))
		return -EBUSY;
	struct pen_seat *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->seat = m->seat;
	s->generation = m->generation;
	s->signal_fd = s->signal_ro_fd = -1;
	const void *map;
	bool known;
	int r = pen_page_map_ro(*signal_fd, PEN_PAGE_SIGNAL, &map);
	if (r == 0) {
		/* Sealed against new writable mappings, ours included: we only read it and wake on it. */
		s->signal = (struct pen_signal_page *)(uintptr_t)map;
		mlock(map, PEN_SIGNAL_BYTES);
		r = pen_page_reopen_ro(*signal_fd, &s->signal_ro_fd, NULL);
	}
	if (r == 0)
		r = pen_account_find(p->ledger, m->seat, m->generation, &known);
	if (r < 0) {
		seat_finish(s);
		return r;
	}
	s->index = (uint32_t)r;
	s->signal_fd = PEN_TAKE_FD(*signal_fd);
	if (a) {
		s->kept = true;
		s->kept_bytes = a->bytes;
		pen_absent_end(d, a, true);
	}
	seat_into(c, p, s);
	*ret_seat = s;
	return 0;
}

/* ---- neighbours ---------------------------------------------------------------------------------------------- */

static int send_one(struct pen_client *c, const struct pen_seat *s)
{
	const struct pen_device *dev = s->place->device;
	struct pen_msg_neighbour m = { .device_id = dev->id, .seat = s->seat, .generation = s->generation,
				       .fds_epoch = dev->fds_epoch };
	return pen_client_send(c, PEN_MSG_NEIGHBOUR, &m, &s->signal_ro_fd, 1);
}

/*
 * Its own page is sent too: it makes the client's number of descriptors equal to the device's also when it is alone,
 * and tells it nothing that it does not have.
 */
void pen_seat_send_all(struct pen_daemon *d, struct pen_client *c, struct pen_device *dev)
{
	(void)d;
	if (c->fd < 0)
		return;
	c->resend &= ~(UINT64_C(1) << dev->index);
	for (unsigned i = 0; i < PEN_SEATS; i++) {
		const struct pen_seat *s = dev->seat[i];
		if (!s || !s->shown)
			continue;
		if (send_one(c, s) < 0) {
			c->resend |= UINT64_C(1) << dev->index;
			pen_client_want_room(c);
			return;
		}
	}
}

static void show_to_others(struct pen_daemon *d, const struct pen_seat *s)
{
	struct pen_device *dev = s->place->device;
	for (unsigned i = 0; i < PEN_SEATS; i++) {
		struct pen_seat *o = dev->seat[i];
		if (!o || o == s || o->client->fd < 0)
			continue;
		/* One that has a backlog gets all of them again later, in order. */
		uint64_t bit = UINT64_C(1) << dev->index;
		if ((o->client->resend & bit) || send_one(o->client, s) < 0) {
			o->client->resend |= bit;
			pen_client_want_room(o->client);
		}
	}
	(void)d;
}

int pen_seat_show(struct pen_daemon *d, struct pen_seat *s)
{
	struct pen_device *dev = s->place->device;
	struct pen_err err = PEN_ERR_INIT;
	if (s->shown)
		return 0;
	if (s->signal_writable) {
		int r = pen_page_seal_signal(s->signal_fd, &err);
		if (r == 0)
			r = pen_page_reopen_ro(s->signal_fd, &s->signal_ro_fd, &err);
		if (r < 0) {
			pen_log(PEN_LOG_ERROR, "%s", err.text);
			return r;
		}
	}
	s->shown = true;
	pen_seat_keep(d, s);
	dev->fds_epoch++;
	show_to_others(d, s);
	/* Only now may terms name it: the descriptors are on their way. */
	struct pen_table_seat *v = &dev->table->seat[s->seat];
	pen_lock(&d->table->lock);
	*v = (struct pen_table_seat){ .used = true, .slot = (uint16_t)s->place->slot, .generation = s->generation,
				      .signal = s->signal };
	dev->table->fds_epoch = dev->fds_epoch;
	pen_unlock(&d->table->lock);
	pen_tick_now(d, dev);
	return 0;
}

/* ---- what the store knows of it ---------------------------------------------------------------------------------- */

#define KEEP_STEPS 16                                /* of the limit: so many rows at most until it is full */
#define KEEP_LOWER_NS UINT64_C(600000000000)         /* and so long until it may begin anew: writes wear flash */

/* Rounded up, so that not every allocation is a write: at most a sixteenth too strict, and never above the limit. */
static uint64_t keep_rounded(const struct pen_place *p, uint64_t bytes)
{
	uint64_t limit = pen_place_mem_limit(p);
	uint64_t least = PEN_MAX(bytes / 8, UINT64_C(1) << 20);
	uint64_t step = limit == PEN_UNLIMITED ? least : PEN_MAX(limit / KEEP_STEPS, least);
	return bytes >= limit ? bytes : PEN_MIN((bytes + step - 1) / step * step, limit);
}

static void keep(struct pen_daemon *d, struct pen_seat *s, uint64_t bytes)
{
	s->kept = true;
	s->kept_bytes = bytes;
	s->below_since_ns = 0;
	pen_store_seat(d->store, s);
}

void pen_seat_keep(struct pen_daemon *d, struct pen_seat *s)
{
	const struct pen_peer *peer = &s->client->peer;
	/* One that cannot be named by pid and start time cannot be found again. */
	if (!d->store || !s->shown || !s->place->ledger || peer->pid <= 0 || !peer->start_time)
		return;
	const _Atomic uint64_t *charged = &s->place->ledger->client[s->index].charged_bytes;
	uint64_t bytes = PEN_MIN(atomic_load_explicit(charged, memory_order_relaxed), UINT64_MAX / 256);
	uint64_t now = pen_mono_ns();
	if (!s->kept || bytes > s->kept_bytes) {
		keep(d, s, keep_rounded(s->place, bytes));
		return;
	}
	if (!s->below_since_ns) {
		s->below_since_ns = now;
		s->below_bytes = 0;
	}
	s->below_bytes = PEN_MAX(s->below_bytes, bytes);
	if (now - s->below_since_ns < KEEP_LOWER_NS)
		return;
	s->below_since_ns = 0;
	if (keep_rounded(s->place, s->below_bytes) < s->kept_bytes)
		keep(d, s, keep_rounded(s->place, s->below_bytes));
}

/* ---- the end of a seat ------------------------------------------------------------------------------------------ */

/*
 * A client that died while it was backlogged is still counted among the active of its tenant, which would keep the
 * tenant from joining the fair order anew.
 */
static void repair_active(struct pen_place *p, bool was_active, unsigned alive)
{
	struct pen_ledger_page *l = p->ledger;
	uint32_t n = atomic_load(&l->active_clients);
	for (;;) {
		uint32_t want = was_active && n ? n - 1 : n;
		want = PEN_MIN(want, alive);
		if (want == n || atomic_compare_exchange_strong(&l->active_clients, &n, want))
			return;
	}
}

static pen_ledger_set live_set(const struct pen_place *p)
{
	return p->clients_used;
}

static void on_square(evutil_socket_t fd, short what, void *arg)
{
	struct pen_daemon *d = arg;
	(void)fd, (void)what;
	bool again = false;
	for (struct pen_tenant *t = d->tenants; t; t = t->hh.next)
		for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
			if (t->place[i] && t->place[i]->square && t->place[i]->ledger) {
				struct pen_place *p = t->place[i];
				p->square = pen_mem_square(p->ledger, live_set(p), NULL) == -EAGAIN;
				again |= p->square;
			}
	if (again)
		evtimer_add(d->square_ev, &(struct timeval){ .tv_usec = 5000 });
}

void pen_place_square(struct pen_daemon *d, struct pen_place *p)
{
	/* After a restart accounts without a seat belong to clients that may still come back. */
	if (!p->ledger || p->adopt_until_ns || pen_mem_square(p->ledger, live_set(p), NULL) != -EAGAIN)
		return;
	p->square = true;
	if (!d->square_ev)
		d->square_ev = evtimer_new(d->base, on_square, d);
	if (d->square_ev)
		evtimer_add(d->square_ev, &(struct timeval){ .tv_usec = 5000 });
}

void pen_accounts_leave(struct pen_daemon *d, struct pen_place *p, pen_ledger_set gone, bool were_active)
{
	pen_place_accounts(p, 0, gone);
	if (!p->ledger || !gone)
		return;
	for (uint32_t i = 0; i < PEN_LEDGER_CLIENTS; i++) {
		struct pen_ledger_client *c = &p->ledger->client[i];
		if (!(gone & PEN_LEDGER_BIT(i)))
			continue;
		pen_account_add(c, &p->retired);
		repair_active(p, were_active || atomic_load(&c->hold_reason) != 0,
			      (unsigned)__builtin_popcountll(p->clients_used));
		pen_ledger_drop(p->ledger, i);
	}
	pen_place_square(d, p);
	if (d->store)
		pen_store_totals(d->store, p);
}

static void leave_ledger(struct pen_daemon *d, struct pen_seat *s)
{
	struct pen_place *p = s->place;
	bool was_active = s->signal && PEN_BUSY_STATE(atomic_load(&s->signal->busy)) != PEN_BUSY_IDLE;
	pen_accounts_leave(d, p, PEN_LEDGER_BIT(s->index), was_active);
	/* A tenant's service is the sum over its clients: one that leaves must not make it look as if it had had less. */
	if (p->ledger && p->clients_used && s->signal)
		atomic_fetch_add(&p->ledger->departed_vns,
				 PEN_MIN(atomic_load(&s->signal->service_vns), UINT64_MAX / PEN_SEATS));
}

static void leave_client(struct pen_seat *s)
{
	for (struct pen_seat **at = &s->client->seats; *at; at = &(*at)->sibling)
		if (*at == s) {
			*at = s->sibling;
			return;
		}
}

void pen_seat_release(struct pen_daemon *d, struct pen_seat *s)
{
	struct pen_device *dev = s->place->device;
	if (d->quitting) {   /* its process lives on the pages, and brings them to the next daemon as they are */
		dev->seat[s->seat] = NULL;
		leave_client(s);
		seat_finish(s);
		return;
	}
	if (s->kept && d->store)
		pen_store_seat_gone(d->store, s->place, s->seat, s->generation);
	struct pen_table_seat *v = &dev->table->seat[s->seat];
	pen_lock(&d->table->lock);
	*v = (struct pen_table_seat){ 0 };
	pen_unlock(&d->table->lock);
	dev->seat[s->seat] = NULL;
	leave_client(s);
	leave_ledger(d, s);
	pen_tick_now(d, dev);
	/* Terms no longer name it; whoever sleeps on its word looks again now and not only when the wait runs out. */
	if (s->signal_writable) {
		uint32_t word = atomic_load(&s->signal->busy);
		atomic_store(&s->signal->busy, PEN_BUSY_NEXT(word, PEN_BUSY_IDLE));
	}
	pen_futex_wake(&s->signal->busy, PEN_SEATS * PEN_LEDGER_CLIENTS);
	pen_audit_seat(d, s->place);
	seat_finish(s);
}
