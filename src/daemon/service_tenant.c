/* SPDX-License-Identifier: Apache-2.0 */
/* Tenants of integrations. What the daemon itself keeps of them lies among the owner's notes, under "tenant/NAME". */
#include "base/auto.h"
#include "contract/text.h"
#include "daemon/service_internal.h"
#include "daemon/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define PREFIX "tenant/"

/* ---- restart ------------------------------------------------------------------------------------------------------ */

void pen_owner_keep(struct pen_daemon *d, const struct pen_tenant *t)
{
	if (!*t->owner || !d->store)
		return;
	char key[PEN_NAME_MAX + sizeof(PREFIX)];
	snprintf(key, sizeof(key), PREFIX "%s", t->name);
	json_t *o = json_pack("{s:b, s:s, s:o}", "lapsed", t->lapsed, "note", t->note ? t->note : "", "labels",
			      t->labels ? json_incref(t->labels) : json_object());
	pen_auto_free char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	if (text && strlen(text) < PEN_NOTE_TEXT_MAX)
		pen_store_note(d->store, t->owner, t->name, key, text);
}

/* @n borrows texts of @d->notes, which are taken out of it by nobody: they are few and only read at the start. */
void pen_owner_restore(struct pen_daemon *d, const char *tenant, struct pen_tenant_new *n)
{
	char key[PEN_NAME_MAX + sizeof(PREFIX)];
	const char *owner;
	json_t *notes;
	snprintf(key, sizeof(key), PREFIX "%s", tenant);
	json_object_foreach(d->notes, owner, notes) {
		json_t *text = json_object_get(notes, key);
		json_t *o = text ? json_loads(json_string_value(text), 0, NULL) : NULL;
		if (!o)
			continue;
		n->owner = owner;
		n->wait = false;
		n->lapsed = json_is_true(json_object_get(o, "lapsed"));
		/* Parsed in place of the text, so that what is borrowed lives as long. */
		json_object_set_new(notes, key, o);
		n->note = json_string_value(json_object_get(o, "note"));
		n->labels = json_object_get(o, "labels");
		if (!json_is_object(n->labels))
			n->labels = NULL;
		return;
	}
}

/* ---- by name ------------------------------------------------------------------------------------------------------ */

static struct pen_tenant *own(struct pen_service *s, const char *name)
{
	struct pen_tenant *t = pen_tenant_find(s->d, name);
	return t && t->state != PEN_TENANT_ENDED && !strcmp(t->owner, s->ops->name) ? t : NULL;
}

static void describe(const struct pen_tenant *t, struct pen_service_tenant *ret)
{
	*ret = (struct pen_service_tenant){ .name = t->name, .dir = t->dir, .note = t->note ? t->note : "", .lapsed = t->lapsed };
	const struct pen_client *c;
	DL_FOREACH(t->clients, c)
		ret->clients += c->greeted;
}

int pen_service_tenant_make(struct pen_service *s, const struct pen_contract *c, bool lapsed, const char *note,
			    struct pen_err *err)
{
	struct pen_tenant_new n = { .contract = *c, .owner = s->ops->name, .lapsed = lapsed, .note = note };
	struct pen_tenant *t;
	return pen_tenant_create(s->d, &n, &t, err);
}

int pen_service_tenant_look(struct pen_service *s, const char *name, struct pen_service_tenant *ret)
{
	const struct pen_tenant *t = own(s, name);
	if (!t)
		return -ENOENT;
	describe(t, ret);
	return 0;
}

void pen_service_tenants(struct pen_service *s, void (*fn)(void *arg, const struct pen_service_tenant *t), void *arg)
{
	struct pen_tenant *t, *next;
	for (t = s->d->tenants; t; t = next) {
		next = t->hh.next;
		if (t->state == PEN_TENANT_ENDED || strcmp(t->owner, s->ops->name))
			continue;
		struct pen_service_tenant v;
		describe(t, &v);
		fn(arg, &v);
	}
}

void pen_service_all_tenants(struct pen_service *s, void (*fn)(void *arg, const struct pen_service_tenant *t), void *arg)
{
	for (const struct pen_tenant *t = s->d->tenants; t; t = t->hh.next) {
		if (t->state == PEN_TENANT_ENDED || t->state == PEN_TENANT_WAITING)
			continue;
		struct pen_service_tenant v;
		describe(t, &v);
		fn(arg, &v);
	}
}

int pen_service_tenant_hold(struct pen_service *s, const char *name, struct pen_err *err)
{
	struct pen_tenant *t = own(s, name);
	return t ? pen_tenant_hold(s->d, t, err) : pen_err_x(err, -ENOENT, N_("the contract has ended"));
}

int pen_service_tenant_lapse(struct pen_service *s, const char *name)
{
	struct pen_tenant *t = own(s, name);
	return t ? pen_tenant_lapse(s->d, t) : -ENOENT;
}

void pen_service_tenant_end(struct pen_service *s, const char *name, const char *why)
{
	struct pen_tenant *t = own(s, name);
	if (t)
		pen_tenant_end(s->d, t, why);
}

int pen_service_tenant_note(struct pen_service *s, const char *name, const char *note)
{
	struct pen_tenant *t = own(s, name);
	char *copy = t ? strdup(note) : NULL;
	if (!copy)
		return t ? -ENOMEM : -ENOENT;
	free(t->note);
	t->note = copy;
	pen_owner_keep(s->d, t);
	return 0;
}

int pen_service_tenant_label(struct pen_service *s, const char *name, const char *key, const char *value)
{
	struct pen_tenant *t = own(s, name);
	if (!t)
		return -ENOENT;
	if (!*key || strspn(key, "abcdefghijklmnopqrstuvwxyz_") != strlen(key))
		return -EINVAL;
	if (!t->labels && !(t->labels = json_object()))
		return -ENOMEM;
	char clean[256];
	if (value) {   /* it goes to terminals */
		snprintf(clean, sizeof(clean), "%s", value);
		pen_text_clean(clean);
		value = clean;
	}
	const char *had = json_string_value(json_object_get(t->labels, key));
	if ((!value && !had) || (value && had && !strcmp(had, value)))
		return 0;
	if (!value)
		json_object_del(t->labels, key);
	else if (json_object_set_new(t->labels, key, json_string(value)) < 0)   /* no UTF-8, or no memory */
		return -EINVAL;
	pen_owner_keep(s->d, t);
	return 0;
}

/* ---- room --------------------------------------------------------------------------------------------------------- */

bool pen_service_means(const struct pen_contract *c, const struct pen_service_device *dev)
{
	struct pen_device d = { .index = 0 };   /* only what pen_contract_means() looks at */
	snprintf(d.key, sizeof(d.key), "%s", dev->key);
	snprintf(d.model, sizeof(d.model), "%s", dev->model);
	return pen_contract_means(c, &d);
}

unsigned pen_service_room(struct pen_service *s, const char *device, const struct pen_contract *c, unsigned most)
{
	const struct pen_device *dev = pen_device_find(s->d, device);
	size_t max = HASH_COUNT(s->d->tenants) + most;
	pen_auto_free const struct pen_contract **held = calloc(max + 1, sizeof(*held));
	pen_auto_free uint64_t *taken = calloc(max + 1, sizeof(*taken));
	size_t n = 0;
	if (!dev || !held || !taken)
		return 0;
	for (const struct pen_tenant *t = s->d->tenants; t; t = t->hh.next) {
		const struct pen_place *p = t->place[dev->index];
		if (!(t->covers >> dev->index & 1))
			continue;
		taken[n] = p ? pen_place_verdict(s->d, p).mem_taken_bytes : 0;
		held[n++] = &t->contract;
	}
	uint64_t reserve = PEN_MIN(dev->policy.reserve, dev->mem_bytes);
	struct pen_capacity cap = { .memory = dev->mem_bytes ? dev->mem_bytes : PEN_UNLIMITED,
				    .reserve = reserve, .units = dev->units, .taken = taken };
	/* Names that no tenant has: what is asked for replaces neither a tenant nor its own copies. */
	struct pen_contract new = *c, copy = *c;
	strcpy(new.name, "?");
	strcpy(copy.name, "!");
	for (unsigned i = 0; i < most; i++)
		held[n + i] = &copy;
	unsigned fit = 0, too_many = most + 1;   /* halved: each look adds up all that is held */
	while (fit + 1 < too_many) {
		unsigned half = fit + (too_many - fit) / 2;
		if (pen_contract_admit(held, n + half - 1, &cap, &new, NULL) == 0)
			fit = half;
		else
			too_many = half;
	}
	return fit;
}
