/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits of memory that move: a limit that is lowered in the middle of a charge, more that is asked for, and what is shown.
 * Linked to the build of the board that has marks (board/testpoint.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/units.h"
#include "board/testpoint.h"
#include "gate/internal.h"
#include "gate_device.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct rig {
	struct fake_board *b;
	struct pen_ledger_page *ledger;
	struct pen_gate *gate;
};
static struct rig *hooked;

static void open_rig(struct rig *r, uint64_t device_bytes)
{
	static const uint16_t rank[] = { 3 };
	r->b = fake_board_new(1, rank);
	r->ledger = r->b->ledger[0];
	struct pen_terms *t = &r->b->base[0];
	t->mem_cap_bytes = 100 * PEN_MIB;
	t->mem_limit_bytes = 300 * PEN_MIB;
	t->mem_contract_bytes = UINT64_MAX;
	fake_board_publish(r->b, 0);
	struct fake_dev *dev = fake_dev_start(PEN_ADAPTER_TIMESTAMPS, 1000);
	struct pen_attach_device *d = calloc(1, sizeof(*d));   /* gate and device outlive the rig in the gate's registry */
	fake_board_device(r->b, 0, 0, 0, d);
	struct pen_gate_device want = { .key = "fake:0", .mem_bytes = device_bytes, .native = dev };
	assert_int_equal(pen_gate_open_device(&dev->adapter, &want, d, NULL, &r->gate), 0);
}

static void cap_to(struct rig *r, uint64_t bytes)
{
	r->b->base[0].mem_cap_bytes = bytes;
	fake_board_publish(r->b, 0);
}

static uint64_t used(const struct rig *r)
{
	return atomic_load(&r->ledger->mem_used_bytes);
}

static void lower_at_used(const char *name)
{
	if (!strcmp(name, "charge:used") && hooked->b->base[0].mem_cap_bytes > 50 * PEN_MIB)
		cap_to(hooked, 50 * PEN_MIB);
}

static void other_news_at_used(const char *name)
{
	if (!strcmp(name, "charge:used"))
		fake_board_publish(hooked->b, 0);
}

/* The daemon lowers the limit when the charge is made and before anybody looks again: it is taken back. */
static void test_lowered_under_charge(void **state)
{
	(void)state;
	struct rig r;
	open_rig(&r, PEN_GIB);
	r.b->base[0].mem_limit_bytes = 0;   /* nothing to ask for */
	hooked = &r;
	assert_int_equal(pen_gate_mem_reserve(r.gate, 20 * PEN_MIB), 0);
	pen_test_point = lower_at_used;
	assert_int_equal(pen_gate_mem_reserve(r.gate, 60 * PEN_MIB), -ENOMEM);
	assert_int_equal(used(&r), 20 * PEN_MIB);
	cap_to(&r, 100 * PEN_MIB);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 25 * PEN_MIB), 0);   /* fits below the new one too */
	assert_int_equal(used(&r), 45 * PEN_MIB);
	pen_test_point = other_news_at_used;                               /* epochs that rise for something else */
	assert_int_equal(pen_gate_mem_reserve(r.gate, 5 * PEN_MIB), 0);
	pen_test_point = pen_test_point_env;
	assert_int_equal(used(&r), 50 * PEN_MIB);
	/* Below what is there: nothing more, and what is there stays until it is freed. */
	cap_to(&r, 10 * PEN_MIB);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 1), -ENOMEM);
	assert_int_equal(used(&r), 50 * PEN_MIB);
	pen_gate_mem_release(r.gate, 25 * PEN_MIB);
	pen_gate_mem_release(r.gate, 20 * PEN_MIB);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 5 * PEN_MIB), 0);
}

/* What the driver has taken of itself counts although it is not allowed, and nothing more is to be had. */
static void test_forced(void **state)
{
	(void)state;
	struct rig r;
	open_rig(&r, PEN_GIB);
	r.b->base[0].mem_limit_bytes = 0;
	cap_to(&r, 10 * PEN_MIB);
	pen_gate_mem_force(r.gate, 40 * PEN_MIB);
	assert_int_equal(used(&r), 40 * PEN_MIB);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 1), -ENOMEM);
	pen_gate_mem_refund(r.gate, 40 * PEN_MIB, true);
	assert_int_equal(used(&r), 0);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 10 * PEN_MIB), 0);
}

struct answer {
	struct rig *r;
	uint64_t cap;   /* 0 = no more */
	uint64_t asked;
};

static void *daemon_answers(void *arg)
{
	struct answer *a = arg;
	while (!(a->asked = atomic_load(&a->r->ledger->mem_wanted_bytes)))
		usleep(100);
	if (a->cap)
		cap_to(a->r, a->cap);
	atomic_store(&a->r->ledger->mem_wanted_bytes, 0);
	return NULL;
}

static int reserve_and_answer(struct rig *r, uint64_t bytes, uint64_t cap, uint64_t *ret_asked)
{
	struct answer a = { .r = r, .cap = cap };
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, daemon_answers, &a), 0);
	int result = pen_gate_mem_reserve(r->gate, bytes);
	pthread_join(thread, NULL);
	*ret_asked = a.asked;
	return result;
}

static void test_asks(void **state)
{
	(void)state;
	struct rig r;
	uint64_t asked;
	open_rig(&r, PEN_GIB);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 90 * PEN_MIB), 0);
	assert_int_equal(reserve_and_answer(&r, 100 * PEN_MIB, 200 * PEN_MIB, &asked), 0);
	assert_int_equal(asked, 190 * PEN_MIB);
	assert_int_equal(reserve_and_answer(&r, 50 * PEN_MIB, 0, &asked), -ENOMEM);
	assert_int_equal(asked, 240 * PEN_MIB);
	assert_int_equal(atomic_load(&r.ledger->denials), 1);
	assert_int_equal(atomic_load(&r.ledger->denials_lent), 1);
	assert_int_equal(used(&r), 190 * PEN_MIB);
	/* More than contracts allow is not asked for; nor is anything of a daemon that is gone. */
	assert_int_equal(pen_gate_mem_reserve(r.gate, 200 * PEN_MIB), -ENOMEM);
	atomic_store(&r.b->terms[0]->lease_until_ns, 1);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 50 * PEN_MIB), -ENOMEM);
	assert_int_equal(atomic_load(&r.ledger->mem_wanted_bytes), 0);
	/* What the device has not got was not lent. */
	assert_int_equal(pen_gate_mem_reserve(r.gate, 2 * PEN_GIB), -ENOMEM);
	assert_int_equal(atomic_load(&r.ledger->denials), 4);
	assert_int_equal(atomic_load(&r.ledger->denials_lent), 3);
}

/* The size that a program is shown follows from contracts, and is never 0 because a device does not tell its own. */
static void test_view(void **state)
{
	(void)state;
	struct rig r, unknown;
	struct pen_mem_view v;
	open_rig(&r, PEN_GIB);
	pen_gate_mem_view(r.gate, &v);
	assert_int_equal(v.limit_bytes, 300 * PEN_MIB);
	cap_to(&r, 7 * PEN_MIB);
	pen_gate_mem_view(r.gate, &v);
	assert_int_equal(v.limit_bytes, 300 * PEN_MIB);
	open_rig(&unknown, 0);
	pen_gate_mem_view(unknown.gate, &v);
	assert_int_equal(v.limit_bytes, 300 * PEN_MIB);
	unknown.b->base[0].mem_limit_bytes = UINT64_MAX;
	cap_to(&unknown, UINT64_MAX);
	pen_gate_mem_view(unknown.gate, &v);
	assert_true(v.limit_bytes == UINT64_MAX);
}

/* What the daemon's audit found beside the charges counts against everything that was promised, and is shown as used. */
static void test_overhead(void **state)
{
	(void)state;
	struct rig r;
	struct pen_mem_view v;
	uint64_t asked;
	open_rig(&r, PEN_GIB);
	struct pen_terms *t = &r.b->base[0];
	t->mem_overhead_bytes = 40 * PEN_MIB;
	t->mem_guaranteed_bytes = 80 * PEN_MIB;
	t->mem_contract_bytes = 320 * PEN_MIB;
	cap_to(&r, 60 * PEN_MIB);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 50 * PEN_MIB), 0);
	pen_gate_mem_view(r.gate, &v);
	assert_int_equal(v.limit_bytes, 300 * PEN_MIB);
	assert_int_equal(v.used_bytes, 90 * PEN_MIB);
	/* 260 of the 300 MiB at the most: not asked for above that, and no neighbour's fault above 280. */
	assert_int_equal(pen_gate_mem_reserve(r.gate, 211 * PEN_MIB), -ENOMEM);
	assert_int_equal(atomic_load(&r.ledger->denials_lent), 1);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 231 * PEN_MIB), -ENOMEM);
	assert_int_equal(atomic_load(&r.ledger->denials_lent), 1);
	assert_int_equal(reserve_and_answer(&r, 210 * PEN_MIB, 260 * PEN_MIB, &asked), 0);
	assert_int_equal(asked, 260 * PEN_MIB);
	pen_gate_mem_release(r.gate, 210 * PEN_MIB);
	/* Lent, and the lease is over: the guarantee less the overhead is left. */
	t->flags = PEN_TERMS_LENT;
	cap_to(&r, 200 * PEN_MIB);
	atomic_store(&r.b->terms[0]->lease_until_ns, 1);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 1), -ENOMEM);
	pen_gate_mem_release(r.gate, 50 * PEN_MIB);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 40 * PEN_MIB), 0);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 1), -ENOMEM);
	/* More overhead than was promised, or than there is: nothing is left, and nothing wraps. */
	t->flags = 0;
	t->mem_overhead_bytes = UINT64_MAX - 1;
	cap_to(&r, 0);
	pen_gate_mem_view(r.gate, &v);
	assert_true(v.used_bytes == UINT64_MAX && v.limit_bytes == 300 * PEN_MIB);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 1), -ENOMEM);
}

/* Who of the tenant is on the device, by the number that he has himself. */
static void test_clients(void **state)
{
	(void)state;
	struct rig r;
	struct pen_gate_client v[2];
	open_rig(&r, PEN_GIB);
	for (unsigned i = 0; i < PEN_LEDGER_CLIENTS; i++)
		atomic_store(&r.ledger->client[i].tag, 0);
	assert_int_equal(pen_gate_clients(r.gate, v, 2), 0);
	atomic_store(&r.ledger->client[r.gate->client].tag, 1);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 5 * PEN_MIB), 0);
	atomic_store(&r.ledger->client[r.gate->client].device_ns, 77);
	assert_int_equal(pen_gate_clients(r.gate, v, 0), 0);
	assert_int_equal(pen_gate_door.clients(r.gate, v, 2), 1);
	assert_int_equal(v[0].pid, getpid());
	assert_int_equal(v[0].charged_bytes, 5 * PEN_MIB);
	assert_int_equal(v[0].device_ns, 77);
}

int main(void)
{
	alarm(60);   /* a hang is a failure */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lowered_under_charge),
		cmocka_unit_test(test_forced),
		cmocka_unit_test(test_asks),
		cmocka_unit_test(test_view),
		cmocka_unit_test(test_overhead),
		cmocka_unit_test(test_clients),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
