/* SPDX-License-Identifier: Apache-2.0 */
#include "simgpu/nvidia/cuda/share.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC 0x73696d73u
#define TAIL 4096

int sim_share_create(struct sim_share *share)
{
	int fd = memfd_create("simgpu-shared", MFD_CLOEXEC);

	share->magic = MAGIC;
	share->pid = getpid();
	if (fd < 0)
		return -1;
	if (ftruncate(fd, (off_t)(share->bytes + TAIL)) < 0 ||
	    pwrite(fd, share, sizeof(*share), (off_t)share->bytes) != sizeof(*share)) {
		close(fd);
		return -1;
	}
	return fd;
}

int sim_share_read(int fd, struct sim_share *ret)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size < TAIL ||
	    pread(fd, ret, sizeof(*ret), st.st_size - TAIL) != sizeof(*ret))
		return -EINVAL;
	return ret->magic == MAGIC && ret->bytes == (uint64_t)st.st_size - TAIL ? 0 : -EINVAL;
}

int sim_dup(int fd)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

int sim_fd_of(int pid, int fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	return open(path, O_RDWR | O_CLOEXEC);
}
