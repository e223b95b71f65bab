/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into penstockd by tests: what it does to a disk, counted, and ended in the middle. PENSTOCK_DISK names a directory; what counts
 * is what is done to files below its "s" (state) and "r" (sockets and tokens). The file "disk" in it holds four 64-bit words:
 *
 *   0  operations so far: writes, changes of size, flushes, files made, renamed and deleted
 *   1  bytes written below "s"
 *   2  number of the operation in which the process is killed, a write after half of its bytes; 0 = none
 *   3  not 0: the disk is full (ENOSPC for writes below "s")
 */
#undef _FILE_OFFSET_BITS   /* both names of each function are wanted */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

struct words {
	_Atomic uint64_t ops, bytes, die_at, full;
};

static struct words none, *words = &none;
static char root[PATH_MAX];
static size_t root_len;

__attribute__((constructor)) static void begin(void)
{
	const char *dir = getenv("PENSTOCK_DISK");
	char path[PATH_MAX + 8];
	if (!dir)
		return;
	root_len = (size_t)snprintf(root, sizeof(root), "%s/", dir);
	snprintf(path, sizeof(path), "%sdisk", root);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*words), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p != MAP_FAILED)
		words = p;
}

/* 's', 'r', or 0: not one of those that count. */
static char kind_of(const char *path)
{
	if (!root_len || strncmp(path, root, root_len) || (path[root_len] != 's' && path[root_len] != 'r') || path[root_len + 1] != '/')
		return 0;
	return path[root_len];
}

static char kind_of_fd(int fd)
{
	char link[32], path[PATH_MAX];
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t n = root_len ? readlink(link, path, sizeof(path) - 1) : -1;
	if (n <= 0)
		return 0;
	path[n] = 0;
	return kind_of(path);
}

/* Is this the one in which it ends? */
static int count(char kind)
{
	return kind && atomic_fetch_add(&words->ops, 1) + 1 == atomic_load(&words->die_at);
}

static void die(void)
{
	for (;;)
		kill(getpid(), SIGKILL);
}

static ssize_t counted_write(int fd, const void *buf, size_t n, off_t at)
{
	char kind = kind_of_fd(fd);
	int last = count(kind);
	size_t part = last ? n / 2 : n;
	if (kind == 's' && atomic_load(&words->full)) {
		errno = ENOSPC;
		return -1;
	}
	ssize_t r = at < 0 ? syscall(SYS_write, fd, buf, part) : syscall(SYS_pwrite64, fd, buf, part, at);
	if (last)
		die();
	if (kind == 's' && r > 0)
		atomic_fetch_add(&words->bytes, (uint64_t)r);
	return r;
}

EXPORT ssize_t write(int fd, const void *buf, size_t n)
{
	return counted_write(fd, buf, n, -1);
}

EXPORT ssize_t pwrite(int fd, const void *buf, size_t n, off_t at)
{
	return counted_write(fd, buf, n, at);
}

EXPORT ssize_t pwrite64(int fd, const void *buf, size_t n, off_t at)
{
	return counted_write(fd, buf, n, at);
}

/* Before and not after: what comes after is the point before the next one. */
static void before(char kind)
{
	if (count(kind))
		die();
}

EXPORT int ftruncate(int fd, off_t size)
{
	before(kind_of_fd(fd));
	return (int)syscall(SYS_ftruncate, fd, size);
}

EXPORT int ftruncate64(int fd, off_t size)
{
	return ftruncate(fd, size);
}

EXPORT int fsync(int fd)
{
	before(kind_of_fd(fd));
	return (int)syscall(SYS_fsync, fd);
}

EXPORT int fdatasync(int fd)
{
	before(kind_of_fd(fd));
	return (int)syscall(SYS_fdatasync, fd);
}

EXPORT int unlink(const char *path)
{
	before(kind_of(path));
	return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

EXPORT int rmdir(const char *path)
{
	before(kind_of(path));
	return (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}

EXPORT int rename(const char *from, const char *to)
{
	before(kind_of(to));
	return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

EXPORT int link(const char *from, const char *to)
{
	before(kind_of(to));
	return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
}

EXPORT int mkdir(const char *path, mode_t mode)
{
	before(kind_of(path));
	return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}
