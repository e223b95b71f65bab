/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a container of a tenant needs beside its image. One list for all who start containers, so that they agree.
 *
 * The tenant's directory is mounted and never its socket: a restarted daemon makes a new one, which a mount of the file would not
 * follow. Reading is enough to connect. Device nodes are those of the one device.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/mounts.h"
#include "board/proto.h"
#include "daemon/driver_files.h"
#include "daemon/service_internal.h"

#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define OPENCL_LAYER "libpenstock-opencl.so"
#define NVIDIA_ICD "/etc/OpenCL/vendors/nvidia.icd"
#define NVIDIA_SMI "/usr/bin/nvidia-smi"

/* What was found last, and when; 0 = never. Looked for once a second at most: a list of all tenants asks for each of them. */
struct pen_container_found {
	char shims[PEN_CONFIG_PATH_MAX + 1];   /* "" = nowhere */
	uint64_t shims_ns;
	struct pen_driver_file driver[PEN_DRIVER_FILES_MAX];
	size_t ndriver;
	uint64_t driver_ns;
};

static struct pen_container_found *found(struct pen_daemon *d)
{
	if (!d->container)
		d->container = calloc(1, sizeof(*d->container));
	return d->container;
}

void pen_container_forget(struct pen_daemon *d)
{
	free(d->container);
	d->container = NULL;
}

struct edits {
	struct pen_service_edit *v;
	size_t n, max;
	bool vendor;             /* what is put from here on is */
};

/* One library folder and each variable once, however many devices there are: put() of what is there already is left out. */
static bool has(const struct edits *e, enum pen_edit_kind kind, const char *inside)
{
	for (size_t i = 0; i < e->n && i < e->max; i++)
		if (e->v[i].kind == kind && !strcmp(e->v[i].inside, inside))
			return true;
	return false;
}

static void put(struct edits *e, enum pen_edit_kind kind, const char *inside, const char *host)
{
	if (has(e, kind, inside))
		return;
	if (e->n < e->max) {
		struct pen_service_edit *v = &e->v[e->n];
		v->kind = kind;
		v->vendor = e->vendor;
		snprintf(v->inside, sizeof(v->inside), "%s", inside);
		snprintf(v->host, sizeof(v->host), "%s", host);
	}
	e->n++;
}

static bool is_dir(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static void put_node(struct edits *e, const char *path)
{
	struct stat st;
	if (stat(path, &st) == 0 && S_ISCHR(st.st_mode))
		put(e, PEN_EDIT_NODE, path, path);
}

/* lib/penstock beside the program: PREFIX/sbin/penstockd has PREFIX/lib/penstock. Return: false if it is not there. */
static bool shim_dir(const struct pen_daemon *d, char *buf, size_t n)
{
	if (d->cfg.shim_dir[0]) {
		snprintf(buf, n, "%s", d->cfg.shim_dir);
		return is_dir(buf);
	}
	char exe[PATH_MAX], path[PATH_MAX + 32], real[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (len <= 0)
		return false;
	exe[len] = 0;
	char *slash = strrchr(exe, '/');
	if (slash)
		*slash = 0;
	snprintf(path, sizeof(path), "%s/../lib/penstock", exe);
	if (!realpath(path, real) || strlen(real) >= n || !is_dir(real))
		return false;
	snprintf(buf, n, "%s", real);
	return true;
}

/* NULL: nowhere. */
static const char *shims_of(struct pen_daemon *d)
{
	struct pen_container_found *all = found(d);
	uint64_t now = pen_mono_ns();
	if (!all)
		return NULL;
	if (!all->shims_ns || now - all->shims_ns > PEN_S) {
		if (!shim_dir(d, all->shims, sizeof(all->shims)))
			all->shims[0] = 0;
		all->shims_ns = now;
	}
	return all->shims[0] ? all->shims : NULL;
}

static bool has_api(const struct pen_device *dev, const char *name)
{
	for (unsigned i = 0; i < dev->n_apis; i++)
		if (!strcmp(dev->api[i].name, name))
			return true;
	return false;
}

static void put_shims(struct pen_daemon *d, const struct pen_device *dev, struct edits *e)
{
	const char *dir = shims_of(d);
	if (!dir)
		return;
	put(e, PEN_EDIT_MOUNT, PEN_SHIMS_MOUNT, dir);
	put(e, PEN_EDIT_ENV, "OPENCL_LAYERS", PEN_SHIMS_MOUNT "/" OPENCL_LAYER);
	if (dev && has_api(dev, "cuda"))
		put(e, PEN_EDIT_ENV, "LD_LIBRARY_PATH", PEN_SHIMS_MOUNT "/cuda:" PEN_NVIDIA_LIBRARIES);
}

/* "Device Minor: 0" of the driver's page on the card. Return: the number; -1: no such page. */
static int nvidia_minor(const char *pci)
{
	char path[96], line[128];
	int minor = -1;
	snprintf(path, sizeof(path), "/proc/driver/nvidia/gpus/%.32s/information", pci);
	pen_auto_fclose FILE *f = fopen(path, "re");
	while (f && minor < 0 && fgets(line, sizeof(line), f))
		if (sscanf(line, "Device Minor: %d", &minor) != 1)
			minor = -1;
	return minor;
}

static void put_render_nodes(const char *pci, struct edits *e)
{
	char path[96], node[PATH_MAX];
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.32s/drm", pci);
	DIR *dir = opendir(path);
	const struct dirent *de;
	while (dir && (de = readdir(dir))) {
		if (strncmp(de->d_name, "renderD", 7))
			continue;
		snprintf(node, sizeof(node), "/dev/dri/%s", de->d_name);
		put_node(e, node);
	}
	if (dir)
		closedir(dir);
}

static const struct pen_driver_file *driver_of(struct pen_daemon *d, size_t *ret_n)
{
	struct pen_container_found *all = found(d);
	uint64_t now = pen_mono_ns();
	*ret_n = 0;
	if (!all)
		return NULL;
	if (!all->driver_ns || now - all->driver_ns > PEN_S) {
		all->ndriver = pen_driver_files(getenv("LD_LIBRARY_PATH"), all->driver, PEN_ARRAY_LEN(all->driver));
		all->driver_ns = now;
	}
	*ret_n = all->ndriver;
	return all->driver;
}

static void put_file(struct edits *e, const char *inside, const char *path)
{
	char real[PATH_MAX];
	if (realpath(path, real) && strlen(real) < sizeof(e->v->host))
		put(e, PEN_EDIT_MOUNT, inside, real);
}

/*
 * The driver's own files. By the names that programs ask for there are ours, so that whoever sets LD_LIBRARY_PATH to that folder alone, as
 * images of NVIDIA do, finds the shim; and the shim finds the driver, by its full version, beside it.
 */
static void put_driver(struct pen_daemon *d, struct edits *e)
{
	static const char *const ours[] = { "libcuda.so.1", "libnvidia-ml.so.1" };
	const char *dir = shims_of(d);
	size_t n;
	const struct pen_driver_file *f = driver_of(d, &n);
	char inside[sizeof(e->v->inside)], host[sizeof(e->v->host)];
	for (size_t i = 0; i < PEN_ARRAY_LEN(ours) && n && dir; i++) {
		snprintf(inside, sizeof(inside), PEN_NVIDIA_MOUNT "/%s", ours[i]);
		snprintf(host, sizeof(host), "%s/cuda/%s", dir, ours[i]);
		put_file(e, inside, host);
	}
	for (size_t i = 0; i < n; i++) {
		bool taken = false;
		for (size_t k = 0; k < PEN_ARRAY_LEN(ours); k++)
			taken |= !strcmp(f[i].name, ours[k]);
		/* A file without a version in its name gets one: the name that it has is ours there. */
		bool bare = taken && !strcmp(strrchr(f[i].path, '/') + 1, f[i].name);
		if (taken && !bare)
			continue;
		snprintf(inside, sizeof(inside), PEN_NVIDIA_MOUNT "/%s%s", f[i].name, bare ? ".0" : "");
		put_file(e, inside, f[i].path);
	}
	if (!n)
		return;
	put_file(e, NVIDIA_ICD, NVIDIA_ICD);
	put_file(e, NVIDIA_SMI, NVIDIA_SMI);
	/* Where NVIDIA's runtime is the engine's default it would pass all cards, as its images ask it to. */
	put(e, PEN_EDIT_ENV, "NVIDIA_VISIBLE_DEVICES", "void");
}

static void put_nodes(const struct pen_device *dev, struct edits *e)
{
	static const char *const common[] = { "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools" };
	if (strncmp(dev->key, "pci:", 4))
		return;
	const char *pci = dev->key + 4;
	int minor = nvidia_minor(pci);
	if (minor < 0) {
		put_render_nodes(pci, e);
		return;
	}
	char node[32];
	snprintf(node, sizeof(node), "/dev/nvidia%d", minor);
	put_node(e, node);
	for (size_t i = 0; i < PEN_ARRAY_LEN(common); i++)
		put_node(e, common[i]);
}

size_t pen_container_edits(struct pen_daemon *d, const struct pen_tenant *t, const char *device, struct pen_service_edit *ret, size_t max)
{
	struct edits e = { .v = ret, .max = max };
	const struct pen_device *only = device ? pen_device_find(d, device) : NULL;
	char dir[sizeof(t->dir) + 32];
	if (t) {
		pen_tenant_seat_dir(t, dir, sizeof(dir));
		put(&e, PEN_EDIT_MOUNT, PEN_TENANT_MOUNT, dir);
	}
	if (t && !device)   /* also of a device that only a tenant will bring */
		put_shims(d, NULL, &e);
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++) {
		const struct pen_device *dev = d->device[i];
		/* What a tenant says of a device opens nothing: the key may be another card's address, or a path to all of them. */
		if (!dev || dev->state == PEN_DEVICE_UNPROBED)
			continue;
		if (device ? dev != only : !t || !pen_contract_means(&t->contract, dev))
			continue;
		put_shims(d, dev, &e);
		e.vendor = true;
		put_nodes(dev, &e);
		if (has_api(dev, "cuda"))
			put_driver(d, &e);
		e.vendor = false;
	}
	return PEN_MIN(e.n, max);
}

size_t pen_service_edits(struct pen_service *s, const char *tenant, const char *device, struct pen_service_edit *ret, size_t max)
{
	return pen_container_edits(s->d, pen_tenant_find(s->d, tenant), device, ret, max);
}
