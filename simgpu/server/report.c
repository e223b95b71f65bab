/* SPDX-License-Identifier: Apache-2.0 */
/* What really happened, as JSON: for benchmarks and tests, never for policies. */
#include "base/auto.h"
#include "simgpu/server/server.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static json_t *truth_json(const struct pen_model_truth *t)
{
	return json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:I}",
			 "busy_ns", (json_int_t)t->busy_ns, "residence_ns", (json_int_t)t->residence_ns,
			 "unit_seconds", t->unit_ns / 1e9, "dram_bytes", t->dram_bytes,
			 "h2d_bytes", t->copy_bytes[PEN_MODEL_H2D], "d2h_bytes", t->copy_bytes[PEN_MODEL_D2H],
			 "d2d_bytes", t->copy_bytes[PEN_MODEL_D2D], "h2h_bytes", t->copy_bytes[PEN_MODEL_H2H],
			 "copy_ns", (json_int_t)t->copy_ns, "kernels", (json_int_t)t->kernels, "copies", (json_int_t)t->copies,
			 "commands", (json_int_t)t->commands, "longest_wait_ns", (json_int_t)t->longest_wait_ns,
			 "switches", (json_int_t)t->switches);
}

static void sum(struct pen_model_truth *to, const struct pen_model_truth *t)
{
	to->busy_ns += t->busy_ns;
	to->residence_ns += t->residence_ns;
	to->unit_ns += t->unit_ns;
	to->dram_bytes += t->dram_bytes;
	for (unsigned i = 0; i < PEN_MODEL_DIR_MAX_; i++)
		to->copy_bytes[i] += t->copy_bytes[i];
	to->copy_ns += t->copy_ns;
	to->kernels += t->kernels;
	to->copies += t->copies;
	to->commands += t->commands;
	to->switches += t->switches;
	to->longest_wait_ns = PEN_MAX(to->longest_wait_ns, t->longest_wait_ns);
}

static void contexts_of(const struct sim_account *a, struct pen_model_truth *t)
{
	struct sim_proc *p;
	struct sim_ctx *c;
	struct pen_model_truth one;
	TAILQ_FOREACH(p, &a->dev->server->procs, link)
		TAILQ_FOREACH(c, &p->contexts, link)
			if (c->account == a) {
				pen_model_context_truth(c->model, &one);
				sum(t, &one);
			}
}

static json_t *processes_json(struct sim_dev *d)
{
	json_t *list = json_array();
	struct sim_account *a;
	TAILQ_FOREACH(a, &d->server->accounts, link) {
		if (a->dev != d)
			continue;
		struct pen_model_truth t = a->past;
		contexts_of(a, &t);
		json_t *one = truth_json(&t);
		json_object_set_new(one, "pid", json_integer(a->pid));
		json_object_set_new(one, "name", json_string_nocheck(a->name));
		json_object_set_new(one, "alive", json_boolean(a->alive));
		json_object_set_new(one, "mem_bytes", json_integer((json_int_t)a->mem_bytes));
		json_object_set_new(one, "mem_peak_bytes", json_integer((json_int_t)a->mem_peak_bytes));
		json_array_append_new(list, one);
	}
	return list;
}

/* The upper end of the bucket in which the @ppm-th millionth of all lies. */
static uint64_t quantile(const struct sim_lateness *l, uint64_t ppm)
{
	uint64_t want = l->count * ppm / 1000000, seen = 0;
	for (unsigned i = 0; i < SIM_LATE_BUCKETS; i++) {
		seen += l->bucket[i];
		if (seen > want)
			return i ? (UINT64_C(1) << i) - 1 : 0;
	}
	return 0;
}

static json_t *lateness_json(const struct sim_server *s)
{
	const struct sim_lateness *l = &s->late;
	return json_pack("{s:i, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "nice", s->nice, "realtime", s->realtime, "count", (json_int_t)l->count,
			 "mean_ns", (json_int_t)(l->count ? l->sum_ns / l->count : 0),
			 "p50_ns", (json_int_t)quantile(l, 500000), "p99_ns", (json_int_t)quantile(l, 990000),
			 "most_ns", (json_int_t)l->most_ns, "effects", (json_int_t)s->late_effects,
			 "effects_ns", (json_int_t)s->late_effect_ns);
}

int sim_report(struct sim_server *s, FILE *out)
{
	json_t *devices = json_array();
	for (unsigned i = 0; i < s->devs; i++) {
		struct sim_dev *d = &s->dev[i];
		struct pen_model_truth t;
		pen_model_truth(d->model, &t);
		json_t *one = truth_json(&t);
		json_object_set_new(one, "device", json_integer(i));
		json_object_set_new(one, "name", json_string_nocheck(d->card.name));
		json_object_set_new(one, "units", json_integer(d->card.units));
		json_object_set_new(one, "mem_bytes", json_integer((json_int_t)d->told.mem_bytes));
		json_object_set_new(one, "mem_used_bytes", json_integer((json_int_t)d->used_bytes));
		json_object_set_new(one, "switch_ns", json_integer((json_int_t)t.switch_ns));
		json_object_set_new(one, "lost", json_boolean(d->lost));
		json_object_set_new(one, "processes", processes_json(d));
		json_array_append_new(devices, one);
	}
	json_t *root = json_pack("{s:s, s:s, s:f, s:I, s:o, s:o}", "schema", "simgpu/truth/v1",
				 "mode", s->concurrent ? "concurrent" : "timeslice", "scale", s->scale,
				 "commands", (json_int_t)s->commands, "lateness", lateness_json(s), "devices", devices);
	int r = !root || json_dumpf(root, out, JSON_COMPACT) < 0 ? -ENOMEM : 0;
	json_decref(root);
	return r;
}

void sim_report_reset(struct sim_server *s)
{
	struct sim_account *a, *next;
	for (unsigned i = 0; i < s->devs; i++) {
		pen_model_truth_reset(s->dev[i].model);
		s->dev[i].busy_before_ns = 0;
		s->dev[i].dram_before = s->dev[i].copied_before = 0;
	}
	for (a = TAILQ_FIRST(&s->accounts); a; a = next) {
		next = TAILQ_NEXT(a, link);
		if (!a->alive) {
			TAILQ_REMOVE(&s->accounts, a, link);
			free(a);
			continue;
		}
		memset(&a->past, 0, sizeof(a->past));
		a->mem_peak_bytes = a->mem_bytes;
		a->busy_before_ns = 0;
	}
	s->dead_accounts = 0;
	s->commands = 0;
	s->late_effects = s->late_effect_ns = 0;
	memset(&s->late, 0, sizeof(s->late));
}
