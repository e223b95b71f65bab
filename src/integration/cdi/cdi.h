/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_INTEGRATION_CDI_H
#define PEN_INTEGRATION_CDI_H
/*
 * Container Device Interface: one file that names every tenant as a device, so that podman, containerd, CRI-O and docker start a
 * container under a contract with `--device penstock.io/tenant=NAME`.
 *
 * Threads: the daemon's main loop; the file is written by its helper thread. Source of the format: the Container Device Interface
 * specification 1.0 (github.com/cncf-tags/container-device-interface), of which what is used here exists since 0.3.0.
 */
#include "daemon/service.h"

extern const struct pen_integration pen_cdi_integration;

#define PEN_CDI_KIND "penstock.io/tenant"
#define PEN_CDI_DIR "/var/run/cdi"
#define PEN_CDI_FILE "penstock.json"

struct pen_cdi_device {
	char name[PEN_NAME_MAX + 1];
	json_t *edits;
};
/* May a device be called that? A contract's name may end in a sign, which one of a device may not. */
bool pen_cdi_name_is_valid(const char *name);
/* Return: 0; -ENOMEM. */
int pen_cdi_device_set(struct pen_cdi_device *d, const char *name, const struct pen_service_edit *edits, size_t n);
/* The file's text for tenants and what each needs, and what all do (NULL: nothing), whose references it takes: malloc'ed, NULL without memory. */
char *pen_cdi_text(json_t *common, const struct pen_cdi_device *v, size_t n);
/* Writes @text to @dir/PEN_CDI_FILE, whole or not at all; NULL removes it. Makes no directory above @dir. Return: 0; negative errno. */
int pen_cdi_write(const char *dir, const char *text);

#endif
