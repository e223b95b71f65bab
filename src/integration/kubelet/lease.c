/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases. One is a set of slots of one card and a tenant that has them.
 *
 * The kubelet says when it gives an ID away and never when it takes it back; it may ask twice for one container, for the init container and the
 * container of one pod before either starts, and for a pod that is then thrown out. So:
 *
 * - as long as nobody has come with the token, the same slots get the same token again: whoever of the two comes, comes to one contract;
 * - afterwards they get a new one. The old lease keeps what it has until somebody comes with the new token, and then ends: a kubelet gives an
 *   ID to another pod only when the first one's containers are gone;
 * - of leases for the same slots one holds what the contract promises, the others have lapsed.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "integration/kubelet/internal.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <sys/random.h>
#include <utlist.h>

#define LEASES_OF_A_SLOT 4   /* nobody can be waiting with older tokens */

static struct pen_kube_lease *find(struct pen_kube *k, const char *tenant)
{
	struct pen_kube_lease *l;
	DL_FOREACH(k->leases, l)
		if (!strcmp(l->tenant, tenant))
			return l;
	return NULL;
}

static bool overlap(const struct pen_kube_lease *a, const struct pen_kube_lease *b)
{
	return a->card == b->card && (a->slots & b->slots) && !strcmp(a->resource, b->resource);
}

static void drop(struct pen_kube *k, struct pen_kube_lease *l)
{
	DL_DELETE(k->leases, l);
	free(l);
}

static void end(struct pen_kube *k, struct pen_kube_lease *l, const char *why)
{
	pen_service_tenant_end(k->s, l->tenant, why);
	drop(k, l);
}

uint64_t pen_kube_leased(const struct pen_kube *k, const char *resource, unsigned card)
{
	uint64_t slots = 0;
	const struct pen_kube_lease *l;
	DL_FOREACH(k->leases, l)
		if (l->state != PEN_KUBE_LEASE_LAPSED && l->card == card && !strcmp(l->resource, resource))
			slots |= l->slots;
	return slots;
}

/* ---- what is kept ----------------------------------------------------------------------------------------------------- */

static char *note_of(const struct pen_kube_lease *l)
{
	char slots[20];
	snprintf(slots, sizeof(slots), "%llx", (unsigned long long)l->slots);
	json_t *o = json_pack("{s:s, s:i, s:s, s:I, s:b}", "resource", l->resource, "card", (int)l->card, "slots", slots, "seq",
			      (json_int_t)l->seq, "claimed", l->claimed);
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	return text;
}

static bool read_note(const char *text, struct pen_kube_lease *l)
{
	json_t *o = json_loads(text, 0, NULL);
	const char *resource = json_string_value(json_object_get(o, "resource"));
	const char *slots = json_string_value(json_object_get(o, "slots"));
	json_int_t card = json_integer_value(json_object_get(o, "card"));
	bool ok = resource && slots && strlen(resource) < sizeof(l->resource) && card >= 0 && card < PEN_KUBE_CARDS;
	if (ok) {
		snprintf(l->resource, sizeof(l->resource), "%s", resource);
		l->card = (unsigned)card;
		l->slots = strtoull(slots, NULL, 16);
		l->seq = (uint64_t)json_integer_value(json_object_get(o, "seq"));
		l->claimed = json_is_true(json_object_get(o, "claimed"));
	}
	json_decref(o);
	return ok && l->slots;
}

static void restore_one(void *arg, const struct pen_service_tenant *t)
{
	struct pen_kube *k = arg;
	struct pen_kube_lease *l = calloc(1, sizeof(*l));
	if (!l)
		return;
	if (!read_note(t->note, l)) {
		free(l);
		pen_service_tenant_end(k->s, t->name, "nobody knows whose it was");
		return;
	}
	snprintf(l->tenant, sizeof(l->tenant), "%s", t->name);
	l->since_ns = l->made_ns = pen_mono_ns();   /* the time that the daemon was away does not count */
	l->state = t->lapsed ? PEN_KUBE_LEASE_LAPSED : l->claimed ? PEN_KUBE_LEASE_IDLE : PEN_KUBE_LEASE_PROVISIONAL;
	l->seen = l->claimed;
	k->seq = PEN_MAX(k->seq, l->seq);
	DL_APPEND(k->leases, l);
}

static bool lapse(struct pen_kube *k, struct pen_kube_lease *l)
{
	if (pen_service_tenant_lapse(k->s, l->tenant) < 0)
		return false;   /* it has processes */
	l->state = PEN_KUBE_LEASE_LAPSED;
	return true;
}

/* Of leases for the same slots one holds: what the store had written last may be of before the newer one was given. */
static void let_one_hold(struct pen_kube *k, struct pen_kube_lease *a, struct pen_kube_lease *b)
{
	struct pen_kube_lease *older = a->seq < b->seq ? a : b, *newer = older == a ? b : a;
	if (a->state != PEN_KUBE_LEASE_LAPSED && b->state != PEN_KUBE_LEASE_LAPSED && overlap(a, b) && !lapse(k, older))
		lapse(k, newer);
}

void pen_kube_leases_restore(struct pen_kube *k)
{
	struct pen_kube_lease *a, *b;
	pen_service_tenants(k->s, restore_one, k);
	DL_FOREACH(k->leases, a)
		for (b = a->next; b; b = b->next)
			let_one_hold(k, a, b);
}

/* ---- giving ------------------------------------------------------------------------------------------------------------- */

static struct pen_kube_lease *unclaimed(struct pen_kube *k, const struct pen_kube_lease *want)
{
	struct pen_kube_lease *l, *newest = NULL;
	DL_FOREACH(k->leases, l)
		if (overlap(l, want) && (!newest || l->seq > newest->seq))
			newest = l;
	return newest && newest->slots == want->slots && !newest->claimed && !newest->seen ? newest : NULL;
}

/* Others of these slots give back what nobody uses. Return: false if one is in use: the new lease must wait for it to end. */
static bool make_way(struct pen_kube *k, const struct pen_kube_lease *want)
{
	struct pen_kube_lease *l;
	bool way = true;
	DL_FOREACH(k->leases, l) {
		if (overlap(l, want) && l->state != PEN_KUBE_LEASE_LAPSED && !lapse(k, l))
			way = false;
	}
	return way;
}

static void forget_oldest(struct pen_kube *k, const struct pen_kube_lease *want)
{
	for (;;) {
		struct pen_kube_lease *l, *oldest = NULL;
		unsigned n = 0;
		DL_FOREACH(k->leases, l) {
			if (!overlap(l, want) || l->state != PEN_KUBE_LEASE_LAPSED)
				continue;
			n++;
			if (!oldest || l->seq < oldest->seq)
				oldest = l;
		}
		if (n < LEASES_OF_A_SLOT)
			return;
		end(k, oldest, "its slots were given away again and again");
	}
}

/* PROFILE-g0-s3-1f3a: tells an operator where it is, and is another one every time. */
static int name_it(const struct pen_kube_plugin *p, struct pen_kube_lease *l)
{
	char id[PEN_KUBE_ID_MAX];
	uint16_t r;
	if (getrandom(&r, sizeof(r), 0) != sizeof(r))
		return -errno;
	pen_kube_id(id, l->card, (unsigned)__builtin_ctzll(l->slots));
	snprintf(l->tenant, sizeof(l->tenant), "%.44s-%s-%04x", p->profile.contract.name, id, r);
	return 0;
}

static int make_tenant(struct pen_kube_plugin *p, const struct pen_kube_card *c, struct pen_kube_lease *l, bool lapsed,
		       struct pen_err *err)
{
	struct pen_contract contract;
	pen_auto_free char *note = note_of(l);
	if (!note)
		return pen_err_sys(err, -ENOMEM, "lease");
	pen_kube_contract(&p->profile, c, (unsigned)__builtin_popcountll(l->slots), &contract);
	for (unsigned i = 0;; i++) {   /* some other one may have the name already */
		int r = name_it(p, l);
		if (r < 0)
			return pen_err_sys(err, r, "lease");
		snprintf(contract.name, sizeof(contract.name), "%s", l->tenant);
		r = pen_service_tenant_make(p->k->s, &contract, lapsed, note, err);
		if (r != -EEXIST || i == 8)
			return r;
	}
}

/* Init container and container of one pod, or a pod after one that was thrown out: one contract. */
static int give_again(struct pen_kube *k, struct pen_kube_lease *l, struct pen_kube_lease **ret_lease, struct pen_err *err)
{
	if (l->state == PEN_KUBE_LEASE_LAPSED && make_way(k, l)) {
		int r = pen_service_tenant_hold(k->s, l->tenant, err);
		if (r < 0)
			return r;
		l->state = PEN_KUBE_LEASE_PROVISIONAL;
		pen_kube_relist_soon(k);
	}
	l->since_ns = l->made_ns = pen_mono_ns();
	*ret_lease = l;
	return 0;
}

int pen_kube_lease_give(struct pen_kube_plugin *p, const struct pen_kube_card *c, uint64_t slots, struct pen_kube_lease **ret_lease,
			struct pen_err *err)
{
	struct pen_kube *k = p->k;
	struct pen_kube_lease want = { .card = c->n, .slots = slots };
	snprintf(want.resource, sizeof(want.resource), "%s", p->resource);
	struct pen_kube_lease *l = unclaimed(k, &want);
	if (l)
		return give_again(k, l, ret_lease, err);
	bool way = make_way(k, &want);
	forget_oldest(k, &want);
	l = malloc(sizeof(*l));
	if (!l)
		return pen_err_sys(err, -ENOMEM, "lease");
	*l = want;
	l->seq = ++k->seq;
	l->since_ns = l->made_ns = pen_mono_ns();
	l->state = way ? PEN_KUBE_LEASE_PROVISIONAL : PEN_KUBE_LEASE_LAPSED;
	int r = make_tenant(p, c, l, !way, err);
	if (r < 0) {
		free(l);
		return r;
	}
	DL_APPEND(k->leases, l);
	pen_kube_sweep_arm(k);
	pen_kube_relist_soon(k);
	*ret_lease = l;
	return 0;
}

/* ---- claiming ----------------------------------------------------------------------------------------------------------- */

/* Of leases for the same slots the claimed one is the one that counts now. */
static void take_over(struct pen_kube *k, struct pen_kube_lease *l)
{
	struct pen_kube_lease *o, *next;
	DL_FOREACH_SAFE(k->leases, o, next) {
		if (o == l || !overlap(o, l))
			continue;
		if (o->seq < l->seq)
			end(k, o, "its slots were given to another container, which has come");
		else if (o->state != PEN_KUBE_LEASE_LAPSED)
			lapse(k, o);
	}
}

static void keep_claimed(struct pen_kube *k, struct pen_kube_lease *l)
{
	if (l->claimed)
		return;
	l->claimed = true;
	pen_auto_free char *note = note_of(l);
	if (note)
		pen_service_tenant_note(k->s, l->tenant, note);
}

struct others {
	struct pen_kube *k;
	const struct pen_kube_lease *own;
	bool found;
};

static void look_at_mount(void *arg, const char *name)
{
	struct others *o = arg;
	const struct pen_kube_lease *l = find(o->k, name);
	o->found |= l && l != o->own;
}

/*
 * Of two resources in one container both directories would be mounted at one place, of which the kubelet takes either: so each is mounted
 * at a place of its own as well. The process's environment would say it too, but is in memory that it may make us wait for.
 */
static bool has_another(struct pen_kube *k, const struct pen_kube_lease *l, pid_t pid)
{
	struct others o = { .k = k, .own = l };
	struct pen_kube_place place;
	return pen_kube_place_now(pen_service_config(k->s)->runtime_dir, &place) == 0 &&
	       pen_kube_each_mount(pid, &place, look_at_mount, &o) == 0 && o.found;
}

int pen_kube_lease_claim(struct pen_kube *k, const char *tenant, pid_t pid, char *why, size_t n)
{
	struct pen_kube_lease *l = find(k, tenant);
	struct pen_kube_who who;
	struct pen_err err = PEN_ERR_INIT;
	if (!l)
		return 0;
	if (pid && has_another(k, l, pid)) {
		snprintf(why, n, "the container has slots of two resources; ask for one resource of Penstock");
		return -EXDEV;
	}
	take_over(k, l);
	if (l->state == PEN_KUBE_LEASE_LAPSED) {
		int r = pen_service_tenant_hold(k->s, l->tenant, &err);
		if (r < 0) {
			snprintf(why, n, "%s", err.text);
			return r;
		}
	}
	l->state = PEN_KUBE_LEASE_ACTIVE;
	l->seen = true;
	l->since_ns = pen_mono_ns();
	keep_claimed(k, l);
	if (pid && pen_kube_who_process(pid, &who) == 0 && strcmp(who.container_id, l->container)) {
		snprintf(l->container, sizeof(l->container), "%s", who.container_id);
		pen_kube_identify(k, l, &who);
	}
	pen_kube_sweep_arm(k);
	pen_kube_relist_soon(k);
	return 0;
}

/* ---- the daemon's side --------------------------------------------------------------------------------------------------- */

void pen_kube_leases_update(struct pen_kube *k)
{
	struct pen_kube_lease *l, *next;
	DL_FOREACH_SAFE(k->leases, l, next) {
		struct pen_service_tenant t;
		if (pen_service_tenant_look(k->s, l->tenant, &t) < 0) {   /* a person has ended it */
			drop(k, l);
			continue;
		}
		if (t.clients) {
			l->state = PEN_KUBE_LEASE_ACTIVE;
			l->seen = true;
		} else if (l->state == PEN_KUBE_LEASE_ACTIVE) {
			l->state = PEN_KUBE_LEASE_IDLE;
			l->since_ns = pen_mono_ns();
		}
		if (!t.clients && t.lapsed)
			l->state = PEN_KUBE_LEASE_LAPSED;
		else if (!t.lapsed && l->state == PEN_KUBE_LEASE_LAPSED)
			l->state = l->claimed || l->seen ? PEN_KUBE_LEASE_IDLE : PEN_KUBE_LEASE_PROVISIONAL;
	}
	pen_kube_sweep_arm(k);
}

void pen_kube_leases_free(struct pen_kube *k)
{
	while (k->leases)
		drop(k, k->leases);
}
