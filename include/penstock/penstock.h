/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PENSTOCK_PENSTOCK_H
#define PENSTOCK_PENSTOCK_H
/*
 * libpenstock, for programs that want to cooperate with Penstock. Nobody has to: applications run
 * unmodified. penstock(3) is the manual.
 *
 *   request.h    marks of requests, so that response times are those of what the application calls one
 *   info.h       what this process has: limits, shares, class, target
 *   attach.h     for programs that drive a device for whose API Penstock has no library
 *   error.h      results
 *
 * Link with -lpenstock (pkg-config penstock). The library needs the C library alone.
 */
#include <penstock/attach.h>
#include <penstock/error.h>
#include <penstock/info.h>
#include <penstock/request.h>

#endif
