/* SPDX-License-Identifier: Apache-2.0 */
/* Priorities: a band for each class where tenants run side by side, and nothing elsewhere; the application sees its own. */
#include "driver.h"

static struct fake_fn small = { 5 * PEN_US };

enum place { LATENCY, NORMAL, LAST };

static void open_as(enum place place, enum pen_device_mode mode)
{
	static const uint16_t rank[] = { 0, 3 };
	struct fake_board *b = fake_board_new(2, rank);
	uint32_t me = place == LAST;
	b->base[me].mode = mode;
	if (place == LATENCY)
		b->base[me].own_flags = PEN_SEAT_LATENCY;
	fake_board_publish(b, me);
	fake_open(b, me);
	fake_context();
}

static CUstream with_priority(int priority)
{
	CUstream s;
	assert_int_equal(pen_cuStreamCreateWithPriority(&s, CU_STREAM_NON_BLOCKING, priority), 0);
	return s;
}

static int shown(CUstream s)
{
	int p = 77;
	CUstreamAttrValue_v1 v;
	assert_int_equal(pen_cuStreamGetPriority(s, &p), 0);
	assert_int_equal(pen_cuStreamGetAttribute(s, CU_LAUNCH_ATTRIBUTE_PRIORITY, &v), 0);
	assert_int_equal(v.priority, p);
	return p;
}

/* The range of the made-up driver is 0 to -5. */
static void test_bands(void **state)
{
	(void)state;
	static const struct { enum place place; int lowest, highest; } rows[] = { { LATENCY, -4, -5 }, { NORMAL, -2, -3 }, { LAST, 0, -1 } };
	int above = -99;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		open_as(rows[i].place, PEN_MODE_CORUN);
		CUstream plain = fake_stream(0), low = with_priority(0), high = with_priority(-5), beyond = with_priority(-9);
		assert_int_equal(fake_priority(plain), rows[i].lowest);
		assert_int_equal(fake_priority(low), rows[i].lowest);
		assert_int_equal(fake_priority(high), rows[i].highest);
		assert_int_equal(fake_priority(beyond), rows[i].highest);
		assert_true(rows[i].highest > above);   /* no two bands meet */
		above = rows[i].lowest;
		assert_int_equal(shown(plain), 0);
		assert_int_equal(shown(low), 0);
		assert_int_equal(shown(high), -5);
		assert_int_equal(shown(beyond), -5);
		int last = 1;
		for (int p = 0; p >= -5; p--) {   /* never turned round */
			int real = fake_priority(with_priority(p));
			assert_true(real <= last);
			last = real;
		}
		int least, greatest;
		assert_int_equal(pen_cu_real.cuCtxGetStreamPriorityRange(&least, &greatest), 0);
		assert_int_equal(least, 0);
		assert_int_equal(greatest, -5);
	}
}

static void test_set_and_seen(void **state)
{
	(void)state;
	open_as(LATENCY, PEN_MODE_CORUN);
	CUstream s = fake_stream(0), hidden;
	CUstreamAttrValue_v1 v = { .priority = -5 };
	assert_int_equal(pen_cuStreamSetAttribute(s, CU_LAUNCH_ATTRIBUTE_PRIORITY, &v), 0);
	assert_int_equal(fake_priority(s), -5);
	assert_int_equal(shown(s), -5);
	v.priority = 0;
	assert_int_equal(pen_cuStreamSetAttribute(s, CU_LAUNCH_ATTRIBUTE_PRIORITY, &v), 0);
	assert_int_equal(fake_priority(s), -4);
	assert_int_equal(shown(s), 0);
	/* Made past the hooks: moved at first sight. */
	pen_cu_real.cuStreamCreateWithPriority(&hidden, 0, -1);
	assert_int_equal(fake_launch(FN(small), 1, hidden), 0);
	assert_int_equal(fake_priority(hidden), -4);
	assert_int_equal(shown(hidden), -1);
	assert_int_equal(pen_cuStreamSynchronize(hidden), 0);
	fake_settle();
}

static void test_launches(void **state)
{
	(void)state;
	open_as(LATENCY, PEN_MODE_CORUN);
	CUlaunchAttribute attr = { .id = CU_LAUNCH_ATTRIBUTE_PRIORITY };
	CUlaunchConfig c = { .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 32, .blockDimY = 1, .blockDimZ = 1, .attrs = &attr, .numAttrs = 1 };
	c.hStream = fake_stream(0);
	assert_int_equal(pen_cuLaunchKernelEx(&c, FN(small), NULL, NULL), 0);
	assert_int_equal(fake.launch_priority, -4);
	assert_int_equal(attr.value.priority, 0);   /* the application's own is left alone */
	/* In a default stream each launch carries it, fast or slow. */
	for (int i = 0; i < 50; i++) {
		fake.launch_priority = 99;
		assert_int_equal(fake_launch(FN(small), 1, NULL), 0);
		assert_int_equal(fake.launch_priority, -4);
	}
	assert_int_equal(atomic_load(&fake.calls[FAKE_cuLaunchKernel]), 0);
	assert_int_equal(pen_cuStreamSynchronize(NULL), 0);
	fake_settle();
	fake_assert_clean();
}

static void test_nothing_in_turns(void **state)
{
	(void)state;
	for (enum place p = LATENCY; p <= LAST; p++) {
		open_as(p, PEN_MODE_EXCLUSIVE);
		assert_int_equal(fake_priority(fake_stream(0)), 0);
		assert_int_equal(fake_priority(with_priority(-2)), -2);
		assert_int_equal(shown(with_priority(-2)), -2);
		assert_int_equal(fake_launch(FN(small), 1, NULL), 0);
		assert_int_equal(atomic_load(&fake.calls[FAKE_cuLaunchKernel]), 1);
		assert_int_equal(pen_cuStreamSynchronize(NULL), 0);
		fake_settle();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_bands), cmocka_unit_test(test_set_and_seen), cmocka_unit_test(test_launches),
					    cmocka_unit_test(test_nothing_in_turns) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
