/* SPDX-License-Identifier: Apache-2.0 */
#include "base/auto.h"
#include "contract/internal.h"

#include <errno.h>
#include <string.h>

int pen_diff_add(struct pen_diff *d, bool restart, const char *from, const char *to, const char *fmt, ...)
{
	struct pen_change *v = reallocarray(d->v, d->n + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	d->v = v;

	pen_auto_free char *what = NULL, *old = strdup(from), *new = strdup(to);
	va_list ap;
	va_start(ap, fmt);
	int r = vasprintf(&what, fmt, ap);
	va_end(ap);
	if (r < 0)
		what = NULL;
	if (!what || !old || !new)
		return -ENOMEM;
	v[d->n++] = (struct pen_change){ PEN_TAKE_PTR(what), PEN_TAKE_PTR(old), PEN_TAKE_PTR(new), restart };
	return 0;
}

int pen_diff_print(const struct pen_diff *d, FILE *out)
{
	for (size_t i = 0; i < d->n; i++) {
		const struct pen_change *c = &d->v[i];
		const char *note = c->restart ? _("  (after a restart)") : "";
		if (!*c->from)
			fprintf(out, _("%s: new: %s%s\n"), c->what, c->to, note);
		else if (!*c->to)
			fprintf(out, _("%s: removed, was: %s%s\n"), c->what, c->from, note);
		else
			fprintf(out, "%s: %s -> %s%s\n", c->what, c->from, c->to, note);
	}
	return ferror(out) ? -EIO : 0;
}

void pen_diff_clear(struct pen_diff *d)
{
	for (size_t i = 0; i < d->n; i++) {
		free(d->v[i].what);
		free(d->v[i].from);
		free(d->v[i].to);
	}
	free(d->v);
	*d = (struct pen_diff){ 0 };
}

int pen_contract_diff(const struct pen_contract *old, const struct pen_contract *new, const char *prefix,
		      struct pen_diff *d)
{
	const struct pen_contract_field *f;
	for (size_t i = 0; (f = pen_contract_field(i)); i++) {
		char from[PEN_VALUE_TEXT], to[PEN_VALUE_TEXT];
		pen_contract_get(old, (enum pen_field)i, from, sizeof(from));
		pen_contract_get(new, (enum pen_field)i, to, sizeof(to));
		if (!strcmp(from, to))
			continue;
		int r = pen_diff_add(d, !f->live, from, to, "%s%s", prefix, f->name);
		if (r < 0)
			return r;
	}
	return 0;
}
