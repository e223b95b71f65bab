/* SPDX-License-Identifier: Apache-2.0 */
/* simgpu-ctl: the truth, and faults on request; two devices in one server. Argument: simgpu-ctl. Runs with a T4 and an A100-40. */
#include "simgpu/client.h"
#include "base/clock.h"

#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB (UINT64_C(1) << 20)

static const char *ctl_path;
static struct sim *sim;
static struct sim_context *ctx[2];
static struct sim_channel *ch[2];
static char said[65536];

/* Runs simgpu-ctl SERVER WORDS; what it says on both outputs is in @said. Return: its exit code. */
static int ctl(const char *words)
{
	char line[4096];
	snprintf(line, sizeof(line), "%s \"$%s\" %s 2>&1", ctl_path, SIM_ENV, words);
	FILE *f = popen(line, "re");
	assert_non_null(f);
	said[fread(said, 1, sizeof(said) - 1, f)] = 0;
	int status = pclose(f);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void open_on(unsigned dev)
{
	assert_int_equal(sim_context_create(sim, dev, &ctx[dev]), 0);
	assert_int_equal(sim_channel_create(ctx[dev], 0, 0, &ch[dev]), 0);
}

static void close_on(unsigned dev)
{
	sim_channel_destroy(ch[dev]);
	sim_context_destroy(ctx[dev]);
}

static int setup(void **state)
{
	(void)state;
	assert_int_equal(sim_connect(NULL, &sim), 0);
	assert_int_equal(sim_cards(sim), 2);
	open_on(0);
	open_on(1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close_on(0);
	close_on(1);
	sim_disconnect(sim);
	return 0;
}

static uint64_t spin(unsigned dev, uint64_t ns)
{
	return sim_submit(ch[dev], &(struct sim_cmd){ .kind = SIM_KERNEL, .kernel = { .grid = { 1, 1, 1 }, .block = { 32, 1, 1 }, .block_ns = ns } });
}

static uint64_t stamp(unsigned dev, uint64_t *at)
{
	return sim_submit(ch[dev], &(struct sim_cmd){ .kind = SIM_STAMP, .stamp = { (uint64_t)(uintptr_t)at } });
}

static void run_one(unsigned dev)
{
	assert_int_equal(sim_wait(ch[dev], spin(dev, 1000), UINT64_MAX, false), 0);
}

static struct sim_reading reading(unsigned dev)
{
	struct sim_reading r;
	assert_int_equal(sim_reading(sim, dev, &r), 0);
	return r;
}

static void test_usage(void **state)
{
	(void)state;
	assert_int_equal(ctl("cards"), 0);
	assert_non_null(strstr(said, "0 Tesla T4: 40 units"));
	assert_non_null(strstr(said, "1 NVIDIA A100-SXM4-40GB: 108 units"));
	assert_int_equal(ctl(""), 2);
	assert_int_equal(ctl("truth -o xml"), 2);
	assert_int_equal(ctl("fault 0"), 2);
	assert_int_equal(ctl("fault 0 nonsense"), 1);
	assert_non_null(strstr(said, "one of oom=N, sticky, ecc, xid=N, hang, unhang, lost"));
	assert_int_equal(ctl("fault 0 oom=-1"), 1);
	assert_int_equal(ctl("fault 7 ecc"), 1);
	assert_int_equal(ctl("fault x ecc"), 1);
	char line[4096];
	snprintf(line, sizeof(line), "%s /nowhere truth 2>&1", ctl_path);
	assert_int_equal(WEXITSTATUS(system(line)), 1);
}

/* What one kernel and one copy leave in the books, to the byte. */
static void test_truth(void **state)
{
	(void)state;
	static char host[300000], dev[300000];
	assert_int_equal(ctl("reset"), 0);
	uint64_t seq = sim_submit(ch[0], &(struct sim_cmd){ .kind = SIM_KERNEL, .kernel = { .grid = { 80, 1, 1 }, .block = { 1024, 1, 1 },
				  .block_ns = 100000, .dram_bytes = 4000000 } });
	assert_int_equal(sim_wait(ch[0], seq, UINT64_MAX, false), 0);
	seq = sim_submit(ch[0], &(struct sim_cmd){ .kind = SIM_COPY, .copy = { .dir = SIM_D2H, .dst = (uintptr_t)host, .src = (uintptr_t)dev,
			 .width = 1000, .rows = 100, .layers = 3, .dst_pitch = 1000, .src_pitch = 1000, .dst_layer = 100000, .src_layer = 100000 } });
	assert_int_equal(sim_wait(ch[0], seq, UINT64_MAX, false), 0);
	assert_int_equal(ctl("truth -o json"), 0);
	json_t *root = json_loads(said, 0, NULL);
	assert_non_null(root);
	assert_string_equal(json_string_value(json_object_get(root, "schema")), "simgpu/truth/v1");
	json_t *d = json_array_get(json_object_get(root, "devices"), 0);
	json_t *list = json_object_get(d, "processes"), *p = NULL;
	for (size_t i = 0; i < json_array_size(list); i++)
		if (json_integer_value(json_object_get(json_array_get(list, i), "pid")) == getpid())
			p = json_array_get(list, i);
	assert_non_null(p);
	/* Two waves of all units; 20 GB/s of the card's 220, so DRAM slows nothing. */
	assert_in_range(json_integer_value(json_object_get(p, "busy_ns")), 200000, 200010);
	assert_in_range(json_number_value(json_object_get(p, "unit_seconds")) * 1e9, 8000000, 8000400);
	assert_int_equal(json_integer_value(json_object_get(p, "kernels")), 1);
	assert_int_equal(json_integer_value(json_object_get(p, "commands")), 2);
	assert_in_range(json_number_value(json_object_get(p, "d2h_bytes")), 299999, 300001);
	assert_in_range(json_number_value(json_object_get(p, "dram_bytes")), 4299990, 4300300);
	assert_int_equal(json_integer_value(json_object_get(p, "mem_bytes")), sim_card(sim, 0)->context_bytes);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(json_object_get(root, "devices"), 1), "kernels")), 0);
	assert_true(json_integer_value(json_object_get(json_object_get(root, "lateness"), "count")) > 0);
	json_decref(root);
	assert_int_equal(ctl("truth"), 0);
	assert_non_null(strstr(said, "0 Tesla T4"));
	assert_non_null(strstr(said, "news late by"));
}

static void test_oom(void **state)
{
	(void)state;
	uint64_t id;
	assert_int_equal(ctl("fault 1 oom=2"), 0);
	assert_int_equal(sim_mem_take(sim, 0, SIM_PAGE_BYTES, &id), 0);   /* the other device */
	sim_mem_give(sim, 0, id);
	assert_int_equal(sim_mem_take(sim, 1, SIM_PAGE_BYTES, &id), -ENOMEM);
	assert_int_equal(sim_mem_take(sim, 1, SIM_PAGE_BYTES, &id), -ENOMEM);
	assert_int_equal(sim_mem_take(sim, 1, SIM_PAGE_BYTES, &id), 0);
	sim_mem_give(sim, 1, id);
}

/* Whoever waits is told, contexts stay failed, new ones work, and the other device has not noticed. */
static void fails_with(const char *fault, int code, uint32_t xid)
{
	char words[64];
	uint64_t seq = spin(0, 3600 * PEN_S);
	snprintf(words, sizeof(words), "fault 0 %s", fault);
	assert_int_equal(ctl(words), 0);
	assert_int_equal(sim_wait(ch[0], seq, UINT64_MAX, false), code);
	assert_int_equal(sim_context_status(ctx[0]), code);
	assert_int_equal(sim_wait(ch[0], spin(0, 1000), UINT64_MAX, false), code);
	assert_int_equal(sim_context_status(ctx[1]), 0);
	assert_int_equal(reading(0).xid, xid);
	run_one(1);
	close_on(0);
	open_on(0);
	run_one(0);
}

static void test_faults(void **state)
{
	(void)state;
	fails_with("sticky", -EFAULT, 13);
	fails_with("xid=31", -EFAULT, 31);
	uint32_t before = reading(0).ecc_uncorrected;
	fails_with("ecc", -EIO, 48);
	assert_int_equal(reading(0).ecc_uncorrected, before + 1);
	fails_with("xid=94", -EIO, 94);
	assert_int_equal(ctl("fault 0 xid=63"), 0);   /* a row is remapped: nobody is harmed */
	assert_int_equal(sim_context_status(ctx[0]), 0);
	assert_int_equal(reading(0).xid, 63);
}

static void test_hang(void **state)
{
	(void)state;
	assert_int_equal(ctl("fault 0 hang"), 0);
	uint64_t seq = spin(0, 1000);
	assert_int_equal(sim_wait(ch[0], seq, 20 * PEN_MS, false), -ETIMEDOUT);
	run_one(1);
	assert_int_equal(ctl("fault 0 unhang"), 0);
	assert_int_equal(sim_wait(ch[0], seq, UINT64_MAX, false), 0);
}

/* A command of one device waits for one of another. */
static void test_across_devices(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		uint64_t end = 0, start = 0;
		uint64_t seq = spin(0, i * 20000 + 1);
		seq = stamp(0, &end);
		sim_submit(ch[1], &(struct sim_cmd){ .kind = SIM_WAIT_SEQ, .wait_seq = { ch[0], seq } });
		assert_int_equal(sim_wait(ch[1], stamp(1, &start), UINT64_MAX, false), 0);
		assert_true(end && start >= end);
	}
	/* One that will never come: until its channel has gone. */
	uint64_t seq = sim_submit(ch[1], &(struct sim_cmd){ .kind = SIM_WAIT_SEQ, .wait_seq = { ch[0], 1000000 } });
	assert_int_equal(sim_wait(ch[1], seq, PEN_MS, false), -ETIMEDOUT);
	close_on(0);
	assert_int_equal(sim_wait(ch[1], seq, UINT64_MAX, false), 0);
	open_on(0);
}

static void test_lost(void **state)
{
	(void)state;
	uint64_t id, seq = spin(1, 3600 * PEN_S);
	assert_int_equal(ctl("fault 1 lost"), 0);
	assert_int_equal(sim_wait(ch[1], seq, UINT64_MAX, false), -ENODEV);
	assert_int_equal(sim_context_status(ctx[1]), -ENODEV);
	assert_int_equal(sim_mem_take(sim, 1, SIM_PAGE_BYTES, &id), -ENODEV);
	assert_int_equal(sim_mem_info(sim, 1, &id, &id), -ENODEV);
	struct sim_context *c;
	assert_int_equal(sim_context_create(sim, 1, &c), -ENODEV);
	assert_true(reading(1).lost && reading(1).xid == 79);
	run_one(0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_usage),
		cmocka_unit_test(test_truth),
		cmocka_unit_test(test_oom),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_hang),
		cmocka_unit_test(test_across_devices),
		cmocka_unit_test(test_lost),
	};
	ctl_path = argc > 1 ? argv[1] : "simgpu-ctl";
	return cmocka_run_group_tests(tests, setup, teardown);
}
