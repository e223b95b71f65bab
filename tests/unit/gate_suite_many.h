/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_TESTS_GATE_SUITE_MANY_H
#define PEN_TESTS_GATE_SUITE_MANY_H
/* The part of the gate's suite that needs several processes; included by gate_suite.h. */

/* Words that the processes of a test share. */
struct common {
	_Atomic uint32_t running[2], violations, stage[2];
	_Atomic uint64_t ended, done[2];
};

static struct common *common_new(void)
{
	return mmap(NULL, sizeof(struct common), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static void wait_stage(_Atomic uint32_t *word, uint32_t at_least)
{
	while (atomic_load(word) < at_least)
		usleep(200);
}

static int reap(pid_t pid)
{
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* A child process that fails says so by its exit code; assertions there would only confuse the report. */
static void child_check(bool ok, int code)
{
	if (!ok)
		_exit(code);
}

static void rig_share(struct rig *r, struct common *c, int me)
{
	r->dev->running = &c->running[me];
	r->dev->running_other = &c->running[!me];
	r->dev->violations = &c->violations;
}

/* ---- rank: the best-effort one waits for the urgent one, and is woken by it --------------------------------------- */

#define ROUNDS 12

static void urgent_child(struct fake_board *b, struct common *c)
{
	struct rig r;
	rig_open(&r, b, 0, 0);
	struct fake_cmd k = { .dur_ns = 6 * PEN_MS };
	r.dev->ended = &c->ended;
	for (uint32_t i = 0; i < ROUNDS; i++) {
		wait_stage(&c->stage[1], i);
		child_check(enqueue(r.q, &k, 0) == 0, 10);
		atomic_store(&c->stage[0], i + 1);
		finish_queue(r.q);
	}
	_exit(0);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static void test_rank_wait_and_wake(void **state)
{
	(void)state;
	static const uint16_t rank[] = { 0, 1 };
	struct fake_board *b = fake_board_new(2, rank);
	struct common *c = common_new();
	pid_t pid = fork();
	if (!pid)
		urgent_child(b, c);
	struct rig r;
	rig_open(&r, b, 1, 0);
	struct fake_cmd k = { .dur_ns = 100000 };
	uint64_t late[ROUNDS];
	uint32_t held = 0;
	for (uint32_t i = 0; i < ROUNDS; i++) {
		wait_stage(&c->stage[0], i + 1);   /* the urgent one is in flight */
		uint64_t last_end = atomic_load(&c->ended);
		uint64_t before = atomic_load(&account(&r)->held_ns[PEN_HOLD_RANK]);
		assert_int_equal(enqueue(r.q, &k, 0), 0);
		uint64_t now = pen_mono_ns();
		uint64_t ended = atomic_load(&c->ended);
		if (atomic_load(&account(&r)->held_ns[PEN_HOLD_RANK]) > before) {
			held++;
			assert_true(ended > last_end);   /* not before it was done */
		}
		late[i] = now - ended;
		finish_queue(r.q);
		atomic_store(&c->stage[1], i + 1);
	}
	assert_int_equal(reap(pid), 0);
	assert_true(held > ROUNDS / 2);
	/* A waiter that nobody wakes looks again only at the end of its 20 ms: most of the rounds tell the two apart. */
	qsort(late, ROUNDS, sizeof(late[0]), by_value);
	assert_true(late[ROUNDS / 2] < PEN_ADMIT_LOOK_NS / 2);
	rig_close(&r);
}

/* ---- turns: never two tenants at once ------------------------------------------------------------------------------ */

#define TURNS 150

static void turn_player(struct rig *r, struct common *c, int me)
{
	static struct fake_cmd k[TURNS];
	rig_share(r, c, me);
	atomic_store(&c->stage[me], 1);
	wait_stage(&c->stage[!me], 1);
	for (uint32_t i = 0; i < TURNS; i++) {
		k[i] = (struct fake_cmd){ .dur_ns = i % 3 ? 30000 : 400000 };
		child_check(enqueue(r->q, &k[i], 0) == 0, 11);
		if (i % 10 == 9)
			finish_queue(r->q);
	}
	finish_queue(r->q);
	atomic_store(&c->done[me], r->dev->executed);
}

static void test_turn_exclusivity(void **state)
{
	(void)state;
	static const uint16_t rank[] = { 3, 3 };
	struct fake_board *b = fake_board_new(2, rank);
	struct common *c = common_new();
	struct rig r;
	pid_t pid = fork();
	if (!pid) {
		rig_open(&r, b, 1, 0);
		turn_player(&r, c, 1);
		_exit(0);
	}
	rig_open(&r, b, 0, 0);
	turn_player(&r, c, 0);
	assert_int_equal(reap(pid), 0);
	assert_int_equal(atomic_load(&c->done[0]), TURNS);
	assert_int_equal(atomic_load(&c->done[1]), TURNS);
	assert_int_equal(atomic_load(&c->violations), 0);
	rig_close(&r);
}

/*
 * A turn outlasts the commands in it, also where each ends before the next is admitted (here they take a sixth of what they
 * are thought to): counted in how often each tenant began to run.
 */
#define PIECES 30

static void piece_player(struct rig *r, struct common *c, int me)
{
	static struct fake_cmd k[PIECES];
	atomic_store(&c->stage[me], 1);
	wait_stage(&c->stage[!me], 1);
	for (uint32_t i = 0; i < PIECES; i++) {
		k[i] = (struct fake_cmd){ .dur_ns = PEN_MS };
		struct pen_gate_cmd cmd = { .native = &k[i], .est_ns = 6 * PEN_MS, .slices = 1, .wave = 1 };
		child_check(pen_gate_submit(r->q, &cmd) == 0, 12);
	}
	finish_queue(r->q);
}

static void test_turn_outlasts_pieces(void **state)
{
	(void)state;
	static const uint16_t rank[] = { 3, 3 };
	struct fake_board *b = fake_board_new(2, rank);
	for (uint32_t i = 0; i < 2; i++) {
		b->base[i].quantum_ns = 20 * PEN_MS;
		fake_board_publish(b, i);
	}
	struct common *c = common_new();
	struct rig r;
	pid_t pid = fork();
	if (!pid) {
		rig_open(&r, b, 1, 0);
		piece_player(&r, c, 1);
		_exit(0);
	}
	rig_open(&r, b, 0, 0);
	piece_player(&r, c, 0);
	assert_int_equal(reap(pid), 0);
	for (uint32_t i = 0; i < 2; i++)
		assert_in_range(atomic_load(&fake_board_signal(b, i)->runs), 1, PIECES / 2);
	rig_close(&r);
}

/* Where somebody may enter at the same moment, CLAIM is shown before RUN: counted in the word's changes. */
static void test_claims_before_it_runs(void **state)
{
	(void)state;
	static const uint16_t rank[] = { 3, 3 };
	struct rig r;
	rig_open(&r, fake_board_new(2, rank), 0, 0);
	struct fake_cmd c = { .dur_ns = PEN_MS };
	assert_int_equal(enqueue(r.q, &c, 0), 0);
	finish_queue(r.q);
	settle(&r);
	assert_int_equal(atomic_load(&r.gate->dev->signal->busy) >> 2, 3);   /* CLAIM, RUN, IDLE */
	rig_close(&r);
}

/* Two processes of one tenant, with one cap between them. */
static void test_clients_of_one_tenant(void **state)
{
	(void)state;
	struct fake_board *b = board_alone();
	b->base[0].share_cap_ppm = PEN_PPM / 2;
	b->base[0].seat[51] = (struct pen_seat_terms){ .generation = 1, .tenant = 0, .weight_ppm = PEN_PPM };
	b->base[0].nseats = 52;
	fake_board_publish(b, 0);
	struct rig r;
	static struct fake_cmd k[15];
	for (uint32_t i = 0; i < 15; i++)
		k[i] = (struct fake_cmd){ .dur_ns = PEN_MS };
	uint64_t start = pen_mono_ns();
	pid_t pid = fork();
	rig_open(&r, b, 0, pid ? 0 : 1);
	for (uint32_t i = 0; i < 15; i++)
		child_check(enqueue(r.q, &k[i], 0) == 0, 12);
	finish_queue(r.q);
	if (!pid)
		_exit(0);
	assert_int_equal(reap(pid), 0);
	assert_true(pen_mono_ns() - start >= (30 - 5) * 2 * PEN_MS);
	rig_close(&r);
}

/* A sibling that was killed or stopped in RUN, with no daemon to clear up: the tenant does not pay for the time since. */
static void test_stuck_sibling(void **state)
{
	(void)state;
	struct fake_board *b = board_alone();
	b->base[0].seat[51] = (struct pen_seat_terms){ .generation = 1, .tenant = 0, .weight_ppm = PEN_PPM };
	b->base[0].nseats = 52;
	fake_board_publish(b, 0);
	struct rig r;
	rig_open(&r, b, 0, 0);
	atomic_store(&fake_board_signal(b, 51)->inflight_ns, PEN_MS);
	atomic_store(&fake_board_signal(b, 51)->busy, PEN_BUSY_NEXT(0, PEN_BUSY_RUN));
	atomic_store(&r.gate->dev->ledger->flight_since_ns, 1);   /* since this machine was started */
	struct fake_cmd c = { .dur_ns = PEN_MS };
	assert_int_equal(enqueue(r.q, &c, 0), 0);
	finish_queue(r.q);
	settle(&r);
	assert_in_range(atomic_load(&account(&r)->device_ns), 1, pen_mono_ns() / 2);
	rig_close(&r);
}

/* ---- fork, death ----------------------------------------------------------------------------------------------------- */

static int forked_child(struct rig *r)
{
	if (pen_gate_fast(r->q, 1000))
		return 20;
	struct pen_mem_view v;
	pen_gate_mem_release(r->gate, 4096);                /* the parent's object: not ours to give back */
	pen_gate_mem_view(r->gate, &v);                     /* attaches */
	if (atomic_load(&pen_gate_account(r->gate)->charged_bytes) || r->gate->client != 1 || v.used_bytes != 4096)
		return 21;
	struct rig mine = *r;
	mine.dev = fake_dev_start(SUITE_CAPS, SUITE_MARKS);   /* a driver of its own: the parent's threads are not here */
	r->gate->ad = &mine.dev->adapter;
	r->gate->native = mine.dev;
	mine.fq = fake_queue_new(mine.dev);
	if (pen_gate_queue_create(r->gate, mine.fq, 0, &mine.q) < 0)
		return 22;
	struct fake_cmd c = { .dur_ns = PEN_MS };
	for (int i = 0; i < 6; i++)
		if (enqueue(mine.q, &c, 0))
			return 23;
	finish_queue(mine.q);
	if (pen_gate_mem_reserve(r->gate, 100) < 0 || atomic_load(&pen_gate_account(r->gate)->charged_bytes) != 100)
		return 24;
	pen_gate_mem_release(r->gate, 100);
	pen_gate_queue_destroy(r->q);                       /* the parent's queue: nothing happens */
	return mine.dev->executed == 6 && atomic_load(&pen_gate_account(r->gate)->commands) == 6 ? 0 : 25;
}

static void test_fork(void **state)
{
	(void)state;
	if (!fork_is_real())
		skip();
	struct rig r;
	rig_open(&r, board_alone(), 0, 0);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 4096), 0);
	static struct fake_cmd c[20];
	for (uint32_t i = 0; i < 20; i++) {
		c[i] = (struct fake_cmd){ .dur_ns = 3000 };
		assert_int_equal(enqueue(r.q, &c[i], 0), 0);
	}
	pid_t pid = fork();   /* with credit open and work in flight */
	if (!pid)
		_exit(forked_child(&r));
	int status = reap(pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_int_equal(atomic_load(&account(&r)->charged_bytes), 4096);
	pen_gate_mem_release(r.gate, 4096);
	finish_queue(r.q);
	settle(&r);
	assert_int_equal(atomic_load(&account(&r)->commands), 20);
	rig_close(&r);
}

/*
 * A vfork child shares the parent's memory until it execs: the gate must take it for the parent. Were it taken for a forked
 * child, the gates would be reset under the parent's hands.
 */
static void test_vfork(void **state)
{
	(void)state;
	if (!vfork_is_real())
		skip();
	static struct rig r;
	static struct fake_cmd c[20];
	static int forked;
	rig_open(&r, board_alone(), 0, 0);
	assert_int_equal(pen_gate_mem_reserve(r.gate, 4096), 0);
	for (uint32_t i = 0; i < 20; i++) {
		c[i] = (struct fake_cmd){ .dur_ns = 3000 };
		if (i == 10) {   /* with credit open and work in flight */
			forked = -1;
			pid_t pid = vfork();
			if (!pid) {
				forked = pen_gate_forked_();
				execl("/bin/true", "true", (char *)NULL);
				_exit(127);
			}
			assert_int_equal(reap(pid), 0);
			assert_int_equal(forked, 0);
		}
		assert_int_equal(enqueue(r.q, &c[i], 0), 0);
	}
	finish_queue(r.q);
	assert_int_equal(r.dev->executed, 20);
	assert_int_equal(atomic_load(&account(&r)->commands), 20);
	assert_int_equal(atomic_load(&account(&r)->charged_bytes), 4096);
	pen_gate_mem_release(r.gate, 4096);
	rig_close(&r);
}

/* A neighbour that says RUN for ever: dead, or a liar. Whoever waits on it does so for a bounded time. */
static void test_dead_neighbour(void **state)
{
	(void)state;
	static const uint16_t ranks[][2] = { { 0, 1 }, { 2, 2 } };
	for (int i = 0; i < 2; i++) {
		struct fake_board *b = fake_board_new(2, ranks[i]);
		struct pen_signal_page *dead = fake_board_signal(b, 0);
		atomic_store(&dead->runs, 1);
		atomic_store(&dead->busy, PEN_BUSY_RUN);
		atomic_store(&dead->last_busy_ns, UINT64_MAX);
		atomic_store(&dead->busy_since_ns, UINT64_MAX);
		atomic_store(&dead->service_vns, UINT64_MAX);
		atomic_store(&dead->inflight_ns, UINT64_MAX);
		struct rig r;
		rig_open(&r, b, 1, 0);
		struct fake_cmd c = { .dur_ns = 100000 };
		for (int k = 0; k < 5; k++)
			assert_int_equal(enqueue(r.q, &c, 0), 0);
		finish_queue(r.q);
		assert_true(atomic_load(&account(&r)->tainted) > 0);
		rig_close(&r);
	}
}

/*
 * An urgent one runs beside a neighbour that is never idle: no sample of it is clean, and no charge exact. It is charged about
 * what it used all the same, and not by the first guess of 1 ms for ever.
 */
static void test_never_alone(void **state)
{
	(void)state;
	static const uint16_t rank[] = { 0, 1 };
	struct fake_board *b = fake_board_new(2, rank);
	b->base[0].own_flags |= PEN_SEAT_LATENCY;
	fake_board_publish(b, 0);
	struct pen_signal_page *other = fake_board_signal(b, 1);
	atomic_store(&other->runs, 1);
	atomic_store(&other->busy, PEN_BUSY_RUN);
	struct rig r;
	rig_open(&r, b, 0, 0);
	struct fake_cmd c = { .dur_ns = 8 * PEN_MS };
	for (int i = 0; i < 10; i++) {
		struct pen_gate_cmd cmd = { .native = &c, .cost = pen_gate_cost(r.gate, 7, 1), .slices = 1, .wave = 1 };
		assert_int_equal(pen_gate_submit(r.q, &cmd), 0);
		finish_queue(r.q);
		settle(&r);
	}
	assert_int_equal(atomic_load(&account(&r)->tainted), 10);
	assert_in_range(atomic_load(&account(&r)->device_ns), r.dev->busy_ns / 4, r.dev->busy_ns);
	/* A clean sample is better than all of them. */
	atomic_store(&other->busy, PEN_BUSY_IDLE);
	struct pen_cost *cost = pen_gate_cost(r.gate, 7, 1);
	pen_cost_learn(cost, 20 * PEN_MS);
	assert_int_equal(pen_cost_est_ns(cost), 20 * PEN_MS);
	rig_close(&r);
}

/* New terms in the middle: the fast path notices, the new limit holds. */
static void test_new_terms(void **state)
{
	(void)state;
	static const uint16_t rank[] = { 0, 1 };
	struct fake_board *b = fake_board_new(2, rank);
	struct rig r;
	rig_open(&r, b, 1, 0);
	struct fake_cmd c = { .dur_ns = 1000 };
	assert_int_equal(enqueue(r.q, &c, 0), 0);
	assert_int_equal(atomic_load(&r.gate->hot->nwatch), 1);
	b->base[1].rank = 0;
	b->base[1].seat[1].rank = 0;
	fake_board_publish(b, 1);
	assert_false(pen_gate_fast(r.q, 1));
	assert_int_equal(enqueue(r.q, &c, 0), 0);
	assert_int_equal(atomic_load(&r.gate->hot->nwatch), 0);
	assert_int_equal(pen_gate_terms(r.gate)->rank, 0);
	rig_close(&r);
}

/* Another tenant has the device for itself: the command waits, says why, and goes when the terms or the lease say so. */
struct let_go {
	struct fake_board *b;
	struct rig *r;
	bool lapse;
	uint32_t reason;   /* that was shown meanwhile */
	uint64_t executed;
};

static void *let_go(void *arg)
{
	struct let_go *l = arg;
	while (!(l->reason = atomic_load(&account(l->r)->hold_reason)))
		usleep(100);
	l->executed = l->r->dev->executed;
	if (l->lapse) {
		atomic_store(&l->b->terms[1]->lease_until_ns, 1);
	} else {
		l->b->base[1].flags = 0;
		fake_board_publish(l->b, 1);
	}
	return NULL;
}

static void test_kept_out(void **state)
{
	(void)state;
	static const uint16_t rank[] = { 0, 1 };
	for (int lapse = 0; lapse < 2; lapse++) {
		struct fake_board *b = fake_board_new(2, rank);
		struct rig r;
		rig_open(&r, b, 1, 0);
		struct let_go l = { .b = b, .r = &r, .lapse = lapse };
		struct fake_cmd c = { .dur_ns = 1000 };
		assert_int_equal(enqueue(r.q, &c, 0), 0);
		finish_queue(r.q);
		b->base[1].flags = PEN_TERMS_HOLD;
		fake_board_publish(b, 1);
		assert_false(pen_gate_fast(r.q, 1));
		pthread_t thread;
		assert_int_equal(pthread_create(&thread, NULL, let_go, &l), 0);
		assert_int_equal(enqueue(r.q, &c, 0), 0);
		pthread_join(thread, NULL);
		assert_int_equal(l.reason, PEN_HOLD_EXCLUSIVE + 1);
		assert_int_equal(l.executed, 1);
		assert_true(atomic_load(&account(&r)->held_ns[PEN_HOLD_EXCLUSIVE]) > 0);
		rig_close(&r);
	}
}

#define SUITE_TESTS_MANY \
	cmocka_unit_test(test_rank_wait_and_wake), cmocka_unit_test(test_turn_exclusivity), cmocka_unit_test(test_turn_outlasts_pieces), \
	cmocka_unit_test(test_claims_before_it_runs), cmocka_unit_test(test_clients_of_one_tenant), \
	cmocka_unit_test(test_stuck_sibling), \
	cmocka_unit_test(test_fork), cmocka_unit_test(test_vfork), cmocka_unit_test(test_dead_neighbour), \
	cmocka_unit_test(test_never_alone), cmocka_unit_test(test_new_terms), cmocka_unit_test(test_kept_out)

#endif
