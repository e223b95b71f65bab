/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BENCH_CUWAYS_H
#define PEN_BENCH_CUWAYS_H
/*
 * Every way that CUDA's driver interface has to take device memory, as a function that takes and one that gives back.
 *
 * Threads: any, with the context current; `race` says which are quick enough for many at once. A take that fails has taken nothing.
 * A way that this driver does not have answers CUDA_ERROR_NOT_SUPPORTED.
 */
#include "cudrv.h"

struct way;

struct held {
	const struct way *way;
	uint64_t bytes;   /* asked for; less where the way takes whole rows only */
	CUdeviceptr p;
	union {
		CUarray array;
		CUmipmappedArray mipmap;
		CUmemGenericAllocationHandle handle;
		CUmemoryPool pool;
		CUgraphExec exec;
		CUcontext context;
		void *host;
	};
	CUexternalMemory external;
	int fd;
};

struct way {
	const char *name;
	CUresult (*take)(uint64_t bytes, struct held *h);
	void (*give)(struct held *h);
	bool race;    /* quick enough to be taken and given by many threads at once */
	bool loose;   /* what the caller got is no measure of what is taken on the device */
};

extern const struct way cu_ways[];
extern const unsigned cu_nways;

/* Loads the driver and makes the first device's primary context current. 0, or -1 after a line on stderr. */
int cu_ways_start(void);
/* The context that cu_ways_start() made: for threads, and after a reset with a new one. */
extern CUcontext cu_ways_context;
extern CUdevice cu_ways_device;

#endif
