/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BOARD_LAYOUT_H
#define PEN_BOARD_LAYOUT_H
/*
 * The board: shared pages through which the daemon and the clients of one device speak. This header is the whole
 * layout; docs/BOARD.md explains it.
 *
 *   page     one per            written by                  seen by
 *   terms    tenant, device     daemon                      the tenant's clients, read-only, sealed before it leaves
 *   ledger   tenant, device     the tenant's clients,       nobody else
 *                               daemon only for recovery
 *   signal   client, device     that client                 daemon and every client of the device, read-only
 *
 * Rules: fixed-width types, lock-free atomics, no pointers, no pthread objects; one magic and size per page; a field is
 * never moved or re-used within a major version, only appended (minor); every offset is asserted below. A reader checks
 * head.magic, major, size and boot id before it reads anything else. Whatever a tenant can write is hostile: the daemon
 * and the neighbours treat ledger and signal words as claims, bound them, and never use them as an index unchecked.
 *
 * All times are CLOCK_MONOTONIC nanoseconds of this machine. "ppm" = parts per million of one device.
 */
#include "base/mark.h"

#include <stdatomic.h>
#include <stdint.h>

#define PEN_BOARD_MAJOR 1
#define PEN_BOARD_MINOR 5

#define PEN_MAGIC_TERMS UINT32_C(0x544e4550)    /* "PENT" */
#define PEN_MAGIC_LEDGER UINT32_C(0x4c4e4550)   /* "PENL" */
#define PEN_MAGIC_SIGNAL UINT32_C(0x534e4550)   /* "PENS" */

#define PEN_SEATS 128           /* clients of one device at once */
#define PEN_SEAT_WORDS 2        /* 64-bit words of a set of seats */
#define PEN_SEAT_NONE UINT32_C(0xffffffff)
#define PEN_TENANT_SLOTS 64     /* tenants of one device at once; slot = a tenant's number on that device */
#define PEN_LEDGER_CLIENTS 64   /* clients of one tenant on one device at once */

#define PEN_PAGE_BYTES 4096
#define PEN_TERMS_BYTES (4 * PEN_PAGE_BYTES)
#define PEN_LEDGER_BYTES (8 * PEN_PAGE_BYTES)
#define PEN_SIGNAL_BYTES PEN_PAGE_BYTES

struct pen_page_head {
	uint32_t magic;
	uint16_t major, minor;
	uint32_t size_bytes;
	uint32_t slot;            /* terms, ledger: the tenant's slot; signal: the seat */
	uint8_t boot_id[16];      /* /proc/sys/kernel/random/boot_id, binary: times of another boot mean nothing */
	uint64_t device_id;       /* the daemon's number of the device, never re-used while it runs */
	uint64_t instance;        /* of this page: random, so that a page that comes back after a restart is recognised */
	uint8_t reserved[16];
};

/* ---- terms ---------------------------------------------------------------------------------------------------- */

enum pen_device_mode {
	PEN_MODE_EXCLUSIVE = 0,   /* one tenant's commands in flight at a time; time is measured */
	PEN_MODE_CORUN = 1,       /* tenants overlap; a command is charged its cost learned alone */
};

/* Bits of pen_terms.flags */
#define PEN_TERMS_STOP_ALLOC UINT32_C(1)   /* every new allocation is denied (limit lowered below use) */
#define PEN_TERMS_STOP UINT32_C(2)         /* no new command (contract ended, device lost): the API's own error */
#define PEN_TERMS_LENT UINT32_C(8)         /* mem_cap_bytes above the guarantee is lent, and no more of it is taken once the lease has lapsed; since 1.2 */
#define PEN_TERMS_LENDS_SOON UINT32_C(16)  /* nothing is lent yet, for a lease at most: who asks waits as long; since 1.2 */
#define PEN_TERMS_EXCLUSIVE UINT32_C(4)    /* unknown kernels may run unhurried: engine builds, autotuners */
#define PEN_TERMS_HOLD UINT32_C(32)        /* another tenant has the device for itself: no command, for as long as the lease is renewed; since 1.3 */

/* What a client must know about one seat of the device. 24 bytes. */
struct pen_seat_terms {
	uint32_t generation;   /* of the client on the seat; 0 = the seat is free */
	uint16_t tenant;       /* slot */
	uint16_t rank;         /* 0 = most urgent; equal ranks share by weight or deadline */
	uint32_t weight_ppm;   /* > 0; of the tenant: virtual time = device time * PEN_PPM / weight */
	uint32_t flags;        /* PEN_SEAT_x */
	uint64_t target_ns;    /* response-time target of the tenant, 0 = none */
};
#define PEN_SEAT_LATENCY UINT32_C(1)   /* class latency: enters at once past lower ranks (see admit.h) */
#define PEN_SEAT_STALE UINT32_C(2)     /* says busy but makes no progress: nobody waits on it */

struct pen_terms {
	uint64_t epoch;                 /* rises with every change; equals the hot epoch word below */
	uint32_t flags;
	uint32_t mode;                  /* enum pen_device_mode */
	uint64_t mem_cap_bytes;         /* may be charged in all at this moment, overhead taken off; UINT64_MAX = unlimited */
	uint64_t mem_guaranteed_bytes;
	uint64_t device_mem_bytes;      /* of the device */
	uint32_t share_guaranteed_ppm;  /* 0 = none */
	uint32_t share_cap_ppm;         /* PEN_PPM = may take everything */
	uint32_t share_floor_ppm;       /* aging: what even a tenant without a guarantee gets while backlogged */
	uint32_t weight_ppm;            /* own, as in the own seats */
	uint64_t rate_cap_bytes_s;      /* copies and known kernel traffic; UINT64_MAX = unlimited */
	uint64_t rate_guaranteed_bytes_s;
	uint64_t target_ns;
	uint64_t window_wide_ns;        /* estimated device time in flight while nobody more urgent was seen for a second */
	uint64_t window_narrow_ns;      /* and while somebody was */
	uint64_t chunk_wide_ns;         /* longest command left whole, likewise; 0 = never cut */
	uint64_t chunk_narrow_ns;
	uint64_t quantum_ns;            /* length of a turn between equal ranks */
	uint64_t burst_ns;              /* device time that may be taken ahead of the cap */
	uint32_t units, units_total;    /* compute units of the tenant and of the device; 0 = all */
	uint16_t rank;                  /* own */
	uint16_t slot;                  /* own tenant slot */
	uint32_t class_;                /* 0 latency, 1 normal, 2 besteffort */
	uint32_t nseats;                /* seats above this index are free */
	uint32_t own_flags;             /* PEN_SEAT_x of the own seats */
	uint64_t fds_epoch;             /* number of neighbour descriptors sent so far: more than received = fetch them */
	uint64_t mem_limit_bytes;       /* what contracts let the tenant have, whatever others use; 0 = not said; since 1.2 */
	uint64_t mem_contract_bytes;    /* the cap of its own contract; 0 = not said; since 1.2 */
	uint64_t mem_overhead_bytes;    /* what the tenant has on the device beside its charges (contexts, modules), as the daemon's audit
	                                   says: counts against guarantee, limit and contract; since 1.3 */
	uint64_t reserved[1];
	struct pen_seat_terms seat[PEN_SEATS];
};

/* One copy; begin == end and unequal 0 means whole. Written begin, content, end; read end, content, begin. */
struct pen_terms_copy {
	_Atomic uint64_t begin;
	struct pen_terms terms;
	_Atomic uint64_t end;
};

struct pen_terms_page {
	struct pen_page_head head;
	_Alignas(64) _Atomic uint64_t epoch;           /* hot: compared on every command */
	_Atomic uint32_t index;                        /* the copy written last */
	_Alignas(64) _Atomic uint64_t lease_until_ns;  /* borrowed share ends then; renewed each tick */
	_Alignas(64) struct pen_terms_copy copy[2];
};

/* ---- ledger --------------------------------------------------------------------------------------------------- */

/* Why a command was held. The order is the order of the checks; names are printed by `why`, `top` and the metrics. */
#define PEN_HOLD_REASONS(X)                                                       \
	X(WINDOW, "window", N_("own work in flight fills the window"))            \
	X(SHARE, "share", N_("compute share used up"))                            \
	X(BYTES, "bandwidth", N_("bandwidth used up"))                            \
	X(RANK, "rank", N_("a more urgent tenant is busy"))                       \
	X(TURN, "turn", N_("an equal tenant has its turn"))                       \
	X(STOPPED, "stopped", N_("the contract ended, or the device is lost")) \
	X(EXCLUSIVE, "exclusive", N_("another tenant has the device for itself"))   /* since 1.3 */

enum pen_hold_reason {
#define X(id, name, text) PEN_HOLD_##id,
	PEN_HOLD_REASONS(X)
#undef X
	PEN_HOLD_MAX_,
};

/*
 * Account of one client in its tenant's ledger. 256 bytes. Memory: begun++ -> CAS mem_used -> charged += -> done++, then
 * the vendor call; release in the mirrored order after the vendor's free. Killed between two steps the ledger is too
 * strict, never too lax; the daemon squares it when begun == done for all clients that live.
 */
struct pen_ledger_client {
	_Atomic uint64_t tag;            /* seat << 32 | generation; 0 = free. Written by the daemon */
	_Atomic uint64_t begun, done;    /* memory steps */
	_Atomic uint64_t charged_bytes;
	_Atomic uint64_t peak_bytes;
	_Atomic uint64_t denials;
	_Atomic uint64_t device_ns;      /* charged device time */
	_Atomic uint64_t commands, chunks, batches;
	_Atomic uint64_t bytes;          /* copied */
	_Atomic uint64_t debts;          /* admitted without waiting: callback, not runnable, no progress */
	_Atomic uint64_t tainted;        /* batches whose timestamps could not be used */
	_Atomic uint64_t held_ns[8];     /* by enum pen_hold_reason */
	_Atomic uint64_t holds;
	_Atomic uint32_t hold_reason;    /* current: reason + 1, 0 = none. For `why` */
	_Atomic uint32_t hold_seat;      /* current: seat it waits on, or PEN_SEAT_NONE */
	_Atomic uint64_t hold_since_ns;
	_Atomic uint64_t max_command_ns; /* longest single submission seen: the residual a neighbour may meet */
	_Atomic uint32_t uncut;          /* submissions longer than the chunk target that could not be cut */
	_Atomic uint32_t objects;        /* live memory objects */
	_Atomic uint32_t pid;            /* as the process sees itself, for its own tenant's tools; 0 = an older client; since 1.3 */
	uint32_t reserved32;
	uint64_t reserved[5];
};

/*
 * Response times of the tenant's requests: those that a process marks; guessed where it marks none, from all queues empty over the first
 * command to all empty again. Logarithmic: value v (ns) falls into bucket 16 * octave + 4 bits after the leading one, counted from
 * 1 us; width <= 6.25 % of the value.
 */
#define PEN_HIST_BUCKETS 432   /* 27 octaves of 16: 1.024 us .. 137 s */
struct pen_hist {
	_Atomic uint64_t count, sum_ns, missed;   /* missed: above the target of that time */
	_Atomic uint32_t bucket[PEN_HIST_BUCKETS];
};

struct pen_ledger_page {
	struct pen_page_head head;
	_Alignas(64) _Atomic uint64_t mem_used_bytes;
	_Atomic uint64_t mem_peak_bytes;
	_Atomic uint64_t denials;
	_Atomic uint64_t denied_bytes;                 /* largest total that a denied allocation would have made; since 1.1 */
	_Atomic uint64_t mem_wanted_bytes;             /* total that a client waits for: above mem_cap_bytes; the daemon answers
	                                                  with terms if it can, then with 0; since 1.2 */
	_Atomic uint64_t denials_lent;                 /* of the denials: what the own contract alone would allow; since 1.2 */
	_Alignas(64) _Atomic uint64_t share_tat_ns;    /* GCRA word of the compute cap: theoretical arrival time */
	_Atomic uint64_t guar_tat_ns;                  /* the same of the guarantee (or floor): a deficit is now - this */
	_Atomic uint64_t bytes_tat_ns;                 /* of the bandwidth cap */
	_Alignas(64) _Atomic uint64_t covered_until_ns;/* end of the device time charged so far: union over the clients */
	_Atomic uint32_t active_clients;               /* clients that are backlogged; 0 -> 1 joins the fair order */
	_Atomic uint32_t last_repay;                   /* the last chunk admitted was a repayment: alternate */
	_Atomic uint64_t flight_since_ns;              /* the tenant has had something in flight without a break since then */
	_Atomic uint64_t departed_vns;                 /* service of clients that have left: the next to look takes it over */
	_Alignas(64) struct pen_ledger_client client[PEN_LEDGER_CLIENTS];
	_Alignas(64) struct pen_hist response;
	_Atomic uint64_t marked;                       /* of the responses: of requests that a program marked; since 1.5 */
};

/* ---- signal --------------------------------------------------------------------------------------------------- */

/*
 * The busy word: state in the low two bits, a change counter above, so that a waiter that saw one value never sleeps
 * through a change and back. A futex word; neighbours wait on it and wake its waiters through read-only mappings.
 */
enum pen_busy_state {
	PEN_BUSY_IDLE = 0,    /* nothing in flight, or held by its own limits */
	PEN_BUSY_WANT = 1,    /* ready but for rank or turn */
	PEN_BUSY_CLAIM = 2,   /* about to run: looking at the others once more */
	PEN_BUSY_RUN = 3,     /* commands in flight */
};
#define PEN_BUSY_STATE(word) ((enum pen_busy_state)((word) & 3u))
#define PEN_BUSY_NEXT(word, state) ((((word) | 3u) + 1u) | (uint32_t)(state))

struct pen_signal_page {
	struct pen_page_head head;
	_Alignas(64) _Atomic uint32_t busy;
	_Atomic uint32_t runs;               /* times it entered RUN: a neighbour's timestamp is clean if this stood still */
	_Atomic uint32_t waiting_on;         /* seat + 1, 0 = not waiting */
	_Atomic uint32_t generation;         /* as in the seat's terms */
	_Atomic uint32_t watching;           /* 1: wake this word when a seat that outranks this one becomes busy, or idle; since 1.4 */
	_Alignas(64) _Atomic uint64_t busy_since_ns;  /* of the current busy span: its deadline is this + target */
	_Atomic uint64_t last_busy_ns;       /* last moment it was seen busy */
	_Atomic uint64_t service_vns;        /* virtual service of this client; a tenant's is the sum over its seats */
	_Atomic uint64_t inflight_ns;        /* estimate */
	_Atomic uint64_t progress;           /* batches completed: busy without progress is stale */
};

#define PEN_OFFSET(type, member, at) _Static_assert(__builtin_offsetof(struct type, member) == (at), #type "." #member)
_Static_assert(sizeof(struct pen_page_head) == 64, "head");
_Static_assert(sizeof(struct pen_seat_terms) == 24, "seat");
PEN_OFFSET(pen_terms, mem_cap_bytes, 16);
PEN_OFFSET(pen_terms, share_guaranteed_ppm, 40);
PEN_OFFSET(pen_terms, rate_cap_bytes_s, 56);
PEN_OFFSET(pen_terms, window_wide_ns, 80);
PEN_OFFSET(pen_terms, quantum_ns, 112);
PEN_OFFSET(pen_terms, units, 128);
PEN_OFFSET(pen_terms, rank, 136);
PEN_OFFSET(pen_terms, nseats, 144);
PEN_OFFSET(pen_terms, fds_epoch, 152);
PEN_OFFSET(pen_terms, mem_limit_bytes, 160);
PEN_OFFSET(pen_terms, mem_overhead_bytes, 176);
PEN_OFFSET(pen_terms, seat, 192);
PEN_OFFSET(pen_terms_page, epoch, 64);
PEN_OFFSET(pen_terms_page, lease_until_ns, 128);
PEN_OFFSET(pen_terms_page, copy, 192);
PEN_OFFSET(pen_ledger_client, charged_bytes, 24);
PEN_OFFSET(pen_ledger_client, held_ns, 104);
PEN_OFFSET(pen_ledger_client, hold_reason, 176);
PEN_OFFSET(pen_ledger_client, pid, 208);
_Static_assert(sizeof(struct pen_ledger_client) == 256, "client");
PEN_OFFSET(pen_ledger_page, mem_used_bytes, 64);
PEN_OFFSET(pen_ledger_page, denied_bytes, 88);
PEN_OFFSET(pen_ledger_page, mem_wanted_bytes, 96);
PEN_OFFSET(pen_ledger_page, share_tat_ns, 128);
PEN_OFFSET(pen_ledger_page, covered_until_ns, 192);
PEN_OFFSET(pen_ledger_page, flight_since_ns, 208);
PEN_OFFSET(pen_ledger_page, departed_vns, 216);
PEN_OFFSET(pen_ledger_page, client, 256);
PEN_OFFSET(pen_ledger_page, response, 256 + 64 * 256);
PEN_OFFSET(pen_ledger_page, marked, 256 + 64 * 256 + 24 + 4 * 432);
PEN_OFFSET(pen_signal_page, busy, 64);
PEN_OFFSET(pen_signal_page, watching, 80);
PEN_OFFSET(pen_signal_page, busy_since_ns, 128);
_Static_assert(sizeof(struct pen_terms_page) <= PEN_TERMS_BYTES, "terms page");
_Static_assert(sizeof(struct pen_ledger_page) <= PEN_LEDGER_BYTES, "ledger page");
_Static_assert(sizeof(struct pen_signal_page) <= PEN_SIGNAL_BYTES, "signal page");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "lock-free atomics");

#endif
