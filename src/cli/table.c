/* SPDX-License-Identifier: Apache-2.0 */
#include "base/auto.h"
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#define COLUMNS_MAX 16
#define CUT_LEAST 8   /* cells of what is cut; less would tell nothing */

struct pen_table {
	size_t columns, rows, room;
	const unsigned char *drop;   /* NULL: it is never made to fit */
	char **cell;   /* rows * columns */
};

struct pen_table *pen_table_create(size_t columns)
{
	struct pen_table *t = columns <= COLUMNS_MAX ? calloc(1, sizeof(*t)) : NULL;
	if (t)
		t->columns = columns;
	return t;
}

void pen_table_row(struct pen_table *t, const char *const *cells)
{
	if (t->rows == t->room) {
		size_t room = t->room ? t->room * 2 : 16;
		char **grown = realloc(t->cell, room * t->columns * sizeof(*grown));
		if (!grown)
			return;
		t->cell = grown;
		t->room = room;
	}
	for (size_t i = 0; i < t->columns; i++)
		t->cell[t->rows * t->columns + i] = strdup(cells[i] && *cells[i] ? cells[i] : "-");
	t->rows++;
}

/* Cells that a terminal uses: Chinese characters take two, a byte count would misalign the table. */
static size_t width(const char *s)
{
	wchar_t wide[256];
	size_t n = mbstowcs(wide, s, PEN_ARRAY_LEN(wide) - 1);
	if (n == (size_t)-1)
		return strlen(s);
	wide[PEN_MIN(n, PEN_ARRAY_LEN(wide) - 1)] = 0;
	int w = wcswidth(wide, PEN_ARRAY_LEN(wide));
	return w < 0 ? strlen(s) : (size_t)w;
}

void pen_put_padded(FILE *out, const char *text, size_t cells)
{
	size_t w = width(text);
	fprintf(out, "%s%*s", text, w < cells ? (int)(cells - w) : 0, "");
}

/* Bytes of the character at @s and the cells that it takes. */
static size_t step(const char *s, size_t *ret_cells)
{
	wchar_t c;
	int n = mbtowc(&c, s, MB_CUR_MAX), w = n > 0 ? wcwidth(c) : 1;
	*ret_cells = w < 0 ? 1 : (size_t)w;
	return n > 0 ? (size_t)n : 1;
}

/* How many bytes of @s go on a line of @cells: up to a blank, or anywhere before a wide character, as Chinese is broken. */
static size_t line_bytes(const char *s, size_t cells)
{
	size_t used = 0, at = 0, good = 0, w;
	while (s[at]) {
		size_t n = step(s + at, &w);
		if (s[at] == ' ' || (w == 2 && at))
			good = at;
		if (used + w > cells)
			return good ? good : at;
		used += w;
		at += n;
	}
	return at;
}

void pen_put_folded(FILE *out, const char *text, size_t indent, size_t width_cells)
{
	for (;;) {
		size_t n = line_bytes(text, width_cells - indent);
		fprintf(out, "%.*s\n", (int)n, text);
		text += n;
		while (*text == ' ')
			text++;
		if (!*text)
			return;
		fprintf(out, "%*s", (int)indent, "");
	}
}

char *pen_cut(char *buf, size_t n, const char *text, size_t cells)
{
	bool cut = width(text) > cells;
	size_t used = 0, len = 0, w;
	while (*text && cells) {
		size_t bytes = step(text, &w);
		if (used + w + cut > cells || len + bytes + 2 > n)
			break;
		memcpy(buf + len, text, bytes);
		len += bytes;
		used += w;
		text += bytes;
	}
	if (cut && cells && len + 1 < n) {
		buf[len++] = '.';
		used++;
	}
	for (; used < cells && len + 1 < n; used++)
		buf[len++] = ' ';
	buf[len] = 0;
	return buf;
}

void pen_put_cut(FILE *out, const char *text, size_t cells)
{
	char buf[1024];
	fputs(pen_cut(buf, sizeof(buf), text, cells), out);
}

static size_t column_width(const struct pen_table *t, size_t c, bool skip_first)
{
	size_t widest = 0;
	for (size_t k = skip_first ? 1 : 0; k < t->rows; k++)
		widest = PEN_MAX(widest, width(t->cell[k * t->columns + c]));
	return widest;
}

/* Is there anything below the head? */
static bool is_empty(const struct pen_table *t, size_t c)
{
	for (size_t k = 1; k < t->rows; k++)
		if (strcmp(t->cell[k * t->columns + c], "-"))
			return false;
	return true;
}

/* The screen's columns; 0: not a terminal, whoever reads it wants all. COLUMNS is not asked: it is the shell's, and stale after a resize. */
static size_t screen_cells(FILE *out)
{
	struct winsize size;
	return isatty(fileno(out)) && ioctl(fileno(out), TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

struct fit {
	bool gone[COLUMNS_MAX];
	size_t cells[COLUMNS_MAX];
};

static size_t total(const struct pen_table *t, const struct fit *f)
{
	size_t sum = 0;
	for (size_t c = 0; c < t->columns; c++)
		sum += f->gone[c] ? 0 : f->cells[c] + (sum ? 2 : 0);
	return sum;
}

/*
 * Columns go that have nothing in any row, then those that matter least; what is still too wide is cut in the column that may
 * be cut.
 */
static void fit(const struct pen_table *t, struct fit *f, size_t room)
{
	for (size_t i = 0; i < t->columns && total(t, f) > room; i++)
		for (size_t c = 0; c < t->columns; c++)
			f->gone[c] |= t->drop[c] == i + 1 && is_empty(t, c);
	for (size_t i = 0; i < t->columns && total(t, f) > room; i++)
		for (size_t c = 0; c < t->columns; c++)
			f->gone[c] |= t->drop[c] == i + 1;
	for (size_t c = 0; c < t->columns && total(t, f) > room; c++) {
		size_t over = total(t, f) - room;
		if (t->drop[c] == PEN_COLUMN_CUT)
			f->cells[c] = f->cells[c] > over + CUT_LEAST ? f->cells[c] - over : PEN_MIN(f->cells[c], (size_t)CUT_LEAST);
	}
}

void pen_table_fit(struct pen_table *t, const unsigned char *drop)
{
	t->drop = drop;
}

void pen_table_print(const struct pen_table *t, FILE *out, bool skip_first)
{
	struct fit f = { { false }, { 0 } };
	size_t room = t->drop ? screen_cells(out) : 0, last = 0;
	for (size_t c = 0; c < t->columns; c++)
		f.cells[c] = column_width(t, c, skip_first);
	if (room)
		fit(t, &f, room);
	for (size_t c = 0; c < t->columns; c++)
		last = f.gone[c] ? last : c;
	for (size_t r = skip_first ? 1 : 0; r < t->rows; r++)
		for (size_t c = 0; c <= last; c++) {
			const char *s = t->cell[r * t->columns + c];
			if (f.gone[c])
				continue;
			if (c == last && width(s) <= f.cells[c])
				fputs(s, out);
			else
				pen_put_cut(out, s, f.cells[c]);
			fputs(c == last ? "\n" : "  ", out);
		}
}

void pen_table_destroy(struct pen_table *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->rows * t->columns; i++)
		free(t->cell[i]);
	free(t->cell);
	free(t);
}
