/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file. A runtime drops all of it if it does not know its version or a field, podman 4.3 without a word, so the version is the
 * lowest that has everything which is used: 0.5.0 only where a name begins with a digit, else 0.3.0.
 *
 * It is made in the directory itself and renamed: runtimes look for creation and renaming there, and must never see half of it.
 */
#include "integration/cdi/cdi.h"

#include "base/auto.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* As the specification has it: letters, digits and _-.: with a letter or digit at both ends. */
bool pen_cdi_name_is_valid(const char *name)
{
	size_t len = strlen(name);
	return len && isalnum((unsigned char)name[0]) && isalnum((unsigned char)name[len - 1]);
}

int pen_cdi_device_set(struct pen_cdi_device *d, const char *name, const struct pen_service_edit *edits, size_t n)
{
	json_t *env = json_array(), *mounts = json_array(), *nodes = json_array(), *o = json_object();
	for (size_t i = 0; i < n; i++) {
		const struct pen_service_edit *e = &edits[i];
		if (e->kind == PEN_EDIT_ENV)
			json_array_append_new(env, json_sprintf("%s=%s", e->inside, e->host));
		else if (e->kind == PEN_EDIT_NODE)
			json_array_append_new(nodes, json_pack("{s:s}", "path", e->inside));
		else
			json_array_append_new(mounts, json_pack("{s:s, s:s, s:[s,s,s,s,s]}", "hostPath", e->host, "containerPath",
								e->inside, "options", "ro", "nosuid", "nodev", "rbind", "rprivate"));
	}
	if (json_array_size(env))
		json_object_set(o, "env", env);
	if (json_array_size(nodes))
		json_object_set(o, "deviceNodes", nodes);
	if (json_array_size(mounts))
		json_object_set(o, "mounts", mounts);
	json_decref(env);
	json_decref(nodes);
	json_decref(mounts);
	snprintf(d->name, sizeof(d->name), "%s", name);
	d->edits = o;
	return o ? 0 : -ENOMEM;
}

char *pen_cdi_text(json_t *common, const struct pen_cdi_device *v, size_t n)
{
	json_t *devices = json_array();
	bool digit = false;
	for (size_t i = 0; i < n; i++) {
		json_array_append_new(devices, json_pack("{s:s, s:o}", "name", v[i].name, "containerEdits", v[i].edits));
		digit |= isdigit((unsigned char)v[i].name[0]) != 0;
	}
	json_t *o = json_pack("{s:s, s:s, s:o}", "cdiVersion", digit ? "0.5.0" : "0.3.0", "kind", PEN_CDI_KIND, "devices", devices);
	if (common)
		json_object_set_new(o, "containerEdits", common);
	char *text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
	json_decref(o);
	return text;
}

int pen_cdi_write(const char *dir, const char *text)
{
	char path[PATH_MAX], tmp[PATH_MAX];
	if ((size_t)snprintf(path, sizeof(path), "%s/" PEN_CDI_FILE, dir) >= sizeof(path) ||
	    (size_t)snprintf(tmp, sizeof(tmp), "%s/.penstock.tmp", dir) >= sizeof(tmp))
		return -ENAMETOOLONG;
	if (!text)
		return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
	if (mkdir(dir, 0755) == 0)
		chmod(dir, 0755);   /* whatever the umask: engines of others than root look here too */
	else if (errno != EEXIST)
		return -errno;
	unlink(tmp);
	pen_auto_close int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return -errno;
	size_t len = strlen(text);
	ssize_t w = write(fd, text, len);
	if (w != (ssize_t)len || fchmod(fd, 0644) < 0 || rename(tmp, path) < 0) {
		int r = w >= 0 && w != (ssize_t)len ? -ENOSPC : -errno;
		unlink(tmp);
		return r;
	}
	return 0;
}
