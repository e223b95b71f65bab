/* SPDX-License-Identifier: Apache-2.0 */
/* Modules and their functions. */
#include "simgpu/nvidia/cuda/image.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void sim_module_free(CUmodule m)
{
	if (m->library)
		sim_library_forget(m->library, m);
	for (uint32_t i = 0; i < m->functions; i++) {
		m->function[i]->tag = 0;
		free(m->function[i]->name);
		free(m->function[i]->param);
		free(m->function[i]);
	}
	for (uint32_t i = 0; i < m->globals; i++) {
		if (m->global[i].address)
			sim_heap_free(m->global[i].address);
		free(m->global[i].name);
	}
	free(m->function);
	free(m->global);
	m->tag = 0;
	free(m);
}

CUresult sim_module_load(CUcontext ctx, const void *image, CUmodule *ret)
{
	CUmodule m = calloc(1, sizeof(*m));
	CUresult r;

	if (!m)
		return CUDA_ERROR_OUT_OF_MEMORY;
	r = sim_image_read(m, image, &ctx->device->card);
	if (r) {
		sim_module_free(m);
		return r;
	}
	return sim_module_enter(m, ctx, ret);
}

/* A module that was read comes into a context: its variables get memory. It goes on failure. */
CUresult sim_module_enter(CUmodule m, CUcontext ctx, CUmodule *ret)
{
	CUresult r = CUDA_SUCCESS;

	m->ctx = ctx->root;
	for (uint32_t i = 0; i < m->globals && !r; i++)
		r = sim_heap_alloc(m->ctx, m->global[i].bytes, &m->global[i].address);
	if (r) {
		sim_module_free(m);
		return r;
	}
	m->tag = SIM_TAG_MODULE;
	pthread_mutex_lock(&m->ctx->lock);
	m->next = m->ctx->modules;
	m->ctx->modules = m;
	pthread_mutex_unlock(&m->ctx->lock);
	*ret = m;
	return CUDA_SUCCESS;
}

void sim_module_unload(CUmodule m)
{
	CUcontext ctx = m->ctx;
	CUmodule *at;

	pthread_mutex_lock(&ctx->lock);
	for (at = &ctx->modules; *at && *at != m; at = &(*at)->next)
		;
	if (*at)
		*at = m->next;
	pthread_mutex_unlock(&ctx->lock);
	sim_module_free(m);
}

void sim_modules_end(CUcontext ctx)
{
	while (ctx->modules)
		sim_module_unload(ctx->modules);
}

static CUresult check(CUmodule m)
{
	return m && m->tag == SIM_TAG_MODULE ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuModuleLoadData(CUmodule *ret, const void *image)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_unsafe();
	if (!r && (!ret || !image))
		r = CUDA_ERROR_INVALID_VALUE;
	return r ? r : sim_module_load(ctx, image, ret);
}

/* The options steer a compiler that is not there; what it would have said is nothing. */
CUresult cuModuleLoadDataEx(CUmodule *ret, const void *image, unsigned int n, CUjit_option *option,
			    void **value)
{
	enum { INFO_LOG = 3, INFO_LOG_BYTES = 4, ERROR_LOG = 5, ERROR_LOG_BYTES = 6 };
	char *log[2] = { NULL, NULL };

	if (n && (!option || !value))
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned int i = 0; i < n; i++) {
		if (option[i] == INFO_LOG || option[i] == ERROR_LOG)
			log[option[i] == ERROR_LOG] = value[i];
	}
	for (unsigned int i = 0; i < n; i++) {
		unsigned which = option[i] == ERROR_LOG_BYTES;

		if (option[i] != INFO_LOG_BYTES && option[i] != ERROR_LOG_BYTES)
			continue;
		if (log[which] && value[i])
			log[which][0] = '\0';
		value[i] = NULL; /* bytes that were written */
	}
	return cuModuleLoadData(ret, image);
}

CUresult cuModuleLoadFatBinary(CUmodule *ret, const void *image)
{
	return cuModuleLoadData(ret, image);
}

/* A file's bytes with a zero behind them: PTX is text. */
char *sim_read_file(const char *path, size_t *ret_bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *bytes = NULL;
	ssize_t n = -1;

	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size < INT32_MAX)
		bytes = calloc(1, (size_t)st.st_size + 1);
	if (bytes)
		n = read(fd, bytes, (size_t)st.st_size);
	if (fd >= 0)
		close(fd);
	if (bytes && n != st.st_size) {
		free(bytes);
		bytes = NULL;
	}
	if (bytes)
		*ret_bytes = (size_t)n;
	return bytes;
}

CUresult cuModuleLoad(CUmodule *ret, const char *path)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_unsafe();
	if (r)
		return r;
	if (!ret || !path)
		return CUDA_ERROR_INVALID_VALUE;

	size_t n;
	char *bytes = sim_read_file(path, &n);

	if (!bytes)
		return CUDA_ERROR_FILE_NOT_FOUND;
	r = sim_module_load(ctx, bytes, ret);
	free(bytes);
	return r;
}

CUresult cuModuleUnload(CUmodule m)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = sim_unsafe();
	if (!r)
		r = check(m);
	if (r)
		return r;
	if (m->library)
		return CUDA_ERROR_NOT_PERMITTED;
	r = sim_context_sync(m->ctx); /* its kernels may still run */
	sim_module_unload(m);
	return r;
}

CUfunction sim_module_function(CUmodule m, const char *name)
{
	for (uint32_t i = 0; i < m->functions; i++)
		if (strcmp(m->function[i]->name, name) == 0)
			return m->function[i];
	return NULL;
}

CUresult cuModuleGetFunction(CUfunction *ret, CUmodule m, const char *name)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = check(m);
	if (r)
		return r;
	if (!ret || !name || !*name)
		return CUDA_ERROR_INVALID_VALUE;

	CUfunction f = sim_module_function(m, name);

	if (!f)
		return CUDA_ERROR_NOT_FOUND;
	*ret = f;
	return CUDA_SUCCESS;
}

CUresult cuModuleGetFunctionCount(unsigned int *count, CUmodule m)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = check(m);
	if (!r && !count)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*count = m->functions;
	return r;
}

CUresult cuModuleEnumerateFunctions(CUfunction *functions, unsigned int n, CUmodule m)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = check(m);
	if (!r && !functions)
		r = CUDA_ERROR_INVALID_VALUE;
	for (uint32_t i = 0; !r && i < n && i < m->functions; i++)
		functions[i] = m->function[i];
	return r;
}

CUresult cuModuleGetGlobal_v2(CUdeviceptr *p, size_t *bytes, CUmodule m, const char *name)
{
	CUcontext ctx;
	CUresult r = sim_enter(&ctx);

	if (!r)
		r = check(m);
	if (r)
		return r;
	if (!name || (!p && !bytes))
		return CUDA_ERROR_INVALID_VALUE;
	for (uint32_t i = 0; i < m->globals; i++) {
		if (strcmp(m->global[i].name, name) != 0)
			continue;
		if (p)
			*p = m->global[i].address;
		if (bytes)
			*bytes = m->global[i].bytes;
		return CUDA_SUCCESS;
	}
	return CUDA_ERROR_NOT_FOUND;
}

CUresult sim_function_get(CUcontext ctx, CUfunction f, CUfunction *ret)
{
	if (f && f->tag == SIM_TAG_KERNEL)
		return sim_kernel_function((CUkernel)f, ctx, ret);
	if (!f || f->tag != SIM_TAG_FUNCTION)
		return CUDA_ERROR_INVALID_HANDLE;
	*ret = f;
	return CUDA_SUCCESS;
}
