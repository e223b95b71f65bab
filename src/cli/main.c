/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock: finds the sub-command in the table and calls it. Options that every sub-command has are understood before
 * and after its name.
 */
#include "base/auto.h"
#include "base/log.h"
#include "cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define OPTION_CELLS 20
#define HELP_CELLS 80   /* of a line of help, the option before it included */

static const struct pen_command commands[] = {
#define X(id, name, args, takes, help) { name, args, help, takes, pen_cmd_##id },
	PEN_COMMANDS(X)
#undef X
};

const struct pen_command *pen_command(size_t i)
{
	return i < PEN_ARRAY_LEN(commands) ? &commands[i] : NULL;
}

int pen_cli_fail(int code, const char *cmd, const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "penstock%s%s: %s\n", cmd ? " " : "", cmd ? cmd : "", text);
	if (code == PEN_EXIT_USAGE)
		fprintf(stderr, _("Try 'penstock %s%s--help'.\n"), cmd ? cmd : "", cmd ? " " : "");
	return code;
}

static const struct {
	const char *spelling, *help;
} options[] = {
#define X(id, spelling, help) { spelling, help },
	PEN_CLI_OPTIONS(X)
#undef X
};

static const struct pen_own_option own_options[] = {
#define X(command, also, spelling, help) { command, also, spelling, help },
	PEN_CLI_OWN_OPTIONS(X)
#undef X
};

const struct pen_own_option *pen_own_option(size_t i)
{
	return i < PEN_ARRAY_LEN(own_options) ? &own_options[i] : NULL;
}

bool pen_own_option_of(const struct pen_own_option *o, const char *command)
{
	return !strcmp(o->command, command) || !strcmp(o->also, command);
}

void pen_cli_put_option(FILE *out, const char *spelling, const char *help)
{
	fputs("  ", out);
	pen_put_padded(out, spelling, OPTION_CELLS);
	fputs("  ", out);
	pen_put_folded(out, help, OPTION_CELLS + 4, HELP_CELLS);
}

void pen_cli_put_options(FILE *out, const struct pen_command *c)
{
	for (size_t i = 0; c && i < PEN_ARRAY_LEN(own_options); i++)
		if (pen_own_option_of(&own_options[i], c->name))
			pen_cli_put_option(out, own_options[i].spelling, _(own_options[i].help));
	for (size_t i = 0; i < PEN_ARRAY_LEN(options); i++)
		if (!c || c->takes & (1u << i))
			pen_cli_put_option(out, options[i].spelling, _(options[i].help));
	pen_cli_put_option(out, "-h, --help", _("help"));
}

static const struct pen_command *find_command(const char *name)
{
	for (size_t i = 0; i < PEN_ARRAY_LEN(commands); i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

void pen_cli_usage(FILE *out, const char *cmd)
{
	const struct pen_command *c = cmd ? find_command(cmd) : NULL;
	if (c) {
		fprintf(out, _("Usage: penstock %s %s\n"), cmd, c->args);
		fprintf(out, "%s\n\n", _(c->help));
		pen_cli_put_options(out, c);
		return;
	}
	fputs(_("Usage: penstock [OPTIONS] COMMAND [ARGS...]\n"
		"Share accelerators between containers and jobs, each within its contract.\n\n"
		"Commands:\n"), out);
	for (size_t i = 0; i < PEN_ARRAY_LEN(commands); i++)
		fprintf(out, "  %-12s%s\n", commands[i].name, _(commands[i].help));
	fputs(_("\nOptions, of commands that have a use for them ('penstock COMMAND --help' lists those):\n"), out);
	pen_cli_put_options(out, NULL);
	fputs(_("\nExit codes: 0 done, 1 failure, 2 usage, 3 daemon unreachable, 4 denied, 5 no such object;\n"
		"run: 125 Penstock's own error, 126 cannot execute, 127 not found, else the program's.\n"), out);
}

/* Notes that an option was given. Negative, reported: the command makes no use of it. */
static int note_option(struct pen_cli *cli, unsigned bits)
{
	cli->given |= bits;
	unsigned vain = cli->command ? cli->given & ~cli->command->takes : 0;
	if (!vain)
		return 1;
	pen_cli_fail(PEN_EXIT_USAGE, cli->command->name, _("it has no option '%s'"), options[__builtin_ctz(vain)].spelling);
	return -EINVAL;
}

static int parse_output(struct pen_cli *cli, const char *value)
{
	static const struct {
		const char *name;
		unsigned bits;
	} formats[] = { { "table", 0 }, { "wide", PEN_CLI_WIDE }, { "json", PEN_CLI_JSON }, { "name", PEN_CLI_NAME } };
	for (size_t i = 0; i < PEN_ARRAY_LEN(formats); i++)
		if (!strcmp(value, formats[i].name)) {
			cli->output = (enum pen_output)i;
			return note_option(cli, formats[i].bits);
		}
	pen_cli_fail(PEN_EXIT_USAGE, NULL, _("-o %s: allowed: table, wide, json, name"), value);
	return -EINVAL;
}

int pen_cli_global(struct pen_cli *cli, int argc, char **argv, int *i)
{
	const char *a = argv[*i];
	const char *value = NULL;
	bool is_output = !strcmp(a, "-o") || !strcmp(a, "--output");
	if (is_output || !strcmp(a, "--socket")) {
		if (*i + 1 >= argc) {
			pen_cli_fail(PEN_EXIT_USAGE, NULL, _("%s needs a value"), a);
			return -EINVAL;
		}
		value = argv[++*i];
	} else if (!strncmp(a, "--socket=", 9)) {
		value = a + 9;
	} else if (!strncmp(a, "--output=", 9)) {
		is_output = true;
		value = a + 9;
	}
	if (value) {
		++*i;
		if (is_output)
			return parse_output(cli, value);
		cli->socket = value;
		return note_option(cli, PEN_CLI_SOCKET);
	}
	unsigned bit = PEN_CLI_WATCH;
	if (!strcmp(a, "--no-headers")) {
		cli->no_headers = true;
		bit = PEN_CLI_HEADERS;
	} else if (!strcmp(a, "-q") || !strcmp(a, "--quiet")) {
		cli->quiet = true;
		bit = PEN_CLI_QUIET;
	} else if (!strcmp(a, "-w") || !strcmp(a, "--watch")) {
		cli->watch_s = 1;
	} else if (!strncmp(a, "--watch=", 8)) {
		char *end;
		cli->watch_s = strtod(a + 8, &end);
		if (*end || !(cli->watch_s >= 0.1 && cli->watch_s <= 3600)) {
			pen_cli_fail(PEN_EXIT_USAGE, NULL, _("--watch=%s: allowed: 0.1 to 3600 seconds"), a + 8);
			return -EINVAL;
		}
	} else {
		return 0;
	}
	++*i;
	return note_option(cli, bit);
}

int pen_cli_no_arguments(struct pen_cli *cli, int argc, char **argv)
{
	int n = pen_cli_arguments(cli, argc, argv);
	if (n <= 0)
		return n;
	pen_cli_fail(PEN_EXIT_USAGE, argv[0], _("unexpected argument '%s'"), argv[1]);
	return -EINVAL;
}

int pen_cli_arguments(struct pen_cli *cli, int argc, char **argv)
{
	int left = 0;
	for (int i = 1; i < argc;) {
		int r = argv[i][0] == '-' ? pen_cli_global(cli, argc, argv, &i) : 0;
		if (r < 0)
			return r;
		if (r)
			continue;
		if (argv[i][0] == '-' && argv[i][1]) {
			pen_cli_fail(PEN_EXIT_USAGE, argv[0], _("unknown option '%s'"), argv[i]);
			return -EINVAL;
		}
		argv[++left] = argv[i++];
	}
	return left;
}

void pen_cli_tell_unstored(const json_t *answer, const char *name)
{
	const char *why = pen_json_str(answer, "not_stored_because");
	if (*why)
		fprintf(stderr, _("penstock: %s stands, but is not on disk: %s; it is lost if the daemon ends\n"), name, why);
}

bool pen_cli_print_json(const struct pen_cli *cli, const json_t *answer)
{
	if (cli->output != PEN_OUT_JSON)
		return false;
	/* Watching: one object a line, so that a reader can split the stream. */
	json_dumpf(answer, stdout, cli->watch_s > 0 ? JSON_COMPACT : JSON_INDENT(2));
	putchar('\n');
	fflush(stdout);
	return true;
}

static json_t *checked(const struct pen_cli *cli, int r, json_t *answer, const char *tenant, const struct pen_err *err, int *ret_code)
{
	*ret_code = PEN_EXIT_OK;
	if (r == 200 && answer)
		return answer;
	json_decref(answer);
	if (r == 200)
		*ret_code = pen_cli_fail(PEN_EXIT_FAILURE, cli->command->name, _("the daemon's answer is no JSON"));
	else
		*ret_code = tenant ? pen_client_exit_tenant(cli, tenant, r, err) : pen_client_exit(cli->command->name, r, err);
	return NULL;
}

json_t *pen_cli_get(struct pen_cli *cli, const char *path, int *ret_code)
{
	struct pen_err err = PEN_ERR_INIT;
	json_t *answer = NULL;
	int r = pen_client_request(cli, "GET", path, NULL, &answer, &err);
	return checked(cli, r, answer, NULL, &err, ret_code);
}

json_t *pen_cli_get_tenant(struct pen_cli *cli, const char *name, const char *rest, int *ret_code)
{
	struct pen_err err = PEN_ERR_INIT;
	json_t *answer = NULL;
	char path[320] = "/v1/tenants/";
	pen_client_escape(path, sizeof(path) - 64, name);
	strncat(path, rest, 63);
	int r = pen_client_request(cli, "GET", path, NULL, &answer, &err);
	return checked(cli, r, answer, name, &err, ret_code);
}

int pen_cli_watch(struct pen_cli *cli, int (*once)(struct pen_cli *cli, void *arg), void *arg)
{
	for (;;) {
		int code = once(cli, arg);
		fflush(stdout);
		if (code != PEN_EXIT_OK || cli->watch_s <= 0)
			return code;
		double whole = (double)(time_t)cli->watch_s;
		nanosleep(&(struct timespec){ .tv_sec = (time_t)cli->watch_s,
					      .tv_nsec = (long)((cli->watch_s - whole) * 1e9) }, NULL);
		if (cli->output == PEN_OUT_TABLE || cli->output == PEN_OUT_WIDE)
			putchar('\n');
	}
}

int main(int argc, char **argv)
{
	pen_text_init(PEN_LOCALEDIR);
	pen_log_set_prefix("penstock");

	struct pen_cli cli = { 0 };
	int i = 1;
	while (i < argc && argv[i][0] == '-') {
		if (!strcmp(argv[i], "-h") || !strcmp(argv[i], "--help")) {
			pen_cli_usage(stdout, NULL);
			return PEN_EXIT_OK;
		}
		if (!strcmp(argv[i], "--version")) {
			char *version[] = { argv[i], NULL };
			return pen_cmd_version(&cli, 1, version);
		}
		int r = pen_cli_global(&cli, argc, argv, &i);
		if (r < 0)
			return PEN_EXIT_USAGE;
		if (!r)
			return pen_cli_fail(PEN_EXIT_USAGE, NULL, _("unknown option '%s'"), argv[i]);
	}
	if (i >= argc) {
		pen_cli_usage(stderr, NULL);
		return PEN_EXIT_USAGE;
	}
	if (!strcmp(argv[i], "drain") || !strcmp(argv[i], "undrain"))   /* short for `device drain`; what was at i - 1 is done with */
		argv[--i] = (char *)(uintptr_t)"device";
	cli.command = find_command(argv[i]);
	if (!cli.command)
		return pen_cli_fail(PEN_EXIT_USAGE, NULL, _("unknown command '%s'"), argv[i]);
	/* run, alloc and set print their own, longer help: the fields of a contract */
	if (i + 1 < argc && strcmp(argv[i], "run") && strcmp(argv[i], "alloc") && strcmp(argv[i], "set") &&
	    (!strcmp(argv[i + 1], "--help") || !strcmp(argv[i + 1], "-h"))) {
		pen_cli_usage(stdout, argv[i]);
		return PEN_EXIT_OK;
	}
	if (note_option(&cli, 0) < 0)
		return strcmp(argv[i], "run") ? PEN_EXIT_USAGE : PEN_EXIT_RUN_SELF;
	return cli.command->fn(&cli, argc - i, argv + i);
}
