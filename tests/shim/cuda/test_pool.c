/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stream-ordered memory: a pool is charged what it holds. FAKEGATE_LIMIT = 256 MiB; the driver's own counter of used memory is the
 * truth that the charge must never be below.
 *
 * test_pool DRIVER
 */
#include "cutest.h"

#include <pthread.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define LIMIT (256 * MIB)

static struct cu_api real;
static CUdevice dev;

/* Taken of the device, by the driver. */
static uint64_t truth(void)
{
	size_t left = 0, total = 0;
	MUST(real.cuMemGetInfo_v2(&left, &total));
	return total - left;
}

static uint64_t base;

static void never_below(int line)
{
	uint64_t taken = truth() - base;
	if (taken <= stats->used)
		return;
	fprintf(stderr, "test_pool.c:%d: the device has %llu bytes taken, %llu are charged\n", line, (unsigned long long)taken,
		(unsigned long long)stats->used);
	failures++;
}
#define NEVER_BELOW() never_below(__LINE__)

static uint64_t holds(CUmemoryPool pool)
{
	uint64_t v = 0;
	MUST(real.cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &v));
	return v;
}

static void keep_everything(CUmemoryPool pool)
{
	uint64_t all = UINT64_MAX;
	MUST(cu.cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &all));
}

static void default_pool(CUstream s)
{
	CUmemoryPool pool;
	CUdeviceptr p, q;
	MUST(cu.cuDeviceGetDefaultMemPool(&pool, dev));
	OK(cu.cuMemAllocAsync(&p, 10 * MIB, s));
	NEVER_BELOW();
	CHECK_EQ(stats->used, holds(pool));
	CHECK_EQ(stats->objects, 1);
	OK(cu.cuMemAllocAsync_ptsz(&q, 3 * MIB, s));
	CHECK_EQ(stats->objects, 2);
	CHECK_EQ(stats->used, holds(pool));
	OK(cu.cuMemFreeAsync(p, s));
	NEVER_BELOW();
	OK(cu.cuMemFree_v2(q));   /* the plain call frees it as well */
	CHECK_EQ(stats->objects, 0);
	CHECK_EQ(stats->used, holds(pool));
	OK(cu.cuStreamSynchronize(s));   /* now it keeps no more than its threshold, which is 0 */
	CHECK_EQ(holds(pool), 0);
	EXPECT(0, 0);
}

/* What is freed stays with the pool, and stays charged, until it is trimmed or somebody else needs it. */
static void kept(CUstream s)
{
	CUmemoryPool pool;
	CUdeviceptr p, plain;
	MUST(cu.cuDeviceGetDefaultMemPool(&pool, dev));
	keep_everything(pool);
	OK(cu.cuMemAllocAsync(&p, 200 * MIB, s));
	OK(cu.cuMemFreeAsync(p, s));
	OK(cu.cuStreamSynchronize(s));
	CHECK(holds(pool) >= 200 * MIB);
	CHECK_EQ(stats->used, holds(pool));
	/* Again from what it holds: nothing more is charged. */
	uint64_t before = stats->used;
	OK(cu.cuMemAllocAsync(&p, 200 * MIB, s));
	CHECK_EQ(stats->used, before);
	OK(cu.cuMemFreeAsync(p, s));
	OK(cu.cuStreamSynchronize(s));
	/* Plain memory that fits only if the pool gives back. */
	OK(cu.cuMemAlloc_v2(&plain, 100 * MIB));
	NEVER_BELOW();
	CHECK_EQ(stats->used, 100 * MIB + holds(pool));
	CHECK(stats->used <= LIMIT);
	OK(cu.cuMemFree_v2(plain));
	OK(cu.cuMemPoolTrimTo(pool, 0));
	EXPECT(0, 0);
}

static void limit(CUstream s)
{
	CUdeviceptr p[16];
	unsigned n = 0;
	CUmemoryPool pool;
	MUST(cu.cuDeviceGetDefaultMemPool(&pool, dev));
	while (n < 16 && cu.cuMemAllocAsync(&p[n], 30 * MIB, s) == CUDA_SUCCESS)
		n++;
	CHECK(n >= 7 && n <= 8);
	CHECK(stats->used <= LIMIT);
	CHECK(stats->denials > 0);
	NEVER_BELOW();
	for (unsigned i = 0; i < n; i++)
		OK(cu.cuMemFreeAsync(p[i], s));
	OK(cu.cuStreamSynchronize(s));
	OK(cu.cuMemPoolTrimTo(pool, 0));
	EXPECT(0, 0);
	/* It grows in steps larger than the request: if one does not fit, the request is refused, for the driver would take it. */
	CUdeviceptr most, little;
	OK(cu.cuMemAlloc_v2(&most, LIMIT - 8 * MIB));
	CHECK_EQ(cu.cuMemAllocAsync(&little, MIB, s), CUDA_ERROR_OUT_OF_MEMORY);
	NEVER_BELOW();
	CHECK_EQ(stats->used, LIMIT - 8 * MIB);
	OK(cu.cuMemFree_v2(most));
	OK(cu.cuMemAllocAsync(&little, MIB, s));
	NEVER_BELOW();
	OK(cu.cuMemFreeAsync(little, s));
	OK(cu.cuStreamSynchronize(s));
	OK(cu.cuMemPoolTrimTo(pool, 0));
	EXPECT(0, 0);
}

static void own_pool(CUstream s)
{
	CUmemPoolProps props = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { CU_MEM_LOCATION_TYPE_DEVICE, dev } };
	CUmemoryPool pool;
	CUdeviceptr p, q;
	OK(cu.cuMemPoolCreate(&pool, &props));
	keep_everything(pool);
	OK(cu.cuMemAllocFromPoolAsync(&p, 20 * MIB, pool, s));
	OK(cu.cuMemAllocFromPoolAsync_ptsz(&q, 20 * MIB, pool, s));
	NEVER_BELOW();
	CHECK_EQ(stats->used, holds(pool));
	OK(cu.cuMemFreeAsync(q, s));
	CHECK(stats->used >= 20 * MIB);
	/* Made current: cuMemAllocAsync takes from it. */
	CUmemoryPool standard;
	OK(cu.cuDeviceGetDefaultMemPool(&standard, dev));
	OK(cu.cuDeviceSetMemPool(dev, pool));
	OK(cu.cuMemAllocAsync(&q, 50 * MIB, s));
	CHECK_EQ(stats->used, holds(pool));
	NEVER_BELOW();
	OK(cu.cuDeviceSetMemPool(dev, standard));
	OK(cu.cuMemFreeAsync(q, s));
	OK(cu.cuStreamSynchronize(s));
	/* Destroyed with a live block: that one stays charged. */
	OK(cu.cuMemPoolDestroy(pool));
	CHECK(stats->used >= 20 * MIB);
	CHECK_EQ(stats->objects, 1);
	OK(cu.cuMemFreeAsync(p, s));
	OK(cu.cuStreamSynchronize(s));
	EXPECT(0, 0);
	CHECK_EQ(truth(), base);
	for (unsigned i = 0; i < 100; i++) {   /* the record is used again */
		OK(cu.cuMemPoolCreate(&pool, &props));
		OK(cu.cuMemAllocFromPoolAsync(&p, MIB, pool, s));
		OK(cu.cuMemFreeAsync(p, s));
		OK(cu.cuMemPoolDestroy(pool));
	}
	EXPECT(0, 0);
	props.location.id = 99;
	CHECK(cu.cuMemPoolCreate(&pool, &props) != CUDA_SUCCESS);
	CHECK_EQ(cu.cuMemAllocFromPoolAsync(&p, MIB, NULL, s), real.cuMemAllocFromPoolAsync(&p, MIB, NULL, s));
	EXPECT(0, 0);
}

static _Atomic bool go_on;

static void wait_for_it(void *arg)
{
	(void)arg;
	while (!go_on)
		usleep(1000);
}

/*
 * All that the contract allows is freed, but only when a stream gets there that is held up; and so are others. A request grows the pool
 * then, although it has enough by numbers, and is undone only when its stream goes on: one of them, and no more.
 */
static void held_up(CUstream s)
{
	enum { STREAMS = 12, BYTES = 30 * MIB };
	CUmemoryPool pool;
	CUdeviceptr p, q;
	CUstream other[STREAMS];
	MUST(cu.cuDeviceGetDefaultMemPool(&pool, dev));
	keep_everything(pool);
	OK(cu.cuMemAllocAsync(&p, 240 * MIB, s));
	go_on = false;
	OK(cu.cuLaunchHostFunc(s, wait_for_it, NULL));
	OK(cu.cuMemFreeAsync(p, s));
	for (unsigned i = 0; i < STREAMS; i++) {
		MUST(cu.cuStreamCreate(&other[i], CU_STREAM_NON_BLOCKING));
		OK(cu.cuLaunchHostFunc(other[i], wait_for_it, NULL));
		CUresult r = cu.cuMemAllocAsync(&q, BYTES, other[i]);
		if (r == CUDA_SUCCESS)
			OK(cu.cuMemFreeAsync(q, other[i]));
		CHECK(r == CUDA_SUCCESS || r == CUDA_ERROR_OUT_OF_MEMORY);
		NEVER_BELOW();
	}
	CHECK(truth() - base <= LIMIT + 2 * BYTES);
	go_on = true;
	for (unsigned i = 0; i < STREAMS; i++)
		OK(cu.cuStreamSynchronize(other[i]));
	OK(cu.cuStreamSynchronize(s));
	/* And then there is room again. */
	OK(cu.cuMemAllocAsync(&q, 200 * MIB, other[0]));
	CHECK(stats->used <= LIMIT);
	OK(cu.cuMemFreeAsync(q, other[0]));
	for (unsigned i = 0; i < STREAMS; i++) {
		OK(cu.cuStreamSynchronize(other[i]));
		OK(cu.cuStreamDestroy_v2(other[i]));
	}
	OK(cu.cuMemPoolTrimTo(pool, 0));
	EXPECT(0, 0);
}

static void pause_it(void *arg)
{
	(void)arg;
	usleep(1000);
}

/*
 * Threads that take, free, trim and change the pool at once: in the end nothing is left, and it was never above the limit. On a device
 * that takes time a request that made the pool grow too much is undone only when its stream gets there: one
 * at a time, else sixteen threads would take many times the contract.
 */
static void *churn(void *arg)
{
	CUcontext ctx = arg;
	CUstream s;
	MUST(cu.cuCtxSetCurrent(ctx));
	MUST(cu.cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	for (unsigned i = 0; i < 200; i++) {
		CUdeviceptr p[4];
		unsigned n = 0;
		while (n < 4 && cu.cuMemAllocAsync(&p[n], (1 + (i + n) % 7) * 5 * MIB, s) == CUDA_SUCCESS)
			n++;
		if (i % 8 == 0)
			OK(cu.cuLaunchHostFunc(s, pause_it, NULL));   /* what is freed now is nobody's for a while */
		while (n--)
			OK(cu.cuMemFreeAsync(p[n], s));
		if (i % 16 == 0)
			OK(cu.cuStreamSynchronize(s));
	}
	MUST(cu.cuStreamDestroy_v2(s));
	return NULL;
}

static void race(CUcontext ctx)
{
	enum { THREADS = 16 };
	pthread_t t[THREADS];
	CUmemoryPool pool;
	MUST(cu.cuDeviceGetDefaultMemPool(&pool, dev));
	keep_everything(pool);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, churn, ctx);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	OK(cu.cuCtxSynchronize());
	CHECK(stats->peak <= LIMIT + (getenv("CUTEST_SERVER") ? 4 * 40 * MIB : 0));   /* one request, or a few that were slow in the driver */
	CHECK_EQ(stats->objects, 0);
	NEVER_BELOW();
	OK(cu.cuMemPoolTrimTo(pool, 0));
	EXPECT(0, 0);
}

int main(int argc, char **argv)
{
	CUstream s;
	if (argc < 2)
		return 2;
	open_shim(argv);
	MUST(cu.cuInit(0));
	void *driver = dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD);
	if (!driver)
		return 1;
	api_of(driver, &real);
	MUST(cu.cuDeviceGet(&dev, 0));
	CUcontext ctx = new_context();
	MUST(cu.cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	base = truth();
	default_pool(s);
	kept(s);
	limit(s);
	own_pool(s);
	if (getenv("CUTEST_SERVER"))   /* else a stream does at once what it is given */
		held_up(s);
	race(ctx);
	return finished("pool");
}
