/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_KUBELET_H2_H
#define PEN_KUBELET_H2_H
/*
 * An HTTP/2 connection on a file descriptor: nghttp2 between a socket and callbacks. Both sides of gRPC are built on it.
 * One event loop; the owner frees it with pen_h2_close(), from anywhere. The process ignores SIGPIPE.
 */
#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_base;
struct pen_h2;

struct pen_h2_owner {
	const nghttp2_session_callbacks *callbacks;   /* their user_data is @arg */
	/* The peer has gone, or spoke no HTTP/2. The owner calls pen_h2_close(), now or later. */
	void (*gone)(void *arg);
	void *arg;
};

/* Takes @fd in every case. Return: 0; -ENOMEM. */
int pen_h2_open(struct event_base *base, int fd, bool is_server, const struct pen_h2_owner *owner, struct pen_h2 **ret_h2);
nghttp2_session *pen_h2_session(struct pen_h2 *h2);
/* Something was submitted: sends it as soon as that may be done. */
void pen_h2_flush(struct pen_h2 *h2);
/* Ends it; streams that are open are not told. @h2 is not to be used any more. */
void pen_h2_close(struct pen_h2 *h2);

/* Makes a header. The strings are copied by nghttp2. */
nghttp2_nv pen_h2_header(const char *name, const char *value);
bool pen_h2_is(const uint8_t *text, size_t len, const char *what);

#endif
