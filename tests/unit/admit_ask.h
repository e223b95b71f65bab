/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TESTS_ADMIT_ASK_H
#define PEN_TESTS_ADMIT_ASK_H
/* One question to the admission core, for the tests of its rules: on a clock that stands where a test puts it. */
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

/* One question: tests change what they need and ask. Large parts are static so that a test can hand it on by pointer. */
struct ask {
	struct pen_admit_state st;
	struct pen_admit_limits lim;
	struct pen_admit_view view;
	struct pen_admit_cmd cmd;
	struct pen_admit_decision d;
};

static inline struct ask *fresh(void)
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
static inline struct pen_admit_seat *add_seat(struct ask *a, uint16_t seat, uint16_t rank, enum pen_busy_state state)
{
	struct pen_admit_seat *s = &a->view.seat[a->view.nseats++];
	*s = (struct pen_admit_seat){
		.seat = seat, .tenant = (uint16_t)(seat + 100), .rank = rank, .state = (uint8_t)state,
		.busy_word = PEN_BUSY_NEXT(0, state), .deadline_ns = UINT64_MAX,
	};
	return s;
}

static inline enum pen_admit_kind ask(struct ask *a)
{
	pen_admit_step(&a->st, &a->lim, &a->view, &a->cmd, &a->d);
	if (a->d.kind == PEN_ADMIT_HOLD || a->d.kind == PEN_ADMIT_WAIT_OWN || a->d.kind == PEN_ADMIT_WAIT_SEAT) {
		assert_true(a->d.until_ns > a->view.now_ns);
		assert_true(a->d.until_ns <= a->view.now_ns + PEN_ADMIT_LOOK_NS);
	}
	return a->d.kind;
}

static inline void in_flight(struct ask *a, uint64_t ns, uint64_t since_ns)
{
	a->st.busy = PEN_BUSY_RUN;
	a->st.inflight_ns = ns;
	a->st.oldest_est_ns = ns;
	a->st.last_progress_ns = a->view.now_ns - since_ns;
}

static inline void expect(struct ask *a, enum pen_admit_kind kind, enum pen_hold_reason reason, enum pen_busy_state publish)
{
	assert_int_equal(ask(a), kind);
	assert_int_equal(a->d.publish, publish);
	if (kind != PEN_ADMIT_GO && kind != PEN_ADMIT_CLAIM)
		assert_int_equal(a->d.reason, reason);
}
#define EXPECT_GO(a) expect(a, PEN_ADMIT_GO, 0, PEN_BUSY_RUN)

#endif
