/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock why: what a tenant was held by during a while, and what holds it now. The daemon's account tells for how long; what
 * it waited for is known at each look alone, so it is looked at often.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/target.h"

#include <string.h>
#include <time.h>

#define LOOK_NS (20 * PEN_MS)
#define FOR_DEFAULT PEN_S
#define FOR_MAX (3600 * PEN_S)

struct why {
	const char *name;
	uint64_t for_ns, elapsed_ns;
	json_t *before, *after;   /* the tenant */
	json_t *first, *last;     /* its holds at the first and the last look */
	json_t *told;             /* the last look at which there was one; NULL: there was none */
	bool told_names;
	json_t *by;               /* "device reason" -> tenant -> looks */
};

static void forget(struct why *w)
{
	json_decref(w->before);
	json_decref(w->after);
	json_decref(w->first);
	json_decref(w->last);
	json_decref(w->told);
	json_decref(w->by);
	w->told_names = false;
	w->before = w->after = w->first = w->last = w->told = w->by = NULL;
}

static const char *slot(char *buf, size_t n, const char *device, const char *reason)
{
	snprintf(buf, n, "%s %s", reason, device);
	return buf;
}

static void note_look(struct why *w, json_t *answer)
{
	size_t i;
	json_t *h, *holds = json_object_get(answer, "holds");
	char key[256];
	bool names = false;
	json_array_foreach(holds, i, h) {
		const char *by = pen_json_str(h, "by");
		names |= *by;
		slot(key, sizeof(key), pen_json_str(h, "device"), pen_json_str(h, "reason"));
		json_t *who = json_object_get(w->by, key);
		if (!who)
			json_object_set_new(w->by, key, who = json_object());
		json_object_set_new(who, by, json_integer(pen_json_int(who, by) + 1));
	}
	if (json_array_size(holds) && (names || !w->told_names)) {   /* its suggestion says whom, then */
		json_decref(w->told);
		w->told_names = names;
		w->told = json_incref(answer);
	}
	if (!w->first)
		w->first = json_incref(answer);
	json_decref(w->last);
	w->last = answer;
}

/* A contract that is not in force yet: nothing of it moves. */
static bool waits(const struct why *w)
{
	return !strcmp(pen_json_str(w->before, "state"), "waiting");
}

static int look(struct pen_cli *cli, struct why *w)
{
	int code;
	w->by = json_object();
	w->before = pen_cli_get_tenant(cli, w->name, "", &code);
	uint64_t began = pen_mono_ns();
	while (code == PEN_EXIT_OK) {
		json_t *answer = pen_cli_get_tenant(cli, w->name, "/why", &code);
		if (answer)
			note_look(w, answer);
		w->elapsed_ns = pen_mono_ns() - began;
		if (!answer || w->elapsed_ns >= w->for_ns || waits(w))
			break;
		uint64_t left = PEN_MIN(LOOK_NS, w->for_ns - w->elapsed_ns);
		nanosleep(&(struct timespec){ .tv_sec = (time_t)(left / PEN_S), .tv_nsec = (long)(left % PEN_S) }, NULL);
	}
	if (code == PEN_EXIT_OK)
		w->after = pen_cli_get_tenant(cli, w->name, "", &code);
	return code;
}

static const json_t *device_of(const json_t *tenant, const char *key)
{
	size_t i;
	json_t *dev;
	json_array_foreach(json_object_get(tenant, "devices"), i, dev)
		if (!strcmp(pen_json_str(dev, "key"), key))
			return dev;
	return NULL;
}

/* How long the holds of one reason had lasted at one look; of those that began within the last @within_ns. */
static uint64_t lasted(const json_t *answer, const char *device, const char *reason, uint64_t within_ns)
{
	size_t i;
	uint64_t sum = 0;
	json_t *h;
	json_array_foreach(json_object_get(answer, "holds"), i, h)
		if (!strcmp(pen_json_str(h, "device"), device) && !strcmp(pen_json_str(h, "reason"), reason))
			sum += PEN_MIN((uint64_t)pen_json_int(h, "since_ns"), within_ns);
	return sum;
}

/*
 * A hold is counted when it ends, and wholly: what had lasted before the first look is taken off, what lasts still is added.
 * One that lasted all the time was in both.
 */
static uint64_t held(const struct why *w, const char *device, const char *reason, long long now)
{
	const json_t *old = json_object_get(device_of(w->before, device), "held_ns");
	uint64_t counted = (uint64_t)(now - pen_json_int(old, reason));
	uint64_t earlier = lasted(w->first, device, reason, UINT64_MAX), still = lasted(w->last, device, reason, w->elapsed_ns);
	uint64_t clients = PEN_MAX(json_array_size(json_object_get(device_of(w->after, device), "clients")), (size_t)1);
	counted = counted > earlier ? counted - earlier : 0;
	return PEN_MIN(counted + still, clients * w->elapsed_ns);
}

/* Whom it waited for at most looks; "": nobody in particular. */
static const char *mostly_by(const struct why *w, const char *device, const char *reason)
{
	char key[256];
	const char *who, *most = "";
	long long best = 0;
	json_t *n;
	json_object_foreach(json_object_get(w->by, slot(key, sizeof(key), device, reason)), who, n) {
		if (!*who || json_integer_value(n) <= best)   /* not every look finds who it is */
			continue;
		best = json_integer_value(n);
		most = who;
	}
	return most;
}

/* What it was held by: array of {device, reason, text, held_ns, by}. */
static json_t *add_up(const struct why *w)
{
	json_t *list = json_array(), *dev, *v;
	const json_t *texts = json_object_get(w->last, "reasons");
	const char *reason;
	size_t i;
	json_array_foreach(json_object_get(w->after, "devices"), i, dev) {
		const char *key = pen_json_str(dev, "key");
		json_object_foreach(json_object_get(dev, "held_ns"), reason, v) {
			uint64_t ns = w->for_ns ? held(w, key, reason, json_integer_value(v)) : 0;
			const char *text = pen_json_str(texts, reason);
			if (ns)
				json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I, s:s}", "device", key, "reason", reason, "text",
								      *text ? text : reason, "held_ns", (json_int_t)ns, "by",
								      mostly_by(w, key, reason)));
		}
	}
	return list;
}

/* Has a process of it a device? */
static bool is_used(const json_t *tenant)
{
	size_t i;
	json_t *dev;
	json_array_foreach(json_object_get(tenant, "devices"), i, dev)
		if (json_array_size(json_object_get(dev, "clients")))
			return true;
	return json_is_true(json_object_get(tenant, "waits_for_clients"));
}

static void print_sums(struct pen_cli *cli, const struct why *w, const json_t *sums)
{
	size_t i;
	json_t *s;
	char ns[32], span[32];
	bool printed = false;
	pen_format_duration(span, sizeof(span), w->elapsed_ns);
	json_array_foreach(sums, i, s) {
		const char *by = pen_json_str(s, "by");
		uint64_t one = (uint64_t)pen_json_int(s, "held_ns");
		if (one < w->elapsed_ns / 200)   /* "0 %" */
			continue;
		printed = true;
		printf(_("%s on %s: held for %s of %s (%.0f %%): %s"), w->name, pen_json_str(s, "device"), pen_format_duration(ns, sizeof(ns), one), span,
		       100.0 * (double)one / (double)w->elapsed_ns, _(pen_json_str(s, "text")));
		if (*by)
			printf(_(" (mostly by %s)"), by);
		putchar('\n');
	}
	if (!printed && !is_used(w->before) && !is_used(w->after)) {
		printf(_("%s: no program uses this contract\n"), w->name);
		return;
	}
	if (!printed)
		printf(_("%s: nothing was held for %s\n"), w->name, span);
	pen_target_tell(cli, stdout, w->name, w->after);
}

static void print_now(const struct why *w)
{
	size_t i;
	json_t *h;
	json_t *holds = json_object_get(w->last, "holds");
	if (json_array_size(holds) == 0 && !w->for_ns)
		printf(is_used(w->after) ? _("%s: nothing is held at this moment\n") : _("%s: no program uses this contract\n"), w->name);
	json_array_foreach(holds, i, h) {
		char since[32], text[PEN_ERR_TEXT];
		const char *by = pen_json_str(h, "by");
		if (waits(w))
			printf(_("%s waits: %s"), w->name, pen_cli_translate(pen_json_str(h, "text"), text, sizeof(text)));
		else
			printf(_("%s, pid %lld on %s: held for %s: %s"), w->name, pen_json_int(h, "pid"), pen_json_str(h, "device"),
			       pen_format_duration(since, sizeof(since), (uint64_t)pen_json_int(h, "since_ns")),
			       _(pen_json_str(h, "text")));
		if (*by)
			printf(_(" (by %s, seat %lld)"), by, pen_json_int(h, "seat"));
		putchar('\n');
	}
}

static int why_once(struct pen_cli *cli, void *arg)
{
	struct why *w = arg;
	int code = look(cli, w);
	if (code != PEN_EXIT_OK) {
		forget(w);
		return code;
	}
	json_t *sums = add_up(w);
	const json_t *tells = w->told ? w->told : w->last;
	json_object_set_new(w->last, "window_ns", json_integer(w->for_ns ? (json_int_t)w->elapsed_ns : 0));
	json_object_set(w->last, "held", sums);
	json_object_set(w->last, "suggestion", json_object_get(tells, "suggestion"));
	if (!pen_cli_print_json(cli, w->last)) {
		if (w->for_ns && !waits(w))
			print_sums(cli, w, sums);
		else
			print_now(w);
		const char *suggestion = pen_json_str(w->last, "suggestion");
		char text[PEN_ERR_TEXT];
		if (*suggestion)
			puts(pen_cli_translate(suggestion, text, sizeof(text)));
	}
	json_decref(sums);
	forget(w);
	return PEN_EXIT_OK;
}

int pen_cmd_why(struct pen_cli *cli, int argc, char **argv)
{
	struct why w = { .for_ns = FOR_DEFAULT };
	int kept = 1;
	for (int i = 1; i < argc; i++) {
		bool next = !strcmp(argv[i], "--for") && i + 1 < argc;
		if (!next && strncmp(argv[i], "--for=", 6)) {
			argv[kept++] = argv[i];
			continue;
		}
		const char *value = next ? argv[++i] : argv[i] + 6;
		if (pen_parse_duration(value, &w.for_ns) < 0 || w.for_ns > FOR_MAX)
			return pen_cli_fail(PEN_EXIT_USAGE, "why", _("--for %s: allowed: a time from 0s to 1h, such as 5s"), value);
	}
	int n = pen_cli_arguments(cli, kept, argv);
	if (n < 0)
		return PEN_EXIT_USAGE;
	if (n != 1)
		return pen_cli_fail(PEN_EXIT_USAGE, "why", _("which tenant?"));
	w.name = argv[1];
	return pen_cli_watch(cli, why_once, &w);
}
