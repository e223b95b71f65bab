/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tenant's process is killed at each marked point of the gate while it contends with a neighbour. Then the neighbour,
 * and another process of the dead one's own tenant, must go on; without any daemon to clear up behind it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/units.h"
#include "gate/internal.h"
#include "gate_device.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define CAPS (PEN_ADAPTER_TIMESTAMPS | PEN_ADAPTER_NOTIFY | PEN_ADAPTER_IN_SUBMIT)

struct load {
	struct fake_dev *dev;
	struct fake_queue *fq;
	struct pen_gate *gate;
	struct pen_gate_queue *q;
	struct fake_cmd c[16];
};

static bool load_open(struct load *l, struct fake_board *b, uint32_t tenant, uint32_t seat, uint32_t client)
{
	l->dev = fake_dev_start(CAPS, 1000);
	struct pen_attach_device *d = calloc(1, sizeof(*d));
	fake_board_device(b, tenant, seat, client, d);
	struct pen_gate_device want = { .key = "fake:0", .mem_bytes = PEN_GIB, .native = l->dev };
	l->fq = fake_queue_new(l->dev);
	return pen_gate_open_device(&l->dev->adapter, &want, d, NULL, &l->gate) == 0 &&
	       pen_gate_queue_create(l->gate, l->fq, 0, &l->q) == 0;
}

/* Some short commands and some that fill the window, then a finish. */
static bool load_round(struct load *l)
{
	for (uint32_t i = 0; i < 16; i++) {
		l->c[i] = (struct fake_cmd){ .dur_ns = i % 2 ? 50000 : 700000 };
		struct pen_gate_cmd cmd = { .native = &l->c[i], .est_ns = l->c[i].dur_ns, .slices = 1, .wave = 1 };
		if (pen_gate_submit(l->q, &cmd))
			return false;
	}
	uint64_t t = pen_gate_sync_begin(l->q);
	fake_finish(l->fq);
	pen_gate_sync_end(l->q, t);
	return true;
}

/* @go: nothing is done before there is something to read; -1: at once. */
static pid_t start(struct fake_board *b, const char *kill_at, uint32_t seat, uint32_t client, int rounds, int go)
{
	char c;
	pid_t pid = fork();
	if (pid)
		return pid;
	if (go >= 0 && read(go, &c, 1) != 1)
		_exit(2);
	if (kill_at)
		setenv("PEN_TEST_KILL", kill_at, 1);
	struct load l;
	bool ok = load_open(&l, b, 1, seat, client);
	for (int i = 0; ok && i < rounds; i++)
		ok = load_round(&l);
	_exit(ok ? 0 : 1);
}

static void kill_at(const char *point, int nth)
{
	static const uint16_t rank[] = { 3, 3 };
	struct fake_board *b = fake_board_new(2, rank);
	for (int i = 0; i < 2; i++) {   /* both processes of tenant 1 have a seat; it has a cap, so that tokens move */
		b->base[i].seat[2] = b->base[i].seat[1];
		b->base[i].nseats = 3;
		b->base[i].share_cap_ppm = PEN_PPM / 10 * 9;
		fake_board_publish(b, (uint32_t)i);
	}
	char where[64];
	snprintf(where, sizeof(where), "%s@%d", point, nth);
	/* Both are forked before this process has a thread: qemu-user 7.2 loses its way in the child of one that has. */
	int go[2];
	assert_int_equal(pipe(go), 0);
	pid_t sibling = start(b, NULL, 2, 1, 3, go[0]);
	pid_t victim = start(b, where, 1, 0, 1000, -1);
	struct load mine;
	assert_true(load_open(&mine, b, 0, 0, 0));
	int status = 0, rounds = 0;
	while (waitpid(victim, &status, WNOHANG) == 0 && rounds++ < 200)
		assert_true(load_round(&mine));
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
		kill(victim, SIGKILL);
		kill(sibling, SIGKILL);
		fail_msg("%s was not reached within %d rounds", where, rounds);
	}
	assert_int_equal(write(go[1], "", 1), 1);
	for (int i = 0; i < 3; i++)
		assert_true(load_round(&mine));
	assert_int_equal(waitpid(sibling, &status, 0), sibling);
	assert_int_equal(status, 0);
	pen_gate_queue_destroy(mine.q);
	fake_dev_stop(mine.dev);
	close(go[0]);
	close(go[1]);
}

#define X(id)                                                                                                         \
	static void test_##id(void **state)                                                                           \
	{                                                                                                             \
		(void)state;                                                                                          \
		kill_at("gate-" #id, 3);                                                                              \
	}
PEN_GATE_POINTS(X)
#undef X

int main(void)
{
	alarm(120);   /* a hang is a failure */
	const struct CMUnitTest tests[] = {
#define X(id) cmocka_unit_test(test_##id),
		PEN_GATE_POINTS(X)
#undef X
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
