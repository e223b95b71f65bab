/* SPDX-License-Identifier: Apache-2.0 */
/* Between rings, models and effects: commands in, and what happens when the model says that one starts or ends. */
#include "simgpu/server/server.h"
#include "base/clock.h"
#include "base/lock.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

/* ---- into the model ---- */

static bool translate(const struct sim_cmd *cmd, uint64_t seq, struct pen_model_cmd *ret)
{
	*ret = (struct pen_model_cmd){ .kind = PEN_MODEL_NOP, .tag = seq };
	switch (cmd->kind) {
	case SIM_NOP:
	case SIM_STAMP:
	case SIM_WRITE_WORD:
		return true;
	case SIM_KERNEL: {
		unsigned __int128 blocks = (unsigned __int128)((uint64_t)cmd->kernel.grid[0] * cmd->kernel.grid[1]) * cmd->kernel.grid[2];
		uint64_t threads = (uint64_t)cmd->kernel.block[0] * cmd->kernel.block[1];
		ret->kind = PEN_MODEL_KERNEL;
		ret->kernel.blocks = blocks > UINT32_MAX * UINT64_C(65536) ? UINT32_MAX * UINT64_C(65536) : (uint64_t)blocks;
		threads = threads > UINT32_MAX ? UINT32_MAX : threads * cmd->kernel.block[2];
		ret->kernel.threads = threads > UINT32_MAX ? UINT32_MAX : (uint32_t)threads;
		ret->kernel.blocks_per_unit = cmd->kernel.blocks_per_unit;
		ret->kernel.block_ns = cmd->kernel.block_ns;
		ret->kernel.dram_bytes = cmd->kernel.dram_bytes;
		ret->kernel.priority = cmd->priority;
		return true;
	}
	case SIM_COPY:
		ret->kind = PEN_MODEL_COPY;
		ret->copy.dir = (enum pen_model_dir)cmd->copy.dir;
		ret->copy.pageable = cmd->copy.pageable;
		return cmd->copy.dir <= SIM_H2H &&
		       !__builtin_mul_overflow(cmd->copy.width, cmd->copy.rows, &ret->copy.bytes) &&
		       !__builtin_mul_overflow(ret->copy.bytes, cmd->copy.layers, &ret->copy.bytes);
	case SIM_FILL:
		ret->kind = PEN_MODEL_FILL;
		return (cmd->fill.element == 1 || cmd->fill.element == 2 || cmd->fill.element == 4) &&
		       !__builtin_mul_overflow(cmd->fill.width, cmd->fill.rows, &ret->fill.bytes) &&
		       !__builtin_mul_overflow(ret->fill.bytes, cmd->fill.element, &ret->fill.bytes);
	case SIM_WAIT_SEQ:
		ret->kind = PEN_MODEL_WAIT;
		ret->wait.seq = cmd->wait_seq.seq;
		return true;
	case SIM_WAIT_WORD:
		ret->kind = PEN_MODEL_EXTERNAL;
		return cmd->word.bytes == 4 || cmd->word.bytes == 8;
	case SIM_HOST:
		ret->kind = PEN_MODEL_EXTERNAL;
		return true;
	}
	return false;
}

/* Within a device the model knows how to wait; a channel of another is looked at when something there has ended. */
static void translate_wait(struct sim_chan *ch, const struct sim_cmd *cmd, struct pen_model_cmd *ret)
{
	struct sim_chan *other = sim_chan_find(ch->ctx->proc, (uint64_t)(uintptr_t)cmd->wait_seq.channel);
	if (!other || cmd->wait_seq.seq <= other->done) {
		ret->kind = PEN_MODEL_NOP;
	} else if (other->ctx->dev != ch->ctx->dev) {
		ret->kind = PEN_MODEL_EXTERNAL;
	} else {
		ret->wait.channel = pen_model_channel_id(other->model);
		ret->wait.seq -= other->skipped;
	}
}

static void skip(struct sim_chan *ch)
{
	ch->skipped++;
	ch->done++;
	sim_publish(ch);
}

static void take_one(struct sim_chan *ch, uint64_t now_ns)
{
	struct sim_server *s = ch->ctx->dev->server;
	const struct sim_slot *slot = &ch->ring->slot[ch->taken % SIM_RING];
	struct sim_cmd *cmd = &ch->cmd[ch->taken % SIM_RING];
	uint64_t at_ns = slot->at_ns;
	struct pen_model_cmd for_model;

	*cmd = slot->cmd;   /* once, so that what was checked is what is done */
	ch->taken++;
	s->commands++;
	if (atomic_load(&ch->ctx->proc->page->status[ch->ctx->index])) {
		skip(ch);
		return;
	}
	bool good = translate(cmd, ch->taken, &for_model);
	if (good && cmd->kind == SIM_WAIT_SEQ)
		translate_wait(ch, cmd, &for_model);
	if (at_ns > now_ns)
		at_ns = now_ns;
	if (!good || pen_model_submit(ch->model, &for_model, sim_to_model(s, at_ns), NULL) < 0) {
		ch->ctx->fault = -EFAULT;
		s->faulted = true;
		skip(ch);
	}
}

void sim_take_commands(struct sim_proc *p, uint64_t now_ns)
{
	if (!p->page || !atomic_load(&p->page->any))
		return;
	atomic_store(&p->page->any, 0);
	for (unsigned w = 0; w < SIM_CHANNELS / 64; w++) {
		uint64_t bits = atomic_load_explicit(&p->page->dirty[w], memory_order_relaxed);
		if (bits)
			bits = atomic_exchange(&p->page->dirty[w], 0);
		for (; bits; bits &= bits - 1) {
			struct sim_chan *ch = p->chan[w * 64 + (unsigned)__builtin_ctzll(bits)];
			if (!ch || ch->closing)
				continue;
			uint64_t tail = atomic_load_explicit(&ch->ring->tail, memory_order_acquire);
			if (tail - ch->done > SIM_RING)   /* what no client of ours writes */
				tail = ch->done + SIM_RING;
			while (ch->taken < tail)
				take_one(ch, now_ns);
		}
	}
}

/* ---- out of the model ---- */

static struct sim_cmd *command_of(struct sim_chan *ch, const struct pen_model_event *e)
{
	return &ch->cmd[(e->cmd->tag - 1) % SIM_RING];
}

static bool word_is(const struct sim_cmd *cmd, uint64_t word)
{
	uint64_t value = cmd->word.value;
	bool wide = cmd->word.bytes == 8;
	if (!wide) {
		word = (uint32_t)word;
		value = (uint32_t)value;
	}
	switch (cmd->word.cond) {
	case SIM_GEQ:
		return wide ? (int64_t)(word - value) >= 0 : (int32_t)((uint32_t)word - (uint32_t)value) >= 0;
	case SIM_EQ:
		return word == value;
	case SIM_AND:
		return (word & value) != 0;
	case SIM_NOR:
		return (wide ? ~(word | value) : (uint64_t)(uint32_t)~(word | value)) != 0;
	}
	return true;
}

static void fail_later(struct sim_chan *ch, int result)
{
	/* A process that is gone needs no fault. */
	if (result == -ESRCH)
		return;
	if (result == -EPERM)
		pen_log(PEN_LOG_WARN, "the memory of process %d is not to be had: not our user, and no CAP_SYS_PTRACE", ch->ctx->proc->pid);
	ch->ctx->fault = -EFAULT;
	ch->ctx->dev->server->faulted = true;
}

/* Looks at what a channel waits for, a word or another device's channel. Return: it need not wait any longer. */
static bool try_wait(struct sim_chan *ch, const struct sim_cmd *cmd)
{
	uint64_t word = 0;
	if (cmd->kind == SIM_WAIT_SEQ) {
		struct sim_chan *other = sim_chan_find(ch->ctx->proc, (uint64_t)(uintptr_t)cmd->wait_seq.channel);
		return !other || other->done >= cmd->wait_seq.seq;
	}
	sim_batch_flush(ch->ctx->proc);
	int r = sim_read(ch->ctx->proc->pid, cmd->word.address, &word, cmd->word.bytes);
	if (r < 0) {
		fail_later(ch, r);
		return false;
	}
	return word_is(cmd, word);
}

static void put_host(struct sim_proc *p, uint64_t token)
{
	uint32_t put = atomic_load_explicit(&p->page->host_put, memory_order_relaxed);
	sim_batch_flush(p);   /* the function may look at what was stamped before it */
	p->page->host[put % SIM_CHANNELS] = token;
	atomic_store_explicit(&p->page->host_put, put + 1, memory_order_release);
	atomic_fetch_add(&p->page->host_event, 1);
	pen_futex_wake(&p->page->host_event, 1);
}

static void on_start(void *user, const struct pen_model_event *e)
{
	struct sim_server *s = user;
	struct sim_chan *ch = e->user;
	const struct sim_cmd *cmd = command_of(ch, e);
	struct sim_proc *p = ch->ctx->proc;

	switch (cmd->kind) {
	case SIM_WAIT_SEQ:
	case SIM_WAIT_WORD:
		if (e->cmd->kind != PEN_MODEL_EXTERNAL)
			break;
		/* Another device may be ahead of this one within a pass: it is looked at when all have come to the same moment. */
		if (cmd->kind == SIM_WAIT_WORD && try_wait(ch, cmd)) {
			(void)pen_model_finish(ch->model);
			break;
		}
		ch->polled = true;
		ch->polled_since_ns = pen_mono_ns();
		s->poll_due_ns = 0;
		s->crossing += cmd->kind == SIM_WAIT_SEQ;
		TAILQ_INSERT_TAIL(&s->polled, ch, poll);
		break;
	case SIM_HOST:
		put_host(p, cmd->host.token);
		break;
	case SIM_KERNEL:
	case SIM_COPY:
	case SIM_FILL:
		if (!sim_effect_is_none(s, cmd) && !sim_effect_is_small(cmd))
			ch->job = sim_effect_begin(s, p->pid, cmd);
		break;
	default:
		break;
	}
}

static bool effect_ended(struct sim_server *s, struct sim_chan *ch, const struct sim_cmd *cmd, uint64_t due_ns)
{
	int r = 0;
	if (ch->job) {
		if (!sim_effect_done(ch->job, &r)) {
			ch->held = true;
			ch->ended_ns = due_ns;
			return false;
		}
		sim_effect_forget(s, ch->job);
		ch->job = NULL;
	} else if (!sim_effect_is_none(s, cmd)) {
		sim_batch_flush(ch->ctx->proc);
		r = sim_effect_now(ch->ctx->proc->pid, cmd);
	}
	if (r < 0)
		fail_later(ch, r);
	return true;
}

static bool on_end(void *user, const struct pen_model_event *e)
{
	struct sim_server *s = user;
	struct sim_chan *ch = e->user;
	const struct sim_cmd *cmd = command_of(ch, e);
	uint64_t at_ns = sim_to_real(s, e->now_ns);

	switch (cmd->kind) {
	case SIM_KERNEL:
	case SIM_COPY:
	case SIM_FILL:
		if (!effect_ended(s, ch, cmd, at_ns))
			return false;
		break;
	case SIM_STAMP:
		sim_batch_add(ch->ctx->proc, cmd->stamp.address, at_ns, 8);
		break;
	case SIM_WRITE_WORD:
		sim_batch_add(ch->ctx->proc, cmd->word.address, cmd->word.value, cmd->word.bytes == 8 ? 8 : 4);
		s->poll_due_ns = 0;
		break;
	default:
		break;
	}
	if (s->crossing)
		s->poll_due_ns = 0;
	ch->ended_ns = at_ns;
	ch->done++;
	sim_publish(ch);
	return true;
}

const struct pen_model_hooks sim_hooks = { .start = on_start, .end = on_end };

/* ---- what the model waits for ---- */

void sim_unpoll(struct sim_chan *ch)
{
	struct sim_server *s = ch->ctx->dev->server;
	if (!ch->polled)
		return;
	ch->polled = false;
	s->crossing -= ch->cmd[ch->done % SIM_RING].kind == SIM_WAIT_SEQ;
	TAILQ_REMOVE(&s->polled, ch, poll);
}

/* A few us while it is fresh; a gate that stays shut for long is looked at less often. Channels need no clock: on_end() tells. */
static uint64_t poll_period(const struct sim_chan *ch, uint64_t now_ns)
{
	uint64_t waited_ns = now_ns - ch->polled_since_ns;
	if (ch->cmd[ch->done % SIM_RING].kind == SIM_WAIT_SEQ)
		return PEN_NEVER;
	return waited_ns < PEN_MS ? 5 * PEN_US : waited_ns < 10 * PEN_MS ? 10 * PEN_US : 25 * PEN_US;
}

void sim_poll_waits(struct sim_server *s, uint64_t now_ns)
{
	struct sim_chan *ch, *next;
	uint64_t period = PEN_NEVER;
	if (now_ns < s->poll_due_ns)
		return;
	s->poll_due_ns = PEN_NEVER;
	for (ch = TAILQ_FIRST(&s->polled); ch; ch = next) {
		next = TAILQ_NEXT(ch, poll);
		if (try_wait(ch, &ch->cmd[ch->done % SIM_RING])) {
			sim_unpoll(ch);
			(void)pen_model_finish(ch->model);
			continue;
		}
		uint64_t mine = poll_period(ch, now_ns);
		period = mine < period ? mine : period;
	}
	/* What was finished may have changed what others wait for: then it is due already. */
	if (period != PEN_NEVER && now_ns + period < s->poll_due_ns)
		s->poll_due_ns = now_ns + period;
}

void sim_effects_finished(struct sim_server *s)
{
	struct sim_proc *p;
	if (!atomic_exchange(&s->jobs_done, 0))
		return;
	TAILQ_FOREACH(p, &s->procs, link)
		for (unsigned i = 0; i < SIM_CHANNELS; i++) {
			struct sim_chan *ch = p->chan[i];
			int r;
			if (!ch || !ch->held || !sim_effect_done(ch->job, &r))
				continue;
			sim_effect_forget(s, ch->job);
			ch->job = NULL;
			ch->held = false;
			if (r < 0)
				fail_later(ch, r);
			uint64_t now = pen_mono_ns();
			s->late_effects++;
			s->late_effect_ns += now > ch->ended_ns ? now - ch->ended_ns : 0;
			ch->ended_ns = now;
			ch->done++;
			sim_publish(ch);
			(void)pen_model_finish(ch->model);
		}
}

void sim_host_finish(struct sim_proc *p, uint64_t token)
{
	for (unsigned i = 0; i < SIM_CHANNELS; i++) {
		struct sim_chan *ch = p->chan[i];
		if (!ch || ch->done == ch->taken)
			continue;
		const struct sim_cmd *cmd = &ch->cmd[ch->done % SIM_RING];
		if (cmd->kind == SIM_HOST && cmd->host.token == token && !pen_model_finish(ch->model))
			return;
	}
}
