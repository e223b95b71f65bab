/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/http.h"

#include "base/auto.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/api.h"
#include "daemon/http_conns.h"
#include "daemon/http_pack.h"
#include "daemon/http_stored.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <grp.h>
#include <netinet/in.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <utlist.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83   /* Linux 6.16 */
#endif
#define HEADERS_MAX 16384
#define IDLE_S 30
/* Connections: of those who may not change anything so many fewer that the others find room. */
#define CONTROL_MAX 192
#define LOOKERS_MAX 128
#define READERS_MAX 64
#define CROWD_MS 20            /* between looks at the connections while one comes that may be too many */
#define STREAMS_MAX 32         /* of the control socket, by those who may change things; others less */
#define STREAMS_LOOKERS 24
#define STREAMS_READERS 16
#define STREAM_BACKLOG_MAX (256 * 1024)   /* a reader that does not read is let go */
#define PARKED_MAX 256
#define TURN_MAX_NS (20 * PEN_MS)   /* a machine that stood still for a second does not count */

struct door {
	struct pen_daemon *d;
	struct evhttp *http;
	struct evconnlistener *listener;
	bool local;                /* the control socket: SO_PEERCRED says who it is */
	unsigned room;             /* connections that may come before they are counted again */
	unsigned n_streams;
	bool paused, rests;        /* no room for connections; no descriptors */
	struct event *rest_ev;
};

struct stream {
	struct pen_daemon *d;
	struct door *door;
	struct evhttp_request *req;
	struct stream *prev, *next;
};

/* A request that waits: for discovery, or for its turn. */
struct queue {
	struct parked *first;
	unsigned n;
};
struct parked {
	struct door *door;
	struct evhttp_request *req;
	struct queue *queue;
	struct parked *prev, *next;
};

struct pen_http {
	struct door control, reader;
	struct stream *streams;
	struct queue parked, turns;
	struct event *turn_ev;
	uint64_t turn_ns;          /* the next one not before */
	gid_t group;
	bool has_group;
	struct pen_conns conns;
	struct event *look_ev;
	struct pen_stored stored;
};

static struct pen_http *opened;   /* for the one callback whose argument is not ours */

/* ---- who is calling --------------------------------------------------------------------------------------------------- */

static bool in_group(const struct ucred *cred, gid_t group)
{
	if (cred->gid == group)
		return true;
	char buf[4096];
	struct passwd pw, *found = NULL;
	if (getpwuid_r(cred->uid, &pw, buf, sizeof(buf), &found) != 0 || !found)
		return false;
	gid_t list[64];
	int n = PEN_ARRAY_LEN(list);
	if (getgrouplist(pw.pw_name, pw.pw_gid, list, &n) < 0)
		n = PEN_ARRAY_LEN(list);
	for (int i = 0; i < n; i++)
		if (list[i] == group)
			return true;
	return false;
}

static bool may_change(const struct pen_http *h, const struct ucred *cred)
{
	return cred->uid == 0 || cred->uid == geteuid() || (h->has_group && in_group(cred, h->group));
}

const char *pen_http_group(const struct pen_daemon *d, char *buf, size_t n)
{
	struct group *g = d->http && d->http->has_group ? getgrgid(d->http->group) : NULL;
	snprintf(buf, n, "%s", g ? g->gr_name : "");
	return buf;
}

static int fd_of(struct evhttp_request *req)
{
	return bufferevent_getfd(evhttp_connection_get_bufferevent(evhttp_request_get_connection(req)));
}

static void identify(const struct door *door, struct evhttp_request *req, struct pen_api_call *call)
{
	call->uid = geteuid();
	call->gid = getegid();
	if (!door->local)
		return;
	struct ucred cred;
	socklen_t len = sizeof(cred);
	if (getsockopt(fd_of(req), SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return;
	call->uid = cred.uid;
	call->gid = cred.gid;
	call->may_change = may_change(door->d->http, &cred);
}

/* ---- answers ------------------------------------------------------------------------------------------------------------ */

void pen_http_send(struct evhttp_request *req, struct pen_api_call *call)
{
	struct evbuffer *out = evhttp_request_get_output_buffer(req);
	struct evkeyvalq *headers = evhttp_request_get_output_headers(req);
	if (call->text) {
		evhttp_add_header(headers, "Content-Type", call->text_type ? call->text_type : "text/plain; version=0.0.4; charset=utf-8");
		pen_http_put_text(req, out, call->text);
	} else {
		pen_auto_free char *text = json_dumps(call->answer, JSON_COMPACT);
		evhttp_add_header(headers, "Content-Type", "application/json");
		evbuffer_add_printf(out, "%s\n", text ? text : "{}");
	}
	evhttp_add_header(headers, "Cache-Control", "no-store");
	evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
	evhttp_send_reply(req, call->status, NULL, NULL);
}

static enum pen_api_method method_of(struct evhttp_request *req)
{
	switch (evhttp_request_get_command(req)) {
	case EVHTTP_REQ_GET: return PEN_API_GET;
	case EVHTTP_REQ_POST: return PEN_API_POST;
	case EVHTTP_REQ_PATCH: return PEN_API_PATCH;
	case EVHTTP_REQ_DELETE: return PEN_API_DELETE;
	default: return PEN_API_OTHER;
	}
}

static void fill_call(const struct door *door, struct evhttp_request *req, struct pen_api_call *call)
{
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(req);
	const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
	struct evbuffer *in = evhttp_request_get_input_buffer(req);
	*call = (struct pen_api_call){ .d = door->d, .method = method_of(req), .path = path ? path : "" };
	const char *accept = evhttp_find_header(evhttp_request_get_input_headers(req), "Accept");
	call->open_metrics = accept && strstr(accept, "application/openmetrics-text");
	call->query = uri ? evhttp_uri_get_query(uri) : NULL;
	call->body_len = evbuffer_get_length(in);
	call->body = call->body_len ? (const char *)evbuffer_pullup(in, -1) : "";
	identify(door, req, call);
}

static void run_request(const struct door *door, struct evhttp_request *req)
{
	struct pen_api_call call;
	fill_call(door, req, &call);
	pen_api_run(&call);
	if (pen_http_stored_wait(&door->d->http->stored, req, &call))
		return;
	pen_http_send(req, &call);
	pen_api_finish(&call);
}

/* ---- streams -------------------------------------------------------------------------------------------------------------- */

void pen_http_free_orphan(struct evhttp_request *req)
{
	if (!evhttp_request_get_connection(req))
		evhttp_request_free(req);
}

static void stream_closed(struct evhttp_connection *conn, void *arg)
{
	struct stream *s = arg;
	struct pen_http *h = s->d->http;
	(void)conn;
	pen_http_free_orphan(s->req);
	DL_DELETE(h->streams, s);
	s->door->n_streams--;
	free(s);
}

static void stream_put(struct stream *s, const char *event, json_t *data)
{
	struct evhttp_connection *conn = evhttp_request_get_connection(s->req);
	struct evbuffer *out = bufferevent_get_output(evhttp_connection_get_bufferevent(conn));
	if (evbuffer_get_length(out) > STREAM_BACKLOG_MAX)
		return;   /* its time-out ends it if it never reads */
	pen_auto_free char *text = json_dumps(data, JSON_COMPACT);
	struct evbuffer *buf = evbuffer_new();
	if (text && buf) {
		evbuffer_add_printf(buf, "event: %s\ndata: %s\n\n", event, text);
		evhttp_send_reply_chunk(s->req, buf);
	}
	if (buf)
		evbuffer_free(buf);
}

static json_t *tenants_json(struct pen_daemon *d)
{
	json_t *list = json_array();
	for (struct pen_tenant *t = d->tenants; t; t = t->hh.next)
		json_array_append_new(list, pen_api_tenant_json(d, t));
	return json_pack("{s:s, s:o}", "schema", "penstock/v1", "tenants", list);
}

static void open_stream(struct door *door, struct evhttp_request *req, bool may_change)
{
	struct pen_http *h = door->d->http;
	unsigned most = !door->local ? STREAMS_READERS : may_change ? STREAMS_MAX : STREAMS_LOOKERS;
	struct stream *s = door->n_streams < most ? calloc(1, sizeof(*s)) : NULL;
	if (!s) {
		evhttp_send_error(req, 503, "too many streams");
		return;
	}
	s->d = door->d;
	s->door = door;
	s->req = req;
	DL_APPEND(h->streams, s);
	door->n_streams++;
	struct evhttp_connection *conn = evhttp_request_get_connection(req);
	evhttp_connection_set_closecb(conn, stream_closed, s);
	evhttp_add_header(evhttp_request_get_output_headers(req), "Content-Type", "text/event-stream");
	evhttp_add_header(evhttp_request_get_output_headers(req), "Cache-Control", "no-store");
	evhttp_send_reply_start(req, 200, NULL);
	json_t *o = tenants_json(door->d);
	stream_put(s, "tenants", o);
	json_decref(o);
}

void pen_http_event(struct pen_daemon *d, const struct pen_event_row *row)
{
	struct stream *s, *next;
	if (!d->http->streams)
		return;
	json_t *o = pen_api_event_json(row);
	DL_FOREACH_SAFE(d->http->streams, s, next)
		stream_put(s, "event", o);
	json_decref(o);
}

/* ---- requests ---------------------------------------------------------------------------------------------------------------- */

static void parked_closed(struct evhttp_connection *conn, void *arg)
{
	struct parked *p = arg;
	(void)conn;
	pen_http_free_orphan(p->req);
	DL_DELETE(p->queue->first, p);
	p->queue->n--;
	free(p);
}

static bool park(struct queue *q, struct door *door, struct evhttp_request *req)
{
	struct parked *p = q->n < PARKED_MAX ? calloc(1, sizeof(*p)) : NULL;
	if (!p)
		return false;
	*p = (struct parked){ .door = door, .req = req, .queue = q };
	DL_APPEND(q->first, p);
	q->n++;
	evhttp_connection_set_closecb(evhttp_request_get_connection(req), parked_closed, p);
	return true;
}

static void run_first(struct queue *q)
{
	struct parked *p = q->first;
	struct door *door = p->door;
	struct evhttp_request *req = p->req;
	evhttp_connection_set_closecb(evhttp_request_get_connection(req), NULL, NULL);
	DL_DELETE(q->first, p);
	q->n--;
	free(p);
	run_request(door, req);
}

void pen_http_unpark(struct pen_daemon *d)
{
	while (d->http && d->http->parked.first)
		run_first(&d->http->parked);
}

/*
 * Anybody may look, as often and on as many connections as there are, and an answer may take milliseconds to write. So those who only look
 * are answered one after the other, and no more than half of the time: tenants, the kubelet and who may change things come in between.
 */
static void arm_turn(struct pen_http *h)
{
	uint64_t now = pen_mono_ns(), us = h->turn_ns > now ? (h->turn_ns - now) / PEN_US : 0;
	if (h->turns.first && !evtimer_pending(h->turn_ev, NULL))
		event_add(h->turn_ev, &(struct timeval){ .tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000) });
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct pen_http *h = arg;
	uint64_t began = pen_mono_ns();
	(void)fd, (void)what;
	if (h->turns.first)
		run_first(&h->turns);
	uint64_t now = pen_mono_ns();
	h->turn_ns = now + PEN_MIN(now - began, TURN_MAX_NS);
	arm_turn(h);
}

static bool take_turn(struct door *door, struct evhttp_request *req)
{
	bool ok = park(&door->d->http->turns, door, req);
	arm_turn(door->d->http);
	return ok;
}

static void on_answered(struct evhttp_request *req, void *arg)
{
	struct door *door = arg;
	pen_conns_idle(&door->d->http->conns, fd_of(req));
}

static void on_request(struct evhttp_request *req, void *arg)
{
	struct door *door = arg;
	struct pen_api_call call;
	pen_conns_busy(&door->d->http->conns, fd_of(req));
	evhttp_request_set_on_complete_cb(req, on_answered, door);
	fill_call(door, req, &call);
	if (call.method == PEN_API_GET && !strcmp(call.path, "/v1/stream"))
		open_stream(door, req, call.may_change);
	else if (pen_api_needs_devices(&call) && pen_probe_running(door->d) && park(&door->d->http->parked, door, req))
		return;
	else if (call.may_change || !take_turn(door, req))
		run_request(door, req);
}

/* ---- doors ------------------------------------------------------------------------------------------------------------------ */

static in_port_t port_of(const struct sockaddr_storage *sa)
{
	return sa->ss_family == AF_INET ? ((const struct sockaddr_in *)(const void *)sa)->sin_port :
	       sa->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)(const void *)sa)->sin6_port : 0;
}

/* Not one by which an integration asks somebody else. */
static bool came_to_reader(const struct pen_http *h, const struct sockaddr_storage *own)
{
	struct sockaddr_storage door = { 0 };
	socklen_t len = sizeof(door);
	return h->reader.listener && getsockname(evconnlistener_get_fd(h->reader.listener), (struct sockaddr *)&door, &len) == 0 &&
	       port_of(own) && port_of(own) == port_of(&door);
}

/* For the table of connections. The daemon has other stream sockets too: its log, for one. */
static enum pen_conn_kind kind_of(void *arg, int fd)
{
	struct pen_http *h = arg;
	int type = 0, listens = 0;
	socklen_t len = sizeof(type), listens_len = sizeof(listens);
	struct sockaddr_storage sa = { 0 }, control = { 0 };
	socklen_t sa_len = sizeof(sa), control_len = sizeof(control);
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM ||
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &listens_len) < 0 || listens ||
	    getsockname(fd, (struct sockaddr *)&sa, &sa_len) < 0)
		return PEN_CONN_NONE;
	if (sa.ss_family != AF_UNIX)
		return came_to_reader(h, &sa) ? PEN_CONN_READER : PEN_CONN_NONE;
	struct ucred cred;
	len = sizeof(cred);
	if (getsockname(evconnlistener_get_fd(h->control.listener), (struct sockaddr *)&control, &control_len) < 0 ||
	    memcmp(&control, &sa, sizeof(sa)) != 0)
		return PEN_CONN_NONE;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return PEN_CONN_LOOKER;
	return may_change(h, &cred) ? PEN_CONN_MASTER : PEN_CONN_LOOKER;
}

static void pause_door(struct door *door, bool pause)
{
	if (!door->listener || door->paused == pause)
		return;
	door->paused = pause;
	if (pause)
		evconnlistener_disable(door->listener);
	else if (!door->rests)
		evconnlistener_enable(door->listener);
}

static void on_rested(evutil_socket_t fd, short what, void *arg)
{
	struct door *door = arg;
	(void)fd, (void)what;
	door->rests = false;
	if (!door->paused)
		evconnlistener_enable(door->listener);
}

/* Out of descriptors or memory: whoever is in the backlog would wake us again at once, and for ever. */
static void on_no_accept(struct evconnlistener *l, void *arg)
{
	struct door *door = opened->control.listener == l ? &opened->control : &opened->reader;
	(void)arg;   /* evhttp's, since it took the listener */
	if (evtimer_add(door->rest_ev, &(struct timeval){ .tv_usec = PEN_REST_MS * 1000 }) < 0)
		return;
	door->rests = true;
	evconnlistener_disable(l);
}

static void look(struct pen_http *h)
{
	pen_conns_look(&h->conns, LOOKERS_MAX);
	const unsigned *count = h->conns.count;
	unsigned control = count[PEN_CONN_MASTER] + count[PEN_CONN_LOOKER], readers = count[PEN_CONN_READER];
	h->control.room = control < CONTROL_MAX ? CONTROL_MAX - control : 0;
	h->reader.room = readers < READERS_MAX ? READERS_MAX - readers : 0;
	pause_door(&h->control, !h->control.room);
	pause_door(&h->reader, !h->reader.room);
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	look(arg);
}

static void look_soon(struct pen_http *h, unsigned ms)
{
	if (!evtimer_pending(h->look_ev, NULL))
		evtimer_add(h->look_ev, &(struct timeval){ .tv_usec = ms * 1000 });
}

/*
 * Counted only when as many have come since the last count as then were free. A door without room pauses until a second,
 * or a crowd's moment, later: each its own, so that the one keeps nobody from the other.
 */
static struct bufferevent *new_connection(struct event_base *base, void *arg)
{
	struct door *door = arg;
	struct pen_http *h = door->d->http;
	pen_conns_came(&h->conns);
	if (!door->room)
		look(h);
	if (door->room)
		door->room--;
	if (door->local && door->room < CONTROL_MAX - LOOKERS_MAX)
		look_soon(h, CROWD_MS);
	return bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
}

static int open_door(struct door *door, struct pen_daemon *d, struct evconnlistener *l, struct pen_err *err)
{
	door->d = d;
	door->listener = l;
	door->http = evhttp_new(d->base);
	if (!door->http || !evhttp_bind_listener(door->http, l)) {
		evconnlistener_free(l);
		door->listener = NULL;
		return pen_err_sys(err, -ENOMEM, "http");
	}
	door->rest_ev = evtimer_new(d->base, on_rested, door);
	if (!door->rest_ev)
		return pen_err_sys(err, -ENOMEM, "http");
	evconnlistener_set_error_cb(l, on_no_accept);
	evhttp_set_max_body_size(door->http, PEN_API_BODY_MAX);
	evhttp_set_max_headers_size(door->http, HEADERS_MAX);
	evhttp_set_timeout(door->http, IDLE_S);
	evhttp_set_allowed_methods(door->http, door->local ? EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_PATCH |
								      EVHTTP_REQ_DELETE :
							      EVHTTP_REQ_GET);
	evhttp_set_bevcb(door->http, new_connection, door);
	evhttp_set_gencb(door->http, on_request, door);
	return 0;
}

static int open_control(struct pen_daemon *d, struct pen_err *err)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	const char *path = d->cfg.socket;
	if (strlen(path) >= sizeof(sa.sun_path))
		return pen_err_x(err, -ENAMETOOLONG, "socket '%s': too long", path);
	strcpy(sa.sun_path, path);
	unlink(path);   /* the lock on the runtime directory says that nobody serves it */
	/* Made unreachable first: between bind and chmod nobody may slip in. */
	mode_t old = umask(0177);
	struct evconnlistener *l = evconnlistener_new_bind(d->base, NULL, NULL,
							   LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 128,
							   (struct sockaddr *)&sa, sizeof(sa));
	int e = errno;
	umask(old);
	if (!l)
		return pen_err_sys(err, -e, "socket '%s'", path);
	/* Nobody has descriptors to send us here; what comes with them, main.c says. Connections have it from their listener. */
	setsockopt(evconnlistener_get_fd(l), SOL_SOCKET, SO_PASSRIGHTS, &(int){ 0 }, sizeof(int));
	struct pen_http *h = d->http;
	bool is_auto = !strcmp(d->cfg.group, "auto");
	if (d->cfg.group[0] && !(is_auto && d->opt.is_private)) {
		struct group *g = getgrnam(is_auto ? "penstock" : d->cfg.group);
		if (!g && !is_auto)
			pen_log(PEN_LOG_WARN, "group '%s' does not exist", d->cfg.group);
		h->has_group = g != NULL;
		h->group = g ? g->gr_gid : 0;
	}
	/* Everybody may look at a system daemon's tenants; who may change is decided by SO_PEERCRED. */
	if (chmod(path, d->opt.is_private ? 0600 : 0666) < 0)
		pen_log(PEN_LOG_WARN, "mode of '%s': %s", path, strerror(errno));
	h->control.local = true;
	return open_door(&h->control, d, l, err);
}

static int open_reader(struct pen_daemon *d, struct pen_err *err)
{
	struct sockaddr_storage sa;
	int len = sizeof(sa);
	if (!d->cfg.http_listen[0])
		return 0;
	if (evutil_parse_sockaddr_port(d->cfg.http_listen, (struct sockaddr *)&sa, &len) < 0)
		return pen_err_x(err, -EINVAL, "http.listen: '%s'", d->cfg.http_listen);
	struct evconnlistener *l = evconnlistener_new_bind(
		d->base, NULL, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, 64,
		(struct sockaddr *)&sa, len);
	if (!l)
		return pen_err_sys(err, -errno, "http.listen: '%s'", d->cfg.http_listen);
	return open_door(&d->http->reader, d, l, err);
}

void pen_http_second(struct pen_daemon *d)
{
	struct stream *s, *next;
	struct pen_http *h = d->http;
	if (h && (h->conns.n || h->conns.unseen))
		look(h);
	if (!h || !h->streams)
		return;
	json_t *o = tenants_json(d);
	DL_FOREACH_SAFE(d->http->streams, s, next)
		stream_put(s, "tenants", o);
	json_decref(o);
}

int pen_http_open(struct pen_daemon *d, struct pen_err *err)
{
	d->http = calloc(1, sizeof(*d->http));
	if (!d->http)
		return pen_err_sys(err, -ENOMEM, "http");
	struct pen_http *h = opened = d->http;
	h->conns.kind_of = kind_of;
	h->conns.arg = h;
	h->control.room = CONTROL_MAX;
	h->reader.room = READERS_MAX;
	h->look_ev = evtimer_new(d->base, on_look, h);
	h->turn_ev = evtimer_new(d->base, on_turn, h);
	if (!h->look_ev || !h->turn_ev)
		return pen_err_sys(err, -ENOMEM, "http");
	int r = pen_http_stored_open(&h->stored, d);
	if (r < 0)
		return pen_err_sys(err, r, "http");
	r = open_control(d, err);
	if (r < 0)
		return r;
	/* A port that is taken must not keep tenants from being served. */
	struct pen_err e = PEN_ERR_INIT;
	if (open_reader(d, &e) < 0)
		pen_event(d, PEN_EVENT_ALERT, NULL, NULL, "no read-only HTTP: %s", e.text);
	return 0;
}

void pen_http_close(struct pen_daemon *d)
{
	struct pen_http *h = d->http;
	if (!h)
		return;
	if (h->control.http)
		evhttp_free(h->control.http);
	if (h->reader.http)
		evhttp_free(h->reader.http);
	struct event *evs[] = { h->look_ev, h->turn_ev, h->control.rest_ev, h->reader.rest_ev };
	for (size_t i = 0; i < PEN_ARRAY_LEN(evs); i++)
		if (evs[i])
			event_free(evs[i]);
	pen_http_stored_free(&h->stored);
	pen_conns_finish(&h->conns);
	opened = d->http = NULL;
	free(h);
}
