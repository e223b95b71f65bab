/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The view for tenants over the stand-in library and a stand-in gate (shim/fakegate.c): argument 1 is the view, 2 what is tested, 3 the
 * folder of the real library. The environment says what cards it has and what the contract is.
 */
#include "nvml/nv.h"

#include <pthread.h>
#include <sys/wait.h>
#include <time.h>

#define GIB (1ull << 30)
#define MIB (1ull << 20)

static struct nv nv;

static void set(const char *name, const char *value)
{
	setenv(name, value, 1);
}

static nvmlDevice_t device(unsigned int index)
{
	nvmlDevice_t d = NULL;
	assert_int_equal(nv.nvmlDeviceGetHandleByIndex_v2(index, &d), NVML_SUCCESS);
	return d;
}

/* ---- every name ------------------------------------------------------------------------------------------------------- */

static void names_are_there(void **state)
{
	(void)state;
	for (size_t i = 0; i < NV_ROWS; i++) {
		void *p;
		memcpy(&p, (char *)&nv + i * sizeof(p), sizeof(p));
		if (!p)
			fail_msg("%s is not exported", nv_names[i]);
	}
}

/* ---- which devices: three cards, of which the last two are covered ------------------------------------------------------- */

static void devices(void **state)
{
	(void)state;
	unsigned int n = 99;
	nvmlDevice_t d = NULL;
	char uuid[96], hidden[] = "GPU-70656e73-746f-636b-2d6e-756c6c2d3030";
	assert_int_equal(nv.nvmlDeviceGetCount_v2(&n), NVML_ERROR_UNINITIALIZED);
	assert_int_equal(nv.nvmlInit_v2(), NVML_SUCCESS);
	assert_int_equal(nv.nvmlDeviceGetCount_v2(NULL), NVML_ERROR_INVALID_ARGUMENT);
	assert_int_equal(nv.nvmlDeviceGetCount_v2(&n), NVML_SUCCESS);
	assert_int_equal(n, 2);
	assert_int_equal(nv.nvmlDeviceGetCount(&n), NVML_SUCCESS);
	assert_int_equal(n, 2);
	assert_int_equal(nv.nvmlDeviceGetHandleByIndex_v2(2, &d), NVML_ERROR_INVALID_ARGUMENT);
	for (unsigned int i = 0; i < 2; i++) {
		nvmlPciInfo_t pci;
		d = device(i);
		assert_int_equal(nv.nvmlDeviceGetPciInfo_v3(d, &pci), NVML_SUCCESS);
		assert_int_equal(pci.bus, i + 2);                  /* in the library's order, without the first */
		assert_int_equal(nv.nvmlDeviceGetIndex(d, &n), NVML_SUCCESS);
		assert_int_equal(n, i);
		assert_int_equal(nv.nvmlDeviceGetUUID(d, uuid, sizeof(uuid)), NVML_SUCCESS);
		assert_int_equal(nv.nvmlDeviceGetHandleByUUID(uuid, &d), NVML_SUCCESS);
		assert_ptr_equal(d, device(i));
	}
	assert_int_equal(nv.nvmlDeviceGetHandleByUUID(hidden, &d), NVML_ERROR_NOT_FOUND);
	assert_int_equal(nv.nvmlDeviceGetHandleByPciBusId_v2("0000:01:00.0", &d), NVML_ERROR_NOT_FOUND);
	assert_int_equal(nv.nvmlDeviceGetHandleByPciBusId_v2("0000:03:00.0", &d), NVML_SUCCESS);
	assert_int_equal(nv.nvmlDeviceGetHandleBySerial("1300000000", &d), NVML_ERROR_NOT_FOUND);
	nvmlUUID_t v = { .version = PEN_NV_VERSION(nvmlUUID_t, 1), .type = 1 };
	strcpy(v.value.str, hidden);
	assert_int_equal(nv.nvmlDeviceGetHandleByUUIDV(&v, &d), NVML_ERROR_NOT_FOUND);
	assert_int_equal(nv.nvmlDeviceGetHandleByUUID(uuid, NULL), NVML_ERROR_INVALID_ARGUMENT);
}

static void memory(void **state)
{
	(void)state;
	nvmlMemory_t m;
	nvmlMemory_v2_t m2 = { .version = 7 };
	nv_state("mem_used 9000000000\nreserved 1048576\n");   /* everybody's */
	set("FAKEGATE_USED", "1073741824");
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo(device(0), &m), NVML_SUCCESS);
	assert_true(m.total == 4 * GIB && m.used == GIB && m.free == 3 * GIB);
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo_v2(device(0), &m2), NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	m2.version = PEN_NV_VERSION(nvmlMemory_v2_t, 2);
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo_v2(device(0), &m2), NVML_SUCCESS);
	assert_true(m2.total == 4 * GIB && m2.used == GIB && m2.free == 3 * GIB && m2.reserved == 0);
	assert_int_equal(m2.version, PEN_NV_VERSION(nvmlMemory_v2_t, 2));
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo(device(0), NULL), NVML_ERROR_INVALID_ARGUMENT);
	/* The limit was lowered below what is in use. */
	set("FAKEGATE_USED", "9999999999");
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo(device(0), &m), NVML_SUCCESS);
	assert_true(m.total == 4 * GIB && m.used == 4 * GIB && m.free == 0);
	set("FAKEGATE_USED", "0");
	/* Errors are the library's own. */
	nv_state("lost 1\n");
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo(device(0), &m), NVML_ERROR_GPU_IS_LOST);
	nv_state("fail nvmlDeviceGetMemoryInfo 999\n");
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo(device(0), &m), NVML_ERROR_UNKNOWN);
	nv_state("");
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo((nvmlDevice_t)(void *)&m, &m), NVML_ERROR_INVALID_ARGUMENT);
}

static void processes(void **state)
{
	(void)state;
	nv_state("process 1 5000 90 0 0 0 cgm\n");             /* somebody else's, in the host's numbers */
	set("FAKEGATE_CLIENTS", "40:1048576:0,41:0:0,40:1048576:5,42:0:77,0:4096:9");
	nvmlProcessInfo_v2_t v[8];
	nvmlProcessInfo_v1_t v1[8];
	unsigned int n = 0;
	assert_int_equal(nv.nvmlDeviceGetComputeRunningProcesses_v3(device(0), &n, NULL), NVML_ERROR_INSUFFICIENT_SIZE);
	assert_int_equal(n, 2);
	n = 8;
	assert_int_equal(nv.nvmlDeviceGetComputeRunningProcesses_v3(device(0), &n, v), NVML_SUCCESS);
	assert_int_equal(n, 2);                                /* 41 only looks; 0 did not say who it is */
	assert_int_equal(v[0].pid, 40);
	assert_true(v[0].usedGpuMemory == 2 * MIB);
	assert_int_equal(v[0].gpuInstanceId, NVML_NO_INSTANCE);
	assert_int_equal(v[1].pid, 42);
	n = 8;
	assert_int_equal(nv.nvmlDeviceGetComputeRunningProcesses(device(0), &n, v1), NVML_SUCCESS);
	assert_int_equal(n, 2);
	assert_true(v1[0].pid == 40 && v1[0].usedGpuMemory == 2 * MIB);
	n = 8;
	assert_int_equal(nv.nvmlDeviceGetGraphicsRunningProcesses_v3(device(0), &n, v), NVML_SUCCESS);
	assert_int_equal(n, 0);
	n = 8;
	assert_int_equal(nv.nvmlDeviceGetMPSComputeRunningProcesses_v2(device(0), &n, v), NVML_SUCCESS);
	assert_int_equal(n, 0);
	assert_int_equal(nv.nvmlDeviceGetComputeRunningProcesses_v3(device(0), NULL, v), NVML_ERROR_INVALID_ARGUMENT);
	nvmlProcessDetail_v1_t detail[4];
	nvmlProcessDetailList_t list = { .version = PEN_NV_VERSION(nvmlProcessDetailList_v1_t, 1), .numProcArrayEntries = 4, .procArray = detail };
	assert_int_equal(nv.nvmlDeviceGetRunningProcessDetailList(device(0), &list), NVML_SUCCESS);
	assert_int_equal(list.numProcArrayEntries, 2);
	assert_int_equal(detail[1].pid, 42);
	assert_int_equal(nv.nvmlDeviceGetAccountingPids(device(0), &n, NULL), NVML_ERROR_NOT_SUPPORTED);
	nv_state("");
	set("FAKEGATE_CLIENTS", "");
}

static void rest(unsigned int ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = (long)ms * 1000000 }, NULL);
}

static uint64_t mono_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* The ledger says what was used, the clock over how long: so each answer is held against the span that it may be of. */
static void utilisation(void **state)
{
	(void)state;
	nvmlUtilization_t u;
	nvmlProcessUtilizationSample_t s[8];
	unsigned int n = 8;
	char text[64];
	nv_state("gpu_util 97\nmem_util 50\n");
	set("FAKEGATE_CLIENTS", "40:1:0,41:1:0");
	assert_int_equal(nv.nvmlDeviceGetUtilizationRates(device(1), &u), NVML_SUCCESS);
	assert_true(u.gpu == 0 && u.memory == 0);              /* ours, not everybody's */
	assert_int_equal(nv.nvmlDeviceGetProcessUtilization(device(1), s, &n, 0), NVML_ERROR_NOT_FOUND);
	/* 60 ms of device time by one, 20 by the other, since that answer. */
	uint64_t began = mono_ns();
	set("FAKEGATE_CLIENTS", "40:1:60000000,41:1:20000000");
	do {
		rest(20);
		assert_int_equal(nv.nvmlDeviceGetUtilizationRates(device(1), &u), NVML_SUCCESS);
	} while (!u.gpu);
	uint64_t longest = mono_ns() - began + 200000000;      /* the span may have begun before us */
	assert_true(u.gpu <= 8000000000ull / 166000000 && u.gpu >= 8000000000ull / longest);
	n = 8;
	assert_int_equal(nv.nvmlDeviceGetProcessUtilization(device(1), s, &n, 0), NVML_SUCCESS);
	assert_int_equal(n, 2);
	assert_true(s[0].pid == 40 && s[1].pid == 41 && s[0].smUtil >= 2 * s[1].smUtil && s[0].smUtil > 0);
	assert_int_equal(nv.nvmlDeviceGetProcessUtilization(device(1), s, &n, s[0].timeStamp), NVML_ERROR_NOT_FOUND);
	/* More than there is time; and a counter that went back, since another process has the number now. */
	snprintf(text, sizeof(text), "40:1:90000000000,41:1:1");
	set("FAKEGATE_CLIENTS", text);
	do {
		rest(20);
		assert_int_equal(nv.nvmlDeviceGetUtilizationRates(device(1), &u), NVML_SUCCESS);
	} while (u.gpu < 100);
	n = 8;
	assert_int_equal(nv.nvmlDeviceGetProcessUtilization(device(1), s, &n, 0), NVML_SUCCESS);
	assert_true(n == 1 && s[0].pid == 40);
	/* Nobody is attached, so nothing is known. */
	set("FAKEGATE_CLIENTS", "");
	assert_int_equal(nv.nvmlDeviceGetUtilizationRates(device(1), &u), NVML_ERROR_NOT_SUPPORTED);
	assert_true(u.gpu == 0);
	nv_state("");
}

static void refusals(void **state)
{
	(void)state;
	nvmlEnableState_t on = 9;
	nvmlValueType_t type;
	nvmlSample_t sample;
	unsigned int n = 1;
	nvmlGpmSupport_t gpm = { .version = 1, .isSupportedDevice = 1 };
	assert_int_equal(nv.nvmlDeviceSetPersistenceMode(device(0), NVML_FEATURE_ENABLED), NVML_ERROR_NO_PERMISSION);
	assert_int_equal(nv.nvmlDeviceGetPersistenceMode(device(0), &on), NVML_SUCCESS);
	assert_int_equal(on, NVML_FEATURE_DISABLED);           /* the stand-in would have done it */
	assert_int_equal(nv.nvmlDeviceSetComputeMode(device(0), 3), NVML_ERROR_NO_PERMISSION);
	assert_int_equal(nv.nvmlDeviceSetMigMode(device(0), 1, NULL), NVML_ERROR_NO_PERMISSION);
	assert_int_equal(nv.nvmlDeviceSetCpuAffinity(device(0)), NVML_SUCCESS);   /* of the calling thread */
	assert_int_equal(nv.nvmlDeviceGetSamples(device(0), NVML_GPU_UTILIZATION_SAMPLES, 0, &type, &n, &sample),
			 NVML_ERROR_NOT_SUPPORTED);
	assert_int_equal(nv.nvmlDeviceGetSamples(device(0), NVML_TOTAL_POWER_SAMPLES, 0, &type, &n, &sample), NVML_SUCCESS);
	assert_int_equal(nv.nvmlGpmQueryDeviceSupport(device(0), &gpm), NVML_ERROR_NOT_SUPPORTED);
	unsigned int celsius;
	assert_int_equal(nv.nvmlDeviceGetTemperature(device(0), NVML_TEMPERATURE_GPU, &celsius), NVML_SUCCESS);
	assert_int_equal(celsius, 33);
}

/* Every row that changes something, whatever its arguments. */
static void all_refused(void **state)
{
	(void)state;
	unsigned int refused = 0;
#define CALL_REFUSE(symbol) \
	refused++; \
	assert_int_equal(((nvmlReturn_t (*)(void *, uintptr_t, void *, void *, void *, void *))(void (*)(void))nv.symbol)(device(0), 0, \
			 NULL, NULL, NULL, NULL), NVML_ERROR_NO_PERMISSION);
#define CALL_PASS(symbol)
#define CALL_INFO(symbol)
#define CALL_INIT(symbol)
#define PEN_NV(symbol, since, class, types) CALL_##class(symbol)
#include "api/nvml.def"
	assert_true(refused > 60);
}

static void cores(void **state)
{
	(void)state;
	unsigned int n;
	assert_int_equal(nv.nvmlDeviceGetNumGpuCores(device(0), &n), NVML_SUCCESS);
	assert_int_equal(n, 10 * 64);                          /* FAKEGATE_UNITS of 40 */
}

static void *ask(void *arg)
{
	nvmlDevice_t d = arg;
	for (int i = 0; i < 300; i++) {
		nvmlMemory_t m;
		nvmlUtilization_t u;
		unsigned int n;
		if (nv.nvmlDeviceGetMemoryInfo(d, &m) || m.total != 4 * GIB || nv.nvmlDeviceGetCount_v2(&n) || n != 2 ||
		    nv.nvmlDeviceGetUtilizationRates(d, &u) || u.gpu > 100)
			return (void *)1;
	}
	return NULL;
}

static void threads(void **state)
{
	(void)state;
	pthread_t t[8];
	set("FAKEGATE_CLIENTS", "40:1:5");
	for (int i = 0; i < 8; i++)
		pthread_create(&t[i], NULL, ask, device((unsigned int)i & 1));
	for (int i = 0; i < 8; i++) {
		void *bad;
		pthread_join(t[i], &bad);
		assert_null(bad);
	}
	set("FAKEGATE_CLIENTS", "");
}

/* ---- other worlds ----------------------------------------------------------------------------------------------------------- */

static void unmanaged(void **state)
{
	(void)state;
	unsigned int n = 0;
	nvmlMemory_t m;
	nvmlUtilization_t u;
	nv_state("mem_used 5000\ngpu_util 42\nprocess 1 5000 90 0 0 0 c\n");
	assert_int_equal(nv.nvmlInit_v2(), NVML_SUCCESS);
	assert_int_equal(nv.nvmlDeviceGetCount_v2(&n), NVML_SUCCESS);
	assert_int_equal(n, 3);
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo(device(0), &m), NVML_SUCCESS);
	assert_true(m.total == 16 * GIB && m.used == 5000);
	assert_int_equal(nv.nvmlDeviceGetUtilizationRates(device(0), &u), NVML_SUCCESS);
	assert_int_equal(u.gpu, 42);
	n = 0;
	assert_int_equal(nv.nvmlDeviceGetComputeRunningProcesses_v3(device(0), &n, NULL), NVML_ERROR_INSUFFICIENT_SIZE);
	assert_int_equal(n, 1);
	assert_int_equal(nv.nvmlDeviceSetPersistenceMode(device(0), NVML_FEATURE_ENABLED), NVML_SUCCESS);
	assert_string_equal(nv.nvmlErrorString(NVML_ERROR_NOT_FOUND), "not found");
}

/* No token, or no daemon: a tenant without a contract has no device, and the library works. */
static void nothing(void **state)
{
	(void)state;
	unsigned int n = 99;
	nvmlDevice_t d;
	char version[80];
	assert_int_equal(nv.nvmlInit_v2(), NVML_SUCCESS);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(nv.nvmlDeviceGetCount_v2(&n), NVML_SUCCESS);
		assert_int_equal(n, 0);
	}
	assert_int_equal(nv.nvmlDeviceGetHandleByIndex_v2(0, &d), NVML_ERROR_INVALID_ARGUMENT);
	assert_int_equal(nv.nvmlDeviceGetHandleByPciBusId_v2("0000:01:00.0", &d), NVML_ERROR_NOT_FOUND);
	assert_int_equal(nv.nvmlSystemGetDriverVersion(version, sizeof(version)), NVML_SUCCESS);
	assert_int_equal(nv.nvmlShutdown(), NVML_SUCCESS);
	assert_int_equal(nv.nvmlDeviceGetCount_v2(&n), NVML_ERROR_UNINITIALIZED);
}

static void absent(void **state)
{
	(void)state;
	unsigned int n;
	assert_int_equal(nv.nvmlInit_v2(), NVML_ERROR_LIBRARY_NOT_FOUND);
	assert_int_equal(nv.nvmlDeviceGetCount_v2(&n), NVML_ERROR_LIBRARY_NOT_FOUND);
	assert_int_equal(nv.nvmlDeviceSetPersistenceMode(NULL, 0), NVML_ERROR_LIBRARY_NOT_FOUND);
	assert_non_null(nv.nvmlErrorString(NVML_ERROR_LIBRARY_NOT_FOUND));
}

/* The library of driver 470 has less. What the contract can answer is answered; what it cannot is not there. */
static void old(void **state)
{
	(void)state;
	unsigned int n = 8;
	nvmlProcessInfo_v2_t v[8];
	nvmlMemory_t m;
	nvmlMemory_v2_t m2 = { .version = PEN_NV_VERSION(nvmlMemory_v2_t, 2) };
	set("FAKEGATE_CLIENTS", "40:1048576:0");
	assert_int_equal(nv.nvmlInit_v2(), NVML_SUCCESS);
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo(device(0), &m), NVML_SUCCESS);
	assert_true(m.total == 4 * GIB);
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo_v2(device(0), &m2), NVML_SUCCESS);
	assert_true(m2.total == 4 * GIB && m2.version == PEN_NV_VERSION(nvmlMemory_v2_t, 2));
	m2.version = 3;
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo_v2(device(0), &m2), NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo_v2(device(0), NULL), NVML_ERROR_INVALID_ARGUMENT);
	assert_int_equal(nv.nvmlDeviceGetComputeRunningProcesses_v3(device(0), &n, v), NVML_SUCCESS);
	assert_int_equal(n, 1);
	assert_int_equal(nv.nvmlDeviceGetNumGpuCores(device(0), &n), NVML_ERROR_FUNCTION_NOT_FOUND);
	assert_int_equal(nv.nvmlGpmSampleGet(device(0), NULL), NVML_ERROR_FUNCTION_NOT_FOUND);
	assert_int_equal(nv.nvmlDeviceSetGpcClkVfOffset(device(0), 1), NVML_ERROR_FUNCTION_NOT_FOUND);   /* nothing to refuse */
}

/* One of three instances of one of two cards. */
static void mig(void **state)
{
	(void)state;
	unsigned int n = 0, index;
	nvmlDevice_t i = NULL, parent = NULL;
	nvmlMemory_t m;
	nvmlDeviceAttributes_t a;
	nvmlProcessInfo_v2_t v[4];
	char uuid[96];
	set("FAKEGATE_CLIENTS", "40:1048576:0");
	assert_int_equal(nv.nvmlInit_v2(), NVML_SUCCESS);
	assert_int_equal(nv.nvmlDeviceGetCount_v2(&n), NVML_SUCCESS);
	assert_int_equal(n, 1);
	nvmlDevice_t card = device(0);
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo(card, &m), NVML_ERROR_NO_PERMISSION);
	assert_int_equal(nv.nvmlDeviceGetMigDeviceHandleByIndex(card, 0, &i), NVML_SUCCESS);
	assert_int_equal(nv.nvmlDeviceGetMigDeviceHandleByIndex(card, 1, &parent), NVML_ERROR_NOT_FOUND);
	assert_int_equal(nv.nvmlDeviceGetUUID(i, uuid, sizeof(uuid)), NVML_SUCCESS);
	assert_int_equal(strncmp(uuid, "MIG-a1", 6), 0);
	assert_int_equal(nv.nvmlDeviceGetHandleByUUID(uuid, &parent), NVML_SUCCESS);
	assert_ptr_equal(parent, i);
	uuid[5] = '0';                                         /* a neighbour's */
	assert_int_equal(nv.nvmlDeviceGetHandleByUUID(uuid, &parent), NVML_ERROR_NOT_FOUND);
	assert_int_equal(nv.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(i, &parent), NVML_SUCCESS);
	assert_int_equal(nv.nvmlDeviceGetIndex(parent, &index), NVML_SUCCESS);
	assert_int_equal(index, 0);
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo(i, &m), NVML_SUCCESS);
	assert_true(m.total == 4 * GIB);
	assert_int_equal(nv.nvmlDeviceGetAttributes_v2(i, &a), NVML_SUCCESS);
	assert_int_equal(a.memorySizeMB, 4096);
	assert_int_equal(a.multiprocessorCount, 10);
	n = 4;
	assert_int_equal(nv.nvmlDeviceGetComputeRunningProcesses_v3(i, &n, v), NVML_SUCCESS);
	assert_int_equal(v[0].gpuInstanceId, 2);
}

/* A child is a process of its own, which must start the library anew. */
static void forks(void **state)
{
	(void)state;
	pid_t pid = fork();
	if (pid == 0) {
		unsigned int n = 0;
		nvmlMemory_t m;
		nvmlDevice_t d;
		_exit(nv.nvmlDeviceGetCount_v2(&n) == NVML_ERROR_UNINITIALIZED && !nv.nvmlInit_v2() && !nv.nvmlDeviceGetCount_v2(&n) && n == 2 &&
		      !nv.nvmlDeviceGetHandleByIndex_v2(1, &d) && !nv.nvmlDeviceGetMemoryInfo(d, &m) && m.total == 4 * GIB ? 0 : 1);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest managed[] = {
		cmocka_unit_test(names_are_there), cmocka_unit_test(devices), cmocka_unit_test(memory), cmocka_unit_test(processes),
		cmocka_unit_test(utilisation), cmocka_unit_test(refusals), cmocka_unit_test(all_refused), cmocka_unit_test(cores),
		cmocka_unit_test(threads), cmocka_unit_test(forks),
	};
	static const struct { const char *name; CMUnitTestFunction fn; } one[] = {
		{ "unmanaged", unmanaged }, { "nothing", nothing }, { "absent", absent }, { "old", old }, { "mig", mig },
	};
	if (argc < 4)
		return 2;
	set("LD_LIBRARY_PATH", argv[3]);   /* read when the view is first called */
	alarm(60);   /* a hang is a failure */
	nv_state("");
	nv_open(argv[1], &nv);
	int r = 2;
	if (!strcmp(argv[2], "managed"))
		r = cmocka_run_group_tests(managed, NULL, NULL);
	for (size_t i = 0; i < sizeof(one) / sizeof(one[0]); i++)
		if (!strcmp(argv[2], one[i].name)) {
			const struct CMUnitTest test[] = { { one[i].name, one[i].fn, NULL, NULL, NULL } };
			r = cmocka_run_group_tests(test, NULL, NULL);
		}
	nv_state_end();
	return r;
}
