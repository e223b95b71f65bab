/* SPDX-License-Identifier: Apache-2.0 */
#include "cuways.h"

#include <unistd.h>

CUdevice cu_ways_device;
CUcontext cu_ways_context;

static CUresult take_alloc(uint64_t bytes, struct held *h)
{
	return cu.cuMemAlloc_v2(&h->p, bytes);
}

static void give_alloc(struct held *h)
{
	cu.cuMemFree_v2(h->p);
}

static CUresult take_pitch(uint64_t bytes, struct held *h)
{
	size_t pitch, rows = bytes / 1024;   /* rows of 1000 become 1024 */

	h->bytes = rows * 1000;
	return cu.cuMemAllocPitch_v2(&h->p, &pitch, 1000, rows, 16);
}

static CUresult take_managed(uint64_t bytes, struct held *h)
{
	return cu.cuMemAllocManaged(&h->p, bytes, CU_MEM_ATTACH_GLOBAL);
}

static CUresult take_async(uint64_t bytes, struct held *h)
{
	CUresult r = cu.cuMemAllocAsync ? cu.cuMemAllocAsync(&h->p, bytes, NULL) : CUDA_ERROR_NOT_SUPPORTED;

	return r ? r : cu.cuStreamSynchronize(NULL);
}

static void give_async(struct held *h)
{
	cu.cuMemFreeAsync(h->p, NULL);
	cu.cuStreamSynchronize(NULL);
}

static CUmemAllocationProp_v1 properties(void)
{
	return (CUmemAllocationProp_v1){ .type = CU_MEM_ALLOCATION_TYPE_PINNED,
				      .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
				      .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = cu_ways_device } };
}

/* A pool of one's own that gives nothing back to the system. */
static CUresult take_pool(uint64_t bytes, struct held *h)
{
	CUmemPoolProps props = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
				 .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = cu_ways_device } };
	cu_fn_cuMemPoolSetAttribute *set = (cu_fn_cuMemPoolSetAttribute *)cu_find(cu.library, "cuMemPoolSetAttribute");
	uint64_t keep = UINT64_MAX;
	CUresult r;

	if (!cu.cuMemPoolCreate || !set)
		return CUDA_ERROR_NOT_SUPPORTED;
	r = cu.cuMemPoolCreate(&h->pool, &props);
	if (r)
		return r;
	r = set(h->pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keep);
	r = r ? r : cu.cuMemAllocFromPoolAsync(&h->p, bytes, h->pool, NULL);
	r = r ? r : cu.cuStreamSynchronize(NULL);
	if (r)
		cu.cuMemPoolDestroy(h->pool);
	return r;
}

/* Freed into the pool: it stays taken, until the driver itself wants it for somebody else. */
static CUresult take_cached(uint64_t bytes, struct held *h)
{
	CUresult r = take_pool(bytes, h);

	if (r)
		return r;
	cu.cuMemFreeAsync(h->p, NULL);
	return cu.cuStreamSynchronize(NULL);
}

static void give_cached(struct held *h)
{
	cu.cuMemPoolDestroy(h->pool);
}

static void give_pool(struct held *h)
{
	cu.cuMemFreeAsync(h->p, NULL);
	cu.cuStreamSynchronize(NULL);
	cu.cuMemPoolDestroy(h->pool);
}

static CUresult take_array2d(uint64_t bytes, struct held *h)
{
	CUDA_ARRAY_DESCRIPTOR_v2 d = { .Width = 1024, .Height = bytes / 1024 / 16, .Format = CU_AD_FORMAT_FLOAT,
				       .NumChannels = 4 };

	h->bytes = d.Width * d.Height * 16;
	return cu.cuArrayCreate_v2(&h->array, &d);
}

static CUresult take_array3d(uint64_t bytes, struct held *h)
{
	CUDA_ARRAY3D_DESCRIPTOR_v2 d = { .Width = 256, .Height = 256, .Depth = bytes / 65536 / 4,
					 .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1 };

	d.Depth = d.Depth ? d.Depth : 1;
	h->bytes = d.Width * d.Height * d.Depth * 4;
	return cu.cuArray3DCreate_v2(&h->array, &d);
}

static void give_array(struct held *h)
{
	cu.cuArrayDestroy(h->array);
}

/* All levels together are a third more than the first, so the first is three quarters of what was asked for. */
static CUresult take_mipmap(uint64_t bytes, struct held *h)
{
	CUDA_ARRAY3D_DESCRIPTOR_v2 d = { .Width = 1024, .Height = bytes / 4 * 3 / 1024 / 16, .Format = CU_AD_FORMAT_FLOAT,
					 .NumChannels = 4 };
	unsigned levels = 1;

	while ((d.Height >> levels) && levels < 10)
		levels++;
	h->bytes = d.Width * d.Height * 16;   /* of the first: less than all */
	return cu.cuMipmappedArrayCreate(&h->mipmap, &d, levels);
}

static void give_mipmap(struct held *h)
{
	cu.cuMipmappedArrayDestroy(h->mipmap);
}

static CUresult take_vmm(uint64_t bytes, struct held *h)
{
	CUmemAllocationProp_v1 props = properties();

	return cu.cuMemCreate(&h->handle, bytes, &props, 0);
}

static void give_vmm(struct held *h)
{
	cu.cuMemRelease(h->handle);
}

/* The handle is released while the memory is mapped: it stays, and must stay charged. */
static CUresult take_mapped(uint64_t bytes, struct held *h)
{
	CUmemAccessDesc access = { .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = cu_ways_device },
				   .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUresult r = take_vmm(bytes, h);

	if (r)
		return r;
	r = cu.cuMemAddressReserve(&h->p, bytes, 0, 0, 0);
	if (!r) {
		r = cu.cuMemMap(h->p, bytes, 0, h->handle, 0);
		if (!r && (r = cu.cuMemSetAccess(h->p, bytes, &access, 1)))
			cu.cuMemUnmap(h->p, bytes);
		if (r)
			cu.cuMemAddressFree(h->p, bytes);
	}
	cu.cuMemRelease(h->handle);
	return r;
}

static void give_mapped(struct held *h)
{
	cu.cuMemUnmap(h->p, h->bytes);
	cu.cuMemAddressFree(h->p, h->bytes);
}

/* Released twice but retained once and mapped: must be charged until the last of them has gone. */
static CUresult take_retained(uint64_t bytes, struct held *h)
{
	CUmemGenericAllocationHandle again;
	CUresult r = take_mapped(bytes, h);

	if (r)
		return r;
	r = cu.cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)h->p);
	h->handle = again;
	return r;
}

static void give_retained(struct held *h)
{
	give_mapped(h);
	cu.cuMemRelease(h->handle);
}

/* Exported, imported in the same process, then the original is released: the import holds it. */
static CUresult take_imported(uint64_t bytes, struct held *h)
{
	CUmemGenericAllocationHandle own;
	CUresult r = take_vmm(bytes, h);

	if (r)
		return r;
	own = h->handle;
	h->fd = -1;
	r = cu.cuMemExportToShareableHandle(&h->fd, own, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
	if (!r)
		r = cu.cuMemImportFromShareableHandle(&h->handle, (void *)(intptr_t)h->fd,
						      CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
	cu.cuMemRelease(own);
	if (h->fd >= 0)
		close(h->fd);
	return r;
}

/* The own export again, as foreign memory: it holds the memory when the handle has gone. */
static CUresult take_external(uint64_t bytes, struct held *h)
{
	CUDA_EXTERNAL_MEMORY_HANDLE_DESC_v1 d = { .type = CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD, .size = bytes };
	CUresult r = take_vmm(bytes, h);
	int fd = -1;

	if (r)
		return r;
	r = cu.cuMemExportToShareableHandle(&fd, h->handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
	d.handle.fd = fd;
	r = r ? r : cu.cuImportExternalMemory(&h->external, &d);   /* takes the descriptor when it succeeds */
	cu.cuMemRelease(h->handle);
	if (r && fd >= 0)
		close(fd);
	return r && r != CUDA_ERROR_OUT_OF_MEMORY ? CUDA_ERROR_NOT_SUPPORTED : r;
}

static void give_external(struct held *h)
{
	cu.cuDestroyExternalMemory(h->external);
}

static CUresult launch_graph(CUgraph graph, struct held *h)
{
	CUresult r = cu.cuGraphInstantiateWithFlags(&h->exec, graph, 0);

	cu.cuGraphDestroy(graph);
	if (r)
		return r;
	r = cu.cuGraphLaunch(h->exec, NULL);
	r = r ? r : cu.cuStreamSynchronize(NULL);
	if (r)
		cu.cuGraphExecDestroy(h->exec);
	return r;
}

/* A node allocates at launch and nothing frees it. */
static CUresult take_graph(uint64_t bytes, struct held *h)
{
	CUDA_MEM_ALLOC_NODE_PARAMS node = { .poolProps = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
							   .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = cu_ways_device } },
					    .bytesize = bytes };
	CUgraphNode n;
	CUgraph graph;
	CUresult r;

	if (!cu.cuGraphAddMemAllocNode || !cu.cuGraphInstantiateWithFlags)
		return CUDA_ERROR_NOT_SUPPORTED;
	r = cu.cuGraphCreate(&graph, 0);
	if (r)
		return r;
	r = cu.cuGraphAddMemAllocNode(&n, graph, NULL, 0, &node);
	if (r) {
		cu.cuGraphDestroy(graph);
		return r;
	}
	h->p = node.dptr;
	return launch_graph(graph, h);
}

static CUresult take_captured(uint64_t bytes, struct held *h)
{
	CUstream stream;
	CUgraph graph = NULL;
	CUresult r, end;

	if (!cu.cuMemAllocAsync || !cu.cuGraphInstantiateWithFlags)
		return CUDA_ERROR_NOT_SUPPORTED;
	r = cu.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
	if (r)
		return r;
	r = cu.cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
	if (!r) {
		r = cu.cuMemAllocAsync(&h->p, bytes, stream);
		end = cu.cuStreamEndCapture(stream, &graph);
		r = r ? r : end;
	}
	cu.cuStreamDestroy_v2(stream);
	return r ? r : launch_graph(graph, h);
}

static void give_graph(struct held *h)
{
	cu.cuMemFree_v2(h->p);   /* outside of the graph, as the runtime allows */
	cu.cuGraphExecDestroy(h->exec);
	if (cu.cuDeviceGraphMemTrim)
		cu.cuDeviceGraphMemTrim(cu_ways_device);
}

/* Contexts are memory, too: a few hundred MiB each. What one really takes is the driver's business; the chunk is a guess. */
static CUresult take_context(uint64_t bytes, struct held *h)
{
	CUresult r = cu.cuCtxCreate_v2(&h->context, 0, cu_ways_device);

	(void)bytes;
	cu.cuCtxSetCurrent(cu_ways_context);
	return r;
}

static void give_context(struct held *h)
{
	cu.cuCtxDestroy_v2(h->context);
	cu.cuCtxSetCurrent(cu_ways_context);
}

/* Not device memory: must not be charged as such. */
static CUresult take_host(uint64_t bytes, struct held *h)
{
	return cu.cuMemHostAlloc(&h->host, bytes, 0);
}

static void give_host(struct held *h)
{
	cu.cuMemFreeHost(h->host);
}

const struct way cu_ways[] = {
	{ "alloc", take_alloc, give_alloc, true, false },
	{ "pitch", take_pitch, give_alloc, true, false },
	{ "managed", take_managed, give_alloc, true, false },
	{ "async", take_async, give_async, true, false },
	{ "pool", take_pool, give_pool, true, false },
	{ "cached", take_cached, give_cached, false, true },
	{ "array2d", take_array2d, give_array, true, false },
	{ "array3d", take_array3d, give_array, true, false },
	{ "mipmap", take_mipmap, give_mipmap, true, false },
	{ "vmm", take_vmm, give_vmm, true, false },
	{ "mapped", take_mapped, give_mapped, true, false },
	{ "retained", take_retained, give_retained, true, false },
	{ "imported", take_imported, give_vmm, true, false },
	{ "external", take_external, give_external, false, false },
	{ "graph", take_graph, give_graph, false, false },
	{ "captured", take_captured, give_graph, false, false },
	{ "context", take_context, give_context, false, true },
	{ "host", take_host, give_host, false, false },
};
const unsigned cu_nways = sizeof(cu_ways) / sizeof(cu_ways[0]);

int cu_ways_start(void)
{
	return cu_load(NULL) || cu_start(0, &cu_ways_device, &cu_ways_context) ? -1 : 0;
}
