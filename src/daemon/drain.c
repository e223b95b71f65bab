/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/drain.h"

#include "base/auto.h"
#include "daemon/daemon.h"
#include "daemon/store.h"
#include "daemon/watch.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <utlist.h>

/* ---- what was asked for -------------------------------------------------------------------------------------------- */

static void keep(struct pen_daemon *d, const char *key, double since, bool released)
{
	pen_drain_restore(d, key, since, released);
	if (d->store)
		pen_store_drain(d->store, key, since, released);
}

void pen_drain_restore(struct pen_daemon *d, const char *key, double since, bool released)
{
	if (!d->drains)
		d->drains = json_object();
	json_object_set_new(d->drains, key, json_pack("{s:f, s:b}", "since", since, "released", released));
}

void pen_drain_recall(const struct pen_daemon *d, struct pen_device *dev)
{
	const json_t *o = json_object_get(d->drains, dev->key);
	dev->drained = o;
	dev->drained_since = json_real_value(json_object_get(o, "since"));
	dev->released = json_is_true(json_object_get(o, "released"));
}

/* ---- the four steps ------------------------------------------------------------------------------------------------- */

void pen_drain_begin(struct pen_daemon *d, struct pen_device *dev)
{
	if (dev->drained)
		return;
	keep(d, dev->key, pen_unix_now(), false);
	pen_drain_recall(d, dev);
	pen_device_configure(d, dev);
	pen_event(d, PEN_EVENT_DEVICE, NULL, dev, "%s is drained: nobody new is admitted to it; processes on it: %u", dev->key, pen_drain_clients(dev));
}

/* Who was admitted elsewhere meanwhile, and whose contract means this device too, gets it as if it had just been found. */
static void cover_all(struct pen_daemon *d, struct pen_device *dev)
{
	for (struct pen_tenant *t = d->tenants; t; t = t->hh.next)
		if (t->state != PEN_TENANT_WAITING && t->state != PEN_TENANT_ENDED && !t->lapsed &&
		    !(t->covers >> dev->index & 1) && pen_contract_means(&t->contract, dev))
			pen_tenant_cover(d, t, dev, NULL);
}

int pen_drain_end(struct pen_daemon *d, const char *key)
{
	if (!json_object_get(d->drains, key))
		return -ENOENT;
	json_object_del(d->drains, key);
	if (d->store)
		pen_store_undrain(d->store, key);
	struct pen_device *dev = pen_device_find(d, key);
	if (!dev)
		return 0;
	bool released = dev->released;
	pen_drain_recall(d, dev);
	pen_device_configure(d, dev);
	pen_event(d, PEN_EVENT_DEVICE, NULL, dev, "%s is in use again", dev->key);
	if (released) {   /* the driver that is there now may be another one */
		pen_watch_configure(d);
		if (!d->opt.no_probe)
			pen_probe_start(d);
	}
	cover_all(d, dev);
	pen_tenant_admit_waiting(d);
	return 0;
}

void pen_drain_release(struct pen_daemon *d, struct pen_device *dev)
{
	if (dev->released)
		return;
	keep(d, dev->key, dev->drained_since, true);
	pen_drain_recall(d, dev);
	pen_watch_configure(d);
	pen_event(d, PEN_EVENT_DEVICE, NULL, dev, "%s is released: nothing of Penstock keeps its driver", dev->key);
}

bool pen_drain_is_released(struct pen_daemon *d, const struct pen_device *dev)
{
	return dev->released && !pen_probe_running(d) && !pen_watch_lives(d);
}

/* ---- who is on it ----------------------------------------------------------------------------------------------------- */

bool pen_drain_keeps_out(const struct pen_client *c, const struct pen_device *dev)
{
	if (!dev->drained || c->had >> dev->index & 1 || pen_absent_of(c, dev))
		return false;
	const struct pen_client *o;
	DL_FOREACH(c->tenant->clients, o)   /* another library of the same process */
		if (o != c && o->greeted && o->peer.pid > 0 && o->peer.pid == c->peer.pid && o->peer.start_time == c->peer.start_time &&
		    pen_seat_of(o, dev))
			return false;
	return true;
}

unsigned pen_drain_clients(const struct pen_device *dev)
{
	unsigned n = 0;
	for (unsigned i = 0; i < PEN_SEATS; i++)
		n += dev->seat[i] || dev->absent[i];
	return n;
}

static void add(json_t *list, pid_t pid, const char *comm, const char *tenant)
{
	json_array_append_new(list, json_pack("{s:i, s:s, s:s?}", "pid", (int)pid, "comm", comm, "tenant", tenant));
}

static bool is_listed(const json_t *list, pid_t pid)
{
	size_t i;
	json_t *o;
	json_array_foreach(list, i, o)
		if (json_integer_value(json_object_get(o, "pid")) == pid)
			return true;
	return false;
}

json_t *pen_drain_holders(const struct pen_daemon *d, const struct pen_device *dev)
{
	json_t *list = json_array();
	for (unsigned i = 0; i < PEN_SEATS; i++) {
		const struct pen_client *c = dev->seat[i] ? dev->seat[i]->client : dev->absent[i] ? dev->absent[i]->client : NULL;
		if (c && !is_listed(list, c->peer.pid))
			add(list, c->peer.pid, c->comm, c->tenant->name);
	}
	const struct pen_audit *a = dev->audit;
	for (unsigned i = 0; a && i < a->n_processes; i++) {
		const struct pen_audit_process *p = &a->process[i];
		uint64_t start;
		/* The reading is some time old: only those that still live. */
		if (is_listed(list, p->r.pid) || pen_watch_is(d, p->r.pid) || pen_peer_start_time(p->r.pid, &start) < 0 ||
		    start != p->start_time)
			continue;
		add(list, p->r.pid, p->comm, *p->tenant ? p->tenant : NULL);
	}
	return list;
}
