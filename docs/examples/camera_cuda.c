/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens the driver by name, as the CUDA runtime does, so that no toolkit is needed to build it: cc ...
 * camera_cuda.c -ldl
 */
#include "camera.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *,
		     void **, void **);
static int (*synchronize)(void);
static void *model;

/* A kernel that takes as many microseconds as it is told. */
static const char ptx[] =
	".version 6.0\n.target sm_50\n.address_size 64\n"
	"// simgpu: model block_ns=arg0*1000\n" /* for the simulated card, which does not run PTX */
	".visible .entry model(.param .u32 us)\n"
	"{\n"
	"	.reg .pred %p<2>;\n	.reg .b32 %r<2>;\n	.reg .b64 %rd<6>;\n"
	"	ld.param.u32 %r1, [us];\n	mul.wide.u32 %rd1, %r1, 1000;\n	mov.u64 %rd2, %globaltimer;\n"
	"again:\n	mov.u64 %rd3, %globaltimer;\n	sub.s64 %rd4, %rd3, %rd2;\n"
	"	setp.lt.u64 %p1, %rd4, %rd1;\n	@%p1 bra again;\n	ret;\n"
	"}\n";

static int failed(const char *what, int code)
{
	fprintf(stderr, "camera: %s: CUDA error %d\n", what, code);
	return -1;
}

/* ISO C has no cast from an object's pointer to a function's. */
#define FIND(pointer, name) \
	do { \
		void *found_ = dlsym(lib, name); \
		memcpy(&(pointer), &found_, sizeof(found_)); \
	} while (0)

int accelerator_open(void)
{
	int (*init)(unsigned), (*get)(int *, int), (*create)(void **, unsigned, int),
		(*load)(void **, const void *);
	int (*function)(void **, void *, const char *);
	int device;
	void *context, *module, *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!lib)
		return failed(dlerror(), -1);
	FIND(init, "cuInit");
	FIND(get, "cuDeviceGet");
	FIND(create, "cuCtxCreate_v2");
	FIND(load, "cuModuleLoadData");
	FIND(function, "cuModuleGetFunction");
	FIND(launch, "cuLaunchKernel");
	FIND(synchronize, "cuCtxSynchronize");
	int r = init(0);
	if (!r)
		r = get(&device, 0);
	if (!r)
		r = create(&context, 0, device);
	if (!r)
		r = load(&module, ptx);
	if (!r)
		r = function(&model, module, "model");
	return r ? failed("cannot be set up", r) : 0;
}

int accelerator_run(void)
{
	unsigned us = 500;
	void *args[] = { &us };
	int r = launch(model, 1, 1, 1, 1, 1, 1, 0, NULL, args, NULL);
	if (!r)
		r = synchronize();
	return r ? failed("a model", r) : 0;
}
