/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BOARD_PAGE_H
#define PEN_BOARD_PAGE_H
/*
 * Board pages as kernel objects: make, seal, verify, map. layout.h says what lies in them.
 *
 * Who may write a page is decided by seals and by nothing else. A descriptor that was opened O_RDONLY is no protection:
 * whoever holds it can open /proc/self/fd/N again for writing, root or not. F_SEAL_FUTURE_WRITE is: it refuses every new
 * writable mapping and every write(), whatever the descriptor, and leaves the mappings that exist alone. So:
 *
 *   page     life
 *   terms    daemon: create (mapped RW), seal_terms, reopen_ro, send
 *   ledger   daemon: create (mapped RW), seal_ledger, send; every client of the tenant maps it writable, also later ones
 *   signal   daemon: create, send; client: maps it RW, says MAPPED; daemon: seal_signal, reopen_ro, show to neighbours
 *
 * Every page is sealed against a change of its size when it is made, so that no reader of it ever meets a SIGBUS.
 * Kernels before 5.1 have no F_SEAL_FUTURE_WRITE: see PEN_FEATURE_FUTURE_WRITE in feature.h for what is lost then.
 *
 * Threads: any. Lifetime: the caller owns descriptors and mappings. Runs in the daemon and inside tenants: no output,
 * no signals, errno is left as it was; errors are negative errno values.
 */
#include "base/err.h"
#include "board/layout.h"

#include <stddef.h>
#include <stdint.h>

/* id, name for people, magic, bytes. The one list of kinds of page. */
#define PEN_PAGE_KINDS(X)                                          \
	X(TERMS, "terms", PEN_MAGIC_TERMS, PEN_TERMS_BYTES)        \
	X(LEDGER, "ledger", PEN_MAGIC_LEDGER, PEN_LEDGER_BYTES)    \
	X(SIGNAL, "signal", PEN_MAGIC_SIGNAL, PEN_SIGNAL_BYTES)

enum pen_page_kind {
#define X(id, name, magic, bytes) PEN_PAGE_##id,
	PEN_PAGE_KINDS(X)
#undef X
	PEN_PAGE_KIND_MAX_,
};

const char *pen_page_name(enum pen_page_kind kind);
size_t pen_page_bytes(enum pen_page_kind kind);

/* What the head of a new page says. @instance 0: drawn at random. */
struct pen_page_id {
	uint32_t slot;          /* terms, ledger: tenant's slot; signal: seat */
	uint64_t device_id;
	uint64_t instance;
	uint8_t boot_id[16];
};

/*
 * pen_page_create - make a page: memfd (close-on-exec, mode 0600), zeroed, head written, sealed SHRINK|GROW, mapped RW
 * @ret_fd:  read-write descriptor; the caller closes it
 * @ret_map: the mapping; not inherited by fork; pen_page_unmap() ends it
 *
 * A new terms page starts at an epoch above that of every earlier page of this boot (microseconds of the monotonic
 * clock), so that clients that move to it see a change. Return: 0; a negative errno with a text in @err.
 */
int pen_page_create(enum pen_page_kind kind, const struct pen_page_id *id, int *ret_fd, void **ret_map,
		    struct pen_err *err);

/*
 * pen_page_seal_terms, _ledger, _signal - the last seals of a page of that kind
 *
 * terms, signal: SHRINK GROW FUTURE_WRITE SEAL; the mappings that exist stay writable, and there will be no other.
 * ledger: SHRINK GROW SEAL; clients that attach later must still map it writable.
 * Sealing twice is no error. Without FUTURE_WRITE in the kernel: SHRINK GROW SEAL, and 0.
 * Return: 0; -EPERM: sealed before without what is wanted; a negative errno.
 */
int pen_page_seal_terms(int fd, struct pen_err *err);
int pen_page_seal_ledger(int fd, struct pen_err *err);
int pen_page_seal_signal(int fd, struct pen_err *err);

/* A new O_RDONLY descriptor of the same page, for handing out. Not a protection by itself: see above. */
int pen_page_reopen_ro(int fd, int *ret_fd, struct pen_err *err);

/*
 * pen_page_verify - is this descriptor a page of that kind, safe to map?
 * @boot_id: of this boot; NULL = not compared (no /proc)
 * @ret_head: copy of the head that was verified (may be NULL): the page itself may change at any time
 *
 * Looks at seals before it reads, so that a descriptor that would block or change its size is refused unread.
 * Return: 0; -EPROTO no board page of this kind, layout or size; -EPERM a seal is missing (SHRINK and GROW always;
 * PEN_VERIFY_FINAL: also FUTURE_WRITE for terms and signal, where the kernel has it); -ESTALE of another boot;
 * -EBADF no descriptor.
 */
#define PEN_VERIFY_FINAL 1u
int pen_page_verify(int fd, enum pen_page_kind kind, const uint8_t *boot_id, unsigned flags,
		    struct pen_page_head *ret_head, struct pen_err *err);
/* The part of it that looks at bytes only: no descriptor needed. Return: 0; -EPROTO; -ESTALE. */
int pen_page_check_head(const struct pen_page_head *head, enum pen_page_kind kind, const uint8_t *boot_id,
			struct pen_err *err);

/* ---- mapping: nothing but the whole page, shared ---------------------------------------------------------------- */

/*
 * A writable mapping is MADV_DONTFORK: a child must not write what its parent's threads are writing. A read-only one is
 * inherited: it harms nobody, and pointers that the parent's code left behind do not fault in the child.
 */
int pen_page_map_ro(int fd, enum pen_page_kind kind, const void **ret_map);
int pen_page_map_rw(int fd, enum pen_page_kind kind, void **ret_map);
/*
 * pen_page_map_at - map over a place in a range from pen_page_reserve(); what was there is replaced in one step
 * @at: multiple of the machine's page size (pen_page_stride())
 */
int pen_page_map_at(int fd, enum pen_page_kind kind, int writable, void *at);
void pen_page_unmap(const void *map, enum pen_page_kind kind);

/* Bytes that a page of that kind takes of an address range: its size rounded up to the machine's page size. */
size_t pen_page_stride(enum pen_page_kind kind);
/*
 * Reserves a range of addresses, readable and writable and zero: a reader of a place that nothing was mapped to sees an
 * idle seat, a writer writes into the void; nobody faults. Costs memory only where written.
 */
int pen_page_reserve(size_t bytes, void **ret_range);

#endif
