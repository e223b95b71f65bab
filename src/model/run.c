/* SPDX-License-Identifier: Apache-2.0 */
/* The clock of the model: from event to event. */
#include "model/internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* When @amount is used up at @rate from @now on. */
static uint64_t when(uint64_t now, double amount, double rate)
{
	if (amount <= 0)
		return now;
	double ns = ceil(amount / rate);
	return ns < 9e18 ? now + (uint64_t)ns : PEN_NEVER;
}

static bool copy_is_over(const struct pen_model_channel *ch)
{
	return ch->c.moving && ch->c.left <= ch->c.rate * 1e-3;
}

static void find_next(struct pen_model *m)
{
	struct pen_model_channel *ch;
	uint64_t next = m->switch_due_ns, t;

	TAILQ_FOREACH(ch, &m->timers, timer)
		if (ch->ready_ns < next)
			next = ch->ready_ns;
	if (m->active && m->slice_due_ns < next)
		next = m->slice_due_ns;
	if (m->active)
		TAILQ_FOREACH(ch, &m->active->kernels, k.link)
			if (ch->k.n && (t = when(m->now_ns, pen_model_kernel_end(ch) - ch->k.progress - 1e-3, ch->k.rate)) < next)
				next = t;
	for (unsigned e = 0; e < PEN_MODEL_ENGINES; e++)
		TAILQ_FOREACH(ch, &m->engine[e], c.link)
			if (ch->c.moving && (t = when(m->now_ns, ch->c.left - ch->c.rate * 1e-3, ch->c.rate)) < next)
				next = t;
	m->next_ns = next;
}

static void advance(struct pen_model *m, uint64_t to_ns)
{
	struct pen_model_channel *ch;
	if (to_ns <= m->now_ns)
		return;
	uint64_t dt = to_ns - m->now_ns;
	if (!m->hung) {
		pen_model_count(m, dt);
		if (m->active)
			TAILQ_FOREACH(ch, &m->active->kernels, k.link)
				ch->k.progress += ch->k.rate * (double)dt;
		for (unsigned e = 0; e < PEN_MODEL_ENGINES; e++)
			TAILQ_FOREACH(ch, &m->engine[e], c.link)
				ch->c.left -= ch->c.rate * (double)dt;
	}
	m->now_ns = to_ns;
}

static void copy_ended(struct pen_model_channel *ch)
{
	pen_model_copy_square(ch);
	ch->context->truth.copies++;
	pen_model_of(ch)->truth.copies++;
	pen_model_copy_remove(ch);
	pen_model_over(ch);
}

/* What is due at the model's time, but for turns. */
static void fire(struct pen_model *m)
{
	struct pen_model_channel *ch, *next;
	if (m->active)
		for (ch = TAILQ_FIRST(&m->active->kernels); ch; ch = next) {
			next = TAILQ_NEXT(ch, k.link);
			pen_model_kernel_due(ch);
		}
	for (unsigned e = 0; e < PEN_MODEL_ENGINES; e++)
		for (ch = TAILQ_FIRST(&m->engine[e]); ch; ch = next) {
			next = TAILQ_NEXT(ch, c.link);
			if (copy_is_over(ch))
				copy_ended(ch);
		}
	TAILQ_FOREACH(ch, &m->timers, timer)
		if (ch->ready_ns <= m->now_ns)
			pen_model_todo(ch);
}

/* Until nothing changes any more at this moment: channels, turns, blocks, rates, and when to look again. */
static void refresh(struct pen_model *m)
{
	m->inside = true;
	do {
		pen_model_drain(m);
		pen_model_schedule(m);
		if (!m->dirty)
			break;
		m->dirty = false;
		pen_model_deal(m);
		pen_model_rates(m);
	} while (m->dirty || !TAILQ_EMPTY(&m->todo));
	find_next(m);
	m->inside = false;
}

void pen_model_settle(struct pen_model *m)
{
	if (!m->inside && !m->hung)
		refresh(m);
}

void pen_model_run(struct pen_model *m, uint64_t until_ns)
{
	while (!m->hung && m->next_ns <= until_ns) {
		advance(m, m->next_ns);
		m->inside = true;
		fire(m);
		refresh(m);
	}
	advance(m, until_ns);
}

uint64_t pen_model_next(const struct pen_model *m)
{
	return m->hung ? PEN_NEVER : m->next_ns;
}

uint64_t pen_model_now(const struct pen_model *m)
{
	return m->now_ns;
}

void pen_model_hang(struct pen_model *m, bool hang)
{
	m->hung = hang;
	/* A slice that would have ended meanwhile ends now. */
	pen_model_settle(m);
}

int pen_model_create(const struct pen_card *card, bool concurrent, uint64_t now_ns, const struct pen_model_hooks *hooks,
		     struct pen_model **ret_model)
{
	struct pen_model *m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->card = *card;
	m->concurrent = concurrent;
	m->now_ns = now_ns;
	m->next_ns = m->slice_due_ns = m->switch_due_ns = PEN_NEVER;
	if (hooks)
		m->hooks = *hooks;
	TAILQ_INIT(&m->contexts);
	TAILQ_INIT(&m->timers);
	TAILQ_INIT(&m->todo);
	TAILQ_INIT(&m->turns);
	for (unsigned e = 0; e < PEN_MODEL_ENGINES; e++)
		TAILQ_INIT(&m->engine[e]);
	pen_model_group_init(&m->everybody);
	if (concurrent)
		m->active = &m->everybody;
	*ret_model = m;
	return 0;
}

int pen_model_context_add(struct pen_model *m, struct pen_model_context **ret_context)
{
	struct pen_model_context *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->model = m;
	TAILQ_INIT(&c->channels);
	pen_model_group_init(&c->own);
	c->group = m->concurrent ? &m->everybody : &c->own;
	TAILQ_INSERT_TAIL(&m->contexts, c, link);
	*ret_context = c;
	return 0;
}

uint64_t pen_model_context_drop(struct pen_model_context *c)
{
	struct pen_model_channel *ch;
	uint64_t dropped = 0;
	TAILQ_FOREACH(ch, &c->channels, member)
		dropped += pen_model_drop(ch);
	pen_model_settle(c->model);
	return dropped;
}

void pen_model_context_remove(struct pen_model_context *c)
{
	struct pen_model *m = c->model;
	struct pen_model_channel *ch;
	pen_model_context_drop(c);
	while ((ch = TAILQ_FIRST(&c->channels)))
		pen_model_channel_remove(ch);
	if (c->group == &c->own)
		pen_model_group_gone(m, &c->own);
	TAILQ_REMOVE(&m->contexts, c, link);
	free(c);
	pen_model_settle(m);
}

void pen_model_destroy(struct pen_model *m)
{
	struct pen_model_context *c;
	if (!m)
		return;
	m->inside = true;   /* nothing starts any more for what is freed */
	while ((c = TAILQ_FIRST(&m->contexts)))
		pen_model_context_remove(c);
	free(m->slot);
	free(m->demand);
	free(m->alloc);
	free(m->sorted);
	free(m->taker);
	free(m);
}
