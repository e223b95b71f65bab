/* SPDX-License-Identifier: Apache-2.0 */
/* Contracts as YAML: reading with positions, printing. */
#include "base/auto.h"
#include "contract/internal.h"

#include <errno.h>
#include <string.h>

static int note_line(struct pen_yaml *y, const char *key, const yaml_node_t *key_node, const yaml_node_t **line,
		     struct pen_err *err)
{
	if (*line)
		return pen_yaml_err(y, key_node, -EINVAL, err, _("%s: given twice, first in line %zu"), key,
				    (*line)->start_mark.line + 1);
	*line = key_node;
	return 0;
}

static int set_other(struct pen_yaml *y, const char *key, const yaml_node_t *key_node, const yaml_node_t *value,
		     const yaml_node_t *lines[], const struct pen_yaml_more *more, struct pen_contract *c, struct pen_err *err)
{
	int r = more ? more->take(y, key, key_node, value, c, more->arg, err) : -ENOENT;
	if (r == PEN_YAML_TOOK)
		return 0;
	if (r >= 0)
		return note_line(y, key, key_node, &lines[r], err);
	if (r != -ENOENT)
		return r;
	pen_contract_set(c, key, "", err);   /* for its message; -ENOENT is kept for files that are not there */
	return pen_yaml_locate(y, key_node, -EINVAL, err);
}

static int set_pair(struct pen_yaml *y, const char *key, const yaml_node_t *key_node, const yaml_node_t *value,
		    const yaml_node_t *lines[], const struct pen_yaml_more *more, struct pen_contract *c, struct pen_err *err)
{
	int f = pen_contract_field_find(key);
	if (f < 0)
		return set_other(y, key, key_node, value, lines, more, c, err);
	int r = note_line(y, key, key_node, &lines[f], err);
	if (r < 0)
		return r;
	const char *text = pen_yaml_text(value);
	if (!text)
		return pen_yaml_err(y, value, -EINVAL, err, _("%s: must be a single value; allowed: %s"), key,
				    _(pen_contract_field((size_t)f)->allowed));
	r = pen_contract_set(c, key, text, err);
	return r < 0 ? pen_yaml_locate(y, value, r, err) : 0;
}

static int validate(struct pen_yaml *y, const yaml_node_t *map, const yaml_node_t *lines[], const struct pen_contract *c,
		    struct pen_err *err)
{
	struct pen_err local = PEN_ERR_INIT;
	int r = pen_contract_validate(c, &local);
	if (r == 0)
		return 0;
	char field[32];
	snprintf(field, sizeof(field), "%.*s", (int)strcspn(local.text, ":"), local.text);
	int f = pen_contract_field_find(field);
	return pen_yaml_err(y, f >= 0 && lines[f] ? lines[f] : map, r, err, "%s", local.text);
}

int pen_contract_from_yaml(struct pen_yaml *y, const yaml_node_t *map, const char *deflt_name,
			   const struct pen_yaml_more *more, struct pen_contract *c, struct pen_err *err)
{
	const yaml_node_t *lines[PEN_FIELD_MAX_] = { NULL };
	yaml_node_t *key_node, *value;
	const char *key;
	int r;

	if (map->type != YAML_MAPPING_NODE)
		return pen_yaml_err(y, map, -EINVAL, err, _("a contract must be a mapping of fields, such as \"memory: 1G\""));
	for (size_t i = 0; (r = pen_yaml_pair(y, map, i, &key, &key_node, &value, err)) > 0; i++) {
		r = set_pair(y, key, key_node, value, lines, more, c, err);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;
	if (!c->name[0] && deflt_name && pen_contract_set(c, "name", deflt_name, NULL) < 0)
		return pen_yaml_err(y, map, -EINVAL, err, _("name: is missing; allowed: %s"),
				    _(pen_contract_field(PEN_FIELD_name)->allowed));
	return validate(y, map, lines, c, err);
}

static int read_root(struct pen_yaml *y, struct pen_contract *ret_contract, struct pen_err *err)
{
	struct pen_contract c;
	const yaml_node_t *root = pen_yaml_root(y);

	if (!root)
		return pen_err_x(err, -EINVAL, _("%s:1: the file holds no contract"), y->origin);
	pen_contract_init(&c);
	int r = pen_contract_from_yaml(y, root, NULL, NULL, &c, err);
	if (r == 0)
		*ret_contract = c;
	return r;
}

int pen_contract_load_bytes(const char *origin, const void *data, size_t len, struct pen_contract *ret_contract,
			    struct pen_err *err)
{
	struct pen_yaml y = { .loaded = false };
	int r = pen_yaml_load_bytes(&y, origin, data, len, err);
	if (r < 0)
		return r;
	r = read_root(&y, ret_contract, err);
	pen_yaml_close(&y);
	return r;
}

int pen_contract_load_file(const char *path, struct pen_contract *ret_contract, struct pen_err *err)
{
	struct pen_yaml y = { .loaded = false };
	int r = pen_yaml_load(&y, path, err);
	if (r < 0)
		return r;
	r = read_root(&y, ret_contract, err);
	pen_yaml_close(&y);
	return r;
}

static int print_fields(const struct pen_contract *c, FILE *out, int indent, bool item, bool all)
{
	const struct pen_contract_field *f;
	for (size_t i = 0; (f = pen_contract_field(i)); i++) {
		bool set = c->set_mask & (1u << i);
		char text[PEN_VALUE_TEXT];
		pen_contract_get(c, (enum pen_field)i, text, sizeof(text));
		if (!*text || (!set && !all))
			continue;
		fprintf(out, "%*s%s: ", indent, item ? "- " : "", f->name);
		pen_yaml_put_scalar(out, text);
		fputs(set ? "\n" : "   # default\n", out);
		item = false;
	}
	return ferror(out) ? -EIO : 0;
}

int pen_contract_print(const struct pen_contract *c, FILE *out, int indent, bool all)
{
	return print_fields(c, out, indent, false, all);
}

int pen_contract_print_item(const struct pen_contract *c, FILE *out, int indent, bool all)
{
	return print_fields(c, out, indent, true, all);
}
