/* SPDX-License-Identifier: Apache-2.0 */
/* The timing model of an accelerator, on the virtual clock: what each rule of docs/SIMGPU.md says, in numbers. */
#include "base/clock.h"
#include "model/model.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LOG 4096

/* Ten units, round numbers, and nothing that takes time but work. */
static const struct pen_card plain = {
	.name = "plain", .units = 10, .threads_per_unit = 1024, .blocks_per_unit = 16, .dram_bytes_per_s = 100000000000,
	.dram_efficiency_ppm = 1000000, .pcie_bytes_per_s = 10000000000, .pageable_bytes_per_s = 5000000000,
	.host_bytes_per_s = 10000000000, .copy_engines = 2, .slice_ns = PEN_MS,
};

struct seen {
	char channel;
	uint64_t seq, start, end;
};

static struct {
	struct pen_model *m;
	struct seen log[LOG];
	unsigned n;
	char hold;                 /* the channel whose ends are held */
	unsigned held;
} w;

static void on_start(void *user, const struct pen_model_event *e)
{
	(void)user;
	assert_true(e->start_ns == e->now_ns && e->start_ns >= e->ready_ns);
}

static bool on_end(void *user, const struct pen_model_event *e)
{
	(void)user;
	char name = *(char *)e->user;
	if (name == w.hold) {
		w.held++;
		return false;
	}
	if (w.n < LOG)
		w.log[w.n] = (struct seen){ name, e->seq, e->start_ns, e->now_ns };
	w.n++;
	return true;
}

static void begin(const struct pen_card *card, bool concurrent)
{
	memset(&w, 0, sizeof(w));
	assert_int_equal(pen_model_create(card, concurrent, 0, &(struct pen_model_hooks){ NULL, on_start, on_end }, &w.m), 0);
}

static void finish(void)
{
	pen_model_destroy(w.m);
	w.m = NULL;
}

static struct pen_model_context *context(void)
{
	struct pen_model_context *c;
	assert_int_equal(pen_model_context_add(w.m, &c), 0);
	return c;
}

static struct pen_model_channel *channel(struct pen_model_context *c, const char *name, int priority, uint32_t units)
{
	struct pen_model_channel *ch;
	assert_int_equal(pen_model_channel_add(c, priority, units, (void *)name, &ch), 0);
	return ch;
}

static uint64_t submit(struct pen_model_channel *ch, struct pen_model_cmd cmd)
{
	uint64_t seq;
	assert_int_equal(pen_model_submit(ch, &cmd, pen_model_now(w.m), &seq), 0);
	return seq;
}

static struct pen_model_cmd kernel(uint64_t blocks, uint32_t threads, uint64_t block_ns)
{
	return (struct pen_model_cmd){ .kind = PEN_MODEL_KERNEL, .kernel = { .blocks = blocks, .threads = threads, .block_ns = block_ns } };
}

static struct pen_model_cmd copy(enum pen_model_dir dir, uint64_t bytes)
{
	return (struct pen_model_cmd){ .kind = PEN_MODEL_COPY, .copy = { .dir = dir, .bytes = bytes } };
}

static void run(uint64_t until)
{
	pen_model_run(w.m, until);
}

static const struct seen *ended(char channel_name, uint64_t seq)
{
	for (unsigned i = 0; i < w.n && i < LOG; i++)
		if (w.log[i].channel == channel_name && w.log[i].seq == seq)
			return &w.log[i];
	fail_msg("command %llu of %c has not ended", (unsigned long long)seq, channel_name);
	return NULL;
}

/* Within what the model rounds to: a ns for each event on the way. */
static void assert_at(uint64_t is, double want)
{
	if (fabs((double)is - want) > 3 + want * 1e-6)
		fail_msg("%llu, want %.0f", (unsigned long long)is, want);
}

static void assert_near(double is, double want, double part)
{
	if (fabs(is - want) > want * part)
		fail_msg("%g, want %g", is, want);
}

/* ---- kernels ---- */

static void test_waves(void **state)
{
	(void)state;
	begin(&plain, false);
	struct pen_model_channel *a = channel(context(), "a", 0, 0);
	submit(a, kernel(81, 1024, 1000));   /* one a unit, 10 at once: 9 waves */
	submit(a, kernel(80, 256, 1000));    /* four a unit: 2 */
	struct pen_model_cmd k = kernel(81, 32, 1000);
	k.kernel.blocks_per_unit = 2;        /* registers say so: 5 */
	submit(a, k);
	submit(a, kernel(161, 32, 1000));    /* 16 a unit by the card, not 32 by threads: 2 */
	submit(a, kernel(0, 32, 1000));      /* an empty grid takes no time */
	run(PEN_S);
	assert_at(ended('a', 1)->end, 9000);
	assert_at(ended('a', 2)->end, 11000);
	assert_at(ended('a', 3)->end, 16000);
	assert_at(ended('a', 4)->end, 18000);
	assert_at(ended('a', 5)->end, 18000);
	assert_int_equal(w.n, 5);
	struct pen_model_truth t;
	pen_model_truth(w.m, &t);
	assert_at(t.busy_ns, 18000);
	/* Each block took its part of a unit, for its time. */
	assert_near(t.unit_ns, 81 * 1000 + 80 * 250 + 81 * 500 + 161 * 62.5, 1e-6);
	assert_int_equal(t.kernels, 4);
	finish();
}

static void test_long_grid_is_cheap(void **state)
{
	(void)state;
	begin(&plain, false);
	struct pen_model_channel *a = channel(context(), "a", 0, 0);
	submit(a, kernel(10000000, 1024, 1000));
	unsigned events = 0;
	while (pen_model_next(w.m) != PEN_NEVER) {
		run(pen_model_next(w.m));
		events++;
	}
	assert_at(ended('a', 1)->end, 1e9);
	assert_true(events < 10);
	/* The same when it is looked at often. */
	submit(a, kernel(10000, 1024, 1000));
	for (uint64_t t = pen_model_now(w.m); w.n < 2; t += 777)
		run(t);
	assert_at(ended('a', 2)->end, 1e9 + 1e6);
	finish();
}

static void test_latency_and_gap(void **state)
{
	(void)state;
	struct pen_card card = plain;
	card.launch_ns = 4000;
	card.gap_ns = 1000;
	begin(&card, false);
	struct pen_model_channel *a = channel(context(), "a", 0, 0);
	for (int i = 0; i < 3; i++)
		submit(a, kernel(1, 32, 10000));
	submit(a, (struct pen_model_cmd){ .kind = PEN_MODEL_NOP });
	run(20000);
	submit(a, kernel(1, 32, 10000));      /* lies there before the others are through: a gap, no latency */
	run(PEN_S);
	assert_at(ended('a', 1)->end, 14000);
	assert_at(ended('a', 2)->end, 25000);
	assert_at(ended('a', 3)->end, 36000);
	assert_at(ended('a', 4)->end, 36000); /* a mark takes no time */
	assert_at(ended('a', 5)->end, 47000);
	/* Submitted in the past, as one whose news came late: it starts when it would have, if that is still to come. */
	uint64_t seq;
	struct pen_model_cmd k = kernel(1, 32, 10000);
	assert_int_equal(pen_model_submit(a, &k, PEN_S - 3000, &seq), 0);
	run(2 * PEN_S);
	assert_at(ended('a', seq)->start, 1e9 + 1000);
	finish();
}

static void test_leftover(void **state)
{
	(void)state;
	begin(&plain, false);
	struct pen_model_context *c = context();
	struct pen_model_channel *a = channel(c, "a", 0, 0), *b = channel(c, "b", 0, 0), *d = channel(c, "d", 0, 0);
	submit(a, kernel(15, 1024, 1000));
	submit(b, kernel(10, 1024, 1000));    /* five start beside a's last five, the others when units are free again */
	submit(d, kernel(1, 1024, 100));      /* comes last, waits for b to be dealt */
	run(PEN_S);
	assert_at(ended('a', 1)->end, 2000);
	assert_at(ended('b', 1)->start, 1000);
	assert_at(ended('b', 1)->end, 3000);
	assert_at(ended('d', 1)->start, 2000);
	assert_at(ended('d', 1)->end, 2100);
	finish();
}

static void test_priority(void **state)
{
	(void)state;
	begin(&plain, false);
	struct pen_model_context *c = context();
	struct pen_model_channel *low = channel(c, "l", 0, 0), *high = channel(c, "h", -5, 0);
	submit(low, kernel(1000, 1024, 1000));
	run(2500);
	submit(high, kernel(10, 1024, 200));
	run(PEN_S);
	/* Running blocks are not taken off; the next wave is dealt to the urgent one first. */
	assert_at(ended('h', 1)->start, 3000);
	assert_at(ended('h', 1)->end, 3200);
	assert_at(ended('l', 1)->end, 100200);

	/* Of a kernel: added to its channel's. Without one, the order of arrival. */
	struct pen_model_cmd urgent = kernel(10, 1024, 1000);
	urgent.kernel.priority = -5;
	struct pen_model_channel *x = channel(c, "x", 0, 0), *y = channel(c, "y", 0, 0);
	uint64_t from = pen_model_now(w.m);
	submit(low, kernel(20, 1024, 1000));
	submit(x, kernel(10, 1024, 1000));
	submit(y, urgent);
	run(from + PEN_S);
	assert_at(ended('y', 1)->start - from, 1000);
	assert_at(ended('l', 2)->end - from, 3000);
	assert_at(ended('x', 1)->start - from, 3000);
	finish();
}

static void test_unit_caps(void **state)
{
	(void)state;
	begin(&plain, false);
	struct pen_model_context *c = context();
	struct pen_model_channel *two = channel(c, "2", 0, 2), *all = channel(c, "a", 0, 0);
	submit(two, kernel(20, 1024, 1000));     /* ten waves of two */
	submit(all, kernel(16, 1024, 1000));     /* two waves of eight beside it: the cap does not hold others back */
	run(PEN_S);
	assert_at(ended('2', 1)->end, 10000);
	assert_at(ended('a', 1)->start, 0);
	assert_at(ended('a', 1)->end, 2000);
	struct pen_model_truth t;
	pen_model_context_truth(c, &t);
	assert_near(t.unit_ns, 36000, 1e-6);
	finish();
}

/* Blocks that are dealt at many different moments: the sum of the work stays what it is. */
static void test_many_cohorts(void **state)
{
	(void)state;
	begin(&plain, false);
	struct pen_model_context *c = context();
	struct pen_model_channel *small[8], *big = channel(c, "b", 1, 0);
	for (unsigned i = 0; i < 8; i++)
		small[i] = channel(c, "s", 0, 0);
	submit(big, kernel(5000, 64, 10000));
	for (unsigned i = 0; i < 2000; i++) {
		submit(small[i % 8], kernel(1 + i % 7, 64, 300 + i % 11 * 100));
		run(pen_model_now(w.m) + 137);
	}
	run(PEN_S);
	struct pen_model_truth t;
	pen_model_truth(w.m, &t);
	assert_int_equal(t.kernels, 2001);
	double work = 5000 * 10000.0;
	for (unsigned i = 0; i < 2000; i++)
		work += (1 + i % 7) * (300.0 + i % 11 * 100);
	/* Cohorts that are nearly together are joined, which keeps their mean. */
	assert_near(t.unit_ns, work / 16, 1e-3);
	finish();
}

/* ---- turns ---- */

static void test_time_slices(void **state)
{
	(void)state;
	struct pen_card card = plain;
	card.yield_ns = 10000;
	card.save_ns = 40000;
	begin(&card, false);
	struct pen_model_context *c1 = context(), *c2 = context();
	struct pen_model_channel *a = channel(c1, "a", 0, 0), *b = channel(c2, "b", 0, 0);
	submit(a, kernel(10, 1024, 3 * PEN_MS));   /* longer than a slice: is taken off and comes back */
	run(300000);
	submit(b, kernel(10, 1024, 1500000));
	run(PEN_S);
	/*
	 * a's turn ends a slice after it began; all its units are saved. b comes with nothing to restore. Then each is saved and the
	 * other restored, until b is through and a comes back with its last.
	 */
	double t = 1e6 + 10000 + 40000;            /* b's first slice */
	assert_at(ended('b', 1)->start, t);
	t += 1e6 + 10000 + 80000;                  /* a's second */
	t += 1e6 + 10000 + 80000;                  /* b's second */
	t += 500000;
	assert_at(ended('b', 1)->end, t);
	t += 10000 + 40000 + 1e6;
	assert_at(ended('a', 1)->end, t);
	struct pen_model_truth ta, tb, all;
	pen_model_context_truth(c1, &ta);
	pen_model_context_truth(c2, &tb);
	pen_model_truth(w.m, &all);
	assert_at(ta.busy_ns, 3e6);
	assert_at(tb.busy_ns, 1.5e6);
	assert_at(ta.residence_ns, t);             /* START..END is residence, not use */
	assert_at(all.busy_ns, 4.5e6);
	assert_at(all.switch_ns, 50000 + 90000 + 90000 + 50000);
	assert_int_equal(ta.switches, 3);
	assert_near(ta.unit_ns, 3e7, 1e-6);
	finish();
}

static void test_equal_turns(void **state)
{
	(void)state;
	begin(&plain, false);
	struct pen_model_context *c[3];
	for (unsigned i = 0; i < 3; i++) {
		c[i] = context();
		/* The second has many channels, and no more turns for that. */
		for (unsigned j = 0; j < (i == 1 ? 5u : 1u); j++) {
			struct pen_model_channel *ch = channel(c[i], "x", 0, 0);
			for (unsigned k = 0; k < 500; k++)
				submit(ch, kernel(10, 1024, 300000));
		}
	}
	run(300 * PEN_MS);
	for (unsigned i = 0; i < 3; i++) {
		struct pen_model_truth t;
		pen_model_context_truth(c[i], &t);
		assert_near((double)t.busy_ns, 100e6, 0.015);
	}
	finish();
}

static void test_turn_is_given_away(void **state)
{
	(void)state;
	begin(&plain, false);
	struct pen_model_channel *a = channel(context(), "a", 0, 0), *b = channel(context(), "b", 0, 0);
	submit(a, kernel(10, 1024, 100000));
	submit(b, kernel(10, 1024, 100000));
	submit(b, copy(PEN_MODEL_H2D, 1000000));
	submit(b, kernel(10, 1024, 100000));
	run(PEN_S);
	/* Neither waits for the end of a slice that nobody uses; copies need no turn at all. */
	assert_at(ended('b', 1)->end, 200000);
	assert_at(ended('b', 3)->end, 400000);
	finish();
}

/* A context whose next kernel lies there already keeps its turn in the gap between two kernels. */
static void test_gap_keeps_turn(void **state)
{
	(void)state;
	struct pen_card card = plain;
	card.gap_ns = 1000;
	begin(&card, false);
	struct pen_model_channel *a = channel(context(), "a", 0, 0), *b = channel(context(), "b", 0, 0);
	for (unsigned i = 0; i < 20; i++)
		submit(a, kernel(10, 1024, 20000));
	submit(b, kernel(10, 1024, 20000));
	run(PEN_S);
	assert_at(ended('a', 20)->end, 20 * 20000 + 19 * 1000);
	assert_true(ended('b', 1)->start >= ended('a', 20)->end);
	finish();
}

static void test_concurrent(void **state)
{
	(void)state;
	begin(&plain, true);
	struct pen_model_channel *a = channel(context(), "a", 0, 0), *b = channel(context(), "b", 0, 0);
	submit(a, kernel(5, 1024, 100000));
	submit(b, kernel(5, 1024, 100000));
	submit(a, kernel(1000, 1024, 100000));   /* holds all units */
	run(150000);
	submit(b, kernel(10, 1024, 100000));
	run(PEN_S);
	assert_at(ended('a', 1)->end, 100000);
	assert_at(ended('b', 1)->end, 100000);
	assert_true(ended('b', 2)->start >= 100000 * 100);   /* behind all of a's blocks: no slices, no mercy */
	finish();
}

/*
 * The published set-up (Tally's artefact, A100: BERT inference of 4.10 ms beside a training that saturates the GPU, default time
 * slices): P99 is 11.2 ms, 2.7 times that alone; over twelve pairs 2.4 on average. A request is some two hundred kernels of about
 * 20 us, submitted at once, at any point of the neighbour's slice; the neighbour's are longer and never stop. Slices as the card
 * files have them.
 */
static void test_published_slowdown(void **state)
{
	(void)state;
	struct pen_card card = plain;
	card.units = 108;
	card.threads_per_unit = 2048;
	card.blocks_per_unit = 32;
	card.launch_ns = 4360;
	card.gap_ns = 1000;
	card.slice_ns = 2 * PEN_MS;
	card.save_ns = 32000;
	card.yield_ns = 5000;
	enum { REQUESTS = 300, KERNELS = 200 };
	double alone = 0, worst = 0, sum = 0;

	for (unsigned beside = 0; beside < 2; beside++) {
		begin(&card, false);
		struct pen_model_channel *hp = channel(context(), "h", 0, 0), *be = channel(context(), "b", 0, 0);
		if (beside)
			for (unsigned i = 0; i < 60000; i++)
				submit(be, kernel(432, 512, 113000));
		for (unsigned i = 0; i < REQUESTS; i++) {
			uint64_t from = 20 * PEN_MS * (i + 1) + i * 61231 % PEN_MS, seq = 0;
			run(from);
			for (unsigned k = 0; k < KERNELS; k++)
				seq = submit(hp, kernel(108, 1024, 19500));
			while (!pen_model_channel_pending(hp) || pen_model_next(w.m) != PEN_NEVER) {
				run(pen_model_next(w.m));
				if (!pen_model_channel_pending(hp))
					break;
			}
			double took = (double)(pen_model_now(w.m) - from);
			assert_true(seq == (i + 1) * KERNELS);
			if (!beside)
				alone = took;
			else
				sum += took;
			if (beside && took > worst)
				worst = took;
		}
		finish();
	}
	print_message("alone %.2f ms, beside: mean %.2fx, worst %.2fx\n", alone / 1e6, sum / REQUESTS / alone, worst / alone);
	assert_near(alone, 4.1e6, 0.01);
	assert_true(worst / alone > 2.4 && worst / alone < 2.75);
	assert_true(sum / REQUESTS / alone > 2.1 && sum / REQUESTS / alone < 2.5);
}

/* ---- DRAM and copies ---- */

static void test_maxmin(void **state)
{
	(void)state;
	double demand[] = { 80, 10, 50, 5 }, alloc[4];
	unsigned order[4];
	pen_model_maxmin(100, demand, alloc, order, 4);
	assert_near(alloc[0], 42.5, 1e-9);
	assert_near(alloc[1], 10, 1e-9);
	assert_near(alloc[2], 42.5, 1e-9);
	assert_near(alloc[3], 5, 1e-9);
	pen_model_maxmin(1000, demand, alloc, order, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_near(alloc[i], demand[i], 1e-9);
}

/* Half the device for @ns, asking for @gbps of DRAM. */
static struct pen_model_cmd streaming(uint64_t ns, double gbps)
{
	struct pen_model_cmd k = kernel(5, 1024, ns);
	k.kernel.dram_bytes = (uint64_t)(gbps * (double)ns);
	return k;
}

static void test_dram(void **state)
{
	(void)state;
	begin(&plain, true);
	struct pen_model_context *c1 = context(), *c2 = context();
	struct pen_model_channel *a = channel(c1, "a", 0, 0), *b = channel(c2, "b", 0, 0);
	/* 80 + 80 of 100 GB/s: 50 each, 1.6 times as long. */
	submit(a, streaming(PEN_MS, 80));
	submit(b, streaming(PEN_MS, 80));
	run(PEN_S);
	assert_at(ended('a', 1)->end, 1.6e6);
	assert_at(ended('b', 1)->end, 1.6e6);
	/* 20 + 120: the modest one is not slowed, the other has what is left, then all that there is. */
	submit(a, streaming(PEN_MS, 20));
	submit(b, streaming(PEN_MS, 120));
	run(2 * PEN_S);
	assert_at(ended('a', 2)->end, 1e9 + 1e6);
	double left = 120e6 - 80e6;
	assert_at(ended('b', 2)->end, 1e9 + 1e6 + left / 100);
	struct pen_model_truth t;
	pen_model_context_truth(c2, &t);
	assert_near(t.dram_bytes, 80e6 + 120e6, 1e-5);
	/* Alone, one that asks for too much is slowed as well. */
	submit(a, streaming(PEN_MS, 150));
	run(3 * PEN_S);
	assert_at(ended('a', 3)->end, 2e9 + 1.5e6);
	finish();
}

static void test_copies(void **state)
{
	(void)state;
	begin(&plain, false);
	struct pen_model_context *c1 = context(), *c2 = context();
	struct pen_model_channel *a = channel(c1, "a", 0, 0), *b = channel(c1, "b", 0, 0), *k = channel(c1, "k", 0, 0),
				 *x = channel(c2, "x", 0, 0);
	/* Both directions and a kernel at once. */
	submit(a, copy(PEN_MODEL_H2D, 10000000));
	submit(b, copy(PEN_MODEL_D2H, 10000000));
	submit(k, kernel(10, 1024, PEN_MS));
	run(PEN_S);
	assert_at(ended('a', 1)->end, 1e6);
	assert_at(ended('b', 1)->end, 1e6);
	assert_at(ended('k', 1)->end, 1e6);
	/* One direction: a context's copies one after the other, two contexts share it. */
	submit(a, copy(PEN_MODEL_H2D, 10000000));
	submit(b, copy(PEN_MODEL_H2D, 10000000));
	submit(x, copy(PEN_MODEL_H2D, 5000000));
	run(2 * PEN_S);
	assert_at(ended('x', 1)->end, 1e9 + 1e6);
	assert_at(ended('a', 2)->end, 1e9 + 1.5e6);
	assert_at(ended('b', 2)->end, 1e9 + 2.5e6);
	struct pen_model_truth t;
	pen_model_context_truth(c1, &t);
	assert_near(t.copy_bytes[PEN_MODEL_H2D], 30000000, 1e-9);
	assert_near(t.copy_bytes[PEN_MODEL_D2H], 10000000, 1e-9);
	/* Memory that is not pinned moves at its own rate, and leaves the rest of the link to others. */
	struct pen_model_cmd slow = copy(PEN_MODEL_H2D, 4000000);
	slow.copy.pageable = true;
	submit(a, slow);
	run(3 * PEN_S);
	assert_at(ended('a', 3)->end, 2e9 + 800000);
	/* On the device a byte is read and written: half of DRAM's rate. */
	submit(a, copy(PEN_MODEL_D2D, 50000000));
	submit(b, (struct pen_model_cmd){ .kind = PEN_MODEL_FILL, .fill = { 0 } });
	run(4 * PEN_S);
	assert_at(ended('a', 4)->end, 3e9 + 1e6);
	submit(a, (struct pen_model_cmd){ .kind = PEN_MODEL_FILL, .fill = { 100000000 } });
	run(5 * PEN_S);
	assert_at(ended('a', 5)->end, 4e9 + 1e6);
	finish();
}

static void test_one_copy_engine(void **state)
{
	(void)state;
	struct pen_card card = plain;
	card.copy_engines = 1;
	begin(&card, false);
	struct pen_model_context *c = context();
	struct pen_model_channel *a = channel(c, "a", 0, 0), *b = channel(c, "b", 0, 0);
	submit(a, copy(PEN_MODEL_H2D, 10000000));
	submit(b, copy(PEN_MODEL_D2H, 10000000));
	run(PEN_S);
	assert_at(ended('b', 1)->end, 2e6);
	finish();
}

static void test_copy_and_kernel_share_dram(void **state)
{
	(void)state;
	struct pen_card card = plain;
	card.pcie_bytes_per_s = 60000000000;
	begin(&card, false);
	struct pen_model_context *c = context();
	struct pen_model_channel *a = channel(c, "a", 0, 0), *k = channel(c, "k", 0, 0);
	submit(k, streaming(2 * PEN_MS, 90));
	submit(a, copy(PEN_MODEL_H2D, 50000000));
	run(PEN_S);
	/* 60 + 90 of 100: 50 each. */
	assert_at(ended('a', 1)->end, 1e6);
	assert_at(ended('k', 1)->end, 1e6 + (180e6 - 50e6) / 90);
	/* A copy within the device asks for two bytes a byte: 100 + 90, 50 each, so 25 MB in 1 ms. */
	submit(k, streaming(PEN_S, 90));
	submit(a, copy(PEN_MODEL_D2D, 25000000));
	run(2 * PEN_S);
	assert_at(ended('a', 2)->end, 1e9 + 1e6);
	struct pen_model_truth t;
	pen_model_truth(w.m, &t);
	assert_near(t.copy_bytes[PEN_MODEL_D2D], 25e6, 1e-9);
	finish();
	/* Where device memory is the host's, so does a copy from the host. */
	card.integrated = true;
	begin(&card, false);
	c = context();
	a = channel(c, "a", 0, 0);
	submit(a, copy(PEN_MODEL_H2D, 50000000));
	run(PEN_S);
	assert_at(ended('a', 1)->end, 1e6);
	pen_model_truth(w.m, &t);
	assert_near(t.dram_bytes, 100e6, 1e-6);
	finish();
}

/* ---- order, outside, faults ---- */

static void test_wait(void **state)
{
	(void)state;
	begin(&plain, false);
	struct pen_model_context *c = context();
	struct pen_model_channel *a = channel(c, "a", 0, 0), *b = channel(c, "b", 0, 0), *gone = channel(c, "g", 0, 0);
	uint64_t id = pen_model_channel_id(gone), seq;
	submit(a, kernel(10, 1024, 300));     /* the end of one before it is not the one */
	seq = submit(a, kernel(10, 1024, 700));
	submit(b, (struct pen_model_cmd){ .kind = PEN_MODEL_WAIT, .wait = { pen_model_channel_id(a), seq } });
	submit(b, (struct pen_model_cmd){ .kind = PEN_MODEL_WAIT, .wait = { pen_model_channel_id(a), seq } });
	submit(b, kernel(10, 1024, 1000));
	submit(b, (struct pen_model_cmd){ .kind = PEN_MODEL_WAIT, .wait = { id, 1 } });
	run(500);
	assert_int_equal(w.n, 1);
	run(5000);
	assert_at(ended('b', 3)->start, 1000);
	assert_int_equal(pen_model_channel_pending(b), 1);   /* the last waits for what was never submitted */
	pen_model_channel_remove(gone);
	assert_int_equal(pen_model_channel_pending(b), 0);
	submit(b, (struct pen_model_cmd){ .kind = PEN_MODEL_WAIT, .wait = { id, 7 } });
	assert_int_equal(pen_model_channel_pending(b), 0);
	finish();
}

static void test_outside_and_held(void **state)
{
	(void)state;
	begin(&plain, false);
	struct pen_model_context *c = context();
	struct pen_model_channel *a = channel(c, "a", 0, 0), *b = channel(c, "b", 0, 0);
	assert_int_equal(pen_model_finish(a), -EINVAL);
	submit(a, (struct pen_model_cmd){ .kind = PEN_MODEL_EXTERNAL });
	submit(a, kernel(10, 1024, 1000));
	run(5000);
	assert_int_equal(w.n, 0);
	assert_int_equal(pen_model_next(w.m), PEN_NEVER);
	assert_int_equal(pen_model_finish(a), 0);
	w.hold = 'a';
	submit(b, kernel(10, 1024, 1000));
	run(50000);
	/* Held: its units are free, its channel is not. */
	assert_at(ended('b', 1)->end, 7000);
	assert_int_equal(w.held, 1);
	assert_int_equal(pen_model_channel_pending(a), 1);
	w.hold = 0;
	assert_int_equal(pen_model_finish(a), 0);
	assert_int_equal(pen_model_channel_pending(a), 0);
	assert_int_equal(pen_model_finish(a), -EINVAL);
	finish();
}

static void test_hang_drop_remove(void **state)
{
	(void)state;
	begin(&plain, false);
	struct pen_model_context *c1 = context(), *c2 = context();
	struct pen_model_channel *a = channel(c1, "a", 0, 0), *b = channel(c2, "b", 0, 0);
	submit(a, kernel(10, 1024, 100000));
	run(50000);
	pen_model_hang(w.m, true);
	submit(a, kernel(10, 1024, 100000));
	run(10 * PEN_MS);
	assert_int_equal(w.n, 0);
	assert_int_equal(pen_model_next(w.m), PEN_NEVER);
	pen_model_hang(w.m, false);
	run(20 * PEN_MS);
	assert_at(ended('a', 1)->end, 10e6 + 50000);
	assert_int_equal(w.n, 2);

	/* A context that fails leaves the device to others, whatever it was at. */
	submit(a, kernel(1000000, 1024, 100000));
	submit(a, copy(PEN_MODEL_H2D, 1000));
	submit(b, kernel(10, 1024, 100000));
	run(21 * PEN_MS - 1);
	assert_int_equal(pen_model_context_drop(c1), 2);
	run(22 * PEN_MS);
	assert_at(ended('b', 1)->start, 21e6 - 1);
	assert_int_equal(pen_model_channel_pending(a), 0);
	submit(a, kernel(1000000, 1024, 100000));
	run(23 * PEN_MS);
	pen_model_context_remove(c1);
	submit(b, kernel(10, 1024, 100000));
	run(24 * PEN_MS);
	assert_at(ended('b', 2)->start, 23e6);
	finish();
}

static void test_reset(void **state)
{
	(void)state;
	begin(&plain, false);
	struct pen_model_context *c = context();
	struct pen_model_channel *a = channel(c, "a", 0, 0);
	submit(a, kernel(10, 1024, PEN_MS));
	run(400000);
	pen_model_truth_reset(w.m);
	run(PEN_S);
	struct pen_model_truth t;
	pen_model_context_truth(c, &t);
	assert_at(t.busy_ns, 600000);
	assert_at(t.residence_ns, 600000);
	assert_near(t.unit_ns, 6e6, 1e-6);
	finish();
}

/* ---- anything at all ---- */

static uint64_t seed;

static uint32_t dice(uint32_t sides)
{
	seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)(seed >> 33) % sides;
}

/* Random load: all of it ends, in order, and the units did exactly the work that was asked for. Return: a hash of all that was seen. */
static uint64_t random_load(uint64_t with, bool concurrent)
{
	static const char *const names[] = { "a", "b", "c", "d", "e", "f" };
	struct pen_card card = plain;
	card.launch_ns = 2000;
	card.gap_ns = 500;
	card.save_ns = 30000;
	card.yield_ns = 3000;
	card.slice_ns = 100000;
	begin(&card, concurrent);
	struct pen_model_channel *ch[6];
	struct pen_model_context *c[3] = { context(), context(), context() };
	double work = 0, copied = 0;
	seed = with;
	for (unsigned i = 0; i < 6; i++)
		ch[i] = channel(c[i / 2], names[i], -(int)dice(2), dice(3) ? 0 : 1 + dice(9));
	unsigned n = 0;
	for (; n < 1500; n++) {
		struct pen_model_channel *to = ch[dice(6)];
		uint64_t ns = 1 + dice(40000), blocks = 1 + dice(60), bytes = dice(400000);
		switch (dice(6)) {
		case 0:
			submit(to, copy((enum pen_model_dir)dice(4), bytes));
			copied += (double)bytes;
			break;
		case 1:
			submit(to, (struct pen_model_cmd){ .kind = PEN_MODEL_NOP });
			break;
		case 2: {
			/* Only for what has been submitted, as vendors' streams do: no circle can arise. */
			struct pen_model_channel *of = ch[dice(6)];
			uint64_t last = submit(of, (struct pen_model_cmd){ .kind = PEN_MODEL_NOP });
			n++;
			submit(to, (struct pen_model_cmd){ .kind = PEN_MODEL_WAIT, .wait = { pen_model_channel_id(of), last } });
			break;
		}
		default: {
			uint32_t threads = 32u << dice(6);
			struct pen_model_cmd k = kernel(blocks, threads, ns);
			k.kernel.dram_bytes = dice(3) ? dice(3000) * blocks : 0;
			k.kernel.priority = -(int)dice(2);
			submit(to, k);
			work += (double)blocks * (double)ns / (1024 / threads > 16 ? 16 : 1024 / threads);
			break;
		}
		}
		run(pen_model_now(w.m) + dice(30000));
	}
	run(100 * PEN_S);
	struct pen_model_truth t, sum = { 0 }, one;
	pen_model_truth(w.m, &t);
	assert_int_equal(t.commands, n);
	assert_int_equal(w.n, n);
	assert_int_equal(pen_model_next(w.m), PEN_NEVER);
	for (unsigned i = 0; i < 3; i++) {
		pen_model_context_truth(c[i], &one);
		sum.unit_ns += one.unit_ns;
		sum.commands += one.commands;
		assert_true(one.busy_ns <= one.residence_ns);
	}
	assert_int_equal(sum.commands, n);
	assert_near(sum.unit_ns, t.unit_ns, 1e-9);
	/* DRAM may have slowed kernels down: never less than the work. */
	assert_true(t.unit_ns >= work * 0.999);
	assert_near(t.copy_bytes[0] + t.copy_bytes[1] + t.copy_bytes[2] + t.copy_bytes[3], copied, 1e-9);
	uint64_t hash = 14695981039346656037u, next[6] = { 1, 1, 1, 1, 1, 1 };
	for (unsigned i = 0; i < w.n; i++) {
		assert_int_equal(w.log[i].seq, next[w.log[i].channel - 'a']++);
		assert_true(w.log[i].start <= w.log[i].end && (!i || w.log[i - 1].end <= w.log[i].end));
		hash = (hash ^ w.log[i].end ^ (uint64_t)w.log[i].channel << 56) * 1099511628211u;
	}
	finish();
	return hash;
}

static void test_random(void **state)
{
	(void)state;
	for (uint64_t i = 1; i <= 40; i++) {
		uint64_t first = random_load(i, i & 1);
		assert_int_equal(first, random_load(i, i & 1));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waves),
		cmocka_unit_test(test_long_grid_is_cheap),
		cmocka_unit_test(test_latency_and_gap),
		cmocka_unit_test(test_leftover),
		cmocka_unit_test(test_priority),
		cmocka_unit_test(test_unit_caps),
		cmocka_unit_test(test_many_cohorts),
		cmocka_unit_test(test_time_slices),
		cmocka_unit_test(test_equal_turns),
		cmocka_unit_test(test_turn_is_given_away),
		cmocka_unit_test(test_gap_keeps_turn),
		cmocka_unit_test(test_concurrent),
		cmocka_unit_test(test_published_slowdown),
		cmocka_unit_test(test_maxmin),
		cmocka_unit_test(test_dram),
		cmocka_unit_test(test_copies),
		cmocka_unit_test(test_one_copy_engine),
		cmocka_unit_test(test_copy_and_kernel_share_dram),
		cmocka_unit_test(test_wait),
		cmocka_unit_test(test_outside_and_held),
		cmocka_unit_test(test_hang_drop_remove),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_random),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
