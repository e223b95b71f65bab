/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine: models in real time.
 *
 * Each pass takes what clients have submitted, lets every model go on to now, writes what is to be written into the clients' memory
 * and then tells them what has ended. Between passes it sleeps until shortly before the next event and spins for the rest; a sleep
 * may end late, and what that costs is measured (struct sim_lateness). A client's command carries the time at which it was
 * submitted, so a pass that comes late does not delay the model, only the news.
 */
#include "base/clock.h"
#include "base/lock.h"
#include "simgpu/server/server.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A device without work stops spinning this long after its last. */
#define LINGER_NS (50 * PEN_US)
#define LONGEST_SLEEP_NS PEN_S

static void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

void sim_publish(struct sim_chan *ch)
{
	if (ch->to_publish)
		return;
	ch->to_publish = true;
	TAILQ_INSERT_TAIL(&ch->ctx->dev->server->to_publish, ch, publish);
}

static void count_late(struct sim_lateness *l, uint64_t ns)
{
	unsigned bucket = ns ? 64 - (unsigned)__builtin_clzll(ns) : 0;
	l->count++;
	l->sum_ns += ns;
	if (ns > l->most_ns)
		l->most_ns = ns;
	l->bucket[bucket < SIM_LATE_BUCKETS ? bucket : SIM_LATE_BUCKETS - 1]++;
}

static void publish_all(struct sim_server *s)
{
	struct sim_chan *ch;
	struct sim_proc *p;
	if (TAILQ_EMPTY(&s->to_publish))
		return;
	TAILQ_FOREACH(p, &s->procs, link)
		sim_batch_flush(p);
	uint64_t now = pen_mono_ns();
	while ((ch = TAILQ_FIRST(&s->to_publish))) {
		TAILQ_REMOVE(&s->to_publish, ch, publish);
		ch->to_publish = false;
		atomic_store(&ch->ring->done, ch->done);
		atomic_fetch_add(&ch->ring->event, 1);
		if (atomic_load(&ch->ring->waiters))
			pen_futex_wake(&ch->ring->event, INT32_MAX);
		if (ch->ended_ns)
			count_late(&s->late, now > ch->ended_ns ? now - ch->ended_ns : 0);
		ch->ended_ns = 0;
		if (ch->closing && ch->done == ch->taken)
			sim_chan_destroy(ch);
	}
}

/* All contexts that a fault of @bad takes with it: under MPS every one of the device. */
static void fail_with(struct sim_ctx *bad)
{
	struct sim_server *s = bad->dev->server;
	struct sim_proc *p;
	struct sim_ctx *c;
	int code = bad->fault;
	bad->fault = 0;
	TAILQ_FOREACH(p, &s->procs, link)
		TAILQ_FOREACH(c, &p->contexts, link)
			if (c == bad || (s->concurrent && c->dev == bad->dev))
				sim_ctx_fail(c, code);
}

/* Contexts whose commands went wrong: not from within the model, which was at work then. */
static void carry_out_faults(struct sim_server *s)
{
	struct sim_proc *p;
	struct sim_ctx *c;
	if (!s->faulted)
		return;
	s->faulted = false;
	TAILQ_FOREACH(p, &s->procs, link)
		TAILQ_FOREACH(c, &p->contexts, link)
			if (c->fault)
				fail_with(c);
}

static void pass(struct sim_server *s)
{
	struct sim_proc *p;
	uint64_t now = pen_mono_ns();
	TAILQ_FOREACH(p, &s->procs, link)
		sim_take_commands(p, now);
	uint64_t model_now = sim_to_model(s, now);
	for (unsigned i = 0; i < s->devs; i++)
		sim_dev_run(&s->dev[i], model_now);
	/* After that, so that what they end ends now and not when the models were last looked at. */
	sim_effects_finished(s);
	sim_poll_waits(s, now);
	carry_out_faults(s);
	publish_all(s);
}

void sim_catch_up(struct sim_server *s)
{
	pass(s);
}

static uint64_t next_event(const struct sim_server *s)
{
	uint64_t next = PEN_NEVER;
	for (unsigned i = 0; i < s->devs; i++) {
		uint64_t t = sim_to_real(s, pen_model_next(s->dev[i].model));
		next = t < next ? t : next;
	}
	if (!TAILQ_EMPTY(&s->polled) && s->poll_due_ns < next)
		next = s->poll_due_ns;
	return next;
}

/* Until @next_ns, or until the bell has rung since @rings. */
static void rest(struct sim_server *s, uint64_t next_ns, uint32_t rings, uint64_t *busy_until_ns)
{
	uint64_t now = pen_mono_ns();
	if (next_ns != PEN_NEVER && next_ns <= now + LINGER_NS)
		*busy_until_ns = now + LINGER_NS;
	while (atomic_load_explicit(&s->bell->rings, memory_order_acquire) == rings && now < next_ns) {
		uint64_t left = next_ns - now;
		if (left > s->spin_ns && now >= *busy_until_ns) {
			atomic_store(&s->bell->asleep, 1);
			uint64_t ns = left - s->spin_ns;
			(void)pen_futex_wait(&s->bell->rings, rings, ns < LONGEST_SLEEP_NS ? ns : LONGEST_SLEEP_NS);
			atomic_store(&s->bell->asleep, 0);
		} else {
			for (int i = 0; i < 16; i++)
				relax();
		}
		now = pen_mono_ns();
	}
	if (atomic_load_explicit(&s->bell->rings, memory_order_relaxed) != rings)
		*busy_until_ns = now + LINGER_NS;
}

/* A device does not wait for a processor. Where that is not permitted, the lateness tells what it costs. */
static void raise_priority(struct sim_server *s)
{
	id_t me = (id_t)syscall(SYS_gettid);
	struct sched_param least = { .sched_priority = 1 };
	if (s->realtime)
		s->realtime = !pthread_setschedparam(pthread_self(), SCHED_RR, &least);
	(void)setpriority(PRIO_PROCESS, me, s->nice);
	s->nice = getpriority(PRIO_PROCESS, me);
}

static void *engine_main(void *arg)
{
	struct sim_server *s = arg;
	uint64_t busy_until_ns = 0;

	/* The kernel may else be 50 us late with every sleep. */
	(void)prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
	raise_priority(s);
	pthread_mutex_lock(&s->lock);
	while (!atomic_load(&s->stop)) {
		uint32_t rings = atomic_load_explicit(&s->bell->rings, memory_order_acquire);
		pass(s);
		uint64_t next = next_event(s);
		pthread_mutex_unlock(&s->lock);
		while (atomic_load(&s->asking))
			sched_yield();
		rest(s, next, rings, &busy_until_ns);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

void sim_kick(struct sim_server *s)
{
	atomic_fetch_add(&s->bell->rings, 1);
	if (atomic_load(&s->bell->asleep))
		pen_futex_wake(&s->bell->rings, 1);
}

void sim_lock(struct sim_server *s)
{
	atomic_fetch_add(&s->asking, 1);
	pthread_mutex_lock(&s->lock);
	atomic_fetch_sub(&s->asking, 1);
}

void sim_unlock(struct sim_server *s)
{
	pthread_mutex_unlock(&s->lock);
}

int sim_engine_start(struct sim_server *s, pthread_t *ret_thread)
{
	return -pthread_create(ret_thread, NULL, engine_main, s);
}
