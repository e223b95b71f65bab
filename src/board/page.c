/* SPDX-License-Identifier: Apache-2.0 */
#include "board/page.h"
#include "base/auto.h"
#include "base/clock.h"
#include "board/feature.h"
#include "board/internal.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>

#define SEALS_SIZE (F_SEAL_SHRINK | F_SEAL_GROW)

static const struct {
	const char *name;
	uint32_t magic;
	uint32_t bytes;
} kinds[PEN_PAGE_KIND_MAX_] = {
#define X(id, name, magic, bytes) [PEN_PAGE_##id] = { name, magic, bytes },
	PEN_PAGE_KINDS(X)
#undef X
};

const char *pen_page_name(enum pen_page_kind kind)
{
	return (unsigned)kind < PEN_PAGE_KIND_MAX_ ? kinds[kind].name : "no page";
}

size_t pen_page_bytes(enum pen_page_kind kind)
{
	return (unsigned)kind < PEN_PAGE_KIND_MAX_ ? kinds[kind].bytes : 0;
}

/* ---- making and sealing ----------------------------------------------------------------------------------------- */

static int memfd(const char *name)
{
	/* Some systems refuse a memfd that could be executed (vm.memfd_noexec = 2); kernels before 6.3 do not know the flag. */
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? -errno : fd;
}

static int fill_head(struct pen_page_head *head, enum pen_page_kind kind, const struct pen_page_id *id)
{
	uint64_t instance = id->instance;
	while (!instance) {
		if (getrandom(&instance, sizeof(instance), 0) != (ssize_t)sizeof(instance))
			return errno == EINTR ? -EAGAIN : -errno;
	}
	head->magic = kinds[kind].magic;
	head->major = PEN_BOARD_MAJOR;
	head->minor = PEN_BOARD_MINOR;
	head->size_bytes = kinds[kind].bytes;
	head->slot = id->slot;
	memcpy(head->boot_id, id->boot_id, sizeof(head->boot_id));
	head->device_id = id->device_id;
	head->instance = instance;
	return 0;
}

int pen_page_create(enum pen_page_kind kind, const struct pen_page_id *id, int *ret_fd, void **ret_map,
		    struct pen_err *err)
{
	PEN_KEEP_ERRNO;
	if ((unsigned)kind >= PEN_PAGE_KIND_MAX_)
		return pen_err_x(err, -EINVAL, "no kind of board page has the number %d", (int)kind);
	char name[32];
	snprintf(name, sizeof(name), "penstock-%s", kinds[kind].name);
	pen_auto_close int fd = memfd(name);
	if (fd < 0)
		return pen_err_sys(err, fd, "create a %s page", kinds[kind].name);
	if (fchmod(fd, 0600) < 0 || ftruncate(fd, kinds[kind].bytes) < 0 || fcntl(fd, F_ADD_SEALS, SEALS_SIZE) < 0)
		return pen_err_sys(err, -errno, "set up a %s page", kinds[kind].name);

	void *map = NULL;   /* and stays so if it fails */
	int r = pen_page_map_rw(fd, kind, &map);
	if (!map)
		return pen_err_sys(err, r, "map a new %s page", kinds[kind].name);
	r = fill_head(map, kind, id);
	if (r < 0) {
		pen_page_unmap(map, kind);
		return pen_err_sys(err, r, "random number for a %s page", kinds[kind].name);
	}
	if (kind == PEN_PAGE_TERMS) {
		struct pen_terms_page *page = map;
		atomic_store_explicit(&page->epoch, pen_mono_ns() / PEN_US, memory_order_release);
	}
	*ret_fd = PEN_TAKE_FD(fd);
	*ret_map = map;
	return 0;
}

int pen_page_seal_(int fd, int seals, int have_future_write, struct pen_err *err)
{
	PEN_KEEP_ERRNO;
	if (!have_future_write)
		seals &= ~F_SEAL_FUTURE_WRITE;
	if (fcntl(fd, F_ADD_SEALS, seals | F_SEAL_SEAL) == 0)
		return 0;
	int r = -errno;
	/* A kernel that does not know the seal says EINVAL to the whole set. */
	if (r == -EINVAL && (seals & F_SEAL_FUTURE_WRITE))
		return pen_page_seal_(fd, seals, 0, err);
	int have = r == -EPERM ? fcntl(fd, F_GET_SEALS) : -1;
	if (have >= 0 && (have & seals) == seals)
		return 0;
	return pen_err_sys(err, r, "seal a board page");
}

int pen_page_seal_terms(int fd, struct pen_err *err)
{
	return pen_page_seal_(fd, SEALS_SIZE | F_SEAL_FUTURE_WRITE, 1, err);
}

int pen_page_seal_ledger(int fd, struct pen_err *err)
{
	return pen_page_seal_(fd, SEALS_SIZE, 1, err);
}

int pen_page_seal_signal(int fd, struct pen_err *err)
{
	return pen_page_seal_(fd, SEALS_SIZE | F_SEAL_FUTURE_WRITE, 1, err);
}

int pen_page_reopen_ro(int fd, int *ret_fd, struct pen_err *err)
{
	PEN_KEEP_ERRNO;
	char path[40];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int ro = open(path, O_RDONLY | O_CLOEXEC);
	if (ro < 0)
		return pen_err_sys(err, -errno, "open a board page again for reading");
	*ret_fd = ro;
	return 0;
}

/* ---- verifying -------------------------------------------------------------------------------------------------- */

int pen_page_check_head(const struct pen_page_head *head, enum pen_page_kind kind, const uint8_t *boot_id,
			struct pen_err *err)
{
	if ((unsigned)kind >= PEN_PAGE_KIND_MAX_)
		return pen_err_x(err, -EPROTO, "no kind of board page has the number %d", (int)kind);
	const char *name = kinds[kind].name;
	if (head->magic != kinds[kind].magic)
		return pen_err_x(err, -EPROTO, "not a %s page: its magic is %#x, should be %#x", name, head->magic,
				 kinds[kind].magic);
	if (head->major != PEN_BOARD_MAJOR)
		return pen_err_x(err, -EPROTO, "%s page of layout %u.%u; this build knows %d.x", name, head->major,
				 head->minor, PEN_BOARD_MAJOR);
	/* A newer minor version may have grown into the rest of its last page, never beyond: size is part of the major. */
	if (head->size_bytes != kinds[kind].bytes)
		return pen_err_x(err, -EPROTO, "%s page says it has %u bytes, should be %u", name, head->size_bytes,
				 kinds[kind].bytes);
	if (boot_id && memcmp(head->boot_id, boot_id, sizeof(head->boot_id)) != 0)
		return pen_err_x(err, -ESTALE, "%s page of another boot of this machine", name);
	return 0;
}

int pen_page_verify(int fd, enum pen_page_kind kind, const uint8_t *boot_id, unsigned flags,
		    struct pen_page_head *ret_head, struct pen_err *err)
{
	PEN_KEEP_ERRNO;
	if ((unsigned)kind >= PEN_PAGE_KIND_MAX_)
		return pen_err_x(err, -EPROTO, "no kind of board page has the number %d", (int)kind);
	const char *name = kinds[kind].name;
	if (fcntl(fd, F_GETFD) < 0)
		return pen_err_sys(err, -errno, "descriptor %d of a %s page", fd, name);
	/* Only shared-memory files have seals: pipes, sockets, devices and files on a stalled disk end here, unread. */
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	if (seals < 0 || pen_fstat_(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return pen_err_x(err, -EPROTO, "not a %s page: no memfd", name);
	if (st.st_size != (off_t)kinds[kind].bytes)
		return pen_err_x(err, -EPROTO, "not a %s page: %lld bytes, should be %u", name, (long long)st.st_size,
				 kinds[kind].bytes);
	int want = SEALS_SIZE;
	if ((flags & PEN_VERIFY_FINAL) && kind != PEN_PAGE_LEDGER && (pen_board_features() & PEN_FEATURE_FUTURE_WRITE))
		want |= F_SEAL_FUTURE_WRITE;
	if ((seals & want) != want)
		return pen_err_x(err, -EPERM, "%s page lacks a seal: has %#x, needs %#x", name, (unsigned)seals,
				 (unsigned)want);

	struct pen_page_head head;
	ssize_t n = pread(fd, &head, sizeof(head), 0);
	if (n != (ssize_t)sizeof(head))
		return pen_err_x(err, -EPROTO, "%s page cannot be read", name);
	int r = pen_page_check_head(&head, kind, boot_id, err);
	if (r < 0)
		return r;
	if (ret_head)
		*ret_head = head;
	return 0;
}

/* ---- mapping ---------------------------------------------------------------------------------------------------- */

static int map_page(int fd, enum pen_page_kind kind, int writable, void *at, void **ret_map)
{
	PEN_KEEP_ERRNO;
	if ((unsigned)kind >= PEN_PAGE_KIND_MAX_)
		return -EINVAL;
	void *p = mmap(at, kinds[kind].bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ,
		       MAP_SHARED | (at ? MAP_FIXED : 0), fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	/* A fork between the two calls gives the child a mapping that its fork flag keeps it from using. */
	if (writable)
		madvise(p, pen_page_stride(kind), MADV_DONTFORK);
	*ret_map = p;
	return 0;
}

int pen_page_map_ro(int fd, enum pen_page_kind kind, const void **ret_map)
{
	void *p = NULL;
	int r = map_page(fd, kind, 0, NULL, &p);
	if (r == 0)
		*ret_map = p;
	return r;
}

int pen_page_map_rw(int fd, enum pen_page_kind kind, void **ret_map)
{
	return map_page(fd, kind, 1, NULL, ret_map);
}

int pen_page_map_at(int fd, enum pen_page_kind kind, int writable, void *at)
{
	void *p;
	if (!at)
		return -EINVAL;
	return map_page(fd, kind, writable, at, &p);
}

void pen_page_unmap(const void *map, enum pen_page_kind kind)
{
	PEN_KEEP_ERRNO;
	if (map)
		munmap((void *)(uintptr_t)map, pen_page_bytes(kind));
}

size_t pen_page_stride(enum pen_page_kind kind)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	return (pen_page_bytes(kind) + page - 1) / page * page;
}

int pen_page_reserve(size_t bytes, void **ret_range)
{
	PEN_KEEP_ERRNO;
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	*ret_range = p;
	return 0;
}
