/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BOARD_MEM_H
#define PEN_BOARD_MEM_H
/*
 * The memory account of a tenant: a counter that every client of the tenant moves with one compare-and-swap, so that two
 * that ask for the last megabyte cannot both have it; and each client's own sum, so that the daemon can give back what
 * a dead client held.
 *
 *   charge:  begun++, used += n (CAS, under the cap), charged += n, done++, then the vendor's allocation
 *   release: the vendor's free, then begun++, charged -= n, used -= n, done++
 *
 * At every instant used >= sum of charged: a client that is killed between two steps leaves the account too strict,
 * never too lax. pen_mem_square() mends it. Rejected: a lock in shared memory (its owner may be killed), asking the
 * daemon (a round trip per allocation).
 *
 * Threads: any, of any client. Nothing waits. The daemon calls pen_mem_square from one thread.
 */
#include "board/layout.h"

#include <stdint.h>

#define PEN_MEM_STOPPED 1u   /* allocations are stopped (PEN_TERMS_STOP_ALLOC): denied, counted */
#define PEN_MEM_FORCE 2u     /* charge also above the cap: the memory is taken already (audit, adoption) */
#define PEN_MEM_QUIET 4u     /* a denial is not counted: the caller will try something else first */

/*
 * pen_mem_charge - take @bytes out of what the tenant may still use
 * @client: index in the ledger (SEAT packet)
 * @cap_bytes: pen_terms.mem_cap_bytes; UINT64_MAX = unlimited (still accounted)
 *
 * Before the vendor's call; pair with pen_mem_uncharge() of the same size, at the latest when the memory is freed.
 * Return: 0; -ENOMEM over the cap or stopped; -EINVAL no such client. 0 bytes: 0, nothing happens.
 */
int pen_mem_charge(struct pen_ledger_page *ledger, uint32_t client, uint64_t bytes, uint64_t cap_bytes, unsigned flags);

/*
 * pen_mem_uncharge - give @bytes back, after the vendor's free or when its allocation failed
 *
 * Never gives back more than this client has charged, nor makes the tenant's sum negative: a double free or a wrong
 * size harms nobody else. Return: the bytes given back.
 */
uint64_t pen_mem_uncharge(struct pen_ledger_page *ledger, uint32_t client, uint64_t bytes);

struct pen_mem_sum {
	uint64_t used_bytes, peak_bytes, denials;
};
void pen_mem_read(const struct pen_ledger_page *ledger, struct pen_mem_sum *ret);

/* ---- the daemon's side ------------------------------------------------------------------------------------------ */

/* A set of clients of a ledger: bit i = client i. */
typedef uint64_t pen_ledger_set;
_Static_assert(PEN_LEDGER_CLIENTS <= 64, "set of clients");
#define PEN_LEDGER_BIT(client) (UINT64_C(1) << (client))

/*
 * pen_ledger_claim - give a free place of the ledger to a new client: all zero, then the tag
 * @seat, @generation: generation not 0
 * Return: the index; -ENOSPC.
 */
int pen_ledger_claim(struct pen_ledger_page *ledger, uint32_t seat, uint32_t generation);

/*
 * pen_ledger_drop - the client is dead (its pidfd said so) or has exec'ed: give back what it had charged, free the place
 *
 * At once and exactly, whatever the live clients do meanwhile. What a kill between two steps left in the tenant's sum
 * besides is found by pen_mem_square(). Killed itself between its two steps the daemon leaves the sum too strict, until
 * then. Return: the bytes given back.
 */
uint64_t pen_ledger_drop(struct pen_ledger_page *ledger, uint32_t client);

/*
 * pen_mem_square - make the tenant's sum equal to what its live clients have charged
 * @live: the clients known to be alive; every other place in use is dropped first
 *
 * Safe beside charges and releases of the live: it acts only on a moment at which none of them was between two steps
 * (begun == done for all), and then moves the sum by the difference found instead of setting it. Call it after each death
 * and after adoption, again at the next tick while it returns -EAGAIN; it costs a microsecond.
 * Return: 0 (with *@ret_freed_bytes, may be NULL: what was given back, dropped clients included); -EAGAIN no such moment was
 * found, dropped clients are given back nevertheless; -EUCLEAN the clients' sums overflow: a tenant wrote nonsense, left alone.
 */
int pen_mem_square(struct pen_ledger_page *ledger, pen_ledger_set live, uint64_t *ret_freed_bytes);

#endif
