/* SPDX-License-Identifier: Apache-2.0 */
#include "integration/kubelet/grpc.h"

#include "base/auto.h"
#include "base/log.h"
#include "integration/kubelet/h2.h"

#include <errno.h>
#include <event2/event.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <utlist.h>

#define CONNECTIONS_MAX 32
#define PATH_MAX_ 128
#define HEAD 5
#define REST_MS 100

struct conn;

/* A message on its way out, with its five bytes. */
struct out {
	uint8_t *data;
	size_t len, sent;
};

struct pen_grpc_call {
	struct conn *conn;
	int32_t id;
	char path[PATH_MAX_];
	bool is_post, is_grpc;
	struct pen_grpc_frame in;
	const struct pen_grpc_method *method;   /* of a stream that is served */
	struct out now, next;
	bool answered;                          /* headers are submitted */
	bool last;                              /* what is in `now` is all: trailers follow */
	struct pen_grpc_call *next_call, **at;  /* at: what points to it */
};

struct conn {
	struct pen_grpc_server *server;
	struct pen_h2 *h2;
	struct pen_grpc_call *calls;
	struct conn *prev, *next;
};

struct pen_grpc_server {
	struct event_base *base;
	const struct pen_grpc_method *methods;
	size_t n_methods;
	void *arg;
	int fd;
	struct event *ev, *rest_ev;
	struct conn *conns;
	unsigned n_conns;
};

/* ---- calls -------------------------------------------------------------------------------------------------------- */

static void free_call(struct pen_grpc_call *call)
{
	struct conn *c = call->conn;
	if (call->method && call->method->end)
		call->method->end(c->server->arg, call);
	*call->at = call->next_call;
	if (call->next_call)
		call->next_call->at = call->at;
	pen_grpc_frame_finish(&call->in);
	free(call->now.data);
	free(call->next.data);
	free(call);
}

static int set_out(struct out *o, const uint8_t *message, size_t len)
{
	uint8_t *data = malloc(HEAD + len);
	if (!data)
		return -ENOMEM;
	data[0] = 0;
	for (unsigned i = 0; i < 4; i++)
		data[1 + i] = (uint8_t)(len >> (24 - 8 * i));
	if (len)
		memcpy(data + HEAD, message, len);
	free(o->data);
	*o = (struct out){ .data = data, .len = HEAD + len };
	return 0;
}

static void submit_ok_trailer(nghttp2_session *session, int32_t id)
{
	nghttp2_nv nv = pen_h2_header("grpc-status", "0");
	nghttp2_submit_trailer(session, id, &nv, 1);
}

static ssize_t read_out(nghttp2_session *session, int32_t id, uint8_t *buf, size_t n, uint32_t *flags,
			nghttp2_data_source *source, void *arg)
{
	struct pen_grpc_call *call = source->ptr;
	struct out *o = &call->now;
	(void)arg;
	if (o->sent == o->len && call->next.data) {
		free(o->data);
		*o = call->next;
		call->next = (struct out){ .data = NULL };
	}
	if (o->sent == o->len && !call->last)
		return NGHTTP2_ERR_DEFERRED;
	size_t take = PEN_MIN(n, o->len - o->sent);
	if (take)
		memcpy(buf, o->data + o->sent, take);
	o->sent += take;
	if (call->last && o->sent == o->len) {
		*flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
		submit_ok_trailer(session, id);
	}
	return (ssize_t)take;
}

static int submit_headers(struct pen_grpc_call *call)
{
	const nghttp2_nv nv[] = { pen_h2_header(":status", "200"), pen_h2_header("content-type", "application/grpc") };
	nghttp2_data_provider body = { .source.ptr = call, .read_callback = read_out };
	call->answered = true;
	return nghttp2_submit_response(pen_h2_session(call->conn->h2), call->id, nv, PEN_ARRAY_LEN(nv), &body);
}

void pen_grpc_reply(struct pen_grpc_call *call, const uint8_t *message, size_t len)
{
	if (call->answered)
		return;
	if (set_out(&call->now, message, len) < 0) {
		pen_grpc_fail(call, PEN_GRPC_RESOURCE_EXHAUSTED, "out of memory");
		return;
	}
	call->last = true;
	submit_headers(call);
	pen_h2_flush(call->conn->h2);
}

void pen_grpc_fail(struct pen_grpc_call *call, enum pen_grpc_status status, const char *fmt, ...)
{
	char text[PEN_ERR_TEXT], escaped[PEN_ERR_TEXT + 64], number[8];
	va_list ap;
	if (call->answered)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pen_grpc_percent(escaped, sizeof(escaped), text);
	snprintf(number, sizeof(number), "%d", (int)status);
	const nghttp2_nv nv[] = { pen_h2_header(":status", "200"), pen_h2_header("content-type", "application/grpc"),
				  pen_h2_header("grpc-status", number), pen_h2_header("grpc-message", escaped) };
	call->answered = true;
	nghttp2_submit_response(pen_h2_session(call->conn->h2), call->id, nv, PEN_ARRAY_LEN(nv), NULL);
	pen_h2_flush(call->conn->h2);
}

int pen_grpc_push(struct pen_grpc_call *call, const uint8_t *message, size_t len)
{
	/* What has begun must be sent to its end. */
	bool begun = call->now.data && call->now.sent > 0 && call->now.sent < call->now.len;
	int r = set_out(begun ? &call->next : &call->now, message, len);
	if (r < 0)
		return r;
	if (!call->answered)
		submit_headers(call);
	else
		nghttp2_session_resume_data(pen_h2_session(call->conn->h2), call->id);
	pen_h2_flush(call->conn->h2);
	return 0;
}

/* ---- requests ----------------------------------------------------------------------------------------------------- */

static void run(struct pen_grpc_call *call)
{
	struct pen_grpc_server *s = call->conn->server;
	const struct pen_grpc_method *m = NULL;
	const uint8_t *message = NULL;
	size_t len = 0;
	for (size_t i = 0; i < s->n_methods && !m; i++)
		if (!strcmp(s->methods[i].path, call->path))
			m = &s->methods[i];
	enum pen_grpc_status status = pen_grpc_frame_message(&call->in, &message, &len);
	if (!call->is_post || !call->is_grpc)
		pen_grpc_fail(call, PEN_GRPC_INTERNAL, "not a gRPC request");
	else if (!m)
		pen_grpc_fail(call, PEN_GRPC_UNIMPLEMENTED, "unknown method %s", call->path);
	else if (status != PEN_GRPC_OK)
		pen_grpc_fail(call, status, status == PEN_GRPC_UNIMPLEMENTED ? "compressed messages are not taken" :
					    status == PEN_GRPC_RESOURCE_EXHAUSTED ? "the message is longer than 4 MiB" :
										    "not one whole message");
	else {
		call->method = m->end ? m : NULL;
		m->run(s->arg, call, message, len);
	}
	pen_grpc_frame_finish(&call->in);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct conn *c = arg;
	if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	struct pen_grpc_call *call = calloc(1, sizeof(*call));
	if (!call)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;   /* resets this stream alone */
	call->conn = c;
	call->id = frame->hd.stream_id;
	call->next_call = c->calls;
	call->at = &c->calls;
	if (c->calls)
		c->calls->at = &call->next_call;
	c->calls = call;
	nghttp2_session_set_stream_user_data(session, call->id, call);
	return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
		     const uint8_t *value, size_t len, uint8_t flags, void *arg)
{
	struct pen_grpc_call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	(void)flags, (void)arg;
	if (!call)
		return 0;
	if (pen_h2_is(name, name_len, ":path"))
		snprintf(call->path, sizeof(call->path), "%.*s", len < sizeof(call->path) ? (int)len : 0, (const char *)value);
	else if (pen_h2_is(name, name_len, ":method"))
		call->is_post = pen_h2_is(value, len, "POST");
	else if (pen_h2_is(name, name_len, "content-type"))
		call->is_grpc = len >= 16 && !memcmp(value, "application/grpc", 16) && (len == 16 || value[16] == '+' || value[16] == ';');
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
	struct pen_grpc_call *call = nghttp2_session_get_stream_user_data(session, id);
	(void)flags, (void)arg;
	if (call && !call->answered && pen_grpc_frame_add(&call->in, data, len) < 0)
		pen_grpc_fail(call, PEN_GRPC_RESOURCE_EXHAUSTED, "the message is longer than 4 MiB");
	return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct pen_grpc_call *call;
	(void)arg;
	if ((frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		return 0;
	call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	if (call && !call->answered && !call->method)
		run(call);
	return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
	struct pen_grpc_call *call = nghttp2_session_get_stream_user_data(session, id);
	(void)code, (void)arg;
	if (!call)
		return 0;
	nghttp2_session_set_stream_user_data(session, id, NULL);
	free_call(call);
	return 0;
}

static nghttp2_session_callbacks *make_callbacks(void)
{
	nghttp2_session_callbacks *cb;
	if (nghttp2_session_callbacks_new(&cb) != 0)
		return NULL;
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	return cb;
}

/* ---- connections -------------------------------------------------------------------------------------------------- */

static void close_conn(struct conn *c)
{
	struct pen_grpc_server *s = c->server;
	struct pen_grpc_call *call, *next;
	for (call = c->calls; call; call = next) {
		next = call->next_call;
		free_call(call);
	}
	pen_h2_close(c->h2);
	DL_DELETE(s->conns, c);
	s->n_conns--;
	free(c);
}

static void on_gone(void *arg)
{
	close_conn(arg);
}

static void on_accept(evutil_socket_t listener, short what, void *arg)
{
	struct pen_grpc_server *s = arg;
	(void)what;
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0) {
		/* Out of descriptors or memory: who is in the backlog would wake us again at once, and for ever. */
		if ((errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) &&
		    event_add(s->rest_ev, &(struct timeval){ .tv_usec = REST_MS * 1000 }) == 0)
			event_del(s->ev);
		return;
	}
	nghttp2_session_callbacks *cb = s->n_conns < CONNECTIONS_MAX ? make_callbacks() : NULL;
	struct conn *c = cb ? calloc(1, sizeof(*c)) : NULL;
	if (!c) {
		nghttp2_session_callbacks_del(cb);
		close(fd);
		return;
	}
	const struct pen_h2_owner owner = { .callbacks = cb, .gone = on_gone, .arg = c };
	int r = pen_h2_open(s->base, fd, true, &owner, &c->h2);
	nghttp2_session_callbacks_del(cb);   /* the session has its own copy */
	if (r < 0) {
		free(c);
		return;
	}
	c->server = s;
	DL_APPEND(s->conns, c);
	s->n_conns++;
	pen_h2_flush(c->h2);   /* SETTINGS */
}

static void on_rested(evutil_socket_t fd, short what, void *arg)
{
	struct pen_grpc_server *s = arg;
	(void)fd, (void)what;
	event_add(s->ev, NULL);
}

int pen_grpc_server_create(struct event_base *base, int fd, const struct pen_grpc_method *methods, size_t n, void *arg,
			   struct pen_grpc_server **ret_server)
{
	struct pen_grpc_server *s = calloc(1, sizeof(*s));
	if (!s) {
		close(fd);
		return -ENOMEM;
	}
	*s = (struct pen_grpc_server){ .base = base, .methods = methods, .n_methods = n, .arg = arg, .fd = fd };
	s->ev = event_new(base, fd, EV_READ | EV_PERSIST, on_accept, s);
	s->rest_ev = evtimer_new(base, on_rested, s);
	if (!s->ev || !s->rest_ev || event_add(s->ev, NULL) < 0) {
		pen_grpc_server_destroy(s);
		return -ENOMEM;
	}
	*ret_server = s;
	return 0;
}

void pen_grpc_server_destroy(struct pen_grpc_server *s)
{
	struct conn *c, *next;
	if (!s)
		return;
	DL_FOREACH(s->conns, c)
		for (struct pen_grpc_call *call = c->calls; call; call = call->next_call)
			call->method = NULL;   /* nobody is told any more */
	DL_FOREACH_SAFE(s->conns, c, next)
		close_conn(c);
	if (s->ev)
		event_free(s->ev);
	if (s->rest_ev)
		event_free(s->rest_ev);
	close(s->fd);
	free(s);
}
