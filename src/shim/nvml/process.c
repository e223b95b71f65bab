/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes: the tenant's own, under the numbers that they have themselves, with the memory that they are charged. The driver's list is
 * of everybody, in the host's numbers or none at all in a container. All of ours compute; what a process does besides (graphics,
 * through MPS) the ledger does not tell, so those lists are empty.
 */
#include "shim/nvml/nv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Who has something on the device: one that only looks (nvidia-smi) has not. */
static nvmlReturn_t on_device(nvmlDevice_t device, bool list, struct pen_nv_device **ret_d, struct pen_nv_use v[PEN_NV_CLIENTS],
			      uint32_t *ret_n)
{
	nvmlReturn_t r = pen_nv_gate(device, ret_d);
	if (r)
		return r;
	uint32_t all = list ? pen_nv_clients(*ret_d, v) : 0, n = 0;
	for (uint32_t i = 0; i < all; i++)
		if (v[i].pid && (v[i].bytes || v[i].device_ns))
			v[n++] = v[i];
	*ret_n = n;
	return NVML_SUCCESS;
}

static nvmlReturn_t list_v1(nvmlDevice_t device, bool list, unsigned int *count, nvmlProcessInfo_v1_t *infos)
{
	struct pen_nv_device *d;
	struct pen_nv_use v[PEN_NV_CLIENTS];
	uint32_t n;
	nvmlReturn_t r = on_device(device, list, &d, v, &n);
	if (!r)
		r = count ? pen_nv_room(n, count, infos) : NVML_ERROR_INVALID_ARGUMENT;
	for (uint32_t i = 0; !r && i < n; i++)
		infos[i] = (nvmlProcessInfo_v1_t){ .pid = v[i].pid, .usedGpuMemory = v[i].bytes };
	return r;
}

/* What an instance's number is, as the driver says of the instance itself. */
static void instance_of(const struct pen_nv_device *d, unsigned int *gpu, unsigned int *compute)
{
	*gpu = *compute = NVML_NO_INSTANCE;
	if (!d->card)
		return;
	if (REAL(nvmlDeviceGetGpuInstanceId) && REAL(nvmlDeviceGetGpuInstanceId)(d->handle, gpu))
		*gpu = NVML_NO_INSTANCE;
	if (REAL(nvmlDeviceGetComputeInstanceId) && REAL(nvmlDeviceGetComputeInstanceId)(d->handle, compute))
		*compute = NVML_NO_INSTANCE;
}

static nvmlReturn_t list_v2(nvmlDevice_t device, bool list, unsigned int *count, nvmlProcessInfo_v2_t *infos)
{
	struct pen_nv_device *d;
	struct pen_nv_use v[PEN_NV_CLIENTS];
	unsigned int gpu, compute;
	uint32_t n;
	nvmlReturn_t r = on_device(device, list, &d, v, &n);
	if (!r)
		r = count ? pen_nv_room(n, count, infos) : NVML_ERROR_INVALID_ARGUMENT;
	if (r)
		return r;
	instance_of(d, &gpu, &compute);
	for (uint32_t i = 0; i < n; i++)
		infos[i] = (nvmlProcessInfo_v2_t){ .pid = v[i].pid, .usedGpuMemory = v[i].bytes, .gpuInstanceId = gpu,
						   .computeInstanceId = compute };
	return NVML_SUCCESS;
}

#define LIST(symbol, version, list, type)                                                   \
	nvmlReturn_t pen_##symbol(nvmlDevice_t device, unsigned int *count, type *infos)    \
	{                                                                                   \
		return list_v##version(device, list, count, infos);                         \
	}

LIST(nvmlDeviceGetComputeRunningProcesses, 1, true, nvmlProcessInfo_v1_t)
LIST(nvmlDeviceGetComputeRunningProcesses_v2, 2, true, nvmlProcessInfo_v2_t)
LIST(nvmlDeviceGetComputeRunningProcesses_v3, 2, true, nvmlProcessInfo_t)
LIST(nvmlDeviceGetGraphicsRunningProcesses, 1, false, nvmlProcessInfo_v1_t)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, 2, false, nvmlProcessInfo_v2_t)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, 2, false, nvmlProcessInfo_t)
LIST(nvmlDeviceGetMPSComputeRunningProcesses, 1, false, nvmlProcessInfo_v1_t)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2, 2, false, nvmlProcessInfo_v2_t)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, 2, false, nvmlProcessInfo_t)

nvmlReturn_t pen_nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_t *list)
{
	struct pen_nv_device *d;
	struct pen_nv_use v[PEN_NV_CLIENTS];
	unsigned int gpu, compute;
	uint32_t n;
	if (!list)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (list->version != PEN_NV_VERSION(nvmlProcessDetailList_v1_t, 1))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	nvmlReturn_t r = on_device(device, list->mode == 0, &d, v, &n);
	if (!r)
		r = pen_nv_room(n, &list->numProcArrayEntries, list->procArray);
	if (r)
		return r;
	instance_of(d, &gpu, &compute);
	for (uint32_t i = 0; i < n; i++)
		list->procArray[i] = (nvmlProcessDetail_v1_t){ .pid = v[i].pid, .usedGpuMemory = v[i].bytes, .gpuInstanceId = gpu,
							       .computeInstanceId = compute };
	return NVML_SUCCESS;
}

/* ---- what they do ---------------------------------------------------------------------------------------------------------- */

/* Those that did something in the last span, if that ended after @last_seen_us. */
static nvmlReturn_t busy(nvmlDevice_t device, unsigned long long last_seen_us, struct pen_nv_use v[PEN_NV_CLIENTS], uint32_t *ret_n,
			 unsigned long long *ret_stamp_us)
{
	struct pen_nv_device *d;
	uint32_t util, all, n = 0;
	nvmlReturn_t r = pen_nv_gate(device, &d);
	if (r)
		return r;
	if (!pen_nv_use(d, &util, v, &all, ret_stamp_us))
		return NVML_ERROR_NOT_SUPPORTED;
	for (uint32_t i = 0; i < all; i++)
		if (v[i].pid && v[i].util)
			v[n++] = v[i];
	*ret_n = n;
	return n && *ret_stamp_us > last_seen_us ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t pen_nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *samples, unsigned int *count,
						 unsigned long long last_seen_us)
{
	struct pen_nv_use v[PEN_NV_CLIENTS];
	unsigned long long stamp;
	uint32_t n;
	nvmlReturn_t r = busy(device, last_seen_us, v, &n, &stamp);
	if (!r)
		r = count ? pen_nv_room(n, count, samples) : NVML_ERROR_INVALID_ARGUMENT;
	for (uint32_t i = 0; !r && i < n; i++)
		samples[i] = (nvmlProcessUtilizationSample_t){ .pid = v[i].pid, .timeStamp = stamp, .smUtil = v[i].util };
	return r;
}

nvmlReturn_t pen_nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t device, nvmlProcessesUtilizationInfo_t *info)
{
	struct pen_nv_use v[PEN_NV_CLIENTS];
	unsigned long long stamp;
	uint32_t n;
	if (!info)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (info->version != PEN_NV_VERSION(nvmlProcessesUtilizationInfo_v1_t, 1))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	nvmlReturn_t r = busy(device, info->lastSeenTimeStamp, v, &n, &stamp);
	if (!r)
		r = pen_nv_room(n, &info->processSamplesCount, info->procUtilArray);
	for (uint32_t i = 0; !r && i < n; i++)
		info->procUtilArray[i] = (nvmlProcessUtilizationInfo_v1_t){ .timeStamp = stamp, .pid = v[i].pid, .smUtil = v[i].util };
	return r;
}

/* The driver's book of past processes is of everybody. */
nvmlReturn_t pen_nvmlDeviceGetAccountingPids(nvmlDevice_t device, unsigned int *count, unsigned int *pids)
{
	struct pen_nv_device *d;
	(void)count, (void)pids;
	nvmlReturn_t r = pen_nv_find(device, &d);
	return r ? r : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t pen_nvmlDeviceGetAccountingStats(nvmlDevice_t device, unsigned int pid, nvmlAccountingStats_t *stats)
{
	struct pen_nv_device *d;
	(void)pid, (void)stats;
	nvmlReturn_t r = pen_nv_find(device, &d);
	return r ? r : NVML_ERROR_NOT_SUPPORTED;
}

/* ---- sessions of the encoder and of frame capture --------------------------------------------------------------------------- */

#define SESSIONS 512

/*
 * The library's list less other tenants': both kinds of record have the process in the second word. @v: SESSIONS records.
 * Return: how many are left.
 */
static unsigned int own_sessions(struct pen_nv_device *d, unsigned char *v, size_t bytes, unsigned int n)
{
	struct pen_nv_use own[PEN_NV_CLIENTS];
	uint32_t nown = pen_nv_clients(d, own);
	unsigned int kept = 0;
	for (unsigned int i = 0; i < n; i++) {
		uint32_t pid;
		bool ours = false;
		memcpy(&pid, v + i * bytes + offsetof(nvmlEncoderSessionInfo_t, pid), sizeof(pid));
		for (uint32_t k = 0; k < nown; k++)
			ours |= pid && own[k].pid == pid;
		if (ours)
			memmove(v + kept++ * bytes, v + i * bytes, bytes);
	}
	return kept;
}

_Static_assert(offsetof(nvmlEncoderSessionInfo_t, pid) == offsetof(nvmlFBCSessionInfo_t, pid), "second word");

typedef nvmlReturn_t sessions_fn(nvmlDevice_t, unsigned int *, void *);

static nvmlReturn_t sessions(sessions_fn *real, nvmlDevice_t device, unsigned int *count, void *room, size_t bytes)
{
	struct pen_nv_device *d;
	nvmlReturn_t r = real ? pen_nv_gate(device, &d) : NVML_ERROR_FUNCTION_NOT_FOUND;
	if (r)
		return r;
	if (!count)
		return NVML_ERROR_INVALID_ARGUMENT;
	unsigned int n = SESSIONS;
	unsigned char *v = calloc(SESSIONS, bytes);
	if (!v)
		return NVML_ERROR_MEMORY;
	r = real(device, &n, v);
	if (!r)
		n = own_sessions(d, v, bytes, n < SESSIONS ? n : SESSIONS);
	if (!r && !room)
		*count = n;   /* a question for the number alone succeeds here, as documented */
	else if (!r)
		r = pen_nv_room(n, count, room);
	if (!r && room)
		memcpy(room, v, n * bytes);
	free(v);
	return r;
}

nvmlReturn_t pen_nvmlDeviceGetEncoderSessions(nvmlDevice_t device, unsigned int *count, nvmlEncoderSessionInfo_t *infos)
{
	return sessions((sessions_fn *)(pen_nv_any_fn)REAL(nvmlDeviceGetEncoderSessions), device, count, infos, sizeof(*infos));
}

nvmlReturn_t pen_nvmlDeviceGetFBCSessions(nvmlDevice_t device, unsigned int *count, nvmlFBCSessionInfo_t *infos)
{
	return sessions((sessions_fn *)(pen_nv_any_fn)REAL(nvmlDeviceGetFBCSessions), device, count, infos, sizeof(*infos));
}
