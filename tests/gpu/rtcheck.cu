/* SPDX-License-Identifier: Apache-2.0 */
/* A program on the CUDA runtime: rtcheck [BYTES]. Results of a kernel, streams and a graph; with BYTES: the total memory that it must see
 * and cannot exceed. */
#include <cstdio>
#include <cstdlib>
#include <cstring>

__global__ void vectorAdd(const float *a, const float *b, float *c, int n)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;

	if (i < n)
		c[i] = a[i] + b[i];
}

#define TRY(call)                                                                          \
	do {                                                                               \
		cudaError_t e_ = (call);                                                   \
		if (e_ != cudaSuccess) {                                                   \
			printf("line %d: %s\n", __LINE__, cudaGetErrorString(e_));         \
			return 1;                                                          \
		}                                                                          \
	} while (0)

int main(int argc, char **argv)
{
	const int n = 1 << 20;
	size_t bytes = n * sizeof(float), free_bytes, total, taken = 0, limit = argc > 1 ? strtoull(argv[1], NULL, 0) : 0;
	float *a, *b, *c, *host = (float *)malloc(bytes);
	cudaStream_t s;
	cudaGraph_t graph;
	cudaGraphExec_t exec;

	TRY(cudaMalloc(&a, bytes));
	TRY(cudaMalloc(&b, bytes));
	TRY(cudaMalloc(&c, bytes));
	for (int i = 0; i < n; i++)
		host[i] = (float)(i % 1000);
	TRY(cudaMemcpy(a, host, bytes, cudaMemcpyHostToDevice));
	TRY(cudaMemcpy(b, host, bytes, cudaMemcpyHostToDevice));
	TRY(cudaStreamCreate(&s));
	TRY(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
	vectorAdd<<<n / 256, 256, 0, s>>>(a, b, c, n);
	vectorAdd<<<n / 256, 256, 0, s>>>(c, b, a, n);
	TRY(cudaStreamEndCapture(s, &graph));
	TRY(cudaGraphInstantiateWithFlags(&exec, graph, 0));
	TRY(cudaGraphLaunch(exec, s));
	vectorAdd<<<n / 256, 256, 0, s>>>(a, b, c, n);   /* 4 x the input */
	TRY(cudaGetLastError());
	TRY(cudaStreamSynchronize(s));
	TRY(cudaMemcpy(host, c, bytes, cudaMemcpyDeviceToHost));
	for (int i = 0; i < n; i++) {
		if (host[i] != 4.0f * (float)(i % 1000)) {
			printf("element %d is %f\n", i, (double)host[i]);
			return 1;
		}
	}
	TRY(cudaMemGetInfo(&free_bytes, &total));
	if (limit && total != limit) {
		printf("the total is %zu, the contract %zu\n", total, limit);
		return 1;
	}
	while (limit && taken <= limit) {
		void *p;
		cudaError_t e = cudaMalloc(&p, 64 << 20);

		if (e == cudaErrorMemoryAllocation)
			break;
		TRY(e);
		taken += 64 << 20;
	}
	if (limit && taken > limit) {
		printf("%zu bytes were given under a contract of %zu\n", taken, limit);
		return 1;
	}
	printf("right; %zu of %zu bytes free, %zu taken\n", free_bytes, total, taken);
	return 0;
}
