/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes device memory by every way there is, until it is refused: what a contract must stop. An ordinary program: it knows the number
 * of bytes that it may have (--limit) only to stop when it got twice as much.
 *
 *   cuescape KIND [--limit B] [--chunk B] [--hold]
 *       takes chunks, halving them down to 2 MiB when refused; prints what it got; with --hold keeps it until its input ends
 *   cuescape race [--limit B] [--threads T] [--procs P] [--rounds N]
 *       T threads in each of P processes take and give back random sizes by random ways
 *   cuescape dead [--limit B]      a process takes all, is killed, and the next one must get as much
 *   cuescape reset [--limit B]     the context is reset with everything in it; then as much must be there again
 *   cuescape list                  the kinds
 * One line of JSON. "granted": bytes held at the end, "peak": the largest sum at any moment over all threads and processes, counted
 * after a success and before a release, so that it is never more than was really held. A way that the driver does not know is
 * reported, not failed. Exit 1: something failed that is not the refusal.
 */
#include "cudrv.h"
#include "cuptx.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define SMALLEST (2 * MIB)   /* a page of the device: below that a driver rounds up */
#define HELD_MAX 8192
#define KEEP 8               /* blocks that a racing thread holds at most */

struct options {
	const char *kind;
	uint64_t limit, chunk;
	unsigned threads, procs, rounds;
	bool hold;
};

struct held {
	const struct way *way;
	uint64_t bytes;
	CUdeviceptr p;
	union {
		CUarray array;
		CUmipmappedArray mipmap;
		CUmemGenericAllocationHandle handle;
		CUmemoryPool pool;
		CUgraphExec exec;
		CUcontext context;
		void *host;
	};
	CUexternalMemory external;
	int fd;
};

struct way {
	const char *name;
	CUresult (*take)(uint64_t bytes, struct held *h);
	void (*give)(struct held *h);
	bool race;   /* quick enough to be taken and given by many threads at once */
};

/* Of all processes of a race. */
struct shared {
	_Atomic uint64_t sum, peak, grants, refusals;
	_Atomic int odd;   /* a code that is neither success nor out of memory */
};
static struct shared *shared;

static CUdevice device;
static CUcontext primary;

/* ---- the ways -------------------------------------------------------------------------------------------------- */

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
	size_t pitch;

	return cu.cuMemAllocPitch_v2(&h->p, &pitch, 1000, bytes / 1024, 16);   /* rows of 1000 become 1024 */
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
				      .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device } };
}

/* A pool that gives nothing back to the system: what was freed into it is still taken. */
static CUresult take_pool(uint64_t bytes, struct held *h)
{
	CUmemPoolProps props = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
				 .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device } };
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
	if (r) {
		cu.cuMemPoolDestroy(h->pool);
		return r;
	}
	cu.cuMemFreeAsync(h->p, NULL);
	return cu.cuStreamSynchronize(NULL);
}

static void give_pool(struct held *h)
{
	cu.cuMemPoolDestroy(h->pool);
}

static CUresult take_array2d(uint64_t bytes, struct held *h)
{
	CUDA_ARRAY_DESCRIPTOR_v2 d = { .Width = 1024, .Height = bytes / 1024 / 16, .Format = CU_AD_FORMAT_FLOAT,
				       .NumChannels = 4 };

	return cu.cuArrayCreate_v2(&h->array, &d);
}

static CUresult take_array3d(uint64_t bytes, struct held *h)
{
	CUDA_ARRAY3D_DESCRIPTOR_v2 d = { .Width = 256, .Height = 256, .Depth = bytes / 65536 / 4,
					 .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1 };

	d.Depth = d.Depth ? d.Depth : 1;
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
	CUmemAccessDesc access = { .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device },
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
							   .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device } },
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
		cu.cuDeviceGraphMemTrim(device);
}

/* Contexts are memory, too: a few hundred MiB each. What it really takes is the driver's business, the chunk is a guess. */
static CUresult take_context(uint64_t bytes, struct held *h)
{
	CUresult r = cu.cuCtxCreate_v2(&h->context, 0, device);

	(void)bytes;
	cu.cuCtxSetCurrent(primary);
	return r;
}

static void give_context(struct held *h)
{
	cu.cuCtxDestroy_v2(h->context);
	cu.cuCtxSetCurrent(primary);
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

static const struct way ways[] = {
	{ "alloc", take_alloc, give_alloc, true },
	{ "pitch", take_pitch, give_alloc, true },
	{ "managed", take_managed, give_alloc, true },
	{ "async", take_async, give_async, true },
	{ "pool", take_pool, give_pool, true },
	{ "array2d", take_array2d, give_array, true },
	{ "array3d", take_array3d, give_array, true },
	{ "mipmap", take_mipmap, give_mipmap, true },
	{ "vmm", take_vmm, give_vmm, true },
	{ "mapped", take_mapped, give_mapped, true },
	{ "retained", take_retained, give_retained, true },
	{ "imported", take_imported, give_vmm, true },
	{ "external", take_external, give_external, false },
	{ "graph", take_graph, give_graph, false },
	{ "captured", take_captured, give_graph, false },
	{ "context", take_context, give_context, false },
	{ "host", take_host, give_host, false },
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

/* ---- one way, until it is refused ------------------------------------------------------------------------------ */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void count_grant(uint64_t bytes)
{
	uint64_t sum = atomic_fetch_add(&shared->sum, bytes) + bytes;
	uint64_t peak = atomic_load(&shared->peak);

	while (sum > peak && !atomic_compare_exchange_weak(&shared->peak, &peak, sum))
		;
	atomic_fetch_add(&shared->grants, 1);
}

static void give(struct held *h)
{
	atomic_fetch_sub(&shared->sum, h->bytes);
	h->way->give(h);
	h->way = NULL;
}

static CUresult take(const struct way *way, uint64_t bytes, struct held *h)
{
	CUresult r;

	*h = (struct held){ .bytes = bytes };
	r = way->take(bytes, h);
	if (!r) {
		h->way = way;
		count_grant(bytes);
	} else {
		atomic_fetch_add(&shared->refusals, 1);
	}
	return r;
}

/* Takes until refused; the last code is returned. @n: blocks held. */
static CUresult take_all(const struct options *o, const struct way *way, struct held *held, unsigned *n)
{
	uint64_t chunk = o->chunk;
	CUresult r = CUDA_SUCCESS;

	*n = 0;
	while (*n < HELD_MAX && atomic_load(&shared->sum) < 2 * o->limit) {
		r = take(way, chunk, &held[*n]);
		if (!r) {
			++*n;
			continue;
		}
		if (r != CUDA_ERROR_OUT_OF_MEMORY || chunk <= SMALLEST)
			break;
		chunk = chunk / 2 < SMALLEST ? SMALLEST : chunk / 2;
	}
	return r;
}

static bool unknown(CUresult r)
{
	return r == CUDA_ERROR_NOT_SUPPORTED || r == CUDA_ERROR_NOT_FOUND || r == CUDA_ERROR_NOT_PERMITTED;
}

static void wait_for_end_of_input(void)
{
	char c;

	fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
}

static int start(void)
{
	return cu_load(NULL) || cu_start(0, &device, &primary) ? -1 : 0;
}

static int run_way(const struct options *o, const struct way *way)
{
	struct held *held = calloc(HELD_MAX, sizeof(*held));
	unsigned n;
	CUresult r;

	if (!held || start())
		return 1;
	r = take_all(o, way, held, &n);
	printf("{\"kind\":\"%s\",\"granted\":%llu,\"peak\":%llu,\"blocks\":%u,\"code\":%d,\"unsupported\":%s}\n", way->name,
	       (unsigned long long)atomic_load(&shared->sum), (unsigned long long)atomic_load(&shared->peak), n, r,
	       n == 0 && unknown(r) ? "true" : "false");
	if (o->hold)
		wait_for_end_of_input();
	while (n)
		give(&held[--n]);
	free(held);
	return r == CUDA_SUCCESS || r == CUDA_ERROR_OUT_OF_MEMORY || unknown(r) ? 0 : 1;
}

/* ---- many at once ---------------------------------------------------------------------------------------------- */

struct racer {
	const struct options *o;
	uint64_t rng;
	pthread_t thread;
	pthread_barrier_t *barrier;
};

static uint64_t random_u64(uint64_t *state)   /* splitmix64 */
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static const struct way *random_way(uint64_t *rng)
{
	for (;;) {
		const struct way *way = &ways[random_u64(rng) % WAYS];

		if (way->race)
			return way;
	}
}

static void *race(void *arg)
{
	struct racer *r = arg;
	struct held held[KEEP] = { 0 };

	cu.cuCtxSetCurrent(primary);
	pthread_barrier_wait(r->barrier);
	for (unsigned i = 0; i < r->o->rounds; i++) {
		struct held *h = &held[random_u64(&r->rng) % KEEP];
		uint64_t bytes = SMALLEST << (random_u64(&r->rng) % 6);   /* 2 to 64 MiB */

		if (h->way) {
			give(h);
			continue;
		}
		CUresult code = take(random_way(&r->rng), bytes, h);

		if (code && code != CUDA_ERROR_OUT_OF_MEMORY && !unknown(code))
			atomic_store(&shared->odd, code);
	}
	for (unsigned i = 0; i < KEEP; i++)
		if (held[i].way)
			give(&held[i]);
	return NULL;
}

static int race_process(const struct options *o, unsigned index)
{
	struct racer racers[256];
	pthread_barrier_t barrier;

	if (start())
		return 1;
	pthread_barrier_init(&barrier, NULL, o->threads);
	for (unsigned t = 0; t < o->threads; t++) {
		racers[t] = (struct racer){ .o = o, .rng = 1000 * index + t + 1, .barrier = &barrier };
		if (pthread_create(&racers[t].thread, NULL, race, &racers[t]))
			return 1;
	}
	for (unsigned t = 0; t < o->threads; t++)
		pthread_join(racers[t].thread, NULL);
	return 0;
}

static int run_race(const struct options *o)
{
	int bad = 0, status;

	fflush(stdout);
	for (unsigned p = 0; p < o->procs; p++) {
		pid_t pid = fork();

		if (pid < 0)
			return 1;
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			_exit(race_process(o, p));
		}
	}
	while (wait(&status) > 0)
		bad |= status;
	printf("{\"kind\":\"race\",\"granted\":%llu,\"peak\":%llu,\"grants\":%llu,\"refusals\":%llu,\"code\":%d,\"unsupported\":false}\n",
	       (unsigned long long)atomic_load(&shared->sum), (unsigned long long)atomic_load(&shared->peak),
	       (unsigned long long)atomic_load(&shared->grants), (unsigned long long)atomic_load(&shared->refusals),
	       atomic_load(&shared->odd));
	return bad || atomic_load(&shared->odd) ? 1 : 0;
}

/* ---- what has gone must be there again ------------------------------------------------------------------------- */

/* In a child: takes all by cuMemAlloc, says how much through @fd, and waits to be killed if @stay. */
static void dead_child(const struct options *o, int fd, bool stay)
{
	struct held *held = calloc(HELD_MAX, sizeof(*held));
	unsigned n;
	uint64_t sum;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	atomic_store(&shared->sum, 0);
	if (!held || start())
		_exit(1);
	take_all(o, &ways[0], held, &n);
	sum = atomic_load(&shared->sum);
	if (write(fd, &sum, sizeof(sum)) != sizeof(sum))
		_exit(1);
	while (stay)
		pause();
	_exit(0);   /* without a free */
}

static int dead_once(const struct options *o, bool stay, uint64_t *ret_granted)
{
	int pipes[2], status;
	pid_t pid;
	ssize_t n;

	if (pipe(pipes))
		return -1;
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return -1;
	if (pid == 0) {
		close(pipes[0]);
		dead_child(o, pipes[1], stay);
	}
	close(pipes[1]);
	n = read(pipes[0], ret_granted, sizeof(*ret_granted));
	close(pipes[0]);
	if (stay)
		kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return n == sizeof(*ret_granted) ? 0 : -1;
}

static int run_dead(const struct options *o)
{
	uint64_t before, after = 0, t0, t1;

	if (dead_once(o, true, &before))
		return 1;
	t0 = now_ns();
	for (;;) {   /* the daemon may need a moment to see the death */
		if (dead_once(o, false, &after))
			return 1;
		t1 = now_ns();
		if (after >= before || t1 - t0 > UINT64_C(5000000000))
			break;
	}
	printf("{\"kind\":\"dead\",\"granted\":%llu,\"peak\":%llu,\"before\":%llu,\"after_ms\":%.0f,\"code\":%d,\"unsupported\":false}\n",
	       (unsigned long long)after, (unsigned long long)atomic_load(&shared->peak), (unsigned long long)before,
	       (double)(t1 - t0) / 1e6, after >= before ? 0 : CUDA_ERROR_OUT_OF_MEMORY);
	return after >= before ? 0 : 1;
}

static int run_reset(const struct options *o)
{
	struct held *held = calloc(HELD_MAX, sizeof(*held));
	uint64_t before, after;
	unsigned n;

	if (!held || start())
		return 1;
	take_all(o, &ways[0], held, &n);
	before = atomic_exchange(&shared->sum, 0);
	if (cu.cuDevicePrimaryCtxReset_v2(device) || cu.cuDevicePrimaryCtxRetain(&primary, device) ||
	    cu.cuCtxSetCurrent(primary))
		return 1;
	take_all(o, &ways[0], held, &n);
	after = atomic_load(&shared->sum);
	printf("{\"kind\":\"reset\",\"granted\":%llu,\"peak\":%llu,\"before\":%llu,\"code\":%d,\"unsupported\":false}\n",
	       (unsigned long long)after, (unsigned long long)atomic_load(&shared->peak), (unsigned long long)before,
	       after >= before ? 0 : CUDA_ERROR_OUT_OF_MEMORY);
	if (o->hold)
		wait_for_end_of_input();
	free(held);
	return after >= before ? 0 : 1;
}

/* ---- command line ---------------------------------------------------------------------------------------------- */

static bool parse(struct options *o, int argc, char **argv)
{
	if (argc < 2)
		return false;
	o->kind = argv[1];
	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "--hold")) {
			o->hold = true;
			continue;
		}
		if (i + 1 == argc)
			return false;
		uint64_t v = strtoull(argv[++i], NULL, 0);

		if (!strcmp(argv[i - 1], "--limit"))
			o->limit = v;
		else if (!strcmp(argv[i - 1], "--chunk"))
			o->chunk = v;
		else if (!strcmp(argv[i - 1], "--threads"))
			o->threads = (unsigned)v;
		else if (!strcmp(argv[i - 1], "--procs"))
			o->procs = (unsigned)v;
		else if (!strcmp(argv[i - 1], "--rounds"))
			o->rounds = (unsigned)v;
		else
			return false;
	}
	return o->limit && o->chunk >= SMALLEST && o->threads >= 1 && o->threads <= 256 && o->procs >= 1 && o->procs <= 64;
}

int main(int argc, char **argv)
{
	struct options o = { .limit = 1024 * MIB, .chunk = 64 * MIB, .threads = 64, .procs = 4, .rounds = 200 };

	cu_program = "cuescape";
	if (!parse(&o, argc, argv)) {
		fprintf(stderr, "cuescape KIND|race|dead|reset|list [--limit B] [--chunk B] [--threads N] [--procs N] [--rounds N] [--hold]\n");
		return 2;
	}
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	if (!strcmp(o.kind, "race"))
		return run_race(&o);
	if (!strcmp(o.kind, "dead"))
		return run_dead(&o);
	if (!strcmp(o.kind, "reset"))
		return run_reset(&o);
	for (size_t i = 0; i < WAYS; i++) {
		if (!strcmp(o.kind, "list"))
			puts(ways[i].name);
		else if (!strcmp(o.kind, ways[i].name))
			return run_way(&o, &ways[i]);
	}
	return strcmp(o.kind, "list") != 0;
}
