/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BACKEND_BACKEND_H
#define PEN_BACKEND_BACKEND_H
/*
 * Discovery of devices through the vendors' own libraries, each opened with dlopen and never linked.
 *
 * Runs in penstock-probe, a process of its own: vendor code may crash, hang, start threads or take tens of MB (an OpenCL
 * loader with PoCL: 65 MB). The daemon reads one JSON object from the probe's standard output.
 *
 * Threads: one. Units: bytes, counts. Lifetime: strings lie in the structs. Library: base, libdl.
 */
#include "base/devkey.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define PEN_BACKEND_DEVICES_MAX 64
#define PEN_BACKEND_TEXT 128

struct pen_backend_device {
	char key[PEN_DEVKEY_MAX];           /* base/devkey.h: the same that every shim computes */
	char model[PEN_BACKEND_TEXT];       /* the vendor's name of it, printable ASCII or UTF-8 as the vendor gives it */
	char platform[PEN_BACKEND_TEXT];
	char driver[PEN_BACKEND_TEXT];      /* version text, "" = not told */
	uint64_t mem_bytes;                 /* 0 = not told */
	uint32_t units;                     /* compute units, 0 = not told */
};

struct pen_backend {
	const char *api;                    /* constant, e.g. "opencl" */
	/**
	 * discover - devices in the library's own order
	 * @v:     room for @room devices
	 * Mandatory. May crash or hang with the vendor's library: call it in a process that can be lost.
	 * Return: number of devices; -ENOENT the library is not there; -ENXIO it is not, though a card of the vendor is; -ELIBBAD it lacks a symbol; -EIO a call failed.
	 */
	int (*discover)(struct pen_backend_device *v, size_t room, struct pen_err *err);
};

extern const struct pen_backend pen_backend_nvml, pen_backend_opencl;

/* Iterates over the backends: i = 0, 1, ... until NULL. */
const struct pen_backend *pen_backend_get(size_t i);

#endif
