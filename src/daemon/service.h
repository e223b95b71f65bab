/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_SERVICE_H
#define PEN_DAEMON_SERVICE_H
/*
 * The one door between the daemon and its integrations (kubelet, ...): what one may ask of the daemon, and what it must
 * offer to be in the table of service.c. The daemon names no integration anywhere else, and an integration includes no other
 * header of the daemon.
 *
 * Tenants that an integration makes are its own: their directories are made to be mounted into containers, they are restored with
 * its notes after a restart, and it is asked when a process presents their token. They are named by their names, since anybody who may
 * change contracts can end them at any time; look again after every turn of the loop.
 *
 * Threads: everything on the main loop but the first function of pen_service_work(). Nothing here waits.
 */
#include "base/err.h"
#include "contract/config.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

struct event_base;
struct pen_service;   /* the daemon, as one integration sees it; lives until its stop() has returned */

/* What may have changed: bits of changed(). */
#define PEN_SERVICE_DEVICES 1u   /* one was found, lost, drained, configured */
#define PEN_SERVICE_TENANTS 2u   /* a contract came, went or changed */
#define PEN_SERVICE_CLIENTS 4u   /* a process attached or left */

/* Slots are mandatory unless it says otherwise. @self is what init() returned. */
struct pen_integration {
	const char *name;   /* a word; tenants and notes are kept under it */
	const char *absent; /* not NULL: it is not in this build, and why; only name and wanted() are used then */
	/* Does this configuration ask for it? For the one message when it is absent. */
	bool (*wanted)(const struct pen_config *cfg);
	/* Once, when tenants and notes were restored and before devices are looked for. Return: 0; negative errno: it stays out. */
	int (*init)(struct pen_service *s, void **ret_self, struct pen_err *err);
	/* After init() and after every reload: pen_service_config() is another one now. */
	void (*configure)(void *self);
	/* Some turns of the loop after something changed, once for many changes. @what: bits above. */
	void (*changed)(void *self, unsigned what);
	/*
	 * A process with the right token of an own tenant attaches; @pid as the daemon sees it, 0 if it cannot. Return: 0; negative
	 * errno: it is refused for good with @why (@n bytes), which it prints.
	 */
	int (*claim)(void *self, const char *tenant, pid_t pid, char *why, size_t n);
	void (*metrics)(void *self, FILE *out);   /* with the functions below; optional */
	json_t *(*status)(void *self);            /* new reference, for /v1/integrations; optional */
	void (*stop)(void *self);
};

struct event_base *pen_service_base(struct pen_service *s);
bool pen_service_is_system(struct pen_service *s);   /* the machine's daemon, and not one user's private one */
const struct pen_config *pen_service_config(struct pen_service *s);   /* of now; another object after a reload */

/* ---- devices ------------------------------------------------------------------------------------------------------ */

struct pen_service_device {
	const char *key, *model;         /* borrowed until the loop turns */
	uint64_t mem_bytes;              /* 0 = it does not tell */
	uint64_t reserve_bytes;
	uint32_t units;
	bool found;                      /* discovery found it; false: only a tenant has said so, or the store */
	bool lost, drained;
};
/* Has discovery spoken since the daemon began? Before, devices are missing and `found` says nothing. */
bool pen_service_probed(struct pen_service *s);
size_t pen_service_devices(struct pen_service *s, struct pen_service_device *ret, size_t max);
bool pen_service_means(const struct pen_contract *c, const struct pen_service_device *dev);
/*
 * How many more contracts like @c, up to @most, can be kept on the device beside those that it has: by what is guaranteed, and
 * by what of it others have taken already.
 */
unsigned pen_service_room(struct pen_service *s, const char *device, const struct pen_contract *c, unsigned most);

/* ---- tenants ------------------------------------------------------------------------------------------------------ */

struct pen_service_tenant {
	const char *name, *dir, *note;   /* borrowed until the loop turns */
	unsigned clients;                /* processes that have attached and live */
	bool lapsed;                     /* holds nothing of the device; its token is good, and a claim may hold it again */
};

/*
 * Makes a tenant with directory and token. @note: private text, kept with it. @lapsed: without admission, holding nothing.
 * Return: 0; -EAGAIN, -ERANGE, -ENODEV its contract cannot be kept (@err says what is left and who holds what); -EEXIST; -ENOSPC.
 */
int pen_service_tenant_make(struct pen_service *s, const struct pen_contract *c, bool lapsed, const char *note,
			    struct pen_err *err);
/* Return: 0; -ENOENT there is none of that name that is own and has not ended. */
int pen_service_tenant_look(struct pen_service *s, const char *name, struct pen_service_tenant *ret);
/* Every own tenant that has not ended. @fn may end the one that it is called with. */
void pen_service_tenants(struct pen_service *s, void (*fn)(void *arg, const struct pen_service_tenant *t), void *arg);
/* Every tenant that has a directory, whoever made it. @fn may end none. */
void pen_service_all_tenants(struct pen_service *s, void (*fn)(void *arg, const struct pen_service_tenant *t), void *arg);
/* From lapsed back to holding. Return: 0; -ENOENT; -EAGAIN, -ERANGE, -ENODEV as above. */
int pen_service_tenant_hold(struct pen_service *s, const char *name, struct pen_err *err);
/* What it holds becomes free for others. Return: 0; -ENOENT; -EBUSY it has clients. */
int pen_service_tenant_lapse(struct pen_service *s, const char *name);
void pen_service_tenant_end(struct pen_service *s, const char *name, const char *why);
int pen_service_tenant_note(struct pen_service *s, const char *name, const char *note);   /* another one. Return: 0; -ENOENT; -ENOMEM */
/* Label for people, `ps` and metrics; @value NULL takes it away. Kept over restarts. Return: 0; -ENOENT; -EINVAL key. */
int pen_service_tenant_label(struct pen_service *s, const char *name, const char *key, const char *value);

/*
 * What a container of the tenant needs beside its image: the tenant's directory, the shims of the device's API, the driver's
 * libraries, and device nodes.
 * @device: NULL: of every device that the contract may mean. In an order that does not change. Return: how many there are, at most @max are written.
 */
enum pen_edit_kind { PEN_EDIT_ENV, PEN_EDIT_MOUNT, PEN_EDIT_NODE };
struct pen_service_edit {
	enum pen_edit_kind kind;
	bool vendor;             /* of the device's driver: left out where a CDI device of its vendor's is named, which has the like */
	char inside[PEN_CONFIG_PATH_MAX + 1];   /* path in the container; of an ENV the variable */
	char host[PEN_CONFIG_PATH_MAX + PEN_NAME_MAX + 16];   /* path on the host; of an ENV the value */
};
#define PEN_EDITS_MAX 72
size_t pen_service_edits(struct pen_service *s, const char *tenant, const char *device, struct pen_service_edit *ret, size_t max);

/* ---- the rest ----------------------------------------------------------------------------------------------------- */

/* A private text that survives restarts and reboots, at most 1023 bytes under a key of at most 159; NULL deletes it. */
void pen_service_keep(struct pen_service *s, const char *key, const char *text);
const char *pen_service_kept(struct pen_service *s, const char *key);   /* NULL: none; borrowed until it is kept anew */
void pen_service_each_kept(struct pen_service *s, void (*fn)(void *arg, const char *key, const char *text), void *arg);

/* @tenant: may be NULL. An alert asks for a person. */
void pen_service_event(struct pen_service *s, bool alert, const char *tenant, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/*
 * Runs @work(@arg) in a helper thread, where it may wait for a disk or a socket but not for ever, and then @done(@arg) on the loop. One
 * at a time, in order. After stop() neither is called any more; what then has to be freed is freed by @drop. Return: 0; -EAGAIN
 * too many wait; negative errno.
 */
int pen_service_work(struct pen_service *s, void (*work)(void *arg), void (*done)(void *arg), void (*drop)(void *arg), void *arg);

char *pen_service_metrics_text(struct pen_service *s);   /* all of /metrics; malloc'ed, NULL no memory */
/* Prometheus text. Names without the prefix penstock_; @labels: key, value, ..., NULL. */
void pen_service_metric_head(FILE *out, const char *name, const char *type, const char *help);
void pen_service_metric(FILE *out, const char *name, const char *const *labels, double value);

#endif
