/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Physical memory with handles: charged once, and for as long as a handle, a mapping, an import or another object holds it.
 * FAKEGATE_LIMIT = 64 MiB. The driver's own counter of used memory is what the charge must never be below.
 *
 * test_vmm DRIVER
 */
#include "cutest.h"

#include <pthread.h>

#define MIB (UINT64_C(1) << 20)
#define LIMIT (64 * MIB)
#define PIECE (8 * MIB)

static struct cu_api real;
static CUdevice dev;
static CUmemAllocationProp_v1 prop;
static uint64_t base;

static uint64_t truth(void)
{
	size_t left = 0, total = 0;
	MUST(real.cuMemGetInfo_v2(&left, &total));
	return total - left;
}

static void exactly(uint64_t bytes, uint64_t objects, int line)
{
	if (stats->used == bytes && stats->objects == objects && truth() - base == bytes)
		return;
	fprintf(stderr, "test_vmm.c:%d: %llu bytes in %llu objects charged, %llu taken, wanted %llu in %llu\n", line,
		(unsigned long long)stats->used, (unsigned long long)stats->objects, (unsigned long long)(truth() - base),
		(unsigned long long)bytes, (unsigned long long)objects);
	failures++;
}
#define EXACTLY(bytes, objects) exactly(bytes, objects, __LINE__)

static void handles(void)
{
	CUmemGenericAllocationHandle h, again = 0;
	CUdeviceptr va;
	OK(cu.cuMemCreate(&h, PIECE, &prop, 0));
	EXACTLY(PIECE, 1);
	OK(cu.cuMemAddressReserve(&va, 4 * PIECE, 0, 0, 0));
	OK(cu.cuMemMap(va, PIECE, 0, h, 0));
	OK(cu.cuMemMap(va + PIECE, PIECE, 0, h, 0));
	EXACTLY(PIECE, 1);
	/* Released while it is mapped: it is there, and charged. */
	OK(cu.cuMemRelease(h));
	EXACTLY(PIECE, 1);
	OK(cu.cuMemUnmap(va, PIECE));
	EXACTLY(PIECE, 1);
	/* A handle from the mapping, which then goes. */
	OK(cu.cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)(va + PIECE)));
	CHECK(again == h);
	OK(cu.cuMemUnmap(va + PIECE, PIECE));
	EXACTLY(PIECE, 1);
	OK(cu.cuMemRelease(again));
	EXACTLY(0, 0);
	CHECK(cu.cuMemUnmap(va, PIECE) != CUDA_SUCCESS);
	CHECK(cu.cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)va) != CUDA_SUCCESS);
	EXACTLY(0, 0);
	OK(cu.cuMemAddressFree(va, 4 * PIECE));
}

/* Several mappings in one range go by one call. */
static void ranges(void)
{
	enum { N = 6 };
	CUmemGenericAllocationHandle h[N];
	CUdeviceptr va;
	OK(cu.cuMemAddressReserve(&va, N * 2 * MIB, 0, 0, 0));
	for (unsigned i = 0; i < N; i++) {
		OK(cu.cuMemCreate(&h[i], 2 * MIB, &prop, 0));
		OK(cu.cuMemMap(va + i * 2 * MIB, 2 * MIB, 0, h[i], 0));
		OK(cu.cuMemRelease(h[i]));
	}
	EXACTLY(N * 2 * MIB, N);
	CHECK(cu.cuMemUnmap(va + MIB, 2 * MIB) != CUDA_SUCCESS);
	EXACTLY(N * 2 * MIB, N);
	OK(cu.cuMemUnmap(va, 4 * MIB));
	EXACTLY((N - 2) * 2 * MIB, N - 2);
	OK(cu.cuMemUnmap(va + 4 * MIB, (N - 2) * 2 * MIB));
	EXACTLY(0, 0);
	OK(cu.cuMemAddressFree(va, N * 2 * MIB));
}

static void limit(void)
{
	CUmemGenericAllocationHandle h[8], one;
	uint64_t denials = stats->denials;
	for (unsigned i = 0; i < 8; i++)
		OK(cu.cuMemCreate(&h[i], PIECE, &prop, 0));
	CHECK_EQ(cu.cuMemCreate(&one, 2 * MIB, &prop, 0), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK_EQ(stats->denials, denials + 1);
	EXACTLY(LIMIT, 8);
	for (unsigned i = 0; i < 8; i++)
		OK(cu.cuMemRelease(h[i]));
	EXACTLY(0, 0);
	/* Mistakes: the driver's codes. */
	CHECK_EQ(cu.cuMemCreate(NULL, PIECE, &prop, 0), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(cu.cuMemCreate(&one, PIECE, NULL, 0), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(cu.cuMemCreate(&one, 1000, &prop, 0), CUDA_ERROR_INVALID_VALUE);
	CHECK_EQ(cu.cuMemCreate(&one, 0, &prop, 0), CUDA_ERROR_INVALID_VALUE);
	EXACTLY(0, 0);
}

/* Memory of the host costs nothing. */
static void host(void)
{
	CUmemAllocationProp_v1 at_host = prop;
	CUmemGenericAllocationHandle h;
	at_host.location = (CUmemLocation){ CU_MEM_LOCATION_TYPE_HOST, 0 };
	if (cu.cuMemCreate(&h, 2 * LIMIT, &at_host, 0) == CUDA_SUCCESS) {
		EXACTLY(0, 0);
		OK(cu.cuMemRelease(h));
	}
	EXACTLY(0, 0);
}

/*
 * What was exported stays charged: whoever holds the descriptor can have the memory back, and no call tells when the last one goes. A
 * loop of create, export and release takes no more than the contract, whether anything is imported or not.
 */
static void exports(void)
{
	CUmemAllocationProp_v1 shared = prop;
	CUmemGenericAllocationHandle h, other;
	int fd[16];
	unsigned n = 0;
	shared.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
	CUresult r = cu.cuMemCreate(&h, PIECE, &shared, 0);
	if (r == CUDA_ERROR_NOT_SUPPORTED) {
		printf("no exports on this driver\n");
		return;
	}
	MUST(r);
	/* Not exported yet, so it goes with its handle. */
	OK(cu.cuMemRelease(h));
	CHECK_EQ(stats->used, 0);
	while (n < 16 && cu.cuMemCreate(&h, PIECE, &shared, 0) == CUDA_SUCCESS) {
		OK(cu.cuMemExportToShareableHandle(&fd[n], h, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
		OK(cu.cuMemRelease(h));
		n++;
		CHECK_EQ(stats->used, n * PIECE);
	}
	CHECK_EQ(n, 8);
	/* An import costs nothing beside it. */
	OK(cu.cuMemImportFromShareableHandle(&other, (void *)(intptr_t)fd[0], CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
	CHECK_EQ(stats->used, 8 * PIECE);
	OK(cu.cuMemRelease(other));
	while (n--)
		close(fd[n]);
	CHECK(cu.cuMemImportFromShareableHandle(&other, (void *)(intptr_t)-1, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) != CUDA_SUCCESS);
	CHECK_EQ(stats->used, 8 * PIECE);
}

/*
 * Eight threads over the same addresses: whatever order their calls have, in the end nothing is charged and nothing is taken, and
 * at no time was more taken than the contract allows.
 */
static CUdeviceptr arena;
static _Atomic int stop;

static void *churn(void *arg)
{
	CUdeviceptr va = arena + (uintptr_t)arg * 4 * PIECE;
	for (unsigned i = 0; i < 300; i++) {
		CUmemGenericAllocationHandle h, again;
		if (cu.cuMemCreate(&h, PIECE, &prop, 0) != CUDA_SUCCESS)
			continue;
		if (cu.cuMemMap(va, PIECE, 0, h, 0) == CUDA_SUCCESS) {
			OK(cu.cuMemRelease(h));
			OK(cu.cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)va));
			OK(cu.cuMemMap(va + PIECE, PIECE, 0, again, 0));
			OK(cu.cuMemUnmap(va, PIECE));
			OK(cu.cuMemRelease(again));
			OK(cu.cuMemUnmap(va + PIECE, PIECE));
		} else {
			OK(cu.cuMemRelease(h));
		}
	}
	return NULL;
}

static void *watch(void *arg)
{
	uint64_t taken = 0;
	MUST(cu.cuCtxSetCurrent(arg));
	while (!stop) {
		uint64_t now = truth() - base;
		taken = now > taken ? now : taken;
	}
	CHECK(taken <= LIMIT);
	return NULL;
}

static void race(CUcontext ctx)
{
	pthread_t t[64], w;
	OK(cu.cuMemAddressReserve(&arena, 64 * 4 * PIECE, 0, 0, 0));
	pthread_create(&w, NULL, watch, ctx);
	for (uintptr_t i = 0; i < 64; i++)
		pthread_create(&t[i], NULL, churn, (void *)i);
	for (unsigned i = 0; i < 64; i++)
		pthread_join(t[i], NULL);
	stop = 1;
	pthread_join(w, NULL);
	CHECK(stats->peak <= LIMIT);
	EXACTLY(0, 0);
	OK(cu.cuMemAddressFree(arena, 64 * 4 * PIECE));
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
	MUST(cu.cuDeviceGet(&dev, 0));
	CUcontext ctx = new_context();
	prop = (CUmemAllocationProp_v1){ .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { CU_MEM_LOCATION_TYPE_DEVICE, dev } };
	base = truth();
	handles();
	ranges();
	limit();
	host();
	race(ctx);
	exports();   /* last: what it charges stays */
	return finished("vmm");
}
