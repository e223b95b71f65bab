/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kubelet is told: registration, options, and the list of slots with their health.
 *
 * Several profiles stand over one card's budget. A free slot that no longer fits is unhealthy, so that no pod is sent for it. A slot that
 * somebody has stays healthy whatever happens to our books: at its next start the kubelet throws out pods whose slots are not.
 */
#include "base/auto.h"
#include "integration/kubelet/deviceplugin.pb-c.h"
#include "integration/kubelet/internal.h"

#include <errno.h>
#include <string.h>

static uint64_t first(unsigned n)
{
	return n >= 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1;
}

/* The lowest @n bits of a mask. */
static uint64_t lowest(uint64_t mask, unsigned n)
{
	uint64_t out = 0;
	for (; n && mask; n--) {
		out |= mask & -mask;
		mask &= mask - 1;
	}
	return out;
}

uint64_t pen_kube_slots_known(const struct pen_kube_plugin *p, const struct pen_kube_card *c)
{
	/* Beyond the count, after it was lowered: only as long as somebody has them. */
	return first(pen_kube_slots_on(&p->profile, c)) | pen_kube_leased(p->k, p->resource, c->n) |
	       pen_kube_checkpointed(p->k, p->resource, c->n);
}

void pen_kube_slots(struct pen_kube_plugin *p, const struct pen_kube_card *c, uint64_t *ret_all, uint64_t *ret_healthy)
{
	struct pen_kube *k = p->k;
	uint64_t held = pen_kube_leased(k, p->resource, c->n), believed = pen_kube_checkpointed(k, p->resource, c->n);
	uint64_t had = held | believed, free_ones = pen_kube_slots_known(p, c) & ~had;
	struct pen_contract one;
	*ret_all = had | free_ones;
	*ret_healthy = 0;
	if (c->lost || (!c->present && pen_service_probed(k->s)))
		return;
	*ret_healthy = had;
	if (c->drained || !c->present || !free_ones)
		return;
	pen_kube_contract(&p->profile, c, 1, &one);
	/* What the kubelet holds for a pod and we do not would have to fit first, were its pod to come. */
	unsigned waiting = (unsigned)__builtin_popcountll(believed & ~held);
	unsigned room = pen_service_room(k->s, c->key, &one, waiting + (unsigned)__builtin_popcountll(free_ones));
	*ret_healthy |= lowest(free_ones, room > waiting ? room - waiting : 0);
}

static ssize_t pack(const ProtobufCMessage *m, uint8_t **ret_message)
{
	size_t n = protobuf_c_message_get_packed_size(m);
	uint8_t *data = malloc(n ? n : 1);
	if (!data)
		return -ENOMEM;
	protobuf_c_message_pack(m, data);
	*ret_message = data;
	return (ssize_t)n;
}

/* Everything that a list of one plugin is made of. */
struct slot_message {
	V1beta1__Device device;
	V1beta1__TopologyInfo topology;
	V1beta1__NUMANode node, *nodes[1];
	char id[PEN_KUBE_ID_MAX];
};

static void fill(struct slot_message *m, const struct pen_kube_card *c, unsigned slot, bool healthy)
{
	static char yes[] = "Healthy", no[] = "Unhealthy";
	v1beta1__device__init(&m->device);
	m->device.id = pen_kube_id(m->id, c->n, slot);
	m->device.health = healthy ? yes : no;
	if (c->numa < 0)
		return;
	v1beta1__topology_info__init(&m->topology);
	v1beta1__numanode__init(&m->node);
	m->node.id = c->numa;
	m->nodes[0] = &m->node;
	m->topology.n_nodes = 1;
	m->topology.nodes = m->nodes;
	m->device.topology = &m->topology;
}

ssize_t pen_kube_pack_list(struct pen_kube_plugin *p, uint8_t **ret_message)
{
	struct pen_kube *k = p->k;
	const size_t most = k->n_cards * PEN_KUBE_SLOTS;
	pen_auto_free struct slot_message *m = calloc(most + 1, sizeof(*m));
	pen_auto_free V1beta1__Device **list = calloc(most + 1, sizeof(V1beta1__Device *));
	V1beta1__ListAndWatchResponse r = V1BETA1__LIST_AND_WATCH_RESPONSE__INIT;
	if (!m || !list)
		return -ENOMEM;
	size_t n = 0;
	for (unsigned number = 0; number < PEN_KUBE_CARDS; number++) {   /* in the order of their numbers: the same list is the same bytes */
		const struct pen_kube_card *c = pen_kube_card(k, number);
		uint64_t all = 0, healthy = 0;
		if (c)
			pen_kube_slots(p, c, &all, &healthy);
		for (unsigned s = 0; s < PEN_KUBE_SLOTS; s++)
			if (all >> s & 1) {
				fill(&m[n], c, s, healthy >> s & 1);
				list[n] = &m[n].device;
				n++;
			}
	}
	r.n_devices = n;
	r.devices = list;
	return pack(&r.base, ret_message);
}

static const V1beta1__DevicePluginOptions options = {
	.base = PROTOBUF_C_MESSAGE_INIT(&v1beta1__device_plugin_options__descriptor),
	.get_preferred_allocation_available = true,
};

ssize_t pen_kube_pack_options(uint8_t **ret_message)
{
	return pack(&options.base, ret_message);
}

ssize_t pen_kube_pack_register(const struct pen_kube_plugin *p, uint8_t **ret_message)
{
	static char version[] = "v1beta1";
	V1beta1__DevicePluginOptions own = options;
	V1beta1__RegisterRequest r = V1BETA1__REGISTER_REQUEST__INIT;
	char endpoint[sizeof(p->endpoint)], resource[sizeof(p->resource)];
	memcpy(endpoint, p->endpoint, sizeof(endpoint));
	memcpy(resource, p->resource, sizeof(resource));
	r.version = version;
	r.endpoint = endpoint;
	r.resource_name = resource;
	r.options = &own;   /* kubelets up to 1.24 take these and never ask */
	return pack(&r.base, ret_message);
}
