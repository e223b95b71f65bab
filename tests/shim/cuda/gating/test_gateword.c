/* SPDX-License-Identifier: Apache-2.0 */
/* The device-side gate: deep queues that stop within a command, and everything that must open it. */
#include "driver.h"

#include "shim/cuda/prop.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct fake_fn small = { 5 * PEN_US }, middle = { 300 * PEN_US };
static struct fake_board *b;

static void urgent_says(enum pen_busy_state state)
{
	struct pen_signal_page *p = fake_board_signal(b, 0);
	atomic_store(&p->last_busy_ns, pen_mono_ns());
	atomic_store(&p->busy, PEN_BUSY_NEXT(atomic_load(&p->busy), state));
	pen_futex_wake_bits(&fake_board_signal(b, 1)->watching, 1, UINT32_MAX);   /* as pen_gate_ring() does */
}

/* We are tenant 1, somebody more urgent was busy a moment ago; the watcher is there. */
static CUstream open_outranked(CUcontext *ret_ctx)
{
	static const uint16_t rank[] = { 0, 1 };
	b = fake_board_new(2, rank);
	b->base[1].seat[0].flags = PEN_SEAT_LATENCY;
	fake_board_publish(b, 1);
	urgent_says(PEN_BUSY_IDLE);
	fake_open(b, 1);
	CUcontext c = fake_context();
	if (ret_ctx)
		*ret_ctx = c;
	CUstream s = fake_stream(CU_STREAM_NON_BLOCKING);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(fake_launch(FN(middle), 64, s), 0);
		assert_int_equal(pen_cuStreamSynchronize(s), 0);
	}
	assert_true(pen_cu_watched());
	return s;
}

static uint64_t held(enum pen_hold_reason why)
{
	return atomic_load(&pen_gate_account(fake_gate())->held_ns[why]);
}

/* Sleeps while work that may go would go. */
static uint64_t submitted_and_run(void)
{
	usleep(20000);
	return atomic_load(&fake.busy_ns);
}

/* Five batches that stand at a gate which is shut. */
static void stand_at_gate(CUstream s)
{
	fake_hold(s);
	for (int i = 0; i < 5; i++)
		assert_int_equal(fake_launch(FN(middle), 64, s), 0);
	urgent_says(PEN_BUSY_RUN);
	for (int i = 0; i < 5000 && !fake_is_shut(); i++)
		usleep(1000);
	assert_true(fake_is_shut());
	fake_unblock(s);
	assert_int_equal(pen_cu_real.cuStreamQuery(s), CUDA_ERROR_NOT_READY);
}

static void test_deep_and_stops(void **state)
{
	(void)state;
	CUstream s = open_outranked(NULL);
	uint64_t window = held(PEN_HOLD_WINDOW);
	uint32_t waits = atomic_load(&fake.calls[FAKE_cuStreamWaitValue32_v2]);
	fake_hold(s);   /* nothing begins before all of it is there */
	for (int i = 0; i < 10; i++)   /* 3 ms: narrow is 0.4 */
		assert_int_equal(fake_launch(FN(middle), 64, s), 0);
	assert_int_equal(atomic_load(&fake.calls[FAKE_cuStreamWaitValue32_v2]), waits + 10);
	assert_int_equal(held(PEN_HOLD_WINDOW), window);
	uint64_t before = atomic_load(&fake.busy_ns);
	urgent_says(PEN_BUSY_RUN);
	for (int i = 0; i < 5000 && !fake_is_shut(); i++)
		usleep(1000);
	assert_true(fake_is_shut());   /* by the watcher: this thread has made no call */
	fake_unblock(s);
	assert_int_equal(submitted_and_run(), before);
	urgent_says(PEN_BUSY_IDLE);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	assert_int_equal(atomic_load(&fake.busy_ns), before + 10 * middle.dur_ns);
	fake_settle();
	fake_assert_clean();
}

/* Small kernels on credit stand behind the gate of the first of them. */
static void test_one_wait_for_a_batch(void **state)
{
	(void)state;
	CUstream s = open_outranked(NULL);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(fake_launch(FN(small), 64, s), 0);
		assert_int_equal(pen_cuStreamSynchronize(s), 0);
	}
	uint32_t waits = atomic_load(&fake.calls[FAKE_cuStreamWaitValue32_v2]);
	for (int i = 0; i < 100; i++)
		assert_int_equal(fake_launch(FN(small), 64, s), 0);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	assert_in_range(atomic_load(&fake.calls[FAKE_cuStreamWaitValue32_v2]) - waits, 1, 50);
	fake_settle();
	fake_assert_clean();
}

static void test_not_in_a_capture(void **state)
{
	(void)state;
	CUstream s = open_outranked(NULL);
	CUgraph graph;
	assert_int_equal(pen_cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL), 0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(fake_launch(FN(middle), 64, s), 0);
	assert_int_equal(pen_cuStreamEndCapture(s, &graph), 0);
	fake_assert_clean();
}

/* The end of a context waits for what is in it: nothing may stand at its gate. */
static void test_context_ends_while_shut(void **state)
{
	(void)state;
	CUcontext c;
	CUstream s = open_outranked(&c);
	stand_at_gate(s);
	assert_int_equal(pen_cuCtxDestroy_v2(c), 0);
	assert_int_equal(pen_cu_real.cuStreamSynchronize(s), 0);   /* the made-up driver lets it end: the word has come */
	urgent_says(PEN_BUSY_IDLE);
	fake_assert_clean();
}

/* Whoever gives a primary context back that others hold as well does not end it, nor its gate. */
static void test_primary_that_stays(void **state)
{
	(void)state;
	CUcontext c;
	CUstream s = open_outranked(&c);
	fake_primary(c);
	stand_at_gate(s);
	assert_int_equal(pen_cuDevicePrimaryCtxRelease_v2(0), 0);
	urgent_says(PEN_BUSY_IDLE);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	fake_settle();
	uint32_t waits = atomic_load(&fake.calls[FAKE_cuStreamWaitValue32_v2]);
	uint64_t before = atomic_load(&fake.busy_ns);
	stand_at_gate(s);
	assert_int_equal(submitted_and_run(), before);
	assert_int_equal(atomic_load(&fake.calls[FAKE_cuStreamWaitValue32_v2]), waits + 5);
	urgent_says(PEN_BUSY_IDLE);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	fake_settle();
	fake_assert_clean();
}

static _Atomic bool moving;

/* The urgent one makes progress: it is never passed over. */
static void *move(void *unused)
{
	(void)unused;
	while (atomic_load(&moving)) {
		atomic_fetch_add(&fake_board_signal(b, 0)->progress, 1);
		usleep(1000);
	}
	return NULL;
}

/* A call that may wait for the device with the driver's lock, which the watcher would need: open while it lasts, and shut again. */
static void test_open_while_memory_is_freed(void **state)
{
	(void)state;
	CUstream s = open_outranked(NULL);
	pthread_t mover;
	atomic_store(&moving, true);
	pthread_create(&mover, NULL, move, NULL);
	stand_at_gate(s);
	bool propped = pen_cu_gate_prop(), twice = pen_cu_gate_prop();
	assert_true(propped && twice);
	pen_cu_gate_unprop(twice);
	assert_int_equal(pen_cu_real.cuStreamSynchronize(s), 0);   /* though the urgent one is busy, and with nobody's help */
	pen_cu_gate_unprop(propped);
	atomic_store(&moving, false);
	pthread_join(mover, NULL);
	urgent_says(PEN_BUSY_IDLE);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	fake_settle();
	stand_at_gate(s);   /* and it shuts as before */
	urgent_says(PEN_BUSY_IDLE);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	fake_settle();
	fake_assert_clean();
}

static void in_child_export(void)
{
	CUstream s = open_outranked(NULL);
	stand_at_gate(s);
	CUipcEventHandle_v1 handle;
	assert_int_equal(pen_cuIpcGetEventHandle(&handle, fake_event()), 0);
	assert_int_equal(pen_cu_real.cuStreamSynchronize(s), 0);   /* open, though the urgent one is busy */
	urgent_says(PEN_BUSY_IDLE);
	uint32_t waits = atomic_load(&fake.calls[FAKE_cuStreamWaitValue32_v2]);
	assert_int_equal(fake_launch(FN(middle), 64, s), 0);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	assert_int_equal(atomic_load(&fake.calls[FAKE_cuStreamWaitValue32_v2]), waits);   /* and never again */
	fake_assert_clean();
}

/* In a process of its own: it is for good. */
static void test_exported_event_ends_it(void **state)
{
	(void)state;
	fflush(NULL);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		in_child_export();
		exit(0);
	}
	int status = -1;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* Without somebody more urgent about no queue has it. */
static void test_none_without_need(void **state)
{
	(void)state;
	static const uint16_t rank[] = { 0, 1 };
	b = fake_board_new(2, rank);
	fake_open(b, 1);   /* never seen busy */
	fake_context();
	CUstream s = fake_stream(0);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(fake_launch(FN(middle), 64, s), 0);
		assert_int_equal(pen_cuStreamSynchronize(s), 0);
	}
	assert_int_equal(atomic_load(&fake.calls[FAKE_cuStreamWaitValue32_v2]), 0);
	fake_settle();
	fake_assert_clean();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_deep_and_stops), cmocka_unit_test(test_one_wait_for_a_batch), cmocka_unit_test(test_not_in_a_capture),
		cmocka_unit_test(test_context_ends_while_shut), cmocka_unit_test(test_primary_that_stays),
		cmocka_unit_test(test_open_while_memory_is_freed),
		cmocka_unit_test(test_exported_event_ends_it), cmocka_unit_test(test_none_without_need),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
