/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA driver of this machine, our library of its name, and the trimmed copy that suits the driver.
 *
 * Programs ask a library by dlsym() what it can do, so one that has more names than the driver would promise too much. A driver
 * that lacks names of ours gets a copy without them, made once per driver and kept below the user's runtime directory, since
 * only root may write beside the installed one. It is made in a folder of its own that is then renamed: whoever starts at
 * the same time finds a whole one or none.
 */
#include "base/auto.h"
#include "base/driverfile.h"
#include "cli/cli.h"
#include "cli/inject.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define DRIVER "libcuda.so.1"
#define VIEW "libnvidia-ml.so.1"

static const char *const untrimmed_text[] = {
#define X(id, text) text,
	PEN_UNTRIMMED(X)
#undef X
};

const char *pen_untrimmed_text(enum pen_untrimmed why)
{
	return *untrimmed_text[why] ? _(untrimmed_text[why]) : "";
}

static void find_ours(const char *const *where, char *buf)
{
	if (pen_install_path(where, buf, PATH_MAX) < 0)
		*buf = 0;
}

/* ---- the folder below the user's runtime directory --------------------------------------------------------------------- */

/* Ours alone: below /tmp anybody may have made it before us, and what lies in it is loaded into the user's programs. */
static bool own_folder(const char *path)
{
	struct stat st;
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return false;
	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 022);
}

/* The same place as a private daemon's. */
static bool cache_folder(char *buf, size_t n)
{
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	int len = xdg && *xdg == '/' ? snprintf(buf, n, "%s/penstock", xdg) : snprintf(buf, n, "/tmp/penstock-%u", (unsigned)getuid());
	if (len < 0 || (size_t)len + sizeof("/cuda") > n || !own_folder(buf))
		return false;
	strcpy(buf + len, "/cuda");
	return own_folder(buf);
}

/* FNV-1a of what tells one version of a file from another. */
static uint64_t mix(uint64_t h, uint64_t v)
{
	for (unsigned shift = 0; shift < 64; shift += 8)
		h = (h ^ (v >> shift & 0xff)) * UINT64_C(1099511628211);
	return h;
}

static bool mix_file(uint64_t *h, const char *path)
{
	struct stat st;
	if (!*path)
		return true;
	if (stat(path, &st) < 0)
		return false;
	const uint64_t v[] = { st.st_dev, st.st_ino, (uint64_t)st.st_size, (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec };
	for (size_t i = 0; i < PEN_ARRAY_LEN(v); i++)
		*h = mix(*h, v[i]);
	for (const char *c = path; *c; c++)
		*h = mix(*h, (unsigned char)*c);
	return true;
}

/* ---- trimming ---------------------------------------------------------------------------------------------------------- */

static int run_trim(const char *tool, const char *shim, const char *driver, const char *out)
{
	char *const argv[] = { (char *)(uintptr_t)tool, (char *)(uintptr_t)shim, (char *)(uintptr_t)driver, (char *)(uintptr_t)out, NULL };
	posix_spawn_file_actions_t fa;
	pid_t pid;
	int status;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&fa, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	int r = -posix_spawn(&pid, tool, &fa, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	if (r < 0)
		return r;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static void forget(const char *folder)
{
	static const char *const names[] = { DRIVER, "libcuda.so", VIEW, "libnvidia-ml.so" };
	char path[PATH_MAX + 32];
	for (size_t i = 0; i < PEN_ARRAY_LEN(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		unlink(path);
	}
	rmdir(folder);
}

static bool link_in(const char *folder, const char *name, const char *to)
{
	char path[PATH_MAX + 32];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return !*to || symlink(to, path) == 0;
}

/* Programs also open the names without a version, which would be the driver's own. */
static bool fill(const char *folder, const char *tool, const struct pen_cuda_paths *p)
{
	char out[PATH_MAX + 32];
	snprintf(out, sizeof(out), "%s/%s", folder, DRIVER);
	return run_trim(tool, p->shim, p->driver, out) == 0 && pen_driverfile_is_ours(out) && link_in(folder, "libcuda.so", DRIVER) &&
	       link_in(folder, VIEW, p->view) && link_in(folder, "libnvidia-ml.so", *p->view ? VIEW : "");
}

static enum pen_untrimmed trimmed(const struct pen_cuda_paths *p, char *folder, size_t n)
{
	static const char *const where[] = { "../libexec/penstock/penstock-cuda-trim", "../shim/cuda/penstock-cuda-trim", NULL };
	char cache[PATH_MAX - 64], tool[PATH_MAX], making[PATH_MAX];
	uint64_t h = UINT64_C(14695981039346656037);
	struct statvfs fs;
	if (pen_install_path(where, tool, sizeof(tool)) < 0)
		return PEN_UNTRIMMED_TOOL;
	if (!cache_folder(cache, sizeof(cache)))
		return PEN_UNTRIMMED_FOLDER;
	if (statvfs(cache, &fs) == 0 && (fs.f_flag & ST_NOEXEC))
		return PEN_UNTRIMMED_NOEXEC;
	if (!mix_file(&h, p->driver) || !mix_file(&h, p->shim) || !mix_file(&h, p->view) || !mix_file(&h, tool))
		return PEN_UNTRIMMED_FAILED;
	snprintf(folder, n, "%s/%016" PRIx64, cache, h);
	if (access(folder, F_OK) == 0)
		return own_folder(folder) ? PEN_UNTRIMMED_NO : PEN_UNTRIMMED_FOLDER;
	snprintf(making, sizeof(making), "%s/making-%d", cache, (int)getpid());
	forget(making);   /* of a process that had our number and was killed */
	if (!own_folder(making))
		return PEN_UNTRIMMED_FOLDER;
	if (fill(making, tool, p) && (rename(making, folder) == 0 || errno == EEXIST || errno == ENOTEMPTY)) {
		forget(making);   /* if somebody else was quicker */
		return PEN_UNTRIMMED_NO;
	}
	forget(making);
	return PEN_UNTRIMMED_FAILED;
}

/* ---- together ------------------------------------------------------------------------------------------------------------ */

static size_t folder_of(const char *file)
{
	const char *slash = strrchr(file, '/');
	return slash ? (size_t)(slash - file) : 0;
}

/* Where they are installed both lie in one folder; in the build tree each has its own. */
static void as_installed(struct pen_cuda_paths *p)
{
	size_t a = folder_of(p->shim), b = folder_of(p->view);
	if (!b || (a == b && !strncmp(p->shim, p->view, a)))
		snprintf(p->folders, sizeof(p->folders), "%.*s", (int)a, p->shim);
	else
		snprintf(p->folders, sizeof(p->folders), "%.*s:%.*s", (int)a, p->shim, (int)b, p->view);
}

void pen_cuda_find(struct pen_cuda_paths *ret)
{
	static const char *const shim[] = { "../lib/penstock/cuda/" DRIVER, "../shim/cuda/" DRIVER, NULL };
	static const char *const view[] = { "../lib/penstock/cuda/" VIEW, "../shim/nvml/" VIEW, NULL };
	memset(ret, 0, sizeof(*ret));
	if (!pen_driverfile_first(DRIVER, getenv("LD_LIBRARY_PATH"), ret->driver))
		return;
	find_ours(shim, ret->shim);
	find_ours(view, ret->view);
	if (!*ret->shim)
		return;
	ret->untrimmed = trimmed(ret, ret->folders, sizeof(ret->folders));
	if (ret->untrimmed)
		as_installed(ret);
}
