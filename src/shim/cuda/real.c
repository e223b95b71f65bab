/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real driver: where it lies, its entry points, and where the trampolines lead from then on.
 *
 * Both libraries say libcuda.so.1, so the real one is opened by its path and asked through its own handle. It is looked for
 * where the loader would have found it without us: the rest of LD_LIBRARY_PATH, then the folders that vendors and container
 * runtimes use. Where our file lies over the driver's libcuda.so.1, the driver is beside it under its full version.
 * What is one of us (another build, a trimmed copy, ourselves) is known by a note in the file, and passed over: two copies that took
 * each other for the driver would call each other for ever.
 *
 * No lock is held while the driver is opened: another thread may hold the loader's lock and be about to call us. Threads
 * that come at the same time all open it, which the loader counts, and one of them writes the tables.
 */
#include "shim/cuda/cu.h"
#include "shim/cuda/table.h"

#include "base/auto.h"
#include "base/log.h"

#include <dirent.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct pen_cu_table pen_cu_real;
_Thread_local struct pen_cu_thread pen_cu_thread __attribute__((tls_model("initial-exec")));

static _Thread_local bool loading __attribute__((tls_model("initial-exec")));
static struct pen_forklock publish_lock = PEN_FORKLOCK_INIT;
static _Atomic uint32_t state;          /* 0 not loaded; 1 loaded; 2 there is no driver */
static _Atomic uint32_t locks_ready;    /* 0 no; 1 somebody is at it; 2 yes */
static _Atomic bool managed;
static _Atomic int driver_version;

/* ---- which file ------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define MULTIARCH "x86_64-linux-gnu"
#elif defined(__aarch64__)
#define MULTIARCH "aarch64-linux-gnu"
#endif

static const char *const folders[] = {
	"/usr/lib/" MULTIARCH,
	"/lib/" MULTIARCH,
	"/usr/lib64",
	"/lib64",
	"/usr/lib",
	"/usr/lib/wsl/lib",
	"/usr/local/nvidia/lib64",
	"/usr/lib/" MULTIARCH "/nvidia/current",
	"/usr/lib/" MULTIARCH "/nvidia",
	"/usr/lib/" MULTIARCH "/tegra",
	"/run/opengl-driver/lib",
};

#define NOTE_NAME "Penstock"
#define HEADERS_MAX 64u
#define NOTES_MAX 4096

/* One of us: the file has our note. */
static bool notes_are_ours(const unsigned char *notes, size_t n)
{
	for (size_t at = 0; at + sizeof(Elf64_Nhdr) <= n;) {
		Elf64_Nhdr h;
		memcpy(&h, notes + at, sizeof(h));
		at += sizeof(h);
		if (h.n_namesz > n - at)
			return false;
		if (h.n_namesz == sizeof(NOTE_NAME) && !memcmp(notes + at, NOTE_NAME, sizeof(NOTE_NAME)))
			return true;
		uint64_t step = ((uint64_t)h.n_namesz + 3) / 4 * 4 + ((uint64_t)h.n_descsz + 3) / 4 * 4;
		if (step > n - at)
			return false;
		at += (size_t)step;
	}
	return false;
}

/* fstat() by its number: the library's own has the version GLIBC_2.33 when built on a newer system. */
static int file_of(int fd, struct stat *ret)
{
	return (int)syscall(SYS_fstat, fd, ret);
}

/* A library of this architecture that is none of us. */
static bool may_be_driver(const char *path)
{
	pen_auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	Elf64_Ehdr e;
	if (fd < 0 || file_of(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return false;
	if (pread(fd, &e, sizeof(e), 0) != sizeof(e) || memcmp(e.e_ident, ELFMAG, SELFMAG) || e.e_ident[EI_CLASS] != ELFCLASS64 ||
	    e.e_phentsize != sizeof(Elf64_Phdr))
		return false;
	for (uint32_t i = 0; i < PEN_MIN((uint32_t)e.e_phnum, HEADERS_MAX); i++) {
		Elf64_Phdr p;
		unsigned char notes[NOTES_MAX];
		if (pread(fd, &p, sizeof(p), (off_t)(e.e_phoff + i * sizeof(p))) != sizeof(p))
			return false;
		if (p.p_type != PT_NOTE)
			continue;
		ssize_t got = pread(fd, notes, PEN_MIN(p.p_filesz, (uint64_t)NOTES_MAX), (off_t)p.p_offset);
		if (got > 0 && notes_are_ours(notes, (size_t)got))
			return false;
	}
	return true;
}

/* An address inside our own trampolines: what dlsym() of a library answers that needs libcuda.so.1 itself. */
static bool is_ours(const void *address)
{
	return (const char *)address >= pen_cu_stubs_begin && (const char *)address < pen_cu_stubs_end;
}

static void *open_driver(const char *path)
{
	if (!may_be_driver(path))
		return NULL;
	void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	void *init = handle ? dlsym(handle, "cuInit") : NULL;
	if (!init || is_ours(init)) {
		pen_log(PEN_LOG_DEBUG, "cuda: %s is not the driver", path);
		return NULL;   /* kept open: what it started may still run */
	}
	pen_log(PEN_LOG_DEBUG, "cuda: the driver is %s", path);
	return handle;
}

static void *open_in(const char *folder, size_t len, const char *name)
{
	char path[PATH_MAX];
	if (len + strlen(name) + 2 > sizeof(path))
		return NULL;
	snprintf(path, sizeof(path), "%.*s/%s", (int)len, folder, name);
	return open_driver(path);
}

static void *open_plain(const char *folder, size_t len)
{
	return open_in(folder, len, "libcuda.so.1");
}

/* libcuda.so.535.183.01: a name of numbers that is longer than a SONAME. */
static bool is_full_version(const char *name)
{
	static const char stem[] = "libcuda.so.";
	if (strncmp(name, stem, sizeof(stem) - 1))
		return false;
	const char *version = name + sizeof(stem) - 1;
	return strchr(version, '.') && version[strspn(version, "0123456789.")] == 0;
}

static void *open_full(const char *folder, size_t len)
{
	char path[PATH_MAX];
	if (len + 1 > sizeof(path))
		return NULL;
	memcpy(path, folder, len);
	path[len] = 0;
	DIR *dir = opendir(path);
	void *handle = NULL;
	for (struct dirent *e; dir && !handle && (e = readdir(dir)) != NULL;)
		if (is_full_version(e->d_name))
			handle = open_in(folder, len, e->d_name);
	if (dir)
		closedir(dir);
	return handle;
}

static void *search(void *(*open_one)(const char *folder, size_t len))
{
	void *handle = NULL;
	const char *list = secure_getenv("LD_LIBRARY_PATH");
	for (const char *at = list; at && *at && !handle;) {
		size_t len = strcspn(at, ":;");
		/* The loader's own words ($ORIGIN, $LIB) and relative folders are left out: no file of ours is known by them. */
		if (len && *at == '/' && !memchr(at, '$', len))
			handle = open_one(at, len);
		at += len + (at[len] != 0);
	}
	for (size_t i = 0; i < PEN_ARRAY_LEN(folders) && !handle; i++)
		handle = open_one(folders[i], strlen(folders[i]));
	return handle;
}

/* ---- once ---------------------------------------------------------------------------------------------------------- */

/* Locks need their page before threads meet at them. Short, without a call to the loader: waited for. */
static void prepare_locks(void)
{
	uint32_t seen = 0;
	if (atomic_compare_exchange_strong(&locks_ready, &seen, 1)) {
		pen_forklock_setup();
		atomic_store(&locks_ready, 2);
		pen_futex_wake(&locks_ready, INT_MAX);
		return;
	}
	/* Bounded: a child that was forked in between finds nobody at it. */
	for (int i = 0; i < 1000 && atomic_load(&locks_ready) != 2; i++)
		pen_futex_wait(&locks_ready, 1, UINT64_C(1000000));
}

static void publish(void *handle, const pen_cu_any_fn *real)
{
	pen_forklock_take(&publish_lock);
	if (!atomic_load(&state)) {
		bool hooks = pen_gate_managed() != PEN_UNMANAGED;
		memcpy(&pen_cu_real, real, sizeof(pen_cu_real));
		atomic_store(&managed, hooks);
		for (uint32_t i = 0; i < PEN_CU_ROWS; i++) {
			pen_cu_any_fn to = real[i];
			if (!to)
				to = (pen_cu_any_fn)(!handle && i == PEN_CU_ROW_cuInit ? pen_cu_no_device : pen_cu_not_found);
			else if (hooks && pen_cu_rows[i].hook)
				to = pen_cu_rows[i].hook;
			atomic_store_explicit(&pen_cu_to[i], to, memory_order_release);
		}
		atomic_store_explicit(&state, handle ? 1 : 2, memory_order_release);
		if (!handle)
			pen_log(PEN_LOG_DEBUG, "cuda: no driver library found");
	}
	pen_forklock_give(&publish_lock);
}

int pen_cu_load(void)
{
	uint32_t s = atomic_load_explicit(&state, memory_order_acquire);
	if (!s && loading)
		return -EBUSY;
	if (!s) {
		pen_cu_any_fn real[PEN_CU_ROWS] = { NULL };
		loading = true;
		prepare_locks();
		void *handle = search(open_plain);
		if (!handle)
			handle = search(open_full);
		for (uint32_t i = 0; handle && i < PEN_CU_ROWS; i++) {
			void *found = dlsym(handle, pen_cu_rows[i].symbol);
			if (found && !is_ours(found))
				memcpy(&real[i], &found, sizeof(found));
		}
		publish(handle, real);
		loading = false;
		s = atomic_load_explicit(&state, memory_order_acquire);
	}
	return s == 1 ? 0 : -ENOENT;
}

bool pen_cu_managed(void)
{
	return atomic_load_explicit(&managed, memory_order_relaxed);
}

int pen_cu_driver_version(void)
{
	int v = atomic_load_explicit(&driver_version, memory_order_relaxed);
	if (!v && REAL(cuDriverGetVersion) && REAL(cuDriverGetVersion)(&v) == CUDA_SUCCESS)
		atomic_store_explicit(&driver_version, v, memory_order_relaxed);
	return v;
}
