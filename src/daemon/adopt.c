/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seats that a process brings back: after a restart of the daemon with the pages it still holds, after a mere hang-up
 * without need of them.
 *
 * Pages from a tenant are taken only if they are what the daemon itself had made: kind, size, seals, boot, device, and
 * for a signal page the seal that keeps everybody, us included, from writing it anew. What cannot be taken is
 * replaced by a new seat that is charged with what the client says it holds: too much harms only itself.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/log.h"
#include "board/mem.h"
#include "board/page.h"
#include "daemon/daemon.h"
#include "daemon/drain.h"

#include <errno.h>
#include <event2/event.h>
#include <string.h>

static struct pen_seat *held_by(struct pen_client *old, const struct pen_device *dev, const struct pen_msg_adopt *m)
{
	struct pen_seat *s = old ? pen_seat_of(old, dev) : NULL;
	return s && s->shown && s->seat == m->seat && s->generation == m->generation ? s : NULL;
}

bool pen_adopt_held(const struct pen_client *c, struct pen_client *old)
{
	for (uint32_t i = 0; i < c->n_adopts; i++) {
		const struct pen_device *dev = pen_device_find(old->tenant->daemon, c->adopt[i].msg.key);
		if (dev && held_by(old, dev, &c->adopt[i].msg))
			return true;
	}
	return false;
}

static void move_seat(struct pen_seat *s, struct pen_client *from, struct pen_client *to)
{
	for (struct pen_seat **at = &from->seats; *at; at = &(*at)->sibling)
		if (*at == s) {
			*at = s->sibling;
			break;
		}
	s->client = to;
	s->sibling = to->seats;
	to->seats = s;
}

/* The ledger of the place becomes the one that the client holds, or is it already. */
static int match_ledger(struct pen_daemon *d, struct pen_place *p, const struct pen_page_head *head, int *fd)
{
	if (p->ledger)
		return p->ledger->head.instance == head->instance ? 0 : -ESTALE;
	int r = pen_place_take_ledger(d, p, fd);
	if (r < 0)
		return r;
	pen_absent_charge(p);
	/* What was used before is not use of this minute, nor of this second. */
	pen_place_totals(p, &p->minute);
	p->sample_device_ns = p->minute.device_ns;
	return 0;
}

/* Accounts of processes that are neither back nor known to live. */
static void leave_strangers(struct pen_daemon *d, struct pen_place *p)
{
	pen_ledger_set gone = 0;
	for (uint32_t i = 0; p->ledger && i < PEN_LEDGER_CLIENTS; i++)
		if (!(p->clients_used & PEN_LEDGER_BIT(i)) && atomic_load(&p->ledger->client[i].tag))
			gone |= PEN_LEDGER_BIT(i);
	pen_accounts_leave(d, p, gone, false);
}

static int take_pages(struct pen_daemon *d, struct pen_client *c, struct pen_device *dev, struct pen_adopt *a,
		      struct pen_seat **ret_seat, struct pen_err *err)
{
	struct pen_page_head ledger = { 0 }, signal = { 0 };
	if (a->fd[0] < 0 || a->fd[1] < 0)
		return pen_err_x(err, -EBADF, "no pages");
	/* An idle program may come hours after our start; one that is younger than we are never had an earlier daemon. */
	if (d->start_time && c->peer.start_time > d->start_time)
		return pen_err_x(err, -ESTALE, "pages of before this daemon, in a younger process");
	int r = pen_page_verify(a->fd[0], PEN_PAGE_LEDGER, d->boot, PEN_VERIFY_FINAL, &ledger, err);
	if (r == 0)
		r = pen_page_verify(a->fd[1], PEN_PAGE_SIGNAL, d->boot, PEN_VERIFY_FINAL, &signal, err);
	if (r < 0)
		return r;
	if (ledger.device_id != dev->id || signal.device_id != dev->id || signal.slot != a->msg.seat ||
	    ledger.slot >= PEN_TENANT_SLOTS)
		return pen_err_x(err, -ESTALE, "pages of another device or seat");
	struct pen_place *p;
	r = pen_attach_place(d, c, dev, (int)ledger.slot, &p, err);
	if (r < 0)
		return r;
	r = match_ledger(d, p, &ledger, &a->fd[0]);
	if (r == 0)
		r = pen_seat_adopt(d, c, p, &a->msg, &a->fd[1], ret_seat);
	if (r == 0 && !p->adopt_until_ns)   /* a ledger that comes late knows the dead too */
		leave_strangers(d, p);
	return r < 0 ? pen_err_sys(err, r, "seat %u", a->msg.seat) : 0;
}

static int give_new(struct pen_daemon *d, struct pen_client *c, struct pen_device *dev, uint64_t charged_bytes)
{
	struct pen_place *p;
	struct pen_seat *s = NULL;
	int r = pen_attach_place(d, c, dev, -1, &p, NULL);
	if (r == 0 && !p->ledger)
		r = pen_absent_ledger(d, p);
	struct pen_absent *a = pen_absent_of(c, dev);
	if (r == 0 && a)
		pen_absent_end(d, a, false);   /* what it says itself is newer */
	if (r == 0)
		r = pen_seat_give(d, c, p, &s);
	if (!s)
		return r;
	/* No more than there is: the claim of a hostile client must not overflow the sum. */
	if (dev->mem_bytes)
		charged_bytes = PEN_MIN(charged_bytes, dev->mem_bytes);
	pen_mem_charge(p->ledger, s->index, PEN_MIN(charged_bytes, UINT64_MAX / 256), UINT64_MAX, PEN_MEM_FORCE);
	return pen_attach_seat(c, s, false);
}

static void adopt_one(struct pen_daemon *d, struct pen_client *c, struct pen_client *old, struct pen_adopt *a)
{
	struct pen_device *dev = pen_device_find(d, a->msg.key);
	struct pen_err err = PEN_ERR_INIT;
	struct pen_msg_seat no = { .status = -ENODEV, .seat = PEN_SEAT_NONE };
	snprintf(no.key, sizeof(no.key), "%s", a->msg.key);
	if (!dev || pen_seat_of(c, dev)) {
		pen_client_send(c, PEN_MSG_SEAT, &no, NULL, 0);
		return;
	}
	struct pen_seat *s = held_by(old, dev, &a->msg);
	if (s)
		move_seat(s, old, c);
	else if (take_pages(d, c, dev, a, &s, &err) < 0) {
		pen_log(PEN_LOG_WARN, "tenant %s: process %d does not get its old seat on %s: %s", c->tenant->name,
			(int)c->peer.pid, dev->key, err.text);
		int r = pen_drain_keeps_out(c, dev) ? -ENODEV : give_new(d, c, dev, a->msg.charged_bytes);
		if (r < 0)
			pen_client_send(c, PEN_MSG_SEAT, &no, NULL, 0);
		return;
	}
	/* Its signal page is sealed: nothing to wait for, no MAPPED needed. */
	if (pen_attach_seat(c, s, true) == 0)
		pen_attach_ready(d, c, s);
}

void pen_adopt_all(struct pen_daemon *d, struct pen_client *c, struct pen_client *old)
{
	for (uint32_t i = 0; i < c->n_adopts; i++)
		adopt_one(d, c, old, &c->adopt[i]);
	if (c->n_adopts)
		pen_attach_unpark(d);   /* others of the tenant may have waited for this ledger */
}

/* ---- after a restart: how long to wait ---------------------------------------------------------------------------- */

static void settle_place(struct pen_daemon *d, struct pen_place *p)
{
	p->adopt_until_ns = 0;
	leave_strangers(d, p);
	pen_place_square(d, p);
}

static void on_adopt_end(evutil_socket_t fd, short what, void *arg)
{
	struct pen_daemon *d = arg;
	(void)fd, (void)what;
	d->adopt_until_ns = 0;
	pen_log(PEN_LOG_DEBUG, "clients of before the start are no longer waited for");
	struct pen_tenant *t, *next;
	for (t = d->tenants; t; t = next) {
		next = t->hh.next;
		for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
			if (t->place[i] && t->place[i]->adopt_until_ns)
				settle_place(d, t->place[i]);
		pen_tenant_settle(d, t);
	}
	pen_attach_unpark(d);
}

int pen_adopt_begin(struct pen_daemon *d)
{
	d->adopt_until_ns = pen_mono_ns() + PEN_ADOPT_NS;
	for (struct pen_tenant *t = d->tenants; t; t = t->hh.next)
		for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
			if (t->place[i])
				t->place[i]->adopt_until_ns = d->adopt_until_ns;
	d->adopt_ev = evtimer_new(d->base, on_adopt_end, d);
	return d->adopt_ev && event_add(d->adopt_ev, &(struct timeval){ .tv_sec = PEN_ADOPT_NS / PEN_S }) == 0 ? 0 : -ENOMEM;
}
