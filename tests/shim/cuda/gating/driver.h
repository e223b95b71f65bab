/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TESTS_CUDA_DRIVER_H
#define PEN_TESTS_CUDA_DRIVER_H
/*
 * A made-up CUDA driver in the test's own process, under the real hooks and a real gate on a board made by hand: what the files
 * that give work to a device are tested on. It knows time (a kernel takes as long as its function says, by the real clock, one after
 * the other on the device), order, captures and which calls are not allowed during one; it copies and fills for real. Every row
 * of cuda.def has an entry point; those not written out here only count.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/units.h"
#include "gate/internal.h"
#include "shim/cuda/gating.h"
#include "unit/gate_device.h"

enum fake_row {
#define PEN_CU(symbol, family, since, thread, class, types) FAKE_##symbol,
#include "api/cuda.def"
	FAKE_ROWS,
};

struct fake_fn { uint64_t dur_ns; };     /* a CUfunction points to one */
#define FN(f) ((CUfunction)(void *)&(f))

struct fake {
	_Atomic uint32_t calls[FAKE_ROWS];
	_Atomic uint32_t own_events;         /* made for the shim, not given back with a context */
	_Atomic uint32_t own_records;        /* ... recorded */
	_Atomic uint32_t captured;           /* commands that became nodes */
	/* broken promises */
	_Atomic uint32_t captured_own;       /* an event of the shim's went into a capture */
	_Atomic uint32_t invalidated;        /* unsafe calls while another thread had a global capture open */
	_Atomic uint32_t dead_events;        /* calls on events of a context that has gone */
	_Atomic uint32_t barriers;           /* events put into a legacy stream by a thread that did not use it */
	_Atomic uint32_t blocked_in_capture;
	_Atomic uint64_t busy_ns;            /* device time of all that was submitted */
	_Atomic uint64_t longest_ahead_ns;   /* most work that was ever queued */
	uint64_t h2d_ns_mib;                 /* copies: time of a MiB */
	_Atomic uint64_t kept_bytes;         /* of the allocator's, for what the driver made: it never goes */
	_Atomic bool failed;                 /* an error that stays: no host function is called any more */
	int launch_priority;                 /* attribute of the last cuLaunchKernelEx; 99: none */
};
extern struct fake fake;

/* A tenant of a board with its gate; everything of this process is its. May be called again: a new board, gate, driver. */
void fake_open(struct fake_board *b, uint32_t tenant);
struct pen_gate *fake_gate(void);
struct fake_board *fake_alone(void);
CUcontext fake_context(void);            /* a new one, current */
CUstream fake_stream(unsigned int flags);/* by the hook */
void fake_primary(CUcontext c);          /* of the device, held by somebody else as well */
CUevent fake_event(void);                /* an event of the application's */
CUresult fake_launch(CUfunction f, unsigned int grid, CUstream s);   /* by the hook, blocks of 256 */
void fake_uses(CUstream s);              /* this thread's next call is for it */
int fake_priority(CUstream s);           /* as the driver has it */
void fake_hold(CUstream s);              /* nothing in it begins */
void fake_unblock(CUstream s);           /* what its wait-value waited for has come */
bool fake_is_shut(void);                 /* the device-side gate */
uint32_t fake_busy(void);                /* state of the own busy word */
/* Nothing in flight any more, by looking alone; a bound. */
void fake_settle(void);
void fake_assert_clean(void);            /* no broken promise */

#endif
