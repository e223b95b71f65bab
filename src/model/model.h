/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_MODEL_MODEL_H
#define PEN_MODEL_MODEL_H
/*
 * Timing model of one accelerator on a virtual clock: when would a card have started and ended this command?
 *
 * It knows contexts, channels (FIFOs), units filled by waves of blocks, time slices, DRAM shared max-min, copy engines, launch
 * latency and faults. It knows no bytes: what a command does to memory is done by whoever runs the model, on its hooks.
 * docs/SIMGPU.md says what is modelled, from which source, and how far to trust it.
 *
 * Time is an input, in ns, and never goes back; nothing is read from the machine. The same calls give the same answers.
 * Cost: O(kernels and copies that are running) per event.
 * Threads: one at a time per model. Lifetime: a context outlives its channels, the model outlives its contexts.
 */
#include <stdbool.h>
#include <stdint.h>

#include "model/card.h"

struct pen_model;
struct pen_model_context;
struct pen_model_channel;

enum pen_model_kind {
	PEN_MODEL_NOP,        /* takes no time: marks, stamps, writes of a word */
	PEN_MODEL_KERNEL,
	PEN_MODEL_COPY,
	PEN_MODEL_FILL,
	PEN_MODEL_WAIT,       /* for a command of another channel of the same model */
	PEN_MODEL_EXTERNAL,   /* for pen_model_finish(): host functions, words in memory */
};

enum pen_model_dir { PEN_MODEL_H2D, PEN_MODEL_D2H, PEN_MODEL_D2D, PEN_MODEL_H2H, PEN_MODEL_DIR_MAX_ };

struct pen_model_cmd {
	enum pen_model_kind kind;
	uint64_t tag;               /* the caller's, handed to the hooks */
	union {
		struct {
			uint64_t blocks;           /* of the grid */
			uint32_t threads;          /* of a block */
			uint32_t blocks_per_unit;  /* that fit by registers and shared memory; 0 = by threads alone */
			uint64_t block_ns;         /* one block's time where DRAM gives what it asks for */
			uint64_t dram_bytes;       /* of the whole grid */
			int32_t priority;          /* added to the channel's; less = more urgent */
		} kernel;
		struct {
			enum pen_model_dir dir;
			uint64_t bytes;
			bool pageable;             /* host memory that is not pinned */
		} copy;
		struct { uint64_t bytes; } fill;
		struct { uint64_t channel, seq; } wait;   /* pen_model_channel_id(); one that is gone is not waited for */
	};
};

/* What the hooks get to know of a command. */
struct pen_model_event {
	struct pen_model_channel *channel;
	void *user;                 /* the channel's */
	const struct pen_model_cmd *cmd;
	uint64_t seq;               /* number in its channel, from 1 on */
	uint64_t ready_ns;          /* when nothing but the device itself kept it back any more */
	uint64_t start_ns, now_ns;
};

/*
 * Called from pen_model_run(), _submit(), _finish() and what removes things, at the model's time of the event. They may submit,
 * and finish other commands; they must not remove contexts or channels, nor run the model.
 */
struct pen_model_hooks {
	void *user;
	void (*start)(void *user, const struct pen_model_event *e);
	/* false: the command has not ended for its channel until pen_model_finish(). Its units and engine are free all the same. */
	bool (*end)(void *user, const struct pen_model_event *e);
};

/* @card is copied. @hooks may be NULL, as may its functions. Return: 0 or -ENOMEM. */
int pen_model_create(const struct pen_card *card, bool concurrent, uint64_t now_ns, const struct pen_model_hooks *hooks,
		     struct pen_model **ret_model);
void pen_model_destroy(struct pen_model *m);                    /* with all that is in it; NULL is fine */

int pen_model_context_add(struct pen_model *m, struct pen_model_context **ret_context);
/* Its channels too; what they hold is dropped without a hook. */
void pen_model_context_remove(struct pen_model_context *c);
/* Drops all that its channels hold, without a hook; they stay. Return: number of commands dropped. */
uint64_t pen_model_context_drop(struct pen_model_context *c);

/* @priority: less = more urgent. @units: the most that its kernels occupy at once, 0 = all. @user: for the hooks. */
int pen_model_channel_add(struct pen_model_context *c, int32_t priority, uint32_t units, void *user,
			  struct pen_model_channel **ret_channel);
void pen_model_channel_remove(struct pen_model_channel *ch);    /* what it holds is dropped without a hook */
uint64_t pen_model_channel_id(const struct pen_model_channel *ch);   /* never used again, never 0 */
uint64_t pen_model_channel_pending(const struct pen_model_channel *ch);   /* commands that have not ended */

/*
 * Puts a command at the end of a channel. @at_ns: when it was submitted; at most launch_ns later it can start. One that lies
 * before the model's time is taken as it is, but nothing happens before the model's time.
 * Return: 0 and its number, or -ENOMEM.
 */
int pen_model_submit(struct pen_model_channel *ch, const struct pen_model_cmd *cmd, uint64_t at_ns, uint64_t *ret_seq);

/* Ends the external or held command at the head of a channel. Return: 0, or -EINVAL where there is none. */
int pen_model_finish(struct pen_model_channel *ch);

/* When something will happen unless somebody submits, finishes or removes; PEN_NEVER = nothing. May lie before the model's time. */
uint64_t pen_model_next(const struct pen_model *m);
/* Lets all happen that happens until @until_ns, and moves the model's time there. */
void pen_model_run(struct pen_model *m, uint64_t until_ns);
uint64_t pen_model_now(const struct pen_model *m);

/* A device that hangs makes no progress and ends nothing, until it is let go on. */
void pen_model_hang(struct pen_model *m, bool hang);

/* What really happened, since the start or the last pen_model_truth_reset(). */
struct pen_model_truth {
	uint64_t busy_ns;         /* blocks of it were running */
	uint64_t residence_ns;    /* a kernel of it had begun and not ended, running or not; device: the same as busy */
	double unit_ns;           /* units occupied, times ns: 10 units for 1 ms = 1e7 */
	double dram_bytes;        /* by kernels, fills and copies */
	double copy_bytes[PEN_MODEL_DIR_MAX_];
	uint64_t copy_ns;         /* a copy of it was moving */
	uint64_t kernels, copies, commands;
	uint64_t longest_wait_ns; /* from ready to start, of kernels and copies */
	uint64_t switches;        /* times that the units were handed to it; device: all */
	uint64_t switch_ns;       /* device: units lost to that */
};
void pen_model_truth(const struct pen_model *m, struct pen_model_truth *ret);
void pen_model_context_truth(const struct pen_model_context *c, struct pen_model_truth *ret);
void pen_model_truth_reset(struct pen_model *m);

/*
 * Max-min fair division: nobody gets more than @demand, and nobody could get more without somebody with less getting even less.
 * @order: room for @n numbers, scratch. Exported for the tests.
 */
void pen_model_maxmin(double capacity, const double *demand, double *ret_alloc, unsigned *order, unsigned n);

#endif
