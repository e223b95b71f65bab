/* SPDX-License-Identifier: Apache-2.0 */
/* What nvcc builds: a cubin, fat binaries with and without PTX. Skipped where there is no nvcc. */
#include "cu.h"

#include <sys/stat.h>
#include <unistd.h>

static const char source[] =
	"struct big { int a[5]; double d; };\n"
	"__device__ int counter[7];\n"
	"__constant__ float coef[4];\n"
	"__global__ void vectorAdd(const float *a, const float *b, float *c, int n)\n"
	"{ int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) c[i] = a[i] + b[i]; }\n"
	"__global__ void __launch_bounds__(128) other(big b, char x, float *p)\n"
	"{ __shared__ float s[100]; s[threadIdx.x] = b.d + x + coef[0]; __syncthreads(); p[threadIdx.x] = s[99 - threadIdx.x] + counter[0]; }\n";

static char folder[] = "/tmp/cuda-image-XXXXXX";
static const char *nvcc;

static const char *path(const char *name)
{
	static char p[2][256];
	static int turn;

	turn = !turn;
	snprintf(p[turn], sizeof(p[turn]), "%s/%s", folder, name);
	return p[turn];
}

static const char *build(const char *name, const char *options)
{
	char command[1024];

	snprintf(command, sizeof(command), "%s %s -o %s %s", nvcc, options, path(name), path("source.cu"));
	assert_int_equal(system(command), 0);
	return path(name);
}

static void check(CUmodule m)
{
	static const size_t offset[] = { 0, 32, 40 }, bytes[] = { 32, 1, 8 };
	CUfunction other = cu_function(m, "_Z5other3bigcPf");
	CUdeviceptr p;
	size_t n;
	int v;

	OK(cuFuncGetAttribute(&v, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, other));
	assert_int_equal(v, 128);
	OK(cuModuleGetGlobal_v2(&p, &n, m, "counter"));
	assert_int_equal(n, 28);
	OK(cuModuleGetGlobal_v2(&p, &n, m, "coef"));
	assert_int_equal(n, 16);
	for (size_t i = 0; i < 3 && cu.cuFuncGetParamInfo; i++) {
		size_t at, size;

		OK(cuFuncGetParamInfo(other, i, &at, &size));
		assert_int_equal(at, offset[i]);
		assert_int_equal(size, bytes[i]);
	}
}

static void add(CUmodule m)
{
	CUfunction f = cu_function(m, "_Z9vectorAddPKfS0_Pfi");
	float in[64], out[64];
	CUdeviceptr p;
	int n = 64;

	for (int i = 0; i < n; i++)
		in[i] = (float)i;
	OK(cuMemAlloc_v2(&p, sizeof(in)));
	OK(cuMemcpyHtoD_v2(p, in, sizeof(in)));
	void *args[] = { &p, &p, &p, &n };
	OK(cuLaunchKernel(f, 1, 1, 1, 64, 1, 1, 0, NULL, args, NULL));
	OK(cuMemcpyDtoH_v2(out, p, sizeof(out)));
	for (int i = 0; i < n; i++)
		assert_true(out[i] == 2.0f * in[i]);
	OK(cuMemFree_v2(p));
}

/* The card is of capability 7.5. */
static void test_images(void **state)
{
	CUmodule m;
	int v;

	(void)state;
	OK(cuModuleLoad(&m, build("own.cubin", "-cubin -arch=sm_75")));
	check(m);
	add(m);
	OK(cuFuncGetAttribute(&v, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, cu_function(m, "_Z5other3bigcPf")));
	assert_int_equal(v, 400);
	OK(cuModuleUnload(m));
	OK(cuModuleLoad(&m, build("own.ptx", "-ptx -arch=compute_75")));
	check(m);
	add(m);
	OK(cuModuleLoad(&m, build("two.fatbin", "-fatbin -gencode arch=compute_90,code=sm_90 -gencode arch=compute_75,code=compute_75")));
	check(m);
	add(m);
	/* The architecture in the file's head is another one. */
	FILE *f = fopen(path("own.cubin"), "r+");
	assert_int_equal(fseek(f, 0x31, SEEK_SET), 0);
	fputc(90, f);
	fclose(f);
	FAILS(CUDA_ERROR_NO_BINARY_FOR_GPU, cuModuleLoad(&m, path("own.cubin")));
	FAILS(CUDA_ERROR_FILE_NOT_FOUND, cuModuleLoad(&m, path("nothing")));
}

static int clean(void **state)
{
	static const char *const names[] = { "source.cu", "own.cubin", "own.ptx", "two.fatbin" };

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		unlink(path(names[i]));
	rmdir(folder);
	return cu_teardown(state);
}

int main(void)
{
	static const char *const where[] = { "/usr/local/cuda/bin/nvcc", "/usr/local/cuda-13.0/bin/nvcc", "/usr/bin/nvcc" };
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_images) };
	FILE *f;

	for (size_t i = 0; i < sizeof(where) / sizeof(*where) && !nvcc; i++)
		nvcc = access(where[i], X_OK) == 0 ? where[i] : NULL;
	if (!nvcc) {
		printf("skipped: no nvcc\n");
		return 77;
	}
	cu_load();
	if (!mkdtemp(folder) || !(f = fopen(path("source.cu"), "w")))
		return 1;
	fputs(source, f);
	fclose(f);
	return cmocka_run_group_tests(tests, cu_setup, clean);
}
