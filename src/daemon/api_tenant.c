/* SPDX-License-Identifier: Apache-2.0 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "daemon/api.h"
#include "contract/text.h"
#include "daemon/service_internal.h"
#include "daemon/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>


int pen_api_tenants(struct pen_api_call *call)
{
	json_t *list = json_array();
	for (struct pen_tenant *t = call->d->tenants; t; t = t->hh.next)
		json_array_append_new(list, pen_api_tenant_json(call->d, t));
	return pen_api_answer(call, 200, json_pack("{s:o}", "tenants", list));
}

int pen_api_tenant(struct pen_api_call *call)
{
	return pen_api_answer(call, 200, pen_api_tenant_json(call->d, call->tenant));
}

/* A member that must be of a type if it is there. */
static int optional(struct pen_api_call *call, const char *key, json_type a, json_type b, json_t **ret)
{
	json_t *v = json_object_get(call->json, key);
	*ret = json_is_null(v) ? NULL : v;
	if (!*ret || json_typeof(v) == a || json_typeof(v) == b)
		return 0;
	pen_api_error(call, 400, "field-invalid", N_("%s: wrong type"), key);
	return -EINVAL;
}

static int known_members(struct pen_api_call *call, const char *const *names)
{
	const char *key;
	json_t *v;
	json_object_foreach(call->json, key, v) {
		size_t i = 0;
		while (names[i] && strcmp(names[i], key))
			i++;
		if (!names[i]) {
			pen_api_error(call, 400, "field-invalid", N_("%.64s: unknown member of the body"), key);
			return -EINVAL;
		}
	}
	return 0;
}

static int create(struct pen_api_call *call)
{
	static const char *const names[] = { "contract", "wait", "pid", "ephemeral", "exclusive", NULL };
	json_t *contract, *wait, *pid, *ephemeral, *exclusive;
	if (known_members(call, names) < 0 || optional(call, "contract", JSON_OBJECT, JSON_OBJECT, &contract) < 0 ||
	    optional(call, "wait", JSON_TRUE, JSON_FALSE, &wait) < 0 ||
	    optional(call, "pid", JSON_INTEGER, JSON_INTEGER, &pid) < 0 ||
	    optional(call, "ephemeral", JSON_TRUE, JSON_FALSE, &ephemeral) < 0 ||
	    optional(call, "exclusive", JSON_STRING, JSON_STRING, &exclusive) < 0)
		return -EINVAL;
	struct pen_tenant_new n = { .uid = call->uid, .gid = call->gid, .wait = json_is_true(wait),
				    .ephemeral = json_is_true(ephemeral) };
	struct pen_err err = PEN_ERR_INIT;
	pen_contract_init(&n.contract);
	if (contract && pen_contract_from_json(&n.contract, contract, &err) < 0)
		return pen_api_refuse(call, -EINVAL, &err);
	if (pen_device_resolve(call->d, n.contract.device, sizeof(n.contract.device), &err) < 0)
		return pen_api_refuse(call, -EINVAL, &err);
	if (exclusive && (pen_parse_duration(json_string_value(exclusive), &n.exclusive_ns) < 0 ||
			  n.exclusive_ns < PEN_EXCLUSIVE_MIN_NS || n.exclusive_ns > PEN_EXCLUSIVE_MAX_NS))
		return pen_api_error(call, 400, "field-invalid", N_("exclusive: '%.40s' is not valid; allowed: a time from 1s to 1h"),
				     json_string_value(exclusive));
	json_int_t number = json_integer_value(pid);
	if (number < 0 || number > INT32_MAX)
		return pen_api_error(call, 400, "field-invalid", N_("pid: no process number"));
	n.watch_pid = (pid_t)number;
	/* What descends from it is taken to be the tenant's: nobody names a process that is not his. */
	uid_t owner;
	if (number && call->uid != 0 && pen_process_uid(n.watch_pid, &owner) == 0 && owner != call->uid)
		return pen_api_error(call, 403, "denied", N_("pid: process %d is not yours"), (int)number);
	struct pen_tenant *t;
	int r = pen_tenant_create(call->d, &n, &t, &err);
	if (r < 0)
		return pen_api_refuse(call, r, &err);
	if (!number)   /* what `penstock run` makes ends with its program in any case: it need not wait for a disk */
		pen_api_stores(call);
	json_t *o = pen_api_tenant_json(call->d, t);
	if (t->state == PEN_TENANT_WAITING)
		json_object_set_new(o, "waits_because", json_string(err.text));
	return pen_api_answer(call, t->state == PEN_TENANT_WAITING ? 202 : 201, o);
}

/* A private daemon that was started for this contract alone, and must refuse it, has nothing to wait for. */
int pen_api_tenant_create(struct pen_api_call *call)
{
	int r = create(call);
	pen_daemon_maybe_quit(call->d);
	return r;
}

int pen_api_tenant_change(struct pen_api_call *call)
{
	static const char *const names[] = { "set", "force", NULL };
	json_t *set, *force;
	if (known_members(call, names) < 0 || optional(call, "set", JSON_OBJECT, JSON_OBJECT, &set) < 0 ||
	    optional(call, "force", JSON_TRUE, JSON_FALSE, &force) < 0)
		return -EINVAL;
	struct pen_contract c = call->tenant->contract;
	struct pen_err err = PEN_ERR_INIT;
	if (set && pen_contract_from_json(&c, set, &err) < 0)
		return pen_api_refuse(call, -EINVAL, &err);
	int r = pen_tenant_change(call->d, call->tenant, &c, json_is_true(force), &err);
	if (r < 0)
		return pen_api_refuse(call, r, &err);
	pen_api_stores(call);
	return pen_api_answer(call, 200, pen_api_tenant_json(call->d, call->tenant));
}

static void add_user(json_t *list, pid_t pid, const char *name, size_t n)
{
	char comm[32];
	snprintf(comm, sizeof(comm), "%.*s", (int)PEN_MIN(n, sizeof(comm) - 1), name);
	pen_text_clean(comm);   /* a tenant's bytes */
	json_array_append_new(list, json_pack("{s:i, s:s}", "pid", (int)pid, "comm", comm));
}

/* Who would be told that the contract has ended: processes that have attached, and a `penstock run` whose program may yet. */
static json_t *users_json(const struct pen_tenant *t)
{
	json_t *list = json_array();
	for (const struct pen_client *c = t->clients; c; c = c->next)
		if (c->greeted && pen_peer_alive(&c->peer))   /* dead, and not heard of yet: whoever waited for it comes as quickly */
			add_user(list, c->peer.pid, c->comm, sizeof(c->comm));
	const struct pen_peer watched = { .pid = t->watch_pid, .pidfd = t->watch_pidfd, .start_time = t->watch_start };
	if (!json_array_size(list) && t->watch_ev && pen_peer_alive(&watched)) {
		char path[64], comm[32] = "";
		snprintf(path, sizeof(path), "/proc/%d/comm", (int)t->watch_pid);
		pen_auto_fclose FILE *f = fopen(path, "re");
		if (f && fgets(comm, sizeof(comm), f))
			comm[strcspn(comm, "\n")] = 0;
		add_user(list, t->watch_pid, comm, sizeof(comm));
	}
	return list;
}

/* With ?unused=1 only if no process has it: checked here, since one may come between a client's look and its request. */
int pen_api_tenant_end(struct pen_api_call *call)
{
	struct pen_daemon *d = call->d;
	bool unused = call->query && *call->query;
	if (unused && strcmp(call->query, "unused=1"))   /* a word that was not understood must end nothing */
		return pen_api_error(call, 400, "field-invalid", N_("'%s' is not known here; allowed: unused=1"), call->query);
	json_t *users = users_json(call->tenant);
	if (unused && json_array_size(users)) {
		pen_api_error(call, 409, "in-use", N_("'%s' is in use by %zu processes"), call->name, json_array_size(users));
		json_object_set_new(call->answer, "processes", users);
		return 0;
	}
	pen_tenant_end(d, call->tenant, "ended by request");
	call->tenant = pen_tenant_find(d, call->name);   /* gone, unless clients are still leaving */
	json_t *o = json_pack("{s:s, s:s, s:o}", "name", call->name, "state", "ended", "processes", users);
	return pen_api_answer(call, 200, o);
}

int pen_api_usage(struct pen_api_call *call)
{
	uint64_t minutes = pen_api_query_u64(call, "minutes", 60);
	if (!minutes || minutes > PEN_USAGE_MINUTES)   /* older ones are in the database alone */
		return pen_api_error(call, 400, "field-invalid", N_("minutes: %llu; allowed: 1 to %d"), (unsigned long long)minutes,
				     PEN_USAGE_MINUTES);
	uint64_t now = (uint64_t)pen_unix_now() / 60;
	json_t *list = json_array();
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++) {
		const struct pen_place *p = call->tenant->place[i];
		unsigned n = p && p->usage ? PEN_MIN(p->usage_n, (unsigned)PEN_USAGE_MINUTES) : 0;
		for (unsigned k = 0; k < n; k++) {
			const struct pen_usage_row *u = &p->usage[(p->usage_n - n + k) % PEN_USAGE_MINUTES];
			if (u->minute + minutes < now)
				continue;
			json_array_append_new(
				list, json_pack("{s:o, s:s, s:o, s:o, s:o, s:o, s:o}", "t", pen_json_u64(u->minute * 60),
						"device", u->device, "device_ns", pen_json_u64(u->device_ns),
						"mem_peak_bytes", pen_json_u64(u->mem_peak_bytes), "commands",
						pen_json_u64(u->commands), "held_ns", pen_json_u64(u->held_ns), "bytes",
						pen_json_u64(u->bytes)));
		}
	}
	return pen_api_answer(call, 200, json_pack("{s:o}", "minutes", list));
}

/* ---- why ---------------------------------------------------------------------------------------------------------- */

#define HOLD_NAME(id, name, text) name,
#define HOLD_TEXT(id, name, text) text,
static const char *const hold_name[] = { PEN_HOLD_REASONS(HOLD_NAME) };
static const char *const hold_text[] = { PEN_HOLD_REASONS(HOLD_TEXT) };

/* For people, as the messages of errors are. */
static const char *suggest(const struct pen_tenant *t, unsigned reason, const char *by, char *buf, size_t n)
{
	const struct pen_range64 *compute = &t->contract.compute;
	uint64_t more;
	char range[40] = "unlimited";   /* without the cap, and with what is guaranteed */
	if (compute->guaranteed)
		strcat(pen_format_share(range, 32, (uint32_t)compute->guaranteed), "..");
	/* Without a cap it is ahead of its share: an equal's turn. */
	switch (reason == PEN_HOLD_SHARE && compute->cap == PEN_UNLIMITED ? PEN_HOLD_TURN : reason) {
	case PEN_HOLD_SHARE:
		snprintf(buf, n, N_("raise the cap: penstock set %s --compute %s"), t->name, range);
		break;
	case PEN_HOLD_BYTES:
		snprintf(buf, n, N_("raise the cap: penstock set %s --bandwidth unlimited"), t->name);
		break;
	case PEN_HOLD_RANK:
		/* More than it has by half, at least a fifth of the device. */
		more = PEN_MAX(compute->guaranteed * 3 / 2, (uint64_t)PEN_PPM / 5);
		pen_format_share(range, sizeof(range), (uint32_t)PEN_MIN(more, (uint64_t)PEN_PPM));
		snprintf(buf, n, N_("give it a larger guarantee (penstock set %s --compute %s..), or lower the rank of %s"), t->name, range,
			 *by ? by : N_("the other"));
		break;
	case PEN_HOLD_TURN:
		snprintf(buf, n, N_("it shares the device with %s; a larger guarantee gives it a larger part, unless the device's policy is turns"),
			 *by ? by : N_("other tenants"));
		break;
	case PEN_HOLD_STOPPED:
		snprintf(buf, n, N_("its contract has ended, or the device is lost"));
		break;
	case PEN_HOLD_EXCLUSIVE:
		snprintf(buf, n, N_("%s has the device for itself; `penstock events` says for how long at most"), *by ? by : N_("another tenant"));
		break;
	default:
		snprintf(buf, n, N_("its own commands keep the device busy, and nobody else runs on it"));
	}
	return buf;
}

static void add_hold(json_t *holds, const struct pen_seat *s, uint64_t *longest, unsigned *reason, char *by, size_t by_n)
{
	const struct pen_ledger_client *c = &s->place->ledger->client[s->index];
	uint32_t r = atomic_load_explicit(&c->hold_reason, memory_order_relaxed);
	uint32_t seat = atomic_load_explicit(&c->hold_seat, memory_order_relaxed);
	uint64_t since = atomic_load_explicit(&c->hold_since_ns, memory_order_relaxed), now = pen_mono_ns();
	if (!r || r > PEN_HOLD_MAX_)
		return;
	uint64_t so_far = since && since < now ? now - since : 0;
	const struct pen_seat *other = seat < PEN_SEATS ? s->place->device->seat[seat] : NULL;
	const struct pen_tenant *who = other ? other->place->tenant : r - 1 == PEN_HOLD_EXCLUSIVE ? pen_exclusive_on(s->place->device) : NULL;
	json_t *o = json_pack("{s:s, s:i, s:s, s:s, s:o}", "device", s->place->device->key, "pid",
			      (int)s->client->peer.pid, "reason", hold_name[r - 1], "text", hold_text[r - 1], "since_ns",
			      pen_json_u64(so_far));
	json_object_set_new(o, "seat", other ? json_integer(seat) : json_null());
	json_object_set_new(o, "by", who ? json_string(who->name) : json_null());
	json_array_append_new(holds, o);
	if (so_far >= *longest) {
		*longest = so_far;
		*reason = r - 1;
		snprintf(by, by_n, "%s", who ? who->name : "");
	}
}

/* Why a waiting tenant is not admitted: the same check again, for its text. */
static void add_waiting(struct pen_api_call *call, json_t *holds)
{
	struct pen_err err = PEN_ERR_INIT;
	if (pen_tenant_would_admit(call->d, call->tenant, &err) < 0)
		json_array_append_new(holds, json_pack("{s:n, s:n, s:s, s:s, s:n, s:n, s:i}", "device", "pid", "reason",
						       "waiting", "text", err.text, "seat", "by", "since_ns", 0));
}

/* Not held, but refused: within the last minute, for what others were promised or use. */
static const char *suggest_memory(const struct pen_tenant *t, char *buf, size_t n)
{
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++) {
		const struct pen_place *p = t->place[i];
		if (!p || !p->lent_denied_ns || pen_mono_ns() - p->lent_denied_ns > 60 * PEN_S)
			continue;
		snprintf(buf, n, N_("memory was refused on %s: what is left is promised to other tenants or in use by them; a guarantee keeps it free: penstock set %s --memory X.."),
			 p->device->key, t->name);
		return buf;
	}
	return "";
}

/*
 * What is on the device already goes on: that a request waits for it is seen by no gate, since its commands were let through. So who else has run
 * on its devices in the last second is named, and the longest single command of that one, which is the most that such a wait can be.
 */
static const struct pen_place *longest_neighbour(const struct pen_tenant *t, uint64_t *ret_ns)
{
	const struct pen_place *found = NULL;
	*ret_ns = 0;
	for (unsigned i = 0; t->clients && i < PEN_DAEMON_DEVICES; i++)
		for (unsigned k = 0; t->place[i] && k < PEN_TENANT_SLOTS; k++) {
			const struct pen_place *p = t->place[i]->device->slot[k];
			struct pen_totals totals;
			if (!p || p->tenant == t || !p->share_ppm_1s)
				continue;
			pen_place_totals(p, &totals);
			if (totals.max_command_ns > *ret_ns) {
				*ret_ns = totals.max_command_ns;
				found = p;
			}
		}
	return found;
}

/* Of one that nobody holds: "" if nobody else runs on its devices either. */
static const char *suggest_neighbour(const struct pen_place *p, uint64_t ns, char *buf, size_t n)
{
	char span[32];
	if (!p)
		return "";
	snprintf(buf, n, N_("a request waits for the command of %s that runs on %s when it begins, up to its longest one of %s (a bound, not a measurement); shorter commands there shorten the wait"),
		 p->tenant->name, p->device->key, pen_format_duration(span, sizeof(span), ns));
	return buf;
}

int pen_api_why(struct pen_api_call *call)
{
	json_t *holds = json_array();
	uint64_t longest = 0;
	unsigned reason = PEN_HOLD_MAX_;
	char by[PEN_NAME_MAX + 1] = "", text[512];
	for (unsigned i = 0; i < PEN_DAEMON_DEVICES; i++) {
		const struct pen_place *p = call->tenant->place[i];
		for (unsigned k = 0; p && p->ledger && k < PEN_SEATS; k++)
			if (p->device->seat[k] && p->device->seat[k]->place == p)
				add_hold(holds, p->device->seat[k], &longest, &reason, by, sizeof(by));
	}
	if (call->tenant->state == PEN_TENANT_WAITING)
		add_waiting(call, holds);
	uint64_t longest_ns;
	const struct pen_place *beside = longest_neighbour(call->tenant, &longest_ns);
	const char *s = reason == PEN_HOLD_MAX_ ? suggest_memory(call->tenant, text, sizeof(text)) : "";
	if (!*s && (reason == PEN_HOLD_MAX_ || reason == PEN_HOLD_WINDOW))
		s = suggest_neighbour(beside, longest_ns, text, sizeof(text));
	if (!*s && reason != PEN_HOLD_MAX_)
		s = suggest(call->tenant, reason, by, text, sizeof(text));
	json_t *reasons = json_object();
	for (size_t i = 0; i < PEN_ARRAY_LEN(hold_name); i++)
		json_object_set_new(reasons, hold_name[i], json_string(hold_text[i]));
	json_t *o = json_pack("{s:o, s:s, s:o}", "holds", holds, "suggestion", s, "reasons", reasons);
	json_object_set_new(o, "beside", beside ? json_pack("{s:s, s:s, s:o}", "tenant", beside->tenant->name, "device", beside->device->key,
							    "max_command_ns", pen_json_u64(longest_ns)) : json_null());
	return pen_api_answer(call, 200, o);
}

int pen_api_container(struct pen_api_call *call)
{
	struct pen_service_edit *v = calloc(PEN_EDITS_MAX, sizeof(*v));
	if (!v)
		return pen_api_error(call, 500, "no-memory", N_("out of memory"));
	size_t n = pen_container_edits(call->d, call->tenant, NULL, v, PEN_EDITS_MAX);
	json_t *env = json_object(), *mounts = json_array(), *nodes = json_array();
	for (size_t i = 0; i < n; i++) {
		if (v[i].kind == PEN_EDIT_ENV)
			json_object_set_new(env, v[i].inside, json_string(v[i].host));
		else if (v[i].kind == PEN_EDIT_NODE)
			json_array_append_new(nodes, json_string(v[i].inside));
		else
			json_array_append_new(mounts, json_pack("{s:s, s:s}", "container", v[i].inside, "host", v[i].host));
	}
	free(v);
	return pen_api_answer(call, 200, json_pack("{s:o, s:o, s:o}", "env", env, "mounts", mounts, "nodes", nodes));
}
