/* SPDX-License-Identifier: Apache-2.0 */
/* Stands for the OpenCL loader when the layer is linked; see meson.build. */
extern const char pen_no_loader;
__attribute__((visibility("hidden"))) const char pen_no_loader = 0;
