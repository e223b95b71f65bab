/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_CLI_RUN_H
#define PEN_CLI_RUN_H
/* One `penstock run`, for run.c and its summary (run_use.c). Single-threaded. */
#include "cli/cli.h"
#include "contract/contract.h"

#include <limits.h>

struct pen_run {
	struct pen_cli *cli;
	struct pen_contract contract;
	bool wait;
	bool start;            /* a daemon where one was named and none is */
	const char *exclusive; /* how long, as typed; NULL = it shares */
	bool joined;           /* a standing contract: it was there before and stays */
	char **argv;           /* of the program */
	char dir[PATH_MAX];    /* tenant directory */
	double created;        /* as the daemon has it: tells the contract from a later one of the same name */
	uint64_t started_ns;
	int code;              /* what we exit with */
	bool ran;              /* the program was started */
	bool stopped;          /* ... because somebody stopped the program: a signal that is no crash */
};

/* On standard error; @tenant as the daemon has it after the program's end. */
void pen_run_print_use(const struct pen_run *run, const json_t *tenant);

#endif
