/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BASE_LOG_H
#define PEN_BASE_LOG_H
/*
 * Log of the daemon, the command line and, sparingly, of a shim: one write(2) per line to stderr, "<level>: text";
 * under systemd (JOURNAL_STREAM) with the "<n>" priority prefix. Never allocates, never exits, keeps errno.
 */
enum pen_log_level { PEN_LOG_ERROR, PEN_LOG_WARN, PEN_LOG_INFO, PEN_LOG_DEBUG, PEN_LOG_MAX_ };

void pen_log_set_level(enum pen_log_level max);
void pen_log_set_prefix(const char *prefix);   /* static string, e.g. "penstockd" */
void pen_log(enum pen_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
