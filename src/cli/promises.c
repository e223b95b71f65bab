/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/promises.h"

static const struct {
	const char *field, *mechanism, *exactness, *evidence;
} promises[] = {
#define X(field, mechanism, exactness, evidence) { field, mechanism, exactness, evidence },
	PEN_PROMISES(X)
#undef X
};

void pen_promises_print(FILE *out)
{
	for (size_t i = 0; i < sizeof(promises) / sizeof(promises[0]); i++) {
		fprintf(out, "  %-10s %s\n", promises[i].field, _(promises[i].mechanism));
		fprintf(out, "  %-10s %s: %s\n", "", _("how exact"), _(promises[i].exactness));
		fprintf(out, "  %-10s %s: %s\n", "", _("shown by"), _(promises[i].evidence));
	}
}
