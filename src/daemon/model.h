/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_MODEL_H
#define PEN_DAEMON_MODEL_H
/*
 * What the daemon knows. Everything here belongs to the main thread (libevent loop) and is never locked; what the tick
 * thread needs is copied into table.h.
 *
 *   daemon ── tenants (by name) ── clients (processes) ── seats (client on a device)
 *         └── devices ── places (tenant on a device: terms and ledger page)
 */
#include "board/hist.h"
#include "board/layout.h"
#include "board/peer.h"
#include "board/proto.h"
#include "contract/config.h"
#include "daemon/audit.h"
#include "daemon/options.h"
#include "daemon/table.h"

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>
#include <uthash.h>

struct event;
struct event_base;
struct pen_http;
struct pen_store;
struct pen_events;
struct pen_probe;
struct pen_watch;
struct pen_tick;
struct pen_daemon;
struct pen_usage_row;
struct pen_services;
struct pen_container_found;

#define PEN_TENANT_STATES(X)                                     \
	X(WAITING, "waiting") /* queued for admission */         \
	X(IDLE, "idle")       /* no client */                    \
	X(ACTIVE, "active")                                      \
	X(ENDED, "ended")     /* its last clients are leaving */
enum pen_tenant_state {
#define X(id, name) PEN_TENANT_##id,
	PEN_TENANT_STATES(X)
#undef X
};

#define PEN_DEVICE_STATES(X)                                                \
	X(OK, "ok")                                                         \
	X(LOST, "lost")             /* the audit says so: gone, or in error until it is reset */ \
	X(DRAINED, "drained")       /* shown only: see drained in struct pen_device */ \
	X(UNPROBED, "unprobed")     /* known only from what a tenant said */
enum pen_device_state {
#define X(id, name) PEN_DEVICE_##id,
	PEN_DEVICE_STATES(X)
#undef X
};

/* Sums over the clients of one tenant on one device; also what dead clients leave behind. */
#define PEN_TOTALS(X) \
	X(device_ns) X(commands) X(chunks) X(batches) X(bytes) X(debts) X(tainted) X(holds) X(denials) X(uncut)
struct pen_totals {
#define X(name) uint64_t name;
	PEN_TOTALS(X)
#undef X
	uint64_t held_ns[PEN_HOLD_MAX_];
	uint64_t max_command_ns;
};

struct pen_recent {
	uint64_t at_ns;
	struct pen_hist_snap snap;
};
#define PEN_USAGE_MINUTES 180
#define PEN_RECENT_SLOTS 7   /* one every 10 s: the newest that is a minute old or more is subtracted */

struct pen_place {
	struct pen_tenant *tenant;
	struct pen_device *device;
	uint32_t slot;
	int terms_fd, ledger_fd;               /* ledger_fd -1: not back yet after a restart */
	struct pen_terms_page *terms;
	struct pen_ledger_page *ledger;
	uint64_t clients_used;                 /* bit per index of the ledger's accounts */
	uint64_t adopt_until_ns;               /* 0 = nothing is waited for */
	unsigned n_absent;                     /* seats of before a restart whose processes live and are not back */
	struct pen_totals retired;             /* of clients that are gone */
	struct pen_totals minute;              /* at the last row of usage */
	uint64_t sample_ns, sample_device_ns;  /* a second ago */
	uint32_t share_ppm_1s;
	struct pen_recent *recent[PEN_RECENT_SLOTS];
	unsigned recent_at;
	struct pen_usage_row *usage;           /* ring of PEN_USAGE_MINUTES, made when the first minute is over */
	unsigned usage_n;
	uint64_t minute_nr, minute_peak_bytes;
	uint64_t overhead_bytes;               /* in force: what it has on the device beside its allocations */
	uint64_t overhead_peak_bytes;
	struct pen_place_audit audit;
	uint64_t lent_denials, lent_denied_ns; /* refused for what others were promised or use: seen so far, last time */
	bool square;                           /* memory to be squared again */
};

struct pen_seat {
	struct pen_client *client;
	struct pen_place *place;
	uint32_t seat, generation, index;      /* index: account in the ledger */
	int signal_fd, signal_ro_fd;
	struct pen_signal_page *signal;
	bool signal_writable;                  /* false: adopted, sealed before it came to us */
	bool shown, told_stale;
	bool kept;                             /* the store knows it */
	uint64_t kept_bytes;                   /* what it counts at if it is not back after a restart */
	unsigned audit_readings;               /* that came since it was taken, up to a few */
	bool audit_listed;                     /* its process was on the last one's list */
	uint64_t below_since_ns, below_bytes;  /* the charge is below that: since when, and the highest since then */
	struct pen_seat *sibling;              /* next of the client */
};

/*
 * The seat of a process that was attached to an earlier daemon of this boot, lives, and has not come back: its account
 * stays charged until it does or dies. Its pages are with the process.
 */
struct pen_absent {
	struct pen_client *client;             /* without a connection */
	struct pen_place *place;
	uint32_t seat, generation;
	int index;                             /* account in the ledger; -1 = the place has none yet */
	uint64_t bytes;                        /* as the store has it: for a ledger that does not know */
};

#define PEN_OWNER_MAX 16
#define PEN_NOTE_KEY_MAX 160      /* of a note of an integration, with its end */
#define PEN_NOTE_TEXT_MAX 2048
#define PEN_TENANTS_DIR "tenants"         /* in the runtime directory */
#define PEN_SEATS_DIR "seats"             /* likewise; the same for containers */
#define PEN_CONTAINERS_DIR "containers"   /* likewise; of those that an integration made */
#define PEN_CLIENT_ADOPTS 16
struct pen_adopt {
	struct pen_msg_adopt msg;
	int fd[2];
};

struct pen_client {
	struct pen_tenant *tenant;
	int fd;                                /* -1: it hung up, the process lives */
	struct pen_peer peer;
	struct event *read_ev, *death_ev, *timer_ev;
	char comm[16];
	uint64_t cgroup;                       /* hash, as the audit found it; 0 = not looked for */
	bool greeted;
	uint32_t want_adopts, n_adopts;
	struct pen_adopt *adopt;
	struct pen_seat *seats;
	unsigned n_absent;                     /* seats of before a restart */
	struct pen_msg_device *parked;         /* DEVICE that waits for the probe or for an adoption */
	uint64_t resend;                       /* bit per device: neighbours that could not be sent yet */
	uint64_t had;                          /* bit per device: its process had a seat there in an earlier connection */
	struct pen_daemon *daemon;
	struct pen_client *prev, *next;
};

struct pen_tenant {
	char name[PEN_NAME_MAX + 1];
	struct pen_contract contract;
	enum pen_tenant_state state;
	uint64_t covers;                       /* bit per device on which the contract is held */
	uid_t owner_uid;
	gid_t owner_gid;
	double created;                        /* Unix time, for display */
	bool ephemeral, from_config, restored, seen_client, stop_alloc;   /* restored: was there before this daemon */
	bool again;                   /* has ended, and the configuration has one of its name once it is gone */
	char owner[PEN_OWNER_MAX];             /* integration that made it; "" = a person, or the configuration */
	bool lapsed;                           /* of an owner: holds nothing, until a client comes or the owner says so */
	char *note;                            /* of the owner; NULL = none */
	json_t *labels;                        /* object of texts for people; NULL = none */
	pid_t watch_pid;
	uint64_t watch_start, watch_cgroup;    /* watch_cgroup: as of a client */
	int watch_pidfd;
	struct event *watch_ev;
	uint8_t token[PEN_TOKEN_BYTES];
	char dir[PEN_CONFIG_PATH_MAX + PEN_NAME_MAX + 16];   /* at most PEN_TENANT_DIR_MAX, see tenant_dir.c */
	int listen_fd;
	struct event *listen_ev;
	uint64_t exclusive_ns, exclusive_until_ns;   /* asked for; until when it is in force, 0 = it is not */
	struct pen_client *clients;
	struct pen_place *place[PEN_DAEMON_DEVICES];
	uint64_t queue_nr;                     /* order of the waiting */
	struct pen_daemon *daemon;
	UT_hash_handle hh;
};

/* One interface through which the device can be used, and what its library says of it. */
#define PEN_DEVICE_APIS 4
struct pen_device_api {
	char name[16], driver[64];             /* driver: version text, "" = not told */
	uint64_t mem_bytes;                    /* 0 = not told, units too */
	uint32_t units;
};

struct pen_device {
	unsigned index;
	uint64_t id;                           /* from the key: the same after a restart */
	char key[PEN_DEVKEY_MAX], model[128];
	struct pen_device_api api[PEN_DEVICE_APIS];
	unsigned n_apis;
	uint64_t mem_bytes;                    /* the least that one of them says: no program is promised what it cannot have */
	uint32_t units;
	enum pen_device_state state;
	bool drained, released;                /* an operator wants it so: drain.h */
	double drained_since;                  /* Unix time, for display */
	struct pen_device_policy policy;
	struct pen_place *slot[PEN_TENANT_SLOTS];
	struct pen_seat *seat[PEN_SEATS];
	struct pen_absent *absent[PEN_SEATS];  /* their numbers are given to nobody else */
	uint64_t fds_epoch;
	struct pen_table_device *table;
	uint64_t sample_busy_ns, sample_seen_ns;
	uint32_t busy_ppm;
	struct pen_audit *audit;               /* NULL: no reading yet */
	int32_t xid, xid_count;                /* error code of the last reading; 0 or PEN_READING_NONE = none */
};

struct pen_daemon {
	struct pen_options opt;
	struct pen_config cfg;
	struct event_base *base;
	struct pen_table *table;
	struct pen_tick *tick;
	struct pen_tenant *tenants;
	struct pen_device *device[PEN_DAEMON_DEVICES];
	unsigned n_devices;
	uint32_t generation, first_generation; /* of the next client, of the first one */
	uint64_t queue_nr;
	uint64_t adopt_until_ns;               /* after a start: old clients may come back */
	struct pen_events *events;
	struct pen_store *store;
	char store_why[PEN_ERR_TEXT];          /* there is none */
	struct pen_http *http;
	struct pen_probe *probe;
	uint64_t probe_again_ns, probe_wait_ns;   /* when discovery is tried again, 0 = not; how long it waited for that */
	struct pen_watch *watch;
	pid_t dying[8];                        /* helpers that were killed and are not gone yet */
	struct pen_services *services;         /* integrations; NULL = none are served */
	struct pen_container_found *container; /* container.c; NULL = nothing was looked for */
	json_t *notes;                         /* integration -> key -> text */
	json_t *drains;                        /* key of a device -> {since, released}; NULL = none is drained */
	uint64_t watchdog_ns, tell_ns;   /* alive.c: systemd is told so often, 0 = not; the next time */
	struct event *beat_ev, *second_ev, *term_ev, *int_ev, *hup_ev, *square_ev, *adopt_ev, *linger_ev, *rest_ev;
	bool had_tenant, quitting, restored, probed, told_cannot_stop;   /* probed: discovery has spoken */
	double started;
	uint64_t started_ns, start_time;       /* start_time: as of a peer, in the kernel's ticks */
	uint8_t boot[16];
	int exit_code;
};

#endif
