/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock-probe: one JSON object with the devices of every backend on standard output.
 *
 * A process of its own because it runs vendor code. Exit code: 0 printed (absent libraries are reported inside), 1 could
 * not print, 2 usage. Vendor libraries print on standard output too: it is kept for the answer alone, theirs goes to
 * standard error.
 */
#include "backend/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Length of the UTF-8 sequence at @s, 0 if it is none: JSON must be UTF-8, a driver's text need not be. */
static size_t utf8_len(const unsigned char *s)
{
	size_t n = s[0] < 0x80 ? 1 : (s[0] & 0xe0) == 0xc0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : (s[0] & 0xf8) == 0xf0 ? 4 : 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return n == 2 && s[0] < 0xc2 ? 0 : n;
}

static void print_string(FILE *out, const char *text)
{
	fputc('"', out);
	for (const unsigned char *s = (const unsigned char *)text; *s;) {
		size_t n = utf8_len(s);
		if (n == 0) {
			fputc('?', out);
			s++;
			continue;
		}
		if (*s == '"' || *s == '\\')
			fprintf(out, "\\%c", *s);
		else if (*s < 0x20)
			fprintf(out, "\\u%04x", *s);
		else
			fwrite(s, 1, n, out);
		s += n;
	}
	fputc('"', out);
}

static void print_device(FILE *out, const char *api, const struct pen_backend_device *d)
{
	fprintf(out, "{\"api\":\"%s\",\"key\":", api);
	print_string(out, d->key);
	fputs(",\"model\":", out);
	print_string(out, d->model);
	fputs(",\"platform\":", out);
	print_string(out, d->platform);
	fputs(",\"driver\":", out);
	print_string(out, d->driver);
	fprintf(out, ",\"mem_bytes\":%llu,\"units\":%u}", (unsigned long long)d->mem_bytes, d->units);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		int help = !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h");
		fputs("usage: penstock-probe\nPrints the devices that the vendors' libraries know, as JSON.\n",
		      help ? stdout : stderr);
		return help ? 0 : 2;
	}
	int keep = dup(STDOUT_FILENO);
	FILE *out = keep < 0 ? NULL : fdopen(keep, "w");
	if (!out || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		return 1;

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
		print_string(out, rc[i] < 0 ? errs[i].text : "");
		fputc('}', out);
		comma = ",";
	}
	fputs("]}\n", out);
	if (fflush(out) != 0 || ferror(out))
		return 1;
	/* Not exit(): destructors of vendor libraries have hung and crashed at exit, and the answer is out. */
	_exit(0);
}
