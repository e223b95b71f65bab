/* SPDX-License-Identifier: Apache-2.0 */
#include "base/driverfile.h"
#include "base/auto.h"
#include "base/mounts.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define MULTIARCH "x86_64-linux-gnu"
#define MACHINE EM_X86_64
#elif defined(__aarch64__)
#define MULTIARCH "aarch64-linux-gnu"
#define MACHINE EM_AARCH64
#else   /* no driver is known there */
#define MULTIARCH "linux-gnu"
#define MACHINE EM_NONE
#endif

#define HEADERS_MAX 64u
#define NOTES_MAX 4096u

static const char *const folders[] = {
	"/usr/lib/" MULTIARCH,
	"/lib/" MULTIARCH,
	"/usr/lib64",
	"/lib64",
	"/usr/lib",
	"/usr/lib/wsl/lib",
	PEN_NVIDIA_MOUNT,
	"/usr/lib/" MULTIARCH "/nvidia/current",
	"/usr/lib/" MULTIARCH "/nvidia",
	"/usr/lib/" MULTIARCH "/tegra",
	"/run/opengl-driver/lib",
};

static bool notes_are_ours(const unsigned char *notes, size_t n)
{
	for (size_t at = 0; at + sizeof(Elf64_Nhdr) <= n;) {
		Elf64_Nhdr h;
		memcpy(&h, notes + at, sizeof(h));
		at += sizeof(h);
		if (h.n_namesz > n - at)
			return false;
		if (h.n_namesz == sizeof(PEN_DRIVERFILE_NOTE) && !memcmp(notes + at, PEN_DRIVERFILE_NOTE, sizeof(PEN_DRIVERFILE_NOTE)))
			return true;
		uint64_t step = ((uint64_t)h.n_namesz + 3) / 4 * 4 + ((uint64_t)h.n_descsz + 3) / 4 * 4;
		if (step > n - at)
			return false;
		at += (size_t)step;
	}
	return false;
}

enum file_kind { NO_LIBRARY, OURS, OTHERS };

static enum file_kind kind_of(const char *path)
{
	pen_auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	Elf64_Ehdr e;
	/* fstat() by its number: the library's own has the version GLIBC_2.33 when built on a newer system. */
	if (fd < 0 || syscall(SYS_fstat, fd, &st) < 0 || !S_ISREG(st.st_mode))
		return NO_LIBRARY;
	if (pread(fd, &e, sizeof(e), 0) != sizeof(e) || memcmp(e.e_ident, ELFMAG, SELFMAG) || e.e_ident[EI_CLASS] != ELFCLASS64 ||
	    e.e_machine != MACHINE || e.e_type != ET_DYN || e.e_phentsize != sizeof(Elf64_Phdr))
		return NO_LIBRARY;
	for (uint32_t i = 0; i < PEN_MIN((uint32_t)e.e_phnum, HEADERS_MAX); i++) {
		Elf64_Phdr p;
		unsigned char notes[NOTES_MAX];
		if (pread(fd, &p, sizeof(p), (off_t)(e.e_phoff + i * sizeof(p))) != sizeof(p))
			return NO_LIBRARY;
		if (p.p_type != PT_NOTE)
			continue;
		ssize_t got = pread(fd, notes, PEN_MIN(p.p_filesz, (uint64_t)NOTES_MAX), (off_t)p.p_offset);
		if (got > 0 && notes_are_ours(notes, (size_t)got))
			return OURS;
	}
	return OTHERS;
}

bool pen_driverfile_may_be(const char *path)
{
	return kind_of(path) == OTHERS;
}

bool pen_driverfile_is_ours(const char *path)
{
	return kind_of(path) == OURS;
}

struct search {
	const char *soname;
	bool (*take)(void *arg, const char *path);
	void *arg;
};

static bool try(const struct search *s, const char *folder, size_t len, const char *name)
{
	char path[PATH_MAX];
	if (len + strlen(name) + 2 > sizeof(path))
		return false;
	snprintf(path, sizeof(path), "%.*s/%s", (int)len, folder, name);
	return pen_driverfile_may_be(path) && s->take(s->arg, path);
}

static bool plain_in(const struct search *s, const char *folder, size_t len)
{
	return try(s, folder, len, s->soname);
}

/* libcuda.so.535.183.01 of libcuda.so.1: a name of numbers that is longer than a SONAME. */
static bool is_full_version(const char *soname, const char *name)
{
	const char *dot = strrchr(soname, '.');
	size_t stem = dot ? (size_t)(dot - soname) + 1 : 0;
	if (!stem || strncmp(name, soname, stem))
		return false;
	const char *version = name + stem;
	return strchr(version, '.') && version[strspn(version, "0123456789.")] == 0;
}

static bool full_in(const struct search *s, const char *folder, size_t len)
{
	char path[PATH_MAX];
	bool taken = false;
	if (len + 1 > sizeof(path))
		return false;
	memcpy(path, folder, len);
	path[len] = 0;
	DIR *dir = opendir(path);
	for (struct dirent *e; dir && !taken && (e = readdir(dir)) != NULL;)
		taken = is_full_version(s->soname, e->d_name) && try(s, folder, len, e->d_name);
	if (dir)
		closedir(dir);
	return taken;
}

static bool everywhere(const struct search *s, const char *list, bool (*in)(const struct search *s, const char *folder, size_t len))
{
	for (const char *at = list; at && *at;) {
		size_t len = strcspn(at, ":;");
		/* The loader's own words ($ORIGIN, $LIB) and relative folders are left out: no file of ours is known by them. */
		if (len && *at == '/' && !memchr(at, '$', len) && in(s, at, len))
			return true;
		at += len + (at[len] != 0);
	}
	for (size_t i = 0; i < PEN_ARRAY_LEN(folders); i++)
		if (in(s, folders[i], strlen(folders[i])))
			return true;
	return false;
}

bool pen_driverfile_each(const char *soname, const char *list, bool (*take)(void *arg, const char *path), void *arg)
{
	struct search s = { soname, take, arg };
	int saved = errno;
	bool taken = everywhere(&s, list, plain_in) || everywhere(&s, list, full_in);
	errno = saved;
	return taken;
}

static bool take_first(void *arg, const char *path)
{
	snprintf(arg, PATH_MAX, "%s", path);
	return true;
}

bool pen_driverfile_first(const char *soname, const char *list, char *buf)
{
	return pen_driverfile_each(soname, list, take_first, buf);
}
