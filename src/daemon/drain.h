/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_DRAIN_H
#define PEN_DAEMON_DRAIN_H
/*
 * Devices that an operator takes out of use: drained, nobody new comes to them and who is there goes on; released, no
 * process of the daemon has the vendor's library open either, so that the driver can be unloaded.
 *
 * What was asked for is kept by key, in d->drains and in the database, and outlives the daemon and the device's absence.
 * Threads: main.
 */
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>

struct pen_client;
struct pen_daemon;
struct pen_device;

void pen_drain_begin(struct pen_daemon *d, struct pen_device *dev);
/* @key: also of a device that is not there at the moment. Return: 0; -ENOENT it was not drained. */
int pen_drain_end(struct pen_daemon *d, const char *key);
/* Lets go of the driver; the device must be drained. Whether it is so already: pen_drain_is_released(). */
void pen_drain_release(struct pen_daemon *d, struct pen_device *dev);
bool pen_drain_is_released(struct pen_daemon *d, const struct pen_device *dev);

/* A device that has just become known: was it drained? */
void pen_drain_recall(const struct pen_daemon *d, struct pen_device *dev);
void pen_drain_restore(struct pen_daemon *d, const char *key, double since, bool released);   /* from the database */

/* @c may not have a new seat on @dev: it is drained, and its process does not have it already. */
bool pen_drain_keeps_out(const struct pen_client *c, const struct pen_device *dev);

/* Who has the device: array of {pid, comm, tenant}, tenant null for processes that the audit saw there and that are nobody's. */
json_t *pen_drain_holders(const struct pen_daemon *d, const struct pen_device *dev);
unsigned pen_drain_clients(const struct pen_device *dev);   /* processes of tenants that are attached */

#endif
