/* SPDX-License-Identifier: Apache-2.0 */
/* Channels: FIFOs of commands, and what the command at their head waits for. */
#include "model/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void pen_model_todo(struct pen_model_channel *ch)
{
	if (ch->in_todo)
		return;
	ch->in_todo = true;
	TAILQ_INSERT_TAIL(&pen_model_of(ch)->todo, ch, todo);
}

void pen_model_over(struct pen_model_channel *ch)
{
	ch->state = PEN_MODEL_ENDING;
	pen_model_todo(ch);
}

static struct pen_model_event event_of(const struct pen_model_channel *ch)
{
	return (struct pen_model_event){
		.channel = (struct pen_model_channel *)ch, .user = ch->user, .cmd = &pen_model_head(ch)->cmd,
		.seq = ch->done + 1, .ready_ns = ch->ready_ns, .start_ns = ch->start_ns, .now_ns = pen_model_of(ch)->now_ns,
	};
}

void pen_model_begun(struct pen_model_channel *ch)
{
	struct pen_model *m = pen_model_of(ch);
	if (ch->started)
		return;
	ch->started = true;
	ch->start_ns = m->now_ns;
	enum pen_model_kind kind = pen_model_head(ch)->cmd.kind;
	if (kind == PEN_MODEL_KERNEL || kind == PEN_MODEL_COPY || kind == PEN_MODEL_FILL) {
		uint64_t waited = m->now_ns > ch->ready_ns ? m->now_ns - ch->ready_ns : 0;
		struct pen_model_truth *own = &ch->context->truth;
		if (waited > own->longest_wait_ns)
			own->longest_wait_ns = waited;
		if (waited > m->truth.longest_wait_ns)
			m->truth.longest_wait_ns = waited;
	}
	if (m->hooks.start) {
		struct pen_model_event e = event_of(ch);
		m->hooks.start(m->hooks.user, &e);
	}
}

static struct pen_model_channel *find(const struct pen_model *m, uint64_t id)
{
	uint32_t at = (uint32_t)id;
	return at < m->slots && m->slot[at] && m->slot[at]->id == id ? m->slot[at] : NULL;
}

/* Starts the head, whose time has come. */
static void begin(struct pen_model_channel *ch)
{
	struct pen_model *m = pen_model_of(ch);
	const struct pen_model_cmd *cmd = &pen_model_head(ch)->cmd;
	struct pen_model_channel *other;

	switch (cmd->kind) {
	case PEN_MODEL_KERNEL:
	case PEN_MODEL_FILL:
		pen_model_kernel_begin(ch, cmd);
		return;
	case PEN_MODEL_COPY:
		pen_model_copy_begin(ch, cmd);
		return;
	case PEN_MODEL_WAIT:
		pen_model_begun(ch);
		other = find(m, cmd->wait.channel);
		if (!other || other->done >= cmd->wait.seq)
			break;
		ch->state = PEN_MODEL_WAITING;
		ch->waits_on = other;
		ch->waits_seq = cmd->wait.seq;
		TAILQ_INSERT_TAIL(&other->waiters, ch, waiter);
		return;
	case PEN_MODEL_EXTERNAL:
		ch->state = PEN_MODEL_OUTSIDE;   /* before the hook, which may finish it */
		pen_model_begun(ch);
		return;
	case PEN_MODEL_NOP:
		pen_model_begun(ch);
		break;
	}
	ch->state = PEN_MODEL_ENDING;
}

static bool takes_time(const struct pen_model_cmd *cmd)
{
	return cmd->kind == PEN_MODEL_KERNEL || cmd->kind == PEN_MODEL_FILL || cmd->kind == PEN_MODEL_COPY;
}

/* Has the head begin now, or when it has reached the device. Return: it is on its way. */
static bool arm(struct pen_model_channel *ch)
{
	struct pen_model *m = pen_model_of(ch);
	struct pen_model_queued *q = pen_model_head(ch);
	uint64_t there = q->at_ns + m->card.launch_ns;
	bool timed = takes_time(&q->cmd);
	bool gap = timed && ch->idle_ns && ch->idle_ns + m->card.gap_ns > there;

	ch->started = false;
	ch->ready_ns = gap ? ch->idle_ns + m->card.gap_ns : there;
	if (!gap && ch->ready_ns < ch->idle_ns)
		ch->ready_ns = ch->idle_ns;
	if (ch->ready_ns <= m->now_ns)
		return false;
	ch->state = PEN_MODEL_LATENCY;
	TAILQ_INSERT_TAIL(&m->timers, ch, timer);
	/* It lies in the channel already: its context does not give its turn away for the gap. */
	ch->holding = gap && there <= m->now_ns && q->cmd.kind != PEN_MODEL_COPY;
	if (ch->holding)
		pen_model_work(m, ch->context->group, 1);
	if (ch->ready_ns < m->next_ns)
		m->next_ns = ch->ready_ns;
	return true;
}

static void disarm(struct pen_model_channel *ch)
{
	struct pen_model *m = pen_model_of(ch);
	TAILQ_REMOVE(&m->timers, ch, timer);
	if (ch->holding)
		pen_model_work(m, ch->context->group, -1);
	ch->holding = false;
}

/* Takes the head out, which is over. */
static void retire(struct pen_model_channel *ch)
{
	struct pen_model *m = pen_model_of(ch);
	ch->context->truth.commands++;
	m->truth.commands++;
	ch->head++;
	ch->count--;
	ch->done++;
	ch->idle_ns = m->now_ns;
	ch->state = PEN_MODEL_IDLE;

	struct pen_model_channel *next;
	for (struct pen_model_channel *w = TAILQ_FIRST(&ch->waiters); w; w = next) {
		next = TAILQ_NEXT(w, waiter);
		if (w->waits_seq > ch->done)
			continue;
		TAILQ_REMOVE(&ch->waiters, w, waiter);
		w->waits_on = NULL;
		pen_model_over(w);
	}
}

/* The head is over: tells the hook. Return: it may be taken out. */
static bool tell_end(struct pen_model_channel *ch)
{
	struct pen_model *m = pen_model_of(ch);
	if (!m->hooks.end)
		return true;
	struct pen_model_event e = event_of(ch);
	ch->state = PEN_MODEL_HELD;   /* before the hook, which may finish it from another thread's news */
	if (m->hooks.end(m->hooks.user, &e))
		return true;
	return ch->state == PEN_MODEL_ENDED;
}

static void step(struct pen_model_channel *ch)
{
	struct pen_model *m = pen_model_of(ch);
	for (;;) {
		switch (ch->state) {
		case PEN_MODEL_IDLE:
			if (!ch->count || arm(ch))
				return;
			begin(ch);
			break;
		case PEN_MODEL_LATENCY:
			if (ch->ready_ns > m->now_ns)
				return;
			disarm(ch);
			begin(ch);
			break;
		case PEN_MODEL_ENDING:
			if (!tell_end(ch))
				return;
			retire(ch);
			break;
		case PEN_MODEL_ENDED:
			retire(ch);
			break;
		default:
			return;
		}
	}
}

void pen_model_drain(struct pen_model *m)
{
	struct pen_model_channel *ch;
	while ((ch = TAILQ_FIRST(&m->todo))) {
		TAILQ_REMOVE(&m->todo, ch, todo);
		ch->in_todo = false;
		step(ch);
	}
}

int pen_model_finish(struct pen_model_channel *ch)
{
	if (ch->state != PEN_MODEL_OUTSIDE && ch->state != PEN_MODEL_HELD)
		return -EINVAL;
	ch->state = ch->state == PEN_MODEL_HELD ? PEN_MODEL_ENDED : PEN_MODEL_ENDING;
	pen_model_todo(ch);
	pen_model_settle(pen_model_of(ch));
	return 0;
}

int pen_model_submit(struct pen_model_channel *ch, const struct pen_model_cmd *cmd, uint64_t at_ns, uint64_t *ret_seq)
{
	if (ch->count == ch->room) {
		uint32_t room = ch->room ? ch->room * 2 : 16;
		struct pen_model_queued *fifo = reallocarray(NULL, room, sizeof(*fifo));
		if (!fifo)
			return -ENOMEM;
		for (uint32_t i = 0; i < ch->count; i++)
			fifo[i] = ch->fifo[(ch->head + i) & (ch->room - 1)];
		free(ch->fifo);
		ch->fifo = fifo;
		ch->room = room;
		ch->head = 0;
	}
	ch->fifo[(ch->head + ch->count) & (ch->room - 1)] = (struct pen_model_queued){ *cmd, at_ns };
	ch->count++;
	if (ret_seq)
		*ret_seq = ch->done + ch->count;
	if (ch->state == PEN_MODEL_IDLE) {
		pen_model_todo(ch);
		pen_model_settle(pen_model_of(ch));
	}
	return 0;
}

uint64_t pen_model_drop(struct pen_model_channel *ch)
{
	uint64_t dropped = ch->count;
	if (ch->in_todo)
		TAILQ_REMOVE(&pen_model_of(ch)->todo, ch, todo);
	ch->in_todo = false;
	switch (ch->state) {
	case PEN_MODEL_LATENCY:
		disarm(ch);
		break;
	case PEN_MODEL_RUNNING:
		pen_model_kernel_remove(ch);
		break;
	case PEN_MODEL_COPYING:
		pen_model_copy_remove(ch);
		break;
	case PEN_MODEL_WAITING:
		TAILQ_REMOVE(&ch->waits_on->waiters, ch, waiter);
		ch->waits_on = NULL;
		break;
	default:
		break;
	}
	ch->done += ch->count;
	ch->head = ch->count = 0;
	ch->state = PEN_MODEL_IDLE;
	struct pen_model_channel *w;
	while ((w = TAILQ_FIRST(&ch->waiters))) {
		TAILQ_REMOVE(&ch->waiters, w, waiter);
		w->waits_on = NULL;
		pen_model_over(w);
	}
	return dropped;
}

/* Room for one channel more, so that nothing that happens later can fail for want of memory. */
static int reserve(struct pen_model *m)
{
	for (uint32_t i = 0; i < m->slots; i++)
		if (!m->slot[i])
			return (int)i;
	uint32_t slots = m->slots ? m->slots * 2 : 16;
	struct pen_model_channel **slot = reallocarray(m->slot, slots, sizeof(*slot));
	if (slot) {
		memset(slot + m->slots, 0, (slots - m->slots) * sizeof(*slot));
		m->slot = slot;
	}
	double *demand = reallocarray(m->demand, slots, sizeof(*demand));
	m->demand = demand ? demand : m->demand;
	double *alloc = reallocarray(m->alloc, slots, sizeof(*alloc));
	m->alloc = alloc ? alloc : m->alloc;
	unsigned *sorted = reallocarray(m->sorted, slots, sizeof(*sorted));
	m->sorted = sorted ? sorted : m->sorted;
	struct pen_model_channel **taker = reallocarray(m->taker, slots, sizeof(*taker));
	m->taker = taker ? taker : m->taker;
	if (!slot || !demand || !alloc || !sorted || !taker)
		return -ENOMEM;
	int at = (int)m->slots;
	m->slots = slots;
	return at;
}

int pen_model_channel_add(struct pen_model_context *c, int32_t priority, uint32_t units, void *user,
			  struct pen_model_channel **ret_channel)
{
	struct pen_model *m = c->model;
	int at = reserve(m);
	if (at < 0)
		return at;
	struct pen_model_channel *ch = calloc(1, sizeof(*ch));
	if (!ch)
		return -ENOMEM;
	ch->context = c;
	ch->id = (uint64_t)++m->generation << 32 | (uint32_t)at;
	ch->priority = priority;
	ch->cap = (units && units < m->card.units ? units : m->card.units) * PEN_MODEL_UNIT;
	ch->user = user;
	TAILQ_INIT(&ch->waiters);
	TAILQ_INSERT_TAIL(&c->channels, ch, member);
	m->slot[at] = ch;
	*ret_channel = ch;
	return 0;
}

void pen_model_channel_remove(struct pen_model_channel *ch)
{
	struct pen_model *m = pen_model_of(ch);
	pen_model_drop(ch);
	m->slot[(uint32_t)ch->id] = NULL;
	TAILQ_REMOVE(&ch->context->channels, ch, member);
	free(ch->fifo);
	free(ch);
	m->dirty = true;
	pen_model_settle(m);
}

uint64_t pen_model_channel_id(const struct pen_model_channel *ch)
{
	return ch->id;
}

uint64_t pen_model_channel_pending(const struct pen_model_channel *ch)
{
	return ch->count;
}
