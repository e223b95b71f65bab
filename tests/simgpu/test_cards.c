/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Card files: the parser's errors, and the cards that are shipped, against what is published. Arguments: their folder, and
 * docs/SIMGPU.md, which must name every key and every kernel that computes.
 */
#include "model/card.h"
#include "simgpu/builtin.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *folder, *manual;

/* Every key once, with a source. */
static const char whole[] =
	"# a card\n"
	"name = \"Some \\ # card\"   # made up\n"
	"compute_capability = 8.6  # made up\n"
	"units = 10 # made up\n"
	"threads_per_unit = 1536 # made up\n"
	"blocks_per_unit = 16 # made up\n"
	"shared_memory_per_unit = 100K # made up\n"
	"shared_memory_per_block = 99K # made up\n"
	"registers_per_unit = 65536 # made up\n"
	"l2 = 6M # made up\n"
	"clock = 1695MHz # made up\n"
	"memory_clock = 6251000kHz # made up\n"
	"memory_bus = 384 # made up\n"
	"memory = 24G # made up\n"
	"context = 256M # made up\n"
	"dram = 600GB/s # made up\n"
	"dram_efficiency = 80% # made up\n"
	"pcie = 25GB/s # made up\n"
	"pcie_pageable = 12GB/s # made up\n"
	"host_copy = 10GB/s # made up\n"
	"copy_engines = 2 # made up\n"
	"launch = 4.36us # made up\n"
	"gap = 1us # made up\n"
	"slice = 2ms # made up\n"
	"switch = 42us # made up\n"
	"\t yield=5us# made up\r\n"
	"power_idle = 15W # made up\n"
	"power_max = 150000mW # made up";

static void test_good(void **state)
{
	(void)state;
	struct pen_card c;
	struct pen_err err = PEN_ERR_INIT;
	assert_int_equal(pen_card_parse(whole, sizeof(whole) - 1, "x.card", &c, &err), 0);
	assert_string_equal(c.name, "Some \\ # card");
	assert_true(c.cc == 86 && c.units == 10 && c.clock_khz == 1695000 && c.mem_clock_khz == 6251000);
	assert_true(c.mem_bytes == UINT64_C(24) << 30 && c.dram_bytes_per_s == 600000000000 && c.dram_efficiency_ppm == 800000);
	assert_true(c.launch_ns == 4360 && c.slice_ns == 2000000 && c.power_idle_mw == 15000 && c.power_max_mw == 150000);
	assert_true(!c.integrated && !c.mig);
}

/* @from in a good card replaced by @to, and what the error must say. */
static void bad(const char *from, const char *to, const char *says)
{
	char text[4096];
	const char *at = strstr(whole, from);
	assert_non_null(at);
	int n = snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - whole), whole, to, at + strlen(from));
	struct pen_card c = { .units = 77 };
	struct pen_err err = PEN_ERR_INIT;
	assert_int_equal(pen_card_parse(text, (size_t)n, "x.card", &c, &err), -EINVAL);
	if (!strstr(err.text, says))
		fail_msg("'%s' does not say '%s'", err.text, says);
	assert_int_equal(c.units, 77);   /* written on success only */
}

static void test_bad(void **state)
{
	(void)state;
	bad("units = 10 ", "units = ten ", "x.card:4: units: 'ten' is not a whole number");
	bad("units = 10 ", "units = 0 ", "x.card:4: units: '0' is out of range: 1 to 1024");
	bad("units = 10 ", "units = 99999999999999999999 ", "x.card:4: units");
	bad("units = 10 # made up", "units = 10", "x.card:4: units: no source after #");
	bad("units = 10 # made up", "units = 10 #  ", "x.card:4: units: no source after #");
	bad("units = 10 ", "unit = 10 ", "x.card:4: unit: no such key");
	bad("units = 10 ", "units 10 ", "x.card:4: 'units 10' is not of the form");
	bad("units = 10 # made up\n", "", "x.card: units is missing (a whole number)");
	bad("threads_per_unit", "units", "x.card:5: units: stands here a second time");
	bad("blocks_per_unit = 16", "blocks_per_unit = 33", "x.card:6: blocks_per_unit: '33' is out of range: 1 to 32");
	bad("8.6", "8", "x.card:3: compute_capability: '8' is not major.minor");
	bad("8.6", "8.10", "is not major.minor");
	bad("\"Some \\ # card\"", "Some card", "x.card:2: name: 'Some card' is not a text in quotes");
	bad("24G", "24X", "x.card:14: memory: '24X' is not bytes such as 16G");
	bad("24G", "-1", "x.card:14: memory");
	bad("600GB/s", "600XB/s", "x.card:16: dram: '600XB/s' is not a rate such as 320GB/s");
	bad("80%", "0%", "x.card:17: dram_efficiency");
	bad("80%", "180%", "x.card:17: dram_efficiency");
	bad("4.36us", "4.36", "x.card:22: launch: '4.36' is not a time such as 1024us");
	bad("1695MHz", "1695", "x.card:11: clock: '1695' is not a clock such as 1590MHz");
	bad("150000mW", "150000", "power_max: '150000' is not power such as 70W");
	char with_zero[] = "units = 1\0 # made up\n";
	struct pen_card c;
	struct pen_err err = PEN_ERR_INIT;
	assert_int_equal(pen_card_parse(with_zero, sizeof(with_zero) - 1, "x.card", &c, &err), -EINVAL);
	char *wide = malloc(2000);
	memset(wide, 'x', 2000);
	assert_int_equal(pen_card_parse(wide, 2000, "x.card", &c, &err), -EINVAL);
	assert_non_null(strstr(err.text, "x.card:1: longer than"));
	free(wide);
	assert_int_equal(pen_card_parse("", 0, "x.card", &c, NULL), -EINVAL);
}

static struct pen_card load(const char *name)
{
	char path[4096], text[16384];
	struct pen_card c;
	struct pen_err err = PEN_ERR_INIT;
	snprintf(path, sizeof(path), "%s/%s.card", folder, name);
	FILE *f = fopen(path, "re");
	if (!f)
		fail_msg("no %s", path);
	size_t n = fread(text, 1, sizeof(text), f);
	fclose(f);
	if (pen_card_parse(text, n, path, &c, &err) < 0)
		fail_msg("%s", err.text);
	return c;
}

/* Against a second copy of the published numbers, so that a slip of the finger is found. */
static void test_shipped(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		uint32_t cc, units;
		uint64_t mem_gib, dram_gbs;
		bool mig, integrated;
	} known[] = {
		{ "T4", 75, 40, 16, 320, false, false },
		{ "A2", 86, 10, 16, 200, false, false },
		{ "A10", 86, 72, 24, 600, false, false },
		{ "L4", 89, 58, 24, 300, false, false },
		{ "A30", 80, 56, 24, 933, true, false },
		{ "A100-40", 80, 108, 40, 1555, true, false },
		{ "A100-80", 80, 108, 80, 2039, true, false },
		{ "H100-80", 90, 132, 80, 3350, true, false },
		{ "H200-141", 90, 132, 141, 4800, true, false },
		{ "Orin", 87, 16, 64, 204, false, true },
	};
	for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		struct pen_card c = load(known[i].name);
		assert_int_equal(c.cc, known[i].cc);
		assert_int_equal(c.units, known[i].units);
		assert_true(c.mem_bytes >> 30 <= known[i].mem_gib && c.mem_bytes >> 30 >= known[i].mem_gib * 9 / 10);
		assert_int_equal(c.dram_bytes_per_s / 1000000000, known[i].dram_gbs);
		assert_true(c.mig == known[i].mig && c.integrated == known[i].integrated);
		/* The bus and the memory clock (two bits a clock) give the bandwidth. */
		double computed = (double)c.mem_clock_khz * 1e3 * 2 * c.mem_bus_bits / 8;
		assert_true(computed > (double)c.dram_bytes_per_s * 0.97 && computed < (double)c.dram_bytes_per_s * 1.03);
		assert_true(c.slice_ns >= 1000000 && c.slice_ns <= 2000000 && c.pageable_bytes_per_s <= c.pcie_bytes_per_s);
		assert_true(c.smem_per_block_optin_bytes <= c.smem_per_unit_bytes && c.context_bytes < c.mem_bytes / 20);
	}
}

static void test_documented(void **state)
{
	(void)state;
	static char text[65536];
	FILE *f = fopen(manual, "re");
	assert_non_null(f);
	text[fread(text, 1, sizeof(text) - 1, f)] = 0;
	fclose(f);
	static const char *const names[] = {
#define X(field, key, type, least, largest, needed, what) "`" key "`",
		PEN_CARD_FIELDS(X)
#undef X
#define X(id, name, what) "| `" name "` |",
		SIM_BUILTINS(X)
#undef X
	};
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strstr(text, names[i]))
			fail_msg("%s is not in %s", names[i], manual);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_shipped),
		cmocka_unit_test(test_documented),
	};
	folder = argc > 1 ? argv[1] : ".";
	manual = argc > 2 ? argv[2] : "docs/SIMGPU.md";
	return cmocka_run_group_tests(tests, NULL, NULL);
}
