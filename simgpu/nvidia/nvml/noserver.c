/* SPDX-License-Identifier: Apache-2.0 */
/* Where the library is linked without simgpu/client.c: there is no server, only the null mode. */
#include "simgpu/client.h"

#include <errno.h>
#include <stddef.h>

#define WEAK __attribute__((weak))

WEAK int sim_connect(const char *path, struct sim **ret)
{
	(void)path, (void)ret;
	return -ENOENT;
}

WEAK unsigned sim_cards(const struct sim *s)
{
	(void)s;
	return 0;
}

WEAK const struct sim_card *sim_card(const struct sim *s, unsigned dev)
{
	(void)s, (void)dev;
	return NULL;
}

WEAK void sim_after_fork(struct sim *s)
{
	(void)s;
}

WEAK int sim_reading(struct sim *s, unsigned dev, struct sim_reading *ret)
{
	(void)s, (void)dev, (void)ret;
	return -ENODEV;
}

WEAK int sim_processes(struct sim *s, unsigned dev, struct sim_process *v, unsigned room)
{
	(void)s, (void)dev, (void)v, (void)room;
	return 0;
}
