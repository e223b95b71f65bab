/* SPDX-License-Identifier: Apache-2.0 */
/* A server in the mode that stands for MPS, and ten times slower than the card: two processes side by side, one fault for all. */
#include "simgpu/client.h"
#include "base/clock.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct end {
	struct sim *sim;
	struct sim_context *ctx;
	struct sim_channel *ch;
};

static void open_end(struct end *e)
{
	assert_int_equal(sim_connect(NULL, &e->sim), 0);
	assert_int_equal(sim_context_create(e->sim, 0, &e->ctx), 0);
	assert_int_equal(sim_channel_create(e->ctx, 0, 0, &e->ch), 0);
}

static void close_end(struct end *e)
{
	sim_channel_destroy(e->ch);
	sim_context_destroy(e->ctx);
	sim_disconnect(e->sim);
}

static uint64_t spin(struct end *e, uint32_t blocks, uint64_t ns)
{
	return sim_submit(e->ch, &(struct sim_cmd){ .kind = SIM_KERNEL, .kernel = { .grid = { blocks, 1, 1 }, .block = { 1024, 1, 1 }, .block_ns = ns } });
}

static uint64_t stamp(struct end *e, uint64_t *at)
{
	return sim_submit(e->ch, &(struct sim_cmd){ .kind = SIM_STAMP, .stamp = { (uint64_t)(uintptr_t)at } });
}

/* Both run half the device's blocks for longer than a slice. Side by side neither takes longer for the other. */
static void test_side_by_side(void **state)
{
	(void)state;
	struct end one;
	int ready[2], status;
	char byte = 0;
	assert_int_equal(pipe(ready), 0);
	pid_t pid = fork();
	if (!pid) {
		struct end other;
		open_end(&other);
		uint64_t from = 0;
		stamp(&other, &from);
		sim_wait(other.ch, stamp(&other, &from), UINT64_MAX, false);
		spin(&other, 20, 3600 * PEN_S);
		(void)!write(ready[1], &byte, 1);
		pause();
		_exit(0);
	}
	close(ready[1]);
	open_end(&one);
	assert_string_equal(sim_card(one.sim, 0)->mode, "concurrent");
	assert_int_equal(read(ready[0], &byte, 1), 1);
	uint64_t a = 0, b = 0;
	stamp(&one, &a);
	spin(&one, 20, 5 * PEN_MS);
	assert_int_equal(sim_wait(one.ch, stamp(&one, &b), UINT64_MAX, false), 0);
	/* Ten times slower: the device's clock is the machine's all the same. */
	assert_in_range(b - a, 50 * PEN_MS, 51 * PEN_MS);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(ready[0]);
	close_end(&one);
}

static void test_one_fault_for_all(void **state)
{
	(void)state;
	struct end one, other;
	char byte = 0;
	open_end(&one);
	open_end(&other);
	uint64_t waiting = spin(&other, 40, 3600 * PEN_S);
	uint64_t seq = sim_submit(one.ch, &(struct sim_cmd){ .kind = SIM_COPY, .copy = { .dir = SIM_H2D, .dst = 16, .src = (uintptr_t)&byte,
				  .width = 1, .rows = 1, .layers = 1 } });
	assert_int_equal(sim_wait(one.ch, seq, UINT64_MAX, false), -EFAULT);
	assert_int_equal(sim_wait(other.ch, waiting, UINT64_MAX, false), -EFAULT);
	close_end(&one);
	close_end(&other);
	open_end(&one);
	assert_int_equal(sim_wait(one.ch, spin(&one, 40, 1000), UINT64_MAX, false), 0);
	close_end(&one);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_side_by_side),
		cmocka_unit_test(test_one_fault_for_all),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
