/* SPDX-License-Identifier: Apache-2.0 */
/* The client's descriptors, and what it finds in its tenant directory. */
#include "base/auto.h"
#include "board/attach.h"
#include "board/internal.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* Our descriptors stay out of the low numbers, which programs take for granted, and below the usual limit of 1024. */
#define FD_LOW 200

/* ---- descriptors ------------------------------------------------------------------------------------------------- */

int pen_fdid_note(struct pen_fdid *id, int fd)
{
	PEN_KEEP_ERRNO;
	struct stat st;
	if (pen_fstat_(fd, &st) < 0)
		return -errno;
	*id = (struct pen_fdid){ fd, st.st_dev, st.st_ino };
	return 0;
}

int pen_fdid_check(const struct pen_fdid *id)
{
	PEN_KEEP_ERRNO;
	struct stat st;
	if (id->fd < 0 || pen_fstat_(id->fd, &st) < 0)
		return -EBADF;
	return st.st_dev == id->dev && st.st_ino == id->ino ? 0 : -ESTALE;
}

void pen_fdid_close(struct pen_fdid *id)
{
	PEN_KEEP_ERRNO;
	if (pen_fdid_check(id) == 0)
		close(id->fd);
	id->fd = -1;
}

int pen_fd_move_up_(int fd)
{
	int high = fcntl(fd, F_DUPFD_CLOEXEC, FD_LOW);
	if (high < 0)
		return fd;
	close(fd);
	return high;
}

/* ---- the tenant directory ---------------------------------------------------------------------------------------- */

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int pen_attach_token_(struct pen_attach *a)
{
	char path[sizeof(a->dir) + 16], text[2 * PEN_TOKEN_BYTES];
	uint8_t token[PEN_TOKEN_BYTES];
	snprintf(path, sizeof(path), "%s/" PEN_TOKEN_FILE, a->dir);
	/* O_NONBLOCK: what lies there may be a pipe that somebody put to make us wait. */
	pen_auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	if (read(fd, text, sizeof(text)) != (ssize_t)sizeof(text))
		return -EPROTO;
	for (size_t i = 0; i < sizeof(token); i++) {
		int hi = hex_value(text[2 * i]), lo = hex_value(text[2 * i + 1]);
		if (hi < 0 || lo < 0)
			return -EPROTO;
		token[i] = (uint8_t)(hi << 4 | lo);
	}
	memcpy(a->token, token, sizeof(token));
	a->have_token = 1;
	return 0;
}

int pen_attach_dial_(const char *dir)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	pen_auto_close int dirfd = -1;
	int n = snprintf(to.sun_path, sizeof(to.sun_path), "%s/" PEN_ATTACH_SOCK, dir);
	if (n >= (int)sizeof(to.sun_path)) {
		dirfd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dirfd < 0)
			return -errno;
		snprintf(to.sun_path, sizeof(to.sun_path), "/proc/self/fd/%d/" PEN_ATTACH_SOCK, dirfd);
	}
	pen_auto_close int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock < 0)
		return -errno;
	/* EAGAIN: the daemon's backlog is full, which on a unix socket can only be tried again later. */
	if (connect(sock, (struct sockaddr *)&to, sizeof(to)) < 0)
		return -errno;
	return pen_fd_move_up_(PEN_TAKE_FD(sock));
}
