/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tenants' sockets: one listener per tenant, one connection per process. board/proto.h is the protocol.
 *
 * A client can do no harm but to itself: packets are checked by board/packet.h, anything out of order ends the connection,
 * nothing that is sent waits, and who has not said HELLO within HELLO_MS is hung up on.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/log.h"
#include "board/mem.h"
#include "board/packet.h"
#include "board/page.h"
#include "daemon/daemon.h"
#include "daemon/drain.h"

#include <errno.h>
#include <fcntl.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <utlist.h>

#define HELLO_MS 5000
#define STRANGERS_MAX 32    /* connections of one tenant that have not said who they are */
#define CLIENTS_MAX 512     /* of one tenant */
#define PACKETS_A_TURN 64
#define ROOM_MS 5           /* until descriptors that found no room are sent again */

/* ---- a client -------------------------------------------------------------------------------------------------- */

static void free_event(struct event **ev)
{
	if (*ev)
		event_free(*ev);
	*ev = NULL;
}

static void drop_adopts(struct pen_client *c)
{
	for (uint32_t i = 0; c->adopt && i < c->n_adopts; i++)
		for (unsigned k = 0; k < 2; k++)
			if (c->adopt[i].fd[k] >= 0)
				close(c->adopt[i].fd[k]);
	free(c->adopt);
	c->adopt = NULL;
	c->n_adopts = c->want_adopts = 0;
}

/* The connection is over; the process may live and come back. */
static void hang_up(struct pen_client *c)
{
	free_event(&c->read_ev);
	free_event(&c->timer_ev);
	drop_adopts(c);
	free(c->parked);
	c->parked = NULL;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

void pen_client_free(struct pen_daemon *d, struct pen_client *c)
{
	hang_up(c);
	while (c->seats)
		pen_seat_release(d, c->seats);
	pen_absent_end_all(d, c);
	free_event(&c->death_ev);
	pen_peer_finish(&c->peer);
	DL_DELETE(c->tenant->clients, c);
	free(c);
}

static void client_gone(struct pen_daemon *d, struct pen_client *c, const char *how)
{
	struct pen_tenant *t = c->tenant;
	if (c->greeted)
		pen_event(d, PEN_EVENT_CLIENT_GONE, t, NULL, "process %d (%s) %s", (int)c->peer.pid, c->comm, how);
	bool greeted = c->greeted, was_waited_for = c->n_absent > 0;
	pen_client_free(d, c);
	if (was_waited_for)
		pen_attach_unpark(d);
	if (greeted)
		pen_tenant_settle(d, t);
}

/* A connection that ends keeps its process's seats, if it has any. */
static void connection_over(struct pen_daemon *d, struct pen_client *c)
{
	if (c->greeted && c->seats && pen_peer_alive(&c->peer))
		hang_up(c);
	else
		client_gone(d, c, "has left");
}

static void on_death(evutil_socket_t fd, short what, void *arg)
{
	struct pen_client *c = arg;
	(void)fd, (void)what;
	if (!pen_peer_alive(&c->peer))
		client_gone(c->daemon, c, "is gone");
}

static int watch_death(struct pen_daemon *d, struct pen_client *c)
{
	if (c->peer.pidfd >= 0) {
		c->death_ev = event_new(d->base, c->peer.pidfd, EV_READ | EV_PERSIST, on_death, c);
		return c->death_ev && event_add(c->death_ev, NULL) == 0 ? 0 : -ENOMEM;
	}
	/* Kernels before 5.3: look every 100 ms. */
	c->death_ev = event_new(d->base, -1, EV_PERSIST, on_death, c);
	return c->death_ev && event_add(c->death_ev, &(struct timeval){ .tv_usec = 100000 }) == 0 ? 0 : -ENOMEM;
}

int pen_client_restore(struct pen_daemon *d, struct pen_tenant *t, pid_t pid, uint64_t start_time,
		       struct pen_client **ret_client)
{
	struct pen_client *c;
	DL_FOREACH(t->clients, c)
		if (c->peer.pid == pid && c->peer.start_time == start_time) {
			*ret_client = c;
			return 0;
		}
	pen_auto_close int pidfd = pen_process_open(pid);
	uint64_t now;
	/* The start time is read after the process was pinned: it is that of the one pinned, or of none that lives. */
	if (pidfd == -ESRCH || pen_peer_start_time(pid, &now) < 0 || now != start_time)
		return -ESRCH;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->daemon = d;
	c->tenant = t;
	c->fd = -1;
	c->peer = (struct pen_peer){ .pid = pid, .start_time = start_time, .pidfd = pidfd >= 0 ? PEN_TAKE_FD(pidfd) : -1 };
	c->greeted = true;
	snprintf(c->comm, sizeof(c->comm), "not back yet");
	DL_APPEND(t->clients, c);
	if (watch_death(d, c) < 0) {
		pen_client_free(d, c);
		return -ENOMEM;
	}
	t->seen_client = true;
	*ret_client = c;
	return 0;
}

int pen_client_send(struct pen_client *c, enum pen_msg type, void *msg, const int *fds, unsigned n_fds)
{
	return c->fd < 0 ? -ENOTCONN : pen_packet_send(c->fd, type, msg, fds, n_fds);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct pen_client *c = arg;
	struct pen_daemon *d = c->daemon;
	(void)fd, (void)what;
	if (!c->greeted) {
		client_gone(d, c, "said nothing");
		return;
	}
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES && c->resend; i++)
		if ((c->resend >> i & 1) && d->device[i])
			pen_seat_send_all(d, c, d->device[i]);
}

void pen_client_want_room(struct pen_client *c)
{
	/* A timer and no write event: a socket with room can still refuse descriptors (too many in flight). */
	if (c->timer_ev)
		event_add(c->timer_ev, &(struct timeval){ .tv_usec = ROOM_MS * 1000 });
}

/* ---- messages --------------------------------------------------------------------------------------------------- */

static int answer_hello(struct pen_client *c, int status, const char *text)
{
	struct pen_msg_hello_reply m = { .status = status };
	snprintf(m.text, sizeof(m.text), "%s", text);
	return pen_client_send(c, PEN_MSG_HELLO_REPLY, &m, NULL, 0);
}

static bool token_equal(const uint8_t *a, const uint8_t *b)
{
	volatile uint8_t diff = 0;   /* takes as long for a wrong first byte as for a wrong last one */
	for (unsigned i = 0; i < PEN_TOKEN_BYTES; i++)
		diff = (uint8_t)(diff | (a[i] ^ b[i]));
	return diff == 0;
}

static int check_hello(const struct pen_client *c, const struct pen_msg_hello *m, const char **ret_text)
{
	if (!token_equal(m->token, c->tenant->token)) {
		*ret_text = "wrong token";
		return -EACCES;
	}
	if (c->tenant->state == PEN_TENANT_ENDED) {
		*ret_text = "the contract has ended";
		return -ESHUTDOWN;
	}
	if (pen_peer_check_start(&c->peer, m->start_time) < 0) {
		*ret_text = "the process is not the one that connected";
		return -EACCES;
	}
	if (m->nadopt > PEN_CLIENT_ADOPTS) {
		*ret_text = "too many devices";
		return -E2BIG;
	}
	*ret_text = "";
	return 0;
}

/* Its other end is closed, whether or not the loop has come to it yet. */
static bool hung_up(const struct pen_client *c)
{
	char byte;
	if (c->fd < 0)
		return true;
	ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/*
 * An earlier connection of the same process that has ended: by exec, which closes it before the new program can connect, or by a
 * hang-up after which the process comes back, with what it had there. One that is still connected is another library's in the same process (OpenCL beside
 * CUDA): a client of its own.
 */
static struct pen_client *earlier_self(const struct pen_client *c)
{
	struct pen_client *o, *gone = NULL;
	unsigned others = 0;
	DL_FOREACH(c->tenant->clients, o)
	{
		if (o == c || !o->greeted || o->peer.pid <= 0 || o->peer.pid != c->peer.pid || o->peer.start_time != c->peer.start_time)
			continue;
		others++;
		if (!hung_up(o))
			continue;
		if (!c->n_adopts || pen_adopt_held(c, o))
			return o;
		gone = o;
	}
	return others == 1 ? gone : NULL;   /* it lost track of what it had: nobody else can have left that */
}

static void note_had(struct pen_client *c, const struct pen_client *old)
{
	for (const struct pen_seat *s = old ? old->seats : NULL; s; s = s->sibling)
		c->had |= UINT64_C(1) << s->place->device->index;
}

static int greeted(struct pen_daemon *d, struct pen_client *c)
{
	struct pen_client *old = earlier_self(c);
	c->greeted = true;
	event_del(c->timer_ev);
	int r = answer_hello(c, 0, "");
	if (r < 0)
		return r;
	c->tenant->seen_client = true;
	bool had_adopts = c->n_adopts > 0;
	note_had(c, old);
	pen_adopt_all(d, c, old);
	drop_adopts(c);
	/* What it did not bring along it no longer has: it exec'ed, or lost track. */
	bool again = old;
	for (; old; old = had_adopts ? NULL : earlier_self(c)) {   /* a program that exec'ed may have had several libraries */
		note_had(c, old);
		pen_client_free(d, old);
	}
	if (!again)
		pen_event(d, PEN_EVENT_CLIENT_ATTACHED, c->tenant, NULL, "process %d (%s)%s", (int)c->peer.pid, c->comm,
			  had_adopts ? " is back" : "");
	pen_tenant_settle(d, c->tenant);
	return 0;
}

static int on_hello(struct pen_daemon *d, struct pen_client *c, const struct pen_msg_hello *m)
{
	if (c->greeted || c->want_adopts)
		return -EPROTO;
	const char *text;
	char why[sizeof(((struct pen_msg_hello_reply *)0)->text)] = "";
	int status = check_hello(c, m, &text);
	if (status == 0 && (status = pen_services_claim(d, c->tenant, c->peer.pid, why, sizeof(why))) < 0)
		text = why;
	if (status < 0) {
		pen_event(d, PEN_EVENT_REFUSED, c->tenant, NULL, "process %d (uid %u): %s", (int)c->peer.pid,
			  (unsigned)c->peer.uid, text);
		answer_hello(c, status, text);
		return status;
	}
	for (unsigned i = 0; i < sizeof(c->comm) - 1 && m->comm[i]; i++)
		c->comm[i] = m->comm[i] < 0x20 || m->comm[i] >= 0x7f ? '?' : m->comm[i];
	if (!m->nadopt)
		return greeted(d, c);
	c->adopt = calloc(m->nadopt, sizeof(*c->adopt));
	if (!c->adopt)
		return -ENOMEM;
	c->want_adopts = m->nadopt;
	return 0;
}

static int on_adopt(struct pen_daemon *d, struct pen_client *c, struct pen_packet *p)
{
	if (c->greeted || c->n_adopts >= c->want_adopts)
		return -EPROTO;
	struct pen_adopt *a = &c->adopt[c->n_adopts++];
	a->msg = p->m.adopt;
	a->fd[0] = p->nfds == 2 ? PEN_TAKE_FD(p->fd[0]) : -1;
	a->fd[1] = p->nfds == 2 ? PEN_TAKE_FD(p->fd[1]) : -1;
	return c->n_adopts == c->want_adopts ? greeted(d, c) : 0;
}

static int refuse_device(struct pen_daemon *d, struct pen_client *c, const char *key, int status, const char *why)
{
	struct pen_msg_seat m = { .status = status, .seat = PEN_SEAT_NONE };
	snprintf(m.key, sizeof(m.key), "%s", key);
	const struct pen_device *dev = pen_device_find(d, key);
	/* Programs look at every card of a node. One that the contract does not mean is no event: it would be one a start. */
	if (dev && !pen_contract_means(&c->tenant->contract, dev))
		pen_log(PEN_LOG_DEBUG, "%s: process %d: %s is not of its contract", c->tenant->name, (int)c->peer.pid, key);
	else
		pen_event(d, PEN_EVENT_REFUSED, c->tenant, dev, "process %d: no seat on '%s': %s", (int)c->peer.pid, key, why);
	return pen_client_send(c, PEN_MSG_SEAT, &m, NULL, 0);
}

int pen_attach_seat(struct pen_client *c, const struct pen_seat *s, bool adopted)
{
	const struct pen_place *p = s->place;
	struct pen_msg_seat m = { .seat = s->seat, .generation = s->generation, .slot = p->slot, .client = s->index,
				  .adopted = adopted, .device_id = p->device->id };
	snprintf(m.key, sizeof(m.key), "%s", p->device->key);
	pen_auto_close int terms = -1;
	int r = pen_page_reopen_ro(p->terms_fd, &terms, NULL);
	if (r < 0)
		return r;
	int fds[3] = { terms, p->ledger_fd, s->signal_fd };
	return pen_client_send(c, PEN_MSG_SEAT, &m, fds, adopted ? 1 : 3);
}

static int park(struct pen_client *c, const struct pen_msg_device *m)
{
	if (c->parked)
		return -EPROTO;   /* one question at a time */
	c->parked = malloc(sizeof(*c->parked));
	if (!c->parked)
		return -ENOMEM;
	*c->parked = *m;
	return 0;
}

int pen_attach_place(struct pen_daemon *d, struct pen_client *c, struct pen_device *dev, int slot,
		     struct pen_place **ret_place, struct pen_err *err)
{
	struct pen_tenant *t = c->tenant;
	if (!(t->covers >> dev->index & 1)) {
		int r = pen_tenant_cover(d, t, dev, err);
		if (r < 0)
			return r;
	}
	int r = pen_place_get(d, t, dev, slot, ret_place);
	return r < 0 ? pen_err_sys(err, r, "place on the device") : 0;
}

static int on_device(struct pen_daemon *d, struct pen_client *c, const struct pen_msg_device *m)
{
	struct pen_tenant *t = c->tenant;
	if (t->state == PEN_TENANT_ENDED)
		return refuse_device(d, c, m->key, -ESHUTDOWN, "the contract has ended");
	struct pen_device *dev = pen_device_find(d, m->key);
	if (!dev && pen_probe_running(d))
		return park(c, m);
	bool is_new = !dev;
	int r = is_new ? pen_unprobed_learn(d, t, m, &dev) : 0;
	if (r < 0)
		return refuse_device(d, c, m->key, r, "too many devices that discovery did not find");
	if (pen_seat_of(c, dev))
		return refuse_device(d, c, m->key, -EALREADY, "the process has a seat already");
	if (dev->state == PEN_DEVICE_LOST)
		return refuse_device(d, c, m->key, -ENODEV, "the device is lost");
	if (pen_drain_keeps_out(c, dev)) {
		if (is_new)
			pen_unprobed_forget(d, dev);
		return refuse_device(d, c, m->key, -ENODEV, "the device is drained");
	}
	struct pen_err err = PEN_ERR_INIT;
	struct pen_place *p;
	r = pen_attach_place(d, c, dev, -1, &p, &err);
	if (r < 0) {
		if (is_new)   /* without a place it would be nobody's, and count against nobody */
			pen_unprobed_forget(d, dev);
		return refuse_device(d, c, m->key, r == -ENOSPC ? r : -ENODEV, err.text);
	}
	/* Beside the one that an old client will bring back a new ledger knows of its memory only what the store does. */
	if (!p->ledger && p->adopt_until_ns > pen_mono_ns() && pen_absent_matters(p))
		return park(c, m);
	struct pen_seat *s = NULL;
	r = p->ledger ? 0 : pen_absent_ledger(d, p);
	if (r == 0)
		r = pen_seat_give(d, c, p, &s);
	if (!s)
		return refuse_device(d, c, m->key, r == -ENOSPC ? r : -ENODEV, strerror(-r));
	return pen_attach_seat(c, s, false);
}

void pen_attach_unpark(struct pen_daemon *d)
{
	for (struct pen_tenant *t = d->tenants; t; t = t->hh.next) {
		struct pen_client *c, *next;
		DL_FOREACH_SAFE(t->clients, c, next) {
			pen_auto_free struct pen_msg_device *m = PEN_TAKE_PTR(c->parked);
			if (m && on_device(d, c, m) < 0)
				hang_up(c);   /* its process is cleaned up by its death */
		}
	}
}

static struct pen_seat *seat_by_id(const struct pen_client *c, uint64_t device_id)
{
	for (struct pen_seat *s = c->seats; s; s = s->sibling)
		if (s->place->device->id == device_id)
			return s;
	return NULL;
}

int pen_attach_ready(struct pen_daemon *d, struct pen_client *c, struct pen_seat *s)
{
	struct pen_device *dev = s->place->device;
	int r = pen_seat_show(d, s);
	if (r < 0)
		return r;
	pen_seat_send_all(d, c, dev);
	struct pen_msg_device_ref m = { .device_id = dev->id };
	return pen_client_send(c, PEN_MSG_READY, &m, NULL, 0);
}

static int on_ref(struct pen_daemon *d, struct pen_client *c, uint32_t type, uint64_t device_id)
{
	struct pen_seat *s = seat_by_id(c, device_id);
	if (!s)
		return -EPROTO;
	switch (type) {
	case PEN_MSG_MAPPED: return pen_attach_ready(d, c, s);
	case PEN_MSG_RESEND: pen_seat_send_all(d, c, s->place->device); return 0;
	default: pen_seat_release(d, s); return 0;
	}
}

static int on_packet(struct pen_daemon *d, struct pen_client *c, struct pen_packet *p)
{
	uint32_t type = p->m.head.type;
	if (type == PEN_MSG_HELLO)
		return on_hello(d, c, &p->m.hello);
	if (type == PEN_MSG_ADOPT)
		return on_adopt(d, c, p);
	if (!c->greeted)
		return -EPROTO;
	if (type == PEN_MSG_DEVICE)
		return on_device(d, c, &p->m.device);
	return on_ref(d, c, type, p->m.ref.device_id);
}

static void on_read(evutil_socket_t fd, short what, void *arg)
{
	struct pen_client *c = arg;
	struct pen_daemon *d = c->daemon;
	(void)what;
	for (unsigned i = 0; i < PACKETS_A_TURN; i++) {
		pen_auto_packet struct pen_packet p = PEN_PACKET_INIT;
		int r = pen_packet_recv(fd, PEN_FROM_CLIENT, &p);
		if (r == -EAGAIN || r == -EINTR)
			return;
		if (r > 0)
			r = on_packet(d, c, &p);
		else if (r == 0)
			r = -ECONNRESET;
		else if ((r == -EPROTO || r == -EPROTONOSUPPORT) && !c->greeted)
			answer_hello(c, -EPROTO, "unknown protocol");
		if (r < 0) {
			connection_over(d, c);
			return;
		}
	}
}

/* ---- listeners ------------------------------------------------------------------------------------------------- */

static unsigned count_clients(const struct pen_tenant *t, bool strangers)
{
	unsigned n = 0;
	struct pen_client *c;
	DL_FOREACH(t->clients, c)
		n += !strangers || !c->greeted;
	return n;
}

static int take_connection(struct pen_daemon *d, struct pen_tenant *t, int *fd)
{
	struct pen_client *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->daemon = d;
	c->tenant = t;
	c->peer = (struct pen_peer)PEN_PEER_INIT;
	c->fd = PEN_TAKE_FD(*fd);
	DL_APPEND(t->clients, c);
	int r = pen_peer_identify(c->fd, &c->peer, NULL);
	if (r == 0)
		r = watch_death(d, c);
	c->read_ev = event_new(d->base, c->fd, EV_READ | EV_PERSIST, on_read, c);
	c->timer_ev = evtimer_new(d->base, on_timer, c);
	if (r < 0 || !c->read_ev || !c->timer_ev || event_add(c->read_ev, NULL) < 0 ||
	    event_add(c->timer_ev, &(struct timeval){ .tv_sec = HELLO_MS / 1000 }) < 0) {
		pen_client_free(d, c);
		return r < 0 ? r : -ENOMEM;
	}
	return 0;
}

static void on_rested(evutil_socket_t fd, short what, void *arg)
{
	struct pen_daemon *d = arg;
	(void)fd, (void)what;
	for (struct pen_tenant *t = d->tenants; t; t = t->hh.next)
		if (t->listen_ev)
			event_add(t->listen_ev, NULL);
}

static void rest(struct pen_daemon *d, struct pen_tenant *t)
{
	if (!d->rest_ev)
		d->rest_ev = evtimer_new(d->base, on_rested, d);
	if (!d->rest_ev)
		return;
	event_del(t->listen_ev);
	if (!evtimer_pending(d->rest_ev, NULL))
		evtimer_add(d->rest_ev, &(struct timeval){ .tv_usec = PEN_REST_MS * 1000 });
}

static void on_accept(evutil_socket_t listener, short what, void *arg)
{
	struct pen_tenant *t = arg;
	(void)what;
	/* A connection needs two descriptors: with one alone it would be taken only to be hung up on. */
	pen_auto_close int second = fcntl(listener, F_DUPFD_CLOEXEC, 0);
	pen_auto_close int fd = second < 0 ? -1 : accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0) {
		/* Out of descriptors or memory: whoever is in the backlog would wake us again at once, and for ever. */
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			rest(t->daemon, t);
		return;
	}
	close(PEN_TAKE_FD(second));
	if (count_clients(t, true) >= STRANGERS_MAX || count_clients(t, false) >= CLIENTS_MAX)
		return;
	int r = take_connection(t->daemon, t, &fd);
	if (r < 0)
		pen_log(PEN_LOG_WARN, "tenant %s: a connection was not taken: %s", t->name, strerror(-r));
}

int pen_attach_listen(struct pen_daemon *d, struct pen_tenant *t, struct pen_err *err)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	pen_auto_close int dir = -1;
	if (snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/" PEN_ATTACH_SOCK, t->dir) >= (int)sizeof(sa.sun_path)) {
		/* Longer than a socket address holds: through a descriptor of the directory, as the client does. */
		dir = open(t->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0)
			return pen_err_sys(err, -errno, "'%s'", t->dir);
		snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/" PEN_ATTACH_SOCK, dir);
	}
	pen_auto_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return pen_err_sys(err, -errno, "socket");
	unlink(sa.sun_path);
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 64) < 0)
		return pen_err_sys(err, -errno, "'%s'", sa.sun_path);
	struct event *ev = event_new(d->base, fd, EV_READ | EV_PERSIST, on_accept, t);
	if (!ev || event_add(ev, NULL) < 0) {
		if (ev)
			event_free(ev);
		return pen_err_sys(err, -ENOMEM, "listener");
	}
	t->listen_ev = ev;
	t->listen_fd = PEN_TAKE_FD(fd);
	return 0;
}
