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
#define BAR_CELLS 16

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
		return pen_json_int(r->dev, "mem_used_bytes");
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

static void bar(double part)
{
	int full = part <= 0 ? 0 : part >= 1 ? BAR_CELLS : (int)(part * BAR_CELLS + 0.5);
	attron(COLOR_PAIR(level_colour(part)));
	for (int i = 0; i < BAR_CELLS; i++)
		addstr(i < full ? "|" : "."); /* ASCII: edge boxes are looked at through serial consoles */
	attroff(COLOR_PAIR(level_colour(part)));
}

static void draw_held(const struct top *top, const struct row *r)
{
	const json_t *old = before(top, r);
	const char *reason;
	json_t *v;
	double span = (double)(top->now_ns - top->previous_ns);
	json_object_foreach(json_object_get(r->dev, "held_ns"), reason, v) {
		long long diff = json_integer_value(v) - pen_json_int(json_object_get(old, "held_ns"), reason);
		if (old && span > 0 && diff > 0)
			printw(" %s %.0f%%", reason, 100.0 * (double)diff / span);
	}
}

/* Only while there is some: most tenants never use it. */
static void draw_video(const struct row *r)
{
	static const char *const keys[] = { "dec_ppm", "enc_ppm" };
	for (size_t i = 0; i < PEN_ARRAY_LEN(keys); i++) {
		char share[32];
		uint32_t ppm = (uint32_t)pen_json_int(r->dev, keys[i]);
		if (ppm)
			printw(i ? _(" encoder %s (not gated)") : _(" decoder %s (not gated)"), pen_format_share(share, sizeof(share), ppm));
	}
}

static void draw_row(const struct top *top, const struct row *r)
{
	const json_t *contract = json_object_get(r->tenant, "contract");
	printw("%-20.20s %-10s ", pen_json_str(r->tenant, "name"), pen_json_str(contract, "class"));
	if (!r->dev) {
		printw("%s\n", _("uses no device"));
		return;
	}
	char used[32], beside[32] = "", limit[32] = "-", share[32], entitled[32], p99[32] = "-";
	double mem = (double)pen_json_int(r->dev, "mem_used_bytes"), overhead = (double)pen_json_int(r->dev, "mem_overhead_bytes");
	const json_t *cap = json_object_get(r->dev, "mem_limit_bytes");
	double room = json_is_integer(cap) ? (double)json_integer_value(cap) : 0;
	if (room > 0)
		pen_format_bytes(limit, sizeof(limit), (uint64_t)room);
	if (overhead > 0) {
		beside[0] = '+';
		pen_format_bytes(beside + 1, sizeof(beside) - 1, (uint64_t)overhead);
	}
	bar(room > 0 ? (mem + overhead) / room : 0);
	printw(" %7s%-7s/%-7s ", pen_format_bytes(used, sizeof(used), (uint64_t)mem), beside, limit);
	printw("%6s of %-6s ", pen_format_share(share, sizeof(share), (uint32_t)pen_json_int(r->dev, "share_ppm_1s")),
	       pen_format_share(entitled, sizeof(entitled), (uint32_t)pen_json_int(r->dev, "entitled_ppm")));
	const json_t *recent = json_object_get(json_object_get(r->dev, "response"), "recent");
	uint64_t p99_ns = (uint64_t)pen_json_int(recent, "p99_ns"), target = 0;
	const char *sla = pen_json_str(contract, "sla");
	bool has_target = pen_parse_duration(sla, &target) == 0 && target;
	if (p99_ns)
		pen_format_duration(p99, sizeof(p99), p99_ns);
	int colour = has_target ? level_colour((double)p99_ns / (double)target) : 0;
	attron(COLOR_PAIR(colour));
	printw("%8s/%-7s", p99, has_target ? sla : "-");
	attroff(COLOR_PAIR(colour));
	draw_held(top, r);
	draw_video(r);
	addch('\n');
}

static void draw(struct top *top, const json_t *answer)
{
	static struct row rows[ROWS_MAX];
	size_t n = collect(answer, rows);
	qsort_r(rows, n, sizeof(rows[0]), compare, &top->sort);
	erase();
	attron(COLOR_PAIR(COLOUR_HEAD) | A_BOLD);
	printw("penstock top  %zu %s   q %s, m s p n %s (%c)\n", n, _("tenants"), _("quits"), _("sort"), top->sort);
	printw("%-20s %-10s %-*s %-22s %-16s %-16s %s\n", "NAME", "CLASS", BAR_CELLS, "MEMORY", "", "SHARE", "P99/TARGET",
	       "HELD");
	attroff(COLOR_PAIR(COLOUR_HEAD) | A_BOLD);
	for (size_t i = 0; i < n && getcury(stdscr) < LINES - 1; i++)
		draw_row(top, &rows[i]);
	refresh();
}

static int loop(struct top *top)
{
	struct pen_err err = PEN_ERR_INIT;
	for (;;) {
		json_t *answer = NULL;
		int r = pen_client_request(top->cli, "GET", "/v1/tenants", NULL, &answer, &err);
		if (r != 200) {
			json_decref(answer);
			endwin();
			return pen_client_exit("top", r, &err);
		}
		top->now_ns = pen_mono_ns();
		draw(top, answer);
		json_decref(top->previous);
		top->previous = answer;
		top->previous_ns = top->now_ns;
		int key = getch();   /* waits at most the refresh interval */
		if (key == 'q' || key == 27)
			return PEN_EXIT_OK;
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
	int code = loop(&top);
	endwin();
	json_decref(top.previous);
	return code;
}
