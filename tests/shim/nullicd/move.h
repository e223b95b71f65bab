/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TEST_NULLICD_MOVE_H
#define PEN_TEST_NULLICD_MOVE_H
/*
 * Data movement that buffers, images, SVM and command buffers share.
 * nl_run_rect: n = source offset, destination offset, width in bytes, height, depth, source row and slice pitch, destination row
 * and slice pitch; ptr = source, destination. nl_run_fill: n = offset, bytes, pattern size; ptr[0] = where; heap = pattern.
 */
#include "nullicd.h"

void nl_run_rect(const struct nl_op *op);
void nl_run_fill(const struct nl_op *op);
/* Queue, buffer, same context, range inside the buffer. Return: 0 or the API's code. */
cl_int nl_check_buffer(cl_command_queue q, cl_mem m, size_t offset, size_t bytes);
#endif
