/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_DRIVER_FILES_H
#define PEN_DAEMON_DRIVER_FILES_H
/*
 * The user-space half of NVIDIA's driver on this machine: what a program in a container needs of it, which must be of the very
 * version of the kernel's half and so is never part of an image. Found by names alone; nothing of it is loaded.
 *
 * Threads: one. Cost: reads one or two folders of the system.
 */
#include "contract/config.h"

#include <stddef.h>

struct pen_driver_file {
	char name[64];                          /* as programs ask for it: "libcuda.so.535.183.01", "libnvidia-nvvm.so.4" */
	char path[PEN_CONFIG_PATH_MAX + 1];     /* the file itself, no link */
};
#define PEN_DRIVER_FILES_MAX 48

/*
 * Sorted by name. What has one name in two folders is there once. @list: LD_LIBRARY_PATH, or NULL: looked at before the system's folders.
 * Return: how many; 0: there is no driver.
 */
size_t pen_driver_files(const char *list, struct pen_driver_file *ret, size_t max);

#endif
