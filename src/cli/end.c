/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock end: ends a contract; its clients get their API's own error from then on. Nobody is killed, so a program that has it goes
 * on without a device: that is asked for with --force, and said.
 */
#include "base/auto.h"
#include "cli/cli.h"

#include <string.h>

/* "4711 (python3), 4712 (ffmpeg)" */
static void describe(const json_t *processes, char *buf, size_t n)
{
	size_t i, len = 0;
	json_t *p;
	*buf = 0;
	json_array_foreach(processes, i, p) {
		char one[64];
		snprintf(one, sizeof(one), "%s%lld (%s)", i ? ", " : "", pen_json_int(p, "pid"), pen_json_str(p, "comm"));
		if (len + strlen(one) + 8 > n) {
			snprintf(buf + len, n - len, ", ...");
			return;
		}
		len += (size_t)snprintf(buf + len, n - len, "%s", one);
	}
}

static int end_one(struct pen_cli *cli, const char *name, bool force)
{
	struct pen_err err = PEN_ERR_INIT;
	char path[256] = "/v1/tenants/", who[512];
	json_t *answer = NULL;
	pen_client_escape(path, sizeof(path) - 16, name);
	if (!force)
		strcat(path, "?unused=1");
	int r = pen_client_request(cli, "DELETE", path, NULL, &answer, &err), code;
	describe(json_object_get(answer, "processes"), who, sizeof(who));
	if (r == 409 && *who)
		code = pen_cli_fail(PEN_EXIT_DENIED, "end", _("'%s' is in use by %s; their next calls would fail; --force ends it all the same"), name, who);
	else
		code = pen_client_exit_tenant(cli, name, r, &err);
	if (code == PEN_EXIT_OK && !cli->quiet && *who)
		printf(_("%s is ended; the next calls of these fail: %s\n"), name, who);
	else if (code == PEN_EXIT_OK && !cli->quiet)
		printf(_("%s is ended\n"), name);
	json_decref(answer);
	return code;
}

int pen_cmd_end(struct pen_cli *cli, int argc, char **argv)
{
	bool force = false;
	int kept = 1;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--force"))
			force = true;
		else
			argv[kept++] = argv[i];
	}
	int n = pen_cli_arguments(cli, kept, argv);
	if (n < 0)
		return PEN_EXIT_USAGE;
	if (n == 0)
		return pen_cli_fail(PEN_EXIT_USAGE, "end", _("which tenant?"));
	int code = PEN_EXIT_OK;
	for (int i = 1; i <= n; i++) {
		bool again = false;
		for (int k = 1; k < i; k++)
			again |= !strcmp(argv[k], argv[i]);
		int one = again ? PEN_EXIT_OK : end_one(cli, argv[i], force);
		code = code ? code : one;
	}
	return code;
}
