/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 64 threads that take and free memory of all kinds under one limit, with contexts that come and go: never above the limit, nothing
 * left in the end. And a forked child: what it inherited costs it nothing and gives nothing back. FAKEGATE_LIMIT = 64 MiB.
 *
 * test_race DRIVER
 */
#include "cutest.h"

#include <pthread.h>
#include <sys/wait.h>

#define MIB (UINT64_C(1) << 20)
#define LIMIT (64 * MIB)
#define THREADS 64
#define ROUNDS 64

static CUdevice dev;
static _Atomic uint64_t refused;
static pthread_barrier_t all_hold;

static CUresult one_kind(unsigned kind, CUdeviceptr *p, CUarray *a)
{
	size_t pitch;
	CUDA_ARRAY_DESCRIPTOR_v2 d = { .Width = 512, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1 };
	*a = NULL;
	*p = 0;
	switch (kind % 4) {
	case 0:
		return cu.cuMemAlloc_v2(p, 2 * MIB);
	case 1:
		return cu.cuMemAllocPitch_v2(p, &pitch, 1024, 2048, 4);
	case 2:
		return cu.cuMemAllocManaged(p, 2 * MIB, CU_MEM_ATTACH_GLOBAL);
	default:
		return cu.cuArrayCreate_v2(a, &d);
	}
}

static void *churn(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	CUcontext ctx = NULL;
	MUST(cu.cuCtxCreate_v2(&ctx, 0, dev));
	for (unsigned i = 0; i < ROUNDS; i++) {
		CUdeviceptr p[4];
		CUarray a[4];
		unsigned n = 0;
		for (; n < 4; n++) {
			CUresult r = one_kind(seed + i + n, &p[n], &a[n]);
			if (r == CUDA_SUCCESS)
				continue;
			CHECK_EQ(r, CUDA_ERROR_OUT_OF_MEMORY);
			refused++;
			break;
		}
		if (i % 16 == 15)
			pthread_barrier_wait(&all_hold);
		if (i % 8 == 7) {   /* left to the context */
			OK(cu.cuCtxDestroy_v2(ctx));
			while (n-- > 0)   /* the stand-in keeps a few bytes for a handle until then */
				if (a[n])
					cu.cuArrayDestroy(a[n]);
			MUST(cu.cuCtxCreate_v2(&ctx, 0, dev));
			continue;
		}
		while (n-- > 0)
			OK(a[n] ? cu.cuArrayDestroy(a[n]) : cu.cuMemFree_v2(p[n]));
	}
	OK(cu.cuCtxDestroy_v2(ctx));
	return NULL;
}

static void race(void)
{
	pthread_t t[THREADS];
	pthread_barrier_init(&all_hold, NULL, THREADS);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, churn, (void *)i);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	EXPECT(0, 0);
	CHECK(stats->peak <= LIMIT);
	CHECK(stats->peak > LIMIT - 2 * MIB);
	CHECK(refused > 0);
}

/* The driver is of no use to a child of a process that used it; the shim must not be harmed, and must not give back what it never had. */
static int forked(CUdeviceptr p, CUarray a)
{
	uint64_t before = stats->used;
	CUdeviceptr q;
	cu.cuMemFree_v2(p);
	cu.cuArrayDestroy(a);
	CHECK(cu.cuMemAlloc_v2(&q, MIB) != CUDA_SUCCESS);
	CHECK_EQ(stats->used, before);
	return failures != 0;
}

static void forks(void)
{
	CUDA_ARRAY_DESCRIPTOR_v2 d = { .Width = 512, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1 };
	CUdeviceptr p;
	CUarray a;
	int status = -1;
	new_context();
	MUST(cu.cuMemAlloc_v2(&p, MIB));
	MUST(cu.cuArrayCreate_v2(&a, &d));
	pid_t pid = fork();
	if (!pid)
		_exit(forked(p, a));
	CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	OK(cu.cuMemFree_v2(p));
	OK(cu.cuArrayDestroy(a));
	EXPECT(0, 0);
}

/* Before anything was loaded: the child loads for itself. */
static void fork_first(char **argv)
{
	int status = -1;
	pid_t pid = fork();
	if (!pid) {
		CUdeviceptr p;
		MUST(cu.cuInit(0));
		new_context();
		MUST(cu.cuMemAlloc_v2(&p, 2 * MIB));
		EXPECT(2 * MIB, 1);
		_exit(failures != 0);
	}
	(void)argv;
	CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	CHECK_EQ(stats->used, 0);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	open_shim(argv);
	fork_first(argv);
	MUST(cu.cuInit(0));
	void *driver = dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD);
	if (!driver)
		return 1;
	MUST(cu.cuDeviceGet(&dev, 0));
	race();
	forks();
	return finished("race");
}
