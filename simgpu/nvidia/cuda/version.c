/* SPDX-License-Identifier: Apache-2.0 */
/* The only source that differs between the three libraries. */
#include "simgpu/nvidia/cuda/drv.h"

const int sim_cuda_version = SIM_CUDA_VERSION;
const char *const sim_driver_version = SIM_DRIVER_VERSION;
