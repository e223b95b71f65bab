/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as packets of the attach protocol, in both directions, to the check and through a socket. Input: direction and
 * number of descriptors in the first byte, then the packet; with bit 7 a good head for the size is put before it.
 */
#include "board/packet.h"
#include "board/layout.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* What a caller may rely on once a packet was let through. */
static void check_promise(const struct pen_packet *p, enum pen_packet_from from)
{
	const union pen_packet_body *m = &p->m;
	size_t n = pen_packet_size((enum pen_msg)m->head.type);
	if (!n || m->head.magic != PEN_PROTO_MAGIC)
		abort();
	for (size_t i = n; i < sizeof(m->raw); i++)
		if (m->raw[i])
			abort();
	if (m->head.type == PEN_MSG_SEAT && m->seat.status == 0 &&
	    (m->seat.seat >= PEN_SEATS || m->seat.client >= PEN_LEDGER_CLIENTS || m->seat.slot >= PEN_TENANT_SLOTS ||
	     p->nfds != (m->seat.adopted ? 1u : 3u)))
		abort();
	if (m->head.type == PEN_MSG_NEIGHBOUR && (m->neighbour.seat >= PEN_SEATS || p->nfds != 1))
		abort();
	if (from == PEN_FROM_CLIENT && m->head.type == PEN_MSG_DEVICE && strlen(m->device.key) >= sizeof(m->device.key))
		abort();
}

static void through_a_socket(const unsigned char *raw, size_t size, enum pen_packet_from from)
{
	static int pair[2] = { -1, -1 };
	if (pair[0] < 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	if (!size || send(pair[0], raw, size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size)
		return;
	struct pen_packet p;
	int r = pen_packet_recv(pair[1], from, &p);
	if (r == 1)
		check_promise(&p, from);
	else if (r >= 0 || r == -EAGAIN)
		abort();
	pen_packet_finish(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2 || size > PEN_PROTO_MAX + 200)
		return 0;
	enum pen_packet_from from = data[0] & 1 ? PEN_FROM_CLIENT : PEN_FROM_DAEMON;
	unsigned nfds = data[0] >> 1 & 7, head = data[0] & 0x80;
	unsigned char raw[PEN_PROTO_MAX + 300];
	struct pen_msg_head h = { PEN_PROTO_MAGIC, PEN_PROTO_MAJOR, PEN_PROTO_MINOR, data[1] % (PEN_MSG_MAX_ + 1u), 0 };
	size_t at = head ? sizeof(h) : 0;
	memcpy(raw + at, data + 2, size - 2);
	at += size - 2;
	if (head) {
		/* Cut or filled up to the size of the type, so that the body is reached. */
		size_t want = pen_packet_size((enum pen_msg)h.type);
		if (want > at)
			memset(raw + at, 0, want - at);
		at = want ? want : at;
		h.size = (uint32_t)at;
		memcpy(raw, &h, sizeof(h));
	}
	struct pen_packet p = { .fd = { -1, -1, -1 }, .nfds = nfds };
	memcpy(p.m.raw, raw, at < sizeof(p.m.raw) ? at : sizeof(p.m.raw));
	if (pen_packet_check(&p, at, from) == 0)
		check_promise(&p, from);
	through_a_socket(raw, at, from);
	return 0;
}
