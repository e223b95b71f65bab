/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock top: full screen, one block a tenant and device: memory bar, share against what it is entitled to, held time
 * by reason since the last picture, P99 against the target. Keys: q quit, m/s/p/n sort by memory, share, P99, name.
 */
#include "base/auto.h"
#include "base/clock.h"
#include "base/units.h"
#include "cli/cli.h"

#include <locale.h>
#include <ncurses.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_MAX 256
#define BAR_MAX 16
#define WIDE 118     /* cells from which all is shown */
#define NARROW 70    /* below which the bar goes */

/* Cells of each column; 0: it is not shown. */
enum column { C_NAME, C_CLASS, C_BAR, C_MEMORY, C_SHARE, C_P99, C_HELD, C_MAX_ };

enum { COLOUR_OK = 1, COLOUR_WARN, COLOUR_BAD, COLOUR_HEAD };

struct row {
	const json_t *tenant, *dev;
};

struct top {
	struct pen_cli *cli;
	int sort;                 /* the key that was pressed */
	json_t *previous;         /* answer before, for differences */
	uint64_t previous_ns, now_ns;
};

static long long sort_value(const struct row *r, int by)
{
	if (by == 'm')
		return pen_json_int(r->dev, "mem_used_bytes") + pen_json_int(r->dev, "mem_overhead_bytes");
	if (by == 's')
		return pen_json_int(r->dev, "share_ppm_1s");
	return pen_json_int(json_object_get(json_object_get(r->dev, "response"), "recent"), "p99_ns");
}

static int compare(const void *pa, const void *pb, void *arg)
{
	const struct row *a = pa, *b = pb;
	int by = *(const int *)arg;
	long long va = by == 'n' ? 0 : sort_value(a, by), vb = by == 'n' ? 0 : sort_value(b, by);
	if (va != vb)
		return va < vb ? 1 : -1;
	return strcmp(pen_json_str(a->tenant, "name"), pen_json_str(b->tenant, "name"));
}

static size_t collect(const json_t *answer, struct row *rows)
{
	size_t n = 0, i, k;
	json_t *tenants = json_object_get(answer, "tenants"), *tenant, *dev;
	json_array_foreach(tenants, i, tenant) {
		json_t *devices = json_object_get(tenant, "devices");
		json_array_foreach(devices, k, dev)
			if (n < ROWS_MAX)
				rows[n++] = (struct row){ tenant, dev };
		if (json_array_size(devices) == 0 && n < ROWS_MAX)
			rows[n++] = (struct row){ tenant, NULL };
	}
	return n;
}

/* The same tenant and device in the answer before; NULL if it is new. */
static const json_t *before(const struct top *top, const struct row *r)
{
	struct row old[ROWS_MAX];
	size_t n = top->previous ? collect(top->previous, old) : 0;
	for (size_t i = 0; i < n; i++)
		if (!strcmp(pen_json_str(old[i].tenant, "name"), pen_json_str(r->tenant, "name")) &&
		    !strcmp(pen_json_str(old[i].dev, "key"), pen_json_str(r->dev, "key")))
			return old[i].dev;
	return NULL;
}

static int level_colour(double part)
{
	return part < 0.75 ? COLOUR_OK : part < 0.95 ? COLOUR_WARN : COLOUR_BAD;
}

static void layout(int cells, int *width)
{
	static const int wide[] = { 20, 10, BAR_MAX, 18, 16, 16, 0 }, narrow[] = { 18, 0, 8, 12, 12, 13, 0 };
	const int *from = cells >= WIDE ? wide : narrow;
	int left = cells - 1;
	for (int i = 0; i < C_HELD; i++) {
		width[i] = i == C_BAR && cells < NARROW ? 0 : from[i];
		left -= width[i] ? width[i] + 1 : 0;
	}
	width[C_HELD] = left > 0 ? left : 0;
}

/* One cell and a blank, never more: what wrapped would push the others off the screen. */
static void cell(const int *width, enum column c, const char *text)
{
	char buf[512];
	int room = COLS - 1 - getcurx(stdscr), cells = width[c] < room ? width[c] : room;
	if (width[c] <= 0 || cells <= 0)
		return;
	addstr(pen_cut(buf, sizeof(buf), text, (size_t)cells));
	if (cells < room)
		addch(' ');
}

static void bar(const int *width, double part)
{
	char text[BAR_MAX + 1];
	int cells = width[C_BAR], full = part <= 0 ? 0 : part >= 1 ? cells : (int)(part * cells + 0.5);
	for (int i = 0; i < cells; i++)
		text[i] = i < full ? '|' : '.';   /* ASCII: edge boxes are looked at through serial consoles */
	text[cells] = 0;
	attron(COLOR_PAIR(level_colour(part)));
	cell(width, C_BAR, text);
	attroff(COLOR_PAIR(level_colour(part)));
}

/* The longest first: on a narrow screen there is room for one. */
static size_t put_held(const struct top *top, const struct row *r, char *buf, size_t n)
{
	const json_t *old = json_object_get(before(top, r), "held_ns");
	double span = (double)(top->now_ns - top->previous_ns);
	long long above = INT64_MAX;
	size_t len = 0;
	*buf = 0;
	while (old && span > 0 && len < n) {
		const char *reason, *next = NULL;
		long long most = 0;
		json_t *v;
		json_object_foreach(json_object_get(r->dev, "held_ns"), reason, v) {
			long long diff = json_integer_value(v) - pen_json_int(old, reason);
			if (diff > most && diff < above) {
				most = diff;
				next = reason;
			}
		}
		if (!next || (double)most / span < 0.005)
			break;
		len += (size_t)snprintf(buf + len, n - len, "%s%s %.0f%%", len ? " " : "", next, 100.0 * (double)most / span);
		above = most;
	}
	return PEN_MIN(len, n - 1);
}

/* Only while there is some: most tenants never use it. */
static void put_video(const struct row *r, char *buf, size_t n)
{
	static const char *const keys[] = { "dec_ppm", "enc_ppm" };
	size_t len = 0;
	for (size_t i = 0; i < PEN_ARRAY_LEN(keys) && len < n; i++) {
		char share[32];
		uint32_t ppm = (uint32_t)pen_json_int(r->dev, keys[i]);
		if (ppm)
			len += (size_t)snprintf(buf + len, n - len, i ? _(" encoder %s (not gated)") : _(" decoder %s (not gated)"),
						pen_format_share(share, sizeof(share), ppm));
	}
}

static void draw_memory(const struct row *r, const int *width)
{
	char text[96], used[32], beside[32], limit[32] = "-";
	uint64_t mem = (uint64_t)pen_json_int(r->dev, "mem_used_bytes"), overhead = (uint64_t)pen_json_int(r->dev, "mem_overhead_bytes");
	uint64_t room = (uint64_t)pen_json_int(r->dev, "mem_limit_bytes");
	if (room)
		pen_format_bytes(limit, sizeof(limit), room);
	if (json_is_true(json_object_get(r->dev, "mem_used_assumed")))   /* all that it may have, until its processes are back */
		mem = 0;
	bar(width, room ? (double)(mem + overhead) / (double)room : 0);
	if (overhead && width[C_CLASS])   /* apart where there is room for it */
		snprintf(text, sizeof(text), "%s+%s/%s", pen_format_bytes(used, sizeof(used), mem), pen_format_bytes(beside, sizeof(beside), overhead), limit);
	else
		snprintf(text, sizeof(text), "%s/%s", pen_format_bytes(used, sizeof(used), mem + overhead), limit);
	cell(width, C_MEMORY, json_is_true(json_object_get(r->dev, "mem_used_assumed")) ? _("coming back") : text);
}

static void draw_p99(const struct row *r, const int *width, const char *sla)
{
	char text[96], p99[32] = "-";
	uint64_t target = 0, p99_ns = (uint64_t)pen_json_int(json_object_get(json_object_get(r->dev, "response"), "recent"), "p99_ns");
	bool has_target = pen_parse_duration(sla, &target) == 0 && target;
	if (p99_ns)
		pen_format_duration(p99, sizeof(p99), p99_ns);
	snprintf(text, sizeof(text), "%s/%s", p99, has_target ? sla : "-");
	int colour = has_target ? level_colour((double)p99_ns / (double)target) : 0;
	attron(COLOR_PAIR(colour));
	cell(width, C_P99, text);
	attroff(COLOR_PAIR(colour));
}

static void draw_row(const struct top *top, const struct row *r, const int *width)
{
	const json_t *contract = json_object_get(r->tenant, "contract");
	char share[32], entitled[32], text[256];
	cell(width, C_NAME, pen_json_str(r->tenant, "name"));
	cell(width, C_CLASS, pen_json_str(contract, "class"));
	if (!r->dev) {
		addstr(pen_cut(text, sizeof(text), _("uses no device"), (size_t)PEN_MAX(COLS - 1 - getcurx(stdscr), 0)));
		return;
	}
	draw_memory(r, width);
	snprintf(text, sizeof(text), width[C_CLASS] ? _("%s of %s") : "%s/%s",
		 pen_format_share(share, sizeof(share), (uint32_t)pen_json_int(r->dev, "share_ppm_1s")),
		 pen_format_share(entitled, sizeof(entitled), (uint32_t)pen_json_int(r->dev, "entitled_ppm")));
	cell(width, C_SHARE, text);
	draw_p99(r, width, pen_json_str(contract, "sla"));
	size_t len = put_held(top, r, text, sizeof(text));
	put_video(r, text + len, sizeof(text) - len);
	cell(width, C_HELD, text);
}

static void draw(struct top *top, const json_t *answer)
{
	static struct row rows[ROWS_MAX];
	static const char *const heads[] = { "NAME", "CLASS", "MEMORY", "", "SHARE", "P99/TARGET", "HELD" };
	int width[C_MAX_];
	char line[256], cut[256];
	size_t n = collect(answer, rows);
	qsort_r(rows, n, sizeof(rows[0]), compare, &top->sort);
	erase();
	layout(COLS, width);
	attron(COLOR_PAIR(COLOUR_HEAD) | A_BOLD);
	snprintf(line, sizeof(line), "penstock top  %zu %s   q %s, m s p n %s (%c)", n, _("tenants"), _("quits"), _("sort"), top->sort);
	mvaddstr(0, 0, pen_cut(cut, sizeof(cut), line, (size_t)PEN_MIN(COLS - 1, 200)));
	move(1, 0);
	for (enum column c = 0; c < C_MAX_; c++)   /* the bar is of memory */
		cell(width, c, c == C_MEMORY && !width[C_BAR] ? "MEMORY" : heads[c]);
	attroff(COLOR_PAIR(COLOUR_HEAD) | A_BOLD);
	for (size_t i = 0; i < n && (int)i + 2 < LINES; i++) {
		move((int)i + 2, 0);
		draw_row(top, &rows[i], width);
	}
	refresh();
}

/* Return: 200, somebody has quit; else what a request came to. */
static int loop(struct top *top, struct pen_err *err)
{
	for (;;) {
		json_t *answer = NULL;
		int r = pen_client_request(top->cli, "GET", "/v1/tenants", NULL, &answer, err);
		if (r != 200) {
			json_decref(answer);
			return r;
		}
		top->now_ns = pen_mono_ns();
		draw(top, answer);
		json_decref(top->previous);
		top->previous = answer;
		top->previous_ns = top->now_ns;
		int key = getch();   /* waits at most the refresh interval */
		if (key == 'q' || key == 27)
			return r;
		if (key == 'm' || key == 's' || key == 'p' || key == 'n')
			top->sort = key;
	}
}

int pen_cmd_top(struct pen_cli *cli, int argc, char **argv)
{
	if (pen_cli_no_arguments(cli, argc, argv) < 0)
		return PEN_EXIT_USAGE;
	if (cli->output == PEN_OUT_JSON || !isatty(STDOUT_FILENO)) {
		char *ps[] = { argv[0], NULL };
		return pen_cmd_ps(cli, 1, ps);   /* a pipe or a script: the same figures as a table or JSON */
	}
	initscr();
	cbreak();
	noecho();
	curs_set(0);
	timeout(cli->watch_s > 0 ? (int)(cli->watch_s * 1000) : 1000);
	if (has_colors() && !getenv("NO_COLOR")) {
		start_color();
		use_default_colors();
		init_pair(COLOUR_OK, COLOR_GREEN, -1);
		init_pair(COLOUR_WARN, COLOR_YELLOW, -1);
		init_pair(COLOUR_BAD, COLOR_RED, -1);
		init_pair(COLOUR_HEAD, COLOR_CYAN, -1);
	}
	struct top top = { .cli = cli, .sort = 'n' };
	struct pen_err err = PEN_ERR_INIT;
	int r = loop(&top, &err);
	endwin();   /* first: it moves the cursor, and would write over what is said after the picture */
	json_decref(top.previous);
	return pen_client_exit("top", r, &err);
}
