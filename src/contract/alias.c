/* SPDX-License-Identifier: Apache-2.0 */
#include "contract/alias.h"

#include "base/auto.h"
#include "contract/internal.h"

#include <errno.h>
#include <string.h>

static const struct pen_alias aliases[] = {
#define PEN_X_(name, systems, kind) { name, systems, PEN_ALIAS_##kind },
	PEN_ALIASES(PEN_X_)
#undef PEN_X_
};

static const char *const units[] = {
#define PEN_X_(id, unit) unit,
	PEN_ALIAS_KINDS(PEN_X_)
#undef PEN_X_
};

const struct pen_alias *pen_alias(size_t i)
{
	return i < PEN_ARRAY_LEN(aliases) ? &aliases[i] : NULL;
}

const struct pen_alias *pen_alias_find(const char *name)
{
	for (size_t i = 0; i < PEN_ARRAY_LEN(aliases); i++)
		if (!strcmp(aliases[i].name, name))
			return &aliases[i];
	return NULL;
}

const char *pen_alias_unit(enum pen_alias_kind kind)
{
	return units[kind];
}

int pen_alias_field(enum pen_alias_kind kind)
{
	switch (kind) {
	case PEN_ALIAS_MEMORY_MIB:
	case PEN_ALIAS_MEMORY_GIB:
	case PEN_ALIAS_MEMORY_256M: return PEN_FIELD_memory;
	case PEN_ALIAS_COMPUTE_PERCENT:
	case PEN_ALIAS_COMPUTE_CAP: return PEN_FIELD_compute;
	case PEN_ALIAS_PRIORITY: return PEN_FIELD_priority;
	case PEN_ALIAS_DEVICE: return PEN_FIELD_device;
	default: return -1;
	}
}

/* The value in the spelling of the contract's field. Return: 0; -EINVAL no whole number, or none that is allowed. */
static int translate(enum pen_alias_kind kind, const char *value, char *text, size_t n)
{
	size_t len = strspn(value, "0123456789");
	if (kind == PEN_ALIAS_DEVICE)
		return (size_t)snprintf(text, n, "%s", value) < n ? 0 : -EINVAL;
	if (!len || len > 9 || value[len])
		return -EINVAL;
	unsigned long v = strtoul(value, NULL, 10);
	switch (kind) {
	case PEN_ALIAS_MEMORY_MIB: snprintf(text, n, "%luM", v); return 0;
	case PEN_ALIAS_MEMORY_GIB: snprintf(text, n, "%luG", v); return 0;
	case PEN_ALIAS_MEMORY_256M: snprintf(text, n, "%luM", v * 256); return 0;
	case PEN_ALIAS_COMPUTE_PERCENT: snprintf(text, n, "%lu%%", v); return 0;
	case PEN_ALIAS_COMPUTE_CAP: snprintf(text, n, "..%lu%%", v); return 0;
	/* 1 is what a task has there that says nothing, as 50 is here. */
	case PEN_ALIAS_PRIORITY: snprintf(text, n, "%s", v ? "50" : "75"); return v > 1 ? -EINVAL : 0;
	default: return -EINVAL;
	}
}

int pen_alias_set(struct pen_contract *c, const struct pen_alias *a, const char *value, struct pen_err *err)
{
	int f = pen_alias_field(a->kind);
	char text[PEN_VALUE_TEXT], shown[64];
	if (f < 0)
		return pen_err_x(err, -ENOTSUP, _("%s: says %s, which no field of a contract can"), a->name, _(units[a->kind]));
	if (translate(a->kind, value, text, sizeof(text)) < 0)
		return pen_err_x(err, -EINVAL, _("%s: '%s' is not valid; allowed: a whole number, %s"), a->name,
				 pen_printable(shown, sizeof(shown), value), _(units[a->kind]));
	int r = pen_contract_set(c, pen_contract_field((size_t)f)->name, text, err);
	if (r < 0)
		pen_err_prefix(err, "%s", a->name);
	return r;
}
