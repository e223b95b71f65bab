/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PENSTOCK_REQUEST_H
#define PENSTOCK_REQUEST_H
/*
 * Marks of requests: the application says where a request begins and where it ends.
 *
 *   penstock_request_t r;
 *   penstock_request_begin(&r);
 *   ... decode, copy, launch, wait, answer ...
 *   penstock_request_end(r);
 *
 * Response times (P50, P90, P99 and the count of missed targets in `penstock ps -o json`, `penstock top`
 * and the metrics) are then those of what was marked, host time included. A process that marks nothing has
 * its requests guessed: from the first command on an idle device until all is done. From its first mark on,
 * nothing of a process is guessed any more; a child of fork() that marks nothing is guessed as before.
 *
 * Where a request counts: on each device under the contract that the process gave work to between begin and
 * end, as far as that can be told, else on all that it uses. With one device, as usual, on that. A request
 * in which a kernel ran for the first time is not counted, since drivers compile it then.
 *
 * Cost: about two readings of the clock. No system call, no lock, no wait, but for the first mark of a
 * process and, once each 100 ms, a look at the list of loaded libraries. Without a contract a mark is a few
 * nanoseconds and does nothing.
 *
 * Threads: any, at once; a request may end in another thread than it began in. Not in a signal handler. A
 * request that is open when the process forks is the parent's alone; the child's own marks count for the
 * child. exec() and the end of a process forget what is open.
 */
#include <penstock/error.h>

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef uint64_t penstock_request_t;   /* 0 is no request */

#define PENSTOCK_REQUESTS_MAX 256      /* open at once in a process */

/*
 * A request begins now. @ret_request: its handle; 0 on failure, which penstock_request_end() takes as well,
 * so that a program need not look at the result.
 * Return: 0; PENSTOCK_ERR_NO_CONTRACT; _REFUSED the tenant directory cannot be opened; _TOO_MANY; _INVALID
 * @ret_request is NULL; _FAILED.
 */
int penstock_request_begin(penstock_request_t *ret_request);

/*
 * It is answered now. The handle is good for nothing afterwards.
 * Return: 0; PENSTOCK_ERR_NOT_OPEN; _NO_DEVICE ended, and counted nowhere, since the process uses no device
 * under its contract; _NO_CONTRACT.
 */
int penstock_request_end(penstock_request_t request);

/* It is given up and not to be counted. Return: 0; PENSTOCK_ERR_NOT_OPEN; _NO_CONTRACT. */
int penstock_request_cancel(penstock_request_t request);

#ifdef __cplusplus
}
#endif

#endif
