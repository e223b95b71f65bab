/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forked while other threads are in the middle of making and releasing objects. Whatever lock of the layer they hold is
 * held for ever in the child; the child gives objects back and makes its own all the same. On the null driver, which a
 * child may go on using (a driver with threads of its own is lost in a child, with or without the layer).
 */
#include "shim/ocl.h"

#include <pthread.h>
#include <sys/wait.h>

enum { CHILDREN = 300 };

static const char source[] = "__kernel void f(__global int *a) { a[get_global_id(0)] = 1; }";
static _Atomic bool stop;

static void *churn(void *arg)
{
	(void)arg;
	cl_kernel k = new_kernel(source, "f");
	while (!stop) {
		cl_command_queue q = new_queue(0);
		cl_mem m = new_buffer(64);
		cl_int err;
		cl_kernel other = clCloneKernel(k, &err);
		void *svm = clSVMAlloc(context, CL_MEM_READ_WRITE, 64, 0);
		clSVMFree(context, svm);
		if (!err)
			OK(clReleaseKernel(other));
		OK(clReleaseMemObject(m));
		OK(clReleaseCommandQueue(q));
	}
	OK(clReleaseKernel(k));
	return NULL;
}

static int child(cl_command_queue q, cl_kernel k, cl_mem m, void *inherited)
{
	alarm(5);   /* a lock that nobody will open */
	size_t global = 16;
	cl_mem mine = new_buffer(64);
	OK(clSetKernelArg(k, 0, sizeof(mine), &mine));
	OK(clEnqueueNDRangeKernel(q, k, 1, NULL, &global, NULL, 0, NULL, NULL));
	OK(clFinish(q));
	void *svm = clSVMAlloc(context, CL_MEM_READ_WRITE, 64, 0);
	clSVMFree(context, svm);
	cl_kernel other = new_kernel(source, "f");
	OK(clReleaseKernel(other));
	/* What it inherited was charged to its parent: its own account does not get smaller. */
	uint64_t used = stats->used;
	OK(clReleaseMemObject(m));
	clSVMFree(context, inherited);
	CHECK_EQ(stats->used, used);
	OK(clReleaseMemObject(mine));
	CHECK_EQ(stats->used, used - 64);
	OK(clReleaseKernel(k));
	OK(clReleaseCommandQueue(q));
	return failures != 0;
}

int main(void)
{
#ifdef __SANITIZE_ADDRESS__
	skip("AddressSanitizer's allocator stays locked in a child that was forked while another thread was in it");
#endif
	setup();
	cl_command_queue q = new_queue(0);
	cl_kernel k = new_kernel(source, "f");
	cl_mem m = new_buffer(64);
	void *svm = clSVMAlloc(context, CL_MEM_READ_WRITE, 64, 0);
	CHECK(svm != NULL);
	pthread_t t[2];
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, churn, NULL);
	for (int i = 0; i < CHILDREN && !failures; i++) {
		int status = 0;
		pid_t pid = fork();
		if (!pid)
			_exit(child(q, k, m, svm));
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK_EQ(status, 0);
	}
	stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	OK(clReleaseMemObject(m));
	clSVMFree(context, svm);
	OK(clReleaseKernel(k));
	OK(clReleaseCommandQueue(q));
	OK(clReleaseContext(context));
	CHECK_EQ(stats->used, 0);
	return finished("fork");
}
