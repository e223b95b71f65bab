/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_LIB_LIB_H
#define PEN_LIB_LIB_H
/*
 * What the files of libpenstock share.
 *
 * The library has a gate of its own linked in, for programs that drive a device without a library of ours
 * (attach.c). Where such a library is in the process, its gate is the one that counts. Both are found
 * alike, and spoken to through their tables (gate/gate.h).
 *
 * Threads: any. No constructor, no thread. Everything that is kept is a word that is only ever filled in,
 * so that a fork at any moment leaves nothing shut.
 */
#include "base/mark.h"
#include "gate/gate.h"

#include <penstock/error.h>

#define PEN_EXPORT __attribute__((visibility("default")))

/* PENSTOCK_OK; _NO_CONTRACT; _REFUSED. Looks once in a process, and is a few nanoseconds afterwards. */
int pen_lib_managed(void);

#define PEN_LIB_NAME_MAX 64
/* Of the tenant; "" where it cannot be told. */
void pen_lib_name(char name[PEN_LIB_NAME_MAX]);

#define PEN_DOORS 8

/* The tables found so far, the n-th of them; NULL behind the last. */
const struct pen_gate_door *pen_door(unsigned n);
/*
 * Looks for more, if libraries were loaded since the last look. Takes the loader's lock, which nobody holds
 * for long.
 */
void pen_doors_look(void);
/* The same when it is time to: a look costs 60 ns when nothing has changed. */
void pen_doors_look_at(uint64_t now_ns);

#endif
