/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs and kernels: which source a kernel comes from (may it be cut?) and a name under which its cost is learned that
 * is the same in every run.
 */
#include "shim/opencl/cl.h"

#include <stdlib.h>
#include <string.h>

static struct pen_map programs;
struct pen_map pen_cl_kernels;

/* Takes note of a new program; without memory it is simply unknown, and never cut. */
static cl_program note(cl_program p, uint64_t hash, bool cuttable, bool has_include)
{
	struct pen_cl_program *r = p ? calloc(1, sizeof(*r)) : NULL;
	if (!r)
		return p;
	r->hash = hash;
	r->cuttable = cuttable;
	r->has_include = has_include;
	atomic_init(&r->refs, 1);
	if (pen_map_put(&programs, p, r))
		free(r);
	return p;
}

cl_program pen_clCreateProgramWithSource(cl_context ctx, cl_uint n, const char **strings, const size_t *lengths, cl_int *err)
{
	cl_program p = BELOW(clCreateProgramWithSource)(ctx, n, strings, lengths, err);
	if (!p)
		return NULL;
	size_t total = 0;
	for (cl_uint i = 0; i < n; i++)
		total += lengths && lengths[i] ? lengths[i] : strlen(strings[i]);
	char *text = malloc(total + 1);   /* joined: a name may begin in one string and end in the next */
	if (!text)
		return note(p, 0, false, true);
	size_t at = 0;
	for (cl_uint i = 0; i < n; i++) {
		size_t len = lengths && lengths[i] ? lengths[i] : strlen(strings[i]);
		memcpy(text + at, strings[i], len);
		at += len;
	}
	bool include = false;
	bool cuttable = pen_cl_source_cuttable(text, total, &include);
	note(p, pen_cl_hash(PEN_CL_HASH_INIT, text, total), cuttable, include);
	free(text);
	return p;
}

cl_program pen_clCreateProgramWithBinary(cl_context ctx, cl_uint n, const cl_device_id *ids, const size_t *lengths,
					 const unsigned char **binaries, cl_int *status, cl_int *err)
{
	cl_program p = BELOW(clCreateProgramWithBinary)(ctx, n, ids, lengths, binaries, status, err);
	return note(p, p ? pen_cl_hash(PEN_CL_HASH_INIT, binaries[0], lengths[0]) : 0, false, false);
}

cl_program pen_clCreateProgramWithBuiltInKernels(cl_context ctx, cl_uint n, const cl_device_id *ids, const char *names,
						 cl_int *err)
{
	cl_program p = BELOW(clCreateProgramWithBuiltInKernels)(ctx, n, ids, names, err);
	return note(p, p ? pen_cl_hash(PEN_CL_HASH_INIT, names, strlen(names)) : 0, false, false);
}

cl_program pen_clCreateProgramWithIL(cl_context ctx, const void *il, size_t n, cl_int *err)
{
	cl_program p = BELOW(clCreateProgramWithIL)(ctx, il, n, err);
	return note(p, p ? pen_cl_hash(PEN_CL_HASH_INIT, il, n) : 0, false, false);
}

cl_int pen_clRetainProgram(cl_program p)
{
	cl_int r = BELOW(clRetainProgram)(p);
	struct pen_cl_program *rec = r == CL_SUCCESS ? pen_map_find(&programs, p) : NULL;
	if (rec)
		atomic_fetch_add(&rec->refs, 1);
	return r;
}

cl_int pen_clReleaseProgram(cl_program p)
{
	struct pen_cl_program *rec = pen_map_find(&programs, p);
	/* Kernels have taken what they need of the record. */
	if (rec && atomic_fetch_sub(&rec->refs, 1) == 1) {
		pen_map_take(&programs, p);
		free(rec);
	}
	return BELOW(clReleaseProgram)(p);
}

/* ---- building: options and headers are source, too --------------------------------------------------------------- */

static void add_options(struct pen_cl_program *rec, const char *options, bool headers_known)
{
	if (!rec)
		return;
	bool include = false;
	if (options) {
		rec->hash = pen_cl_hash(rec->hash, options, strlen(options));
		/* "-include" and -I bring in text that is not seen. */
		if (!pen_cl_source_cuttable(options, strlen(options), &include) || include || strstr(options, "-I"))
			rec->cuttable = false;
	}
	if (rec->has_include && !headers_known)
		rec->cuttable = false;
}

cl_int pen_clBuildProgram(cl_program p, cl_uint n, const cl_device_id *ids, const char *options,
			  void (CL_CALLBACK *notify)(cl_program, void *), void *user)
{
	/* Before the call: with a callback kernels may be made as soon as it has begun. */
	add_options(pen_map_find(&programs, p), options, false);
	return BELOW(clBuildProgram)(p, n, ids, options, notify, user);
}

cl_int pen_clCompileProgram(cl_program p, cl_uint n, const cl_device_id *ids, const char *options, cl_uint nheaders,
			    const cl_program *headers, const char **names, void (CL_CALLBACK *notify)(cl_program, void *),
			    void *user)
{
	struct pen_cl_program *rec = pen_map_find(&programs, p);
	add_options(rec, options, nheaders != 0);
	for (cl_uint i = 0; rec && headers && i < nheaders; i++) {
		struct pen_cl_program *h = pen_map_find(&programs, headers[i]);
		if (!h || !h->cuttable)
			rec->cuttable = false;
		if (h)
			rec->hash = pen_cl_hash(rec->hash, &h->hash, sizeof(h->hash));
	}
	return BELOW(clCompileProgram)(p, n, ids, options, nheaders, headers, names, notify, user);
}

cl_program pen_clLinkProgram(cl_context ctx, cl_uint n, const cl_device_id *ids, const char *options, cl_uint ninputs,
			     const cl_program *inputs, void (CL_CALLBACK *notify)(cl_program, void *), void *user, cl_int *err)
{
	uint64_t hash = PEN_CL_HASH_INIT;
	bool cuttable = ninputs != 0;
	for (cl_uint i = 0; inputs && i < ninputs; i++) {
		struct pen_cl_program *in = pen_map_find(&programs, inputs[i]);
		if (!in || !in->cuttable)
			cuttable = false;
		if (in)
			hash = pen_cl_hash(hash, &in->hash, sizeof(in->hash));
	}
	return note(BELOW(clLinkProgram)(ctx, n, ids, options, ninputs, inputs, notify, user, err), hash, cuttable, false);
}

/* ---- kernels ------------------------------------------------------------------------------------------------------ */

static void kernel_name(cl_kernel k, char *buf, size_t n)
{
	buf[0] = 0;
	if (BELOW(clGetKernelInfo)(k, CL_KERNEL_FUNCTION_NAME, n - 1, buf, NULL) != CL_SUCCESS)
		buf[0] = 0;
	buf[n - 1] = 0;
}

struct pen_cl_kernel *pen_cl_kernel(cl_kernel id)
{
	struct pen_cl_kernel *k = pen_map_find(&pen_cl_kernels, id);
	if (k || !id)
		return k;
	k = calloc(1, sizeof(*k));
	if (!k)
		return NULL;
	char name[256];
	cl_program p = NULL;
	kernel_name(id, name, sizeof(name));
	BELOW(clGetKernelInfo)(id, CL_KERNEL_PROGRAM, sizeof(p), &p, NULL);
	struct pen_cl_program *rec = p ? pen_map_find(&programs, p) : NULL;
	k->hash = pen_cl_hash(rec ? rec->hash : PEN_CL_HASH_INIT, name, strlen(name));
	k->cuttable = rec && rec->cuttable;
	atomic_init(&k->refs, 1);
	if (pen_map_put(&pen_cl_kernels, id, k)) {
		free(k);
		return NULL;
	}
	return k;
}

cl_kernel pen_clCreateKernel(cl_program p, const char *name, cl_int *err)
{
	cl_kernel k = BELOW(clCreateKernel)(p, name, err);
	if (k)
		pen_cl_kernel(k);
	return k;
}

cl_int pen_clCreateKernelsInProgram(cl_program p, cl_uint n, cl_kernel *kernels, cl_uint *ret_n)
{
	cl_uint made = 0;
	cl_int r = BELOW(clCreateKernelsInProgram)(p, n, kernels, &made);
	if (ret_n && r == CL_SUCCESS)
		*ret_n = made;
	for (cl_uint i = 0; r == CL_SUCCESS && kernels && i < made && i < n; i++)
		pen_cl_kernel(kernels[i]);
	return r;
}

cl_kernel pen_clCloneKernel(cl_kernel source, cl_int *err)
{
	cl_kernel k = BELOW(clCloneKernel)(source, err);
	if (k)
		pen_cl_kernel(k);
	return k;
}

cl_int pen_clRetainKernel(cl_kernel id)
{
	cl_int r = BELOW(clRetainKernel)(id);
	struct pen_cl_kernel *k = r == CL_SUCCESS ? pen_map_find(&pen_cl_kernels, id) : NULL;
	if (k)
		atomic_fetch_add(&k->refs, 1);
	return r;
}

cl_int pen_clReleaseKernel(cl_kernel id)
{
	struct pen_cl_kernel *k = pen_map_find(&pen_cl_kernels, id);
	if (k && atomic_fetch_sub(&k->refs, 1) == 1) {
		pen_map_take(&pen_cl_kernels, id);
		for (struct pen_cl_shape *s = atomic_load(&k->last); s;) {
			struct pen_cl_shape *next = s->next;
			free(s);
			s = next;
		}
		free(k);
	}
	return BELOW(clReleaseKernel)(id);
}
