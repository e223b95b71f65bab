/* SPDX-License-Identifier: Apache-2.0 */
/* What the audit knows, as JSON and as metrics. A figure that the library does not tell is null, or no sample. */
#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "daemon/api.h"
#include "daemon/audit.h"
#include "daemon/watch.h"

#include <string.h>

static json_t *ppm(int32_t percent)
{
	return percent == PEN_READING_NONE ? json_null() : json_integer((json_int_t)percent * (PEN_PPM / 100));
}

static json_t *figure(int32_t v)
{
	return v == PEN_READING_NONE ? json_null() : json_integer(v);
}

static json_t *process_json(const struct pen_audit_process *p, uint64_t now_ns)
{
	json_t *o = json_pack("{s:i, s:s, s:o}", "pid", (int)p->r.pid, "comm", p->comm, "uid",
			      p->uid == (uid_t)-1 ? json_null() : json_integer((json_int_t)p->uid));
	json_object_set_new(o, "mem_bytes", p->r.has_mem ? pen_json_u64(p->r.mem_bytes) : json_null());
	json_object_set_new(o, "sm_ppm", ppm(p->r.sm_util));
	json_object_set_new(o, "since_ns", pen_json_u64(now_ns - p->since_ns));
	json_object_set_new(o, "sent", p->kill_ns ? json_string("SIGKILL") : p->term_ns ? json_string("SIGTERM") : json_null());
	return o;
}

static void add_reading(json_t *o, const struct pen_audit *a)
{
	const struct pen_reading_device *r = a->last;
	json_object_set_new(o, "mem_used_bytes", r->has_used ? pen_json_u64(r->mem_used_bytes) : json_null());
	json_object_set_new(o, "gpu_ppm", ppm(r->gpu_util));
	json_object_set_new(o, "mem_ppm", ppm(r->mem_util));
	json_object_set_new(o, "enc_ppm", ppm(r->enc_util));
	json_object_set_new(o, "dec_ppm", ppm(r->dec_util));
	json_object_set_new(o, "temperature_c", figure(r->temperature_c));
	json_object_set_new(o, "power_mw", figure(r->power_mw));
	json_object_set_new(o, "xid", figure(r->xid));
}

json_t *pen_audit_json(const struct pen_daemon *d, const struct pen_device *dev)
{
	struct pen_watch_status w;
	const struct pen_audit *a = dev->audit;
	if (!pen_watch_status(d, &w) || !a || !a->last)
		return json_null();
	uint64_t now = pen_mono_ns();
	json_t *o = json_pack("{s:b, s:o, s:b, s:i, s:i, s:i}", "watched", w.runs, "age_ns", pen_json_u64(now - a->at_ns), "complete",
			      a->complete, "processes", (int)a->n_processes, "unknown_processes", (int)a->n_unknown, "left_out",
			      (int)a->n_left_out);
	add_reading(o, a);
	json_object_set_new(o, "mem_outside_bytes", pen_json_u64(a->outside.bytes));
	json_object_set_new(o, "mem_unknown_bytes", pen_json_u64(a->unknown_bytes));
	json_object_set_new(o, "mem_unexplained_bytes", pen_json_u64(a->unexplained_bytes));
	json_t *list = json_array();
	for (unsigned i = 0; i < a->n_processes; i++)
		if (a->process[i].kind == PEN_AUDIT_UNKNOWN)
			json_array_append_new(list, process_json(&a->process[i], now));
	json_object_set_new(o, "unknown", list);
	return o;
}

void pen_audit_place_json(const struct pen_place *p, json_t *o)
{
	const struct pen_place_audit *v = &p->audit;
	json_object_set_new(o, "mem_overhead_bytes", pen_json_u64(p->overhead_bytes));
	json_object_set_new(o, "mem_overhead_peak_bytes", pen_json_u64(p->overhead_peak_bytes));
	json_object_set_new(o, "mem_device_bytes", v->known && v->n_processes ? pen_json_u64(v->device_bytes) : json_null());
	json_object_set_new(o, "sm_ppm", ppm(v->sm_util));
	json_object_set_new(o, "enc_ppm", ppm(v->enc_util));
	json_object_set_new(o, "dec_ppm", ppm(v->dec_util));
}

json_t *pen_audit_client_json(const struct pen_seat *s)
{
	const struct pen_audit *a = s->place->device->audit;
	for (unsigned i = 0; a && i < a->n_processes; i++)
		if (a->process[i].r.pid == s->client->peer.pid && a->process[i].r.has_mem)
			return pen_json_u64(a->process[i].r.mem_bytes);
	return json_null();
}
