/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_CUDA_ARENA_H
#define SIM_CUDA_ARENA_H
/*
 * Where device memory has its addresses: one sparse mapping of a memory file, made when first needed. Pages
 * of SIM_PAGE_BYTES are handed out of it; a page costs host memory once it was written to. The file lets
 * another process map what a handle names.
 *
 * Threads: any. Lives as long as the process.
 */
#include "simgpu/client.h"

#include <stdbool.h>
#include <stdint.h>

struct sim_arena {
	uint64_t base;             /* address */
	uint64_t pages;            /* 0: there is none */
	_Atomic uint64_t next;     /* pages below it have been handed out at least once */
	int fd;                    /* page N lies at offset N * SIM_PAGE_BYTES */
};
extern struct sim_arena sim_arena;

bool sim_arena_open(void);
/* @pages that lie together; false: no such gap. */
bool sim_arena_take(uint64_t pages, uint64_t *ret_first);
/* Their bytes are gone; whoever maps them next finds zeros. */
void sim_arena_give(uint64_t first, uint64_t pages);

#endif
