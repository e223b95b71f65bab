/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock-probe: one JSON object with the devices of every backend on standard output; with --watch, a line of readings each
 * period (watch.h).
 *
 * A process of its own because it runs vendor code. Exit code: 0 printed (absent libraries are reported inside), 1 could
 * not print, or there is nothing to watch, 2 usage. Vendor libraries print on standard output too: it is kept for the answer
 * alone, theirs goes to standard error.
 */
#include "backend/backend.h"
#include "backend/json.h"
#include "backend/watch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void print_device(FILE *out, const char *api, const struct pen_backend_device *d)
{
	fprintf(out, "{\"api\":\"%s\",\"key\":", api);
	pen_json_string(out, d->key);
	fputs(",\"model\":", out);
	pen_json_string(out, d->model);
	fputs(",\"platform\":", out);
	pen_json_string(out, d->platform);
	fputs(",\"driver\":", out);
	pen_json_string(out, d->driver);
	fprintf(out, ",\"mem_bytes\":%llu,\"units\":%u}", (unsigned long long)d->mem_bytes, d->units);
}

static int usage(FILE *out, int code)
{
	fprintf(out, "usage: penstock-probe\n       penstock-probe --watch MS\n"
		"Prints the devices that the vendors' libraries know, as JSON. With --watch: what they do, one line at once and one each\n"
		"MS milliseconds (%u .. %u), until standard input ends.\n", PEN_WATCH_MIN_MS, PEN_WATCH_MAX_MS);
	return code;
}

/* The period, or 0. */
static unsigned read_period(const char *text)
{
	char *end;
	if (*text < '0' || *text > '9')
		return 0;
	unsigned long v = strtoul(text, &end, 10);
	if (*end || v < PEN_WATCH_MIN_MS || v > PEN_WATCH_MAX_MS) {
		fprintf(stderr, "penstock-probe: --watch '%s': a period is %u .. %u milliseconds\n", text, PEN_WATCH_MIN_MS,
			PEN_WATCH_MAX_MS);
		return 0;
	}
	return (unsigned)v;
}

static int list_devices(FILE *out)
{
	static struct pen_backend_device v[PEN_BACKEND_DEVICES_MAX];
	fputs("{\"schema\":\"penstock-probe/v1\",\"devices\":[", out);
	const char *comma = "";
	static struct pen_err errs[16];
	static int rc[16];
	const struct pen_backend *b;
	for (size_t i = 0; i < 16 && (b = pen_backend_get(i)); i++) {
		rc[i] = b->discover(v, PEN_BACKEND_DEVICES_MAX, &errs[i]);
		for (int k = 0; k < rc[i]; k++) {
			fputs(comma, out);
			print_device(out, b->api, &v[k]);
			comma = ",";
		}
	}
	fputs("],\"backends\":[", out);
	comma = "";
	for (size_t i = 0; i < 16 && (b = pen_backend_get(i)); i++) {
		fprintf(out, "%s{\"api\":\"%s\",\"devices\":%d,\"error\":", comma, b->api, rc[i] > 0 ? rc[i] : 0);
		pen_json_string(out, rc[i] < 0 ? errs[i].text : "");
		/* Absent: most machines lack most vendors. Wanting: what there is cannot be used. */
		fprintf(out, ",\"absent\":%s,\"wanting\":%s}", rc[i] == -ENOENT ? "true" : "false", rc[i] == -ENXIO ? "true" : "false");
		comma = ",";
	}
	fputs("]}\n", out);
	return fflush(out) != 0 || ferror(out);
}

int main(int argc, char **argv)
{
	unsigned period_ms = 0;
	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
		return usage(stdout, 0);
	if (argc == 3 && !strcmp(argv[1], "--watch"))
		period_ms = read_period(argv[2]);
	if (argc > 1 && !period_ms)
		return usage(stderr, 2);
	int keep = dup(STDOUT_FILENO);
	FILE *out = keep < 0 ? NULL : fdopen(keep, "w");
	if (!out || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		return 1;
	int code = period_ms ? pen_watch_run(out, period_ms) : list_devices(out);
	/* Not exit(): destructors of vendor libraries have hung and crashed at exit, and the answer is out. */
	_exit(code);
}
