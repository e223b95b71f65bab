/* SPDX-License-Identifier: Apache-2.0 */
/* Names that were probably meant by one that is nobody's. */
#include "base/auto.h"
#include "cli/cli.h"

#include <string.h>

#define NAME_MAX_ 64
#define SHOWN 3

/* Insertions, deletions and changes of one character that make @b of @a. */
static size_t distance(const char *a, const char *b)
{
	size_t row[NAME_MAX_ + 1], n = PEN_MIN(strlen(b), (size_t)NAME_MAX_);
	for (size_t k = 0; k <= n; k++)
		row[k] = k;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t k = 1; k <= n; k++) {
			size_t change = diagonal + (a[i - 1] != b[k - 1]);
			size_t longer = PEN_MIN(row[k], row[k - 1]) + 1;
			diagonal = row[k];
			row[k] = PEN_MIN(change, longer);
		}
	}
	return row[n];
}

static bool is_near(const char *name, const char *other)
{
	size_t n = strlen(name);
	return n && (!strncmp(other, name, n) || (n > 2 && strstr(other, name)) || distance(name, other) <= (n < 4 ? 1u : 2u));
}

int pen_cli_no_tenant(const char *cmd, const char *name, const json_t *tenants)
{
	char names[256] = "";
	size_t i, len = 0, n = 0;
	json_t *t;
	json_array_foreach(tenants, i, t) {
		const char *other = pen_json_str(t, "name");
		if (!is_near(name, other) || n == SHOWN || len + strlen(other) + 8 > sizeof(names))
			continue;
		len += (size_t)snprintf(names + len, sizeof(names) - len, "%s'%s'", n++ ? ", " : "", other);
	}
	if (n)
		return pen_cli_fail(PEN_EXIT_NO_OBJECT, cmd, _("there is no tenant '%s'; there is %s"), name, names);
	return pen_cli_fail(PEN_EXIT_NO_OBJECT, cmd, _("there is no tenant '%s'; 'penstock ps' lists them"), name);
}
