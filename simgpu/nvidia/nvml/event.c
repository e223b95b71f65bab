/* SPDX-License-Identifier: Apache-2.0 */
/* Events: a set looks at its cards' last Xid until that changes. */
#include "simgpu/nvidia/nvml/ml.h"

#include <stdlib.h>
#include <time.h>

#define LOOK_NS 20000000L

struct nvmlEventSet_st {
	struct { nvmlDevice_t device; uint32_t xid, ecc; unsigned long long types; } watched[SIM_NV_DEVICES];
	unsigned int n;
};

#define KNOWN (nvmlEventTypeXidCriticalError | nvmlEventTypeDoubleBitEccError)

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
	ENTER();
	NEED(set);
	*set = calloc(1, sizeof(**set));
	return *set ? NVML_SUCCESS : NVML_ERROR_MEMORY;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
	ENTER();
	NEED(set);
	free(set);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t d, unsigned long long *types)
{
	ENTER_DEVICE(d);
	NEED(types);
	*types = KNOWN;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t d, unsigned long long types, nvmlEventSet_t set)
{
	struct sim_nv_reading now;
	ENTER_DEVICE(d);
	NEED(set && types);
	if (types & ~KNOWN)
		return NVML_ERROR_NOT_SUPPORTED;
	if (set->n == SIM_NV_DEVICES)
		return NVML_ERROR_INSUFFICIENT_RESOURCES;
	nvmlReturn_t r = sim_nv_reading(d, &now);
	if (r)
		return r;
	set->watched[set->n].device = d;
	set->watched[set->n].types = types;
	set->watched[set->n].ecc = now.r.ecc_uncorrected;
	set->watched[set->n++].xid = now.r.xid;
	return NVML_SUCCESS;
}

static bool look(nvmlEventSet_t set, nvmlEventData_t *data)
{
	for (unsigned int i = 0; i < set->n; i++) {
		struct sim_nv_reading now;
		if (sim_nv_reading(set->watched[i].device, &now))
			continue;
		uint32_t xid = set->watched[i].xid, ecc = set->watched[i].ecc;
		set->watched[i].xid = now.r.xid;
		set->watched[i].ecc = now.r.ecc_uncorrected;
		*data = (nvmlEventData_t){ .device = set->watched[i].device, .gpuInstanceId = NVML_NO_INSTANCE,
					   .computeInstanceId = NVML_NO_INSTANCE };
		if (now.r.xid != xid && now.r.xid && set->watched[i].types & nvmlEventTypeXidCriticalError) {
			data->eventType = nvmlEventTypeXidCriticalError;
			data->eventData = now.r.xid;
			return true;
		}
		if (now.r.ecc_uncorrected > ecc && set->watched[i].types & nvmlEventTypeDoubleBitEccError) {
			data->eventType = nvmlEventTypeDoubleBitEccError;
			return true;
		}
	}
	return false;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout_ms)
{
	ENTER();
	NEED(set && data);
	for (long left = (long)timeout_ms * 1000000;; left -= LOOK_NS) {
		if (look(set, data))
			return NVML_SUCCESS;
		if (left <= 0)
			return NVML_ERROR_TIMEOUT;
		nanosleep(&(struct timespec){ .tv_nsec = left < LOOK_NS ? left : LOOK_NS }, NULL);
	}
}

nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout_ms)
{
	return nvmlEventSetWait_v2(set, data, timeout_ms);
}
