/* SPDX-License-Identifier: Apache-2.0 */
/* What this process has, from the pages that its gates have mapped. */
#include "base/clock.h"
#include "lib/lib.h"

#include <penstock/info.h>

#include <stddef.h>
#include <string.h>

_Static_assert(sizeof(struct penstock_info) == PENSTOCK_INFO_SIZE_1, "append: the first size stays");
_Static_assert(offsetof(struct penstock_info, epoch) == 280 && offsetof(struct penstock_info, denials) == 368,
	       "never moved");

struct place {
	const struct pen_gate_door *door;
	struct pen_gate *gate;
};

static uint32_t gates_of(const struct pen_gate_door *door)
{
	uint32_t n = 0;
	for (struct pen_gate *g = door->next(NULL); g; g = door->next(g))
		n++;
	return n;
}

/* A door has its gates newest first, and more may come at any time: so counted from the end. */
static struct pen_gate *gate_at(const struct pen_gate_door *door, uint32_t index)
{
	uint32_t n = gates_of(door);
	struct pen_gate *g = door->next(NULL);
	for (uint32_t i = n; g && i > index + 1; i--)
		g = door->next(g);
	return index < n ? g : NULL;
}

static int find(uint32_t index, struct place *ret)
{
	const struct pen_gate_door *door;
	uint32_t before = 0;
	for (unsigned i = 0; (door = pen_door(i)); i++) {
		uint32_t n = gates_of(door);
		if (index - before < n) {
			*ret = (struct place){ door, gate_at(door, index - before) };
			return PENSTOCK_OK;
		}
		before += n;
	}
	return before ? PENSTOCK_ERR_NOT_FOUND : PENSTOCK_ERR_NO_DEVICE;
}

static void text(char *to, size_t n, const char *from)
{
	size_t len = from ? strnlen(from, n - 1) : 0;
	memcpy(to, from ? from : "", len);
	to[len] = '\0';
}

static void fill_terms(struct penstock_info *o, const struct place *p, const struct pen_gate_who *who)
{
	struct pen_mem_view mem;
	p->door->mem_view(p->gate, &mem); /* takes over new terms */
	const struct pen_terms *t = p->door->terms(p->gate);
	o->flags |= PENSTOCK_INFO_ATTACHED;
	if (who->lease_until_ns >= pen_mono_ns())
		o->flags |= PENSTOCK_INFO_DAEMON;
	if (t->flags & PEN_TERMS_STOP)
		o->flags |= PENSTOCK_INFO_STOPPED;
	if (t->flags & (PEN_TERMS_STOP | PEN_TERMS_STOP_ALLOC))
		o->flags |= PENSTOCK_INFO_NO_MEMORY;
	if (t->flags & PEN_TERMS_EXCLUSIVE)
		o->flags |= PENSTOCK_INFO_EXCLUSIVE;
	o->epoch = t->epoch;
	o->memory_limit_bytes = mem.limit_bytes;
	o->memory_used_bytes = mem.used_bytes;
	o->memory_guaranteed_bytes = t->mem_guaranteed_bytes;
	o->memory_now_bytes = t->mem_cap_bytes > UINT64_MAX - t->mem_overhead_bytes
				      ? UINT64_MAX
				      : t->mem_cap_bytes + t->mem_overhead_bytes;
	o->device_memory_bytes = t->device_mem_bytes;
	o->target_ns = t->target_ns;
	o->bandwidth_cap_bytes_s = t->rate_cap_bytes_s;
	o->compute_guaranteed_ppm = t->share_guaranteed_ppm;
	o->compute_cap_ppm = t->share_cap_ppm;
	o->units = t->units;
	o->units_total = t->units_total;
	o->priority_class = t->class_;
	o->rank = t->rank;
	o->denials = who->denials;
}

PEN_EXPORT int penstock_info_get(uint32_t index, struct penstock_info *info)
{
	if (!info || info->size < PENSTOCK_INFO_SIZE_1)
		return PENSTOCK_ERR_INVALID;
	int r = pen_lib_managed();
	if (r)
		return r;
	pen_doors_look();
	struct place p;
	r = find(index, &p);
	if (r)
		return r;
	struct pen_gate_who who;
	p.door->who(p.gate, &who);
	struct penstock_info o = { .size = sizeof(o) };
	pen_lib_name(o.contract);
	text(o.device, sizeof(o.device), who.key);
	text(o.model, sizeof(o.model), who.model);
	text(o.api, sizeof(o.api), who.adapter);
	if (who.attached)
		fill_terms(&o, &p, &who);
	if (o.size > info->size)
		o.size = info->size;
	memcpy(info, &o, o.size);
	return PENSTOCK_OK;
}
