/* SPDX-License-Identifier: Apache-2.0 */
/* Streams, marks, device time, waits and the end of things: the hooks over a real gate and a made-up driver. */
#include "driver.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct fake_fn small = { 5 * PEN_US }, large = { 2 * PEN_MS };

static struct pen_ledger_client *account(void)
{
	return pen_gate_account(fake_gate());
}

static CUcontext open_alone(void)
{
	fake_open(fake_alone(), 0);
	return fake_context();
}

/* ---- streams ---------------------------------------------------------------------------------------------------- */

static void *own_of_thread(void *ctx)
{
	CUcontext gone;
	pen_cu_real.cuCtxPushCurrent_v2(ctx);
	struct pen_cu_stream *s = pen_cu_stream(NULL, true);
	assert_ptr_equal(pen_cu_stream(CU_STREAM_PER_THREAD, false), s);
	pen_cu_real.cuCtxPopCurrent_v2(&gone);
	return s;
}

static void test_records(void **state)
{
	(void)state;
	CUcontext a = open_alone();
	struct pen_cu_stream *legacy = pen_cu_stream(NULL, false), *mine = pen_cu_stream(NULL, true);
	assert_non_null(legacy);
	assert_non_null(mine);
	assert_ptr_not_equal(legacy, mine);
	assert_ptr_equal(pen_cu_stream(CU_STREAM_LEGACY, true), legacy);
	assert_ptr_equal(pen_cu_stream(CU_STREAM_PER_THREAD, false), mine);
	assert_true(legacy->legacy && mine->per_thread && mine->blocking && !legacy->blocking);
	/* Another thread's own stream is another one, and goes with the thread. */
	pthread_t t;
	void *other;
	uint32_t version = atomic_load(&pen_cu_version);
	pthread_create(&t, NULL, own_of_thread, a);
	pthread_join(t, &other);
	assert_ptr_not_equal(other, mine);
	assert_int_equal(atomic_load(&((struct pen_cu_stream *)other)->state), PEN_CU_GONE);
	assert_true(atomic_load(&pen_cu_version) > version);
	/* Made past the hooks: a record at first sight. */
	CUstream hidden;
	pen_cu_real.cuStreamCreate(&hidden, CU_STREAM_NON_BLOCKING);
	struct pen_cu_stream *h = pen_cu_stream(hidden, false);
	assert_non_null(h);
	assert_false(h->blocking);
	assert_ptr_equal(pen_cu_stream(hidden, true), h);
	/* Another context: other default streams; and back. */
	CUcontext b = fake_context();
	assert_ptr_not_equal(pen_cu_stream(NULL, false), legacy);
	assert_ptr_not_equal(pen_cu_stream(NULL, true), mine);
	pen_cu_real.cuCtxPushCurrent_v2(a);
	assert_ptr_equal(pen_cu_stream(NULL, false), legacy);
	assert_ptr_equal(pen_cu_stream(NULL, true), mine);
	assert_int_equal(pen_cuCtxDestroy_v2(b), 0);
	assert_ptr_equal(pen_cu_stream(NULL, false), legacy);
	/* Without a context there is nothing to gate, and nothing to fail. */
	CUcontext gone;
	pen_cu_real.cuCtxPopCurrent_v2(&gone);
	assert_null(pen_cu_stream(NULL, false));
	assert_int_equal(fake_launch(FN(small), 64, NULL), CUDA_ERROR_INVALID_CONTEXT);
	pen_cu_real.cuCtxPushCurrent_v2(a);
	assert_int_equal(pen_cuCtxDestroy_v2(a), 0);
	fake_assert_clean();
}

static void test_handle_used_again(void **state)
{
	(void)state;
	open_alone();
	CUstream s = fake_stream(0);
	struct pen_cu_stream *first = pen_cu_stream(s, false);
	uint32_t use = atomic_load(&first->use);
	assert_int_equal(fake_launch(FN(small), 64, s), 0);
	assert_int_equal(pen_cuStreamDestroy_v2(s), 0);
	/* The same handle, as the driver gives it out again: a new life, though this thread remembers the old one. */
	struct pen_cu_stream *second = pen_cu_stream(s, false);
	assert_non_null(second);
	assert_true(second != first || atomic_load(&second->use) != use);
	assert_int_equal(fake_launch(FN(small), 64, s), 0);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	fake_settle();
	assert_int_equal(atomic_load(&account()->commands), 2);
	fake_assert_clean();
}

/* ---- launches --------------------------------------------------------------------------------------------------- */

#define MANY 400

static void test_launch_learns_and_goes_fast(void **state)
{
	(void)state;
	open_alone();
	CUstream s = fake_stream(CU_STREAM_NON_BLOCKING);
	uint64_t began = pen_mono_ns();
	for (int i = 0; i < 8; i++) {   /* behind another, where it begins when that ends */
		assert_int_equal(fake_launch(FN(large), 64, s), 0);
		assert_int_equal(fake_launch(FN(small), 64, s), 0);
		assert_int_equal(pen_cuStreamSynchronize(s), 0);
	}
	fake_settle();
	struct pen_cost *c = pen_gate_cost(fake_gate(), pen_cu_mix((uintptr_t)&small, 0), 64 * 256);
	assert_true(pen_cost_known(c));
	assert_in_range(pen_cost_est_ns(c), 4800, 5300);
	uint32_t records = atomic_load(&fake.own_records);
	for (int i = 0; i < MANY; i++)
		assert_int_equal(fake_launch(FN(small), 64, s), 0);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	fake_settle();
	/* Two events for each run of credit, not for each launch. */
	uint32_t marks = atomic_load(&fake.own_records) - records;
	assert_in_range(marks, 2, MANY / 2);
	assert_int_equal(atomic_load(&account()->commands), MANY + 16);
	assert_int_equal(atomic_load(&fake.calls[FAKE_cuLaunchKernel]), MANY + 16);
	/* At least what it was, and hardly more than the time that passed: a slow host leaves gaps that look like work. */
	uint64_t charged = atomic_load(&account()->device_ns), true_ns = atomic_load(&fake.busy_ns);
	assert_in_range(charged, true_ns * 95 / 100, PEN_MAX(pen_mono_ns() - began, true_ns) * 105 / 100);
	assert_int_equal(fake_busy(), PEN_BUSY_IDLE);
	fake_assert_clean();
}

/* Alone on the device a kernel that was never seen waits for nothing, and holds up nothing. */
static void test_start_up(void **state)
{
	(void)state;
	static struct fake_fn fn[100];
	open_alone();
	CUstream s = fake_stream(CU_STREAM_NON_BLOCKING);
	for (unsigned i = 0; i < 100; i++) {
		fn[i].dur_ns = (5 + i % 50) * PEN_US;
		assert_int_equal(fake_launch(FN(fn[i]), 16 + i, s), 0);
	}
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	fake_settle();
	assert_in_range(atomic_load(&account()->holds), 0, 50);   /* for the window perhaps, and not each */
	for (unsigned i = 0; i < 100; i += 11)
		assert_true(pen_cost_known(pen_gate_cost(fake_gate(), pen_cu_mix((uintptr_t)&fn[i], 0), (16 + i) * 256)));
	fake_assert_clean();
}

/* The window bounds what is queued. */
static void test_window(void **state)
{
	(void)state;
	open_alone();
	CUstream s = fake_stream(0);
	assert_int_equal(fake_launch(FN(large), 64, s), 0);   /* known from here */
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(fake_launch(FN(large), 64, s), 0);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	fake_settle();
	assert_in_range(atomic_load(&fake.longest_ahead_ns), 2 * PEN_MS, 14 * PEN_MS);
	assert_true(atomic_load(&account()->device_ns) >= 40 * PEN_MS);
	fake_assert_clean();
}

/* ---- waits ------------------------------------------------------------------------------------------------------- */

static void test_event_tells_of_the_queue(void **state)
{
	(void)state;
	open_alone();
	CUstream s = fake_stream(0);
	CUevent e = fake_event(), old = fake_event();
	assert_int_equal(fake_launch(FN(small), 64, s), 0);
	assert_int_equal(pen_cuEventRecord(old, s), 0);
	fake_hold(s);
	assert_int_equal(fake_launch(FN(large), 64, s), 0);
	assert_int_equal(pen_cuEventRecord(e, s), 0);
	/* Not the newest: what came behind it is still in flight. */
	assert_int_equal(pen_cuEventSynchronize(old), 0);
	assert_int_equal(fake_busy(), PEN_BUSY_RUN);
	fake_unblock(s);
	assert_int_equal(pen_cuEventSynchronize(e), 0);
	assert_int_equal(fake_busy(), PEN_BUSY_IDLE);
	/* A question that is answered yes is as good. */
	fake_hold(s);
	assert_int_equal(fake_launch(FN(large), 64, s), 0);
	assert_int_equal(pen_cuEventRecord(e, s), 0);
	assert_int_equal(pen_cuEventQuery(e), CUDA_ERROR_NOT_READY);
	assert_int_equal(fake_busy(), PEN_BUSY_RUN);
	fake_unblock(s);
	pen_cu_real.cuStreamSynchronize(s);
	assert_int_equal(pen_cuEventQuery(e), 0);
	assert_int_equal(fake_busy(), PEN_BUSY_IDLE);
	/* The event outlives its stream. */
	assert_int_equal(fake_launch(FN(small), 64, s), 0);
	assert_int_equal(pen_cuEventRecord(e, s), 0);
	assert_int_equal(pen_cuStreamDestroy_v2(s), 0);
	assert_int_equal(pen_cuEventSynchronize(e), 0);
	assert_int_equal(pen_cuEventDestroy_v2(e), 0);
	fake_assert_clean();
}

static void test_wait_for_all(void **state)
{
	(void)state;
	CUcontext a = open_alone();
	CUstream s = fake_stream(0), t = fake_stream(0);
	assert_int_equal(fake_launch(FN(large), 64, s), 0);
	assert_int_equal(fake_launch(FN(large), 64, t), 0);
	assert_int_equal(fake_launch(FN(large), 64, NULL), 0);
	assert_int_equal(pen_cuCtxSynchronize(), 0);
	assert_int_equal(fake_busy(), PEN_BUSY_IDLE);
	/* Two contexts: what is in the other one is not known to have ended. */
	CUcontext b = fake_context();
	CUstream u = fake_stream(0);
	assert_int_equal(fake_launch(FN(small), 64, u), 0);
	pen_cu_real.cuCtxPushCurrent_v2(a);
	assert_int_equal(fake_launch(FN(small), 64, s), 0);
	pen_cu_real.cuCtxPushCurrent_v2(b);
	assert_int_equal(pen_cuStreamSynchronize(u), 0);
	fake_hold(u);
	assert_int_equal(fake_launch(FN(large), 64, u), 0);
	pen_cu_real.cuCtxPushCurrent_v2(a);
	assert_int_equal(pen_cuCtxSynchronize(), 0);
	struct pen_cu_stream *rec = pen_cu_stream(u, false);
	assert_int_equal(pen_gate_full(rec->queue)->nflight, 1);
	fake_unblock(u);
	assert_int_equal(pen_cuStreamSynchronize(u), 0);
	fake_settle();
	fake_assert_clean();
}

/* A blocking copy is over when it returns, with all that was before it. */
static void test_blocking_copy(void **state)
{
	(void)state;
	open_alone();
	static unsigned char from[100000], to[100000];
	memset(from, 7, sizeof(from));
	assert_int_equal(fake_launch(FN(large), 64, NULL), 0);
	assert_int_equal(fake_busy(), PEN_BUSY_RUN);
	assert_int_equal(pen_cuMemcpyDtoH_v2(to, (CUdeviceptr)(uintptr_t)from, sizeof(from)), 0);
	fake_settle();
	assert_memory_equal(from, to, sizeof(from));
	assert_int_equal(fake_busy(), PEN_BUSY_IDLE);
	assert_int_equal(atomic_load(&account()->bytes), sizeof(from));
	fake_assert_clean();
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static void test_context_goes_with_work(void **state)
{
	(void)state;
	CUcontext a = open_alone();
	CUstream s = fake_stream(0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(fake_launch(FN(large), 64, s), 0);
		assert_int_equal(fake_launch(FN(large), 64, NULL), 0);
		assert_int_equal(pen_cuLaunchKernel_ptsz(FN(small), 1, 1, 1, 256, 1, 1, 0, NULL, NULL, NULL), 0);
	}
	assert_int_equal(pen_cuCtxDestroy_v2(a), 0);
	/* Marks that stand for it are done, and no call touches its events any more. */
	fake_context();
	CUstream t = fake_stream(0);
	assert_int_equal(fake_launch(FN(small), 64, t), 0);
	assert_int_equal(pen_cuStreamSynchronize(t), 0);
	fake_settle();
	assert_int_equal(fake_busy(), PEN_BUSY_IDLE);
	fake_assert_clean();
}

static void *use_and_end(void *ctx)
{
	pen_cu_real.cuCtxPushCurrent_v2(ctx);
	for (int i = 0; i < 20; i++)
		pen_cuLaunchKernel_ptsz(FN(small), 1, 1, 1, 256, 1, 1, 0, NULL, NULL, NULL);
	return NULL;   /* with work in flight */
}

static void test_threads_end_with_work(void **state)
{
	(void)state;
	CUcontext a = open_alone();
	pthread_t t[4];
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 4; i++)
			pthread_create(&t[i], NULL, use_and_end, a);
		for (int i = 0; i < 4; i++)
			pthread_join(t[i], NULL);
	}
	fake_settle();
	assert_int_equal(atomic_load(&account()->commands), 240);
	uint64_t charged = atomic_load(&account()->device_ns), true_ns = atomic_load(&fake.busy_ns);
	assert_true(charged >= true_ns / 2);   /* the last tails by estimate */
	fake_assert_clean();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_records), cmocka_unit_test(test_handle_used_again),
		cmocka_unit_test(test_launch_learns_and_goes_fast), cmocka_unit_test(test_start_up), cmocka_unit_test(test_window),
		cmocka_unit_test(test_event_tells_of_the_queue), cmocka_unit_test(test_wait_for_all), cmocka_unit_test(test_blocking_copy),
		cmocka_unit_test(test_context_goes_with_work), cmocka_unit_test(test_threads_end_with_work),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
