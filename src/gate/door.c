/* SPDX-License-Identifier: Apache-2.0 */
/* For libraries that look and do not submit: who of the tenant is on a device, and the table by which they share a gate. Where it lies is in a note. */
#include "gate/internal.h"

size_t pen_gate_clients(struct pen_gate *g, struct pen_gate_client *v, size_t room)
{
	size_t n = 0;
	if (pen_gate_ready(g) < 0)
		return 0;
	struct pen_ledger_page *l = g->dev->ledger;
	for (uint32_t i = 0; i < PEN_LEDGER_CLIENTS && n < room; i++) {
		struct pen_ledger_client *c = &l->client[i];
		if (!atomic_load_explicit(&c->tag, memory_order_acquire))
			continue;
		v[n++] = (struct pen_gate_client){
			.pid = atomic_load_explicit(&c->pid, memory_order_relaxed),
			.charged_bytes = atomic_load_explicit(&c->charged_bytes, memory_order_relaxed),
			.device_ns = atomic_load_explicit(&c->device_ns, memory_order_relaxed),
		};
	}
	return n;
}

_Atomic uint32_t pen_gate_marker;   /* here and not in request.c: so the table comes with every gate */

const struct pen_gate_door pen_gate_door = {
	.abi = PEN_GATE_DOOR_ABI,
	.size = sizeof(pen_gate_door),
	.managed = pen_gate_managed,
	.open = pen_gate_open,
	.terms = pen_gate_terms,
	.mem_view = pen_gate_mem_view,
	.clients = pen_gate_clients,
	.marker = &pen_gate_marker,
	.request = pen_gate_request,
	.next = pen_gate_next,
	.who = pen_gate_who,
};

__asm__(".pushsection .note.penstock, \"a\", %note\n"
	".balign 4\n"
	".long 9, 8, 2\n"                     /* length of the name, of the rest, PEN_GATE_NOTE_DOOR */
	".asciz \"" PEN_GATE_NOTE_NAME "\"\n"
	".balign 4\n"
	"1: .quad pen_gate_door - 1b\n"
	".popsection\n");
_Static_assert(sizeof(PEN_GATE_NOTE_NAME) == 9 && PEN_GATE_NOTE_DOOR == 2, "as in the note");
