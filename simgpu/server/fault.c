/* SPDX-License-Identifier: Apache-2.0 */
/* Faults on request. */
#include "base/auto.h"
#include "simgpu/server/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void fail_all(struct sim_dev *d, int code)
{
	struct sim_proc *p;
	struct sim_ctx *c;
	TAILQ_FOREACH(p, &d->server->procs, link)
		TAILQ_FOREACH(c, &p->contexts, link)
			if (c->dev == d)
				sim_ctx_fail(c, code);
}

static void lose(struct sim_dev *d)
{
	d->lost = true;
	d->xid = 79;
	fail_all(d, -ENODEV);
}

static void ecc(struct sim_dev *d)
{
	d->ecc++;
	d->xid = 48;
	fail_all(d, -EIO);
}

/* What becomes of the contexts: NVIDIA's Xid catalogue, as far as it says so. The others are reported and harm nobody. */
static void xid(struct sim_dev *d, uint32_t n)
{
	if (n == 79) {
		lose(d);
	} else if (n == 48 || n == 94 || n == 95) {
		ecc(d);
	} else if (n == 13 || n == 31 || n == 43 || n == 45) {
		fail_all(d, -EFAULT);
	}
	d->xid = n;
}

static int number_after(const char *what, const char *name, uint32_t *ret)
{
	size_t len = strlen(name);
	char *end;
	if (strncmp(what, name, len) || what[len] != '=' || what[len + 1] < '0' || what[len + 1] > '9')
		return -EINVAL;
	errno = 0;
	unsigned long v = strtoul(what + len + 1, &end, 10);
	if (errno || *end || v > 1000000)
		return -EINVAL;
	*ret = (uint32_t)v;
	return 0;
}

int sim_fault(struct sim_dev *d, const char *what, char *text, size_t n)
{
	uint32_t v;
	if (!strcmp(what, "sticky")) {
		d->xid = 13;
		fail_all(d, -EFAULT);
	} else if (!strcmp(what, "ecc")) {
		ecc(d);
	} else if (!strcmp(what, "lost")) {
		lose(d);
	} else if (!strcmp(what, "hang")) {
		d->hung = true;
		pen_model_hang(d->model, true);
	} else if (!strcmp(what, "unhang")) {
		d->hung = false;
		pen_model_hang(d->model, false);
	} else if (!number_after(what, "oom", &v)) {
		d->refuse = v;
	} else if (!number_after(what, "xid", &v)) {
		xid(d, v);
	} else {
		snprintf(text, n, "fault '%.40s': one of oom=N, sticky, ecc, xid=N, hang, unhang, lost", what);
		return -EINVAL;
	}
	return 0;
}
