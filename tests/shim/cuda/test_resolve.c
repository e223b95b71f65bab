/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuGetProcAddress of the shim beside the driver's own: the same code and status for every request, and the hook of exactly
 * the row that the driver's pointer is of.
 *
 * test_resolve requests DRIVER CSV | odd DRIVER | new DRIVER
 */
#include "cutest.h"

static void *driver;
static struct cu_api real;
static void *(*peek_hook)(unsigned);

static const char *const names[ROWS] = {
#define PEN_CU(symbol, family, since, thread, class, types) #symbol,
#include "api/cuda.def"
};

static unsigned row_at(void *address)
{
	for (unsigned i = 0; i < ROWS; i++)
		if (dlsym(driver, names[i]) == address)
			return i;
	return ROWS;
}

struct answer {
	CUresult code;
	CUdriverProcAddressQueryResult status;
	void *pfn;
};

static struct answer ask(const struct cu_api *api, const char *name, int version, uint64_t flags)
{
	struct answer a = { .status = 9, .pfn = &a };
	if (real.cuGetProcAddress_v2)
		a.code = api->cuGetProcAddress_v2(name, &a.pfn, version, flags, &a.status);
	else
		a.code = api->cuGetProcAddress(name, &a.pfn, version, flags);
	return a;
}

/* The one wanted for the driver's answer. */
static void *wanted(void *pfn)
{
	unsigned i = pfn ? row_at(pfn) : ROWS;
	return i < ROWS && peek_hook(i) ? peek_hook(i) : pfn;
}

static void compare(const char *name, int version, uint64_t flags)
{
	struct answer want = ask(&real, name, version, flags), got = ask(&cu, name, version, flags);
	if (want.pfn == &want || got.pfn == &got)   /* left as it was */
		want.pfn = want.pfn == &want ? NULL : want.pfn, got.pfn = got.pfn == &got ? NULL : got.pfn;
	if (got.code == want.code && got.status == want.status && got.pfn == wanted(want.pfn))
		return;
	fprintf(stderr, "%s at %d, flags %d: %d %u %p, the driver %d %u %p\n", name, version, (int)flags, got.code, got.status, got.pfn,
		want.code, want.status, want.pfn);
	failures++;
}

static void requests(const char *csv)
{
	char name[128];
	int version, flags;
	unsigned n = 0, hooked = 0;
	FILE *f = fopen(csv, "re");
	if (!f) {
		perror(csv);
		exit(1);
	}
	while (fscanf(f, "%127[^,],%d,%d\n", name, &version, &flags) == 3) {
		compare(name, version, (uint64_t)flags);
		struct answer a = ask(&cu, name, version, (uint64_t)flags);
		hooked += a.code == CUDA_SUCCESS && a.pfn && row_at(a.pfn) == ROWS;
		n++;
	}
	fclose(f);
	CHECK_EQ(n, 439);
	printf("%u requests, %u answered with a hook\n", n, hooked);
	CHECK(hooked > 100);
}

/* All families at every version at which one of them changed, in both forms. */
static void everything(void)
{
	static const struct {
		const char *family;
		int since;
	} rows[] = {
#define PEN_CU(symbol, family, since, thread, class, types) { #family, since },
#include "api/cuda.def"
	};
	for (unsigned i = 0; i < ROWS; i++)
		for (uint64_t flags = 0; flags < 4; flags++) {
			compare(rows[i].family, rows[i].since, flags);
			compare(rows[i].family, rows[i].since - 10, flags);
			compare(rows[i].family, 13000, flags);
		}
}

static void odd(void)
{
	void *pfn = &pfn;
	CUdriverProcAddressQueryResult status = 9;
	compare("", 0, 0);
	compare("cuNoSuchThing", 12000, 0);
	compare("cuMemAlloc", 0, 0);
	compare("cuMemAlloc", -1, 0);
	compare("cuMemAlloc", 99000, 0);
	compare("cuMemAlloc_v2", 12000, 0);   /* a symbol is no family */
	compare("cuMemAlloc", 3020, 17);
	if (real.cuGetProcAddress_v2) {
		CHECK_EQ(cu.cuGetProcAddress_v2(NULL, &pfn, 12000, 0, &status), real.cuGetProcAddress_v2(NULL, &pfn, 12000, 0, &status));
		CHECK_EQ(cu.cuGetProcAddress_v2("cuInit", NULL, 12000, 0, &status),
			 real.cuGetProcAddress_v2("cuInit", NULL, 12000, 0, &status));
		OK(cu.cuGetProcAddress_v2("cuInit", &pfn, 12000, 0, NULL));
		CHECK(pfn == peek_hook(ROW_cuInit));
		OK(cu.cuGetProcAddress_v2("cuGetProcAddress", &pfn, 11030, 0, NULL));
		CHECK(pfn == peek_hook(ROW_cuGetProcAddress));
		OK(cu.cuGetProcAddress_v2("cuGetProcAddress", &pfn, 12000, 0, NULL));
		CHECK(pfn == peek_hook(ROW_cuGetProcAddress_v2));
	} else {
		CHECK_EQ(cu.cuGetProcAddress_v2("cuInit", &pfn, 11030, 0, &status), CUDA_ERROR_NOT_FOUND);
		OK(cu.cuGetProcAddress("cuGetProcAddress", &pfn, 11030, 0));
		CHECK(pfn == peek_hook(ROW_cuGetProcAddress));
	}
	const void *table = NULL;
	CUuuid id = { { 0x6b, (char)0xd5, (char)0xfb } };
	CHECK_EQ(cu.cuGetExportTable(&table, &id), real.cuGetExportTable(&table, &id));
	CHECK_EQ(cu.cuGetExportTable(NULL, NULL), real.cuGetExportTable(NULL, NULL));
}

/* On newdriver.c. */
static void newer(void)
{
	CHECK(ask(&cu, "cuMemAlloc", 13000, 0).pfn == peek_hook(ROW_cuMemAlloc_v2));
	CHECK(ask(&cu, "cuMemAlloc", 13010, 0).pfn == dlsym(driver, "cuMemAlloc_v3"));     /* unhooked: nobody knows its arguments */
	CHECK(ask(&cu, "cuMemFree", 13000, 0).pfn == peek_hook(ROW_cuMemFree_v2));         /* no exported address: by the table */
	CHECK(ask(&cu, "cuMemFree", 2000, 0).pfn == peek_hook(ROW_cuMemFree));
	CHECK(ask(&cu, "cuMemFreeAsync", 13000, 0).pfn == peek_hook(ROW_cuMemFreeAsync));
	CHECK(ask(&cu, "cuMemFreeAsync", 13000, 2).pfn == peek_hook(ROW_cuMemFreeAsync_ptsz));
	CHECK(ask(&cu, "cuMemFreeHost", 13010, 0).pfn == peek_hook(ROW_cuMemFreeHost));    /* newer, and nothing new in the family */
	CHECK(ask(&cu, "cuGraphInstantiate", 11000, 0).pfn == peek_hook(ROW_cuGraphInstantiate_v2));
	CHECK(ask(&cu, "cuGraphInstantiate", 12000, 0).pfn == peek_hook(ROW_cuGraphInstantiateWithFlags));
	CHECK(ask(&cu, "cuNewThing", 13010, 0).pfn == ask(&real, "cuNewThing", 13010, 0).pfn);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	open_shim(argv);
	*(void **)(void *)&peek_hook = dlsym(shim, "peek_hook");
	void *pfn;
	cu.cuGetProcAddress("", &pfn, 0, 0);   /* loads the driver */
	driver = dlopen(argv[2], RTLD_NOW | RTLD_NOLOAD);
	if (!driver || !peek_hook) {
		fprintf(stderr, "the shim under test has not loaded %s\n", argv[2]);
		return 1;
	}
	api_of(driver, &real);
	if (!strcmp(argv[1], "requests") && argc > 3) {
		requests(argv[3]);
		everything();
	} else if (!strcmp(argv[1], "odd")) {
		odd();
	} else {
		newer();
	}
	return finished("resolve");
}
