/* SPDX-License-Identifier: Apache-2.0 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/log.h"
#include "board/mem.h"
#include "board/page.h"
#include "daemon/daemon.h"
#include "daemon/drain.h"
#include "daemon/service.h"
#include "daemon/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const char *const state_name[] = {
#define X(id, name) name,
	PEN_DEVICE_STATES(X)
#undef X
};

const char *pen_device_state_name(const struct pen_device *dev)
{
	return state_name[dev->drained && dev->state != PEN_DEVICE_LOST ? PEN_DEVICE_DRAINED : dev->state];
}

/* FNV-1a: the number of a device is the same after a restart, so that pages that come back name the right one. */
static uint64_t id_of(const char *key)
{
	uint64_t h = UINT64_C(14695981039346656037);
	for (const char *s = key; *s; s++)
		h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
	return h ? h : 1;
}

struct pen_device *pen_device_find(struct pen_daemon *d, const char *key)
{
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		if (d->device[i] && !strcmp(d->device[i]->key, key))
			return d->device[i];
	return NULL;
}

void pen_device_configure(struct pen_daemon *d, struct pen_device *dev)
{
	const char *colon = strchr(dev->key, ':');
	const char *names[] = { dev->key, colon ? colon + 1 : dev->key, dev->model };
	dev->policy = pen_config_policy(&d->cfg, names, PEN_ARRAY_LEN(names));
	struct pen_table_device *t = dev->table;
	pen_lock(&d->table->lock);
	t->policy = dev->policy;
	t->id = dev->id;
	t->mem_bytes = dev->mem_bytes;
	t->units = dev->units;
	t->lost = dev->state == PEN_DEVICE_LOST;
	pen_unlock(&d->table->lock);
	pen_services_poke(d, PEN_SERVICE_DEVICES);
}

static int add(struct pen_daemon *d, const char *key, struct pen_device **ret_dev)
{
	unsigned i = 0;
	while (i < PEN_DAEMON_DEVICES && d->device[i])
		i++;
	if (i == PEN_DAEMON_DEVICES)
		return -ENOSPC;
	pen_auto_free struct pen_device *dev = calloc(1, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	dev->table = pen_locked_alloc(sizeof(*dev->table));
	if (!dev->table)
		return -ENOMEM;
	dev->index = i;
	dev->id = id_of(key);
	snprintf(dev->key, sizeof(dev->key), "%s", key);
	pen_drain_recall(d, dev);
	d->device[i] = dev;
	d->n_devices++;
	*ret_dev = PEN_TAKE_PTR(dev);
	return 0;
}

/* Text of a vendor or a tenant: goes into JSON and on terminals. */
static void copy_text(char *buf, size_t n, const char *text)
{
	snprintf(buf, n, "%s", text);
	for (char *s = buf; *s; s++)
		if ((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f)
			*s = '?';
}

const struct pen_device_api *pen_device_mem_api(const struct pen_device *dev)
{
	for (unsigned i = 0; dev->mem_bytes && i < dev->n_apis; i++)
		if (dev->api[i].mem_bytes == dev->mem_bytes)
			return &dev->api[i];
	return NULL;
}

/* The smaller of two figures; 0 is none. */
static uint64_t least(uint64_t a, uint64_t b)
{
	return !a || (b && b < a) ? b : a;
}

/* Return: it is another one than those that are known. */
static bool learn_api(struct pen_device *dev, const struct pen_device_facts *f)
{
	unsigned i = 0;
	while (i < dev->n_apis && strcmp(dev->api[i].name, f->api))
		i++;
	if (i == PEN_DEVICE_APIS)
		return false;
	bool is_new = i == dev->n_apis;
	dev->n_apis = PEN_MAX(dev->n_apis, i + 1);
	struct pen_device_api *a = &dev->api[i];
	copy_text(a->name, sizeof(a->name), f->api);
	copy_text(a->driver, sizeof(a->driver), f->driver ? f->driver : "");
	a->mem_bytes = f->mem_bytes;
	a->units = f->units;
	dev->mem_bytes = 0;
	dev->units = 0;
	for (i = 0; i < dev->n_apis; i++) {
		dev->mem_bytes = least(dev->mem_bytes, dev->api[i].mem_bytes);
		dev->units = (uint32_t)least(dev->units, dev->api[i].units);
	}
	return is_new;
}

int pen_device_learn(struct pen_daemon *d, const struct pen_device_facts *f, enum pen_device_state state,
		     struct pen_device **ret_dev)
{
	struct pen_device *dev = pen_device_find(d, f->key);
	bool is_new = !dev;
	if (!dev) {
		int r = add(d, f->key, &dev);
		if (r < 0)
			return r;
	}
	/* What the probe says outweighs what a tenant claims. */
	bool is_second = !is_new && state == PEN_DEVICE_OK && dev->state != PEN_DEVICE_UNPROBED, is_other = false;
	if (is_new || state == PEN_DEVICE_OK) {
		if (!is_second) {
			copy_text(dev->model, sizeof(dev->model), f->model);
			dev->n_apis = 0;
		}
		is_other = learn_api(dev, f);
		if (dev->state != PEN_DEVICE_LOST)   /* the audit says when it is there again */
			dev->state = state;
	}
	pen_device_configure(d, dev);
	if (is_new) {
		pen_lock(&d->table->lock);
		d->table->device[dev->index] = dev->table;
		pen_unlock(&d->table->lock);
		pen_event(d, PEN_EVENT_DEVICE, NULL, dev, "%s%sdevice '%s' with %llu MiB, %u units", f->api, *f->api ? " " : "",
			  dev->model, (unsigned long long)(dev->mem_bytes >> 20), dev->units);
	} else if (is_second && is_other) {
		pen_event(d, PEN_EVENT_DEVICE, NULL, dev, "%s is also a device of %s, with %llu MiB", dev->key, f->api,
			  (unsigned long long)(f->mem_bytes >> 20));
	}
	*ret_dev = dev;
	return 0;
}

void pen_device_free_all(struct pen_daemon *d)
{
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++) {
		struct pen_device *dev = d->device[i];
		if (!dev)
			continue;
		d->device[i] = NULL;
		pen_audit_free(dev);
		munmap(dev->table, sizeof(*dev->table));
		free(dev);
	}
}

/* ---- places ---------------------------------------------------------------------------------------------------- */

static struct pen_page_id page_id(const struct pen_daemon *d, const struct pen_device *dev, uint32_t slot)
{
	struct pen_page_id id = { .slot = slot, .device_id = dev->id };
	memcpy(id.boot_id, d->boot, sizeof(id.boot_id));
	return id;
}

static int pick_slot(const struct pen_device *dev, int want)
{
	if (want >= 0)
		return want < PEN_TENANT_SLOTS && !dev->slot[want] ? want : -EBUSY;
	for (int i = 0; i < PEN_TENANT_SLOTS; i++)
		if (!dev->slot[i])
			return i;
	return -ENOSPC;
}

int pen_place_get(struct pen_daemon *d, struct pen_tenant *t, struct pen_device *dev, int slot,
		  struct pen_place **ret_place)
{
	struct pen_place *p = t->place[dev->index];
	if (p) {
		*ret_place = p;
		return slot >= 0 && (uint32_t)slot != p->slot ? -EBUSY : 0;
	}
	int r = pick_slot(dev, slot);
	if (r < 0)
		return r;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->tenant = t;
	p->device = dev;
	p->slot = (uint32_t)r;
	p->terms_fd = p->ledger_fd = -1;
	p->audit.sm_util = p->audit.enc_util = p->audit.dec_util = PEN_READING_NONE;
	struct pen_page_id id = page_id(d, dev, p->slot);
	struct pen_err err = PEN_ERR_INIT;
	void *map;
	r = pen_page_create(PEN_PAGE_TERMS, &id, &p->terms_fd, &map, &err);
	if (r < 0) {
		pen_log(PEN_LOG_ERROR, "%s", err.text);
		free(p);
		return r;
	}
	p->terms = map;
	mlock(map, PEN_TERMS_BYTES);   /* the tick writes it; where RLIMIT_MEMLOCK forbids it is there at least */
	r = pen_page_seal_terms(p->terms_fd, &err);
	if (r < 0)
		pen_log(PEN_LOG_WARN, "%s", err.text);
	t->place[dev->index] = p;
	dev->slot[p->slot] = p;
	pen_place_publish(d, p);
	pen_device_promise(d);   /* its guarantee is the place's from now on */
	if (d->store)
		pen_store_place(d->store, p);
	*ret_place = p;
	return 0;
}

int pen_place_ledger(struct pen_daemon *d, struct pen_place *p)
{
	struct pen_page_id id = page_id(d, p->device, p->slot);
	struct pen_err err = PEN_ERR_INIT;
	void *map;
	int fd = -1, r = pen_page_create(PEN_PAGE_LEDGER, &id, &fd, &map, &err);
	if (r == 0) {
		r = pen_page_seal_ledger(fd, &err);
		if (r < 0) {
			pen_page_unmap(map, PEN_PAGE_LEDGER);
			close(fd);
		}
	}
	if (r < 0) {
		pen_log(PEN_LOG_ERROR, "%s", err.text);
		return r;
	}
	p->ledger = map;
	p->ledger_fd = fd;
	p->adopt_until_ns = 0;
	mlock(map, PEN_LEDGER_BYTES);
	pen_place_publish(d, p);
	return 0;
}

int pen_place_take_ledger(struct pen_daemon *d, struct pen_place *p, int *fd)
{
	void *map;
	int r = pen_page_map_rw(*fd, PEN_PAGE_LEDGER, &map);
	if (r < 0)
		return r;
	p->ledger = map;
	p->ledger_fd = PEN_TAKE_FD(*fd);
	mlock(map, PEN_LEDGER_BYTES);
	pen_place_publish(d, p);
	return 0;
}

static uint64_t tagged(const struct pen_place *p)
{
	uint64_t set = 0;
	for (unsigned i = 0; p->ledger && i < PEN_LEDGER_CLIENTS; i++)
		if (atomic_load_explicit(&p->ledger->client[i].tag, memory_order_relaxed))
			set |= PEN_LEDGER_BIT(i);
	return set;
}

void pen_place_accounts(struct pen_place *p, uint64_t come, uint64_t gone)
{
	struct pen_table_tenant *v = &p->device->table->tenant[p->slot];
	p->clients_used = (p->clients_used | come) & ~gone;
	atomic_store(&v->accounts, (atomic_load(&v->accounts) | come) & ~gone);
}

void pen_place_publish(struct pen_daemon *d, struct pen_place *p)
{
	const struct pen_tenant *t = p->tenant;
	struct pen_table_tenant *v = &p->device->table->tenant[p->slot];
	pen_lock(&d->table->lock);
	v->contract = t->contract;
	v->stop_flags = (t->state == PEN_TENANT_ENDED ? PEN_TERMS_STOP : 0) | (t->stop_alloc ? PEN_TERMS_STOP_ALLOC : 0);
	v->exclusive_until_ns = t->state == PEN_TENANT_ENDED ? 0 : t->exclusive_until_ns;
	v->terms = p->terms;
	if (v->ledger != p->ledger)
		atomic_store(&v->accounts, tagged(p));
	v->ledger = p->ledger;
	v->mem_absent_bytes = p->ledger ? 0 : pen_place_mem_held(p);
	v->mem_overhead_bytes = p->overhead_bytes;
	v->used = true;
	pen_unlock(&d->table->lock);
	pen_tick_now(d, p->device);
}

void pen_place_free(struct pen_daemon *d, struct pen_place *p)
{
	struct pen_table_tenant *v = &p->device->table->tenant[p->slot];
	pen_lock(&d->table->lock);
	memset(v, 0, sizeof(*v));
	pen_unlock(&d->table->lock);
	p->tenant->place[p->device->index] = NULL;
	p->device->slot[p->slot] = NULL;
	pen_page_unmap(p->terms, PEN_PAGE_TERMS);
	close(p->terms_fd);
	if (p->ledger) {
		pen_page_unmap(p->ledger, PEN_PAGE_LEDGER);
		close(p->ledger_fd);
	}
	for (unsigned i = 0; i < PEN_RECENT_SLOTS; i++)
		free(p->recent[i]);
	free(p->usage);
	free(p);
}

void pen_account_add(const struct pen_ledger_client *c, struct pen_totals *sum)
{
#define X(name) sum->name += atomic_load_explicit(&c->name, memory_order_relaxed);
	PEN_TOTALS(X)
#undef X
	for (unsigned i = 0; i < PEN_HOLD_MAX_; i++)
		sum->held_ns[i] += atomic_load_explicit(&c->held_ns[i], memory_order_relaxed);
	uint64_t longest = atomic_load_explicit(&c->max_command_ns, memory_order_relaxed);
	sum->max_command_ns = PEN_MAX(sum->max_command_ns, longest);
}

void pen_place_totals(const struct pen_place *p, struct pen_totals *ret)
{
	*ret = p->retired;
	for (unsigned i = 0; p->ledger && i < PEN_LEDGER_CLIENTS; i++)
		if (atomic_load_explicit(&p->ledger->client[i].tag, memory_order_relaxed))
			pen_account_add(&p->ledger->client[i], ret);
}

bool pen_place_waits(const struct pen_place *p)
{
	return p->n_absent || (!p->ledger && p->adopt_until_ns);
}

/* Until one of its clients is back after a restart, a tenant counts at all that its contract lets it have. */
uint64_t pen_place_mem_held(const struct pen_place *p)
{
	if (p->ledger)
		return atomic_load_explicit(&p->ledger->mem_used_bytes, memory_order_relaxed);
	uint64_t sum = 0;
	for (unsigned i = 0; i < PEN_SEATS; i++)
		if (p->device->absent[i] && p->device->absent[i]->place == p)
			sum += p->device->absent[i]->bytes;   /* bounded so that the sum is */
	return sum;
}

uint64_t pen_place_mem_used(const struct pen_place *p)
{
	if (p->ledger)
		return atomic_load_explicit(&p->ledger->mem_used_bytes, memory_order_relaxed);
	if (!pen_place_waits(p))
		return 0;
	uint64_t limit = pen_place_mem_limit(p);
	return limit == PEN_UNLIMITED ? p->tenant->contract.memory.guaranteed : limit;
}

uint64_t pen_place_mem_limit(const struct pen_place *p)
{
	uint64_t most = pen_place_verdict(p->tenant->daemon, p).mem_limit_bytes;
	return PEN_MIN(most, p->device->mem_bytes ? p->device->mem_bytes : PEN_UNLIMITED);
}

void pen_device_promise(struct pen_daemon *d)
{
	pen_services_poke(d, PEN_SERVICE_TENANTS);
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++) {
		struct pen_device *dev = d->device[i];
		uint64_t sum = 0;
		for (const struct pen_tenant *t = d->tenants; dev && t; t = t->hh.next)
			if ((t->covers >> i & 1) && !t->place[i] && __builtin_add_overflow(sum, t->contract.memory.guaranteed, &sum))
				sum = UINT64_MAX;
		if (!dev || sum == dev->table->promised_bytes)
			continue;
		pen_lock(&d->table->lock);
		dev->table->promised_bytes = sum;
		pen_unlock(&d->table->lock);
		pen_tick_now(d, dev);
	}
}

struct pen_verdict pen_place_verdict(struct pen_daemon *d, const struct pen_place *p)
{
	const struct pen_table_tenant *t = &p->device->table->tenant[p->slot];
	pen_lock(&d->table->lock);
	uint64_t overhead = PEN_MIN(t->mem_overhead_bytes, UINT64_MAX - t->mem_taken);
	struct pen_verdict v = { .rank = t->rank, .entitled_ppm = t->entitled_ppm, .mem_limit_bytes = pen_lend_shown(t),
				 .mem_taken_bytes = t->mem_taken + overhead };
	pen_unlock(&d->table->lock);
	return v;
}

uint64_t pen_seat_still_ns(struct pen_daemon *d, const struct pen_seat *s)
{
	pen_lock(&d->table->lock);
	const struct pen_table_seat *t = &s->place->device->table->seat[s->seat];
	uint64_t since = t->stale ? t->still_since_ns : 0, now = pen_mono_ns();
	pen_unlock(&d->table->lock);
	return since && since < now ? now - since : 0;
}

bool pen_seat_stale(struct pen_daemon *d, const struct pen_seat *s)
{
	pen_lock(&d->table->lock);
	bool stale = s->place->device->table->seat[s->seat].stale;
	pen_unlock(&d->table->lock);
	return stale;
}
