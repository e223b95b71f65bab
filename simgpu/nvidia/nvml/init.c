/* SPDX-License-Identifier: Apache-2.0 */
/* nvmlInit and what the library says of itself; errors by name; handles checked. */
#include "simgpu/nvidia/nvml/ml.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct sim_nv_state sim_nv;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned int users;          /* calls of nvmlInit that nvmlShutdown has not undone; under the lock */
static _Atomic bool ready;
static bool found;

const char *sim_nv_driver(void)
{
	const char *s = getenv("SIM_NVML_DRIVER");
	return s && *s ? s : sim_nv_default_driver;
}

unsigned int sim_nv_major(void)
{
	return (unsigned int)strtoul(sim_nv_driver(), NULL, 10);
}

unsigned long long sim_nv_now_us(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (unsigned long long)ts.tv_sec * 1000000 + (unsigned long long)ts.tv_nsec / 1000;
}

/* Equal parts of memory and units, under UUIDs of their own: what programs see of MIG, not its geometry. */
static void add_instances(struct nvmlDevice_st *d, unsigned int n)
{
	d->instances = n;
	for (unsigned int i = 0; i < n; i++) {
		struct nvmlDevice_st *m = &sim_nv.instance[d->index][i];
		*m = (struct nvmlDevice_st){ .card = d->card, .index = i, .instance = (int)i, .parent = d };
		m->card.mem_bytes /= n;
		m->card.units /= n;
		m->card.uuid[0] = (uint8_t)(0xA0 + i);
	}
}

static void add_card(const struct sim_card *card)
{
	unsigned int i = sim_nv.devices++;
	sim_nv.device[i] = (struct nvmlDevice_st){ .card = *card, .index = i, .instance = -1 };
	if (sim_nv.null)
		add_instances(&sim_nv.device[i], sim_nv_null_instances());
}

static nvmlReturn_t find_cards(void)
{
	const char *where = getenv(SIM_ENV);
	unsigned int n = where ? sim_nv_null_cards(where) : 0;
	if (n) {
		sim_nv.null = true;
		for (unsigned int i = 0; i < n; i++) {
			struct sim_card card;
			sim_nv_null_card(i, &card);
			add_card(&card);
		}
		return NVML_SUCCESS;
	}
	if (!where || sim_connect(where, &sim_nv.server) < 0)
		return NVML_ERROR_DRIVER_NOT_LOADED;
	for (unsigned int i = 0; i < sim_cards(sim_nv.server) && i < SIM_NV_DEVICES; i++)
		add_card(sim_card(sim_nv.server, i));
	return NVML_SUCCESS;
}

static void forked(void)
{
	pthread_mutex_init(&lock, NULL);
	if (sim_nv.server)
		sim_after_fork(sim_nv.server);
	sim_nv.server = NULL;
	sim_nv.devices = 0;
	users = 0;
	found = false;
	ready = false;
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
	static bool watched;
	(void)flags;
	pthread_mutex_lock(&lock);
	if (!watched)
		pthread_atfork(NULL, NULL, forked);
	watched = true;
	nvmlReturn_t r = found ? NVML_SUCCESS : find_cards();
	found = r == NVML_SUCCESS;
	if (found)
		r = sim_nv_null_failure("nvmlInit_v2");
	if (r == NVML_SUCCESS) {
		users++;
		ready = true;
	}
	pthread_mutex_unlock(&lock);
	return r;
}

nvmlReturn_t nvmlInit_v2(void)
{
	return nvmlInitWithFlags(0);
}

nvmlReturn_t nvmlInit(void)
{
	return nvmlInitWithFlags(0);
}

nvmlReturn_t nvmlShutdown(void)
{
	ENTER();
	pthread_mutex_lock(&lock);
	if (users && --users == 0)
		ready = false;
	pthread_mutex_unlock(&lock);
	return NVML_SUCCESS;
}

nvmlReturn_t sim_nv_enter(const char *name)
{
	return ready ? sim_nv_null_failure(name) : NVML_ERROR_UNINITIALIZED;
}

static bool is_handle(nvmlDevice_t d)
{
	for (unsigned int i = 0; i < sim_nv.devices; i++) {
		if (d == &sim_nv.device[i])
			return true;
		for (unsigned int k = 0; k < sim_nv.device[i].instances; k++)
			if (d == &sim_nv.instance[i][k])
				return true;
	}
	return false;
}

nvmlReturn_t sim_nv_enter_device(const char *name, nvmlDevice_t d)
{
	nvmlReturn_t r = sim_nv_enter(name);
	if (r)
		return r;
	if (!is_handle(d))
		return NVML_ERROR_INVALID_ARGUMENT;
	struct sim_nv_reading now;
	r = sim_nv_reading(d, &now);
	return r ? r : now.r.lost ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}

nvmlReturn_t sim_nv_text(char *room, unsigned int length, const char *text)
{
	NEED(room && length);
	if (strlen(text) + 1 > length)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	memcpy(room, text, strlen(text) + 1);
	return NVML_SUCCESS;
}

/* ---- the library and the driver --------------------------------------------------------------------------------- */

static int cuda_version(void)
{
	static const struct { unsigned int major; int cuda; } v[] = {
		{ 580, 13000 }, { 575, 12090 }, { 570, 12080 }, { 560, 12060 }, { 550, 12040 }, { 535, 12020 }, { 525, 12000 },
		{ 520, 11080 }, { 510, 11060 }, { 470, 11040 }, { 450, 11000 },
	};
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++)
		if (sim_nv_major() >= v[i].major)
			return v[i].cuda;
	return 10020;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
	ENTER();
	return sim_nv_text(version, length, sim_nv_driver());
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
	char text[NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE];
	ENTER();
	snprintf(text, sizeof(text), "%d.%s", cuda_version() / 1000, sim_nv_driver());
	return sim_nv_text(version, length, text);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
	ENTER();         /* the documentation says that it needs no nvmlInit; 550.163 says otherwise */
	NEED(version);
	*version = cuda_version();
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
	return nvmlSystemGetCudaDriverVersion(version);
}

nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
	char path[64], text[4096];
	ENTER();
	snprintf(path, sizeof(path), "/proc/%u/cmdline", pid);
	FILE *f = fopen(path, "re");
	size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;
	if (f)
		fclose(f);
	if (!n)
		return NVML_ERROR_NOT_FOUND;
	text[n] = 0;
	return sim_nv_text(name, length, text);
}

nvmlReturn_t nvmlUnitGetCount(unsigned int *count)
{
	ENTER();
	NEED(count);
	*count = 0;
	return NVML_SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t code)
{
	static const char *const text[] = {
		"success", "not initialized", "invalid argument", "not supported", "no permission", "already initialized", "not found",
		"insufficient size", "insufficient power", "driver not loaded", "timeout", "interrupt problem", "library not found",
		"function not found", "corrupted infoROM", "GPU is lost", "GPU needs a reset", "operating system", "library and driver differ",
		"in use", "out of memory", "no data", "no ECC for a vGPU", "out of resources", "frequency not supported",
		"version of the argument", "deprecated", "not ready", "no GPU", "invalid state",
	};
	return code < sizeof(text) / sizeof(text[0]) ? text[code] : "unknown error";
}
