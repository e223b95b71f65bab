/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real library: where it lies, its entry points, and where our names lead from then on.
 *
 * Both say libnvidia-ml.so.1, so the real one is opened by its path (base/driverfile.h) and asked through its own handle. No lock
 * is held meanwhile: another thread may hold the loader's lock and be about to call us. Threads that come at the same time all open
 * it, which the loader counts, and one of them writes the table.
 */
#include "shim/nvml/nv.h"

#include "base/cancel.h"
#include "base/driverfile.h"
#include "base/lock.h"
#include "base/log.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct pen_nv_table pen_nv_real;

static _Thread_local bool loading __attribute__((tls_model("initial-exec")));
static struct pen_forklock publish_lock = PEN_FORKLOCK_INIT;
static _Atomic uint32_t state;          /* 0 not loaded; 1 loaded; 2 there is no library */
static _Atomic uint32_t locks_ready;    /* 0 no; 1 somebody is at it; 2 yes */

static const char *const names[PEN_NV_ROWS] = {
#define PEN_NV(symbol, since, class, types) #symbol,
#include "api/nvml.def"
};

enum { CLASS_INIT, CLASS_INFO, CLASS_PASS, CLASS_REFUSE };
static const uint8_t classes[PEN_NV_ROWS] = {
#define PEN_NV(symbol, since, class, types) CLASS_##class,
#include "api/nvml.def"
};

#define HOOK_INFO(symbol) (pen_nv_any_fn)pen_##symbol
#define HOOK_INIT(symbol) NULL
#define HOOK_PASS(symbol) NULL
#define HOOK_REFUSE(symbol) NULL
static const pen_nv_any_fn hooks[PEN_NV_ROWS] = {
#define PEN_NV(symbol, since, class, types) HOOK_##class(symbol),
#include "api/nvml.def"
};

/* ---- where a name leads when it is not the real library's ------------------------------------------------------------- */

static nvmlReturn_t not_found(void)
{
	return NVML_ERROR_FUNCTION_NOT_FOUND;
}

static nvmlReturn_t no_library(void)
{
	return NVML_ERROR_LIBRARY_NOT_FOUND;
}

/* Of everything that changes a device: it is not this tenant's alone. */
static nvmlReturn_t refused(void)
{
	return NVML_ERROR_NO_PERMISSION;
}

static const char *no_text(nvmlReturn_t code)
{
	return code == NVML_ERROR_LIBRARY_NOT_FOUND ? "NVML shared library could not be found or loaded" : "Unknown Error";
}

static pen_nv_any_fn lead(uint32_t row, pen_nv_any_fn real, bool have_library, bool managed)
{
	if (!have_library)
		return row == PEN_NV_ROW_nvmlErrorString ? (pen_nv_any_fn)no_text : (pen_nv_any_fn)no_library;
	if (managed && classes[row] == CLASS_REFUSE && real)
		return (pen_nv_any_fn)refused;
	if (managed && hooks[row])
		return hooks[row];
	return real ? real : row == PEN_NV_ROW_nvmlErrorString ? (pen_nv_any_fn)no_text : (pen_nv_any_fn)not_found;
}

/* ---- once ---------------------------------------------------------------------------------------------------------------- */

static bool open_library(void *arg, const char *path)
{
	void **ret_handle = arg, *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	void *init = handle ? dlsym(handle, "nvmlInit_v2") : NULL;
	if (!init || pen_nv_is_ours(init)) {
		pen_log(PEN_LOG_DEBUG, "nvml: %s is not the driver's", path);
		return false;   /* kept open: what it started may still run */
	}
	*ret_handle = handle;
	return true;
}

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

static void publish(void *handle, const pen_nv_any_fn *real)
{
	pen_forklock_take(&publish_lock);
	if (!atomic_load(&state)) {
		bool managed = pen_gate_managed() != PEN_UNMANAGED;
		memcpy(&pen_nv_real, real, sizeof(pen_nv_real));
		for (uint32_t i = 0; i < PEN_NV_ROWS; i++)
			atomic_store_explicit(&pen_nv_to[i], (pen_nv_raw_fn)lead(i, real[i], handle, managed), memory_order_release);
		atomic_store_explicit(&state, handle ? 1 : 2, memory_order_release);
		if (!handle)
			pen_log(PEN_LOG_DEBUG, "nvml: no library of the driver found");
	}
	pen_forklock_give(&publish_lock);
}

pen_nv_raw_fn pen_nv_enter(uint32_t row)
{
	_Static_assert(sizeof(struct pen_nv_table) == PEN_NV_ROWS * sizeof(pen_nv_any_fn), "a table of entry points");
	if (loading)   /* out of the real library's own start */
		return (pen_nv_raw_fn)(row == PEN_NV_ROW_nvmlErrorString ? (pen_nv_any_fn)no_text : (pen_nv_any_fn)no_library);
	if (!atomic_load_explicit(&state, memory_order_acquire)) {
		PEN_NO_CANCEL;
		pen_nv_any_fn real[PEN_NV_ROWS] = { NULL };
		void *handle = NULL;
		loading = true;
		prepare_locks();
		pen_driverfile_each("libnvidia-ml.so.1", secure_getenv("LD_LIBRARY_PATH"), open_library, &handle);
		for (uint32_t i = 0; handle && i < PEN_NV_ROWS; i++) {
			void *found = dlsym(handle, names[i]);
			if (found && !pen_nv_is_ours(found))
				memcpy(&real[i], &found, sizeof(found));
		}
		publish(handle, real);
		loading = false;
	}
	return atomic_load_explicit(&pen_nv_to[row], memory_order_acquire);
}
