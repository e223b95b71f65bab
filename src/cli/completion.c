/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock completion: scripts made from the command and field tables, so that they cannot fall behind. Names of tenants
 * are asked of the daemon at completion time with `ps -o name`.
 */
#include "base/auto.h"
#include "cli/cli.h"
#include "contract/contract.h"

#include <string.h>

static void words(const char *separator, bool live_only, bool commands)
{
	for (size_t i = 0;; i++) {
		const struct pen_command *c = commands ? pen_command(i) : NULL;
		const struct pen_contract_field *f = commands ? NULL : pen_contract_field(i);
		if (!c && !f)
			return;
		if (f && live_only && !f->live)
			continue;
		printf("%s%s%s", i ? separator : "", commands ? "" : "--", c ? c->name : f->name);
	}
}

static void bash(void)
{
	puts("# bash completion of penstock\n"
	     "_penstock()\n{\n"
	     "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd=${COMP_WORDS[1]}\n"
	     "\tif ((COMP_CWORD == 1)); then");
	printf("\t\tCOMPREPLY=($(compgen -W '");
	words(" ", false, true);
	puts("' -- \"$cur\")); return\n\tfi\n"
	     "\tcase $prev in\n"
	     "\t--class) COMPREPLY=($(compgen -W 'latency normal besteffort' -- \"$cur\")); return ;;\n"
	     "\t--contract) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
	     "\t-o|--output) COMPREPLY=($(compgen -W 'table wide json name' -- \"$cur\")); return ;;\n"
	     "\tesac\n"
	     "\tcase $cmd in\n"
	     "\trun)\n\t\tif [[ $cur == -* ]]; then");
	printf("\t\t\tCOMPREPLY=($(compgen -W '");
	words(" ", false, false);
	puts(" --contract --exclusive --wait --quiet' -- \"$cur\"))\n"
	     "\t\telse COMPREPLY=($(compgen -c -- \"$cur\")); fi ;;");
	printf("\tset)\n\t\tif [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '");
	words(" ", true, false);
	puts(" --force' -- \"$cur\"))\n"
	     "\t\telse COMPREPLY=($(compgen -W \"$(penstock ps -o name 2>/dev/null)\" -- \"$cur\")); fi ;;\n"
	     "\tps|inspect|why|end|usage) COMPREPLY=($(compgen -W \"$(penstock ps -o name 2>/dev/null)\" -- \"$cur\")) ;;\n"
	     "\tdevice) case $COMP_CWORD in 2) COMPREPLY=($(compgen -W 'ls drain undrain release' -- \"$cur\")) ;;\n"
	     "\t\t*) local IFS=$'\\n'; COMPREPLY=($(compgen -W \"$(penstock device ls -o name 2>/dev/null)\" -- \"$cur\")) ;; esac ;;\n"
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

static void fish(void)
{
	for (size_t i = 0;; i++) {
		const struct pen_command *c = pen_command(i);
		if (!c)
			break;
		printf("complete -c penstock -f -n __fish_use_subcommand -a %s -d ", c->name);
		quoted(c->help);
	}
	for (size_t i = 0;; i++) {
		const struct pen_contract_field *f = pen_contract_field(i);
		if (!f)
			break;
		printf("complete -c penstock -n '__fish_seen_subcommand_from run%s' -l %s -x -d ",
		       f->live ? " set" : "", f->name);
		quoted(f->help);
	}
	puts("complete -c penstock -f -n '__fish_seen_subcommand_from ps inspect why end usage set' "
	     "-a '(penstock ps -o name 2>/dev/null)'");
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
