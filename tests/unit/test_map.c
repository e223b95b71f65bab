/* SPDX-License-Identifier: Apache-2.0 */
/* The map of handles: put, find, take, many at once, and threads that read while others change it. */
#include "board/map.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define N 5000u

static int value[N];

static const void *key(unsigned i)
{
	return (const void *)(uintptr_t)(0x1000 + 16 * i);
}

static void fill(struct pen_map *m)
{
	for (unsigned i = 0; i < N; i++) {
		value[i] = (int)i;
		assert_int_equal(pen_map_put(m, key(i), &value[i]), 0);
	}
}

static void test_one_by_one(void **state)
{
	(void)state;
	struct pen_map m = { 0 };
	assert_null(pen_map_find(&m, key(0)));
	assert_null(pen_map_take(&m, key(0)));
	assert_true(pen_map_empty(&m));
	fill(&m);
	for (unsigned i = 0; i < N; i++)
		assert_ptr_equal(pen_map_find(&m, key(i)), &value[i]);
	assert_null(pen_map_find(&m, key(N)));
	assert_int_equal(pen_map_put(&m, key(7), &value[8]), 0);   /* replaces */
	assert_ptr_equal(pen_map_find(&m, key(7)), &value[8]);
	void *old = &m;
	assert_int_equal(pen_map_swap(&m, key(7), &value[7], &old), 0);
	assert_ptr_equal(old, &value[8]);
	assert_int_equal(pen_map_swap(&m, key(N), &value[0], &old), 0);
	assert_null(old);
	assert_ptr_equal(pen_map_take(&m, key(N)), &value[0]);
	for (unsigned i = 0; i < N; i += 2)
		assert_non_null(pen_map_take(&m, key(i)));
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(pen_map_find(&m, key(i)) != NULL, i % 2);
	for (unsigned i = 1; i < N; i += 2)
		assert_non_null(pen_map_take(&m, key(i)));
	assert_true(pen_map_empty(&m));
}

static bool is_multiple(const void *v, void *arg)
{
	return *(const int *)v % *(int *)arg == 0;
}

static void test_some(void **state)
{
	(void)state;
	struct pen_map m = { 0 };
	void *v[100];
	int three = 3, one = 1;
	size_t n, all = 0;
	assert_int_equal(pen_map_take_some(&m, is_multiple, &three, v, 100), 0);
	fill(&m);
	do {
		n = pen_map_take_some(&m, is_multiple, &three, v, 100);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(*(int *)v[i] % 3, 0);
		all += n;
	} while (n == 100);
	assert_int_equal(all, (N + 2) / 3);
	for (unsigned i = 0; i < N; i++)
		assert_ptr_equal(pen_map_find(&m, key(i)), i % 3 ? &value[i] : NULL);
	void *rest[N];
	assert_int_equal(pen_map_take_some(&m, is_multiple, &one, rest, N), N - all);
	assert_true(pen_map_empty(&m));
	assert_int_equal(pen_map_put(&m, key(1), &value[1]), 0);   /* and it can be used again */
	assert_ptr_equal(pen_map_find(&m, key(1)), &value[1]);
}

static struct pen_map shared;
static _Atomic int stop;

static void *look(void *arg)
{
	(void)arg;
	uintptr_t wrong = 0;
	for (unsigned i = 0; !stop; i = (i + 1) % N) {
		uint32_t in = pen_map_enter(&shared);
		int *v = pen_map_find(&shared, key(i));
		wrong += v && *v != (int)i;
		pen_map_leave(&shared, in);
	}
	return (void *)wrong;
}

static void test_threads(void **state)
{
	(void)state;
	pthread_t t[2];
	void *wrong[2];
	int seven = 7;
	void *v[64];
	fill(&shared);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, look, NULL);
	for (unsigned round = 0; round < 20; round++) {
		size_t n = pen_map_take_some(&shared, is_multiple, &seven, v, 64);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(pen_map_put(&shared, key((unsigned)*(int *)v[i]), v[i]), 0);
	}
	stop = 1;
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(t[i], &wrong[i]);
		assert_null(wrong[i]);
	}
	for (unsigned i = 0; i < N; i++)
		assert_ptr_equal(pen_map_find(&shared, key(i)), &value[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_by_one),
		cmocka_unit_test(test_some),
		cmocka_unit_test(test_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
