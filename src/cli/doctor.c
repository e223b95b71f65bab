/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock doctor: looks at loader, layer, kernel, permissions and clocks of this machine, says what is wrong, what that
 * costs, and how to mend it. Vendor code is only touched by penstock-probe, in a process that may be lost; the
 * kernel's features are tried by penstockd itself, since they are what it will use.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "cli/doctor.h"
#include "cli/promises.h"

#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define HELPER_TIMEOUT_MS 30000        /* a cold OpenCL driver compiles at its first start */
#define CLOCK_SLOW_NS 300              /* vDSO reads take 20-60 ns; a system call 200 and more */

static const char *const status_name[] = { N_("ok"), N_("note"), N_("warning"), N_("bad") };

void pen_doctor_report(struct doctor *d, const char *id, enum pen_finding s, const char *mend, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_array_append_new(d->checks, json_pack("{s:s, s:s, s:s, s:s}", "id", id, "status", status_name[s], "text", text,
						   "mend", mend ? mend : ""));
	d->worst = PEN_MAX(d->worst, s);
}

/* Output of one of our own helpers as JSON; it is killed when it takes too long. NULL: it failed. */
static json_t *run_helper(const char *const *where, const char *arg)
{
	char path[PATH_MAX];
	int ends[2];
	if (pen_install_path(where, path, sizeof(path)) < 0 || pipe(ends) < 0)
		return NULL;
	pid_t pid = fork();
	if (pid == 0) {
		dup2(ends[1], STDOUT_FILENO);
		int null = open("/dev/null", O_WRONLY);
		dup2(null, STDERR_FILENO);
		close(ends[0]);
		close(ends[1]);
		execl(path, path, arg, (char *)NULL);
		_exit(127);
	}
	close(ends[1]);
	static char buf[1 << 18];
	size_t len = 0;
	uint64_t end = pen_mono_ns() + HELPER_TIMEOUT_MS * PEN_MS;
	while (len < sizeof(buf)) {
		uint64_t now = pen_mono_ns();
		struct pollfd p = { .fd = ends[0], .events = POLLIN };
		if (now >= end || poll(&p, 1, (int)((end - now) / PEN_MS) + 1) <= 0)
			break;
		ssize_t n = read(ends[0], buf + len, sizeof(buf) - len);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	close(ends[0]);
	if (pid > 0) {
		kill(pid, SIGKILL);   /* harmless if it has ended */
		waitpid(pid, NULL, 0);
	}
	return json_loadb(buf, len, 0, NULL);
}

static void check_kernel(struct doctor *d)
{
	static const char *const where[] = { "penstockd", "../sbin/penstockd", "../daemon/penstockd", NULL };
	json_t *answer = run_helper(where, "--features"), *f;
	size_t i;
	if (!answer)
		pen_doctor_report(d, "daemon-program", BAD, _("install the package penstock completely"),
		       _("penstockd is not beside penstock, or it does not start"));
	json_array_foreach(json_object_get(answer, "features"), i, f) {
		const char *name = pen_json_str(f, "name");
		if (json_is_true(json_object_get(f, "present")))
			pen_doctor_report(d, "kernel", OK, NULL, _("kernel has %s"), name);
		else
			pen_doctor_report(d, "kernel", WARN, _("a newer kernel, if this matters to you"), _("kernel lacks %s (since %s): %s"),
			       name, pen_json_str(f, "since"), _(pen_json_str(f, "without")));
	}
	json_decref(answer);
}

/* Once for a card that several libraries list under one key: the least size and count, as the daemon takes them. */
static void report_device(struct doctor *d, const json_t *all, size_t at, const json_t *dev)
{
	char mem[32], drivers[256] = "";
	const char *key = pen_json_str(dev, "key");
	uint64_t bytes = 0, units = 0;
	size_t i, len = 0;
	json_t *v;
	json_array_foreach(all, i, v) {
		if (strcmp(pen_json_str(v, "key"), key))
			continue;
		if (i < at)
			return;
		uint64_t b = (uint64_t)pen_json_int(v, "mem_bytes"), u = (uint64_t)pen_json_int(v, "units");
		bytes = !bytes || (b && b < bytes) ? b : bytes;
		units = !units || (u && u < units) ? u : units;
		if (len < sizeof(drivers))
			len += (size_t)snprintf(drivers + len, sizeof(drivers) - len, "%s%s %s", len ? ", " : "",
						pen_json_str(v, "api"), pen_json_str(v, "driver"));
	}
	pen_doctor_report(d, "device", OK, NULL, _("%s: %s, %s of memory, %lld units, driver %s"), key, pen_json_str(dev, "model"),
	       pen_format_bytes(mem, sizeof(mem), bytes), (long long)units, drivers);
}

/* @others: there are devices all the same, through another library. */
static void report_backend(struct doctor *d, const json_t *v, bool others)
{
	const char *api = pen_json_str(v, "api"), *error = pen_json_str(v, "error");
	if (!strcmp(api, "cuda")) {
		if (*error && pen_doctor_has_nvidia())
			pen_doctor_report(d, "nvml", WARN, _("install the driver's libnvidia-ml.so.1"),
					  _("%s: contexts and modules are not charged, and processes of no tenant are not seen"), error);
	} else if (*error) {
		pen_doctor_report(d, "loader", others ? NOTE : BAD, _("apt-get install ocl-icd-libopencl1, and the driver of your accelerator"),
				  "%s: %s", api, error);
	} else if (pen_json_int(v, "devices") == 0) {
		pen_doctor_report(d, "loader", others ? NOTE : BAD,
				  _("install the OpenCL driver of your accelerator (without one: pocl-opencl-icd)"),
				  _("%s: the loader works but finds no device"), api);
	}
}

static void check_devices(struct doctor *d)
{
	static const char *const where[] = { "penstock-probe", "../lib/penstock/penstock-probe",
					     "../libexec/penstock/penstock-probe", "../backend/penstock-probe", NULL };
	json_t *answer = run_helper(where, NULL), *v;
	size_t i;
	if (!answer) {
		pen_doctor_report(d, "devices", BAD, _("run penstock-probe by hand and read what the driver says"),
		       _("the probe crashed or hung in a vendor library"));
		return;
	}
	json_array_foreach(json_object_get(answer, "backends"), i, v)
		report_backend(d, v, json_array_size(json_object_get(answer, "devices")) > 0);
	json_array_foreach(json_object_get(answer, "devices"), i, v)
		report_device(d, json_object_get(answer, "devices"), i, v);
	pen_doctor_cuda(d, answer);
	d->devices = json_incref(json_object_get(answer, "devices"));
	json_decref(answer);
}

static void check_layer(struct doctor *d)
{
	static const char *const where[] = { "../lib/penstock/libpenstock-opencl.so",
					     "../shim/opencl/libpenstock-opencl.so", NULL };
	char path[PATH_MAX];
	if (pen_install_path(where, path, sizeof(path)) < 0)
		pen_doctor_report(d, "layer", BAD, _("install the package penstock completely"), _("the OpenCL layer was not found"));
	else
		pen_doctor_report(d, "layer", OK, NULL, _("OpenCL layer: %s"), path);

	const char *layers = getenv("OPENCL_LAYERS"), *tenant = getenv("PENSTOCK_TENANT");
	if (tenant)
		pen_doctor_report(d, "environment", NOTE, NULL, _("this shell is inside tenant %s"), tenant);
	else if (layers)
		pen_doctor_report(d, "environment", NOTE, NULL, _("OPENCL_LAYERS is set (%s); run puts its layer before it"), layers);
	unsigned major = 0, minor = 0;
	const char *version = gnu_get_libc_version();
	if (sscanf(version, "%u.%u", &major, &minor) == 2 && (major > 2 || minor >= 28))
		pen_doctor_report(d, "libc", OK, NULL, "glibc %s", version);
	else
		pen_doctor_report(d, "libc", BAD, _("a system with glibc 2.28 or newer"), "glibc %s", version);
}

/* A daemon of the version before says nothing about it. */
static void check_store(struct doctor *d, const json_t *version)
{
	const json_t *store = json_object_get(version, "store"), *ok = json_object_get(store, "ok");
	if (json_is_true(ok))
		pen_doctor_report(d, "store", OK, NULL, _("contracts are on disk"));
	else if (json_is_false(ok))
		pen_doctor_report(d, "store", BAD,
				  json_is_true(json_object_get(store, "open")) ? _("make room, or the directory writable: the daemon tries again by itself") :
				  _("mend the directory (state_dir), then restart the daemon: programs go on meanwhile"),
				  _("contracts and drains cannot be written, new ones are lost if the daemon ends: %s"), pen_json_str(store, "error"));
}

static void check_daemon(struct doctor *d, const struct pen_cli *cli)
{
	char sock[PATH_MAX];
	bool is_private = false;
	struct pen_err err = PEN_ERR_INIT;
	json_t *version = NULL;
	pen_client_socket(cli, sock, sizeof(sock), &is_private);
	int r = pen_client_request(cli, "GET", "/v1/version", NULL, &version, &err);
	if (r == 200) {
		pen_doctor_report(d, "daemon", OK, NULL, _("penstockd %s answers on %s%s"), pen_json_str(version, "version"), sock,
		       json_is_true(json_object_get(version, "private")) ? _(" (private)") : "");
		const char *sched = pen_json_str(version, "tick_sched");
		if (!strcmp(sched, "other"))
			pen_doctor_report(d, "scheduling", WARN, _("run it as the system's service, or allow it: setcap cap_sys_nice+ep penstockd"),
			       _("the daemon's tick has no raised priority: on a full machine its decisions come late"));
		else if (*sched)
			pen_doctor_report(d, "scheduling", OK, NULL, _("the daemon's tick runs as %s"), sched);
		check_store(d, version);
	} else if (access(sock, F_OK) == 0 && access(sock, R_OK | W_OK) < 0) {
		pen_doctor_report(d, "daemon", BAD, _("join its group: sudo usermod -aG penstock $USER, then log in again"),
		       _("%s exists but you may not use it"), sock);
	} else if (r == -EHOSTDOWN) {
		pen_doctor_report(d, "daemon", WARN, _("name the socket of one that runs, or none"), "%s", err.text);
	} else {
		pen_doctor_report(d, "daemon", NOTE, _("for a machine-wide one: systemctl enable --now penstock"),
		       _("no system daemon answers; penstock run will start a private one for you"));
	}
	json_decref(version);
}

static void check_runtime_dir(struct doctor *d)
{
	const char *run = getenv("XDG_RUNTIME_DIR");
	struct stat st;
	if (!run || !*run)
		pen_doctor_report(d, "runtime-dir", NOTE, NULL, _("XDG_RUNTIME_DIR is not set: a private daemon uses /tmp/penstock-%u"),
		       (unsigned)getuid());
	else if (stat(run, &st) < 0)
		pen_doctor_report(d, "runtime-dir", BAD, _("unset XDG_RUNTIME_DIR, or log in with a session"), "XDG_RUNTIME_DIR=%s: %s", run,
		       strerror(errno));
	else if (st.st_uid != getuid())
		pen_doctor_report(d, "runtime-dir", BAD, _("unset XDG_RUNTIME_DIR, or log in as the user itself instead of su"),
		       _("XDG_RUNTIME_DIR=%s belongs to another user"), run);
	else
		pen_doctor_report(d, "runtime-dir", OK, NULL, _("runtime directory: %s"), run);
}

static void check_clock(struct doctor *d)
{
	char source[64] = "?";
	pen_auto_fclose FILE *f = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
	if (f && fgets(source, sizeof(source), f))
		source[strcspn(source, "\n")] = 0;
	uint64_t best = UINT64_MAX;
	for (int round = 0; round < 20; round++) {
		uint64_t t = pen_mono_ns();
		for (int i = 0; i < 100; i++)
			pen_mono_ns();
		best = PEN_MIN(best, (pen_mono_ns() - t) / 101);
	}
	if (best > CLOCK_SLOW_NS)
		pen_doctor_report(d, "clock", WARN, _("boot with clocksource=tsc if the processor's TSC is stable"),
		       _("reading the clock takes %llu ns (%s): each held command pays that"), (unsigned long long)best, source);
	else
		pen_doctor_report(d, "clock", OK, NULL, _("clock source %s, %llu ns a reading"), source, (unsigned long long)best);
}

static void print_checks(const struct doctor *d)
{
	static const char *const colour[] = { "32", "36", "33", "31" };
	bool use_colour = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
	size_t i;
	json_t *c;
	json_array_foreach(d->checks, i, c) {
		const char *status = pen_json_str(c, "status"), *mend = pen_json_str(c, "mend");
		size_t s = 0;
		while (strcmp(status_name[s], status))
			s++;
		if (use_colour)
			printf("\033[%sm", colour[s]);
		pen_put_padded(stdout, _(status), 8);
		printf("%s%s\n", use_colour ? "\033[0m" : "", pen_json_str(c, "text"));
		if (*mend)
			printf(_("        to mend it: %s\n"), mend);
	}
	puts(_("\nHow promises are kept on this machine:"));
	pen_promises_print(stdout, d->devices, NULL);
}

int pen_cmd_doctor(struct pen_cli *cli, int argc, char **argv)
{
	if (pen_cli_no_arguments(cli, argc, argv) < 0)
		return PEN_EXIT_USAGE;
	struct doctor d = { .checks = json_array() };
	check_kernel(&d);
	check_devices(&d);
	check_layer(&d);
	check_daemon(&d, cli);
	pen_doctor_audit(&d, cli);
	pen_doctor_kubelet(&d, cli);
	check_runtime_dir(&d);
	check_clock(&d);
	json_t *all = json_pack("{s:s, s:O, s:s, s:o}", "schema", "penstock/v1", "checks", d.checks, "worst", status_name[d.worst], "promises",
				pen_promises_json(d.devices));
	if (!pen_cli_print_json(cli, all))
		print_checks(&d);
	json_decref(all);
	json_decref(d.checks);
	json_decref(d.devices);
	return d.worst == BAD ? PEN_EXIT_FAILURE : PEN_EXIT_OK;
}
