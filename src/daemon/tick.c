/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tick thread: looks at the pages of every device, asks the policies, publishes terms that changed, renews leases.
 *
 * Rules: no I/O, no allocation, nothing under the lock but memory. The lock is shared with the main thread, which copies a
 * few hundred bytes under it; a disk, a client or an allocator therefore never makes a lease lapse. What clients
 * write is hostile: their words are compared and added up, never used as an index.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/units.h"
#include "board/terms.h"
#include "daemon/daemon.h"
#include "policy/policy.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

_Static_assert(PEN_POLICY_TENANTS == PEN_TENANT_SLOTS && PEN_POLICY_SEATS == PEN_SEATS, "sizes of policy and board");
_Static_assert((int)PEN_POLICY_LATENCY == (int)PEN_CLASS_LATENCY && (int)PEN_POLICY_BESTEFFORT == (int)PEN_CLASS_BESTEFFORT,
	       "classes of policy and contract");

/* Large and kept out of the stack, so that all of it is locked in memory from the start. */
struct scratch {
	struct pen_policy_in in;
	struct pen_policy_out out;
	struct pen_terms common, terms;
	uint64_t last_run_ns;
};

struct pen_tick {
	pthread_t thread;
	bool started;
	struct pen_table *table;
	struct scratch *scratch, *now_scratch;   /* the thread's, the main thread's */
};

static const char *const sched_name[] = {
#define X(id, name) name,
	PEN_TICK_SCHEDS(X)
#undef X
};

const char *pen_tick_sched_name(int sched)
{
	return sched_name[sched];
}

void *pen_locked_alloc(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	if (mlock(p, size) < 0)   /* RLIMIT_MEMLOCK; then at least it is there now */
		memset(p, 0, size);
	return p;
}

/* ---- one device ------------------------------------------------------------------------------------------------ */

static void look_at_seats(struct pen_table_device *dev, struct pen_policy_in *in, bool *runs)
{
	for (uint32_t i = 0; i < PEN_SEATS; i++) {
		struct pen_table_seat *s = &dev->seat[i];
		if (!s->used)
			continue;
		uint32_t word = atomic_load_explicit(&s->signal->busy, memory_order_relaxed);
		uint64_t progress = atomic_load_explicit(&s->signal->progress, memory_order_relaxed);
		struct pen_policy_seat *p = &in->seat[in->nseats++];
		*p = (struct pen_policy_seat){ .seat = (uint16_t)i, .slot = s->slot, .busy = (uint8_t)PEN_BUSY_STATE(word) };
		if (word != s->seen_word || progress != s->seen_progress || !s->still_since_ns)
			s->still_since_ns = in->now_ns;
		s->seen_word = word;
		s->seen_progress = progress;
		p->moved_ns = s->still_since_ns;
		struct pen_table_tenant *t = &dev->tenant[s->slot];
		t->attached = true;
		if (p->busy != PEN_BUSY_IDLE) {
			t->busy = true;
			t->last_busy_ns = in->now_ns;
		}
		*runs |= p->busy == PEN_BUSY_RUN;
	}
}

/* Sum of what the clients say they used, and whether one of them is held by the tenant's own limits. */
static uint64_t look_at_ledger(const struct pen_table_tenant *t, bool *held)
{
	uint64_t sum = 0, left = atomic_load_explicit(&t->accounts, memory_order_relaxed);
	for (; t->ledger && left; left &= left - 1) {
		const struct pen_ledger_client *c = &t->ledger->client[__builtin_ctzll(left)];
		sum += atomic_load_explicit(&c->device_ns, memory_order_relaxed);
		*held |= atomic_load_explicit(&c->hold_reason, memory_order_relaxed) != 0;
	}
	return sum;
}

static void look_at_tenants(struct pen_table_device *dev, struct pen_policy_in *in)
{
	for (uint32_t i = 0; i < PEN_TENANT_SLOTS; i++) {
		struct pen_table_tenant *t = &dev->tenant[i];
		if (!t->used)
			continue;
		const struct pen_contract *c = &t->contract;
		bool held = false;
		uint64_t used = look_at_ledger(t, &held);
		struct pen_policy_tenant *p = &in->tenant[in->ntenants++];
		*p = (struct pen_policy_tenant){
			.slot = (uint16_t)i,
			.cls = (uint8_t)c->cls,
			.priority = c->priority,
			.guaranteed_ppm = (uint32_t)c->compute.guaranteed,
			.cap_ppm = c->compute.cap > PEN_PPM ? PEN_PPM : (uint32_t)c->compute.cap,
			.weight_ppm = pen_contract_weight(c),
			.rate_guaranteed_bytes_s = c->bandwidth.guaranteed,
			.rate_cap_bytes_s = c->bandwidth.cap,
			.target_ns = c->sla_ns,
			.backlogged = t->busy || held,
			.exclusive = t->attached && t->exclusive_until_ns > in->now_ns,
			.used_ns = used > t->last_used_ns ? used - t->last_used_ns : 0,
		};
		t->last_used_ns = used;
	}
}

static void write_common(const struct pen_table_device *dev, const struct pen_policy_in *in,
			 const struct pen_policy_out *out, struct pen_terms *v)
{
	memset(v, 0, sizeof(*v));
	v->mode = dev->policy.mode == PEN_RUN_CORUN ? PEN_MODE_CORUN : PEN_MODE_EXCLUSIVE;
	v->device_mem_bytes = dev->mem_bytes;
	v->units_total = dev->units;
	v->fds_epoch = dev->fds_epoch;
	const struct pen_policy_terms *of[PEN_TENANT_SLOTS] = { NULL };
	for (uint32_t i = 0; i < out->ntenants; i++)
		of[out->tenant[i].slot % PEN_TENANT_SLOTS] = &out->tenant[i];
	for (uint32_t i = 0; i < in->nseats; i++) {
		uint32_t n = in->seat[i].seat;
		const struct pen_table_seat *s = &dev->seat[n];
		const struct pen_policy_terms *p = of[s->slot];
		bool stale = out->stale[n / 64] >> (n % 64) & 1;
		if (!p)
			continue;
		v->nseats = n + 1;
		v->seat[n] = (struct pen_seat_terms){
			.generation = s->generation,
			.tenant = s->slot,
			.rank = p->rank,
			.weight_ppm = p->weight_ppm,
			.flags = (p->latency ? PEN_SEAT_LATENCY : 0) | (stale ? PEN_SEAT_STALE : 0),
			.target_ns = p->target_ns,
		};
	}
}

/* Compute units in force: the cap. Who is only guaranteed some may borrow the others: at its turn nobody else runs. */
static uint32_t units_of(const struct pen_contract *c, uint32_t total)
{
	if (c->units.kind == PEN_UNITS_NONE || !total)
		return 0;
	struct pen_range64 r = pen_units_on(&c->units, total);
	return r.cap >= total ? 0 : (uint32_t)r.cap;
}

static void write_own(const struct pen_table_device *dev, const struct pen_table_tenant *t,
		      const struct pen_policy_terms *p, struct pen_terms *v)
{
	const struct pen_contract *c = &t->contract;
	v->flags = t->stop_flags | (dev->lost ? PEN_TERMS_STOP : 0) | (t->mem_bound ? PEN_TERMS_LENT : 0) |
		   (t->mem_bound && !dev->lends ? PEN_TERMS_LENDS_SOON : 0);
	v->mem_cap_bytes = t->mem_limit;
	v->mem_limit_bytes = pen_lend_shown(t);
	v->mem_overhead_bytes = t->mem_overhead_bytes;
	v->mem_contract_bytes = c->memory.cap;
	v->mem_guaranteed_bytes = c->memory.guaranteed;
	v->share_guaranteed_ppm = p->guaranteed_ppm;
	v->share_cap_ppm = p->cap_ppm;
	v->share_floor_ppm = p->floor_ppm;
	v->weight_ppm = p->weight_ppm;
	v->rate_cap_bytes_s = p->rate_cap_bytes_s;
	v->rate_guaranteed_bytes_s = p->rate_guaranteed_bytes_s;
	v->target_ns = p->target_ns;
	v->window_wide_ns = p->window_wide_ns;
	v->window_narrow_ns = p->window_narrow_ns;
	v->chunk_wide_ns = p->chunk_wide_ns;
	v->chunk_narrow_ns = p->chunk_narrow_ns;
	v->quantum_ns = p->quantum_ns;
	v->burst_ns = p->burst_ns;
	v->units = units_of(c, dev->units);
	v->rank = p->rank;
	v->slot = p->slot;
	v->class_ = (uint32_t)c->cls;
	v->own_flags = p->latency ? PEN_SEAT_LATENCY : 0;
	v->flags |= (p->exclusive ? PEN_TERMS_EXCLUSIVE : 0) | (p->held ? PEN_TERMS_HOLD : 0);
}

#define OWN_PART offsetof(struct pen_terms, seat)   /* before the seats, which are the same for all */

/* The seats are most of the terms and seldom change: looked at once for the device, and not once for each tenant. */
static void note_seats(struct pen_table_device *dev, const struct pen_terms *common)
{
	if (dev->seats_version && !memcmp(dev->last_seat, common->seat, sizeof(dev->last_seat)))
		return;
	memcpy(dev->last_seat, common->seat, sizeof(dev->last_seat));
	dev->seats_version++;
}

static void publish(struct pen_table_device *dev, struct scratch *s, uint64_t lease_until_ns)
{
	write_common(dev, &s->in, &s->out, &s->common);
	note_seats(dev, &s->common);
	for (uint32_t i = 0; i < s->out.ntenants; i++) {
		const struct pen_policy_terms *p = &s->out.tenant[i];
		if (p->slot >= PEN_TENANT_SLOTS)
			continue;
		struct pen_table_tenant *t = &dev->tenant[p->slot];
		t->rank = p->rank;
		t->entitled_ppm = p->entitled_ppm;
		memcpy(&s->terms, &s->common, OWN_PART);
		write_own(dev, t, p, &s->terms);
		if (t->last_page != t->terms || t->seats_version != dev->seats_version || memcmp(t->last, &s->terms, OWN_PART) != 0) {
			memcpy(s->terms.seat, s->common.seat, sizeof(s->terms.seat));
			memcpy(t->last, &s->terms, OWN_PART);
			t->last_page = t->terms;
			t->seats_version = dev->seats_version;
			pen_terms_publish(t->terms, &s->terms);
			dev->changes++;
		}
		atomic_store_explicit(&t->terms->lease_until_ns, lease_until_ns, memory_order_release);
	}
}

static void run_device(const struct pen_table *table, struct pen_table_device *dev, struct scratch *s, uint64_t now_ns,
		       bool extra)
{
	struct pen_policy_in *in = &s->in;
	in->now_ns = now_ns;
	in->tick_ns = s->last_run_ns ? now_ns - s->last_run_ns : table->tick_ns;
	in->quantum_ns = dev->policy.quantum_ns;
	in->corun = dev->policy.mode == PEN_RUN_CORUN;
	in->ntenants = in->nseats = 0;
	for (uint32_t i = 0; i < PEN_TENANT_SLOTS; i++) {
		dev->tenant[i].busy = dev->tenant[i].attached = false;
		if (!dev->tenant[i].used)
			dev->tenant[i].last_page = NULL;   /* its address may come back as another page */
	}
	bool runs = false;
	look_at_seats(dev, in, &runs);
	look_at_tenants(dev, in);
	if (!extra) {
		dev->seen_ns += in->tick_ns;
		dev->busy_ns += runs ? in->tick_ns : 0;
	}
	pen_policy_run(pen_policy_find(PEN_POLICY_ORDER, pen_order_name(dev->policy.order)),
		       pen_policy_find(PEN_POLICY_SHARE, pen_share_name(dev->policy.share)),
		       pen_policy_find(PEN_POLICY_RATE, pen_rate_name(dev->policy.rate)), in, &s->out);
	for (uint32_t i = 0; i < in->nseats; i++) {
		uint32_t seat = in->seat[i].seat;
		dev->seat[seat].stale = s->out.stale[seat / 64] >> (seat % 64) & 1;
	}
	dev->lends = now_ns >= atomic_load(&table->lend_after_ns);
	bool raise = pen_lend_lower(dev);
	publish(dev, s, now_ns + table->lease_ns);
	if (raise) {   /* lowered limits are out: what is free now is really free */
		pen_lend_raise(dev);
		publish(dev, s, now_ns + table->lease_ns);
	}
	pen_lend_answer(dev);
}

/* ---- the thread ------------------------------------------------------------------------------------------------- */

static int raise_urgency(void)
{
	struct sched_param sp = { .sched_priority = 1 };
	if (pthread_setschedparam(pthread_self(), SCHED_FIFO, &sp) == 0)
		return PEN_TICK_FIFO;
	/* The priority of a thread: on Linux PRIO_PROCESS takes a thread's number. */
	if (setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), -11) == 0)
		return PEN_TICK_NICE;
	return PEN_TICK_OTHER;
}

static void *tick_main(void *arg)
{
	struct pen_tick *tick = arg;
	struct pen_table *t = tick->table;
	pthread_setname_np(pthread_self(), "tick");
	atomic_store(&t->sched, raise_urgency());
	uint64_t next = pen_mono_ns();
	while (!atomic_load_explicit(&t->stop, memory_order_relaxed)) {
		uint64_t now = pen_mono_ns();
		pen_lock(&t->lock);
		for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
			if (t->device[i])
				run_device(t, t->device[i], tick->scratch, now, false);
		tick->scratch->last_run_ns = now;
		uint64_t every = t->tick_ns;
		pen_unlock(&t->lock);

		uint64_t end = pen_mono_ns();
		if (end - now > atomic_load_explicit(&t->longest_ns, memory_order_relaxed))
			atomic_store_explicit(&t->longest_ns, end - now, memory_order_relaxed);
		atomic_store_explicit(&t->last_tick_ns, now, memory_order_relaxed);
		atomic_fetch_add_explicit(&t->ticks, 1, memory_order_relaxed);
		next += every;
		if (next <= end) {   /* late by a whole tick: start again from here instead of running after */
			atomic_fetch_add_explicit(&t->late, 1, memory_order_relaxed);
			next = end + every;
		}
		struct timespec until = { .tv_sec = (time_t)(next / PEN_S), .tv_nsec = (long)(next % PEN_S) };
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
			;
	}
	return NULL;
}

int pen_tick_start(struct pen_daemon *d, struct pen_err *err)
{
	struct pen_tick *tick = calloc(1, sizeof(*tick));
	if (!tick)
		return pen_err_sys(err, -ENOMEM, "tick");
	d->tick = tick;
	tick->table = d->table;
	tick->scratch = pen_locked_alloc(sizeof(*tick->scratch));
	tick->now_scratch = pen_locked_alloc(sizeof(*tick->now_scratch));
	if (!tick->scratch || !tick->now_scratch)
		return pen_err_sys(err, -ENOMEM, "tick");
	/* Signals are the main thread's. */
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int r = -pthread_create(&tick->thread, NULL, tick_main, tick);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r < 0)
		return pen_err_sys(err, r, "tick thread");
	tick->started = true;
	return 0;
}

/*
 * Under the same lock, with the same rules. An attach needs terms before it answers, and a change of a contract need not
 * wait for the next tick.
 */
void pen_tick_now(struct pen_daemon *d, struct pen_device *dev)
{
	if (!d->tick)
		return;
	struct scratch *s = d->tick->now_scratch;
	uint64_t now = pen_mono_ns();
	pen_lock(&d->table->lock);
	run_device(d->table, dev->table, s, now, true);
	s->last_run_ns = now;
	pen_unlock(&d->table->lock);
}

void pen_tick_stop(struct pen_daemon *d)
{
	struct pen_tick *tick = d->tick;
	if (!tick)
		return;
	d->tick = NULL;
	if (tick->started) {
		atomic_store(&d->table->stop, true);
		pthread_join(tick->thread, NULL);
	}
	if (tick->scratch)
		munmap(tick->scratch, sizeof(*tick->scratch));
	if (tick->now_scratch)
		munmap(tick->now_scratch, sizeof(*tick->now_scratch));
	free(tick);
}
