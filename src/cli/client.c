/* SPDX-License-Identifier: Apache-2.0 */
/* The control API's client half: libcurl over the daemon's unix socket. */
#include "base/auto.h"
#include "cli/cli.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SYSTEM_SOCKET "/run/penstock/penstock.sock"
#define ANSWER_MAX (64u << 20)

static bool socket_answers(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(a.sun_path))
		return false;
	strcpy(a.sun_path, path);
	pen_auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
}

/* Where the user's own daemon is looked for, and started. */
static int private_socket(char *buf, size_t n)
{
	const char *run = getenv("XDG_RUNTIME_DIR");
	/* Without a session the directory is made in /tmp by the daemon, mode 0700 and checked for its owner. */
	if (run && *run == '/')
		return snprintf(buf, n, "%s/penstock/penstock.sock", run);
	return snprintf(buf, n, "/tmp/penstock-%u/penstock.sock", (unsigned)getuid());
}

int pen_client_socket(const struct pen_cli *cli, char *buf, size_t n, bool *ret_private)
{
	const char *env = getenv("PENSTOCK_SOCKET");
	const char *given = cli->socket ? cli->socket : env && *env ? env : NULL;
	int len = private_socket(buf, n);
	*ret_private = given ? !strcmp(given, buf) : !socket_answers(SYSTEM_SOCKET);
	if (!*ret_private)
		len = snprintf(buf, n, "%s", given ? given : SYSTEM_SOCKET);
	return len > 0 && (size_t)len < n ? 0 : -ENAMETOOLONG;
}

/*
 * Below /tmp anybody may have made the directory of the private daemon's socket before us. Who answers there is told the
 * contract, and names the tenant directory that the program trusts: only our own directory will do.
 */
static int check_owner(const char *sock, struct pen_err *err)
{
	char dir[256];
	struct stat st;
	const char *slash = strrchr(sock, '/');
	snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - sock) : 0, sock);
	if (lstat(dir, &st) < 0)
		return 0;   /* nobody is there: connecting says so */
	if (S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 022))
		return 0;
	if (st.st_uid != geteuid())
		return pen_err_x(err, -EPERM, "'%s' belongs to user %u", dir, (unsigned)st.st_uid);
	return pen_err_x(err, -EPERM, "'%s' is not a directory that only its user can write to", dir);
}

struct answer {
	char *data;
	size_t len;
	bool (*line)(void *arg, const char *data);   /* streaming: called per "data:" line instead of collecting */
	void *arg;
};

static size_t feed_stream(struct answer *a)
{
	char *start = a->data, *nl;
	while ((nl = memchr(start, '\n', a->len - (size_t)(start - a->data)))) {
		*nl = 0;
		if (!strncmp(start, "data: ", 6) && !a->line(a->arg, start + 6))
			return 0;
		start = nl + 1;
	}
	a->len -= (size_t)(start - a->data);
	memmove(a->data, start, a->len);
	return 1;
}

static size_t on_data(char *p, size_t size, size_t n, void *arg)
{
	struct answer *a = arg;
	size_t add = size * n;
	if (a->len + add > ANSWER_MAX)
		return 0;
	char *grown = realloc(a->data, a->len + add + 1);
	if (!grown)
		return 0;
	memcpy(grown + a->len, p, add);
	a->data = grown;
	a->len += add;
	a->data[a->len] = 0;
	if (a->line && !feed_stream(a))
		return 0;
	return add;
}

static int perform(const struct pen_cli *cli, const char *method, const char *path, const char *body,
		   struct answer *a, long timeout_s, long *ret_status, struct pen_err *err)
{
	char sock[256], url[1024], text[CURL_ERROR_SIZE] = "";
	bool is_private;
	int r = pen_client_socket(cli, sock, sizeof(sock), &is_private);
	if (r < 0)
		return pen_err_sys(err, r, "path of the control socket");
	r = is_private ? check_owner(sock, err) : 0;
	if (r < 0)
		return r;
	if ((size_t)snprintf(url, sizeof(url), "http://penstock%s", path) >= sizeof(url))
		return pen_err_x(err, -ENAMETOOLONG, "path too long");

	CURL *c = curl_easy_init();
	if (!c)
		return pen_err_x(err, -ENOMEM, "libcurl");
	struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
	headers = curl_slist_append(headers, "Expect:");
	curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, sock);
	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, a);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, text);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(c, CURLOPT_TIMEOUT, timeout_s);
	if (body)
		curl_easy_setopt(c, CURLOPT_POSTFIELDS, body);
	CURLcode code = curl_easy_perform(c);
	curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, ret_status);
	curl_easy_cleanup(c);
	curl_slist_free_all(headers);
	if (code == CURLE_WRITE_ERROR && a->line)
		return 0;   /* the reader has seen enough */
	if (code == CURLE_COULDNT_CONNECT && !is_private && (cli->socket || strcmp(sock, SYSTEM_SOCKET)))
		return pen_err_x(err, -EHOSTDOWN, _("no daemon answers on %s, which %s names"), sock,
				 cli->socket ? "--socket" : "PENSTOCK_SOCKET");
	if (code == CURLE_COULDNT_CONNECT)
		return pen_err_x(err, -ECONNREFUSED, _("no daemon answers on %s"), sock);
	if (code == CURLE_GOT_NOTHING || code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR)
		return pen_err_x(err, -ECONNRESET, _("the daemon on %s ended"), sock);
	if (code != CURLE_OK)
		return pen_err_x(err, -EIO, "%s: %s", sock, *text ? text : curl_easy_strerror(code));
	return 0;
}

int pen_client_request(const struct pen_cli *cli, const char *method, const char *path, json_t *body, json_t **ret,
		       struct pen_err *err)
{
	struct answer a = { 0 };
	pen_auto_free char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	long status = 0;
	int r = perform(cli, method, path, text, &a, 60, &status, err);
	pen_auto_free char *data = a.data;
	if (r < 0)
		return r;
	json_t *answer = data ? json_loads(data, 0, NULL) : NULL;
	if (status >= 400) {
		const json_t *e = json_object_get(answer, "error");
		char message[PEN_ERR_TEXT];
		pen_cli_translate(pen_json_str(e, "message"), message, sizeof(message));
		pen_err_x(err, -EREMOTEIO, "%s", *message ? message : _("the daemon refused without a reason"));
	}
	if (ret)
		*ret = answer;
	else
		json_decref(answer);
	return (int)status;
}

int pen_client_stream(const struct pen_cli *cli, const char *path, bool (*fn)(void *arg, const char *data), void *arg,
		      struct pen_err *err)
{
	struct answer a = { .line = fn, .arg = arg };
	long status = 0;
	int r = perform(cli, "GET", path, NULL, &a, 0, &status, err);
	free(a.data);
	return r;
}

/* As pen_client_exit(), for a path below /v1/tenants/@name. */
int pen_client_exit_tenant(const struct pen_cli *cli, const char *name, int result, const struct pen_err *err)
{
	json_t *all = NULL;
	if (result != 404 || pen_client_request(cli, "GET", "/v1/tenants", NULL, &all, NULL) != 200) {
		json_decref(all);
		return pen_client_exit(cli->command->name, result, err);
	}
	int code = pen_cli_no_tenant(cli->command->name, name, json_object_get(all, "tenants"));
	json_decref(all);
	return code;
}

int pen_client_exit(const char *cmd, int result, const struct pen_err *err)
{
	if (result >= 200 && result < 400)
		return PEN_EXIT_OK;
	int code = PEN_EXIT_FAILURE;
	if (result == -ECONNREFUSED || result == -EHOSTDOWN)
		code = PEN_EXIT_NO_DAEMON;
	else if (result == 401 || result == 403 || result == 409)
		code = PEN_EXIT_DENIED;
	else if (result == 404)
		code = PEN_EXIT_NO_OBJECT;
	else if (result == 400 || result == 422)
		code = PEN_EXIT_USAGE;
	fprintf(stderr, "penstock %s: %s\n", cmd, err->text);
	if (result == -ECONNREFUSED)
		fputs(_("Start one with 'systemctl start penstock', or let 'penstock run' start a private one.\n"), stderr);
	return code;
}

void pen_client_escape(char *buf, size_t n, const char *text)
{
	size_t k = strlen(buf);
	for (; *text && k + 4 < n; text++) {
		unsigned char c = (unsigned char)*text;
		bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
			     c == '_' || c == '.';
		if (plain)
			buf[k++] = (char)c;
		else
			k += (size_t)snprintf(buf + k, n - k, "%%%02X", c);
	}
	buf[k] = 0;
}

long long pen_json_int(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);
	return json_is_real(v) ? (long long)json_real_value(v) : json_integer_value(v);
}

const char *pen_json_str(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s ? s : "";
}
