/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_SERVER_SERVER_H
#define SIM_SERVER_SERVER_H
/*
 * The device server: what the files of this folder share.
 *
 * Two threads and a few workers. The engine (engine.c) runs the models in real time: it takes commands out of the rings, lets the
 * models go on to now, and publishes what has ended. The control thread (control.c) serves sockets and deaths. Workers (effect.c)
 * do what commands do to their client's memory. One lock guards all state; the engine lets go of it whenever it rests.
 */
#include <pthread.h>
#include <stdio.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "base/err.h"
#include "model/model.h"
#include "simgpu/wire.h"

#define SIM_DEVICES 16
#define SIM_SAMPLE_NS UINT64_C(166666667)      /* NVML samples utilisation each sixth of a second on most cards */
#define SIM_LATE_BUCKETS 40                    /* powers of two, ns */

struct sim_server;
struct sim_proc;
struct sim_dev;

/* What a process did on a device; outlives the process, until the next reset. */
struct sim_account {
	TAILQ_ENTRY(sim_account) link;
	struct sim_dev *dev;
	pid_t pid;
	char name[32];
	bool alive;
	uint64_t mem_bytes, mem_peak_bytes;
	struct pen_model_truth past;           /* of contexts that are gone */
	/* Sample of its utilisation, see reading.c */
	uint64_t busy_before_ns, busy_sample_ns;
};
TAILQ_HEAD(sim_accounts, sim_account);

/* Device memory that a process holds. */
struct sim_block {
	TAILQ_ENTRY(sim_block) link;           /* of its process */
	uint64_t id;
	struct sim_proc *proc;
	struct sim_dev *dev;
	uint64_t bytes;
};

struct sim_ctx {
	TAILQ_ENTRY(sim_ctx) link;             /* of its process */
	struct sim_proc *proc;
	struct sim_dev *dev;
	struct sim_account *account;
	struct pen_model_context *model;
	struct sim_block *memory;              /* what the context itself takes */
	uint64_t id;
	uint32_t index;                        /* of its status word */
	int fault;                             /* to be told and carried out after the model has run */
};

struct sim_job;

struct sim_chan {
	TAILQ_ENTRY(sim_chan) publish, poll;
	struct sim_ctx *ctx;
	struct pen_model_channel *model;
	struct sim_ring *ring;
	uint64_t id;
	uint32_t index;                        /* of its bit */
	uint64_t taken, done;                  /* commands taken out of the ring; that have ended */
	uint64_t skipped;                      /* of them that the model never saw: its context had failed */
	struct sim_cmd *cmd;                   /* copies of what was taken, SIM_RING of them */
	struct sim_job *job;                   /* what a worker does for the head */
	bool to_publish, polled, held, closing;
	uint64_t polled_since_ns;
	uint64_t ended_ns;                     /* real time at which the last command should have ended */
};
TAILQ_HEAD(sim_chans, sim_chan);

#define SIM_BATCH 64

/* Words to be written into a client's memory, in order. */
struct sim_batch {
	unsigned n;
	uint64_t value[SIM_BATCH];
	struct iovec local[SIM_BATCH], remote[SIM_BATCH];
};

struct sim_proc {
	TAILQ_ENTRY(sim_proc) link;
	struct sim_server *server;
	int fd, pidfd;
	pid_t pid;
	bool greeted;                          /* a process that works, not simgpu-ctl */
	struct event *on_request, *on_death;
	int page_fd;
	struct sim_page *page;
	struct sim_account *account[SIM_DEVICES];
	TAILQ_HEAD(, sim_block) blocks;
	TAILQ_HEAD(, sim_ctx) contexts;
	bool index_used[SIM_CONTEXTS];
	struct sim_chan *chan[SIM_CHANNELS];
	struct sim_batch batch;
};
TAILQ_HEAD(sim_procs, sim_proc);

struct sim_dev {
	struct sim_server *server;
	unsigned index;
	struct pen_card card;
	struct sim_card told;
	struct pen_model *model;
	uint64_t used_bytes;
	unsigned refuse;                       /* fault oom: allocations still to be refused */
	bool lost, hung;
	uint32_t xid, ecc;
	/* Utilisation as NVML samples it, see reading.c */
	uint64_t sampled_ns;                   /* model time at which the last sample ended */
	uint64_t busy_before_ns, busy_sample_ns;
	double dram_before, dram_sample, copied_before, copied_sample;
	uint32_t noise;
};

struct sim_lateness {
	uint64_t count, sum_ns, most_ns;
	uint64_t bucket[SIM_LATE_BUCKETS];
};

struct sim_server {
	pthread_mutex_t lock;
	_Atomic int asking;                    /* threads that want the lock which the engine has */
	_Atomic int stop;
	double scale;                          /* real ns of one of the model's */
	bool concurrent;
	uint64_t start_ns, spin_ns;
	int nice;                              /* of the engine's thread: what was asked for, then what it has */
	bool realtime;                         /* the same: SCHED_RR */
	uint64_t hollow_bytes;                 /* copies and fills above it move nothing */
	int bell_fd;
	struct sim_bell *bell;
	unsigned devs;
	struct sim_dev dev[SIM_DEVICES];
	struct sim_procs procs;
	struct sim_accounts accounts;
	unsigned dead_accounts;
	uint64_t next_id;
	struct sim_block **block;              /* by the low half of their id */
	uint32_t blocks, blocks_free;          /* room; below it nothing is free */

	/* the engine's */
	struct sim_chans to_publish, polled;
	uint64_t poll_due_ns;
	unsigned crossing;                     /* of @polled: those that wait for another device's channel */
	bool faulted;
	_Atomic int jobs_done;                 /* a worker has finished something */
	struct sim_lateness late;              /* publishing after the moment at which it was due */
	uint64_t late_effects, late_effect_ns; /* commands that waited for their effect, and how long */
	uint64_t commands;

	int ready_fd;                          /* of who waits for the server to be ready, or -1 */
	struct event_base *base;
	struct sim_workers *workers;
};

/* ---- time ---- */
static inline uint64_t sim_to_model(const struct sim_server *s, uint64_t real_ns)
{
	if (s->scale == 1)
		return real_ns;
	return s->start_ns + (real_ns <= s->start_ns ? 0 : (uint64_t)((double)(real_ns - s->start_ns) / s->scale));
}
static inline uint64_t sim_to_real(const struct sim_server *s, uint64_t model_ns)
{
	if (s->scale == 1 || model_ns == UINT64_MAX)
		return model_ns;
	return s->start_ns + (model_ns <= s->start_ns ? 0 : (uint64_t)((double)(model_ns - s->start_ns) * s->scale));
}

/* ---- engine.c ---- */
int sim_engine_start(struct sim_server *s, pthread_t *ret_thread);
void sim_lock(struct sim_server *s);               /* from any thread but the engine */
void sim_unlock(struct sim_server *s);
void sim_kick(struct sim_server *s);               /* has the engine look now */
void sim_catch_up(struct sim_server *s);           /* under the lock: the models as of now */
void sim_publish(struct sim_chan *ch);             /* have its `done` told, after what was written */

/* ---- hooks.c: what the models tell ---- */
extern const struct pen_model_hooks sim_hooks;     /* without its user */
void sim_take_commands(struct sim_proc *p, uint64_t now_ns);   /* out of the rings whose bits are set */
void sim_poll_waits(struct sim_server *s, uint64_t now_ns);
void sim_unpoll(struct sim_chan *ch);
void sim_effects_finished(struct sim_server *s);
void sim_host_finish(struct sim_proc *p, uint64_t token);

/* ---- access.c: a client's memory ---- */
int sim_read(pid_t pid, uint64_t from, void *to, size_t bytes);
int sim_write(pid_t pid, uint64_t to, const void *from, size_t bytes);
void sim_batch_add(struct sim_proc *p, uint64_t address, uint64_t value, unsigned bytes);
void sim_batch_flush(struct sim_proc *p);

/* ---- effect.c ---- */
int sim_workers_start(struct sim_server *s, unsigned n);
void sim_workers_stop(struct sim_server *s);
bool sim_effect_is_small(const struct sim_cmd *cmd);
bool sim_effect_is_none(const struct sim_server *s, const struct sim_cmd *cmd);
int sim_effect_now(pid_t pid, const struct sim_cmd *cmd);      /* 0 or a negative errno */
struct sim_job *sim_effect_begin(struct sim_server *s, pid_t pid, const struct sim_cmd *cmd);
bool sim_effect_done(const struct sim_job *job, int *ret_result);
void sim_effect_forget(struct sim_server *s, struct sim_job *job);   /* done or not; its worker may go on for a moment */

/* ---- builtin.c ---- */
int sim_builtin_run(pid_t pid, const struct sim_cmd *cmd);

/* ---- resource.c: memory, contexts, channels ---- */
int sim_block_take(struct sim_proc *p, struct sim_dev *d, uint64_t bytes, struct sim_block **ret);
int sim_block_give(struct sim_proc *p, uint64_t id);
int sim_ctx_create(struct sim_proc *p, struct sim_dev *d, struct sim_ctx **ret);
struct sim_ctx *sim_ctx_find(struct sim_proc *p, uint64_t id);
void sim_ctx_destroy(struct sim_ctx *c);
void sim_ctx_fail(struct sim_ctx *c, int code);                /* drops what it has, tells its waiters */
int sim_chan_create(struct sim_ctx *c, int32_t priority, uint32_t units, struct sim_chan **ret, int *ret_fd);
struct sim_chan *sim_chan_find(struct sim_proc *p, uint64_t id);
void sim_chan_destroy(struct sim_chan *ch);
void *sim_shared_page(size_t bytes, const char *name, int *ret_fd);

/* ---- proc.c ---- */
int sim_proc_create(struct sim_server *s, int fd, struct sim_proc **ret);
void sim_proc_destroy(struct sim_proc *p);
bool sim_proc_is_dead(const struct sim_proc *p);
struct sim_account *sim_account_of(struct sim_proc *p, struct sim_dev *d);

/* ---- control.c ---- */
int sim_control_run(struct sim_server *s, const char *path, struct pen_err *err);

/* ---- reading.c ---- */
void sim_dev_run(struct sim_dev *d, uint64_t until_ns);        /* the model, with samples taken on the way */
void sim_reading_of(struct sim_dev *d, struct sim_reading *ret);
unsigned sim_processes_of(struct sim_dev *d, struct sim_process *v, unsigned room);

/* ---- fault.c ---- */
int sim_fault(struct sim_dev *d, const char *what, char *text, size_t n);

/* ---- report.c ---- */
int sim_report(struct sim_server *s, FILE *out);
void sim_report_reset(struct sim_server *s);

#endif
