/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BASE_MOUNTS_H
#define PEN_BASE_MOUNTS_H
/* Where in a container lies what is mounted for its contract: the daemon and `penstock alloc` say it, shims look there. */

#define PEN_TENANT_MOUNT "/run/penstock/tenant"
#define PEN_SHIMS_MOUNT "/run/penstock/lib"
/* Where images of NVIDIA look; behind ours, since setting the variable takes the image's own value away. */
#define PEN_NVIDIA_MOUNT "/usr/local/nvidia/lib64"
#define PEN_NVIDIA_LIBRARIES "/usr/local/nvidia/lib:" PEN_NVIDIA_MOUNT

#endif
