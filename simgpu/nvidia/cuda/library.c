/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Libraries: code that belongs to no context. A context gets a module of it when it is first needed there.
 * A kernel is a name in a library, and may stand where a function does.
 */
#include "simgpu/nvidia/cuda/image.h"

#include <stdlib.h>
#include <string.h>

struct CUkern_st {
	enum sim_tag tag; /* at the place of a function's */
	CUlibrary library;
	CUfunction model; /* of the library's own module */
};

struct in_context {
	CUmodule module;
	struct in_context *next;
};

struct CUlib_st {
	enum sim_tag tag;
	pthread_mutex_t lock;
	CUmodule model; /* what was read; in no context */
	struct CUkern_st *kernel;
	struct in_context *modules;
};

static CUresult check(CUlibrary l)
{
	CUresult r = sim_ready();

	return r ? r : l && l->tag == SIM_TAG_LIBRARY ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static CUresult check_kernel(CUkernel k)
{
	CUresult r = sim_ready();

	return r ? r : k && k->tag == SIM_TAG_KERNEL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* ---- copies of the model ---- */

static bool copy_function(CUmodule to, const struct CUfunc_st *from)
{
	CUfunction f = sim_image_add_function(to, from->name, strlen(from->name));

	if (!f)
		return false;
	f->block_ns = from->block_ns;
	f->dram_bytes = from->dram_bytes;
	f->arg_ns = from->arg_ns;
	f->blocks_per_unit = from->blocks_per_unit;
	f->regs = from->regs;
	f->smem_bytes = from->smem_bytes;
	f->max_threads = from->max_threads;
	f->compute = from->compute;
	f->max_dynamic_smem = from->max_dynamic_smem;
	f->carveout = from->carveout;
	for (uint32_t i = 0; i < from->params; i++)
		if (!sim_image_add_param(f, from->param[i].offset, from->param[i].bytes))
			return false;
	return true;
}

static CUmodule copy_module(const struct CUmod_st *from)
{
	CUmodule m = calloc(1, sizeof(*m));
	bool ok = m != NULL;

	for (uint32_t i = 0; ok && i < from->functions; i++)
		ok = copy_function(m, from->function[i]);
	for (uint32_t i = 0; ok && i < from->globals; i++)
		ok = sim_image_add_global(m, from->global[i].name, strlen(from->global[i].name),
					  from->global[i].bytes);
	if (m && !ok) {
		sim_module_free(m);
		m = NULL;
	}
	return m;
}

/* The library's module in a context. */
static CUresult module_in(CUlibrary l, CUcontext ctx, CUmodule *ret)
{
	struct in_context *in;
	CUmodule m;
	CUresult r = CUDA_ERROR_OUT_OF_MEMORY;

	pthread_mutex_lock(&l->lock);
	for (in = l->modules; in && in->module->ctx != ctx->root; in = in->next)
		;
	if (in) {
		*ret = in->module;
		pthread_mutex_unlock(&l->lock);
		return CUDA_SUCCESS;
	}
	in = malloc(sizeof(*in));
	m = in ? copy_module(l->model) : NULL;
	if (m)
		r = sim_module_enter(m, ctx, ret);
	if (r) {
		free(in);
	} else {
		m->library = l;
		*in = (struct in_context){ m, l->modules };
		l->modules = in;
	}
	pthread_mutex_unlock(&l->lock);
	return r;
}

void sim_library_forget(CUlibrary l, CUmodule m)
{
	pthread_mutex_lock(&l->lock);
	for (struct in_context **at = &l->modules; *at; at = &(*at)->next) {
		struct in_context *in = *at;

		if (in->module != m)
			continue;
		*at = in->next;
		free(in);
		break;
	}
	pthread_mutex_unlock(&l->lock);
}

/* ---- libraries ---- */

static CUresult load(CUlibrary *ret, const void *image)
{
	CUlibrary l = calloc(1, sizeof(*l));
	CUresult r = CUDA_ERROR_OUT_OF_MEMORY;

	if (!l)
		return r;
	pthread_mutex_init(&l->lock, NULL);
	l->model = calloc(1, sizeof(*l->model));
	if (l->model)
		r = sim_image_read(l->model, image, &sim_driver.device[0].card); /* it is of no device yet */
	if (!r) {
		l->kernel = calloc(l->model->functions + 1, sizeof(*l->kernel));
		r = l->kernel ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (r) {
		if (l->model)
			sim_module_free(l->model);
		free(l);
		return r;
	}
	for (uint32_t i = 0; i < l->model->functions; i++)
		l->kernel[i] = (struct CUkern_st){ SIM_TAG_KERNEL, l, l->model->function[i] };
	l->tag = SIM_TAG_LIBRARY;
	*ret = l;
	return CUDA_SUCCESS;
}

CUresult cuLibraryLoadData(CUlibrary *ret, const void *image, CUjit_option *jit, void **jit_values,
			   unsigned int n_jit, CUlibraryOption *option, void **values, unsigned int n)
{
	CUresult r = sim_ready();

	(void)jit, (void)jit_values, (void)n_jit, (void)option, (void)values, (void)n;
	if (!r)
		r = sim_unsafe();
	if (r)
		return r;
	return ret && image ? load(ret, image) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuLibraryLoadFromFile(CUlibrary *ret, const char *path, CUjit_option *jit, void **jit_values,
			       unsigned int n_jit, CUlibraryOption *option, void **values, unsigned int n)
{
	size_t size;
	char *bytes;
	CUresult r = sim_ready();

	if (r)
		return r;
	if (!ret || !path)
		return CUDA_ERROR_INVALID_VALUE;
	bytes = sim_read_file(path, &size);
	if (!bytes)
		return CUDA_ERROR_FILE_NOT_FOUND;
	r = cuLibraryLoadData(ret, bytes, jit, jit_values, n_jit, option, values, n);
	free(bytes);
	return r;
}

CUresult cuLibraryUnload(CUlibrary l)
{
	CUresult r = check(l);

	if (!r)
		r = sim_unsafe();
	if (r)
		return r;
	while (l->modules) {
		CUmodule m = l->modules->module;

		sim_context_sync(m->ctx);
		sim_module_unload(m); /* takes itself out of the list */
	}
	sim_module_free(l->model);
	for (uint32_t i = 0; l->kernel[i].tag; i++)
		l->kernel[i].tag = 0;
	l->tag = 0;
	free(l->kernel);
	pthread_mutex_destroy(&l->lock);
	free(l);
	return CUDA_SUCCESS;
}

CUresult cuLibraryGetKernel(CUkernel *ret, CUlibrary l, const char *name)
{
	CUresult r = check(l);

	if (r)
		return r;
	if (!ret || !name)
		return CUDA_ERROR_INVALID_VALUE;
	for (uint32_t i = 0; i < l->model->functions; i++)
		if (strcmp(l->model->function[i]->name, name) == 0) {
			*ret = &l->kernel[i];
			return CUDA_SUCCESS;
		}
	return CUDA_ERROR_NOT_FOUND;
}

CUresult cuLibraryGetKernelCount(unsigned int *count, CUlibrary l)
{
	CUresult r = check(l);

	if (!r && !count)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*count = l->model->functions;
	return r;
}

CUresult cuLibraryEnumerateKernels(CUkernel *kernels, unsigned int n, CUlibrary l)
{
	CUresult r = check(l);

	if (!r && !kernels)
		r = CUDA_ERROR_INVALID_VALUE;
	for (uint32_t i = 0; !r && i < n && i < l->model->functions; i++)
		kernels[i] = &l->kernel[i];
	return r;
}

CUresult cuLibraryGetModule(CUmodule *ret, CUlibrary l)
{
	CUcontext ctx = NULL;
	CUresult r = check(l);

	if (!r)
		r = sim_enter(&ctx);
	if (!r && !ret)
		r = CUDA_ERROR_INVALID_VALUE;
	return r ? r : module_in(l, ctx, ret);
}

CUresult cuLibraryGetGlobal(CUdeviceptr *p, size_t *bytes, CUlibrary l, const char *name)
{
	CUmodule m;
	CUresult r = cuLibraryGetModule(&m, l);

	return r ? r : cuModuleGetGlobal_v2(p, bytes, m, name);
}

CUresult cuLibraryGetManaged(CUdeviceptr *p, size_t *bytes, CUlibrary l, const char *name)
{
	CUresult r = check(l);

	(void)p, (void)bytes;
	return r      ? r
	       : name ? CUDA_ERROR_NOT_FOUND
		      : CUDA_ERROR_INVALID_VALUE; /* managed variables are not read from images */
}

/* ---- kernels ---- */

CUresult sim_kernel_function(CUkernel k, CUcontext ctx, CUfunction *ret)
{
	CUmodule m;
	CUresult r = module_in(k->library, ctx, &m);

	if (!r)
		*ret = sim_module_function(m, k->model->name);
	return r;
}

CUresult cuKernelGetFunction(CUfunction *ret, CUkernel k)
{
	CUcontext ctx = NULL;
	CUresult r = check_kernel(k);

	if (!r)
		r = sim_enter(&ctx);
	if (!r && !ret)
		r = CUDA_ERROR_INVALID_VALUE;
	return r ? r : sim_kernel_function(k, ctx, ret);
}

CUresult cuKernelGetLibrary(CUlibrary *ret, CUkernel k)
{
	CUresult r = check_kernel(k);

	if (!r && !ret)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*ret = k->library;
	return r;
}

CUresult cuKernelGetName(const char **ret, CUkernel k)
{
	CUresult r = check_kernel(k);

	if (!r && !ret)
		r = CUDA_ERROR_INVALID_VALUE;
	if (!r)
		*ret = k->model->name;
	return r;
}

CUresult cuKernelGetParamInfo(CUkernel k, size_t i, size_t *offset, size_t *bytes)
{
	CUresult r = check_kernel(k);

	if (r)
		return r;
	if (!offset || i >= k->model->params)
		return CUDA_ERROR_INVALID_VALUE;
	*offset = k->model->param[i].offset;
	if (bytes)
		*bytes = k->model->param[i].bytes;
	return CUDA_SUCCESS;
}

/*
 * Attributes are the same on every device: they are the model's, and what is set goes to modules that come
 * later and those there are.
 */
CUresult cuKernelGetAttribute(int *v, CUfunction_attribute a, CUkernel k, CUdevice device)
{
	struct sim_device *d;
	CUresult r = check_kernel(k);

	if (!r)
		r = sim_device_get(device, &d);
	return r ? r : sim_function_attribute(&d->card, k->model, a, v);
}

CUresult cuKernelSetAttribute(CUfunction_attribute a, int v, CUkernel k, CUdevice device)
{
	struct sim_device *d;
	CUresult r = check_kernel(k);

	if (!r)
		r = sim_device_get(device, &d);
	if (!r)
		r = sim_function_set_attribute(&d->card, k->model, a, v);
	if (r)
		return r;
	pthread_mutex_lock(&k->library->lock);
	for (struct in_context *in = k->library->modules; in && !r; in = in->next)
		r = sim_function_set_attribute(&d->card, sim_module_function(in->module, k->model->name), a,
					       v);
	pthread_mutex_unlock(&k->library->lock);
	return r;
}

CUresult cuKernelSetCacheConfig(CUkernel k, CUfunc_cache config, CUdevice device)
{
	struct sim_device *d;
	CUresult r = check_kernel(k);

	if (!r)
		r = sim_device_get(device, &d);
	return r ? r : config > CU_FUNC_CACHE_PREFER_EQUAL ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
