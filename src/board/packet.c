/* SPDX-License-Identifier: Apache-2.0 */
#include "board/packet.h"
#include "board/internal.h"
#include "board/layout.h"

#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* More ADOPT packets than a process can have devices: nonsense. */
#define ADOPT_MAX 64

static const struct {
	const char *name;
	uint16_t bytes;
	uint8_t from;   /* enum pen_packet_from */
} types[PEN_MSG_MAX_] = {
	[PEN_MSG_HELLO] = { "HELLO", sizeof(struct pen_msg_hello), PEN_FROM_CLIENT },
	[PEN_MSG_ADOPT] = { "ADOPT", sizeof(struct pen_msg_adopt), PEN_FROM_CLIENT },
	[PEN_MSG_HELLO_REPLY] = { "HELLO_REPLY", sizeof(struct pen_msg_hello_reply), PEN_FROM_DAEMON },
	[PEN_MSG_DEVICE] = { "DEVICE", sizeof(struct pen_msg_device), PEN_FROM_CLIENT },
	[PEN_MSG_SEAT] = { "SEAT", sizeof(struct pen_msg_seat), PEN_FROM_DAEMON },
	[PEN_MSG_MAPPED] = { "MAPPED", sizeof(struct pen_msg_device_ref), PEN_FROM_CLIENT },
	[PEN_MSG_READY] = { "READY", sizeof(struct pen_msg_device_ref), PEN_FROM_DAEMON },
	[PEN_MSG_NEIGHBOUR] = { "NEIGHBOUR", sizeof(struct pen_msg_neighbour), PEN_FROM_DAEMON },
	[PEN_MSG_RESEND] = { "RESEND", sizeof(struct pen_msg_device_ref), PEN_FROM_CLIENT },
	[PEN_MSG_DETACH] = { "DETACH", sizeof(struct pen_msg_device_ref), PEN_FROM_CLIENT },
};

size_t pen_packet_size(enum pen_msg type)
{
	return (unsigned)type < PEN_MSG_MAX_ ? types[type].bytes : 0;
}

const char *pen_packet_name(enum pen_msg type)
{
	return pen_packet_size(type) ? types[type].name : "unknown";
}

void pen_packet_finish(struct pen_packet *p)
{
	PEN_KEEP_ERRNO;
	for (unsigned i = 0; i < PEN_PROTO_FDS; i++) {
		if (p->fd[i] >= 0)
			close(p->fd[i]);
		p->fd[i] = -1;
	}
}

/* ---- checking --------------------------------------------------------------------------------------------------- */

#define ENDS(array) (memchr((array), 0, sizeof(array)) != NULL)

static bool seat_good(const struct pen_msg_seat *m, unsigned nfds)
{
	if (!ENDS(m->key) || m->adopted > 1)
		return false;
	if (m->status < 0)
		return nfds == 0;
	return m->status == 0 && nfds == (m->adopted ? 1 : 3) && m->seat < PEN_SEATS && m->generation &&
	       m->slot < PEN_TENANT_SLOTS && m->client < PEN_LEDGER_CLIENTS;
}

static bool body_good(const union pen_packet_body *m, unsigned nfds)
{
	switch ((enum pen_msg)m->head.type) {
	case PEN_MSG_HELLO:
		return nfds == 0 && ENDS(m->hello.comm) && m->hello.nadopt <= ADOPT_MAX;
	case PEN_MSG_ADOPT:
		return (nfds == 0 || nfds == 2) && pen_devkey_is_valid(m->adopt.key) && m->adopt.seat < PEN_SEATS;
	case PEN_MSG_HELLO_REPLY:
		return nfds == 0 && ENDS(m->hello_reply.text) && m->hello_reply.status <= 0;
	case PEN_MSG_DEVICE:
		return nfds == 0 && pen_devkey_is_valid(m->device.key) && ENDS(m->device.model);
	case PEN_MSG_SEAT:
		return seat_good(&m->seat, nfds);
	case PEN_MSG_NEIGHBOUR:
		return nfds == 1 && m->neighbour.seat < PEN_SEATS && m->neighbour.generation;
	case PEN_MSG_MAPPED:
	case PEN_MSG_READY:
	case PEN_MSG_RESEND:
	case PEN_MSG_DETACH:
		return nfds == 0;
	case PEN_MSG_MAX_:
		break;
	}
	return false;
}

static int check_head(const struct pen_msg_head *h, size_t size, enum pen_packet_from from)
{
	if (size < sizeof(*h) || size > PEN_PROTO_MAX || h->magic != PEN_PROTO_MAGIC)
		return -EPROTO;
	if (h->major != PEN_PROTO_MAJOR)
		return -EPROTONOSUPPORT;
	if (h->size != size || h->type >= PEN_MSG_MAX_ || !types[h->type].bytes || types[h->type].from != from)
		return -EPROTO;
	if (size < types[h->type].bytes || (size > types[h->type].bytes && h->minor <= PEN_PROTO_MINOR))
		return -EPROTO;
	return 0;
}

/* Number of descriptors that a packet which lost some should have had. */
static unsigned fds_meant(const union pen_packet_body *m)
{
	switch ((enum pen_msg)m->head.type) {
	case PEN_MSG_ADOPT:
		return 2;
	case PEN_MSG_SEAT:
		return m->seat.status < 0 ? 0 : m->seat.adopted ? 1 : 3;
	case PEN_MSG_NEIGHBOUR:
		return 1;
	default:
		return 0;
	}
}

int pen_packet_check(struct pen_packet *p, size_t size, enum pen_packet_from from)
{
	int r = check_head(&p->m.head, size, from);
	if (r < 0)
		return r;
	size_t known = types[p->m.head.type].bytes;
	memset(p->m.raw + known, 0, sizeof(p->m.raw) - known);
	return body_good(&p->m, p->fds_lost ? fds_meant(&p->m) : p->nfds) ? 0 : -EPROTO;
}

/* ---- receiving and sending -------------------------------------------------------------------------------------- */

/* Takes the descriptors out of the control data: the first ones into the packet, all beyond are closed. */
static void take_fds(struct pen_packet *p, struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(0))
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (p->nfds < PEN_PROTO_FDS)
				p->fd[p->nfds] = fd;
			else
				close(fd);
			p->nfds++;
		}
	}
}

int pen_packet_recv(int sock, enum pen_packet_from from, struct pen_packet *ret)
{
	PEN_KEEP_ERRNO;
	memset(ret, 0, sizeof(*ret));
	for (unsigned i = 0; i < PEN_PROTO_FDS; i++)
		ret->fd[i] = -1;
	/* Room for one descriptor more than allowed shows a packet with too many for what it is. */
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * (PEN_PROTO_FDS + 1))];
	} control;
	struct iovec iov = { ret->m.raw, sizeof(ret->m.raw) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t n;
	do {
		n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	take_fds(ret, &msg);
	if ((msg.msg_flags & MSG_CTRUNC) && ret->nfds <= PEN_PROTO_FDS) {
		pen_packet_finish(ret);
		ret->nfds = 0;
		ret->fds_lost = 1;
	}
	int r = n == 0 ? 0 : (msg.msg_flags & MSG_TRUNC) ? -EPROTO : pen_packet_check(ret, (size_t)n, from);
	if (n == 0 || r < 0)
		pen_packet_finish(ret);
	return n == 0 ? 0 : r < 0 ? r : 1;
}

int pen_packet_send(int sock, enum pen_msg type, void *msg, const int *fds, unsigned nfds)
{
	PEN_KEEP_ERRNO;
	size_t size = pen_packet_size(type);
	if (!size || nfds > PEN_PROTO_FDS)
		return -EINVAL;
	*(struct pen_msg_head *)msg = (struct pen_msg_head){
		.magic = PEN_PROTO_MAGIC,
		.major = PEN_PROTO_MAJOR,
		.minor = PEN_PROTO_MINOR,
		.type = (uint32_t)type,
		.size = (uint32_t)size,
	};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * PEN_PROTO_FDS)];
	} control;
	memset(&control, 0, sizeof(control));
	struct iovec iov = { msg, size };
	struct msghdr out = { .msg_iov = &iov, .msg_iovlen = 1 };
	if (nfds) {
		out.msg_control = &control;
		out.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		struct cmsghdr *c = CMSG_FIRSTHDR(&out);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
	}
	ssize_t n;
	do {
		n = sendmsg(sock, &out, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EWOULDBLOCK || errno == ENOBUFS ? -EAGAIN : -errno;
	return 0;
}
