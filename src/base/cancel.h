/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BASE_CANCEL_H
#define PEN_BASE_CANCEL_H
/*
 * Inside somebody else's program any of its threads may be cancelled, and open, close, poll, recvmsg and their like are
 * where that happens: the thread would end in the middle of us and leave our locks taken for ever. So cancellation is
 * off while we are at it, and comes at the application's own next point. pthread_setcancelstate has been in the C library
 * itself, under its oldest version, since before 2.28.
 */
#include <pthread.h>

static inline int pen_cancel_off_(void)
{
	int old = PTHREAD_CANCEL_ENABLE;   /* before 2.34, in a program without threads, nothing is written */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
	return old;
}
static inline void pen_cancel_restore_(const int *old)
{
	int ignored;
	pthread_setcancelstate(*old, &ignored);
}
/* From here to the end of the scope. */
#define PEN_NO_CANCEL int cancel_state_ __attribute__((cleanup(pen_cancel_restore_), unused)) = pen_cancel_off_()

#endif
