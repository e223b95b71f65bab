/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/inject.h"

#include "base/auto.h"
#include "base/driverfile.h"
#include "cli/cli.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* ---- OpenCL ------------------------------------------------------------------------------------------------------ */

static int set_layer(struct pen_err *err)
{
	static const char *const where[] = { "../lib/penstock/libpenstock-opencl.so",
					     "../shim/opencl/libpenstock-opencl.so", NULL };
	char layer[PATH_MAX], list[PATH_MAX * 2];
	if (pen_install_path(where, layer, sizeof(layer)) < 0)
		return pen_err_x(err, -ENOENT, _("the OpenCL layer was not found beside penstock"));
	/* First in the list: ocl-icd 2.3.1 cuts the variable at the first ':' and children then see the first only. */
	const char *old = getenv("OPENCL_LAYERS");
	if (old && *old && strcmp(old, layer))
		snprintf(list, sizeof(list), "%s:%s", layer, old);
	else
		snprintf(list, sizeof(list), "%s", layer);
	return setenv("OPENCL_LAYERS", list, 1) < 0 ? pen_err_sys(err, -errno, "OPENCL_LAYERS") : 0;
}

/* ---- CUDA -------------------------------------------------------------------------------------------------------- */

/* A folder of ours from a `penstock run` around this one: the shim would find the other copy in it, and pass it over. */
static bool has_ours(const char *folder, size_t len)
{
	static const char *const names[] = { "libcuda.so.1", "libnvidia-ml.so.1" };
	for (size_t i = 0; i < PEN_ARRAY_LEN(names); i++) {
		char path[PATH_MAX];
		if ((size_t)snprintf(path, sizeof(path), "%.*s/%s", (int)len, folder, names[i]) < sizeof(path) &&
		    pen_driverfile_is_ours(path))
			return true;
	}
	return false;
}

static int set_library_path(const char *folders, struct pen_err *err)
{
	const char *old = getenv("LD_LIBRARY_PATH");
	size_t room = strlen(folders) + (old ? strlen(old) : 0) + 2;
	pen_auto_free char *list = malloc(room);
	if (!list)
		return pen_err_sys(err, -ENOMEM, "LD_LIBRARY_PATH");
	size_t n = (size_t)snprintf(list, room, "%s", folders);
	/* An empty element is the current folder: kept where it was meant, never made. */
	for (const char *at = old; at && *old; at++) {
		size_t len = strcspn(at, ":");
		if (!len || !has_ours(at, len))
			n += (size_t)snprintf(list + n, room - n, ":%.*s", (int)len, at);
		at += len;
		if (!*at)
			break;
	}
	return setenv("LD_LIBRARY_PATH", list, 1) < 0 ? pen_err_sys(err, -errno, "LD_LIBRARY_PATH") : 0;
}

int pen_inject(const char *dir, struct pen_err *err)
{
	struct pen_cuda_paths cuda;
	int r = set_layer(err);
	if (r < 0)
		return r;
	pen_cuda_find(&cuda);
	if (*cuda.driver && !*cuda.shim)
		return pen_err_x(err, -ENOENT, _("this machine has a CUDA driver, but our libcuda.so.1 was not found beside penstock"));
	r = *cuda.folders ? set_library_path(cuda.folders, err) : 0;
	if (r == 0 && setenv("PENSTOCK_TENANT", dir, 1) < 0)
		r = pen_err_sys(err, -errno, "PENSTOCK_TENANT");
	return r;
}

/* ---- programs that none of this reaches ----------------------------------------------------------------------------- */

/* As execvp() finds it. False: it is not there, which whoever starts it will say. */
static bool find_program(const char *name, char *buf, size_t n)
{
	if (strchr(name, '/'))
		return (size_t)snprintf(buf, n, "%s", name) < n;
	const char *path = getenv("PATH");
	for (const char *at = path ? path : "/bin:/usr/bin"; *at;) {
		size_t len = strcspn(at, ":");
		if ((size_t)snprintf(buf, n, "%.*s%s%s", (int)len, at, len ? "/" : "", name) < n && access(buf, X_OK) == 0)
			return true;
		at += len + (at[len] != 0);
	}
	return false;
}

/* The kernel gives it more rights than its caller has, and the loader then reads none of our variables. */
static bool is_privileged(const char *path, const struct stat *st)
{
	if ((st->st_mode & S_ISUID) && st->st_uid != getuid())
		return true;
	if ((st->st_mode & S_ISGID) && (st->st_mode & S_IXGRP) && st->st_gid != getgid())
		return true;
	return getuid() != 0 && getxattr(path, "security.capability", NULL, 0) > 0;
}

/* An ELF file that names no loader. */
static bool is_static(int fd)
{
	Elf64_Ehdr e;
	if (pread(fd, &e, sizeof(e), 0) != sizeof(e) || memcmp(e.e_ident, ELFMAG, SELFMAG) ||
	    e.e_ident[EI_CLASS] != ELFCLASS64 || e.e_phentsize != sizeof(Elf64_Phdr))
		return false;
	for (unsigned i = 0; i < e.e_phnum; i++) {
		Elf64_Phdr p;
		if (pread(fd, &p, sizeof(p), (off_t)(e.e_phoff + i * sizeof(p))) != sizeof(p) || p.p_type == PT_INTERP)
			return false;
	}
	return e.e_phnum > 0;
}

enum pen_doubt pen_inject_doubt(const char *program)
{
	char path[PATH_MAX];
	struct stat st;
	if (!find_program(program, path, sizeof(path)) || stat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return PEN_DOUBT_NONE;
	if (is_privileged(path, &st))
		return PEN_DOUBT_PRIVILEGED;
	pen_auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return fd >= 0 && is_static(fd) ? PEN_DOUBT_STATIC : PEN_DOUBT_NONE;
}
