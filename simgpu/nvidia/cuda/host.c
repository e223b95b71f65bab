/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host functions in a stream. Server mode: one thread of ours asks the device which are due and runs them,
 * while their channels wait. Null mode: in the caller's thread, at once.
 */
#include "simgpu/nvidia/cuda/graph.h"

#include <errno.h>
#include <stdlib.h>

struct call {
	_Atomic bool ready;
	CUhostFn fn; /* cuLaunchHostFunc */
	CUstreamCallback callback; /* cuStreamAddCallback */
	CUstream stream;
	CUcontext ctx;
	void *data;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool running;
_Atomic uint32_t sim_host_calls;

void sim_host_run(uint64_t token)
{
	struct call *c = (struct call *)token;

	/*
	 * Between the threads lies the server: what orders them is said to the language here, on both sides, and
	 * where somebody waits.
	 */
	(void)atomic_load(&c->ready);
	if (c->fn)
		c->fn(c->data);
	else
		c->callback(c->stream, c->ctx->broken, c->data);
	free(c);
	atomic_fetch_add(&sim_host_calls, 1);
}

static void *host_thread(void *unused)
{
	uint64_t token;
	int e;

	(void)unused;
	while ((e = sim_host_next(sim_driver.server, UINT64_MAX, &token)) == 0 || e == -ETIMEDOUT) {
		if (e)
			continue;
		sim_host_run(token);
		sim_host_done(sim_driver.server, token);
	}
	return NULL;
}

static void start(void)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	running = pthread_create(&thread, &attr, host_thread, NULL) == 0;
	pthread_attr_destroy(&attr);
}

static CUresult call(CUstream s, struct call what)
{
	struct call *c;

	if (!sim_driver.null) {
		pthread_once(&once, start);
		if (!running)
			return CUDA_ERROR_OPERATING_SYSTEM;
	}
	c = malloc(sizeof(*c));
	if (!c)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*c = what;
	atomic_store(&c->ready, true);

	struct sim_cmd cmd = { .kind = SIM_HOST, .host = { (uintptr_t)c } };
	CUresult r = sim_push(s, &cmd, NULL, 0, NULL);

	if (r)
		free(c);
	return r;
}

CUresult sim_host_push(CUstream s, CUhostFn fn, void *data)
{
	return call(s, (struct call){ .fn = fn, .data = data });
}

static CUresult host_func(CUstream h, bool per_thread, CUhostFn fn, void *data)
{
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_stream_get(ctx, h, per_thread, &s);
	if (r)
		return r;
	if (!fn)
		return CUDA_ERROR_INVALID_VALUE;
	if (SIM_UNLIKELY(s->capture != NULL)) {
		CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_HOST, .host = { fn, data } };

		return sim_capture_node(s, &p, NULL);
	}
	return sim_host_push(s, fn, data);
}

SIM_PAIR(cuLaunchHostFunc, _ptsz, (CUstream h, CUhostFn fn, void *data),
	 return host_func(h, per_thread, fn, data);)

static CUresult callback(CUstream h, bool per_thread, CUstreamCallback fn, void *data, unsigned int flags)
{
	CUcontext ctx;
	CUstream s;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_stream_get(ctx, h, per_thread, &s);
	if (r)
		return r;
	if (!fn || flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (s->capture)
		return sim_capture_conflict(s); /* callbacks cannot be captured, host functions can */
	return call(s, (struct call){ .callback = fn, .stream = h, .ctx = s->ctx, .data = data });
}

SIM_PAIR(cuStreamAddCallback, _ptsz, (CUstream h, CUstreamCallback fn, void *data, unsigned int flags),
	 return callback(h, per_thread, fn, data, flags);)
