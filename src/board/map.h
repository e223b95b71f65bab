/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BOARD_MAP_H
#define PEN_BOARD_MAP_H
/*
 * Handle -> record of a shim: read without a lock, on every launch; changed when objects come and go.
 *
 * Keys are pointers or numbers above 1. A table is never freed (readers may be in it); a map starts as {0}.
 * Threads: any. After a fork the child's map is as the parent's was.
 */
#include "board/forklock.h"

#include <stdbool.h>
#include <stddef.h>

struct pen_map {
	struct pen_map_table *_Atomic table;
	struct pen_forklock lock;
	_Atomic uint32_t live;
	_Atomic uint32_t phase, readers[2];   /* inside pen_map_enter(), by the phase in which they came */
	uint32_t process;                     /* that the readers are of; under the lock */
};

void *pen_map_find(struct pen_map *m, const void *key);           /* NULL: not there */
int pen_map_put(struct pen_map *m, const void *key, void *value); /* replaces; 0 or -ENOMEM */
int pen_map_swap(struct pen_map *m, const void *key, void *value, void **ret_old); /* the same; what was there is as if taken */
/* Removes; what was there. Returns when nobody who could have found it is between enter and leave any more. */
void *pen_map_take(struct pen_map *m, const void *key);
/*
 * Removes at most @room values of which @match says so, into @v; as pen_map_take() for all of them. The whole table is looked at, and
 * @match must not use the map. Return: their number; less than @room: there are no more.
 */
size_t pen_map_take_some(struct pen_map *m, bool (*match)(const void *value, void *arg), void *arg, void **v, size_t room);
/* All of which @match says so are removed, likewise, and free()d. */
void pen_map_free_all(struct pen_map *m, bool (*match)(const void *value, void *arg), void *arg);
/*
 * For who finds a record without holding a reference of the application's: it stays until he leaves. A few microseconds, no
 * call that waits. May be nested. Return: for pen_map_leave().
 */
uint32_t pen_map_enter(struct pen_map *m);
void pen_map_leave(struct pen_map *m, uint32_t entered);
static inline bool pen_map_empty(struct pen_map *m)
{
	return atomic_load_explicit(&m->live, memory_order_relaxed) == 0;
}

#endif
