/* SPDX-License-Identifier: Apache-2.0 */
/* What processes hold: device memory, contexts, channels. All under the server's lock. */
#include "simgpu/server/server.h"
#include "base/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *sim_shared_page(size_t bytes, const char *name, int *ret_fd)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return NULL;
	/* Sealed: a client that makes it smaller would end us by a signal. */
	bool good = !ftruncate(fd, (off_t)bytes) && !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	void *p = good ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
	if (p == MAP_FAILED) {
		close(fd);
		return NULL;
	}
	*ret_fd = fd;
	return p;
}

/* ---- memory ---- */

/* A number whose low half is its place in the table, so that a give finds it at once. */
static int place_block(struct sim_server *s, struct sim_block *b)
{
	while (s->blocks_free < s->blocks && s->block[s->blocks_free])
		s->blocks_free++;
	if (s->blocks_free == s->blocks) {
		uint32_t room = s->blocks ? s->blocks * 2 : 256;
		struct sim_block **block = reallocarray(s->block, room, sizeof(struct sim_block *));
		if (!block)
			return -ENOMEM;
		memset(block + s->blocks, 0, (room - s->blocks) * sizeof(struct sim_block *));
		s->block = block;
		s->blocks = room;
	}
	s->block[s->blocks_free] = b;
	b->id = ++s->next_id << 32 | s->blocks_free;
	return 0;
}

int sim_block_take(struct sim_proc *p, struct sim_dev *d, uint64_t bytes, struct sim_block **ret)
{
	if (d->lost)
		return -ENODEV;
	if (!bytes || bytes % SIM_PAGE_BYTES)
		return -EINVAL;
	if (d->refuse) {
		d->refuse--;
		return -ENOMEM;
	}
	if (bytes > d->told.mem_bytes - d->used_bytes)
		return -ENOMEM;
	struct sim_account *a = sim_account_of(p, d);
	struct sim_block *b = calloc(1, sizeof(*b));
	if (!a || !b || place_block(p->server, b) < 0) {
		free(b);
		return -ENOMEM;
	}
	b->proc = p;
	b->dev = d;
	b->bytes = bytes;
	TAILQ_INSERT_TAIL(&p->blocks, b, link);
	d->used_bytes += bytes;
	a->mem_bytes += bytes;
	if (a->mem_bytes > a->mem_peak_bytes)
		a->mem_peak_bytes = a->mem_bytes;
	*ret = b;
	return 0;
}

int sim_block_give(struct sim_proc *p, uint64_t id)
{
	struct sim_server *s = p->server;
	uint32_t at = (uint32_t)id;
	struct sim_block *b = at < s->blocks ? s->block[at] : NULL;
	if (!b || b->id != id || b->proc != p)
		return -EINVAL;
	s->block[at] = NULL;
	if (at < s->blocks_free)
		s->blocks_free = at;
	TAILQ_REMOVE(&p->blocks, b, link);
	b->dev->used_bytes -= b->bytes;
	p->account[b->dev->index]->mem_bytes -= b->bytes;
	free(b);
	return 0;
}

/* ---- contexts ---- */

static int free_index(const struct sim_proc *p)
{
	for (int i = 0; i < SIM_CONTEXTS; i++)
		if (!p->index_used[i])
			return i;
	return -EMFILE;
}

int sim_ctx_create(struct sim_proc *p, struct sim_dev *d, struct sim_ctx **ret)
{
	int index = free_index(p);
	if (index < 0)
		return index;
	struct sim_ctx *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	uint64_t bytes = d->told.context_bytes;
	int r = bytes ? sim_block_take(p, d, bytes, &c->memory) : d->lost ? -ENODEV : 0;
	if (!r)
		r = pen_model_context_add(d->model, &c->model);
	if (!r && !(c->account = sim_account_of(p, d)))
		r = -ENOMEM;
	if (r < 0) {
		if (c->model)
			pen_model_context_remove(c->model);
		if (c->memory)
			sim_block_give(p, c->memory->id);
		free(c);
		return r;
	}
	c->proc = p;
	c->dev = d;
	c->index = (uint32_t)index;
	c->id = ++p->server->next_id;
	p->index_used[index] = true;
	atomic_store(&p->page->status[index], 0);
	TAILQ_INSERT_TAIL(&p->contexts, c, link);
	*ret = c;
	return 0;
}

struct sim_ctx *sim_ctx_find(struct sim_proc *p, uint64_t id)
{
	struct sim_ctx *c;
	TAILQ_FOREACH(c, &p->contexts, link)
		if (c->id == id)
			return c;
	return NULL;
}

static void wake_all(struct sim_chan *ch)
{
	atomic_fetch_add(&ch->ring->event, 1);
	pen_futex_wake(&ch->ring->event, INT32_MAX);
}

/* What a channel was at is over, without having been done. */
static void abandon(struct sim_chan *ch)
{
	struct sim_server *s = ch->ctx->dev->server;
	sim_unpoll(ch);
	if (s->crossing)
		s->poll_due_ns = 0;
	if (ch->job)
		sim_effect_forget(s, ch->job);
	ch->job = NULL;
	ch->held = false;
	ch->done = ch->taken;
	ch->ended_ns = 0;
}

static void add_truth(struct pen_model_truth *to, const struct pen_model_truth *t)
{
	to->busy_ns += t->busy_ns;
	to->residence_ns += t->residence_ns;
	to->unit_ns += t->unit_ns;
	to->dram_bytes += t->dram_bytes;
	for (unsigned i = 0; i < PEN_MODEL_DIR_MAX_; i++)
		to->copy_bytes[i] += t->copy_bytes[i];
	to->copy_ns += t->copy_ns;
	to->kernels += t->kernels;
	to->copies += t->copies;
	to->commands += t->commands;
	to->switches += t->switches;
	if (t->longest_wait_ns > to->longest_wait_ns)
		to->longest_wait_ns = t->longest_wait_ns;
}

void sim_ctx_fail(struct sim_ctx *c, int code)
{
	int32_t none = 0;
	atomic_compare_exchange_strong(&c->proc->page->status[c->index], &none, code);
	for (unsigned i = 0; i < SIM_CHANNELS; i++) {
		struct sim_chan *ch = c->proc->chan[i];
		if (!ch || ch->ctx != c)
			continue;
		abandon(ch);
		wake_all(ch);
		sim_publish(ch);
	}
	pen_model_context_drop(c->model);
}

void sim_ctx_destroy(struct sim_ctx *c)
{
	struct sim_proc *p = c->proc;
	struct pen_model_truth t;
	for (unsigned i = 0; i < SIM_CHANNELS; i++)
		if (p->chan[i] && p->chan[i]->ctx == c)
			sim_chan_destroy(p->chan[i]);
	pen_model_context_truth(c->model, &t);
	add_truth(&c->account->past, &t);
	pen_model_context_remove(c->model);
	if (c->memory)
		sim_block_give(p, c->memory->id);
	p->index_used[c->index] = false;
	TAILQ_REMOVE(&p->contexts, c, link);
	free(c);
}

/* ---- channels ---- */

int sim_chan_create(struct sim_ctx *c, int32_t priority, uint32_t units, struct sim_chan **ret, int *ret_fd)
{
	struct sim_proc *p = c->proc;
	uint32_t index = 0;
	while (index < SIM_CHANNELS && p->chan[index])
		index++;
	if (index == SIM_CHANNELS)
		return -EMFILE;
	struct sim_chan *ch = calloc(1, sizeof(*ch));
	if (!ch)
		return -ENOMEM;
	ch->cmd = calloc(SIM_RING, sizeof(*ch->cmd));
	ch->ring = sim_shared_page(sizeof(*ch->ring), "simgpu-ring", ret_fd);
	if (!ch->cmd || !ch->ring || pen_model_channel_add(c->model, priority, units, ch, &ch->model) < 0) {
		if (ch->ring) {
			munmap(ch->ring, sizeof(*ch->ring));
			close(*ret_fd);
		}
		free(ch->cmd);
		free(ch);
		return -ENOMEM;
	}
	ch->ctx = c;
	ch->index = index;
	ch->id = ++p->server->next_id << 32 | index;
	p->chan[index] = ch;
	*ret = ch;
	return 0;
}

struct sim_chan *sim_chan_find(struct sim_proc *p, uint64_t id)
{
	uint32_t index = (uint32_t)id;
	struct sim_chan *ch = index < SIM_CHANNELS ? p->chan[index] : NULL;
	return ch && ch->id == id ? ch : NULL;
}

void sim_chan_destroy(struct sim_chan *ch)
{
	struct sim_server *s = ch->ctx->dev->server;
	abandon(ch);
	/* Who still waits need not any longer: what was in it has been dropped. */
	atomic_store(&ch->ring->done, atomic_load(&ch->ring->tail));
	wake_all(ch);
	if (ch->to_publish)
		TAILQ_REMOVE(&s->to_publish, ch, publish);
	pen_model_channel_remove(ch->model);
	ch->ctx->proc->chan[ch->index] = NULL;
	munmap(ch->ring, sizeof(*ch->ring));
	free(ch->cmd);
	free(ch);
}
