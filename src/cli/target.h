/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_CLI_TARGET_H
#define PEN_CLI_TARGET_H
/* Latency targets that a program cannot keep, for run and why. Single-threaded. */
#include "cli/cli.h"
#include "contract/contract.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

/* A target that is kept with @p99_ns, as one would type it. Return: @buf. */
char *pen_target_text(char *buf, size_t n, uint64_t p99_ns);
/* Says on stderr what a target is good for without class latency, if it is one of @c, which @name has. */
void pen_target_doubt(const struct pen_contract *c, const char *name);
/*
 * Of a tenant, as the daemon has it: says on @out that the program alone needs longer than its target, and which it could have, if most
 * requests were above it, they were hardly held, and nobody else has used the device meanwhile. The line begins with @who.
 */
void pen_target_tell(const struct pen_cli *cli, FILE *out, const char *who, const json_t *tenant);

#endif
