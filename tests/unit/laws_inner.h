/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TESTS_LAWS_INNER_H
#define PEN_TESTS_LAWS_INNER_H
/* Between the two halves of the world: laws_world.c (chance, daemon, board) and laws_procs.c (device, processes). */
#include "laws_world.h"

#define NEVER UINT64_MAX
#define PPM PEN_ADMIT_PPM

void w_next(struct world *w, struct w_proc *p, enum w_phase phase);
struct w_tenant *w_tenant_of(struct world *w, const struct w_proc *p);
void w_publish(struct world *w, struct w_proc *p, enum pen_busy_state state);
void w_begin_view(struct world *w, struct w_proc *p);
bool w_read_view(struct world *w, struct w_proc *p);
void w_read_seat(struct world *w, struct w_proc *p, const struct w_proc *q);
struct w_proc *w_by_seat(struct world *w, uint16_t seat);
void w_span_end(struct world *w, struct w_proc *p);
void w_tick(struct world *w);
bool w_has_passed(const struct pen_admit_state *st, uint16_t seat);

#endif
