/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TESTS_GATE_SUITE_DEVGATE_H
#define PEN_TESTS_GATE_SUITE_DEVGATE_H
/*
 * The part of the gate's suite about the device-side gate, and what is submitted in front of one; included by gate_suite.h. The commands wait for the test, so that nothing
 * depends on how fast the machine is.
 */

#define DEEP 10

struct deep {
	struct rig r;
	struct fake_board *b;
	_Atomic uint32_t go;
	int n;                       /* submitted */
	struct fake_cmd c[DEEP];
};

static int deep_submit(struct deep *d, int i)
{
	d->c[i] = (struct fake_cmd){ .dur_ns = 300000, .until = &d->go };
	struct pen_gate_cmd cmd = { .native = &d->c[i], .est_ns = 300000, .slices = 1, .wave = 1 };
	return pen_gate_submit(d->r.q, &cmd);
}

/* What the urgent tenant on seat 0 says. */
static void urgent_says(struct fake_board *b, enum pen_busy_state state)
{
	struct pen_signal_page *p = fake_board_signal(b, 0);
	atomic_store(&p->last_busy_ns, pen_mono_ns());
	atomic_store(&p->busy, PEN_BUSY_NEXT(atomic_load(&p->busy), state));
}

/* More in flight than the narrow window holds, with somebody urgent about. */
static void deep_open_n(struct deep *d, uint32_t guaranteed_ppm, int n)
{
	static const uint16_t rank[] = { 0, 1 };
	memset(d, 0, sizeof(*d));
	d->b = fake_board_new(2, rank);
	d->b->base[1].share_guaranteed_ppm = guaranteed_ppm;
	d->b->base[1].seat[0].flags = PEN_SEAT_LATENCY;
	fake_board_publish(d->b, 1);
	urgent_says(d->b, PEN_BUSY_IDLE);
	rig_open(&d->r, d->b, 1, 0);
	fake_gate_have(d->r.dev);
	for (d->n = 0; d->n < n; d->n++)
		assert_int_equal(deep_submit(d, d->n), 0);
	assert_int_equal(atomic_load(&d->r.dev->gated), n);
	assert_int_equal(atomic_load(&account(&d->r)->held_ns[PEN_HOLD_WINDOW]), 0);
}

static void deep_open(struct deep *d, uint32_t guaranteed_ppm)
{
	deep_open_n(d, guaranteed_ppm, DEEP);
}

static void deep_close(struct deep *d)
{
	finish_queue(d->r.q);
	assert_int_equal(d->r.dev->executed, d->n);
	settle(&d->r);
	pen_gate_watch(d->r.gate);
	assert_null(pen_gate_bell(d->r.gate));
	assert_int_equal(atomic_load(&fake_board_signal(d->b, 1)->watching), 0);
	rig_close(&d->r);
}

static _Atomic uint32_t polls;
static int (*real_poll)(struct pen_mark *);

static int counting_poll(struct pen_mark *m)
{
	atomic_fetch_add(&polls, 1);
	return real_poll(m);
}

/*
 * A call of the driver's that the application makes may wait, with a lock, for what stands at the gate: whoever opens it stays out of
 * the driver while it is shut.
 */
static void watch_while_shut(struct deep *d)
{
	real_poll = d->r.dev->adapter.mark_poll;
	d->r.dev->adapter.mark_poll = counting_poll;
	atomic_store(&polls, 0);
	for (int i = 0; i < 5; i++)
		pen_gate_watch(d->r.gate);
	d->r.dev->adapter.mark_poll = real_poll;
	assert_int_equal(atomic_load(&polls), 0);
}

static void test_devgate_shuts_and_opens(void **state)
{
	(void)state;
	if (SUITE_MARKS < DEEP)   /* a batch without a mark has no gate */
		return;
	static struct deep d;
	deep_open(&d, 0);
	assert_non_null(pen_gate_bell(d.r.gate));
	assert_int_equal(atomic_load(pen_gate_bell(d.r.gate)), 1);
	urgent_says(d.b, PEN_BUSY_RUN);
	pen_gate_watch(d.r.gate);
	atomic_store(&d.go, 1);
	usleep(20000);   /* it could run if the gate let it */
	assert_int_equal(d.r.dev->executed, 0);
	watch_while_shut(&d);
	urgent_says(d.b, PEN_BUSY_IDLE);
	pen_gate_watch(d.r.gate);
	deep_close(&d);
}

/* Who outranks us and is of another class waits until what is in flight has ended: it must not stand. */
static void test_devgate_not_for_who_waits(void **state)
{
	(void)state;
	if (SUITE_MARKS < DEEP)
		return;
	static struct deep d;
	deep_open(&d, 0);
	d.b->base[1].seat[0].flags = 0;
	fake_board_publish(d.b, 1);
	urgent_says(d.b, PEN_BUSY_WANT);
	pen_gate_watch(d.r.gate);
	atomic_store(&d.go, 1);
	for (int i = 0; i < 5000 && d.r.dev->executed < DEEP; i++) {
		atomic_fetch_add(&fake_board_signal(d.b, 0)->progress, 1);   /* never passed over */
		usleep(500);
		pen_gate_watch(d.r.gate);
	}
	assert_int_equal(d.r.dev->executed, DEEP);
	urgent_says(d.b, PEN_BUSY_IDLE);
	deep_close(&d);
}

/* Held by a rank the thread that submits shuts it itself. */
static void *submit_one(void *p)
{
	struct deep *d = p;
	static struct fake_cmd more;
	more = (struct fake_cmd){ .dur_ns = 1000 };
	struct pen_gate_cmd cmd = { .native = &more, .est_ns = 1000, .slices = 1, .wave = 1 };
	pen_gate_submit(d->r.q, &cmd);
	return NULL;
}

static void test_devgate_shut_by_a_hold(void **state)
{
	(void)state;
	if (SUITE_MARKS < DEEP)   /* a batch without a mark has no gate */
		return;
	static struct deep d;
	pthread_t t;
	deep_open(&d, 0);
	urgent_says(d.b, PEN_BUSY_RUN);
	uint32_t moves = atomic_load(&d.r.dev->gate_moves);
	pthread_create(&t, NULL, submit_one, &d);
	for (int i = 0; i < 5000 && atomic_load(&d.r.dev->gate_moves) == moves; i++)
		usleep(1000);
	atomic_store(&d.go, 1);
	usleep(5000);
	assert_int_equal(d.r.dev->executed, 0);
	urgent_says(d.b, PEN_BUSY_IDLE);
	pen_gate_watch(d.r.gate);
	pthread_join(t, NULL);
	finish_queue(d.r.q);
	assert_int_equal(d.r.dev->executed, DEEP + 1);
	rig_close(&d.r);
}

/* Somebody who is busy for ever and does not move keeps nobody out for ever. */
static void test_devgate_stuck_neighbour(void **state)
{
	(void)state;
	if (SUITE_MARKS < DEEP)   /* a batch without a mark has no gate */
		return;
	static struct deep d;
	deep_open(&d, 0);
	urgent_says(d.b, PEN_BUSY_RUN);
	pen_gate_watch(d.r.gate);
	atomic_store(&d.go, 1);
	uint64_t began = pen_mono_ns();
	for (int i = 0; i < 5000 && d.r.dev->executed < DEEP; i++) {
		usleep(1000);
		pen_gate_watch(d.r.gate);
	}
	assert_true(pen_mono_ns() - began >= PEN_ADMIT_STALE_NS / 2);
	deep_close(&d);
}

/* The urgent one is busy and moves; @d has a guarantee, and runs one after the other behind the gate all the same. */
static void run_on_guarantee(struct deep *d)
{
	urgent_says(d->b, PEN_BUSY_RUN);
	pen_gate_watch(d->r.gate);
	atomic_store(&d->go, 1);
	for (int i = 0; i < 5000 && d->r.dev->executed < (uint64_t)d->n; i++) {
		atomic_fetch_add(&fake_board_signal(d->b, 0)->progress, 1);
		usleep(500);
		pen_gate_watch(d->r.gate);
	}
	assert_int_equal(d->r.dev->executed, d->n);
}

static void test_devgate_guarantee(void **state)
{
	(void)state;
	if (SUITE_MARKS < DEEP)   /* a batch without a mark has no gate */
		return;
	static struct deep d;
	deep_open(&d, PEN_PPM / 2);
	run_on_guarantee(&d);
	assert_true(atomic_load(&d.r.dev->gate_moves) >= DEEP);
	deep_close(&d);
}

/* A thread that was admitted first and comes to the device last. */
static struct {
	void *native;
	int (*submit)(struct pen_gate_queue *q, void *native, const struct pen_piece *piece, struct pen_mark *mark);
	_Atomic uint32_t inside, let_go;
} late;

static int submit_late(struct pen_gate_queue *q, void *native, const struct pen_piece *piece, struct pen_mark *mark)
{
	if (native == late.native) {
		atomic_store(&late.inside, 1);
		while (!atomic_load(&late.let_go))
			usleep(200);
	}
	return late.submit(q, native, piece, mark);
}

static void *be_late(void *p)
{
	struct deep *d = p;
	assert_int_equal(deep_submit(d, 1), 0);
	return NULL;
}

/* Two threads give work to one queue: @overtake commands pass one whose thread is on its way to the device. */
static void overtaken(struct deep *d, int overtake)
{
	pthread_t t;
	deep_open_n(d, PEN_PPM / 2, 1);
	late.native = &d->c[1];
	late.submit = d->r.dev->adapter.submit;
	atomic_store(&late.inside, 0);
	atomic_store(&late.let_go, 0);
	d->r.dev->adapter.submit = submit_late;
	pthread_create(&t, NULL, be_late, d);
	while (!atomic_load(&late.inside))
		usleep(200);
	d->n = 2;
	for (int i = 0; i < overtake; i++)
		assert_int_equal(deep_submit(d, d->n++), 0);
	atomic_store(&late.let_go, 1);
	pthread_join(t, NULL);
	d->r.dev->adapter.submit = late.submit;
}

static void test_devgate_overtaken(void **state)
{
	(void)state;
	if (SUITE_MARKS < DEEP)
		return;
	static struct deep d;
	overtaken(&d, 1);
	/* Nobody knows which of them stands in front: they pass together. */
	struct pen_gate_batch *first = pen_gate_full(d.r.q)->first->next;
	assert_int_equal(first->gate_number, first->next->gate_number);
	assert_int_not_equal(first->gate_number, pen_gate_full(d.r.q)->first->gate_number);
	run_on_guarantee(&d);
	deep_close(&d);
}

/* So many that they do not pass together: what stands in front of the one that may pass is let through in time. */
static void test_devgate_overtaken_often(void **state)
{
	(void)state;
	if (SUITE_MARKS < DEEP)
		return;
	static struct deep d;
	overtaken(&d, DEEP - 2);
	run_on_guarantee(&d);
	deep_close(&d);
}

struct sleeper {
	const _Atomic uint32_t *word;
	_Atomic uint32_t woken;
};

static void *sleep_on_bell(void *p)
{
	struct sleeper *s = p;
	if (pen_futex_wait(s->word, 1, 10 * PEN_S) == 0)
		atomic_store(&s->woken, 1);
	return NULL;
}

/* The one who becomes busy rings. */
static void test_devgate_bell(void **state)
{
	(void)state;
	if (SUITE_MARKS < DEEP)   /* a batch without a mark has no gate */
		return;
	static struct deep d;
	deep_open(&d, 0);
	struct rig u;
	rig_open(&u, d.b, 0, 0);
	struct sleeper s = { .word = pen_gate_bell(d.r.gate) };
	pthread_t t;
	pthread_create(&t, NULL, sleep_on_bell, &s);
	struct fake_cmd one = { .dur_ns = 1000 };
	for (int i = 0; i < 5000 && !atomic_load(&s.woken); i++) {
		assert_int_equal(enqueue(u.q, &one, 0), 0);
		finish_queue(u.q);
		pen_gate_poll(u.q);
		usleep(1000);
	}
	pthread_join(t, NULL);
	assert_int_equal(atomic_load(&s.woken), 1);
	rig_close(&u);
	atomic_store(&d.go, 1);
	pen_gate_watch(d.r.gate);
	deep_close(&d);
}

/* A command of many pieces takes eight times what was guessed: those that come after the first ones are cut to what these told. */
static void test_pieces_follow_what_is_learned(void **state)
{
	(void)state;
	static const uint16_t rank[] = { 0, 1 };
	static struct fake_cmd c = { .dur_ns = 64 * PEN_MS, .slices = 64 };
	if (!(SUITE_CAPS & PEN_ADAPTER_TIMESTAMPS))
		return;
	struct fake_board *b = fake_board_new(2, rank);
	b->base[1].chunk_wide_ns = b->base[1].chunk_narrow_ns = PEN_MS;
	b->base[1].window_narrow_ns = PEN_MS;
	fake_board_publish(b, 1);
	urgent_says(b, PEN_BUSY_IDLE);
	struct rig r;
	rig_open(&r, b, 1, 0);
	struct pen_gate_cmd cmd = { .native = &c, .slices = 64, .wave = 1, .cost = pen_gate_cost_guessed(r.gate, 4711, 1, 8 * PEN_MS) };
	assert_int_equal(pen_gate_submit(r.q, &cmd), 0);
	assert_in_range(atomic_load(&account(&r)->chunks), 12, 64);   /* by the guess it would be 8 */
	rig_close(&r);
}

#define SUITE_TESTS_DEVGATE \
	cmocka_unit_test(test_pieces_follow_what_is_learned), \
	cmocka_unit_test(test_devgate_shuts_and_opens), cmocka_unit_test(test_devgate_not_for_who_waits), cmocka_unit_test(test_devgate_shut_by_a_hold), \
	cmocka_unit_test(test_devgate_stuck_neighbour), cmocka_unit_test(test_devgate_guarantee), cmocka_unit_test(test_devgate_overtaken), \
	cmocka_unit_test(test_devgate_overtaken_often), cmocka_unit_test(test_devgate_bell)

#endif
