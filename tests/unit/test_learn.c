/* SPDX-License-Identifier: Apache-2.0 */
/* A number of bytes learned from readings that are a little wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon/learn.h"

#define MB (UINT64_C(1) << 20)

static void feed(struct pen_learned *l, uint64_t mib, unsigned times)
{
	while (times--)
		pen_learn(l, mib * MB);
}

static void test_rises_by_agreement(void **state)
{
	(void)state;
	struct pen_learned l = { 0 };
	feed(&l, 500, 2);
	assert_int_equal(l.bytes, 0);
	feed(&l, 300, 1);
	assert_int_equal(l.bytes, 304 * MB);   /* the least of three, in steps */
	for (int i = 0; i < 50; i++) {         /* two wrong ones in a row, again and again */
		feed(&l, 900, 2);
		feed(&l, 300, 1);
	}
	assert_int_equal(l.bytes, 304 * MB);
	feed(&l, 305, 3);
	assert_int_equal(l.bytes, 320 * MB);
}

static void test_falls_late(void **state)
{
	(void)state;
	struct pen_learned l = { 0 };
	feed(&l, 320, 10);
	feed(&l, 100, PEN_LEARN_FALL - 1);
	assert_int_equal(l.bytes, 320 * MB);
	feed(&l, 100, 1);
	assert_int_equal(l.bytes, 112 * MB);
	for (int i = 0; i < 50; i++) {         /* about a border of a step: it stays */
		feed(&l, 95, 1);
		feed(&l, 97, 1);
	}
	assert_int_equal(l.bytes, 112 * MB);
	feed(&l, 10, PEN_LEARN_FALL);
	assert_int_equal(l.bytes, 16 * MB);
	feed(&l, 0, PEN_LEARN_FALL);           /* the last step too */
	assert_int_equal(l.bytes, 0);
}

static void test_fewer(void **state)
{
	(void)state;
	struct pen_learned l = { 0 };
	feed(&l, 320, 20);
	pen_learn_fewer(&l);
	feed(&l, 100, PEN_LEARN_RISE - 1);
	assert_int_equal(l.bytes, 320 * MB);
	feed(&l, 100, 1);
	assert_int_equal(l.bytes, 112 * MB);
	feed(&l, 50, PEN_LEARN_RISE);          /* once */
	assert_int_equal(l.bytes, 112 * MB);
	pen_learn_fewer(&l);                   /* nothing was taken away after all */
	feed(&l, 112, 20);
	assert_int_equal(l.bytes, 112 * MB);
}

static void test_ends_of_the_range(void **state)
{
	(void)state;
	struct pen_learned l = { 0 };
	for (int i = 0; i < 3; i++)
		pen_learn(&l, UINT64_MAX);
	assert_int_equal(l.bytes % PEN_LEARN_STEP, 0);
	assert_true(l.bytes > UINT64_MAX / 2);
	feed(&l, 0, PEN_LEARN_FALL);
	assert_int_equal(l.bytes, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rises_by_agreement),
		cmocka_unit_test(test_falls_late),
		cmocka_unit_test(test_fewer),
		cmocka_unit_test(test_ends_of_the_range),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
