/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TESTS_GATE_DEVICE_H
#define PEN_TESTS_GATE_DEVICE_H
/*
 * A made-up accelerator with in-order queues, and a board made by hand for it: what the gate's tests run on. One thread
 * executes commands, each for its declared time of the real clock, oldest first among the heads of the queues.
 */
#include "board/attach.h"
#include "gate/gate.h"

#include <pthread.h>

#define FAKE_TAGS 20000

/* What a test hands to pen_gate_cmd.native. Stays alive until it was executed. */
struct fake_cmd {
	uint64_t dur_ns;                 /* of the whole */
	uint32_t slices;                 /* as in pen_gate_cmd */
	uint32_t tag;                    /* written to the log when its last piece starts */
	const _Atomic uint32_t *until;   /* not runnable while 0; NULL = runnable */
	void (*then)(void *arg);         /* called by the device's thread at the end */
	void *arg;
	int refuse;                      /* code that submit returns instead */
	bool blocking;                   /* submit returns when all of the queue is done */
};

struct fake_queue {
	struct fake_dev *dev;
	struct fake_item *first, *last;
	uint32_t unfinished, marks;
};

struct fake_dev {
	pthread_mutex_t lock;
	pthread_cond_t work, idle;
	pthread_t thread;
	struct pen_adapter adapter;
	struct fake_queue *queue[16];
	uint32_t nqueues;
	bool stop, lazy;                 /* lazy: nothing runs before a flush, a finish or an edge */
	bool holds_back;                 /* what it would call back is kept in late[], for fake_call_back() */
	struct pen_mark *late[FAKE_TAGS];
	uint32_t nlate;
	uint64_t flushed, submitted;     /* running numbers of items */
	/* what really happened */
	uint64_t busy_ns, last_end_ns, outstanding_ns, outstanding_max_ns;
	_Atomic uint64_t executed;
	uint32_t log[FAKE_TAGS], nlog;
	uint32_t marks, marks_ever;      /* that exist, that were ever made */
	uint32_t marks_max;              /* most that existed on one queue at once */
	uint32_t flushes, capturing;
	_Atomic uint32_t gate_word, gate_moves;  /* device-side gate: passes up to; times it was told */
	_Atomic uint32_t gated;          /* commands that it stood in front of */
	_Atomic uint32_t *running, *running_other;  /* shared between processes: who executes now */
	_Atomic uint32_t *violations;
	_Atomic uint64_t *ended;         /* end of the last command */
};

/* @caps, @marks_max: of struct pen_adapter. */
struct fake_dev *fake_dev_start(uint32_t caps, uint32_t marks_max);
void fake_dev_stop(struct fake_dev *d);      /* everything submitted must be executed */
struct fake_queue *fake_queue_new(struct fake_dev *d);
void fake_finish(struct fake_queue *q);      /* the native call: waits until the queue is empty */
int fake_submit(struct fake_queue *q, const struct fake_cmd *c);   /* the native call of an admitted command */
void fake_gate_have(struct fake_dev *d);     /* the device has a gate */
void fake_idle(struct fake_dev *d);          /* waits until nothing is left to execute */

/* ---- board ---- */

#define FAKE_TENANTS 4

struct fake_board {                          /* shared with forked processes */
	struct pen_terms_page *terms[FAKE_TENANTS];
	struct pen_ledger_page *ledger[FAKE_TENANTS];
	unsigned char *signals;              /* PEN_SEATS pages */
	struct pen_terms base[FAKE_TENANTS]; /* last published */
	struct fake_board *next;             /* all there are: gates are never closed, so boards stay */
};

/* Tenant i sits on seat i with rank @rank[i]; @n of them are taken. Unlimited, exclusive, windows 4 ms / 400 us. */
struct fake_board *fake_board_new(uint32_t n, const uint16_t *rank);
void fake_board_publish(struct fake_board *b, uint32_t tenant);   /* base[tenant] -> its page */
/* The device as client @client of tenant @tenant on seat @seat sees it. */
void fake_board_device(struct fake_board *b, uint32_t tenant, uint32_t seat, uint32_t client, struct pen_attach_device *d);
struct pen_signal_page *fake_board_signal(struct fake_board *b, uint32_t seat);

#endif
