/* SPDX-License-Identifier: Apache-2.0 */
#include "base/auto.h"
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <wchar.h>

struct pen_table {
	size_t columns, rows, room;
	char **cell;   /* rows * columns */
};

struct pen_table *pen_table_create(size_t columns)
{
	struct pen_table *t = calloc(1, sizeof(*t));
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

void pen_table_print(const struct pen_table *t, FILE *out, bool skip_first)
{
	for (size_t r = skip_first ? 1 : 0; r < t->rows; r++)
		for (size_t c = 0; c < t->columns; c++) {
			const char *s = t->cell[r * t->columns + c];
			size_t widest = 0;
			for (size_t k = skip_first ? 1 : 0; k < t->rows; k++)
				widest = PEN_MAX(widest, width(t->cell[k * t->columns + c]));
			if (c + 1 == t->columns)
				fprintf(out, "%s\n", s);
			else
				fprintf(out, "%s%*s", s, (int)(widest - width(s) + 2), "");
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
