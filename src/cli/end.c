/* SPDX-License-Identifier: Apache-2.0 */
/* penstock end: ends a contract; its clients get their API's own error from then on. */
#include "cli/cli.h"

int pen_cmd_end(struct pen_cli *cli, int argc, char **argv)
{
	int n = pen_cli_arguments(cli, argc, argv);
	if (n < 0)
		return PEN_EXIT_USAGE;
	if (n == 0)
		return pen_cli_fail(PEN_EXIT_USAGE, "end", _("which tenant?"));
	int code = PEN_EXIT_OK;
	for (int i = 1; i <= n; i++) {
		struct pen_err err = PEN_ERR_INIT;
		char path[256] = "/v1/tenants/";
		pen_client_escape(path, sizeof(path), argv[i]);
		int one = pen_client_exit("end", pen_client_request(cli, "DELETE", path, NULL, NULL, &err), &err);
		code = code ? code : one;
	}
	return code;
}
