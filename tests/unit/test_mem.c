/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory account: never over the cap, never lost, exact again after a kill between any two steps.
 * Linked to the build of the board that has marks (board/testpoint.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "board/feature.h"
#include "board/mem.h"
#include "board/page.h"
#include "board/testpoint.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)

/* Shared with forked clients: an anonymous mapping, as the page itself is not inherited. */
static struct pen_ledger_page *ledger_new(void)
{
	void *p = mmap(NULL, PEN_LEDGER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(p != MAP_FAILED);
	return p;
}

static void ledger_free(struct pen_ledger_page *l)
{
	munmap(l, PEN_LEDGER_BYTES);
}

static uint64_t used(const struct pen_ledger_page *l)
{
	struct pen_mem_sum s;
	pen_mem_read(l, &s);
	return s.used_bytes;
}

static void test_charge(void **state)
{
	(void)state;
	struct pen_ledger_page *l = ledger_new();
	int a = pen_ledger_claim(l, 5, 9), b = pen_ledger_claim(l, 6, 1);
	assert_int_equal(a, 0);
	assert_int_equal(b, 1);
	assert_int_equal(l->client[0].tag, UINT64_C(5) << 32 | 9);
	assert_int_equal(pen_mem_charge(l, 0, 3 * MIB, 4 * MIB, 0), 0);
	assert_int_equal(pen_mem_charge(l, 1, 2 * MIB, 4 * MIB, 0), -ENOMEM);
	assert_int_equal(pen_mem_charge(l, 1, 1 * MIB, 4 * MIB, 0), 0);
	assert_int_equal(l->denied_bytes, 5 * MIB);   /* what the limit would have had to be */
	assert_int_equal(pen_mem_charge(l, 1, 1, 4 * MIB, 0), -ENOMEM);
	assert_int_equal(pen_mem_charge(l, 1, 9 * MIB, 4 * MIB, PEN_MEM_QUIET), -ENOMEM);
	assert_int_equal(l->denied_bytes, 5 * MIB);
	assert_int_equal(pen_mem_charge(l, 1, UINT64_MAX, UINT64_MAX, 0), -ENOMEM);
	assert_int_equal(pen_mem_charge(l, 1, 1, UINT64_MAX, PEN_MEM_STOPPED), -ENOMEM);
	assert_int_equal(pen_mem_charge(l, PEN_LEDGER_CLIENTS, 1, UINT64_MAX, 0), -EINVAL);
	assert_int_equal(pen_mem_charge(l, 1, 0, 0, 0), 0);
	struct pen_mem_sum s;
	pen_mem_read(l, &s);
	assert_int_equal(s.used_bytes, 4 * MIB);
	assert_int_equal(s.peak_bytes, 4 * MIB);
	assert_int_equal(s.denials, 4);
	assert_true(l->denied_bytes == UINT64_MAX);   /* and no wrap */
	assert_int_equal(l->client[1].denials, 4);
	assert_int_equal(pen_mem_charge(l, 1, MIB, 4 * MIB, PEN_MEM_FORCE), 0);
	assert_int_equal(used(l), 5 * MIB);
	assert_int_equal(pen_mem_charge(l, 1, UINT64_MAX, 0, PEN_MEM_FORCE), -ENOMEM);

	/* A wrong free takes at most what this client holds. */
	assert_int_equal(pen_mem_uncharge(l, 1, 100 * MIB), 2 * MIB);
	assert_int_equal(pen_mem_uncharge(l, 1, 100 * MIB), 0);
	assert_int_equal(used(l), 3 * MIB);
	assert_int_equal(pen_mem_uncharge(l, 77, 1), 0);
	/* Another client of the tenant wrote nonsense: never below zero. */
	l->mem_used_bytes = 10;
	assert_int_equal(pen_mem_uncharge(l, 0, MIB), 10);
	assert_int_equal(used(l), 0);
	assert_int_equal(l->client[0].begun, l->client[0].done);
	assert_int_equal(l->client[1].begun, l->client[1].done);
	ledger_free(l);
}

static void test_claim_and_drop(void **state)
{
	(void)state;
	struct pen_ledger_page *l = ledger_new();
	for (uint32_t i = 0; i < PEN_LEDGER_CLIENTS; i++)
		assert_int_equal(pen_ledger_claim(l, i, 1), i);
	assert_int_equal(pen_ledger_claim(l, 1, 1), -ENOSPC);
	assert_int_equal(pen_mem_charge(l, 7, MIB, UINT64_MAX, 0), 0);
	assert_int_equal(pen_mem_charge(l, 8, MIB, UINT64_MAX, 0), 0);
	assert_int_equal(pen_ledger_drop(l, 7), MIB);
	assert_int_equal(pen_ledger_drop(l, 7), 0);
	assert_int_equal(used(l), MIB);
	l->client[7].denials = 5;
	assert_int_equal(pen_ledger_claim(l, 99, 2), 7);
	assert_int_equal(l->client[7].denials, 0);
	assert_int_equal(l->client[7].hold_seat, PEN_SEAT_NONE);
	/* Claims that are more than there is. */
	l->client[8].charged_bytes = UINT64_MAX;
	assert_int_equal(pen_ledger_drop(l, 8), MIB);
	assert_int_equal(used(l), 0);
	ledger_free(l);
}

static void test_square_hostile(void **state)
{
	(void)state;
	struct pen_ledger_page *l = ledger_new();
	uint64_t freed = 1;
	l->client[0].charged_bytes = UINT64_MAX;
	l->client[1].charged_bytes = UINT64_MAX;
	assert_int_equal(pen_mem_square(l, 3, &freed), -EUCLEAN);
	/* Between two steps for ever: left strict, and it is the tenant's own loss. */
	memset(l, 0, sizeof(*l));
	l->client[0].begun = 1;
	l->mem_used_bytes = MIB;
	assert_int_equal(pen_mem_square(l, 1, &freed), -EAGAIN);
	assert_int_equal(used(l), MIB);
	l->client[0].done = 1;
	assert_int_equal(pen_mem_square(l, 1, &freed), 0);
	assert_int_equal(freed, MIB);
	/* Sum too small for what is charged: made right as well. */
	l->client[0].charged_bytes = 5;
	assert_int_equal(pen_mem_square(l, 1, NULL), 0);
	assert_int_equal(used(l), 5);
	ledger_free(l);
}

/* ---- racing for the last megabyte -------------------------------------------------------------------------------- */

#define RACE_PROCS 4
#define RACE_THREADS 64
#define RACE_ROUNDS 200
#define RACE_CAP (64 * MIB)

struct race {
	struct pen_ledger_page *l;
	uint32_t client;
	_Atomic uint32_t bad;
	_Atomic uint64_t granted;
};

static void *race_thread(void *arg)
{
	struct race *r = arg;
	for (int i = 0; i < RACE_ROUNDS; i++) {
		if (pen_mem_charge(r->l, r->client, MIB, RACE_CAP, 0) == 0) {
			r->granted++;
			if (used(r->l) > RACE_CAP)
				r->bad++;
			if (pen_mem_uncharge(r->l, r->client, MIB) != MIB)
				r->bad++;
		}
	}
	return NULL;
}

/* Return: exit code of a client process. */
static int race_process(struct pen_ledger_page *l, uint32_t client)
{
	struct race r = { .l = l, .client = client };
	pthread_t t[RACE_THREADS];
	for (int i = 0; i < RACE_THREADS; i++)
		if (pthread_create(&t[i], NULL, race_thread, &r) != 0)
			return 2;
	for (int i = 0; i < RACE_THREADS; i++)
		pthread_join(t[i], NULL);
	return r.bad || !r.granted ? 1 : 0;
}

static void test_race(void **state)
{
	(void)state;
	struct pen_ledger_page *l = ledger_new();
	/* 63 of 64 MiB are taken by somebody who stays. */
	assert_int_equal(pen_ledger_claim(l, 0, 1), 0);
	assert_int_equal(pen_mem_charge(l, 0, RACE_CAP - MIB, RACE_CAP, 0), 0);
	pid_t pid[RACE_PROCS];
	fflush(NULL);
	pen_ledger_set live = 1;
	for (uint32_t i = 0; i < RACE_PROCS; i++) {
		int c = pen_ledger_claim(l, i + 1, 1);
		live |= PEN_LEDGER_BIT(c);
		pid[i] = fork();
		if (pid[i] == 0)
			_exit(race_process(l, (uint32_t)c));
	}
	/* The daemon squares beside them, and must not disturb: whatever it "frees" would be lost to somebody. */
	uint64_t freed = 0, n = 0;
	int status, left = RACE_PROCS, squared = 0;
	while (left) {
		squared += pen_mem_square(l, live, &n) == 0;
		freed += n;
		for (int i = 0; i < RACE_PROCS; i++) {
			if (pid[i] && waitpid(pid[i], &status, WNOHANG) == pid[i]) {
				assert_true(WIFEXITED(status));
				assert_int_equal(WEXITSTATUS(status), 0);
				pid[i] = 0;
				left--;
			}
		}
	}
	print_message("squared %d times beside 4 x 64 threads\n", squared);
	assert_int_equal(freed, 0);
	assert_int_equal(used(l), RACE_CAP - MIB);
	struct pen_mem_sum s;
	pen_mem_read(l, &s);
	assert_true(s.peak_bytes <= RACE_CAP);
	ledger_free(l);
}

/* ---- killed between two steps ------------------------------------------------------------------------------------ */

static const char *kill_name;
static void kill_at(const char *name)
{
	if (kill_name && strcmp(name, kill_name) == 0)
		kill(getpid(), SIGKILL);
}

static void no_kill(const char *name)
{
	(void)name;
}

static int killed_at(struct pen_ledger_page *l, uint32_t client, const char *name)
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		pen_mem_charge(l, client, 3 * MIB, 64 * MIB, 0);
		kill_name = name;
		pen_test_point = kill_at;
		pen_mem_charge(l, client, 5 * MIB, 64 * MIB, 0);
		pen_mem_uncharge(l, client, 2 * MIB);
		_exit(1);
	}
	int status;
	waitpid(pid, &status, 0);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static void test_killed_at_every_step(void **state)
{
	(void)state;
	static const char *const points[] = {
		"charge:start", "charge:begun", "charge:used", "charge:charged", "charge:done",
		"release:start", "release:begun", "release:charged", "release:used", "release:done",
	};
	struct pen_ledger_page *l = ledger_new();
	int alive = pen_ledger_claim(l, 1, 1);
	assert_int_equal(pen_mem_charge(l, (uint32_t)alive, 7 * MIB, 64 * MIB, 0), 0);
	for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
		int c = pen_ledger_claim(l, 2, (uint32_t)i + 1);
		if (!killed_at(l, (uint32_t)c, points[i]))
			fail_msg("not killed at %s", points[i]);
		/* Never too lax: what the dead one's vendor library may hold is counted. */
		if (used(l) < 7 * MIB + l->client[c].charged_bytes)
			fail_msg("killed at %s: %llu bytes are counted", points[i], (unsigned long long)used(l));
		/* A survivor between two of its steps must not lose what it took. */
		l->client[alive].begun++;
		l->mem_used_bytes += MIB;
		assert_int_equal(pen_mem_square(l, PEN_LEDGER_BIT(alive), NULL), -EAGAIN);
		l->client[alive].charged_bytes += MIB;
		l->client[alive].done++;
		assert_int_equal(pen_mem_square(l, PEN_LEDGER_BIT(alive), NULL), 0);
		if (used(l) != 8 * MIB)
			fail_msg("killed at %s: %llu bytes stay", points[i], (unsigned long long)used(l));
		assert_int_equal(l->client[c].tag, 0);
		assert_int_equal(pen_mem_uncharge(l, (uint32_t)alive, MIB), MIB);
	}
	ledger_free(l);
}

/* The daemon itself is killed while it drops a dead client; the next one squares. */
static void test_daemon_killed_in_drop(void **state)
{
	(void)state;
	static const char *const points[] = { "drop:charged", "drop:used" };
	struct pen_ledger_page *l = ledger_new();
	int alive = pen_ledger_claim(l, 1, 1);
	assert_int_equal(pen_mem_charge(l, (uint32_t)alive, 7 * MIB, 64 * MIB, 0), 0);
	for (size_t i = 0; i < 2; i++) {
		int c = pen_ledger_claim(l, 2, 1);
		assert_int_equal(pen_mem_charge(l, (uint32_t)c, 3 * MIB, 64 * MIB, 0), 0);
		fflush(NULL);
		pid_t pid = fork();
		if (pid == 0) {
			kill_name = points[i];
			pen_test_point = kill_at;
			pen_ledger_drop(l, (uint32_t)c);
			_exit(1);
		}
		int status;
		waitpid(pid, &status, 0);
		assert_true(WIFSIGNALED(status));
		assert_true(used(l) >= 7 * MIB);
		assert_int_equal(pen_mem_square(l, PEN_LEDGER_BIT(alive), NULL), 0);
		assert_int_equal(used(l), 7 * MIB);
	}
	ledger_free(l);
}

/* Clients die at random points beside others that go on; in the end the account is exact. */
static void test_kill_storm(void **state)
{
	(void)state;
	struct pen_ledger_page *l = ledger_new();
	static const char *const at[] = { "charge:used@300", "release:charged@200", "charge:charged@150", "release:used@250" };
	int alive = pen_ledger_claim(l, 0, 1);
	fflush(NULL);
	pid_t steady = fork();
	if (steady == 0)
		for (;;)
			race_process(l, (uint32_t)alive);
	for (uint32_t round = 0; round < 12; round++) {
		int c = pen_ledger_claim(l, 9, round + 1);
		assert_true(c > 0);
		fflush(NULL);
		pid_t pid = fork();
		if (pid == 0) {
			setenv("PEN_TEST_KILL", at[round % 4], 1);
			struct race r = { .l = l, .client = (uint32_t)c };
			pen_test_point = pen_test_point_env;
			for (;;)
				race_thread(&r);
		}
		int status;
		waitpid(pid, &status, 0);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		pen_mem_square(l, PEN_LEDGER_BIT(alive), NULL);
	}
	kill(steady, SIGKILL);
	waitpid(steady, NULL, 0);
	assert_int_equal(pen_mem_square(l, 0, NULL), 0);
	assert_int_equal(used(l), 0);
	ledger_free(l);
}

int main(void)
{
	pen_test_point = no_kill;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_charge),
		cmocka_unit_test(test_claim_and_drop),
		cmocka_unit_test(test_square_hostile),
		cmocka_unit_test(test_race),
		cmocka_unit_test(test_killed_at_every_step),
		cmocka_unit_test(test_daemon_killed_in_drop),
		cmocka_unit_test(test_kill_storm),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
