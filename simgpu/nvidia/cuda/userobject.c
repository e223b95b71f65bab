/* SPDX-License-Identifier: Apache-2.0 */
/* User objects: something of the program's that is released when the last graph that needs it has gone. */
#include "simgpu/nvidia/cuda/graph.h"

#include <stdlib.h>

struct CUuserObject_st {
	_Atomic uint64_t refs;
	CUhostFn release;
	void *data;
};

struct sim_user_ref {
	CUuserObject object;
	uint32_t count;
	struct sim_user_ref *next;
};

static void drop(CUuserObject o, uint32_t count)
{
	if (atomic_fetch_sub(&o->refs, count) > count)
		return;
	o->release(o->data);
	free(o);
}

CUresult cuUserObjectCreate(CUuserObject *ret, void *data, CUhostFn release, unsigned int count,
			    unsigned int flags)
{
	CUuserObject o;

	if (!ret || !release || !count || count > INT32_MAX ||
	    flags != 1) /* 1: nobody waits for the release, the only kind */
		return CUDA_ERROR_INVALID_VALUE;
	o = malloc(sizeof(*o));
	if (!o)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*o = (struct CUuserObject_st){ .refs = count, .release = release, .data = data };
	*ret = o;
	return CUDA_SUCCESS;
}

CUresult cuUserObjectRetain(CUuserObject o, unsigned int count)
{
	if (!o || !count || count > INT32_MAX)
		return CUDA_ERROR_INVALID_VALUE;
	atomic_fetch_add(&o->refs, count);
	return CUDA_SUCCESS;
}

CUresult cuUserObjectRelease(CUuserObject o, unsigned int count)
{
	if (!o || !count || count > INT32_MAX)
		return CUDA_ERROR_INVALID_VALUE;
	drop(o, count);
	return CUDA_SUCCESS;
}

static bool hold(struct sim_user_ref **list, CUuserObject o, uint32_t count)
{
	struct sim_user_ref *ref = malloc(sizeof(*ref));

	if (!ref)
		return false;
	*ref = (struct sim_user_ref){ o, count, *list };
	*list = ref;
	return true;
}

CUresult cuGraphRetainUserObject(CUgraph g, CUuserObject o, unsigned int count, unsigned int flags)
{
	enum { MOVE = 1 };

	if (sim_graph_check(g) || !o || !count || flags & ~(unsigned)MOVE)
		return CUDA_ERROR_INVALID_VALUE;
	if (!hold(&g->user, o, count))
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (!(flags & MOVE))
		atomic_fetch_add(&o->refs, count);
	return CUDA_SUCCESS;
}

CUresult cuGraphReleaseUserObject(CUgraph g, CUuserObject o, unsigned int count)
{
	if (sim_graph_check(g) || !o || !count)
		return CUDA_ERROR_INVALID_VALUE;
	for (struct sim_user_ref **at = &g->user; *at; at = &(*at)->next) {
		struct sim_user_ref *ref = *at;

		if (ref->object != o || ref->count < count)
			continue;
		ref->count -= count;
		if (!ref->count) {
			*at = ref->next;
			free(ref);
		}
		drop(o, count);
		return CUDA_SUCCESS;
	}
	return CUDA_ERROR_INVALID_VALUE;
}

void sim_user_refs_copy(struct sim_user_ref **to, const struct sim_user_ref *from)
{
	for (; from; from = from->next)
		if (hold(to, from->object, from->count))
			atomic_fetch_add(&from->object->refs, from->count);
}

void sim_user_refs_drop(struct sim_user_ref **list)
{
	while (*list) {
		struct sim_user_ref *ref = *list;

		*list = ref->next;
		drop(ref->object, ref->count);
		free(ref);
	}
}
