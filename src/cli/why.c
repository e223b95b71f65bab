/* SPDX-License-Identifier: Apache-2.0 */
/* penstock why: the current hold of each client of a tenant. */
#include "base/auto.h"
#include "base/units.h"
#include "cli/cli.h"

static int why_once(struct pen_cli *cli, void *arg)
{
	const char *name = arg;
	char path[256] = "/v1/tenants/";
	pen_client_escape(path, sizeof(path) - 8, name);
	size_t n = 0;
	while (path[n])
		n++;
	snprintf(path + n, sizeof(path) - n, "/why");
	int code;
	json_t *answer = pen_cli_get(cli, "why", path, &code);
	if (!answer)
		return code;
	if (!pen_cli_print_json(cli, answer)) {
		size_t i;
		json_t *h;
		json_t *holds = json_object_get(answer, "holds");
		if (json_array_size(holds) == 0)
			printf(_("%s: nothing is held at this moment\n"), name);
		json_array_foreach(holds, i, h) {
			char since[32];
			const char *by = pen_json_str(h, "by");
			printf(_("%s, pid %lld on %s: held for %s: %s"), name, pen_json_int(h, "pid"), pen_json_str(h, "device"),
			       pen_format_duration(since, sizeof(since), (uint64_t)pen_json_int(h, "since_ns")),
			       _(pen_json_str(h, "text")));
			if (*by)
				printf(_(" (by %s, seat %lld)"), by, pen_json_int(h, "seat"));
			putchar('\n');
		}
		const char *suggestion = pen_json_str(answer, "suggestion");
		if (*suggestion)
			puts(suggestion);
	}
	json_decref(answer);
	return PEN_EXIT_OK;
}

int pen_cmd_why(struct pen_cli *cli, int argc, char **argv)
{
	int n = pen_cli_arguments(cli, argc, argv);
	if (n < 0)
		return PEN_EXIT_USAGE;
	if (n != 1)
		return pen_cli_fail(PEN_EXIT_USAGE, "why", _("which tenant?"));
	return pen_cli_watch(cli, why_once, argv[1]);
}
