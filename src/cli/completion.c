/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock completion: scripts made from the command and field tables, so that they cannot fall behind. Names of tenants
 * are asked of the daemon at completion time with `ps -o name`.
 */
#include "base/auto.h"
#include "cli/cli.h"
#include "contract/contract.h"

#include <string.h>

#define NAMES "ps inspect why set end usage"   /* commands that take names of tenants */

static bool is_one_of(const char *words, const char *word)
{
	size_t n = strlen(word);
	for (const char *at = words; (at = strstr(at, word)); at += n)
		if ((at == words || at[-1] == ' ') && (!at[n] || at[n] == ' '))
			return true;
	return false;
}

static bool has_fields(const struct pen_command *c)
{
	return is_one_of("run alloc set", c->name);
}

/* The last way of writing it: "-w, --watch[=SEC]" is --watch; *ret_value: one must follow it. */
static void option_word(const char *spelling, char *buf, size_t n, bool *ret_value)
{
	const char *comma = strrchr(spelling, ',');
	const char *at = comma ? comma + 2 : spelling;
	size_t len = strcspn(at, " [=");
	snprintf(buf, n, "%.*s", (int)len, at);
	*ret_value = at[len] == ' ' && at[len + 1] != '[';
}

/* Calls @fn for each option of the command, those of -o once. */
static void each_option(const struct pen_command *c, void (*fn)(const char *word, const char *help, bool value))
{
	static const struct {
		const char *spelling, *help;
	} common[] = {
#define X(id, spelling, help) { spelling, help },
		PEN_CLI_OPTIONS(X)
#undef X
	};
	char word[64], last[64] = "";
	bool value;
	const struct pen_contract_field *f;
	for (size_t i = 0; has_fields(c) && (f = pen_contract_field(i)); i++) {
		snprintf(word, sizeof(word), "--%s", f->name);
		if (f->live || strcmp(c->name, "set"))
			fn(word, f->help, true);
	}
	const struct pen_own_option *o;
	for (size_t i = 0; (o = pen_own_option(i)); i++)
		if (pen_own_option_of(o, c->name)) {
			option_word(o->spelling, word, sizeof(word), &value);
			fn(word, o->help, value);
		}
	for (size_t i = 0; i < PEN_ARRAY_LEN(common); i++) {
		if (!(c->takes & (1u << i)))
			continue;
		option_word(common[i].spelling, word, sizeof(word), &value);
		if (strcmp(word, last))
			fn(word, common[i].help, value);
		strcpy(last, word);
	}
	fn("--help", "help", false);
}

static void put_word(const char *word, const char *help, bool value)
{
	(void)help, (void)value;
	printf(" %s", word);
}

static void bash(void)
{
	const struct pen_command *c;
	puts("# bash completion of penstock\n"
	     "_penstock()\n{\n"
	     "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd=${COMP_WORDS[1]} options=");
	printf("\tif ((COMP_CWORD == 1)); then\n\t\tCOMPREPLY=($(compgen -W '");
	for (size_t i = 0; (c = pen_command(i)); i++)
		printf("%s ", c->name);
	puts("drain undrain' -- \"$cur\")); return\n\tfi\n"
	     "\tcase $prev in\n"
	     "\t--class) COMPREPLY=($(compgen -W 'latency normal besteffort' -- \"$cur\")); return ;;\n"
	     "\t--format) COMPREPLY=($(compgen -W 'podman docker cdi env' -- \"$cur\")); return ;;\n"
	     "\t--device) local IFS=$'\\n'; COMPREPLY=($(compgen -W \"$(penstock device ls -o name 2>/dev/null)\" -- \"$cur\")); return ;;\n"
	     "\t--contract|--socket) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
	     "\t-o|--output) COMPREPLY=($(compgen -W 'table wide json name' -- \"$cur\")); return ;;\n"
	     "\tesac\n"
	     "\tcase $cmd in");
	for (size_t i = 0; (c = pen_command(i)); i++) {
		printf("\t%s) options='", c->name);
		each_option(c, put_word);
		puts("' ;;");
	}
	puts("\tdrain) options='--wait --socket -o --help' ;;\n"
	     "\tesac\n"
	     "\tif [[ $cur == -* ]]; then COMPREPLY=($(compgen -W \"$options\" -- \"$cur\")); return; fi\n"
	     "\tcase $cmd in\n"
	     "\trun) COMPREPLY=($(compgen -c -- \"$cur\")) ;;");
	printf("\t");
	for (const char *p = NAMES; *p; p++)
		putchar(*p == ' ' ? '|' : *p);
	puts(") COMPREPLY=($(compgen -W \"$(penstock ps -o name 2>/dev/null)\" -- \"$cur\")) ;;\n"
	     "\tdevice|drain|undrain) if [[ $cmd == device && $COMP_CWORD == 2 ]]; then COMPREPLY=($(compgen -W 'ls drain undrain release' -- \"$cur\"))\n"
	     "\t\telse local IFS=$'\\n'; COMPREPLY=($(compgen -W \"$(penstock device ls -o name 2>/dev/null)\" -- \"$cur\")); fi ;;\n"
	     "\tconfig) COMPREPLY=($(compgen -W 'check show reload' -- \"$cur\")) ;;\n"
	     "\tcompletion) COMPREPLY=($(compgen -W 'bash zsh fish' -- \"$cur\")) ;;\n"
	     "\tesac\n}\ncomplete -F _penstock penstock");
}

static void zsh(void)
{
	/* zsh runs bash completions as they are; one script to keep right instead of two. */
	puts("#compdef penstock\nautoload -U +X bashcompinit && bashcompinit");
	bash();
}

/* 'text' for fish, which takes \' inside single quotes. */
static void quoted(const char *text)
{
	putchar('\'');
	for (; *text; text++)
		printf(strchr("'\\", *text) ? "\\%c" : "%c", *text);
	puts("'");
}

static const char *fish_command;

static void fish_option(const char *word, const char *help, bool value)
{
	bool is_long = word[1] == '-';
	printf("complete -c penstock -n '__fish_seen_subcommand_from %s' -%c %s%s -d ", fish_command, is_long ? 'l' : 's',
	       word + 1 + is_long, value ? " -x" : "");
	quoted(help);
}

static void fish(void)
{
	const struct pen_command *c;
	for (size_t i = 0; (c = pen_command(i)); i++) {
		printf("complete -c penstock -f -n __fish_use_subcommand -a %s -d ", c->name);
		quoted(c->help);
	}
	for (size_t i = 0; (c = pen_command(i)); i++) {
		fish_command = c->name;
		each_option(c, fish_option);
	}
	puts("complete -c penstock -f -n '__fish_seen_subcommand_from " NAMES "' -a '(penstock ps -o name 2>/dev/null)'");
}

int pen_cmd_completion(struct pen_cli *cli, int argc, char **argv)
{
	static const struct {
		const char *shell;
		void (*print)(void);
	} shells[] = { { "bash", bash }, { "zsh", zsh }, { "fish", fish } };
	int n = pen_cli_arguments(cli, argc, argv);
	if (n < 0)
		return PEN_EXIT_USAGE;
	for (size_t i = 0; n == 1 && i < PEN_ARRAY_LEN(shells); i++)
		if (!strcmp(argv[1], shells[i].shell)) {
			shells[i].print();
			return PEN_EXIT_OK;
		}
	return pen_cli_fail(PEN_EXIT_USAGE, "completion", _("which shell? allowed: bash, zsh, fish"));
}
