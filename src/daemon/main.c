/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstockd: start, loop, end. Exit code: 0 ended as asked, 1 could not run, 2 usage.
 *
 * Order of the start: options, configuration, directories, lock, store (restores tenants), tick, sockets, probe. Tenants of
 * the configuration are admitted when the probe has told which devices there are.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/log.h"
#include "board/feature.h"
#include "contract/text.h"
#include "daemon/child.h"
#include "daemon/daemon.h"
#include "daemon/http.h"
#include "daemon/service.h"
#include "daemon/store.h"
#include "daemon/watch.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* A private daemon that nobody gives a tenant ends by itself. */
#define PRIVATE_UNUSED_NS (30 * PEN_S)
#define LINGER_MS 200

void pen_daemon_quit(struct pen_daemon *d, const char *why)
{
	if (!d->quitting)
		pen_log(PEN_LOG_INFO, "ends: %s", why);
	d->quitting = true;
	event_base_loopbreak(d->base);
}

static void on_linger(evutil_socket_t fd, short what, void *arg)
{
	struct pen_daemon *d = arg;
	(void)fd, (void)what;
	if (!d->tenants)
		pen_daemon_quit(d, "the last tenant is gone");
}

void pen_daemon_maybe_quit(struct pen_daemon *d)
{
	if (!d->opt.is_private || d->tenants || d->quitting)
		return;
	if (!d->linger_ev)
		d->linger_ev = evtimer_new(d->base, on_linger, d);
	if (!d->linger_ev || event_add(d->linger_ev, &(struct timeval){ .tv_usec = LINGER_MS * 1000 }) < 0)
		pen_daemon_quit(d, "the last tenant is gone");
}

static void on_end_signal(evutil_socket_t sig, short what, void *arg)
{
	(void)what;
	pen_daemon_quit(arg, strsignal((int)sig));
}

static void on_reload_signal(evutil_socket_t sig, short what, void *arg)
{
	struct pen_daemon *d = arg;
	struct pen_diff diff = { 0 };
	struct pen_err err = PEN_ERR_INIT;
	(void)sig, (void)what;
	if (pen_daemon_reload(d, &diff, &err) < 0)
		pen_event(d, PEN_EVENT_ALERT, NULL, NULL, "configuration not reloaded: %s", err.text);
	pen_diff_clear(&diff);
}

static void on_second(evutil_socket_t fd, short what, void *arg)
{
	struct pen_daemon *d = arg;
	(void)fd, (void)what;
	pen_meter_second(d);
	pen_watch_second(d);
	if (!d->opt.is_private)
		pen_probe_second(d);
	if (d->opt.is_private && !d->had_tenant && pen_mono_ns() - d->started_ns > PRIVATE_UNUSED_NS)
		pen_daemon_quit(d, "nobody needed it");
}

void pen_daemon_probed(struct pen_daemon *d)
{
	d->probed = true;
	for (struct pen_tenant *t = d->tenants; t; t = t->hh.next)   /* restored before the devices were known */
		for (unsigned i = 0; i < PEN_DAEMON_DEVICES && t->state != PEN_TENANT_WAITING && !t->lapsed; i++)
			if (d->device[i] && !(t->covers >> i & 1) && pen_contract_means(&t->contract, d->device[i]))
				pen_tenant_cover(d, t, d->device[i], NULL);
	pen_config_contracts(d);
	pen_attach_unpark(d);
	pen_http_unpark(d);
	pen_tenant_admit_waiting(d);
	pen_services_poke(d, PEN_SERVICE_DEVICES | PEN_SERVICE_TENANTS);
	pen_watch_begin(d);
}

/* ---- start ------------------------------------------------------------------------------------------------------ */

static int make_dirs(const char *path, mode_t mode, struct pen_err *err)
{
	char buf[PEN_CONFIG_PATH_MAX + 1];
	snprintf(buf, sizeof(buf), "%s", path);
	for (char *s = buf + 1; *s; s++) {
		if (*s != '/')
			continue;
		*s = 0;
		mkdir(buf, 0755);   /* the last one tells */
		*s = '/';
	}
	if (mkdir(buf, mode) < 0 && errno != EEXIST)
		return pen_err_sys(err, -errno, "directory '%s'", buf);
	return 0;
}

/* Below /tmp anybody may have made our directory before us. */
static int check_owner(const char *path, bool is_private, struct pen_err *err)
{
	struct stat st;
	if (lstat(path, &st) < 0)
		return pen_err_sys(err, -errno, "'%s'", path);
	if (!S_ISDIR(st.st_mode))
		return pen_err_x(err, -ENOTDIR, "'%s' is not a directory", path);
	if (is_private && (st.st_uid != geteuid() || (st.st_mode & 077))) {
		if (st.st_uid == geteuid() && chmod(path, 0700) == 0)
			return 0;
		return pen_err_x(err, -EPERM, "'%s' belongs to user %u", path, (unsigned)st.st_uid);
	}
	return 0;
}

static int lock_runtime(const struct pen_daemon *d, struct pen_err *err)
{
	char path[PEN_CONFIG_PATH_MAX + 16];
	snprintf(path, sizeof(path), "%s/penstockd.lock", d->cfg.runtime_dir);
	for (;;) {
		/* Held until the process ends, however it ends. */
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			return pen_err_sys(err, -errno, "'%s'", path);
		struct stat st;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &st) < 0) {
			int e = errno;
			close(fd);
			if (e == EWOULDBLOCK)
				return pen_err_x(err, -EBUSY, "another penstockd serves '%s'", d->cfg.runtime_dir);
			return pen_err_sys(err, -e, "'%s'", path);
		}
		if (st.st_nlink)
			return 0;
		close(fd);   /* of a private daemon that was ending: its file is gone, make a new one */
	}
}

static int prepare(struct pen_daemon *d, struct pen_err *err)
{
	struct rlimit lim;
	if (getrlimit(RLIMIT_NOFILE, &lim) == 0) {   /* four descriptors a client */
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
	int r = make_dirs(d->cfg.runtime_dir, d->opt.is_private ? 0700 : 0755, err);
	if (r == 0)
		r = check_owner(d->cfg.runtime_dir, d->opt.is_private, err);
	if (r == 0)
		r = lock_runtime(d, err);
	if (r == 0)
		r = pen_board_boot_id(d->boot) < 0 ? pen_err_x(err, -ENOENT, "no boot id: is /proc mounted?") : 0;
	if (r < 0)
		return r;
	d->started = pen_unix_now();
	d->started_ns = pen_mono_ns();
	/* Above those of an earlier daemon of this boot, so that a seat's generations never repeat. */
	d->generation = d->first_generation = (uint32_t)(d->started_ns >> 24) << 12 | 1;
	pen_peer_start_time(0, &d->start_time);
	d->base = event_base_new();
	d->table = pen_locked_alloc(sizeof(*d->table));
	if (!d->base || !d->table || pen_events_open(d) < 0)
		return pen_err_sys(err, -ENOMEM, "start");
	d->table->tick_ns = d->cfg.tick_ns;
	d->table->lease_ns = d->opt.lease_ns;
	return 0;
}

static int add_event(struct pen_daemon *d, struct event **ev, int fd, short what, event_callback_fn fn,
		     const struct timeval *every)
{
	*ev = event_new(d->base, fd, what, fn, d);
	return *ev && event_add(*ev, every) == 0 ? 0 : -ENOMEM;
}

static int start(struct pen_daemon *d, struct pen_err *err)
{
	struct pen_err soft = PEN_ERR_INIT;
	int r = prepare(d, err);
	if (r < 0)
		return r;
	if (make_dirs(d->cfg.state_dir, 0700, &soft) < 0 || pen_store_open(d, &soft) < 0) {
		snprintf(d->store_why, sizeof(d->store_why), "%s", soft.text);
		pen_event(d, PEN_EVENT_ALERT, NULL, NULL, "runs without a database: %s", soft.text);
	}
	r = pen_tick_start(d, err);
	if (r == 0)
		r = pen_http_open(d, err);
	if (r < 0)
		return r;
	static const struct timeval second = { .tv_sec = 1 };
	if (pen_alive_start(d) < 0 ||
	    add_event(d, &d->second_ev, -1, EV_PERSIST, on_second, &second) < 0 ||
	    add_event(d, &d->term_ev, SIGTERM, EV_SIGNAL | EV_PERSIST, on_end_signal, NULL) < 0 ||
	    add_event(d, &d->int_ev, SIGINT, EV_SIGNAL | EV_PERSIST, on_end_signal, NULL) < 0 ||
	    add_event(d, &d->hup_ev, SIGHUP, EV_SIGNAL | EV_PERSIST, on_reload_signal, NULL) < 0)
		return pen_err_sys(err, -ENOMEM, "events");
	if (d->tenants && pen_adopt_begin(d) < 0)
		return pen_err_sys(err, -ENOMEM, "events");
	pen_event(d, PEN_EVENT_STARTED, NULL, NULL, "penstockd " PEN_VERSION "%s, tick %llu us",
		  d->opt.is_private ? " (private)" : "", (unsigned long long)(d->cfg.tick_ns / 1000));
	if (!d->opt.is_private && (r = pen_services_start(d, err)) < 0)
		return r;
	if (!d->opt.no_probe) {
		r = pen_probe_start(d);
		if (r < 0)
			pen_event(d, PEN_EVENT_ALERT, NULL, NULL, "devices cannot be looked for: penstock-probe: %s",
				  strerror(-r));
	}
	if (!pen_probe_running(d))
		pen_daemon_probed(d);
	return 0;
}

/* ---- end -------------------------------------------------------------------------------------------------------- */

static void free_event(struct event **ev)
{
	if (*ev)
		event_free(*ev);
	*ev = NULL;
}

static void remove_file(const char *dir, const char *name)
{
	char path[PEN_CONFIG_PATH_MAX + 32];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (unlink(path) < 0 && errno == EISDIR)
		rmdir(path);
}

/* Of a private daemon: its contracts ended with it, and nobody asks an ended one for its history. The lock goes last. */
static void leave_nothing(const struct pen_daemon *d)
{
	static const char *const state[] = { "penstock.db", "penstock.db-wal", "penstock.db-shm" };
	for (size_t i = 0; !d->opt.state_dir && i < PEN_ARRAY_LEN(state); i++)
		remove_file(d->cfg.state_dir, state[i]);
	if (!d->opt.state_dir)
		rmdir(d->cfg.state_dir);
	remove_file(d->cfg.runtime_dir, "tenants");
	remove_file(d->cfg.runtime_dir, PEN_SEATS_DIR);
	remove_file(d->cfg.runtime_dir, "penstockd.log");
	remove_file(d->cfg.runtime_dir, "penstockd.lock");
}

/* Clients keep running on their last terms; contracts stay in the store and their directories in place. */
static void finish(struct pen_daemon *d)
{
	bool served = d->http;
	pen_alive_put_off();   /* what is closed now may linger as well */
	struct event **evs[] = { &d->beat_ev, &d->second_ev, &d->term_ev, &d->int_ev, &d->hup_ev, &d->square_ev, &d->adopt_ev, &d->linger_ev,
				 &d->rest_ev };
	d->quitting = true;
	if (d->http)
		pen_event(d, PEN_EVENT_STOPPED, NULL, NULL, "penstockd ends");
	pen_services_stop(d);
	pen_container_forget(d);
	pen_tick_stop(d);
	pen_probe_free(d);
	pen_watch_free(d);
	pen_child_finish(d);
	for (size_t i = 0; i < PEN_ARRAY_LEN(evs); i++)
		free_event(evs[i]);
	/* A private daemon's tenants end with it; a directory left behind would make programs fail closed. */
	for (struct pen_tenant *t = d->tenants; d->opt.is_private && t; t = t->hh.next)
		if (t->listen_ev)
			pen_tenant_dir_remove(t);
	pen_tenant_free_all(d);
	pen_store_close(d);
	if (d->http) {
		pen_http_close(d);
		unlink(d->cfg.socket);
	}
	if (served && d->opt.is_private)
		leave_nothing(d);
	pen_events_free(d);
	pen_device_free_all(d);
	if (d->base)
		event_base_free(d->base);
	if (d->table)
		munmap(d->table, sizeof(*d->table));
	pen_config_free(&d->cfg);
	json_decref(d->notes);
	json_decref(d->drains);
	libevent_global_shutdown();
}

static void say_ready(struct pen_daemon *d, char byte)
{
	ssize_t n = write(d->opt.ready_fd, &byte, 1);
	(void)n;   /* nobody waits any more: no fault of ours */
	close(d->opt.ready_fd);
	d->opt.ready_fd = -1;
}

/*
 * Whoever started us waits for the byte. From then on the log goes to a file: a terminal or a pipe that we were started
 * from must neither be written to nor kept open.
 */
static void tell_ready(struct pen_daemon *d)
{
	char path[PEN_CONFIG_PATH_MAX + 16];
	if (d->opt.ready_fd < 0)
		return;
	snprintf(path, sizeof(path), "%s/penstockd.log", d->cfg.runtime_dir);
	pen_auto_close int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (log >= 0)
		dup2(log, STDERR_FILENO);
	pen_log_set_level(d->cfg.log_level);
	say_ready(d, PEN_READY_SERVES);
}

int main(int argc, char **argv)
{
	static struct pen_daemon d;
	struct pen_err err = PEN_ERR_INIT;
	pen_text_init(PEN_LOCALEDIR);   /* why it does not start is read by the person who typed the command */
	pen_log_set_prefix("penstockd");
	umask(022);   /* modes are given one by one; under a careful shell's 077 nobody but root would reach what is his */
	int r = pen_options_parse(&d.opt, argc, argv, &err);
	if (r == PEN_OPTIONS_DONE)
		return 0;
	if (r < 0 || pen_options_config(&d.opt, &d.cfg, &err) < 0) {
		pen_log(PEN_LOG_ERROR, "%s", err.text);
		return 2;
	}
	/* Until it is ready it writes to the terminal of whoever started it: only what is wrong. */
	pen_log_set_level(d.opt.ready_fd < 0 ? d.cfg.log_level : PEN_LOG_WARN);
	signal(SIGPIPE, SIG_IGN);
	r = start(&d, &err);
	if (r < 0) {
		bool raced = r == -EBUSY && d.opt.is_private && d.opt.ready_fd >= 0;   /* no mistake, and soon over */
		pen_log(raced ? PEN_LOG_INFO : PEN_LOG_ERROR, "%s", err.text);
		if (raced)
			say_ready(&d, PEN_READY_BUSY);
		d.exit_code = 1;
	} else if (!d.quitting) {
		tell_ready(&d);
		pen_text_english();
		pen_alive_put_off();
		event_base_dispatch(d.base);
	}
	finish(&d);
	return d.exit_code;
}
