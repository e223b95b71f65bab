/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/promises.h"

#include "base/auto.h"

#include <stdlib.h>
#include <string.h>

enum kind {
#define X(id, text) KIND_##id,
	PEN_PROMISE_KINDS(X)
#undef X
};
static const char *const kind_name[] = {
#define X(id, text) text,
	PEN_PROMISE_KINDS(X)
#undef X
};

struct promise {
	const char *field;
	int from, before;
	enum kind kind;
	const char *mechanism, *exactness, *evidence;
};
#define X(field, from, before, kind, mechanism, exactness, evidence) { field, from, before, KIND_##kind, mechanism, exactness, evidence },
static const struct promise opencl[] = { PEN_PROMISES_OPENCL(X) };
static const struct promise cuda[] = { PEN_PROMISES_CUDA(X) };
#undef X

/* Interface version that a branch of NVIDIA's driver brings, by its release notes. A package for compatibility may bring more. */
static const struct {
	int branch, version;
} branches[] = {
	{ 384, 9000 },  { 390, 9010 },  { 396, 9020 },  { 410, 10000 }, { 418, 10010 }, { 440, 10020 }, { 450, 11000 }, { 455, 11010 },
	{ 460, 11020 }, { 465, 11030 }, { 470, 11040 }, { 495, 11050 }, { 510, 11060 }, { 515, 11070 }, { 520, 11080 }, { 525, 12000 },
	{ 530, 12010 }, { 535, 12020 }, { 545, 12030 }, { 550, 12040 }, { 555, 12050 }, { 560, 12060 }, { 565, 12070 }, { 570, 12080 },
	{ 575, 12090 }, { 580, 13000 },
};

int pen_promises_cuda_version(const char *driver)
{
	int branch = atoi(driver), version = 0;
	for (size_t i = 0; i < PEN_ARRAY_LEN(branches); i++)
		if (branches[i].branch <= branch)
			version = branches[i].version;
	return version;
}

/* ---- which interfaces -------------------------------------------------------------------------------------------------- */

#define SEEN_MAX 16
struct seen {
	const char *api, *driver;
	int version;
};
struct list {
	struct seen v[SEEN_MAX];
	size_t n;
};

static void add(struct list *l, const char *api, const char *driver)
{
	struct seen s = { api, driver, !strcmp(api, "cuda") ? pen_promises_cuda_version(driver) : 0 };
	if (strcmp(api, "cuda") && strcmp(api, "opencl"))
		return;
	for (size_t i = 0; i < l->n; i++)
		if (!strcmp(l->v[i].api, api) && l->v[i].version == s.version)
			return;
	if (l->n < SEEN_MAX)
		l->v[l->n++] = s;
}

static bool is_wanted(const json_t *only, const char *key)
{
	size_t i;
	json_t *v;
	json_array_foreach(only, i, v)
		if (!strcmp(pen_json_str(v, "key"), key))
			return true;
	return !json_array_size(only);
}

static void collect(struct list *l, const json_t *devices, const json_t *only)
{
	size_t i, k;
	json_t *d, *a;
	json_array_foreach(devices, i, d) {
		const json_t *apis = json_object_get(d, "apis");
		if (!is_wanted(only, pen_json_str(d, "key")))
			continue;
		json_array_foreach(apis, k, a)
			add(l, pen_json_str(a, "name"), pen_json_str(a, "driver"));
		if (!json_array_size(apis))   /* of the probe, or an older daemon */
			add(l, pen_json_str(d, "api"), pen_json_str(d, "driver"));
	}
	if (!l->n)
		add(l, "opencl", "");
}

static const struct promise *promises_of(const struct seen *s, size_t *ret_n)
{
	bool is_cuda = !strcmp(s->api, "cuda");
	*ret_n = is_cuda ? PEN_ARRAY_LEN(cuda) : PEN_ARRAY_LEN(opencl);
	return is_cuda ? cuda : opencl;
}

static bool holds(const struct promise *p, const struct seen *s)
{
	/* A driver that does not tell its version is taken to be a new one: what it cannot do, the shim finds out. */
	int version = s->version ? s->version : INT32_MAX;
	return version >= p->from && (!p->before || version < p->before);
}

/* ---- out ---------------------------------------------------------------------------------------------------------------- */

static void print_head(FILE *out, const struct seen *s)
{
	if (strcmp(s->api, "cuda"))
		fprintf(out, _(" through OpenCL\n"));
	else if (s->version)
		fprintf(out, _(" through CUDA %d.%d, driver %s\n"), s->version / 1000, s->version % 1000 / 10, s->driver);
	else
		fprintf(out, _(" through CUDA\n"));
}

void pen_promises_print(FILE *out, const json_t *devices, const json_t *only)
{
	struct list l = { .n = 0 };
	collect(&l, devices, only);
	for (size_t i = 0; i < l.n; i++) {
		size_t n;
		const struct promise *p = promises_of(&l.v[i], &n);
		if (l.n > 1 || !strcmp(l.v[i].api, "cuda"))
			print_head(out, &l.v[i]);
		for (; n--; p++) {
			if (!holds(p, &l.v[i]))
				continue;
			fprintf(out, "  %-10s %s\n", p->field, _(p->mechanism));
			fprintf(out, _("  %-10s how exact: %s; %s\n"), "", _(kind_name[p->kind]), _(p->exactness));
			fprintf(out, _("  %-10s shown by: %s\n"), "", _(p->evidence));
		}
	}
}

json_t *pen_promises_json(const json_t *devices)
{
	struct list l = { .n = 0 };
	json_t *array = json_array();
	collect(&l, devices, NULL);
	for (size_t i = 0; i < l.n; i++) {
		size_t n;
		const struct promise *p = promises_of(&l.v[i], &n);
		for (; n--; p++)
			if (holds(p, &l.v[i]))
				json_array_append_new(array, json_pack("{s:s, s:i, s:s, s:s, s:s, s:s, s:s, s:s}", "api", l.v[i].api, "version",
								       l.v[i].version, "driver", l.v[i].driver, "field", p->field, "kind",
								       kind_name[p->kind], "mechanism", p->mechanism, "exactness", p->exactness,
								       "evidence", p->evidence));
	}
	return array;
}
