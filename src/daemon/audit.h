/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_AUDIT_H
#define PEN_DAEMON_AUDIT_H
/*
 * Compares what the vendor's library says that each process has on a device with what the tenants' ledgers say.
 *
 *   a tenant's processes, less its ledger    overhead: contexts, modules, decode surfaces. Learned, charged, shown apart
 *   processes of no tenant                   told, or ended where that is configured; their memory is not lent
 *   the device, less all processes           the driver's own, and what it does not say: told when it is much
 *
 * Threads: main. The figures are a period old; nothing here is in anybody's way.
 */
#include "daemon/learn.h"
#include "daemon/reading.h"
#include "contract/contract.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct pen_daemon;
struct pen_device;
struct pen_place;
struct pen_seat;
struct pen_tenant;

enum pen_audit_kind {
	PEN_AUDIT_TENANT,
	PEN_AUDIT_KNOWN,     /* configured: audit.known; or the daemon's own */
	PEN_AUDIT_UNKNOWN,
};

/* A process that a device has. */
struct pen_audit_process {
	struct pen_reading_process r;
	uint64_t start_time;              /* with the pid: which process it is */
	enum pen_audit_kind kind;
	char tenant[PEN_NAME_MAX + 1];    /* whose it is; "" = nobody's */
	uid_t uid;
	char comm[16];
	uint64_t since_ns;                /* first seen */
	/* of an unknown one */
	unsigned readings;                /* in which it was one */
	bool told;
	uint64_t term_ns;                 /* asked to end, then ended: when; 0 = not */
	uint64_t kill_ns;
};

/* What is known of a device beside its tenants. */
struct pen_audit {
	uint64_t at_ns;                   /* of the last reading */
	struct pen_reading_device *last;  /* its processes are left out */
	struct pen_audit_process process[PEN_READING_PROCESSES];
	unsigned n_processes, n_unknown, n_left_out;
	bool complete;                    /* the library told the memory of every process */
	struct pen_learned outside;       /* in use by no tenant: other processes, the driver itself */
	uint64_t unknown_bytes;           /* of processes of no tenant */
	uint64_t unexplained_bytes;       /* of no process */
	unsigned unexplained_for;         /* readings in which that was much */
	bool told_unexplained;
	uint64_t context_bytes;           /* what a process has beside its allocations here, as learned; 0 = not known */
	bool lost_by_code;                /* lost for an error code, and not because the library said so */
	unsigned found_for;               /* readings in which a lost device was there */
};

/* Of a tenant on a device. */
struct pen_place_audit {
	struct pen_learned overhead;
	bool known;                       /* it has processes, and their memory was told */
	uint64_t device_bytes;            /* what its processes have, by the library */
	unsigned n_processes;
	int32_t sm_util, enc_util, dec_util;   /* per cent of the device, its processes together; PEN_READING_NONE */
	unsigned much_for;                /* readings in which there was more beside the ledger than is allowed for */
	bool told_much, told_full;
};

/* One line of the watch. */
void pen_audit_take(struct pen_daemon *d, const json_t *devices);
void pen_audit_free(struct pen_device *dev);
/* The configuration was read again: what a person has mended may be used again. */
void pen_audit_reload(struct pen_daemon *d);
/* A client came to, or left, a place: an estimate for a context that no reading has shown yet, and the end of what has gone. */
void pen_audit_seat(struct pen_daemon *d, struct pen_place *p);
/* JSON null: nothing is watched here. */
json_t *pen_audit_json(const struct pen_daemon *d, const struct pen_device *dev);
void pen_audit_place_json(const struct pen_place *p, json_t *o);
/* Memory of a process of the tenant, by the library. JSON null: not known. */
json_t *pen_audit_client_json(const struct pen_seat *s);

/* ---- audit_who.c: whose is a process? -------------------------------------------------------------------------------- */

struct pen_who {
	enum pen_audit_kind kind;
	struct pen_tenant *tenant;        /* of PEN_AUDIT_TENANT */
	uint64_t start_time;
};
/* @before: what was found out about this number at the last reading; NULL = nothing. Return: 0; -ESRCH it is gone. */
int pen_audit_who(struct pen_daemon *d, pid_t pid, const struct pen_audit_process *before, struct pen_who *ret);
void pen_audit_describe(pid_t pid, struct pen_audit_process *p);   /* name and user */
/* Are the numbers of processes that a driver tells those of this daemon? Only in the first pid namespace is that certain. */
bool pen_audit_numbers_are_ours(void);
/* An ancestor of the daemon, or the daemon: must not be ended. */
bool pen_audit_is_above(pid_t pid);

/* ---- audit_unknown.c: what is done about those that are nobody's ---------------------------------------------------------- */

void pen_audit_unknown(struct pen_daemon *d, struct pen_device *dev);

/* ---- audit_lost.c ----------------------------------------------------------------------------------------------------------- */

void pen_audit_health(struct pen_daemon *d, struct pen_device *dev, const struct pen_reading_device *r);

#endif
