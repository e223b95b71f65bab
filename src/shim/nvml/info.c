/* SPDX-License-Identifier: Apache-2.0 */
/* Memory, multiprocessors and utilisation as the contract has them; what would tell of everybody is not supported. */
#include "shim/nvml/nv.h"

#include "base/auto.h"

/* ---- memory ----------------------------------------------------------------------------------------------------------- */

struct view { uint64_t total, used, free; };

/* The same numbers that cuMemGetInfo gives: the limit, what the whole tenant uses, the rest. */
static struct view view_of(struct pen_nv_device *d, uint64_t real_total, uint64_t real_free)
{
	struct pen_mem_view m;
	pen_nv_door()->mem_view(d->gate, &m);
	bool unlimited = m.limit_bytes == UINT64_MAX;
	struct view v;
	v.total = PEN_MIN(m.limit_bytes, real_total);
	v.used = PEN_MIN(m.used_bytes, v.total);   /* a limit may have been lowered below what is in use */
	v.free = v.total - v.used;
	if (unlimited)
		v.free = PEN_MIN(v.free, real_free);
	return v;
}

static nvmlReturn_t memory_v1(nvmlReturn_t (*real)(nvmlDevice_t, nvmlMemory_t *), nvmlDevice_t device, nvmlMemory_t *memory)
{
	struct pen_nv_device *d;
	if (!real)
		return NVML_ERROR_FUNCTION_NOT_FOUND;
	nvmlMemory_t m = { 0 };
	nvmlReturn_t r = real(device, memory ? &m : NULL);
	if (r || !memory)
		return r ? r : NVML_ERROR_INVALID_ARGUMENT;
	r = pen_nv_gate(device, &d);
	if (r)
		return r;
	struct view v = view_of(d, m.total, m.free);
	*memory = (nvmlMemory_t){ .total = v.total, .free = v.free, .used = v.used };
	return NVML_SUCCESS;
}

nvmlReturn_t pen_nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
	return memory_v1(REAL(nvmlDeviceGetMemoryInfo), device, memory);
}

nvmlReturn_t pen_nvmlDeviceGetConfComputeProtectedMemoryUsage(nvmlDevice_t device, nvmlMemory_t *memory)
{
	return memory_v1(REAL(nvmlDeviceGetConfComputeProtectedMemoryUsage), device, memory);
}

/* A driver before 510 has the first form only; the contract's numbers fit into both. */
static nvmlReturn_t memory_v2_of_v1(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
	nvmlMemory_t m = { 0 };
	nvmlReturn_t r = memory_v1(REAL(nvmlDeviceGetMemoryInfo), device, memory ? &m : NULL);
	if (r)
		return r;
	if (memory->version != PEN_NV_VERSION(nvmlMemory_v2_t, 2))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	*memory = (nvmlMemory_v2_t){ .version = memory->version, .total = m.total, .free = m.free, .used = m.used };
	return NVML_SUCCESS;
}

nvmlReturn_t pen_nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
	struct pen_nv_device *d;
	if (!REAL(nvmlDeviceGetMemoryInfo_v2))
		return memory_v2_of_v1(device, memory);
	nvmlMemory_v2_t m = { .version = memory ? memory->version : 0 };
	nvmlReturn_t r = REAL(nvmlDeviceGetMemoryInfo_v2)(device, memory ? &m : NULL);
	if (r || !memory)
		return r ? r : NVML_ERROR_INVALID_ARGUMENT;
	r = pen_nv_gate(device, &d);
	if (r)
		return r;
	/* Nothing is reserved of a limit: what the driver keeps is outside of it. */
	struct view v = view_of(d, m.total - PEN_MIN(m.reserved, m.total), m.free);
	*memory = (nvmlMemory_v2_t){ .version = m.version, .total = v.total, .free = v.free, .used = v.used };
	return NVML_SUCCESS;
}

/* ---- multiprocessors ------------------------------------------------------------------------------------------------------ */

/* The part of a device's units that the contract gives: *@ret_of out of *@ret_all; both 0: all. */
static void units_of(struct pen_nv_device *d, uint32_t *ret_of, uint32_t *ret_all)
{
	const struct pen_terms *t = pen_nv_door()->terms(d->gate);
	bool part = t && t->units && t->units_total && t->units < t->units_total;
	*ret_of = part ? t->units : 0;
	*ret_all = part ? t->units_total : 0;
}

nvmlReturn_t pen_nvmlDeviceGetNumGpuCores(nvmlDevice_t device, unsigned int *cores)
{
	struct pen_nv_device *d;
	uint32_t of, all;
	nvmlReturn_t r = REAL(nvmlDeviceGetNumGpuCores) ? REAL(nvmlDeviceGetNumGpuCores)(device, cores) : NVML_ERROR_FUNCTION_NOT_FOUND;
	if (r)
		return r;
	r = pen_nv_find(device, &d);
	if (r || !d->gate)
		return r;
	units_of(d, &of, &all);
	if (all)
		*cores = (unsigned int)((uint64_t)*cores * of / all);
	return NVML_SUCCESS;
}

/* The first form ends before memorySizeMB. */
static nvmlReturn_t attributes(nvmlReturn_t (*real)(nvmlDevice_t, nvmlDeviceAttributes_t *), nvmlDevice_t device,
			       nvmlDeviceAttributes_t *a, bool whole)
{
	struct pen_nv_device *d;
	struct pen_mem_view m;
	uint32_t of, all;
	nvmlReturn_t r = real ? real(device, a) : NVML_ERROR_FUNCTION_NOT_FOUND;
	if (!r)
		r = pen_nv_gate(device, &d);
	if (r)
		return r;
	units_of(d, &of, &all);
	if (all)
		a->multiprocessorCount = PEN_MIN(a->multiprocessorCount, of);
	pen_nv_door()->mem_view(d->gate, &m);
	if (whole && m.limit_bytes != UINT64_MAX)
		a->memorySizeMB = PEN_MIN(a->memorySizeMB, m.limit_bytes >> 20);
	return NVML_SUCCESS;
}

nvmlReturn_t pen_nvmlDeviceGetAttributes(nvmlDevice_t device, nvmlDeviceAttributes_t *a)
{
	return attributes(REAL(nvmlDeviceGetAttributes), device, a, false);
}

nvmlReturn_t pen_nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *a)
{
	return attributes(REAL(nvmlDeviceGetAttributes_v2), device, a, true);
}

/* ---- utilisation ------------------------------------------------------------------------------------------------------------- */

/* How much of the time memory was read or written is known for everybody together only: it stays 0. */
nvmlReturn_t pen_nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
	struct pen_nv_device *d;
	struct pen_nv_use v[PEN_NV_CLIENTS];
	unsigned long long stamp;
	uint32_t util, n;
	nvmlReturn_t r = REAL(nvmlDeviceGetUtilizationRates) ? REAL(nvmlDeviceGetUtilizationRates)(device, utilization) :
							       NVML_ERROR_FUNCTION_NOT_FOUND;
	if (!r)
		r = pen_nv_gate(device, &d);
	if (r)
		return r;
	if (!pen_nv_use(d, &util, v, &n, &stamp)) {
		*utilization = (nvmlUtilization_t){ 0 };
		return NVML_ERROR_NOT_SUPPORTED;
	}
	*utilization = (nvmlUtilization_t){ .gpu = util };
	return NVML_SUCCESS;
}

/* Power and clocks are true whoever asks; busy engines are everybody's. */
nvmlReturn_t pen_nvmlDeviceGetSamples(nvmlDevice_t device, nvmlSamplingType_t type, unsigned long long last_seen,
				      nvmlValueType_t *value_type, unsigned int *count, nvmlSample_t *samples)
{
	struct pen_nv_device *d;
	if (!REAL(nvmlDeviceGetSamples))
		return NVML_ERROR_FUNCTION_NOT_FOUND;
	switch (type) {
	case NVML_TOTAL_POWER_SAMPLES:
	case NVML_PROCESSOR_CLK_SAMPLES:
	case NVML_MEMORY_CLK_SAMPLES:
	case NVML_MODULE_POWER_SAMPLES:
		return REAL(nvmlDeviceGetSamples)(device, type, last_seen, value_type, count, samples);
	default:;
		nvmlReturn_t r = pen_nv_find(device, &d);
		return r ? r : NVML_ERROR_NOT_SUPPORTED;
	}
}

/* The metrics of GPM are of the whole device. */
nvmlReturn_t pen_nvmlGpmQueryDeviceSupport(nvmlDevice_t device, nvmlGpmSupport_t *support)
{
	nvmlReturn_t r = REAL(nvmlGpmQueryDeviceSupport) ? REAL(nvmlGpmQueryDeviceSupport)(device, support) : NVML_ERROR_FUNCTION_NOT_FOUND;
	if (!r)
		support->isSupportedDevice = 0;
	return r;
}

nvmlReturn_t pen_nvmlGpmSampleGet(nvmlDevice_t device, nvmlGpmSample_t sample)
{
	struct pen_nv_device *d;
	(void)sample;
	nvmlReturn_t r = REAL(nvmlGpmSampleGet) ? pen_nv_find(device, &d) : NVML_ERROR_FUNCTION_NOT_FOUND;
	return r ? r : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t pen_nvmlGpmMigSampleGet(nvmlDevice_t device, unsigned int instance, nvmlGpmSample_t sample)
{
	(void)instance;
	return pen_nvmlGpmSampleGet(device, sample);
}
