/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into penstockd by test_store.py: a disk that stalls. While the file named by PENSTOCK_SLOW_FSYNC is there,
 * every flush takes two seconds and leaves a line in it, so that the test can tell that one was under way.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int fsync(int fd);
int fdatasync(int fd);

static void stall(void)
{
	const char *path = getenv("PENSTOCK_SLOW_FSYNC");
	int fd = path ? open(path, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	ssize_t n = write(fd, "begin\n", 6);
	nanosleep(&(struct timespec){ .tv_sec = 2 }, NULL);
	n += write(fd, "end\n", 4);
	(void)n;
	close(fd);
}

__attribute__((visibility("default"))) int fsync(int fd)
{
	stall();
	return (int)syscall(SYS_fsync, fd);
}

__attribute__((visibility("default"))) int fdatasync(int fd)
{
	stall();
	return (int)syscall(SYS_fdatasync, fd);
}
