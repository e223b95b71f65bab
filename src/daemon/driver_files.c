/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/driver_files.h"

#include "base/auto.h"
#include "base/driverfile.h"

#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What NVIDIA's own container library passes as "compute", "utility" and "video" (libnvidia-container 1.17, src/nvc_info.c); no graphics. */
static const char *const stems[] = {
	"libcuda", "libcudadebugger", "libnvcuvid", "libnvidia-allocator", "libnvidia-cfg", "libnvidia-compiler", "libnvidia-encode",
	"libnvidia-fatbinaryloader", "libnvidia-gpucomp", "libnvidia-ml", "libnvidia-nvvm", "libnvidia-nvvm70", "libnvidia-opencl",
	"libnvidia-opticalflow", "libnvidia-pkcs11", "libnvidia-pkcs11-openssl3", "libnvidia-ptxjitcompiler",
};

struct found {
	struct pen_driver_file *v;
	size_t n, max;
	char version[64];        /* ".535.183.01"; "" = the library's name has none */
};

/* "libcuda.so.1" and "libcuda.so.535.183.01"; not "libcuda.so", which only compilers ask for. */
static bool is_wanted(const char *name)
{
	const char *so = strstr(name, ".so.");
	if (!so || !so[4] || so[4 + strspn(so + 4, "0123456789.")])
		return false;
	for (size_t i = 0; i < PEN_ARRAY_LEN(stems); i++)
		if (strlen(stems[i]) == (size_t)(so - name) && !strncmp(name, stems[i], (size_t)(so - name)))
			return true;
	return false;
}

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);
	return n >= m && !strcmp(text + n - m, end);
}

/* Another driver's libraries may lie beside it: kept for a rollback, or of a package that was not upgraded. */
static void take(struct found *f, const char *folder, const char *name)
{
	char path[PATH_MAX + 256], real[PATH_MAX];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	if (!is_wanted(name) || !realpath(path, real) || !ends_with(real, f->version) || !pen_driverfile_may_be(real))
		return;
	for (size_t i = 0; i < f->n; i++)
		if (!strcmp(f->v[i].name, name))
			return;
	if (f->n == f->max || strlen(name) >= sizeof(f->v->name) || strlen(real) >= sizeof(f->v->path))
		return;
	strcpy(f->v[f->n].name, name);
	strcpy(f->v[f->n++].path, real);
}

static void look_in(struct found *f, const char *folder)
{
	DIR *dir = opendir(folder);
	for (const struct dirent *e; dir && (e = readdir(dir));)
		take(f, folder, e->d_name);
	if (dir)
		closedir(dir);
}

static void cut_to_folder(char *path)
{
	char *slash = strrchr(path, '/');
	if (slash)
		slash[slash == path] = 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct pen_driver_file *)a)->name, ((const struct pen_driver_file *)b)->name);
}

size_t pen_driver_files(const char *list, struct pen_driver_file *ret, size_t max)
{
	struct found f = { .v = ret, .max = max };
	char folder[PATH_MAX], real[PATH_MAX];
	if (!pen_driverfile_first("libcuda.so.1", list, folder) || !realpath(folder, real))
		return 0;
	const char *so = strstr(strrchr(real, '/'), ".so.");
	if (so && strchr(so + 4, '.'))
		snprintf(f.version, sizeof(f.version), "%s", so + 3);
	/* Debian has the files in a folder of their own, and some links to them where the loader looks. */
	cut_to_folder(real);
	cut_to_folder(folder);
	look_in(&f, real);
	if (strcmp(folder, real))
		look_in(&f, folder);
	if (f.n)
		qsort(f.v, f.n, sizeof(*f.v), by_name);
	return f.n;
}
