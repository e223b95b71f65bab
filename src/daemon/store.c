/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/store.h"

#include "base/auto.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/store_db.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#define QUEUE_MAX 4096          /* events and usage rows; states of contracts, places and seats do not count */
#define BATCH_MAX 512
#define FLUSH_EVERY_S 2         /* rows of events and usage may wait so long, to be written together */
#define SEAT_EVERY_S 10         /* a seat may be written at once so often */
#define TRIM_EVERY_S 60
#define EVENT_BURST 512         /* of events that tenants can cause at will; the rest of a flood is told, and not written */
#define EVENT_EVERY_S 1         /* and one each so often */
#define CLOSE_LIMIT_S 2

struct pen_store {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	/* under the lock */
	struct pen_store_op *ops;       /* oldest first */
	unsigned n_rows;                /* of them events and usage */
	bool stop, urgent, done;
	uint32_t retention_days;
	uint64_t max_bytes;
	struct pen_store_stats stats;
	uint64_t seat_written_ns;       /* a seat was urgent */
	uint64_t events_ns;             /* when the events written so far are paid off */
	uint64_t busy_since_ns;         /* of the transaction under way, 0 = none */
	uint32_t writing;               /* in it */
	uint64_t seq, mark;             /* of the newest op; of the newest that somebody asks about */
	uint64_t written_seq, failed_seq;   /* up to here it is on disk; up to here it was not when last tried */
	bool asked;                     /* somebody waits for told_fd */
	int told_fd;
	/* the thread's own */
	struct pen_db db;
};

/* ---- queue -------------------------------------------------------------------------------------------------------- */

static bool is_row(const struct pen_store_op *op)
{
	return op->kind == PEN_OP_EVENT || op->kind == PEN_OP_USAGE;
}

static void drop_oldest_row(struct pen_store *s)
{
	struct pen_store_op *op;
	DL_FOREACH(s->ops, op) {
		/* Usage first goes; an event only if there is no usage: one list, so look for usage from the front. */
		if (op->kind == PEN_OP_USAGE)
			break;
	}
	if (!op)
		DL_FOREACH(s->ops, op)
			if (is_row(op))
				break;
	if (!op)
		return;
	DL_DELETE(s->ops, op);
	s->n_rows--;
	s->stats.dropped++;
	free(op);
}

/*
 * Is @op the newer state of what @o is about? The end of a contract is the newer state of everything of it; one that ends
 * and begins anew under its name is seen as both.
 */
static bool overtakes(const struct pen_store_op *op, const struct pen_store_op *o)
{
	if (is_row(o) || strcmp(o->tenant, op->tenant))
		return false;
	if (op->kind == PEN_OP_GONE)
		return true;
	return o->kind == op->kind && !strcmp(o->device, op->device) &&
	       (op->kind != PEN_OP_SEAT || o->u.seat.row.seat == op->u.seat.row.seat) &&
	       (op->kind != PEN_OP_NOTE || (!strcmp(o->u.note.owner, op->u.note.owner) && !strcmp(o->u.note.key, op->u.note.key)));
}

/* A newer state takes the older one's turn. */
static void drop_same(struct pen_store *s, const struct pen_store_op *op)
{
	struct pen_store_op *o, *next;
	DL_FOREACH_SAFE(s->ops, o, next)
		if (overtakes(op, o)) {
			DL_DELETE(s->ops, o);
			free(o);
		}
}

/*
 * Has it to be written by itself? Contracts and places have. Not what a later start finds out, or misses little of; and
 * not every seat: programs that come and go by the dozen would write a page each, and are mostly gone at the next flush.
 */
static bool is_urgent(struct pen_store *s, const struct pen_store_op *op)
{
	if (op->kind != PEN_OP_SEAT)
		return op->kind != PEN_OP_TOTALS;
	uint64_t now = pen_mono_ns();
	if (op->u.seat.gone || (s->seat_written_ns && now - s->seat_written_ns < SEAT_EVERY_S * PEN_S))
		return false;
	s->seat_written_ns = now;
	return true;
}

static void put(struct pen_store *s, struct pen_store_op *op)
{
	pthread_mutex_lock(&s->lock);
	if (is_row(op)) {
		if (s->n_rows >= QUEUE_MAX)
			drop_oldest_row(s);
		s->n_rows++;
	} else {
		drop_same(s, op);
		if (is_urgent(s, op)) {
			s->urgent = true;
			pthread_cond_signal(&s->wake);
		}
	}
	op->seq = ++s->seq;
	if (op->kind == PEN_OP_TENANT || op->kind == PEN_OP_GONE || op->kind == PEN_OP_DRAIN)
		s->mark = op->seq;
	DL_APPEND(s->ops, op);
	pthread_mutex_unlock(&s->lock);
}

static struct pen_store_op *new_op(enum pen_store_op_kind kind, const char *tenant, const char *device)
{
	struct pen_store_op *op = calloc(1, sizeof(*op));
	if (!op) {
		pen_log(PEN_LOG_ERROR, "store: out of memory");
		return NULL;
	}
	op->kind = kind;
	snprintf(op->tenant, sizeof(op->tenant), "%s", tenant);
	snprintf(op->device, sizeof(op->device), "%s", device);
	return op;
}

void pen_store_tenant(struct pen_store *s, const struct pen_tenant *t)
{
	struct pen_store_op *op = new_op(PEN_OP_TENANT, t->name, "");
	json_t *c = pen_contract_to_json(&t->contract);
	char *text = c ? json_dumps(c, JSON_COMPACT) : NULL;
	json_decref(c);
	if (!op || !text || strlen(text) >= sizeof(op->u.tenant.contract)) {
		free(text);
		free(op);
		return;
	}
	strcpy(op->u.tenant.contract, text);
	free(text);
	memcpy(op->u.tenant.token, t->token, sizeof(t->token));
	op->u.tenant.uid = t->owner_uid;
	op->u.tenant.gid = t->owner_gid;
	op->u.tenant.ephemeral = t->ephemeral;
	op->u.tenant.from_config = t->from_config;
	op->u.tenant.waiting = t->state == PEN_TENANT_WAITING ? t->queue_nr : 0;
	op->u.tenant.watch_pid = t->watch_pid;
	op->u.tenant.watch_start = t->watch_start;
	op->u.tenant.created = t->created;
	put(s, op);
}

void pen_store_tenant_gone(struct pen_store *s, const char *name)
{
	struct pen_store_op *op = new_op(PEN_OP_GONE, name, "");
	if (op)
		put(s, op);
}

void pen_store_place(struct pen_store *s, const struct pen_place *p)
{
	struct pen_store_op *op = new_op(PEN_OP_PLACE, p->tenant->name, p->device->key);
	if (!op)
		return;
	snprintf(op->u.place.model, sizeof(op->u.place.model), "%s", p->device->model);
	snprintf(op->u.place.api, sizeof(op->u.place.api), "%s", p->device->n_apis ? p->device->api[0].name : "");
	op->u.place.mem_bytes = p->device->mem_bytes;
	op->u.place.units = p->device->units;
	op->u.place.slot = p->slot;
	put(s, op);
}

void pen_store_place_gone(struct pen_store *s, const struct pen_place *p)
{
	struct pen_store_op *op = new_op(PEN_OP_PLACE, p->tenant->name, p->device->key);
	if (!op)
		return;
	op->u.place.gone = true;
	put(s, op);
}

void pen_store_seat(struct pen_store *s, const struct pen_seat *seat)
{
	const struct pen_place *p = seat->place;
	struct pen_store_op *op = new_op(PEN_OP_SEAT, p->tenant->name, p->device->key);
	if (!op)
		return;
	op->u.seat.row = (struct pen_seat_row){ .seat = seat->seat, .generation = seat->generation,
						.pid = seat->client->peer.pid, .start_time = seat->client->peer.start_time,
						.bytes = seat->kept_bytes };
	put(s, op);
}

void pen_store_seat_gone(struct pen_store *s, const struct pen_place *p, uint32_t seat, uint32_t generation)
{
	struct pen_store_op *op = new_op(PEN_OP_SEAT, p->tenant->name, p->device->key);
	if (!op)
		return;
	op->u.seat.row = (struct pen_seat_row){ .seat = seat, .generation = generation };
	op->u.seat.gone = true;
	put(s, op);
}

void pen_store_totals(struct pen_store *s, const struct pen_place *p)
{
	struct pen_store_op *op = new_op(PEN_OP_TOTALS, p->tenant->name, p->device->key);
	json_t *o = pen_totals_to_json(&p->retired);
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	if (!op || !text || strlen(text) >= sizeof(op->u.totals)) {
		free(text);
		free(op);
		return;
	}
	strcpy(op->u.totals, text);
	free(text);
	put(s, op);
}

void pen_store_note(struct pen_store *s, const char *owner, const char *tenant, const char *key, const char *text)
{
	struct pen_store_op *op = new_op(PEN_OP_NOTE, tenant, "");
	if (!op)
		return;
	snprintf(op->u.note.owner, sizeof(op->u.note.owner), "%s", owner);
	snprintf(op->u.note.key, sizeof(op->u.note.key), "%s", key);
	snprintf(op->u.note.text, sizeof(op->u.note.text), "%s", text ? text : "");
	op->u.note.gone = !text;
	put(s, op);
}

static void put_drain(struct pen_store *s, const char *key, double since, bool released, bool gone)
{
	struct pen_store_op *op = new_op(PEN_OP_DRAIN, "", key);
	if (!op)
		return;
	op->u.drain.since = since;
	op->u.drain.released = released;
	op->u.drain.gone = gone;
	put(s, op);
}

void pen_store_drain(struct pen_store *s, const char *key, double since, bool released)
{
	put_drain(s, key, since, released, false);
}

void pen_store_undrain(struct pen_store *s, const char *key)
{
	put_drain(s, key, 0, false, true);
}

/* Programs that come and go a thousand times a second, or are refused: a flash device would be worn out by what nobody reads. */
static bool is_flood(struct pen_store *s, const struct pen_event_row *row)
{
	if (strncmp(row->kind, "client-", 7) && strncmp(row->kind, "tenant-", 7) && strcmp(row->kind, "refused"))
		return false;
	uint64_t now = pen_mono_ns();
	pthread_mutex_lock(&s->lock);
	uint64_t paid = PEN_MAX(s->events_ns, now) + EVENT_EVERY_S * PEN_S;
	bool flood = paid > now + EVENT_BURST * EVENT_EVERY_S * PEN_S;
	if (flood)
		s->stats.left_out++;
	else
		s->events_ns = paid;
	pthread_mutex_unlock(&s->lock);
	return flood;
}

void pen_store_event(struct pen_store *s, const struct pen_event_row *row)
{
	if (is_flood(s, row))
		return;
	struct pen_store_op *op = new_op(PEN_OP_EVENT, row->tenant, row->device);
	if (!op)
		return;
	op->u.event = *row;
	put(s, op);
}

void pen_store_usage(struct pen_store *s, const struct pen_usage_row *row)
{
	struct pen_store_op *op = new_op(PEN_OP_USAGE, row->tenant, row->device);
	if (!op)
		return;
	op->u.usage = *row;
	put(s, op);
}

void pen_store_limits(struct pen_store *s, uint32_t retention_days, uint64_t max_bytes)
{
	pthread_mutex_lock(&s->lock);
	s->retention_days = retention_days;
	s->max_bytes = max_bytes;
	pthread_mutex_unlock(&s->lock);
}

void pen_store_stats(const struct pen_daemon *d, struct pen_store_stats *ret)
{
	struct pen_store *s = d->store;
	if (!s) {
		*ret = (struct pen_store_stats){ .errors = 1, .errors_now = 1, .failing_since = d->started };
		snprintf(ret->why, sizeof(ret->why), "%s", d->store_why);
		return;
	}
	pthread_mutex_lock(&s->lock);
	*ret = s->stats;
	ret->queued = s->writing;   /* not on disk yet either */
	const struct pen_store_op *op;
	DL_FOREACH(s->ops, op)
		ret->queued++;
	ret->stalled = s->busy_since_ns && pen_mono_ns() - s->busy_since_ns > PEN_S;
	pthread_mutex_unlock(&s->lock);
}

uint64_t pen_store_mark(struct pen_store *s)
{
	pthread_mutex_lock(&s->lock);
	uint64_t mark = s->mark;
	pthread_mutex_unlock(&s->lock);
	return mark;
}

enum pen_store_fate pen_store_fate(struct pen_store *s, uint64_t mark)
{
	uint64_t drained;
	if (read(s->told_fd, &drained, sizeof(drained)) < 0 && errno != EAGAIN)
		pen_log(PEN_LOG_WARN, "store: eventfd: %s", strerror(errno));
	pthread_mutex_lock(&s->lock);
	enum pen_store_fate fate = s->written_seq >= mark ? PEN_STORE_WRITTEN :
				   s->stats.errors_now && s->failed_seq >= mark ? PEN_STORE_FAILED : PEN_STORE_PENDING;
	s->asked |= fate == PEN_STORE_PENDING;
	pthread_mutex_unlock(&s->lock);
	return fate;
}

int pen_store_fd(const struct pen_store *s)
{
	return s->told_fd;
}

/* ---- the thread ------------------------------------------------------------------------------------------------------ */

/* Waits for work: for none if something is urgent, else FLUSH_EVERY_S. Called and left with the lock held. */
static void wait_for_work(struct pen_store *s)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += FLUSH_EVERY_S;
	while (!s->stop && !s->urgent)
		if (pthread_cond_timedwait(&s->wake, &s->lock, &until) == ETIMEDOUT)
			break;
	s->urgent = false;
}

static struct pen_store_op *take_batch(struct pen_store *s)
{
	struct pen_store_op *batch = NULL, *op;
	for (unsigned i = 0; i < BATCH_MAX && (op = s->ops); i++) {
		DL_DELETE(s->ops, op);
		s->n_rows -= is_row(op);
		DL_APPEND(batch, op);
	}
	return batch;
}

/* Puts back what could not be written; states that were overtaken meanwhile are left out. */
static void put_back(struct pen_store *s, struct pen_store_op *batch)
{
	struct pen_store_op *op, *next;
	struct pen_store_op *newer = s->ops;
	s->ops = NULL;
	DL_CONCAT(s->ops, batch);
	DL_FOREACH(s->ops, op)
		s->n_rows += is_row(op);
	DL_FOREACH_SAFE(newer, op, next) {
		DL_DELETE(newer, op);
		if (!is_row(op))
			drop_same(s, op);
		DL_APPEND(s->ops, op);
	}
	while (s->n_rows > QUEUE_MAX)
		drop_oldest_row(s);
}

static void free_batch(struct pen_store_op *batch)
{
	struct pen_store_op *op, *next;
	DL_FOREACH_SAFE(batch, op, next)
		free(op);
}

/* With the lock held. */
static void tell_asker(struct pen_store *s)
{
	if (s->asked && write(s->told_fd, &(uint64_t){ 1 }, sizeof(uint64_t)) > 0)
		s->asked = false;
}

/* One transaction, without the lock. Return: 0; negative errno: the batch is back in the queue. */
static int write_batch(struct pen_store *s, struct pen_store_op *batch)
{
	unsigned n = 0;
	struct pen_store_op *op;
	DL_FOREACH(batch, op)
		n++;
	uint64_t last = batch->prev->seq;   /* utlist: the head's prev is the tail */
	s->busy_since_ns = pen_mono_ns();
	s->writing = n;
	pthread_mutex_unlock(&s->lock);
	struct pen_err err = PEN_ERR_INIT;
	int r = pen_db_write(&s->db, batch, &err);
	uint64_t bytes = pen_db_bytes(&s->db);
	pthread_mutex_lock(&s->lock);
	s->busy_since_ns = 0;
	s->writing = 0;
	s->stats.bytes = bytes;
	if (r == 0) {
		if (s->stats.errors_now)
			pen_log(PEN_LOG_INFO, "store: writes again");
		s->stats.errors_now = 0;
		s->stats.failing_since = 0;
		s->written_seq = last;
		tell_asker(s);
		s->stats.written += n;
		free_batch(batch);
		return 0;
	}
	s->stats.errors++;
	if (!s->stats.errors_now++) {   /* once: a full disk would fill the log as well */
		s->stats.failing_since = pen_unix_now();
		pen_log(PEN_LOG_ERROR, "store: %s; it is tried again", err.text);
	}
	snprintf(s->stats.why, sizeof(s->stats.why), "%s", err.text);
	s->failed_seq = s->seq;   /* what came meanwhile waits for the next try */
	tell_asker(s);
	put_back(s, batch);
	return r;
}

static void *store_main(void *arg)
{
	struct pen_store *s = arg;
	pthread_setname_np(pthread_self(), "store");
	uint64_t trimmed_ns = 0;
	pthread_mutex_lock(&s->lock);
	for (;;) {
		wait_for_work(s);
		int r = 0;
		while (s->ops && r == 0)
			r = write_batch(s, take_batch(s));
		if (s->stop)
			break;
		if (r < 0) {   /* no busy loop on a full disk */
			s->urgent = false;
			continue;
		}
		if (pen_mono_ns() - trimmed_ns > TRIM_EVERY_S * PEN_S) {
			trimmed_ns = pen_mono_ns();
			uint32_t days = s->retention_days;
			uint64_t max = s->max_bytes;
			pthread_mutex_unlock(&s->lock);
			pen_db_trim(&s->db, days, max);
			pthread_mutex_lock(&s->lock);
		}
	}
	s->done = true;
	pthread_cond_broadcast(&s->wake);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* ---- open and close ----------------------------------------------------------------------------------------------------- */

int pen_store_open(struct pen_daemon *d, struct pen_err *err)
{
	struct pen_store *s = calloc(1, sizeof(*s));
	if (!s)
		return pen_err_sys(err, -ENOMEM, "store");
	s->told_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->told_fd < 0) {
		free(s);
		return pen_err_sys(err, -errno, "store");
	}
	char path[PEN_CONFIG_PATH_MAX + 32];
	snprintf(path, sizeof(path), "%s/penstock.db", d->cfg.state_dir);
	char aside[PEN_CONFIG_PATH_MAX + 80] = "";
	memcpy(s->db.boot, d->boot, sizeof(s->db.boot));
	int r = pen_db_open(&s->db, path, aside, sizeof(aside), err);
	if (r < 0) {
		close(s->told_fd);
		free(s);
		return r;
	}
	if (aside[0])
		pen_event(d, PEN_EVENT_ALERT, NULL, NULL, "the database was damaged and is kept as '%s'", aside);
	pen_db_restore(&s->db, d);
	s->retention_days = d->cfg.retention_days;
	s->max_bytes = d->cfg.retention_max_size;
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->wake, &attr);
	pthread_condattr_destroy(&attr);
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&s->thread, NULL, store_main, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r < 0) {
		pen_db_close(&s->db);
		close(s->told_fd);
		free(s);
		return pen_err_sys(err, r, "store thread");
	}
	d->store = s;
	return 0;
}

void pen_store_close(struct pen_daemon *d)
{
	struct pen_store *s = d->store;
	if (!s)
		return;
	d->store = NULL;
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += CLOSE_LIMIT_S;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->wake);
	while (!s->done)
		if (pthread_cond_timedwait(&s->wake, &s->lock, &until) == ETIMEDOUT)
			break;
	bool done = s->done;
	pthread_mutex_unlock(&s->lock);
	if (!done) {
		pen_log(PEN_LOG_WARN, "store: the disk does not answer, what was queued is lost");
		return;   /* the thread is inside SQLite: its memory is left to the end of the process */
	}
	pthread_join(s->thread, NULL);
	free_batch(s->ops);
	pen_db_close(&s->db);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->wake);
	close(s->told_fd);
	free(s);
}
