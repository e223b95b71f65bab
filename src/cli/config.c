/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock config: check reads files without a daemon, so that a configuration can be tried before it is shipped to
 * many machines; show prints the effective one; reload asks the daemon to take it over and prints the difference.
 */
#include "base/auto.h"
#include "cli/cli.h"
#include "contract/config.h"

#include <string.h>
#include <unistd.h>

/* A file for `run --contract` or of contracts.d: its first key is a contract's, and the configuration has none of these. */
static bool is_contract(const char *path)
{
	pen_auto_fclose FILE *f = fopen(path, "re");
	char line[512];
	while (f && fgets(line, sizeof(line), f)) {
		size_t n = strcspn(line, ": #\n");
		if (n && line[n] == ':') {
			line[n] = '\0';
			return pen_contract_field_find(line) >= 0;
		}
	}
	return false;
}

static int check_contract(const char *file, bool show)
{
	struct pen_contract c;
	struct pen_err err = PEN_ERR_INIT;
	if (pen_contract_load_file(file, &c, &err) < 0) {
		fprintf(stderr, "penstock config: %s\n", err.text);
		return PEN_EXIT_FAILURE;
	}
	if (show)
		pen_contract_print(&c, stdout, 0, true);
	else
		printf(_("%s: in order, a contract\n"), file);
	return PEN_EXIT_OK;
}

static int check(const char *file, bool show)
{
	if (file && is_contract(file))
		return check_contract(file, show);
	struct pen_config cfg;
	struct pen_err err = PEN_ERR_INIT;
	if (pen_config_load(file, NULL, &cfg, &err) < 0) {
		fprintf(stderr, "penstock config: %s\n", err.text);
		return PEN_EXIT_FAILURE;
	}
	if (show)
		pen_config_print(&cfg, stdout);
	else if (!file && access(PEN_CONFIG_FILE, F_OK) < 0)
		printf(_("%s: not there, so all keys have their defaults; %zu contracts\n"), PEN_CONFIG_FILE, cfg.n_contracts);
	else
		printf(_("%s: in order, %zu contracts\n"), file ? file : PEN_CONFIG_FILE, cfg.n_contracts);
	pen_config_free(&cfg);
	return PEN_EXIT_OK;
}

static int reload(struct pen_cli *cli)
{
	struct pen_err err = PEN_ERR_INIT;
	json_t *answer = NULL, *change;
	int r = pen_client_request(cli, "POST", "/v1/config/reload", NULL, &answer, &err);
	int code = pen_client_exit("config", r, &err);
	if (code == PEN_EXIT_OK && !pen_cli_print_json(cli, answer)) {
		json_t *changes = json_object_get(answer, "changes");
		size_t i;
		if (json_array_size(changes) == 0)
			puts(_("nothing changed"));
		json_array_foreach(changes, i, change)
			if (json_is_string(change))
				puts(json_string_value(change));
			else
				printf("%s: %s -> %s%s\n", pen_json_str(change, "what"), pen_json_str(change, "from"),
				       pen_json_str(change, "to"),
				       json_is_true(json_object_get(change, "restart")) ? _(" (after a restart)") : "");
	}
	json_decref(answer);
	return code;
}

int pen_cmd_config(struct pen_cli *cli, int argc, char **argv)
{
	int n = pen_cli_arguments(cli, argc, argv);
	if (n < 0)
		return PEN_EXIT_USAGE;
	const char *verb = n > 0 ? argv[1] : "";
	const char *file = n > 1 ? argv[2] : NULL;
	bool is_reload = !strcmp(verb, "reload");
	/* check and show ask no daemon, and print YAML. */
	if (n > (is_reload ? 1 : 2))
		return pen_cli_fail(PEN_EXIT_USAGE, "config", _("unexpected argument '%s'"), argv[n]);
	if (cli->given && !is_reload)
		return pen_cli_fail(PEN_EXIT_USAGE, "config", _("'%s' has no options"), verb);
	if (!strcmp(verb, "check"))
		return check(file, false);
	if (!strcmp(verb, "show"))
		return check(file, true);
	if (is_reload)
		return reload(cli);
	return pen_cli_fail(PEN_EXIT_USAGE, "config", _("what? allowed: check, show, reload"));
}
