/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every row of cuda.def: exported, nothing else is, and it leads to the driver's own, to its hook if the process is managed and its
 * class says so, or to an answer where the driver lacks it. What ought to have a hook and has none is printed, and is a fault.
 *
 * test_complete MODE DRIVER: "rows" on the driver that answers with the row's number, else "plain"; FAKEGATE says whether managed.
 */
#include "cutest.h"

#define MISSING_ALLOWED 0   /* hooks that are not written yet */

static const struct {
	const char *name, *class;
} row[ROWS] = {
#define PEN_CU(symbol, family, since, thread, class, types) { #symbol, #class },
#include "api/cuda.def"
};

static void *(*peek_to)(unsigned), *(*peek_hook)(unsigned), *(*peek_real)(unsigned), *(*peek_not_found)(void);

static void *must_find(const char *name)
{
	void *p = dlsym(shim, name);
	if (!p) {
		fprintf(stderr, "no %s\n", name);
		exit(1);
	}
	return p;
}

static void check_row(unsigned i, void *driver, bool managed, unsigned *ret_missing)
{
	bool pass = !strcmp(row[i].class, "PASS");
	void *real = dlsym(driver, row[i].name), *to = peek_to(i);
	if (peek_real(i) != real) {
		fprintf(stderr, "%s: another one of the driver's is called\n", row[i].name);
		failures++;
	}
	if (pass && peek_hook(i)) {
		fprintf(stderr, "%s: of class PASS, and hooked\n", row[i].name);
		failures++;
	}
	if (!pass && !peek_hook(i)) {
		fprintf(stderr, "no hook yet: %s (%s)\n", row[i].name, row[i].class);
		++*ret_missing;
	}
	void *want = !real ? peek_not_found() : managed && peek_hook(i) ? peek_hook(i) : real;
	if (to != want) {
		fprintf(stderr, "%s leads elsewhere\n", row[i].name);
		failures++;
	}
}

static void call_rows(bool managed)
{
	/* No arguments: this driver looks at none, and what is hooked is not called. */
	for (unsigned i = 0; i < ROWS; i++) {
		CUresult (*call)(void);
		*(void **)(void *)&call = dlsym(shim, row[i].name);
		if (call && !(managed && peek_hook(i)))
			CHECK_EQ(call(), 1000 + (int)i);
	}
}

int main(int argc, char **argv)
{
	unsigned missing = 0, exported = 0;
	const char *mode = getenv("FAKEGATE");
	bool managed = !mode || !strcmp(mode, "managed");
	if (argc < 3)
		return 2;
	open_shim(argv);
	*(void **)(void *)&peek_to = must_find("peek_to");
	*(void **)(void *)&peek_hook = must_find("peek_hook");
	*(void **)(void *)&peek_real = must_find("peek_real");
	*(void **)(void *)&peek_not_found = must_find("peek_not_found");
	int version = 0;
	cu.cuDriverGetVersion(&version);   /* loads the driver */
	void *driver = dlopen(argv[2], RTLD_NOW | RTLD_NOLOAD);
	if (!driver) {
		fprintf(stderr, "the shim has not loaded %s\n", argv[2]);
		return 1;
	}
	for (unsigned i = 0; i < ROWS; i++) {
		exported += dlsym(shim, row[i].name) != NULL;
		check_row(i, driver, managed, &missing);
	}
	CHECK_EQ(exported, ROWS);
	if (!strcmp(argv[1], "rows"))
		call_rows(managed);
	printf("%u rows, %u hooks missing\n", (unsigned)ROWS, missing);
	CHECK(missing <= MISSING_ALLOWED);
	return finished("complete");
}
