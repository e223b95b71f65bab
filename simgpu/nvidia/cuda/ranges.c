/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lies at an address, for all that the heap does not know by itself: host memory, managed memory,
 * mappings, imports.
 */
#include "simgpu/nvidia/cuda/mem.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *tree;
static _Atomic uint64_t next_id = UINT64_C(1) << 40; /* above the heap's */

/* Ranges do not overlap, so "equal" is "touches": looking for one byte finds the range that it lies in. */
static int compare(const void *x, const void *y)
{
	const struct sim_range *a = x, *b = y;

	return a->base + a->bytes <= b->base ? -1 : b->base + b->bytes <= a->base ? 1 : 0;
}

int sim_range_add(const struct sim_range *r)
{
	struct sim_range *copy = malloc(sizeof(*copy)), **at;
	int e = 0;

	if (!copy)
		return -ENOMEM;
	*copy = *r;
	copy->id = atomic_fetch_add(&next_id, 1);
	pthread_mutex_lock(&lock);
	at = tsearch(copy, &tree, compare);
	if (!at)
		e = -ENOMEM;
	else if (*at != copy)
		e = -EEXIST;
	pthread_mutex_unlock(&lock);
	if (e)
		free(copy);
	return e;
}

bool sim_range_find(CUdeviceptr p, struct sim_range *ret)
{
	struct sim_range key = { .base = p, .bytes = 1 }, **at;

	pthread_mutex_lock(&lock);
	at = tfind(&key, &tree, compare);
	if (at)
		*ret = **at;
	pthread_mutex_unlock(&lock);
	return at != NULL;
}

bool sim_range_remove(CUdeviceptr base, struct sim_range *ret)
{
	struct sim_range key = { .base = base, .bytes = 1 }, **at, *found = NULL;

	pthread_mutex_lock(&lock);
	at = tfind(&key, &tree, compare);
	if (at && (*at)->base == base) {
		found = *at;
		tdelete(found, &tree, compare);
	}
	pthread_mutex_unlock(&lock);
	if (found && ret)
		*ret = *found;
	free(found);
	return found != NULL;
}

void sim_range_set_flags(CUdeviceptr base, uint32_t flags)
{
	struct sim_range key = { .base = base, .bytes = 1 }, **at;

	pthread_mutex_lock(&lock);
	at = tfind(&key, &tree, compare);
	if (at && (*at)->base == base)
		(*at)->flags = flags;
	pthread_mutex_unlock(&lock);
}

struct search {
	CUcontext ctx;
	void *object;
	struct sim_range *found;
	size_t n, room;
};

static void look(const void *node, VISIT order, void *arg)
{
	struct sim_range *const *at = node;
	struct search *s = arg;

	if ((order != preorder && order != leaf) ||
	    (s->object ? (*at)->object != s->object : (*at)->ctx != s->ctx))
		return;
	if (s->n == s->room) {
		size_t room = s->room ? 2 * s->room : 64;
		struct sim_range *more = realloc(s->found, room * sizeof(*more));

		if (!more)
			return;
		s->found = more;
		s->room = room;
	}
	s->found[s->n++] = **at;
}

size_t sim_range_collect(CUcontext ctx, void *object, struct sim_range **ret)
{
	struct search s = { .ctx = ctx, .object = object };

	pthread_mutex_lock(&lock);
	twalk_r(tree, look, &s);
	pthread_mutex_unlock(&lock);
	*ret = s.found;
	return s.n;
}
