/* SPDX-License-Identifier: Apache-2.0 */
#include "simgpu/nvidia/cuda/arena.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES (UINT64_C(1) << 18) /* 512 GiB of addresses: several cards' memory, several times over */
#define PAGES_LEAST (UINT64_C(1) << 12)

struct sim_arena sim_arena = { .fd = -1 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t *taken; /* a bit per page */
static uint64_t looked; /* pages below it are taken */

/* Aligned, so that a page of the device begins at a multiple of its size. */
static uint64_t map(int fd, uint64_t bytes)
{
	char *p = mmap(NULL, bytes + SIM_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		       -1, 0);

	if (p == MAP_FAILED)
		return 0;

	char *at = (char *)(((uintptr_t)p + SIM_PAGE_BYTES - 1) & ~(SIM_PAGE_BYTES - 1));

	if (mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0) ==
	    MAP_FAILED) {
		munmap(p, bytes + SIM_PAGE_BYTES);
		return 0;
	}
	/* No child can use it, and no core file wants half a terabyte of holes. */
	(void)madvise(at, bytes, MADV_DONTFORK);
	(void)madvise(at, bytes, MADV_DONTDUMP);
	return (uintptr_t)at;
}

bool sim_arena_open(void)
{
	pthread_mutex_lock(&lock);
	if (!sim_arena.pages) {
		int fd = memfd_create("simgpu-memory", MFD_CLOEXEC);
		uint64_t pages = PAGES;

		/* Where addresses are limited a smaller one has to do. */
		while (fd >= 0 && pages >= PAGES_LEAST) {
			if (ftruncate(fd, (off_t)(pages * SIM_PAGE_BYTES)) == 0)
				sim_arena.base = map(fd, pages * SIM_PAGE_BYTES);
			if (sim_arena.base)
				break;
			pages /= 2;
		}
		taken = sim_arena.base ? calloc(pages / 64, sizeof(*taken)) : NULL;
		if (taken) {
			sim_arena.fd = fd;
			sim_arena.pages = pages;
		} else if (fd >= 0) {
			close(fd);
		}
	}
	pthread_mutex_unlock(&lock);
	return sim_arena.pages > 0;
}

static bool is_taken(uint64_t p)
{
	return taken[p / 64] >> p % 64 & 1;
}

bool sim_arena_take(uint64_t pages, uint64_t *ret_first)
{
	bool found = false;

	pthread_mutex_lock(&lock);
	while (looked < sim_arena.pages && is_taken(looked))
		looked++;
	for (uint64_t at = looked; pages && at + pages <= sim_arena.pages;) {
		uint64_t n = 0;

		while (n < pages && !is_taken(at + n))
			n++;
		if (n == pages) {
			for (uint64_t i = 0; i < pages; i++)
				taken[(at + i) / 64] |= UINT64_C(1) << (at + i) % 64;
			if (at + pages > sim_arena.next)
				sim_arena.next = at + pages;
			*ret_first = at;
			found = true;
			break;
		}
		at += n + 1;
	}
	pthread_mutex_unlock(&lock);
	return found;
}

void sim_arena_give(uint64_t first, uint64_t pages)
{
	fallocate(sim_arena.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(first * SIM_PAGE_BYTES),
		  (off_t)(pages * SIM_PAGE_BYTES));
	pthread_mutex_lock(&lock);
	for (uint64_t i = first; i < first + pages; i++)
		taken[i / 64] &= ~(UINT64_C(1) << i % 64);
	if (first < looked)
		looked = first;
	pthread_mutex_unlock(&lock);
}
