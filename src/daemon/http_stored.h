/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_HTTP_STORED_H
#define PEN_DAEMON_HTTP_STORED_H
/*
 * Answers that wait until what they tell of is on disk, or was found not to get there: a contract that nobody can read again is not what
 * the caller asked for. The main thread goes on meanwhile. A disk that does not answer is not waited for long. Threads: main.
 */
#include "daemon/api.h"

#include <event2/http.h>

struct pen_stored_answer;

struct pen_stored {
	struct pen_daemon *d;
	int fd;                              /* of the store's that tells; ours, which outlives it */
	struct event *told_ev, *limit_ev;
	struct pen_stored_answer *waiting;   /* oldest first */
};

int pen_http_stored_open(struct pen_stored *s, struct pen_daemon *d);
void pen_http_stored_free(struct pen_stored *s);
/* Return: true: @call is taken over and answered later. */
bool pen_http_stored_wait(struct pen_stored *s, struct evhttp_request *req, struct pen_api_call *call);

/* http.c: */
void pen_http_send(struct evhttp_request *req, struct pen_api_call *call);
/* A request whose caller hung up was taken off its connection and is ours; one that is still on it goes with it. */
void pen_http_free_orphan(struct evhttp_request *req);

#endif
