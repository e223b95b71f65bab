/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Load generator of the benchmarks: an ordinary program that knows nothing of Penstock. Built once for each API (work.h).
 *
 * It prints READY when its kernel is built and warmed up, then reads commands from stdin and answers each with one line:
 *   run START STOP SEED TAG   work from START to STOP (ns of CLOCK_MONOTONIC; STOP of 0: until --count); answers DONE TAG n
 *   quit                      (or end of input) checks the counters and ends
 * so that one warm process serves many short blocks. With --start it needs no commands: it runs once and ends.
 *
 * Files, written between blocks so that writing disturbs nothing. FILE is that of --out:
 *   FILE          tag,release_ns,start_ns,end_ns,units    one line a request; in mode saturate one a batch
 *   FILE.events   tag,enqueued_ns,start_ns,end_ns         one line a launch, device stamps (--events)
 *   FILE.cpu      tag,t_ns,cpu_ns                         CPU time of the threads that the driver started (--cpu-bins)
 * With --procs N, process i adds .i to FILE.
 */
#include "work.h"
#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LATE_NS 100000u /* a periodic request that is late starts this long after the previous one ended */
#define INFLIGHT_MAX 16
#define THREADS_MAX 64

enum mode { MODE_PERIODIC, MODE_POISSON, MODE_SATURATE };

struct record {
	uint64_t release, start, end;
	unsigned units;
};

struct options {
	struct work_config *work;
	enum mode mode;
	double interval_ms, duration_s;
	uint64_t seed, start_ns, cpu_bin_ns, calibrate_ns;
	unsigned kernels, finish_every, inflight, procs, count;
	bool open_loop, once;
	const char *out;
};

struct run {
	const struct options *o;
	struct work *work;
	struct record *records;
	size_t nrecords, room;
	uint64_t rng;
	FILE *out, *events, *cpu;
};

static const char usage[] =
	"[--mode periodic|poisson|saturate] [--interval-ms F] [--open] [--kernels K] [--procs N] [--finish-every N]\n"
	"  [--inflight N] [--cpu-bins MS] [--seed N] [--out FILE] [--calibrate MS | --start NS|now [--duration S | --count N]]\n";

static uint64_t random_u64(uint64_t *state) /* splitmix64: the same arrivals from the same seed everywhere */
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static double next_interval_ns(struct run *r)
{
	double mean = r->o->interval_ms * 1e6;

	if (r->o->mode != MODE_POISSON)
		return mean;
	return -mean * log1p(-(double)(random_u64(&r->rng) >> 11) * 0x1p-53);
}

static int record(struct run *r, uint64_t release, uint64_t start, uint64_t end, unsigned units)
{
	if (r->nrecords == r->room) {
		size_t room = r->room ? 2 * r->room : 4096;
		struct record *more = realloc(r->records, room * sizeof(*more));

		if (!more)
			return -1;
		r->records = more;
		r->room = room;
	}
	r->records[r->nrecords++] = (struct record){ release, start, end, units };
	return 0;
}

static int one_request(struct run *r, unsigned q)
{
	for (unsigned k = 0; k < r->o->kernels; k++)
		if (work_launch(r->work, q, k, NULL))
			return -1;
	return work_finish(r->work, q);
}

static bool is_over(const struct run *r, uint64_t t, uint64_t stop)
{
	return (stop && t >= stop) || (r->o->count && r->nrecords >= r->o->count);
}

static int run_requests(struct run *r, uint64_t start, uint64_t stop)
{
	/* Poisson arrivals do not wait for the previous request; periodic ones do unless --open */
	bool open_loop = r->o->open_loop || r->o->mode == MODE_POISSON;
	double next = (double)start + (r->o->mode == MODE_POISSON ? next_interval_ns(r) : 0);

	for (unsigned i = 0; !is_over(r, (uint64_t)next, stop); i++) {
		uint64_t release = (uint64_t)next, t0, t1;

		sleep_until_ns(release);
		t0 = now_ns();
		if (one_request(r, i % work_queues(r->o->work)))
			return -1;
		t1 = now_ns();
		if (record(r, release, t0, t1, r->o->kernels))
			return -1;
		next += next_interval_ns(r);
		if (!open_loop && next < (double)t1)
			next = (double)(t1 + LATE_NS);
	}
	return 0;
}

static int saturate(struct run *r, uint64_t start, uint64_t stop)
{
	void *marks[INFLIGHT_MAX] = { NULL };
	uint64_t enqueued[INFLIGHT_MAX] = { 0 }, done = start;
	unsigned n = r->o->finish_every, depth = r->o->inflight, batches = 0, waited = 0;

	sleep_until_ns(start);
	for (uint64_t t = start; waited < batches || !is_over(r, t, stop); t = now_ns()) {
		bool more = !is_over(r, t, stop);

		if (more && batches - waited < depth) {
			unsigned q = batches % work_queues(r->o->work), slot = batches % depth;

			enqueued[slot] = t;
			for (unsigned k = 0; k < n; k++)
				if (work_launch(r->work, q, k, k + 1 == n && depth > 1 ? &marks[slot] : NULL))
					return -1;
			if (work_flush(r->work, q))
				return -1;
			batches++;
			if (batches - waited < depth)
				continue;
		}
		unsigned slot = waited % depth;

		if (depth > 1 ? work_wait(r->work, marks[slot])
			      : work_finish(r->work, waited % work_queues(r->o->work)))
			return -1;
		t = now_ns();
		if (record(r, enqueued[slot], enqueued[slot] > done ? enqueued[slot] : done, t, n))
			return -1;
		done = t;
		waited++;
	}
	return 0;
}

/* CPU time of the threads that the driver started. The kernel's clock of a thread is exact to the nanosecond. */
struct cpu_watch {
	clockid_t clocks[THREADS_MAX];
	unsigned n;
	uint64_t bin_ns;
	atomic_bool stop;
	FILE *file;
	const char *tag;
	pthread_t thread;
};

static void find_threads(struct cpu_watch *c)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;

	c->n = 0;
	while (d && (e = readdir(d)) != NULL && c->n < THREADS_MAX) {
		int tid = atoi(e->d_name);

		if (tid > 0 && tid != getpid())
			c->clocks[c->n++] =
				(clockid_t)((~(unsigned)tid << 3) |
					    6); /* CPUCLOCK_SCHED of that thread, as glibc makes it */
	}
	if (d)
		closedir(d);
}

static uint64_t cpu_total(const struct cpu_watch *c)
{
	uint64_t sum = 0;
	struct timespec ts;

	for (unsigned i = 0; i < c->n; i++)
		if (clock_gettime(c->clocks[i], &ts) == 0)
			sum += (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	return sum;
}

static void *watch_cpu(void *arg)
{
	struct cpu_watch *c = arg;
	uint64_t next = now_ns();

	for (;;) {
		bool last = atomic_load(&c->stop);

		fprintf(c->file, "%s,%llu,%llu\n", c->tag, (unsigned long long)now_ns(),
			(unsigned long long)cpu_total(c));
		if (last)
			return NULL;
		next += c->bin_ns;
		sleep_until_ns(next);
	}
}

static int start_watch(struct cpu_watch *c, const struct run *r, const char *tag)
{
	find_threads(c);
	c->bin_ns = r->o->cpu_bin_ns;
	c->file = r->cpu;
	c->tag = tag;
	atomic_store(&c->stop, false);
	return pthread_create(&c->thread, NULL, watch_cpu, c) ? -1 : 0;
}

static int write_block(struct run *r, const char *tag)
{
	const struct work_stamp *stamps;
	size_t n;

	for (size_t i = 0; r->out && i < r->nrecords; i++)
		fprintf(r->out, "%s,%llu,%llu,%llu,%u\n", tag, (unsigned long long)r->records[i].release,
			(unsigned long long)r->records[i].start, (unsigned long long)r->records[i].end,
			r->records[i].units);
	if (r->events) {
		if (work_stamps(r->work, &stamps, &n))
			return -1;
		for (size_t i = 0; i < n; i++)
			fprintf(r->events, "%s,%llu,%llu,%llu\n", tag, (unsigned long long)stamps[i].enqueued,
				(unsigned long long)stamps[i].start, (unsigned long long)stamps[i].end);
		fflush(r->events);
	}
	if (r->cpu)
		fflush(r->cpu);
	return r->out && fflush(r->out) ? -1 : 0;
}

static int run_block(struct run *r, uint64_t start, uint64_t stop, uint64_t seed, const char *tag)
{
	struct cpu_watch watch;
	int failed;

	r->nrecords = 0;
	r->rng = seed;
	if (r->cpu && start_watch(&watch, r, tag))
		return -1;
	failed = r->o->mode == MODE_SATURATE ? saturate(r, start, stop) : run_requests(r, start, stop);
	if (r->cpu) {
		atomic_store(&watch.stop, true);
		pthread_join(watch.thread, NULL);
	}
	return failed || write_block(r, tag) ? -1 : 0;
}

static int serve(struct run *r, FILE *in, FILE *reply)
{
	unsigned long long start, stop, seed;
	char line[256], tag[64];

	fprintf(reply, "READY %d\n", getpid());
	fflush(reply);
	while (fgets(line, sizeof(line), in)) {
		if (sscanf(line, "run %llu %llu %llu %63s", &start, &stop, &seed, tag) != 4)
			break;
		if (run_block(r, start, stop, seed, tag))
			return 1;
		fprintf(reply, "DONE %s %zu\n", tag, r->nrecords);
		fflush(reply);
	}
	return 0;
}

static FILE *open_out(const char *base, int index, const char *suffix)
{
	char path[4096];
	FILE *f;

	if (index >= 0)
		snprintf(path, sizeof(path), "%s.%d%s", base, index, suffix);
	else
		snprintf(path, sizeof(path), "%s%s", base, suffix);
	f = fopen(path, "w");
	if (!f)
		perror(path);
	return f;
}

static int calibrate(struct run *r)
{
	unsigned iters;
	double ns;

	if (work_calibrate(r->work, r->o->calibrate_ns, &iters, &ns))
		return 1;
	printf("iters %u ns %.0f\n", iters, ns);
	return 0;
}

/* One process's life. @index: -1 when it is the only one. */
static int live(const struct options *o, int index, FILE *in, FILE *reply)
{
	struct run r = { .o = o };
	int rc;

	prctl(PR_SET_TIMERSLACK, 1);
	if (work_open(o->work, &r.work))
		return 1;
	if (o->calibrate_ns)
		return calibrate(&r);
	if (o->out && !(r.out = open_out(o->out, index, "")))
		return 1;
	if (o->out && work_has_stamps(o->work) && !(r.events = open_out(o->out, index, ".events")))
		return 1;
	if (o->out && o->cpu_bin_ns && !(r.cpu = open_out(o->out, index, ".cpu")))
		return 1;
	if (o->once) {
		uint64_t start = o->start_ns ? o->start_ns : now_ns();

		fprintf(reply, "READY %d\n", getpid());
		fflush(reply);
		rc = run_block(&r, start, o->duration_s > 0 ? start + (uint64_t)(o->duration_s * 1e9) : 0,
			       o->seed, "once") != 0;
		fprintf(reply, "DONE once %zu\n", r.nrecords);
		fflush(reply);   /* a child ends by _exit() */
	} else {
		rc = serve(&r, in, reply);
	}
	if (work_verify(r.work))
		rc = 1;
	work_close(r.work);
	free(r.records);
	for (int i = 0; i < 3; i++) {
		FILE *f = (FILE *[]){ r.out, r.events, r.cpu }[i];

		if (f)
			fclose(f);
	}
	return rc;
}

struct child {
	pid_t pid;
	FILE *to, *from;
};

static int start_child(const struct options *o, int index, struct child *c)
{
	int in[2], out[2];

	if (pipe(in) || pipe(out))
		return -1;
	c->pid = fork();
	if (c->pid < 0)
		return -1;
	if (c->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(in[1]);
		close(out[0]);
		_exit(live(o, index, fdopen(in[0], "r"), fdopen(out[1], "w")));
	}
	close(in[0]);
	close(out[1]);
	c->to = fdopen(in[1], "w");
	c->from = fdopen(out[0], "r");
	return c->to && c->from ? 0 : -1;
}

/* Collects one line of each child; prints the first one's word and tag with the sum of the counts. */
static int gather(struct child *c, unsigned n)
{
	char line[256], word[16], tag[64] = "";
	unsigned long sum = 0, count;

	for (unsigned i = 0; i < n; i++) {
		count = 0;
		if (!fgets(line, sizeof(line), c[i].from) ||
		    sscanf(line, "%15s %63s %lu", word, tag, &count) < 2)
			return -1;
		sum += count;
	}
	if (!strcmp(word, "READY"))
		printf("READY %d\n", getpid());
	else
		printf("%s %s %lu\n", word, tag, sum);
	return fflush(stdout);
}

static int live_many(const struct options *o)
{
	struct child c[64];
	char line[256];
	int rc = 0, status;

	for (unsigned i = 0; i < o->procs; i++)
		if (start_child(o, (int)i, &c[i]))
			return 1;
	if (gather(c, o->procs))
		rc = 1;
	if (o->once && !rc && gather(c, o->procs))
		rc = 1;
	while (!o->once && !rc && fgets(line, sizeof(line), stdin) && !strncmp(line, "run ", 4)) {
		for (unsigned i = 0; i < o->procs; i++) {
			fputs(line, c[i].to);
			fflush(c[i].to);
		}
		rc = gather(c, o->procs) != 0;
	}
	for (unsigned i = 0; i < o->procs; i++) {
		/* said and not only shown by closing: the later children hold copies of the earlier ones' pipes */
		fputs("quit\n", c[i].to);
		fclose(c[i].to);
		if (waitpid(c[i].pid, &status, 0) < 0 || status)
			rc = 1;
		fclose(c[i].from);
	}
	return rc;
}

enum {
	OPT_MODE = 1,
	OPT_INTERVAL,
	OPT_OPEN,
	OPT_KERNELS,
	OPT_PROCS,
	OPT_FINISH,
	OPT_INFLIGHT,
	OPT_CPU,
	OPT_SEED,
	OPT_OUT,
	OPT_CALIBRATE,
	OPT_START,
	OPT_DURATION,
	OPT_COUNT
};

static const struct option own_options[] = {
	{ "mode", 1, NULL, OPT_MODE },
	{ "interval-ms", 1, NULL, OPT_INTERVAL },
	{ "open", 0, NULL, OPT_OPEN },
	{ "kernels", 1, NULL, OPT_KERNELS },
	{ "procs", 1, NULL, OPT_PROCS },
	{ "finish-every", 1, NULL, OPT_FINISH },
	{ "inflight", 1, NULL, OPT_INFLIGHT },
	{ "cpu-bins", 1, NULL, OPT_CPU },
	{ "seed", 1, NULL, OPT_SEED },
	{ "out", 1, NULL, OPT_OUT },
	{ "calibrate", 1, NULL, OPT_CALIBRATE },
	{ "start", 1, NULL, OPT_START },
	{ "duration", 1, NULL, OPT_DURATION },
	{ "count", 1, NULL, OPT_COUNT },
	{ 0 },
};

static bool parse_mode(const char *s, enum mode *ret_mode)
{
	static const char *const names[] = { "periodic", "poisson", "saturate" };

	for (unsigned i = 0; i < 3; i++) {
		if (!strcmp(s, names[i])) {
			*ret_mode = (enum mode)i;
			return true;
		}
	}
	return false;
}

static bool parse_option(struct options *o, int c, const char *arg)
{
	unsigned n = arg ? (unsigned)strtoul(arg, NULL, 0) : 0;

	switch (c) {
	case OPT_MODE:
		return parse_mode(arg, &o->mode);
	case OPT_INTERVAL:
		o->interval_ms = atof(arg);
		break;
	case OPT_OPEN:
		o->open_loop = true;
		break;
	case OPT_KERNELS:
		o->kernels = n;
		break;
	case OPT_PROCS:
		o->procs = n;
		break;
	case OPT_FINISH:
		o->finish_every = n;
		break;
	case OPT_INFLIGHT:
		o->inflight = n;
		break;
	case OPT_CPU:
		o->cpu_bin_ns = (uint64_t)(atof(arg) * 1e6);
		break;
	case OPT_SEED:
		o->seed = strtoull(arg, NULL, 0);
		break;
	case OPT_OUT:
		o->out = arg;
		break;
	case OPT_CALIBRATE:
		o->calibrate_ns = (uint64_t)(atof(arg) * 1e6);
		break;
	case OPT_START:
		o->once = true;
		o->start_ns = strcmp(arg, "now") ? strtoull(arg, NULL, 0) : 0;
		break;
	case OPT_DURATION:
		o->duration_s = atof(arg);
		break;
	case OPT_COUNT:
		o->count = n;
		break;
	default:
		return work_option(o->work, c, arg);
	}
	return true;
}

static bool options_make_sense(const struct options *o)
{
	return work_makes_sense(o->work) && o->kernels && o->finish_every && o->inflight &&
	       o->inflight <= INFLIGHT_MAX && o->procs <= 64 && o->interval_ms > 0 &&
	       (!o->once || o->count || o->duration_s > 0);
}

/* getopt wants one table: ours and the side's. */
static bool all_options(struct option *v, size_t room)
{
	size_t n = sizeof(own_options) / sizeof(own_options[0]) - 1, more = 0;

	while (work_options[more].name)
		more++;
	if (n + more + 1 > room)
		return false;
	memcpy(v, own_options, n * sizeof(*v));
	memcpy(v + n, work_options, (more + 1) * sizeof(*v));
	return true;
}

static int wrong_usage(const char *program)
{
	fprintf(stderr, "%s %s%s", program, usage, work_usage);
	return 2;
}

int main(int argc, char **argv)
{
	struct option long_options[sizeof(own_options) / sizeof(own_options[0]) + WORK_OPTIONS_MAX];
	struct options o = { .work = work_defaults(),
			     .interval_ms = 50,
			     .finish_every = 75,
			     .inflight = 1,
			     .seed = 1 };
	int c;

	if (!all_options(long_options, sizeof(long_options) / sizeof(long_options[0])))
		return 1;
	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		if (!parse_option(&o, c, optarg))
			return wrong_usage(argv[0]);
	o.kernels = o.kernels ? o.kernels : work_units(o.work);
	if (optind != argc || !options_make_sense(&o))
		return wrong_usage(argv[0]);
	return o.procs > 1 ? live_many(&o) : live(&o, -1, stdin, stdout);
}
