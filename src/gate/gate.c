/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gates of this process: is it managed, attaching, forks, and the connection to the daemon.
 *
 * A forked child finds the fork flag cleared and every hot page wiped. The first call that notices puts all gates back to
 * "detached": locks that another thread of the parent held are made new, nothing is in flight, nothing is charged; the
 * next use attaches. What the parent had given to the device stays the parent's.
 */
#include "base/auto.h"
#include "base/log.h"
#include "board/feature.h"
#include "board/mem.h"
#include "gate/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define TERMS_WAIT_NS (2 * PEN_S)
#define RETURN_NS (100 * PEN_MS)   /* an idle program waits so long for a restarted daemon; it usually takes one or two */

static struct {
	struct pen_lock lock;              /* opening and attaching; never taken on the way of a command */
	struct pen_fork_flag fork;
	_Atomic uint32_t fork_owner;       /* process that resets the gates */
	_Atomic uint32_t managed;          /* enum pen_managed + 1; 0 = not looked yet */
	_Atomic uint32_t told;             /* the one line was written */
	bool attach_ready;
	char dir[PEN_TENANT_DIR_MAX];
	struct pen_attach attach;
	struct pen_gate *_Atomic first;
} process;

static void tell(const char *what, const char *text)
{
	if (!atomic_exchange(&process.told, 1))
		pen_log(PEN_LOG_ERROR, "%s%s%s; accelerators are not available to this process", what,
			*text ? ": " : "", text);
}

/* ---- fork ------------------------------------------------------------------------------------------------------- */

static void gate_after_fork(struct pen_gate *g)
{
	pen_lock_init(&g->lock);
	pen_gate_costs_after_fork(g->costs);
	/* Lists may have been cut in the middle: they are left to the parent. */
	g->queues = NULL;
	g->pool = g->zombies = NULL;
	atomic_store(&g->freed, NULL);
	memset(&g->st, 0, sizeof(g->st));
	g->nflight = g->nheld = g->nwant = g->nmore = g->nseatwait = 0;
	g->active = g->warm_up = false;
	g->attached = 0;
	g->nforeign = g->nothers = 0;
	g->watched = PEN_GATE_UNWATCHED;
	memset(&g->devgate, 0, sizeof(g->devgate));
	g->units_set = 0;
	atomic_store(&g->missing_since_ns, 0);
	atomic_store(&g->mem_bytes, 0);
	atomic_store(&g->pending, 0);
	atomic_store(&g->kick_waiters, 0);
	atomic_store(&g->connection_ns, 0);
	atomic_store(&g->denial_logged, 0);
	atomic_store(&g->hot->nwatch, 0);
	atomic_store(&g->hot->seen_epoch, 0);
	atomic_fetch_add(&g->fork_count, 1);
}

static void after_fork(void)
{
	uint32_t me = (uint32_t)getpid();
	uint32_t owner = atomic_load(&process.fork_owner);
	bool mine = owner != me && atomic_compare_exchange_strong(&process.fork_owner, &owner, me);
	/* Another thread of this child does it; or, in a new pid namespace, the parent had our number: then nobody does. */
	for (unsigned i = 0; !mine && i < 100 && !pen_fork_flag_is_set(&process.fork); i++)
		pen_futex_wait(&process.fork_owner, me, PEN_MS);
	if (pen_fork_flag_is_set(&process.fork))
		return;
	pen_lock_init(&process.lock);
	atomic_store(&process.managed, 0);
	atomic_store(&process.told, 0);
	for (struct pen_gate *g = atomic_load(&process.first); g; g = g->next)
		gate_after_fork(g);
	if (process.attach_ready)
		pen_attach_after_fork(&process.attach);
	pen_fork_flag_set(&process.fork);
}

static void process_check(void)
{
	if (pen_fork_flag_is_set(&process.fork))
		return;
	if (process.fork.word) {
		after_fork();
		return;
	}
	pen_lock(&process.lock);
	if (!process.fork.word && pen_fork_flag_create(&process.fork) == 0) {
		atomic_store(&process.fork_owner, (uint32_t)getpid());
		pen_fork_flag_set(&process.fork);
	}
	pen_unlock(&process.lock);
}

/* ---- managed? --------------------------------------------------------------------------------------------------- */

static bool dir_opens(const char *path)
{
	pen_auto_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd >= 0;
}

static enum pen_managed look_for_dir(void)
{
	const char *path = NULL;
	/* Not stat(): its symbol is newer than the oldest C library. Anything but "not there" counts as there: fail closed. */
	if (access(PEN_TENANT_MOUNT, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR))
		path = PEN_TENANT_MOUNT;
	else
		path = secure_getenv(PEN_TENANT_ENV);
	if (!path || !*path)
		return PEN_UNMANAGED;
	if (strlen(path) >= sizeof(process.dir) || !dir_opens(path)) {
		tell("the tenant directory cannot be opened", path);
		return PEN_REFUSED;
	}
	memcpy(process.dir, path, strlen(path) + 1);
	return PEN_MANAGED;
}

enum pen_managed pen_gate_managed(void)
{
	process_check();
	uint32_t m = atomic_load_explicit(&process.managed, memory_order_acquire);
	if (m)
		return (enum pen_managed)(m - 1);
	int saved = errno;
	pen_lock(&process.lock);
	m = atomic_load_explicit(&process.managed, memory_order_relaxed);
	if (!m) {
		m = (uint32_t)look_for_dir() + 1;
		atomic_store_explicit(&process.managed, m, memory_order_release);
	}
	pen_unlock(&process.lock);
	errno = saved;
	return (enum pen_managed)(m - 1);
}

/* ---- attaching -------------------------------------------------------------------------------------------------- */

static void nap(struct pen_gate *g)
{
	pen_futex_wait(&g->kick, atomic_load(&g->kick), PEN_MS);
}

int pen_gate_bind(struct pen_gate *g)
{
	uint64_t end = pen_mono_ns() + TERMS_WAIT_NS;
	for (;;) {
		pen_gate_lock(g);
		pen_gate_refresh(g);
		pen_gate_unlock(g);
		if (pen_gate_attached(g))
			return 0;
		if (pen_mono_ns() >= end)
			return -EAGAIN;
		if (g->attach)
			pen_attach_step(g->attach, pen_mono_ns());
		nap(g);
	}
}

static void units_apply(struct pen_gate *g)
{
	uint32_t units = pen_gate_terms_(g)->units;
	if (!g->ad->set_units || units == atomic_load(&g->units_set))
		return;
	atomic_store(&g->units_set, units);
	(void)g->ad->set_units(g->native, units);   /* -ENOTSUP: the time gate does without */
}

/* First attach of this gate in this process. process.lock held. */
static int attach_now(struct pen_gate *g)
{
	if (pen_gate_attached(g))
		return 0;
	if (!g->attach && !g->reattach)
		return -EACCES;
	int r = g->attach ? pen_attach_wait(g->attach, g->dev, PEN_ATTACH_WAIT_NS) : g->reattach(g->dev);
	if (r == 0)
		r = pen_gate_bind(g);
	if (r == 0)
		return 0;
	if (r == -EACCES)
		tell("the daemon refused this process", g->attach ? g->attach->text : "");
	else if (r == -EAGAIN)
		tell("the daemon cannot be reached", process.dir);
	else   /* a program looks at every card of a node; that it may not use one is no fault */
		pen_log(PEN_LOG_DEBUG, "%s is not for this contract (%d)", g->key, r);
	return r == -EAGAIN ? r : -EACCES;
}

int pen_gate_ready_slow_(struct pen_gate *g)
{
	process_check();
	if (pen_gate_attached(g))
		return 0;
	if (g->attach && pen_gate_managed() != PEN_MANAGED)
		return -EACCES;
	int saved = errno;
	pen_lock(&process.lock);
	int r = atomic_load(&g->refused) ? -EACCES : attach_now(g);
	if (r == -EACCES)
		atomic_store(&g->refused, 1);
	pen_unlock(&process.lock);
	if (r == 0)
		units_apply(g);
	errno = saved;
	return r;
}

bool pen_gate_forked_(void)
{
	return !pen_fork_flag_is_set(&process.fork);
}

bool pen_gate_marks_(void)
{
	uint32_t marker = atomic_load_explicit(&pen_gate_marker, memory_order_relaxed);
	return marker && marker == atomic_load_explicit(&process.fork_owner, memory_order_relaxed);
}

/* Nothing of this process is on the device or wants to be there. */
static bool is_idle(struct pen_gate *g)
{
	return PEN_BUSY_STATE(atomic_load_explicit(&g->dev->signal->busy, memory_order_relaxed)) == PEN_BUSY_IDLE;
}

/*
 * A step. If an idle program finds a restarted daemon by it, all the way back to the seat, so that its very first call is
 * made under the new terms and seen by the new daemon. That is the one wait for an answer outside of the first attach: once
 * per connection, and never for a program in the middle of its work, which takes the answer with its next look.
 */
static int step_or_return(struct pen_gate *g, uint64_t now_ns, bool idle)
{
	uint32_t before = atomic_load_explicit(&g->dev->seat_state, memory_order_relaxed);
	int r = pen_attach_step(g->attach, now_ns);
	uint32_t after = atomic_load_explicit(&g->dev->seat_state, memory_order_relaxed);
	if (r < 0 || !idle || before == PEN_SEAT_STATE_ADOPTING || after != PEN_SEAT_STATE_ADOPTING ||
	    (g->ad->in_callback && g->ad->in_callback()))
		return r;
	r = pen_attach_return(g->attach, g->dev, RETURN_NS);
	return r == -EACCES ? r : 0;
}

/*
 * Looks at the connection: packets that have come, a hang-up, a daemon that is back. One thread at a time, at most every
 * 100 ms, or every millisecond while a neighbour's page is missing.
 */
void pen_gate_connection(struct pen_gate *g, uint64_t now_ns)
{
	uint64_t due = atomic_load_explicit(&g->connection_ns, memory_order_relaxed);
	/* The caller's time may be that of its last command, which for an idle program is long ago. */
	bool idle = is_idle(g);
	if (now_ns < due && idle)
		now_ns = pen_gate_now(g);
	if (now_ns < due)
		return;
	idle = idle && now_ns - due > PEN_GATE_CONNECTION_NS;   /* periodic work finds an idle device at each period too */
	uint64_t missing = atomic_load(&g->missing_since_ns);
	uint64_t next = now_ns + (missing ? PEN_GATE_FETCH_NS : PEN_GATE_CONNECTION_NS);
	if (!atomic_compare_exchange_strong(&g->connection_ns, &due, next))
		return;
	units_apply(g);
	if (!g->attach)
		return;
	int saved = errno;
	int r = step_or_return(g, now_ns, idle);
	if (r == -EACCES) {
		tell("the daemon refused this process", g->attach->text);
		atomic_store(&g->refused, 1);
		atomic_store(&g->hot->seen_epoch, 0);
	} else if (missing && now_ns - PEN_MIN(missing, now_ns) > PEN_GATE_RESEND_NS) {
		pen_attach_resend(g->attach, g->dev);
		atomic_store(&g->missing_since_ns, now_ns);
	}
	errno = saved;
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

static struct pen_gate_hot *hot_new(void)
{
	_Static_assert(sizeof(struct pen_gate_hot) <= PEN_PAGE_BYTES, "one page");
	void *p = mmap(NULL, PEN_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	(void)madvise(p, PEN_PAGE_BYTES, MADV_WIPEONFORK);   /* else the fork flag alone tells, by process id */
	return p;
}

static int gate_new(const struct pen_adapter *ad, const struct pen_gate_device *dev, struct pen_gate **ret)
{
	if (ad->abi != PEN_ADAPTER_ABI || ad->size < sizeof(*ad) || strlen(dev->key) >= PEN_DEVKEY_MAX)
		return -EINVAL;
	pen_auto_free struct pen_gate *g = calloc(1, sizeof(*g));
	if (!g || pen_gate_costs_create(&g->costs) < 0)
		return -ENOMEM;
	g->hot = hot_new();
	if (!g->hot) {
		free(g->costs);
		return -ENOMEM;
	}
	g->ad = ad;
	g->native = dev->native;
	g->mem_device_bytes = dev->mem_bytes;
	memcpy(g->key, dev->key, strlen(dev->key) + 1);
	*ret = PEN_TAKE_PTR(g);
	return 0;
}

static void gate_register(struct pen_gate *g)
{
	g->next = atomic_load(&process.first);
	while (!atomic_compare_exchange_weak(&process.first, &g->next, g))
		;
}

struct pen_gate *pen_gate_next(struct pen_gate *g)
{
	g = g ? g->next : atomic_load(&process.first);
	while (g && (atomic_load(&g->ad)->caps & PEN_ADAPTER_OBSERVER || !g->dev))
		g = g->next;
	return g;
}

static struct pen_gate *gate_find(const char *key)
{
	for (struct pen_gate *g = atomic_load(&process.first); g; g = g->next)
		if (g->attach && !strcmp(g->key, key))
			return g;
	return NULL;
}

/* process.lock held. */
static int gate_make(const struct pen_adapter *ad, const struct pen_gate_device *dev, struct pen_gate **ret)
{
	int r = 0;
	if (!process.attach_ready) {
		r = pen_attach_init(&process.attach, process.dir);
		if (r < 0)
			return -EACCES;
		process.attach_ready = true;
	}
	struct pen_gate *g;
	r = gate_new(ad, dev, &g);
	if (r < 0)
		return r;
	const struct pen_attach_want want = {
		.key = dev->key, .model = dev->model, .mem_bytes = dev->mem_bytes, .units = dev->units,
	};
	r = pen_attach_add(&process.attach, &want, &g->dev);
	if (r < 0) {
		free(g->costs);
		free(g);
		return r == -EBUSY ? -EAGAIN : -EACCES;
	}
	g->attach = &process.attach;
	gate_register(g);
	*ret = g;
	return 0;
}

/* Somebody looked at the device before anybody used it. process.lock held. */
static void take_over(struct pen_gate *g, const struct pen_adapter *adapter, const struct pen_gate_device *dev)
{
	const struct pen_adapter *now = g->ad;
	if (!(now->caps & PEN_ADAPTER_OBSERVER) || adapter->caps & PEN_ADAPTER_OBSERVER)
		return;
	g->native = dev->native;
	g->mem_device_bytes = dev->mem_bytes;
	g->ad = adapter;
}

int pen_gate_open(const struct pen_adapter *adapter, const struct pen_gate_device *dev, struct pen_gate **ret_gate)
{
	enum pen_managed m = pen_gate_managed();
	if (m != PEN_MANAGED)
		return m == PEN_REFUSED ? -EACCES : -ENOTCONN;
	int saved = errno;
	pen_lock(&process.lock);
	struct pen_gate *g = gate_find(dev->key);
	int r = g ? 0 : gate_make(adapter, dev, &g);
	if (r == 0)
		take_over(g, adapter, dev);
	pen_unlock(&process.lock);
	if (r == 0)
		r = pen_gate_ready(g);
	errno = saved;
	if (r == 0)
		*ret_gate = g;
	return r;
}

int pen_gate_open_device(const struct pen_adapter *adapter, const struct pen_gate_device *dev,
			 struct pen_attach_device *d, int (*reattach)(struct pen_attach_device *d),
			 struct pen_gate **ret_gate)
{
	process_check();
	struct pen_gate *g;
	int r = gate_new(adapter, dev, &g);
	if (r < 0)
		return r;
	g->dev = d;
	g->reattach = reattach;
	gate_register(g);
	r = pen_gate_bind(g);
	if (r == 0)
		*ret_gate = g;
	return r;
}
