/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/audit.h"

#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "daemon/daemon.h"

#include <stdlib.h>
#include <string.h>

#define NEW_READINGS 3   /* a context that is not on the list after so many is none */
#define MUCH_FOR 5       /* readings in a row with more than is allowed for, until it is told */

/* ---- what a tenant has beside its allocations ---------------------------------------------------------------------- */

static uint64_t less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static uint64_t overhead_now(const struct pen_place *p)
{
	const struct pen_audit *a = p->device->audit;
	uint64_t sum = p->audit.overhead.bytes;
	for (unsigned i = 0; a && a->context_bytes && i < PEN_SEATS; i++) {
		const struct pen_seat *s = p->device->seat[i];
		if (s && s->place == p && !s->audit_listed && s->audit_readings < NEW_READINGS)
			sum += a->context_bytes;
	}
	return sum;
}

static void tell_full(struct pen_daemon *d, struct pen_place *p)
{
	uint64_t cap = p->tenant->contract.memory.cap, used = pen_place_mem_held(p);
	bool full = p->overhead_bytes && cap != PEN_UNLIMITED && used + p->overhead_bytes > cap;
	char overhead[32], limit[32];
	if (full && !p->audit.told_full)
		pen_event(d, PEN_EVENT_AUDIT, p->tenant, p->device,
			  "has %s on the device beside its allocations (contexts, modules): with them it is above its limit of %s, "
			  "and gets nothing more until it frees something",
			  pen_format_bytes(overhead, sizeof(overhead), p->overhead_bytes), pen_format_bytes(limit, sizeof(limit), cap));
	p->audit.told_full = full;
}

static void put_in_force(struct pen_daemon *d, struct pen_place *p)
{
	uint64_t now = overhead_now(p);
	if (now != p->overhead_bytes) {
		p->overhead_bytes = now;
		p->overhead_peak_bytes = PEN_MAX(p->overhead_peak_bytes, now);
		pen_place_publish(d, p);
	}
	tell_full(d, p);
}

static bool has_seat(const struct pen_place *p)
{
	for (unsigned i = 0; i < PEN_SEATS; i++)
		if (p->device->seat[i] && p->device->seat[i]->place == p)
			return true;
	return p->n_absent > 0;
}

void pen_audit_seat(struct pen_daemon *d, struct pen_place *p)
{
	if (d->quitting || !p->device->audit)
		return;
	if (has_seat(p))
		pen_learn_fewer(&p->audit.overhead);
	else
		p->audit = (struct pen_place_audit){ .sm_util = PEN_READING_NONE, .enc_util = PEN_READING_NONE, .dec_util = PEN_READING_NONE };
	put_in_force(d, p);
}

/*
 * What one process has beside its allocations, from those that have been learned: the least, so that nobody is charged too much,
 * and never more than a process is allowed: a tenant that takes memory unseen, or falsifies its ledger, is charged for itself only.
 */
static void learn_context(const struct pen_daemon *d, struct pen_device *dev)
{
	uint64_t least = UINT64_MAX;
	for (unsigned i = 0; i < PEN_TENANT_SLOTS; i++) {
		const struct pen_place *p = dev->slot[i];
		if (p && p->audit.known && p->audit.n_processes && p->audit.overhead.bytes)
			least = PEN_MIN(least, p->audit.overhead.bytes / p->audit.n_processes);
	}
	if (least != UINT64_MAX)
		dev->audit->context_bytes = PEN_MIN(least, d->cfg.audit_allowance);
}

static void tell_much(struct pen_daemon *d, struct pen_place *p)
{
	struct pen_place_audit *a = &p->audit;
	uint64_t allowed = d->cfg.audit_allowance * PEN_MAX(a->n_processes, 1u);
	bool much = a->overhead.bytes > allowed;
	char overhead[32], limit[32];
	a->much_for = much ? a->much_for + 1 : 0;
	if (a->much_for >= MUCH_FOR && !a->told_much) {
		pen_event(d, PEN_EVENT_AUDIT, p->tenant, p->device,
			  "has %s on the device beside its allocations, more than the %s that %u processes are allowed: either it takes memory by "
			  "a way that is not seen, or audit.allowance is too small for what it runs; all of it counts against its limit",
			  pen_format_bytes(overhead, sizeof(overhead), a->overhead.bytes), pen_format_bytes(limit, sizeof(limit), allowed),
			  a->n_processes);
		a->told_much = true;
	}
	if (!much)
		a->told_much = false;
}

static void add_util(int32_t *sum, int32_t v)
{
	if (v != PEN_READING_NONE)
		*sum = (*sum == PEN_READING_NONE ? 0 : *sum) + v;
}

static void mark_seats(struct pen_device *dev)
{
	const struct pen_audit *a = dev->audit;
	for (unsigned i = 0; i < PEN_SEATS; i++) {
		struct pen_seat *s = dev->seat[i];
		if (!s)
			continue;
		s->audit_readings += s->audit_readings < NEW_READINGS;
		s->audit_listed = false;
		for (unsigned k = 0; k < a->n_processes && !s->audit_listed; k++)
			s->audit_listed = a->process[k].r.pid == s->client->peer.pid;
	}
}

static void take_place(struct pen_daemon *d, struct pen_place *p)
{
	const struct pen_audit *a = p->device->audit;
	struct pen_place_audit *v = &p->audit;
	unsigned n = 0;
	v->known = true;
	v->device_bytes = 0;
	v->sm_util = v->enc_util = v->dec_util = PEN_READING_NONE;
	for (unsigned i = 0; i < a->n_processes; i++) {
		const struct pen_audit_process *q = &a->process[i];
		if (q->kind != PEN_AUDIT_TENANT || strcmp(q->tenant, p->tenant->name))
			continue;
		n++;
		v->known &= q->r.has_mem;
		v->device_bytes += q->r.mem_bytes;
		add_util(&v->sm_util, q->r.sm_util);
		add_util(&v->enc_util, q->r.enc_util);
		add_util(&v->dec_util, q->r.dec_util);
	}
	if (n < v->n_processes)
		pen_learn_fewer(&v->overhead);
	v->n_processes = n;
	if (!n && !has_seat(p))
		v->overhead = (struct pen_learned){ 0 };
	else if (v->known && (p->ledger || !pen_place_waits(p)))   /* without its ledger, after a restart, there is nothing to compare */
		pen_learn(&v->overhead, less(v->device_bytes, pen_place_mem_held(p)));
	tell_much(d, p);
}

/* ---- what no tenant has ---------------------------------------------------------------------------------------------- */

/* In the overhead of its tenant. One that has no place here yet, though its process has a context, is charged with nothing. */
static bool is_charged(struct pen_daemon *d, const struct pen_device *dev, const struct pen_audit_process *p)
{
	const struct pen_tenant *t = p->kind == PEN_AUDIT_TENANT ? pen_tenant_find(d, p->tenant) : NULL;
	return t && t->place[dev->index];
}

static void tell_unexplained(struct pen_daemon *d, struct pen_device *dev)
{
	struct pen_audit *a = dev->audit;
	/* A driver keeps a part of the card for itself: some hundred MiB, more on large ones. */
	bool much = a->unexplained_bytes > d->cfg.audit_allowance + dev->mem_bytes / 32;
	char text[32];
	a->unexplained_for = much ? a->unexplained_for + 1 : 0;
	if (a->unexplained_for >= MUCH_FOR && !a->told_unexplained) {
		pen_event(d, PEN_EVENT_AUDIT, NULL, dev,
			  "%s are in use that no process is named for: a container or another machine may use the device unseen; it is not lent",
			  pen_format_bytes(text, sizeof(text), a->unexplained_bytes));
		a->told_unexplained = true;
	}
	if (!much)
		a->told_unexplained = false;
}

static void take_outside(struct pen_daemon *d, struct pen_device *dev, const struct pen_reading_device *r)
{
	struct pen_audit *a = dev->audit;
	uint64_t all = 0, outside = 0;
	a->complete = !r->n_left_out;
	a->unknown_bytes = 0;
	for (unsigned i = 0; i < a->n_processes; i++) {
		const struct pen_audit_process *p = &a->process[i];
		a->complete &= p->r.has_mem;
		all += p->r.mem_bytes;
		outside += is_charged(d, dev, p) ? 0 : p->r.mem_bytes;
		a->unknown_bytes += p->kind == PEN_AUDIT_UNKNOWN ? p->r.mem_bytes : 0;
	}
	a->unexplained_bytes = a->complete && r->has_used ? less(r->mem_used_bytes, all) : 0;
	/* With a tenant's figure missing, all that is known for certain is what the others' processes are said to have. */
	pen_learn(&a->outside, outside + a->unexplained_bytes);
	if (dev->table->mem_outside_bytes != a->outside.bytes) {
		pen_lock(&d->table->lock);
		dev->table->mem_outside_bytes = a->outside.bytes;
		pen_unlock(&d->table->lock);
		pen_tick_now(d, dev);
	}
	tell_unexplained(d, dev);
}

/* ---- one reading of one device ------------------------------------------------------------------------------------------ */

static const struct pen_audit_process *find(const struct pen_audit_process *v, unsigned n, pid_t pid)
{
	for (unsigned i = 0; i < n; i++)
		if (v[i].r.pid == pid)
			return &v[i];
	return NULL;
}

static void take_processes(struct pen_daemon *d, struct pen_audit *a, const struct pen_reading_device *r, uint64_t now_ns)
{
	static struct pen_audit_process before[PEN_READING_PROCESSES];
	unsigned n_before = a->n_processes;
	memcpy(before, a->process, sizeof(before[0]) * n_before);
	a->n_processes = a->n_unknown = 0;
	a->n_left_out = r->n_left_out;
	for (unsigned i = 0; i < r->n_processes; i++) {
		const struct pen_audit_process *old = find(before, n_before, r->process[i].pid);
		struct pen_audit_process *p = &a->process[a->n_processes];
		struct pen_who who;
		if (pen_audit_who(d, r->process[i].pid, old, &who) < 0)
			continue;   /* gone since */
		if (old && old->start_time == who.start_time) {
			*p = *old;
		} else {
			*p = (struct pen_audit_process){ .start_time = who.start_time, .since_ns = now_ns };
			pen_audit_describe(r->process[i].pid, p);
		}
		p->r = r->process[i];
		p->kind = who.kind;
		snprintf(p->tenant, sizeof(p->tenant), "%s", who.tenant ? who.tenant->name : "");
		p->readings = who.kind == PEN_AUDIT_UNKNOWN ? p->readings + 1 : 0;
		a->n_unknown += who.kind == PEN_AUDIT_UNKNOWN;
		a->n_processes++;
	}
}

static bool prepare(struct pen_device *dev)
{
	if (!dev->audit)
		dev->audit = calloc(1, sizeof(*dev->audit));
	if (dev->audit && !dev->audit->last)
		dev->audit->last = calloc(1, sizeof(*dev->audit->last));
	return dev->audit && dev->audit->last;
}

static void take_device(struct pen_daemon *d, struct pen_device *dev, const struct pen_reading_device *r)
{
	if (!prepare(dev))
		return;
	struct pen_audit *a = dev->audit;
	uint64_t now = pen_mono_ns();
	a->at_ns = now;
	memcpy(a->last, r, offsetof(struct pen_reading_device, process));
	pen_audit_health(d, dev, r);
	if (r->lost || !r->has_processes)   /* what else it says is of no worth */
		return;
	take_processes(d, a, r, now);
	mark_seats(dev);
	for (unsigned i = 0; i < PEN_TENANT_SLOTS; i++)
		if (dev->slot[i])
			take_place(d, dev->slot[i]);
	learn_context(d, dev);
	take_outside(d, dev, r);
	for (unsigned i = 0; i < PEN_TENANT_SLOTS; i++)
		if (dev->slot[i])
			put_in_force(d, dev->slot[i]);
	pen_audit_unknown(d, dev);
}

void pen_audit_take(struct pen_daemon *d, const json_t *devices)
{
	static struct pen_reading_device r;   /* large; main thread alone */
	size_t i;
	json_t *o;
	json_array_foreach(devices, i, o) {
		struct pen_device *dev = pen_reading_device(o, &r) < 0 ? NULL : pen_device_find(d, r.key);
		if (dev && dev->state != PEN_DEVICE_UNPROBED)
			take_device(d, dev, &r);
	}
}

void pen_audit_free(struct pen_device *dev)
{
	if (dev->audit)
		free(dev->audit->last);
	free(dev->audit);
	dev->audit = NULL;
}
