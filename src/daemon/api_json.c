/* SPDX-License-Identifier: Apache-2.0 */
/* A tenant as JSON: numbers of its pages, which its clients write and which are shown as they are. */
#include "base/auto.h"
#include "base/clock.h"
#include "daemon/api.h"

#include <string.h>

#define HOLD_NAME(id, name, text) name,
static const char *const hold_name[] = { PEN_HOLD_REASONS(HOLD_NAME) };

static void set_u64(json_t *o, const char *key, uint64_t v)
{
	json_object_set_new(o, key, pen_json_u64(v));
}

/* A tenant's bytes: text from a process. */
static json_t *printable_string(const char *text, size_t n)
{
	char buf[64];
	size_t i = 0;
	for (; i < n && i < sizeof(buf) - 1 && text[i]; i++)
		buf[i] = (unsigned char)text[i] < 0x20 || (unsigned char)text[i] >= 0x7f ? '?' : text[i];
	buf[i] = 0;
	return json_string(buf);
}

/* The current hold of a client; JSON null if it is not held. */
static json_t *hold_json(const struct pen_seat *s)
{
	const struct pen_ledger_client *c = &s->place->ledger->client[s->index];
	uint32_t reason = atomic_load_explicit(&c->hold_reason, memory_order_relaxed);
	uint32_t seat = atomic_load_explicit(&c->hold_seat, memory_order_relaxed);
	uint64_t since = atomic_load_explicit(&c->hold_since_ns, memory_order_relaxed), now = pen_mono_ns();
	if (!reason || reason > PEN_HOLD_MAX_)
		return json_null();
	json_t *o = json_pack("{s:s}", "reason", hold_name[reason - 1]);
	set_u64(o, "since_ns", since && since < now ? now - since : 0);
	const struct pen_seat *by = seat < PEN_SEATS ? s->place->device->seat[seat] : NULL;
	json_object_set_new(o, "seat", by ? json_integer(seat) : json_null());
	json_object_set_new(o, "tenant", by ? json_string(by->place->tenant->name) : json_null());
	return o;
}

static json_t *client_json(struct pen_daemon *d, const struct pen_seat *s)
{
	static const char *const busy_name[] = { "idle", "want", "claim", "run" };
	const struct pen_ledger_client *c = &s->place->ledger->client[s->index];
	uint32_t word = atomic_load_explicit(&s->signal->busy, memory_order_relaxed);
	json_t *o = json_pack("{s:i, s:i, s:s, s:b}", "pid", (int)s->client->peer.pid, "seat", (int)s->seat, "busy",
			      busy_name[PEN_BUSY_STATE(word)], "stale", pen_seat_stale(d, s));
	json_object_set_new(o, "comm", printable_string(s->client->comm, sizeof(s->client->comm)));
	set_u64(o, "charged_bytes", atomic_load_explicit(&c->charged_bytes, memory_order_relaxed));
	json_object_set_new(o, "mem_device_bytes", pen_audit_client_json(s));
	set_u64(o, "device_ns", atomic_load_explicit(&c->device_ns, memory_order_relaxed));
	set_u64(o, "objects", atomic_load_explicit(&c->objects, memory_order_relaxed));
	json_object_set_new(o, "hold", hold_json(s));
	return o;
}

static json_t *quantiles_json(const struct pen_hist_snap *snap)
{
	json_t *o = json_object();
	set_u64(o, "count", pen_hist_samples(snap));
	set_u64(o, "missed", snap->missed);
	set_u64(o, "p50_ns", pen_hist_quantile(snap, 500000));
	set_u64(o, "p90_ns", pen_hist_quantile(snap, 900000));
	set_u64(o, "p99_ns", pen_hist_quantile(snap, 990000));
	set_u64(o, "max_ns", pen_hist_quantile(snap, 1000000));
	return o;
}

static json_t *response_json(const struct pen_place *p)
{
	struct pen_hist_snap all = { 0 };
	struct pen_recent recent;
	if (p->ledger)
		pen_hist_take(&p->ledger->response, &all);
	pen_place_recent(p, &recent);
	json_t *o = quantiles_json(&all);
	set_u64(o, "marked", p->ledger ? atomic_load_explicit(&p->ledger->marked, memory_order_relaxed) : 0);
	json_object_set_new(o, "recent", quantiles_json(&recent.snap));
	return o;
}

static void add_totals(json_t *o, const struct pen_totals *t)
{
#define X(name) set_u64(o, #name, t->name);
	PEN_TOTALS(X)
#undef X
	set_u64(o, "max_command_ns", t->max_command_ns);
	json_t *held = json_object();
	for (unsigned i = 0; i < PEN_HOLD_MAX_; i++)
		set_u64(held, hold_name[i], t->held_ns[i]);
	json_object_set_new(o, "held_ns", held);
}

static json_t *place_json(struct pen_daemon *d, const struct pen_place *p)
{
	const struct pen_device *dev = p->device;
	struct pen_verdict v = pen_place_verdict(d, p);
	json_t *o = json_pack("{s:s, s:s, s:i, s:i, s:b}", "key", dev->key, "model", dev->model, "slot", (int)p->slot,
			      "rank", (int)v.rank, "waits_for_clients", pen_place_waits(p));
	struct pen_totals totals;
	pen_place_totals(p, &totals);
	add_totals(o, &totals);
	set_u64(o, "mem_used_bytes", pen_place_mem_used(p));
	json_object_set_new(o, "mem_used_assumed", json_boolean(!p->ledger && pen_place_waits(p)));
	set_u64(o, "mem_peak_bytes",
		p->ledger ? atomic_load_explicit(&p->ledger->mem_peak_bytes, memory_order_relaxed) : 0);
	if (p->ledger) {
		set_u64(o, "denials", atomic_load_explicit(&p->ledger->denials, memory_order_relaxed));
		set_u64(o, "mem_denied_bytes", atomic_load_explicit(&p->ledger->denied_bytes, memory_order_relaxed));
		set_u64(o, "denials_lent", atomic_load_explicit(&p->ledger->denials_lent, memory_order_relaxed));
	}
	pen_audit_place_json(p, o);
	uint64_t limit = pen_place_mem_limit(p);
	json_object_set_new(o, "mem_limit_bytes", limit == PEN_UNLIMITED ? json_null() : pen_json_u64(limit));
	set_u64(o, "share_ppm_1s", p->share_ppm_1s);
	set_u64(o, "entitled_ppm", v.entitled_ppm);
	uint64_t service = 0;
	json_t *clients = json_array();
	for (unsigned i = 0; i < PEN_SEATS; i++) {
		const struct pen_seat *s = dev->seat[i];
		if (!s || s->place != p || !p->ledger)
			continue;
		service += atomic_load_explicit(&s->signal->service_vns, memory_order_relaxed);
		json_array_append_new(clients, client_json(d, s));
	}
	set_u64(o, "service_vns", service);
	json_object_set_new(o, "response", response_json(p));
	json_object_set_new(o, "clients", clients);
	return o;
}

json_t *pen_api_tenant_json(struct pen_daemon *d, const struct pen_tenant *t)
{
	json_t *o = json_pack("{s:s, s:s, s:o, s:f, s:I, s:s, s:b}", "name", t->name, "state",
			      pen_tenant_state_name(t->state), "contract", pen_contract_to_json(&t->contract), "created",
			      t->created, "owner_uid", (json_int_t)t->owner_uid, "dir", t->dir, "ephemeral",
			      t->ephemeral || t->watch_pid);
	char seat[sizeof(t->dir) + 32];
	pen_tenant_seat_dir(t, seat, sizeof(seat));
	json_object_set_new(o, "mount_dir", json_string(seat));
	json_object_set_new(o, "exclusive_ns", pen_exclusive_now(t) ? pen_json_u64(t->exclusive_until_ns - pen_mono_ns()) : json_null());
	json_t *devices = json_array();
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		if (t->place[i])
			json_array_append_new(devices, place_json(d, t->place[i]));
	json_object_set_new(o, "devices", devices);
	json_t *held_on = json_array();
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		if (d->device[i] && t->covers >> i & 1)
			json_array_append_new(held_on, json_string(d->device[i]->key));
	json_object_set_new(o, "held_on", held_on);
	json_object_set_new(o, "owner", *t->owner ? json_string(t->owner) : json_null());
	json_object_set_new(o, "lapsed", json_boolean(t->lapsed));
	json_object_set_new(o, "labels", t->labels ? json_copy(t->labels) : json_object());
	return o;
}
