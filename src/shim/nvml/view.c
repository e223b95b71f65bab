/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The questions that name devices: how many, by index, UUID, address, neighbourhood. Indices count the devices that are shown, in the
 * library's order, and so agree with what CUDA shows in the order of addresses.
 */
#include "shim/nvml/nv.h"

/* ---- which there are ------------------------------------------------------------------------------------------------------- */

static nvmlReturn_t count_shown(unsigned int *count)
{
	struct pen_nv_device *v[PEN_NV_DEVICES];
	uint32_t n = 0;
	nvmlReturn_t r = pen_nv_devices(v, &n);
	if (r)
		return r;
	if (!count)
		return NVML_ERROR_INVALID_ARGUMENT;
	*count = 0;
	for (uint32_t i = 0; i < n; i++)
		*count += v[i]->shown && !v[i]->card ? 1 : 0;
	return NVML_SUCCESS;
}

nvmlReturn_t pen_nvmlDeviceGetCount(unsigned int *count)
{
	return count_shown(count);
}

nvmlReturn_t pen_nvmlDeviceGetCount_v2(unsigned int *count)
{
	return count_shown(count);
}

typedef nvmlReturn_t by_index_fn(unsigned int, nvmlDevice_t *);

static nvmlReturn_t by_index(by_index_fn *real, unsigned int index, nvmlDevice_t *device)
{
	struct pen_nv_device *v[PEN_NV_DEVICES];
	uint32_t n = 0;
	nvmlReturn_t r = pen_nv_devices(v, &n);
	if (r)
		return r;
	for (uint32_t i = 0; i < n && real; i++)
		if (v[i]->shown && !v[i]->card && v[i]->index == index)
			return real(v[i]->real_index, device);   /* which makes it usable, and says if it is lost */
	return real ? NVML_ERROR_INVALID_ARGUMENT : NVML_ERROR_FUNCTION_NOT_FOUND;
}

nvmlReturn_t pen_nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device)
{
	return by_index(REAL(nvmlDeviceGetHandleByIndex), index, device);
}

nvmlReturn_t pen_nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
	return by_index(REAL(nvmlDeviceGetHandleByIndex_v2), index, device);
}

/* The library's answer, if it may be seen. */
static nvmlReturn_t only_shown(nvmlReturn_t r, nvmlDevice_t found, nvmlDevice_t *device)
{
	if (r)
		return r;
	if (!pen_nv_is_shown(found))
		return NVML_ERROR_NOT_FOUND;
	*device = found;
	return NVML_SUCCESS;
}

#define BY_NAME(symbol, type)                                                                                     \
	nvmlReturn_t pen_##symbol(type name, nvmlDevice_t *device)                                                \
	{                                                                                                         \
		nvmlDevice_t found = NULL;                                                                        \
		if (!REAL(symbol))                                                                                \
			return NVML_ERROR_FUNCTION_NOT_FOUND;                                                     \
		nvmlReturn_t r = REAL(symbol)(name, device ? &found : NULL);                                      \
		return only_shown(r, found, device);                                                              \
	}

BY_NAME(nvmlDeviceGetHandleByUUID, const char *)
BY_NAME(nvmlDeviceGetHandleByUUIDV, const nvmlUUID_t *)
BY_NAME(nvmlDeviceGetHandleBySerial, const char *)
BY_NAME(nvmlDeviceGetHandleByPciBusId, const char *)
BY_NAME(nvmlDeviceGetHandleByPciBusId_v2, const char *)

nvmlReturn_t pen_nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
	struct pen_nv_device *d;
	nvmlReturn_t r = REAL(nvmlDeviceGetIndex) ? REAL(nvmlDeviceGetIndex)(device, index) : NVML_ERROR_FUNCTION_NOT_FOUND;
	if (r)
		return r;
	r = pen_nv_find(device, &d);
	if (!r)
		*index = d->index;
	return r;
}

nvmlReturn_t pen_nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *mig)
{
	struct pen_nv_device *v[PEN_NV_DEVICES], *card;
	uint32_t n = 0;
	if (!REAL(nvmlDeviceGetMigDeviceHandleByIndex))
		return NVML_ERROR_FUNCTION_NOT_FOUND;
	nvmlReturn_t r = pen_nv_find(device, &card);
	if (!r)
		r = pen_nv_devices(v, &n);
	if (r)
		return r;
	bool cut = false;
	for (uint32_t i = 0; i < n; i++) {
		cut |= v[i]->card == card;
		if (v[i]->card == card && v[i]->shown && v[i]->index == index)
			return REAL(nvmlDeviceGetMigDeviceHandleByIndex)(device, v[i]->real_index, mig);
	}
	if (!cut)   /* not cut: what that is called depends on the card */
		return REAL(nvmlDeviceGetMigDeviceHandleByIndex)(device, index, mig);
	return NVML_ERROR_NOT_FOUND;
}

/* ---- neighbourhood ---------------------------------------------------------------------------------------------------------- */

/* The library's list without those that are not there. */
static nvmlReturn_t list_shown(nvmlReturn_t r, nvmlDevice_t *v, unsigned int n, unsigned int *count, nvmlDevice_t *devices_room)
{
	unsigned int kept = 0;
	if (r)
		return r;
	if (!count)
		return NVML_ERROR_INVALID_ARGUMENT;
	for (unsigned int i = 0; i < n; i++)
		if (pen_nv_is_shown(v[i]))
			v[kept++] = v[i];
	if (!devices_room || !*count) {   /* a question for the number alone succeeds here, as documented */
		*count = kept;
		return NVML_SUCCESS;
	}
	r = pen_nv_room(kept, count, devices_room);
	for (unsigned int i = 0; !r && i < kept; i++)
		devices_room[i] = v[i];
	return r;
}

nvmlReturn_t pen_nvmlDeviceGetTopologyNearestGpus(nvmlDevice_t device, nvmlGpuTopologyLevel_t level, unsigned int *count,
						  nvmlDevice_t *room)
{
	nvmlDevice_t v[PEN_NV_DEVICES];
	unsigned int n = PEN_NV_DEVICES;
	if (!REAL(nvmlDeviceGetTopologyNearestGpus))
		return NVML_ERROR_FUNCTION_NOT_FOUND;
	nvmlReturn_t r = REAL(nvmlDeviceGetTopologyNearestGpus)(device, level, &n, v);
	return list_shown(r, v, n, count, room);
}

nvmlReturn_t pen_nvmlSystemGetTopologyGpuSet(unsigned int cpu, unsigned int *count, nvmlDevice_t *room)
{
	nvmlDevice_t v[PEN_NV_DEVICES];
	unsigned int n = PEN_NV_DEVICES;
	if (!REAL(nvmlSystemGetTopologyGpuSet))
		return NVML_ERROR_FUNCTION_NOT_FOUND;
	nvmlReturn_t r = REAL(nvmlSystemGetTopologyGpuSet)(cpu, &n, v);
	return list_shown(r, v, n, count, room);
}

nvmlReturn_t pen_nvmlUnitGetDevices(nvmlUnit_t unit, unsigned int *count, nvmlDevice_t *room)
{
	nvmlDevice_t v[PEN_NV_DEVICES];
	unsigned int n = PEN_NV_DEVICES;
	if (!REAL(nvmlUnitGetDevices))
		return NVML_ERROR_FUNCTION_NOT_FOUND;
	nvmlReturn_t r = REAL(nvmlUnitGetDevices)(unit, &n, v);
	return list_shown(r, v, n, count, room);
}
