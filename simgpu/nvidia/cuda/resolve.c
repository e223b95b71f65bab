/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuGetProcAddress: which ABI of a family a caller of some version gets. The answer is the row with the
 * largest version that is not above the one asked for; of two such rows (a legacy and a per-thread form)
 * the one that the flags name.
 *
 * As NVIDIA's drivers 470.256, 535.261 and 550.163 do it, which answer before there is a device: a version
 * above the driver's is no error; per thread a family that has such a form never falls back on its legacy
 * one, not even at a version that is too old for it.
 */
#include "simgpu/nvidia/cuda/drv.h"

#include <string.h>

enum form { LEGACY, THREAD };

struct row {
	const char *family;
	int since;
	enum form form;
	void *address;
};

static const struct row rows[] = {
#define PEN_CU(symbol, family, since, thread, class, types) { #family, since, thread, (void *)symbol },
#include "api/cuda.def"
};

#define ROWS (sizeof(rows) / sizeof(*rows))
#define BUCKETS 1024u

static uint16_t first[BUCKETS], chain[ROWS]; /* row + 1; 0 = end */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint32_t hash(const char *s)
{
	uint32_t h = 2166136261u;

	while (*s)
		h = (h ^ (uint8_t)*s++) * 16777619u;
	return h % BUCKETS;
}

static void build(void)
{
	for (size_t i = 0; i < ROWS; i++) {
		if (rows[i].since > sim_cuda_version)
			continue;
		uint32_t h = hash(rows[i].family);
		chain[i] = first[h];
		first[h] = (uint16_t)(i + 1);
	}
}

static CUdriverProcAddressQueryResult look_up(const char *family, int version, bool per_thread, void **ret)
{
	const struct row *best = NULL, *other = NULL;
	bool known = false, has_thread = false;

	pthread_once(&once, build);
	for (uint16_t i = first[hash(family)]; i; i = chain[i - 1]) {
		const struct row *r = &rows[i - 1];

		if (strcmp(r->family, family) != 0)
			continue;
		known = true;
		has_thread |= r->form == THREAD;
		if (r->since > version || (r->form == THREAD && !per_thread))
			continue;
		const struct row **slot = r->form == THREAD ? &best : &other;
		if (!*slot || (*slot)->since < r->since)
			*slot = r;
	}
	if (!per_thread || !has_thread) /* most families have but one form */
		best = other;
	*ret = best ? best->address : NULL;
	return best    ? CU_GET_PROC_ADDRESS_SUCCESS
	       : known ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
		       : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
}

static CUresult resolve(const char *symbol, void **pfn, int version, uint64_t flags,
			CUdriverProcAddressQueryResult *status)
{
	if (!symbol || !pfn || flags > CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)
		return CUDA_ERROR_INVALID_VALUE;
	*status = look_up(symbol, version, flags == CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM, pfn);
	return CUDA_SUCCESS;
}

CUresult cuGetProcAddress(const char *symbol, void **pfn, int version, uint64_t flags)
{
	CUdriverProcAddressQueryResult status = 0;
	void *found;
	CUresult r = resolve(symbol, pfn ? &found : NULL, version, flags, &status);

	if (!r &&
	    !status) /* the first ABI leaves *pfn alone where it finds nothing, the second sets it to NULL */
		*pfn = found;
	return r ? r : status ? CUDA_ERROR_NOT_FOUND : CUDA_SUCCESS;
}

CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int version, uint64_t flags,
			     CUdriverProcAddressQueryResult *ret_status)
{
	CUdriverProcAddressQueryResult status = 0;
	CUresult r = resolve(symbol, pfn, version, flags, &status);

	if (!r && ret_status)
		*ret_status = status;
	return r;
}

/* The runtime's private tables are not documented, and nothing here stands in for them. */
CUresult cuGetExportTable(const void **ret, const CUuuid *id)
{
	if (!ret || !id)
		return CUDA_ERROR_INVALID_VALUE;
	*ret = NULL;
	return CUDA_ERROR_NOT_FOUND;
}
