/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_DAEMON_H
#define PEN_DAEMON_DAEMON_H
/*
 * Functions of the daemon's files for each other. All of them belong to the main thread unless it says otherwise; none
 * blocks on a disk, a client or a vendor library.
 */
#include "base/err.h"
#include "daemon/model.h"

const char *pen_tenant_state_name(enum pen_tenant_state s);
const char *pen_device_state_name(const struct pen_device *dev);   /* as it is shown */

/* ---- tenant.c: contracts and their directories ------------------------------------------------------------------ */

struct pen_tenant_new {
	struct pen_contract contract;   /* an empty name is made up */
	uid_t uid;
	gid_t gid;
	pid_t watch_pid;                /* 0 = none */
	bool wait, ephemeral, from_config;
	bool waited;                    /* restored, and was waiting: admitted when the devices are known */
	uint64_t exclusive_ns;          /* how long it has its device for itself; 0 = it shares */
	double created;                 /* 0 = now */
	const uint8_t *token;           /* NULL = a new one */
	const char *owner;              /* NULL = none */
	bool lapsed;                    /* without admission */
	const char *note;
	json_t *labels;                 /* borrowed */
};
/*
 * Admits and creates. Return: 0 (state idle, or waiting if @n->wait); -EEXIST; -EAGAIN, -ERANGE refused; -EINVAL;
 * -ESRCH the watched process is not there; negative errno of making the directory.
 */
int pen_tenant_create(struct pen_daemon *d, const struct pen_tenant_new *n, struct pen_tenant **ret_tenant,
		      struct pen_err *err);
struct pen_tenant *pen_tenant_find(struct pen_daemon *d, const char *name);
/*
 * Changes a live contract. Return: 0; -EAGAIN, -ERANGE not admissible; -EBUSY memory below use and not @force;
 * -EINVAL a field that cannot change.
 */
int pen_tenant_change(struct pen_daemon *d, struct pen_tenant *t, const struct pen_contract *c, bool force,
		      struct pen_err *err);
/* Ends the contract: clients are stopped, the directory goes. @t is gone afterwards if it has no client. */
void pen_tenant_end(struct pen_daemon *d, struct pen_tenant *t, const char *why);
/* A client came or went: state, end of ephemeral ones. @t may be gone afterwards. */
void pen_tenant_settle(struct pen_daemon *d, struct pen_tenant *t);
/* Room was made: admit who waits, in order. */
void pen_tenant_admit_waiting(struct pen_daemon *d);
/* The check alone, for its text. */
int pen_tenant_would_admit(struct pen_daemon *d, const struct pen_tenant *t, struct pen_err *err);
/* Tries to hold the contract of @t on @dev. Return: 0; -EAGAIN, -ERANGE; -ENODEV not meant for this device. */
int pen_tenant_cover(struct pen_daemon *d, struct pen_tenant *t, struct pen_device *dev, struct pen_err *err);
bool pen_contract_means(const struct pen_contract *c, const struct pen_device *dev);
/* Of an owner's tenant: see service.h. */
int pen_tenant_hold(struct pen_daemon *d, struct pen_tenant *t, struct pen_err *err);
int pen_tenant_lapse(struct pen_daemon *d, struct pen_tenant *t);
/* At the end of the daemon: forgets everything, leaves clients, directories' tokens and the store alone. */
void pen_tenant_free_all(struct pen_daemon *d);

/* exclusive.c */
#define PEN_EXCLUSIVE_MIN_NS UINT64_C(1000000000)
#define PEN_EXCLUSIVE_MAX_NS UINT64_C(3600000000000)
bool pen_exclusive_now(const struct pen_tenant *t);
/*
 * Can a contract that is exclusive, or is not, be kept beside those that are in force on @dev? Return: 0; -EAGAIN: the text says
 * who was promised what.
 */
int pen_exclusive_admit(struct pen_daemon *d, const struct pen_device *dev, const struct pen_contract *c, bool exclusive,
			const struct pen_tenant *self, struct pen_err *err);
void pen_exclusive_begin(struct pen_daemon *d, struct pen_tenant *t);    /* its contract begins */
void pen_exclusive_second(struct pen_daemon *d, struct pen_tenant *t);   /* ends it in time */
const struct pen_tenant *pen_exclusive_on(const struct pen_device *dev); /* who has it for itself at this moment; NULL = nobody */

/* tenant_dir.c */
int pen_tenant_dir_make(struct pen_daemon *d, struct pen_tenant *t, struct pen_err *err);
/* Where of a container the directory is that is mounted at PEN_TENANT_MOUNT, read-only. */
void pen_tenant_seat_dir(const struct pen_tenant *t, char *buf, size_t n);
void pen_tenant_dir_remove(struct pen_tenant *t);

/* ---- device.c: devices, and tenants' places on them -------------------------------------------------------------- */

struct pen_device_facts {
	const char *key, *model, *api, *driver;   /* api "": not known; driver NULL likewise */
	uint64_t mem_bytes;
	uint32_t units;
};
struct pen_device *pen_device_find(struct pen_daemon *d, const char *key);
/*
 * Finds or adds, and brings up to date. What the probe says (PEN_DEVICE_OK) under one key through several interfaces is one device.
 * Return: 0; -ENOSPC too many; -ENOMEM.
 */
int pen_device_learn(struct pen_daemon *d, const struct pen_device_facts *f, enum pen_device_state state,
		     struct pen_device **ret_dev);
void pen_device_configure(struct pen_daemon *d, struct pen_device *dev);   /* from d->cfg */
/* The interface whose library tells the size that counts; NULL: none tells one. */
const struct pen_device_api *pen_device_mem_api(const struct pen_device *dev);
/* unprobed.c. Return: 0; -ENOSPC as many as this tenant, or all together, may have; -ENOMEM. */
int pen_unprobed_learn(struct pen_daemon *d, const struct pen_tenant *t, const struct pen_msg_device *m,
		       struct pen_device **ret_dev);
void pen_unprobed_forget(struct pen_daemon *d, struct pen_device *dev);   /* nobody has a seat on it */
void pen_device_free_all(struct pen_daemon *d);
/* The place of @t on @dev, made if it is not there. @slot: the number it must have, or -1. */
int pen_place_get(struct pen_daemon *d, struct pen_tenant *t, struct pen_device *dev, int slot,
		  struct pen_place **ret_place);
int pen_place_ledger(struct pen_daemon *d, struct pen_place *p);              /* makes a new ledger page */
int pen_place_take_ledger(struct pen_daemon *d, struct pen_place *p, int *fd); /* adopts one; takes *@fd on success */
void pen_place_free(struct pen_daemon *d, struct pen_place *p);
void pen_place_publish(struct pen_daemon *d, struct pen_place *p);          /* copies to the table */
/* Accounts of its ledger (bit per index) that are a client's from now on, and those that are nobody's any more. */
void pen_place_accounts(struct pen_place *p, uint64_t come, uint64_t gone);
void pen_place_totals(const struct pen_place *p, struct pen_totals *ret);
void pen_place_square(struct pen_daemon *d, struct pen_place *p);            /* seat.c: after a death */
void pen_account_add(const struct pen_ledger_client *c, struct pen_totals *sum);
bool pen_place_waits(const struct pen_place *p);   /* for clients of before a restart */
uint64_t pen_place_mem_used(const struct pen_place *p);
uint64_t pen_place_mem_held(const struct pen_place *p);                      /* without a ledger: by those that are not back */
/* Contracts or devices have changed: what is promised follows, at once. */
void pen_device_promise(struct pen_daemon *d);
/* What contracts let it have, whatever its neighbours use. PEN_UNLIMITED: no cap, and a device that does not tell its size. */
uint64_t pen_place_mem_limit(const struct pen_place *p);
/* What the tick thread last decided, read under its lock. */
struct pen_verdict {
	uint16_t rank;
	uint32_t entitled_ppm;
	uint64_t mem_taken_bytes;   /* guaranteed, or used with its overhead if that is more */
	uint64_t mem_limit_bytes;   /* by contracts, overhead and all; PEN_UNLIMITED: none */
};
struct pen_verdict pen_place_verdict(struct pen_daemon *d, const struct pen_place *p);
/*
 * By its key, the key without what is before the colon, a model name that only one has, or a part of one of these that is one
 * device's. Return: 0; -ENOENT; -EINVAL several (named.c).
 */
int pen_device_named(struct pen_daemon *d, const char *name, struct pen_device **ret_dev, struct pen_err *err);
/*
 * Puts in place of @name (@n bytes), if it means no device as it is, the model or key that it is a part of. Return: 0, also if there
 * is none; -EINVAL it is a part of several.
 */
int pen_device_resolve(struct pen_daemon *d, char *name, size_t n, struct pen_err *err);
/* How long it has been stale without moving; 0: it is not. */
uint64_t pen_seat_still_ns(struct pen_daemon *d, const struct pen_seat *s);
bool pen_seat_stale(struct pen_daemon *d, const struct pen_seat *s);

/* ---- seat.c: clients' seats ---------------------------------------------------------------------------------------- */

/* A free seat with a new signal page, not shown yet. Return: 0; -ENOSPC; negative errno. */
int pen_seat_give(struct pen_daemon *d, struct pen_client *c, struct pen_place *p, struct pen_seat **ret_seat);
/* Takes back a seat whose pages the client brought. Takes *@signal_fd on success. Return: 0; -EBUSY; -EPROTO; -ESTALE. */
int pen_seat_adopt(struct pen_daemon *d, struct pen_client *c, struct pen_place *p, const struct pen_msg_adopt *m,
		   int *signal_fd, struct pen_seat **ret_seat);
/* Seals the signal page, sends it to every other client of the device, and only then lets it into the terms. */
int pen_seat_show(struct pen_daemon *d, struct pen_seat *s);
/* All neighbours of @c on @dev. What cannot be sent now is sent when the socket has room. */
void pen_seat_send_all(struct pen_daemon *d, struct pen_client *c, struct pen_device *dev);
/* The client is dead or has left the device: seat, memory and rank become free. */
void pen_seat_release(struct pen_daemon *d, struct pen_seat *s);
void pen_seat_keep(struct pen_daemon *d, struct pen_seat *s);   /* once a second: the store knows what it holds */
/* The account that the ledger has for a seat, or a new one. Return: its index; -ENOSPC. */
int pen_account_find(struct pen_ledger_page *l, uint32_t seat, uint32_t generation, bool *ret_known);
/* Accounts (bit per index) whose clients are gone: memory is given back, what they had used counts on. */
void pen_accounts_leave(struct pen_daemon *d, struct pen_place *p, uint64_t gone, bool were_active);
struct pen_seat *pen_seat_of(const struct pen_client *c, const struct pen_device *dev);

/* ---- attach.c: the tenants' sockets ---------------------------------------------------------------------------------- */

#define PEN_REST_MS 100   /* a listener that finds no descriptor: until it accepts again */
int pen_attach_listen(struct pen_daemon *d, struct pen_tenant *t, struct pen_err *err);
/* DEVICE packets that waited for the probe or for an adoption. */
void pen_attach_unpark(struct pen_daemon *d);
void pen_client_free(struct pen_daemon *d, struct pen_client *c);
/* One that was attached to an earlier daemon. Return: 0; -ESRCH it is gone; -ENOMEM. */
int pen_client_restore(struct pen_daemon *d, struct pen_tenant *t, pid_t pid, uint64_t start_time,
		       struct pen_client **ret_client);
/* Sends without waiting. Return: 0; -EAGAIN no room; other negative errno: the connection is dead. */
int pen_client_send(struct pen_client *c, enum pen_msg type, void *msg, const int *fds, unsigned n_fds);
/* A little later: goes on with what @c->resend says. */
void pen_client_want_room(struct pen_client *c);
int pen_attach_seat(struct pen_client *c, const struct pen_seat *s, bool adopted);      /* sends SEAT */
/* Shows the seat, sends its client all neighbours, then READY. */
int pen_attach_ready(struct pen_daemon *d, struct pen_client *c, struct pen_seat *s);
/* The place of the client's tenant on a device that its contract covers, or can cover. @slot: or -1. */
int pen_attach_place(struct pen_daemon *d, struct pen_client *c, struct pen_device *dev, int slot,
		     struct pen_place **ret_place, struct pen_err *err);

/* ---- adopt.c, absent.c: after a restart ------------------------------------------------------------------------------ */

#define PEN_ADOPT_NS UINT64_C(5000000000)   /* after a start: how long clients are waited for; they retry every second */
/* Does @c bring pages back that @old, an earlier connection, had? */
bool pen_adopt_held(const struct pen_client *c, struct pen_client *old);
void pen_adopt_all(struct pen_daemon *d, struct pen_client *c, struct pen_client *old);
int pen_adopt_begin(struct pen_daemon *d);   /* tenants were restored: wait for their clients */
/* A seat that the store knew. Nothing happens if its process is gone or the seat cannot be its own any more. */
struct pen_seat_row;
void pen_absent_restore(struct pen_daemon *d, const struct pen_seat_row *row);
/* It is back and its account is its seat's now, or it is not to come and the account is given back. */
void pen_absent_end(struct pen_daemon *d, struct pen_absent *a, bool is_back);
void pen_absent_end_all(struct pen_daemon *d, struct pen_client *c);
int pen_absent_ledger(struct pen_daemon *d, struct pen_place *p);   /* a new ledger in which those not back are charged */
void pen_absent_charge(struct pen_place *p);                         /* in a ledger that came back: those it does not know */
struct pen_absent *pen_absent_of(const struct pen_client *c, const struct pen_device *dev);   /* same process */
/* Would a new ledger let the tenant over its limit, because the one that there was is with a process that is not back? */
bool pen_absent_matters(const struct pen_place *p);

int pen_process_uid(pid_t pid, uid_t *ret_uid);                             /* who started it; -ESRCH */
int pen_process_open(pid_t pid);                                            /* pidfd, close-on-exec; negative errno */

/* ---- tick.c: a thread of its own ----------------------------------------------------------------------------------------- */

#define PEN_TICK_SCHEDS(X) X(OTHER, "other") X(NICE, "nice -11") X(FIFO, "fifo 1")
enum pen_tick_sched {
#define X(id, name) PEN_TICK_##id,
	PEN_TICK_SCHEDS(X)
#undef X
};
int pen_tick_start(struct pen_daemon *d, struct pen_err *err);
/* From the main thread: terms of @dev follow at once from what was just changed. */
void pen_tick_now(struct pen_daemon *d, struct pen_device *dev);
void pen_tick_stop(struct pen_daemon *d);
const char *pen_tick_sched_name(int sched);
/* lend.c, under the table's lock: limits of memory. */
uint64_t pen_lend_shown(const struct pen_table_tenant *t);   /* what contracts let it have, overhead and all: what programs are shown */
bool pen_lend_lower(struct pen_table_device *dev);    /* true: publish, then raise, then publish again */
void pen_lend_raise(struct pen_table_device *dev);
void pen_lend_answer(struct pen_table_device *dev);   /* whoever waited for more may look at its terms */
void *pen_locked_alloc(size_t size);   /* zeroed, locked in memory where permitted; NULL no memory */

/* ---- service.c, service_tenant.c, service_work.c: integrations ------------------------------------------------------------ */

int pen_services_start(struct pen_daemon *d, struct pen_err *err);
void pen_services_stop(struct pen_daemon *d);
void pen_services_configure(struct pen_daemon *d);
/* Something changed (bits of service.h): integrations are told soon. From anywhere in the daemon. */
void pen_services_poke(struct pen_daemon *d, unsigned what);
/* May a process with the right token attach? Return: 0; negative errno with @why. */
int pen_services_claim(struct pen_daemon *d, const struct pen_tenant *t, pid_t pid, char *why, size_t n);
/* Where libraries and driver were found; they are looked for anew. */
void pen_container_forget(struct pen_daemon *d);
void pen_services_metrics(struct pen_daemon *d, FILE *out);
json_t *pen_services_status(struct pen_daemon *d);
void pen_owner_keep(struct pen_daemon *d, const struct pen_tenant *t);   /* the store knows owner, note and labels */
/* What the store knows of the owner of a tenant that is restored. @n borrows from d->notes. */
void pen_owner_restore(struct pen_daemon *d, const char *tenant, struct pen_tenant_new *n);
/* recover.c: what the store had not written yet when the daemon was killed. After the store has restored its own. */
void pen_owner_recover(struct pen_daemon *d);
int pen_owner_record(const struct pen_tenant *t, struct pen_err *err);
void pen_owner_unrecord(const struct pen_tenant *t);
void pen_note_restore(struct pen_daemon *d, const char *owner, const char *key, const char *text);

/* ---- events.c ------------------------------------------------------------------------------------------------------------ */

#define PEN_EVENT_KINDS(X)                                                                                   \
	X(STARTED, "started") X(STOPPED, "stopped") X(ALERT, "alert") X(CONFIG, "config")                     \
	X(DEVICE, "device") X(TENANT_CREATED, "tenant-created") X(TENANT_WAITING, "tenant-waiting")           \
	X(TENANT_CHANGED, "tenant-changed") X(TENANT_ENDED, "tenant-ended") X(REFUSED, "refused")             \
	X(MEMORY_REFUSED, "memory-refused") X(INTEGRATION, "integration") X(AUDIT, "audit")                   \
	X(DEVICE_LOST, "device-lost") X(EXCLUSIVE, "exclusive")                                                                         \
	X(CLIENT_ATTACHED, "client-attached") X(CLIENT_GONE, "client-gone") X(CLIENT_STALE, "client-stale")
enum pen_event_kind {
#define X(id, name) PEN_EVENT_##id,
	PEN_EVENT_KINDS(X)
#undef X
	PEN_EVENT_MAX_,
};
struct pen_event_row {
	uint64_t id;
	double time;   /* Unix, for display */
	char kind[24], tenant[PEN_NAME_MAX + 1], device[PEN_DEVKEY_MAX], text[256];
};
int pen_events_open(struct pen_daemon *d);
void pen_events_free(struct pen_daemon *d);
/* Keeps, stores, streams. @tenant and @dev may be NULL. */
void pen_event(struct pen_daemon *d, enum pen_event_kind kind, const struct pen_tenant *t, const struct pen_device *dev,
	       const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void pen_events_restore(struct pen_daemon *d, const struct pen_event_row *row);
const struct pen_event_row *pen_events_next(const struct pen_daemon *d, uint64_t after);   /* NULL: no more */
uint64_t pen_events_last(const struct pen_daemon *d);
double pen_unix_now(void);

/* ---- meter.c: once a second -------------------------------------------------------------------------------------------------- */

void pen_meter_second(struct pen_daemon *d);
void pen_place_recent(const struct pen_place *p, struct pen_recent *ret);   /* responses of the last minute */

/* ---- probe.c -------------------------------------------------------------------------------------------------------------------- */

#define PEN_PROBE_LIMIT_MS 20000
int pen_probe_start(struct pen_daemon *d);        /* calls pen_daemon_probed() in the end, whatever comes */
void pen_probe_second(struct pen_daemon *d);      /* once more, where it found less than there may be */
bool pen_probe_running(const struct pen_daemon *d);
/* Path of the program. Return: 0; -ENOENT, -ENAMETOOLONG. */
int pen_probe_find(const struct pen_daemon *d, char *buf, size_t n);
void pen_probe_free(struct pen_daemon *d);
void pen_daemon_probed(struct pen_daemon *d);     /* main.c */
void pen_config_contracts(struct pen_daemon *d);   /* reload.c: those of the configuration come into force */
void pen_config_contract_again(struct pen_daemon *d, const char *name);   /* one that had to wait for the end of its namesake */
int pen_daemon_reload(struct pen_daemon *d, struct pen_diff *ret_diff, struct pen_err *err);   /* reload.c */
/* alive.c: the loop is kicked when it stands still, and systemd told that it does not. */
int pen_alive_start(struct pen_daemon *d);
void pen_alive_put_off(void);
void pen_daemon_quit(struct pen_daemon *d, const char *why);
/* A private daemon without a tenant ends, a moment later: who asked gets the answer, and who comes just now a tenant. */
void pen_daemon_maybe_quit(struct pen_daemon *d);

#endif
