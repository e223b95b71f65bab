/* SPDX-License-Identifier: Apache-2.0 */
/* The control thread: the socket, requests, deaths. */
#include "base/auto.h"
#include "simgpu/server/server.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define BACKLOG 64

/* ---- replies ---- */

struct answer {
	struct sim_reply reply;
	size_t bytes;                  /* of it that are meant */
	int fd[2];
	unsigned fds;
	bool close_fds;                /* when they have been sent */
};

static void send_answer(int to, const struct answer *a)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(2 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)&a->reply, a->bytes };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	if (a->fds) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(a->fds * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(a->fds * sizeof(int));
		memcpy(CMSG_DATA(c), a->fd, a->fds * sizeof(int));
	}
	/* One request at a time: a socket that has no room for the one reply is not a client of ours, and gets none. */
	(void)sendmsg(to, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	for (unsigned i = 0; a->close_fds && i < a->fds; i++)
		close(a->fd[i]);
}

static int report_fd(struct sim_server *s)
{
	int fd = memfd_create("simgpu-truth", MFD_CLOEXEC);
	int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
	FILE *f = copy < 0 ? NULL : fdopen(copy, "w");
	int r = f ? sim_report(s, f) : -errno;
	if (f && fclose(f) < 0)
		r = -errno;
	if (r < 0) {
		if (fd >= 0)
			close(fd);
		return r;
	}
	return fd;
}

/* ---- requests ---- */

/* What has died gives back what it had before anybody else is told that there is none. */
static void bury_dead(struct sim_server *s, int but_fd)
{
	struct sim_proc *p, *next;
	for (p = TAILQ_FIRST(&s->procs); p; p = next) {
		next = TAILQ_NEXT(p, link);
		if (p->fd != but_fd && sim_proc_is_dead(p))
			sim_proc_destroy(p);
	}
}

static void serve_hello(struct sim_proc *p, struct answer *a)
{
	p->greeted = true;
	a->reply.index = p->server->devs;
	a->fd[0] = p->server->bell_fd;
	a->fd[1] = p->page_fd;
	a->fds = 2;
}

static int serve_memory(struct sim_proc *p, struct sim_dev *d, const struct sim_request *q, struct answer *a)
{
	struct sim_block *b;
	int r = 0;
	bury_dead(p->server, p->fd);
	switch (q->op) {
	case SIM_OP_MEM_TAKE:
		r = sim_block_take(p, d, q->bytes, &b);
		if (!r)
			a->reply.id = b->id;
		return r;
	case SIM_OP_MEM_GIVE:
		return sim_block_give(p, q->id);
	default:
		a->reply.free_bytes = d->told.mem_bytes - d->used_bytes;
		a->reply.total_bytes = d->told.mem_bytes;
		return d->lost ? -ENODEV : 0;
	}
}

static int serve_context(struct sim_proc *p, struct sim_dev *d, const struct sim_request *q, struct answer *a)
{
	struct sim_ctx *c = NULL;
	struct sim_chan *ch;
	int r = 0;
	sim_catch_up(p->server);
	switch (q->op) {
	case SIM_OP_CONTEXT_CREATE:
		bury_dead(p->server, p->fd);
		r = sim_ctx_create(p, d, &c);
		if (!r) {
			a->reply.id = c->id;
			a->reply.index = c->index;
		}
		return r;
	case SIM_OP_CONTEXT_DESTROY:
		c = sim_ctx_find(p, q->id);
		if (!c)
			return -EINVAL;
		sim_ctx_destroy(c);
		return 0;
	case SIM_OP_CHANNEL_CREATE:
		c = sim_ctx_find(p, q->id);
		if (!c)
			return -EINVAL;
		r = sim_chan_create(c, q->priority, q->units, &ch, &a->fd[0]);
		if (!r) {
			a->reply.id = ch->id;
			a->reply.index = ch->index;
			a->fds = 1;
			a->close_fds = true;
		}
		return r;
	default:
		ch = sim_chan_find(p, q->id);
		if (!ch)
			return -EINVAL;
		ch->closing = true;
		if (ch->done == ch->taken)
			sim_chan_destroy(ch);
		return 0;
	}
}

static int serve_question(struct sim_proc *p, struct sim_dev *d, const struct sim_request *q, struct answer *a)
{
	struct sim_server *s = p->server;
	switch (q->op) {
	case SIM_OP_CARD:
		a->reply.card = d->told;
		a->bytes = offsetof(struct sim_reply, card) + sizeof(a->reply.card);
		return 0;
	case SIM_OP_READING:
		sim_catch_up(s);
		bury_dead(s, p->fd);
		sim_reading_of(d, &a->reply.reading);
		a->bytes = offsetof(struct sim_reply, card) + sizeof(a->reply.reading);
		return 0;
	default: {
		sim_catch_up(s);
		bury_dead(s, p->fd);
		unsigned n = sim_processes_of(d, a->reply.process, SIM_PROCESSES);
		a->bytes = offsetof(struct sim_reply, card) + PEN_MIN(n, SIM_PROCESSES) * sizeof(a->reply.process[0]);
		return (int)n;
	}
	}
}

static int serve_ctl(struct sim_proc *p, struct sim_dev *d, const struct sim_request *q, struct answer *a)
{
	struct sim_server *s = p->server;
	int r;
	sim_catch_up(s);
	bury_dead(s, p->fd);
	switch (q->op) {
	case SIM_OP_RESET:
		sim_report_reset(s);
		return 0;
	case SIM_OP_FAULT:
		r = sim_fault(d, q->text, a->reply.text, sizeof(a->reply.text));
		a->bytes = offsetof(struct sim_reply, card) + sizeof(a->reply.text);
		return r;
	default:
		r = report_fd(s);
		if (r < 0)
			return r;
		a->fd[0] = r;
		a->fds = 1;
		a->close_fds = true;
		return 0;
	}
}

static int serve(struct sim_proc *p, const struct sim_request *q, struct answer *a)
{
	struct sim_server *s = p->server;
	struct sim_dev *d = &s->dev[q->dev];
	if (q->magic != SIM_WIRE_MAGIC || q->op >= SIM_OP_MAX_)
		return -EPROTO;
	if (q->dev >= s->devs)
		return -ENODEV;
	switch ((enum sim_op)q->op) {
	case SIM_OP_HELLO:
		serve_hello(p, a);
		return 0;
	case SIM_OP_MEM_TAKE:
	case SIM_OP_MEM_GIVE:
	case SIM_OP_MEM_INFO:
		return serve_memory(p, d, q, a);
	case SIM_OP_CONTEXT_CREATE:
	case SIM_OP_CONTEXT_DESTROY:
	case SIM_OP_CHANNEL_CREATE:
	case SIM_OP_CHANNEL_DESTROY:
		return serve_context(p, d, q, a);
	case SIM_OP_HOST_DONE:
		sim_catch_up(s);
		sim_host_finish(p, q->id);
		return 0;
	case SIM_OP_CARD:
	case SIM_OP_READING:
	case SIM_OP_PROCESSES:
		return serve_question(p, d, q, a);
	case SIM_OP_TRUTH:
	case SIM_OP_RESET:
	case SIM_OP_FAULT:
		return serve_ctl(p, d, q, a);
	case SIM_OP_MAX_:
		break;
	}
	return -EPROTO;
}

/* ---- events ---- */

static void on_death(evutil_socket_t fd, short what, void *arg)
{
	struct sim_proc *p = arg;
	struct sim_server *s = p->server;
	(void)fd;
	(void)what;
	sim_lock(s);
	sim_catch_up(s);
	sim_proc_destroy(p);
	sim_unlock(s);
	sim_kick(s);
}

static void on_request(evutil_socket_t fd, short what, void *arg)
{
	struct sim_proc *p = arg;
	struct sim_server *s = p->server;
	struct sim_request q;
	ssize_t n = recv(fd, &q, sizeof(q), MSG_DONTWAIT);
	(void)what;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != (ssize_t)sizeof(q)) {
		on_death(fd, 0, p);
		return;
	}
	q.text[sizeof(q.text) - 1] = 0;
	struct answer *a = calloc(1, sizeof(*a));
	if (!a) {
		on_death(fd, 0, p);
		return;
	}
	a->bytes = offsetof(struct sim_reply, card);
	sim_lock(s);
	a->reply.result = serve(p, &q, a);
	sim_unlock(s);
	/* What changes what the devices have to do. */
	if (q.op >= SIM_OP_CONTEXT_CREATE && q.op != SIM_OP_READING && q.op != SIM_OP_PROCESSES)
		sim_kick(s);
	send_answer(fd, a);
	free(a);
}

static void on_connect(evutil_socket_t listener, short what, void *arg)
{
	struct sim_server *s = arg;
	struct sim_proc *p;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	(void)what;
	if (fd < 0)
		return;
	sim_lock(s);
	int r = sim_proc_create(s, fd, &p);
	if (!r) {
		p->on_request = event_new(s->base, fd, EV_READ | EV_PERSIST, on_request, p);
		p->on_death = event_new(s->base, p->pidfd, EV_READ, on_death, p);
		if (!p->on_request || !p->on_death || event_add(p->on_request, NULL) || event_add(p->on_death, NULL))
			sim_proc_destroy(p);
	} else {
		close(fd);
	}
	sim_unlock(s);
}

static void on_signal(evutil_socket_t n, short what, void *arg)
{
	(void)n;
	(void)what;
	event_base_loopbreak(arg);
}

static int listen_at(const char *path, struct pen_err *err)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(at.sun_path))
		return pen_err_x(err, -ENAMETOOLONG, "socket '%s': longer than %zu characters", path, sizeof(at.sun_path) - 1);
	memcpy(at.sun_path, path, strlen(path) + 1);
	pen_auto_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return pen_err_sys(err, -errno, "socket");
	/* One that answers is somebody's; one that does not was left behind. */
	if (!connect(fd, (struct sockaddr *)&at, sizeof(at)))
		return pen_err_x(err, -EADDRINUSE, "socket '%s': a server is there already", path);
	if (errno == ECONNREFUSED)
		unlink(path);
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		return pen_err_sys(err, -errno, "bind '%s'", path);
	if (listen(fd, BACKLOG) < 0)
		return pen_err_sys(err, -errno, "listen '%s'", path);
	return PEN_TAKE_FD(fd);
}

int sim_control_run(struct sim_server *s, const char *path, struct pen_err *err)
{
	pen_auto_close int fd = listen_at(path, err);
	if (fd < 0)
		return fd;
	s->base = event_base_new();
	struct event *connects = s->base ? event_new(s->base, fd, EV_READ | EV_PERSIST, on_connect, s) : NULL;
	struct event *term = s->base ? evsignal_new(s->base, SIGTERM, on_signal, s->base) : NULL;
	struct event *intr = s->base ? evsignal_new(s->base, SIGINT, on_signal, s->base) : NULL;
	if (!connects || !term || !intr || event_add(connects, NULL) || event_add(term, NULL) || event_add(intr, NULL))
		return pen_err_x(err, -ENOMEM, "event loop");
	printf("simgpu: ready at %s with", path);
	for (unsigned i = 0; i < s->devs; i++)
		printf("%s %s", i ? "," : "", s->dev[i].card.name);
	printf(" (%s)\n", s->concurrent ? "concurrent" : "timeslice");
	fflush(stdout);
	if (s->ready_fd >= 0) {
		(void)!write(s->ready_fd, "", 1);
		close(s->ready_fd);
	}
	event_base_dispatch(s->base);

	struct sim_proc *p;
	sim_lock(s);
	while ((p = TAILQ_FIRST(&s->procs)))
		sim_proc_destroy(p);
	sim_unlock(s);
	event_free(connects);
	event_free(term);
	event_free(intr);
	event_base_free(s->base);
	unlink(path);
	return 0;
}
