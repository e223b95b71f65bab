/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices that this tenant may see. Those that the contract does not cover are not there; the others keep the library's order.
 *
 * The keys are those that the daemon's probe and the CUDA shim compute: the address, for MIG instances the UUID. A card that is cut is
 * shown if one of its instances is covered: programs reach them through it.
 */
#include "shim/nvml/nv.h"

#include "base/clock.h"
#include "base/lock.h"
#include "base/log.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIG_MAX 16
#define CUDA_SHIM "libcuda.so.1"

#define LOOK_AGAIN_NS UINT64_C(1000000000)   /* while nothing is covered: the daemon may have come meanwhile */

static struct pen_nv_device *devices[PEN_NV_DEVICES];   /* records are never freed: a hook may be using one */
static _Atomic uint32_t ndevices;
static _Atomic bool complete;           /* at least one is covered: it stays so */
static _Atomic uint32_t looking;        /* number of the process of which a thread looks for devices; 0 = none */
static _Atomic uint64_t looked_ns;
static _Thread_local bool inside __attribute__((tls_model("initial-exec")));
static const struct pen_gate_door *_Atomic the_door;

/* ---- the gate of this process ------------------------------------------------------------------------------------ */

/* Looks only, and never submits. */
static int no_code(enum pen_denial why)
{
	(void)why;
	return NVML_ERROR_NO_PERMISSION;
}

static const struct pen_adapter observer = {
	.abi = PEN_ADAPTER_ABI, .size = sizeof(observer), .name = "nvml", .caps = PEN_ADAPTER_OBSERVER, .oom_code = no_code,
};

struct own_file {
	uintptr_t address;
	char path[PATH_MAX];
};

static int find_own_file(struct dl_phdr_info *o, size_t size, void *arg)
{
	struct own_file *f = arg;
	(void)size;
	for (int i = 0; i < o->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &o->dlpi_phdr[i];
		if (p->p_type != PT_LOAD || f->address - (o->dlpi_addr + p->p_vaddr) >= p->p_memsz)
			continue;
		if (strlen(o->dlpi_name) < sizeof(f->path))
			strcpy(f->path, o->dlpi_name);
		return 1;
	}
	return 0;
}

/* A library's table, if it is the CUDA shim. */
static const struct pen_gate_door *door_of(const char *path)
{
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	void *found = lib ? dlsym(lib, "cuGetExportTable") : NULL;
	int (*ask)(const void **, const void *) = NULL;
	const void *table = NULL;
	memcpy(&ask, &found, sizeof(ask));
	if (!ask || ask(&table, PEN_GATE_DOOR_ID) || !table)
		return NULL;
	const struct pen_gate_door *door = table;
	return door->abi == PEN_GATE_DOOR_ABI && door->size >= offsetof(struct pen_gate_door, marker) ? door : NULL;   /* all that is used */
}

/* By its name: what the program has loaded, or would. Else what lies beside us. */
static const struct pen_gate_door *shared_door(void)
{
	struct own_file f = { .address = (uintptr_t)&observer };
	const struct pen_gate_door *door = door_of(CUDA_SHIM);
	if (door || dl_iterate_phdr(find_own_file, &f) != 1)
		return door;
	char *slash = strrchr(f.path, '/');
	if (!slash || (size_t)(slash - f.path) + 1 + sizeof(CUDA_SHIM) > sizeof(f.path))
		return NULL;
	strcpy(slash + 1, CUDA_SHIM);
	return door_of(f.path);
}

const struct pen_gate_door *pen_nv_door(void)
{
	const struct pen_gate_door *door = atomic_load_explicit(&the_door, memory_order_acquire);
	if (!door) {
		const struct pen_gate_door *none = NULL;
		door = shared_door();
		if (!door)
			door = &pen_gate_door;   /* no driver of CUDA here: nobody else in this process can attach */
		if (!atomic_compare_exchange_strong(&the_door, &none, door))
			door = none;
	}
	return door;
}

/* ---- looking for devices ----------------------------------------------------------------------------------------------- */

static void make_key(nvmlDevice_t h, bool instance, char key[PEN_DEVKEY_MAX])
{
	char name[NVML_DEVICE_UUID_V2_BUFFER_SIZE] = "";
	nvmlPciInfo_t pci = { .domain = 0 };
	struct pen_devkey_facts f = { .api = "cuda", .platform = "NVIDIA CUDA", .name = name };
	if (REAL(nvmlDeviceGetUUID) && !REAL(nvmlDeviceGetUUID)(h, name, sizeof(name)))
		f.has_uuid = pen_devkey_uuid(name, f.uuid);
	nvmlReturn_t r = instance ? NVML_ERROR_NOT_SUPPORTED : REAL(nvmlDeviceGetPciInfo_v3) ? REAL(nvmlDeviceGetPciInfo_v3)(h, &pci) :
			 REAL(nvmlDeviceGetPciInfo_v2) ? REAL(nvmlDeviceGetPciInfo_v2)(h, &pci) : NVML_ERROR_FUNCTION_NOT_FOUND;
	if (!r) {
		f.has_pci = 1;
		f.pci_domain = pci.domain;
		f.pci_bus = pci.bus;
		f.pci_device = pci.device;
	}
	pen_devkey(key, &f);
}

/* What programs can have of it, as the CUDA driver counts; 0: not told. */
static uint64_t memory_of(nvmlDevice_t h)
{
	nvmlMemory_v2_t two = { .version = PEN_NV_VERSION(nvmlMemory_v2_t, 2) };
	nvmlMemory_t one = { 0 };
	if (REAL(nvmlDeviceGetMemoryInfo_v2) && !REAL(nvmlDeviceGetMemoryInfo_v2)(h, &two))
		return two.total > two.reserved ? two.total - two.reserved : 0;
	return REAL(nvmlDeviceGetMemoryInfo) && !REAL(nvmlDeviceGetMemoryInfo)(h, &one) ? one.total : 0;
}

static uint32_t units_of(nvmlDevice_t h, bool instance)
{
	nvmlDeviceAttributes_t a = { 0 };
	unsigned int cores = 0;
	int major = 0, minor = 0;
	if (instance)
		return REAL(nvmlDeviceGetAttributes_v2) && !REAL(nvmlDeviceGetAttributes_v2)(h, &a) ? a.multiprocessorCount : 0;
	if (!REAL(nvmlDeviceGetNumGpuCores) || !REAL(nvmlDeviceGetCudaComputeCapability) ||
	    REAL(nvmlDeviceGetNumGpuCores)(h, &cores) || REAL(nvmlDeviceGetCudaComputeCapability)(h, &major, &minor))
		return 0;
	return pen_nv_lanes(major, minor) ? cores / pen_nv_lanes(major, minor) : 0;
}

static void open_gate(struct pen_nv_device *d)
{
	char model[NVML_DEVICE_NAME_V2_BUFFER_SIZE] = "";
	struct pen_gate *g;
	if (REAL(nvmlDeviceGetName) && REAL(nvmlDeviceGetName)(d->handle, model, sizeof(model)))
		model[0] = 0;
	struct pen_gate_device facts = { .key = d->key, .model = model, .mem_bytes = memory_of(d->handle),
					 .units = units_of(d->handle, d->card != NULL), .native = d };
	int r = pen_nv_door()->open(&observer, &facts, &g);
	if (r < 0) {
		pen_log(PEN_LOG_DEBUG, "nvml: %s is not for this tenant (%d)", d->key, r);
		return;
	}
	atomic_store(&d->gate, g);
	pen_nv_use_begin(d);
}

/* The record of a handle, a new one if need be. NULL: out of room or memory. */
static struct pen_nv_device *record(nvmlDevice_t h, unsigned int index, struct pen_nv_device *card)
{
	uint32_t n = atomic_load_explicit(&ndevices, memory_order_relaxed);
	for (uint32_t i = 0; i < n; i++)
		if (devices[i]->handle == h)
			return devices[i];
	struct pen_nv_device *d = n < PEN_NV_DEVICES ? calloc(1, sizeof(*d)) : NULL;
	if (!d)
		return NULL;
	d->handle = h;
	d->real_index = index;
	d->card = card;
	make_key(h, card != NULL, d->key);
	devices[n] = d;
	atomic_store_explicit(&ndevices, n + 1, memory_order_release);
	return d;
}

static bool is_cut(nvmlDevice_t h)
{
	unsigned int current = NVML_DEVICE_MIG_DISABLE, pending;
	return REAL(nvmlDeviceGetMigMode) && REAL(nvmlDeviceGetMigDeviceHandleByIndex) &&
	       !REAL(nvmlDeviceGetMigMode)(h, &current, &pending) && current == NVML_DEVICE_MIG_ENABLE;
}

static void show(struct pen_nv_device *d, unsigned int *next_index)
{
	atomic_store(&d->index, (*next_index)++);
	atomic_store_explicit(&d->shown, true, memory_order_release);
}

/* True: one of them is covered. */
static bool look_at_instances(struct pen_nv_device *card)
{
	unsigned int most = MIG_MAX, shown = 0;
	if (REAL(nvmlDeviceGetMaxMigDeviceCount) && (REAL(nvmlDeviceGetMaxMigDeviceCount)(card->handle, &most) || most > MIG_MAX))
		most = MIG_MAX;
	for (unsigned int i = 0; i < most; i++) {
		nvmlDevice_t h;
		if (REAL(nvmlDeviceGetMigDeviceHandleByIndex)(card->handle, i, &h))
			continue;
		struct pen_nv_device *d = record(h, i, card);
		if (!d)
			break;
		open_gate(d);
		if (d->gate)
			show(d, &shown);
	}
	return shown != 0;
}

static void look(unsigned int count)
{
	unsigned int shown = 0;
	for (unsigned int i = 0; i < count; i++) {
		nvmlDevice_t h;
		if (!REAL(nvmlDeviceGetHandleByIndex_v2) || REAL(nvmlDeviceGetHandleByIndex_v2)(i, &h))
			continue;
		struct pen_nv_device *d = record(h, i, NULL);
		if (!d)
			break;
		bool cut = is_cut(h);
		if (!cut)
			open_gate(d);
		if (cut ? look_at_instances(d) : d->gate != NULL)
			show(d, &shown);
	}
	if (shown)
		atomic_store_explicit(&complete, true, memory_order_release);
	atomic_store(&looked_ns, pen_mono_ns());
}

static bool is_due(void)
{
	uint64_t at = atomic_load(&looked_ns);
	return !atomic_load_explicit(&complete, memory_order_acquire) && (!at || pen_mono_ns() - at >= LOOK_AGAIN_NS);
}

/* One thread looks, which may take the time of an attach; the others wait for it. The looker of before a fork is not here. */
static void look_once(unsigned int count)
{
	uint32_t me = pen_forklock_process();
	while (!inside && is_due()) {
		uint32_t who = 0;
		if (!atomic_compare_exchange_strong(&looking, &who, me) &&
		    (who == me || !atomic_compare_exchange_strong(&looking, &who, me))) {
			pen_futex_wait(&looking, who, UINT64_C(10000000));
			continue;
		}
		inside = true;
		if (is_due())
			look(count);
		inside = false;
		atomic_store(&looking, 0);
		pen_futex_wake(&looking, INT_MAX);
	}
}

nvmlReturn_t pen_nv_devices(struct pen_nv_device **ret_v, uint32_t *ret_n)
{
	unsigned int count = 0;
	nvmlReturn_t r = REAL(nvmlDeviceGetCount_v2) ? REAL(nvmlDeviceGetCount_v2)(&count) : NVML_ERROR_FUNCTION_NOT_FOUND;
	if (r)
		return r;
	look_once(count);
	*ret_n = atomic_load_explicit(&ndevices, memory_order_acquire);
	memcpy(ret_v, devices, *ret_n * sizeof(devices[0]));
	return NVML_SUCCESS;
}

/* ---- one device ---------------------------------------------------------------------------------------------------------- */

static struct pen_nv_device *known(struct pen_nv_device **v, uint32_t n, nvmlDevice_t handle)
{
	for (uint32_t i = 0; i < n; i++)
		if (v[i]->handle == handle)
			return v[i];
	return NULL;
}

nvmlReturn_t pen_nv_find(nvmlDevice_t handle, struct pen_nv_device **ret)
{
	struct pen_nv_device *v[PEN_NV_DEVICES];
	char uuid[NVML_DEVICE_UUID_V2_BUFFER_SIZE];
	uint32_t n = 0;
	nvmlReturn_t r = pen_nv_devices(v, &n);
	if (r)
		return r;
	/* The library's word on it: no handle, a card that is lost. */
	r = REAL(nvmlDeviceGetUUID) ? REAL(nvmlDeviceGetUUID)(handle, uuid, sizeof(uuid)) : NVML_ERROR_FUNCTION_NOT_FOUND;
	if (r)
		return r;
	struct pen_nv_device *d = known(v, n, handle);
	if (!d || !d->shown)
		return NVML_ERROR_NO_PERMISSION;
	*ret = d;
	return NVML_SUCCESS;
}

nvmlReturn_t pen_nv_gate(nvmlDevice_t handle, struct pen_nv_device **ret)
{
	struct pen_nv_device *d;
	nvmlReturn_t r = pen_nv_find(handle, &d);
	if (r)
		return r;
	if (!d->gate)
		return NVML_ERROR_NO_PERMISSION;
	*ret = d;
	return NVML_SUCCESS;
}

bool pen_nv_is_shown(nvmlDevice_t handle)
{
	struct pen_nv_device *v[PEN_NV_DEVICES], *d;
	uint32_t n = 0;
	if (pen_nv_devices(v, &n))
		return false;
	d = known(v, n, handle);
	return d && d->shown;
}
