/* SPDX-License-Identifier: Apache-2.0 */
#include "base/devkey.h"

#include <stdio.h>
#include <string.h>

static void clean(char *dst, size_t n, const char *src)
{
	size_t i = 0;
	for (; src[i] && i + 1 < n; i++) {
		char c = src[i];
		int keep = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
			   c == '_' || c == '-';
		dst[i] = keep ? c : '-';
	}
	dst[i] = 0;
}

char *pen_devkey(char buf[PEN_DEVKEY_MAX], const struct pen_devkey_facts *f)
{
	if (f->has_pci) {
		snprintf(buf, PEN_DEVKEY_MAX, "pci:%04x:%02x:%02x.%x", f->pci_domain, f->pci_bus, f->pci_device,
			 f->pci_function);
		return buf;
	}
	if (f->has_uuid) {
		size_t n = (size_t)snprintf(buf, PEN_DEVKEY_MAX, "uuid:");
		for (unsigned i = 0; i < 16; i++)
			n += (size_t)snprintf(buf + n, PEN_DEVKEY_MAX - n, "%02x", f->uuid[i]);
		return buf;
	}
	char api[16], platform[40], name[56];
	clean(api, sizeof(api), f->api);
	clean(platform, sizeof(platform), f->platform);
	clean(name, sizeof(name), f->name);
	snprintf(buf, PEN_DEVKEY_MAX, "%s:%s/%s#%u", api, platform, name, f->nth);
	return buf;
}

bool pen_devkey_is_valid(const char *key)
{
	size_t i = 0;
	for (; i < PEN_DEVKEY_MAX && key[i]; i++) {
		char c = key[i];
		bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
		if (!plain && !strchr("._-:/#", c))
			return false;
	}
	return i > 0 && i < PEN_DEVKEY_MAX;
}

bool pen_devkey_uuid(const char *text, uint8_t uuid[16])
{
	static const char digits[] = "0123456789abcdef";
	unsigned n = 0;
	if ((strncmp(text, "GPU-", 4) && strncmp(text, "MIG-", 4)) || strlen(text) != 40)
		return false;
	for (const char *s = text + 4; *s; s++) {
		if (*s == '-')
			continue;
		const char *at = strchr(digits, *s | 0x20);
		if (!at || n == 32)
			return false;
		uuid[n / 2] = (uint8_t)(n % 2 ? uuid[n / 2] | (unsigned)(at - digits) : (unsigned)(at - digits) << 4);
		n++;
	}
	return n == 32;
}
