/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BASE_AUTO_H
#define PEN_BASE_AUTO_H
/*
 * Ownership by attribute: a variable marked pen_auto_x is released when its scope ends; PEN_TAKE_x moves ownership out
 * by a visible word. Used everywhere instead of goto ladders.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void pen_auto_free_(void *p)
{
	free(*(void **)p);
}
static inline void pen_auto_close_(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
static inline void pen_auto_fclose_(FILE **f)
{
	if (*f)
		fclose(*f);
}

#define pen_auto_free __attribute__((cleanup(pen_auto_free_)))
#define pen_auto_close __attribute__((cleanup(pen_auto_close_)))
#define pen_auto_fclose __attribute__((cleanup(pen_auto_fclose_)))

#define PEN_TAKE_PTR(p) ({ __typeof__(p) take_ = (p); (p) = NULL; take_; })
#define PEN_TAKE_FD(fd) ({ int take_ = (fd); (fd) = -1; take_; })

#define PEN_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define PEN_MIN(a, b) ({ __typeof__(a) a_ = (a); __typeof__(b) b_ = (b); a_ < b_ ? a_ : b_; })
#define PEN_MAX(a, b) ({ __typeof__(a) a_ = (a); __typeof__(b) b_ = (b); a_ > b_ ? a_ : b_; })

#endif
