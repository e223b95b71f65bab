/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cards without a server. They do nothing by themselves: what a monitoring program shall see is written by a test into the file
 * that SIM_NVML_STATE names, and read anew at every call (README.md has its words).
 */
#include "simgpu/nvidia/nvml/ml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE 256

unsigned int sim_nv_null_cards(const char *where)
{
	char *end;
	if (strncmp(where, "null", 4) != 0)
		return 0;
	if (!where[4])
		return 1;
	if (where[4] != ':')
		return 0;
	unsigned long n = strtoul(where + 5, &end, 10);
	return *end || n < 1 || n > SIM_NV_DEVICES ? 0 : (unsigned int)n;
}

/* As in the stand-in libcuda: a T4's figures, one made-up UUID and address per card. */
void sim_nv_null_card(unsigned int i, struct sim_card *ret)
{
	*ret = (struct sim_card){
		.name = "Penstock null device",
		.uuid = { 0x70, 0x65, 0x6e, 0x73, 0x74, 0x6f, 0x63, 0x6b, 0x2d, 0x6e, 0x75, 0x6c, 0x6c, 0x2d, 0x30, 0x30 },
		.pci_bus = 1 + i,
		.cc_major = 7, .cc_minor = 5,
		.units = 40,
		.clock_khz = 1590000, .mem_clock_khz = 5001000, .mem_bus_bits = 256,
		.mem_bytes = UINT64_C(16) << 30,
	};
	ret->uuid[15] = (uint8_t)('0' + i);
	const char *unreal = getenv("SIM_NVML_MEMORY");   /* of a card that must not be mistaken for another */
	if (unreal)
		ret->mem_bytes = strtoull(unreal, NULL, 10);
}

unsigned int sim_nv_null_instances(void)
{
	const char *s = getenv("SIM_NVML_MIG");
	unsigned long n = s ? strtoul(s, NULL, 10) : 0;
	return n > SIM_NV_INSTANCES ? SIM_NV_INSTANCES : (unsigned int)n;
}

static FILE *open_state(void)
{
	const char *path = sim_nv.null ? getenv("SIM_NVML_STATE") : NULL;
	return path ? fopen(path, "re") : NULL;
}

/* The next line "WORD rest" with @word, of those for @device (all that follow "device N"; before the first one: for each). */
static const char *next(FILE *f, unsigned int device, const char *word, char line[LINE])
{
	static _Thread_local FILE *of;
	static _Thread_local long now;
	if (of != f || ftell(f) == 0) {
		of = f;
		now = -1;
	}
	while (fgets(line, LINE, f)) {
		line[strcspn(line, "\n")] = 0;
		size_t n = strcspn(line, " ");
		char *rest = line[n] ? line + n + 1 : line + n;
		line[n] = 0;
		if (!strcmp(line, "device"))
			now = strtol(rest, NULL, 10);
		else if (!strcmp(line, word) && (now < 0 || now == (long)device))
			return rest;
	}
	return NULL;
}

nvmlReturn_t sim_nv_null_failure(const char *name)
{
	char line[LINE];
	unsigned int code = NVML_SUCCESS;
	FILE *f = open_state();
	for (const char *s; f && !code && (s = next(f, 0, "fail", line)) != NULL;) {
		size_t n = strcspn(s, " ");
		if (strlen(name) == n && !strncmp(s, name, n))
			code = (unsigned int)strtoul(s + n, NULL, 10);
	}
	if (f)
		fclose(f);
	return code;
}

static void value(unsigned int device, const char *word, uint64_t *ret)
{
	char line[LINE];
	FILE *f = open_state();
	for (const char *s; f && (s = next(f, device, word, line)) != NULL;)
		*ret = strtoull(s, NULL, 10);
	if (f)
		fclose(f);
}

void sim_nv_null_reading(unsigned int device, struct sim_nv_reading *ret)
{
	uint64_t used = 0, reserved = 0, gpu = 0, mem = 0, enc = 0, dec = 0, temperature = 33, power = 9000, clock = 300, ecc = 0, xid = 0,
		 lost = 0;
	value(device, "mem_used", &used);
	value(device, "reserved", &reserved);
	value(device, "gpu_util", &gpu);
	value(device, "mem_util", &mem);
	value(device, "enc_util", &enc);
	value(device, "dec_util", &dec);
	value(device, "temperature", &temperature);
	value(device, "power", &power);
	value(device, "clock", &clock);
	value(device, "ecc", &ecc);
	value(device, "xid", &xid);
	value(device, "lost", &lost);
	*ret = (struct sim_nv_reading){
		.r = {
			.mem_used_bytes = used, .gpu_util = (uint32_t)gpu, .mem_util = (uint32_t)mem, .enc_util = (uint32_t)enc,
			.dec_util = (uint32_t)dec, .temperature_c = (uint32_t)temperature, .power_mw = (uint32_t)power,
			.sm_clock_mhz = (uint32_t)clock, .ecc_uncorrected = (uint32_t)ecc, .xid = (uint32_t)xid, .lost = lost != 0,
		},
		.reserved_bytes = reserved,
	};
}

/* process PID BYTES SM MEM ENC DEC LISTS, the last one letters of c, g, m */
unsigned int sim_nv_null_processes(unsigned int device, struct sim_nv_process v[SIM_NV_PROCESSES])
{
	char line[LINE], lists[8];
	unsigned int n = 0;
	FILE *f = open_state();
	for (const char *s; f && n < SIM_NV_PROCESSES && (s = next(f, device, "process", line)) != NULL;) {
		struct sim_process *p = &v[n].p;
		unsigned long long bytes;
		if (sscanf(s, "%u %llu %u %u %u %u %7s", &p->pid, &bytes, &p->sm_util, &p->mem_util, &p->enc_util, &p->dec_util, lists) != 7)
			continue;
		p->mem_bytes = bytes;
		v[n++].lists = (strchr(lists, 'c') ? SIM_NV_COMPUTE : 0) | (strchr(lists, 'g') ? SIM_NV_GRAPHICS : 0) |
			       (strchr(lists, 'm') ? SIM_NV_MPS : 0);
	}
	if (f)
		fclose(f);
	return n;
}
