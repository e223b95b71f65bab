/* SPDX-License-Identifier: Apache-2.0 */
/* Order between streams, events and their times, words that streams wait for, host functions. */
#include "cu.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

static CUmodule module;
static CUfunction spin;

static int setup(void **state)
{
	cu_setup(state);
	module = cu_module();
	spin = cu_function(module, "spin");
	return 0;
}

/* A kernel of one block that takes so long. */
static void busy(CUstream s, unsigned us)
{
	void *args[] = { &us };

	OK(cuLaunchKernel(spin, 1, 1, 1, 32, 1, 1, 0, s, args, NULL));
}

static CUevent event(unsigned flags)
{
	CUevent e;

	OK(cuEventCreate(&e, flags));
	return e;
}

static void record(CUevent e, CUstream s)
{
	OK(cuEventRecord(e, s));
}

static float between(CUevent a, CUevent b)
{
	float ms;

	OK(cuEventElapsedTime(&ms, a, b));
	return ms;
}

/* Before, in device time. Both have been waited for. */
static bool earlier(CUevent a, CUevent b)
{
	return between(a, b) >= 0;
}

static void test_elapsed(void **state)
{
	CUevent a = event(0), b = event(0), c = event(CU_EVENT_DISABLE_TIMING);
	CUstream s;
	float ms;

	(void)state;
	OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	FAILS(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime(&ms, a, b));
	record(a, s);
	busy(s, 3000);
	record(b, s);
	record(c, s);
	if (!cu_null()) {
		FAILS(CUDA_ERROR_NOT_READY, cuEventQuery(b));
		FAILS(CUDA_ERROR_NOT_READY, cuStreamQuery(s));
		FAILS(CUDA_ERROR_NOT_READY, cuEventElapsedTime(&ms, a, b));
	}
	OK(cuEventSynchronize(b));
	OK(cuEventQuery(b));
	if (!cu_null())
		assert_true(between(a, b) >= 3.0f);
	/* Half a microsecond is the resolution. */
	assert_true((double)between(a, b) * 2000.0 - (double)(long)((double)between(a, b) * 2000.0 + 0.5) < 0.01);
	FAILS(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime(&ms, a, c));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuEventCreate(&c, CU_EVENT_INTERPROCESS));
	OK(cuStreamSynchronize(s));
	OK(cuEventDestroy_v2(a));
	FAILS(CUDA_ERROR_INVALID_HANDLE, cuEventRecord(a, s));
	OK(cuStreamDestroy_v2(s));
}

/* Two streams of their own run beside each other; an event makes an order. */
static void test_wait_event(void **state)
{
	CUevent end_a = event(0), end_b = event(0), free_b = event(0);
	CUstream a, b;

	(void)state;
	OK(cuStreamCreate(&a, CU_STREAM_NON_BLOCKING));
	OK(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING));
	cu_hold(a);
	cu_hold(b);
	busy(a, 5000);
	busy(b, 100);
	record(free_b, b);
	record(end_a, a);
	OK(cuStreamWaitEvent(b, end_a, 0));
	busy(b, 10);
	record(end_b, b);
	cu_open();
	OK(cuCtxSynchronize());
	if (!cu_null()) {
		assert_true(earlier(free_b, end_a));
		assert_true(earlier(end_a, end_b));
	}
	OK(cuStreamDestroy_v2(a));
	OK(cuStreamDestroy_v2(b));
}

/* The legacy stream waits for blocking streams and they for it; non-blocking ones do neither. */
static void test_legacy_stream(void **state)
{
	CUevent first = event(0), legacy = event(0), after = event(0), other = event(0);
	CUstream block, nonblock;

	(void)state;
	OK(cuStreamCreate(&block, CU_STREAM_DEFAULT));
	OK(cuStreamCreate(&nonblock, CU_STREAM_NON_BLOCKING));
	cu_hold(block);
	cu_hold(nonblock);
	busy(block, 3000);
	record(first, block);
	busy(NULL, 3000);
	record(legacy, NULL);
	busy(nonblock, 10);
	record(other, nonblock);
	busy(block, 10);
	record(after, block);
	cu_open();
	OK(cuCtxSynchronize());
	if (!cu_null()) {
		assert_true(between(first, legacy) >= 3.0f);
		assert_true(earlier(legacy, after));
		assert_true(earlier(other, first));
	}
	OK(cuStreamDestroy_v2(block));
	OK(cuStreamDestroy_v2(nonblock));
}

static CUevent thread_event[2];
static pthread_barrier_t barrier;

static void *per_thread(void *arg)
{
	unsigned us = 3000;
	void *args[] = { &us };
	CUevent e = thread_event[arg != NULL];
	CUstreamCaptureStatus status;

	OK(cuCtxSetCurrent(cu_context));
	OK(cuStreamIsCapturing_ptsz(NULL, &status));
	OK(cuStreamWaitValue32_ptsz(NULL, cu_gate_word, cu_gate_turn + 1, CU_STREAM_WAIT_VALUE_GEQ));
	OK(cuLaunchKernel_ptsz(spin, 1, 1, 1, 32, 1, 1, 0, NULL, args, NULL));
	OK(cuEventRecord_ptsz(e, NULL));
	pthread_barrier_wait(&barrier);   /* both have submitted */
	pthread_barrier_wait(&barrier);   /* and the gate is open */
	OK(cuStreamSynchronize(CU_STREAM_PER_THREAD));
	OK(cuEventQuery(e));
	return NULL;
}

/* Each thread has a stream of its own behind NULL in the per-thread forms. */
static void test_per_thread_stream(void **state)
{
	pthread_t t[2];
	float ms;

	(void)state;
	cu_hold(CU_STREAM_PER_THREAD);   /* makes the gate's word */
	pthread_barrier_init(&barrier, NULL, 3);
	for (long i = 0; i < 2; i++) {
		thread_event[i] = event(0);
		pthread_create(&t[i], NULL, per_thread, (void *)i);
	}
	pthread_barrier_wait(&barrier);
	cu_open();
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	/* Beside each other, they end less than one kernel apart. */
	ms = between(thread_event[0], thread_event[1]);
	assert_true(ms < 3.0f && ms > -3.0f);
}

static void test_priorities(void **state)
{
	int least, most, p;
	CUstream s;

	(void)state;
	OK(cuCtxGetStreamPriorityRange(&least, &most));
	assert_true(least == 0 && most < 0);
	OK(cuStreamCreateWithPriority(&s, CU_STREAM_NON_BLOCKING, most - 5));
	OK(cuStreamGetPriority(s, &p));
	assert_int_equal(p, most);
	CUstreamAttrValue_v1 v = { .priority = -1 };
	OK(cuStreamSetAttribute(s, CU_LAUNCH_ATTRIBUTE_PRIORITY, &v));
	OK(cuStreamGetPriority(s, &p));
	assert_int_equal(p, -1);
	busy(s, 10);
	OK(cuStreamSynchronize(s));
	OK(cuStreamDestroy_v2(s));
	FAILS(CUDA_ERROR_INVALID_HANDLE, cuStreamSynchronize(s));
}

/* What is in a stream that is destroyed goes on, and the context waits for it. */
static void test_destroy_busy(void **state)
{
	CUevent a = event(0), b = event(0);
	CUstream s;

	(void)state;
	OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	record(a, s);
	busy(s, 3000);
	record(b, s);
	OK(cuStreamDestroy_v2(s));
	OK(cuCtxSynchronize());
	OK(cuEventQuery(b));
	if (!cu_null())
		assert_true(between(a, b) >= 3.0f);
}

static void test_words(void **state)
{
	CUevent before = event(0), behind = event(0);
	_Atomic uint32_t *word;
	CUdeviceptr at;
	CUstream s;
	void *p;

	(void)state;
	OK(cuMemHostAlloc(&p, 4096, CU_MEMHOSTALLOC_DEVICEMAP));
	OK(cuMemHostGetDevicePointer_v2(&at, p, 0));
	word = p;
	OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	record(before, s);
	OK(cuStreamWaitValue32(s, at, 5, CU_STREAM_WAIT_VALUE_GEQ));
	OK(cuStreamWriteValue32(s, at + 64, 77, 0));
	record(behind, s);
	if (!cu_null()) {
		OK(cuEventSynchronize(before));
		FAILS(CUDA_ERROR_NOT_READY, cuEventQuery(behind));
		assert_int_equal(word[16], 0);
		*word = 4;
		FAILS(CUDA_ERROR_NOT_READY, cuEventQuery(behind));
		*word = 6;
	}
	OK(cuEventSynchronize(behind));
	assert_int_equal(word[16], 77);
	/* The other conditions, and a batch. */
	*word = 0xf0;
	OK(cuStreamWaitValue32(s, at, 0x10, CU_STREAM_WAIT_VALUE_AND));
	OK(cuStreamWaitValue32(s, at, 0xf0, CU_STREAM_WAIT_VALUE_EQ));
	OK(cuStreamWaitValue32(s, at, 0x0f, CU_STREAM_WAIT_VALUE_NOR));
	CUstreamBatchMemOpParams ops[2] = {
		{ .writeValue = { .operation = CU_STREAM_MEM_OP_WRITE_VALUE_64, .address = at + 128, .value64 = UINT64_C(1) << 40 } },
		{ .waitValue = { .operation = CU_STREAM_MEM_OP_WAIT_VALUE_64, .address = at + 128, .value64 = UINT64_C(1) << 40,
				 .flags = CU_STREAM_WAIT_VALUE_EQ } },
	};
	OK(cuStreamBatchMemOp(s, 2, ops, 0));
	OK(cuStreamSynchronize(s));
	assert_int_equal(((uint64_t *)p)[16], UINT64_C(1) << 40);
	FAILS(CUDA_ERROR_INVALID_VALUE, cuStreamWaitValue32(s, at + 2, 0, 0));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuStreamWaitValue64(s, at + 4, 0, 0));
	OK(cuStreamDestroy_v2(s));
	OK(cuMemFreeHost(p));
}

static _Atomic int calls;
static CUstream called_stream;

static void count(void *step)
{
	calls = calls * 10 + *(int *)step;
}

static void callback(CUstream s, CUresult status, void *step)
{
	called_stream = status ? NULL : s;
	count(step);
}

/* In the stream's order, and what comes behind waits for them. */
static void test_host_functions(void **state)
{
	int one = 1, two = 2, three = 3;
	CUdeviceptr p;
	CUstream s;
	int seen = 0;

	(void)state;
	calls = 0;
	OK(cuMemAlloc_v2(&p, 4));
	OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	busy(s, 1000);
	OK(cuLaunchHostFunc(s, count, &one));
	OK(cuStreamAddCallback(s, callback, &two, 0));
	OK(cuLaunchHostFunc(s, count, &three));
	OK(cuMemcpyHtoDAsync_v2(p, &one, 4, s));
	OK(cuMemcpyDtoHAsync_v2(&seen, p, 4, s));
	OK(cuStreamSynchronize(s));
	assert_int_equal(calls, 123);
	assert_int_equal(seen, 1);
	assert_ptr_equal(called_stream, s);
	OK(cuStreamDestroy_v2(s));
	OK(cuMemFree_v2(p));
}

/* More commands than a channel holds, with parameters for each. */
static void test_many(void **state)
{
	CUfunction add = cu_function(module, "vectorAdd");
	CUdeviceptr p;
	CUstream s;
	float v[32], one[32];
	int n = 32;

	(void)state;
	for (int i = 0; i < n; i++)
		one[i] = 1.0f;
	OK(cuMemAlloc_v2(&p, 2 * sizeof(v)));
	OK(cuMemsetD32_v2(p, 0, 32));
	OK(cuMemcpyHtoD_v2(p + sizeof(v), one, sizeof(one)));
	OK(cuStreamCreate(&s, 0));
	CUdeviceptr q = p + sizeof(v);
	void *args[] = { &p, &q, &p, &n };
	for (int i = 0; i < 3000; i++)
		OK(cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 0, s, args, NULL));
	OK(cuMemcpyDtoHAsync_v2(v, p, sizeof(v), s));
	OK(cuStreamSynchronize(s));
	for (int i = 0; i < n && !cu_null(); i++)
		assert_true(v[i] == 3000.0f);
	OK(cuStreamDestroy_v2(s));
	OK(cuMemFree_v2(p));
}

/* Launch attributes: priority and cooperation. */
static void test_launch_ex(void **state)
{
	CUlaunchAttribute attrs[2] = { { .id = CU_LAUNCH_ATTRIBUTE_PRIORITY, .value = { .priority = -3 } },
				       { .id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE, .value = { .cooperative = 1 } } };
	CUlaunchConfig c = { .gridDimX = 4, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 32, .blockDimY = 1, .blockDimZ = 1, .attrs = attrs, .numAttrs = 2 };
	unsigned us = 1;
	void *args[] = { &us };

	(void)state;
	if (!cu.cuLaunchKernelEx)
		return;
	OK(cuLaunchKernelEx(&c, spin, args, NULL));
	c.gridDimX = 1000000;
	FAILS(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, cuLaunchKernelEx(&c, spin, args, NULL));
	OK(cuCtxSynchronize());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_elapsed), cmocka_unit_test(test_wait_event), cmocka_unit_test(test_legacy_stream),
		cmocka_unit_test(test_per_thread_stream), cmocka_unit_test(test_priorities), cmocka_unit_test(test_destroy_busy),
		cmocka_unit_test(test_words), cmocka_unit_test(test_host_functions), cmocka_unit_test(test_many),
		cmocka_unit_test(test_launch_ex),
	};

	cu_load();
	return cmocka_run_group_tests(tests, setup, cu_teardown);
}
