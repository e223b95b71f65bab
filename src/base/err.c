/* SPDX-License-Identifier: Apache-2.0 */
#define PEN_ERR_IMPLEMENTATION
#include "base/err.h"

#include <stdio.h>
#include <string.h>

int pen_err_x(struct pen_err *err, int code, const char *fmt, ...)
{
	if (!err)
		return code;
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	err->code = code;
	return code;
}

int pen_err_sys(struct pen_err *err, int code, const char *fmt, ...)
{
	if (!err)
		return code;
	char what[PEN_ERR_TEXT - 80], why[80];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	/* GNU strerror_r: thread-safe, may return a constant string instead of filling the buffer. */
	const char *s = strerror_r(-code, why, sizeof(why));
	snprintf(err->text, sizeof(err->text), "%s: %.79s", what, s);
	err->code = code;
	return code;
}

int pen_err_prefix(struct pen_err *err, const char *fmt, ...)
{
	if (!err)
		return 0;
	char old[PEN_ERR_TEXT], head[PEN_ERR_TEXT];
	memcpy(old, err->text, sizeof(old));
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(head, sizeof(head), fmt, ap);
	va_end(ap);
	/* A cut tail is acceptable here, a cut head is not: the head says where. */
	size_t n = strnlen(head, sizeof(head) - 1);
	memcpy(err->text, head, n);
	snprintf(err->text + n, sizeof(err->text) - n, ": %s", old);
	return err->code;
}
