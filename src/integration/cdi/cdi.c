/* SPDX-License-Identifier: Apache-2.0 */
/* When the file is written: after the set of tenants or of devices has changed, if its text is another one then. */
#include "integration/cdi/cdi.h"

#include "base/auto.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct cdi {
	struct pen_service *s;
	char dir[PEN_CONFIG_PATH_MAX + 1];   /* "" = off */
	char *text;                          /* as it was handed to be written; NULL: nothing yet */
	bool failed;                         /* ... and was told */
};

struct job {
	struct cdi *cdi;
	char dir[PEN_CONFIG_PATH_MAX + 1];
	char *text;
	int result;
};

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
	struct cdi *c = j->cdi;
	if (j->result < 0 && !c->failed)
		pen_service_event(c->s, true, NULL, "cdi: '%s/" PEN_CDI_FILE "': %s; containers cannot be started by --device " PEN_CDI_KIND
				  "=NAME", j->dir, strerror(-j->result));
	c->failed = j->result < 0;
	if (c->failed) {   /* the next change tries again */
		free(c->text);
		c->text = NULL;
	}
	job_free(j);
}

struct list {
	struct cdi *cdi;
	struct pen_cdi_device *v;
	size_t n, room;
};

static void add(void *arg, const struct pen_service_tenant *t)
{
	struct list *l = arg;
	if (l->n == l->room) {
		size_t room = l->room ? 2 * l->room : 16;
		struct pen_cdi_device *v = reallocarray(l->v, room, sizeof(*v));
		if (!v)
			return;
		l->v = v;
		l->room = room;
	}
	struct pen_service_edit *edits = calloc(PEN_EDITS_MAX, sizeof(*edits));
	char *name = strdup(t->name);
	if (!edits || !name) {
		free(edits);
		free(name);
		return;
	}
	size_t n = pen_service_edits(l->cdi->s, t->name, NULL, edits, PEN_EDITS_MAX);
	l->v[l->n++] = (struct pen_cdi_device){ .name = name, .edits = edits, .n = n };
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct pen_cdi_device *)a)->name, ((const struct pen_cdi_device *)b)->name);
}

static char *text_now(struct cdi *c)
{
	struct list l = { .cdi = c };
	pen_service_all_tenants(c->s, add, &l);
	if (l.n)
		qsort(l.v, l.n, sizeof(*l.v), by_name);
	char *text = pen_cdi_text(l.v, l.n);
	for (size_t i = 0; i < l.n; i++) {
		free((void *)(uintptr_t)l.v[i].name);
		free((void *)(uintptr_t)l.v[i].edits);
	}
	free(l.v);
	return text;
}

static void changed(void *self, unsigned what)
{
	struct cdi *c = self;
	(void)what;
	if (!c->dir[0])
		return;
	pen_auto_free char *text = text_now(c);
	if (!text || (c->text && !strcmp(text, c->text)))
		return;
	struct job *j = calloc(1, sizeof(*j));
	char *copy = strdup(text);
	if (!j || !copy) {
		free(j);
		free(copy);
		return;
	}
	j->cdi = c;
	memcpy(j->dir, c->dir, sizeof(j->dir));
	j->text = copy;
	if (pen_service_work(c->s, job_run, job_done, job_free, j) < 0) {
		job_free(j);
		return;
	}
	free(c->text);
	c->text = PEN_TAKE_PTR(text);
}

static int init(struct pen_service *s, void **ret_self, struct pen_err *err)
{
	struct cdi *c = calloc(1, sizeof(*c));
	if (!c)
		return pen_err_sys(err, -ENOMEM, "cdi");
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
			pen_cdi_write(c->dir, NULL);
		memcpy(c->dir, next, sizeof(c->dir));
		free(c->text);
		c->text = NULL;
	}
	changed(c, 0);
}

/* The file stays: contracts outlive the daemon, and so may containers be started while it is being upgraded. */
static void stop(void *self)
{
	struct cdi *c = self;
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
	.stop = stop,
};
