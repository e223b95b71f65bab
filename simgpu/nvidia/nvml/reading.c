/* SPDX-License-Identifier: Apache-2.0 */
/* Memory, utilisation, clocks, power, errors: the server's readings, with the delay and noise that it gives them. */
#include "simgpu/nvidia/nvml/ml.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define SAMPLE_US 166667          /* over which utilisation is said to be averaged */
#define BAR1_BYTES (UINT64_C(256) << 20)

nvmlReturn_t sim_nv_reading(nvmlDevice_t d, struct sim_nv_reading *ret)
{
	nvmlDevice_t card = d->parent ? d->parent : d;
	if (sim_nv.null) {
		sim_nv_null_reading(card->index, ret);
	} else {
		*ret = (struct sim_nv_reading){ 0 };
		int r = sim_reading(sim_nv.server, card->index, &ret->r);
		if (r < 0)
			return r == -ENODEV ? NVML_ERROR_GPU_IS_LOST : NVML_ERROR_UNKNOWN;
	}
	if (d->parent) {   /* what is used is nowhere said per instance: equal parts, as they are made */
		ret->r.mem_used_bytes /= d->parent->instances;
		ret->reserved_bytes /= d->parent->instances;
	}
	return NVML_SUCCESS;
}

#define READ(d)                                           \
	ENTER_DEVICE(d);                                  \
	struct sim_nv_reading now;                        \
	nvmlReturn_t read_ = sim_nv_reading(d, &now);     \
	if (read_)                                        \
		return read_

/* ---- memory ---------------------------------------------------------------------------------------------------------- */

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, nvmlMemory_t *m)
{
	READ(d);
	NEED(m);
	m->total = d->card.mem_bytes;
	m->used = now.r.mem_used_bytes + now.reserved_bytes;
	m->free = m->total > m->used ? m->total - m->used : 0;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t d, nvmlMemory_v2_t *m)
{
	READ(d);
	NEED(m);
	if (m->version != PEN_NV_VERSION(nvmlMemory_v2_t, 2))
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	m->total = d->card.mem_bytes;
	m->reserved = now.reserved_bytes;
	m->used = now.r.mem_used_bytes;
	m->free = m->total > m->used + m->reserved ? m->total - m->used - m->reserved : 0;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t d, nvmlBAR1Memory_t *m)
{
	READ(d);
	NEED(m);
	*m = (nvmlBAR1Memory_t){ .bar1Total = BAR1_BYTES, .bar1Free = BAR1_BYTES - (2 << 20), .bar1Used = 2 << 20 };
	return NVML_SUCCESS;
}

/* ---- how busy ---------------------------------------------------------------------------------------------------------- */

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t d, nvmlUtilization_t *u)
{
	READ(d);
	NEED(u);
	if (d->parent)
		return NVML_ERROR_NOT_SUPPORTED;   /* as with MIG */
	u->gpu = now.r.gpu_util;
	u->memory = now.r.mem_util;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEncoderUtilization(nvmlDevice_t d, unsigned int *utilization, unsigned int *period_us)
{
	READ(d);
	NEED(utilization && period_us);
	*utilization = now.r.enc_util;
	*period_us = SAMPLE_US;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetDecoderUtilization(nvmlDevice_t d, unsigned int *utilization, unsigned int *period_us)
{
	READ(d);
	NEED(utilization && period_us);
	*utilization = now.r.dec_util;
	*period_us = SAMPLE_US;
	return NVML_SUCCESS;
}

/* One sample: the last. */
nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t d, nvmlSamplingType_t type, unsigned long long last_seen, nvmlValueType_t *value_type,
				  unsigned int *count, nvmlSample_t *samples)
{
	READ(d);
	NEED(value_type && count);
	unsigned int value;
	switch (type) {
	case NVML_TOTAL_POWER_SAMPLES: value = now.r.power_mw; break;
	case NVML_GPU_UTILIZATION_SAMPLES: value = now.r.gpu_util; break;
	case NVML_MEMORY_UTILIZATION_SAMPLES: value = now.r.mem_util; break;
	case NVML_ENC_UTILIZATION_SAMPLES: value = now.r.enc_util; break;
	case NVML_DEC_UTILIZATION_SAMPLES: value = now.r.dec_util; break;
	case NVML_PROCESSOR_CLK_SAMPLES: value = now.r.sm_clock_mhz; break;
	default: return NVML_ERROR_NOT_SUPPORTED;
	}
	*value_type = NVML_VALUE_TYPE_UNSIGNED_INT;
	if (!samples) {
		*count = 1;
		return NVML_SUCCESS;
	}
	unsigned long long at = sim_nv_now_us();
	if (at <= last_seen || !*count)
		return at <= last_seen ? NVML_ERROR_NOT_FOUND : NVML_ERROR_INVALID_ARGUMENT;
	*count = 1;
	samples[0] = (nvmlSample_t){ .timeStamp = at, .sampleValue.uiVal = value };
	return NVML_SUCCESS;
}

static uint64_t mono_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* KB/s since the last question, of whoever asked it. */
nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t d, nvmlPcieUtilCounter_t counter, unsigned int *value)
{
	READ(d);
	NEED(value && counter <= NVML_PCIE_UTIL_RX_BYTES);
	uint64_t at = mono_ns(), bytes = counter == NVML_PCIE_UTIL_TX_BYTES ? now.r.pcie_tx_bytes : now.r.pcie_rx_bytes;
	uint64_t *last = counter == NVML_PCIE_UTIL_TX_BYTES ? &d->pcie_tx : &d->pcie_rx;
	uint64_t span = at - d->pcie_at_ns;
	*value = d->pcie_at_ns && span && bytes > *last ? (unsigned int)((double)(bytes - *last) / 1024 * 1e9 / (double)span) : 0;
	*last = bytes;
	d->pcie_at_ns = at;
	return NVML_SUCCESS;
}

/* ---- clocks, power, temperature ------------------------------------------------------------------------------------------ */

static nvmlReturn_t clock_of(nvmlDevice_t d, nvmlClockType_t type, uint64_t sm_mhz, unsigned int *mhz)
{
	NEED(mhz && type <= NVML_CLOCK_VIDEO);
	*mhz = type == NVML_CLOCK_MEM ? d->card.mem_clock_khz / 1000 : (unsigned int)sm_mhz;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t d, nvmlClockType_t type, unsigned int *mhz)
{
	READ(d);
	return clock_of(d, type, now.r.sm_clock_mhz, mhz);
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t d, nvmlClockType_t type, unsigned int *mhz)
{
	READ(d);
	return clock_of(d, type, d->card.clock_khz / 1000, mhz);
}

nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t d, nvmlClockType_t type, nvmlClockId_t id, unsigned int *mhz)
{
	READ(d);
	return clock_of(d, type, id == NVML_CLOCK_ID_CURRENT ? now.r.sm_clock_mhz : d->card.clock_khz / 1000, mhz);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t d, nvmlTemperatureSensors_t sensor, unsigned int *celsius)
{
	READ(d);
	NEED(celsius && sensor == NVML_TEMPERATURE_GPU);
	*celsius = now.r.temperature_c;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t d, unsigned int *mw)
{
	READ(d);
	NEED(mw);
	*mw = now.r.power_mw;
	return NVML_SUCCESS;
}

/* ---- errors of memory ------------------------------------------------------------------------------------------------------ */

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t d, nvmlEnableState_t *current, nvmlEnableState_t *pending)
{
	ENTER_DEVICE(d);
	NEED(current && pending);
	*current = *pending = NVML_FEATURE_ENABLED;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t d, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter,
					 unsigned long long *count)
{
	READ(d);
	NEED(count && type <= NVML_MEMORY_ERROR_TYPE_UNCORRECTED && counter <= NVML_AGGREGATE_ECC);
	*count = type == NVML_MEMORY_ERROR_TYPE_UNCORRECTED ? now.r.ecc_uncorrected : 0;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetDetailedEccErrors(nvmlDevice_t d, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter,
					    nvmlEccErrorCounts_t *counts)
{
	NEED(counts);
	*counts = (nvmlEccErrorCounts_t){ 0 };
	return nvmlDeviceGetTotalEccErrors(d, type, counter, &counts->deviceMemory);
}

nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t d, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter,
					     nvmlMemoryLocation_t where, unsigned long long *count)
{
	unsigned long long total = 0;
	nvmlReturn_t r = nvmlDeviceGetTotalEccErrors(d, type, counter, &total);
	NEED(count);
	*count = where == NVML_MEMORY_LOCATION_DRAM ? total : 0;
	return r;
}
