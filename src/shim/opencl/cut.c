/* SPDX-License-Identifier: Apache-2.0 */
/*
 * May a kernel be cut into pieces by global_work_offset, and how?
 *
 * A piece sees its own get_group_id (from 0), get_num_groups, get_global_size, get_global_offset and get_global_linear_id;
 * only get_global_id and the local ids are those of the whole launch (measured on PoCL and rusticl). So a source that names
 * one of them is left whole, and so is one whose groups may speak to each other within a launch: atomics, fences on global
 * memory, volatile, pipes, device-side enqueue, printf (order). The text is searched for substrings, comments included:
 * a false alarm costs a longer command, a miss costs a wrong result. In doubt, do not cut.
 */
#include "shim/opencl/cl.h"

#include "base/auto.h"

#include <stdlib.h>
#include <string.h>

static const char *const never[] = {
	"get_group_id", "get_num_groups", "get_global_size", "get_global_offset", "get_global_linear_id",
	"atomic", "atom_", "memory_order", "memory_scope", "volatile",
	"CLK_GLOBAL_MEM_FENCE", "CLK_IMAGE_MEM_FENCE", "mem_fence", "sub_group", "simd_",
	"enqueue_kernel", "ndrange", "get_default_queue", "pipe", "printf",
	/* What could make one of these names without writing it, or lies below the language. */
	"##", "%:", "asm", "__builtin", "__spirv", "_Z", "??", "#pragma OPENCL EXTENSION cl_intel", "intel_",
	/* SPIR-V built-in numbers reach source only by these words, too. */
	"__opencl_", "BuiltIn",
};

/* "work_group_" begins functions across a group, but also the attributes and the plain barrier, which are harmless. */
static bool work_group_functions(const char *text)
{
	for (const char *at = text; (at = strstr(at, "work_group_")); at += 11) {
		const char *after = at + 11;
		bool attribute = !strncmp(after, "size", 4);
		bool barrier = !strncmp(after, "barrier", 7);
		if (!attribute && !barrier)
			return true;
	}
	return false;
}

bool pen_cl_source_cuttable(const char *text, size_t len, bool *ret_include)
{
	/* As the compiler joins it: a backslash at the end of a line could hide a name in two halves. */
	pen_auto_free char *joined = malloc(len + 1);
	size_t n = 0;
	if (!joined)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!text[i])
			return false;
		if (text[i] == '\\') {
			size_t j = i + 1;
			while (j < len && (text[j] == ' ' || text[j] == '\t' || text[j] == '\r'))
				j++;
			if (j < len && text[j] == '\n') {
				i = j;
				continue;
			}
		}
		joined[n++] = text[i];
	}
	joined[n] = 0;
	if (strstr(joined, "include"))
		*ret_include = true;
	for (size_t i = 0; i < PEN_ARRAY_LEN(never); i++)
		if (strstr(joined, never[i]))
			return false;
	return !work_group_functions(joined);
}

/*
 * Along the slowest dimension that has more than one group; a wave is as many slices as fill all compute units. Only whole
 * groups: a remainder is refused by devices without non-uniform groups, and must be refused for the whole launch then. And
 * only with a local size from the application: else the driver chooses it from the global size, or refuses the launch of a
 * kernel with reqd_work_group_size (PoCL does).
 */
void pen_cl_cut_plan(const struct pen_cl_kernel *k, const struct pen_cl_device *d, struct pen_cl_shape *s)
{
	s->slices = s->wave = 1;
	if (!k->cuttable || d->device_version < 11)
		return;
	for (cl_uint i = 0; i < s->dim; i++) {
		size_t local = s->local[i];
		if (!local || !s->global[i] || s->global[i] % local)
			return;
	}
	cl_uint dim = s->dim;
	while (dim-- > 0)
		if (s->global[dim] > s->local[dim])
			break;
	if (dim >= s->dim)
		return;
	uint64_t slices = s->global[dim] / s->local[dim], per_slice = 1;
	for (cl_uint i = 0; i < dim; i++)
		per_slice *= s->global[i] / s->local[i];
	uint32_t units = atomic_load(&d->sub_units);
	if (!units)
		units = d->units ? d->units : 1;
	uint64_t wave = (units + per_slice - 1) / per_slice;
	if (slices > UINT32_MAX || slices < 2 * wave)
		return;
	s->cut_dim = dim;
	s->slices = (uint32_t)slices;
	s->wave = (uint32_t)wave;
}
