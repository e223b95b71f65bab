/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request of a CUDA load is a list of units, given as text (--request):
 *   k:US  k:LOW..HIGH   a kernel that takes so many microseconds; of a range, spread evenly in the logarithm
 *   vadd:N  gemm:N      vectorAdd of N floats, N x N x N multiply-adds: results are checked at the end
 *   h2d:B  d2h:B  d2d:B fill:B    copies and fills of so many bytes (pinned host memory unless --pageable)
 *   alloc:B  async:B    cuMemAlloc and cuMemFree; cuMemAllocAsync and cuMemFreeAsync
 * each with xN for N of them, separated by commas: "h2d:602112,k:2..113x40,d2h:4000". With --graph the whole list is recorded once and
 * a unit is a launch of it. A kernel has --blocks blocks of 256 threads, else as many as the device runs at once.
 */
#include "work.h"

#include "cudrv.h"
#include "cuptx.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define UNITS_MAX 4096
#define QUEUES_MAX 16
#define WARM_UPS 3
#define PATTERN 0xA5

enum kind { KERNEL, VADD, GEMM, H2D, D2H, D2D, FILL, ALLOC, ASYNC, KIND_MAX_ };

static const char *const kind_names[KIND_MAX_] = {
	[KERNEL] = "k", [VADD] = "vadd", [GEMM] = "gemm",   [H2D] = "h2d",	   [D2H] = "d2h",
	[D2D] = "d2d",	[FILL] = "fill", [ALLOC] = "alloc", [ASYNC] = "async",
};

struct unit {
	enum kind kind;
	uint64_t size;   /* ns, elements or bytes */
};

struct work_config {
	struct unit unit[UNITS_MAX];
	unsigned nunits, queues, blocks, device, synchronise;
	bool graph, pageable, events;
	uint64_t memory_bytes;
};

struct lane {   /* one queue */
	CUstream stream;
	CUdeviceptr count, from, to, a, b, c;
	unsigned char *host;
	CUgraphExec graph;
	uint32_t kernels;   /* launched: what the counter must say */
};

struct work {
	struct work_config config;
	CUdevice device;
	CUmodule module;
	CUfunction spin, add, gemm;
	CUdeviceptr extra;
	unsigned blocks;
	struct lane lane[QUEUES_MAX];
	CUevent base, *pending;   /* pairs, with --events */
	struct work_stamp *stamps;
	size_t npending, room;
	uint64_t base_ns;
};

enum { REQUEST = WORK_OPTION, GRAPH, PAGEABLE, BLOCKS, QUEUES, MEMORY, EVENTS, DEVICE, SYNCHRONISE };

const char work_usage[] =
	"  [--request k:US[..US]|vadd:N|gemm:N|h2d:B|d2h:B|d2d:B|fill:B|alloc:B|async:B[xN],...] [--graph] [--pageable]\n"
	"  [--blocks N] [--queues N] [--memory BYTES] [--events] [--device N] [--synchronise auto|spin|yield|block]\n";
const struct option work_options[] = {
	{ "request", 1, NULL, REQUEST },
	{ "graph", 0, NULL, GRAPH },
	{ "pageable", 0, NULL, PAGEABLE },
	{ "blocks", 1, NULL, BLOCKS },
	{ "queues", 1, NULL, QUEUES },
	{ "memory", 1, NULL, MEMORY },
	{ "events", 0, NULL, EVENTS },
	{ "device", 1, NULL, DEVICE },
	{ "synchronise", 1, NULL, SYNCHRONISE },
	{ 0 },
};

static bool add_units(struct work_config *c, enum kind kind, double low, double high, unsigned n)
{
	if (!n || n > UNITS_MAX - c->nunits || low < 0 || high < low || (high > low && low <= 0))
		return false;
	for (unsigned i = 0; i < n; i++) {
		/* steps of the golden ratio: even over the range however many there are, long and short in turn as layers are */
		double at = fmod((i + 0.5) * 0.6180339887, 1.0);
		double v = high > low ? low * pow(high / low, at) : low;

		c->unit[c->nunits++] = (struct unit){ kind, (uint64_t)(kind == KERNEL ? v * 1000 : v) };
	}
	return true;
}

static bool parse_unit(struct work_config *c, const char *text)
{
	char *end;

	for (unsigned k = 0; k < KIND_MAX_; k++) {
		size_t n = strlen(kind_names[k]);
		unsigned times = 1;

		if (strncmp(text, kind_names[k], n) || text[n] != ':')
			continue;
		double low = strtod(text + n + 1, &end), high = low;

		if (end[0] == '.' && end[1] == '.')   /* strtod() takes the first point of "2..113" */
			high = strtod(end + 2, &end);
		else if (end > text && end[-1] == '.' && end[0] == '.')
			high = strtod(end + 1, &end);
		if (*end == 'x')
			times = (unsigned)strtoul(end + 1, &end, 10);
		return *end == '\0' && add_units(c, k, low, high, times);
	}
	return false;
}

static bool parse_request(struct work_config *c, const char *arg)
{
	char *text = strdup(arg), *save = NULL;
	bool good = text != NULL;

	c->nunits = 0;
	for (char *word = good ? strtok_r(text, ",", &save) : NULL; word && good; word = strtok_r(NULL, ",", &save))
		good = parse_unit(c, word);
	free(text);
	return good && c->nunits;
}

static bool parse_synchronise(struct work_config *c, const char *arg)
{
	static const char *const names[] = { "auto", "spin", "yield", "", "block" };   /* CU_CTX_SCHED_... */

	for (unsigned i = 0; i < 5; i++) {
		if (arg[0] && !strcmp(arg, names[i])) {
			c->synchronise = i;
			return true;
		}
	}
	return false;
}

struct work_config *work_defaults(void)
{
	static struct work_config config = { .queues = 1 };

	parse_request(&config, "k:1000x8");
	return &config;
}

bool work_option(struct work_config *c, int option, const char *arg)
{
	unsigned long long n = arg ? strtoull(arg, NULL, 0) : 0;

	switch (option) {
	case REQUEST:
		return parse_request(c, arg);
	case SYNCHRONISE:
		return parse_synchronise(c, arg);
	case GRAPH:
		c->graph = true;
		break;
	case PAGEABLE:
		c->pageable = true;
		break;
	case BLOCKS:
		c->blocks = (unsigned)n;
		break;
	case QUEUES:
		c->queues = (unsigned)n;
		break;
	case MEMORY:
		c->memory_bytes = n;
		break;
	case EVENTS:
		c->events = true;
		break;
	case DEVICE:
		c->device = (unsigned)n;
		break;
	default:
		return false;
	}
	return true;
}

bool work_makes_sense(const struct work_config *c)
{
	bool records = true;

	for (unsigned i = 0; i < c->nunits; i++) {
		enum kind kind = c->unit[i].kind;

		records &= kind != ALLOC && !(kind <= D2H && kind >= H2D && c->pageable);
		if (kind == GEMM && c->unit[i].size % CU_BLOCK)
			return false;
	}
	return c->queues >= 1 && c->queues <= QUEUES_MAX && (records || !c->graph);
}

unsigned work_units(const struct work_config *c)
{
	return c->graph ? 1 : c->nunits;
}

unsigned work_queues(const struct work_config *c)
{
	return c->queues;
}

bool work_has_stamps(const struct work_config *c)
{
	return c->events;
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void sleep_until_ns(uint64_t t)
{
	const struct timespec ts = { .tv_sec = (time_t)(t / 1000000000u), .tv_nsec = (long)(t % 1000000000u) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static uint64_t largest(const struct work_config *c, enum kind first, enum kind last)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < c->nunits; i++)
		if (c->unit[i].kind >= first && c->unit[i].kind <= last && c->unit[i].size > n)
			n = c->unit[i].size;
	return n;
}

/* Floats of the arrays that vectorAdd and gemm work on. */
static uint64_t elements(const struct work_config *c)
{
	uint64_t add = largest(c, VADD, VADD), n = largest(c, GEMM, GEMM);

	return add > n * n ? add : n * n;
}

static int open_arrays(struct work *w, struct lane *l)
{
	uint64_t n = elements(&w->config);
	float *v;
	int r;

	if (!n)
		return 0;
	CU_OR_FAIL("array", cu.cuMemAlloc_v2(&l->a, n * sizeof(float)));
	CU_OR_FAIL("array", cu.cuMemAlloc_v2(&l->b, n * sizeof(float)));
	CU_OR_FAIL("array", cu.cuMemAlloc_v2(&l->c, n * sizeof(float)));
	v = malloc(n * sizeof(*v));
	if (!v)
		return cu_failed("array", CUDA_ERROR_OUT_OF_MEMORY);
	for (uint64_t i = 0; i < n; i++)   /* small whole numbers: sums and products are exact */
		v[i] = (float)(i & 3);
	r = cu.cuMemcpyHtoD_v2(l->a, v, n * sizeof(float));
	for (uint64_t i = 0; i < n; i++)
		v[i] = (float)((i >> 2) & 3);
	r = r ? r : cu.cuMemcpyHtoD_v2(l->b, v, n * sizeof(float));
	free(v);
	return r ? cu_failed("fill arrays", r) : 0;
}

static int open_buffers(struct work *w, struct lane *l)
{
	uint64_t bytes = largest(&w->config, H2D, FILL);

	CU_OR_FAIL("counter", cu.cuMemAlloc_v2(&l->count, sizeof(uint32_t)));
	CU_OR_FAIL("counter", cu.cuMemsetD8_v2(l->count, 0, sizeof(uint32_t)));
	if (!bytes)
		return 0;
	CU_OR_FAIL("buffer", cu.cuMemAlloc_v2(&l->to, bytes));
	CU_OR_FAIL("buffer", cu.cuMemAlloc_v2(&l->from, bytes));
	if (w->config.pageable)
		l->host = malloc(bytes);
	else
		CU_OR_FAIL("pinned memory", cu.cuMemHostAlloc((void **)&l->host, bytes, 0));
	if (!l->host)
		return cu_failed("host memory", CUDA_ERROR_OUT_OF_MEMORY);
	memset(l->host, PATTERN, bytes);
	CU_OR_FAIL("fill", cu.cuMemsetD8_v2(l->from, PATTERN, bytes));
	return 0;
}

static int launch_arrays(struct work *w, struct lane *l, CUfunction f, uint64_t n, uint64_t threads)
{
	uint32_t size = (uint32_t)n;
	void *args[] = { &l->a, &l->b, &l->c, &size };
	unsigned blocks = (unsigned)((threads + CU_BLOCK - 1) / CU_BLOCK);

	(void)w;
	CU_OR_FAIL("launch", cu.cuLaunchKernel(f, blocks, 1, 1, CU_BLOCK, 1, 1, 0, l->stream, args, NULL));
	return 0;
}

static int launch_spin(struct work *w, struct lane *l, uint64_t ns)
{
	void *args[] = { &ns, &l->count };

	CU_OR_FAIL("launch",
		   cu.cuLaunchKernel(w->spin, w->blocks, 1, 1, CU_BLOCK, 1, 1, 0, l->stream, args, NULL));
	return 0;
}

static int churn(struct lane *l, uint64_t bytes, bool async)
{
	CUdeviceptr p;

	if (async) {
		CU_OR_FAIL("cuMemAllocAsync", cu.cuMemAllocAsync(&p, bytes, l->stream));
		CU_OR_FAIL("cuMemFreeAsync", cu.cuMemFreeAsync(p, l->stream));
	} else {
		CU_OR_FAIL("cuMemAlloc", cu.cuMemAlloc_v2(&p, bytes));
		CU_OR_FAIL("cuMemFree", cu.cuMemFree_v2(p));
	}
	return 0;
}

/* One unit of the list, into the lane's stream, which may be recording. */
static int submit(struct work *w, struct lane *l, const struct unit *u)
{
	CUresult r = CUDA_SUCCESS;

	switch (u->kind) {
	case KERNEL:
		return launch_spin(w, l, u->size);
	case VADD:
		return launch_arrays(w, l, w->add, u->size, u->size);
	case GEMM:
		return launch_arrays(w, l, w->gemm, u->size, u->size * u->size);
	case H2D:
		r = cu.cuMemcpyHtoDAsync_v2(l->to, l->host, u->size, l->stream);
		break;
	case D2H:
		r = cu.cuMemcpyDtoHAsync_v2(l->host, l->from, u->size, l->stream);
		break;
	case D2D:
		r = cu.cuMemcpyDtoDAsync_v2(l->to, l->from, u->size, l->stream);
		break;
	case FILL:
		r = cu.cuMemsetD8Async(l->to, PATTERN, u->size, l->stream);
		break;
	case ALLOC:
	case ASYNC:
		return churn(l, u->size, u->kind == ASYNC);
	default:
		return -1;
	}
	return r ? cu_failed(kind_names[u->kind], r) : 0;
}

static int record_graph(struct work *w, struct lane *l)
{
	CUgraph graph;
	CUgraphExec exec = NULL;
	CUresult r;
	int failed = 0;

	if (!cu.cuGraphInstantiateWithFlags)
		return cu_failed("graphs", CUDA_ERROR_NOT_SUPPORTED);
	CU_OR_FAIL("capture", cu.cuStreamBeginCapture_v2(l->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
	for (unsigned i = 0; i < w->config.nunits && !failed; i++)
		failed = submit(w, l, &w->config.unit[i]);
	r = cu.cuStreamEndCapture(l->stream, &graph);
	if (r || failed)
		return cu_failed("end of capture", r);
	r = cu.cuGraphInstantiateWithFlags(&exec, graph, 0);
	cu.cuGraphDestroy(graph);
	if (r)
		return cu_failed("instantiate", r);
	l->graph = exec;
	return 0;
}

static int open_module(struct work *w)
{
	int units, threads;

	CU_OR_FAIL("module", cu.cuModuleLoadData(&w->module, cu_ptx));
	CU_OR_FAIL("spin", cu.cuModuleGetFunction(&w->spin, w->module, "spin"));
	CU_OR_FAIL("vectorAdd", cu.cuModuleGetFunction(&w->add, w->module, "vectorAdd"));
	CU_OR_FAIL("gemm", cu.cuModuleGetFunction(&w->gemm, w->module, "gemm"));
	CU_OR_FAIL("attribute", cu.cuDeviceGetAttribute(&units, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, w->device));
	CU_OR_FAIL("attribute", cu.cuDeviceGetAttribute(&threads, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR,
							w->device));
	w->blocks = w->config.blocks ? w->config.blocks : (unsigned)(units * threads / CU_BLOCK);
	return 0;
}

static int open_lane(struct work *w, struct lane *l)
{
	CU_OR_FAIL("stream", cu.cuStreamCreate(&l->stream, CU_STREAM_NON_BLOCKING));
	if (open_buffers(w, l) || open_arrays(w, l))
		return -1;
	return w->config.graph ? record_graph(w, l) : 0;
}

static int open_all(struct work *w)
{
	CUcontext context;

	if (cu_load(NULL))
		return -1;
	CU_OR_FAIL("cuInit", cu.cuInit(0));
	CU_OR_FAIL("device", cu.cuDeviceGet(&w->device, (int)w->config.device));
	if (w->config.synchronise) {
		cu_fn_cuDevicePrimaryCtxSetFlags_v2 *set = cu_find(cu.library, "cuDevicePrimaryCtxSetFlags_v2");

		CU_OR_FAIL("flags", set ? set(w->device, w->config.synchronise) : CUDA_ERROR_NOT_FOUND);
	}
	CU_OR_FAIL("context", cu.cuDevicePrimaryCtxRetain(&context, w->device));
	CU_OR_FAIL("context", cu.cuCtxSetCurrent(context));
	if (open_module(w))
		return -1;
	for (unsigned q = 0; q < w->config.queues; q++)
		if (open_lane(w, &w->lane[q]))
			return -1;
	if (w->config.memory_bytes) {
		CU_OR_FAIL("memory", cu.cuMemAlloc_v2(&w->extra, w->config.memory_bytes));
		CU_OR_FAIL("touch memory", cu.cuMemsetD8_v2(w->extra, 1, w->config.memory_bytes));
	}
	CU_OR_FAIL("fills", cu.cuCtxSynchronize());   /* they return at once, and non-blocking streams do not wait for them */
	if (w->config.events) {
		CU_OR_FAIL("event", cu.cuEventCreate(&w->base, CU_EVENT_DEFAULT));
		CU_OR_FAIL("event", cu.cuEventRecord(w->base, w->lane[0].stream));
		CU_OR_FAIL("event", cu.cuEventSynchronize(w->base));
	}
	return 0;
}

static int warm_up(struct work *w)
{
	const struct work_stamp *stamps;
	size_t n;

	for (unsigned i = 0; i < WARM_UPS; i++)
		for (unsigned q = 0; q < w->config.queues; q++)
			for (unsigned k = 0; k < work_units(&w->config); k++)
				if (work_launch(w, q, k, NULL) || work_finish(w, q))
					return -1;
	return w->config.events ? work_stamps(w, &stamps, &n) : 0;
}

int work_open(const struct work_config *config, struct work **ret_work)
{
	struct work *w = calloc(1, sizeof(*w));

	cu_program = "cuload";
	if (!w)
		return cu_failed("memory", CUDA_ERROR_OUT_OF_MEMORY);
	w->config = *config;
	if (open_all(w) || warm_up(w)) {
		work_close(w);
		return -1;
	}
	*ret_work = w;
	return 0;
}

/* An event before and one after the launch, for its stamps. */
static int note_pair(struct work *w, struct lane *l, bool after)
{
	if (w->npending == w->room) {
		size_t room = w->room ? 2 * w->room : 1024;
		CUevent *events = realloc(w->pending, 2 * room * sizeof(*events));

		if (events)
			w->pending = events;
		struct work_stamp *stamps = realloc(w->stamps, room * sizeof(*stamps));

		if (stamps)
			w->stamps = stamps;
		if (!events || !stamps)
			return cu_failed("event list", CUDA_ERROR_OUT_OF_MEMORY);
		w->room = room;
	}
	CUevent *e = &w->pending[2 * w->npending + after];

	if (!after)
		w->stamps[w->npending].enqueued = now_ns();
	CU_OR_FAIL("event", cu.cuEventCreate(e, CU_EVENT_DEFAULT));
	CU_OR_FAIL("event", cu.cuEventRecord(*e, l->stream));
	w->npending += after;
	return 0;
}

static void count_kernels(const struct work *w, struct lane *l, unsigned k)
{
	if (!w->config.graph) {
		l->kernels += w->config.unit[k].kind == KERNEL;
		return;
	}
	for (unsigned i = 0; i < w->config.nunits; i++)
		l->kernels += w->config.unit[i].kind == KERNEL;
}

int work_launch(struct work *w, unsigned q, unsigned k, void **ret_mark)
{
	struct lane *l = &w->lane[q];

	k %= w->config.nunits;
	if (w->config.events && note_pair(w, l, false))
		return -1;
	if (w->config.graph)
		CU_OR_FAIL("graph", cu.cuGraphLaunch(l->graph, l->stream));
	else if (submit(w, l, &w->config.unit[k]))
		return -1;
	count_kernels(w, l, k);
	if (w->config.events && note_pair(w, l, true))
		return -1;
	if (ret_mark) {
		CU_OR_FAIL("event", cu.cuEventCreate((CUevent *)ret_mark, CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC));
		CU_OR_FAIL("event", cu.cuEventRecord(*ret_mark, l->stream));
	}
	return 0;
}

int work_flush(struct work *w, unsigned q)
{
	(void)w, (void)q;   /* a launch is a submission */
	return 0;
}

int work_finish(struct work *w, unsigned q)
{
	CU_OR_FAIL("finish", cu.cuStreamSynchronize(w->lane[q].stream));
	return 0;
}

int work_wait(struct work *w, void *mark)
{
	(void)w;
	CU_OR_FAIL("wait", cu.cuEventSynchronize(mark));
	CU_OR_FAIL("event", cu.cuEventDestroy_v2(mark));
	return 0;
}

int work_stamps(struct work *w, const struct work_stamp **ret_stamps, size_t *ret_n)
{
	for (size_t i = 0; i < w->npending; i++) {
		float at[2];

		for (unsigned side = 0; side < 2; side++) {
			CU_OR_FAIL("stamp", cu.cuEventElapsedTime(&at[side], w->base, w->pending[2 * i + side]));
			cu.cuEventDestroy_v2(w->pending[2 * i + side]);
		}
		w->stamps[i].start = (uint64_t)((double)at[0] * 1e6);
		w->stamps[i].end = (uint64_t)((double)at[1] * 1e6);
	}
	*ret_stamps = w->stamps;
	*ret_n = w->npending;
	w->npending = 0;
	return 0;
}

int work_calibrate(struct work *w, uint64_t want_ns, unsigned *ret_iters, double *ret_ns)
{
	(void)w, (void)want_ns, (void)ret_iters, (void)ret_ns;
	fprintf(stderr, "cuload: there is nothing to calibrate: k:US takes its time by the device's clock\n");
	return -1;
}

/* The simulated accelerator keeps the time of `spin` and runs nothing, so its counter stays where it was. */
static int verify_count(const struct lane *l)
{
	uint32_t n;

	CU_OR_FAIL("read back", cu.cuMemcpyDtoH_v2(&n, l->count, sizeof(n)));
	if (n == l->kernels || (n == 0 && getenv("PENSTOCK_SIMGPU")))
		return 0;
	fprintf(stderr, "cuload: %u kernels ran of %u that were launched\n", n, l->kernels);
	return -1;
}

static float expected(enum kind kind, uint64_t i, uint64_t n)
{
	float sum = 0;

	if (kind == VADD)
		return (float)(i & 3) + (float)((i >> 2) & 3);
	for (uint64_t k = 0; k < n; k++) {
		uint64_t a = i / n * n + k, b = k * n + i % n;

		sum += (float)(a & 3) * (float)((b >> 2) & 3);
	}
	return sum;
}

/* The last unit that wrote the array decides what is in it; of gemm some elements are looked at. */
static int verify_arrays(const struct work *w, const struct lane *l)
{
	uint64_t n = 0, step = 1, size = 0, wrong = 0;
	enum kind kind = KERNEL;

	for (unsigned i = 0; i < w->config.nunits; i++) {
		if (w->config.unit[i].kind == VADD || w->config.unit[i].kind == GEMM) {
			kind = w->config.unit[i].kind;
			size = w->config.unit[i].size;
		}
	}
	if (kind == KERNEL || (kind == GEMM && getenv("PENSTOCK_SIMGPU")))
		return 0;
	n = kind == GEMM ? size * size : size;
	step = kind == GEMM ? n / 997 + 1 : 1;
	float *v = malloc(n * sizeof(*v));

	if (!v)
		return cu_failed("read back", CUDA_ERROR_OUT_OF_MEMORY);
	CUresult r = cu.cuMemcpyDtoH_v2(v, l->c, n * sizeof(*v));

	for (uint64_t i = 0; i < n && !r; i += step)
		wrong += v[i] < expected(kind, i, size) || v[i] > expected(kind, i, size);
	free(v);
	if (wrong)
		fprintf(stderr, "cuload: %llu results of %s are wrong\n", (unsigned long long)wrong, kind_names[kind]);
	return r ? cu_failed("read back", r) : wrong ? -1 : 0;
}

static int verify_copies(const struct work *w, const struct lane *l)
{
	uint64_t n = largest(&w->config, H2D, H2D), wrong = 0;

	n = n ? n : largest(&w->config, D2D, FILL);
	for (uint64_t i = 0; l->host && i < largest(&w->config, D2H, D2H); i++)
		wrong += l->host[i] != PATTERN;
	if (n) {
		unsigned char *v = malloc(n);

		if (!v)
			return cu_failed("read back", CUDA_ERROR_OUT_OF_MEMORY);
		CUresult r = cu.cuMemcpyDtoH_v2(v, l->to, n);

		for (uint64_t i = 0; i < n && !r; i++)
			wrong += v[i] != PATTERN;
		free(v);
		if (r)
			return cu_failed("read back", r);
	}
	if (wrong)
		fprintf(stderr, "cuload: %llu bytes were copied wrongly\n", (unsigned long long)wrong);
	return wrong ? -1 : 0;
}

int work_verify(struct work *w)
{
	int bad = 0;

	for (unsigned q = 0; q < w->config.queues; q++) {
		const struct lane *l = &w->lane[q];

		bad |= verify_count(l) | verify_arrays(w, l) | verify_copies(w, l);
	}
	return bad ? -1 : 0;
}

void work_close(struct work *w)
{
	for (unsigned q = 0; q < QUEUES_MAX; q++) {
		struct lane *l = &w->lane[q];

		if (l->graph)
			cu.cuGraphExecDestroy(l->graph);
		for (unsigned i = 0; i < 6; i++) {
			CUdeviceptr p = (CUdeviceptr[]){ l->count, l->from, l->to, l->a, l->b, l->c }[i];

			if (p)
				cu.cuMemFree_v2(p);
		}
		if (l->host && w->config.pageable)
			free(l->host);
		else if (l->host)
			cu.cuMemFreeHost(l->host);
		if (l->stream)
			cu.cuStreamDestroy_v2(l->stream);
	}
	if (w->extra)
		cu.cuMemFree_v2(w->extra);
	if (w->base)
		cu.cuEventDestroy_v2(w->base);
	if (w->module) {
		cu.cuModuleUnload(w->module);
		cu.cuDevicePrimaryCtxRelease_v2(w->device);
	}
	free(w->pending);
	free(w->stamps);
	free(w);
}
