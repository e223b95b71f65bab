/* SPDX-License-Identifier: Apache-2.0 */
/* Pages, seals, terms, histograms and the fork flag. The memory account is test_mem.c, attaching test_attach.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/auto.h"
#include "base/clock.h"
#include "board/feature.h"
#include "board/hist.h"
#include "board/internal.h"
#include "board/page.h"
#include "board/terms.h"
#include "fork_real.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const uint8_t boot[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

static void make(enum pen_page_kind kind, int *fd, void *map_out)
{
	struct pen_page_id id = { .slot = 3, .device_id = 77 };
	memcpy(id.boot_id, boot, sizeof(boot));
	struct pen_err err = PEN_ERR_INIT;
	void *map;
	if (pen_page_create(kind, &id, fd, &map, &err) < 0)
		fail_msg("%s", err.text);
	memcpy(map_out, &map, sizeof(map));
}

static int need_future_write(void)
{
	return (pen_board_features() & PEN_FEATURE_FUTURE_WRITE) != 0;
}

static void test_create(void **state)
{
	(void)state;
	for (int k = 0; k < PEN_PAGE_KIND_MAX_; k++) {
		int fd;
		struct pen_page_head *head, got;
		make((enum pen_page_kind)k, &fd, &head);
		struct stat st;
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_mode & 07777, 0600);
		assert_int_equal(st.st_size, pen_page_bytes((enum pen_page_kind)k));
		assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
		assert_int_not_equal(head->instance, 0);
		assert_int_equal(pen_page_verify(fd, (enum pen_page_kind)k, boot, 0, &got, NULL), 0);
		assert_memory_equal(&got, head, sizeof(got));
		/* Nobody can make a reader meet a SIGBUS. */
		assert_int_equal(ftruncate(fd, 0), -1);
		assert_int_equal(errno, EPERM);
		pen_page_unmap(head, (enum pen_page_kind)k);
		close(fd);
	}
}

static void test_verify_refuses(void **state)
{
	(void)state;
	int fd;
	struct pen_page_head *head, good;
	make(PEN_PAGE_SIGNAL, &fd, &head);
	good = *head;
	static const uint8_t other[16] = { 9 };
	assert_int_equal(pen_page_verify(fd, PEN_PAGE_SIGNAL, other, 0, NULL, NULL), -ESTALE);
	assert_int_equal(pen_page_verify(fd, PEN_PAGE_SIGNAL, NULL, 0, NULL, NULL), 0);
	assert_int_equal(pen_page_verify(fd, PEN_PAGE_TERMS, boot, 0, NULL, NULL), -EPROTO);
	assert_int_equal(pen_page_verify(-1, PEN_PAGE_SIGNAL, boot, 0, NULL, NULL), -EBADF);
	head->minor++;
	assert_int_equal(pen_page_verify(fd, PEN_PAGE_SIGNAL, boot, 0, NULL, NULL), 0);
	head->major++;
	struct pen_err err = PEN_ERR_INIT;
	assert_int_equal(pen_page_verify(fd, PEN_PAGE_SIGNAL, boot, 0, NULL, &err), -EPROTO);
	char layout[32];
	snprintf(layout, sizeof(layout), "layout %d.%d", PEN_BOARD_MAJOR + 1, PEN_BOARD_MINOR + 1);
	assert_non_null(strstr(err.text, layout));
	*head = good;
	head->magic ^= 1;
	assert_int_equal(pen_page_verify(fd, PEN_PAGE_SIGNAL, boot, 0, NULL, NULL), -EPROTO);
	*head = good;
	head->size_bytes += 1;
	assert_int_equal(pen_page_verify(fd, PEN_PAGE_SIGNAL, boot, 0, NULL, NULL), -EPROTO);
	*head = good;
	if (need_future_write()) {
		assert_int_equal(pen_page_verify(fd, PEN_PAGE_SIGNAL, boot, PEN_VERIFY_FINAL, NULL, NULL), -EPERM);
		assert_int_equal(pen_page_seal_signal(fd, NULL), 0);
		assert_int_equal(pen_page_verify(fd, PEN_PAGE_SIGNAL, boot, PEN_VERIFY_FINAL, NULL, NULL), 0);
	}
	pen_page_unmap(head, PEN_PAGE_SIGNAL);
	close(fd);
}

/* What is no page at all: refused without being read, also where a read would block. */
static void test_verify_foreign(void **state)
{
	(void)state;
	int pipes[2];
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(pen_page_verify(pipes[0], PEN_PAGE_SIGNAL, boot, 0, NULL, NULL), -EPROTO);
	close(pipes[0]);
	close(pipes[1]);
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	assert_int_equal(pen_page_verify(fd, PEN_PAGE_SIGNAL, boot, 0, NULL, NULL), -EPROTO);
	close(fd);
	fd = open("/", O_PATH | O_CLOEXEC);
	assert_int_equal(pen_page_verify(fd, PEN_PAGE_SIGNAL, boot, 0, NULL, NULL), -EPROTO);
	close(fd);

	/* Right bytes, right size, but the size is not sealed: its owner could cut it under a reader. */
	struct pen_page_head *head, good;
	make(PEN_PAGE_SIGNAL, &fd, &head);
	good = *head;
	pen_page_unmap(head, PEN_PAGE_SIGNAL);
	close(fd);
	fd = memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(fd, PEN_SIGNAL_BYTES), 0);
	assert_int_equal(pwrite(fd, &good, sizeof(good), 0), sizeof(good));
	assert_int_equal(pen_page_verify(fd, PEN_PAGE_SIGNAL, boot, 0, NULL, NULL), -EPERM);
	assert_int_equal(ftruncate(fd, PEN_SIGNAL_BYTES * 2), 0);
	assert_int_equal(pen_page_verify(fd, PEN_PAGE_SIGNAL, boot, 0, NULL, NULL), -EPROTO);
	close(fd);
}

/* 0 = every way of writing to the page failed. */
static int try_to_write(int fd, enum pen_page_kind kind)
{
	char path[40];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int won = 0, rw = open(path, O_RDWR | O_CLOEXEC), fds[2] = { fd, rw };
	for (int i = 0; i < 2; i++) {
		if (fds[i] < 0)
			continue;
		void *p = mmap(NULL, pen_page_bytes(kind), PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);
		won += p != MAP_FAILED;
		won += pwrite(fds[i], "x", 1, 100) == 1;
		won += ftruncate(fds[i], 1) == 0;
		won += fallocate(fds[i], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0;
		p = mmap(NULL, pen_page_bytes(kind), PROT_READ, MAP_SHARED, fds[i], 0);
		won += p != MAP_FAILED && mprotect(p, pen_page_bytes(kind), PROT_READ | PROT_WRITE) == 0;
	}
	if (rw >= 0)
		close(rw);
	return won;
}

static void test_sealed_page_is_read_only(void **state)
{
	(void)state;
	if (!need_future_write())
		skip();
	static int (*const seal[])(int, struct pen_err *) = { pen_page_seal_terms, pen_page_seal_signal };
	static const enum pen_page_kind kinds[] = { PEN_PAGE_TERMS, PEN_PAGE_SIGNAL };
	for (int i = 0; i < 2; i++) {
		int fd, ro;
		void *map;
		make(kinds[i], &fd, &map);
		/* The test can tell: before the seal, a descriptor opened read-only is no hindrance. */
		assert_int_equal(pen_page_reopen_ro(fd, &ro, NULL), 0);
		assert_int_not_equal(try_to_write(ro, kinds[i]), 0);
		assert_int_equal(seal[i](fd, NULL), 0);
		assert_int_equal(seal[i](fd, NULL), 0);
		assert_int_equal(try_to_write(ro, kinds[i]), 0);
		assert_int_equal(try_to_write(fd, kinds[i]), 0);
		/* The mapping from before the seal still writes, and readers see it. */
		const void *seen;
		assert_int_equal(pen_page_map_ro(ro, kinds[i], &seen), 0);
		((char *)map)[1000] = 42;
		assert_int_equal(((const char *)seen)[1000], 42);
		pen_page_unmap(seen, kinds[i]);
		pen_page_unmap(map, kinds[i]);
		close(ro);
		close(fd);
	}
}

static void test_ledger_stays_writable(void **state)
{
	(void)state;
	int fd;
	void *map, *again;
	make(PEN_PAGE_LEDGER, &fd, &map);
	assert_int_equal(pen_page_seal_ledger(fd, NULL), 0);
	assert_int_equal(pen_page_map_rw(fd, PEN_PAGE_LEDGER, &again), 0);
	/* And no client can spoil that with a seal of its own. */
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
	pen_page_unmap(again, PEN_PAGE_LEDGER);
	pen_page_unmap(map, PEN_PAGE_LEDGER);
	close(fd);
}

/* A kernel before 5.1: the size is sealed and nothing else can be. */
static void test_seal_without_future_write(void **state)
{
	(void)state;
	int fd;
	void *map;
	make(PEN_PAGE_TERMS, &fd, &map);
	assert_int_equal(pen_page_seal_(fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE, 0, NULL), 0);
	int seals = fcntl(fd, F_GET_SEALS);
	assert_true(seals & F_SEAL_SEAL);
	assert_false(seals & F_SEAL_FUTURE_WRITE);
	if (need_future_write())
		assert_int_equal(pen_page_seal_terms(fd, NULL), -EPERM);
	pen_page_unmap(map, PEN_PAGE_TERMS);
	close(fd);
}

static void test_map_at(void **state)
{
	(void)state;
	size_t stride = pen_page_stride(PEN_PAGE_SIGNAL);
	void *range;
	assert_int_equal(pen_page_reserve(2 * stride, &range), 0);
	struct pen_signal_page *second = (struct pen_signal_page *)(void *)((char *)range + stride);
	assert_int_equal(PEN_BUSY_STATE(second->busy), PEN_BUSY_IDLE);
	for (uint32_t i = 1; i < 3; i++) {
		int fd;
		struct pen_signal_page *page;
		make(PEN_PAGE_SIGNAL, &fd, &page);
		page->runs = i;
		assert_int_equal(pen_page_map_at(fd, PEN_PAGE_SIGNAL, 0, second), 0);
		assert_int_equal(second->runs, i);
		pen_page_unmap(page, PEN_PAGE_SIGNAL);
		close(fd);
	}
	munmap(range, 2 * stride);
}

/* ---- terms ------------------------------------------------------------------------------------------------------- */

static void fill(struct pen_terms *t, uint64_t v)
{
	uint64_t *w = (uint64_t *)(void *)t;
	for (size_t i = 0; i < sizeof(*t) / sizeof(*w); i++)
		w[i] = v;
}

/* Return: the value that all words but the epoch have; fails if they differ. */
static uint64_t whole(const struct pen_terms *t)
{
	const uint64_t *w = (const uint64_t *)(const void *)t;
	for (size_t i = 2; i < sizeof(*t) / sizeof(*w); i++)
		if (w[i] != w[1])
			return UINT64_MAX;
	return w[1];
}

static void test_terms(void **state)
{
	(void)state;
	int fd;
	struct pen_terms_page *page;
	make(PEN_PAGE_TERMS, &fd, &page);
	struct pen_terms in, out = { 0 };
	uint64_t start = pen_terms_epoch(page);
	assert_int_equal(pen_terms_read(page, &out), -EAGAIN);
	for (uint64_t v = 1; v < 10; v++) {
		fill(&in, v);
		assert_int_equal(pen_terms_publish(page, &in), start + v);
		assert_int_equal(pen_terms_read(page, &out), 1);
		assert_int_equal(out.epoch, start + v);
		assert_int_equal(whole(&out), v);
		assert_int_equal(pen_terms_read(page, &out), 0);
	}
	/* The writer was killed in the middle of the next terms: those before are still there, whole. */
	struct pen_terms fresh = { 0 };
	struct pen_terms_copy *next = &page->copy[(page->index & 1) ^ 1];
	next->begin = start + 10;
	next->terms.flags = 99;
	assert_int_equal(pen_terms_read(page, &fresh), 1);
	assert_int_equal(whole(&fresh), 9);
	/* Both copies spoilt (nobody who keeps to the rules does that): the last good terms stay. */
	page->copy[page->index & 1].begin++;
	page->epoch++;
	assert_int_equal(pen_terms_read(page, &out), -EAGAIN);
	assert_int_equal(whole(&out), 9);
	pen_page_unmap(page, PEN_PAGE_TERMS);
	close(fd);
}

struct race {
	struct pen_terms_page *page;
	_Atomic uint32_t stop;
	_Atomic uint32_t torn;
	_Atomic uint64_t read;
};

static void *terms_reader(void *arg)
{
	struct race *r = arg;
	struct pen_terms t = { 0 };
	uint64_t last = 0;
	while (!r->stop) {
		int got = pen_terms_read(r->page, &t);
		if (got == 1) {
			if (whole(&t) == UINT64_MAX || t.epoch <= last)
				r->torn++;
			last = t.epoch;
			r->read++;
		}
	}
	return NULL;
}

static void test_terms_torn(void **state)
{
	(void)state;
	int fd;
	struct race r = { 0 };
	make(PEN_PAGE_TERMS, &fd, &r.page);
	pthread_t reader[2];
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&reader[i], NULL, terms_reader, &r), 0);
	struct pen_terms in;
	for (uint64_t v = 1; v < 20000 || r.read < 100; v++) {
		fill(&in, v);
		pen_terms_publish(r.page, &in);
	}
	r.stop = 1;
	for (int i = 0; i < 2; i++)
		pthread_join(reader[i], NULL);
	assert_int_equal(r.torn, 0);
	pen_page_unmap(r.page, PEN_PAGE_TERMS);
	close(fd);
}

/* ---- histogram --------------------------------------------------------------------------------------------------- */

static void test_hist_buckets(void **state)
{
	(void)state;
	assert_int_equal(pen_hist_bucket(0), 0);
	assert_int_equal(pen_hist_bucket(1023), 0);
	assert_int_equal(pen_hist_bucket(1024), 0);
	assert_int_equal(pen_hist_bucket(UINT64_MAX), PEN_HIST_BUCKETS - 1);
	assert_int_equal(pen_hist_lower_ns(PEN_HIST_BUCKETS), UINT64_C(1) << 37);
	for (uint32_t b = 0; b < PEN_HIST_BUCKETS; b++) {
		uint64_t lo = pen_hist_lower_ns(b), hi = pen_hist_lower_ns(b + 1);
		assert_int_equal(pen_hist_bucket(lo), b);
		assert_int_equal(pen_hist_bucket(hi - 1), b);
		assert_true((hi - lo) * 16 <= lo);
	}
}

static void test_hist_quantiles(void **state)
{
	(void)state;
	static struct pen_hist h;
	static struct pen_hist_snap now, before, d;
	memset(&h, 0, sizeof(h));
	pen_hist_take(&h, &now);
	assert_int_equal(pen_hist_quantile(&now, 990000), 0);
	for (uint64_t i = 1; i <= 1000; i++)
		pen_hist_add(&h, i * 100000, 50 * PEN_MS);
	pen_hist_take(&h, &before);
	assert_int_equal(before.count, 1000);
	assert_int_equal(before.missed, 500);
	assert_int_equal(pen_hist_samples(&before), 1000);
	static const uint32_t ppm[] = { 1, 100000, 500000, 900000, 990000, 1000000 };
	for (size_t i = 0; i < PEN_ARRAY_LEN(ppm); i++) {
		double want = ppm[i] < 1000 ? 1e5 : 1e8 * ppm[i] / 1e6, got = (double)pen_hist_quantile(&before, ppm[i]);
		if (got < want * (1 - 1.0 / 16) || got > want * (1 + 1.0 / 16))
			fail_msg("P%g is %g, should be near %g", ppm[i] / 1e4, got, want);
	}
	/* What came since: two values; and a bucket that wrapped its 32 bits in between. */
	for (int i = 0; i < 2; i++)
		pen_hist_add(&h, 3 * PEN_MS, 0);
	pen_hist_take(&h, &now);
	uint32_t b = pen_hist_bucket(3 * PEN_MS);
	before.bucket[b] -= 5000;
	now.bucket[b] -= 5000;
	pen_hist_delta(&now, &before, &d);
	assert_int_equal(pen_hist_samples(&d), 2);
	assert_int_equal(pen_hist_bucket(pen_hist_quantile(&d, 500000)), b);
	pen_hist_merge(&d, &d);
	assert_int_equal(pen_hist_samples(&d), 4);
	/* Nonsense from a tenant is survived. */
	memset(&d, 0xff, sizeof(d));
	assert_true(pen_hist_quantile(&d, UINT32_MAX) <= pen_hist_lower_ns(PEN_HIST_BUCKETS));
	pen_hist_merge(&d, &d);
}

/* ---- fork, features ---------------------------------------------------------------------------------------------- */

static int child_says(int (*f)(void *), void *arg)
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0)
		_exit(f(arg));
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int flag_in_child(void *arg)
{
	return pen_fork_flag_is_set(arg);
}

static void test_fork_flag(void **state)
{
	(void)state;
	struct pen_fork_flag f = { 0 };
	assert_false(pen_fork_flag_is_set(&f));
	assert_int_equal(pen_fork_flag_create(&f), 0);
	assert_false(pen_fork_flag_is_set(&f));
	pen_fork_flag_set(&f);
	assert_true(pen_fork_flag_is_set(&f));
	if (fork_is_real())
		assert_int_equal(child_says(flag_in_child, &f), 0);
	/* As on a kernel that does not wipe. */
	struct pen_fork_flag by_pid = { .word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) };
	pen_fork_flag_set(&by_pid);
	assert_true(pen_fork_flag_is_set(&by_pid));
	assert_int_equal(child_says(flag_in_child, &by_pid), 0);
	pen_fork_flag_clear(&f);
	assert_false(pen_fork_flag_is_set(&f));
	pen_fork_flag_destroy(&f);
	munmap((void *)by_pid.word, 4096);
}

static int is_mapped(void *p)
{
	return msync(p, 1, MS_ASYNC) == 0;
}

/* A child inherits what is harmless and nothing that it could write. */
static void test_fork_mappings(void **state)
{
	(void)state;
	if (!fork_is_real())
		skip();
	int fd;
	void *rw;
	const void *ro;
	make(PEN_PAGE_LEDGER, &fd, &rw);
	assert_int_equal(pen_page_map_ro(fd, PEN_PAGE_LEDGER, &ro), 0);
	assert_int_equal(child_says(is_mapped, rw), 0);
	assert_int_equal(child_says(is_mapped, (void *)(uintptr_t)ro), 1);
	pen_page_unmap(rw, PEN_PAGE_LEDGER);
	pen_page_unmap(ro, PEN_PAGE_LEDGER);
	close(fd);
}

static void test_features(void **state)
{
	(void)state;
	uint32_t have = pen_board_features();
	assert_true(have & PEN_FEATURE_MEMFD);
	assert_int_equal(pen_board_features(), have);
	uint8_t a[16] = { 0 }, b[16] = { 0 };
	errno = 1234;
	assert_int_equal(pen_board_boot_id(a), 0);
	assert_int_equal(pen_board_boot_id(b), 0);
	assert_int_equal(errno, 1234);
	assert_memory_equal(a, b, sizeof(a));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_verify_refuses),
		cmocka_unit_test(test_verify_foreign),
		cmocka_unit_test(test_sealed_page_is_read_only),
		cmocka_unit_test(test_ledger_stays_writable),
		cmocka_unit_test(test_seal_without_future_write),
		cmocka_unit_test(test_map_at),
		cmocka_unit_test(test_terms),
		cmocka_unit_test(test_terms_torn),
		cmocka_unit_test(test_hist_buckets),
		cmocka_unit_test(test_hist_quantiles),
		cmocka_unit_test(test_fork_flag),
		cmocka_unit_test(test_fork_mappings),
		cmocka_unit_test(test_features),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
