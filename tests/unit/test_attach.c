/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets, peers and the client's attach machine. The daemon is a script in the same process: every step of the client
 * is made by the test, so there is nothing to wait for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fork_real.h"
#include "base/auto.h"
#include "base/clock.h"
#include "base/log.h"
#include "board/attach.h"
#include "board/feature.h"
#include "board/internal.h"
#include "board/mem.h"
#include "board/packet.h"
#include "board/page.h"
#include "board/peer.h"
#include "board/terms.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

/* ---- the scripted daemon ----------------------------------------------------------------------------------------- */

struct server {
	char dir[64];
	int listener, conn;
	uint64_t device_id;
	int fd[PEN_PAGE_KIND_MAX_];
	void *map[PEN_PAGE_KIND_MAX_];
};

#define SEAT 4u
#define SLOT 2u
#define KEY "opencl:test/device#0"

static int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void listen_on(struct server *s)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/" PEN_ATTACH_SOCK, s->dir);
	unlink(a.sun_path);
	s->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(s->listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(s->listener, 16), 0);
}

static void write_token(struct server *s, const char *text)
{
	char path[96];
	snprintf(path, sizeof(path), "%s/" PEN_TOKEN_FILE, s->dir);
	unlink(path);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0400);
	assert_true(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static void server_start(struct server *s)
{
	*s = (struct server){ .dir = "/tmp/pen-attach-XXXXXX", .conn = -1, .device_id = 7 };
	assert_non_null(mkdtemp(s->dir));
	for (int k = 0; k < PEN_PAGE_KIND_MAX_; k++)
		s->fd[k] = -1;
	write_token(s, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n");
	listen_on(s);
}

static void drop_pages(struct server *s)
{
	for (int k = 0; k < PEN_PAGE_KIND_MAX_; k++) {
		if (s->fd[k] >= 0)
			close(s->fd[k]);
		s->fd[k] = -1;
		pen_page_unmap(s->map[k], (enum pen_page_kind)k);
		s->map[k] = NULL;
	}
}

static void hang_up(struct server *s)
{
	if (s->conn >= 0)
		close(s->conn);
	s->conn = -1;
}

static void server_stop(struct server *s)
{
	char path[96];
	hang_up(s);
	close(s->listener);
	drop_pages(s);
	snprintf(path, sizeof(path), "%s/" PEN_ATTACH_SOCK, s->dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/" PEN_TOKEN_FILE, s->dir);
	unlink(path);
	rmdir(s->dir);
}

static void make_page(struct server *s, enum pen_page_kind kind, uint32_t slot, int *fd, void **map)
{
	struct pen_page_id id = { .slot = slot, .device_id = s->device_id };
	assert_int_equal(pen_board_boot_id(id.boot_id), 0);
	assert_int_equal(pen_page_create(kind, &id, fd, map, NULL), 0);
}

static void make_pages(struct server *s)
{
	drop_pages(s);
	for (int k = 0; k < PEN_PAGE_KIND_MAX_; k++)
		make_page(s, (enum pen_page_kind)k, k == PEN_PAGE_SIGNAL ? SEAT : SLOT, &s->fd[k], &s->map[k]);
	assert_int_equal(pen_page_seal_terms(s->fd[PEN_PAGE_TERMS], NULL), 0);
	assert_int_equal(pen_page_seal_ledger(s->fd[PEN_PAGE_LEDGER], NULL), 0);
}

static void expect(struct server *s, enum pen_msg type, struct pen_packet *p)
{
	int r = pen_packet_recv(s->conn, PEN_FROM_CLIENT, p);
	if (r != 1 || p->m.head.type != type)
		fail_msg("wanted %s, got %s (%d)", pen_packet_name(type), pen_packet_name((enum pen_msg)p->m.head.type), r);
}

static void say(struct server *s, enum pen_msg type, void *m, const int *fds, unsigned n)
{
	assert_int_equal(pen_packet_send(s->conn, type, m, fds, n), 0);
}

static void say_hello(struct server *s, int status)
{
	struct pen_msg_hello_reply m = { .status = status };
	snprintf(m.text, sizeof(m.text), "words of the daemon");
	say(s, PEN_MSG_HELLO_REPLY, &m, NULL, 0);
}

static void say_no_seat(struct server *s, int status)
{
	struct pen_msg_seat m = { .status = status, .seat = PEN_SEAT_NONE, .key = KEY };
	say(s, PEN_MSG_SEAT, &m, NULL, 0);
}

static void say_seat(struct server *s, uint32_t client, int adopted)
{
	struct pen_msg_seat m = { .seat = SEAT, .generation = 11, .slot = SLOT, .client = client,
				  .adopted = (uint32_t)adopted, .device_id = s->device_id, .key = KEY };
	int terms;
	assert_int_equal(pen_page_reopen_ro(s->fd[PEN_PAGE_TERMS], &terms, NULL), 0);
	int fds[3] = { terms, s->fd[PEN_PAGE_LEDGER], s->fd[PEN_PAGE_SIGNAL] };
	say(s, PEN_MSG_SEAT, &m, fds, adopted ? 1 : 3);
	close(terms);
}

static void say_ready(struct server *s)
{
	struct pen_msg_device_ref m = { .device_id = s->device_id };
	say(s, PEN_MSG_READY, &m, NULL, 0);
}

/* Return: what the neighbour itself writes through. */
static struct pen_signal_page *say_neighbour(struct server *s, uint32_t seat, uint32_t generation, uint64_t epoch)
{
	int fd, ro;
	void *map;
	make_page(s, PEN_PAGE_SIGNAL, seat, &fd, &map);
	assert_int_equal(pen_page_seal_signal(fd, NULL), 0);
	assert_int_equal(pen_page_reopen_ro(fd, &ro, NULL), 0);
	struct pen_msg_neighbour m = { .device_id = s->device_id, .seat = seat, .generation = generation, .fds_epoch = epoch };
	say(s, PEN_MSG_NEIGHBOUR, &m, &ro, 1);
	close(ro);
	close(fd);
	return map;
}

static void accept_client(struct server *s)
{
	hang_up(s);
	s->conn = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	assert_true(s->conn >= 0);
}

/* ---- client helpers ---------------------------------------------------------------------------------------------- */

static uint64_t now_ns;   /* the test's own time */

/* As every call in a tenant's process: the application's errno stays. */
static int step(struct pen_attach *a, uint64_t at_ns)
{
	errno = 4321;
	int r = pen_attach_step(a, at_ns);
	assert_int_equal(errno, 4321);
	return r;
}

static void client_start(struct server *s, struct pen_attach *a, struct pen_attach_device **d)
{
	now_ns = PEN_S;
	assert_int_equal(pen_attach_init(a, s->dir), 0);
	struct pen_attach_want want = { .key = KEY, .model = "test", .mem_bytes = 1 << 30, .units = 4 };
	assert_int_equal(pen_attach_add(a, &want, d), 0);
	struct pen_attach_device *same;
	assert_int_equal(pen_attach_add(a, &want, &same), 0);
	assert_ptr_equal(*d, same);
}

/* From nothing to LIVE; the daemon's side checks each packet. */
static void attach_fully(struct server *s, struct pen_attach *a, struct pen_attach_device *d)
{
	pen_auto_packet struct pen_packet p = PEN_PACKET_INIT;
	assert_int_equal(step(a, now_ns), 0);
	accept_client(s);
	expect(s, PEN_MSG_HELLO, &p);
	assert_int_equal(p.m.hello.token[31], 0x1f);
	uint64_t start;
	assert_int_equal(pen_peer_start_time(0, &start), 0);
	assert_int_equal(p.m.hello.start_time, start);
	assert_int_equal(p.m.hello.nadopt, 0);
	say_hello(s, 0);
	assert_int_equal(step(a, now_ns), 1);
	expect(s, PEN_MSG_DEVICE, &p);
	assert_string_equal(p.m.device.key, KEY);
	assert_int_equal(p.m.device.units, 4);
	make_pages(s);
	int client = pen_ledger_claim(s->map[PEN_PAGE_LEDGER], SEAT, 11);
	say_seat(s, (uint32_t)client, 0);
	assert_int_equal(step(a, now_ns), 1);
	assert_int_equal(d->live, 0);
	expect(s, PEN_MSG_MAPPED, &p);
	assert_int_equal(p.m.ref.device_id, s->device_id);
	assert_int_equal(pen_page_seal_signal(s->fd[PEN_PAGE_SIGNAL], NULL), 0);
	say_ready(s);
	assert_int_equal(step(a, now_ns), 1);
	assert_int_equal(d->live, 1);
	assert_int_equal(d->seat, SEAT);
	assert_int_equal(d->slot, SLOT);
}

static void client_stop(struct pen_attach *a)
{
	pen_attach_finish(a);
	for (uint32_t i = 0; i < a->ndevices; i++)
		free(a->device[i]);   /* addresses stay mapped, as they must in a program */
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

static void test_attach(void **state)
{
	(void)state;
	int before = count_fds();
	struct server s;
	struct pen_attach a;
	struct pen_attach_device *d;
	server_start(&s);
	client_start(&s, &a, &d);
	assert_int_equal(pen_terms_epoch(d->terms), 0);
	attach_fully(&s, &a, d);

	struct pen_terms in = { .mem_cap_bytes = 5 }, out = { 0 };
	pen_terms_publish(s.map[PEN_PAGE_TERMS], &in);
	assert_int_equal(pen_terms_read(d->terms, &out), 1);
	assert_int_equal(out.mem_cap_bytes, 5);
	assert_int_equal(pen_mem_charge(d->ledger, d->client, 100, UINT64_MAX, 0), 0);
	assert_int_equal(((struct pen_ledger_page *)s.map[PEN_PAGE_LEDGER])->mem_used_bytes, 100);
	d->signal->busy = PEN_BUSY_RUN;
	assert_int_equal(((struct pen_signal_page *)s.map[PEN_PAGE_SIGNAL])->busy, PEN_BUSY_RUN);

	/* Neighbours: by seat and generation, replaced in place. */
	assert_null(pen_attach_neighbour(d, 9, 3));
	struct pen_signal_page *n = say_neighbour(&s, 9, 3, 1);
	n->runs = 70;
	assert_int_equal(step(&a, now_ns), 1);
	const struct pen_signal_page *seen = pen_attach_neighbour(d, 9, 3);
	assert_non_null(seen);
	assert_int_equal(seen->runs, 70);
	assert_int_equal(d->fds_epoch, 1);
	pen_page_unmap(n, PEN_PAGE_SIGNAL);
	n = say_neighbour(&s, 9, 4, 2);
	n->runs = 71;
	assert_int_equal(step(&a, now_ns), 1);
	assert_null(pen_attach_neighbour(d, 9, 3));
	assert_ptr_equal(pen_attach_neighbour(d, 9, 4), seen);
	assert_int_equal(seen->runs, 71);
	pen_page_unmap(n, PEN_PAGE_SIGNAL);
	assert_null(pen_attach_neighbour(d, PEN_SEATS, 4));
	assert_null(pen_attach_neighbour(d, 3, 0));

	pen_auto_packet struct pen_packet p = PEN_PACKET_INIT;
	assert_int_equal(pen_attach_resend(&a, d), 0);
	expect(&s, PEN_MSG_RESEND, &p);
	assert_int_equal(pen_attach_detach(&a, d), 0);
	expect(&s, PEN_MSG_DETACH, &p);
	assert_int_equal(step(&a, now_ns), 0);
	client_stop(&a);
	server_stop(&s);
	assert_int_equal(count_fds(), before);
}

/* What the client was handed, each reopened and mapped writable through /proc/self/fd: only the ledger may be. */
static void test_received_descriptors(void **state)
{
	(void)state;
	if (!(pen_board_features() & PEN_FEATURE_FUTURE_WRITE))
		skip();
	struct server s;
	struct pen_attach a;
	struct pen_attach_device *d;
	server_start(&s);
	client_start(&s, &a, &d);
	attach_fully(&s, &a, d);
	/* The client keeps few of them; take them as a hostile one would, from the packets themselves. */
	int pair[2], ro;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(pen_page_reopen_ro(s.fd[PEN_PAGE_SIGNAL], &ro, NULL), 0);
	int conn = s.conn;
	s.conn = pair[0];
	say_seat(&s, 0, 0);
	struct pen_msg_neighbour m = { .device_id = 7, .seat = SEAT, .generation = 11 };
	say(&s, PEN_MSG_NEIGHBOUR, &m, &ro, 1);
	s.conn = conn;
	pen_auto_packet struct pen_packet seat = PEN_PACKET_INIT, neighbour = PEN_PACKET_INIT;
	assert_int_equal(pen_packet_recv(pair[1], PEN_FROM_DAEMON, &seat), 1);
	assert_int_equal(pen_packet_recv(pair[1], PEN_FROM_DAEMON, &neighbour), 1);
	struct { int fd; enum pen_page_kind kind; int writable; } got[] = {
		{ seat.fd[0], PEN_PAGE_TERMS, 0 }, { seat.fd[1], PEN_PAGE_LEDGER, 1 },
		{ seat.fd[2], PEN_PAGE_SIGNAL, 0 }, { neighbour.fd[0], PEN_PAGE_SIGNAL, 0 },
	};
	for (size_t i = 0; i < PEN_ARRAY_LEN(got); i++) {
		char path[40];
		snprintf(path, sizeof(path), "/proc/self/fd/%d", got[i].fd);
		assert_true(fcntl(got[i].fd, F_GETFD) & FD_CLOEXEC);
		pen_auto_close int rw = open(path, O_RDWR | O_CLOEXEC);
		/* Only a process of the page's owner gets this far. */
		if (geteuid() == 0)
			assert_true(rw >= 0);
		int fds[2] = { got[i].fd, rw };
		for (int j = 0; j < 2; j++) {
			void *p = mmap(NULL, pen_page_bytes(got[i].kind), PROT_READ | PROT_WRITE, MAP_SHARED, fds[j], 0);
			if ((p != MAP_FAILED) != got[i].writable)
				fail_msg("descriptor %zu, %s: mapped writable %d", i, j ? "reopened" : "as it came", p != MAP_FAILED);
			if (p != MAP_FAILED)
				munmap(p, pen_page_bytes(got[i].kind));
			if (!got[i].writable)
				assert_int_equal(pwrite(fds[j], "x", 1, 200), -1);
		}
	}
	close(ro);
	close(pair[0]);
	close(pair[1]);
	client_stop(&a);
	server_stop(&s);
}

static void test_refused(void **state)
{
	(void)state;
	struct server s;
	struct pen_attach a;
	struct pen_attach_device *d;
	pen_auto_packet struct pen_packet p = PEN_PACKET_INIT;
	server_start(&s);
	client_start(&s, &a, &d);
	assert_int_equal(step(&a, now_ns), 0);
	accept_client(&s);
	expect(&s, PEN_MSG_HELLO, &p);
	say_hello(&s, -EACCES);
	assert_int_equal(step(&a, now_ns), -EACCES);
	assert_int_equal(a.status, -EACCES);
	assert_string_equal(a.text, "words of the daemon");
	assert_int_equal(step(&a, now_ns + 100 * PEN_S), -EACCES);
	assert_int_equal(pen_attach_wait(&a, d, 0), -EACCES);
	client_stop(&a);

	/* No token, or half of one: refused without asking. */
	write_token(&s, "0001");
	client_start(&s, &a, &d);
	assert_int_equal(step(&a, now_ns), -EACCES);
	client_stop(&a);
	server_stop(&s);
}

static void test_device_refused(void **state)
{
	(void)state;
	struct server s;
	struct pen_attach a;
	struct pen_attach_device *d;
	pen_auto_packet struct pen_packet p = PEN_PACKET_INIT;
	server_start(&s);
	client_start(&s, &a, &d);
	assert_int_equal(step(&a, now_ns), 0);
	accept_client(&s);
	expect(&s, PEN_MSG_HELLO, &p);
	say_hello(&s, 0);
	assert_int_equal(step(&a, now_ns), 1);
	expect(&s, PEN_MSG_DEVICE, &p);
	struct pen_msg_seat m = { .status = -ENODEV, .key = KEY };
	say(&s, PEN_MSG_SEAT, &m, NULL, 0);
	assert_int_equal(pen_attach_wait(&a, d, PEN_S), -ENODEV);
	/* Not asked again on this connection. */
	assert_int_equal(step(&a, now_ns), 0);
	assert_int_equal(pen_packet_recv(s.conn, PEN_FROM_CLIENT, &p), -EAGAIN);
	client_stop(&a);
	server_stop(&s);
}

static void test_no_daemon(void **state)
{
	(void)state;
	struct server s;
	struct pen_attach a;
	struct pen_attach_device *d;
	server_start(&s);
	close(s.listener);
	client_start(&s, &a, &d);
	assert_int_equal(step(&a, now_ns), -ENOTCONN);
	assert_int_equal(pen_attach_wait(&a, d, 20 * PEN_MS), -EAGAIN);
	/* It comes: found at the next attempt. */
	listen_on(&s);
	now_ns = pen_mono_ns() + 10 * PEN_S;
	attach_fully(&s, &a, d);
	client_stop(&a);
	server_stop(&s);
}

/* The daemon is killed and comes back: the client hands back its pages and goes on in them. */
static void test_adopt(void **state)
{
	(void)state;
	struct server s;
	struct pen_attach a;
	struct pen_attach_device *d;
	server_start(&s);
	client_start(&s, &a, &d);
	attach_fully(&s, &a, d);
	assert_int_equal(pen_mem_charge(d->ledger, d->client, 4096, UINT64_MAX, 0), 0);
	const struct pen_terms_page *terms = d->terms;
	uint64_t epoch = pen_terms_epoch(terms);

	close(s.listener);
	hang_up(&s);
	drop_pages(&s);
	now_ns += PEN_MS;
	assert_int_equal(step(&a, now_ns), -ENOTCONN);
	assert_int_equal(pen_attach_return(&a, d, 1000 * PEN_S), -EAGAIN);   /* nobody answers: not waited for */
	now_ns = pen_mono_ns();
	/* Life goes on. */
	assert_int_equal(d->live, 1);
	assert_int_equal(pen_mem_charge(d->ledger, d->client, 4096, UINT64_MAX, 0), 0);
	assert_int_equal(step(&a, now_ns), -ENOTCONN);

	listen_on(&s);
	s.device_id = 1;
	now_ns += PEN_S;
	pen_auto_packet struct pen_packet p = PEN_PACKET_INIT, pages = PEN_PACKET_INIT;
	assert_int_equal(step(&a, now_ns), 0);
	accept_client(&s);
	expect(&s, PEN_MSG_HELLO, &p);
	assert_int_equal(p.m.hello.nadopt, 1);
	expect(&s, PEN_MSG_ADOPT, &pages);
	assert_int_equal(pages.nfds, 2);
	assert_int_equal(pages.m.adopt.seat, SEAT);
	assert_int_equal(pages.m.adopt.charged_bytes, 8192);
	uint8_t boot[16];
	pen_board_boot_id(boot);
	assert_int_equal(pen_page_verify(pages.fd[0], PEN_PAGE_LEDGER, boot, PEN_VERIFY_FINAL, NULL, NULL), 0);
	assert_int_equal(pen_page_verify(pages.fd[1], PEN_PAGE_SIGNAL, boot, PEN_VERIFY_FINAL, NULL, NULL), 0);
	void *ledger;
	assert_int_equal(pen_page_map_rw(pages.fd[0], PEN_PAGE_LEDGER, &ledger), 0);
	assert_int_equal(pen_mem_square(ledger, 1, NULL), 0);
	assert_int_equal(((struct pen_ledger_page *)ledger)->mem_used_bytes, 8192);

	/* The answer to ADOPT comes by itself, often together with the reply. */
	say_hello(&s, 0);
	make_page(&s, PEN_PAGE_TERMS, SLOT, &s.fd[PEN_PAGE_TERMS], &s.map[PEN_PAGE_TERMS]);
	assert_int_equal(pen_page_seal_terms(s.fd[PEN_PAGE_TERMS], NULL), 0);
	say_seat(&s, d->client, 1);
	say_ready(&s);
	assert_int_equal(step(&a, now_ns), 3);
	assert_int_equal(d->attached, 2);
	/* New terms at the old address, above the old epoch; the same ledger. */
	assert_ptr_equal(d->terms, terms);
	assert_true(pen_terms_epoch(d->terms) > epoch);
	assert_int_equal(pen_mem_uncharge(d->ledger, d->client, 8192), 8192);
	assert_int_equal(((struct pen_ledger_page *)ledger)->mem_used_bytes, 0);
	pen_page_unmap(ledger, PEN_PAGE_LEDGER);
	client_stop(&a);
	server_stop(&s);
}

/* closefrom(), and the application's own files under our numbers: left alone, and the client attaches anew. */
static void test_closefrom(void **state)
{
	(void)state;
	struct server s;
	struct pen_attach a;
	struct pen_attach_device *d;
	server_start(&s);
	client_start(&s, &a, &d);
	attach_fully(&s, &a, d);
	int number[3] = { a.sock.fd, d->ledger_fd.fd, d->signal_fd.fd }, theirs[3];
	int pipes[2];
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	for (int i = 0; i < 3; i++) {
		assert_true(number[i] >= 200);
		close(number[i]);
		theirs[i] = i == 2 ? -1 : dup2(pipes[1], number[i]);
	}
	assert_int_equal(pen_fdid_check(&a.sock), -ESTALE);
	assert_int_equal(pen_fdid_check(&d->signal_fd), -EBADF);
	pen_auto_packet struct pen_packet p = PEN_PACKET_INIT;
	/* One that was good is dialled anew at once. */
	assert_int_equal(step(&a, now_ns), 0);
	assert_int_equal(pen_packet_recv(s.conn, PEN_FROM_CLIENT, &p), 0);
	accept_client(&s);
	expect(&s, PEN_MSG_HELLO, &p);
	assert_int_equal(p.m.hello.nadopt, 1);
	expect(&s, PEN_MSG_ADOPT, &p);
	assert_int_equal(p.nfds, 0);
	/* Pages that were not taken: it asks like everybody. */
	say_hello(&s, 0);
	say_no_seat(&s, -ENODEV);
	assert_int_equal(step(&a, now_ns), 2);
	expect(&s, PEN_MSG_DEVICE, &p);
	say_seat(&s, d->client, 1);
	say_ready(&s);
	assert_int_equal(step(&a, now_ns), 2);
	assert_int_equal(d->attached, 2);
	client_stop(&a);
	/* Theirs are open still, and nothing was written into them. */
	close(pipes[1]);
	for (int i = 0; i < 2; i++)
		assert_int_equal(fcntl(theirs[i], F_GETFD) >= 0, 1);
	struct stat st;
	assert_int_equal(fstat(pipes[0], &st), 0);
	fcntl(pipes[0], F_SETFL, O_NONBLOCK);
	char c;
	assert_int_equal(read(pipes[0], &c, 1), -1);
	close(theirs[0]);
	close(theirs[1]);
	close(pipes[0]);
	server_stop(&s);
}

/* In the child: no seat, nothing of the parent's to write, a seat of its own on demand. */
static int child_of_fork(struct server *s, struct pen_attach *a, struct pen_attach_device *d)
{
	const struct pen_terms_page *old = d->terms;
	struct pen_ledger_page *parents = d->ledger;
	int parents_sock = a->sock.fd;
	/* A page of the parent's that can be read is harmless; one that could be written is not there. */
	if (pen_terms_epoch(old) == 0 || msync((void *)parents, 1, MS_ASYNC) == 0)
		return 10;
	if (pen_attach_after_fork(a) != 0 || d->live || a->sock.fd != -1 || fcntl(parents_sock, F_GETFD) >= 0)
		return 11;
	if (d->ledger == parents || d->ledger->mem_used_bytes || pen_attach_neighbour(d, 9, 3))
		return 12;
	close(s->listener);
	return step(a, now_ns) == 0 && a->state == PEN_ATTACH_GREETING ? 0 : 13;
}

static void test_fork(void **state)
{
	(void)state;
	if (!fork_is_real())
		skip();
	struct server s;
	struct pen_attach a;
	struct pen_attach_device *d;
	server_start(&s);
	client_start(&s, &a, &d);
	attach_fully(&s, &a, d);
	pen_page_unmap(say_neighbour(&s, 9, 3, 1), PEN_PAGE_SIGNAL);
	assert_int_equal(step(&a, now_ns), 1);
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0)
		_exit(child_of_fork(&s, &a, d));
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	/* The parent is untouched. */
	assert_int_equal(step(&a, now_ns), 0);
	assert_int_equal(d->live, 1);
	assert_int_equal(pen_attach_resend(&a, d), 0);
	client_stop(&a);
	server_stop(&s);
}

/* Without any of our code: does a descriptor get lost on its way? */
static int descriptors_are_lost(const int pair[2])
{
	struct pen_msg_neighbour m = { 0 };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { &m, sizeof(m) };
	struct msghdr in = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	assert_int_equal(pen_packet_send(pair[0], PEN_MSG_NEIGHBOUR, &m, &pair[0], 1), 0);
	assert_true(recvmsg(pair[1], &in, MSG_CMSG_CLOEXEC) > 0);
	if (in.msg_flags & MSG_CTRUNC)
		return 1;
	int fd;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&in)), sizeof(fd));
	close(fd);
	return 0;
}

/* No free descriptor: what came is reported as lost, asked for again, and nothing leaks. */
struct cancelled {
	struct pen_attach *a;
	struct pen_attach_device *d;
	int stepped, waited;
};

/* Cancelled already, and at every point where the C library looks: not one of them may be ours. */
static void *step_cancelled(void *arg)
{
	struct cancelled *c = arg;
	pthread_cancel(pthread_self());
	pen_log(PEN_LOG_ERROR, "a line that is meant to be here");
	c->stepped = pen_attach_step(c->a, now_ns);
	c->waited = pen_attach_wait(c->a, c->d, 1);
	pthread_testcancel();
	return NULL;
}

static void test_cancel(void **state)
{
	(void)state;
	struct server s;
	struct pen_attach a;
	struct pen_attach_device *d;
	server_start(&s);
	client_start(&s, &a, &d);
	struct cancelled c = { .a = &a, .d = d, .stepped = 1, .waited = 1 };
	pthread_t thread;
	void *end;
	assert_int_equal(pthread_create(&thread, NULL, step_cancelled, &c), 0);
	assert_int_equal(pthread_join(thread, &end), 0);
	assert_ptr_equal(end, PTHREAD_CANCELED);
	assert_int_equal(c.stepped, 0);
	assert_int_equal(c.waited, -EAGAIN);
	/* The lock is free: the others go on. */
	assert_int_not_equal(step(&a, now_ns), -EBUSY);
	client_stop(&a);
	server_stop(&s);
}

static void test_out_of_descriptors(void **state)
{
	(void)state;
	struct server s;
	struct pen_attach a;
	struct pen_attach_device *d;
	server_start(&s);
	client_start(&s, &a, &d);
	attach_fully(&s, &a, d);
	pen_page_unmap(say_neighbour(&s, 9, 3, 1), PEN_PAGE_SIGNAL);
	int pair[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	struct rlimit old, none = { 0 };
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none.rlim_max = old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	int r = step(&a, now_ns), limited = descriptors_are_lost(pair);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	close(pair[0]);
	close(pair[1]);
	assert_int_equal(r, 1);
	if (!limited) {
		/* valgrind and qemu-user do not pass the limit on to the kernel. */
		client_stop(&a);
		server_stop(&s);
		skip();
	}
	assert_null(pen_attach_neighbour(d, 9, 3));
	pen_auto_packet struct pen_packet p = PEN_PACKET_INIT;
	expect(&s, PEN_MSG_RESEND, &p);
	pen_page_unmap(say_neighbour(&s, 9, 3, 2), PEN_PAGE_SIGNAL);
	assert_int_equal(step(&a, now_ns), 1);
	assert_non_null(pen_attach_neighbour(d, 9, 3));
	client_stop(&a);
	server_stop(&s);
}

/* A daemon that does not answer is left; one that answers nonsense too; the seat and its pages are kept. */
static void test_bad_daemon(void **state)
{
	(void)state;
	struct server s;
	struct pen_attach a;
	struct pen_attach_device *d;
	server_start(&s);
	client_start(&s, &a, &d);
	assert_int_equal(step(&a, now_ns), 0);
	now_ns += PEN_ATTACH_ANSWER_NS + 1;
	assert_int_equal(step(&a, now_ns), -ENOTCONN);
	accept_client(&s);   /* the connection that was given up */

	/* Pages of another boot, another device, another kind: not mapped. */
	for (int bad = 0; bad < 4; bad++) {
		pen_auto_packet struct pen_packet p = PEN_PACKET_INIT;
		now_ns += 10 * PEN_S;
		assert_int_equal(step(&a, now_ns), 0);
		accept_client(&s);
		expect(&s, PEN_MSG_HELLO, &p);
		say_hello(&s, 0);
		assert_int_equal(step(&a, now_ns), 1);
		expect(&s, PEN_MSG_DEVICE, &p);
		make_pages(&s);
		struct pen_page_head *head = s.map[bad == 3 ? PEN_PAGE_TERMS : PEN_PAGE_LEDGER];
		if (bad == 0)
			head->boot_id[3] ^= 1;
		else if (bad == 1)
			head->device_id++;
		else if (bad == 2)
			head->magic = PEN_MAGIC_SIGNAL;
		else
			head->slot++;
		say_seat(&s, 0, 0);
		assert_int_equal(step(&a, now_ns), -ENOTCONN);
		assert_int_equal(d->live, 0);
		assert_int_equal(pen_terms_epoch(d->terms), 0);
	}
	client_stop(&a);
	server_stop(&s);
}

static void test_garbage_to_client(void **state)
{
	(void)state;
	struct server s;
	struct pen_attach a;
	struct pen_attach_device *d;
	int before = count_fds();
	server_start(&s);
	client_start(&s, &a, &d);
	attach_fully(&s, &a, d);
	unsigned seed = 1;
	for (int i = 0; i < 200; i++) {
		unsigned char raw[PEN_PROTO_MAX + 64];
		for (size_t j = 0; j < sizeof(raw); j++)
			raw[j] = (unsigned char)rand_r(&seed);
		size_t n = 1 + (size_t)rand_r(&seed) % sizeof(raw);
		if (i & 1) {
			struct pen_msg_head h = { PEN_PROTO_MAGIC, PEN_PROTO_MAJOR, PEN_PROTO_MINOR,
						  (uint32_t)rand_r(&seed) % (PEN_MSG_MAX_ + 1), (uint32_t)n };
			memcpy(raw, &h, PEN_MIN(n, sizeof(h)));
		}
		now_ns += 10 * PEN_S;
		if (send(s.conn, raw, n, MSG_NOSIGNAL) < 0) {
			/* It has hung up on the last one. Whatever it says, take it and accept nothing. */
			while (step(&a, now_ns) < 0)
				now_ns += 10 * PEN_S;
			accept_client(&s);
			continue;
		}
		step(&a, now_ns);
		assert_int_equal(d->live, 1);
	}
	client_stop(&a);
	server_stop(&s);
	assert_int_equal(count_fds(), before);
}

/* ---- packets ----------------------------------------------------------------------------------------------------- */

static void test_packet_table(void **state)
{
	(void)state;
	for (int t = 1; t < PEN_MSG_MAX_; t++) {
		assert_true(pen_packet_size((enum pen_msg)t) >= sizeof(struct pen_msg_head));
		assert_true(pen_packet_size((enum pen_msg)t) <= PEN_PROTO_MAX);
	}
	assert_int_equal(pen_packet_size((enum pen_msg)0), 0);
	assert_int_equal(pen_packet_size(PEN_MSG_MAX_), 0);
	assert_string_equal(pen_packet_name(PEN_MSG_MAX_), "unknown");
}

static int check(union pen_packet_body *m, size_t size, unsigned nfds, enum pen_packet_from from)
{
	struct pen_packet p = { .m = *m, .fd = { -1, -1, -1 }, .nfds = nfds };
	return pen_packet_check(&p, size, from);
}

static void test_packet_check(void **state)
{
	(void)state;
	size_t n = sizeof(struct pen_msg_device);
	union pen_packet_body good = { .device = { .head = { PEN_PROTO_MAGIC, PEN_PROTO_MAJOR, PEN_PROTO_MINOR,
							     PEN_MSG_DEVICE, (uint32_t)n }, .key = "k" } }, m;
	assert_int_equal(check(&good, n, 0, PEN_FROM_CLIENT), 0);
	assert_int_equal(check(&good, n, 0, PEN_FROM_DAEMON), -EPROTO);
	assert_int_equal(check(&good, n, 1, PEN_FROM_CLIENT), -EPROTO);
	assert_int_equal(check(&good, n - 1, 0, PEN_FROM_CLIENT), -EPROTO);
	assert_int_equal(check(&good, 0, 0, PEN_FROM_CLIENT), -EPROTO);
	m = good;
	m.head.major++;
	assert_int_equal(check(&m, n, 0, PEN_FROM_CLIENT), -EPROTONOSUPPORT);
	m = good;
	m.head.magic++;
	assert_int_equal(check(&m, n, 0, PEN_FROM_CLIENT), -EPROTO);
	m = good;
	memset(m.device.key, 'x', sizeof(m.device.key));
	assert_int_equal(check(&m, n, 0, PEN_FROM_CLIENT), -EPROTO);
	/* Of a device's name only what base/devkey.h makes: it is printed, and shown in JSON. */
	static const char *const bad[] = { "", "a b", "a\n", "a\x1b[31m", "a\"", "a\\", "\xff\xfe", "a{", "\xc3\xa9" };
	for (size_t i = 0; i < PEN_ARRAY_LEN(bad); i++) {
		m = good;
		memcpy(m.device.key, bad[i], strlen(bad[i]) + 1);
		assert_int_equal(check(&m, n, 0, PEN_FROM_CLIENT), -EPROTO);
	}
	m = good;
	memcpy(m.device.key, "opencl:A-b.c_d/E#0", 19);
	assert_int_equal(check(&m, n, 0, PEN_FROM_CLIENT), 0);
	/* A longer packet only from a newer minor version; the tail is not seen. */
	m = good;
	m.head.size += 8;
	assert_int_equal(check(&m, n + 8, 0, PEN_FROM_CLIENT), -EPROTO);
	m.head.minor++;
	m.raw[n] = 1;
	struct pen_packet p = { .m = m };
	assert_int_equal(pen_packet_check(&p, n + 8, PEN_FROM_CLIENT), 0);
	assert_int_equal(p.m.raw[n], 0);

	n = sizeof(struct pen_msg_seat);
	union pen_packet_body seat = { .seat = { .head = { PEN_PROTO_MAGIC, PEN_PROTO_MAJOR, PEN_PROTO_MINOR, PEN_MSG_SEAT,
							   (uint32_t)n }, .generation = 1 } };
	assert_int_equal(check(&seat, n, 3, PEN_FROM_DAEMON), 0);
	assert_int_equal(check(&seat, n, 1, PEN_FROM_DAEMON), -EPROTO);
	m = seat;
	m.seat.client = PEN_LEDGER_CLIENTS;
	assert_int_equal(check(&m, n, 3, PEN_FROM_DAEMON), -EPROTO);
	m = seat;
	m.seat.seat = PEN_SEATS;
	assert_int_equal(check(&m, n, 3, PEN_FROM_DAEMON), -EPROTO);
	m = seat;
	m.seat.status = 5;
	assert_int_equal(check(&m, n, 3, PEN_FROM_DAEMON), -EPROTO);
}

static void test_packet_fds(void **state)
{
	(void)state;
	int before = count_fds(), pair[2], dup_of[8];
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	for (int i = 0; i < 8; i++)
		dup_of[i] = pair[0];
	/* Descriptors where none belong, and more than any packet has. */
	unsigned most = fork_is_real() ? 8 : PEN_PROTO_FDS;   /* qemu-user leaks what it cuts off */
	for (unsigned n = 0; n <= most; n++) {
		struct pen_msg_device m = { .key = "k" };
		pen_auto_packet struct pen_packet p = PEN_PACKET_INIT;
		if (n <= PEN_PROTO_FDS) {
			assert_int_equal(pen_packet_send(pair[0], PEN_MSG_DEVICE, &m, dup_of, n), 0);
		} else {
			union {
				struct cmsghdr align;
				char bytes[CMSG_SPACE(sizeof(dup_of))];
			} control = { 0 };
			m.head = (struct pen_msg_head){ PEN_PROTO_MAGIC, PEN_PROTO_MAJOR, PEN_PROTO_MINOR, PEN_MSG_DEVICE,
							sizeof(m) };
			struct iovec iov = { &m, sizeof(m) };
			struct msghdr out = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
					      .msg_controllen = CMSG_SPACE(sizeof(int) * n) };
			struct cmsghdr *c = CMSG_FIRSTHDR(&out);
			c->cmsg_level = SOL_SOCKET;
			c->cmsg_type = SCM_RIGHTS;
			c->cmsg_len = CMSG_LEN(sizeof(int) * n);
			memcpy(CMSG_DATA(c), dup_of, sizeof(int) * n);
			assert_true(sendmsg(pair[0], &out, 0) > 0);
		}
		assert_int_equal(pen_packet_recv(pair[1], PEN_FROM_CLIENT, &p), n ? -EPROTO : 1);
	}
	struct pen_packet p;
	assert_int_equal(pen_packet_recv(pair[1], PEN_FROM_CLIENT, &p), -EAGAIN);
	assert_int_equal(pen_packet_send(pair[1], PEN_MSG_MAX_, &p, NULL, 0), -EINVAL);
	close(pair[0]);
	assert_int_equal(pen_packet_recv(pair[1], PEN_FROM_CLIENT, &p), 0);
	/* No SIGPIPE. */
	struct pen_msg_device_ref ref = { 0 };
	assert_int_equal(pen_packet_send(pair[1], PEN_MSG_READY, &ref, NULL, 0), -EPIPE);
	close(pair[1]);
	assert_int_equal(pen_packet_recv(pair[1], PEN_FROM_CLIENT, &p), -EBADF);
	assert_int_equal(count_fds(), before);
}

/* A daemon that floods is not read for ever in one step, and a client that does not read stops nobody. */
static void test_flood(void **state)
{
	(void)state;
	struct server s;
	struct pen_attach a;
	struct pen_attach_device *d;
	server_start(&s);
	client_start(&s, &a, &d);
	attach_fully(&s, &a, d);
	struct pen_msg_neighbour m = { .device_id = 99, .seat = 1, .generation = 1 };
	int sent = 0, r;
	while ((r = pen_packet_send(s.conn, PEN_MSG_NEIGHBOUR, &m, &s.fd[PEN_PAGE_SIGNAL], 1)) == 0)
		sent++;
	assert_int_equal(r, -EAGAIN);
	int taken = 0;
	while ((r = step(&a, now_ns)) > 0) {
		assert_true(r <= 256);
		taken += r;
	}
	assert_int_equal(taken, sent);
	client_stop(&a);
	server_stop(&s);
}

/* ---- peers ------------------------------------------------------------------------------------------------------- */

static void test_peer(void **state)
{
	(void)state;
	uint32_t have = pen_board_features();
	const uint32_t modes[] = { PEN_FEATURE_PEERPIDFD | PEN_FEATURE_PIDFD_OPEN, PEN_FEATURE_PIDFD_OPEN, 0 };
	for (size_t i = 0; i < PEN_ARRAY_LEN(modes); i++) {
		struct server s;
		server_start(&s);
		int hold[2];
		assert_int_equal(pipe2(hold, O_CLOEXEC), 0);
		fflush(NULL);
		pid_t pid = fork();
		if (pid == 0) {
			char c;
			close(hold[1]);
			_exit(pen_attach_dial_(s.dir) < 0 || read(hold[0], &c, 1) != 0);
		}
		close(hold[0]);
		fcntl(s.listener, F_SETFL, 0);
		s.conn = accept4(s.listener, NULL, NULL, SOCK_CLOEXEC);
		struct pen_peer peer = PEN_PEER_INIT;
		struct pen_err err = PEN_ERR_INIT;
		if (pen_peer_identify_(s.conn, modes[i], &peer, &err) < 0)
			fail_msg("%s", err.text);
		assert_int_equal(peer.pid, pid);
		assert_int_equal(peer.uid, geteuid());
		uint64_t start;
		assert_int_equal(pen_peer_start_time(pid, &start), 0);
		assert_int_equal(peer.start_time, start);
		assert_int_equal(pen_peer_check_start(&peer, start), 0);
		assert_int_equal(peer.exact, i == 0 && (have & PEN_FEATURE_PEERPIDFD));
		assert_int_equal(pen_peer_check_start(&peer, start + 1), peer.exact ? 0 : -EACCES);
		assert_int_equal(peer.pidfd >= 0, (have & modes[i]) != 0);
		assert_true(pen_peer_alive(&peer));
		/* Dead and not yet reaped is dead; the connection of a dead one is nobody's. */
		close(hold[1]);
		siginfo_t info;
		assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
		assert_int_equal(info.si_status, 0);
		assert_false(pen_peer_alive(&peer));
		struct pen_peer again = PEN_PEER_INIT;
		assert_int_equal(pen_peer_identify_(s.conn, modes[i], &again, NULL), -ESRCH);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		assert_false(pen_peer_alive(&peer));
		assert_int_equal(pen_peer_identify_(s.conn, modes[i], &again, NULL), -ESRCH);
		pen_peer_finish(&peer);
		server_stop(&s);
	}
}

/* ---- a daemon that is another thread, for the waiting call ------------------------------------------------------- */

static void *serve_one(void *arg)
{
	struct server *s = arg;
	fcntl(s->listener, F_SETFL, 0);
	s->conn = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
	for (int steps = 0; steps < 3; steps++) {
		pen_auto_packet struct pen_packet p = PEN_PACKET_INIT;
		char c;
		if (recv(s->conn, &c, 1, MSG_PEEK) <= 0 || pen_packet_recv(s->conn, PEN_FROM_CLIENT, &p) != 1)
			break;
		if (p.m.head.type == PEN_MSG_HELLO)
			say_hello(s, 0);
		else if (p.m.head.type == PEN_MSG_DEVICE)
			say_seat(s, 0, 0);
		else if (p.m.head.type == PEN_MSG_MAPPED)
			say_ready(s);
	}
	return NULL;
}

struct waiter {
	struct pen_attach *a;
	struct pen_attach_device *d;
};

static void *wait_beside(void *arg)
{
	struct waiter *w = arg;
	return (void *)(intptr_t)pen_attach_wait(w->a, w->d, 30 * PEN_S);
}

static void test_wait(void **state)
{
	(void)state;
	struct server s;
	struct pen_attach a;
	struct pen_attach_device *d;
	server_start(&s);
	make_pages(&s);
	client_start(&s, &a, &d);
	pthread_t daemon_thread, other;
	struct waiter w = { &a, d };
	void *r;
	assert_int_equal(pthread_create(&daemon_thread, NULL, serve_one, &s), 0);
	assert_int_equal(pthread_create(&other, NULL, wait_beside, &w), 0);
	assert_int_equal(pen_attach_wait(&a, d, 30 * PEN_S), 0);
	pthread_join(other, &r);
	assert_null(r);
	pthread_join(daemon_thread, NULL);
	assert_int_equal(d->live, 1);
	client_stop(&a);
	server_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_packet_table),
		cmocka_unit_test(test_packet_check),
		cmocka_unit_test(test_packet_fds),
		cmocka_unit_test(test_attach),
		cmocka_unit_test(test_received_descriptors),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_device_refused),
		cmocka_unit_test(test_no_daemon),
		cmocka_unit_test(test_adopt),
		cmocka_unit_test(test_closefrom),
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_out_of_descriptors),
		cmocka_unit_test(test_bad_daemon),
		cmocka_unit_test(test_garbage_to_client),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_peer),
		cmocka_unit_test(test_wait),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
