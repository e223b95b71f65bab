/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What commands do to their client's memory.
 *
 * Small ones are done by the engine at the moment at which they end; the others by workers, from the moment at which they start,
 * in pieces and in turns, so that a copy of gigabytes does not keep others waiting.
 */
#include "base/auto.h"
#include "simgpu/server/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SMALL_BYTES 16384
#define SMALL_THREADS 4096
#define PIECE (UINT64_C(256) * 1024)   /* bytes moved at a time: stays in a core's cache */
#define ROWS 256                       /* of a pitched copy, at a time */
#define TURN (4 * PIECE)               /* before another job has its turn */

/* Where a copy or fill is: rows lie at pitch and layer distances on both sides; a contiguous one is one row. */
struct shape {
	uint64_t width, rows, layers;
	uint64_t dst, dst_pitch, dst_layer, src, src_pitch, src_layer;
	uint64_t row, at;              /* rows that are done, over all layers; bytes of the next one */
	bool fill;
	unsigned element;
	uint32_t value;
};

struct sim_job {
	TAILQ_ENTRY(sim_job) link;
	pid_t pid;
	struct sim_cmd cmd;
	struct shape shape;
	_Atomic int done;
	int result;
	bool queued, working, orphan;  /* orphan: whoever wanted it has gone; its worker frees it */
};

struct sim_workers {
	pthread_mutex_t lock;
	pthread_cond_t wanted;
	TAILQ_HEAD(, sim_job) jobs;
	bool stop;
	unsigned n;
	pthread_t thread[4];
};

static struct shape shape_of(const struct sim_cmd *cmd)
{
	struct shape s = { 0 };
	if (cmd->kind == SIM_FILL) {
		s.fill = true;
		s.element = cmd->fill.element;
		s.value = cmd->fill.value;
		s.width = cmd->fill.width * cmd->fill.element;
		s.rows = cmd->fill.rows;
		s.layers = 1;
		s.dst = cmd->fill.dst;
		s.dst_pitch = cmd->fill.pitch;
		s.src_pitch = s.width;
	} else {
		s = (struct shape){ .width = cmd->copy.width, .rows = cmd->copy.rows, .layers = cmd->copy.layers,
				    .dst = cmd->copy.dst, .dst_pitch = cmd->copy.dst_pitch, .dst_layer = cmd->copy.dst_layer,
				    .src = cmd->copy.src, .src_pitch = cmd->copy.src_pitch, .src_layer = cmd->copy.src_layer };
	}
	/* Rows that lie behind each other are one. */
	if (s.layers == 1 && s.rows > 1 && s.dst_pitch == s.width && s.src_pitch == s.width) {
		s.width *= s.rows;
		s.rows = 1;
	}
	return s;
}

static uint64_t bytes_of(const struct sim_cmd *cmd)
{
	if (cmd->kind == SIM_COPY)
		return cmd->copy.width * cmd->copy.rows * cmd->copy.layers;
	return cmd->fill.width * cmd->fill.rows * cmd->fill.element;
}

bool sim_effect_is_none(const struct sim_server *s, const struct sim_cmd *cmd)
{
	if (cmd->kind == SIM_KERNEL)
		return !cmd->kernel.compute;
	/* A copy from nowhere to nowhere takes its time and does nothing. */
	return !bytes_of(cmd) || bytes_of(cmd) > s->hollow_bytes || (cmd->kind == SIM_COPY ? !cmd->copy.dst && !cmd->copy.src : !cmd->fill.dst);
}

bool sim_effect_is_small(const struct sim_cmd *cmd)
{
	if (cmd->kind == SIM_KERNEL) {
		uint64_t t = 1;
		for (unsigned i = 0; i < 3 && t <= SMALL_THREADS; i++)
			if (__builtin_mul_overflow(t, (uint64_t)cmd->kernel.grid[i] * cmd->kernel.block[i], &t))
				return false;
		return t <= SMALL_THREADS;
	}
	uint64_t rows = cmd->kind == SIM_COPY ? cmd->copy.rows * cmd->copy.layers : cmd->fill.rows;
	return bytes_of(cmd) <= SMALL_BYTES && rows <= ROWS;
}

static uint64_t dst_at(const struct shape *s, uint64_t row)
{
	return s->dst + row / s->rows * s->dst_layer + row % s->rows * s->dst_pitch;
}

static uint64_t src_at(const struct shape *s, uint64_t row)
{
	return s->src + row / s->rows * s->src_layer + row % s->rows * s->src_pitch;
}

/* Moves all of @remote at once; where the kernel stops short, what lies there cannot be had. */
static int gather(pid_t pid, void *here, struct iovec *remote, unsigned n, size_t bytes, bool write)
{
	struct iovec local = { here, bytes };
	ssize_t got = write ? process_vm_writev(pid, &local, 1, remote, n, 0) : process_vm_readv(pid, &local, 1, remote, n, 0);
	return got == (ssize_t)bytes ? 0 : got < 0 ? -errno : -EFAULT;
}

/* Part of one long row. */
static int step_long(pid_t pid, struct shape *s, unsigned char *buffer, uint64_t *ret_bytes)
{
	uint64_t n = PEN_MIN(s->width - s->at, PIECE);
	int r = s->fill ? 0 : sim_read(pid, src_at(s, s->row) + s->at, buffer, n);
	if (!r)
		r = sim_write(pid, dst_at(s, s->row) + s->at, buffer, n);
	s->at += n;
	if (s->at == s->width) {
		s->at = 0;
		s->row++;
	}
	*ret_bytes = n;
	return r;
}

/* Some short rows together. */
static int step_rows(pid_t pid, struct shape *s, unsigned char *buffer, uint64_t *ret_bytes)
{
	struct iovec from[ROWS], to[ROWS];
	uint64_t left = s->rows * s->layers - s->row;
	uint64_t fit = PIECE / s->width;
	unsigned n = (unsigned)(left < ROWS ? left : ROWS);
	if (n > fit)
		n = (unsigned)fit;
	for (unsigned i = 0; i < n; i++) {
		from[i] = (struct iovec){ (void *)(uintptr_t)src_at(s, s->row + i), s->width };
		to[i] = (struct iovec){ (void *)(uintptr_t)dst_at(s, s->row + i), s->width };
	}
	int r = s->fill ? 0 : gather(pid, buffer, from, n, n * s->width, false);
	if (!r)
		r = gather(pid, buffer, to, n, n * s->width, true);
	s->row += n;
	*ret_bytes = n * s->width;
	return r;
}

/* At most @most bytes. Return: 1 there is more, 0 done, or a negative errno. */
static int step_shape(pid_t pid, struct shape *s, unsigned char *buffer, uint64_t most)
{
	uint64_t moved = 0, n = 0;
	if (s->fill) {
		uint64_t rows = s->rows < ROWS ? s->rows : ROWS;
		uint64_t need = s->width > PIECE ? PIECE : PEN_MIN(PIECE, s->width * rows);
		for (uint64_t i = 0; i < need; i += s->element)
			memcpy(buffer + i, &s->value, s->element);
	}
	while (s->row < s->rows * s->layers) {
		if (moved >= most)
			return 1;
		int r = s->width > PIECE ? step_long(pid, s, buffer, &n) : step_rows(pid, s, buffer, &n);
		if (r < 0)
			return r;
		moved += n;
	}
	return 0;
}

int sim_effect_now(pid_t pid, const struct sim_cmd *cmd)
{
	unsigned char buffer[PIECE];
	if (cmd->kind == SIM_KERNEL)
		return sim_builtin_run(pid, cmd);
	struct shape s = shape_of(cmd);
	int r;
	while ((r = step_shape(pid, &s, buffer, UINT64_MAX)) > 0)
		;
	return r;
}

/* ---- workers ---- */

/* Under the lock. A job that nobody wants is freed, else its owner is told. */
static void finish_job(struct sim_server *s, struct sim_job *job, int result)
{
	if (job->orphan) {
		free(job);
		return;
	}
	job->result = result;
	atomic_store(&job->done, 1);
	atomic_store(&s->jobs_done, 1);
	sim_kick(s);
}

static void *worker_main(void *arg)
{
	struct sim_server *s = arg;
	struct sim_workers *w = s->workers;
	unsigned char *buffer = malloc(PIECE);
	struct sim_job *job;

	pthread_mutex_lock(&w->lock);
	while (buffer) {
		while (!w->stop && TAILQ_EMPTY(&w->jobs))
			pthread_cond_wait(&w->wanted, &w->lock);
		if (w->stop)
			break;
		job = TAILQ_FIRST(&w->jobs);
		TAILQ_REMOVE(&w->jobs, job, link);
		job->queued = false;
		job->working = true;
		bool wanted = !job->orphan;
		pthread_mutex_unlock(&w->lock);
		int r = !wanted ? 0 : job->cmd.kind == SIM_KERNEL ? sim_builtin_run(job->pid, &job->cmd) :
								    step_shape(job->pid, &job->shape, buffer, TURN);
		pthread_mutex_lock(&w->lock);
		job->working = false;
		if (r > 0 && !job->orphan) {
			TAILQ_INSERT_TAIL(&w->jobs, job, link);
			job->queued = true;
		} else {
			finish_job(s, job, r);
		}
	}
	pthread_mutex_unlock(&w->lock);
	free(buffer);
	return NULL;
}

struct sim_job *sim_effect_begin(struct sim_server *s, pid_t pid, const struct sim_cmd *cmd)
{
	struct sim_workers *w = s->workers;
	struct sim_job *job = calloc(1, sizeof(*job));
	if (!job)
		return NULL;   /* done by the engine then */
	job->pid = pid;
	job->cmd = *cmd;
	if (cmd->kind != SIM_KERNEL)
		job->shape = shape_of(cmd);
	pthread_mutex_lock(&w->lock);
	TAILQ_INSERT_TAIL(&w->jobs, job, link);
	job->queued = true;
	pthread_cond_signal(&w->wanted);
	pthread_mutex_unlock(&w->lock);
	return job;
}

bool sim_effect_done(const struct sim_job *job, int *ret_result)
{
	if (!atomic_load(&job->done))
		return false;
	*ret_result = job->result;
	return true;
}

void sim_effect_forget(struct sim_server *s, struct sim_job *job)
{
	struct sim_workers *w = s->workers;
	pthread_mutex_lock(&w->lock);
	if (job->queued)
		TAILQ_REMOVE(&w->jobs, job, link);
	if (job->working)
		job->orphan = true;
	else
		free(job);
	pthread_mutex_unlock(&w->lock);
}

int sim_workers_start(struct sim_server *s, unsigned n)
{
	struct sim_workers *w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wanted, NULL);
	TAILQ_INIT(&w->jobs);
	s->workers = w;
	n = PEN_MIN(n, (unsigned)PEN_ARRAY_LEN(w->thread));
	for (; w->n < n; w->n++)
		if (pthread_create(&w->thread[w->n], NULL, worker_main, s))
			break;
	return w->n ? 0 : -EAGAIN;
}

void sim_workers_stop(struct sim_server *s)
{
	struct sim_workers *w = s->workers;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_broadcast(&w->wanted);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->n; i++)
		pthread_join(w->thread[i], NULL);
	/* The engine has stopped before: its jobs are forgotten, and these nobody wants. */
	struct sim_job *job;
	while ((job = TAILQ_FIRST(&w->jobs))) {
		TAILQ_REMOVE(&w->jobs, job, link);
		free(job);
	}
	pthread_cond_destroy(&w->wanted);
	pthread_mutex_destroy(&w->lock);
	free(w);
	s->workers = NULL;
}
