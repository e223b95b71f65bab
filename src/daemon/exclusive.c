/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `penstock run --exclusive`: for engine builds and autotuners, which choose kernels by measuring them, and choose badly when a
 * neighbour runs between two measurements. While it lasts, and the tenant has a process on the device, the terms of all
 * others say hold (board/layout.h, PEN_TERMS_HOLD): a turn without end, with an end.
 *
 * It is a promise of the whole of the device's time, so it is admitted as one: not where others were promised a latency or a share,
 * and nobody is promised either while it lasts. Its end is known from the start and counted from there, whatever the program does,
 * and it ends with the daemon: terms lapse, and a new daemon knows nothing of it.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "contract/text.h"
#include "daemon/daemon.h"

#include <errno.h>

bool pen_exclusive_now(const struct pen_tenant *t)
{
	return t->exclusive_until_ns > pen_mono_ns() && t->state != PEN_TENANT_ENDED;
}

/* What @c was promised of the device's time; NULL: nothing that waiting would break. */
static const char *promised(const struct pen_contract *c)
{
	if (c->cls == PEN_CLASS_LATENCY)
		return "class";
	if (c->sla_ns)
		return "sla";
	return c->compute.guaranteed ? "compute" : NULL;
}

int pen_exclusive_admit(struct pen_daemon *d, const struct pen_device *dev, const struct pen_contract *c, bool exclusive,
			const struct pen_tenant *self, struct pen_err *err)
{
	const char *field = promised(c);
	char left[32];
	for (struct pen_tenant *t = d->tenants; t; t = t->hh.next) {
		if (t == self || !(t->covers >> dev->index & 1))
			continue;
		const char *theirs = promised(&t->contract);
		if (exclusive && theirs)
			return pen_err_x(err, -EAGAIN, N_("exclusive: '%s' was promised %s on %s, which would be broken"), t->name, theirs, dev->key);
		if (!pen_exclusive_now(t) || !(exclusive || field))
			continue;
		pen_format_duration(left, sizeof(left), (t->exclusive_until_ns - pen_mono_ns()) / PEN_S * PEN_S + PEN_S);
		return pen_err_x(err, -EAGAIN, N_("%s: '%s' has %s for itself, for %s at most"), exclusive ? "exclusive" : field, t->name,
				 dev->key, left);
	}
	return 0;
}

void pen_exclusive_begin(struct pen_daemon *d, struct pen_tenant *t)
{
	char span[32];
	if (!t->exclusive_ns)
		return;
	t->exclusive_until_ns = pen_mono_ns() + t->exclusive_ns;
	pen_event(d, PEN_EVENT_EXCLUSIVE, t, NULL, "has its device for itself, for %s at most: others' commands wait",
		  pen_format_duration(span, sizeof(span), t->exclusive_ns));
}

void pen_exclusive_second(struct pen_daemon *d, struct pen_tenant *t)
{
	if (!t->exclusive_until_ns || pen_exclusive_now(t))
		return;
	t->exclusive_until_ns = 0;
	pen_event(d, PEN_EVENT_EXCLUSIVE, t, NULL, "its time is up: it shares its device again");
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		if (t->place[i])
			pen_place_publish(d, t->place[i]);
	pen_tenant_admit_waiting(d);
}

const struct pen_tenant *pen_exclusive_on(const struct pen_device *dev)
{
	for (unsigned i = 0; i < PEN_SEATS; i++)
		if (dev->seat[i] && pen_exclusive_now(dev->seat[i]->place->tenant))
			return dev->seat[i]->place->tenant;
	return NULL;
}
