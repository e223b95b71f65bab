/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BACKEND_JSON_H
#define PEN_BACKEND_JSON_H
/* What the probe prints of a vendor's text: JSON must be UTF-8, a driver's text need not be. Bytes that are none become '?'. */
#include <stdio.h>

void pen_json_string(FILE *out, const char *text);

#endif
