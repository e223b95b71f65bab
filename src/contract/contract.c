/* SPDX-License-Identifier: Apache-2.0 */
#include "contract/contract.h"
#include "base/auto.h"
#include "base/units.h"
#include "contract/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PEN_X_(id, kind, member, live_, arg_, deflt_, allowed_, help_) \
	{ #id, live_, arg_, deflt_, allowed_, help_ },
static const struct pen_contract_field fields[] = { PEN_CONTRACT_FIELDS(PEN_X_) };
#undef PEN_X_

#define PEN_X_(id, kind, member, live_, arg_, deflt_, allowed_, help_) \
	{ #id, offsetof(struct pen_contract, member), pen_value_parse_##kind, pen_value_format_##kind, deflt_, allowed_ },
static const struct pen_key keys[] = { PEN_CONTRACT_FIELDS(PEN_X_) };
#undef PEN_X_

static_assert(PEN_FIELD_MAX_ <= 32, "set_mask has 32 bits");

const struct pen_contract_field *pen_contract_field(size_t i)
{
	return i < PEN_ARRAY_LEN(fields) ? &fields[i] : NULL;
}

int pen_contract_field_find(const char *name)
{
	for (size_t i = 0; i < PEN_ARRAY_LEN(fields); i++)
		if (!strcmp(fields[i].name, name))
			return (int)i;
	return -ENOENT;
}

char *pen_printable(char *buf, size_t n, const char *s)
{
	size_t len = strnlen(s, n);
	bool cut = len == n;
	if (cut)
		len = n - 1;
	for (size_t i = 0; i < len; i++)
		buf[i] = s[i] >= ' ' && s[i] <= '~' ? s[i] : '?';
	buf[len] = 0;
	if (cut && n > 4)
		memcpy(buf + n - 4, "...", 4);
	return buf;
}

static bool is_fraction(const char *s, const char *end)
{
	return end - s > 2 && s[0] == '0' && s[1] == '.';
}

/* "0.3" or "0.1..0.3" as per cent, where each number is below 1. */
static bool as_percent(const char *value, const char *dots, char *buf, size_t n)
{
	const char *low_end = dots ? dots : value + strlen(value);
	bool low = low_end > value, high = dots && dots[2];
	if ((low && !is_fraction(value, low_end)) || (high && !is_fraction(dots + 2, value + strlen(value))))
		return false;
	int len = low ? snprintf(buf, n, "%g%s", strtod(value, NULL) * 100, high ? "" : "%") : 0;
	if (dots)
		len += snprintf(buf + len, n - (size_t)len, "..");
	if (high)
		snprintf(buf + len, n - (size_t)len, "%g%%", strtod(dots + 2, NULL) * 100);
	return low || high;
}

/* "1GB" is written 1G here, which is what a memory of that name has. */
static bool without_bytes(const char *value, char *buf, size_t n)
{
	size_t len = 0;
	bool found = false;
	for (const char *s = value; *s && len + 1 < n; s++) {
		bool unit = s > value && strchr("kKmMgGtT", s[-1]) && (*s == 'b' || *s == 'B') && (!s[1] || s[1] == '.');
		found |= unit;
		if (!unit)
			buf[len++] = *s;
	}
	buf[len] = 0;
	return found;
}

/* A number to which only its unit is missing: with the unit that is most likely meant. NULL: it is wrong otherwise. */
static const char *guess(const struct pen_key *k, const char *value, char *buf, size_t n)
{
	const char *dots = strstr(value, ".."), *last = dots && dots[2] ? dots + 2 : value;
	const char *units[] = { "%", strtod(last, NULL) < 256 ? "G" : "M", "ms" };
	uint64_t scratch[512] = { 0 };   /* any value of a key, a path too */
	const char *why;
	if (strlen(value) < n && without_bytes(value, buf, n))
		return k->parse(scratch, buf, &why) == 0 ? buf : NULL;
	if (!*value || value[strspn(value, "0123456789.")])
		return NULL;
	if (strlen(value) < n / 4 && as_percent(value, dots, buf, n) && k->parse(scratch, buf, &why) == 0)
		return buf;
	for (size_t i = 0; i < PEN_ARRAY_LEN(units); i++) {
		size_t len = strlen(value) - (dots && !dots[2] ? 2 : 0);
		snprintf(buf, n, "%.*s%s%s", (int)len, value, units[i], value + len);
		if (k->parse(scratch, buf, &why) == 0)
			return buf;
	}
	return NULL;
}

int pen_key_set(const struct pen_key *k, void *base, const char *value, struct pen_err *err)
{
	const char *why = NULL;
	char shown[64], meant[64];
	int r = k->parse((char *)base + k->offset, value, &why);
	if (r < 0 && guess(k, value, meant, sizeof(meant)))
		return pen_err_x(err, r, _("%s: '%s' %s; is '%s' meant? allowed: %s"), k->name, pen_printable(shown, sizeof(shown), value),
				 why ? _(why) : _("is not valid"), meant, _(k->allowed));
	if (r < 0)
		return pen_err_x(err, r, _("%s: '%s' %s; allowed: %s"), k->name, pen_printable(shown, sizeof(shown), value),
				 why ? _(why) : _("is not valid"), _(k->allowed));
	return 0;
}

char *pen_key_get(const struct pen_key *k, const void *base, char *buf, size_t n)
{
	k->format((const char *)base + k->offset, buf, n);
	return buf;
}

static void set_default(struct pen_contract *c, size_t field)
{
	const struct pen_key *k = &keys[field];
	c->set_mask &= ~(1u << field);
	if (field == PEN_FIELD_name)   /* no text stands for "not named" */
		c->name[0] = 0;
	else
		pen_key_set(k, c, k->deflt, NULL);
}

void pen_contract_init(struct pen_contract *c)
{
	memset(c, 0, sizeof(*c));
	for (size_t i = 0; i < PEN_ARRAY_LEN(keys); i++)
		set_default(c, i);
}

static int find_field(const char *field, struct pen_err *err)
{
	int f = pen_contract_field_find(field);
	if (f >= 0)
		return f;
	char shown[64], known[256] = "";
	size_t len = 0;
	for (size_t i = 0; i < PEN_ARRAY_LEN(fields) && len < sizeof(known); i++)
		len += (size_t)snprintf(known + len, sizeof(known) - len, "%s%s", i ? ", " : "", fields[i].name);
	return pen_err_x(err, -ENOENT, _("%s: unknown field of a contract; known: %s"),
			 pen_printable(shown, sizeof(shown), field), known);
}

int pen_contract_set(struct pen_contract *c, const char *field, const char *value, struct pen_err *err)
{
	int f = find_field(field, err);
	if (f < 0)
		return f;
	int r = pen_key_set(&keys[f], c, value, err);
	if (r == 0)
		c->set_mask |= 1u << f;
	return r;
}

int pen_contract_unset(struct pen_contract *c, const char *field, struct pen_err *err)
{
	int f = find_field(field, err);
	if (f < 0)
		return f;
	set_default(c, (size_t)f);
	return 0;
}

char *pen_contract_get(const struct pen_contract *c, enum pen_field field, char *buf, size_t n)
{
	if ((size_t)field >= PEN_ARRAY_LEN(keys)) {
		snprintf(buf, n, "?");
		return buf;
	}
	return pen_key_get(&keys[field], c, buf, n);
}

int pen_contract_validate(const struct pen_contract *c, struct pen_err *err)
{
	/* The text begins with the field, as pen_contract_from_yaml() relies on to find the line. */
	if (c->duty_ppm && c->cls != PEN_CLASS_LATENCY)
		return pen_err_x(err, -EINVAL, _("duty: only for class latency, this contract is of class %s"),
				 pen_class_name(c->cls));
	if (c->duty_ppm > c->compute.cap) {
		char duty[32], cap[32];
		pen_exact_share(duty, sizeof(duty), c->duty_ppm);
		pen_exact_share(cap, sizeof(cap), c->compute.cap);
		return pen_err_x(err, -EINVAL, _("duty: %s is above the compute cap of %s"), duty, cap);
	}
	return 0;
}

uint32_t pen_contract_weight(const struct pen_contract *c)
{
	if (c->compute.guaranteed)
		return (uint32_t)c->compute.guaranteed;
	uint64_t weight = c->cls == PEN_CLASS_BESTEFFORT ? PEN_PPM / 100 : PEN_PPM / 10;
	return (uint32_t)PEN_MIN(weight, c->compute.cap);
}
