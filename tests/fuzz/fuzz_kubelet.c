/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first byte chooses what the rest is: bytes on the plugin's socket, the body of a request, or a file that is read of a container, the
 * kubelet or the kernel. All of these are root's, and none may end the daemon.
 */
#include "base/auto.h"
#include "daemon/daemon.h"
#include "integration/kubelet/internal.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* What the daemon's main file has and nothing here comes to. */
void pen_daemon_probed(struct pen_daemon *d)
{
	(void)d;
}

void pen_daemon_maybe_quit(struct pen_daemon *d)
{
	(void)d;
}

static struct pen_grpc_call *stream;

static void on_unary(void *arg, struct pen_grpc_call *call, const uint8_t *message, size_t len)
{
	(void)arg;
	pen_grpc_reply(call, message, len);
}

static void on_stream(void *arg, struct pen_grpc_call *call, const uint8_t *message, size_t len)
{
	(void)arg;
	stream = call;
	pen_grpc_push(call, message, len);
	pen_grpc_push(call, message, len);
}

static void on_end(void *arg, struct pen_grpc_call *call)
{
	(void)arg;
	if (stream == call)
		stream = NULL;
}

/* What a peer sends, on a connection of its own, to a server of two methods. */
static void fuzz_server(const uint8_t *data, size_t size)
{
	static const struct pen_grpc_method methods[] = { { "/u", on_unary, NULL }, { "/s", on_stream, on_end } };
	struct event_base *base = event_base_new();
	struct pen_grpc_server *s;
	struct {
		sa_family_t family;
		char path[16];
	} sa = { .family = AF_UNIX };   /* abstract, a name by the kernel */
	socklen_t len = sizeof(sa_family_t);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	stream = NULL;
	if (!base || fd < 0 || bind(fd, (struct sockaddr *)&sa, len) < 0 || listen(fd, 1) < 0)
		abort();
	len = sizeof(sa);
	if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0 || pen_grpc_server_create(base, fd, methods, 2, NULL, &s) < 0)
		abort();
	int peer = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (connect(peer, (struct sockaddr *)&sa, len) < 0)
		abort();
	event_base_loop(base, EVLOOP_NONBLOCK);
	for (size_t at = 0; at < size;) {
		ssize_t n = send(peer, data + at, PEN_MIN(size - at, (size_t)1 + data[at] * 16), MSG_NOSIGNAL);
		if (n <= 0)
			break;
		at += (size_t)n;
		event_base_loop(base, EVLOOP_NONBLOCK);
		if (stream)
			pen_grpc_push(stream, data, PEN_MIN(size, (size_t)100));
		char buf[4096];
		while (recv(peer, buf, sizeof(buf), 0) > 0)
			;
	}
	event_base_loop(base, EVLOOP_NONBLOCK);
	close(peer);
	event_base_loop(base, EVLOOP_NONBLOCK);
	pen_grpc_server_destroy(s);
	event_base_free(base);
}

static void fuzz_frame(const uint8_t *data, size_t size)
{
	struct pen_grpc_frame f = { .data = NULL };
	const uint8_t *m;
	size_t len, half = size / 2;
	pen_grpc_frame_add(&f, data, half);
	pen_grpc_frame_add(&f, data + half, size - half);
	if (pen_grpc_frame_message(&f, &m, &len) == PEN_GRPC_OK && len + 5 != size)
		abort();
	pen_grpc_frame_finish(&f);
}

/* @text has a NUL behind it. */
static void fuzz_files(unsigned kind, const char *text, size_t size)
{
	struct pen_kube_who who = { .container_id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" };
	struct pen_kube k = { .dir = "" };
	unsigned g, s;
	char buf[PEN_KUBE_ID_MAX], escaped[64];
	switch (kind) {
	case 0:
		if (pen_kube_who_cgroup(text, &who) == 0 && strlen(who.container_id) != 64)
			abort();
		break;
	case 1:
		pen_kube_who_bundle(text, size, &who);
		break;
	case 2:
		pen_kube_who_pods(text, size, &who);
		break;
	case 3:
		if (pen_kube_checkpoint_parse(text, size, &k.checkpoint) == 0)
			pen_kube_checkpointed(&k, "d/r", 0);
		pen_kube_checkpoint_free(&k.checkpoint);
		break;
	case 4: {
		struct pen_kube_place place;
		if (pen_kube_place_find(text, "/run/penstock", &place) == 0 && !strstr(place.above, "/containers/"))
			abort();
		pen_kube_port_owner(text, 10255);
		break;
	}
	default:
		if (pen_kube_id_parse(text, &g, &s) == 0 && strcmp(pen_kube_id(buf, g, s), text) != 0)
			abort();
		pen_grpc_percent(escaped, sizeof(escaped), text);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	unsigned kind = data[0] % 8;
	data++;
	size--;
	if (kind >= 6) {
		fuzz_server(data, size);
		return 0;
	}
	if (kind == 5) {
		fuzz_frame(data, size);
		return 0;
	}
	char *text = malloc(size + 1);
	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	fuzz_files(kind, text, size);
	free(text);
	return 0;
}
