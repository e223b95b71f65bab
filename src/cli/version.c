/* SPDX-License-Identifier: Apache-2.0 */
/* penstock version: of the client, and of the daemon if one answers. */
#include "cli/cli.h"

int pen_cmd_version(struct pen_cli *cli, int argc, char **argv)
{
	if (pen_cli_no_arguments(cli, argc, argv) < 0)
		return PEN_EXIT_USAGE;
	struct pen_err err = PEN_ERR_INIT;
	json_t *daemon = NULL;
	int r = pen_client_request(cli, "GET", "/v1/version", NULL, &daemon, &err);
	json_t *all = json_pack("{s:s, s:s, s:o}", "schema", "penstock/v1", "client", PEN_VERSION, "daemon",
				r == 200 && daemon ? json_incref(daemon) : json_null());
	if (!pen_cli_print_json(cli, all)) {
		printf("penstock %s\n", PEN_VERSION);
		if (r == 200)
			printf("penstockd %s, %s %lld.%lld, pid %lld%s\n", pen_json_str(daemon, "version"), _("board layout"),
			       pen_json_int(daemon, "major"), pen_json_int(daemon, "minor"), pen_json_int(daemon, "pid"),
			       json_is_true(json_object_get(daemon, "private")) ? _(", private") : "");
		else
			printf("penstockd: %s\n", _("none answers"));
	}
	json_decref(all);
	json_decref(daemon);
	return PEN_EXIT_OK;
}
