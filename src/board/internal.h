/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BOARD_INTERNAL_H
#define PEN_BOARD_INTERNAL_H
/* Inside src/board and its tests only. */
#include "base/err.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than some of the systems this is built on. Values: linux/fcntl.h, linux/memfd.h, asm-generic of Linux 6.5. */
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

static inline void pen_errno_restore_(const int *saved)
{
	errno = *saved;
}
/* First line of a function that runs in a tenant's process: the application's errno is what it was when we leave. */
#define PEN_KEEP_ERRNO int saved_errno_ __attribute__((cleanup(pen_errno_restore_), unused)) = errno

/*
 * fstat without the library: its fstat carries the version GLIBC_2.33 when built on a newer system. On the 64-bit machines
 * that Penstock supports the library's struct is the kernel's. Return: 0; -1 and errno.
 */
_Static_assert(sizeof(long) == 8, "64-bit struct stat");
static inline int pen_fstat_(int fd, struct stat *ret)
{
	return (int)syscall(SYS_fstat, fd, ret);
}

/* pen_page_seal_x for a kernel with or without F_SEAL_FUTURE_WRITE. */
int pen_page_seal_(int fd, int seals, int have_future_write, struct pen_err *err);

/* pen_peer_identify with some of PEN_FEATURE_PEERPIDFD and PEN_FEATURE_PIDFD_OPEN only. */
struct pen_peer;
int pen_peer_identify_(int sock, unsigned features, struct pen_peer *ret, struct pen_err *err);

/* attach_dir.c: moves @fd to a high number (@fd itself if there is none). */
int pen_fd_move_up_(int fd);
struct pen_attach;
/* Reads the token into @a. Return: 0; a negative errno. */
int pen_attach_token_(struct pen_attach *a);
/* Return: a connected non-blocking socket; a negative errno. */
int pen_attach_dial_(const char *dir);

#endif
