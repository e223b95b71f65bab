/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that have a device and belong to no tenant: told, and where it is configured ended, asked first. That is
 * the one place where the daemon raises its hand against somebody else's process, so it has to be sure: the daemon is root, the
 * numbers are its own namespace's, the process is the one that the readings showed (number and start time, pinned by a pidfd),
 * and neither the first process nor the daemon nor one above it.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "daemon/audit.h"
#include "daemon/daemon.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SURE 3                     /* readings in a row: a process that is about to attach has a context before it is a client */
#define GRACE_NS (3 * PEN_S)       /* from SIGTERM to SIGKILL */
#define TOLD_MAX 8                 /* events of one reading */

/* NULL: it may be done. */
static const char *why_not(void)
{
	if (geteuid() != 0)
		return "the daemon does not run as root";
	if (!pen_audit_numbers_are_ours())
		return "the daemon runs in a container, where a driver's numbers of processes may be others'";
	return NULL;
}

static int send(const struct pen_audit_process *p, int sig)
{
	pid_t pid = p->r.pid;
	uint64_t start;
	if (pid <= 1 || pen_audit_is_above(pid))
		return -EPERM;
	pen_auto_close int fd = pen_process_open(pid);
	if (pen_peer_start_time(pid, &start) < 0 || start != p->start_time)
		return -ESRCH;
	if (fd >= 0 && syscall(SYS_pidfd_send_signal, fd, sig, NULL, 0) == 0)
		return 0;
	if (fd >= 0 && errno != ENOSYS)
		return -errno;
	return kill(pid, sig) < 0 ? -errno : 0;   /* kernels before 5.3 */
}

static void end(struct pen_daemon *d, struct pen_device *dev, struct pen_audit_process *p, uint64_t now_ns)
{
	int sig = !p->term_ns ? SIGTERM : !p->kill_ns && now_ns - p->term_ns > GRACE_NS ? SIGKILL : 0;
	if (!sig)
		return;
	int r = send(p, sig);
	if (sig == SIGTERM)
		p->term_ns = now_ns;
	else
		p->kill_ns = now_ns;
	if (r == -ESRCH)
		return;
	if (r < 0)
		pen_event(d, PEN_EVENT_AUDIT, NULL, dev, "process %d (%s) belongs to no tenant and cannot be ended: %s", (int)p->r.pid,
			  p->comm, strerror(-r));
	else
		pen_event(d, PEN_EVENT_AUDIT, NULL, dev, "process %d (%s) belongs to no tenant and was sent %s", (int)p->r.pid, p->comm,
			  sig == SIGTERM ? "SIGTERM" : "SIGKILL");
}

static void tell(struct pen_daemon *d, struct pen_device *dev, struct pen_audit_process *p)
{
	char text[32];
	p->told = true;
	pen_event(d, PEN_EVENT_AUDIT, NULL, dev, "process %d (%s) of user %u uses the device and belongs to no tenant: %s%s", (int)p->r.pid,
		  p->comm, (unsigned)p->uid, p->r.has_mem ? pen_format_bytes(text, sizeof(text), p->r.mem_bytes) : "memory not told",
		  p->r.has_mem ? " of memory" : "");
}

void pen_audit_unknown(struct pen_daemon *d, struct pen_device *dev)
{
	struct pen_audit *a = dev->audit;
	uint64_t now = pen_mono_ns();
	unsigned told = 0;
	if (d->opt.is_private || d->adopt_until_ns > now)   /* of other users; or of clients that come back */
		return;
	bool stop = d->cfg.audit_unknown == PEN_UNKNOWN_STOP;
	const char *obstacle = stop ? why_not() : NULL;
	for (unsigned i = 0; i < a->n_processes; i++) {
		struct pen_audit_process *p = &a->process[i];
		if (p->kind != PEN_AUDIT_UNKNOWN || p->readings < SURE)
			continue;
		if (!p->told && told++ < TOLD_MAX)
			tell(d, dev, p);
		if (obstacle && !d->told_cannot_stop)
			pen_event(d, PEN_EVENT_ALERT, NULL, dev, "audit.unknown_processes is stop, but they are only reported: %s",
				  obstacle);
		d->told_cannot_stop |= obstacle != NULL;
		if (stop && !obstacle)
			end(d, dev, p, now);
	}
}
