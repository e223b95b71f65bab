/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/http_conns.h"

#include "base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>

struct pen_conn {
	int fd;
	ino_t ino;                  /* of the socket: a closed descriptor's number comes back */
	enum pen_conn_kind kind;
	uint64_t silent_since_ns;   /* 0: a request is being answered */
	bool shut;
};

static ino_t socket_of(int fd)
{
	struct stat st;
	return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode) ? st.st_ino : 0;
}

static struct pen_conn *find(const struct pen_conns *t, int fd)
{
	ino_t ino = socket_of(fd);
	for (unsigned i = 0; i < t->n; i++)
		if (t->v[i].fd == fd && t->v[i].ino == ino)
			return &t->v[i];
	return NULL;
}

static struct pen_conn *enter(struct pen_conns *t, int fd)
{
	struct pen_conn c = { .fd = fd, .ino = socket_of(fd), .silent_since_ns = pen_mono_ns() };
	c.kind = c.ino ? t->kind_of(t->arg, fd) : PEN_CONN_NONE;
	if (c.kind == PEN_CONN_NONE)
		return NULL;
	if (t->n == t->room) {
		unsigned room = t->room ? 2 * t->room : 32;
		struct pen_conn *v = reallocarray(t->v, room, sizeof(*v));
		if (!v)
			return NULL;
		t->v = v;
		t->room = room;
	}
	if (t->unseen)
		t->unseen--;
	t->v[t->n] = c;
	return &t->v[t->n++];
}

void pen_conns_came(struct pen_conns *t)
{
	t->unseen++;
}

static void forget_closed(struct pen_conns *t)
{
	unsigned n = 0;
	for (unsigned i = 0; i < t->n; i++)
		if (socket_of(t->v[i].fd) == t->v[i].ino)
			t->v[n++] = t->v[i];
	t->n = n;
}

void pen_conns_busy(struct pen_conns *t, int fd)
{
	struct pen_conn *c = find(t, fd);
	if (!c && t->n == t->room)   /* of those that come and go between two looks */
		forget_closed(t);
	if (!c)
		c = enter(t, fd);
	if (c)
		c->silent_since_ns = 0;
}

void pen_conns_idle(struct pen_conns *t, int fd)
{
	struct pen_conn *c = find(t, fd);
	if (c)
		c->silent_since_ns = pen_mono_ns();
}

/* Those that have not sent a request yet. */
static void find_unseen(struct pen_conns *t)
{
	DIR *dir = opendir("/proc/self/fd");
	const struct dirent *e;
	while (dir && (e = readdir(dir))) {
		int fd = atoi(e->d_name);
		if (fd > 2 && !find(t, fd))
			enter(t, fd);
	}
	if (dir) {
		closedir(dir);
		t->unseen = 0;
	}
}

static void shut(struct pen_conn *c)
{
	shutdown(c->fd, SHUT_RDWR);   /* evhttp sees its end and closes it */
	c->shut = true;
}

void pen_conns_look(struct pen_conns *t, unsigned lookers_max)
{
	forget_closed(t);
	if (t->unseen)
		find_unseen(t);
	uint64_t now = pen_mono_ns();
	for (unsigned i = 0; i < PEN_CONN_MAX_; i++)
		t->count[i] = 0;
	for (unsigned i = 0; i < t->n; i++) {
		struct pen_conn *c = &t->v[i];
		if (!c->shut && c->silent_since_ns && now - c->silent_since_ns > PEN_CONN_SILENT_NS)
			shut(c);
		if (!c->shut && c->kind == PEN_CONN_LOOKER && t->count[c->kind] >= lookers_max)
			shut(c);
		t->count[c->kind] += !c->shut;
	}
}

void pen_conns_finish(struct pen_conns *t)
{
	free(t->v);
	t->v = NULL;
	t->n = t->room = 0;
}
