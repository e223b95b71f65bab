/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The linker: pieces of PTX become one module image. Nothing is compiled, so the image is their text; a
 * single cubin or fat binary is handed out as it is.
 */
#include "simgpu/nvidia/cuda/image.h"

#include <stdlib.h>
#include <string.h>

enum { INPUT_CUBIN = 0, INPUT_PTX = 1, INPUT_FATBINARY = 2 };

struct CUlinkState_st {
	char *image;
	size_t bytes;
	bool binary;
};

CUresult cuLinkCreate_v2(unsigned int n, CUjit_option *option, void **value, CUlinkState *ret)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	(void)n, (void)option, (void)value;
	if (r)
		return r;
	if (!ret)
		return CUDA_ERROR_INVALID_VALUE;
	*ret = calloc(1, sizeof(**ret));
	return *ret ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuLinkCreate(unsigned int n, CUjit_option *option, void **value, CUlinkState *ret)
{
	return cuLinkCreate_v2(n, option, value, ret);
}

CUresult cuLinkAddData_v2(CUlinkState l, CUjitInputType type, void *data, size_t bytes, const char *name,
			  unsigned int n, CUjit_option *option, void **value)
{
	char *more;

	(void)name, (void)n, (void)option, (void)value;
	if (!l || !data || !bytes)
		return CUDA_ERROR_INVALID_VALUE;
	if (type > INPUT_FATBINARY)
		/* objects and libraries hold code that would have to be linked */
		return CUDA_ERROR_NOT_SUPPORTED;
	if (l->binary || (l->bytes && type != INPUT_PTX))
		return CUDA_ERROR_NOT_SUPPORTED;
	more = realloc(l->image, l->bytes + bytes + 2);
	if (!more)
		return CUDA_ERROR_OUT_OF_MEMORY;
	l->image = more;
	l->binary = type != INPUT_PTX;
	memcpy(more + l->bytes, data, bytes);
	/* PTX may come with the zero at its end or without it. */
	l->bytes += l->binary ? bytes : strnlen(data, bytes);
	if (!l->binary)
		more[l->bytes++] = '\n';
	more[l->bytes] = '\0';
	return CUDA_SUCCESS;
}

CUresult cuLinkAddData(CUlinkState l, CUjitInputType type, void *data, size_t bytes, const char *name,
		       unsigned int n, CUjit_option *option, void **value)
{
	return cuLinkAddData_v2(l, type, data, bytes, name, n, option, value);
}

CUresult cuLinkAddFile_v2(CUlinkState l, CUjitInputType type, const char *path, unsigned int n,
			  CUjit_option *option, void **value)
{
	size_t bytes;
	char *data;
	CUresult r;

	if (!l || !path)
		return CUDA_ERROR_INVALID_VALUE;
	data = sim_read_file(path, &bytes);
	if (!data)
		return CUDA_ERROR_FILE_NOT_FOUND;
	r = cuLinkAddData_v2(l, type, data, bytes, path, n, option, value);
	free(data);
	return r;
}

CUresult cuLinkAddFile(CUlinkState l, CUjitInputType type, const char *path, unsigned int n,
		       CUjit_option *option, void **value)
{
	return cuLinkAddFile_v2(l, type, path, n, option, value);
}

/* The image is the linker's, and goes with it. */
CUresult cuLinkComplete(CUlinkState l, void **ret, size_t *ret_bytes)
{
	if (!l || !ret || !l->bytes)
		return CUDA_ERROR_INVALID_VALUE;
	*ret = l->image;
	if (ret_bytes)
		*ret_bytes = l->bytes;
	return CUDA_SUCCESS;
}

CUresult cuLinkDestroy(CUlinkState l)
{
	if (!l)
		return CUDA_ERROR_INVALID_VALUE;
	free(l->image);
	free(l);
	return CUDA_SUCCESS;
}
