/* SPDX-License-Identifier: Apache-2.0 */
/* Coarse-grained shared virtual memory. A header before each block remembers its size, so that a free gives back what it took. */
#include "move.h"
#include "nullicd.h"
#include <stdlib.h>
#include <string.h>

#define WAIT_PARAMS cl_uint nwait, const cl_event *wait, cl_event *ret_event
#define SVM_ALIGN 128u

struct svm_head {
	cl_context context;
	size_t bytes;
};

void *nl_clSVMAlloc(cl_context c, cl_svm_mem_flags flags, size_t size, cl_uint alignment)
{
	struct svm_head *h;
	char *p;

	if (__builtin_expect(nl_watched, 0) && nl_watch(NL_FN_clSVMAlloc))
		return NULL;
	if (!NL_IS(c, NL_MAGIC_CONTEXT) || size == 0 || size > nl_config.mem_bytes / 4 ||
	    alignment > SVM_ALIGN || (alignment & (alignment - 1)) ||
	    (flags & (CL_MEM_SVM_FINE_GRAIN_BUFFER | CL_MEM_SVM_ATOMICS)))
		return NULL;
	if (!nl_take_bytes(c, size))
		return NULL;
	p = aligned_alloc(SVM_ALIGN, SVM_ALIGN + (size + SVM_ALIGN - 1) / SVM_ALIGN * SVM_ALIGN);
	if (!p) {
		nl_give_bytes(c, size);
		return NULL;
	}
	h = (struct svm_head *)(void *)p;
	*h = (struct svm_head){ .context = c, .bytes = size };
	atomic_fetch_add(&c->o.life, 1);
	return p + SVM_ALIGN;
}

static void svm_free(void *ptr)
{
	struct svm_head *h = ptr ? (struct svm_head *)(void *)((char *)ptr - SVM_ALIGN) : NULL;

	if (!h)
		return;
	nl_give_bytes(h->context, h->bytes);
	nl_context_unpin(h->context);
	free(h);
}

void nl_clSVMFree(cl_context c, void *ptr)
{
	if (__builtin_expect(nl_watched, 0) && nl_watch(NL_FN_clSVMFree))
		return;
	if (NL_IS(c, NL_MAGIC_CONTEXT))
		svm_free(ptr);
}

struct svm_free_list {
	void(CL_CALLBACK *fn)(cl_command_queue, cl_uint, void **, void *);
	void *user;
	cl_command_queue queue;
	cl_uint n;
	void *pointers[];
};

static void run_svm_free(const struct nl_op *op)
{
	struct svm_free_list *l = op->heap;

	if (l->fn)
		l->fn(l->queue, l->n, l->pointers, l->user);
	for (cl_uint i = 0; !l->fn && i < l->n; i++)
		svm_free(l->pointers[i]);
}

cl_int nl_clEnqueueSVMFree(cl_command_queue q, cl_uint n, void *pointers[],
			   void(CL_CALLBACK *fn)(cl_command_queue, cl_uint, void **, void *), void *user,
			   WAIT_PARAMS)
{
	struct nl_op op = { .run = run_svm_free };
	struct svm_free_list *l;

	NL_ENTER(clEnqueueSVMFree);
	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	if ((n == 0) != (pointers == NULL))
		return CL_INVALID_VALUE;
	l = malloc(sizeof(*l) + n * sizeof(void *));
	if (!l)
		return CL_OUT_OF_HOST_MEMORY;
	*l = (struct svm_free_list){ .fn = fn, .user = user, .queue = q, .n = n };
	if (n)
		memcpy(l->pointers, pointers, n * sizeof(void *));
	op.heap = l;
	return nl_submit(q, CL_COMMAND_SVM_FREE, &op, false, nwait, wait, ret_event);
}

cl_int nl_clEnqueueSVMMemcpy(cl_command_queue q, cl_bool blocking, void *dst, const void *src, size_t size,
			     WAIT_PARAMS)
{
	NL_ENTER(clEnqueueSVMMemcpy);
	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	if (!dst || !src)
		return CL_INVALID_VALUE;
	if ((char *)dst < (const char *)src + size && (const char *)src < (char *)dst + size)
		return CL_MEM_COPY_OVERLAP;
	struct nl_op op = { .run = nl_run_rect,
			    .ptr = { (void *)(uintptr_t)src, dst },
			    .n = { 0, 0, size, 1, 1 },
			    .cost_ns = nl_copy_cost(size) };

	return nl_submit(q, CL_COMMAND_SVM_MEMCPY, &op, blocking, nwait, wait, ret_event);
}

cl_int nl_clEnqueueSVMMemFill(cl_command_queue q, void *dst, const void *pattern, size_t pattern_size,
			      size_t size, WAIT_PARAMS)
{
	NL_ENTER(clEnqueueSVMMemFill);
	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	if (!dst || !pattern || pattern_size == 0 || pattern_size > 128 || size % pattern_size)
		return CL_INVALID_VALUE;
	struct nl_op op = { .run = nl_run_fill,
			    .ptr = { dst },
			    .n = { 0, size, pattern_size },
			    .cost_ns = nl_copy_cost(size) };

	op.heap = malloc(pattern_size);
	if (!op.heap)
		return CL_OUT_OF_HOST_MEMORY;
	memcpy(op.heap, pattern, pattern_size);
	return nl_submit(q, CL_COMMAND_SVM_MEMFILL, &op, false, nwait, wait, ret_event);
}

cl_int nl_clEnqueueSVMMap(cl_command_queue q, cl_bool blocking, cl_map_flags flags, void *ptr, size_t size,
			  WAIT_PARAMS)
{
	struct nl_op op = { .cost_ns = nl_copy_cost(size) };

	NL_ENTER(clEnqueueSVMMap);
	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	if (!ptr || size == 0 || flags == 0)
		return CL_INVALID_VALUE;
	return nl_submit(q, CL_COMMAND_SVM_MAP, &op, blocking, nwait, wait, ret_event);
}

cl_int nl_clEnqueueSVMUnmap(cl_command_queue q, void *ptr, WAIT_PARAMS)
{
	struct nl_op op = { 0 };

	NL_ENTER(clEnqueueSVMUnmap);
	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	return ptr ? nl_submit(q, CL_COMMAND_SVM_UNMAP, &op, false, nwait, wait, ret_event)
		   : CL_INVALID_VALUE;
}

cl_int nl_clEnqueueSVMMigrateMem(cl_command_queue q, cl_uint n, const void **pointers, const size_t *sizes,
				 cl_mem_migration_flags flags, WAIT_PARAMS)
{
	struct nl_op op = { 0 };

	NL_ENTER(clEnqueueSVMMigrateMem);
	(void)sizes, (void)flags;
	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	return n && pointers ? nl_submit(q, CL_COMMAND_SVM_MIGRATE_MEM, &op, false, nwait, wait, ret_event)
			     : CL_INVALID_VALUE;
}
