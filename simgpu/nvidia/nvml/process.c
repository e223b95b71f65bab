/* SPDX-License-Identifier: Apache-2.0 */
/* Who is on the card: lists of processes in all versions, and what each of them used lately. */
#include "simgpu/nvidia/nvml/ml.h"

#include <string.h>

unsigned int sim_nv_processes(nvmlDevice_t d, struct sim_nv_process v[SIM_NV_PROCESSES])
{
	nvmlDevice_t card = d->parent ? d->parent : d;
	if (sim_nv.null)
		return sim_nv_null_processes(card->index, v);
	struct sim_process p[SIM_NV_PROCESSES];
	int n = sim_processes(sim_nv.server, card->index, p, SIM_NV_PROCESSES);
	unsigned int count = n < 0 ? 0 : n > SIM_NV_PROCESSES ? SIM_NV_PROCESSES : (unsigned int)n;
	for (unsigned int i = 0; i < count; i++)
		v[i] = (struct sim_nv_process){ .p = p[i], .lists = SIM_NV_COMPUTE };
	return count;
}

/* Those in one of the lists, moved to the front. */
static unsigned int in_list(nvmlDevice_t d, unsigned int list, struct sim_nv_process v[SIM_NV_PROCESSES])
{
	unsigned int all = sim_nv_processes(d, v), n = 0;
	for (unsigned int i = 0; i < all; i++)
		if (v[i].lists & list)
			v[n++] = v[i];
	return n;
}

/* As documented: 0 asks for the number, and there may be room for more than there are. */
static nvmlReturn_t room_for(unsigned int n, unsigned int *count, const void *room)
{
	unsigned int have = *count;
	*count = n;
	return n > have ? NVML_ERROR_INSUFFICIENT_SIZE : n && !room ? NVML_ERROR_INVALID_ARGUMENT : NVML_SUCCESS;
}

static nvmlReturn_t list_v1(nvmlDevice_t d, unsigned int list, unsigned int *count, nvmlProcessInfo_v1_t *infos)
{
	struct sim_nv_process v[SIM_NV_PROCESSES];
	NEED(count);
	nvmlReturn_t r = room_for(in_list(d, list, v), count, infos);
	for (unsigned int i = 0; !r && i < *count; i++)
		infos[i] = (nvmlProcessInfo_v1_t){ .pid = v[i].p.pid, .usedGpuMemory = v[i].p.mem_bytes };
	return r;
}

static nvmlReturn_t list_v2(nvmlDevice_t d, unsigned int list, unsigned int *count, nvmlProcessInfo_v2_t *infos)
{
	struct sim_nv_process v[SIM_NV_PROCESSES];
	NEED(count);
	nvmlReturn_t r = room_for(in_list(d, list, v), count, infos);
	for (unsigned int i = 0; !r && i < *count; i++)
		infos[i] = (nvmlProcessInfo_v2_t){ .pid = v[i].p.pid, .usedGpuMemory = v[i].p.mem_bytes,
						   .gpuInstanceId = d->parent ? 1 + (unsigned int)d->instance : NVML_NO_INSTANCE,
						   .computeInstanceId = d->parent ? 0 : NVML_NO_INSTANCE };
	return r;
}

#define LIST(symbol, version, list, type)                                                     \
	nvmlReturn_t symbol(nvmlDevice_t d, unsigned int *count, type *infos)                 \
	{                                                                                     \
		ENTER_DEVICE(d);                                                              \
		return list_v##version(d, list, count, infos);                                \
	}

LIST(nvmlDeviceGetComputeRunningProcesses, 1, SIM_NV_COMPUTE, nvmlProcessInfo_v1_t)
LIST(nvmlDeviceGetComputeRunningProcesses_v2, 2, SIM_NV_COMPUTE, nvmlProcessInfo_v2_t)
LIST(nvmlDeviceGetComputeRunningProcesses_v3, 2, SIM_NV_COMPUTE, nvmlProcessInfo_t)
LIST(nvmlDeviceGetGraphicsRunningProcesses, 1, SIM_NV_GRAPHICS, nvmlProcessInfo_v1_t)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, 2, SIM_NV_GRAPHICS, nvmlProcessInfo_v2_t)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, 2, SIM_NV_GRAPHICS, nvmlProcessInfo_t)
LIST(nvmlDeviceGetMPSComputeRunningProcesses, 1, SIM_NV_MPS, nvmlProcessInfo_v1_t)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2, 2, SIM_NV_MPS, nvmlProcessInfo_v2_t)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, 2, SIM_NV_MPS, nvmlProcessInfo_t)

nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t d, nvmlProcessDetailList_t *list)
{
	static const unsigned int lists[] = { SIM_NV_COMPUTE, SIM_NV_GRAPHICS, SIM_NV_MPS };
	struct sim_nv_process v[SIM_NV_PROCESSES];
	ENTER_DEVICE(d);
	NEED(list && list->mode < 3);
	if (list->version != PEN_NV_VERSION(nvmlProcessDetailList_v1_t, 1))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	nvmlReturn_t r = room_for(in_list(d, lists[list->mode], v), &list->numProcArrayEntries, list->procArray);
	for (unsigned int i = 0; !r && i < list->numProcArrayEntries; i++)
		list->procArray[i] = (nvmlProcessDetail_v1_t){ .pid = v[i].p.pid, .usedGpuMemory = v[i].p.mem_bytes,
							       .gpuInstanceId = NVML_NO_INSTANCE, .computeInstanceId = NVML_NO_INSTANCE,
							       .usedGpuCcProtectedMemory = 0 };
	return r;
}

static bool is_busy(const struct sim_process *p)
{
	return p->sm_util || p->mem_util || p->enc_util || p->dec_util;
}

/* Those that did something since the last sample. */
static unsigned int busy(nvmlDevice_t d, struct sim_nv_process v[SIM_NV_PROCESSES])
{
	unsigned int all = sim_nv_processes(d, v), n = 0;
	for (unsigned int i = 0; i < all; i++)
		if (is_busy(&v[i].p))
			v[n++] = v[i];
	return n;
}

nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t d, nvmlProcessUtilizationSample_t *samples, unsigned int *count,
					     unsigned long long last_seen)
{
	struct sim_nv_process v[SIM_NV_PROCESSES];
	ENTER_DEVICE(d);
	NEED(count);
	unsigned long long at = sim_nv_now_us();
	unsigned int n = busy(d, v);
	if (!n || at <= last_seen)
		return NVML_ERROR_NOT_FOUND;
	nvmlReturn_t r = room_for(n, count, samples);
	for (unsigned int i = 0; !r && i < n; i++)
		samples[i] = (nvmlProcessUtilizationSample_t){ .pid = v[i].p.pid, .timeStamp = at, .smUtil = v[i].p.sm_util,
							       .memUtil = v[i].p.mem_util, .encUtil = v[i].p.enc_util,
							       .decUtil = v[i].p.dec_util };
	return r;
}

nvmlReturn_t nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t d, nvmlProcessesUtilizationInfo_t *info)
{
	struct sim_nv_process v[SIM_NV_PROCESSES];
	ENTER_DEVICE(d);
	NEED(info);
	if (info->version != PEN_NV_VERSION(nvmlProcessesUtilizationInfo_v1_t, 1))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	unsigned long long at = sim_nv_now_us();
	unsigned int n = busy(d, v);
	if (!n || at <= info->lastSeenTimeStamp)
		return NVML_ERROR_NOT_FOUND;
	nvmlReturn_t r = room_for(n, &info->processSamplesCount, info->procUtilArray);
	for (unsigned int i = 0; !r && i < n; i++)
		info->procUtilArray[i] = (nvmlProcessUtilizationInfo_v1_t){ .timeStamp = at, .pid = v[i].p.pid, .smUtil = v[i].p.sm_util,
									    .memUtil = v[i].p.mem_util, .encUtil = v[i].p.enc_util,
									    .decUtil = v[i].p.dec_util };
	return r;
}
