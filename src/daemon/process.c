/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/daemon.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

int pen_process_open(pid_t pid)
{
	long fd = syscall(SYS_pidfd_open, pid, 0);   /* close-on-exec by definition */
	return fd < 0 ? -errno : (int)fd;
}
