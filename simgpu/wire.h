/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_WIRE_H
#define SIM_WIRE_H
/*
 * What client.c and the server share: messages on the socket, and pages. Both ends are of one build; nothing here is stable.
 *
 * A connection is SOCK_SEQPACKET, one request and one reply at a time. The first reply brings two descriptors: the server's bell
 * and the process's own page; a new channel's reply brings its ring. The client writes commands into the ring, sets the channel's
 * bit in its page and rings the bell; the server writes `done`.
 */
#include <assert.h>
#include <stdatomic.h>

#include "simgpu/client.h"

#define SIM_WIRE_MAGIC UINT32_C(0x73696d31)   /* "sim1" */
#define SIM_RING 1024                         /* commands in a channel, as deep as the vendors' */
#define SIM_CHANNELS 1024                     /* of a process, 64 a word of `dirty` */
#define SIM_CONTEXTS 256
#define SIM_TEXT 128
#define SIM_PROCESSES 512u                    /* told in one reply */

/* Ready in a shared page of its own: all processes ring one bell. */
struct sim_bell {
	_Atomic uint32_t rings;
	_Atomic uint32_t asleep;              /* the server waits on @rings */
};

struct sim_slot {
	struct sim_cmd cmd;                   /* wait_seq.channel: the channel's id instead of a pointer */
	uint64_t at_ns;
};

struct sim_ring {
	_Atomic uint64_t tail;                /* written by the client: commands put in, since the start */
	char pad1[56];
	_Atomic uint64_t done;                /* written by the server, as all below */
	_Atomic uint32_t event;               /* moves with every change that somebody may wait for; a futex */
	_Atomic uint32_t waiters;             /* clients in it */
	char pad2[48];
	struct sim_slot slot[SIM_RING];
};
static_assert(offsetof(struct sim_ring, slot) == 128, "tail and done lie in cache lines of their own");

struct sim_page {
	uint32_t magic;
	_Atomic uint32_t any;                 /* some bit of @dirty is set */
	_Atomic uint64_t dirty[SIM_CHANNELS / 64];
	_Atomic int32_t status[SIM_CONTEXTS]; /* of each context; 0 or a negative errno */
	/* Host functions to be called: tokens, put by the server and taken by the client's one thread. */
	_Atomic uint32_t host_event;          /* a futex */
	_Atomic uint32_t host_put, host_taken;
	uint64_t host[SIM_CHANNELS];          /* a channel has at most one */
};

enum sim_op {
	SIM_OP_HELLO, SIM_OP_CARD, SIM_OP_MEM_TAKE, SIM_OP_MEM_GIVE, SIM_OP_MEM_INFO,
	SIM_OP_CONTEXT_CREATE, SIM_OP_CONTEXT_DESTROY, SIM_OP_CHANNEL_CREATE, SIM_OP_CHANNEL_DESTROY,
	SIM_OP_HOST_DONE, SIM_OP_READING, SIM_OP_PROCESSES,
	/* of simgpu-ctl */
	SIM_OP_TRUTH, SIM_OP_RESET, SIM_OP_FAULT,
	SIM_OP_MAX_,
};

struct sim_request {
	uint32_t magic, op, dev;
	int32_t priority;
	uint32_t units;
	uint64_t id, bytes;
	char text[SIM_TEXT];                  /* a fault: "oom=3" */
};

struct sim_reply {
	int32_t result;                       /* 0 or a count, or a negative errno */
	uint32_t index;                       /* of a context or channel in its process's page; of cards: how many */
	uint64_t id, free_bytes, total_bytes;
	union {
		struct sim_card card;
		struct sim_reading reading;
		struct sim_process process[SIM_PROCESSES];
		char text[SIM_TEXT];          /* of an error */
	};
};

#endif
