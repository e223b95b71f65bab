/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices as the driver has them: their records and keys, and the gate of each.
 *
 * Handles and ordinals stay the driver's own: CUmemLocation, pointer attributes and private tables speak of them as well, and
 * a number that meant one device here and another there would be worse than a gap. Which devices are shown is info.c's matter.
 */
#include "shim/cuda/gating.h"

#include "base/auto.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

static struct pen_cu_device *_Atomic devices[PEN_CU_DEVICES];   /* by ordinal */
static _Atomic uint32_t ndevices;
static struct pen_forklock devices_lock = PEN_FORKLOCK_INIT;

static int attribute(CUdevice id, CUdevice_attribute what, int fallback)
{
	int v = fallback;
	if (!REAL(cuDeviceGetAttribute) || REAL(cuDeviceGetAttribute)(&v, what, id) != CUDA_SUCCESS)
		return fallback;
	return v;
}

/* A hexadecimal number that ends at @end; moves *@at behind it. Not strtoul(): on newer systems it is a newer symbol. */
static bool hex(const char **at, char end, uint32_t *ret)
{
	uint64_t v = 0;
	const char *s = *at;
	for (; *s && *s != end; s++) {
		int digit = *s >= '0' && *s <= '9' ? *s - '0' : (*s | 32) >= 'a' && (*s | 32) <= 'f' ? (*s | 32) - 'a' + 10 : -1;
		v = v * 16 + (unsigned)digit;
		if (digit < 0 || v > UINT32_MAX)
			return false;
	}
	if (*s != end || s == *at)
		return false;
	*ret = (uint32_t)v;
	*at = s + 1;
	return true;
}

static bool find_pci(CUdevice id, struct pen_devkey_facts *f)
{
	char text[64] = "";
	const char *at = text;
	if (REAL(cuDeviceGetPCIBusId) && REAL(cuDeviceGetPCIBusId)(text, (int)sizeof(text) - 1, id) == CUDA_SUCCESS) {
		if (!hex(&at, ':', &f->pci_domain) || !hex(&at, ':', &f->pci_bus) || !hex(&at, '.', &f->pci_device))
			return false;
	} else {
		int bus = attribute(id, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, -1), slot = attribute(id, CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID, -1);
		if (bus < 0 || slot < 0)
			return false;
		f->pci_domain = (uint32_t)attribute(id, CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, 0);
		f->pci_bus = (uint32_t)bus;
		f->pci_device = (uint32_t)slot;
	}
	/* 0:0.0 is the bridge to the first bus: boards whose GPU sits on no bus say that. */
	return f->pci_domain || f->pci_bus || f->pci_device;
}

/* Of a MIG instance the address is its card's, and the newer call alone tells the instance's own UUID. */
static void find_key(CUdevice id, struct pen_devkey_facts *f)
{
	CUuuid card = { { 0 } }, own = { { 0 } };
	bool has_card = REAL(cuDeviceGetUuid) && REAL(cuDeviceGetUuid)(&card, id) == CUDA_SUCCESS;
	bool has_own = REAL(cuDeviceGetUuid_v2) && REAL(cuDeviceGetUuid_v2)(&own, id) == CUDA_SUCCESS;
	bool instance = has_card && has_own && memcmp(&card, &own, sizeof(own)) != 0;
	f->has_pci = !instance && find_pci(id, f);
	f->has_uuid = has_card || has_own;
	memcpy(f->uuid, has_own ? &own : &card, sizeof(f->uuid));
}

static uint64_t memory_of(CUdevice id)
{
	size_t bytes = 0;
	if (REAL(cuDeviceTotalMem_v2) && REAL(cuDeviceTotalMem_v2)(&bytes, id) == CUDA_SUCCESS)
		return bytes;
	return 0;
}

static struct pen_cu_device *device_new(CUdevice id)
{
	struct pen_cu_device *d = calloc(1, sizeof(*d));
	if (!d)
		return NULL;
	d->id = id;
	if (!REAL(cuDeviceGetName) || REAL(cuDeviceGetName)(d->model, (int)sizeof(d->model) - 1, id) != CUDA_SUCCESS)
		memcpy(d->model, "unknown", 8);
	d->mem_bytes = memory_of(id);
	d->units = (uint32_t)attribute(id, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 1);
	d->integrated = attribute(id, CU_DEVICE_ATTRIBUTE_INTEGRATED, 0) != 0;
	struct pen_devkey_facts f = { .api = "cuda", .platform = "nvidia", .name = d->model };
	find_key(id, &f);
	pen_devkey(d->key, &f);
	return d;
}

/* All devices, in the driver's order; once, after cuInit. */
static void enumerate(void)
{
	struct pen_cu_device *found[PEN_CU_DEVICES] = { NULL };
	int n = 0;
	if (atomic_load(&ndevices) || !REAL(cuDeviceGetCount) || !REAL(cuDeviceGet))
		return;
	pen_cu_thread.depth++;
	if (REAL(cuDeviceGetCount)(&n) != CUDA_SUCCESS)
		n = 0;
	n = PEN_MIN(n, PEN_CU_DEVICES);
	for (int i = 0; i < n; i++) {
		CUdevice id;
		if (REAL(cuDeviceGet)(&id, i) == CUDA_SUCCESS)
			found[i] = device_new(id);
	}
	pen_cu_thread.depth--;
	if (n <= 0)
		return;
	/* Of two threads that do this at once, the first one's records stay. */
	pen_forklock_take(&devices_lock);
	bool first = !atomic_load(&ndevices);
	for (int i = 0; i < n && first; i++)
		atomic_store(&devices[i], found[i]);
	if (first)
		atomic_store(&ndevices, (uint32_t)n);
	pen_forklock_give(&devices_lock);
	for (int i = 0; i < n && !first; i++)
		free(found[i]);
}

uint32_t pen_cu_device_count(void)
{
	enumerate();
	return atomic_load(&ndevices);
}

struct pen_cu_device *pen_cu_device_nth(uint32_t ordinal)
{
	return ordinal < pen_cu_device_count() ? atomic_load(&devices[ordinal]) : NULL;
}

static struct pen_cu_device *known(CUdevice id)
{
	uint32_t n = atomic_load_explicit(&ndevices, memory_order_acquire);
	/* A handle is the ordinal wherever anybody has looked; that it need not be is the driver's right. */
	if ((uint32_t)id < n) {
		struct pen_cu_device *d = atomic_load_explicit(&devices[id], memory_order_relaxed);
		if (d && d->id == id)
			return d;
	}
	for (uint32_t i = 0; i < n; i++) {
		struct pen_cu_device *d = atomic_load_explicit(&devices[i], memory_order_relaxed);
		if (d && d->id == id)
			return d;
	}
	return NULL;
}

struct pen_cu_device *pen_cu_device(CUdevice id)
{
	struct pen_cu_device *d = known(id);
	if (d || atomic_load(&ndevices))
		return d;
	enumerate();
	return known(id);
}

struct pen_cu_device *pen_cu_device_current(void)
{
	CUdevice id;
	if (!REAL(cuCtxGetDevice) || REAL(cuCtxGetDevice)(&id) != CUDA_SUCCESS)
		return NULL;
	return pen_cu_device(id);
}

static struct pen_gate *open_gate(struct pen_cu_device *d)
{
	struct pen_gate_device facts = { .key = d->key, .model = d->model, .mem_bytes = d->mem_bytes, .units = d->units, .native = d };
	struct pen_gate *g = NULL;
	int r = pen_gate_open(&pen_cu_adapter, &facts, &g);
	if (r < 0)
		pen_log(PEN_LOG_DEBUG, "cuda: %s is not for this tenant (%d)", d->key, r);
	pen_forklock_take(&d->lock);
	if (atomic_load_explicit(&d->state, memory_order_relaxed) == 0) {
		d->gate = r < 0 ? NULL : g;
		atomic_store_explicit(&d->state, d->gate ? 1 : 2, memory_order_release);
	}
	pen_forklock_give(&d->lock);
	return atomic_load_explicit(&d->state, memory_order_acquire) == 1 ? d->gate : NULL;
}

struct pen_gate *pen_cu_gate(struct pen_cu_device *d)
{
	uint32_t state = atomic_load_explicit(&d->state, memory_order_acquire);
	return state == 1 ? d->gate : state == 0 ? open_gate(d) : NULL;
}
