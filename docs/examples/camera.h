/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CAMERA_H
#define CAMERA_H
/*
 * The accelerator as the camera sees it: camera_opencl.c or camera_cuda.c. One thread. 0 or -1, with a line
 * on stderr.
 */
int accelerator_open(void);
int accelerator_run(void);   /* one model: returns when it is done */
#endif
