/* SPDX-License-Identifier: Apache-2.0 */
/* What goes with a context: a program that makes one for each of its tasks must not grow. */
#include "driver.h"

#include <malloc.h>
#include <stdlib.h>

#define ROUNDS 64
#define EACH 4   /* events and host functions of a round */

static struct fake_fn small = { 5 * PEN_US };

static void nothing(void *unused)
{
	(void)unused;
}

/* Without what the made-up driver keeps. */
static uint64_t taken(void)
{
	return mallinfo2().uordblks - atomic_load(&fake.kept_bytes);
}

/* Bytes that stay of a round, once all tables are as large as they get. */
static double growth(void (*round)(CUstream s))
{
	uint64_t before = 0;
	fake_open(fake_alone(), 0);
	for (int i = 0; i < 2 * ROUNDS; i++) {
		if (i == ROUNDS)
			before = taken();
		CUcontext c = fake_context();
		CUstream s = fake_stream(CU_STREAM_NON_BLOCKING);
		assert_int_equal(fake_launch(FN(small), 64, s), 0);
		round(s);
		assert_int_equal(pen_cuStreamSynchronize(s), 0);
		assert_int_equal(pen_cuCtxDestroy_v2(c), 0);
		fake_settle();
	}
	return (double)(int64_t)(taken() - before) / ROUNDS;
}

static void record_events(CUstream s)
{
	for (int i = 0; i < EACH; i++)
		assert_int_equal(pen_cuEventRecord(fake_event(), s), 0);
}

static void call_host(CUstream s)
{
	for (int i = 0; i < EACH; i++)
		assert_int_equal(pen_cuLaunchHostFunc(s, nothing, NULL), 0);
}

static void fail_and_call_host(CUstream s)
{
	atomic_store(&fake.failed, true);
	call_host(s);
	atomic_store(&fake.failed, false);
}

static void only_launch(CUstream s)
{
	(void)s;
}

/* Half of the smallest block that an allocator gives, for each. */
static void must_not_grow(void (*round)(CUstream s))
{
	double more = growth(round);
	if (more >= EACH * 8)
		fail_msg("%.0f bytes stay of each round", more);
}

static void test_nothing(void **state)
{
	(void)state;
	must_not_grow(only_launch);
}

static void test_events(void **state)
{
	(void)state;
	must_not_grow(record_events);
}

static void test_host_functions(void **state)
{
	(void)state;
	must_not_grow(call_host);
}

static void test_host_functions_of_a_failed_context(void **state)
{
	(void)state;
	must_not_grow(fail_and_call_host);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing), cmocka_unit_test(test_events), cmocka_unit_test(test_host_functions),
		cmocka_unit_test(test_host_functions_of_a_failed_context),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
