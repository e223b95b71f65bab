/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side of simgpu/wire.h. It runs inside a stand-in vendor library, so it is a guest: libc alone, no constructors. */
#include "simgpu/client.h"
#include "base/auto.h"
#include "base/clock.h"
#include "base/lock.h"
#include "simgpu/builtin.h"
#include "simgpu/wire.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* How often a waiter looks whether the server still lives. */
#define LOOK_NS (100 * PEN_MS)

struct sim {
	int fd;
	struct pen_lock lock;           /* one request at a time */
	_Atomic int gone;               /* the server has gone, or we were forked */
	struct sim_bell *bell;
	struct sim_page *page;
	unsigned cards;
	struct sim_card *card;
};

struct sim_context {
	struct sim *sim;
	_Atomic unsigned users;         /* itself, and its channels, which may be destroyed after it */
	uint64_t id;
	unsigned dev;
	_Atomic int32_t *status;
};

struct sim_channel {
	struct sim_context *context;
	uint64_t id;
	uint32_t index;
	struct sim_ring *ring;
};

static void *map(int fd, size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return NULL;
	(void)madvise(p, bytes, MADV_DONTFORK);
	return p;
}

/* @fds: room for @n descriptors that the reply may bring; -1 where none came. Return: bytes of the reply, or a negative errno. */
static ssize_t receive(int fd, struct sim_reply *reply, int *fds, unsigned n)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(2 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { reply, sizeof(*reply) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t got;

	do
		got = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got <= 0)
		return got < 0 ? -errno : -ENODEV;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		unsigned count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (unsigned i = 0; i < count; i++) {
			int one;
			memcpy(&one, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (i < n)
				fds[i] = one;
			else
				close(one);
		}
	}
	return got;
}

static int ask_fds(struct sim *s, const struct sim_request *request, struct sim_reply *reply, int *fds, unsigned n)
{
	struct sim_request r = *request;
	r.magic = SIM_WIRE_MAGIC;
	reply->result = -ENODEV;
	if (atomic_load_explicit(&s->gone, memory_order_relaxed))
		return -ENODEV;
	pen_lock(&s->lock);
	ssize_t got;
	do
		got = send(s->fd, &r, sizeof(r), MSG_NOSIGNAL);
	while (got < 0 && errno == EINTR);
	if (got == (ssize_t)sizeof(r))
		got = receive(s->fd, reply, fds, n);
	if (got < (ssize_t)offsetof(struct sim_reply, card)) {
		atomic_store(&s->gone, 1);
		reply->result = -ENODEV;
	}
	pen_unlock(&s->lock);
	return reply->result;
}

/* The reply is large for the sake of a few requests; callers keep the usual ones off small stacks by this. */
static int ask(struct sim *s, const struct sim_request *request, uint64_t *ret_id, uint64_t *ret_free, uint64_t *ret_total)
{
	struct sim_reply reply;
	int r = ask_fds(s, request, &reply, NULL, 0);
	if (r < 0)
		return r;
	if (ret_id)
		*ret_id = reply.id;
	if (ret_free)
		*ret_free = reply.free_bytes;
	if (ret_total)
		*ret_total = reply.total_bytes;
	return r;
}

/* Says hello and fetches the pages and the cards. */
static int greet(struct sim *s)
{
	struct sim_reply reply;
	int fds[2] = { -1, -1 };
	int r = ask_fds(s, &(struct sim_request){ .op = SIM_OP_HELLO }, &reply, fds, 2);
	pen_auto_close int bell = fds[0];
	pen_auto_close int page = fds[1];
	if (r < 0)
		return r;
	s->bell = bell < 0 ? NULL : map(bell, sizeof(struct sim_bell));
	s->page = page < 0 ? NULL : map(page, sizeof(struct sim_page));
	if (!s->bell || !s->page || s->page->magic != SIM_WIRE_MAGIC)
		return -EPROTO;
	s->card = calloc(reply.index ? reply.index : 1, sizeof(*s->card));
	if (!s->card)
		return -ENOMEM;
	s->cards = reply.index;
	for (unsigned i = 0; i < s->cards; i++) {
		r = ask_fds(s, &(struct sim_request){ .op = SIM_OP_CARD, .dev = i }, &reply, NULL, 0);
		if (r < 0)
			return r;
		s->card[i] = reply.card;
	}
	return 0;
}

static void forget(struct sim *s)
{
	if (s->fd >= 0)
		close(s->fd);
	if (s->bell)
		munmap(s->bell, sizeof(*s->bell));
	if (s->page)
		munmap(s->page, sizeof(*s->page));
	free(s->card);
	free(s);
}

int sim_connect(const char *path, struct sim **ret)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	if (!path)
		path = getenv(SIM_ENV);
	if (!path || !*path)
		return -ENOENT;
	if (strlen(path) >= sizeof(at.sun_path))
		return -ENAMETOOLONG;
	memcpy(at.sun_path, path, strlen(path) + 1);
	struct sim *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int r = s->fd < 0 ? -errno : 0;
	if (!r && connect(s->fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		r = errno == ECONNREFUSED ? -ENOENT : -errno;
	/* The server works on our memory by process_vm_readv; Yama would let only an ancestor do that. */
	if (!r)
		(void)prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	if (!r)
		r = greet(s);
	if (r < 0) {
		forget(s);
		return r;
	}
	*ret = s;
	return 0;
}

void sim_disconnect(struct sim *s)
{
	if (s)
		forget(s);
}

void sim_after_fork(struct sim *s)
{
	/* The pages were not inherited, and the socket is the parent's: closing our copy of it says nothing to the server. */
	if (!s)
		return;
	close(s->fd);
	free(s->card);
	free(s);
}

unsigned sim_cards(const struct sim *s)
{
	return s->cards;
}

const struct sim_card *sim_card(const struct sim *s, unsigned dev)
{
	return dev < s->cards ? &s->card[dev] : NULL;
}

/* ---- memory ---- */

int sim_mem_take(struct sim *s, unsigned dev, uint64_t bytes, uint64_t *ret_id)
{
	return ask(s, &(struct sim_request){ .op = SIM_OP_MEM_TAKE, .dev = dev, .bytes = bytes }, ret_id, NULL, NULL);
}

void sim_mem_give(struct sim *s, unsigned dev, uint64_t id)
{
	(void)ask(s, &(struct sim_request){ .op = SIM_OP_MEM_GIVE, .dev = dev, .id = id }, NULL, NULL, NULL);
}

int sim_mem_info(struct sim *s, unsigned dev, uint64_t *ret_free_bytes, uint64_t *ret_total_bytes)
{
	return ask(s, &(struct sim_request){ .op = SIM_OP_MEM_INFO, .dev = dev }, NULL, ret_free_bytes, ret_total_bytes);
}

/* ---- contexts, channels ---- */

int sim_context_create(struct sim *s, unsigned dev, struct sim_context **ret)
{
	struct sim_reply reply;
	struct sim_context *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	int r = ask_fds(s, &(struct sim_request){ .op = SIM_OP_CONTEXT_CREATE, .dev = dev }, &reply, NULL, 0);
	if (r < 0) {
		free(c);
		return r;
	}
	*c = (struct sim_context){ .sim = s, .users = 1, .id = reply.id, .dev = dev, .status = &s->page->status[reply.index] };
	*ret = c;
	return 0;
}

static void put_context(struct sim_context *c)
{
	if (atomic_fetch_sub(&c->users, 1) == 1)
		free(c);
}

void sim_context_destroy(struct sim_context *c)
{
	if (!c)
		return;
	(void)ask(c->sim, &(struct sim_request){ .op = SIM_OP_CONTEXT_DESTROY, .dev = c->dev, .id = c->id }, NULL, NULL, NULL);
	put_context(c);
}

int sim_context_status(const struct sim_context *c)
{
	if (atomic_load_explicit(&c->sim->gone, memory_order_relaxed))
		return -ENODEV;
	return atomic_load_explicit(c->status, memory_order_acquire);
}

int sim_channel_create(struct sim_context *c, int priority, uint32_t units, struct sim_channel **ret)
{
	struct sim_reply reply;
	int fds[1] = { -1 };
	struct sim_channel *ch = calloc(1, sizeof(*ch));
	if (!ch)
		return -ENOMEM;
	int r = ask_fds(c->sim, &(struct sim_request){ .op = SIM_OP_CHANNEL_CREATE, .id = c->id, .dev = c->dev,
						       .priority = priority, .units = units }, &reply, fds, 1);
	pen_auto_close int fd = fds[0];
	if (!r && (fd < 0 || !(ch->ring = map(fd, sizeof(struct sim_ring)))))
		r = -ENOMEM;
	if (r < 0) {
		free(ch);
		return r;
	}
	atomic_fetch_add(&c->users, 1);
	ch->context = c;
	ch->id = reply.id;
	ch->index = reply.index;
	*ret = ch;
	return 0;
}

void sim_channel_destroy(struct sim_channel *ch)
{
	if (!ch)
		return;
	(void)ask(ch->context->sim, &(struct sim_request){ .op = SIM_OP_CHANNEL_DESTROY, .dev = ch->context->dev, .id = ch->id },
		  NULL, NULL, NULL);
	munmap(ch->ring, sizeof(*ch->ring));
	put_context(ch->context);
	free(ch);
}

/* ---- commands ---- */

static bool server_lives(struct sim *s)
{
	struct pollfd p = { .fd = s->fd };
	if (poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR | POLLNVAL))
		atomic_store(&s->gone, 1);
	return !atomic_load_explicit(&s->gone, memory_order_relaxed);
}

static void ring_bell(struct sim_bell *bell)
{
	atomic_fetch_add(&bell->rings, 1);
	if (atomic_load(&bell->asleep))
		pen_futex_wake(&bell->rings, 1);
}

uint64_t sim_done(const struct sim_channel *ch)
{
	return atomic_load_explicit(&ch->ring->done, memory_order_acquire);
}

/* One look. @anyhow: a failed context is no answer, for it takes commands out all the same. Return: 1 not yet, else as sim_wait(). */
static int look(const struct sim_channel *ch, uint64_t seq, bool anyhow)
{
	int status = sim_context_status(ch->context);
	if (status && !(anyhow && status != -ENODEV))
		return status;
	return sim_done(ch) >= seq ? 0 : 1;
}

static int wait_until(struct sim_channel *ch, uint64_t seq, uint64_t timeout_ns, bool spin, bool anyhow)
{
	struct sim_ring *ring = ch->ring;
	int r = look(ch, seq, anyhow);
	if (r <= 0)
		return r;
	uint64_t now = pen_mono_ns();
	uint64_t end = timeout_ns > PEN_NEVER - now ? PEN_NEVER : now + timeout_ns;
	uint64_t looked = now;

	while ((r = look(ch, seq, anyhow)) > 0) {
		now = pen_mono_ns();
		if (now >= end)
			return -ETIMEDOUT;
		if (now - looked >= LOOK_NS) {
			looked = now;
			if (!server_lives(ch->context->sim))
				return -ENODEV;
		}
		if (spin)
			continue;
		atomic_fetch_add(&ring->waiters, 1);
		uint32_t event = atomic_load(&ring->event);
		if (look(ch, seq, anyhow) > 0)
			(void)pen_futex_wait(&ring->event, event, PEN_MIN(end - now, LOOK_NS));
		atomic_fetch_sub(&ring->waiters, 1);
	}
	return r;
}

int sim_wait(struct sim_channel *ch, uint64_t seq, uint64_t timeout_ns, bool spin)
{
	return wait_until(ch, seq, timeout_ns, spin, false);
}

uint64_t sim_submit(struct sim_channel *ch, const struct sim_cmd *cmd)
{
	struct sim *s = ch->context->sim;
	struct sim_ring *ring = ch->ring;
	uint64_t seq = atomic_load_explicit(&ring->tail, memory_order_relaxed) + 1;

	if (atomic_load_explicit(&s->gone, memory_order_relaxed))
		return 0;
	if (seq - atomic_load_explicit(&ring->done, memory_order_acquire) > SIM_RING) {
		if (wait_until(ch, seq - SIM_RING, UINT64_MAX, false, true) < 0)
			return 0;
	}
	struct sim_slot *slot = &ring->slot[(seq - 1) % SIM_RING];
	slot->cmd = *cmd;
	if (cmd->kind == SIM_WAIT_SEQ)   /* an id in place of our pointer */
		slot->cmd.wait_seq.channel = (struct sim_channel *)(uintptr_t)cmd->wait_seq.channel->id;
	slot->at_ns = pen_mono_ns();
	atomic_store_explicit(&ring->tail, seq, memory_order_release);
	atomic_fetch_or(&s->page->dirty[ch->index / 64], UINT64_C(1) << (ch->index % 64));
	atomic_store(&s->page->any, 1);
	ring_bell(s->bell);
	return seq;
}

int sim_host_next(struct sim *s, uint64_t timeout_ns, uint64_t *ret_token)
{
	struct sim_page *page = s->page;
	uint64_t now = pen_mono_ns();
	uint64_t end = timeout_ns > PEN_NEVER - now ? PEN_NEVER : now + timeout_ns;
	for (;;) {
		uint32_t event = atomic_load(&page->host_event);
		uint32_t taken = atomic_load_explicit(&page->host_taken, memory_order_relaxed);
		if (taken != atomic_load_explicit(&page->host_put, memory_order_acquire)) {
			*ret_token = page->host[taken % SIM_CHANNELS];
			atomic_store_explicit(&page->host_taken, taken + 1, memory_order_release);
			return 0;
		}
		if (!server_lives(s))
			return -ESHUTDOWN;
		now = pen_mono_ns();
		if (now >= end)
			return -ETIMEDOUT;
		(void)pen_futex_wait(&page->host_event, event, PEN_MIN(end - now, LOOK_NS));
	}
}

void sim_host_done(struct sim *s, uint64_t token)
{
	(void)ask(s, &(struct sim_request){ .op = SIM_OP_HOST_DONE, .id = token }, NULL, NULL, NULL);
}

/* ---- what a management library asks ---- */

int sim_reading(struct sim *s, unsigned dev, struct sim_reading *ret)
{
	struct sim_reply reply;
	int r = ask_fds(s, &(struct sim_request){ .op = SIM_OP_READING, .dev = dev }, &reply, NULL, 0);
	if (!r)
		*ret = reply.reading;
	return r;
}

int sim_processes(struct sim *s, unsigned dev, struct sim_process *v, unsigned room)
{
	struct sim_reply reply;
	int r = ask_fds(s, &(struct sim_request){ .op = SIM_OP_PROCESSES, .dev = dev }, &reply, NULL, 0);
	unsigned n = r < 0 ? 0 : PEN_MIN((unsigned)r, SIM_PROCESSES);
	memcpy(v, reply.process, PEN_MIN(n, room) * sizeof(*v));
	return r;
}

uint32_t sim_kernel_find(const char *name)
{
#define X(id, builtin, what)       \
	if (!strcmp(name, builtin)) \
		return SIM_BUILTIN_##id;
	SIM_BUILTINS(X)
#undef X
	return SIM_BUILTIN_NONE;
}
