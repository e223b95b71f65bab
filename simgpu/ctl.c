/* SPDX-License-Identifier: Apache-2.0 */
/* simgpu-ctl: asks a device server for the truth, and makes things go wrong on request. */
#include "base/auto.h"
#include "simgpu/wire.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static int usage(FILE *to, int code)
{
	fputs("usage: simgpu-ctl SOCKET truth [-o json]      what really happened, per device and process\n"
	      "       simgpu-ctl SOCKET reset                start counting anew\n"
	      "       simgpu-ctl SOCKET fault DEV WHAT       oom=N  the next N allocations fail\n"
	      "                                              sticky  every context fails, as after an illegal access\n"
	      "                                              ecc  an uncorrectable memory error\n"
	      "                                              xid=N  as the driver would report it\n"
	      "                                              hang, unhang  no progress, and progress again\n"
	      "                                              lost  the device falls off the bus\n"
	      "       simgpu-ctl SOCKET cards                the devices\n"
	      "\nExit code: 0 done, 1 the server said no or is not there, 2 usage.\n", to);
	return code;
}

static int connect_to(const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(at.sun_path))
		return -ENAMETOOLONG;
	memcpy(at.sun_path, path, strlen(path) + 1);
	pen_auto_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		return -errno;
	return PEN_TAKE_FD(fd);
}

/* @ret_fd: what came with the reply, or -1. Return: the reply's result. */
static int ask(int fd, struct sim_request q, struct sim_reply *reply, int *ret_fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(2 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { reply, sizeof(*reply) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	int fds[2] = { -1, -1 };

	q.magic = SIM_WIRE_MAGIC;
	memset(reply, 0, offsetof(struct sim_reply, process));
	if (send(fd, &q, sizeof(q), MSG_NOSIGNAL) != (ssize_t)sizeof(q))
		return -errno;
	ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	if (n < (ssize_t)offsetof(struct sim_reply, card))
		return n < 0 ? -errno : -EPROTO;
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(fds, CMSG_DATA(c), PEN_MIN(c->cmsg_len - CMSG_LEN(0), sizeof(fds)));
	if (fds[1] >= 0)
		close(fds[1]);
	if (ret_fd)
		*ret_fd = fds[0];
	else if (fds[0] >= 0)
		close(fds[0]);
	return reply->result;
}

static double field(const json_t *o, const char *name)
{
	return json_number_value(json_object_get(o, name));
}

static void print_row(const json_t *o, const char *what)
{
	printf("%-28.28s %9.3f %9.3f %10.3f %9.3f %9.3f %9.3f %9.0f %8.3f\n", what, field(o, "busy_ns") / 1e9, field(o, "residence_ns") / 1e9,
	       field(o, "unit_seconds"), field(o, "dram_bytes") / 1e9, field(o, "h2d_bytes") / 1e9, field(o, "d2h_bytes") / 1e9,
	       field(o, "kernels"), field(o, "longest_wait_ns") / 1e6);
}

static void print_truth(const json_t *root)
{
	size_t i, j;
	json_t *dev, *proc;
	const json_t *late = json_object_get(root, "lateness");
	json_array_foreach(json_object_get(root, "devices"), i, dev) {
		char what[64];
		printf("%-28s %9s %9s %10s %9s %9s %9s %9s %8s\n", "", "busy s", "resid s", "unit s", "DRAM GB", "H2D GB", "D2H GB",
		       "kernels", "wait ms");
		snprintf(what, sizeof(what), "%d %s", (int)i, json_string_value(json_object_get(dev, "name")));
		print_row(dev, what);
		json_array_foreach(json_object_get(dev, "processes"), j, proc) {
			snprintf(what, sizeof(what), "  %.0f %s%s", field(proc, "pid"), json_string_value(json_object_get(proc, "name")),
				 json_is_true(json_object_get(proc, "alive")) ? "" : " (ended)");
			print_row(proc, what);
		}
	}
	printf("\nnews late by: mean %.1f us, half below %.1f, 99 of 100 below %.1f, most %.1f (%.0f); effects late: %.0f, %.3f ms in all\n",
	       field(late, "mean_ns") / 1e3, field(late, "p50_ns") / 1e3, field(late, "p99_ns") / 1e3, field(late, "most_ns") / 1e3,
	       field(late, "count"), field(late, "effects"), field(late, "effects_ns") / 1e6);
}

static int truth(int fd, bool as_json, struct sim_reply *reply)
{
	pen_auto_close int memfd = -1;
	int r = ask(fd, (struct sim_request){ .op = SIM_OP_TRUTH }, reply, &memfd);
	if (r < 0)
		return r;
	if (memfd < 0 || lseek(memfd, 0, SEEK_SET) < 0)
		return -EPROTO;
	json_t *root = json_loadfd(memfd, 0, NULL);
	if (!root)
		return -EPROTO;
	if (as_json) {
		json_dumpf(root, stdout, JSON_INDENT(1));
		puts("");
	} else {
		print_truth(root);
	}
	json_decref(root);
	return 0;
}

static int cards(int fd, struct sim_reply *reply)
{
	int r = ask(fd, (struct sim_request){ .op = SIM_OP_HELLO }, reply, NULL);
	unsigned n = reply->index;
	for (unsigned i = 0; !r && i < n; i++) {
		r = ask(fd, (struct sim_request){ .op = SIM_OP_CARD, .dev = i }, reply, NULL);
		const struct sim_card *c = &reply->card;
		if (!r)
			printf("%u %s: %u units, %.1f GiB, %.0f GB/s DRAM, %.1f GB/s PCIe, slice %.3f ms, %s, pci %04x:%02x:%02x.%x\n", i, c->name,
			       c->units, (double)c->mem_bytes / 1073741824.0, (double)c->dram_bytes_per_s / 1e9, (double)c->pcie_bytes_per_s / 1e9,
			       (double)c->slice_ns / 1e6, c->mode, c->pci_domain, c->pci_bus, c->pci_device, c->pci_function);
	}
	return r;
}

static int fault(int fd, const char *dev, const char *what, struct sim_reply *reply)
{
	struct sim_request q = { .op = SIM_OP_FAULT };
	char *end;
	unsigned long n = strtoul(dev, &end, 10);
	if (*end || !*dev || n > 1000)
		return -ENODEV;
	q.dev = (uint32_t)n;
	snprintf(q.text, sizeof(q.text), "%s", what);
	return ask(fd, q, reply, NULL);
}

int main(int argc, char **argv)
{
	static struct sim_reply reply;
	const char *op = argc > 2 ? argv[2] : "";
	bool is_truth = !strcmp(op, "truth"), is_fault = !strcmp(op, "fault");
	bool as_json = is_truth && argc == 5 && !strcmp(argv[3], "-o") && !strcmp(argv[4], "json");

	if (argc == 2 && !strcmp(argv[1], "--help"))
		return usage(stdout, 0);
	if (!((is_truth && (argc == 3 || as_json)) || (is_fault && argc == 5) ||
	      (argc == 3 && (!strcmp(op, "reset") || !strcmp(op, "cards")))))
		return usage(stderr, 2);
	pen_auto_close int fd = connect_to(argv[1]);
	if (fd < 0) {
		fprintf(stderr, "simgpu-ctl: %s: %s\n", argv[1], strerror(-fd));
		return 1;
	}
	int r = is_truth ? truth(fd, as_json, &reply) : is_fault ? fault(fd, argv[3], argv[4], &reply) : !strcmp(op, "cards") ?
		cards(fd, &reply) : ask(fd, (struct sim_request){ .op = SIM_OP_RESET }, &reply, NULL);
	if (r < 0) {
		fprintf(stderr, "simgpu-ctl: %s: %s\n", op, is_fault && reply.text[0] ? reply.text : strerror(-r));
		return 1;
	}
	return 0;
}
