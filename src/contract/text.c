/* SPDX-License-Identifier: Apache-2.0 */
#include "contract/text.h"

#include "base/auto.h"

#include <langinfo.h>
#include <libintl.h>
#include <limits.h>
#include <locale.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DOMAIN "penstock"
#define CATALOGUE_MAX (UINT32_C(4) << 20)   /* bytes; ours is some 50 kB */

/* A .mo file of this machine's byte order [GNU gettext manual, "The Format of GNU MO Files"]. */
enum { MO_MAGIC = 0, MO_COUNT = 2, MO_ORIGINALS = 3, MO_TRANSLATIONS = 4, MO_HEADER_WORDS = 7 };
#define MO_MAGIC_VALUE UINT32_C(0x950412de)

static struct {
	char *data;   /* NULL: there is none; one byte more than the file, a NUL */
	uint32_t size;
	bool translates;   /* not gettext */
	bool english;
} own;

static uint32_t word(const char *data, uint32_t offset)
{
	uint32_t v;
	memcpy(&v, data + offset, sizeof(v));
	return v;
}

/* The i-th string of the table at @table: pairs of length and offset. NULL: outside the file. */
static const char *string(uint32_t table, uint32_t i)
{
	uint32_t length = word(own.data, table + i * 8), offset = word(own.data, table + i * 8 + 4);
	return offset <= own.size && length <= own.size - offset ? own.data + offset : NULL;
}

static bool valid(const char *data, uint32_t size)
{
	if (size < MO_HEADER_WORDS * 4 || word(data, MO_MAGIC) != MO_MAGIC_VALUE)
		return false;
	uint32_t count = word(data, MO_COUNT * 4);
	uint32_t originals = word(data, MO_ORIGINALS * 4), translations = word(data, MO_TRANSLATIONS * 4);
	return count <= size / 16 && originals <= size - count * 8 && translations <= size - count * 8;
}

static bool load(const char *path)
{
	pen_auto_fclose FILE *f = fopen(path, "re");
	if (!f || fseek(f, 0, SEEK_END) != 0)
		return false;
	long size = ftell(f);
	if (size <= 0 || size > (long)CATALOGUE_MAX || fseek(f, 0, SEEK_SET) != 0)
		return false;
	pen_auto_free char *data = calloc(1, (size_t)size + 1);
	if (!data || fread(data, 1, (size_t)size, f) != (size_t)size || !valid(data, (uint32_t)size))
		return false;
	own.data = PEN_TAKE_PTR(data);
	own.size = (uint32_t)size;
	return true;
}

/* "zh_CN.UTF-8@x" -> zh_CN, then zh; any Chinese reads what there is of it. */
static bool load_language(const char *dir, const char *lang)
{
	char name[32], path[PATH_MAX];
	int len = (int)strcspn(lang, ".@:"), base = (int)strcspn(lang, "_.@:");
	if (len == 0 || len >= (int)sizeof(name) || memchr(lang, '/', (size_t)len))
		return false;
	const char *related = base == 2 && !memcmp(lang, "zh", 2) ? "zh_CN" : "";
	for (int i = 0; i < 3; i++) {
		if (i == 2)
			snprintf(name, sizeof(name), "%s", related);
		else
			snprintf(name, sizeof(name), "%.*s", i ? base : len, lang);
		if (!*name || (size_t)snprintf(path, sizeof(path), "%s/%s/LC_MESSAGES/" DOMAIN ".mo", dir, name) >= sizeof(path))
			continue;
		if (load(path))
			return true;
	}
	return false;
}

static const char *find_dir(const char *installed_dir, char *buf, size_t n)
{
	static const char *const beside[] = { "../share/locale", "../../po" };
	char exe[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	char *slash = len > 0 ? (exe[len] = 0, strrchr(exe, '/')) : NULL;
	for (size_t i = 0; slash && i < PEN_ARRAY_LEN(beside); i++) {
		int used = snprintf(buf, n, "%.*s/%s", (int)(slash - exe), exe, beside[i]);
		char probe[PATH_MAX + 48];
		snprintf(probe, sizeof(probe), "%s/zh_CN/LC_MESSAGES/" DOMAIN ".mo", buf);
		if (used > 0 && (size_t)used < n && access(probe, R_OK) == 0)
			return buf;
	}
	return installed_dir;
}

/* What the reader asked for, if gettext will not do it. NULL: gettext will, or there is nothing to do. */
static const char *wanted(bool has_locale)
{
	static const char *const names[] = { "PENSTOCK_LANG", "LC_ALL", "LC_MESSAGES", "LANG" };
	for (size_t i = 0; i < (has_locale ? 1 : PEN_ARRAY_LEN(names)); i++) {
		const char *v = getenv(names[i]);
		if (v && *v)
			return v;
	}
	return NULL;
}

void pen_text_init(const char *installed_dir)
{
	char dir[PATH_MAX];
	bool has_locale = setlocale(LC_ALL, "") != NULL;
	setlocale(LC_NUMERIC, "C");
	const char *where = find_dir(installed_dir, dir, sizeof(dir));
	const char *lang = wanted(has_locale);
	if (!lang) {
		const char *list = getenv("LANGUAGE");
		lang = setlocale(LC_MESSAGES, NULL);
		if (lang && strcmp(lang, "C") && strcmp(lang, "POSIX"))
			load_language(where, list && *list ? list : lang);   /* for pen_text_each() */
		bindtextdomain(DOMAIN, where);
		bind_textdomain_codeset(DOMAIN, nl_langinfo(CODESET));
		return;
	}
	/* From here on gettext stays out of it, also when the wish is English or a language that we do not have. */
	setlocale(LC_MESSAGES, "C");
	own.translates = load_language(where, lang);
	if (own.translates && strcmp(nl_langinfo(CODESET), "UTF-8"))
		setlocale(LC_CTYPE, "C.UTF-8");   /* for the width of characters; the catalogue is UTF-8 */
}

/* Bytes of the UTF-8 character of more than one at @s; 0: none. */
static size_t utf8_len(const unsigned char *s)
{
	size_t n = s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	/* What JSON's reader refuses as well: E0 80.., F0 80.. (overlong), ED A0.. (surrogates), F4 90.. (too large). */
	bool bad = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xed && s[1] >= 0xa0) ||
		   (s[0] == 0xf4 && s[1] >= 0x90);
	/* What a terminal obeys: U+0080 to 9F are what ESC and one more are, U+2028 to 202E and 2066 to 2069 break and turn around lines. */
	bad |= (s[0] == 0xc2 && s[1] < 0xa0) || (s[0] == 0xe2 && s[1] == 0x80 && s[2] >= 0xa8 && s[2] <= 0xae) ||
	       (s[0] == 0xe2 && s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9);
	return bad ? 0 : n;
}

void pen_text_clean(char *s)
{
	while (*s) {
		unsigned char c = (unsigned char)*s;
		size_t n = c >= 0x20 && c < 0x7f ? 1 : utf8_len((unsigned char *)s);
		if (!n)
			*s = '?';
		s += n ? n : 1;
	}
}

char *pen_text_size(char *buf, size_t n, uint64_t bytes, bool up)
{
	static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	size_t i = 0, largest = PEN_ARRAY_LEN(unit) - 1;
	while (i < largest && bytes >> (10 * i) >= 1024 &&
	       (!(bytes & ((UINT64_C(1) << (10 * (i + 1))) - 1)) || (i < 2 && bytes >> (10 * i) >= 10240)))
		i++;
	uint64_t step = UINT64_C(1) << (10 * i), v = bytes / step;
	if (up && bytes % step)
		v++;
	snprintf(buf, n, "%llu %s", (unsigned long long)v, unit[i]);
	return buf;
}

const char *pen_text(const char *s)
{
	if (own.english)
		return s;
	if (!own.translates)
		return dgettext(DOMAIN, s);
	if (!*s)
		return s;   /* the empty string's translation is the catalogue's header */
	uint32_t low = 0, high = word(own.data, MO_COUNT * 4);
	uint32_t originals = word(own.data, MO_ORIGINALS * 4), translations = word(own.data, MO_TRANSLATIONS * 4);
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		const char *at = string(originals, mid);
		int order = at ? strcmp(s, at) : -1;
		if (order == 0) {
			const char *t = string(translations, mid);
			return t && *t ? t : s;
		}
		if (order < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return s;
}

void pen_text_english(void)
{
	own.english = true;
}

void pen_text_each(void (*fn)(void *arg, const char *english), void *arg)
{
	uint32_t count = own.data ? word(own.data, MO_COUNT * 4) : 0;
	for (uint32_t i = 0; i < count; i++) {
		const char *s = string(word(own.data, MO_ORIGINALS * 4), i);
		if (s && *s)
			fn(arg, s);
	}
}
