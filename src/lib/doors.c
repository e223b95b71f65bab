/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds the gates of this process: the table of each library of ours, by the note in it.
 *
 * Not dlsym(): our libraries are loaded by others (the OpenCL loader, a runtime's dlopen()) with
 * RTLD_LOCAL, where RTLD_DEFAULT does not see them; and what stands in for a vendor's library exports that
 * library's names and no others. dl_iterate_phdr() sees every object whoever loaded it, in the caller's
 * namespace, and takes no lock that is held while a library starts.
 */
#include "lib/lib.h"

#include <link.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#define LOOK_NS UINT64_C(100000000)
#define LOOK_NONE_NS UINT64_C(1000000)

#define HAS(size, type, member) ((size) >= offsetof(type, member) + sizeof(((type *)0)->member))

static const struct pen_gate_door *_Atomic doors[PEN_DOORS];
static _Atomic uint64_t next_ns;
static _Atomic unsigned long long seen_adds, seen_subs;

const struct pen_gate_door *pen_door(unsigned n)
{
	return n < PEN_DOORS ? atomic_load_explicit(&doors[n], memory_order_acquire) : NULL;
}

static void add(const struct pen_gate_door *door)
{
	if (door->abi != PEN_GATE_DOOR_ABI || !HAS(door->size, struct pen_gate_door, who))
		return;
	for (unsigned i = 0; i < PEN_DOORS; i++) {
		const struct pen_gate_door *is = NULL;
		if (atomic_compare_exchange_strong(&doors[i], &is, door) || is == door)
			return;
	}
}

static void look_at_notes(const unsigned char *at, size_t left)
{
	while (left >= sizeof(ElfW(Nhdr))) {
		ElfW(Nhdr) h;
		memcpy(&h, at, sizeof(h));
		at += sizeof(h);
		left -= sizeof(h);
		size_t name = ((size_t)h.n_namesz + 3) & ~(size_t)3,
		       rest = ((size_t)h.n_descsz + 3) & ~(size_t)3;
		if (name > left || rest > left - name)
			return;
		if (h.n_type == PEN_GATE_NOTE_DOOR && h.n_namesz == sizeof(PEN_GATE_NOTE_NAME) &&
		    h.n_descsz == sizeof(int64_t) &&
		    !memcmp(at, PEN_GATE_NOTE_NAME, sizeof(PEN_GATE_NOTE_NAME))) {
			int64_t offset;
			memcpy(&offset, at + name, sizeof(offset));
			add((const struct pen_gate_door *)(const void *)(at + name + offset));
		}
		at += name + rest;
		left -= name + rest;
	}
}

/* Packers and strippers leave notes behind that lie nowhere. */
static bool is_mapped(const struct dl_phdr_info *o, uint64_t at, uint64_t n)
{
	for (unsigned i = 0; i < o->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &o->dlpi_phdr[i];
		if (p->p_type == PT_LOAD && (p->p_flags & PF_R) && at >= p->p_vaddr && n <= p->p_filesz &&
		    at - p->p_vaddr <= p->p_filesz - n)
			return true;
	}
	return false;
}

static int look_at_object(struct dl_phdr_info *o, size_t size, void *arg)
{
	bool *first = arg;
	if (*first && HAS(size, struct dl_phdr_info, dlpi_subs)) {
		/*
		 * Counters of the loader: nothing came or went since. Two threads may both look; that does
		 * no harm.
		 */
		if (atomic_load(&seen_adds) == o->dlpi_adds && atomic_load(&seen_subs) == o->dlpi_subs)
			return 1;
		atomic_store(&seen_adds, o->dlpi_adds);
		atomic_store(&seen_subs, o->dlpi_subs);
	}
	*first = false;
	for (unsigned i = 0; i < o->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &o->dlpi_phdr[i];
		/*
		 * A segment aligned otherwise has the kernel's or the linker's own notes (GNU properties:
		 * 8).
		 */
		if (p->p_type == PT_NOTE && p->p_align <= 4 && is_mapped(o, p->p_vaddr, p->p_memsz))
			look_at_notes((const unsigned char *)o->dlpi_addr + p->p_vaddr, p->p_memsz);
	}
	return 0;
}

void pen_doors_look(void)
{
	bool first = true;
	dl_iterate_phdr(look_at_object, &first);
}

void pen_doors_look_at(uint64_t now_ns)
{
	uint64_t next = atomic_load_explicit(&next_ns, memory_order_relaxed);
	if (now_ns < next)
		return;
	/* The first is our own. */
	uint64_t then = now_ns + (pen_door(1) ? LOOK_NS : LOOK_NONE_NS);
	if (atomic_compare_exchange_strong_explicit(&next_ns, &next, then, memory_order_relaxed,
						    memory_order_relaxed))
		pen_doors_look();
}
