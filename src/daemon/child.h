/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_CHILD_H
#define PEN_DAEMON_CHILD_H
/*
 * Helper programs of the daemon that run vendor code: they may crash, hang in the kernel, and leave processes of their own.
 * Each is the leader of a process group, so that all of it ends, and none is waited for in a way that could block.
 * Threads: main.
 */
#include <stdbool.h>
#include <sys/types.h>

struct pen_daemon;

struct pen_child {
	pid_t pid;   /* 0 = none */
	int out;     /* its standard output, non-blocking; -1 = none */
	int in;      /* its standard input, which it reads to its end; -1 = it has none */
};
#define PEN_CHILD_INIT { .out = -1, .in = -1 }

/* Starts @argv[0]. No layer or shim of ours acts in it, whatever environment the daemon was started in. Return: 0; negative errno. */
int pen_child_start(struct pen_child *ret, char *const argv[], bool fed);
/*
 * Has it ended by itself? Return: 1 and *@ret_status as of waitpid(); 0 it lives. Call it when its output ended, and a little
 * later again: a process closes its descriptors some time before it is gone.
 */
int pen_child_ended(struct pen_child *c, int *ret_status);
/* Ends it and closes what is open. What the kernel does not let die at once is kept until it does. */
void pen_child_end(struct pen_daemon *d, struct pen_child *c);
/* Those kept: once a second. Return: how many are left. */
unsigned pen_child_reap(struct pen_daemon *d);
/* At the end of the daemon: waits for them, a tenth of a second at most. */
void pen_child_finish(struct pen_daemon *d);

#endif
