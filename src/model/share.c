/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DRAM and copy engines.
 *
 * A copy engine serves one copy of a context at a time and divides itself evenly between contexts. DRAM is divided max-min between
 * the kernels that run and the copies that move; who gets less than it asks for is slowed down by as much.
 */
#include "model/internal.h"

enum { ENGINE_H2D, ENGINE_D2H, ENGINE_D2D, ENGINE_HOST };

static double per_ns(uint64_t per_s)
{
	return (double)per_s / 1e9;
}

static double dram_of(const struct pen_model *m)
{
	return per_ns(m->card.dram_bytes_per_s) * m->card.dram_efficiency_ppm / 1e6;
}

static double engine_rate(const struct pen_model *m, unsigned engine)
{
	if (engine == ENGINE_D2D)
		return dram_of(m) / 2;     /* a byte is read and written */
	return per_ns(engine == ENGINE_HOST ? m->card.host_bytes_per_s : m->card.pcie_bytes_per_s);
}

void pen_model_copy_begin(struct pen_model_channel *ch, const struct pen_model_cmd *cmd)
{
	struct pen_model *m = pen_model_of(ch);
	if (!cmd->copy.bytes) {
		pen_model_begun(ch);
		ch->state = PEN_MODEL_ENDING;
		return;
	}
	ch->c = (struct pen_model_copying){ .left = (double)cmd->copy.bytes };
	switch (cmd->copy.dir) {
	case PEN_MODEL_D2D:
		ch->c.engine = ENGINE_D2D;
		ch->c.factor = 2;
		break;
	case PEN_MODEL_H2H:
	case PEN_MODEL_DIR_MAX_:
		ch->c.engine = ENGINE_HOST;
		ch->c.factor = m->card.integrated ? 2 : 0;
		break;
	case PEN_MODEL_H2D:
	case PEN_MODEL_D2H:
		ch->c.engine = cmd->copy.dir == PEN_MODEL_D2H && m->card.copy_engines > 1 ? ENGINE_D2H : ENGINE_H2D;
		ch->c.factor = m->card.integrated ? 2 : 1;
		break;
	}
	ch->state = PEN_MODEL_COPYING;
	TAILQ_INSERT_TAIL(&m->engine[ch->c.engine], ch, c.link);
	m->dirty = true;
}

void pen_model_copy_remove(struct pen_model_channel *ch)
{
	struct pen_model *m = pen_model_of(ch);
	TAILQ_REMOVE(&m->engine[ch->c.engine], ch, c.link);
	m->dirty = true;
}

void pen_model_maxmin(double capacity, const double *demand, double *ret_alloc, unsigned *order, unsigned n)
{
	/* Ascending by demand. Few, and nearly sorted mostly: insertion. */
	for (unsigned i = 0; i < n; i++) {
		unsigned at = i;
		for (; at && demand[order[at - 1]] > demand[i]; at--)
			order[at] = order[at - 1];
		order[at] = i;
	}
	for (unsigned i = 0; i < n; i++) {
		double part = capacity / (n - i), want = demand[order[i]];
		double got = want < part ? want : part;
		ret_alloc[order[i]] = got;
		capacity -= got;
	}
}

/* Which copies of an engine move, and how fast they could. Return: their number, in m->taker. */
static unsigned divide_engine(struct pen_model *m, unsigned engine)
{
	struct pen_model_channel *ch;
	unsigned n = 0;
	uint64_t mark = ++m->mark;
	double pageable = per_ns(m->card.pageable_bytes_per_s);

	TAILQ_FOREACH(ch, &m->engine[engine], c.link) {
		ch->c.moving = ch->context->engine_mark[engine] != mark;
		ch->context->engine_mark[engine] = mark;
		ch->c.rate = 0;
		if (!ch->c.moving)
			continue;
		pen_model_begun(ch);
		const struct pen_model_cmd *cmd = &pen_model_head(ch)->cmd;
		double most = engine_rate(m, engine);
		if (cmd->copy.pageable && engine != ENGINE_D2D && engine != ENGINE_HOST && pageable < most)
			most = pageable;
		m->demand[n] = most;
		m->taker[n++] = ch;
	}
	if (n)
		pen_model_maxmin(engine_rate(m, engine), m->demand, m->alloc, m->sorted, n);
	for (unsigned i = 0; i < n; i++)
		m->taker[i]->c.most = m->taker[i]->c.rate = m->alloc[i];
	return n;
}

void pen_model_rates(struct pen_model *m)
{
	struct pen_model_channel *ch;
	double sum = 0, capacity = dram_of(m);
	unsigned n = 0;

	for (unsigned e = 0; e < PEN_MODEL_ENGINES; e++)
		if (!TAILQ_EMPTY(&m->engine[e]))
			divide_engine(m, e);
	for (unsigned e = 0; e < PEN_MODEL_ENGINES; e++)
		TAILQ_FOREACH(ch, &m->engine[e], c.link) {
			if (!ch->c.moving || ch->c.factor <= 0)
				continue;
			sum += m->demand[n] = ch->c.most * ch->c.factor;
			m->taker[n++] = ch;
		}
	if (m->active)
		TAILQ_FOREACH(ch, &m->active->kernels, k.link) {
			ch->k.rate = 1;
			ch->k.dram = (double)ch->k.resident * ch->k.block_bytes / ch->k.block_ns;
			if (ch->k.dram <= 0)
				continue;
			sum += m->demand[n] = ch->k.dram;
			m->taker[n++] = ch;
		}
	if (sum <= capacity)
		return;
	pen_model_maxmin(capacity, m->demand, m->alloc, m->sorted, n);
	for (unsigned i = 0; i < n; i++) {
		ch = m->taker[i];
		if (ch->state == PEN_MODEL_COPYING) {
			ch->c.rate = m->alloc[i] / ch->c.factor;
		} else {
			ch->k.rate = m->alloc[i] / ch->k.dram;
			ch->k.dram = m->alloc[i];
		}
	}
}
