/* SPDX-License-Identifier: Apache-2.0 */
/* A target below what a program needs by itself is kept by no contract; which one can be is known from its response times. */
#include "cli/target.h"

#include "base/clock.h"
#include "base/units.h"
#include <string.h>

char *pen_target_text(char *buf, size_t n, uint64_t p99_ns)
{
	uint64_t target = p99_ns + p99_ns / 4;
	return pen_format_duration(buf, n, target - (target > 10 * PEN_US ? target % (10 * PEN_US) : 0));
}

void pen_target_doubt(const struct pen_contract *c, const char *name)
{
	if (c->sla_ns && c->cls != PEN_CLASS_LATENCY)
		fprintf(stderr, _("penstock: with class %s a target decides only among equals; --class latency lets %s go before others\n"),
			pen_class_name(c->cls), name);
}

/* A tenth of its time, or more, went by while others had the device or its contract held it back. Its own window is its own work. */
static bool was_held(const json_t *dev, uint64_t busy_ns)
{
	const char *reason;
	json_t *v;
	uint64_t held = 0;
	json_object_foreach((json_t *)json_object_get(dev, "held_ns"), reason, v)
		held += strcmp(reason, "window") ? (uint64_t)json_integer_value(v) : 0;
	return held > busy_ns / 10;
}

static bool is_used_on(const json_t *tenant, const char *key)
{
	size_t i;
	json_t *dev;
	json_array_foreach(json_object_get(tenant, "devices"), i, dev)
		if (!strcmp(pen_json_str(dev, "key"), key) && pen_json_int(dev, "commands"))
			return true;
	return false;
}

static bool is_other(const json_t *o, const char *key, const char *name)
{
	return strcmp(pen_json_str(o, key), name) != 0;
}

/*
 * Has nobody else used the device since the tenant began? A wait behind a kernel that another has on the device is no hold, and it is in
 * the device time of some drivers. In doubt: no.
 */
static bool was_alone(const struct pen_cli *cli, const json_t *tenant, const char *key)
{
	json_t *tenants = NULL, *events = NULL, *devices = NULL, *o;
	struct pen_err err = PEN_ERR_INIT;
	const char *name = pen_json_str(tenant, "name");
	double created = json_real_value(json_object_get(tenant, "created"));
	size_t i;
	bool alone = pen_client_request(cli, "GET", "/v1/tenants", NULL, &tenants, &err) == 200 &&
		     pen_client_request(cli, "GET", "/v1/events?limit=1000", NULL, &events, &err) == 200 &&
		     pen_client_request(cli, "GET", "/v1/devices", NULL, &devices, &err) == 200;
	json_array_foreach(json_object_get(tenants, "tenants"), i, o)
		alone &= !is_other(o, "name", name) || !is_used_on(o, key);
	json_array_foreach(json_object_get(events, "events"), i, o)   /* those that have ended since */
		alone &= strcmp(pen_json_str(o, "kind"), "tenant-ended") != 0 || !is_other(o, "tenant", name) ||
			 json_real_value(json_object_get(o, "time")) < created;
	json_array_foreach(json_object_get(devices, "devices"), i, o)
		alone &= is_other(o, "key", key) || !pen_json_int(json_object_get(o, "audit"), "unknown_processes");
	json_decref(tenants);
	json_decref(events);
	json_decref(devices);
	return alone;
}

static void tell(const struct pen_cli *cli, FILE *out, const char *who, const json_t *tenant, const json_t *dev, uint64_t target_ns)
{
	const json_t *response = json_object_get(dev, "response");
	uint64_t count = (uint64_t)pen_json_int(response, "count"), missed = (uint64_t)pen_json_int(response, "missed");
	uint64_t p50 = (uint64_t)pen_json_int(response, "p50_ns"), p99 = (uint64_t)pen_json_int(response, "p99_ns");
	char target[32], typical[32], could[32];
	if (p50 <= target_ns || missed <= count / 2 || was_held(dev, count * p50) || !was_alone(cli, tenant, pen_json_str(dev, "key")))
		return;
	fprintf(out, _("%s: the program alone takes longer (P50 %s) than its target of %s, which no contract can change; it could have --sla %s\n"), who,
		pen_format_duration(typical, sizeof(typical), p50), pen_format_duration(target, sizeof(target), target_ns),
		pen_target_text(could, sizeof(could), p99));
}

void pen_target_tell(const struct pen_cli *cli, FILE *out, const char *who, const json_t *tenant)
{
	uint64_t target = 0;
	size_t i;
	json_t *dev;
	if (pen_parse_duration(pen_json_str(json_object_get(tenant, "contract"), "sla"), &target) < 0 || !target)
		return;
	json_array_foreach(json_object_get(tenant, "devices"), i, dev)
		tell(cli, out, who, tenant, dev, target);
}
