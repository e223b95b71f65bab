/* SPDX-License-Identifier: Apache-2.0 */
/* A line of `penstock-probe --watch`, which runs vendor code: whatever it prints, what is read of it lies in its range. */
#include "daemon/reading.h"

#include <stdlib.h>

static void need(bool ok)
{
	if (!ok)
		abort();
}

static bool in_range(int32_t v, int32_t most)
{
	return v == PEN_READING_NONE || (v >= 0 && v <= most);
}

static void check(const struct pen_reading_device *r)
{
	need(r->n_processes <= PEN_READING_PROCESSES && *r->key);
	need(in_range(r->gpu_util, 100) && in_range(r->mem_util, 100) && in_range(r->enc_util, 100) && in_range(r->dec_util, 100));
	need(in_range(r->temperature_c, 200) && in_range(r->xid, 100000) && r->mem_used_bytes <= UINT64_C(1) << 56);
	for (unsigned i = 0; i < r->n_processes; i++) {
		const struct pen_reading_process *p = &r->process[i];
		need(p->pid > 0 && p->mem_bytes <= UINT64_C(1) << 56 && in_range(p->sm_util, 100));
		for (unsigned k = 0; k < i; k++)
			need(r->process[k].pid != p->pid);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct pen_reading_device r;
	struct pen_err err = PEN_ERR_INIT;
	json_t *root = NULL;
	const char *error = NULL;
	const json_t *devices = pen_reading_open((const char *)data, size, &root, &error, &err);
	size_t i;
	json_t *o;
	json_array_foreach(devices, i, o)
		if (pen_reading_device(o, &r) == 0)
			check(&r);
	json_decref(root);
	return 0;
}
