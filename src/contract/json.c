/* SPDX-License-Identifier: Apache-2.0 */
#include "base/auto.h"
#include "contract/internal.h"

#include <errno.h>
#include <string.h>

json_t *pen_contract_to_json(const struct pen_contract *c)
{
	json_t *object = json_object();
	const struct pen_contract_field *f;
	for (size_t i = 0; object && (f = pen_contract_field(i)); i++) {
		char text[PEN_VALUE_TEXT];
		if (i == PEN_FIELD_name && !c->name[0])
			continue;
		json_t *v = i == PEN_FIELD_priority ? json_integer(c->priority) :
						      json_string(pen_contract_get(c, (enum pen_field)i, text, sizeof(text)));
		if (json_object_set_new(object, f->name, v) < 0) {
			json_decref(object);
			return NULL;
		}
	}
	return object;
}

static int set_member(struct pen_contract *c, const char *field, const json_t *v, struct pen_err *err)
{
	char number[32], shown[64];

	if (json_is_null(v))
		return pen_contract_unset(c, field, err);
	if (json_is_string(v) && strlen(json_string_value(v)) == json_string_length(v))
		return pen_contract_set(c, field, json_string_value(v), err);
	if (json_is_integer(v)) {
		snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(v));
		return pen_contract_set(c, field, number, err);
	}
	return pen_err_x(err, -EINVAL, _("%s: must be a text, a whole number or null"),
			 pen_printable(shown, sizeof(shown), field));
}

void pen_contract_json_prune(json_t *object)
{
	const char *field;
	json_t *v;
	void *next;
	json_object_foreach_safe(object, next, field, v)
		if (pen_contract_field_find(field) < 0)
			json_object_del(object, field);
}

int pen_contract_from_json(struct pen_contract *c, const json_t *object, struct pen_err *err)
{
	struct pen_contract work = *c;
	const char *field;
	json_t *v;

	if (!json_is_object(object))
		return pen_err_x(err, -EINVAL, _("a contract must be a JSON object"));
	/* jansson's iterators take a non-const object but do not change it. */
	json_object_foreach((json_t *)(uintptr_t)object, field, v) {
		int r = set_member(&work, field, v, err);
		if (r < 0)
			return r;
	}
	int r = pen_contract_validate(&work, err);
	if (r < 0)
		return r;
	*c = work;
	return 0;
}
