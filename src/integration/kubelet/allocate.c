/* SPDX-License-Identifier: Apache-2.0 */
/* Allocate, GetPreferredAllocation and PreStartContainer: answered at once and from memory, since the kubelet starts no pod meanwhile. */
#include "base/auto.h"
#include "integration/kubelet/deviceplugin.pb-c.h"
#include "integration/kubelet/internal.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#define CONTAINERS_MAX 64   /* of one request; kubelets send one */

/* ---- what is asked --------------------------------------------------------------------------------------------------- */

/* The IDs of one container. Return: 0; -EINVAL, -EXDEV more than one card, -ENODEV, with a text. */
static int read_ids(struct pen_kube_plugin *p, char *const *ids, size_t n, const struct pen_kube_card **ret_card, uint64_t *ret_slots,
		    struct pen_err *err)
{
	uint64_t slots = 0;
	unsigned card = 0;
	if (!n)
		return pen_err_x(err, -EINVAL, "no device IDs");
	for (size_t i = 0; i < n; i++) {
		unsigned g, s;
		if (pen_kube_id_parse(ids[i], &g, &s) < 0)
			return pen_err_x(err, -EINVAL, "'%.20s' is no ID of %s", ids[i], p->resource);
		if (i && g != card)
			return pen_err_x(err, -EXDEV,
					 "%s: %zu slots on more than one card (%s, %s): a container gets slots of one card; ask for fewer, or for a "
					 "larger profile", p->resource, n, ids[0], ids[i]);
		card = g;
		slots |= UINT64_C(1) << s;
	}
	const struct pen_kube_card *c = pen_kube_card(p->k, card);
	if (!c || c->lost)
		return pen_err_x(err, -ENODEV, "%s: card %u is not there", p->resource, card);
	if (slots & ~pen_kube_slots_known(p, c))
		return pen_err_x(err, -ENODEV, "%s: card %u has no such slot (%s%s)", p->resource, card, ids[0], n > 1 ? ", ..." : "");
	*ret_card = c;
	*ret_slots = slots;
	return 0;
}

/* ---- what a container gets ------------------------------------------------------------------------------------------- */

#define ENVS_MAX PEN_EDITS_MAX

/* A response and all that it points to. */
struct answer {
	V1beta1__ContainerAllocateResponse m;
	V1beta1__ContainerAllocateResponse__EnvsEntry env[ENVS_MAX + 1], *envs[ENVS_MAX + 1];
	V1beta1__Mount mount[PEN_EDITS_MAX + 1], *mounts[PEN_EDITS_MAX + 1];
	V1beta1__DeviceSpec node[PEN_EDITS_MAX], *nodes[PEN_EDITS_MAX];
	V1beta1__CDIDevice cdi, *cdis[1];
	struct pen_service_edit edit[PEN_EDITS_MAX], place;
	char slot_key[sizeof(PEN_KUBE_SLOT_ENV) + PEN_KUBE_RESOURCE_MAX], slot_ids[PEN_KUBE_SLOTS * PEN_KUBE_ID_MAX];
	char cdi_name[PEN_DEVICE_MAX + 1];
};

static void put_env(struct answer *a, char *key, char *value)
{
	V1beta1__ContainerAllocateResponse__EnvsEntry *e = &a->env[a->m.n_envs];
	v1beta1__container_allocate_response__envs_entry__init(e);
	e->key = key;
	e->value = value;
	a->envs[a->m.n_envs++] = e;
}

static void put_mount(struct answer *a, struct pen_service_edit *e)
{
	V1beta1__Mount *m = &a->mount[a->m.n_mounts];
	v1beta1__mount__init(m);
	m->container_path = e->inside;
	m->host_path = e->host;
	m->read_only = true;
	a->mounts[a->m.n_mounts++] = m;
}

static void put_node(struct answer *a, struct pen_service_edit *e)
{
	static char rw[] = "rw";
	V1beta1__DeviceSpec *d = &a->node[a->m.n_devices];
	v1beta1__device_spec__init(d);
	d->container_path = e->inside;
	d->host_path = e->host;
	d->permissions = rw;
	a->nodes[a->m.n_devices++] = d;
}

/* The resource without our domain: "vgpu-2g", "nvidia.com/gpu". */
static const char *short_name(const struct pen_kube_plugin *p)
{
	const char *domain = pen_service_config(p->k->s)->kube_domain;
	size_t own = strlen(domain);
	return !strncmp(p->resource, domain, own) && p->resource[own] == '/' ? p->resource + own + 1 : p->resource;
}

/*
 * PENSTOCK_SLOT_VGPU_2G=g0-s3, for people. The kubelet merges the variables and mounts of all resources of a container, so each has its own; the
 * tenant's directory, which all have at one place, is mounted at one of its own as well, from which a claim sees that a container was given two.
 */
static void put_slot(struct answer *a, const struct pen_kube_plugin *p, unsigned card, uint64_t slots, const char *dir)
{
	const char *name = short_name(p);
	size_t at = strlen(PEN_KUBE_SLOT_ENV), len = 0;
	snprintf(a->place.inside, sizeof(a->place.inside), PEN_KUBE_SLOT_MOUNT "%s", name);
	for (char *s = a->place.inside + strlen(PEN_KUBE_SLOT_MOUNT); *s; s++)
		*s = *s == '/' ? '_' : *s;
	snprintf(a->place.host, sizeof(a->place.host), "%s", dir);
	put_mount(a, &a->place);
	memcpy(a->slot_key, PEN_KUBE_SLOT_ENV, at);
	for (; *name; name++)
		a->slot_key[at++] = isalnum((unsigned char)*name) ? (char)toupper((unsigned char)*name) : '_';
	a->slot_key[at] = 0;
	for (unsigned s = 0; s < PEN_KUBE_SLOTS; s++) {
		char id[PEN_KUBE_ID_MAX];
		if (slots >> s & 1)
			len += (size_t)snprintf(a->slot_ids + len, sizeof(a->slot_ids) - len, "%s%s", len ? "," : "",
						pen_kube_id(id, card, s));
	}
	put_env(a, a->slot_key, a->slot_ids);
}

static void fill(struct answer *a, struct pen_kube_plugin *p, const struct pen_kube_lease *l, const struct pen_kube_card *c)
{
	v1beta1__container_allocate_response__init(&a->m);
	a->m.envs = a->envs;
	a->m.mounts = a->mounts;
	a->m.devices = a->nodes;
	size_t n = pen_service_edits(p->k->s, l->tenant, c->key, a->edit, PEN_EDITS_MAX);
	for (size_t i = 0; i < n; i++) {
		struct pen_service_edit *e = &a->edit[i];
		if (e->vendor && p->profile.cdi[0])   /* the CDI device brings its own; what is in both comes twice */
			continue;
		if (e->kind == PEN_EDIT_ENV)
			put_env(a, e->inside, e->host);
		else if (e->kind == PEN_EDIT_MOUNT)
			put_mount(a, e);
		else
			put_node(a, e);
	}
	struct pen_service_tenant t;
	if (pen_service_tenant_look(p->k->s, l->tenant, &t) == 0)
		put_slot(a, p, l->card, l->slots, t.dir);
	if (!p->profile.cdi[0])
		return;
	memcpy(a->cdi_name, p->profile.cdi, sizeof(a->cdi_name));
	v1beta1__cdidevice__init(&a->cdi);
	a->cdi.name = a->cdi_name;
	a->cdis[0] = &a->cdi;
	a->m.cdi_devices = a->cdis;
	a->m.n_cdi_devices = 1;
}

static void reply(struct pen_grpc_call *call, const ProtobufCMessage *m)
{
	size_t n = protobuf_c_message_get_packed_size(m);
	pen_auto_free uint8_t *data = malloc(n ? n : 1);
	if (!data) {
		pen_grpc_fail(call, PEN_GRPC_RESOURCE_EXHAUSTED, "out of memory");
		return;
	}
	protobuf_c_message_pack(m, data);
	pen_grpc_reply(call, data, n);
}

static enum pen_grpc_status status_of(int r)
{
	switch (r) {
	case -EINVAL: return PEN_GRPC_INVALID_ARGUMENT;
	case -ENODEV: return PEN_GRPC_NOT_FOUND;
	case -EXDEV: return PEN_GRPC_FAILED_PRECONDITION;
	case -EAGAIN:
	case -ERANGE:
	case -ENOSPC:
	case -ENOMEM: return PEN_GRPC_RESOURCE_EXHAUSTED;
	default: return PEN_GRPC_INTERNAL;
	}
}

/* Leases for all containers of the request, and the answers that say so. */
static int give(struct pen_kube_plugin *p, const V1beta1__AllocateRequest *q, struct answer *a,
		V1beta1__ContainerAllocateResponse **list, struct pen_err *err)
{
	int r = 0;
	for (size_t i = 0; i < q->n_container_requests && r == 0; i++) {
		const V1beta1__ContainerAllocateRequest *one = q->container_requests[i];
		const struct pen_kube_card *c = NULL;
		struct pen_kube_lease *l = NULL;
		uint64_t slots = 0;
		r = read_ids(p, one->devices_ids, one->n_devices_ids, &c, &slots, err);
		if (r == 0)
			r = pen_kube_lease_give(p, c, slots, &l, err);
		if (r < 0 || !l)
			break;
		fill(&a[i], p, l, c);
		list[i] = &a[i].m;
	}
	return r;
}

void pen_kube_on_allocate(struct pen_kube_plugin *p, struct pen_grpc_call *call, const uint8_t *message, size_t len)
{
	struct pen_err err = PEN_ERR_INIT;
	V1beta1__AllocateRequest *q = v1beta1__allocate_request__unpack(NULL, len, message);
	if (!q || q->n_container_requests < 1 || q->n_container_requests > CONTAINERS_MAX) {
		pen_grpc_fail(call, PEN_GRPC_INVALID_ARGUMENT, q ? "no containers, or too many" : "the message is no AllocateRequest");
		v1beta1__allocate_request__free_unpacked(q, NULL);
		return;
	}
	pen_auto_free struct answer *a = calloc(q->n_container_requests, sizeof(*a));
	V1beta1__ContainerAllocateResponse *list[CONTAINERS_MAX];
	int r = a ? give(p, q, a, list, &err) : pen_err_sys(&err, -ENOMEM, "Allocate");
	if (r < 0) {
		pen_service_event(p->k->s, false, NULL, "Allocate of %s refused: %s", p->resource, err.text);
		pen_grpc_fail(call, status_of(r), "%s", err.text);
	} else {
		V1beta1__AllocateResponse m = V1BETA1__ALLOCATE_RESPONSE__INIT;
		m.n_container_responses = q->n_container_requests;
		m.container_responses = list;
		reply(call, &m.base);
	}
	v1beta1__allocate_request__free_unpacked(q, NULL);
}

/* ---- preference ------------------------------------------------------------------------------------------------------- */

/* What may be chosen, by card. */
struct choice {
	uint64_t may[PEN_KUBE_CARDS], must[PEN_KUBE_CARDS];
	unsigned n_must;
};

static void sort_in(char *const *ids, size_t n, uint64_t *masks, unsigned *count)
{
	for (size_t i = 0; i < n; i++) {
		unsigned g, s;
		if (pen_kube_id_parse(ids[i], &g, &s) < 0)
			continue;
		if (count && !(masks[g] >> s & 1))
			++*count;
		masks[g] |= UINT64_C(1) << s;
	}
}

/*
 * One card, since a container gets slots of one; of those that have enough the one with the fewest free, so that others stay whole for
 * who needs more. Return: its number; -1: none has enough.
 */
static int pick_card(const struct choice *x, unsigned want)
{
	int best = -1, best_free = 0;
	for (int g = 0; g < PEN_KUBE_CARDS; g++) {
		int n = __builtin_popcountll(x->may[g] | x->must[g]);
		bool all_musts = (unsigned)__builtin_popcountll(x->must[g]) == x->n_must;
		if (!all_musts || (unsigned)n < want || (best >= 0 && n >= best_free))
			continue;
		best = g;
		best_free = n;
	}
	return best;
}

struct preferred {
	V1beta1__ContainerPreferredAllocationResponse m;
	char id[PEN_KUBE_SLOTS][PEN_KUBE_ID_MAX];
	char *ids[PEN_KUBE_SLOTS];
};

static void prefer(const V1beta1__ContainerPreferredAllocationRequest *q, struct preferred *r)
{
	struct choice x = { .n_must = 0 };
	v1beta1__container_preferred_allocation_response__init(&r->m);
	r->m.deviceids = r->ids;
	if (q->allocation_size <= 0 || q->allocation_size > PEN_KUBE_SLOTS)
		return;
	unsigned want = (unsigned)q->allocation_size;
	sort_in(q->available_deviceids, q->n_available_deviceids, x.may, NULL);
	sort_in(q->must_include_deviceids, q->n_must_include_deviceids, x.must, &x.n_must);
	int g = pick_card(&x, want);
	if (g < 0)
		return;   /* no preference: Allocate will say what is wrong */
	for (unsigned pass = 0; pass < 2; pass++)   /* first those that it must have */
		for (unsigned s = 0; s < PEN_KUBE_SLOTS && r->m.n_deviceids < want; s++) {
			bool must = x.must[g] >> s & 1, may = x.may[g] >> s & 1;
			if (pass == 0 ? must : may && !must) {
				r->ids[r->m.n_deviceids] = pen_kube_id(r->id[r->m.n_deviceids], (unsigned)g, s);
				r->m.n_deviceids++;
			}
		}
}

void pen_kube_on_preferred(struct pen_kube_plugin *p, struct pen_grpc_call *call, const uint8_t *message, size_t len)
{
	(void)p;
	V1beta1__PreferredAllocationRequest *q = v1beta1__preferred_allocation_request__unpack(NULL, len, message);
	size_t n = q ? q->n_container_requests : 0;
	pen_auto_free struct preferred *r = n && n <= CONTAINERS_MAX ? calloc(n, sizeof(*r)) : NULL;
	V1beta1__ContainerPreferredAllocationResponse *list[CONTAINERS_MAX];
	V1beta1__PreferredAllocationResponse m = V1BETA1__PREFERRED_ALLOCATION_RESPONSE__INIT;
	if (!q || !r) {
		pen_grpc_fail(call, PEN_GRPC_INVALID_ARGUMENT, "the message is no PreferredAllocationRequest, or of no container");
		v1beta1__preferred_allocation_request__free_unpacked(q, NULL);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		prefer(q->container_requests[i], &r[i]);
		list[i] = &r[i].m;
	}
	m.n_container_responses = n;
	m.container_responses = list;
	reply(call, &m.base);
	v1beta1__preferred_allocation_request__free_unpacked(q, NULL);
}

/* ---- before a start ---------------------------------------------------------------------------------------------------- */

/* We do not ask for it: no container could start while the daemon is away. Who calls it all the same is answered. */
void pen_kube_on_pre_start(struct pen_kube_plugin *p, struct pen_grpc_call *call, const uint8_t *message, size_t len)
{
	V1beta1__PreStartContainerRequest *q = v1beta1__pre_start_container_request__unpack(NULL, len, message);
	V1beta1__PreStartContainerResponse m = V1BETA1__PRE_START_CONTAINER_RESPONSE__INIT;
	(void)p;
	if (q)
		reply(call, &m.base);
	else
		pen_grpc_fail(call, PEN_GRPC_INVALID_ARGUMENT, "the message is no PreStartContainerRequest");
	v1beta1__pre_start_container_request__free_unpacked(q, NULL);
}
