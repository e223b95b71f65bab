/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TESTS_GATE_SUITE_ACCOUNT_H
#define PEN_TESTS_GATE_SUITE_ACCOUNT_H
/* The part of the gate's suite about charges and learned costs; included by gate_suite.h. */

/*
 * What is charged is what the device really did. Without timestamps the end is seen by the host, late by what its
 * scheduler makes of it: then only the lower bound is sharp.
 */
static void test_exact_charge(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	static struct fake_cmd c[60];
	uint64_t wall = pen_mono_ns();
	for (uint32_t i = 0; i < 60; i++) {
		c[i] = (struct fake_cmd){ .dur_ns = 1500000 };
		assert_int_equal(enqueue(r.q, &c[i], 0), 0);
		if (i % 5 == 4)
			finish_queue(r.q);
	}
	wall = pen_mono_ns() - wall;
	settle(&r);
	uint64_t charged = atomic_load(&account(&r)->device_ns), truth = r.dev->busy_ns;
	assert_in_range(charged, truth - truth / 10, SUITE_CAPS & PEN_ADAPTER_TIMESTAMPS ? truth + truth / 10 : wall);
	assert_int_equal(atomic_load(&account(&r)->tainted), 0);
	assert_int_equal(atomic_load(&r.gate->dev->signal->service_vns), charged);
	rig_close(&r);
}

static void test_idle_gap_is_free(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	struct fake_cmd c = { .dur_ns = PEN_MS };
	for (int i = 0; i < 5; i++) {
		assert_int_equal(enqueue(r.q, &c, 0), 0);
		fake_finish(r.fq);
		usleep(20000);   /* the program does something else before it synchronises */
		finish_queue(r.q);
	}
	settle(&r);
	assert_true(atomic_load(&account(&r)->device_ns) <= r.dev->busy_ns + 5 * PEN_MS);
	rig_close(&r);
}

/* Device time that another process of the tenant has paid for is not paid for twice. */
static void test_charge_is_union(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	uint64_t later = pen_mono_ns() + 3600 * PEN_S;
	atomic_store(&r.gate->dev->ledger->covered_until_ns, later);
	struct fake_cmd c = { .dur_ns = PEN_MS };
	for (int i = 0; i < 3; i++)
		assert_int_equal(enqueue(r.q, &c, 0), 0);
	finish_queue(r.q);
	settle(&r);
	assert_int_equal(atomic_load(&account(&r)->batches), 3);
	assert_int_equal(atomic_load(&account(&r)->device_ns), 0);
	assert_true(atomic_load(&r.gate->dev->ledger->covered_until_ns) == later);
	rig_close(&r);
}

/* Where tenants overlap by design the estimate is charged, whatever the timestamps say. */
static void test_corun_charges_estimate(void **state)
{
	(void)state;
	struct rig r;
	struct fake_board *b = board_alone();
	b->base[0].mode = PEN_MODE_CORUN;
	fake_board_publish(b, 0);
	rig_open(&r, b, 0, 0);
	static struct fake_cmd c[50];
	uint64_t sum = 0;
	for (uint32_t i = 0; i < 50; i++) {
		c[i] = (struct fake_cmd){ .dur_ns = i % 5 ? 3000 : 200000 };
		sum += c[i].dur_ns;
		assert_int_equal(enqueue(r.q, &c[i], 0), 0);
	}
	finish_queue(r.q);
	settle(&r);
	assert_int_equal(atomic_load(&account(&r)->device_ns), sum);
	rig_close(&r);
}

/* The daemon came back without our ledger: what this process holds is charged to the new one. */
static void test_new_ledger(void **state)
{
	(void)state;
	struct rig r;
	struct fake_board *b = board_alone();
	rig_open(&r, b, 0, 0);
	assert_int_equal(pen_gate_mem_reserve(r.gate, PEN_MIB), 0);
	r.gate->dev->ledger = b->ledger[3];
	b->ledger[3]->head.instance = 77;
	atomic_fetch_add(&r.gate->dev->attached, 1);
	b->base[0].mem_cap_bytes = PEN_GIB;
	fake_board_publish(b, 0);
	struct pen_mem_view v;
	pen_gate_mem_view(r.gate, &v);
	assert_int_equal(v.used_bytes, PEN_MIB);
	pen_gate_mem_release(r.gate, PEN_MIB);
	pen_gate_mem_view(r.gate, &v);
	assert_int_equal(v.used_bytes, 0);
	rig_close(&r);
}

static int early_start(struct pen_mark *first, struct pen_mark *last, uint64_t *ret_start, uint64_t *ret_end)
{
	*ret_end = pen_mono_ns();
	*ret_start = *ret_end - 1006000;
	(void)first, (void)last;
	return 0;
}

/* What the host needs to bring a command to an idle device is neither charged nor learned. */
static void test_loose_start(void **state)
{
	(void)state;
	struct rig r;
	if (!(SUITE_CAPS & PEN_ADAPTER_TIMESTAMPS))
		return;
	rig_open(&r, board_alone(), 0, 0);
	struct pen_cost *c = pen_gate_cost(r.gate, 77, 1);
	for (int i = 0; i < 6; i++)
		pen_cost_learn(c, 1000000);
	r.dev->adapter.mark_time = early_start;
	for (uint32_t loose = 0; loose < 2; loose++) {
		struct fake_cmd cmd = { .dur_ns = 10000 };
		struct pen_gate_cmd g = { .native = &cmd, .cost = c, .slices = 1, .wave = 1 };
		uint64_t before = atomic_load(&account(&r)->device_ns);
		r.dev->adapter.caps = loose ? SUITE_CAPS | PEN_ADAPTER_LOOSE_START : SUITE_CAPS;
		usleep(2000);   /* of its own, and not where the one before is charged already */
		assert_int_equal(pen_gate_submit(r.q, &g), 0);
		finish_queue(r.q);
		settle(&r);
		assert_int_equal(atomic_load(&account(&r)->device_ns) - before, loose ? pen_cost_est_ns(c) : 1006000);
		assert_int_equal(pen_cost_est_ns(c), 1001200);   /* learned the first time only */
	}
	rig_close(&r);
}

static void test_cost_table(void **state)
{
	(void)state;
	static struct pen_gate_costs *t;   /* as a gate's, it stays */
	assert_int_equal(pen_gate_costs_create(&t), 0);
	struct pen_cost *c = pen_gate_costs_get(t, 1, 100, PEN_COST_GUESS_NS);
	assert_ptr_equal(pen_gate_costs_get(t, 1, 100, PEN_COST_GUESS_NS), c);
	for (int i = 0; i < 6; i++)
		pen_cost_learn(c, 50000);
	assert_int_equal(pen_cost_est_ns(c), 50000);
	pen_cost_learn(c, 5000000);                        /* one outlier is not believed */
	assert_int_equal(pen_cost_est_ns(c), 50000);
	pen_cost_learn(c, 60000);
	assert_int_equal(pen_cost_est_ns(c), 52000);
	for (int i = 0; i < 3; i++)
		pen_cost_learn(c, 5000000);                /* three in a row are */
	assert_int_equal(pen_cost_est_ns(c), 5000000);
	pen_cost_learn(c, 0);
	pen_cost_learn(c, 0);
	pen_cost_learn(c, 0);
	assert_int_equal(pen_cost_est_ns(c), PEN_COST_FLOOR_NS);
	/* A guess counts where nothing like it was seen; a size that is known is worth more. */
	struct pen_cost *g = pen_gate_costs_get(t, 3, 100, 70000);
	assert_int_equal(pen_cost_est_ns(g), 70000);
	assert_false(pen_cost_known(g));
	pen_cost_learn(g, 40000);
	assert_int_equal(pen_cost_est_ns(pen_gate_costs_get(t, 3, 200, 70000)), 80000);
	/* A command that has changed: the old cost stands until the next sample, which replaces it, and it is never unknown. */
	for (int i = 0; i < 6; i++)
		pen_cost_learn(g, 40000);
	pen_gate_cost_renew(g);
	assert_int_equal(pen_cost_est_ns(g), 40000);
	assert_true(pen_cost_known(g));
	pen_cost_learn(g, 60000);
	assert_int_equal(pen_cost_est_ns(g), 60000);
	pen_gate_cost_renew(g);
	pen_gate_cost_beside(g, 5000000);
	assert_int_equal(pen_cost_est_ns(g), 5000000);
	/* An autotuner: any number of sizes and kernels, bounded, and always an answer. */
	for (uint64_t i = 0; i < 30000; i++) {
		assert_true(pen_cost_est_ns(pen_gate_costs_get(t, 2, i, PEN_COST_GUESS_NS)) > 0);
		assert_true(pen_cost_est_ns(pen_gate_costs_get(t, i * 7919, i, PEN_COST_GUESS_NS)) > 0);
	}
	assert_ptr_equal(pen_gate_costs_get(t, 1, 100, PEN_COST_GUESS_NS), c);
}

static void test_cost_learning(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	struct pen_cost *cost = pen_gate_cost(r.gate, 42, 1000);
	assert_false(pen_cost_known(cost));
	assert_int_equal(pen_cost_est_ns(cost), PEN_COST_GUESS_NS);
	struct fake_cmd c = { .dur_ns = 4 * PEN_MS };
	uint64_t shortest = UINT64_MAX, longest = 0;
	for (int i = 0; i < 8; i++) {
		uint64_t before = r.dev->busy_ns;
		struct pen_gate_cmd cmd = { .native = &c, .cost = cost, .slices = 1, .wave = 1 };
		assert_int_equal(pen_gate_submit(r.q, &cmd), 0);
		finish_queue(r.q);
		settle(&r);
		uint64_t took = r.dev->busy_ns - before;
		shortest = PEN_MIN(shortest, took);
		longest = PEN_MAX(longest, took);
	}
	assert_true(pen_cost_known(cost));
	uint64_t slack = SUITE_CAPS & PEN_ADAPTER_TIMESTAMPS ? 0 : 4 * longest;   /* host time */
	assert_in_range(pen_cost_est_ns(cost), shortest, longest + slack);
	/* A new size of the same kernel starts from the known one. */
	uint64_t est = pen_cost_est_ns(cost), twice = pen_cost_est_ns(pen_gate_cost(r.gate, 42, 2000));
	assert_in_range(twice, 2 * est - 10, 2 * est + 10);
	rig_close(&r);
}

/* The first launch of a kernel may take a compiler's time: it is in no response time. */
static void test_response_without_first(void **state)
{
	(void)state;
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	struct fake_cmd c = { .dur_ns = 2 * PEN_MS };
	for (int i = 0; i < 4; i++) {
		struct pen_gate_cmd cmd = { .native = &c, .cost = pen_gate_cost(r.gate, 5, 1), .slices = 1, .wave = 1 };
		assert_int_equal(pen_gate_submit(r.q, &cmd), 0);
		finish_queue(r.q);
		settle(&r);
		uint64_t seen = 0;
		for (size_t k = 0; k < PEN_ARRAY_LEN(r.gate->dev->ledger->response.bucket); k++)
			seen += atomic_load(&r.gate->dev->ledger->response.bucket[k]);
		assert_int_equal(seen, i);
	}
	rig_close(&r);
}

/* Pieces correct what the first of them said wrongly; of a whole command they only tell that it is wrong by half. */
static void test_cost_of_pieces(void **state)
{
	(void)state;
	static struct pen_gate_costs *t;   /* as a gate's, it stays */
	assert_int_equal(pen_gate_costs_create(&t), 0);
	struct pen_cost *c = pen_gate_costs_get(t, 1, 1, PEN_COST_GUESS_NS);
	pen_gate_cost_piece(c, 16 * PEN_MS);
	assert_int_equal(pen_cost_est_ns(c), 16 * PEN_MS);
	for (int i = 0; i < 30; i++)
		pen_gate_cost_piece(c, 5 * PEN_MS);
	assert_in_range(pen_cost_est_ns(c), 5 * PEN_MS, 5 * PEN_MS + PEN_MS / 10);
	pen_cost_learn(c, 5 * PEN_MS);
	uint64_t whole = pen_cost_est_ns(c);
	for (int i = 0; i < 30; i++)
		pen_gate_cost_piece(c, 6 * PEN_MS);
	assert_int_equal(pen_cost_est_ns(c), whole);
	for (int i = 0; i < 30; i++)
		pen_gate_cost_piece(c, PEN_MS);
	assert_in_range(pen_cost_est_ns(c), PEN_MS, 2 * PEN_MS);
}

#define SUITE_TESTS_ACCOUNT \
	cmocka_unit_test(test_exact_charge), cmocka_unit_test(test_idle_gap_is_free), \
	cmocka_unit_test(test_charge_is_union), cmocka_unit_test(test_corun_charges_estimate), \
	cmocka_unit_test(test_new_ledger), cmocka_unit_test(test_loose_start), cmocka_unit_test(test_cost_table), \
	cmocka_unit_test(test_cost_learning), cmocka_unit_test(test_cost_of_pieces), \
	cmocka_unit_test(test_response_without_first)

#endif
