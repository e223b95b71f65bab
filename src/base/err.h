/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BASE_ERR_H
#define PEN_BASE_ERR_H
/*
 * The one error convention: functions return 0 (or a count) or a negative errno; out-parameters are written on
 * success only; a text exists only where a person will read it and then goes through `struct pen_err *err`, the last
 * parameter, which may be NULL. Setters return the code, so that `return pen_err_x(err, -EINVAL, ...)` is the idiom.
 *
 * Threading: a pen_err belongs to one thread. Allocates nothing: usable inside a tenant's process.
 */
#include <stdarg.h>

#define PEN_ERR_TEXT 512

struct pen_err {
	int code;                  /* negative errno; 0 = nothing set */
	char text[PEN_ERR_TEXT];   /* one line without newline, for a person */
};

#define PEN_ERR_INIT { 0, { 0 } }

/* Sets code and text. Return: @code. */
int pen_err_x(struct pen_err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* As above and appends ": <strerror(-code)>", for failed system calls. Return: @code. */
int pen_err_sys(struct pen_err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Puts "prefix: " before the text that is there (context on the way up). Return: the code. */
int pen_err_prefix(struct pen_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#if defined(__clang_analyzer__) && !defined(PEN_ERR_IMPLEMENTATION)
/* The analyzer sees one file at a time: tell it that the setters return @code, or every failed step "may have returned 0". */
#define pen_err_x(err, code, ...) ((void)(pen_err_x)(err, code, __VA_ARGS__), (code))
#define pen_err_sys(err, code, ...) ((void)(pen_err_sys)(err, code, __VA_ARGS__), (code))
#endif

#endif
