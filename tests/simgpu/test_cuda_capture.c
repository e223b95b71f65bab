/* SPDX-License-Identifier: Apache-2.0 */
/* Stream capture and what may not be done meanwhile. */
#include "cu.h"

#include <pthread.h>

static CUfunction spin, add;
static CUstream s, other;
static CUevent fork_event, join_event;

static int setup(void **state)
{
	cu_setup(state);
	CUmodule m = cu_module();

	spin = cu_function(m, "spin");
	add = cu_function(m, "vectorAdd");
	OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
	OK(cuEventCreate(&fork_event, 0));
	OK(cuEventCreate(&join_event, 0));
	return 0;
}

static void busy(CUstream in, unsigned us)
{
	void *args[] = { &us };

	OK(cuLaunchKernel(spin, 1, 1, 1, 32, 1, 1, 0, in, args, NULL));
}

static void begin(CUstreamCaptureMode mode)
{
	OK(cuStreamBeginCapture_v2(s, mode));
}

static CUstreamCaptureStatus status(CUstream of)
{
	CUstreamCaptureStatus v;

	OK(cuStreamIsCapturing(of, &v));
	return v;
}

static size_t nodes(CUgraph g)
{
	size_t n;

	OK(cuGraphGetNodes(g, NULL, &n));
	return n;
}

static void is_lost(void)
{
	CUgraph g = (CUgraph)1;

	assert_int_equal(status(s), CU_STREAM_CAPTURE_STATUS_INVALIDATED);
	FAILS(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(s, &g));
	assert_null(g);
	assert_int_equal(status(s), CU_STREAM_CAPTURE_STATUS_NONE);
}

static void count(void *calls)
{
	++*(int *)calls;
}

static void test_all_kinds(void **state)
{
	CUgraphExec exec;
	CUdeviceptr p;
	CUgraph g;
	int calls = 0, in[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, out[8] = { 0 };

	(void)state;
	OK(cuMemAlloc_v2(&p, 4096));
	begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
	assert_int_equal(status(s), CU_STREAM_CAPTURE_STATUS_ACTIVE);
	OK(cuMemsetD32Async(p, 9, 16, s));
	OK(cuMemcpyHtoDAsync_v2(p, in, sizeof(in), s));
	busy(s, 100);
	OK(cuLaunchHostFunc(s, count, &calls));
	OK(cuMemcpyDtoHAsync_v2(out, p, sizeof(out), s));
	OK(cuStreamEndCapture(s, &g));
	assert_int_equal(nodes(g), 5);
	assert_int_equal(calls, 0);   /* nothing has been done yet */
	assert_int_equal(out[0], 0);
	OK(cuGraphInstantiateWithFlags(&exec, g, 0));
	for (int i = 0; i < 3; i++) {
		in[0] = 100 + i;
		OK(cuGraphLaunch(exec, s));
		OK(cuStreamSynchronize(s));
		assert_int_equal(calls, i + 1);
		assert_memory_equal(in, out, sizeof(in));
	}
	OK(cuGraphExecDestroy(exec));
	OK(cuGraphDestroy(g));
	OK(cuMemFree_v2(p));
}

/* A fork into another stream and back. */
static void test_fork_join(void **state)
{
	CUgraphNode from[8], to[8];
	size_t n = 8;
	CUgraph g;

	(void)state;
	begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
	busy(s, 10);
	OK(cuEventRecord(fork_event, s));
	OK(cuStreamWaitEvent(other, fork_event, 0));
	assert_int_equal(status(other), CU_STREAM_CAPTURE_STATUS_ACTIVE);
	busy(other, 10);
	busy(s, 10);
	OK(cuEventRecord(join_event, other));
	OK(cuStreamWaitEvent(s, join_event, 0));
	busy(s, 10);
	OK(cuStreamEndCapture(s, &g));
	assert_int_equal(status(other), CU_STREAM_CAPTURE_STATUS_NONE);
	assert_int_equal(nodes(g), 4);
	OK(cuGraphGetEdges(g, from, to, &n));
	assert_int_equal(n, 4);
	OK(cuGraphDestroy(g));
}

static void test_unjoined(void **state)
{
	CUgraph g;

	(void)state;
	begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
	busy(s, 10);
	OK(cuEventRecord(fork_event, s));
	OK(cuStreamWaitEvent(other, fork_event, 0));
	busy(other, 10);
	FAILS(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, cuStreamEndCapture(other, &g));
	is_lost();
	begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
	OK(cuEventRecord(fork_event, s));
	OK(cuStreamWaitEvent(other, fork_event, 0));
	busy(other, 10);
	FAILS(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, cuStreamEndCapture(s, &g));
	assert_int_equal(status(other), CU_STREAM_CAPTURE_STATUS_NONE);
}

/* Calls that conflict with a capture fail, and it is lost. */
static void test_conflicts(void **state)
{
	CUstreamCaptureStatus v;
	CUstream blocking;
	CUdeviceptr p;
	CUgraph g;

	(void)state;
	OK(cuMemAlloc_v2(&p, 64));
	begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
	FAILS(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuStreamSynchronize(s));
	is_lost();
	begin(CU_STREAM_CAPTURE_MODE_RELAXED);
	FAILS(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuStreamQuery(s));
	is_lost();
	begin(CU_STREAM_CAPTURE_MODE_RELAXED);
	OK(cuEventRecord(fork_event, s));
	FAILS(CUDA_ERROR_CAPTURED_EVENT, cuEventQuery(fork_event));
	is_lost();
	begin(CU_STREAM_CAPTURE_MODE_RELAXED);
	FAILS(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuCtxSynchronize());
	is_lost();
	/* An event from before has no place in it. */
	OK(cuEventRecord(join_event, other));
	begin(CU_STREAM_CAPTURE_MODE_RELAXED);
	FAILS(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, cuStreamWaitEvent(s, join_event, 0));
	is_lost();
	/* Two captures cannot become one. */
	begin(CU_STREAM_CAPTURE_MODE_RELAXED);
	OK(cuEventRecord(fork_event, s));
	OK(cuStreamBeginCapture_v2(other, CU_STREAM_CAPTURE_MODE_RELAXED));
	FAILS(CUDA_ERROR_STREAM_CAPTURE_MERGE, cuStreamWaitEvent(other, fork_event, 0));
	FAILS(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(other, &g));
	is_lost();
	/* The legacy stream would have to wait for a blocking one. */
	OK(cuStreamCreate(&blocking, 0));
	OK(cuStreamBeginCapture_v2(blocking, CU_STREAM_CAPTURE_MODE_RELAXED));
	FAILS(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, cuStreamIsCapturing(NULL, &v));
	assert_int_equal(status(blocking), CU_STREAM_CAPTURE_STATUS_ACTIVE);
	FAILS(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, cuMemsetD8Async(p, 0, 16, NULL));
	assert_int_equal(status(blocking), CU_STREAM_CAPTURE_STATUS_INVALIDATED);
	FAILS(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(blocking, &g));
	FAILS(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuStreamBeginCapture_v2(NULL, CU_STREAM_CAPTURE_MODE_GLOBAL));
	begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
	FAILS(CUDA_ERROR_ILLEGAL_STATE, cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_GLOBAL));
	OK(cuStreamEndCapture(s, &g));
	OK(cuGraphDestroy(g));
	OK(cuStreamDestroy_v2(blocking));
	OK(cuMemFree_v2(p));
}

struct thread_call {
	CUstreamCaptureMode mode;
	CUresult result;
};

static void *alloc_in_thread(void *arg)
{
	struct thread_call *c = arg;
	CUdeviceptr p;

	OK(cuCtxSetCurrent(cu_context));
	OK(cuThreadExchangeStreamCaptureMode(&c->mode));
	c->result = cu.cuMemAlloc_v2(&p, 64);
	if (!c->result)
		OK(cuMemFree_v2(p));
	return NULL;
}

static CUresult another_thread(CUstreamCaptureMode mode)
{
	struct thread_call c = { .mode = mode };
	pthread_t t;

	pthread_create(&t, NULL, alloc_in_thread, &c);
	pthread_join(t, NULL);
	return c.result;
}

/* Who may call what is unsafe follows from both modes. */
static void test_modes(void **state)
{
	CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
	CUdeviceptr p;
	CUgraph g;

	(void)state;
	begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
	assert_int_equal(another_thread(CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
	assert_int_equal(another_thread(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), CUDA_SUCCESS);
	assert_int_equal(status(s), CU_STREAM_CAPTURE_STATUS_ACTIVE);
	assert_int_equal(another_thread(CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
	is_lost();
	begin(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
	assert_int_equal(another_thread(CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
	FAILS(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuMemAlloc_v2(&p, 64));
	is_lost();
	begin(CU_STREAM_CAPTURE_MODE_RELAXED);
	OK(cuMemAlloc_v2(&p, 64));
	OK(cuMemFree_v2(p));
	assert_int_equal(another_thread(CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
	OK(cuStreamEndCapture(s, &g));
	OK(cuGraphDestroy(g));
	/* The caller's own mode. */
	begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
	OK(cuThreadExchangeStreamCaptureMode(&mode));
	assert_int_equal(mode, CU_STREAM_CAPTURE_MODE_GLOBAL);
	OK(cuMemAlloc_v2(&p, 64));
	OK(cuMemFree_v2(p));
	OK(cuThreadExchangeStreamCaptureMode(&mode));
	assert_int_equal(mode, CU_STREAM_CAPTURE_MODE_RELAXED);
	OK(cuStreamEndCapture(s, &g));
	OK(cuGraphDestroy(g));
}

/* Streams that are destroyed meanwhile: what joined spoils the capture, what began it ends it. */
static void test_destroyed(void **state)
{
	CUstream a, b;
	CUevent e;
	CUgraph g;

	(void)state;
	OK(cuEventCreate(&e, 0));
	OK(cuStreamCreate(&a, CU_STREAM_NON_BLOCKING));
	OK(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING));
	OK(cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_GLOBAL));
	OK(cuEventRecord(e, a));
	OK(cuStreamWaitEvent(b, e, 0));
	OK(cuStreamDestroy_v2(b));
	OK(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING));   /* perhaps at the same address */
	assert_int_equal(status(b), CU_STREAM_CAPTURE_STATUS_NONE);
	FAILS(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(a, &g));
	OK(cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_GLOBAL));
	OK(cuEventRecord(e, a));
	OK(cuStreamWaitEvent(b, e, 0));
	OK(cuStreamDestroy_v2(a));
	assert_int_equal(status(b), CU_STREAM_CAPTURE_STATUS_NONE);
	busy(b, 10);
	OK(cuStreamSynchronize(b));
	OK(cuStreamDestroy_v2(b));
	OK(cuEventDestroy_v2(e));
}

static void *end_in_thread(void *ret)
{
	CUgraph g;

	OK(cuCtxSetCurrent(cu_context));
	*(CUresult *)ret = cu.cuStreamEndCapture(s, &g);
	return NULL;
}

static void test_wrong_thread(void **state)
{
	CUresult r;
	pthread_t t;

	(void)state;
	begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
	pthread_create(&t, NULL, end_in_thread, &r);
	pthread_join(t, NULL);
	assert_int_equal(r, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
	is_lost();
}

/* A program may put nodes of its own into a capture. */
static void test_info_and_update(void **state)
{
	const CUgraphNode *tips;
	CUstreamCaptureStatus v;
	CUgraphNode node;
	uint64_t id;
	CUgraph g, end;
	size_t n;

	(void)state;
	if (!cu.cuStreamGetCaptureInfo_v2)
		return;
	begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
	busy(s, 10);
	OK(cuStreamGetCaptureInfo_v2(s, &v, &id, &g, &tips, &n));
	assert_int_equal(n, 1);
	OK(cuGraphAddEmptyNode(&node, g, tips, n));
	OK(cuStreamUpdateCaptureDependencies(s, &node, 1, CU_STREAM_SET_CAPTURE_DEPENDENCIES));
	busy(s, 10);
	OK(cuStreamEndCapture(s, &end));
	assert_ptr_equal(end, g);
	assert_int_equal(nodes(g), 3);
	OK(cuGraphNodeGetDependencies(node, NULL, &n));
	assert_int_equal(n, 1);
	OK(cuGraphNodeGetDependentNodes(node, NULL, &n));
	assert_int_equal(n, 1);
	OK(cuGraphDestroy(g));
}

/* Memory that is allocated in a capture is the graph's. */
static void test_memory(void **state)
{
	CUgraphExec exec;
	CUdeviceptr p, q;
	CUgraph g;
	uint64_t used, reserved;
	int in = 42, out = 0;
	size_t before;

	(void)state;
	OK(cuDeviceGraphMemTrim(cu_device));
	before = cu_free_bytes();
	begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
	OK(cuMemAllocAsync(&p, 5 << 20, s));
	OK(cuMemcpyHtoDAsync_v2(p, &in, 4, s));
	OK(cuMemcpyDtoHAsync_v2(&out, p, 4, s));
	OK(cuMemFreeAsync(p, s));
	OK(cuMemAllocAsync(&q, 1 << 20, s));
	OK(cuStreamEndCapture(s, &g));
	OK(cuGraphInstantiateWithFlags(&exec, g, 0));
	assert_int_equal(cu_free_bytes(), before);
	OK(cuGraphLaunch(exec, s));
	OK(cuStreamSynchronize(s));
	assert_int_equal(out, 42);
	OK(cuDeviceGetGraphMemAttribute(cu_device, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, &used));
	OK(cuDeviceGetGraphMemAttribute(cu_device, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &reserved));
	assert_int_equal(used, 2 << 20);
	assert_int_equal(reserved, 8 << 20);
	assert_int_equal(cu_free_bytes(), before - (8 << 20));
	/* What is still allocated must be freed before it is allocated again. */
	FAILS(CUDA_ERROR_INVALID_VALUE, cuGraphLaunch(exec, s));
	OK(cuMemFreeAsync(q, s));
	OK(cuGraphLaunch(exec, s));
	OK(cuStreamSynchronize(s));
	OK(cuMemFree_v2(q));
	OK(cuGraphExecDestroy(exec));
	OK(cuGraphDestroy(g));
	assert_int_equal(cu_free_bytes(), before - (8 << 20));
	OK(cuDeviceGraphMemTrim(cu_device));
	assert_int_equal(cu_free_bytes(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_kinds), cmocka_unit_test(test_fork_join), cmocka_unit_test(test_unjoined),
		cmocka_unit_test(test_conflicts), cmocka_unit_test(test_modes), cmocka_unit_test(test_wrong_thread),
		cmocka_unit_test(test_info_and_update), cmocka_unit_test(test_memory), cmocka_unit_test(test_destroyed),
	};

	cu_load();
	return cmocka_run_group_tests(tests, setup, cu_teardown);
}
