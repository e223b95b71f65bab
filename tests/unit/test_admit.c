/* SPDX-License-Identifier: Apache-2.0 */
/* Rules of the admission core that concern the tenant alone: window, size of pieces, tokens. Rank and turn: test_turn.c. */
#include "admit_ask.h"

/* The core does not know the board; its numbers must be the board's. */
_Static_assert(PEN_ADMIT_SEATS == PEN_SEATS, "seats");
_Static_assert(PEN_BUSY_IDLE == 0 && PEN_BUSY_WANT == 1 && PEN_BUSY_CLAIM == 2 && PEN_BUSY_RUN == 3, "states");
_Static_assert(PEN_HOLD_WINDOW == 0 && PEN_HOLD_SHARE == 1 && PEN_HOLD_BYTES == 2 && PEN_HOLD_RANK == 3 &&
		       PEN_HOLD_TURN == 4 && PEN_HOLD_STOPPED == 5 && PEN_HOLD_EXCLUSIVE == 6, "reasons");

/* ---- window --------------------------------------------------------------------------------------------------- */

static void test_window(void **state)
{
	(void)state;
	static const struct {
		const char *what;
		uint64_t inflight_ns, est_ns, since_ns;
		enum { QUIET, URGENT_LATELY, EQUAL_WANTS, LOWER_WANTS } others;
		bool unknown, no_cut;
		enum pen_admit_kind kind;
		bool debt;
	} rows[] = {
		{"empty: any size goes", 0, 50 * MS, 0, QUIET, false, false, PEN_ADMIT_GO, false},
		{"fits the wide one", 1 * MS, 1 * MS, 0, QUIET, false, false, PEN_ADMIT_GO, false},
		{"does not", 1 * MS + 1, 1 * MS, 0, QUIET, false, false, PEN_ADMIT_WAIT_OWN, false},
		{"half a window before the end", 1 * MS, 1 * MS + 1, 0, QUIET, false, false, PEN_ADMIT_GO, false},
		{"narrow after an urgent one", 200 * US, 201 * US, 0, URGENT_LATELY, false, false, PEN_ADMIT_WAIT_OWN, false},
		{"narrow but fits", 200 * US, 200 * US, 0, URGENT_LATELY, false, false, PEN_ADMIT_GO, false},
		{"an equal narrows nothing", 1 * MS, 1 * MS, 0, EQUAL_WANTS, false, false, PEN_ADMIT_GO, false},
		{"and has its turn", 1 * MS, 1 * MS + 1, 0, EQUAL_WANTS, false, false, PEN_ADMIT_WAIT_OWN, false},
		{"a lower rank narrows nothing", 1 * MS, 1 * MS, 0, LOWER_WANTS, false, false, PEN_ADMIT_GO, false},
		{"no progress for 10 ms: debt", 2 * MS, 1 * MS, 10 * MS, QUIET, false, false, PEN_ADMIT_GO, true},
		{"nothing follows a long one", 20 * MS, 1 * MS, 18 * MS, QUIET, false, false, PEN_ADMIT_WAIT_OWN, false},
		{"but shortly before its end", 20 * MS, 30 * MS, 19 * MS, QUIET, false, false, PEN_ADMIT_GO, false},
		{"beside an equal more shortly", 20 * MS, 30 * MS, 20 * MS - 251 * US, EQUAL_WANTS, false, false, PEN_ADMIT_WAIT_OWN, false},
		{"and now", 20 * MS, 30 * MS, 20 * MS - 250 * US, EQUAL_WANTS, false, false, PEN_ADMIT_GO, false},
		{"narrow: not so shortly", 250 * US, 250 * US, 90 * US, URGENT_LATELY, false, false, PEN_ADMIT_WAIT_OWN, false},
		{"narrow: now", 250 * US, 250 * US, 100 * US, URGENT_LATELY, false, false, PEN_ADMIT_GO, false},
		{"and no more", 20 * MS, 1 * MS, 40 * MS, QUIET, false, false, PEN_ADMIT_GO, true},
		{"unknown waits for all", 1, 1 * US, 0, EQUAL_WANTS, true, false, PEN_ADMIT_WAIT_OWN, false},
		{"with an urgent one about", 1, 1 * US, 0, URGENT_LATELY, true, false, PEN_ADMIT_WAIT_OWN, false},
		{"unknown, nobody to let in", 1, 1 * US, 0, QUIET, true, false, PEN_ADMIT_GO, false},
		{"nor below", 1, 1 * US, 0, LOWER_WANTS, true, false, PEN_ADMIT_GO, false},
		{"unknown, empty", 0, 1 * US, 0, QUIET, true, false, PEN_ADMIT_GO, false},
		{"unknown, unhurried", 1, 1 * US, 0, EQUAL_WANTS, true, true, PEN_ADMIT_GO, false},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct ask *a = fresh();
		if (rows[i].inflight_ns)
			in_flight(a, rows[i].inflight_ns, rows[i].since_ns);
		a->cmd.est_ns = rows[i].est_ns;
		a->cmd.unknown = rows[i].unknown;
		a->lim.no_cut = rows[i].no_cut;
		if (rows[i].others == URGENT_LATELY)
			add_seat(a, 9, 2, PEN_BUSY_IDLE)->last_busy_ns = NOW - PEN_ADMIT_HOT_NS + 1;
		if (rows[i].others == EQUAL_WANTS)
			add_seat(a, 9, 10, PEN_BUSY_WANT)->service_vns = 1000 * MS;
		if (rows[i].others == LOWER_WANTS)
			add_seat(a, 9, 20, PEN_BUSY_WANT);
		if (ask(a) != rows[i].kind || a->d.debt != rows[i].debt)
			fail_msg("%s: kind %d, debt %d", rows[i].what, (int)a->d.kind, a->d.debt);
		if (a->d.kind == PEN_ADMIT_WAIT_OWN)
			assert_int_equal(a->d.reason, PEN_HOLD_WINDOW);
	}
}

static void test_hot_ends(void **state)
{
	(void)state;
	struct ask *a = fresh();
	in_flight(a, 1 * MS, 0);
	struct pen_admit_seat *u = add_seat(a, 9, 2, PEN_BUSY_IDLE);
	u->last_busy_ns = NOW + 1000 * 1000 * MS;   /* a lie about the future counts as now */
	assert_int_equal(ask(a), PEN_ADMIT_WAIT_OWN);
	u->last_busy_ns = 0;
	a->view.now_ns += PEN_ADMIT_HOT_NS;
	a->st.last_progress_ns = a->view.now_ns;
	EXPECT_GO(a);
}

static void test_unknown_has_nothing_behind_it(void **state)
{
	(void)state;
	struct ask *a = fresh();
	a->cmd.unknown = true;
	EXPECT_GO(a);
	in_flight(a, 1 * US, 0);
	a->cmd.unknown = false;
	EXPECT_GO(a);                                       /* alone on the device */
	add_seat(a, 9, 10, PEN_BUSY_WANT)->service_vns = 1000 * MS;
	expect(a, PEN_ADMIT_WAIT_OWN, PEN_HOLD_WINDOW, PEN_BUSY_RUN);
	a->view.nseats = 0;
	a->st.alone_until_ns = 0;
	a->st.inflight_ns = 0;
	EXPECT_GO(a);
}

static void test_gated_is_not_narrow(void **state)
{
	(void)state;
	struct ask *a = fresh();
	in_flight(a, 1 * MS, 0);
	struct pen_admit_seat *urgent = add_seat(a, 9, 2, PEN_BUSY_IDLE);
	urgent->last_busy_ns = NOW;
	urgent->latency = true;
	expect(a, PEN_ADMIT_WAIT_OWN, PEN_HOLD_WINDOW, PEN_BUSY_RUN);
	a->cmd.gated = true;
	EXPECT_GO(a);
	a->st.oldest_est_ns = 500 * US;                     /* several in flight */
	uint64_t wide = a->lim.window_wide_ns;
	in_flight(a, PEN_ADMIT_DEEP * wide - a->cmd.est_ns, 0);
	a->st.oldest_est_ns = 500 * US;
	EXPECT_GO(a);
	a->cmd.est_ns++;
	expect(a, PEN_ADMIT_WAIT_OWN, PEN_HOLD_WINDOW, PEN_BUSY_RUN);
	/* An equal waits until all of it is done, and what a lower rank is owed would come behind it. */
	in_flight(a, wide - a->cmd.est_ns, 0);
	a->st.oldest_est_ns = 500 * US;
	static const struct { uint16_t rank; uint64_t busy_ns; bool deep; } rows[] = {
		{ 10, 0, false }, { 9, 0, false }, { 11, NOW, false }, { 11, 0, true },
	};
	struct pen_admit_seat *other = add_seat(a, 10, 10, PEN_BUSY_IDLE);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		other->rank = rows[i].rank;
		other->last_busy_ns = rows[i].busy_ns;
		a->st.below_until_ns = 0;
		EXPECT_GO(a);
		a->cmd.est_ns++;
		if (rows[i].deep)
			EXPECT_GO(a);
		else
			expect(a, PEN_ADMIT_WAIT_OWN, PEN_HOLD_WINDOW, PEN_BUSY_RUN);
		a->cmd.est_ns--;
	}
}

/* Who outranks us and waits until what is in flight has ended has nothing of a gate in front of it. */
static void test_gate_helps_only_who_passes(void **state)
{
	(void)state;
	struct ask *a = fresh();
	a->cmd.gated = true;
	in_flight(a, 1 * MS, 0);
	add_seat(a, 9, 2, PEN_BUSY_IDLE)->last_busy_ns = NOW;
	expect(a, PEN_ADMIT_WAIT_OWN, PEN_HOLD_WINDOW, PEN_BUSY_RUN);
	assert_int_equal(a->st.passed_until_ns, 0);
}

static void test_debts_come_one_by_one(void **state)
{
	(void)state;
	struct ask *a = fresh();
	in_flight(a, 3 * MS, PEN_ADMIT_OWN_NS);
	EXPECT_GO(a);
	assert_true(a->d.debt);
	expect(a, PEN_ADMIT_WAIT_OWN, PEN_HOLD_WINDOW, PEN_BUSY_RUN);
	assert_int_equal(a->d.until_ns, NOW + PEN_ADMIT_OWN_NS / 4);
	a->view.now_ns = a->d.until_ns;
	EXPECT_GO(a);
	assert_true(a->d.debt);
}

static void test_siblings(void **state)
{
	(void)state;
	struct ask *a = fresh();
	a->view.own_inflight_ns = 50 * MS;
	EXPECT_GO(a);   /* nobody is urgent: each process may have its piece */
	struct pen_admit_seat *u = add_seat(a, 9, 2, PEN_BUSY_IDLE);
	u->last_busy_ns = NOW;
	u->latency = true;
	EXPECT_GO(a);   /* a new process has had none */
	a->st.last_progress_ns = NOW;
	expect(a, PEN_ADMIT_HOLD, PEN_HOLD_WINDOW, PEN_BUSY_IDLE);
	a->view.now_ns += PEN_ADMIT_OWN_NS;   /* and waits for siblings no longer than this */
	EXPECT_GO(a);
}

/* ---- pieces --------------------------------------------------------------------------------------------------- */

static void test_pieces(void **state)
{
	(void)state;
	static const struct {
		const char *what;
		uint64_t est_ns;
		uint32_t slices, wave;
		enum { ALONE, EQUAL, URGENT, LOWER } others;
		bool no_cut, no_wait;
		uint32_t cap_ppm, want;
	} rows[] = {
		{"alone: whole", 100 * MS, 100, 1, ALONE, false, false, PPM, 100},
		{"an equal was here: wide", 100 * MS, 100, 1, EQUAL, false, false, PPM, 2},
		{"an urgent one was here: narrow", 100 * MS, 1000, 1, URGENT, false, false, PPM, 2},
		{"who is lower needs no gap", 100 * MS, 100, 1, LOWER, false, false, PPM, 100},
		{"short enough", 250 * US, 10, 1, URGENT, false, false, PPM, 10},
		{"equal parts, not 9 and 1", 275 * US, 11, 1, URGENT, false, false, PPM, 6},
		{"whole waves", 1 * MS, 100, 8, URGENT, false, false, PPM, 24},
		{"at least a wave", 100 * MS, 100, 8, URGENT, false, false, PPM, 8},
		{"a wave is more than there is", 100 * MS, 6, 8, URGENT, false, false, PPM, 6},
		{"cannot be cut", 100 * MS, 1, 1, URGENT, false, false, PPM, 1},
		{"exclusive: never", 100 * MS, 100, 1, URGENT, true, false, PPM, 100},
		{"must not wait: whole", 100 * MS, 100, 1, URGENT, false, true, PPM, 100},
		{"a cap cuts to its burst", 100 * MS, 100, 1, ALONE, false, false, PPM / 2, 4},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct ask *a = fresh();
		static const uint16_t rank[] = {0, 10, 2, 20};
		a->cmd = (struct pen_admit_cmd){.est_ns = rows[i].est_ns, .slices = rows[i].slices, .wave = rows[i].wave,
						.no_wait = rows[i].no_wait, .bytes = 1000 * rows[i].slices};
		a->lim.no_cut = rows[i].no_cut;
		a->lim.cap_ppm = rows[i].cap_ppm;
		a->st.busy = PEN_BUSY_CLAIM;
		if (rows[i].others != ALONE)
			add_seat(a, 9, rank[rows[i].others], PEN_BUSY_IDLE)->last_busy_ns = NOW - 1;
		ask(a);
		if (a->d.kind != PEN_ADMIT_GO || a->d.slices != rows[i].want)
			fail_msg("%s: kind %d, %u slices", rows[i].what, (int)a->d.kind, a->d.slices);
		assert_int_equal(a->d.est_ns, rows[i].est_ns * a->d.slices / rows[i].slices);
		assert_int_equal(a->d.bytes, 1000 * a->d.slices);
	}
}

/* ---- tokens --------------------------------------------------------------------------------------------------- */

static void test_share_cap(void **state)
{
	(void)state;
	struct ask *a = fresh();
	a->lim.cap_ppm = PPM / 4;
	EXPECT_GO(a);
	assert_int_equal(a->d.share_tat_ns, NOW + 4 * 100 * US);
	a->view.share_tat_ns = NOW + 4 * 4 * MS;   /* the whole burst is taken: the last one still goes */
	EXPECT_GO(a);
	assert_int_equal(a->d.share_tat_ns, NOW + 4 * 4 * MS + 4 * 100 * US);
	a->view.share_tat_ns += 1 * MS;
	expect(a, PEN_ADMIT_HOLD, PEN_HOLD_SHARE, PEN_BUSY_IDLE);
	assert_int_equal(a->d.until_ns, NOW + 1 * MS);
	in_flight(a, 1 * US, 0);                   /* says RUN, so it must be back when that is done */
	expect(a, PEN_ADMIT_WAIT_OWN, PEN_HOLD_SHARE, PEN_BUSY_RUN);
	assert_int_equal(a->d.until_ns, NOW + 1 * MS);
	a->lim.cap_ppm = PPM;                      /* without a cap the word means nothing and is left alone */
	EXPECT_GO(a);
	assert_int_equal(a->d.share_tat_ns, a->view.share_tat_ns);
}

static void test_lease(void **state)
{
	(void)state;
	struct ask *a = fresh();
	a->view.share_tat_ns = NOW + 30 * MS;
	a->lim.lease_until_ns = NOW - 1;
	EXPECT_GO(a);   /* nothing is guaranteed: nothing to fall back to */
	a->lim.guaranteed_ppm = PPM / 5;
	expect(a, PEN_ADMIT_HOLD, PEN_HOLD_SHARE, PEN_BUSY_IDLE);
	assert_int_equal(a->d.until_ns, NOW + 10 * MS);
	a->lim.lease_until_ns = NOW;
	EXPECT_GO(a);
	a->lim.cap_ppm = PPM / 2;   /* a lapse does not lengthen the burst: 4 ms at one half, not at one fifth */
	a->lim.lease_until_ns = NOW - 1;
	a->view.share_tat_ns = NOW + 9 * MS;
	expect(a, PEN_ADMIT_HOLD, PEN_HOLD_SHARE, PEN_BUSY_IDLE);
	assert_int_equal(pen_admit_settle_share(&a->lim, NOW, -1000), -2000);   /* at most what was booked */
	assert_int_equal(pen_admit_settle_share(&a->lim, NOW, 1000), 5000);
}

static void test_bytes(void **state)
{
	(void)state;
	struct ask *a = fresh();
	a->lim.rate_cap_bytes_s = UINT64_C(1000000000);
	a->cmd.bytes = 1000000;
	EXPECT_GO(a);
	assert_int_equal(a->d.bytes_tat_ns, NOW + 1 * MS);
	assert_int_equal(a->d.credit_ns, a->d.est_ns);   /* commands on credit would count no bytes */
	a->view.bytes_tat_ns = NOW + 4 * MS + 7;
	expect(a, PEN_ADMIT_HOLD, PEN_HOLD_BYTES, PEN_BUSY_IDLE);
	assert_int_equal(a->d.until_ns, NOW + 7);
	a->cmd.bytes = 0;
	EXPECT_GO(a);
	a->cmd = (struct pen_admit_cmd){.est_ns = 1 * MS, .bytes = 400000000, .slices = 400, .wave = 1};
	a->view.bytes_tat_ns = 0;
	EXPECT_GO(a);   /* cut to what a burst of 4 ms moves */
	assert_in_range(a->d.slices, 3, 4);
	a->lim.rate_cap_bytes_s = UINT64_C(3000000000000);   /* large rates and sizes do not overflow */
	a->cmd = (struct pen_admit_cmd){.est_ns = 1 * MS, .bytes = UINT64_C(1) << 50, .slices = 1, .wave = 1};
	EXPECT_GO(a);
	assert_in_range(a->d.bytes_tat_ns - NOW, UINT64_C(375299968000), UINT64_C(375299969000));
}

static void test_credit(void **state)
{
	(void)state;
	struct ask *a = fresh();
	a->cmd.est_ns = 1 * US;
	EXPECT_GO(a);
	assert_int_equal(a->d.credit_ns, 500 * US);         /* nobody else is attached */
	a->cmd.est_ns = 60 * US;
	EXPECT_GO(a);
	assert_int_equal(a->d.credit_ns, 500 * US);
	add_seat(a, 9, 20, PEN_BUSY_IDLE);
	a->st.busy = PEN_BUSY_RUN;                          /* has claimed its turn */
	EXPECT_GO(a);
	assert_int_equal(a->d.credit_ns, 60 * US);
	a->cmd.est_ns = 1 * US;
	EXPECT_GO(a);
	assert_int_equal(a->d.credit_ns, PEN_ADMIT_CREDIT_NS);
	assert_int_equal(a->d.est_ns, 1 * US);
	in_flight(a, 2 * MS - 20 * US, 0);
	EXPECT_GO(a);
	assert_int_equal(a->d.credit_ns, 20 * US);          /* room in the window */
	a->st.inflight_ns = 0;
	a->lim.cap_ppm = PPM / 2;
	a->view.share_tat_ns = NOW + 8 * MS - 20 * US;
	EXPECT_GO(a);
	assert_int_equal(a->d.credit_ns, 10 * US);          /* room in the bucket */
	a->lim.cap_ppm = PPM;
	a->cmd.unknown = true;
	EXPECT_GO(a);
	assert_int_equal(a->d.credit_ns, 1 * US);
	a->cmd.unknown = false;
	add_seat(a, 9, 10, PEN_BUSY_WANT)->service_vns = 1000 * MS;
	EXPECT_GO(a);
	assert_int_equal(a->d.credit_ns, 1 * US);           /* others wait for the turn */
	a->cmd.est_ns = 60 * US;
	EXPECT_GO(a);
	assert_int_equal(a->d.credit_ns, 60 * US);
}

static void test_settle(void **state)
{
	(void)state;
	struct ask *a = fresh();
	assert_int_equal(pen_admit_settle_share(&a->lim, NOW, 1000), 0);   /* no cap, no word */
	a->lim.cap_ppm = PPM / 4;
	assert_int_equal(pen_admit_settle_share(&a->lim, NOW, 1000), 4000);
	assert_int_equal(pen_admit_settle_share(&a->lim, NOW, -1000), -4000);
	assert_int_equal(pen_admit_settle_share(&a->lim, NOW, INT64_MIN), -INT64_MAX);
	assert_int_equal(pen_admit_settle_guar(&a->lim, 1000), 100000);    /* the floor of 1 % */
	a->lim.guaranteed_ppm = PPM / 2;
	assert_int_equal(pen_admit_settle_guar(&a->lim, -1000), -2000);
	a->lim.guaranteed_ppm = a->lim.floor_ppm = 0;
	assert_int_equal(pen_admit_settle_guar(&a->lim, 1000), 0);
	assert_int_equal(pen_admit_vns(&a->lim, 1000), 10000);
	assert_int_equal(pen_admit_vns(&a->lim, UINT64_MAX), UINT64_MAX);
}

static void test_no_wait_and_stop(void **state)
{
	(void)state;
	struct ask *a = fresh();
	a->cmd.no_wait = true;
	a->lim.cap_ppm = PPM / 4;
	a->view.share_tat_ns = NOW + 1000 * MS;
	add_seat(a, 9, 2, PEN_BUSY_RUN);
	EXPECT_GO(a);
	assert_true(a->d.debt && a->d.taints);
	assert_int_equal(a->d.share_tat_ns, NOW + 1000 * MS + 400 * US);   /* booked all the same */
	a->lim.stop = true;
	expect(a, PEN_ADMIT_STOP, PEN_HOLD_STOPPED, PEN_BUSY_IDLE);
}

/* Another tenant has the device for itself: nothing goes, whatever else would let it, until the lease ends. */
static void test_kept_out(void **state)
{
	(void)state;
	struct ask *a = fresh();
	a->lim.hold = true;
	expect(a, PEN_ADMIT_HOLD, PEN_HOLD_EXCLUSIVE, PEN_BUSY_IDLE);
	assert_int_equal(a->d.share_tat_ns, 0);                    /* and no token is taken */
	a->lim.guaranteed_ppm = PPM / 2;
	a->lim.latency = true;
	a->view.guar_tat_ns = NOW - 1000 * MS;
	add_seat(a, 9, 2, PEN_BUSY_RUN);
	expect(a, PEN_ADMIT_HOLD, PEN_HOLD_EXCLUSIVE, PEN_BUSY_IDLE);
	for (int i = 0; i < 200; i++) {                            /* no turn, and no stale neighbour, is waited out */
		a->view.now_ns = a->d.until_ns;
		expect(a, PEN_ADMIT_HOLD, PEN_HOLD_EXCLUSIVE, PEN_BUSY_IDLE);
	}
	assert_true(pen_admit_must_yield(&a->lim, &a->st, &a->view));
	in_flight(a, 1 * MS, 0);                                   /* what is in flight still runs */
	expect(a, PEN_ADMIT_HOLD, PEN_HOLD_EXCLUSIVE, PEN_BUSY_RUN);
	in_flight(a, 1 * MS, PEN_ADMIT_OWN_NS);                    /* and may wait for this very command */
	a->view.nseats = 0;
	EXPECT_GO(a);
	assert_true(a->d.debt);

	a = fresh();
	a->lim.hold = true;
	a->cmd.no_wait = true;
	EXPECT_GO(a);
	a->cmd.no_wait = false;
	a->lim.lease_until_ns = NOW + 5 * MS;
	expect(a, PEN_ADMIT_HOLD, PEN_HOLD_EXCLUSIVE, PEN_BUSY_IDLE);
	assert_int_equal(a->d.until_ns, NOW + 5 * MS + 1);
	a->view.now_ns = a->d.until_ns;
	EXPECT_GO(a);
	a->lim.stop = true;
	expect(a, PEN_ADMIT_STOP, PEN_HOLD_STOPPED, PEN_BUSY_IDLE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_hot_ends),
		cmocka_unit_test(test_unknown_has_nothing_behind_it), cmocka_unit_test(test_gated_is_not_narrow), cmocka_unit_test(test_gate_helps_only_who_passes),
		cmocka_unit_test(test_debts_come_one_by_one),
		cmocka_unit_test(test_siblings),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_share_cap),
		cmocka_unit_test(test_lease),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_credit),
		cmocka_unit_test(test_settle),
		cmocka_unit_test(test_no_wait_and_stop),
		cmocka_unit_test(test_kept_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
