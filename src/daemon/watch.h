/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_WATCH_H
#define PEN_DAEMON_WATCH_H
/*
 * Keeps one `penstock-probe --watch` running where a device can be watched, and hands its lines to the audit. It runs vendor code,
 * so it may crash (it is started again, each time later), hang (it is killed), or print rubbish (likewise, after a while). One
 * that the kernel does not let die is not followed by another. Threads: main.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct pen_daemon;

/* Which of the interfaces that penstock-probe knows can be watched. */
bool pen_watch_can(const char *api);
void pen_watch_begin(struct pen_daemon *d);        /* after discovery; nothing happens where there is nothing to watch */
void pen_watch_configure(struct pen_daemon *d);    /* the configuration was read again, or a device was released or taken back */
void pen_watch_second(struct pen_daemon *d);
void pen_watch_free(struct pen_daemon *d);
bool pen_watch_lives(struct pen_daemon *d);        /* a process that has the vendor's library, or one that was killed and is not gone yet */
bool pen_watch_is(const struct pen_daemon *d, pid_t pid);

struct pen_watch_status {
	bool runs;                /* it has spoken since it was started */
	uint64_t restarts;        /* since the daemon's start */
	uint64_t age_ns;          /* of the last reading; UINT64_MAX = there was none */
};
/* False: nothing is watched here. */
bool pen_watch_status(const struct pen_daemon *d, struct pen_watch_status *ret);

#endif
