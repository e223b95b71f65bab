/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BOARD_FEATURE_H
#define PEN_BOARD_FEATURE_H
/*
 * What the running kernel offers to the board, found by trying, and what is done without; the boot id; the fork flag.
 *
 * Threads: any. Runs in the daemon and inside tenants; errno is left as it was.
 */
#include "base/mark.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

/* id, word for output, first kernel, what is lost without it. `doctor` prints the list. */
#define PEN_BOARD_FEATURES(X)                                                                            \
	X(MEMFD, "memfd", "3.17",                                                                        \
	  N_("no board: Penstock does not work on this kernel"))                                         \
	X(FUTURE_WRITE, "future-write seal", "5.1",                                                      \
	  N_("a tenant can write its own terms and its neighbours' signal pages if it means to; only their size is sealed"))\
	X(PEERPIDFD, "SO_PEERPIDFD", "6.5",                                                              \
	  N_("a client is named by pid, pidfd_open and start time, checked against each other"))         \
	X(PIDFD_OPEN, "pidfd_open", "5.3",                                                               \
	  N_("the death of a client is found by looking at /proc, not told by the kernel"))              \
	X(WIPEONFORK, "MADV_WIPEONFORK", "4.14",                                                         \
	  N_("a forked child is recognised by its process id"))

enum pen_board_feature_bit {
#define X(id, name, since, without) PEN_FEATURE_BIT_##id,
	PEN_BOARD_FEATURES(X)
#undef X
	PEN_FEATURE_MAX_,
};
enum pen_board_feature {
#define X(id, name, since, without) PEN_FEATURE_##id = 1u << PEN_FEATURE_BIT_##id,
	PEN_BOARD_FEATURES(X)
#undef X
};

/* Set of PEN_FEATURE_x. Tries once per process (a handful of system calls), cheap afterwards. */
uint32_t pen_board_features(void);

/* The 16 bytes of /proc/sys/kernel/random/boot_id. Return: 0; a negative errno; -EPROTO not a UUID. */
int pen_board_boot_id(uint8_t ret_id[16]);

/*
 * A flag that a forked child finds cleared. It lies on a page of its own that the kernel wipes in the child; where it
 * cannot, the flag holds the process id. A vfork or CLONE_VM child shares the page: to it the flag is set, as it must be.
 */
struct pen_fork_flag {
	_Atomic uint32_t *word;   /* NULL until created */
	uint32_t wiped;           /* 1: any non-zero value means set */
};
int pen_fork_flag_create(struct pen_fork_flag *f);
void pen_fork_flag_destroy(struct pen_fork_flag *f);

static inline void pen_fork_flag_set(struct pen_fork_flag *f)
{
	atomic_store_explicit(f->word, (uint32_t)getpid(), memory_order_release);
}

static inline void pen_fork_flag_clear(struct pen_fork_flag *f)
{
	atomic_store_explicit(f->word, 0, memory_order_release);
}

static inline bool pen_fork_flag_is_set(const struct pen_fork_flag *f)
{
	if (!f->word)
		return false;
	uint32_t v = atomic_load_explicit(f->word, memory_order_acquire);
	return v && (f->wiped || v == (uint32_t)getpid());
}

#endif
