/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BACKEND_WATCH_H
#define PEN_BACKEND_WATCH_H
/*
 * Readings of the devices, line after line: `penstock-probe --watch MS`. One process for as long as the daemon listens, so that the
 * vendor's library is started once and can hang or crash without it.
 *
 * Each line is a JSON object, schema penstock-probe/watch/v1. What the library does not tell is absent, never 0. A call that
 * fails costs the line its value and nothing else; a device that is lost stays in the lines, marked, until the library has it again or
 * forgets it. Only devices of NVIDIA's library so far.
 *
 * Threads: one.
 */
#include <stdio.h>

#define PEN_WATCH_MIN_MS 100u       /* the library's own samples are 167 ms apart at best */
#define PEN_WATCH_MAX_MS 3600000u

/*
 * pen_watch_run - print a line at once and one each @period_ms, until standard input ends or @out cannot be written
 * Return: 0; 1 the library is not there (after one line that says so).
 */
int pen_watch_run(FILE *out, unsigned period_ms);

#endif
