/* SPDX-License-Identifier: Apache-2.0 */
#include "integration/kubelet/grpc.h"

#include "base/auto.h"
#include "integration/kubelet/h2.h"

#include <errno.h>
#include <event2/event.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

struct pen_grpc_client {
	struct pen_h2 *h2;
	struct event *timer;
	pen_grpc_done_fn *done;
	void *arg;
	int32_t id;
	uint8_t *out;            /* the request, with its five bytes */
	size_t out_len, out_sent;
	struct pen_grpc_frame in;
	int status;              /* of grpc-status; -1 = not said */
	char http_status[8], text[PEN_ERR_TEXT];
	bool closed;             /* the stream has ended */
};

static void free_client(struct pen_grpc_client *c)
{
	if (c->h2)
		pen_h2_close(c->h2);
	if (c->timer)
		event_free(c->timer);
	pen_grpc_frame_finish(&c->in);
	free(c->out);
	free(c);
}

static void finish(struct pen_grpc_client *c, enum pen_grpc_status status, const char *text)
{
	const uint8_t *message = NULL;
	size_t len = 0;
	if (status == PEN_GRPC_OK && pen_grpc_frame_message(&c->in, &message, &len) != PEN_GRPC_OK) {
		status = PEN_GRPC_INTERNAL;
		text = "the answer is not one whole message";
	}
	char copy[PEN_ERR_TEXT];
	snprintf(copy, sizeof(copy), "%s", text);
	pen_grpc_done_fn *done = c->done;
	void *arg = c->arg;
	struct pen_grpc_frame in = c->in;   /* the message outlives the call, which done() may start anew */
	c->in = (struct pen_grpc_frame){ .data = NULL };
	free_client(c);
	done(arg, status, message, len, copy);
	pen_grpc_frame_finish(&in);
}

/* Not from within nghttp2: what came is looked at when it has returned. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct pen_grpc_client *c = arg;
	(void)fd, (void)what;
	if (!c->closed)
		finish(c, PEN_GRPC_DEADLINE_EXCEEDED, "no answer in time");
	else if (c->status >= 0)
		finish(c, (enum pen_grpc_status)c->status, c->text);
	else if (strcmp(c->http_status, "200") && *c->http_status)
		finish(c, PEN_GRPC_UNKNOWN, c->http_status);
	else
		finish(c, PEN_GRPC_UNAVAILABLE, "the stream ended without a status");
}

static void on_gone(void *arg)
{
	struct pen_grpc_client *c = arg;
	if (c->closed)
		return;   /* the timer is on its way */
	finish(c, PEN_GRPC_UNAVAILABLE, "the connection was closed");
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
		     const uint8_t *value, size_t len, uint8_t flags, void *arg)
{
	struct pen_grpc_client *c = arg;
	(void)session, (void)frame, (void)flags;
	if (pen_h2_is(name, name_len, ":status"))
		snprintf(c->http_status, sizeof(c->http_status), "%.*s", (int)len, (const char *)value);
	else if (pen_h2_is(name, name_len, "grpc-message"))
		snprintf(c->text, sizeof(c->text), "%.*s", (int)len, (const char *)value);
	else if (pen_h2_is(name, name_len, "grpc-status") && len > 0 && len < 4) {
		int v = 0;
		for (size_t i = 0; i < len; i++)
			v = value[i] >= '0' && value[i] <= '9' && v >= 0 ? v * 10 + (value[i] - '0') : -1;
		c->status = v < 0 ? (int)PEN_GRPC_UNKNOWN : v;
	}
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
	struct pen_grpc_client *c = arg;
	(void)session, (void)flags, (void)id;
	pen_grpc_frame_add(&c->in, data, len);
	return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
	struct pen_grpc_client *c = arg;
	(void)session, (void)id;
	c->closed = true;
	if (code != NGHTTP2_NO_ERROR && c->status < 0)
		snprintf(c->text, sizeof(c->text), "%s", nghttp2_http2_strerror(code));
	event_active(c->timer, EV_TIMEOUT, 0);
	return 0;
}

static ssize_t read_out(nghttp2_session *session, int32_t id, uint8_t *buf, size_t n, uint32_t *flags,
			nghttp2_data_source *source, void *arg)
{
	struct pen_grpc_client *c = source->ptr;
	(void)session, (void)id, (void)arg;
	size_t take = PEN_MIN(n, c->out_len - c->out_sent);
	memcpy(buf, c->out + c->out_sent, take);
	c->out_sent += take;
	if (c->out_sent == c->out_len)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)take;
}

static int submit(struct pen_grpc_client *c, const char *method, unsigned timeout_ms)
{
	char timeout[24];
	snprintf(timeout, sizeof(timeout), "%um", timeout_ms);
	const nghttp2_nv nv[] = {
		pen_h2_header(":method", "POST"),      pen_h2_header(":scheme", "http"),
		pen_h2_header(":path", method),        pen_h2_header(":authority", "localhost"),
		pen_h2_header("te", "trailers"),       pen_h2_header("content-type", "application/grpc"),
		pen_h2_header("user-agent", "penstock"), pen_h2_header("grpc-timeout", timeout),
	};
	nghttp2_data_provider body = { .source.ptr = c, .read_callback = read_out };
	c->id = nghttp2_submit_request(pen_h2_session(c->h2), NULL, nv, PEN_ARRAY_LEN(nv), &body, NULL);
	return c->id < 0 ? -ENOMEM : 0;
}

static int dial(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	if ((size_t)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path) >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	pen_auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)   /* of a unix socket it never takes time */
		return -errno;
	return PEN_TAKE_FD(fd);
}

static int open_h2(struct event_base *base, int fd, struct pen_grpc_client *c)
{
	nghttp2_session_callbacks *cb;
	if (nghttp2_session_callbacks_new(&cb) != 0) {
		close(fd);
		return -ENOMEM;
	}
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	const struct pen_h2_owner owner = { .callbacks = cb, .gone = on_gone, .arg = c };
	int r = pen_h2_open(base, fd, false, &owner, &c->h2);
	nghttp2_session_callbacks_del(cb);
	return r;
}

static int set_request(struct pen_grpc_client *c, const uint8_t *message, size_t len)
{
	c->out = malloc(5 + len);
	if (!c->out)
		return -ENOMEM;
	c->out_len = 5 + len;
	c->out[0] = 0;
	for (unsigned i = 0; i < 4; i++)
		c->out[1 + i] = (uint8_t)(len >> (24 - 8 * i));
	if (len)
		memcpy(c->out + 5, message, len);
	return 0;
}

int pen_grpc_client_call(struct event_base *base, const char *socket_path, const char *method, const uint8_t *message, size_t len,
			 unsigned timeout_ms, pen_grpc_done_fn *done, void *arg, struct pen_grpc_client **ret_client)
{
	int fd = dial(socket_path);
	if (fd < 0)
		return fd;
	struct pen_grpc_client *c = calloc(1, sizeof(*c));
	if (!c) {
		close(fd);
		return -ENOMEM;
	}
	c->done = done;
	c->arg = arg;
	c->status = -1;
	int r = open_h2(base, fd, c);
	if (r == 0)
		r = set_request(c, message, len);
	c->timer = evtimer_new(base, on_timer, c);
	const struct timeval limit = { .tv_sec = timeout_ms / 1000, .tv_usec = (timeout_ms % 1000) * 1000 };
	if (r == 0 && (!c->timer || event_add(c->timer, &limit) < 0))
		r = -ENOMEM;
	if (r == 0)
		r = submit(c, method, timeout_ms);
	if (r < 0) {
		free_client(c);
		return r;
	}
	*ret_client = c;
	pen_h2_flush(c->h2);
	return 0;
}

void pen_grpc_client_cancel(struct pen_grpc_client *c)
{
	if (c)
		free_client(c);
}
