/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVIDIA devices by dlopen of libnvidia-ml.so.1.
 *
 * The key is the PCI address, as the CUDA shim and the OpenCL layer compute it (function always 0, as the driver interface has it),
 * so that one card has one key whatever library names it. MIG instances, and boards without an address (Tegra), go by UUID.
 *
 * Memory: what programs can have, total less what the driver keeps for itself. Drivers before 510 do not tell the latter: there the
 * whole card is reported, a few hundred MB too much.
 * Units: multiprocessors. Drivers before 510 do not tell the number of cores from which it follows: 0 then, but for MIG instances.
 */
#include "backend/nvml.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY "libnvidia-ml.so.1"
#define MIG_MAX 16   /* instances of one card; 7 in what exists */

static struct pen_nvml table;

struct symbol {
	const char *name;
	size_t at;
	bool needed;
};

static const struct symbol symbols[] = {
#define X(symbol) { #symbol, offsetof(struct pen_nvml, symbol), true },
	PEN_NVML_NEEDED(X)
#undef X
#define X(symbol) { #symbol, offsetof(struct pen_nvml, symbol), false },
	PEN_NVML_OPTIONAL(X) X(nvmlErrorString)
#undef X
};

int pen_nvml_load(const struct pen_nvml **ret, struct pen_err *err)
{
	/* Never closed: vendor libraries start threads and register exit handlers that do not survive dlclose. */
	void *lib = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (!lib)
		return pen_err_x(err, -ENOENT, "%s", dlerror());
	for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
		void *p = dlsym(lib, symbols[i].name);
		if (!p && symbols[i].needed)
			return pen_err_x(err, -ELIBBAD, "%s has no %s", LIBRARY, symbols[i].name);
		memcpy((char *)&table + symbols[i].at, &p, sizeof(p));
	}
	if (!table.nvmlInit_v2 && !table.nvmlInit)
		return pen_err_x(err, -ELIBBAD, "%s has no nvmlInit", LIBRARY);
	*ret = &table;
	return 0;
}

const char *pen_nvml_text(const struct pen_nvml *nv, nvmlReturn_t code)
{
	static char number[32];
	if (nv->nvmlErrorString)
		return nv->nvmlErrorString(code);
	snprintf(number, sizeof(number), "error %u", code);
	return number;
}

int pen_nvml_start(const struct pen_nvml *nv, struct pen_err *err)
{
	nvmlReturn_t r = nv->nvmlInit_v2 ? nv->nvmlInit_v2() : nv->nvmlInit();
	return r ? pen_err_x(err, -EIO, "nvmlInit: %s", pen_nvml_text(nv, r)) : 0;
}

void pen_nvml_stop(const struct pen_nvml *nv)
{
	if (nv->nvmlShutdown)
		nv->nvmlShutdown();
}

/* ---- keys --------------------------------------------------------------------------------------------------------- */

static bool find_address(const struct pen_nvml *nv, nvmlDevice_t d, struct pen_devkey_facts *f)
{
	nvmlPciInfo_t pci = { .domain = 0 };
	nvmlReturn_t r = nv->nvmlDeviceGetPciInfo_v3 ? nv->nvmlDeviceGetPciInfo_v3(d, &pci) :
			 nv->nvmlDeviceGetPciInfo_v2 ? nv->nvmlDeviceGetPciInfo_v2(d, &pci) :
			 nv->nvmlDeviceGetPciInfo ? nv->nvmlDeviceGetPciInfo(d, &pci) : NVML_ERROR_FUNCTION_NOT_FOUND;
	if (r)
		return false;
	f->has_pci = 1;
	f->pci_domain = pci.domain;
	f->pci_bus = pci.bus;
	f->pci_device = pci.device;
	return true;
}

static void make_key(const struct pen_nvml *nv, struct pen_nvml_device *d)
{
	char name[NVML_DEVICE_UUID_V2_BUFFER_SIZE] = "";
	struct pen_devkey_facts f = { .api = "cuda", .platform = "NVIDIA CUDA", .name = name };
	/* That of an instance before driver 470, MIG-GPU-uuid/1/0, is none: it goes by the text. */
	if (nv->nvmlDeviceGetUUID && nv->nvmlDeviceGetUUID(d->handle, name, sizeof(name)) == NVML_SUCCESS)
		f.has_uuid = pen_devkey_uuid(name, f.uuid);
	if (!d->is_instance)
		find_address(nv, d->handle, &f);
	pen_devkey(d->key, &f);
}

/* ---- devices ------------------------------------------------------------------------------------------------------- */

static bool mig_is_on(const struct pen_nvml *nv, nvmlDevice_t card)
{
	unsigned int current = NVML_DEVICE_MIG_DISABLE, pending;
	return nv->nvmlDeviceGetMigMode && nv->nvmlDeviceGetMigDeviceHandleByIndex &&
	       nv->nvmlDeviceGetMigMode(card, &current, &pending) == NVML_SUCCESS && current == NVML_DEVICE_MIG_ENABLE;
}

/* A card that is cut cannot be used but by its instances; one that is to be cut and is not yet has none. */
static size_t add_instances(const struct pen_nvml *nv, nvmlDevice_t card, struct pen_nvml_device *v, size_t room)
{
	unsigned int most = 0;
	size_t n = 0;
	if (!nv->nvmlDeviceGetMaxMigDeviceCount || nv->nvmlDeviceGetMaxMigDeviceCount(card, &most))
		most = MIG_MAX;
	for (unsigned int i = 0; i < most && i < MIG_MAX && n < room; i++) {
		struct pen_nvml_device d = { .card = card, .is_instance = true };
		if (nv->nvmlDeviceGetMigDeviceHandleByIndex(card, i, &d.handle))
			continue;
		make_key(nv, &d);
		v[n++] = d;
	}
	return n;
}

int pen_nvml_devices(const struct pen_nvml *nv, struct pen_nvml_device *v, size_t room, struct pen_err *err)
{
	unsigned int count = 0;
	nvmlReturn_t r = nv->nvmlDeviceGetCount_v2(&count);
	if (r)
		return pen_err_x(err, -EIO, "nvmlDeviceGetCount: %s", pen_nvml_text(nv, r));
	size_t n = 0;
	for (unsigned int i = 0; i < count && n < room; i++) {
		struct pen_nvml_device d = { .handle = NULL };
		if (nv->nvmlDeviceGetHandleByIndex_v2(i, &d.handle))
			continue;   /* lost, or not for this user */
		d.card = d.handle;
		if (mig_is_on(nv, d.handle)) {
			n += add_instances(nv, d.handle, v + n, room - n);
			continue;
		}
		make_key(nv, &d);
		v[n++] = d;
	}
	return (int)n;
}

nvmlReturn_t pen_nvml_memory(const struct pen_nvml *nv, nvmlDevice_t d, struct pen_nvml_memory *ret)
{
	nvmlMemory_v2_t two = { .version = PEN_NV_VERSION(nvmlMemory_v2_t, 2) };
	if (nv->nvmlDeviceGetMemoryInfo_v2 && nv->nvmlDeviceGetMemoryInfo_v2(d, &two) == NVML_SUCCESS) {
		/* Whether used counts what is reserved differs by driver: total is the sum of all three where it does not. */
		bool counts_it = two.used >= two.reserved && two.used + two.free + two.reserved > two.total;
		*ret = (struct pen_nvml_memory){ .total_bytes = two.total, .reserved_bytes = two.reserved,
						 .used_bytes = counts_it ? two.used - two.reserved : two.used };
		return NVML_SUCCESS;
	}
	nvmlMemory_t one = { 0 };
	nvmlReturn_t r = nv->nvmlDeviceGetMemoryInfo(d, &one);
	if (!r)
		*ret = (struct pen_nvml_memory){ .total_bytes = one.total, .used_bytes = one.used };
	return r;
}

static uint32_t count_units(const struct pen_nvml *nv, const struct pen_nvml_device *d)
{
	nvmlDeviceAttributes_t a = { 0 };
	int major = 0, minor = 0;
	unsigned int cores = 0;
	if (d->is_instance)
		return nv->nvmlDeviceGetAttributes_v2 && !nv->nvmlDeviceGetAttributes_v2(d->handle, &a) ? a.multiprocessorCount : 0;
	if (!nv->nvmlDeviceGetNumGpuCores || !nv->nvmlDeviceGetCudaComputeCapability ||
	    nv->nvmlDeviceGetNumGpuCores(d->handle, &cores) ||
	    nv->nvmlDeviceGetCudaComputeCapability(d->handle, &major, &minor))
		return 0;
	unsigned int lanes = pen_nv_lanes(major, minor);
	return lanes ? cores / lanes : 0;
}

static void describe(const struct pen_nvml *nv, const struct pen_nvml_device *d, const char *driver, struct pen_backend_device *ret)
{
	struct pen_nvml_memory m = { 0 };
	memset(ret, 0, sizeof(*ret));
	snprintf(ret->key, sizeof(ret->key), "%s", d->key);
	snprintf(ret->platform, sizeof(ret->platform), "NVIDIA CUDA");
	snprintf(ret->driver, sizeof(ret->driver), "%s", driver);
	if (nv->nvmlDeviceGetName(d->handle, ret->model, sizeof(ret->model)))
		snprintf(ret->model, sizeof(ret->model), "NVIDIA device");
	if (!pen_nvml_memory(nv, d->handle, &m) && m.total_bytes > m.reserved_bytes)
		ret->mem_bytes = m.total_bytes - m.reserved_bytes;
	ret->units = count_units(nv, d);
}

static int read_hex(const char *folder, const char *device, const char *file, unsigned *ret)
{
	char path[512];
	snprintf(path, sizeof(path), "%s/%s/%s", folder, device, file);
	FILE *f = fopen(path, "re");
	int fields = f ? fscanf(f, "%x", ret) : 0;
	if (f)
		fclose(f);
	return fields == 1 ? 0 : -EIO;
}

/* Address of an NVIDIA display or 3D controller; needs no driver. Return: 0; -ENOENT. */
static int find_card(const char *folder, char *buf, size_t n)
{
	DIR *dir = opendir(folder);
	bool found = false;
	for (struct dirent *e; dir && !found && (e = readdir(dir)) != NULL;) {
		unsigned vendor = 0, class = 0;
		if (read_hex(folder, e->d_name, "vendor", &vendor) == 0 && read_hex(folder, e->d_name, "class", &class) == 0)
			found = vendor == 0x10de && class >> 16 == 0x03;
		if (found)
			snprintf(buf, n, "%.20s", e->d_name);
	}
	if (dir)
		closedir(dir);
	return found ? 0 : -ENOENT;
}

static int discover(struct pen_backend_device *v, size_t room, struct pen_err *err)
{
	struct pen_nvml_device found[PEN_BACKEND_DEVICES_MAX];
	char driver[NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE] = "";
	const struct pen_nvml *nv;
	int r = pen_nvml_load(&nv, err);
	char card[24];
	const char *pci = getenv("PENSTOCK_PROBE_PCI");   /* for tests */
	if (r == -ENOENT && find_card(pci ? pci : "/sys/bus/pci/devices", card, sizeof(card)) == 0)
		return pen_err_x(err, -ENXIO, "an NVIDIA card is at %s, but its driver is not installed, or not in this container (%s)", card,
				 LIBRARY);
	if (r == 0)
		r = pen_nvml_start(nv, err);
	if (r < 0)
		return r;
	if (nv->nvmlSystemGetDriverVersion && nv->nvmlSystemGetDriverVersion(driver, sizeof(driver)))
		driver[0] = 0;
	r = pen_nvml_devices(nv, found, room < PEN_BACKEND_DEVICES_MAX ? room : PEN_BACKEND_DEVICES_MAX, err);
	for (int i = 0; i < r; i++)
		describe(nv, &found[i], driver, &v[i]);
	pen_nvml_stop(nv);
	return r;
}

const struct pen_backend pen_backend_nvml = { .api = "cuda", .discover = discover };
