/* SPDX-License-Identifier: Apache-2.0 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/log.h"
#include "contract/text.h"
#include "daemon/daemon.h"
#include "daemon/service.h"
#include "daemon/store.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#define TENANTS_MAX 4096
#define WAITING_MAX 256

static const char *const state_name[] = {
#define X(id, name) name,
	PEN_TENANT_STATES(X)
#undef X
};

const char *pen_tenant_state_name(enum pen_tenant_state s)
{
	return state_name[s];
}

struct pen_tenant *pen_tenant_find(struct pen_daemon *d, const char *name)
{
	struct pen_tenant *t;
	HASH_FIND_STR(d->tenants, name, t);
	return t;
}

/* ---- admission --------------------------------------------------------------------------------------------------- */

bool pen_contract_means(const struct pen_contract *c, const struct pen_device *dev)
{
	const char *colon = strchr(dev->key, ':');
	return !c->device[0] || !strcasecmp(c->device, dev->key) || (colon && !strcasecmp(c->device, colon + 1)) ||
	       !strcasecmp(c->device, dev->model);
}

/* What others have borrowed counts as theirs, as it cannot be taken back. */
static int admit_on(struct pen_daemon *d, struct pen_device *dev, const struct pen_contract *c,
		    const struct pen_tenant *self, bool against_contracts_alone, struct pen_err *err)
{
	bool look = c->memory.guaranteed && !against_contracts_alone;
	static const struct pen_contract nobody = { .name = "(no tenant)" };   /* what no contract explains is taken all the same */
	pen_auto_free const struct pen_contract **held = calloc(HASH_COUNT(d->tenants) + 1, sizeof(*held));
	pen_auto_free uint64_t *taken = calloc(HASH_COUNT(d->tenants) + 1, sizeof(*taken));
	if (!held || !taken)
		return pen_err_sys(err, -ENOMEM, "admission");
	size_t n = 0;
	if (look)
		pen_tick_now(d, dev);   /* what is used at this moment */
	for (struct pen_tenant *t = d->tenants; t; t = t->hh.next) {
		const struct pen_place *p = t->place[dev->index];
		if (t == self || !(t->covers >> dev->index & 1))
			continue;
		taken[n] = p && look ? pen_place_verdict(d, p).mem_taken_bytes : 0;
		held[n++] = &t->contract;
	}
	if (look && dev->audit && dev->audit->outside.bytes) {
		taken[n] = dev->audit->outside.bytes;
		held[n++] = &nobody;
	}
	uint64_t reserve = PEN_MIN(dev->policy.reserve, dev->mem_bytes);
	struct pen_capacity cap = { .memory = dev->mem_bytes ? dev->mem_bytes : PEN_UNLIMITED,
				    .reserve = reserve, .units = dev->units, .taken = taken };
	return pen_contract_admit(held, n, &cap, c, err);
}

/*
 * The contract is in force: its memory is set aside, so that nobody takes it any more. Who took it between the check and now
 * keeps it: devices of @covers on which that happened are left out. Return: 0; -EAGAIN all of the new ones are.
 */
static int hold(struct pen_daemon *d, struct pen_tenant *t, uint64_t covers, struct pen_err *err)
{
	uint64_t before = t->covers, new = covers & ~before;
	int why = 0;
	t->covers |= new;
	pen_device_promise(d);
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES && t->contract.memory.guaranteed; i++) {
		int r = new >> i & 1 ? admit_on(d, d->device[i], &t->contract, t, false, err) : 0;
		if (r == 0)
			continue;
		why = r;
		new &= ~(UINT64_C(1) << i);
	}
	t->covers = before | new;
	if (why)
		pen_device_promise(d);
	return why && !new ? why : 0;
}

int pen_tenant_cover(struct pen_daemon *d, struct pen_tenant *t, struct pen_device *dev, struct pen_err *err)
{
	if (!pen_contract_means(&t->contract, dev))
		return pen_err_x(err, -ENODEV, N_("the contract is for device '%s'"), t->contract.device);
	/* In force before a restart it is in force again: what others have is known only roughly then. */
	bool was_in_force = t->place[dev->index] || (t->restored && d->adopt_until_ns);
	uint64_t one = UINT64_C(1) << dev->index;
	int r = was_in_force ? 0 : pen_exclusive_admit(d, dev, &t->contract, pen_exclusive_now(t), t, err);
	if (r == 0)
		r = admit_on(d, dev, &t->contract, t, was_in_force, err);
	if (r == 0 && !was_in_force)
		r = hold(d, t, one, err);
	else if (r == 0) {
		t->covers |= one;
		pen_device_promise(d);
	}
	if (r == 0 && t->lapsed) {
		t->lapsed = false;
		pen_owner_keep(d, t);
	}
	return r;
}

/*
 * What a tenant says of a device promises nothing to others while there is one that was found. It may be made up, and is decided
 * upon when somebody brings it along; who has it has it.
 */
static bool is_hearsay(struct pen_daemon *d, const struct pen_device *dev, const struct pen_contract *c, const struct pen_tenant *self)
{
	if (dev->state != PEN_DEVICE_UNPROBED || (self && self->covers >> dev->index & 1))
		return false;
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		if (d->device[i] && d->device[i]->state != PEN_DEVICE_UNPROBED && pen_contract_means(c, d->device[i]))
			return true;
	return false;
}

/*
 * On which devices can this contract be kept? "any" needs one that can, and is held on every one that can.
 * No device known yet: held nowhere, decided when one is brought along. Return: 0; -EAGAIN; -ERANGE; -ENODEV.
 */
static int admit_everywhere(struct pen_daemon *d, const struct pen_contract *c, bool exclusive, const struct pen_tenant *self,
			    uint64_t *ret_covers, struct pen_err *err)
{
	uint64_t covers = 0;
	int why = 0;
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++) {
		struct pen_err e = PEN_ERR_INIT;
		struct pen_device *dev = d->device[i];
		if (!dev || !pen_contract_means(c, dev) || is_hearsay(d, dev, c, self))
			continue;
		if (pen_exclusive_admit(d, dev, c, exclusive, self, &e) < 0) {
			why = pen_err_x(err, -EAGAIN, "%s", e.text);
			continue;
		}
		/* Who has a drained device keeps it, and may change its contract. */
		bool drained = dev->drained && !(self && self->covers >> i & 1);
		int r = dev->state == PEN_DEVICE_LOST ? pen_err_x(&e, -EAGAIN, N_("device: '%s' is lost"), dev->key) :
			drained ? pen_err_x(&e, -EAGAIN, N_("device: '%s' is drained"), dev->key) : admit_on(d, dev, c, self, false, &e);
		if (r == 0)
			covers |= UINT64_C(1) << i;
		else if (!why || r == -EAGAIN)   /* of several reasons one that waiting can mend */
			why = pen_err_x(err, r, "%s", e.text);
	}
	if (!covers && why)
		return why;
	if (!covers && c->device[0] && d->n_devices)
		return pen_err_x(err, -ENODEV, N_("device: '%s' is not known here; `penstock device ls` lists what is"),
				 c->device);
	*ret_covers = covers;
	return 0;
}


/* ---- create ------------------------------------------------------------------------------------------------------- */

static int make_up_name(struct pen_daemon *d, struct pen_contract *c)
{
	for (int i = 0; i < 100; i++) {
		uint16_t r;
		if (getrandom(&r, sizeof(r), 0) != sizeof(r))
			return -errno;
		snprintf(c->name, sizeof(c->name), "run-%04x", r);
		if (!pen_tenant_find(d, c->name))
			return 0;
	}
	return -EBUSY;
}

static void on_watched_end(evutil_socket_t fd, short what, void *arg)
{
	struct pen_tenant *t = arg;
	(void)fd, (void)what;
	event_free(t->watch_ev);
	t->watch_ev = NULL;
	close(t->watch_pidfd);
	t->watch_pidfd = -1;
	pen_tenant_settle(t->daemon, t);
}

static int watch(struct pen_daemon *d, struct pen_tenant *t, pid_t pid, struct pen_err *err)
{
	if (!pid)
		return 0;
	int fd = pid > 0 ? pen_process_open(pid) : -ESRCH;
	if (fd < 0)
		return pen_err_sys(err, fd, "pid: process %d", (int)pid);
	t->watch_pid = pid;
	t->watch_pidfd = fd;
	pen_peer_start_time(pid, &t->watch_start);
	t->watch_ev = event_new(d->base, fd, EV_READ, on_watched_end, t);
	if (!t->watch_ev || event_add(t->watch_ev, NULL) < 0)
		return pen_err_sys(err, -ENOMEM, "watch");
	return 0;
}

static void tenant_free(struct pen_daemon *d, struct pen_tenant *t)
{
	while (t->clients)
		pen_client_free(d, t->clients);
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		if (t->place[i])
			pen_place_free(d, t->place[i]);
	if (t->watch_ev)
		event_free(t->watch_ev);
	if (t->watch_pidfd >= 0)
		close(t->watch_pidfd);
	if (t->listen_ev)
		event_free(t->listen_ev);
	if (t->listen_fd >= 0)
		close(t->listen_fd);
	json_decref(t->labels);
	free(t->note);
	free(t);
}

static int set_up(struct pen_daemon *d, struct pen_tenant *t, const struct pen_tenant_new *n, struct pen_err *err)
{
	t->daemon = d;
	t->listen_fd = t->watch_pidfd = -1;
	memcpy(t->name, t->contract.name, sizeof(t->name));
	t->owner_uid = n->uid;
	t->owner_gid = n->gid;
	t->created = n->created > 0 ? n->created : pen_unix_now();
	t->ephemeral = n->ephemeral;
	t->from_config = n->from_config;
	t->restored = n->token;
	t->state = PEN_TENANT_IDLE;
	t->exclusive_ns = n->exclusive_ns;
	t->lapsed = n->lapsed;
	t->labels = json_incref(n->labels);
	snprintf(t->owner, sizeof(t->owner), "%s", n->owner ? n->owner : "");
	if (n->note && !(t->note = strdup(n->note)))
		return pen_err_sys(err, -ENOMEM, "tenant");
	snprintf(t->dir, sizeof(t->dir), "%s/%s/%s", d->cfg.runtime_dir, n->owner ? PEN_CONTAINERS_DIR : PEN_TENANTS_DIR, t->name);
	if (n->token)
		memcpy(t->token, n->token, sizeof(t->token));
	else if (getrandom(t->token, sizeof(t->token), 0) != sizeof(t->token))
		return pen_err_sys(err, -EIO, "random numbers");
	return watch(d, t, n->watch_pid, err);
}

/* Devices on which a contract might be held. */
static uint64_t wanted(const struct pen_daemon *d, const struct pen_contract *c)
{
	uint64_t mask = 0;
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		if (d->device[i] && d->device[i]->state != PEN_DEVICE_LOST && !d->device[i]->drained && pen_contract_means(c, d->device[i]))
			mask |= UINT64_C(1) << i;
	return mask;
}

/* @ret_devices: what they wait for. */
static unsigned count_waiting(const struct pen_daemon *d, uint64_t *ret_devices)
{
	unsigned n = 0;
	*ret_devices = 0;
	for (struct pen_tenant *t = d->tenants; t; t = t->hh.next) {
		if (t->state != PEN_TENANT_WAITING)
			continue;
		n++;
		*ret_devices |= wanted(d, &t->contract);
	}
	return n;
}

int pen_tenant_create(struct pen_daemon *d, const struct pen_tenant_new *n, struct pen_tenant **ret_tenant,
		      struct pen_err *err)
{
	struct pen_contract c = n->contract;
	if (!c.name[0] && make_up_name(d, &c) < 0)
		return pen_err_x(err, -EBUSY, N_("no name is free"));
	if (pen_tenant_find(d, c.name))
		return pen_err_x(err, -EEXIST, N_("name: '%s' exists already; 'penstock end %s' ends it, another --name makes a second one"), c.name, c.name);
	if (HASH_COUNT(d->tenants) >= TENANTS_MAX)
		return pen_err_x(err, -ENOSPC, N_("there are %d tenants, which is the most"), TENANTS_MAX);
	uint64_t covers = 0;
	int r = n->lapsed || n->waited ? 0 : admit_everywhere(d, &c, n->exclusive_ns, NULL, &covers, err);
	uint64_t queued;
	unsigned waiting = count_waiting(d, &queued);
	bool may_wait = n->wait && !n->lapsed && waiting < WAITING_MAX, wait = n->waited || (r == -EAGAIN && may_wait);
	if (r == 0 && may_wait && (queued & wanted(d, &c))) {   /* who would wait does not overtake */
		wait = true;
		pen_err_x(err, -EAGAIN, N_("others wait already"));
	}
	if (r < 0 && !wait) {
		pen_event(d, PEN_EVENT_REFUSED, NULL, NULL, "%s: %s", c.name, err ? err->text : "");
		return r;
	}
	struct pen_tenant *t = calloc(1, sizeof(*t));
	if (!t)
		return pen_err_sys(err, -ENOMEM, "tenant");
	t->contract = c;
	r = set_up(d, t, n, err);
	if (r == 0 && !wait)
		r = pen_tenant_dir_make(d, t, err);
	if (r < 0) {
		tenant_free(d, t);
		return r;
	}
	HASH_ADD_STR(d->tenants, name, t);
	if (!wait && !n->lapsed && (r = hold(d, t, covers, err)) < 0) {   /* somebody was quicker */
		HASH_DEL(d->tenants, t);
		pen_tenant_dir_remove(t);
		tenant_free(d, t);
		return r;
	}
	if (wait) {   /* holds nothing */
		t->state = PEN_TENANT_WAITING;
		t->queue_nr = ++d->queue_nr;
	}
	d->had_tenant = true;
	pen_owner_keep(d, t);   /* before the contract: without it, it would come back as nobody's */
	if (d->store)
		pen_store_tenant(d->store, t);
	if (wait && !n->waited)
		pen_event(d, PEN_EVENT_TENANT_WAITING, t, NULL, "waits: %s", err ? err->text : "");
	else if (!n->token)
		pen_event(d, PEN_EVENT_TENANT_CREATED, t, NULL, "contract begins");
	if (!wait)
		pen_exclusive_begin(d, t);
	*ret_tenant = t;
	return 0;
}

int pen_tenant_would_admit(struct pen_daemon *d, const struct pen_tenant *t, struct pen_err *err)
{
	uint64_t covers;
	int r = admit_everywhere(d, &t->contract, t->exclusive_ns, t, &covers, err);
	for (const struct pen_tenant *o = d->tenants; r == 0 && o; o = o->hh.next)
		if (o->state == PEN_TENANT_WAITING && o->queue_nr < t->queue_nr && (wanted(d, &o->contract) & wanted(d, &t->contract)))
			r = pen_err_x(err, -EAGAIN, N_("'%s' waits before it"), o->contract.name);
	return r;
}

/* The first in the queue behind number @after. */
static struct pen_tenant *next_waiting(struct pen_daemon *d, uint64_t after)
{
	struct pen_tenant *first = NULL;
	for (struct pen_tenant *t = d->tenants; t; t = t->hh.next)
		if (t->state == PEN_TENANT_WAITING && t->queue_nr > after && (!first || t->queue_nr < first->queue_nr))
			first = t;
	return first;
}

static bool admit_waiting(struct pen_daemon *d, struct pen_tenant *t)
{
	uint64_t covers = 0;
	struct pen_err err = PEN_ERR_INIT;
	if (admit_everywhere(d, &t->contract, t->exclusive_ns, t, &covers, NULL) < 0)
		return false;
	if (hold(d, t, covers, NULL) < 0)
		return false;
	if (pen_tenant_dir_make(d, t, &err) < 0) {
		pen_event(d, PEN_EVENT_ALERT, t, NULL, "%s", err.text);
		t->covers = 0;
		pen_device_promise(d);
		return false;
	}
	t->state = PEN_TENANT_IDLE;
	if (d->store)
		pen_store_tenant(d->store, t);
	pen_event(d, PEN_EVENT_TENANT_CREATED, t, NULL, "contract begins, after waiting");
	pen_exclusive_begin(d, t);
	return true;
}

void pen_tenant_admit_waiting(struct pen_daemon *d)
{
	/* In order, and on one device nobody overtakes: a large contract would otherwise wait for ever behind small ones. */
	uint64_t claimed = 0;
	struct pen_tenant *t = NULL;
	for (uint64_t after = 0; (t = next_waiting(d, after)); after = t->queue_nr)
		if ((claimed & wanted(d, &t->contract)) || !admit_waiting(d, t))
			claimed |= wanted(d, &t->contract);
}

/* ---- owners ---------------------------------------------------------------------------------------------------------- */

int pen_tenant_hold(struct pen_daemon *d, struct pen_tenant *t, struct pen_err *err)
{
	uint64_t covers = 0;
	if (!t->lapsed)
		return 0;
	int r = admit_everywhere(d, &t->contract, t->exclusive_ns, t, &covers, err);
	if (r == 0)
		r = hold(d, t, covers, err);
	if (r == 0) {
		t->lapsed = false;
		pen_owner_keep(d, t);
	}
	return r;
}

int pen_tenant_lapse(struct pen_daemon *d, struct pen_tenant *t)
{
	if (t->clients)
		return -EBUSY;
	if (t->lapsed)
		return 0;
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++) {
		if (t->place[i] && d->store)
			pen_store_place_gone(d->store, t->place[i]);
		if (t->place[i])
			pen_place_free(d, t->place[i]);
	}
	t->covers = 0;
	t->lapsed = true;
	pen_owner_keep(d, t);
	pen_device_promise(d);
	pen_tenant_admit_waiting(d);
	return 0;
}

/* ---- change and end -------------------------------------------------------------------------------------------------- */

static int check_memory(struct pen_tenant *t, const struct pen_contract *c, bool force, bool *ret_below,
			struct pen_err *err)
{
	*ret_below = false;
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++) {
		/* After a restart: also what a process that is not back is known to hold. */
		uint64_t used = t->place[i] ? pen_place_mem_held(t->place[i]) + t->place[i]->overhead_bytes : 0;
		if (used <= c->memory.cap)
			continue;
		*ret_below = true;
		if (!force)
			return pen_err_x(err, -EBUSY,
					 N_("memory: %llu MiB are in use on %s, the new limit is %llu MiB; "
					 "--force stops new allocations until it fits"),
					 (unsigned long long)(used >> 20), t->place[i]->device->key,
					 (unsigned long long)(c->memory.cap >> 20));
	}
	return 0;
}

static void tell_change(struct pen_daemon *d, struct pen_tenant *t, const struct pen_contract *old)
{
	struct pen_diff diff = { 0 };
	pen_contract_diff(old, &t->contract, "", &diff);
	for (size_t i = 0; i < diff.n; i++)
		pen_event(d, PEN_EVENT_TENANT_CHANGED, t, NULL, "%s: %s -> %s", diff.v[i].what, diff.v[i].from,
			  diff.v[i].to);
	pen_diff_clear(&diff);
}

static void restore(struct pen_daemon *d, struct pen_tenant *t, const struct pen_contract *old, uint64_t covers, bool stop_alloc)
{
	t->contract = *old;
	t->covers = covers;
	t->stop_alloc = stop_alloc;
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		if (t->place[i])
			pen_place_publish(d, t->place[i]);
	pen_device_promise(d);
}

int pen_tenant_change(struct pen_daemon *d, struct pen_tenant *t, const struct pen_contract *c, bool force,
		      struct pen_err *err)
{
	if (t->state == PEN_TENANT_ENDED)
		return pen_err_x(err, -ESHUTDOWN, N_("the contract has ended"));
	if (strcmp(c->name, t->name) || strcasecmp(c->device, t->contract.device))
		return pen_err_x(err, -EINVAL, N_("%s cannot change while the tenant runs"),
				 strcmp(c->name, t->name) ? "name" : "device");
	bool below;
	uint64_t covers = t->covers;
	int r = check_memory(t, c, force, &below, err);
	if (r == 0 && t->state != PEN_TENANT_WAITING) {
		r = admit_everywhere(d, c, pen_exclusive_now(t), t, &covers, err);
		/* A device on which it has clients must still be able to keep it. */
		for (unsigned i = 0; r == 0 && i < PEN_DAEMON_DEVICES; i++)
			if (t->place[i] && !(covers >> i & 1))
				r = admit_on(d, d->device[i], c, t, false, err);
	}
	if (r < 0)
		return r;
	struct pen_contract old = t->contract;
	uint64_t had = t->covers;
	bool stopped = t->stop_alloc;
	t->contract = *c;
	t->covers = covers;
	t->stop_alloc = below;
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		if (t->place[i])
			pen_place_publish(d, t->place[i]);
	pen_device_promise(d);
	/* What was free at the check may have been taken before the guarantee was in force. */
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES && r == 0 && c->memory.guaranteed > old.memory.guaranteed; i++)
		if (covers >> i & 1)
			r = admit_on(d, d->device[i], c, t, false, err);
	if (r < 0) {
		restore(d, t, &old, had, stopped);
		return r;
	}
	if (d->store)
		pen_store_tenant(d->store, t);
	tell_change(d, t, &old);
	pen_tenant_admit_waiting(d);
	return 0;
}

static void forget(struct pen_daemon *d, struct pen_tenant *t)
{
	char again[PEN_NAME_MAX + 1] = "";
	if (t->again)
		memcpy(again, t->name, sizeof(again));
	HASH_DEL(d->tenants, t);
	tenant_free(d, t);
	pen_device_promise(d);
	pen_tenant_admit_waiting(d);
	if (*again)
		pen_config_contract_again(d, again);
	pen_daemon_maybe_quit(d);
}

void pen_tenant_end(struct pen_daemon *d, struct pen_tenant *t, const char *why)
{
	if (t->state != PEN_TENANT_ENDED) {
		pen_event(d, PEN_EVENT_TENANT_ENDED, t, NULL, "%s", why);
		if (t->state != PEN_TENANT_WAITING)
			pen_tenant_dir_remove(t);
		t->state = PEN_TENANT_ENDED;
		if (d->store)
			pen_store_tenant_gone(d->store, t->name);
		for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
			if (t->place[i])
				pen_place_publish(d, t->place[i]);
		pen_services_poke(d, PEN_SERVICE_TENANTS);
	}
	pen_tenant_settle(d, t);
}

static bool has_clients(const struct pen_tenant *t)
{
	for (const struct pen_client *c = t->clients; c; c = c->next)
		if (c->greeted)
			return true;
	return false;
}

/* Does anything keep an ephemeral tenant? One without a watched process waits for its first client. */
static bool is_over(const struct pen_daemon *d, const struct pen_tenant *t)
{
	if (!t->ephemeral && !t->watch_pid)
		return false;
	if (t->watch_ev || d->adopt_until_ns)
		return false;
	return t->watch_pid || t->seen_client;
}

void pen_tenant_settle(struct pen_daemon *d, struct pen_tenant *t)
{
	bool clients = has_clients(t);
	pen_services_poke(d, PEN_SERVICE_CLIENTS);
	if (t->state == PEN_TENANT_ENDED) {
		if (!clients)
			forget(d, t);
		return;
	}
	if (!clients && is_over(d, t)) {
		pen_tenant_end(d, t, "its processes are gone");
		return;
	}
	if (t->state != PEN_TENANT_WAITING)
		t->state = clients ? PEN_TENANT_ACTIVE : PEN_TENANT_IDLE;
}

void pen_tenant_free_all(struct pen_daemon *d)
{
	struct pen_tenant *t, *next;
	for (t = d->tenants; t; t = next) {
		next = t->hh.next;
		HASH_DEL(d->tenants, t);
		tenant_free(d, t);
	}
}
