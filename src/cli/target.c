/* SPDX-License-Identifier: Apache-2.0 */
/* A target below what a program needs by itself is kept by no contract; which one can be is known from its response times. */
#include "cli/target.h"

#include "base/clock.h"
#include "base/units.h"
#include "cli/cli.h"

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

void pen_target_tell(FILE *out, const char *who, const json_t *dev, uint64_t target_ns)
{
	const json_t *response = json_object_get(dev, "response");
	uint64_t count = (uint64_t)pen_json_int(response, "count"), missed = (uint64_t)pen_json_int(response, "missed");
	uint64_t p50 = (uint64_t)pen_json_int(response, "p50_ns"), p99 = (uint64_t)pen_json_int(response, "p99_ns");
	char target[32], typical[32], could[32];
	if (!target_ns || p50 <= target_ns || missed <= count / 2 || was_held(dev, count * p50))
		return;
	fprintf(out, _("%s: others and its contract hardly held it: the program alone takes longer (P50 %s) than its target of %s, which no contract can change; "
		       "it could have --sla %s\n"),
		who, pen_format_duration(typical, sizeof(typical), p50), pen_format_duration(target, sizeof(target), target_ns),
		pen_target_text(could, sizeof(could), p99));
}
