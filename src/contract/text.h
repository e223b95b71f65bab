/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_CONTRACT_TEXT_H
#define PEN_CONTRACT_TEXT_H
/*
 * Messages in the reader's language: gettext, and a reader of our own for where gettext cannot work.
 *
 * gettext needs a locale that was generated on the machine, and edge boxes often have C.UTF-8 alone: their users would
 * read English whatever LANG says. So if LANG names a locale that is not there, or PENSTOCK_LANG names a language, the
 * catalogue is read here. LANGUAGE is not set for that: `penstock run` would hand it on to the program.
 *
 * Threads: pen_text_init() once, before others are started; pen_text() any. Lifetime: what pen_text() returns is never freed.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Sets the locale of the process and finds the catalogue: beside this program (../share/locale, or po/ of a build tree),
 * else in @installed_dir. Numbers keep their '.': what we print is read by scripts.
 */
void pen_text_init(const char *installed_dir);

/* In place: '?' for control characters and for every byte that is not part of UTF-8, such as a character cut in half. */
void pen_text_clean(char *s);

/*
 * A size for a sentence: "512 MiB", "900 TiB". What is no whole number of a large unit is rounded to whole MiB, or KiB below 10 of
 * them: @up for what is asked for, down for what there is, so that what did not fit never reads as if it did.
 */
char *pen_text_size(char *buf, size_t n, uint64_t bytes, bool up);

/* The translation of @s, or @s. */
const char *pen_text(const char *s) __attribute__((format_arg(1)));
/* From here on nothing is translated: what a daemon answers is read by programs, and by people of several languages. */
void pen_text_english(void);
/* Calls @fn with every English text that the reader's catalogue translates; with none if there is no catalogue. */
void pen_text_each(void (*fn)(void *arg, const char *english), void *arg);

/* Marks a text for the catalogue and leaves it English. */
#ifndef N_
#define N_(s) s
#endif

#endif
