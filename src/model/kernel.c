/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels: blocks dealt to units in waves.
 *
 * Blocks are dealt in the order of priority, then of arrival; the first kernel that the device has no room for keeps the rest
 * behind it (Amert et al., RTSS 2017: only the head of the queue is dealt), one that is held by its own cap does not. Blocks that
 * run are never taken off. Units are not told apart: room is one number, of which a block takes a part.
 * A kernel whose next waves are certain has one event for all of them, so that a long grid costs no more than a short one.
 */
#include "model/internal.h"

#include <math.h>

/* Blocks of the same kernel that a unit holds. */
static uint64_t per_unit(const struct pen_card *card, const struct pen_model_cmd *cmd)
{
	uint64_t n = card->blocks_per_unit;
	if (cmd->kernel.threads && card->threads_per_unit / cmd->kernel.threads < n)
		n = card->threads_per_unit / cmd->kernel.threads;
	if (cmd->kernel.blocks_per_unit && cmd->kernel.blocks_per_unit < n)
		n = cmd->kernel.blocks_per_unit;
	return n ? n : 1;
}

/* A fill is a kernel of one small block a unit, which asks DRAM for all that it has. */
static void setup_fill(struct pen_model_channel *ch, uint64_t bytes)
{
	const struct pen_card *card = &pen_model_of(ch)->card;
	double all = (double)card->dram_bytes_per_s * card->dram_efficiency_ppm / 1e6 / 1e9;
	ch->k.part = PEN_MODEL_UNIT / 8;
	ch->k.undealt = ch->cap / PEN_MODEL_UNIT;
	ch->k.block_bytes = (double)bytes / (double)ch->k.undealt;
	ch->k.block_ns = fmax(1000, (double)bytes / all);
	ch->k.priority = ch->priority;
}

void pen_model_kernel_begin(struct pen_model_channel *ch, const struct pen_model_cmd *cmd)
{
	struct pen_model *m = pen_model_of(ch);
	struct pen_model_group *g = ch->context->group;
	ch->k = (struct pen_model_kernel){ .rate = 1, .order = m->order++ };
	if (cmd->kind == PEN_MODEL_FILL) {
		setup_fill(ch, cmd->fill.bytes);
	} else {
		ch->k.priority = (int64_t)ch->priority + cmd->kernel.priority;
		ch->k.part = PEN_MODEL_UNIT / per_unit(&m->card, cmd);
		ch->k.undealt = cmd->kernel.blocks;
		ch->k.block_ns = cmd->kernel.block_ns ? (double)cmd->kernel.block_ns : 1;
		ch->k.block_bytes = cmd->kernel.blocks ? (double)cmd->kernel.dram_bytes / (double)cmd->kernel.blocks : 0;
	}
	if (!ch->k.undealt || (cmd->kind == PEN_MODEL_FILL && !cmd->fill.bytes)) {
		pen_model_begun(ch);
		ch->state = PEN_MODEL_ENDING;
		return;
	}
	ch->state = PEN_MODEL_RUNNING;
	struct pen_model_channel *after;
	TAILQ_FOREACH_REVERSE(after, &g->kernels, pen_model_channels, k.link)
		if (after->k.priority <= ch->k.priority)
			break;
	if (after)
		TAILQ_INSERT_AFTER(&g->kernels, after, ch, k.link);
	else
		TAILQ_INSERT_HEAD(&g->kernels, ch, k.link);
	pen_model_work(m, g, 1);
	m->dirty = true;
}

void pen_model_kernel_remove(struct pen_model_channel *ch)
{
	struct pen_model *m = pen_model_of(ch);
	struct pen_model_group *g = ch->context->group;
	g->used -= ch->k.resident * ch->k.part;
	TAILQ_REMOVE(&g->kernels, ch, k.link);
	pen_model_work(m, g, -1);
	if (ch->started)
		pen_model_resident(ch->context, -1);
	m->dirty = true;
}

static struct pen_model_cohort *cohort(struct pen_model_kernel *k, unsigned i)
{
	return &k->cohort[(k->first + i) % PEN_MODEL_COHORTS];
}

double pen_model_kernel_end(const struct pen_model_channel *ch)
{
	const struct pen_model_kernel *k = &ch->k;
	if (!k->n)
		return HUGE_VAL;
	return k->cohort[k->first].end + (double)k->repeats * k->block_ns;
}

/* Waves that were foreseen and have passed are over; those to come are dealt anew. */
static void unfold(struct pen_model_kernel *k)
{
	if (!k->repeats)
		return;
	struct pen_model_cohort *c = cohort(k, 0);
	double passed = floor((k->progress - (c->end - k->block_ns)) / k->block_ns + 1e-9);
	uint64_t waves = passed < 0 ? 0 : passed > (double)k->repeats ? k->repeats : (uint64_t)passed;
	c->end += (double)waves * k->block_ns;
	k->undealt += (k->repeats - waves) * c->count;
	k->repeats = 0;
}

void pen_model_kernel_due(struct pen_model_channel *ch)
{
	struct pen_model_kernel *k = &ch->k;
	struct pen_model *m = pen_model_of(ch);
	/* A thousandth of a ns, and what a double cannot tell at this length. */
	double due = k->progress + 1e-3 + k->progress * 1e-12;

	if (pen_model_kernel_end(ch) > due)
		return;
	unfold(k);
	while (k->n && cohort(k, 0)->end <= due) {
		struct pen_model_cohort *c = cohort(k, 0);
		k->resident -= c->count;
		ch->context->group->used -= c->count * k->part;
		k->first = (k->first + 1) % PEN_MODEL_COHORTS;
		k->n--;
		m->dirty = true;
	}
	if (k->resident || k->undealt)
		return;
	ch->context->truth.kernels++;
	m->truth.kernels++;
	pen_model_kernel_remove(ch);
	pen_model_over(ch);
}

static void add_cohort(struct pen_model_kernel *k, uint64_t count)
{
	double end = k->progress + k->block_ns;
	if (k->n) {
		struct pen_model_cohort *last = cohort(k, k->n - 1);
		if (k->n == PEN_MODEL_COHORTS || end - last->end < k->block_ns / (PEN_MODEL_COHORTS - 1)) {
			double sum = (double)(last->count + count);
			last->end = (last->end * (double)last->count + end * (double)count) / sum;
			last->count += count;
			return;
		}
	}
	*cohort(k, k->n++) = (struct pen_model_cohort){ count, end };
}

/* Return: the device itself has no room for the rest of it. */
static bool deal_one(struct pen_model_channel *ch, struct pen_model_group *g, uint64_t room)
{
	struct pen_model_kernel *k = &ch->k;
	uint64_t mine = k->resident * k->part;
	uint64_t free_room = (room - g->used) / k->part;
	uint64_t cap_room = (ch->cap - mine) / k->part;
	uint64_t n = free_room < cap_room ? free_room : cap_room;
	if (n > k->undealt)
		n = k->undealt;
	if (n) {
		add_cohort(k, n);
		k->undealt -= n;
		k->resident += n;
		g->used += n * k->part;
		if (!ch->started) {
			pen_model_resident(ch->context, 1);
			pen_model_begun(ch);
		}
	}
	return k->undealt && cap_room > free_room;
}

void pen_model_deal(struct pen_model *m)
{
	struct pen_model_group *g = m->active;
	struct pen_model_channel *ch;
	uint64_t room = m->card.units * PEN_MODEL_UNIT;
	bool full = false;

	if (!g)
		return;
	TAILQ_FOREACH(ch, &g->kernels, k.link)
		unfold(&ch->k);
	TAILQ_FOREACH(ch, &g->kernels, k.link) {
		if (!ch->k.undealt)
			continue;
		full = deal_one(ch, g, room);
		/* Whoever stands here, at the device's limit or at its own, is dealt the same number when these blocks end. */
		if (ch->k.undealt && ch->k.n == 1) {
			ch->k.repeats = ch->k.undealt / ch->k.resident;
			ch->k.undealt -= ch->k.repeats * ch->k.resident;
		}
		if (full)
			break;
	}
}
