/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in libnvidia-ml in null mode: argument 1 and 2 are its paths, newest and that of driver 470. */
#include "nvml/nv.h"

static struct nv nv;

static nvmlDevice_t first(void)
{
	nvmlDevice_t d = NULL;
	assert_int_equal(nv.nvmlDeviceGetHandleByIndex_v2(0, &d), NVML_SUCCESS);
	return d;
}

static void exports(void **state)
{
	struct nv old;
	nv_open((const char *)*state, &old);
	for (size_t i = 0; i < NV_ROWS; i++) {
		void *now, *then;
		memcpy(&now, (char *)&nv + i * sizeof(now), sizeof(now));
		memcpy(&then, (char *)&old + i * sizeof(then), sizeof(then));
		if (!now || !then == (nv_since[i] <= 470))
			fail_msg("%s of %u: %p %p", nv_names[i], nv_since[i], now, then);
	}
	char text[80];
	assert_int_equal(old.nvmlInit_v2(), NVML_SUCCESS);
	assert_int_equal(old.nvmlSystemGetDriverVersion(text, sizeof(text)), NVML_SUCCESS);
	assert_string_equal(text, "470.256.02");
	int cuda = 0;
	assert_int_equal(old.nvmlSystemGetCudaDriverVersion_v2(&cuda), NVML_SUCCESS);
	assert_int_equal(cuda, 11040);
	assert_int_equal(old.nvmlShutdown(), NVML_SUCCESS);
}

static void init(void **state)
{
	(void)state;
	unsigned int n;
	assert_int_equal(nv.nvmlDeviceGetCount_v2(&n), NVML_ERROR_UNINITIALIZED);
	assert_int_equal(nv.nvmlDeviceGetFanSpeed(NULL, &n), NVML_ERROR_UNINITIALIZED);
	assert_int_equal(nv.nvmlInit_v2(), NVML_SUCCESS);
	assert_int_equal(nv.nvmlInit(), NVML_SUCCESS);
	assert_int_equal(nv.nvmlShutdown(), NVML_SUCCESS);
	assert_int_equal(nv.nvmlDeviceGetCount_v2(&n), NVML_SUCCESS);   /* counted */
	assert_int_equal(n, 2);
	assert_int_equal(nv.nvmlDeviceGetCount_v2(NULL), NVML_ERROR_INVALID_ARGUMENT);
	assert_int_equal(nv.nvmlDeviceGetFanSpeed(first(), &n), NVML_ERROR_NOT_SUPPORTED);
	assert_string_equal(nv.nvmlErrorString(NVML_SUCCESS), "success");
	assert_non_null(nv.nvmlErrorString(12345));
}

static void names(void **state)
{
	(void)state;
	nvmlDevice_t d = first(), same = NULL;
	char text[96], uuid[96];
	assert_int_equal(nv.nvmlDeviceGetName(d, text, sizeof(text)), NVML_SUCCESS);
	assert_string_equal(text, "Penstock null device");
	assert_int_equal(nv.nvmlDeviceGetName(d, text, 5), NVML_ERROR_INSUFFICIENT_SIZE);
	assert_int_equal(nv.nvmlDeviceGetUUID(d, uuid, sizeof(uuid)), NVML_SUCCESS);
	assert_int_equal(strlen(uuid), 40);
	assert_int_equal(nv.nvmlDeviceGetHandleByUUID(uuid, &same), NVML_SUCCESS);
	assert_ptr_equal(same, d);
	assert_int_equal(nv.nvmlDeviceGetHandleByUUID("GPU-none", &same), NVML_ERROR_NOT_FOUND);
	nvmlPciInfo_t pci = { .busId = "untouched" };
	assert_int_equal(nv.nvmlDeviceGetPciInfo_v2(d, &pci), NVML_SUCCESS);
	assert_string_equal(pci.busIdLegacy, "0000:01:00.0");
	assert_string_equal(pci.busId, "untouched");
	assert_int_equal(nv.nvmlDeviceGetPciInfo_v3(d, &pci), NVML_SUCCESS);
	assert_string_equal(pci.busId, "00000000:01:00.0");
	static const char *const forms[] = { "00000000:01:00.0", "0000:01:00.0", "01:00.0" };
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(nv.nvmlDeviceGetHandleByPciBusId_v2(forms[i], &same), NVML_SUCCESS);
		assert_ptr_equal(same, d);
	}
	assert_int_equal(nv.nvmlDeviceGetHandleByPciBusId_v2("7f:00.0", &same), NVML_ERROR_NOT_FOUND);
	assert_int_equal(nv.nvmlDeviceGetSerial(d, text, sizeof(text)), NVML_SUCCESS);
	assert_int_equal(nv.nvmlDeviceGetHandleBySerial(text, &same), NVML_SUCCESS);
	assert_int_equal(nv.nvmlDeviceGetHandleByIndex_v2(2, &same), NVML_ERROR_INVALID_ARGUMENT);
	assert_int_equal(nv.nvmlDeviceGetName((nvmlDevice_t)(void *)text, text, sizeof(text)), NVML_ERROR_INVALID_ARGUMENT);
	unsigned int cores;
	assert_int_equal(nv.nvmlDeviceGetNumGpuCores(d, &cores), NVML_SUCCESS);
	assert_int_equal(cores, 40 * 64);
	unsigned int a, b;
	assert_int_equal(nv.nvmlDeviceGetMigMode(d, &a, &b), NVML_ERROR_NOT_SUPPORTED);
}

static void readings(void **state)
{
	(void)state;
	nvmlDevice_t d = first(), other = NULL;
	assert_int_equal(nv.nvmlDeviceGetHandleByIndex_v2(1, &other), NVML_SUCCESS);
	nv_state("gpu_util 7\ndevice 0\nmem_used 1048576\nreserved 4096\ntemperature 41\npower 25000\nmem_util 3\nenc_util 4\ndec_util 5\n");
	nvmlMemory_t m;
	nvmlMemory_v2_t m2 = { .version = 0 };
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo(d, &m), NVML_SUCCESS);
	assert_int_equal(m.used, 1048576 + 4096);
	assert_int_equal(m.total, m.used + m.free);
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo_v2(d, &m2), NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	m2.version = PEN_NV_VERSION(nvmlMemory_v2_t, 2);
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo_v2(d, &m2), NVML_SUCCESS);
	assert_int_equal(m2.used, 1048576);
	assert_int_equal(m2.reserved, 4096);
	assert_int_equal(m2.total, m2.used + m2.free + m2.reserved);
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo(other, &m), NVML_SUCCESS);
	assert_int_equal(m.used, 0);
	nvmlUtilization_t u;
	assert_int_equal(nv.nvmlDeviceGetUtilizationRates(d, &u), NVML_SUCCESS);
	assert_int_equal(u.gpu, 7);
	assert_int_equal(u.memory, 3);
	unsigned int v, us;
	assert_int_equal(nv.nvmlDeviceGetTemperature(d, NVML_TEMPERATURE_GPU, &v), NVML_SUCCESS);
	assert_int_equal(v, 41);
	assert_int_equal(nv.nvmlDeviceGetDecoderUtilization(d, &v, &us), NVML_SUCCESS);
	assert_int_equal(v, 5);
	nv_state("device 0\nlost 1\n");
	assert_int_equal(nv.nvmlDeviceGetMemoryInfo(d, &m), NVML_ERROR_GPU_IS_LOST);
	assert_int_equal(nv.nvmlDeviceGetMinorNumber(other, &v), NVML_SUCCESS);
	nv_state("fail nvmlDeviceGetMinorNumber 999\n");
	assert_int_equal(nv.nvmlDeviceGetMinorNumber(other, &v), NVML_ERROR_UNKNOWN);
	nv_state("");
}

static void processes(void **state)
{
	(void)state;
	nvmlDevice_t d = first();
	nv_state("process 10 1000 50 5 0 0 c\nprocess 11 2000 0 0 0 9 cg\nprocess 12 3000 0 0 0 0 m\n");
	unsigned int n = 0;
	assert_int_equal(nv.nvmlDeviceGetComputeRunningProcesses_v3(d, &n, NULL), NVML_ERROR_INSUFFICIENT_SIZE);
	assert_int_equal(n, 2);
	nvmlProcessInfo_v2_t v[8];
	n = 8;
	assert_int_equal(nv.nvmlDeviceGetComputeRunningProcesses_v3(d, &n, v), NVML_SUCCESS);
	assert_int_equal(n, 2);
	assert_int_equal(v[1].pid, 11);
	assert_int_equal(v[1].usedGpuMemory, 2000);
	assert_int_equal(v[1].gpuInstanceId, NVML_NO_INSTANCE);
	nvmlProcessInfo_v1_t v1[8];
	n = 8;
	assert_int_equal(nv.nvmlDeviceGetGraphicsRunningProcesses(d, &n, v1), NVML_SUCCESS);
	assert_int_equal(n, 1);
	assert_int_equal(v1[0].pid, 11);
	nvmlProcessUtilizationSample_t s[8];
	n = 8;
	assert_int_equal(nv.nvmlDeviceGetProcessUtilization(d, s, &n, 0), NVML_SUCCESS);
	assert_int_equal(n, 2);
	assert_int_equal(s[0].smUtil, 50);
	assert_int_equal(s[1].decUtil, 9);
	assert_int_equal(nv.nvmlDeviceGetProcessUtilization(d, s, &n, UINT64_MAX), NVML_ERROR_NOT_FOUND);
	nv_state("");
	n = 8;
	assert_int_equal(nv.nvmlDeviceGetComputeRunningProcesses_v3(d, &n, v), NVML_SUCCESS);
	assert_int_equal(n, 0);
}

static void events(void **state)
{
	(void)state;
	nvmlEventSet_t set;
	nvmlEventData_t e;
	nv_state("xid 13\n");
	assert_int_equal(nv.nvmlEventSetCreate(&set), NVML_SUCCESS);
	assert_int_equal(nv.nvmlDeviceRegisterEvents(first(), 0x10, set), NVML_ERROR_NOT_SUPPORTED);
	assert_int_equal(nv.nvmlDeviceRegisterEvents(first(), nvmlEventTypeXidCriticalError, set), NVML_SUCCESS);
	assert_int_equal(nv.nvmlEventSetWait_v2(set, &e, 0), NVML_ERROR_TIMEOUT);   /* an old one is no news */
	nv_state("xid 79\n");
	assert_int_equal(nv.nvmlEventSetWait_v2(set, &e, 10000), NVML_SUCCESS);
	assert_int_equal(e.eventData, 79);
	assert_ptr_equal(e.device, first());
	assert_int_equal(nv.nvmlEventSetFree(set), NVML_SUCCESS);
	nv_state("");
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	setenv("PENSTOCK_SIMGPU", "null:2", 1);
	nv_state("");
	nv_open(argv[1], &nv);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(exports, argv[2]), cmocka_unit_test(init), cmocka_unit_test(names), cmocka_unit_test(readings),
		cmocka_unit_test(processes), cmocka_unit_test(events),
	};
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	nv_state_end();
	return r;
}
