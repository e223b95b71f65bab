/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes device memory by every way there is, until it is refused: what a contract must stop. An ordinary program: it knows the number
 * of bytes that it may have (--limit) only to stop when it got twice as much.
 *
 *   cuescape KIND [--limit B] [--chunk B] [--pause MS] [--hold]
 *       takes chunks, halving them down to 2 MiB when refused, with pauses in between; prints what it got; with --hold keeps it
 *       until its input ends
 *   cuescape race [--limit B] [--threads T] [--procs P] [--rounds N]
 *       T threads in each of P processes take and give back random sizes by random ways
 *   cuescape dead [--limit B]      a process takes all, is killed, and the next one must get as much
 *   cuescape reset [--limit B]     the context is reset with everything in it; then as much must be there again
 *   cuescape list                  the kinds
 * One line of JSON. "granted": bytes held at the end, "peak": the largest sum at any moment over all threads and processes, counted
 * after a success and before a release, so that it is never more than was really held. A way that the driver does not know is
 * reported, not failed. Exit 1: something failed that is not the refusal.
 */
#include "cuways.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define SMALLEST (2 * MIB)   /* a page of the device: below that a driver rounds up */
#define HELD_MAX 8192
#define KEEP 8               /* blocks that a racing thread holds at most */

struct options {
	const char *kind;
	uint64_t limit, chunk;
	unsigned threads, procs, rounds, pause_ms;
	bool hold;
};

/* Of all processes of a race. */
struct shared {
	_Atomic uint64_t sum, peak, grants, refusals;
	_Atomic int odd;   /* a code that is neither success nor out of memory */
};
static struct shared *shared;

/* ---- one way, until it is refused ------------------------------------------------------------------------------ */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void count_grant(uint64_t bytes)
{
	uint64_t sum = atomic_fetch_add(&shared->sum, bytes) + bytes;
	uint64_t peak = atomic_load(&shared->peak);

	while (sum > peak && !atomic_compare_exchange_weak(&shared->peak, &peak, sum))
		;
	atomic_fetch_add(&shared->grants, 1);
}

static void give(struct held *h)
{
	atomic_fetch_sub(&shared->sum, h->bytes);
	h->way->give(h);
	h->way = NULL;
}

static CUresult take(const struct way *way, uint64_t bytes, struct held *h)
{
	CUresult r;

	*h = (struct held){ .bytes = bytes };
	r = way->take(bytes, h);
	if (!r) {
		h->way = way;
		count_grant(h->bytes);
	} else {
		atomic_fetch_add(&shared->refusals, 1);
	}
	return r;
}

/* Takes until refused; the last code is returned. @n: blocks held. */
static CUresult take_all(const struct options *o, const struct way *way, struct held *held, unsigned *n)
{
	uint64_t chunk = o->chunk;
	CUresult r = CUDA_SUCCESS;

	*n = 0;
	while (*n < HELD_MAX && atomic_load(&shared->sum) < 2 * o->limit) {
		if (o->pause_ms)
			usleep(1000 * o->pause_ms);
		r = take(way, chunk, &held[*n]);
		if (!r) {
			++*n;
			continue;
		}
		if (r != CUDA_ERROR_OUT_OF_MEMORY || chunk <= SMALLEST)
			break;
		chunk = chunk / 2 < SMALLEST ? SMALLEST : chunk / 2;
	}
	return r;
}

static bool unknown(CUresult r)
{
	return r == CUDA_ERROR_NOT_SUPPORTED || r == CUDA_ERROR_NOT_FOUND || r == CUDA_ERROR_NOT_PERMITTED;
}

static void wait_for_end_of_input(void)
{
	char c;

	fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
}

static int run_way(const struct options *o, const struct way *way)
{
	struct held *held = calloc(HELD_MAX, sizeof(*held));
	unsigned n;
	CUresult r;

	if (!held || cu_ways_start())
		return 1;
	r = take_all(o, way, held, &n);
	printf("{\"kind\":\"%s\",\"granted\":%llu,\"peak\":%llu,\"blocks\":%u,\"code\":%d,\"loose\":%s,\"unsupported\":%s}\n",
	       way->name,
	       (unsigned long long)atomic_load(&shared->sum), (unsigned long long)atomic_load(&shared->peak), n, r,
	       way->loose ? "true" : "false", n == 0 && unknown(r) ? "true" : "false");
	if (o->hold)
		wait_for_end_of_input();
	while (n)
		give(&held[--n]);
	free(held);
	return r == CUDA_SUCCESS || r == CUDA_ERROR_OUT_OF_MEMORY || unknown(r) ? 0 : 1;
}

/* ---- many at once ---------------------------------------------------------------------------------------------- */

struct racer {
	const struct options *o;
	uint64_t rng;
	pthread_t thread;
	pthread_barrier_t *barrier;
};

static uint64_t random_u64(uint64_t *state)   /* splitmix64 */
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static const struct way *random_way(uint64_t *rng)
{
	for (;;) {
		const struct way *way = &cu_ways[random_u64(rng) % cu_nways];

		if (way->race)
			return way;
	}
}

static void *race(void *arg)
{
	struct racer *r = arg;
	struct held held[KEEP] = { 0 };

	cu.cuCtxSetCurrent(cu_ways_context);
	pthread_barrier_wait(r->barrier);
	for (unsigned i = 0; i < r->o->rounds; i++) {
		struct held *h = &held[random_u64(&r->rng) % KEEP];
		uint64_t bytes = SMALLEST << (random_u64(&r->rng) % 6);   /* 2 to 64 MiB */

		if (h->way) {
			give(h);
			continue;
		}
		CUresult code = take(random_way(&r->rng), bytes, h);

		if (code && code != CUDA_ERROR_OUT_OF_MEMORY && !unknown(code))
			atomic_store(&shared->odd, code);
	}
	for (unsigned i = 0; i < KEEP; i++)
		if (held[i].way)
			give(&held[i]);
	return NULL;
}

static int race_process(const struct options *o, unsigned index)
{
	struct racer racers[256];
	pthread_barrier_t barrier;

	if (cu_ways_start())
		return 1;
	pthread_barrier_init(&barrier, NULL, o->threads);
	for (unsigned t = 0; t < o->threads; t++) {
		racers[t] = (struct racer){ .o = o, .rng = 1000 * index + t + 1, .barrier = &barrier };
		if (pthread_create(&racers[t].thread, NULL, race, &racers[t]))
			return 1;
	}
	for (unsigned t = 0; t < o->threads; t++)
		pthread_join(racers[t].thread, NULL);
	return 0;
}

static int run_race(const struct options *o)
{
	int bad = 0, status;

	fflush(stdout);
	for (unsigned p = 0; p < o->procs; p++) {
		pid_t pid = fork();

		if (pid < 0)
			return 1;
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			_exit(race_process(o, p));
		}
	}
	while (wait(&status) > 0)
		bad |= status;
	printf("{\"kind\":\"race\",\"granted\":%llu,\"peak\":%llu,\"grants\":%llu,\"refusals\":%llu,\"code\":%d,"
	       "\"unsupported\":false}\n",
	       (unsigned long long)atomic_load(&shared->sum), (unsigned long long)atomic_load(&shared->peak),
	       (unsigned long long)atomic_load(&shared->grants), (unsigned long long)atomic_load(&shared->refusals),
	       atomic_load(&shared->odd));
	return bad || atomic_load(&shared->odd) ? 1 : 0;
}

/* ---- what has gone must be there again ------------------------------------------------------------------------- */

/* In a child: takes all by cuMemAlloc, says how much through @fd, and waits to be killed if @stay. */
static void dead_child(const struct options *o, int fd, bool stay)
{
	struct held *held = calloc(HELD_MAX, sizeof(*held));
	unsigned n;
	uint64_t sum;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	atomic_store(&shared->sum, 0);
	if (!held || cu_ways_start())
		_exit(1);
	take_all(o, &cu_ways[0], held, &n);
	sum = atomic_load(&shared->sum);
	if (write(fd, &sum, sizeof(sum)) != sizeof(sum))
		_exit(1);
	while (stay)
		pause();
	_exit(0);   /* without a free */
}

static int dead_once(const struct options *o, bool stay, uint64_t *ret_granted)
{
	int pipes[2], status;
	pid_t pid;
	ssize_t n;

	if (pipe(pipes))
		return -1;
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return -1;
	if (pid == 0) {
		close(pipes[0]);
		dead_child(o, pipes[1], stay);
	}
	close(pipes[1]);
	n = read(pipes[0], ret_granted, sizeof(*ret_granted));
	close(pipes[0]);
	if (stay)
		kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return n == sizeof(*ret_granted) ? 0 : -1;
}

static int run_dead(const struct options *o)
{
	uint64_t before, after = 0, t0, t1;

	if (dead_once(o, true, &before))
		return 1;
	t0 = now_ns();
	for (;;) {   /* the daemon may need a moment to see the death */
		if (dead_once(o, false, &after))
			return 1;
		t1 = now_ns();
		if (after >= before || t1 - t0 > UINT64_C(5000000000))
			break;
	}
	printf("{\"kind\":\"dead\",\"granted\":%llu,\"peak\":%llu,\"before\":%llu,\"after_ms\":%.0f,\"code\":%d,"
	       "\"unsupported\":false}\n",
	       (unsigned long long)after, (unsigned long long)atomic_load(&shared->peak), (unsigned long long)before,
	       (double)(t1 - t0) / 1e6, after >= before ? 0 : CUDA_ERROR_OUT_OF_MEMORY);
	return after >= before ? 0 : 1;
}

static int run_reset(const struct options *o)
{
	struct held *held = calloc(HELD_MAX, sizeof(*held));
	uint64_t before, after;
	unsigned n;

	if (!held || cu_ways_start())
		return 1;
	take_all(o, &cu_ways[0], held, &n);
	before = atomic_exchange(&shared->sum, 0);
	if (cu.cuDevicePrimaryCtxReset_v2(cu_ways_device) || cu.cuDevicePrimaryCtxRetain(&cu_ways_context, cu_ways_device) ||
	    cu.cuCtxSetCurrent(cu_ways_context))
		return 1;
	take_all(o, &cu_ways[0], held, &n);
	after = atomic_load(&shared->sum);
	printf("{\"kind\":\"reset\",\"granted\":%llu,\"peak\":%llu,\"before\":%llu,\"code\":%d,\"unsupported\":false}\n",
	       (unsigned long long)after, (unsigned long long)atomic_load(&shared->peak), (unsigned long long)before,
	       after >= before ? 0 : CUDA_ERROR_OUT_OF_MEMORY);
	if (o->hold)
		wait_for_end_of_input();
	free(held);
	return after >= before ? 0 : 1;
}

/* ---- command line ---------------------------------------------------------------------------------------------- */

static bool parse(struct options *o, int argc, char **argv)
{
	if (argc < 2)
		return false;
	o->kind = argv[1];
	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "--hold")) {
			o->hold = true;
			continue;
		}
		if (i + 1 == argc)
			return false;
		uint64_t v = strtoull(argv[++i], NULL, 0);

		if (!strcmp(argv[i - 1], "--limit"))
			o->limit = v;
		else if (!strcmp(argv[i - 1], "--chunk"))
			o->chunk = v;
		else if (!strcmp(argv[i - 1], "--threads"))
			o->threads = (unsigned)v;
		else if (!strcmp(argv[i - 1], "--procs"))
			o->procs = (unsigned)v;
		else if (!strcmp(argv[i - 1], "--pause"))
			o->pause_ms = (unsigned)v;
		else if (!strcmp(argv[i - 1], "--rounds"))
			o->rounds = (unsigned)v;
		else
			return false;
	}
	return o->limit && o->chunk >= SMALLEST && o->threads >= 1 && o->threads <= 256 && o->procs >= 1 && o->procs <= 64;
}

int main(int argc, char **argv)
{
	struct options o = { .limit = 1024 * MIB, .chunk = 64 * MIB, .threads = 64, .procs = 4, .rounds = 200 };

	cu_program = "cuescape";
	if (!parse(&o, argc, argv)) {
		fprintf(stderr, "cuescape KIND|race|dead|reset|list [--limit B] [--chunk B] [--threads N] [--procs N]\n"
				"  [--rounds N] [--pause MS] [--hold]\n");
		return 2;
	}
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	if (!strcmp(o.kind, "race"))
		return run_race(&o);
	if (!strcmp(o.kind, "dead"))
		return run_dead(&o);
	if (!strcmp(o.kind, "reset"))
		return run_reset(&o);
	for (unsigned i = 0; i < cu_nways; i++) {
		if (!strcmp(o.kind, "list"))
			puts(cu_ways[i].name);
		else if (!strcmp(o.kind, cu_ways[i].name))
			return run_way(&o, &cu_ways[i]);
	}
	return strcmp(o.kind, "list") != 0;
}
