/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_MODEL_INTERNAL_H
#define PEN_MODEL_INTERNAL_H
/* What the files of src/model share. See model.h for what it is. */
#include <sys/queue.h>

#include "base/clock.h"
#include "model/model.h"

/*
 * A unit's room in parts: the least common multiple of 1 to 32, so that the n-th part of a unit is whole for every number of
 * blocks that a card allows, and 1024 units still fit 64 bits.
 */
#define PEN_MODEL_UNIT UINT64_C(144403552893600)
/* Groups of blocks of one kernel that end together; dealt closer than a 31st of a block's time they are one, so these suffice. */
#define PEN_MODEL_COHORTS 32
#define PEN_MODEL_ENGINES 4

struct pen_model_cohort {
	uint64_t count;      /* blocks */
	double end;          /* at this progress of the kernel, ns */
};

/* The kernel that a channel runs. */
struct pen_model_kernel {
	TAILQ_ENTRY(pen_model_channel) link;   /* in its group, by priority and order */
	int64_t priority;
	uint64_t order;
	uint64_t undealt, resident;            /* blocks */
	uint64_t part;                         /* of a unit's room, of one block */
	double block_ns, block_bytes;
	double progress, rate;                 /* ns of block time that have passed; per ns: 1 unless DRAM is short */
	double dram;                           /* bytes per ns that it gets */
	uint64_t repeats;                      /* whole waves after its only cohort that are dealt without an event */
	unsigned first, n;
	struct pen_model_cohort cohort[PEN_MODEL_COHORTS];
};

/* The copy that a channel runs. */
struct pen_model_copying {
	TAILQ_ENTRY(pen_model_channel) link;   /* in its engine, by order */
	unsigned engine;
	bool moving;                           /* the first of its context in the engine */
	double left, rate, factor;             /* bytes; per ns; of DRAM per byte */
	double most;                           /* rate that it could take */
};

enum pen_model_state {
	PEN_MODEL_IDLE,      /* nothing in it */
	PEN_MODEL_LATENCY,   /* the head is on its way to the device, or in the gap */
	PEN_MODEL_RUNNING, PEN_MODEL_COPYING,
	PEN_MODEL_WAITING,   /* for another channel */
	PEN_MODEL_OUTSIDE,   /* for pen_model_finish(), not ended */
	PEN_MODEL_HELD,      /* for pen_model_finish(), ended but for the hook */
	PEN_MODEL_ENDING,    /* over, to be taken out of the channel */
	PEN_MODEL_ENDED,     /* the same, the hook was told */
};

struct pen_model_queued {
	struct pen_model_cmd cmd;
	uint64_t at_ns;
};

TAILQ_HEAD(pen_model_channels, pen_model_channel);

struct pen_model_channel {
	struct pen_model_context *context;
	uint64_t id;
	int32_t priority;
	uint64_t cap;                          /* room that its kernels may take */
	void *user;

	struct pen_model_queued *fifo;         /* ring of @room */
	uint32_t room, head, count;
	uint64_t done;                         /* number of the last command that has ended */

	enum pen_model_state state;
	uint64_t ready_ns, start_ns, idle_ns;  /* of the head; idle: when the one before it ended */
	bool started, holding;                 /* the hook was told; keeps its group's turn while in the gap */
	TAILQ_ENTRY(pen_model_channel) timer, todo, waiter, member;
	bool in_todo;
	struct pen_model_channels waiters;     /* channels that wait for this one */
	struct pen_model_channel *waits_on;
	uint64_t waits_seq;

	struct pen_model_kernel k;
	struct pen_model_copying c;
};

/* What gets time slices: a context, or all of them under MPS. */
struct pen_model_group {
	struct pen_model_channels kernels;     /* by priority, then as they came */
	TAILQ_ENTRY(pen_model_group) turn;
	bool queued;
	unsigned work;                         /* kernels that are there, and channels in the gap before one */
	uint64_t used;                         /* room that blocks take, running or saved */
};

struct pen_model_context {
	struct pen_model *model;
	TAILQ_ENTRY(pen_model_context) link;
	struct pen_model_channels channels;
	struct pen_model_group own, *group;
	struct pen_model_truth truth;
	unsigned kernels;                      /* begun and not ended */
	uint64_t since_ns;                     /* that the first of them began */
	uint64_t mark, copy_mark;              /* counted in this step */
	uint64_t engine_mark[PEN_MODEL_ENGINES];
};

TAILQ_HEAD(pen_model_contexts, pen_model_context);
TAILQ_HEAD(pen_model_groups, pen_model_group);

struct pen_model {
	struct pen_card card;
	bool concurrent, hung, inside;         /* inside: a call of ours is at work, which will see to the rest */
	bool dirty;                            /* who runs, or with how much, may have changed */
	uint64_t now_ns, next_ns;
	struct pen_model_hooks hooks;
	struct pen_model_contexts contexts;

	struct pen_model_channel **slot;       /* by the low half of their id */
	uint32_t slots, generation;

	struct pen_model_channels timers, todo;
	struct pen_model_channels engine[PEN_MODEL_ENGINES];
	uint64_t order, mark;

	struct pen_model_group everybody;      /* under MPS */
	struct pen_model_group *active, *coming, *last;   /* coming: being switched to; last: whom the units were handed from */
	struct pen_model_groups turns;
	uint64_t slice_from_ns, idle_ns, slice_due_ns, switch_due_ns, switch_from_ns;

	double *demand, *alloc;                /* scratch of one number a channel */
	unsigned *sorted;
	struct pen_model_channel **taker;

	struct pen_model_truth truth;
};

static inline struct pen_model *pen_model_of(const struct pen_model_channel *ch)
{
	return ch->context->model;
}

static inline struct pen_model_queued *pen_model_head(const struct pen_model_channel *ch)
{
	return &ch->fifo[ch->head & (ch->room - 1)];
}

/* channel.c: what a channel does next */
void pen_model_todo(struct pen_model_channel *ch);      /* have it looked at by the next pen_model_drain() */
void pen_model_drain(struct pen_model *m);
void pen_model_over(struct pen_model_channel *ch);      /* its head has run to its end */
void pen_model_begun(struct pen_model_channel *ch);     /* its head has started */
uint64_t pen_model_drop(struct pen_model_channel *ch);  /* empties it */

/* kernel.c: waves */
void pen_model_kernel_begin(struct pen_model_channel *ch, const struct pen_model_cmd *cmd);
void pen_model_kernel_remove(struct pen_model_channel *ch);
void pen_model_kernel_due(struct pen_model_channel *ch);   /* takes out the blocks that have ended */
double pen_model_kernel_end(const struct pen_model_channel *ch);   /* progress at which something of it ends */
void pen_model_deal(struct pen_model *m);

/* slice.c: whose turn it is */
void pen_model_group_init(struct pen_model_group *g);
void pen_model_group_gone(struct pen_model *m, struct pen_model_group *g);
void pen_model_work(struct pen_model *m, struct pen_model_group *g, int delta);
void pen_model_schedule(struct pen_model *m);

/* share.c: DRAM and engines */
void pen_model_copy_begin(struct pen_model_channel *ch, const struct pen_model_cmd *cmd);
void pen_model_copy_remove(struct pen_model_channel *ch);
void pen_model_rates(struct pen_model *m);

/* truth.c */
void pen_model_count(struct pen_model *m, uint64_t dt);
void pen_model_copy_square(struct pen_model_channel *ch);   /* at its end: what the last step counted too much */
void pen_model_resident(struct pen_model_context *c, int delta);

/* run.c */
void pen_model_settle(struct pen_model *m);   /* after a change from outside */

#endif
