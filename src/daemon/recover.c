/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tenant that an integration made is told to a container runtime before the store has written it, and the runtime tells nobody again. So each
 * has a record beside its directory, which lies in memory as that does and is there when the daemon is killed a moment later. The store
 * is what counts: a record is only read for a tenant that it does not know.
 */
#include "base/auto.h"
#include "daemon/daemon.h"
#include "daemon/service.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define TAIL ".json"

static void hex_of(const uint8_t *token, char *hex)
{
	for (unsigned i = 0; i < PEN_TOKEN_BYTES; i++)
		snprintf(hex + 2 * i, 3, "%02x", token[i]);
}

static bool token_of(const char *hex, uint8_t *token)
{
	if (!hex || strlen(hex) != 2 * PEN_TOKEN_BYTES || strspn(hex, "0123456789abcdef") != 2 * PEN_TOKEN_BYTES)
		return false;
	for (unsigned i = 0; i < PEN_TOKEN_BYTES; i++) {
		char two[3] = { hex[2 * i], hex[2 * i + 1], 0 };
		token[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	return true;
}

static void path_of(const struct pen_tenant *t, char *path, size_t n)
{
	snprintf(path, n, "%s" TAIL, t->dir);
}

int pen_owner_record(const struct pen_tenant *t, struct pen_err *err)
{
	char path[sizeof(t->dir) + 16], hex[2 * PEN_TOKEN_BYTES + 1];
	hex_of(t->token, hex);
	json_t *o = json_pack("{s:s, s:s, s:s, s:o, s:f}", "owner", t->owner, "token", hex, "note", t->note ? t->note : "", "contract",
			      pen_contract_to_json(&t->contract), "created", t->created);
	pen_auto_free char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	if (!text)
		return pen_err_sys(err, -ENOMEM, "record");
	path_of(t, path, sizeof(path));
	unlink(path);
	pen_auto_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	size_t len = strlen(text);
	if (fd < 0 || write(fd, text, len) != (ssize_t)len)
		return pen_err_sys(err, -(errno ? errno : EIO), "'%s'", path);
	return 0;
}

void pen_owner_unrecord(const struct pen_tenant *t)
{
	char path[sizeof(t->dir) + 16];
	path_of(t, path, sizeof(path));
	unlink(path);
}

static void recover_one(struct pen_daemon *d, const char *dir, const char *file)
{
	char path[PEN_CONFIG_PATH_MAX + PEN_NAME_MAX + 32];
	uint8_t token[PEN_TOKEN_BYTES];
	struct pen_err err = PEN_ERR_INIT;
	struct pen_tenant *t;
	snprintf(path, sizeof(path), "%s/%s", dir, file);
	json_t *o = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
	const char *owner = json_string_value(json_object_get(o, "owner"));
	struct pen_tenant_new n = { .token = token, .owner = owner, .note = json_string_value(json_object_get(o, "note")),
				    .created = json_real_value(json_object_get(o, "created")) };
	pen_contract_init(&n.contract);
	json_t *contract = json_object_get(o, "contract");
	if (contract)
		pen_contract_json_prune(contract);
	if (owner && *owner && strlen(owner) < PEN_OWNER_MAX && token_of(json_string_value(json_object_get(o, "token")), token) &&
	    contract && pen_contract_from_json(&n.contract, contract, &err) == 0) {
		int r = pen_tenant_create(d, &n, &t, &err);
		if (r == -EAGAIN || r == -ERANGE || r == -ENODEV) {
			n.lapsed = true;   /* its token must stay good */
			r = pen_tenant_create(d, &n, &t, &err);
		}
		pen_event(d, r < 0 ? PEN_EVENT_ALERT : PEN_EVENT_INTEGRATION, NULL, NULL, "%s: %s, of which the store knew nothing%s%s",
			  owner, n.contract.name, r < 0 ? ": " : "", r < 0 ? err.text : "");
	} else
		unlink(path);   /* half written, or not ours */
	json_decref(o);
}

void pen_owner_recover(struct pen_daemon *d)
{
	char path[PEN_CONFIG_PATH_MAX + 32], name[PEN_NAME_MAX + 1];
	const struct dirent *de;
	snprintf(path, sizeof(path), "%s/" PEN_CONTAINERS_DIR, d->cfg.runtime_dir);
	DIR *dir = opendir(path);
	while (dir && (de = readdir(dir))) {
		size_t len = strlen(de->d_name), tail = strlen(TAIL);
		if (len <= tail || len - tail >= sizeof(name) || strcmp(de->d_name + len - tail, TAIL))
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)(len - tail), de->d_name);
		if (!pen_tenant_find(d, name))
			recover_one(d, path, de->d_name);
	}
	if (dir)
		closedir(dir);
}
