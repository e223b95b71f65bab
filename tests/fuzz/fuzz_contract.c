/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a contract file and as a node's configuration. What is accepted must print to a file that is accepted
 * and equal; what is refused must say why in one line.
 */
#include "contract/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void check_refusal(int r, const struct pen_err *err)
{
	if (r == -ENOMEM)
		return;
	if (err->code != r || !err->text[0] || strchr(err->text, '\n'))
		abort();
}

static void fuzz_contract(const uint8_t *data, size_t size)
{
	struct pen_contract c, again;
	struct pen_err err = PEN_ERR_INIT;
	struct pen_diff diff = { 0 };
	char *text = NULL;
	size_t len;

	int r = pen_contract_load_bytes("f", data, size, &c, &err);
	if (r < 0) {
		check_refusal(r, &err);
		return;
	}
	FILE *out = open_memstream(&text, &len);
	if (!out)
		return;
	pen_contract_print(&c, out, 0, true);
	fclose(out);
	if (pen_contract_load_bytes("g", text, len, &again, NULL) < 0 || pen_contract_diff(&c, &again, "", &diff) < 0 ||
	    diff.n)
		abort();
	json_t *object = pen_contract_to_json(&c);
	pen_contract_init(&again);
	if (object && (pen_contract_from_json(&again, object, NULL) < 0 || pen_contract_diff(&c, &again, "", &diff) < 0 ||
		       diff.n))
		abort();
	const struct pen_contract *held[] = { &c };
	const struct pen_capacity cap = { UINT64_C(1) << 34, 0, 40 };
	again.name[0] = 0;
	if (pen_contract_admit(held, 1, &cap, &again, &err) == 0 && c.compute.guaranteed > 500000)
		abort();
	json_decref(object);
	free(text);
}

static void fuzz_config(const uint8_t *data, size_t size)
{
	struct pen_config cfg, again;
	struct pen_err err = PEN_ERR_INIT;
	struct pen_diff diff = { 0 };
	char *text = NULL;
	size_t len;

	int r = pen_config_load_bytes("f", data, size, &cfg, &err);
	if (r < 0) {
		check_refusal(r, &err);
		return;
	}
	FILE *out = open_memstream(&text, &len);
	if (out) {
		pen_config_print(&cfg, out);
		fclose(out);
		if (pen_config_load_bytes("g", text, len, &again, NULL) < 0 || pen_config_diff(&cfg, &again, &diff) < 0 || diff.n)
			abort();
		pen_config_free(&again);
	}
	free(text);
	pen_config_free(&cfg);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_contract(data, size);
	fuzz_config(data, size);
	return 0;
}
