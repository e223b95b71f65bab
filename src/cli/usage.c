/* SPDX-License-Identifier: Apache-2.0 */
/* penstock usage: what a tenant used, minute by minute, from the daemon's store. */
#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const head[] = { "MINUTE", "DEVICE TIME", "SHARE", "MEMORY PEAK", "COMMANDS", "HELD", "BYTES", "DEVICE" };

static void add_row(struct pen_table *t, const json_t *m)
{
	char when[32], busy[32], share[32], mem[32], commands[32], held[32], bytes[32];
	time_t at = (time_t)pen_json_int(m, "t");
	struct tm tm;
	uint64_t ns = (uint64_t)pen_json_int(m, "device_ns");
	strftime(when, sizeof(when), "%m-%d %H:%M", localtime_r(&at, &tm));
	snprintf(commands, sizeof(commands), "%lld", pen_json_int(m, "commands"));
	const char *cells[] = { when, pen_format_duration(busy, sizeof(busy), ns),
				pen_format_share(share, sizeof(share), (uint32_t)(ns / (60 * PEN_S / PEN_PPM))),
				pen_format_bytes(mem, sizeof(mem), (uint64_t)pen_json_int(m, "mem_peak_bytes")), commands,
				pen_format_duration(held, sizeof(held), (uint64_t)pen_json_int(m, "held_ns")),
				pen_format_bytes(bytes, sizeof(bytes), (uint64_t)pen_json_int(m, "bytes")), pen_json_str(m, "device") };
	pen_table_row(t, cells);
}

int pen_cmd_usage(struct pen_cli *cli, int argc, char **argv)
{
	const char *name = NULL;
	long minutes = 60;
	for (int i = 1; i < argc;) {
		if (!strcmp(argv[i], "--minutes") && i + 1 < argc) {
			char *end;
			minutes = strtol(argv[i + 1], &end, 10);
			if (*end || minutes < 1)   /* the daemon says how many it keeps */
				return pen_cli_fail(PEN_EXIT_USAGE, "usage", _("--minutes %s: not a number of minutes"), argv[i + 1]);
			i += 2;
		} else if (argv[i][0] != '-' && !name) {
			name = argv[i++];
		} else {
			int r = pen_cli_global(cli, argc, argv, &i);
			if (r < 0)
				return PEN_EXIT_USAGE;
			if (!r)
				return pen_cli_fail(PEN_EXIT_USAGE, "usage", _("unknown option '%s'"), argv[i]);
		}
	}
	if (!name)
		return pen_cli_fail(PEN_EXIT_USAGE, "usage", _("which tenant?"));
	char rest[40];
	snprintf(rest, sizeof(rest), "/usage?minutes=%ld", minutes);
	int code;
	json_t *answer = pen_cli_get_tenant(cli, name, rest, &code);
	if (!answer)
		return code;
	if (!pen_cli_print_json(cli, answer)) {
		struct pen_table *t = pen_table_create(PEN_ARRAY_LEN(head));
		size_t i;
		json_t *m;
		pen_table_row(t, head);
		json_array_foreach(json_object_get(answer, "minutes"), i, m)
			add_row(t, m);
		pen_table_print(t, stdout, cli->no_headers);
		pen_table_destroy(t);
	}
	json_decref(answer);
	return PEN_EXIT_OK;
}
