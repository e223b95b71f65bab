/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tenant's name: that of its directory. In a container the directory is mounted under another one, and
 * the table of mounts says what it is called outside.
 */
#include "base/auto.h"
#include "board/proto.h"
#include "lib/lib.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define MOUNTS_MAX 65536u

static bool is_name(const char *s, size_t n)
{
	if (!n || n >= PEN_LIB_NAME_MAX || s[0] == '.' || s[0] == '_' || s[0] == '-')
		return false;
	return strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789._-") >= n;
}

static void last_part(const char *path, size_t n, char name[PEN_LIB_NAME_MAX])
{
	while (n && path[n - 1] == '/')
		n--;
	size_t from = n;
	while (from && path[from - 1] != '/')
		from--;
	if (!is_name(path + from, n - from))
		return;
	memcpy(name, path + from, n - from);
	name[n - from] = '\0';
}

/*
 * "36 35 98:0 /penstock/seats/cam /run/penstock/tenant ro ...": the last such line is the mount that is
 * seen.
 */
static void from_mounts(const char *text, char name[PEN_LIB_NAME_MAX])
{
	for (const char *line = text; line && *line;
	     line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		const char *at = line;
		for (int i = 0; at && i < 3; i++) {
			at = strchr(at, ' ');
			at = at ? at + 1 : NULL;
		}
		size_t n = at ? strcspn(at, " \n") : 0;
		if (n && at[n] == ' ' && !strncmp(at + n + 1, PEN_TENANT_MOUNT " ", sizeof(PEN_TENANT_MOUNT)))
			last_part(at, n, name);
	}
}

static void read_mounts(char name[PEN_LIB_NAME_MAX])
{
	pen_auto_close int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	pen_auto_free char *text = fd < 0 ? NULL : malloc(MOUNTS_MAX + 1);
	size_t n = 0;
	while (text && n < MOUNTS_MAX) {
		ssize_t got = read(fd, text + n, MOUNTS_MAX - n);
		if (got <= 0)
			break;
		n += (size_t)got;
	}
	if (!text)
		return;
	text[n] = '\0';
	from_mounts(text, name);
}

void pen_lib_name(char name[PEN_LIB_NAME_MAX])
{
	enum { EMPTY, FILLING, FILLED };
	static _Atomic uint32_t state;
	static char known[PEN_LIB_NAME_MAX];
	uint32_t is = EMPTY;
	int saved = errno;
	name[0] = '\0';
	if (atomic_load_explicit(&state, memory_order_acquire) == FILLED) {
		memcpy(name, known, sizeof(known));
		return;
	}
	/* The same order as the gate's. */
	const char *dir = secure_getenv(PEN_TENANT_ENV);
	if (access(PEN_TENANT_MOUNT, F_OK) == 0)
		read_mounts(name);
	else if (dir)
		last_part(dir, strlen(dir), name);
	if (*name && atomic_compare_exchange_strong(&state, &is, FILLING)) {
		memcpy(known, name, strlen(name) + 1);
		atomic_store_explicit(&state, FILLED, memory_order_release);
	}
	errno = saved;
}
