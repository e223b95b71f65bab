/* SPDX-License-Identifier: Apache-2.0 */
/*
 * That the loop comes round: what brings it back when it waits for something, and a word to systemd.
 *
 * A descriptor that somebody sends along may be the last one of a socket that lingers: whoever closes it then waits for its peer, for as long
 * as the sender likes, and that is us, also where it is the kernel that throws away what was not asked for. Such a wait ends with a
 * signal. So an alarm is put off again and again by the loop, and comes when that does not.
 *
 * Not every wait does: one for a file system that its owner serves himself does not. systemd ends and starts a service anew that does not
 * report in time (WatchdogSec), and tenants go on meanwhile.
 */
#include "base/clock.h"
#include "daemon/daemon.h"

#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define BEAT_MS 200
#define LATE_MS 250    /* so long the loop may be away before it is kicked, */
#define KICK_MS 5      /* and then so often until it is back */

static void on_alarm(int sig)
{
	(void)sig;   /* goes to the first thread, since the others block it */
}

void pen_alive_put_off(void)
{
	const struct itimerval alarm = { .it_value.tv_usec = LATE_MS * 1000, .it_interval.tv_usec = KICK_MS * 1000 };
	setitimer(ITIMER_REAL, &alarm, NULL);
}

/* As sd_notify(3) says: a datagram to the socket that the service manager has named; '@' = in the abstract namespace. */
static void tell(const char *text)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	const char *path = getenv("NOTIFY_SOCKET");
	size_t len = path ? strlen(path) : 0;
	if (!len || len >= sizeof(sa.sun_path))
		return;
	memcpy(sa.sun_path, path, len);
	if (*path == '@')
		sa.sun_path[0] = 0;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	ssize_t n = sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&sa, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
	(void)n;   /* told again before it is too late */
	close(fd);
}

static void on_beat(evutil_socket_t fd, short what, void *arg)
{
	struct pen_daemon *d = arg;
	uint64_t now = pen_mono_ns();
	(void)fd, (void)what;
	pen_alive_put_off();
	if (!d->watchdog_ns || now < d->tell_ns)
		return;
	d->tell_ns = now + d->watchdog_ns / 4;
	tell("WATCHDOG=1");
}

int pen_alive_start(struct pen_daemon *d)
{
	const struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	const struct timeval beat = { .tv_usec = BEAT_MS * 1000 };
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	if (usec && (!pid || strtol(pid, NULL, 10) == getpid()))
		d->watchdog_ns = strtoull(usec, NULL, 10) * PEN_US;
	d->beat_ev = event_new(d->base, -1, EV_PERSIST, on_beat, d);
	if (sigaction(SIGALRM, &sa, NULL) < 0 || !d->beat_ev || event_add(d->beat_ev, &beat) < 0)
		return -ENOMEM;
	on_beat(-1, 0, d);
	return 0;
}
