/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_SHIM_CUDA_PROP_H
#define PEN_SHIM_CUDA_PROP_H
/*
 * A driver that frees memory may first wait for the device, with a lock that the watcher needs to look at its marks: nobody would open
 * the device-side gate then. So it stays open while such a call lasts, whatever the ranks say (gateword.c).
 */
#include "shim/cuda/memory.h"

bool pen_cu_gate_prop(void);             /* Return: for pen_cu_gate_unprop() */
void pen_cu_gate_unprop(bool propped);

/* As PEN_CU_INSIDE(), a call that may wait for the device. */
#define PEN_CU_WAITING(call)                                                                             \
	({                                                                                               \
		bool propped_ = pen_cu_gate_prop();                                                      \
		CUresult waiting_ = PEN_CU_INSIDE(call);                                                 \
		pen_cu_gate_unprop(propped_);                                                            \
		waiting_;                                                                                \
	})

#endif
