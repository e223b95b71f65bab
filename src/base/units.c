/* SPDX-License-Identifier: Apache-2.0 */
#include "base/units.h"
#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/*
 * number = digits [ '.' digits ]. Kept as an integer part and a fraction in 10^-9, so that no rounding of a double
 * decides about a byte. Own parser because strtod accepts signs, hex, "inf" and the locale's comma.
 */
static int parse_number(const char **s, uint64_t *ret_int, uint64_t *ret_frac_e9)
{
	const char *p = *s;
	uint64_t whole = 0, frac = 0, scale = 100000000;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(whole, UINT64_C(10), &whole) ||
		    __builtin_add_overflow(whole, (uint64_t)(*p - '0'), &whole))
			return -ERANGE;
	if (*p == '.') {
		p++;
		if (*p < '0' || *p > '9')
			return -EINVAL;
		for (; *p >= '0' && *p <= '9'; p++, scale /= 10)
			frac += (uint64_t)(*p - '0') * scale;
	}
	*s = p;
	*ret_int = whole;
	*ret_frac_e9 = frac;
	return 0;
}

static int scale_number(uint64_t whole, uint64_t frac_e9, uint64_t unit, uint64_t *ret)
{
	uint64_t v;
	if (__builtin_mul_overflow(whole, unit, &v))
		return -ERANGE;
	/* unit <= 2^40 and frac_e9 < 2^30: the product needs more than 64 bits only above 2^34, so use 128. */
	if (__builtin_add_overflow(v, (uint64_t)((unsigned __int128)frac_e9 * unit / 1000000000u), &v))
		return -ERANGE;
	*ret = v;
	return 0;
}

struct unit {
	const char *name;
	uint64_t factor;
};

static int parse_with(const char *s, const struct unit *units, uint64_t *ret)
{
	uint64_t whole, frac;
	int r = parse_number(&s, &whole, &frac);
	if (r < 0)
		return r;
	for (const struct unit *u = units; u->name; u++)
		if (!strcasecmp(s, u->name))
			return scale_number(whole, frac, u->factor, ret);
	return -EINVAL;
}

int pen_parse_bytes(const char *s, uint64_t *ret_bytes)
{
	static const struct unit units[] = {
		{ "", 1 },         { "B", 1 },
		{ "K", PEN_KIB },  { "Ki", PEN_KIB },  { "KiB", PEN_KIB },
		{ "M", PEN_MIB },  { "Mi", PEN_MIB },  { "MiB", PEN_MIB },
		{ "G", PEN_GIB },  { "Gi", PEN_GIB },  { "GiB", PEN_GIB },
		{ "T", PEN_GIB * 1024 }, { "Ti", PEN_GIB * 1024 }, { "TiB", PEN_GIB * 1024 },
		{ NULL, 0 },
	};
	return parse_with(s, units, ret_bytes);
}

int pen_parse_rate(const char *s, uint64_t *ret_bytes_per_s)
{
	static const struct unit units[] = {
		{ "", 1000000000 }, { "GB/s", 1000000000 }, { "MB/s", 1000000 }, { "KB/s", 1000 }, { "B/s", 1 },
		{ "TB/s", UINT64_C(1000000000000) }, { NULL, 0 },
	};
	return parse_with(s, units, ret_bytes_per_s);
}

int pen_parse_share(const char *s, uint32_t *ret_ppm)
{
	static const struct unit units[] = { { "%", PEN_PPM / 100 }, { NULL, 0 } };
	uint64_t v;
	int r = parse_with(s, units, &v);
	if (r < 0)
		return r;
	if (v == 0 || v > PEN_PPM)
		return -ERANGE;
	*ret_ppm = (uint32_t)v;
	return 0;
}

int pen_parse_duration(const char *s, uint64_t *ret_ns)
{
	static const struct unit units[] = {
		{ "ns", 1 }, { "us", PEN_US }, { "µs", PEN_US }, { "ms", PEN_MS }, { "s", PEN_S },
		{ "m", 60 * PEN_S }, { "min", 60 * PEN_S }, { "h", 3600 * PEN_S }, { "d", 86400 * PEN_S }, { NULL, 0 },
	};
	return parse_with(s, units, ret_ns);
}

/* Three significant digits, trailing zeros dropped: what a column in a table can hold. */
static char *format_scaled(char *buf, size_t n, double v, const char *unit)
{
	int digits = v >= 100 ? 0 : v >= 10 ? 1 : 2;
	char num[32];
	snprintf(num, sizeof(num), "%.*f", digits, v);
	if (digits) {
		char *end = num + strlen(num) - 1;
		while (*end == '0')
			*end-- = 0;
		if (*end == '.')
			*end = 0;
	}
	snprintf(buf, n, "%s%s", num, unit);
	return buf;
}

char *pen_format_bytes(char *buf, size_t n, uint64_t bytes)
{
	static const char *const unit[] = { "B", "K", "M", "G", "T" };
	double v = (double)bytes;
	unsigned i = 0;
	for (; v >= 1024 && i < 4; i++)
		v /= 1024;
	return format_scaled(buf, n, v, unit[i]);
}

char *pen_format_share(char *buf, size_t n, uint32_t ppm)
{
	return format_scaled(buf, n, (double)ppm / 10000.0, "%");
}

char *pen_format_rate(char *buf, size_t n, uint64_t bytes_per_s)
{
	static const char *const unit[] = { "B/s", "KB/s", "MB/s", "GB/s", "TB/s" };
	double v = (double)bytes_per_s;
	unsigned i = 0;
	for (; v >= 1000 && i < 4; i++)
		v /= 1000;
	return format_scaled(buf, n, v, unit[i]);
}

char *pen_format_duration(char *buf, size_t n, uint64_t ns)
{
	if (ns < PEN_US)
		return format_scaled(buf, n, (double)ns, "ns");
	if (ns < PEN_MS)
		return format_scaled(buf, n, (double)ns / 1e3, "us");
	if (ns < PEN_S)
		return format_scaled(buf, n, (double)ns / 1e6, "ms");
	if (ns < 120 * PEN_S)
		return format_scaled(buf, n, (double)ns / 1e9, "s");
	if (ns < 7200 * PEN_S)
		return format_scaled(buf, n, (double)ns / 60e9, "m");
	return format_scaled(buf, n, (double)ns / 3600e9, "h");
}
