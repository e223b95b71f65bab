/* SPDX-License-Identifier: Apache-2.0 */
/* The summary of penstock run: what was used, and which contract would have fitted. */
#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "cli/run.h"
#include "cli/target.h"

#include <string.h>

#define COMMANDS_FEW 100
#define WATCH_STARTS_NS (10 * PEN_S)   /* a daemon that was just started has its first reading by then */

/* Rounded up to what a person would write: the next multiple of a sixteenth of the power of two below. */
static uint64_t round_up_nicely(uint64_t bytes)
{
	uint64_t step = 16 * PEN_MIB;
	while (step < bytes / 32)
		step *= 2;
	return (bytes + step - 1) / step * step;
}

/* A limit as one would type it, in whole MiB. */
static char *limit_text(char *buf, size_t n, uint64_t bytes)
{
	bool whole = bytes % PEN_GIB == 0;
	snprintf(buf, n, "%llu%s", (unsigned long long)(bytes / (whole ? PEN_GIB : PEN_MIB)), whole ? "G" : "M");
	return buf;
}

/*
 * A program may read how much memory there is, find it too little and end without having asked for it, nor done much else (hashcat
 * has filled a few small buffers by then). What it would have needed nobody knows but itself, so twice as much is a guess and
 * reads as one. Return: true if that may be so, and is said.
 */
static bool print_shown_limit(const struct pen_run *run, const json_t *dev)
{
	char shown[32], more[32];
	uint64_t cap = run->contract.memory.cap;
	if (run->code == 0 || run->stopped || cap == PEN_UNLIMITED || (uint64_t)pen_json_int(dev, "mem_limit_bytes") != cap ||
	    pen_json_int(dev, "commands") >= COMMANDS_FEW)
		return false;
	fprintf(stderr, _("penstock: it was shown %s of memory and ended with %d; if that was too little for it, try a larger limit, "
			  "such as --memory %s\n"),
		pen_text_size(shown, sizeof(shown), cap, false), run->code, limit_text(more, sizeof(more), round_up_nicely(2 * cap)));
	return true;
}

/* Return: the largest total that was refused, 0 if nothing was, or if no limit would have helped: it is more than @device_bytes. */
static uint64_t print_refused(const json_t *dev, uint64_t device_bytes)
{
	char total[32];
	long long n = pen_json_int(dev, "denials");
	uint64_t bytes = (uint64_t)pen_json_int(dev, "mem_denied_bytes");
	if (!n)
		return 0;
	fprintf(stderr, n == 1 ? _(", 1 allocation refused") : _(", %lld allocations refused"), n);
	if (!bytes)   /* by a layer that does not tell */
		return 0;
	if (device_bytes && bytes > device_bytes) {
		fprintf(stderr, _(" (up to more than the device has)"));
		return 0;
	}
	fprintf(stderr, _(" (up to %s in all)"), pen_text_size(total, sizeof(total), bytes, true));
	return bytes;
}

static bool has_api(const json_t *device, const char *name)
{
	size_t i;
	json_t *api;
	json_array_foreach(json_object_get(device, "apis"), i, api)
		if (!strcmp(pen_json_str(api, "name"), name))
			return true;
	return false;
}

/*
 * Contexts count against a limit, but the audit sees them only after some readings. Until then the memory that was used is not what
 * a limit must hold, and a limit made of it would refuse the program's first allocation.
 */
static bool misses_contexts(const json_t *dev, const json_t *device, uint64_t wall_ns)
{
	if (pen_json_int(dev, "mem_overhead_peak_bytes"))
		return false;
	return json_is_object(json_object_get(device, "audit")) || (has_api(device, "cuda") && wall_ns < WATCH_STARTS_NS);
}

static void print_device_use(const struct pen_run *run, const json_t *dev, const json_t *device, uint64_t wall_ns)
{
	char used[32], limit[32], busy[32], p99[32], fit_mem[32];
	uint64_t device_bytes = (uint64_t)pen_json_int(device, "mem_bytes");
	uint64_t peak = (uint64_t)pen_json_int(dev, "mem_peak_bytes"), beside = (uint64_t)pen_json_int(dev, "mem_overhead_peak_bytes");
	uint64_t device_ns = (uint64_t)pen_json_int(dev, "device_ns");
	const json_t *response = json_object_get(dev, "response");
	uint64_t p99_ns = (uint64_t)pen_json_int(response, "p99_ns");
	double share = wall_ns ? (double)device_ns / (double)wall_ns : 0;
	if (pen_json_int(dev, "commands") == 0 && peak == 0 && pen_json_int(dev, "denials") == 0) {
		fprintf(stderr, _("penstock: %s looked at %s and did not use it\n"), run->contract.name, pen_json_str(dev, "key"));
		print_shown_limit(run, dev);
		return;
	}

	fprintf(stderr, _("penstock: %s used %s of memory"), run->contract.name, pen_text_size(used, sizeof(used), peak, true));
	if (beside)
		fprintf(stderr, _(" and %s beside it for contexts and modules"), pen_text_size(used, sizeof(used), beside, true));
	if (run->contract.memory.cap != PEN_UNLIMITED)
		fprintf(stderr, _(" (limit %s)"), pen_text_size(limit, sizeof(limit), run->contract.memory.cap, false));
	fprintf(stderr, _(", %s of device time (%.1f %%), %lld commands"), pen_format_duration(busy, sizeof(busy), device_ns),
		share * 100, pen_json_int(dev, "commands"));
	if (p99_ns)
		fprintf(stderr, _(", P99 %s"), pen_format_duration(p99, sizeof(p99), p99_ns));
	if (p99_ns && run->contract.sla_ns)
		fprintf(stderr, _(" (target %s, %lld of %lld above it)"), pen_format_duration(limit, sizeof(limit), run->contract.sla_ns),
			pen_json_int(response, "missed"), pen_json_int(response, "count"));
	uint64_t refused = print_refused(dev, device_bytes);
	fputc('\n', stderr);
	if (pen_json_int(dev, "denials") == 0 && print_shown_limit(run, dev))
		return;

	/* A fifth above the average: enough for a steady load; what is bursty is better served by X..Y. */
	unsigned pct = (unsigned)(share * 120) + 1;
	pct = PEN_MIN(pct, 100u);
	uint64_t fit = round_up_nicely(PEN_MAX(peak + peak / 10, refused) + beside + !peak);
	if (device_bytes)
		fit = PEN_MIN(fit, device_bytes);
	bool missed = misses_contexts(dev, device, wall_ns);
	if (missed)
		fprintf(stderr, _("penstock: a contract for as much: --compute %u%%.."), pct);
	else
		fprintf(stderr, _("penstock: a contract for as much: --memory %s --compute %u%%.."), limit_text(fit_mem, sizeof(fit_mem), fit), pct);
	if (run->contract.cls == PEN_CLASS_LATENCY && !run->contract.sla_ns && p99_ns) {
		char sla[32];
		fprintf(stderr, " --sla %s", pen_target_text(sla, sizeof(sla), p99_ns));
	}
	fputc('\n', stderr);
	if (missed)
		fputs(_("penstock: it was too short for the memory of its contexts to be seen, which a limit must hold too; a run of some seconds "
			"shows the --memory that it needs\n"), stderr);
}

static const json_t *device_named(const json_t *devices, const char *key)
{
	size_t i;
	json_t *dev;
	json_array_foreach(devices, i, dev)
		if (!strcmp(pen_json_str(dev, "key"), key))
			return dev;
	return NULL;
}

static bool is_usable(const json_t *dev)
{
	const char *state = pen_json_str(dev, "state");
	return strcmp(state, "lost") && strcmp(state, "drained");
}

/* Has @dev an interface that none of the promised devices has? */
static bool offers_more(const json_t *dev, const json_t *devices, const json_t *held)
{
	size_t i, k;
	json_t *api, *key;
	json_array_foreach(json_object_get(dev, "apis"), i, api) {
		bool known = false;
		json_array_foreach(held, k, key)
			known |= has_api(device_named(devices, json_string_value(key)), pen_json_str(api, "name"));
		if (!known)
			return true;
	}
	return false;
}

/*
 * Nothing attached. Most programs that use no device need none; but where one was promised to it that it cannot use, by its
 * interface, and another is there, it should be known which.
 */
static void print_unused(const struct pen_run *run, const json_t *tenant, const json_t *devices)
{
	const json_t *held = json_object_get(tenant, "held_on");
	char apis[80];
	size_t i, k;
	json_t *key, *dev;
	bool told = false;
	fprintf(stderr, _("penstock: %s used no device\n"), run->contract.name);
	json_array_foreach(devices, k, dev) {
		if (!json_array_size(held) || !is_usable(dev) || !offers_more(dev, devices, held))
			continue;
		json_array_foreach(held, i, key)
			if (!told)
				fprintf(stderr, _("penstock: it was promised %s (%s)\n"), json_string_value(key),
					pen_device_apis(apis, sizeof(apis), device_named(devices, json_string_value(key))));
		told = true;
		fprintf(stderr, _("penstock: there is also %s (%s); for that: --device '%s'\n"), pen_json_str(dev, "model"),
			pen_device_apis(apis, sizeof(apis), dev), pen_json_str(dev, "key"));
	}
}

void pen_run_print_use(const struct pen_run *run, const json_t *tenant)
{
	struct pen_err err = PEN_ERR_INIT;
	const json_t *used = json_object_get(tenant, "devices");
	uint64_t wall = pen_mono_ns() - run->started_ns;
	json_t *node = NULL, *dev;
	size_t i;
	pen_client_request(run->cli, "GET", "/v1/devices", NULL, &node, &err);
	if (json_array_size(used) == 0)
		print_unused(run, tenant, json_object_get(node, "devices"));
	json_array_foreach(used, i, dev)
		print_device_use(run, dev, device_named(json_object_get(node, "devices"), pen_json_str(dev, "key")), wall);
	pen_target_tell(run->cli, stderr, "penstock", tenant);
	json_decref(node);
}
