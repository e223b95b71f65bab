/* SPDX-License-Identifier: Apache-2.0 */
/* cuGetProcAddress of each version against the library's own symbols, for every row of the list. */
#include "cu.h"

struct row {
	const char *symbol, *family;
	int since;
	bool thread;
};

enum { LEGACY, THREAD };
static const struct row rows[] = {
#define PEN_CU(symbol, family, since, form, class, types) { #symbol, #family, since, form },
#include "api/cuda.def"
};

static void *lib;

static void *ask(const char *family, int version, uint64_t flags, CUdriverProcAddressQueryResult *status)
{
	void *p = (void *)1;

	*status = 99;
	if (cu.cuGetProcAddress_v2) {
		OK(cuGetProcAddress_v2(family, &p, version, flags, status));
	} else {
		CUresult r = cu.cuGetProcAddress(family, &p, version, flags);

		assert_true(r == CUDA_SUCCESS || r == CUDA_ERROR_NOT_FOUND);
		assert_true(r == CUDA_SUCCESS || p == (void *)1);   /* left alone */
		if (r)
			p = NULL;
		*status = r ? CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND : CU_GET_PROC_ADDRESS_SUCCESS;
	}
	return p;
}

static const struct row *best_of(const char *family, int version, int form)
{
	const struct row *b = NULL;

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		if (strcmp(rows[i].family, family) == 0 && rows[i].thread == form && rows[i].since <= version && (!b || rows[i].since > b->since))
			b = &rows[i];
	return b;
}

/*
 * The best row as NVIDIA's drivers 470.256, 535.261 and 550.163 have it, found the slow way: a family that has a per-thread form in this
 * driver gives no legacy one to who asks for that.
 */
static const struct row *best(const char *family, int version, bool thread)
{
	return best_of(family, version, thread && best_of(family, cu_version, THREAD) ? THREAD : LEGACY);
}

/* Each family at each version at which something changes in it, and just before, in every flavour. */
static void test_every_row(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		for (int version = rows[i].since - 10; version <= rows[i].since; version += 10) {
			if (version > cu_version)
				continue;
			for (uint64_t flags = 0; flags <= 2; flags++) {
				const struct row *want = best(rows[i].family, version, flags == 2);
				CUdriverProcAddressQueryResult status;
				void *p = ask(rows[i].family, version, flags, &status);

				if (want) {
					assert_ptr_equal(p, dlsym(lib, want->symbol));
					assert_int_equal(status, CU_GET_PROC_ADDRESS_SUCCESS);
				} else {
					assert_null(p);
					assert_int_not_equal(status, CU_GET_PROC_ADDRESS_SUCCESS);
				}
			}
		}
	}
}

/* Exactly the rows of this version have a symbol. */
static void test_symbols(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		assert_true((dlsym(lib, rows[i].symbol) != NULL) == (rows[i].since <= cu_version));
}

static void test_odd_requests(void **state)
{
	CUdriverProcAddressQueryResult status;
	void *p;

	(void)state;
	assert_null(ask("", 0, 0, &status));
	assert_null(ask("cuNothing", cu_version, 0, &status));
	assert_int_equal(status, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
	assert_ptr_equal(ask("cuGetProcAddress", 11030, 0, &status), dlsym(lib, "cuGetProcAddress"));
	if (cu.cuGetProcAddress_v2) {
		assert_ptr_equal(ask("cuGetProcAddress", 12000, 0, &status), dlsym(lib, "cuGetProcAddress_v2"));
		assert_null(ask("cuMemAllocAsync", 11010, 0, &status));
		assert_int_equal(status, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
		OK(cuGetProcAddress_v2("cuInit", &p, 2000, 0, NULL));
		FAILS(CUDA_ERROR_INVALID_VALUE, cuGetProcAddress_v2("cuInit", NULL, 2000, 0, NULL));
		FAILS(CUDA_ERROR_INVALID_VALUE, cuGetProcAddress_v2(NULL, &p, 2000, 0, NULL));
	}
	assert_ptr_equal(ask("cuInit", cu_version + 10, 0, &status), dlsym(lib, "cuInit"));   /* of a newer toolkit: what there is */
	FAILS(CUDA_ERROR_INVALID_VALUE, cuGetProcAddress("cuInit", &p, cu_version, 8));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_row), cmocka_unit_test(test_symbols), cmocka_unit_test(test_odd_requests) };

	cu_load();
	lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
