/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that comes from elsewhere: what another interface made is charged by its size, what another process of the tenant made is
 * not, and freeing what is unknown harms nothing. FAKEGATE_LIMIT = 64 MiB.
 */
#include "cutest.h"

#include <sys/mman.h>
#include <sys/wait.h>

#define MIB (UINT64_C(1) << 20)

static CUdevice dev;

static void external(void)
{
	CUmemAllocationProp_v1 prop = { .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { CU_MEM_LOCATION_TYPE_DEVICE, dev },
					.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR };
	CUmemGenericAllocationHandle h;
	int fd = -1;
	if (cu.cuMemCreate(&h, 2 * MIB, &prop, 0) != CUDA_SUCCESS ||
	    cu.cuMemExportToShareableHandle(&fd, h, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0) != CUDA_SUCCESS) {
		printf("nothing to import on this driver\n");
		return;
	}
	uint64_t before = stats->used;
	CUexternalMemory mem = NULL;
	CUdeviceptr p;
	CUDA_EXTERNAL_MEMORY_HANDLE_DESC_v1 desc = { .type = CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD, .handle = { .fd = fd }, .size = 2 * MIB };
	CUDA_EXTERNAL_MEMORY_BUFFER_DESC_v1 buffer = { .offset = 0, .size = MIB };
	CUresult r = cu.cuImportExternalMemory(&mem, &desc);
	if (r == CUDA_SUCCESS) {
		CHECK_EQ(stats->used, before + 2 * MIB);
		OK(cu.cuExternalMemoryGetMappedBuffer(&p, mem, &buffer));
		CHECK_EQ(stats->used, before + 2 * MIB);
		OK(cu.cuMemFree_v2(p));
		CHECK_EQ(stats->used, before + 2 * MIB);
		OK(cu.cuDestroyExternalMemory(mem));
		CHECK_EQ(stats->used, before);
		desc.size = 80 * MIB;
		CHECK_EQ(cu.cuImportExternalMemory(&mem, &desc), CUDA_ERROR_OUT_OF_MEMORY);
	} else {
		printf("no external memory on this driver (%d)\n", r);
		close(fd);
	}
	CHECK(cu.cuImportExternalMemory(NULL, &desc) != CUDA_SUCCESS);
	CHECK_EQ(stats->used, before);
	OK(cu.cuMemRelease(h));
	EXPECT(2 * MIB, 1);   /* what was exported stays charged: test_vmm.c */
}

/* One process exports and pays; another opens, uses and closes, and does not. */
static int opener(const CUipcMemHandle_v1 *handle)
{
	CUdeviceptr p = 0;
	MUST(cu.cuInit(0));
	new_context();
	CUresult r = cu.cuIpcOpenMemHandle_v2(&p, *handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
	if (r != CUDA_SUCCESS)
		return 77;
	EXPECT(0, 0);
	OK(cu.cuIpcCloseMemHandle(p));
	EXPECT(0, 0);
	return failures != 0;
}

static void ipc(char **argv)
{
	CUdeviceptr p;
	CUipcMemHandle_v1 handle;
	char text[2 * sizeof(handle) + 1];
	int status = -1;
	uint64_t before = stats->used, objects = stats->objects;
	MUST(cu.cuMemAlloc_v2(&p, 4 * MIB));
	CUresult r = cu.cuIpcGetMemHandle(&handle, p);
	if (r != CUDA_SUCCESS) {
		printf("no handles for other processes on this driver (%d)\n", r);
		OK(cu.cuMemFree_v2(p));
		return;
	}
	for (size_t i = 0; i < sizeof(handle); i++)
		snprintf(text + 2 * i, 3, "%02x", (unsigned char)handle.reserved[i]);
	pid_t pid = fork();
	if (!pid) {
		execl("/proc/self/exe", argv[0], "open", text, (char *)NULL);
		_exit(1);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		printf("another process cannot open it on this driver\n");
	else
		CHECK_EQ(WEXITSTATUS(status), 0);
	EXPECT(before + 4 * MIB, objects + 1);
	OK(cu.cuMemFree_v2(p));
	EXPECT(before, objects);
}

int main(int argc, char **argv)
{
	open_shim(argv);
	if (argc == 3 && !strcmp(argv[1], "open")) {
		CUipcMemHandle_v1 handle;
		for (size_t i = 0; i < sizeof(handle); i++) {
			char two[3] = { argv[2][2 * i], argv[2][2 * i + 1], 0 };
			handle.reserved[i] = (char)strtoul(two, NULL, 16);
		}
		return opener(&handle);
	}
	MUST(cu.cuInit(0));
	MUST(cu.cuDeviceGet(&dev, 0));
	new_context();
	external();
	ipc(argv);
	return finished("foreign");
}
