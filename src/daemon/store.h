/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_STORE_H
#define PEN_DAEMON_STORE_H
/*
 * State that outlives the daemon: contracts, places, who is attached, events and usage per minute, in SQLite (WAL).
 *
 * One helper thread writes; everybody else puts rows into a queue and goes on. The queue is bounded: of usage and events
 * the oldest are dropped and counted when the disk does not follow; of contracts, places and seats only the newest
 * state of each is kept, so they are never dropped. What a day writes is bounded too (tests/daemon/test_writes.py): a minute's usage is
 * one transaction, rows wait two seconds for others, and events that tenants can cause at will are left out when they come in a flood. Reading happens once, at the start. Threads: main calls everything here.
 */
#include "base/err.h"
#include "daemon/daemon.h"

struct pen_store;

struct pen_usage_row {
	char tenant[PEN_NAME_MAX + 1], device[PEN_DEVKEY_MAX];
	uint64_t minute;   /* Unix time / 60 */
	uint64_t device_ns, mem_peak_bytes, commands, held_ns, bytes;
};

/* A process that is attached: who it is after a restart of the daemon, and what it holds. */
struct pen_seat_row {
	char tenant[PEN_NAME_MAX + 1], device[PEN_DEVKEY_MAX];
	uint32_t seat, generation;
	pid_t pid;
	uint64_t start_time, bytes;
};

struct pen_store_stats {
	uint64_t written, dropped, errors, errors_now, bytes;   /* errors_now: in a row; bytes: of the database file with its log */
	uint64_t left_out;                          /* events of a flood, which were told and are not written */
	unsigned queued;
	bool stalled;                               /* the thread has been in one transaction for over a second */
	double failing_since;                       /* Unix time; 0 = the last transaction was written */
	char why[PEN_ERR_TEXT];                     /* it fails */
};

enum pen_store_fate { PEN_STORE_PENDING, PEN_STORE_WRITTEN, PEN_STORE_FAILED };

/*
 * Opens, checks, restores what it holds into @d, starts the thread. A damaged file is kept aside as
 * NAME.damaged-TIME and a new one made. Return: 0; negative errno (no directory, no space): the daemon runs without a store.
 */
int pen_store_open(struct pen_daemon *d, struct pen_err *err);
void pen_store_close(struct pen_daemon *d);   /* writes what is queued; bounded: gives up after 2 s of a stalled disk */

void pen_store_tenant(struct pen_store *s, const struct pen_tenant *t);
void pen_store_tenant_gone(struct pen_store *s, const char *name);
void pen_store_place(struct pen_store *s, const struct pen_place *p);
void pen_store_place_gone(struct pen_store *s, const struct pen_place *p);
void pen_store_seat(struct pen_store *s, const struct pen_seat *seat);
void pen_store_seat_gone(struct pen_store *s, const struct pen_place *p, uint32_t seat, uint32_t generation);
void pen_store_totals(struct pen_store *s, const struct pen_place *p);   /* of clients that are gone */
/* Of an integration. @tenant: whose note it is, or "". @text NULL: it is gone. */
void pen_store_note(struct pen_store *s, const char *owner, const char *tenant, const char *key, const char *text);
void pen_store_drain(struct pen_store *s, const char *key, double since, bool released);
void pen_store_undrain(struct pen_store *s, const char *key);
void pen_store_event(struct pen_store *s, const struct pen_event_row *row);
void pen_store_usage(struct pen_store *s, const struct pen_usage_row *row);
void pen_store_limits(struct pen_store *s, uint32_t retention_days, uint64_t max_bytes);
void pen_store_stats(const struct pen_daemon *d, struct pen_store_stats *ret);   /* also of a daemon without a store */

/* A name for the newest contract, or drain, that was put; 0: there was none. */
uint64_t pen_store_mark(struct pen_store *s);
/* What became of it, and of all before it. After PENDING pen_store_fd() is readable when that may have changed. */
enum pen_store_fate pen_store_fate(struct pen_store *s, uint64_t mark);
int pen_store_fd(const struct pen_store *s);   /* an eventfd; it remains the store's */

#endif
