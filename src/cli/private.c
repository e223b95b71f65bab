/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the parts of the installation, and starting the user's own daemon when no system daemon answers. */
#include "base/auto.h"
#include "cli/cli.h"
#include "contract/config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define READY_TIMEOUT_MS 20000   /* a cold machine with a slow disk; the daemon itself serves after some 10 ms */

int pen_install_path(const char *const *relative, char *buf, size_t n)
{
	char exe[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (len < 0)
		return -errno;
	exe[len] = 0;
	char *slash = strrchr(exe, '/');
	if (!slash)
		return -ENOENT;
	*slash = 0;
	for (; *relative; relative++) {
		char path[PATH_MAX + 128], real[PATH_MAX];
		snprintf(path, sizeof(path), "%s/%s", exe, *relative);
		if (!realpath(path, real))
			continue;
		return (size_t)snprintf(buf, n, "%s", real) < n ? 0 : -ENAMETOOLONG;
	}
	return -ENOENT;
}

/* Runs in the child between fork and exec: only async-signal-safe calls. */
static void become_daemon(const char *path, const char *runtime_dir, const char *socket, int ready_fd)
{
	char fd_text[16];
	setsid();
	int null = open("/dev/null", O_RDWR);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
	}
	/* stderr stays: what goes wrong at start must be seen by the person who typed the command. */
	snprintf(fd_text, sizeof(fd_text), "%d", ready_fd);
	execl(path, "penstockd", "--private", "--runtime-dir", runtime_dir, "--socket", socket, "--ready-fd", fd_text,
	      (char *)NULL);
	_exit(127);
}

int pen_private_start(const char *socket, struct pen_err *err)
{
	static const char *const where[] = { "penstockd", "../sbin/penstockd", "../daemon/penstockd", NULL };
	char path[PATH_MAX], dir[PATH_MAX];
	int r = pen_install_path(where, path, sizeof(path));
	if (r < 0)
		return pen_err_x(err, r, _("penstockd was not found beside penstock"));
	snprintf(dir, sizeof(dir), "%s", socket);
	char *slash = strrchr(dir, '/');
	if (!slash)
		return pen_err_x(err, -EINVAL, _("control socket '%s' is not an absolute path"), socket);
	*slash = 0;

	int ends[2];
	if (pipe(ends) < 0)
		return pen_err_sys(err, -errno, "pipe");
	pen_auto_close int rd = ends[0];
	pid_t child = fork();
	if (child == 0) {
		close(ends[0]);
		/* Twice, so that the daemon is no child of ours: a program that we become the parent of waits only for its own. */
		if (fork() == 0)
			become_daemon(path, dir, socket, ends[1]);
		_exit(0);
	}
	close(ends[1]);
	if (child < 0)
		return pen_err_sys(err, -errno, "fork");
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	struct pollfd p = { .fd = rd, .events = POLLIN };
	int n = poll(&p, 1, READY_TIMEOUT_MS);
	char byte;
	if (n <= 0)
		return pen_err_x(err, -ETIMEDOUT, _("the private daemon did not become ready"));
	if (read(rd, &byte, 1) != 1)
		return pen_err_x(err, -EIO, _("the private daemon ended at its start"));
	return byte == PEN_READY_BUSY ? -EBUSY : 0;
}
