/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that do anything at all, on two devices, and are killed at any moment: afterwards nothing is held. Under the
 * sanitizers this is what finds a server that looks at what has gone. Argument: number of kills.
 */
#include "simgpu/client.h"
#include "base/clock.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES 6
#define CONTEXTS 3
#define CHANNELS 12
#define BLOCKS 8

static unsigned char from[1 << 20], to[1 << 20];
static uint64_t stamps[64];
static _Atomic uint32_t word;
static uint64_t seed;

static uint32_t dice(uint32_t sides)
{
	seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)(seed >> 33) % sides;
}

static uint64_t at(const volatile void *p)
{
	return (uint64_t)(uintptr_t)p;
}

static struct sim_cmd any_command(struct sim_channel *const *ch, const uint64_t *last, unsigned n)
{
	unsigned other = dice(n);
	switch (dice(9)) {
	case 0:
		return (struct sim_cmd){ .kind = SIM_COPY, .copy = { .dir = (enum sim_dir)dice(4), .dst = at(to), .src = at(from),
					 .width = 1 + dice(65536), .rows = 1 + dice(8), .layers = 1, .dst_pitch = 131072, .src_pitch = 131072 } };
	case 1:
		return (struct sim_cmd){ .kind = SIM_FILL, .fill = { .dst = at(to), .width = 1 + dice(200000), .rows = 1, .element = 4, .value = 7 } };
	case 2:
		return (struct sim_cmd){ .kind = SIM_STAMP, .stamp = { at(&stamps[dice(64)]) } };
	case 3:
		if (!last[other])
			break;
		return (struct sim_cmd){ .kind = SIM_WAIT_SEQ, .wait_seq = { ch[other], last[other] } };
	case 4:
		return (struct sim_cmd){ .kind = SIM_WRITE_WORD, .word = { .address = at(&word), .value = dice(3), .bytes = 4 } };
	case 5:
		if (dice(10))
			break;
		return (struct sim_cmd){ .kind = SIM_WAIT_WORD, .word = { .address = at(&word), .value = dice(3), .bytes = 4,
					 .cond = (enum sim_cond)dice(4) } };
	case 6:
		if (dice(200))
			break;
		return (struct sim_cmd){ .kind = SIM_COPY, .copy = { .dst = 16, .src = at(from), .width = 1, .rows = 1, .layers = 1 } };
	default:
		break;
	}
	return (struct sim_cmd){ .kind = SIM_KERNEL, .kernel = { .grid = { 1 + dice(100), 1, 1 }, .block = { 32u << dice(6), 1, 1 },
				 .block_ns = dice(100000), .dram_bytes = dice(1000000) } };
}

static void submit_some(struct sim_channel *const *ch, unsigned n)
{
	uint64_t last[CHANNELS] = { 0 };
	for (unsigned left = dice(400); left; left--) {
		unsigned i = dice(n);
		struct sim_cmd cmd = any_command(ch, last, n);
		last[i] = sim_submit(ch[i], &cmd);
		if (!last[i])
			_exit(6);
		if (!dice(20))
			(void)sim_wait(ch[i], last[i], dice(2000000), dice(2));
	}
}

/* One life: contexts, channels, memory, commands; some given back, some not. Ends only by a signal, or by 3 to 6 if it must not. */
static void live(uint64_t with)
{
	struct sim *sim;
	seed = with;
	if (sim_connect(NULL, &sim))
		_exit(3);
	for (;;) {
		struct sim_context *c[CONTEXTS];
		struct sim_channel *ch[CHANNELS];
		uint64_t id[BLOCKS] = { 0 };
		unsigned contexts = 1 + dice(CONTEXTS), n = 1 + dice(CHANNELS);
		for (unsigned i = 0; i < contexts; i++)
			if (sim_context_create(sim, dice(2), &c[i]))
				_exit(4);
		for (unsigned i = 0; i < n; i++)
			if (sim_channel_create(c[dice(contexts)], (int)dice(3) - 1, dice(4) ? 0 : 1 + dice(40), &ch[i]))
				_exit(5);
		for (unsigned i = 0; i < BLOCKS; i++)
			(void)sim_mem_take(sim, i & 1, (1 + dice(50)) * SIM_PAGE_BYTES, &id[i]);
		submit_some(ch, n);
		for (unsigned i = 0; i < BLOCKS; i++)
			if (dice(8))
				sim_mem_give(sim, i & 1, id[i]);
		for (unsigned i = 0; i < n; i += 2)
			sim_channel_destroy(ch[i]);
		for (unsigned i = 0; i < contexts; i++)
			sim_context_destroy(c[i]);
		for (unsigned i = 1; i < n; i += 2)
			sim_channel_destroy(ch[i]);
	}
}

/* Ends a process that should still be there. */
static int end(pid_t pid)
{
	int status;
	kill(pid, SIGKILL);
	if (waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return 0;
	printf("process %d ended by itself, with status %#x\n", pid, status);
	return 1;
}

int main(int argc, char **argv)
{
	pid_t pid[PROCESSES] = { 0 };
	unsigned kills = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 40;
	int bad = 0;
	seed = 12345;
	for (unsigned k = 0; k < kills && !bad; k++) {
		unsigned i = dice(PROCESSES);
		if (pid[i])
			bad |= end(pid[i]);
		uint64_t with = seed;
		pid[i] = fork();
		if (!pid[i])
			live(with);
		/* No test waits for this: it only spreads the kills over the others' lives. */
		usleep(5000 + dice(40000));
	}
	for (unsigned i = 0; i < PROCESSES; i++)
		if (pid[i])
			bad |= end(pid[i]);
	struct sim *sim;
	uint64_t left, total;
	if (sim_connect(NULL, &sim)) {
		puts("the server has gone");
		return 1;
	}
	for (unsigned dev = 0; dev < 2; dev++)
		if (sim_mem_info(sim, dev, &left, &total) || left != total) {
			printf("device %u: %llu bytes are still held\n", dev, (unsigned long long)(total - left));
			bad = 1;
		}
	sim_disconnect(sim);
	return bad;
}
