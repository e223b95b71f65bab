/* SPDX-License-Identifier: Apache-2.0 */
/* penstock-simgpu: the simulated accelerator's device server. docs/SIMGPU.md is its manual. */
#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "simgpu/server/server.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define CARDS "T4, A2, A10, L4, A30, A100-40, A100-80, H100-80, H200-141, Orin"

#define OPTIONS(X) \
	X("socket", 's', "PATH", "where clients connect; PENSTOCK_SIMGPU=PATH for them") \
	X("card", 'c', "NAME|FILE", "a device: " CARDS ", or a card file; may be repeated") \
	X("mode", 'm', "MODE", "timeslice: contexts take turns, as without MPS (default); concurrent: as with it") \
	X("slice", 'S', "MS", "length of a turn, in place of the card's") \
	X("scale", 'x', "X", "real time is X times the model's: 10 = ten times slower than the card") \
	X("memory", 'M', "BYTES", "memory of each device, in place of the card's: 4G") \
	X("spin", 'p', "US", "wake up this long before an event and burn the rest; default 60") \
	X("nice", 'n', "N", "of the thread that is the device; default -15, where that is permitted") \
	X("realtime", 'r', NULL, "that thread goes before all others (SCHED_RR), where that is permitted: for benchmarks") \
	X("hollow", 'H', "BYTES", "larger copies and fills take their time and move nothing: for benchmarks of bandwidth") \
	X("workers", 'w', "N", "threads that move clients' bytes; 1 to 4, default 1") \
	X("foreground", 'f', NULL, "stay; without it the server goes to the background once it is ready") \
	X("help", 'h', NULL, "this list") \
	X("version", 'V', NULL, "print the version")

struct options {
	const char *socket, *cards[SIM_DEVICES];
	unsigned n;
	bool concurrent, foreground, realtime;
	double slice_ms, scale;
	uint64_t memory_bytes, hollow_bytes, spin_us;
	unsigned workers;
	int nice;
};

static void print_help(void)
{
	puts("usage: penstock-simgpu --socket PATH --card NAME [options]\n\nA simulated accelerator for programs that use the stand-in vendor "
	     "libraries.\n");
#define X(name, code, arg, help)                                                            \
	{                                                                                   \
		const char *a = arg;                                                        \
		char left[40];                                                              \
		snprintf(left, sizeof(left), "--%s%s%s", name, a ? " " : "", a ? a : "");   \
		printf("  %-20s %s\n", left, help);                                         \
	}
	OPTIONS(X)
#undef X
	puts("\nExit code: 0 ended as asked, 1 could not run, 2 usage.");
}

static int number(const char *name, const char *s, double least, double most, double *ret, struct pen_err *err)
{
	char *end;
	errno = 0;
	double v = strtod(s, &end);
	if (errno || end == s || *end || !(v >= least && v <= most))
		return pen_err_x(err, -EINVAL, "--%s: '%s' is not a number from %g to %g", name, s, least, most);
	*ret = v;
	return 0;
}

static int take_option(struct options *o, int code, const char *arg, struct pen_err *err)
{
	double v = 0;
	int r = 0;
	switch (code) {
	case 's':
		o->socket = arg;
		break;
	case 'c':
		if (o->n == SIM_DEVICES)
			return pen_err_x(err, -EINVAL, "--card: at most %d devices", SIM_DEVICES);
		o->cards[o->n++] = arg;
		break;
	case 'm':
		if (strcmp(arg, "timeslice") && strcmp(arg, "concurrent"))
			return pen_err_x(err, -EINVAL, "--mode: '%s' is not timeslice or concurrent", arg);
		o->concurrent = *arg == 'c';
		break;
	case 'S':
		return number("slice", arg, 0.01, 10000, &o->slice_ms, err);
	case 'x':
		return number("scale", arg, 0.001, 10000, &o->scale, err);
	case 'M':
		if (pen_parse_bytes(arg, &o->memory_bytes) < 0 || o->memory_bytes < SIM_PAGE_BYTES)
			return pen_err_x(err, -EINVAL, "--memory: '%s' is not a size such as 4G, 2M at least", arg);
		break;
	case 'H':
		if (pen_parse_bytes(arg, &o->hollow_bytes) < 0)
			return pen_err_x(err, -EINVAL, "--hollow: '%s' is not a size such as 64K", arg);
		break;
	case 'p':
		r = number("spin", arg, 0, 1000000, &v, err);
		o->spin_us = (uint64_t)v;
		break;
	case 'n':
		r = number("nice", arg, -20, 19, &v, err);
		o->nice = (int)v;
		break;
	case 'w':
		r = number("workers", arg, 1, 4, &v, err);
		o->workers = (unsigned)v;
		break;
	case 'r':
		o->realtime = true;
		break;
	default:
		o->foreground = true;
		break;
	}
	return r;
}

/* Return: -1 go on, else the exit code. */
static int parse_options(int argc, char **argv, struct options *o)
{
#define X(name, code, arg, help) { name, (arg) != NULL ? required_argument : no_argument, NULL, code },
	static const struct option list[] = { OPTIONS(X) { NULL, 0, NULL, 0 } };
#undef X
	struct pen_err err = PEN_ERR_INIT;
	int code;
	while ((code = getopt_long(argc, argv, "", list, NULL)) != -1) {
		if (code == '?')
			return 2;
		if (code == 'h') {
			print_help();
			return 0;
		}
		if (code == 'V') {
			puts("penstock-simgpu " PEN_VERSION);
			return 0;
		}
		if (take_option(o, code, optarg, &err) < 0) {
			fprintf(stderr, "penstock-simgpu: %s\n", err.text);
			return 2;
		}
	}
	if (optind < argc || !o->socket || !o->n) {
		fprintf(stderr, "penstock-simgpu: %s%s\n", optind < argc ? "too many arguments: " : !o->socket ? "--socket is missing" :
			"--card is missing", optind < argc ? argv[optind] : "");
		return 2;
	}
	return -1;
}

/* ---- cards ---- */

static int read_file(const char *path, char *text, size_t room, size_t *ret_len)
{
	pen_auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t n = read(fd, text, room);
	if (n < 0)
		return -errno;
	if ((size_t)n == room)
		return -EFBIG;
	*ret_len = (size_t)n;
	return 0;
}

/* Card files lie beside the program, or where they were installed. */
static void card_path(const char *name, bool installed, char *path, size_t n)
{
	char exe[1024];
	ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	exe[len > 0 ? len : 0] = 0;
	char *slash = strrchr(exe, '/');
	if (slash)
		*slash = 0;
	snprintf(path, n, "%s/%s/%s.card", exe, installed ? "../share/penstock/cards" : "../cards", name);
}

static int load_card(const char *name, struct pen_card *ret_card, struct pen_err *err)
{
	char path[2048], text[16384];
	size_t len = 0;
	int r;
	if (strchr(name, '/') || strstr(name, ".card")) {
		snprintf(path, sizeof(path), "%s", name);
		r = read_file(path, text, sizeof(text), &len);
	} else {
		card_path(name, false, path, sizeof(path));
		r = read_file(path, text, sizeof(text), &len);
		if (r == -ENOENT) {
			card_path(name, true, path, sizeof(path));
			r = read_file(path, text, sizeof(text), &len);
		}
	}
	if (r == -ENOENT && !strchr(name, '/'))
		return pen_err_x(err, r, "card '%s': none of that name; there are " CARDS, name);
	if (r < 0)
		return pen_err_sys(err, r, "card '%s'", path);
	return pen_card_parse(text, len, path, ret_card, err);
}

/* What clients are told of a card; address and UUID are made up, the same in every run. */
static void tell_card(struct sim_dev *d, bool concurrent)
{
	const struct pen_card *c = &d->card;
	struct sim_card *t = &d->told;
	*t = (struct sim_card){
		.pci_bus = 0x10 + d->index * 0x10, .cc_major = c->cc / 10, .cc_minor = c->cc % 10, .units = c->units,
		.threads_per_unit = c->threads_per_unit, .blocks_per_unit = c->blocks_per_unit,
		.smem_per_unit = (uint32_t)c->smem_per_unit_bytes, .regs_per_unit = c->regs_per_unit,
		.smem_per_block_optin = (uint32_t)c->smem_per_block_optin_bytes, .l2_bytes = (uint32_t)c->l2_bytes,
		.clock_khz = c->clock_khz, .mem_clock_khz = c->mem_clock_khz, .mem_bus_bits = c->mem_bus_bits,
		.copy_engines = c->copy_engines, .mem_bytes = c->mem_bytes / SIM_PAGE_BYTES * SIM_PAGE_BYTES,
		.context_bytes = (c->context_bytes + SIM_PAGE_BYTES - 1) / SIM_PAGE_BYTES * SIM_PAGE_BYTES,
		.dram_bytes_per_s = c->dram_bytes_per_s, .pcie_bytes_per_s = c->pcie_bytes_per_s, .launch_ns = c->launch_ns,
		.slice_ns = c->slice_ns, .integrated = c->integrated, .mig = c->mig,
	};
	snprintf(t->name, sizeof(t->name), "%s", c->name);
	snprintf(t->mode, sizeof(t->mode), "%s", concurrent ? "concurrent" : "timeslice");
	uint64_t hash = UINT64_C(14695981039346656037);   /* FNV-1a over the name, then the number */
	for (const char *p = c->name; *p; p++)
		hash = (hash ^ (unsigned char)*p) * UINT64_C(1099511628211);
	memcpy(t->uuid, "simgpu", 6);
	t->uuid[7] = (uint8_t)d->index;
	memcpy(t->uuid + 8, &hash, 8);
}

static int setup_device(struct sim_server *s, const struct options *o, unsigned i, struct pen_err *err)
{
	struct sim_dev *d = &s->dev[i];
	int r = load_card(o->cards[i], &d->card, err);
	if (r < 0)
		return r;
	if (o->slice_ms > 0)
		d->card.slice_ns = (uint64_t)(o->slice_ms * 1e6);
	if (o->memory_bytes)
		d->card.mem_bytes = o->memory_bytes;
	d->server = s;
	d->index = i;
	d->noise = i + 1;
	d->sampled_ns = s->start_ns;
	tell_card(d, o->concurrent);
	struct pen_model_hooks hooks = sim_hooks;
	hooks.user = s;
	r = pen_model_create(&d->card, o->concurrent, s->start_ns, &hooks, &d->model);
	return r < 0 ? pen_err_x(err, r, "no memory for a model") : 0;
}

static int setup(struct sim_server *s, const struct options *o, struct pen_err *err)
{
	pthread_mutex_init(&s->lock, NULL);
	TAILQ_INIT(&s->procs);
	TAILQ_INIT(&s->accounts);
	TAILQ_INIT(&s->to_publish);
	TAILQ_INIT(&s->polled);
	s->scale = o->scale;
	s->nice = o->nice;
	s->realtime = o->realtime;
	s->hollow_bytes = o->hollow_bytes;
	s->concurrent = o->concurrent;
	s->start_ns = pen_mono_ns();
	s->spin_ns = o->spin_us * PEN_US;
	s->bell = sim_shared_page(sizeof(*s->bell), "simgpu-bell", &s->bell_fd);
	if (!s->bell)
		return pen_err_x(err, -ENOMEM, "no memory for the bell");
	for (unsigned i = 0; i < o->n; i++) {
		int r = setup_device(s, o, i, err);
		if (r < 0)
			return r;
		s->devs++;
	}
	return 0;
}

static void cleanup(struct sim_server *s)
{
	struct sim_account *a;
	for (unsigned i = 0; i < s->devs; i++)
		pen_model_destroy(s->dev[i].model);
	while ((a = TAILQ_FIRST(&s->accounts))) {
		TAILQ_REMOVE(&s->accounts, a, link);
		free(a);
	}
	if (s->bell) {
		munmap(s->bell, sizeof(*s->bell));
		close(s->bell_fd);
	}
	free(s->block);
	pthread_mutex_destroy(&s->lock);
}

/*
 * To the background: the child goes on, the parent stays until it is ready or has ended. Before any thread there is.
 * @ret_ready: where the child says so. Return: -1 in the child, else the parent's exit code.
 */
static int go_behind(int *ret_ready)
{
	int ends[2];
	char byte;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return 1;
	pid_t pid = fork();
	if (pid) {
		close(ends[1]);
		int code = pid > 0 && read(ends[0], &byte, 1) == 1 ? 0 : 1;
		close(ends[0]);
		return code;
	}
	close(ends[0]);
	setsid();
	*ret_ready = ends[1];
	return -1;
}

/* Where the kernel groups by session, a thread's nice counts within its session only. One of our own is raised as well. */
static void favour_session(int nice)
{
	pen_auto_fclose FILE *f = getsid(0) == getpid() ? fopen("/proc/self/autogroup", "we") : NULL;
	if (f)
		fprintf(f, "%d", nice);
}

static int run(struct sim_server *s, const struct options *o, struct pen_err *err)
{
	pthread_t engine;
	favour_session(o->nice);
	if (sim_workers_start(s, o->workers) < 0 || sim_engine_start(s, &engine) < 0)
		return pen_err_x(err, -EAGAIN, "cannot start threads");
	int r = sim_control_run(s, o->socket, err);
	atomic_store(&s->stop, 1);
	sim_kick(s);
	pthread_join(engine, NULL);
	sim_workers_stop(s);
	return r;
}

int main(int argc, char **argv)
{
	struct options o = { .scale = 1, .hollow_bytes = UINT64_MAX, .spin_us = 60, .workers = 1, .nice = -15 };
	struct pen_err err = PEN_ERR_INIT;
	static struct sim_server server;   /* too large for a stack */

	int code = parse_options(argc, argv, &o);
	if (code >= 0)
		return code;
	server.ready_fd = -1;
	if (!o.foreground && (code = go_behind(&server.ready_fd)) >= 0)
		return code;
	int r = setup(&server, &o, &err);
	if (r == 0)
		r = run(&server, &o, &err);
	cleanup(&server);
	if (r < 0) {
		fprintf(stderr, "penstock-simgpu: %s\n", err.text);
		return 1;
	}
	return 0;
}
