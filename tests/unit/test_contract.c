/* SPDX-License-Identifier: Apache-2.0 */
/* Contracts: every field's grammar, every error text, files with lines, JSON and differences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "contract/contract.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define G PEN_GIB
#define M PEN_MIB
#define UNL PEN_UNLIMITED
#define NAME63 "a23456789-123456789-123456789-123456789-123456789-123456789-123"

static void assert_has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' does not say '%s'", text, part);
}

/* ---- values ---- */

struct range_case {
	const char *field, *text;
	uint64_t guaranteed, cap;
	const char *shown;   /* NULL: as @text */
};

static const struct pen_range64 *range_of(const struct pen_contract *c, const char *field)
{
	return !strcmp(field, "memory")    ? &c->memory :
	       !strcmp(field, "compute")   ? &c->compute :
	       !strcmp(field, "bandwidth") ? &c->bandwidth :
					     &c->units.range;
}

static void test_ranges(void **state)
{
	(void)state;
	static const struct range_case cases[] = {
		{ "memory", "512M", 512 * M, 512 * M, NULL },
		{ "memory", "512M..1G", 512 * M, G, NULL },
		{ "memory", "512M..", 512 * M, UNL, NULL },
		{ "memory", "..1G", 0, G, NULL },
		{ "memory", "0..1G", 0, G, "..1G" },
		{ "memory", "1..2G", G, 2 * G, "1G..2G" },
		{ "memory", "1.5..2.5GiB", G * 3 / 2, G * 5 / 2, "1536M..2560M" },
		{ "memory", "4097B", 4097, 4097, NULL },
		{ "memory", "1048577", 1048577, 1048577, "1048577B" },
		{ "memory", "5.2M..1G", 5452595, G, "5452595B..1G" },   /* not 5452595 G */
		{ "memory", "4097B..", 4097, UNL, NULL },
		{ "memory", "4K", 4096, 4096, NULL },
		{ "memory", "1T", 1024 * G, 1024 * G, NULL },
		{ "memory", "1G..1G", G, G, "1G" },
		{ "memory", "unlimited", 0, UNL, NULL },
		{ "memory", "0..", 0, UNL, "unlimited" },
		{ "compute", "30%", 300000, 300000, NULL },
		{ "compute", "30%..60%", 300000, 600000, NULL },
		{ "compute", "30..60%", 300000, 600000, "30%..60%" },
		{ "compute", "0%..60%", 0, 600000, "..60%" },
		{ "compute", "0..60%", 0, 600000, "..60%" },
		{ "compute", "12.3456%..", 123456, UNL, NULL },
		{ "compute", "0.0001%", 1, 1, NULL },
		{ "compute", "..100%", 0, 1000000, NULL },
		{ "compute", "unlimited", 0, UNL, NULL },
		{ "bandwidth", "..6GB/s", 0, 6000000000, NULL },
		{ "bandwidth", "..6", 0, 6000000000, "..6GB/s" },
		{ "bandwidth", "0..1.5GB/s", 0, 1500000000, "..1500MB/s" },
		{ "bandwidth", "..7B/s", 0, 7, NULL },
		{ "bandwidth", "unlimited", 0, UNL, NULL },
		{ "units", "1", 1, 1, NULL },
		{ "units", "2..4", 2, 4, NULL },
		{ "units", "2..", 2, UNL, NULL },
		{ "units", "..4", 0, 4, NULL },
		{ "units", "65536", 65536, 65536, NULL },
		{ "units", "50%", 500000, 500000, NULL },
		{ "units", "25..50%", 250000, 500000, "25%..50%" },
		{ "units", "25%..", 250000, UNL, NULL },
		{ "units", "unlimited", 0, UNL, NULL },
		{ "units", "0..", 0, UNL, "unlimited" },
	};
	for (size_t i = 0; i < PEN_ARRAY_LEN(cases); i++) {
		const struct range_case *k = &cases[i];
		struct pen_contract c, again;
		struct pen_err err = PEN_ERR_INIT;
		char text[PEN_VALUE_TEXT];
		pen_contract_init(&c);
		if (pen_contract_set(&c, k->field, k->text, &err) < 0)
			fail_msg("%s", err.text);
		const struct pen_range64 *r = range_of(&c, k->field);
		if (r->guaranteed != k->guaranteed || r->cap != k->cap)
			fail_msg("%s '%s': got %llu..%llu", k->field, k->text, (unsigned long long)r->guaranteed,
				 (unsigned long long)r->cap);
		int f = pen_contract_field_find(k->field);
		assert_string_equal(pen_contract_get(&c, (enum pen_field)f, text, sizeof(text)), k->shown ? k->shown : k->text);
		assert_int_equal(c.set_mask, 1u << f);
		/* What is printed reads back to the same. */
		pen_contract_init(&again);
		assert_int_equal(pen_contract_set(&again, k->field, text, NULL), 0);
		assert_memory_equal(range_of(&again, k->field), r, sizeof(*r));
		assert_int_equal(again.units.kind, c.units.kind);
	}
}

struct text_case {
	const char *field, *text, *shown;   /* shown NULL: as @text */
};

static void test_other_values(void **state)
{
	(void)state;
	static const struct text_case cases[] = {
		{ "name", "a", NULL },           { "name", "0.cam_1-x", NULL },       { "name", NAME63, NULL },
		{ "device", "any", NULL },       { "device", "GPU-8c1f2a90", NULL },  { "device", "0000:3b:00.0", NULL },
		{ "device", "Atlas 300 \"I\" #2: x\\y", NULL },
		{ "class", "latency", NULL },    { "class", "normal", NULL },         { "class", "besteffort", NULL },
		{ "priority", "0", NULL },       { "priority", "100", NULL },         { "priority", "050", "50" },
		{ "sla", "20ms", NULL },         { "sla", "1.5ms", "1500us" },        { "sla", "1us", NULL },
		{ "sla", "1h", NULL },           { "sla", "60m", "1h" },              { "sla", "1500ns", NULL },
		{ "sla", "none", NULL },         { "duty", "40%", NULL },             { "duty", "0.5%", NULL },
		{ "duty", "none", NULL },
	};
	bool covered[PEN_FIELD_MAX_] = { [PEN_FIELD_memory] = true, [PEN_FIELD_compute] = true, [PEN_FIELD_bandwidth] = true,
					 [PEN_FIELD_units] = true };
	for (size_t i = 0; i < PEN_ARRAY_LEN(cases); i++) {
		struct pen_contract c;
		struct pen_err err = PEN_ERR_INIT;
		char text[PEN_VALUE_TEXT];
		int f = pen_contract_field_find(cases[i].field);
		assert_true(f >= 0);
		covered[f] = true;
		pen_contract_init(&c);
		if (pen_contract_set(&c, cases[i].field, cases[i].text, &err) < 0)
			fail_msg("%s", err.text);
		pen_contract_get(&c, (enum pen_field)f, text, sizeof(text));
		assert_string_equal(text, cases[i].shown ? cases[i].shown : cases[i].text);
	}
	for (size_t i = 0; i < PEN_FIELD_MAX_; i++)
		if (!covered[i])
			fail_msg("no case for field %s", pen_contract_field(i)->name);
}

struct bad_case {
	const char *field, *text;
	int code;
	const char *says;   /* between value and "; allowed:" */
};

static const struct bad_case bad_cases[] = {
	{ "name", "", -EINVAL, "is not a name" },
	{ "name", "Cam", -EINVAL, "is not a name" },
	{ "name", ".cam", -EINVAL, "is not a name" },
	{ "name", "-cam", -EINVAL, "is not a name" },
	{ "name", "a/b", -EINVAL, "is not a name" },
	{ "name", NAME63 "4", -EINVAL, "is not a name" },
	{ "device", "", -EINVAL, "is not valid" },
	{ "device", " x", -EINVAL, "is not valid" },
	{ "device", "x\ny", -EINVAL, "is not valid" },
	{ "device", NAME63 NAME63 "ab", -EINVAL, "is too long" },
	{ "class", "urgent", -EINVAL, "is not valid" },
	{ "class", "", -EINVAL, "is not valid" },
	{ "class", "Latency", -EINVAL, "is not valid" },
	{ "priority", "-1", -EINVAL, "is not valid" },
	{ "priority", "101", -ERANGE, "is out of range" },
	{ "priority", "99999999999999999999", -ERANGE, "is out of range" },
	{ "priority", "5 ", -EINVAL, "is not valid" },
	{ "priority", "", -EINVAL, "is not valid" },
	{ "memory", "", -EINVAL, "is not valid" },
	{ "memory", "..", -EINVAL, "is not valid" },
	{ "memory", "4Q", -EINVAL, "is not valid" },
	{ "memory", "-4G", -EINVAL, "is not valid" },
	{ "memory", "1G...2G", -EINVAL, "is not valid" },
	{ "memory", "1G..2G..3G", -EINVAL, "is not valid" },
	{ "memory", "1G ..2G", -EINVAL, "is not valid" },
	{ "memory", "2G..1G", -ERANGE, "guarantees more than its cap" },
	{ "memory", "4", -ERANGE, "is less than 4K; is '4G' meant?" },
	{ "memory", "..100", -ERANGE, "is less than 4K; is '..100G' meant?" },
	{ "memory", "8192", -EINVAL, "has no unit; is '8192M' meant?" },
	{ "memory", "0", -ERANGE, "would allow nothing at all" },
	{ "memory", "..0G", -ERANGE, "would allow nothing at all" },
	{ "memory", "2000T", -ERANGE, "is out of range" },
	{ "memory", "99999999999999999999999G", -ERANGE, "is out of range" },
	{ "memory", "50%", -EINVAL, "is not valid" },
	{ "compute", "30", -EINVAL, "is not valid; is '30%' meant?" },
	{ "compute", "0%", -ERANGE, "is out of range" },
	{ "compute", "101%", -ERANGE, "is out of range" },
	{ "compute", "60%..30%", -ERANGE, "guarantees more than its cap" },
	{ "compute", "nan%", -EINVAL, "is not valid" },
	{ "bandwidth", "6G", -EINVAL, "is not valid" },
	{ "bandwidth", "6GB/s", -EINVAL, "cannot be guaranteed, only capped" },
	{ "bandwidth", "1..6GB/s", -EINVAL, "cannot be guaranteed, only capped" },
	{ "bandwidth", "6GB/s..", -EINVAL, "cannot be guaranteed, only capped" },
	{ "bandwidth", "0", -ERANGE, "would allow nothing at all" },
	{ "bandwidth", "9000000000", -ERANGE, "is out of range" },
	{ "units", "0", -ERANGE, "would allow nothing at all" },
	{ "units", "1.5", -EINVAL, "is not valid; is '1.5%' meant?" },
	{ "units", "65537", -ERANGE, "is out of range" },
	{ "units", "1..65537", -ERANGE, "is out of range" },
	{ "units", "10%..4", -EINVAL, "is not valid" },
	{ "units", "101%", -ERANGE, "is out of range" },
	{ "sla", "20", -EINVAL, "is not valid; is '20ms' meant?" },
	{ "sla", "0ms", -ERANGE, "is out of range" },
	{ "sla", "999ns", -ERANGE, "is out of range" },
	{ "sla", "2h", -ERANGE, "is out of range" },
	{ "duty", "0%", -ERANGE, "is out of range" },
	{ "duty", "40", -EINVAL, "is not valid; is '40%' meant?" },
	{ "duty", "10%..20%", -EINVAL, "is not valid" },
};

static void test_bad_values(void **state)
{
	(void)state;
	bool covered[PEN_FIELD_MAX_] = { false };
	for (size_t i = 0; i < PEN_ARRAY_LEN(bad_cases); i++) {
		const struct bad_case *k = &bad_cases[i];
		struct pen_contract c, before;
		struct pen_err err = PEN_ERR_INIT;
		char want[PEN_ERR_TEXT], shown[64];
		int f = pen_contract_field_find(k->field);
		assert_true(f >= 0);
		covered[f] = true;
		pen_contract_init(&c);
		before = c;
		int r = pen_contract_set(&c, k->field, k->text, &err);
		if (r != k->code)
			fail_msg("%s '%s': code %d, not %d", k->field, k->text, r, k->code);
		assert_int_equal(err.code, k->code);
		assert_memory_equal(&c, &before, sizeof(c));
		/* Long and unprintable values are cut and masked in the text; those cases check the rest only. */
		snprintf(shown, sizeof(shown), "%s", k->text);
		bool plain = strlen(k->text) < 64 && !strchr(k->text, '\n');
		snprintf(want, sizeof(want), "%s: '%s' %s%s allowed: %s", k->field, shown, k->says, strchr(k->says, '?') ? "" : ";",
			 pen_contract_field((size_t)f)->allowed);
		if (plain)
			assert_string_equal(err.text, want);
		else
			assert_has(err.text, strstr(want, k->says));
		assert_int_equal(pen_contract_set(&c, k->field, k->text, NULL), k->code);
	}
	for (size_t i = 0; i < PEN_FIELD_MAX_; i++)
		if (!covered[i])
			fail_msg("no bad value for field %s", pen_contract_field(i)->name);
}

static void test_hostile_value_in_message(void **state)
{
	(void)state;
	struct pen_contract c;
	struct pen_err err = PEN_ERR_INIT;
	char longer[300];
	pen_contract_init(&c);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
	assert_int_equal(pen_contract_set(&c, "memory", longer, &err), -EINVAL);
	assert_has(err.text, "xxx...' is not valid");
	assert_int_equal(pen_contract_set(&c, "class", "a\033[2J\xff", &err), -EINVAL);
	assert_has(err.text, "class: 'a?[2J?' is not valid");
	assert_int_equal(pen_contract_set(&c, longer, "1", &err), -ENOENT);
	assert_has(err.text, "xxx...: unknown field of a contract; known: name, device, class, priority, memory, compute, "
			     "bandwidth, units, sla, duty");
}

static void test_defaults(void **state)
{
	(void)state;
	struct pen_contract c, d;
	char text[PEN_VALUE_TEXT];
	pen_contract_init(&c);
	assert_int_equal(c.cls, PEN_CLASS_NORMAL);
	assert_int_equal(c.priority, 50);
	assert_int_equal(c.memory.guaranteed, 0);
	assert_true(c.memory.cap == UNL && c.compute.cap == UNL && c.bandwidth.cap == UNL && c.units.range.cap == UNL);
	assert_int_equal(c.units.kind, PEN_UNITS_NONE);
	assert_int_equal(c.sla_ns, 0);
	assert_int_equal(c.duty_ppm, 0);
	assert_int_equal(c.set_mask, 0);
	assert_int_equal(pen_contract_validate(&c, NULL), 0);
	const struct pen_contract_field *f;
	size_t n = 0;
	for (; (f = pen_contract_field(n)); n++) {
		assert_string_equal(pen_contract_get(&c, (enum pen_field)n, text, sizeof(text)), f->deflt);
		assert_true(f->allowed[0] && f->help[0] && f->arg[0]);
		assert_int_equal(pen_contract_field_find(f->name), n);
	}
	assert_int_equal(n, PEN_FIELD_MAX_);

	d = c;
	assert_int_equal(pen_contract_set(&d, "name", "a", NULL), 0);
	assert_int_equal(pen_contract_set(&d, "memory", "1G", NULL), 0);
	assert_int_equal(pen_contract_unset(&d, "memory", NULL), 0);
	assert_int_equal(pen_contract_unset(&d, "name", NULL), 0);
	assert_int_equal(pen_contract_unset(&d, "nope", NULL), -ENOENT);
	struct pen_diff diff = { 0 };
	assert_int_equal(pen_contract_diff(&c, &d, "", &diff), 0);
	assert_int_equal(diff.n, 0);
	assert_int_equal(d.set_mask, 0);
}

static void test_validate(void **state)
{
	(void)state;
	struct pen_contract c;
	struct pen_err err = PEN_ERR_INIT;
	pen_contract_init(&c);
	pen_contract_set(&c, "duty", "40%", NULL);
	assert_int_equal(pen_contract_validate(&c, &err), -EINVAL);
	assert_string_equal(err.text, "duty: only for class latency, this contract is of class normal");
	pen_contract_set(&c, "class", "latency", NULL);
	assert_int_equal(pen_contract_validate(&c, &err), 0);
	pen_contract_set(&c, "compute", "..30%", NULL);
	assert_int_equal(pen_contract_validate(&c, &err), -EINVAL);
	assert_string_equal(err.text, "duty: 40% is above the compute cap of 30%");
}

static void test_weight(void **state)
{
	(void)state;
	struct pen_contract c;
	pen_contract_init(&c);
	assert_int_equal(pen_contract_weight(&c), 100000);
	pen_contract_set(&c, "class", "besteffort", NULL);
	assert_int_equal(pen_contract_weight(&c), 10000);
	pen_contract_set(&c, "compute", "..0.5%", NULL);
	assert_int_equal(pen_contract_weight(&c), 5000);
	pen_contract_set(&c, "compute", "30%..", NULL);
	assert_int_equal(pen_contract_weight(&c), 300000);
}

/* ---- files ---- */

#define FULL \
	"name: cam1\ndevice: \"T4: #1\"\nclass: latency\npriority: 70\nmemory: 512M..1G\ncompute: 30%..60%\n" \
	"bandwidth: ..1GB/s\nunits: 2..4\nsla: 20ms\nduty: 40%\n"

static void test_yaml_round_trip(void **state)
{
	(void)state;
	struct pen_contract c, again;
	struct pen_err err = PEN_ERR_INIT;
	if (pen_contract_load_bytes("full.yaml", FULL, strlen(FULL), &c, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(c.set_mask, (1u << PEN_FIELD_MAX_) - 1);
	assert_string_equal(c.device, "T4: #1");
	assert_int_equal(c.sla_ns, 20 * PEN_MS);

	pen_auto_free char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	assert_int_equal(pen_contract_print(&c, out, 0, false), 0);
	fclose(out);
	assert_string_equal(text, FULL);
	assert_int_equal(pen_contract_load_bytes("x", text, len, &again, NULL), 0);
	assert_memory_equal(&c, &again, sizeof(c));
}

static void test_yaml_defaults_marked(void **state)
{
	(void)state;
	struct pen_contract c, again;
	pen_contract_init(&c);
	pen_contract_set(&c, "memory", "1G", NULL);
	pen_auto_free char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	assert_int_equal(pen_contract_print(&c, out, 2, true), 0);
	fclose(out);
	assert_has(text, "  memory: 1G\n");
	assert_has(text, "  class: normal   # default\n");
	assert_null(strstr(text, "name:"));
	assert_int_equal(pen_contract_load_bytes("x", text, len, &again, NULL), 0);
}

struct file_case {
	const char *text;
	int code;
	const char *says;   /* whole message, or its beginning if it ends in "..." */
};

static const struct file_case file_cases[] = {
	{ "", -EINVAL, "f.yaml:1: the file holds no contract" },
	{ "# nothing\n", -EINVAL, "f.yaml:1: the file holds no contract" },
	{ "name: a\n\nmemroy: 1G\n", -EINVAL, "f.yaml:3: memroy: unknown field of a contract; known: name, device, ..." },
	{ "name: a\ngroup: pipe\n", -EINVAL, "f.yaml:2: group: unknown field of a contract; ..." },
	{ "name: a\nsharing: any\n", -EINVAL, "f.yaml:2: sharing: unknown field of a contract; ..." },
	{ "name: a\nbandwidth: 6GB/s\n", -EINVAL, "f.yaml:2: bandwidth: '6GB/s' cannot be guaranteed, only capped; allowed: ..Y or ..." },
	{ "name: a\nmemory: 4Q\n", -EINVAL, "f.yaml:2: memory: '4Q' is not valid; allowed: X, X..Y, ..." },
	{ "name: a\nmemory:\n  2G..1G\n", -ERANGE, "f.yaml:3: memory: '2G..1G' guarantees more than its cap; allowed: ..." },
	{ "name: a\nmemory:\n", -EINVAL, "f.yaml:2: memory: '' is not valid; ..." },
	{ "memory: 1G\nname: a\nmemory: 1G\n", -EINVAL, "f.yaml:3: memory: given twice, first in line 1" },
	{ "name: a\ncompute: [30%]\n", -EINVAL, "f.yaml:2: compute: must be a single value; allowed: ..." },
	{ "name: a\ncompute: {cap: 30%}\n", -EINVAL, "f.yaml:2: compute: must be a single value; allowed: ..." },
	{ "device: \"a\\0b\"\n", -EINVAL, "f.yaml:1: device: must be a single value; allowed: ..." },
	{ "\nclass: normal\nduty: 40%\n", -EINVAL, "f.yaml:3: duty: only for class latency, ..." },
	{ "- name: a\n", -EINVAL, "f.yaml:1: a contract must be a mapping of fields, ..." },
	{ "just text\n", -EINVAL, "f.yaml:1: a contract must be a mapping of fields, ..." },
	{ "name: a\n? [x]\n: y\n", -EINVAL, "f.yaml:2: a key must be a plain text" },
	{ "name: a\nmemory: \"1G\n", -EINVAL, "f.yaml:3: not YAML: while scanning a quoted scalar, found unexpected end ..." },
	{ "name: a\n\tmemory: 1G\n", -EINVAL, "f.yaml:2: not YAML: while scanning ..." },
	{ "name: a\nclass: \xff\n", -EINVAL, "f.yaml:2: not YAML: invalid leading UTF-8 octet" },
	{ "name: a\nclass: *x\n", -EINVAL, "f.yaml:2: not YAML: found undefined alias" },
	{ "name: a\n---\nname: b\n", -EINVAL, "f.yaml:2: a second YAML document; one per file is allowed" },
	{ "name: a\nbandwidth: 6G\n", -EINVAL, "f.yaml:2: bandwidth: '6G' is not valid; ..." },
	{ "name: a\nunits: 0\n", -ERANGE, "f.yaml:2: units: '0' would allow nothing at all; ..." },
	{ "name: a\nsla: 20\n", -EINVAL, "f.yaml:2: sla: '20' is not valid; ..." },
	{ "name: a\nduty: 0%\n", -ERANGE, "f.yaml:2: duty: '0%' is out of range; ..." },
	{ "name: a\npriority: high\n", -EINVAL, "f.yaml:2: priority: 'high' is not valid; ..." },
	{ "name: a\nclass: urgent\n", -EINVAL, "f.yaml:2: class: 'urgent' is not valid; allowed: latency, normal or besteffort" },
	{ "name: A\n", -EINVAL, "f.yaml:1: name: 'A' is not a name; ..." },
	{ "name: a\ndevice: ''\n", -EINVAL, "f.yaml:2: device: '' is not valid; ..." },
};

static void assert_says(const char *text, const char *says)
{
	size_t len = strlen(says);
	if (len > 3 && !strcmp(says + len - 3, "...") ? strncmp(text, says, len - 3) : strcmp(text, says))
		fail_msg("'%s' is not '%s'", text, says);
}

static void test_file_errors(void **state)
{
	(void)state;
	for (size_t i = 0; i < PEN_ARRAY_LEN(file_cases); i++) {
		const struct file_case *k = &file_cases[i];
		struct pen_contract c = { .priority = -7 };
		struct pen_err err = PEN_ERR_INIT;
		int r = pen_contract_load_bytes("f.yaml", k->text, strlen(k->text), &c, &err);
		if (r != k->code)
			fail_msg("case %zu: code %d, text '%s'", i, r, err.text);
		assert_says(err.text, k->says);
		assert_int_equal(err.code, k->code);
		assert_int_equal(c.priority, -7);
		assert_int_equal(pen_contract_load_bytes("f.yaml", k->text, strlen(k->text), &c, NULL), k->code);
	}
}

static void test_file_accepted(void **state)
{
	(void)state;
	static const char *const good[] = {
		"{}", "{name: a, memory: 1G}", "--- # one\nname: a\n...\n", "name: &x a\ndevice: *x\n", "memory: '1G'",
		"\xef\xbb\xbfname: a\n", "memory: >-\n  1G\n", "name: a\r\nmemory: 1G\r\n",
	};
	for (size_t i = 0; i < PEN_ARRAY_LEN(good); i++) {
		struct pen_contract c;
		struct pen_err err = PEN_ERR_INIT;
		if (pen_contract_load_bytes("g", good[i], strlen(good[i]), &c, &err) < 0)
			fail_msg("case %zu: %s", i, err.text);
	}
}

static void test_file_bounds(void **state)
{
	(void)state;
	struct pen_contract c;
	struct pen_err err = PEN_ERR_INIT;
	size_t n = PEN_CONTRACT_FILE_MAX + 1;
	pen_auto_free char *big = malloc(n);
	char dir[] = "/tmp/pen-contract-XXXXXX", path[64];

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/c.yaml", dir);
	assert_int_equal(pen_contract_load_bytes("none", NULL, 0, &c, &err), -EINVAL);
	assert_int_equal(pen_contract_load_file(path, &c, &err), -ENOENT);
	assert_has(err.text, "c.yaml: No such file");

	memset(big, '\n', n);
	assert_int_equal(pen_contract_load_bytes("big", big, n, &c, &err), -EFBIG);
	assert_string_equal(err.text, "big: larger than 1 MiB");
	memcpy(big, "name: a\n", 8);
	assert_int_equal(pen_contract_load_bytes("big", big, n - 1, &c, &err), 0);

	FILE *f = fopen(path, "w");
	assert_int_equal(fwrite(big, 1, n, f), n);
	fclose(f);
	assert_int_equal(pen_contract_load_file(path, &c, &err), -EFBIG);
	f = fopen(path, "w");
	fputs("memory: 1G\nclas: latency\n", f);
	fclose(f);
	assert_int_equal(pen_contract_load_file(path, &c, &err), -EINVAL);
	assert_has(err.text, "c.yaml:2: clas: unknown field");
	unlink(path);
	assert_int_equal(pen_contract_load_file(dir, &c, &err), -EISDIR);
	rmdir(dir);

	/* libyaml alone would need half an hour for this one, and minutes for the two after it. */
	memset(big, '[', n);
	assert_int_equal(pen_contract_load_bytes("deep", big, n - 1, &c, &err), -EINVAL);
	assert_string_equal(err.text, "deep:1: nested deeper than 16 levels");
	for (unsigned i = 0; i < n / 11; i++) {
		char item[16];
		snprintf(item, sizeof(item), "- &%05x x\n", i);
		memcpy(big + i * 11, item, 11);
	}
	assert_int_equal(pen_contract_load_bytes("anchors", big, n / 11 * 11, &c, &err), -EINVAL);
	assert_string_equal(err.text, "anchors:257: more than 256 anchors");
	for (size_t i = 0; i + 12 < n; i += 12)
		memcpy(big + i, "%TAG !a! x:\n", 12);
	assert_int_equal(pen_contract_load_bytes("tags", big, n - 1, &c, &err), -EINVAL);
	assert_string_equal(err.text, "tags:17: more than 16 lines that begin with %");
	/* An anchor inside itself makes a graph with a cycle; nobody walks it. */
	assert_int_equal(pen_contract_load_bytes("loop", "memory: &a [*a]\n", 16, &c, &err), -EINVAL);
	assert_has(err.text, "loop:1: memory: must be a single value");
}

static void test_long_origin(void **state)
{
	(void)state;
	struct pen_contract c;
	struct pen_err err = PEN_ERR_INIT;
	char origin[400];
	memset(origin, 'd', sizeof(origin));
	memcpy(origin + sizeof(origin) - 8, "/c.yaml", 8);
	assert_int_equal(pen_contract_load_bytes(origin, "x: y", 4, &c, &err), -EINVAL);
	assert_true(!strncmp(err.text, "...ddd", 6));
	assert_has(err.text, "/c.yaml:1: x: unknown field");
}

/* ---- JSON ---- */

static void test_json_round_trip(void **state)
{
	(void)state;
	struct pen_contract c, again;
	assert_int_equal(pen_contract_load_bytes("full.yaml", FULL, strlen(FULL), &c, NULL), 0);
	json_t *object = pen_contract_to_json(&c);
	assert_non_null(object);
	assert_int_equal(json_object_size(object), PEN_FIELD_MAX_);
	assert_int_equal(json_integer_value(json_object_get(object, "priority")), 70);
	assert_string_equal(json_string_value(json_object_get(object, "memory")), "512M..1G");
	pen_contract_init(&again);
	assert_int_equal(pen_contract_from_json(&again, object, NULL), 0);
	assert_memory_equal(&c, &again, sizeof(c));
	json_decref(object);

	pen_contract_init(&c);
	object = pen_contract_to_json(&c);
	assert_null(json_object_get(object, "name"));
	assert_int_equal(pen_contract_from_json(&again, object, NULL), 0);
	json_decref(object);
}

static void test_json_changes(void **state)
{
	(void)state;
	static const struct file_case bad[] = {
		{ "[]", -EINVAL, "a contract must be a JSON object" },
		{ "{\"memory\": true}", -EINVAL, "memory: must be a text, a whole number or null" },
		{ "{\"memory\": 1.5}", -EINVAL, "memory: must be a text, a whole number or null" },
		{ "{\"memory\": {\"cap\": 1}}", -EINVAL, "memory: must be a text, a whole number or null" },
		{ "{\"memory\": \"1G\\u0000\"}", -EINVAL, "memory: must be a text, a whole number or null" },
		{ "{\"mem\": \"1G\"}", -ENOENT, "mem: unknown field of a contract; known: ..." },
		{ "{\"mem\": null}", -ENOENT, "mem: unknown field of a contract; known: ..." },
		{ "{\"class\": \"latency\", \"sla\": \"fast\"}", -EINVAL, "sla: 'fast' is not valid; ..." },
		{ "{\"class\": \"normal\"}", -EINVAL, "duty: only for class latency, ..." },
		{ "{\"priority\": -3}", -EINVAL, "priority: '-3' is not valid; ..." },
	};
	struct pen_contract c, before;
	assert_int_equal(pen_contract_load_bytes("full.yaml", FULL, strlen(FULL), &c, NULL), 0);
	before = c;
	for (size_t i = 0; i < PEN_ARRAY_LEN(bad); i++) {
		struct pen_err err = PEN_ERR_INIT;
		json_t *v = json_loads(bad[i].text, JSON_ALLOW_NUL, NULL);
		assert_non_null(v);
		assert_int_equal(pen_contract_from_json(&c, v, &err), bad[i].code);
		assert_says(err.text, bad[i].says);
		assert_memory_equal(&c, &before, sizeof(c));
		json_decref(v);
	}
	json_t *v = json_loads("{\"class\": \"normal\", \"duty\": null, \"memory\": 8388608, \"priority\": 9}", 0, NULL);
	assert_int_equal(pen_contract_from_json(&c, v, NULL), 0);
	json_decref(v);
	assert_int_equal(c.duty_ppm, 0);
	assert_int_equal(c.memory.cap, 8388608);
	assert_int_equal(c.priority, 9);
	assert_int_equal(c.set_mask & (1u << PEN_FIELD_duty), 0);
}

static void test_diff(void **state)
{
	(void)state;
	struct pen_contract a, b;
	struct pen_diff d = { 0 };
	pen_auto_free char *text = NULL;
	size_t len;
	assert_int_equal(pen_contract_load_bytes("full.yaml", FULL, strlen(FULL), &a, NULL), 0);
	b = a;
	pen_contract_set(&b, "memory", "2G..", NULL);
	pen_contract_set(&b, "device", "any", NULL);
	pen_contract_set(&b, "duty", "none", NULL);
	assert_int_equal(pen_contract_diff(&a, &a, "", &d), 0);
	assert_int_equal(d.n, 0);
	assert_int_equal(pen_contract_diff(&a, &b, "", &d), 0);
	assert_int_equal(d.n, 3);
	FILE *out = open_memstream(&text, &len);
	assert_int_equal(pen_diff_print(&d, out), 0);
	fclose(out);
	assert_string_equal(text, "device: T4: #1 -> any  (after a restart)\nmemory: 512M..1G -> 2G..\nduty: 40% -> none\n");
	pen_diff_clear(&d);
	assert_null(d.v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_other_values),
		cmocka_unit_test(test_bad_values),
		cmocka_unit_test(test_hostile_value_in_message),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_validate),
		cmocka_unit_test(test_weight),
		cmocka_unit_test(test_yaml_round_trip),
		cmocka_unit_test(test_yaml_defaults_marked),
		cmocka_unit_test(test_file_errors),
		cmocka_unit_test(test_file_accepted),
		cmocka_unit_test(test_file_bounds),
		cmocka_unit_test(test_long_origin),
		cmocka_unit_test(test_json_round_trip),
		cmocka_unit_test(test_json_changes),
		cmocka_unit_test(test_diff),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
