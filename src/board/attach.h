/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BOARD_ATTACH_H
#define PEN_BOARD_ATTACH_H
/*
 * The client's side of attaching: one connection per process, any number of devices on it.
 *
 * It is a state machine that never waits: pen_attach_step() takes what has come, does what can be done and returns.
 * pen_attach_wait() is steps with poll(2) between them, for the first attach only; on the launch path the gate calls
 * pen_attach_step() now and then, and nothing when it has no reason (a seat without its page, a hang-up). A process that
 * has nothing on the device goes back to a restarted daemon in one call, with pen_attach_return().
 *
 *   CLOSED --connect, HELLO, ADOPT*--> GREETING --HELLO_REPLY 0--> OPEN --any error, hang-up--> CLOSED (try again later)
 *                                          '-------- status < 0 --> REFUSED (for good: fail closed)
 *   per device: NONE --DEVICE--> ASKED --SEAT, map, MAPPED--> MAPPED --READY--> LIVE; at a hang-up back to NONE, and
 *               the pages stay mapped: the gate goes on with them, and they are handed back by ADOPT.
 *
 * Addresses. A device has one range of addresses from its first attach to the end of the process: terms, ledger, own signal and
 * every neighbour's signal page have their fixed place in it, and pages are only ever replaced there, never unmapped. So a
 * pointer that was taken once stays good, and before a page has come its place reads as zero (idle).
 *
 * The application may close every descriptor (closefrom) and open its own under our numbers. So each descriptor is kept
 * with its st_dev and st_ino, compared before every use; one that was closed is forgotten, one that was replaced is left alone.
 * After a fork the child calls pen_attach_after_fork() before anything else (it finds out by feature.h's fork flag).
 *
 * Threads: every function from any thread; an internal trylock lets one at a time in (-EBUSY to the others). Nothing here
 * exits, prints, raises a signal or changes errno.
 */
#include "base/devkey.h"
#include "base/err.h"
#include "base/lock.h"
#include "board/layout.h"
#include "board/packet.h"
#include "board/proto.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PEN_TENANT_DIR_MAX 384                     /* bytes of a tenant directory's path, with its end */
#define PEN_ATTACH_DEVICES 16                      /* of one process */
#define PEN_ATTACH_WAIT_NS UINT64_C(5000000000)    /* a good bound for the first attach */
#define PEN_ATTACH_ANSWER_NS UINT64_C(5000000000)  /* a daemon that has not answered by then is hung up on */
#define PEN_ATTACH_RETRY_MIN_NS UINT64_C(10000000) /* between attempts to connect; doubles up to the next. The first
                                                      after a connection that was good comes at once */
#define PEN_ATTACH_RETRY_MAX_NS UINT64_C(1000000000)

#define PEN_ATTACH_STATES(X) X(CLOSED, "closed") X(GREETING, "greeting") X(OPEN, "open") X(REFUSED, "refused")
enum pen_attach_state {
#define X(id, name) PEN_ATTACH_##id,
	PEN_ATTACH_STATES(X)
#undef X
	PEN_ATTACH_STATE_MAX_,
};

enum pen_attach_device_state {
	PEN_SEAT_STATE_NONE,
	PEN_SEAT_STATE_ADOPTING,   /* pages were handed back */
	PEN_SEAT_STATE_ASKED,
	PEN_SEAT_STATE_MAPPED,
	PEN_SEAT_STATE_LIVE,
};

/* A descriptor of ours, and how to tell that it still is. */
struct pen_fdid {
	int fd;      /* -1 = none */
	dev_t dev;
	ino_t ino;
};

struct pen_attach_device {
	char key[PEN_DEVKEY_MAX];
	char model[64];
	uint64_t mem_bytes;
	uint32_t units;

	/* Written before live becomes 1. After a re-attach they may differ: the gate compares `attached` and reads them again. */
	_Atomic uint64_t device_id;
	_Atomic uint32_t seat, generation, slot;
	_Atomic uint32_t client;                      /* index in the ledger */
	const struct pen_terms_page *terms;           /* fixed addresses from pen_attach_add() on */
	struct pen_ledger_page *ledger;
	struct pen_signal_page *signal;
	const unsigned char *neighbours;              /* PEN_SEATS places; use pen_attach_neighbour() */
	_Atomic uint32_t live;                        /* 1 from the first READY on; stays 1 through hang-ups */
	_Atomic uint32_t attached;                    /* times READY came */
	_Atomic uint32_t seat_state;                  /* enum pen_attach_device_state */
	_Atomic int32_t status;                       /* negative: the daemon's answer to DEVICE, for good until it restarts */
	_Atomic uint32_t neighbour_generation[PEN_SEATS]; /* of the page at that place; 0 = none yet */
	_Atomic uint64_t fds_epoch;                   /* of the last neighbour descriptor: compare pen_terms.fds_epoch */

	/* private */
	uint32_t stride, lost, pages_held, wanted;
	struct pen_fdid ledger_fd, signal_fd;         /* kept for ADOPT */
};

struct pen_attach {
	struct pen_lock lock;
	_Atomic uint32_t state;                       /* enum pen_attach_state */
	_Atomic int32_t status;                       /* REFUSED: why (negative errno of HELLO_REPLY, or -EACCES no token) */
	char text[128];                               /* the daemon's words for the one log line; valid once REFUSED */
	_Atomic uint32_t ndevices;
	struct pen_attach_device *device[PEN_ATTACH_DEVICES];

	/* private */
	char dir[PEN_TENANT_DIR_MAX];
	uint8_t token[PEN_TOKEN_BYTES];
	uint32_t have_token, have_boot_id;
	uint8_t boot_id[16];
	struct pen_fdid sock;
	_Atomic int poll_fd;                          /* = sock.fd, for pen_attach_wait beside a step of another thread */
	uint64_t retry_at_ns, retry_step_ns, answer_by_ns;
};

/*
 * pen_attach_init - remember the tenant directory; no I/O but reading the token when it is there
 * @dir: path; "/proc/self/fd/N" names an open directory. Return: 0; -ENAMETOOLONG.
 * The memory must stay for the life of the process once a device was added.
 */
int pen_attach_init(struct pen_attach *a, const char *dir);

/* What the application's API says of a device. Strings are borrowed during the call. */
struct pen_attach_want {
	const char *key;       /* base/devkey.h */
	const char *model;     /* for people; may be NULL */
	uint64_t mem_bytes;
	uint32_t units;
};

/*
 * pen_attach_add - a device that this process wants a seat on
 * Reserves its range of addresses; asks for the seat at the next step. The same key again returns the same device.
 * Return: 0; -ENOSPC more than PEN_ATTACH_DEVICES; -ENOMEM; -ENAMETOOLONG; -EBUSY.
 */
int pen_attach_add(struct pen_attach *a, const struct pen_attach_want *want, struct pen_attach_device **ret_device);

/*
 * pen_attach_step - do what can be done without waiting
 * @now_ns: CLOCK_MONOTONIC
 *
 * Connects or re-connects when it is time to, takes packets that have come (at most 256 a call), answers them.
 * Return: > 0 number of packets taken; 0 nothing to do; -ENOTCONN no connection now (the daemon is down or restarting);
 * -EACCES refused; -EBUSY another thread is in here.
 */
int pen_attach_step(struct pen_attach *a, uint64_t now_ns);

/*
 * pen_attach_wait - step and poll until @d has its seat
 * Return: 0; -EACCES refused (a->status, a->text); d->status (-ENODEV, -ENOSPC, ...); -EAGAIN not within @timeout_ns: the
 * daemon cannot be reached or does not answer.
 */
int pen_attach_wait(struct pen_attach *a, struct pen_attach_device *d, uint64_t timeout_ns);

/*
 * pen_attach_return - after a hang-up: step and poll until @d has its seat again, but not for a daemon that is not there
 * Return: as pen_attach_wait; -EAGAIN also at once when nobody answers the call.
 */
int pen_attach_return(struct pen_attach *a, struct pen_attach_device *d, uint64_t timeout_ns);

/* Neighbour pages are missing though the terms name their seats: ask for all again. Return: 0; -ENOTCONN; -EBUSY. */
int pen_attach_resend(struct pen_attach *a, struct pen_attach_device *d);
/* This process has released everything on the device. Pages stay mapped. Return: 0; -ENOTCONN; -EBUSY. */
int pen_attach_detach(struct pen_attach *a, struct pen_attach_device *d);

/*
 * pen_attach_after_fork - in the child: forget the parent's connection, seats and pages
 *
 * Closes the inherited descriptors (after looking that they are ours), makes a new range of addresses for every device (the
 * old one stays readable: pointers into it see stale, harmless words), zero charges, state NONE. Then attach as at first.
 * Async-signal-safe. Return: 0; -ENOMEM: no range, the devices stay without one: treat the process as refused.
 */
int pen_attach_after_fork(struct pen_attach *a);

/* Closes the connection and our descriptors; pages stay mapped. For tests and an orderly end. */
void pen_attach_finish(struct pen_attach *a);

/*
 * The signal page of a seat as the terms name it, or NULL while its descriptor has not come (call pen_attach_step; after
 * some time pen_attach_resend). Hostile content: states and times in it are claims.
 */
static inline const struct pen_signal_page *pen_attach_neighbour(const struct pen_attach_device *d, uint32_t seat,
								 uint32_t generation)
{
	if (seat >= PEN_SEATS || !generation ||
	    atomic_load_explicit(&d->neighbour_generation[seat], memory_order_acquire) != generation)
		return NULL;
	return (const struct pen_signal_page *)(const void *)(d->neighbours + (size_t)seat * d->stride);
}

/* ---- for tests ------------------------------------------------------------------------------------------------- */

/* Takes note of a descriptor's identity. Return: 0; a negative errno. */
int pen_fdid_note(struct pen_fdid *id, int fd);
/* Is it still ours? Return: 0; -EBADF closed; -ESTALE the number is something else now. */
int pen_fdid_check(const struct pen_fdid *id);
/* Closes it if it is still ours; forgets it in any case. */
void pen_fdid_close(struct pen_fdid *id);

#endif
