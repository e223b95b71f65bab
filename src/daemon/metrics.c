/* SPDX-License-Identifier: Apache-2.0 */
/* /metrics: Prometheus text format 0.0.4. Labels of tenants may hold anything. */
#include "base/auto.h"
#include "daemon/api.h"
#include "daemon/drain.h"
#include "daemon/service_internal.h"
#include "daemon/store.h"
#include "daemon/watch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct out {
	FILE *f;
	struct pen_daemon *d;
};

static void put_label(FILE *f, const char *key, const char *value)
{
	fprintf(f, "%s=\"", key);
	for (; *value; value++) {
		if (*value == '"' || *value == '\\' || *value == '\n')   /* a label may come from the database as it is */
			fputc('\\', f);
		fputc(*value == '\n' ? 'n' : *value, f);
	}
	fputc('"', f);
}

static void head(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP penstock_%s %s\n# TYPE penstock_%s %s\n", name, help, name, type);
}

static void put_place(FILE *f, const char *name, const struct pen_place *p, const char *extra, const char *extra_value,
		      double v)
{
	if (isnan(v))
		return;
	fprintf(f, "penstock_%s{", name);
	put_label(f, "tenant", p->tenant->name);
	fputc(',', f);
	put_label(f, "device", p->device->key);
	if (extra) {
		fputc(',', f);
		put_label(f, extra, extra_value);
	}
	static const char *const labels[] = { "namespace", "pod", "container" };   /* what else a tenant has would only add series */
	for (size_t i = 0; i < PEN_ARRAY_LEN(labels); i++) {
		const char *value = json_string_value(json_object_get(p->tenant->labels, labels[i]));
		if (!value)
			continue;
		fputc(',', f);
		put_label(f, labels[i], value);
	}
	fprintf(f, "} %.17g\n", v);
}

#define FOR_EACH_PLACE(d, p)                                                   \
	for (struct pen_tenant *t_ = (d)->tenants; t_; t_ = t_->hh.next)       \
		for (unsigned i_ = 0; i_ < PEN_DAEMON_DEVICES; i_++)           \
			if (((p) = t_->place[i_]))

/* No sample is the custom for what there is none of. */
static double limit_or_none(const struct pen_place *p)
{
	uint64_t limit = pen_place_mem_limit(p);
	return limit == PEN_UNLIMITED ? (double)NAN : (double)limit;
}

static double percent(int32_t v)
{
	return v == PEN_READING_NONE ? (double)NAN : (double)v / 100;
}

/* name, type, help, expression of p (place), t (its totals), v (the verdict). One list: what is printed is what is described. */
#define PLACE_METRICS(X)                                                                                                \
	X("memory_used_bytes", "gauge", "device memory charged to the tenant; of processes that are not back after a restart, what the database has", \
	  (double)pen_place_mem_held(p))                                                                                \
	X("memory_overhead_bytes", "gauge", "device memory of its processes beside that: contexts, modules, decode surfaces",      \
	  (double)p->overhead_bytes)                                                                                    \
	X("decoder_ratio", "gauge", "use of the device's decoder by its processes, as its library says; it is not gated",    \
	  percent(p->audit.dec_util))                                                                                   \
	X("encoder_ratio", "gauge", "use of the device's encoder by its processes, as its library says; it is not gated",    \
	  percent(p->audit.enc_util))                                                                                   \
	X("memory_limit_bytes", "gauge", "device memory that the tenant may have", limit_or_none(p))                   \
	X("denials_total", "counter", "allocations denied", (double)(p->ledger ? atomic_load(&p->ledger->denials) : 0)) \
	X("denials_lent_total", "counter", "of those: what is left is promised to or used by others",                   \
	  (double)(p->ledger ? atomic_load(&p->ledger->denials_lent) : 0))                                              \
	X("device_seconds_total", "counter", "device time charged", (double)t.device_ns / 1e9)                         \
	X("commands_total", "counter", "commands admitted", (double)t.commands)                                        \
	X("chunks_total", "counter", "pieces of commands admitted", (double)t.chunks)                                  \
	X("copied_bytes_total", "counter", "bytes moved by copies", (double)t.bytes)                                   \
	X("debts_total", "counter", "commands admitted without the wait that was due", (double)t.debts)                \
	X("uncut_total", "counter", "commands longer than the chunk target that could not be cut", (double)t.uncut)    \
	X("share_ratio", "gauge", "device time of the last second, of one device", (double)p->share_ppm_1s / 1e6)      \
	X("entitled_ratio", "gauge", "device time due to it now, of one device",                                       \
	  (double)v.entitled_ppm / 1e6)                                                \
	X("rank", "gauge", "0 is the most urgent", (double)v.rank)

static void put_places(const struct out *o)
{
	struct pen_place *p;
#define X(name, type, help, value)                             \
	head(o->f, name, type, help);                          \
	FOR_EACH_PLACE(o->d, p)                                \
	{                                                      \
		struct pen_totals t;                           \
		pen_place_totals(p, &t);                       \
		struct pen_verdict v = pen_place_verdict(o->d, p); \
		(void)t, (void)v; /* not every value needs both */ \
		put_place(o->f, name, p, NULL, NULL, (value)); \
	}
	PLACE_METRICS(X)
#undef X
}

static void put_held(const struct out *o)
{
#define HOLD_NAME(id, name, text) name,
	static const char *const hold[] = { PEN_HOLD_REASONS(HOLD_NAME) };
	struct pen_place *p;
	head(o->f, "held_seconds_total", "counter", "time that commands were held, by reason");
	FOR_EACH_PLACE(o->d, p)
	{
		struct pen_totals t;
		pen_place_totals(p, &t);
		for (unsigned k = 0; k < PEN_HOLD_MAX_; k++)   /* a reason that never came up is no series: most never do */
			if (t.held_ns[k])
				put_place(o->f, "held_seconds_total", p, "reason", hold[k], (double)t.held_ns[k] / 1e9);
	}
}

static void put_response(const struct out *o)
{
	static const struct {
		const char *name;
		uint32_t ppm;
	} q[] = { { "0.5", 500000 }, { "0.9", 900000 }, { "0.99", 990000 } };
	struct pen_place *p;
	head(o->f, "response_seconds", "summary", "response times of the last minute; sum and count of all time");
	FOR_EACH_PLACE(o->d, p)
	{
		struct pen_recent recent;
		struct pen_hist_snap all = { 0 };
		pen_place_recent(p, &recent);
		if (p->ledger)
			pen_hist_take(&p->ledger->response, &all);
		for (size_t k = 0; k < PEN_ARRAY_LEN(q); k++)
			put_place(o->f, "response_seconds", p, "quantile", q[k].name,
				  (double)pen_hist_quantile(&recent.snap, q[k].ppm) / 1e9);
		put_place(o->f, "response_seconds_sum", p, NULL, NULL, (double)all.sum_ns / 1e9);
		put_place(o->f, "response_seconds_count", p, NULL, NULL, (double)pen_hist_samples(&all));
	}
	head(o->f, "response_missed_total", "counter", "responses above the target");
	FOR_EACH_PLACE(o->d, p)
	put_place(o->f, "response_missed_total", p, NULL, NULL, p->ledger ? (double)atomic_load(&p->ledger->response.missed) : 0);
}

static const struct pen_reading_device *reading_of(const struct pen_device *dev)
{
	static const struct pen_reading_device none = { .gpu_util = PEN_READING_NONE, .enc_util = PEN_READING_NONE, .dec_util = PEN_READING_NONE,
							.temperature_c = PEN_READING_NONE, .power_mw = PEN_READING_NONE };
	return dev->audit && dev->audit->last ? dev->audit->last : &none;
}

static double scaled(int32_t v, double unit)
{
	return v == PEN_READING_NONE ? (double)NAN : (double)v * unit;
}

/* As above, of a device: dev, a (its audit; NULL where nothing is watched), r (the last reading). */
#define DEVICE_METRICS(X)                                                                                               \
	X("device_busy_ratio", "part of the last second in which a tenant had commands on the device", (double)dev->busy_ppm / 1e6) \
	X("device_memory_bytes", "memory of the device", (double)dev->mem_bytes)                                        \
	X("device_lost", "1: the device is lost", (double)(dev->state == PEN_DEVICE_LOST))                              \
	X("device_drained", "1: the device is drained, nobody new is admitted to it", (double)dev->drained)             \
	X("device_clients", "processes of tenants that are attached to the device", (double)pen_drain_clients(dev))     \
	X("device_unknown_processes", "processes that use the device and belong to no tenant", a ? (double)a->n_unknown : (double)NAN) \
	X("device_outside_bytes", "memory that no tenant has: other processes', and the driver's own", a ? (double)a->outside.bytes : (double)NAN) \
	X("device_unexplained_bytes", "of that: of no process", a ? (double)a->unexplained_bytes : (double)NAN)          \
	X("device_used_bytes", "memory in use, as the device's library says", r->has_used ? (double)r->mem_used_bytes : (double)NAN) \
	X("device_utilization_ratio", "time in which a kernel ran, as the device's library says", percent(r->gpu_util)) \
	X("device_decoder_ratio", "use of the decoder; it is not gated", percent(r->dec_util))                          \
	X("device_encoder_ratio", "use of the encoder; it is not gated", percent(r->enc_util))                          \
	X("device_temperature_celsius", "temperature", scaled(r->temperature_c, 1))                                     \
	X("device_power_watts", "power", scaled(r->power_mw, 1e-3))

static void put_device(FILE *f, const char *name, const struct pen_device *dev, double v)
{
	if (isnan(v))
		return;
	fprintf(f, "penstock_%s{", name);
	put_label(f, "device", dev->key);
	fprintf(f, "} %.17g\n", v);
}

static void put_devices(const struct out *o)
{
#define X(name, help, value)                                                    \
	head(o->f, name, "gauge", help);                                        \
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++) {                     \
		const struct pen_device *dev = o->d->device[i];                 \
		const struct pen_audit *a = dev ? dev->audit : NULL;            \
		const struct pen_reading_device *r = dev ? reading_of(dev) : NULL; \
		(void)a, (void)r; /* not every value needs both */              \
		if (dev)                                                        \
			put_device(o->f, name, dev, (value));                   \
	}
	DEVICE_METRICS(X)
#undef X
}

static void put_daemon(const struct out *o)
{
	const struct pen_table *t = o->d->table;
	struct pen_store_stats s = { 0 };
	struct pen_watch_status w;
	pen_store_stats(o->d, &s);
	const struct {
		const char *name, *type, *help;
		double v;
	} m[] = {
		{ "ticks_total", "counter", "policy ticks", (double)atomic_load(&t->ticks) },
		{ "ticks_late_total", "counter", "ticks that began a whole tick too late", (double)atomic_load(&t->late) },
		{ "tick_longest_seconds", "gauge", "longest tick so far", (double)atomic_load(&t->longest_ns) / 1e9 },
		{ "tenants", "gauge", "contracts in force or waiting", (double)HASH_COUNT(o->d->tenants) },
		{ "watch_restarts_total", "counter", "times that the process which watches devices was started again",
		  pen_watch_status(o->d, &w) ? (double)w.restarts : 0 },
		{ "store_rows_written_total", "counter", "rows written to the database", (double)s.written },
		{ "store_rows_dropped_total", "counter", "rows dropped because the disk did not follow", (double)s.dropped },
		{ "store_events_left_out_total", "counter", "events of a flood that were not written to the database", (double)s.left_out },
		{ "store_errors_total", "counter", "failed transactions, or 1: the database could not be opened", (double)s.errors },
		{ "store_ok", "gauge", "1: what was last told to the database is on disk; 0: it could not be written, or there is none",
		  s.failing_since > 0 ? 0 : 1 },
		{ "store_bytes", "gauge", "size of the database with its log", (double)s.bytes },
	};
	for (size_t i = 0; i < PEN_ARRAY_LEN(m); i++) {
		head(o->f, m[i].name, m[i].type, m[i].help);
		fprintf(o->f, "penstock_%s %.17g\n", m[i].name, m[i].v);
	}
}

char *pen_service_metrics_text(struct pen_service *s)
{
	return pen_metrics_text(s->d);
}

void pen_service_metric_head(FILE *out, const char *name, const char *type, const char *help)
{
	head(out, name, type, help);
}

void pen_service_metric(FILE *out, const char *name, const char *const *labels, double value)
{
	fprintf(out, "penstock_%s", name);
	for (size_t i = 0; labels && labels[i]; i += 2) {
		fputc(i ? ',' : '{', out);
		put_label(out, labels[i], labels[i + 1]);
	}
	fprintf(out, "%s %.17g\n", labels && labels[0] ? "}" : "", value);
}

char *pen_metrics_text(struct pen_daemon *d)
{
	pen_auto_free char *text = NULL;
	size_t len = 0;
	struct out o = { open_memstream(&text, &len), d };
	if (!o.f)
		return NULL;
	put_daemon(&o);
	put_devices(&o);
	put_places(&o);
	put_held(&o);
	put_response(&o);
	pen_services_metrics(d, o.f);
	if (fclose(o.f) != 0)
		return NULL;
	return PEN_TAKE_PTR(text);
}
