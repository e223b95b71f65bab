/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose is a process? It is a tenant's if it has attached; if a process from which it descends has, or is the `penstock run` that the
 * tenant ends with; or if it is in the container of a process that has: in the same control group, where that group has
 * clients of one tenant only and is neither the daemon's nor one in which a `penstock run` was typed.
 *
 * Only /proc is read: files that the kernel makes up, which wait for nothing.
 */
#include "base/auto.h"
#include "daemon/audit.h"
#include "daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <utlist.h>

#define ANCESTORS_MAX 64
#define CGROUP_MAX 4096
#define LOOKS 4        /* readings in which all is looked at again */
#define LOOK_AGAIN 8   /* and then each so many */
#define INITIAL_PID_NS UINT64_C(0xEFFFFFFC)   /* inode of the first pid namespace, a constant of the kernel (PROC_PID_INIT_INO) */

static ssize_t read_proc(pid_t pid, const char *name, char *buf, size_t n)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	pen_auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, buf, n - 1);
	buf[got > 0 ? got : 0] = 0;
	return got;
}

/* 0 = it has none, or is gone. */
static pid_t parent_of(pid_t pid)
{
	char buf[1024];
	int ppid;
	const char *p = read_proc(pid, "stat", buf, sizeof(buf)) > 0 ? strrchr(buf, ')') : NULL;
	return p && sscanf(p + 1, " %*c %d", &ppid) == 1 && ppid > 0 ? (pid_t)ppid : 0;
}

bool pen_audit_numbers_are_ours(void)
{
	struct stat st;
	return stat("/proc/self/ns/pid", &st) == 0 && st.st_ino == INITIAL_PID_NS;
}

bool pen_audit_is_above(pid_t pid)
{
	pid_t at = getpid();
	for (unsigned i = 0; at > 0 && i < ANCESTORS_MAX; i++, at = parent_of(at))
		if (at == pid)
			return true;
	return false;
}

/* Attached, and still the same process: a number is given to another only when its pidfd says that it is dead. */
static struct pen_tenant *attached(struct pen_daemon *d, pid_t pid, uint64_t start_time)
{
	for (struct pen_tenant *t = d->tenants; t; t = t->hh.next) {
		struct pen_client *c;
		DL_FOREACH(t->clients, c)
			if (c->greeted && c->peer.pid == pid && (!c->peer.start_time || c->peer.start_time == start_time) &&
			    pen_peer_alive(&c->peer))
				return t;
		if (t->watch_ev && t->watch_pid == pid && t->watch_start == start_time)
			return t;
	}
	return NULL;
}

static struct pen_tenant *by_ancestor(struct pen_daemon *d, pid_t pid)
{
	struct pen_tenant *t = NULL;
	pid_t at = parent_of(pid);
	for (unsigned i = 0; !t && at > 1 && i < ANCESTORS_MAX; i++, at = parent_of(at)) {
		uint64_t start;
		if (pen_peer_start_time(at, &start) == 0)
			t = attached(d, at, start);
	}
	return t;
}

/* FNV-1a of /proc/PID/cgroup; 0 = it cannot be read. */
static uint64_t cgroup_of(pid_t pid)
{
	char buf[CGROUP_MAX];
	uint64_t h = UINT64_C(14695981039346656037);
	if (pid <= 0 || read_proc(pid, "cgroup", buf, sizeof(buf)) <= 0)
		return 0;
	for (const char *s = buf; *s; s++)
		h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
	return h ? h : 1;
}

/* Read once: a process that is moved to another group later keeps the one that it attached in. */
static uint64_t cached(uint64_t *word, pid_t pid)
{
	if (!*word)
		*word = cgroup_of(pid);
	return *word;
}

static bool has_client_in(struct pen_tenant *t, uint64_t cgroup)
{
	struct pen_client *c;
	DL_FOREACH(t->clients, c)
		if (c->greeted && cached(&c->cgroup, c->peer.pid) == cgroup)
			return true;
	return false;
}

static struct pen_tenant *by_cgroup(struct pen_daemon *d, pid_t pid)
{
	uint64_t cgroup = cgroup_of(pid);
	if (!cgroup || cgroup == cgroup_of(getpid()))
		return NULL;
	struct pen_tenant *found = NULL;
	for (struct pen_tenant *t = d->tenants; t; t = t->hh.next) {
		if (t->watch_pid && cached(&t->watch_cgroup, t->watch_pid) == cgroup)   /* a login session, with who knows what in it */
			return NULL;
		if (!has_client_in(t, cgroup))
			continue;
		if (found)
			return NULL;
		found = t;
	}
	return found;
}

/* By the file, not by its name: a container has names of its own. */
static bool is_configured(const struct pen_daemon *d, pid_t pid)
{
	char path[64], one[PEN_CONFIG_PATH_MAX + 1];
	struct stat exe, st;
	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	if (!*d->cfg.audit_known || stat(path, &exe) < 0)
		return false;
	for (const char *at = d->cfg.audit_known; *at;) {
		size_t len = strcspn(at, ":");
		snprintf(one, sizeof(one), "%.*s", (int)len, at);
		if (stat(one, &st) == 0 && st.st_dev == exe.st_dev && st.st_ino == exe.st_ino)
			return true;
		at += len + (at[len] != 0);
	}
	return false;
}

/* Same process, and what it was found to be holds without a look at its ancestors. */
static bool is_settled(struct pen_daemon *d, const struct pen_audit_process *before, struct pen_who *w)
{
	if (!before || before->start_time != w->start_time)
		return false;
	w->kind = before->kind;
	if (before->kind == PEN_AUDIT_TENANT)
		w->tenant = pen_tenant_find(d, before->tenant);
	if (before->kind == PEN_AUDIT_UNKNOWN)   /* its container's first process may attach after it; looked for now and then */
		return before->readings > LOOKS && before->readings % LOOK_AGAIN;
	return before->kind == PEN_AUDIT_KNOWN || w->tenant;
}

int pen_audit_who(struct pen_daemon *d, pid_t pid, const struct pen_audit_process *before, struct pen_who *ret)
{
	struct pen_who w = { .kind = PEN_AUDIT_TENANT };
	if (pen_peer_start_time(pid, &w.start_time) < 0)
		return -ESRCH;
	w.tenant = attached(d, pid, w.start_time);
	if (!w.tenant && !is_settled(d, before, &w)) {
		w.kind = PEN_AUDIT_TENANT;
		w.tenant = by_ancestor(d, pid);
		if (!w.tenant)
			w.tenant = by_cgroup(d, pid);
		if (!w.tenant)
			w.kind = pid == getpid() || parent_of(pid) == getpid() || is_configured(d, pid) ? PEN_AUDIT_KNOWN :
													    PEN_AUDIT_UNKNOWN;
	}
	*ret = w;
	return 0;
}

void pen_audit_describe(pid_t pid, struct pen_audit_process *p)
{
	char path[64], buf[sizeof(p->comm) + 1];
	struct stat st;
	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	p->uid = stat(path, &st) == 0 ? st.st_uid : (uid_t)-1;
	read_proc(pid, "comm", buf, sizeof(buf));
	buf[strcspn(buf, "\n")] = 0;
	for (char *s = buf; *s; s++)
		if ((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f)
			*s = '?';
	snprintf(p->comm, sizeof(p->comm), "%s", buf);
}
