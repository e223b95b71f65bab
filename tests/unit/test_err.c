/* SPDX-License-Identifier: Apache-2.0 */
/* The error convention: setters return the code, texts never overflow, a NULL pen_err is allowed everywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A pen_err between two guards, so that a write past the text shows without a sanitizer as well. */
struct guarded {
	unsigned char before[64];
	struct pen_err err;
	unsigned char after[64];
};

static void guard_init(struct guarded *g)
{
	memset(g, 0xa5, sizeof(*g));
	g->err = (struct pen_err)PEN_ERR_INIT;
}

static void guard_check(const struct guarded *g)
{
	for (size_t i = 0; i < sizeof(g->before); i++) {
		assert_int_equal(g->before[i], 0xa5);
		assert_int_equal(g->after[i], 0xa5);
	}
	assert_non_null(memchr(g->err.text, 0, sizeof(g->err.text)));
}

static void test_init_is_empty(void **state)
{
	(void)state;
	struct pen_err err = PEN_ERR_INIT;
	assert_int_equal(err.code, 0);
	assert_string_equal(err.text, "");
}

static void test_x_sets_code_and_text(void **state)
{
	(void)state;
	struct pen_err err = PEN_ERR_INIT;
	assert_int_equal(pen_err_x(&err, -EINVAL, "field '%s': %d is not allowed", "memory", 7), -EINVAL);
	assert_int_equal(err.code, -EINVAL);
	assert_string_equal(err.text, "field 'memory': 7 is not allowed");
}

static void test_sys_appends_reason(void **state)
{
	(void)state;
	static const int codes[] = { -ENOENT, -EACCES, -ENOMEM, -EPROTO, -ESTALE };
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		struct pen_err err = PEN_ERR_INIT;
		char want[256];
		snprintf(want, sizeof(want), "open '/nowhere': %s", strerror(-codes[i]));
		assert_int_equal(pen_err_sys(&err, codes[i], "open '%s'", "/nowhere"), codes[i]);
		assert_int_equal(err.code, codes[i]);
		assert_string_equal(err.text, want);
	}
}

static void test_sys_unknown_code(void **state)
{
	(void)state;
	struct pen_err err = PEN_ERR_INIT;
	assert_int_equal(pen_err_sys(&err, -99999, "call"), -99999);
	assert_int_equal(err.code, -99999);
	assert_int_equal(strncmp(err.text, "call: ", 6), 0);
}

static void test_null_err_returns_code(void **state)
{
	(void)state;
	assert_int_equal(pen_err_x(NULL, -EINVAL, "%s", "x"), -EINVAL);
	assert_int_equal(pen_err_sys(NULL, -ENOENT, "%s", "x"), -ENOENT);
	assert_int_equal(pen_err_prefix(NULL, "%s", "x"), 0);
}

static void test_prefix_stacks(void **state)
{
	(void)state;
	struct pen_err err = PEN_ERR_INIT;
	pen_err_x(&err, -ERANGE, "too large");
	assert_int_equal(pen_err_prefix(&err, "line %d", 12), -ERANGE);
	assert_int_equal(pen_err_prefix(&err, "%s", "a.yaml"), -ERANGE);
	assert_int_equal(err.code, -ERANGE);
	assert_string_equal(err.text, "a.yaml: line 12: too large");
}

static void test_long_texts_are_cut(void **state)
{
	(void)state;
	char longer[3 * PEN_ERR_TEXT];
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
	struct guarded g;

	guard_init(&g);
	assert_int_equal(pen_err_x(&g.err, -EINVAL, "%s", longer), -EINVAL);
	guard_check(&g);
	assert_int_equal(strlen(g.err.text), PEN_ERR_TEXT - 1);

	guard_init(&g);
	assert_int_equal(pen_err_sys(&g.err, -ENOENT, "%s", longer), -ENOENT);
	guard_check(&g);
	/* However long the object's name is, the reason must still be there. */
	assert_non_null(strstr(g.err.text, strerror(ENOENT)));

	guard_init(&g);
	pen_err_x(&g.err, -EINVAL, "tail");
	assert_int_equal(pen_err_prefix(&g.err, "%s", longer), -EINVAL);
	guard_check(&g);
	assert_int_equal(strlen(g.err.text), PEN_ERR_TEXT - 1);
	assert_int_equal(g.err.text[0], 'x');
}

static void test_prefix_keeps_head_cuts_tail(void **state)
{
	(void)state;
	char longer[PEN_ERR_TEXT];
	memset(longer, 'y', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
	struct guarded g;
	guard_init(&g);
	pen_err_x(&g.err, -EINVAL, "%s", longer);
	pen_err_prefix(&g.err, "where");
	guard_check(&g);
	assert_int_equal(strncmp(g.err.text, "where: yyy", 10), 0);
	assert_int_equal(strlen(g.err.text), PEN_ERR_TEXT - 1);
}

static void test_hostile_text_is_not_a_format(void **state)
{
	(void)state;
	struct pen_err err = PEN_ERR_INIT;
	pen_err_x(&err, -EINVAL, "unknown key '%s'", "%n%s%s%999999d");
	pen_err_prefix(&err, "%s", "%n");
	assert_string_equal(err.text, "%n: unknown key '%n%s%s%999999d'");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_init_is_empty),
		cmocka_unit_test(test_x_sets_code_and_text),
		cmocka_unit_test(test_sys_appends_reason),
		cmocka_unit_test(test_sys_unknown_code),
		cmocka_unit_test(test_null_err_returns_code),
		cmocka_unit_test(test_prefix_stacks),
		cmocka_unit_test(test_long_texts_are_cut),
		cmocka_unit_test(test_prefix_keeps_head_cuts_tail),
		cmocka_unit_test(test_hostile_text_is_not_a_format),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
