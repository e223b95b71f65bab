/* SPDX-License-Identifier: Apache-2.0 */
/* What really happened: summed up over the steps between events. */
#include "model/internal.h"

#include <string.h>

void pen_model_resident(struct pen_model_context *c, int delta)
{
	uint64_t now = c->model->now_ns;
	if (!c->kernels)
		c->since_ns = now;
	c->kernels += (unsigned)delta;
	if (!c->kernels)
		c->truth.residence_ns += now - c->since_ns;
}

static void count_kernels(struct pen_model *m, uint64_t dt)
{
	struct pen_model_channel *ch;
	uint64_t mark = ++m->mark;
	bool any = false;
	TAILQ_FOREACH(ch, &m->active->kernels, k.link) {
		if (!ch->k.resident)
			continue;
		struct pen_model_context *c = ch->context;
		double units = (double)(ch->k.resident * ch->k.part) / (double)PEN_MODEL_UNIT;
		c->truth.unit_ns += units * (double)dt;
		m->truth.unit_ns += units * (double)dt;
		c->truth.dram_bytes += ch->k.dram * (double)dt;
		m->truth.dram_bytes += ch->k.dram * (double)dt;
		if (c->mark != mark)
			c->truth.busy_ns += dt;
		c->mark = mark;
		any = true;
	}
	if (any) {
		m->truth.busy_ns += dt;
		m->truth.residence_ns += dt;
	}
}

static void add_copy(struct pen_model_channel *ch, double bytes)
{
	struct pen_model_truth *own = &ch->context->truth, *all = &pen_model_of(ch)->truth;
	enum pen_model_dir dir = pen_model_head(ch)->cmd.copy.dir;
	own->copy_bytes[dir] += bytes;
	all->copy_bytes[dir] += bytes;
	own->dram_bytes += bytes * ch->c.factor;
	all->dram_bytes += bytes * ch->c.factor;
}

void pen_model_copy_square(struct pen_model_channel *ch)
{
	add_copy(ch, ch->c.left);
}

static void count_copies(struct pen_model *m, uint64_t dt)
{
	struct pen_model_channel *ch;
	uint64_t mark = ++m->mark;
	bool any = false;
	for (unsigned e = 0; e < PEN_MODEL_ENGINES; e++)
		TAILQ_FOREACH(ch, &m->engine[e], c.link) {
			if (!ch->c.moving)
				continue;
			struct pen_model_context *c = ch->context;
			add_copy(ch, ch->c.rate * (double)dt);
			if (c->copy_mark != mark)
				c->truth.copy_ns += dt;
			c->copy_mark = mark;
			any = true;
		}
	if (any)
		m->truth.copy_ns += dt;
}

void pen_model_count(struct pen_model *m, uint64_t dt)
{
	if (m->active)
		count_kernels(m, dt);
	count_copies(m, dt);
}

void pen_model_truth(const struct pen_model *m, struct pen_model_truth *ret)
{
	*ret = m->truth;
}

void pen_model_context_truth(const struct pen_model_context *c, struct pen_model_truth *ret)
{
	*ret = c->truth;
	if (c->kernels)
		ret->residence_ns += c->model->now_ns - c->since_ns;
}

void pen_model_truth_reset(struct pen_model *m)
{
	struct pen_model_context *c;
	memset(&m->truth, 0, sizeof(m->truth));
	TAILQ_FOREACH(c, &m->contexts, link) {
		memset(&c->truth, 0, sizeof(c->truth));
		c->since_ns = m->now_ns;
	}
}
