/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PEN_CONTRACT_INTERNAL_H
#define PEN_CONTRACT_INTERNAL_H
/*
 * Shared inside this folder: keys (a row of a contract or of the node configuration), the values they parse, and YAML
 * with positions.
 */
#include "contract/contract.h"
#include "contract/text.h"

#include <yaml.h>

/* Texts for people; without a catalogue or pen_text_init() they stay English. */
#define _(s) pen_text(s)
#define N_(s) s

/* ---- keys ---- */

/*
 * Parsers write @member on success only and return 0, -EINVAL or -ERANGE; *@why, if set, says more than "not valid".
 * Formatters write text that the parser reads back to the same value.
 */
typedef int pen_value_parse_fn(void *member, const char *s, const char **why);
typedef void pen_value_format_fn(const void *member, char *buf, size_t n);

struct pen_key {
	const char *name;
	size_t offset;
	pen_value_parse_fn *parse;
	pen_value_format_fn *format;
	const char *deflt, *allowed;
};

/* "KEY: 'VALUE' WHY; allowed: ..." on failure, with VALUE cut and made printable. */
int pen_key_set(const struct pen_key *k, void *base, const char *value, struct pen_err *err);
char *pen_key_get(const struct pen_key *k, const void *base, char *buf, size_t n);
/* Copies at most @n - 1 bytes, everything but printable ASCII as '?', "..." at the end of what was cut. */
char *pen_printable(char *buf, size_t n, const char *s);
/* Plain or double-quoted, whichever YAML needs. */
void pen_yaml_put_scalar(FILE *out, const char *s);

#define PEN_VALUE_KINDS(X) \
	X(name) X(device) X(class) X(priority) X(bytes_range) X(share_range) X(rate_cap) X(units) X(sla) X(duty) \
	X(path) X(listen) X(unix_group) X(level) X(tick) X(days) X(max_size) X(order) X(share) X(rate) X(mode) \
	X(quantum) X(reserve) X(toggle) X(domain) X(lease) X(pods) X(path_list) X(path_or_auto) X(path_or_none) X(interval) \
	X(period) X(unknown) X(path_list_or_none)

#define PEN_X_(kind) \
	pen_value_parse_fn pen_value_parse_##kind; \
	pen_value_format_fn pen_value_format_##kind;
PEN_VALUE_KINDS(PEN_X_)
#undef PEN_X_

/* Labels of lower-case letters, digits and '-', with dots between them. */
bool pen_dns_name(const char *s, size_t len);
/* Index of @s in @names; -EINVAL. */
int pen_value_choice(const char *const *names, size_t n, const char *s);
/* Exact text of a size, rate, share or time, in the largest unit that divides it. */
void pen_exact_bytes(char *buf, size_t n, uint64_t v);
void pen_exact_rate(char *buf, size_t n, uint64_t v);
void pen_exact_share(char *buf, size_t n, uint64_t ppm);
void pen_exact_duration(char *buf, size_t n, uint64_t ns);

/* ---- YAML ---- */

/*
 * One document of at most PEN_CONTRACT_FILE_MAX bytes, 16 levels and 256 anchors: see yaml.c for why.
 */
struct pen_yaml {
	yaml_document_t doc;
	bool loaded;
	char origin[128];   /* file name for messages, its end if it is long */
};

int pen_yaml_load(struct pen_yaml *y, const char *path, struct pen_err *err);
int pen_yaml_load_bytes(struct pen_yaml *y, const char *origin, const void *data, size_t len, struct pen_err *err);
void pen_yaml_close(struct pen_yaml *y);
yaml_node_t *pen_yaml_root(struct pen_yaml *y);   /* NULL: empty document */

/* "ORIGIN:LINE: TEXT". Return: @code. */
int pen_yaml_err(const struct pen_yaml *y, const yaml_node_t *at, int code, struct pen_err *err, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
/* Puts "ORIGIN:LINE: " before the text that is there. Return: @code. */
int pen_yaml_locate(const struct pen_yaml *y, const yaml_node_t *at, int code, struct pen_err *err);

/* Text of a scalar. NULL: another kind of node, or with a NUL byte inside. */
const char *pen_yaml_text(const yaml_node_t *node);
/* i-th pair of a mapping. Return: 1; 0 at the end; -EINVAL key is not text. */
int pen_yaml_pair(struct pen_yaml *y, const yaml_node_t *map, size_t i, const char **ret_key, yaml_node_t **ret_key_node,
		  yaml_node_t **ret_value, struct pen_err *err);
/* i-th item of a sequence; NULL at the end. */
yaml_node_t *pen_yaml_item(struct pen_yaml *y, const yaml_node_t *seq, size_t i);

/*
 * Keys that a mapping of contract fields may have beside them. @take: what to do with one. Return: index of the contract's
 * field that it set; PEN_YAML_TOOK; -ENOENT not one of them; other negative errno with text and line.
 */
#define PEN_YAML_TOOK 1000
struct pen_yaml_more {
	int (*take)(struct pen_yaml *y, const char *key, const yaml_node_t *key_node, const yaml_node_t *value,
		    struct pen_contract *c, void *arg, struct pen_err *err);
	void *arg;
};
/*
 * A mapping of contract fields onto @c, validated. @deflt_name: name if the mapping has none; NULL: none needed.
 * @more: NULL if there are no other keys.
 */
int pen_contract_from_yaml(struct pen_yaml *y, const yaml_node_t *map, const char *deflt_name,
			   const struct pen_yaml_more *more, struct pen_contract *c, struct pen_err *err);
/* As pen_contract_print(), but the first line begins with "- " inside the indent: an item of a list. */
int pen_contract_print_item(const struct pen_contract *c, FILE *out, int indent, bool all);

#endif
