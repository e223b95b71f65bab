/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_CUDA_IMAGE_H
#define SIM_CUDA_IMAGE_H
/*
 * What the readers of module images share. All of it in the thread that loads the module, which nobody else
 * knows yet.
 */
#include "simgpu/nvidia/cuda/drv.h"

CUfunction sim_image_add_function(CUmodule m, const char *name, size_t len);   /* NULL: out of memory */
bool sim_image_add_param(CUfunction f, uint32_t offset, uint32_t bytes);
bool sim_image_add_global(CUmodule m, const char *name, size_t len, size_t bytes);

CUresult sim_image_ptx(CUmodule m, const char *text);
void sim_module_free(CUmodule m);
CUresult sim_module_enter(CUmodule m, CUcontext ctx, CUmodule *ret);
/* library.c */
void sim_library_forget(CUlibrary l, CUmodule m);   /* the module goes with its context */
CUresult sim_kernel_function(CUkernel k, CUcontext ctx, CUfunction *ret);

char *sim_read_file(const char *path, size_t *ret_bytes);   /* with a zero behind its bytes; NULL */

#endif
