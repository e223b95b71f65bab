/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose turn it is on the units.
 *
 * Without MPS each context gets slices in round robin while it has work; at the end of a slice its running blocks are saved, and
 * the next context's restored. Slices are counted from when the turn began, also while nobody else had work: who comes finds the
 * running slice at any point of it. A context without work gives its turn away at once. Under MPS all contexts are one group.
 */
#include "model/internal.h"

#include <string.h>

void pen_model_group_init(struct pen_model_group *g)
{
	memset(g, 0, sizeof(*g));
	TAILQ_INIT(&g->kernels);
}

static void unqueue(struct pen_model *m, struct pen_model_group *g)
{
	if (!g->queued)
		return;
	TAILQ_REMOVE(&m->turns, g, turn);
	g->queued = false;
	if (TAILQ_EMPTY(&m->turns))
		m->slice_due_ns = PEN_NEVER;
}

static void enqueue(struct pen_model *m, struct pen_model_group *g)
{
	if (g->queued)
		return;
	TAILQ_INSERT_TAIL(&m->turns, g, turn);
	g->queued = true;
	if (m->active && m->slice_due_ns == PEN_NEVER) {
		uint64_t slice_ns = m->card.slice_ns ? m->card.slice_ns : 1;
		m->slice_due_ns = m->slice_from_ns + ((m->now_ns - m->slice_from_ns) / slice_ns + 1) * slice_ns;
	}
}

void pen_model_group_gone(struct pen_model *m, struct pen_model_group *g)
{
	unqueue(m, g);
	if (m->active == g)
		m->active = NULL;
	if (m->coming == g)
		m->coming = NULL;
	if (m->last == g)
		m->last = NULL;
	m->dirty = true;
}

void pen_model_work(struct pen_model *m, struct pen_model_group *g, int delta)
{
	bool had = g->work;
	g->work += (unsigned)delta;
	m->dirty = true;
	if (had == (g->work != 0))
		return;
	if (!g->work) {
		unqueue(m, g);
		m->idle_ns = g == m->active ? m->now_ns : m->idle_ns;
	} else if (g == m->active) {
		/* Between two kernels there is none for no time. */
		if (m->now_ns > m->idle_ns)
			m->slice_from_ns = m->now_ns;
	} else if (g != m->coming) {
		enqueue(m, g);
	}
}

static void take_over(struct pen_model *m)
{
	m->truth.switch_ns += m->now_ns - m->switch_from_ns;
	m->switch_due_ns = PEN_NEVER;
	m->active = m->coming;
	m->coming = NULL;
	m->slice_from_ns = m->now_ns;
	if (m->active && !TAILQ_EMPTY(&m->turns))
		m->slice_due_ns = m->now_ns + m->card.slice_ns;
	m->truth.switches++;
	m->dirty = true;   /* its blocks are to be dealt */
	struct pen_model_context *c;
	TAILQ_FOREACH(c, &m->contexts, link)
		if (c->group == m->active)
			c->truth.switches++;
}

/* What it takes to save or restore a group's blocks: the card's time is for units that are full. */
static uint64_t state_ns(const struct pen_model *m, const struct pen_model_group *g)
{
	if (!g || !g->used)
		return 0;
	return (uint64_t)((double)m->card.save_ns * (double)g->used / ((double)m->card.units * (double)PEN_MODEL_UNIT));
}

static void start_switch(struct pen_model *m)
{
	struct pen_model_group *from = m->active ? m->active : m->last;
	m->coming = TAILQ_FIRST(&m->turns);
	unqueue(m, m->coming);
	m->active = NULL;
	m->last = m->coming;
	m->slice_due_ns = PEN_NEVER;
	m->switch_from_ns = m->now_ns;
	m->switch_due_ns = m->now_ns;
	if (from && from != m->coming)
		m->switch_due_ns += m->card.yield_ns + state_ns(m, from) + state_ns(m, m->coming);
	m->dirty = true;
	if (m->switch_due_ns == m->now_ns)
		take_over(m);
}

void pen_model_schedule(struct pen_model *m)
{
	if (m->switch_due_ns != PEN_NEVER) {
		if (m->now_ns < m->switch_due_ns)
			return;
		take_over(m);
	}
	if (TAILQ_EMPTY(&m->turns))
		return;
	if (m->active && m->active->work) {
		if (m->now_ns < m->slice_due_ns)
			return;
		enqueue(m, m->active);
	}
	start_switch(m);
}
