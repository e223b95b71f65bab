/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_API_NVML_ABI_H
#define PEN_API_NVML_ABI_H
/*
 * The binary interface of NVIDIA's management library (libnvidia-ml.so.1), as far as the backend, the view for tenants and the
 * stand-in use it: names, values and layouts up to driver 580, written down so that nothing of NVIDIA's is needed to build.
 * tests/lint/test_nvml_abi.py compares them with nvml.h where one is installed. Enumerations are 32-bit numbers here: the
 * values of a newer driver must pass through. A structure that nobody looks into stays incomplete.
 *
 * Sizes in bytes unless a name says otherwise; handles are opaque. Threads, lifetime, errors: as NVIDIA documents each call.
 */
#include <stddef.h>
#include <stdint.h>

typedef struct nvmlDevice_st *nvmlDevice_t;
typedef struct nvmlUnit_st *nvmlUnit_t;
typedef struct nvmlEventSet_st *nvmlEventSet_t;
typedef struct nvmlGpuInstance_st *nvmlGpuInstance_t;
typedef struct nvmlComputeInstance_st *nvmlComputeInstance_t;
typedef struct nvmlGpmSample_st *nvmlGpmSample_t;

typedef uint32_t nvmlReturn_t;
enum {
	NVML_SUCCESS = 0, NVML_ERROR_UNINITIALIZED = 1, NVML_ERROR_INVALID_ARGUMENT = 2, NVML_ERROR_NOT_SUPPORTED = 3,
	NVML_ERROR_NO_PERMISSION = 4, NVML_ERROR_ALREADY_INITIALIZED = 5, NVML_ERROR_NOT_FOUND = 6,
	NVML_ERROR_INSUFFICIENT_SIZE = 7, NVML_ERROR_INSUFFICIENT_POWER = 8, NVML_ERROR_DRIVER_NOT_LOADED = 9,
	NVML_ERROR_TIMEOUT = 10, NVML_ERROR_IRQ_ISSUE = 11, NVML_ERROR_LIBRARY_NOT_FOUND = 12,
	NVML_ERROR_FUNCTION_NOT_FOUND = 13, NVML_ERROR_CORRUPTED_INFOROM = 14, NVML_ERROR_GPU_IS_LOST = 15,
	NVML_ERROR_RESET_REQUIRED = 16, NVML_ERROR_OPERATING_SYSTEM = 17, NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
	NVML_ERROR_IN_USE = 19, NVML_ERROR_MEMORY = 20, NVML_ERROR_NO_DATA = 21, NVML_ERROR_VGPU_ECC_NOT_SUPPORTED = 22,
	NVML_ERROR_INSUFFICIENT_RESOURCES = 23, NVML_ERROR_FREQ_NOT_SUPPORTED = 24,
	NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25, NVML_ERROR_DEPRECATED = 26, NVML_ERROR_NOT_READY = 27,
	NVML_ERROR_GPU_NOT_FOUND = 28, NVML_ERROR_INVALID_STATE = 29, NVML_ERROR_UNKNOWN = 999,
};

typedef uint32_t nvmlBrandType_t;
enum { NVML_BRAND_UNKNOWN = 0, NVML_BRAND_TESLA = 2, NVML_BRAND_NVIDIA = 14 };
typedef uint32_t nvmlClockType_t;
enum { NVML_CLOCK_GRAPHICS = 0, NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2, NVML_CLOCK_VIDEO = 3 };
typedef uint32_t nvmlClockId_t;
enum { NVML_CLOCK_ID_CURRENT = 0, NVML_CLOCK_ID_APP_CLOCK_TARGET = 1, NVML_CLOCK_ID_APP_CLOCK_DEFAULT = 2, NVML_CLOCK_ID_CUSTOMER_BOOST_MAX = 3 };
typedef uint32_t nvmlComputeMode_t;
enum { NVML_COMPUTEMODE_DEFAULT = 0, NVML_COMPUTEMODE_PROHIBITED = 2, NVML_COMPUTEMODE_EXCLUSIVE_PROCESS = 3 };
typedef uint32_t nvmlEnableState_t;
enum { NVML_FEATURE_DISABLED = 0, NVML_FEATURE_ENABLED = 1 };
typedef uint32_t nvmlMemoryErrorType_t;
enum { NVML_MEMORY_ERROR_TYPE_CORRECTED = 0, NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1 };
typedef uint32_t nvmlEccCounterType_t;
enum { NVML_VOLATILE_ECC = 0, NVML_AGGREGATE_ECC = 1 };
typedef uint32_t nvmlMemoryLocation_t;
enum { NVML_MEMORY_LOCATION_DRAM = 2 };
typedef uint32_t nvmlPcieUtilCounter_t;
enum { NVML_PCIE_UTIL_TX_BYTES = 0, NVML_PCIE_UTIL_RX_BYTES = 1 };
typedef uint32_t nvmlPstates_t;
typedef uint32_t nvmlTemperatureSensors_t;
enum { NVML_TEMPERATURE_GPU = 0 };
typedef uint32_t nvmlTemperatureThresholds_t;
enum { NVML_TEMPERATURE_THRESHOLD_SHUTDOWN = 0, NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 1 };
typedef uint32_t nvmlSamplingType_t;
enum {
	NVML_TOTAL_POWER_SAMPLES = 0, NVML_GPU_UTILIZATION_SAMPLES = 1, NVML_MEMORY_UTILIZATION_SAMPLES = 2,
	NVML_ENC_UTILIZATION_SAMPLES = 3, NVML_DEC_UTILIZATION_SAMPLES = 4, NVML_PROCESSOR_CLK_SAMPLES = 5,
	NVML_MEMORY_CLK_SAMPLES = 6, NVML_MODULE_POWER_SAMPLES = 7, NVML_JPG_UTILIZATION_SAMPLES = 8,
	NVML_OFA_UTILIZATION_SAMPLES = 9,
};
typedef uint32_t nvmlValueType_t;
enum { NVML_VALUE_TYPE_DOUBLE = 0, NVML_VALUE_TYPE_UNSIGNED_INT = 1, NVML_VALUE_TYPE_UNSIGNED_LONG_LONG = 3 };
typedef uint32_t nvmlDeviceArchitecture_t;
enum {
	NVML_DEVICE_ARCH_KEPLER = 2, NVML_DEVICE_ARCH_MAXWELL = 3, NVML_DEVICE_ARCH_PASCAL = 4, NVML_DEVICE_ARCH_VOLTA = 5,
	NVML_DEVICE_ARCH_TURING = 6, NVML_DEVICE_ARCH_AMPERE = 7, NVML_DEVICE_ARCH_ADA = 8, NVML_DEVICE_ARCH_HOPPER = 9,
};
#define NVML_DEVICE_ARCH_UNKNOWN 0xffffffffu

/* Those of which no value is used. */
typedef uint32_t nvmlAffinityScope_t, nvmlBusType_t, nvmlDetachGpuState_t, nvmlDeviceVgpuCapability_t, nvmlDriverModel_t,
	nvmlEncoderType_t, nvmlFanControlPolicy_t, nvmlGpuOperationMode_t, nvmlGpuP2PCapsIndex_t, nvmlGpuP2PStatus_t,
	nvmlGpuTopologyLevel_t, nvmlGpuVirtualizationMode_t, nvmlHostVgpuMode_t, nvmlInforomObject_t, nvmlIntNvLinkDeviceType_t,
	nvmlLedColor_t, nvmlNvLinkCapability_t, nvmlNvLinkErrorCounter_t, nvmlPageRetirementCause_t, nvmlPcieLinkState_t,
	nvmlPerfPolicyType_t, nvmlPowerSource_t, nvmlRestrictedAPI_t, nvmlVgpuCapability_t, nvmlVgpuDriverCapability_t,
	nvmlVgpuInstance_t, nvmlVgpuTypeId_t, nvmlVgpuVmIdType_t;

#define NVML_INIT_FLAG_NO_GPUS 1u
#define NVML_INIT_FLAG_NO_ATTACH 2u
#define NVML_DEVICE_MIG_DISABLE 0u
#define NVML_DEVICE_MIG_ENABLE 1u
#define NVML_NO_INSTANCE 0xffffffffu               /* gpuInstanceId, computeInstanceId where MIG is off */
#define NVML_MEMORY_UNKNOWN UINT64_MAX             /* usedGpuMemory that the driver does not tell */

/* Rooms that callers are told to have. */
#define NVML_DEVICE_UUID_BUFFER_SIZE 80
#define NVML_DEVICE_UUID_V2_BUFFER_SIZE 96
#define NVML_DEVICE_NAME_V2_BUFFER_SIZE 96
#define NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE 80

#define nvmlEventTypeDoubleBitEccError 0x2ull
#define nvmlEventTypeXidCriticalError 0x8ull

/* The version word at the head of newer structures: size, and version in the top byte. */
#define PEN_NV_VERSION(type, n) ((uint32_t)(sizeof(type) | (uint32_t)(n) << 24))

/* The third form. The first ends with pciDeviceId; the second has no busId, and four reserved words behind pciSubSystemId. */
typedef struct nvmlPciInfo_st {
	char busIdLegacy[16];                      /* "0000:65:00.0" */
	unsigned int domain, bus, device;
	unsigned int pciDeviceId;                  /* device << 16 | vendor */
	unsigned int pciSubSystemId;
	char busId[32];                            /* "00000000:65:00.0" */
} nvmlPciInfo_t;

typedef struct {
	unsigned int version;                      /* PEN_NV_VERSION(.., 1) */
	unsigned int domain, bus, device, pciDeviceId, pciSubSystemId, baseClass, subClass;
	char busId[32];
} nvmlPciInfoExt_v1_t;
typedef nvmlPciInfoExt_v1_t nvmlPciInfoExt_t;

typedef struct { unsigned long long total, free, used; } nvmlMemory_t;   /* used: with what the driver keeps for itself */
typedef struct {
	unsigned int version;                      /* PEN_NV_VERSION(.., 2) */
	unsigned long long total, reserved, free, used;   /* reserved: for the driver itself */
} nvmlMemory_v2_t;
typedef struct { unsigned long long bar1Total, bar1Free, bar1Used; } nvmlBAR1Memory_t;

typedef struct { unsigned int gpu, memory; } nvmlUtilization_t;          /* per cent */
typedef struct { unsigned long long l1Cache, l2Cache, deviceMemory, registerFile; } nvmlEccErrorCounts_t;

typedef struct nvmlProcessInfo_v1_st { unsigned int pid; unsigned long long usedGpuMemory; } nvmlProcessInfo_v1_t;
typedef struct nvmlProcessInfo_v2_st {
	unsigned int pid;
	unsigned long long usedGpuMemory;
	unsigned int gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_v2_t, nvmlProcessInfo_t;
typedef struct {
	unsigned int pid;
	unsigned long long usedGpuMemory;
	unsigned int gpuInstanceId, computeInstanceId;
	unsigned long long usedGpuCcProtectedMemory;
} nvmlProcessDetail_v1_t;
typedef struct {
	unsigned int version;                      /* PEN_NV_VERSION(.., 1) */
	unsigned int mode;                         /* 0 compute, 1 graphics, 2 MPS */
	unsigned int numProcArrayEntries;
	nvmlProcessDetail_v1_t *procArray;
} nvmlProcessDetailList_v1_t;
typedef nvmlProcessDetailList_v1_t nvmlProcessDetailList_t;

typedef struct nvmlProcessUtilizationSample_st {
	unsigned int pid;
	unsigned long long timeStamp;              /* us since 1970 */
	unsigned int smUtil, memUtil, encUtil, decUtil;
} nvmlProcessUtilizationSample_t;
typedef struct {
	unsigned long long timeStamp;
	unsigned int pid, smUtil, memUtil, encUtil, decUtil, jpgUtil, ofaUtil;
} nvmlProcessUtilizationInfo_v1_t;
typedef struct {
	unsigned int version;                      /* PEN_NV_VERSION(.., 1) */
	unsigned int processSamplesCount;
	unsigned long long lastSeenTimeStamp;
	nvmlProcessUtilizationInfo_v1_t *procUtilArray;
} nvmlProcessesUtilizationInfo_v1_t;
typedef nvmlProcessesUtilizationInfo_v1_t nvmlProcessesUtilizationInfo_t;

typedef union nvmlValue_st {
	double dVal;
	int siVal;
	unsigned int uiVal;
	unsigned long ulVal;
	unsigned long long ullVal;
	signed long long sllVal;
} nvmlValue_t;
typedef struct nvmlSample_st { unsigned long long timeStamp; nvmlValue_t sampleValue; } nvmlSample_t;

typedef struct nvmlDeviceAttributes_st {
	unsigned int multiprocessorCount, sharedCopyEngineCount, sharedDecoderCount, sharedEncoderCount, sharedJpegCount, sharedOfaCount;
	unsigned int gpuInstanceSliceCount, computeInstanceSliceCount;
	unsigned long long memorySizeMB;
} nvmlDeviceAttributes_t;

typedef struct nvmlEncoderSessionInfo_st {
	unsigned int sessionId, pid;
	nvmlVgpuInstance_t vgpuInstance;
	nvmlEncoderType_t codecType;
	unsigned int hResolution, vResolution, averageFps, averageLatency;
} nvmlEncoderSessionInfo_t;
typedef struct nvmlFBCSessionInfo_st {
	unsigned int sessionId, pid;
	nvmlVgpuInstance_t vgpuInstance;
	unsigned int displayOrdinal;
	uint32_t sessionType;
	unsigned int sessionFlags, hMaxResolution, vMaxResolution, hResolution, vResolution, averageFPS, averageLatency;
} nvmlFBCSessionInfo_t;

typedef struct nvmlEventData_st {
	nvmlDevice_t device;
	unsigned long long eventType, eventData;   /* of an Xid: its number */
	unsigned int gpuInstanceId, computeInstanceId;
} nvmlEventData_t;

typedef struct { unsigned int version, isSupportedDevice; } nvmlGpmSupport_t;

typedef struct {
	unsigned int version;                      /* PEN_NV_VERSION(.., 1) */
	unsigned int type;                         /* 1 text, 2 bytes */
	union { char str[41]; unsigned char bytes[16]; } value;
} nvmlUUID_t;

_Static_assert(sizeof(nvmlPciInfo_t) == 68 && sizeof(nvmlPciInfoExt_t) == 64, "PCI information");
_Static_assert(sizeof(nvmlMemory_t) == 24 && sizeof(nvmlMemory_v2_t) == 40 && sizeof(nvmlBAR1Memory_t) == 24, "memory");
_Static_assert(sizeof(nvmlProcessInfo_v1_t) == 16 && sizeof(nvmlProcessInfo_v2_t) == 24, "processes");
_Static_assert(sizeof(nvmlProcessDetail_v1_t) == 32 && sizeof(nvmlProcessDetailList_v1_t) == 24, "process list");
_Static_assert(sizeof(nvmlProcessUtilizationSample_t) == 32 && sizeof(nvmlProcessUtilizationInfo_v1_t) == 40, "utilisation");
_Static_assert(sizeof(nvmlProcessesUtilizationInfo_v1_t) == 24 && sizeof(nvmlSample_t) == 16, "samples");
_Static_assert(sizeof(nvmlDeviceAttributes_t) == 40 && sizeof(nvmlEventData_t) == 32, "attributes, events");
_Static_assert(sizeof(nvmlEncoderSessionInfo_t) == 32 && sizeof(nvmlFBCSessionInfo_t) == 48, "sessions");

/* FP32 lanes of one multiprocessor by compute capability, as NVIDIA's programming guide says: nvmlDeviceGetNumGpuCores counts them. 0: not known. */
static inline unsigned int pen_nv_lanes(int major, int minor)
{
	switch (major) {
	case 3: return 192;
	case 5: return 128;
	case 6: return minor == 0 ? 64 : 128;
	case 7: return 64;
	case 8: return minor == 0 ? 64 : 128;
	case 9: case 10: case 11: case 12: return 128;
	default: return 0;
	}
}

/* Structures that nobody looks into. */
typedef struct pen_nv_incomplete nvmlAccountingStats_t, nvmlActiveVgpuInstanceInfo_t, nvmlBridgeChipHierarchy_t,
	nvmlC2cModeInfo_v1_t, nvmlClkMonStatus_t, nvmlClockOffset_t, nvmlComputeInstanceInfo_t,
	nvmlComputeInstancePlacement_t, nvmlComputeInstanceProfileInfo_t, nvmlComputeInstanceProfileInfo_v2_t,
	nvmlConfComputeGetKeyRotationThresholdInfo_t, nvmlConfComputeGpuAttestationReport_t,
	nvmlConfComputeGpuCertificate_t, nvmlConfComputeMemSizeInfo_t, nvmlConfComputeSetKeyRotationThresholdInfo_t,
	nvmlConfComputeSystemCaps_t, nvmlConfComputeSystemState_t, nvmlCoolerInfo_t, nvmlDeviceAddressingMode_t,
	nvmlDeviceCapabilities_t, nvmlDeviceCurrentClockFreqs_t, nvmlDevicePerfModes_t,
	nvmlDevicePowerMizerModes_v1_t, nvmlDramEncryptionInfo_t, nvmlEccSramErrorStatus_t,
	nvmlEccSramUniqueUncorrectedErrorCounts_t, nvmlExcludedDeviceInfo_t, nvmlFBCStats_t, nvmlFanSpeedInfo_t,
	nvmlFieldValue_t, nvmlGpmMetricsGet_t, nvmlGpuDynamicPstatesInfo_t, nvmlGpuFabricInfoV_t,
	nvmlGpuFabricInfo_t, nvmlGpuInstanceInfo_t, nvmlGpuInstancePlacement_t, nvmlGpuInstanceProfileInfo_t,
	nvmlGpuInstanceProfileInfo_v2_t, nvmlGpuThermalSettings_t, nvmlGridLicensableFeatures_t, nvmlHostname_v1_t,
	nvmlHwbcEntry_t, nvmlLedState_t, nvmlMarginTemperature_t, nvmlNvLinkInfo_t, nvmlNvLinkPowerThres_t,
	nvmlNvLinkUtilizationControl_t, nvmlNvlinkGetBwMode_t, nvmlNvlinkSetBwMode_t, nvmlNvlinkSupportedBwModes_t,
	nvmlPRMTLV_v1_t, nvmlPSUInfo_t, nvmlPdi_t, nvmlPlatformInfo_t, nvmlPowerSmoothingProfile_t,
	nvmlPowerSmoothingState_t, nvmlPowerValue_v2_t, nvmlRepairStatus_t, nvmlRowRemapperHistogramValues_t,
	nvmlSystemConfComputeSettings_t, nvmlSystemDriverBranchInfo_t, nvmlSystemEventSetCreateRequest_t,
	nvmlSystemEventSetFreeRequest_t, nvmlSystemEventSetWaitRequest_t, nvmlSystemRegisterEventRequest_t,
	nvmlTemperature_t, nvmlUnitFanSpeeds_t, nvmlUnitInfo_t, nvmlVgpuCreatablePlacementInfo_t,
	nvmlVgpuHeterogeneousMode_t, nvmlVgpuInstanceUtilizationSample_t, nvmlVgpuInstancesUtilizationInfo_t,
	nvmlVgpuLicenseInfo_t, nvmlVgpuMetadata_t, nvmlVgpuPgpuCompatibility_t, nvmlVgpuPgpuMetadata_t,
	nvmlVgpuPlacementId_t, nvmlVgpuPlacementList_t, nvmlVgpuProcessUtilizationSample_t,
	nvmlVgpuProcessesUtilizationInfo_t, nvmlVgpuRuntimeState_t, nvmlVgpuSchedulerCapabilities_t,
	nvmlVgpuSchedulerGetState_t, nvmlVgpuSchedulerLogInfo_t, nvmlVgpuSchedulerLog_t,
	nvmlVgpuSchedulerSetState_t, nvmlVgpuSchedulerStateInfo_t, nvmlVgpuSchedulerState_t, nvmlVgpuTypeBar1Info_t,
	nvmlVgpuTypeIdInfo_t, nvmlVgpuTypeMaxInstance_t, nvmlVgpuVersion_t, nvmlViolationTime_t,
	nvmlWorkloadPowerProfileCurrentProfiles_t, nvmlWorkloadPowerProfileProfilesInfo_t,
	nvmlWorkloadPowerProfileRequestedProfiles_t;

#endif
