/* SPDX-License-Identifier: Apache-2.0 */
/* cuInit, what a driver says of itself, and errors by name. */
#include "simgpu/nvidia/cuda/drv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sim_driver sim_driver;

static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;

/*
 * The card of the zero-cost mode: a T4's figures, so that what is derived from them (occupancy, attributes)
 * is of a usual size.
 */
static const struct sim_card null_card = {
	.name = "Penstock null device",
	.uuid = { 0x70, 0x65, 0x6e, 0x73, 0x74, 0x6f, 0x63, 0x6b, 0x2d, 0x6e, 0x75, 0x6c, 0x6c, 0x2d, 0x30, 0x30 },
	.pci_bus = 1,
	.cc_major = 7, .cc_minor = 5,
	.units = 40,
	.threads_per_unit = 1024, .blocks_per_unit = 16, .smem_per_unit = 65536, .regs_per_unit = 65536,
	.smem_per_block_optin = 65536, .l2_bytes = 4194304,
	.clock_khz = 1590000, .mem_clock_khz = 5001000, .mem_bus_bits = 256,
	.copy_engines = 3,
	.mem_bytes = UINT64_C(16) << 30,
	.context_bytes = 0,
	.mode = "timeslice",
};

/* "null" or "null:N" for N devices. */
static int null_devices(const char *where)
{
	if (strncmp(where, "null", 4) != 0)
		return 0;
	if (!where[4])
		return 1;
	if (where[4] != ':')
		return 0;

	char *end;
	long n = strtol(where + 5, &end, 10);
	return *end || n < 1 || n > SIM_DEVICES ? 0 : (int)n;
}

static void add_device(const struct sim_card *card)
{
	struct sim_device *d = &sim_driver.device[sim_driver.devices];

	d->id = sim_driver.devices++;
	d->card = *card;
	pthread_mutex_init(&d->lock, NULL);
}

static CUresult find_devices(void)
{
	const char *where = getenv(SIM_ENV);
	int n = where ? null_devices(where) : 0;

	if (n) {
		for (int i = 0; i < n; i++) {
			struct sim_card card = null_card;

			card.uuid[15] = (uint8_t)('0' + i);
			card.pci_bus = (uint32_t)(1 + i);
			add_device(&card);
		}
		sim_driver.null = true;
		atomic_store(&sim_driver.eager, true);
		return CUDA_SUCCESS;
	}
	if (!where || sim_connect(where, &sim_driver.server) < 0)
		return CUDA_ERROR_NO_DEVICE;
	for (unsigned i = 0; i < sim_cards(sim_driver.server) && i < SIM_DEVICES; i++)
		add_device(sim_card(sim_driver.server, i));
	return sim_driver.devices ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

/*
 * The child of a process that used the device cannot use it, as with NVIDIA's: its handles and mappings are
 * the parent's.
 */
static void forked(void)
{
	memset(&sim_self, 0, sizeof(sim_self));
	pthread_mutex_init(&init_lock, NULL);
	if (sim_driver.server)
		sim_after_fork(sim_driver.server);
	if (sim_driver.state == SIM_STATE_READY)
		sim_driver.state = SIM_STATE_FORKED;
}

CUresult cuInit(unsigned int flags)
{
	static bool watched;
	CUresult r = CUDA_SUCCESS;

	if (flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (atomic_load_explicit(&sim_driver.state, memory_order_acquire) == SIM_STATE_READY)
		return CUDA_SUCCESS;
	pthread_mutex_lock(&init_lock);
	if (sim_driver.state == SIM_STATE_FORKED) {
		r = CUDA_ERROR_NOT_INITIALIZED;
	} else if (sim_driver.state == SIM_STATE_NEW) {
		if (!watched)
			pthread_atfork(NULL, NULL, forked);
		watched = true;
		r = find_devices();
		if (!r)
			atomic_store_explicit(&sim_driver.state, SIM_STATE_READY, memory_order_release);
	}
	pthread_mutex_unlock(&init_lock);
	return r;
}

CUresult sim_ready(void)
{
	return sim_driver.state == SIM_STATE_READY ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult cuDriverGetVersion(int *version)
{
	if (!version)
		return CUDA_ERROR_INVALID_VALUE;
	*version = sim_cuda_version;
	return CUDA_SUCCESS;
}

CUresult sim_result(int err)
{
	switch (err) {
	case 0:
		return CUDA_SUCCESS;
	case -ENOMEM:
		return CUDA_ERROR_OUT_OF_MEMORY;
	case -EFAULT:
		return CUDA_ERROR_ILLEGAL_ADDRESS;
	case -EIO:
		return CUDA_ERROR_ECC_UNCORRECTABLE;
	case -ENOENT:
		return CUDA_ERROR_NO_DEVICE;
	case -EINVAL:
		return CUDA_ERROR_INVALID_VALUE;
	case -ETIMEDOUT:
		return CUDA_ERROR_NOT_READY;
	default:
		return CUDA_ERROR_UNKNOWN;   /* a lost device: what programs report after Xid 79 */
	}
}

#define ERRORS(X) \
	X(SUCCESS, "no error") \
	X(ERROR_INVALID_VALUE, "invalid argument") \
	X(ERROR_OUT_OF_MEMORY, "out of memory") \
	X(ERROR_NOT_INITIALIZED, "initialization error") \
	X(ERROR_DEINITIALIZED, "driver shutting down") \
	X(ERROR_PROFILER_DISABLED, "profiler disabled") \
	X(ERROR_STUB_LIBRARY, "stub library") \
	X(ERROR_NO_DEVICE, "no device") \
	X(ERROR_INVALID_DEVICE, "invalid device") \
	X(ERROR_DEVICE_UNAVAILABLE, "device busy or unavailable") \
	X(ERROR_INVALID_IMAGE, "invalid kernel image") \
	X(ERROR_INVALID_CONTEXT, "invalid context") \
	X(ERROR_MAP_FAILED, "map failed") \
	X(ERROR_UNMAP_FAILED, "unmap failed") \
	X(ERROR_ARRAY_IS_MAPPED, "array is mapped") \
	X(ERROR_ALREADY_MAPPED, "already mapped") \
	X(ERROR_NO_BINARY_FOR_GPU, "no image for this device") \
	X(ERROR_NOT_MAPPED, "not mapped") \
	X(ERROR_ECC_UNCORRECTABLE, "uncorrectable ECC error") \
	X(ERROR_UNSUPPORTED_LIMIT, "unsupported limit") \
	X(ERROR_CONTEXT_ALREADY_IN_USE, "context already in use") \
	X(ERROR_PEER_ACCESS_UNSUPPORTED, "no peer access") \
	X(ERROR_INVALID_PTX, "PTX does not compile") \
	X(ERROR_INVALID_SOURCE, "invalid source") \
	X(ERROR_FILE_NOT_FOUND, "file not found") \
	X(ERROR_OPERATING_SYSTEM, "operating system call failed") \
	X(ERROR_INVALID_HANDLE, "invalid handle") \
	X(ERROR_ILLEGAL_STATE, "illegal state") \
	X(ERROR_NOT_FOUND, "name not found") \
	X(ERROR_NOT_READY, "not ready") \
	X(ERROR_ILLEGAL_ADDRESS, "illegal memory access") \
	X(ERROR_LAUNCH_OUT_OF_RESOURCES, "too many resources for a launch") \
	X(ERROR_LAUNCH_TIMEOUT, "launch timed out") \
	X(ERROR_PEER_ACCESS_ALREADY_ENABLED, "peer access already enabled") \
	X(ERROR_PEER_ACCESS_NOT_ENABLED, "peer access not enabled") \
	X(ERROR_PRIMARY_CONTEXT_ACTIVE, "primary context is active") \
	X(ERROR_CONTEXT_IS_DESTROYED, "context is destroyed") \
	X(ERROR_ASSERT, "device-side assert") \
	X(ERROR_HOST_MEMORY_ALREADY_REGISTERED, "host memory already registered") \
	X(ERROR_HOST_MEMORY_NOT_REGISTERED, "host memory not registered") \
	X(ERROR_LAUNCH_FAILED, "launch failed") \
	X(ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, "cooperative launch too large") \
	X(ERROR_NOT_PERMITTED, "not permitted") \
	X(ERROR_NOT_SUPPORTED, "not supported") \
	X(ERROR_STREAM_CAPTURE_UNSUPPORTED, "not permitted while a stream captures") \
	X(ERROR_STREAM_CAPTURE_INVALIDATED, "capture invalidated") \
	X(ERROR_STREAM_CAPTURE_MERGE, "captures would merge") \
	X(ERROR_STREAM_CAPTURE_UNMATCHED, "capture began in another stream") \
	X(ERROR_STREAM_CAPTURE_UNJOINED, "capture has unjoined work") \
	X(ERROR_STREAM_CAPTURE_ISOLATION, "dependency crosses the capture's border") \
	X(ERROR_STREAM_CAPTURE_IMPLICIT, "implicit dependency on a capturing stream") \
	X(ERROR_CAPTURED_EVENT, "event was captured") \
	X(ERROR_STREAM_CAPTURE_WRONG_THREAD, "capture was begun by another thread") \
	X(ERROR_TIMEOUT, "timed out") \
	X(ERROR_GRAPH_EXEC_UPDATE_FAILURE, "graph update failed") \
	X(ERROR_INVALID_RESOURCE_TYPE, "invalid resource type") \
	X(ERROR_INVALID_RESOURCE_CONFIGURATION, "invalid resource configuration") \
	X(ERROR_UNKNOWN, "unknown error")

static const struct {
	CUresult code;
	const char *name, *text;
} errors[] = {
#define ROW(name, text) { CUDA_##name, "CUDA_" #name, text },
	ERRORS(ROW)
};

CUresult cuGetErrorName(CUresult error, const char **ret)
{
	if (!ret)
		return CUDA_ERROR_INVALID_VALUE;
	*ret = NULL;
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		if (errors[i].code == error)
			*ret = errors[i].name;
	return *ret ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult error, const char **ret)
{
	if (!ret)
		return CUDA_ERROR_INVALID_VALUE;
	*ret = NULL;
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		if (errors[i].code == error)
			*ret = errors[i].text;
	return *ret ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuProfilerStart(void)
{
	CUcontext ctx;

	return sim_enter(&ctx);
}

CUresult cuProfilerStop(void)
{
	CUcontext ctx;

	return sim_enter(&ctx);
}
