/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real driver: where it lies, its entry points, and where the trampolines lead from then on.
 *
 * Both libraries say libcuda.so.1, so the real one is opened by its path (base/driverfile.h) and asked through its own handle. Two
 * copies of us that took each other for the driver would call each other for ever: our file has a note by which it is passed over.
 *
 * No lock is held while the driver is opened: another thread may hold the loader's lock and be about to call us. Threads
 * that come at the same time all open it, which the loader counts, and one of them writes the tables.
 */
#include "shim/cuda/cu.h"
#include "shim/cuda/table.h"

#include "base/cancel.h"
#include "base/driverfile.h"
#include "base/log.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct pen_cu_table pen_cu_real;
_Thread_local struct pen_cu_thread pen_cu_thread __attribute__((tls_model("initial-exec")));

static _Thread_local bool loading __attribute__((tls_model("initial-exec")));
static struct pen_forklock publish_lock = PEN_FORKLOCK_INIT;
static _Atomic uint32_t state;          /* 0 not loaded; 1 loaded; 2 there is no driver */
static _Atomic uint32_t locks_ready;    /* 0 no; 1 somebody is at it; 2 yes */
static _Atomic bool managed;
static _Atomic int driver_version;
static void *driver;                    /* handle; written before state */

/* ---- which file ------------------------------------------------------------------------------------------------- */

/* An address inside our own trampolines: what dlsym() of a library answers that needs libcuda.so.1 itself. */
static bool is_ours(const void *address)
{
	return (const char *)address >= pen_cu_stubs_begin && (const char *)address < pen_cu_stubs_end;
}

/* base/driverfile.h: one that may be it. */
static bool open_driver(void *arg, const char *path)
{
	void **ret_handle = arg, *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	void *init = handle ? dlsym(handle, "cuInit") : NULL;
	if (!init || is_ours(init)) {
		pen_log(PEN_LOG_DEBUG, "cuda: %s is not the driver", path);
		return false;   /* kept open: what it started may still run */
	}
	pen_log(PEN_LOG_DEBUG, "cuda: the driver is %s", path);
	*ret_handle = handle;
	return true;
}

/* ---- once ---------------------------------------------------------------------------------------------------------- */

/* Locks need their page before threads meet at them. Short, without a call to the loader: waited for. */
static void prepare_locks(void)
{
	uint32_t seen = 0;
	if (atomic_compare_exchange_strong(&locks_ready, &seen, 1)) {
		pen_forklock_setup();
		atomic_store(&locks_ready, 2);
		pen_futex_wake(&locks_ready, INT_MAX);
		return;
	}
	/* Bounded: a child that was forked in between finds nobody at it. */
	for (int i = 0; i < 1000 && atomic_load(&locks_ready) != 2; i++)
		pen_futex_wait(&locks_ready, 1, UINT64_C(1000000));
}

static void publish(void *handle, const pen_cu_any_fn *real)
{
	pen_forklock_take(&publish_lock);
	if (!atomic_load(&state)) {
		bool hooks = pen_gate_managed() != PEN_UNMANAGED;
		driver = handle;
		memcpy(&pen_cu_real, real, sizeof(pen_cu_real));
		if (hooks)
			pen_cu_resolve_prepare();
		atomic_store(&managed, hooks);
		for (uint32_t i = 0; i < PEN_CU_ROWS; i++) {
			pen_cu_any_fn to = real[i];
			if (!to)
				to = (pen_cu_any_fn)(!handle && i == PEN_CU_ROW_cuInit ? pen_cu_no_device : pen_cu_not_found);
			else if (hooks && pen_cu_rows[i].hook)
				to = pen_cu_rows[i].hook;
			atomic_store_explicit(&pen_cu_to[i], to, memory_order_release);
		}
		atomic_store_explicit(&state, handle ? 1 : 2, memory_order_release);
		if (!handle)
			pen_log(PEN_LOG_DEBUG, "cuda: no driver library found");
	}
	pen_forklock_give(&publish_lock);
}

int pen_cu_load(void)
{
	uint32_t s = atomic_load_explicit(&state, memory_order_acquire);
	if (!s && loading)
		return -EBUSY;
	if (!s) {
		PEN_NO_CANCEL;
		pen_cu_any_fn real[PEN_CU_ROWS] = { NULL };
		loading = true;
		prepare_locks();
		void *handle = NULL;
		pen_driverfile_each("libcuda.so.1", secure_getenv("LD_LIBRARY_PATH"), open_driver, &handle);
		for (uint32_t i = 0; handle && i < PEN_CU_ROWS; i++) {
			void *found = dlsym(handle, pen_cu_rows[i].symbol);
			if (found && !is_ours(found))
				memcpy(&real[i], &found, sizeof(found));
		}
		publish(handle, real);
		loading = false;
		s = atomic_load_explicit(&state, memory_order_acquire);
	}
	return s == 1 ? 0 : -ENOENT;
}

bool pen_cu_driver_has(const char *name)
{
	return driver && dlsym(driver, name);
}

bool pen_cu_managed(void)
{
	return atomic_load_explicit(&managed, memory_order_relaxed);
}

int pen_cu_driver_version(void)
{
	int v = atomic_load_explicit(&driver_version, memory_order_relaxed);
	if (!v && REAL(cuDriverGetVersion) && REAL(cuDriverGetVersion)(&v) == CUDA_SUCCESS)
		atomic_store_explicit(&driver_version, v, memory_order_relaxed);
	return v;
}
