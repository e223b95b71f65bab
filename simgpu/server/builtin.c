/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of simgpu/builtin.h, on a client's memory. */
#include "simgpu/builtin.h"
#include "base/auto.h"
#include "simgpu/server/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 16384                    /* elements at a time */
#define ARGS 64

/* Parameters of the caller, taken one by one. */
struct args {
	unsigned char bytes[ARGS];
	size_t at;
};

static void take(struct args *a, void *to, size_t size)
{
	a->at = (a->at + size - 1) / size * size;
	memcpy(to, a->bytes + a->at, size);
	a->at += size;
}

static uint64_t pointer(struct args *a)
{
	uint64_t v;
	take(a, &v, sizeof(v));
	return v;
}

static uint32_t word(struct args *a)
{
	uint32_t v;
	take(a, &v, sizeof(v));
	return v;
}

static float real(struct args *a)
{
	float v;
	take(a, &v, sizeof(v));
	return v;
}

/* A negative int is no elements. */
static uint64_t count(struct args *a)
{
	int32_t n = (int32_t)word(a);
	return n < 0 ? 0 : (uint64_t)n;
}

/* Elementwise work: up to two inputs, one output, one constant. */
struct work {
	enum sim_builtin what;
	uint64_t in1, in2, out, n;
	float a;
	uint32_t value;
};

union lane {
	float f[CHUNK];
	uint32_t u[CHUNK];
};

static void compute(const struct work *w, uint64_t at, size_t n, const union lane *x, const union lane *y, union lane *z)
{
	for (size_t i = 0; i < n; i++)
		switch (w->what) {
		case SIM_BUILTIN_VECTOR_ADD:
			z->f[i] = x->f[i] + y->f[i];
			break;
		case SIM_BUILTIN_SAXPY:
			z->f[i] = w->a * x->f[i] + y->f[i];
			break;
		case SIM_BUILTIN_TRIAD:
			z->f[i] = x->f[i] + w->a * y->f[i];
			break;
		case SIM_BUILTIN_SCALE:
			z->f[i] = w->a * x->f[i];
			break;
		case SIM_BUILTIN_INCREMENT:
			z->u[i] = x->u[i] + 1;
			break;
		case SIM_BUILTIN_COPY32:
			z->u[i] = x->u[i];
			break;
		case SIM_BUILTIN_FILL32:
			z->u[i] = w->value;
			break;
		case SIM_BUILTIN_IOTA:
			z->u[i] = w->value + (uint32_t)(at + i);
			break;
		default:
			break;
		}
}

static int elementwise(pid_t pid, const struct work *w)
{
	pen_auto_free union lane *lane = calloc(3, sizeof(*lane));
	if (!lane)
		return -ENOMEM;
	for (uint64_t at = 0; at < w->n; at += CHUNK) {
		size_t n = w->n - at < CHUNK ? (size_t)(w->n - at) : CHUNK;
		int r = w->in1 ? sim_read(pid, w->in1 + at * 4, &lane[0], n * 4) : 0;
		if (!r && w->in2)
			r = sim_read(pid, w->in2 + at * 4, &lane[1], n * 4);
		if (r < 0)
			return r;
		compute(w, at, n, &lane[0], &lane[1], &lane[2]);
		r = sim_write(pid, w->out + at * 4, &lane[2], n * 4);
		if (r < 0)
			return r;
	}
	return 0;
}

static int reduce(pid_t pid, uint64_t in, uint64_t out, uint64_t n)
{
	pen_auto_free union lane *lane = malloc(sizeof(*lane));
	double sum = 0;
	if (!lane)
		return -ENOMEM;
	for (uint64_t at = 0; at < n; at += CHUNK) {
		size_t some = n - at < CHUNK ? (size_t)(n - at) : CHUNK;
		int r = sim_read(pid, in + at * 4, lane, some * 4);
		if (r < 0)
			return r;
		for (size_t i = 0; i < some; i++)
			sum += (double)lane->f[i];
	}
	float f = (float)sum;
	return sim_write(pid, out, &f, sizeof(f));
}

static int sgemm(pid_t pid, uint64_t a, uint64_t b, uint64_t c, uint64_t m, uint64_t n, uint64_t k)
{
	/* What is computed for real is small; a size that is not is the caller's mistake, not a reason to take the machine down. */
	if (m > 16384 || n > 16384 || k > 16384)
		return -EFAULT;
	pen_auto_free float *ma = malloc(m * k * 4 + 4);
	pen_auto_free float *mb = malloc(k * n * 4 + 4);
	pen_auto_free float *row = malloc(n * 4 + 4);
	if (!ma || !mb || !row)
		return -ENOMEM;
	int r = sim_read(pid, a, ma, m * k * 4);
	if (!r)
		r = sim_read(pid, b, mb, k * n * 4);
	for (uint64_t i = 0; !r && i < m; i++) {
		memset(row, 0, n * 4);
		for (uint64_t l = 0; l < k; l++)
			for (uint64_t j = 0; j < n; j++)
				row[j] += ma[i * k + l] * mb[l * n + j];
		r = sim_write(pid, c + i * n * 4, row, n * 4);
	}
	return r;
}

static uint64_t threads_of(const struct sim_cmd *cmd)
{
	uint64_t t = 1;
	for (unsigned i = 0; i < 3; i++)
		if (__builtin_mul_overflow(t, (uint64_t)cmd->kernel.grid[i] * cmd->kernel.block[i], &t))
			return UINT64_MAX;
	return t;
}

/* Fills in the parameters of an elementwise kernel. */
static void describe(struct work *w, struct args *a)
{
	switch (w->what) {
	case SIM_BUILTIN_VECTOR_ADD:
		w->in1 = pointer(a), w->in2 = pointer(a), w->out = pointer(a), w->n = count(a);
		break;
	case SIM_BUILTIN_SAXPY:
		w->n = count(a), w->a = real(a), w->in1 = pointer(a), w->in2 = w->out = pointer(a);
		break;
	case SIM_BUILTIN_TRIAD:
		w->out = pointer(a), w->in1 = pointer(a), w->in2 = pointer(a), w->a = real(a), w->n = count(a);
		break;
	case SIM_BUILTIN_SCALE:
		w->in1 = w->out = pointer(a), w->a = real(a), w->n = count(a);
		break;
	case SIM_BUILTIN_INCREMENT:
		w->in1 = w->out = pointer(a), w->n = word(a);
		break;
	case SIM_BUILTIN_COPY32:
		w->out = pointer(a), w->in1 = pointer(a), w->n = word(a);
		break;
	default:   /* fill32, iota */
		w->out = pointer(a), w->value = word(a), w->n = word(a);
		break;
	}
}

int sim_builtin_run(pid_t pid, const struct sim_cmd *cmd)
{
	struct args a = { 0 };
	struct work w = { .what = cmd->kernel.compute };
	size_t bytes = PEN_MIN((size_t)cmd->kernel.args_bytes, (size_t)ARGS);

	int r = bytes ? sim_read(pid, cmd->kernel.args, a.bytes, bytes) : 0;
	if (r < 0)
		return r;
	if (w.what == SIM_BUILTIN_NONE || w.what >= SIM_BUILTIN_MAX_)
		return 0;
	if (w.what == SIM_BUILTIN_REDUCE) {
		uint64_t in = pointer(&a), out = pointer(&a);
		return reduce(pid, in, out, count(&a));
	}
	if (w.what == SIM_BUILTIN_SGEMM) {
		uint64_t pa = pointer(&a), pb = pointer(&a), pc = pointer(&a);
		uint64_t m = count(&a), n = count(&a), k = count(&a);
		return sgemm(pid, pa, pb, pc, m, n, k);
	}
	describe(&w, &a);
	w.n = PEN_MIN(w.n, threads_of(cmd));
	return elementwise(pid, &w);
}
