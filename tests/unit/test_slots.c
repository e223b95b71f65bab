/* SPDX-License-Identifier: Apache-2.0 */
/* Handles of libpenstock: numbers are never used again, a full table refuses, and a forked child has a table of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fork_real.h"
#include "lib/slots.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_one_number_each(void **state)
{
	static struct pen_slots s;
	uint64_t handle[PEN_SLOTS + 1], opened;
	struct pen_slot_table *t = pen_slots_table(&s);
	(void)state;
	assert_non_null(t);
	/* The clock stands still, and then goes back. */
	for (int round = 0; round < 3; round++) {
		uint64_t seen = round == 2 ? 500 : 1000;
		for (unsigned i = 0; i < PEN_SLOTS; i++)
			assert_non_null(pen_slot_open(t, seen, &handle[i]));
		assert_null(pen_slot_open(t, seen, &handle[PEN_SLOTS]));
		for (unsigned i = 0; i < PEN_SLOTS; i++) {
			struct pen_slot *slot = pen_slot_close(&s, handle[i], &opened);
			assert_non_null(slot);
			assert_int_equal(opened, 1000 + round);
			assert_null(pen_slot_close(&s, handle[i], &opened));   /* held */
			pen_slot_free(slot);
			assert_null(pen_slot_close(&s, handle[i], &opened));   /* free */
		}
	}
}

/* A handle has room for 2.3 years of the clock: a machine may be up for longer. */
static void test_long_up(void **state)
{
	static struct pen_slots s;
	static const uint64_t now[] = { (UINT64_C(1) << 56) - 1, UINT64_C(1) << 56, (UINT64_C(1) << 56) + 1, UINT64_C(3) << 56, UINT64_MAX >> 1 };
	struct pen_slot_table *t = pen_slots_table(&s);
	(void)state;
	for (unsigned i = 0; i < sizeof(now) / sizeof(now[0]); i++) {
		uint64_t handle, other, opened;
		assert_non_null(pen_slot_open(t, now[i], &handle));
		assert_non_null(pen_slot_open(t, now[i], &other));
		assert_true(handle && other && handle != other);
		struct pen_slot *slot = pen_slot_close(&s, handle, &opened);
		assert_non_null(slot);
		assert_in_range(opened, now[i], now[i] + 2);
		pen_slot_free(slot);
		assert_null(pen_slot_close(&s, handle, &opened));
		slot = pen_slot_close(&s, other, &opened);
		assert_non_null(slot);
		pen_slot_free(slot);
	}
}

static void test_nonsense(void **state)
{
	static struct pen_slots s;
	uint64_t opened, handle;
	(void)state;
	assert_null(pen_slot_close(&s, 0, &opened));
	assert_null(s.table);   /* not even made */
	assert_non_null(pen_slot_open(pen_slots_table(&s), 5000, &handle));
	static const uint64_t nonsense[] = { 1, 255, 256, 511, UINT64_MAX, UINT64_C(1) << 63 };
	for (unsigned i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++)
		assert_null(pen_slot_close(&s, nonsense[i], &opened));
	for (uint64_t bit = 1; bit; bit <<= 1)
		assert_null(pen_slot_close(&s, handle ^ bit, &opened));
	assert_non_null(pen_slot_close(&s, handle, &opened));
}

/* @not_wiped: as on kernels before 4.14. */
static void fork_with(struct pen_slots *s, uint32_t not_wiped)
{
	uint64_t parents, own, opened;
	struct pen_slot_table *t = pen_slots_table(s);
	if (not_wiped) {
		if (madvise(t, sizeof(*t), MADV_KEEPONFORK) < 0)
			return;
		atomic_store(&s->not_wiped, 1);
	}
	assert_non_null(pen_slot_open(t, 7000, &parents));
	assert_int_equal(pen_slots_process(s), getpid());
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		t = pen_slots_table(s);
		int ok = pen_slots_process(s) == (uint32_t)getpid() && !pen_slot_close(s, parents, &opened) &&
			 pen_slot_open(t, 8000, &own) && pen_slot_close(s, own, &opened) && !pen_slot_close(s, parents, &opened);
		_exit(ok ? 0 : 1);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_non_null(pen_slot_close(s, parents, &opened));
	assert_int_equal(opened, 7000);
}

static void test_fork(void **state)
{
	static struct pen_slots wiped, kept;
	(void)state;
	if (fork_is_real())
		fork_with(&wiped, 0);
	fork_with(&kept, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_number_each),
		cmocka_unit_test(test_long_up),
		cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_fork),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
