/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel launches: the hot path. An admitted launch is what the thread remembers of stream and cost, and the gate's one locked
 * operation; everything else is out of line. Host functions run in threads of the driver, which must not be made to wait.
 */
#include "shim/cuda/gating.h"

#include "base/clock.h"

#include <stdlib.h>

#define LIKELY(x) __builtin_expect(!!(x), 1)

/* A kernel of which nothing is known: what inference launches by the hundred takes 2 to 113 us. */
#define WAVE_GUESS_NS UINT64_C(20000)

uint64_t pen_cu_mix(uint64_t a, uint64_t b)
{
	uint64_t h = (a ^ (b + UINT64_C(0x9e3779b97f4a7c15) + (a << 6) + (a >> 2))) * UINT64_C(0xff51afd7ed558ccd);
	return h ^ (h >> 32);
}

/* ---- cost ------------------------------------------------------------------------------------------------------- */

struct shape { uint32_t grid[3], block[3]; };

static uint64_t threads_of(const struct shape *s)
{
	uint64_t n = 1;
	for (unsigned i = 0; i < 3; i++)
		n = n * PEN_MAX(s->grid[i], 1u) * PEN_MAX(s->block[i], 1u);   /* at most 2^31 * 2^32 * 2^10: nobody has that */
	return n;
}

static uint64_t device_threads(struct pen_cu_device *d, struct pen_cu_gating *g)
{
	uint32_t n = atomic_load_explicit(&g->threads, memory_order_relaxed);
	int per_unit = 0;
	if (n)
		return n;
	if (REAL(cuDeviceGetAttribute)(&per_unit, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, d->id) != CUDA_SUCCESS || per_unit < 1)
		per_unit = 1024;
	n = (uint32_t)per_unit * PEN_MAX(d->units, 1u);
	atomic_store_explicit(&g->threads, n, memory_order_relaxed);
	return n;
}

/* How often such a launch fills the device; at least once. */
static uint64_t waves(uint64_t threads, uint64_t per_wave)
{
	return PEN_MAX((threads + per_wave - 1) / per_wave, UINT64_C(1));
}

/*
 * A kernel that was never seen: as long for each filling of the device as those that the thread launched lately. A start-up
 * launches hundreds of kernels for the first time; at a guess of a millisecond each a capped tenant would wait for all.
 */
static uint64_t guess(struct pen_cu_local *l, struct pen_cu_device *d, const struct shape *shape)
{
	struct pen_cu_gating *g = pen_cu_gating(d);
	if (!g)
		return PEN_COST_GUESS_NS;
	uint64_t per_wave = device_threads(d, g), sum = 0, n = 0;
	for (unsigned i = 0; l && i < PEN_CU_COSTS; i++) {
		const struct pen_cu_cost_slot *c = &l->cost[i];
		if (!c->function || !pen_cost_known(c->cost))
			continue;
		struct shape s;
		for (unsigned k = 0; k < 3; k++) {
			s.grid[k] = c->grid[k];
			s.block[k] = c->block[k];
		}
		sum += pen_cost_est_ns(c->cost) / waves(threads_of(&s), per_wave);
		n++;
	}
	uint64_t wave_ns = n ? sum / n : atomic_load_explicit(&g->wave_ns, memory_order_relaxed);
	if (n)
		atomic_store_explicit(&g->wave_ns, wave_ns, memory_order_relaxed);
	return PEN_MAX(wave_ns ? wave_ns : WAVE_GUESS_NS, PEN_COST_FLOOR_NS) * waves(threads_of(shape), per_wave);
}

static inline struct pen_cu_cost_slot *slot_of(struct pen_cu_local *l, CUfunction f, uint32_t gx, uint32_t gy)
{
	uintptr_t h = ((uintptr_t)f >> 4) ^ ((uintptr_t)f >> 10) ^ gx ^ (gx >> 6) ^ gy * 7;
	return &l->cost[h % PEN_CU_COSTS];
}

static inline bool slot_is(const struct pen_cu_cost_slot *c, const struct pen_gate *g, CUfunction f, uint32_t gx, uint32_t gy,
			   uint32_t gz, uint32_t bx, uint32_t by, uint32_t bz)
{
	return c->function == f && c->gate == g && c->grid[0] == gx && c->grid[1] == gy && c->grid[2] == gz &&
	       c->block[0] == bx && c->block[1] == by && c->block[2] == bz;
}

static struct pen_cost *find_cost(struct pen_cu_local *l, struct pen_cu_stream *s, CUfunction f, const struct shape *k)
{
	struct pen_cu_cost_slot *c = l ? slot_of(l, f, k->grid[0], k->grid[1]) : NULL;
	if (c && slot_is(c, s->gate, f, k->grid[0], k->grid[1], k->grid[2], k->block[0], k->block[1], k->block[2]))
		return c->cost;
	struct pen_cost *cost = pen_gate_cost_guessed(s->gate, pen_cu_mix((uintptr_t)f, 0), threads_of(k), guess(l, s->ctx->device, k));
	if (c) {
		*c = (struct pen_cu_cost_slot){ .function = f, .gate = s->gate, .cost = cost };
		for (unsigned i = 0; i < 3; i++) {
			c->grid[i] = k->grid[i];
			c->block[i] = k->block[i];
		}
	}
	return cost;
}

/* ---- the long way ----------------------------------------------------------------------------------------------- */

typedef CUresult (*kernel_fn)(CUfunction, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int,
			      unsigned int, CUstream, void **, void **);
typedef CUresult (*cooperative_fn)(CUfunction, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int,
				   unsigned int, CUstream, void **);
typedef CUresult (*ex_fn)(const CUlaunchConfig *, CUfunction, void **, void **);

struct launch {
	struct pen_cu_cmd cmd;
	union {
		kernel_fn kernel;
		cooperative_fn cooperative;
		ex_fn ex;
		CUresult (*plain)(CUfunction);
		CUresult (*grid)(CUfunction, int, int);
		CUresult (*grid_async)(CUfunction, int, int, CUstream);
	} real;
	CUfunction function;
	struct shape shape;
	unsigned int shared_bytes;
	CUstream stream;             /* as the application wrote it */
	void **params, **extra;
	const CUlaunchConfig *config;
};

static CUresult submit(struct launch *l, struct pen_cu_stream *s)
{
	struct pen_gate_cmd g = { .kind = PEN_CMD_KERNEL, .cost = find_cost(pen_cu_local(), s, l->function, &l->shape) };
	l->cmd.stream = s;
	return pen_cu_submit(&l->cmd, &g);
}

static CUresult run_kernel(struct pen_cu_cmd *cmd, const struct pen_piece *p)
{
	struct launch *l = (struct launch *)(void *)cmd;
	(void)p;
	return l->real.kernel(l->function, l->shape.grid[0], l->shape.grid[1], l->shape.grid[2], l->shape.block[0], l->shape.block[1],
			      l->shape.block[2], l->shared_bytes, l->stream, l->params, l->extra);
}

static __attribute__((noinline)) CUresult kernel_slow(struct pen_cu_stream *s, kernel_fn real, CUfunction f, unsigned int gx,
						      unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by,
						      unsigned int bz, unsigned int shared, CUstream stream, void **params, void **extra)
{
	struct launch l = {
		.cmd = { .run = run_kernel }, .real.kernel = real, .function = f, .shape = { { gx, gy, gz }, { bx, by, bz } },
		.shared_bytes = shared, .stream = stream, .params = params, .extra = extra,
	};
	return submit(&l, s);
}

/* May a command of @est_ns go without asking? Not while a stream captures, nor behind a wall. */
static inline bool fast(struct pen_cu_stream *s, uint64_t est_ns)
{
	return !atomic_load_explicit(&pen_cu_captures, memory_order_relaxed) &&
	       !atomic_load_explicit(&s->wall, memory_order_relaxed) && pen_gate_fast(s->queue, est_ns);
}

static __attribute__((noinline)) CUresult kernel_with_priority(int priority, bool per_thread, CUfunction f, unsigned int gx, unsigned int gy,
							       unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz,
							       unsigned int shared, CUstream stream, void **params, void **extra);

static inline __attribute__((always_inline)) CUresult launch_kernel(kernel_fn real, bool per_thread, CUfunction f, unsigned int gx,
								    unsigned int gy, unsigned int gz, unsigned int bx,
								    unsigned int by, unsigned int bz, unsigned int shared,
								    CUstream stream, void **params, void **extra)
{
	if (__builtin_expect(pen_cu_thread.depth, 0))
		return real(f, gx, gy, gz, bx, by, bz, shared, stream, params, extra);
	struct pen_cu_local *l = pen_cu_local();
	struct pen_cu_stream *s = pen_cu_stream_fast(l, stream, per_thread);
	if (__builtin_expect(!s, 0))
		return real(f, gx, gy, gz, bx, by, bz, shared, stream, params, extra);
	if (__builtin_expect(s->launch_priority, 0))
		return kernel_with_priority(s->launch_priority, per_thread, f, gx, gy, gz, bx, by, bz, shared, stream, params, extra);
	if (LIKELY(l)) {
		struct pen_cu_cost_slot *c = slot_of(l, f, gx, gy);
		if (LIKELY(slot_is(c, s->gate, f, gx, gy, gz, bx, by, bz)) && fast(s, pen_cost_est_ns(c->cost))) {
			pen_cu_stream_used(s);
			pen_cu_thread.depth++;
			CUresult r = real(f, gx, gy, gz, bx, by, bz, shared, stream, params, extra);
			pen_cu_thread.depth--;
			return r;
		}
	}
	return kernel_slow(s, real, f, gx, gy, gz, bx, by, bz, shared, stream, params, extra);
}

CUresult pen_cuLaunchKernel(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by,
			    unsigned int bz, unsigned int shared, CUstream stream, void **params, void **extra)
{
	return launch_kernel(REAL(cuLaunchKernel), false, f, gx, gy, gz, bx, by, bz, shared, stream, params, extra);
}

CUresult pen_cuLaunchKernel_ptsz(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by,
				 unsigned int bz, unsigned int shared, CUstream stream, void **params, void **extra)
{
	return launch_kernel(REAL(cuLaunchKernel_ptsz), true, f, gx, gy, gz, bx, by, bz, shared, stream, params, extra);
}

/* ---- launches with attributes ------------------------------------------------------------------------------------ */

static CUresult run_ex(struct pen_cu_cmd *cmd, const struct pen_piece *p)
{
	struct launch *l = (struct launch *)(void *)cmd;
	(void)p;
	return l->real.ex(l->config, l->function, l->params, l->extra);
}

static __attribute__((noinline)) CUresult ex_slow(struct pen_cu_stream *s, ex_fn real, const CUlaunchConfig *c, CUfunction f,
						  void **params, void **extra)
{
	struct launch l = {
		.cmd = { .run = run_ex }, .real.ex = real, .function = f, .config = c, .params = params, .extra = extra,
		.shape = { { c->gridDimX, c->gridDimY, c->gridDimZ }, { c->blockDimX, c->blockDimY, c->blockDimZ } },
	};
	return submit(&l, s);
}

static inline __attribute__((always_inline)) CUresult launch_ex(ex_fn real, bool per_thread, const CUlaunchConfig *c, CUfunction f,
								void **params, void **extra)
{
	if (pen_cu_thread.depth || !c)
		return real(c, f, params, extra);
	struct pen_cu_local *l = pen_cu_local();
	struct pen_cu_stream *s = pen_cu_stream_fast(l, c->hStream, per_thread);
	if (!s)
		return real(c, f, params, extra);
	CUlaunchConfig copy;
	CUlaunchAttribute room[PEN_CU_ATTRIBUTES];
	if (c->numAttrs && pen_cu_priority_launch(s, c, &copy, room))
		c = &copy;
	if (LIKELY(l)) {
		struct pen_cu_cost_slot *k = slot_of(l, f, c->gridDimX, c->gridDimY);
		if (slot_is(k, s->gate, f, c->gridDimX, c->gridDimY, c->gridDimZ, c->blockDimX, c->blockDimY, c->blockDimZ) &&
		    fast(s, pen_cost_est_ns(k->cost))) {
			pen_cu_stream_used(s);
			pen_cu_thread.depth++;
			CUresult r = real(c, f, params, extra);
			pen_cu_thread.depth--;
			return r;
		}
	}
	return ex_slow(s, real, c, f, params, extra);
}

CUresult pen_cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **params, void **extra)
{
	return launch_ex(REAL(cuLaunchKernelEx), false, config, f, params, extra);
}

CUresult pen_cuLaunchKernelEx_ptsz(const CUlaunchConfig *config, CUfunction f, void **params, void **extra)
{
	return launch_ex(REAL(cuLaunchKernelEx_ptsz), true, config, f, params, extra);
}

/* As launch_kernel(), in a default stream where priorities act. What the application asks for itself goes its own way. */
static CUresult kernel_with_priority(int priority, bool per_thread, CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz,
				     unsigned int bx, unsigned int by, unsigned int bz, unsigned int shared, CUstream stream,
				     void **params, void **extra)
{
	CUlaunchAttribute attr = { .id = CU_LAUNCH_ATTRIBUTE_PRIORITY };
	attr.value.priority = priority;
	CUlaunchConfig c = { .gridDimX = gx, .gridDimY = gy, .gridDimZ = gz, .blockDimX = bx, .blockDimY = by, .blockDimZ = bz,
			     .sharedMemBytes = shared, .hStream = stream, .attrs = &attr, .numAttrs = 1 };
	struct pen_cu_stream *s = pen_cu_stream(stream, per_thread);
	ex_fn real = per_thread && REAL(cuLaunchKernelEx_ptsz) ? REAL(cuLaunchKernelEx_ptsz) : REAL(cuLaunchKernelEx);
	if (!s)
		return real(&c, f, params, extra);
	c.hStream = s->id;   /* the same in both forms of the call */
	struct launch l = { .cmd.run = run_ex, .real.ex = real, .function = f, .config = &c, .params = params, .extra = extra,
			    .shape = { { gx, gy, gz }, { bx, by, bz } } };
	struct pen_cost *cost = find_cost(pen_cu_local(), s, f, &l.shape);
	if (!fast(s, pen_cost_est_ns(cost)))
		return submit(&l, s);
	pen_cu_stream_used(s);
	pen_cu_thread.depth++;
	CUresult r = real(&c, f, params, extra);
	pen_cu_thread.depth--;
	return r;
}

/* ---- cooperative launches ---------------------------------------------------------------------------------------- */

static CUresult run_cooperative(struct pen_cu_cmd *cmd, const struct pen_piece *p)
{
	struct launch *l = (struct launch *)(void *)cmd;
	(void)p;
	return l->real.cooperative(l->function, l->shape.grid[0], l->shape.grid[1], l->shape.grid[2], l->shape.block[0],
				   l->shape.block[1], l->shape.block[2], l->shared_bytes, l->stream, l->params);
}

static CUresult launch_cooperative(cooperative_fn real, struct launch *l, bool per_thread)
{
	struct pen_cu_stream *s = pen_cu_thread.depth ? NULL : pen_cu_stream(l->stream, per_thread);
	l->cmd.run = run_cooperative;
	l->real.cooperative = real;
	return s ? submit(l, s) : run_cooperative(&l->cmd, NULL);
}

CUresult pen_cuLaunchCooperativeKernel(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
				       unsigned int by, unsigned int bz, unsigned int shared, CUstream stream, void **params)
{
	struct launch l = { .function = f, .shape = { { gx, gy, gz }, { bx, by, bz } }, .shared_bytes = shared, .stream = stream,
			    .params = params };
	return launch_cooperative(REAL(cuLaunchCooperativeKernel), &l, false);
}

CUresult pen_cuLaunchCooperativeKernel_ptsz(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
					    unsigned int by, unsigned int bz, unsigned int shared, CUstream stream, void **params)
{
	struct launch l = { .function = f, .shape = { { gx, gy, gz }, { bx, by, bz } }, .shared_bytes = shared, .stream = stream,
			    .params = params };
	return launch_cooperative(REAL(cuLaunchCooperativeKernel_ptsz), &l, true);
}

/* On several devices at once: admitted by one gate after the other, launched within the last of them. */
struct multi {
	struct pen_cu_cmd cmd;
	CUDA_LAUNCH_PARAMS_v1 *list;
	unsigned int n, at, flags;
};

static CUresult multi_next(struct multi *m);

static CUresult run_multi(struct pen_cu_cmd *cmd, const struct pen_piece *p)
{
	struct multi next = *(struct multi *)(void *)cmd;
	(void)p;
	next.at++;
	return multi_next(&next);
}

static CUresult multi_next(struct multi *m)
{
	if (m->at == m->n)
		return REAL(cuLaunchCooperativeKernelMultiDevice)(m->list, m->n, m->flags);
	const CUDA_LAUNCH_PARAMS_v1 *k = &m->list[m->at];
	struct pen_cu_stream *s = pen_cu_stream(k->hStream, false);
	if (!s)
		return run_multi(&m->cmd, NULL);
	struct shape shape = { { k->gridDimX, k->gridDimY, k->gridDimZ }, { k->blockDimX, k->blockDimY, k->blockDimZ } };
	struct pen_gate_cmd g = { .kind = PEN_CMD_KERNEL, .cost = find_cost(pen_cu_local(), s, k->function, &shape) };
	m->cmd = (struct pen_cu_cmd){ .run = run_multi, .stream = s };
	return pen_cu_submit(&m->cmd, &g);
}

CUresult pen_cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS_v1 *list, unsigned int n, unsigned int flags)
{
	if (pen_cu_thread.depth || !list || n > PEN_CU_DEVICES)
		return REAL(cuLaunchCooperativeKernelMultiDevice)(list, n, flags);
	struct multi m = { .list = list, .n = n, .flags = flags };
	return multi_next(&m);
}

/* ---- CUDA 2's launches: block and parameters are state of the function --------------------------------------------- */

static CUresult run_plain(struct pen_cu_cmd *cmd, const struct pen_piece *p)
{
	struct launch *l = (struct launch *)(void *)cmd;
	(void)p;
	return l->real.plain(l->function);
}

static CUresult run_grid(struct pen_cu_cmd *cmd, const struct pen_piece *p)
{
	struct launch *l = (struct launch *)(void *)cmd;
	(void)p;
	return l->real.grid(l->function, (int)l->shape.grid[0], (int)l->shape.grid[1]);
}

static CUresult run_grid_async(struct pen_cu_cmd *cmd, const struct pen_piece *p)
{
	struct launch *l = (struct launch *)(void *)cmd;
	(void)p;
	return l->real.grid_async(l->function, (int)l->shape.grid[0], (int)l->shape.grid[1], l->stream);
}

static CUresult launch_old(struct launch *l)
{
	struct pen_cu_stream *s = pen_cu_thread.depth ? NULL : pen_cu_stream(l->stream, false);
	return s ? submit(l, s) : l->cmd.run(&l->cmd, NULL);
}

CUresult pen_cuLaunch(CUfunction f)
{
	struct launch l = { .cmd.run = run_plain, .real.plain = REAL(cuLaunch), .function = f, .shape = { { 1, 1, 1 }, { 1, 1, 1 } } };
	return launch_old(&l);
}

CUresult pen_cuLaunchGrid(CUfunction f, int width, int height)
{
	struct launch l = { .cmd.run = run_grid, .real.grid = REAL(cuLaunchGrid), .function = f,
			    .shape = { { (uint32_t)width, (uint32_t)height, 1 }, { 1, 1, 1 } } };
	return launch_old(&l);
}

CUresult pen_cuLaunchGridAsync(CUfunction f, int width, int height, CUstream stream)
{
	struct launch l = { .cmd.run = run_grid_async, .real.grid_async = REAL(cuLaunchGridAsync), .function = f, .stream = stream,
			    .shape = { { (uint32_t)width, (uint32_t)height, 1 }, { 1, 1, 1 } } };
	return launch_old(&l);
}

/* ---- host functions ---------------------------------------------------------------------------------------------- */

/* User code in the stream: may wait for anything, so that what follows is not in flight before it has ended. */
struct host_call {
	CUhostFn fn;
	CUstreamCallback callback;
	void *user;
	struct pen_cu_context *ctx;
};

/*
 * Those that were not called yet, by number: the driver is given that alone. In a context that has failed it calls none, and what
 * was for it goes with the context.
 */
static struct pen_map calls;
static _Atomic uintptr_t calls_made;
#define CALL_STEP 16   /* a map's keys are like pointers */

static bool take_call(void *number, struct host_call *ret)
{
	struct host_call *call = pen_map_take(&calls, number);
	if (!call)
		return false;
	*ret = *call;
	free(call);
	return true;
}

static bool call_is_of(const void *call, void *ctx)
{
	return ((const struct host_call *)call)->ctx == ctx;
}

void pen_cu_host_gone(struct pen_cu_context *c)
{
	pen_map_free_all(&calls, call_is_of, c);
}

static void call_fn(void *p)
{
	struct host_call h;
	if (!take_call(p, &h))
		return;
	pen_cu_thread.callbacks++;
	h.fn(h.user);
	pen_cu_thread.callbacks--;
}

static void call_callback(CUstream stream, CUresult status, void *p)
{
	struct host_call h;
	if (!take_call(p, &h))
		return;
	pen_cu_thread.callbacks++;
	h.callback(stream, status, h.user);
	pen_cu_thread.callbacks--;
}

struct host_cmd {
	struct pen_cu_cmd cmd;
	CUresult (*launch)(CUstream, CUhostFn, void *);
	CUresult (*add)(CUstream, CUstreamCallback, void *, unsigned int);
	CUstream stream;
	void *number;
	unsigned int flags;
};

static CUresult run_host(struct pen_cu_cmd *cmd, const struct pen_piece *p)
{
	struct host_cmd *h = (struct host_cmd *)(void *)cmd;
	(void)p;
	if (h->add)
		return h->add(h->stream, call_callback, h->number, h->flags);
	return h->launch ? h->launch(h->stream, call_fn, h->number) : CUDA_ERROR_NOT_FOUND;
}

/* As the application called it. */
static CUresult host_as_it_is(const struct host_cmd *h, const struct host_call *call)
{
	if (h->add)
		return h->add(h->stream, call->callback, call->user, h->flags);
	return h->launch ? h->launch(h->stream, call->fn, call->user) : CUDA_ERROR_NOT_FOUND;
}

/* A captured one is called once for each launch of the graph: it stays the application's own. */
static CUresult host(struct host_cmd *h, struct pen_cu_stream *s, const struct host_call *call)
{
	struct host_call *copy = NULL;
	pen_cu_thread.depth++;
	bool captured = pen_cu_capturing(s);
	pen_cu_thread.depth--;
	if (!captured)
		copy = malloc(sizeof(*copy));
	h->number = (void *)(CALL_STEP * (1 + atomic_fetch_add(&calls_made, 1)));
	if (copy) {
		*copy = *call;
		copy->ctx = s->ctx;
	}
	if (!copy || pen_map_put(&calls, h->number, copy) < 0) {
		free(copy);
		return host_as_it_is(h, call);
	}
	h->cmd.run = run_host;
	h->cmd.stream = s;
	struct pen_gate_cmd g = { .kind = PEN_CMD_COUNT_ONLY, .est_ns = PEN_COST_FLOOR_NS, .flags = PEN_CMD_NO_WAIT };
	CUresult r = pen_cu_submit(&h->cmd, &g);
	if (r != CUDA_SUCCESS) {
		struct host_call gone;
		take_call(h->number, &gone);
		return r;
	}
	pen_cu_thread.depth++;
	pen_cu_stream_wall(s);
	pen_cu_thread.depth--;
	return r;
}

static CUresult launch_host(CUresult (*real)(CUstream, CUhostFn, void *), bool per_thread, CUstream stream, CUhostFn fn, void *user)
{
	struct pen_cu_stream *s = pen_cu_thread.depth || !fn ? NULL : pen_cu_stream(stream, per_thread);
	struct host_cmd h = { .launch = real, .stream = stream };
	return s ? host(&h, s, &(struct host_call){ .fn = fn, .user = user }) : real(stream, fn, user);
}

CUresult pen_cuLaunchHostFunc(CUstream stream, CUhostFn fn, void *user)
{
	return launch_host(REAL(cuLaunchHostFunc), false, stream, fn, user);
}

CUresult pen_cuLaunchHostFunc_ptsz(CUstream stream, CUhostFn fn, void *user)
{
	return launch_host(REAL(cuLaunchHostFunc_ptsz), true, stream, fn, user);
}

static CUresult add_callback(CUresult (*real)(CUstream, CUstreamCallback, void *, unsigned int), bool per_thread, CUstream stream,
			     CUstreamCallback callback, void *user, unsigned int flags)
{
	struct pen_cu_stream *s = pen_cu_thread.depth || !callback ? NULL : pen_cu_stream(stream, per_thread);
	struct host_cmd h = { .add = real, .stream = stream, .flags = flags };
	return s ? host(&h, s, &(struct host_call){ .callback = callback, .user = user }) : real(stream, callback, user, flags);
}

CUresult pen_cuStreamAddCallback(CUstream stream, CUstreamCallback callback, void *user, unsigned int flags)
{
	return add_callback(REAL(cuStreamAddCallback), false, stream, callback, user, flags);
}

CUresult pen_cuStreamAddCallback_ptsz(CUstream stream, CUstreamCallback callback, void *user, unsigned int flags)
{
	return add_callback(REAL(cuStreamAddCallback_ptsz), true, stream, callback, user, flags);
}
