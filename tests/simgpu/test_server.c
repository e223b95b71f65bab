/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device server through its client library: memory, copies and kernels whose bytes are checked, order, words, host functions,
 * deaths. Runs under with_simgpu.py, on a T4. Argument: the server, for one that it kills. What is said of times is said of the device's own stamps, which follow the model and
 * not the machine's load.
 */
#include "simgpu/client.h"
#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define A(p) ((uint64_t)(uintptr_t)(p))
#define MIB (UINT64_C(1) << 20)

static const char *server_path;
static struct sim *sim;
static struct sim_context *ctx;
static struct sim_channel *ch;

static void submit_all(struct sim_channel *to, const struct sim_cmd *v, unsigned n, uint64_t *ret_last)
{
	for (unsigned i = 0; i < n; i++) {
		*ret_last = sim_submit(to, &v[i]);
		assert_true(*ret_last);
	}
}

#define SUBMIT(to, ...)                                                                   \
	({                                                                                \
		const struct sim_cmd v_[] = { __VA_ARGS__ };                              \
		uint64_t last_;                                                           \
		submit_all(to, v_, sizeof(v_) / sizeof(v_[0]), &last_);                   \
		last_;                                                                    \
	})

static void wait_for(struct sim_channel *c, uint64_t seq)
{
	assert_int_equal(sim_wait(c, seq, UINT64_MAX, false), 0);
	assert_true(sim_done(c) >= seq);
}

#define RUN(to, ...) wait_for(to, SUBMIT(to, __VA_ARGS__))

static struct sim_cmd stamp(uint64_t *at)
{
	return (struct sim_cmd){ .kind = SIM_STAMP, .stamp = { A(at) } };
}

static struct sim_cmd spin(uint32_t blocks, uint64_t ns)
{
	return (struct sim_cmd){ .kind = SIM_KERNEL, .kernel = { .grid = { blocks, 1, 1 }, .block = { 1024, 1, 1 }, .block_ns = ns } };
}

static struct sim_cmd linear(enum sim_dir dir, void *dst, const void *src, uint64_t bytes)
{
	return (struct sim_cmd){ .kind = SIM_COPY,
				 .copy = { .dir = dir, .dst = A(dst), .src = A(src), .width = bytes, .rows = 1, .layers = 1 } };
}

static struct sim_cmd compute(const char *name, uint32_t threads, const void *args, uint32_t bytes)
{
	uint32_t id = sim_kernel_find(name);
	assert_true(id);
	return (struct sim_cmd){ .kind = SIM_KERNEL, .kernel = { .grid = { (threads + 127) / 128, 1, 1 }, .block = { 128, 1, 1 },
				 .block_ns = 1000, .compute = id, .args = A(args), .args_bytes = bytes } };
}

static void open_channel(void)
{
	assert_int_equal(sim_context_create(sim, 0, &ctx), 0);
	assert_int_equal(sim_channel_create(ctx, 0, 0, &ch), 0);
}

static int setup(void **state)
{
	(void)state;
	assert_int_equal(sim_connect(NULL, &sim), 0);
	open_channel();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	sim_channel_destroy(ch);
	sim_context_destroy(ctx);
	sim_disconnect(sim);
	return 0;
}

static uint64_t free_bytes(void)
{
	uint64_t left, total;
	assert_int_equal(sim_mem_info(sim, 0, &left, &total), 0);
	assert_true(left <= total);
	return left;
}

/* ---- cards, memory ---- */

static void test_card(void **state)
{
	(void)state;
	assert_int_equal(sim_cards(sim), 1);
	const struct sim_card *c = sim_card(sim, 0);
	assert_string_equal(c->name, "Tesla T4");
	assert_int_equal(c->units, 40);
	assert_true(c->cc_major == 7 && c->cc_minor == 5);
	assert_null(sim_card(sim, 1));
	struct sim *none;
	assert_int_equal(sim_connect("/nowhere/at/all", &none), -ENOENT);
}

static void test_memory(void **state)
{
	(void)state;
	uint64_t before = free_bytes(), id[64], more;
	unsigned n = 0;
	assert_true(before < sim_card(sim, 0)->mem_bytes);   /* our context is there */
	assert_int_equal(sim_mem_take(sim, 0, 1000, &more), -EINVAL);
	assert_int_equal(sim_mem_take(sim, 0, 0, &more), -EINVAL);
	assert_int_equal(sim_mem_take(sim, 3, SIM_PAGE_BYTES, &more), -ENODEV);
	while (free_bytes() >= 1024 * MIB)
		assert_int_equal(sim_mem_take(sim, 0, 1024 * MIB, &id[n++]), 0);
	uint64_t rest = free_bytes();
	assert_int_equal(sim_mem_take(sim, 0, rest + SIM_PAGE_BYTES, &more), -ENOMEM);
	assert_int_equal(sim_mem_take(sim, 0, rest, &id[n++]), 0);
	assert_int_equal(free_bytes(), 0);
	assert_int_equal(sim_mem_take(sim, 0, SIM_PAGE_BYTES, &more), -ENOMEM);
	struct sim_context *c;
	assert_int_equal(sim_context_create(sim, 0, &c), -ENOMEM);   /* a context takes memory as well */
	sim_mem_give(sim, 0, 12345);                                 /* harms nobody */
	assert_int_equal(free_bytes(), 0);
	while (n)
		sim_mem_give(sim, 0, id[--n]);
	sim_mem_give(sim, 0, id[0]);
	assert_int_equal(free_bytes(), before);
}

/* ---- what commands do ---- */

static void test_copies(void **state)
{
	(void)state;
	size_t sizes[] = { 1, 100, 16384, 16385, 300000, 5 * MIB + 7 };
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		size_t n = sizes[i];
		unsigned char *host = malloc(n), *dev = malloc(n + 2), *back = malloc(n);
		for (size_t k = 0; k < n; k++)
			host[k] = (unsigned char)(k * 7 + k / 251);
		memset(dev, 0xee, n + 2);
		RUN(ch, linear(SIM_H2D, dev + 1, host, n), linear(SIM_D2H, back, dev + 1, n));
		assert_memory_equal(back, host, n);
		assert_true(dev[0] == 0xee && dev[n + 1] == 0xee);
		free(host);
		free(dev);
		free(back);
	}
}

static void test_pitched_copy_and_fill(void **state)
{
	(void)state;
	enum { PITCH = 100, ROWS = 300, LAYERS = 3, WIDTH = 37 };
	static unsigned char from[LAYERS * ROWS * PITCH], to[LAYERS * ROWS * WIDTH];
	for (size_t i = 0; i < sizeof(from); i++)
		from[i] = (unsigned char)(i * 13 + i / 256);
	RUN(ch, { .kind = SIM_COPY, .copy = { .dir = SIM_D2D, .dst = A(to), .src = A(from), .width = WIDTH, .rows = ROWS, .layers = LAYERS,
		  .dst_pitch = WIDTH, .dst_layer = ROWS * WIDTH, .src_pitch = PITCH, .src_layer = ROWS * PITCH } });
	for (unsigned row = 0; row < ROWS * LAYERS; row++)
		assert_memory_equal(to + row * WIDTH, from + row * PITCH, WIDTH);

	uint16_t *field = calloc(700 * 400, 2);
	RUN(ch, { .kind = SIM_FILL, .fill = { .dst = A(field), .pitch = 800, .width = 300, .rows = 700, .element = 2, .value = 0x1234abcd } });
	for (unsigned i = 0; i < 700 * 400; i++)
		assert_int_equal(field[i], i % 400 < 300 ? 0xabcd : 0);
	uint32_t *big = malloc(4 * MIB);
	RUN(ch, { .kind = SIM_FILL, .fill = { .dst = A(big), .pitch = 4 * MIB, .width = MIB, .rows = 1, .element = 4, .value = 77 } });
	assert_true(big[0] == 77 && big[MIB / 2 + 1] == 77 && big[MIB - 1] == 77);
	free(field);
	free(big);
}

static void test_builtins(void **state)
{
	(void)state;
	enum { N = 70000 };   /* more than a worker takes at once, and more than the engine does itself */
	float *a = malloc(N * 4), *b = malloc(N * 4), *c = calloc(N + 1, 4);
	uint32_t *u = calloc(N + 1, 4);
	for (unsigned i = 0; i < N; i++) {
		a[i] = (float)(i % 1000);
		b[i] = (float)(i % 77) / 2;
	}
	assert_int_equal(sim_kernel_find("no such"), 0);
	struct { const void *a, *b; void *c; int n; } add = { a, b, c, N };
	RUN(ch, compute("vectorAdd", N, &add, sizeof(add)));
	for (unsigned i = 0; i < N; i++)
		assert_true(c[i] == a[i] + b[i]);
	assert_true(c[N] == 0);
	struct { int n; float s; const void *x; void *y; } saxpy = { N, 2, a, c };
	RUN(ch, compute("saxpy", N, &saxpy, sizeof(saxpy)));
	for (unsigned i = 0; i < N; i++)
		assert_true(c[i] == 2 * a[i] + a[i] + b[i]);
	struct { void *p; uint32_t first, n; } iota = { u, 5, N };
	struct { void *p; uint32_t n; } inc = { u, N };
	uint64_t seq = SUBMIT(ch, compute("iota", N, &iota, sizeof(iota)));
	for (unsigned i = 0; i < 20; i++)
		seq = SUBMIT(ch, compute("increment", N, &inc, sizeof(inc)));
	wait_for(ch, seq);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(u[i], 25 + i);
	/* A grid that is too small does not reach the end. */
	RUN(ch, compute("increment", 256, &inc, sizeof(inc)));
	assert_true(u[255] == 25 + 255 + 1 && u[256] == 25 + 256);
	float sum = 0;
	struct { const void *in; void *out; int n; } reduce = { b, &sum, 77 * 4 };
	RUN(ch, compute("reduce", 1, &reduce, sizeof(reduce)));
	assert_true(sum == 77 * 76 / 4 * 4);
	float m1[6] = { 1, 2, 3, 4, 5, 6 }, m2[6] = { 1, 0, 0, 1, 1, 1 }, m3[4];
	struct { const void *a, *b; void *c; int m, n, k; } gemm = { m1, m2, m3, 2, 2, 3 };
	RUN(ch, compute("sgemm", 4, &gemm, sizeof(gemm)));
	assert_true(m3[0] == 4 && m3[1] == 5 && m3[2] == 10 && m3[3] == 11);
	free(a);
	free(b);
	free(c);
	free(u);
}

/* ---- order ---- */

static void test_stamps(void **state)
{
	(void)state;
	uint64_t t[201] = { 0 }, seq = 0;
	uint64_t from = pen_mono_ns();
	for (unsigned i = 0; i < 200; i++)
		seq = SUBMIT(ch, stamp(&t[i]), spin(40, 3000));
	seq = SUBMIT(ch, stamp(&t[200]));
	wait_for(ch, seq);
	uint64_t to = pen_mono_ns();
	for (unsigned i = 0; i < 200; i++) {
		/* 3 us, and what lies between two commands; the first also has its way to the device behind it. */
		assert_true(t[i + 1] - t[i] >= 3000);
		assert_true(t[i] >= from && t[i + 1] <= to);
	}
	/* Nothing keeps the model back, whatever the machine is doing: 200 kernels, 1 us apart. But submission may be slower. */
	assert_true(t[200] - t[0] >= 200 * 3000 + 199 * 1000);
}

static void test_waves(void **state)
{
	(void)state;
	uint64_t a = 0, b = 0, c = 0;
	/* Held together by a word, so that all of it lies there before the first starts: only the device's time counts. */
	_Atomic uint32_t go = 0;
	SUBMIT(ch, { .kind = SIM_WAIT_WORD, .word = { .address = A(&go), .value = 1, .cond = SIM_GEQ, .bytes = 4 } });
	uint64_t seq = SUBMIT(ch, spin(1, 1000), stamp(&a), spin(40, 50000), stamp(&b), spin(41, 50000), stamp(&c));
	go = 1;
	wait_for(ch, seq);
	assert_in_range(b - a, 51000, 51010);
	assert_in_range(c - b, 101000, 101010);
}

static void test_wait_seq(void **state)
{
	(void)state;
	struct sim_channel *other;
	assert_int_equal(sim_channel_create(ctx, 0, 0, &other), 0);
	uint64_t end = 0, start = 0;
	uint64_t seq = SUBMIT(ch, spin(1, 2000000), stamp(&end));
	uint64_t last = SUBMIT(other, { .kind = SIM_WAIT_SEQ, .wait_seq = { ch, seq } }, stamp(&start));
	wait_for(other, last);
	assert_true(start >= end && end);
	/* Submitted first, for what comes later. */
	last = SUBMIT(other, { .kind = SIM_WAIT_SEQ, .wait_seq = { ch, seq + 1 } }, stamp(&start));
	assert_int_equal(sim_wait(other, last, 2 * PEN_MS, false), -ETIMEDOUT);
	SUBMIT(ch, stamp(&end));
	wait_for(other, last);
	assert_true(start >= end);
	sim_channel_destroy(other);
}

static void test_wait_word(void **state)
{
	(void)state;
	static const struct {
		enum sim_cond cond;
		uint32_t bytes;
		uint64_t value, before, after;
	} cases[] = {
		{ SIM_GEQ, 4, 5, 4, 6 },
		{ SIM_GEQ, 4, 1, UINT32_MAX, 1 },          /* cyclic: -1 is less than 1 */
		{ SIM_EQ, 4, 5, 6, 5 },
		{ SIM_AND, 4, 6, 1, 2 },
		{ SIM_NOR, 4, UINT32_MAX - 1, 1, 0 },
		{ SIM_GEQ, 8, UINT64_C(1) << 40, UINT32_MAX, UINT64_C(1) << 40 },
		{ SIM_NOR, 8, 0, UINT64_MAX, 1 },
	};
	struct sim_channel *other;
	assert_int_equal(sim_channel_create(ctx, 0, 0, &other), 0);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		_Atomic uint64_t word = cases[i].before;
		uint64_t seq = SUBMIT(ch, { .kind = SIM_WAIT_WORD, .word = { .address = A(&word), .value = cases[i].value,
							.cond = cases[i].cond, .bytes = cases[i].bytes } });
		assert_int_equal(sim_wait(ch, seq, PEN_MS, false), -ETIMEDOUT);
		if (i & 1)
			word = cases[i].after;             /* by the processor, else by the device */
		else
			SUBMIT(other, { .kind = SIM_WRITE_WORD, .word = { .address = A(&word), .value = cases[i].after, .bytes = cases[i].bytes } });
		wait_for(ch, seq);
	}
	sim_channel_destroy(other);
}

static void test_full_ring(void **state)
{
	(void)state;
	_Atomic uint32_t go = 0;
	uint64_t seq = SUBMIT(ch, { .kind = SIM_WAIT_WORD, .word = { .address = A(&go), .value = 1, .cond = SIM_GEQ, .bytes = 4 } });
	uint32_t *count = calloc(1, 4);
	struct { void *p; uint32_t n; } inc = { count, 1 };
	for (unsigned i = 0; i < 1023; i++)
		seq = SUBMIT(ch, compute("increment", 1, &inc, sizeof(inc)));
	go = 1;
	for (unsigned i = 0; i < 3000; i++)   /* waits for room now and then */
		seq = SUBMIT(ch, compute("increment", 1, &inc, sizeof(inc)));
	wait_for(ch, seq);
	assert_int_equal(*count, 4023);
	free(count);
}

/* ---- host functions ---- */

static _Atomic uint64_t called, called_value;
static uint64_t stamped;

static void *host_thread(void *arg)
{
	uint64_t token;
	(void)arg;
	while (!sim_host_next(sim, UINT64_MAX, &token) && token != 99) {
		called_value = stamped;        /* what came before it in the channel has been done */
		called = token;
		sim_host_done(sim, token);
	}
	if (token == 99)
		sim_host_done(sim, token);
	return NULL;
}

static void test_host_function(void **state)
{
	(void)state;
	pthread_t thread;
	uint64_t token, after = 0;
	assert_int_equal(sim_host_next(sim, 1000, &token), -ETIMEDOUT);
	assert_int_equal(pthread_create(&thread, NULL, host_thread, NULL), 0);
	RUN(ch, stamp(&stamped), { .kind = SIM_HOST, .host = { 42 } }, stamp(&after));
	assert_int_equal(called, 42);
	assert_true(called_value == stamped && stamped && after >= stamped);
	RUN(ch, { .kind = SIM_HOST, .host = { 99 } });
	pthread_join(thread, NULL);
}

/* ---- errors ---- */

/* A context that failed stays failed; the others, and a new one, go on. */
static void test_illegal_address(void **state)
{
	(void)state;
	struct sim_context *bad;
	struct sim_channel *c, *second;
	assert_int_equal(sim_context_create(sim, 0, &bad), 0);
	assert_int_equal(sim_channel_create(bad, 0, 0, &c), 0);
	assert_int_equal(sim_channel_create(bad, 0, 0, &second), 0);
	char byte = 0;
	uint64_t waiting = SUBMIT(second, spin(40, 60 * PEN_S));
	uint64_t seq = SUBMIT(c, linear(SIM_H2D, (void *)16, &byte, 1));
	assert_int_equal(sim_wait(c, seq, UINT64_MAX, false), -EFAULT);
	assert_int_equal(sim_wait(second, waiting, UINT64_MAX, false), -EFAULT);
	assert_int_equal(sim_context_status(bad), -EFAULT);
	static unsigned char from[100] = { 1 }, to[100];
	for (unsigned i = 0; i < 3000; i++)     /* takes what comes, and never gets full */
		seq = SUBMIT(c, linear(SIM_H2D, to, from, sizeof(to)));
	while (sim_done(c) < seq)
		RUN(ch, spin(1, 1000));
	assert_int_equal(to[0], 0);             /* and does nothing of it */
	sim_channel_destroy(c);
	sim_channel_destroy(second);
	sim_context_destroy(bad);
	assert_int_equal(sim_context_status(ctx), 0);
	RUN(ch, linear(SIM_H2D, &byte, &byte, 1));
}

/* What no library of ours sends fails the context that sent it, and nothing else. */
static void test_garbage(void **state)
{
	(void)state;
	static const struct sim_cmd bad[] = {
		{ .kind = (enum sim_kind)77 },
		{ .kind = SIM_COPY, .copy = { .dir = (enum sim_dir)9, .width = 1, .rows = 1, .layers = 1 } },
		{ .kind = SIM_COPY, .copy = { .dst = 4096, .src = 4096, .width = UINT64_C(1) << 40, .rows = 1 << 20, .layers = 16 } },
		{ .kind = SIM_COPY, .copy = { .dst = 4096, .src = 4096, .width = 1, .rows = 1, .layers = 1 } },
		{ .kind = SIM_FILL, .fill = { .dst = 4096, .width = 1, .rows = 1, .element = 3 } },
		{ .kind = SIM_FILL, .fill = { .dst = 4096, .width = UINT64_MAX / 2, .rows = 1, .element = 4 } },
		{ .kind = SIM_FILL, .fill = { .dst = UINT64_MAX - 10, .width = 100, .rows = 1, .element = 1 } },
		{ .kind = SIM_WAIT_WORD, .word = { .address = 4096, .bytes = 5 } },
		{ .kind = SIM_WAIT_WORD, .word = { .address = 4096, .bytes = 8 } },
		{ .kind = SIM_KERNEL, .kernel = { .grid = { 1, 1, 1 }, .block = { 1, 1, 1 }, .compute = 1, .args = 4096, .args_bytes = 1 << 30 } },
	};
	static const struct sim_cmd odd[] = {   /* but nobody's fault */
		{ .kind = SIM_KERNEL, .kernel = { .grid = { 0, 1, 1 }, .block = { 1, 1, 1 }, .block_ns = UINT64_MAX } },
		{ .kind = SIM_KERNEL, .kernel = { .grid = { 1, 1, 1 }, .block = { 1 << 20, 1 << 20, 1 << 20 }, .block_ns = 1 } },
		{ .kind = SIM_KERNEL, .kernel = { .grid = { 1, 1, 1 }, .block = { 1, 1, 1 }, .compute = 99, .args = 0 } },
		{ .kind = SIM_KERNEL, .priority = INT32_MIN, .kernel = { .grid = { 1, 1, 1 }, .block = { 1, 1, 1 }, .block_ns = 1 } },
		{ .kind = SIM_COPY, .copy = { .dir = SIM_D2D, .width = 0, .rows = UINT64_MAX, .layers = 1 } },
		{ .kind = SIM_STAMP, .stamp = { 4096 } },
	};
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct sim_context *c;
		struct sim_channel *k;
		assert_int_equal(sim_context_create(sim, 0, &c), 0);
		assert_int_equal(sim_channel_create(c, 0, 0, &k), 0);
		assert_int_equal(sim_wait(k, sim_submit(k, &bad[i]), UINT64_MAX, false), -EFAULT);
		sim_channel_destroy(k);
		sim_context_destroy(c);
	}
	for (unsigned i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
		RUN(ch, odd[i]);
}

static void test_destroy_in_flight(void **state)
{
	(void)state;
	uint64_t before = free_bytes();
	struct sim_context *c;
	struct sim_channel *one, *two;
	_Atomic uint32_t never = 0;
	char *dev = malloc(64 * MIB);
	assert_int_equal(sim_context_create(sim, 0, &c), 0);
	assert_int_equal(sim_channel_create(c, 0, 0, &one), 0);
	assert_int_equal(sim_channel_create(c, 0, 0, &two), 0);
	uint64_t last = SUBMIT(one, linear(SIM_H2D, dev, dev, 64 * MIB), spin(40, 60 * PEN_S));
	SUBMIT(two, { .kind = SIM_WAIT_WORD, .word = { .address = A(&never), .value = 1, .cond = SIM_GEQ, .bytes = 4 } });
	sim_channel_destroy(two);               /* ends by itself, or with its context */
	sim_context_destroy(c);
	assert_int_equal(free_bytes(), before);
	wait_for(one, last);                    /* dropped: nobody waits for it for ever */
	sim_channel_destroy(one);
	uint64_t a = 0;
	RUN(ch, spin(40, 1000), stamp(&a));     /* the device is free */
	free(dev);
}

/* ---- processes ---- */

/* A process that holds memory, a context and a kernel that never ends. */
static pid_t hog(int *ret_pipe)
{
	int ends[2];
	char byte = 0;
	assert_int_equal(pipe(ends), 0);
	pid_t pid = fork();
	if (!pid) {
		struct sim *s;
		struct sim_context *c;
		struct sim_channel *k;
		uint64_t id;
		close(ends[0]);
		sim_after_fork(sim);
		if (sim_connect(NULL, &s) || sim_mem_take(s, 0, 4096 * MIB, &id) || sim_context_create(s, 0, &c) ||
		    sim_channel_create(c, 0, 0, &k) || !sim_submit(k, &(struct sim_cmd){ .kind = SIM_KERNEL, .kernel = { .grid = { 40, 1, 1 },
		    .block = { 1024, 1, 1 }, .block_ns = 3600 * PEN_S } }))
			_exit(1);
		(void)!write(ends[1], &byte, 1);
		pause();
		_exit(0);
	}
	close(ends[1]);
	assert_int_equal(read(ends[0], &byte, 1), 1);
	*ret_pipe = ends[0];
	return pid;
}

static void test_kill(void **state)
{
	(void)state;
	uint64_t before = free_bytes();
	for (unsigned i = 0; i < 3; i++) {
		int end, status;
		pid_t pid = hog(&end);
		assert_int_equal(before - free_bytes(), 4096 * MIB + sim_card(sim, 0)->context_bytes);
		struct sim_process p[8];
		int n = sim_processes(sim, 0, p, 8);
		assert_int_equal(n, 2);
		unsigned at = p[0].pid == (uint32_t)pid ? 0 : 1;
		assert_int_equal(p[at].pid, pid);
		assert_int_equal(p[at].mem_bytes, 4096 * MIB + sim_card(sim, 0)->context_bytes);
		assert_int_equal(p[1 - at].pid, getpid());
		/* Whose slices take turns with ours. */
		RUN(ch, spin(40, 3000000));
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(free_bytes(), before);
		assert_int_equal(sim_processes(sim, 0, p, 8), 1);
		close(end);
		RUN(ch, spin(40, 3000000));
	}
}

/* Two processes on one device: each is taken off for the other's slices, and its stamps show it. */
static void test_time_slices(void **state)
{
	(void)state;
	int end, status;
	uint64_t a = 0, b = 0;
	pid_t pid = hog(&end);
	RUN(ch, stamp(&a), spin(40, 10 * PEN_MS), stamp(&b));
	/* Ten ms of work are four whole slices of 2 ms and a bit: the other one has at least four in between. */
	assert_true(b - a >= 18 * PEN_MS);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(end);
}

static void test_reading(void **state)
{
	(void)state;
	struct sim_reading r, before;
	assert_int_equal(sim_reading(sim, 0, &before), 0);
	assert_int_equal(sim_reading(sim, 5, &r), -ENODEV);
	/* Half a second at work, so that there is a whole sample in it. */
	RUN(ch, spin(40, 500 * PEN_MS));
	assert_int_equal(sim_reading(sim, 0, &r), 0);
	assert_in_range(r.gpu_util, 95, 100);
	assert_true(r.mem_used_bytes >= sim_card(sim, 0)->context_bytes && !r.lost && !r.xid);
	struct sim_process p;
	assert_int_equal(sim_processes(sim, 0, &p, 1), 1);
	assert_in_range(p.sm_util, 95, 100);
	static char buffer[1 << 20];
	RUN(ch, linear(SIM_H2D, buffer, buffer, sizeof(buffer)));
	assert_int_equal(sim_reading(sim, 0, &r), 0);
	assert_int_equal(r.pcie_rx_bytes - before.pcie_rx_bytes, sizeof(buffer));
}

/* A server of this test's own, which is killed: nobody waits for it for ever. */
static void test_server_gone(void **state)
{
	(void)state;
	char path[64], line[256];
	int out[2], status;
	snprintf(path, sizeof(path), "/tmp/simgpu-test-%d", getpid());
	assert_int_equal(pipe(out), 0);
	pid_t pid = fork();
	if (!pid) {
		dup2(out[1], 1);
		execl(server_path, server_path, "--socket", path, "--card", "A2", "--slice", "0.5", "--memory", "3G", "--hollow", "64K",
		      "--foreground", NULL);
		_exit(127);
	}
	close(out[1]);
	ssize_t n = read(out[0], line, sizeof(line) - 1);
	assert_true(n > 0);
	line[n] = 0;
	assert_non_null(strstr(line, "ready"));
	struct sim *s;
	struct sim_context *c;
	struct sim_channel *k;
	uint64_t id, token, left, total;
	assert_int_equal(sim_connect(path, &s), 0);
	assert_true(sim_card(s, 0)->slice_ns == 500000 && sim_card(s, 0)->mem_bytes == 3072 * MIB);
	assert_int_equal(sim_context_create(s, 0, &c), 0);
	assert_int_equal(sim_channel_create(c, 0, 0, &k), 0);
	static char from[65537] = { 1 }, to[65537], to_all[65536];
	RUN(k, linear(SIM_H2D, to_all, from, 65536), linear(SIM_H2D, to, from, 65537));
	assert_true(to_all[0] == 1 && to[0] == 0);   /* the larger one took its time, and no more */
	uint64_t seq = sim_submit(k, &(struct sim_cmd){ .kind = SIM_KERNEL, .kernel = { .grid = { 1, 1, 1 }, .block = { 1, 1, 1 },
				  .block_ns = 3600 * PEN_S } });
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(sim_wait(k, seq, UINT64_MAX, false), -ENODEV);
	assert_int_equal(sim_context_status(c), -ENODEV);
	assert_int_equal(sim_submit(k, &(struct sim_cmd){ .kind = SIM_NOP }), 0);
	assert_int_equal(sim_mem_take(s, 0, SIM_PAGE_BYTES, &id), -ENODEV);
	assert_int_equal(sim_mem_info(s, 0, &left, &total), -ENODEV);
	assert_int_equal(sim_host_next(s, UINT64_MAX, &token), -ESHUTDOWN);
	sim_channel_destroy(k);
	sim_context_destroy(c);
	sim_disconnect(s);
	assert_int_equal(sim_connect(path, &s), -ENOENT);
	close(out[0]);
	unlink(path);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_card),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_copies),
		cmocka_unit_test(test_pitched_copy_and_fill),
		cmocka_unit_test(test_builtins),
		cmocka_unit_test(test_stamps),
		cmocka_unit_test(test_waves),
		cmocka_unit_test(test_wait_seq),
		cmocka_unit_test(test_wait_word),
		cmocka_unit_test(test_full_ring),
		cmocka_unit_test(test_host_function),
		cmocka_unit_test(test_illegal_address),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_destroy_in_flight),
		cmocka_unit_test(test_kill),
		cmocka_unit_test(test_time_slices),
		cmocka_unit_test(test_reading),
		cmocka_unit_test(test_server_gone),
	};
	server_path = argc > 1 ? argv[1] : "penstock-simgpu";
	return cmocka_run_group_tests(tests, setup, teardown);
}
