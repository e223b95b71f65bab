/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a container of a tenant needs beside its image. One list for all who start containers, so that they agree.
 *
 * The tenant's directory is mounted and never its socket: a restarted daemon makes a new one, which a mount of the file would not
 * follow. Reading is enough to connect. Device nodes are those of the one device.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "board/proto.h"
#include "daemon/service_internal.h"

#include <dirent.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#define SHIMS_MOUNT "/run/penstock/lib"
#define OPENCL_LAYER "libpenstock-opencl.so"
/* Where images of NVIDIA look; behind ours, since setting the variable takes the image's own value away. */
#define NVIDIA_LIBRARIES "/usr/local/nvidia/lib:/usr/local/nvidia/lib64"

struct edits {
	struct pen_service_edit *v;
	size_t n, max;
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

/* Looked for once a second at most: a list of all tenants asks for each of them. NULL: nowhere. */
static const char *shims_of(const struct pen_daemon *d)
{
	struct pen_services *all = d->services;
	uint64_t now = pen_mono_ns();
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
	put(e, PEN_EDIT_MOUNT, SHIMS_MOUNT, dir);
	put(e, PEN_EDIT_ENV, "OPENCL_LAYERS", SHIMS_MOUNT "/" OPENCL_LAYER);
	if (dev && has_api(dev, "cuda"))
		put(e, PEN_EDIT_ENV, "LD_LIBRARY_PATH", SHIMS_MOUNT "/cuda:" NVIDIA_LIBRARIES);
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

size_t pen_service_edits(struct pen_service *s, const char *tenant, const char *device, struct pen_service_edit *ret, size_t max)
{
	struct edits e = { .v = ret, .max = max };
	const struct pen_tenant *t = pen_tenant_find(s->d, tenant);
	const struct pen_device *only = device ? pen_device_find(s->d, device) : NULL;
	char dir[sizeof(t->dir) + 32];
	if (t) {
		pen_tenant_seat_dir(t, dir, sizeof(dir));
		put(&e, PEN_EDIT_MOUNT, PEN_TENANT_MOUNT, dir);
	}
	if (t && !device)   /* also of a device that only a tenant will bring */
		put_shims(s->d, NULL, &e);
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++) {
		const struct pen_device *dev = s->d->device[i];
		if (!dev || (device ? dev != only : !t || !pen_contract_means(&t->contract, dev)))
			continue;
		put_shims(s->d, dev, &e);
		put_nodes(dev, &e);
	}
	return PEN_MIN(e.n, max);
}
