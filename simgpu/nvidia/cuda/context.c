/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts: the primary one of each device, those that a program makes, and which one a thread's calls go
 * to.
 */
#include "simgpu/nvidia/cuda/mem.h"

#include <stdlib.h>
#include <string.h>

#define CONTEXTS_MAX (SIM_OWNER_POOL - 1)
#define REUSE_AFTER 1024u /* so many destroyed contexts are remembered: their handles are known to be stale */

_Thread_local struct sim_thread sim_self __attribute__((tls_model("initial-exec")));

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static CUcontext by_slot[CONTEXTS_MAX + 1];
static uint32_t slots; /* used, from 1 on */
static CUcontext dead_first, dead_last; /* oldest first */
static uint32_t dead;
static _Atomic uint64_t next_id = 1;
static pthread_mutex_t parts_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_key_t thread_key;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;

/* ---- threads ---- */

static void thread_end(void *unused)
{
	(void)unused;
	sim_thread_streams_end();
	sim_heap_thread_end();
	free(sim_self.below);
	memset(&sim_self, 0, sizeof(sim_self));
}

static void make_thread_key(void)
{
	pthread_key_create(&thread_key, thread_end);
}

void sim_thread_register(void)
{
	if (sim_self.registered)
		return;
	sim_self.registered = true;
	pthread_once(&thread_once, make_thread_key);
	pthread_setspecific(thread_key, &sim_self);
}

CUresult sim_no_context(void)
{
	CUresult r = sim_ready();

	return r ? r : CUDA_ERROR_INVALID_CONTEXT;
}

/* The first sticky error stays what it was. */
CUresult sim_context_broken(CUcontext ctx)
{
	CUresult none = CUDA_SUCCESS, r = sim_result(sim_context_status(ctx->sim));

	if (r)
		atomic_compare_exchange_strong(&ctx->broken, &none, r);
	return ctx->broken;
}

CUresult sim_context_check(CUcontext ctx)
{
	if (!ctx || ctx->tag != SIM_TAG_CONTEXT)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (ctx->broken)
		return ctx->broken;
	return ctx->sim && sim_context_status(ctx->sim) ? sim_context_broken(ctx) : CUDA_SUCCESS;
}

CUcontext sim_context_by_slot(uint32_t slot)
{
	return slot <= CONTEXTS_MAX ? by_slot[slot] : NULL;
}

/* ---- life ---- */

static CUcontext take_struct(void)
{
	CUcontext ctx = NULL;

	pthread_mutex_lock(&all_lock);
	if (dead > REUSE_AFTER || slots == CONTEXTS_MAX) {
		ctx = dead_first;
		if (ctx) {
			dead_first = ctx->next;
			if (!dead_first)
				dead_last = NULL;
			dead--;
		}
	} else {
		ctx = calloc(1, sizeof(*ctx));
		if (ctx) {
			ctx->slot = ++slots;
			by_slot[ctx->slot] = ctx;
			pthread_mutex_init(&ctx->lock, NULL);
		}
	}
	pthread_mutex_unlock(&all_lock);
	return ctx;
}

static void drop_struct(CUcontext ctx)
{
	pthread_mutex_lock(&all_lock);
	ctx->next = NULL;
	if (dead_last)
		dead_last->next = ctx;
	else
		dead_first = ctx;
	dead_last = ctx;
	dead++;
	pthread_mutex_unlock(&all_lock);
}

static void set_defaults(CUcontext ctx)
{
	memset(ctx->limit, 0, sizeof(ctx->limit));
	ctx->limit[CU_LIMIT_STACK_SIZE] = 1024;
	ctx->limit[CU_LIMIT_PRINTF_FIFO_SIZE] = 1048576;
	ctx->limit[CU_LIMIT_MALLOC_HEAP_SIZE] = 8388608;
	ctx->limit[CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH] = 2;
	ctx->limit[CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT] = 2048;
	ctx->limit[CU_LIMIT_MAX_L2_FETCH_GRANULARITY] = 64;
	ctx->cache_config = CU_FUNC_CACHE_PREFER_NONE;
	ctx->bank_config = CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE;
	ctx->peers = 0;
}

/* Brings a struct to life: on the device first, since that may fail. */
static CUresult start(CUcontext ctx, CUcontext root, struct sim_device *d, uint32_t units, uint32_t flags,
		      uint32_t api)
{
	CUresult r;

	ctx->sim = root ? root->sim : NULL;
	if (!sim_driver.null && !root) {
		int e = sim_context_create(sim_driver.server, (unsigned)d->id, &ctx->sim);

		if (e < 0)
			return sim_result(e);
	}
	ctx->id = atomic_fetch_add(&next_id, 1);
	ctx->device = d;
	ctx->root = root ? root : ctx;
	ctx->flags = flags;
	ctx->api = api;
	ctx->refs = 1;
	ctx->units = units;
	ctx->green = NULL;
	ctx->parts = NULL;
	ctx->streams = NULL;
	ctx->modules = NULL;
	set_defaults(ctx);
	ctx->tag = SIM_TAG_CONTEXT;
	r = sim_stream_make(ctx, CU_STREAM_DEFAULT, 0, &ctx->legacy);
	if (r) {
		if (ctx->sim && !root)
			sim_context_destroy(ctx->sim);
		return r;
	}
	atomic_store(&ctx->broken, CUDA_SUCCESS);
	return CUDA_SUCCESS;
}

static CUresult make(struct sim_device *d, CUcontext root, uint32_t units, uint32_t flags, uint32_t api,
		     CUcontext *ret)
{
	CUcontext ctx = take_struct();
	CUresult r;

	if (!ctx)
		return CUDA_ERROR_OUT_OF_MEMORY;
	ctx->primary = false;
	r = start(ctx, root, d, units, flags, api);
	if (r) {
		atomic_store(&ctx->broken, CUDA_ERROR_CONTEXT_IS_DESTROYED);
		ctx->tag = SIM_TAG_CONTEXT;
		drop_struct(ctx);
		return r;
	}
	*ret = ctx;
	return CUDA_SUCCESS;
}

CUresult sim_context_make(struct sim_device *d, uint32_t flags, uint32_t api, CUcontext *ret)
{
	return make(d, NULL, 0, flags, api, ret);
}

CUresult sim_context_make_part(CUcontext root, uint32_t units, CUcontext *ret)
{
	CUresult r = make(root->device, root, units, root->flags, root->api, ret);

	if (r)
		return r;
	pthread_mutex_lock(&parts_lock);
	(*ret)->next_part = root->parts;
	root->parts = *ret;
	pthread_mutex_unlock(&parts_lock);
	return CUDA_SUCCESS;
}

void sim_context_unmake_part(CUcontext ctx)
{
	pthread_mutex_lock(&parts_lock);
	for (CUcontext *at = &ctx->root->parts; *at; at = &(*at)->next_part)
		if (*at == ctx) {
			*at = ctx->next_part;
			break;
		}
	pthread_mutex_unlock(&parts_lock);
	if (ctx->broken != CUDA_ERROR_CONTEXT_IS_DESTROYED) {
		sim_context_sync(ctx); /* its channels are of a context that lives on */
		sim_context_unmake(ctx);
	}
	if (sim_self.current == ctx)
		sim_self.current = NULL;
	drop_struct(ctx);
}

void sim_context_unmake(CUcontext ctx)
{
	atomic_store(&ctx->broken, CUDA_ERROR_CONTEXT_IS_DESTROYED);
	/* Its green contexts have the device's context in common with it. */
	pthread_mutex_lock(&parts_lock);
	CUcontext parts = ctx->root == ctx ? ctx->parts : NULL;
	if (ctx->root == ctx)
		ctx->parts = NULL;
	pthread_mutex_unlock(&parts_lock);
	for (CUcontext part = parts; part; part = part->next_part)
		atomic_store(&part->broken, CUDA_ERROR_CONTEXT_IS_DESTROYED);
	sim_capture_context_end(ctx);
	if (ctx->sim && ctx->root == ctx)
		sim_context_destroy(ctx->sim); /* what is in its channels is dropped */
	sim_pools_context_end(ctx);
	sim_streams_end(ctx);
	sim_modules_end(ctx);
	sim_memory_context_end(ctx);
	ctx->sim = NULL;
	for (; parts; parts = parts->next_part)
		sim_context_unmake(parts);
}

/* ---- which one is current ---- */

static CUresult push(CUcontext ctx)
{
	struct sim_thread *t = &sim_self;

	if (t->current) {
		if (t->depth == t->room) {
			uint32_t room = t->room ? 2 * t->room : 8;
			CUcontext *more = realloc(t->below, room * sizeof(*more));

			if (!more)
				return CUDA_ERROR_OUT_OF_MEMORY;
			t->below = more;
			t->room = room;
			sim_thread_register();
		}
		t->below[t->depth++] = t->current;
	}
	t->current = ctx;
	return CUDA_SUCCESS;
}

static CUcontext pop(void)
{
	struct sim_thread *t = &sim_self;
	CUcontext was = t->current;

	t->current = t->depth ? t->below[--t->depth] : NULL;
	return was;
}

static CUresult create(CUcontext *ret, uint32_t flags, CUdevice device, uint32_t api)
{
	struct sim_device *d;
	CUcontext ctx;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (!ret || flags & ~(unsigned)CU_CTX_FLAGS_MASK || (flags & CU_CTX_SCHED_MASK) == 3)
		return CUDA_ERROR_INVALID_VALUE;
	r = sim_context_make(d, flags, api, &ctx);
	if (r)
		return r;
	r = push(ctx);
	if (r) {
		sim_context_unmake(ctx);
		drop_struct(ctx);
		return r;
	}
	*ret = ctx;
	return CUDA_SUCCESS;
}

CUresult cuCtxCreate(CUcontext *ret, unsigned int flags, CUdevice device)
{
	return create(ret, flags, device, 3010);
}

CUresult cuCtxCreate_v2(CUcontext *ret, unsigned int flags, CUdevice device)
{
	return create(ret, flags, device, 3020);
}

/* An affinity holds where contexts run at once, as under MPS; elsewhere NVIDIA refuses it. */
static CUresult affinity(CUcontext ctx, const CUexecAffinityParam *p, int n)
{
	if (n == 0)
		return CUDA_SUCCESS;
	if (n != 1 || !p || p->type != CU_EXEC_AFFINITY_TYPE_SM_COUNT || p->param.smCount.val == 0)
		return CUDA_ERROR_INVALID_VALUE;
	if (strcmp(ctx->device->card.mode, "concurrent") != 0)
		return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
	ctx->units = p->param.smCount.val < ctx->device->card.units ? p->param.smCount.val
								    : ctx->device->card.units;
	return CUDA_SUCCESS;
}

CUresult cuCtxCreate_v3(CUcontext *ret, CUexecAffinityParam *params, int n, unsigned int flags,
			CUdevice device)
{
	CUresult r = create(ret, flags, device, 3020);

	if (!r) {
		r = affinity(*ret, params, n);
		if (r)
			cuCtxDestroy_v2(*ret);
	}
	return r;
}

CUresult cuCtxCreate_v4(CUcontext *ret, CUctxCreateParams *params, unsigned int flags, CUdevice device)
{
	if (params && params->cigParams)
		return CUDA_ERROR_NOT_SUPPORTED;
	return cuCtxCreate_v3(ret, params ? params->execAffinityParams : NULL,
			      params ? params->numExecAffinityParams : 0, flags, device);
}

CUresult cuCtxDestroy_v2(CUcontext ctx)
{
	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!ctx || ctx->tag != SIM_TAG_CONTEXT || ctx->primary || ctx->root != ctx)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (ctx->broken == CUDA_ERROR_CONTEXT_IS_DESTROYED)
		return CUDA_ERROR_CONTEXT_IS_DESTROYED;
	sim_context_unmake(ctx);
	if (sim_self.current == ctx)
		pop();
	drop_struct(ctx);
	return CUDA_SUCCESS;
}

CUresult cuCtxDestroy(CUcontext ctx)
{
	return cuCtxDestroy_v2(ctx);
}

CUresult cuCtxAttach(CUcontext *ret, unsigned int flags)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (r)
		return r;
	if (!ret || flags)
		return CUDA_ERROR_INVALID_VALUE;
	ctx->refs++;
	*ret = ctx;
	return CUDA_SUCCESS;
}

CUresult cuCtxDetach(CUcontext ctx)
{
	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!ctx || ctx->tag != SIM_TAG_CONTEXT || ctx != sim_self.current)
		return CUDA_ERROR_INVALID_CONTEXT;
	return --ctx->refs ? CUDA_SUCCESS : cuCtxDestroy_v2(ctx);
}

CUresult cuCtxPushCurrent_v2(CUcontext ctx)
{
	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!ctx || ctx->tag != SIM_TAG_CONTEXT)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (ctx->broken == CUDA_ERROR_CONTEXT_IS_DESTROYED)
		return CUDA_ERROR_CONTEXT_IS_DESTROYED;
	return push(ctx);
}

CUresult cuCtxPushCurrent(CUcontext ctx)
{
	return cuCtxPushCurrent_v2(ctx);
}

CUresult cuCtxPopCurrent_v2(CUcontext *ret)
{
	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!sim_self.current)
		return CUDA_ERROR_INVALID_CONTEXT;

	CUcontext was = pop();

	if (ret)
		*ret = was;
	return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext *ret)
{
	return cuCtxPopCurrent_v2(ret);
}

CUresult cuCtxSetCurrent(CUcontext ctx)
{
	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!ctx) {
		if (sim_self.current)
			pop();
		return CUDA_SUCCESS;
	}
	if (ctx->tag != SIM_TAG_CONTEXT)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (ctx->broken == CUDA_ERROR_CONTEXT_IS_DESTROYED)
		return CUDA_ERROR_CONTEXT_IS_DESTROYED;
	sim_self.current = ctx;
	return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *ret)
{
	if (sim_ready())
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!ret)
		return CUDA_ERROR_INVALID_VALUE;
	*ret = sim_self.current;
	return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice_v2(CUdevice *device, CUcontext ctx)
{
	CUresult r = ctx ? sim_context_check(ctx) : sim_enter(&ctx);

	if (!r && !device)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*device = ctx->device->id;
	return r;
}

CUresult cuCtxGetDevice(CUdevice *device)
{
	return cuCtxGetDevice_v2(device, NULL);
}

CUresult cuCtxSynchronize_v2(CUcontext ctx)
{
	CUresult r = ctx ? sim_context_check(ctx) : sim_enter(&ctx);

	if (!r && SIM_UNLIKELY(sim_driver.captures)) {
		r = sim_capture_conflict_context(ctx);
		if (!r)
			r = sim_unsafe();
	}
	return r ? r : sim_context_sync(ctx);
}

CUresult cuCtxSynchronize(void)
{
	return cuCtxSynchronize_v2(NULL);
}

/* ---- the primary one ---- */

CUresult cuDevicePrimaryCtxRetain(CUcontext *ret, CUdevice device)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (!ret)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&d->lock);
	if (!d->primary) {
		CUcontext ctx = take_struct();

		if (ctx) {
			ctx->primary = true;
			atomic_store(&ctx->broken, CUDA_ERROR_CONTEXT_IS_DESTROYED);
			ctx->tag = SIM_TAG_CONTEXT;
		}
		d->primary = ctx;
	}
	r = d->primary ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	if (!r && d->primary->broken == CUDA_ERROR_CONTEXT_IS_DESTROYED)
		r = start(d->primary, NULL, d, 0, d->primary_flags, 3020);
	if (!r) {
		d->primary_refs++;
		*ret = d->primary;
	}
	pthread_mutex_unlock(&d->lock);
	return r;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	pthread_mutex_lock(&d->lock);
	if (d->primary_refs == 0)
		r = CUDA_ERROR_INVALID_CONTEXT;
	else if (--d->primary_refs == 0 && d->primary->broken != CUDA_ERROR_CONTEXT_IS_DESTROYED)
		sim_context_unmake(d->primary);
	pthread_mutex_unlock(&d->lock);
	return r;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device)
{
	return cuDevicePrimaryCtxRelease_v2(device);
}

/* Whoever retained it keeps the handle; the next retain brings it to life again. */
CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	pthread_mutex_lock(&d->lock);
	if (d->primary && d->primary->broken != CUDA_ERROR_CONTEXT_IS_DESTROYED)
		sim_context_unmake(d->primary);
	d->primary_refs = 0;
	d->primary_flags = 0;
	pthread_mutex_unlock(&d->lock);
	return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxReset(CUdevice device)
{
	return cuDevicePrimaryCtxReset_v2(device);
}

CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned int flags)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (flags & ~(unsigned)CU_CTX_FLAGS_MASK || (flags & CU_CTX_SCHED_MASK) == 3)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&d->lock);
	d->primary_flags = flags;
	if (d->primary)
		d->primary->flags = flags;
	pthread_mutex_unlock(&d->lock);
	return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned int flags)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	/* Before 11.0 flags could not be changed any more once it was there. */
	if (!r && d->primary_refs && flags != d->primary_flags)
		return CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE;
	return r ? r : cuDevicePrimaryCtxSetFlags_v2(device, flags);
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active)
{
	struct sim_device *d;
	CUresult r = sim_device_get(device, &d);

	if (r)
		return r;
	if (!flags || !active)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&d->lock);
	*flags = d->primary_flags;
	*active = d->primary && d->primary->broken != CUDA_ERROR_CONTEXT_IS_DESTROYED;
	pthread_mutex_unlock(&d->lock);
	return CUDA_SUCCESS;
}
