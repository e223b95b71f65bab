/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BOARD_PROTO_H
#define PEN_BOARD_PROTO_H
/*
 * Attach protocol: SOCK_SEQPACKET on the tenant's own socket, one struct per packet, descriptors by SCM_RIGHTS, little
 * trust in either direction. The tenant directory holds `attach.sock` and `token` (32 random bytes, hex, mode 0400 of
 * the tenant's user). One connection per process; a process that exec'ed or forked attaches anew.
 *
 *   client                                daemon
 *   HELLO {token, start time, nadopt} ->
 *        (ADOPT per device + fds)         after a restart of the daemon: the pages that the client still holds
 *                                      <- HELLO_REPLY {status}
 *                                      <- SEAT, NEIGHBOUR, READY for each ADOPT; a negative SEAT: ask by DEVICE. An adopted
 *                                         seat needs no MAPPED, a new one does
 *   DEVICE {key, model, mem, units}    ->
 *                                      <- SEAT {status, seat, generation, slot} + fds: terms (O_RDONLY), ledger, signal
 *   MAPPED {device_id}                 ->  signal is mapped: the daemon seals it (SHRINK GROW FUTURE_WRITE SEAL) and shows it
 *                                      <- READY {device_id}
 *                                      <- NEIGHBOUR {device_id, seat, generation} + fd (O_RDONLY signal page); any time,
 *                                         always before the terms epoch that names the seat
 *   RESEND {device_id}                 ->  all neighbours again (descriptors were lost)
 *   DETACH {device_id}                 ->  this process has released everything on the device
 *
 * The daemon checks the peer by SO_PEERPIDFD where the kernel has it, else SO_PEERCRED + pidfd_open + start time. A seat
 * is freed on the pidfd's death only; a connection that hangs up with a live process keeps its seat for re-attach.
 * Any packet of a wrong size, magic or order ends the connection; nothing else.
 */
#include "base/devkey.h"

#include "base/mounts.h"

#include <stdint.h>

#define PEN_PROTO_MAGIC UINT32_C(0x414e4550)   /* "PENA" */
#define PEN_PROTO_MAJOR 1
#define PEN_PROTO_MINOR 0
#define PEN_PROTO_MAX 512                      /* bytes of any packet */
#define PEN_PROTO_FDS 3                        /* descriptors of any packet at most */
#define PEN_TOKEN_BYTES 32

/* PEN_TENANT_MOUNT, in a container, takes precedence over this variable. */
#define PEN_TENANT_ENV "PENSTOCK_TENANT"
#define PEN_ATTACH_SOCK "attach.sock"
#define PEN_TOKEN_FILE "token"

enum pen_msg {
	PEN_MSG_HELLO = 1,
	PEN_MSG_ADOPT,
	PEN_MSG_HELLO_REPLY,
	PEN_MSG_DEVICE,
	PEN_MSG_SEAT,
	PEN_MSG_MAPPED,
	PEN_MSG_READY,
	PEN_MSG_NEIGHBOUR,
	PEN_MSG_RESEND,
	PEN_MSG_DETACH,
	PEN_MSG_MAX_,
};

struct pen_msg_head {
	uint32_t magic;
	uint16_t major, minor;
	uint32_t type;          /* enum pen_msg */
	uint32_t size;          /* of the whole packet; at least that of the struct below, larger from a newer minor */
};

struct pen_msg_hello {
	struct pen_msg_head head;
	uint8_t token[PEN_TOKEN_BYTES];
	uint64_t start_time;    /* field 22 of /proc/self/stat: names the process where pidfds do not */
	uint32_t pid;           /* as it sees itself, for people; never trusted */
	uint32_t nadopt;        /* ADOPT packets that follow before the reply */
	char comm[16];          /* for people */
};

/* Fds: ledger, signal (as held by the client). The daemon verifies seals, sizes, heads and boot id and adopts or refuses. */
struct pen_msg_adopt {
	struct pen_msg_head head;
	char key[PEN_DEVKEY_MAX];
	uint32_t seat, generation;
	uint64_t charged_bytes; /* as the client counts itself: the fall-back when its pages cannot be verified */
};

struct pen_msg_hello_reply {
	struct pen_msg_head head;
	int32_t status;         /* 0; -EACCES wrong token; -EPROTO unknown major; -EBUSY; -ESHUTDOWN contract ended */
	uint32_t reserved;
	char text[128];         /* for the one log line */
};

struct pen_msg_device {
	struct pen_msg_head head;
	char key[PEN_DEVKEY_MAX];
	char model[64];
	uint64_t mem_bytes;     /* claims: used only for a device that the probe does not know */
	uint32_t units;
	uint32_t reserved;
};

/* Fds: terms, ledger, signal. Negative status: no fds; -ENODEV contract does not cover the device; -ENOSPC no seat. */
struct pen_msg_seat {
	struct pen_msg_head head;
	int32_t status;
	uint32_t seat, generation;
	uint32_t slot;          /* of the tenant on the device */
	uint32_t client;        /* index in the ledger */
	uint32_t adopted;       /* 1: keep the ledger and signal pages you hold, only terms is new (1 fd) */
	uint64_t device_id;
	char key[PEN_DEVKEY_MAX];
};

struct pen_msg_device_ref {   /* MAPPED, READY, RESEND, DETACH */
	struct pen_msg_head head;
	uint64_t device_id;
};

struct pen_msg_neighbour {   /* fd: signal page, O_RDONLY */
	struct pen_msg_head head;
	uint64_t device_id;
	uint32_t seat, generation;
	uint64_t fds_epoch;     /* running number of neighbour descriptors for this client and device */
};

_Static_assert(sizeof(struct pen_msg_hello) <= PEN_PROTO_MAX, "size");
_Static_assert(sizeof(struct pen_msg_device) <= PEN_PROTO_MAX, "size");
_Static_assert(sizeof(struct pen_msg_seat) <= PEN_PROTO_MAX, "size");

#endif
