/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_SERVICE_INTERNAL_H
#define PEN_DAEMON_SERVICE_INTERNAL_H
/* Shared by service.c, service_tenant.c, service_work.c and container.c. */
#include "daemon/daemon.h"
#include "daemon/service.h"

#define PEN_INTEGRATIONS_MAX 8

struct pen_service {
	struct pen_daemon *d;
	const struct pen_integration *ops;
	void *self;
};

struct pen_work;

struct pen_services {
	struct pen_service s[PEN_INTEGRATIONS_MAX];
	size_t n;
	struct event *poke_ev;
	unsigned what;           /* has changed and was not told yet */
	struct pen_work *work;   /* NULL until somebody has some */
};

/* service_work.c. Waits for what runs, 2 s at most; what waits is dropped. */
void pen_work_stop(struct pen_services *all);

/* Also of a daemon without integrations. As pen_service_edits(). @t: NULL: of nobody. */
size_t pen_container_edits(struct pen_daemon *d, const struct pen_tenant *t, const char *device, struct pen_service_edit *ret, size_t max);

#endif
