/* SPDX-License-Identifier: Apache-2.0 */
#include "driver.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct fake fake;
struct pen_cu_table pen_cu_real;
_Thread_local struct pen_cu_thread pen_cu_thread __attribute__((tls_model("initial-exec")));

struct fctx { bool gone; struct fstream *legacy; };
struct item { struct item *next; uint64_t dur_ns; struct fevent *event; const _Atomic uint32_t *word; uint32_t value; };
struct fstream {
	struct fctx *ctx;
	uint64_t end_ns;                 /* of what is in it, by the clock */
	unsigned int flags;
	int priority;
	bool blocked;                    /* behind a wait that the test ends; what comes is kept */
	bool capturing;
	struct item *first, *last;
};
struct fevent { struct fctx *ctx; struct fstream *stream; bool own, captured, pending; uint64_t stamp_ns; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t device_end_ns;
static struct fstream *capture_origin;
static pthread_t capture_thread;
static CUstreamCaptureMode capture_mode;
static struct fstream *joined[8];
static unsigned njoined;
static _Thread_local struct fctx *current;
static _Thread_local struct fstream *own_stream;
static _Thread_local CUstreamCaptureMode thread_mode;
static _Thread_local const void *using;  /* stream that this thread's last call of the application was for */

static struct pen_cu_device *device;   /* a new one each time: the watcher may still look at the last one */
static struct pen_gate *gate;
static struct fake_board *board;

/* What the driver makes lasts as long as the process, so that a test can tell what is used after its end. Known to leak checkers. */
static void *made(size_t n)
{
	static struct kept { struct kept *_Atomic next; max_align_t data[]; } *_Atomic all;
	struct kept *k = calloc(1, sizeof(*k) + n), *head = atomic_load(&all);
	atomic_fetch_add(&fake.kept_bytes, malloc_usable_size(k) + sizeof(size_t));
	do
		atomic_store(&k->next, head);
	while (!atomic_compare_exchange_weak(&all, &head, k));
	return k->data;
}

/* ---- streams and time ------------------------------------------------------------------------------------------- */

static struct fstream *resolve(CUstream s, bool per_thread)
{
	if (!s)
		s = per_thread ? CU_STREAM_PER_THREAD : CU_STREAM_LEGACY;
	if (s == CU_STREAM_LEGACY)
		return current ? current->legacy : NULL;
	if (s != CU_STREAM_PER_THREAD)
		return (struct fstream *)(void *)s;
	if (!own_stream && current) {
		own_stream = made(sizeof(*own_stream));
		own_stream->ctx = current;
	}
	return own_stream;
}

static void run_item(struct fstream *s, uint64_t dur_ns, struct fevent *e)
{
	uint64_t now = pen_mono_ns();
	uint64_t start = PEN_MAX(s->end_ns, now);
	if (dur_ns) {
		start = PEN_MAX(start, device_end_ns);
		device_end_ns = start + dur_ns;
		atomic_fetch_add(&fake.busy_ns, dur_ns);
		if (device_end_ns - now > atomic_load(&fake.longest_ahead_ns))
			atomic_store(&fake.longest_ahead_ns, device_end_ns - now);
	}
	s->end_ns = start + dur_ns;
	if (e) {
		e->stamp_ns = s->end_ns;
		e->pending = false;
	}
}

/* What stood behind a wait for a word goes when the word has come. Lock held. */
static void advance(struct fstream *s)
{
	while (s->first && !s->blocked) {
		struct item *i = s->first;
		if (i->word && (int32_t)(atomic_load(i->word) - i->value) < 0)
			return;
		s->first = i->next;
		if (!s->first)
			s->last = NULL;
		if (!i->word)
			run_item(s, i->dur_ns, i->event);
		free(i);
	}
}

/* Lock held. */
static void keep(struct fstream *s, const struct item *what)
{
	struct item *i = calloc(1, sizeof(*i));
	*i = *what;
	if (i->event)
		i->event->pending = true;
	if (i->event)
		i->event->stream = s;
	if (s->last)
		s->last->next = i;
	else
		s->first = i;
	s->last = i;
}

static CUresult enqueue(struct fstream *s, uint64_t dur_ns, struct fevent *e)
{
	if (!s)
		return CUDA_ERROR_INVALID_CONTEXT;
	pthread_mutex_lock(&lock);
	if (s->capturing) {
		atomic_fetch_add(&fake.captured, 1);
		if (e)
			e->captured = true;
		if (e && e->own)
			atomic_fetch_add(&fake.captured_own, 1);
	} else if (advance(s), s->blocked || s->first) {
		keep(s, &(struct item){ .dur_ns = dur_ns, .event = e });
	} else {
		run_item(s, dur_ns, e);
	}
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

int fake_priority(CUstream s)
{
	return resolve(s, false)->priority;
}

void fake_hold(CUstream id)
{
	pthread_mutex_lock(&lock);
	resolve(id, false)->blocked = true;
	pthread_mutex_unlock(&lock);
}

void fake_unblock(CUstream id)
{
	struct fstream *s = resolve(id, false);
	pthread_mutex_lock(&lock);
	s->blocked = false;
	advance(s);
	pthread_mutex_unlock(&lock);
}

static void sleep_until(uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / PEN_S), (long)(ns % PEN_S) };
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static CUresult wait_stream(struct fstream *s)
{
	for (;;) {
		pthread_mutex_lock(&lock);
		advance(s);
		bool blocked = s->blocked || s->first, capturing = s->capturing;
		uint64_t end = s->end_ns;
		pthread_mutex_unlock(&lock);
		if (capturing) {
			atomic_fetch_add(&fake.blocked_in_capture, 1);
			return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
		}
		if (!blocked && pen_mono_ns() >= end)
			return CUDA_SUCCESS;
		sleep_until(blocked ? pen_mono_ns() + 200000 : end);
	}
}

/* A call that a thread must not make while another has a global capture open, unless it said that it means it. */
static void unsafe(void)
{
	pthread_mutex_lock(&lock);
	if (capture_origin && capture_mode == CU_STREAM_CAPTURE_MODE_GLOBAL && thread_mode != CU_STREAM_CAPTURE_MODE_RELAXED)
		atomic_fetch_add(&fake.invalidated, 1);
	pthread_mutex_unlock(&lock);
}

/* ---- entry points ------------------------------------------------------------------------------------------------ */

#define COUNT(symbol) atomic_fetch_add(&fake.calls[FAKE_##symbol], 1)

/* Rows that are not written out: any arguments, success. One each, for they must be told apart. */
#define PEN_CU(symbol, family, since, thread, class, types)                \
	static CUresult any_##symbol(void)                                 \
	{                                                                  \
		COUNT(symbol);                                             \
		return CUDA_SUCCESS;                                       \
	}
#include "api/cuda.def"

static CUresult f_cuCtxGetCurrent(CUcontext *c)
{
	*c = (CUcontext)(void *)current;
	return CUDA_SUCCESS;
}

static CUresult f_cuCtxPushCurrent_v2(CUcontext c)
{
	current = (struct fctx *)(void *)c;   /* one deep is all that is needed here */
	return CUDA_SUCCESS;
}

static CUresult f_cuCtxPopCurrent_v2(CUcontext *c)
{
	*c = (CUcontext)(void *)current;
	current = NULL;
	return CUDA_SUCCESS;
}

static struct fctx *primary;

static CUresult f_cuDevicePrimaryCtxGetState(CUdevice dev, unsigned int *flags, int *active)
{
	(void)dev;
	*flags = 0;
	*active = primary != NULL;
	return CUDA_SUCCESS;
}

static CUresult f_cuDevicePrimaryCtxRetain(CUcontext *c, CUdevice dev)
{
	(void)dev;
	*c = (CUcontext)(void *)primary;
	return CUDA_SUCCESS;
}

static CUresult f_cuCtxDestroy_v2(CUcontext c)
{
	COUNT(cuCtxDestroy_v2);
	((struct fctx *)(void *)c)->gone = true;
	return CUDA_SUCCESS;
}

static CUresult f_cuStreamCreate(CUstream *out, unsigned int flags)
{
	struct fstream *s = made(sizeof(*s));
	s->ctx = current;
	s->flags = flags;
	*out = (CUstream)(void *)s;
	return CUDA_SUCCESS;
}

static CUresult f_cuStreamCreateWithPriority(CUstream *out, unsigned int flags, int priority)
{
	f_cuStreamCreate(out, flags);
	((struct fstream *)(void *)*out)->priority = priority;
	return CUDA_SUCCESS;
}

static CUresult f_cuStreamDestroy_v2(CUstream s)
{
	COUNT(cuStreamDestroy_v2);
	(void)s;   /* kept: a mark may still be looked at, and a test may look whether one was put in */
	return CUDA_SUCCESS;
}

static CUresult f_cuStreamGetFlags(CUstream s, unsigned int *flags)
{
	*flags = resolve(s, false)->flags;
	return CUDA_SUCCESS;
}

static CUresult f_cuStreamGetCtx(CUstream s, CUcontext *c)
{
	*c = (CUcontext)(void *)resolve(s, false)->ctx;
	return CUDA_SUCCESS;
}

static CUresult f_cuStreamGetPriority(CUstream s, int *priority)
{
	*priority = resolve(s, false)->priority;
	return CUDA_SUCCESS;
}

static CUresult f_cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
	*least = 0;
	*greatest = -5;
	return CUDA_SUCCESS;
}

static CUresult f_cuStreamIsCapturing(CUstream s, CUstreamCaptureStatus *status)
{
	pthread_mutex_lock(&lock);
	*status = resolve(s, false)->capturing ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

static CUresult f_cuStreamBeginCapture_v2(CUstream s, CUstreamCaptureMode mode)
{
	CUresult r = CUDA_SUCCESS;
	pthread_mutex_lock(&lock);
	struct fstream *f = resolve(s, false);
	if (f->capturing) {
		r = CUDA_ERROR_ILLEGAL_STATE;
	} else {
		f->capturing = true;
		capture_origin = f;
		capture_thread = pthread_self();
		capture_mode = mode;
		njoined = 0;
	}
	pthread_mutex_unlock(&lock);
	return r;
}

static CUresult f_cuStreamEndCapture(CUstream s, CUgraph *graph)
{
	CUresult r = CUDA_ERROR_ILLEGAL_STATE;
	pthread_mutex_lock(&lock);
	if (resolve(s, false) == capture_origin && capture_origin) {
		capture_origin->capturing = false;
		for (unsigned i = 0; i < njoined; i++)
			joined[i]->capturing = false;
		capture_origin = NULL;
		*graph = (CUgraph)(void *)&fake;
		r = CUDA_SUCCESS;
	}
	pthread_mutex_unlock(&lock);
	return r;
}

static CUresult f_cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
	CUstreamCaptureMode was = thread_mode;
	thread_mode = *mode;
	*mode = was;
	return CUDA_SUCCESS;
}

static CUresult f_cuEventCreate(CUevent *out, unsigned int flags)
{
	struct fevent *e = made(sizeof(*e));
	(void)flags;
	unsafe();
	e->ctx = current;
	e->own = pen_cu_thread.depth != 0;
	if (e->own)
		atomic_fetch_add(&fake.own_events, 1);
	*out = (CUevent)(void *)e;
	return CUDA_SUCCESS;
}

static struct fevent *event(CUevent id)
{
	struct fevent *e = (struct fevent *)(void *)id;
	if (e->ctx->gone)
		atomic_fetch_add(&fake.dead_events, 1);
	return e;
}

static CUresult f_cuEventDestroy_v2(CUevent id)
{
	struct fevent *e = event(id);
	if (e->own)
		atomic_fetch_sub(&fake.own_events, 1);
	return CUDA_SUCCESS;
}

static CUresult record(CUevent id, CUstream stream, bool per_thread)
{
	struct fevent *e = event(id);
	struct fstream *s = resolve(stream, per_thread);
	if (!s || s->ctx != e->ctx)
		return CUDA_ERROR_INVALID_HANDLE;
	if (e->own)
		atomic_fetch_add(&fake.own_records, 1);
	if (e->own && s == s->ctx->legacy && using != s)
		atomic_fetch_add(&fake.barriers, 1);
	return enqueue(s, 0, e);
}

static CUresult f_cuEventRecord(CUevent id, CUstream stream)
{
	return record(id, stream, false);
}

static CUresult f_cuEventQuery(CUevent id)
{
	struct fevent *e = event(id);
	unsafe();
	if (e->captured)
		return CUDA_ERROR_CAPTURED_EVENT;
	pthread_mutex_lock(&lock);
	if (e->pending)
		advance(e->stream);
	bool done = !e->pending && pen_mono_ns() >= e->stamp_ns;
	pthread_mutex_unlock(&lock);
	return done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

static CUresult f_cuEventSynchronize(CUevent id)
{
	CUresult r;
	while ((r = f_cuEventQuery(id)) == CUDA_ERROR_NOT_READY)
		sleep_until(pen_mono_ns() + 100000);
	return r;
}

static CUresult f_cuEventElapsedTime(float *ms, CUevent a, CUevent b)
{
	struct fevent *x = event(a), *y = event(b);
	if (x->pending || y->pending || pen_mono_ns() < y->stamp_ns)
		return CUDA_ERROR_NOT_READY;
	*ms = (float)((double)(int64_t)(y->stamp_ns - x->stamp_ns) / 1e6);
	return CUDA_SUCCESS;
}

static CUresult f_cuStreamSynchronize(CUstream s)
{
	return wait_stream(resolve(s, false));
}

static CUresult f_cuStreamSynchronize_ptsz(CUstream s)
{
	return wait_stream(resolve(s, true));
}

static CUresult f_cuStreamQuery(CUstream s)
{
	struct fstream *f = resolve(s, false);
	pthread_mutex_lock(&lock);
	advance(f);
	bool done = !f->blocked && !f->first && pen_mono_ns() >= f->end_ns;
	pthread_mutex_unlock(&lock);
	return done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

static CUresult f_cuCtxSynchronize(void)
{
	sleep_until(device_end_ns);
	return CUDA_SUCCESS;
}

static CUresult f_cuStreamWaitEvent(CUstream s, CUevent id, unsigned int flags)
{
	struct fevent *e = event(id);
	struct fstream *f = resolve(s, false);
	(void)flags;
	pthread_mutex_lock(&lock);
	if (e->captured && !f->capturing && njoined < 8) {
		f->capturing = true;
		joined[njoined++] = f;
	}
	if (e->pending)
		f->blocked = true;
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

static CUresult f_cuStreamWaitValue32(CUstream s, CUdeviceptr address, uint32_t value, unsigned int flags)
{
	(void)address, (void)value, (void)flags;
	resolve(s, false)->blocked = true;
	return CUDA_SUCCESS;
}

static CUresult f_cuStreamWaitValue32_v2(CUstream stream, CUdeviceptr address, uint32_t value, unsigned int flags)
{
	struct fstream *s = resolve(stream, false);
	assert_int_equal(flags, CU_STREAM_WAIT_VALUE_GEQ);
	COUNT(cuStreamWaitValue32_v2);
	if (!pen_cu_thread.depth)
		return f_cuStreamWaitValue32(stream, address, value, flags);
	pthread_mutex_lock(&lock);
	if (s->capturing)
		atomic_fetch_add(&fake.captured_own, 1);
	else
		keep(s, &(struct item){ .word = (const _Atomic uint32_t *)(uintptr_t)address, .value = value });
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

static CUresult f_cuMemHostAlloc(void **out, size_t n, unsigned int flags)
{
	(void)flags;
	unsafe();
	*out = made(n);
	return CUDA_SUCCESS;
}

static CUresult f_cuMemHostGetDevicePointer_v2(CUdeviceptr *out, void *p, unsigned int flags)
{
	(void)flags;
	*out = (CUdeviceptr)(uintptr_t)p;
	return CUDA_SUCCESS;
}

static CUresult launch(CUfunction f, CUstream s, bool per_thread)
{
	const struct fake_fn *fn = (const struct fake_fn *)(const void *)f;
	return enqueue(resolve(s, per_thread), fn->dur_ns, NULL);
}

#define KERNEL_PARAMS                                                                                                     \
	(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz,\
	 unsigned int shared, CUstream s, void **params, void **extra)
static CUresult f_cuLaunchKernel KERNEL_PARAMS
{
	(void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared, (void)params, (void)extra;
	COUNT(cuLaunchKernel);
	return launch(f, s, false);
}

static CUresult f_cuLaunchKernel_ptsz KERNEL_PARAMS
{
	(void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared, (void)params, (void)extra;
	COUNT(cuLaunchKernel_ptsz);
	return launch(f, s, true);
}

static CUresult f_cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction f, void **params, void **extra)
{
	(void)params, (void)extra;
	COUNT(cuLaunchKernelEx);
	fake.launch_priority = 99;
	for (unsigned i = 0; i < c->numAttrs; i++)
		if (c->attrs[i].id == CU_LAUNCH_ATTRIBUTE_PRIORITY)
			fake.launch_priority = c->attrs[i].value.priority;
	return f ? launch(f, c->hStream, false) : CUDA_SUCCESS;
}

static CUresult f_cuStreamSetAttribute(CUstream s, CUstreamAttrID id, const CUstreamAttrValue_v1 *v)
{
	COUNT(cuStreamSetAttribute);
	if (id == CU_LAUNCH_ATTRIBUTE_PRIORITY)
		resolve(s, false)->priority = v->priority;
	return CUDA_SUCCESS;
}

static CUresult f_cuStreamGetAttribute(CUstream s, CUstreamAttrID id, CUstreamAttrValue_v1 *v)
{
	COUNT(cuStreamGetAttribute);
	if (id == CU_LAUNCH_ATTRIBUTE_PRIORITY)
		v->priority = resolve(s, false)->priority;
	return CUDA_SUCCESS;
}

static CUresult f_cuGraphLaunch(CUgraphExec exec, CUstream s)
{
	COUNT(cuGraphLaunch);
	return launch((CUfunction)(void *)exec, s, false);   /* a test's graph is a function */
}

struct host { CUhostFn fn; void *user; };
static void *host_main(void *p)
{
	struct host h = *(struct host *)p;
	free(p);
	h.fn(h.user);
	return NULL;
}

/* At once, in a thread of the driver's, which is waited for: as if the stream had come to it. */
static CUresult launch_host(struct fstream *s, CUhostFn fn, void *user)
{
	pthread_t t;
	if (atomic_load(&fake.failed))
		return CUDA_SUCCESS;   /* it had gone into the stream before that */
	struct host *h = malloc(sizeof(*h));
	if (s->capturing) {
		free(h);
		atomic_fetch_add(&fake.captured, 1);
		return CUDA_SUCCESS;
	}
	*h = (struct host){ fn, user };
	pthread_create(&t, NULL, host_main, h);
	pthread_join(t, NULL);
	return CUDA_SUCCESS;
}

static CUresult f_cuLaunchHostFunc(CUstream s, CUhostFn fn, void *user)
{
	COUNT(cuLaunchHostFunc);
	return launch_host(resolve(s, false), fn, user);
}

static CUresult f_cuLaunchHostFunc_ptsz(CUstream s, CUhostFn fn, void *user)
{
	COUNT(cuLaunchHostFunc_ptsz);
	return launch_host(resolve(s, true), fn, user);
}

static CUresult move(void *dst, const void *src, size_t n, CUstream stream)
{
	struct fstream *s = resolve(stream, false);
	if (!s->capturing)
		memcpy(dst, src, n);
	return enqueue(s, n * fake.h2d_ns_mib / PEN_MIB, NULL);
}

static CUresult f_cuMemcpyHtoDAsync_v2(CUdeviceptr dst, const void *src, size_t n, CUstream s)
{
	COUNT(cuMemcpyHtoDAsync_v2);
	return move((void *)(uintptr_t)dst, src, n, s);
}

static CUresult f_cuMemcpyDtoHAsync_v2(void *dst, CUdeviceptr src, size_t n, CUstream s)
{
	COUNT(cuMemcpyDtoHAsync_v2);
	return move(dst, (const void *)(uintptr_t)src, n, s);
}

static CUresult f_cuMemcpyDtoH_v2(void *dst, CUdeviceptr src, size_t n)
{
	COUNT(cuMemcpyDtoH_v2);
	CUresult r = move(dst, (const void *)(uintptr_t)src, n, NULL);
	return r ? r : wait_stream(resolve(NULL, false));
}

static CUresult f_cuMemsetD32Async(CUdeviceptr dst, unsigned int value, size_t n, CUstream s)
{
	COUNT(cuMemsetD32Async);
	for (size_t i = 0; i < n; i++)
		((uint32_t *)(uintptr_t)dst)[i] = value;
	return enqueue(resolve(s, false), n * 4 * fake.h2d_ns_mib / PEN_MIB, NULL);
}

static CUresult f_cuPointerGetAttribute(void *value, CUpointer_attribute what, CUdeviceptr p)
{
	(void)p, (void)what;
	*(unsigned int *)value = CU_MEMORYTYPE_DEVICE;
	return CUDA_SUCCESS;
}

static CUresult f_cuDeviceGetAttribute(int *value, CUdevice_attribute what, CUdevice dev)
{
	(void)dev;
	*value = what == CU_DEVICE_ATTRIBUTE_MPS_ENABLED ? 0 : 1024;
	return CUDA_SUCCESS;
}

static CUresult f_cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *n)
{
	(void)graph, (void)nodes;
	*n = 10;
	return CUDA_SUCCESS;
}

static void table_fill(void)
{
#define PEN_CU(symbol, family, since, thread, class, types) \
	pen_cu_real.symbol = (__typeof__(pen_cu_real.symbol))(void (*)(void))any_##symbol;
#include "api/cuda.def"
#define IS(symbol) pen_cu_real.symbol = f_##symbol
	IS(cuCtxGetCurrent), IS(cuCtxPushCurrent_v2), IS(cuCtxPopCurrent_v2), IS(cuCtxDestroy_v2), IS(cuStreamCreate);
	IS(cuStreamCreateWithPriority), IS(cuStreamDestroy_v2), IS(cuStreamGetFlags), IS(cuStreamGetCtx), IS(cuStreamIsCapturing);
	IS(cuStreamGetPriority), IS(cuCtxGetStreamPriorityRange);
	IS(cuStreamBeginCapture_v2), IS(cuStreamEndCapture), IS(cuThreadExchangeStreamCaptureMode), IS(cuEventCreate);
	IS(cuEventDestroy_v2), IS(cuEventRecord), IS(cuEventQuery), IS(cuEventSynchronize), IS(cuEventElapsedTime);
	IS(cuStreamSynchronize), IS(cuStreamSynchronize_ptsz), IS(cuStreamQuery), IS(cuCtxSynchronize), IS(cuStreamWaitEvent);
	IS(cuStreamWaitValue32), IS(cuLaunchKernel), IS(cuLaunchKernel_ptsz), IS(cuGraphLaunch), IS(cuLaunchHostFunc), IS(cuLaunchHostFunc_ptsz);
	IS(cuMemcpyHtoDAsync_v2), IS(cuMemcpyDtoHAsync_v2), IS(cuMemcpyDtoH_v2), IS(cuMemsetD32Async), IS(cuPointerGetAttribute);
	IS(cuDevicePrimaryCtxGetState), IS(cuDevicePrimaryCtxRetain);
	IS(cuLaunchKernelEx), IS(cuStreamSetAttribute), IS(cuStreamGetAttribute);
	IS(cuDeviceGetAttribute), IS(cuGraphGetNodes), IS(cuStreamWaitValue32_v2), IS(cuMemHostAlloc), IS(cuMemHostGetDevicePointer_v2);
}

/* ---- what the shim's other half would give ------------------------------------------------------------------------ */

struct pen_cu_device *pen_cu_device_current(void)
{
	return current ? device : NULL;
}

int pen_cu_driver_version(void)
{
	return 12000;   /* no green contexts: units are tested on the stand-in driver (../test_units.c) */
}

struct pen_cu_device *pen_cu_device(CUdevice id)
{
	return id == device->id ? device : NULL;
}

struct pen_gate *pen_cu_gate(struct pen_cu_device *d)
{
	return d->gate;
}

void pen_cu_mem_context_ends(CUcontext c, struct pen_cu_ending *ret)
{
	*ret = (struct pen_cu_ending){ .ctx = c };
}

void pen_cu_mem_primary_ends(struct pen_cu_device *d, CUcontext c, struct pen_cu_ending *ret)
{
	*ret = (struct pen_cu_ending){ .ctx = c, .device = d };
}

void pen_cu_mem_context_ended(struct pen_cu_ending *e, bool gone)
{
	(void)e;
	(void)gone;
}

CUresult pen_cu_mem_graph_runs(CUgraphExec exec)
{
	(void)exec;
	return CUDA_SUCCESS;
}

void pen_cu_mem_graph_ran(CUgraphExec exec)
{
	(void)exec;
}

void pen_cu_mem_synced(struct pen_cu_device *d)
{
	(void)d;
}

/* ---- for tests ---------------------------------------------------------------------------------------------------- */

/* The watcher of the last gate is done with it. */
static void quiesce(void)
{
	struct pen_cu_gating *g = device ? atomic_load(&device->gating) : NULL;
	for (int i = 0; g && i < 5000 && pen_cu_watched() && atomic_load(&g->watch); i++)
		usleep(1000);
}

void fake_open(struct fake_board *b, uint32_t tenant)
{
	static bool filled;
	quiesce();
	memset(&fake, 0, sizeof(fake));
	fake.h2d_ns_mib = 42000;
	if (!filled)
		table_fill();
	filled = true;
	pen_forklock_setup();
	device = calloc(1, sizeof(*device));
	device_end_ns = 0;
	board = b;
	struct pen_attach_device *d = calloc(1, sizeof(*d));
	fake_board_device(b, tenant, tenant, 0, d);
	struct pen_gate_device want = { .key = "pci:0000:01:00.0", .model = "fake", .mem_bytes = PEN_GIB, .units = 64, .native = device };
	assert_int_equal(pen_gate_open_device(&pen_cu_adapter, &want, d, NULL, &gate), 0);
	device->units = 64;
	device->gate = gate;
	current = NULL;
	own_stream = NULL;
	primary = NULL;
}

struct pen_gate *fake_gate(void)
{
	return gate;
}

struct fake_board *fake_alone(void)
{
	static const uint16_t rank[] = { 0 };
	return fake_board_new(1, rank);
}

void fake_primary(CUcontext c)
{
	primary = (struct fctx *)(void *)c;
}

CUcontext fake_context(void)
{
	struct fctx *c = made(sizeof(*c));
	c->legacy = made(sizeof(*c->legacy));
	c->legacy->ctx = c;
	current = c;
	return (CUcontext)(void *)c;
}

CUstream fake_stream(unsigned int flags)
{
	CUstream s = NULL;
	assert_int_equal(pen_cuStreamCreate(&s, flags), CUDA_SUCCESS);
	return s;
}

CUevent fake_event(void)
{
	CUevent e = NULL;
	assert_int_equal(pen_cu_real.cuEventCreate(&e, 0), CUDA_SUCCESS);
	return e;
}

void fake_uses(CUstream s)
{
	using = resolve(s, false);
}

CUresult fake_launch(CUfunction f, unsigned int grid, CUstream s)
{
	fake_uses(s);
	return pen_cuLaunchKernel(f, grid, 1, 1, 256, 1, 1, 0, s, NULL, NULL);
}

bool fake_is_shut(void)
{
	pen_gate_lock(gate);
	bool shut = gate->devgate.shut;
	pen_gate_unlock(gate);
	return shut;
}

uint32_t fake_busy(void)
{
	return PEN_BUSY_STATE(atomic_load(&gate->dev->signal->busy));
}

void fake_settle(void)
{
	for (int i = 0; i < 5000; i++) {
		pen_gate_lock(gate);
		bool quiet = !gate->nflight;
		pen_gate_unlock(gate);
		if (quiet)
			return;
		usleep(1000);
		pen_gate_watch(gate);
	}
	fail_msg("still in flight: %u batches", gate->nflight);
}

void fake_assert_clean(void)
{
	assert_int_equal(atomic_load(&fake.captured_own), 0);
	assert_int_equal(atomic_load(&fake.invalidated), 0);
	assert_int_equal(atomic_load(&fake.dead_events), 0);
	assert_int_equal(atomic_load(&fake.barriers), 0);
	assert_int_equal(atomic_load(&fake.blocked_in_capture), 0);
	assert_int_equal(atomic_load(&pen_cu_captures), 0);
}
