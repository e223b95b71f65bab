/* SPDX-License-Identifier: Apache-2.0 */
#include "base/auto.h"
#include "daemon/daemon.h"

#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int pen_process_open(pid_t pid)
{
	long fd = syscall(SYS_pidfd_open, pid, 0);   /* close-on-exec by definition */
	return fd < 0 ? -errno : (int)fd;
}

int pen_process_uid(pid_t pid, uid_t *ret_uid)
{
	char path[64], line[128];
	unsigned uid = 0;
	bool found = false;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	pen_auto_fclose FILE *f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof(line), f))
		found = sscanf(line, "Uid: %u", &uid) == 1;   /* the real one is first: who started it */
	if (!found)
		return -ESRCH;
	*ret_uid = uid;
	return 0;
}
