/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock run: makes a tenant, starts the program with the layer in its way, passes signals and the exit code, and
 * says at the end what was used and which contract would have fitted.
 *
 * The program is started as a child and not exec'ed into: someone must print the summary and end the contract. A
 * terminal's signals (Ctrl-C, Ctrl-Z) reach the program by itself, since both are in one process group.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/inject.h"
#include "cli/run.h"
#include "cli/target.h"
#include "contract/contract.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXCLUSIVE_DEFAULT "10m"
#define RACE_NS (20 * PEN_S)   /* a cold machine with a slow disk; usually some 10 ms */

static void usage(const struct pen_cli *cli)
{
	puts(_("Usage: penstock run [OPTIONS] [--] PROGRAM [ARGS...]\n"
	       "Run a program under a contract. Without options it is accounted and not limited.\n\n"
	       "Contract (X = guaranteed and capped, X..Y = guaranteed..cap, X.. and ..Y likewise):"));
	for (size_t i = 0;; i++) {
		const struct pen_contract_field *f = pen_contract_field(i);
		if (!f)
			break;
		char option[64];
		snprintf(option, sizeof(option), "--%s %s", f->name, _(f->arg));
		pen_cli_put_option(stdout, option, _(f->help));
		pen_cli_put_option(stdout, "", _(f->allowed));
	}
	putchar('\n');
	pen_cli_put_options(stdout, cli->command);
	puts(_("\nExit code: the program's; 128 + n if it died of signal n; 125 Penstock's own error,\n"
	       "126 the program cannot be executed, 127 it was not found."));
}

static int fail(const char *text)
{
	return pen_cli_fail(PEN_EXIT_RUN_SELF, "run", "%s", text);
}

/* Takes one option. Return: 1 taken, 0 not an option (the program starts here), negative error (reported). */
static int parse_option(struct pen_run *run, int argc, char **argv, int *i)
{
	struct pen_err err = PEN_ERR_INIT;
	const char *a = argv[*i];
	if (a[0] != '-' || !a[1])
		return 0;
	if (!strcmp(a, "--")) {
		++*i;
		return 0;
	}
	if (!strcmp(a, "--wait")) {
		run->wait = true;
		++*i;
		return 1;
	}
	if (!strcmp(a, "--start")) {
		run->start = true;
		++*i;
		return 1;
	}
	if (!strcmp(a, "--exclusive") || !strncmp(a, "--exclusive=", 12)) {
		run->exclusive = a[11] ? a + 12 : EXCLUSIVE_DEFAULT;
		++*i;
		return 1;
	}
	int r = pen_cli_global(run->cli, argc, argv, i);
	if (r)
		return r;

	char name[64];
	const char *eq = strchr(a, '=');
	size_t len = eq ? (size_t)(eq - a) : strlen(a);
	if (len < 3 || a[1] != '-' || len - 2 >= sizeof(name)) {
		pen_cli_fail(PEN_EXIT_RUN_SELF, "run", _("unknown option '%s' (see 'penstock run --help')"), a);
		return -EINVAL;
	}
	memcpy(name, a + 2, len - 2);
	name[len - 2] = 0;
	bool file = !strcmp(name, "contract");
	if (!file && pen_contract_field_find(name) < 0) {
		pen_cli_fail(PEN_EXIT_RUN_SELF, "run", _("unknown option '%s' (see 'penstock run --help')"), a);
		return -EINVAL;
	}
	if (!eq && *i + 1 >= argc) {
		pen_cli_fail(PEN_EXIT_RUN_SELF, "run", _("--%s needs a value"), name);
		return -EINVAL;
	}
	const char *value = eq ? eq + 1 : argv[++*i];
	++*i;
	if (file && run->contract.set_mask) {   /* it would take the place of all that was said before it */
		pen_cli_fail(PEN_EXIT_RUN_SELF, "run", _("--contract must stand before the options that change what it says"));
		return -EINVAL;
	}
	r = file ? pen_contract_load_file(value, &run->contract, &err) :
		   pen_contract_set(&run->contract, name, value, &err);
	if (r < 0) {
		fail(err.text);
		return r;
	}
	return 1;
}

/* A name for a tenant that got none: the program's, made of what names may hold, and our pid. */
static void make_name(struct pen_contract *c, const char *program)
{
	const char *base = strrchr(program, '/');
	base = base ? base + 1 : program;
	char name[48];
	size_t n = 0;
	for (; *base && n < 40; base++) {
		char ch = (char)tolower((unsigned char)*base);
		if (isalnum((unsigned char)ch) || (n && strchr("._-", ch)))
			name[n++] = ch;
	}
	if (!n)
		name[n++] = 'x';
	name[n] = 0;
	snprintf(c->name, sizeof(c->name), "%s-%d", name, (int)getpid());
}

static json_t *post_body(const struct pen_run *run)
{
	json_t *body = json_object();
	json_object_set_new(body, "contract", pen_contract_to_json(&run->contract));
	json_object_set_new(body, "wait", json_boolean(run->wait));
	if (run->exclusive)
		json_object_set_new(body, "exclusive", json_string(run->exclusive));
	json_object_set_new(body, "ephemeral", json_true());
	json_object_set_new(body, "pid", json_integer(getpid()));
	return body;
}

static void tenant_path(const struct pen_run *run, char *buf, size_t n)
{
	snprintf(buf, n, "/v1/tenants/");
	pen_client_escape(buf, n, run->contract.name);
}

/* Waits in the daemon's queue; it says so once, since somebody may be looking at the terminal. */
static int wait_active(struct pen_run *run, json_t *tenant, struct pen_err *err)
{
	char path[256];
	tenant_path(run, path, sizeof(path));
	bool told = false;
	while (!strcmp(pen_json_str(tenant, "state"), "waiting")) {
		if (!told)
			fprintf(stderr, _("penstock: %s waits until its contract can be kept\n"), run->contract.name);
		told = true;
		nanosleep(&(struct timespec){ .tv_nsec = 100 * 1000 * 1000 }, NULL);
		json_t *now = NULL;
		int r = pen_client_request(run->cli, "GET", path, NULL, &now, err);
		if (r != 200) {
			json_decref(now);
			return r;
		}
		json_object_update(tenant, now);
		json_decref(now);
	}
	return 200;
}

/*
 * POST, starting a private daemon if there is none; where somebody named another place only if he said so, since a name that was
 * mistyped would otherwise get a daemon that knows of no other tenant. Others may be starting theirs at this moment, or the one there was may be
 * ending with its last tenant, so it is tried again for a while. Return: the status, or a negative errno.
 */
static int post_tenant(const struct pen_run *run, json_t *body, json_t **ret_answer, struct pen_err *err)
{
	char sock[PATH_MAX];
	bool is_private;
	int r = pen_client_socket(run->cli, sock, sizeof(sock), &is_private);
	for (uint64_t until = pen_mono_ns() + RACE_NS; r == 0;) {
		r = pen_client_request(run->cli, "POST", "/v1/tenants", body, ret_answer, err);
		if (r == -EHOSTDOWN && run->start)
			r = -ECONNREFUSED;
		if ((r != -ECONNREFUSED && (r != -ECONNRESET || !is_private)) || pen_mono_ns() > until)
			break;
		if (r == -ECONNREFUSED)
			r = pen_private_start(sock, err);
		if (r == -EBUSY || r == -ECONNRESET) {
			nanosleep(&(struct timespec){ .tv_nsec = 10 * 1000 * 1000 }, NULL);
			r = 0;
		}
	}
	return r;
}

/*
 * A name alone that is taken, by a contract of the configuration: the program runs under that one. If it is another
 * `penstock run`'s, the refusal stands. Return: a status; negative errno.
 */
static int join_standing(struct pen_run *run, json_t **answer, struct pen_err *err)
{
	char path[256];
	struct pen_err ignored = PEN_ERR_INIT;
	json_t *tenant = NULL;
	tenant_path(run, path, sizeof(path));
	int r = pen_client_request(run->cli, "GET", path, NULL, &tenant, &ignored);
	if (r != 200 || json_is_true(json_object_get(tenant, "ephemeral"))) {
		json_decref(tenant);
		return 409;
	}
	run->joined = true;
	json_decref(*answer);
	*answer = tenant;
	if (!run->wait && !strcmp(pen_json_str(tenant, "state"), "waiting"))
		return pen_err_x(err, -EAGAIN, _("contract '%s' waits until it can be kept; --wait waits with it"), run->contract.name);
	return 200;
}

static bool is_taken(const struct pen_run *run, int status, const json_t *answer)
{
	return status == 409 && !strcmp(pen_json_str(json_object_get(answer, "error"), "code"), "exists") &&
	       run->contract.set_mask == 1u << PEN_FIELD_name && !run->exclusive;   /* which a standing contract is not */
}

/* Makes the tenant, or finds it. Return: 0; else the exit code, reported. */
static int make_tenant(struct pen_run *run)
{
	struct pen_err err = PEN_ERR_INIT;
	json_t *answer = NULL;
	json_t *body = post_body(run);
	int r = post_tenant(run, body, &answer, &err);
	json_decref(body);
	if (is_taken(run, r, answer))
		r = join_standing(run, &answer, &err);
	if (r == 202 || r == 201 || r == 200)
		r = wait_active(run, answer, &err);
	if (r != 200) {
		json_decref(answer);
		if (r == -EHOSTDOWN)
			return pen_cli_fail(PEN_EXIT_RUN_SELF, "run", _("%s; --start starts a daemon of your own there"), err.text);
		return fail(err.text);
	}
	snprintf(run->dir, sizeof(run->dir), "%s", pen_json_str(answer, "dir"));
	run->created = json_real_value(json_object_get(answer, "created"));
	json_decref(answer);
	if (!*run->dir)
		return fail(_("the daemon named no tenant directory"));
	char token[PATH_MAX + 8];
	snprintf(token, sizeof(token), "%s/token", run->dir);
	if (access(token, R_OK) < 0)   /* the program would be refused, and could not say why */
		return pen_cli_fail(PEN_EXIT_RUN_SELF, "run", _("contract '%s' is not yours: %s: %s"), run->contract.name, token,
				    strerror(errno));
	return 0;
}

static volatile pid_t child_pid;   /* 0: it has none any more that a signal may go to */

static void pass_signal(int sig, siginfo_t *info, void *context)
{
	(void)context;
	/* From the terminal (si_code > 0: sent by the kernel) the program got it too, being in our process group. */
	if (info->si_code <= 0 && child_pid > 0)
		kill(child_pid, sig);
}

static const int passed_signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 };

static void handle_signals(void)
{
	struct sigaction sa = { .sa_sigaction = pass_signal, .sa_flags = SA_SIGINFO | SA_RESTART };
	for (size_t i = 0; i < PEN_ARRAY_LEN(passed_signals); i++) {
		struct sigaction was;
		/* nohup and shells with ignored signals: what was ignored stays so, for us and for the program. */
		if (sigaction(passed_signals[i], NULL, &was) == 0 && was.sa_handler != SIG_IGN)
			sigaction(passed_signals[i], &sa, NULL);
	}
}

/*
 * Its number may be another process's as soon as it is reaped, so it is forgotten before: a signal that comes between finds a
 * dead process or none. Return: 0; negative errno.
 */
static int reap(int *ret_status)
{
	pid_t pid = child_pid;
	siginfo_t info;
	while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) < 0)
		if (errno != EINTR)
			return -errno;
	child_pid = 0;
	while (waitpid(pid, ret_status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

/* Starts the program. Return: 0 and child_pid set; else the exit code, reported. */
static int start_program(struct pen_run *run)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return fail(strerror(errno));
	pen_auto_close int rd = ends[0];
	sigset_t block, old;
	sigfillset(&block);
	sigprocmask(SIG_BLOCK, &block, &old);   /* no signal between fork and the child's pid being known */
	pid_t pid = fork();
	if (pid == 0) {
		sigprocmask(SIG_SETMASK, &old, NULL);
		execvp(run->argv[0], run->argv);
		int e = errno;
		ssize_t w = write(ends[1], &e, sizeof(e));
		(void)w;
		_exit(127);
	}
	child_pid = pid;
	if (pid > 0)
		handle_signals();
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(ends[1]);
	if (pid < 0)
		return fail(strerror(errno));
	int e = 0;
	ssize_t n;
	while ((n = read(rd, &e, sizeof(e))) < 0 && errno == EINTR)
		;
	if (n != sizeof(e))
		return 0;
	reap(NULL);
	pen_cli_fail(PEN_EXIT_RUN_SELF, "run", "%s: %s", run->argv[0], strerror(e));
	return e == ENOENT ? PEN_EXIT_RUN_NOT_FOUND : PEN_EXIT_RUN_CANNOT;
}

static int wait_program(bool *ret_stopped)
{
	int status;
	if (reap(&status) < 0)
		return PEN_EXIT_RUN_SELF;
	int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	*ret_stopped = sig && sig != SIGSEGV && sig != SIGBUS && sig != SIGABRT && sig != SIGILL && sig != SIGFPE;
	return sig ? 128 + sig : WEXITSTATUS(status);
}

/* A contract of that name that began later is somebody else's. */
static bool is_ours(const struct pen_run *run, const json_t *tenant)
{
	return strcmp(pen_json_str(tenant, "state"), "ended") && json_real_value(json_object_get(tenant, "created")) == run->created;
}

static void summary(struct pen_run *run)
{
	struct pen_err err = PEN_ERR_INIT;
	char path[256];
	tenant_path(run, path, sizeof(path));
	json_t *tenant = NULL;
	int r = pen_client_request(run->cli, "GET", path, NULL, &tenant, &err);
	bool ended = r == 404 || (r == 200 && !is_ours(run, tenant));
	if (!run->cli->quiet && run->ran && run->joined && !ended)
		fprintf(stderr, _("penstock: ran under the standing contract %s; 'penstock inspect %s' shows its use\n"),
			run->contract.name, run->contract.name);
	else if (!run->cli->quiet && run->ran && r == 200 && !ended)
		pen_run_print_use(run, tenant);
	json_decref(tenant);
	/* Also with -q: it is the reason for what the program said of its device. */
	if (ended && run->ran)
		fprintf(stderr, _("penstock: contract %s was ended while the program ran; from then on its calls were refused\n"),
			run->contract.name);
	else if (r < 0 && run->ran)   /* a private one ends with its last contract */
		fprintf(stderr, _("penstock: the daemon is gone, and what %s used is not known; if its contract was ended, its calls were refused from then on\n"),
			run->contract.name);
	/* Should this fail, the daemon ends the contract itself: it watches our pid. */
	if (!ended && !run->joined)
		pen_client_request(run->cli, "DELETE", path, NULL, NULL, &err);
}

static void tell_doubt(const char *program)
{
	switch (pen_inject_doubt(program)) {
	case PEN_DOUBT_PRIVILEGED:
		fprintf(stderr, _("penstock: %s has more rights than you (set-uid, set-gid or capabilities): the loader keeps our layer and "
				  "libraries from it, so nothing of it is accounted or limited\n"), program);
		break;
	case PEN_DOUBT_STATIC:
		fprintf(stderr, _("penstock: %s is linked statically: it loads neither our layer nor our libraries, so only what it starts is "
				  "accounted and limited\n"), program);
		break;
	default:
		break;
	}
}

int pen_cmd_run(struct pen_cli *cli, int argc, char **argv)
{
	struct pen_run run = { .cli = cli };
	pen_contract_init(&run.contract);
	int i = 1;
	while (i < argc) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			usage(cli);
			return PEN_EXIT_OK;
		}
		bool dashes = !strcmp(argv[i], "--");
		int r = parse_option(&run, argc, argv, &i);
		if (r < 0)
			return PEN_EXIT_RUN_SELF;
		if (!r || dashes)
			break;
	}
	if (i >= argc)
		return fail(_("no program given (see 'penstock run --help')"));
	run.argv = argv + i;

	struct pen_err err = PEN_ERR_INIT;
	if (pen_contract_validate(&run.contract, &err) < 0)
		return fail(err.text);
	if (!*run.contract.name)
		make_name(&run.contract, run.argv[0]);
	int code = make_tenant(&run);
	if (code)
		return code;
	if (pen_inject(run.dir, &err) < 0) {
		summary(&run);
		return fail(err.text);
	}
	if (!cli->quiet)
		tell_doubt(run.argv[0]);
	if (!cli->quiet && run.exclusive)
		fprintf(stderr, _("penstock: %s has its device for itself, for %s at most\n"), run.contract.name, run.exclusive);
	if (!cli->quiet)
		pen_target_doubt(&run.contract, run.contract.name);
	run.started_ns = pen_mono_ns();
	run.code = start_program(&run);
	run.ran = run.code == 0;
	if (run.ran)
		run.code = wait_program(&run.stopped);
	summary(&run);
	return run.code;
}
