/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles that are used again at once, on handledriver.c: of physical memory, of contexts. And multicast objects, which hold the memory
 * that is bound to them. After every call what is charged is what lives. FAKEGATE_LIMIT = 64 MiB.
 *
 * test_handle DRIVER
 */
#include "cutest.h"

#include <pthread.h>
#include <sys/wait.h>

#define MIB (UINT64_C(1) << 20)

static _Atomic uint64_t *live;

#define LIVE(bytes)                                          \
	do {                                                 \
		CHECK_EQ(*live, bytes);                      \
		CHECK_EQ(stats->used, bytes);                \
	} while (0)

static CUdeviceptr of_the_new_one;

static void *make_another(void *arg)
{
	CUcontext c;
	if (arg) {
		OK(cu.cuDevicePrimaryCtxRetain(&c, 0));
		OK(cu.cuCtxSetCurrent(c));
	} else {
		OK(cu.cuCtxCreate_v2(&c, 0, 0));
	}
	OK(cu.cuMemAlloc_v2(&of_the_new_one, 4 * MIB));
	return NULL;
}

/* The handle of a context is another one's, with memory of its own, before the destroying call has returned. */
static void while_destroyed(void)
{
	pthread_t t;
	pthread_create(&t, NULL, make_another, NULL);
	pthread_join(t, NULL);
}

static void while_reset(void)
{
	pthread_t t;
	pthread_create(&t, NULL, make_another, (void *)1);
	pthread_join(t, NULL);
}

static void contexts(void *driver)
{
	void (**destroyed)(void) = dlsym(driver, "mc_destroyed");
	CUcontext c;
	CUdeviceptr p;
	OK(cu.cuCtxCreate_v2(&c, 0, 0));
	OK(cu.cuMemAlloc_v2(&p, 8 * MIB));
	LIVE(8 * MIB);
	CHECK(cu.cuCtxDestroy_v2((CUcontext)(void *)&p) != CUDA_SUCCESS);
	LIVE(8 * MIB);
	*destroyed = while_destroyed;
	OK(cu.cuCtxDestroy_v2(c));
	*destroyed = NULL;
	LIVE(4 * MIB);
	OK(cu.cuMemFree_v2(of_the_new_one));
	LIVE(0);
	OK(cu.cuCtxDestroy_v2(c));
	EXPECT(0, 0);

	/* The primary one has the same handle again anyway. */
	OK(cu.cuDevicePrimaryCtxRetain(&c, 0));
	OK(cu.cuDevicePrimaryCtxRetain(&c, 0));
	OK(cu.cuCtxSetCurrent(c));
	OK(cu.cuMemAlloc_v2(&p, 8 * MIB));
	OK(cu.cuDevicePrimaryCtxRelease_v2(0));
	LIVE(8 * MIB);
	*destroyed = while_reset;
	OK(cu.cuDevicePrimaryCtxReset_v2(0));
	*destroyed = NULL;
	LIVE(4 * MIB);
	OK(cu.cuDevicePrimaryCtxRelease_v2(0));
	EXPECT(0, 0);
}

int main(int argc, char **argv)
{
	CUmemAllocationProp_v1 prop = { .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 } };
	CUmulticastObjectProp mc = { .numDevices = 1, .size = 8 * MIB };
	CUmemGenericAllocationHandle h, other, object, again;
	if (argc < 2)
		return 2;
	open_shim(argv);
	MUST(cu.cuInit(0));
	void *driver = dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD);
	live = driver ? dlsym(driver, "mc_live") : NULL;
	if (!live)
		return 1;

	/* Bound, its handle released: it lives until it is unbound. */
	OK(cu.cuMemCreate(&h, 4 * MIB, &prop, 0));
	OK(cu.cuMulticastCreate(&object, &mc));
	OK(cu.cuMulticastBindMem(object, 0, h, 0, 4 * MIB, 0));
	OK(cu.cuMemRelease(h));
	LIVE(4 * MIB);
	OK(cu.cuMemCreate(&other, 2 * MIB, &prop, 0));
	LIVE(6 * MIB);
	CHECK(cu.cuMulticastUnbind(object, 0, 4 * MIB, 4 * MIB) != CUDA_SUCCESS);
	LIVE(6 * MIB);
	OK(cu.cuMulticastUnbind(object, 0, 0, 4 * MIB));
	LIVE(2 * MIB);

	/* By its address; and the object goes with it bound. */
	OK(cu.cuMemMap(0x10000000, 2 * MIB, 0, other, 0));
	OK(cu.cuMulticastBindAddr(object, 0, 0x10000000, 2 * MIB, 0));
	OK(cu.cuMemRelease(other));
	OK(cu.cuMemUnmap(0x10000000, 2 * MIB));
	LIVE(2 * MIB);
	OK(cu.cuMemRelease(object));
	LIVE(0);
	EXPECT(0, 0);

	/* The object itself is mapped: what is bound stays until that mapping goes, too. */
	OK(cu.cuMemCreate(&h, 4 * MIB, &prop, 0));
	OK(cu.cuMulticastCreate(&object, &mc));
	OK(cu.cuMulticastBindMem(object, 0, h, 0, 4 * MIB, 0));
	OK(cu.cuMemMap(0x20000000, 8 * MIB, 0, object, 0));
	OK(cu.cuMemRelease(h));
	OK(cu.cuMemRelease(object));
	LIVE(4 * MIB);
	OK(cu.cuMemRetainAllocationHandle(&again, (void *)0x20000000));
	CHECK_EQ(again, object);
	OK(cu.cuMemUnmap(0x20000000, 8 * MIB));
	LIVE(4 * MIB);
	OK(cu.cuMemRelease(again));
	LIVE(0);

	/* Handles are used again at once, for other memory. */
	for (unsigned i = 1; i <= 16; i++) {
		OK(cu.cuMemCreate(&h, i * 2 * MIB, &prop, 0));
		LIVE(i * 2 * MIB);
		OK(cu.cuMemRelease(h));
		LIVE(0);
	}
	/* A child that ends what it inherited gives back nothing: its parent was charged. */
	OK(cu.cuMemCreate(&h, 4 * MIB, &prop, 0));
	int status = -1;
	pid_t pid = fork();
	if (!pid) {
		OK(cu.cuMemRelease(h));
		CHECK_EQ(stats->used, 4 * MIB);
		_exit(failures != 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	OK(cu.cuMemRelease(h));
	LIVE(0);

	contexts(driver);
	CHECK_EQ(cu.cuMemCreate(&h, 66 * MIB, &prop, 0), CUDA_ERROR_OUT_OF_MEMORY);
	CHECK(cu.cuMulticastBindMem(7, 0, 9, 0, MIB, 0) != CUDA_SUCCESS);
	CHECK(cu.cuMulticastCreate(&object, NULL) != CUDA_SUCCESS);
	LIVE(0);
	EXPECT(0, 0);
	return finished("handle");
}
