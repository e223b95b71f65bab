/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An OpenCL program that does as it is told: one command a line on stdin, one answer a line on stdout, so that a test
 * decides what happens before, after and while it is killed, stopped or cut off. It knows nothing of Penstock.
 *
 *   open                    context and queues                              -> CODE
 *   limit                   CL_DEVICE_GLOBAL_MEM_SIZE                       -> BYTES
 *   alloc BYTES [N]         N buffers, until one is refused                 -> CODE MADE
 *   free                    all buffers of this process                     -> 0
 *   run N                   N kernels, then clFinish                        -> CODE
 *   load sync|never|BURST MS  a thread that enqueues for ever: each kernel awaited; none ever awaited nor flushed; BURST
 *                           kernels and clFinish, then MS of sleep          -> 0
 *   stop                    ends that thread                                -> CODE of its first failure
 *   race THREADS BYTES N    threads that make and free N buffers each, then keep what they get   -> KEPT
 *   userevent N             N kernels behind a user event that is set after them                 -> CODE
 *   across                  queue B waits for queue A, neither flushed meanwhile                 -> CODE
 *   callback N              N bursts of ten kernels, each from the completion callback of the last -> CODE
 *   fork, vfork             a child takes the commands until it exits; vfork: a new image of it  -> ready PID
 *   exec                    a new image of this process                                          -> ready PID
 *   closefrom               closes every descriptor from 3 up                                    -> 0
 *   exit [CODE]
 *
 * PROGRESS names a file of four 64-bit words that the load thread writes: rounds, time of the last one (CLOCK_MONOTONIC ns),
 * longest time between two, first failure.
 */
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BUFFERS 4096

static cl_device_id device;
static cl_context context;
static cl_command_queue queue_a, queue_b;
static cl_kernel kernel;
static cl_mem buffers[BUFFERS];
static unsigned nbuffers;
static size_t groups = 1;
static char **own_argv;

static struct progress {
	_Atomic uint64_t rounds, last_ns, longest_ns;
	_Atomic int64_t failure;
} *progress;

static uint64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void answer(long long value)
{
	dprintf(STDOUT_FILENO, "%lld\n", value);
}

static cl_int open_device(void)
{
	static const char *const source = "__kernel void work(__global int *p) { }";
	cl_platform_id platform;
	cl_int code = clGetPlatformIDs(1, &platform, NULL);
	if (!code)
		code = clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, NULL);
	if (!code)
		context = clCreateContext(NULL, 1, &device, NULL, NULL, &code);
	if (!code)
		queue_a = clCreateCommandQueue(context, device, 0, &code);
	if (!code)
		queue_b = clCreateCommandQueue(context, device, 0, &code);
	cl_program program = NULL;
	if (!code)
		program = clCreateProgramWithSource(context, 1, (const char **)(uintptr_t)&source, NULL, &code);
	if (!code)
		code = clBuildProgram(program, 1, &device, "", NULL, NULL);
	if (!code)
		kernel = clCreateKernel(program, "work", &code);
	cl_mem none = NULL;
	return code ? code : clSetKernelArg(kernel, 0, sizeof(none), &none);
}

static cl_int enqueue(cl_command_queue q, cl_uint nwait, const cl_event *wait, cl_event *ret)
{
	return clEnqueueNDRangeKernel(q, kernel, 1, NULL, &groups, NULL, nwait, wait, ret);
}

static cl_int run(long n)
{
	cl_int code = 0;
	for (long i = 0; i < n && !code; i++)
		code = enqueue(queue_a, 0, NULL, NULL);
	return code ? code : clFinish(queue_a);
}

/* ---- load -------------------------------------------------------------------------------------------------------- */

static struct {
	pthread_t thread;
	atomic_bool stop;
	bool never;
	long burst, pause_ms;
} load;

static void round_done(void)
{
	uint64_t now = now_ns(), last = atomic_load(&progress->last_ns);
	if (last && now - last > atomic_load(&progress->longest_ns))
		atomic_store(&progress->longest_ns, now - last);
	atomic_store(&progress->last_ns, now);
	atomic_fetch_add(&progress->rounds, 1);
}

static void *load_thread(void *arg)
{
	(void)arg;
	cl_int code = 0;
	while (!code && !atomic_load(&load.stop)) {
		code = load.never ? enqueue(queue_a, 0, NULL, NULL) : run(load.burst);
		if (!code)
			round_done();
		if (load.pause_ms)
			nanosleep(&(struct timespec){ .tv_nsec = load.pause_ms * 1000000 }, NULL);
	}
	atomic_store(&progress->failure, code);
	return NULL;
}

static int load_start(const char *args)
{
	load.never = !strncmp(args, "never", 5);
	load.burst = 1;
	load.pause_ms = 0;
	if (strncmp(args, "sync", 4) && !load.never && sscanf(args, "%ld %ld", &load.burst, &load.pause_ms) != 2)
		return -1;
	atomic_store(&load.stop, false);
	atomic_store(&progress->last_ns, 0);
	atomic_store(&progress->failure, 0);
	return pthread_create(&load.thread, NULL, load_thread, NULL);
}

static long long load_stop(void)
{
	atomic_store(&load.stop, true);
	pthread_join(load.thread, NULL);
	return atomic_load(&progress->failure);
}

/* ---- memory ------------------------------------------------------------------------------------------------------- */

static cl_int alloc(size_t bytes, unsigned n, unsigned *ret_made)
{
	cl_int code = 0;
	for (*ret_made = 0; *ret_made < n && nbuffers < BUFFERS; ++*ret_made) {
		cl_mem m = clCreateBuffer(context, CL_MEM_READ_WRITE, bytes, NULL, &code);
		if (!m)
			break;
		buffers[nbuffers++] = m;
	}
	return code;
}

static void free_all(void)
{
	while (nbuffers)
		clReleaseMemObject(buffers[--nbuffers]);
}

struct racer {
	pthread_t thread;
	pthread_barrier_t *start;
	size_t bytes;
	unsigned rounds, kept;
	cl_mem buffer[64];
};

static void *race_thread(void *arg)
{
	struct racer *r = arg;
	pthread_barrier_wait(r->start);
	for (unsigned i = 0; i < r->rounds; i++) {
		cl_mem m = clCreateBuffer(context, CL_MEM_READ_WRITE, r->bytes, NULL, NULL);
		if (m)
			clReleaseMemObject(m);
	}
	while (r->kept < 64) {
		cl_mem m = clCreateBuffer(context, CL_MEM_READ_WRITE, r->bytes, NULL, NULL);
		if (!m)
			break;
		r->buffer[r->kept++] = m;
	}
	return NULL;
}

static long long race(unsigned threads, size_t bytes, unsigned rounds)
{
	static struct racer racers[64];
	pthread_barrier_t start;
	long long kept = 0;
	pthread_barrier_init(&start, NULL, threads);
	for (unsigned i = 0; i < threads && i < 64; i++) {
		racers[i] = (struct racer){ .start = &start, .bytes = bytes, .rounds = rounds };
		pthread_create(&racers[i].thread, NULL, race_thread, &racers[i]);
	}
	for (unsigned i = 0; i < threads && i < 64; i++) {
		pthread_join(racers[i].thread, NULL);
		kept += racers[i].kept;
		for (unsigned k = 0; k < racers[i].kept; k++)
			buffers[nbuffers++] = racers[i].buffer[k];
	}
	pthread_barrier_destroy(&start);
	return kept;
}

/* ---- what a gate could wait for without end ------------------------------------------------------------------------ */

static cl_int user_event(long n)
{
	cl_int code;
	cl_event gate = clCreateUserEvent(context, &code);
	for (long i = 0; i < n && !code; i++)
		code = enqueue(queue_a, 1, &gate, NULL);
	if (!code)
		code = clSetUserEventStatus(gate, CL_COMPLETE);
	if (!code)
		code = clFinish(queue_a);
	clReleaseEvent(gate);
	return code;
}

static cl_int across_queues(void)
{
	cl_int code = 0;
	for (int i = 0; i < 20 && !code; i++) {
		cl_event a = NULL, b = NULL;
		code = enqueue(queue_a, 0, NULL, &a);
		for (int k = 0; k < 50 && !code; k++)
			code = enqueue(queue_b, 1, &a, NULL);
		if (!code)
			code = enqueue(queue_b, 1, &a, &b);
		/* Only now, as the specification asks of a program: long before that the window was full of what waits for A. */
		if (!code)
			code = clFlush(queue_a);
		if (!code)
			code = clFlush(queue_b);
		if (!code)
			code = clWaitForEvents(1, &b);
		clReleaseEvent(a);
		clReleaseEvent(b);
	}
	return code;
}

static atomic_long callbacks_left;
static atomic_int callback_code;
static _Atomic int callbacks_over;

static void CL_CALLBACK on_complete(cl_event event, cl_int status, void *arg)
{
	(void)arg;
	clReleaseEvent(event);
	cl_int code = status < 0 ? status : 0;
	cl_event next;
	if (!code && atomic_fetch_sub(&callbacks_left, 1) > 0) {
		for (int i = 0; i < 9 && !code; i++)
			code = enqueue(queue_a, 0, NULL, NULL);
		if (!code)
			code = enqueue(queue_a, 0, NULL, &next);
		if (!code)
			code = clSetEventCallback(next, CL_COMPLETE, on_complete, NULL);
		if (!code)
			code = clFlush(queue_a);
		if (!code)
			return;
	}
	atomic_store(&callback_code, code);
	atomic_store(&callbacks_over, 1);
}

static cl_int from_callback(long n)
{
	cl_event first;
	atomic_store(&callbacks_left, n);
	atomic_store(&callbacks_over, 0);
	cl_int code = enqueue(queue_a, 0, NULL, &first);
	if (!code)
		code = clSetEventCallback(first, CL_COMPLETE, on_complete, NULL);
	if (!code)
		code = clFlush(queue_a);
	while (!code && !atomic_load(&callbacks_over))
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	return code ? code : atomic_load(&callback_code);
}

/* ---- processes ------------------------------------------------------------------------------------------------------ */

static void map_progress(void)
{
	static struct progress none;
	const char *path = getenv("PROGRESS");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	progress = fd < 0 ? &none : mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (progress == MAP_FAILED)
		progress = &none;
	if (fd >= 0)
		close(fd);
}

static void ready(void)
{
	dprintf(STDOUT_FILENO, "ready %d\n", (int)getpid());
}

static void split(bool with_exec)
{
	pid_t pid = with_exec ? vfork() : fork();
	if (pid == 0 && with_exec) {
		execv("/proc/self/exe", own_argv);
		_exit(127);
	}
	if (pid == 0) {
		ready();
		return;
	}
	int status = 0;
	waitpid(pid, &status, 0);
	dprintf(STDOUT_FILENO, "child %d\n", status);
}

/* One character at a time: what is read ahead would be lost for a child or the next image. */
static bool read_line(char *line, size_t n)
{
	size_t len = 0;
	char c;
	while (read(STDIN_FILENO, &c, 1) == 1) {
		if (c == '\n') {
			line[len] = 0;
			return true;
		}
		if (len + 1 < n)
			line[len++] = c;
	}
	return false;
}

static bool scenario(const char *verb, const char *args)
{
	long n = strtol(args, NULL, 10);
	if (!strcmp(verb, "userevent"))
		answer(user_event(n));
	else if (!strcmp(verb, "across"))
		answer(across_queues());
	else if (!strcmp(verb, "callback"))
		answer(from_callback(n));
	else if (!strcmp(verb, "fork") || !strcmp(verb, "vfork"))
		split(verb[0] == 'v');
	else if (!strcmp(verb, "exec"))
		execv("/proc/self/exe", own_argv);
	else if (!strcmp(verb, "closefrom"))
		answer(syscall(SYS_close_range, 3, ~0u, 0));
	else
		return false;
	return true;
}

static bool memory(const char *verb, const char *args)
{
	unsigned long long bytes = 0;
	unsigned n = 1, m = 0, made;
	if (!strcmp(verb, "alloc") && sscanf(args, "%llu %u", &bytes, &n) >= 1) {
		cl_int code = alloc(bytes, n, &made);
		dprintf(STDOUT_FILENO, "%d %u\n", code, made);
	} else if (!strcmp(verb, "free")) {
		free_all();
		answer(0);
	} else if (!strcmp(verb, "race") && sscanf(args, "%u %llu %u", &n, &bytes, &m) == 3) {
		answer(race(n, bytes, m));
	} else if (!strcmp(verb, "limit")) {
		cl_ulong limit = 0;
		clGetDeviceInfo(device, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof(limit), &limit, NULL);
		answer((long long)limit);
	} else {
		return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	char line[128], verb[16];
	(void)argc;
	own_argv = argv;
	map_progress();
	ready();
	while (read_line(line, sizeof(line))) {
		int at = 0;
		if (sscanf(line, "%15s %n", verb, &at) < 1)
			continue;
		const char *args = line + at;
		if (!strcmp(verb, "exit"))
			_exit((int)strtol(args, NULL, 10));   /* a forked child must not run the driver's exit handlers */
		if (!strcmp(verb, "open"))
			answer(open_device());
		else if (!strcmp(verb, "run"))
			answer(run(strtol(args, NULL, 10)));
		else if (!strcmp(verb, "load"))
			answer(load_start(args));
		else if (!strcmp(verb, "stop"))
			answer(load_stop());
		else if (!memory(verb, args) && !scenario(verb, args))
			dprintf(STDOUT_FILENO, "what?\n");
	}
	return 0;
}
