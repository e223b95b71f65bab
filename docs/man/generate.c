/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock-man-source: copies a page's template to stdout and puts lists that the program keeps in its own tables where
 * a line says @NAME@. A list that were typed here again would fall behind with the next field.
 *
 * scdoc text: a line "*term*" and, one tab deeper, its explanation.
 */
#include "base/auto.h"
#include "cli/cli.h"
#include "contract/config.h"

#include <string.h>

/* scdoc reads * and _ as emphasis, and \ as its escape. */
static void put(const char *s)
{
	for (; *s; s++) {
		if (strchr("*_\\#|[]<>", *s))
			putchar('\\');
		putchar(*s);
	}
}

static void item_head(const char *before, const char *term, const char *arg)
{
	printf("*%s", before);
	put(term);
	putchar('*');
	if (arg) {
		fputs(" _", stdout);
		put(arg);
		putchar('_');
	}
	putchar('\n');
}

static void item_body(const char *help, const char *allowed, const char *deflt)
{
	putchar('\t');
	put(help);
	fputs(".\n", stdout);
	fputs("\tAllowed: ", stdout);
	put(allowed);
	fputs(".\n", stdout);
	if (deflt && *deflt) {
		fputs("\tDefault: ", stdout);
		put(deflt);
		fputs(".\n", stdout);
	}
	putchar('\n');
}

/* @live_only: only those that can be changed while the tenant runs. */
static void fields(const char *before, bool live_only)
{
	const struct pen_contract_field *f;
	for (size_t i = 0; (f = pen_contract_field(i)); i++) {
		if (live_only && !f->live)
			continue;
		item_head(before, f->name, f->arg);
		item_body(f->help, f->allowed, f->deflt);
	}
}

static void run_options(void)
{
	fields("--", false);
}

static void set_options(void)
{
	fields("--", true);
}

static void contract_fields(void)
{
	const struct pen_contract_field *f;
	for (size_t i = 0; (f = pen_contract_field(i)); i++) {
		item_head("", f->name, f->arg);
		if (!f->live)
			puts("\tCannot be changed while the tenant runs.");
		item_body(f->help, f->allowed, f->deflt);
	}
}

static void config_rows(bool policy)
{
	struct pen_config_row row;
	for (size_t i = 0; pen_config_row(i, &row); i++) {
		if (policy != !strncmp(row.key, "policy.", 7))
			continue;
		item_head("", row.key, NULL);
		if (row.restart)
			puts("\tTakes effect when the daemon is started again.");
		item_body(row.help, row.allowed, row.deflt);
	}
}

static void config_keys(void)
{
	config_rows(false);
}

static void policy_keys(void)
{
	config_rows(true);
}

static void commands(void)
{
#define X(id, name, args, takes, help) printf("*penstock-%s*(1)\n\t%s.\n\n", name, help);
	PEN_COMMANDS(X)
#undef X
}

/* Of the command whose page this is; all of them for a page that is no command's. */
static unsigned takes = ~0u;

static void find_takes(const char *page)
{
	const char *slash = strrchr(page, '/');
	char start[64];
	page = slash ? slash + 1 : page;
#define X(id, name, args, takes_, help)                                  \
	snprintf(start, sizeof(start), "penstock-%s.1.", name);          \
	if (!strncmp(page, start, strlen(start)))                        \
		takes = takes_;
	PEN_COMMANDS(X)
#undef X
}

static void global_options(void)
{
	static const struct {
		const char *spelling, *help;
	} options[] = {
#define X(id, spelling, help) { spelling, help },
		PEN_CLI_OPTIONS(X)
#undef X
	};
	for (size_t i = 0; i < PEN_ARRAY_LEN(options); i++) {
		if (!(takes & (1u << i)))
			continue;
		item_head("", options[i].spelling, NULL);
		putchar('\t');
		put(options[i].help);
		puts(".\n");
	}
	puts("*-h, --help*\n\tHelp.\n");
}

static void exit_codes(void)
{
	printf("*%d*\n\tDone.\n\n*%d*\n\tFailure.\n\n*%d*\n\tUsage: an option, a field or a value that is not allowed.\n\n"
	       "*%d*\n\tNo daemon can be reached.\n\n*%d*\n\tDenied: not permitted, or refused because it cannot be kept.\n\n"
	       "*%d*\n\tNo such object.\n\n",
	       PEN_EXIT_OK, PEN_EXIT_FAILURE, PEN_EXIT_USAGE, PEN_EXIT_NO_DAEMON, PEN_EXIT_DENIED, PEN_EXIT_NO_OBJECT);
}

static void run_exit_codes(void)
{
	printf("*%d*\n\tPenstock's own error: an option, a contract that was refused, no daemon and none could be started.\n\n"
	       "*%d*\n\tThe program was found and could not be executed.\n\n"
	       "*%d*\n\tThe program was not found.\n\n"
	       "*128 + n*\n\tThe program died of signal n.\n\n"
	       "*others*\n\tThe program's own.\n\n",
	       PEN_EXIT_RUN_SELF, PEN_EXIT_RUN_CANNOT, PEN_EXIT_RUN_NOT_FOUND);
}

static const struct {
	const char *mark;
	void (*print)(void);
} lists[] = {
	{ "@run-options@\n", run_options },
	{ "@set-options@\n", set_options },
	{ "@contract-fields@\n", contract_fields },
	{ "@config-keys@\n", config_keys },
	{ "@policy-keys@\n", policy_keys },
	{ "@commands@\n", commands },
	{ "@global-options@\n", global_options },
	{ "@exit-codes@\n", exit_codes },
	{ "@run-exit-codes@\n", run_exit_codes },
};

int main(int argc, char **argv)
{
	char line[1024];
	pen_auto_fclose FILE *in = argc == 2 ? fopen(argv[1], "r") : NULL;
	if (!in) {
		fprintf(stderr, "usage: penstock-man-source TEMPLATE\n");
		return 2;
	}
	find_takes(argv[1]);
	while (fgets(line, sizeof(line), in)) {
		size_t i = 0;
		while (i < PEN_ARRAY_LEN(lists) && strcmp(line, lists[i].mark))
			i++;
		if (i < PEN_ARRAY_LEN(lists))
			lists[i].print();
		else if (line[0] == '@') {
			fprintf(stderr, "%s: no list is called %s", argv[1], line);
			return 1;
		} else {
			fputs(line, stdout);
		}
	}
	return ferror(in) || fflush(stdout) != 0;
}
