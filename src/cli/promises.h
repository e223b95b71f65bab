/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_CLI_PROMISES_H
#define PEN_CLI_PROMISES_H
/*
 * By which mechanism each field of a contract is kept, how exactly, and where that was shown: printed by `inspect` and `doctor`, so
 * that nobody has to take a promise on trust. One row per promise, interface and span of driver versions.
 *
 * X(field, from, before, kind, mechanism, exactness, evidence): the row holds for drivers of interface version from and above and
 * below before (CUDA: 1000 * major + 10 * minor; 0 = no bound).
 */
#include "cli/cli.h"

#define PEN_PROMISE_KINDS(X)                                                                  \
	X(EXACT, N_("exact"))                                                                 \
	X(BOUNDED, N_("bounded"))     /* wrong by no more than what is said */                \
	X(ADVISORY, N_("advisory"))   /* a wish that something else may not heed */           \
	X(NONE, N_("not kept"))

#define PEN_PROMISES_OPENCL(X)                                                                                        \
	X("memory", 0, 0, EXACT, N_("every allocating call is charged before it reaches the driver; guarantees are set aside"), \
	  N_("to the byte for buffers, images, SVM and pipes; what the driver takes for itself (programs, printf "            \
	     "buffers) is not seen"),                                                                                        \
	  N_("make bench NAME=memory"))                                                                                      \
	X("compute", 0, 0, BOUNDED, N_("time gate in the tenant's process: token bucket for the cap, fair order for the guarantee"), \
	  N_("device time measured by the driver's timestamps, or by host time where they are too coarse"),                  \
	  N_("make bench NAME=share"))                                                                                       \
	X("bandwidth", 0, 0, EXACT, N_("token bucket over copies, fills and maps"),                                          \
	  N_("copies counted to the byte; what kernels move in memory is not seen through OpenCL"),                          \
	  N_("not measured yet"))                                                                                            \
	X("units", 0, 0, ADVISORY, N_("queues are made on a sub-device"),                                                    \
	  N_("only where the driver can partition by counts; elsewhere it has no effect, and the share of time holds all the same"), \
	  N_("tests of the layer on PoCL"))                                                                                  \
	X("class", 0, 0, BOUNDED, N_("a less urgent tenant gives nothing to the device while a more urgent one is busy"),    \
	  N_("waits for what is in flight: one chunk, or one whole command of a neighbour that cannot be cut"),              \
	  N_("make bench NAME=interference"))                                                                                \
	X("sla", 0, 0, BOUNDED, N_("earliest deadline first among tenants of equal rank"),                                   \
	  N_("at the borders of commands"),                                                                                  \
	  N_("make bench NAME=peers"))                                                                                       \
	X("isolation", 0, 0, ADVISORY, N_("co-operative: the gate runs in the tenant's own process"),                        \
	  N_("a program that attacks its own gate escapes its limits, but not into a neighbour's pages"),                    \
	  N_("docs/THREATS.md"))

#define PEN_ON_SIMGPU N_("on the simulated accelerator; not yet run on hardware")
#define PEN_PROMISES_CUDA(X)                                                                                          \
	X("memory", 0, 11020, EXACT, N_("every allocating call is charged before it reaches the driver; contexts and modules by the audit (NVML)"), \
	  N_("calls to the byte; what the audit finds, some readings later. This driver has neither pools nor memory of graphs"), PEN_ON_SIMGPU) \
	X("memory", 11020, 0, EXACT, N_("every allocating call is charged before it reaches the driver, pools and graphs by what it holds; "  \
					"contexts and modules by the audit (NVML)"),                                         \
	  N_("calls to the byte; what the audit finds, some readings later"), PEN_ON_SIMGPU)                                 \
	X("compute", 0, 0, BOUNDED, N_("time gate before each launch, copy and graph; device time by events"),               \
	  N_("what runs is not interrupted: wrong by one kernel, or one graph, which counts as one command"), PEN_ON_SIMGPU) \
	X("class", 0, 11070, BOUNDED,                                                                                        \
	  N_("a less urgent tenant gives nothing to the device while a more urgent one is busy; what it gave before waits there for a " \
	     "word, where the driver is set up to allow that"),                                                              \
	  N_("waits for one kernel or graph, a piece of a copy, or 0.25 ms of small kernels; without that set-up for a window of 0.4 ms, " \
	     "or one of those that is longer"), PEN_ON_SIMGPU)                                                               \
	X("class", 11070, 0, BOUNDED,                                                                                        \
	  N_("a less urgent tenant gives nothing to the device while a more urgent one is busy; what it gave before waits there for a " \
	     "word (cuStreamWaitValue32)"),                                                                                  \
	  N_("waits for one kernel or graph, a piece of a copy, or 0.25 ms of small kernels; with a neighbour that exports events or " \
	     "signals semaphores, for a window of 0.4 ms or one of those that is longer"), PEN_ON_SIMGPU)                     \
	X("bandwidth", 0, 0, EXACT, N_("token bucket over copies and fills"),                                                \
	  N_("copies counted to the byte; what kernels move in memory is not limited"), PEN_ON_SIMGPU)                       \
	X("sla", 0, 0, BOUNDED, N_("earliest deadline first among tenants of equal rank"),                                   \
	  N_("at the borders of commands"), PEN_ON_SIMGPU)                                                                   \
	X("units", 0, 12040, NONE, N_("this driver has no green contexts (CUDA 12.4 and newer have)"),                       \
	  N_("the share of time holds all the same"), PEN_ON_SIMGPU)                                                         \
	X("units", 12040, 0, ADVISORY, N_("a program that asks for the primary context gets a green context that has the granted ones"), \
	  N_("in the device's own steps, from the next context on; contexts that a program makes by cuCtxCreate run on all units"), \
	  PEN_ON_SIMGPU)                                                                                                     \
	X("isolation", 0, 0, ADVISORY, N_("co-operative: our libcuda.so.1 runs in the tenant's own process"),                \
	  N_("a program that opens the driver by its path, or is linked statically, goes past it; the audit then charges or reports it"), \
	  N_("docs/THREATS.md"))

/* Version of the driver interface that a driver of this version text brings: "535.183.01" -> 12020; 0 = not known. */
int pen_promises_cuda_version(const char *driver);
/*
 * Prints the rows for each interface and version among @devices (objects with key and apis[] or api, driver); without any, those of
 * OpenCL. @only: keys of interest, an array of objects with a key; NULL = all.
 */
void pen_promises_print(FILE *out, const json_t *devices, const json_t *only);
/* The same as JSON: an array of {api, version, driver, field, kind, mechanism, exactness, evidence}. New reference. */
json_t *pen_promises_json(const json_t *devices);

#endif
