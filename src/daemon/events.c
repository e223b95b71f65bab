/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"
#include "contract/text.h"
#include "daemon/daemon.h"
#include "daemon/http.h"
#include "daemon/store.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Kept in memory for /v1/events; older ones are in the database. About 0.5 MB. */
#define EVENTS 1024

struct pen_events {
	uint64_t last;   /* id of the newest; the row of id n is at n % EVENTS */
	struct pen_event_row row[EVENTS];
};

static const char *const kind_name[PEN_EVENT_MAX_] = {
#define X(id, name) name,
	PEN_EVENT_KINDS(X)
#undef X
};

double pen_unix_now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int pen_events_open(struct pen_daemon *d)
{
	d->events = calloc(1, sizeof(*d->events));
	return d->events ? 0 : -ENOMEM;
}

void pen_events_free(struct pen_daemon *d)
{
	free(d->events);
	d->events = NULL;
}

void pen_events_restore(struct pen_daemon *d, const struct pen_event_row *row)
{
	struct pen_events *e = d->events;
	if (row->id <= e->last)
		return;
	e->row[row->id % EVENTS] = *row;
	e->last = row->id;
}

uint64_t pen_events_last(const struct pen_daemon *d)
{
	return d->events->last;
}

const struct pen_event_row *pen_events_next(const struct pen_daemon *d, uint64_t after)
{
	const struct pen_events *e = d->events;
	uint64_t id = after + 1;
	if (e->last >= EVENTS && id <= e->last - EVENTS)
		id = e->last - EVENTS + 1;
	for (; id <= e->last; id++)   /* rows restored from the database may leave gaps */
		if (e->row[id % EVENTS].id == id)
			return &e->row[id % EVENTS];
	return NULL;
}

/* People read the text alone, in a journal and in `penstock events`: it says which device is meant. */
static void name_device(struct pen_event_row *row)
{
	char text[sizeof(row->text)];
	if (!*row->device || strstr(row->text, row->device))
		return;
	memcpy(text, row->text, sizeof(text));
	snprintf(row->text, sizeof(row->text), "%s%s: %s", *row->tenant ? "on " : "", row->device, text);
}

void pen_event(struct pen_daemon *d, enum pen_event_kind kind, const struct pen_tenant *t, const struct pen_device *dev,
	       const char *fmt, ...)
{
	struct pen_events *e = d->events;
	struct pen_event_row *row = &e->row[(e->last + 1) % EVENTS];
	*row = (struct pen_event_row){ .id = ++e->last, .time = pen_unix_now() };
	snprintf(row->kind, sizeof(row->kind), "%s", kind_name[kind]);
	snprintf(row->tenant, sizeof(row->tenant), "%s", t ? t->name : "");
	snprintf(row->device, sizeof(row->device), "%s", dev ? dev->key : "");
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(row->text, sizeof(row->text), fmt, ap);
	va_end(ap);
	name_device(row);
	pen_text_clean(row->text);   /* texts hold names that tenants chose */
	enum pen_log_level level = kind == PEN_EVENT_ALERT ? PEN_LOG_ERROR :
				   kind == PEN_EVENT_CLIENT_ATTACHED || kind == PEN_EVENT_CLIENT_GONE ? PEN_LOG_DEBUG :
												       PEN_LOG_INFO;
	pen_log(level, "%s%s%s: %s", row->kind, *row->tenant ? " " : "", row->tenant, row->text);
	if (d->store)
		pen_store_event(d->store, row);
	if (d->http)
		pen_http_event(d, row);
}
