/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_HTTP_CONNS_H
#define PEN_DAEMON_HTTP_CONNS_H
/*
 * The connections of the HTTP doors, which evhttp (2.1.12) neither limits nor tells of. A table of descriptors: one is
 * entered with its first request, or found in /proc/self/fd if it sends none, and leaves when its descriptor is another's.
 *
 * Who sends no whole request within PEN_CONN_SILENT_NS, from its start or the end of the last answer, is shut down, for
 * evhttp's own time-out begins anew with every byte.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PEN_CONN_SILENT_NS UINT64_C(4000000000)

enum pen_conn_kind {
	PEN_CONN_MASTER,     /* of the control socket, and may change things */
	PEN_CONN_LOOKER,     /* of the control socket, others */
	PEN_CONN_READER,     /* of the read-only port */
	PEN_CONN_MAX_,
	PEN_CONN_NONE = -1,
};

struct pen_conns {
	struct pen_conn *v;
	unsigned n, room;
	unsigned count[PEN_CONN_MAX_];   /* at the last look */
	unsigned unseen;                 /* came since, and are not in the table yet */
	/* What a descriptor of ours is; PEN_CONN_NONE: no accepted connection. */
	enum pen_conn_kind (*kind_of)(void *arg, int fd);
	void *arg;
};

void pen_conns_came(struct pen_conns *t);
/* @fd has sent a whole request, or got its answer. */
void pen_conns_busy(struct pen_conns *t, int fd);
void pen_conns_idle(struct pen_conns *t, int fd);
/* Counts; shuts down who is silent, and the last come of lookers beyond @lookers_max. */
void pen_conns_look(struct pen_conns *t, unsigned lookers_max);
void pen_conns_finish(struct pen_conns *t);

#endif
