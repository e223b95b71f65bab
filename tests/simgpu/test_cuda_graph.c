/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs that are built by hand: every type of node, branches, child graphs, clones, other parameters, update. */
#include "cu.h"

static CUfunction spin, add;
static CUstream s;

static int setup(void **state)
{
	cu_setup(state);
	CUmodule m = cu_module();

	spin = cu_function(m, "spin");
	add = cu_function(m, "vectorAdd");
	OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	return 0;
}

static CUgraph graph(void)
{
	CUgraph g;

	OK(cuGraphCreate(&g, 0));
	return g;
}

static CUgraphExec instantiate(CUgraph g)
{
	CUgraphExec e;

	OK(cuGraphInstantiateWithFlags(&e, g, 0));
	return e;
}

static void run(CUgraphExec e)
{
	OK(cuGraphLaunch(e, s));
	OK(cuStreamSynchronize(s));
}

/* A kernel node that takes so long. */
static CUgraphNode busy(CUgraph g, const CUgraphNode *deps, size_t n, unsigned us)
{
	void *args[] = { &us };
	CUDA_KERNEL_NODE_PARAMS_v1 p = { spin, 1, 1, 1, 32, 1, 1, 0, args, NULL };
	CUgraphNode node;

	OK(cuGraphAddKernelNode(&node, g, deps, n, &p));
	return node;
}

static CUDA_MEMCPY3D_v2 to_host(void *dst, CUdeviceptr src, size_t n)
{
	return (CUDA_MEMCPY3D_v2){ .srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = src, .srcPitch = n, .srcHeight = 1,
				   .dstMemoryType = CU_MEMORYTYPE_HOST, .dstHost = dst, .dstPitch = n, .dstHeight = 1, .WidthInBytes = n,
				   .Height = 1, .Depth = 1 };
}

/* A fill, a kernel that works on it, and a copy back. */
static void test_chain(void **state)
{
	CUgraphNode fill, kernel, copy;
	CUgraph g = graph();
	CUdeviceptr p;
	float out[64];
	int n = 64;
	uint32_t one;

	(void)state;
	memcpy(&one, &(float){ 1.0f }, 4);
	OK(cuMemAlloc_v2(&p, sizeof(out)));
	CUDA_MEMSET_NODE_PARAMS_v1 f = { .dst = p, .value = one, .elementSize = 4, .width = 64, .height = 1 };
	OK(cuGraphAddMemsetNode(&fill, g, NULL, 0, &f, cu_context));
	void *args[] = { &p, &p, &p, &n };
	CUDA_KERNEL_NODE_PARAMS_v1 k = { add, 1, 1, 1, 64, 1, 1, 0, args, NULL }, got;
	OK(cuGraphAddKernelNode(&kernel, g, &fill, 1, &k));
	CUDA_MEMCPY3D_v2 c = to_host(out, p, sizeof(out));
	OK(cuGraphAddMemcpyNode(&copy, g, &kernel, 1, &c, cu_context));
	OK(cuGraphKernelNodeGetParams(kernel, &got));
	assert_ptr_equal(got.func, add);
	assert_int_equal(*(int *)got.kernelParams[3], 64);

	CUgraphExec e = instantiate(g);
	run(e);
	for (int i = 0; i < n && !cu_null(); i++)
		assert_true(out[i] == 2.0f);
	/* Other parameters: of the executable, of the graph. */
	f.value = 0x40400000;   /* 3.0 */
	OK(cuGraphExecMemsetNodeSetParams(e, fill, &f, cu_context));
	run(e);
	for (int i = 0; i < n && !cu_null(); i++)
		assert_true(out[i] == 6.0f);
	OK(cuGraphMemsetNodeGetParams(fill, &f));
	assert_int_equal(f.value, one);   /* the graph itself has not changed */
	if (cu.cuGraphNodeSetEnabled) {
		OK(cuGraphNodeSetEnabled(e, kernel, 0));
		run(e);
		assert_true(out[5] == 3.0f);
	}
	/* The whole graph again: the executable takes its parameters. */
	CUgraphNode bad;
	CUgraphExecUpdateResult result;
	OK(cuGraphExecUpdate(e, g, &bad, &result));
	assert_int_equal(result, CU_GRAPH_EXEC_UPDATE_SUCCESS);
	run(e);
	assert_true(out[5] == 1.0f || !cu.cuGraphNodeSetEnabled);
	busy(g, NULL, 0, 1);
	FAILS(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, cuGraphExecUpdate(e, g, &bad, &result));
	assert_int_equal(result, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
	OK(cuGraphExecDestroy(e));
	OK(cuGraphDestroy(g));
	OK(cuMemFree_v2(p));
}

/* Branches run beside each other: six of 3 ms take less than twelve. */
static void test_branches(void **state)
{
	CUgraphNode root, branch[6], end;
	CUevent from, to;
	CUgraph g = graph();
	float ms;

	(void)state;
	OK(cuGraphAddEmptyNode(&root, g, NULL, 0));
	for (int i = 0; i < 6; i++)
		branch[i] = busy(g, &root, 1, 3000);
	OK(cuGraphAddEmptyNode(&end, g, branch, 6));
	CUgraphExec e = instantiate(g);
	OK(cuEventCreate(&from, 0));
	OK(cuEventCreate(&to, 0));
	cu_hold(s);
	OK(cuEventRecord(from, s));
	OK(cuGraphLaunch(e, s));
	OK(cuEventRecord(to, s));
	/* Launches of one executable come one after another, also in another stream. */
	CUstream other;
	CUevent second;
	OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
	OK(cuEventCreate(&second, 0));
	OK(cuGraphLaunch(e, other));
	OK(cuEventRecord(second, other));
	cu_open();
	OK(cuCtxSynchronize());
	if (!cu_null()) {
		OK(cuEventElapsedTime(&ms, from, to));
		assert_true(ms >= 3.0f && ms < 12.0f);
		OK(cuEventElapsedTime(&ms, to, second));
		assert_true(ms >= 3.0f);
	}
	OK(cuStreamDestroy_v2(other));
	OK(cuGraphExecDestroy(e));
	OK(cuGraphDestroy(g));
}

static int order[16], calls;

static void note(void *which)
{
	order[calls++] = *(int *)which;
}

/* Dependencies hold through a child graph, in both directions. */
static void test_child(void **state)
{
	static int number[4] = { 1, 2, 3, 4 };
	CUgraphNode a, b, c, child_node, d, in_child;
	CUgraph g = graph(), child = graph(), embedded;
	CUDA_HOST_NODE_PARAMS_v1 h[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		h[i] = (CUDA_HOST_NODE_PARAMS_v1){ note, &number[i] };
	OK(cuGraphAddHostNode(&b, child, NULL, 0, &h[1]));
	OK(cuGraphAddHostNode(&c, child, &b, 1, &h[2]));
	OK(cuGraphAddHostNode(&a, g, NULL, 0, &h[0]));
	OK(cuGraphAddChildGraphNode(&child_node, g, &a, 1, child));
	OK(cuGraphAddHostNode(&d, g, &child_node, 1, &h[3]));
	OK(cuGraphDestroy(child));   /* the node has a copy */
	CUgraphExec e = instantiate(g);
	calls = 0;
	run(e);
	assert_int_equal(calls, 4);
	for (int i = 0; i < 4; i++)
		assert_int_equal(order[i], i + 1);
	/* A node of the embedded graph may be given other parameters. */
	static int other = 9;
	size_t n = 1;
	OK(cuGraphChildGraphNodeGetGraph(child_node, &embedded));
	OK(cuGraphGetRootNodes(embedded, &in_child, &n));
	OK(cuGraphExecHostNodeSetParams(e, in_child, &(CUDA_HOST_NODE_PARAMS_v1){ note, &other }));
	calls = 0;
	run(e);
	assert_int_equal(order[1], 9);
	FAILS(CUDA_ERROR_INVALID_VALUE, cuGraphDestroy(embedded));
	OK(cuGraphExecDestroy(e));
	OK(cuGraphDestroy(g));
}

static void test_events(void **state)
{
	CUgraphNode rec, wait, k;
	CUgraph g = graph();
	CUevent from, mid, to, got;
	float ms;

	(void)state;
	OK(cuEventCreate(&from, 0));
	OK(cuEventCreate(&mid, 0));
	OK(cuEventCreate(&to, 0));
	k = busy(g, NULL, 0, 2000);
	OK(cuGraphAddEventRecordNode(&rec, g, &k, 1, mid));
	OK(cuGraphAddEventWaitNode(&wait, g, &rec, 1, from));
	OK(cuGraphEventRecordNodeGetEvent(rec, &got));
	assert_ptr_equal(got, mid);
	OK(cuEventRecord(from, s));
	CUgraphExec e = instantiate(g);
	OK(cuGraphLaunch(e, s));
	OK(cuEventRecord(to, s));
	OK(cuStreamSynchronize(s));
	OK(cuEventQuery(mid));
	if (!cu_null()) {
		OK(cuEventElapsedTime(&ms, from, mid));
		assert_true(ms >= 2.0f);
		OK(cuEventElapsedTime(&ms, mid, to));
		assert_true(ms >= 0.0f);
	}
	OK(cuGraphExecDestroy(e));
	OK(cuGraphDestroy(g));
}

static void test_shape(void **state)
{
	CUgraphNode a, b, c, in_clone;
	CUgraph g = graph(), clone;
	CUgraphNodeType type;
	size_t n;

	(void)state;
	OK(cuGraphAddEmptyNode(&a, g, NULL, 0));
	OK(cuGraphAddEmptyNode(&b, g, &a, 1));
	OK(cuGraphAddEmptyNode(&c, g, NULL, 0));
	OK(cuGraphAddDependencies(g, &b, &c, 1));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuGraphAddDependencies(g, &c, &a, 1));   /* a circle */
	FAILS(CUDA_ERROR_INVALID_VALUE, cuGraphAddDependencies(g, &b, &c, 1));   /* is there */
	OK(cuGraphGetEdges(g, NULL, NULL, &n));
	assert_int_equal(n, 2);
	OK(cuGraphClone(&clone, g));
	OK(cuGraphNodeFindInClone(&in_clone, b, clone));
	OK(cuGraphNodeGetDependencies(in_clone, NULL, &n));
	assert_int_equal(n, 1);
	OK(cuGraphDestroyNode(b));
	OK(cuGraphGetRootNodes(g, NULL, &n));
	assert_int_equal(n, 2);
	OK(cuGraphGetNodes(clone, NULL, &n));
	assert_int_equal(n, 3);
	OK(cuGraphNodeGetType(a, &type));
	assert_int_equal(type, CU_GRAPH_NODE_TYPE_EMPTY);
	/* Nodes of another graph are no dependencies. */
	FAILS(CUDA_ERROR_INVALID_VALUE, cuGraphAddEmptyNode(&b, g, &in_clone, 1));
	CUgraphNode list[4];
	n = 4;
	OK(cuGraphGetNodes(clone, list, &n));
	assert_int_equal(n, 3);
	assert_null(list[3]);
	OK(cuGraphDestroy(clone));
	OK(cuGraphDestroy(g));
}

/* The forms that came later: one call for all types, parameters of instantiation, memory operations, memory. */
static void test_new_forms(void **state)
{
	CUgraphNode node;
	CUgraph g = graph();
	CUgraphExec e;
	CUdeviceptr p;
	unsigned us = 10, word = 0;
	void *args[] = { &us };
	uint64_t flags;

	(void)state;
	if (!cu.cuGraphAddNode) {
		OK(cuGraphDestroy(g));
		return;
	}
	OK(cuMemAlloc_v2(&p, 64));
	OK(cuMemsetD8_v2(p, 0, 64));
	CUgraphNodeParams k = { .type = CU_GRAPH_NODE_TYPE_KERNEL,
				.kernel = { .func = spin, .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 32, .blockDimY = 1,
					    .blockDimZ = 1, .kernelParams = args } };
	OK(cuGraphAddNode(&node, g, NULL, 0, &k));
	CUstreamBatchMemOpParams op = { .writeValue = { .operation = CU_STREAM_MEM_OP_WRITE_VALUE_32, .address = p, .value = 5 } };
	CUgraphNodeParams m = { .type = CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, .memOp = { .ctx = cu_context, .count = 1, .paramArray = &op } };
	OK(cuGraphAddNode(&node, g, &node, 1, &m));
	CUgraphNodeParams a = { .type = CU_GRAPH_NODE_TYPE_MEM_ALLOC,
				.alloc = { .poolProps = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
							  .location = { CU_MEM_LOCATION_TYPE_DEVICE, cu_device } },
					   .bytesize = 1 << 20 } };
	OK(cuGraphAddNode(&node, g, &node, 1, &a));
	assert_true(a.alloc.dptr != 0);
	CUgraphNodeParams f = { .type = CU_GRAPH_NODE_TYPE_MEM_FREE, .free = { a.alloc.dptr } };
	OK(cuGraphAddNode(&node, g, &node, 1, &f));
	FAILS(CUDA_ERROR_NOT_SUPPORTED, cuGraphDestroyNode(node));
	CUDA_GRAPH_INSTANTIATE_PARAMS ip = { .flags = CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD, .hUploadStream = s };
	OK(cuGraphInstantiateWithParams(&e, g, &ip));
	assert_int_equal(ip.result_out, CUDA_GRAPH_INSTANTIATE_SUCCESS);
	OK(cuGraphExecGetFlags(e, &flags));
	assert_int_equal(flags, CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD);
	run(e);
	run(e);
	OK(cuMemcpyDtoH_v2(&word, p, 4));
	assert_int_equal(word, 5);
	CUgraphNodeParams cond = { .type = CU_GRAPH_NODE_TYPE_CONDITIONAL };
	FAILS(CUDA_ERROR_NOT_SUPPORTED, cuGraphAddNode(&node, g, NULL, 0, &cond));
	OK(cuGraphExecDestroy(e));
	OK(cuGraphDestroy(g));
	OK(cuMemFree_v2(p));
}

static void released(void *flag)
{
	*(int *)flag = 1;
}

static void test_user_object(void **state)
{
	CUuserObject o;
	CUgraph g = graph();
	CUgraphExec e;
	int gone = 0;

	(void)state;
	if (!cu.cuUserObjectCreate)
		return;
	OK(cuUserObjectCreate(&o, &gone, released, 1, 1));
	OK(cuGraphRetainUserObject(g, o, 1, 1));   /* moved to the graph */
	e = instantiate(g);
	OK(cuGraphDestroy(g));
	assert_int_equal(gone, 0);
	OK(cuGraphExecDestroy(e));
	assert_int_equal(gone, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chain), cmocka_unit_test(test_branches), cmocka_unit_test(test_child), cmocka_unit_test(test_events),
		cmocka_unit_test(test_shape), cmocka_unit_test(test_new_forms), cmocka_unit_test(test_user_object),
	};

	cu_load();
	return cmocka_run_group_tests(tests, setup, cu_teardown);
}
