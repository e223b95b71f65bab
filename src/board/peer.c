/* SPDX-License-Identifier: Apache-2.0 */
#include "board/peer.h"
#include "base/auto.h"
#include "board/feature.h"
#include "board/internal.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static int read_stat(pid_t pid, char *buf, size_t size)
{
	char path[40];
	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	else
		snprintf(path, sizeof(path), "/proc/self/stat");
	pen_auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	ssize_t n = read(fd, buf, size - 1);
	if (n <= 0)
		return n < 0 ? -errno : -ESRCH;
	buf[n] = 0;
	return 0;
}

/* Digits at @p. Not strtoull: newer headers make it a symbol that older C libraries lack. Return: 1 there was a number. */
static int number_at(const char *p, uint64_t *ret)
{
	uint64_t n = 0;
	const char *from = p;
	for (; *p >= '0' && *p <= '9'; p++)
		n = n * 10 + (uint64_t)(*p - '0');
	*ret = n;
	return p > from;
}

int pen_peer_start_time(pid_t pid, uint64_t *ret_start_time)
{
	PEN_KEEP_ERRNO;
	char buf[1024];
	int r = read_stat(pid, buf, sizeof(buf));
	if (r < 0)
		return r;
	/* The name in field 2 may hold blanks and parentheses: count from the last one. */
	const char *p = strrchr(buf, ')');
	if (!p || p[1] != ' ' || !p[2])
		return -EPROTO;
	p += 2;
	char status = *p;
	uint64_t threads = 0, ticks;
	for (int field = 3; field < 22; field++) {
		p = strchr(p, ' ');
		if (!p)
			return -EPROTO;
		p++;
		if (field + 1 == 20 && !number_at(p, &threads))
			return -EPROTO;
	}
	/* A first thread that has ended is a zombie for as long as the others run: the process lives. */
	if (status == 'X' || (status == 'Z' && threads <= 1))
		return -ESRCH;
	if (!number_at(p, &ticks))
		return -EPROTO;
	*ret_start_time = ticks;
	return 0;
}

/* Return: a pidfd (*@ret_exact 1: of the socket's peer beyond doubt); -ENOTSUP the kernel has none; -ESRCH dead. */
static int peer_pidfd(int sock, pid_t pid, unsigned try_exact, uint32_t *ret_exact)
{
	int fd = -1;
	socklen_t len = sizeof(fd);
	errno = ENOPROTOOPT;
	if (try_exact && getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &fd, &len) == 0) {
		*ret_exact = 1;
		return fd >= 0 ? fd : -ESRCH;
	}
	/* Reaped already: EINVAL from 6.5 on, ESRCH or ENODATA later. ENOPROTOOPT (old kernel): go on. */
	if (errno == EINVAL || errno == ESRCH || errno == ENODATA)
		return -ESRCH;
	if (pid <= 0)
		return -ENOTSUP;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd >= 0)
		return fd;
	return errno == ESRCH || errno == EINVAL ? -ESRCH : -ENOTSUP;
}

int pen_peer_identify_(int sock, unsigned features, struct pen_peer *ret, struct pen_err *err)
{
	PEN_KEEP_ERRNO;
	struct pen_peer peer = PEN_PEER_INIT;
	struct ucred cred;
	socklen_t len = sizeof(cred);
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return pen_err_sys(err, -errno, "who is at the other end of an attach connection");
	pen_auto_close int pidfd = -1;
	if (features & (PEN_FEATURE_PEERPIDFD | PEN_FEATURE_PIDFD_OPEN))
		pidfd = peer_pidfd(sock, cred.pid, features & PEN_FEATURE_PEERPIDFD, &peer.exact);
	if (pidfd == -ESRCH)
		return pen_err_x(err, -ESRCH, "process %d ended while it attached", (int)cred.pid);

	peer.pid = cred.pid;
	peer.uid = cred.uid;
	peer.gid = cred.gid;
	if (peer.pid > 0) {
		int r = pen_peer_start_time(peer.pid, &peer.start_time);
		if (r == -ESRCH)
			return pen_err_x(err, -ESRCH, "process %d ended while it attached", (int)cred.pid);
	}
	/* The start time was read by number: it is that of the process pinned only if that one still lives now. */
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	if (pidfd >= 0 && poll(&p, 1, 0) > 0)
		return pen_err_x(err, -ESRCH, "process %d ended while it attached", (int)cred.pid);
	peer.pidfd = pidfd >= 0 ? PEN_TAKE_FD(pidfd) : -1;
	*ret = peer;
	return 0;
}

int pen_peer_identify(int sock, struct pen_peer *ret, struct pen_err *err)
{
	return pen_peer_identify_(sock, PEN_FEATURE_PEERPIDFD | PEN_FEATURE_PIDFD_OPEN, ret, err);
}

int pen_peer_check_start(const struct pen_peer *peer, uint64_t start_time)
{
	if (peer->exact)
		return 0;
	return start_time && start_time == peer->start_time ? 0 : -EACCES;
}

bool pen_peer_alive(const struct pen_peer *peer)
{
	PEN_KEEP_ERRNO;
	if (peer->pidfd >= 0) {
		struct pollfd p = { .fd = peer->pidfd, .events = POLLIN };
		return poll(&p, 1, 0) == 0;
	}
	uint64_t now;
	return peer->pid > 0 && pen_peer_start_time(peer->pid, &now) == 0 && now == peer->start_time;
}

void pen_peer_finish(struct pen_peer *peer)
{
	PEN_KEEP_ERRNO;
	if (peer->pidfd >= 0)
		close(peer->pidfd);
	peer->pidfd = -1;
}
