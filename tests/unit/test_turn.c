/* SPDX-License-Identifier: Apache-2.0 */
/* Rules of the admission core between tenants: rank, guarantee, turn, and what becomes of who does not move. */
#include "admit_ask.h"

/* ---- rank and guarantee --------------------------------------------------------------------------------------- */

static void test_rank(void **state)
{
	(void)state;
	struct ask *a = fresh();
	struct pen_admit_seat *u = add_seat(a, 9, 2, PEN_BUSY_RUN);
	u->latency = true;
	for (int s = PEN_BUSY_WANT; s <= PEN_BUSY_RUN; s++) {
		u->state = (uint8_t)s;
		expect(a, PEN_ADMIT_WAIT_SEAT, PEN_HOLD_RANK, PEN_BUSY_WANT);
		assert_int_equal(a->d.seat, 9);
		assert_int_equal(a->d.seat_word, u->busy_word);
		assert_true(pen_admit_must_yield(&a->lim, &a->st, &a->view));
	}
	in_flight(a, 100 * US, 0);   /* does not say WANT while it has work in flight */
	expect(a, PEN_ADMIT_WAIT_OWN, PEN_HOLD_RANK, PEN_BUSY_RUN);
	a->st.inflight_ns = 0;
	u->stale = true;
	EXPECT_GO(a);
	assert_true(a->d.taints);
	u->stale = false;
	u->state = PEN_BUSY_IDLE;
	EXPECT_GO(a);
	assert_false(a->d.taints);
	assert_false(pen_admit_must_yield(&a->lim, &a->st, &a->view));
	u->state = PEN_BUSY_RUN;
	u->tenant = a->lim.tenant;   /* nobody waits for the own tenant */
	EXPECT_GO(a);
	u->tenant = 109;
	u->seat = 60000;             /* a number that is no seat */
	EXPECT_GO(a);
}

static void test_repay(void **state)
{
	(void)state;
	struct ask *a = fresh();
	struct pen_admit_seat *u = add_seat(a, 9, 2, PEN_BUSY_RUN);
	a->lim.guaranteed_ppm = PPM / 4;
	a->view.guar_tat_ns = NOW - 300 * US;
	expect(a, PEN_ADMIT_WAIT_SEAT, PEN_HOLD_RANK, PEN_BUSY_WANT);
	assert_int_equal(a->d.until_ns, NOW + 100 * US);   /* 100 us at one quarter are 400 us */
	a->view.guar_tat_ns -= 100 * US;
	EXPECT_GO(a);
	assert_true(a->d.repay && a->d.taints && a->st.yielding);
	assert_int_equal(a->d.guar_tat_ns, NOW);

	a->view.last_repay = true;   /* the next one only after the urgent one has moved */
	a->view.guar_tat_ns = NOW - 5 * MS;
	expect(a, PEN_ADMIT_WAIT_SEAT, PEN_HOLD_RANK, PEN_BUSY_WANT);
	u->progress++;
	EXPECT_GO(a);
	assert_true(a->d.repay);
	expect(a, PEN_ADMIT_WAIT_SEAT, PEN_HOLD_RANK, PEN_BUSY_WANT);
	a->view.now_ns += PEN_ADMIT_LOOK_NS;   /* or has had the time */
	EXPECT_GO(a);

	a->view.last_repay = false;   /* credit is capped at four narrow windows */
	a->view.guar_tat_ns = 0;
	EXPECT_GO(a);
	assert_int_equal(a->d.guar_tat_ns, a->view.now_ns - 4 * 4 * 400 * US + 4 * 100 * US);
	a->cmd.slices = 100;          /* and a piece may be as long as the credit */
	a->cmd.est_ns = 100 * MS;
	a->lim.chunk_wide_ns = a->lim.chunk_narrow_ns = 250 * US;
	EXPECT_GO(a);
	assert_int_equal(a->d.est_ns, 1 * MS);
	a->lim.guaranteed_ppm = a->lim.floor_ppm = 0;
	expect(a, PEN_ADMIT_WAIT_SEAT, PEN_HOLD_RANK, PEN_BUSY_WANT);
}

/* An hour alone on the device does not count against the promise. */
static void test_guarantee_forgets(void **state)
{
	(void)state;
	struct ask *a = fresh();
	for (int i = 0; i < 10000; i++) {
		EXPECT_GO(a);
		a->view.guar_tat_ns = a->d.guar_tat_ns;
	}
	assert_int_equal(a->view.guar_tat_ns, NOW + PEN_ADMIT_LEAD_NS);
	assert_int_equal(pen_admit_join_guar(&a->lim, &a->view), NOW + PEN_ADMIT_LEAD_NS);
	a->view.guar_tat_ns = 5;
	assert_int_equal(pen_admit_join_guar(&a->lim, &a->view), NOW);   /* and idleness earns nothing */
}

static void test_corun(void **state)
{
	(void)state;
	struct ask *a = fresh();
	a->lim.corun = true;
	struct pen_admit_seat *s = add_seat(a, 9, 10, PEN_BUSY_RUN);
	EXPECT_GO(a);
	assert_true(a->d.taints);
	s->rank = 2;
	expect(a, PEN_ADMIT_WAIT_SEAT, PEN_HOLD_RANK, PEN_BUSY_WANT);
}

/* ---- turns ---------------------------------------------------------------------------------------------------- */

static void test_enter(void **state)
{
	(void)state;
	static const struct {
		const char *what;
		enum pen_busy_state own;
		uint16_t rank;
		enum pen_busy_state other;
		bool better;    /* the other has the better key */
		bool latency;   /* own class */
		enum pen_admit_kind kind;
		enum pen_busy_state publish;
	} rows[] = {
		{"nobody there: claim", PEN_BUSY_IDLE, 10, PEN_BUSY_IDLE, true, false, PEN_ADMIT_CLAIM, PEN_BUSY_CLAIM},
		{"seen again: run", PEN_BUSY_CLAIM, 10, PEN_BUSY_IDLE, true, false, PEN_ADMIT_GO, PEN_BUSY_RUN},
		{"an equal runs", PEN_BUSY_IDLE, 10, PEN_BUSY_RUN, false, false, PEN_ADMIT_WAIT_SEAT, PEN_BUSY_WANT},
		{"an equal runs now", PEN_BUSY_CLAIM, 10, PEN_BUSY_RUN, false, false, PEN_ADMIT_WAIT_SEAT, PEN_BUSY_WANT},
		{"a better one claims", PEN_BUSY_WANT, 10, PEN_BUSY_CLAIM, true, false, PEN_ADMIT_WAIT_SEAT, PEN_BUSY_WANT},
		{"both claim: back", PEN_BUSY_CLAIM, 10, PEN_BUSY_CLAIM, true, false, PEN_ADMIT_WAIT_SEAT, PEN_BUSY_WANT},
		{"both claim: stay", PEN_BUSY_CLAIM, 10, PEN_BUSY_CLAIM, false, false, PEN_ADMIT_WAIT_SEAT, PEN_BUSY_CLAIM},
		{"a worse one claims: so do I", PEN_BUSY_WANT, 10, PEN_BUSY_CLAIM, false, false, PEN_ADMIT_CLAIM, PEN_BUSY_CLAIM},
		{"a better one wants: after you", PEN_BUSY_IDLE, 10, PEN_BUSY_WANT, true, false, PEN_ADMIT_WAIT_SEAT, PEN_BUSY_WANT},
		{"it wants, I had claimed: go", PEN_BUSY_CLAIM, 10, PEN_BUSY_WANT, true, false, PEN_ADMIT_GO, PEN_BUSY_RUN},
		{"a worse one wants", PEN_BUSY_IDLE, 10, PEN_BUSY_WANT, false, false, PEN_ADMIT_CLAIM, PEN_BUSY_CLAIM},
		{"lower runs: let it drain", PEN_BUSY_IDLE, 20, PEN_BUSY_RUN, true, false, PEN_ADMIT_WAIT_SEAT, PEN_BUSY_WANT},
		{"lower claims: stay", PEN_BUSY_CLAIM, 20, PEN_BUSY_CLAIM, true, false, PEN_ADMIT_WAIT_SEAT, PEN_BUSY_CLAIM},
		{"lower wants: no matter", PEN_BUSY_IDLE, 20, PEN_BUSY_WANT, true, false, PEN_ADMIT_CLAIM, PEN_BUSY_CLAIM},
		{"latency passes a lower one that runs", PEN_BUSY_IDLE, 20, PEN_BUSY_RUN, true, true, PEN_ADMIT_GO, PEN_BUSY_RUN},
		{"latency passes a lower one that claims", PEN_BUSY_IDLE, 20, PEN_BUSY_CLAIM, true, true, PEN_ADMIT_GO, PEN_BUSY_RUN},
		{"latency waits for its equal", PEN_BUSY_IDLE, 10, PEN_BUSY_RUN, true, true, PEN_ADMIT_WAIT_SEAT, PEN_BUSY_WANT},
		{"already running", PEN_BUSY_RUN, 10, PEN_BUSY_RUN, true, false, PEN_ADMIT_GO, PEN_BUSY_RUN},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct ask *a = fresh();
		a->st.busy = (uint8_t)rows[i].own;
		a->lim.latency = rows[i].latency;
		a->view.own_service_vns = 10;
		add_seat(a, 9, rows[i].rank, rows[i].other)->service_vns = rows[i].better ? 9 : 11;
		if (ask(a) != rows[i].kind || a->d.publish != rows[i].publish)
			fail_msg("%s: kind %d, publish %d", rows[i].what, (int)a->d.kind, a->d.publish);
		if (a->d.kind == PEN_ADMIT_WAIT_SEAT)
			assert_int_equal(a->d.reason, PEN_HOLD_TURN);
		if (a->d.kind == PEN_ADMIT_GO)
			assert_int_equal(a->d.taints, rows[i].other == PEN_BUSY_RUN);
	}
}

static void test_polite(void **state)
{
	(void)state;
	struct ask *a = fresh();
	a->view.own_service_vns = 10;
	struct pen_admit_seat *s = add_seat(a, 9, 10, PEN_BUSY_WANT);
	expect(a, PEN_ADMIT_WAIT_SEAT, PEN_HOLD_TURN, PEN_BUSY_WANT);
	assert_int_equal(a->d.until_ns, NOW + PEN_ADMIT_POLITE_NS);
	a->view.now_ns += PEN_ADMIT_POLITE_NS - 1;
	s->busy_word += 4;   /* its moving about does not lengthen the wait */
	expect(a, PEN_ADMIT_WAIT_SEAT, PEN_HOLD_TURN, PEN_BUSY_WANT);
	a->view.now_ns++;
	expect(a, PEN_ADMIT_CLAIM, 0, PEN_BUSY_CLAIM);
	a->view.now_ns = NOW;
	a->st.polite_since_ns = 0;
	a->view.own_inflight_ns = 1;   /* a sibling runs: the tenant has the turn, and this process joins in */
	expect(a, PEN_ADMIT_CLAIM, 0, PEN_BUSY_CLAIM);
	a->view.own_service_vns = 1000 * MS;   /* but for a turn that is over */
	expect(a, PEN_ADMIT_WAIT_SEAT, PEN_HOLD_TURN, PEN_BUSY_WANT);
	a->view.now_ns += PEN_ADMIT_POLITE_NS;   /* and then for as long as siblings keep the other from claiming */
	expect(a, PEN_ADMIT_WAIT_SEAT, PEN_HOLD_TURN, PEN_BUSY_WANT);
	a->view.own_inflight_ns = 0;
	a->view.now_ns += PEN_ADMIT_POLITE_NS;
	expect(a, PEN_ADMIT_CLAIM, 0, PEN_BUSY_CLAIM);
}

static void test_turn_end(void **state)
{
	(void)state;
	struct ask *a = fresh();
	struct pen_admit_seat *s = add_seat(a, 9, 10, PEN_BUSY_WANT);
	in_flight(a, 100 * US, 0);
	a->st.oldest_est_ns = 100 * US;
	s->service_vns = 77;
	/* Half a quantum of 4 ms at a tenth, less what is in flight. */
	a->view.own_service_vns = 77 + 20 * MS - 1 * MS;
	EXPECT_GO(a);
	assert_false(pen_admit_must_yield(&a->lim, &a->st, &a->view));
	a->view.own_service_vns++;
	assert_true(pen_admit_must_yield(&a->lim, &a->st, &a->view));
	expect(a, PEN_ADMIT_WAIT_OWN, PEN_HOLD_TURN, PEN_BUSY_RUN);
	assert_true(a->st.yielding);
	a->view.own_service_vns = 0;   /* over is over, until all is done */
	expect(a, PEN_ADMIT_WAIT_OWN, PEN_HOLD_TURN, PEN_BUSY_RUN);
	a->view.own_service_vns = 100;
	a->st.inflight_ns = 0;
	expect(a, PEN_ADMIT_WAIT_SEAT, PEN_HOLD_TURN, PEN_BUSY_WANT);
	assert_false(a->st.yielding);
	in_flight(a, 100 * US, PEN_ADMIT_OWN_NS);   /* own work that makes no progress may need this command */
	a->st.yielding = true;
	EXPECT_GO(a);
	assert_true(a->d.debt);
}

static void test_deadlines(void **state)
{
	(void)state;
	struct ask *a = fresh();
	struct pen_admit_seat *s = add_seat(a, 9, 10, PEN_BUSY_WANT);
	in_flight(a, 100 * US, 0);
	a->view.own_deadline_ns = NOW + 5 * MS;
	a->view.own_service_vns = 1000 * MS;   /* says nothing while the deadlines differ */
	s->deadline_ns = NOW + 6 * MS;
	EXPECT_GO(a);
	s->deadline_ns = UINT64_MAX;
	EXPECT_GO(a);
	s->deadline_ns = NOW + 5 * MS - 1;
	expect(a, PEN_ADMIT_WAIT_OWN, PEN_HOLD_TURN, PEN_BUSY_RUN);
	a->st.yielding = false;
	s->deadline_ns = NOW - PEN_ADMIT_LAPSE_NS - 1;   /* missed for good: none at all */
	EXPECT_GO(a);
	a->view.own_deadline_ns = UINT64_MAX;
	expect(a, PEN_ADMIT_WAIT_OWN, PEN_HOLD_TURN, PEN_BUSY_RUN);   /* by service, then */
}

static void test_stale(void **state)
{
	(void)state;
	struct ask *a = fresh();
	struct pen_admit_seat *s = add_seat(a, 127, 10, PEN_BUSY_RUN);
	ask(a);
	a->view.now_ns += PEN_ADMIT_STALE_NS - 1;
	s->progress++;   /* a sign of life starts it anew */
	expect(a, PEN_ADMIT_WAIT_SEAT, PEN_HOLD_TURN, PEN_BUSY_WANT);
	a->view.now_ns += PEN_ADMIT_STALE_NS - 1;
	expect(a, PEN_ADMIT_WAIT_SEAT, PEN_HOLD_TURN, PEN_BUSY_WANT);
	assert_int_equal(a->d.until_ns, a->view.now_ns + 1);
	a->view.now_ns++;
	expect(a, PEN_ADMIT_CLAIM, 0, PEN_BUSY_CLAIM);
	a->st.busy = PEN_BUSY_CLAIM;
	EXPECT_GO(a);
	assert_true(a->d.taints);
	s->busy_word += 4;   /* it moved: believed again */
	expect(a, PEN_ADMIT_WAIT_SEAT, PEN_HOLD_TURN, PEN_BUSY_WANT);
	/* The same with a rank. */
	a = fresh();
	a->lim.floor_ppm = 0;
	add_seat(a, 9, 2, PEN_BUSY_RUN);
	for (int i = 0; i < 3; i++, a->view.now_ns += PEN_ADMIT_LOOK_NS)
		expect(a, PEN_ADMIT_WAIT_SEAT, PEN_HOLD_RANK, PEN_BUSY_WANT);
	expect(a, PEN_ADMIT_CLAIM, 0, PEN_BUSY_CLAIM);   /* it is not of class latency, so it may be claiming */
}

static void test_force(void **state)
{
	(void)state;
	struct ask *a = fresh();
	struct pen_admit_seat *s = add_seat(a, 9, 10, PEN_BUSY_RUN);
	a->lim.weight_ppm = PPM / 2;
	uint64_t waited = 0;
	while (ask(a) == PEN_ADMIT_WAIT_SEAT && waited <= 2 * PEN_ADMIT_FORCE_NS) {
		s->busy_word += 4;
		waited += a->d.until_ns - a->view.now_ns;
		a->view.now_ns = a->d.until_ns;
	}
	assert_int_equal(a->d.kind, PEN_ADMIT_GO);
	assert_true(a->d.taints);
	assert_int_equal(waited, PEN_ADMIT_FORCE_NS);
	a->lim.weight_ppm = PPM / 100;   /* eight turns of a small weight are longer: 8 x 400 ms */
	a->st.turn_since_ns = a->view.now_ns - 3199 * MS;
	expect(a, PEN_ADMIT_WAIT_SEAT, PEN_HOLD_TURN, PEN_BUSY_WANT);
	a->st.turn_since_ns = a->view.now_ns - 3200 * MS;
	EXPECT_GO(a);
}

static void test_join(void **state)
{
	(void)state;
	struct ask *a = fresh();
	a->view.own_service_vns = 100;
	assert_int_equal(pen_admit_join_vns(&a->lim, &a->view), 0);
	add_seat(a, 9, 10, PEN_BUSY_WANT)->service_vns = 500;
	add_seat(a, 10, 10, PEN_BUSY_RUN)->service_vns = 300;
	add_seat(a, 11, 10, PEN_BUSY_IDLE)->service_vns = 200;   /* not backlogged */
	add_seat(a, 12, 2, PEN_BUSY_RUN)->service_vns = 150;     /* another rank */
	struct pen_admit_seat *liar = add_seat(a, 13, 10, PEN_BUSY_RUN);
	liar->service_vns = UINT64_MAX;
	a->lim.quantum_ns = 0;
	assert_int_equal(pen_admit_join_vns(&a->lim, &a->view), 200);
	liar->service_vns = 1;
	liar->stale = true;
	assert_int_equal(pen_admit_join_vns(&a->lim, &a->view), 200);
	a->lim.quantum_ns = 10;   /* half a quantum (of its weight, a tenth) behind the least: there a turn begins */
	assert_int_equal(pen_admit_join_vns(&a->lim, &a->view), 150);
	a->view.own_service_vns = 251;
	assert_int_equal(pen_admit_join_vns(&a->lim, &a->view), 0);
}

static void test_wake(void **state)
{
	(void)state;
	struct ask *a = fresh();
	assert_int_equal(pen_admit_wake(&a->lim, &a->view), -1);
	add_seat(a, 9, 10, PEN_BUSY_RUN);
	add_seat(a, 10, 20, PEN_BUSY_WANT);
	assert_int_equal(pen_admit_wake(&a->lim, &a->view), 1);
	struct pen_admit_seat *late = add_seat(a, 11, 10, PEN_BUSY_WANT);
	assert_int_equal(pen_admit_wake(&a->lim, &a->view), 2);
	struct pen_admit_seat *early = add_seat(a, 12, 10, PEN_BUSY_CLAIM);
	early->deadline_ns = NOW;
	assert_int_equal(pen_admit_wake(&a->lim, &a->view), 3);
	late->deadline_ns = NOW - 1;
	assert_int_equal(pen_admit_wake(&a->lim, &a->view), 2);
	late->stale = early->stale = true;
	assert_int_equal(pen_admit_wake(&a->lim, &a->view), 1);
}

/* A total order: antisymmetric, transitive, never 0. */
static void test_key(void **state)
{
	(void)state;
	struct pen_admit_seat s[16];
	memset(s, 0, sizeof(s));
	for (unsigned i = 0; i < 16; i++) {
		s[i].seat = (uint16_t)i;
		s[i].rank = i & 1;
		s[i].deadline_ns = i & 2 ? UINT64_MAX : 5;
		s[i].service_vns = i & 4 ? 7 : 0;
	}
	for (unsigned i = 0; i < 16; i++)
		for (unsigned j = 0; j < 16; j++) {
			if (i != j)
				assert_int_equal(pen_admit_key_cmp(&s[i], &s[j]), -pen_admit_key_cmp(&s[j], &s[i]));
			assert_true(i == j || pen_admit_key_cmp(&s[i], &s[j]) != 0);
			for (unsigned k = 0; k < 16; k++)
				if (pen_admit_key_cmp(&s[i], &s[j]) < 0 && pen_admit_key_cmp(&s[j], &s[k]) < 0)
					assert_true(pen_admit_key_cmp(&s[i], &s[k]) < 0);
		}
	assert_true(pen_admit_key_cmp(&s[14], &s[1]) < 0);   /* rank before all */
	assert_true(pen_admit_key_cmp(&s[4], &s[2]) < 0);    /* deadline before service */
	assert_true(pen_admit_key_cmp(&s[8], &s[4]) < 0);    /* service before seat */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rank),
		cmocka_unit_test(test_repay),
		cmocka_unit_test(test_guarantee_forgets),
		cmocka_unit_test(test_corun),
		cmocka_unit_test(test_enter),
		cmocka_unit_test(test_polite),
		cmocka_unit_test(test_turn_end),
		cmocka_unit_test(test_deadlines),
		cmocka_unit_test(test_stale),
		cmocka_unit_test(test_force),
		cmocka_unit_test(test_join),
		cmocka_unit_test(test_wake),
		cmocka_unit_test(test_key),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
