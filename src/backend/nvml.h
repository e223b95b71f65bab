/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BACKEND_NVML_H
#define PEN_BACKEND_NVML_H
/*
 * NVIDIA's management library by dlopen, any version from driver 418 on: what this file names is there or NULL, and the newest form
 * of a call that is there is used. Its tables are kept for ever: vendor libraries do not survive dlclose.
 *
 * Threads: one. May crash or hang with the vendor's library: call it in a process that can be lost (penstock-probe).
 * Units: bytes, per cent, microseconds. Errors: NVML's codes inside, negative errno with a text to callers.
 */
#include "api/nvml_abi.h"
#include "backend/backend.h"

#include <stdbool.h>

/* Entry points used; those of OPTIONAL may be missing. */
#define PEN_NVML_NEEDED(X) X(nvmlDeviceGetCount_v2) X(nvmlDeviceGetHandleByIndex_v2) X(nvmlDeviceGetName) X(nvmlDeviceGetMemoryInfo)
#define PEN_NVML_OPTIONAL(X)                                                                                             \
	X(nvmlInit_v2) X(nvmlInit) X(nvmlShutdown)                                                                       \
	X(nvmlSystemGetDriverVersion) X(nvmlDeviceGetUUID) X(nvmlDeviceGetPciInfo_v3) X(nvmlDeviceGetPciInfo_v2)         \
	X(nvmlDeviceGetPciInfo) X(nvmlDeviceGetMemoryInfo_v2) X(nvmlDeviceGetNumGpuCores)                                \
	X(nvmlDeviceGetCudaComputeCapability) X(nvmlDeviceGetAttributes_v2) X(nvmlDeviceGetMigMode)                      \
	X(nvmlDeviceGetMaxMigDeviceCount) X(nvmlDeviceGetMigDeviceHandleByIndex)                                         \
	X(nvmlDeviceGetUtilizationRates) X(nvmlDeviceGetEncoderUtilization) X(nvmlDeviceGetDecoderUtilization)           \
	X(nvmlDeviceGetTemperature) X(nvmlDeviceGetPowerUsage) X(nvmlDeviceGetProcessUtilization)                        \
	X(nvmlDeviceGetComputeRunningProcesses) X(nvmlDeviceGetComputeRunningProcesses_v2)                               \
	X(nvmlDeviceGetComputeRunningProcesses_v3) X(nvmlDeviceGetGraphicsRunningProcesses)                              \
	X(nvmlDeviceGetGraphicsRunningProcesses_v2) X(nvmlDeviceGetGraphicsRunningProcesses_v3)                          \
	X(nvmlDeviceGetMPSComputeRunningProcesses) X(nvmlDeviceGetMPSComputeRunningProcesses_v2)                         \
	X(nvmlDeviceGetMPSComputeRunningProcesses_v3) X(nvmlEventSetCreate) X(nvmlEventSetFree)                          \
	X(nvmlDeviceRegisterEvents) X(nvmlEventSetWait_v2) X(nvmlEventSetWait)

/* All of NVML's signatures; a file takes those that it uses. */
struct pen_nvml_types {
#define PEN_NV(symbol, since, class, types) nvmlReturn_t (*symbol) types;
#define PEN_NV_TEXT(symbol, since, class, types) const char *(*symbol) types;
#include "api/nvml.def"
};

struct pen_nvml {
#define X(symbol) __typeof__(((struct pen_nvml_types *)0)->symbol) symbol;
	PEN_NVML_NEEDED(X) PEN_NVML_OPTIONAL(X)
#undef X
	const char *(*nvmlErrorString)(nvmlReturn_t);
};

/* Opens the library; once. 0; -ENOENT it is not there; -ELIBBAD it lacks a symbol. */
int pen_nvml_load(const struct pen_nvml **ret, struct pen_err *err);
/* 0; -EIO: no driver, or library and kernel module differ. Counted by the library: pair with pen_nvml_stop(). */
int pen_nvml_start(const struct pen_nvml *nv, struct pen_err *err);
void pen_nvml_stop(const struct pen_nvml *nv);
const char *pen_nvml_text(const struct pen_nvml *nv, nvmlReturn_t code);

/* A card, or under MIG one instance: what programs can use. */
struct pen_nvml_device {
	nvmlDevice_t handle;
	nvmlDevice_t card;            /* that it is an instance of; = handle if MIG is off */
	bool is_instance;
	char key[PEN_DEVKEY_MAX];
};

/*
 * pen_nvml_devices - all that can be used now, in the library's order; one that does not answer is left out
 * Return: their number; -EIO.
 */
int pen_nvml_devices(const struct pen_nvml *nv, struct pen_nvml_device *v, size_t room, struct pen_err *err);

struct pen_nvml_memory { uint64_t total_bytes, used_bytes, reserved_bytes; };   /* used: without what is reserved, where that is told */
nvmlReturn_t pen_nvml_memory(const struct pen_nvml *nv, nvmlDevice_t d, struct pen_nvml_memory *ret);

#endif
