/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tenant directories: <runtime>/tenants/NAME with the attach socket and the token; they are what makes a process managed.
 *
 * <runtime>/seats/NAME has both once more, for containers: there a program may run as anybody, so the token is for all to read, and only
 * who runs the daemon can reach the directory, to mount it. Mounted is the directory, since a restarted daemon makes new files in it. It
 * does not lie below NAME: that is its owner's, who could put a link there for root's container engine to follow.
 */
#include "base/auto.h"
#include "board/attach.h"
#include "daemon/daemon.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(sizeof(((struct pen_tenant *)0)->dir) <= PEN_TENANT_DIR_MAX, "clients could not open it");

static int make_dir(const char *path, mode_t mode, struct pen_err *err)
{
	if (mkdir(path, mode) < 0 && errno != EEXIST)
		return pen_err_sys(err, -errno, "directory '%s'", path);
	struct stat st;
	/* Not through a link, and nobody else's: the token will lie there. */
	if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode))
		return pen_err_x(err, -ENOTDIR, "'%s' is not a directory", path);
	return 0;
}

/*
 * A directory that was there before belongs to its last owner, who could put links in the place of what we make in it, and
 * a change of mode would follow them: ours alone until everything lies in it.
 */
static int take_back(const char *path, mode_t mode, struct pen_err *err)
{
	if (geteuid() != 0)
		return 0;
	if (lchown(path, 0, 0) < 0 || chmod(path, mode) < 0)
		return pen_err_sys(err, -errno, "owner of '%s'", path);
	return 0;
}

/*
 * In a container the tenant may run as any user, who must be able to read the token; on the host nobody else may come near
 * it, so what is made for containers lies below a directory of root alone, from where the runtime mounts it.
 */
static mode_t token_mode(const struct pen_tenant *t)
{
	return *t->owner ? 0444 : 0400;
}

static int write_token(const struct pen_tenant *t, const char *dir, mode_t mode, struct pen_err *err)
{
	char path[sizeof(t->dir) + 32], hex[2 * PEN_TOKEN_BYTES + 2];
	for (unsigned i = 0; i < PEN_TOKEN_BYTES; i++)
		snprintf(hex + 2 * i, 3, "%02x", t->token[i]);
	memcpy(hex + sizeof(hex) - 2, "\n", 2);
	snprintf(path, sizeof(path), "%s/" PEN_TOKEN_FILE, dir);
	unlink(path);
	pen_auto_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0400);
	if (fd < 0 || write(fd, hex, sizeof(hex) - 1) != (ssize_t)sizeof(hex) - 1 || fchmod(fd, mode) < 0)
		return pen_err_sys(err, -(errno ? errno : EIO), "'%s'", path);
	if (geteuid() == 0 && fchown(fd, t->owner_uid, t->owner_gid) < 0)
		return pen_err_sys(err, -errno, "owner of '%s'", path);
	return 0;
}

static int give_to_owner(const struct pen_tenant *t, struct pen_err *err)
{
	char sock[sizeof(t->dir) + 16];
	snprintf(sock, sizeof(sock), "%s/" PEN_ATTACH_SOCK, t->dir);
	/* In a container the tenant may run as anybody: the token is the key, so the socket itself is open to all who see it. */
	if (chmod(sock, 0666) < 0)
		return pen_err_sys(err, -errno, "mode of '%s'", sock);
	/* Containers come by another directory. Here nobody else could do more than say a wrong token, or send what harms us. */
	if (!*t->owner && chmod(t->dir, 0700) < 0)
		return pen_err_sys(err, -errno, "mode of '%s'", t->dir);
	/* The directory last: from then on its owner can put another file in the socket's place. */
	if (geteuid() == 0 && (lchown(sock, t->owner_uid, t->owner_gid) < 0 ||
			       chown(t->dir, t->owner_uid, t->owner_gid) < 0))
		return pen_err_sys(err, -errno, "owner of '%s'", t->dir);
	return 0;
}

void pen_tenant_seat_dir(const struct pen_tenant *t, char *buf, size_t n)
{
	if (*t->owner)   /* its own directory is made for containers */
		snprintf(buf, n, "%s", t->dir);
	else
		snprintf(buf, n, "%s/" PEN_SEATS_DIR "/%s", t->daemon->cfg.runtime_dir, t->name);
}

/* After the socket is there: the same one once more, so whoever connects here is served by the same listener. */
static int make_seat(const struct pen_tenant *t, struct pen_err *err)
{
	char above[PEN_CONFIG_PATH_MAX + 16], dir[sizeof(t->dir) + 32], from[sizeof(t->dir) + 32], to[sizeof(t->dir) + 64];
	snprintf(above, sizeof(above), "%s/" PEN_SEATS_DIR, t->daemon->cfg.runtime_dir);
	pen_tenant_seat_dir(t, dir, sizeof(dir));
	snprintf(from, sizeof(from), "%s/" PEN_ATTACH_SOCK, t->dir);
	snprintf(to, sizeof(to), "%s/" PEN_ATTACH_SOCK, dir);
	int r = make_dir(above, 0700, err);
	if (r == 0 && chmod(above, 0700) < 0)
		r = pen_err_sys(err, -errno, "mode of '%s'", above);
	if (r == 0)
		r = make_dir(dir, 0755, err);
	if (r == 0)
		r = write_token(t, dir, 0444, err);
	if (r < 0)
		return r;
	unlink(to);
	return link(from, to) < 0 ? pen_err_sys(err, -errno, "'%s'", to) : 0;
}

static void remove_seat(const struct pen_tenant *t)
{
	static const char *const files[] = { "/" PEN_ATTACH_SOCK, "/" PEN_TOKEN_FILE, "" };
	char dir[sizeof(t->dir) + 32], path[sizeof(t->dir) + 64];
	pen_tenant_seat_dir(t, dir, sizeof(dir));
	for (size_t i = 0; i < PEN_ARRAY_LEN(files); i++) {
		snprintf(path, sizeof(path), "%s%s", dir, files[i]);
		if (unlink(path) < 0 && !*files[i])
			rmdir(path);
	}
}

int pen_tenant_dir_make(struct pen_daemon *d, struct pen_tenant *t, struct pen_err *err)
{
	char above[PEN_CONFIG_PATH_MAX + 16];
	snprintf(above, sizeof(above), "%s/%s", d->cfg.runtime_dir, *t->owner ? PEN_CONTAINERS_DIR : PEN_TENANTS_DIR);
	int r = make_dir(above, *t->owner ? 0700 : 0755, err);
	if (r == 0 && *t->owner && chmod(above, 0700) < 0)
		r = pen_err_sys(err, -errno, "mode of '%s'", above);
	if (r == 0)
		r = make_dir(t->dir, 0755, err);
	if (r == 0)
		r = take_back(t->dir, 0755, err);
	if (r == 0)
		r = write_token(t, t->dir, token_mode(t), err);
	if (r == 0)
		r = pen_attach_listen(d, t, err);
	if (r == 0 && !*t->owner)
		r = make_seat(t, err);
	if (r == 0 && *t->owner)
		r = pen_owner_record(t, err);
	if (r == 0)
		r = give_to_owner(t, err);
	if (r < 0)
		pen_tenant_dir_remove(t);
	return r;
}

/* The directory is its owner's, who can put a link in its place of what we made: no step follows one. */
void pen_tenant_dir_remove(struct pen_tenant *t)
{
	if (*t->owner)
		pen_owner_unrecord(t);
	else
		remove_seat(t);
	if (t->listen_ev)
		event_free(t->listen_ev);
	t->listen_ev = NULL;
	if (t->listen_fd >= 0)
		close(t->listen_fd);
	t->listen_fd = -1;
	int dir = open(t->dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir >= 0) {
		unlinkat(dir, PEN_ATTACH_SOCK, 0);
		unlinkat(dir, PEN_TOKEN_FILE, 0);
		close(dir);
	}
	rmdir(t->dir);
}
