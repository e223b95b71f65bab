/* SPDX-License-Identifier: Apache-2.0 */
/* Several threads in one context: each has its own streams, memory, graphs and captures, and gets its own results. */
#include "cu.h"

#include <pthread.h>

enum { THREADS = 4, ROUNDS = 40, WORDS = 1024 };

static CUfunction add;

/* What assert does in a thread that is not cmocka's: it ends the process, which is a failure too. */
static void need(bool ok, int line)
{
	if (!ok) {
		printf("line %d\n", line);
		abort();
	}
}
#define NEED(call) need(cu.call == CUDA_SUCCESS, __LINE__)

static void memory(CUstream s, unsigned char mark)
{
	unsigned char host[WORDS];
	CUdeviceptr p, q;

	NEED(cuMemAlloc_v2(&p, WORDS));
	NEED(cuMemAllocAsync(&q, WORDS, s));
	NEED(cuMemsetD8Async(p, mark, WORDS, s));
	NEED(cuMemcpyDtoDAsync_v2(q, p, WORDS, s));
	NEED(cuMemcpyDtoHAsync_v2(host, q, WORDS, s));
	NEED(cuMemFreeAsync(q, s));
	NEED(cuStreamSynchronize(s));
	for (int i = 0; i < WORDS; i++)
		need(host[i] == mark, __LINE__);
	NEED(cuMemFree_v2(p));
}

static void kernels(CUstream s, CUstream other, float one)
{
	float host[WORDS];
	CUdeviceptr p;
	CUevent e;
	int n = WORDS;

	for (int i = 0; i < n; i++)
		host[i] = one;
	NEED(cuMemAlloc_v2(&p, sizeof(host)));
	NEED(cuEventCreate(&e, 0));
	NEED(cuMemcpyHtoDAsync_v2(p, host, sizeof(host), s));
	void *args[] = { &p, &p, &p, &n };
	for (int i = 0; i < 4; i++)
		NEED(cuLaunchKernel(add, (unsigned)n / 256, 1, 1, 256, 1, 1, 0, s, args, NULL));
	NEED(cuEventRecord(e, s));
	NEED(cuStreamWaitEvent(other, e, 0));
	NEED(cuMemcpyDtoHAsync_v2(host, p, sizeof(host), other));
	NEED(cuStreamSynchronize(other));
	for (int i = 0; i < n && !cu_null(); i++)
		need(host[i] == 16.0f * one, __LINE__);
	NEED(cuEventDestroy_v2(e));
	NEED(cuMemFree_v2(p));
}

static void graphs(CUstream s, unsigned char mark)
{
	unsigned char host[64] = { 0 };
	CUgraphExec exec;
	CUdeviceptr p;
	CUgraph g;

	NEED(cuMemAlloc_v2(&p, 64));
	NEED(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_RELAXED));
	NEED(cuMemsetD8Async(p, mark, 64, s));
	NEED(cuMemcpyDtoHAsync_v2(host, p, 64, s));
	NEED(cuStreamEndCapture(s, &g));
	NEED(cuGraphInstantiateWithFlags(&exec, g, 0));
	NEED(cuGraphLaunch(exec, s));
	NEED(cuStreamSynchronize(s));
	need(host[63] == mark, __LINE__);
	NEED(cuGraphExecDestroy(exec));
	NEED(cuGraphDestroy(g));
	NEED(cuMemFree_v2(p));
}

static void *work(void *arg)
{
	unsigned char id = (unsigned char)(intptr_t)arg;

	NEED(cuCtxSetCurrent(cu_context));
	for (int i = 0; i < ROUNDS; i++) {
		CUstream s, other;

		NEED(cuStreamCreate(&s, i % 2 ? CU_STREAM_NON_BLOCKING : 0));
		NEED(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
		memory(s, (unsigned char)(id + i));
		kernels(s, other, (float)(id + 1));
		graphs(other, (unsigned char)(id * 50 + i));
		NEED(cuStreamDestroy_v2(s));
		NEED(cuStreamDestroy_v2(other));
	}
	return NULL;
}

static void test_threads(void **state)
{
	size_t before = cu_free_bytes();
	pthread_t t[THREADS];

	(void)state;
	for (intptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, work, (void *)i), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	OK(cuCtxSynchronize());
	assert_int_equal(cu_free_bytes(), before);
}

/* Contexts that come and go beside each other. */
static void *own_context(void *arg)
{
	(void)arg;
	for (int i = 0; i < 5; i++) {
		CUdeviceptr p;
		CUcontext c;

		NEED(cuCtxCreate_v2(&c, 0, cu_device));
		NEED(cuMemAlloc_v2(&p, 3 << 20));
		NEED(cuMemsetD8_v2(p, 1, 3 << 20));
		NEED(cuCtxSynchronize());
		NEED(cuCtxDestroy_v2(c));
	}
	return NULL;
}

static void test_contexts(void **state)
{
	size_t before = cu_free_bytes();
	pthread_t t[THREADS];

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, own_context, NULL), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(cu_free_bytes(), before);
}

static int setup(void **state)
{
	cu_setup(state);
	add = cu_function(cu_module(), "vectorAdd");
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_threads), cmocka_unit_test(test_contexts) };

	cu_load();
	return cmocka_run_group_tests(tests, setup, cu_teardown);
}
