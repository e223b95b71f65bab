/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs and kernels. "Building" reads the kernels' names and parameters out of the source; a source with #error fails to
 * build. Kernels do nothing when they run, with one exception that lets a test prove which work-items a launch covered:
 *   __kernel void null_count*(__global uint *out, uint width, uint height)
 * adds one to out[x + y * width + z * width * height] for each work-item. width and height may be missing or 0 (1-D).
 */
#include "nullicd.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_word(int c)
{
	return isalnum(c) || c == '_';
}

/* Copy without comments, so that a kernel that is commented out is not found. */
static char *strip_comments(const char *s)
{
	char *out = malloc(strlen(s) + 1), *w = out;

	while (out && *s) {
		if (s[0] == '/' && s[1] == '/') {
			while (*s && *s != '\n')
				s++;
		} else if (s[0] == '/' && s[1] == '*') {
			const char *end = strstr(s + 2, "*/");

			s = end ? end + 2 : s + strlen(s);
			*w++ = ' ';
		} else {
			*w++ = *s++;
		}
	}
	if (out)
		*w = 0;
	return out;
}

static void parse_arg(struct nl_arg_info *a, const char *s, size_t n)
{
	char text[128];
	size_t end, start;

	snprintf(text, sizeof(text), "%.*s", (int)(n < 127 ? n : 127), s);
	end = strlen(text);
	while (end && !is_word((unsigned char)text[end - 1]))
		end--;
	start = end;
	while (start && is_word((unsigned char)text[start - 1]))
		start--;
	snprintf(a->name, sizeof(a->name), "%.*s", (int)(end - start), text + start);
	text[start] = 0;
	bool pointer = strchr(text, '*') != NULL;

	a->address = strstr(text, "local")      ? CL_KERNEL_ARG_ADDRESS_LOCAL
		     : strstr(text, "constant") ? CL_KERNEL_ARG_ADDRESS_CONSTANT
		     : pointer || strstr(text, "image") || strstr(text, "pipe")
			     ? CL_KERNEL_ARG_ADDRESS_GLOBAL
			     : CL_KERNEL_ARG_ADDRESS_PRIVATE;
	a->is_object = a->address == CL_KERNEL_ARG_ADDRESS_GLOBAL ||
		       a->address == CL_KERNEL_ARG_ADDRESS_CONSTANT || strstr(text, "sampler_t");
	/* the type is the last word before the name */
	while (start && !is_word((unsigned char)text[start - 1]))
		start--;
	end = start;
	while (start && is_word((unsigned char)text[start - 1]))
		start--;
	snprintf(a->type, sizeof(a->type), "%.*s%s", (int)(end - start < 28 ? end - start : 28), text + start,
		 pointer ? "*" : "");
}

static void parse_args(struct nl_kernel_info *k, const char *s)
{
	int depth = 0;
	const char *start = s;

	for (; *s && depth >= 0; s++) {
		if (*s == '(')
			depth++;
		else if (*s == ')')
			depth--;
		if ((depth < 0 || (depth == 0 && *s == ',')) && k->nargs < NL_ARGS_MAX) {
			size_t n = (size_t)(s - start);
			bool blank = n == 0 || strspn(start, " \t\r\n") >= n || !strncmp(start, "void)", 5);

			if (!blank)
				parse_arg(&k->args[k->nargs++], start, n);
			start = s + 1;
		}
	}
}

struct nl_kernel_info *nl_parse_kernels(const char *source, cl_uint *ret_n)
{
	struct nl_kernel_info *list = calloc(NL_KERNELS_MAX, sizeof(*list));
	char *text = strip_comments(source);
	cl_uint n = 0;

	for (char *p = text; p && list && n < NL_KERNELS_MAX && (p = strstr(p, "kernel")) != NULL; p += 6) {
		char *open = p + 6, *reqd;

		if (is_word((unsigned char)p[6]) || (p > text && is_word((unsigned char)p[-1]) &&
						     !(p - text >= 2 && p[-1] == '_' && p[-2] == '_')))
			continue;
		open = strstr(open, "void");
		open = open ? strchr(open, '(') : NULL;
		if (!open)
			break;
		char *end = open;

		while (end > p && !is_word((unsigned char)end[-1]))
			end--;
		char *start = end;

		while (start > p && is_word((unsigned char)start[-1]))
			start--;
		snprintf(list[n].name, sizeof(list[n].name), "%.*s", (int)(end - start), start);
		reqd = strstr(p, "reqd_work_group_size");
		if (reqd && reqd < open)
			sscanf(reqd, "reqd_work_group_size ( %zu , %zu , %zu", &list[n].reqd[0],
			       &list[n].reqd[1], &list[n].reqd[2]);
		parse_args(&list[n], open + 1);
		n++;
		p = open - 6;
	}
	free(text);
	*ret_n = n;
	return list;
}

cl_kernel nl_clCreateKernel(cl_program p, const char *name, cl_int *ret_err)
{
	cl_kernel k;

	NL_ENTER_PTR(clCreateKernel, ret_err);
	if (!NL_IS(p, NL_MAGIC_PROGRAM))
		return nl_fail(ret_err, CL_INVALID_PROGRAM);
	if (!name)
		return nl_fail(ret_err, CL_INVALID_VALUE);
	if (!p->built)
		return nl_fail(ret_err, CL_INVALID_PROGRAM_EXECUTABLE);
	for (cl_uint i = 0; i < p->nkernels; i++) {
		if (strcmp(p->kernels[i].name, name) != 0)
			continue;
		k = nl_new(sizeof(*k), NL_MAGIC_KERNEL);
		if (!k)
			return nl_fail(ret_err, CL_OUT_OF_HOST_MEMORY);
		k->program = p;
		k->info = &p->kernels[i];
		k->counts = !strncmp(name, "null_count", 10);
		k->plain = !k->counts && !k->info->reqd[0];
		atomic_init(&k->unset, k->info->nargs);
		atomic_fetch_add(&p->o.life, 1);
		nl_fail(ret_err, CL_SUCCESS);
		return k;
	}
	return nl_fail(ret_err, CL_INVALID_KERNEL_NAME);
}

cl_int nl_clCreateKernelsInProgram(cl_program p, cl_uint n, cl_kernel *kernels, cl_uint *ret_n)
{
	NL_ENTER(clCreateKernelsInProgram);
	if (!NL_IS(p, NL_MAGIC_PROGRAM))
		return CL_INVALID_PROGRAM;
	if (!p->built)
		return CL_INVALID_PROGRAM_EXECUTABLE;
	if (kernels && n < p->nkernels)
		return CL_INVALID_VALUE;
	for (cl_uint i = 0; kernels && i < p->nkernels; i++) {
		cl_int r;

		kernels[i] = nl_clCreateKernel(p, p->kernels[i].name, &r);
		if (r)
			return r;
	}
	if (ret_n)
		*ret_n = p->nkernels;
	return CL_SUCCESS;
}

cl_kernel nl_clCloneKernel(cl_kernel k, cl_int *ret_err)
{
	cl_kernel clone;

	NL_ENTER_PTR(clCloneKernel, ret_err);
	if (!NL_IS(k, NL_MAGIC_KERNEL))
		return nl_fail(ret_err, CL_INVALID_KERNEL);
	clone = nl_clCreateKernel(k->program, k->info->name, ret_err);
	if (clone) {
		memcpy(clone->args, k->args, sizeof(k->args));
		atomic_store(&clone->unset, atomic_load(&k->unset));
	}
	return clone;
}

cl_int nl_clRetainKernel(cl_kernel k)
{
	NL_ENTER(clRetainKernel);
	if (!NL_IS(k, NL_MAGIC_KERNEL))
		return CL_INVALID_KERNEL;
	atomic_fetch_add(&k->o.refs, 1);
	return CL_SUCCESS;
}

cl_int nl_clReleaseKernel(cl_kernel k)
{
	NL_ENTER(clReleaseKernel);
	if (!NL_IS(k, NL_MAGIC_KERNEL))
		return CL_INVALID_KERNEL;
	if (atomic_fetch_sub(&k->o.refs, 1) == 1) {
		nl_program_unpin(k->program);
		k->o.magic = NL_MAGIC_DEAD;
		free(k);
	}
	return CL_SUCCESS;
}

static void set_arg(cl_kernel k, cl_uint i, size_t size, const void *value)
{
	struct nl_arg *a = &k->args[i];

	if (!a->set)
		atomic_fetch_sub(&k->unset, 1);
	a->set = true;
	a->size = size;
	memset(a->value, 0, sizeof(a->value));
	if (value)
		memcpy(a->value, value, size < sizeof(a->value) ? size : sizeof(a->value));
}

cl_int nl_clSetKernelArg(cl_kernel k, cl_uint i, size_t size, const void *value)
{
	NL_ENTER(clSetKernelArg);
	if (!NL_IS(k, NL_MAGIC_KERNEL))
		return CL_INVALID_KERNEL;
	if (i >= k->info->nargs)
		return CL_INVALID_ARG_INDEX;
	const struct nl_arg_info *a = &k->info->args[i];

	if (a->address == CL_KERNEL_ARG_ADDRESS_LOCAL) {
		if (size == 0)
			return CL_INVALID_ARG_SIZE;
		if (value)
			return CL_INVALID_ARG_VALUE;
	} else if (a->is_object) {
		if (size != sizeof(cl_mem))
			return CL_INVALID_ARG_SIZE;
		const void *object = value ? *(void *const *)value : NULL;

		if (object && !NL_IS(object, NL_MAGIC_MEM) && !NL_IS(object, NL_MAGIC_SAMPLER))
			return CL_INVALID_MEM_OBJECT;
	} else if (size == 0) {
		return CL_INVALID_ARG_SIZE;
	} else if (!value) {
		return CL_INVALID_ARG_VALUE;
	}
	set_arg(k, i, size, value);
	return CL_SUCCESS;
}

cl_int nl_clSetKernelArgSVMPointer(cl_kernel k, cl_uint i, const void *value)
{
	NL_ENTER(clSetKernelArgSVMPointer);
	if (!NL_IS(k, NL_MAGIC_KERNEL))
		return CL_INVALID_KERNEL;
	if (i >= k->info->nargs)
		return CL_INVALID_ARG_INDEX;
	set_arg(k, i, sizeof(value), &value);
	return CL_SUCCESS;
}

cl_int nl_clSetKernelExecInfo(cl_kernel k, cl_kernel_exec_info name, size_t size, const void *value)
{
	NL_ENTER(clSetKernelExecInfo);
	if (!NL_IS(k, NL_MAGIC_KERNEL))
		return CL_INVALID_KERNEL;
	return (name == CL_KERNEL_EXEC_INFO_SVM_PTRS || name == CL_KERNEL_EXEC_INFO_SVM_FINE_GRAIN_SYSTEM) &&
			       size && value
		       ? CL_SUCCESS
		       : CL_INVALID_VALUE;
}

cl_int nl_clGetKernelInfo(cl_kernel k, cl_kernel_info name, size_t size, void *value, size_t *ret_size)
{
	NL_ENTER(clGetKernelInfo);
	if (!NL_IS(k, NL_MAGIC_KERNEL))
		return CL_INVALID_KERNEL;
	switch (name) {
	case CL_KERNEL_FUNCTION_NAME:
		return nl_put_string(k->info->name, size, value, ret_size);
	case CL_KERNEL_NUM_ARGS:
		return NL_PUT(cl_uint, k->info->nargs);
	case CL_KERNEL_REFERENCE_COUNT:
		return NL_PUT(cl_uint, atomic_load(&k->o.refs));
	case CL_KERNEL_CONTEXT:
		return NL_PUT(cl_context, k->program->context);
	case CL_KERNEL_PROGRAM:
		return NL_PUT(cl_program, k->program);
	case CL_KERNEL_ATTRIBUTES:
		return nl_put_string("", size, value, ret_size);
	default:
		return CL_INVALID_VALUE;
	}
}

cl_int nl_clGetKernelWorkGroupInfo(cl_kernel k, cl_device_id d, cl_kernel_work_group_info name, size_t size,
				   void *value, size_t *ret_size)
{
	NL_ENTER(clGetKernelWorkGroupInfo);
	if (!NL_IS(k, NL_MAGIC_KERNEL))
		return CL_INVALID_KERNEL;
	if (d ? !NL_IS(d, NL_MAGIC_DEVICE) || !nl_context_has(k->program->context, d)
	      : k->program->context->ndevices > 1)
		return CL_INVALID_DEVICE;
	switch (name) {
	case CL_KERNEL_WORK_GROUP_SIZE:
		return NL_PUT(size_t, 1024);
	case CL_KERNEL_COMPILE_WORK_GROUP_SIZE:
		return nl_put(k->info->reqd, sizeof(k->info->reqd), size, value, ret_size);
	case CL_KERNEL_PREFERRED_WORK_GROUP_SIZE_MULTIPLE:
		return NL_PUT(size_t, 32);
	case CL_KERNEL_LOCAL_MEM_SIZE:
	case CL_KERNEL_PRIVATE_MEM_SIZE:
		return NL_PUT(cl_ulong, 0);
	default:
		return CL_INVALID_VALUE;
	}
}

cl_int nl_clGetKernelSubGroupInfo(cl_kernel k, cl_device_id d, cl_kernel_sub_group_info name, size_t in_size,
				  const void *in, size_t size, void *value, size_t *ret_size)
{
	NL_ENTER(clGetKernelSubGroupInfo);
	(void)d, (void)name, (void)in_size, (void)in, (void)size, (void)value, (void)ret_size;
	return NL_IS(k, NL_MAGIC_KERNEL) ? CL_INVALID_OPERATION : CL_INVALID_KERNEL; /* no sub-groups */
}

cl_int nl_clGetKernelArgInfo(cl_kernel k, cl_uint i, cl_kernel_arg_info name, size_t size, void *value,
			     size_t *ret_size)
{
	NL_ENTER(clGetKernelArgInfo);
	if (!NL_IS(k, NL_MAGIC_KERNEL))
		return CL_INVALID_KERNEL;
	if (i >= k->info->nargs)
		return CL_INVALID_ARG_INDEX;
	const struct nl_arg_info *a = &k->info->args[i];

	switch (name) {
	case CL_KERNEL_ARG_ADDRESS_QUALIFIER:
		return NL_PUT(cl_kernel_arg_address_qualifier, a->address);
	case CL_KERNEL_ARG_ACCESS_QUALIFIER:
		return NL_PUT(cl_kernel_arg_access_qualifier, strncmp(a->type, "image", 5)
								      ? CL_KERNEL_ARG_ACCESS_NONE
								      : CL_KERNEL_ARG_ACCESS_READ_ONLY);
	case CL_KERNEL_ARG_TYPE_NAME:
		return nl_put_string(a->type, size, value, ret_size);
	case CL_KERNEL_ARG_TYPE_QUALIFIER:
		return NL_PUT(cl_kernel_arg_type_qualifier, CL_KERNEL_ARG_TYPE_NONE);
	case CL_KERNEL_ARG_NAME:
		return nl_put_string(a->name, size, value, ret_size);
	default:
		return CL_INVALID_VALUE;
	}
}

static void run_count(const struct nl_op *op)
{
	uint32_t *out = op->ptr[0];
	const size_t *offset = &op->n[0], *global = &op->n[3];
	size_t width = op->n[6], height = op->n[7], limit = op->n[8];

	for (size_t z = offset[2]; z < offset[2] + global[2]; z++) {
		for (size_t y = offset[1]; y < offset[1] + global[1]; y++) {
			for (size_t x = offset[0]; x < offset[0] + global[0]; x++) {
				size_t i = x + (y + z * height) * width;

				if (i < limit)
					__atomic_fetch_add(&out[i], 1, __ATOMIC_RELAXED);
			}
		}
	}
}

cl_int nl_launch_check(cl_command_queue q, cl_kernel k, cl_uint dim, const size_t *global,
		       const size_t *local)
{
	size_t items = 1;

	if (!NL_IS(q, NL_MAGIC_QUEUE))
		return CL_INVALID_COMMAND_QUEUE;
	if (!NL_IS(k, NL_MAGIC_KERNEL))
		return CL_INVALID_KERNEL;
	if (k->program->context != q->context)
		return CL_INVALID_CONTEXT;
	if (dim < 1 || dim > 3)
		return CL_INVALID_WORK_DIMENSION;
	if (!global)
		return nl_config.version >= 21 ? CL_SUCCESS : CL_INVALID_GLOBAL_WORK_SIZE;
	if (atomic_load_explicit(&k->unset, memory_order_relaxed) > 0)
		return CL_INVALID_KERNEL_ARGS;
	for (cl_uint d = 0; d < dim; d++) {
		if (global[d] == 0 && nl_config.version < 21)
			return CL_INVALID_GLOBAL_WORK_SIZE;
		if (local && local[d] == 0)
			return CL_INVALID_WORK_GROUP_SIZE;
		if (local && k->info->reqd[0] && local[d] != k->info->reqd[d])
			return CL_INVALID_WORK_GROUP_SIZE;
		if (local && nl_config.version < 20 && global[d] % local[d])
			return CL_INVALID_WORK_GROUP_SIZE;
		items *= local ? local[d] : 1;
	}
	return items > 1024 ? CL_INVALID_WORK_GROUP_SIZE : CL_SUCCESS;
}

void nl_launch_op(struct nl_op *op, cl_kernel k, cl_uint dim, const size_t *offset, const size_t *global,
		  const size_t *local)
{
	op->run = NULL;
	op->heap = NULL;
	op->mem[0] = op->mem[1] = NULL;
	op->cost_ns = nl_config.cost_ns;
	if (nl_config.cost_group_ns && global) {
		uint64_t groups = 1;

		for (cl_uint d = 0; d < dim; d++)
			groups *= local ? (global[d] + local[d] - 1) / local[d] : (global[d] + 63) / 64;
		op->cost_ns += groups * nl_config.cost_group_ns;
	}
	if (!k->counts || !global || k->info->nargs < 1 || !k->args[0].set)
		return;
	void *object = *(void **)(void *)k->args[0].value;

	if (!NL_IS(object, NL_MAGIC_MEM))
		return;
	op->run = run_count;
	op->mem[0] = object;
	op->ptr[0] = op->mem[0]->data;
	for (cl_uint d = 0; d < 3; d++) {
		op->n[d] = d < dim && offset ? offset[d] : 0;
		op->n[3 + d] = d < dim ? global[d] : 1;
	}
	op->n[6] = k->info->nargs > 1 ? *(uint32_t *)(void *)k->args[1].value : 0;
	op->n[7] = k->info->nargs > 2 ? *(uint32_t *)(void *)k->args[2].value : 0;
	op->n[8] = op->mem[0]->size / sizeof(uint32_t);
}
