/* SPDX-License-Identifier: Apache-2.0 */
/* penstock set: changes fields of a live contract; the daemon applies all of them or none, within one tick. */
#include "cli/cli.h"
#include "contract/contract.h"

#include <errno.h>
#include <string.h>

static void usage(const struct pen_cli *cli)
{
	puts(_("Usage: penstock set [OPTIONS] NAME --FIELD VALUE...\nChange a contract while it is in use.\n\nFields:"));
	for (size_t i = 0;; i++) {
		const struct pen_contract_field *f = pen_contract_field(i);
		if (!f)
			break;
		if (!f->live)
			continue;
		char option[64];
		snprintf(option, sizeof(option), "--%s %s", f->name, _(f->arg));
		pen_cli_put_option(stdout, option, _(f->allowed));
	}
	putchar('\n');
	pen_cli_put_options(stdout, cli->command);
}

/* --field VALUE, --field=VALUE or field=VALUE. The value is checked here so that a typing error needs no daemon to be told. */
static int take_field(json_t *set, int argc, char **argv, int *i)
{
	char name[64];
	const char *a = argv[*i], *eq = strchr(a, '=');
	size_t len = eq ? (size_t)(eq - a) : strlen(a);
	size_t dashes = strncmp(a, "--", 2) ? 0 : 2;
	snprintf(name, sizeof(name), "%.*s", (int)(len - dashes), a + dashes);
	int f = dashes || eq ? pen_contract_field_find(name) : -ENOENT;
	if (f < 0 || !pen_contract_field((size_t)f)->live)
		return pen_cli_fail(PEN_EXIT_USAGE, "set", f < 0 ? _("unknown option '%s'") :
				    _("'%s' cannot be changed while the tenant runs"), a);
	if (!eq && *i + 1 >= argc)
		return pen_cli_fail(PEN_EXIT_USAGE, "set", _("--%s needs a value"), name);
	const char *value = eq ? eq + 1 : argv[++*i];
	struct pen_contract scratch;
	struct pen_err err = PEN_ERR_INIT;
	pen_contract_init(&scratch);
	if (pen_contract_set(&scratch, name, value, &err) < 0)
		return pen_cli_fail(PEN_EXIT_USAGE, "set", "%s", err.text);
	json_object_set_new(set, name, json_string(value));
	++*i;
	return 0;
}

static int send_set(struct pen_cli *cli, const char *name, json_t *set, bool force)
{
	struct pen_err err = PEN_ERR_INIT;
	char path[256] = "/v1/tenants/";
	pen_client_escape(path, sizeof(path), name);
	json_t *body = json_pack("{s:O, s:b}", "set", set, "force", force), *answer = NULL;
	int r = pen_client_request(cli, "PATCH", path, body, &answer, &err);
	int code = pen_client_exit_tenant(cli, name, r, &err);
	/* Where to run is decided when a queue is made; all else holds from the next command on. */
	if (code == PEN_EXIT_OK && !pen_cli_print_json(cli, answer) && !cli->quiet && json_object_get(set, "units"))
		puts(_("units: holds for queues and programs that begin from now on; those that there are stay where they are"));
	if (code == PEN_EXIT_OK)
		pen_cli_tell_unstored(answer, name);
	json_decref(body);
	json_decref(answer);
	return code;
}

int pen_cmd_set(struct pen_cli *cli, int argc, char **argv)
{
	const char *name = NULL;
	bool force = false;
	json_t *set = json_object();
	int code = 0;
	for (int i = 1; i < argc && !code;) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			usage(cli);
			json_decref(set);
			return PEN_EXIT_OK;
		}
		if (!strcmp(argv[i], "--force")) {
			force = true;
			i++;
		} else if (argv[i][0] != '-' && !strchr(argv[i], '=') && !name) {
			name = argv[i++];
		} else {
			int r = pen_cli_global(cli, argc, argv, &i);
			if (r < 0)
				code = PEN_EXIT_USAGE;
			else if (!r)
				code = take_field(set, argc, argv, &i);
		}
	}
	if (!code && !name)
		code = pen_cli_fail(PEN_EXIT_USAGE, "set", _("which tenant?"));
	if (!code && json_object_size(set) == 0)
		code = pen_cli_fail(PEN_EXIT_USAGE, "set", _("nothing to change"));
	if (!code)
		code = send_set(cli, name, set, force);
	json_decref(set);
	return code;
}
