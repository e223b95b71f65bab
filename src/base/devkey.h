/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BASE_DEVKEY_H
#define PEN_BASE_DEVKEY_H
/*
 * Name of a physical device, computed alike by the daemon's probe and by every shim: "pci:0000:65:00.0" where the API
 * tells the address, else "uuid:<32 hex>", else "<api>:<platform>/<name>#<n>" with n counting equal names in enumeration
 * order. Never an ordinal across unlike devices. Characters outside [A-Za-z0-9._-] become '-'.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEN_DEVKEY_MAX 128

struct pen_devkey_facts {
	const char *api, *platform, *name;   /* borrowed; not NULL */
	int has_pci;
	uint32_t pci_domain, pci_bus, pci_device, pci_function;
	int has_uuid;
	uint8_t uuid[16];
	uint32_t nth;                        /* among devices with the same platform and name */
};

/* Writes at most PEN_DEVKEY_MAX bytes with the terminator. Return: @buf. */
char *pen_devkey(char buf[PEN_DEVKEY_MAX], const struct pen_devkey_facts *f);

/* Characters of one alone, at least one: it goes into JSON, metrics and terminals as it is. Reads PEN_DEVKEY_MAX bytes at most. */
bool pen_devkey_is_valid(const char *key);

/* "GPU-" or "MIG-" and 32 hexadecimal digits in groups, as NVIDIA writes a UUID, into @uuid. False: another form. */
bool pen_devkey_uuid(const char *text, uint8_t uuid[16]);

#endif
