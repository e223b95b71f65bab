/* SPDX-License-Identifier: Apache-2.0 */
/* Contracts of the configuration, and what changes when it is read again. */
#include "base/auto.h"
#include "base/log.h"
#include "contract/text.h"
#include "daemon/daemon.h"
#include "daemon/store.h"
#include "daemon/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void create_one(struct pen_daemon *d, const struct pen_config_contract *c)
{
	struct pen_tenant_new n = { .contract = c->contract, .uid = geteuid(), .gid = getegid(), .from_config = true,
				    .wait = true };
	struct pen_err err = PEN_ERR_INIT;
	struct pen_tenant *t;
	if (pen_tenant_create(d, &n, &t, &err) < 0)
		pen_event(d, PEN_EVENT_ALERT, NULL, NULL, "%s: %s", c->origin, err.text);
}

static const struct pen_config_contract *find(const struct pen_config *cfg, const char *name)
{
	for (size_t i = 0; i < cfg->n_contracts; i++)
		if (!strcmp(cfg->contracts[i].contract.name, name))
			return &cfg->contracts[i];
	return NULL;
}

static void change_one(struct pen_daemon *d, struct pen_tenant *t, const struct pen_config_contract *c)
{
	struct pen_err err = PEN_ERR_INIT;
	bool was = t->from_config;
	t->from_config = true;
	int r = *t->owner ? pen_err_x(&err, -EEXIST, "name: '%s' exists already", t->name) : pen_tenant_change(d, t, &c->contract, false, &err);
	if (r == 0)
		return;
	t->from_config = was;   /* one that somebody else has made stays his */
	pen_event(d, PEN_EVENT_ALERT, t, NULL, "%s: %s", c->origin, err.text);
}

void pen_config_contracts(struct pen_daemon *d)
{
	struct pen_tenant *t, *next;
	for (t = d->tenants; t; t = next) {
		next = t->hh.next;
		if (t->from_config && t->state != PEN_TENANT_ENDED && !find(&d->cfg, t->name))
			pen_tenant_end(d, t, "no longer configured");
	}
	for (size_t i = 0; i < d->cfg.n_contracts; i++) {
		const struct pen_config_contract *c = &d->cfg.contracts[i];
		t = pen_tenant_find(d, c->contract.name);
		if (!t) {
			create_one(d, c);
		} else if (t->state != PEN_TENANT_ENDED) {
			change_one(d, t, c);
		} else if (!t->again) {
			t->again = true;
			pen_event(d, PEN_EVENT_CONFIG, t, NULL, "begins anew when the last process of the contract that has ended is gone");
		}
	}
}

void pen_config_contract_again(struct pen_daemon *d, const char *name)
{
	const struct pen_config_contract *c = find(&d->cfg, name);
	if (c && !d->quitting)
		create_one(d, c);
}

/* What was changed by `penstock set` alone, and is taken back by a file that says what it said before. */
static int diff_live(struct pen_daemon *d, const struct pen_config *cfg, struct pen_diff *diff)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < cfg->n_contracts; i++) {
		const struct pen_contract *c = &cfg->contracts[i].contract;
		const struct pen_config_contract *before = find(&d->cfg, c->name);
		const struct pen_tenant *t = pen_tenant_find(d, c->name);
		struct pen_diff in_file = { 0 };
		char prefix[PEN_NAME_MAX + 32];
		if (!before || !t || !t->from_config || t->state == PEN_TENANT_ENDED)
			continue;
		snprintf(prefix, sizeof(prefix), pen_text("contract '%s': "), c->name);
		r = pen_contract_diff(&before->contract, c, prefix, &in_file);
		if (r == 0 && !in_file.n)
			r = pen_contract_diff(&t->contract, c, prefix, diff);
		pen_diff_clear(&in_file);
	}
	return r;
}

/* Keys that need a restart keep their values: the diff says so, and the next diff says it again. */
static void keep_fixed(const struct pen_config *old, struct pen_config *new)
{
	memcpy(new->state_dir, old->state_dir, sizeof(new->state_dir));
	memcpy(new->runtime_dir, old->runtime_dir, sizeof(new->runtime_dir));
	memcpy(new->socket, old->socket, sizeof(new->socket));
	memcpy(new->group, old->group, sizeof(new->group));
	memcpy(new->http_listen, old->http_listen, sizeof(new->http_listen));
}

int pen_daemon_reload(struct pen_daemon *d, struct pen_diff *ret_diff, struct pen_err *err)
{
	struct pen_config cfg;
	struct pen_diff diff = { 0 };
	int r = pen_options_config(&d->opt, &cfg, err);
	if (r < 0)
		return r;
	r = pen_config_diff(&d->cfg, &cfg, &diff);
	if (r == 0)
		r = diff_live(d, &cfg, &diff);
	if (r < 0) {
		pen_diff_clear(&diff);
		pen_config_free(&cfg);
		return pen_err_sys(err, r, "compare");
	}
	keep_fixed(&d->cfg, &cfg);
	pen_config_free(&d->cfg);
	d->cfg = cfg;
	pen_log_set_level(d->cfg.log_level);
	pen_lock(&d->table->lock);
	d->table->tick_ns = d->cfg.tick_ns;
	pen_unlock(&d->table->lock);
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++)
		if (d->device[i])
			pen_device_configure(d, d->device[i]);
	if (d->store)
		pen_store_limits(d->store, d->cfg.retention_days, d->cfg.retention_max_size);
	for (size_t i = 0; i < diff.n; i++)
		pen_event(d, PEN_EVENT_CONFIG, NULL, NULL, "%s: %s -> %s%s", diff.v[i].what, diff.v[i].from, diff.v[i].to,
			  diff.v[i].restart ? " (after a restart)" : "");
	pen_config_contracts(d);
	pen_services_configure(d);
	pen_audit_reload(d);
	pen_watch_configure(d);
	*ret_diff = diff;
	return 0;
}
