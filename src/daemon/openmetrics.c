/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /metrics for who asks for OpenMetrics 1.0: the Prometheus text, said in the other's words. There a counter's family has no _total,
 * only its samples have, a family whose name ends in a unit names it, and the text ends with # EOF.
 */
#include "base/auto.h"
#include "daemon/api.h"

#include <stdlib.h>
#include <string.h>

static const char *unit_of(const char *family, size_t len)
{
	static const char *const units[] = { "seconds", "bytes", "ratio", "celsius", "watts", "joules" };
	for (size_t i = 0; i < PEN_ARRAY_LEN(units); i++) {
		size_t n = strlen(units[i]);
		if (len > n && !strncmp(family + len - n, units[i], n) && family[len - n - 1] == '_')
			return units[i];
	}
	return NULL;
}

/* "# HELP name text" and "# TYPE name type" of one family, in that order, as metrics.c prints them. */
static void put_family(FILE *out, const char *help, const char *type)
{
	const char *name = help + strlen("# HELP ");
	size_t len = strcspn(name, " ");
	const char *kind = type + strlen("# TYPE ") + len + 1;
	bool counter = !strncmp(kind, "counter", strlen("counter"));
	size_t family = counter && len > 6 && !strncmp(name + len - 6, "_total", 6) ? len - 6 : len;
	const char *unit = unit_of(name, family);
	fprintf(out, "# TYPE %.*s %.*s\n", (int)family, name, (int)strcspn(kind, "\n"), kind);
	if (unit)
		fprintf(out, "# UNIT %.*s %s\n", (int)family, name, unit);
	fprintf(out, "# HELP %.*s%.*s\n", (int)family, name, (int)strcspn(name + len, "\n"), name + len);
}

char *pen_openmetrics_text(const char *prometheus)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	if (!out)
		return NULL;
	const char *help = NULL;
	for (const char *line = prometheus; *line;) {
		size_t n = strcspn(line, "\n");
		if (!strncmp(line, "# HELP ", 7)) {
			help = line;
		} else if (!strncmp(line, "# TYPE ", 7) && help) {
			put_family(out, help, line);
			help = NULL;
		} else {
			fprintf(out, "%.*s\n", (int)n, line);
		}
		line += n + (line[n] == '\n');
	}
	fputs("# EOF\n", out);
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}
