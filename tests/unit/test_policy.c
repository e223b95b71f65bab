/* SPDX-License-Identifier: Apache-2.0 */
/* Policies: ranks, weights, entitlements and stale seats from snapshots. */
#include "board/layout.h"
#include "contract/config.h"
#include "policy/policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define PPM UINT32_C(1000000)
#define NOW UINT64_C(50000000000)

_Static_assert((int)PEN_POLICY_LATENCY == (int)PEN_CLASS_LATENCY && (int)PEN_POLICY_NORMAL == (int)PEN_CLASS_NORMAL &&
		       (int)PEN_POLICY_BESTEFFORT == (int)PEN_CLASS_BESTEFFORT, "classes");
_Static_assert(PEN_POLICY_TENANTS == PEN_TENANT_SLOTS && PEN_POLICY_SEATS == PEN_SEATS, "sizes");
_Static_assert(PEN_BUSY_IDLE == 0 && PEN_BUSY_WANT == 1, "states");

static struct pen_policy_in in;
static struct pen_policy_out out;

static void reset(void)
{
	memset(&in, 0, sizeof(in));
	memset(&out, 0x5a, sizeof(out));
	in.now_ns = NOW;
}

static struct pen_policy_tenant *add(uint8_t cls, uint32_t guaranteed, uint32_t cap, uint32_t weight)
{
	struct pen_policy_tenant *t = &in.tenant[in.ntenants];
	*t = (struct pen_policy_tenant){
		.slot = (uint16_t)(in.ntenants + 7), .cls = cls, .priority = 50, .guaranteed_ppm = guaranteed, .cap_ppm = cap,
		.weight_ppm = weight, .backlogged = true, .rate_cap_bytes_s = PEN_POLICY_NO_RATE,
	};
	in.ntenants++;
	return t;
}

static void run(const char *share)
{
	pen_policy_run(NULL, share ? pen_policy_find(PEN_POLICY_SHARE, share) : NULL, NULL, &in, &out);
}

static void test_table(void **state)
{
	(void)state;
	size_t n = 0;
	for (const struct pen_policy *p; (p = pen_policy_at(n)); n++)
		assert_ptr_equal(pen_policy_find(p->kind, p->name), p);
	/* Of what a configuration may say, each name is a policy, and no other. */
	assert_int_equal(n, (size_t)PEN_ORDER_MAX_ + PEN_SHARE_MAX_ + PEN_RATE_MAX_);
	assert_non_null(pen_policy_find(PEN_POLICY_SHARE, pen_share_name(PEN_SHARE_TURNS)));
	assert_null(pen_policy_find(PEN_POLICY_SHARE, "strict"));
	assert_null(pen_policy_find(PEN_POLICY_ORDER, "no such"));
	reset();
	run(NULL);
	assert_int_equal(out.ntenants, 0);
	in.ntenants = UINT16_MAX;   /* counts beyond the arrays are cut */
	in.nseats = UINT16_MAX;
	run(NULL);
	assert_int_equal(out.ntenants, PEN_POLICY_TENANTS);
}

static void test_strict(void **state)
{
	(void)state;
	reset();
	add(PEN_POLICY_BESTEFFORT, 0, PPM, 1)->priority = 100;
	add(PEN_POLICY_NORMAL, 0, PPM, 1)->priority = 0;
	add(PEN_POLICY_NORMAL, 0, PPM, 1)->priority = 50;
	add(PEN_POLICY_LATENCY, 0, PPM, 1)->priority = 0;
	struct pen_policy_tenant *last = add(PEN_POLICY_NORMAL, 0, PPM, 1);
	last->priority = 50;
	last->target_ns = 20000000;
	run(NULL);
	assert_true(out.tenant[3].rank < out.tenant[2].rank);
	assert_true(out.tenant[2].rank < out.tenant[1].rank);
	assert_true(out.tenant[1].rank < out.tenant[0].rank);
	assert_int_equal(out.tenant[2].rank, out.tenant[4].rank);
	assert_true(out.tenant[3].latency && !out.tenant[2].latency);
	assert_int_equal(out.tenant[4].target_ns, 20000000);
	assert_int_equal(out.tenant[2].chunk_narrow_ns, PEN_POLICY_CHUNK_NARROW_NS);
	uint16_t rank = out.tenant[2].rank;
	in.ntenants = 3;   /* who leaves moves nobody */
	run(NULL);
	assert_int_equal(out.tenant[2].rank, rank);
	assert_int_equal(out.tenant[2].slot, 9);
}

static void near(uint32_t got, double want)
{
	if (got < want * PPM - 60 || got > want * PPM + 60)
		fail_msg("%u, want %.6f", got, want);
}

static void test_fairshare(void **state)
{
	(void)state;
	reset();
	add(PEN_POLICY_NORMAL, 300000, PPM, 300000);
	add(PEN_POLICY_NORMAL, 100000, PPM, 100000);
	run(NULL);
	near(out.tenant[0].entitled_ppm, 0.75);   /* the rest is lent by weight */
	near(out.tenant[1].entitled_ppm, 0.25);
	in.tenant[0].cap_ppm = 500000;
	run(NULL);
	near(out.tenant[0].entitled_ppm, 0.5);
	near(out.tenant[1].entitled_ppm, 0.5);
	in.tenant[1].backlogged = false;
	run(NULL);
	near(out.tenant[0].entitled_ppm, 0.5);
	assert_int_equal(out.tenant[1].entitled_ppm, 0);
	assert_int_equal(out.tenant[1].weight_ppm, 100000);   /* load moves no term */
	assert_int_equal(out.tenant[0].quantum_ns, PEN_POLICY_QUANTUM_NS);
	in.quantum_ns = 123;
	run(NULL);
	assert_int_equal(out.tenant[0].quantum_ns, 123);
}

/* However many borrow, a guarantee's weight is enough for the guarantee. */
static void test_borrowers_break_no_guarantee(void **state)
{
	(void)state;
	reset();
	add(PEN_POLICY_NORMAL, 600000, PPM, 600000);
	for (int i = 0; i < 20; i++)
		add(PEN_POLICY_NORMAL, 0, PPM, 100000);
	run(NULL);
	uint64_t sum = 0;
	for (int i = 0; i <= 20; i++)
		sum += out.tenant[i].weight_ppm;
	assert_true(sum <= PPM);
	assert_int_equal(out.tenant[0].weight_ppm, 600000);
	near(out.tenant[0].entitled_ppm, 0.6);
	near(out.tenant[5].entitled_ppm, 0.02);
	in.tenant[0].guaranteed_ppm = PPM;
	run(NULL);
	assert_int_equal(out.tenant[5].weight_ppm, PEN_POLICY_WEIGHT_LEAST_PPM);
	assert_int_equal(out.tenant[5].floor_ppm, PEN_POLICY_WEIGHT_LEAST_PPM);
}

static void test_ranks_and_floors(void **state)
{
	(void)state;
	reset();
	add(PEN_POLICY_LATENCY, 0, PPM, 100000);
	add(PEN_POLICY_NORMAL, 200000, PPM, 200000);
	add(PEN_POLICY_BESTEFFORT, 0, PPM, 10000);
	run(NULL);
	near(out.tenant[0].entitled_ppm, 0.79);   /* all but the guarantee and the floor below it */
	near(out.tenant[1].entitled_ppm, 0.20);
	near(out.tenant[2].entitled_ppm, 0.01);
	in.tenant[0].cap_ppm = 300000;
	run(NULL);
	near(out.tenant[1].entitled_ppm, 0.69);
	in.tenant[0].backlogged = in.tenant[1].backlogged = false;
	run(NULL);
	near(out.tenant[2].entitled_ppm, 1);
}

static void test_turns(void **state)
{
	(void)state;
	reset();
	add(PEN_POLICY_NORMAL, 300000, PPM, 300000);
	add(PEN_POLICY_NORMAL, 0, PPM, 1000);
	run("turns");
	assert_int_equal(out.tenant[0].weight_ppm, out.tenant[1].weight_ppm);
	assert_int_equal(out.tenant[0].quantum_ns, PEN_POLICY_TURN_NS);
	near(out.tenant[0].entitled_ppm, 0.5);
}

static void test_maxmin(void **state)
{
	(void)state;
	const uint32_t weight[] = {1, 500000, 250000}, least[] = {0, 0, 300000}, most[] = {PPM, 400000, PPM};
	uint32_t x[3];
	pen_policy_maxmin(3, PPM, weight, least, most, x);
	assert_int_equal(x[1], 400000);
	near(x[0] + x[1] + x[2], 1);
	pen_policy_maxmin(3, 100000, weight, least, most, x);   /* less than is due in any case */
	assert_int_equal(x[2], 300000);
	pen_policy_maxmin(3, 5 * UINT64_C(1000000), weight, least, most, x);
	assert_true(x[0] == PPM && x[1] == 400000 && x[2] == PPM);
	pen_policy_maxmin(0, PPM, weight, least, most, x);
}

static void test_stale(void **state)
{
	(void)state;
	static const struct {
		const char *what;
		enum pen_busy_state busy, other;
		uint64_t ago_ns;
		bool same_tenant, stale;
	} rows[] = {
		{"idle", PEN_BUSY_IDLE, PEN_BUSY_IDLE, PEN_POLICY_STALE_NS, false, false},
		{"runs and stands", PEN_BUSY_RUN, PEN_BUSY_RUN, PEN_POLICY_STALE_NS, false, true},
		{"moved just now", PEN_BUSY_RUN, PEN_BUSY_IDLE, PEN_POLICY_STALE_NS - 1, false, false},
		{"claims for ever", PEN_BUSY_CLAIM, PEN_BUSY_WANT, PEN_POLICY_STALE_NS, false, true},
		{"waits while another runs", PEN_BUSY_WANT, PEN_BUSY_RUN, PEN_POLICY_STALE_NS, false, false},
		{"waits for itself", PEN_BUSY_WANT, PEN_BUSY_RUN, PEN_POLICY_STALE_NS, true, true},
		{"wants though nobody runs", PEN_BUSY_WANT, PEN_BUSY_IDLE, PEN_POLICY_STALE_NS, false, true},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		reset();
		in.nseats = 2;
		in.seat[0] = (struct pen_policy_seat){.seat = 70, .slot = 1, .busy = (uint8_t)rows[i].busy, .moved_ns = NOW - rows[i].ago_ns};
		in.seat[1] = (struct pen_policy_seat){.seat = 3, .slot = rows[i].same_tenant ? 1 : 2, .busy = (uint8_t)rows[i].other, .moved_ns = NOW};
		run(NULL);
		if ((out.stale[1] >> 6 & 1) != rows[i].stale)
			fail_msg("%s", rows[i].what);
		assert_int_equal(out.stale[0], 0);
	}
}

/* One has the device for itself: the others hold, and neither rank nor promise nor aging says otherwise. */
static void test_exclusive(void **state)
{
	(void)state;
	for (int who = 0; who < 4; who++) {
		reset();
		add(PEN_POLICY_LATENCY, 0, PPM, 100000)->priority = 100;
		add(PEN_POLICY_NORMAL, 300000, PPM, 300000);
		add(PEN_POLICY_BESTEFFORT, 0, 500000, 10000)->priority = 0;
		run(NULL);
		uint16_t before[3] = { out.tenant[0].rank, out.tenant[1].rank, out.tenant[2].rank };
		assert_false(out.tenant[0].held || out.tenant[1].held || out.tenant[2].exclusive);
		in.tenant[who % 3].exclusive = true;
		if (who == 3)
			in.tenant[2].exclusive = true;   /* two: the first */
		run(NULL);
		for (int i = 0; i < 3; i++) {
			const struct pen_policy_terms *p = &out.tenant[i];
			bool is = i == who % 3;
			assert_int_equal(p->exclusive, is);
			assert_int_equal(p->held, !is);
			assert_int_equal(p->rank, is ? 0 : before[i] + 1);
			assert_true(p->weight_ppm > 0);
			if (!is)
				assert_int_equal(p->guaranteed_ppm + p->floor_ppm + p->entitled_ppm + p->latency, 0);
		}
		assert_int_equal(out.tenant[who % 3].entitled_ppm, who == 2 ? 500000 : PPM);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),     cmocka_unit_test(test_exclusive), cmocka_unit_test(test_strict),
		cmocka_unit_test(test_fairshare), cmocka_unit_test(test_borrowers_break_no_guarantee),
		cmocka_unit_test(test_ranks_and_floors),
		cmocka_unit_test(test_turns),     cmocka_unit_test(test_maxmin),
		cmocka_unit_test(test_stale),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
