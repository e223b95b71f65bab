/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_CUDA_SHARE_H
#define SIM_CUDA_SHARE_H
/*
 * Memory that goes from process to process as a descriptor: a file whose last page says what it is. Another
 * process reads that page as carefully as anything that comes from outside.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sim_share_kind { SIM_SHARE_PHYSICAL = 1, SIM_SHARE_POOL };

struct sim_share {
	uint32_t magic, kind;          /* the magic is sim_share_create()'s */
	int32_t device;                /* number; -1 = host memory */
	int32_t pid;                   /* of the maker */
	uint64_t bytes;                /* of the file before its last page */
	uint64_t id;
	unsigned char prop[64];        /* what the maker wants to know again */
};

int sim_share_create(struct sim_share *share);                /* a descriptor, or -1 */
int sim_share_read(int fd, struct sim_share *ret);            /* 0; negative errno: it is none of ours */
int sim_dup(int fd);                                          /* closed on exec */
/* A descriptor of another process of this user, or -1. */
int sim_fd_of(int pid, int fd);

#endif
