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

/*
 * Sets the locale of the process and finds the catalogue: beside this program (../share/locale, or po/ of a build tree),
 * else in @installed_dir. Numbers keep their '.': what we print is read by scripts.
 */
void pen_text_init(const char *installed_dir);

/* In place: '?' for control characters and for every byte that is not part of UTF-8, such as a character cut in half. */
void pen_text_clean(char *s);

/* The translation of @s, or @s. */
const char *pen_text(const char *s) __attribute__((format_arg(1)));

#endif
