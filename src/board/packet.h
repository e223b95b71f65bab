/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BOARD_PACKET_H
#define PEN_BOARD_PACKET_H
/*
 * Packets of the attach protocol (proto.h), for both sides: one packet in, strictly checked; one packet out.
 *
 * Strict means: size, magic, major, type, direction, number of descriptors and the end of every string are checked
 * before the caller sees anything; a packet that fails closes the descriptors that came with it. A newer minor version may
 * send a longer packet: its tail is dropped. Nothing here waits: sockets are expected to be non-blocking, and MSG_DONTWAIT is
 * set anyway. No SIGPIPE, ever. Threads: any, but one per socket and direction.
 */
#include "board/proto.h"

#include <stddef.h>
#include <stdint.h>

enum pen_packet_from { PEN_FROM_CLIENT, PEN_FROM_DAEMON };

union pen_packet_body {
	struct pen_msg_head head;
	struct pen_msg_hello hello;
	struct pen_msg_adopt adopt;
	struct pen_msg_hello_reply hello_reply;
	struct pen_msg_device device;
	struct pen_msg_seat seat;
	struct pen_msg_device_ref ref;        /* MAPPED, READY, RESEND, DETACH */
	struct pen_msg_neighbour neighbour;
	unsigned char raw[PEN_PROTO_MAX];
};

struct pen_packet {
	union pen_packet_body m;
	int fd[PEN_PROTO_FDS];   /* owned by the packet; -1 = none or taken (PEN_TAKE_FD) */
	unsigned nfds;           /* that came */
	unsigned fds_lost;       /* 1: the kernel could not deliver descriptors (limit of open files); those that came are closed */
};

/* Closes what was not taken. */
void pen_packet_finish(struct pen_packet *p);
#define pen_auto_packet __attribute__((cleanup(pen_packet_finish)))
#define PEN_PACKET_INIT { .fd = { -1, -1, -1 } }

/*
 * pen_packet_recv - take one packet
 * @from: who is at the other end
 *
 * Return: 1 a good packet; 0 the other end hung up; -EAGAIN nothing there; -EPROTO a bad packet: end the connection;
 * another negative errno of recvmsg (-ECONNRESET, -EBADF, -ENOTSOCK).
 */
int pen_packet_recv(int sock, enum pen_packet_from from, struct pen_packet *ret);

/*
 * pen_packet_check - the checks of pen_packet_recv on @size bytes in p->m with p->nfds descriptors: touches no descriptor
 * Return: 0, and what @size did not fill of p->m is zero; -EPROTO.
 */
int pen_packet_check(struct pen_packet *p, size_t size, enum pen_packet_from from);

/*
 * pen_packet_send - send one message with @nfds descriptors (borrowed)
 * @msg: any struct of proto.h; its head is filled in here: type @type, own version, the size of that type
 *
 * Return: 0; -EAGAIN the other end does not read (nothing was sent); -EPIPE, -ECONNRESET it is gone; -EINVAL.
 */
int pen_packet_send(int sock, enum pen_msg type, void *msg, const int *fds, unsigned nfds);

/* Bytes of a message of that type; 0 = no such type. */
size_t pen_packet_size(enum pen_msg type);
const char *pen_packet_name(enum pen_msg type);

/*
 * Number of descriptors a packet has:
 *   ADOPT 2 (ledger, signal), or 0: the client still has both mapped but lost the descriptors (closefrom); a process
 *   that exec'ed sends no ADOPT, and that is how the two differ.  SEAT 3 (terms, ledger, signal), 1 with adopted (terms), 0
 *   with a negative status.  NEIGHBOUR 1.  All others none.
 */

#endif
