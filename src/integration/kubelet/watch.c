/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kubelet's directory. It may not be there yet, and may be taken away and made anew: inotify says what happens in it, and a look once a
 * second says when it is there again. While it is watched there is no timer but a look every few seconds for what inotify cannot say,
 * such as a file system that was mounted over it.
 */
#include "base/auto.h"
#include "base/log.h"
#include "integration/kubelet/internal.h"

#include <errno.h>
#include <event2/event.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#define ABSENT_MS 1000
#define LOOK_MS 5000

struct pen_kube_watch {
	struct pen_kube *k;
	char dir[PEN_CONFIG_PATH_MAX + 1];
	int fd, wd;              /* wd -1: the directory is not there */
	dev_t dev;
	ino_t ino;
	struct event *ev, *timer;
	bool told;               /* that it is not there */
};

/* What one read of events amounts to. */
struct news {
	bool appeared, deleted, checkpoint, over;
};

static void arm(struct pen_kube_watch *w)
{
	unsigned ms = w->wd < 0 ? ABSENT_MS : LOOK_MS;
	event_add(w->timer, &(struct timeval){ .tv_sec = ms / 1000 });
}

/* Starts to watch. What is in the directory already counts as having appeared now. */
static void look(struct pen_kube_watch *w)
{
	struct stat st;
	char path[sizeof(w->dir) + 64];
	w->wd = inotify_add_watch(w->fd, w->dir, IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM | IN_DELETE_SELF |
							  IN_MOVE_SELF | IN_CLOSE_WRITE | IN_ONLYDIR);
	if (w->wd < 0) {
		if (!w->told)
			pen_log(PEN_LOG_INFO, "kubelet: '%s': %s; waiting for it", w->dir, strerror(errno));
		w->told = true;
		return;
	}
	w->told = false;
	if (stat(w->dir, &st) == 0) {
		w->dev = st.st_dev;
		w->ino = st.st_ino;
	}
	pen_kube_checkpoint_read(w->k);
	snprintf(path, sizeof(path), "%s/" PEN_KUBE_SOCKET, w->dir);
	if (lstat(path, &st) == 0)
		pen_kube_appeared(w->k);
	else
		pen_kube_look_at_sockets(w->k);
}

static void take(const struct inotify_event *e, struct news *n)
{
	n->over |= (e->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED | IN_Q_OVERFLOW)) != 0;
	if (!e->len)
		return;
	if (!strcmp(e->name, PEN_KUBE_SOCKET))
		n->appeared |= (e->mask & (IN_CREATE | IN_MOVED_TO)) != 0;
	else if (!strcmp(e->name, PEN_KUBE_CHECKPOINT))
		n->checkpoint |= (e->mask & (IN_CLOSE_WRITE | IN_MOVED_TO)) != 0;
	n->deleted |= (e->mask & (IN_DELETE | IN_MOVED_FROM)) != 0;
}

static void unwatch(struct pen_kube_watch *w)
{
	if (w->wd >= 0)
		inotify_rm_watch(w->fd, w->wd);
	w->wd = -1;
}

static void on_inotify(evutil_socket_t fd, short what, void *arg)
{
	struct pen_kube_watch *w = arg;
	struct news n = { 0 };
	_Alignas(struct inotify_event) char buf[4096];
	ssize_t len;
	(void)what;
	while ((len = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t at = 0; at < len;) {
			const struct inotify_event *e = (const void *)(buf + at);
			if (e->wd == w->wd || (e->mask & IN_Q_OVERFLOW))   /* not what is left of a watch that has ended */
				take(e, &n);
			at += (ssize_t)sizeof(*e) + e->len;
		}
	if (n.over) {
		unwatch(w);
		look(w);
		arm(w);
		return;
	}
	if (n.checkpoint)
		pen_kube_checkpoint_read(w->k);
	if (n.appeared)
		pen_kube_appeared(w->k);
	else if (n.deleted)
		pen_kube_look_at_sockets(w->k);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct pen_kube_watch *w = arg;
	struct stat st;
	(void)fd, (void)what;
	if (w->wd >= 0 && (stat(w->dir, &st) < 0 || st.st_dev != w->dev || st.st_ino != w->ino))
		unwatch(w);
	if (w->wd < 0)
		look(w);
	else
		pen_kube_look_at_sockets(w->k);
	pen_kube_relist_soon(w->k);   /* memory that others borrow comes and goes without a word */
	arm(w);
}

int pen_kube_watch_create(struct pen_kube *k, const char *dir, struct pen_kube_watch **ret_watch)
{
	struct pen_kube_watch *w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->k = k;
	w->wd = -1;
	snprintf(w->dir, sizeof(w->dir), "%s", dir);
	w->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	w->ev = w->fd < 0 ? NULL : event_new(k->base, w->fd, EV_READ | EV_PERSIST, on_inotify, w);
	w->timer = evtimer_new(k->base, on_timer, w);
	if (!w->ev || !w->timer || event_add(w->ev, NULL) < 0) {
		int r = w->fd < 0 ? -errno : -ENOMEM;
		pen_kube_watch_destroy(w);
		return r;
	}
	*ret_watch = w;
	look(w);
	arm(w);
	return 0;
}

bool pen_kube_watch_is_on(const struct pen_kube_watch *w)
{
	return w && w->wd >= 0;
}

void pen_kube_watch_destroy(struct pen_kube_watch *w)
{
	if (!w)
		return;
	if (w->ev)
		event_free(w->ev);
	if (w->timer)
		event_free(w->timer);
	if (w->fd >= 0)
		close(w->fd);
	free(w);
}
