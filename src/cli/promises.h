/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_CLI_PROMISES_H
#define PEN_CLI_PROMISES_H
/*
 * By which mechanism each field of a contract is kept, how exactly, and where that was measured: printed by `inspect`
 * and `doctor`, so that nobody has to take a promise on trust. One row per promise of the OpenCL layer.
 *
 * X(field, mechanism, exactness, evidence)
 */
#include "cli/cli.h"

#define PEN_PROMISES(X)                                                                                               \
	X("memory", N_("every allocating call is charged before it reaches the driver; guarantees are set aside"),   \
	  N_("to the byte for buffers, images, SVM and pipes; what the driver takes for itself (programs, printf "   \
	     "buffers) is not seen"),                                                                                 \
	  N_("make bench NAME=memory"))                                                                               \
	X("compute", N_("time gate in the tenant's process: token bucket for the cap, fair order for the guarantee"), \
	  N_("device time measured by the driver's timestamps, or by host time where they are too coarse"),          \
	  N_("make bench NAME=share"))                                                                                \
	X("bandwidth", N_("token bucket over copies, fills and maps"),                                                \
	  N_("copies counted to the byte; what kernels move in memory is not seen through OpenCL"),                   \
	  N_("not measured yet"))                                                                                     \
	X("units", N_("queues are made on a sub-device"),                                                             \
	  N_("only where the driver can partition by counts; elsewhere it has no effect, and the share of time holds all the same"),                         \
	  N_("tests of the layer on PoCL"))                                                                           \
	X("class", N_("a less urgent tenant gives nothing to the device while a more urgent one is busy"),            \
	  N_("waits for what is in flight: one chunk, or one whole command of a neighbour that cannot be cut"),       \
	  N_("make bench NAME=interference"))                                                                         \
	X("sla", N_("earliest deadline first among tenants of equal rank"),                                           \
	  N_("at the borders of commands"),                                                                           \
	  N_("make bench NAME=peers"))                                                                                \
	X("isolation", N_("co-operative: the gate runs in the tenant's own process"),                                 \
	  N_("a program that attacks its own gate escapes its limits, but not into a neighbour's pages"),             \
	  N_("docs/THREATS.md"))

/* Prints the rows as a table. */
void pen_promises_print(FILE *out);

#endif
