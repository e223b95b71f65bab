/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_SHIM_NVML_NV_H
#define PEN_SHIM_NVML_NV_H
/*
 * What the files of the NVML view share: the real library's entry points, the hooks, and the devices that this tenant may see.
 *
 * Every exported name jumps through one word (stubs.c): to its hook in a managed process where there is one, else to the real library;
 * before the first call, to what loads it. A hook asks the real library first and changes what it answered, so that errors are the
 * library's own. What a driver lacks and the contract can answer, a hook answers all the same.
 * Threads: all hooks in any thread of the application at once. No lock of ours is held across a call of the real library or of the
 * gate. Lifetime: device records live for ever. Times are nanoseconds of CLOCK_MONOTONIC, sizes bytes.
 */
#include "api/nvml_abi.h"
#include "base/devkey.h"
#include "board/forklock.h"
#include "gate/gate.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The real library's entry points: NULL where it lacks one. Written once, before any hook can run. */
struct pen_nv_table {
#define PEN_NV(symbol, since, class, types) nvmlReturn_t (*symbol) types;
#define PEN_NV_TEXT(symbol, since, class, types) const char *(*symbol) types;
#include "api/nvml.def"
};
extern struct pen_nv_table pen_nv_real;
#define REAL(symbol) (pen_nv_real.symbol)

enum pen_nv_row_number {
#define PEN_NV(symbol, since, class, types) PEN_NV_ROW_##symbol,
#include "api/nvml.def"
	PEN_NV_ROWS,
};

/* The hooks: one for each row of class INFO. */
#define PEN_NV_HOOK_INFO(symbol, types) nvmlReturn_t pen_##symbol types;
#define PEN_NV_HOOK_INIT(symbol, types)
#define PEN_NV_HOOK_PASS(symbol, types)
#define PEN_NV_HOOK_REFUSE(symbol, types)
#define PEN_NV(symbol, since, class, types) PEN_NV_HOOK_##class(symbol, types)
#include "api/nvml.def"

/* ---- stubs.c, real.c ---------------------------------------------------------------------------------------------- */

typedef void (*pen_nv_any_fn)(void);   /* an entry point of whatever type: gcc casts to and from this one without a word */

/* NVML takes no floating point numbers, and six arguments at most: an entry point as the calling convention sees it. */
typedef uintptr_t (*pen_nv_raw_fn)(uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t);

extern _Atomic(pen_nv_raw_fn) pen_nv_to[PEN_NV_ROWS];   /* where each name leads; NULL: not looked yet */
pen_nv_raw_fn pen_nv_enter(uint32_t row);               /* loads the real library; where the row leads */
bool pen_nv_is_ours(const void *address);               /* one of the names of this file */

/* ---- devices.c ------------------------------------------------------------------------------------------------------ */

#define PEN_NV_DEVICES 64
#define PEN_NV_CLIENTS PEN_LEDGER_CLIENTS

struct pen_nv_use {              /* of one process */
	uint32_t pid;
	uint32_t util;           /* per cent of the device in the last span */
	uint64_t bytes, device_ns;
};

struct pen_nv_device {
	nvmlDevice_t handle;
	unsigned int real_index;       /* of a card: in the library's order; of an instance: on its card */
	struct pen_nv_device *card;    /* that it is an instance of; NULL: it is a card */
	char key[PEN_DEVKEY_MAX];
	_Atomic unsigned int index;    /* as the tenant sees it */
	struct pen_gate *_Atomic gate; /* NULL: a card whose instances alone are covered, or not shown */
	_Atomic bool shown;            /* covered by the contract, or a card of which an instance is; set last, and never taken back */

	/* Utilisation (use.c); under the lock. */
	struct pen_forklock lock;
	uint64_t base_ns, done_ns;     /* of the span that begins; when the last one ended */
	unsigned long long stamp_us;   /* of its end, as NVML counts */
	uint32_t nbase, nuse, util;
	struct pen_nv_use base[PEN_NV_CLIENTS], use[PEN_NV_CLIENTS];
};

/*
 * The devices, looked for at first need: each is attached to, which may wait for the daemon (gate.h).
 * Return: NVML_SUCCESS, or what the real library says: NVML_ERROR_UNINITIALIZED ...
 */
nvmlReturn_t pen_nv_devices(struct pen_nv_device **ret_v, uint32_t *ret_n);
/*
 * The device behind a handle, which must be one that the tenant may see: else NVML_ERROR_NO_PERMISSION, or the real library's word
 * on a handle that is none.
 */
nvmlReturn_t pen_nv_find(nvmlDevice_t handle, struct pen_nv_device **ret);
/* The same, and its gate: NVML_ERROR_NO_PERMISSION for a card that is shown for its instances, as NVML has it under MIG. */
nvmlReturn_t pen_nv_gate(nvmlDevice_t handle, struct pen_nv_device **ret);
bool pen_nv_is_shown(nvmlDevice_t handle);
const struct pen_gate_door *pen_nv_door(void);   /* the gate of this process */

/* ---- use.c ---------------------------------------------------------------------------------------------------------- */

/* Processes of the tenant on the device, each once. Return: their number. */
uint32_t pen_nv_clients(struct pen_nv_device *d, struct pen_nv_use v[PEN_NV_CLIENTS]);
/* Takes note where the first span of utilisation begins. */
void pen_nv_use_begin(struct pen_nv_device *d);
/*
 * What the tenant and its processes used of the device in the last span that is over, @ret_util per cent in all. Waits 20 ms at most, and
 * only if the first span has just begun. False: not known.
 */
bool pen_nv_use(struct pen_nv_device *d, uint32_t *ret_util, struct pen_nv_use v[PEN_NV_CLIENTS], uint32_t *ret_n,
		unsigned long long *ret_stamp_us);

/* As NVML fills a caller's room: says how many there are, and that there are too many for it. */
static inline nvmlReturn_t pen_nv_room(uint32_t n, unsigned int *count, const void *room)
{
	unsigned int have = *count;
	*count = n;
	return n > have ? NVML_ERROR_INSUFFICIENT_SIZE : n && !room ? NVML_ERROR_INVALID_ARGUMENT : NVML_SUCCESS;
}

#endif
