/* SPDX-License-Identifier: Apache-2.0 */
/* Captures, walls and host functions: where nothing of ours may wait, record or ask. */
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

static uint64_t held_ns(void)
{
	uint64_t ns = 0;
	for (unsigned i = 0; i < PEN_HOLD_MAX_; i++)
		ns += atomic_load(&account()->held_ns[i]);
	return ns;
}

static CUcontext open_alone(void)
{
	fake_open(fake_alone(), 0);
	return fake_context();
}

static void learn(struct fake_fn *f, CUstream s)
{
	assert_int_equal(fake_launch(FN(*f), 64, s), 0);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
}

/* ---- captures ---------------------------------------------------------------------------------------------------- */

#define NODES 500

static void test_captured_pass_straight(void **state)
{
	(void)state;
	open_alone();
	CUstream s = fake_stream(0), busy = fake_stream(CU_STREAM_NON_BLOCKING);
	learn(&small, s);
	learn(&large, busy);
	for (int i = 0; i < 2; i++)   /* the window is full: a launch that is run would wait */
		assert_int_equal(fake_launch(FN(large), 64, busy), 0);
	uint64_t commands = atomic_load(&account()->commands), held = held_ns();
	assert_int_equal(pen_cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL), 0);
	assert_int_equal(atomic_load(&pen_cu_captures), 1);
	for (int i = 0; i < NODES; i++)
		assert_int_equal(fake_launch(FN(small), 64, s), 0);
	CUgraph graph;
	assert_int_equal(pen_cuStreamEndCapture(s, &graph), 0);
	assert_int_equal(atomic_load(&pen_cu_captures), 0);
	assert_int_equal(atomic_load(&fake.captured), NODES);
	assert_int_equal(atomic_load(&account()->commands), commands);
	assert_int_equal(held_ns(), held);
	assert_int_equal(pen_cuStreamSynchronize(busy), 0);
	fake_settle();
	fake_assert_clean();
}

static void test_joined_stream(void **state)
{
	(void)state;
	open_alone();
	CUstream s = fake_stream(0), u = fake_stream(0);
	CUevent fork = fake_event(), join = fake_event();
	learn(&small, s);
	learn(&small, u);
	uint64_t commands = atomic_load(&account()->commands);
	assert_int_equal(pen_cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_RELAXED), 0);
	assert_int_equal(pen_cuEventRecord(fork, s), 0);
	assert_int_equal(pen_cuStreamWaitEvent(u, fork, 0), 0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(fake_launch(FN(small), 64, u), 0);
	assert_int_equal(pen_cuEventRecord(join, u), 0);
	assert_int_equal(pen_cuStreamWaitEvent(s, join, 0), 0);
	CUgraph graph;
	assert_int_equal(pen_cuStreamEndCapture(s, &graph), 0);
	assert_int_equal(atomic_load(&account()->commands), commands);
	/* Outside again it runs. */
	assert_int_equal(fake_launch(FN(small), 64, u), 0);
	assert_int_equal(pen_cuStreamSynchronize(u), 0);
	fake_settle();
	assert_int_equal(atomic_load(&account()->commands), commands + 1);
	fake_assert_clean();
}

static void test_capture_that_fails(void **state)
{
	(void)state;
	open_alone();
	CUstream s = fake_stream(0);
	CUgraph graph;
	assert_int_equal(pen_cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL), 0);
	assert_int_equal(pen_cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_ERROR_ILLEGAL_STATE);
	assert_int_equal(atomic_load(&pen_cu_captures), 1);   /* the first goes on */
	CUstream u = fake_stream(0);
	assert_int_not_equal(pen_cuStreamEndCapture(u, &graph), 0);
	assert_int_equal(atomic_load(&pen_cu_captures), 1);
	assert_int_equal(pen_cuStreamEndCapture(s, &graph), 0);
	assert_int_equal(atomic_load(&pen_cu_captures), 0);
	/* A stream that goes in the middle of one takes it with it. */
	assert_int_equal(pen_cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL), 0);
	assert_int_equal(pen_cuStreamDestroy_v2(s), 0);
	assert_int_equal(atomic_load(&pen_cu_captures), 0);
	pen_cu_real.cuStreamEndCapture(s, &graph);
	fake_assert_clean();
}

static _Atomic bool stop;
static CUcontext shared_ctx;

static void *launch_beside(void *p)
{
	(void)p;
	pen_cu_real.cuCtxPushCurrent_v2(shared_ctx);
	CUstream s = fake_stream(CU_STREAM_NON_BLOCKING);
	for (int i = 0; !atomic_load(&stop); i++) {
		assert_int_equal(fake_launch(FN(large), 64, s), 0);     /* waits for the window, looks at marks */
		assert_int_equal(fake_launch(FN(small), (unsigned)(64 + i % 200), s), 0);
		pen_gate_watch(fake_gate());
	}
	pen_cu_real.cuStreamSynchronize(s);
	assert_int_equal(pen_cuStreamDestroy_v2(s), 0);
	return NULL;
}

/* One thread captures, again and again, while others are gated: nobody's capture is broken and nothing of ours gets into one. */
static void test_capture_beside_launches(void **state)
{
	(void)state;
	pthread_t t[2];
	shared_ctx = open_alone();
	CUstream s = fake_stream(0);
	atomic_store(&stop, false);
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, launch_beside, NULL);
	for (int round = 0; round < 40; round++) {
		CUgraph graph;
		assert_int_equal(pen_cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL), 0);
		for (int i = 0; i < 50; i++)
			assert_int_equal(fake_launch(FN(small), 64, s), 0);
		usleep(500);
		assert_int_equal(pen_cuStreamEndCapture(s, &graph), 0);
		for (int i = 0; i < 12; i++)   /* on credit: a tail that others would put a mark behind */
			assert_int_equal(fake_launch(FN(small), 64, s), 0);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	fake_settle();
	assert_int_equal(atomic_load(&fake.captured), 40 * 50);
	assert_true(atomic_load(&fake.own_records) > 0);
	fake_assert_clean();
}

/* A graph is one command, with its own cost; an update makes that stale. */
static void test_graph_cost(void **state)
{
	(void)state;
	static struct fake_fn graph = { 300 * PEN_US };
	CUgraphExec exec = (CUgraphExec)(void *)&graph;
	open_alone();
	CUstream s = fake_stream(0);
	pen_cu_graph_made(exec, (CUgraph)(void *)&fake);
	struct pen_cost *c = pen_gate_cost(fake_gate(), pen_cu_mix((uintptr_t)exec, 3), 1);
	for (int i = 0; i < 6; i++) {
		assert_int_equal(pen_cuGraphLaunch(exec, s), 0);
		assert_int_equal(pen_cuStreamSynchronize(s), 0);
	}
	fake_settle();
	assert_in_range(pen_cost_est_ns(c), 300 * PEN_US, 5 * PEN_MS);
	graph.dur_ns = 10 * PEN_MS;
	assert_int_equal(pen_cuGraphExecKernelNodeSetParams_v2(exec, NULL, NULL), 0);
	assert_true(pen_cost_known(c));
	assert_int_equal(pen_cuGraphLaunch(exec, s), 0);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	fake_settle();
	assert_true(pen_cost_est_ns(c) >= 10 * PEN_MS);   /* at once, and not a fifth of the way */
	pen_cu_graph_gone(exec);
	fake_assert_clean();
}

/* ---- walls ------------------------------------------------------------------------------------------------------- */

static void test_wait_value(void **state)
{
	(void)state;
	open_alone();
	CUstream s = fake_stream(CU_STREAM_NON_BLOCKING), t = fake_stream(CU_STREAM_NON_BLOCKING), u = fake_stream(CU_STREAM_NON_BLOCKING);
	CUevent e = fake_event();
	learn(&large, t);
	assert_int_equal(pen_cuStreamWaitValue32(s, 0, 1, CU_STREAM_WAIT_VALUE_GEQ), 0);
	for (int i = 0; i < 10; i++)   /* more than the window: none of it is waited for */
		assert_int_equal(fake_launch(FN(large), 64, s), 0);
	assert_int_equal(fake_busy(), PEN_BUSY_IDLE);
	/* What waits for that stream stands behind the same wall. */
	assert_int_equal(pen_cuEventRecord(e, s), 0);
	assert_int_equal(pen_cuStreamWaitEvent(u, e, 0), 0);
	assert_int_equal(fake_launch(FN(large), 64, u), 0);
	assert_int_equal(fake_busy(), PEN_BUSY_IDLE);
	/* Another stream is not held up by it. */
	learn(&large, t);
	assert_int_equal(fake_busy(), PEN_BUSY_IDLE);
	fake_unblock(s);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	fake_unblock(u);
	assert_int_equal(pen_cuStreamSynchronize(u), 0);
	fake_settle();
	/* The wall is gone: launches count again as they should. */
	assert_int_equal(fake_launch(FN(large), 64, s), 0);
	assert_int_equal(fake_busy(), PEN_BUSY_RUN);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	fake_settle();
	assert_int_equal(atomic_load(&account()->commands), 1 + 10 + 1 + 1 + 1);
	fake_assert_clean();
}

/* ---- host functions ---------------------------------------------------------------------------------------------- */

static CUstream callback_stream;

static void launch_in_callback(void *p)
{
	(void)p;
	pen_cu_real.cuCtxPushCurrent_v2(shared_ctx);
	for (int i = 0; i < 5; i++)   /* not allowed by CUDA, and done all the same: must not wait for the window */
		fake_launch(FN(large), 64, callback_stream);
}

static void test_host_function_never_waits(void **state)
{
	(void)state;
	shared_ctx = open_alone();
	CUstream s = fake_stream(CU_STREAM_NON_BLOCKING);
	callback_stream = fake_stream(CU_STREAM_NON_BLOCKING);
	learn(&large, s);
	for (int i = 0; i < 2; i++)
		assert_int_equal(fake_launch(FN(large), 64, s), 0);
	uint64_t held = held_ns();
	assert_int_equal(pen_cuLaunchHostFunc(s, launch_in_callback, NULL), 0);
	assert_int_equal(held_ns(), held);
	assert_true(atomic_load(&account()->debts) >= 4);
	assert_int_equal(pen_cuStreamSynchronize(callback_stream), 0);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	fake_settle();
	/* A captured one is the application's own, as often as the graph runs. */
	CUgraph graph;
	assert_int_equal(pen_cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL), 0);
	assert_int_equal(pen_cuLaunchHostFunc(s, launch_in_callback, NULL), 0);
	assert_int_equal(pen_cuStreamEndCapture(s, &graph), 0);
	assert_int_equal(atomic_load(&fake.captured), 1);
	fake_assert_clean();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_captured_pass_straight), cmocka_unit_test(test_joined_stream), cmocka_unit_test(test_capture_that_fails),
		cmocka_unit_test(test_capture_beside_launches), cmocka_unit_test(test_graph_cost), cmocka_unit_test(test_wait_value),
		cmocka_unit_test(test_host_function_never_waits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
