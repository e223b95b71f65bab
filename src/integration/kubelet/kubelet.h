/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_KUBELET_H
#define PEN_KUBELET_H
/* The kubelet's device plugin (Kubernetes, K3s, KubeEdge EdgeCore), as a row of the daemon's table of integrations. */
#include "daemon/service.h"

extern const struct pen_integration pen_kubelet_integration;

#endif
