/* SPDX-License-Identifier: Apache-2.0 */
#include "model/card.h"
#include "base/auto.h"
#include "base/units.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum type { STR, U32, CC, KHZ, PPM, MW, BYTES, RATE, NS, BOOL };

/* What a value looks like, for errors. In the order of enum type. */
static const char *const looks[] = {
	"a text in quotes", "a whole number", "major.minor", "a clock such as 1590MHz", "per cent such as 85%", "power such as 70W",
	"bytes such as 16G", "a rate such as 320GB/s", "a time such as 1024us", "yes or no",
};

static const struct field {
	const char *key;
	enum type type;
	bool needed;
	size_t at;
	uint64_t least, largest;
} fields[] = {
#define X(f, key, type, least, largest, needed, what) { key, type, needed, offsetof(struct pen_card, f), least, largest },
	PEN_CARD_FIELDS(X)
#undef X
};

static int parse_u64(const char *s, const char **ret_end, uint64_t *ret)
{
	uint64_t v = 0;
	if (*s < '0' || *s > '9')
		return -EINVAL;
	for (; *s >= '0' && *s <= '9'; s++)
		if (__builtin_mul_overflow(v, UINT64_C(10), &v) || __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
			return -ERANGE;
	*ret_end = s;
	*ret = v;
	return 0;
}

/* A whole number and a unit; the first of @units counts 1, the second @factor. */
static int parse_scaled(const char *s, const char *const units[2], uint64_t factor, uint64_t *ret)
{
	uint64_t v;
	int r = parse_u64(s, &s, &v);
	if (r < 0)
		return r;
	if (strcmp(s, units[0]) && strcmp(s, units[1]))
		return -EINVAL;
	if (!strcmp(s, units[1]) && __builtin_mul_overflow(v, factor, &v))
		return -ERANGE;
	*ret = v;
	return 0;
}

static int parse_cc(const char *s, uint64_t *ret)
{
	uint64_t major, minor;
	int r = parse_u64(s, &s, &major);
	if (r < 0 || *s != '.')
		return -EINVAL;
	r = parse_u64(s + 1, &s, &minor);
	if (r < 0 || *s || minor > 9 || major > 99)
		return -EINVAL;
	*ret = major * 10 + minor;
	return 0;
}

static int parse_number(enum type type, const char *s, uint64_t *ret)
{
	uint32_t ppm;
	int r;
	switch (type) {
	case U32:
		r = parse_u64(s, &s, ret);
		return r < 0 ? r : *s ? -EINVAL : 0;
	case CC:
		return parse_cc(s, ret);
	case KHZ:
		return parse_scaled(s, (const char *const[2]){ "kHz", "MHz" }, 1000, ret);
	case MW:
		return parse_scaled(s, (const char *const[2]){ "mW", "W" }, 1000, ret);
	case PPM:
		r = pen_parse_share(s, &ppm);
		*ret = r < 0 ? 0 : ppm;
		return r;
	case BYTES:
		return pen_parse_bytes(s, ret);
	case RATE:
		return pen_parse_rate(s, ret);
	case NS:
		return pen_parse_duration(s, ret);
	case BOOL:
		*ret = !strcmp(s, "yes");
		return *ret || !strcmp(s, "no") ? 0 : -EINVAL;
	case STR:
		break;
	}
	return -EINVAL;
}

static int set_text(struct pen_card *card, const struct field *f, const char *value)
{
	size_t len = strlen(value);
	if (len < 3 || value[0] != '"' || value[len - 1] != '"' || len - 2 > f->largest)
		return -EINVAL;
	char *to = (char *)card + f->at;
	memcpy(to, value + 1, len - 2);
	to[len - 2] = 0;
	return 0;
}

static void set_number(struct pen_card *card, const struct field *f, uint64_t v)
{
	char *to = (char *)card + f->at;
	if (f->type == BOOL)
		*(bool *)to = v;
	else if (f->type == BYTES || f->type == RATE || f->type == NS)
		*(uint64_t *)(void *)to = v;
	else
		*(uint32_t *)(void *)to = (uint32_t)v;
}

static int set_field(struct pen_card *card, const struct field *f, const char *value, struct pen_err *err)
{
	if (f->type == STR)
		return set_text(card, f, value) < 0 ? pen_err_x(err, -EINVAL, "%s: '%s' is not %s of at most %d characters", f->key,
								value, looks[STR], (int)f->largest) : 0;
	uint64_t v;
	if (parse_number(f->type, value, &v) < 0)
		return pen_err_x(err, -EINVAL, "%s: '%s' is not %s", f->key, value, looks[f->type]);
	if (v < f->least || v > f->largest)
		return pen_err_x(err, -EINVAL, "%s: '%s' is out of range: %llu to %llu%s", f->key, value,
				 (unsigned long long)f->least, (unsigned long long)f->largest,
				 f->type == NS ? " ns" : f->type == BYTES ? " bytes" : f->type == RATE ? " bytes/s" :
				 f->type == KHZ ? " kHz" : f->type == MW ? " mW" : f->type == PPM ? " millionths" : "");
	set_number(card, f, v);
	return 0;
}

static char *trim(char *s)
{
	while (*s == ' ' || *s == '\t')
		s++;
	size_t len = strlen(s);
	while (len && (s[len - 1] == ' ' || s[len - 1] == '\t' || s[len - 1] == '\r'))
		s[--len] = 0;
	return s;
}

/* Where the source begins: at the first # that is not inside quotes. */
static char *find_source(char *line)
{
	bool quoted = false;
	for (; *line; line++) {
		if (*line == '"')
			quoted = !quoted;
		else if (*line == '#' && !quoted)
			return line;
	}
	return NULL;
}

static int parse_line(struct pen_card *card, char *line, bool *seen, struct pen_err *err)
{
	char *source = find_source(line);
	if (source)
		*source++ = 0;
	line = trim(line);
	if (!*line)
		return 0;
	char *equals = strchr(line, '=');
	if (!equals)
		return pen_err_x(err, -EINVAL, "'%s' is not of the form: key = value  # source", line);
	*equals = 0;
	char *key = trim(line), *value = trim(equals + 1);
	for (size_t i = 0; i < PEN_ARRAY_LEN(fields); i++) {
		if (strcmp(fields[i].key, key))
			continue;
		if (seen[i])
			return pen_err_x(err, -EINVAL, "%s: stands here a second time", key);
		seen[i] = true;
		if (!source || !*trim(source))
			return pen_err_x(err, -EINVAL, "%s: no source after #; write \"assumed: from what\" where there is none", key);
		return set_field(card, &fields[i], value, err);
	}
	return pen_err_x(err, -EINVAL, "%s: no such key", key);
}

int pen_card_parse(const char *text, size_t len, const char *file, struct pen_card *ret_card, struct pen_err *err)
{
	struct pen_card card = { 0 };
	bool seen[PEN_ARRAY_LEN(fields)] = { 0 };
	char line[512];
	unsigned n = 0;

	for (size_t at = 0; at < len; ) {
		const char *end = memchr(text + at, '\n', len - at);
		size_t size = end ? (size_t)(end - (text + at)) : len - at;
		n++;
		if (size >= sizeof(line) || memchr(text + at, 0, size))
			return pen_err_x(err, -EINVAL, "%s:%u: longer than %zu characters, or not a text", file, n, sizeof(line) - 1);
		memcpy(line, text + at, size);
		line[size] = 0;
		int r = parse_line(&card, line, seen, err);
		if (r < 0) {
			pen_err_prefix(err, "%s:%u", file, n);
			return r;
		}
		at += size + 1;
	}
	for (size_t i = 0; i < PEN_ARRAY_LEN(fields); i++)
		if (fields[i].needed && !seen[i])
			return pen_err_x(err, -EINVAL, "%s: %s is missing (%s)", file, fields[i].key, looks[fields[i].type]);
	*ret_card = card;
	return 0;
}
