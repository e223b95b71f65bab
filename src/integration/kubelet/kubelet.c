/* SPDX-License-Identifier: Apache-2.0 */
/* The integration as the daemon sees it: configuration, changes, metrics. */
#include "integration/kubelet/kubelet.h"

#include "base/auto.h"
#include "base/clock.h"
#include "base/log.h"
#include "integration/kubelet/internal.h"

#include <errno.h>
#include <event2/event.h>
#include <string.h>
#include <utlist.h>

/* Lists that change in a burst are sent once. Long enough for a pod's containers, too short for a scheduler to err. */
#define RELIST_MS 5

static bool wanted(const struct pen_config *cfg)
{
	return cfg->kube_enabled;
}

/* ---- lists ---------------------------------------------------------------------------------------------------------- */

static void relist(struct pen_kube *k)
{
	struct pen_kube_plugin *p;
	DL_FOREACH(k->plugins, p)
		pen_kube_plugin_relist(p);
}

static void on_relist(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	relist(arg);
}

void pen_kube_relist_soon(struct pen_kube *k)
{
	if (!evtimer_pending(k->relist_ev, NULL))
		event_add(k->relist_ev, &(struct timeval){ .tv_usec = RELIST_MS * 1000 });
}

/* ---- the directory -------------------------------------------------------------------------------------------------- */

/* Is there anything to offer, or known that there is nothing? Before, the kubelet would be told of slots that are none. */
static bool is_ready(const struct pen_kube *k)
{
	return k->n_cards || pen_service_probed(k->s);
}

void pen_kube_appeared(struct pen_kube *k)
{
	struct pen_kube_plugin *p;
	k->appeared = true;
	if (is_ready(k))
		DL_FOREACH(k->plugins, p)
			pen_kube_plugin_appeared(p);
}

void pen_kube_look_at_sockets(struct pen_kube *k)
{
	struct pen_kube_plugin *p;
	DL_FOREACH(k->plugins, p)
		if (p->server && !pen_kube_plugin_socket_is_there(p))
			pen_kube_plugin_event(p, PEN_KUBE_EV_LOST);
}

/* ---- configuration -------------------------------------------------------------------------------------------------- */

static void stop_serving(struct pen_kube *k)
{
	struct pen_kube_plugin *p, *next;
	pen_kube_watch_destroy(k->watch);
	k->watch = NULL;
	DL_FOREACH_SAFE(k->plugins, p, next) {
		DL_DELETE(k->plugins, p);
		pen_kube_plugin_destroy(p);
	}
	k->serves = false;
	k->appeared = false;
}

static struct pen_kube_plugin *find_plugin(struct pen_kube *k, const char *resource)
{
	struct pen_kube_plugin *p;
	DL_FOREACH(k->plugins, p)
		if (!strcmp(p->resource, resource))
			return p;
	return NULL;
}

/* One that is there takes the profile as it is now: for leases to come. */
static void want_plugin(struct pen_kube *k, const struct pen_config_profile *profile, const char *resource)
{
	struct pen_kube_plugin *p = find_plugin(k, resource);
	if (!p) {
		int r = pen_kube_plugin_create(k, profile, resource, &p);
		if (r < 0) {
			pen_service_event(k->s, true, NULL, "%s is not served: %s", resource, strerror(-r));
			return;
		}
		DL_APPEND(k->plugins, p);
		if (k->appeared && is_ready(k))
			pen_kube_plugin_event(p, PEN_KUBE_EV_APPEARED);
	}
	p->profile = *profile;
	p->wanted = true;
}

static void want_alias(struct pen_kube *k, const struct pen_config *cfg, const struct pen_config_alias *a)
{
	for (size_t i = 0; i < cfg->n_profiles; i++)
		if (!strcmp(cfg->profiles[i].contract.name, a->profile))
			want_plugin(k, &cfg->profiles[i], a->resource);
}

static void make_plugins(struct pen_kube *k, const struct pen_config *cfg)
{
	struct pen_kube_plugin *p, *next;
	DL_FOREACH(k->plugins, p)
		p->wanted = false;
	for (size_t i = 0; i < cfg->n_profiles; i++) {
		char resource[PEN_KUBE_RESOURCE_MAX];
		snprintf(resource, sizeof(resource), "%s/%s", cfg->kube_domain, cfg->profiles[i].contract.name);
		want_plugin(k, &cfg->profiles[i], resource);
	}
	for (size_t i = 0; i < cfg->n_aliases; i++)
		want_alias(k, cfg, &cfg->aliases[i]);
	DL_FOREACH_SAFE(k->plugins, p, next)
		if (!p->wanted) {   /* the kubelet sees the stream end; leases go on until their containers end */
			DL_DELETE(k->plugins, p);
			pen_kube_plugin_destroy(p);
		}
}

static void configure(void *self)
{
	struct pen_kube *k = self;
	const struct pen_config *cfg = pen_service_config(k->s);
	if (k->serves && (!cfg->kube_enabled || strcmp(k->dir, cfg->kube_dir)))
		stop_serving(k);
	if (!cfg->kube_enabled)
		return;
	snprintf(k->dir, sizeof(k->dir), "%s", cfg->kube_dir);
	make_plugins(k, cfg);
	k->serves = true;
	int r = k->watch ? 0 : pen_kube_watch_create(k, k->dir, &k->watch);
	if (r < 0)
		pen_service_event(k->s, true, NULL, "'%s' cannot be watched: %s", k->dir, strerror(-r));
	if (!cfg->n_profiles)
		pen_service_event(k->s, true, NULL, "enabled, but kubernetes.profiles is empty: there is nothing to offer");
	relist(k);
}

/* ---- the daemon's calls ---------------------------------------------------------------------------------------------- */

static void stop(void *self)
{
	struct pen_kube *k = self;
	stop_serving(k);
	pen_kube_leases_free(k);
	pen_kube_checkpoint_free(&k->checkpoint);
	if (k->relist_ev)
		event_free(k->relist_ev);
	if (k->sweep_ev)
		event_free(k->sweep_ev);
	free(k);
}

static int init(struct pen_service *s, void **ret_self, struct pen_err *err)
{
	struct pen_kube *k = calloc(1, sizeof(*k));
	if (!k)
		return pen_err_sys(err, -ENOMEM, "start");
	k->s = s;
	k->base = pen_service_base(s);
	k->relist_ev = evtimer_new(k->base, on_relist, k);
	k->sweep_ev = evtimer_new(k->base, pen_kube_on_sweep, k);
	if (!k->relist_ev || !k->sweep_ev) {
		stop(k);
		return pen_err_sys(err, -ENOMEM, "start");
	}
	pen_kube_cards_restore(k);
	pen_kube_leases_restore(k);
	pen_kube_sweep_arm(k);
	*ret_self = k;
	return 0;
}

static void changed(void *self, unsigned what)
{
	struct pen_kube *k = self;
	bool was_ready = is_ready(k);
	if (what & PEN_SERVICE_DEVICES)
		pen_kube_cards_update(k);
	if (what & (PEN_SERVICE_TENANTS | PEN_SERVICE_CLIENTS))
		pen_kube_leases_update(k);
	if (!was_ready || !k->told_ready) {
		k->told_ready = is_ready(k);
		if (k->told_ready && k->appeared)
			pen_kube_appeared(k);
	}
	relist(k);
}

static int claim(void *self, const char *tenant, pid_t pid, char *why, size_t n)
{
	return pen_kube_lease_claim(self, tenant, pid, why, n);
}

/* ---- told to people ---------------------------------------------------------------------------------------------------- */

static const double bucket_le[] = {
#define X(le) le,
	PEN_KUBE_BUCKETS(X)
#undef X
};

void pen_kube_count_allocation(struct pen_kube *k, uint64_t ns)
{
	double s = (double)ns / 1e9;
	k->allocations++;
	k->allocate_seconds += s;
	for (size_t i = 0; i < PEN_ARRAY_LEN(bucket_le); i++)
		k->bucket[i] += s <= bucket_le[i];
}

static const char *const lease_state_name[] = {
#define X(id, name) name,
	PEN_KUBE_LEASE_STATES(X)
#undef X
};

static void count_leases(const struct pen_kube *k, unsigned n[PEN_KUBE_LEASE_MAX_])
{
	const struct pen_kube_lease *l;
	memset(n, 0, PEN_KUBE_LEASE_MAX_ * sizeof(*n));
	DL_FOREACH(k->leases, l)
		n[l->state]++;
}

static void metrics(void *self, FILE *out)
{
	struct pen_kube *k = self;
	const struct pen_kube_plugin *p;
	unsigned n[PEN_KUBE_LEASE_MAX_];
	if (!k->serves && !k->leases)
		return;
	pen_service_metric_head(out, "kubelet_registered", "gauge", "1: the kubelet watches the list of this resource");
	DL_FOREACH(k->plugins, p)
		pen_service_metric(out, "kubelet_registered", (const char *const[]){ "resource", p->resource, NULL },
				   p->state == PEN_KUBE_LIVE);
	pen_service_metric_head(out, "kubelet_registrations_total", "counter", "registrations that the kubelet has taken");
	pen_service_metric(out, "kubelet_registrations_total", NULL, (double)k->registrations);
	pen_service_metric_head(out, "allocate_duration_seconds", "histogram", "from a whole Allocate request to its answer");
	for (size_t i = 0; i < PEN_ARRAY_LEN(bucket_le); i++) {
		char le[32];
		snprintf(le, sizeof(le), "%g", bucket_le[i]);
		pen_service_metric(out, "allocate_duration_seconds_bucket", (const char *const[]){ "le", le, NULL }, (double)k->bucket[i]);
	}
	pen_service_metric(out, "allocate_duration_seconds_bucket", (const char *const[]){ "le", "+Inf", NULL }, (double)k->allocations);
	pen_service_metric(out, "allocate_duration_seconds_sum", NULL, k->allocate_seconds);
	pen_service_metric(out, "allocate_duration_seconds_count", NULL, (double)k->allocations);
	count_leases(k, n);
	pen_service_metric_head(out, "leases", "gauge", "what containers were given, by what became of it");
	for (unsigned i = 0; i < PEN_KUBE_LEASE_MAX_; i++)
		pen_service_metric(out, "leases", (const char *const[]){ "state", lease_state_name[i], NULL }, n[i]);
}

static json_t *plugin_json(struct pen_kube_plugin *p)
{
	unsigned slots = 0, healthy_slots = 0, leased = 0;
	int watchers = 0;
	const struct pen_kube_stream *s;
	DL_COUNT(p->streams, s, watchers);
	for (size_t i = 0; i < p->k->n_cards; i++) {
		uint64_t all, healthy;
		pen_kube_slots(p, &p->k->card[i], &all, &healthy);
		slots += (unsigned)__builtin_popcountll(all);
		healthy_slots += (unsigned)__builtin_popcountll(healthy);
		leased += (unsigned)__builtin_popcountll(pen_kube_leased(p->k, p->resource, p->k->card[i].n));
	}
	return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:i, s:i, s:i, s:i}", "resource", p->resource, "profile", p->profile.contract.name,
			 "state", pen_kube_state_name(p->state), "socket", p->endpoint, "registrations",
			 (json_int_t)p->registrations, "lists", (json_int_t)p->lists, "slots", (int)slots, "healthy",
			 (int)healthy_slots, "leased", (int)leased, "watchers", watchers);
}

static json_t *lease_json(const struct pen_kube_lease *l)
{
	json_t *ids = json_array();
	for (unsigned s = 0; s < PEN_KUBE_SLOTS; s++) {
		char id[PEN_KUBE_ID_MAX];
		if (l->slots >> s & 1)
			json_array_append_new(ids, json_string(pen_kube_id(id, l->card, s)));
	}
	return json_pack("{s:s, s:s, s:s, s:o}", "tenant", l->tenant, "resource", l->resource, "state", lease_state_name[l->state],
			 "ids", ids);
}

static json_t *status(void *self)
{
	struct pen_kube *k = self;
	json_t *resources = json_array(), *leases = json_array(), *cards = json_object();
	struct pen_kube_plugin *p;
	const struct pen_kube_lease *l;
	DL_FOREACH(k->plugins, p)
		json_array_append_new(resources, plugin_json(p));
	DL_FOREACH(k->leases, l)
		json_array_append_new(leases, lease_json(l));
	for (size_t i = 0; i < k->n_cards; i++) {
		char name[16];
		snprintf(name, sizeof(name), "g%u", k->card[i].n);
		json_object_set_new(cards, name, json_string(k->card[i].key));
	}
	return json_pack("{s:b, s:s, s:b, s:b, s:o, s:o, s:o}", "enabled", k->serves, "directory", k->dir, "directory_watched",
			 pen_kube_watch_is_on(k->watch), "checkpoint", k->checkpoint.known, "resources", resources, "cards", cards, "leases", leases);
}

const struct pen_integration pen_kubelet_integration = {
	.name = "kubelet",
	.wanted = wanted,
	.init = init,
	.configure = configure,
	.changed = changed,
	.claim = claim,
	.metrics = metrics,
	.status = status,
	.stop = stop,
};
