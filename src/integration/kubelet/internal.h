/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_KUBELET_INTERNAL_H
#define PEN_KUBELET_INTERNAL_H
/*
 * Shared inside this folder. Everything belongs to the main loop.
 *
 *   kube ── cards (devices, by a number that stays)
 *        ├── plugins (one per resource: socket, registration, list of slots)
 *        └── leases (slots of one card that a container was given: one tenant of the daemon each)
 *
 * A kubelet tells a plugin only counts of IDs. So what a container gets hangs on the ID: "g1-s3" is the fourth slot of one profile on card
 * 1. Allocate says nothing of whom it is for, may be called twice or for nothing, and is never taken back (facts from kubelets 1.20 to
 * 1.32). So it gives a provisional lease: the tenant exists and its token is good, but what it holds goes back if nobody comes.
 */
#include "base/devkey.h"
#include "daemon/service.h"
#include "integration/kubelet/grpc.h"

#include <sys/stat.h>
#include <sys/types.h>

struct event;
struct pen_kube;
struct pen_kube_plugin;

#define PEN_KUBE_SOCKET "kubelet.sock"
#define PEN_KUBE_CHECKPOINT "kubelet_internal_checkpoint"
#define PEN_KUBE_CARDS 64
#define PEN_KUBE_SLOTS 64                 /* bits of a mask; PEN_CONFIG_SLOTS_MAX */
#define PEN_KUBE_RESOURCE_MAX 192
#define PEN_KUBE_UID_MAX 64

/* ---- cards.c ------------------------------------------------------------------------------------------------------- */

struct pen_kube_card {
	unsigned n;
	char key[PEN_DEVKEY_MAX], model[128];
	uint64_t mem_bytes, reserve_bytes;
	uint32_t units;
	int numa;                         /* -1 = not known */
	bool present;                     /* the daemon knows it now */
	bool lost, drained;
};
/* Brings k->card up to date from the daemon, and before discovery has spoken from what was kept. */
void pen_kube_cards_update(struct pen_kube *k);
void pen_kube_cards_restore(struct pen_kube *k);
const struct pen_kube_card *pen_kube_card(const struct pen_kube *k, unsigned n);   /* NULL: no such number */
struct pen_kube_ids {
	unsigned card;
	uint64_t slots;
};
/* "g1-s3" and back. Return: 0; -EINVAL. */
int pen_kube_id_parse(const char *id, unsigned *ret_card, unsigned *ret_slot);
#define PEN_KUBE_ID_MAX 16
char *pen_kube_id(char buf[PEN_KUBE_ID_MAX], unsigned card, unsigned slot);
/* Slots that a profile has on a card, whoever holds them. */
unsigned pen_kube_slots_on(const struct pen_config_profile *p, const struct pen_kube_card *c);
/* The contract of @n slots of a profile on a card. */
void pen_kube_contract(const struct pen_config_profile *p, const struct pen_kube_card *c, unsigned n, struct pen_contract *ret);

/* ---- plugin.c: one resource ---------------------------------------------------------------------------------------- */

#define PEN_KUBE_STATES(X)                                                                     \
	X(DOWN, "down")              /* no kubelet, or it did not take us: a timer may run */    \
	X(CALLING, "registering")                                                              \
	X(WAITING, "registered")     /* it has not asked for the list yet: a watchdog runs */    \
	X(LIVE, "live")              /* a list is being watched */
enum pen_kube_state {
#define X(id, name) PEN_KUBE_##id,
	PEN_KUBE_STATES(X)
#undef X
	PEN_KUBE_STATE_MAX_,
};
enum pen_kube_event {
	PEN_KUBE_EV_APPEARED,   /* the kubelet has a new socket */
	PEN_KUBE_EV_ACCEPTED,   /* Register was answered */
	PEN_KUBE_EV_REFUSED,    /* or was not, or could not be called */
	PEN_KUBE_EV_OPENED,     /* somebody watches the list */
	PEN_KUBE_EV_ENDED,      /* nobody does any more */
	PEN_KUBE_EV_TIMEOUT,
	PEN_KUBE_EV_LOST,       /* our socket's file is gone */
	PEN_KUBE_EV_MAX_,
};
enum pen_kube_action {
	PEN_KUBE_NOTHING,
	PEN_KUBE_START,         /* close everything, serve anew, call Register */
	PEN_KUBE_WATCHDOG,
	PEN_KUBE_REST,          /* no timer */
	PEN_KUBE_RETRY,         /* start again, a little later */
};
/* Pure. What to do at an event; *state becomes the next one. */
enum pen_kube_action pen_kube_step(enum pen_kube_state *state, enum pen_kube_event event);
const char *pen_kube_state_name(enum pen_kube_state s);

int pen_kube_plugin_create(struct pen_kube *k, const struct pen_config_profile *p, const char *resource,
			   struct pen_kube_plugin **ret_plugin);
void pen_kube_plugin_destroy(struct pen_kube_plugin *p);
void pen_kube_plugin_event(struct pen_kube_plugin *p, enum pen_kube_event event);
/* The kubelet's socket is there. Nothing happens if it is the one that is registered with already. */
void pen_kube_plugin_appeared(struct pen_kube_plugin *p);
void pen_kube_plugin_relist(struct pen_kube_plugin *p);   /* sends the list if it is another one now */
bool pen_kube_plugin_socket_is_there(const struct pen_kube_plugin *p);

/* ---- slots.c: lists and messages ------------------------------------------------------------------------------------ */

uint64_t pen_kube_slots_known(const struct pen_kube_plugin *p, const struct pen_kube_card *c);
/* Of the slots that a plugin has on a card: those that exist, and of them those that are healthy. */
void pen_kube_slots(struct pen_kube_plugin *p, const struct pen_kube_card *c, uint64_t *ret_all, uint64_t *ret_healthy);
/* Messages, malloc'ed. Return: their length; -ENOMEM. */
ssize_t pen_kube_pack_list(struct pen_kube_plugin *p, uint8_t **ret_message);
ssize_t pen_kube_pack_register(const struct pen_kube_plugin *p, uint8_t **ret_message);
ssize_t pen_kube_pack_options(uint8_t **ret_message);

/* ---- allocate.c: what the kubelet asks ------------------------------------------------------------------------------- */

void pen_kube_on_allocate(struct pen_kube_plugin *p, struct pen_grpc_call *call, const uint8_t *message, size_t len);
void pen_kube_on_preferred(struct pen_kube_plugin *p, struct pen_grpc_call *call, const uint8_t *message, size_t len);
void pen_kube_on_pre_start(struct pen_kube_plugin *p, struct pen_grpc_call *call, const uint8_t *message, size_t len);

/* ---- lease.c --------------------------------------------------------------------------------------------------------- */

#define PEN_KUBE_LEASE_STATES(X)                                                          \
	X(PROVISIONAL, "provisional")   /* allocated; nobody was seen yet */                \
	X(ACTIVE, "active")             /* processes are attached */                        \
	X(IDLE, "idle")                 /* its container was seen, no process is attached */ \
	X(LAPSED, "lapsed")             /* holds nothing; its token is good */
enum pen_kube_lease_state {
#define X(id, name) PEN_KUBE_LEASE_##id,
	PEN_KUBE_LEASE_STATES(X)
#undef X
	PEN_KUBE_LEASE_MAX_,
};
struct pen_kube_lease {
	char resource[PEN_KUBE_RESOURCE_MAX];
	unsigned card;
	uint64_t slots;
	char tenant[PEN_NAME_MAX + 1];
	uint64_t seq;                     /* which of two is the newer one */
	enum pen_kube_lease_state state;
	bool claimed;                     /* a process has come with the token */
	bool seen;                        /* or a container has its directory */
	uint64_t since_ns;                /* last sign of life */
	uint64_t made_ns;
	char container[72];               /* id of the one that claimed it last; "" = not known */
	struct pen_kube_lease *prev, *next;
};
/*
 * A lease for these slots, a new one or one that nobody has claimed yet. Return: 0; -EAGAIN, -ERANGE, ... not beside what the card
 * has to keep already.
 */
int pen_kube_lease_give(struct pen_kube_plugin *p, const struct pen_kube_card *c, uint64_t slots, struct pen_kube_lease **ret_lease,
			struct pen_err *err);
int pen_kube_lease_claim(struct pen_kube *k, const char *tenant, pid_t pid, char *why, size_t n);
void pen_kube_leases_restore(struct pen_kube *k);
void pen_kube_leases_update(struct pen_kube *k);     /* tenants have changed */
void pen_kube_leases_free(struct pen_kube *k);
uint64_t pen_kube_leased(const struct pen_kube *k, const char *resource, unsigned card);   /* slots that a lease holds */

/* ---- sweep.c: what became of those who do not come ---------------------------------------------------------------------- */

void pen_kube_sweep_arm(struct pen_kube *k);
void pen_kube_on_sweep(int fd, short what, void *k);   /* k->sweep_ev */

/* ---- checkpoint.c: what the kubelet believes ---------------------------------------------------------------------------- */

struct pen_kube_entry {
	char resource[PEN_KUBE_RESOURCE_MAX], pod_uid[PEN_KUBE_UID_MAX], container[64];
	unsigned card, slot;
};
struct pen_kube_checkpoint {
	struct pen_kube_entry *v;
	size_t n;
	bool known;                       /* it was read; else nothing is known */
};
/* Of a file's text. Entries whose IDs are not spelt as ours are left out. Return: 0; -EINVAL; -ENOMEM. */
int pen_kube_checkpoint_parse(const char *text, size_t len, struct pen_kube_checkpoint *ret);
void pen_kube_checkpoint_free(struct pen_kube_checkpoint *c);
void pen_kube_checkpoint_read(struct pen_kube *k);   /* soon, aside from the loop */
uint64_t pen_kube_checkpointed(const struct pen_kube *k, const char *resource, unsigned card);

/* ---- identity.c: whose container is it? ----------------------------------------------------------------------------------- */

struct pen_kube_who {
	char container_id[72], pod_uid[PEN_KUBE_UID_MAX];
	char namespace[256], pod[256], container[256];
};
/* From the lines of /proc/PID/cgroup: container and pod by the last parts of a path. Return: 0; -ENOENT no container's. */
int pen_kube_who_cgroup(const char *text, struct pen_kube_who *ret);
/* From a container's config.json. Return: 0; -ENOENT it says nothing of a pod; -EINVAL. */
int pen_kube_who_bundle(const char *text, size_t len, struct pen_kube_who *ret);
/* From the kubelet's /pods. Return: 0; -ENOENT the container of @who is in none of them; -EINVAL. */
int pen_kube_who_pods(const char *text, size_t len, struct pen_kube_who *who);
/* Reads /proc/PID/cgroup. */
int pen_kube_who_process(pid_t pid, struct pen_kube_who *ret);
/* Finds out the rest aside from the loop and labels the tenant. */
void pen_kube_identify(struct pen_kube *k, const struct pen_kube_lease *l, const struct pen_kube_who *who);
#define PEN_KUBE_CONTAINERS "containers"   /* the folder above the directories of tenants for containers */
/* Where the directories of tenants for containers lie, as mountinfo says it: file system, and path in it with a '/' behind. */
struct pen_kube_place {
	char dev[16], above[2 * PEN_CONFIG_PATH_MAX];
};
/* From a text of mountinfo; of now. Return: 0; -ENOENT; -ENAMETOOLONG; negative errno. */
int pen_kube_place_find(const char *mountinfo, const char *runtime_dir, struct pen_kube_place *ret);
int pen_kube_place_now(const char *runtime_dir, struct pen_kube_place *ret);
/* Names of the tenants whose directories are mounted where a process is, some of them more than once. Return: 0; negative errno. */
int pen_kube_each_mount(pid_t pid, const struct pen_kube_place *place, void (*fn)(void *arg, const char *name), void *arg);
/* Of a text of /proc/net/tcp: who listens on a port. Return: 1 root; 0 nobody; -1 somebody else, too. */
int pen_kube_port_owner(const char *text, unsigned port);
#define PEN_KUBE_SLOT_ENV "PENSTOCK_SLOT_"
#define PEN_KUBE_SLOT_MOUNT "/run/penstock/slot/"   /* and the resource: each has a place of its own */

/* ---- files.c: small files, bounded --------------------------------------------------------------------------------------- */

/* malloc'ed, with a NUL behind. Return: its length; negative errno; -EFBIG. */
ssize_t pen_kube_read_file(const char *path, size_t max, char **ret_text);

/* ---- watch.c: the directory ------------------------------------------------------------------------------------------------ */

struct pen_kube_watch;
int pen_kube_watch_create(struct pen_kube *k, const char *dir, struct pen_kube_watch **ret_watch);
void pen_kube_watch_destroy(struct pen_kube_watch *w);
bool pen_kube_watch_is_on(const struct pen_kube_watch *w);   /* NULL is fine */

/* ---- kubelet.c -------------------------------------------------------------------------------------------------------------- */

#define PEN_KUBE_BUCKETS(X) X(0.0001) X(0.00025) X(0.0005) X(0.001) X(0.0025) X(0.005) X(0.01) X(0.1) X(1)
#define X(le) +1
enum { PEN_KUBE_BUCKET_COUNT = 0 PEN_KUBE_BUCKETS(X) };
#undef X

struct pen_kube {
	struct pen_service *s;
	struct event_base *base;
	bool serves;                             /* enabled, and set up */
	bool appeared;                           /* the kubelet's socket was there */
	bool told_ready;
	char dir[PEN_CONFIG_PATH_MAX + 1];       /* in use */
	struct pen_kube_watch *watch;
	struct pen_kube_card card[PEN_KUBE_CARDS];
	size_t n_cards;
	struct pen_kube_plugin *plugins;
	struct pen_kube_lease *leases;
	uint64_t seq;
	struct pen_kube_checkpoint checkpoint;
	bool reads_checkpoint, read_again;
	struct event *sweep_ev, *relist_ev;
	bool sweeps;
	/* counted */
	uint64_t registrations, allocations, bucket[PEN_KUBE_BUCKET_COUNT];
	double allocate_seconds;
};

struct pen_kube_stream {
	struct pen_grpc_call *call;
	struct pen_kube_stream *prev, *next;
};

struct pen_kube_plugin {
	struct pen_kube *k;
	struct pen_config_profile profile;
	char resource[PEN_KUBE_RESOURCE_MAX];
	char endpoint[96];                       /* file name of our socket */
	char path[PEN_CONFIG_PATH_MAX + 100];
	enum pen_kube_state state, told;         /* told: in the log */
	struct pen_grpc_server *server;
	struct pen_grpc_client *call;
	struct pen_kube_stream *streams;
	struct event *timer, *kick;
	unsigned kicked;                         /* bits of enum pen_kube_event that wait for the loop */
	unsigned delay_ms;
	uint64_t appeared_ns, live_since_ns;
	dev_t socket_dev;
	ino_t socket_ino;
	struct stat kubelet;                     /* its socket's file, as it was called last */
	bool is_known;                           /* a kubelet was called since our socket was made */
	uint8_t *list;                           /* as it was sent last */
	size_t list_len;
	uint64_t registrations, lists;
	bool wanted;                             /* by the configuration */
	struct pen_kube_plugin *prev, *next;
};

/* Lists may be other ones now: they are made anew when the loop has turned. */
void pen_kube_relist_soon(struct pen_kube *k);
void pen_kube_count_allocation(struct pen_kube *k, uint64_t ns);
/* From the watch. */
void pen_kube_appeared(struct pen_kube *k);
void pen_kube_look_at_sockets(struct pen_kube *k);

#endif
