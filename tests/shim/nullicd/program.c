/* SPDX-License-Identifier: Apache-2.0 */
/* Programs: source is kept, a binary is the source behind a mark, and building reads the kernels out of it. */
#include "nullicd.h"
#include <stdlib.h>
#include <string.h>

static const char mark[] = "NULLICD1";

static cl_program program_new(cl_context c, char *source, cl_int *ret_err)
{
	cl_program p = source ? nl_new(sizeof(*p), NL_MAGIC_PROGRAM) : NULL;

	if (!p) {
		free(source);
		return nl_fail(ret_err, CL_OUT_OF_HOST_MEMORY);
	}
	p->context = c;
	p->source = source;
	atomic_fetch_add(&c->o.life, 1);
	nl_fail(ret_err, CL_SUCCESS);
	return p;
}

cl_program nl_clCreateProgramWithSource(cl_context c, cl_uint n, const char **strings, const size_t *lengths,
					cl_int *ret_err)
{
	size_t total = 0, at = 0;
	char *source;

	NL_ENTER_PTR(clCreateProgramWithSource, ret_err);
	if (!NL_IS(c, NL_MAGIC_CONTEXT))
		return nl_fail(ret_err, CL_INVALID_CONTEXT);
	if (n == 0 || !strings)
		return nl_fail(ret_err, CL_INVALID_VALUE);
	for (cl_uint i = 0; i < n; i++) {
		if (!strings[i])
			return nl_fail(ret_err, CL_INVALID_VALUE);
		total += lengths && lengths[i] ? lengths[i] : strlen(strings[i]);
	}
	source = calloc(1, total + 1);
	for (cl_uint i = 0; source && i < n; i++) {
		size_t len = lengths && lengths[i] ? lengths[i] : strlen(strings[i]);

		memcpy(source + at, strings[i], len);
		at += len;
	}
	return program_new(c, source, ret_err);
}

cl_program nl_clCreateProgramWithBinary(cl_context c, cl_uint n, const cl_device_id *devices,
					const size_t *lengths, const unsigned char **binaries, cl_int *status,
					cl_int *ret_err)
{
	cl_program p;
	char *source;

	NL_ENTER_PTR(clCreateProgramWithBinary, ret_err);
	if (!NL_IS(c, NL_MAGIC_CONTEXT))
		return nl_fail(ret_err, CL_INVALID_CONTEXT);
	if (n == 0 || !devices || !lengths || !binaries)
		return nl_fail(ret_err, CL_INVALID_VALUE);
	for (cl_uint i = 0; i < n; i++) {
		bool ok =
			binaries[i] && lengths[i] >= sizeof(mark) && !memcmp(binaries[i], mark, sizeof(mark));

		if (status)
			status[i] = ok ? CL_SUCCESS : CL_INVALID_BINARY;
		if (!ok)
			return nl_fail(ret_err, CL_INVALID_BINARY);
	}
	source = strndup((const char *)binaries[0] + sizeof(mark), lengths[0] - sizeof(mark));
	p = program_new(c, source, ret_err);
	return p;
}

cl_program nl_clCreateProgramWithBuiltInKernels(cl_context c, cl_uint n, const cl_device_id *devices,
						const char *names, cl_int *ret_err)
{
	NL_ENTER_PTR(clCreateProgramWithBuiltInKernels, ret_err);
	(void)n, (void)devices, (void)names;
	return nl_fail(ret_err, NL_IS(c, NL_MAGIC_CONTEXT) ? CL_INVALID_VALUE : CL_INVALID_CONTEXT);
}

cl_program nl_clCreateProgramWithIL(cl_context c, const void *il, size_t length, cl_int *ret_err)
{
	NL_ENTER_PTR(clCreateProgramWithIL, ret_err);
	(void)il, (void)length;
	return nl_fail(ret_err, NL_IS(c, NL_MAGIC_CONTEXT) ? CL_INVALID_OPERATION : CL_INVALID_CONTEXT);
}

cl_int nl_clRetainProgram(cl_program p)
{
	NL_ENTER(clRetainProgram);
	if (!NL_IS(p, NL_MAGIC_PROGRAM))
		return CL_INVALID_PROGRAM;
	atomic_fetch_add(&p->o.refs, 1);
	return CL_SUCCESS;
}

void nl_program_unpin(cl_program p)
{
	if (atomic_fetch_sub(&p->o.life, 1) != 1)
		return;
	nl_context_unpin(p->context);
	free(p->source);
	free(p->options);
	free(p->kernels);
	p->o.magic = NL_MAGIC_DEAD;
	free(p);
}

cl_int nl_clReleaseProgram(cl_program p)
{
	NL_ENTER(clReleaseProgram);
	if (!NL_IS(p, NL_MAGIC_PROGRAM))
		return CL_INVALID_PROGRAM;
	if (atomic_fetch_sub(&p->o.refs, 1) == 1)
		nl_program_unpin(p);
	return CL_SUCCESS;
}

static cl_int build(cl_program p, const char *options)
{
	if (atomic_load(&p->o.life) > 1)
		return CL_INVALID_OPERATION; /* kernels are attached */
	free(p->options);
	free(p->kernels);
	p->options = strdup(options ? options : "");
	p->kernels = nl_parse_kernels(p->source, &p->nkernels);
	p->failed = strstr(p->source, "#error") != NULL;
	p->built = !p->failed && p->kernels;
	return p->built ? CL_SUCCESS : CL_BUILD_PROGRAM_FAILURE;
}

cl_int nl_clBuildProgram(cl_program p, cl_uint n, const cl_device_id *devices, const char *options,
			 void(CL_CALLBACK *notify)(cl_program, void *), void *user)
{
	cl_int r;

	NL_ENTER(clBuildProgram);
	if (!NL_IS(p, NL_MAGIC_PROGRAM))
		return CL_INVALID_PROGRAM;
	if ((n == 0) != (devices == NULL) || (!notify && user))
		return CL_INVALID_VALUE;
	for (cl_uint i = 0; i < n; i++)
		if (!NL_IS(devices[i], NL_MAGIC_DEVICE) || !nl_context_has(p->context, devices[i]))
			return CL_INVALID_DEVICE;
	r = build(p, options);
	if (notify && r != CL_INVALID_OPERATION)
		notify(p, user);
	return r;
}

cl_int nl_clCompileProgram(cl_program p, cl_uint n, const cl_device_id *devices, const char *options,
			   cl_uint nheaders, const cl_program *headers, const char **names,
			   void(CL_CALLBACK *notify)(cl_program, void *), void *user)
{
	NL_ENTER(clCompileProgram);
	if (!NL_IS(p, NL_MAGIC_PROGRAM))
		return CL_INVALID_PROGRAM;
	if ((n == 0) != (devices == NULL) || (nheaders == 0) != (headers == NULL) ||
	    (nheaders == 0) != (names == NULL))
		return CL_INVALID_VALUE;
	p->failed = strstr(p->source, "#error") != NULL;
	free(p->options);
	p->options = strdup(options ? options : "");
	if (notify)
		notify(p, user);
	return p->failed ? CL_COMPILE_PROGRAM_FAILURE : CL_SUCCESS;
}

cl_program nl_clLinkProgram(cl_context c, cl_uint n, const cl_device_id *devices, const char *options,
			    cl_uint ninputs, const cl_program *inputs,
			    void(CL_CALLBACK *notify)(cl_program, void *), void *user, cl_int *ret_err)
{
	cl_program p;
	size_t total = 0;
	char *source;

	NL_ENTER_PTR(clLinkProgram, ret_err);
	if (!NL_IS(c, NL_MAGIC_CONTEXT))
		return nl_fail(ret_err, CL_INVALID_CONTEXT);
	if (ninputs == 0 || !inputs || (n == 0) != (devices == NULL))
		return nl_fail(ret_err, CL_INVALID_VALUE);
	for (cl_uint i = 0; i < ninputs; i++) {
		if (!NL_IS(inputs[i], NL_MAGIC_PROGRAM))
			return nl_fail(ret_err, CL_INVALID_PROGRAM);
		total += strlen(inputs[i]->source) + 1;
	}
	source = calloc(1, total + 1);
	for (cl_uint i = 0; source && i < ninputs; i++) {
		strcat(source, inputs[i]->source);
		strcat(source, "\n");
	}
	p = program_new(c, source, ret_err);
	if (p && build(p, options) && ret_err)
		*ret_err = CL_LINK_PROGRAM_FAILURE;
	if (p && notify)
		notify(p, user);
	return p;
}

cl_int nl_clUnloadCompiler(void)
{
	NL_ENTER(clUnloadCompiler);
	return CL_SUCCESS;
}

cl_int nl_clUnloadPlatformCompiler(cl_platform_id platform)
{
	NL_ENTER(clUnloadPlatformCompiler);
	return NL_IS(platform, NL_MAGIC_PLATFORM) ? CL_SUCCESS : CL_INVALID_PLATFORM;
}

cl_int nl_clSetProgramReleaseCallback(cl_program p, void(CL_CALLBACK *fn)(cl_program, void *), void *user)
{
	NL_ENTER(clSetProgramReleaseCallback);
	(void)fn, (void)user;
	return NL_IS(p, NL_MAGIC_PROGRAM) ? CL_INVALID_OPERATION : CL_INVALID_PROGRAM; /* deprecated by 3.0 */
}

cl_int nl_clSetProgramSpecializationConstant(cl_program p, cl_uint id, size_t size, const void *value)
{
	NL_ENTER(clSetProgramSpecializationConstant);
	(void)id, (void)size, (void)value;
	return NL_IS(p, NL_MAGIC_PROGRAM) ? CL_INVALID_OPERATION : CL_INVALID_PROGRAM; /* only for IL */
}

static cl_int put_binaries(cl_program p, size_t size, void *value, size_t *ret_size)
{
	cl_uint n = p->context->ndevices;
	unsigned char **out = value;

	if (value && size < n * sizeof(*out))
		return CL_INVALID_VALUE;
	for (cl_uint i = 0; out && i < n; i++) {
		if (!out[i])
			continue;
		memcpy(out[i], mark, sizeof(mark));
		memcpy(out[i] + sizeof(mark), p->source, strlen(p->source));
	}
	if (ret_size)
		*ret_size = n * sizeof(*out);
	return CL_SUCCESS;
}

static cl_int put_names(cl_program p, size_t size, void *value, size_t *ret_size)
{
	char names[NL_KERNELS_MAX * 65 + 1] = "";

	for (cl_uint i = 0; i < p->nkernels; i++) {
		if (i)
			strcat(names, ";");
		strcat(names, p->kernels[i].name);
	}
	return nl_put_string(names, size, value, ret_size);
}

cl_int nl_clGetProgramInfo(cl_program p, cl_program_info name, size_t size, void *value, size_t *ret_size)
{
	size_t sizes[16];

	NL_ENTER(clGetProgramInfo);
	if (!NL_IS(p, NL_MAGIC_PROGRAM))
		return CL_INVALID_PROGRAM;
	switch (name) {
	case CL_PROGRAM_REFERENCE_COUNT:
		return NL_PUT(cl_uint, atomic_load(&p->o.refs));
	case CL_PROGRAM_CONTEXT:
		return NL_PUT(cl_context, p->context);
	case CL_PROGRAM_NUM_DEVICES:
		return NL_PUT(cl_uint, p->context->ndevices);
	case CL_PROGRAM_DEVICES:
		return nl_put(p->context->devices, p->context->ndevices * sizeof(cl_device_id), size, value,
			      ret_size);
	case CL_PROGRAM_SOURCE:
		return nl_put_string(p->source, size, value, ret_size);
	case CL_PROGRAM_IL:
		return nl_put(NULL, 0, size, value, ret_size);
	case CL_PROGRAM_BINARY_SIZES:
		for (cl_uint i = 0; i < p->context->ndevices; i++)
			sizes[i] = sizeof(mark) + strlen(p->source);
		return nl_put(sizes, p->context->ndevices * sizeof(*sizes), size, value, ret_size);
	case CL_PROGRAM_BINARIES:
		return put_binaries(p, size, value, ret_size);
	case CL_PROGRAM_NUM_KERNELS:
		return p->built ? NL_PUT(size_t, p->nkernels) : CL_INVALID_PROGRAM_EXECUTABLE;
	case CL_PROGRAM_KERNEL_NAMES:
		return p->built ? put_names(p, size, value, ret_size) : CL_INVALID_PROGRAM_EXECUTABLE;
	case CL_PROGRAM_SCOPE_GLOBAL_CTORS_PRESENT:
	case CL_PROGRAM_SCOPE_GLOBAL_DTORS_PRESENT:
		return NL_PUT(cl_bool, CL_FALSE);
	default:
		return CL_INVALID_VALUE;
	}
}

cl_int nl_clGetProgramBuildInfo(cl_program p, cl_device_id d, cl_program_build_info name, size_t size,
				void *value, size_t *ret_size)
{
	NL_ENTER(clGetProgramBuildInfo);
	if (!NL_IS(p, NL_MAGIC_PROGRAM))
		return CL_INVALID_PROGRAM;
	if (!NL_IS(d, NL_MAGIC_DEVICE) || !nl_context_has(p->context, d))
		return CL_INVALID_DEVICE;
	switch (name) {
	case CL_PROGRAM_BUILD_STATUS:
		return NL_PUT(cl_build_status, p->built    ? CL_BUILD_SUCCESS
					       : p->failed ? CL_BUILD_ERROR
							   : CL_BUILD_NONE);
	case CL_PROGRAM_BUILD_OPTIONS:
		return nl_put_string(p->options ? p->options : "", size, value, ret_size);
	case CL_PROGRAM_BUILD_LOG:
		return nl_put_string(p->failed ? "error: #error in the source\n" : "", size, value, ret_size);
	case CL_PROGRAM_BINARY_TYPE:
		return NL_PUT(cl_program_binary_type,
			      p->built ? CL_PROGRAM_BINARY_TYPE_EXECUTABLE : CL_PROGRAM_BINARY_TYPE_NONE);
	case CL_PROGRAM_BUILD_GLOBAL_VARIABLE_TOTAL_SIZE:
		return NL_PUT(size_t, 0);
	default:
		return CL_INVALID_VALUE;
	}
}
