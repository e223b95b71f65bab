/* SPDX-License-Identifier: Apache-2.0 */
/* Copies and fills: bytes, direction, pieces. */
#include "driver.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZE (9 * 1048576u + 12344)   /* no whole number of pieces */

static unsigned char *from, *to;

static struct pen_ledger_client *account(void)
{
	return pen_gate_account(fake_gate());
}

static void fill_source(void)
{
	from = malloc(SIZE + 64);
	to = calloc(1, SIZE + 64);
	for (uint32_t i = 0; i < SIZE; i++)
		from[i] = (unsigned char)(i * 2654435761u >> 13);
}

/* Somebody more urgent was seen a moment ago, so that pieces of 250 us are wanted; or nobody. */
static struct fake_board *board(bool crowded)
{
	static const uint16_t rank[] = { 1, 0 };
	struct fake_board *b = fake_board_new(crowded ? 2 : 1, rank);
	b->base[0].chunk_wide_ns = 2 * PEN_MS;
	b->base[0].chunk_narrow_ns = 250 * PEN_US;
	fake_board_publish(b, 0);
	if (crowded)
		atomic_store(&fake_board_signal(b, 1)->last_busy_ns, pen_mono_ns());
	return b;
}

static void copies(bool crowded)
{
	fake_open(board(crowded), 0);
	fake_context();
	CUstream s = fake_stream(CU_STREAM_NON_BLOCKING);
	fill_source();
	CUdeviceptr dev = (CUdeviceptr)(uintptr_t)to, src = (CUdeviceptr)(uintptr_t)from;

	assert_int_equal(pen_cuMemcpyHtoDAsync_v2(dev + 8, from, SIZE, s), 0);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	assert_memory_equal(to + 8, from, SIZE);
	assert_int_equal(to[7], 0);
	assert_int_equal(to[SIZE + 8], 0);
	uint32_t calls = atomic_load(&fake.calls[FAKE_cuMemcpyHtoDAsync_v2]);
	if (crowded)
		assert_in_range(calls, 3, 10);
	else
		assert_int_equal(calls, 1);

	memset(to, 0, SIZE + 64);
	assert_int_equal(pen_cuMemcpyDtoH_v2(to, src, SIZE), 0);
	assert_memory_equal(to, from, SIZE);
	assert_int_equal(to[SIZE], 0);
	calls = atomic_load(&fake.calls[FAKE_cuMemcpyDtoH_v2]);
	if (crowded)
		assert_in_range(calls, 3, 10);
	else
		assert_int_equal(calls, 1);

	size_t words = SIZE / 4;
	assert_int_equal(pen_cuMemsetD32Async(dev, 0x01020304, words - 1, s), 0);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	for (size_t i = 0; i < words - 1; i++)
		assert_int_equal(((uint32_t *)(void *)to)[i], 0x01020304);
	assert_memory_equal(to + 4 * (words - 1), from + 4 * (words - 1), SIZE - 4 * (words - 1));
	fake_settle();
	assert_int_equal(atomic_load(&account()->bytes), SIZE + SIZE + 4 * (words - 1));
	fake_assert_clean();
	free(from);
	free(to);
}

static void test_alone(void **state)
{
	(void)state;
	copies(false);
}

static void test_pieces(void **state)
{
	(void)state;
	copies(true);
}

/* A capture records the one copy that the application asked for. */
static void test_captured_whole(void **state)
{
	(void)state;
	fake_open(board(true), 0);
	fake_context();
	CUstream s = fake_stream(0);
	fill_source();
	CUgraph graph;
	assert_int_equal(pen_cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL), 0);
	assert_int_equal(pen_cuMemcpyHtoDAsync_v2((CUdeviceptr)(uintptr_t)to, from, SIZE, s), 0);
	assert_int_equal(pen_cuStreamEndCapture(s, &graph), 0);
	assert_int_equal(atomic_load(&fake.captured), 1);
	assert_int_equal(atomic_load(&account()->bytes), 0);
	fake_assert_clean();
	free(from);
	free(to);
}

/* Small ones on the queue's credit are counted as well, one by one. */
static void test_small_ones_count(void **state)
{
	(void)state;
	fake_open(fake_alone(), 0);
	fake_context();
	CUstream s = fake_stream(0);
	fill_source();
	for (int i = 0; i < 200; i++)
		assert_int_equal(pen_cuMemcpyHtoDAsync_v2((CUdeviceptr)(uintptr_t)to, from, 100, s), 0);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	fake_settle();
	assert_int_equal(atomic_load(&account()->bytes), 200 * 100);
	assert_int_equal(atomic_load(&account()->commands), 200);
	assert_in_range(atomic_load(&fake.own_records), 2, 200);
	fake_assert_clean();
	free(from);
	free(to);
}

/* A cap on bytes holds: what is on its way never runs ahead of it by more than a burst and a piece. */
static void test_rate(void **state)
{
	(void)state;
	struct fake_board *b = board(false);
	b->base[0].rate_cap_bytes_s = UINT64_C(100) * 1000 * 1000;   /* far below what this machine copies at */
	fake_board_publish(b, 0);
	fake_open(b, 0);
	fake_context();
	CUstream s = fake_stream(0);
	fill_source();
	uint64_t began = pen_mono_ns();
	for (int i = 0; i < 2; i++)
		assert_int_equal(pen_cuMemcpyHtoDAsync_v2((CUdeviceptr)(uintptr_t)to, from, SIZE, s), 0);
	uint64_t took = pen_mono_ns() - began, need = UINT64_C(2) * SIZE * 10;   /* ns at 100 MB/s */
	assert_true(took > need - 2 * PEN_MIB * 10 - b->base[0].burst_ns - PEN_MS);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	assert_true(atomic_load(&account()->held_ns[PEN_HOLD_BYTES]) > 0);
	fake_settle();
	fake_assert_clean();
	free(from);
	free(to);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alone), cmocka_unit_test(test_pieces), cmocka_unit_test(test_captured_whole),
		cmocka_unit_test(test_small_ones_count), cmocka_unit_test(test_rate),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
