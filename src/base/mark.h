/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_BASE_MARK_H
#define PEN_BASE_MARK_H
/* Marks a text for the translators where it is kept in a table; it is translated where it is printed (contract/text.h). */
#define N_(s) s

#endif
