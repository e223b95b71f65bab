/* SPDX-License-Identifier: Apache-2.0 */
/* Which file is the vendor's: on libraries made by hand, so small that nothing could load them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/driverfile.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[] = "/tmp/pen-driverfile-XXXXXX";

enum what { VENDOR, OURS, DAMAGED_NOTE, FOREIGN, TEXT };

static void put_note(FILE *f, const char *owner, uint32_t namesz)
{
	char name[16] = "";
	Elf64_Nhdr h = { .n_namesz = namesz, .n_type = 1 };
	strncpy(name, owner, sizeof(name) - 1);
	fwrite(&h, sizeof(h), 1, f);
	fwrite(name, (strlen(owner) + 4) / 4 * 4, 1, f);
}

static void put_library(const char *path, enum what what)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	if (what == TEXT) {
		fputs("INPUT(-lcuda)\n", f);
		fclose(f);
		return;
	}
	Elf64_Ehdr e = { .e_ident = ELFMAG, .e_type = ET_DYN, .e_phoff = sizeof(e), .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 2 };
	e.e_ident[EI_CLASS] = ELFCLASS64;
#if defined(__x86_64__)
	e.e_machine = what == FOREIGN ? EM_AARCH64 : EM_X86_64;
#else
	e.e_machine = what == FOREIGN ? EM_X86_64 : EM_AARCH64;
#endif
	Elf64_Phdr p[2] = { { .p_type = PT_LOAD }, { .p_type = PT_NOTE, .p_offset = sizeof(e) + sizeof(p), .p_filesz = 64 } };
	fwrite(&e, sizeof(e), 1, f);
	fwrite(p, sizeof(p), 1, f);
	put_note(f, "GNU", 4);
	if (what == OURS)
		put_note(f, PEN_DRIVERFILE_NOTE, sizeof(PEN_DRIVERFILE_NOTE));
	if (what == DAMAGED_NOTE)   /* a length that leads out of the file */
		put_note(f, PEN_DRIVERFILE_NOTE, UINT32_MAX);
	fclose(f);
}

static const char *in(const char *folder, const char *name)
{
	static char path[256];
	snprintf(path, sizeof(path), "%s/%s", root, folder);
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/%s%s%s", root, folder, *name ? "/" : "", name);
	return path;
}

static void test_kinds(void **state)
{
	(void)state;
	static const struct {
		enum what what;
		bool may_be, ours;
	} rows[] = { { VENDOR, true, false }, { OURS, false, true }, { DAMAGED_NOTE, true, false }, { FOREIGN, false, false }, { TEXT, false, false } };
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		put_library(in("kinds", "lib"), rows[i].what);
		assert_int_equal(pen_driverfile_may_be(in("kinds", "lib")), rows[i].may_be);
		assert_int_equal(pen_driverfile_is_ours(in("kinds", "lib")), rows[i].ours);
	}
	assert_false(pen_driverfile_may_be(in("kinds", "none")));
	assert_false(pen_driverfile_may_be(in("kinds", "")));
	assert_int_equal(mkfifo(in("kinds", "fifo"), 0600), 0);   /* nothing waits for a writer */
	assert_false(pen_driverfile_may_be(in("kinds", "fifo")));
}

struct seen {
	char path[8][256];
	unsigned n, want;
};

static bool take(void *arg, const char *path)
{
	struct seen *s = arg;
	if (strncmp(path, root, strlen(root)))   /* a machine with a driver: what its own folders hold is not ours to know */
		return false;
	assert_in_range(s->n, 0, 7);
	snprintf(s->path[s->n++], sizeof(s->path[0]), "%s", path + strlen(root));
	return s->n == s->want;
}

static void test_order(void **state)
{
	(void)state;
	static const char soname[] = "libpenstock-no-such.so.1";
	char list[1024];
	struct seen s = { .want = 9 };
	put_library(in("shim", "libpenstock-no-such.so.1"), OURS);
	put_library(in("one", "libpenstock-no-such.so.535.183.01"), VENDOR);
	put_library(in("one", "libpenstock-no-such.so.1"), OURS);       /* mounted over the driver's */
	put_library(in("one", "libpenstock-no-such.so.535"), VENDOR);   /* another SONAME, perhaps */
	put_library(in("one", "libpenstock-no-such.so.1.backup"), VENDOR);
	put_library(in("two", "libpenstock-no-such.so.1"), VENDOR);
	in("empty", "");
	snprintf(list, sizeof(list), "%s/shim::relative:$ORIGIN/x:%s/one;%s/empty:%s/none:%s/two:", root, root, root, root, root);
	assert_false(pen_driverfile_each(soname, list, take, &s));
	assert_int_equal(s.n, 2);
	assert_string_equal(s.path[0], "/two/libpenstock-no-such.so.1");
	assert_string_equal(s.path[1], "/one/libpenstock-no-such.so.535.183.01");
	s = (struct seen){ .want = 1 };
	assert_true(pen_driverfile_each(soname, list, take, &s));
	assert_int_equal(s.n, 1);
	assert_false(pen_driverfile_each(soname, NULL, take, &s));
}

static int set_up(void **state)
{
	(void)state;
	return mkdtemp(root) ? 0 : -1;
}

static int tear_down(void **state)
{
	char command[64];
	(void)state;
	snprintf(command, sizeof(command), "rm -r %s", root);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_order),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
