/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_OPTIONS_H
#define PEN_DAEMON_OPTIONS_H
/*
 * Command line of penstockd, and the effective configuration that it makes together with the file.
 * Threads: main only. Lifetime: pen_options_free().
 */
#include "contract/config.h"

#define PEN_LEASE_NS_DEFAULT (UINT64_C(200) * 1000000)

struct pen_options {
	const char *config_path;   /* of argv; NULL = the default place */
	const char *socket, *runtime_dir, *state_dir, *http, *probe, *log_level, *tick;
	bool is_private;           /* ends with its last tenant */
	bool no_probe;             /* know only devices that tenants bring */
	int ready_fd;              /* -1 = none; see --help */
	uint64_t lease_ns;
};

enum pen_options_result { PEN_OPTIONS_RUN, PEN_OPTIONS_DONE /* --help, --version */ };

/* Return: enum pen_options_result; -EINVAL with @err for a usage error. */
int pen_options_parse(struct pen_options *o, int argc, char **argv, struct pen_err *err);

/* Reads the configuration again and puts the options on top. Return: 0; negative errno with @err. */
int pen_options_config(const struct pen_options *o, struct pen_config *ret_cfg, struct pen_err *err);

#endif
