/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cards by number, and their slots. A number stands in every ID that the kubelet has written down, so a card keeps it over restarts and
 * when others come and go: it is kept in the daemon's store, with what is needed to list the card's slots before it was found again.
 */
#include "base/auto.h"
#include "base/units.h"
#include "integration/kubelet/internal.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#define PREFIX "card/"

/* ---- IDs ----------------------------------------------------------------------------------------------------------- */

char *pen_kube_id(char buf[PEN_KUBE_ID_MAX], unsigned card, unsigned slot)
{
	snprintf(buf, PEN_KUBE_ID_MAX, "g%u-s%u", card % PEN_KUBE_CARDS, slot % PEN_KUBE_SLOTS);
	return buf;
}

/* At most two digits, without a zero in front: one spelling for one slot. */
static const char *number(const char *s, unsigned max, unsigned *ret)
{
	size_t len = strspn(s, "0123456789");
	if (!len || len > 2 || (len > 1 && *s == '0'))
		return NULL;
	*ret = len == 1 ? (unsigned)(s[0] - '0') : (unsigned)((s[0] - '0') * 10 + (s[1] - '0'));
	return *ret < max ? s + len : NULL;
}

int pen_kube_id_parse(const char *id, unsigned *ret_card, unsigned *ret_slot)
{
	unsigned card, slot;
	const char *s = *id == 'g' ? number(id + 1, PEN_KUBE_CARDS, &card) : NULL;
	if (s)
		s = s[0] == '-' && s[1] == 's' ? number(s + 2, PEN_KUBE_SLOTS, &slot) : NULL;
	if (!s || *s)
		return -EINVAL;
	*ret_card = card;
	*ret_slot = slot;
	return 0;
}

/* ---- numbers ------------------------------------------------------------------------------------------------------- */

const struct pen_kube_card *pen_kube_card(const struct pen_kube *k, unsigned n)
{
	for (size_t i = 0; i < k->n_cards; i++)
		if (k->card[i].n == n)
			return &k->card[i];
	return NULL;
}

static struct pen_kube_card *find(struct pen_kube *k, const char *key)
{
	for (size_t i = 0; i < k->n_cards; i++)
		if (!strcmp(k->card[i].key, key))
			return &k->card[i];
	return NULL;
}

/* The node of the card's memory, for the kubelet's Topology Manager. -1: not told, or the machine has one node. */
static int numa_of(const char *key)
{
	char path[96];
	int node = -1;
	if (strncmp(key, "pci:", 4))
		return -1;
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.32s/numa_node", key + 4);
	pen_auto_fclose FILE *f = fopen(path, "re");
	if (!f || fscanf(f, "%d", &node) != 1)
		return -1;
	return node;
}

/* A number that no card has; else that of one that is not there, whose slots nobody can have any more. */
static struct pen_kube_card *new_card(struct pen_kube *k)
{
	unsigned n = 0;
	while (n < PEN_KUBE_CARDS && pen_kube_card(k, n))
		n++;
	if (n < PEN_KUBE_CARDS) {
		k->card[k->n_cards] = (struct pen_kube_card){ .n = n };
		return &k->card[k->n_cards++];
	}
	for (size_t i = 0; i < k->n_cards; i++)
		if (!k->card[i].present)
			return &k->card[i];
	return NULL;
}

static void keep(struct pen_kube *k, const struct pen_kube_card *c)
{
	char name[32];
	json_t *o = json_pack("{s:s, s:s, s:I, s:i}", "key", c->key, "model", c->model, "mem_bytes", (json_int_t)c->mem_bytes,
			      "units", (int)c->units);
	pen_auto_free char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	snprintf(name, sizeof(name), PREFIX "%u", c->n);
	if (text)
		pen_service_keep(k->s, name, text);
}

static void restore_one(void *arg, const char *name, const char *text)
{
	struct pen_kube *k = arg;
	unsigned n;
	const char *end = !strncmp(name, PREFIX, strlen(PREFIX)) ? number(name + strlen(PREFIX), PEN_KUBE_CARDS, &n) : NULL;
	if (!end || *end || pen_kube_card(k, n) || k->n_cards == PEN_KUBE_CARDS)
		return;
	json_t *o = json_loads(text, 0, NULL);
	const char *key = json_string_value(json_object_get(o, "key")), *model = json_string_value(json_object_get(o, "model"));
	if (key && model && *key && strlen(key) < PEN_DEVKEY_MAX && !find(k, key)) {
		struct pen_kube_card *c = &k->card[k->n_cards++];
		*c = (struct pen_kube_card){ .n = n, .numa = numa_of(key),
					     .mem_bytes = (uint64_t)json_integer_value(json_object_get(o, "mem_bytes")),
					     .units = (uint32_t)json_integer_value(json_object_get(o, "units")) };
		snprintf(c->key, sizeof(c->key), "%s", key);
		snprintf(c->model, sizeof(c->model), "%s", model);
	}
	json_decref(o);
}

void pen_kube_cards_restore(struct pen_kube *k)
{
	pen_service_each_kept(k->s, restore_one, k);
}

static void take(struct pen_kube *k, const struct pen_service_device *d)
{
	struct pen_kube_card *c = find(k, d->key);
	if (!c && !d->found)   /* a tenant's word alone */
		return;
	if (!c) {
		c = new_card(k);
		if (!c)
			return;
		c->numa = numa_of(d->key);
		snprintf(c->key, sizeof(c->key), "%s", d->key);
	}
	c->present = d->found;
	c->lost = d->lost;
	c->drained = d->drained;
	c->reserve_bytes = d->reserve_bytes;
	if (!d->found)
		return;
	snprintf(c->model, sizeof(c->model), "%s", d->model);
	c->mem_bytes = d->mem_bytes;
	c->units = d->units;
	keep(k, c);
}

void pen_kube_cards_update(struct pen_kube *k)
{
	struct pen_service_device dev[PEN_KUBE_CARDS];
	size_t n = pen_service_devices(k->s, dev, PEN_KUBE_CARDS);
	for (size_t i = 0; i < k->n_cards; i++)
		k->card[i].present = false;
	for (size_t i = 0; i < n; i++)
		take(k, &dev[i]);
}

/* ---- profiles on cards ---------------------------------------------------------------------------------------------- */

static unsigned fits(uint64_t whole, uint64_t part)
{
	return part ? (unsigned)PEN_MIN(whole / part, (uint64_t)PEN_KUBE_SLOTS) : PEN_KUBE_SLOTS;
}

unsigned pen_kube_slots_on(const struct pen_config_profile *p, const struct pen_kube_card *c)
{
	const struct pen_contract *x = &p->contract;
	struct pen_service_device dev = { .key = c->key, .model = c->model };
	if (!pen_service_means(x, &dev))
		return 0;
	if (p->count)
		return p->count;
	uint64_t time = PEN_MAX(x->compute.guaranteed, x->cls == PEN_CLASS_LATENCY ? (uint64_t)x->duty_ppm : 0);
	unsigned n = fits(PEN_PPM, time);
	if (c->mem_bytes) {
		uint64_t mem = c->mem_bytes > c->reserve_bytes ? c->mem_bytes - c->reserve_bytes : 0;
		unsigned by_memory = fits(mem, x->memory.guaranteed);
		n = PEN_MIN(n, by_memory);
	}
	unsigned by_units = fits(x->units.kind == PEN_UNITS_PERCENT ? PEN_PPM : c->units, x->units.range.guaranteed);
	return PEN_MIN(n, by_units);
}

static void scale(struct pen_range64 *r, unsigned n, uint64_t most)
{
	if (r->guaranteed)
		r->guaranteed *= n;
	if (r->cap == PEN_UNLIMITED)
		return;
	most = PEN_MAX(most, r->guaranteed);   /* a guarantee that is too large is refused, not cut */
	r->cap = PEN_MIN(r->cap * n, most);
}

void pen_kube_contract(const struct pen_config_profile *p, const struct pen_kube_card *c, unsigned n, struct pen_contract *ret)
{
	*ret = p->contract;
	ret->name[0] = 0;
	snprintf(ret->device, sizeof(ret->device), "%s", c->key);
	ret->set_mask |= 1u << PEN_FIELD_device | 1u << PEN_FIELD_name;
	scale(&ret->memory, n, PEN_UNLIMITED);
	scale(&ret->compute, n, PEN_PPM);
	scale(&ret->bandwidth, n, PEN_UNLIMITED);
	scale(&ret->units.range, n, ret->units.kind == PEN_UNITS_PERCENT ? PEN_PPM : PEN_UNLIMITED);
	ret->duty_ppm = PEN_MIN(ret->duty_ppm * n, PEN_PPM);
}
