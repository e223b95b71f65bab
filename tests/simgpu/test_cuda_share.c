/* SPDX-License-Identifier: Apache-2.0 */
/* Memory and events between two processes: by IPC handle, by descriptor, through a pool. The child makes, the parent opens. */
#include "cu.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

struct message {
	CUipcMemHandle_v1 mem;
	CUipcEventHandle_v1 event;
	CUmemPoolPtrExportData_v1 pointer;
};

static int line[2];   /* [0] the parent's end */

static void put(int end, const void *p, size_t n, const int *fds, int count)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(4 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)p, n };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (count) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
		memcpy(CMSG_DATA(&control.head), fds, (size_t)count * sizeof(int));
	}
	assert_int_equal(sendmsg(end, &msg, 0), n);
}

static void get(int end, void *p, size_t n, int *fds, int count)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(4 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { p, n };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };

	assert_int_equal(recvmsg(end, &msg, 0), n);
	if (count)
		memcpy(fds, CMSG_DATA(&control.head), (size_t)count * sizeof(int));
}

static CUmemAllocationProp_v1 exportable(void)
{
	return (CUmemAllocationProp_v1){ .type = CU_MEM_ALLOCATION_TYPE_PINNED, .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
					 .location = { CU_MEM_LOCATION_TYPE_DEVICE, cu_device } };
}

static CUdeviceptr mapped(CUmemGenericAllocationHandle_v1 h)
{
	CUmemAccessDesc_v1 access = { { CU_MEM_LOCATION_TYPE_DEVICE, cu_device }, CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUdeviceptr va;

	OK(cuMemAddressReserve(&va, 2 * MIB, 0, 0, 0));
	OK(cuMemMap(va, 2 * MIB, 0, h, 0));
	OK(cuMemSetAccess(va, 2 * MIB, &access, 1));
	return va;
}

static void child(int end)
{
	CUmemAllocationProp_v1 prop = exportable();
	CUmemPoolProps_v1 pool_props = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
					 .location = prop.location };
	CUmemGenericAllocationHandle_v1 h;
	struct message m;
	CUmemoryPool pool;
	CUdeviceptr a, b, va, from_pool;
	CUevent event;
	int fds[2];
	char word;

	cu_setup(NULL);
	OK(cuMemAlloc_v2(&a, 1000));       /* the second block of a page is the one that is shown */
	OK(cuMemAlloc_v2(&b, 1000));
	OK(cuMemsetD8_v2(a, 1, 1000));
	OK(cuMemsetD8_v2(b, 2, 1000));
	OK(cuMemCreate(&h, 2 * MIB, &prop, 0));
	va = mapped(h);
	OK(cuMemsetD8_v2(va, 3, 1000));
	OK(cuMemPoolCreate(&pool, &pool_props));
	OK(cuMemAllocFromPoolAsync(&from_pool, 1000, pool, NULL));
	OK(cuMemsetD8_v2(from_pool, 4, 1000));
	OK(cuEventCreate(&event, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING));
	OK(cuCtxSynchronize());
	OK(cuIpcGetMemHandle(&m.mem, b));
	OK(cuIpcGetEventHandle(&m.event, event));
	OK(cuMemExportToShareableHandle(&fds[0], h, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
	OK(cuMemPoolExportToShareableHandle(&fds[1], pool, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
	OK(cuMemPoolExportPointer(&m.pointer, from_pool));
	FAILS(CUDA_ERROR_INVALID_CONTEXT, cuIpcOpenMemHandle_v2(&a, m.mem, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
	put(end, &m, sizeof(m), fds, 2);
	/* The parent has all of it open; a kernel, and the event behind it, which the parent waits for. */
	get(end, &word, 1, NULL, 0);
	unsigned us = 3000;
	void *args[] = { &us };
	OK(cuLaunchKernel(cu_function(cu_module(), "spin"), 1, 1, 1, 32, 1, 1, 0, NULL, args, NULL));
	OK(cuMemsetD8Async(b, 5, 1000, NULL));
	OK(cuEventRecord(event, NULL));
	put(end, &word, 1, NULL, 0);
	get(end, &word, 1, NULL, 0);
	/* What the parent wrote. */
	unsigned char byte;
	OK(cuMemcpyDtoH_v2(&byte, va + 999, 1));
	assert_int_equal(byte, 9);
	OK(cuCtxDestroy_v2(cu_context));
	_exit(0);
}

static unsigned char byte_at(CUdeviceptr p)
{
	unsigned char v;

	OK(cuMemcpyDtoH_v2(&v, p, 1));
	return v;
}

static void test_share(void **state)
{
	CUmemGenericAllocationHandle_v1 h;
	struct message m;
	CUmemoryPool pool;
	CUdeviceptr p, again, va, from_pool;
	CUevent event;
	CUstream s;
	size_t before = cu_free_bytes();
	int fds[2];
	char word = 0;

	(void)state;
	get(line[0], &m, sizeof(m), fds, 2);
	/* Both have their contexts now; what the child saw hangs on whose came first. */
	size_t opened_nothing = cu_free_bytes();
	OK(cuIpcOpenMemHandle_v2(&p, m.mem, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
	assert_int_equal(byte_at(p), 2);
	assert_int_equal(byte_at(p + 999), 2);
	OK(cuIpcOpenMemHandle_v2(&again, m.mem, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
	assert_int_equal(again, p);
	OK(cuMemImportFromShareableHandle(&h, (void *)(intptr_t)fds[0], CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
	va = mapped(h);
	assert_int_equal(byte_at(va + 999), 3);
	OK(cuMemPoolImportFromShareableHandle(&pool, (void *)(intptr_t)fds[1], CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
	OK(cuMemPoolImportPointer(&from_pool, pool, &m.pointer));
	assert_int_equal(byte_at(from_pool + 500), 4);
	FAILS(CUDA_ERROR_NOT_PERMITTED, cuMemAllocFromPoolAsync(&again, 100, pool, NULL));
	/* Nothing of this was taken again: the bytes are the child's. In the zero-cost mode each process counts for itself. */
	if (!cu_null())
		assert_int_equal(cu_free_bytes(), opened_nothing);
	else
		assert_int_equal(cu_free_bytes(), before);

	OK(cuIpcOpenEventHandle(&event, m.event));
	OK(cuEventQuery(event));
	put(line[0], &word, 1, NULL, 0);
	get(line[0], &word, 1, NULL, 0);
	OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
	OK(cuStreamWaitEvent(s, event, 0));
	OK(cuMemsetD8Async(va, 9, 1000, s));
	OK(cuStreamSynchronize(s));
	OK(cuEventQuery(event));          /* the stream has waited for it */
	OK(cuEventSynchronize(event));
	assert_int_equal(byte_at(p), 5);
	put(line[0], &word, 1, NULL, 0);
	OK(cuMemFreeAsync(from_pool, s));
	OK(cuStreamDestroy_v2(s));
	OK(cuEventDestroy_v2(event));
	OK(cuMemUnmap(va, 2 * MIB));
	OK(cuMemAddressFree(va, 2 * MIB));
	OK(cuMemRelease(h));
	OK(cuMemPoolDestroy(pool));
	OK(cuIpcCloseMemHandle(p));
	OK(cuIpcCloseMemHandle(p));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuIpcCloseMemHandle(p));
	memset(&m.mem, 0, sizeof(m.mem));
	FAILS(CUDA_ERROR_INVALID_VALUE, cuIpcOpenMemHandle_v2(&p, m.mem, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_share) };
	int status = 1;

	cu_load();
	/* Before either has touched the device. */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, line) < 0)
		return 1;
	pid_t pid = fork();
	if (pid == 0) {
		close(line[0]);
		child(line[1]);
		_exit(1);
	}
	close(line[1]);
	int failed = cmocka_run_group_tests(tests, cu_setup, cu_teardown);
	close(line[0]);
	waitpid(pid, &status, 0);
	return failed || status;
}
