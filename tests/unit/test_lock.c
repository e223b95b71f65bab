/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting on several words at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/lock.h"

#include <errno.h>
#include <pthread.h>

#define LONG_NS (20 * PEN_S)

static _Atomic uint32_t words[PEN_FUTEX_ANY_MAX + 1];
static const _Atomic uint32_t *list[PEN_FUTEX_ANY_MAX + 1];
static uint32_t seen[PEN_FUTEX_ANY_MAX + 1];

static void setup(void)
{
	for (unsigned i = 0; i <= PEN_FUTEX_ANY_MAX; i++) {
		atomic_store(&words[i], i + 1);
		list[i] = &words[i];
		seen[i] = i + 1;
	}
}

static void *change_and_wake(void *word)
{
	_Atomic uint32_t *w = word;
	atomic_fetch_add(w, 1);
	pen_futex_wake(w, 1);
	return NULL;
}

static void test_any_of_them(void **state)
{
	(void)state;
	for (unsigned i = 0; i < PEN_FUTEX_ANY_MAX; i++) {
		setup();
		pthread_t t;
		uint64_t began = pen_mono_ns();
		pthread_create(&t, NULL, change_and_wake, &words[i]);
		int r = 0;
		while (atomic_load(&words[i]) == seen[i] && pen_mono_ns() - began < LONG_NS)   /* an old kernel looks each millisecond */
			r = pen_futex_wait_any(list, seen, PEN_FUTEX_ANY_MAX, LONG_NS);
		assert_true(r == 0 || r == -ETIMEDOUT);
		assert_true(pen_mono_ns() - began < LONG_NS);
		pthread_join(t, NULL);
	}
}

static void test_changed_before(void **state)
{
	(void)state;
	setup();
	atomic_store(&words[3], 99);
	assert_int_equal(pen_futex_wait_any(list, seen, 5, LONG_NS), 0);
	assert_int_equal(pen_futex_wait_any(&list[3], &seen[3], 1, LONG_NS), 0);
}

static void test_time_is_up(void **state)
{
	(void)state;
	setup();
	errno = EDOM;
	assert_int_equal(pen_futex_wait_any(list, seen, 3, PEN_MS), -ETIMEDOUT);
	assert_int_equal(pen_futex_wait_any(list, seen, 1, PEN_MS), -ETIMEDOUT);
	assert_int_equal(errno, EDOM);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_any_of_them), cmocka_unit_test(test_changed_before), cmocka_unit_test(test_time_is_up) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
