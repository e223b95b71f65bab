/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/watch.h"

#include "base/auto.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/audit.h"
#include "daemon/child.h"
#include "daemon/daemon.h"
#include "daemon/reading.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINE_MAX_BYTES (UINT32_C(1) << 20)
#define RUBBISH_MAX 5                     /* lines in a row that are none */
#define START_NS (20 * PEN_S)             /* until the first line: a driver that wakes a card up takes seconds */
#define SILENT_PERIODS 5                  /* until the next one, and at least SILENT_NS */
#define SILENT_NS PEN_S
#define BACKOFF_MIN_NS PEN_S
#define BACKOFF_MAX_NS (60 * PEN_S)
#define DYING_NS (50 * PEN_MS)            /* between looks at a predecessor that was killed */
#define DYING_LOOKS 100
#define CLOSED_NS (10 * PEN_MS)
#define CLOSED_LOOKS 20
#define GOOD_RUN 10                       /* lines after which an earlier failure counts no more */

struct pen_watch {
	struct pen_child child;
	struct event *read_ev, *timer_ev; /* timer: until it is taken to hang; while none runs: until the next is started */
	size_t len;
	unsigned rubbish;                 /* in a row */
	uint64_t lines;                   /* of this run */
	uint64_t period_ns;               /* that this run was started with */
	unsigned failures;                /* in a row */
	uint64_t runs, last_ns;
	unsigned dying_for;               /* looks at its predecessor */
	unsigned closed_for;              /* looks at it since it closed its output */
	bool told;
	bool held;                        /* off, since a device is released */
	char text[LINE_MAX_BYTES];
};

static void plan(struct pen_watch *w, uint64_t ns)
{
	struct timeval tv = { .tv_sec = (time_t)(ns / PEN_S), .tv_usec = (suseconds_t)(ns % PEN_S / 1000) };
	if (w->timer_ev)
		event_add(w->timer_ev, &tv);
}

static void stop(struct pen_daemon *d, struct pen_watch *w)
{
	if (w->read_ev)
		event_free(w->read_ev);
	w->read_ev = NULL;
	pen_child_end(d, &w->child);
}

static void tell(struct pen_daemon *d, struct pen_watch *w, const char *what)
{
	pen_log(PEN_LOG_DEBUG, "watch: %s", what);
	if (!w->told)
		pen_event(d, PEN_EVENT_ALERT, NULL, NULL, "devices are not watched at the moment: %s; it is tried again", what);
	w->told = true;
}

static void failed(struct pen_daemon *d, struct pen_watch *w, const char *what)
{
	tell(d, w, what);
	stop(d, w);
	uint64_t wait = BACKOFF_MIN_NS << PEN_MIN(w->failures, 10u);
	w->failures++;
	plan(w, PEN_MIN(wait, BACKOFF_MAX_NS));
}

static void take_line(struct pen_daemon *d, struct pen_watch *w, const char *line, size_t len)
{
	struct pen_err err = PEN_ERR_INIT;
	json_t *root = NULL;
	const char *error = NULL;
	const json_t *devices = pen_reading_open(line, len, &root, &error, &err);
	if (!devices) {
		w->rubbish++;
		pen_log(PEN_LOG_DEBUG, "watch: a line that is none: %s", err.text);
		return;
	}
	w->rubbish = 0;
	w->lines++;
	if (w->lines >= GOOD_RUN)
		w->failures = 0;
	if (error) {   /* it runs, and the driver is away: being loaded anew, perhaps */
		char text[160];
		snprintf(text, sizeof(text), "%s", error);
		tell(d, w, text);
	} else {
		w->last_ns = pen_mono_ns();
		if (w->told)
			pen_event(d, PEN_EVENT_AUDIT, NULL, NULL, "devices are watched again");
		w->told = false;
	}
	pen_audit_take(d, devices);
	json_decref(root);
	plan(w, PEN_MAX(SILENT_NS, SILENT_PERIODS * w->period_ns));
}

/* It has closed its output. A moment later the kernel says how it ended. */
static void closed(struct pen_daemon *d, struct pen_watch *w)
{
	char what[64] = "penstock-probe --watch closed its output";
	int status;
	if (w->read_ev)
		event_free(w->read_ev);
	w->read_ev = NULL;
	if (!pen_child_ended(&w->child, &status)) {
		if (w->closed_for++ < CLOSED_LOOKS) {
			plan(w, CLOSED_NS);
			return;
		}
	} else if (WIFSIGNALED(status)) {
		snprintf(what, sizeof(what), "penstock-probe --watch died of signal %d", WTERMSIG(status));
	} else {
		snprintf(what, sizeof(what), "penstock-probe --watch ended with %d", WEXITSTATUS(status));
	}
	failed(d, w, what);
}

static void on_read(evutil_socket_t fd, short what, void *arg)
{
	struct pen_daemon *d = arg;
	struct pen_watch *w = d->watch;
	(void)what;
	ssize_t n = read(fd, w->text + w->len, sizeof(w->text) - w->len);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		closed(d, w);
		return;
	}
	w->len += (size_t)n;
	size_t from = 0;
	for (char *nl; (nl = memchr(w->text + from, '\n', w->len - from)); from = (size_t)(nl - w->text) + 1)
		take_line(d, w, w->text + from, (size_t)(nl - w->text) - from);
	memmove(w->text, w->text + from, w->len - from);
	w->len -= from;
	if (w->len == sizeof(w->text) || w->rubbish >= RUBBISH_MAX)
		failed(d, w, "penstock-probe --watch prints rubbish");
}

static void start(struct pen_daemon *d, struct pen_watch *w)
{
	char path[1024], ms[24];
	if (w->held)
		return;
	if (pen_child_reap(d)) {   /* usually gone in a moment; one that hangs in the driver would have another hang beside it */
		bool hangs = w->dying_for++ >= DYING_LOOKS;
		if (hangs)
			tell(d, w, "the last penstock-probe does not end");
		plan(w, hangs ? BACKOFF_MAX_NS : DYING_NS);
		return;
	}
	w->dying_for = w->closed_for = 0;
	w->runs++;
	w->period_ns = d->cfg.audit_period_ns;
	w->len = w->rubbish = 0;
	w->lines = 0;
	snprintf(ms, sizeof(ms), "%llu", (unsigned long long)(w->period_ns / PEN_MS));
	char *const argv[] = { path, (char *)(uintptr_t)"--watch", ms, NULL };
	int r = pen_probe_find(d, path, sizeof(path));
	if (r == 0)
		r = pen_child_start(&w->child, argv, true);
	if (r == 0) {
		w->read_ev = event_new(d->base, w->child.out, EV_READ | EV_PERSIST, on_read, d);
		r = w->read_ev && event_add(w->read_ev, NULL) == 0 ? 0 : -ENOMEM;
	}
	if (r < 0)
		failed(d, w, strerror(-r));
	else
		plan(w, START_NS + w->period_ns);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct pen_daemon *d = arg;
	struct pen_watch *w = d->watch;
	(void)fd, (void)what;
	if (!w->child.pid)
		start(d, w);
	else if (w->closed_for)
		closed(d, w);
	else
		failed(d, w, "penstock-probe --watch hangs");
}

bool pen_watch_can(const char *api)
{
	return !strcmp(api, "cuda");   /* NVML */
}

static bool is_wanted(const struct pen_daemon *d)
{
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++) {
		const struct pen_device *dev = d->device[i];
		for (unsigned k = 0; dev && k < dev->n_apis; k++)
			if (dev->state != PEN_DEVICE_UNPROBED && pen_watch_can(dev->api[k].name))
				return true;
	}
	return false;
}

/* One process watches all devices of a driver: it must go if any of them is released. */
static bool is_released(const struct pen_daemon *d)
{
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		if (d->device[i] && d->device[i]->released)
			return true;
	return false;
}

void pen_watch_begin(struct pen_daemon *d)
{
	if (d->watch || d->opt.no_probe || !is_wanted(d))
		return;
	struct pen_watch *w = calloc(1, sizeof(*w));
	if (!w)
		return;
	w->child = (struct pen_child)PEN_CHILD_INIT;
	d->watch = w;
	w->timer_ev = evtimer_new(d->base, on_timer, d);
	w->held = is_released(d);
	start(d, w);
}

void pen_watch_configure(struct pen_daemon *d)
{
	struct pen_watch *w = d->watch;
	if (!w)
		return;
	bool was_held = w->held;
	w->held = is_released(d);
	if (w->held) {
		stop(d, w);
		if (w->timer_ev)
			event_del(w->timer_ev);
		return;
	}
	if (was_held)
		plan(w, 0);
	if (!w->child.pid || w->period_ns == d->cfg.audit_period_ns)
		return;
	stop(d, w);
	plan(w, 0);
}

bool pen_watch_lives(struct pen_daemon *d)
{
	return (d->watch && d->watch->child.pid) || pen_child_reap(d);
}

bool pen_watch_is(const struct pen_daemon *d, pid_t pid)
{
	return d->watch && d->watch->child.pid == pid;
}

void pen_watch_second(struct pen_daemon *d)
{
	pen_child_reap(d);
}

void pen_watch_free(struct pen_daemon *d)
{
	struct pen_watch *w = d->watch;
	if (!w)
		return;
	stop(d, w);
	if (w->timer_ev)
		event_free(w->timer_ev);
	d->watch = NULL;
	free(w);
}

bool pen_watch_status(const struct pen_daemon *d, struct pen_watch_status *ret)
{
	const struct pen_watch *w = d->watch;
	if (!w)
		return false;
	uint64_t now = pen_mono_ns();
	*ret = (struct pen_watch_status){ .runs = w->child.pid && w->lines && !w->told, .restarts = w->runs ? w->runs - 1 : 0,
					  .age_ns = w->last_ns ? now - w->last_ns : UINT64_MAX };
	return true;
}
