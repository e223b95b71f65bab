/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BOARD_PEER_H
#define PEN_BOARD_PEER_H
/*
 * Who is at the other end of an attach connection, and does it still live. For the daemon; any thread.
 *
 * SO_PEERPIDFD (6.5) names the process beyond doubt. Before: SO_PEERCRED gives a number that may have been re-used since
 * connect; pidfd_open (5.3) pins whoever has it now, and the start time that the client sent must be that of the process pinned.
 * Before 5.3 there is no descriptor: the daemon looks at /proc/PID/stat (pen_peer_alive) every 100 ms.
 */
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct pen_peer {
	pid_t pid;             /* in the caller's pid namespace; 0 = not visible from it */
	uid_t uid;
	gid_t gid;
	int pidfd;             /* readable when the process is dead; -1 = the kernel has none. Owned: pen_peer_finish() */
	uint32_t exact;        /* 1: pidfd came from SO_PEERPIDFD, no doubt left */
	uint64_t start_time;   /* clock ticks since boot, field 22 of /proc/PID/stat; 0 = unknown */
};
#define PEN_PEER_INIT { .pidfd = -1 }

/* Return: 0; -ESRCH it is dead already; a negative errno. */
int pen_peer_identify(int sock, struct pen_peer *ret, struct pen_err *err);
/*
 * Is the process that says it started at @start_time (HELLO) the one identified? With SO_PEERPIDFD always; else the start
 * times must be equal. @start_time 0 = the client could not read it: believed only with SO_PEERPIDFD. Return: 0; -EACCES.
 */
int pen_peer_check_start(const struct pen_peer *peer, uint64_t start_time);
/* By the pidfd, else by /proc: false also when another process has the number now. A zombie is dead. */
bool pen_peer_alive(const struct pen_peer *peer);
void pen_peer_finish(struct pen_peer *peer);

/* Field 22 of /proc/PID/stat; @pid 0 = this process. Return: 0; -ESRCH gone or a zombie; -EPROTO; a negative errno. */
int pen_peer_start_time(pid_t pid, uint64_t *ret_start_time);

#endif
