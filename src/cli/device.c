/* SPDX-License-Identifier: Apache-2.0 */
/* penstock device: the accelerators of this node and what is promised of them. drain.c takes one out of use. */
#include "base/auto.h"
#include "base/units.h"
#include "cli/cli.h"

#include <string.h>

#define SHOWN (UINT64_C(64) << 20)   /* less than this a driver always has for itself */

static const char *const head[] = { "DEVICE", "MODEL", "API", "STATE", "MODE", "MEMORY", "USED", "GUARANTEED", "UNITS",
				    "COMPUTE", "BUSY", "TENANTS" };
/* Which go first where a terminal is narrow; the key is cut, and -o name prints it. */
static const unsigned char drop[] = { PEN_COLUMN_CUT, 0, 7, 0, 1, 0, 6, 4, 2, 3, 5, 8 };

char *pen_device_apis(char *buf, size_t n, const json_t *d)
{
	size_t i, len = 0;
	json_t *a;
	*buf = 0;
	json_array_foreach(json_object_get(d, "apis"), i, a)
		if (len < n)
			len += (size_t)snprintf(buf + len, n - len, "%s%s", i ? "+" : "", pen_json_str(a, "name"));
	if (!*buf)   /* of an older daemon */
		snprintf(buf, n, "%s", pen_json_str(d, "api"));
	return buf;
}

static void add_row(struct pen_table *t, const json_t *d)
{
	char apis[80], mem[32], used[32], guaranteed[32], units[32], compute[32], busy[32], tenants[32];
	const char *cells[] = {
		pen_json_str(d, "key"), pen_json_str(d, "model"), pen_device_apis(apis, sizeof(apis), d), pen_json_str(d, "state"), pen_json_str(d, "mode"),
		json_is_integer(json_object_get(d, "mem_bytes")) ?
			pen_format_bytes(mem, sizeof(mem), (uint64_t)pen_json_int(d, "mem_bytes")) : NULL,
		pen_format_bytes(used, sizeof(used), (uint64_t)pen_json_int(d, "mem_used_bytes")),
		pen_format_bytes(guaranteed, sizeof(guaranteed), (uint64_t)pen_json_int(d, "mem_guaranteed_bytes")),
		units, pen_format_share(compute, sizeof(compute), (uint32_t)pen_json_int(d, "compute_guaranteed_ppm")),
		pen_format_share(busy, sizeof(busy), (uint32_t)pen_json_int(d, "busy_ppm")), tenants,
	};
	snprintf(units, sizeof(units), "%lld", pen_json_int(d, "units"));
	snprintf(tenants, sizeof(tenants), "%lld", pen_json_int(d, "tenants"));
	pen_table_row(t, cells);
}

/* What the audit found, below the table: each names its device. */
static void print_findings(const json_t *d)
{
	const json_t *a = json_object_get(d, "audit");
	const char *key = pen_json_str(d, "key");
	char mem[32];
	size_t i;
	json_t *p;
	json_array_foreach(json_object_get(a, "unknown"), i, p) {
		const json_t *v = json_object_get(p, "mem_bytes");
		printf(_("%s: process %lld (%s) belongs to no tenant, %s of memory"), key, pen_json_int(p, "pid"), pen_json_str(p, "comm"),
		       json_is_integer(v) ? pen_format_bytes(mem, sizeof(mem), (uint64_t)json_integer_value(v)) : "?");
		putchar('\n');
	}
	uint64_t unexplained = (uint64_t)pen_json_int(a, "mem_unexplained_bytes");
	if (unexplained >= SHOWN)
		printf(_("%s: %s are in use that no process is named for\n"), key, pen_format_bytes(mem, sizeof(mem), unexplained));
	if (json_is_object(a) && !json_is_true(json_object_get(a, "watched")))
		printf(_("%s is not watched at the moment\n"), key);
}

static int list_once(struct pen_cli *cli, void *arg)
{
	(void)arg;
	int code;
	json_t *answer = pen_cli_get(cli, "/v1/devices", &code);
	if (!answer)
		return code;
	size_t i;
	json_t *d, *list = json_object_get(answer, "devices");
	if (pen_cli_print_json(cli, answer)) {
		json_decref(answer);
		return PEN_EXIT_OK;
	}
	struct pen_table *t = pen_table_create(PEN_ARRAY_LEN(head));
	pen_table_row(t, head);
	json_array_foreach(list, i, d) {
		if (cli->output == PEN_OUT_NAME)
			puts(pen_json_str(d, "key"));
		add_row(t, d);
	}
	if (cli->output != PEN_OUT_WIDE)
		pen_table_fit(t, drop);
	if (cli->output != PEN_OUT_NAME)
		pen_table_print(t, stdout, cli->no_headers);
	pen_table_destroy(t);
	json_array_foreach(list, i, d)
		if (cli->output != PEN_OUT_NAME && !cli->no_headers)   /* without: a script reads the lines */
			print_findings(d);
	json_decref(answer);
	return PEN_EXIT_OK;
}

int pen_cmd_device(struct pen_cli *cli, int argc, char **argv)
{
	bool wait = false;
	int n = pen_drain_arguments(cli, argc, argv, &wait);
	if (n < 0)
		return PEN_EXIT_USAGE;
	if (n == 1 && !strcmp(argv[1], "ls") && !wait)
		return pen_cli_watch(cli, list_once, NULL);
	if (n < 1 || !pen_drain_is_verb(argv[1], wait))
		return pen_cli_fail(PEN_EXIT_USAGE, "device",
				    _("what? allowed: ls, drain [--wait] DEVICE..., undrain DEVICE..., release [--wait] DEVICE..."));
	if (n < 2)
		return pen_cli_fail(PEN_EXIT_USAGE, "device", _("which device? 'penstock device ls -o name' lists them"));
	if (cli->watch_s > 0 || cli->output == PEN_OUT_NAME || cli->output == PEN_OUT_WIDE || cli->no_headers)
		return pen_cli_fail(PEN_EXIT_USAGE, "device", _("it has no option '%s'"),
				    cli->watch_s > 0 ? "--watch" : cli->no_headers ? "--no-headers" : cli->output == PEN_OUT_WIDE ? "-o wide" : "-o name");
	return pen_drain_run(cli, argv[1], wait, n - 1, argv + 2);
}
