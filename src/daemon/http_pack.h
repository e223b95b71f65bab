/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_DAEMON_HTTP_PACK_H
#define PEN_DAEMON_HTTP_PACK_H

struct evbuffer;
struct evhttp_request;

/* Adds @text to the body, packed if that is worth it and the caller takes it; then the header says so. */
void pen_http_put_text(struct evhttp_request *req, struct evbuffer *out, const char *text);

#endif
