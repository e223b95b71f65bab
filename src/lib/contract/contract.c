/* SPDX-License-Identifier: Apache-2.0 */
/* libpenstock-contract: src/contract for other programs. */
#include "base/auto.h"
#include "contract/contract.h"

#include <penstock/contract.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PEN_EXPORT __attribute__((visibility("default")))

_Static_assert(sizeof(struct penstock_problem) == 808, "append: the first size stays");

struct penstock_contract {
	struct pen_contract c;
};

static void copy(char *to, size_t n, const char *from, size_t len)
{
	len = len < n ? len : n - 1;
	memcpy(to, from, len);
	to[len] = '\0';
}

/* "FILE:LINE: FIELD: ..." is what a person reads; a program gets the parts. */
static void tell(struct penstock_problem *p, const char *origin, const struct pen_err *err)
{
	struct penstock_problem o = { .size = sizeof(o) };
	const char *at = err->text;
	size_t n = origin ? strlen(origin) : 0;
	if (!p || p->size < sizeof(o))
		return;
	copy(o.text, sizeof(o.text), err->text, strlen(err->text));
	if (n && !strncmp(at, origin, n) && at[n] == ':') {
		copy(o.file, sizeof(o.file), origin, n);
		char *end;
		o.line = (uint32_t)strtoul(at + n + 1, &end, 10);
		at = end[0] == ':' && end[1] == ' ' ? end + 2 : at + n;
	}
	n = strcspn(at, ":");
	copy(o.field, sizeof(o.field), at, n);
	if (at[n] != ':' || pen_contract_field_find(o.field) < 0)
		o.field[0] = '\0';
	memcpy(p, &o, sizeof(o));
}

static int error_of(int r)
{
	switch (r) {
	case 0:
		return PENSTOCK_OK;
	case -ENOENT:
	case -ENOTDIR:
		return PENSTOCK_ERR_NOT_FOUND;
	case -EINVAL:
	case -ERANGE:
	case -EFBIG:
		return PENSTOCK_ERR_INVALID;
	default:
		return PENSTOCK_ERR_FAILED;
	}
}

static int make(const struct pen_contract *c, penstock_contract_t **ret)
{
	*ret = malloc(sizeof(**ret));
	if (!*ret)
		return PENSTOCK_ERR_FAILED;
	(*ret)->c = *c;
	return PENSTOCK_OK;
}

PEN_EXPORT int penstock_contract_new(penstock_contract_t **ret_contract)
{
	struct pen_contract c;
	if (!ret_contract)
		return PENSTOCK_ERR_INVALID;
	pen_contract_init(&c);
	return make(&c, ret_contract);
}

PEN_EXPORT int penstock_contract_load(const char *path, penstock_contract_t **ret_contract,
				      struct penstock_problem *problem)
{
	struct pen_contract c;
	struct pen_err err = PEN_ERR_INIT;
	if (!path || !ret_contract)
		return PENSTOCK_ERR_INVALID;
	int r = pen_contract_load_file(path, &c, &err);
	if (r == 0)
		return make(&c, ret_contract);
	tell(problem, path, &err);
	return error_of(r);
}

PEN_EXPORT int penstock_contract_parse(const char *origin, const char *text, size_t length,
				       penstock_contract_t **ret_contract, struct penstock_problem *problem)
{
	struct pen_contract c;
	struct pen_err err = PEN_ERR_INIT;
	if (!origin || !text || !ret_contract)
		return PENSTOCK_ERR_INVALID;
	int r = pen_contract_load_bytes(origin, text, length, &c, &err);
	if (r == 0)
		return make(&c, ret_contract);
	tell(problem, origin, &err);
	return error_of(r);
}

PEN_EXPORT void penstock_contract_free(penstock_contract_t *contract)
{
	free(contract);
}

PEN_EXPORT int penstock_contract_set(penstock_contract_t *contract, const char *field, const char *value,
				     struct penstock_problem *problem)
{
	struct pen_err err = PEN_ERR_INIT;
	if (!contract || !field)
		return PENSTOCK_ERR_INVALID;
	int r = value ? pen_contract_set(&contract->c, field, value, &err)
		      : pen_contract_unset(&contract->c, field, &err);
	if (r < 0)
		tell(problem, NULL, &err);
	return r < 0 ? PENSTOCK_ERR_INVALID : PENSTOCK_OK;
}

PEN_EXPORT int penstock_contract_check(const penstock_contract_t *contract, struct penstock_problem *problem)
{
	struct pen_err err = PEN_ERR_INIT;
	if (!contract)
		return PENSTOCK_ERR_INVALID;
	int r = pen_contract_validate(&contract->c, &err);
	if (r < 0)
		tell(problem, NULL, &err);
	return error_of(r);
}

PEN_EXPORT int penstock_contract_get(const penstock_contract_t *contract, const char *field, char *buf,
				     size_t size)
{
	char text[PEN_VALUE_TEXT];
	int f = contract && field && buf ? pen_contract_field_find(field) : -1;
	if (f < 0)
		return PENSTOCK_ERR_INVALID;
	pen_contract_get(&contract->c, (enum pen_field)f, text, sizeof(text));
	if (strlen(text) >= size)
		return PENSTOCK_ERR_INVALID;
	memcpy(buf, text, strlen(text) + 1);
	return PENSTOCK_OK;
}

PEN_EXPORT const char *penstock_contract_field(size_t index)
{
	const struct pen_contract_field *f = pen_contract_field(index);
	return f ? f->name : NULL;
}

PEN_EXPORT int penstock_contract_print(const penstock_contract_t *contract, int all, char **ret_text)
{
	char *text = NULL;
	size_t n;
	if (!contract || !ret_text)
		return PENSTOCK_ERR_INVALID;
	FILE *out = open_memstream(&text, &n);
	int r = out ? pen_contract_print(&contract->c, out, 0, all) : -ENOMEM;
	if (out && fclose(out) != 0)
		r = -EIO;
	if (r < 0) {
		free(text);
		return PENSTOCK_ERR_FAILED;
	}
	*ret_text = text;
	return PENSTOCK_OK;
}
