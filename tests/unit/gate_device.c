/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_device.h"
#include "base/clock.h"
#include "base/units.h"
#include "board/terms.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

struct fake_mark {
	struct fake_dev *dev;
	struct fake_queue *q;
	uint64_t start_ns, end_ns;
	uint32_t done;
};

struct fake_item {
	struct fake_item *next;
	uint64_t number, dur_ns;
	uint32_t tag;
	bool has_tag;
	const _Atomic uint32_t *until;
	uint32_t gate;
	void (*then)(void *arg);
	void *arg;
	struct fake_mark *fm;
	struct pen_mark *mark;
};

static _Thread_local bool on_device_thread;

static bool runnable(const struct fake_dev *d, const struct fake_item *i)
{
	return i && (!d->lazy || i->number <= d->flushed) && (!i->until || atomic_load(i->until)) &&
	       (!i->gate || (int32_t)(atomic_load(&d->gate_word) - i->gate) >= 0);
}

static void execute(struct fake_dev *d, struct fake_item *i, uint64_t *start, uint64_t *end)
{
	*start = pen_mono_ns();
	if (i->dur_ns) {
		if (d->running) {
			atomic_fetch_add(d->running, 1);
			if (atomic_load(d->running_other))
				atomic_fetch_add(d->violations, 1);
		}
		uint64_t until = *start + i->dur_ns;
		struct timespec ts = { (time_t)(until / PEN_S), (long)(until % PEN_S) };
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
			;
		if (d->running)
			atomic_fetch_sub(d->running, 1);
		if (d->ended)
			atomic_store(d->ended, pen_mono_ns());
	}
	*end = pen_mono_ns();
}

static void complete(struct fake_queue *q, struct fake_item *i, uint64_t start, uint64_t end)
{
	struct fake_dev *d = q->dev;
	if (i->dur_ns)
		d->executed++;
	d->busy_ns += i->dur_ns ? end - start : 0;
	d->last_end_ns = end;
	d->outstanding_ns -= i->dur_ns;
	q->first = i->next;
	if (!q->first)
		q->last = NULL;
	if (i->fm) {
		i->fm->start_ns = start;
		i->fm->end_ns = end;
		__atomic_store_n(&i->fm->done, 1, __ATOMIC_RELEASE);
	}
	q->unfinished--;
	bool tell = i->fm && (d->adapter.caps & PEN_ADAPTER_NOTIFY);
	if (tell && d->holds_back && d->nlate < FAKE_TAGS) {
		d->late[d->nlate++] = i->mark;
		tell = false;
	}
	pthread_cond_broadcast(&d->idle);
	pthread_mutex_unlock(&d->lock);
	if (tell)
		pen_gate_mark_done(i->mark, false);
	if (i->then)
		i->then(i->arg);
	free(i);
	pthread_mutex_lock(&d->lock);
}

static void *device_main(void *arg)
{
	struct fake_dev *d = arg;
	on_device_thread = true;
	pthread_mutex_lock(&d->lock);
	for (;;) {
		struct fake_queue *best = NULL;
		bool any = false;
		for (uint32_t k = 0; k < d->nqueues; k++) {
			struct fake_item *i = d->queue[k]->first;
			any |= i != NULL;
			if (runnable(d, i) && (!best || i->number < best->first->number))
				best = d->queue[k];
		}
		if (!best) {
			if (!any && d->stop)
				break;
			/* A flag that makes a command runnable is set without telling: look again soon. */
			struct timespec ts;
			clock_gettime(CLOCK_REALTIME, &ts);
			ts.tv_nsec += any ? 200000 : 100000000;
			if (ts.tv_nsec >= 1000000000) {
				ts.tv_sec++;
				ts.tv_nsec -= 1000000000;
			}
			pthread_cond_timedwait(&d->work, &d->lock, &ts);
			continue;
		}
		struct fake_item *i = best->first;
		uint64_t start, end;
		if (i->has_tag && d->nlog < FAKE_TAGS)
			d->log[d->nlog++] = i->tag;
		pthread_mutex_unlock(&d->lock);
		execute(d, i, &start, &end);
		pthread_mutex_lock(&d->lock);
		complete(best, i, start, end);
	}
	pthread_mutex_unlock(&d->lock);
	return NULL;
}

static struct fake_mark *mark_new(struct fake_queue *q, struct pen_mark *mark)
{
	struct fake_dev *d = q->dev;
	struct fake_mark *m = calloc(1, sizeof(*m));
	m->dev = d;
	m->q = q;
	d->marks++;
	d->marks_ever++;
	if (++q->marks > d->marks_max)
		d->marks_max = q->marks;
	mark->native = m;
	mark->timed = (d->adapter.caps & PEN_ADAPTER_TIMESTAMPS) != 0;
	return m;
}

static void enqueue(struct fake_queue *q, struct fake_item *i, struct pen_mark *mark)
{
	struct fake_dev *d = q->dev;
	pthread_mutex_lock(&d->lock);
	i->number = ++d->submitted;
	if (mark) {
		i->mark = mark;
		i->fm = mark_new(q, mark);
	}
	if (q->last)
		q->last->next = i;
	else
		q->first = i;
	q->last = i;
	q->unfinished++;
	d->outstanding_ns += i->dur_ns;
	if (d->outstanding_ns > d->outstanding_max_ns)
		d->outstanding_max_ns = d->outstanding_ns;
	pthread_cond_signal(&d->work);
	pthread_mutex_unlock(&d->lock);
}

static int submit_piece(struct fake_queue *q, const struct fake_cmd *c, uint32_t count, bool last, uint32_t gate, struct pen_mark *mark)
{
	if (c->refuse)
		return c->refuse;
	uint32_t slices = c->slices ? c->slices : 1;
	struct fake_item *i = calloc(1, sizeof(*i));
	i->dur_ns = c->dur_ns / slices * count;
	i->tag = c->tag;
	i->has_tag = last;
	i->until = c->until;
	i->gate = gate;
	atomic_fetch_add(&q->dev->gated, gate != 0);
	i->then = last ? c->then : NULL;
	i->arg = c->arg;
	enqueue(q, i, mark);
	if (c->blocking && last)
		fake_finish(q);
	return 0;
}

int fake_submit(struct fake_queue *q, const struct fake_cmd *c)
{
	return submit_piece(q, c, c->slices ? c->slices : 1, true, 0, NULL);
}

static int ad_submit(struct pen_gate_queue *q, void *native, const struct pen_piece *piece, struct pen_mark *mark)
{
	return submit_piece(q->native, native, piece->count, piece->last, piece->gate, mark);
}

static int ad_mark_record(struct pen_gate_queue *q, struct pen_mark *mark)
{
	enqueue(q->native, calloc(1, sizeof(struct fake_item)), mark);
	return 0;
}

static int ad_mark_poll(struct pen_mark *mark)
{
	struct fake_mark *m = mark->native;
	return (int)__atomic_load_n(&m->done, __ATOMIC_ACQUIRE);
}

static int ad_mark_wait(struct pen_mark *mark, uint64_t bound_ns)
{
	struct fake_mark *m = mark->native;
	uint64_t end = pen_mono_ns() + bound_ns;
	int r = 0;
	pthread_mutex_lock(&m->dev->lock);
	while (!m->done && r == 0) {
		if (pen_mono_ns() >= end) {
			r = -ETIMEDOUT;
			break;
		}
		struct timespec ts;
		clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_nsec += 500000;
		if (ts.tv_nsec >= 1000000000) {
			ts.tv_sec++;
			ts.tv_nsec -= 1000000000;
		}
		pthread_cond_timedwait(&m->dev->idle, &m->dev->lock, &ts);
	}
	pthread_mutex_unlock(&m->dev->lock);
	return r;
}

static void ad_mark_release(struct pen_mark *mark)
{
	struct fake_mark *m = mark->native;
	struct fake_dev *d = m->dev;
	pthread_mutex_lock(&d->lock);
	d->marks--;
	m->q->marks--;
	pthread_mutex_unlock(&d->lock);
	free(m);
	mark->native = NULL;
}

static int ad_mark_time(struct pen_mark *first, struct pen_mark *last, uint64_t *ret_start, uint64_t *ret_end)
{
	*ret_start = ((struct fake_mark *)first->native)->start_ns;
	*ret_end = ((struct fake_mark *)last->native)->end_ns;
	return 0;
}

static void ad_flush_all(void *native)
{
	struct fake_dev *d = native;
	pthread_mutex_lock(&d->lock);
	d->flushes++;
	d->flushed = d->submitted;
	pthread_cond_signal(&d->work);
	pthread_mutex_unlock(&d->lock);
}

static bool ad_capturing(struct pen_gate_queue *q)
{
	return __atomic_load_n(&((struct fake_queue *)q->native)->dev->capturing, __ATOMIC_RELAXED);
}

static bool ad_in_callback(void)
{
	return on_device_thread;
}

static bool ad_gate_ready(struct pen_gate_queue *q)
{
	(void)q;
	return true;
}

static void ad_gate_open(void *native, uint32_t number)
{
	struct fake_dev *d = native;
	atomic_store(&d->gate_word, number);
	atomic_fetch_add(&d->gate_moves, 1);
	pthread_cond_signal(&d->work);
}

void fake_gate_have(struct fake_dev *d)
{
	d->adapter.gate_ready = ad_gate_ready;
	d->adapter.gate_open = ad_gate_open;
}

static int ad_oom_code(enum pen_denial why)
{
	return -100 - (int)why;
}

struct fake_dev *fake_dev_start(uint32_t caps, uint32_t marks_max)
{
	struct fake_dev *d = calloc(1, sizeof(*d));
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->work, NULL);
	pthread_cond_init(&d->idle, NULL);
	d->adapter = (struct pen_adapter){
		.abi = PEN_ADAPTER_ABI, .size = sizeof(struct pen_adapter), .name = "fake", .caps = caps, .marks_max = marks_max,
		.submit = ad_submit, .mark_record = ad_mark_record, .mark_poll = ad_mark_poll,
		.mark_wait = marks_max % 2 ? ad_mark_wait : NULL, .mark_release = ad_mark_release,
		.mark_time = caps & PEN_ADAPTER_TIMESTAMPS ? ad_mark_time : NULL,
		.flush_all = ad_flush_all, .capturing = ad_capturing, .in_callback = ad_in_callback, .oom_code = ad_oom_code,
	};
	pthread_create(&d->thread, NULL, device_main, d);
	return d;
}

void fake_dev_stop(struct fake_dev *d)
{
	pthread_mutex_lock(&d->lock);
	d->stop = true;
	pthread_cond_signal(&d->work);
	pthread_mutex_unlock(&d->lock);
	pthread_join(d->thread, NULL);
}

struct fake_queue *fake_queue_new(struct fake_dev *d)
{
	struct fake_queue *q = calloc(1, sizeof(*q));
	q->dev = d;
	pthread_mutex_lock(&d->lock);
	d->queue[d->nqueues++] = q;
	pthread_mutex_unlock(&d->lock);
	return q;
}

void fake_finish(struct fake_queue *q)
{
	struct fake_dev *d = q->dev;
	pthread_mutex_lock(&d->lock);
	d->flushed = d->submitted;
	pthread_cond_signal(&d->work);
	while (q->unfinished)
		pthread_cond_wait(&d->idle, &d->lock);
	pthread_mutex_unlock(&d->lock);
}

void fake_idle(struct fake_dev *d)
{
	for (uint32_t k = 0; k < d->nqueues; k++)
		fake_finish(d->queue[k]);
}

/* Forked children of the tests start threads of their own, which the thread sanitizer refuses unless told. */
const char *__tsan_default_options(void);
__attribute__((visibility("default"), used)) const char *__tsan_default_options(void)
{
	return "die_after_fork=0";
}

/* ---- board ------------------------------------------------------------------------------------------------------ */

static void *shared(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

static void terms_default(struct pen_terms *t, uint32_t tenant, uint16_t rank)
{
	t->mode = PEN_MODE_EXCLUSIVE;
	t->mem_cap_bytes = UINT64_MAX;
	t->device_mem_bytes = PEN_GIB;
	t->share_cap_ppm = PEN_PPM;
	t->weight_ppm = PEN_PPM;
	t->rate_cap_bytes_s = UINT64_MAX;
	t->window_wide_ns = 4 * PEN_MS;
	t->window_narrow_ns = 400 * PEN_US;
	t->quantum_ns = 4 * PEN_MS;
	t->burst_ns = 2 * PEN_MS;
	t->rank = rank;
	t->slot = (uint16_t)tenant;
	t->class_ = 1;
}

struct fake_board *fake_board_new(uint32_t n, const uint16_t *rank)
{
	static struct fake_board *all;
	struct fake_board *b = calloc(1, sizeof(*b));
	b->next = all;
	all = b;
	b->signals = shared((size_t)PEN_SEATS * PEN_PAGE_BYTES);
	for (uint32_t i = 0; i < FAKE_TENANTS; i++) {
		b->terms[i] = shared(PEN_TERMS_BYTES);
		b->ledger[i] = shared(PEN_LEDGER_BYTES);
		b->ledger[i]->head.instance = i + 1;
		terms_default(&b->base[i], i, i < n ? rank[i] : 9);
		for (uint32_t s = 0; s < n; s++)
			b->base[i].seat[s] = (struct pen_seat_terms){
				.generation = 1, .tenant = (uint16_t)s, .rank = rank[s], .weight_ppm = PEN_PPM,
			};
		b->base[i].nseats = n;
		atomic_store(&b->terms[i]->lease_until_ns, UINT64_MAX);
		fake_board_publish(b, i);
	}
	for (uint32_t s = 0; s < PEN_SEATS; s++)
		atomic_store(&fake_board_signal(b, s)->generation, 1);
	return b;
}

void fake_board_publish(struct fake_board *b, uint32_t tenant)
{
	pen_terms_publish(b->terms[tenant], &b->base[tenant]);
}

struct pen_signal_page *fake_board_signal(struct fake_board *b, uint32_t seat)
{
	return (struct pen_signal_page *)(void *)(b->signals + (size_t)seat * PEN_PAGE_BYTES);
}

void fake_board_device(struct fake_board *b, uint32_t tenant, uint32_t seat, uint32_t client, struct pen_attach_device *d)
{
	memset(d, 0, sizeof(*d));
	d->seat = seat;
	d->generation = 1;
	d->slot = tenant;
	d->client = client;
	d->terms = b->terms[tenant];
	d->ledger = b->ledger[tenant];
	d->signal = fake_board_signal(b, seat);
	d->neighbours = b->signals;
	d->stride = PEN_PAGE_BYTES;
	atomic_store(&d->ledger->client[client].tag, (uint64_t)seat << 32 | 1);
	atomic_store(&d->ledger->client[client].hold_seat, PEN_SEAT_NONE);
	for (uint32_t i = 0; i < PEN_SEATS; i++)
		atomic_store(&d->neighbour_generation[i], 1);
	atomic_store(&d->live, 1);
	atomic_store(&d->attached, 1);
}
