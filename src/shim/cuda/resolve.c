/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entry points by name: what cuGetProcAddress() hands out, exact to the ABI.
 *
 * The driver answers first, and its code and status are what the caller gets. Then the row of cuda.def is found whose hook takes
 * the pointer's place. The pointer itself says which row that is where it is the address of one exported name. No driver promises
 * that: else the table says it (largest ABI not above the version asked for, per-thread or not). An ABI that the table does not
 * know goes through unhooked: an older wrapper for it would take its arguments for others.
 * Comes before cuInit, from any thread, with an empty name and version 0.
 */
#include "shim/cuda/cu.h"
#include "shim/cuda/table.h"

#include "base/log.h"

#include <stdio.h>
#include <string.h>

#define SLOTS 2048u          /* a power of two, well above the number of families */
#define NONE UINT16_MAX
#define TABLE_VERSION 13000  /* no ABI of the table is newer */

_Static_assert(PEN_CU_ROWS < SLOTS / 2, "the table of names is half empty");

static uint16_t first_row[SLOTS];          /* of a family, by hash; NONE: no family */
static uint16_t next_row[PEN_CU_ROWS];     /* of the same family */
static _Atomic uint64_t unhooked;

/*
 * Entry points of the driver by their address, and what a caller gets for one: its hook, or itself. NULL: it has several names. A
 * program asks for hundreds of names once, with cold caches: so this is all that is looked at for most of them.
 */
struct known {
	pen_cu_any_fn address, to;
};
#define KNOWN_BITS 10
static struct known known[1u << KNOWN_BITS];
_Static_assert(PEN_CU_ROWS < (1u << KNOWN_BITS) * 3 / 4, "the table of addresses has room");

static uint32_t hash(const char *name)
{
	uint32_t h = 2166136261u;
	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 16777619u;
	return h ^ h >> 15;
}

/* The slot of a family, or the empty one where it would be. */
static uint32_t slot_of(const char *family)
{
	uint32_t at = hash(family) % SLOTS;
	while (first_row[at] != NONE && strcmp(pen_cu_rows[first_row[at]].family, family) != 0)
		at = (at + 1) % SLOTS;
	return at;
}

/* The place of an address, or the empty one where it would be. */
static struct known *known_at(pen_cu_any_fn address)
{
	uint32_t at = (uint32_t)((uint64_t)(uintptr_t)address * UINT64_C(0x9e3779b97f4a7c15) >> (64 - KNOWN_BITS));
	while (known[at].address && known[at].address != address)
		at = (at + 1) % (1u << KNOWN_BITS);
	return &known[at];
}

void pen_cu_resolve_prepare(void)
{
	memset(first_row, 0xff, sizeof(first_row));
	for (uint32_t i = 0; i < PEN_CU_ROWS; i++) {
		uint32_t at = slot_of(pen_cu_rows[i].family);
		next_row[i] = first_row[at];
		first_row[at] = (uint16_t)i;
		pen_cu_any_fn real = pen_cu_real_row(i);
		struct known *k = real ? known_at(real) : NULL;
		if (k && !k->address)
			*k = (struct known){ real, pen_cu_rows[i].hook ? pen_cu_rows[i].hook : real };
		else if (k)
			k->to = NULL;
	}
}

/* The newest row of a family that was there in @version. */
static uint32_t newest(uint32_t first, int version, uint32_t thread)
{
	uint32_t best = NONE;
	for (uint32_t i = first; i != NONE; i = next_row[i])
		if (pen_cu_rows[i].thread == thread && (int)pen_cu_rows[i].since <= version &&
		    (best == NONE || pen_cu_rows[i].since > pen_cu_rows[best].since))
			best = i;
	return best;
}

static uint32_t by_table(uint32_t first, int version, uint64_t flags)
{
	uint32_t row = NONE;
	if (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)
		row = newest(first, version, PEN_CU_THREAD_THREAD);
	return row != NONE ? row : newest(first, version, PEN_CU_THREAD_LEGACY);
}

/* The row whose exported address this is; of the family if it is that of several. */
static uint32_t by_address(uint32_t first, pen_cu_any_fn address)
{
	if (!known_at(address)->address)
		return NONE;
	for (uint32_t i = first; i != NONE; i = next_row[i])
		if (pen_cu_real_row(i) == address)
			return i;
	for (uint32_t i = 0; i < PEN_CU_ROWS; i++)
		if (pen_cu_real_row(i) == address)
			return i;
	return NONE;
}

/* The driver has an ABI of the family after all that the table has: the n-th has the n-th suffix. */
static bool has_newer(uint32_t first, uint64_t flags)
{
	unsigned n = 0;
	char name[96];
	for (uint32_t i = first; i != NONE; i = next_row[i])
		n += pen_cu_rows[i].thread == PEN_CU_THREAD_LEGACY;
	static const char *const ends[] = { "", "_ptsz", "_ptds" };
	for (unsigned i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "%s_v%u%s", pen_cu_rows[first].family, n + 1, ends[i]);
		if ((!i || flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) && pen_cu_driver_has(name))
			return true;
	}
	return false;
}

static bool is_hooked(uint32_t first)
{
	for (uint32_t i = first; i != NONE; i = next_row[i])
		if (pen_cu_rows[i].hook)
			return true;
	return false;
}

static pen_cu_any_fn hook_of(uint32_t row, pen_cu_any_fn real)
{
	return pen_cu_rows[row].hook && pen_cu_real_row(row) ? pen_cu_rows[row].hook : real;
}

/* For what the driver answered: the hook of the same row, or the driver's own pointer. */
static pen_cu_any_fn ours_for(const char *name, int version, uint64_t flags, pen_cu_any_fn real)
{
	/* Nearly always: the address of one exported name, which tells all. */
	const struct known *k = known_at(real);
	if (k->address && k->to)
		return k->to;
	uint32_t first = first_row[slot_of(name)];
	if (first == NONE)
		return real;
	uint32_t row = by_table(first, version, flags);
	if (row == NONE || pen_cu_real_row(row) != real) {
		uint32_t exact = by_address(first, real);
		/* In cuda.h this name is a macro for another entry point since 12.0: by its address or not at all. */
		bool moved = version >= 12000 && !strcmp(name, "cuGraphInstantiate");
		if (exact != NONE)
			row = exact;
		else if (moved || (version > TABLE_VERSION && has_newer(first, flags)))
			row = NONE;
	}
	if (row != NONE)
		return hook_of(row, real);
	if (is_hooked(first) && atomic_fetch_add(&unhooked, 1) == 0)
		pen_log(PEN_LOG_WARN, "cuda: %s in version %d is newer than this shim knows: calls of it are not seen", name, version);
	return real;
}

static void replace(const char *name, int version, uint64_t flags, void **pfn)
{
	pen_cu_any_fn real, to;
	if (!name || !pfn || !*pfn)
		return;
	memcpy(&real, pfn, sizeof(real));
	to = ours_for(name, version, flags, real);
	memcpy(pfn, &to, sizeof(to));
}

CUresult pen_cuGetProcAddress(const char *name, void **pfn, int version, uint64_t flags)
{
	CUresult r = REAL(cuGetProcAddress)(name, pfn, version, flags);
	if (r == CUDA_SUCCESS)
		replace(name, version, flags, pfn);
	return r;
}

CUresult pen_cuGetProcAddress_v2(const char *name, void **pfn, int version, uint64_t flags,
				 CUdriverProcAddressQueryResult *status)
{
	CUresult r = REAL(cuGetProcAddress_v2)(name, pfn, version, flags, status);
	if (r == CUDA_SUCCESS)
		replace(name, version, flags, pfn);
	return r;
}

/* Private tables of functions, which no hook sees. Which ones are asked for is worth knowing. One is ours: gate/gate.h. */
CUresult pen_cuGetExportTable(const void **table, const CUuuid *id)
{
	if (table && id && !memcmp(id->bytes, PEN_GATE_DOOR_ID, sizeof(id->bytes))) {
		*table = &pen_gate_door;
		return CUDA_SUCCESS;
	}
	CUresult r = REAL(cuGetExportTable)(table, id);
	if (id) {
		char text[33];
		for (unsigned i = 0; i < 16; i++)
			snprintf(text + 2 * i, 3, "%02x", (unsigned char)id->bytes[i]);
		pen_log(PEN_LOG_DEBUG, "cuda: private table %s asked for: %d", text, r);
	}
	return r;
}
