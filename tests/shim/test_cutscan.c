/* SPDX-License-Identifier: Apache-2.0 */
/* Which sources may be cut: the verdict of the text search alone. */
#include "shim/opencl/cl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define PLAIN "__kernel void f(__global int *a) { a[get_global_id(0)] = 1; }\n"

static bool verdict(const char *text)
{
	bool include = false;
	return pen_cl_source_cuttable(text, strlen(text), &include);
}

static void harmless(void **state)
{
	(void)state;
	assert_true(verdict(PLAIN));
	assert_true(verdict("__attribute__((reqd_work_group_size(64,1,1))) " PLAIN));
	assert_true(verdict("__attribute__((work_group_size_hint(64,1,1))) " PLAIN));
	assert_true(verdict("__kernel void f(__local int *t) { t[get_local_id(0)] = 1; barrier(CLK_LOCAL_MEM_FENCE); }"));
	assert_true(verdict("__kernel void f(__local int *t) { work_group_barrier(CLK_LOCAL_MEM_FENCE); }"));
	assert_true(verdict("#define LONG \\\n 1\n" PLAIN));
}

static void harmful(void **state)
{
	static const char *const words[] = {
		"get_group_id(0)", "get_num_groups(0)", "get_global_size(0)", "get_global_offset(0)", "get_global_linear_id()",
		"atomic_inc(a)", "atom_add(a, 1)", "atomic_fetch_add(a, 1)", "barrier(CLK_GLOBAL_MEM_FENCE)", "mem_fence(1)",
		"sub_group_reduce_add(1)", "get_sub_group_id()", "work_group_reduce_add(1)", "work_group_scan_inclusive_add(1)",
		"enqueue_kernel(q)", "read_only pipe int p", "printf(\"x\")", "volatile __global int *p", "a ## b", "a %:%: b", "asm(\"\")",
		"__builtin_trap()", "__spirv_BuiltInWorkgroupId()", "_Z12get_group_idj(0)",
		"get_gro\\\nup_id(0)", "get_gro\\ \r\nup_id(0)", "// get_group_id in a comment",
	};
	(void)state;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		char text[256];
		snprintf(text, sizeof(text), "__kernel void f(__global int *a) { %s\n; }", words[i]);
		if (verdict(text))
			fail_msg("cut in spite of: %s", words[i]);
	}
	assert_false(pen_cl_source_cuttable("a\0b", 3, &(bool){ false }));
}

static void includes(void **state)
{
	bool include = false;
	(void)state;
	assert_true(pen_cl_source_cuttable(PLAIN, strlen(PLAIN), &include));
	assert_false(include);
	pen_cl_source_cuttable("#include \"x.h\"\n", 15, &include);
	assert_true(include);
}

static void plan(void **state)
{
	struct pen_cl_kernel k = { .cuttable = true };
	struct pen_cl_device d = { .units = 4, .device_version = 12 };
	struct pen_cl_shape s = { .dim = 1, .global = { 4096 }, .local = { 64 } };
	(void)state;
	pen_cl_cut_plan(&k, &d, &s);
	assert_int_equal(s.slices, 64);
	assert_int_equal(s.wave, 4);
	s = (struct pen_cl_shape){ .dim = 2, .global = { 64, 64 }, .local = { 32, 4 } };
	pen_cl_cut_plan(&k, &d, &s);
	assert_int_equal(s.cut_dim, 1);
	assert_int_equal(s.slices, 16);
	assert_int_equal(s.wave, 2);   /* two groups in a row, four units */
	s = (struct pen_cl_shape){ .dim = 1, .global = { 4000 }, .local = { 64 } };   /* a remainder */
	pen_cl_cut_plan(&k, &d, &s);
	assert_int_equal(s.slices, 1);
	s = (struct pen_cl_shape){ .dim = 1, .global = { 256 }, .local = { 64 } };    /* one wave: nothing to gain */
	pen_cl_cut_plan(&k, &d, &s);
	assert_int_equal(s.slices, 1);
	d.device_version = 10;                                                         /* no offset there */
	s = (struct pen_cl_shape){ .dim = 1, .global = { 4096 }, .local = { 64 } };
	pen_cl_cut_plan(&k, &d, &s);
	assert_int_equal(s.slices, 1);
}

/* The table of handles: many keys, churn at a constant number, replacement. */
static void map(void **state)
{
	static struct pen_map m;
	static char keys[4096][16];
	(void)state;
	for (int round = 0; round < 50; round++) {
		for (int i = 0; i < 4096; i++)
			assert_int_equal(pen_map_put(&m, keys[i], keys[i] + 1), 0);
		for (int i = 0; i < 4096; i++)
			assert_ptr_equal(pen_map_find(&m, keys[i]), keys[i] + 1);
		assert_int_equal(pen_map_put(&m, keys[7], keys[8]), 0);
		assert_ptr_equal(pen_map_take(&m, keys[7]), keys[8]);
		assert_null(pen_map_take(&m, keys[7]));
		for (int i = 4095; i >= 0; i--)
			assert_ptr_equal(pen_map_take(&m, keys[i]), i == 7 ? NULL : keys[i] + 1);
		assert_true(pen_map_empty(&m));
		assert_null(pen_map_find(&m, keys[1]));
		assert_null(pen_map_find(&m, NULL));   /* however often slots were emptied */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(harmless), cmocka_unit_test(harmful), cmocka_unit_test(includes),
					    cmocka_unit_test(plan), cmocka_unit_test(map) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
