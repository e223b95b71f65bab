/* SPDX-License-Identifier: Apache-2.0 */
#include "integration/kubelet/grpc.h"

#include "base/auto.h"

#include <errno.h>
#include <string.h>

#define HEAD 5   /* a byte: compressed?; four: length, most significant first */

int pen_grpc_frame_add(struct pen_grpc_frame *f, const uint8_t *data, size_t len)
{
	if (f->too_long || len > PEN_GRPC_MESSAGE_MAX + HEAD - f->len) {
		f->too_long = true;
		return -EMSGSIZE;
	}
	if (f->len + len > f->room) {
		size_t room = PEN_MAX(f->room * 2, f->len + len);
		uint8_t *p = realloc(f->data, room);
		if (!p)
			return -ENOMEM;
		f->data = p;
		f->room = room;
	}
	if (len)
		memcpy(f->data + f->len, data, len);
	f->len += len;
	return 0;
}

enum pen_grpc_status pen_grpc_frame_message(const struct pen_grpc_frame *f, const uint8_t **ret_message, size_t *ret_len)
{
	if (f->too_long)
		return PEN_GRPC_RESOURCE_EXHAUSTED;
	if (f->len < HEAD)
		return PEN_GRPC_INVALID_ARGUMENT;
	uint32_t n = (uint32_t)f->data[1] << 24 | (uint32_t)f->data[2] << 16 | (uint32_t)f->data[3] << 8 | f->data[4];
	if (f->data[0])   /* nobody was told that we could inflate */
		return PEN_GRPC_UNIMPLEMENTED;
	if (n > PEN_GRPC_MESSAGE_MAX)
		return PEN_GRPC_RESOURCE_EXHAUSTED;
	if (n != f->len - HEAD)   /* half a message, or a second one */
		return PEN_GRPC_INVALID_ARGUMENT;
	*ret_message = f->data + HEAD;
	*ret_len = n;
	return PEN_GRPC_OK;
}

void pen_grpc_frame_finish(struct pen_grpc_frame *f)
{
	free(f->data);
	*f = (struct pen_grpc_frame){ .data = NULL };
}

void pen_grpc_percent(char *buf, size_t n, const char *text)
{
	size_t at = 0;
	for (; *text; text++) {
		bool plain = *text >= ' ' && *text <= '~' && *text != '%';
		if (at + (plain ? 1 : 3) >= n)
			break;
		at += (size_t)snprintf(buf + at, n - at, plain ? "%c" : "%%%02X", (unsigned char)*text);
	}
	buf[at] = 0;
}
