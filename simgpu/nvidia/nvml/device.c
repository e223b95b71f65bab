/* SPDX-License-Identifier: Apache-2.0 */
/* Which cards there are, what they are called, and their MIG instances. */
#include "simgpu/nvidia/nvml/ml.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define PCI_NVIDIA_T4 0x1EB810DEu
#define PCI_BASE_CLASS_DISPLAY 3

static void uuid_text(nvmlDevice_t d, char text[NVML_DEVICE_UUID_V2_BUFFER_SIZE])
{
	const uint8_t *u = d->card.uuid;
	snprintf(text, NVML_DEVICE_UUID_V2_BUFFER_SIZE,
		 "%s-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", d->parent ? "MIG" : "GPU", u[0], u[1], u[2],
		 u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

/* ---- which there are ---------------------------------------------------------------------------------------------- */

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
	ENTER();
	NEED(count);
	*count = sim_nv.devices;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCount(unsigned int *count)
{
	return nvmlDeviceGetCount_v2(count);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
	ENTER();
	NEED(device && index < sim_nv.devices);
	*device = &sim_nv.device[index];
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device)
{
	return nvmlDeviceGetHandleByIndex_v2(index, device);
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
	char text[NVML_DEVICE_UUID_V2_BUFFER_SIZE];
	ENTER();
	NEED(uuid && device);
	for (unsigned int i = 0; i < sim_nv.devices; i++)
		for (unsigned int k = 0; k <= sim_nv.device[i].instances; k++) {
			struct nvmlDevice_st *d = k ? &sim_nv.instance[i][k - 1] : &sim_nv.device[i];
			uuid_text(d, text);
			if (!strcasecmp(text, uuid)) {
				*device = d;
				return NVML_SUCCESS;
			}
		}
	return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetHandleByUUIDV(const nvmlUUID_t *uuid, nvmlDevice_t *device)
{
	ENTER();
	NEED(uuid && device);
	if (uuid->version != PEN_NV_VERSION(nvmlUUID_t, 1))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	if (uuid->type == 1)
		return nvmlDeviceGetHandleByUUID(uuid->value.str, device);
	for (unsigned int i = 0; i < sim_nv.devices; i++)
		if (!memcmp(sim_nv.device[i].card.uuid, uuid->value.bytes, 16)) {
			*device = &sim_nv.device[i];
			return NVML_SUCCESS;
		}
	return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
	unsigned int domain = 0, bus = 0, slot = 0, function = 0;
	ENTER();
	NEED(bus_id && device);
	if (sscanf(bus_id, "%x:%x:%x.%x", &domain, &bus, &slot, &function) < 3) {
		domain = 0;
		NEED(sscanf(bus_id, "%x:%x.%x", &bus, &slot, &function) == 3);
	}
	for (unsigned int i = 0; i < sim_nv.devices; i++) {
		const struct sim_card *c = &sim_nv.device[i].card;
		if (c->pci_domain == domain && c->pci_bus == bus && c->pci_device == slot) {
			*device = &sim_nv.device[i];
			return NVML_SUCCESS;
		}
	}
	return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *bus_id, nvmlDevice_t *device)
{
	return nvmlDeviceGetHandleByPciBusId_v2(bus_id, device);
}

static void serial_text(nvmlDevice_t d, char text[32])
{
	snprintf(text, 32, "13%08u", d->index);
}

nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *device)
{
	char text[32];
	ENTER();
	NEED(serial && device);
	for (unsigned int i = 0; i < sim_nv.devices; i++) {
		serial_text(&sim_nv.device[i], text);
		if (!strcmp(text, serial)) {
			*device = &sim_nv.device[i];
			return NVML_SUCCESS;
		}
	}
	return NVML_ERROR_NOT_FOUND;
}

/* ---- what it is ----------------------------------------------------------------------------------------------------- */

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t d, char *name, unsigned int length)
{
	char text[NVML_DEVICE_NAME_V2_BUFFER_SIZE];
	ENTER_DEVICE(d);
	if (d->parent)
		snprintf(text, sizeof(text), "%.60s MIG %ug.%ugb", d->parent->card.name, 7 / d->parent->instances,
			 (unsigned int)(d->card.mem_bytes >> 30));
	else
		snprintf(text, sizeof(text), "%.90s", d->card.name);
	return sim_nv_text(name, length, text);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t d, char *uuid, unsigned int length)
{
	char text[NVML_DEVICE_UUID_V2_BUFFER_SIZE];
	ENTER_DEVICE(d);
	uuid_text(d, text);
	return sim_nv_text(uuid, length, text);
}

nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t d, char *serial, unsigned int length)
{
	char text[32];
	ENTER_DEVICE(d);
	serial_text(d, text);
	return sim_nv_text(serial, length, text);
}

static void pci_bus_id(const struct sim_card *c, nvmlPciInfo_t *pci)
{
	pci->domain = c->pci_domain;
	pci->bus = c->pci_bus;
	pci->device = c->pci_device;
	pci->pciDeviceId = PCI_NVIDIA_T4;
	snprintf(pci->busIdLegacy, sizeof(pci->busIdLegacy), "%04X:%02X:%02X.0", c->pci_domain & 0xffff, c->pci_bus & 0xff,
		 c->pci_device & 0x1f);
}

nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t d, nvmlPciInfo_t *pci)
{
	ENTER_DEVICE(d);
	NEED(pci);
	pci_bus_id(&d->card, pci);   /* the first form ends here */
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t d, nvmlPciInfo_t *pci)
{
	ENTER_DEVICE(d);
	NEED(pci);
	pci_bus_id(&d->card, pci);
	pci->pciSubSystemId = 0;     /* the second one, but for reserved words, here */
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t d, nvmlPciInfo_t *pci)
{
	ENTER_DEVICE(d);
	NEED(pci);
	pci_bus_id(&d->card, pci);
	pci->pciSubSystemId = 0;
	snprintf(pci->busId, sizeof(pci->busId), "%08X:%02X:%02X.0", pci->domain, pci->bus & 0xff, pci->device & 0x1f);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfoExt(nvmlDevice_t d, nvmlPciInfoExt_t *pci)
{
	nvmlPciInfo_t v3 = { 0 };
	ENTER_DEVICE(d);
	NEED(pci);
	if (pci->version != PEN_NV_VERSION(nvmlPciInfoExt_v1_t, 1))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	nvmlReturn_t r = nvmlDeviceGetPciInfo_v3(d, &v3);
	pci->domain = v3.domain;
	pci->bus = v3.bus;
	pci->device = v3.device;
	pci->pciDeviceId = v3.pciDeviceId;
	pci->pciSubSystemId = 0;
	pci->baseClass = PCI_BASE_CLASS_DISPLAY;
	pci->subClass = 2;
	memcpy(pci->busId, v3.busId, sizeof(pci->busId));
	return r;
}

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t d, nvmlDeviceAttributes_t *a)
{
	ENTER_DEVICE(d);
	NEED(a);
	if (!d->parent)
		return NVML_ERROR_NOT_SUPPORTED;   /* of MIG instances only */
	*a = (nvmlDeviceAttributes_t){
		.multiprocessorCount = d->card.units, .sharedCopyEngineCount = 1, .gpuInstanceSliceCount = 1,
		.computeInstanceSliceCount = 1, .memorySizeMB = d->card.mem_bytes >> 20,
	};
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetAttributes(nvmlDevice_t d, nvmlDeviceAttributes_t *a)
{
	return nvmlDeviceGetAttributes_v2(d, a);
}

/* Small facts that are one number each. */
#define NUMBER(symbol, type, value)                        \
	nvmlReturn_t symbol(nvmlDevice_t d, type *ret)     \
	{                                                  \
		ENTER_DEVICE(d);                           \
		NEED(ret);                                 \
		*ret = (type)(value);                      \
		return NVML_SUCCESS;                       \
	}
#define NUMBER_OF_CARD(symbol, type, value)                \
	nvmlReturn_t symbol(nvmlDevice_t d, type *ret)     \
	{                                                  \
		ENTER_DEVICE(d);                           \
		NEED(ret);                                 \
		if (d->parent)                             \
			return NVML_ERROR_NOT_SUPPORTED;   \
		*ret = (type)(value);                      \
		return NVML_SUCCESS;                       \
	}

NUMBER_OF_CARD(nvmlDeviceGetIndex, unsigned int, d->index)
NUMBER_OF_CARD(nvmlDeviceGetMinorNumber, unsigned int, d->index)
NUMBER(nvmlDeviceGetBrand, nvmlBrandType_t, NVML_BRAND_TESLA)
NUMBER(nvmlDeviceGetBoardId, unsigned int, d->card.pci_bus << 8)
NUMBER(nvmlDeviceGetMultiGpuBoard, unsigned int, 0)
NUMBER(nvmlDeviceGetMemoryBusWidth, unsigned int, d->card.mem_bus_bits)
NUMBER_OF_CARD(nvmlDeviceGetNumGpuCores, unsigned int,
	       d->card.units * pen_nv_lanes((int)d->card.cc_major, (int)d->card.cc_minor))
NUMBER(nvmlDeviceGetPersistenceMode, nvmlEnableState_t, d->persistence)
NUMBER(nvmlDeviceGetComputeMode, nvmlComputeMode_t, d->compute_mode)
NUMBER(nvmlDeviceGetDisplayMode, nvmlEnableState_t, NVML_FEATURE_DISABLED)
NUMBER(nvmlDeviceGetDisplayActive, nvmlEnableState_t, NVML_FEATURE_DISABLED)
NUMBER(nvmlDeviceGetPerformanceState, nvmlPstates_t, 0)

nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t d, nvmlDeviceArchitecture_t *arch)
{
	ENTER_DEVICE(d);
	NEED(arch);
	unsigned int cc = d->card.cc_major * 10 + d->card.cc_minor;
	*arch = cc >= 100 ? 10 : cc >= 90 ? NVML_DEVICE_ARCH_HOPPER : cc == 89 ? NVML_DEVICE_ARCH_ADA : cc >= 80 ? NVML_DEVICE_ARCH_AMPERE :
		cc >= 75 ? NVML_DEVICE_ARCH_TURING : cc >= 70 ? NVML_DEVICE_ARCH_VOLTA : cc >= 60 ? NVML_DEVICE_ARCH_PASCAL :
		cc >= 50 ? NVML_DEVICE_ARCH_MAXWELL : NVML_DEVICE_ARCH_KEPLER;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t d, int *major, int *minor)
{
	ENTER_DEVICE(d);
	NEED(major && minor);
	*major = (int)d->card.cc_major;
	*minor = (int)d->card.cc_minor;
	return NVML_SUCCESS;
}

/* What a privileged caller may change. It has no effect on the card but that it is remembered. */
nvmlReturn_t nvmlDeviceSetPersistenceMode(nvmlDevice_t d, nvmlEnableState_t mode)
{
	ENTER_DEVICE(d);
	d->persistence = mode;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceSetComputeMode(nvmlDevice_t d, nvmlComputeMode_t mode)
{
	ENTER_DEVICE(d);
	NEED(mode <= NVML_COMPUTEMODE_EXCLUSIVE_PROCESS);
	d->compute_mode = mode;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceSetCpuAffinity(nvmlDevice_t d)
{
	ENTER_DEVICE(d);
	return NVML_SUCCESS;
}

/* ---- MIG -------------------------------------------------------------------------------------------------------------- */

static bool has_mig(nvmlDevice_t d)
{
	return d->card.mig || d->instances;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t d, unsigned int *current, unsigned int *pending)
{
	ENTER_DEVICE(d);
	NEED(current && pending);
	if (d->parent || !has_mig(d))
		return NVML_ERROR_NOT_SUPPORTED;
	*current = *pending = d->instances ? NVML_DEVICE_MIG_ENABLE : NVML_DEVICE_MIG_DISABLE;
	return NVML_SUCCESS;
}

NUMBER(nvmlDeviceIsMigDeviceHandle, unsigned int, d->parent != NULL)

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t d, unsigned int *count)
{
	ENTER_DEVICE(d);
	NEED(count);
	*count = has_mig(d) ? SIM_NV_INSTANCES : 0;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t d, unsigned int index, nvmlDevice_t *mig)
{
	ENTER_DEVICE(d);
	NEED(mig && index < SIM_NV_INSTANCES);
	if (index >= d->instances)
		return has_mig(d) ? NVML_ERROR_NOT_FOUND : NVML_ERROR_NOT_SUPPORTED;
	*mig = &sim_nv.instance[d->index][index];
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig, nvmlDevice_t *device)
{
	ENTER_DEVICE(mig);
	NEED(device && mig->parent);
	*device = mig->parent;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t mig, unsigned int *id)
{
	ENTER_DEVICE(mig);
	NEED(id);
	if (!mig->parent)
		return NVML_ERROR_NOT_SUPPORTED;
	*id = 1 + (unsigned int)mig->instance;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t mig, unsigned int *id)
{
	ENTER_DEVICE(mig);
	NEED(id);
	if (!mig->parent)
		return NVML_ERROR_NOT_SUPPORTED;
	*id = 0;
	return NVML_SUCCESS;
}
