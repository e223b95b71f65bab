/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of contract fields: text to member and exactly back. The formatters of base/units.h round for reading; a value
 * that is stored, sent or compared must not change by being printed, so these pick the largest unit that divides it.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "contract/internal.h"

#include <errno.h>
#include <string.h>

/* Bounds every quantity, so that no sum of a node's few thousand contracts overflows and none equals PEN_UNLIMITED. */
#define QUANTITY_MAX (UINT64_C(1) << 50)
#define MEMORY_CAP_MIN 4096
#define UNITS_MAX 65536
#define SLA_MIN PEN_US
#define SLA_MAX (3600 * PEN_S)

typedef int parse64_fn(const char *s, uint64_t *ret);
typedef void exact_fn(char *buf, size_t n, uint64_t v);

struct scale {
	uint64_t factor;
	const char *unit;
};

static void exact_scaled(char *buf, size_t n, uint64_t v, const struct scale *scale)
{
	while (scale->factor > 1 && (v == 0 || v % scale->factor))
		scale++;
	snprintf(buf, n, "%llu%s", (unsigned long long)(v / scale->factor), scale->unit);
}

void pen_exact_bytes(char *buf, size_t n, uint64_t v)
{
	static const struct scale scale[] = { { PEN_GIB * 1024, "T" }, { PEN_GIB, "G" }, { PEN_MIB, "M" }, { PEN_KIB, "K" },
					      { 1, "B" } };
	if (v == 0)
		snprintf(buf, n, "0");
	else
		exact_scaled(buf, n, v, scale);
}

void pen_exact_rate(char *buf, size_t n, uint64_t v)
{
	static const struct scale scale[] = { { 1000000000, "GB/s" }, { 1000000, "MB/s" }, { 1000, "KB/s" }, { 1, "B/s" } };
	exact_scaled(buf, n, v, scale);
}

void pen_exact_duration(char *buf, size_t n, uint64_t ns)
{
	static const struct scale scale[] = { { 3600 * PEN_S, "h" }, { 60 * PEN_S, "m" }, { PEN_S, "s" }, { PEN_MS, "ms" },
					      { PEN_US, "us" }, { 1, "ns" } };
	exact_scaled(buf, n, ns, scale);
}

void pen_exact_share(char *buf, size_t n, uint64_t ppm)
{
	char frac[8];
	snprintf(frac, sizeof(frac), "%04u", (unsigned)(ppm % 10000));
	size_t len = 4;
	while (len && frac[len - 1] == '0')
		frac[--len] = 0;
	snprintf(buf, n, "%llu%s%s%%", (unsigned long long)(ppm / 10000), len ? "." : "", frac);
}

static void exact_count(char *buf, size_t n, uint64_t v)
{
	snprintf(buf, n, "%llu", (unsigned long long)v);
}

static int parse_share64(const char *s, uint64_t *ret)
{
	uint32_t ppm;
	int r = pen_parse_share(s, &ppm);
	if (r == 0)
		*ret = ppm;
	return r;
}

/* Decimal digits only: strtoul would take signs and spaces. */
static int parse_count(const char *s, uint64_t *ret)
{
	size_t len = strspn(s, "0123456789");
	if (!len || s[len])
		return -EINVAL;
	if (len > 9)
		return -ERANGE;
	*ret = strtoull(s, NULL, 10);
	return 0;
}

static int parse_bounded(parse64_fn *parse, const char *s, uint64_t *ret, const char **why)
{
	uint64_t v;
	int r = parse(s, &v);
	if (r == 0 && v > QUANTITY_MAX)
		r = -ERANGE;
	if (r == -ERANGE)
		*why = N_("is out of range");
	if (r == 0)
		*ret = v;
	return r;
}

/* Lower end of a range: may be 0 in any spelling, and takes the unit of @upper if it has none. */
static int parse_lower(parse64_fn *parse, const char *s, const char *upper, uint64_t *ret, const char **why)
{
	char text[64];
	const char *unit = s[strspn(s, "0123456789.")] ? "" : upper + strspn(upper, "0123456789.");
	if ((size_t)snprintf(text, sizeof(text), "%s%s", s, unit) >= sizeof(text))
		return -EINVAL;
	size_t zeros = strspn(text, "0");
	if (zeros && (!text[zeros] || !strcmp(text + zeros, "%"))) {
		*ret = 0;
		return 0;
	}
	return parse_bounded(parse, text, ret, why);
}

static int parse_range(parse64_fn *parse, const char *s, struct pen_range64 *ret, const char **why)
{
	struct pen_range64 range = { 0, PEN_UNLIMITED };
	const char *dots = strstr(s, "..");
	int r;

	if (!strcmp(s, "unlimited")) {
		*ret = range;
		return 0;
	}
	if (!dots) {
		r = parse_bounded(parse, s, &range.guaranteed, why);
		range.cap = range.guaranteed;
	} else {
		char lower[48];
		const char *upper = dots + 2;
		if ((size_t)(dots - s) >= sizeof(lower) || (dots == s && !*upper))
			return -EINVAL;
		memcpy(lower, s, (size_t)(dots - s));
		lower[dots - s] = 0;
		r = *upper ? parse_bounded(parse, upper, &range.cap, why) : 0;
		if (r == 0 && *lower)
			r = parse_lower(parse, lower, upper, &range.guaranteed, why);
	}
	if (r < 0)
		return r;
	if (range.cap == 0) {
		*why = N_("would allow nothing at all");
		return -ERANGE;
	}
	if (range.guaranteed > range.cap) {
		*why = N_("guarantees more than its cap");
		return -ERANGE;
	}
	*ret = range;
	return 0;
}

static void format_range(exact_fn *exact, const struct pen_range64 *r, char *buf, size_t n)
{
	char lower[32] = "", upper[32] = "";
	if (!r->guaranteed && r->cap == PEN_UNLIMITED) {
		snprintf(buf, n, "unlimited");
		return;
	}
	if (r->guaranteed)
		exact(lower, sizeof(lower), r->guaranteed);
	if (r->cap != PEN_UNLIMITED)
		exact(upper, sizeof(upper), r->cap);
	if (r->guaranteed == r->cap)
		snprintf(buf, n, "%s", lower);
	else
		snprintf(buf, n, "%s..%s", lower, upper);
}

int pen_value_parse_bytes_range(void *member, const char *s, const char **why)
{
	struct pen_range64 range;
	int r = parse_range(pen_parse_bytes, s, &range, why);
	if (r < 0)
		return r;
	if (range.cap < MEMORY_CAP_MIN) {
		*why = N_("is less than 4K");
		return -ERANGE;
	}
	/* 4096 is nobody's wish in bytes, nor is 4.. */
	const char *dots = strstr(s, "..");
	const char *end = dots && !dots[2] ? dots : s + strlen(s);
	uint64_t most = range.cap == PEN_UNLIMITED ? range.guaranteed : range.cap;
	if (most && most < PEN_MIB && end[-1] >= '0' && end[-1] <= '9') {
		*why = N_("has no unit");
		return -EINVAL;
	}
	*(struct pen_range64 *)member = range;
	return 0;
}

void pen_value_format_bytes_range(const void *member, char *buf, size_t n)
{
	format_range(pen_exact_bytes, member, buf, n);
}

int pen_value_parse_share_range(void *member, const char *s, const char **why)
{
	return parse_range(parse_share64, s, member, why);
}

void pen_value_format_share_range(const void *member, char *buf, size_t n)
{
	format_range(pen_exact_share, member, buf, n);
}

int pen_value_parse_rate_cap(void *member, const char *s, const char **why)
{
	struct pen_range64 range;
	int r = parse_range(pen_parse_rate, s, &range, why);
	if (r < 0)
		return r;
	if (range.guaranteed) {
		*why = N_("cannot be guaranteed, only capped");
		return -EINVAL;
	}
	*(struct pen_range64 *)member = range;
	return 0;
}

void pen_value_format_rate_cap(const void *member, char *buf, size_t n)
{
	format_range(pen_exact_rate, member, buf, n);
}

int pen_value_parse_units(void *member, const char *s, const char **why)
{
	struct pen_units u = { .kind = strchr(s, '%') ? PEN_UNITS_PERCENT : PEN_UNITS_COUNT };
	int r = parse_range(u.kind == PEN_UNITS_PERCENT ? parse_share64 : parse_count, s, &u.range, why);
	if (r < 0)
		return r;
	if (!u.range.guaranteed && u.range.cap == PEN_UNLIMITED)
		u.kind = PEN_UNITS_NONE;
	if (u.kind == PEN_UNITS_COUNT &&
	    (u.range.guaranteed > UNITS_MAX || (u.range.cap > UNITS_MAX && u.range.cap != PEN_UNLIMITED))) {
		*why = N_("is out of range");
		return -ERANGE;
	}
	*(struct pen_units *)member = u;
	return 0;
}

void pen_value_format_units(const void *member, char *buf, size_t n)
{
	const struct pen_units *u = member;
	format_range(u->kind == PEN_UNITS_PERCENT ? pen_exact_share : exact_count, &u->range, buf, n);
}

int pen_value_parse_sla(void *member, const char *s, const char **why)
{
	uint64_t ns = 0;
	if (strcmp(s, "none")) {
		int r = pen_parse_duration(s, &ns);
		if (r == 0 && (ns < SLA_MIN || ns > SLA_MAX))
			r = -ERANGE;
		if (r == -ERANGE)
			*why = N_("is out of range");
		if (r < 0)
			return r;
	}
	*(uint64_t *)member = ns;
	return 0;
}

void pen_value_format_sla(const void *member, char *buf, size_t n)
{
	uint64_t ns = *(const uint64_t *)member;
	if (ns)
		pen_exact_duration(buf, n, ns);
	else
		snprintf(buf, n, "none");
}

int pen_value_parse_duty(void *member, const char *s, const char **why)
{
	uint32_t ppm = 0;
	if (strcmp(s, "none")) {
		int r = pen_parse_share(s, &ppm);
		if (r == -ERANGE)
			*why = N_("is out of range");
		if (r < 0)
			return r;
	}
	*(uint32_t *)member = ppm;
	return 0;
}

void pen_value_format_duty(const void *member, char *buf, size_t n)
{
	uint32_t ppm = *(const uint32_t *)member;
	if (ppm)
		pen_exact_share(buf, n, ppm);
	else
		snprintf(buf, n, "none");
}

bool pen_name_valid(const char *name)
{
	size_t len = strlen(name);
	return len >= 1 && len <= PEN_NAME_MAX && strchr("abcdefghijklmnopqrstuvwxyz0123456789", name[0]) &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

int pen_value_parse_name(void *member, const char *s, const char **why)
{
	if (!pen_name_valid(s)) {
		*why = N_("is not a name");
		return -EINVAL;
	}
	memcpy(member, s, strlen(s) + 1);
	return 0;
}

void pen_value_format_name(const void *member, char *buf, size_t n)
{
	snprintf(buf, n, "%s", (const char *)member);
}

int pen_value_parse_device(void *member, const char *s, const char **why)
{
	size_t len = strlen(s);
	if (!len)
		return -EINVAL;
	if (len > PEN_DEVICE_MAX) {
		*why = N_("is too long");
		return -EINVAL;
	}
	for (size_t i = 0; i < len; i++)
		if (s[i] < ' ' || s[i] > '~')
			return -EINVAL;
	if (s[0] == ' ' || s[len - 1] == ' ')
		return -EINVAL;
	memcpy(member, strcmp(s, "any") ? s : "", strcmp(s, "any") ? len + 1 : 1);
	return 0;
}

void pen_value_format_device(const void *member, char *buf, size_t n)
{
	snprintf(buf, n, "%s", *(const char *)member ? (const char *)member : "any");
}

int pen_value_choice(const char *const *names, size_t n, const char *s)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(names[i], s))
			return (int)i;
	return -EINVAL;
}

#define PEN_X_(id, text) text,
static const char *const class_names[] = { PEN_CLASSES(PEN_X_) };
#undef PEN_X_

const char *pen_class_name(enum pen_class cls)
{
	return (size_t)cls < PEN_ARRAY_LEN(class_names) ? class_names[cls] : "?";
}

int pen_value_parse_class(void *member, const char *s, const char **why)
{
	(void)why;
	int i = pen_value_choice(class_names, PEN_ARRAY_LEN(class_names), s);
	if (i < 0)
		return i;
	*(enum pen_class *)member = (enum pen_class)i;
	return 0;
}

void pen_value_format_class(const void *member, char *buf, size_t n)
{
	snprintf(buf, n, "%s", pen_class_name(*(const enum pen_class *)member));
}

int pen_value_parse_priority(void *member, const char *s, const char **why)
{
	uint64_t v;
	int r = parse_count(s, &v);
	if (r == 0 && v > 100)
		r = -ERANGE;
	if (r == -ERANGE)
		*why = N_("is out of range");
	if (r == 0)
		*(int *)member = (int)v;
	return r;
}

void pen_value_format_priority(const void *member, char *buf, size_t n)
{
	snprintf(buf, n, "%d", *(const int *)member);
}
