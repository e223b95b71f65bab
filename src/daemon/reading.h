/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_READING_H
#define PEN_DAEMON_READING_H
/*
 * One line of `penstock-probe --watch`: what a vendor's library says of its devices and of the processes on them. The line comes
 * from a process that runs vendor code and may be rubbish: what is out of its range counts as not told. Pure; any thread.
 */
#include "base/devkey.h"
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PEN_READING_SCHEMA "penstock-probe/watch/v1"
#define PEN_READING_PROCESSES 256          /* of one device; those with most memory are kept */
#define PEN_READING_NONE INT32_C(-1)       /* of a percentage and the like: not told */

struct pen_reading_process {
	pid_t pid;                         /* > 0, each once */
	bool has_mem;
	uint64_t mem_bytes;
	int32_t sm_util, enc_util, dec_util;   /* per cent of the device, or PEN_READING_NONE */
};

struct pen_reading_device {
	char key[PEN_DEVKEY_MAX];
	bool has_used, lost;
	uint64_t mem_used_bytes;           /* of the whole device */
	int32_t gpu_util, mem_util, enc_util, dec_util;
	int32_t temperature_c, power_mw;
	int32_t xid;                       /* last error code of the driver (NVIDIA: Xid) that was seen, or PEN_READING_NONE */
	int32_t xid_count;                 /* how many were, since the watch began; PEN_READING_NONE = it does not count */
	bool has_processes;                /* false: the library did not say which there are */
	unsigned n_processes, n_left_out;
	struct pen_reading_process process[PEN_READING_PROCESSES];
};

/*
 * Return: the line's devices, an array (borrowed from *@ret_root, which the caller frees); NULL with @err. *@ret_error: why there are
 * none (borrowed likewise), NULL = nothing is wrong.
 */
const json_t *pen_reading_open(const char *line, size_t len, json_t **ret_root, const char **ret_error, struct pen_err *err);
/* One of them. Return: 0; -EINVAL it has no key. */
int pen_reading_device(const json_t *o, struct pen_reading_device *ret);

#endif
