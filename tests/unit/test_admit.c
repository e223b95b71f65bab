/* SPDX-License-Identifier: Apache-2.0 */
/* Every rule of the admission core by itself, on a clock that stands where a test puts it. */
#include "admit/admit.h"
#include "board/layout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)
#define NOW (UINT64_C(50) * 1000 * MS)
#define PPM PEN_ADMIT_PPM

/* The core does not know the board; its numbers must be the board's. */
_Static_assert(PEN_ADMIT_SEATS == PEN_SEATS, "seats");
_Static_assert(PEN_BUSY_IDLE == 0 && PEN_BUSY_WANT == 1 && PEN_BUSY_CLAIM == 2 && PEN_BUSY_RUN == 3, "states");
_Static_assert(PEN_HOLD_WINDOW == 0 && PEN_HOLD_SHARE == 1 && PEN_HOLD_BYTES == 2 && PEN_HOLD_RANK == 3 &&
		       PEN_HOLD_TURN == 4 && PEN_HOLD_STOPPED == 5, "reasons");

/* One question: tests change what they need and ask. Large parts are static so that a test can hand it on by pointer. */
struct ask {
	struct pen_admit_state st;
	struct pen_admit_limits lim;
	struct pen_admit_view view;
	struct pen_admit_cmd cmd;
	struct pen_admit_decision d;
};

static struct ask *fresh(void)
{
	static struct ask a;
	memset(&a, 0, sizeof(a));
	a.lim = (struct pen_admit_limits){
		.rank = 10, .tenant = 1, .cap_ppm = PPM, .floor_ppm = 10000, .weight_ppm = 100000,
		.rate_cap_bytes_s = UINT64_MAX, .window_wide_ns = 2 * MS, .window_narrow_ns = 400 * US,
		.chunk_wide_ns = 2 * MS, .chunk_narrow_ns = 250 * US, .quantum_ns = 4 * MS, .burst_ns = 4 * MS,
		.lease_until_ns = UINT64_MAX,
	};
	a.view = (struct pen_admit_view){.now_ns = NOW, .own_seat = 5, .own_deadline_ns = UINT64_MAX, .guar_tat_ns = NOW};
	a.cmd = (struct pen_admit_cmd){.est_ns = 100 * US, .slices = 1, .wave = 1};
	return &a;
}

/* Another tenant's seat; rank 10 is an equal. */
static struct pen_admit_seat *add_seat(struct ask *a, uint16_t seat, uint16_t rank, enum pen_busy_state state)
{
	struct pen_admit_seat *s = &a->view.seat[a->view.nseats++];
	*s = (struct pen_admit_seat){
		.seat = seat, .tenant = (uint16_t)(seat + 100), .rank = rank, .state = (uint8_t)state,
		.busy_word = PEN_BUSY_NEXT(0, state), .deadline_ns = UINT64_MAX,
	};
	return s;
}

static enum pen_admit_kind ask(struct ask *a)
{
	pen_admit_step(&a->st, &a->lim, &a->view, &a->cmd, &a->d);
	if (a->d.kind == PEN_ADMIT_HOLD || a->d.kind == PEN_ADMIT_WAIT_OWN || a->d.kind == PEN_ADMIT_WAIT_SEAT) {
		assert_true(a->d.until_ns > a->view.now_ns);
		assert_true(a->d.until_ns <= a->view.now_ns + PEN_ADMIT_LOOK_NS);
	}
	return a->d.kind;
}

static void in_flight(struct ask *a, uint64_t ns, uint64_t since_ns)
{
	a->st.busy = PEN_BUSY_RUN;
	a->st.inflight_ns = ns;
	a->st.oldest_est_ns = ns;
	a->st.last_progress_ns = a->view.now_ns - since_ns;
}

static void expect(struct ask *a, enum pen_admit_kind kind, enum pen_hold_reason reason, enum pen_busy_state publish)
{
	assert_int_equal(ask(a), kind);
	assert_int_equal(a->d.publish, publish);
	if (kind != PEN_ADMIT_GO && kind != PEN_ADMIT_CLAIM)
		assert_int_equal(a->d.reason, reason);
}
#define EXPECT_GO(a) expect(a, PEN_ADMIT_GO, 0, PEN_BUSY_RUN)

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
		{"does not", 1 * MS, 1 * MS + 1, 0, QUIET, false, false, PEN_ADMIT_WAIT_OWN, false},
		{"narrow after an urgent one", 200 * US, 201 * US, 0, URGENT_LATELY, false, false, PEN_ADMIT_WAIT_OWN, false},
		{"narrow but fits", 200 * US, 200 * US, 0, URGENT_LATELY, false, false, PEN_ADMIT_GO, false},
		{"narrow while an equal wants", 200 * US, 201 * US, 0, EQUAL_WANTS, false, false, PEN_ADMIT_WAIT_OWN, false},
		{"a lower rank narrows nothing", 1 * MS, 1 * MS, 0, LOWER_WANTS, false, false, PEN_ADMIT_GO, false},
		{"no progress for 10 ms: debt", 2 * MS, 1 * MS, 10 * MS, QUIET, false, false, PEN_ADMIT_GO, true},
		{"a long one gets twice its estimate", 20 * MS, 1 * MS, 39 * MS, QUIET, false, false, PEN_ADMIT_WAIT_OWN, false},
		{"and no more", 20 * MS, 1 * MS, 40 * MS, QUIET, false, false, PEN_ADMIT_GO, true},
		{"unknown waits for all", 1, 1 * US, 0, QUIET, true, false, PEN_ADMIT_WAIT_OWN, false},
		{"unknown, empty", 0, 1 * US, 0, QUIET, true, false, PEN_ADMIT_GO, false},
		{"unknown, unhurried", 1, 1 * US, 0, QUIET, true, true, PEN_ADMIT_GO, false},
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
	expect(a, PEN_ADMIT_WAIT_OWN, PEN_HOLD_WINDOW, PEN_BUSY_RUN);
	a->st.inflight_ns = 0;
	EXPECT_GO(a);
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
	assert_int_equal(pen_admit_join_vns(&a->lim, &a->view), 200);
	liar->service_vns = 1;
	liar->stale = true;
	assert_int_equal(pen_admit_join_vns(&a->lim, &a->view), 200);
	a->view.own_service_vns = 301;
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
		cmocka_unit_test(test_window),     cmocka_unit_test(test_hot_ends),
		cmocka_unit_test(test_unknown_has_nothing_behind_it),
		cmocka_unit_test(test_debts_come_one_by_one),
		cmocka_unit_test(test_siblings),   cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_share_cap),  cmocka_unit_test(test_lease),
		cmocka_unit_test(test_bytes),      cmocka_unit_test(test_credit),
		cmocka_unit_test(test_settle),     cmocka_unit_test(test_no_wait_and_stop),
		cmocka_unit_test(test_rank),       cmocka_unit_test(test_repay),
		cmocka_unit_test(test_guarantee_forgets),
		cmocka_unit_test(test_corun),      cmocka_unit_test(test_enter),
		cmocka_unit_test(test_polite),     cmocka_unit_test(test_turn_end),
		cmocka_unit_test(test_deadlines),  cmocka_unit_test(test_stale),
		cmocka_unit_test(test_force),      cmocka_unit_test(test_join),
		cmocka_unit_test(test_wake),       cmocka_unit_test(test_key),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
