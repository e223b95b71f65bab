/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/child.h"

#include "base/auto.h"
#include "board/proto.h"
#include "daemon/model.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int spawn(struct pen_child *c, char *const argv[], int in, int out)
{
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	sigset_t none;
	posix_spawn_file_actions_init(&fa);
	if (in >= 0)
		posix_spawn_file_actions_adddup2(&fa, in, STDIN_FILENO);
	else
		posix_spawn_file_actions_addopen(&fa, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, out, STDOUT_FILENO);
	posix_spawnattr_init(&attr);
	sigemptyset(&none);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
	unsetenv("OPENCL_LAYERS");
	unsetenv(PEN_TENANT_ENV);
	int r = -posix_spawn(&c->pid, argv[0], &fa, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&fa);
	return r;
}

int pen_child_start(struct pen_child *ret, char *const argv[], bool fed)
{
	struct pen_child c = PEN_CHILD_INIT;
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pen_auto_close int out = ends[0], out_child = ends[1], in = -1, in_child = -1;
	if (fed && pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	if (fed) {
		in_child = ends[0];
		in = ends[1];
	}
	int r = spawn(&c, argv, in_child, out_child);
	if (r < 0)
		return r;
	fcntl(out, F_SETFL, O_NONBLOCK);
	c.out = PEN_TAKE_FD(out);
	c.in = PEN_TAKE_FD(in);
	*ret = c;
	return 0;
}

int pen_child_ended(struct pen_child *c, int *ret_status)
{
	siginfo_t info = { .si_pid = 0 };
	if (!c->pid || waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || !info.si_pid)
		return 0;
	kill(-c->pid, SIGKILL);   /* what it left behind; while it is not reaped the number is nobody else's */
	waitpid(c->pid, ret_status, 0);
	c->pid = 0;
	return 1;
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void pen_child_end(struct pen_daemon *d, struct pen_child *c)
{
	close_one(&c->in);
	close_one(&c->out);
	pid_t pid = c->pid;
	c->pid = 0;
	if (pid <= 0)
		return;
	kill(-pid, SIGKILL);
	kill(pid, SIGKILL);   /* if it has left its group */
	/* Most are gone in a moment; one that hangs in a driver's call is not. */
	for (unsigned i = 0; i < PEN_ARRAY_LEN(d->dying); i++)
		if (!d->dying[i]) {
			d->dying[i] = pid;
			break;
		}
	pen_child_reap(d);
}

unsigned pen_child_reap(struct pen_daemon *d)
{
	unsigned left = 0;
	for (unsigned i = 0; i < PEN_ARRAY_LEN(d->dying); i++) {
		if (d->dying[i] && waitpid(d->dying[i], NULL, WNOHANG) != 0)
			d->dying[i] = 0;
		left += d->dying[i] != 0;
	}
	return left;
}

void pen_child_finish(struct pen_daemon *d)
{
	for (unsigned i = 0; i < 100 && pen_child_reap(d); i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}
