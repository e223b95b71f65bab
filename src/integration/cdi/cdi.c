/* SPDX-License-Identifier: Apache-2.0 */
/* When the file is written: after the set of tenants or of devices has changed, if its text is another one then. */
#include "integration/cdi/cdi.h"

#include "base/auto.h"
#include "base/clock.h"

#include <errno.h>
#include <event2/event.h>
#include <libgen.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <time.h>

/*
 * A file system in memory makes nobody wait: there the file is written before the loop goes on, and so before whoever asked for a contract
 * is answered that it stands. A disk may stall: there the helper thread writes it, a moment later.
 *
 * With very many contracts, thousands, making the text takes time that others wait for: then it is made the less often. Not before: who is answered
 * goes on to start his container, and on a slow machine a hundred contracts take some milliseconds.
 */
#define SLOW_NS (20 * PEN_MS)
#define AT_MOST_A 10          /* part of the time, once it is slow */
#define AGAIN_MS 5000         /* after a failure: a directory that was full or could not be written may have been seen to */

struct cdi {
	struct pen_service *s;
	char dir[PEN_CONFIG_PATH_MAX + 1];   /* "" = off */
	char *text;                          /* as it was handed to be written; NULL: nothing yet */
	bool failed;                         /* ... and was told */
	bool told_name;                      /* that a contract cannot be listed */
	size_t listed;
	uint64_t made_ns, cost_ns;           /* the last text: when, and how much of the processor's time it took */
	struct event *later;
};

struct job {
	struct cdi *cdi;
	char dir[PEN_CONFIG_PATH_MAX + 1];
	char *text;                          /* NULL: the file goes */
	int result;
};

static void arm(struct cdi *c, uint64_t ns)
{
	event_add(c->later, &(struct timeval){ .tv_sec = (time_t)(ns / PEN_S), .tv_usec = (suseconds_t)(ns % PEN_S / PEN_US) });
}

static void written(struct cdi *c, const char *dir, int r)
{
	if (r < 0 && !c->failed)
		pen_service_event(c->s, true, NULL, "cdi: '%s/" PEN_CDI_FILE "': %s; containers cannot be started by --device " PEN_CDI_KIND
				  "=NAME", dir, strerror(-r));
	else if (r == 0 && c->failed)
		pen_service_event(c->s, false, NULL, "cdi: '%s/" PEN_CDI_FILE "' is written again", dir);
	c->failed = r < 0;
	if (!c->failed)
		return;
	free(c->text);
	c->text = NULL;
	arm(c, AGAIN_MS * PEN_MS);
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
	j->result = pen_cdi_write(j->dir, j->text);
}

static void job_done(void *arg)
{
	struct job *j = arg;
	if (j->text && !strcmp(j->dir, j->cdi->dir))   /* not of a directory that is no longer ours */
		written(j->cdi, j->dir, j->result);
	job_free(j);
}

static bool is_in_memory(const char *dir)
{
	struct statfs fs;
	char above[PEN_CONFIG_PATH_MAX + 1];
	snprintf(above, sizeof(above), "%s", dir);
	if (statfs(dir, &fs) < 0 && statfs(dirname(above), &fs) < 0)
		return false;
	return fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
}

/* @text NULL: the file goes. Return: false: nothing was begun. */
static bool put(struct cdi *c, const char *text)
{
	if (is_in_memory(c->dir)) {
		int r = pen_cdi_write(c->dir, text);
		if (text)
			written(c, c->dir, r);
		return r == 0;
	}
	struct job *j = calloc(1, sizeof(*j));
	if (!j || (text && !(j->text = strdup(text)))) {
		free(j);
		return false;
	}
	j->cdi = c;
	memcpy(j->dir, c->dir, sizeof(j->dir));
	if (pen_service_work(c->s, job_run, job_done, job_free, j) == 0)
		return true;
	job_free(j);
	return false;
}

struct list {
	struct cdi *cdi;
	struct pen_cdi_device *v;
	size_t n, room;
	json_t *common;                      /* NULL: nothing */
	char left_out[PEN_NAME_MAX + 1];
	struct pen_service_edit edit[PEN_EDITS_MAX];
};

/*
 * The driver's files are the same for all and many: said once, for every device of the file. Without a node they open nothing, so
 * that a contract for other devices gets them as well does no harm. Nodes are each contract's own. Return: how many edits are left.
 */
static size_t take_common(struct list *l, size_t n)
{
	struct pen_cdi_device all = { .edits = NULL };
	size_t own = 0, ncommon = 0;
	struct pen_service_edit *common = l->common ? NULL : calloc(n, sizeof(*common));
	for (size_t i = 0; i < n; i++) {
		const struct pen_service_edit *e = &l->edit[i];
		if (!e->vendor || e->kind == PEN_EDIT_NODE)
			memmove(&l->edit[own++], e, sizeof(*e));
		else if (common)
			common[ncommon++] = *e;
	}
	if (ncommon && pen_cdi_device_set(&all, "", common, ncommon) == 0)
		l->common = all.edits;
	free(common);
	return own;
}

static void add(void *arg, const struct pen_service_tenant *t)
{
	struct list *l = arg;
	if (!pen_cdi_name_is_valid(t->name)) {   /* one such name, and runtimes drop the whole file */
		snprintf(l->left_out, sizeof(l->left_out), "%s", t->name);
		return;
	}
	if (l->n == l->room) {
		size_t room = l->room ? 2 * l->room : 16;
		struct pen_cdi_device *v = reallocarray(l->v, room, sizeof(*v));
		if (!v)
			return;
		l->v = v;
		l->room = room;
	}
	size_t n = take_common(l, pen_service_edits(l->cdi->s, t->name, NULL, l->edit, PEN_EDITS_MAX));
	struct pen_cdi_device *d = &l->v[l->n];
	if (pen_cdi_device_set(d, t->name, l->edit, n) == 0)
		l->n++;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct pen_cdi_device *)a)->name, ((const struct pen_cdi_device *)b)->name);
}

static void tell_left_out(struct cdi *c, const char *name)
{
	if (*name && !c->told_name)
		pen_service_event(c->s, true, NULL, "cdi: '%s' is not listed: a device's name ends with a letter or digit; its containers "
				  "can be started by what `penstock alloc` prints", name);
	c->told_name = *name;
}

static char *text_now(struct cdi *c)
{
	struct list *l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->cdi = c;
	pen_service_all_tenants(c->s, add, l);
	if (l->n)
		qsort(l->v, l->n, sizeof(*l->v), by_name);
	tell_left_out(c, l->left_out);
	c->listed = l->n;
	char *text = pen_cdi_text(l->common, l->v, l->n);
	free(l->v);
	free(l);
	return text;
}

/* Our own, whatever else the machine does. */
static uint64_t used_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * PEN_S + (uint64_t)t.tv_nsec;
}

static void look(struct cdi *c)
{
	uint64_t began = used_ns(), now = pen_mono_ns();
	if (!c->dir[0] || !pen_service_probed(c->s))   /* after a restart the file of before is better than one without nodes */
		return;
	if (c->cost_ns > SLOW_NS && now - c->made_ns < AT_MOST_A * c->cost_ns) {
		arm(c, c->made_ns + AT_MOST_A * c->cost_ns - now);
		return;
	}
	pen_auto_free char *text = text_now(c);
	if (text && (!c->text || strcmp(text, c->text)) && put(c, text)) {
		free(c->text);
		c->text = PEN_TAKE_PTR(text);
	}
	c->made_ns = now;
	c->cost_ns = used_ns() - began;
}

static void on_later(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	look(arg);
}

static void changed(void *self, unsigned what)
{
	if (what & (PEN_SERVICE_DEVICES | PEN_SERVICE_TENANTS))
		look(self);
}

static int init(struct pen_service *s, void **ret_self, struct pen_err *err)
{
	struct cdi *c = calloc(1, sizeof(*c));
	if (c)
		c->later = evtimer_new(pen_service_base(s), on_later, c);
	if (!c || !c->later) {
		free(c);
		return pen_err_sys(err, -ENOMEM, "cdi");
	}
	c->s = s;
	*ret_self = c;
	return 0;
}

static void configure(void *self)
{
	struct cdi *c = self;
	const char *dir = pen_service_config(c->s)->cdi_dir;
	char next[sizeof(c->dir)] = "";
	/* A private daemon must not write where runtimes look for what root has put there. */
	if (dir[0] || pen_service_is_system(c->s))
		snprintf(next, sizeof(next), "%s", dir[0] ? dir : PEN_CDI_DIR);
	if (strcmp(next, c->dir)) {
		if (c->dir[0])
			put(c, NULL);
		memcpy(c->dir, next, sizeof(c->dir));
		c->failed = false;
	}
	free(c->text);   /* written anew in any case: somebody may have taken it away */
	c->text = NULL;
	look(c);
}

static json_t *status(void *self)
{
	const struct cdi *c = self;
	return json_pack("{s:s, s:i, s:b}", "directory", c->dir, "devices", c->dir[0] ? (int)c->listed : 0, "failed", c->failed);
}

/* The file stays: contracts outlive the daemon, and so may containers be started while it is being upgraded. */
static void stop(void *self)
{
	struct cdi *c = self;
	event_free(c->later);
	free(c->text);
	free(c);
}

static bool wanted(const struct pen_config *cfg)
{
	return cfg->cdi_dir[0] != 0;
}

static int claim(void *self, const char *tenant, pid_t pid, char *why, size_t n)
{
	(void)self, (void)tenant, (void)pid, (void)why, (void)n;
	return 0;   /* it owns no tenant */
}

const struct pen_integration pen_cdi_integration = {
	.name = "cdi",
	.wanted = wanted,
	.init = init,
	.configure = configure,
	.changed = changed,
	.claim = claim,
	.status = status,
	.stop = stop,
};
