/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/api.h"

#include "base/auto.h"
#include "contract/text.h"
#include "daemon/http.h"
#include "daemon/store.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct route {
	enum pen_api_method method;
	const char *path;
	int (*run)(struct pen_api_call *call);
	bool changes;
};

static const struct route routes[] = {
#define X(method, path, fn, changes) { PEN_API_##method, path, pen_api_##fn, changes },
	PEN_API_ROUTES(X)
#undef X
};

json_t *pen_json_u64(uint64_t v)
{
	return json_integer(v > INT64_MAX ? INT64_MAX : (json_int_t)v);
}

int pen_api_answer(struct pen_api_call *call, int status, json_t *object)
{
	if (!object || json_object_set_new(object, "schema", json_string("penstock/v1")) < 0) {
		json_decref(object);
		call->status = 500;
		return -ENOMEM;
	}
	json_decref(call->answer);
	call->answer = object;
	call->status = status;
	return 0;
}

static int error_answer(struct pen_api_call *call, int status, const char *code, const char *message, const char *field,
			const char *allowed)
{
	json_t *e = json_pack("{s:s, s:s}", "code", code, "message", message);
	if (field)
		json_object_set_new(e, "field", json_string(field));
	if (allowed)
		json_object_set_new(e, "allowed", json_string(allowed));
	return pen_api_answer(call, status, json_pack("{s:o}", "error", e));
}

int pen_api_error(struct pen_api_call *call, int status, const char *code, const char *fmt, ...)
{
	char text[PEN_ERR_TEXT];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pen_text_clean(text);   /* JSON must be UTF-8; texts may quote what a caller sent */
	return error_answer(call, status, code, text, NULL, NULL);
}

int pen_api_refuse(struct pen_api_call *call, int r, const struct pen_err *err)
{
	static const struct {
		int errnum, status;
		const char *code;
	} map[] = {
		{ EAGAIN, 409, "refused" },       { ERANGE, 409, "refused" },   { EBUSY, 409, "refused" },
		{ ENODEV, 409, "refused" },       { ENOSPC, 409, "refused" },   { EEXIST, 409, "exists" },
		{ ESHUTDOWN, 409, "refused" },    { ESRCH, 400, "field-invalid" }, { EINVAL, 400, "field-invalid" },
		{ ENAMETOOLONG, 400, "field-invalid" },
	};
	int status = 500;
	const char *code = "internal";
	for (size_t i = 0; i < PEN_ARRAY_LEN(map); i++)
		if (map[i].errnum == -r) {
			status = map[i].status;
			code = map[i].code;
		}
	char text[PEN_ERR_TEXT], field[PEN_NAME_MAX + 1];
	snprintf(text, sizeof(text), "%s", err->text);
	pen_text_clean(text);
	size_t n = strcspn(text, ": ");
	snprintf(field, sizeof(field), "%.*s", (int)PEN_MIN(n, sizeof(field) - 1), text);
	int i = text[n] == ':' ? pen_contract_field_find(field) : -ENOENT;
	return error_answer(call, status, code, text, i < 0 ? NULL : field,
			    i < 0 || status != 400 ? NULL : pen_contract_field((size_t)i)->allowed);
}

uint64_t pen_api_query_u64(const struct pen_api_call *call, const char *key, uint64_t deflt)
{
	size_t len = strlen(key);
	for (const char *s = call->query; s; s = strchr(s, '&') ? strchr(s, '&') + 1 : NULL)
		if (!strncmp(s, key, len) && s[len] == '=' && s[len + 1] >= '0' && s[len + 1] <= '9')
			return strtoull(s + len + 1, NULL, 10);
	return deflt;
}

/* "*" in @pattern takes one part of the path, a name. */
static bool path_matches(const char *pattern, const char *path, char *name, size_t n)
{
	for (; *pattern; pattern++) {
		if (*pattern != '*') {
			if (*path++ != *pattern)
				return false;
			continue;
		}
		size_t len = strcspn(path, "/");
		if (!len || len >= n)
			return false;
		memcpy(name, path, len);
		name[len] = 0;
		path += len;
	}
	return !*path;
}

static const struct route *find_route(struct pen_api_call *call, bool *ret_path_known)
{
	*ret_path_known = false;
	for (size_t i = 0; i < PEN_ARRAY_LEN(routes); i++) {
		if (!path_matches(routes[i].path, call->path, call->name, sizeof(call->name)))
			continue;
		*ret_path_known = true;
		if (routes[i].method == call->method)
			return &routes[i];
	}
	return NULL;
}

void pen_api_stores(struct pen_api_call *call)
{
	call->stores = true;
	call->store_mark = call->d->store ? pen_store_mark(call->d->store) : 0;
}

void pen_api_stored(struct pen_api_call *call, const char *why)
{
	char text[PEN_ERR_TEXT];
	json_object_set_new(call->answer, "stored", json_boolean(!why));
	if (!why)
		return;
	snprintf(text, sizeof(text), "%s", why);
	pen_text_clean(text);   /* of the system, with a path */
	json_object_set_new(call->answer, "not_stored_because", json_string(text));
}

bool pen_api_needs_devices(const struct pen_api_call *call)
{
	return call->method == PEN_API_POST && (!strcmp(call->path, "/v1/tenants") || !strncmp(call->path, "/v1/devices/", 12));
}

static int read_body(struct pen_api_call *call)
{
	if (call->method != PEN_API_POST && call->method != PEN_API_PATCH)
		return 0;
	if (call->body_len > PEN_API_BODY_MAX)
		return pen_api_error(call, 413, "too-large", N_("the body is longer than %d bytes"), PEN_API_BODY_MAX);
	json_error_t e;
	/* An empty body is an empty object: reload takes none. */
	call->json = call->body_len ? json_loadb(call->body, call->body_len, JSON_REJECT_DUPLICATES, &e) : json_object();
	if (!call->json)
		return pen_api_error(call, 400, "body-invalid", N_("the body is not JSON: %s"), e.text);
	if (!json_is_object(call->json))
		return pen_api_error(call, 400, "body-invalid", N_("the body must be a JSON object"));
	return 0;
}

static int deny(struct pen_api_call *call)
{
	char group[64];
	if (!*pen_http_group(call->d, group, sizeof(group)))
		return pen_api_error(call, 403, "denied", N_("only root and the owner of the daemon may change anything; 'group' in its configuration "
							     "lets others"));
	return pen_api_error(call, 403, "denied", N_("only root, the owner of the daemon and group %s may change anything; 'usermod -aG %s USER' puts "
						     "USER in it, from the next login on"), group, group);
}

void pen_api_run(struct pen_api_call *call)
{
	bool known;
	const struct route *r = find_route(call, &known);
	call->status = 0;
	if (!r && known)
		pen_api_error(call, 405, "no-such-method", N_("this cannot be done to %.100s"), call->path);
	else if (!r)
		pen_api_error(call, 404, "no-such-path", N_("there is no %.100s"), call->path);
	else if (r->changes && !call->may_change)
		deny(call);
	if (!r || call->status)
		return;
	if (strchr(r->path, '*')) {
		call->tenant = pen_tenant_find(call->d, call->name);
		if (!call->tenant) {
			pen_api_error(call, 404, "no-such-tenant", N_("there is no tenant '%s'"), call->name);
			return;
		}
	}
	read_body(call);
	if (!call->status)
		r->run(call);
	if (!call->status || (call->status == 500 && !call->answer))
		pen_api_error(call, 500, "internal", N_("out of memory"));
}

void pen_api_finish(struct pen_api_call *call)
{
	json_decref(call->json);
	json_decref(call->answer);
	free(call->text);
	call->json = call->answer = NULL;
	call->text = NULL;
}
