/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_HTTP_H
#define PEN_DAEMON_HTTP_H
/*
 * The control API over HTTP/1.1: libevent's evhttp on the control socket, and read-only on a local address.
 * Threads: main. api.h holds what is said; this is how it gets here.
 */
#include "base/err.h"
#include "daemon/daemon.h"

int pen_http_open(struct pen_daemon *d, struct pen_err *err);
void pen_http_close(struct pen_daemon *d);
void pen_http_event(struct pen_daemon *d, const struct pen_event_row *row);   /* to the streams */
void pen_http_second(struct pen_daemon *d);                                   /* tenants to the streams */
void pen_http_unpark(struct pen_daemon *d);                                   /* requests that waited for the probe */
/* The group whose members may change things. Return: @buf, "" if there is none. */
const char *pen_http_group(const struct pen_daemon *d, char *buf, size_t n);

#endif
