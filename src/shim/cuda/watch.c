/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one thread of ours in a tenant's process. It looks at marks in place of an application that has launched and makes no more
 * calls, so that its neighbours need not wait for the next one. It exists from the first time on that work is in flight while
 * another tenant is on the device; while that is not so it sleeps on a futex. A forked child makes its own when it needs one.
 *
 * The thread is asked of the C library at run time: where pthread_create() lies differs before and after glibc 2.34, and the driver
 * has brought it along in any case. Without one neighbours pass us over after 60 ms, as without this file.
 */
#include "shim/cuda/gating.h"

#include "base/clock.h"

#include <dlfcn.h>
#include <errno.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WAIT_INSIDE_NS UINT64_C(1000000)   /* a thread is inside a wait of the driver, and will tell */
#define QUIT_NS UINT64_C(100000000)        /* how long the end of the process waits for it */
#define ASLEEP_NS UINT64_C(3600000000000)  /* for good: a wake comes */

static struct {
	struct pen_forklock making;
	_Atomic uint32_t process;            /* whose thread it is; 0: none */
	_Atomic uint32_t word;               /* futex: rises when there is something to do */
	_Atomic uint32_t asleep;             /* ... and it would not look by itself */
	_Atomic uint32_t quit;               /* 1: leave the driver alone; 2: it does */
	bool told_exit;
	struct pen_cu_gating *_Atomic list;  /* devices that were ever watched */
} helper;

/* ---- what it does ------------------------------------------------------------------------------------------------ */

/* Return: ns until the next look at this device; UINT64_MAX: none is needed. */
static uint64_t look(struct pen_cu_gating *g)
{
	if (!atomic_load(&g->watch))
		return UINT64_MAX;
	atomic_store(&g->watch, 0);   /* before: who asks in between is seen the next time */
	uint64_t ns = pen_gate_watch(g->device->gate);
	if (!ns)
		return UINT64_MAX;
	atomic_store(&g->watch, 1);
	return atomic_load(&g->waiting) ? PEN_MAX(ns, WAIT_INSIDE_NS) : ns;
}

/* Until there is something to do, or somebody more urgent becomes busy or idle. */
static void rest(uint32_t seen, uint64_t ns)
{
	const _Atomic uint32_t *word[PEN_FUTEX_ANY_MAX] = { &helper.word };
	uint32_t value[PEN_FUTEX_ANY_MAX] = { seen };
	unsigned n = 1;
	for (struct pen_cu_gating *g = atomic_load(&helper.list); g && n < PEN_FUTEX_ANY_MAX; g = g->next_watched) {
		word[n] = atomic_load(&g->watch) ? pen_gate_bell(g->device->gate) : NULL;
		value[n] = 1;
		n += word[n] != NULL;
	}
	pen_futex_wait_any(word, value, n, ns);
}

static void *run(void *unused)
{
	(void)unused;
	prctl(PR_SET_NAME, "penstock-watch", 0, 0, 0);
	prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
	pen_cu_thread.depth = 1;   /* whatever the driver calls of its own names for us is not the application's */
	while (!atomic_load(&helper.quit)) {
		uint32_t seen = atomic_load(&helper.word);
		uint64_t next = UINT64_MAX;
		for (struct pen_cu_gating *g = atomic_load(&helper.list); g; g = g->next_watched)
			next = PEN_MIN(next, look(g));
		if (next == UINT64_MAX) {
			atomic_store(&helper.asleep, 1);
			pen_futex_wait(&helper.word, seen, ASLEEP_NS);
			atomic_store(&helper.asleep, 0);
		} else {
			rest(seen, next);
		}
	}
	atomic_store(&helper.quit, 2);
	pen_futex_wake(&helper.quit, INT32_MAX);
	return NULL;
}

static void wake(void)
{
	atomic_fetch_add(&helper.word, 1);
	if (atomic_load(&helper.asleep))
		pen_futex_wake(&helper.word, 1);
}

bool pen_cu_watched(void)
{
	return atomic_load_explicit(&helper.process, memory_order_acquire) == pen_forklock_process();
}

/* ---- its life ---------------------------------------------------------------------------------------------------- */

extern int __cxa_atexit(void (*fn)(void *), void *arg, void *dso);
extern void *__dso_handle __attribute__((visibility("hidden")));

/*
 * The process ends in an orderly way, and the driver, whose own end was announced before ours, comes next. Our thread must not be
 * inside of it then.
 */
static void quit(void *unused)
{
	(void)unused;
	if (!pen_cu_watched() || atomic_exchange(&helper.quit, 1))
		return;
	pen_cu_gate_end_all();
	atomic_fetch_add(&helper.word, 1);
	pen_futex_wake(&helper.word, 1);
	uint64_t until = pen_mono_ns() + QUIT_NS;
	while (atomic_load(&helper.quit) == 1 && pen_mono_ns() < until)
		pen_futex_wait(&helper.quit, 1, QUIT_NS / 10);
}

/* As pthread_create(): its header is not for a library that must do without that library. */
typedef int (*create_fn)(unsigned long *thread, const void *attr, void *(*run)(void *), void *arg);

typedef int (*detach_fn)(unsigned long thread);

static void *find(const char *name)
{
	void *f = dlsym(RTLD_DEFAULT, name);
	if (f)
		return f;
	void *lib = dlopen("libpthread.so.0", RTLD_NOW);   /* an older C library, and a program without threads of its own */
	return lib ? dlsym(lib, name) : NULL;
}

#define SIGSET_BYTES 8   /* of the kernel's set */
#define SET_MASK 2       /* SIG_SETMASK; signal.h has it among much that we must not call */

/* Signals are the application's: a thread of ours takes none. The set is inherited at the birth. */
static int create_quiet(void)
{
	create_fn create;
	detach_fn detach;
	void *c = find("pthread_create"), *d = find("pthread_detach");
	unsigned long thread;
	uint64_t all = UINT64_MAX, old = 0;
	if (!c || !d)
		return -ENOSYS;
	__builtin_memcpy(&create, &c, sizeof(create));
	__builtin_memcpy(&detach, &d, sizeof(detach));
	syscall(SYS_rt_sigprocmask, SET_MASK, &all, &old, SIGSET_BYTES);
	int r = create(&thread, NULL, run, NULL);
	syscall(SYS_rt_sigprocmask, SET_MASK, &old, NULL, SIGSET_BYTES);
	if (!r)
		detach(thread);
	return -r;
}

static void start(void)
{
	uint32_t me = pen_forklock_process();
	pen_forklock_take(&helper.making);
	if (atomic_load(&helper.process) != me) {
		atomic_store(&helper.asleep, 0);
		atomic_store(&helper.quit, 0);
		if (create_quiet() == 0) {
			atomic_store(&helper.process, me);
			if (!helper.told_exit)
				helper.told_exit = __cxa_atexit(quit, NULL, &__dso_handle) == 0;
		}
	}
	pen_forklock_give(&helper.making);
}

/* Adapter slot. */
void pen_cu_watch(void *device)
{
	struct pen_cu_gating *g = pen_cu_gating(device);
	int saved = errno;
	if (!g)
		return;
	if (!atomic_exchange(&g->listed, 1)) {
		struct pen_cu_gating *head = atomic_load(&helper.list);
		do
			g->next_watched = head;
		while (!atomic_compare_exchange_weak(&helper.list, &head, g));
	}
	atomic_store(&g->watch, 1);
	if (pen_cu_watched())
		wake();
	else
		start();
	errno = saved;
}
