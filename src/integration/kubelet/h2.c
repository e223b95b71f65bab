/* SPDX-License-Identifier: Apache-2.0 */
#include "integration/kubelet/h2.h"

#include "base/auto.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <string.h>
#include <sys/socket.h>

#define OUT_MAX (256 * 1024)    /* bytes that wait for the socket; above, no more is taken from the session */
#define STREAMS_MAX 64

struct pen_h2 {
	nghttp2_session *session;
	struct bufferevent *bev;
	struct pen_h2_owner owner;
	struct event *gone_ev;          /* the owner is told from the loop, never from within a function that it called */
	bool is_server, busy, closed;   /* busy: inside of nghttp2, which may not be freed or entered then */
	bool over;                      /* nothing more will be sent or read */
};

nghttp2_nv pen_h2_header(const char *name, const char *value)
{
	/* nghttp2 copies both and takes them as not const. */
	return (nghttp2_nv){ (uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name), strlen(value),
			     NGHTTP2_NV_FLAG_NONE };
}

bool pen_h2_is(const uint8_t *text, size_t len, const char *what)
{
	return len == strlen(what) && !memcmp(text, what, len);
}

nghttp2_session *pen_h2_session(struct pen_h2 *h2)
{
	return h2->session;
}

static void destroy(struct pen_h2 *h2)
{
	nghttp2_session_del(h2->session);
	bufferevent_free(h2->bev);
	event_free(h2->gone_ev);
	free(h2);
}

static void on_over(evutil_socket_t fd, short what, void *arg)
{
	struct pen_h2 *h2 = arg;
	(void)fd, (void)what;
	h2->owner.gone(h2->owner.arg);
}

static void set_over(struct pen_h2 *h2)
{
	if (h2->over)
		return;
	h2->over = true;
	bufferevent_disable(h2->bev, EV_READ | EV_WRITE);
	event_active(h2->gone_ev, EV_TIMEOUT, 0);
}

void pen_h2_close(struct pen_h2 *h2)
{
	h2->closed = true;
	if (!h2->busy)
		destroy(h2);
}

/* Return: false if the owner has closed it meanwhile: @h2 is not to be used any more; or if it is over. */
static bool leave(struct pen_h2 *h2, bool over)
{
	h2->busy = false;
	if (h2->closed) {
		destroy(h2);
		return false;
	}
	if (over)
		set_over(h2);
	return !over;
}

/*
 * Straight into the socket where it has room: an answer that waited for the loop to turn would wait for whatever else
 * the loop does first. Return: 0; negative errno.
 */
static int put_out(struct pen_h2 *h2, struct evbuffer *out, const uint8_t *data, size_t len)
{
	ssize_t n = evbuffer_get_length(out) ? 0 : send(bufferevent_getfd(h2->bev), data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		return -errno;
	size_t sent = n > 0 ? (size_t)n : 0;
	return sent == len || evbuffer_add(out, data + sent, len - sent) == 0 ? 0 : -ENOMEM;
}

static void pump(struct pen_h2 *h2)
{
	struct evbuffer *out = bufferevent_get_output(h2->bev);
	const uint8_t *data;
	ssize_t n = 0;
	int rc = 0;
	h2->busy = true;
	while (rc == 0 && !h2->closed && evbuffer_get_length(out) < OUT_MAX &&
	       (n = nghttp2_session_mem_send(h2->session, &data)) > 0)
		rc = put_out(h2, out, data, (size_t)n);
	bool over = rc < 0 || n < 0 || (!nghttp2_session_want_read(h2->session) && !nghttp2_session_want_write(h2->session) &&
			      !evbuffer_get_length(out));
	leave(h2, over);
}

void pen_h2_flush(struct pen_h2 *h2)
{
	if (!h2->busy && !h2->closed && !h2->over)
		pump(h2);
}

static void on_read(struct bufferevent *bev, void *arg)
{
	struct pen_h2 *h2 = arg;
	struct evbuffer *in = bufferevent_get_input(bev);
	bool over = false;
	h2->busy = true;
	while (!over && !h2->closed && evbuffer_get_length(in)) {
		size_t len = evbuffer_get_contiguous_space(in);
		ssize_t n = nghttp2_session_mem_recv(h2->session, evbuffer_pullup(in, (ev_ssize_t)len), len);
		over = n < 0;
		if (!over)
			evbuffer_drain(in, (size_t)n);
	}
	if (leave(h2, over))
		pump(h2);
}

static void on_written(struct bufferevent *bev, void *arg)
{
	(void)bev;
	pen_h2_flush(arg);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct pen_h2 *h2 = arg;
	(void)bev;
	if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
		set_over(h2);
}

static int make_session(struct pen_h2 *h2)
{
	nghttp2_option *opt;
	if (nghttp2_option_new(&opt) != 0)
		return -ENOMEM;
	nghttp2_option_set_no_http_messaging(opt, 1);
	int rc = h2->is_server ?
			 nghttp2_session_server_new2(&h2->session, h2->owner.callbacks, h2->owner.arg, opt) :
			 nghttp2_session_client_new2(&h2->session, h2->owner.callbacks, h2->owner.arg, opt);
	nghttp2_option_del(opt);
	if (rc != 0)
		return -ENOMEM;
	const nghttp2_settings_entry server = { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS_MAX };
	const nghttp2_settings_entry client = { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 };
	rc = nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, h2->is_server ? &server : &client, 1);
	return rc == 0 ? 0 : -ENOMEM;
}

int pen_h2_open(struct event_base *base, int fd, bool is_server, const struct pen_h2_owner *owner, struct pen_h2 **ret_h2)
{
	pen_auto_free struct pen_h2 *h2 = calloc(1, sizeof(*h2));
	struct bufferevent *bev = h2 ? bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE) : NULL;
	if (!bev) {
		close(fd);
		return -ENOMEM;
	}
	h2->bev = bev;
	h2->owner = *owner;
	h2->is_server = is_server;
	h2->gone_ev = event_new(base, -1, 0, on_over, h2);
	if (!h2->gone_ev || make_session(h2) < 0) {
		nghttp2_session_del(h2->session);
		bufferevent_free(bev);
		if (h2->gone_ev)
			event_free(h2->gone_ev);
		return -ENOMEM;
	}
	bufferevent_setcb(bev, on_read, on_written, on_event, h2);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
	*ret_h2 = PEN_TAKE_PTR(h2);
	return 0;
}
