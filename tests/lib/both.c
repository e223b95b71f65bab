/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenCL and CUDA in one process, each with a gate of its own: requests count where their work was. CUDA comes when marks are long being
 * made. The accelerators are the camera's, under other names (meson.build).
 */
#include <penstock/penstock.h>

#include <stdio.h>

int opencl_open(void), opencl_run(void), cuda_open(void), cuda_run(void);

static int several(int n, int (*one)(void))
{
	int r = 0;
	for (int i = 0; i < n && !r; i++) {
		penstock_request_t request;
		r = penstock_request_begin(&request);
		if (!r && one)
			r = one();
		if (!r)
			r = penstock_request_end(request);
	}
	return r;
}

static int warm(int (*one)(void))   /* until its kernels are known: such requests are not counted */
{
	int r = 0;
	for (int i = 0; i < 20 && !r; i++)
		r = one();
	return r;
}

static void stop(const char *where, int r)
{
	printf("%s %d\n", where, r);
	fflush(stdout);
	getchar();
}

int main(void)
{
	penstock_request_t request;
	int r = opencl_open();
	if (!r)
		r = penstock_request_begin(&request);
	if (!r)
		r = penstock_request_cancel(request);   /* from here on nothing is guessed */
	if (!r)
		r = warm(opencl_run);
	stop("opencl", r ? r : several(10, opencl_run));
	r = cuda_open();
	if (!r)
		r = several(1, cuda_run);   /* a kernel's first run */
	if (!r)
		r = warm(cuda_run);
	stop("cuda", r ? r : several(20, cuda_run));
	stop("none", several(5, NULL));
	return 0;
}
