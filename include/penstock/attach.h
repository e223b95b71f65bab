/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PENSTOCK_ATTACH_H
#define PENSTOCK_ATTACH_H
/*
 * For a program, or a runtime, that drives a device for whose API Penstock has no library: it takes its
 * seat itself, asks for memory before it allocates, and asks before each piece of work and tells when that
 * is done.
 *
 *   penstock_device_t *dev;
 *   struct penstock_device_want want = { sizeof(want), 0, "pci:0000:03:00.0", "NPU 4", 8589934592, 0 };
 *   if (penstock_attach(&want, &dev) == PENSTOCK_OK) {
 *           penstock_memory_reserve(dev, bytes);                  then the API's own allocation
 *           penstock_work_begin(dev, &work, &w);                  waits for its turn
 *           npu_submit(...); npu_wait(...);
 *           penstock_work_end(w);
 *           penstock_memory_release(dev, bytes);                  after the API's own free
 *   }
 *
 * Nothing here touches a device: a program that does not ask is not stopped by it. Where Penstock has a
 * library for the API (CUDA, OpenCL), that does all this and more, and it must not be done twice.
 *
 * Device time is the host's: from the later of begin and the end of the work before it, to end. So
 * penstock_work_end() belongs where the completion is seen, at once, in whatever thread: a driver's
 * completion callback is a good place. Between begin and end is work on the device and nothing else. While
 * work is open, tenants of the same rank wait for it.
 *
 * Fork: a child that goes on using @dev attaches anew at its next call and has nothing reserved; work that
 * is open is the parent's.
 *
 * Threads: any, at once. Not in a signal handler. The library starts no thread.
 */
#include <penstock/error.h>

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct penstock_device penstock_device_t;   /* as long as the process */
typedef uint64_t penstock_work_t;                    /* 0 is none */

#define PENSTOCK_WORK_MAX 256   /* open at once in a process */

struct penstock_device_want {
	uint32_t size;           /* sizeof(struct penstock_device_want): fields are only ever appended */
	/* Compute units; 0: not told. Counts only for a device that the daemon does not know, as do model and memory. */
	uint32_t units;
	/*
	 * Its key, as `penstock inspect` prints it. For one that the daemon cannot find: "pci:" and its address, or a
	 * name of your own, "npu:serial-7". 1 to 127 letters, digits and ._-:/# of ASCII. Borrowed during the call.
	 */
	const char *device;
	const char *model;       /* for people; may be NULL. Borrowed during the call */
	uint64_t memory_bytes;   /* 0: not told */
	uint64_t reserved;       /* 0 */
};

/*
 * Takes a seat on a device. The first call for a device waits for the daemon, 5 s at most; later ones
 * return the same device at once.
 * Return: 0; PENSTOCK_ERR_NO_CONTRACT; _REFUSED the contract does not cover the device, or the token or
 * daemon refuse; _UNREACHABLE; _INVALID; _FAILED.
 */
int penstock_attach(const struct penstock_device_want *want, penstock_device_t **ret_device);

/*
 * Before an allocation of as many bytes, as the device will take them. Waits 20 ms at most, and only above
 * what is lent to the tenant.
 * Return: 0 reserved; PENSTOCK_ERR_OUT_OF_MEMORY do not allocate: neither the contract nor memory_bytes may
 * be exceeded; _STOPPED; _INVALID.
 */
int penstock_memory_reserve(penstock_device_t *device, uint64_t bytes);
/*
 * After the free, or when the allocation failed. More than this process has reserved is not given back.
 * Return: 0; _INVALID.
 */
int penstock_memory_release(penstock_device_t *device, uint64_t bytes);

struct penstock_work_want {
	uint32_t size;           /* sizeof(struct penstock_work_want) */
	uint32_t flags;          /* 0 */
	uint64_t kind;           /* which work it is, by a number of the caller's own: its time is learned; 0: not */
	uint64_t amount;         /* in whatever grows with its time; times learned of other amounts are scaled */
	uint64_t estimate_ns;    /* device time, while nothing was learned. 0: none, a millisecond is assumed */
	uint64_t bytes;          /* that it moves, for a bandwidth cap; 0: none */
};

/*
 * Waits until the contract and the other tenants let the work go, which may be long (`penstock why` says
 * for whom). @ret_work: to be ended exactly once.
 * Return: 0; PENSTOCK_ERR_STOPPED do not submit; _TOO_MANY; _INVALID.
 */
int penstock_work_begin(penstock_device_t *device, const struct penstock_work_want *want,
			penstock_work_t *ret_work);
/*
 * It is complete on the device, or was not submitted after all. Never waits. Return: 0;
 * PENSTOCK_ERR_NOT_OPEN.
 */
int penstock_work_end(penstock_work_t work);

#ifdef __cplusplus
}
#endif

#endif
