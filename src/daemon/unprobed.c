/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices that the probe did not find and a tenant brings along: it sees another driver than the daemon does, or there is
 * no probe. It may make them up as well, so one tenant gets few, all together leave room in the table for what the probe
 * finds, and one that nobody uses stays for its history only until the room is needed.
 */
#include "daemon/daemon.h"
#include "daemon/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define UNPROBED_MAX (PEN_DAEMON_DEVICES * 3 / 4)
#define UNPROBED_OF_ONE PEN_CLIENT_ADOPTS   /* as many as a process can use, while there is plenty of room */
#define UNPROBED_SCARCE 4                   /* when half of the room is taken */

/* No seats, and none waited for. */
static bool is_idle(const struct pen_device *dev)
{
	for (unsigned i = 0; i < PEN_SEATS; i++)
		if (dev->seat[i] || dev->absent[i])
			return false;
	for (unsigned i = 0; i < PEN_TENANT_SLOTS; i++)
		if (dev->slot[i] && pen_place_waits(dev->slot[i]))
			return false;
	return true;
}

void pen_unprobed_forget(struct pen_daemon *d, struct pen_device *dev)
{
	uint64_t bit = UINT64_C(1) << dev->index;
	for (unsigned i = 0; i < PEN_TENANT_SLOTS; i++) {
		if (dev->slot[i] && d->store)
			pen_store_place_gone(d->store, dev->slot[i]);
		if (dev->slot[i])
			pen_place_free(d, dev->slot[i]);
	}
	/* Its number goes to another device. */
	for (struct pen_tenant *t = d->tenants; t; t = t->hh.next) {
		t->covers &= ~bit;
		for (struct pen_client *c = t->clients; c; c = c->next)
			c->resend &= ~bit;
	}
	pen_lock(&d->table->lock);
	d->table->device[dev->index] = NULL;
	pen_unlock(&d->table->lock);
	d->device[dev->index] = NULL;
	d->n_devices--;
	pen_audit_free(dev);
	munmap(dev->table, sizeof(*dev->table));
	free(dev);
}

/* Of a tenant, or of all if @t is NULL. @ret_idle: one that could be forgotten, or NULL. */
static unsigned count_unprobed(struct pen_daemon *d, const struct pen_tenant *t, struct pen_device **ret_idle)
{
	unsigned n = 0;
	*ret_idle = NULL;
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++) {
		struct pen_device *dev = d->device[i];
		if (!dev || dev->state != PEN_DEVICE_UNPROBED || (t && !t->place[i]))
			continue;
		n++;
		if (!*ret_idle && is_idle(dev))
			*ret_idle = dev;
	}
	return n;
}

int pen_unprobed_learn(struct pen_daemon *d, const struct pen_tenant *t, const struct pen_msg_device *m,
		       struct pen_device **ret_dev)
{
	struct pen_device *own_idle, *idle;
	unsigned own = count_unprobed(d, t, &own_idle), all = count_unprobed(d, NULL, &idle);
	unsigned most = all < UNPROBED_MAX / 2 ? UNPROBED_OF_ONE : UNPROBED_SCARCE;
	if (own >= most) {
		if (!own_idle)
			return -ENOSPC;
		pen_unprobed_forget(d, own_idle);
	} else if (all >= UNPROBED_MAX) {
		if (!idle)
			return -ENOSPC;
		pen_unprobed_forget(d, own_idle ? own_idle : idle);
	}
	char api[16];
	snprintf(api, sizeof(api), "%.*s", (int)strcspn(m->key, ":"), m->key);
	bool is_address = !strcmp(api, "pci") || !strcmp(api, "uuid");   /* which says nothing of the interface */
	struct pen_device_facts f = { .key = m->key, .model = m->model, .api = is_address ? "" : api,
				      .mem_bytes = m->mem_bytes, .units = m->units };
	return pen_device_learn(d, &f, PEN_DEVICE_UNPROBED, ret_dev);
}
