/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices that fail: the library says that one is lost, or the driver reports an error (NVIDIA: Xid) after which nothing on it
 * can be trusted until it is reset. Its tenants' next command fails, and nobody is admitted to it. Errors that a program makes
 * for itself are told and no more.
 */
#include "base/auto.h"
#include "daemon/audit.h"
#include "daemon/daemon.h"

#include <string.h>

#define FOUND 3   /* readings in which a lost device was there again */

/* Numbers and meanings: NVIDIA's list of Xid errors. fatal: the list asks for a reset of the device. */
static const struct {
	int32_t xid;
	bool fatal;
	const char *text;
} codes[] = {
	{ 13, false, "exception in a program's kernel" },
	{ 31, false, "a program's access to memory that is not its own" },
	{ 43, false, "a program's channel was stopped" },
	{ 45, false, "a program was cleaned up" },
	{ 48, true, "memory error that could not be corrected" },
	{ 62, true, "the device's own controller halted" },
	{ 63, false, "a row of memory was taken out of use" },
	{ 64, true, "a row of memory could not be taken out of use" },
	{ 69, false, "exception in a program's graphics class" },
	{ 79, true, "the device has fallen off the bus" },
	{ 94, false, "memory error, kept within one program" },
	{ 95, true, "memory error that was not kept within one program" },
	{ 119, true, "the device's system processor does not answer" },
	{ 120, true, "the device's system processor failed" },
	{ 140, true, "memory error that was not recovered" },
};

static void set_state(struct pen_daemon *d, struct pen_device *dev, enum pen_device_state state)
{
	dev->state = state;
	dev->audit->found_for = 0;
	pen_device_configure(d, dev);
	pen_tick_now(d, dev);
}

static void lose(struct pen_daemon *d, struct pen_device *dev, bool by_code, const char *why)
{
	if (dev->state == PEN_DEVICE_LOST) {
		dev->audit->lost_by_code &= by_code;
		return;
	}
	dev->audit->lost_by_code = by_code;
	set_state(d, dev, PEN_DEVICE_LOST);
	pen_event(d, PEN_EVENT_DEVICE_LOST, NULL, dev, "%s is lost: %s. No tenant is admitted to it%s", dev->key, why,
		  by_code ? "; when it has been reset: penstock config reload" : "");
	for (unsigned i = 0; i < PEN_TENANT_SLOTS; i++)
		if (dev->slot[i])
			pen_event(d, PEN_EVENT_DEVICE_LOST, dev->slot[i]->tenant, dev, "%s is lost: its next command fails", dev->key);
}

static void find_again(struct pen_daemon *d, struct pen_device *dev)
{
	set_state(d, dev, PEN_DEVICE_OK);
	pen_event(d, PEN_EVENT_DEVICE, NULL, dev, "%s is there again; programs that had it must be started anew", dev->key);
	pen_tenant_admit_waiting(d);
}

void pen_audit_health(struct pen_daemon *d, struct pen_device *dev, const struct pen_reading_device *r)
{
	struct pen_audit *a = dev->audit;
	if (r->lost)
		lose(d, dev, false, "the driver's library does not reach it any more");
	/* The last one stays in the readings; the same one again is told by its number alone. */
	if (r->xid != PEN_READING_NONE && (r->xid != dev->xid || r->xid_count != dev->xid_count)) {
		size_t i = 0;
		while (i < PEN_ARRAY_LEN(codes) && codes[i].xid != r->xid)
			i++;
		bool known = i < PEN_ARRAY_LEN(codes), fatal = known && codes[i].fatal;
		const char *text = known ? codes[i].text : "see NVIDIA's list of Xid errors";
		pen_event(d, fatal ? PEN_EVENT_ALERT : PEN_EVENT_AUDIT, NULL, dev, "the driver reports Xid %d: %s", (int)r->xid, text);
		if (fatal)
			lose(d, dev, true, text);
	}
	dev->xid = r->xid;
	dev->xid_count = r->xid_count;
	if (dev->state != PEN_DEVICE_LOST || a->lost_by_code)
		return;
	a->found_for = r->lost ? 0 : a->found_for + 1;
	if (a->found_for >= FOUND)
		find_again(d, dev);
}

void pen_audit_reload(struct pen_daemon *d)
{
	d->told_cannot_stop = false;
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++) {
		struct pen_device *dev = d->device[i];
		struct pen_audit *a = dev ? dev->audit : NULL;
		for (unsigned k = 0; a && k < a->n_processes; k++) {   /* audit.known may be another list */
			if (a->process[k].kind == PEN_AUDIT_KNOWN)
				a->process[k].kind = PEN_AUDIT_UNKNOWN;
			a->process[k].readings = 0;
		}
		if (a && dev->state == PEN_DEVICE_LOST && a->lost_by_code)
			find_again(d, dev);
	}
}
