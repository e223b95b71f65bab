/* SPDX-License-Identifier: Apache-2.0 */
/* Processes: from hello to their end, and the accounts that outlive them. */
#include "base/auto.h"
#include "simgpu/server/server.h"

#include <errno.h>
#include <event2/event.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* Accounts of the dead that are kept for the report. */
#define DEAD_MOST 1024

static void read_name(pid_t pid, char *name, size_t n)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	pen_auto_fclose FILE *f = fopen(path, "re");
	if (!f || !fgets(name, (int)n, f))
		snprintf(name, n, "?");
	name[strcspn(name, "\n")] = 0;
}

struct sim_account *sim_account_of(struct sim_proc *p, struct sim_dev *d)
{
	struct sim_account *a = p->account[d->index];
	if (a)
		return a;
	a = calloc(1, sizeof(*a));
	if (!a)
		return NULL;
	a->dev = d;
	a->pid = p->pid;
	a->alive = true;
	read_name(p->pid, a->name, sizeof(a->name));
	TAILQ_INSERT_TAIL(&p->server->accounts, a, link);
	p->account[d->index] = a;
	return a;
}

/* The oldest of the dead make room. */
static void bury(struct sim_server *s, struct sim_account *a)
{
	struct sim_account *old;
	a->alive = false;
	s->dead_accounts++;
	if (s->dead_accounts <= DEAD_MOST)
		return;
	TAILQ_FOREACH(old, &s->accounts, link)
		if (!old->alive)
			break;
	if (!old)
		return;
	TAILQ_REMOVE(&s->accounts, old, link);
	free(old);
	s->dead_accounts--;
}

int sim_proc_create(struct sim_server *s, int fd, struct sim_proc **ret)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	struct sim_proc *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->server = s;
	p->fd = fd;
	p->page_fd = -1;
	p->pid = cred.pid;
	TAILQ_INIT(&p->blocks);
	TAILQ_INIT(&p->contexts);
	p->pidfd = (int)syscall(SYS_pidfd_open, cred.pid, 0);
	p->page = sim_shared_page(sizeof(*p->page), "simgpu-page", &p->page_fd);
	if (p->pidfd < 0 || !p->page) {
		int r = p->pidfd < 0 ? -errno : -ENOMEM;
		if (p->pidfd >= 0)
			close(p->pidfd);
		free(p);
		return r;
	}
	p->page->magic = SIM_WIRE_MAGIC;
	TAILQ_INSERT_TAIL(&s->procs, p, link);
	*ret = p;
	return 0;
}

bool sim_proc_is_dead(const struct sim_proc *p)
{
	struct pollfd f[2] = { { .fd = p->pidfd, .events = POLLIN }, { .fd = p->fd } };
	return poll(f, 2, 0) > 0 && (f[0].revents || f[1].revents & (POLLHUP | POLLERR));
}

void sim_proc_destroy(struct sim_proc *p)
{
	struct sim_server *s = p->server;
	struct sim_ctx *c;
	struct sim_block *b;
	while ((c = TAILQ_FIRST(&p->contexts)))
		sim_ctx_destroy(c);
	while ((b = TAILQ_FIRST(&p->blocks)))
		sim_block_give(p, b->id);
	for (unsigned i = 0; i < s->devs; i++)
		if (p->account[i])
			bury(s, p->account[i]);
	TAILQ_REMOVE(&s->procs, p, link);
	if (p->on_request)
		event_free(p->on_request);
	if (p->on_death)
		event_free(p->on_death);
	munmap(p->page, sizeof(*p->page));
	close(p->page_fd);
	close(p->pidfd);
	close(p->fd);
	free(p);
}
