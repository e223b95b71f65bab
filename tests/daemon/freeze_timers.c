/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into penstockd by test_kubelet.py: while the file named by PENSTOCK_FREEZE is there, the event loop's waits have no end, so that
 * nothing happens because time has passed and everything because something has come.
 */
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((visibility("default"))) int epoll_wait(int fd, struct epoll_event *events, int n, int timeout)
{
	const char *path = getenv("PENSTOCK_FREEZE");
	if (timeout > 0 && path && access(path, F_OK) == 0)
		timeout = -1;
	return (int)syscall(SYS_epoll_pwait, fd, events, n, timeout, NULL, 8);
}
