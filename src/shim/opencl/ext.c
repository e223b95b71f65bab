/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entry points that are reached by address. The address that a driver gives goes past the layer, so an entry point that
 * allocates or enqueues is answered with a wrapper of ours, or with NULL where there is none; then its extension is hidden
 * as well (info.c). Harmless ones are handed through by name; what is not on a list is not handed out.
 *
 * Command buffers: recording costs nothing and is not gated. One enqueue may hold thousands of kernels, so its cost is
 * learned for each command buffer by itself.
 */
#include "shim/opencl/cl.h"

#include "base/auto.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

/* The driver's own functions, for each platform. Written under the lock, read by wrappers that were handed out after it. */
struct natives {
	cl_platform_id platform;   /* NULL: asked for without a platform */
#define PEN_CL_EXT(name, extension) name##_fn name;
#include "api/opencl.def"
};

#define PLATFORMS 16
static struct natives natives[PLATFORMS];
static _Atomic uint32_t nnatives;
static struct pen_forklock natives_lock = PEN_FORKLOCK_INIT;

static struct natives *natives_of(cl_platform_id p)
{
	uint32_t n = atomic_load_explicit(&nnatives, memory_order_acquire);
	struct natives *any = NULL;
	for (uint32_t i = 0; i < n; i++) {
		if (natives[i].platform == p)
			return &natives[i];
		if (!natives[i].platform)
			any = &natives[i];
	}
	return any;
}

/* Under the lock. NULL: too many platforms. */
static struct natives *natives_add(cl_platform_id p)
{
	uint32_t n = atomic_load_explicit(&nnatives, memory_order_relaxed);
	for (uint32_t i = 0; i < n; i++)
		if (natives[i].platform == p)
			return &natives[i];
	if (n == PLATFORMS)
		return NULL;
	natives[n].platform = p;
	atomic_store_explicit(&nnatives, n + 1, memory_order_release);
	return &natives[n];
}

static void *own_wrapper(const char *name, cl_platform_id p, void *native)
{
	void *found = NULL;
	pen_forklock_take(&natives_lock);
	struct natives *n = natives_add(p);
#define PEN_CL_EXT(fn, extension)                              \
	if (n && !strcmp(name, #fn)) {                         \
		n->fn = (fn##_fn)native;                       \
		found = (void *)pen_##fn;                      \
	}
#include "api/opencl.def"
	pen_forklock_give(&natives_lock);
	return found;
}

/* What the application gets for an address that the driver gave. */
static void *translate(const char *name, cl_platform_id p, void *native)
{
	static const struct { const char *name; void *wrapper; } core[] = {
#define CORE_PASS(name) NULL
#define CORE_MEM(name) (void *)pen_##name
#define CORE_ENQUEUE(name) (void *)pen_##name
#define CORE_SYNC(name) (void *)pen_##name
#define CORE_INFO(name) (void *)pen_##name
#define CORE_QUEUE(name) (void *)pen_##name
#define CORE_OBJECT(name) (void *)pen_##name
#define PEN_CL(slot, name, class, since, why) { #name, CORE_##class(name) },
#include "api/opencl.def"
	};
	static const char *const pass[] = {
#define PEN_CL_EXT_PASS(name) #name,
#include "api/opencl.def"
	};
	if (!native || !name)
		return native;
	for (size_t i = 0; i < PEN_ARRAY_LEN(core); i++)
		if (!strcmp(name, core[i].name))
			return core[i].wrapper ? core[i].wrapper : native;
	for (size_t i = 0; i < PEN_ARRAY_LEN(pass); i++)
		if (!strcmp(name, pass[i]))
			return native;
	void *own = own_wrapper(name, p, native);
	if (!own)
		pen_log(PEN_LOG_DEBUG, "opencl: %s is not handed out: it would go past the contract", name);
	return own;
}

void *pen_clGetExtensionFunctionAddress(const char *name)
{
	return translate(name, NULL, BELOW(clGetExtensionFunctionAddress)(name));
}

void *pen_clGetExtensionFunctionAddressForPlatform(cl_platform_id p, const char *name)
{
	return translate(name, p, BELOW(clGetExtensionFunctionAddressForPlatform)(p, name));
}

/* ---- queues ------------------------------------------------------------------------------------------------------- */

cl_command_queue pen_clCreateCommandQueueWithPropertiesKHR(cl_context ctx, cl_device_id device,
							   const cl_queue_properties_khr *props, cl_int *err)
{
	struct pen_cl_device *d = pen_cl_device(device);
	struct natives *n = natives_of(d ? d->platform : NULL);
	if (!n || !n->clCreateCommandQueueWithPropertiesKHR)
		return pen_cl_fail(err, CL_INVALID_OPERATION);
	return pen_cl_create_queue(n->clCreateCommandQueueWithPropertiesKHR, ctx, device, props, err);
}

/* ---- command buffers ---------------------------------------------------------------------------------------------- */

struct command_buffer {
	struct pen_cl_queue *queue;   /* the first it was made for */
	struct natives *natives;
	uint64_t number;              /* names its cost; addresses are used again */
	_Atomic uint32_t refs;
};

static struct pen_map buffers;
static _Atomic uint64_t next_number = 1;

cl_command_buffer_khr pen_clCreateCommandBufferKHR(cl_uint n, const cl_command_queue *queues,
						   const cl_command_buffer_properties_khr *props, cl_int *err)
{
	struct pen_cl_queue *q = n && queues ? pen_cl_queue(queues[0]) : NULL;
	struct natives *nat = natives_of(q ? q->device->platform : NULL);
	if (!nat || !nat->clCreateCommandBufferKHR)
		return pen_cl_fail(err, CL_INVALID_COMMAND_QUEUE);
	struct command_buffer *b = calloc(1, sizeof(*b));
	if (!b)
		return pen_cl_fail(err, CL_OUT_OF_HOST_MEMORY);
	cl_command_buffer_khr id = nat->clCreateCommandBufferKHR(n, queues, props, err);
	if (!id) {
		free(b);
		return NULL;
	}
	b->queue = q;
	b->natives = nat;
	b->number = atomic_fetch_add(&next_number, 1);
	atomic_init(&b->refs, 1);
	if (pen_map_put(&buffers, id, b)) {
		free(b);
		if (nat->clReleaseCommandBufferKHR)
			nat->clReleaseCommandBufferKHR(id);
		return pen_cl_fail(err, CL_OUT_OF_HOST_MEMORY);
	}
	return id;
}

cl_int pen_clRetainCommandBufferKHR(cl_command_buffer_khr id)
{
	struct command_buffer *b = id ? pen_map_find(&buffers, id) : NULL;
	if (!b || !b->natives->clRetainCommandBufferKHR)
		return CL_INVALID_COMMAND_BUFFER_KHR;
	cl_int r = b->natives->clRetainCommandBufferKHR(id);
	if (r == CL_SUCCESS)
		atomic_fetch_add(&b->refs, 1);
	return r;
}

cl_int pen_clReleaseCommandBufferKHR(cl_command_buffer_khr id)
{
	struct command_buffer *b = id ? pen_map_find(&buffers, id) : NULL;
	if (!b || !b->natives->clReleaseCommandBufferKHR)
		return CL_INVALID_COMMAND_BUFFER_KHR;
	clReleaseCommandBufferKHR_fn release = b->natives->clReleaseCommandBufferKHR;
	if (atomic_fetch_sub(&b->refs, 1) == 1) {
		pen_map_take(&buffers, id);
		free(b);
	}
	return release(id);
}

struct args_buffer {
	struct command_buffer *record;
	cl_command_buffer_khr id;
	cl_uint n;
	cl_command_queue *queues;
};

static cl_int run_buffer(struct pen_cl_cmd *c, const struct pen_piece *p, cl_uint nwait, const cl_event *wait, cl_event *event)
{
	const struct args_buffer *a = c->args;
	(void)p;
	return a->record->natives->clEnqueueCommandBufferKHR(a->n, a->queues, a->id, nwait, wait, event);
}

cl_int pen_clEnqueueCommandBufferKHR(cl_uint n, cl_command_queue *queues, cl_command_buffer_khr id, cl_uint nwait,
				     const cl_event *wait, cl_event *event)
{
	struct command_buffer *b = id ? pen_map_find(&buffers, id) : NULL;
	if (!b || !b->natives->clEnqueueCommandBufferKHR)
		return CL_INVALID_COMMAND_BUFFER_KHR;
	struct pen_cl_queue *q = n && queues ? pen_cl_queue(queues[0]) : b->queue;
	if (!q)
		return b->natives->clEnqueueCommandBufferKHR(n, queues, id, nwait, wait, event);
	struct args_buffer a = { .record = b, .id = id, .n = n, .queues = queues };
	struct pen_cl_cmd cmd = { .run = run_buffer, .args = &a, .queue = q, .nwait = nwait, .wait = wait, .event = event };
	struct pen_gate_cmd g = { .kind = PEN_CMD_GRAPH, .est_ns = PEN_COST_FLOOR_NS };
	g.cost = pen_gate_cost(q->device->gate, pen_cl_hash(PEN_CL_HASH_INIT, &b->number, sizeof(b->number)), 1);
	return pen_cl_submit(&cmd, &g);
}
