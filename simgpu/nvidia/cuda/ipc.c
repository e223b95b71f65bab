/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory and events of one process in another. A handle names a file of the process that made it and a
 * place in it; whoever opens it maps the same bytes. They are charged where they were allocated, and gone
 * when they are freed there.
 */
#include "simgpu/nvidia/cuda/mem.h"
#include "simgpu/nvidia/cuda/share.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAGIC 0x6970636du
#define EVENT_MAGIC 0x69706365u

struct mem_handle {
	uint32_t magic;
	int32_t pid, fd, device;
	uint64_t offset, bytes;
};
_Static_assert(sizeof(struct mem_handle) <= CU_IPC_HANDLE_SIZE, "a handle is of fixed size");

struct imported { /* behind a range of kind IPC */
	struct mem_handle of;
	uint32_t refs;
	CUmemoryPool pool; /* it came through an imported pool */
	struct imported *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct imported *imports;

/* ---- memory ---- */

static bool describe(CUdeviceptr p, enum sim_kind_of_memory kind, struct mem_handle *ret)
{
	struct sim_range range;

	if (!sim_find(p, &range) || range.kind != kind)
		return false;
	*ret = (struct mem_handle){
		MAGIC, getpid(), sim_arena.fd, range.device->id, range.base - sim_arena.base, range.bytes
	};
	return true;
}

CUresult cuIpcGetMemHandle(CUipcMemHandle_v1 *ret, CUdeviceptr p)
{
	struct mem_handle h;
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (r)
		return r;
	if (!ret || !describe(p, SIM_MEM_DEVICE, &h))
		return CUDA_ERROR_INVALID_VALUE;
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, &h, sizeof(h));
	return CUDA_SUCCESS;
}

/* Maps what a handle says; a second time it is the same mapping. */
static CUresult import(const struct mem_handle *h, CUmemoryPool pool, CUdeviceptr *ret)
{
	struct sim_range range = { .bytes = h->bytes,
				   .kind = SIM_MEM_IPC,
				   .device = &sim_driver.device[h->device] };
	uint64_t page = h->offset & ~4095ul;
	size_t length = h->bytes + (h->offset - page);
	struct imported *i;

	for (i = imports; i; i = i->next)
		if (memcmp(&i->of, h, sizeof(*h)) == 0)
			break;
	if (i) {
		struct sim_range *list;
		size_t n = sim_range_collect(NULL, i, &list);

		i->refs++;
		*ret = n ? list[0].base : 0;
		free(list);
		return n ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	}
	int fd = sim_fd_of(h->pid, h->fd);
	if (fd < 0)
		return CUDA_ERROR_INVALID_VALUE;
	void *p = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)page);
	close(fd);
	i = calloc(1, sizeof(*i));
	if (p == MAP_FAILED || !i)
		goto fail;
	*i = (struct imported){ *h, 1, pool, imports };
	range.base = (uintptr_t)p + (h->offset - page);
	range.object = i;
	if (sim_range_add(&range) < 0)
		goto fail;
	imports = i;
	*ret = range.base;
	return CUDA_SUCCESS;
fail:
	if (p != MAP_FAILED)
		munmap(p, length);
	free(i);
	return CUDA_ERROR_OUT_OF_MEMORY;
}

/* A handle is a program's words: what it names must be a place in a file of another process. */
static bool plausible(const struct mem_handle *h)
{
	return h->magic == MAGIC && h->pid > 0 && h->fd >= 0 && h->device >= 0 &&
	       h->device < sim_driver.devices && h->bytes && h->bytes < UINT64_C(1) << 40 &&
	       h->offset < UINT64_C(1) << 40;
}

CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *ret, CUipcMemHandle_v1 handle, unsigned int flags)
{
	struct mem_handle h;
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (r)
		return r;
	memcpy(&h, &handle, sizeof(h));
	if (!ret || flags & ~(unsigned)CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS || !plausible(&h))
		return CUDA_ERROR_INVALID_VALUE;
	if (h.pid == getpid())
		return CUDA_ERROR_INVALID_CONTEXT; /* not in the process that it is of */
	pthread_mutex_lock(&lock);
	r = import(&h, NULL, ret);
	pthread_mutex_unlock(&lock);
	return r;
}

CUresult cuIpcOpenMemHandle(CUdeviceptr *ret, CUipcMemHandle_v1 handle, unsigned int flags)
{
	return cuIpcOpenMemHandle_v2(ret, handle, flags);
}

static bool let_go(CUdeviceptr p, bool of_pool)
{
	struct sim_range range;
	bool found;

	pthread_mutex_lock(&lock);
	found = sim_range_find(p, &range) && range.kind == SIM_MEM_IPC && range.base == p &&
		of_pool == (((struct imported *)range.object)->pool != NULL);
	if (found) {
		struct imported *i = range.object;

		if (--i->refs == 0) {
			uint64_t page = p & ~4095ul;

			sim_range_remove(p, NULL);
			munmap((void *)page, range.bytes + (p - page));
			for (struct imported **at = &imports; *at; at = &(*at)->next)
				if (*at == i) {
					*at = i->next;
					break;
				}
			free(i);
		}
	}
	pthread_mutex_unlock(&lock);
	return found;
}

CUresult cuIpcCloseMemHandle(CUdeviceptr p)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_unsafe();
	if (!r)
		r = sim_context_sync(ctx);
	return r ? r : let_go(p, false) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- pools ---- */

CUresult cuMemPoolExportToShareableHandle(void *ret, CUmemoryPool p, CUmemAllocationHandleType type,
					  unsigned long long flags)
{
	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!ret || !p || p->tag != SIM_TAG_POOL || flags || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
		return CUDA_ERROR_INVALID_VALUE;
	if (!(p->handle_types & CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR))
		return CUDA_ERROR_NOT_PERMITTED;

	struct sim_share share = { .kind = SIM_SHARE_POOL, .device = p->device->id, .id = p->slot };
	int fd = sim_share_create(&share);

	if (fd < 0)
		return CUDA_ERROR_OPERATING_SYSTEM;
	*(int *)ret = fd;
	return CUDA_SUCCESS;
}

/* Nothing can be allocated from it: it is what pointers are imported through. */
CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool *ret, void *handle, CUmemAllocationHandleType type,
					    unsigned long long flags)
{
	struct sim_share share;
	CUresult r;

	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!ret || flags || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR ||
	    sim_share_read((int)(intptr_t)handle, &share) < 0 || share.kind != SIM_SHARE_POOL ||
	    share.device < 0 || share.device >= sim_driver.devices)
		return CUDA_ERROR_INVALID_VALUE;
	r = sim_pool_create(&sim_driver.device[share.device], NULL, ret);
	if (!r)
		(*ret)->imported = true;
	return r;
}

CUresult cuMemPoolExportPointer(CUmemPoolPtrExportData_v1 *ret, CUdeviceptr p)
{
	struct mem_handle h;

	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!ret || !describe(p, SIM_MEM_POOL, &h))
		return CUDA_ERROR_INVALID_VALUE;
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, &h, sizeof(h));
	return CUDA_SUCCESS;
}

CUresult cuMemPoolImportPointer(CUdeviceptr *ret, CUmemoryPool p, CUmemPoolPtrExportData_v1 *data)
{
	struct mem_handle h;
	CUresult r;

	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!ret || !data || !p || p->tag != SIM_TAG_POOL || !p->imported)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(&h, data, sizeof(h));
	if (!plausible(&h) || h.pid == getpid())
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&lock);
	r = import(&h, p, ret);
	pthread_mutex_unlock(&lock);
	return r;
}

bool sim_ipc_free(CUdeviceptr p)
{
	return let_go(p, true);
}

/* ---- events ---- */

struct sim_shared_event {
	uint32_t magic;
	_Atomic uint64_t recorded,
		done; /* numbers of the last record, and of the last that the device has come to */
};

CUresult sim_event_share(CUevent e)
{
	int fd = memfd_create("simgpu-event", MFD_CLOEXEC);
	void *p = fd >= 0 && ftruncate(fd, 4096) == 0
			  ? mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
			  : MAP_FAILED;

	if (p == MAP_FAILED) {
		if (fd >= 0)
			close(fd);
		return CUDA_ERROR_OPERATING_SYSTEM;
	}
	e->shared = p;
	e->shared->magic = EVENT_MAGIC;
	e->fd = fd;
	return CUDA_SUCCESS;
}

void sim_event_unshare(CUevent e)
{
	/* The device may still be on its way to write the word, or to read it: then the page stays. */
	if (sim_shared_done(e))
		munmap(e->shared, 4096);
	if (e->fd >= 0)
		close(e->fd);
	e->shared = NULL;
}

CUresult sim_shared_record(CUevent e, CUstream s)
{
	struct sim_cmd cmd = { .kind = SIM_WRITE_WORD,
			       .word = { .address = (uintptr_t)&e->shared->done, .bytes = 8 } };

	cmd.word.value = atomic_fetch_add(&e->shared->recorded, 1) + 1;
	return sim_push(s, &cmd, NULL, 0, NULL);
}

CUresult sim_shared_wait(CUevent e, CUstream s)
{
	struct sim_cmd cmd = { .kind = SIM_WAIT_WORD,
			       .word = { .address = (uintptr_t)&e->shared->done,
					 .value = e->shared->recorded,
					 .cond = SIM_GEQ,
					 .bytes = 8 } };

	return sim_shared_done(e) ? CUDA_SUCCESS : sim_push(s, &cmd, NULL, 0, NULL);
}

bool sim_shared_done(CUevent e)
{
	return e->shared->done >= e->shared->recorded;
}

CUresult cuIpcGetEventHandle(CUipcEventHandle_v1 *ret, CUevent e)
{
	struct mem_handle h = { EVENT_MAGIC, getpid(), -1, 0, 0, 0 };
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (r)
		return r;
	if (!e || e->tag != SIM_TAG_EVENT)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!ret || !e->shared)
		return CUDA_ERROR_INVALID_VALUE;
	h.fd = e->fd;
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, &h, sizeof(h));
	return CUDA_SUCCESS;
}

CUresult cuIpcOpenEventHandle(CUevent *ret, CUipcEventHandle_v1 handle)
{
	struct mem_handle h;
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);
	void *p;
	int fd;

	if (r)
		return r;
	memcpy(&h, &handle, sizeof(h));
	if (!ret || h.magic != EVENT_MAGIC || h.pid <= 0 || h.fd < 0 || h.pid == getpid())
		return CUDA_ERROR_INVALID_VALUE;
	fd = sim_fd_of(h.pid, h.fd);
	p = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	if (p == MAP_FAILED || ((struct sim_shared_event *)p)->magic != EVENT_MAGIC) {
		if (p != MAP_FAILED)
			munmap(p, 4096);
		return CUDA_ERROR_INVALID_VALUE;
	}
	r = sim_event_make(ctx, CU_EVENT_DISABLE_TIMING, ret);
	if (r) {
		munmap(p, 4096);
		return r;
	}
	(*ret)->shared = p;
	(*ret)->fd = -1;
	return CUDA_SUCCESS;
}
