/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kubelet's own note of which container has which IDs. It is no interface, so nothing rests on it alone: it keeps slots healthy that the kubelet
 * holds for a pod whose lease has lapsed, ends leases of pods that are gone, and names a pod where nothing else does. It is read when inotify
 * says that it was written, aside from the loop, since it lies on a disk.
 */
#include "base/auto.h"
#include "integration/kubelet/internal.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#define FILE_MAX (16 << 20)
#define ENTRIES_MAX 16384

void pen_kube_checkpoint_free(struct pen_kube_checkpoint *c)
{
	free(c->v);
	*c = (struct pen_kube_checkpoint){ .v = NULL };
}

static const char *text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s ? s : "";
}

static int add_id(struct pen_kube_checkpoint *c, const json_t *entry, const char *id)
{
	struct pen_kube_entry e;
	if (!id || pen_kube_id_parse(id, &e.card, &e.slot) < 0 || c->n == ENTRIES_MAX)
		return 0;
	if ((c->n & (c->n - 1)) == 0) {   /* full at every power of two */
		struct pen_kube_entry *v = realloc(c->v, (c->n ? c->n * 2 : 1) * sizeof(*v));
		if (!v)
			return -ENOMEM;
		c->v = v;
	}
	snprintf(e.resource, sizeof(e.resource), "%s", text_of(entry, "ResourceName"));
	snprintf(e.pod_uid, sizeof(e.pod_uid), "%s", text_of(entry, "PodUID"));
	snprintf(e.container, sizeof(e.container), "%s", text_of(entry, "ContainerName"));
	c->v[c->n++] = e;
	return 0;
}

/* A list of IDs, or, of kubelets since 1.20, lists by NUMA node. */
static int add_ids(struct pen_kube_checkpoint *c, const json_t *entry, json_t *ids)
{
	const char *node;
	size_t i;
	json_t *v;
	int r = 0;
	if (json_is_array(ids)) {
		json_array_foreach(ids, i, v)
			if (r == 0)
				r = add_id(c, entry, json_string_value(v));
		return r;
	}
	json_object_foreach(ids, node, v) {
		size_t k;
		json_t *id;
		json_array_foreach(v, k, id)
			if (r == 0)
				r = add_id(c, entry, json_string_value(id));
	}
	return r;
}

int pen_kube_checkpoint_parse(const char *text, size_t len, struct pen_kube_checkpoint *ret)
{
	struct pen_kube_checkpoint c = { .known = true };
	json_t *o = json_loadb(text, len, 0, NULL), *entries, *entry;
	size_t i;
	int r = json_is_object(json_object_get(o, "Data")) ? 0 : -EINVAL;
	entries = json_object_get(json_object_get(o, "Data"), "PodDeviceEntries");   /* null, if there are none */
	json_array_foreach(entries, i, entry)
		if (r == 0)
			r = add_ids(&c, entry, json_object_get(entry, "DeviceIDs"));
	json_decref(o);
	if (r < 0)
		pen_kube_checkpoint_free(&c);
	else
		*ret = c;
	return r;
}

uint64_t pen_kube_checkpointed(const struct pen_kube *k, const char *resource, unsigned card)
{
	uint64_t slots = 0;
	for (size_t i = 0; i < k->checkpoint.n; i++)
		if (k->checkpoint.v[i].card == card && !strcmp(k->checkpoint.v[i].resource, resource))
			slots |= UINT64_C(1) << k->checkpoint.v[i].slot;
	return slots;
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

struct job {
	struct pen_kube *k;
	char path[PEN_CONFIG_PATH_MAX + 64];
	struct pen_kube_checkpoint result;
};

static void read_work(void *arg)
{
	struct job *j = arg;
	pen_auto_free char *text = NULL;
	ssize_t n = pen_kube_read_file(j->path, FILE_MAX, &text);
	if (n >= 0)
		pen_kube_checkpoint_parse(text, (size_t)n, &j->result);   /* half written: another event will come */
}

static void drop(void *arg)
{
	struct job *j = arg;
	pen_kube_checkpoint_free(&j->result);
	free(j);
}

static void read_done(void *arg)
{
	struct job *j = arg;
	struct pen_kube *k = j->k;
	k->reads_checkpoint = false;
	if (j->result.known) {
		pen_kube_checkpoint_free(&k->checkpoint);
		k->checkpoint = j->result;
		j->result = (struct pen_kube_checkpoint){ .v = NULL };
		pen_kube_relist_soon(k);
		pen_kube_sweep_arm(k);
	}
	drop(j);
	if (k->read_again)
		pen_kube_checkpoint_read(k);
}

void pen_kube_checkpoint_read(struct pen_kube *k)
{
	k->read_again = k->reads_checkpoint;
	if (k->reads_checkpoint)
		return;
	struct job *j = calloc(1, sizeof(*j));
	if (!j)
		return;
	j->k = k;
	snprintf(j->path, sizeof(j->path), "%s/" PEN_KUBE_CHECKPOINT, k->dir);
	if (pen_service_work(k->s, read_work, read_done, drop, j) < 0) {
		drop(j);
		return;
	}
	k->reads_checkpoint = true;
}
