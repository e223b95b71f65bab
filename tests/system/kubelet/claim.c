/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program of the pods of test_kubelet.py: attaches to the tenant whose directory is mounted and goes on. Linked statically, so that an image
 * needs nothing else. `claim KEY` asks for a seat on that device and keeps it, `claim KEY once` ends then, as an init container does; without a key
 * it only sleeps, as the sandbox's own container does.
 */
#include "base/clock.h"
#include "board/attach.h"

#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static void on_end(int sig)
{
	_exit(128 + sig);   /* a container's first process has no default for it */
}

int main(int argc, char **argv)
{
	static struct pen_attach a;
	struct pen_attach_device *d;
	signal(SIGTERM, on_end);
	if (argc > 1) {
		struct pen_attach_want want = { .key = argv[1], .model = "test", .mem_bytes = UINT64_C(1) << 32, .units = 8 };
		int r = pen_attach_init(&a, PEN_TENANT_MOUNT);
		if (r == 0)
			r = pen_attach_add(&a, &want, &d);
		if (r == 0)
			r = pen_attach_wait(&a, d, PEN_ATTACH_WAIT_NS);
		printf("attach: %d %s\n", r, a.text);
		fflush(stdout);
		if (r < 0 || argc > 2)
			return r < 0;
	}
	for (;;) {
		nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
		if (argc > 1)
			pen_attach_step(&a, pen_mono_ns());
	}
}
