/* SPDX-License-Identifier: Apache-2.0 */
#include "board/feature.h"
#include "base/auto.h"
#include "board/internal.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define KNOWN (UINT32_C(1) << 31)

static uint32_t try_memfd(void)
{
	pen_auto_close int fd = memfd_create("penstock-try", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("penstock-try", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return 0;
	uint32_t have = PEN_FEATURE_MEMFD;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0)
		have |= PEN_FEATURE_FUTURE_WRITE;
	return have;
}

static uint32_t try_pidfd(void)
{
	uint32_t have = 0;
	pen_auto_close int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (pidfd >= 0)
		have |= PEN_FEATURE_PIDFD_OPEN;
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0) {
		int peer = -1;
		socklen_t len = sizeof(peer);
		if (getsockopt(pair[0], SOL_SOCKET, SO_PEERPIDFD, &peer, &len) == 0 && peer >= 0) {
			have |= PEN_FEATURE_PEERPIDFD;
			close(peer);
		}
		close(pair[0]);
		close(pair[1]);
	}
	return have;
}

static uint32_t try_wipe(void)
{
	struct pen_fork_flag f = { 0 };
	if (pen_fork_flag_create(&f) < 0)
		return 0;
	uint32_t have = f.wiped ? PEN_FEATURE_WIPEONFORK : 0;
	pen_fork_flag_destroy(&f);
	return have;
}

uint32_t pen_board_features(void)
{
	static _Atomic uint32_t cached;
	uint32_t have = atomic_load_explicit(&cached, memory_order_relaxed);
	if (!have) {
		PEN_KEEP_ERRNO;
		have = KNOWN | try_memfd() | try_pidfd() | try_wipe();
		atomic_store_explicit(&cached, have, memory_order_relaxed);
	}
	return have & ~KNOWN;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

int pen_board_boot_id(uint8_t ret_id[16])
{
	PEN_KEEP_ERRNO;
	char text[37];
	pen_auto_close int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (read(fd, text, sizeof(text)) < (ssize_t)sizeof(text) - 1)
		return -EPROTO;
	uint8_t id[16];
	size_t at = 0;
	for (size_t i = 0; i < sizeof(id); i++) {
		if (text[at] == '-')
			at++;
		int hi = hex_digit(text[at]), lo = hi < 0 ? -1 : hex_digit(text[at + 1]);
		if (lo < 0)
			return -EPROTO;
		id[i] = (uint8_t)(hi << 4 | lo);
		at += 2;
	}
	memcpy(ret_id, id, sizeof(id));
	return 0;
}

int pen_fork_flag_create(struct pen_fork_flag *f)
{
	PEN_KEEP_ERRNO;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	f->wiped = madvise(p, page, MADV_WIPEONFORK) == 0;
	f->word = p;
	return 0;
}

void pen_fork_flag_destroy(struct pen_fork_flag *f)
{
	PEN_KEEP_ERRNO;
	if (f->word)
		munmap((void *)f->word, (size_t)sysconf(_SC_PAGESIZE));
	f->word = NULL;
}
