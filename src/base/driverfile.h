/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BASE_DRIVERFILE_H
#define PEN_BASE_DRIVERFILE_H
/*
 * Where a vendor's library lies, when a file of ours goes by the same name. It is looked for where the loader would have found
 * it without us: the folders of LD_LIBRARY_PATH, then those that vendors and container runtimes use. Where our file lies over
 * the driver's own name, the driver is beside it under its full version: so names such as libcuda.so.535.183.01 come last.
 * What is one of us (another build, a trimmed copy, ourselves) is known by a note in the file, and passed over.
 *
 * Threads: any; nothing is kept. The C library alone.
 */
#include <stdbool.h>
#include <stddef.h>

/* An ELF note of this owner marks a file of ours that has a vendor's name. */
#define PEN_DRIVERFILE_NOTE "Penstock"

/*
 * Calls @take with each regular file that may be the vendor's @soname ("libcuda.so.1"), best first, until it returns true.
 * @list: LD_LIBRARY_PATH, or NULL. Return: whether one was taken.
 */
bool pen_driverfile_each(const char *soname, const char *list, bool (*take)(void *arg, const char *path), void *arg);
/* The first of them, into @buf of PATH_MAX bytes, which is as it was if there is none. Return: whether there is one. */
bool pen_driverfile_first(const char *soname, const char *list, char *buf);
/* A library of this architecture, and none of us? */
bool pen_driverfile_may_be(const char *path);
/* Has it our note? False also for what is no library. */
bool pen_driverfile_is_ours(const char *path);

#endif
