/* SPDX-License-Identifier: Apache-2.0 */
/* penstock events: what happened; with --watch, what happens. */
#include "base/auto.h"
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static int events_once(struct pen_cli *cli, void *arg)
{
	long long *since = arg;
	char path[96];
	snprintf(path, sizeof(path), "/v1/events?since=%lld", *since);
	int code;
	json_t *answer = pen_cli_get(cli, path, &code);
	if (!answer)
		return code;
	json_t *list = json_object_get(answer, "events"), *e;
	size_t i;
	bool json = (cli->watch_s <= 0 || json_array_size(list)) && pen_cli_print_json(cli, answer);
	json_array_foreach(list, i, e) {
		if (pen_json_int(e, "id") > *since)
			*since = pen_json_int(e, "id");
		if (json || cli->output == PEN_OUT_JSON)
			continue;
		time_t t = (time_t)pen_json_int(e, "time");
		struct tm tm;
		char when[32];
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", localtime_r(&t, &tm));
		printf("%s  %-16s %-20s %s\n", when, pen_json_str(e, "kind"), pen_json_str(e, "tenant"), pen_json_str(e, "text"));
	}
	json_decref(answer);
	return PEN_EXIT_OK;
}

/* Not pen_cli_watch(): its empty line between tables has no place in a log. */
static int follow(struct pen_cli *cli, long long since)
{
	for (;;) {
		int code = events_once(cli, &since);
		fflush(stdout);
		if (code != PEN_EXIT_OK || cli->watch_s <= 0)
			return code;
		double whole = (double)(time_t)cli->watch_s;
		nanosleep(&(struct timespec){ .tv_sec = (time_t)cli->watch_s,
					      .tv_nsec = (long)((cli->watch_s - whole) * 1e9) }, NULL);
	}
}

int pen_cmd_events(struct pen_cli *cli, int argc, char **argv)
{
	long long since = 0;
	for (int i = 1; i < argc;) {
		if (!strcmp(argv[i], "--since") && i + 1 < argc) {
			char *end;
			since = strtoll(argv[i + 1], &end, 10);
			if (*end || since < 0)
				return pen_cli_fail(PEN_EXIT_USAGE, "events", _("--since %s: the number of an event"), argv[i + 1]);
			i += 2;
			continue;
		}
		int r = pen_cli_global(cli, argc, argv, &i);
		if (r < 0)
			return PEN_EXIT_USAGE;
		if (!r)
			return pen_cli_fail(PEN_EXIT_USAGE, "events", _("unknown option '%s'"), argv[i]);
	}
	return follow(cli, since);
}
