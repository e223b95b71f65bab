/* SPDX-License-Identifier: Apache-2.0 */
/* Devices by the names that people use: key, key without what is before the first colon, model, or whole words of one of these. */
#include "base/auto.h"
#include "contract/text.h"
#include "daemon/daemon.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#define NAMED 4   /* of an ambiguous name */

struct matches {
	struct pen_device *first, *other;   /* other: of another model, or @first is only meant by its key */
	bool by_model;
	char list[320];
	size_t len, n;
};

static void note(struct matches *m, struct pen_device *dev, bool by_model)
{
	if (!m->first) {
		m->first = dev;
		m->by_model = by_model;
	} else if (!m->by_model || !by_model || strcasecmp(m->first->model, dev->model)) {
		m->other = dev;
	}
	if (m->n++ < NAMED && m->len < sizeof(m->list))
		m->len += (size_t)snprintf(m->list + m->len, sizeof(m->list) - m->len, "%s'%s' (%.40s)", m->n > 1 ? ", " : "", dev->key,
					   dev->model);
}

/* As whole words: "T4" of "Tesla T4", and not the x of "avx512", by which somebody would drain a card. */
static bool has_words(const char *text, const char *name)
{
	size_t n = strlen(name);
	for (const char *at = text; (at = strcasestr(at, name)); at++) {
		bool begins = at == text || !isalnum((unsigned char)at[-1]) || !isalnum((unsigned char)name[0]);
		bool ends = !at[n] || !isalnum((unsigned char)at[n]) || !isalnum((unsigned char)name[n - 1]);
		if (begins && ends && n > 1)
			return true;
	}
	return false;
}

static bool is_found(const struct pen_device *dev)
{
	return dev && dev->state != PEN_DEVICE_UNPROBED;
}

int pen_device_resolve(struct pen_daemon *d, char *name, size_t n, struct pen_err *err)
{
	struct pen_contract c = { .device = "" };
	struct matches m = { .first = NULL };
	if (!*name || snprintf(c.device, sizeof(c.device), "%s", name) >= (int)sizeof(c.device))
		return 0;
	/* What a tenant told of is left out: it could take a name from others, the whole of it as a part. */
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		if (is_found(d->device[i]) && pen_contract_means(&c, d->device[i]))
			return 0;
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++) {
		struct pen_device *dev = d->device[i];
		bool by_model = is_found(dev) && has_words(dev->model, name);
		if (by_model || (is_found(dev) && has_words(dev->key, name)))
			note(&m, dev, by_model);
	}
	if (!m.first)
		return 0;   /* nobody's: what is done about that differs */
	if (m.other)
		return pen_err_x(err, -EINVAL, N_("device: '%s' may be %s%s; say which one"), name, m.list, m.n > NAMED ? ", ..." : "");
	const char *whole = m.by_model ? m.first->model : m.first->key;
	if (strlen(whole) < n)
		strcpy(name, whole);
	return 0;
}

int pen_device_named(struct pen_daemon *d, const char *name, struct pen_device **ret_dev, struct pen_err *err)
{
	struct pen_device *found = NULL;
	struct pen_contract c = { .device = "" };
	if (snprintf(c.device, sizeof(c.device), "%s", name) >= (int)sizeof(c.device) || !*name)
		return pen_err_x(err, -ENOENT, N_("device: there is none of that name"));
	int r = pen_device_resolve(d, c.device, sizeof(c.device), err);
	if (r < 0)
		return r;
	bool one_was_found = false;
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		one_was_found |= is_found(d->device[i]) && pen_contract_means(&c, d->device[i]);
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++) {
		struct pen_device *dev = d->device[i];
		if (!dev || !pen_contract_means(&c, dev) || (one_was_found && !is_found(dev)))
			continue;
		if (!strcasecmp(c.device, dev->key)) {
			found = dev;
			break;
		}
		if (found)
			return pen_err_x(err, -EINVAL, N_("device: '%s' is '%s' as well as '%s'; say which one"), name, found->key, dev->key);
		found = dev;
	}
	if (!found)
		return pen_err_x(err, -ENOENT, N_("device: there is no '%s'; `penstock device ls` lists what is"), name);
	*ret_dev = found;
	return 0;
}
