/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_CLI_CLI_H
#define PEN_CLI_CLI_H
/*
 * The command line: one file per sub-command, each a client of the control API (docs/API.md). Single-threaded.
 * Messages for people go through _() (contract/text.h); JSON, names and codes never do.
 */
#include "base/err.h"
#include "contract/text.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define _(s) pen_text(s)
#ifndef N_
#define N_(s) s
#endif

/* Exit codes; documented in penstock(1). `run` passes the program's own code once it has started. */
enum pen_exit {
	PEN_EXIT_OK = 0,
	PEN_EXIT_FAILURE = 1,
	PEN_EXIT_USAGE = 2,
	PEN_EXIT_NO_DAEMON = 3,
	PEN_EXIT_DENIED = 4,
	PEN_EXIT_NO_OBJECT = 5,
	PEN_EXIT_RUN_SELF = 125,
	PEN_EXIT_RUN_CANNOT = 126,
	PEN_EXIT_RUN_NOT_FOUND = 127,
};

enum pen_output { PEN_OUT_TABLE, PEN_OUT_WIDE, PEN_OUT_JSON, PEN_OUT_NAME };

/*
 * Options that several commands have, once: id, spelling, help. A command that would not heed one refuses it. Of a command
 * that prints anything but text for people, table is the default.
 */
#define PEN_CLI_OPTIONS(X)                                                                  \
	X(SOCKET, "--socket PATH", N_("control socket of the daemon"))                      \
	X(JSON, "-o json", N_("print JSON"))                                                \
	X(WIDE, "-o wide", N_("print a table with nothing cut short"))                      \
	X(NAME, "-o name", N_("print names only"))                                          \
	X(HEADERS, "--no-headers", N_("tables without a head line"))                        \
	X(WATCH, "-w, --watch[=SEC]", N_("print again every SEC seconds, 0.1 to 3600; 1 by default")) \
	X(QUIET, "-q, --quiet", N_("no summary and no notes"))
#define X(id, spelling, help) PEN_CLI_BIT_##id,
enum { PEN_CLI_OPTIONS(X) };
#undef X
#define X(id, spelling, help) PEN_CLI_##id = 1u << PEN_CLI_BIT_##id,
enum pen_cli_takes { PEN_CLI_OPTIONS(X) };
#undef X

struct pen_command;

/* What those options said. */
struct pen_cli {
	const struct pen_command *command;   /* NULL: its name has not come yet */
	unsigned given;          /* enum pen_cli_takes */
	const char *socket;      /* NULL: search */
	enum pen_output output;
	bool no_headers;
	double watch_s;          /* 0 = once */
	bool quiet;
};

/*
 * The sub-commands, once: name, arguments, options of PEN_CLI_OPTIONS (without PEN_CLI_) and summary for help, completion and the
 * reference page. Each is `int pen_cmd_<id>(struct pen_cli *cli, int argc, char **argv)` with argv[0] = its name; returns the exit
 * code.
 */
#define PEN_COMMANDS(X) \
	X(run, "run", "[OPTIONS] [--] PROGRAM [ARGS...]", PEN_CLI_SOCKET | PEN_CLI_QUIET, N_("run a program under a contract")) \
	X(alloc, "alloc", "[OPTIONS] --FIELD VALUE...", PEN_CLI_SOCKET | PEN_CLI_JSON | PEN_CLI_QUIET, \
	  N_("make a contract for a container, and print what its engine must be told")) \
	X(ps, "ps", "[OPTIONS] [NAME...]", \
	  PEN_CLI_SOCKET | PEN_CLI_JSON | PEN_CLI_WIDE | PEN_CLI_NAME | PEN_CLI_HEADERS | PEN_CLI_WATCH, \
	  N_("list tenants: what they may use and what they do use")) \
	X(top, "top", "[OPTIONS]", PEN_CLI_SOCKET | PEN_CLI_JSON | PEN_CLI_WATCH, N_("full-screen view of all tenants")) \
	X(inspect, "inspect", "[OPTIONS] NAME", PEN_CLI_SOCKET | PEN_CLI_JSON | PEN_CLI_WATCH, \
	  N_("everything about one tenant, and how each promise is kept here")) \
	X(why, "why", "[OPTIONS] NAME", PEN_CLI_SOCKET | PEN_CLI_JSON | PEN_CLI_WATCH, \
	  N_("what holds a tenant up")) \
	X(set, "set", "[OPTIONS] NAME --FIELD VALUE...", PEN_CLI_SOCKET | PEN_CLI_JSON | PEN_CLI_QUIET, \
	  N_("change a contract while it is in use")) \
	X(end, "end", "[OPTIONS] NAME...", PEN_CLI_SOCKET | PEN_CLI_QUIET, N_("end a contract")) \
	X(events, "events", "[OPTIONS] [--since ID]", PEN_CLI_SOCKET | PEN_CLI_JSON | PEN_CLI_WATCH, N_("what happened")) \
	X(usage, "usage", "[OPTIONS] NAME [--minutes N]", PEN_CLI_SOCKET | PEN_CLI_JSON | PEN_CLI_HEADERS, \
	  N_("what a tenant used, minute by minute")) \
	X(device, "device", "[OPTIONS] ls | drain [--wait] DEVICE... | undrain DEVICE... | release [--wait] DEVICE...", \
	  PEN_CLI_SOCKET | PEN_CLI_JSON | PEN_CLI_WIDE | PEN_CLI_NAME | PEN_CLI_HEADERS | PEN_CLI_WATCH, N_("accelerators of this node, and taking one out of use")) \
	X(config, "config", "check [FILE] | show [FILE] | reload [OPTIONS]", PEN_CLI_SOCKET | PEN_CLI_JSON, \
	  N_("check, show or reload the node's configuration")) \
	X(init, "init", "[--write [FILE]]", 0, N_("find the devices of this machine and propose a configuration")) \
	X(doctor, "doctor", "[OPTIONS]", PEN_CLI_SOCKET | PEN_CLI_JSON, \
	  N_("check this machine and say how to mend what is wrong")) \
	X(completion, "completion", "bash|zsh|fish", 0, N_("print a completion script for a shell")) \
	X(version, "version", "[OPTIONS]", PEN_CLI_SOCKET | PEN_CLI_JSON, N_("print versions of client and daemon"))

#define X(id, name, args, takes, help) int pen_cmd_##id(struct pen_cli *cli, int argc, char **argv);
PEN_COMMANDS(X)
#undef X

/*
 * Options of one command, or of one more that means the same by it, once: for help and completion. Fields of contracts are not
 * here (contract/contract.h).
 */
#define PEN_CLI_OWN_OPTIONS(X) \
	X("run", "", "--exclusive[=TIME]", \
	  N_("have the device for itself, for engine builds and autotuners: others wait; 10m, from 1s to 1h")) \
	X("run", "", "--start", N_("start a daemon of your own if none answers on the socket that was named")) \
	X("run", "alloc", "--contract FILE", N_("read a contract; options given after it change it")) \
	X("alloc", "", "--format FORMAT", \
	  N_("podman (default) or docker: options for its run; cdi: the name of a device for its --device; env: variables for a program of this machine")) \
	X("alloc", "", "--once", N_("the contract ends with the last process that has used it")) \
	X("run", "alloc", "--wait", N_("queue until the contract can be kept, instead of being refused")) \
	X("why", "", "--for TIME", N_("watch for so long, 0s to 1h, and add up; 1s by default, 0s: this moment alone")) \
	X("set", "", "--force", N_("lower the memory below what is in use: new allocations are then refused")) \
	X("end", "", "--force", N_("also where programs have it; their next calls fail")) \
	X("events", "", "--since ID", N_("those after the event of that number")) \
	X("usage", "", "--minutes N", N_("of the last N minutes, 60 by default, at most 180")) \
	X("device", "", "--wait", N_("drain, release: return when nobody is left on the device")) \
	X("init", "", "--write [FILE]", N_("write it to a new file, /etc/penstock/penstock.yaml by default"))

struct pen_own_option {
	const char *command, *also, *spelling, *help;
};
const struct pen_own_option *pen_own_option(size_t i);   /* NULL past the end */
bool pen_own_option_of(const struct pen_own_option *o, const char *command);

struct pen_command {
	const char *name, *args, *help;
	unsigned takes;   /* enum pen_cli_takes */
	int (*fn)(struct pen_cli *cli, int argc, char **argv);
};
const struct pen_command *pen_command(size_t i);   /* NULL past the end */

/*
 * Takes an option of PEN_CLI_OPTIONS, also -o table, if the command heeds it. @i is moved past it.
 * Return: 1 taken, 0 not one of these, negative: usage error, already reported.
 */
int pen_cli_global(struct pen_cli *cli, int argc, char **argv, int *i);
/*
 * For commands without options of their own: takes the global options wherever they stand and moves the others, in
 * order, to argv[1]... Return: number of arguments left (without argv[0]), negative: usage error, already reported.
 */
int pen_cli_arguments(struct pen_cli *cli, int argc, char **argv);
/* As above for those that take no more than options: anything else is a usage error. */
int pen_cli_no_arguments(struct pen_cli *cli, int argc, char **argv);
/* GET @path; for -o json prints the answer. Return: the answer (new reference), or NULL and *@ret_code set. */
json_t *pen_cli_get(struct pen_cli *cli, const char *path, int *ret_code);
/* GET /v1/tenants/@name@rest, likewise. */
json_t *pen_cli_get_tenant(struct pen_cli *cli, const char *name, const char *rest, int *ret_code);
/* Prints @answer as -o json asks. Return: true if that is all there is to print. */
bool pen_cli_print_json(const struct pen_cli *cli, const json_t *answer);
/* Of what a request made or changed, of a contract or device @name: a line on stderr if the daemon could not write it. */
void pen_cli_tell_unstored(const json_t *answer, const char *name);
/* Calls @once every watch interval, or once. Return: its first exit code that is not 0, or 0. */
int pen_cli_watch(struct pen_cli *cli, int (*once)(struct pen_cli *cli, void *arg), void *arg);
/* Prints "penstock CMD: text" and, for usage errors, where help is. Return: @code. */
int pen_cli_fail(int code, const char *cmd, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void pen_cli_usage(FILE *out, const char *cmd);
/* A command's own options, those of PEN_CLI_OPTIONS that it takes, and --help. NULL: all of the latter. */
void pen_cli_put_options(FILE *out, const struct pen_command *c);
/* One line of help; a long one is broken. */
void pen_cli_put_option(FILE *out, const char *spelling, const char *help);

/* ---- control API (client.c) ------------------------------------------------------------------------------------ */

/*
 * Path of the socket that will be asked: --socket, PENSTOCK_SOCKET, the system daemon's, the user's private one. *ret_private: it is
 * the last, on which alone a daemon is started that nobody asked for.
 */
int pen_client_socket(const struct pen_cli *cli, char *buf, size_t n, bool *ret_private);
/*
 * One request. Return: the HTTP status (200 ... 599) with *@ret (new reference, may be NULL) set to the answer;
 * -ECONNREFUSED no daemon; -EHOSTDOWN none where one was named; other negative errno. For a status of 400 and above @err holds the daemon's message.
 */
int pen_client_request(const struct pen_cli *cli, const char *method, const char *path, json_t *body, json_t **ret,
		       struct pen_err *err);
/* Server-sent events: calls @fn for each until it returns false or the connection ends. */
int pen_client_stream(const struct pen_cli *cli, const char *path, bool (*fn)(void *arg, const char *data), void *arg,
		      struct pen_err *err);
/* Exit code for a result of pen_client_request(); prints the error. */
int pen_client_exit(const char *cmd, int result, const struct pen_err *err);
/* As above, for a path below /v1/tenants/@name. */
int pen_client_exit_tenant(const struct pen_cli *cli, const char *name, int result, const struct pen_err *err);
/* Says that nobody has that name, and who has one like it; @tenants: those that there are. Return: PEN_EXIT_NO_OBJECT (near.c). */
int pen_cli_no_tenant(const char *cmd, const char *name, const json_t *tenants);
/* Appends %-encoded @text to a path. */
void pen_client_escape(char *buf, size_t n, const char *text);

/* A text of the daemon in the reader's language; English where the catalogue has none that fits (translate.c). Return: @buf. */
char *pen_cli_translate(const char *text, char *buf, size_t n);

/* ---- daemon of the user (private.c) ---------------------------------------------------------------------------- */

/*
 * Starts a private daemon on @socket and waits until it serves. Return: 0; -EBUSY another one is about to serve there, or
 * about to end; another negative errno.
 */
int pen_private_start(const char *socket, struct pen_err *err);
/* Finds a file of the installation, beside this program or in the build tree. Return: 0; -ENOENT. */
int pen_install_path(const char *const *relative, char *buf, size_t n);

/* ---- devices out of use (drain.c), for device.c ----------------------------------------------------------------- */

/* As pen_cli_arguments(), and takes --wait. */
int pen_drain_arguments(struct pen_cli *cli, int argc, char **argv, bool *ret_wait);
bool pen_drain_is_verb(const char *verb, bool wait);   /* @wait: it can be waited for */
int pen_drain_run(struct pen_cli *cli, const char *verb, bool wait, int n, char **devices);

/* Interfaces of a device, "cuda+opencl": one word (device.c). Return: @buf. */
char *pen_device_apis(char *buf, size_t n, const json_t *device);

/* ---- tables (table.c) ------------------------------------------------------------------------------------------ */

/* Columns align to their widest cell (in character cells, not bytes); the last is not padded. */
struct pen_table;
struct pen_table *pen_table_create(size_t columns);
void pen_table_row(struct pen_table *t, const char *const *cells);   /* copies; NULL cell = "-" */
void pen_table_print(const struct pen_table *t, FILE *out, bool skip_first);
/*
 * Makes it fit a terminal. @drop, borrowed, says for each column when it goes: 1 first, 0 never; one that is PEN_COLUMN_CUT is
 * cut instead. What is no terminal gets everything.
 */
#define PEN_COLUMN_CUT 255
void pen_table_fit(struct pen_table *t, const unsigned char *drop);
void pen_table_destroy(struct pen_table *t);
/* @text and blanks up to @cells character cells; printf's width counts bytes, which misaligns Chinese. */
void pen_put_padded(FILE *out, const char *text, size_t cells);
/* As above, and cut to @cells, with a '.' where something is missing. */
void pen_put_cut(FILE *out, const char *text, size_t cells);
char *pen_cut(char *buf, size_t n, const char *text, size_t cells);   /* the same into @buf, which is returned */
/* @text and a newline, broken before @width cells; lines after the first begin with @indent blanks, which the first has before it. */
void pen_put_folded(FILE *out, const char *text, size_t indent, size_t width);

/* JSON helpers: 0/"" when absent or of another type, so that an older daemon is no crash. */
long long pen_json_int(const json_t *o, const char *key);
const char *pen_json_str(const json_t *o, const char *key);

#endif
