/* SPDX-License-Identifier: Apache-2.0 */
/* Quantities as people write them: exact values, hostile strings, overflow, and what a formatter prints is read back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/units.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define UNTOUCHED UINT64_C(0xdeadbeefdeadbeef)

struct parse_case {
	const char *text;
	int code;         /* 0, or the negative errno that is expected */
	uint64_t value;   /* read only if code is 0 */
};

typedef int (*parser)(const char *s, uint64_t *ret);

/* pen_parse_share has a 32-bit result; widened, so that one loop serves all tables. */
static int parse_share(const char *s, uint64_t *ret)
{
	uint32_t ppm = (uint32_t)UNTOUCHED;
	int r = pen_parse_share(s, &ppm);
	if (r == 0)
		*ret = ppm;
	else
		assert_int_equal(ppm, (uint32_t)UNTOUCHED);
	return r;
}

static void run_table(parser parse, const struct parse_case *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct parse_case *c = &cases[i];
		uint64_t got = UNTOUCHED;
		int r = parse(c->text, &got);
		uint64_t want = c->code ? UNTOUCHED : c->value;   /* out-parameters are written on success only */
		if (r != c->code || got != want)
			fail_msg("'%s': got %d, %llu; want %d, %llu", c->text, r, (unsigned long long)got, c->code,
				 (unsigned long long)want);
	}
}
#define RUN_TABLE(parse, cases) run_table(parse, cases, sizeof(cases) / sizeof((cases)[0]))

static void test_bytes(void **state)
{
	(void)state;
	static const struct parse_case cases[] = {
		{ "0", 0, 0 },
		{ "1", 0, 1 },
		{ "007", 0, 7 },
		{ "1073741824", 0, PEN_GIB },
		{ "512B", 0, 512 },
		{ "1K", 0, 1024 },
		{ "1k", 0, 1024 },
		{ "512M", 0, 512 * PEN_MIB },
		{ "4G", 0, 4 * PEN_GIB },
		{ "4Gi", 0, 4 * PEN_GIB },
		{ "4GiB", 0, 4 * PEN_GIB },
		{ "4gib", 0, 4 * PEN_GIB },
		{ "2T", 0, 2048 * PEN_GIB },
		{ "1.5G", 0, PEN_GIB + PEN_GIB / 2 },
		{ "0.5K", 0, 512 },
		{ "0.25M", 0, 256 * 1024 },
		{ "1.9", 0, 1 },                   /* a part of a byte is dropped */
		{ "0.000000001G", 0, 1 },          /* 1.07 bytes */
		{ "1.0000000000000000000000000000000000001G", 0, PEN_GIB },
		{ "18446744073709551615", 0, UINT64_MAX },
		{ "18446744073709551616", -ERANGE, 0 },
		{ "99999999999999999999999999999999999999", -ERANGE, 0 },
		{ "16777215T", 0, UINT64_C(16777215) << 40 },
		{ "16777216T", -ERANGE, 0 },
		{ "16777215.999999999T", 0, (UINT64_C(16777215) << 40) + UINT64_C(1099511626676) },
		{ "18014398509481983.9K", 0, (UINT64_C(18014398509481983) << 10) + 921 },
		{ "18014398509481984K", -ERANGE, 0 },
	};
	RUN_TABLE(pen_parse_bytes, cases);
}

static void test_bytes_hostile(void **state)
{
	(void)state;
	static const struct parse_case cases[] = {
		{ "", -EINVAL, 0 },      { " ", -EINVAL, 0 },     { "G", -EINVAL, 0 },     { "-1", -EINVAL, 0 },
		{ "+1", -EINVAL, 0 },    { " 1", -EINVAL, 0 },    { "1 ", -EINVAL, 0 },    { "1 G", -EINVAL, 0 },
		{ "1\n", -EINVAL, 0 },   { "1\tG", -EINVAL, 0 },  { ".5G", -EINVAL, 0 },   { "1.G", -EINVAL, 0 },
		{ "1.", -EINVAL, 0 },    { "1..5", -EINVAL, 0 },  { "1.5.5", -EINVAL, 0 }, { "1,5G", -EINVAL, 0 },
		{ "0x10", -EINVAL, 0 },  { "1e9", -EINVAL, 0 },   { "nan", -EINVAL, 0 },   { "inf", -EINVAL, 0 },
		{ "1GB", -EINVAL, 0 },   { "1Gib/s", -EINVAL, 0 }, { "1GG", -EINVAL, 0 },  { "1E", -EINVAL, 0 },
		{ "1P", -EINVAL, 0 },    { "%s%n", -EINVAL, 0 },  { "1%", -EINVAL, 0 },    { "1\xff", -EINVAL, 0 },
		{ "\xef\xbc\x91G", -EINVAL, 0 },   /* FULLWIDTH DIGIT ONE */
		{ "\xd9\xa1G", -EINVAL, 0 },       /* ARABIC-INDIC DIGIT ONE */
		{ "1..2G", -EINVAL, 0 }, { "--1", -EINVAL, 0 },   { "1_000", -EINVAL, 0 }, { "1'000", -EINVAL, 0 },
	};
	RUN_TABLE(pen_parse_bytes, cases);
}

static void test_long_strings(void **state)
{
	(void)state;
	char digits[4096], zeros[4096];
	uint64_t v = UNTOUCHED;
	memset(digits, '9', sizeof(digits) - 1);
	digits[sizeof(digits) - 1] = 0;
	assert_int_equal(pen_parse_bytes(digits, &v), -ERANGE);
	assert_int_equal(pen_parse_rate(digits, &v), -ERANGE);
	assert_int_equal(v, UNTOUCHED);

	memset(zeros, '0', sizeof(zeros) - 1);
	zeros[sizeof(zeros) - 1] = 0;
	assert_int_equal(pen_parse_bytes(zeros, &v), 0);
	assert_int_equal(v, 0);
	zeros[1] = '.';
	memcpy(zeros + sizeof(zeros) - 3, "1G", 3);
	assert_int_equal(pen_parse_bytes(zeros, &v), 0);
	assert_int_equal(v, 0);
}

static void test_share(void **state)
{
	(void)state;
	static const struct parse_case cases[] = {
		{ "30%", 0, 300000 },
		{ "100%", 0, PEN_PPM },
		{ "100.0000%", 0, PEN_PPM },
		{ "0.5%", 0, 5000 },
		{ "12.3456%", 0, 123456 },
		{ "0.0001%", 0, 1 },
		{ "99.9999%", 0, 999999 },
		{ "0.00001%", -ERANGE, 0 },
		{ "0%", -ERANGE, 0 },
		{ "0.0%", -ERANGE, 0 },
		{ "100.0001%", -ERANGE, 0 },
		{ "101%", -ERANGE, 0 },
		{ "4294967326%", -ERANGE, 0 },          /* 2^32 + 30: must not wrap to 30 % */
		{ "429496759600%", -ERANGE, 0 },
		{ "18446744073709551615%", -ERANGE, 0 },
		{ "30", -EINVAL, 0 },
		{ "30 %", -EINVAL, 0 },
		{ "30%%", -EINVAL, 0 },
		{ "-30%", -EINVAL, 0 },
		{ "%", -EINVAL, 0 },
		{ "", -EINVAL, 0 },
		{ "30%..60%", -EINVAL, 0 },
	};
	RUN_TABLE(parse_share, cases);
}

static void test_rate(void **state)
{
	(void)state;
	static const struct parse_case cases[] = {
		{ "6", 0, UINT64_C(6000000000) },
		{ "6GB/s", 0, UINT64_C(6000000000) },
		{ "6gb/s", 0, UINT64_C(6000000000) },
		{ "0.5", 0, 500000000 },
		{ "500MB/s", 0, 500000000 },
		{ "1.5KB/s", 0, 1500 },
		{ "9B/s", 0, 9 },
		{ "4.8TB/s", 0, UINT64_C(4800000000000) },
		{ "18446744073GB/s", 0, UINT64_C(18446744073000000000) },
		{ "18446744074GB/s", -ERANGE, 0 },
		{ "18446744073.709551615", 0, UINT64_MAX },
		{ "18446744073.709551616", -ERANGE, 0 },
		{ "18446745TB/s", -ERANGE, 0 },
		{ "6GiB/s", -EINVAL, 0 },   /* decimal only, as vendors quote it */
		{ "6G", -EINVAL, 0 },
		{ "6GB", -EINVAL, 0 },
		{ "6Gb/S/s", -EINVAL, 0 },
		{ "-6", -EINVAL, 0 },
		{ "", -EINVAL, 0 },
	};
	RUN_TABLE(pen_parse_rate, cases);
}

static void test_duration(void **state)
{
	(void)state;
	static const struct parse_case cases[] = {
		{ "20ms", 0, 20 * PEN_MS },
		{ "1.5s", 0, 1500 * PEN_MS },
		{ "250us", 0, 250 * PEN_US },
		{ "250\xc2\xb5s", 0, 250 * PEN_US },   /* MICRO SIGN in UTF-8 */
		{ "100ns", 0, 100 },
		{ "2m", 0, 120 * PEN_S },
		{ "2min", 0, 120 * PEN_S },
		{ "1h", 0, 3600 * PEN_S },
		{ "1d", 0, 86400 * PEN_S },
		{ "0.9ns", 0, 0 },
		{ "0.000000001s", 0, 1 },
		{ "18446744073.709551615s", 0, UINT64_MAX },
		{ "18446744073.709551616s", -ERANGE, 0 },
		{ "213504d", -ERANGE, 0 },
		{ "213503d", 0, UINT64_C(213503) * 86400 * PEN_S },
		{ "20", -EINVAL, 0 },       /* a bare number says nothing */
		{ "20 ms", -EINVAL, 0 },
		{ "-1s", -EINVAL, 0 },
		{ "1s1ms", -EINVAL, 0 },
		{ "1e3s", -EINVAL, 0 },
		{ "ms", -EINVAL, 0 },
		{ "", -EINVAL, 0 },
	};
	RUN_TABLE(pen_parse_duration, cases);
}

struct format_case {
	uint64_t value;
	const char *text;
};

static void test_format_exact(void **state)
{
	(void)state;
	static const struct format_case bytes[] = {
		{ 0, "0B" }, { 1, "1B" }, { 1023, "1023B" }, { 1024, "1K" }, { 1536, "1.5K" }, { 512 * PEN_MIB, "512M" },
		{ 4 * PEN_GIB, "4G" }, { PEN_GIB + PEN_GIB / 2, "1.5G" }, { 2048 * PEN_GIB, "2T" },
	};
	static const struct format_case share[] = {
		{ 300000, "30%" }, { 125000, "12.5%" }, { PEN_PPM, "100%" }, { 5000, "0.5%" }, { 0, "0%" },
	};
	static const struct format_case rate[] = {
		{ 9, "9B/s" }, { 1500, "1.5KB/s" }, { 500000000, "500MB/s" }, { UINT64_C(6000000000), "6GB/s" },
	};
	static const struct format_case duration[] = {
		{ 0, "0ns" }, { 999, "999ns" }, { 730 * PEN_US, "730us" }, { 20 * PEN_MS, "20ms" },
		{ 1250 * PEN_MS, "1.25s" }, { 90 * PEN_S, "90s" }, { 120 * PEN_S, "2m" }, { 7200 * PEN_S, "2h" },
	};
	char buf[64];
	for (size_t i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++)
		assert_string_equal(pen_format_bytes(buf, sizeof(buf), bytes[i].value), bytes[i].text);
	for (size_t i = 0; i < sizeof(share) / sizeof(share[0]); i++)
		assert_string_equal(pen_format_share(buf, sizeof(buf), (uint32_t)share[i].value), share[i].text);
	for (size_t i = 0; i < sizeof(rate) / sizeof(rate[0]); i++)
		assert_string_equal(pen_format_rate(buf, sizeof(buf), rate[i].value), rate[i].text);
	for (size_t i = 0; i < sizeof(duration) / sizeof(duration[0]); i++)
		assert_string_equal(pen_format_duration(buf, sizeof(buf), duration[i].value), duration[i].text);
}

/* Whatever a formatter prints is read by its parser, and within its three digits (0.5 %) of the value. */
static void check_close(const char *text, uint64_t want, uint64_t got)
{
	uint64_t diff = got > want ? got - want : want - got;
	if (diff > want / 200 + 1)
		fail_msg("'%s' read back as %llu, was %llu", text, (unsigned long long)got, (unsigned long long)want);
}

static void test_round_trip(void **state)
{
	(void)state;
	uint64_t x = 88172645463325252u;   /* xorshift64 with a fixed seed: the same values on every run */
	char buf[64];
	for (int i = 0; i < 20000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		uint64_t v = x >> (1 + i % 63), got;
		uint32_t ppm = (uint32_t)(x % PEN_PPM) + 1, got_ppm;

		assert_int_equal(pen_parse_bytes(pen_format_bytes(buf, sizeof(buf), v), &got), 0);
		check_close(buf, v, got);
		assert_int_equal(pen_parse_rate(pen_format_rate(buf, sizeof(buf), v), &got), 0);
		check_close(buf, v, got);
		assert_int_equal(pen_parse_duration(pen_format_duration(buf, sizeof(buf), v), &got), 0);
		check_close(buf, v, got);
		if (ppm < 100)   /* below 0.01 % two decimals are not enough to be read back */
			continue;
		assert_int_equal(pen_parse_share(pen_format_share(buf, sizeof(buf), ppm), &got_ppm), 0);
		if (ppm >= 10000)
			check_close(buf, ppm, got_ppm);
	}
}

static void test_format_never_overflows(void **state)
{
	(void)state;
	static const uint64_t values[] = { 0, 999, 1023, PEN_GIB - 1, UINT64_MAX };
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		for (size_t n = 1; n < 12; n++) {
			char buf[16];
			memset(buf, 0x5a, sizeof(buf));
			assert_ptr_equal(pen_format_bytes(buf, n, values[i]), buf);
			assert_true(strnlen(buf, n) < n);
			pen_format_rate(buf, n, values[i]);
			assert_true(strnlen(buf, n) < n);
			pen_format_duration(buf, n, values[i]);
			assert_true(strnlen(buf, n) < n);
			pen_format_share(buf, n, (uint32_t)values[i]);
			assert_true(strnlen(buf, n) < n);
			for (size_t k = n; k < sizeof(buf); k++)
				assert_int_equal(buf[k], 0x5a);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_bytes_hostile),
		cmocka_unit_test(test_long_strings),
		cmocka_unit_test(test_share),
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_duration),
		cmocka_unit_test(test_format_exact),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_format_never_overflows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
