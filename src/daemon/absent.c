/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that were attached before a restart, live, and are not back: an idle program comes only with its next call,
 * which may be hours away. The store names them by pid and start time; until then each keeps its seat's number and its
 * charge, and a pidfd says when it dies.
 *
 * If a sibling brings the tenant's ledger back, that has the exact account. If a new process needs a ledger before, a new one
 * is made in which the absent are charged with what the store last heard of them.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "board/mem.h"
#include "daemon/daemon.h"
#include "daemon/store.h"

#include <stdlib.h>

/* Clients read the lease by a clock that is a tick of the kernel behind, and may be descheduled between looking and charging. */
#define LAPSE_SLACK_NS UINT64_C(50000000)

static bool same_process(const struct pen_client *a, const struct pen_client *b)
{
	return a->tenant == b->tenant && a->peer.pid == b->peer.pid && a->peer.start_time == b->peer.start_time;
}

struct pen_absent *pen_absent_of(const struct pen_client *c, const struct pen_device *dev)
{
	for (unsigned i = 0; i < PEN_SEATS; i++)
		if (dev->absent[i] && same_process(dev->absent[i]->client, c))
			return dev->absent[i];
	return NULL;
}

bool pen_absent_matters(const struct pen_place *p)
{
	/* Without a limit on memory there is none to go over; shares are kept by clients that run, and those are soon back. */
	return p->n_absent && p->tenant->contract.memory.cap != PEN_UNLIMITED;
}

void pen_absent_restore(struct pen_daemon *d, const struct pen_seat_row *row)
{
	struct pen_tenant *t = pen_tenant_find(d, row->tenant);
	struct pen_device *dev = pen_device_find(d, row->device);
	struct pen_place *p = t && dev ? t->place[dev->index] : NULL;
	if (!p || row->seat >= PEN_SEATS || !row->generation || dev->absent[row->seat] || row->pid <= 0)
		return;
	struct pen_client *c;
	int r = pen_client_restore(d, t, row->pid, row->start_time, &c);
	if (r < 0 || pen_absent_of(c, dev))
		return;
	struct pen_absent *a = calloc(1, sizeof(*a));
	if (!a)
		return;
	a->client = c;
	a->place = p;
	a->seat = row->seat;
	a->generation = row->generation;
	a->index = -1;
	a->bytes = PEN_MIN(row->bytes, UINT64_MAX / 256);
	atomic_store(&d->table->lend_after_ns, pen_mono_ns() + d->table->lease_ns + LAPSE_SLACK_NS);
	dev->absent[a->seat] = a;
	p->n_absent++;
	c->n_absent++;
	pen_place_publish(d, p);
	pen_tenant_settle(d, t);
}

void pen_absent_charge(struct pen_place *p)
{
	for (unsigned i = 0; i < PEN_SEATS; i++) {
		struct pen_absent *a = p->device->absent[i];
		if (!a || a->place != p || a->index >= 0)
			continue;
		bool known;
		a->index = pen_account_find(p->ledger, a->seat, a->generation, &known);
		if (a->index < 0)
			continue;   /* as many live clients as accounts: none of them can be new */
		pen_place_accounts(p, PEN_LEDGER_BIT(a->index), 0);
		if (!known)
			pen_mem_charge(p->ledger, (uint32_t)a->index, a->bytes, UINT64_MAX, PEN_MEM_FORCE);
	}
}

int pen_absent_ledger(struct pen_daemon *d, struct pen_place *p)
{
	int r = pen_place_ledger(d, p);
	if (r == 0)
		pen_absent_charge(p);
	return r;
}

void pen_absent_end(struct pen_daemon *d, struct pen_absent *a, bool is_back)
{
	struct pen_place *p = a->place;
	p->device->absent[a->seat] = NULL;
	p->n_absent--;
	a->client->n_absent--;
	if (!is_back && !d->quitting) {
		if (d->store)
			pen_store_seat_gone(d->store, p, a->seat, a->generation);
		if (a->index >= 0)
			pen_accounts_leave(d, p, PEN_LEDGER_BIT(a->index), false);
		if (!p->ledger)
			pen_place_publish(d, p);
	}
	free(a);
}

void pen_absent_end_all(struct pen_daemon *d, struct pen_client *c)
{
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES && c->n_absent; i++)
		for (unsigned n = 0; d->device[i] && n < PEN_SEATS; n++)
			if (d->device[i]->absent[n] && d->device[i]->absent[n]->client == c)
				pen_absent_end(d, d->device[i]->absent[n], false);
}
