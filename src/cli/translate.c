/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon says, in the reader's language. The daemon speaks English, to programs as to people, and may serve readers
 * of several languages at once. Its texts were made from those of the catalogue: the one that fits is looked for, what stands at
 * its conversions is taken over.
 */
#include "base/auto.h"
#include "cli/cli.h"

#include <ctype.h>
#include <string.h>

#define ARGS_MAX 8
#define LITERAL_LEAST 6   /* characters that must agree: "%s: %s" fits everything */
#define DEPTH_MAX 2

struct span {
	const char *at;
	size_t n;
};

/* A conversion of printf: its length, and whether it is a number. 0: @s is none. "%%" is none. */
static size_t conversion(const char *s, bool *ret_number, unsigned *ret_position)
{
	*ret_position = 0;
	if (s[0] != '%' || s[1] == '%')
		return 0;
	size_t n = 1, digits = strspn(s + 1, "0123456789");
	if (digits && s[1 + digits] == '$') {
		*ret_position = (unsigned)(s[1] - '0');
		n += digits + 1;
	}
	n += strspn(s + n, "0123456789.-lzh");
	*ret_number = s[n] == 'd' || s[n] == 'u';
	return s[n] ? n + 1 : 0;
}

/* Does @text fit @pattern from here on? What stands at conversions is the shortest that lets the rest fit. */
static bool fits(const char *pattern, const char *text, struct span *args, unsigned n_args)
{
	bool number;
	unsigned position;
	while (*pattern) {
		size_t c = conversion(pattern, &number, &position);
		if (c) {
			if (n_args == ARGS_MAX)
				return false;
			for (size_t n = number ? 1 : 0; ; n++) {
				args[n_args] = (struct span){ text, n };
				if (fits(pattern + c, text + n, args, n_args + 1))
					return true;
				if (!text[n] || (number && !isdigit((unsigned char)text[n])))
					return false;
			}
		}
		pattern += *pattern == '%';   /* %% */
		if (*pattern++ != *text++)
			return false;
	}
	return !*text;
}

static size_t literals(const char *pattern)
{
	bool number;
	unsigned position;
	size_t sum = 0;
	while (*pattern) {
		size_t c = conversion(pattern, &number, &position);
		sum += !c;
		pattern += c ? c : 1;
	}
	return sum;
}

struct search {
	const char *text, *best;
	size_t score;
};

static void consider(void *arg, const char *pattern)
{
	struct search *s = arg;
	struct span args[ARGS_MAX];
	size_t score;
	if (!strchr(pattern, '%') || (score = literals(pattern)) < LITERAL_LEAST || score <= s->score)
		return;
	if (!fits(pattern, s->text, args, 0))
		return;
	s->best = pattern;
	s->score = score;
}

static void translate(const char *text, char *buf, size_t n, int depth);

/* A sentence within a sentence is translated as well; a word may be a name or a field, and stays. */
static size_t put_arg(char *buf, size_t n, const struct span *arg, int depth)
{
	char word[512], sentence[512];
	snprintf(word, sizeof(word), "%.*s", (int)PEN_MIN(arg->n, sizeof(word) - 1), arg->at);
	if (depth < DEPTH_MAX && strchr(word, ' '))
		translate(word, sentence, sizeof(sentence), depth + 1);
	else
		strcpy(sentence, word);
	int len = snprintf(buf, n, "%s", sentence);
	return PEN_MIN((size_t)len, n - 1);
}

static void fill(const char *pattern, const struct span *args, char *buf, size_t n, int depth)
{
	bool number;
	unsigned position, next = 0;
	size_t len = 0;
	while (*pattern && len + 1 < n) {
		size_t c = conversion(pattern, &number, &position);
		if (c) {
			unsigned at = position ? position - 1 : next++;
			if (at < ARGS_MAX && args[at].at)
				len += put_arg(buf + len, n - len, &args[at], depth);
			pattern += c;
			continue;
		}
		pattern += *pattern == '%';
		buf[len++] = *pattern++;
	}
	buf[len] = 0;
}

static void translate(const char *text, char *buf, size_t n, int depth)
{
	struct search s = { .text = text };
	struct span args[ARGS_MAX] = { { NULL, 0 } };
	const char *whole = pen_text(text);
	if (whole == text)
		pen_text_each(consider, &s);
	if (!s.best || pen_text(s.best) == s.best) {
		snprintf(buf, n, "%s", whole);
		return;
	}
	fits(s.best, text, args, 0);
	fill(pen_text(s.best), args, buf, n, depth);
}

char *pen_cli_translate(const char *text, char *buf, size_t n)
{
	translate(text, buf, n, 0);
	return buf;
}
