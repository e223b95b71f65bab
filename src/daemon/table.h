/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_TABLE_H
#define PEN_DAEMON_TABLE_H
/*
 * What the tick thread shares with the rest of the daemon: one fixed-size table per device, locked in memory.
 *
 * The main thread changes "in", the tick thread changes "out"; both under the table's lock, and neither makes a system
 * call or allocates while it holds it, so that the tick is never late for a disk, a client or an allocator.
 * A page pointer is taken out of "in" under the lock before the page is unmapped.
 *
 * Units: ns of CLOCK_MONOTONIC, ppm of one device, bytes.
 */
#include "base/lock.h"
#include "board/layout.h"
#include "contract/config.h"

#include <stdbool.h>
#include <stddef.h>

#define PEN_DAEMON_DEVICES 64

struct pen_table_tenant {
	/* in */
	bool used;
	uint32_t stop_flags;                 /* PEN_TERMS_STOP, PEN_TERMS_STOP_ALLOC */
	uint64_t exclusive_until_ns;         /* others hold until then, while it has a seat; 0 = they do not */
	struct pen_contract contract;
	struct pen_terms_page *terms;
	struct pen_ledger_page *ledger;      /* NULL: known from before a restart, not back yet */
	_Atomic uint64_t accounts;           /* bit per account of it that is somebody's: to look for them would cost more than all the rest */
	uint64_t mem_absent_bytes;           /* without a ledger: charged to those that are not back */
	uint64_t mem_overhead_bytes;         /* on the device beside its charges; below, what is not said otherwise has it taken off */
	/* out */
	uint16_t rank;
	uint32_t entitled_ppm;
	bool busy;                           /* a client is ready or running */
	uint64_t mem_limit;                  /* in force: at which its clients are refused */
	uint64_t mem_most;                   /* what contracts let it have, whatever its neighbours use */
	uint64_t mem_taken;                  /* guaranteed, or used if that is more */
	uint64_t last_busy_ns;
	/* tick's own */
	uint64_t last_used_ns;
	bool attached;                       /* has a seat */
	bool mem_known, mem_lent;            /* mem_lent: had its part when it came */
	bool mem_bound, mem_may;             /* others' guarantees bound it; it may be lent something now */
	uint64_t mem_ceiling;                /* bound of what it may say that it uses */
	uint64_t mem_seen, mem_wish;         /* the word in its ledger; 0 if it need not be met */
	uint64_t mem_next;                   /* limit to be */
	const struct pen_terms_page *last_page;
	uint64_t seats_version;              /* of the seats that were published there */
	unsigned char last[offsetof(struct pen_terms, seat)];   /* and what stands before them */
};

struct pen_table_seat {
	/* in */
	bool used;                           /* its signal page has been shown to the others */
	uint16_t slot;
	uint32_t generation;
	const struct pen_signal_page *signal;
	/* tick's own */
	uint32_t seen_word;
	uint64_t seen_progress;
	uint64_t still_since_ns;
	bool stale;                          /* out */
};

struct pen_table_device {
	/* in */
	struct pen_device_policy policy;
	uint64_t id, mem_bytes, fds_epoch;
	uint64_t mem_outside_bytes;          /* in use by no tenant */
	uint64_t promised_bytes;             /* guaranteed by contracts in force whose tenants have no place here yet */
	uint32_t units;
	bool lost;
	struct pen_table_tenant tenant[PEN_TENANT_SLOTS];
	struct pen_table_seat seat[PEN_SEATS];
	/* out */
	uint64_t busy_ns;                    /* ticks in which somebody ran, added up */
	uint64_t seen_ns;                    /* ticks, added up */
	uint64_t changes;                    /* terms published */
	/* tick's own */
	unsigned mem_turn;                   /* who is the first to get what is left */
	bool lends;                          /* past pen_table.lend_after_ns */
	uint64_t seats_version;              /* of last_seat; 0 = none yet */
	struct pen_seat_terms last_seat[PEN_SEATS];
};

struct pen_table {
	struct pen_lock lock;
	struct pen_table_device *device[PEN_DAEMON_DEVICES];   /* in; NULL = none */
	uint64_t tick_ns, lease_ns;                            /* in */
	_Atomic uint64_t lend_after_ns;                        /* in: nothing is lent before; 0 = at once */
	/* out */
	_Atomic uint64_t ticks, late, last_tick_ns, longest_ns;
	_Atomic int sched;                                     /* enum pen_tick_sched */
	_Atomic bool stop;
};

#endif
