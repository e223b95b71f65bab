/* SPDX-License-Identifier: Apache-2.0 */
#include "base/auto.h"
#include "base/clock.h"
#include "board/feature.h"
#include "daemon/api.h"
#include "daemon/drain.h"
#include "daemon/store.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_t *store_json(struct pen_daemon *d)
{
	struct pen_store_stats s = { 0 };
	pen_store_stats(d, &s);
	json_t *o = json_pack("{s:o, s:o, s:o, s:o, s:o, s:i, s:b}", "written", pen_json_u64(s.written), "dropped",
			 pen_json_u64(s.dropped), "left_out", pen_json_u64(s.left_out), "errors", pen_json_u64(s.errors), "bytes", pen_json_u64(s.bytes), "queued",
			 (int)s.queued, "stalled", s.stalled);
	bool fails = s.failing_since > 0;
	json_object_set_new(o, "ok", json_boolean(!fails));
	json_object_set_new(o, "open", json_boolean(d->store));
	json_object_set_new(o, "failing_since", fails ? json_real(s.failing_since) : json_null());
	json_object_set_new(o, "error", fails ? json_string(s.why) : json_null());
	return o;
}

int pen_api_version(struct pen_api_call *call)
{
	struct pen_daemon *d = call->d;
	struct pen_table *t = d->table;
	char boot[33];
	for (unsigned i = 0; i < sizeof(d->boot); i++)
		snprintf(boot + 2 * i, 3, "%02x", d->boot[i]);
	json_t *o = json_pack("{s:s, s:i, s:i, s:i, s:b, s:f, s:s, s:s, s:s}", "version", PEN_VERSION, "major",
			      PEN_BOARD_MAJOR, "minor", PEN_BOARD_MINOR, "pid", (int)getpid(), "private", d->opt.is_private,
			      "started", d->started, "boot_id", boot, "tick_sched",
			      pen_tick_sched_name(atomic_load(&t->sched)), "runtime_dir", d->cfg.runtime_dir);
	json_object_set_new(o, "probing", json_boolean(pen_probe_running(d)));
	json_object_set_new(o, "tick", json_pack("{s:o, s:o, s:o, s:o, s:o}", "tick_ns", pen_json_u64(t->tick_ns), "lease_ns",
						 pen_json_u64(t->lease_ns), "ticks", pen_json_u64(atomic_load(&t->ticks)),
						 "late", pen_json_u64(atomic_load(&t->late)), "longest_ns",
						 pen_json_u64(atomic_load(&t->longest_ns))));
	json_object_set_new(o, "store", store_json(d));
	json_t *features = json_object();
	uint32_t have = pen_board_features();
#define X(id, name, since, without) json_object_set_new(features, name, json_boolean(have & PEN_FEATURE_##id));
	PEN_BOARD_FEATURES(X)
#undef X
	json_object_set_new(o, "features", features);
	return pen_api_answer(call, 200, o);
}

static json_t *apis_json(const struct pen_device *dev)
{
	json_t *list = json_array();
	for (unsigned i = 0; i < dev->n_apis; i++) {
		const struct pen_device_api *a = &dev->api[i];
		if (!*a->name)
			continue;
		json_t *o = json_pack("{s:s, s:s, s:i, s:b}", "name", a->name, "driver", a->driver, "units", (int)a->units,
				      "mem_counts", a == pen_device_mem_api(dev));
		json_object_set_new(o, "mem_bytes", a->mem_bytes ? pen_json_u64(a->mem_bytes) : json_null());
		json_array_append_new(list, o);
	}
	return list;
}

json_t *pen_api_device_json(struct pen_daemon *d, const struct pen_device *dev)
{
	uint64_t guaranteed = 0, used = 0, overhead = 0, ppm = 0;
	int tenants = 0;
	for (const struct pen_tenant *t = d->tenants; t; t = t->hh.next) {
		if (!(t->covers >> dev->index & 1))
			continue;
		const struct pen_contract *c = &t->contract;
		tenants++;
		guaranteed += c->memory.guaranteed;
		ppm += c->cls == PEN_CLASS_LATENCY ? PEN_MAX((uint64_t)c->duty_ppm, c->compute.guaranteed) :
						     c->compute.guaranteed;
		if (t->place[dev->index]) {
			used += pen_place_mem_used(t->place[dev->index]);
			overhead += t->place[dev->index]->overhead_bytes;
		}
	}
	char id[20];
	snprintf(id, sizeof(id), "%016llx", (unsigned long long)dev->id);
	json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i}", "key", dev->key, "id", id, "model",
			      dev->model, "api", dev->n_apis ? dev->api[0].name : "", "state", pen_device_state_name(dev), "mode",
			      pen_mode_name(dev->policy.mode), "order", pen_order_name(dev->policy.order), "units",
			      (int)dev->units, "tenants", tenants);
	json_object_set_new(o, "apis", apis_json(dev));
	const struct pen_tenant *exclusive = pen_exclusive_on(dev);
	json_object_set_new(o, "exclusive", exclusive ? json_string(exclusive->name) : json_null());
	json_object_set_new(o, "share", json_string(pen_share_name(dev->policy.share)));
	json_object_set_new(o, "rate", json_string(pen_rate_name(dev->policy.rate)));
	json_object_set_new(o, "quantum_ns", pen_json_u64(dev->policy.quantum_ns));
	json_object_set_new(o, "mem_bytes", dev->mem_bytes ? pen_json_u64(dev->mem_bytes) : json_null());
	json_object_set_new(o, "mem_reserve_bytes", pen_json_u64(dev->policy.reserve));
	json_object_set_new(o, "mem_guaranteed_bytes", pen_json_u64(guaranteed));
	json_object_set_new(o, "mem_used_bytes", pen_json_u64(used));
	json_object_set_new(o, "mem_overhead_bytes", pen_json_u64(overhead));
	json_object_set_new(o, "compute_guaranteed_ppm", pen_json_u64(ppm));
	json_object_set_new(o, "busy_ppm", pen_json_u64(dev->busy_ppm));
	json_object_set_new(o, "clients", json_integer(pen_drain_clients(dev)));
	json_object_set_new(o, "drained_since", dev->drained ? json_real(dev->drained_since) : json_null());
	json_object_set_new(o, "released", json_boolean(pen_drain_is_released(d, dev)));
	json_object_set_new(o, "audit", pen_audit_json(d, dev));
	return o;
}

int pen_api_devices(struct pen_api_call *call)
{
	json_t *list = json_array();
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		if (call->d->device[i])
			json_array_append_new(list, pen_api_device_json(call->d, call->d->device[i]));
	return pen_api_answer(call, 200, json_pack("{s:o, s:b}", "devices", list, "probing", pen_probe_running(call->d)));
}

json_t *pen_api_event_json(const struct pen_event_row *row)
{
	return json_pack("{s:o, s:f, s:s, s:s, s:s, s:s}", "id", pen_json_u64(row->id), "time", row->time, "kind",
			 row->kind, "tenant", row->tenant, "device", row->device, "text", row->text);
}

/* With ?since= those after it, oldest first; without, the newest. */
int pen_api_events(struct pen_api_call *call)
{
	uint64_t limit = pen_api_query_u64(call, "limit", 100), last = pen_events_last(call->d);
	uint64_t since = pen_api_query_u64(call, "since", last > limit ? last - limit : 0);
	limit = PEN_MIN(limit, UINT64_C(1024));
	json_t *list = json_array();
	const struct pen_event_row *row;
	while (json_array_size(list) < limit && (row = pen_events_next(call->d, since))) {
		json_array_append_new(list, pen_api_event_json(row));
		since = row->id;
	}
	return pen_api_answer(call, 200, json_pack("{s:o, s:o}", "events", list, "last", pen_json_u64(last)));
}

int pen_api_integrations(struct pen_api_call *call)
{
	return pen_api_answer(call, 200, json_pack("{s:o}", "integrations", pen_services_status(call->d)));
}

int pen_api_config(struct pen_api_call *call)
{
	pen_auto_free char *text = NULL;
	size_t len = 0;
	FILE *mem = open_memstream(&text, &len);
	if (!mem)
		return -1;
	int r = pen_config_print(&call->d->cfg, mem);
	if (fclose(mem) != 0 || r < 0)
		return -1;
	return pen_api_answer(call, 200, json_pack("{s:s}", "yaml", text));
}

int pen_api_config_reload(struct pen_api_call *call)
{
	struct pen_diff diff = { 0 };
	struct pen_err err = PEN_ERR_INIT;
	if (pen_daemon_reload(call->d, &diff, &err) < 0)
		return pen_api_error(call, 400, "config-invalid", "%s", err.text);
	json_t *list = json_array();
	for (size_t i = 0; i < diff.n; i++)
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:b}", "what", diff.v[i].what, "from", diff.v[i].from,
						      "to", diff.v[i].to, "restart", diff.v[i].restart));
	pen_diff_clear(&diff);
	return pen_api_answer(call, 200, json_pack("{s:o}", "changes", list));
}

int pen_api_metrics(struct pen_api_call *call)
{
	call->text = pen_metrics_text(call->d);
	if (call->text && call->open_metrics) {
		char *text = pen_openmetrics_text(call->text);
		free(call->text);
		call->text = text;
		call->text_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
	}
	call->status = call->text ? 200 : 500;
	return 0;
}
