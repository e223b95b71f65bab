/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs penstock-probe and reads the devices that it prints. It may crash, hang or print rubbish: it is killed after
 * PEN_PROBE_LIMIT_MS, at most PROBE_MAX bytes are read, and the daemon goes on with what it knows.
 *
 * At boot a driver may be loaded after us. So where nothing was found, or a vendor's library was there and its driver was not, it
 * is run again, ever more rarely.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/child.h"
#include "daemon/daemon.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROBE_MAX 65536
#define AGAIN_NS (2 * PEN_S)
#define AGAIN_MAX_NS (600 * PEN_S)

struct pen_probe {
	struct pen_child child;
	struct event *read_ev, *limit_ev;
	size_t len;
	char text[PROBE_MAX];
};

bool pen_probe_running(const struct pen_daemon *d)
{
	return d->probe != NULL;
}

void pen_probe_free(struct pen_daemon *d)
{
	struct pen_probe *p = d->probe;
	if (!p)
		return;
	d->probe = NULL;
	if (p->read_ev)
		event_free(p->read_ev);
	if (p->limit_ev)
		event_free(p->limit_ev);
	pen_child_end(d, &p->child);
	free(p);
}

static const char *text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s ? s : "";
}

static void learn(struct pen_daemon *d, const json_t *o)
{
	struct pen_device_facts f = { .key = text_of(o, "key"), .model = text_of(o, "model"), .api = text_of(o, "api"),
				      .driver = text_of(o, "driver") };
	json_int_t mem = json_integer_value(json_object_get(o, "mem_bytes"));
	json_int_t units = json_integer_value(json_object_get(o, "units"));
	if (!*f.key || strlen(f.key) >= PEN_DEVKEY_MAX || mem < 0 || units < 0 || units > UINT16_MAX)
		return;
	f.mem_bytes = (uint64_t)mem;
	f.units = (uint32_t)units;
	struct pen_device *dev;
	pen_device_learn(d, &f, PEN_DEVICE_OK, &dev);
}

static void take_answer(struct pen_daemon *d, const struct pen_probe *p)
{
	json_error_t je;
	json_t *o = json_loadb(p->text, p->len, JSON_REJECT_DUPLICATES, &je);
	if (!o) {
		pen_event(d, PEN_EVENT_ALERT, NULL, NULL, "device discovery gave no answer (%s)",
			  p->len ? je.text : "nothing was printed");
		return;
	}
	size_t i;
	json_t *v;
	bool none = !json_array_size(json_object_get(o, "devices")), wanting = none;
	json_array_foreach(json_object_get(o, "devices"), i, v)
		learn(d, v);
	json_array_foreach(json_object_get(o, "backends"), i, v) {
		if (!*text_of(v, "error"))
			continue;
		wanting = true;
		bool news = !d->probe_again_ns && !json_is_true(json_object_get(v, "absent"));
		enum pen_log_level level = json_is_true(json_object_get(v, "wanting")) ? PEN_LOG_WARN : PEN_LOG_INFO;
		pen_log(news ? level : PEN_LOG_DEBUG, "%s: %s", text_of(v, "api"), text_of(v, "error"));
	}
	if (none && !d->probe_again_ns)
		pen_log(PEN_LOG_INFO, "no device was found; `penstock doctor` says what is missing");
	json_decref(o);
	if (!none && d->probe_wait_ns == AGAIN_MAX_NS)   /* a library that is not there is no news for ever */
		wanting = false;
	uint64_t wait = PEN_MAX(2 * d->probe_wait_ns, AGAIN_NS);
	d->probe_wait_ns = wanting ? PEN_MIN(wait, AGAIN_MAX_NS) : 0;
	d->probe_again_ns = wanting ? pen_mono_ns() + d->probe_wait_ns : 0;
}

static void finish(struct pen_daemon *d)
{
	struct pen_probe *p = d->probe;
	take_answer(d, p);
	pen_probe_free(d);
	pen_daemon_probed(d);
}

static void on_read(evutil_socket_t fd, short what, void *arg)
{
	struct pen_daemon *d = arg;
	struct pen_probe *p = d->probe;
	(void)what;
	ssize_t n = read(fd, p->text + p->len, sizeof(p->text) - p->len);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		p->len += (size_t)n;
		if (p->len < sizeof(p->text))
			return;
	}
	finish(d);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
	struct pen_daemon *d = arg;
	(void)fd, (void)what;
	pen_log(PEN_LOG_WARN, "device discovery took more than %d s and is ended", PEN_PROBE_LIMIT_MS / 1000);
	d->probe->len = 0;
	finish(d);
}

int pen_probe_find(const struct pen_daemon *d, char *buf, size_t n)
{
	if (d->opt.probe)
		return snprintf(buf, n, "%s", d->opt.probe) < (int)n ? 0 : -ENAMETOOLONG;
	char self[512];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (len < 0)
		return -errno;
	self[len] = 0;
	char *slash = strrchr(self, '/');
	if (slash)
		*slash = 0;
	static const char *const places[] = { "penstock-probe", "../backend/penstock-probe",
					      "../libexec/penstock/penstock-probe" };
	for (size_t i = 0; i < PEN_ARRAY_LEN(places); i++) {
		if (snprintf(buf, n, "%s/%s", self, places[i]) < (int)n && access(buf, X_OK) == 0)
			return 0;
	}
	return -ENOENT;
}

void pen_probe_second(struct pen_daemon *d)
{
	if (!d->probe_again_ns || pen_mono_ns() < d->probe_again_ns)
		return;
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		if (d->device[i] && d->device[i]->released)   /* its driver is being changed at this moment */
			return;
	pen_probe_start(d);
}

int pen_probe_start(struct pen_daemon *d)
{
	char path[1024];
	int r = d->probe ? -EALREADY : pen_probe_find(d, path, sizeof(path));
	if (r < 0)
		return r;
	struct pen_probe *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->child = (struct pen_child)PEN_CHILD_INIT;
	char *const argv[] = { path, NULL };
	r = pen_child_start(&p->child, argv, false);
	if (r < 0) {
		free(p);
		return r;
	}
	d->probe = p;
	p->read_ev = event_new(d->base, p->child.out, EV_READ | EV_PERSIST, on_read, d);
	/* The limit is for the whole run: a probe that prints a byte now and then must not go on for ever. */
	struct timeval limit = { .tv_sec = PEN_PROBE_LIMIT_MS / 1000 };
	p->limit_ev = evtimer_new(d->base, on_limit, d);
	if (!p->read_ev || !p->limit_ev || event_add(p->read_ev, NULL) < 0 || event_add(p->limit_ev, &limit) < 0) {
		pen_probe_free(d);
		return -ENOMEM;
	}
	return 0;
}
