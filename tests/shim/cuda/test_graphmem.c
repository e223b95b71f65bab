/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of graphs: nothing when a node is added or recorded, the sum of the nodes when the graph is made executable, what the
 * driver holds once it has run. FAKEGATE_LIMIT = 64 MiB; the driver's own counter is what the charge must never be below.
 *
 * test_graphmem DRIVER
 */
#include "cutest.h"

#define MIB (UINT64_C(1) << 20)
#define LIMIT (64 * MIB)

static struct cu_api real;
static CUdevice dev;
static CUstream stream;
static uint64_t base;

static uint64_t truth(void)
{
	size_t left = 0, total = 0;
	MUST(real.cuMemGetInfo_v2(&left, &total));
	return total - left;
}

static void never_below(int line)
{
	uint64_t taken = truth() - base;
	if (taken <= stats->used)
		return;
	fprintf(stderr, "test_graphmem.c:%d: the device has %llu bytes taken, %llu are charged\n", line, (unsigned long long)taken,
		(unsigned long long)stats->used);
	failures++;
}
#define NEVER_BELOW() never_below(__LINE__)

static uint64_t holds(void)
{
	uint64_t v = 0;
	MUST(real.cuDeviceGetGraphMemAttribute(dev, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &v));
	return v;
}

static CUgraph graph_of(unsigned n, size_t bytes, bool freed)
{
	CUDA_MEM_ALLOC_NODE_PARAMS params = { .poolProps = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
							     .location = { CU_MEM_LOCATION_TYPE_DEVICE, dev } },
					      .bytesize = bytes };
	CUgraph g;
	CUgraphNode node, last = NULL;
	MUST(cu.cuGraphCreate(&g, 0));
	for (unsigned i = 0; i < n; i++) {
		CUresult r = cu.cuGraphAddMemAllocNode(&node, g, last ? &last : NULL, last != NULL, &params);
		if (r == CUDA_ERROR_NOT_SUPPORTED)
			skip("no memory nodes on this driver");
		MUST(r);
		last = node;
		if (freed) {
			MUST(cu.cuGraphAddMemFreeNode(&node, g, &last, 1, params.dptr));
			last = node;
		}
	}
	return g;
}

static CUgraphExec exec_of(CUgraph g, CUresult want)
{
	CUgraphExec e = NULL;
	CHECK_EQ(cu.cuGraphInstantiateWithFlags(&e, g, 0), want);
	return e;
}

static void one(void)
{
	CUgraph g = graph_of(2, 8 * MIB, true);
	EXPECT(0, 0);
	CUgraphExec e = exec_of(g, CUDA_SUCCESS);
	EXPECT(16 * MIB, 1);
	NEVER_BELOW();
	OK(cu.cuGraphLaunch(e, stream));
	OK(cu.cuStreamSynchronize(stream));
	NEVER_BELOW();
	CHECK_EQ(stats->used, holds());
	CHECK_EQ(stats->objects, 1);
	OK(cu.cuGraphLaunch_ptsz(e, stream));
	OK(cu.cuStreamSynchronize(stream));
	CHECK_EQ(stats->used, holds());
	OK(cu.cuGraphExecDestroy(e));
	OK(cu.cuGraphDestroy(g));
	NEVER_BELOW();
	CHECK_EQ(stats->objects, 0);
	OK(cu.cuDeviceGraphMemTrim(dev));
	CHECK_EQ(holds(), 0);
	EXPECT(0, 0);
	/* Made and never run. */
	g = graph_of(1, 8 * MIB, true);
	e = exec_of(g, CUDA_SUCCESS);
	EXPECT(8 * MIB, 1);
	OK(cu.cuGraphExecDestroy(e));
	OK(cu.cuGraphDestroy(g));
	OK(cu.cuDeviceGraphMemTrim(dev));
	EXPECT(0, 0);
}

static void limit(void)
{
	uint64_t denials = stats->denials;
	CUgraph g = graph_of(1, 24 * MIB, true);
	CUgraphExec a = exec_of(g, CUDA_SUCCESS), b = exec_of(g, CUDA_SUCCESS);
	EXPECT(48 * MIB, 2);
	CHECK(!exec_of(g, CUDA_ERROR_OUT_OF_MEMORY));
	CHECK_EQ(stats->denials, denials + 1);
	EXPECT(48 * MIB, 2);
	/* Plain memory sees what graphs have. */
	CUdeviceptr p;
	CHECK_EQ(cu.cuMemAlloc_v2(&p, 24 * MIB), CUDA_ERROR_OUT_OF_MEMORY);
	OK(cu.cuMemAlloc_v2(&p, 8 * MIB));
	OK(cu.cuMemFree_v2(p));
	OK(cu.cuGraphExecDestroy(a));
	OK(cu.cuGraphExecDestroy(b));
	OK(cu.cuGraphDestroy(g));
	OK(cu.cuDeviceGraphMemTrim(dev));
	EXPECT(0, 0);
	/* By every way of making it executable. */
	g = graph_of(1, 80 * MIB, true);
	CUgraphExec e;
	CUDA_GRAPH_INSTANTIATE_PARAMS params = { .flags = 0 };
	CHECK_EQ(cu.cuGraphInstantiate_v2(&e, g, NULL, NULL, 0), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK_EQ(cu.cuGraphInstantiate(&e, g, NULL, NULL, 0), CUDA_ERROR_OUT_OF_MEMORY);
	if (real.cuGraphInstantiateWithParams) {
		CHECK_EQ(cu.cuGraphInstantiateWithParams(&e, g, &params), CUDA_ERROR_OUT_OF_MEMORY);
		CHECK_EQ(cu.cuGraphInstantiateWithParams_ptsz(&e, g, &params), CUDA_ERROR_OUT_OF_MEMORY);
	}
	EXPECT(0, 0);
	OK(cu.cuGraphDestroy(g));
}

/* Trimmed away between two launches: charged anew before the second, or refused. */
static void trimmed(void)
{
	CUgraph g = graph_of(1, 40 * MIB, true);
	CUgraphExec e = exec_of(g, CUDA_SUCCESS);
	CUdeviceptr p = 0;
	OK(cu.cuGraphLaunch(e, stream));
	OK(cu.cuStreamSynchronize(stream));
	OK(cu.cuDeviceGraphMemTrim(dev));
	CHECK_EQ(stats->used, holds());
	if (holds() == 0) {   /* the driver keeps nothing for a graph that does not run */
		OK(cu.cuMemAlloc_v2(&p, 40 * MIB));
		CHECK_EQ(cu.cuGraphLaunch(e, stream), CUDA_ERROR_OUT_OF_MEMORY);
		OK(cu.cuMemFree_v2(p));
	}
	OK(cu.cuGraphLaunch(e, stream));
	OK(cu.cuStreamSynchronize(stream));
	NEVER_BELOW();
	CHECK_EQ(stats->used, holds());
	CHECK_EQ(stats->objects, 1);
	OK(cu.cuGraphExecDestroy(e));
	OK(cu.cuGraphDestroy(g));
	OK(cu.cuDeviceGraphMemTrim(dev));
	EXPECT(0, 0);
}

/* Freed by the program and not by the graph. */
static void freed_outside(void)
{
	CUgraph g = graph_of(1, 8 * MIB, false);
	CUgraphExec e = exec_of(g, CUDA_SUCCESS);
	CUgraphNode node;
	size_t n = 1;
	CUDA_MEM_ALLOC_NODE_PARAMS params;
	OK(cu.cuGraphLaunch(e, stream));
	OK(cu.cuStreamSynchronize(stream));
	NEVER_BELOW();
	OK(cu.cuGraphGetNodes(g, &node, &n));
	OK(cu.cuGraphMemAllocNodeGetParams(node, &params));
	OK(cu.cuMemFreeAsync(params.dptr, stream));
	OK(cu.cuStreamSynchronize(stream));
	NEVER_BELOW();
	OK(cu.cuGraphLaunch(e, stream));
	OK(cu.cuStreamSynchronize(stream));
	OK(cu.cuMemFree_v2(params.dptr));
	OK(cu.cuGraphExecDestroy(e));
	OK(cu.cuGraphDestroy(g));
	OK(cu.cuDeviceGraphMemTrim(dev));
	EXPECT(0, 0);
	CHECK_EQ(truth(), base);
}

/* Recorded: the request becomes a node, and a pool is not charged for it. */
static void captured(void)
{
	CUgraph g = NULL;
	CUdeviceptr p;
	OK(cu.cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
	CUresult r = cu.cuMemAllocAsync(&p, 16 * MIB, stream);
	if (r == CUDA_SUCCESS)
		OK(cu.cuMemFreeAsync(p, stream));
	CUresult ended = cu.cuStreamEndCapture(stream, &g);
	if (r != CUDA_SUCCESS) {
		printf("no recorded allocations on this driver (%d)\n", r);
		EXPECT(0, 0);
		return;
	}
	MUST(ended);
	EXPECT(0, 0);
	CUgraphExec e = exec_of(g, CUDA_SUCCESS);
	EXPECT(16 * MIB, 1);
	OK(cu.cuGraphLaunch(e, stream));
	OK(cu.cuStreamSynchronize(stream));
	NEVER_BELOW();
	OK(cu.cuGraphExecDestroy(e));
	OK(cu.cuGraphDestroy(g));
	OK(cu.cuDeviceGraphMemTrim(dev));
	EXPECT(0, 0);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	open_shim(argv);
	MUST(cu.cuInit(0));
	void *driver = dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD);
	if (!driver)
		return 1;
	api_of(driver, &real);
	if (!real.cuGraphAddMemAllocNode)
		skip("no memory nodes on this driver");
	MUST(cu.cuDeviceGet(&dev, 0));
	new_context();
	MUST(cu.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	base = truth();
	one();
	limit();
	trimmed();
	freed_outside();
	captured();
	return finished("graphmem");
}
