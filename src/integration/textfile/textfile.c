/* SPDX-License-Identifier: Apache-2.0 */
#include "integration/textfile/textfile.h"

#include "base/auto.h"
#include "base/clock.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct textfile {
	struct pen_service *s;
	struct event *timer;
	bool busy;     /* a writing is under way: a disk that stalls is not given more to do */
	bool failed;   /* ... and that was told */
};

struct job {
	struct textfile *t;
	char path[PEN_CONFIG_PATH_MAX + 1];
	char *text;
	int result;
};

static int write_file(const char *path, const char *text)
{
	char tmp[PATH_MAX];
	/* Another ending: the collector reads *.prom, and must not see half a file. */
	if ((size_t)snprintf(tmp, sizeof(tmp), "%s.tmp", path) >= sizeof(tmp))
		return -ENAMETOOLONG;
	unlink(tmp);
	pen_auto_close int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return -errno;
	size_t len = strlen(text);
	ssize_t w = write(fd, text, len);
	if (w == (ssize_t)len && fchmod(fd, 0644) == 0 && rename(tmp, path) == 0)
		return 0;
	int r = w >= 0 && w != (ssize_t)len ? -ENOSPC : -errno;
	unlink(tmp);
	return r;
}

static void job_free(void *arg)
{
	struct job *j = arg;
	free(j->text);
	free(j);
}

static void job_run(void *arg)
{
	struct job *j = arg;
	j->result = write_file(j->path, j->text);
}

static void job_done(void *arg)
{
	struct job *j = arg;
	struct textfile *t = j->t;
	if (j->result < 0 && !t->failed)
		pen_service_event(t->s, true, NULL, "metrics: '%s': %s", j->path, strerror(-j->result));
	t->failed = j->result < 0;
	t->busy = false;
	job_free(j);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct textfile *t = arg;
	(void)fd, (void)what;
	const char *path = pen_service_config(t->s)->textfile;
	if (!path[0] || t->busy)
		return;
	struct job *j = calloc(1, sizeof(*j));
	if (!j)
		return;
	j->t = t;
	snprintf(j->path, sizeof(j->path), "%s", path);
	j->text = pen_service_metrics_text(t->s);
	t->busy = j->text && pen_service_work(t->s, job_run, job_done, job_free, j) == 0;
	if (!t->busy)
		job_free(j);
}

static int init(struct pen_service *s, void **ret_self, struct pen_err *err)
{
	struct textfile *t = calloc(1, sizeof(*t));
	if (t)
		t->timer = event_new(pen_service_base(s), -1, EV_PERSIST, on_timer, t);
	if (!t || !t->timer) {
		free(t);
		return pen_err_sys(err, -ENOMEM, "metrics file");
	}
	t->s = s;
	*ret_self = t;
	return 0;
}

static void configure(void *self)
{
	struct textfile *t = self;
	const struct pen_config *cfg = pen_service_config(t->s);
	event_del(t->timer);
	if (!cfg->textfile[0])
		return;
	uint64_t us = cfg->textfile_interval_ns / PEN_US;
	struct timeval every = { .tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000) };
	event_add(t->timer, &every);
	on_timer(-1, 0, t);
}

static void changed(void *self, unsigned what)
{
	(void)self, (void)what;
}

static int claim(void *self, const char *tenant, pid_t pid, char *why, size_t n)
{
	(void)self, (void)tenant, (void)pid, (void)why, (void)n;
	return 0;
}

static bool wanted(const struct pen_config *cfg)
{
	return cfg->textfile[0] != 0;
}

static void stop(void *self)
{
	struct textfile *t = self;
	event_free(t->timer);
	free(t);
}

const struct pen_integration pen_textfile_integration = {
	.name = "textfile",
	.wanted = wanted,
	.init = init,
	.configure = configure,
	.changed = changed,
	.claim = claim,
	.stop = stop,
};
