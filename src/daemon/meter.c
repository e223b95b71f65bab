/* SPDX-License-Identifier: Apache-2.0 */
/* Once a second: shares of the last second, snapshots of the response times, a row of usage when a minute is over. */
#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "daemon/daemon.h"
#include "daemon/http.h"
#include "daemon/store.h"

#include <stdlib.h>
#include <string.h>

#define RECENT_NS (10 * PEN_S)
/* Neighbours pass it over after 60 ms, which one long kernel takes; what stands still for so long asks for a look. */
#define TELL_STALE_NS (3 * PEN_S)

static uint32_t ppm(uint64_t part, uint64_t whole)
{
	return whole ? (uint32_t)PEN_MIN(part / (whole / PEN_PPM + 1), (uint64_t)UINT32_MAX) : 0;
}

static void sample_share(struct pen_place *p, const struct pen_totals *t, uint64_t now_ns)
{
	if (p->sample_ns && now_ns > p->sample_ns)
		p->share_ppm_1s = ppm(t->device_ns > p->sample_device_ns ? t->device_ns - p->sample_device_ns : 0,
				      now_ns - p->sample_ns);
	p->sample_ns = now_ns;
	p->sample_device_ns = t->device_ns;
}

static void keep_recent(struct pen_place *p, uint64_t now_ns)
{
	struct pen_recent *newest = p->recent[(p->recent_at + PEN_RECENT_SLOTS - 1) % PEN_RECENT_SLOTS];
	if (!p->ledger || (newest && now_ns - newest->at_ns < RECENT_NS))
		return;
	struct pen_recent **slot = &p->recent[p->recent_at];
	if (!*slot)
		*slot = malloc(sizeof(**slot));
	if (!*slot)
		return;
	(*slot)->at_ns = now_ns;
	pen_hist_take(&p->ledger->response, &(*slot)->snap);
	p->recent_at = (p->recent_at + 1) % PEN_RECENT_SLOTS;
}

void pen_place_recent(const struct pen_place *p, struct pen_recent *ret)
{
	*ret = (struct pen_recent){ .at_ns = pen_mono_ns() };
	if (!p->ledger)
		return;
	/* The newest snapshot that is a minute old; a younger tenant's oldest one; none: since its beginning. */
	const struct pen_recent *before = NULL;
	for (unsigned i = 0; i < PEN_RECENT_SLOTS; i++) {
		const struct pen_recent *r = p->recent[i];
		if (r && ret->at_ns - r->at_ns >= 60 * PEN_S && (!before || r->at_ns > before->at_ns))
			before = r;
	}
	pen_hist_take(&p->ledger->response, &ret->snap);
	if (before)
		pen_hist_delta(&ret->snap, &before->snap, &ret->snap);
}

static uint64_t held_sum(const struct pen_totals *t)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < PEN_HOLD_MAX_; i++)
		sum += t->held_ns[i];
	return sum;
}

static void end_minute(struct pen_daemon *d, struct pen_place *p, const struct pen_totals *now, uint64_t minute)
{
	struct pen_usage_row u = { .minute = minute };
	snprintf(u.tenant, sizeof(u.tenant), "%s", p->tenant->name);
	snprintf(u.device, sizeof(u.device), "%s", p->device->key);
	u.device_ns = now->device_ns - PEN_MIN(now->device_ns, p->minute.device_ns);
	u.commands = now->commands - PEN_MIN(now->commands, p->minute.commands);
	u.bytes = now->bytes - PEN_MIN(now->bytes, p->minute.bytes);
	u.held_ns = held_sum(now) - PEN_MIN(held_sum(now), held_sum(&p->minute));
	u.mem_peak_bytes = p->minute_peak_bytes;
	p->minute = *now;
	p->minute_peak_bytes = 0;
	if (!p->usage)
		p->usage = calloc(PEN_USAGE_MINUTES, sizeof(*p->usage));
	if (p->usage)
		p->usage[p->usage_n++ % PEN_USAGE_MINUTES] = u;
	/* A minute without anything is not worth a write to flash. */
	if (d->store && (u.commands || u.mem_peak_bytes || u.held_ns))
		pen_store_usage(d->store, &u);
}

/* Once for a run of refusals: a program that tries again and again must not push other events out. */
#define REFUSED_AGAIN_NS (60 * PEN_S)

static void tell_refused(struct pen_daemon *d, struct pen_place *p, uint64_t now_ns)
{
	uint64_t n = p->ledger ? atomic_load_explicit(&p->ledger->denials_lent, memory_order_relaxed) : 0;
	if (n != p->lent_denials && n) {
		if (!p->lent_denied_ns || now_ns - p->lent_denied_ns > REFUSED_AGAIN_NS)
			pen_event(d, PEN_EVENT_MEMORY_REFUSED, p->tenant, p->device,
				  "memory within its contract was refused: what is left is promised to other tenants or in use by them");
		p->lent_denied_ns = now_ns;
	}
	p->lent_denials = n;
}

static void meter_place(struct pen_daemon *d, struct pen_place *p, uint64_t now_ns, uint64_t minute)
{
	struct pen_totals t;
	pen_place_totals(p, &t);
	sample_share(p, &t, now_ns);
	keep_recent(p, now_ns);
	tell_refused(d, p, now_ns);
	uint64_t used = p->ledger ? pen_place_mem_used(p) : 0;
	p->minute_peak_bytes = PEN_MAX(p->minute_peak_bytes, used);
	if (!p->minute_nr)
		p->minute_nr = minute;
	if (minute != p->minute_nr) {
		end_minute(d, p, &t, p->minute_nr);
		p->minute_nr = minute;
	}
}

static void meter_device(struct pen_daemon *d, struct pen_device *dev)
{
	pen_lock(&d->table->lock);
	uint64_t busy = dev->table->busy_ns, seen = dev->table->seen_ns;
	pen_unlock(&d->table->lock);
	dev->busy_ppm = ppm(busy - dev->sample_busy_ns, seen - dev->sample_seen_ns);
	dev->sample_busy_ns = busy;
	dev->sample_seen_ns = seen;
	for (unsigned i = 0; i < PEN_SEATS; i++) {
		struct pen_seat *s = dev->seat[i];
		bool stale = s && pen_seat_still_ns(d, s) >= TELL_STALE_NS;
		if (s)
			pen_seat_keep(d, s);
		if (s && stale && !s->told_stale)
			pen_event(d, PEN_EVENT_CLIENT_STALE, s->place->tenant, dev,
				  "process %d has said for %llu s that it is busy and made no progress; nobody waits on it",
				  (int)s->client->peer.pid, (unsigned long long)(TELL_STALE_NS / PEN_S));
		if (s)
			s->told_stale = stale;
	}
}

/* Allocations that were stopped because the limit was lowered below use go on once it fits. */
static void maybe_resume(struct pen_daemon *d, struct pen_tenant *t)
{
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		if (t->place[i] && pen_place_mem_held(t->place[i]) + t->place[i]->overhead_bytes > t->contract.memory.cap)
			return;
	t->stop_alloc = false;
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		if (t->place[i])
			pen_place_publish(d, t->place[i]);
}

void pen_meter_second(struct pen_daemon *d)
{
	uint64_t now = pen_mono_ns(), minute = (uint64_t)pen_unix_now() / 60;
	bool waits = false;
	for (struct pen_tenant *t = d->tenants; t; t = t->hh.next) {
		for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
			if (t->place[i])
				meter_place(d, t->place[i], now, minute);
		if (t->stop_alloc)
			maybe_resume(d, t);
		pen_exclusive_second(d, t);
		waits |= t->state == PEN_TENANT_WAITING;
	}
	if (waits)
		pen_tenant_admit_waiting(d);   /* memory that others borrowed comes back without a word */
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		if (d->device[i])
			meter_device(d, d->device[i]);
	pen_http_second(d);
}
