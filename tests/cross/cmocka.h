/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TESTS_CROSS_CMOCKA_H
#define PEN_TESTS_CROSS_CMOCKA_H
/*
 * The subset of cmocka's interface that the portable unit tests use, for the cross build only: Debian has no cmocka
 * for a foreign architecture unless multiarch is switched on, which a build script should not do to a machine.
 * No mocks; a failed assertion ends its test and the group goes on. Header only: each test program includes it once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef void (*pen_cm_test)(void **state);
typedef int (*pen_cm_fixture)(void **state);

struct CMUnitTest {
	const char *name;
	pen_cm_test test_func;
	pen_cm_fixture setup_func, teardown_func;
	void *initial_state;
};

#define cmocka_unit_test(f) { #f, f, NULL, NULL, NULL }
#define cmocka_unit_test_setup(f, setup) { #f, f, setup, NULL, NULL }
#define cmocka_unit_test_teardown(f, teardown) { #f, f, NULL, teardown, NULL }
#define cmocka_unit_test_setup_teardown(f, setup, teardown) { #f, f, setup, teardown, NULL }
#define cmocka_unit_test_prestate(f, state) { #f, f, NULL, NULL, state }
#define cmocka_unit_test_prestate_setup_teardown(f, setup, teardown, state) { #f, f, setup, teardown, state }

static jmp_buf pen_cm_env_;

enum { PEN_CM_FAILED_ = 1, PEN_CM_SKIPPED_ = 2 };

__attribute__((format(printf, 3, 4), noreturn, unused))
static void pen_cm_fail_(const char *file, int line, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	printf("%s:%d: ", file, line);
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
	longjmp(pen_cm_env_, PEN_CM_FAILED_);
}

#define fail_msg(...) pen_cm_fail_(__FILE__, __LINE__, __VA_ARGS__)
#define fail() fail_msg("failed")
#define skip() longjmp(pen_cm_env_, PEN_CM_SKIPPED_)
#define print_message(...) printf(__VA_ARGS__)
#define print_error(...) fprintf(stderr, __VA_ARGS__)

#define assert_true(c) do { if (!(c)) fail_msg("%s is false", #c); } while (0)
#define assert_false(c) do { if (c) fail_msg("%s is true", #c); } while (0)
#define assert_null(p) do { if ((p) != NULL) fail_msg("%s is not NULL", #p); } while (0)
#define assert_non_null(p) do { if ((p) == NULL) fail_msg("%s is NULL", #p); } while (0)

#define pen_cm_cmp_(a, op, b) do { \
	unsigned long long pen_a_ = (unsigned long long)(a), pen_b_ = (unsigned long long)(b); \
	if (!(pen_a_ op pen_b_)) \
		fail_msg("%s = %#llx, must be " #op " %s = %#llx", #a, pen_a_, #b, pen_b_); \
} while (0)
#define assert_int_equal(a, b) pen_cm_cmp_(a, ==, b)
#define assert_int_not_equal(a, b) pen_cm_cmp_(a, !=, b)
#define assert_ptr_equal(a, b) pen_cm_cmp_((uintptr_t)(a), ==, (uintptr_t)(b))
#define assert_ptr_not_equal(a, b) pen_cm_cmp_((uintptr_t)(a), !=, (uintptr_t)(b))
#define assert_in_range(v, lo, hi) do { pen_cm_cmp_(v, >=, lo); pen_cm_cmp_(v, <=, hi); } while (0)
#define assert_return_code(rc, err) do { \
	if ((rc) < 0) \
		fail_msg("%s = %lld, errno %d", #rc, (long long)(rc), (int)(err)); \
} while (0)

#define assert_string_equal(a, b) do { \
	const char *pen_a_ = (a), *pen_b_ = (b); \
	if (strcmp(pen_a_, pen_b_)) \
		fail_msg("\"%s\" != \"%s\"", pen_a_, pen_b_); \
} while (0)
#define assert_string_not_equal(a, b) do { if (!strcmp(a, b)) fail_msg("%s is \"%s\"", #a, b); } while (0)
#define assert_memory_equal(a, b, n) do { \
	if (memcmp(a, b, n)) \
		fail_msg("%s and %s differ", #a, #b); \
} while (0)
#define assert_memory_not_equal(a, b, n) do { if (!memcmp(a, b, n)) fail_msg("%s and %s are equal", #a, #b); } while (0)

/* Return: 0 passed, PEN_CM_FAILED_ or PEN_CM_SKIPPED_. */
static int pen_cm_run_one_(const struct CMUnitTest *t)
{
	void *volatile state = t->initial_state;
	int r = setjmp(pen_cm_env_);
	if (r)
		return r;
	void *s = state;
	if (t->setup_func && t->setup_func(&s))
		pen_cm_fail_(__FILE__, __LINE__, "%s: setup failed", t->name);
	t->test_func(&s);
	if (t->teardown_func && t->teardown_func(&s))
		pen_cm_fail_(__FILE__, __LINE__, "%s: teardown failed", t->name);
	return 0;
}

static int pen_cm_run_group_(const struct CMUnitTest *tests, size_t n, pen_cm_fixture setup, pen_cm_fixture teardown)
{
	void *state = NULL;
	int failed = 0;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (setup && setup(&state)) {
		printf("group setup failed\n");
		return 1;
	}
	for (size_t i = 0; i < n; i++) {
		struct CMUnitTest t = tests[i];
		if (!t.initial_state)
			t.initial_state = state;
		printf("[ RUN      ] %s\n", t.name);
		int r = pen_cm_run_one_(&t);
		printf("[ %s ] %s\n", r == 0 ? "      OK" : r == PEN_CM_SKIPPED_ ? " SKIPPED" : "  FAILED", t.name);
		failed += r == PEN_CM_FAILED_;
	}
	if (teardown && teardown(&state))
		failed++;
	printf("%d of %zu failed\n", failed, n);
	return failed;
}

#define cmocka_run_group_tests(tests, setup, teardown) \
	pen_cm_run_group_(tests, sizeof(tests) / sizeof((tests)[0]), setup, teardown)
#define cmocka_run_group_tests_name(name, tests, setup, teardown) cmocka_run_group_tests(tests, setup, teardown)

#endif
