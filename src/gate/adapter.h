/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_GATE_ADAPTER_H
#define PEN_GATE_ADAPTER_H
/*
 * What one accelerator API must provide to the gate. No vendor type appears here; a new API is one table of these slots
 * and the hooks that call gate.h. The same test suite runs over every adapter (tests/unit/gate_suite.h), among them a
 * made-up one with the scarcest API's limits: no timestamps, one stream, three events.
 *
 * General: the gate calls slots without holding a lock. A slot never blocks without the bound that it is given, never
 * calls back into the gate except where said. "native" pointers are the shim's and opaque to the gate. Optional slots
 * may be NULL; then the gate does what the slot's text says.
 */
#include <stdbool.h>
#include <stdint.h>

#define PEN_ADAPTER_ABI 1

struct pen_gate_queue;

/*
 * A mark: a point in a queue whose completion can be seen (cl_event, CUevent, aclrtEvent, CNnotifier). The storage is
 * the gate's, `native` the adapter's; {0} = none. Marks of in-order queues complete in order.
 */
struct pen_mark {
	void *native;
	uint64_t extra;        /* the adapter's */
	_Atomic uint32_t done; /* 0; 1 complete; 2 failed: set by the gate's pen_gate_mark_done() or after mark_poll */
	uint32_t timed;        /* the adapter may read device timestamps of it */
};

/* A run of slices of one command: [first, first + count) of cmd->slices. whole = it was not cut. */
struct pen_piece {
	uint32_t first, count;
	bool whole, last;
	uint32_t gate;         /* not 0: in front of it stands a wait for that number (device-side gate) */
};

/* Bits of pen_adapter.caps */
#define PEN_ADAPTER_TIMESTAMPS UINT32_C(1)   /* mark_time works on this device */
#define PEN_ADAPTER_NOTIFY UINT32_C(2)       /* completion of a mark calls pen_gate_mark_done() by itself */
#define PEN_ADAPTER_IN_SUBMIT UINT32_C(4)    /* submit can return a mark of the command itself; else mark_record follows it */
#define PEN_ADAPTER_LOOSE_START UINT32_C(16) /* a mark starts when the device comes to it: on an idle device a little before the command, which
                                                the host has yet to bring */
#define PEN_ADAPTER_OBSERVER UINT32_C(8)     /* has no queues, it only looks (a management library): gives way to one that has. Of the
                                                slots only oom_code is there */

/* Why a memory request is refused, for oom_code. */
enum pen_denial { PEN_DENY_QUOTA, PEN_DENY_TOO_LARGE, PEN_DENY_NO_DEVICE, PEN_DENIAL_MAX_ };

struct pen_adapter {
	uint32_t abi, size;    /* PEN_ADAPTER_ABI, sizeof(struct pen_adapter) */
	const char *name;      /* "opencl" */
	uint32_t caps;
	uint32_t marks_max;    /* marks that may exist at once per queue; the gate never asks for more. UINT32_MAX = plenty */

	/*
	 * submit - give one piece of a command to the device, in the caller's thread
	 * @native: pen_gate_cmd.native. @mark: NULL, or to be filled with a mark of this piece (IN_SUBMIT only).
	 * Return: the API's own code; 0 = accepted. The mark stays {0} on failure. Mandatory.
	 */
	int (*submit)(struct pen_gate_queue *q, void *native, const struct pen_piece *piece, struct pen_mark *mark);
	/* Records a mark behind everything that is in the queue now. 0 or negative errno. Mandatory. */
	int (*mark_record)(struct pen_gate_queue *q, struct pen_mark *mark);
	/* 1 complete, 0 not yet, negative errno: failed (counts as complete). Never blocks. Mandatory. */
	int (*mark_poll)(struct pen_mark *mark);
	/*
	 * Waits for a mark at most @bound_ns. 0 complete, -ETIMEDOUT, or negative errno: failed. Not called if NOTIFY: the gate then
	 * sleeps until pen_gate_mark_done(). NULL without NOTIFY: it calls mark_poll, in steps that grow from 20 us to 1 ms.
	 */
	int (*mark_wait)(struct pen_mark *mark, uint64_t bound_ns);
	/* Gives the mark back. Called once for each mark that was filled, also if it failed. Mandatory. */
	void (*mark_release)(struct pen_mark *mark);
	/*
	 * Device time between the start of @first's command and the end of @last's (may be the same mark), on the line of
	 * CLOCK_MONOTONIC (the adapter knows the offset of its device clock). Only for marks with .timed.
	 * 0, or -ENODATA: the gate then uses host time, completion - max(submission, previous completion), of lower quality.
	 */
	int (*mark_time)(struct pen_mark *first, struct pen_mark *last, uint64_t *ret_start_ns, uint64_t *ret_end_ns);
	/* Pushes everything queued by this process on this device to it. Called before every wait. NULL: nothing to do. */
	void (*flush_all)(void *device_native);
	/* A capture (graph recording) is active on the queue: no marks, no waits. NULL: never. */
	bool (*capturing)(struct pen_gate_queue *q);
	/* The thread is inside a completion callback or host function: it must not wait. NULL: never. */
	bool (*in_callback)(void);
	/* Restricts the process to @units compute units from now on where the API can. 0 or -ENOTSUP. NULL: not supported. */
	int (*set_units)(void *device_native, uint32_t units);
	/* Hint to the driver how urgent this queue is, 0 = most. NULL: none. */
	void (*urgent_hint)(struct pen_gate_queue *q, unsigned level);
	/* The API's own code for a refused allocation. Mandatory. */
	int (*oom_code)(enum pen_denial why);
	/*
	 * Device-side gate. The device itself waits in front of a command until a number in memory has come: so a queue may be deep and
	 * still stops between two commands. gate_ready: can that be done in this queue now? May set it up, which may take a while
	 * once. gate_open: lets everything pass that waits for numbers up to @number, and nothing beyond; numbers wrap around. A
	 * store, no call of the driver's: it is made with the gate's lock held. NULL: there is none.
	 */
	bool (*gate_ready)(struct pen_gate_queue *q);
	void (*gate_open)(void *device_native, uint32_t number);
	/*
	 * Without NOTIFY: there is work in flight, and another tenant on the device. From now on pen_gate_watch() is to be called, at once and
	 * by whatever thread, until it returns 0; else the device would look taken until the application's next call. Called again
	 * before that only when somebody has begun to wait. NULL: nobody is there to look.
	 */
	void (*watch)(void *device_native);
};

#endif
