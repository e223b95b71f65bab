/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_INTEGRATION_TEXTFILE_H
#define PEN_INTEGRATION_TEXTFILE_H
/*
 * Metrics as a file, for boxes that nobody scrapes: node_exporter's textfile collector takes it from there, or whoever copies it away.
 * Written whole by renaming, every metrics.interval. Threads: main loop, and the daemon's helper for the disk.
 */
#include "daemon/service.h"

extern const struct pen_integration pen_textfile_integration;

#endif
