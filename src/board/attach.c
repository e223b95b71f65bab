/* SPDX-License-Identifier: Apache-2.0 */
#include "board/attach.h"
#include "base/auto.h"
#include "base/cancel.h"
#include "base/clock.h"
#include "board/feature.h"
#include "board/internal.h"
#include "board/page.h"
#include "board/peer.h"
#include "board/testpoint.h"

#include <poll.h>
#include <string.h>

#define STEP_PACKETS 256
#define POLL_MS 50   /* longest single sleep of pen_attach_wait: another thread may have moved the connection meanwhile */

/* Keeps *@fd under @id; *@fd is taken. */
static int keep_fd(struct pen_fdid *id, int *fd)
{
	pen_fdid_close(id);
	int high = pen_fd_move_up_(PEN_TAKE_FD(*fd));
	int r = pen_fdid_note(id, high);
	if (r < 0)
		close(high);
	return r;
}

int pen_attach_init(struct pen_attach *a, const char *dir)
{
	PEN_KEEP_ERRNO;
	PEN_NO_CANCEL;
	memset(a, 0, sizeof(*a));
	a->sock.fd = -1;
	a->poll_fd = -1;
	a->retry_step_ns = PEN_ATTACH_RETRY_MIN_NS;
	if (strlen(dir) >= sizeof(a->dir))
		return -ENAMETOOLONG;
	memcpy(a->dir, dir, strlen(dir) + 1);
	a->have_boot_id = pen_board_boot_id(a->boot_id) == 0;
	/* Now, while the process still has the rights that it started with. Missing: tried again when connecting. */
	pen_attach_token_(a);
	return 0;
}

/* ---- state ------------------------------------------------------------------------------------------------------- */

/* After every change of a->sock. */
static void set_state(struct pen_attach *a, enum pen_attach_state s)
{
	atomic_store_explicit(&a->poll_fd, a->sock.fd, memory_order_relaxed);
	atomic_store_explicit(&a->state, s, memory_order_release);
}

static enum pen_attach_state get_state(struct pen_attach *a)
{
	return (enum pen_attach_state)atomic_load_explicit(&a->state, memory_order_acquire);
}

static void set_seat_state(struct pen_attach_device *d, enum pen_attach_device_state s)
{
	atomic_store_explicit(&d->seat_state, s, memory_order_release);
}

static enum pen_attach_device_state get_seat_state(struct pen_attach_device *d)
{
	return (enum pen_attach_device_state)atomic_load_explicit(&d->seat_state, memory_order_acquire);
}

static uint32_t ndevices(struct pen_attach *a)
{
	return atomic_load_explicit(&a->ndevices, memory_order_acquire);
}

/* The connection is of no use: try again later. Pages stay. */
static void hang_up(struct pen_attach *a, uint64_t now_ns)
{
	pen_fdid_close(&a->sock);
	set_state(a, PEN_ATTACH_CLOSED);
	/* One that was good is dialled anew at once: the daemon may have been restarted long ago. */
	a->retry_at_ns = now_ns + a->retry_step_ns;
	uint64_t longer = PEN_MIN(2 * a->retry_step_ns, PEN_ATTACH_RETRY_MAX_NS);
	a->retry_step_ns = PEN_MAX(longer, PEN_ATTACH_RETRY_MIN_NS);
	for (uint32_t i = 0; i < ndevices(a); i++) {
		set_seat_state(a->device[i], PEN_SEAT_STATE_NONE);
		atomic_store_explicit(&a->device[i]->status, 0, memory_order_release);
	}
}

static int refuse(struct pen_attach *a, int status, const char *text)
{
	pen_fdid_close(&a->sock);
	memcpy(a->text, text, strnlen(text, sizeof(a->text) - 1));
	atomic_store_explicit(&a->status, status, memory_order_release);
	set_state(a, PEN_ATTACH_REFUSED);
	return -EACCES;
}

/* ---- what the client says ---------------------------------------------------------------------------------------- */

static int say_adopt(struct pen_attach *a, struct pen_attach_device *d)
{
	struct pen_msg_adopt m = { .seat = d->seat, .generation = d->generation };
	memcpy(m.key, d->key, sizeof(m.key));
	m.charged_bytes = atomic_load_explicit(&d->ledger->client[d->client].charged_bytes, memory_order_relaxed);
	int fds[2] = { d->ledger_fd.fd, d->signal_fd.fd };
	/* Without descriptors: the pages are mapped still, the application closed what they came by. */
	unsigned n = pen_fdid_check(&d->ledger_fd) == 0 && pen_fdid_check(&d->signal_fd) == 0 ? 2 : 0;
	int r = pen_packet_send(a->sock.fd, PEN_MSG_ADOPT, &m, fds, n);
	if (r == 0)   /* its answer is a SEAT, right behind the reply */
		set_seat_state(d, PEN_SEAT_STATE_ADOPTING);
	return r;
}

static int greet(struct pen_attach *a, uint64_t now_ns)
{
	if (!a->have_token && pen_attach_token_(a) < 0)
		return refuse(a, -EACCES, "the tenant directory has no readable token");
	pen_auto_close int sock = pen_attach_dial_(a->dir);
	if (sock < 0)
		return sock;
	int r = keep_fd(&a->sock, &sock);
	if (r < 0)
		return r;
	struct pen_msg_hello m = { .pid = (uint32_t)getpid() };
	memcpy(m.token, a->token, sizeof(m.token));
	pen_peer_start_time(0, &m.start_time);
	snprintf(m.comm, sizeof(m.comm), "%s", program_invocation_short_name);
	for (uint32_t i = 0; i < ndevices(a); i++)
		m.nadopt += a->device[i]->pages_held;
	r = pen_packet_send(a->sock.fd, PEN_MSG_HELLO, &m, NULL, 0);
	PEN_TEST_POINT("attach:hello");
	for (uint32_t i = 0; i < ndevices(a) && r == 0; i++)
		if (a->device[i]->pages_held)
			r = say_adopt(a, a->device[i]);
	if (r < 0)
		return r;
	a->answer_by_ns = now_ns + PEN_ATTACH_ANSWER_NS;
	set_state(a, PEN_ATTACH_GREETING);
	return 0;
}

static int say_device(struct pen_attach *a, struct pen_attach_device *d, uint64_t now_ns)
{
	struct pen_msg_device m = { .mem_bytes = d->mem_bytes, .units = d->units };
	memcpy(m.key, d->key, sizeof(m.key));
	memcpy(m.model, d->model, sizeof(m.model));
	int r = pen_packet_send(a->sock.fd, PEN_MSG_DEVICE, &m, NULL, 0);
	PEN_TEST_POINT("attach:device");
	if (r == 0) {
		set_seat_state(d, PEN_SEAT_STATE_ASKED);
		a->answer_by_ns = now_ns + PEN_ATTACH_ANSWER_NS;
	}
	return r;
}

static int say_ref(struct pen_attach *a, enum pen_msg type, uint64_t device_id)
{
	struct pen_msg_device_ref m = { .device_id = device_id };
	return pen_packet_send(a->sock.fd, type, &m, NULL, 0);
}

/* ---- what the daemon says ---------------------------------------------------------------------------------------- */

static int page_good(struct pen_attach *a, int fd, enum pen_page_kind kind, uint64_t device_id, uint32_t slot)
{
	struct pen_page_head head;
	int r = pen_page_verify(fd, kind, a->have_boot_id ? a->boot_id : NULL, 0, &head, NULL);
	if (r < 0)
		return r;
	return head.device_id == device_id && head.slot == slot ? 0 : -EPROTO;
}

static int seat_pages_good(struct pen_attach *a, struct pen_attach_device *d, struct pen_packet *p)
{
	const struct pen_msg_seat *m = &p->m.seat;
	int r = page_good(a, p->fd[0], PEN_PAGE_TERMS, m->device_id, m->slot);
	if (r < 0)
		return r;
	if (m->adopted)
		return d->pages_held && m->seat == d->seat && m->client == d->client ? 0 : -EPROTO;
	r = page_good(a, p->fd[1], PEN_PAGE_LEDGER, m->device_id, m->slot);
	return r < 0 ? r : page_good(a, p->fd[2], PEN_PAGE_SIGNAL, m->device_id, m->seat);
}

static int map_seat(struct pen_attach_device *d, struct pen_packet *p)
{
	const struct pen_msg_seat *m = &p->m.seat;
	if (!m->adopted) {
		d->pages_held = 0;
		int r = pen_page_map_at(p->fd[2], PEN_PAGE_SIGNAL, 1, d->signal);
		if (r == 0)
			r = pen_page_map_at(p->fd[1], PEN_PAGE_LEDGER, 1, d->ledger);
		if (r == 0)
			r = keep_fd(&d->ledger_fd, &p->fd[1]);
		if (r == 0)
			r = keep_fd(&d->signal_fd, &p->fd[2]);
		if (r < 0)
			return r;
	}
	int r = pen_page_map_at(p->fd[0], PEN_PAGE_TERMS, 0, (void *)(uintptr_t)d->terms);
	if (r < 0)
		return r;
	/* The numbers of another daemon may name other clients: nothing counts before its descriptor has come again. */
	for (uint32_t i = 0; i < PEN_SEATS; i++)
		atomic_store_explicit(&d->neighbour_generation[i], 0, memory_order_release);
	atomic_store_explicit(&d->fds_epoch, 0, memory_order_release);
	d->device_id = m->device_id;
	d->seat = m->seat;
	d->generation = m->generation;
	d->slot = m->slot;
	d->client = m->client;
	d->lost = 0;
	atomic_store_explicit(&d->signal->generation, m->generation, memory_order_release);
	d->pages_held = 1;
	return 0;
}

static int take_seat(struct pen_attach *a, struct pen_packet *p, uint64_t now_ns)
{
	const struct pen_msg_seat *m = &p->m.seat;
	struct pen_attach_device *d = NULL;
	for (uint32_t i = 0; i < ndevices(a) && !d; i++)
		if (strcmp(a->device[i]->key, m->key) == 0)
			d = a->device[i];
	bool adopting = d && get_seat_state(d) == PEN_SEAT_STATE_ADOPTING;
	if (!d || (!adopting && get_seat_state(d) != PEN_SEAT_STATE_ASKED))
		return -EPROTO;
	if (m->status < 0) {
		set_seat_state(d, PEN_SEAT_STATE_NONE);
		/* Pages that nobody wants are no answer about the device yet: ask for a seat like everybody. */
		if (!adopting)
			atomic_store_explicit(&d->status, m->status, memory_order_release);
		return 0;
	}
	if (p->fds_lost)
		return -EMFILE;
	int r = seat_pages_good(a, d, p);
	if (r == 0)
		r = map_seat(d, p);
	PEN_TEST_POINT("attach:seat");
	if (r == 0 && !m->adopted)   /* an adopted signal page is sealed already */
		r = say_ref(a, PEN_MSG_MAPPED, d->device_id);
	PEN_TEST_POINT("attach:mapped");
	if (r < 0)
		return r;
	set_seat_state(d, PEN_SEAT_STATE_MAPPED);
	a->answer_by_ns = now_ns + PEN_ATTACH_ANSWER_NS;
	return 0;
}

static struct pen_attach_device *by_id(struct pen_attach *a, uint64_t device_id)
{
	for (uint32_t i = 0; i < ndevices(a); i++)
		if (a->device[i]->device_id == device_id && a->device[i]->pages_held &&
		    get_seat_state(a->device[i]) >= PEN_SEAT_STATE_MAPPED)
			return a->device[i];
	return NULL;
}

static int take_ready(struct pen_attach *a, uint64_t device_id)
{
	struct pen_attach_device *d = by_id(a, device_id);
	if (!d || get_seat_state(d) != PEN_SEAT_STATE_MAPPED)
		return -EPROTO;
	a->retry_step_ns = 0;
	set_seat_state(d, PEN_SEAT_STATE_LIVE);
	atomic_fetch_add_explicit(&d->attached, 1, memory_order_release);
	atomic_store_explicit(&d->live, 1, memory_order_release);
	return 0;
}

static void take_neighbour(struct pen_attach *a, struct pen_packet *p)
{
	const struct pen_msg_neighbour *m = &p->m.neighbour;
	struct pen_attach_device *d = by_id(a, m->device_id);
	if (!d || m->seat == d->seat)
		return;
	unsigned char *at = (unsigned char *)(uintptr_t)d->neighbours + (size_t)m->seat * d->stride;
	_Atomic uint32_t *generation = &d->neighbour_generation[m->seat];
	/* A page that is none is left out: its seat stays without a page, and nobody waits on it. */
	if (!p->fds_lost && page_good(a, p->fd[0], PEN_PAGE_SIGNAL, m->device_id, m->seat) == 0) {
		atomic_store_explicit(generation, 0, memory_order_release);
		if (pen_page_map_at(p->fd[0], PEN_PAGE_SIGNAL, 0, at) == 0)
			atomic_store_explicit(generation, m->generation, memory_order_release);
		else
			d->lost = 1;
	} else if (p->fds_lost) {
		d->lost = 1;
	}
	atomic_store_explicit(&d->fds_epoch, m->fds_epoch, memory_order_release);
}

static int take_packet(struct pen_attach *a, struct pen_packet *p, uint64_t now_ns)
{
	enum pen_attach_state state = get_state(a);
	if (p->m.head.type == PEN_MSG_HELLO_REPLY) {
		if (state != PEN_ATTACH_GREETING)
			return -EPROTO;
		/* Busy passes; everything else is for good. */
		if (p->m.hello_reply.status == -EBUSY)
			return -EBUSY;
		if (p->m.hello_reply.status < 0)
			return refuse(a, p->m.hello_reply.status, p->m.hello_reply.text);
		set_state(a, PEN_ATTACH_OPEN);
		return 0;
	}
	if (state != PEN_ATTACH_OPEN)
		return -EPROTO;
	switch (p->m.head.type) {
	case PEN_MSG_SEAT:
		return take_seat(a, p, now_ns);
	case PEN_MSG_READY:
		return take_ready(a, p->m.ref.device_id);
	case PEN_MSG_NEIGHBOUR:
		take_neighbour(a, p);
		return 0;
	default:
		return -EPROTO;
	}
}

/* ---- the machine ------------------------------------------------------------------------------------------------- */

static int take_packets(struct pen_attach *a, uint64_t now_ns)
{
	int taken = 0;
	while (taken < STEP_PACKETS) {
		pen_auto_packet struct pen_packet p = PEN_PACKET_INIT;
		int r = pen_packet_recv(a->sock.fd, PEN_FROM_DAEMON, &p);
		if (r == -EAGAIN)
			break;
		if (r <= 0)
			return r == 0 ? -ENOTCONN : r;
		r = take_packet(a, &p, now_ns);
		if (r < 0)
			return r;
		taken++;
	}
	return taken;
}

/* Asks for what is missing. Return: number of answers that are outstanding; a negative errno. */
static int ask(struct pen_attach *a, uint64_t now_ns)
{
	int open = get_state(a) == PEN_ATTACH_GREETING;
	if (open)
		return open;
	for (uint32_t i = 0; i < ndevices(a); i++) {
		struct pen_attach_device *d = a->device[i];
		enum pen_attach_device_state s = get_seat_state(d);
		int r = 0;
		if (s == PEN_SEAT_STATE_NONE && d->wanted && !atomic_load_explicit(&d->status, memory_order_relaxed)) {
			r = say_device(a, d, now_ns);
			s = PEN_SEAT_STATE_ASKED;
		} else if (s == PEN_SEAT_STATE_LIVE && d->lost) {
			r = say_ref(a, PEN_MSG_RESEND, d->device_id);
			d->lost = 0;
		}
		if (r < 0)
			return r;
		open += s != PEN_SEAT_STATE_NONE && s != PEN_SEAT_STATE_LIVE;
	}
	return open;
}

/* Return: 0 HELLO was sent; -ENOTCONN; -EACCES refused. */
static int dial(struct pen_attach *a, uint64_t now_ns)
{
	if (now_ns < a->retry_at_ns)
		return -ENOTCONN;
	int r = greet(a, now_ns);
	if (r == 0 || (r == -EACCES && get_state(a) == PEN_ATTACH_REFUSED))
		return r;
	hang_up(a, now_ns);
	return -ENOTCONN;
}

/* Takes and answers. Return: packets taken; -ENOTCONN it hung up, or was hung up on; -EACCES refused. */
static int talk(struct pen_attach *a, uint64_t now_ns)
{
	int taken = take_packets(a, now_ns);
	if (get_state(a) == PEN_ATTACH_REFUSED)
		return -EACCES;
	int open = taken < 0 ? taken : ask(a, now_ns);
	if (open < 0 || (open > 0 && now_ns > a->answer_by_ns)) {
		hang_up(a, now_ns);
		return -ENOTCONN;
	}
	return taken;
}

static int step(struct pen_attach *a, uint64_t now_ns)
{
	if (get_state(a) == PEN_ATTACH_REFUSED)
		return -EACCES;
	if (get_state(a) != PEN_ATTACH_CLOSED && pen_fdid_check(&a->sock) < 0)
		hang_up(a, now_ns);
	if (get_state(a) != PEN_ATTACH_CLOSED) {
		int r = talk(a, now_ns);
		if (r != -ENOTCONN)
			return r;
	}
	int r = dial(a, now_ns);
	return r < 0 ? r : talk(a, now_ns);
}

int pen_attach_step(struct pen_attach *a, uint64_t now_ns)
{
	PEN_KEEP_ERRNO;
	PEN_NO_CANCEL;
	if (!pen_trylock(&a->lock))
		return -EBUSY;
	int r = step(a, now_ns);
	pen_unlock(&a->lock);
	return r;
}

/* @dialled: only as long as there is a daemon that could answer. */
static int wait_live(struct pen_attach *a, struct pen_attach_device *d, uint64_t timeout_ns, bool dialled)
{
	PEN_KEEP_ERRNO;
	PEN_NO_CANCEL;
	uint64_t now = pen_mono_ns(), until = timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
	for (;; now = pen_mono_ns()) {
		int r = pen_attach_step(a, now);
		if (get_state(a) == PEN_ATTACH_REFUSED)
			return -EACCES;
		if (get_seat_state(d) == PEN_SEAT_STATE_LIVE)
			return 0;
		int status = atomic_load_explicit(&d->status, memory_order_acquire);
		if (status < 0)
			return status;
		if (r > 0)
			continue;
		if (now >= until || (dialled && r == -ENOTCONN))
			return -EAGAIN;
		uint64_t left_ms = (until - now + PEN_MS - 1) / PEN_MS;
		/* No connection to poll, or another thread reads from it: sleep a little, look again. */
		struct pollfd p = { .fd = atomic_load_explicit(&a->poll_fd, memory_order_relaxed), .events = POLLIN };
		int asleep = r < 0;
		poll(&p, asleep ? 0 : 1, (int)PEN_MIN(left_ms, (uint64_t)(asleep ? 5 : POLL_MS)));
	}
}

int pen_attach_wait(struct pen_attach *a, struct pen_attach_device *d, uint64_t timeout_ns)
{
	return wait_live(a, d, timeout_ns, false);
}

int pen_attach_return(struct pen_attach *a, struct pen_attach_device *d, uint64_t timeout_ns)
{
	return wait_live(a, d, timeout_ns, true);
}

/* ---- devices ----------------------------------------------------------------------------------------------------- */

/* A range of addresses for all pages that may ever be seen of a device, all zero at first. */
static int reserve_range(struct pen_attach_device *d)
{
	size_t stride = pen_page_stride(PEN_PAGE_SIGNAL);
	void *range;
	int r = pen_page_reserve(pen_page_stride(PEN_PAGE_TERMS) + pen_page_stride(PEN_PAGE_LEDGER) +
				 (1 + PEN_SEATS) * stride, &range);
	if (r < 0)
		return r;
	unsigned char *at = range;
	d->stride = (uint32_t)stride;
	d->terms = (const void *)at;
	at += pen_page_stride(PEN_PAGE_TERMS);
	d->ledger = (void *)at;
	at += pen_page_stride(PEN_PAGE_LEDGER);
	d->signal = (void *)at;
	d->neighbours = at + stride;
	return 0;
}

static int add_device(struct pen_attach *a, const struct pen_attach_want *want, struct pen_attach_device **ret_device)
{
	uint32_t n = ndevices(a);
	for (uint32_t i = 0; i < n; i++) {
		if (strcmp(a->device[i]->key, want->key) == 0) {
			a->device[i]->wanted = 1;
			*ret_device = a->device[i];
			return 0;
		}
	}
	if (n == PEN_ATTACH_DEVICES)
		return -ENOSPC;
	pen_auto_free struct pen_attach_device *d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	if (strlen(want->key) >= sizeof(d->key))
		return -ENAMETOOLONG;
	snprintf(d->key, sizeof(d->key), "%s", want->key);
	snprintf(d->model, sizeof(d->model), "%s", want->model ? want->model : "");
	d->mem_bytes = want->mem_bytes;
	d->units = want->units;
	d->ledger_fd.fd = d->signal_fd.fd = -1;
	d->wanted = 1;
	int r = reserve_range(d);
	if (r < 0)
		return r;
	a->device[n] = d;
	*ret_device = PEN_TAKE_PTR(d);
	atomic_store_explicit(&a->ndevices, n + 1, memory_order_release);
	return 0;
}

int pen_attach_add(struct pen_attach *a, const struct pen_attach_want *want, struct pen_attach_device **ret_device)
{
	PEN_KEEP_ERRNO;
	PEN_NO_CANCEL;
	if (!pen_trylock(&a->lock))
		return -EBUSY;
	int r = add_device(a, want, ret_device);
	pen_unlock(&a->lock);
	return r;
}

/* A message about one device of a standing connection. */
static int tell(struct pen_attach *a, struct pen_attach_device *d, enum pen_msg type)
{
	PEN_KEEP_ERRNO;
	PEN_NO_CANCEL;
	if (!pen_trylock(&a->lock))
		return -EBUSY;
	int r = -ENOTCONN;
	if (get_state(a) == PEN_ATTACH_OPEN && get_seat_state(d) == PEN_SEAT_STATE_LIVE && pen_fdid_check(&a->sock) == 0)
		r = say_ref(a, type, d->device_id) < 0 ? -ENOTCONN : 0;
	if (type == PEN_MSG_DETACH) {
		/* Also without a connection: the next HELLO will not offer this device's pages. */
		d->wanted = 0;
		d->pages_held = 0;
		atomic_store_explicit(&d->live, 0, memory_order_release);
		set_seat_state(d, PEN_SEAT_STATE_NONE);
		pen_fdid_close(&d->ledger_fd);
		pen_fdid_close(&d->signal_fd);
	}
	pen_unlock(&a->lock);
	return r;
}

int pen_attach_resend(struct pen_attach *a, struct pen_attach_device *d)
{
	return tell(a, d, PEN_MSG_RESEND);
}

int pen_attach_detach(struct pen_attach *a, struct pen_attach_device *d)
{
	return tell(a, d, PEN_MSG_DETACH);
}

static void forget_seat(struct pen_attach_device *d)
{
	d->device_id = 0;
	d->seat = d->generation = d->slot = d->client = 0;
	d->pages_held = d->lost = 0;
	atomic_store_explicit(&d->live, 0, memory_order_release);
	atomic_store_explicit(&d->status, 0, memory_order_release);
	atomic_store_explicit(&d->fds_epoch, 0, memory_order_release);
	set_seat_state(d, PEN_SEAT_STATE_NONE);
	for (uint32_t i = 0; i < PEN_SEATS; i++)
		atomic_store_explicit(&d->neighbour_generation[i], 0, memory_order_release);
}

int pen_attach_after_fork(struct pen_attach *a)
{
	PEN_KEEP_ERRNO;
	PEN_NO_CANCEL;
	/* A thread that does not exist here may have held it. */
	pen_lock_init(&a->lock);
	pen_attach_finish(a);
	int r = 0;
	for (uint32_t i = 0; i < ndevices(a); i++) {
		forget_seat(a->device[i]);
		if (r == 0)
			r = reserve_range(a->device[i]);
	}
	a->retry_at_ns = 0;
	a->retry_step_ns = PEN_ATTACH_RETRY_MIN_NS;
	if (r < 0)
		return refuse(a, -ENOMEM, "no range of addresses in the child"), r;
	return 0;
}

void pen_attach_finish(struct pen_attach *a)
{
	PEN_KEEP_ERRNO;
	PEN_NO_CANCEL;
	pen_fdid_close(&a->sock);
	for (uint32_t i = 0; i < ndevices(a); i++) {
		pen_fdid_close(&a->device[i]->ledger_fd);
		pen_fdid_close(&a->device[i]->signal_fd);
		set_seat_state(a->device[i], PEN_SEAT_STATE_NONE);
	}
	set_state(a, PEN_ATTACH_CLOSED);
}
