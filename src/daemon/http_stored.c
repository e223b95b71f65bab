/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/http_stored.h"

#include "base/clock.h"
#include "daemon/store.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <utlist.h>

#define LIMIT_NS (500 * PEN_MS)   /* a flush takes milliseconds, on a card that wears levels some tens */

struct pen_stored_answer {
	struct pen_stored *s;
	struct evhttp_request *req;
	struct pen_api_call call;   /* what it borrowed of the request is not touched any more */
	uint64_t until_ns;
	struct pen_stored_answer *prev, *next;
};

/* Return: false: it is not known yet. */
static bool is_known(struct pen_daemon *d, struct pen_api_call *call, bool late)
{
	struct pen_store_stats stats;
	enum pen_store_fate fate = d->store ? pen_store_fate(d->store, call->store_mark) : PEN_STORE_FAILED;
	if (fate == PEN_STORE_WRITTEN) {
		pen_api_stored(call, NULL);
		return true;
	}
	pen_store_stats(d, &stats);
	if (fate == PEN_STORE_PENDING && !late && !stats.stalled)
		return false;
	pen_api_stored(call, stats.failing_since > 0 ? stats.why : "the disk does not answer");
	return true;
}

static void drop(struct pen_stored_answer *a)
{
	DL_DELETE(a->s->waiting, a);
	pen_api_finish(&a->call);
	free(a);
}

static void on_closed(struct evhttp_connection *conn, void *arg)
{
	struct pen_stored_answer *a = arg;
	(void)conn;
	pen_http_free_orphan(a->req);
	drop(a);
}

static void arm(struct pen_stored *s)
{
	uint64_t now = pen_mono_ns();
	if (!s->waiting)
		return;
	uint64_t us = s->waiting->until_ns > now ? (s->waiting->until_ns - now) / PEN_US : 0;
	evtimer_add(s->limit_ev, &(struct timeval){ .tv_usec = (suseconds_t)us });
	if (s->told_ev && !event_pending(s->told_ev, EV_READ, NULL))
		event_add(s->told_ev, NULL);
}

static void look(evutil_socket_t fd, short what, void *arg)
{
	struct pen_stored *s = arg;
	struct pen_stored_answer *a, *next;
	(void)fd, (void)what;
	DL_FOREACH_SAFE(s->waiting, a, next) {
		if (!is_known(s->d, &a->call, pen_mono_ns() >= a->until_ns))
			continue;
		evhttp_connection_set_closecb(evhttp_request_get_connection(a->req), NULL, NULL);
		pen_http_send(a->req, &a->call);
		drop(a);
	}
	arm(s);
}

bool pen_http_stored_wait(struct pen_stored *s, struct evhttp_request *req, struct pen_api_call *call)
{
	if (!call->stores || is_known(s->d, call, false))
		return false;
	struct pen_stored_answer *a = calloc(1, sizeof(*a));
	if (!a) {
		is_known(s->d, call, true);
		return false;
	}
	*a = (struct pen_stored_answer){ .s = s, .req = req, .call = *call, .until_ns = pen_mono_ns() + LIMIT_NS };
	DL_APPEND(s->waiting, a);
	evhttp_connection_set_closecb(evhttp_request_get_connection(req), on_closed, a);
	arm(s);
	return true;
}

int pen_http_stored_open(struct pen_stored *s, struct pen_daemon *d)
{
	s->d = d;
	s->limit_ev = evtimer_new(d->base, look, s);
	s->fd = d->store ? fcntl(pen_store_fd(d->store), F_DUPFD_CLOEXEC, 0) : -1;
	if (s->fd >= 0)
		s->told_ev = event_new(d->base, s->fd, EV_READ, look, s);
	return s->limit_ev && (s->told_ev || !d->store) ? 0 : -ENOMEM;
}

void pen_http_stored_free(struct pen_stored *s)
{
	while (s->waiting)   /* their connections are gone */
		drop(s->waiting);
	if (s->limit_ev)
		event_free(s->limit_ev);
	if (s->told_ev) {
		event_free(s->told_ev);
		close(s->fd);
	}
}
