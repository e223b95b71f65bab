/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/lib.h"

#include <stddef.h>

int pen_lib_managed(void)
{
	enum pen_managed m = pen_gate_managed();
	return m == PEN_MANAGED   ? PENSTOCK_OK
	       : m == PEN_REFUSED ? PENSTOCK_ERR_REFUSED
				  : PENSTOCK_ERR_NO_CONTRACT;
}

static const struct {
	int value;
	const char *name, *text;
} errors[] = {
#define X(constant, value, name, text) { value, name, text },
	PENSTOCK_ERRORS(X)
#undef X
};

PEN_EXPORT const char *penstock_strerror(int error)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (errors[i].value == error)
			return errors[i].text;
	return "an error that this version of the library does not know";
}

PEN_EXPORT const char *penstock_error_name(int error)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (errors[i].value == error)
			return errors[i].name;
	return "unknown";
}

PEN_EXPORT const char *penstock_version(void)
{
	return PEN_VERSION;
}
