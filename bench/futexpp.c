/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a hand-over between two processes costs at least: ping-pong over one futex word in shared memory.
 *   futexpp [--cpu-a N] [--cpu-b N] [--count N] [--gap-us N]
 * Prints the one-way time in ns: store + FUTEX_WAKE in one process until the other runs again. --gap-us lets the waiter fall asleep
 * deeply before each wake, as the waiter of a device does while somebody else's kernel runs.
 */
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct page {
	_Atomic uint32_t turn;
	_Atomic uint64_t sent_ns;
};

static void pass(struct page *p, uint32_t to)
{
	atomic_store(&p->turn, to);
	syscall(SYS_futex, &p->turn, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void await(struct page *p, uint32_t mine)
{
	uint32_t seen;

	while ((seen = atomic_load(&p->turn)) != mine)
		syscall(SYS_futex, &p->turn, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static void pin(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET((unsigned)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		perror("sched_setaffinity");
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int main(int argc, char **argv)
{
	struct page *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int cpu_a = -1, cpu_b = -1, count = 20000, gap_us = 0;

	for (int i = 1; i + 1 < argc; i += 2) {
		int v = atoi(argv[i + 1]);

		if (!strcmp(argv[i], "--cpu-a"))
			cpu_a = v;
		else if (!strcmp(argv[i], "--cpu-b"))
			cpu_b = v;
		else if (!strcmp(argv[i], "--count"))
			count = v;
		else if (!strcmp(argv[i], "--gap-us"))
			gap_us = v;
	}
	uint64_t *one_way = calloc((size_t)(count > 0 ? count : 1), sizeof(*one_way));

	if (p == MAP_FAILED || !one_way || count < 1)
		return 2;
	prctl(PR_SET_TIMERSLACK, 1);
	pid_t child = fork();

	if (child == 0) {
		pin(cpu_b);
		for (int i = 0; i < count; i++) {
			await(p, 1);
			atomic_store(&p->sent_ns, now_ns() - atomic_load(&p->sent_ns));
			pass(p, 0);
		}
		_exit(0);
	}
	pin(cpu_a);
	for (int i = 0; i < count; i++) {
		if (gap_us) {
			const struct timespec gap = { .tv_nsec = gap_us * 1000L };

			nanosleep(&gap, NULL);
		}
		atomic_store(&p->sent_ns, now_ns());
		pass(p, 1);
		await(p, 0);
		one_way[i] = atomic_load(&p->sent_ns);
	}
	waitpid(child, NULL, 0);
	qsort(one_way, (size_t)count, sizeof(*one_way), compare_u64);
	printf("p50 %llu p90 %llu p99 %llu\n", (unsigned long long)one_way[count / 2],
	       (unsigned long long)one_way[count * 9 / 10],
	       (unsigned long long)one_way[(size_t)((double)count * 0.99)]);
	free(one_way);
	return 0;
}
