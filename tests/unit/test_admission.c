/* SPDX-License-Identifier: Apache-2.0 */
/* Admission: what a device can promise, what it refuses, and what the refusal says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/auto.h"
#include "base/units.h"
#include "contract/contract.h"
#include "contract/text.h"

#include <errno.h>
#include <string.h>

#define G PEN_GIB
#define UNL PEN_UNLIMITED
#define NAME63 "a23456789-123456789-123456789-123456789-123456789-123456789-123"

static void assert_has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' does not say '%s'", text, part);
}

static struct pen_contract contract(const char *name, const char *field, const char *value)
{
	struct pen_contract c;
	pen_contract_init(&c);
	assert_int_equal(pen_contract_set(&c, "name", name, NULL), 0);
	if (field)
		assert_int_equal(pen_contract_set(&c, field, value, NULL), 0);
	return c;
}

struct admit_case {
	const char *held[3];   /* values of the field, for tenants t0, t1, t2 */
	const char *field, *want;
	int code;
	const char *says;
};

static const struct pen_capacity card = { 16 * G, G, 40 };

static void test_admit_table(void **state)
{
	(void)state;
	static const struct admit_case cases[] = {
		{ { NULL }, "memory", "15G", 0, NULL },
		{ { NULL }, "memory", "15G..64G", 0, NULL },
		{ { NULL }, "memory", "..64G", 0, NULL },
		{ { NULL }, "memory", "15361M", -ERANGE,
		  "memory: 15361 MiB cannot be guaranteed: the device has 15 GiB to promise" },
		{ { "8G", "..16G", "4G.." }, "memory", "3G", 0, NULL },
		{ { "8G", "..16G", "4G.." }, "memory", "4G", -EAGAIN,
		  "memory: 4 GiB cannot be guaranteed: 3 GiB of 15 GiB left; held: 't0' 8 GiB, 't2' 4 GiB" },
		{ { "4G", "8G", "3G" }, "memory", "..4G", 0, NULL },
		{ { "60%", "..100%" }, "compute", "40%", 0, NULL },
		{ { "60%", "..100%" }, "compute", "40.0001%", -EAGAIN,
		  "compute: 40.0001% cannot be guaranteed: 40% of 100% left; held: 't0' 60%" },
		/* What is asked for is rounded up, what is left down. */
		{ { "8G", "7166.5M" }, "memory", "1535.6M", -EAGAIN,
		  "memory: 1536 MiB cannot be guaranteed: 1536 KiB of 15 GiB left; held: 't0' 8 GiB, 't1' 7167 MiB" },
		{ { "20", "50%" }, "units", "1", -EAGAIN, "units: 1 cannot be guaranteed: 0 of 40 left; held: 't0' 20, 't1' 20" },
		{ { "20", "25%" }, "units", "10", 0, NULL },
		{ { NULL }, "units", "41", -ERANGE, "units: 41 cannot be guaranteed: the device has 40 to promise" },
	};
	for (size_t i = 0; i < PEN_ARRAY_LEN(cases); i++) {
		const struct admit_case *k = &cases[i];
		struct pen_contract held[3], new = contract("new", k->field, k->want);
		const struct pen_contract *list[3];
		struct pen_err err = PEN_ERR_INIT;
		size_t n = 0;
		for (; n < 3 && k->held[n]; n++) {
			char name[8];
			snprintf(name, sizeof(name), "t%zu", n);
			held[n] = contract(name, k->field, k->held[n]);
			list[n] = &held[n];
		}
		int r = pen_contract_admit(list, n, &card, &new, &err);
		if (r != k->code)
			fail_msg("case %zu: code %d, '%s'", i, r, err.text);
		if (k->says)
			assert_string_equal(err.text, k->says);
	}
}

static void test_admit_duty(void **state)
{
	(void)state;
	struct pen_contract a = contract("cam", "duty", "40%"), b = contract("new", "compute", "60%");
	const struct pen_contract *list[] = { &a };
	struct pen_err err = PEN_ERR_INIT;
	pen_contract_set(&a, "class", "latency", NULL);
	assert_int_equal(pen_contract_admit(list, 1, &card, &b, &err), 0);
	pen_contract_set(&b, "compute", "61%..", NULL);
	assert_int_equal(pen_contract_admit(list, 1, &card, &b, &err), -EAGAIN);
	assert_string_equal(err.text, "compute: 61% cannot be guaranteed: 60% of 100% left; held: 'cam' 40%");
	/* The duty lies inside a guarantee that covers it; it does not come on top. */
	pen_contract_set(&a, "compute", "35%", NULL);
	pen_contract_set(&b, "compute", "60%", NULL);
	assert_int_equal(pen_contract_admit(list, 1, &card, &b, &err), 0);
	pen_contract_set(&a, "compute", "45%", NULL);
	assert_int_equal(pen_contract_admit(list, 1, &card, &b, &err), -EAGAIN);
}

static void test_admit_replaces_own(void **state)
{
	(void)state;
	struct pen_contract a = contract("a", "memory", "10G"), b = contract("b", "memory", "5G");
	struct pen_contract more = contract("a", "memory", "11G"), less = contract("a", "memory", "9G");
	const struct pen_contract *list[] = { &a, &b };
	struct pen_err err = PEN_ERR_INIT;
	assert_int_equal(pen_contract_admit(list, 2, &card, &less, NULL), 0);
	assert_int_equal(pen_contract_admit(list, 2, &card, &a, NULL), 0);
	assert_int_equal(pen_contract_admit(list, 2, &card, &more, &err), -EAGAIN);
	assert_string_equal(err.text, "memory: 11 GiB cannot be guaranteed: 10 GiB of 15 GiB left; held: 'b' 5 GiB");
}

/* What is taken above a guarantee counts as well; a tenant's own does not stand in its way. */
static void test_admit_taken(void **state)
{
	(void)state;
	struct pen_contract a = contract("a", "memory", "4G.."), b = contract("b", NULL, NULL);
	const struct pen_contract *held[] = { &a, &b };
	const uint64_t taken[] = { 4 * G, 8 * G };
	struct pen_capacity cap = card;
	cap.taken = taken;
	struct pen_contract c = contract("c", "memory", "3G"), more = contract("c", "memory", "4G"), own = contract("b", "memory", "11G");
	struct pen_err err = PEN_ERR_INIT;
	assert_int_equal(pen_contract_admit(held, 2, &cap, &c, NULL), 0);
	assert_int_equal(pen_contract_admit(held, 2, &cap, &more, &err), -EAGAIN);
	assert_has(err.text, "3 GiB of 15 GiB left; held: 'b' 8 GiB, 'a' 4 GiB");
	assert_int_equal(pen_contract_admit(held, 2, &cap, &own, NULL), 0);
	cap.taken = NULL;
	assert_int_equal(pen_contract_admit(held, 2, &cap, &more, NULL), 0);
}

static void test_admit_unknown_capacity(void **state)
{
	(void)state;
	const struct pen_capacity bare = { G, 2 * G, 0 };
	struct pen_err err = PEN_ERR_INIT;
	struct pen_contract c = contract("a", "units", "1");
	assert_int_equal(pen_contract_admit(NULL, 0, &bare, &c, &err), -ERANGE);
	assert_string_equal(err.text, "units: cannot be guaranteed: the device cannot be divided into units");
	c = contract("a", "units", "..1");
	assert_int_equal(pen_contract_admit(NULL, 0, &bare, &c, &err), 0);
	c = contract("a", "memory", "1M");
	assert_int_equal(pen_contract_admit(NULL, 0, &bare, &c, &err), -ERANGE);
	assert_string_equal(err.text, "memory: 1 MiB cannot be guaranteed: the device has 0 B to promise");
}

static void test_admit_never_before_not_now(void **state)
{
	(void)state;
	struct pen_contract a = contract("a", "memory", "10G"), b = contract("b", "memory", "10G");
	const struct pen_contract *list[] = { &a };
	struct pen_err err = PEN_ERR_INIT;
	pen_contract_set(&b, "units", "50", NULL);
	assert_int_equal(pen_contract_admit(list, 1, &card, &b, &err), -ERANGE);
	assert_has(err.text, "units: 50 cannot");
}

/* Hundreds of holders with the longest names: the message stays whole within its bound. */
static void test_admit_many_holders(void **state)
{
	(void)state;
	static struct pen_contract held[300];
	static const struct pen_contract *list[300];
	struct pen_err err = PEN_ERR_INIT;
	for (size_t i = 0; i < 300; i++) {
		char name[PEN_NAME_MAX + 1], size[16];
		snprintf(name, sizeof(name), "t%03zu%.59s", i, NAME63);
		snprintf(size, sizeof(size), "%dM", i == 150 ? 1000 : 40);
		held[i] = contract(name, "memory", size);
		list[i] = &held[i];
	}
	struct pen_contract new = contract("new", "memory", "8G");
	assert_int_equal(pen_contract_admit(list, 300, &card, &new, &err), -EAGAIN);
	assert_has(err.text, "left; held: 't150");
	assert_has(err.text, " and 296 more");
}

static void test_sizes(void **state)
{
	(void)state;
	static const struct {
		uint64_t bytes;
		const char *down, *up;
	} rows[] = {
		{ 0, "0 B", "0 B" },
		{ 1023, "1023 B", "1023 B" },
		{ 1536, "1536 B", "1536 B" },
		{ 512 * PEN_MIB, "512 MiB", "512 MiB" },
		{ 512 * PEN_MIB - 1, "511 MiB", "512 MiB" },
		{ 1536 * PEN_MIB, "1536 MiB", "1536 MiB" },
		{ 1536 * PEN_KIB + 1, "1536 KiB", "1537 KiB" },
		{ UINT64_C(7921238016), "7554 MiB", "7555 MiB" },
		{ 900 * 1024 * G, "900 TiB", "900 TiB" },
	};
	for (size_t i = 0; i < PEN_ARRAY_LEN(rows); i++) {
		char text[32];
		assert_string_equal(pen_text_size(text, sizeof(text), rows[i].bytes, false), rows[i].down);
		assert_string_equal(pen_text_size(text, sizeof(text), rows[i].bytes, true), rows[i].up);
	}
}

static void test_units_on(void **state)
{
	(void)state;
	struct pen_contract c = contract("a", "units", "50%..");
	struct pen_range64 r = pen_units_on(&c.units, 5);
	assert_int_equal(r.guaranteed, 3);
	assert_true(r.cap == UNL);
	pen_contract_set(&c, "units", "..1%", NULL);
	assert_int_equal(pen_units_on(&c.units, 5).cap, 1);
	pen_contract_set(&c, "units", "2..4", NULL);
	assert_int_equal(pen_units_on(&c.units, 5).guaranteed, 2);
}

/* What a name of somebody's may do to a terminal: begin a sequence in one byte of two (U+009B), or turn a line around. */
static void test_clean(void **state)
{
	static const struct {
		const char *text, *clean;
	} rows[] = {
		{ "caf\xc3\xa9 \xe7\xbb\x88\xe7\xab\xaf \xf0\x9f\x8e\xa5", "caf\xc3\xa9 \xe7\xbb\x88\xe7\xab\xaf \xf0\x9f\x8e\xa5" },
		{ "a\x1b[2Jb\x7f\tc\n", "a?[2Jb??c?" },
		{ "a\xc2\x9b" "2Jb\xc2\x80\xc2\x9f\xc2\xa0", "a??2Jb????\xc2\xa0" },
		{ "a\xe2\x80\xae" "b\xe2\x81\xa6" "c\xe2\x80\xa8" "d\xe2\x80\xa6", "a???b???c???d\xe2\x80\xa6" },
		{ "\xc0\x9b\xed\xa0\x80\xe2\x80", "???????" },
	};
	(void)state;
	for (size_t i = 0; i < PEN_ARRAY_LEN(rows); i++) {
		char text[64];
		snprintf(text, sizeof(text), "%s", rows[i].text);
		pen_text_clean(text);
		assert_string_equal(text, rows[i].clean);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_admit_table),
		cmocka_unit_test(test_admit_duty),
		cmocka_unit_test(test_admit_replaces_own),
		cmocka_unit_test(test_admit_taken),
		cmocka_unit_test(test_admit_unknown_capacity),
		cmocka_unit_test(test_admit_never_before_not_now),
		cmocka_unit_test(test_admit_many_holders),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_units_on),
		cmocka_unit_test(test_clean),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
