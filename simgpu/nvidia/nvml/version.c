/* SPDX-License-Identifier: Apache-2.0 */
/* The only source that differs between the libraries. */
#include "simgpu/nvidia/nvml/ml.h"

const char *const sim_nv_default_driver = SIM_NVML_DEFAULT_DRIVER;
