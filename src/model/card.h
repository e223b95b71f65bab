/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_MODEL_CARD_H
#define PEN_MODEL_CARD_H
/*
 * Card files: a device model as numbers, each with its source.
 *
 *     name = "Tesla T4"          # T4 product brief, title
 *     dram = 320GB/s             # T4 datasheet
 *
 * One `key = value` a line. A line without a source after # is refused: a number that nobody can check is worth nothing; what is
 * not published says "assumed" and from what. Sizes are binary, rates decimal (base/units.h).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define PEN_CARD_NAME 96

/*
 * One list for the fields, the parser and the documentation:
 * X(field, key, type, least, largest, needed, what it is). Types: STR, U32, CC, BYTES, RATE, NS, PPM, BOOL.
 */
#define PEN_CARD_FIELDS(X) \
	X(name, "name", STR, 1, 95, 1, "as the vendor's tools print it") \
	X(cc, "compute_capability", CC, 10, 990, 1, "major.minor") \
	X(units, "units", U32, 1, 1024, 1, "multiprocessors") \
	X(threads_per_unit, "threads_per_unit", U32, 32, 4096, 1, "resident at once") \
	X(blocks_per_unit, "blocks_per_unit", U32, 1, 32, 1, "resident at once") \
	X(smem_per_unit_bytes, "shared_memory_per_unit", BYTES, 0, 1048576, 1, "") \
	X(smem_per_block_optin_bytes, "shared_memory_per_block", BYTES, 0, 1048576, 1, "with opt-in") \
	X(regs_per_unit, "registers_per_unit", U32, 0, 1048576, 1, "32-bit registers") \
	X(l2_bytes, "l2", BYTES, 0, 1073741824, 1, "") \
	X(clock_khz, "clock", KHZ, 1, 10000000, 1, "boost clock of the units") \
	X(mem_clock_khz, "memory_clock", KHZ, 1, 30000000, 1, "as the driver reports it: half the data rate") \
	X(mem_bus_bits, "memory_bus", U32, 1, 65536, 1, "bits") \
	X(mem_bytes, "memory", BYTES, 2097152, INT64_MAX, 1, "what the driver reports as total") \
	X(context_bytes, "context", BYTES, 0, 17179869184, 1, "device memory that one context takes") \
	X(dram_bytes_per_s, "dram", RATE, 1000000, INT64_MAX, 1, "peak") \
	X(dram_efficiency_ppm, "dram_efficiency", PPM, 1, 1000000, 1, "part of the peak that can be had") \
	X(pcie_bytes_per_s, "pcie", RATE, 1000000, INT64_MAX, 1, "one direction, pinned memory, as measured by copies") \
	X(pageable_bytes_per_s, "pcie_pageable", RATE, 1000000, INT64_MAX, 1, "one direction, host memory that is not pinned") \
	X(host_bytes_per_s, "host_copy", RATE, 1000000, INT64_MAX, 1, "from host to host") \
	X(copy_engines, "copy_engines", U32, 1, 16, 1, "asynchronous; 1 = both directions share it") \
	X(launch_ns, "launch", NS, 0, 1000000000, 1, "from submission to start on an idle device") \
	X(gap_ns, "gap", NS, 0, 1000000000, 1, "between two commands of a channel that lie ready") \
	X(slice_ns, "slice", NS, 1000, 10000000000, 1, "of a context while others have work") \
	X(save_ns, "switch", NS, 0, 1000000000, 1, "to save, or restore, all units' state at a switch of contexts") \
	X(yield_ns, "yield", NS, 0, 1000000000, 1, "to hand idle units to another context") \
	X(power_idle_mw, "power_idle", MW, 0, 10000000, 1, "") \
	X(power_max_mw, "power_max", MW, 0, 10000000, 1, "") \
	X(integrated, "integrated", BOOL, 0, 1, 0, "memory is the host's") \
	X(mig, "mig", BOOL, 0, 1, 0, "can be partitioned")

struct pen_card {
#define PEN_CARD_STR(f) char f[PEN_CARD_NAME];
#define PEN_CARD_U32(f) uint32_t f;
#define PEN_CARD_CC(f) uint32_t f;     /* major * 10 + minor */
#define PEN_CARD_KHZ(f) uint32_t f;
#define PEN_CARD_PPM(f) uint32_t f;
#define PEN_CARD_MW(f) uint32_t f;
#define PEN_CARD_BYTES(f) uint64_t f;
#define PEN_CARD_RATE(f) uint64_t f;
#define PEN_CARD_NS(f) uint64_t f;
#define PEN_CARD_BOOL(f) bool f;
#define X(f, key, type, least, largest, needed, what) PEN_CARD_##type(f)
	PEN_CARD_FIELDS(X)
#undef X
};

/*
 * Reads a card from the @len bytes of @text. @file: its name, for errors ("T4.card:7: ...").
 * Return: 0; -EINVAL with the line and what is allowed. *@ret_card is written on success only.
 */
int pen_card_parse(const char *text, size_t len, const char *file, struct pen_card *ret_card, struct pen_err *err);

#endif
