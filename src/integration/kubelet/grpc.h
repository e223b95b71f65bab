/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_KUBELET_GRPC_H
#define PEN_KUBELET_GRPC_H
/*
 * As much gRPC as a kubelet speaks: plaintext HTTP/2 with prior knowledge over a unix socket, unary calls and server streams,
 * no compression. Messages go in and out as bytes.
 *
 * nghttp2 without its checks of HTTP messages: kubelets up to 1.25 send the path of the socket as :authority, which they would refuse.
 * What matters of a request is checked here.
 *
 * Threads: one event loop. Nothing waits. No callback of ours is called from within a function of this header, but for
 * pen_grpc_server_destroy() and pen_grpc_client_cancel(), which call none at all any more.
 */
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_base;

#define PEN_GRPC_MESSAGE_MAX (UINT32_C(4) << 20)   /* bytes; what the kubelet's own client takes */

#define PEN_GRPC_STATUSES(X) \
	X(OK, 0) X(CANCELLED, 1) X(UNKNOWN, 2) X(INVALID_ARGUMENT, 3) X(DEADLINE_EXCEEDED, 4) X(NOT_FOUND, 5) \
	X(RESOURCE_EXHAUSTED, 8) X(FAILED_PRECONDITION, 9) X(UNIMPLEMENTED, 12) X(INTERNAL, 13) X(UNAVAILABLE, 14)
enum pen_grpc_status {
#define X(id, n) PEN_GRPC_##id = (n),
	PEN_GRPC_STATUSES(X)
#undef X
};

/* ---- frames: one message, five bytes before it ------------------------------------------------------------------- */

struct pen_grpc_frame {
	uint8_t *data;   /* with the five bytes */
	size_t len, room;
	bool too_long;
};
/* Adds what came. Return: 0; -EMSGSIZE longer than a message may be, then nothing more is kept; -ENOMEM. */
int pen_grpc_frame_add(struct pen_grpc_frame *f, const uint8_t *data, size_t len);
/* Everything has come: the one message in it. Return: a status; OK writes @ret_*, which borrow from @f. */
enum pen_grpc_status pen_grpc_frame_message(const struct pen_grpc_frame *f, const uint8_t **ret_message, size_t *ret_len);
void pen_grpc_frame_finish(struct pen_grpc_frame *f);
/* As a header's value may have it: "%XX" for '%' and everything that is not printable ASCII. */
void pen_grpc_percent(char *buf, size_t n, const char *text);

/* ---- server ------------------------------------------------------------------------------------------------------- */

struct pen_grpc_server;
struct pen_grpc_call;   /* of one client; gone when it was answered or its end was told */

struct pen_grpc_method {
	const char *path;   /* "/v1beta1.DevicePlugin/Allocate" */
	/* A request has come. It is answered before this returns, or else it is a stream: pen_grpc_push(). @message is borrowed. */
	void (*run)(void *arg, struct pen_grpc_call *call, const uint8_t *message, size_t len);
	/* Of a stream: it has ended, by the client or with its connection. NULL: no stream. */
	void (*end)(void *arg, struct pen_grpc_call *call);
};

/* Takes the listening socket @fd in every case. @methods are borrowed. Return: 0; -ENOMEM. */
int pen_grpc_server_create(struct event_base *base, int fd, const struct pen_grpc_method *methods, size_t n, void *arg,
			   struct pen_grpc_server **ret_server);
/* Closes listener and connections at once. NULL is fine. Not from within run() or end(). */
void pen_grpc_server_destroy(struct pen_grpc_server *server);

/* The one answer of a call. The message is copied. */
void pen_grpc_reply(struct pen_grpc_call *call, const uint8_t *message, size_t len);
void pen_grpc_fail(struct pen_grpc_call *call, enum pen_grpc_status status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/*
 * One more message of a stream; one that was not begun to be sent is dropped for it: who reads slowly gets the newest. Return: 0;
 * -ENOMEM.
 */
int pen_grpc_push(struct pen_grpc_call *call, const uint8_t *message, size_t len);

/* ---- client ------------------------------------------------------------------------------------------------------- */

struct pen_grpc_client;
/* @message is borrowed, empty unless OK; @text says why else. The call is over and gone. */
typedef void pen_grpc_done_fn(void *arg, enum pen_grpc_status status, const uint8_t *message, size_t len, const char *text);

/*
 * One unary call on a connection of its own to the socket at @socket_path. Return: 0, and @done will be called, within @timeout_ms;
 * negative errno of connect, at once: -ENOENT, -ECONNREFUSED.
 */
int pen_grpc_client_call(struct event_base *base, const char *socket_path, const char *method, const uint8_t *message, size_t len,
			 unsigned timeout_ms, pen_grpc_done_fn *done, void *arg, struct pen_grpc_client **ret_client);
void pen_grpc_client_cancel(struct pen_grpc_client *client);   /* done() is not called; NULL is fine */

#endif
