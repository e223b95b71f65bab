/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"
#include "base/cancel.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Atomic int max_level = PEN_LOG_INFO;
static const char library_prefix[] = "penstock";
static const char *_Atomic prefix = library_prefix;

static const char *const level_name[PEN_LOG_MAX_] = { "error", "warning", "info", "debug" };
static const int syslog_level[PEN_LOG_MAX_] = { 3, 4, 6, 7 };

void pen_log_set_level(enum pen_log_level max)
{
	atomic_store(&max_level, (int)max);
}

void pen_log_set_prefix(const char *p)
{
	atomic_store(&prefix, p);
}

void pen_log(enum pen_log_level level, const char *fmt, ...)
{
	if ((int)level > atomic_load_explicit(&max_level, memory_order_relaxed))
		return;
	PEN_NO_CANCEL;
	int saved = errno;
	char line[1024];
	int n;
	const char *who = atomic_load(&prefix);
	/* The journal names the unit and the program; inside somebody else's program that is not us. */
	if (getenv("JOURNAL_STREAM"))
		n = snprintf(line, sizeof(line), "<%d>%s", syslog_level[level], who == library_prefix ? "penstock: " : "");
	else
		n = snprintf(line, sizeof(line), "%s: %s: ", who, level_name[level]);
	va_list ap;
	va_start(ap, fmt);
	int m = vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	size_t len = (size_t)n + (size_t)(m < 0 ? 0 : m);
	if (len > sizeof(line) - 2)
		len = sizeof(line) - 2;
	line[len++] = '\n';
	ssize_t w = write(STDERR_FILENO, line, len);
	(void)w;   /* nowhere left to report it */
	errno = saved;
}
