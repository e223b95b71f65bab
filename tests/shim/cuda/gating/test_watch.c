/* SPDX-License-Identifier: Apache-2.0 */
/* The helper thread: made when it is needed and not before, sees the end of work that nobody waits for, is remade after a fork. */
#include "driver.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct fake_fn small = { 5 * PEN_US }, large = { 2 * PEN_MS };

/* Threads of this process with that name. */
static unsigned helpers(void)
{
	unsigned n = 0;
	DIR *d = opendir("/proc/self/task");
	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d)) != NULL;) {
		char path[300], name[32] = "";
		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", e->d_name);
		FILE *f = fopen(path, "r");
		if (f && fgets(name, sizeof(name), f))
			n += !strcmp(name, "penstock-watch\n");
		if (f)
			fclose(f);
	}
	closedir(d);
	return n;
}

static void open_with_neighbour(void)
{
	static const uint16_t equal[] = { 0, 0 };
	fake_open(fake_board_new(2, equal), 0);
	fake_context();
}

/* Without a call of CUDA: as a program that computes on the host. */
static void wait_until_idle(void)
{
	for (int i = 0; i < 5000 && fake_busy() != PEN_BUSY_IDLE; i++)
		usleep(1000);
	assert_int_equal(fake_busy(), PEN_BUSY_IDLE);
}

static void host_work(CUstream s, unsigned tail)
{
	assert_int_equal(fake_launch(FN(small), 64, s), 0);   /* known, with credit */
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	assert_int_equal(fake_launch(FN(large), 64, s), 0);
	for (unsigned i = 0; i < tail; i++)
		assert_int_equal(fake_launch(FN(small), 64, s), 0);
	assert_int_equal(fake_busy(), PEN_BUSY_RUN);
	wait_until_idle();
}

static void test_alone_none(void **state)
{
	(void)state;
	fake_open(fake_alone(), 0);
	fake_context();
	CUstream s = fake_stream(0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(fake_launch(FN(small), 64, s), 0);
	assert_int_equal(pen_cuStreamSynchronize(s), 0);
	assert_int_equal(helpers(), 0);
	fake_assert_clean();
}

static void test_sees_the_end(void **state)
{
	(void)state;
	open_with_neighbour();
	CUstream s = fake_stream(CU_STREAM_NON_BLOCKING);
	host_work(s, 0);
	assert_int_equal(helpers(), 1);
	host_work(s, 9);
	/* Streams in which nobody else may put a mark: by estimate. */
	assert_int_equal(pen_cuLaunchKernel_ptsz(FN(small), 64, 1, 1, 256, 1, 1, 0, NULL, NULL, NULL), 0);
	for (int i = 0; i < 9; i++)
		assert_int_equal(pen_cuLaunchKernel_ptsz(FN(small), 64, 1, 1, 256, 1, 1, 0, NULL, NULL, NULL), 0);
	wait_until_idle();
	fake_stream(0);   /* a blocking one: the legacy stream would be a barrier for it */
	host_work(NULL, 9);
	assert_int_equal(helpers(), 1);
	fake_assert_clean();
}

static void in_child(void)
{
	assert_int_equal(helpers(), 0);
	open_with_neighbour();
	CUstream s = fake_stream(0);
	host_work(s, 5);
	assert_int_equal(helpers(), 1);
	fake_assert_clean();
}

static void test_fork(void **state)
{
	(void)state;
	open_with_neighbour();
	CUstream s = fake_stream(0);
	host_work(s, 0);
	assert_int_equal(helpers(), 1);
	fflush(NULL);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		in_child();
		exit(0);   /* and not _exit: the end must not wait for a thread that is not there */
	}
	int status = -1;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	host_work(s, 3);
	assert_int_equal(helpers(), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_alone_none), cmocka_unit_test(test_sees_the_end), cmocka_unit_test(test_fork) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
