/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PENSTOCK_INFO_H
#define PENSTOCK_INFO_H
/*
 * What this process has: the terms of its contract on each device that it uses, as they are in force at
 * this moment. Read from memory that is shared with the daemon, which is not asked and may be down: a
 * microsecond or two. A contract changes while a program runs (`penstock set`, borrowed memory, a neighbour
 * that comes); whoever adapts to it asks again now and then.
 *
 * Threads: any, at once. Not in a signal handler.
 */
#include <penstock/error.h>

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PENSTOCK_UNLIMITED UINT64_MAX

/* Bits of penstock_info.flags */
/* Has a seat; else only contract, device, model and api are filled in. A forked child has one from its first use on. */
#define PENSTOCK_INFO_ATTACHED UINT32_C(1)
/* The daemon was at work a moment ago; without it terms stay as they are, and nothing more is lent. */
#define PENSTOCK_INFO_DAEMON UINT32_C(2)
#define PENSTOCK_INFO_STOPPED UINT32_C(4)     /* no new command: the contract has ended, or the device is lost */
#define PENSTOCK_INFO_NO_MEMORY UINT32_C(8)   /* every new allocation is refused: the limit is below what is used */
#define PENSTOCK_INFO_EXCLUSIVE UINT32_C(16)  /* has the device for itself (penstock run --exclusive) */

enum penstock_class { PENSTOCK_CLASS_LATENCY = 0, PENSTOCK_CLASS_NORMAL = 1, PENSTOCK_CLASS_BESTEFFORT = 2 };

/*
 * Fields are only ever appended. Before the call set size to sizeof(struct penstock_info); after it, it is
 * how many bytes the library knew and wrote: what lies behind is as it was.
 */
struct penstock_info {
	uint32_t size;                      /* bytes */
	uint32_t flags;                     /* PENSTOCK_INFO_ */
	char contract[64];                  /* name of the tenant; "" where it cannot be told */
	char device[128];                   /* its key, as in `penstock inspect`: "pci:0000:01:00.0" */
	char model[64];                     /* for people */
	char api[16];                       /* through which it is used: "cuda", "opencl", "penstock" */
	uint64_t epoch;                     /* rises when anything of the terms changes, the neighbours' part too */
	uint64_t memory_limit_bytes;        /* by contract and device; PENSTOCK_UNLIMITED if neither says */
	uint64_t memory_used_bytes;         /* by all processes of the tenant, contexts included */
	uint64_t memory_guaranteed_bytes;
	uint64_t memory_now_bytes;          /* may be used in all now; above the guarantee it is lent */
	uint64_t device_memory_bytes;       /* of the device; 0: it does not tell */
	uint64_t target_ns;                 /* of a request (--sla); 0: none */
	uint64_t bandwidth_cap_bytes_s;     /* copies and fills; PENSTOCK_UNLIMITED */
	uint32_t compute_guaranteed_ppm;    /* of the device's time; 1000000 is all of it */
	uint32_t compute_cap_ppm;
	uint32_t units, units_total;        /* compute units, own and the device's; 0: all, and not told */
	uint32_t priority_class;            /* enum penstock_class */
	uint32_t rank;                      /* 0: most urgent of the device at this moment */
	uint64_t denials;                   /* allocations of the tenant that were refused */
};
#define PENSTOCK_INFO_SIZE_1 376u       /* of the first version: a smaller size is refused */

/*
 * The @index-th device that this process uses under its contract, in the order of first use. One that it
 * uses through two APIs (CUDA beside OpenCL) is there twice.
 * Return: 0; PENSTOCK_ERR_NO_CONTRACT; _REFUSED; _NO_DEVICE none is used yet (the library that drives it
 * attaches at the program's first use of it; penstock_attach() does too); _NOT_FOUND there are not as many;
 * _INVALID @info is NULL or its size too small.
 */
int penstock_info_get(uint32_t index, struct penstock_info *info);

#ifdef __cplusplus
}
#endif

#endif
